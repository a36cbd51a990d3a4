// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Relay CSAs: installed at a foreign agent, distributed by a home agent.

use super::book::Relay;
use super::children::{selector, transform_name};
use super::{Engine, Task};
use crate::daemon::config::Relays;
use crate::daemon::kernel::{errno, Error, Keys, Limits, Role, Sa, SaId, Zones};
use mml_ike::crypto::KeyPair;
use mml_ike::event::{ChildId, IkeId, RelayCsa, Time};
use mml_ike::wire::{GroupStatus, Id, Revocation};
use pfkey::Selector;
use std::net::IpAddr;
use std::time::Duration;

/// How long a home agent has to give again what it gave, once its IKE SA is up: a few lost messages more than it takes.
const AGAIN: Duration = Duration::from_secs(10);

/// The one host that packets go to.
pub(super) fn home_of(selector: &Selector) -> Option<IpAddr> {
    let whole = selector.dst_len == selector.family.bits();
    whole.then(|| crate::address::ip(selector.family, &selector.dst))
}

impl Engine {
    /// FA: a CSA to install, or that stands otherwise than before.
    pub(super) fn relay_up(&mut self, csa: &RelayCsa, now: Time) {
        let identity = &csa.identity;
        let home = csa.ts_home.first().map(|ts| ts.start);
        match self.install_relay(csa, now) {
            Ok(()) => {
                self.counters.relay_up += 1;
                self.review_if_amiss(now);
                // It was a standby for the distributor, who hadn't heard yet that the host is here.
                if let Some(home) = home.filter(|home| identity.standby && self.visits(*home)) {
                    self.activate_relays(home);
                }
                self.replaced_relays(csa, now);
                let key = (identity.destination, identity.spi_out);
                let installed = self.host.book.relays.get(&key);
                if let Some((home, id)) = home.zip(installed.map(|relay| relay.outbound)) {
                    self.states_waited(home, &id, now);
                }
                tracing::info!(
                    home = home.map(|home| home.to_string()),
                    standby = identity.standby,
                    generation = identity.generation,
                    "relay CSA {:#010x}/{:#010x} is up",
                    identity.spi_out,
                    identity.spi_in
                );
            }
            Err(error) => {
                self.counters.install_failed += 1;
                tracing::error!(
                    "relay CSA {:#010x} can't be installed; its packets pass unopened: {error}",
                    identity.spi_out
                );
            }
        }
    }

    /// Others for the same packets are revoked when this one has taken their place. A distributor that has restarted knows
    /// nothing of them, and so they go by themselves, later.
    fn replaced_relays(&mut self, csa: &RelayCsa, now: Time) {
        let new = (csa.identity.destination, csa.identity.spi_out);
        let Some(packets) = selector(&csa.ts_source, &csa.ts_home) else {
            return;
        };
        let relays = self.host.book.relays.iter();
        let others = relays.filter(|(key, relay)| {
            let older = relay.generation <= csa.identity.generation;
            **key != new && older && relay.selector == packets
        });
        let others: Vec<_> = others.map(|(key, relay)| (*key, relay.since)).collect();
        let at = now + self.config.ike.linger * 3 / 2;
        for (key, since) in others {
            self.later(at, Task::Forget(key, since));
        }
    }

    fn install_relay(&mut self, csa: &RelayCsa, now: Time) -> Result<(), Error> {
        let refused = |text: &str| Error::Refused {
            errno: pfkey::errno::EINVAL,
            text: Some(text.to_owned()),
        };
        let identity = &csa.identity;
        let to_host = selector(&csa.ts_source, &csa.ts_home).ok_or_else(|| {
            refused(
                "its selectors are none the kernel knows: one prefix and one range of ports a side",
            )
        })?;
        let [outbound, inbound] = self.relay_directions(csa, to_host);
        let key = (identity.destination, identity.spi_out);
        let before = self.host.book.relays.get(&key).cloned();
        let module = self
            .host
            .kernels
            .mml
            .as_mut()
            .ok_or_else(|| refused("the kernel module isn't loaded"))?;
        // The same CSA keeps what its window has seen: of a host that came, or handed on before.
        let same = before.as_ref().filter(|before| {
            let came = before.standby && !identity.standby;
            let same = before.generation == identity.generation && !identity.may_write;
            same && (came || before.number == 0)
        });
        if let Some(before) = same {
            if before.standby && !identity.standby {
                module.activate(&outbound.id)?;
                module.activate(&inbound.id)?;
            }
        } else {
            let mut put = |sa: &Sa| match module.add(sa) {
                // One of before a restart, or under another relay number.
                Err(error) if error.errno() == Some(errno::EEXIST) => {
                    module.remove(&sa.id)?;
                    module.add(sa)
                }
                done => done,
            };
            let done = put(&outbound).and_then(|()| put(&inbound));
            if let Err(error) = done {
                // What isn't in the book, nobody revokes: half of it doesn't stay.
                for sa in [&outbound, &inbound] {
                    if let Err(error) = module.remove(&sa.id) {
                        tracing::debug!("{} wasn't there: {error}", sa.id);
                    }
                }
                self.host.book.relays.remove(&key);
                return Err(error);
            }
        }
        let relay = Relay {
            outbound: outbound.id,
            inbound: inbound.id,
            selector: to_host,
            generation: identity.generation,
            transform: transform_name(&csa.transform),
            number: identity.relay_number,
            standby: identity.standby && same.is_none_or(|before| before.standby),
            since: now,
        };
        self.host.book.relays.insert(key, relay);
        Ok(())
    }

    /// FA: a host came: its CSAs are used from now on (PKD).
    pub(super) fn activate_relays(&mut self, home: IpAddr) {
        let visits = self.visits(home);
        let host = &mut self.host;
        let Some(module) = &mut host.kernels.mml else {
            return;
        };
        // One that is active since the host was here last hears that it comes again (docs/wire.md 2.2z).
        let of = |relay: &&mut Relay| {
            (relay.standby || !visits) && home_of(&relay.selector) == Some(home)
        };
        for relay in host.book.relays.values_mut().filter(of) {
            let both = [relay.outbound, relay.inbound];
            match both.iter().try_for_each(|id| module.activate(id)) {
                Ok(()) if relay.standby => {
                    relay.standby = false;
                    tracing::info!(%home, "relay CSA {:#010x} is used now", relay.outbound.spi);
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::error!("{} can't be made active: {error}", relay.outbound);
                }
            }
        }
    }

    /// From the HA to the host, and back.
    fn relay_directions(&self, csa: &RelayCsa, to_host: Selector) -> [Sa; 2] {
        let identity = &csa.identity;
        let (ha, mh) = (identity.source, identity.destination);
        let hands_over = self.hands_over();
        let one = |spi, src, dst, selector, sequence, keys: &KeyPair| Sa {
            id: SaId {
                spi,
                src,
                dst,
                role: Role::Relay,
            },
            selector,
            standby: identity.standby,
            soft: Limits::default(),
            hard: Limits {
                seconds: u64::from(identity.lifetime),
                bytes: 0,
            },
            udp: None,
            mode: csa.map.mode(),
            reqid: 0,
            peer: self.distributor(ha),
            keys: Keys::Zones(Box::new(Zones {
                map: csa.map,
                generation: identity.generation,
                window: identity
                    .replay_window
                    .clamp(pfkey::WINDOW_MIN, pfkey::WINDOW_MAX),
                sequence,
                relay: pfkey::Relay {
                    may_write: identity.may_write,
                    number: identity.relay_number,
                    // What goes to the host may have to follow it.
                    hold: hands_over && dst == mh,
                },
                zones: vec![(csa.transform, keys.clone())],
                snoop: self.config.snoop,
            })),
        };
        let back = to_host.reversed();
        [
            one(
                identity.spi_out,
                ha,
                mh,
                to_host,
                identity.sequence_out,
                &csa.keys_out,
            ),
            one(
                identity.spi_in,
                mh,
                ha,
                back,
                identity.sequence_in,
                &csa.keys_in,
            ),
        ]
    }

    /// Who gave a relay CSA: the peer at the HA's address, else whoever that address is.
    fn distributor(&self, ha: IpAddr) -> Id {
        let ikes = self.host.book.ikes.values();
        let mut at = ikes.filter(|ike| ike.remote.ip() == ha);
        at.next()
            .map_or_else(|| Id::from(ha), |ike| ike.peer.clone())
    }

    /// FA: a CSA is taken away.
    pub(super) fn relay_down(&mut self, revocation: &Revocation) {
        let key = (revocation.destination, revocation.spi);
        let Some(relay) = self.host.book.relays.remove(&key) else {
            return;
        };
        tracing::info!("relay CSA {:#010x} is down", revocation.spi);
        self.counters.relay_down += 1;
        self.remove(&relay.outbound, true);
        self.remove(&relay.inbound, true);
    }

    /// The kernel says that a relay CSA is over.
    pub(super) fn relay_expired(&mut self, id: &SaId, hard: bool) {
        let relays = &mut self.host.book.relays;
        let of = relays
            .iter()
            .find(|(_, relay)| relay.outbound == *id || relay.inbound == *id);
        let Some(key) = of.map(|(key, _)| *key).filter(|_| hard) else {
            return;
        };
        if let Some(relay) = relays.remove(&key) {
            tracing::info!("relay CSA {:#010x} is over", relay.outbound.spi);
            self.remove(&relay.outbound, true);
            self.remove(&relay.inbound, true);
        }
    }

    /// FA: an IKE SA with a home agent is up. It gives again what this node should have: what it doesn't give was revoked
    /// meanwhile, or is of before its restart, and goes (docs/wire.md 3.2v).
    pub(super) fn home_agent_up(&mut self, ike: IkeId, now: Time) {
        let Some(peer) = self.host.book.ikes.get(&ike).map(|ike| ike.peer.clone()) else {
            return;
        };
        let from = |relay: &Relay| {
            let home = home_of(&relay.selector);
            home.and_then(|home| self.distributor_for(home)) == Some(peer.clone())
        };
        // A datagram to many may bring again what is here already, which changes nothing.
        let again = |(destination, spi): &(IpAddr, u32), relay: &Relay| {
            let by_datagram = relay.standby && relay.number == 0;
            !(by_datagram && self.endpoint.holds_relay(*destination, *spi))
        };
        let relays = self.host.book.relays.iter();
        let doubtful = relays.filter(|(key, relay)| from(relay) && again(key, relay));
        let doubtful: Vec<_> = doubtful.map(|(key, relay)| (*key, relay.since)).collect();
        for (key, since) in doubtful {
            self.later(now + AGAIN, Task::Forget(key, since));
        }
    }

    /// HA: where a host is, and where it may go next.
    pub(super) fn set_relays(&mut self, relays: Relays, now: Time) {
        self.relays.insert(relays.home, relays.clone());
        let Relays {
            home,
            current,
            standbys,
        } = relays;
        self.endpoint
            .set_relays(home, current, standbys, now, &mut self.host);
    }

    /// HA: whether a foreign agent says that it holds a CSA no more.
    pub(super) fn revoked(&mut self, fa: IpAddr, spi: u32, confirmed: bool, now: Time) {
        if confirmed {
            self.counters.revoked += 1;
            self.review_if_amiss(now);
            tracing::info!(%fa, "the foreign agent holds CSA {spi:#010x} no more");
        } else {
            self.counters.revocation_unconfirmed += 1;
            self.review_soon(now);
            tracing::warn!(%fa, "the foreign agent was to drop CSA {spi:#010x} and didn't answer; it may hold it");
        }
    }

    /// HA: what a foreign agent said to a CSA.
    pub(super) fn distributed(
        &mut self,
        child: ChildId,
        fa: IpAddr,
        status: Option<GroupStatus>,
        now: Time,
    ) {
        match status {
            Some(GroupStatus::Accepted) => {
                self.counters.distributed += 1;
                self.review_if_amiss(now);
                tracing::info!(%fa, child = child.0, "the foreign agent has zone 1's keys");
            }
            Some(status) => {
                self.counters.distribution_failed += 1;
                self.review_soon(now);
                tracing::warn!(%fa, child = child.0, "the foreign agent didn't take the CSA: {status:?}");
            }
            None => {
                self.counters.distribution_failed += 1;
                self.review_soon(now);
                tracing::warn!(%fa, child = child.0, "the foreign agent didn't answer");
            }
        }
    }
}
