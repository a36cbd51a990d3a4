// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Revocation from the home agent's side (RFC 3543 §3.3, §4): the foreign agent that a mobile node left is told, and one
//! that turns a visitor out tells us. Only under a Foreign-Home association.

use super::bind::Arrived;
use super::{Binding, HomeAgent};
use crate::action::{Action, Reason};
use crate::auth::{find, Association};
use crate::extension::{Extensions, Pair};
use crate::message::{Message, Revocation, RevocationAck};
use crate::number::PORT;
use crate::packet::{Content, Incoming, Packet, TTL};
use crate::time::Now;
use crate::Builder;
use std::net::Ipv4Addr;

impl HomeAgent {
    /// Ends a mobile node's binding, and has its foreign agent told; that one tells the mobile node.
    pub fn revoke(&mut self, home: Ipv4Addr, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(binding) = self.unbind(
            home,
            Reason::Administrative,
            Arrived::default(),
            &mut actions,
        ) {
            self.revoke_at(&binding, true, now, &mut actions);
        }
        actions
    }

    /// Ends all bindings and grants no more: the agent is about to end.
    pub fn close(&mut self, now: Now) -> Vec<Action> {
        self.config.max_bindings = 0;
        let mut homes: Vec<_> = self.bindings.keys().copied().collect();
        homes.sort_unstable();
        homes
            .into_iter()
            .flat_map(|home| self.revoke(home, now))
            .collect()
    }

    /// Tells the foreign agent of a binding that has ended.
    pub(super) fn revoke_at(
        &mut self,
        binding: &Binding,
        inform: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let first = |all: &[Association]| all.first().cloned();
        let association = self.config.foreign(binding.care_of).and_then(first);
        let (Some(association), Some(_), true) =
            (association, binding.support, self.config.revocation)
        else {
            return;
        };
        let identifier = self.stamps.entry(binding.home).or_default().revocation(now);
        let message = Message::Revocation(Revocation {
            by_home_agent: true,
            inform,
            home: binding.home,
            home_agent: binding.home_agent,
            foreign_agent: binding.care_of,
            identifier,
        });
        let octets = Builder::new(&message)
            .authenticate(Pair::ForeignHome, &association)
            .finish();
        let packet = udp(binding.home_agent, binding.care_of, PORT, octets);
        let key = (binding.home, binding.care_of);
        self.revoker.start(key, identifier, packet, now, actions);
    }

    /// The Foreign-Home association that vouches for a message of this foreign agent's.
    fn vouched(&self, foreign_agent: Ipv4Addr, octets: &[u8], fixed: usize) -> Option<Association> {
        let extensions = Extensions::parse(octets, fixed).ok()?;
        let authentication = extensions.authentication(Pair::ForeignHome)?;
        let association = find(self.config.foreign(foreign_agent)?, authentication.spi)?;
        association
            .verify(&authentication)
            .then(|| association.clone())
    }

    pub(super) fn revocation(
        &mut self,
        packet: &Incoming<'_>,
        port: u16,
        octets: &[u8],
        revocation: &Revocation,
        actions: &mut Vec<Action>,
    ) {
        let fixed = Message::Revocation(*revocation).fixed_len();
        let vouched = self.vouched(revocation.foreign_agent, octets, fixed);
        let (Some(association), false) = (vouched, revocation.by_home_agent) else {
            self.counters.unauthentic += 1;
            return;
        };
        if let Some(binding) = self.bindings.get(&revocation.home) {
            let theirs = binding.care_of == revocation.foreign_agent;
            let stale = |support| revocation.identifier <= support;
            if theirs
                && binding
                    .support
                    .is_none_or(|support| stale(support.timestamp))
            {
                // Older than the registration it would end: a replay.
                self.counters.unexpected += 1;
                return;
            }
            if theirs {
                self.unbind(
                    revocation.home,
                    Reason::Revoked,
                    Arrived::default(),
                    actions,
                );
            }
        }
        // Where there is nothing to end, our acknowledgment was lost.
        let ack = Message::RevocationAck(RevocationAck {
            informed: false,
            home: revocation.home,
            identifier: revocation.identifier,
        });
        let octets = Builder::new(&ack)
            .authenticate(Pair::ForeignHome, &association)
            .finish();
        let source = self.address_for(packet.destination);
        actions.push(Action::Send(udp(source, packet.source, port, octets)));
    }

    pub(super) fn revocation_ack(
        &mut self,
        packet: &Incoming<'_>,
        octets: &[u8],
        ack: &RevocationAck,
        actions: &mut Vec<Action>,
    ) {
        let fixed = Message::RevocationAck(*ack).fixed_len();
        if self.vouched(packet.source, octets, fixed).is_none() {
            self.counters.unauthentic += 1;
            return;
        }
        let key = (ack.home, packet.source);
        self.revoker.acknowledged(key, ack.identifier, actions);
    }
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, destination_port: u16, octets: Vec<u8>) -> Packet {
    Packet {
        interface: None,
        link_destination: None,
        source,
        destination,
        ttl: TTL,
        content: Content::Udp {
            source_port: PORT,
            destination_port,
            octets,
        },
    }
}
