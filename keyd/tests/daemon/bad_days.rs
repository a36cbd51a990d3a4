// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bad days of handoffs (docs/mobility.md): whatever happens on them, afterwards the host has its CSA, the foreign agents that
//! should have zone 1's keys have them, all others have none, and nobody remembers anything that is over.

use super::days::{Days, FA, HA, MH};
use super::sim::{ms, Fate, Place, RADIO, SECOND_RADIO};
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

/// When after the host's arrival somebody is killed, in ms: at its registration's hops, its keys', and when those it left behind
/// are revoked.
const PHASES: [u64; 12] = [0, 3, 5, 14, 16, 25, 27, 36, 40, 60, 540, 570];

/// How long a process that was killed is away: another is there at once, or the host's first try and one of its peers' come
/// to nothing.
const AWAY: [Duration; 2] = [Duration::ZERO, Duration::from_secs(2)];

/// Kills a node in each phase of a handoff each way, and sees where keys are afterwards.
fn killed_in_any_phase(node: usize, down: Duration, keep_kernel: bool) {
    for beforehand in WAYS {
        let mut days = Days::begun(2, beforehand, 2);
        for (handoff, after) in (1_u64..).zip(PHASES) {
            days.world.hand_off(there(handoff), GAP);
            days.run(ms(after));
            days.restart(node, down, keep_kernel);
            let what = format!("node {node} after {after} ms, for {down:?}");
            days.settles(&what, there(handoff));
        }
    }
}

/// docs/wire.md 3.2v.
#[test]
fn any_key_manager_may_be_killed_in_any_phase_of_a_handoff() {
    for node in [HA, MH, FA, FA + 1] {
        killed_in_any_phase(node, AWAY[0], true);
    }
}

/// docs/wire.md 3.2v.
#[test]
fn any_key_manager_may_be_away_for_a_while_in_any_phase_of_a_handoff() {
    for node in [HA, MH, FA, FA + 1] {
        killed_in_any_phase(node, AWAY[1], true);
    }
}

/// docs/wire.md 3.2v: what a router had in its kernel is gone with it.
#[test]
fn an_agent_may_be_rebooted_in_any_phase_of_a_handoff() {
    for node in [HA, FA, FA + 1] {
        for down in AWAY {
            killed_in_any_phase(node, down, false);
        }
    }
}

/// docs/wire.md 3.1g: a second radio in another cell is no handoff, until it is the only one.
#[test]
fn both_links_up_at_once_move_no_key_until_one_is_gone() {
    for beforehand in WAYS {
        let mut days = Days::begun(2, beforehand, 7);
        let (csa, registered) = (days.spis(HA), days.world.registrations());
        let at_the_other = days.spis(FA + 1);
        days.world.enter(SECOND_RADIO, Place::Cell(1));
        for _ in 0..300 {
            days.run(ms(100));
            assert_eq!(days.spis(FA), csa, "beforehand {beforehand}");
            assert_eq!(days.spis(FA + 1), at_the_other, "beforehand {beforehand}");
        }
        assert_eq!(days.world.registrations(), registered);
        days.settles("both up", 0);
        days.world.exit(RADIO);
        days.settles("the second alone", 1);
        // And back, with both up in between.
        days.world.enter(RADIO, Place::Cell(0));
        days.settles("both up again", 1);
        days.world.exit(SECOND_RADIO);
        days.settles("the first alone", 0);
        assert_eq!(days.spis(HA), csa, "it is the same CSA");
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
                        let down = AWAY[(draw(&mut days, 2)) as usize];
                        let keep = node == MH || draw(&mut days, 2) == 0;
                        days.restart(node, down, keep);
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
