// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Registering, renewing, deregistering (RFC 5944 §3.6): the requests and their repetition.

use super::heard::AgentKey;
use super::{config, Due, MobileNode, Place};
use crate::action::{Action, Event, Route};
use crate::extension::{Extension, Pair, PreviousFa, Seen};
use crate::message::{Identification, Message, Request, RequestFlags};
use crate::number::PORT;
use crate::packet::{Content, LinkAddress, Packet, TTL_DIRECT};
use crate::replay::Replay;
use crate::time::{Now, Random};
use crate::token::Handover;
use crate::Builder;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To be reached through this agent.
    Agent(AgentKey),
    /// To be reached at home, where this is the home agent.
    Home(AgentKey),
    /// Not to be reached any more; said through this agent.
    Leave(AgentKey),
}

impl Target {
    pub(super) fn key(self) -> AgentKey {
        match self {
            Target::Agent(key) | Target::Home(key) | Target::Leave(key) => key,
        }
    }
}

/// A registration that holds.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) agent: AgentKey,
    pub(super) care_of: Ipv4Addr,
    pub(super) link: Option<LinkAddress>,
    /// Its renewal was due when the agent wasn't heard.
    pub(super) overdue: bool,
}

/// A registration that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) care_of: Ipv4Addr,
    pub(super) link: Option<LinkAddress>,
    pub(super) lifetime: u16,
    /// The last request's.
    pub(super) identification: Identification,
    pub(super) began: Duration,
    pub(super) sent: Duration,
    gap: Duration,
    /// Requests that nobody answered.
    unanswered: u32,
    /// Answers that were followed by another request at once: a wrong clock, a lifetime too long. Bounded.
    pub(super) corrections: u32,
}

impl Attempt {
    /// Whether a request went unanswered for as long as one may take.
    pub(super) fn had_its_turn(&self) -> bool {
        self.unanswered > 0
    }
}

/// Until a registration that holds is renewed after an attempt elsewhere came to nothing, or gave one no time.
const AGAIN: Duration = Duration::from_secs(1);

/// Requests to an agent, until another one that is heard gets its turn.
const UNANSWERED: u32 = 3;

impl MobileNode {
    /// Deregisters and stays silent until a link comes up: before power-off.
    pub fn leave(&mut self, now: Now, random: &mut Random<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.registered_by() {
            Some(key) => self.begin(Target::Leave(key), now, random, &mut actions),
            None => self.drop_attempt(&mut actions),
        }
        self.place = Place::Left;
        let interfaces: Vec<_> = self.links.keys().copied().collect();
        for interface in interfaces {
            self.found(interface);
        }
        actions
    }

    /// Begins an attempt in the place of the one there was.
    pub(super) fn begin(
        &mut self,
        target: Target,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let key = target.key();
        let heard = self.agents.get(&key);
        let link = heard.and_then(|agent| agent.link);
        let (care_of, lifetime) = match target {
            Target::Agent(_) => {
                let Some((care_of, most)) = heard.and_then(|a| Some((a.care_of?, a.lifetime)))
                else {
                    return;
                };
                (care_of, self.config.lifetime.min(most).max(1))
            }
            Target::Home(_) => (self.config.home, 0),
            Target::Leave(_) => match &self.current {
                Some(current) => (current.care_of, 0),
                None => return,
            },
        };
        let going = self.attempt.as_ref().map(|attempt| attempt.target.key());
        if going != Some(key) {
            self.drop_attempt(actions);
        }
        if let Target::Agent((interface, agent)) = target {
            if going != Some(key) && self.registered_by() != Some(key) {
                actions.push(Action::AddRoute(Route::Agent {
                    agent,
                    interface,
                    link,
                }));
            }
        }
        match self.registered_by() {
            // Another one's answer isn't there yet, and may never be: what there is, is renewed all the same.
            Some(current) if current != key => {
                if going == Some(current) {
                    self.renew_soon(now);
                }
            }
            _ => self.timers.cancel(Due::Renew),
        }
        self.attempt = Some(Attempt {
            target,
            care_of,
            link,
            lifetime,
            identification: Identification::default(),
            began: now.monotonic,
            sent: now.monotonic,
            gap: self.config.retransmit.max(config::RETRANSMIT),
            unanswered: 0,
            corrections: 0,
        });
        self.send(true, now, random, actions);
    }

    /// Gives an attempt up; the route to its agent goes unless it is the current one's.
    pub(super) fn drop_attempt(&mut self, actions: &mut Vec<Action>) {
        self.timers.cancel(Due::Retransmit);
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        if let Target::Agent(key) = attempt.target {
            if self.registered_by() != Some(key) {
                self.unroute(key, attempt.link, actions);
            }
        }
    }

    /// Takes the route to an agent away. If the same agent is in use over another link, that link's route takes its
    /// place: there is one route an address.
    pub(super) fn unroute(
        &self,
        gone: AgentKey,
        link: Option<LinkAddress>,
        actions: &mut Vec<Action>,
    ) {
        let current = self.current.as_ref().map(|one| (one.agent, one.link));
        let going = self.attempt.as_ref().and_then(|one| match one.target {
            Target::Agent(key) => Some((key, one.link)),
            _ => None,
        });
        let same = [going, current]
            .into_iter()
            .flatten()
            .find(|(key, _)| key.1 == gone.1);
        let route = |(key, link): (AgentKey, _)| Route::Agent {
            agent: key.1,
            interface: key.0,
            link,
        };
        actions.push(match same {
            Some(other) => Action::AddRoute(route(other)),
            None => Action::RemoveRoute(route((gone, link))),
        });
    }

    pub(super) fn retransmit(
        &mut self,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let most = self.config.retransmit_most;
        attempt.gap = attempt
            .gap
            .saturating_mul(2)
            .min(most)
            .max(config::RETRANSMIT);
        attempt.unanswered += 1;
        let (unanswered, target) = (attempt.unanswered, attempt.target);
        let leaves = matches!(target, Target::Leave(_));
        if unanswered >= UNANSWERED && !leaves {
            // Whoever advertises may be nobody; data goes by the old registration meanwhile, if there is one.
            let key = target.key();
            self.penalise(key, now);
            if self.back().is_some() {
                self.go_back(now, actions);
                return;
            }
            if let Some(other) = self
                .best(key, now)
                .filter(|other| !self.penalised(*other, now))
            {
                self.begin(Target::Agent(other), now, random, actions);
                return;
            }
        }
        // The same request with nonces, a newer stamp with timestamps (§3.6.3).
        let fresh = self.config.association.replay != Replay::Nonces;
        self.send(fresh, now, random, actions);
    }

    pub(super) fn renew(&mut self, now: Now, random: &mut Random<'_>, actions: &mut Vec<Action>) {
        let Some(current) = &mut self.current else {
            return;
        };
        let key = current.agent;
        // It is made up for when the agent is heard again.
        current.overdue = true;
        if !self.hears(key) {
            return;
        }
        match &self.attempt {
            Some(attempt) if attempt.target.key() == key => {}
            // The new agent's answer may be on its way.
            Some(attempt) if !attempt.had_its_turn() => self.renew_soon(now),
            Some(_) => {
                self.go_back(now, actions);
                self.begin(Target::Agent(key), now, random, actions);
            }
            None => self.begin(Target::Agent(key), now, random, actions),
        }
    }

    /// Renews what there is in a second, if not before.
    pub(super) fn renew_soon(&mut self, now: Now) {
        let soon = now.after(AGAIN);
        let at = self.timers.at(Due::Renew);
        self.timers
            .set(Due::Renew, at.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn send(
        &mut self,
        fresh: bool,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let replay = self.config.association.replay;
        let identification = fresh.then(|| self.source.next(replay, now, random));
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.identification = identification.unwrap_or(attempt.identification);
        attempt.sent = now.monotonic;
        self.timers.set(Due::Retransmit, now.after(attempt.gap));
        let attempt = attempt.clone();
        let (interface, agent) = attempt.target.key();
        actions.push(Action::Send(Packet {
            interface: Some(interface),
            link_destination: attempt.link,
            source: self.config.home,
            destination: agent,
            ttl: TTL_DIRECT,
            content: Content::Udp {
                source_port: PORT,
                destination_port: PORT,
                octets: self.request(&attempt),
            },
        }));
        actions.push(Action::Notify(Event::Registering {
            agent,
            identification: attempt.identification,
        }));
    }

    fn request(&self, attempt: &Attempt) -> Vec<u8> {
        let through_agent = !matches!(attempt.target, Target::Home(_));
        let mut flags = RequestFlags::default();
        if self.config.reverse_tunnel && through_agent {
            flags.0 |= RequestFlags::REVERSE_TUNNEL;
        }
        let mut builder = Builder::new(&Message::Request(Request {
            flags,
            lifetime: attempt.lifetime,
            home: self.config.home,
            home_agent: self.config.home_agent,
            care_of: attempt.care_of,
            identification: attempt.identification,
        }));
        let moving = !matches!(attempt.target, Target::Leave(_)) && self.config.name_previous;
        let previous = self
            .previous
            .filter(|&previous| moving && previous != attempt.care_of);
        if let Some(address) = previous {
            // docs/wire.md 3.2i, 4d.
            let handover = Handover {
                new_fa: attempt.care_of,
                home: self.config.home,
                identification: attempt.identification,
            };
            let key = self.handover.get(&address);
            let token = key.map(|key| key.token(&handover)).unwrap_or_default();
            let seen = Seen::list(&self.seen);
            let extension = Extension::PreviousFa(PreviousFa {
                address,
                token: &token,
                seen: &seen,
            });
            // A token is 64 octets at most: it fits.
            if let Ok(longer) = builder.clone().extension(&extension) {
                builder = longer;
            }
        }
        builder = builder.authenticate(Pair::MobileHome, &self.config.association);
        let foreign = self.config.foreign.get(&attempt.target.key().1);
        if let Some(association) = foreign.filter(|_| through_agent) {
            builder = builder.authenticate(Pair::MobileForeign, association);
        }
        builder.finish()
    }

    /// The routes of the registration that was.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        self.release_but(None, actions);
    }

    /// The same, but the route to this agent stays: an attempt uses it.
    pub(super) fn release_but(&mut self, used: Option<AgentKey>, actions: &mut Vec<Action>) {
        self.timers.cancel(Due::Renew);
        self.timers.cancel(Due::Expiry);
        let Some(current) = self.current.take() else {
            return;
        };
        let (interface, agent) = current.agent;
        actions.push(Action::RemoveRoute(Route::Default {
            agent,
            interface,
            home: self.config.home,
        }));
        if used != Some(current.agent) {
            self.unroute(current.agent, current.link, actions);
        }
    }
}
