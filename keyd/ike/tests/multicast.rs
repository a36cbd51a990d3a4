// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD (docs/wire.md §3.3): one datagram brings a CSA to all neighbours of a foreign agent; who may open it, what
//! of it is taken, and what becomes of what is lost.

mod common;

use common::sim::*;
use mml_ike::auth::IdMatch;
use mml_ike::config::{Agent, Config, Delivery, HomeAgent, Multicast, Prefix};
use mml_ike::event::{Datagram, Event, GroupHeard, RelayCsa};
use mml_ike::wire::{GroupStatus, Id, MulticastHeader, TrafficSelector};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

const MH: usize = 0;
const HA: usize = 1;
/// The host's foreign agent, and its neighbours.
const FA: [usize; 3] = [2, 3, 4];
const HOME: &str = "203.0.113.5";
const PORT: u16 = 49_434;

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn address(fa: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, u8::try_from(fa).unwrap()])
}

fn name(fa: usize) -> String {
    format!("fa{fa}.test")
}

fn agent(fa: usize) -> Agent {
    Agent {
        identity: IdMatch::Exactly(Id::fqdn(&name(fa))),
        addresses: vec![address(fa)],
    }
}

fn group() -> SocketAddr {
    SocketAddr::new(ip("239.192.4.34"), PORT)
}

/// A mobile host, its home agent and three foreign agents; nothing is up.
fn strangers(seed: u64, to: Delivery) -> Net {
    let [mobile, to_mobile] = mobile_and_home(TrafficSelector::host(ip(HOME)));
    let mut ha = config(to_mobile);
    let within = IdMatch::Within("test".into());
    ha.connections.push(agents("ha.test", within.clone()));
    ha.home.foreign_agents = FA.iter().map(|fa| agent(*fa)).collect();
    ha.home.multicast = Some(Multicast {
        from: SocketAddr::new(ip("192.0.2.2"), PORT),
        to,
    });
    let foreign = |fa: usize| -> Config {
        let ha = IdMatch::Exactly(Id::fqdn("ha.test"));
        let mut config = config(agents(&name(fa), ha.clone()));
        config.connections.push(agents(&name(fa), within.clone()));
        config.foreign.home_agents = vec![HomeAgent {
            identity: ha,
            prefixes: vec![Prefix {
                address: ip("203.0.113.0"),
                bits: 24,
            }],
            standby: true,
            addresses: Vec::new(),
        }];
        config.foreign.multicast = Some(PORT);
        config
    };
    let mut nodes = vec![
        Node::new("192.0.2.1", config(mobile), 10 * seed + 1),
        Node::new("192.0.2.2", ha, 10 * seed + 2),
    ];
    for fa in FA {
        let seed = 10 * seed + 3 + fa as u64;
        nodes.push(Node::new(&address(fa).to_string(), foreign(fa), seed));
    }
    Net::new(nodes)
}

fn neighbours(net: &mut Net, of: &[usize]) {
    let list: Vec<IpAddr> = of.iter().map(|fa| address(*fa)).collect();
    net.at(HA, |e, now, host| {
        e.set_neighbours(address(FA[0]), &list, now, host)
    });
}

fn relays(net: &mut Net, current: Option<usize>, standbys: &[usize]) {
    let standbys = standbys.iter().map(|fa| address(*fa)).collect();
    net.at(HA, |e, now, host| {
        e.set_relays(ip(HOME), current.map(address), standbys, now, host);
    });
}

/// Agents' IKE SAs are up, the first one's neighbours are a group, and the host is there, without a CSA yet.
fn ready(seed: u64, to: Delivery) -> Net {
    begun(strangers(seed, to))
}

fn begun(mut net: Net) -> Net {
    for fa in FA {
        net.initiate_as(HA, 1, fa);
        net.at(fa, |e, _, _| e.register(ip(HOME), Id::fqdn("ha.test")));
    }
    net.run(SECOND);
    neighbours(&mut net, &FA[1..]);
    relays(&mut net, Some(FA[0]), &FA[1..]);
    net.run(SECOND);
    net
}

/// Datagrams to the port of multicast PKD, as they are sent.
type Sent = Rc<RefCell<Vec<Datagram>>>;

/// Remembers them, and lets `fate` say what becomes of each.
fn watched(net: &mut Net, fate: impl Fn(&Datagram, usize) -> Fate + 'static) -> Sent {
    let sent: Sent = Rc::default();
    let list = sent.clone();
    net.filter(move |_, datagram| {
        if datagram.to.port() != PORT {
            return Fate::Pass;
        }
        let mut list = list.borrow_mut();
        let before = list.iter().filter(|one| one.to == datagram.to).count();
        list.push(datagram.clone());
        fate(datagram, before)
    });
    sent
}

fn pass(_: &Datagram, _: usize) -> Fate {
    Fate::Pass
}

/// The CSAs a node was told to install.
fn taken(node: &Node) -> Vec<RelayCsa> {
    let up = |event: &Event| match event {
        Event::RelayUp(csa) => Some((**csa).clone()),
        _ => None,
    };
    node.events.iter().filter_map(up).collect()
}

fn heard(node: &Node) -> Vec<GroupHeard> {
    let heard = |event: &Event| match event {
        Event::GroupHeard(heard) => Some(heard.clone()),
        _ => None,
    };
    node.events.iter().filter_map(heard).collect()
}

/// To whom the home agent has given the CSA, in order.
fn given(net: &Net) -> Vec<IpAddr> {
    let given = |event: &Event| match event {
        Event::Distributed {
            fa,
            status: Some(GroupStatus::Accepted),
            ..
        } => Some(*fa),
        _ => None,
    };
    net.nodes[HA].events.iter().filter_map(given).collect()
}

fn missed(net: &Net) -> usize {
    net.nodes[HA].count(|event| matches!(event, Event::PredistributionMissed { .. }))
}

/// The epoch, members and datagrams of the only group.
fn epoch(net: &Net) -> (u32, Vec<IpAddr>, u64) {
    let mut groups = net.nodes[HA].endpoint.groups();
    let (_, _, epoch, members, said) = groups.next().unwrap();
    assert!(groups.next().is_none());
    (epoch, members, said)
}

/// A new CSA in the place of the one there is.
fn rekey(net: &mut Net) {
    let (ike, child) = (net.nodes[MH].ike(), net.nodes[MH].child().child);
    net.at(MH, |e, now, host| e.rekey_child(ike, child, now, host))
        .unwrap();
    net.run(15 * SECOND);
}

/// docs/wire.md 3.1m, 3.2u, 3.3a, 3.3f, 3.3h, 3.3i, 3.3j, 3.3k.
#[test]
fn one_datagram_brings_a_csa_to_all_neighbours() {
    let mut net = ready(1, Delivery::Group(group()));
    let all: Vec<IpAddr> = FA[1..].iter().map(|fa| address(*fa)).collect();
    assert_eq!(epoch(&net), (1, all, 0));
    let sent = watched(&mut net, pass);
    net.initiate(MH, HA);
    net.run(SECOND);
    // The same one three times, on each of four links.
    let sent = sent.borrow().clone();
    assert_eq!(sent.len(), 3 * 4);
    assert!(sent.iter().all(|one| one.octets == sent[0].octets));
    assert!(sent[0].octets.len() <= 1228 && sent[0].from.port() == PORT);
    let key = &taken(&net.nodes[FA[0]])[0].keys_out;
    for fa in &FA[1..] {
        let csas = taken(&net.nodes[*fa]);
        assert_eq!(csas.len(), 1, "{}", name(*fa));
        let identity = csas[0].identity;
        assert!(identity.standby && !identity.may_write && identity.relay_number == 0);
        assert!(csas[0].keys_out == *key);
        assert_eq!(
            heard(&net.nodes[*fa])[1..],
            [GroupHeard::Again, GroupHeard::Again]
        );
    }
    assert!(
        heard(&net.nodes[FA[0]]).is_empty(),
        "it is none of its own neighbours"
    );
    let mut all = given(&net);
    all.sort_unstable();
    assert_eq!(all, FA.map(address), "all have said that they have it");
    assert_eq!(missed(&net), 0);
    // A rekeying likewise: the current one is given its own before it goes on, the others by one datagram.
    rekey(&mut net);
    assert_eq!(epoch(&net).2, 2);
    assert!(FA.iter().all(|fa| taken(&net.nodes[*fa]).len() == 2));
    assert_eq!((given(&net).len(), missed(&net)), (6, 0));
}

/// docs/wire.md 3.3l.
#[test]
fn copies_go_to_members_where_no_router_forwards_multicast() {
    let mut net = ready(2, Delivery::Copies(PORT));
    let sent = watched(&mut net, pass);
    net.initiate(MH, HA);
    net.run(SECOND);
    let sent = sent.borrow();
    assert!(sent.iter().all(|one| one.octets == sent[0].octets));
    let to: Vec<_> = sent[..2].iter().map(|one| one.to.ip()).collect();
    assert_eq!(to, [address(FA[1]), address(FA[2])]);
    assert!(FA.iter().all(|fa| taken(&net.nodes[*fa]).len() == 1));
    assert_eq!((sent.len(), missed(&net)), (6, 0));
}

/// docs/wire.md 3.3i, 3.3j.
#[test]
fn what_is_lost_comes_again_or_by_itself() {
    for (lost, alone) in [(1, 0), (2, 0), (3, 1)] {
        let mut net = ready(3, Delivery::Group(group()));
        watched(&mut net, move |datagram, before| {
            if datagram.to.ip() == address(FA[2]) && before < lost {
                Fate::Lose
            } else {
                Fate::Pass
            }
        });
        net.initiate(MH, HA);
        net.run(4 * SECOND);
        for fa in &FA[1..] {
            let csas = taken(&net.nodes[*fa]);
            assert_eq!(csas.len(), 1, "{lost} lost, {}", name(*fa));
            assert!(csas[0].identity.standby);
        }
        assert_eq!((missed(&net), given(&net).len()), (alone, 3), "{lost} lost");
    }
}

/// A report that the home agent waits for in vain: the CSA comes twice, and that does no harm (docs/wire.md 3.3j).
#[test]
fn a_member_whose_reports_are_lost_gets_the_csa_by_itself_too() {
    let mut net = ready(4, Delivery::Group(group()));
    net.initiate(MH, HA);
    net.run(300 * MS);
    let silent = address(FA[2]);
    net.filter(move |_, datagram| {
        if datagram.from.ip() == silent {
            Fate::Lose
        } else {
            Fate::Pass
        }
    });
    net.run(2 * SECOND);
    net.filter(|_, _| Fate::Pass);
    net.run(10 * SECOND);
    assert_eq!(missed(&net), 1);
    assert_eq!(taken(&net.nodes[FA[1]]).len(), 1);
    assert!(taken(&net.nodes[FA[2]]).len() <= 2);
    assert!(given(&net).contains(&silent));
}

/// Who leaves: by the neighbour list, by its IKE SA's end, by the configuration. What is said then, it can't open, though it
/// hears it (docs/wire.md 3.3b).
#[test]
fn who_left_opens_nothing_of_the_next_epoch() {
    type Leave = fn(&mut Net);
    let leaves: [Leave; 3] = [
        |net| {
            neighbours(net, &FA[1..2]);
            relays(net, Some(FA[0]), &FA[1..2]);
        },
        |net| {
            let ike = net.nodes[FA[2]].ike();
            net.at(FA[2], |e, now, host| e.delete_ike(ike, now, host))
                .unwrap();
        },
        |net| {
            let mut config = net.nodes[HA].endpoint.config().clone();
            config.home.foreign_agents.truncate(2);
            net.at(HA, |e, now, host| e.reconfigure(config, now, host));
        },
    ];
    for (way, leave) in leaves.into_iter().enumerate() {
        let mut net = ready(5 + way as u64, Delivery::Group(group()));
        let sent = watched(&mut net, pass);
        net.initiate(MH, HA);
        net.run(SECOND);
        leave(&mut net);
        net.run(5 * SECOND);
        let rest = vec![address(FA[1])];
        assert_eq!(epoch(&net), (2, rest, 0), "way {way}");
        let (before, heard_before) = (taken(&net.nodes[FA[2]]).len(), heard(&net.nodes[FA[2]]));
        let said = sent.borrow().len();
        rekey(&mut net);
        let header = MulticastHeader::decode(&sent.borrow()[said].octets).unwrap();
        assert_eq!((header.epoch, header.counter), (2, 0));
        assert_eq!(taken(&net.nodes[FA[1]]).len(), 2, "way {way}");
        assert_eq!(taken(&net.nodes[FA[2]]).len(), before, "way {way}");
        assert_eq!(heard(&net.nodes[FA[2]]), heard_before, "way {way}");
        // What was said under the old key is nothing to the one that stayed.
        let old = sent.borrow()[0].clone();
        let of = heard(&net.nodes[FA[1]]).len();
        net.send(Datagram {
            to: SocketAddr::new(address(FA[1]), PORT),
            ..old
        });
        net.run(SECOND);
        assert_eq!(heard(&net.nodes[FA[1]]).len(), of);
    }
}

/// Who comes later has a key that nothing was said under (docs/wire.md 3.3b).
#[test]
fn who_joins_opens_nothing_that_was_said_before() {
    let mut net = ready(9, Delivery::Group(group()));
    neighbours(&mut net, &FA[1..2]);
    relays(&mut net, Some(FA[0]), &FA[1..2]);
    net.run(SECOND);
    let before = epoch(&net).0;
    let sent = watched(&mut net, pass);
    net.initiate(MH, HA);
    net.run(SECOND);
    assert_eq!(epoch(&net), (before, vec![address(FA[1])], 1));
    neighbours(&mut net, &FA[1..]);
    net.run(SECOND);
    assert_eq!(epoch(&net).0, before + 1);
    assert_eq!(epoch(&net).1.len(), 2);
    let old = sent.borrow()[0].clone();
    net.send(Datagram {
        to: SocketAddr::new(address(FA[2]), PORT),
        ..old
    });
    net.run(SECOND);
    assert!(heard(&net.nodes[FA[2]]).is_empty() && taken(&net.nodes[FA[2]]).is_empty());
    // A CSA that is not for all of them isn't said to all of them (docs/wire.md 3.3h).
    rekey(&mut net);
    assert_eq!(epoch(&net).2, 0);
    assert_eq!(taken(&net.nodes[FA[1]]).len(), 2);
    assert!(taken(&net.nodes[FA[2]]).is_empty());
}

/// docs/wire.md 3.3c, 3.3e, 3.3g.
#[test]
fn what_was_forged_or_replayed_changes_nothing() {
    let mut net = ready(10, Delivery::Group(group()));
    let sent = watched(&mut net, |datagram, _| {
        if datagram.to.ip() == address(FA[2]) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    });
    net.initiate(MH, HA);
    net.run(400 * MS);
    net.filter(|_, _| Fate::Pass);
    let good = sent.borrow()[0].octets.clone();
    let to = SocketAddr::new(address(FA[2]), PORT);
    let from = SocketAddr::new(ip("192.0.2.2"), PORT);
    let says = |net: &mut Net, octets: Vec<u8>| {
        net.nodes[FA[2]].events.clear();
        net.send(Datagram { from, to, octets });
        net.run(20 * MS);
        let node = &net.nodes[FA[2]];
        (taken(node).len(), heard(node))
    };
    let start = net.now;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        net.now = start;
        let (csas, heard) = says(&mut net, bad);
        assert_eq!(csas, 0, "bit {bit}");
        // Another group's or epoch's is none of its own.
        let forged = matches!(heard[..], [GroupHeard::Forged(_)]);
        assert_eq!(forged, bit >= 64, "bit {bit}: {heard:?}");
    }
    for len in 0..good.len() {
        net.now = start;
        assert_eq!(says(&mut net, good[..len].to_vec()).0, 0, "{len} octets");
    }
    net.now = start;
    assert_eq!(says(&mut net, good.clone()).0, 1, "the true one, at last");
    assert_eq!(says(&mut net, good), (0, vec![GroupHeard::Again]));
}

/// The one the host comes to lacks K_FA, and gets its own; the one it left keeps nothing beyond what a standby has
/// (docs/wire.md 3.3h).
#[test]
fn the_next_foreign_agent_gets_its_own_when_the_host_is_there() {
    let mut net = ready(11, Delivery::Group(group()));
    net.initiate(MH, HA);
    net.run(SECOND);
    relays(&mut net, Some(FA[1]), &[FA[0], FA[2]]);
    net.run(SECOND);
    let csas = taken(&net.nodes[FA[1]]);
    assert_eq!(csas.len(), 2);
    let identity = csas[1].identity;
    assert!(!identity.standby && identity.relay_number != 0);
    assert_eq!(
        given(&net)
            .iter()
            .filter(|fa| **fa == address(FA[1]))
            .count(),
        2
    );
    assert_eq!(
        taken(&net.nodes[FA[2]]).len(),
        1,
        "a standby goes on as one"
    );
}

/// A datagram that was held up on its way brings back nothing that was revoked (docs/wire.md 3.3f).
#[test]
fn a_late_datagram_brings_nothing_back_that_was_revoked() {
    let mut net = ready(12, Delivery::Group(group()));
    watched(&mut net, |datagram, before| {
        match (datagram.to.ip() == address(FA[2]), before) {
            (true, 0) => Fate::Delay(3 * SECOND),
            (true, _) => Fate::Lose,
            _ => Fate::Pass,
        }
    });
    net.initiate(MH, HA);
    net.run(300 * MS);
    relays(&mut net, None, &[]);
    net.run(10 * SECOND);
    assert!(taken(&net.nodes[FA[2]]).is_empty());
    let refused = GroupHeard::Said {
        agent: Id::fqdn("ha.test"),
        taken: 0,
        refused: vec![GroupStatus::Revoked],
    };
    assert_eq!(heard(&net.nodes[FA[2]]), [refused]);
    let down = |fa: usize| net.nodes[fa].count(|event| matches!(event, Event::RelayDown(_)));
    assert_eq!((down(FA[0]), down(FA[1])), (1, 1));
}

/// docs/wire.md 3.3a, 3.3h.
#[test]
fn who_takes_no_group_s_key_gets_csas_one_by_one() {
    type Change = fn(&mut Config);
    let changes: [(Change, usize); 2] = [
        (|config| config.foreign.multicast = None, 3),
        (|config| config.foreign.home_agents[0].standby = false, 2),
    ];
    for (seed, (change, holders)) in (13..).zip(changes) {
        let mut net = strangers(seed, Delivery::Group(group()));
        let mut config = net.nodes[FA[2]].endpoint.config().clone();
        change(&mut config);
        net.nodes[FA[2]] = Node::new(&address(FA[2]).to_string(), config, 99);
        let mut net = begun(net);
        net.at(FA[2], |e, _, _| e.deregister(ip(HOME)));
        assert_eq!(epoch(&net), (1, vec![address(FA[1])], 0));
        net.initiate(MH, HA);
        net.run(SECOND);
        assert!(heard(&net.nodes[FA[2]]).is_empty());
        assert_eq!(given(&net).len(), holders);
        assert_eq!(taken(&net.nodes[FA[1]]).len(), 1);
        assert_eq!(missed(&net), 0);
    }
}

/// Members stay members while IKE SAs are rekeyed; a home agent that begins anew has other groups and keys
/// (docs/wire.md 3.3b).
#[test]
fn a_group_outlives_rekeying_and_not_the_home_agent() {
    let mut net = ready(15, Delivery::Group(group()));
    net.initiate(MH, HA);
    net.run(SECOND);
    let before = epoch(&net);
    let ike = net.nodes[FA[2]].ike();
    net.at(FA[2], |e, now, host| e.rekey_ike(ike, now, host))
        .unwrap();
    net.run(SECOND);
    assert_eq!(epoch(&net), before);
    rekey(&mut net);
    assert_eq!(epoch(&net).2, before.2 + 1);
    assert_eq!((missed(&net), given(&net).len()), (0, 6));
    // It comes back, and says that it has no other IKE SA.
    let mut config = net.nodes[HA].endpoint.config().clone();
    config.connections[1].initial_contact = true;
    net.nodes[HA] = Node::new("192.0.2.2", config, 998);
    for fa in FA {
        net.initiate_as(HA, 1, fa);
    }
    net.run(SECOND);
    neighbours(&mut net, &FA[1..]);
    net.run(SECOND);
    assert_eq!(epoch(&net).1.len(), 2);
    for fa in &FA[1..] {
        let memberships = net.nodes[*fa].endpoint.memberships();
        let list: Vec<_> = memberships.map(|(_, group, ..)| group).collect();
        let now: Vec<_> = net.nodes[HA].endpoint.groups().map(|one| one.1).collect();
        assert_eq!(list, now, "nothing of the old one's");
    }
}

/// docs/wire.md 3.3b.
#[test]
fn an_epoch_in_which_something_was_said_ends_after_eight_hours() {
    let mut net = ready(16, Delivery::Group(group()));
    net.run(9 * 3600 * SECOND);
    assert_eq!(epoch(&net).0, 1, "nothing was said");
    net.initiate(MH, HA);
    net.run(SECOND);
    assert_eq!(epoch(&net).2, 1);
    let members = epoch(&net).1;
    net.run(3600 * SECOND);
    assert_eq!(epoch(&net), (2, members.clone(), 0));
    net.run(9 * 3600 * SECOND);
    assert_eq!(epoch(&net), (2, members, 0));
}
