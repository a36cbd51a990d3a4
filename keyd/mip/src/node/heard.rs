// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Agents that are heard, and what their advertisements say of them.

use super::{Due, MobileNode, Place, Target};
use crate::action::Action;
use crate::packet::{Incoming, Interface, LinkAddress};
use crate::router::{Advertisement, AgentFlags};
use crate::time::{Now, Random};
use std::net::Ipv4Addr;
use std::time::Duration;

/// An agent: its link, and its address there.
pub(super) type AgentKey = (Interface, Ipv4Addr);

/// Agents remembered at once.
const AGENTS: usize = 64;

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
        let agent = Agent {
            link: packet.link_source,
            care_of: said.care_of.first().copied(),
            lifetime: said.lifetime,
            flags: said.flags,
            sequence: said.sequence,
            prefix,
            heard: now.monotonic,
            stale: false,
            penalty: old.and_then(|old| old.penalty),
        };
        self.make_room(key);
        self.agents.insert(key, agent);
        // For 0 s: it takes its leave (RFC 1256 §2.2).
        let holds = Duration::from_secs(advertisement.lifetime.into());
        self.timers.set(Due::AgentExpiry(key), now.after(holds));
        if self.place == Place::Left {
            return;
        }
        if packet.source == self.config.home_agent && said.flags.has(AgentFlags::HOME) {
            self.heard_home(key, now, random, actions);
        } else if self.usable(key) {
            self.heard_agent(key, fresh, anew, now, random, actions);
        }
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
        let already = |attempt: &super::Attempt| attempt.target == Target::Home(key);
        if self.place != Place::Home && !self.attempt.as_ref().is_some_and(already) {
            self.begin(Target::Home(key), now, random, actions);
        }
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
        match self.target() {
            Some(current) if current == key => {
                // It has forgotten us; but not if that is what we are telling it already.
                if anew && self.attempt.is_none() {
                    self.begin(Target::Agent(key), now, random, actions);
                }
            }
            Some(current) if !self.moved_to(current, key, fresh, now) => {}
            _ => self.begin(Target::Agent(key), now, random, actions),
        }
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
