// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advertisements are anybody's: forged ones cost a few requests, and neither data nor the registration.

mod sim;

use mml_mip::*;
use sim::advertise::advertisement;
use sim::*;
use std::net::Ipv4Addr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn settled(fas: usize) -> World {
    let mut world = World::new(fas, 1);
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(500));
    world.assert_only_at(0);
    world.down = Duration::ZERO;
    world
}

/// An agent that isn't there.
fn bogus(address: Ipv4Addr) -> Advertisement {
    let mut forged = advertisement(0, 400);
    forged.routers[0].address = address;
    forged.lifetime = 9000;
    forged
}

/// The home agent, which isn't here.
fn false_home() -> Advertisement {
    let mut forged = bogus(HA);
    forged.lifetime = u16::MAX;
    let agent = forged.agent.as_mut().expect("an agent's");
    agent.flags = AgentFlags(AgentFlags::HOME | AgentFlags::REVERSE_TUNNEL);
    agent.care_of.clear();
    forged
}

fn requests_elsewhere(world: &World) -> usize {
    let elsewhere = |(_, _, event): &&(Duration, Who, Event)| matches!(event, Event::Registering { agent, .. } if *agent != care_of(0));
    world.events.iter().filter(elsewhere).count()
}

fn expired(world: &World) -> bool {
    let over = |(_, _, event): &(Duration, Who, Event)| *event == Event::Expired;
    world.events.iter().any(over)
}

#[test]
fn a_forged_advertisement_costs_a_few_requests_and_no_data() {
    let rogue = Ipv4Addr::new(192, 0, 2, 66);
    // A foreign agent at one address, at ever new ones, the home agent; all at once. For longer than a registration holds.
    for (one, many, home) in [
        (true, false, false),
        (false, true, false),
        (false, false, true),
        (true, true, true),
    ] {
        let mut world = settled(1);
        let before = world.registrations();
        for number in 0..900_u32 {
            if one {
                world.advertise(RADIO, rogue, &bogus(rogue));
            }
            if many {
                let source = Ipv4Addr::from_bits(0x0A0A_0000 + (number << 8) + 1);
                world.advertise(RADIO, source, &bogus(source));
            }
            if home {
                world.advertise(RADIO, HA, &false_home());
            }
            world.run(ms(200));
        }
        world.assert_only_at(0);
        assert_eq!(world.down, Duration::ZERO);
        assert!(!expired(&world));
        assert!(world.registrations() - before >= 4, "renewed all along");
        // One attempt of two requests each time that the last one is forgiven, after half a minute.
        let requests = requests_elsewhere(&world);
        assert!((1..=2 * 6).contains(&requests), "{requests}");
    }
}

#[test]
fn a_flood_of_forged_agents_takes_no_room_and_leaves_the_registration() {
    let mut world = settled(1);
    // Three registrations' time: whatever the flood kept from being renewed would be over.
    for number in 0..18_000_u32 {
        let source = Ipv4Addr::from_bits(0x0A00_0001 + (number << 8));
        world.advertise(RADIO, source, &bogus(source));
        if number % 7 == 0 {
            world.advertise(RADIO, HA, &false_home());
        }
        world.run(ms(10));
    }
    assert_eq!(world.down, Duration::ZERO);
    assert!(!expired(&world));
    world.run(MINUTE);
    assert_eq!(world.down, Duration::ZERO);
    world.assert_only_at(0);
}

/// Whoever says that home is here gets a signed request that it isn't, and sends it on: by the reverse tunnel of the foreign
/// agent, by another way, or straight to the home network from afar.
#[test]
fn a_mobile_node_that_was_told_it_is_at_home_isnt_deregistered_from_abroad() {
    for virtual_home in [false, true] {
        let mut home = home_config(1);
        home.home_link = home.home_link.filter(|_| !virtual_home);
        let mut world = World::with(home, vec![foreign_config(0)], node_config(), 1);
        world.enter(RADIO, Place::Cell(0));
        world.run(ms(500));
        world.down = Duration::ZERO;
        let ways = [(Interface(0), 1), (HOME_LINK, 1), (Interface(0), 0)];
        for (interface, hops) in ways {
            world.advertise(RADIO, HA, &false_home());
            let asked = world.stray.pop().expect("a request to a home agent");
            world.hand_in(Who::Ha, interface, &asked, hops);
            assert_eq!(world.refused(Who::Ha).pop(), Some(Code::HA_PROHIBITED));
            world.run(MINUTE);
        }
        if virtual_home {
            world.advertise(RADIO, HA, &false_home());
            let asked = world.stray.pop().expect("a request to a home agent");
            world.hand_in(Who::Ha, HOME_LINK, &asked, 0);
            assert_eq!(world.refused(Who::Ha).pop(), Some(Code::HA_PROHIBITED));
        }
        assert_eq!(world.refused(Who::Ha).len(), 3 + usize::from(virtual_home));
        assert_eq!(world.down, Duration::ZERO);
        world.run(MINUTE);
        world.assert_only_at(0);
    }
}

#[test]
fn a_home_agent_that_believes_it_has_the_mobile_node_back_within_seconds() {
    let mut world = settled(1);
    world.advertise(RADIO, HA, &false_home());
    let asked = world.stray.pop().expect("a request to a home agent");
    world.hand_in(Who::Ha, HOME_LINK, &asked, 0);
    assert_eq!(world.ha.bindings().count(), 0);
    world.run(Duration::from_secs(5));
    world.assert_only_at(0);
    assert!(world.down < Duration::from_secs(4), "{:?}", world.down);
}

#[test]
fn home_is_tried_again_and_found_when_nothing_answered_there_at_first() {
    let mut world = settled(1);
    world.advertise(RADIO, HA, &false_home());
    world.run(Duration::from_secs(5));
    assert_eq!(requests_elsewhere(&world), 2);
    // In by another link, with the foreign agent still heard: no cause to wait.
    world.enter(SECOND_RADIO, Place::Home);
    world.run(ms(100));
    assert!(world.mn.at_home());
}

#[test]
fn without_a_registration_forged_agents_keep_none_from_an_agent_that_is_there() {
    let mut world = World::new(1, 1);
    world.cut = true;
    world.enter(RADIO, Place::Cell(0));
    world.advertise(RADIO, HA, &false_home());
    for number in 0..2000_u32 {
        let source = Ipv4Addr::from_bits(0x0A0A_0001 + (number << 8));
        world.advertise(RADIO, source, &bogus(source));
        world.cut = number < 100;
        world.run(ms(30));
    }
    assert!(world.reachable_by(0));
}

#[test]
fn an_advertisement_counts_on_its_own_link_and_to_us_alone() {
    let mut world = settled(1);
    let forged = bogus(Ipv4Addr::new(192, 0, 2, 66));
    let cases = [
        (number::ALL_SYSTEMS, 1, true),
        (Ipv4Addr::BROADCAST, 1, true),
        (HOME, 1, true),
        (number::ALL_SYSTEMS, 255, false),
        (HOME, 2, false),
        (HOME, 64, false),
        (care_of(0), 1, false),
        (number::ALL_ROUTERS, 1, false),
    ];
    for (number, (destination, ttl, counts)) in (1_u8..).zip(cases) {
        let before = (requests_elsewhere(&world), world.mn.counters().ignored);
        let packet = Packet {
            interface: None,
            link_destination: None,
            source: Ipv4Addr::new(192, 0, number, 66),
            destination,
            ttl,
            content: Content::Icmp(forged.emit().expect("short enough")),
        };
        world.hand_in(Who::Mn, RADIO, &packet, 0);
        let after = (requests_elsewhere(&world), world.mn.counters().ignored);
        let wanted = match counts {
            true => (before.0 + 1, before.1),
            false => (before.0, before.1 + 1),
        };
        assert_eq!(after, wanted, "{destination} {ttl}");
        // Until another agent is tried again.
        world.run(MINUTE);
    }
}

#[test]
fn an_agent_answers_nobody_who_asks_from_beyond_a_router() {
    let mut world = settled(1);
    for (ttl, answered) in [(255, false), (64, false), (2, false), (1, true)] {
        let packet = Packet {
            interface: None,
            link_destination: None,
            source: HOME,
            destination: number::ALL_ROUTERS,
            ttl,
            content: Content::Icmp(Solicitation::emit()),
        };
        let answers = |world: &World, by| {
            let to_us = |(_, flight): &&(Duration, Flight)| {
                flight.from == by && flight.packet.destination == HOME
            };
            world.sent.iter().filter(to_us).count()
        };
        world.enter(SECOND_RADIO, Place::Home);
        for (who, interface) in [(Who::Fa(0), CELL), (Who::Ha, HOME_LINK)] {
            let before = answers(&world, who);
            world.hand_in(who, interface, &packet, 0);
            assert_eq!(
                answers(&world, who) - before,
                usize::from(answered),
                "{who:?} {ttl}"
            );
        }
    }
}

#[test]
fn an_agent_that_was_said_to_be_there_for_hours_is_missed_within_a_minute() {
    let mut world = settled(2);
    let mut forged = advertisement(0, 400);
    forged.lifetime = u16::MAX;
    world.advertise(RADIO, care_of(0), &forged);
    world.enter(SECOND_RADIO, Place::Cell(1));
    // It falls silent, and the link stays up.
    world.fall_silent(RADIO);
    world.run(Duration::from_secs(34));
    world.assert_only_at(1);
}

#[test]
fn an_agent_that_advertises_rarely_and_answers_who_asks_isnt_lost() {
    let rare = |mut config: ForeignConfig| {
        config.links[0].interval = Duration::from_secs(600);
        config
    };
    let config = rare(foreign_config(0));
    let mut world = World::with(home_config(1), vec![config], node_config(), 1);
    world.enter(RADIO, Place::Cell(0));
    world.run(ms(500));
    world.down = Duration::ZERO;
    world.run(10 * MINUTE);
    let lost = |(_, _, event): &(Duration, Who, Event)| *event == Event::Lost;
    assert!(!world.events.iter().any(lost));
    assert_eq!(world.down, Duration::ZERO);
    assert!(!expired(&world));
}

#[test]
fn a_renewal_that_was_due_while_nobody_was_heard_is_made_up_for() {
    let mut world = settled(1);
    let before = world.registrations();
    world.run(Duration::from_secs(40));
    // Of its three quarters of a minute the last seconds are silent.
    world.lost = 1000;
    world.run(Duration::from_secs(8));
    assert_eq!(world.registrations(), before);
    world.lost = 0;
    world.run(Duration::from_secs(3));
    assert_eq!(world.registrations(), before + 1);
    world.run(MINUTE);
    assert!(!expired(&world));
    assert_eq!(world.down, Duration::ZERO);
}
