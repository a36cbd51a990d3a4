// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The foreign agent (RFC 5944 §3.7): advertises itself, relays registrations, keeps the visitor list.
//!
//! `request.rs` is the way from mobile node to home agent, `reply.rs` the way back, `visitor.rs` who is here,
//! `revoke.rs` RFC 3543.

mod config;
mod reply;
mod request;
mod revoke;
mod visitor;

pub use config::ForeignConfig;
pub use visitor::Visitor;

use crate::action::{Action, Event, Predecessor, Reason, Tunnels};
use crate::advertise::{Advertiser, Offer};
use crate::code::Code;
use crate::counters::Counters;
use crate::error::DecodeError;
use crate::message::{Message, Request};
use crate::packet::{Incoming, Interface, LinkAddress, Payload, TTL_LINK};
use crate::revoke::{Revoker, Stamps};
use crate::router::{AgentFlags, Solicitation};
use crate::time::{Now, Random};
use crate::timers::Timers;
use crate::ReverseTunnel;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A foreign agent.
#[derive(Clone, Debug)]
pub struct ForeignAgent {
    config: ForeignConfig,
    advertisers: Vec<Advertiser>,
    visitors: HashMap<Ipv4Addr, Visitor>,
    pending: HashMap<PendingKey, Pending>,
    timers: Timers<Due>,
    tunnels: Tunnels,
    revoker: Revoker,
    stamps: Stamps,
    counters: Counters,
}

/// A request is matched to its reply by these: the mobile node, and the low half of the Identification.
type PendingKey = (Ipv4Addr, u32);

/// Requests that wait for a reply, a mobile node. A stranger that uses its address would push its own one out: it takes as many
/// within the time that the home agent needs to answer.
const PENDING_A_NODE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Expiry(Ipv4Addr),
    Timeout(PendingKey),
}

/// Where a request came from, for its answer.
#[derive(Clone, Copy, Debug)]
struct Asker {
    interface: Interface,
    source: Ipv4Addr,
    port: u16,
    link: Option<LinkAddress>,
    /// Our address that it used.
    destination: Ipv4Addr,
}

impl Asker {
    /// Who it is on its link.
    fn place(&self) -> (Interface, Option<LinkAddress>) {
        (self.interface, self.link)
    }
}

/// A request that was relayed (RFC 5944 §3.7.1).
#[derive(Clone, Debug)]
struct Pending {
    asker: Asker,
    request: Request,
    previous: Option<Predecessor>,
    /// The code that an answer which may be anybody's earned.
    failed: Option<Code>,
    /// The mobile node was told of a denial that may be anybody's.
    told: bool,
}

impl ForeignAgent {
    /// A foreign agent without visitors, whose first advertisements are due now.
    pub fn new(config: ForeignConfig, now: Now) -> Self {
        let links = config.links.iter().cloned();
        ForeignAgent {
            advertisers: links.map(|link| Advertiser::new(link, now)).collect(),
            config,
            visitors: HashMap::new(),
            pending: HashMap::new(),
            timers: Timers::default(),
            tunnels: Tunnels::default(),
            revoker: Revoker::default(),
            stamps: Stamps::default(),
            counters: Counters::default(),
        }
    }

    /// Takes a packet.
    pub fn handle(
        &mut self,
        packet: &Incoming<'_>,
        now: Now,
        _random: &mut Random<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        match packet.payload {
            Payload::Icmp(octets) => self.solicited(packet, octets, now, &mut actions),
            Payload::Udp {
                source_port,
                octets,
            } => match Message::parse(octets) {
                Ok(Message::Request(request)) => {
                    let asker = Asker {
                        interface: packet.interface,
                        source: packet.source,
                        port: source_port,
                        link: packet.link_source,
                        destination: packet.destination,
                    };
                    self.request(asker, packet.ttl, octets, request, now, &mut actions);
                }
                Ok(Message::Reply(_) | Message::Revocation(_) | Message::RevocationAck(_))
                    if self.config.on_link(packet.interface) =>
                {
                    // Home agents aren't where mobile nodes come to: who says so there is somebody else.
                    self.counters.ignored += 1;
                }
                Ok(Message::Reply(reply)) => {
                    self.reply(packet, octets, &reply, now, &mut actions);
                }
                Ok(Message::Revocation(revocation)) => {
                    self.revocation(packet, source_port, octets, &revocation, &mut actions);
                }
                Ok(Message::RevocationAck(ack)) => {
                    self.revocation_ack(packet, octets, &ack, &mut actions);
                }
                Err(DecodeError::Type(_)) => self.counters.ignored += 1,
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
                Due::Expiry(home) => {
                    self.turn_out(home, Reason::Expired, &mut actions);
                }
                Due::Timeout(key) => {
                    if let Some(pending) = self.pending.remove(&key).filter(|one| !one.told) {
                        let code = pending.failed.unwrap_or(Code::FA_TIMEOUT);
                        self.deny(&pending.asker, &pending.request, code, &mut actions);
                    }
                }
            }
        }
        self.revoker.tick(now, &mut actions);
        let offer = self.offer();
        for advertiser in &mut self.advertisers {
            actions.extend(advertiser.tick(&offer, now, random).map(Action::Send));
        }
        actions
    }

    /// When [`ForeignAgent::tick`] has something to do, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let advertisers = self.advertisers.iter().filter_map(Advertiser::next).min();
        [self.timers.next(), self.revoker.next(), advertisers]
            .into_iter()
            .flatten()
            .min()
    }

    /// ICMP says that what was sent to a home agent didn't get there: the code of a Destination Unreachable (RFC 792), none
    /// for another error, and what it quotes of the datagram. Whoever waits for that home agent is denied at once (codes 80
    /// to 88), if the quotation shows a request that was relayed there and waits: else anybody on the Internet who knows two
    /// addresses could have registrations denied. A quotation that is too short to show it changes nothing, and the request
    /// waits for its time to be over. Since a router that sees the request may lie, an answer of the home agent's counts all the same.
    pub fn unreachable(
        &mut self,
        home_agent: Ipv4Addr,
        icmp_code: Option<u8>,
        quoted: &[u8],
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let shown = match Message::parse(quoted) {
            Ok(Message::Request(request)) => self
                .pending
                .get(&(request.home, request.identification.low()))
                .is_some_and(|one| {
                    one.request.identification == request.identification
                        && one.request.home_agent == home_agent
                }),
            _ => false,
        };
        if !shown {
            self.counters.unexpected += 1;
            return actions;
        }
        let code = match icmp_code {
            Some(0) => Code::FA_NETWORK_UNREACHABLE,
            Some(1) => Code::FA_HOST_UNREACHABLE,
            Some(3) => Code::FA_PORT_UNREACHABLE,
            _ => Code::FA_UNREACHABLE,
        };
        let mut keys: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.request.home_agent == home_agent && !pending.told)
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.told = true;
                let (asker, request) = (pending.asker, pending.request);
                self.deny(&asker, &request, code, &mut actions);
            }
        }
        actions
    }

    /// A link came up: somebody may have come whose solicitation, or the answer to it, was lost before it carried anything.
    /// The next [`ForeignAgent::tick`] advertises on it.
    pub fn link_up(&mut self, interface: Interface, now: Now) {
        let here = |one: &&mut Advertiser| one.link.interface == interface;
        if let Some(advertiser) = self.advertisers.iter_mut().find(here) {
            advertiser.up(now);
        }
    }

    /// The visitors there are.
    pub fn visitors(&self) -> impl Iterator<Item = &Visitor> {
        self.visitors.values()
    }

    /// Its counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn offer(&self) -> Offer {
        let mut flags = AgentFlags::FOREIGN | AgentFlags::REGISTRATION_REQUIRED;
        if self.config.reverse_tunnel != ReverseTunnel::Refused {
            flags |= AgentFlags::REVERSE_TUNNEL;
        }
        if self.config.revocation {
            flags |= AgentFlags::REVOCATION;
        }
        if self.visitors.len() >= self.config.max_visitors {
            flags |= AgentFlags::BUSY;
        }
        Offer {
            flags,
            lifetime: self.config.max_lifetime,
            care_of: vec![self.config.care_of],
        }
    }

    fn solicited(
        &mut self,
        packet: &Incoming<'_>,
        octets: &[u8],
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        // From this link, and not from beyond a router (RFC 5944 §2.2).
        if packet.ttl != TTL_LINK || Solicitation::parse(octets).is_err() {
            self.counters.ignored += 1;
            return;
        }
        let offer = self.offer();
        let here = |one: &&mut Advertiser| one.link.interface == packet.interface;
        if let Some(advertiser) = self.advertisers.iter_mut().find(here) {
            match advertiser.solicited(&offer, packet, now) {
                Some(answer) => actions.push(Action::Send(answer)),
                None => self.counters.limited += 1,
            }
        }
    }

    fn refused(&mut self, home: Ipv4Addr, code: Code, actions: &mut Vec<Action>) {
        self.counters.denied(code);
        actions.push(Action::Notify(Event::Refused { home, code }));
    }
}
