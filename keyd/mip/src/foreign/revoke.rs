// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Revocation from the foreign agent's side (RFC 3543 §3.3, §4). Only under a Foreign-Home association.

use super::{ForeignAgent, Visitor};
use crate::action::{Action, Reason};
use crate::auth::{find, Association};
use crate::code::Code;
use crate::extension::{Extensions, Pair};
use crate::message::{Message, Revocation, RevocationAck};
use crate::number::PORT;
use crate::packet::{Content, Incoming, Packet, TTL};
use crate::time::Now;
use crate::Builder;
use std::net::Ipv4Addr;

impl ForeignAgent {
    /// Turns a visitor out: its home agent and itself are told.
    pub fn revoke(&mut self, home: Ipv4Addr, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(visitor) = self.turn_out(home, Reason::Administrative, &mut actions) else {
            return actions;
        };
        self.inform(&visitor, &mut actions);
        let first = |all: &Vec<Association>| all.first().cloned();
        let association = self.config.home.get(&visitor.home_agent).and_then(first);
        let (Some(association), Some(_), true) =
            (association, visitor.support, self.config.revocation)
        else {
            return actions;
        };
        let identifier = self.stamps.revocation(now);
        let message = Message::Revocation(Revocation {
            by_home_agent: false,
            inform: false,
            home,
            home_agent: visitor.home_agent,
            foreign_agent: self.config.care_of,
            identifier,
        });
        let octets = Builder::new(&message)
            .authenticate(Pair::ForeignHome, &association)
            .finish();
        let packet = self.to_home(visitor.home_agent, PORT, octets);
        let key = (home, visitor.home_agent);
        self.revoker
            .start(key, identifier, packet, now, &mut actions);
        actions
    }

    /// Turns everybody out and takes nobody in any more: the agent is about to end.
    pub fn close(&mut self, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        // "Busy" from now on, or who is told would be back at once.
        self.config.max_visitors = 0;
        let mut keys: Vec<_> = self.pending.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.timers.cancel(super::Due::Timeout(key));
            if let Some(pending) = self.pending.remove(&key).filter(|one| !one.told) {
                let code = Code::FA_RESOURCES;
                self.deny(&pending.asker, &pending.request, code, &mut actions);
            }
        }
        let mut homes: Vec<_> = self.visitors.keys().copied().collect();
        homes.sort_unstable();
        for home in homes {
            actions.extend(self.revoke(home, now));
        }
        actions
    }

    fn inform(&self, visitor: &Visitor, actions: &mut Vec<Action>) {
        let offer = self.offer();
        let here = self
            .advertisers
            .iter()
            .find(|advertiser| advertiser.link.interface == visitor.interface);
        let packet = here.and_then(|one| one.revoked(&offer, visitor.home, visitor.link));
        actions.extend(packet.map(Action::Send));
    }

    fn to_home(&self, home_agent: Ipv4Addr, destination_port: u16, octets: Vec<u8>) -> Packet {
        Packet {
            interface: None,
            link_destination: None,
            source: self.config.care_of,
            destination: home_agent,
            ttl: TTL,
            content: Content::Udp {
                source_port: PORT,
                destination_port,
                octets,
            },
        }
    }

    fn vouched(&self, home_agent: Ipv4Addr, octets: &[u8], fixed: usize) -> Option<Association> {
        let extensions = Extensions::parse(octets, fixed).ok()?;
        let authentication = extensions.authentication(Pair::ForeignHome)?;
        let association = find(self.config.home.get(&home_agent)?, authentication.spi)?;
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
        let vouched = self.vouched(revocation.home_agent, octets, fixed);
        let addressed = revocation.by_home_agent && revocation.foreign_agent == self.config.care_of;
        let (Some(association), true) = (vouched, addressed) else {
            self.counters.unauthentic += 1;
            return;
        };
        let mut informed = false;
        if let Some(visitor) = self.visitors.get(&revocation.home).copied() {
            let theirs = visitor.home_agent == revocation.home_agent;
            let stale =
                |support: crate::RevocationSupport| revocation.identifier <= support.timestamp;
            if theirs && visitor.support.is_none_or(stale) {
                // Older than the registration it would end: a replay, or the visitor is back already.
                self.counters.unexpected += 1;
                return;
            }
            if theirs {
                self.turn_out(revocation.home, Reason::Revoked, actions);
                if revocation.inform {
                    self.inform(&visitor, actions);
                    informed = true;
                }
            }
        }
        let ack = Message::RevocationAck(RevocationAck {
            informed,
            home: revocation.home,
            identifier: revocation.identifier,
        });
        let octets = Builder::new(&ack)
            .authenticate(Pair::ForeignHome, &association)
            .finish();
        actions.push(Action::Send(self.to_home(packet.source, port, octets)));
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
        let key: (Ipv4Addr, Ipv4Addr) = (ack.home, packet.source);
        self.revoker.acknowledged(key, ack.identifier, actions);
    }
}
