// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What Mobile IP says happened, and what key management makes of it (docs/mobility.md).

use super::handover::{seen as seen_by, Recall};
use super::{Engine, Task};
use crate::daemon::config::{Agent, Relays, Start};
use mml_ike::auth::IdMatch;
use mml_ike::event::Time;
use mml_ike::wire::Id;
use mml_mip::{Event, Reason, Seen};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How long a foreign agent that was left for nobody keeps a CSA, so that what it holds can follow the host.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long what was handed on of a host stays where that host isn't: longer than a home agent is waited for, and than what is
/// held follows a host.
pub(super) const DISOWNED: Duration = Duration::from_secs(10);

/// Where a mobile host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its care-of address; none at home.
    pub care_of: Option<Ipv4Addr>,
    /// Since when.
    pub since: Time,
}

impl Engine {
    /// Something happened in Mobile IP.
    pub fn mobile_event(&mut self, event: &Event, now: Time) {
        self.host.now = now;
        match event {
            Event::Bound {
                home,
                care_of,
                previous,
                named,
                lifetime,
                identification,
            } => {
                match previous {
                    Some(from) => tracing::info!(%home, %care_of, %from, lifetime, "moved"),
                    None => tracing::info!(%home, %care_of, lifetime, "bound"),
                }
                self.placed(*home, Some(*care_of), now);
                // By its token it may have had the CSA already.
                let by_token = named.as_ref().is_some_and(|named| !named.token.is_empty());
                if by_token && self.is_agent((*care_of).into()) {
                    self.endpoint.handed_on((*home).into(), (*care_of).into());
                }
                let asked = previous.is_some_and(|from| {
                    let named = named.as_ref().filter(|named| named.address == from);
                    let seen = named.map_or(&[][..], |named| &named.seen);
                    // Without a token the new one can't ask.
                    let can_ask = named.is_some_and(|named| !named.token.is_empty());
                    let left = Recall {
                        home: *home,
                        from,
                        identification: *identification,
                        seen: seen_by(seen),
                    };
                    self.left_behind(left, Some(*care_of).filter(|_| can_ask))
                });
                // Whom it left for another agent is revoked later anyway (docs/wire.md 3.2z).
                if asked && !self.is_agent((*care_of).into()) {
                    self.later(now + FAREWELL, Task::Relayed(*home));
                } else {
                    self.relayed_by(*home, Some(*care_of), now);
                }
            }
            Event::Unbound {
                home,
                care_of,
                identification,
                reason,
                seen,
            } => {
                tracing::info!(%home, %care_of, "bound no more: {reason:?}");
                self.host.book.mobile.remove(home);
                let left = Recall {
                    home: *home,
                    from: *care_of,
                    identification: *identification,
                    seen: seen_by(seen),
                };
                if *reason == Reason::ReturnedHome && self.left_behind(left, None) {
                    self.later(now + FAREWELL, Task::Relayed(*home));
                } else {
                    self.relayed_by(*home, None, now);
                }
            }
            Event::Relayed {
                home,
                home_agent,
                identification,
                previous,
            } => {
                tracing::debug!(%home, %home_agent, "a registration is relayed");
                // The home agent's CSA may come before its reply is read. Nobody else may give one for this address.
                self.takes_csas_of(*home);
                if self.hands_over() {
                    // What its home agent sends on may come before its answer.
                    self.activate_relays((*home).into());
                }
                if let Some(previous) = previous {
                    if self.arrives(*home, *identification, previous, now) {
                        self.ask_previous(*home, *identification, previous, now);
                    }
                }
            }
            Event::Visiting {
                home,
                home_agent,
                care_of,
                identification,
                lifetime,
                renewed,
                ..
            } => {
                if *renewed {
                    tracing::debug!(%home, "goes on visiting for {lifetime} s");
                } else {
                    tracing::info!(%home, %home_agent, lifetime, "visiting");
                }
                self.placed(*home, Some(*care_of), now);
                // Again: what was denied meanwhile may have been somebody else's request in its name.
                self.takes_csas_of(*home);
                self.activate_relays((*home).into());
                self.review_soon(now);
                self.arrived(*home, *identification, now);
            }
            Event::Gone { home, reason, .. } => {
                self.later(now + DISOWNED, Task::Disown((*home).into()));
                tracing::info!(%home, "visiting no more: {reason:?}");
                self.host.book.mobile.remove(home);
                self.endpoint.deregister((*home).into());
                self.review_soon(now);
            }
            Event::Refused { home, code } => {
                tracing::warn!(%home, "a registration is refused: {code}");
                if !self.visits((*home).into()) {
                    self.endpoint.deregister((*home).into());
                }
            }
            Event::RevocationConfirmed { home, peer } => {
                tracing::debug!(%home, %peer, "the registration's end is known there");
            }
            Event::RevocationUnconfirmed { home, peer } => {
                tracing::error!(%home, %peer, "the other agent doesn't say that it knows of a registration's end");
            }
            Event::Registering { agent, .. } => tracing::debug!(%agent, "registering"),
            Event::Registered {
                agent,
                care_of,
                lifetime,
                took,
                arrived,
                ..
            } => {
                tracing::info!(%agent, %care_of, lifetime, "registered in {} ms", took.as_millis());
                self.here(Some(*care_of), arrived, now);
            }
            Event::Denied { agent, code } => {
                tracing::warn!(%agent, "the registration is denied: {code}");
            }
            Event::AtHome { arrived } => {
                tracing::info!("at home");
                self.here(None, arrived, now);
            }
            Event::Left => {
                tracing::info!("deregistered");
                self.nowhere();
            }
            // It is registered where it was, and if that one is heard again in time, nothing more is said of it.
            Event::Lost => tracing::warn!("no agent is heard"),
            Event::Expired => {
                tracing::warn!("the registration's lifetime is over");
                self.nowhere();
            }
        }
        self.collect(now);
    }

    /// FA: that host's home agent may give its CSAs.
    fn takes_csas_of(&mut self, home: Ipv4Addr) {
        if let Some(agent) = self.distributor_for(home.into()) {
            self.endpoint.register(home.into(), agent);
        }
    }

    fn placed(&mut self, home: Ipv4Addr, care_of: Option<Ipv4Addr>, now: Time) {
        let same = |place: &Place| place.care_of == care_of;
        let mobile = &mut self.host.book.mobile;
        if !mobile.get(&home).is_some_and(same) {
            mobile.insert(
                home,
                Place {
                    care_of,
                    since: now,
                },
            );
        }
    }

    /// FA: the address that hosts register here.
    pub(super) fn own_care_of(&self) -> Option<Ipv4Addr> {
        match &self.config.mobile_ip.as_ref()?.agent {
            Agent::Foreign(foreign) => Some(foreign.care_of),
            Agent::Home(_) | Agent::Node(_) => None,
        }
    }

    /// FA: whether a host is here.
    pub(super) fn visits(&self, home: IpAddr) -> bool {
        matches!(home, IpAddr::V4(home) if self.host.book.mobile.contains_key(&home))
    }

    /// FA: the home agent that may give CSAs for an address.
    pub(super) fn distributor_for(&self, home: IpAddr) -> Option<Id> {
        let holds = |prefix: &mml_ike::config::Prefix| prefix.holds(home);
        let mut agents = self.config.ike.foreign.home_agents.iter();
        let agent = agents.find(|agent| agent.prefixes.iter().any(holds))?;
        match &agent.identity {
            IdMatch::Exactly(id) => Some(id.clone()),
            IdMatch::Within(_) | IdMatch::Any | IdMatch::Nobody => None,
        }
    }

    /// HA: whether a `[[foreign-agent]]` has that address.
    fn is_agent(&self, address: IpAddr) -> bool {
        let mut agents = self.config.ike.home.foreign_agents.iter();
        agents.any(|agent| agent.addresses.contains(&address))
    }

    /// HA: what a host left behind has followed it by now: zone 1 is where it is.
    pub(super) fn relayed(&mut self, home: Ipv4Addr, now: Time) {
        let place = self.host.book.mobile.get(&home);
        let care_of = place.and_then(|place| place.care_of);
        self.relayed_by(home, care_of, now);
    }

    /// HA: a host's zone 1 is for the foreign agent it is registered through, and for nobody else but that one's
    /// neighbours, as standbys.
    pub(super) fn relayed_by(&mut self, home: Ipv4Addr, care_of: Option<Ipv4Addr>, now: Time) {
        let known = |address: &IpAddr| self.is_agent(*address);
        let care_of = care_of.map(IpAddr::V4);
        let current = care_of.filter(known);
        if let (Some(unknown), None) = (care_of, current) {
            tracing::info!(%home, care_of = %unknown, "it is no [[foreign-agent]], and gets no keys");
        }
        let beforehand = self.config.mobile_ip.as_ref();
        let beforehand = beforehand.is_some_and(|mobile| mobile.predistribute);
        let neighbours = current
            .filter(|_| beforehand)
            .and_then(|fa| self.neighbours.get(&fa));
        let standbys = neighbours.into_iter().flatten().copied();
        let relays = Relays {
            home: home.into(),
            current,
            standbys: standbys.filter(known).collect(),
        };
        self.set_relays(relays, now);
    }

    /// MH: whether a connection leads to the home agent, which hears nothing before the host is registered.
    pub(super) fn needs_registration(&self, connection: usize) -> bool {
        let one = &self.config.connections[connection];
        match self.config.mobile_ip.as_ref().map(|one| &one.agent) {
            Some(Agent::Node(node)) => one.remote == Some(node.home_agent.into()),
            _ => false,
        }
    }

    /// MH: the home agent hears it from now on.
    fn speak_with_home(&mut self, now: Time) {
        for connection in 0..self.config.connections.len() {
            let begins = self.config.connections[connection].start == Start::Now;
            if begins && self.needs_registration(connection) {
                self.begin(connection, now);
            }
        }
    }

    /// The mobile host's own home address.
    pub(super) fn own_home(&self) -> Option<Ipv4Addr> {
        match &self.config.mobile_ip.as_ref()?.agent {
            Agent::Node(node) => Some(node.home),
            Agent::Home(_) | Agent::Foreign(_) => None,
        }
    }

    fn here(&mut self, care_of: Option<Ipv4Addr>, arrived: &[Seen], now: Time) {
        if let Some(home) = self.own_home() {
            self.placed(home, care_of, now);
        }
        self.resend_own(arrived);
        self.speak_with_home(now);
        self.give_handover_key();
    }

    fn nowhere(&mut self) {
        self.host.book.mobile.clear();
    }
}
