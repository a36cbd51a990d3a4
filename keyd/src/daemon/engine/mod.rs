// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon decides: the protocol's end point, the kernels, and the book of what is installed.
//!
//! There are no sockets and no clock here: datagrams, kernel events, commands and time go in, datagrams come out of
//! [`Engine::datagram`]. [`super::run`] is around it, and tests are.

mod book;
mod children;
mod command;
mod host;
mod policies;
mod relays;
mod restart;

pub use book::{Book, Child, Ike, Relay};
pub use command::Refusal;
pub use host::{Kernels, Random};

use super::config::{Config, Role, Start};
use super::kernel::{KernelEvent, SaId};
use super::metrics::Counters;
use host::NodeHost;
use mml_ike::event::{ChildId, Datagram, Down, Event, IkeId, Output, Time};
use mml_ike::Endpoint;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Before a connection is tried again: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The shortest time between two tries that packets ask for.
const DEMAND: Duration = Duration::from_secs(2);
/// How often a standby CSA is looked at for its first good packet.
const WATCH: Duration = Duration::from_millis(100);

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
    /// When packets last asked for a connection.
    demanded: HashMap<usize, Time>,
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
            },
            config,
            tasks: BTreeMap::new(),
            task_number: 0,
            datagrams: VecDeque::new(),
            adopted: HashSet::new(),
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
            let (current, standbys) = (one.current, one.standbys);
            engine
                .endpoint
                .set_relays(one.home, current, standbys, now, &mut engine.host);
        }
        for connection in 0..engine.config.connections.len() {
            let outlived = engine.host.book.orphans.iter();
            let outlived = outlived
                .filter(|o| o.connection == Some(connection))
                .count()
                != 0;
            let one = &engine.config.connections[connection];
            // A CSA that outlived a restart has to be claimed, whoever began it.
            if one.start == Start::Now || outlived && one.remote.is_some() {
                engine.later(now, Task::Initiate(connection));
            }
        }
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
        self.counters.received += 1;
        self.endpoint.handle(octets, from, to, now, &mut self.host);
        self.collect(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        while let Some(first) = self
            .tasks
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            match first.remove() {
                Task::Initiate(connection) => self.begin(connection, now),
                Task::Remove(id, composite) => self.remove(&id, composite),
                Task::Watch(child) => self.watch(child, now),
            }
        }
        self.endpoint.tick(now, &mut self.host);
        self.collect(now);
    }

    /// A kernel said something on its own account.
    pub fn kernel_event(&mut self, event: KernelEvent, now: Time) {
        match event {
            KernelEvent::Acquire(selector) => {
                self.counters.acquires += 1;
                let mut tunnels = self.config.connections.iter();
                let wanted = tunnels.position(|one| {
                    let tunnel = one.tunnel.as_ref();
                    tunnel.is_some_and(|tunnel| tunnel.selector == selector)
                });
                match wanted {
                    Some(connection) => self.demand(connection, now),
                    None => tracing::debug!("a packet wants an SA that no connection is for"),
                }
            }
            KernelEvent::Expire(id, hard) => {
                self.counters.expires += 1;
                self.expired(&id, hard, now);
            }
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

    /// A packet wants a connection's child.
    fn demand(&mut self, connection: usize, now: Time) {
        let last = self.demanded.get(&connection);
        let soon = last.is_some_and(|last| now < *last + DEMAND);
        let one = &self.config.connections[connection];
        if soon || one.start == Start::Peer || one.remote.is_none() {
            return;
        }
        self.demanded.insert(connection, now);
        match self.host.book.ike_of(connection) {
            Some(ike) if self.host.book.children_of(connection).next().is_none() => {
                tracing::info!(connection = one.name, "a packet wants a child");
                if let Err(error) = self.endpoint.create_child(ike, now, &mut self.host) {
                    tracing::warn!(connection = one.name, "no child is begun: {error}");
                }
            }
            Some(_) => tracing::debug!(
                connection = one.name,
                "a packet wants a child there is; does its route lead to mml0?"
            ),
            None => {
                tracing::info!(connection = one.name, "a packet wants it");
                self.begin(connection, now);
            }
        }
    }

    /// Begins a connection's IKE SA, unless there is one, or one is begun.
    fn begin(&mut self, connection: usize, now: Time) {
        let one = &self.config.connections[connection];
        let book = &self.host.book;
        let begun = book.starting.values().any(|begun| *begun == connection);
        let Some(remote) = one
            .remote
            .filter(|_| !begun && book.ike_of(connection).is_none())
        else {
            return;
        };
        let from = SocketAddr::new(one.local, self.config.port);
        let to = SocketAddr::new(remote, self.config.port);
        match self
            .endpoint
            .initiate(connection, from, to, now, &mut self.host)
        {
            Ok(ike) => {
                tracing::info!(connection = one.name, %to, "begun");
                self.host.book.starting.insert(ike, connection);
                self.counters.initiated += 1;
            }
            Err(error) => tracing::error!(connection = one.name, "can't be begun: {error}"),
        }
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

    fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::IkeUp {
                ike,
                connection,
                peer,
                zones,
                local,
                remote,
            } => {
                let name = self.name(connection);
                tracing::info!(connection = name, %peer, %remote, zones, "IKE SA {} is up", ike.0);
                self.counters.ike_up += 1;
                let book = &mut self.host.book;
                book.starting.remove(&ike);
                book.patience.remove(&connection);
                let since = now;
                book.ikes.insert(
                    ike,
                    Ike {
                        connection,
                        peer,
                        local,
                        remote,
                        zones,
                        since,
                    },
                );
                self.claim(ike, now);
            }
            Event::IkeRekeyed { old, new } => {
                let book = &mut self.host.book;
                if let Some(ike) = book.ikes.remove(&old) {
                    tracing::info!(
                        connection = self.config.connections[ike.connection].name,
                        "IKE SA {} is rekeyed, {} now",
                        old.0,
                        new.0
                    );
                    book.ikes.insert(new, Ike { since: now, ..ike });
                }
                for child in book.children.values_mut().filter(|child| child.ike == old) {
                    child.ike = new;
                }
            }
            Event::IkeDown { ike, why } => self.ike_down(ike, why, now),
            Event::AuthenticationFailed { remote, peer, why } => {
                self.counters.authentication_failed += 1;
                tracing::warn!(%remote, %peer, "who it is was not proved: {why}");
            }
            Event::ChildUp(up) => self.child_up(*up, now),
            Event::ChildSeal { child } => self.seal(child),
            Event::ChildDown { child, linger, .. } => self.child_down(child, linger, now),
            Event::CsaExpired { spi_in, spi_out } => {
                tracing::info!("CSA {spi_in:#010x}/{spi_out:#010x} is over, and nobody claimed it");
                if let Some(child) = self.host.book.child_by_spi(spi_in) {
                    self.child_down(child, Duration::ZERO, now);
                }
            }
            Event::ChildFailed { ike, spi_in, why } => {
                self.counters.child_failed += 1;
                let name = self
                    .host
                    .book
                    .ikes
                    .get(&ike)
                    .map(|ike| self.name(ike.connection));
                tracing::warn!(connection = name, "no child: {}", children::failure(&why));
                if let Some(spi) = spi_in {
                    self.host.release(spi, false);
                }
            }
            Event::CsaClaimed {
                ike,
                child,
                spi_in,
                spi_out,
            } => {
                self.claimed(ike, child, spi_in, spi_out, now);
            }
            Event::ClaimAnswered { ike, held } => self.claim_answered(ike, &held, now),
            Event::Moved {
                ike,
                local,
                remote,
                children,
                ..
            } => {
                self.moved(ike, local, remote, children, now);
            }
            Event::InnerAddresses { addresses, .. } => {
                tracing::info!(
                    ?addresses,
                    "the peer gives inner addresses; they are not put on an interface yet"
                );
            }
            Event::RelayUp(csa) => self.relay_up(&csa, now),
            Event::RelayDown(revocation) => self.relay_down(&revocation),
            Event::Distributed { child, fa, status } => self.distributed(child, fa, status),
            Event::WithoutRelay { child, fa } => {
                self.counters.without_relay += 1;
                tracing::warn!(%fa, child = child.0, "the foreign agent didn't answer in time; the rekeying went on without it");
            }
            Event::Neighbours { list, .. } => {
                tracing::info!(
                    count = list.len(),
                    "a foreign agent says who its neighbours are"
                );
            }
            Event::CsaRequested { home, given } => tracing::info!(%home, given, "asked for a CSA"),
            Event::HandoverAsked {
                ike, message_id, ..
            } => {
                // SNOOP's state stays where it is: nothing takes it out of the module yet.
                let nothing = mml_ike::secret::Secret::default();
                self.endpoint
                    .answer_handover(ike, message_id, nothing, now, &mut self.host);
            }
            Event::HandedOver { home, .. } => tracing::info!(%home, "handed over"),
        }
    }

    fn ike_down(&mut self, ike: IkeId, why: Down, now: Time) {
        let begun = self.host.book.starting.remove(&ike);
        let up = self.host.book.ikes.remove(&ike).map(|ike| ike.connection);
        let Some(connection) = begun.or(up) else {
            return;
        };
        let one = &self.config.connections[connection];
        let (name, start) = (one.name.clone(), one.start);
        let text = down(&why);
        match why {
            Down::Deleted | Down::Rekeyed | Down::Replaced => {
                tracing::info!(connection = name, "IKE SA {} is down: {text}", ike.0);
            }
            _ => tracing::warn!(connection = name, "IKE SA {} is down: {text}", ike.0),
        }
        self.counters.ike_down += 1;
        let again = !matches!(why, Down::Deleted | Down::Rekeyed | Down::Replaced);
        let another = self.host.book.ike_of(connection).is_some();
        if again && !another && start == Start::Now {
            let patience = self
                .host
                .book
                .patience
                .entry(connection)
                .or_insert(PATIENCE.0);
            let wait = *patience;
            *patience = (wait * 2).min(PATIENCE.1);
            self.later(now + wait, Task::Initiate(connection));
            tracing::info!(connection = name, "tried again in {} s", wait.as_secs());
        }
    }

    fn moved(
        &mut self,
        id: IkeId,
        local: SocketAddr,
        remote: SocketAddr,
        children: Vec<ChildId>,
        now: Time,
    ) {
        if let Some(ike) = self.host.book.ikes.get_mut(&id) {
            (ike.local, ike.remote) = (local, remote);
            let name = &self.config.connections[ike.connection].name;
            tracing::info!(connection = name, %local, %remote, "moved");
        }
        // Neither kernel moves an SA to another address with its counters yet, and a counter must not start again under
        // the same key: new keys, then.
        for child in children {
            if let Err(error) = self.endpoint.rekey_child(id, child, now, &mut self.host) {
                tracing::warn!("a child that moved can't be rekeyed: {error}");
            }
        }
    }

    fn name(&self, connection: usize) -> String {
        let one = self.config.connections.get(connection);
        one.map_or_else(String::new, |one| one.name.clone())
    }
}

/// Why an IKE SA is no more, in words.
fn down(why: &Down) -> String {
    match why {
        Down::Deleted => "this side closed it".into(),
        Down::ByPeer => "the peer closed it".into(),
        Down::Rekeyed => "it was rekeyed".into(),
        Down::Replaced => "the peer says that it has another one".into(),
        Down::Dead => "the peer doesn't answer; composite SAs stay".into(),
        Down::Refused(notify) => format!("the peer refused it: {notify}"),
        Down::Authentication(why) => format!("authentication failed: {why}"),
        Down::NoZones => "the peer knows no zones, and `zones = \"required\"`".into(),
        Down::Protocol(what) => (*what).into(),
    }
}
