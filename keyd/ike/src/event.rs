// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What comes out: datagrams to send and things that happened, in the order they must be acted on.

use crate::auth::AuthError;
use crate::crypto::KeyPair;
use crate::negotiate::EspSuite;
use crate::wire::{
    Ask, CsaIdentity, GroupStatus, Id, Neighbour, NotifyType, Revocation, SnoopState,
    TrafficSelector, ZoneTransform,
};
use pfkey::{Mode, ZoneMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Time since any fixed moment, on a clock that doesn't jump.
pub type Time = Duration;

/// An IKE SA of this end point. Numbers are not given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct IkeId(pub u64);

/// A child SA of this end point. Numbers are not given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ChildId(pub u64);

/// One thing to do. An SA stands before the datagram that tells the peer to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send it.
    Send(Datagram),
    /// Know it, or install it.
    Event(Event),
}

/// A UDP datagram, with the non-ESP marker where its port wants one (RFC 3948 §2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// This node's address and port.
    pub from: SocketAddr,
    /// The peer's.
    pub to: SocketAddr,
    /// The payload of UDP.
    pub octets: Vec<u8>,
}

/// Why an IKE SA is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Down {
    /// This side deleted it.
    Deleted,
    /// The peer deleted it.
    ByPeer,
    /// It was rekeyed, and its successor has its children.
    Rekeyed,
    /// The peer said it has no other (INITIAL_CONTACT).
    Replaced,
    /// The peer doesn't answer. Composite SAs stay; they can be claimed again (docs/wire.md 3.2w).
    Dead,
    /// It was never set up: the peer refused with that notification.
    Refused(NotifyType),
    /// It was never set up: one of the two could not prove who it is.
    Authentication(AuthError),
    /// It was never set up: the peer knows no zones, and policy wants them.
    NoZones,
    /// The peer broke the protocol.
    Protocol(&'static str),
}

/// Why there is no child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildFailure {
    /// The peer refused with that notification.
    Refused(NotifyType),
    /// The peer offers a plain child, and policy wants zones.
    NoZones,
    /// The answer is not one to what was asked.
    Answer,
    /// An inner address was asked for, and the peer gave none, or made the child of other packets than its.
    Address,
    /// The kernel has no SPI, or the system no randomness.
    Local,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Both sides have proved who they are.
    IkeUp {
        /// Which.
        ike: IkeId,
        /// The connection it is of, by its place in the configuration.
        connection: usize,
        /// Who the peer is.
        peer: Id,
        /// Whether both know zones.
        zones: bool,
        /// Where this side is.
        local: SocketAddr,
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// The new one has all the old one's children.
    IkeRekeyed {
        /// The one that goes.
        old: IkeId,
        /// The one that comes.
        new: IkeId,
    },
    /// An IKE SA is no more.
    IkeDown {
        /// Which.
        ike: IkeId,
        /// Why.
        why: Down,
    },
    /// Somebody could not prove to be `peer`.
    AuthenticationFailed {
        /// From where.
        remote: SocketAddr,
        /// Who it said it was.
        peer: Id,
        /// What was wrong.
        why: AuthError,
    },
    /// Install this.
    ChildUp(Box<ChildUp>),
    /// From now on seal with this child, which was [`ChildUp`] with `seal_now` false.
    ChildSeal {
        /// Which.
        child: ChildId,
    },
    /// Seal with it no more; after `linger` remove it.
    ChildDown {
        /// Which.
        child: ChildId,
        /// Its inbound SPI.
        spi_in: u32,
        /// Its outbound SPI.
        spi_out: u32,
        /// How long packets on their way may still come.
        linger: Duration,
    },
    /// The hard life-time is over, or its IKE SA was lost: a composite SA nobody claimed.
    CsaExpired {
        /// Its inbound SPI.
        spi_in: u32,
        /// Its outbound SPI.
        spi_out: u32,
    },
    /// A child that was asked for is not to be had; an SPI reserved for it is free again.
    ChildFailed {
        /// Of which IKE SA.
        ike: IkeId,
        /// The inbound SPI reserved.
        spi_in: Option<u32>,
        /// Why.
        why: ChildFailure,
    },
    /// A CSA has another IKE SA now: its holder came back (docs/wire.md §3.2, restart).
    CsaClaimed {
        /// The IKE SA it is of now.
        ike: IkeId,
        /// Which.
        child: ChildId,
        /// Its inbound SPI.
        spi_in: u32,
        /// Its outbound SPI.
        spi_out: u32,
    },
    /// Which of the CSAs this side claimed the peer knows.
    ClaimAnswered {
        /// Of which IKE SA.
        ike: IkeId,
        /// As this side named them; the rest are orphans to remove.
        held: Vec<CsaIdentity>,
    },
    /// An end moved, or its NAT did: update the children named.
    Moved {
        /// Which IKE SA.
        ike: IkeId,
        /// Where this side is.
        local: SocketAddr,
        /// Where the peer is.
        remote: SocketAddr,
        /// Whether packets go within UDP.
        udp: bool,
        /// Its children.
        children: Vec<ChildId>,
    },
    /// The inner address the peer gave this side.
    InnerAddress {
        /// On which IKE SA.
        ike: IkeId,
        /// The address.
        address: IpAddr,
    },
    /// FA: install this relay CSA, or update the one there is.
    RelayUp(Box<RelayCsa>),
    /// FA: remove a relay CSA.
    RelayDown(Revocation),
    /// HA: what an FA said to a CSA given to it; `None` when it didn't answer.
    Distributed {
        /// Which CSA.
        child: ChildId,
        /// To whom.
        fa: IpAddr,
        /// What it said.
        status: Option<GroupStatus>,
    },
    /// HA: whether an FA has answered that it holds a CSA no more (docs/wire.md 3.1g). One that hasn't is asked again when
    /// its next IKE SA is up, until the CSA's life-time is over.
    Revoked {
        /// By whom.
        fa: IpAddr,
        /// The CSA's SPI towards the host.
        spi: u32,
        /// Whether it has answered.
        confirmed: bool,
    },
    /// HA: a member of the group of an FA's neighbours has its key, and gets CSAs by one datagram with the others; or
    /// doesn't take it, and gets them alone.
    GroupJoined {
        /// The member.
        member: IpAddr,
        /// The FA.
        fa: IpAddr,
        /// The group's number and the members that have the key, if it is one.
        group: Option<(u32, usize)>,
    },
    /// HA: a CSA went to a group, by one datagram.
    Predistributed {
        /// The FA whose neighbours they are.
        fa: IpAddr,
        /// Which.
        child: ChildId,
        /// For how many.
        members: usize,
        /// How long the datagram is.
        octets: usize,
    },
    /// HA: a member didn't say that it has a CSA that a datagram brought; it is given it alone.
    PredistributionMissed {
        /// Which.
        child: ChildId,
        /// The member.
        fa: IpAddr,
    },
    /// FA: what became of a datagram of a group.
    GroupHeard(GroupHeard),
    /// HA: more FAs than should know zone 1's keys of that CSA, so many in all: a fresh one is asked for in its place
    /// (docs/wire.md 3.5a).
    Renewing {
        /// The CSA.
        child: ChildId,
        /// The FAs that have, had or may have had it.
        known: usize,
    },
    /// HA: a rekeying went on without its relay, since that did not answer in time.
    WithoutRelay {
        /// Which CSA.
        child: ChildId,
        /// The FA that was waited for.
        fa: IpAddr,
    },
    /// HA: which neighbours an FA has.
    Neighbours {
        /// The FA's IKE SA.
        ike: IkeId,
        /// Its neighbours.
        list: Vec<Neighbour>,
    },
    /// New FA: what the previous one answered to CSA_REQUEST; with true a [`Event::RelayUp`] came before.
    CsaRequested {
        /// The host.
        home: IpAddr,
        /// Whether there was a CSA.
        given: bool,
    },
    /// Previous FA: answer by `Endpoint::answer_handover` with SNOOP's states, and send held packets to `ask.care_of`.
    HandoverAsked {
        /// By whom.
        ike: IkeId,
        /// Which message to answer.
        message_id: u32,
        /// What it asked.
        ask: Ask,
    },
    /// New FA: SNOOP's states, as the previous FA's module wrote them; `None` when it refused.
    HandedOver {
        /// The host.
        home: IpAddr,
        /// Its CSAs' states.
        states: Option<Vec<SnoopState>>,
    },
}

/// HA: zone 1 of one CSA at one FA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The host's home address.
    pub home: IpAddr,
    /// The FA.
    pub fa: IpAddr,
    /// The CSA's SPI towards the host.
    pub spi: u32,
    /// Which CSA of its pair of hosts.
    pub generation: u32,
    /// Why it is there.
    pub place: Place,
    /// How far it is there.
    pub custody: Custody,
}

/// What an FA is to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The host is there.
    Current,
    /// The host may go there.
    Standby,
    /// The host left, or the CSA is over.
    Former,
}

/// How far zone 1's keys are with an FA, as its HA knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Custody {
    /// On their way to it alone.
    Sending,
    /// In a datagram to many; it hasn't reported it.
    Cast,
    /// It has them, by an exchange of its own (true) or by a datagram to many.
    Held(bool),
    /// It is told to drop them shortly: the host is elsewhere.
    Leaving,
    /// It is being told to drop them.
    Revoking,
    /// It didn't answer that: it may have them.
    Unconfirmed,
    /// It couldn't be reached, or didn't take them.
    Failed,
    /// It doesn't say that it has them from this HA, and may have: no answer came, or the FA before may have handed them on
    /// (DKM).
    Perhaps,
}

/// A datagram of a group that this FA is a member of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupHeard {
    /// It is an HA's: CSAs that were taken, or were here already, and those that weren't.
    Said {
        /// The HA.
        agent: Id,
        /// Taken.
        taken: usize,
        /// Why the others weren't.
        refused: Vec<GroupStatus>,
    },
    /// It was here before, or is too old to say.
    Again,
    /// It isn't the HA's, though it names a group of its.
    Forged(crate::crypto::Unopened),
}

/// A child SA to install.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildUp {
    /// Of which IKE SA.
    pub ike: IkeId,
    /// Which.
    pub child: ChildId,
    /// The child it replaces.
    pub replaces: Option<ChildId>,
    /// Whether to seal with it from now on, or to wait for [`Event::ChildSeal`] or, as MH, the first good packet.
    pub seal_now: bool,
    /// The SPI of packets to this node.
    pub spi_in: u32,
    /// The SPI of packets from this node.
    pub spi_out: u32,
    /// This node's outer address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether packets go within UDP (RFC 3948).
    pub udp: bool,
    /// Transport or tunnel.
    pub mode: Mode,
    /// This side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The other's.
    pub remote_ts: Vec<TrafficSelector>,
    /// Hard life-time.
    pub lifetime: Duration,
    /// What seals it.
    pub keys: ChildSa,
}

/// Plain or composite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChildSa {
    /// One SA a direction: XFRM's.
    Plain {
        /// Its transforms.
        suite: EspSuite,
        /// To this node.
        keys_in: KeyPair,
        /// From this node.
        keys_out: KeyPair,
    },
    /// A composite SA: mml's.
    Composite {
        /// Where the zones stop.
        map: ZoneMap,
        /// Each zone's transform and keys, zone 1 first.
        zones: Vec<ZoneKeys>,
        /// Which CSA of its pair of hosts.
        generation: u32,
        /// Whether a relay may rewrite zone 1.
        may_write: bool,
        /// This side's replay window, in packets.
        replay_window: u32,
        /// The peer's.
        peer_replay_window: u32,
    },
}

/// A zone's transform and keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneKeys {
    /// The transform.
    pub transform: ZoneTransform,
    /// To this node.
    pub keys_in: KeyPair,
    /// From this node.
    pub keys_out: KeyPair,
}

/// A CSA as a relay holds it: zone 1 alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayCsa {
    /// Which CSA, in and out as its distributor sees them.
    pub identity: CsaIdentity,
    /// The distributor's side's selectors.
    pub ts_source: Vec<TrafficSelector>,
    /// The mobile host's.
    pub ts_home: Vec<TrafficSelector>,
    /// Where the zones stop.
    pub map: ZoneMap,
    /// Zone 1's transform.
    pub transform: ZoneTransform,
    /// From the outer source to the outer destination.
    pub keys_out: KeyPair,
    /// Back.
    pub keys_in: KeyPair,
}

/// A CSA the kernel still has after a restart, to be claimed from its peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdoptedCsa {
    /// Which, in and out as this node sees them; its life-time is what is left.
    pub identity: CsaIdentity,
    /// This side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The other's.
    pub remote_ts: Vec<TrafficSelector>,
    /// Where the zones stop.
    pub map: ZoneMap,
    /// Each zone's transform.
    pub transforms: Vec<ZoneTransform>,
    /// Which end this is.
    pub role: crate::config::ZoneRole,
    /// HA: zone 1's keys, to it and from it.
    pub zone1: Option<(KeyPair, KeyPair)>,
}
