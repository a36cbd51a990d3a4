// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the protocol says happened, and what is done about it.

use super::book::Ike;
use super::{children, Engine, Task, REDUNDANT};
use crate::daemon::config::Start;
use crate::daemon::kernel::Ends;
use mml_ike::event::{Down, Event, IkeId, Time};
use mml_ike::host::Host as _;
use std::time::Duration;

/// Before a connection is tried again: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Engine {
    pub(super) fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::IkeUp {
                ike,
                connection,
                peer,
                zones,
                local,
                remote,
            } => {
                let name = self.name(connection);
                tracing::info!(connection = name, %peer, %remote, zones, "IKE SA {} is up", ike.0);
                self.counters.ike_up += 1;
                let book = &mut self.host.book;
                let initiated = book.starting.remove(&ike).is_some();
                book.patience.remove(&connection);
                book.failures.remove(&connection);
                let since = now;
                book.ikes.insert(
                    ike,
                    Ike {
                        connection,
                        peer,
                        local,
                        remote,
                        zones,
                        initiated,
                        since,
                    },
                );
                self.claim(ike, now);
                self.home_agent_up(ike, now);
                self.tell_neighbours(ike, false, now);
                self.neighbour_up(ike);
                self.later(now + REDUNDANT, Task::Redundant(ike));
            }
            Event::IkeRekeyed { old, new } => {
                let book = &mut self.host.book;
                if let Some(ike) = book.ikes.remove(&old) {
                    tracing::info!(
                        connection = self.config.connections[ike.connection].name,
                        "IKE SA {} is rekeyed, {} now",
                        old.0,
                        new.0
                    );
                    book.ikes.insert(new, Ike { since: now, ..ike });
                }
                book.children.inherit(old, new);
            }
            Event::IkeDown { ike, why } => self.ike_down(ike, why, now),
            Event::AuthenticationFailed { remote, peer, why } => {
                self.counters.authentication_failed += 1;
                tracing::warn!(%remote, %peer, "who it is was not proved: {why}");
            }
            Event::ChildUp(up) => self.child_up(*up, now),
            Event::ChildSeal { child } => self.seal(child, now),
            Event::ChildDown { child, linger, .. } => self.child_down(child, linger, now),
            Event::CsaExpired { spi_in, spi_out } => {
                tracing::info!("CSA {spi_in:#010x}/{spi_out:#010x} is over, and nobody claimed it");
                if let Some(child) = self.host.book.child_by_spi(spi_in) {
                    self.child_down(child, Duration::ZERO, now);
                }
            }
            Event::ChildFailed { ike, spi_in, why } => {
                self.counters.child_failed += 1;
                let why = children::failure(&why);
                let connection = self.host.book.ikes.get(&ike).map(|ike| ike.connection);
                let name = connection.map(|connection| self.name(connection));
                tracing::warn!(connection = name, "no child: {why}");
                if let Some(connection) = connection {
                    self.child_lacks(connection, why);
                }
                if let Some(spi) = spi_in {
                    self.host.release(spi, false);
                }
            }
            Event::CsaClaimed {
                ike,
                child,
                spi_in,
                spi_out,
            } => {
                self.claimed(ike, child, spi_in, spi_out, now);
            }
            Event::ClaimAnswered { ike, held } => self.claim_answered(ike, &held, now),
            Event::Moved {
                ike,
                local,
                remote,
                udp,
                children,
            } => {
                let ends = Ends {
                    src: local,
                    dst: remote,
                    udp,
                };
                self.moved(ike, ends, &children, now);
            }
            Event::InnerAddress { ike, address } => self.address_given(ike, address),
            Event::RelayUp(csa) => self.relay_up(&csa, now),
            Event::RelayDown(revocation) => self.relay_down(&revocation),
            Event::Distributed { child, fa, status } => self.distributed(child, fa, status, now),
            Event::Revoked { fa, spi, confirmed } => self.revoked(fa, spi, confirmed, now),
            Event::Renewing { child, known } => {
                self.counters.renewed += 1;
                tracing::info!(child = child.0, known, "zone 1's keys are known to who should open nothing any more; new ones take their place");
            }
            Event::WithoutRelay { child, fa } => {
                self.counters.without_relay += 1;
                tracing::warn!(%fa, child = child.0, "the foreign agent didn't answer in time; the rekeying went on without it");
            }
            Event::GroupJoined { member, fa, group } => self.group_joined(member, fa, group),
            Event::Predistributed {
                fa,
                child,
                members,
                octets,
            } => {
                self.counters.predistributed += 1;
                tracing::info!(neighbours_of = %fa, child = child.0, members, octets, "a CSA goes to all of a group by one datagram");
            }
            Event::PredistributionMissed { child, fa } => {
                self.counters.predistribution_missed += 1;
                tracing::warn!(%fa, child = child.0, "it doesn't say that it has what the group's datagram brought, and is given it by itself; does multicast reach it?");
            }
            Event::GroupHeard(heard) => self.group_heard(heard),
            Event::Neighbours { ike, list } => self.neighbours_told(ike, &list, now),
            Event::CsaRequested { home, given } => self.csa_requested(home, given, now),
            Event::HandoverAsked {
                ike,
                message_id,
                ask,
            } => self.handover_asked(ike, message_id, &ask, now),
            Event::HandedOver { home, states } => match states {
                Some(states) => {
                    tracing::info!(%home, "handed over");
                    // A home agent that asked repairs nothing.
                    if self.own_care_of().is_some() {
                        self.states_came(home, states, now);
                    }
                }
                None => tracing::warn!(%home, "the previous foreign agent hands nothing over"),
            },
        }
    }

    /// A connection's child didn't come up, which is worth a word as long as there is no other.
    pub(super) fn child_lacks(&mut self, connection: usize, why: String) {
        let book = &mut self.host.book;
        if book.children_of(connection).next().is_none() {
            book.failures.insert(connection, format!("no child: {why}"));
        }
    }

    fn ike_down(&mut self, ike: IkeId, why: Down, now: Time) {
        let begun = self.host.book.starting.remove(&ike);
        let up = self.host.book.ikes.remove(&ike).map(|ike| ike.connection);
        let Some(connection) = begun.or(up) else {
            return;
        };
        let one = &self.config.connections[connection];
        let (name, start) = (one.name.clone(), one.start);
        let text = down(&why);
        match why {
            Down::Deleted | Down::Rekeyed | Down::Replaced => {
                tracing::info!(connection = name, "IKE SA {} is down: {text}", ike.0);
            }
            _ => tracing::warn!(connection = name, "IKE SA {} is down: {text}", ike.0),
        }
        self.counters.ike_down += 1;
        let again = !matches!(why, Down::Deleted | Down::Rekeyed);
        let another = self.host.book.ike_of(connection).is_some();
        if again && !another {
            self.host.book.failures.insert(connection, text);
        }
        if again && !another && start == Start::Now {
            let patience = self
                .host
                .book
                .patience
                .entry(connection)
                .or_insert(PATIENCE.0);
            // Not both sides at the same moment, over and over.
            let mut octet = [0];
            self.host.random.fill(&mut octet);
            let wait = *patience + *patience * u32::from(octet[0]) / 256;
            *patience = (*patience * 2).min(PATIENCE.1);
            self.later(now + wait, Task::Initiate(connection));
            tracing::info!(connection = name, "tried again in {} s", wait.as_secs());
        }
    }
}

/// Why an IKE SA is no more, in words.
fn down(why: &Down) -> String {
    match why {
        Down::Deleted => "this side closed it".into(),
        Down::ByPeer => "the peer closed it".into(),
        Down::Rekeyed => "it was rekeyed".into(),
        Down::Replaced => "the peer says that it has another one".into(),
        Down::Dead => "the peer doesn't answer; composite SAs stay".into(),
        Down::Refused(notify) => format!("the peer refused it: {notify}"),
        Down::Authentication(why) => format!("authentication failed: {why}"),
        Down::NoZones => "the peer knows no zones, and `zones = \"required\"`".into(),
        Down::Protocol(what) => (*what).into(),
    }
}
