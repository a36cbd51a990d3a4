// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Replays and forgeries: refused with the right code, or dropped, and nothing moves.

mod sim;

use mml_mip::*;
use sim::ask::*;
use sim::*;
use std::net::Ipv4Addr;
use std::time::Duration;

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

/// A reply to the request that waits at the second foreign agent.
fn reply_to(request: &Request, code: Code) -> Builder {
    Builder::new(&Message::Reply(Reply {
        code,
        lifetime: 60,
        home: request.home,
        home_agent: request.home_agent,
        identification: request.identification,
    }))
}

/// Home agents can't be reached, and one request waits at the second foreign agent, which shares a secret with its home agent or
/// doesn't.
fn waiting(shares: bool) -> (World, Request) {
    let mut config = foreign_config(1);
    config.home.retain(|_, _| shares);
    let mut home = home_config(2);
    home.foreign_agents
        .retain(|&fa, _| fa != care_of(1) || shares);
    let mut world = World::with(home, vec![foreign_config(0), config], node_config(), 1);
    world.run(ms(100));
    world.cut = true;
    let request = sound(&world, 1);
    world.in_cell(1, signed(request, &mobile_home()));
    (world, request)
}

#[test]
fn a_forged_reply_makes_no_visitor_and_costs_the_true_one_nothing() {
    let own = |shares: bool, builder: Builder| match shares {
        true => builder.authenticate(Pair::ForeignHome, &foreign_home(1)),
        false => builder,
    };
    let mobile = |request: &Request, key| {
        reply_to(request, Code::ACCEPTED).authenticate(Pair::MobileHome, &association(1000, key))
    };
    for shares in [true, false] {
        let (mut world, request) = waiting(shares);
        let bad = association(2001, 66);
        let wrong = mobile(&request, 66).authenticate(Pair::ForeignHome, &bad);
        let wrong = wrong.finish();
        let bare = mobile(&request, 66).finish();
        let twice = mobile(&request, 66).authenticate(Pair::MobileHome, &bad);
        let mut cut = bare.clone();
        cut.pop();
        let denial = reply_to(&request, Code::HA_PROHIBITED).finish();
        // On the wireless link nothing is the home agent's, even if it was once.
        let real = own(shares, mobile(&request, 1)).finish();
        for octets in [&wrong, &bare, &denial, &real] {
            world.hand_in(
                Who::Fa(1),
                CELL,
                &udp(HA, care_of(1), 255, octets.clone()),
                0,
            );
        }
        assert_eq!(world.fas[1].counters().ignored, 4);
        // From elsewhere, by somebody else, or in the home agent's name. Without a shared secret a plain one can't be told from it.
        for octets in [&wrong, &bare, &denial] {
            let by_another = udp(care_of(0), care_of(1), 60, octets.clone());
            world.hand_in(Who::Fa(1), Interface(0), &by_another, 0);
        }
        let mut forged = vec![wrong, cut, denial, twice.finish()];
        forged.extend(shares.then_some(bare));
        for octets in forged {
            world.hand_in(
                Who::Fa(1),
                Interface(0),
                &udp(HA, care_of(1), 60, octets),
                0,
            );
        }
        assert_eq!(world.fas[1].visitors().count(), 0);
        // Who can't be told from the home agent may say no, which the mobile node can check.
        let refused: &[Code] = if shares { &[] } else { &[Code::HA_PROHIBITED] };
        assert_eq!(world.refused(Who::Fa(1)), refused);
        let mut late = world;
        late.hand_in(Who::Fa(1), Interface(0), &udp(HA, care_of(1), 60, real), 0);
        assert_eq!(late.fas[1].visitors().count(), 1, "{shares}");
        assert_eq!(late.fas[1].counters().accepted, 1);
    }
}

#[test]
fn who_gets_no_better_answer_than_a_forged_one_is_told_so_in_the_end() {
    for (shares, code) in [
        (true, Some(Code::FA_HOME_AUTHENTICATION)),
        // It was told of the denial.
        (false, None),
    ] {
        let (mut world, request) = waiting(shares);
        let denial = reply_to(&request, Code::HA_PROHIBITED).finish();
        world.hand_in(
            Who::Fa(1),
            Interface(0),
            &udp(HA, care_of(1), 60, denial),
            0,
        );
        let before = world.refused(Who::Fa(1)).len();
        world.run(Duration::from_secs(8));
        assert_eq!(world.refused(Who::Fa(1)).get(before).copied(), code);
        assert_eq!(world.refused(Who::Fa(1)).len(), 1);
    }
}

#[test]
fn a_revocation_from_the_wireless_link_turns_nobody_out() {
    let mut world = settled();
    let revocation = Message::Revocation(Revocation {
        by_home_agent: true,
        inform: true,
        home: HOME,
        home_agent: HA,
        foreign_agent: care_of(0),
        identifier: u32::MAX,
    });
    let octets = Builder::new(&revocation)
        .authenticate(Pair::ForeignHome, &foreign_home(0))
        .finish();
    let packet = udp(HA, care_of(0), 255, octets);
    world.hand_in(Who::Fa(0), CELL, &packet, 0);
    world.assert_only_at(0);
    assert_eq!(world.fas[0].counters().ignored, 1);
    // It was good.
    world.hand_in(Who::Fa(0), Interface(0), &packet, 0);
    assert_eq!(world.fas[0].visitors().count(), 0);
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
    let unbound = |event: &Event| {
        matches!(event, Event::Unbound {
            home: HOME,
            care_of: from,
            reason: Reason::Revoked,
            seen,
            ..
        } if *from == care_of(0) && seen.is_empty())
    };
    assert!(world.events.iter().any(|(_, _, event)| unbound(event)));
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
