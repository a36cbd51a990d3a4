// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One IKE SA: its exchanges as initiator and responder (RFC 7296 §1, §2).

mod auth;
pub(crate) mod child;
pub(crate) mod exchange;
mod fragment;
pub(crate) mod informational;
mod init;
mod mobike;
mod rekey;
mod window;

pub(crate) use init::{answer_init, InitAnswer};
use window::fingerprint;

use crate::crypto::{CryptoError, IkeKeys, Method, Opener, Sealer};
use crate::event::{Datagram, Down, Event, IkeId, Output, Time};
use crate::negotiate::IkeSuite;
use crate::secret::Secret;
use crate::wire::{
    decode_payloads, encode_payloads, Error, ExchangeType, HashAlgorithm, Header, Id, Message,
    NotifyType, Payload, PayloadType,
};
use child::Child;
use exchange::{Cx, Effect, FollowUp, Path, Pending, Reply, Task};
use fragment::{intermediate_octets, Reassembly};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use window::{Arrival, Due, Inbox, Outbox};

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
    pub children: Vec<Child>,
    pub inner: Vec<std::net::IpAddr>,
    pub outbox: Outbox,
    pub inbox: Inbox,
    reassembly: Reassembly,
    tasks: VecDeque<Task>,
    retries: Vec<(Time, Task)>,
    successors: Vec<Successor>,
    inherited: bool,
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
            inner: Vec::new(),
            outbox: Outbox::new(0),
            inbox: Inbox::new(0),
            reassembly: Reassembly::default(),
            tasks: VecDeque::new(),
            retries: Vec::new(),
            successors: Vec::new(),
            inherited: false,
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

    /// Takes in a message addressed to this IKE SA.
    pub fn handle(&mut self, octets: &[u8], message: Message, path: Path, cx: &mut Cx<'_>) {
        let header = message.header;
        if header.from_initiator == self.initiator {
            return;
        }
        if header.response {
            self.handle_response(octets, message, path, cx);
        } else {
            self.handle_request(octets, message, path, cx);
        }
    }

    fn handle_request(&mut self, octets: &[u8], message: Message, path: Path, cx: &mut Cx<'_>) {
        let header = message.header;
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return;
        }
        let print = fingerprint(octets);
        match self.inbox.arrival(header.message_id) {
            Arrival::Ignore => return,
            Arrival::Answered(known, datagrams) => {
                // The same octets again, or cut up otherwise but sealed by the peer (RFC 7383 §2.6.1). Of many
                // fragments the first alone is answered.
                let first = match message.payloads.last() {
                    Some(Payload::EncryptedFragment(skf)) => skf.number == 1,
                    _ => true,
                };
                if known == print || first && self.unseal(octets, &message).is_some() {
                    self.transmit(datagrams, cx);
                }
                return;
            }
            Arrival::New => {}
        }
        // Before IKE_AUTH's answer is here the responder may be ahead; it asks again.
        if self.is_dead() || self.state == State::Starting {
            return;
        }
        let Some((first, plain)) = self.gather(octets, &message) else {
            return;
        };
        self.heard(path, true, cx);
        // Of fragments, the one that completes a message is not always the first; that one will be opened again.
        self.inbox.open(header.message_id, print);
        let private = self.knows_zones(cx);
        let payloads = match decode_payloads(first, plain.expose(), private) {
            Ok(payloads) => payloads,
            Err(Error::Critical(kind)) => {
                let notify = Payload::notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [kind.0]);
                return self.reply(&header, &[notify], false, cx);
            }
            Err(_) => {
                let notify = Payload::notify(NotifyType::INVALID_SYNTAX, []);
                self.reply(&header, &[notify], false, cx);
                // An authenticated peer that writes what isn't a message will not come to its senses (§2.21.3).
                return self.fall(Down::Protocol("the peer's request could not be read"), cx);
            }
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.chain_intermediate(&header, first, &plain);
        }
        self.request_path = Some(path);
        let reply = self.request(&header, payloads, cx);
        match reply {
            Reply::Now(payloads) => self.reply(&header, &payloads, false, cx),
            Reply::Held(payloads) => self.reply(&header, &payloads, true, cx),
            Reply::Later => {}
            Reply::Last(payloads, why) => {
                self.reply(&header, &payloads, false, cx);
                self.fall(why, cx);
            }
        }
        self.after_answer(&header, cx);
        self.pump(cx);
    }

    fn request(&mut self, header: &Header, payloads: Vec<Payload>, cx: &mut Cx<'_>) -> Reply {
        match (header.exchange, self.state) {
            (ExchangeType::IKE_INTERMEDIATE, State::HalfOpen(_)) => {
                self.answer_intermediate(&payloads, cx)
            }
            (ExchangeType::IKE_AUTH, State::HalfOpen(_)) => self.answer_auth(header, &payloads, cx),
            (_, State::HalfOpen(_) | State::Starting | State::Dead(_)) => {
                Reply::refuse(NotifyType::INVALID_SYNTAX)
            }
            (ExchangeType::CREATE_CHILD_SA, _) => self.answer_create(header, &payloads, cx),
            (ExchangeType::IKE_FOLLOWUP_KE, _) => self.answer_follow_up(header, &payloads, cx),
            (ExchangeType::INFORMATIONAL, _) => self.answer_informational(header, payloads, cx),
            (
                ExchangeType::CSA_DISTRIBUTE
                | ExchangeType::NEIGHBOR_NOTIFY
                | ExchangeType::CSA_REQUEST
                | ExchangeType::CSA_REVOKE
                | ExchangeType::CSA_HANDOVER,
                _,
            ) if self.knows_zones(cx) => {
                let serve = Effect::Serve(self.id, header.message_id, header.exchange, payloads);
                cx.effects.push_back(serve);
                Reply::Later
            }
            _ => Reply::refuse(NotifyType::INVALID_SYNTAX),
        }
    }

    fn handle_response(&mut self, octets: &[u8], message: Message, path: Path, cx: &mut Cx<'_>) {
        let header = message.header;
        let Some(outstanding) = self.outbox.awaits(header.message_id) else {
            return;
        };
        if header.exchange == ExchangeType::IKE_SA_INIT {
            if matches!(outstanding.pending, Pending::Init(_)) {
                self.init_response(octets, &message, cx);
                self.pump(cx);
            }
            return;
        }
        let Some((first, plain)) = self.gather(octets, &message) else {
            return;
        };
        self.heard(path, false, cx);
        let Some(outstanding) = self.outbox.answered(header.message_id) else {
            return;
        };
        let private = self.knows_zones(cx);
        let Ok(payloads) = decode_payloads(first, plain.expose(), private) else {
            return self.fall(Down::Protocol("the peer's answer could not be read"), cx);
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.chain_intermediate(&header, first, &plain);
        }
        self.response(outstanding.pending, &payloads, cx);
        self.pump(cx);
    }

    fn response(&mut self, pending: Pending, payloads: &[Payload], cx: &mut Cx<'_>) {
        match pending {
            Pending::Init(_) => {}
            Pending::Intermediate(method, kex) => {
                self.intermediate_response(method, kex, payloads, cx);
            }
            Pending::Auth(child) => self.auth_response(child, payloads, cx),
            Pending::Child(request) => self.child_response(request, payloads, cx),
            Pending::Ike(request) => self.rekey_response(request, payloads, cx),
            Pending::FollowUp(follow_up, kex) => {
                self.follow_up_response(follow_up, kex, payloads, cx);
            }
            Pending::DeleteChildren(children) => {
                children
                    .iter()
                    .for_each(|child| self.drop_child(*child, cx));
            }
            Pending::DeleteIke => self.fall(self.how_deleted(Down::Deleted), cx),
            Pending::Liveness => {}
            Pending::Move(cookie) => self.move_response(&cookie, payloads, cx),
            Pending::Claim(list) => self.claim_response(list, payloads, cx),
            Pending::Csa(task) => cx.effects.push_back(Effect::Answered(
                self.id,
                task.purpose,
                Some(payloads.to_vec()),
            )),
        }
    }

    /// Opens the one sealed payload of a message.
    fn unseal(&self, octets: &[u8], message: &Message) -> Option<Secret> {
        let body = match message.payloads.last()? {
            Payload::Encrypted(sk) => sk.body.len(),
            Payload::EncryptedFragment(skf) => skf.body.len(),
            _ => return None,
        };
        let protection = self.protection.as_ref()?;
        fragment::open(&protection.opener, octets, body).ok()
    }

    /// The payloads of a message, once all its fragments are here.
    fn gather(&mut self, octets: &[u8], message: &Message) -> Option<(PayloadType, Secret)> {
        let plain = self.unseal(octets, message)?;
        match message.payloads.last()? {
            Payload::Encrypted(sk) => {
                let header = &message.header;
                self.reassembly.forget(header.response, header.message_id);
                Some((sk.first, plain))
            }
            Payload::EncryptedFragment(skf) if self.traits.fragmentation => {
                self.reassembly.add(&message.header, skf, plain)
            }
            _ => None,
        }
    }

    /// The peer lives, and whoever of the two isn't behind a NAT follows the other's (§2.23). MOBIKE moves by message.
    fn heard(&mut self, path: Path, request: bool, cx: &mut Cx<'_>) {
        self.last_heard = cx.now;
        let follow = self.nat.remote && !self.nat.local && !self.traits.mobike;
        if matches!(self.state, State::HalfOpen(_)) && request {
            // IKE_AUTH may come by port 4500 (§2.23).
            self.path = path;
        } else if follow && path != self.path {
            self.moved(path, cx);
        }
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
            let Some(at) = self.tasks.iter().position(|task| self.may_start(task)) else {
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
                Pending::Csa(task) => {
                    cx.effects
                        .push_back(Effect::Answered(self.id, task.purpose, None))
                }
                Pending::Child(request) => cx.out.push_back(Output::Event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: Some(request.spi_in),
                    why: crate::event::ChildFailure::Answer,
                })),
                _ => {}
            }
        }
        for task in std::mem::take(&mut self.tasks) {
            if let Task::Csa(task) = task {
                cx.effects
                    .push_back(Effect::Answered(self.id, task.purpose, None));
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
            cx.leases
                .retain(|(_, address), _| !self.inner.contains(address) || self.initiator);
        }
        self.protection_after_death(why);
        if self.announced {
            cx.event(Event::IkeDown { ike: self.id, why });
        }
    }

    /// A dead IKE SA seals nothing more; what it answered is kept as sent.
    fn protection_after_death(&mut self, why: Down) {
        if why == Down::Dead {
            self.protection = None;
        }
        self.setup = None;
        self.follow_up = None;
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_deadline(&self, config: &crate::config::Config) -> Option<Time> {
        let mut deadlines: Vec<Time> = Vec::new();
        match self.state {
            State::Dead(at) => return Some(at),
            State::HalfOpen(at) | State::Replaced(at) => deadlines.push(at),
            _ => {}
        }
        deadlines.extend(self.outbox.next_deadline());
        deadlines.extend(self.outbox.pending().filter_map(|pending| match pending {
            Pending::Init(init) => init.refusal.map(|(_, at)| at),
            _ => None,
        }));
        deadlines.extend(self.retries.iter().map(|(at, _)| *at));
        if self.is_up() {
            deadlines.extend(self.rekey_at);
            let liveness = self.connection(config).and_then(|c| c.liveness);
            if let (Some(liveness), true) = (liveness, self.outbox.is_empty()) {
                deadlines.push(self.last_heard + liveness);
            }
            for child in &self.children {
                deadlines.extend(child.rekey_at);
                deadlines.push(child.expires);
            }
        }
        deadlines.into_iter().min()
    }

    pub(crate) fn connection<'a>(
        &self,
        config: &'a crate::config::Config,
    ) -> Option<&'a crate::config::Connection> {
        config.connections.get(self.connection?)
    }

    /// Does what the time asks for. `false` when this IKE SA may be forgotten.
    pub fn tick(&mut self, cx: &mut Cx<'_>) -> bool {
        match self.state {
            State::Dead(at) => return cx.now < at,
            State::HalfOpen(at) if at <= cx.now => {
                // Nobody was told of it.
                self.state = State::Dead(cx.now);
                return false;
            }
            State::Replaced(at) if at <= cx.now => self.fall(Down::Rekeyed, cx),
            _ => {}
        }
        self.check_refusal(cx);
        match self.outbox.due(cx.now, &cx.config.retransmission) {
            Due::Nothing => {}
            Due::Again(datagrams) => self.transmit(datagrams, cx),
            Due::GaveUp => self.fall(self.how_deleted(Down::Dead), cx),
        }
        let now = cx.now;
        let (due, later) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.retries = later;
        self.tasks.extend(due.into_iter().map(|(_, task)| task));
        if self.is_up() {
            self.tick_children(cx);
            if self.rekey_at.is_some_and(|at| at <= cx.now) {
                self.rekey_at = None;
                self.tasks.push_back(Task::RekeyIke(None));
            }
            let liveness = self.connection(cx.config).and_then(|c| c.liveness);
            let silent = liveness.is_some_and(|most| self.last_heard + most <= cx.now);
            if silent && self.outbox.is_empty() && self.tasks.is_empty() {
                self.tasks.push_back(Task::Liveness);
            }
        }
        self.pump(cx);
        match self.state {
            State::Dead(at) => cx.now < at,
            _ => true,
        }
    }

    fn retry(&mut self, task: Task, cx: &mut Cx<'_>) {
        // Not both sides at the same moment, over and over (§2.25).
        let mut octet = [0];
        cx.host.fill(&mut octet);
        let jitter = Duration::from_millis(2 * u64::from(octet[0]));
        self.retries.push((cx.now + RETRY + jitter, task));
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
