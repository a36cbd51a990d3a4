// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Coming, moving, going home, in simulated time: how long it takes, and that nothing is left behind.

mod sim;

use mml_mip::*;
use sim::advertise::advertisement;
use sim::*;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A solicitation's round trip over the air, then a registration's over air and core.
const SIGNALLING: Duration = Duration::from_millis(2 + 2 + 2 + 10 + 10 + 2);

fn settled(fas: usize) -> World {
    let mut world = World::new(fas, 1);
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(500));
    world.assert_only_at(0);
    world
}

#[test]
fn coming_up_takes_one_solicitation_and_one_registration() {
    let mut world = World::new(1, 1);
    // Between two advertisements.
    world.run(ms(100));
    world.down = Duration::ZERO;
    world.enter(RADIO, Place::Cell(0));
    world.run(SIGNALLING);
    world.assert_only_at(0);
    assert_eq!(world.down, SIGNALLING);
    assert!(world.kernels[&Who::Ha].proxy.contains(&HOME));
    assert_eq!(world.kernels[&Who::Ha].gratuitous, 1);
}

#[test]
fn a_handoff_interrupts_for_the_radio_gap_and_its_signalling_alone() {
    let mut world = settled(2);
    world.down = Duration::ZERO;
    world.hand_off(1, ms(20));
    world.run(ms(300));
    world.assert_only_at(1);
    assert_eq!(world.down, ms(20) + SIGNALLING);
}

/// docs/wire.md 3.2i.
#[test]
fn the_new_agent_hears_of_the_previous_one_with_a_token_that_is_good_there_alone() {
    let mut world = settled(2);
    let k_ho = Key::new(&[9; 32]);
    let key = HandoverKey::derive(Prf::HmacSha256, &k_ho, care_of(0), 1);
    world.mn.handover_key(care_of(0), Some(key.clone()));
    let seen = [(256, 1 << 33), (257, 9)].map(|(spi, number)| Seen { spi, number });
    let arrived = Seen {
        spi: 258,
        number: 10,
    };
    world.seen = [seen.into(), vec![arrived]];
    world.hand_off(1, ms(20));
    world.run(ms(300));
    let relayed = world.events.iter().find_map(|(_, who, event)| match event {
        Event::Relayed {
            identification,
            previous: Some(previous),
            ..
        } if *who == Who::Fa(1) => Some((*identification, previous.clone())),
        _ => None,
    });
    let (identification, previous) = relayed.expect("the previous agent is named");
    assert_eq!(previous.address, care_of(0));
    assert_eq!(previous.seen, seen);
    let handover = Handover {
        new_fa: care_of(1),
        home: HOME,
        identification,
    };
    assert!(key.verify(&handover, &previous.token));
    let elsewhere = Handover {
        new_fa: care_of(0),
        ..handover
    };
    assert!(!key.verify(&elsewhere, &previous.token));
    // DKM begins while the registration is on its way; PKD activates when it is back; both know the same facts.
    let visiting = Event::Visiting {
        home: HOME,
        home_agent: HA,
        care_of: care_of(1),
        identification,
        previous: Some(care_of(0)),
        lifetime: 60,
        renewed: false,
    };
    let bound = Event::Bound {
        home: HOME,
        care_of: care_of(1),
        previous: Some(care_of(0)),
        named: Some(previous.clone()),
        identification,
        lifetime: 60,
    };
    assert!(world
        .events
        .iter()
        .any(|(_, who, event)| *who == Who::Fa(1) && *event == visiting));
    assert!(world
        .events
        .iter()
        .any(|(_, who, event)| *who == Who::Ha && *event == bound));
    // And the mobile node hears what has arrived of it.
    let heard = world.events.iter().find_map(|(_, _, event)| match event {
        Event::Registered {
            care_of: there,
            arrived,
            ..
        } if *there == care_of(1) => Some(arrived.clone()),
        _ => None,
    });
    assert_eq!(heard, Some(vec![arrived]));
    // A renewal tells nothing, and asks for nothing.
    world.run(Duration::from_secs(50));
    let last = world
        .events
        .iter()
        .rev()
        .find_map(|(_, _, event)| match event {
            Event::Registered { arrived, .. } => Some(arrived.clone()),
            _ => None,
        });
    assert_eq!(last, Some(Vec::new()));
}

/// From the second foreign agent to the home agent.
fn from_agent(octets: &[u8]) -> Incoming<'_> {
    Incoming {
        interface: Interface(0),
        source: care_of(1),
        destination: HA,
        ttl: 64,
        link_source: None,
        payload: Payload::Udp {
            source_port: number::PORT,
            octets,
        },
    }
}

/// docs/wire.md 4e.
#[test]
fn a_home_agent_is_asked_what_has_arrived_for_an_authentic_and_fresh_request_alone() {
    let mut world = settled(2);
    let fresh = Identification(ask::wall(&world).0);
    let request = |key: &[u8], named: bool, identification| {
        let mut builder = Builder::new(&Message::Request(Request {
            flags: RequestFlags::default(),
            lifetime: 60,
            home: HOME,
            home_agent: HA,
            care_of: care_of(1),
            identification,
        }));
        if named {
            let previous = PreviousFa {
                address: care_of(0),
                token: &[],
                seen: &[],
            };
            let longer = builder.extension(&Extension::PreviousFa(previous));
            builder = longer.expect("short");
        }
        let association = Association {
            key: Key::new(key),
            ..mobile_home()
        };
        builder
            .authenticate(Pair::MobileHome, &association)
            .finish()
    };
    let now = |world: &World| Now {
        monotonic: world.now,
        wall: ask::wall(world),
    };
    let asked = |world: &World, octets: &[u8]| world.ha.tells_seen(&from_agent(octets), now(world));
    let ours = &[1; 32];
    assert_eq!(asked(&world, &request(ours, true, fresh)), Some(HOME));
    assert_eq!(asked(&world, &request(ours, false, fresh)), None);
    assert_eq!(asked(&world, &request(&[9; 32], true, fresh)), None);
    assert_eq!(asked(&world, &[]), None);
    // The kernel isn't read for what is heard again, or was stamped far from now.
    let stamped = |time: i64| Identification(fresh.0.wrapping_add_signed(time << 32));
    for (seconds, one) in [(-8, None), (-1, None), (6, Some(HOME)), (8, None)] {
        let octets = request(ours, true, stamped(seconds));
        assert_eq!(asked(&world, &octets), one, "{seconds}");
    }
    let used = Builder::relay(&request(ours, true, fresh))
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    let at = now(&world);
    let before = world.ha.counters().accepted;
    assert_eq!(asked(&world, &used), Some(HOME));
    world.ha.handle(&from_agent(&used), at, &mut || 7);
    assert_eq!(asked(&world, &used), None);
    assert_eq!(world.ha.counters().accepted, before, "it has no T bit");
    let mut world = settled(2);
    // What was told for one host isn't told another.
    world.ha.has_seen(
        Ipv4Addr::new(203, 0, 113, 99),
        vec![Seen { spi: 1, number: 1 }],
    );
    world.hand_off(1, ms(20));
    world.run(ms(300));
    let told = world.events.iter().any(
        |(_, _, event)| matches!(event, Event::Registered { arrived, .. } if !arrived.is_empty()),
    );
    assert!(!told);
}

#[test]
fn the_agent_that_was_left_is_told_and_confirms() {
    let mut world = settled(2);
    world.hand_off(1, ms(20));
    world.run(ms(300));
    let gone = Event::Gone {
        home: HOME,
        home_agent: HA,
        reason: Reason::Revoked,
    };
    let confirmed = Event::RevocationConfirmed {
        home: HOME,
        peer: care_of(0),
    };
    assert!(world
        .events
        .iter()
        .any(|(_, who, event)| *who == Who::Fa(0) && *event == gone));
    assert!(world
        .events
        .iter()
        .any(|(_, who, event)| *who == Who::Ha && *event == confirmed));
}

#[test]
fn an_agent_that_never_confirms_is_told_five_times_and_then_named() {
    let mut world = settled(2);
    // The old agent dies with its memory and its association.
    world.fas[0] = ForeignAgent::new(
        ForeignConfig {
            home: Default::default(),
            ..foreign_config(0)
        },
        Now {
            monotonic: world.now,
            wall: Ntp(0),
        },
    );
    world.hand_off(1, ms(20));
    world.run(Duration::from_secs(60));
    let told = world.sent.iter().filter(|(_, flight)| {
        flight.from == Who::Ha
            && flight.to == Who::Fa(0)
            && matches!(&flight.packet.content, Content::Udp { octets, .. } if octets[0] == 7)
    });
    assert_eq!(told.count(), 5);
    let alarm = Event::RevocationUnconfirmed {
        home: HOME,
        peer: care_of(0),
    };
    assert_eq!(
        world
            .events
            .iter()
            .filter(|(_, _, event)| *event == alarm)
            .count(),
        1
    );
}

#[test]
fn a_hundred_handoffs_at_one_a_second_leave_nothing_behind() {
    let mut world = settled(2);
    world.down = Duration::ZERO;
    for handoff in 1..=100 {
        world.hand_off(handoff % 2, ms(20));
        world.run(ms(980));
        world.assert_only_at(handoff % 2);
    }
    assert_eq!(world.down, (ms(20) + SIGNALLING) * 100);
    assert!(
        world.refused(Who::Ha).is_empty(),
        "{:?}",
        world.refused(Who::Ha)
    );
}

#[test]
fn going_to_and_fro_faster_than_a_handoff_takes_ends_where_it_ends() {
    for every in [3, 7, 11, 13, 17, 23, 29] {
        let mut world = settled(2);
        for turn in 1..=41 {
            world.hand_off(turn % 2, ms(1));
            world.run(ms(every));
        }
        world.run(Duration::from_secs(5));
        world.assert_only_at(1);
    }
}

#[test]
fn a_registration_is_renewed_before_it_expires_and_nothing_is_interrupted() {
    let mut world = settled(1);
    world.down = Duration::ZERO;
    let before = world.registrations();
    world.run(Duration::from_secs(600));
    assert_eq!(world.down, Duration::ZERO);
    // Every 45 s, three quarters of 60.
    assert_eq!(world.registrations() - before, 13);
    world.assert_only_at(0);
}

#[test]
fn returning_home_deregisters_and_takes_the_address_back() {
    let mut world = settled(1);
    let seen = Seen {
        spi: 256,
        number: 7,
    };
    world.seen[0] = vec![seen];
    world.exit(RADIO);
    world.enter(RADIO, Place::Home);
    world.run(ms(500));
    assert!(world.mn.at_home());
    assert!(world.reachable());
    assert_eq!(world.ha.bindings().count(), 0);
    for who in [Who::Ha, Who::Fa(0), Who::Mn] {
        let kernel = &world.kernels[&who];
        assert!(
            kernel.routes.is_empty() && kernel.tunnels.is_empty(),
            "{who:?}: {kernel:?}"
        );
    }
    assert!(world.kernels[&Who::Ha].proxy.is_empty());
    assert_eq!(world.kernels[&Who::Mn].gratuitous, 1);
    let unbound = |event: &Event| {
        matches!(event, Event::Unbound {
            home: HOME,
            care_of: from,
            reason: Reason::ReturnedHome,
            seen: told,
            ..
        } if *from == care_of(0) && *told == [seen])
    };
    assert!(world.events.iter().any(|(_, _, event)| unbound(event)));
    // And out again.
    world.exit(RADIO);
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(500));
    world.assert_only_at(0);
}

#[test]
fn leaving_deregisters_through_the_agent_and_stays_silent() {
    let mut world = settled(1);
    let now = Now {
        monotonic: world.now,
        wall: Ntp::from_unix(world.now + Duration::from_secs(1_800_000_000)),
    };
    let actions = world.mn.leave(now, &mut || 7);
    world.act(Who::Mn, actions);
    world.run(ms(100));
    assert!(world
        .events
        .iter()
        .any(|(_, _, event)| *event == Event::Left));
    assert_eq!(world.ha.bindings().count(), 0);
    assert_eq!(world.fas[0].visitors().count(), 0);
    let sent = world
        .sent
        .iter()
        .filter(|(_, flight)| flight.from == Who::Mn)
        .count();
    world.run(Duration::from_secs(120));
    assert_eq!(
        world
            .sent
            .iter()
            .filter(|(_, flight)| flight.from == Who::Mn)
            .count(),
        sent
    );
}

#[test]
fn two_agents_heard_at_once_on_two_radios_are_no_reason_to_go_to_and_fro() {
    let mut world = settled(2);
    let before = world.registrations();
    world.enter(SECOND_RADIO, Place::Cell(1));
    world.run(Duration::from_secs(40));
    assert_eq!(world.registrations(), before);
    world.assert_only_at(0);
    // The second one is at hand when the first is gone: no solicitation, no waiting.
    world.down = Duration::ZERO;
    world.exit(RADIO);
    world.run(Duration::from_secs(1));
    world.assert_only_at(1);
    assert_eq!(world.down, ms(24));
}

#[test]
fn overlapping_cells_on_one_radio_move_once() {
    let mut world = settled(2);
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(100));
    let requests = |world: &World| {
        world
            .events
            .iter()
            .filter(|(_, _, event)| matches!(event, Event::Registering { agent, .. } if *agent == care_of(1)))
            .count()
    };
    for sequence in 300..340 {
        world.advertise(RADIO, care_of(1), &advertisement(1, sequence));
        world.run(ms(100));
        world.advertise(RADIO, care_of(0), &advertisement(0, sequence));
        world.run(ms(100));
    }
    // One attempt of two requests that nobody answers, and back: never one an advertisement.
    assert_eq!(requests(&world), 2);
}

#[test]
fn a_smaller_sequence_number_below_256_makes_it_register_again_and_a_roll_over_does_not() {
    for (first, second, again) in [
        (300, 5, true),
        (0xFFFF, 256, false),
        (400, 300, false),
        (40, 41, false),
        (40, 0, true),
    ] {
        let mut world = settled(1);
        world.advertise(RADIO, care_of(0), &advertisement(0, first));
        // Lower than what was heard from the real one, perhaps: let that pass.
        world.run(ms(100));
        let before = world.registrations();
        world.advertise(RADIO, care_of(0), &advertisement(0, second));
        world.run(ms(100));
        assert_eq!(
            world.registrations() - before,
            usize::from(again),
            "{first} {second}"
        );
    }
}

#[test]
fn solicitations_grow_rare_where_nobody_answers() {
    let mut world = World::new(0, 1);
    world.enter(RADIO, Place::Home);
    world.sent.clear();
    // A link with nobody: the home agent isn't heard either.
    world.cut = true;
    world.exit(RADIO);
    let now = Now {
        monotonic: world.now,
        wall: Ntp(0),
    };
    let mut node = MobileNode::new(node_config());
    let mut times = Vec::new();
    let mut note = |at: Duration, actions: Vec<Action>| {
        let sent = actions
            .iter()
            .filter(|action| matches!(action, Action::Send(_)))
            .count();
        times.extend(std::iter::repeat_n(
            at.as_millis() - world.now.as_millis(),
            sent,
        ));
    };
    note(now.monotonic, node.link_up(RADIO, now));
    while let Some(at) = node
        .next_deadline()
        .filter(|at| *at < world.now + Duration::from_secs(200))
    {
        let now = Now {
            monotonic: at,
            wall: Ntp(0),
        };
        note(at, node.tick(now, &mut || 7));
    }
    assert_eq!(
        times,
        [0, 1000, 2000, 3000, 5000, 9000, 17000, 33000, 65000, 125_000, 185_000]
    );
}

#[test]
fn an_agent_whose_link_comes_up_advertises_at_once_but_not_for_each_flap() {
    let interface = Interface(4);
    let link = Link {
        interface,
        address: care_of(0),
        prefix_len: 24,
        interval: Duration::from_secs(10),
        answers_per_second: 1,
    };
    let at = |millis| Now {
        monotonic: ms(millis),
        wall: Ntp(0xEE00_0000 << 32).plus(ms(millis)),
    };
    let mut agent = ForeignAgent::new(ForeignConfig::new(care_of(0), vec![link]), at(0));
    let sent = |agent: &mut ForeignAgent, millis| agent.tick(at(millis), &mut || 0).len();
    assert_eq!(sent(&mut agent, 0), 1);
    agent.link_up(Interface(5), at(2000));
    assert_eq!(sent(&mut agent, 2000), 0, "another link");
    agent.link_up(interface, at(2000));
    assert_eq!(agent.next_deadline(), Some(ms(2000)));
    assert_eq!(sent(&mut agent, 2000), 1);
    agent.link_up(interface, at(2010));
    assert_eq!(sent(&mut agent, 2010), 0);
    assert_eq!(agent.next_deadline(), Some(ms(2100)));
    // What was said a moment before was said to nobody.
    assert_eq!(sent(&mut agent, 2100), 1);
    assert_eq!(sent(&mut agent, 11_500), 1);
    agent.link_up(interface, at(11_510));
    assert_eq!(sent(&mut agent, 11_510), 1);
}

/// docs/wire.md 3.2y.
#[test]
fn whoever_makes_ready_for_a_host_hears_of_it_before_its_home_agent_can() {
    let mut world = settled(2);
    let base = ask::sound(&world, 1);
    let now = Now {
        monotonic: world.now,
        wall: ask::wall(&world),
    };
    let octets = ask::signed(base, &mobile_home());
    let packet = Incoming {
        interface: Interface(5),
        source: HOME,
        destination: care_of(1),
        ttl: 255,
        link_source: None,
        payload: Payload::Udp {
            source_port: number::PORT,
            octets: &octets,
        },
    };
    let actions = world.fas[1].handle(&packet, now, &mut || 7);
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).expect("there");
    let told = at(|action| matches!(action, Action::Notify(Event::Relayed { .. })));
    let left = at(|action| matches!(action, Action::Send(packet) if packet.destination == HA));
    assert!(told < left);
}
