// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Key managers with their Mobile IP, all in simulated time: `mml-mip`'s simulated network, and the engines' datagrams over the same
//! links, with the same faults. What the host sends by IKE passes where the simulated routes let it.

use super::agents::texts;
use super::net::folder;
use super::recorder::{Recorder, State};
use super::sim::{self, ms, Place, Who, World, CORE, HOME, RADIO, WIRELESS};
use keyd::daemon::config::Config;
use keyd::daemon::engine::{Engine, Kernels};
use keyd::daemon::kernel::{Kernel, Keys, Sa};
use mml_mip::{Event, Identification, Ntp};
use pfkey::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The key managers, by their place.
pub const HA: usize = 0;
pub const MH: usize = 1;
pub const FA: usize = 2;

/// When all is over that was under way: IKE notices a peer that is gone, and lifetimes of bindings end.
const SETTLED: Duration = Duration::from_secs(240);
const STEP: Duration = ms(1);

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    octets: Vec<u8>,
}

/// A key manager's process, and the kernels it works with.
pub struct Daemon {
    pub engine: Engine,
    pub mml: Recorder,
    xfrm: Recorder,
    text: String,
}

/// The nodes.
pub struct Days {
    pub world: World,
    pub daemons: Vec<Daemon>,
    /// IKE between these foreign agents and the home agent doesn't arrive.
    pub apart: BTreeSet<usize>,
    folder: tempfile::TempDir,
    beforehand: bool,
    heard: usize,
    flights: BTreeMap<(Duration, u64), Datagram>,
    count: u64,
    /// What was said between key managers: when, by whom to whom, of which exchange, and which message.
    ike: Vec<String>,
}

fn daemon(text: String, folder: &std::path::Path, kernels: [Recorder; 2], now: Duration) -> Daemon {
    let config = Config::parse("keyd.toml", &text, folder).unwrap_or_else(|e| panic!("{e}"));
    let [mml, xfrm] = kernels;
    let hands = Kernels {
        mml: Some(Box::new(mml.clone()) as Box<dyn Kernel>),
        xfrm: Some(Box::new(xfrm.clone())),
    };
    Daemon {
        engine: Engine::new(config, hands, now).unwrap(),
        mml,
        xfrm,
        text,
    }
}

/// Zones that a kernel can open or seal of an SA.
fn zones(sa: &Sa) -> usize {
    match &sa.keys {
        Keys::Zones(zones) => zones.zones.len(),
        Keys::Plain { .. } => 0,
    }
}

impl Days {
    /// Nobody is anywhere yet. Does the home agent give keys beforehand?
    pub fn new(foreign: usize, beforehand: bool, seed: u64) -> Self {
        let folder = folder();
        let world = World::new(foreign, seed);
        let addresses: Vec<String> = (0..foreign)
            .map(|fa| sim::care_of(fa).to_string())
            .collect();
        let at_home = format!("predistribute = {beforehand}\n");
        let (ha, mh) = (sim::HA.to_string(), HOME.to_string());
        let daemons = texts(folder.path(), &ha, &mh, &addresses, [&at_home, ""])
            .into_iter()
            .map(|text| {
                let kernels = [Recorder::new("mml"), Recorder::new("xfrm")];
                daemon(text, folder.path(), kernels, world.now)
            })
            .collect();
        Days {
            world,
            daemons,
            apart: BTreeSet::new(),
            folder,
            beforehand,
            heard: 0,
            flights: BTreeMap::new(),
            count: 0,
            ike: Vec::new(),
        }
    }

    /// The host is at the first foreign agent, under a CSA, and everybody has what it should.
    pub fn begun(foreign: usize, beforehand: bool, seed: u64) -> Self {
        let mut days = Days::new(foreign, beforehand, seed);
        days.run(ms(500));
        days.world.enter(RADIO, Place::Cell(0));
        days.settles("at first", 0);
        days
    }

    /// The process is killed and comes back after that time, in which nothing that is sent to it arrives. Its kernel has kept
    /// what it had, or has begun anew, too: the whole node did.
    pub fn restart(&mut self, node: usize, down: Duration, keep_kernel: bool) {
        let who = match node {
            HA => Who::Ha,
            MH => Who::Mn,
            fa => Who::Fa(fa - FA),
        };
        if !keep_kernel {
            for kernel in [&self.daemons[node].mml, &self.daemons[node].xfrm] {
                *kernel.state() = State::default();
            }
            self.world.kernels.insert(who, sim::Kernel::default());
        }
        if !down.is_zero() {
            self.world.away.insert(who);
            self.run(down);
            self.world.away.remove(&who);
        }
        let now = self.world.now;
        let old = &self.daemons[node];
        let (text, kernels) = (old.text.clone(), [old.mml.clone(), old.xfrm.clone()]);
        self.daemons[node] = daemon(text, self.folder.path(), kernels, now);
        match node {
            HA if !keep_kernel => self.world.restart_ha(false),
            HA => {
                self.world.resume_ha();
                let bindings: Vec<_> = self.world.ha.bindings().copied().collect();
                for binding in bindings {
                    let wall = Ntp::from_unix(now + Duration::from_secs(1_800_000_000));
                    let bound = Event::Bound {
                        home: binding.home,
                        care_of: binding.care_of,
                        previous: None,
                        named: None,
                        identification: Identification(wall.0),
                        lifetime: 600,
                    };
                    self.daemons[HA].engine.mobile_event(&bound, now);
                }
            }
            MH => self.world.restart_mn(),
            fa => self.world.restart_fa(fa - FA),
        }
    }

    /// Lets that much time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            let (due, arrival) = self.world.next();
            let engines = self.daemons.iter();
            let next = engines.enumerate().filter(|(node, _)| !self.away(*node));
            let next = next.filter_map(|(_, one)| one.engine.next_deadline());
            let flight = self.flights.first_key_value().map(|(key, _)| key.0);
            let next = next.chain(flight).chain([due, arrival]).min();
            // Time that stands still would go on for ever where somebody is always due.
            let least = self.world.now + STEP;
            self.step(next.map_or(end, |at| at.max(least)).min(end));
        }
    }

    fn node_of(&self, address: IpAddr) -> usize {
        let foreign = (0..self.daemons.len() - FA).find(|fa| sim::care_of(*fa) == address);
        match foreign {
            Some(fa) => FA + fa,
            None if address == sim::HA => HA,
            None => MH,
        }
    }

    /// Whether a node's process isn't there.
    fn away(&self, node: usize) -> bool {
        let mut away = self.world.away.iter();
        away.any(|who| Self::who(*who) == node)
    }

    fn who(who: Who) -> usize {
        match who {
            Who::Ha => HA,
            Who::Mn => MH,
            Who::Fa(fa) => FA + fa,
        }
    }

    /// Whether there is a way between two nodes now.
    fn way(&self, one: usize, other: usize) -> bool {
        let ends = [one, other];
        if ends.contains(&MH) {
            return !self.world.cut && self.world.reachable();
        }
        let fa = one.max(other);
        !(ends.contains(&HA) && (self.world.cut || self.apart.contains(&(fa - FA))))
    }

    /// To that moment, at which something happens.
    fn step(&mut self, until: Duration) {
        self.world.run(until - self.world.now);
        let now = self.world.now;
        let events: Vec<_> = self.world.events[self.heard..].to_vec();
        self.heard = self.world.events.len();
        for (_, who, event) in events {
            self.daemons[Self::who(who)]
                .engine
                .mobile_event(&event, now);
        }
        while let Some(first) = self.flights.first_entry().filter(|one| one.key().0 <= now) {
            let one = first.remove();
            let (from, to) = (self.node_of(one.from.ip()), self.node_of(one.to.ip()));
            if self.way(from, to) && !self.away(to) {
                let engine = &mut self.daemons[to].engine;
                engine.handle(&one.octets, one.from, one.to, now);
            }
        }
        for node in 0..self.daemons.len() {
            if !self.away(node) {
                self.obeys(node, now);
            }
        }
        self.check();
    }

    /// What is due at a node, and what its Mobile IP and its sockets do for it.
    fn obeys(&mut self, node: usize, now: Duration) {
        let engine = &mut self.daemons[node].engine;
        if engine.next_deadline().is_some_and(|at| at <= now) {
            engine.tick(now);
        }
        for (fa, key) in engine.handover_keys() {
            self.world.mn.handover_key(fa, key);
        }
        for order in engine.orders() {
            engine.ordered(&order, true, now);
        }
        let mut datagrams = Vec::new();
        while let Some(one) = engine.datagram() {
            datagrams.push(one);
        }
        for one in datagrams {
            let (from, to) = (self.node_of(one.from.ip()), self.node_of(one.to.ip()));
            if !self.way(from, to) {
                continue;
            }
            let air = if from == MH || to == MH {
                WIRELESS
            } else {
                Duration::ZERO
            };
            // Behind the non-ESP marker (RFC 3948 \u{a7}2.2).
            let (exchange, number) = (one.octets[22], one.octets[27]);
            let delays = self.world.delays();
            self.ike.push(format!(
                "{now:?} {from} > {to}: exchange {exchange}, message {number}, {}th of all, late by {delays:?}",
                self.world.messages
            ));
            for late in delays {
                self.count += 1;
                let copy = Datagram {
                    from: one.from,
                    to: one.to,
                    octets: one.octets.clone(),
                };
                let at = now + CORE + air + late;
                self.flights.insert((at, self.count), copy);
            }
        }
    }

    /// What holds at any moment: no key but zone 1's at a foreign agent, and nothing plain anywhere.
    fn check(&self) {
        for (node, daemon) in self.daemons.iter().enumerate() {
            let state = daemon.mml.state();
            for sa in &state.sas {
                let right = if node >= FA {
                    sa.id.role == Role::Relay && zones(sa) == 1
                } else {
                    sa.id.role != Role::Relay && zones(sa) == 2
                };
                assert!(right, "node {node} holds {sa:?}");
            }
            assert!(daemon.xfrm.state().sas.is_empty(), "node {node}");
        }
    }

    /// Whether no foreign agent has a key, nor remembers one.
    pub fn no_relay_holds(&self) -> bool {
        let mut agents = (FA..self.daemons.len()).map(|fa| &self.daemons[fa]);
        agents.all(|fa| fa.mml.state().sas.is_empty() && fa.engine.book().relays.is_empty())
    }

    /// The host closes its SAs and deregisters, as `mmlctl leave` has it.
    pub fn leave(&mut self) {
        let now = self.world.now;
        self.daemons[MH].engine.close_all(now);
        // Said at once, and answered.
        self.run(STEP);
        self.run(ms(200));
        self.daemons[MH].engine.flush();
        self.world.leave();
        self.run(ms(500));
        self.world.away.insert(Who::Mn);
    }

    /// SPIs that a node's kernel holds.
    pub fn spis(&self, node: usize) -> BTreeSet<u32> {
        let state = self.daemons[node].mml.state();
        state.sas.iter().map(|sa| sa.id.spi).collect()
    }

    /// Why it isn't so that the host is at that foreign agent, and the two ends have one CSA, that foreign agent its zone 1
    /// (and its neighbours, where keys are given beforehand), all others nothing, and no book anything beside.
    fn unsettled(&self, at: usize) -> Option<String> {
        if !self.world.reachable_by(at) {
            return Some("it can't be reached there".into());
        }
        let holders: Vec<usize> = match self.beforehand {
            true => (0..self.daemons.len() - FA).collect(),
            false => vec![at],
        };
        let csa = self.spis(HA);
        if csa.len() != 2 || self.spis(MH) != csa {
            return Some(format!("ends: {csa:x?} and {:x?}", self.spis(MH)));
        }
        for (node, daemon) in self.daemons.iter().enumerate() {
            let book = daemon.engine.book();
            let (children, relays, held) = match node {
                HA | MH => (1, 0, csa.clone()),
                fa if holders.contains(&(fa - FA)) => (0, 1, csa.clone()),
                _ => (0, 0, BTreeSet::new()),
            };
            if self.spis(node) != held {
                return Some(format!("node {node} holds {:x?}", self.spis(node)));
            }
            let ikes = match node {
                HA => self.daemons.len() - 1,
                MH => 1,
                _ => self.daemons.len() - FA,
            };
            let has = (book.children.len(), book.relays.len(), book.ikes.len());
            if has != (children, relays, ikes)
                || !book.starting.is_empty()
                || !book.orphans.is_empty()
            {
                let (starting, orphans) = (book.starting.len(), book.orphans.len());
                return Some(format!(
                    "node {node}'s book: {has:?}, {starting}, {orphans}"
                ));
            }
            if daemon.engine.unfinished() > 0 {
                return Some(format!("node {node} waits for something"));
            }
        }
        // Zone 1's keys are the CSA's own.
        let first = |node: usize| -> BTreeMap<u32, _> {
            let state = self.daemons[node].mml.state();
            let sas = state.sas.iter().filter_map(|sa| match &sa.keys {
                Keys::Zones(zones) => Some((sa.id.spi, zones.zones.first()?.clone())),
                Keys::Plain { .. } => None,
            });
            sas.collect()
        };
        let own = first(HA);
        let others = [MH].into_iter().chain(holders.iter().map(|fa| FA + fa));
        let wrong = others.into_iter().find(|node| first(*node) != own)?;
        Some(format!("node {wrong} has other keys"))
    }

    /// Waits until all is as it should be with the host at that foreign agent, and sees that it stays so.
    pub fn settles(&mut self, what: &str, at: usize) {
        let (end, way) = (self.world.now + SETTLED, self.beforehand);
        while let Some(why) = self.unsettled(at) {
            assert!(
                self.world.now < end,
                "{what}, beforehand {way}: {why}\n{}",
                self.said()
            );
            self.run(ms(50));
        }
        self.run(Duration::from_secs(2));
        let why = self.unsettled(at);
        assert!(
            why.is_none(),
            "{what}, beforehand {way}, then: {why:?}\n{}",
            self.said()
        );
    }

    /// What each daemon said to its module.
    fn said(&self) -> String {
        let mut text = String::new();
        for (node, daemon) in self.daemons.iter().enumerate() {
            let engine = &daemon.engine;
            writeln!(text, "node {node}: {:?}", engine.counters).unwrap();
            for line in &daemon.mml.state().log {
                writeln!(text, "  {line}").unwrap();
            }
        }
        for (at, who, event) in &self.world.events {
            writeln!(text, "{at:?} {who:?} {event:?}").unwrap();
        }
        for line in &self.ike {
            writeln!(text, "{line}").unwrap();
        }
        text
    }
}
