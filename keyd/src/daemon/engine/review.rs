// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is looked at every now and then, for the operator: with whom zone 1 is, how much of it is opened, and what is wrong.

use super::alarms::{Cause, Finding};
use super::coverage::{Coverage, Here};
use super::relays::home_of;
use super::{Engine, Task};
use crate::daemon::config::Role;
use crate::daemon::mobility::mtu::Advice;
use mml_ike::event::{Custody, Holding, Place, Time};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Between two looks: not more often, nor less.
const PERIOD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How soon what happened is looked at.
const SOON: Duration = Duration::from_millis(100);

/// What is said of a holder in `mmlctl status`.
fn custody(of: Custody) -> &'static str {
    match of {
        Custody::Sending => "sending",
        Custody::Cast => "cast",
        Custody::Held(true) => "held",
        Custody::Held(false) => "held-by-datagram",
        Custody::Leaving => "leaving",
        Custody::Revoking => "revoking",
        Custody::Unconfirmed => "not-confirmed",
        Custody::Failed => "not-taken",
        Custody::Perhaps => "may-have",
    }
}

fn place(of: Place) -> &'static str {
    match of {
        Place::Current => "current",
        Place::Standby => "standby",
        Place::Former => "former",
    }
}

/// HA: what is wrong with a holder.
fn wrong(of: &Holding) -> Option<(Cause, Finding)> {
    let Holding { home, fa, .. } = *of;
    let (cause, text, pending) = match of.custody {
        Custody::Failed | Custody::Sending => (
            Cause::NotDistributed(home, fa),
            format!(
                "foreign agent {fa} hasn't taken zone 1's keys of {home}, whose packets pass it unopened; \
                 see whether the connection with it is up (`mmlctl status`), and its log"
            ),
            of.custody == Custody::Sending,
        ),
        Custody::Unconfirmed | Custody::Revoking => (
            Cause::NotRevoked(home, fa),
            format!(
                "foreign agent {fa} hasn't answered that it dropped zone 1's keys of {home}, and may read its \
                 headers; it is asked again when the connection with it is up, and `mmlctl rekey` gives new keys"
            ),
            of.custody == Custody::Revoking,
        ),
        Custody::Perhaps => (
            Cause::NotDistributed(home, fa),
            format!(
                "foreign agent {fa} doesn't say that it has zone 1's keys of {home} from this node; it may have them, by an answer \
                 that was lost or from the foreign agent before; see whether the connection with it is up (`mmlctl status`)"
            ),
            false,
        ),
        Custody::Cast | Custody::Held(_) | Custody::Leaving => return None,
    };
    let finding = Finding {
        text,
        since: None,
        // What a standby lacks costs nothing yet.
        severe: of.place != Place::Standby,
        pending,
    };
    Some((cause, finding))
}

impl Engine {
    /// HA, FA: when there is something to look at.
    pub(super) fn review_regularly(&mut self, now: Time) {
        if matches!(self.config.role, Role::Ha | Role::Fa) {
            let period = (self.config.alarm_after / 4).clamp(PERIOD.0, PERIOD.1);
            self.later(now + period, Task::Review);
        }
    }

    /// Looks at what may be wrong, and says what became so or is so no more.
    pub(super) fn review(&mut self, now: Time) {
        self.look(now);
        let mut found: BTreeMap<Cause, Finding> = self.coverage.findings().collect();
        for (cause, finding) in self.endpoint.holdings().filter_map(|one| wrong(&one)) {
            // Of several CSAs of a host what is worst counts.
            let before = found.get(&cause);
            let weight = |one: &Finding| (!one.pending, one.severe);
            if before.is_none_or(|before| weight(before) < weight(&finding)) {
                found.insert(cause, finding);
            }
        }
        for advice in &self.advice {
            let finding = Finding {
                text: advice.to_string(),
                since: None,
                severe: false,
                pending: false,
            };
            found.insert(Cause::Mtu(advice.interface.clone()), finding);
        }
        for change in self.alarms.review(found, now) {
            let (kind, text, seconds) = (change.cause.name(), &change.text, change.stood.as_secs());
            match (change.begins, change.severe) {
                (true, true) => tracing::error!(alarm = kind, seconds, "{text}"),
                (true, false) => tracing::warn!(alarm = kind, seconds, "{text}"),
                (false, _) => tracing::warn!(alarm = kind, seconds, "no more: {text}"),
            }
            self.counters.alarms += u64::from(change.begins);
        }
        // One that is due before the next regular look is raised in its time.
        if let Some(at) = self.alarms.next_deadline().filter(|at| *at > now) {
            self.review_at(at);
        }
    }

    /// Something happened that an alarm may begin or end with; much may happen at once.
    pub(super) fn review_soon(&mut self, now: Time) {
        self.review_at(now + SOON);
    }

    /// Something went well, which is worth a look where something was wrong: where nothing is, many of these come, with each
    /// rekeying of each host, and a look takes as long as there are CSAs.
    pub(super) fn review_if_amiss(&mut self, now: Time) {
        if self.alarms.hang_on_peers() {
            self.review_soon(now);
        }
    }

    fn review_at(&mut self, at: Time) {
        if self.reviewed_at.is_none_or(|other| at < other) {
            self.reviewed_at = Some(at);
            self.later(at, Task::ReviewOnce);
        }
    }

    /// What [`review_soon`](Self::review_soon) or an alarm's time asked for.
    pub(super) fn review_once(&mut self, now: Time) {
        self.reviewed_at = self.reviewed_at.filter(|at| *at > now);
        self.review(now);
    }

    /// FA: takes what the module has counted.
    fn look(&mut self, now: Time) {
        if self.config.role != Role::Fa {
            return;
        }
        let fixed = self.config.registered.iter().map(|(home, _)| *home);
        let came = self.host.book.mobile.keys().map(|home| IpAddr::V4(*home));
        let mut here: BTreeMap<IpAddr, Here> = fixed
            .chain(came)
            .map(|home| (home, Here::default()))
            .collect();
        for relay in self.host.book.relays.values() {
            let of = home_of(&relay.selector).and_then(|home| here.get_mut(&home));
            if let Some(of) = of {
                let list = match relay.standby {
                    true => &mut of.standby,
                    false => &mut of.active,
                };
                list.extend([relay.outbound, relay.inbound]);
            }
        }
        let Some(module) = &mut self.host.kernels.mml else {
            return;
        };
        match module.relayed() {
            Ok(counted) => self.coverage.look(&here, counted, now),
            Err(error) => tracing::debug!("the module's counters can't be read: {error}"),
        }
    }

    /// What an interface carries and doesn't, as Mobile IP's routing found it.
    pub fn advised(&mut self, advice: Vec<Advice>, now: Time) {
        if self.advice != advice {
            self.advice = advice;
            self.review(now);
        }
    }

    /// FA: how much was opened, when it was last looked at.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// How many alarms there are.
    pub fn alarm_count(&self) -> usize {
        self.alarms.raised().count()
    }

    /// HA: with whom zone 1's keys are.
    pub(super) fn keys_status(&self) -> Vec<Value> {
        let mut all: Vec<Holding> = self.endpoint.holdings().collect();
        all.sort_by_key(|one| (one.home, place(one.place), one.fa, one.spi));
        let all = all.iter().map(|one| {
            json!({
                "home": one.home.to_string(),
                "foreign_agent": one.fa.to_string(),
                "spi": one.spi,
                "generation": one.generation,
                "as": place(one.place),
                "state": custody(one.custody),
            })
        });
        all.collect()
    }

    /// FA: how much of each visitor's ESP is opened.
    pub(super) fn coverage_status(&self, now: Time) -> Vec<Value> {
        let visitors = self.coverage.visitors().iter().map(|(home, one)| {
            let without = one.without.map(|(since, _)| now.saturating_sub(since));
            json!({
                "home": home.to_string(),
                // Both directions of each.
                "csas": one.active / 2,
                "standby_csas": one.standby / 2,
                "opened": one.passed.opened,
                "unopened": one.passed.unopened,
                "without_csa_seconds": without.map(|time| time.as_secs()),
            })
        });
        visitors.collect()
    }

    pub(super) fn alarms_status(&self, now: Time) -> Vec<Value> {
        let raised = self.alarms.raised().map(|(cause, since, text, severe)| {
            json!({
                "alarm": cause.name(),
                "severe": severe,
                "text": text,
                "age_seconds": now.saturating_sub(since).as_secs(),
            })
        });
        raised.collect()
    }
}
