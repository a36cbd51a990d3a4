// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which agent to use: noticing that we moved (RFC 5944 §2.4.2), and choosing again.

use super::heard::{Agent, AgentKey};
use super::{Due, MobileNode, Place, Target};
use crate::action::{Action, Event};
use crate::packet::Interface;
use crate::time::{Now, Random};

impl MobileNode {
    /// A link came up, or is another one than before: agents are asked for at once. What was heard on it counts for
    /// nothing until it is heard again.
    pub fn link_up(&mut self, interface: Interface, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        self.wary = None;
        self.links.entry(interface).or_default();
        for (key, agent) in &mut self.agents {
            agent.stale |= key.0 == interface;
        }
        let home = self
            .agents
            .contains_key(&(interface, self.config.home_agent));
        if self.place == Place::Left || (self.place == Place::Home && home) {
            self.place = Place::Away;
        }
        self.search(interface, now);
        self.due_solicitation(interface, now, &mut actions);
        actions
    }

    /// The solicitation leaves in this very call unless the link flaps.
    pub(super) fn due_solicitation(
        &mut self,
        interface: Interface,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let due = Due::Solicit(interface);
        if self.timers.at(due).is_some_and(|at| at <= now.monotonic) {
            self.solicit(interface, now, actions);
        }
    }

    /// A link went down: its agents are gone, and if ours was among them another one is taken at once.
    pub fn link_down(
        &mut self,
        interface: Interface,
        now: Now,
        random: &mut Random<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.links.remove(&interface);
        self.timers.cancel(Due::Solicit(interface));
        let gone: Vec<AgentKey> = self
            .agents
            .keys()
            .copied()
            .filter(|key| key.0 == interface)
            .collect();
        for &key in &gone {
            self.agents.remove(&key);
            self.timers.cancel(Due::AgentExpiry(key));
        }
        if self.place == Place::Home && gone.contains(&(interface, self.config.home_agent)) {
            self.place = Place::Away;
        }
        let lost = self.target().filter(|key| key.0 == interface);
        if let Some(key) = lost {
            self.drop_attempt(&mut actions);
            self.look_elsewhere(key, now, random, &mut actions);
        }
        // The kernel takes a link's routes with the link, so they are put up again by a new registration.
        if self.registered_by().is_some_and(|key| key.0 == interface) {
            self.release(&mut actions);
        }
        actions
    }

    /// The agent we are with, or are going to.
    pub(super) fn target(&self) -> Option<AgentKey> {
        let going = self.attempt.as_ref().map(|attempt| attempt.target.key());
        going.or_else(|| self.registered_by())
    }

    /// The agent we are registered through.
    pub(super) fn registered_by(&self) -> Option<AgentKey> {
        self.current.as_ref().map(|current| current.agent)
    }

    /// Whether an agent that is heard now tells that we left the current one.
    ///
    /// On another link it doesn't. On the same link it does if the current one wasn't heard since the link changed; or
    /// if its prefix is another one (§2.4.2.2) and it wasn't heard before: two cells that overlap are not a reason to
    /// go to and fro.
    pub(super) fn moved_to(
        &self,
        current: AgentKey,
        heard: AgentKey,
        fresh: bool,
        now: Now,
    ) -> bool {
        let Some(old) = self.agents.get(&current) else {
            return true;
        };
        if self.penalised(heard, now) {
            return false;
        }
        if current.0 != heard.0 {
            return old.stale;
        }
        let prefix = |key| self.agents.get(key).and_then(|agent: &Agent| agent.prefix);
        let differ = match (prefix(&current), prefix(&heard)) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        };
        old.stale || (fresh && differ && !self.wary(now))
    }

    /// Where an attempt elsewhere may go back to: the agent we are registered through, if it is heard.
    pub(super) fn back(&self) -> Option<AgentKey> {
        let going = self.attempt.as_ref().map(|attempt| attempt.target);
        if matches!(going, Some(Target::Leave(_))) {
            return None;
        }
        let elsewhere = |key: &AgentKey| going.is_some_and(|target| target.key() != *key);
        self.registered_by()
            .filter(|key| elsewhere(key) && self.hears(*key))
    }

    /// Whether an attempt on this link isn't given up for another agent that is heard there: it was made a moment ago, or
    /// there is a registration to go back to. Else ever new agents would keep us from all.
    pub(super) fn tries(&self, interface: Interface) -> bool {
        let Some(attempt) = &self.attempt else {
            return false;
        };
        let key = attempt.target.key();
        key.0 == interface
            && self.registered_by() != Some(key)
            && self.hears(key)
            && (!attempt.had_its_turn() || self.back().is_some())
    }

    /// Whether an attempt elsewhere came to nothing lately, and the agent we are registered through is heard.
    pub(super) fn wary(&self, now: Now) -> bool {
        self.wary.is_some_and(|until| until > now.monotonic)
            && self.registered_by().is_some_and(|key| self.hears(key))
    }

    /// Gives the attempt elsewhere up. The home agent may have heard of it: it is told where we are.
    pub(super) fn go_back(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Some(attempt) = &self.attempt {
            let key = attempt.target.key();
            self.penalise(key, now);
        }
        self.drop_attempt(actions);
        self.wary = Some(now.after(self.config.penalty));
        self.renew_soon(now);
    }

    /// An agent isn't heard any more: if it is ours, the one that was heard last takes its place (§2.4.2.1).
    pub(super) fn unheard(
        &mut self,
        key: AgentKey,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        if self.target() != Some(key) {
            return;
        }
        self.drop_attempt(actions);
        self.look_elsewhere(key, now, random, actions);
    }

    /// Without an attempt, and not with this agent.
    fn look_elsewhere(
        &mut self,
        but: AgentKey,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        if self.place == Place::Left {
            return;
        }
        let current = self.registered_by().filter(|key| *key != but);
        if current.is_some_and(|key| self.agents.contains_key(&key)) {
            // The registration that holds is as good as it was; it is renewed when there was time to see.
            self.go_back(now, actions);
            return;
        }
        if let Some(other) = self.best(but, now) {
            self.begin(Target::Agent(other), now, random, actions);
            return;
        }
        actions.push(Action::Notify(Event::Lost));
        let up: Vec<Interface> = self.links.keys().copied().collect();
        for interface in up {
            self.search(interface, now);
            self.due_solicitation(interface, now, actions);
        }
    }

    /// The best agent but this one: not under a penalty, then one that was heard more than once, then the latest heard.
    pub(super) fn best(&self, but: AgentKey, now: Now) -> Option<AgentKey> {
        let mut candidates: Vec<_> = self
            .agents
            .iter()
            .filter(|(key, agent)| **key != but && !agent.stale && self.usable(**key))
            .map(|(key, agent)| (!self.penalised(*key, now), agent.again, agent.heard, *key))
            .collect();
        candidates.sort_unstable();
        candidates.pop().map(|(_, _, _, key)| key)
    }

    /// The registration's lifetime is over.
    pub(super) fn expired(&mut self, now: Now, random: &mut Random<'_>, actions: &mut Vec<Action>) {
        let Some(key) = self.registered_by() else {
            return;
        };
        let going = self.attempt.as_ref().map(|attempt| attempt.target.key());
        self.release_but(going, actions);
        actions.push(Action::Notify(Event::Expired));
        if going.is_none() && self.usable(key) && self.place != Place::Left {
            self.begin(Target::Agent(key), now, random, actions);
        }
    }
}
