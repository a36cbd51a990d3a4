// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nodes and the net between them, in simulated time.

use super::host::TestHost;
use mml_ike::auth::{Credential, IdMatch, Trust};
use mml_ike::config::{ChildConfig, Config, Connection, IkeProposal, ZonePolicy, ZoneRole};
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::event::{ChildFailure, ChildId, ChildSa, ChildUp, Datagram, Event, IkeId, Output};
use mml_ike::pool::Pool;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Id, TrafficSelector, ZoneTransform};
use mml_ike::Endpoint;
use pfkey::{Mode, ZoneMap};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// What the net does to a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    Lose,
    /// Hold it for that long more.
    Delay(Duration),
    Double,
}

/// One of the nodes.
pub struct Node {
    pub address: IpAddr,
    pub endpoint: Endpoint,
    pub host: TestHost,
    pub events: Vec<Event>,
    /// What the kernel has: children up and not down, by number.
    pub kernel: BTreeMap<ChildId, ChildUp>,
    /// Whom it is to seal with.
    pub sealing: Vec<ChildId>,
    pub sent: usize,
}

impl Node {
    pub fn new(address: &str, config: Config, seed: u64) -> Self {
        Node {
            address: address.parse().unwrap(),
            endpoint: Endpoint::new(config),
            host: TestHost::new(seed),
            events: Vec::new(),
            kernel: BTreeMap::new(),
            sealing: Vec::new(),
            sent: 0,
        }
    }

    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    pub fn find<T>(&self, find: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.events.iter().find_map(find)
    }

    /// Why there was no child, the first time.
    pub fn child_failure(&self) -> Option<ChildFailure> {
        self.find(|event| match event {
            Event::ChildFailed { why, .. } => Some(*why),
            _ => None,
        })
    }

    /// The only IKE SA that is up.
    pub fn ike(&self) -> IkeId {
        let up: Vec<_> = self.endpoint.established().collect();
        assert_eq!(
            up.len(),
            1,
            "IKE SAs up: {up:?}; events: {:#?}",
            self.events
        );
        up[0]
    }

    /// The only child.
    pub fn child(&self) -> &ChildUp {
        assert_eq!(self.kernel.len(), 1, "children: {:?}", self.kernel);
        self.kernel.values().next().unwrap()
    }
}

type Filter = Box<dyn FnMut(usize, &mut Datagram) -> Fate>;

/// The nodes and what is between them.
pub struct Net {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub delay: Duration,
    queue: BTreeMap<(Duration, u64), Datagram>,
    order: u64,
    filter: Filter,
    /// Datagrams sent, in all.
    pub carried: usize,
}

impl Net {
    pub fn new(nodes: Vec<Node>) -> Self {
        Net {
            now: SECOND,
            nodes,
            delay: 10 * MS,
            queue: BTreeMap::new(),
            order: 0,
            filter: Box::new(|_, _| Fate::Pass),
            carried: 0,
        }
    }

    /// Looks at every datagram, numbered from 0 in the order they are sent.
    pub fn filter(&mut self, filter: impl FnMut(usize, &mut Datagram) -> Fate + 'static) {
        self.filter = Box::new(filter);
    }

    pub fn end(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.nodes[node].address, 500)
    }

    pub fn initiate(&mut self, node: usize, peer: usize) -> IkeId {
        self.initiate_as(node, 0, peer)
    }

    pub fn initiate_as(&mut self, node: usize, connection: usize, peer: usize) -> IkeId {
        let (from, to) = (self.end(node), self.end(peer));
        let (n, now) = (&mut self.nodes[node], self.now);
        let ike = n
            .endpoint
            .initiate(connection, from, to, now, &mut n.host)
            .expect("a connection");
        self.collect(node);
        ike
    }

    /// Does something at a node.
    pub fn at<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Endpoint, Duration, &mut TestHost) -> T,
    ) -> T {
        let (n, now) = (&mut self.nodes[node], self.now);
        let done = act(&mut n.endpoint, now, &mut n.host);
        self.collect(node);
        done
    }

    /// Takes out what a node has to say.
    pub fn collect(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].endpoint.poll() {
            match output {
                Output::Event(event) => self.nodes[node].note(event),
                Output::Send(datagram) => {
                    self.nodes[node].sent += 1;
                    self.send(datagram);
                }
            }
        }
    }

    /// Sends a datagram; one to many goes to each node but its sender as a datagram of its own, to the same port.
    pub fn send(&mut self, datagram: Datagram) {
        if !datagram.to.ip().is_multicast() {
            return self.carry(datagram);
        }
        let others = self.nodes.iter().map(|node| node.address);
        let others: Vec<_> = others.filter(|one| *one != datagram.from.ip()).collect();
        for other in others {
            let mut copy = datagram.clone();
            copy.to.set_ip(other);
            self.carry(copy);
        }
    }

    fn carry(&mut self, mut datagram: Datagram) {
        let fate = (self.filter)(self.carried, &mut datagram);
        self.carried += 1;
        let mut put = |at, datagram| {
            self.order += 1;
            self.queue.insert((at, self.order), datagram);
        };
        let at = self.now + self.delay;
        match fate {
            Fate::Pass => put(at, datagram),
            Fate::Lose => {}
            Fate::Delay(more) => put(at + more, datagram),
            Fate::Double => {
                put(at, datagram.clone());
                put(at + 3 * MS, datagram);
            }
        }
    }

    /// Lets that much time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadlines = self.nodes.iter().filter_map(|n| n.endpoint.next_deadline());
            let Some(at) = deadlines.chain(arrival).min().filter(|at| *at <= end) else {
                break;
            };
            assert!(at >= self.now, "time goes on: {at:?} after {:?}", self.now);
            self.now = at;
            if arrival == Some(at) {
                let (_, datagram) = self.queue.pop_first().unwrap();
                let to = datagram.to.ip();
                if let Some(node) = self.nodes.iter().position(|n| n.address == to) {
                    let n = &mut self.nodes[node];
                    n.endpoint.handle(
                        &datagram.octets,
                        datagram.from,
                        datagram.to,
                        at,
                        &mut n.host,
                    );
                    self.collect(node);
                }
                continue;
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node]
                    .endpoint
                    .next_deadline()
                    .is_some_and(|due| due <= at)
                {
                    let n = &mut self.nodes[node];
                    n.endpoint.tick(at, &mut n.host);
                    self.collect(node);
                }
            }
        }
        self.now = end;
    }

    /// Both nodes have the same children, with the same keys, and are up with one IKE SA.
    pub fn assert_same(&self, a: usize, b: usize) {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.ike();
        b.ike();
        let spis = |n: &Node, swap: bool| {
            let spi = |c: &ChildUp| {
                if swap {
                    (c.spi_out, c.spi_in)
                } else {
                    (c.spi_in, c.spi_out)
                }
            };
            let mut list: Vec<_> = n.kernel.values().map(spi).collect();
            list.sort_unstable();
            list
        };
        assert_eq!(spis(a, false), spis(b, true), "the children differ");
        for child in a.kernel.values() {
            let other = b
                .kernel
                .values()
                .find(|c| c.spi_in == child.spi_out)
                .unwrap();
            assert_mirrored(child, other);
        }
        let known = |n: &Node| {
            let mut list: Vec<_> = n
                .endpoint
                .children(n.ike())
                .into_iter()
                .map(|c| c.0)
                .collect();
            list.sort_unstable();
            list
        };
        for n in [a, b] {
            assert_eq!(known(n), n.kernel.keys().copied().collect::<Vec<_>>());
        }
    }
}

impl Node {
    fn note(&mut self, event: Event) {
        match &event {
            Event::ChildUp(child) => {
                let known = self.kernel.insert(child.child, (**child).clone());
                assert!(known.is_none(), "a child came up twice");
                if child.seal_now {
                    self.sealing.push(child.child);
                }
            }
            Event::ChildSeal { child } => {
                assert!(
                    self.kernel.contains_key(child),
                    "seals with what isn't there"
                );
                self.sealing.push(*child);
            }
            Event::ChildDown { child, .. } => {
                assert!(
                    self.kernel.remove(child).is_some(),
                    "no such child to take down"
                );
                self.sealing.retain(|one| one != child);
            }
            _ => {}
        }
        self.events.push(event);
    }
}

/// One side's keys in are the other's keys out, and its selectors the other way round.
pub fn assert_mirrored(a: &ChildUp, b: &ChildUp) {
    assert_eq!((&a.local_ts, &a.remote_ts), (&b.remote_ts, &b.local_ts));
    assert_eq!(a.mode, b.mode);
    match (&a.keys, &b.keys) {
        (
            ChildSa::Plain {
                suite,
                keys_in,
                keys_out,
            },
            ChildSa::Plain {
                suite: other,
                keys_in: other_in,
                keys_out: other_out,
            },
        ) => {
            assert_eq!(suite, other);
            assert!(keys_in == other_out && keys_out == other_in && keys_in != keys_out);
        }
        (
            ChildSa::Composite {
                map,
                zones,
                generation,
                may_write,
                replay_window,
                peer_replay_window,
            },
            ChildSa::Composite {
                map: other_map,
                zones: other,
                generation: other_generation,
                may_write: other_write,
                replay_window: other_window,
                peer_replay_window: other_peer,
            },
        ) => {
            assert_eq!(
                (map, generation, may_write),
                (other_map, other_generation, other_write)
            );
            assert_eq!(
                (replay_window, peer_replay_window),
                (other_peer, other_window)
            );
            assert_eq!(zones.len(), other.len());
            for (a, b) in zones.iter().zip(other) {
                assert_eq!(a.transform, b.transform);
                assert!(a.keys_in == b.keys_out && a.keys_out == b.keys_in);
            }
            assert!(
                zones[0].keys_in != zones[1].keys_in,
                "each zone has its own keys"
            );
        }
        _ => panic!("one is plain, the other composite"),
    }
}

pub const SUITE: fn() -> IkeProposal = || IkeProposal {
    ciphers: vec![Cipher::Aes128Gcm],
    prfs: vec![Hash::Sha256],
    methods: vec![Method::X25519],
    additional: vec![],
};

/// Tunnel mode, everything, no zones.
pub fn plain_child() -> ChildConfig {
    let any = TrafficSelector::any("0.0.0.0".parse().unwrap());
    ChildConfig {
        local_ts: vec![any],
        remote_ts: vec![any],
        mode: Mode::Tunnel,
        ciphers: vec![Cipher::Aes128Gcm],
        methods: vec![],
        additional: vec![],
        zones: None,
        rekey: None,
        lifetime: Duration::from_secs(3600),
    }
}

/// Two zones, implicit IVs.
pub fn zones(role: ZoneRole) -> ZonePolicy {
    let transform = |encr, key_bits| ZoneTransform { encr, key_bits };
    let list = vec![
        transform(Encr::AES_GCM_16_IIV, 256),
        transform(Encr::CHACHA20_POLY1305_IIV, 256),
    ];
    ZonePolicy {
        required: false,
        map: ZoneMap::default_for(Mode::Tunnel),
        transforms: vec![list.clone(), list],
        replay_window: if role == ZoneRole::Home { 8192 } else { 1024 },
        may_write: false,
        role,
    }
}

/// A connection by a shared secret.
pub fn psk(local: &str, remote: &str) -> Connection {
    Connection {
        local_id: Id::fqdn(local),
        remote_id: IdMatch::Exactly(Id::fqdn(remote)),
        remote: None,
        credential: Credential::Psk(Secret::copy(b"an open secret")),
        trust: Trust::Psk(Secret::copy(b"an open secret")),
        ike: vec![SUITE()],
        child: Some(plain_child()),
        window: 1,
        mobike: false,
        initial_contact: false,
        liveness: None,
        rekey: None,
        request_address: None,
        pool: Pool::default(),
        rank: 0,
    }
}

pub fn config(connection: Connection) -> Config {
    Config {
        connections: vec![connection],
        ..Config::default()
    }
}

/// a.test at 192.0.2.1, b.test at 192.0.2.2, by a shared secret; `change` changes both sides' connection.
pub fn pair_with(seed: u64, change: impl Fn(&mut Connection, bool)) -> Net {
    let mut a = psk("a.test", "b.test");
    let mut b = psk("b.test", "a.test");
    change(&mut a, true);
    change(&mut b, false);
    Net::new(vec![
        Node::new("192.0.2.1", config(a), 2 * seed + 1),
        Node::new("192.0.2.2", config(b), 2 * seed + 2),
    ])
}

pub fn pair(seed: u64) -> Net {
    pair_with(seed, |_, _| {})
}

/// Both up, with their child.
pub fn up(mut net: Net) -> Net {
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    net
}

/// A mobile host's connection and its home agent's, for a CSA of what is the host's.
pub fn mobile_and_home(host: TrafficSelector) -> [Connection; 2] {
    let mut mobile = psk("mh.test", "ha.test");
    let child = mobile.child.as_mut().unwrap();
    child.zones = Some(zones(ZoneRole::Mobile));
    child.local_ts = vec![host];
    let mut home = psk("ha.test", "mh.test");
    let child = home.child.as_mut().unwrap();
    child.zones = Some(zones(ZoneRole::Home));
    child.remote_ts = vec![host];
    [mobile, home]
}

/// A connection with agents, which brings no child.
pub fn agents(local: &str, remote: IdMatch) -> Connection {
    let mut connection = psk(local, "");
    connection.remote_id = remote;
    connection.child = None;
    connection.window = 64;
    connection
}
