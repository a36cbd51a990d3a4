// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is installed, and by whom it was negotiated.

use super::mobile::Place;
use crate::daemon::kernel::{Held, SaId};
use mml_ike::event::{ChildId, IkeId, Time};
use mml_ike::wire::Id;
use pfkey::Selector;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// An IKE SA that is up.
#[derive(Clone, Debug)]
pub struct Ike {
    /// Its connection, by its place.
    pub connection: usize,
    /// Who the peer is.
    pub peer: Id,
    /// This side's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether both know zones.
    pub zones: bool,
    /// Whether this side began it.
    pub initiated: bool,
    /// Since when.
    pub since: Time,
}

/// A child SA that is installed.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its IKE SA.
    pub ike: IkeId,
    /// Its connection, by its place.
    pub connection: usize,
    /// Whom it is with: a connection may have many peers.
    pub peer: Id,
    /// To this node.
    pub inbound: SaId,
    /// From this node.
    pub outbound: SaId,
    /// This side's and the peer's end, where packets go within UDP.
    pub udp: Option<(SocketAddr, SocketAddr)>,
    /// Whether it has zones.
    pub composite: bool,
    /// Which CSA of its pair of hosts; 0 for a plain one.
    pub generation: u32,
    /// What seals it, zone by zone.
    pub transforms: Vec<String>,
    /// Packets that leave.
    pub selector: Selector,
    /// Whether this node seals with it.
    pub sealing: bool,
    /// Since when.
    pub since: Time,
    /// When it ends.
    pub ends: Time,
}

/// FA: a CSA of a host that is, or may come, here.
#[derive(Clone, Debug)]
pub struct Relay {
    /// From the HA to the host.
    pub outbound: SaId,
    /// Back.
    pub inbound: SaId,
    /// The packets to the host.
    pub selector: Selector,
    /// Which CSA of its pair of hosts.
    pub generation: u32,
    /// Zone 1's transform.
    pub transform: String,
    /// Which relay under it this is; 0 where the previous foreign agent handed it on.
    pub number: u16,
    /// Whether it waits for its host.
    pub standby: bool,
    /// Since when.
    pub since: Time,
}

/// A CSA that outlived a restart, both directions, and is not claimed yet.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// To this node.
    pub inbound: Held,
    /// From this node.
    pub outbound: Held,
    /// The connection its peer is of, if there is one.
    pub connection: Option<usize>,
}

/// All of it.
#[derive(Default)]
pub struct Book {
    /// IKE SAs that are up.
    pub ikes: BTreeMap<IkeId, Ike>,
    /// IKE SAs this side has begun and that aren't up, with their connections.
    pub starting: BTreeMap<IkeId, usize>,
    /// Children.
    pub children: BTreeMap<ChildId, Child>,
    /// FA: relay CSAs, by outer destination and SPI from the HA.
    pub relays: HashMap<(IpAddr, u32), Relay>,
    /// CSAs that wait to be claimed.
    pub orphans: Vec<Orphan>,
    /// Where mobile hosts are, by home address; a mobile host's own is among them.
    pub mobile: BTreeMap<Ipv4Addr, Place>,
    /// How long to wait before a connection is tried again, where one try failed.
    pub patience: HashMap<usize, Duration>,
    /// Why a connection, or its child, didn't come up or is no more, since it was begun or was up last.
    pub failures: HashMap<usize, String>,
}

impl Book {
    /// Whether an SA to this node has that SPI.
    pub fn has_spi(&self, spi: u32) -> bool {
        self.children.values().any(|child| child.inbound.spi == spi)
            || self
                .orphans
                .iter()
                .any(|orphan| orphan.inbound.sa.id.spi == spi)
    }

    /// A composite SA's two directions, by its SPIs as its end or its distributor names them.
    pub fn directions(&self, spi_in: u32, spi_out: u32) -> Option<(SaId, SaId)> {
        let child = self.children.values().find(|child| {
            child.composite && (child.inbound.spi, child.outbound.spi) == (spi_in, spi_out)
        });
        if let Some(child) = child {
            return Some((child.inbound, child.outbound));
        }
        let mut relays = self.relays.values();
        relays
            .find(|relay| (relay.inbound.spi, relay.outbound.spi) == (spi_in, spi_out))
            .map(|relay| (relay.inbound, relay.outbound))
    }

    /// The child one of whose SAs it is.
    pub fn child_of(&self, id: &SaId) -> Option<ChildId> {
        let mut children = self.children.iter();
        children
            .find(|(_, child)| child.inbound == *id || child.outbound == *id)
            .map(|(child, _)| *child)
    }

    /// The child of that inbound or outbound SPI.
    pub fn child_by_spi(&self, spi: u32) -> Option<ChildId> {
        let mut children = self.children.iter();
        children
            .find(|(_, child)| child.inbound.spi == spi || child.outbound.spi == spi)
            .map(|(child, _)| *child)
    }

    /// A connection's IKE SA that is up: the newest.
    pub fn ike_of(&self, connection: usize) -> Option<IkeId> {
        let mut ikes = self.ikes.iter().rev();
        ikes.find(|(_, ike)| ike.connection == connection)
            .map(|(id, _)| *id)
    }

    /// A connection's children.
    pub fn children_of(&self, connection: usize) -> impl Iterator<Item = (ChildId, &Child)> {
        let of = move |(_, child): &(&ChildId, &Child)| child.connection == connection;
        self.children
            .iter()
            .filter(of)
            .map(|(id, child)| (*id, child))
    }

    /// A connection's children with one of its peers.
    pub fn children_with<'a>(
        &'a self,
        connection: usize,
        peer: &'a Id,
    ) -> impl Iterator<Item = (ChildId, &'a Child)> {
        self.children_of(connection)
            .filter(move |(_, child)| child.peer == *peer)
    }
}
