// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Agents that are heard, and what their advertisements say of them.

use super::{Attempt, Due, MobileNode, Place, Target};
use crate::action::Action;
use crate::number::ALL_SYSTEMS;
use crate::packet::{Incoming, Interface, LinkAddress, TTL_LINK};
use crate::router::{Advertisement, AgentFlags};
use crate::time::{Now, Random};
use std::net::Ipv4Addr;
use std::time::Duration;

/// An agent: its link, and its address there.
pub(super) type AgentKey = (Interface, Ipv4Addr);

/// Agents remembered at once.
const AGENTS: usize = 64;

/// The longest that an advertisement is believed. It may say up to 18 h, and be anybody's.
const BELIEVED: Duration = Duration::from_secs(30);

/// Then an agent that said it would be there for longer is asked, and has this long to answer.
const ASKED: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) link: Option<LinkAddress>,
    /// The first of them: an agent's are all as good.
    pub(super) care_of: Option<Ipv4Addr>,
    pub(super) lifetime: u16,
    pub(super) flags: AgentFlags,
    sequence: u16,
    pub(super) prefix: Option<(Ipv4Addr, u8)>,
    pub(super) heard: Duration,
    /// More than once.
    pub(super) again: bool,
    /// How long it said it would be there, and whether it was asked meanwhile if it is.
    until: Duration,
    asked: bool,
    /// The link may be another one since it was heard.
    pub(super) stale: bool,
    /// It denied; others come first until then.
    pub(super) penalty: Option<Duration>,
}

impl Agent {
    /// Whether it said with this sequence number that it has begun anew (RFC 5944 §2.3.2). Beyond 255 a smaller
    /// number is a roll-over.
    fn began_anew(&self, sequence: u16) -> bool {
        sequence < self.sequence && sequence < 256
    }
}

impl MobileNode {
    pub(super) fn advertised(
        &mut self,
        packet: &Incoming<'_>,
        octets: &[u8],
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        // Of this link, and to us: RFC 5944 §2.1 has it sent so.
        let to_us = [ALL_SYSTEMS, Ipv4Addr::BROADCAST, self.config.home];
        if packet.ttl != TTL_LINK || !to_us.contains(&packet.destination) {
            self.counters.ignored += 1;
            return;
        }
        let advertisement = match Advertisement::parse(octets) {
            Ok(advertisement) => advertisement,
            Err(crate::DecodeError::Type(_)) => return,
            Err(crate::DecodeError::Unknown(_)) => {
                self.counters.unknown_extension += 1;
                return;
            }
            Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        let prefix = advertisement.prefix();
        let Some(said) = advertisement.agent else {
            return;
        };
        let key = (packet.interface, packet.source);
        let old = self.agents.get(&key);
        let anew = old.is_some_and(|old| old.began_anew(said.sequence));
        let fresh = old.is_none_or(|old| old.stale);
        let holds = Duration::from_secs(advertisement.lifetime.into());
        let agent = Agent {
            link: packet.link_source,
            care_of: said.care_of.first().copied(),
            lifetime: said.lifetime,
            flags: said.flags,
            sequence: said.sequence,
            prefix,
            heard: now.monotonic,
            again: !fresh,
            until: now.after(holds),
            asked: false,
            stale: false,
            penalty: old.and_then(|old| old.penalty),
        };
        self.make_room(key);
        self.agents.insert(key, agent);
        // For 0 s: it takes its leave (RFC 1256 §2.2).
        let believed = now.after(holds.min(BELIEVED));
        self.timers.set(Due::AgentExpiry(key), believed);
        if self.place == Place::Left {
            return;
        }
        if packet.source == self.config.home_agent && said.flags.has(AgentFlags::HOME) {
            self.heard_home(key, now, random, actions);
        } else if self.usable(key) {
            self.heard_agent(key, fresh, anew, now, random, actions);
        }
    }

    /// Whether an agent that isn't believed any more may be there still, by what it said; then it is asked, once.
    pub(super) fn asked_again(
        &mut self,
        key: AgentKey,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let left = self.place == Place::Left;
        let unasked = |agent: &&mut Agent| agent.until > now.monotonic && !agent.asked && !left;
        let Some(agent) = self.agents.get_mut(&key).filter(unasked) else {
            return false;
        };
        agent.asked = true;
        let until = agent.until.min(now.after(ASKED));
        self.timers.set(Due::AgentExpiry(key), until);
        self.search(key.0, now);
        self.due_solicitation(key.0, now, actions);
        true
    }

    /// Whoever advertises under ever new addresses gets no more memory for it.
    fn make_room(&mut self, new: AgentKey) {
        if self.agents.contains_key(&new) || self.agents.len() < AGENTS {
            return;
        }
        let kept = [self.target(), self.registered_by()];
        let others = self
            .agents
            .iter()
            .filter(|(key, _)| !kept.contains(&Some(**key)));
        let oldest = others.map(|(key, agent)| (agent.heard, *key)).min();
        if let Some((_, key)) = oldest {
            self.agents.remove(&key);
            self.timers.cancel(Due::AgentExpiry(key));
        }
    }

    /// Our home agent is on this link: we are at home (RFC 5944 §2.4.3).
    fn heard_home(
        &mut self,
        key: AgentKey,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.found(key.0);
        let already = |attempt: &Attempt| attempt.target == Target::Home(key);
        if self.place == Place::Home || self.attempt.as_ref().is_some_and(already) {
            return;
        }
        // Anybody can say that this is home; only an answer shows it.
        let otherwise =
            self.attempt.is_some() || self.registered_by().is_some_and(|key| self.hears(key));
        if otherwise && (self.penalised(key, now) || self.wary(now) || self.tries(key.0)) {
            return;
        }
        self.begin(Target::Home(key), now, random, actions);
    }

    fn heard_agent(
        &mut self,
        key: AgentKey,
        fresh: bool,
        anew: bool,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.found(key.0);
        if self.place == Place::Home && self.hears_home() {
            return;
        }
        if self.back() == Some(key) {
            // It is as good as it was, and who was to take its place doesn't answer.
            if self.attempt.as_ref().is_some_and(Attempt::had_its_turn) {
                self.go_back(now, actions);
            }
            return;
        }
        match self.target() {
            Some(current) if current == key => {
                let overdue = self.current.as_ref().is_some_and(|one| one.overdue);
                // It has forgotten us; but not if that is what we are telling it already.
                if (anew || overdue) && self.attempt.is_none() {
                    self.begin(Target::Agent(key), now, random, actions);
                }
            }
            Some(_) if self.tries(key.0) => {}
            Some(current) if !self.moved_to(current, key, fresh, now) => {}
            Some(current) if self.attempt.as_ref().is_some_and(Attempt::had_its_turn) => {
                // In its place not simply who is new: whoever makes agents up makes up ever new ones.
                self.penalise(current, now);
                let best = self.best(current, now).unwrap_or(key);
                self.begin(Target::Agent(best), now, random, actions);
            }
            _ => self.begin(Target::Agent(key), now, random, actions),
        }
    }

    /// Whether it is heard on the link as that is now.
    pub(super) fn hears(&self, key: AgentKey) -> bool {
        self.agents.get(&key).is_some_and(|agent| !agent.stale)
    }

    fn hears_home(&self) -> bool {
        let home = |(key, agent): (&AgentKey, &Agent)| {
            key.1 == self.config.home_agent && agent.flags.has(AgentFlags::HOME) && !agent.stale
        };
        self.agents.iter().any(home)
    }

    /// Whether it denied us lately, or didn't answer.
    pub(super) fn penalised(&self, key: AgentKey, now: Now) -> bool {
        let until = self.agents.get(&key).and_then(|agent| agent.penalty);
        until.is_some_and(|until| until > now.monotonic)
    }

    pub(super) fn penalise(&mut self, key: AgentKey, now: Now) {
        let until = now.after(self.config.penalty);
        if let Some(agent) = self.agents.get_mut(&key) {
            agent.penalty = Some(until);
        }
    }

    /// Whether we can register through it at all.
    pub(super) fn usable(&self, key: AgentKey) -> bool {
        let Some(agent) = self.agents.get(&key) else {
            return false;
        };
        // Who was with it before isn't one more.
        let known = self.registered_by() == Some(key) || self.previous == agent.care_of;
        let busy = agent.flags.has(AgentFlags::BUSY) && !known;
        let reverse = !self.config.reverse_tunnel || agent.flags.has(AgentFlags::REVERSE_TUNNEL);
        agent.flags.has(AgentFlags::FOREIGN) && agent.care_of.is_some() && reverse && !busy
    }
}
