// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A home agent, foreign agents and a mobile node in simulated time, over links that lose, double and reorder.
//!
//! ```text
//!  home network            core, 10 ms          cells, 2 ms
//!  203.0.113.0/24  ── ha ─────────────── fa0 ((  10.0.1.1  ))
//!        mn at home         └─────────── fa1 ((  10.0.2.1  ))  mn
//! ```
//!
//! Every action is done as a kernel would, and refused where a kernel would refuse it: a tunnel that is there already, a
//! route into none. Whether the mobile node can be reached follows from routes, tunnels and radio alone, and is summed
//! up between events.
#![allow(dead_code, reason = "each test takes what it needs")]

pub mod advertise;
pub mod ask;
mod restart;

use mml_mip::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

pub const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub const HA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const CORE: Duration = Duration::from_millis(10);
pub const WIRELESS: Duration = Duration::from_millis(2);
pub const HOME_LINK: Interface = Interface(9);
pub const RADIO: Interface = Interface(1);
pub const SECOND_RADIO: Interface = Interface(2);
pub const CELL: Interface = Interface(5);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn care_of(fa: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, fa as u8 + 1, 1)
}

pub fn association(spi: u32, secret: u8) -> Association {
    Association {
        spi,
        algorithm: Algorithm::HmacSha256,
        key: Key::new(&[secret; 32]),
        replay: Replay::default(),
    }
}

pub fn mobile_home() -> Association {
    association(1000, 1)
}

pub fn foreign_home(fa: usize) -> Association {
    association(2000 + fa as u32, 100 + fa as u8)
}

pub fn home_config(fas: usize) -> HomeConfig {
    let subscriber = Subscriber {
        associations: vec![mobile_home()],
        barred: false,
    };
    HomeConfig {
        addresses: vec![HA],
        home_link: Some(Link {
            interface: HOME_LINK,
            address: HA,
            prefix_len: 24,
            interval: Duration::from_secs(1),
            answers_per_second: 100,
        }),
        max_lifetime: 600,
        max_bindings: 1000,
        reverse_tunnel: ReverseTunnel::Required,
        revocation: true,
        subscribers: HashMap::from([(HOME, subscriber)]),
        foreign_agents: (0..fas)
            .map(|fa| (care_of(fa), vec![foreign_home(fa)]))
            .collect(),
    }
}

pub fn foreign_config(fa: usize) -> ForeignConfig {
    let link = Link {
        interface: CELL,
        address: care_of(fa),
        prefix_len: 24,
        interval: Duration::from_secs(1),
        answers_per_second: 100,
    };
    ForeignConfig {
        home: HashMap::from([(HA, vec![foreign_home(fa)])]),
        ..ForeignConfig::new(care_of(fa), vec![link])
    }
}

pub fn node_config() -> NodeConfig {
    NodeConfig {
        lifetime: 60,
        ..NodeConfig::new(HOME, HA, mobile_home())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    Ha,
    Fa(usize),
    Mn,
}

/// Where one of the mobile node's interfaces is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cell(usize),
    Home,
}

/// To whom, in by which interface, and over which of the mobile node's hops.
type Way = (Who, Interface, Option<(Interface, Place)>);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    Lost,
    Doubled,
    /// So much later than its link takes.
    Late(Duration),
}

#[derive(Clone, Debug)]
pub struct Flight {
    pub from: Who,
    pub to: Who,
    pub packet: Packet,
    /// The interface it comes in by.
    interface: Interface,
    /// Over this cell, if it is one of the mobile node's hops.
    air: Option<(Interface, Place)>,
}

/// What a node's kernel has.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    pub tunnels: HashSet<Tunnel>,
    pub routes: Vec<Route>,
    pub proxy: HashSet<Ipv4Addr>,
    pub gratuitous: u32,
}

fn same_kind(one: &Route, other: &Route) -> bool {
    let key = |route: &Route| match *route {
        Route::ToMobile { home, .. } => (0, home),
        Route::Visitor { home, .. } => (1, home),
        Route::FromVisitor { home, .. } => (2, home),
        Route::Agent { agent, .. } => (3, agent),
        Route::Default { home, .. } => (4, home),
    };
    key(one) == key(other)
}

impl Kernel {
    fn act(&mut self, who: Who, action: &Action) {
        match *action {
            Action::AddTunnel(tunnel) => {
                assert!(self.tunnels.insert(tunnel), "{who:?}: {tunnel:?} is there")
            }
            Action::RemoveTunnel(tunnel) => {
                assert!(self.tunnels.remove(&tunnel), "{who:?}: no {tunnel:?}");
                assert!(
                    !self
                        .routes
                        .iter()
                        .any(|route| through(route) == Some(tunnel)),
                    "{who:?}: a route into nothing"
                );
            }
            Action::AddRoute(route) => {
                assert!(
                    through(&route).is_none_or(|tunnel| self.tunnels.contains(&tunnel)),
                    "{who:?}: no tunnel for {route:?}"
                );
                self.routes.retain(|old| !same_kind(old, &route));
                self.routes.push(route);
            }
            Action::RemoveRoute(route) => {
                // Linux removes a route by what it says; one that was replaced isn't there any more.
                if let Some(at) = self.routes.iter().position(|old| *old == route) {
                    self.routes.swap_remove(at);
                } else {
                    assert!(
                        self.routes.iter().any(|old| same_kind(old, &route)),
                        "{who:?}: no {route:?}"
                    );
                }
            }
            Action::AddProxyArp { address, .. } => {
                assert!(self.proxy.insert(address), "{who:?}: proxy twice")
            }
            Action::RemoveProxyArp { address, .. } => {
                assert!(self.proxy.remove(&address), "{who:?}: no proxy")
            }
            Action::GratuitousArp { .. } => self.gratuitous += 1,
            Action::Send(_) | Action::Notify(_) => {}
        }
    }
}

fn through(route: &Route) -> Option<Tunnel> {
    match *route {
        Route::ToMobile { tunnel, .. } | Route::FromVisitor { tunnel, .. } => Some(tunnel),
        _ => None,
    }
}

pub struct World {
    pub now: Duration,
    pub ha: HomeAgent,
    pub fas: Vec<ForeignAgent>,
    pub mn: MobileNode,
    pub kernels: BTreeMap<Who, Kernel>,
    pub events: Vec<(Duration, Who, Event)>,
    /// All that was sent.
    pub sent: Vec<(Duration, Flight)>,
    /// The mobile node's clock less the others', in ms.
    pub skew: i64,
    /// In a thousand packets.
    pub lost: u32,
    pub doubled: u32,
    /// At most so much longer than the link's own time.
    pub jitter: Duration,
    /// Nothing gets to the home agent or from it.
    pub cut: bool,
    /// Nodes whose process isn't there: they hear nothing and do nothing.
    pub away: HashSet<Who>,
    /// Messages that were sent, and what becomes of some of those that will be, by their number.
    pub messages: u64,
    pub fates: BTreeMap<u64, Fate>,
    /// What the mobile node sent to nobody on its link.
    pub stray: Vec<Packet>,
    /// Time in which the mobile node couldn't be reached.
    pub down: Duration,
    /// What has arrived at the mobile node, and at the home agent.
    pub seen: [Vec<Seen>; 2],
    places: BTreeMap<Interface, Place>,
    flights: BTreeMap<(Duration, u64), Flight>,
    count: u64,
    state: u64,
}

impl World {
    pub fn new(fas: usize, seed: u64) -> Self {
        World::with(
            home_config(fas),
            (0..fas).map(foreign_config).collect(),
            node_config(),
            seed,
        )
    }

    pub fn with(
        home: HomeConfig,
        foreign: Vec<ForeignConfig>,
        node: NodeConfig,
        seed: u64,
    ) -> Self {
        let begin = Duration::from_secs(1000);
        let now = clock(begin, 0);
        let whos = (0..foreign.len()).map(Who::Fa).chain([Who::Ha, Who::Mn]);
        World {
            now: begin,
            ha: HomeAgent::new(home, now),
            kernels: whos.map(|who| (who, Kernel::default())).collect(),
            fas: foreign
                .into_iter()
                .map(|config| ForeignAgent::new(config, now))
                .collect(),
            mn: MobileNode::new(node),
            events: Vec::new(),
            sent: Vec::new(),
            skew: 0,
            lost: 0,
            doubled: 0,
            jitter: Duration::ZERO,
            cut: false,
            away: HashSet::new(),
            messages: 0,
            fates: BTreeMap::new(),
            stray: Vec::new(),
            down: Duration::ZERO,
            seen: [Vec::new(), Vec::new()],
            places: BTreeMap::new(),
            flights: BTreeMap::new(),
            count: 0,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    fn clock(&self, who: Who) -> Now {
        clock(self.now, if who == Who::Mn { self.skew } else { 0 })
    }

    pub fn random(&mut self) -> u32 {
        random(&mut self.state)
    }

    /// The radio is in this cell now, and the driver says so.
    pub fn enter(&mut self, interface: Interface, place: Place) {
        self.places.insert(interface, place);
        if self.away.contains(&Who::Mn) {
            return;
        }
        let now = self.clock(Who::Mn);
        let actions = self.mn.link_up(interface, now);
        self.act(Who::Mn, actions);
    }

    pub fn exit(&mut self, interface: Interface) {
        self.places.remove(&interface);
        if self.away.contains(&Who::Mn) {
            return;
        }
        let now = self.clock(Who::Mn);
        let mut state = self.state;
        let actions = self
            .mn
            .link_down(interface, now, &mut || random(&mut state));
        self.state = state;
        self.act(Who::Mn, actions);
    }

    /// Nobody is where this radio is any more, and the driver doesn't notice.
    pub fn fall_silent(&mut self, interface: Interface) {
        self.places.remove(&interface);
    }

    /// From one cell to the other, with a radio gap between them.
    pub fn hand_off(&mut self, to: usize, gap: Duration) {
        self.exit(RADIO);
        self.run(gap);
        self.enter(RADIO, Place::Cell(to));
    }

    /// Lets so much time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let (due, arrival) = self.next();
            let next = due.min(arrival);
            if next > end {
                self.pass(end);
                return;
            }
            self.pass(next);
            match self.flights.first_entry().filter(|_| arrival <= due) {
                Some(entry) => {
                    let flight = entry.remove();
                    self.deliver(&flight);
                }
                None => self.tick(),
            }
        }
    }

    /// When a node has something to do next, and when a packet arrives.
    pub fn next(&self) -> (Duration, Duration) {
        let foreign = self.fas.iter().enumerate();
        let deadlines = foreign
            .map(|(fa, agent)| (Who::Fa(fa), agent.next_deadline()))
            .chain([
                (Who::Ha, self.ha.next_deadline()),
                (Who::Mn, self.mn.next_deadline()),
            ])
            .filter(|(who, _)| !self.away.contains(who))
            .filter_map(|(_, deadline)| deadline);
        let due = deadlines.min().unwrap_or(Duration::MAX).max(self.now);
        let arrival = self.flights.first_key_value();
        (due, arrival.map_or(Duration::MAX, |(key, _)| key.0))
    }

    fn pass(&mut self, until: Duration) {
        if !self.reachable() {
            self.down += until - self.now;
        }
        self.now = until;
    }

    fn tick(&mut self) {
        for who in self.kernels.keys().copied().collect::<Vec<_>>() {
            if self.away.contains(&who) {
                continue;
            }
            let now = self.clock(who);
            let mut state = self.state;
            let mut draw = || random(&mut state);
            let actions = match who {
                Who::Ha => self.ha.tick(now, &mut draw),
                Who::Fa(fa) => self.fas[fa].tick(now, &mut draw),
                Who::Mn => self.mn.tick(now, &mut draw),
            };
            self.state = state;
            self.act(who, actions);
        }
    }

    pub fn act(&mut self, who: Who, actions: Vec<Action>) {
        for action in actions {
            self.kernels.get_mut(&who).expect("known").act(who, &action);
            match action {
                Action::Send(packet) => self.send(who, packet),
                Action::Notify(event) => self.events.push((self.now, who, event)),
                _ => {}
            }
        }
    }

    fn send(&mut self, from: Who, packet: Packet) {
        let Some((to, interface, air)) = self.way(from, &packet) else {
            if from == Who::Mn {
                self.stray.push(packet);
            }
            return;
        };
        let flight = Flight {
            from,
            to,
            packet,
            interface,
            air,
        };
        self.sent.push((self.now, flight.clone()));
        let time = if flight.air.is_some() { WIRELESS } else { CORE };
        for more in self.delays() {
            self.count += 1;
            self.flights
                .insert((self.now + time + more, self.count), flight.clone());
        }
    }

    /// How much later than its link takes each copy of the next message arrives.
    pub fn delays(&mut self) -> Vec<Duration> {
        self.messages += 1;
        let late = match self.fates.remove(&self.messages) {
            Some(Fate::Lost) => return Vec::new(),
            Some(Fate::Doubled) => return vec![Duration::ZERO; 2],
            Some(Fate::Late(late)) => late,
            Some(Fate::Arrives) | None => Duration::ZERO,
        };
        let copies = if self.random() % 1000 < self.doubled {
            2
        } else {
            1
        };
        let arrive = (0..copies).filter_map(|_| {
            let kept = self.random() % 1000 >= self.lost;
            kept.then(|| {
                let share = f64::from(self.random()) / f64::from(u32::MAX);
                late + self.jitter.mul_f64(share)
            })
        });
        arrive.collect()
    }

    /// To whom a packet goes, by which interface, and over which air.
    fn way(&self, from: Who, packet: &Packet) -> Option<Way> {
        match (from, packet.interface) {
            (Who::Mn, Some(interface)) => {
                let place = *self.places.get(&interface)?;
                let owner = match place {
                    Place::Cell(fa) => care_of(fa),
                    Place::Home => HA,
                };
                if !packet.destination.is_multicast() && packet.destination != owner {
                    return None;
                }
                let (to, at) = match place {
                    Place::Cell(fa) => (Who::Fa(fa), CELL),
                    Place::Home => (Who::Ha, HOME_LINK),
                };
                Some((to, at, Some((interface, place))))
            }
            (Who::Fa(fa), Some(_)) => self.to_mobile(Place::Cell(fa)),
            (Who::Ha, Some(_)) => self.to_mobile(Place::Home),
            (Who::Ha, None) if packet.destination == HOME => self.to_mobile(Place::Home),
            (_, None) if packet.destination == HA => Some((Who::Ha, Interface(0), None)),
            (Who::Mn, None) => None,
            (_, None) => {
                let fa = (0..self.fas.len()).find(|&fa| care_of(fa) == packet.destination)?;
                Some((Who::Fa(fa), Interface(0), None))
            }
        }
    }

    fn to_mobile(&self, place: Place) -> Option<Way> {
        let (&interface, _) = self.places.iter().find(|(_, at)| **at == place)?;
        Some((Who::Mn, interface, Some((interface, place))))
    }

    fn deliver(&mut self, flight: &Flight) {
        // The radio has moved on.
        if flight
            .air
            .is_some_and(|(interface, place)| self.places.get(&interface) != Some(&place))
        {
            return;
        }
        let core = flight.air.is_none();
        if (core && self.cut) || self.away.contains(&flight.to) {
            return;
        }
        self.hand_in(
            flight.to,
            flight.interface,
            &flight.packet,
            if core { 3 } else { 0 },
        );
    }

    /// A packet that was sent arrives, once more or changed.
    pub fn inject(&mut self, flight: &Flight) {
        self.deliver(flight);
    }

    /// Gives a packet to a node, from a link or from a forger.
    pub fn hand_in(&mut self, to: Who, interface: Interface, packet: &Packet, hops: u8) {
        self.hand_in_from(None, to, interface, packet, hops);
    }

    /// The same, from this link-layer address.
    pub fn hand_in_from(
        &mut self,
        link_source: Option<LinkAddress>,
        to: Who,
        interface: Interface,
        packet: &Packet,
        hops: u8,
    ) {
        let payload = match &packet.content {
            Content::Udp {
                source_port,
                octets,
                ..
            } => Payload::Udp {
                source_port: *source_port,
                octets,
            },
            Content::Icmp(octets) => Payload::Icmp(octets),
        };
        let incoming = Incoming {
            interface,
            source: packet.source,
            destination: packet.destination,
            ttl: packet.ttl - hops.min(packet.ttl),
            link_source,
            payload,
        };
        match to {
            Who::Ha => {
                if let Some(home) = self.ha.tells_seen(&incoming, clock(self.now, 0)) {
                    self.ha.has_seen(home, self.seen[1].clone());
                }
            }
            Who::Mn if self.mn.tells_seen(Some(&incoming)) => {
                self.mn.has_seen(self.seen[0].clone());
            }
            Who::Mn | Who::Fa(_) => {}
        }
        let now = self.clock(to);
        let mut state = self.state;
        let mut draw = || random(&mut state);
        let actions = match to {
            Who::Ha => self.ha.handle(&incoming, now, &mut draw),
            Who::Fa(fa) => self.fas[fa].handle(&incoming, now, &mut draw),
            Who::Mn => self.mn.handle(&incoming, now, &mut draw),
        };
        self.state = state;
        self.act(to, actions);
    }

    /// Gives octets to a foreign agent as if from its cell.
    pub fn in_cell(&mut self, fa: usize, octets: Vec<u8>) {
        let packet = udp(HOME, care_of(fa), 255, octets);
        self.hand_in(Who::Fa(fa), CELL, &packet, 0);
    }

    /// An agent's operator ends the mobile node's registration.
    pub fn revoke(&mut self, who: Who) {
        let now = self.clock(who);
        let actions = match who {
            Who::Ha => self.ha.revoke(HOME, now),
            Who::Fa(fa) => self.fas[fa].revoke(HOME, now),
            Who::Mn => panic!("it is no agent"),
        };
        self.act(who, actions);
    }

    /// An agent is about to end.
    pub fn close(&mut self, who: Who) {
        let now = self.clock(who);
        let actions = match who {
            Who::Ha => self.ha.close(now),
            Who::Fa(fa) => self.fas[fa].close(now),
            Who::Mn => panic!("it is no agent"),
        };
        self.act(who, actions);
    }

    /// The mobile node leaves for good.
    pub fn leave(&mut self) {
        let now = self.clock(Who::Mn);
        let mut state = self.state;
        let actions = self.mn.leave(now, &mut || random(&mut state));
        self.state = state;
        self.act(Who::Mn, actions);
    }

    /// Whether a packet to the home address would reach the mobile node now, and one from it the home agent.
    pub fn reachable(&self) -> bool {
        if self.mn.at_home() && self.places.values().any(|place| *place == Place::Home) {
            return self.kernels[&Who::Ha].routes.is_empty();
        }
        (0..self.fas.len()).any(|fa| self.reachable_by(fa))
    }

    pub fn reachable_by(&self, fa: usize) -> bool {
        let here = self
            .places
            .iter()
            .find(|(_, place)| **place == Place::Cell(fa));
        let Some((&interface, _)) = here else {
            return false;
        };
        let (there, back) = (
            Tunnel {
                local: HA,
                remote: care_of(fa),
            },
            Tunnel {
                local: care_of(fa),
                remote: HA,
            },
        );
        let agent = &self.kernels[&Who::Fa(fa)].routes;
        let visitor = |route: &Route| matches!(route, Route::Visitor { home: HOME, .. });
        let reverse = |route: &Route| matches!(route, Route::FromVisitor { home: HOME, tunnel, .. } if *tunnel == back);
        let ours = Route::Default {
            agent: care_of(fa),
            interface,
            home: HOME,
        };
        self.kernels[&Who::Ha].routes.contains(&Route::ToMobile {
            home: HOME,
            tunnel: there,
        }) && agent.iter().any(visitor)
            && agent.iter().any(reverse)
            && self.kernels[&Who::Mn].routes.contains(&ours)
    }

    pub fn registrations(&self) -> usize {
        let registered =
            |(_, _, event): &&(Duration, Who, Event)| matches!(event, Event::Registered { .. });
        self.events.iter().filter(registered).count()
    }

    /// How often an agent denied with each code, from its own log.
    pub fn refused(&self, who: Who) -> Vec<Code> {
        let code = |(_, by, event): &(Duration, Who, Event)| match event {
            Event::Refused { code, .. } if *by == who => Some(*code),
            _ => None,
        };
        self.events.iter().filter_map(code).collect()
    }

    /// The octets of the last registration request that left the mobile node.
    pub fn last_request(&self) -> Vec<u8> {
        let request = |(_, flight): &(Duration, Flight)| match &flight.packet.content {
            Content::Udp { octets, .. } if flight.from == Who::Mn => Some(octets.clone()),
            _ => None,
        };
        self.sent
            .iter()
            .rev()
            .find_map(request)
            .expect("one was sent")
    }

    /// No routes, tunnels or entries beyond what one registration by this foreign agent needs, anywhere.
    pub fn assert_only_at(&self, fa: usize) {
        assert!(self.reachable_by(fa), "{:#?}", self.kernels);
        for (who, kernel) in &self.kernels {
            let (routes, tunnels) = match who {
                Who::Ha => (1, 1),
                Who::Fa(one) if *one == fa => (2, 1),
                Who::Fa(_) => (0, 0),
                Who::Mn => (2, 0),
            };
            assert_eq!(kernel.routes.len(), routes, "{who:?}: {kernel:?}");
            assert_eq!(kernel.tunnels.len(), tunnels, "{who:?}: {kernel:?}");
        }
    }
}

pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, octets: Vec<u8>) -> Packet {
    Packet {
        interface: None,
        link_destination: None,
        source,
        destination,
        ttl,
        content: Content::Udp {
            source_port: number::PORT,
            destination_port: number::PORT,
            octets,
        },
    }
}

fn clock(now: Duration, skew_ms: i64) -> Now {
    let since = now + Duration::from_secs(1_800_000_000);
    let shifted = since.as_millis() as i64 + skew_ms;
    let below = Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000));
    Now {
        monotonic: now,
        wall: Ntp::from_unix(ms(shifted as u64) + below),
    }
}

/// xorshift64*.
fn random(state: &mut u64) -> u32 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
}
