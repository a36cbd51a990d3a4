// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An end point: all IKE SAs of a node, and what concerns more than one of them.

/// What an IKE SA works with, out of an end point's parts.
macro_rules! cx {
    ($self:ident, $now:expr, $host:expr) => {
        Cx {
            config: &$self.config,
            host: $host,
            now: $now,
            unix: unix($self.unix_offset, $now),
            out: &mut $self.out,
            effects: &mut $self.effects,
            ids: &mut $self.ids,
            generations: &mut $self.generations,
            leases: &mut $self.leases,
        }
    };
}

mod command;
mod cookie;
mod groups;
mod zones;

pub use command::Refused;

use crate::config::Config;
use crate::event::{ChildId, Down, Event, IkeId, Output, Time};
use crate::host::Host;
use crate::pool::Leases;
use crate::sa::child::Child;
use crate::sa::exchange::{Bequest, Cx, Effect, Find, Path, Task};
use crate::sa::{answer_init, transmit, without_marker, IkeSa, InitAnswer, State, REPLACED_TIME};
use crate::wire::{Error, ExchangeType, Header, Id, Message, NotifyType, Payload, HEADER_LEN};
use crate::zones::foreign::Foreign;
use crate::zones::groups::Groups;
use crate::zones::home::Home;
use crate::zones::member::Memberships;
use cookie::Cookies;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// A composite SA whose IKE SA was lost, or not made yet.
struct Orphan {
    peer: Id,
    child: Child,
    /// When it is over though its life-time isn't, for there is another for the same packets.
    replaced: Option<Time>,
}

/// All IKE SAs of a node.
///
/// Datagrams and time go in by [`handle`](Endpoint::handle) and [`tick`](Endpoint::tick), commands by the other
/// functions; what comes of them is taken out, in order, by [`poll`](Endpoint::poll).
pub struct Endpoint {
    config: Config,
    sas: BTreeMap<IkeId, Box<IkeSa>>,
    by_spi: HashMap<u64, IkeId>,
    /// Half-open ones, by what tells their first message from another.
    half_open: HashMap<(u64, SocketAddr), IkeId>,
    half_open_keys: HashMap<IkeId, (u64, SocketAddr)>,
    deadlines: BTreeSet<(Time, IkeId)>,
    deadline_of: HashMap<IkeId, Time>,
    out: VecDeque<Output>,
    effects: VecDeque<Effect>,
    ids: u64,
    generations: HashMap<Id, u32>,
    leases: Leases,
    cookies: Cookies,
    home: Home,
    foreign: Foreign,
    /// HA: neighbours that one datagram reaches.
    groups: Groups,
    /// When the epochs of groups are looked at for their age.
    review: Option<Time>,
    /// FA: whose groups this node is in.
    memberships: Memberships,
    orphans: Vec<Orphan>,
    handovers: Vec<(Time, IkeId, u32)>,
    /// What to add to a time to have seconds since 1970.
    unix_offset: i64,
}

fn unix(offset: i64, now: Time) -> u64 {
    now.as_secs().saturating_add_signed(offset)
}

impl Endpoint {
    /// An end point without IKE SAs.
    pub fn new(config: Config) -> Self {
        Endpoint {
            config,
            sas: BTreeMap::new(),
            by_spi: HashMap::new(),
            half_open: HashMap::new(),
            half_open_keys: HashMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            out: VecDeque::new(),
            effects: VecDeque::new(),
            ids: 0,
            generations: HashMap::new(),
            leases: Leases::default(),
            cookies: Cookies::default(),
            home: Home::default(),
            foreign: Foreign::default(),
            groups: Groups::default(),
            review: None,
            memberships: Memberships::default(),
            orphans: Vec::new(),
            handovers: Vec::new(),
            unix_offset: 0,
        }
    }

    /// Says what time it is for certificates: seconds since 1970, at `now`.
    pub fn set_wall_clock(&mut self, unix: u64, now: Time) {
        let (unix, now) = (i64::try_from(unix), i64::try_from(now.as_secs()));
        self.unix_offset = unix.unwrap_or(i64::MAX) - now.unwrap_or(0);
    }

    /// The configuration. Connections stay where they are: IKE SAs know theirs by its place.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes another configuration. Whoever calls keeps connections in their places; what is agreed on already stays as it
    /// is, and what comes is measured by the new one. Who is no foreign agent any more is in no group either.
    pub fn reconfigure(&mut self, config: Config, now: Time, host: &mut dyn Host) {
        let both = self.config.connections.iter().zip(&config.connections);
        let others = both
            .map(|(old, new)| (&old.pool, old.request_address) != (&new.pool, new.request_address));
        for (connection, _) in others.enumerate().filter(|(_, other)| *other) {
            self.leases.forget(connection);
        }
        self.config = config;
        self.review_groups(now, host);
        self.settle(now, host);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`tick`](Endpoint::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Time> {
        let sa = self.deadlines.first().map(|(at, _)| *at);
        let orphans = self.orphans.iter().map(Orphan::ends).min();
        let handovers = self.handovers.iter().map(|(at, ..)| *at).min();
        [
            sa,
            orphans,
            handovers,
            self.home.next_deadline(),
            self.foreign.next_deadline(),
            self.groups.next_deadline(),
            self.memberships.next_deadline(),
            self.review,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Half-open IKE SAs there are.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// IKE SAs there are, half-open and dying ones too.
    pub fn len(&self) -> usize {
        self.sas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sas.is_empty()
    }

    /// The IKE SAs that are up.
    pub fn established(&self) -> impl Iterator<Item = IkeId> + '_ {
        let up = self.sas.values().filter(|sa| sa.is_up());
        up.map(|sa| sa.id)
    }

    /// Who the peer of an IKE SA is.
    pub fn peer(&self, ike: IkeId) -> Option<&Id> {
        self.sas.get(&ike)?.peer.as_ref()
    }

    /// The children of an IKE SA, with their inbound and outbound SPIs.
    pub fn children(&self, ike: IkeId) -> Vec<(ChildId, u32, u32)> {
        let children = self.sas.get(&ike).map_or(&[][..], |sa| &sa.children);
        let list = children.iter().map(|c| (c.id, c.spi_in, c.spi_out));
        list.collect()
    }

    /// Works on one IKE SA, then on what came of it.
    fn with<T>(
        &mut self,
        ike: IkeId,
        now: Time,
        host: &mut dyn Host,
        work: impl FnOnce(&mut IkeSa, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let sa = self.sas.get_mut(&ike)?;
        let done = work(sa, &mut cx!(self, now, &mut *host));
        self.schedule(ike, now);
        self.settle(now, host);
        Some(done)
    }

    /// Notes when an IKE SA has something to do next, and whether it is half-open still.
    fn schedule(&mut self, ike: IkeId, now: Time) {
        if let Some(at) = self.deadline_of.remove(&ike) {
            self.deadlines.remove(&(at, ike));
        }
        let Some(sa) = self.sas.get(&ike) else { return };
        if !matches!(sa.state, State::HalfOpen(_)) {
            self.forget_half_open(ike);
        }
        let Some(sa) = self.sas.get(&ike) else { return };
        if let Some(at) = sa.next_deadline(&self.config) {
            // What is overdue already is done at the next tick, not before now.
            let at = at.max(now);
            self.deadlines.insert((at, ike));
            self.deadline_of.insert(ike, at);
        }
    }

    fn forget_half_open(&mut self, ike: IkeId) {
        if let Some(key) = self.half_open_keys.remove(&ike) {
            if self.half_open.get(&key) == Some(&ike) {
                self.half_open.remove(&key);
            }
        }
    }

    fn remove(&mut self, ike: IkeId) {
        if let Some(at) = self.deadline_of.remove(&ike) {
            self.deadlines.remove(&(at, ike));
        }
        self.forget_half_open(ike);
        if let Some(sa) = self.sas.remove(&ike) {
            self.by_spi.remove(&sa.local_spi());
        }
    }

    fn insert(&mut self, sa: Box<IkeSa>, now: Time) {
        let id = sa.id;
        self.by_spi.insert(sa.local_spi(), id);
        self.sas.insert(id, sa);
        self.schedule(id, now);
    }

    fn new_id(&mut self) -> IkeId {
        self.ids += 1;
        IkeId(self.ids)
    }

    /// Takes in a datagram that came from `from` to `to`. What isn't IKE is not looked at.
    pub fn handle(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        to: SocketAddr,
        now: Time,
        host: &mut dyn Host,
    ) {
        if self.config.foreign.multicast == Some(to.port()) {
            self.heard(datagram, now);
            return;
        }
        let Some(octets) = without_marker(datagram, to) else {
            return;
        };
        let path = Path {
            local: to,
            remote: from,
        };
        let message = match Message::decode(octets) {
            Ok(message) => message,
            Err(error) => return self.refuse_unread(octets, error, path),
        };
        let header = message.header;
        let first = header.exchange == ExchangeType::IKE_SA_INIT
            && header.from_initiator
            && !header.response;
        if first {
            if (header.spi_r, header.message_id) == (0, 0) {
                self.handle_first(octets, &message, path, now, host);
            }
            return;
        }
        let spi = if header.from_initiator {
            header.spi_r
        } else {
            header.spi_i
        };
        let Some(ike) = self.by_spi.get(&spi).copied() else {
            return;
        };
        self.with(ike, now, host, |sa, cx| {
            // Before the first answer the responder's SPI isn't known.
            let theirs = if sa.initiator {
                (sa.spi_r, header.spi_r)
            } else {
                (sa.spi_i, header.spi_i)
            };
            if theirs.0 == theirs.1 || header.exchange == ExchangeType::IKE_SA_INIT {
                sa.handle(octets, message, path, cx);
            }
        });
    }

    /// What is answered of messages that can't be read: another version (§2.5), and an unknown critical payload (§2.5).
    fn refuse_unread(&mut self, octets: &[u8], error: Error, path: Path) {
        let Some(head) = octets.first_chunk::<HEADER_LEN>() else {
            return;
        };
        let number = |at: usize| {
            let mut octets = [0; 8];
            octets.copy_from_slice(&head[at..at + 8]);
            u64::from_be_bytes(octets)
        };
        let (exchange, flags) = (ExchangeType(head[18]), head[19]);
        let (from_initiator, response) = (flags & 0x08 != 0, flags & 0x20 != 0);
        if response || !from_initiator || exchange != ExchangeType::IKE_SA_INIT {
            return;
        }
        let notify = match error {
            Error::Version(version) if version > 2 => {
                Payload::notify(NotifyType::INVALID_MAJOR_VERSION, [])
            }
            Error::Critical(kind) => {
                Payload::notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [kind.0])
            }
            _ => return,
        };
        let header = Header {
            spi_i: number(0),
            spi_r: number(8),
            exchange,
            from_initiator: false,
            response: true,
            message_id: 0,
        };
        let payloads = vec![notify];
        let answer = Message { header, payloads }.encode();
        transmit(path, vec![answer], &mut self.out);
    }

    fn handle_first(
        &mut self,
        octets: &[u8],
        message: &Message,
        path: Path,
        now: Time,
        host: &mut dyn Host,
    ) {
        let key = (message.header.spi_i, path.remote);
        if let Some(sa) = self.half_open.get(&key).and_then(|id| self.sas.get(id)) {
            if let Some(setup) = sa.setup.as_ref().filter(|s| s.request == octets) {
                let again = vec![setup.response.clone()];
                transmit(path, again, &mut self.out);
            }
            return;
        }
        let payloads = message.payloads.as_slice();
        let Some(ni) = payloads.nonce() else { return };
        let spi_i = message.header.spi_i;
        if self.half_open.len() >= self.config.cookie_threshold {
            let cookie = payloads.first().and_then(|payload| match payload {
                Payload::Notify(n) if n.kind == NotifyType::COOKIE => Some(n.data.as_slice()),
                _ => None,
            });
            let good = cookie
                .is_some_and(|cookie| self.cookies.check(cookie, ni, path.remote, spi_i, now));
            if !good {
                let cookie = self.cookies.make(ni, path.remote, spi_i, now, host);
                let header = Header {
                    from_initiator: false,
                    response: true,
                    ..message.header
                };
                let payloads = vec![Payload::notify(NotifyType::COOKIE, cookie)];
                let answer = Message { header, payloads }.encode();
                return transmit(path, vec![answer], &mut self.out);
            }
        }
        if self.half_open.len() >= self.config.max_half_open {
            return;
        }
        let id = self.new_id();
        let deadline = now + self.config.half_open_time;
        let mut cx = cx!(self, now, host);
        match answer_init(octets, message, path, id, deadline, &mut cx) {
            InitAnswer::Ignore => {}
            InitAnswer::Reply(answer) => transmit(path, vec![answer], &mut self.out),
            InitAnswer::New(answer, sa) => {
                self.half_open.insert(key, id);
                self.half_open_keys.insert(id, key);
                self.insert(sa, now);
                transmit(path, vec![answer], &mut self.out);
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time, host: &mut dyn Host) {
        while let Some((_, ike)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let lives = self.sas.get_mut(&ike).is_some_and(|sa| {
                let mut cx = cx!(self, now, &mut *host);
                sa.tick(&mut cx)
            });
            if lives {
                self.schedule(ike, now);
                // Whatever it waits for, it is not now again.
                if self.deadlines.contains(&(now, ike)) {
                    self.postpone(ike, now);
                }
            } else {
                self.remove(ike);
            }
            self.settle(now, host);
        }
        self.tick_zones(now, host);
        self.settle(now, host);
    }

    fn postpone(&mut self, ike: IkeId, now: Time) {
        self.deadlines.remove(&(now, ike));
        let later = now + Duration::from_millis(1);
        self.deadlines.insert((later, ike));
        self.deadline_of.insert(ike, later);
    }

    /// Does what concerns more than one IKE SA, until nothing is left of it.
    fn settle(&mut self, now: Time, host: &mut dyn Host) {
        loop {
            while let Some(effect) = self.effects.pop_front() {
                self.apply(effect, now, host);
            }
            self.act(now, host);
            if self.effects.is_empty() {
                return;
            }
        }
    }

    fn apply(&mut self, effect: Effect, now: Time, host: &mut dyn Host) {
        match effect {
            Effect::Spawn(sa) => self.insert(sa, now),
            Effect::Inherit(old, new, bequest) => self.inherit(old, new, *bequest, now, host),
            Effect::Redundant(ike, true) => {
                self.work(ike, now, host, |sa, cx| sa.want(Task::DeleteIke, cx));
            }
            Effect::Redundant(ike, false) => {
                self.work(ike, now, host, |sa, cx| {
                    sa.state = State::Replaced(cx.now + REPLACED_TIME);
                });
            }
            Effect::Up(ike) => self.agent_up(ike, now, host),
            Effect::Down(ike, peer) => self.left(ike, peer.as_ref(), now, host),
            Effect::InitialContact(ike, peer) => {
                let others = self
                    .sas
                    .values()
                    .filter(|sa| sa.id != ike && !sa.is_dead() && sa.peer.as_ref() == Some(&peer));
                let others: Vec<IkeId> = others.map(|sa| sa.id).collect();
                for other in others {
                    self.work(other, now, host, |sa, cx| sa.fall(Down::Replaced, cx));
                }
                let orphans = std::mem::take(&mut self.orphans);
                let (gone, kept) = orphans.into_iter().partition(|o| o.peer == peer);
                self.orphans = kept;
                self.expire(gone, now);
            }
            Effect::Fresh(ike, child) => self.replaces_orphans(ike, child, now),
            Effect::ChildRaised(ike, child, hold, replaces) => {
                self.csa_raised(ike, child, hold, replaces, now);
            }
            Effect::CsaGone(child) => self.home.gone(child.id, now + self.config.linger),
            Effect::Orphans(peer, children) => {
                for child in children {
                    let replaced = self
                        .another(&peer, &child)
                        .then(|| now + self.config.linger * 3 / 2);
                    let peer = peer.clone();
                    self.orphans.push(Orphan {
                        peer,
                        child,
                        replaced,
                    });
                }
            }
            Effect::Serve(ike, id, exchange, payloads) => {
                self.serve(ike, id, exchange, &payloads, now, host);
            }
            Effect::Requeue(ike, task) => {
                let purpose = task.purpose.clone();
                let asked = self.work(ike, now, host, |sa, cx| {
                    let lives = !sa.is_dead();
                    if lives {
                        sa.want(Task::Csa(task), cx);
                    }
                    lives
                });
                if asked != Some(true) {
                    self.answered(ike, purpose, None, now);
                }
            }
            Effect::Answered(ike, purpose, payloads) => {
                self.answered(ike, purpose, payloads.as_deref(), now);
            }
        }
    }

    /// Like [`with`](Self::with), but what comes of it is left to the caller's loop.
    fn work<T>(
        &mut self,
        ike: IkeId,
        now: Time,
        host: &mut dyn Host,
        work: impl FnOnce(&mut IkeSa, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let sa = self.sas.get_mut(&ike)?;
        let done = work(sa, &mut cx!(self, now, host));
        self.schedule(ike, now);
        Some(done)
    }

    fn inherit(
        &mut self,
        old: IkeId,
        new: IkeId,
        bequest: Bequest,
        now: Time,
        host: &mut dyn Host,
    ) {
        for child in &bequest.children {
            self.home.inherit(child.id, new);
        }
        if !self.sas.contains_key(&new) {
            return;
        }
        self.groups.inherit(old, new);
        self.memberships.inherit(old, new);
        self.out
            .push_back(Output::Event(Event::IkeRekeyed { old, new }));
        self.work(new, now, host, |sa, cx| {
            sa.announced = true;
            sa.inner = bequest.inner;
            sa.children.extend(bequest.children);
            for task in bequest.tasks {
                sa.want(task, cx);
            }
        });
    }

    fn expire(&mut self, orphans: Vec<Orphan>, now: Time) {
        for Orphan { child, .. } in orphans {
            self.home.gone(child.id, now);
            self.out.push_back(Output::Event(Event::CsaExpired {
                spi_in: child.spi_in,
                spi_out: child.spi_out,
            }));
        }
    }
}
