// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the home agent refuses, and with which code.

mod sim;

use mml_mip::number::extension;
use mml_mip::*;
use sim::ask::*;
use sim::*;
use std::net::Ipv4Addr;

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
fn copies_of_old_requests_bring_few_answers_and_leave_other_mobile_nodes_theirs() {
    let mut home = home_config(2);
    let other = Ipv4Addr::new(203, 0, 113, 8);
    let subscriber = Subscriber {
        associations: vec![association(1000, 8)],
        barred: false,
    };
    home.subscribers.insert(other, subscriber);
    let foreign = (0..2).map(foreign_config).collect();
    let mut world = World::with(home, foreign, node_config(), 1);
    world.run(ms(100));
    let request = sound(&world, 1);
    assert_eq!(at_home_agent(&mut world, 1, relayed(request, 1)), None);
    world.run(ms(1000));
    for _ in 0..1000 {
        at_home_agent(&mut world, 1, relayed(request, 1));
    }
    let refused = world.refused(Who::Ha);
    assert_eq!(refused.len(), 16);
    assert!(refused.iter().all(|code| *code == Code::HA_IDENTIFICATION));
    assert_eq!(world.ha.counters().limited, 1000 - 16);
    // Neither somebody else's, nor what isn't authentic, nor a sound one.
    let another = Request {
        home: other,
        identification: Identification(0),
        ..request
    };
    let octets = Builder::relay(&signed(another, &association(1000, 8)))
        .authenticate(Pair::ForeignHome, &foreign_home(1))
        .finish();
    let code = at_home_agent(&mut world, 1, octets);
    assert_eq!(code, Some(Code::HA_IDENTIFICATION));
    let octets = signed(request, &association(1000, 66));
    let code = at_home_agent(&mut world, 1, octets);
    assert_eq!(code, Some(Code::HA_MOBILE_AUTHENTICATION));
    let accepted = world.ha.counters().accepted;
    let octets = relayed(sound(&world, 1), 1);
    assert_eq!(at_home_agent(&mut world, 1, octets), None);
    assert_eq!(world.ha.counters().accepted, accepted + 1);
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
