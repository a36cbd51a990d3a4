// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The scenarios that run where each node is a guest: those about who holds which key, and the main path. What is about
//! one kernel's code alone is shown as well by one kernel, and faster.

mod along;
#[allow(dead_code)]
#[path = "../scenarios/attack.rs"]
mod attack;
#[path = "../scenarios/guard.rs"]
mod guard;
#[allow(dead_code)]
#[path = "../scenarios/handoff.rs"]
mod handoff;
#[path = "../scenarios/handoff_bad_days.rs"]
mod handoff_bad_days;
#[path = "../scenarios/handoff_killed.rs"]
mod handoff_killed;
#[path = "../scenarios/handoff_recall.rs"]
mod handoff_recall;
mod holders;
#[allow(dead_code)]
#[path = "../scenarios/mobility.rs"]
mod mobility;
#[path = "../scenarios/readers.rs"]
mod readers;
#[path = "../scenarios/relay.rs"]
mod relay;
mod repair;
#[path = "../scenarios/tunnel.rs"]
mod tunnel;

pub use holders::all_search;

use crate::scenario::Scenario;

const TABLES: &[&[Scenario]] = &[
    holders::TABLE,
    tunnel::TABLE,
    readers::TABLE,
    guard::TABLE,
    relay::TABLE,
    repair::TABLE,
    mobility::TABLE,
    handoff::TABLE,
    handoff_recall::TABLE,
    handoff_bad_days::TABLE,
    handoff_killed::TABLE,
    along::TABLE,
];

/// Those of the tables that run here.
const HERE: &[&str] = &[
    "each-node-holds-its-own-keys-and-no-other",
    "tunnel-carries-tcp-udp-icmp",
    "overhead-is-68-to-71-octets",
    "sequence-numbers-cross-32-bits",
    "newest-csa-seals-and-all-open",
    "states-decide-who-seals-and-opens",
    "fa-reads-headers-and-no-payload",
    "fa-view-is-the-same-for-any-payload",
    "stock-foreign-agent-carries-traffic",
    "no-csa-fails-closed",
    "wrong-route-fails-closed",
    "inbound-clear-is-dropped",
    "bypass-policy-passes-exactly-that",
    "discard-policy-discards",
    "bypass-does-not-apply-to-forwarded-traffic",
    "relay-key-cannot-redirect",
    "relay-forwards-what-it-cannot-open",
    "relay-joins-late",
    "snoop-repairs-losses-inside-the-tunnel",
    "mobile-host-registers-through-a-foreign-agent",
    "handoff-moves-zone-1s-keys-with-the-host",
    "handoff-finds-keys-that-were-there-before-the-host",
    "handoff-fetches-keys-from-the-previous-foreign-agent",
    "host-that-comes-home-gets-what-was-held",
    "handoff-between-agents-that-do-not-speak-loses-nothing-that-was-held",
    "ping-pong-faster-than-a-handoff-with-pkd",
    "ping-pong-faster-than-a-handoff-with-dkm",
    "handoff-after-all-key-managers-were-killed",
    "handoff-while-a-key-manager-is-killed-with-pkd",
    "handoff-while-a-key-manager-is-killed-with-dkm",
    "handoff-while-a-foreign-agent-restarts-with-pkd",
    "handoff-while-a-foreign-agent-restarts-with-dkm",
    "snoops-state-goes-along-to-another-machine",
];

/// All scenarios that run here, in the order they run.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    TABLES
        .iter()
        .copied()
        .flatten()
        .filter(|scenario| HERE.contains(&scenario.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_runs_here_is_a_scenario() {
        assert_eq!(all().count(), HERE.len());
    }
}
