// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an operator is to look at: what is wrong, since when, and that it is wrong no more.
//!
//! There is no clock here, and nobody is asked: what is wrong just now goes in, what is to be said comes out.

use mml_ike::event::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What is wrong with what. A cause has one alarm at most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// FA: a visitor's ESP passes, and none of it is opened.
    Unopened(IpAddr),
    /// HA: that foreign agent doesn't take that host's zone 1.
    NotDistributed(IpAddr, IpAddr),
    /// HA: that foreign agent hasn't answered that it has dropped that host's zone 1.
    NotRevoked(IpAddr, IpAddr),
    /// What that interface carries is too little.
    Mtu(String),
}

impl Cause {
    /// What it is called in `mmlctl status --json` and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Cause::Unopened(_) => "unopened",
            Cause::NotDistributed(..) => "not-distributed",
            Cause::NotRevoked(..) => "not-revoked",
            Cause::Mtu(_) => "mtu",
        }
    }
}

/// Something that is wrong just now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What it is and what mends it, in words.
    pub text: String,
    /// Since when, where that is known; else since it is first found.
    pub since: Option<Time>,
    /// Whether it is about packets or keys that matter now, and not about what may come.
    pub severe: bool,
    /// Whether it is being tried again just now: an alarm there is goes on, and none begins.
    pub pending: bool,
}

struct Condition {
    finding: Finding,
    since: Time,
    raised: bool,
}

/// An alarm that begins or ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Of what.
    pub cause: Cause,
    /// What it is, in words.
    pub text: String,
    /// Whether it begins.
    pub begins: bool,
    /// For how long it has been so.
    pub stood: Duration,
    /// [`Finding::severe`].
    pub severe: bool,
}

/// All that is wrong, whether it has been long enough for an alarm or not.
pub struct Alarms {
    after: Duration,
    conditions: BTreeMap<Cause, Condition>,
}

impl Alarms {
    /// None. What is wrong for `after` becomes an alarm; what an interface carries becomes one at once.
    pub fn new(after: Duration) -> Self {
        Alarms {
            after,
            conditions: BTreeMap::new(),
        }
    }

    /// Takes all that is wrong at `now`. What was wrong before and isn't among it is over.
    pub fn review(&mut self, mut found: BTreeMap<Cause, Finding>, now: Time) -> Vec<Change> {
        let mut changes = Vec::new();
        self.conditions.retain(|cause, condition| {
            if let Some(finding) = found.remove(cause) {
                condition.finding = finding;
                return true;
            }
            if condition.raised {
                changes.push(change(cause, condition, false, now));
            }
            false
        });
        for (cause, finding) in found.into_iter().filter(|(_, finding)| !finding.pending) {
            let condition = Condition {
                since: finding.since.unwrap_or(now),
                finding,
                raised: false,
            };
            self.conditions.insert(cause, condition);
        }
        for (cause, condition) in &mut self.conditions {
            let after = match cause {
                Cause::Mtu(_) => Duration::ZERO,
                _ => self.after,
            };
            if !condition.raised && condition.since + after <= now {
                condition.raised = true;
                changes.push(change(cause, condition, true, now));
            }
        }
        changes
    }

    /// Whether anything is wrong, or was when it was looked at last, that may be over by what a peer or the kernel has done.
    pub fn hang_on_peers(&self) -> bool {
        let mut causes = self.conditions.keys();
        causes.any(|cause| !matches!(cause, Cause::Mtu(_)))
    }

    /// When a [`review`](Self::review) would begin an alarm, if nothing else changes.
    pub fn next_deadline(&self) -> Option<Time> {
        let waiting = self.conditions.values().filter(|one| !one.raised);
        waiting.map(|one| one.since + self.after).min()
    }

    /// The alarms there are: of what, since when, what it is, whether it is severe.
    pub fn raised(&self) -> impl Iterator<Item = (&Cause, Time, &str, bool)> {
        let raised = self.conditions.iter().filter(|(_, one)| one.raised);
        raised.map(|(cause, one)| {
            (
                cause,
                one.since,
                one.finding.text.as_str(),
                one.finding.severe,
            )
        })
    }
}

fn change(cause: &Cause, condition: &Condition, begins: bool, now: Time) -> Change {
    Change {
        cause: cause.clone(),
        text: condition.finding.text.clone(),
        begins,
        stood: now.saturating_sub(condition.since),
        severe: condition.finding.severe,
    }
}
