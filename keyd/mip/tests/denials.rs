// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is refused, with which code, and what gets no answer: replays, forgeries, and each denial that applies.

mod sim;

use mml_mip::number::extension;
use mml_mip::*;
use sim::*;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

fn settled() -> World {
    let mut world = World::new(2, 1);
    world.run(ms(100));
    world.enter(RADIO, Place::Cell(0));
    world.run(Duration::from_secs(2));
    world
}

fn wall(world: &World) -> Ntp {
    Ntp::from_unix(world.now + Duration::from_secs(1_800_000_000))
}

/// What a sound mobile node would ask through this foreign agent now.
fn sound(world: &World, fa: usize) -> Request {
    Request {
        flags: RequestFlags(RequestFlags::REVERSE_TUNNEL),
        lifetime: 60,
        home: HOME,
        home_agent: HA,
        care_of: care_of(fa),
        identification: Identification(wall(world).0),
    }
}

fn signed(request: Request, association: &Association) -> Vec<u8> {
    Builder::new(&Message::Request(request))
        .authenticate(Pair::MobileHome, association)
        .finish()
}

fn relayed(request: Request, fa: usize) -> Vec<u8> {
    Builder::relay(&signed(request, &mobile_home()))
        .authenticate(Pair::ForeignHome, &foreign_home(fa))
        .finish()
}

/// Gives octets to the home agent as if from this foreign agent, and says with which code it denies.
fn at_home_agent(world: &mut World, fa: usize, octets: Vec<u8>) -> Option<Code> {
    let before = world.refused(Who::Ha).len();
    let packet = udp(care_of(fa), HA, 60, octets);
    world.hand_in(Who::Ha, Interface(0), &packet, 0);
    world.refused(Who::Ha).get(before).copied()
}

fn at_foreign_agent(world: &mut World, fa: usize, octets: Vec<u8>) -> Option<Code> {
    let before = world.refused(Who::Fa(fa)).len();
    world.in_cell(fa, octets);
    world.refused(Who::Fa(fa)).get(before).copied()
}

#[test]
fn a_replayed_registration_is_refused_with_133_wherever_it_is_replayed_and_moves_nothing() {
    let mut world = settled();
    let old = world.last_request();
    world.hand_off(1, ms(20));
    world.run(Duration::from_secs(1));
    world.assert_only_at(1);
    // Through the old agent, as it was; at the home agent, with the agent's authenticator made anew; and later.
    for wait in [0, 3, 20] {
        world.run(Duration::from_secs(wait));
        world.in_cell(0, old.clone());
        world.run(ms(100));
        assert_eq!(world.refused(Who::Ha).pop(), Some(Code::HA_IDENTIFICATION));
        let octets = Builder::relay(&old)
            .authenticate(Pair::ForeignHome, &foreign_home(0))
            .finish();
        assert_eq!(
            at_home_agent(&mut world, 0, octets),
            Some(Code::HA_IDENTIFICATION)
        );
        world.run(ms(100));
        world.assert_only_at(1);
    }
}

#[test]
fn a_request_replayed_after_the_home_agent_restarted_is_refused_with_133() {
    let mut world = settled();
    let old = world.last_request();
    world.hand_off(1, ms(20));
    world.run(Duration::from_secs(1));
    for keep in [true, false] {
        world.restart_ha(keep);
        let octets = Builder::relay(&old)
            .authenticate(Pair::ForeignHome, &foreign_home(0))
            .finish();
        assert_eq!(
            at_home_agent(&mut world, 0, octets),
            Some(Code::HA_IDENTIFICATION)
        );
    }
}

#[test]
fn a_request_with_any_octet_changed_is_refused_or_dropped_and_moves_nothing() {
    let mut world = settled();
    let bindings: Vec<Binding> = world.ha.bindings().copied().collect();
    let octets = relayed(sound(&world, 1), 1);
    for at in 0..octets.len() {
        // Denials of what isn't authentic are few a second.
        world.run(ms(40));
        let mut forged = octets.clone();
        forged[at] ^= 0x80;
        let accepted = world.ha.counters().accepted;
        let code = at_home_agent(&mut world, 1, forged);
        assert_eq!(world.ha.counters().accepted, accepted, "octet {at}");
        let forgery = [
            Code::HA_MOBILE_AUTHENTICATION,
            Code::HA_FOREIGN_AUTHENTICATION,
            Code::HA_MALFORMED,
        ];
        assert!(
            code.is_none_or(|code| forgery.contains(&code)),
            "octet {at}: {code:?}"
        );
    }
    assert_eq!(world.ha.bindings().copied().collect::<Vec<_>>(), bindings);
    // It was good: unchanged it is taken.
    let octets = relayed(sound(&world, 1), 1);
    assert_eq!(at_home_agent(&mut world, 1, octets), None);
}

#[test]
fn the_home_agent_denies_with_the_code_that_applies() {
    let mut world = settled();
    let base = sound(&world, 1);
    let stranger = Ipv4Addr::new(203, 0, 113, 8);
    let outsider = Ipv4Addr::new(10, 9, 9, 9);
    let flags = |bits| RequestFlags(RequestFlags::REVERSE_TUNNEL | bits);
    let cases = [
        (
            Request {
                home: stranger,
                ..base
            },
            Code::HA_MOBILE_AUTHENTICATION,
        ),
        (
            Request {
                home_agent: outsider,
                ..base
            },
            Code::HA_UNKNOWN_ADDRESS,
        ),
        (
            Request {
                flags: flags(RequestFlags::GRE),
                ..base
            },
            Code::HA_ENCAPSULATION,
        ),
        (
            Request {
                flags: flags(RequestFlags::MINIMAL),
                ..base
            },
            Code::HA_ENCAPSULATION,
        ),
        (
            Request {
                flags: RequestFlags(0),
                ..base
            },
            Code::HA_REVERSE_TUNNEL_MANDATORY,
        ),
        (
            Request {
                identification: Identification(0),
                ..base
            },
            Code::HA_IDENTIFICATION,
        ),
    ];
    for (request, code) in cases {
        world.run(ms(20));
        let identification = match request.identification {
            Identification(0) => Identification(0),
            _ => Identification(wall(&world).0),
        };
        let octets = relayed(
            Request {
                identification,
                ..request
            },
            1,
        );
        assert_eq!(at_home_agent(&mut world, 1, octets), Some(code));
    }
    // Care-of addresses that would swallow packets; without an association, since the agent doesn't exist.
    for care_of in [
        HOME,
        HA,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::LOCALHOST,
        number::ALL_SYSTEMS,
    ] {
        world.run(ms(20));
        let request = Request {
            care_of,
            ..sound(&world, 1)
        };
        let octets = signed(request, &mobile_home());
        assert_eq!(
            at_home_agent(&mut world, 1, octets),
            Some(Code::HA_MALFORMED),
            "{care_of}"
        );
    }
    // A denial of the policy's doesn't touch the binding.
    world.assert_only_at(0);
}

#[test]
fn the_home_agent_refuses_wrong_keys_spis_and_missing_authenticators() {
    let mut world = settled();
    let request = sound(&world, 1);
    let wrong = |octets| Some((octets, Code::HA_MOBILE_AUTHENTICATION));
    let foreign = |octets| Some((octets, Code::HA_FOREIGN_AUTHENTICATION));
    let fa = |octets: Vec<u8>, association: &Association| {
        Builder::relay(&octets)
            .authenticate(Pair::ForeignHome, association)
            .finish()
    };
    let md5 = Association {
        algorithm: Algorithm::HmacMd5,
        ..mobile_home()
    };
    let cases = [
        wrong(fa(signed(request, &association(1000, 2)), &foreign_home(1))),
        wrong(fa(signed(request, &association(1001, 1)), &foreign_home(1))),
        wrong(fa(signed(request, &md5), &foreign_home(1))),
        wrong(fa(
            Builder::new(&Message::Request(request)).finish(),
            &foreign_home(1),
        )),
        foreign(signed(request, &mobile_home())),
        foreign(fa(signed(request, &mobile_home()), &foreign_home(0))),
        foreign(fa(signed(request, &mobile_home()), &association(2001, 1))),
        // Claimed for an agent that shares nothing with us.
        foreign(fa(
            signed(
                Request {
                    care_of: Ipv4Addr::new(10, 9, 9, 9),
                    ..request
                },
                &mobile_home(),
            ),
            &foreign_home(1),
        )),
    ];
    for (at, (octets, code)) in cases.into_iter().flatten().enumerate() {
        assert_eq!(
            at_home_agent(&mut world, 1, octets),
            Some(code),
            "case {at}"
        );
    }
    world.assert_only_at(0);
}

#[test]
fn the_home_agent_denies_whom_it_is_told_to_and_whom_it_has_no_room_for() {
    let mut barred = home_config(2);
    barred
        .subscribers
        .get_mut(&HOME)
        .expect("configured")
        .barred = true;
    let full = HomeConfig {
        max_bindings: 0,
        ..home_config(2)
    };
    let no_reverse = HomeConfig {
        reverse_tunnel: ReverseTunnel::Refused,
        ..home_config(2)
    };
    for (config, code) in [
        (barred, Code::HA_PROHIBITED),
        (full, Code::HA_RESOURCES),
        (no_reverse, Code::HA_REVERSE_TUNNEL),
    ] {
        let mut world = World::with(
            config,
            (0..2).map(foreign_config).collect(),
            node_config(),
            1,
        );
        world.run(ms(100));
        let octets = relayed(sound(&world, 1), 1);
        assert_eq!(at_home_agent(&mut world, 1, octets), Some(code));
        assert_eq!(world.ha.bindings().count(), 0);
    }
}

#[test]
fn critical_vendor_extensions_are_refused_on_behalf_of_whom_they_are_for() {
    let critical = Extension::CriticalVendor {
        organisation: 9,
        kind: 1,
        value: &[],
    };
    let mut world = settled();
    let under = |request| {
        Builder::new(&Message::Request(request))
            .extension(&critical)
            .expect("short")
            .authenticate(Pair::MobileHome, &mobile_home())
    };
    let octets = under(sound(&world, 1))
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    assert_eq!(
        at_home_agent(&mut world, 1, octets),
        Some(Code::HA_VENDOR_MOBILE)
    );
    world.run(ms(20));
    let octets = Builder::relay(&signed(sound(&world, 1), &mobile_home()))
        .extension(&critical)
        .expect("short")
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    assert_eq!(
        at_home_agent(&mut world, 1, octets),
        Some(Code::HA_VENDOR_FOREIGN)
    );
    world.run(ms(20));
    // For the home agent it is relayed; behind the authenticator it is the foreign agent's.
    let octets = under(sound(&world, 1)).finish();
    assert_eq!(at_foreign_agent(&mut world, 1, octets.clone()), None);
    let octets = Builder::relay(&octets)
        .extension(&critical)
        .expect("short")
        .finish();
    assert_eq!(
        at_foreign_agent(&mut world, 1, octets),
        Some(Code::FA_VENDOR_MOBILE)
    );
}

#[test]
fn a_message_with_an_unknown_extension_below_128_gets_no_answer_anywhere() {
    let mut world = settled();
    let mut octets = signed(sound(&world, 1), &mobile_home());
    octets.extend([99, 0]);
    let sent = world.sent.len();
    assert_eq!(at_home_agent(&mut world, 1, octets.clone()), None);
    assert_eq!(at_foreign_agent(&mut world, 1, octets), None);
    assert_eq!(world.sent.len(), sent);
    assert_eq!(world.ha.counters().unknown_extension, 1);
    assert_eq!(world.fas[1].counters().unknown_extension, 1);
}

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
        (0, Code::FA_NETWORK_UNREACHABLE),
        (1, Code::FA_HOST_UNREACHABLE),
        (3, Code::FA_PORT_UNREACHABLE),
        (13, Code::FA_UNREACHABLE),
    ] {
        let mut world = settled();
        world.cut = true;
        world.in_cell(1, signed(sound(&world, 1), &mobile_home()));
        let actions = world.fas[1].unreachable(HA, icmp);
        world.act(Who::Fa(1), actions);
        assert_eq!(world.refused(Who::Fa(1)), [code]);
    }
}

#[test]
fn a_forged_reply_makes_no_visitor() {
    for by_home_agent in [false, true] {
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
        let forged = Builder::new(&reply)
            .authenticate(Pair::MobileHome, &association(1000, 66))
            .authenticate(Pair::ForeignHome, &association(2001, 66))
            .finish();
        let source = if by_home_agent { HA } else { care_of(0) };
        let packet = udp(source, care_of(1), 60, forged);
        world.hand_in(Who::Fa(1), Interface(0), &packet, 0);
        assert_eq!(world.fas[1].visitors().count(), 0);
        let expected: &[Code] = if by_home_agent {
            &[Code::FA_HOME_AUTHENTICATION]
        } else {
            &[]
        };
        assert_eq!(world.refused(Who::Fa(1)), expected);
    }
}

#[test]
fn the_mobile_node_believes_no_reply_that_isnt_authentic_awaited_and_its_own() {
    let mut world = settled();
    world.cut = true;
    world.hand_off(1, ms(20));
    world.run(ms(100));
    let request = world.last_request();
    let Ok(Message::Request(request)) = Message::parse(&request) else {
        panic!("not a request")
    };
    let reply = Reply {
        code: Code::ACCEPTED,
        lifetime: 60,
        home: HOME,
        home_agent: HA,
        identification: request.identification,
    };
    let other = Identification(request.identification.0 ^ 1);
    let good = mobile_home();
    let bad = association(1000, 66);
    for (reply, association) in [
        (reply, &bad),
        (
            Reply {
                identification: other,
                ..reply
            },
            &good,
        ),
        (
            Reply {
                home: Ipv4Addr::new(203, 0, 113, 8),
                ..reply
            },
            &good,
        ),
        (
            Reply {
                code: Code::HA_IDENTIFICATION,
                ..reply
            },
            &bad,
        ),
    ] {
        let octets = Builder::new(&Message::Reply(reply))
            .authenticate(Pair::MobileHome, association)
            .finish();
        let before = world.mn.care_of();
        let packet = udp(care_of(1), HOME, 255, octets);
        world.hand_in(Who::Mn, RADIO, &packet, 0);
        assert_eq!(world.mn.care_of(), before);
        let denied = |(_, who, event): &(Duration, Who, Event)| {
            *who == Who::Mn && matches!(event, Event::Denied { .. })
        };
        assert!(!world.events.iter().any(denied));
    }
    let octets = Builder::new(&Message::Reply(reply))
        .authenticate(Pair::MobileHome, &good)
        .finish();
    let packet = udp(care_of(1), HOME, 255, octets);
    world.hand_in(Who::Mn, RADIO, &packet, 0);
    assert_eq!(world.mn.care_of(), Some(care_of(1)));
}

#[test]
fn a_forged_or_replayed_revocation_turns_nobody_out() {
    let mut world = settled();
    world.hand_off(1, ms(20));
    world.run(ms(200));
    // All within a second, where timestamps are the same. The real one, which turned it out at the first agent; then it comes back there.
    let real = world
        .sent
        .iter()
        .find_map(|(_, flight)| match &flight.packet.content {
            Content::Udp { octets, .. } if octets[0] == 7 && flight.to == Who::Fa(0) => {
                Some(flight.packet.clone())
            }
            _ => None,
        });
    let real = real.expect("the agent that was left was told");
    world.hand_off(0, ms(20));
    world.run(ms(200));
    world.assert_only_at(0);
    world.hand_in(Who::Fa(0), Interface(0), &real, 0);
    world.assert_only_at(0);
    let revocation = |by_home_agent| {
        Message::Revocation(Revocation {
            by_home_agent,
            inform: true,
            home: HOME,
            home_agent: HA,
            foreign_agent: care_of(0),
            identifier: u32::MAX,
        })
    };
    let forged = Builder::new(&revocation(true))
        .authenticate(Pair::ForeignHome, &association(2000, 66))
        .finish();
    world.hand_in(
        Who::Fa(0),
        Interface(0),
        &udp(HA, care_of(0), 60, forged),
        0,
    );
    let bare = Builder::new(&revocation(true)).finish();
    world.hand_in(Who::Fa(0), Interface(0), &udp(HA, care_of(0), 60, bare), 0);
    // Another foreign agent's own association doesn't vouch for this one's visitor.
    let foreign = Builder::new(&revocation(false))
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    world.hand_in(Who::Ha, Interface(0), &udp(care_of(1), HA, 60, foreign), 0);
    world.assert_only_at(0);
    assert_eq!(world.fas[0].counters().unauthentic, 2);
    assert_eq!(world.ha.counters().unauthentic, 1);
}

#[test]
fn a_visitor_turned_out_by_its_agent_is_unbound_at_the_home_agent() {
    let mut world = settled();
    world.run(Duration::from_secs(3));
    let now = Now {
        monotonic: world.now,
        wall: wall(&world),
    };
    let actions = world.fas[0].revoke(HOME, now);
    world.act(Who::Fa(0), actions);
    world.run(ms(11));
    let unbound = Event::Unbound {
        home: HOME,
        care_of: care_of(0),
        reason: Reason::Revoked,
    };
    assert!(world.events.iter().any(|(_, _, event)| *event == unbound));
    world.run(ms(20));
    let confirmed = Event::RevocationConfirmed {
        home: HOME,
        peer: HA,
    };
    assert!(world
        .events
        .iter()
        .any(|(_, who, event)| *who == Who::Fa(0) && *event == confirmed));
}

#[test]
fn a_flood_of_forged_requests_is_answered_at_a_bounded_rate() {
    let mut world = settled();
    let request = sound(&world, 1);
    let forged = signed(request, &association(1000, 66));
    let sent = world.sent.len();
    for _ in 0..10_000 {
        at_home_agent(&mut world, 1, forged.clone());
    }
    assert!(world.sent.len() - sent <= 64);
    assert!(world.ha.counters().limited >= 9_900);
    // The mobile node itself is heard all the same.
    let octets = relayed(sound(&world, 1), 1);
    assert_eq!(at_home_agent(&mut world, 1, octets), None);
}

#[test]
fn a_stranger_that_uses_a_mobile_nodes_address_doesnt_push_its_request_out() {
    let mut world = settled();
    world.exit(RADIO);
    world.enter(RADIO, Place::Cell(1));
    // The request is with the home agent.
    world.run(ms(4 + 3));
    let bogus = |low: u64| Request {
        identification: Identification(low),
        ..sound(&world, 1)
    };
    let all: Vec<_> = (1..=3)
        .map(|low| signed(bogus(low), &association(1000, 66)))
        .collect();
    for octets in all {
        world.in_cell(1, octets);
    }
    world.run(ms(500));
    world.assert_only_at(1);
}

#[test]
fn duplicate_authenticators_have_their_own_codes() {
    let mut world = settled();
    let request = sound(&world, 1);
    let twice = Builder::relay(&signed(request, &mobile_home()))
        .authenticate(Pair::MobileHome, &mobile_home())
        .finish();
    assert_eq!(
        at_home_agent(&mut world, 1, twice),
        Some(Code::HA_MOBILE_AUTHENTICATION)
    );
    let twice = Builder::relay(&relayed(request, 1))
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    assert_eq!(
        at_home_agent(&mut world, 1, twice),
        Some(Code::HA_FOREIGN_AUTHENTICATION)
    );
    assert_eq!(extension::FOREIGN_HOME, 34);
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

#[test]
fn a_revocation_replayed_within_its_own_second_doesnt_end_the_next_registration() {
    let mut world = settled();
    let now = Now {
        monotonic: world.now,
        wall: wall(&world),
    };
    let actions = world.ha.revoke(HOME, now);
    let revocation = actions.iter().find_map(|action| match action {
        Action::Send(packet) => Some(packet.clone()),
        _ => None,
    });
    let revocation = revocation.expect("the foreign agent is told");
    world.act(Who::Ha, actions);
    // It is told, tells the mobile node, and has it again.
    world.run(ms(100));
    world.assert_only_at(0);
    world.hand_in(Who::Fa(0), Interface(0), &revocation, 0);
    world.assert_only_at(0);
    assert_eq!(world.fas[0].counters().unexpected, 1);
}
