// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! CSA_HANDOVER: what the previous foreign agent holds for a host, and what still comes there, follows it
//! (docs/wire.md 3.1h, 3.1l). The new one asks with the registration's token as soon as it can take the packets in; where it
//! can't, or the host is at home, its home agent does.

use super::mobile::DISOWNED;
use super::relays::home_of;
use super::Engine;
use crate::daemon::config::Agent as MobileAgent;
use crate::daemon::kernel::SaId;
use mml_ike::config::Agent;
use mml_ike::event::{IkeId, Time};
use mml_ike::secret::Secret;
use mml_ike::wire::{Ask, Seen, SnoopState, MAX_STATES};
use mml_mip::{Identification, Predecessor};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

/// Registrations on their way whose previous foreign agent is remembered.
const ARRIVALS: usize = 1024;
/// Those in one host's name: anybody on the link can send some, and each asks a neighbour.
const ARRIVALS_OF_ONE: usize = 8;

/// Something that Mobile IP's routing is to do for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// FA: what this neighbour sends on for visitors comes in by a tunnel from it.
    LetIn(Ipv4Addr),
    /// Previous FA: what comes for a host goes to its new care-of address.
    Follow(Follow),
    /// HA: what comes back for a host from this foreign agent is let in.
    Recall(Recall),
}

/// A host whose packets come back to its home agent, from where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recall {
    /// Which.
    pub home: Ipv4Addr,
    /// Where it was.
    pub from: Ipv4Addr,
    /// The last registration that is known of it: if it was there by a later one since, it has come back.
    pub identification: Identification,
    /// What it has of what came there.
    pub seen: Vec<Seen>,
}

/// A host whose packets follow it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Follow {
    /// Which.
    pub home: Ipv4Addr,
    /// Where it is now.
    pub care_of: Ipv4Addr,
    /// Whom to answer, and which message of theirs.
    ike: IkeId,
    message_id: u32,
    /// What it has of what came here.
    seen: Vec<Seen>,
}

/// A registration on its way.
#[derive(Clone)]
struct Arrival {
    home: Ipv4Addr,
    identification: Identification,
    /// Whom it names as its host's previous foreign agent.
    previous: Predecessor,
    /// Whether that one was asked for what it holds.
    asked: bool,
    /// When its home agent has had its time.
    until: Time,
}

/// Registrations on their way, oldest first.
#[derive(Default)]
pub(super) struct Arrivals(VecDeque<Arrival>);

impl Arrivals {
    /// Whether it is a new one, and not too many in that host's name.
    fn note(
        &mut self,
        home: Ipv4Addr,
        identification: Identification,
        previous: &Predecessor,
        now: Time,
    ) -> bool {
        self.sweep(now);
        // What comes under the same number later isn't the host's own, or says the same: the token doesn't vouch for what is
        // said to have been seen.
        let again = |one: &Arrival| one.home == home && one.identification == identification;
        let same = self.0.iter().filter(|one| one.home == home).count();
        if self.0.iter().any(again) || same >= ARRIVALS_OF_ONE {
            return false;
        }
        if self.0.len() >= ARRIVALS {
            self.0.pop_front();
        }
        self.0.push_back(Arrival {
            home,
            identification,
            previous: previous.clone(),
            asked: false,
            until: now + DISOWNED,
        });
        true
    }

    /// Drops those that nobody answered.
    pub(super) fn sweep(&mut self, now: Time) {
        self.0.retain(|one| now < one.until);
    }

    /// Whether one of that host is on its way.
    pub(super) fn expects(&mut self, home: IpAddr, now: Time) -> bool {
        self.sweep(now);
        self.0.iter().any(|one| one.home == home)
    }

    /// The host's last one.
    fn last(&mut self, home: Ipv4Addr) -> Option<&mut Arrival> {
        let mut newest_first = self.0.iter_mut().rev();
        newest_first.find(|one| one.home == home)
    }

    /// One was accepted: those of the same host are over. The one it was, if it named a previous foreign agent.
    fn take(&mut self, home: Ipv4Addr, identification: Identification) -> Option<Arrival> {
        let of = |one: &Arrival| one.home == home && one.identification == identification;
        let accepted = self.0.iter().position(of).and_then(|at| self.0.remove(at));
        self.0.retain(|one| one.home != home);
        accepted
    }
}

/// What a previous foreign agent is asked with, by the token that the host's registration brought.
pub(super) fn ask(
    home: Ipv4Addr,
    care_of: Ipv4Addr,
    identification: Identification,
    previous: &Predecessor,
) -> Ask {
    Ask {
        home: home.into(),
        care_of: care_of.into(),
        identification: identification.0,
        token: Secret::copy(&previous.token),
        seen: seen(&previous.seen),
    }
}

/// What a registration tells of it, as the question does.
pub(super) fn seen(told: &[mml_mip::Seen]) -> Vec<Seen> {
    let one = |one: &mml_mip::Seen| Seen {
        spi: one.spi,
        number: one.number,
    };
    told.iter().map(one).collect()
}

impl Engine {
    /// Whether packets are held for handoffs here.
    pub(super) fn hands_over(&self) -> bool {
        let mobile_ip = self.config.mobile_ip.as_ref();
        mobile_ip.is_some_and(|mobile| mobile.handover)
    }

    /// FA: registrations on their way, and what SNOOP knew elsewhere of CSAs that aren't here yet: none when no host is coming.
    pub fn unfinished(&self) -> usize {
        self.arrivals.0.len() + self.waiting.len()
    }

    /// What Mobile IP's routing is to do, since it was last asked. Each is done, and then [`Engine::ordered`].
    pub fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// FA: an IKE SA with a neighbour is up: the way for packets that follow a host is made beforehand.
    pub(super) fn neighbour_up(&mut self, ike: IkeId) {
        let Some(up) = self.host.book.ikes.get(&ike) else {
            return;
        };
        if !up.zones || !self.hands_over() || self.own_care_of().is_none() {
            return;
        }
        let neighbours = self.config.ike.foreign.neighbours.iter();
        let addresses = neighbours
            .filter(|agent| agent.identity.matches(&up.peer))
            .flat_map(|agent| &agent.addresses);
        for address in addresses {
            if let IpAddr::V4(address) = address {
                self.orders.push(Order::LetIn(*address));
            }
        }
    }

    /// New FA: a registration is about to leave, of a host that was somewhere else before. Where the host's CSA is here already,
    /// the previous one is asked at once: what it holds comes while the home agent makes up its mind, and in front of what that
    /// one sends here. Whether it is to be asked anything: not again for what came before, or comes in too great a number.
    pub(super) fn arrives(
        &mut self,
        home: Ipv4Addr,
        identification: Identification,
        previous: &Predecessor,
        now: Time,
    ) -> bool {
        let new =
            !previous.token.is_empty() && self.arrivals.note(home, identification, previous, now);
        if new && self.relays_for(home.into()) {
            self.ask_for_held(home, now);
        }
        new
    }

    /// New FA: a host's CSA has come while its registration is on its way.
    pub(super) fn can_take_in(&mut self, home: IpAddr, now: Time) {
        if let IpAddr::V4(home) = home {
            self.ask_for_held(home, now);
        }
    }

    /// New FA: a host is here. Who was its foreign agent is asked by now, whether there are keys or not.
    pub(super) fn arrived(&mut self, home: Ipv4Addr, identification: Identification, now: Time) {
        self.endpoint.arrived(home.into(), identification.0);
        if let Some(arrival) = self.arrivals.take(home, identification) {
            self.ask_for(&arrival, now);
        }
    }

    fn ask_for_held(&mut self, home: Ipv4Addr, now: Time) {
        if let Some(last) = self.arrivals.last(home) {
            let arrival = last.clone();
            // It isn't asked twice for one registration, or the second answer would be a refusal.
            last.asked = true;
            self.ask_for(&arrival, now);
        }
    }

    fn ask_for(&mut self, arrival: &Arrival, now: Time) {
        if !self.hands_over() {
            return;
        }
        let Arrival {
            home,
            identification,
            previous,
            asked,
            ..
        } = arrival;
        let Some(care_of) = self.own_care_of().filter(|_| !asked) else {
            return;
        };
        let Some(ike) = self.ike_with_neighbour(previous.address) else {
            tracing::warn!(%home, previous = %previous.address, "no IKE SA with the previous foreign agent, so that the home agent has to ask for what it holds");
            return;
        };
        let ask = ask(*home, care_of, *identification, previous);
        self.request_handover(ike, ask, previous.address, now);
    }

    /// New FA or HA: asks the foreign agent that a host left.
    fn request_handover(&mut self, ike: IkeId, ask: Ask, from: Ipv4Addr, now: Time) {
        let home = ask.home;
        let host = &mut self.host;
        match self.endpoint.request_handover(ike, ask, now, host) {
            Ok(()) => {
                tracing::debug!(%home, %from, "the foreign agent that was left is asked for what it holds");
            }
            Err(error) => {
                tracing::warn!(%home, %from, "the foreign agent that was left can't be asked for what it holds: {error}");
            }
        }
    }

    /// FA: whether there is a CSA of that host here.
    pub(super) fn relays_for(&self, home: IpAddr) -> bool {
        let mut held = self.host.book.relays.values();
        held.any(|relay| home_of(&relay.selector) == Some(home))
    }

    /// The IKE SA with the neighbour of that address.
    pub(super) fn ike_with_neighbour(&self, address: Ipv4Addr) -> Option<IkeId> {
        self.ike_with(&self.config.ike.foreign.neighbours, address)
    }

    /// The IKE SA with that one of these agents which has the address.
    fn ike_with(&self, agents: &[Agent], address: Ipv4Addr) -> Option<IkeId> {
        let is_there = |agent: &&Agent| agent.addresses.contains(&address.into());
        let agent = agents.iter().find(is_there)?;
        let mut ikes = self.host.book.ikes.iter();
        ikes.find(|(_, ike)| ike.zones && agent.identity.matches(&ike.peer))
            .map(|(ike, _)| *ike)
    }

    /// HA: a host left that foreign agent, for one that can ask with the token the registration brought, or another.
    /// Whether it can hangs on whether they are neighbours, too, as the new one has said. If not, what is held comes back here,
    /// from where it goes on to the host: the new one takes nothing from strangers. Whether that will be asked.
    pub(super) fn left_behind(&mut self, left: Recall, to: Option<Ipv4Addr>) -> bool {
        let from = left.from;
        let neighbours = to.and_then(|to| self.neighbours.get(&to.into()));
        let speaks = neighbours.is_some_and(|list| list.contains(&from.into()));
        let agents = &self.config.ike.home.foreign_agents;
        let asks = !speaks && self.ike_with(agents, from).is_some();
        if asks {
            self.orders.push(Order::Recall(left));
        }
        asks
    }

    /// HA: it is let in: it is asked for.
    fn ask_back(&mut self, recall: &Recall, now: Time) {
        let Recall {
            home,
            from,
            identification,
            ..
        } = *recall;
        let own = match self.config.mobile_ip.as_ref().map(|one| &one.agent) {
            Some(MobileAgent::Home(agent)) => agent.addresses.first().copied(),
            _ => None,
        };
        let ike = self.ike_with(&self.config.ike.home.foreign_agents, from);
        let Some((own, ike)) = own.zip(ike) else {
            return;
        };
        // Who gave the CSA needs no token.
        let ask = Ask {
            home: home.into(),
            care_of: own.into(),
            identification: identification.0,
            token: Secret::default(),
            seen: recall.seen.clone(),
        };
        self.request_handover(ike, ask, from, now);
    }

    /// Previous FA: it was asked, by who may ask.
    pub(super) fn handover_asked(&mut self, ike: IkeId, message_id: u32, ask: &Ask, now: Time) {
        let own = self.own_care_of();
        match (ask.home, ask.care_of) {
            (IpAddr::V4(home), IpAddr::V4(care_of))
                if self.hands_over() && own.is_some_and(|own| own != care_of) =>
            {
                self.orders.push(Order::Follow(Follow {
                    home,
                    care_of,
                    ike,
                    message_id,
                    seen: ask.seen.clone(),
                }));
            }
            _ => self.answer_handover(ike, message_id, Vec::new(), now),
        }
    }

    /// That was done, or couldn't be.
    pub fn ordered(&mut self, order: &Order, done: bool, now: Time) {
        self.host.now = now;
        let follow = match order {
            Order::LetIn(_) => return,
            Order::Recall(recall) => {
                if done {
                    self.ask_back(recall, now);
                    self.collect(now);
                }
                return;
            }
            Order::Follow(follow) => follow,
        };
        if done {
            let packets = self.resend_held(follow.home.into(), &follow.seen);
            self.counters.handed_over += 1;
            tracing::info!(home = %follow.home, to = %follow.care_of, packets, "what was held follows the host");
        }
        // By now what comes goes after the host, so that SNOOP learns nothing more of its flows here.
        let states = self.snoop_states(follow.home.into());
        self.answer_handover(follow.ike, follow.message_id, states, now);
        self.collect(now);
    }

    fn answer_handover(&mut self, ike: IkeId, message_id: u32, states: Vec<SnoopState>, now: Time) {
        self.endpoint
            .answer_handover(ike, message_id, states, now, &mut self.host);
    }

    /// FA: has what is held for a host sent, by the routes there are now, but for what it has seen.
    fn resend_held(&mut self, home: IpAddr, seen: &[Seen]) -> u32 {
        let relays = self.host.book.relays.values();
        let of = relays.filter(|relay| home_of(&relay.selector) == Some(home));
        let ids: Vec<SaId> = of.map(|relay| relay.outbound).collect();
        self.resend(&ids, seen)
    }

    /// MH, HA: what has arrived of each CSA between home agent and host: what was sent behind it and hasn't may be sent again
    /// (docs/wire.md 4d, 4e). At a home agent that host's.
    pub fn seen(&mut self, host: Option<Ipv4Addr>) -> Vec<mml_mip::Seen> {
        if !self.hands_over() {
            return Vec::new();
        }
        let children = self.host.book.children.values();
        let own = children.filter(|one| match host {
            Some(home) => one.composite && home_of(&one.selector) == Some(home.into()),
            None => one.composite && self.needs_registration(one.connection),
        });
        // The newest, if there are more.
        let ids: Vec<SaId> = own
            .map(|child| child.inbound)
            .rev()
            .take(MAX_STATES)
            .collect();
        let Some(module) = &mut self.host.kernels.mml else {
            return Vec::new();
        };
        let one = |id: SaId| {
            let number = module.sequence(&id);
            let number = number.inspect_err(|error| {
                tracing::warn!("what has arrived by {id} can't be read: {error}")
            });
            let spi = id.spi;
            Some(mml_mip::Seen {
                spi,
                number: number.ok()?,
            })
        };
        ids.into_iter().filter_map(one).collect()
    }

    /// MH: has what found no way to the home agent sent, behind what didn't arrive there: there is one.
    pub(super) fn resend_own(&mut self, arrived: &[mml_mip::Seen]) {
        if !self.hands_over() {
            return;
        }
        let children = self.host.book.children.values();
        let own = children.filter(|one| one.composite && self.needs_registration(one.connection));
        let ids: Vec<SaId> = own.map(|child| child.outbound).collect();
        let packets = self.resend(&ids, &seen(arrived));
        if packets > 0 {
            tracing::info!(packets, "what waited for a way to the home agent is sent");
        }
    }

    /// Has what is held sent, behind what the other end has seen.
    fn resend(&mut self, ids: &[SaId], seen: &[Seen]) -> u32 {
        let Some(module) = &mut self.host.kernels.mml else {
            return 0;
        };
        let mut packets = 0;
        for id in ids {
            let last = seen.iter().find(|seen| seen.spi == id.spi);
            match module.resend(id, last.map_or(0, |seen| seen.number)) {
                Ok(more) => packets += more,
                Err(error) => tracing::warn!("what is held for {id} can't be sent: {error}"),
            }
        }
        packets
    }
}
