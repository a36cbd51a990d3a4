// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Child SAs, from when they are negotiated to when they are taken out of the kernel.

use super::book::Child;
use super::{Engine, Task, WATCH};
use crate::daemon::config::value::cipher_name;
use crate::daemon::kernel::{Error, Keys, Limits, Role, Sa, SaId, Zones};
use mml_ike::event::{ChildFailure, ChildId, ChildSa, ChildUp, IkeId, Time, ZoneKeys};
use mml_ike::wire::{TrafficSelector, ZoneTransform};
use pfkey::{Algorithm, Family, PortRange, Relay, Selector};
use std::net::IpAddr;
use std::time::Duration;

/// How long a peer that came back may take to seal with its new CSA.
pub(super) const LATEST: Duration = Duration::from_secs(2);
/// How long an SA that XFRM seals with no longer stays: a packet for which it chose that one just before is dropped if the
/// SA goes before it is sealed.
const CHOSEN: Duration = Duration::from_secs(1);
/// XFRM's policies find a connection's SAs by a number of ours: "ML", then its place.
const REQID: u32 = 0x4D4C_0000;

/// The number XFRM knows a connection by.
pub(super) fn reqid(connection: usize) -> u32 {
    REQID | u32::try_from(connection & 0xFFFF).unwrap_or(0)
}

/// What a zone's transform is called.
pub(super) fn transform_name(transform: &ZoneTransform) -> String {
    Algorithm::from_encr(transform.encr.0).map_or_else(
        || format!("ENCR {}", transform.encr.0),
        |algorithm| algorithm.name(transform.key_bits).to_owned(),
    )
}

/// Why there is no child, in words.
pub(super) fn failure(why: &ChildFailure) -> String {
    match why {
        ChildFailure::Refused(notify) => format!("the peer refused it: {notify}"),
        ChildFailure::NoZones => "the peer offers a plain one, and `zones = \"required\"`".into(),
        ChildFailure::Answer => "the peer's answer is none to what was asked".into(),
        ChildFailure::Address => {
            "the peer gives no address, and `request-address` asks for one; give it a `pool`".into()
        }
        ChildFailure::Local => "no SPI, or no randomness, is to be had here".into(),
    }
}

/// The selector of packets from one set of addresses to another; `None` where the kernel can't say it: it has one
/// prefix and one range of ports each side, and neither OPAQUE ports nor ICMP's types.
pub(super) fn selector(from: &[TrafficSelector], to: &[TrafficSelector]) -> Option<Selector> {
    let ([from], [to]) = (from, to) else {
        return None;
    };
    let prefix = |ts: &TrafficSelector| {
        let ports = PortRange::new(ts.start_port, ts.end_port)?;
        let (family, start, differ) = match (ts.start, ts.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                let differ = u32::from(start) ^ u32::from(end);
                (Family::V4, ts.start, u128::from(differ))
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                (Family::V6, ts.start, u128::from(start) ^ u128::from(end))
            }
            _ => return None,
        };
        // All bits behind the prefix are 0 at the start and 1 at the end.
        let bits = u8::try_from(128 - differ.leading_zeros()).ok()?;
        let len = family.bits().checked_sub(bits)?;
        let prefix = TrafficSelector::prefix(start, len);
        let aligned = (prefix.start, prefix.end) == (ts.start, ts.end);
        aligned.then(|| (family, crate::address::host(start).octets, len, ports))
    };
    let (family, src, src_len, src_ports) = prefix(from)?;
    let (other, dst, dst_len, dst_ports) = prefix(to)?;
    let selector = Selector {
        family,
        protocol: from.protocol,
        src_len,
        dst_len,
        src,
        dst,
        src_ports,
        dst_ports,
    };
    let same = family == other && from.protocol == to.protocol;
    (same && selector.is_sound()).then_some(selector)
}

/// Refusals of ours look like the kernel's.
fn refused(text: &str) -> Error {
    Error::Refused {
        errno: pfkey::errno::EINVAL,
        text: Some(text.to_owned()),
    }
}

/// The two directions of a child, to this node and from it.
fn directions(
    up: &ChildUp,
    selector: Selector,
    soft: Limits,
    hard: Limits,
    peer: mml_ike::wire::Id,
    connection: usize,
    holds: bool,
) -> [Sa; 2] {
    let (local, remote) = (up.local, up.remote);
    let (in_keys, out_keys) = match &up.keys {
        ChildSa::Plain {
            suite,
            keys_in,
            keys_out,
        } => {
            let keys = |keys: &mml_ike::crypto::KeyPair| Keys::Plain {
                cipher: suite.cipher,
                esn: suite.esn,
                keys: keys.clone(),
            };
            (keys(keys_in), keys(keys_out))
        }
        ChildSa::Composite {
            map,
            zones,
            generation,
            may_write,
            replay_window,
            peer_replay_window,
        } => {
            let keys = |window, inbound: bool| {
                let pair = |zone: &ZoneKeys| {
                    let keys = if inbound {
                        &zone.keys_in
                    } else {
                        &zone.keys_out
                    };
                    (zone.transform, keys.clone())
                };
                Keys::Zones(Box::new(Zones {
                    map: *map,
                    generation: *generation,
                    window,
                    sequence: 0,
                    relay: Relay {
                        may_write: *may_write,
                        number: 0,
                        hold: holds && !inbound,
                    },
                    zones: zones.iter().map(pair).collect(),
                    snoop: None,
                }))
            };
            (keys(*replay_window, true), keys(*peer_replay_window, false))
        }
    };
    let inbound = Sa {
        id: SaId {
            spi: up.spi_in,
            src: remote.ip(),
            dst: local.ip(),
            role: Role::Terminus,
        },
        selector: selector.reversed(),
        standby: false,
        soft,
        hard,
        udp: up.udp.then_some((remote.port(), local.port())),
        mode: up.mode,
        reqid: reqid(connection),
        peer,
        keys: in_keys,
    };
    let outbound = Sa {
        id: SaId {
            spi: up.spi_out,
            src: local.ip(),
            dst: remote.ip(),
            role: Role::Origin,
        },
        selector,
        standby: !up.seal_now,
        udp: up.udp.then_some((local.port(), remote.port())),
        keys: out_keys,
        ..inbound.clone()
    };
    [inbound, outbound]
}

impl Engine {
    pub(super) fn child_up(&mut self, mut up: ChildUp, now: Time) {
        let composite = matches!(up.keys, ChildSa::Composite { .. });
        if composite && self.has_another(&up) {
            up.seal_now = false;
            self.later(now + LATEST, Task::Seal(up.child));
        }
        let done = self.install(&up, composite, now);
        self.host.release(up.spi_in, done.is_ok() && !composite);
        match done {
            Ok(connection) => {
                self.host.book.failures.remove(&connection);
                let name = self.name(connection);
                let kind = if composite { "CSA" } else { "plain child" };
                tracing::info!(
                    connection = name,
                    replaces = up.replaces.map(|old| old.0),
                    "{kind} {} is up: {:#010x} in, {:#010x} out",
                    up.child.0,
                    up.spi_in,
                    up.spi_out
                );
                if composite {
                    self.counters.composite_up += 1;
                } else {
                    self.counters.plain_up += 1;
                }
                if up.replaces.is_some() {
                    self.counters.rekeyed += 1;
                }
                if !up.seal_now {
                    self.later(now + WATCH, Task::Watch(up.child));
                }
                self.supersede(up.child, now);
                self.give_handover_key();
            }
            Err(error) => {
                self.counters.install_failed += 1;
                tracing::error!(
                    "child {} can't be installed, and is closed again: {error}",
                    up.child.0
                );
                if let Some(ike) = self.host.book.ikes.get(&up.ike) {
                    let why = format!("the kernel doesn't take it: {error}");
                    self.child_lacks(ike.connection, why);
                }
                if let Err(error) =
                    self.endpoint
                        .delete_child(up.ike, up.child, now, &mut self.host)
                {
                    tracing::warn!("child {} can't be closed: {error}", up.child.0);
                }
            }
        }
    }

    /// Whether the peer, who began the IKE SA, has a CSA with this side already: it came back from a restart. It knows the
    /// new one's keys only once the answer is there, so that until its first packet under it the old one seals.
    fn has_another(&self, up: &ChildUp) -> bool {
        let book = &self.host.book;
        let Some(ike) = book.ikes.get(&up.ike) else {
            return false;
        };
        let remote = up.remote.ip();
        let mut children = book.children_with(ike.connection, &ike.peer);
        let child =
            children.any(|(_, one)| one.composite && one.sealing && one.outbound.dst == remote);
        // This side may have come back as well.
        let orphan = book.orphans.iter().any(|one| {
            one.connection == Some(ike.connection)
                && one.outbound.sa.peer == ike.peer
                && !one.outbound.sa.standby
                && one.outbound.sa.id.dst == remote
        });
        up.replaces.is_none() && !ike.initiated && (child || orphan)
    }

    /// Puts a child into its kernel, inbound first. Gives its connection (docs/wire.md 2.2u).
    fn install(&mut self, up: &ChildUp, composite: bool, now: Time) -> Result<usize, Error> {
        let book = &self.host.book;
        let known = book.ikes.get(&up.ike).map(|ike| ike.connection);
        let connection = known
            .or_else(|| book.starting.get(&up.ike).copied())
            .ok_or_else(|| refused("its IKE SA is not known"))?;
        let peer = self
            .endpoint
            .peer(up.ike)
            .cloned()
            .ok_or_else(|| refused("its peer is not known"))?;
        let tunnel = self
            .config
            .connections
            .get(connection)
            .and_then(|one| one.tunnel.as_ref());
        let tunnel = tunnel.ok_or_else(|| refused("its connection has no tunnel"))?;
        let selector = selector(&up.local_ts, &up.remote_ts).ok_or_else(|| {
            refused("the peer narrowed it to what the kernel can't select: it takes one prefix a side, and no ports")
        })?;
        let seconds = |age: Duration| age.as_secs().max(1);
        let soft = Limits {
            seconds: seconds(tunnel.rekey),
            bytes: tunnel.soft_bytes,
        };
        let hard = Limits {
            seconds: seconds(up.lifetime),
            bytes: tunnel.hard_bytes,
        };
        let holds = self.hands_over() && self.needs_registration(connection);
        let [inbound, outbound] =
            directions(up, selector, soft, hard, peer.clone(), connection, holds);
        let kernel = self.host.kernels.of(composite).ok_or_else(|| {
            refused(if composite {
                "the kernel module isn't loaded"
            } else {
                "the kernel has no XFRM"
            })
        })?;
        kernel.add(&inbound)?;
        if let Err(error) = kernel.add(&outbound) {
            if let Err(more) = kernel.remove(&inbound.id) {
                tracing::warn!("{} can't be taken away again: {more}", inbound.id);
            }
            return Err(error);
        }
        let transforms = match &up.keys {
            ChildSa::Plain { suite, .. } => vec![cipher_name(suite.cipher).to_owned()],
            ChildSa::Composite { zones, .. } => zones
                .iter()
                .map(|zone| transform_name(&zone.transform))
                .collect(),
        };
        let generation = match &up.keys {
            ChildSa::Plain { .. } => 0,
            ChildSa::Composite { generation, .. } => *generation,
        };
        let child = Child {
            ike: up.ike,
            connection,
            peer,
            inbound: inbound.id,
            outbound: outbound.id,
            udp: up.udp.then_some((up.local, up.remote)),
            composite,
            generation,
            transforms,
            selector,
            sealing: up.seal_now,
            since: now,
            ends: now + up.lifetime,
        };
        if !composite {
            self.plain_policies(connection, &child)?;
        }
        self.host.book.children.insert(up.child, child);
        Ok(connection)
    }

    /// The node may seal with a child from now on.
    pub(super) fn seal(&mut self, id: ChildId, now: Time) {
        let host = &mut self.host;
        let children = &mut host.book.children;
        let Some(child) = children.get(&id).filter(|child| !child.sealing) else {
            return;
        };
        let Some(kernel) = host.kernels.of(child.composite) else {
            return;
        };
        if let Err(error) = kernel.activate(&child.outbound) {
            tracing::error!("{} can't be made active: {error}", child.outbound);
            return;
        }
        let sealing = children.change(id, |child| {
            child.sealing = true;
            child.clone()
        });
        let Some(child) = sealing else { return };
        tracing::info!("sealing with child {} now", id.0);
        if !child.composite {
            // A policy remembers which SA it used last; put anew it takes the newest.
            if let Err(error) = self.plain_policies(child.connection, &child) {
                tracing::error!("XFRM's policies for child {}: {error}", id.0);
            }
        }
        self.supersede(id, now);
    }

    /// Where no CSA with a peer seals any more, the newest of those that wait for its first packet does: the peer has closed
    /// the other, so it opens this one.
    fn seal_with_another(&mut self, gone: &Child, now: Time) {
        let children = || {
            let book = &self.host.book;
            let all = book.children_with(gone.connection, &gone.peer);
            all.filter(|(_, child)| child.composite)
        };
        if children().any(|(_, child)| child.sealing) {
            return;
        }
        let newest = children().max_by_key(|(_, child)| (child.generation, child.since));
        if let Some((id, _)) = newest {
            self.seal(id, now);
        }
    }

    /// Whether the peer's first good packet under a CSA came: then this side seals with it too
    /// (docs/wire.md 2.2u, 3.2o, 3.2p).
    pub(super) fn watch(&mut self, id: ChildId, now: Time) {
        let host = &mut self.host;
        let Some(child) = host.book.children.get(&id).filter(|child| !child.sealing) else {
            return;
        };
        let kernel = host.kernels.of(child.composite);
        let seen = kernel.and_then(|kernel| kernel.sequence(&child.inbound).ok());
        if seen.is_some_and(|sequence| sequence != 0) {
            self.seal(id, now);
        } else {
            self.later(now + WATCH, Task::Watch(id));
        }
    }

    /// A child is over: nothing is sealed with it any more, and what is on its way may come for `linger`.
    pub(super) fn child_down(&mut self, id: ChildId, linger: Duration, now: Time) {
        let Some(child) = self.host.book.children.remove(&id) else {
            return;
        };
        tracing::info!(
            connection = self.name(child.connection),
            "child {} is down",
            id.0
        );
        self.counters.child_down += 1;
        self.adopted.remove(&id);
        if child.composite {
            self.seal_with_another(&child, now);
        }
        let another = |(_, one): (ChildId, &Child)| {
            !one.composite && one.sealing && one.selector == child.selector
        };
        let book = &self.host.book;
        let replaced = book.children_of(child.connection).any(another);
        if !child.composite && replaced {
            self.later(now + CHOSEN, Task::Remove(child.outbound, false));
        } else {
            self.remove(&child.outbound, child.composite);
        }
        if linger.is_zero() {
            self.remove(&child.inbound, child.composite);
        } else {
            self.later(now + linger, Task::Remove(child.inbound, child.composite));
        }
        if !child.composite {
            self.no_plain_policies(&child);
        }
    }

    /// Takes an SA out of its kernel.
    pub(super) fn remove(&mut self, id: &SaId, composite: bool) {
        let Some(kernel) = self.host.kernels.of(composite) else {
            return;
        };
        if let Err(error) = kernel.remove(id) {
            tracing::error!("{id} can't be taken away: {error}");
        }
    }

    /// The kernel says that an SA came to a limit.
    pub(super) fn expired(&mut self, id: &SaId, hard: bool, now: Time) {
        let Some(child) = self.host.book.child_of(id) else {
            self.relay_expired(id, hard);
            return;
        };
        let ike = match self.host.book.children.get(&child) {
            Some(child) => child.ike,
            None => return,
        };
        let which = if hard { "hard" } else { "soft" };
        tracing::info!("{id} came to its {which} limit");
        let done = if hard {
            self.endpoint.delete_child(ike, child, now, &mut self.host)
        } else {
            self.endpoint.rekey_child(ike, child, now, &mut self.host)
        };
        match done {
            Ok(()) => {}
            // Its IKE SA was lost: it ends with its limit.
            Err(_) if hard => self.child_down(child, Duration::ZERO, now),
            Err(error) => tracing::warn!("child {} can't be rekeyed: {error}", child.0),
        }
    }

    /// The IKE SA a child is of, for commands.
    pub(super) fn ike_of_child(&self, child: ChildId) -> Option<IkeId> {
        self.host.book.children.get(&child).map(|child| child.ike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_selector_only_if_it_is_one_prefix_and_its_ports_are_some() {
        let prefix = |text: &str, bits| TrafficSelector::prefix(text.parse().unwrap(), bits);
        let (net, host) = (prefix("192.0.2.0", 24), prefix("203.0.113.7", 32));
        let one = selector(&[net], &[host]).unwrap();
        assert_eq!((one.src_len, one.dst_len, one.protocol), (24, 32, 0));
        assert!(one.is_sound());
        let any = TrafficSelector::any("0.0.0.0".parse().unwrap());
        assert_eq!(selector(&[any], &[host]).unwrap().src_len, 0);
        let v6 = selector(&[prefix("fd00::", 8)], &[prefix("::", 0)]).unwrap();
        assert_eq!((v6.src_len, v6.dst_len), (8, 0));
        let mut range = net;
        range.end = "192.0.2.200".parse().unwrap();
        assert!(selector(&[range], &[host]).is_none());
        let mut range = net;
        range.start = "192.0.2.1".parse().unwrap();
        assert!(selector(&[range], &[host]).is_none());
        let web = selector(&[net.with(6, 80)], &[host.with(6, 0)]).unwrap();
        assert_eq!((web.src_ports.bounds(), web.protocol), ((80, 80), 6));
        assert!(web.dst_ports.is_any());
        let some = |start_port, end_port| TrafficSelector {
            start_port,
            end_port,
            ..net.with(17, 0)
        };
        let range = selector(&[host.with(17, 0)], &[some(8000, 8099)]).unwrap();
        assert_eq!(range.dst_ports.bounds(), (8000, 8099));
        // OPAQUE, port 0, an ICMP type, ports of any protocol.
        assert!(selector(&[some(u16::MAX, 0)], &[host.with(17, 0)]).is_none());
        assert!(selector(&[some(0, 0)], &[host.with(17, 0)]).is_none());
        assert!(selector(&[net.with(1, 0x0800)], &[host.with(1, 0)]).is_none());
        assert!(selector(&[net.with(0, 80)], &[host.with(0, 0)]).is_none());
        assert!(selector(&[net.with(6, 0)], &[host]).is_none());
        assert!(selector(&[net, host], &[host]).is_none());
        assert!(selector(&[net], &[prefix("fd00::", 8)]).is_none());
    }
}
