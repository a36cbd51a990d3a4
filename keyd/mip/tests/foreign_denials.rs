// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the foreign agent refuses, and with which code.

mod sim;

use mml_mip::*;
use sim::ask::*;
use sim::*;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

#[test]
fn the_foreign_agent_denies_with_the_code_that_applies() {
    let mut world = settled();
    let base = sound(&world, 1);
    let flags = |bits| RequestFlags(RequestFlags::REVERSE_TUNNEL | bits);
    let cases = [
        (
            Request {
                care_of: care_of(0),
                ..base
            },
            Code::FA_CARE_OF,
        ),
        (
            Request {
                lifetime: 1801,
                ..base
            },
            Code::FA_LIFETIME,
        ),
        (
            Request {
                flags: flags(RequestFlags::GRE),
                ..base
            },
            Code::FA_ENCAPSULATION,
        ),
        (
            Request {
                flags: flags(RequestFlags::MINIMAL),
                ..base
            },
            Code::FA_ENCAPSULATION,
        ),
        (
            Request {
                home_agent: care_of(1),
                ..base
            },
            Code::FA_HOME_AGENT_ADDRESS,
        ),
        (
            Request {
                home_agent: Ipv4Addr::BROADCAST,
                ..base
            },
            Code::FA_HOME_AGENT_ADDRESS,
        ),
        (
            Request {
                home: Ipv4Addr::UNSPECIFIED,
                ..base
            },
            Code::FA_MALFORMED_REQUEST,
        ),
        (
            Request {
                home: care_of(1),
                ..base
            },
            Code::FA_MALFORMED_REQUEST,
        ),
        // Somebody else's home address, from a node that has one of its own.
        (
            Request {
                home: Ipv4Addr::new(203, 0, 113, 8),
                ..base
            },
            Code::FA_MALFORMED_REQUEST,
        ),
    ];
    for (at, (request, code)) in cases.into_iter().enumerate() {
        let octets = signed(request, &mobile_home());
        assert_eq!(
            at_foreign_agent(&mut world, 1, octets),
            Some(code),
            "case {at}"
        );
    }
    let after = |request: Request, extension: &Extension<'_>| {
        Builder::relay(&signed(request, &mobile_home()))
            .extension(extension)
            .expect("short")
            .finish()
    };
    let delivery = after(base, &Extension::EncapsulatingDelivery);
    assert_eq!(
        at_foreign_agent(&mut world, 1, delivery),
        Some(Code::FA_DELIVERY)
    );
    let senseless = after(
        Request {
            flags: RequestFlags(0),
            ..base
        },
        &Extension::EncapsulatingDelivery,
    );
    assert_eq!(
        at_foreign_agent(&mut world, 1, senseless),
        Some(Code::FA_MALFORMED_REQUEST)
    );
    let claimed = Builder::relay(&signed(base, &mobile_home()))
        .authenticate(Pair::MobileForeign, &association(300, 3))
        .finish();
    assert_eq!(
        at_foreign_agent(&mut world, 1, claimed),
        Some(Code::FA_MOBILE_AUTHENTICATION)
    );
    let mut cut = signed(base, &mobile_home());
    cut.pop();
    assert_eq!(
        at_foreign_agent(&mut world, 1, cut),
        Some(Code::FA_MALFORMED_REQUEST)
    );
    let bare = Builder::new(&Message::Request(base)).finish();
    assert_eq!(
        at_foreign_agent(&mut world, 1, bare),
        Some(Code::FA_MALFORMED_REQUEST)
    );
    // Nothing of all that was relayed.
    assert!(!world
        .sent
        .iter()
        .any(|(_, flight)| flight.from == Who::Fa(1) && flight.to == Who::Ha));
}

#[test]
fn the_foreign_agent_denies_as_it_is_configured() {
    let none = HashMap::new();
    let elsewhere = Prefix {
        network: Ipv4Addr::new(203, 0, 112, 0),
        len: 24,
    };
    let others = HashMap::from([(HA, vec![elsewhere])]);
    let reverse = |reverse_tunnel| ForeignConfig {
        reverse_tunnel,
        ..foreign_config(0)
    };
    let mobile = [(HOME, vec![association(300, 3)])].into();
    let (with, without) = (RequestFlags::REVERSE_TUNNEL, 0);
    for (config, bits, code) in [
        (
            ForeignConfig {
                home_agents: Some(none),
                ..foreign_config(0)
            },
            with,
            Code::FA_PROHIBITED,
        ),
        (
            ForeignConfig {
                home_agents: Some(others),
                ..foreign_config(0)
            },
            with,
            Code::FA_PROHIBITED,
        ),
        (
            ForeignConfig {
                max_visitors: 0,
                ..foreign_config(0)
            },
            with,
            Code::FA_RESOURCES,
        ),
        (
            ForeignConfig {
                max_pending: 0,
                ..foreign_config(0)
            },
            with,
            Code::FA_RESOURCES,
        ),
        (
            ForeignConfig {
                mobile,
                ..foreign_config(0)
            },
            with,
            Code::FA_MOBILE_AUTHENTICATION,
        ),
        (
            reverse(ReverseTunnel::Refused),
            with,
            Code::FA_REVERSE_TUNNEL,
        ),
        (
            reverse(ReverseTunnel::Required),
            without,
            Code::FA_REVERSE_TUNNEL_MANDATORY,
        ),
    ] {
        let mut world = World::with(home_config(1), vec![config], node_config(), 1);
        world.run(ms(100));
        let request = Request {
            flags: RequestFlags(bits),
            ..sound(&world, 0)
        };
        let octets = signed(request, &mobile_home());
        assert_eq!(at_foreign_agent(&mut world, 0, octets), Some(code));
    }
}

#[test]
fn a_request_that_passed_a_router_is_too_distant_for_a_reverse_tunnel() {
    let mut world = settled();
    let packet = udp(
        HOME,
        care_of(1),
        254,
        signed(sound(&world, 1), &mobile_home()),
    );
    world.hand_in(Who::Fa(1), Interface(5), &packet, 0);
    assert_eq!(world.refused(Who::Fa(1)), [Code::FA_TOO_DISTANT]);
    // From the core it isn't heard at all.
    let packet = udp(
        HOME,
        care_of(1),
        255,
        signed(sound(&world, 1), &mobile_home()),
    );
    world.hand_in(Who::Fa(1), Interface(0), &packet, 0);
    assert_eq!(world.refused(Who::Fa(1)).len(), 1);
    assert_eq!(world.fas[1].counters().ignored, 1);
}

#[test]
fn icmp_unreachable_denies_who_waits_at_once() {
    for (icmp, code) in [
        (Some(0), Code::FA_NETWORK_UNREACHABLE),
        (Some(1), Code::FA_HOST_UNREACHABLE),
        (Some(3), Code::FA_PORT_UNREACHABLE),
        (Some(13), Code::FA_UNREACHABLE),
        (None, Code::FA_UNREACHABLE),
    ] {
        let mut world = settled();
        world.cut = true;
        let octets = signed(sound(&world, 1), &mobile_home());
        world.in_cell(1, octets.clone());
        // As much of it as shows which it was.
        let actions = world.fas[1].unreachable(HA, icmp, &octets[..24]);
        world.act(Who::Fa(1), actions);
        assert_eq!(world.refused(Who::Fa(1)), [code]);
        // Once; and whoever made it up gains nothing if the home agent answers.
        let again = world.fas[1].unreachable(HA, icmp, &octets[..24]);
        assert_eq!(again, []);
        world.run(Duration::from_secs(8));
        assert_eq!(world.refused(Who::Fa(1)), [code]);
        world.cut = false;
        let octets = signed(sound(&world, 1), &mobile_home());
        world.in_cell(1, octets.clone());
        let actions = world.fas[1].unreachable(HA, icmp, &octets[..24]);
        world.act(Who::Fa(1), actions);
        world.run(ms(50));
        assert_eq!(world.fas[1].visitors().count(), 1);
    }
}

/// Where a stranger's frames come from.
#[derive(Clone, Copy, Debug)]
enum Disguise {
    /// Its own link-layer address.
    None,
    /// Another one each time.
    Ever,
    /// The mobile node's.
    Host,
}

#[test]
fn icmp_that_quotes_no_request_that_waits_denies_nobody() {
    let mut world = settled();
    world.cut = true;
    let request = sound(&world, 1);
    let octets = signed(request, &mobile_home());
    world.in_cell(1, octets.clone());
    let guessed = Request {
        identification: Identification(request.identification.0 ^ (1 << 32)),
        ..request
    };
    let stranger = Request {
        home: Ipv4Addr::new(203, 0, 113, 8),
        ..request
    };
    let others = Ipv4Addr::new(192, 0, 2, 66);
    for (from, quoted) in [
        (HA, &octets[..0]),
        (HA, &octets[..23]),
        (HA, &signed(guessed, &mobile_home())[..]),
        (HA, &signed(stranger, &mobile_home())[..]),
        (others, &octets[..]),
    ] {
        assert_eq!(world.fas[1].unreachable(from, Some(3), quoted), []);
    }
    assert_eq!(world.fas[1].counters().unexpected, 5);
    world.run(Duration::from_secs(10));
    assert_eq!(world.refused(Who::Fa(1)), [Code::FA_TIMEOUT]);
}

/// A home agent's answer to a request that waits, finished by whoever asks; then with which codes it was denied, and how many
/// visitors there are.
fn answered(finish: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (Vec<Code>, usize) {
    let mut world = settled();
    world.cut = true;
    let request = sound(&world, 1);
    world.in_cell(1, signed(request, &mobile_home()));
    let reply = Message::Reply(Reply {
        code: Code::ACCEPTED,
        lifetime: 60,
        home: HOME,
        home_agent: HA,
        identification: request.identification,
    });
    let reply = Builder::new(&reply)
        .authenticate(Pair::MobileHome, &mobile_home())
        .finish();
    let packet = udp(HA, care_of(1), 60, finish(reply));
    world.hand_in(Who::Fa(1), Interface(0), &packet, 0);
    // What proves nothing is told when nothing better has come in time.
    world.run(Duration::from_secs(8));
    (world.refused(Who::Fa(1)), world.fas[1].visitors().count())
}

/// What the home agent adds for the foreign agent, under its authenticator.
fn for_the_foreign_agent(reply: Vec<u8>, more: &[u8]) -> Vec<u8> {
    Builder::relay(&[reply, more.to_vec()].concat())
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish()
}

#[test]
fn a_poorly_formed_reply_is_told_as_one_and_takes_nobody_in() {
    assert_eq!(
        answered(|reply| for_the_foreign_agent(reply, &[])),
        (vec![], 1)
    );
    // An extension that is longer than the message.
    let longer = [number::extension::NORMAL_VENDOR, 40, 1];
    assert_eq!(
        answered(|reply| [reply, longer.to_vec()].concat()),
        (vec![Code::FA_MALFORMED_REPLY], 0)
    );
    // One that may stand once alone.
    let twice = |reply: Vec<u8>| {
        let again = Builder::relay(&reply).authenticate(Pair::MobileHome, &mobile_home());
        for_the_foreign_agent(again.finish(), &[])
    };
    assert_eq!(answered(twice), (vec![Code::FA_MALFORMED_REPLY], 0));
}

#[test]
fn a_critical_vendor_extension_of_the_home_agents_for_the_foreign_agent_is_refused_by_name() {
    // RFC 3115 §2.1: type, reserved, length, vendor, its type; §2.2: type, length, reserved, vendor, its type.
    let critical = [
        number::extension::CRITICAL_VENDOR,
        0,
        0,
        6,
        0,
        0,
        0,
        99,
        0,
        1,
    ];
    let normal = [number::extension::NORMAL_VENDOR, 8, 0, 0, 0, 0, 0, 99, 0, 1];
    assert_eq!(
        answered(|reply| for_the_foreign_agent(reply, &critical)),
        (vec![Code::FA_VENDOR_HOME], 0)
    );
    assert_eq!(
        answered(|reply| for_the_foreign_agent(reply, &normal)),
        (vec![], 1),
        "one that isn't critical is passed over"
    );
}

#[test]
fn a_stranger_that_uses_a_mobile_nodes_address_doesnt_push_its_request_out() {
    for (before, after, disguise) in [
        (0, 1000, Disguise::None),
        (1000, 1000, Disguise::None),
        (0, 60, Disguise::Ever),
        (1000, 60, Disguise::Ever),
        (0, 60, Disguise::Host),
        (1000, 60, Disguise::Host),
    ] {
        let mut world = settled();
        world.exit(RADIO);
        let ask = |world: &mut World, numbers: std::ops::Range<u32>| {
            for number in numbers {
                let request = Request {
                    identification: Identification(number.into()),
                    ..sound(world, 1)
                };
                let octets = signed(request, &association(1000, 66));
                let [_, a, b, c] = number.to_be_bytes();
                let link = match disguise {
                    Disguise::None => Some(LinkAddress([2, 0, 0, 0, 0, 66])),
                    Disguise::Ever => Some(LinkAddress([2, 0, 0, a, b, c])),
                    Disguise::Host => None,
                };
                let packet = udp(HOME, care_of(1), 255, octets);
                world.hand_in_from(link, Who::Fa(1), CELL, &packet, 0);
            }
        };
        // With nobody behind the core yet that would answer them.
        world.cut = true;
        ask(&mut world, 1..1 + before);
        world.run(ms(20));
        world.cut = false;
        world.enter(RADIO, Place::Cell(1));
        // The request is with the home agent.
        world.run(ms(4 + 3));
        ask(&mut world, 2000..2000 + after);
        world.run(ms(500));
        assert!(world.reachable_by(1), "{before} {after} {disguise:?}");
    }
}

#[test]
fn no_visitor_has_an_agents_address() {
    let elsewhere = Ipv4Addr::new(192, 0, 2, 66);
    let neighbour = Ipv4Addr::new(10, 0, 7, 1);
    let another = Ipv4Addr::new(203, 0, 113, 250);
    let everything = Prefix {
        network: Ipv4Addr::UNSPECIFIED,
        len: 0,
    };
    let named = HashMap::from([HA, another, elsewhere].map(|one| (one, vec![everything])));
    for named in [None, Some(named)] {
        let ours = foreign_config(0);
        let config = ForeignConfig {
            agents: [neighbour].into(),
            home: ours
                .home
                .into_iter()
                .chain([(another, vec![association(2000, 1)])])
                .collect(),
            home_agents: named,
            ..foreign_config(0)
        };
        let mut world = World::with(home_config(1), vec![config], node_config(), 1);
        world.run(ms(100));
        for (home, home_agent) in [
            (HA, HA),
            (elsewhere, elsewhere),
            (HA, elsewhere),
            (another, HA),
            (neighbour, HA),
            (care_of(0), HA),
        ] {
            let request = Request {
                home,
                home_agent,
                ..sound(&world, 0)
            };
            let octets = signed(request, &mobile_home());
            let before = world.refused(Who::Fa(0)).len();
            world.hand_in(Who::Fa(0), CELL, &udp(home, care_of(0), 255, octets), 0);
            let refused = world.refused(Who::Fa(0));
            assert_eq!(
                refused.get(before),
                Some(&Code::FA_MALFORMED_REQUEST),
                "{home} {home_agent}"
            );
        }
    }
}

#[test]
fn home_agents_that_nothing_proves_are_named() {
    let (first, second) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let named = [HA, second, first].map(|one| (one, Vec::new()));
    let config = ForeignConfig {
        home_agents: Some(named.into()),
        ..foreign_config(0)
    };
    assert_eq!(config.unproven(), [first, second]);
    assert!(foreign_config(0).unproven().is_empty());
}

#[test]
fn a_visitor_isnt_taken_over_under_another_home_agent() {
    let mut world = settled();
    let request = Request {
        home_agent: Ipv4Addr::new(192, 0, 2, 66),
        ..sound(&world, 0)
    };
    let octets = signed(request, &association(1000, 66));
    assert_eq!(
        at_foreign_agent(&mut world, 0, octets),
        Some(Code::FA_PROHIBITED)
    );
    world.assert_only_at(0);
}

#[test]
fn the_answer_goes_to_who_asked_first_not_to_who_repeats_what_it_heard() {
    let world = settled();
    let now = Now {
        monotonic: world.now,
        wall: wall(&world),
    };
    let mut agent = ForeignAgent::new(foreign_config(1), now);
    let octets = signed(sound(&world, 1), &mobile_home());
    let (mobile, thief) = (
        LinkAddress([2, 0, 0, 0, 0, 1]),
        LinkAddress([2, 0, 0, 0, 0, 66]),
    );
    let mut identification = None;
    for link in [mobile, thief] {
        let packet = Incoming {
            interface: Interface(5),
            source: HOME,
            destination: care_of(1),
            ttl: 255,
            link_source: Some(link),
            payload: Payload::Udp {
                source_port: number::PORT,
                octets: &octets,
            },
        };
        for action in agent.handle(&packet, now, &mut || 7) {
            if let Action::Notify(Event::Relayed {
                identification: id, ..
            }) = action
            {
                identification = Some(id);
            }
        }
    }
    let reply = Message::Reply(Reply {
        code: Code::ACCEPTED,
        lifetime: 60,
        home: HOME,
        home_agent: HA,
        identification: identification.expect("relayed"),
    });
    let octets = Builder::new(&reply)
        .authenticate(Pair::MobileHome, &mobile_home())
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    let packet = Incoming {
        interface: Interface(0),
        source: HA,
        destination: care_of(1),
        ttl: 60,
        link_source: None,
        payload: Payload::Udp {
            source_port: number::PORT,
            octets: &octets,
        },
    };
    let actions = agent.handle(&packet, now, &mut || 7);
    let sent = actions.iter().find_map(|action| match action {
        Action::Send(packet) => packet.link_destination,
        _ => None,
    });
    assert_eq!(sent, Some(mobile));
    assert_eq!(
        agent.visitors().next().and_then(|visitor| visitor.link),
        Some(mobile)
    );
}
