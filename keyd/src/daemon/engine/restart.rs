// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! After a restart: what the kernel still has is read back, claimed from its peer, and replaced (docs/wire.md 3.2v).

use super::book::{Child, Orphan, Relay};
use super::children::{transform_name, LATEST};
use super::{Engine, Task};
use crate::daemon::config::Role as Node;
use crate::daemon::kernel::{Held, Keys, Role, Zones};
use mml_ike::config::ZoneRole;
use mml_ike::event::{AdoptedCsa, ChildId, IkeId, Time};
use mml_ike::wire::{CsaIdentity, Id, TrafficSelector};
use pfkey::{PortRange, Selector};
use std::net::IpAddr;
use std::time::Duration;

/// How long a relay CSA may outlive a restart where the kernel doesn't say when it ends.
const RELAY_LIFETIME: Duration = Duration::from_secs(3600);

fn zones(held: &Held) -> Option<&Zones> {
    match &held.sa.keys {
        Keys::Zones(zones) => Some(zones),
        Keys::Plain { .. } => None,
    }
}

fn generation(held: &Held) -> u32 {
    zones(held).map_or(0, |zones| zones.generation)
}

/// The other direction of a CSA, taken out of `others`. Generations begin anew when both ends forget, so that of several
/// the one is meant that was installed at the same time.
fn take_pair(one: &Held, others: &mut Vec<Held>) -> Option<Held> {
    let is_pair = |other: &&Held| {
        (one.sa.id.src, one.sa.id.dst) == (other.sa.id.dst, other.sa.id.src)
            && generation(one) == generation(other)
            && one.sa.peer == other.sa.peer
    };
    let apart = |other: &Held| one.since.abs_diff(other.since);
    let (at, _) = others
        .iter()
        .enumerate()
        .filter(|(_, other)| is_pair(other))
        .min_by_key(|(_, other)| apart(other))?;
    Some(others.swap_remove(at))
}

/// A selector's two sides as IKE says them.
fn traffic(selector: &Selector) -> (TrafficSelector, TrafficSelector) {
    let side = |octets: &[u8; 16], len, ports: PortRange| {
        let address: IpAddr = crate::address::ip(selector.family, octets);
        let (start_port, end_port) = ports.bounds();
        TrafficSelector {
            protocol: selector.protocol,
            start_port,
            end_port,
            ..TrafficSelector::prefix(address, len)
        }
    };
    (
        side(&selector.src, selector.src_len, selector.src_ports),
        side(&selector.dst, selector.dst_len, selector.dst_ports),
    )
}

impl Orphan {
    /// The CSA as it is claimed.
    fn identity(&self) -> Option<CsaIdentity> {
        let (inbound, outbound) = (zones(&self.inbound)?, zones(&self.outbound)?);
        let left = self.outbound.left.unwrap_or(0);
        Some(CsaIdentity {
            generation: inbound.generation,
            mode: inbound.map.mode(),
            relay_number: 0,
            spi_in: self.inbound.sa.id.spi,
            spi_out: self.outbound.sa.id.spi,
            replay_window: inbound.window,
            sequence_in: inbound.sequence,
            sequence_out: outbound.sequence,
            lifetime: u32::try_from(left).unwrap_or(u32::MAX),
            may_write: inbound.relay.may_write,
            standby: false,
            source: self.outbound.sa.id.src,
            destination: self.outbound.sa.id.dst,
        })
    }

    /// All the protocol has to know of it. A CSA without limit gets the connection's.
    fn adopted(&self, role: ZoneRole, lifetime: Duration) -> Option<AdoptedCsa> {
        let (inbound, outbound) = (zones(&self.inbound)?, zones(&self.outbound)?);
        let mut identity = self.identity()?;
        if identity.lifetime == 0 {
            identity.lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        }
        let (local, remote) = traffic(&self.outbound.sa.selector);
        let (to, from) = (inbound.zones.first()?, outbound.zones.first()?);
        Some(AdoptedCsa {
            identity,
            local_ts: vec![local],
            remote_ts: vec![remote],
            map: inbound.map,
            transforms: inbound
                .zones
                .iter()
                .map(|(transform, _)| *transform)
                .collect(),
            role,
            zone1: (role == ZoneRole::Home).then(|| (to.1.clone(), from.1.clone())),
        })
    }
}

impl Engine {
    /// Reads back what the module still has.
    pub(super) fn read_back(&mut self, now: Time) {
        let Some(module) = &mut self.host.kernels.mml else {
            return;
        };
        let held = match module.held() {
            Ok(held) => held,
            Err(error) => {
                tracing::error!("what the kernel still has can't be read: {error}");
                return;
            }
        };
        let (relays, ends): (Vec<Held>, Vec<Held>) = held
            .into_iter()
            .partition(|held| held.sa.id.role == Role::Relay);
        let (mut inbound, outbound): (Vec<Held>, Vec<Held>) = ends
            .into_iter()
            .partition(|held| held.sa.id.role == Role::Terminus);
        for outbound in outbound {
            let Some(inbound) = take_pair(&outbound, &mut inbound) else {
                self.remove(&outbound.sa.id, true);
                continue;
            };
            let own = |one: &mml_ike::config::Connection| one.remote_id.matches(&inbound.sa.peer);
            let connection = self
                .config
                .ike
                .connections
                .iter()
                .position(|one| one.child.is_some() && own(one));
            tracing::info!(
                peer = %inbound.sa.peer,
                "CSA {:#010x}/{:#010x} outlived the restart",
                inbound.sa.id.spi,
                outbound.sa.id.spi
            );
            self.host.book.orphans.push(Orphan {
                inbound,
                outbound,
                connection,
            });
        }
        // What only opens was on its way out when its daemon ended.
        for one in inbound {
            let linger = self.config.ike.linger;
            self.later(now + linger, Task::Remove(one.sa.id, true));
        }
        if self.config.role == Node::Fa {
            self.relays_read_back(relays, now);
        }
        self.addresses_read_back(now);
    }

    /// FA: relay CSAs go on; they end with a new distribution, a revocation, or their life-time.
    fn relays_read_back(&mut self, relays: Vec<Held>, now: Time) {
        let of_ha = |held: &Held| {
            let agents = &self.config.ike.foreign.home_agents;
            let prefixes = agents.iter().flat_map(|agent| &agent.prefixes);
            let home = crate::address::ip(held.sa.selector.family, &held.sa.selector.dst);
            prefixes.into_iter().any(|prefix| prefix.holds(home))
        };
        let (to_host, mut back): (Vec<Held>, Vec<Held>) = relays.into_iter().partition(of_ha);
        for outbound in to_host {
            let Some(inbound) = take_pair(&outbound, &mut back) else {
                self.remove(&outbound.sa.id, true);
                continue;
            };
            let transform = zones(&outbound).and_then(|zones| zones.zones.first());
            let relay = Relay {
                outbound: outbound.sa.id,
                inbound: inbound.sa.id,
                selector: outbound.sa.selector,
                generation: generation(&outbound),
                transform: transform
                    .map(|(one, _)| transform_name(one))
                    .unwrap_or_default(),
                number: zones(&outbound).map_or(0, |zones| zones.relay.number),
                standby: outbound.sa.standby,
                since: now,
            };
            tracing::info!(
                "relay CSA {:#010x} outlived the restart",
                relay.outbound.spi
            );
            let key = (relay.outbound.dst, relay.outbound.spi);
            // The kernel's own limit, if it has one, comes first.
            let left = outbound.left.map_or(RELAY_LIFETIME, Duration::from_secs);
            self.later(now + left + Duration::from_secs(1), Task::Forget(key, now));
            self.host.book.relays.insert(key, relay);
        }
        for one in back {
            self.remove(&one.sa.id, true);
        }
    }

    /// FA: a relay CSA that outlived a restart, or was replaced, is over, unless it was given again.
    pub(super) fn forget(&mut self, key: (IpAddr, u32), since: Time) {
        let relays = &mut self.host.book.relays;
        if relays.get(&key).is_some_and(|relay| relay.since == since) {
            if let Some(relay) = relays.remove(&key) {
                self.endpoint.forget_relay(key.0, key.1);
                self.remove(&relay.outbound, true);
                self.remove(&relay.inbound, true);
            }
        }
    }

    /// Begins an IKE SA with the peer of what outlived a restart, where it was last, unless there is one.
    pub(super) fn reclaim(&mut self, peer: &Id, now: Time) {
        let book = &self.host.book;
        let mut orphans = book.orphans.iter();
        let Some(orphan) = orphans.find(|orphan| orphan.inbound.sa.peer == *peer) else {
            return;
        };
        let Some(connection) = orphan.connection else {
            tracing::warn!(%peer, "a CSA outlived the restart that no connection is for; it ends with its life-time");
            return;
        };
        let up = book.ikes.values().any(|ike| ike.peer == *peer);
        let one = &self.config.connections[connection];
        let id = orphan.outbound.sa.id;
        if up || !self.config.addresses.contains(&id.src) {
            return;
        }
        if one.remote.is_some() {
            self.begin(connection, now);
        } else {
            self.begin_at(connection, Some(peer), id.src, id.dst, now);
        }
    }

    /// An IKE SA is up: CSAs that outlived a restart are claimed from its peer.
    pub(super) fn claim(&mut self, ike: IkeId, now: Time) {
        let Some(info) = self.host.book.ikes.get(&ike) else {
            return;
        };
        let role = self.config.ike.connections[info.connection]
            .child
            .as_ref()
            .and_then(|child| child.zones.as_ref())
            .map(|zones| zones.role);
        let tunnel = self.config.connections[info.connection].tunnel.as_ref();
        let (Some(role), Some(tunnel), true) = (role, tunnel, info.zones) else {
            return;
        };
        let orphans = self.host.book.orphans.iter();
        let of_peer = orphans.filter(|orphan| orphan.inbound.sa.peer == info.peer);
        let claimed: Vec<AdoptedCsa> = of_peer
            .filter_map(|orphan| orphan.adopted(role, tunnel.lifetime))
            .collect();
        if claimed.is_empty() {
            return;
        }
        tracing::info!(peer = %info.peer, count = claimed.len(), "CSAs are claimed");
        if let Err(error) = self.endpoint.claim(ike, claimed, now, &mut self.host) {
            tracing::warn!("they can't be: {error}");
        }
    }

    /// A CSA has another IKE SA: this side claimed it, or its peer came back and did.
    pub(super) fn claimed(
        &mut self,
        ike: IkeId,
        child: ChildId,
        spi_in: u32,
        spi_out: u32,
        now: Time,
    ) {
        self.counters.claimed += 1;
        let connection = match self.host.book.ikes.get(&ike) {
            Some(info) => info.connection,
            None => return,
        };
        let children = &mut self.host.book.children;
        let known = children.change(child, |known| {
            (known.ike, known.connection) = (ike, connection);
        });
        if known.is_some() {
            tracing::info!(
                "CSA {spi_in:#010x}/{spi_out:#010x} has another IKE SA: {}",
                ike.0
            );
            return;
        }
        let orphans = &mut self.host.book.orphans;
        let at = orphans.iter().position(|orphan| {
            (orphan.inbound.sa.id.spi, orphan.outbound.sa.id.spi) == (spi_in, spi_out)
        });
        let Some(at) = at else { return };
        let orphan = orphans.swap_remove(at);
        let transforms = zones(&orphan.inbound).map(|zones| &zones.zones);
        let names = transforms
            .into_iter()
            .flatten()
            .map(|(one, _)| transform_name(one));
        let lifetime = self.config.connections[connection]
            .tunnel
            .as_ref()
            .map_or(Duration::ZERO, |tunnel| tunnel.lifetime);
        let peer = orphan.inbound.sa.peer.clone();
        let entry = Child {
            ike,
            connection,
            peer: peer.clone(),
            inbound: orphan.inbound.sa.id,
            outbound: orphan.outbound.sa.id,
            udp: orphan.outbound.sa.udp.map(|(source, destination)| {
                let id = orphan.outbound.sa.id;
                ((id.src, source).into(), (id.dst, destination).into())
            }),
            composite: true,
            generation: generation(&orphan.inbound),
            transforms: names.collect(),
            selector: orphan.outbound.sa.selector,
            sealing: !orphan.outbound.sa.standby,
            since: now,
            ends: now + orphan.outbound.left.map_or(lifetime, Duration::from_secs),
        };
        self.host.book.children.insert(child, entry);
        self.adopted.insert(child);
        tracing::info!("CSA {spi_in:#010x}/{spi_out:#010x} is claimed");
        self.retire(connection, &peer, now);
    }

    /// There is a fresh CSA with a peer: those that outlived a restart are closed, since nothing can be made of their keys.
    pub(super) fn supersede(&mut self, fresh: ChildId, now: Time) {
        let fresh = self.host.book.children.get(&fresh);
        if let Some(fresh) = fresh.filter(|fresh| fresh.composite && fresh.sealing) {
            let (connection, peer) = (fresh.connection, fresh.peer.clone());
            self.retire(connection, &peer, now);
        }
    }

    fn retire(&mut self, connection: usize, peer: &Id, now: Time) {
        let children = || {
            self.host
                .book
                .children_with(connection, peer)
                .filter(|(_, child)| child.composite)
        };
        let newest = children()
            .filter(|(_, child)| child.sealing)
            .map(|(_, child)| child.generation)
            .max();
        // Of a rekeying the protocol closes the old one itself; a claimed one is closed here, once a fresh one seals.
        let old: Vec<(IkeId, ChildId)> = children()
            .filter(|(id, child)| {
                newest.is_some_and(|newest| child.generation < newest) && self.adopted.contains(id)
            })
            .map(|(id, child)| (child.ike, id))
            .collect();
        for (ike, child) in old {
            self.adopted.remove(&child);
            if let Err(error) = self.endpoint.delete_child(ike, child, now, &mut self.host) {
                tracing::warn!("a CSA that outlived the restart can't be closed: {error}");
            }
        }
    }

    /// What the peer knows of what was claimed. The rest is over: a peer that forgot it too opens it for a while, so that it
    /// may seal until the fresh one does.
    pub(super) fn claim_answered(&mut self, ike: IkeId, held: &[CsaIdentity], now: Time) {
        let Some(peer) = self.host.book.ikes.get(&ike).map(|ike| ike.peer.clone()) else {
            return;
        };
        let orphans = std::mem::take(&mut self.host.book.orphans);
        let (gone, kept): (Vec<Orphan>, Vec<Orphan>) = orphans.into_iter().partition(|orphan| {
            orphan.inbound.sa.peer == peer
                && !held
                    .iter()
                    .any(|one| one.spi_in == orphan.inbound.sa.id.spi)
        });
        self.host.book.orphans = kept;
        for orphan in gone {
            tracing::info!(%peer, "CSA {:#010x} is not known to its peer, and goes", orphan.inbound.sa.id.spi);
            let linger = self.config.ike.linger;
            let last = (LATEST + Duration::from_secs(1)).min(linger);
            self.later(now + last, Task::Remove(orphan.outbound.sa.id, true));
            self.later(now + linger, Task::Remove(orphan.inbound.sa.id, true));
        }
    }
}
