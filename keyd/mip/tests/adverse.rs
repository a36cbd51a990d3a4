// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bad links, restarts, clocks that are off, in simulated time: the mobile node is reachable again, soon enough.

mod sim;

use mml_mip::*;
use sim::*;
use std::time::Duration;

fn settled(fas: usize, seed: u64) -> World {
    let mut world = World::new(fas, seed);
    world.run(ms(100));
    world.enter(RADIO, Place::Cell(0));
    world.run(Duration::from_secs(2));
    world.assert_only_at(0);
    world
}

/// Handoffs over links like these: how long each interrupted, shortest first.
fn interruptions(lost: u32, doubled: u32, jitter: Duration, seed: u64) -> Vec<Duration> {
    let mut world = settled(3, seed);
    (world.lost, world.doubled, world.jitter) = (lost, doubled, jitter);
    let mut all = Vec::new();
    for _ in 0..40 {
        let to = world.random() as usize % 3;
        world.down = Duration::ZERO;
        world.hand_off(to, ms(20));
        world.run(Duration::from_secs(30));
        // Renewals may be lost, too: no other handoff before this one is over.
        while !world.reachable_by(to) {
            world.run(Duration::from_secs(1));
            assert!(
                world.down < Duration::from_secs(120),
                "loss {lost}, seed {seed}"
            );
        }
        all.push(world.down);
    }
    // What was lost on the way is made good by revocations sent again, and by lifetimes at the latest.
    (world.lost, world.doubled) = (0, 0);
    world.run(Duration::from_secs(90));
    let at = (0..3)
        .find(|&fa| world.reachable_by(fa))
        .expect("reachable");
    world.assert_only_at(at);
    all.sort_unstable();
    all
}

#[test]
fn doubled_and_reordered_packets_cost_a_little_time_and_no_state() {
    for seed in 1..8 {
        let longest = *interruptions(0, 300, ms(30), seed).last().expect("forty");
        // Six hops, each up to 30 ms longer; and four more where a rejection overtook an acceptance.
        assert!(
            longest <= ms(20 + 28 + 24 + 10 * 30),
            "seed {seed}: {longest:?}"
        );
    }
}

#[test]
fn lost_packets_cost_retransmissions_and_a_handoff_in_two_none() {
    for seed in 1..8 {
        let all = interruptions(100, 50, ms(5), seed);
        // A handoff's six hops all succeed with 0.9^6 = 0.53.
        let quick = all
            .iter()
            .filter(|time| **time <= ms(20 + 28 + 6 * 5))
            .count();
        assert!((10..=32).contains(&quick), "seed {seed}: {quick} of 40");
    }
}

#[test]
fn a_third_of_all_packets_lost_still_ends_in_one_place() {
    for seed in 1..6 {
        let mut world = settled(2, seed);
        (world.lost, world.doubled, world.jitter) = (333, 200, ms(40));
        for turn in 1..=20 {
            world.hand_off(turn % 2, ms(50));
            world.run(ms(4000));
        }
        (world.lost, world.doubled) = (0, 0);
        world.run(Duration::from_secs(150));
        world.assert_only_at(0);
    }
}

#[test]
fn one_lost_request_costs_the_least_gap_between_two() {
    let mut world = settled(2, 1);
    world.down = Duration::ZERO;
    world.exit(RADIO);
    world.run(ms(20));
    world.enter(RADIO, Place::Cell(1));
    // The solicitation is on its way, and its answer; then the request is lost.
    world.run(ms(4) - Duration::from_micros(1));
    world.lost = 1000;
    world.run(Duration::from_micros(2));
    world.lost = 0;
    world.run(Duration::from_secs(3));
    assert_eq!(world.down, ms(20 + 4 + 1000 + 24));
}

#[test]
fn a_foreign_agent_that_restarts_is_noticed_by_its_sequence_number() {
    for seed in 1..10 {
        let mut world = settled(1, seed);
        world.run(Duration::from_secs(20));
        world.down = Duration::ZERO;
        world.restart_fa(0);
        world.run(Duration::from_secs(5));
        world.assert_only_at(0);
        // Its first advertisement leaves at once. Over the air, and a registration to the agent and back to it.
        assert_eq!(world.down, ms(2 + 2 + 10 + 10), "seed {seed}");
    }
}

#[test]
fn a_home_agent_that_lost_its_bindings_has_them_again_at_the_next_renewal() {
    let mut world = settled(1, 1);
    world.down = Duration::ZERO;
    world.restart_ha(false);
    world.run(Duration::from_secs(50));
    world.assert_only_at(0);
    assert!(world.down <= Duration::from_secs(45), "{:?}", world.down);
    assert!(world.refused(Who::Ha).is_empty());
}

#[test]
fn a_home_agent_that_kept_its_bindings_interrupts_nothing() {
    let mut world = settled(2, 1);
    world.down = Duration::ZERO;
    world.restart_ha(true);
    assert!(world.reachable());
    world.run(Duration::from_secs(120));
    assert_eq!(world.down, Duration::ZERO);
    world.assert_only_at(0);
    // A handoff at the very moment of a restart.
    world.exit(RADIO);
    world.enter(RADIO, Place::Cell(1));
    world.run(ms(10));
    world.restart_ha(true);
    world.run(Duration::from_secs(5));
    world.assert_only_at(1);
}

#[test]
fn a_home_agent_that_reads_its_bindings_back_from_routes_interrupts_nothing_and_follows_the_next_move(
) {
    let mut world = settled(2, 1);
    world.down = Duration::ZERO;
    world.resume_ha();
    assert!(world.reachable());
    world.run(Duration::from_secs(120));
    assert_eq!(world.down, Duration::ZERO, "renewals included");
    world.resume_ha();
    world.exit(RADIO);
    world.enter(RADIO, Place::Cell(1));
    world.run(Duration::from_secs(5));
    assert!(world.reachable_by(1));
}

#[test]
fn after_a_restart_a_clock_that_is_right_costs_a_round_trip_and_no_handoff_a_second() {
    // A request at the latest, its rejection, and the next one; over the air and the core.
    let again = ms(2 + 10 + 10 + 2);
    for skew in [-6000, -1000, 0, 1000, 6000] {
        for wait in [0, 1, 3000, 6000, 6900, 7100, 8000, 14_000, 16_000] {
            let mut world = settled(2, 1);
            world.skew = skew;
            world.hand_off(1, ms(20));
            world.run(Duration::from_secs(8));
            world.assert_only_at(1);
            world.resume_ha();
            for (to, wait) in [(0, wait), (1, 2000), (0, 9000)] {
                world.run(ms(wait));
                world.down = Duration::ZERO;
                world.hand_off(to, ms(20));
                world.run(ms(900));
                let most = ms(20 + 4 + 24) + again;
                assert!(
                    world.reachable_by(to) && world.down <= most,
                    "{skew} {wait}: {:?}",
                    world.down
                );
            }
        }
    }
}

#[test]
fn a_request_stamped_ahead_isnt_taken_again_by_a_home_agent_that_restarted() {
    let mut world = settled(2, 1);
    world.skew = 6900;
    world.hand_off(1, ms(20));
    world.run(ms(500));
    world.assert_only_at(1);
    let old = world.last_request();
    world.resume_ha();
    // Until its stamp is what a clock that is right would say, and beyond.
    for _ in 0..40 {
        world.run(ms(400));
        let octets = Builder::relay(&old)
            .authenticate(Pair::ForeignHome, &foreign_home(1))
            .finish();
        let code = ask::at_home_agent(&mut world, 1, octets);
        assert_eq!(code, Some(Code::HA_IDENTIFICATION));
    }
}

#[test]
fn either_agent_restarting_in_any_phase_of_a_handoff_ends_well() {
    for after in 0..40 {
        for who in [Who::Ha, Who::Fa(0), Who::Fa(1)] {
            let mut world = settled(2, 1);
            world.exit(RADIO);
            world.enter(RADIO, Place::Cell(1));
            world.run(ms(after));
            match who {
                Who::Ha => world.restart_ha(true),
                Who::Fa(fa) => world.restart_fa(fa),
                Who::Mn => {}
            }
            world.run(Duration::from_secs(70));
            world.assert_only_at(1);
        }
    }
}

#[test]
fn a_home_agent_out_of_reach_for_a_minute_is_found_again() {
    let mut world = settled(2, 1);
    world.cut = true;
    world.hand_off(1, ms(20));
    world.run(Duration::from_secs(60));
    assert!(!world.reachable());
    assert!(world.refused(Who::Fa(1)).contains(&Code::FA_TIMEOUT));
    world.cut = false;
    world.run(Duration::from_secs(60));
    world.assert_only_at(1);
}

#[test]
fn a_mobile_node_whose_clock_is_off_is_set_right_by_code_133() {
    for skew in [-86_400_000, -3_600_000, -8000, 8000, 86_400_000] {
        let mut world = World::new(2, 1);
        world.skew = skew;
        world.run(ms(100));
        world.enter(RADIO, Place::Cell(0));
        world.run(ms(200));
        world.assert_only_at(0);
        assert_eq!(world.refused(Who::Ha), [Code::HA_IDENTIFICATION], "{skew}");
        // Once and for all.
        world.hand_off(1, ms(20));
        world.run(ms(200));
        world.assert_only_at(1);
        assert_eq!(world.refused(Who::Ha).len(), 1, "{skew}");
    }
}

#[test]
fn a_clock_that_steps_back_is_set_right_too() {
    let mut world = settled(2, 1);
    for (to, skew) in [(1, -20_000), (0, -40_000), (1, 0), (0, -6000)] {
        world.skew = skew;
        world.hand_off(to, ms(20));
        world.run(Duration::from_secs(3));
        world.assert_only_at(to);
    }
}

#[test]
fn nonces_work_as_timestamps_do() {
    let association = Association {
        replay: Replay::Nonces,
        algorithm: Algorithm::HmacMd5,
        ..mobile_home()
    };
    let mut home = home_config(2);
    let subscriber = home.subscribers.get_mut(&HOME).expect("configured");
    subscriber.associations = vec![association.clone()];
    let node = NodeConfig {
        association,
        ..node_config()
    };
    let mut world = World::with(home, (0..2).map(foreign_config).collect(), node, 3);
    world.run(ms(100));
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(200));
    world.assert_only_at(0);
    assert_eq!(world.refused(Who::Ha), [Code::HA_IDENTIFICATION]);
    for handoff in 1..=20 {
        world.hand_off(handoff % 2, ms(20));
        world.run(ms(500));
        world.assert_only_at(handoff % 2);
    }
    assert_eq!(world.refused(Who::Ha).len(), 1);
    // A lost reply costs the nonce; a rejection gives it back.
    (world.lost, world.jitter) = (200, ms(5));
    for handoff in 1..=20 {
        world.hand_off(handoff % 2, ms(20));
        // Seven requests in 40 s; one in forty such handoffs needs more.
        let reached = (0..10).any(|_| {
            world.run(Duration::from_secs(40));
            world.reachable_by(handoff % 2)
        });
        assert!(reached);
    }
}

#[test]
fn the_mobile_node_takes_another_agent_when_one_is_full() {
    let full = ForeignConfig {
        max_visitors: 0,
        ..foreign_config(1)
    };
    let mut world = World::with(
        home_config(2),
        vec![foreign_config(0), full],
        node_config(),
        1,
    );
    world.run(ms(100));
    world.enter(RADIO, Place::Cell(1));
    world.enter(SECOND_RADIO, Place::Cell(0));
    world.run(Duration::from_secs(2));
    world.assert_only_at(0);
    assert!(world.refused(Who::Fa(1)).is_empty(), "the B bit was heeded");
}

#[test]
fn a_revoked_binding_is_registered_again_by_a_mobile_node_that_is_told() {
    let mut world = settled(1, 1);
    world.run(Duration::from_secs(5));
    world.down = Duration::ZERO;
    let now = Now {
        monotonic: world.now,
        wall: Ntp::from_unix(world.now + Duration::from_secs(1_800_000_000)),
    };
    let actions = world.ha.revoke(HOME, now);
    world.act(Who::Ha, actions);
    assert!(!world.reachable());
    world.run(Duration::from_secs(1));
    world.assert_only_at(0);
    // To the agent, which tells the mobile node, which registers; its own routes were never taken down.
    assert_eq!(world.down, ms(10 + 2 + 2 + 10 + 10));
}
