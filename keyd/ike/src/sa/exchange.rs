// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is remembered between a request and its answer, and what is waiting to be asked.

use crate::config::Config;
use crate::crypto::{Method, Pending as Kex};
use crate::event::{AdoptedCsa, ChildId, Event, IkeId, Output, Time};
use crate::host::Host;
use crate::negotiate::{EspSuite, IkeSuite};
use crate::pool::{Inner, Leases};
use crate::secret::Secret;
use crate::wire::{
    Configuration, CsaIdentity, ExchangeType, Id, NotifyType, Payload, Proposal, Revocation,
    TrafficSelector, ZoneTransform,
};
use pfkey::Mode;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::child::Child;
use super::IkeSa;

/// What an IKE SA works with.
pub(crate) struct Cx<'a> {
    pub config: &'a Config,
    pub host: &'a mut dyn Host,
    pub now: Time,
    /// Seconds since 1970, for certificates.
    pub unix: u64,
    pub out: &'a mut VecDeque<Output>,
    pub effects: &'a mut VecDeque<Effect>,
    pub ids: &'a mut u64,
    /// The greatest generation of a CSA with each peer.
    pub generations: &'a mut HashMap<Id, u32>,
    /// Inner addresses, given and had.
    pub leases: &'a mut Leases,
}

impl Cx<'_> {
    pub fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub fn id(&mut self) -> u64 {
        *self.ids += 1;
        *self.ids
    }
}

/// What concerns more than one IKE SA, and is done by the end point.
pub(crate) enum Effect {
    /// There is a new IKE SA, by rekeying.
    Spawn(Box<IkeSa>),
    /// The first one's children are the second's.
    Inherit(IkeId, IkeId, Box<Bequest>),
    /// That IKE SA lost against another of a simultaneous rekeying. With true it is this side's to delete; else the
    /// peer's, which may not know of it if the answer that made it was lost: it is forgotten after a while.
    Redundant(IkeId, bool),
    /// Both sides have proved who they are.
    Up(IkeId),
    /// The peer says it has no other IKE SA.
    InitialContact(IkeId, Id),
    /// An IKE SA is no more, nor has it a successor; whom it was with.
    Down(IkeId, Option<Id>),
    /// A CSA came up.
    Fresh(IkeId, ChildId),
    /// HA: a CSA came up, in another's place. With a message ID, the answer to that request waits for the relay.
    ChildRaised(IkeId, ChildId, Option<u32>, Option<ChildId>),
    /// A composite SA was taken down.
    CsaGone(Box<Child>),
    /// The peer is gone: its composite SAs, which stay (docs/wire.md 3.2w).
    Orphans(Id, Vec<Child>),
    /// A request of ML-IKE came, to be answered.
    Serve(IkeId, u32, ExchangeType, Vec<Payload>),
    /// A request of ML-IKE the first IKE SA's end overtook: the successor asks it.
    Requeue(IkeId, CsaTask),
    /// An answer to a request of ML-IKE came, or none did.
    Answered(IkeId, CsaPurpose, Option<Vec<Payload>>),
}

/// What a successor gets.
pub(crate) struct Bequest {
    pub children: Vec<Child>,
    pub tasks: Vec<Task>,
    pub inner: Option<Inner>,
}

/// A request of ML-IKE.
#[derive(Clone)]
pub(crate) struct CsaTask {
    pub exchange: ExchangeType,
    pub payloads: Vec<Payload>,
    pub purpose: CsaPurpose,
}

/// What it was for.
#[derive(Clone)]
pub(crate) enum CsaPurpose {
    Distribute(Vec<ChildId>, IpAddr),
    Revoke(Vec<Revocation>, IpAddr),
    Neighbours,
    Request(IpAddr),
    Handover(IpAddr),
    /// The key of the group of this FA's neighbours, in that epoch, to that one of them.
    GroupKey(IpAddr, u32, IpAddr),
    Report,
}

/// What this side wants to ask.
#[derive(Clone)]
pub(crate) enum Task {
    NewChild,
    RekeyChild(ChildId, Option<Method>),
    DeleteChildren(Vec<ChildId>),
    RekeyIke(Option<Method>),
    DeleteIke,
    Liveness,
    Move,
    Claim(Vec<AdoptedCsa>),
    Csa(CsaTask),
}

impl Task {
    /// Whether nothing else may be on its way meanwhile.
    pub fn is_alone(&self) -> bool {
        matches!(self, Task::RekeyIke(_) | Task::DeleteIke)
    }

    /// Whether it makes, rekeys or closes a child.
    pub fn is_about_children(&self) -> bool {
        matches!(
            self,
            Task::NewChild | Task::RekeyChild(..) | Task::DeleteChildren(_)
        )
    }
}

/// What an answer is to be read by.
pub(crate) enum Pending {
    Init(Box<InitRequest>),
    Intermediate(Method, Kex),
    Auth(Option<Box<ChildRequest>>),
    Child(Box<ChildRequest>),
    Ike(Box<IkeRequest>),
    FollowUp(Box<FollowUp>, Kex),
    DeleteChildren(Vec<ChildId>),
    DeleteIke,
    Liveness,
    Move(Vec<u8>),
    Claim(Vec<AdoptedCsa>),
    Csa(CsaTask),
}

/// IKE_SA_INIT on its way.
pub(crate) struct InitRequest {
    pub kex: Kex,
    pub method: Method,
    pub proposals: Vec<Proposal>,
    pub cookie: Option<Vec<u8>>,
    /// Times it was begun again, for a cookie or another method.
    pub again: u8,
    /// An unprotected refusal, which anyone may have sent; believed if nothing better comes by then (§2.21.1).
    pub refusal: Option<(NotifyType, Time)>,
}

/// A child on its way.
pub(crate) struct ChildRequest {
    pub rekeys: Option<ChildId>,
    pub spi_in: u32,
    pub ni: Vec<u8>,
    pub kex: Option<(Method, Kex)>,
    pub proposals: Vec<Proposal>,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    pub mode: Mode,
    /// Zones were offered, as this generation.
    pub zones: Option<u32>,
    /// The peer rekeyed the same child meanwhile (§2.8.1).
    pub collision: Option<Collision>,
    /// The peer deleted the child that is being rekeyed.
    pub old_deleted: bool,
}

/// The peer's half of a simultaneous rekeying.
#[derive(Clone)]
pub(crate) struct Collision {
    /// The lower of its two nonces.
    pub lowest: Vec<u8>,
}

/// A rekeying of the IKE SA on its way.
pub(crate) struct IkeRequest {
    pub spi: u64,
    pub ni: Vec<u8>,
    pub method: Method,
    pub kex: Kex,
    pub proposals: Vec<Proposal>,
}

/// Additional key exchanges of CREATE_CHILD_SA on their way (RFC 9370 §2.2.4).
pub(crate) struct FollowUp {
    pub draft: Draft,
    pub shared: Vec<Secret>,
    pub left: VecDeque<Method>,
    /// What ties the exchanges together.
    pub link: Vec<u8>,
    /// What this side asked by, if it did.
    pub request: Option<Box<ChildRequest>>,
}

/// An SA all of which is agreed on but the keys.
pub(crate) enum Draft {
    Child(Box<ChildDraft>),
    Ike(Box<IkeDraft>),
}

/// A child, likewise.
pub(crate) struct ChildDraft {
    pub initiated: bool,
    pub rekeys: Option<ChildId>,
    pub spi_in: u32,
    pub spi_out: u32,
    pub suite: EspSuite,
    pub zones: Option<ZoneDraft>,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    pub mode: Mode,
    pub ni: Vec<u8>,
    pub nr: Vec<u8>,
}

/// Its zones.
pub(crate) struct ZoneDraft {
    pub transforms: Vec<ZoneTransform>,
    pub generation: u32,
    pub may_write: bool,
    pub peer_replay_window: u32,
}

/// A rekeyed IKE SA, likewise.
pub(crate) struct IkeDraft {
    pub initiated: bool,
    pub spi_i: u64,
    pub spi_r: u64,
    pub suite: IkeSuite,
    pub ni: Vec<u8>,
    pub nr: Vec<u8>,
}

/// How a request is answered.
pub(crate) enum Reply {
    Now(Vec<Payload>),
    /// Written, but sent only when the end point says so.
    Held(Vec<Payload>),
    /// By the end point.
    Later,
    /// Answered, and with it this IKE SA is over.
    Last(Vec<Payload>, crate::event::Down),
}

impl Reply {
    pub fn refuse(kind: NotifyType) -> Self {
        Reply::Now(vec![Payload::notify(kind, [])])
    }
}

/// A refusal of what was asked.
pub(crate) struct Refusal(pub NotifyType, pub Vec<u8>);

impl Refusal {
    pub fn payload(self) -> Payload {
        Payload::notify(self.0, self.1)
    }
}

impl From<NotifyType> for Refusal {
    fn from(kind: NotifyType) -> Self {
        Refusal(kind, Vec::new())
    }
}

/// Finds things among payloads.
pub(crate) trait Find {
    fn notify(&self, kind: NotifyType) -> Option<&crate::wire::Notify>;
    fn error(&self) -> Option<NotifyType>;
    fn sa(&self) -> Option<&[Proposal]>;
    fn nonce(&self) -> Option<&[u8]>;
    fn ke(&self) -> Option<&crate::wire::KeyExchange>;
    fn ts_i(&self) -> Option<&[TrafficSelector]>;
    fn ts_r(&self) -> Option<&[TrafficSelector]>;
    fn zone_map(&self) -> Option<&crate::wire::ZoneMapPayload>;
    fn csa(&self) -> Option<&CsaIdentity>;
    fn cp(&self) -> Option<&Configuration>;
}

macro_rules! find {
    ($list:expr, $variant:ident) => {
        $list.iter().find_map(|payload| match payload {
            Payload::$variant(inner) => Some(inner),
            _ => None,
        })
    };
}

impl Find for [Payload] {
    fn notify(&self, kind: NotifyType) -> Option<&crate::wire::Notify> {
        self.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.kind == kind => Some(notify),
            _ => None,
        })
    }

    fn error(&self) -> Option<NotifyType> {
        self.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
            _ => None,
        })
    }

    fn sa(&self) -> Option<&[Proposal]> {
        find!(self, Sa).map(Vec::as_slice)
    }

    fn nonce(&self) -> Option<&[u8]> {
        find!(self, Nonce).map(Vec::as_slice)
    }

    fn ke(&self) -> Option<&crate::wire::KeyExchange> {
        find!(self, KeyExchange)
    }

    fn ts_i(&self) -> Option<&[TrafficSelector]> {
        find!(self, TsInitiator).map(Vec::as_slice)
    }

    fn ts_r(&self) -> Option<&[TrafficSelector]> {
        find!(self, TsResponder).map(Vec::as_slice)
    }

    fn zone_map(&self) -> Option<&crate::wire::ZoneMapPayload> {
        find!(self, ZoneMap)
    }

    fn csa(&self) -> Option<&CsaIdentity> {
        find!(self, CsaIdentity)
    }

    fn cp(&self) -> Option<&Configuration> {
        find!(self, Configuration)
    }
}

/// Where a datagram came from and where to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}
