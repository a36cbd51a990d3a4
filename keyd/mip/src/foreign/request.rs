// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From the mobile node to its home agent (RFC 5944 §3.7.2).

use super::{Asker, Due, ForeignAgent, Pending, PendingKey, PENDING_A_NODE};
use crate::action::{Action, Event, Predecessor};
use crate::auth::find;
use crate::code::Code;
use crate::error::DecodeError;
use crate::extension::{Extension, Extensions, Pair, RevocationSupport};
use crate::message::{Message, Reply, Request, RequestFlags};
use crate::number::{extension as number, PORT};
use crate::packet::{Content, Packet, TTL, TTL_DIRECT};
use crate::time::Now;
use crate::{Builder, ReverseTunnel};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::Ipv4Addr;

impl ForeignAgent {
    pub(super) fn request(
        &mut self,
        asker: Asker,
        ttl: u8,
        octets: &[u8],
        request: Request,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !self.config.on_link(asker.interface) {
            // Requests come from our own links, or somebody registers a host that isn't here.
            self.counters.ignored += 1;
            return;
        }
        let fixed = Message::Request(request).fixed_len();
        let judged = match Extensions::parse(octets, fixed) {
            Ok(extensions) => self
                .judge(&asker, ttl, &request, &extensions)
                .map(|()| extensions),
            Err(DecodeError::Unknown(_)) => {
                self.counters.unknown_extension += 1;
                return;
            }
            Err(DecodeError::Twice(number::MOBILE_FOREIGN)) => Err(Code::FA_MOBILE_AUTHENTICATION),
            Err(_) => Err(Code::FA_MALFORMED_REQUEST),
        };
        match judged {
            Ok(extensions) => self.relay(asker, octets, request, &extensions, now, actions),
            Err(code) => self.deny(&asker, &request, code, actions),
        }
    }

    fn judge(
        &self,
        asker: &Asker,
        ttl: u8,
        request: &Request,
        extensions: &Extensions<'_>,
    ) -> Result<(), Code> {
        let flags = request.flags;
        let reverse = flags.has(RequestFlags::REVERSE_TUNNEL);
        self.authentic(request, extensions)?;
        let cover = extensions
            .authentication(Pair::MobileHome)
            .ok_or(Code::FA_MALFORMED_REQUEST)?;
        if extensions.critical_vendors().any(|at| at > cover.start) {
            return Err(Code::FA_VENDOR_MOBILE);
        }
        if !self.allowed(request) {
            return Err(Code::FA_PROHIBITED);
        }
        // An agent's packets would go to the link, and nobody asks them of an agent.
        let agent = request.home == request.home_agent || self.config.an_agents(request.home);
        if !unicast(request.home) || agent {
            return Err(Code::FA_MALFORMED_REQUEST);
        }
        if !(asker.source.is_unspecified() || asker.source == request.home) {
            return Err(Code::FA_MALFORMED_REQUEST);
        }
        if !unicast(request.home_agent) || self.config.ours(request.home_agent) {
            return Err(Code::FA_HOME_AGENT_ADDRESS);
        }
        // A mobile node that leaves for good names the care-of address, too.
        if request.care_of != self.config.care_of {
            return Err(Code::FA_CARE_OF);
        }
        if request.lifetime > self.config.max_lifetime {
            return Err(Code::FA_LIFETIME);
        }
        if flags.has(RequestFlags::GRE) || flags.has(RequestFlags::MINIMAL) {
            return Err(Code::FA_ENCAPSULATION);
        }
        if extensions.encapsulating_delivery() {
            // Without the T bit it makes no sense (RFC 3024 §3.3); with it, only direct delivery is done here.
            return Err(match reverse {
                true => Code::FA_DELIVERY,
                false => Code::FA_MALFORMED_REQUEST,
            });
        }
        match (self.config.reverse_tunnel, reverse) {
            (ReverseTunnel::Refused, true) => return Err(Code::FA_REVERSE_TUNNEL),
            (ReverseTunnel::Required, false) => return Err(Code::FA_REVERSE_TUNNEL_MANDATORY),
            _ => {}
        }
        if reverse && ttl != TTL_DIRECT {
            return Err(Code::FA_TOO_DISTANT);
        }
        let new = !self.visitors.contains_key(&request.home);
        if new && self.visitors.len() >= self.config.max_visitors {
            return Err(Code::FA_RESOURCES);
        }
        if self.pending.len() >= self.config.max_pending {
            return Err(Code::FA_RESOURCES);
        }
        Ok(())
    }

    /// Whether this home agent may have this mobile node here. Nobody takes a visitor's address over under another home
    /// agent: the visitor's packets would go there.
    fn allowed(&self, request: &Request) -> bool {
        let visitor = self.visitors.get(&request.home);
        if visitor.is_some_and(|visitor| visitor.home_agent != request.home_agent) {
            return false;
        }
        let Some(home_agents) = &self.config.home_agents else {
            return true;
        };
        let prefixes = home_agents.get(&request.home_agent);
        prefixes.is_some_and(|all| all.iter().any(|prefix| prefix.contains(request.home)))
    }

    fn authentic(&self, request: &Request, extensions: &Extensions<'_>) -> Result<(), Code> {
        let associations = self.config.mobile.get(&request.home);
        match (extensions.authentication(Pair::MobileForeign), associations) {
            (None, None) => Ok(()),
            (Some(authentication), Some(associations)) => find(associations, authentication.spi)
                .filter(|one| one.verify(&authentication))
                .map(|_| ())
                .ok_or(Code::FA_MOBILE_AUTHENTICATION),
            // Claimed and not to be checked, or owed and not there.
            _ => Err(Code::FA_MOBILE_AUTHENTICATION),
        }
    }

    fn relay(
        &mut self,
        asker: Asker,
        octets: &[u8],
        request: Request,
        extensions: &Extensions<'_>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        // Up to the Mobile-Home authentication it is the home agent's and goes on as it came; the rest was for us.
        let end = extensions
            .authentication(Pair::MobileHome)
            .map_or(octets.len(), |cover| cover.end);
        let mut builder = Builder::relay(&octets[..end]);
        if let Some(association) = self
            .config
            .home
            .get(&request.home_agent)
            .and_then(|all| all.first())
        {
            if self.config.revocation {
                let support = Extension::RevocationSupport(RevocationSupport {
                    inform: true,
                    timestamp: self.stamps.support(now),
                });
                if let Ok(longer) = builder.clone().extension(&support) {
                    builder = longer;
                }
            }
            builder = builder.authenticate(Pair::ForeignHome, association);
        }
        let previous = extensions.previous_fa().map(Predecessor::from);
        // Whoever makes ready for what the home agent sends from its acceptance on has done so before it can accept.
        actions.push(Action::Notify(Event::Relayed {
            home: request.home,
            home_agent: request.home_agent,
            identification: request.identification,
            previous: previous.clone(),
        }));
        actions.push(Action::Send(Packet {
            interface: None,
            link_destination: None,
            source: self.config.care_of,
            destination: request.home_agent,
            ttl: TTL,
            content: Content::Udp {
                source_port: PORT,
                destination_port: PORT,
                octets: builder.finish(),
            },
        }));
        self.await_reply(
            Pending {
                asker,
                request,
                previous,
                failed: None,
                told: false,
            },
            now,
        );
    }

    fn await_reply(&mut self, pending: Pending, now: Now) {
        let home = pending.request.home;
        let key = (home, pending.request.identification.low());
        let until = now.after(self.config.timeout);
        if self.pending.contains_key(&key) {
            // The same again: the answer goes to who asked first, not to who has heard it and repeats it.
            self.timers.set(Due::Timeout(key), until);
            return;
        }
        let same = self.pending.iter().filter(|(key, _)| key.0 == home);
        if same.count() >= PENDING_A_NODE {
            self.make_room(home);
        }
        self.pending.insert(key, pending);
        self.timers.set(Due::Timeout(key), until);
    }

    /// One request of a mobile node's goes for another: one that was answered; else the oldest from where most of them
    /// come, which isn't where the mobile node itself is, unless somebody uses its link-layer address, too.
    fn make_room(&mut self, home: Ipv4Addr) {
        let same = || self.pending.iter().filter(|(key, _)| key.0 == home);
        let mut from: HashMap<_, usize> = HashMap::new();
        for (_, pending) in same() {
            *from.entry(pending.asker.place()).or_default() += 1;
        }
        let rank = |&(key, pending): &(&PendingKey, &Pending)| {
            let many = from.get(&pending.asker.place()).copied();
            let since = self.timers.at(Due::Timeout(*key));
            (!pending.told, Reverse(many), since, *key)
        };
        if let Some(key) = same().min_by_key(rank).map(|(key, _)| *key) {
            self.pending.remove(&key);
            self.timers.cancel(Due::Timeout(key));
        }
    }

    /// Answers for ourselves.
    pub(super) fn deny(
        &mut self,
        asker: &Asker,
        request: &Request,
        code: Code,
        actions: &mut Vec<Action>,
    ) {
        let lifetime = match code {
            Code::FA_LIFETIME => self.config.max_lifetime,
            _ => request.lifetime,
        };
        let reply = Message::Reply(Reply {
            code,
            lifetime,
            home: request.home,
            home_agent: request.home_agent,
            identification: request.identification,
        });
        let mut builder = Builder::new(&reply);
        if let Some(association) = self
            .config
            .mobile
            .get(&request.home)
            .and_then(|all| all.first())
        {
            builder = builder.authenticate(Pair::MobileForeign, association);
        }
        actions.push(Action::Send(self.to_visitor(asker, builder.finish())));
        self.refused(request.home, code, actions);
    }

    /// To the mobile node, by its link-layer address and back the way it came (RFC 5944 §3.7.2.3).
    pub(super) fn to_visitor(&self, asker: &Asker, octets: Vec<u8>) -> Packet {
        let destination = match asker.source.is_unspecified() {
            true => Ipv4Addr::BROADCAST,
            false => asker.source,
        };
        let here = |link: &&crate::Link| link.interface == asker.interface;
        let ours = self.config.links.iter().find(here);
        let source = match self.config.ours(asker.destination) {
            true => asker.destination,
            false => ours.map_or(self.config.care_of, |link| link.address),
        };
        Packet {
            interface: Some(asker.interface),
            link_destination: asker.link,
            source,
            destination,
            ttl: TTL_DIRECT,
            content: Content::Udp {
                source_port: PORT,
                destination_port: asker.port,
                octets,
            },
        }
    }
}

fn unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || address == Ipv4Addr::BROADCAST)
}
