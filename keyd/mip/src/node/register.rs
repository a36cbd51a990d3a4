// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Registering, renewing, deregistering (RFC 5944 §3.6): requests out, replies in.

use super::heard::AgentKey;
use super::{config, Due, MobileNode, Place};
use crate::action::{Action, Event, Route};
use crate::auth::find;
use crate::code::Code;
use crate::error::DecodeError;
use crate::extension::{Extension, Extensions, Pair, PreviousFa};
use crate::message::{Identification, Message, Reply, Request, RequestFlags};
use crate::number::{INFINITE, PORT};
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
    link: Option<LinkAddress>,
}

/// A registration that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) target: Target,
    care_of: Ipv4Addr,
    link: Option<LinkAddress>,
    lifetime: u16,
    /// The last request's.
    identification: Identification,
    began: Duration,
    sent: Duration,
    gap: Duration,
    /// Requests that nobody answered.
    unanswered: u32,
    /// Answers that were followed by another request at once: a wrong clock, a lifetime too long. Bounded.
    corrections: u32,
}

const CORRECTIONS: u32 = 2;
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
        self.timers.cancel(Due::Renew);
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
    fn unroute(&self, gone: AgentKey, link: Option<LinkAddress>, actions: &mut Vec<Action>) {
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
        if let (true, Target::Agent(key)) = (unanswered >= UNANSWERED, target) {
            // Whoever advertises may be nobody; data goes by the old registration meanwhile, if there is one.
            self.penalise(key, now);
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
        if let Some(key) = self
            .registered_by()
            .filter(|key| self.agents.contains_key(key))
        {
            self.begin(Target::Agent(key), now, random, actions);
        }
    }

    fn send(&mut self, fresh: bool, now: Now, random: &mut Random<'_>, actions: &mut Vec<Action>) {
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
        let moving = matches!(attempt.target, Target::Agent(_)) && self.config.name_previous;
        let previous = self
            .previous
            .filter(|&previous| moving && previous != attempt.care_of);
        if let Some(address) = previous {
            let handover = Handover {
                new_fa: attempt.care_of,
                home: self.config.home,
                identification: attempt.identification,
            };
            let key = self.handover.get(&address);
            let token = key.map(|key| key.token(&handover)).unwrap_or_default();
            let extension = Extension::PreviousFa(PreviousFa {
                address,
                token: &token,
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

    /// A reply counts if it is for us, for the last request, and from who could answer it (§3.6.2).
    pub(super) fn replied(
        &mut self,
        octets: &[u8],
        reply: &Reply,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let awaited = self.attempt.as_ref().is_some_and(|attempt| {
            attempt.identification.low() == reply.identification.low()
                && reply.home == self.config.home
        });
        let Some(attempt) = self.attempt.clone().filter(|_| awaited) else {
            self.counters.unexpected += 1;
            return;
        };
        let extensions = match Extensions::parse(octets, Message::Reply(*reply).fixed_len()) {
            Ok(extensions) => extensions,
            Err(DecodeError::Unknown(_)) => {
                self.counters.unknown_extension += 1;
                return;
            }
            Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        if !self.authentic(&attempt, reply, &extensions) {
            self.counters.unauthentic += 1;
            return;
        }
        if reply.code.accepted() {
            self.counters.accepted += 1;
            self.accepted(&attempt, reply, now, actions);
        } else {
            self.counters.denied(reply.code);
            self.denied(&attempt, reply, now, random, actions);
        }
    }

    fn authentic(&self, attempt: &Attempt, reply: &Reply, extensions: &Extensions<'_>) -> bool {
        let through_agent = !matches!(attempt.target, Target::Home(_));
        let foreign = self.config.foreign.get(&attempt.target.key().1);
        if let Some(association) = foreign.filter(|_| through_agent) {
            let authentication = extensions.authentication(Pair::MobileForeign);
            if !authentication.is_some_and(|one| association.verify(&one)) {
                return false;
            }
        }
        if reply.code.by_foreign_agent() {
            return through_agent;
        }
        let Some(authentication) = extensions.authentication(Pair::MobileHome) else {
            return false;
        };
        let ours = std::slice::from_ref(&self.config.association);
        find(ours, authentication.spi)
            .or_else(|| find(&self.config.more, authentication.spi))
            .is_some_and(|association| association.verify(&authentication))
    }

    fn accepted(&mut self, attempt: &Attempt, reply: &Reply, now: Now, actions: &mut Vec<Action>) {
        self.source
            .answered(self.config.association.replay, reply.identification);
        self.attempt = None;
        self.timers.cancel(Due::Retransmit);
        match attempt.target {
            Target::Agent(key) => self.registered(key, attempt, reply, now, actions),
            Target::Home((interface, _)) => {
                self.release(actions);
                self.place = Place::Home;
                self.previous = None;
                actions.push(Action::GratuitousArp {
                    address: self.config.home,
                    interface,
                    link: None,
                });
                actions.push(Action::Notify(Event::AtHome));
            }
            Target::Leave(_) => {
                self.release(actions);
                self.previous = None;
                actions.push(Action::Notify(Event::Left));
            }
        }
    }

    fn registered(
        &mut self,
        key: AgentKey,
        attempt: &Attempt,
        reply: &Reply,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let (interface, agent) = key;
        let home = self.config.home;
        let new = Registration {
            agent: key,
            care_of: attempt.care_of,
            link: attempt.link,
        };
        let old = self.current.replace(new);
        if old.as_ref().is_none_or(|old| old.agent != key) {
            actions.push(Action::AddRoute(Route::Default {
                agent,
                interface,
                home,
            }));
            if let Some(old) = old {
                self.unroute(old.agent, old.link, actions);
            }
        }
        // More than was asked for isn't believed (§3.6.2.1), and time runs since the request left.
        let lifetime = reply.lifetime.min(attempt.lifetime);
        if lifetime == INFINITE {
            self.timers.cancel(Due::Expiry);
        } else {
            let granted = Duration::from_secs(lifetime.into());
            self.timers.set(Due::Expiry, attempt.sent + granted);
            // A quarter of it is left for the renewal's own retransmissions.
            self.timers.set(Due::Renew, attempt.sent + granted * 3 / 4);
        }
        self.place = Place::Away;
        self.previous = Some(attempt.care_of);
        actions.push(Action::Notify(Event::Registered {
            agent,
            care_of: attempt.care_of,
            identification: reply.identification,
            lifetime,
            took: now.monotonic.saturating_sub(attempt.began),
        }));
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

    fn denied(
        &mut self,
        attempt: &Attempt,
        reply: &Reply,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let key = attempt.target.key();
        let code = reply.code;
        actions.push(Action::Notify(Event::Denied { agent: key.1, code }));
        let replay = self.config.association.replay;
        match code {
            Code::HA_IDENTIFICATION => {
                self.source.resynchronise(replay, reply.identification, now);
            }
            // With nonces every answer of the home agent's gives the next one.
            _ if !code.by_foreign_agent() && replay == Replay::Nonces => {
                self.source.answered(replay, reply.identification);
            }
            _ => {}
        }
        let shorter = reply.lifetime > 0 && reply.lifetime < attempt.lifetime;
        let correctable = match code {
            Code::HA_IDENTIFICATION => true,
            Code::FA_LIFETIME => shorter,
            _ => false,
        };
        if let Some(attempt) = self
            .attempt
            .as_mut()
            .filter(|one| correctable && one.corrections < CORRECTIONS)
        {
            attempt.corrections += 1;
            if code == Code::FA_LIFETIME {
                attempt.lifetime = reply.lifetime;
            }
            self.send(true, now, random, actions);
            return;
        }
        // Otherwise the retransmission's time comes (§3.6.3), unless another agent is at hand.
        self.penalise(key, now);
        let other = self
            .best(key, now)
            .filter(|other| !self.penalised(*other, now));
        if let (true, Target::Agent(_), Some(other)) =
            (code.by_foreign_agent(), attempt.target, other)
        {
            self.begin(Target::Agent(other), now, random, actions);
        } else if replay == Replay::Nonces {
            // The Identification that was judged isn't good a second time.
            let next = self.source.next(replay, now, random);
            if let Some(attempt) = &mut self.attempt {
                attempt.identification = next;
            }
        }
    }
}
