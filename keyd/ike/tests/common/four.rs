// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mobile host, its home agent and two foreign agents.

use super::sim::*;
use mml_ike::auth::IdMatch;
use mml_ike::config::{Agent, HomeAgent, Prefix};
use mml_ike::event::{ChildSa, ChildUp, Custody, Event, Place, RelayCsa};
use mml_ike::wire::{Ask, Id, TrafficSelector};
use mml_ike::Endpoint;
use std::net::IpAddr;

pub const MH: usize = 0;

pub const HA: usize = 1;

pub const FA1: usize = 2;

pub const FA2: usize = 3;

pub const FA1_ADDRESS: &str = "198.51.100.1";

pub const FA2_ADDRESS: &str = "198.51.100.2";

pub const HOME: &str = "203.0.113.5";

pub fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// A mobile host, a home agent and two foreign agents, with nothing between them yet.
pub fn four_strangers(seed: u64) -> Net {
    let [mobile, to_mobile] = mobile_and_home(TrafficSelector::host(ip(HOME)));
    let fas = || IdMatch::Within("fa.test".into());
    let mut ha = config(to_mobile);
    ha.connections.push(agents("ha.test", fas()));
    let agent = |name: &str, address: &str| Agent {
        identity: IdMatch::Exactly(Id::fqdn(name)),
        addresses: vec![ip(address)],
    };
    ha.home.foreign_agents = vec![
        agent("one.fa.test", FA1_ADDRESS),
        agent("two.fa.test", FA2_ADDRESS),
    ];
    let fa = |name: &str, other: Agent| {
        let mut fa = config(agents(name, IdMatch::Exactly(Id::fqdn("ha.test"))));
        fa.connections.push(agents(name, fas()));
        fa.foreign.home_agents = vec![HomeAgent {
            identity: IdMatch::Exactly(Id::fqdn("ha.test")),
            prefixes: vec![Prefix {
                address: ip("203.0.113.0"),
                bits: 24,
            }],
            standby: true,
            addresses: Vec::new(),
        }];
        fa.foreign.neighbours = vec![other];
        fa
    };
    Net::new(vec![
        Node::new("192.0.2.1", config(mobile), 10 * seed + 1),
        Node::new("192.0.2.2", ha, 10 * seed + 2),
        Node::new(
            FA1_ADDRESS,
            fa("one.fa.test", agent("two.fa.test", FA2_ADDRESS)),
            10 * seed + 3,
        ),
        Node::new(
            FA2_ADDRESS,
            fa("two.fa.test", agent("one.fa.test", FA1_ADDRESS)),
            10 * seed + 4,
        ),
    ])
}

/// The same, the foreign agents' IKE SAs up.
pub fn four(seed: u64) -> Net {
    let mut net = four_strangers(seed);
    net.initiate_as(HA, 1, FA1);
    net.initiate_as(HA, 1, FA2);
    net.initiate_as(FA2, 1, FA1);
    net.run(SECOND);
    net
}

pub fn register(net: &mut Net, fa: usize) {
    net.at(fa, |e, _, _| e.register(ip(HOME), Id::fqdn("ha.test")));
}

pub fn relays(net: &mut Net, current: Option<&str>, standbys: &[&str]) {
    let standbys = standbys.iter().map(|a| ip(a)).collect();
    net.at(HA, |e, now, host| {
        e.set_relays(ip(HOME), current.map(ip), standbys, now, host)
    });
}

/// All up, the host at FA1, FA2 a standby.
pub fn roaming(seed: u64, standbys: &[&str]) -> Net {
    let mut net = four(seed);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), standbys);
    net.initiate(MH, HA);
    net.run(SECOND);
    net
}

pub fn taken(node: &Node) -> Vec<&RelayCsa> {
    let relay = |e: &'_ Event| matches!(e, Event::RelayUp(_));
    let list = node.events.iter().filter(|e| relay(e));
    list.map(|e| match e {
        Event::RelayUp(csa) => &**csa,
        _ => unreachable!(),
    })
    .collect()
}

pub fn ike_with(e: &Endpoint, peer: &str) -> mml_ike::event::IkeId {
    let id = Id::fqdn(peer);
    e.established()
        .find(|ike| e.peer(*ike) == Some(&id))
        .expect("an IKE SA with that peer")
}

/// What the relay has is zone 1 of what the HA has, and nothing of zone 2.
pub fn assert_zone_1(relay: &RelayCsa, home: &ChildUp) {
    let ChildSa::Composite {
        zones, generation, ..
    } = &home.keys
    else {
        panic!("a plain child");
    };
    assert!(relay.keys_out == zones[0].keys_out && relay.keys_in == zones[0].keys_in);
    assert!(relay.keys_out != zones[1].keys_out && relay.keys_in != zones[1].keys_in);
    assert_eq!(relay.transform, zones[0].transform);
    let identity = &relay.identity;
    assert_eq!(
        (identity.spi_in, identity.spi_out),
        (home.spi_in, home.spi_out)
    );
    assert_eq!(identity.generation, *generation);
    assert_eq!(
        (identity.source, identity.destination),
        (home.local.ip(), home.remote.ip())
    );
}

/// Where the HA has a CSA, FA by FA.
pub fn custody(net: &mut Net) -> Vec<(IpAddr, Place, Custody)> {
    let holdings = net.at(HA, |e, _, _| e.holdings().collect::<Vec<_>>());
    assert!(holdings.iter().all(|one| one.home == ip(HOME)));
    let all = holdings.iter();
    all.map(|one| (one.fa, one.place, one.custody)).collect()
}

pub fn rekey(net: &mut Net, node: usize, peer: &str) {
    net.at(node, |e, now, host| {
        let ike = ike_with(e, peer);
        let child = e.children(ike)[0].0;
        e.rekey_child(ike, child, now, host).unwrap();
    });
}

pub fn ask(net: &Net, identification: u64) -> Ask {
    let mobile = &net.nodes[MH];
    let child = mobile.child().child;
    let token = mobile
        .endpoint
        .token(
            child,
            ip(FA1_ADDRESS),
            ip(FA2_ADDRESS),
            ip(HOME),
            identification,
        )
        .expect("a token");
    Ask {
        home: ip(HOME),
        care_of: ip(FA2_ADDRESS),
        identification,
        token,
        seen: Vec::new(),
    }
}

pub fn request(net: &mut Net, ask: Ask) -> bool {
    let before = net.nodes[FA2].events.len();
    net.at(FA2, |e, now, host| {
        let ike = ike_with(e, "one.fa.test");
        e.request_csa(ike, ask, now, host).unwrap();
    });
    net.run(SECOND);
    net.nodes[FA2].events[before..]
        .iter()
        .any(|e| matches!(e, Event::CsaRequested { given: true, .. }))
}

pub fn is_composite(child: &ChildUp) -> bool {
    matches!(child.keys, ChildSa::Composite { .. })
}
