// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zone 1's keys at the next foreign agent in time: beforehand, by the home agent (PKD), or from the previous foreign
//! agent (DKM).

use super::handover::ask;
use super::mobile::DISOWNED;
use super::{Engine, Task};
use mml_ike::auth::IdMatch;
use mml_ike::config::Agent;
use mml_ike::crypto::Hash;
use mml_ike::event::{IkeId, Time};
use mml_ike::wire::{Ask, Id, Neighbour};
use mml_mip::{HandoverKey, Identification, Key, Predecessor, Prf};
use std::net::{IpAddr, Ipv4Addr};

/// Those of the agents that a peer is.
fn who<'a>(agents: &'a [Agent], peer: &'a Id) -> impl Iterator<Item = &'a Agent> {
    agents
        .iter()
        .filter(move |agent| agent.identity.matches(peer))
}

impl Engine {
    /// FA: a home agent is told who the neighbours are; that there are none only if there `were` (docs/wire.md 3.1e).
    pub(super) fn tell_neighbours(&mut self, ike: IkeId, were: bool, now: Time) {
        let foreign = &self.config.ike.foreign;
        let Some(up) = self.host.book.ikes.get(&ike).filter(|up| up.zones) else {
            return;
        };
        let mut agents = foreign.home_agents.iter();
        if !agents.any(|agent| agent.identity.matches(&up.peer)) {
            return;
        }
        let list = foreign.neighbours.iter().flat_map(|agent| {
            let identity = match &agent.identity {
                IdMatch::Exactly(id) => Some(id.clone()),
                IdMatch::Within(_) | IdMatch::Any | IdMatch::Nobody => None,
            };
            let one = |address: &IpAddr| {
                Some(Neighbour {
                    address: *address,
                    identity: identity.clone()?,
                })
            };
            agent.addresses.iter().filter_map(one).collect::<Vec<_>>()
        });
        let list: Vec<Neighbour> = list.collect();
        if list.is_empty() && !were {
            return;
        }
        let host = &mut self.host;
        if let Err(error) = self.endpoint.notify_neighbours(ike, list, now, host) {
            tracing::warn!("the home agent can't be told the neighbours: {error}");
        }
    }

    /// HA: a foreign agent said who its neighbours are: they get the CSAs of the hosts that are there.
    pub(super) fn neighbours_told(&mut self, ike: IkeId, list: &[Neighbour], now: Time) {
        let Some(peer) = self.host.book.ikes.get(&ike).map(|ike| ike.peer.clone()) else {
            return;
        };
        let agents = &self.config.ike.home.foreign_agents;
        let own: Vec<IpAddr> = who(agents, &peer)
            .flat_map(|agent| agent.addresses.clone())
            .collect();
        // Whom the file doesn't know gets nothing, whoever names it.
        let known = |one: &&Neighbour| {
            let mut named = who(agents, &one.identity);
            named.any(|agent| agent.addresses.contains(&one.address))
        };
        let neighbours: Vec<IpAddr> = list.iter().filter(known).map(|one| one.address).collect();
        tracing::info!(%peer, ?neighbours, "a foreign agent says who its neighbours are");
        for address in &own {
            self.neighbours.insert(*address, neighbours.clone());
            let host = &mut self.host;
            self.endpoint
                .set_neighbours(*address, &neighbours, now, host);
        }
        let there = self.host.book.mobile.iter().filter_map(|(home, place)| {
            let care_of = place.care_of?;
            own.contains(&care_of.into()).then_some((*home, care_of))
        });
        for (home, care_of) in there.collect::<Vec<_>>() {
            self.relayed_by(home, Some(care_of), now);
        }
    }

    /// New FA: the previous one, if it is a neighbour, is asked for the host's CSA while the registration is on its way
    /// (docs/wire.md 3.1f). It may be anybody's name that stands there: the neighbour checks the token.
    pub(super) fn ask_previous(
        &mut self,
        home: Ipv4Addr,
        identification: Identification,
        previous: &Predecessor,
        now: Time,
    ) {
        let address = IpAddr::V4(previous.address);
        if self.relays_for(home.into()) || previous.token.is_empty() {
            return;
        }
        let neighbours = &self.config.ike.foreign.neighbours;
        if !neighbours
            .iter()
            .any(|agent| agent.addresses.contains(&address))
        {
            return;
        }
        let Some(ike) = self.ike_with_neighbour(previous.address) else {
            tracing::warn!(%home, %address, "no IKE SA with the previous foreign agent, so that it can't be asked for the CSA");
            return;
        };
        let Some(care_of) = self.own_care_of() else {
            return;
        };
        // What has arrived is for CSA_HANDOVER.
        let ask = Ask {
            seen: Vec::new(),
            ..ask(home, care_of, identification, previous)
        };
        let host = &mut self.host;
        match self.endpoint.request_csa(ike, ask, now, host) {
            Ok(()) => {
                tracing::debug!(%home, %address, "the previous foreign agent is asked for the CSA")
            }
            Err(error) => {
                tracing::warn!(%home, "the previous foreign agent can't be asked: {error}")
            }
        }
    }

    /// New FA: what the previous one answered.
    pub(super) fn csa_requested(&mut self, home: IpAddr, given: bool, now: Time) {
        if given {
            self.can_take_in(home, now);
            self.counters.handed_on += 1;
            self.later(now + DISOWNED, Task::Disown(home));
            tracing::info!(%home, "the previous foreign agent has handed its CSA on");
        } else {
            tracing::warn!(%home, "the previous foreign agent hands no CSA on");
        }
    }

    /// New FA: what was handed on is for a host that is here. If its registration came to nothing, or it left before its home
    /// agent gave the CSA itself, nobody else knows that it is here.
    pub(super) fn disown(&mut self, home: IpAddr, now: Time) {
        if self.arrivals.expects(home, now) {
            self.later(now + DISOWNED, Task::Disown(home));
        } else if !self.visits(home) {
            self.endpoint.disown(home);
        }
    }

    /// MH: the foreign agent it is at has K_FA; a registration elsewhere will carry a token made with it
    /// (docs/wire.md 3.2i).
    pub(super) fn give_handover_key(&mut self) {
        let mobile = &self.host.book.mobile;
        let place = self.own_home().and_then(|home| mobile.get(&home));
        let Some(fa) = place.and_then(|place| place.care_of) else {
            return;
        };
        let children = self.host.book.children.iter().rev();
        let ours = children
            .filter(|(_, child)| child.composite && self.needs_registration(child.connection));
        let key = ours
            .map(|(id, _)| *id)
            .find_map(|child| self.endpoint.handover_key(child, fa.into()));
        let key = key.map(|(prf, key)| HandoverKey {
            prf: match prf {
                Hash::Sha256 => Prf::HmacSha256,
                Hash::Sha384 => Prf::HmacSha384,
                Hash::Sha512 => Prf::HmacSha512,
            },
            key: Key::new(key.expose()),
        });
        self.handover_keys.push((fa, key));
    }

    /// MH: K_FA of foreign agents, since it was last asked; none where it is no longer good.
    pub fn handover_keys(&mut self) -> Vec<(Ipv4Addr, Option<HandoverKey>)> {
        std::mem::take(&mut self.handover_keys)
    }
}
