// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Both sides at once: the collisions of RFC 7296 §2.8 and §2.25 by name, and all pairs of exchanges at every skew with
//! every message lost, doubled, delayed.

mod common;

use common::sim::*;
use mml_ike::config::Connection;
use mml_ike::crypto::Method;
use mml_ike::event::{ChildFailure, Down, Event};
use mml_ike::wire::NotifyType;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    CreateChild,
    RekeyChild,
    DeleteChild,
    RekeyIke,
    DeleteIke,
}

const ALL: [Act; 5] = [
    Act::CreateChild,
    Act::RekeyChild,
    Act::DeleteChild,
    Act::RekeyIke,
    Act::DeleteIke,
];

/// Does it, as far as there is still something to do it to.
fn act(net: &mut Net, node: usize, act: Act) {
    net.at(node, |e, now, host| {
        let Some(ike) = e.established().next() else {
            return;
        };
        let child = e.children(ike).first().map(|(id, ..)| *id);
        let _ = match (act, child) {
            (Act::CreateChild, _) => e.create_child(ike, now, host),
            (Act::RekeyIke, _) => e.rekey_ike(ike, now, host),
            (Act::DeleteIke, _) => e.delete_ike(ike, now, host),
            (Act::RekeyChild, Some(child)) => e.rekey_child(ike, child, now, host),
            (Act::DeleteChild, Some(child)) => e.delete_child(ike, child, now, host),
            _ => Ok(()),
        };
    });
}

/// Both up, then one thing at each node, the second `skew` ms after the first (before it, if negative).
fn both(mut net: Net, a: Act, b: Act, skew: i32) -> Net {
    let wait = skew.unsigned_abs() * MS;
    if skew < 0 {
        act(&mut net, 1, b);
        net.run(wait);
        act(&mut net, 0, a);
    } else {
        act(&mut net, 0, a);
        net.run(wait);
        act(&mut net, 1, b);
    }
    net.run(60 * SECOND);
    net
}

/// Both ended in the same state.
fn assert_settled(net: &Net, what: &str) {
    let up: Vec<usize> = net
        .nodes
        .iter()
        .map(|n| n.endpoint.established().count())
        .collect();
    assert!(up == [1, 1] || up == [0, 0], "{what}: IKE SAs up: {up:?}");
    for n in &net.nodes {
        assert_eq!(
            n.endpoint.len(),
            up[0],
            "{what}: one that is no more is left"
        );
        assert_eq!(
            n.count(|e| matches!(
                e,
                Event::IkeDown {
                    why: Down::Dead | Down::Protocol(_),
                    ..
                }
            )),
            0,
            "{what}: {:#?}",
            n.events
        );
    }
    if up[0] == 1 {
        net.assert_same(0, 1);
        for n in &net.nodes {
            let id = n.kernel.keys().last();
            assert!(
                id.is_none_or(|id| n.sealing.contains(id)),
                "{what}: the newest doesn't seal"
            );
        }
    } else {
        assert!(net.nodes.iter().all(|n| n.kernel.is_empty()), "{what}");
    }
}

fn ike_downs(net: &Net, node: usize, why: Down) -> usize {
    net.nodes[node].count(|e| matches!(e, Event::IkeDown { why: w, .. } if *w == why))
}

fn refused(net: &Net, node: usize, why: NotifyType) -> usize {
    let refused = ChildFailure::Refused(why);
    net.nodes[node].count(|e| matches!(e, Event::ChildFailed { why, .. } if *why == refused))
}

#[test]
fn one_side_rekeys_a_child() {
    let net = up(pair(1));
    let before = net.nodes[0].child().clone();
    let mut net = net;
    act(&mut net, 0, Act::RekeyChild);
    net.run(5 * SECOND);
    assert_settled(&net, "rekeyed");
    let after = net.nodes[0].child();
    assert_eq!(after.replaces, Some(before.child));
    assert!(after.spi_in != before.spi_in && after.keys != before.keys);
    // The new one was up on both sides before the old one went.
    for n in &net.nodes {
        let position = |is: fn(&Event) -> bool| n.events.iter().rposition(is).unwrap();
        let up = position(|e| matches!(e, Event::ChildUp(_)));
        assert!(up < position(|e| matches!(e, Event::ChildDown { .. })));
    }
}

/// Each side seals with something, and the other has it already.
fn assert_opened(net: &Net, what: &str) {
    for (node, peer) in [(0, 1), (1, 0)] {
        let sealing = net.nodes[node].sealing.last();
        let sealing = sealing.unwrap_or_else(|| panic!("{what}: {node} seals with nothing"));
        let spi = net.nodes[node].kernel[sealing].spi_out;
        // What has gone is opened for a while.
        let opened = |e: &Event| matches!(e, Event::ChildUp(child) if child.spi_in == spi);
        assert!(
            net.nodes[peer].events.iter().any(opened),
            "{what}: {node} seals with {spi:#x}, which {peer} doesn't open"
        );
    }
}

/// §2.8: the responder may be ahead of the initiator, who has nothing to open with before the answer.
#[test]
fn nothing_is_sealed_that_the_other_side_does_not_open_yet_whoever_rekeys() {
    for (a, b) in [
        (Some(0), None),
        (Some(1), None),
        (Some(0), Some(1)),
        (Some(1), Some(0)),
    ] {
        for skew in 0..45 {
            for seed in 500..504 {
                let mut net = up(pair(seed));
                let old = net.nodes[0].child().child;
                for ms in 0..300 {
                    for (at, who) in [(0, a), (skew, b)] {
                        if let (true, Some(node)) = (at == ms, who) {
                            act(&mut net, node, Act::RekeyChild);
                        }
                    }
                    net.run(MS);
                    assert_opened(&net, &format!("{a:?}, {b:?} {skew} ms later, {ms} ms on"));
                }
                assert_settled(&net, "rekeyed");
                assert!(!net.nodes[0].kernel.contains_key(&old), "rekeyed");
            }
        }
    }
}

/// §2.8.1: the redundant child is its maker's to close, and that may take a while.
#[test]
fn of_two_that_rekey_a_child_the_redundant_one_never_seals_at_who_was_asked_for_it() {
    for seed in 510..514 {
        for hit in 0..8 {
            let mut net = up(pair(seed));
            let first = net.carried;
            net.filter(move |n, _| {
                if n == first + hit {
                    Fate::Delay(200 * MS)
                } else {
                    Fate::Pass
                }
            });
            let net = both(net, Act::RekeyChild, Act::RekeyChild, 0);
            assert_settled(&net, "rekeyed");
            for n in &net.nodes {
                let gone = |e: &Event| matches!(e, Event::ChildSeal { child } if !n.kernel.contains_key(child));
                assert_eq!(n.count(gone), 0, "seed {seed}, message {hit} late");
            }
        }
    }
}

fn hybrid_child(c: &mut Connection, _: bool) {
    let child = c.child.as_mut().unwrap();
    child.methods = vec![Method::X25519];
    child.additional = vec![vec![Method::MlKem768], vec![Method::P256]];
}

#[test]
fn a_child_is_rekeyed_with_its_own_key_exchange_and_ml_kem_beside() {
    let net = up(pair_with(2, hybrid_child));
    let sent = net.carried;
    let net = both(net, Act::RekeyChild, Act::CreateChild, 200);
    assert_settled(&net, "by IKE_FOLLOWUP_KE");
    assert_eq!(net.nodes[0].kernel.len(), 2);
    // Each by CREATE_CHILD_SA and two IKE_FOLLOWUP_KE (the public value of ML-KEM fits the datagram), and one Delete.
    assert!(net.carried - sent >= 14, "{}", net.carried - sent);
}

#[test]
fn both_rekey_the_same_child_with_ml_kem_beside() {
    for seed in 90..93 {
        for skew in (-70..=70).step_by(10) {
            let net = both(
                up(pair_with(seed, hybrid_child)),
                Act::RekeyChild,
                Act::RekeyChild,
                skew,
            );
            assert_settled(&net, &format!("seed {seed}, skew {skew}"));
            assert_eq!(net.nodes[0].kernel.len(), 1);
        }
    }
}

#[test]
fn any_exchange_beside_a_rekeying_with_follow_ups_ends_in_the_same_state() {
    let all = |c: &mut Connection, a: bool| {
        hybrid(c, a);
        hybrid_child(c, a);
    };
    for first in [Act::RekeyChild, Act::RekeyIke] {
        for second in ALL {
            for skew in (-70..=70).step_by(10) {
                let net = both(up(pair_with(94, all)), first, second, skew);
                assert_settled(&net, &format!("{first:?}, {second:?} {skew} ms later"));
            }
        }
    }
}

#[test]
fn another_method_of_a_childs_key_exchange_costs_one_round_trip() {
    let net = up(pair_with(3, |c, a| {
        let methods = if a {
            vec![Method::X25519, Method::P256]
        } else {
            vec![Method::P256]
        };
        c.child.as_mut().unwrap().methods = methods;
    }));
    let mut net = net;
    act(&mut net, 0, Act::RekeyChild);
    net.run(5 * SECOND);
    assert_settled(&net, "P-256");
    assert_eq!(refused(&net, 0, NotifyType::INVALID_KE_PAYLOAD), 1);
    assert!(net.nodes[0].child().replaces.is_some());
}

#[test]
fn an_ike_sa_is_rekeyed_and_its_children_move() {
    let mut net = up(pair(4));
    let (old, child) = (net.nodes[1].ike(), net.nodes[1].child().clone());
    act(&mut net, 1, Act::RekeyIke);
    net.run(30 * SECOND);
    assert_settled(&net, "rekeyed");
    assert_ne!(net.nodes[1].ike(), old);
    assert_eq!(net.nodes[1].child(), &child, "the child is what it was");
    assert_eq!(
        ike_downs(&net, 0, Down::Rekeyed) + ike_downs(&net, 1, Down::Rekeyed),
        2
    );
    // The new one works.
    act(&mut net, 0, Act::RekeyChild);
    net.run(SECOND);
    assert_settled(&net, "used");
    assert_ne!(net.nodes[1].child().child, child.child);
}

#[test]
fn an_ike_sa_with_ml_kem_is_rekeyed_with_it() {
    let net = up(pair_with(5, hybrid));
    let net = both(net, Act::RekeyIke, Act::RekeyIke, 5000);
    assert_settled(&net, "by IKE_FOLLOWUP_KE");
    for n in &net.nodes {
        assert_eq!(n.count(|e| matches!(e, Event::IkeRekeyed { .. })), 2);
    }
}

fn hybrid(c: &mut Connection, _: bool) {
    c.ike[0].additional = vec![vec![Method::MlKem768]];
}

/// §2.8.1.
#[test]
fn both_rekey_the_same_child() {
    for seed in 10..30 {
        let net = both(up(pair(seed)), Act::RekeyChild, Act::RekeyChild, 0);
        assert_settled(&net, "both rekeyed");
        assert_eq!(
            net.nodes[0].kernel.len(),
            1,
            "the redundant one and the old one are closed"
        );
        for n in &net.nodes {
            assert_eq!(
                n.count(|e| matches!(e, Event::ChildUp(_))),
                3,
                "both took place"
            );
        }
    }
}

/// §2.8.1, its third figure: one side's request is late, and finds the child closed.
#[test]
fn both_rekey_the_same_child_and_one_request_is_late() {
    for late in [
        Fate::Lose,
        Fate::Delay(15 * MS),
        Fate::Delay(25 * MS),
        Fate::Delay(400 * MS),
    ] {
        let mut net = up(pair(31));
        let sent = net.carried;
        net.filter(move |n, _| if n == sent { late } else { Fate::Pass });
        let net = both(net, Act::RekeyChild, Act::RekeyChild, 0);
        assert_settled(&net, "one late");
        assert_eq!(net.nodes[0].kernel.len(), 1);
    }
}

/// §2.8.2.
#[test]
fn both_rekey_the_ike_sa() {
    for seed in 40..60 {
        let net = both(up(pair(seed)), Act::RekeyIke, Act::RekeyIke, 0);
        assert_settled(&net, "both rekeyed");
        for n in &net.nodes {
            assert_eq!(
                n.count(|e| matches!(e, Event::IkeRekeyed { .. })),
                1,
                "one successor counts"
            );
        }
        assert_eq!(net.nodes[0].kernel.len(), 1);
    }
}

/// §2.8.2: only one of the two notices.
#[test]
fn both_rekey_the_ike_sa_and_one_request_is_late() {
    for late in [
        Fate::Lose,
        Fate::Delay(15 * MS),
        Fate::Delay(25 * MS),
        Fate::Delay(400 * MS),
    ] {
        let mut net = up(pair(61));
        let sent = net.carried;
        net.filter(move |n, _| if n == sent { late } else { Fate::Pass });
        let net = both(net, Act::RekeyIke, Act::RekeyIke, 0);
        assert_settled(&net, "one late");
        assert_eq!(net.nodes[0].kernel.len(), 1);
    }
}

#[test]
fn both_rekey_the_ike_sa_with_ml_kem() {
    for seed in 70..74 {
        for skew in [0, 5, 15, 25, 35] {
            let net = both(
                up(pair_with(seed, hybrid)),
                Act::RekeyIke,
                Act::RekeyIke,
                skew,
            );
            assert_settled(&net, "by IKE_FOLLOWUP_KE");
            assert_eq!(net.nodes[0].kernel.len(), 1);
        }
    }
}

/// §2.25.1: closing while the peer closes: neither names its half again.
#[test]
fn both_close_the_same_child() {
    let net = both(up(pair(80)), Act::DeleteChild, Act::DeleteChild, 0);
    assert_settled(&net, "closed");
    assert!(net.nodes[0].kernel.is_empty());
    assert_eq!(net.nodes[0].endpoint.established().count(), 1);
}

/// §2.25.1: a request to rekey a child that is being closed.
#[test]
fn a_child_is_rekeyed_while_the_peer_closes_it() {
    let net = both(up(pair(81)), Act::RekeyChild, Act::DeleteChild, 0);
    assert_settled(&net, "closed");
    assert_eq!(refused(&net, 0, NotifyType::TEMPORARY_FAILURE), 1);
    assert!(
        net.nodes[0].kernel.is_empty(),
        "the peer closed it for a reason"
    );
}

/// §2.25.2: a request for a child while the IKE SA is being rekeyed.
#[test]
fn a_child_is_asked_for_while_the_peer_rekeys_the_ike_sa() {
    let net = both(up(pair(82)), Act::CreateChild, Act::RekeyIke, 0);
    assert_settled(&net, "later");
    assert_eq!(refused(&net, 0, NotifyType::TEMPORARY_FAILURE), 1);
    assert_eq!(
        net.nodes[0].kernel.len(),
        2,
        "tried again, on the new IKE SA or the old"
    );
    let rekeyed = net.nodes[1].count(|e| matches!(e, Event::IkeRekeyed { .. }));
    assert_eq!(rekeyed, 1, "tried again");
}

#[test]
fn a_child_is_closed_while_the_peer_rekeys_the_ike_sa() {
    let net = both(up(pair(83)), Act::DeleteChild, Act::RekeyIke, 0);
    assert_settled(&net, "closed");
    assert!(net.nodes[0].kernel.is_empty());
}

/// §2.25.2: closing the IKE SA wins over rekeying it.
#[test]
fn the_ike_sa_is_closed_while_the_peer_rekeys_it() {
    let net = both(up(pair(84)), Act::DeleteIke, Act::RekeyIke, 0);
    assert_settled(&net, "closed");
    assert_eq!(net.nodes[0].endpoint.established().count(), 0);
}

#[test]
fn both_close_the_ike_sa() {
    let net = both(up(pair(85)), Act::DeleteIke, Act::DeleteIke, 0);
    assert_settled(&net, "closed");
    assert_eq!(
        (
            ike_downs(&net, 0, Down::Deleted),
            ike_downs(&net, 1, Down::Deleted)
        ),
        (1, 1)
    );
}

/// The whole matrix, without faults.
#[test]
fn any_two_exchanges_at_any_skew_end_in_the_same_state() {
    for a in ALL {
        for b in ALL {
            for skew in (-45..=45).step_by(5) {
                let net = both(up(pair(100)), a, b, skew);
                assert_settled(&net, &format!("{a:?} and {b:?} {skew} ms later"));
            }
        }
    }
}

/// The matrix again, with each of the messages lost, doubled or late.
#[test]
fn any_two_exchanges_survive_the_loss_doubling_or_delay_of_any_message() {
    let fates = [
        Fate::Lose,
        Fate::Double,
        Fate::Delay(12 * MS),
        Fate::Delay(700 * MS),
    ];
    for a in ALL {
        for b in ALL {
            for skew in [-15, 0, 15] {
                for hit in 0..7 {
                    for fate in fates {
                        let mut net = up(pair(200));
                        let first = net.carried;
                        net.filter(move |n, _| if n == first + hit { fate } else { Fate::Pass });
                        let net = both(net, a, b, skew);
                        let what = format!("{a:?}, {b:?} {skew} ms later, message {hit}: {fate:?}");
                        assert_settled(&net, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn every_message_of_a_set_up_may_be_lost_doubled_or_late() {
    for seed in [300, 301] {
        for hit in 0..12 {
            for fate in [
                Fate::Lose,
                Fate::Double,
                Fate::Delay(12 * MS),
                Fate::Delay(700 * MS),
            ] {
                let mut net = if seed == 300 {
                    pair(seed)
                } else {
                    pair_with(seed, hybrid)
                };
                net.filter(move |n, _| if n == hit { fate } else { Fate::Pass });
                net.initiate(0, 1);
                net.run(60 * SECOND);
                assert_settled(&net, &format!("message {hit}: {fate:?}"));
                assert_eq!(net.nodes[0].kernel.len(), 1);
            }
        }
    }
}

/// Hours of rekeying by both sides over a line that loses, doubles and reorders a good part of everything.
#[test]
fn both_stay_together_over_a_bad_line() {
    for seed in 400..404 {
        let mut net = pair_with(seed, |c, _| {
            c.rekey = Some(100 * SECOND);
            c.child.as_mut().unwrap().rekey = Some(30 * SECOND);
        });
        let mut dice = common::host::TestHost::new(seed);
        net.filter(
            move |_, _| match (dice.one_in(5), dice.one_in(8), dice.one_in(3)) {
                (true, ..) => Fate::Lose,
                (_, true, _) => Fate::Double,
                (.., true) => Fate::Delay(u32::try_from(dice.next() % 100).unwrap() * MS),
                _ => Fate::Pass,
            },
        );
        net.initiate(0, 1);
        net.run(3000 * SECOND);
        // Let it come to rest.
        net.filter(|_, _| Fate::Pass);
        let dead = net.nodes[0].count(|e| {
            matches!(
                e,
                Event::IkeDown {
                    why: Down::Dead,
                    ..
                }
            )
        });
        assert_eq!(dead, 0, "nobody gave up");
        let rekeyed = net.nodes[0].count(|e| matches!(e, Event::IkeRekeyed { .. }));
        assert!(rekeyed > 20, "{rekeyed}");
        let mut tries = 0;
        while net
            .nodes
            .iter()
            .any(|n| n.kernel.len() != 1 || n.endpoint.len() != 1)
        {
            net.run(SECOND);
            tries += 1;
            assert!(tries < 60, "{:#?}", net.nodes[0].kernel.keys());
        }
        net.assert_same(0, 1);
    }
}
