// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Exchanges between two nodes in simulated time: set-up in every suite, refusals, cookies, fragments, NAT, moves.

mod common;

use common::sim::*;
use mml_ike::config::{Config, IkeProposal};
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::event::{ChildFailure, ChildSa, Datagram, Down, Event};
use mml_ike::secret::Secret;
use mml_ike::wire::{NotifyType, TrafficSelector};
use pfkey::Mode;
use std::net::SocketAddr;

#[test]
fn two_nodes_set_up_an_ike_sa_and_a_child_in_two_round_trips() {
    let mut net = pair(1);
    net.initiate(0, 1);
    net.run(4 * net.delay);
    net.assert_same(0, 1);
    assert_eq!(net.carried, 4);
    let child = net.nodes[0].child();
    assert!(
        matches!(child.keys, ChildSa::Plain { .. }),
        "no zones were configured"
    );
    assert!(child.seal_now && !child.udp);
}

#[test]
fn every_suite_in_common_works() {
    for cipher in [
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305,
    ] {
        for prf in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            for method in [Method::X25519, Method::P256, Method::P384, Method::MlKem768] {
                let mut net = pair_with(2, |c, _| {
                    c.ike = vec![IkeProposal {
                        ciphers: vec![cipher],
                        prfs: vec![prf],
                        methods: vec![method],
                        additional: vec![],
                    }];
                    c.child.as_mut().unwrap().ciphers = vec![cipher];
                });
                net.initiate(0, 1);
                net.run(SECOND);
                net.assert_same(0, 1);
            }
        }
    }
}

#[test]
fn ml_kem_goes_beside_a_curve_by_ike_intermediate() {
    let mut net = pair_with(3, |c, _| {
        c.ike[0].additional = vec![vec![Method::MlKem768], vec![Method::P256]];
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    // IKE_SA_INIT, two IKE_INTERMEDIATE (ML-KEM's public value of 1184 octets fits the datagram or is cut up), IKE_AUTH.
    assert!(net.carried >= 8, "{}", net.carried);
}

#[test]
fn a_responder_without_additional_exchanges_refuses_who_insists_on_one() {
    let mut net = pair_with(4, |c, a| {
        if a {
            c.ike[0].additional = vec![vec![Method::MlKem768]];
        }
    });
    net.initiate(0, 1);
    net.run(5 * SECOND);
    let why = net.nodes[0].find(|e| match e {
        Event::IkeDown { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why, Some(Down::Refused(NotifyType::NO_PROPOSAL_CHOSEN)));
    assert_eq!(net.nodes[1].endpoint.len(), 0, "nothing is kept of it");
}

#[test]
fn another_key_exchange_method_costs_one_round_trip() {
    let mut net = pair_with(5, |c, a| {
        c.ike[0].methods = if a {
            vec![Method::X25519, Method::P384]
        } else {
            vec![Method::P384]
        };
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert_eq!(net.carried, 6);
}

/// An unprotected answer of one notification to the first message of that SPI.
fn forged(spi: &[u8], notify: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    let mut octets = spi.to_vec();
    octets.extend([0; 8]);
    octets.extend([41, 0x20, 34, 0x20, 0, 0, 0, 0]);
    octets.extend((28 + u32::from(length)).to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(length.to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(notify.to_be_bytes());
    octets.extend(data);
    octets
}

/// Somebody on the way answers before the responder does.
fn with_forged_answer(notify: NotifyType, data: &'static [u8]) -> Net {
    let mut net = pair(6);
    net.filter(move |n, datagram| {
        if n == 1 {
            datagram.octets = forged(&datagram.octets[..8], notify.0, data);
        }
        Fate::Pass
    });
    net.initiate(0, 1);
    net.run(300 * MS);
    assert!(net.nodes[0].events.is_empty(), "it is in doubt");
    net
}

#[test]
fn a_method_never_offered_is_not_talked_into() {
    let mut net = with_forged_answer(NotifyType::INVALID_KE_PAYLOAD, &[0, 20]);
    assert_eq!(net.carried, 2, "no other public value was sent");
    net.run(5 * SECOND);
    net.assert_same(0, 1);
}

#[test]
fn a_forged_refusal_is_outlived_by_the_true_answer() {
    let mut net = with_forged_answer(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
    net.run(5 * SECOND);
    net.assert_same(0, 1);
}

#[test]
fn a_wrong_shared_secret_fails_on_both_sides_and_leaves_nothing() {
    let mut net = pair_with(8, |c, a| {
        if a {
            c.credential = mml_ike::auth::Credential::Psk(Secret::copy(b"guessed"));
        }
    });
    net.initiate(0, 1);
    net.run(60 * SECOND);
    assert_eq!(
        net.nodes[1].count(|e| matches!(e, Event::AuthenticationFailed { .. })),
        1
    );
    let why = net.nodes[0].find(|e| match e {
        Event::IkeDown { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why, Some(Down::Refused(NotifyType::AUTHENTICATION_FAILED)));
    assert!(net
        .nodes
        .iter()
        .all(|n| n.endpoint.is_empty() && n.kernel.is_empty()));
}

#[test]
fn a_responder_that_is_not_who_it_should_be_is_told_so() {
    let mut net = pair_with(9, |c, a| {
        if !a {
            c.credential = mml_ike::auth::Credential::Psk(Secret::copy(b"guessed"));
        }
    });
    net.initiate(0, 1);
    net.run(60 * SECOND);
    assert_eq!(
        net.nodes[0].count(|e| matches!(e, Event::AuthenticationFailed { .. })),
        1
    );
    assert!(net
        .nodes
        .iter()
        .all(|n| n.endpoint.is_empty() && n.kernel.is_empty()));
}

#[test]
fn an_identity_nobody_configured_is_refused() {
    let mut net = pair_with(10, |c, a| {
        if a {
            c.local_id = mml_ike::wire::Id::fqdn("mallory.test");
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    assert!(net.nodes[0].kernel.is_empty() && net.nodes[1].kernel.is_empty());
    let who = net.nodes[1].find(|e| match e {
        Event::AuthenticationFailed { peer, .. } => Some(peer.to_string()),
        _ => None,
    });
    assert_eq!(who.as_deref(), Some("mallory.test"));
}

#[test]
fn a_childless_ike_sa_gets_its_child_later() {
    let mut net = pair_with(11, |c, a| {
        if a {
            c.child = None;
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert!(net.nodes[0].kernel.is_empty());
    let ike = net.nodes[1].ike();
    net.at(1, |e, now, host| e.create_child(ike, now, host))
        .unwrap();
    net.run(SECOND);
    // Node 0 has no child in its configuration: the peer is refused.
    let why = net.nodes[1].child_failure();
    assert_eq!(
        why,
        Some(ChildFailure::Refused(NotifyType::NO_ADDITIONAL_SAS))
    );
}

#[test]
fn selectors_are_narrowed_and_foreign_ones_refused_without_losing_the_ike_sa() {
    let net10 = TrafficSelector::prefix("10.0.0.0".parse().unwrap(), 8);
    let net172 = TrafficSelector::prefix("172.16.0.0".parse().unwrap(), 12);
    let mut net = pair_with(12, |c, a| {
        let child = c.child.as_mut().unwrap();
        if !a {
            child.remote_ts = vec![net10];
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert_eq!(net.nodes[0].child().local_ts, vec![net10]);

    let mut net = pair_with(13, |c, a| {
        let child = c.child.as_mut().unwrap();
        if a {
            child.local_ts = vec![net172];
        } else {
            child.remote_ts = vec![net10];
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    let why = net.nodes[0].child_failure();
    assert_eq!(
        why,
        Some(ChildFailure::Refused(NotifyType::TS_UNACCEPTABLE))
    );
}

#[test]
fn transport_mode_is_negotiated_or_refused() {
    let transport = |c: &mut mml_ike::config::Connection| {
        c.child.as_mut().unwrap().mode = Mode::Transport;
    };
    let net = up(pair_with(14, |c, _| transport(c)));
    assert_eq!(net.nodes[0].child().mode, Mode::Transport);
    for only in [true, false] {
        let mut net = pair_with(15, |c, a| {
            if a == only {
                transport(c);
            }
        });
        net.initiate(0, 1);
        net.run(5 * SECOND);
        net.assert_same(0, 1);
        assert!(net.nodes[0].kernel.is_empty(), "the two modes don't meet");
    }
}

#[test]
fn initial_contact_ends_what_the_peer_had_before() {
    let mut net = up(pair_with(18, |c, _| c.initial_contact = true));
    // It restarts, and forgets.
    let fresh = pair_with(19, |c, _| c.initial_contact = true)
        .nodes
        .remove(0);
    net.nodes[0] = fresh;
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert_eq!(
        net.nodes[1].count(|e| matches!(
            e,
            Event::IkeDown {
                why: Down::Replaced,
                ..
            }
        )),
        1
    );
}

#[test]
fn a_peer_that_is_gone_is_noticed() {
    let mut net = up(pair_with(20, |c, _| c.liveness = Some(30 * SECOND)));
    net.run(100 * SECOND);
    net.assert_same(0, 1);
    assert!(net.carried > 4, "it was asked whether it lives");
    net.filter(|_, _| Fate::Lose);
    net.run(300 * SECOND);
    for n in &net.nodes {
        assert_eq!(
            n.count(|e| matches!(
                e,
                Event::IkeDown {
                    why: Down::Dead,
                    ..
                }
            )),
            1
        );
        assert!(n.kernel.is_empty() && n.endpoint.is_empty());
    }
}

#[test]
fn deleting_an_ike_sa_takes_its_children_on_both_sides() {
    let mut net = up(pair(21));
    let ike = net.nodes[1].ike();
    net.at(1, |e, now, host| e.delete_ike(ike, now, host))
        .unwrap();
    net.run(30 * SECOND);
    for (n, why) in [(0, Down::ByPeer), (1, Down::Deleted)] {
        let node = &net.nodes[n];
        assert_eq!(
            node.count(|e| matches!(e, Event::IkeDown { why: w, .. } if *w == why)),
            1
        );
        assert!(node.kernel.is_empty() && node.endpoint.is_empty());
    }
}

#[test]
fn half_open_floods_meet_cookies_and_bounded_memory() {
    let mut flooded = config(psk("b.test", "a.test"));
    flooded.cookie_threshold = 10;
    flooded.max_half_open = 20;
    let mut net = pair(22);
    net.nodes[1] = Node::new("192.0.2.2", flooded, 5);
    // 200 first messages that differ from each other, from addresses nobody answers at.
    let template = {
        use std::cell::RefCell;
        use std::rc::Rc;
        let seen: Rc<RefCell<Vec<u8>>> = Rc::default();
        let copy = Rc::clone(&seen);
        net.filter(move |_, datagram| {
            copy.borrow_mut().clone_from(&datagram.octets);
            Fate::Lose
        });
        net.initiate(0, 1);
        net.filter(|_, _| Fate::Pass);
        let octets = seen.borrow().clone();
        octets
    };
    net.nodes[0] = pair(22).nodes.remove(0);
    let to = net.end(1);
    for n in 0..200u32 {
        let mut octets = template.clone();
        octets[..4].copy_from_slice(&(n + 1).to_be_bytes());
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0xC633_6400 + n).into(), 500);
        net.send(Datagram { from, to, octets });
    }
    net.run(100 * MS);
    assert_eq!(
        net.nodes[1].endpoint.half_open(),
        10,
        "cookies from there on"
    );
    assert_eq!(
        net.nodes[1].sent, 200,
        "each is answered, with a message no longer than a cookie's"
    );
    // An honest peer gets in by its cookie.
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    net.run(60 * SECOND);
    assert_eq!(net.nodes[1].endpoint.half_open(), 0);
    assert_eq!(net.nodes[1].endpoint.len(), 1, "the flood left nothing");
}

#[test]
fn a_message_too_long_for_a_datagram_is_cut_up_and_put_together() {
    // ML-KEM-768 over datagrams of 600 octets.
    let net = pair_with(23, |c, _| {
        c.ike[0].additional = vec![vec![Method::MlKem768]]
    });
    let small = |n: &Node| Config {
        fragment_size: 600,
        ..n.endpoint.config().clone()
    };
    let mut net = Net::new(vec![
        Node::new("192.0.2.1", small(&net.nodes[0]), 1),
        Node::new("192.0.2.2", small(&net.nodes[1]), 2),
    ]);
    net.filter(|n, datagram| {
        assert!(
            n == 0 || n == 1 || datagram.octets.len() <= 600,
            "{}",
            datagram.octets.len()
        );
        // The fragments overtake each other.
        Fate::Delay(u32::from(datagram.octets[datagram.octets.len() - 1] % 8) * MS)
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert!(net.carried > 6);
}

/// A NAT in front of node 0: its packets come from 203.0.113.9, from a port that can be changed.
fn behind_nat(net: &mut Net, port_offset: u16) {
    let outside: std::net::IpAddr = "203.0.113.9".parse().unwrap();
    let inside = net.nodes[0].address;
    net.filter(move |_, datagram| {
        if datagram.from.ip() == inside {
            let port = datagram.from.port() + port_offset;
            datagram.from = SocketAddr::new(outside, port);
        } else if datagram.to.ip() == outside {
            let port = if datagram.to.port() >= 4500 {
                4500
            } else {
                500
            };
            datagram.to = SocketAddr::new(inside, port);
        }
        Fate::Pass
    });
}

#[test]
fn behind_a_nat_port_4500_and_udp_are_used_and_a_new_mapping_is_followed() {
    let mut net = pair_with(24, |c, _| c.liveness = Some(20 * SECOND));
    behind_nat(&mut net, 7);
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    for n in &net.nodes {
        assert!(n.child().udp);
        assert_eq!(n.child().local.port(), 4500);
    }
    assert_eq!(net.nodes[1].child().remote.port(), 4507);
    // The NAT forgets, and maps anew.
    behind_nat(&mut net, 9);
    let ike = net.nodes[0].ike();
    net.at(0, |e, now, host| e.probe(ike, now, host)).unwrap();
    net.run(SECOND);
    assert!(net.nodes[1].events.iter().any(|e| matches!(
        e,
        Event::Moved { remote, udp: true, children, .. } if remote.port() == 4509 && children.len() == 1
    )));
    net.assert_same(0, 1);
}

#[test]
fn a_host_that_moves_says_so_by_mobike() {
    let mut net = up(pair_with(25, |c, _| c.mobike = true));
    let ike = net.nodes[0].ike();
    net.nodes[0].address = "198.51.100.7".parse().unwrap();
    let (from, to) = (
        SocketAddr::new(net.nodes[0].address, 4500),
        SocketAddr::new(net.nodes[1].address, 4500),
    );
    net.at(0, |e, now, host| e.move_to(ike, from, to, now, host))
        .unwrap();
    net.run(SECOND);
    for n in &net.nodes {
        assert_eq!(
            n.count(
                |e| matches!(e, Event::Moved { udp: false, children, .. } if children.len() == 1)
            ),
            1
        );
    }
    let at_b = net.nodes[1].find(|e| match e {
        Event::Moved { remote, .. } => Some(*remote),
        _ => None,
    });
    assert_eq!(at_b, Some(from));
    let ike = net.nodes[1].ike();
    net.at(1, |e, now, host| e.probe(ike, now, host)).unwrap();
    net.run(SECOND);
    net.assert_same(0, 1);
    assert!(
        net.at(1, |e, now, host| e.move_to(ike, to, from, now, host))
            .is_err(),
        "the initiator's to decide"
    );
}

#[test]
fn a_suite_of_one_connection_does_not_let_in_another_ones_peer() {
    // Two peers of node 1: a.test with AES-128, c.test with ChaCha20 alone.
    let mut net = pair(30);
    let mut two = net.nodes[1].endpoint.config().clone();
    let mut other = psk("b.test", "c.test");
    other.ike[0].ciphers = vec![Cipher::ChaCha20Poly1305];
    two.connections.push(other);
    net.nodes[1] = Node::new("192.0.2.2", two, 6);
    let weak = config(psk("c.test", "b.test"));
    net.nodes.push(Node::new("192.0.2.3", weak, 7));
    net.initiate(2, 1);
    net.run(SECOND);
    assert!(net.nodes[2].kernel.is_empty(), "AES-128 is not c.test's");
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
}

#[test]
fn closing_an_ike_sa_whose_peer_is_gone_closes_it() {
    let mut net = up(pair(31));
    let ike = net.nodes[0].ike();
    net.filter(|_, _| Fate::Lose);
    net.at(0, |e, now, host| e.delete_ike(ike, now, host))
        .unwrap();
    net.run(300 * SECOND);
    assert_eq!(
        net.nodes[0].count(|e| matches!(
            e,
            Event::IkeDown {
                why: Down::Deleted,
                ..
            }
        )),
        1
    );
    assert!(net.nodes[0].endpoint.is_empty());
    // And one that never began.
    let ike = net.initiate(0, 1);
    net.at(0, |e, now, host| e.delete_ike(ike, now, host))
        .unwrap();
    assert_eq!(
        net.nodes[0].count(|e| matches!(e, Event::IkeDown { .. })),
        2
    );
}
