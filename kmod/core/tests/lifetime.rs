// SPDX-License-Identifier: GPL-2.0-only
//! Life-times: each limit is told once, the last packet within a limit passes, and no limit means none.

use mml_core::lifetime::{Due, Life, Limit};
use proptest::prelude::*;

const S: u64 = 1_000_000_000;

fn packets(soft: u32, hard: u32) -> Life {
    Life::new(Limit::new(soft, 0, 0, 0), Limit::new(hard, 0, 0, 0))
}

/// docs/wire.md 2.5d.
#[test]
fn the_packet_that_reaches_the_limit_is_the_last_one_within_it() {
    let mut life = packets(0, 3);
    assert_eq!(life.watch(), (3, Limit::NONE));
    assert!(!life.is_past(3, 1 << 40));
    assert_eq!(life.count(3, 0), Due::Hard);
    assert!(life.is_over() && life.is_past(4, 0));
}

/// docs/wire.md 2.5d.
#[test]
fn octets_past_the_limit_are_refused_and_octets_up_to_it_are_not() {
    let life = Life::new(Limit::UNLIMITED, Limit::new(0, 1000, 0, 0));
    assert!(!life.is_past(1, 1000));
    assert!(life.is_past(1, 1001));
}

/// docs/wire.md 2.5b, 2.5c.
#[test]
fn soft_then_hard_is_told_once_each() {
    let mut life = packets(2, 4);
    let told: Vec<Due> = (1..7).map(|count| life.count(count, 0)).collect();
    assert_eq!(
        told,
        [
            Due::Nothing,
            Due::Soft,
            Due::Nothing,
            Due::Hard,
            Due::Nothing,
            Due::Nothing
        ]
    );
}

#[test]
fn a_soft_limit_that_was_told_is_watched_no_more() {
    let mut life = packets(2, 4);
    assert_eq!(life.watch().0, 2);
    life.count(2, 0);
    assert_eq!(life.watch().0, 4);
    life.count(4, 0);
    assert_eq!(life.watch(), (0, 0));
}

/// docs/wire.md 2.5c.
#[test]
fn both_at_once_is_hard_alone() {
    let mut life = packets(2, 2);
    assert_eq!(life.count(2, 0), Due::Hard);
    assert_eq!(life.count(3, 0), Due::Nothing);
}

/// docs/wire.md 2.5a.
#[test]
fn time_since_added_and_since_use_run_apart() {
    let soft = Limit::new(0, 0, 10, 0);
    let hard = Limit::new(0, 0, 100, 5);
    let mut life = Life::new(soft, hard);
    let added = 7 * S;
    assert_eq!(life.deadline(added, None), 17 * S);
    assert_eq!(life.time(17 * S - 1, added, None), Due::Nothing);
    assert_eq!(life.time(17 * S, added, None), Due::Soft);
    assert_eq!(life.deadline(added, None), 107 * S);
    assert_eq!(life.deadline(added, Some(20 * S)), 25 * S);
    assert_eq!(life.time(25 * S, added, Some(20 * S)), Due::Hard);
    assert_eq!(life.deadline(added, Some(20 * S)), Limit::NONE);
}

/// docs/wire.md 2.5g.
#[test]
fn a_new_soft_limit_is_told_anew_and_what_is_over_stays_over() {
    let mut life = packets(2, 10);
    assert_eq!(life.count(2, 0), Due::Soft);
    life.change(Some(Limit::new(5, 0, 0, 0)), None);
    assert_eq!(life.count(4, 0), Due::Nothing);
    assert_eq!(life.count(5, 0), Due::Soft);
    assert_eq!(life.count(10, 0), Due::Hard);
    life.change(None, Some(Limit::UNLIMITED));
    assert!(life.is_over());
    assert_eq!(life.count(11, 0), Due::Nothing);
}

#[test]
fn zero_is_no_limit_and_the_greatest_seconds_do_not_wrap() {
    let mut life = Life::new(Limit::new(0, 0, 0, 0), Limit::new(0, 0, u64::MAX, u64::MAX));
    assert_eq!(life.count(u64::MAX - 1, u64::MAX - 1), Due::Nothing);
    assert_eq!(life.time(u64::MAX - 1, 5, Some(6)), Due::Nothing);
}

proptest! {
    /// Who asks only when a count reaches `watch` hears the same as who asks at every packet.
    #[test]
    fn asking_at_the_watched_counts_alone_misses_nothing(
        soft in (0u32..50, 0u64..5000),
        hard in (0u32..50, 0u64..5000),
        sizes in prop::collection::vec(1u64..400, 1..80),
    ) {
        let limit = |(packets, octets)| Limit::new(packets, octets, 0, 0);
        let mut always = Life::new(limit(soft), limit(hard));
        let mut watching = always;
        let mut octets = 0;
        for (packets, size) in (1..).zip(sizes) {
            octets += size;
            let told = always.count(packets, octets);
            let (p, o) = watching.watch();
            let heard = if packets >= p || octets >= o { watching.count(packets, octets) } else { Due::Nothing };
            prop_assert_eq!(told, heard);
            prop_assert_eq!(always, watching);
        }
    }
}
