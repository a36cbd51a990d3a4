// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bad days of handoffs (docs/mobility.md): whatever happens on them, afterwards the host has its CSA, the foreign agents that
//! should have zone 1's keys have them, all others have none, and nobody remembers anything that is over.

use super::days::{Days, FA, HA, MH};
use super::sim::{ms, Fate, Place, RADIO};
use std::time::Duration;

/// Between two cells the radio hears nobody.
const GAP: Duration = ms(20);

/// Both ways of giving keys: beforehand (PKD), and from foreign agent to foreign agent (DKM).
const WAYS: [bool; 2] = [true, false];

fn there(handoff: u64) -> usize {
    (handoff % 2) as usize
}

/// docs/wire.md 3.1d, 3.1f, 3.1g, 3.1h.
#[test]
fn any_message_of_a_handoff_may_be_lost_doubled_or_late() {
    for beforehand in WAYS {
        let mut days = Days::begun(2, beforehand, 1);
        let before = days.spis(HA);
        let fates = [Fate::Lost, Fate::Doubled, Fate::Late(ms(300))];
        // More than a handoff has.
        let each = (1..=24).flat_map(|number| fates.map(|fate| (number, fate)));
        for (handoff, (number, fate)) in (1_u64..).zip(each) {
            let at = days.world.messages + number;
            days.world.fates.insert(at, fate);
            days.world.hand_off(there(handoff), GAP);
            let what = format!("message {number} {fate:?}");
            days.settles(&what, there(handoff));
            days.world.fates.clear();
        }
        assert_eq!(days.spis(HA), before, "it is the same CSA");
    }
}

/// docs/wire.md 3.2v.
#[test]
fn any_key_manager_may_be_killed_in_any_phase_of_a_handoff() {
    for beforehand in WAYS {
        for node in [HA, MH, FA, FA + 1] {
            let mut days = Days::begun(2, beforehand, 2);
            let phases = [0, 3, 5, 14, 16, 25, 27, 36, 40, 60, 540, 570];
            for (handoff, after) in (1_u64..).zip(phases) {
                days.world.hand_off(there(handoff), GAP);
                days.run(ms(after));
                days.restart(node);
                let what = format!("node {node} after {after} ms");
                days.settles(&what, there(handoff));
            }
        }
    }
}

/// docs/wire.md 3.2k, 3.2z.
#[test]
fn a_host_that_goes_to_and_fro_faster_than_a_handoff_takes_leaves_keys_where_it_ends() {
    for beforehand in WAYS {
        let mut days = Days::begun(3, beforehand, 3);
        let before = days.spis(HA);
        for (round, every) in [2, 5, 11, 17, 26, 31, 50, 120].into_iter().enumerate() {
            for step in 0..20 {
                days.world.exit(RADIO);
                days.world.enter(RADIO, Place::Cell((round + step) % 3));
                days.run(ms(every));
            }
            let last = (round + 19) % 3;
            days.settles(&format!("every {every} ms"), last);
        }
        assert_eq!(days.spis(HA), before, "it is the same CSA");
    }
}

/// docs/wire.md 3.2w.
#[test]
fn a_home_agent_out_of_reach_for_a_minute_costs_neither_the_csa_nor_a_key() {
    for beforehand in WAYS {
        let mut days = Days::begun(2, beforehand, 4);
        for (handoff, after) in (1_u64..).zip([0, 5, 15, 30, 600]) {
            days.world.cut = after == 0;
            days.world.hand_off(there(handoff), GAP);
            days.run(ms(after));
            days.world.cut = true;
            days.run(Duration::from_secs(60));
            days.world.cut = false;
            days.settles(&format!("gone after {after} ms"), there(handoff));
        }
    }
}

/// docs/wire.md 3.1g, 3.2v.
#[test]
fn a_foreign_agent_that_could_not_be_told_drops_the_keys_when_it_can_be() {
    // It is left while the home agent's key manager can't speak with its own, for longer than an IKE SA lasts so, or less.
    for seconds in [5, 200] {
        let mut days = Days::begun(2, false, 5);
        days.apart.insert(0);
        days.world.hand_off(1, GAP);
        days.run(Duration::from_secs(seconds));
        assert_eq!(days.spis(FA + 1).len(), 2, "the new one has them");
        days.apart.clear();
        days.settles(&format!("after {seconds} s"), 1);
    }
}

/// docs/wire.md 3.2k: a CSA that came from the previous foreign agent is nobody's to revoke if the home agent never hears of
/// the registration it was asked for with.
#[test]
fn a_foreign_agent_whose_host_was_never_accepted_keeps_no_key_that_was_handed_on() {
    let mut days = Days::begun(2, false, 6);
    days.world.exit(RADIO);
    days.world.cut = true;
    days.world.enter(RADIO, Place::Cell(1));
    days.run(ms(500));
    assert_eq!(days.spis(FA + 1).len(), 2, "handed on meanwhile");
    days.world.exit(RADIO);
    days.world.cut = false;
    days.world.enter(RADIO, Place::Cell(0));
    days.settles("back", 0);
}

/// Everything of the above, by chance.
#[test]
fn after_any_bad_day_keys_are_where_the_host_is_and_nowhere_else() {
    for (seed, beforehand) in (10..14).flat_map(|seed| WAYS.map(|way| (seed, way))) {
        let mut days = Days::begun(3, beforehand, seed);
        let mut at = 0;
        for day in 0..3 {
            let draw = |days: &mut Days, below: u32| days.world.random() % below;
            for _ in 0..8 {
                (days.world.lost, days.world.doubled) =
                    (draw(&mut days, 300), draw(&mut days, 200));
                days.world.jitter = ms(u64::from(draw(&mut days, 60)));
                match draw(&mut days, 8) {
                    0 => days.world.cut = true,
                    1 => {
                        let fa = draw(&mut days, 3) as usize;
                        days.apart.insert(fa);
                    }
                    2 => {
                        let node = draw(&mut days, 5) as usize;
                        days.restart(node);
                    }
                    _ => {
                        at = draw(&mut days, 3) as usize;
                        days.world.hand_off(at, GAP);
                    }
                }
                let time = u64::from(draw(&mut days, 12));
                days.run(ms(time * time * time * 4));
                days.world.cut = false;
                if draw(&mut days, 2) == 0 {
                    days.apart.clear();
                }
            }
            (days.world.lost, days.world.doubled, days.world.jitter) = (0, 0, Duration::ZERO);
            days.apart.clear();
            days.settles(&format!("seed {seed}, day {day}"), at);
        }
    }
}
