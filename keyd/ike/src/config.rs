// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What whoever runs the protocol decides: peers, suites, time-outs, and who may get what.

use crate::auth::{Credential, IdMatch, Trust};
use crate::crypto::{Cipher, Hash, Method};
use crate::pool::Pool;
use crate::wire::{Id, TrafficSelector, ZoneTransform};
use pfkey::{Family, Mode, ZoneMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An end point's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peers, in the order they are tried.
    pub connections: Vec<Connection>,
    /// Whether this node speaks ML-IKE at all (docs/wire.md §3.2).
    pub zones: bool,
    /// Half-open IKE SAs before a COOKIE is asked for (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open IKE SAs there may be at all.
    pub max_half_open: usize,
    /// How long one may stay so.
    pub half_open_time: Duration,
    /// How requests are sent again.
    pub retransmission: Retransmission,
    /// The longest IKE message sent in one datagram, in octets, UDP and IP headers not counted (RFC 7383 §2.5.1).
    pub fragment_size: usize,
    /// How long the inbound half of a replaced child is kept: the longer of 10 s and SNOOP's garbage time
    /// (docs/wire.md 3.2r).
    pub linger: Duration,
    /// What an HA knows of its FAs.
    pub home: HomeConfig,
    /// What an FA knows of its HAs and neighbours.
    pub foreign: ForeignConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            connections: Vec::new(),
            zones: true,
            cookie_threshold: 100,
            max_half_open: 1000,
            half_open_time: Duration::from_secs(30),
            retransmission: Retransmission::default(),
            // 1280, the least IPv6 carries, less its header, UDP's and the non-ESP marker.
            fragment_size: 1228,
            linger: Duration::from_secs(10),
            home: HomeConfig::default(),
            foreign: ForeignConfig::default(),
        }
    }
}

/// How requests are sent again (RFC 7296 §2.4).
#[derive(Clone, Copy, Debug)]
pub struct Retransmission {
    /// Before the first.
    pub first: Duration,
    /// Between two, at most; until then each wait is twice the one before.
    pub most: Duration,
    /// How often, before the peer counts as gone.
    pub tries: u32,
}

impl Default for Retransmission {
    fn default() -> Self {
        Retransmission {
            first: Duration::from_millis(500),
            most: Duration::from_secs(16),
            tries: 8,
        }
    }
}

impl Retransmission {
    /// How long to wait after sending for the `sent`th time, from 1.
    pub fn wait(&self, sent: u32) -> Duration {
        let factor = 1u32.checked_shl(sent.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

/// A peer, or a kind of peer.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who this side is.
    pub local_id: Id,
    /// Who may be on the other.
    pub remote_id: IdMatch,
    /// Where it may be; anywhere without.
    pub remote: Option<IpAddr>,
    /// How this side proves itself.
    pub credential: Credential,
    /// How the other must.
    pub trust: Trust,
    /// Suites of the IKE SA, best first.
    pub ike: Vec<IkeProposal>,
    /// The child that goes with it. Without one the IKE SA is childless (RFC 6023).
    pub child: Option<ChildConfig>,
    /// Requests the peer may have on their way at once (SET_WINDOW_SIZE); 64 between HA and FA, FA and FA
    /// (docs/wire.md 3.2t).
    pub window: u32,
    /// Whether addresses may change (RFC 4555).
    pub mobike: bool,
    /// Whether to say that this is the only IKE SA with the peer. Never after a restart that claims its CSAs again.
    pub initial_contact: bool,
    /// Silence after which the peer is asked whether it lives.
    pub liveness: Option<Duration>,
    /// Age at which the IKE SA is rekeyed.
    pub rekey: Option<Duration>,
    /// Whether to ask for an inner address, and of which family. Without one there is no child then.
    pub request_address: Option<Family>,
    /// Inner addresses to give, one a peer. A peer that asks for none gets no child then.
    pub pool: Pool,
    /// Of several that a peer would fit the lowest takes it; of equal ones the first.
    pub rank: usize,
}

/// Algorithms of an IKE SA, each list best first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeProposal {
    /// What seals SK.
    pub ciphers: Vec<Cipher>,
    /// PRFs.
    pub prfs: Vec<Hash>,
    /// The key exchange of IKE_SA_INIT; the first is the one whose public value is sent along.
    pub methods: Vec<Method>,
    /// Additional key exchanges, ADDKE1 first (RFC 9370).
    pub additional: Vec<Vec<Method>>,
}

/// A child SA.
#[derive(Clone, Debug)]
pub struct ChildConfig {
    /// This side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The other's.
    pub remote_ts: Vec<TrafficSelector>,
    /// Transport or tunnel.
    pub mode: Mode,
    /// What seals a plain child, best first.
    pub ciphers: Vec<Cipher>,
    /// Key exchanges of a child made or rekeyed by CREATE_CHILD_SA; none to do without.
    pub methods: Vec<Method>,
    /// Additional key exchanges of such a child, ADDKE1 first (RFC 9370).
    pub additional: Vec<Vec<Method>>,
    /// Zones, if it may have them.
    pub zones: Option<ZonePolicy>,
    /// Age at which it is rekeyed.
    pub rekey: Option<Duration>,
    /// Age beyond which it is not used.
    pub lifetime: Duration,
}

/// What becomes of a child between peers that know zones.
#[derive(Clone, Debug)]
pub struct ZonePolicy {
    /// No plain child will do (docs/wire.md 3.2d).
    pub required: bool,
    /// Where the zones stop.
    pub map: ZoneMap,
    /// Each zone's candidates, best first.
    pub transforms: Vec<Vec<ZoneTransform>>,
    /// This side's, in packets.
    pub replay_window: u32,
    /// Whether a relay may rewrite zone 1, as far as this side is concerned.
    pub may_write: bool,
    /// Which end of the CSA this is.
    pub role: ZoneRole,
}

/// Which end of a CSA a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZoneRole {
    /// The home agent: distributes it.
    Home,
    /// The mobile host.
    Mobile,
}

/// An agent: who it is, and the addresses that are its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// Who it is to IKE.
    pub identity: IdMatch,
    /// Its addresses. Without any, those its certificate names.
    pub addresses: Vec<IpAddr>,
}

/// An address range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Any address in it.
    pub address: IpAddr,
    /// Bits that count.
    pub bits: u8,
}

impl Prefix {
    /// Whether the address lies within.
    pub fn holds(&self, address: IpAddr) -> bool {
        TrafficSelector::prefix(self.address, self.bits).holds(address)
    }
}

/// How an HA gives a CSA to many FAs at once (docs/wire.md 3.3l).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Multicast {
    /// The HA's own address and port that datagrams leave by.
    pub from: SocketAddr,
    /// Where they go.
    pub to: Delivery,
}

/// Where a datagram to many goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Once, to a multicast address.
    Group(SocketAddr),
    /// The same datagram to each member's own address, to that port: where no router forwards multicast.
    Copies(u16),
}

/// When a CSA gets fresh keys because of who knows zone 1's (docs/wire.md 3.5a). By default never.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Renewal {
    /// As soon as an FA that had it is to have it no more: its host left, and it is no neighbour.
    pub left: bool,
    /// When more FAs than that have had it, one of which is to have it no more.
    pub holders: Option<usize>,
}

/// What an HA knows.
#[derive(Clone, Debug)]
pub struct HomeConfig {
    /// The FAs it may give CSAs to.
    pub foreign_agents: Vec<Agent>,
    /// Whether relays may rewrite zone 1, where both ends of the CSA permit it.
    pub grant_write: bool,
    /// How long a rekeying waits for the current FA (docs/wire.md 3.2o).
    pub patience: Duration,
    /// How long an FA that a host left for another keeps the CSA: until what it holds has followed (docs/wire.md 3.2z).
    pub farewell: Duration,
    /// How standbys get CSAs by one datagram; one by one without.
    pub multicast: Option<Multicast>,
    /// When a CSA gets fresh keys because of who knows zone 1's.
    pub renewal: Renewal,
}

impl Default for HomeConfig {
    fn default() -> Self {
        HomeConfig {
            foreign_agents: Vec::new(),
            grant_write: false,
            patience: Duration::from_secs(2),
            farewell: Duration::from_millis(500),
            multicast: None,
            renewal: Renewal::default(),
        }
    }
}

/// An HA as its FAs know it.
#[derive(Clone, Debug)]
pub struct HomeAgent {
    /// Who it is to IKE.
    pub identity: IdMatch,
    /// Its home addresses.
    pub prefixes: Vec<Prefix>,
    /// Whether it may give CSAs of hosts that aren't registered here yet.
    pub standby: bool,
    /// Its own addresses: the other end of its CSAs, and where it has packets sent back to. Empty: not known, and not looked
    /// at for CSAs.
    pub addresses: Vec<IpAddr>,
}

/// What an FA knows.
#[derive(Clone, Debug)]
pub struct ForeignConfig {
    /// The HAs it takes CSAs from.
    pub home_agents: Vec<HomeAgent>,
    /// The FAs it hands CSAs on to.
    pub neighbours: Vec<Agent>,
    /// CSAs it holds at most.
    pub max_csas: usize,
    /// How long a CSA handed on is remembered, in case its new FA asks again.
    pub memory: Duration,
    /// How long a revocation is remembered: longer than a CSA_DISTRIBUTE from before it is sent again.
    pub revoked: Duration,
    /// The UDP port that datagrams to many come to, if it listens to them (docs/wire.md 3.3l).
    pub multicast: Option<u16>,
}

impl Default for ForeignConfig {
    fn default() -> Self {
        ForeignConfig {
            home_agents: Vec::new(),
            neighbours: Vec::new(),
            max_csas: 65_536,
            memory: Duration::from_secs(30),
            revoked: Duration::from_secs(120),
            multicast: None,
        }
    }
}
