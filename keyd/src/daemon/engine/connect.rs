// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Beginning IKE SAs, and keeping one of two.

use super::book::Ike;
use super::{Engine, REDUNDANT};
use crate::daemon::config::Start;
use mml_ike::event::{Datagram, IkeId, Time};
use mml_ike::wire::Id;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The shortest time between two tries that packets ask for.
const DEMAND: Duration = Duration::from_secs(2);

impl Engine {
    /// A packet wants a connection's child.
    pub(super) fn demand(&mut self, connection: usize, now: Time) {
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
    pub(super) fn begin(&mut self, connection: usize, now: Time) {
        let one = &self.config.connections[connection];
        let book = &self.host.book;
        let begun = book.starting.values().any(|begun| *begun == connection);
        let Some(remote) = one
            .remote
            .filter(|_| !begun && book.ike_of(connection).is_none())
        else {
            return;
        };
        self.begin_at(connection, None, one.local, remote, now);
    }

    /// Begins a connection's IKE SA between two addresses; with `peer` alone, of several it may be with.
    pub(super) fn begin_at(
        &mut self,
        connection: usize,
        peer: Option<&Id>,
        local: IpAddr,
        remote: IpAddr,
        now: Time,
    ) {
        let one = &self.config.connections[connection];
        let from = SocketAddr::new(local, self.config.port);
        let to = SocketAddr::new(remote, self.config.port);
        match self
            .endpoint
            .initiate_with(connection, peer, from, to, now, &mut self.host)
        {
            Ok(ike) => {
                tracing::info!(connection = one.name, %to, "begun");
                let book = &mut self.host.book;
                book.starting.insert(ike, connection);
                book.failures.remove(&connection);
                self.counters.initiated += 1;
            }
            Err(error) => {
                tracing::error!(connection = one.name, "can't be begun: {error}");
                let why = format!("it can't be begun: {error}");
                self.host.book.failures.insert(connection, why);
            }
        }
    }

    /// Where both sides have begun an IKE SA at once, the one whose identity is the greater closes its own.
    pub(super) fn redundant(&mut self, of: IkeId, now: Time) {
        let ikes = &self.host.book.ikes;
        let Some(looked_at) = ikes.get(&of) else {
            return;
        };
        let own = &self.config.ike.connections[looked_at.connection].local_id;
        let same = |(_, ike): &(&IkeId, &Ike)| {
            (ike.connection, &ike.peer) == (looked_at.connection, &looked_at.peer)
        };
        let pair = ikes.iter().filter(same);
        let (ours, theirs): (Vec<_>, Vec<_>) = pair.partition(|(_, ike)| ike.initiated);
        let ([(id, mine)], true) = (&ours[..], *own > looked_at.peer) else {
            return;
        };
        // An older one may be of before the peer's restart, and dead.
        let alive = |(_, ike): &(&IkeId, &Ike)| ike.since + REDUNDANT >= mine.since;
        if !theirs.iter().any(alive) {
            return;
        }
        let id = **id;
        tracing::info!(
            "IKE SA {} is closed: the peer has begun another at the same time",
            id.0
        );
        if let Err(error) = self.endpoint.delete_ike(id, now, &mut self.host) {
            tracing::debug!("it can't be: {error}");
        }
    }

    /// Sends a packet that says nothing wherever ESP goes within UDP.
    pub(super) fn keep_alive(&mut self) {
        let children = self.host.book.children.values();
        let paths: BTreeSet<_> = children.filter_map(|child| child.udp).collect();
        self.datagrams
            .extend(paths.into_iter().map(|(from, to)| Datagram {
                from,
                to,
                octets: vec![0xFF],
            }));
    }
}
