// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Everything at once, by chance: nothing panics, no kernel is asked for what it would refuse, and when the bad days are
//! over the mobile node is reachable in one place, with nothing left in any other.

mod sim;

use mml_mip::*;
use proptest::prelude::*;
use sim::advertise::advertisement;
use sim::*;
use std::net::Ipv4Addr;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Run(u64),
    Enter(bool, usize),
    Exit(bool),
    Links(u32, u32, u64),
    Cut(bool),
    RestartFa(usize),
    RestartHa(bool),
    Skew(i64),
    Revoke(bool),
    /// Somebody advertises on a radio's link: as the home agent, a foreign agent, or one that there isn't.
    Forge(bool, Forged),
    /// A packet that was sent comes again, with these octets turned.
    Replay(prop::sample::Index, Vec<(prop::sample::Index, u8)>),
}

#[derive(Clone, Copy, Debug)]
enum Forged {
    Home,
    Foreign(usize),
    Stranger(u8),
}

fn forged() -> impl Strategy<Value = Forged> {
    prop_oneof![
        Just(Forged::Home),
        (0_usize..3).prop_map(Forged::Foreign),
        any::<u8>().prop_map(Forged::Stranger),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let turned = (any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        4 => (0_u64..3000).prop_map(Step::Run),
        4 => (0_u64..40).prop_map(Step::Run),
        3 => (any::<bool>(), 0_usize..4).prop_map(|(radio, place)| Step::Enter(radio, place)),
        2 => any::<bool>().prop_map(Step::Exit),
        1 => (0_u32..300, 0_u32..300, 0_u64..50).prop_map(|(l, d, j)| Step::Links(l, d, j)),
        1 => any::<bool>().prop_map(Step::Cut),
        1 => (0_usize..3).prop_map(Step::RestartFa),
        1 => any::<bool>().prop_map(Step::RestartHa),
        1 => (-20_000_i64..20_000).prop_map(Step::Skew),
        1 => any::<bool>().prop_map(Step::Revoke),
        2 => (any::<bool>(), forged()).prop_map(|(radio, forged)| Step::Forge(radio, forged)),
        3 => (any::<prop::sample::Index>(), prop::collection::vec(turned, 0..3))
            .prop_map(|(which, turned)| Step::Replay(which, turned)),
    ]
}

fn radio(second: bool) -> Interface {
    match second {
        true => SECOND_RADIO,
        false => RADIO,
    }
}

fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Run(time) => world.run(ms(*time)),
        Step::Enter(second, 3) => world.enter(radio(*second), Place::Home),
        Step::Enter(second, fa) => world.enter(radio(*second), Place::Cell(*fa)),
        Step::Exit(second) => world.exit(radio(*second)),
        Step::Links(lost, doubled, jitter) => {
            (world.lost, world.doubled, world.jitter) = (*lost, *doubled, ms(*jitter));
        }
        Step::Cut(cut) => world.cut = *cut,
        Step::RestartFa(fa) => world.restart_fa(*fa),
        Step::RestartHa(keep) => world.restart_ha(*keep),
        Step::Skew(skew) => world.skew = *skew,
        Step::Revoke(by_home_agent) => {
            let now = Now {
                monotonic: world.now,
                wall: Ntp::from_unix(world.now + Duration::from_secs(1_800_000_000)),
            };
            if *by_home_agent {
                let actions = world.ha.revoke(HOME, now);
                world.act(Who::Ha, actions);
            } else {
                let actions = world.fas[0].revoke(HOME, now);
                world.act(Who::Fa(0), actions);
            }
        }
        Step::Forge(second, forged) => {
            let source = match *forged {
                Forged::Home => HA,
                Forged::Foreign(fa) => care_of(fa),
                Forged::Stranger(number) => Ipv4Addr::new(192, 0, number, 66),
            };
            let mut said = advertisement(0, 400);
            said.routers[0].address = source;
            said.lifetime = u16::MAX;
            let agent = said.agent.as_mut().expect("an agent's");
            agent.care_of = vec![source];
            if matches!(forged, Forged::Home) {
                agent.flags.0 |= AgentFlags::HOME;
            }
            world.advertise(radio(*second), source, &said);
        }
        Step::Replay(which, turned) => {
            if world.sent.is_empty() {
                return;
            }
            let (_, mut flight) = world.sent[which.index(world.sent.len())].clone();
            let (Content::Udp { octets, .. } | Content::Icmp(octets)) = &mut flight.packet.content;
            for (at, bits) in turned {
                let at = at.index(octets.len());
                octets[at] ^= bits;
            }
            world.inject(&flight);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_bad_day_the_mobile_node_is_in_one_place(
        seed in 1_u64..u64::MAX,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(3, seed);
        for step in &steps {
            apply(&mut world, step);
        }
        (world.lost, world.doubled, world.jitter, world.cut) = (0, 0, Duration::ZERO, false);
        world.skew = 0;
        world.exit(RADIO);
        world.exit(SECOND_RADIO);
        // Lifetimes end what nobody could tell the agents.
        world.run(Duration::from_secs(61));
        world.enter(RADIO, Place::Cell(1));
        world.run(Duration::from_secs(40));
        world.assert_only_at(1);
    }
}
