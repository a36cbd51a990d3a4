// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Taking messages in: opened, put together, and given to who answers them (RFC 7296 §2.1–2.3, §2.21, §2.23).

use super::exchange::{Cx, Effect, Path, Pending, Reply};
use super::window::fingerprint;
use super::window::Arrival;
use super::{fragment, IkeSa, State};
use crate::event::Down;
use crate::secret::Secret;
use crate::wire::{
    decode_payloads, Error, ExchangeType, Header, Message, NotifyType, Payload, PayloadType,
};

impl IkeSa {
    /// Takes in a message addressed to this IKE SA.
    pub fn handle(&mut self, octets: &[u8], message: Message, path: Path, cx: &mut Cx<'_>) {
        let header = message.header;
        if header.from_initiator == self.initiator {
            return;
        }
        if header.response {
            self.handle_response(octets, message, path, cx);
        } else {
            self.handle_request(octets, message, path, cx);
        }
    }

    pub(super) fn handle_request(
        &mut self,
        octets: &[u8],
        message: Message,
        path: Path,
        cx: &mut Cx<'_>,
    ) {
        let header = message.header;
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return;
        }
        let print = fingerprint(octets);
        match self.inbox.arrival(header.message_id) {
            Arrival::Ignore => return,
            Arrival::Answered(known, datagrams) => {
                // The same octets again, or cut up otherwise but sealed by the peer (RFC 7383 §2.6.1). Of many
                // fragments the first alone is answered.
                let first = match message.payloads.last() {
                    Some(Payload::EncryptedFragment(skf)) => skf.number == 1,
                    _ => true,
                };
                if known == print || first && self.unseal(octets, &message).is_some() {
                    self.transmit(datagrams, cx);
                }
                return;
            }
            Arrival::New => {}
        }
        // Before IKE_AUTH's answer is here the responder may be ahead; it asks again.
        if self.is_dead() || self.state == State::Starting {
            return;
        }
        let Some((first, plain)) = self.gather(octets, &message) else {
            return;
        };
        self.heard(path, true, cx);
        // Of fragments, the one that completes a message is not always the first; that one will be opened again.
        self.inbox.open(header.message_id, print);
        let private = self.knows_zones(cx);
        let payloads = match decode_payloads(first, plain.expose(), private) {
            Ok(payloads) => payloads,
            Err(Error::Critical(kind)) => {
                let notify = Payload::notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [kind.0]);
                return self.reply(&header, &[notify], false, cx);
            }
            Err(_) => {
                let notify = Payload::notify(NotifyType::INVALID_SYNTAX, []);
                self.reply(&header, &[notify], false, cx);
                // An authenticated peer that writes what isn't a message will not come to its senses (§2.21.3).
                return self.fall(Down::Protocol("the peer's request could not be read"), cx);
            }
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.chain_intermediate(&header, first, &plain);
        }
        self.request_path = Some(path);
        let reply = self.request(&header, payloads, cx);
        match reply {
            Reply::Now(payloads) => self.reply(&header, &payloads, false, cx),
            Reply::Held(payloads) => self.reply(&header, &payloads, true, cx),
            Reply::Later => {}
            Reply::Last(payloads, why) => {
                self.reply(&header, &payloads, false, cx);
                self.fall(why, cx);
            }
        }
        self.after_answer(&header, cx);
        self.pump(cx);
    }

    pub(super) fn request(
        &mut self,
        header: &Header,
        payloads: Vec<Payload>,
        cx: &mut Cx<'_>,
    ) -> Reply {
        match (header.exchange, self.state) {
            (ExchangeType::IKE_INTERMEDIATE, State::HalfOpen(_)) => {
                self.answer_intermediate(&payloads, cx)
            }
            (ExchangeType::IKE_AUTH, State::HalfOpen(_)) => self.answer_auth(header, &payloads, cx),
            (_, State::HalfOpen(_) | State::Starting | State::Dead(_)) => {
                Reply::refuse(NotifyType::INVALID_SYNTAX)
            }
            (ExchangeType::CREATE_CHILD_SA, _) => self.answer_create(header, &payloads, cx),
            (ExchangeType::IKE_FOLLOWUP_KE, _) => self.answer_follow_up(header, &payloads, cx),
            (ExchangeType::INFORMATIONAL, _) => self.answer_informational(header, payloads, cx),
            (
                ExchangeType::CSA_DISTRIBUTE
                | ExchangeType::NEIGHBOR_NOTIFY
                | ExchangeType::CSA_REQUEST
                | ExchangeType::CSA_REVOKE
                | ExchangeType::CSA_HANDOVER
                | ExchangeType::CSA_REPORT,
                _,
            ) if self.knows_zones(cx) => {
                let serve = Effect::Serve(self.id, header.message_id, header.exchange, payloads);
                cx.effects.push_back(serve);
                Reply::Later
            }
            _ => Reply::refuse(NotifyType::INVALID_SYNTAX),
        }
    }

    pub(super) fn handle_response(
        &mut self,
        octets: &[u8],
        message: Message,
        path: Path,
        cx: &mut Cx<'_>,
    ) {
        let header = message.header;
        let Some(outstanding) = self.outbox.awaits(header.message_id) else {
            return;
        };
        if header.exchange == ExchangeType::IKE_SA_INIT {
            if matches!(outstanding.pending, Pending::Init(_)) {
                self.init_response(octets, &message, cx);
                self.pump(cx);
            }
            return;
        }
        let Some((first, plain)) = self.gather(octets, &message) else {
            return;
        };
        self.heard(path, false, cx);
        let Some(outstanding) = self.outbox.answered(header.message_id) else {
            return;
        };
        let private = self.knows_zones(cx);
        let Ok(payloads) = decode_payloads(first, plain.expose(), private) else {
            return self.fall(Down::Protocol("the peer's answer could not be read"), cx);
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.chain_intermediate(&header, first, &plain);
        }
        self.response(outstanding.pending, &payloads, cx);
        self.pump(cx);
    }

    pub(super) fn response(&mut self, pending: Pending, payloads: &[Payload], cx: &mut Cx<'_>) {
        match pending {
            Pending::Init(_) => {}
            Pending::Intermediate(method, kex) => {
                self.intermediate_response(method, kex, payloads, cx);
            }
            Pending::Auth(child) => self.auth_response(child, payloads, cx),
            Pending::Child(request) => self.child_response(request, payloads, cx),
            Pending::Ike(request) => self.rekey_response(request, payloads, cx),
            Pending::FollowUp(follow_up, kex) => {
                self.follow_up_response(follow_up, kex, payloads, cx);
            }
            Pending::DeleteChildren(children) => {
                children
                    .iter()
                    .for_each(|child| self.drop_child(*child, cx));
            }
            Pending::DeleteIke => self.fall(self.how_deleted(Down::Deleted), cx),
            Pending::Liveness => {}
            Pending::Move(cookie) => self.move_response(&cookie, payloads, cx),
            Pending::Claim(list) => self.claim_response(list, payloads, cx),
            Pending::Csa(task) => cx.effects.push_back(Effect::Answered(
                self.id,
                task.purpose,
                Some(payloads.to_vec()),
            )),
        }
    }

    /// Opens the one sealed payload of a message.
    pub(super) fn unseal(&self, octets: &[u8], message: &Message) -> Option<Secret> {
        let body = match message.payloads.last()? {
            Payload::Encrypted(sk) => sk.body.len(),
            Payload::EncryptedFragment(skf) => skf.body.len(),
            _ => return None,
        };
        let protection = self.protection.as_ref()?;
        fragment::open(&protection.opener, octets, body).ok()
    }

    /// The payloads of a message, once all its fragments are here.
    pub(super) fn gather(
        &mut self,
        octets: &[u8],
        message: &Message,
    ) -> Option<(PayloadType, Secret)> {
        let plain = self.unseal(octets, message)?;
        match message.payloads.last()? {
            Payload::Encrypted(sk) => {
                let header = &message.header;
                self.reassembly.forget(header.response, header.message_id);
                Some((sk.first, plain))
            }
            Payload::EncryptedFragment(skf) if self.traits.fragmentation => {
                self.reassembly.add(&message.header, skf, plain)
            }
            _ => None,
        }
    }

    /// The peer lives, and whoever of the two isn't behind a NAT follows the other's (§2.23). MOBIKE moves by message.
    pub(super) fn heard(&mut self, path: Path, request: bool, cx: &mut Cx<'_>) {
        self.last_heard = cx.now;
        let follow = self.nat.remote && !self.nat.local && !self.traits.mobike;
        if matches!(self.state, State::HalfOpen(_)) && request {
            // IKE_AUTH may come by port 4500 (§2.23).
            self.path = path;
        } else if follow && path != self.path {
            self.moved(path, cx);
        }
    }
}
