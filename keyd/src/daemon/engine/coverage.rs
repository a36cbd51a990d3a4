// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How much of its visitors' ESP a foreign agent opens, by what its module has counted.
//!
//! The module counts what it opens, and what it passes on unopened, a CSA; ESP of no CSA it counts for all together, so that
//! of several visitors without one each counts as one whose ESP passes.

use super::alarms::{Cause, Finding};
use crate::daemon::kernel::{Passed, Relayed, SaId};
use mml_ike::event::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A host that is here.
#[derive(Clone, Default, Debug)]
pub struct Here {
    /// The CSAs of it that are used, both directions.
    pub active: Vec<SaId>,
    /// Those that wait.
    pub standby: Vec<SaId>,
}

/// A host, and what was last seen of it.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// CSAs of it that are used, both directions of each.
    pub active: usize,
    /// Those that wait.
    pub standby: usize,
    /// What its CSAs have counted.
    pub passed: Passed,
    /// Since when it has had no CSA that is used, and what had passed unopened by then.
    pub without: Option<(Time, u64)>,
    /// Since when what its CSAs should open couldn't be.
    pub failing: Option<Time>,
}

/// What was last seen.
#[derive(Default, Debug)]
pub struct Coverage {
    visitors: BTreeMap<IpAddr, Visitor>,
    total: Relayed,
}

impl Coverage {
    /// Takes who is here, with which CSAs, and what the module has counted at `now`.
    pub fn look(&mut self, here: &BTreeMap<IpAddr, Here>, counted: Relayed, now: Time) {
        let of = |ids: &[SaId]| {
            let mut sum = Passed::default();
            for id in ids {
                let one = counted.csas.get(id).copied().unwrap_or_default();
                sum.opened = sum.opened.saturating_add(one.opened);
                sum.unopened = sum.unopened.saturating_add(one.unopened);
            }
            sum
        };
        let mut visitors = BTreeMap::new();
        for (home, csas) in here {
            let (active, standby) = (of(&csas.active), of(&csas.standby));
            let before = self.visitors.get(home);
            let without = csas.active.is_empty().then(|| {
                // A standby's packets are its host's, who came.
                let passes = counted.no_csa.saturating_add(standby.unopened);
                before.and_then(|one| one.without).unwrap_or((now, passes))
            });
            let grew = before.filter(|one| one.active > 0).map(|one| {
                let opened = active.opened > one.passed.opened;
                (opened, active.unopened > one.passed.unopened)
            });
            let failing = match grew {
                _ if csas.active.is_empty() => None,
                Some((false, true)) => before.and_then(|one| one.failing).or(Some(now)),
                // Nothing came that says otherwise.
                Some((false, false)) => before.and_then(|one| one.failing),
                Some((true, _)) | None => None,
            };
            let passed = if csas.active.is_empty() {
                standby
            } else {
                active
            };
            let visitor = Visitor {
                active: csas.active.len(),
                standby: csas.standby.len(),
                passed,
                without,
                failing,
            };
            visitors.insert(*home, visitor);
        }
        self.visitors = visitors;
        self.total = counted;
    }

    /// Hosts that are here, by their home addresses.
    pub fn visitors(&self) -> &BTreeMap<IpAddr, Visitor> {
        &self.visitors
    }

    /// What the module has counted in all.
    pub fn total(&self) -> &Relayed {
        &self.total
    }

    /// Visitors whose ESP passes unopened.
    pub fn findings(&self) -> impl Iterator<Item = (Cause, Finding)> + '_ {
        self.visitors.iter().filter_map(|(home, one)| {
            let (since, text) = match (one.without, one.failing) {
                (Some((since, by_then)), _) => {
                    let passes = self.total.no_csa.saturating_add(one.passed.unopened);
                    // It may have nothing to say.
                    let unopened = passes.checked_sub(by_then).filter(|count| *count > 0)?;
                    let text = format!(
                        "{home} is here without a CSA, and {unopened} ESP packets passed unopened meanwhile; \
                         see whether its home agent's connection is up, and whether that names this foreign agent"
                    );
                    (since, text)
                }
                (None, Some(since)) => {
                    let text = format!(
                        "of what comes under the CSA of {home} nothing can be opened; \
                         `mmlctl stats --all` says why, `mmlctl rekey` at its home agent brings new keys"
                    );
                    (since, text)
                }
                (None, None) => return None,
            };
            let finding = Finding {
                text,
                since: Some(since),
                severe: true,
                pending: false,
            };
            Some((Cause::Unopened(*home), finding))
        })
    }
}
