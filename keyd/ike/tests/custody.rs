// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! With which FAs zone 1's keys are: given, moved, revoked, and replaced where too many know them.

mod common;

use common::four::*;
use common::sim::*;
use mml_ike::config::Renewal;
use mml_ike::event::{Custody, Event, Place};
use mml_ike::wire::{GroupStatus, Id, Neighbour};

/// docs/wire.md 1.5c, 3.1d, 3.2q.
#[test]
fn the_home_agent_gives_zone_1_to_the_current_fa_and_its_standbys() {
    let net = roaming(20, &[FA2_ADDRESS]);
    let home = net.nodes[HA].child().clone();
    for (fa, standby) in [(FA1, false), (FA2, true)] {
        let [relay] = taken(&net.nodes[fa])[..] else {
            panic!("one CSA: {:?}", net.nodes[fa].events);
        };
        assert_zone_1(relay, &home);
        assert_eq!(relay.identity.standby, standby);
        assert!(!relay.identity.may_write);
    }
    let numbers: Vec<u16> = [FA1, FA2]
        .map(|fa| taken(&net.nodes[fa])[0].identity.relay_number)
        .into();
    assert_ne!(
        numbers[0], numbers[1],
        "no relay number twice under one CSA"
    );
    let accepted = |e: &Event| {
        matches!(
            e,
            Event::Distributed {
                status: Some(GroupStatus::Accepted),
                ..
            }
        )
    };
    assert_eq!(net.nodes[HA].count(accepted), 2);
}

/// docs/wire.md 3.2m.
#[test]
fn an_fa_takes_nothing_for_a_host_that_is_not_registered_or_not_of_that_home_agent() {
    let mut net = four(21);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(
        taken(&net.nodes[FA1]).is_empty(),
        "it is registered nowhere"
    );
    assert!(net.nodes[HA].events.iter().any(|e| matches!(
        e,
        Event::Distributed {
            status: Some(GroupStatus::Refused),
            ..
        }
    )));
    // Registered, but in another's prefix.
    let mut net = four(22);
    let mut foreign = net.nodes[FA2].endpoint.config().clone();
    foreign.foreign.home_agents[0].prefixes[0].address = ip("10.0.0.0");
    net.nodes[FA2] = Node::new(FA2_ADDRESS, foreign, 77);
    net.at(HA, |e, now, host| {
        let ike = ike_with(e, "two.fa.test");
        e.delete_ike(ike, now, host).unwrap();
    });
    net.initiate_as(FA2, 0, HA);
    net.run(200 * SECOND);
    register(&mut net, FA2);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(taken(&net.nodes[FA2]).is_empty());
}

/// docs/wire.md 3.2l.
#[test]
fn the_home_agent_gives_nothing_to_whom_its_configuration_does_not_mark_as_fa() {
    let mut net = four(23);
    // An address that none of its FAs has.
    relays(&mut net, Some("198.51.100.99"), &["192.0.2.1"]);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!([MH, FA1, FA2]
        .iter()
        .all(|n| taken(&net.nodes[*n]).is_empty()));
    assert!(
        is_composite(net.nodes[MH].child()),
        "the host has its CSA whatever the FA is"
    );
}

#[test]
fn an_fa_that_comes_up_later_is_given_what_waits_for_it() {
    let mut net = four(24);
    net.at(HA, |e, now, host| {
        let ike = ike_with(e, "one.fa.test");
        e.delete_ike(ike, now, host).unwrap();
    });
    net.run(SECOND);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(taken(&net.nodes[FA1]).is_empty());
    net.initiate_as(FA1, 0, HA);
    net.run(SECOND);
    assert_eq!(taken(&net.nodes[FA1]).len(), 1);
}

/// docs/wire.md 1.5c, 3.1g, 3.2k.
#[test]
fn a_host_that_moves_takes_its_csa_to_the_new_fa_and_the_old_one_is_revoked() {
    let mut net = roaming(25, &[]);
    register(&mut net, FA2);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(SECOND);
    assert_eq!(taken(&net.nodes[FA2]).len(), 1);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
    // And back: given again, under another relay number.
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.run(SECOND);
    let again = taken(&net.nodes[FA1]);
    assert_eq!(again.len(), 2, "{:?}", net.nodes[FA1].events);
    assert!(again[1].identity.relay_number > again[0].identity.relay_number);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
}

/// docs/wire.md 3.1g, 3.2k.
#[test]
fn an_fa_that_does_not_answer_a_revocation_is_known_as_one_that_may_have_the_keys_until_it_has_answered(
) {
    let mut net = roaming(73, &[]);
    let (one, two) = (ip(FA1_ADDRESS), ip(FA2_ADDRESS));
    let held = |fa| (fa, Place::Current, Custody::Held(true));
    assert_eq!(custody(&mut net), [held(one)]);
    let deaf = net.end(FA1);
    net.filter(
        move |_, datagram| match [datagram.from, datagram.to].contains(&deaf) {
            true => Fate::Lose,
            false => Fate::Pass,
        },
    );
    register(&mut net, FA2);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(5 * SECOND);
    let left = |custody| (one, Place::Former, custody);
    assert_eq!(custody(&mut net), [held(two), left(Custody::Revoking)]);
    net.run(300 * SECOND);
    assert_eq!(custody(&mut net), [held(two), left(Custody::Unconfirmed)]);
    let confirmed = |net: &Net, is: bool| {
        net.nodes[HA].count(|e| matches!(e, Event::Revoked { confirmed, .. } if *confirmed == is))
    };
    assert_eq!((confirmed(&net, false), confirmed(&net, true)), (1, 0));
    let dropped = |net: &Net| net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_)));
    assert_eq!(dropped(&net), 0);
    // It is heard again: it is asked again as soon as there is an IKE SA.
    net.filter(|_, _| Fate::Pass);
    net.initiate_as(HA, 1, FA1);
    net.run(SECOND);
    assert_eq!(custody(&mut net), [held(two)]);
    assert_eq!((confirmed(&net, true), dropped(&net)), (1, 1));
}

/// docs/wire.md 3.1g.
#[test]
fn what_may_have_stayed_with_an_fa_is_forgotten_when_its_csa_is_over_or_given_there_again() {
    let away = |net: &mut Net| {
        let deaf = net.end(FA1);
        net.filter(
            move |_, datagram| match [datagram.from, datagram.to].contains(&deaf) {
                true => Fate::Lose,
                false => Fate::Pass,
            },
        );
        register(net, FA2);
        relays(net, Some(FA2_ADDRESS), &[]);
        net.run(300 * SECOND);
        assert_eq!(custody(net).len(), 2);
        net.filter(|_, _| Fate::Pass);
    };
    let mut net = roaming(74, &[]);
    away(&mut net);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), &[FA2_ADDRESS]);
    net.initiate_as(HA, 1, FA1);
    net.run(SECOND);
    let (one, two) = (ip(FA1_ADDRESS), ip(FA2_ADDRESS));
    let held = |fa, place| (fa, place, Custody::Held(true));
    let expected = [held(one, Place::Current), held(two, Place::Standby)];
    assert_eq!(custody(&mut net), expected);

    let mut net = roaming(75, &[]);
    away(&mut net);
    let old = net.at(HA, |e, _, _| e.holdings().next().unwrap().spi);
    rekey(&mut net, MH, "ha.test");
    net.run(3600 * SECOND);
    let held: Vec<_> = net.at(HA, |e, _, _| e.holdings().collect());
    assert!(held.iter().all(|one| one.spi != old), "{old:x} {held:x?}");
}

/// The same as `roaming`, the HA with that policy; FA2 takes CSAs, too.
fn wary(seed: u64, renewal: Renewal, standbys: &[&str]) -> Net {
    let mut net = four_strangers(seed);
    let mut ha = net.nodes[HA].endpoint.config().clone();
    ha.home.renewal = renewal;
    net.nodes[HA] = Node::new("192.0.2.2", ha, 10 * seed + 2);
    net.initiate_as(HA, 1, FA1);
    net.initiate_as(HA, 1, FA2);
    net.initiate_as(FA2, 1, FA1);
    net.run(SECOND);
    register(&mut net, FA1);
    register(&mut net, FA2);
    relays(&mut net, Some(FA1_ADDRESS), standbys);
    net.initiate(MH, HA);
    net.run(SECOND);
    net
}

/// The generations of the CSAs that a node has taken.
fn generations(net: &Net, fa: usize) -> Vec<u32> {
    let taken = taken(&net.nodes[fa]);
    taken
        .iter()
        .map(|relay| relay.identity.generation)
        .collect()
}

fn renewings(net: &Net) -> usize {
    net.nodes[HA].count(|e| matches!(e, Event::Renewing { .. }))
}

const WHEN_LEFT: Renewal = Renewal {
    left: true,
    holders: None,
};

/// docs/wire.md 3.5a.
#[test]
fn an_fa_that_was_left_and_revoked_gets_no_key_of_the_fresh_csa_that_takes_the_old_ones_place() {
    let mut net = wary(80, WHEN_LEFT, &[]);
    let before = (net.nodes[HA].child().spi_out, net.nodes[MH].child().spi_in);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(300 * MS);
    assert_eq!(
        renewings(&net),
        0,
        "what follows the host is still to be opened"
    );
    net.run(20 * SECOND);
    assert_eq!(renewings(&net), 1);
    // Both ends and the FA where the host is have the fresh one, whom it left hasn't.
    for node in [MH, HA] {
        let fresh = net.nodes[node].find(|e| match e {
            Event::ChildUp(child) if child.replaces.is_some() => Some(child.spi_out),
            _ => None,
        });
        assert!(
            fresh.is_some_and(|spi| spi != before.0 && spi != before.1),
            "{node}"
        );
    }
    assert_eq!(generations(&net, FA2), [1, 2]);
    assert_eq!(generations(&net, FA1), [1]);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
    // Nobody has left the fresh one: it stays.
    net.run(300 * SECOND);
    assert_eq!(renewings(&net), 1);
}

/// docs/wire.md 3.5a.
#[test]
fn a_neighbour_that_keeps_a_csa_and_a_host_that_comes_straight_back_bring_no_fresh_one() {
    let mut net = wary(81, WHEN_LEFT, &[FA2_ADDRESS]);
    relays(&mut net, Some(FA2_ADDRESS), &[FA1_ADDRESS]);
    net.run(20 * SECOND);
    assert_eq!(renewings(&net), 0, "both are to have it");
    let mut net = wary(82, WHEN_LEFT, &[]);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(300 * MS);
    relays(&mut net, Some(FA1_ADDRESS), &[FA2_ADDRESS]);
    net.run(20 * SECOND);
    assert_eq!(renewings(&net), 0);
    // At home nobody is to have it.
    relays(&mut net, None, &[]);
    net.run(20 * SECOND);
    assert_eq!(renewings(&net), 1);
}

/// docs/wire.md 3.5a.
#[test]
fn a_fresh_csa_is_made_when_more_fas_have_had_it_than_may() {
    for (most, expected) in [(1, 1), (2, 0)] {
        let renewal = Renewal {
            left: false,
            holders: Some(most),
        };
        let mut net = wary(83, renewal, &[]);
        relays(&mut net, Some(FA2_ADDRESS), &[]);
        net.run(20 * SECOND);
        assert_eq!(renewings(&net), expected, "{most}");
    }
    // All who know it are to have it: a fresh one would be with the same.
    let renewal = Renewal {
        left: false,
        holders: Some(1),
    };
    let mut net = wary(84, renewal, &[FA2_ADDRESS]);
    net.run(20 * SECOND);
    assert_eq!(renewings(&net), 0);
}

/// docs/wire.md 3.5a.
#[test]
fn a_fresh_csa_that_the_host_did_not_answer_is_asked_for_again() {
    let mut net = wary(85, WHEN_LEFT, &[]);
    let mut child = net.nodes[MH].endpoint.config().clone();
    for connection in &mut child.connections {
        connection.child = None;
    }
    net.at(MH, |e, now, host| e.reconfigure(child.clone(), now, host));
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(50 * SECOND);
    assert_eq!(renewings(&net), 1);
    net.run(100 * SECOND);
    assert!((2..4).contains(&renewings(&net)), "{}", renewings(&net));
}

/// docs/wire.md 3.5b.
#[test]
fn an_fa_that_is_taken_out_of_the_configuration_drops_its_csas_at_once_and_they_get_fresh_keys() {
    for standby in [false, true] {
        let renewal = Renewal::default();
        let mut net = match standby {
            true => wary(86, renewal, &[FA2_ADDRESS]),
            false => wary(87, renewal, &[]),
        };
        let (out, name, stays) = match standby {
            true => (FA2, FA2_ADDRESS, FA1),
            false => (FA1, FA1_ADDRESS, FA2),
        };
        let mut config = net.nodes[HA].endpoint.config().clone();
        config
            .home
            .foreign_agents
            .retain(|one| one.addresses != [ip(name)]);
        net.at(HA, |e, now, host| {
            e.expel(ip(name), now, host);
            e.reconfigure(config, now, host);
        });
        net.run(100 * MS);
        assert_eq!(
            net.nodes[out].count(|e| matches!(e, Event::RelayDown(_))),
            1
        );
        let confirmed = |e: &Event| {
            matches!(
                e,
                Event::Revoked {
                    confirmed: true,
                    ..
                }
            )
        };
        assert_eq!(net.nodes[HA].count(confirmed), 1);
        // Wherever the host is said to be.
        relays(&mut net, Some(name), &[]);
        net.run(20 * SECOND);
        assert_eq!(generations(&net, out), [1]);
        assert_eq!(renewings(&net), 1);
        if standby {
            assert_eq!(generations(&net, stays), [1, 2]);
        }
    }
}

/// docs/wire.md 3.2k.
#[test]
fn who_may_have_a_csa_from_the_fa_before_is_a_holder_and_is_told_to_drop_it() {
    // FA2 has no IKE SA with the HA, and the CSA from FA1.
    let mut net = four_strangers(88);
    net.initiate_as(HA, 1, FA1);
    net.initiate_as(FA2, 1, FA1);
    net.run(SECOND);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.initiate(MH, HA);
    net.run(SECOND);
    register(&mut net, FA2);
    let ask = ask(&net, 100);
    assert!(request(&mut net, ask));
    net.at(HA, |e, _, _| e.handed_on(ip(HOME), ip(FA2_ADDRESS)));
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(5 * SECOND);
    let two = ip(FA2_ADDRESS);
    assert_eq!(
        custody(&mut net),
        [(two, Place::Current, Custody::Perhaps)],
        "and FA1 dropped it"
    );
    // It moves on before FA2 was heard: FA2 is asked as soon as it is.
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.run(5 * SECOND);
    let one = (ip(FA1_ADDRESS), Place::Current, Custody::Held(true));
    let left = (two, Place::Former, Custody::Unconfirmed);
    assert_eq!(custody(&mut net), [one, left]);
    net.initiate_as(HA, 1, FA2);
    net.run(SECOND);
    assert_eq!(custody(&mut net), [one]);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
}

/// docs/wire.md 3.2k.
#[test]
fn an_fa_that_does_not_answer_a_distribution_is_known_as_one_that_may_have_the_keys() {
    let mut net = roaming(89, &[]);
    let mute = net.end(FA2);
    net.filter(move |_, datagram| match datagram.from == mute {
        true => Fate::Lose,
        false => Fate::Pass,
    });
    register(&mut net, FA2);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(300 * SECOND);
    assert_eq!(taken(&net.nodes[FA2]).len(), 1, "it has it");
    let two = (ip(FA2_ADDRESS), Place::Current, Custody::Perhaps);
    assert!(custody(&mut net).contains(&two), "{:?}", custody(&mut net));
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.run(5 * SECOND);
    let left = (ip(FA2_ADDRESS), Place::Former, Custody::Unconfirmed);
    assert!(custody(&mut net).contains(&left), "{:?}", custody(&mut net));
}

/// docs/wire.md 3.1e.
#[test]
fn neighbours_are_told_by_an_fa_and_by_nobody_else() {
    let mut net = roaming(54, &[]);
    let list = vec![Neighbour {
        address: ip(FA2_ADDRESS),
        identity: Id::fqdn("two.fa.test"),
    }];
    for (node, expected) in [(FA1, 1), (MH, 1)] {
        let list = list.clone();
        net.at(node, |e, now, host| {
            let ike = ike_with(e, "ha.test");
            e.notify_neighbours(ike, list, now, host).unwrap();
        });
        net.run(SECOND);
        let told =
            net.nodes[HA].count(|e| matches!(e, Event::Neighbours { list, .. } if list.len() == 1));
        assert_eq!(told, expected);
    }
}
