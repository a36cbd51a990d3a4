// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is installed, and by whom it was negotiated.

use super::mobile::Place;
use crate::daemon::kernel::{Held, SaId};
use mml_ike::event::{ChildId, IkeId, Time};
use mml_ike::wire::Id;
use pfkey::Selector;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
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

/// Children, found by their connection, too: a home agent has thousands, of thousands of connections.
///
/// # Invariants
///
/// `of` has each child under its connection, and nothing else.
#[derive(Default, Debug)]
pub struct Children {
    all: BTreeMap<ChildId, Child>,
    of: HashMap<usize, BTreeSet<ChildId>>,
}

impl Deref for Children {
    type Target = BTreeMap<ChildId, Child>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Children {
    /// Adds one, in place of the one of that number.
    pub fn insert(&mut self, id: ChildId, child: Child) {
        self.remove(&id);
        self.of.entry(child.connection).or_default().insert(id);
        self.all.insert(id, child);
    }

    /// Takes one away.
    pub fn remove(&mut self, id: &ChildId) -> Option<Child> {
        let child = self.all.remove(id)?;
        if let Entry::Occupied(mut of) = self.of.entry(child.connection) {
            of.get_mut().remove(id);
            if of.get().is_empty() {
                of.remove();
            }
        }
        Some(child)
    }

    /// Changes one, if it is here.
    pub fn change<T>(&mut self, id: ChildId, change: impl FnOnce(&mut Child) -> T) -> Option<T> {
        let mut child = self.remove(&id)?;
        let done = change(&mut child);
        self.insert(id, child);
        Some(done)
    }

    /// They are of another IKE SA now.
    pub fn inherit(&mut self, old: IkeId, new: IkeId) {
        for child in self.all.values_mut().filter(|child| child.ike == old) {
            child.ike = new;
        }
    }

    /// Those of a connection.
    fn of(&self, connection: usize) -> impl Iterator<Item = (ChildId, &Child)> {
        let ids = self.of.get(&connection).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }
}

/// All of it.
#[derive(Default)]
pub struct Book {
    /// IKE SAs that are up.
    pub ikes: BTreeMap<IkeId, Ike>,
    /// IKE SAs this side has begun and that aren't up, with their connections.
    pub starting: BTreeMap<IkeId, usize>,
    /// Children.
    pub children: Children,
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
        self.children.of(connection)
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

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey::Role;

    fn child(connection: usize) -> Child {
        let id = SaId {
            spi: 0x1000,
            src: IpAddr::from([198, 51, 100, 1]),
            dst: IpAddr::from([10, 1, 1, 7]),
            role: Role::Origin,
        };
        let any = crate::address::Prefix::ANY;
        Child {
            ike: IkeId(1),
            connection,
            peer: Id::fqdn("mh.example"),
            inbound: id,
            outbound: id,
            udp: None,
            composite: true,
            generation: 1,
            transforms: Vec::new(),
            selector: crate::address::selector(any, any, 0).unwrap(),
            sealing: false,
            since: Time::ZERO,
            ends: Time::ZERO,
        }
    }

    #[test]
    fn children_are_found_by_their_connection_whatever_becomes_of_them() {
        let mut book = Book::default();
        let of = |book: &Book, connection| -> Vec<u64> {
            book.children_of(connection).map(|(id, _)| id.0).collect()
        };
        for (id, connection) in [(1, 7), (2, 8), (3, 7)] {
            book.children.insert(ChildId(id), child(connection));
        }
        assert_eq!((of(&book, 7), of(&book, 8)), (vec![1, 3], vec![2]));
        // One is of another connection now, and one is another.
        let moved = book.children.change(ChildId(1), |one| one.connection = 8);
        assert_eq!(moved, Some(()));
        book.children.insert(ChildId(3), child(9));
        assert_eq!((of(&book, 7), of(&book, 8)), (vec![], vec![1, 2]));
        assert_eq!(of(&book, 9), [3]);
        book.children.inherit(IkeId(1), IkeId(5));
        assert!(book.children.values().all(|one| one.ike == IkeId(5)));
        assert!(book.children.remove(&ChildId(3)).is_some());
        assert!(book.children.remove(&ChildId(3)).is_none());
        assert_eq!(book.children.change(ChildId(3), |_| ()), None);
        assert!(of(&book, 9).is_empty());
        assert_eq!(book.children.len(), 2);
    }
}
