// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One IKE SA: its exchanges as initiator and responder (RFC 7296 §1, §2).

mod auth;
mod certificates;
pub(crate) mod child;
mod child_answer;
mod child_request;
mod clock;
pub(crate) mod exchange;
mod fragment;
pub(crate) mod informational;
mod init;
mod mobike;
mod receive;
mod rekey;
mod window;

pub(crate) use init::{answer_init, InitAnswer};

use crate::crypto::{CryptoError, IkeKeys, Method, Opener, Sealer};
use crate::event::{ChildFailure, Datagram, Down, Event, IkeId, Output, Time};
use crate::negotiate::IkeSuite;
use crate::pool::Inner;
use crate::secret::Secret;
use crate::wire::{encode_payloads, ExchangeType, HashAlgorithm, Header, Id, Payload, PayloadType};
use child::Child;
use exchange::{CsaTask, Cx, Effect, FollowUp, Path, Pending, Task};
use fragment::{intermediate_octets, Reassembly};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use window::{Inbox, Outbox};

/// The port of IKE (RFC 7296 §2); on any other the non-ESP marker stands in front (RFC 3948 §2.2).
pub const IKE_PORT: u16 = 500;
/// The port of IKE and ESP behind NAT.
pub const NATT_PORT: u16 = 4500;

/// How long a deleted IKE SA answers the same requests again.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// How long a rekeyed one waits for its Delete.
pub(crate) const REPLACED_TIME: Duration = Duration::from_secs(30);
/// How long to wait after TEMPORARY_FAILURE.
const RETRY: Duration = Duration::from_millis(1000);

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Initiator: IKE_SA_INIT, IKE_INTERMEDIATE or IKE_AUTH is on its way.
    Starting,
    /// Responder: IKE_SA_INIT is answered.
    HalfOpen(Time),
    /// Both have proved who they are.
    Up,
    /// A successor has its children; it waits for the Delete.
    Replaced(Time),
    /// This side's Delete is on its way.
    Deleting,
    /// Over. It still answers what it answered, until then.
    Dead(Time),
}

/// Who is behind a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Nat {
    pub local: bool,
    pub remote: bool,
}

impl Nat {
    pub fn any(self) -> bool {
        self.local || self.remote
    }
}

/// What the peer said it can do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traits {
    pub fragmentation: bool,
    pub zones: bool,
    pub mobike: bool,
    pub childless: bool,
    pub intermediate: bool,
    pub hashes: Vec<HashAlgorithm>,
}

/// The keys in use, and what seals and opens by them.
pub(crate) struct Protection {
    pub keys: IkeKeys,
    sealer: Sealer,
    opener: Opener,
}

/// What is needed until both have proved who they are.
#[derive(Default)]
pub(crate) struct Setup {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    /// IntAuth_i, IntAuth_r so far.
    pub int_auth: (Secret, Secret),
    /// Additional key exchanges still to come.
    pub additional: VecDeque<Method>,
}

/// A successor of this IKE SA.
struct Successor {
    id: IkeId,
    /// The lower of its two nonces.
    lowest: Vec<u8>,
    initiated: bool,
}

pub(crate) struct IkeSa {
    pub id: IkeId,
    /// Whether this side is the original initiator.
    pub initiator: bool,
    pub spi_i: u64,
    pub spi_r: u64,
    pub path: Path,
    pub nat: Nat,
    pub connection: Option<usize>,
    pub state: State,
    pub suite: Option<IkeSuite>,
    pub protection: Option<Protection>,
    pub ni: Vec<u8>,
    pub nr: Vec<u8>,
    pub setup: Option<Box<Setup>>,
    pub traits: Traits,
    pub peer: Option<Id>,
    /// The peer's own certificate, checked.
    pub certificate: Option<Vec<u8>>,
    /// Who the peer has to be, more exactly than the connection says.
    pub expected: Option<Id>,
    pub children: Vec<Child>,
    pub inner: Option<Inner>,
    pub outbox: Outbox,
    pub inbox: Inbox,
    reassembly: Reassembly,
    tasks: VecDeque<Task>,
    retries: Vec<(Time, Task)>,
    successors: Vec<Successor>,
    inherited: bool,
    /// Who has the children now.
    heir: Option<IkeId>,
    /// Children the peer closed, by its SPIs, while the answer that makes one is awaited.
    closed_early: Vec<u32>,
    /// Whether whoever runs this knows of it.
    pub announced: bool,
    follow_up: Option<Box<FollowUp>>,
    /// By which the request being answered came.
    request_path: Option<Path>,
    /// Of the IKE_INTERMEDIATE being answered.
    next_shared: Option<Secret>,
    last_heard: Time,
    rekey_at: Option<Time>,
}

impl IkeSa {
    pub fn new(id: IkeId, initiator: bool, path: Path, spis: (u64, u64), now: Time) -> Self {
        IkeSa {
            id,
            initiator,
            spi_i: spis.0,
            spi_r: spis.1,
            path,
            nat: Nat::default(),
            connection: None,
            state: State::Starting,
            suite: None,
            protection: None,
            ni: Vec::new(),
            nr: Vec::new(),
            setup: None,
            traits: Traits::default(),
            peer: None,
            certificate: None,
            children: Vec::new(),
            expected: None,
            inner: None,
            outbox: Outbox::new(0),
            inbox: Inbox::new(0),
            reassembly: Reassembly::default(),
            tasks: VecDeque::new(),
            retries: Vec::new(),
            successors: Vec::new(),
            inherited: false,
            heir: None,
            closed_early: Vec::new(),
            announced: initiator,
            follow_up: None,
            request_path: None,
            next_shared: None,
            last_heard: now,
            rekey_at: None,
        }
    }

    /// The SPI this side chose.
    pub fn local_spi(&self) -> u64 {
        if self.initiator {
            self.spi_i
        } else {
            self.spi_r
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead(_))
    }

    pub fn knows_zones(&self, cx: &Cx<'_>) -> bool {
        cx.config.zones && self.traits.zones
    }

    fn protect(&mut self, keys: IkeKeys) -> Result<(), CryptoError> {
        let cipher = self.suite.as_ref().ok_or(CryptoError)?.cipher;
        let (out, into) = if self.initiator {
            (&keys.ei, &keys.er)
        } else {
            (&keys.er, &keys.ei)
        };
        self.protection = Some(Protection {
            sealer: Sealer::new(cipher, out)?,
            opener: Opener::new(cipher, into)?,
            keys,
        });
        Ok(())
    }

    fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        Header {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            exchange,
            from_initiator: self.initiator,
            response,
            message_id,
        }
    }

    fn seal(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &Cx<'_>,
    ) -> Result<Vec<Vec<u8>>, CryptoError> {
        let (first, octets) = encode_payloads(payloads);
        let octets = Secret::new(octets);
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.chain_intermediate(header, first, &octets);
        }
        let most = self.traits.fragmentation.then_some(cx.config.fragment_size);
        let protection = self.protection.as_mut().ok_or(CryptoError)?;
        fragment::seal(&mut protection.sealer, header, first, octets.expose(), most)
    }

    /// IntAuth_n = prf(SK_p, IntAuth_(n−1) | message), with the keys the message is sealed by (RFC 9242 §3.3.2).
    fn chain_intermediate(&mut self, header: &Header, first: PayloadType, payloads: &Secret) {
        let (Some(suite), Some(protection), Some(setup)) =
            (&self.suite, &self.protection, &mut self.setup)
        else {
            return;
        };
        let octets = intermediate_octets(header, first, payloads.expose());
        // A request is the initiator's, always: IKE_INTERMEDIATE comes before IKE_AUTH.
        let (chain, key) = if header.response {
            (&mut setup.int_auth.1, &protection.keys.pr)
        } else {
            (&mut setup.int_auth.0, &protection.keys.pi)
        };
        *chain = suite.prf.prf(key.expose(), &[chain.expose(), &octets]);
    }

    pub(crate) fn transmit(&self, datagrams: Vec<Vec<u8>>, cx: &mut Cx<'_>) {
        transmit(self.path, datagrams, cx.out);
    }

    /// Seals a request and sends it.
    fn ask(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload],
        pending: Pending,
        cx: &mut Cx<'_>,
    ) {
        let id = self.outbox.next_id;
        let header = self.header(exchange, false, id);
        match self.seal(&header, payloads, cx) {
            Ok(datagrams) => {
                self.outbox.next_id += 1;
                let retransmission = &cx.config.retransmission;
                self.outbox
                    .sent(id, datagrams.clone(), pending, cx.now, retransmission);
                self.transmit(datagrams, cx);
            }
            Err(CryptoError) => self.fall(Down::Protocol("a message could not be sealed"), cx),
        }
    }

    /// Answers a request.
    fn reply(&mut self, request: &Header, payloads: &[Payload], hold: bool, cx: &mut Cx<'_>) {
        let header = self.header(request.exchange, true, request.message_id);
        match self.seal(&header, payloads, cx) {
            Ok(datagrams) => {
                let send = self.inbox.answer(request.message_id, datagrams, hold);
                self.transmit(send, cx);
            }
            Err(CryptoError) => self.fall(Down::Protocol("a message could not be sealed"), cx),
        }
    }

    /// Answers a request that was left to the end point.
    pub fn answer(
        &mut self,
        exchange: ExchangeType,
        id: u32,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        if self.is_dead() {
            return;
        }
        self.reply(&self.header(exchange, false, id), payloads, false, cx);
    }

    /// Sends the answer that was held back.
    pub fn release(&mut self, id: u32, cx: &mut Cx<'_>) {
        let datagrams = self.inbox.release(id);
        self.transmit(datagrams, cx);
    }

    pub(crate) fn moved(&mut self, path: Path, cx: &mut Cx<'_>) {
        self.path = path;
        cx.event(Event::Moved {
            ike: self.id,
            local: path.local,
            remote: path.remote,
            udp: self.nat.any(),
            children: self.children.iter().map(|child| child.id).collect(),
        });
    }

    /// Puts something to be asked behind what waits.
    pub fn want(&mut self, task: Task, cx: &mut Cx<'_>) {
        self.tasks.push_back(task);
        self.pump(cx);
    }

    /// Asks what may be asked now.
    fn pump(&mut self, cx: &mut Cx<'_>) {
        while matches!(self.state, State::Up | State::Replaced(_)) && self.outbox.has_room() {
            // What has to be asked alone isn't overtaken for ever.
            let candidates = self
                .tasks
                .iter()
                .position(|task| task.is_alone() && !self.may_start(task));
            let most = candidates.unwrap_or(self.tasks.len());
            let mut tasks = self.tasks.iter().take(most);
            let Some(at) = tasks.position(|task| self.may_start(task)) else {
                return;
            };
            let Some(task) = self.tasks.remove(at) else {
                return;
            };
            self.start(task, cx);
        }
    }

    /// While the IKE SA is rekeyed, children are left alone; and it is rekeyed or deleted with nothing else on its way
    /// (§2.25).
    fn may_start(&self, task: &Task) -> bool {
        let rekeying = self.outbox.pending().any(|p| {
            matches!(p, Pending::Ike(_))
                || matches!(p, Pending::FollowUp(f, _) if matches!(f.draft, exchange::Draft::Ike(_)))
        });
        match task {
            Task::RekeyIke(_) | Task::DeleteIke => self.outbox.is_empty(),
            task if task.is_about_children() => !rekeying && self.state == State::Up,
            _ => !rekeying,
        }
    }

    fn start(&mut self, task: Task, cx: &mut Cx<'_>) {
        match task {
            Task::NewChild => self.start_child(None, None, cx),
            Task::RekeyChild(child, method) => self.start_child(Some(child), method, cx),
            Task::DeleteChildren(children) => self.start_delete(children, cx),
            Task::RekeyIke(method) => self.start_rekey(method, cx),
            Task::DeleteIke => {
                self.state = State::Deleting;
                let delete = Payload::Delete(crate::wire::Delete::Ike);
                self.ask(
                    ExchangeType::INFORMATIONAL,
                    &[delete],
                    Pending::DeleteIke,
                    cx,
                );
            }
            Task::Liveness => self.ask(ExchangeType::INFORMATIONAL, &[], Pending::Liveness, cx),
            Task::Move => self.start_move(cx),
            Task::Claim(list) => {
                let identity = |csa: &crate::event::AdoptedCsa| Payload::CsaIdentity(csa.identity);
                let payloads: Vec<_> = list.iter().map(identity).collect();
                self.ask(
                    ExchangeType::INFORMATIONAL,
                    &payloads,
                    Pending::Claim(list),
                    cx,
                );
            }
            Task::Csa(task) => {
                let payloads = task.payloads.clone();
                self.ask(task.exchange, &payloads, Pending::Csa(task), cx);
            }
        }
    }

    /// Takes what was to be asked, and what was asked of ML-IKE and not answered, out: for the successor.
    pub fn take_tasks(&mut self) -> Vec<Task> {
        let mut tasks: Vec<Task> = self.tasks.drain(..).collect();
        tasks.retain(|task| !matches!(task, Task::RekeyIke(_) | Task::DeleteIke));
        let retries = self.retries.drain(..).map(|(_, task)| task);
        tasks.extend(retries.filter(|task| !matches!(task, Task::RekeyIke(_) | Task::DeleteIke)));
        tasks
    }

    fn how_deleted(&self, otherwise: Down) -> Down {
        if self.inherited {
            Down::Rekeyed
        } else {
            otherwise
        }
    }

    /// This IKE SA is over, with its children; composite SAs of a peer that is gone stay.
    pub fn fall(&mut self, why: Down, cx: &mut Cx<'_>) {
        if self.is_dead() {
            return;
        }
        // Answers to what was answered, for as long as the peer may ask again.
        let after = match why {
            Down::Dead => Duration::ZERO,
            _ => AFTERLIFE,
        };
        self.state = State::Dead(cx.now + after);
        if let Some(Successor { id, .. }) = self.successors.first() {
            if !self.inherited {
                let id = *id;
                self.inherit(id, cx);
            }
        }
        for outstanding in self.outbox.drain() {
            match outstanding.pending {
                Pending::Csa(task) => self.unanswered(task, cx),
                Pending::Child(request) => cx.event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: Some(request.spi_in),
                    why: ChildFailure::Answer,
                }),
                _ => {}
            }
        }
        for task in std::mem::take(&mut self.tasks) {
            if let Task::Csa(task) = task {
                self.unanswered(task, cx);
            }
        }
        self.retries.clear();
        let mut orphans = Vec::new();
        for child in std::mem::take(&mut self.children) {
            if why == Down::Dead && child.composite.is_some() {
                orphans.push(child);
            } else {
                self.child_down(child, cx);
            }
        }
        if let (Some(peer), false) = (&self.peer, orphans.is_empty()) {
            cx.effects.push_back(Effect::Orphans(peer.clone(), orphans));
        }
        if !self.inherited {
            cx.effects
                .push_back(Effect::Down(self.id, self.peer.clone()));
            if let (Some(connection), Some(Inner::Peers(address))) = (self.connection, self.inner) {
                let lifetime = self.child_config(cx).map(|child| child.lifetime);
                let until = cx.now + lifetime.unwrap_or_default();
                cx.leases.release(connection, address, self.id, until);
            }
        }
        self.protection_after_death(why);
        if self.announced {
            cx.event(Event::IkeDown { ike: self.id, why });
        }
    }

    /// A request of ML-IKE that this IKE SA will have no answer to: its successor's, if there is one.
    fn unanswered(&self, task: CsaTask, cx: &mut Cx<'_>) {
        cx.effects.push_back(match self.heir {
            Some(heir) => Effect::Requeue(heir, task),
            None => Effect::Answered(self.id, task.purpose, None),
        });
    }

    /// A dead IKE SA seals nothing more; what it answered is kept as sent.
    fn protection_after_death(&mut self, why: Down) {
        if why == Down::Dead {
            self.protection = None;
        }
        self.setup = None;
        self.follow_up = None;
    }

    pub(crate) fn connection<'a>(
        &self,
        config: &'a crate::config::Config,
    ) -> Option<&'a crate::config::Connection> {
        config.connections.get(self.connection?)
    }
}

/// Sends each datagram, with the non-ESP marker where the port wants one.
pub(crate) fn transmit(path: Path, datagrams: Vec<Vec<u8>>, out: &mut VecDeque<Output>) {
    for octets in datagrams {
        let octets = if path.local.port() == IKE_PORT {
            octets
        } else {
            [&[0; 4], octets.as_slice()].concat()
        };
        out.push_back(Output::Send(Datagram {
            from: path.local,
            to: path.remote,
            octets,
        }));
    }
}

/// What a datagram that came to `to` holds of IKE: on any port but 500, what stands behind the non-ESP marker.
pub(crate) fn without_marker(octets: &[u8], to: SocketAddr) -> Option<&[u8]> {
    if to.port() == IKE_PORT {
        Some(octets)
    } else {
        octets.strip_prefix(&[0; 4])
    }
}
