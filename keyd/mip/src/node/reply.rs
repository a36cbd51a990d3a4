// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What comes back: acceptance, denial, and what doesn't count (RFC 5944 §3.6.2).

use super::heard::AgentKey;
use super::register::{Attempt, Registration, Target};
use super::{Due, MobileNode, Place};
use crate::action::{Action, Event, Route};
use crate::auth::find;
use crate::code::Code;
use crate::error::DecodeError;
use crate::extension::{Extensions, Pair, Seen};
use crate::message::{Message, Reply};
use crate::number::INFINITE;
use crate::replay::Replay;
use crate::time::{Now, Random};
use std::time::Duration;

/// Answers that are followed by another request at once.
const CORRECTIONS: u32 = 2;

impl MobileNode {
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
            let arrived = extensions.arrived().collect();
            self.accepted(&attempt, reply, arrived, now, actions);
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

    fn accepted(
        &mut self,
        attempt: &Attempt,
        reply: &Reply,
        arrived: Vec<Seen>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.source
            .answered(self.config.association.replay, reply.identification);
        self.attempt = None;
        self.timers.cancel(Due::Retransmit);
        match attempt.target {
            Target::Agent(key) => self.registered(key, attempt, reply, arrived, now, actions),
            Target::Home((interface, _)) => {
                self.release(actions);
                self.place = Place::Home;
                self.previous = None;
                actions.push(Action::GratuitousArp {
                    address: self.config.home,
                    interface,
                    link: None,
                });
                actions.push(Action::Notify(Event::AtHome { arrived }));
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
        arrived: Vec<Seen>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let (interface, agent) = key;
        let home = self.config.home;
        let new = Registration {
            agent: key,
            care_of: attempt.care_of,
            link: attempt.link,
            overdue: false,
        };
        let old = self.current.replace(new);
        if old.as_ref().is_none_or(|old| old.agent != key) {
            self.wary = None;
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
            self.timers.cancel(Due::Renew);
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
            arrived,
        }));
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
        if self.back().is_some() {
            self.go_back(now, actions);
            return;
        }
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
