// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The home agent (RFC 5944 §3.8): who is bound to which care-of address, and for how long.
//!
//! `judge.rs` says yes or no to a request, `bind.rs` does what follows, `revoke.rs` speaks RFC 3543 with foreign agents.

mod bind;
mod config;
mod judge;
mod revoke;

use bind::Arrived;
pub use bind::Binding;
pub use config::{HomeConfig, ReverseTunnel, Subscriber};

use crate::action::{Action, Event, Predecessor, Tunnels};
use crate::advertise::{Advertiser, Offer};
use crate::auth::Association;
use crate::bucket::Bucket;
use crate::code::Code;
use crate::counters::Counters;
use crate::error::DecodeError;
use crate::extension::{Extension, Extensions, Pair, RevocationSupport, Seen};
use crate::message::{Identification, Message, Reply, Request};
use crate::number::PORT;
use crate::packet::{Content, Incoming, Packet, Payload, TTL, TTL_LINK};
use crate::replay::Guard;
use crate::revoke::{Revoker, Stamps};
use crate::router::{AgentFlags, Solicitation};
use crate::time::{Now, Random};
use crate::timers::Timers;
use crate::Builder;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A home agent.
#[derive(Clone, Debug)]
pub struct HomeAgent {
    config: HomeConfig,
    /// By mobile node and SPI.
    guards: HashMap<(Ipv4Addr, u32), Guard>,
    bindings: HashMap<Ipv4Addr, Binding>,
    stamps: HashMap<Ipv4Addr, Stamps>,
    tunnels: Tunnels,
    expiry: Timers<Ipv4Addr>,
    revoker: Revoker,
    advertiser: Option<Advertiser>,
    denials: Bucket,
    /// The same of requests that are authentic and were denied, by mobile node: copies of old ones are.
    denied: HashMap<Ipv4Addr, Bucket>,
    began: Now,
    /// What has arrived of a mobile node, when that was last asked.
    seen: Option<(Ipv4Addr, Vec<Seen>)>,
    counters: Counters,
}

/// Denials of requests that aren't authentic, a second: each costs a hash, and goes to whatever source was named.
const DENIALS_PER_SECOND: u32 = 64;

/// Denials of a mobile node's authentic requests, a second. Its own are a few; whoever repeats what it heard gets no more.
const DENIALS_A_NODE: u32 = 16;

impl HomeAgent {
    /// A home agent without bindings. It takes no timestamp from before now (see [`HomeAgent::restore`]).
    pub fn new(config: HomeConfig, now: Now) -> Self {
        HomeAgent {
            advertiser: config
                .home_link
                .clone()
                .map(|link| Advertiser::new(link, now)),
            config,
            guards: HashMap::new(),
            bindings: HashMap::new(),
            stamps: HashMap::new(),
            tunnels: Tunnels::default(),
            expiry: Timers::default(),
            revoker: Revoker::default(),
            denials: Bucket::new(DENIALS_PER_SECOND),
            denied: HashMap::new(),
            began: now,
            seen: None,
            counters: Counters::default(),
        }
    }

    /// The mobile node whose registration by this packet will be answered with what has arrived of it ([`HomeAgent::has_seen`]):
    /// an authentic and fresh one, since it has to be read from the kernel, that names a previous foreign agent.
    pub fn tells_seen(&self, packet: &Incoming<'_>, now: Now) -> Option<Ipv4Addr> {
        let Payload::Udp { octets, .. } = packet.payload else {
            return None;
        };
        let Ok(Message::Request(request)) = Message::parse(octets) else {
            return None;
        };
        let fixed = Message::Request(request).fixed_len();
        let extensions = Extensions::parse(octets, fixed).ok()?;
        extensions.previous_fa()?;
        let association = self.mobile(&request, &extensions)?;
        let guard = self.guards.get(&(request.home, association.spi)).copied();
        guard
            .unwrap_or_else(|| Guard::new(self.began))
            .takes(association.replay, request.identification, now)
            .then_some(request.home)
    }

    /// What has arrived of a mobile node's composite SAs, for the next answer to it (docs/wire.md 4e).
    pub fn has_seen(&mut self, home: Ipv4Addr, seen: Vec<Seen>) {
        self.seen = Some((home, seen));
    }

    /// Takes a packet.
    pub fn handle(
        &mut self,
        packet: &Incoming<'_>,
        now: Now,
        random: &mut Random<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        match packet.payload {
            Payload::Icmp(octets) => self.solicited(packet, octets, now, &mut actions),
            Payload::Udp {
                source_port,
                octets,
            } => match Message::parse(octets) {
                Ok(Message::Request(request)) => {
                    let asked = Asked {
                        packet,
                        port: source_port,
                        octets,
                        request,
                    };
                    self.request(&asked, now, random, &mut actions);
                }
                Ok(Message::Revocation(revocation)) => {
                    self.revocation(packet, source_port, octets, &revocation, &mut actions);
                }
                Ok(Message::RevocationAck(ack)) => {
                    self.revocation_ack(packet, octets, &ack, &mut actions);
                }
                Ok(Message::Reply(_)) | Err(DecodeError::Type(_)) => self.counters.ignored += 1,
                Err(_) => self.counters.malformed += 1,
            },
        }
        actions
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, random: &mut Random<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(home) = self.expiry.pop(now.monotonic) {
            self.unbind(
                home,
                crate::Reason::Expired,
                Arrived::default(),
                &mut actions,
            );
        }
        self.revoker.tick(now, &mut actions);
        let offer = self.offer();
        if let Some(advertiser) = &mut self.advertiser {
            actions.extend(advertiser.tick(&offer, now, random).map(Action::Send));
        }
        actions
    }

    /// When [`HomeAgent::tick`] has something to do, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let advertiser = self.advertiser.as_ref().and_then(Advertiser::next);
        [self.expiry.next(), self.revoker.next(), advertiser]
            .into_iter()
            .flatten()
            .min()
    }

    /// The bindings there are.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// The home addresses of its mobile nodes, wherever they are.
    pub fn subscribers(&self) -> Vec<Ipv4Addr> {
        self.config.subscribers.keys().copied().collect()
    }

    /// Its counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn offer(&self) -> Offer {
        let mut flags = AgentFlags::HOME;
        if self.config.reverse_tunnel != ReverseTunnel::Refused {
            flags |= AgentFlags::REVERSE_TUNNEL;
        }
        if self.config.revocation {
            flags |= AgentFlags::REVOCATION;
        }
        Offer {
            flags,
            lifetime: self.config.max_lifetime,
            care_of: Vec::new(),
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
        let Some(advertiser) = &mut self.advertiser else {
            return;
        };
        if advertiser.link.interface == packet.interface {
            actions.extend(advertiser.solicited(&offer, packet, now).map(Action::Send));
        }
    }

    fn request(
        &mut self,
        asked: &Asked<'_>,
        now: Now,
        random: &mut Random<'_>,
        actions: &mut Vec<Action>,
    ) {
        let fixed = Message::Request(asked.request).fixed_len();
        let extensions = Extensions::parse(asked.octets, fixed);
        if let Err(DecodeError::Unknown(_)) = extensions {
            self.counters.unknown_extension += 1;
            return;
        }
        match self.judge(asked, extensions.as_ref(), now, random) {
            Ok(granted) => {
                self.counters.accepted += 1;
                let code = self.accept(asked, &granted, now, actions);
                let reply = self.reply(asked, code, granted.lifetime, granted.reply);
                let octets = self.sealed(&reply, &granted, now);
                actions.push(Action::Send(self.answer(asked, octets)));
            }
            Err(denied) => {
                self.counters.denied(denied.code);
                let bucket = match denied.authentic {
                    true => self
                        .denied
                        .entry(asked.request.home)
                        .or_insert_with(|| Bucket::new(DENIALS_A_NODE)),
                    false => &mut self.denials,
                };
                if !bucket.take(now.monotonic) {
                    self.counters.limited += 1;
                    return;
                }
                let reply = self.reply(asked, denied.code, 0, denied.reply);
                let octets = self.denial(&reply, asked, &denied);
                actions.push(Action::Send(self.answer(asked, octets)));
                actions.push(Action::Notify(Event::Refused {
                    home: asked.request.home,
                    code: denied.code,
                }));
            }
        }
    }

    fn reply(
        &self,
        asked: &Asked<'_>,
        code: Code,
        lifetime: u16,
        identification: Identification,
    ) -> Reply {
        Reply {
            code,
            lifetime,
            home: asked.request.home,
            home_agent: self.address_for(asked.request.home_agent),
            identification,
        }
    }

    /// The named address if it is ours, else the first of ours.
    fn address_for(&self, named: Ipv4Addr) -> Ipv4Addr {
        match self.config.addresses.contains(&named) {
            true => named,
            false => self.config.addresses.first().copied().unwrap_or(named),
        }
    }

    fn sealed(&mut self, reply: &Reply, granted: &Granted, now: Now) -> Vec<u8> {
        let mut builder = Builder::new(&Message::Reply(*reply));
        let seen = self.seen.take().filter(|(home, _)| *home == reply.home);
        if let (Some((_, seen)), Some(_)) = (seen, &granted.named) {
            // Eight at most: they fit.
            let list = Seen::list(&seen);
            if let Ok(longer) = builder.clone().extension(&Extension::Arrived(&list)) {
                builder = longer;
            }
        }
        builder = builder.authenticate(Pair::MobileHome, &granted.association);
        let Some(foreign) = &granted.foreign else {
            return builder.finish();
        };
        if granted.support.is_some() && self.config.revocation {
            let timestamp = self.stamps.entry(reply.home).or_default().support(now);
            let support = Extension::RevocationSupport(RevocationSupport {
                inform: true,
                timestamp,
            });
            if let Ok(longer) = builder.clone().extension(&support) {
                builder = longer;
            }
        }
        builder.authenticate(Pair::ForeignHome, foreign).finish()
    }

    fn denial(&self, reply: &Reply, asked: &Asked<'_>, denied: &Denied) -> Vec<u8> {
        let mut builder = Builder::new(&Message::Reply(*reply));
        // Where the request's SPI is unknown, the mobile node gets an authenticator that it can at least check.
        let first = || {
            self.config
                .subscriber(asked.request.home)?
                .associations
                .first()
        };
        if let Some(association) = denied.association.as_ref().or_else(first) {
            builder = builder.authenticate(Pair::MobileHome, association);
        }
        let foreign = || self.config.foreign(asked.request.care_of)?.first();
        if let Some(foreign) = denied.foreign.as_ref().or_else(foreign) {
            builder = builder.authenticate(Pair::ForeignHome, foreign);
        }
        builder.finish()
    }

    fn answer(&self, asked: &Asked<'_>, octets: Vec<u8>) -> Packet {
        Packet {
            interface: None,
            link_destination: None,
            source: self.address_for(asked.packet.destination),
            destination: asked.packet.source,
            ttl: TTL,
            content: Content::Udp {
                source_port: PORT,
                destination_port: asked.port,
                octets,
            },
        }
    }
}

/// A request and how it came.
struct Asked<'a> {
    packet: &'a Incoming<'a>,
    port: u16,
    octets: &'a [u8],
    request: Request,
}

/// What [`HomeAgent::judge`] grants.
struct Granted {
    association: Association,
    foreign: Option<Association>,
    support: Option<RevocationSupport>,
    named: Option<Predecessor>,
    lifetime: u16,
    reply: Identification,
}

/// What it denies.
struct Denied {
    code: Code,
    reply: Identification,
    /// Whether the Mobile-Home authenticator was right.
    authentic: bool,
    association: Option<Association>,
    foreign: Option<Association>,
}
