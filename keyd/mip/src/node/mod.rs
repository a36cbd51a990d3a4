// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mobile node (RFC 5944 §2.4, §3.6): finds agents, notices that it moved, registers.
//!
//! `solicit.rs` asks links for agents, `heard.rs` keeps those that answered, `movement.rs` decides which to use,
//! `register.rs` asks the home agent, `reply.rs` hears its answer.

mod config;
mod heard;
mod movement;
mod register;
mod reply;
mod solicit;

pub use config::NodeConfig;

use crate::action::Action;
use crate::counters::Counters;
use crate::error::DecodeError;
use crate::extension::Seen;
use crate::message::Message;
use crate::packet::{Incoming, Interface, Payload};
use crate::replay::Source;
use crate::time::{Now, Random};
use crate::timers::Timers;
use crate::token::HandoverKey;
use heard::{Agent, AgentKey};
use register::{Attempt, Registration, Target};
use solicit::Search;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

/// A mobile node.
#[derive(Clone, Debug)]
pub struct MobileNode {
    config: NodeConfig,
    /// Links that are up.
    links: BTreeMap<Interface, Search>,
    agents: HashMap<AgentKey, Agent>,
    current: Option<Registration>,
    attempt: Option<Attempt>,
    place: Place,
    /// The foreign agent of the last registration that was accepted.
    previous: Option<Ipv4Addr>,
    handover: HashMap<Ipv4Addr, HandoverKey>,
    /// What has arrived, when that was last asked.
    seen: Vec<Seen>,
    /// Until then no agent beside the one it is registered through is tried, as long as that one is heard.
    wary: Option<Duration>,
    source: Source,
    timers: Timers<Due>,
    counters: Counters,
}

/// What the home agent believes, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing is known yet, or a registration may hold.
    Away,
    /// At home, and deregistered.
    Home,
    /// Told to leave; registers no more before a link comes up.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Solicit(Interface),
    AgentExpiry(AgentKey),
    Retransmit,
    Renew,
    Expiry,
}

impl MobileNode {
    /// A mobile node without links: they come with [`MobileNode::link_up`].
    pub fn new(config: NodeConfig) -> Self {
        MobileNode {
            config,
            links: BTreeMap::new(),
            agents: HashMap::new(),
            current: None,
            attempt: None,
            place: Place::Away,
            previous: None,
            handover: HashMap::new(),
            seen: Vec::new(),
            wary: None,
            source: Source::default(),
            timers: Timers::default(),
            counters: Counters::default(),
        }
    }

    /// Takes a packet.
    pub fn handle(
        &mut self,
        packet: &Incoming<'_>,
        now: Now,
        random: &mut Random<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.links.contains_key(&packet.interface) {
            // It came before the link was known to be up, or after it went down.
            self.counters.ignored += 1;
            return actions;
        }
        match packet.payload {
            Payload::Icmp(octets) => self.advertised(packet, octets, now, random, &mut actions),
            Payload::Udp { octets, .. } => match Message::parse(octets) {
                Ok(Message::Reply(reply)) => {
                    self.replied(octets, &reply, now, random, &mut actions);
                }
                Ok(_) | Err(DecodeError::Type(_)) => self.counters.ignored += 1,
                Err(_) => self.counters.malformed += 1,
            },
        }
        actions
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, random: &mut Random<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(due) = self.timers.pop(now.monotonic) {
            match due {
                Due::Solicit(interface) => self.solicit(interface, now, &mut actions),
                Due::AgentExpiry(key) => {
                    if !self.asked_again(key, now, &mut actions) {
                        self.agents.remove(&key);
                        self.unheard(key, now, random, &mut actions);
                    }
                }
                Due::Retransmit => self.retransmit(now, random, &mut actions),
                Due::Renew => self.renew(now, random, &mut actions),
                Due::Expiry => self.expired(now, random, &mut actions),
            }
        }
        actions
    }

    /// When [`MobileNode::tick`] has something to do, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// The foreign agent with this care-of address was given K_FA: the next registration elsewhere carries a token
    /// for it. None when the key is no longer good.
    pub fn handover_key(&mut self, care_of: Ipv4Addr, key: Option<HandoverKey>) {
        match key {
            Some(key) => self.handover.insert(care_of, key),
            None => self.handover.remove(&care_of),
        };
    }

    /// Whether a request may be made in which what has arrived is told ([`MobileNode::has_seen`]), by this packet's coming or,
    /// with none, by a link's coming or going or a deadline.
    pub fn tells_seen(&self, packet: Option<&Incoming<'_>>) -> bool {
        let with = |packet: &Incoming<'_>| {
            let advertises = matches!(packet.payload, Payload::Icmp(_));
            !advertises || self.registered_by() == Some((packet.interface, packet.source))
        };
        self.config.name_previous && self.previous.is_some() && !packet.is_some_and(with)
    }

    /// What has arrived of composite SAs: a request to another agent tells it from now on (docs/wire.md 4d).
    pub fn has_seen(&mut self, seen: Vec<Seen>) {
        self.seen = seen;
    }

    /// The care-of address that is registered, if one is.
    pub fn care_of(&self) -> Option<Ipv4Addr> {
        self.current.as_ref().map(|current| current.care_of)
    }

    /// Whether it is at home, and the home agent knows.
    pub fn at_home(&self) -> bool {
        self.place == Place::Home
    }

    /// Its counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
