// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Inner addresses (RFC 7296 §2.19) between two nodes in simulated time: who gets which, and which children there are then.

mod common;

use common::sim::*;
use mml_ike::event::{ChildFailure, Event};
use mml_ike::pool::{AddressRange, Pool};
use mml_ike::wire::{Id, NotifyType, TrafficSelector};
use pfkey::Family;
use std::net::IpAddr;

fn pool(first: &str, last: &str) -> Pool {
    let range = AddressRange::new(first.parse().unwrap(), last.parse().unwrap());
    Pool(vec![range.unwrap()])
}

/// A host that asks for an address, of IPv6 where `six`, and one that has two.
fn host_and_pool(seed: u64, six: bool) -> Net {
    pair_with(seed, |c, a| {
        let child = c.child.as_mut().unwrap();
        let any: IpAddr = if six { "::" } else { "0.0.0.0" }.parse().unwrap();
        (child.local_ts, child.remote_ts) = (
            vec![TrafficSelector::any(any)],
            vec![TrafficSelector::any(any)],
        );
        match (a, six) {
            (true, true) => c.request_address = Some(Family::V6),
            (true, false) => c.request_address = Some(Family::V4),
            (false, true) => c.pool = pool("fd09::1", "fd09::2"),
            (false, false) => c.pool = pool("10.9.0.1", "10.9.0.2"),
        }
    })
}

#[test]
fn an_inner_address_is_given_and_is_all_the_host_may_use() {
    let mut net = pair_with(16, |c, a| {
        if a {
            c.request_address = Some(Family::V4);
        } else {
            c.pool = pool("10.9.0.1", "10.9.0.2");
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    let host = TrafficSelector::host("10.9.0.1".parse().unwrap());
    assert_eq!(net.nodes[0].child().local_ts, vec![host]);
    assert!(net.nodes[0].events.iter().any(|e| matches!(
        e,
        Event::InnerAddress { address, .. } if address.to_string() == "10.9.0.1"
    )));
    // It comes again: the same address.
    net.initiate(0, 1);
    net.run(SECOND);
    let all = net.nodes[1].kernel.values();
    assert!(all.map(|c| c.remote_ts[0]).all(|ts| ts == host));
}

#[test]
fn either_side_rekeys_a_child_with_an_inner_address_to_the_same() {
    for (seed, six) in [(60, false), (61, true)] {
        let mut net = up(host_and_pool(seed, six));
        let host = TrafficSelector::host(if six { "fd09::1" } else { "10.9.0.1" }.parse().unwrap());
        for by in [0, 1, 0] {
            let (ike, old) = (net.nodes[by].ike(), net.nodes[by].child().child);
            let done = net.at(by, |e, now, host| e.rekey_child(ike, old, now, host));
            done.unwrap();
            net.run(SECOND);
            net.assert_same(0, 1);
            let (at_host, at_pool) = (net.nodes[0].child(), net.nodes[1].child());
            assert_eq!(at_host.local_ts, vec![host], "rekeyed by {by}");
            assert_eq!(at_pool.remote_ts, vec![host], "rekeyed by {by}");
            assert_ne!(net.nodes[by].child().child, old);
        }
    }
}

#[test]
fn a_peer_that_asks_for_no_address_gets_no_child_where_there_is_a_pool() {
    let mut net = pair_with(62, |c, a| {
        if !a {
            c.pool = pool("10.9.0.1", "10.9.0.2");
        }
    });
    net.initiate(0, 1);
    net.run(SECOND);
    let why = net.nodes[0].child_failure();
    let refused = ChildFailure::Refused(NotifyType::FAILED_CP_REQUIRED);
    assert_eq!(why, Some(refused));
    assert!(net.nodes[1].kernel.is_empty());
    // Nor later, by another exchange.
    let ike = net.nodes[0].ike();
    let asked = net.at(0, |e, now, host| e.create_child(ike, now, host));
    asked.unwrap();
    net.run(SECOND);
    assert!(net.nodes[0].kernel.is_empty() && net.nodes[1].kernel.is_empty());
    let again =
        net.nodes[0].count(|e| matches!(e, Event::ChildFailed { why, .. } if *why == refused));
    assert_eq!(again, 2);
}

#[test]
fn a_host_that_is_given_no_address_takes_no_child() {
    let mut net = pair_with(63, |c, a| {
        if a {
            c.request_address = Some(Family::V4);
        }
    });
    net.initiate(0, 1);
    net.run(5 * SECOND);
    let why = net.nodes[0].child_failure();
    assert_eq!(why, Some(ChildFailure::Address));
    assert!(net.nodes[0].kernel.is_empty());
    assert!(net.nodes[1].kernel.is_empty(), "the peer was told");
}

#[test]
fn a_host_asks_for_the_address_it_had_when_the_other_side_has_forgotten() {
    let mut net = host_and_pool(64, false);
    let had = "10.9.0.2".parse().unwrap();
    let peer = Id::fqdn("b.test");
    net.nodes[0].endpoint.hold_address(0, &peer, had, SECOND);
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert_eq!(
        net.nodes[0].child().local_ts,
        vec![TrafficSelector::host(had)]
    );
}

#[test]
fn an_exhausted_pool_refuses_the_child_alone() {
    let mut net = pair_with(17, |c, a| {
        if a {
            c.request_address = Some(Family::V4);
        } else {
            c.pool = pool("10.9.0.1", "10.9.0.1");
            c.remote_id = mml_ike::auth::IdMatch::Any;
        }
    });
    let other = psk("c.test", "b.test");
    let mut other = config(other);
    other.connections[0].request_address = Some(Family::V4);
    net.nodes.push(Node::new("192.0.2.3", other, 99));
    net.initiate(0, 1);
    net.run(SECOND);
    net.initiate(2, 1);
    net.run(SECOND);
    let why = net.nodes[2].child_failure();
    let refused = ChildFailure::Refused(NotifyType::INTERNAL_ADDRESS_FAILURE);
    assert_eq!(why, Some(refused));
    net.nodes[2].ike();
}

#[test]
fn one_that_gives_addresses_and_comes_back_begins_with_the_one_its_host_has() {
    for known in [true, false] {
        let mut net = up(host_and_pool(65, false));
        let host = net.nodes[0].child().local_ts.clone();
        let fresh = host_and_pool(66, false).nodes.remove(1);
        net.nodes[1] = fresh;
        if known {
            let peer = Id::fqdn("a.test");
            let address = host[0].start;
            net.nodes[1]
                .endpoint
                .hold_address(0, &peer, address, SECOND);
        }
        net.initiate(1, 0);
        net.run(SECOND);
        // Without the address it makes an IKE SA alone.
        net.nodes[1].ike();
        let all: Vec<_> = net.nodes[1].kernel.values().collect();
        assert_eq!(all.len(), usize::from(known));
        assert!(all.iter().all(|child| child.remote_ts == host));
    }
}

#[test]
fn a_host_that_was_never_given_an_address_is_asked_for_no_child() {
    let mut net = host_and_pool(67, false);
    let peer = Id::fqdn("a.test");
    let address = "10.9.0.1".parse().unwrap();
    net.nodes[1]
        .endpoint
        .hold_address(0, &peer, address, SECOND);
    net.initiate(1, 0);
    net.run(SECOND);
    assert!(net.nodes[0].kernel.is_empty() && net.nodes[1].kernel.is_empty());
    let why = net.nodes[1].child_failure();
    assert_eq!(
        why,
        Some(ChildFailure::Refused(NotifyType::TS_UNACCEPTABLE))
    );
}

#[test]
fn of_many_hosts_the_one_that_has_the_address_is_meant_and_nobody_else() {
    for (expected, comes_up) in [("a.test", true), ("c.test", false)] {
        let mut net = up(host_and_pool(68, false));
        let host = net.nodes[0].child().local_ts.clone();
        let mut fresh = host_and_pool(69, false).nodes.remove(1);
        let mut config = fresh.endpoint.config().clone();
        config.connections[0].remote_id = mml_ike::auth::IdMatch::Within("test".to_owned());
        fresh.endpoint = mml_ike::Endpoint::new(config);
        net.nodes[1] = fresh;
        let peer = Id::fqdn(expected);
        let (from, to) = (net.end(1), net.end(0));
        let begun = net.at(1, |e, now, host_of| {
            e.hold_address(0, &peer, host[0].start, SECOND);
            e.initiate_with(0, Some(&peer), from, to, now, host_of)
        });
        begun.unwrap();
        net.run(SECOND);
        let all: Vec<_> = net.nodes[1].kernel.values().collect();
        assert_eq!(all.len(), usize::from(comes_up), "{expected}");
        assert!(all.iter().all(|child| child.remote_ts == host));
        let failed = net.nodes[1].count(|e| {
            matches!(
                e,
                Event::IkeDown { .. } | Event::AuthenticationFailed { .. }
            )
        });
        assert_eq!(failed == 0, comes_up);
    }
}
