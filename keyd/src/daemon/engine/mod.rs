// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon decides: the protocol's end point, the kernels, and the book of what is installed.
//!
//! There are no sockets and no clock here: datagrams, kernel events, commands and time go in, datagrams come out of
//! [`Engine::datagram`]. [`super::run`] is around it, and tests are.

mod addresses;
mod alarms;
mod book;
mod children;
mod command;
mod connect;
mod coverage;
mod events;
mod handoff;
mod handover;
mod host;
mod mobile;
mod moves;
mod policies;
mod predistribution;
mod relays;
mod reload;
mod restart;
mod review;
mod snoop_states;

pub use alarms::{Alarms, Cause, Change, Finding};
pub use book::{Book, Child, Ike, Relay};
pub use command::{Refusal, Standing};
pub use coverage::{Coverage, Here, Visitor};
pub use handover::{Follow, Order, Recall};
pub use host::{Kernels, Random};
pub use mobile::Place;

use super::config::{Config, Relays, Role, Start};
use super::kernel::{KernelEvent, SaId};
use super::metrics::Counters;
use super::mobility::mtu::Advice;
use host::NodeHost;
use mml_ike::event::{ChildId, Datagram, IkeId, Output, Time};
use mml_ike::wire::Id;
use mml_ike::Endpoint;
use mml_mip::HandoverKey;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How often a standby CSA is looked at for its first good packet.
const WATCH: Duration = Duration::from_millis(100);
/// How long two IKE SAs that both sides began at once may stay.
const REDUNDANT: Duration = Duration::from_secs(2);
/// How often SPIs that came to nothing are given back.
const SWEEP: Duration = Duration::from_secs(60);
/// How often a mapping of NAT is renewed (RFC 3948 §4).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Between claims from one peer and from the next, after a restart.
const STAGGER: Duration = Duration::from_millis(20);

/// Why a node can't run.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// What must be sealed can't be said to the kernel.
    #[error("connection {0}: the policies that keep its packets from going in clear can't be installed: {1}")]
    Policy(String, super::kernel::Error),
    /// A foreign agent is one by the module alone.
    #[error("a foreign agent needs the kernel module; `modprobe mml` loads it")]
    NoModule,
    /// Nothing to install SAs in.
    #[error(
        "neither the kernel module mml nor XFRM is there; `modprobe mml`, or `modprobe xfrm_user`"
    )]
    NoKernel,
}

/// What is to be done later.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Task {
    /// Begin a connection.
    Initiate(usize),
    /// Take an SA away, from `mml` (true) or XFRM.
    Remove(SaId, bool),
    /// See whether the peer seals with a CSA already.
    Watch(ChildId),
    /// Seal with a child at the latest now.
    Seal(ChildId),
    /// Claim what outlived a restart from that peer.
    Reclaim(Id),
    /// See whether both sides have begun an IKE SA at once.
    Redundant(IkeId),
    /// FA: take a relay CSA away that stands since that time, unless it was given again.
    Forget((IpAddr, u32), Time),
    /// FA: take away what was handed on of a host that isn't here.
    Disown(IpAddr),
    /// HA: take a host's CSA from the foreign agents that it left.
    Relayed(Ipv4Addr),
    /// Give back SPIs that came to nothing.
    Sweep,
    /// Keep NAT's mappings.
    KeepAlive,
    /// HA, FA: look at what may be wrong, time and again.
    Review,
    /// The same, once.
    ReviewOnce,
}

/// A node's daemon, without sockets and clock.
pub struct Engine {
    config: Config,
    endpoint: Endpoint,
    host: NodeHost,
    tasks: BTreeMap<(Time, u64), Task>,
    task_number: u64,
    datagrams: VecDeque<Datagram>,
    /// Children that outlived a restart.
    adopted: HashSet<ChildId>,
    /// HA: the foreign agents of hosts, as the file or Mobile IP has them.
    relays: BTreeMap<IpAddr, Relays>,
    /// HA: who the neighbours of a foreign agent are, as it said.
    neighbours: BTreeMap<IpAddr, Vec<IpAddr>>,
    /// MH: K_FA of foreign agents, for Mobile IP to make tokens with.
    handover_keys: Vec<(Ipv4Addr, Option<HandoverKey>)>,
    /// FA: what Mobile IP's routing is to do for handoffs.
    orders: Vec<Order>,
    /// FA: registrations on their way, of hosts that were elsewhere before.
    arrivals: handover::Arrivals,
    /// FA: what SNOOP knew elsewhere, of CSAs that aren't here yet.
    waiting: snoop_states::Waiting,
    /// Addresses that peers gave this node, by connection.
    given: BTreeMap<usize, IpAddr>,
    /// Whether what is to lead into the device may be something else than when it was last asked for.
    replan: bool,
    /// When packets last asked for a connection.
    demanded: HashMap<usize, Time>,
    /// What is wrong.
    alarms: Alarms,
    /// FA: how much of its visitors' ESP is opened.
    coverage: Coverage,
    /// Interfaces that carry too little.
    advice: Vec<Advice>,
    /// When [`Task::ReviewOnce`] is due.
    reviewed_at: Option<Time>,
    /// What happened, in numbers.
    pub counters: Counters,
}

impl Engine {
    /// A node that has said to the kernels what must be sealed, and knows what they still have.
    ///
    /// # Errors
    /// When packets could go in clear, or the role can't be filled: see [`StartError`].
    pub fn new(config: Config, kernels: Kernels, now: Time) -> Result<Self, StartError> {
        let mut protocol = config.ike.clone();
        // Without the module there is nothing to install a CSA in.
        protocol.zones &= kernels.mml.is_some();
        if kernels.mml.is_none() && config.role == Role::Fa {
            return Err(StartError::NoModule);
        }
        if kernels.mml.is_none() && kernels.xfrm.is_none() {
            return Err(StartError::NoKernel);
        }
        let mut engine = Engine {
            endpoint: Endpoint::new(protocol),
            host: NodeHost {
                random: Random::default(),
                kernels,
                book: Book::default(),
                reserved: HashMap::new(),
                now,
            },
            alarms: Alarms::new(config.alarm_after),
            config,
            coverage: Coverage::default(),
            advice: Vec::new(),
            reviewed_at: None,
            tasks: BTreeMap::new(),
            task_number: 0,
            datagrams: VecDeque::new(),
            adopted: HashSet::new(),
            relays: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            handover_keys: Vec::new(),
            orders: Vec::new(),
            arrivals: handover::Arrivals::default(),
            waiting: snoop_states::Waiting::default(),
            given: BTreeMap::new(),
            replan: true,
            demanded: HashMap::new(),
            counters: Counters::default(),
        };
        engine.guard()?;
        engine.read_back(now);
        for (home, agent) in engine.config.registered.clone() {
            engine.endpoint.register(home, agent);
        }
        let relays: Vec<_> = engine
            .config
            .connections
            .iter()
            .filter_map(|one| one.tunnel.as_ref()?.relays.clone())
            .collect();
        for one in relays {
            engine.set_relays(one, now);
        }
        for connection in 0..engine.config.connections.len() {
            let now_or_never = engine.config.connections[connection].start == Start::Now;
            // Before a mobile host is registered nobody would hear it.
            if now_or_never && !engine.needs_registration(connection) {
                engine.later(now, Task::Initiate(connection));
            }
        }
        // A CSA that outlived a restart has to be claimed, whoever began it, and wherever its peer is.
        let orphans = engine.host.book.orphans.iter();
        let peers: BTreeSet<Id> = orphans
            .map(|orphan| orphan.inbound.sa.peer.clone())
            .collect();
        let mut at = now;
        for peer in peers {
            engine.later(at, Task::Reclaim(peer));
            at += STAGGER;
        }
        engine.later(now + SWEEP, Task::Sweep);
        engine.later(now + KEEP_ALIVE, Task::KeepAlive);
        engine.review_regularly(now);
        engine.collect(now);
        Ok(engine)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is installed.
    pub fn book(&self) -> &Book {
        &self.host.book
    }

    /// The protocol's end point.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Says what time it is for certificates: seconds since 1970.
    pub fn set_wall_clock(&mut self, unix: u64, now: Time) {
        self.endpoint.set_wall_clock(unix, now);
    }

    /// The next datagram to send.
    pub fn datagram(&mut self) -> Option<Datagram> {
        self.datagrams.pop_front()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let task = self.tasks.first_key_value().map(|((at, _), _)| *at);
        self.endpoint.next_deadline().into_iter().chain(task).min()
    }

    /// A datagram came from `from` to `to`.
    pub fn handle(&mut self, octets: &[u8], from: SocketAddr, to: SocketAddr, now: Time) {
        self.host.now = now;
        self.counters.received += 1;
        self.endpoint.handle(octets, from, to, now, &mut self.host);
        self.collect(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        self.host.now = now;
        while let Some(first) = self
            .tasks
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            match first.remove() {
                Task::Initiate(connection) => self.begin(connection, now),
                Task::Remove(id, composite) => self.remove(&id, composite),
                Task::Watch(child) => self.watch(child, now),
                Task::Seal(child) => self.seal(child, now),
                Task::Reclaim(peer) => self.reclaim(&peer, now),
                Task::Forget(key, since) => self.forget(key, since),
                Task::Redundant(ike) => self.redundant(ike, now),
                Task::Disown(home) => self.disown(home, now),
                Task::Relayed(home) => self.relayed(home, now),
                Task::Sweep => {
                    self.host.release_forgotten();
                    self.waiting.sweep(now);
                    self.arrivals.sweep(now);
                    self.later(now + SWEEP, Task::Sweep);
                }
                Task::KeepAlive => {
                    self.keep_alive();
                    self.later(now + KEEP_ALIVE, Task::KeepAlive);
                }
                Task::Review => {
                    self.review(now);
                    self.review_regularly(now);
                }
                Task::ReviewOnce => self.review_once(now),
            }
        }
        self.endpoint.tick(now, &mut self.host);
        self.collect(now);
    }

    /// A kernel said something on its own account.
    pub fn kernel_event(&mut self, event: KernelEvent, now: Time) {
        self.host.now = now;
        match event {
            KernelEvent::Acquire(selector) => {
                self.counters.acquires += 1;
                let tunnels = self.config.connections.iter().enumerate();
                let wanted = tunnels
                    .filter_map(|(at, one)| Some((at, one.tunnel.as_ref()?)))
                    .filter(|(_, tunnel)| tunnel.selector.covers(&selector))
                    .min_by_key(|(_, tunnel)| tunnel.priority)
                    .map(|(at, _)| at);
                match wanted {
                    Some(connection) => self.demand(connection, now),
                    None => tracing::debug!("a packet wants an SA that no connection is for"),
                }
            }
            KernelEvent::Expire(id, hard) => {
                self.counters.expires += 1;
                self.expired(&id, hard, now);
            }
            KernelEvent::NewMapping(spi, new) => self.new_mapping(spi, new, now),
            KernelEvent::Overrun => {
                tracing::warn!("the kernel's events came too fast, and some are lost");
            }
        }
        self.collect(now);
    }

    fn later(&mut self, at: Time, task: Task) {
        self.task_number += 1;
        self.tasks.insert((at, self.task_number), task);
    }

    /// Does, in order, what the protocol says.
    fn collect(&mut self, now: Time) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Send(datagram) => {
                    self.counters.sent += 1;
                    self.datagrams.push_back(datagram);
                }
                Output::Event(event) => self.event(event, now),
            }
        }
    }

    fn name(&self, connection: usize) -> String {
        let one = self.config.connections.get(connection);
        one.map_or_else(String::new, |one| one.name.clone())
    }
}
