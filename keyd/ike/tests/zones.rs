// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zones: negotiated, fallen back from, not to be stripped; CSAs given, moved, asked for, revoked, rekeyed over three nodes.

mod common;

use common::sim::*;
use mml_ike::auth::IdMatch;
use mml_ike::config::{Agent, Config, HomeAgent, Prefix, ZoneRole};
use mml_ike::event::{AdoptedCsa, ChildSa, ChildUp, Custody, Down, Event, Place, RelayCsa};
use mml_ike::secret::Secret;
use mml_ike::wire::{
    Ask, CsaIdentity, GroupStatus, Id, Message, Neighbour, NotifyType, Payload, Seen, SnoopState,
    TrafficSelector, MAX_STATES,
};
use mml_ike::Endpoint;
use std::net::IpAddr;
use std::time::Duration;

const MH: usize = 0;
const HA: usize = 1;
const FA1: usize = 2;
const FA2: usize = 3;

const FA1_ADDRESS: &str = "198.51.100.1";
const FA2_ADDRESS: &str = "198.51.100.2";
const HOME: &str = "203.0.113.5";

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// Node 0 as the mobile host, node 1 as the home agent.
fn zoned(seed: u64, change: impl Fn(&mut mml_ike::config::Connection, bool)) -> Net {
    pair_with(seed, |c, mobile| {
        let role = if mobile {
            ZoneRole::Mobile
        } else {
            ZoneRole::Home
        };
        c.child.as_mut().unwrap().zones = Some(zones(role));
        change(c, mobile);
    })
}

fn is_composite(child: &ChildUp) -> bool {
    matches!(child.keys, ChildSa::Composite { .. })
}

/// docs/wire.md 1.7c, 3.1a, 3.1i, 3.2b.
#[test]
fn peers_that_know_zones_make_a_csa_in_no_more_messages() {
    let net = up(zoned(1, |_, _| {}));
    assert_eq!(net.carried, 4);
    let child = net.nodes[MH].child();
    let ChildSa::Composite {
        zones,
        generation,
        replay_window,
        peer_replay_window,
        ..
    } = &child.keys
    else {
        panic!("a plain child");
    };
    assert_eq!((zones.len(), *generation), (2, 1));
    assert_eq!((*replay_window, *peer_replay_window), (1024, 8192));
}

/// docs/wire.md 3.2c.
#[test]
fn a_peer_that_knows_none_gets_a_plain_child() {
    for without in [MH, HA] {
        let net = zoned(2, |_, _| {});
        let nodes = net.nodes.iter().enumerate().map(|(n, node)| {
            let config = Config {
                zones: n != without,
                ..node.endpoint.config().clone()
            };
            Node::new(&node.address.to_string(), config, 3)
        });
        let net = up(Net::new(nodes.collect()));
        assert!(!is_composite(net.nodes[MH].child()));
    }
}

/// docs/wire.md 3.2d.
#[test]
fn a_policy_that_wants_zones_takes_nothing_less() {
    // The responder wants them, the initiator has none.
    let mut net = zoned(3, |c, mobile| {
        let child = c.child.as_mut().unwrap();
        if mobile {
            child.zones = None;
        } else {
            child.zones.as_mut().unwrap().required = true;
        }
    });
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(net.nodes.iter().all(|n| n.kernel.is_empty()));
    assert!(net.nodes[MH].events.iter().any(|e| matches!(
        e,
        Event::ChildFailed {
            why: mml_ike::event::ChildFailure::Refused(NotifyType::NO_PROPOSAL_CHOSEN),
            ..
        }
    )));
    // The initiator wants them, the responder's child has none.
    let mut net = zoned(4, |c, mobile| {
        let child = c.child.as_mut().unwrap();
        if mobile {
            child.zones.as_mut().unwrap().required = true;
        } else {
            child.zones = None;
        }
    });
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(
        net.nodes.iter().all(|n| n.kernel.is_empty()),
        "the plain child was closed again"
    );
    assert!(net.nodes[MH].events.iter().any(|e| matches!(
        e,
        Event::ChildFailed {
            why: mml_ike::event::ChildFailure::NoZones,
            ..
        }
    )));
    // The responder knows no zones at all.
    let mut net = zoned(5, |c, mobile| {
        if mobile {
            c.child.as_mut().unwrap().zones.as_mut().unwrap().required = true;
        }
    });
    let config = Config {
        zones: false,
        ..net.nodes[HA].endpoint.config().clone()
    };
    net.nodes[HA] = Node::new("192.0.2.2", config, 9);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert!(net.nodes[MH].events.iter().any(|e| matches!(
        e,
        Event::IkeDown {
            why: Down::NoZones,
            ..
        }
    )));
}

/// docs/wire.md 3.1a, 3.2c.
#[test]
fn another_map_is_answered_by_a_plain_child() {
    let net = up(zoned(6, |c, mobile| {
        if mobile {
            let zones = c.child.as_mut().unwrap().zones.as_mut().unwrap();
            zones.map = pfkey::ZoneMap::new(pfkey::Mode::Tunnel, &[40, pfkey::END]).unwrap();
        }
    }));
    assert!(!is_composite(net.nodes[MH].child()));
}

/// A man in the middle takes the zones out of one IKE_SA_INIT message.
fn strip(net: &mut Net, message: usize, keep: fn(&Payload) -> bool) {
    net.filter(move |n, datagram| {
        if n == message {
            let mut init = Message::decode(&datagram.octets).unwrap();
            let before = init.payloads.len();
            init.payloads.retain(keep);
            assert!(init.payloads.len() < before, "there was something to strip");
            datagram.octets = init.encode();
        }
        Fate::Pass
    });
}

/// docs/wire.md 3.2a.
#[test]
fn stripping_the_zones_from_either_message_fails_authentication() {
    let notify: fn(&Payload) -> bool =
        |p| !matches!(p, Payload::Notify(n) if n.kind == NotifyType::ZONES_SUPPORTED);
    let vendor: fn(&Payload) -> bool = |p| !matches!(p, Payload::VendorId(_));
    for message in [0, 1] {
        for keep in [notify, vendor] {
            let mut net = zoned(7, |_, _| {});
            strip(&mut net, message, keep);
            net.initiate(MH, HA);
            net.run(30 * SECOND);
            let failed = |n: &Node| n.count(|e| matches!(e, Event::AuthenticationFailed { .. }));
            assert_eq!(
                failed(&net.nodes[MH]) + failed(&net.nodes[HA]),
                1,
                "message {message}"
            );
            assert!(
                net.nodes.iter().all(|n| n.kernel.is_empty()),
                "nothing came of it"
            );
        }
    }
}

/// docs/wire.md 3.2a.
#[test]
fn zones_stand_in_the_first_message_again_after_a_cookie() {
    let mut net = zoned(8, |_, _| {});
    let config = Config {
        cookie_threshold: 0,
        ..net.nodes[HA].endpoint.config().clone()
    };
    net.nodes[HA] = Node::new("192.0.2.2", config, 9);
    let net = up(net);
    assert_eq!(net.carried, 6);
    assert!(is_composite(net.nodes[MH].child()));
}

/// docs/wire.md 1.5a.
#[test]
fn a_relay_may_write_only_where_both_permit_it_and_the_iv_is_explicit() {
    use mml_ike::wire::{Encr, ZoneTransform};
    for (mobile_may, home_may, encr, expected) in [
        (true, true, Encr::AES_GCM_16, true),
        (true, false, Encr::AES_GCM_16, false),
        (false, true, Encr::AES_GCM_16, false),
        (true, true, Encr::AES_GCM_16_IIV, false),
    ] {
        let net = up(zoned(9, |c, mobile| {
            let zones = c.child.as_mut().unwrap().zones.as_mut().unwrap();
            zones.may_write = if mobile { mobile_may } else { home_may };
            zones.transforms = vec![
                vec![ZoneTransform {
                    encr,
                    key_bits: 128
                }];
                2
            ];
        }));
        let ChildSa::Composite { may_write, .. } = net.nodes[MH].child().keys else {
            panic!("a plain child");
        };
        assert_eq!(may_write, expected);
    }
}

/// A mobile host, a home agent and two foreign agents, with nothing between them yet.
fn four_strangers(seed: u64) -> Net {
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
fn four(seed: u64) -> Net {
    let mut net = four_strangers(seed);
    net.initiate_as(HA, 1, FA1);
    net.initiate_as(HA, 1, FA2);
    net.initiate_as(FA2, 1, FA1);
    net.run(SECOND);
    net
}

fn register(net: &mut Net, fa: usize) {
    net.at(fa, |e, _, _| e.register(ip(HOME), Id::fqdn("ha.test")));
}

fn relays(net: &mut Net, current: Option<&str>, standbys: &[&str]) {
    let standbys = standbys.iter().map(|a| ip(a)).collect();
    net.at(HA, |e, now, host| {
        e.set_relays(ip(HOME), current.map(ip), standbys, now, host)
    });
}

/// All up, the host at FA1, FA2 a standby.
fn roaming(seed: u64, standbys: &[&str]) -> Net {
    let mut net = four(seed);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), standbys);
    net.initiate(MH, HA);
    net.run(SECOND);
    net
}

/// Who sent what to whom, a line each, as far as anybody sees it.
fn traced(net: &mut Net) -> std::rc::Rc<std::cell::RefCell<Vec<String>>> {
    let lines = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let to = lines.clone();
    let name = |end: std::net::SocketAddr| match end.ip().to_string().as_str() {
        "192.0.2.1" => "MH",
        "192.0.2.2" => "HA",
        FA1_ADDRESS => "FA1",
        FA2_ADDRESS => "FA2",
        _ => "?",
    };
    net.filter(move |_, datagram| {
        let octets = &datagram.octets;
        let exchange = match octets[18] {
            34 => "IKE_SA_INIT",
            35 => "IKE_AUTH",
            36 => "CREATE_CHILD_SA",
            37 => "INFORMATIONAL",
            242 => "CSA_DISTRIBUTE",
            243 => "NEIGHBOR_NOTIFY",
            244 => "CSA_REQUEST",
            245 => "CSA_REVOKE",
            246 => "CSA_HANDOVER",
            _ => "?",
        };
        let side = if octets[19] & 0x20 == 0 {
            "request"
        } else {
            "response"
        };
        let id = u32::from_be_bytes(octets[20..24].try_into().unwrap());
        to.borrow_mut().push(format!(
            "{:<3} > {:<3}  {exchange:<15}  {side:<8}  {id}  {:>4}",
            name(datagram.from),
            name(datagram.to),
            octets.len()
        ));
        Fate::Pass
    });
    lines
}

/// What `docs/ml-ike.md` shows of a start-up, of a move with keys given beforehand and of one with keys asked for.
#[test]
fn the_document_s_traces_are_what_is_sent() {
    let document = include_str!("../../../docs/ml-ike.md");
    let shown = |title: &str| -> Vec<String> {
        let from = document.find(title).expect(title);
        let mut lines = document[from..]
            .lines()
            .skip_while(|line| !line.starts_with("```"));
        lines.next();
        // The right part of a line says what lies inside.
        let cut = |line: &str| line.split("   [").next().unwrap().trim_end().to_owned();
        lines
            .take_while(|line| !line.starts_with("```"))
            .map(cut)
            .collect()
    };
    let mut net = four_strangers(70);
    let lines = traced(&mut net);
    net.initiate_as(HA, 1, FA1);
    register(&mut net, FA1);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert_eq!(taken(&net.nodes[FA1]).len(), 1);
    assert_eq!(lines.take(), shown("## A start-up"), "a start-up");

    net.initiate_as(HA, 1, FA2);
    net.initiate_as(FA2, 1, FA1);
    net.run(SECOND);
    lines.take();
    let neighbours = vec![Neighbour {
        address: ip(FA2_ADDRESS),
        identity: Id::fqdn("two.fa.test"),
    }];
    net.at(FA1, |e, now, host| {
        let ike = ike_with(e, "ha.test");
        e.notify_neighbours(ike, neighbours, now, host).unwrap();
    });
    net.run(SECOND);
    relays(&mut net, Some(FA1_ADDRESS), &[FA2_ADDRESS]);
    net.run(SECOND);
    register(&mut net, FA2);
    relays(&mut net, Some(FA2_ADDRESS), &[FA1_ADDRESS]);
    net.run(SECOND);
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(SECOND);
    assert_eq!(
        lines.take(),
        shown("## A move, keys given beforehand"),
        "PKD"
    );

    let mut net = roaming(71, &[]);
    let lines = traced(&mut net);
    register(&mut net, FA2);
    let ask = ask(&net, 100);
    assert!(request(&mut net, ask));
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(SECOND);
    assert_eq!(lines.take(), shown("## A move, keys asked for"), "DKM");

    let mut net = roaming(72, &[]);
    let lines = traced(&mut net);
    rekey(&mut net, MH, "ha.test");
    net.run(SECOND);
    assert_eq!(lines.take(), shown("## A rekeying"), "rekeying");
}

fn taken(node: &Node) -> Vec<&RelayCsa> {
    let relay = |e: &'_ Event| matches!(e, Event::RelayUp(_));
    let list = node.events.iter().filter(|e| relay(e));
    list.map(|e| match e {
        Event::RelayUp(csa) => &**csa,
        _ => unreachable!(),
    })
    .collect()
}

fn ike_with(e: &Endpoint, peer: &str) -> mml_ike::event::IkeId {
    let id = Id::fqdn(peer);
    e.established()
        .find(|ike| e.peer(*ike) == Some(&id))
        .expect("an IKE SA with that peer")
}

/// What the relay has is zone 1 of what the HA has, and nothing of zone 2.
fn assert_zone_1(relay: &RelayCsa, home: &ChildUp) {
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

/// Where the HA has a CSA, FA by FA.
fn custody(net: &mut Net) -> Vec<(IpAddr, Place, Custody)> {
    let holdings = net.at(HA, |e, _, _| e.holdings().collect::<Vec<_>>());
    assert!(holdings.iter().all(|one| one.home == ip(HOME)));
    let all = holdings.iter();
    all.map(|one| (one.fa, one.place, one.custody)).collect()
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

/// When each node had the CSA that replaced the first.
fn watch_rekeying(net: &mut Net, time: Duration) -> [Option<Duration>; 3] {
    let mut at = [None; 3];
    let end = net.now + time;
    while net.now < end {
        net.run(MS);
        for (n, at) in at.iter_mut().enumerate() {
            let has = net.nodes[n].events.iter().any(|e| match e {
                Event::ChildUp(child) => child.replaces.is_some(),
                Event::RelayUp(relay) => relay.identity.generation == 2,
                _ => false,
            });
            if has && at.is_none() {
                *at = Some(net.now);
            }
        }
    }
    at
}

fn rekey(net: &mut Net, node: usize, peer: &str) {
    net.at(node, |e, now, host| {
        let ike = ike_with(e, peer);
        let child = e.children(ike)[0].0;
        e.rekey_child(ike, child, now, host).unwrap();
    });
}

/// docs/wire.md 3.2e, 3.2o.
#[test]
fn when_the_host_rekeys_its_fa_has_the_new_csa_before_the_answer() {
    let mut net = roaming(26, &[FA2_ADDRESS]);
    rekey(&mut net, MH, "ha.test");
    let [mobile, home, relay] = watch_rekeying(&mut net, 20 * SECOND).map(Option::unwrap);
    assert!(
        home < relay && relay < mobile,
        "{home:?} {relay:?} {mobile:?}"
    );
    // The answer waited for one exchange with the FA and no more.
    assert!(mobile - home < 40 * MS, "{:?}", mobile - home);
    assert_mirrored(net.nodes[MH].child(), net.nodes[HA].child());
    assert_zone_1(taken(&net.nodes[FA1])[1], net.nodes[HA].child());
    // The old CSA's relays were told, after what was on its way had time to arrive.
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(r) if r.generation == 1)),
        1
    );
    assert_eq!(
        net.nodes[HA].count(|e| matches!(e, Event::WithoutRelay { .. })),
        0
    );
}

/// Whoever has got another map or number of zones since, and whoever rekeys: the child there is stays, and no plain one
/// comes of it (docs/wire.md 3.2e).
#[test]
fn a_rekeying_with_another_map_or_number_of_zones_is_refused() {
    let list = zones(ZoneRole::Mobile).transforms[0].clone();
    let maps = [
        (vec![40, pfkey::END], vec![list.clone(); 2]),
        (vec![20, 40, pfkey::END], vec![list; 3]),
    ];
    for (changed, by, peer) in [
        (MH, MH, "b.test"),
        (MH, HA, "a.test"),
        (HA, MH, "b.test"),
        (HA, HA, "a.test"),
    ] {
        for (stops, transforms) in &maps {
            let mut net = up(zoned(30, |_, _| {}));
            let mut config = net.nodes[changed].endpoint.config().clone();
            let policy = config.connections[0].child.as_mut().unwrap();
            let policy = policy.zones.as_mut().unwrap();
            policy.map = pfkey::ZoneMap::new(pfkey::Mode::Tunnel, stops).unwrap();
            policy.transforms = transforms.clone();
            net.at(changed, |e, now, host| e.reconfigure(config, now, host));
            let before = [MH, HA].map(|node| net.nodes[node].child().spi_in);
            rekey(&mut net, by, peer);
            net.run(10 * SECOND);
            let what = format!("{changed} has {stops:?}, {by} rekeys");
            let refused = net.nodes[by].find(|e| match e {
                Event::ChildFailed { why, .. } => Some(format!("{why:?}")),
                _ => None,
            });
            let refused = refused.unwrap_or_else(|| panic!("{what}: nothing failed"));
            assert!(refused.contains("NO_PROPOSAL_CHOSEN"), "{what}: {refused}");
            let after = [MH, HA].map(|node| net.nodes[node].child().spi_in);
            assert_eq!(before, after, "{what}");
            net.assert_same(MH, HA);
        }
    }
}

/// docs/wire.md 3.2q.
#[test]
fn a_standby_that_does_not_answer_is_not_awaited() {
    for by in [MH, HA] {
        let mut net = roaming(31, &[FA2_ADDRESS]);
        net.filter(|_, datagram| {
            if datagram.to.ip() == ip(FA2_ADDRESS) {
                Fate::Lose
            } else {
                Fate::Pass
            }
        });
        let peer = if by == MH { "ha.test" } else { "mh.test" };
        let begun = net.now;
        rekey(&mut net, by, peer);
        let [mobile, home, relay] = watch_rekeying(&mut net, SECOND).map(Option::unwrap);
        // Three exchanges of 20 ms at most: the rekeying, and one with the current FA.
        let last = mobile.max(home).max(relay);
        assert!(last - begun < 80 * MS, "{by}: {:?}", last - begun);
        net.run(SECOND);
        for node in [MH, HA] {
            let newest = net.nodes[node].kernel.keys().next_back();
            assert_eq!(net.nodes[node].sealing.last(), newest, "{by}: {node}");
        }
        let without = |e: &Event| matches!(e, Event::WithoutRelay { .. });
        assert_eq!(net.nodes[HA].count(without), 0);
        // It was told nevertheless, and once it hears again it has it.
        assert_eq!(taken(&net.nodes[FA2]).len(), 1);
        net.filter(|_, _| Fate::Pass);
        net.run(20 * SECOND);
        assert_eq!(taken(&net.nodes[FA2]).len(), 2);
    }
}

/// docs/wire.md 3.2p.
#[test]
fn when_the_home_agent_rekeys_it_seals_once_the_fa_has_the_new_csa_and_the_host_at_the_delete() {
    let mut net = roaming(27, &[]);
    rekey(&mut net, HA, "mh.test");
    net.run(5 * SECOND);
    let order = |node: usize, is: fn(&Event) -> bool| {
        net.nodes[node]
            .events
            .iter()
            .rposition(is)
            .expect("it happened")
    };
    // HA: up, distributed, sealing, old one down.
    let steps: [fn(&Event) -> bool; 4] = [
        |e| matches!(e, Event::ChildUp(c) if c.replaces.is_some() && !c.seal_now),
        |e| matches!(e, Event::Distributed { .. }),
        |e| matches!(e, Event::ChildSeal { .. }),
        |e| matches!(e, Event::ChildDown { .. }),
    ];
    let at = steps.map(|is| order(HA, is));
    assert!(at.is_sorted(), "{at:?}");
    // MH: up but not sealing, sealing with the Delete.
    let at = [steps[0], steps[2], steps[3]].map(|is| order(MH, is));
    assert!(at.is_sorted(), "{at:?}");
    assert_eq!(net.nodes[MH].sealing, [net.nodes[MH].child().child]);
    assert_eq!(net.nodes[HA].sealing, [net.nodes[HA].child().child]);
}

/// docs/wire.md 3.2o.
#[test]
fn a_rekeying_goes_on_without_an_fa_that_does_not_answer() {
    let mut net = roaming(28, &[]);
    net.filter(|_, datagram| {
        if datagram.to.ip() == ip(FA1_ADDRESS) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    });
    rekey(&mut net, MH, "ha.test");
    let [mobile, home, relay] = watch_rekeying(&mut net, 5 * SECOND);
    let waited = mobile.unwrap() - home.unwrap();
    assert!(
        waited >= 2 * SECOND && waited < 2 * SECOND + 100 * MS,
        "{waited:?}"
    );
    assert_eq!(relay, None);
    assert_eq!(
        net.nodes[HA].count(|e| matches!(e, Event::WithoutRelay { .. })),
        1
    );
    assert_eq!(net.nodes[MH].kernel.len(), 1);
}

/// docs/wire.md 3.2s.
#[test]
fn rekeyings_from_both_sides_with_faults_leave_one_csa_everywhere() {
    for seed in 30..42 {
        for skew in [0, 7, 15, 33] {
            let mut net = roaming(seed, &[FA2_ADDRESS]);
            let mut dice = common::host::TestHost::new(seed);
            net.filter(move |_, _| match (dice.one_in(7), dice.one_in(5)) {
                (true, _) => Fate::Lose,
                (_, true) => Fate::Delay(30 * MS),
                _ => Fate::Pass,
            });
            rekey(&mut net, MH, "ha.test");
            net.run(skew * MS);
            rekey(&mut net, HA, "mh.test");
            net.run(120 * SECOND);
            let (mobile, home) = (net.nodes[MH].child(), net.nodes[HA].child());
            assert_mirrored(mobile, home);
            for n in [MH, HA] {
                assert_eq!(
                    net.nodes[n].sealing,
                    [net.nodes[n].child().child],
                    "seed {seed} skew {skew}"
                );
            }
            for fa in [FA1, FA2] {
                let mut held: Vec<u32> = Vec::new();
                for event in &net.nodes[fa].events {
                    match event {
                        Event::RelayUp(csa) => held.push(csa.identity.spi_out),
                        Event::RelayDown(r) => held.retain(|spi| *spi != r.spi),
                        _ => {}
                    }
                }
                held.dedup();
                assert_eq!(held, [home.spi_out], "seed {seed} skew {skew}, FA {fa}");
            }
        }
    }
}

fn ask(net: &Net, identification: u64) -> Ask {
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

fn request(net: &mut Net, ask: Ask) -> bool {
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

/// docs/wire.md 1.5e, 3.1f, 3.2k, 3.2n.
#[test]
fn a_new_fa_gets_the_csa_from_the_previous_one_by_the_hosts_token() {
    let mut net = roaming(50, &[]);
    register(&mut net, FA2);
    net.nodes[FA1].host.progress.sequence_out = 4711;
    let ask = ask(&net, 100);
    assert!(request(&mut net, ask));
    let relay = taken(&net.nodes[FA2])[0];
    assert_zone_1(relay, net.nodes[HA].child());
    assert_eq!(
        relay.identity.sequence_out, 4711,
        "it joins where the previous one is"
    );
    assert!(!relay.identity.may_write && relay.identity.relay_number == 0);
    // The HA's own copy takes its place, and may revoke it.
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(SECOND);
    assert_eq!(taken(&net.nodes[FA2]).len(), 2);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
    relays(&mut net, None, &[]);
    net.run(SECOND);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
}

/// docs/wire.md 3.2j.
#[test]
fn the_previous_fa_gives_nothing_for_a_token_that_is_bent_old_or_anothers() {
    let mut net = roaming(51, &[]);
    register(&mut net, FA2);
    let good = ask(&net, 100);
    let mut bent = good.token.expose().to_vec();
    bent[0] ^= 1;
    let bad = [
        Ask {
            token: Secret::new(bent),
            ..good.clone()
        },
        Ask {
            token: Secret::default(),
            ..good.clone()
        },
        Ask {
            identification: 101,
            ..good.clone()
        },
        Ask {
            home: ip("203.0.113.6"),
            ..good.clone()
        },
        // Not the asker's own address.
        Ask {
            care_of: ip(FA1_ADDRESS),
            ..good.clone()
        },
    ];
    for ask in bad {
        assert!(!request(&mut net, ask.clone()), "{ask:?}");
    }
    assert!(taken(&net.nodes[FA2]).is_empty());
    assert!(request(&mut net, good.clone()));
    // Once; again to the same asker alone, and not for an older registration.
    assert!(request(&mut net, good));
    let older = ask(&net, 99);
    assert!(!request(&mut net, older));
    net.run(40 * SECOND);
    let newer = ask(&net, 200);
    assert!(
        !request(&mut net, newer),
        "it has forgotten what lets it be handed on"
    );
}

/// docs/wire.md 3.2j, 3.2v.
#[test]
fn an_fa_that_is_no_neighbour_gets_nothing_even_with_a_token() {
    let mut net = roaming(52, &[]);
    register(&mut net, FA2);
    let mut lonely = net.nodes[FA1].endpoint.config().clone();
    lonely.foreign.neighbours.clear();
    net.nodes[FA1] = Node::new(FA1_ADDRESS, lonely, 60);
    register(&mut net, FA1);
    // It comes back, with IKE SAs to both.
    net.initiate_as(FA1, 0, HA);
    net.initiate_as(FA1, 1, FA2);
    net.run(SECOND);
    assert_eq!(
        taken(&net.nodes[FA1]).len(),
        1,
        "it is given again what it forgot"
    );
    let ask = ask(&net, 100);
    assert!(!request(&mut net, ask));
}

/// docs/wire.md 3.1h.
#[test]
fn snoops_state_is_handed_over_by_token_and_answered_when_the_module_has_it() {
    let mut net = roaming(53, &[]);
    register(&mut net, FA2);
    let seen = [(0x1234_5678, 1 << 40), (9, 8)].map(|(spi, number)| Seen { spi, number });
    let ask = Ask {
        seen: seen.into(),
        ..ask(&net, 100)
    };
    let handover = |net: &mut Net, ask: &Ask| {
        let ask = ask.clone();
        net.at(FA2, |e, now, host| {
            let ike = ike_with(e, "one.fa.test");
            e.request_handover(ike, ask, now, host).unwrap();
        });
    };
    handover(&mut net, &ask);
    net.run(100 * MS);
    let (ike, message_id) = net.nodes[FA1]
        .find(|e| match e {
            Event::HandoverAsked {
                ike,
                message_id,
                ask,
            } => {
                assert_eq!(ask.home, ip(HOME));
                assert_eq!(ask.seen, seen);
                Some((*ike, *message_id))
            }
            _ => None,
        })
        .expect("it was asked");
    let full = |spi| SnoopState {
        spi,
        flows: Secret::copy(&[7; pfkey::MAX_SNOOP_STATE]),
    };
    // As much as there may be comes through.
    let states: Vec<SnoopState> = (0..8).map(full).collect();
    assert_eq!(states.len(), MAX_STATES);
    let given = states.clone();
    net.at(FA1, |e, now, host| {
        e.answer_handover(ike, message_id, given, now, host)
    });
    net.run(SECOND);
    let got = net.nodes[FA2].find(|e| match e {
        Event::HandedOver { states, .. } => states.clone(),
        _ => None,
    });
    assert_eq!(got, Some(states));
    // Bent: refused without asking the module.
    let bent = Ask {
        token: Secret::copy(&[1; 32]),
        ..ask.clone()
    };
    handover(&mut net, &bent);
    net.run(SECOND);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. })),
        1
    );
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::HandedOver { states: None, .. })),
        1
    );
    // A module that says nothing: no states after a second.
    let newer = self::ask(&net, 101);
    handover(&mut net, &newer);
    net.run(3 * SECOND);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(
            e,
            Event::HandedOver {
                states: Some(_),
                ..
            }
        )),
        2
    );
}

/// docs/wire.md 3.1h, 3.2y.
#[test]
fn a_host_is_handed_over_once_to_where_it_went_and_not_after_it_came_back() {
    let mut net = roaming(57, &[]);
    register(&mut net, FA2);
    let handed = |net: &mut Net, from: usize, ask: Ask| {
        let before = net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. }));
        net.at(from, |e, now, host| {
            let ike = ike_with(e, "one.fa.test");
            e.request_handover(ike, ask, now, host).unwrap();
        });
        net.run(3 * SECOND);
        net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. })) > before
    };
    let good = ask(&net, 100);
    let bent = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        ask
    };
    let elsewhere = |net: &Net, to: &str| {
        let mobile = &net.nodes[MH];
        let child = mobile.child().child;
        let (fa, home) = (ip(FA1_ADDRESS), ip(HOME));
        mobile.endpoint.token(child, fa, ip(to), home, 100).unwrap()
    };
    let stolen = elsewhere(&net, "192.0.2.99");
    let bad = [
        // No token, another one, of another registration or host.
        bent(&|ask| ask.token = Secret::default()),
        bent(&|ask| ask.token = Secret::copy(&[9; 32])),
        bent(&|ask| ask.identification = 102),
        bent(&|ask| ask.home = ip("203.0.113.6")),
        // A good one, from who doesn't own the address it is for.
        bent(&|ask| (ask.care_of, ask.token) = (ip("192.0.2.99"), stolen.clone())),
    ];
    for ask in bad {
        assert!(!handed(&mut net, FA2, ask.clone()), "{ask:?}");
    }
    assert!(handed(&mut net, FA2, good.clone()));
    // Replayed, by the very same one.
    assert!(!handed(&mut net, FA2, good));
    // The host came back by a later registration: what it signed before it did is past.
    net.at(FA1, |e, _, _| e.arrived(ip(HOME), 300));
    let before = ask(&net, 299);
    assert!(!handed(&mut net, FA2, before));
    let after = ask(&net, 301);
    assert!(handed(&mut net, FA2, after));
    // Who distributed the CSA needs no token, and a home agent that did not is nobody.
    let untold = Ask {
        token: Secret::default(),
        ..ask(&net, 302)
    };
    assert!(handed(&mut net, HA, untold.clone()));
    let stranger = Ask {
        home: ip("203.0.113.6"),
        ..untold
    };
    assert!(!handed(&mut net, HA, stranger));
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

/// docs/wire.md 3.2v.
#[test]
fn after_a_restart_csas_are_claimed_and_live_on_under_the_new_ike_sa() {
    let mut net = roaming(55, &[]);
    let child = net.nodes[MH].child().clone();
    let config = net.nodes[MH].endpoint.config().clone();
    // The daemon is killed and comes back; the kernel still has the CSA.
    net.nodes[MH] = Node::new("192.0.2.1", config, 88);
    let ike = net.initiate(MH, HA);
    net.run(SECOND);
    assert_eq!(
        net.nodes[HA].kernel.len(),
        2,
        "the old one and that of the new IKE SA"
    );
    let ChildSa::Composite {
        map,
        zones,
        generation,
        may_write,
        replay_window,
        ..
    } = &child.keys
    else {
        panic!("a plain child");
    };
    let identity = CsaIdentity {
        generation: *generation,
        mode: child.mode,
        relay_number: 0,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        replay_window: *replay_window,
        sequence_in: 10,
        sequence_out: 20,
        lifetime: 1000,
        may_write: *may_write,
        standby: false,
        source: child.local.ip(),
        destination: child.remote.ip(),
    };
    let adopted = AdoptedCsa {
        identity,
        local_ts: child.local_ts.clone(),
        remote_ts: child.remote_ts.clone(),
        map: *map,
        transforms: zones.iter().map(|z| z.transform).collect(),
        role: ZoneRole::Mobile,
        zone1: None,
    };
    let unknown = AdoptedCsa {
        identity: CsaIdentity {
            spi_in: 4444,
            ..identity
        },
        ..adopted.clone()
    };
    net.at(MH, |e, now, host| {
        e.claim(ike, vec![adopted, unknown], now, host)
    })
    .unwrap();
    net.run(SECOND);
    let held = net.nodes[MH].find(|e| match e {
        Event::ClaimAnswered { held, .. } => Some(held.clone()),
        _ => None,
    });
    assert_eq!(
        held,
        Some(vec![identity]),
        "the one it knows, and not the other"
    );
    // The old IKE SA dies at the HA; the claimed CSA doesn't.
    let home = &net.nodes[HA].endpoint;
    let old = home
        .established()
        .find(|ike| home.peer(*ike) == Some(&Id::fqdn("mh.test")))
        .unwrap();
    assert!(home.children(old).is_empty());
    net.at(HA, |e, now, host| e.probe(old, now, host)).unwrap();
    net.run(200 * SECOND);
    assert!(net.nodes[HA].events.iter().any(|e| matches!(
        e,
        Event::IkeDown {
            why: Down::Dead,
            ..
        }
    )));
    assert_eq!(net.nodes[HA].kernel.len(), 2);
    let children = net.nodes[HA]
        .endpoint
        .established()
        .map(|ike| net.nodes[HA].endpoint.children(ike).len());
    assert_eq!(children.sum::<usize>(), 2);
}

/// docs/wire.md 3.2w.
#[test]
fn a_peer_that_is_gone_leaves_its_csa_until_its_life_is_over() {
    let mut net = roaming(56, &[]);
    net.filter(|_, datagram| {
        if datagram.to.ip() == ip("192.0.2.1") {
            Fate::Lose
        } else {
            Fate::Pass
        }
    });
    net.at(HA, |e, now, host| {
        let ike = ike_with(e, "mh.test");
        e.probe(ike, now, host).unwrap();
    });
    net.run(300 * SECOND);
    let home = &net.nodes[HA];
    assert_eq!(
        home.count(|e| matches!(
            e,
            Event::IkeDown {
                why: Down::Dead,
                ..
            }
        )),
        1
    );
    assert_eq!(home.kernel.len(), 1, "the IKE SA went, the CSA stays");
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_))),
        0
    );
    net.run(3600 * SECOND);
    assert_eq!(
        net.nodes[HA].count(|e| matches!(e, Event::CsaExpired { .. })),
        1
    );
}

/// The HA with `hosts` hosts' CSAs up, and FA1; a round trip takes 100 ms.
fn crowd(seed: u64, hosts: u16) -> Net {
    let mut net = four(seed);
    net.delay = 50 * MS;
    let template = net.nodes[MH].endpoint.config().clone();
    let mut ha = net.nodes[HA].endpoint.config().clone();
    ha.connections[0].remote_id = IdMatch::Within("mh.test".into());
    let any = TrafficSelector::prefix(ip("203.0.0.0"), 16);
    ha.connections[0].child.as_mut().unwrap().remote_ts = vec![any];
    net.nodes[HA] = Node::new("192.0.2.2", ha, 91);
    net.nodes.truncate(3);
    let mut fa = net.nodes[FA1].endpoint.config().clone();
    fa.foreign.home_agents[0].prefixes = vec![Prefix {
        address: ip("203.0.0.0"),
        bits: 16,
    }];
    net.nodes[FA1] = Node::new(FA1_ADDRESS, fa, 92);
    net.initiate_as(HA, 1, FA1);
    net.run(5 * SECOND);
    for n in 1..=hosts {
        let mut config = template.clone();
        let home = home_of(n);
        config.connections[0].local_id = Id::fqdn(&format!("host{n}.mh.test"));
        config.connections[0].child.as_mut().unwrap().local_ts = vec![TrafficSelector::host(home)];
        let care_of = format!("10.0.{}.{}", n >> 8, n & 255);
        let node = Node::new(&care_of, config, 1000 + u64::from(n));
        net.nodes.push(node);
        net.initiate(2 + usize::from(n), HA);
        net.at(FA1, |e, _, _| e.register(home, Id::fqdn("ha.test")));
    }
    net.run(5 * SECOND);
    assert_eq!(net.nodes[HA].kernel.len(), usize::from(hosts));
    net
}

fn home_of(n: u16) -> IpAddr {
    ip(&format!("203.0.{}.{}", n >> 8, n & 255))
}

/// All hosts move to FA1.
fn all_move(net: &mut Net, hosts: u16) {
    for n in 1..=hosts {
        let (home, fa) = (home_of(n), ip(FA1_ADDRESS));
        net.at(HA, |e, now, host| {
            e.set_relays(home, Some(fa), vec![], now, host)
        });
    }
}

/// docs/wire.md 3.1d, 3.2t.
#[test]
fn many_csas_are_given_at_once_within_the_window() {
    let mut net = crowd(57, 200);
    let begun = net.now;
    all_move(&mut net, 200);
    while taken(&net.nodes[FA1]).len() < 200 {
        net.run(10 * MS);
        assert!(
            net.now - begun < SECOND,
            "{} of 200",
            taken(&net.nodes[FA1]).len()
        );
    }
    // 64 at once: four round trips, and not 200.
    assert!(net.now - begun <= 400 * MS, "{:?}", net.now - begun);
}

/// docs/wire.md 3.2p, 3.2t.
#[test]
fn a_thousand_hosts_have_new_keys_and_their_fa_too_within_five_seconds() {
    const HOSTS: u16 = 1000;
    let mut net = crowd(58, HOSTS);
    all_move(&mut net, HOSTS);
    net.run(10 * SECOND);
    assert_eq!(taken(&net.nodes[FA1]).len(), usize::from(HOSTS));
    let begun = net.now;
    let children: Vec<_> = net.nodes[HA]
        .kernel
        .values()
        .map(|c| (c.ike, c.child))
        .collect();
    for (ike, child) in children {
        net.at(HA, |e, now, host| {
            e.rekey_child(ike, child, now, host).unwrap()
        });
    }
    let renewed = |net: &Net| {
        let of = |node: &Node| {
            let up = node.kernel.values();
            up.filter(|c| matches!(c.keys, ChildSa::Composite { generation: 2, .. }))
                .count()
        };
        let hosts = net.nodes[FA1 + 1..].iter().map(of).sum::<usize>();
        let second = |csa: &&RelayCsa| csa.identity.generation == 2;
        let relays = taken(&net.nodes[FA1]);
        (
            of(&net.nodes[HA]),
            hosts,
            relays.iter().copied().filter(|csa| second(csa)).count(),
        )
    };
    let all = usize::from(HOSTS);
    while renewed(&net) != (all, all, all) {
        net.run(50 * MS);
        assert!(net.now - begun < 5 * SECOND, "{:?} of {all}", renewed(&net));
    }
}

/// docs/wire.md 3.2t.
#[test]
fn a_full_window_survives_loss_reordering_and_the_rekeying_of_its_ike_sa_by_both() {
    for seed in 60..64 {
        let mut net = crowd(seed, 100);
        let mut dice = common::host::TestHost::new(seed);
        net.filter(move |_, _| match (dice.one_in(6), dice.one_in(2)) {
            (true, _) => Fate::Lose,
            (_, true) => Fate::Delay(u32::try_from(dice.next() % 80).unwrap() * MS),
            _ => Fate::Pass,
        });
        all_move(&mut net, 100);
        net.run(70 * MS);
        for (node, peer) in [(HA, "one.fa.test"), (FA1, "ha.test")] {
            net.at(node, |e, now, host| {
                let ike = ike_with(e, peer);
                e.rekey_ike(ike, now, host).unwrap();
            });
        }
        net.run(60 * SECOND);
        let mut spis: Vec<u32> = taken(&net.nodes[FA1])
            .iter()
            .map(|csa| csa.identity.spi_out)
            .collect();
        spis.sort_unstable();
        spis.dedup();
        assert_eq!(spis.len(), 100, "every CSA is there");
        let accepted = |e: &Event| {
            matches!(
                e,
                Event::Distributed {
                    status: Some(GroupStatus::Accepted),
                    ..
                }
            )
        };
        assert_eq!(net.nodes[HA].count(accepted), 100, "and known to be");
        assert!(net.nodes[HA].count(|e| matches!(e, Event::IkeRekeyed { .. })) >= 1);
        assert_eq!(
            net.nodes[HA].count(|e| matches!(
                e,
                Event::IkeDown {
                    why: Down::Dead,
                    ..
                }
            )),
            0
        );
    }
}
