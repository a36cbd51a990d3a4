// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Addresses that change (MOBIKE, RFC 4555): the messages. Which address to use is decided outside.

use super::exchange::{Cx, Find, Path, Pending, Task};
use super::init::{detect_nat, nat_notifies};
use super::{IkeSa, NATT_PORT};
use crate::event::Down;
use crate::host;
use crate::wire::{ExchangeType, NotifyType, Payload};
use std::net::SocketAddr;

/// Octets of a COOKIE2 (§3.7): 8 to 64.
const COOKIE2_LEN: usize = 16;

impl IkeSa {
    /// A command: this side is at `local` now, and the peer at `remote`. Only the original initiator's to give (§3.5).
    pub fn move_to(&mut self, local: SocketAddr, remote: SocketAddr, cx: &mut Cx<'_>) -> bool {
        if !self.initiator || !self.traits.mobike {
            return false;
        }
        self.path = Path { local, remote };
        // What is on its way goes by the new path too (§3.5).
        let again = self.outbox.all();
        self.transmit(again, cx);
        self.want(Task::Move, cx);
        true
    }

    pub(super) fn start_move(&mut self, cx: &mut Cx<'_>) {
        let cookie = host::nonce(cx.host, COOKIE2_LEN);
        let mut payloads = vec![Payload::notify(NotifyType::UPDATE_SA_ADDRESSES, [])];
        payloads.extend(nat_notifies((self.spi_i, self.spi_r), self.path));
        payloads.push(Payload::notify(NotifyType::COOKIE2, cookie.clone()));
        self.ask(
            ExchangeType::INFORMATIONAL,
            &payloads,
            Pending::Move(cookie),
            cx,
        );
    }

    pub(super) fn move_response(&mut self, cookie: &[u8], payloads: &[Payload], cx: &mut Cx<'_>) {
        // A peer that answered must have seen the request (§3.7).
        let echoed = payloads
            .notify(NotifyType::COOKIE2)
            .is_some_and(|n| n.data == cookie);
        if !echoed {
            return self.fall(
                Down::Protocol("the peer's answer to a move is not to that move"),
                cx,
            );
        }
        if payloads.error().is_some() {
            // UNACCEPTABLE_ADDRESSES, UNEXPECTED_NAT_DETECTED: others have to be tried.
            return;
        }
        self.nat = detect_nat(payloads, (self.spi_i, self.spi_r), self.path);
        self.moved(self.path, cx);
    }

    /// What an INFORMATIONAL request says of addresses, answered.
    pub(super) fn answer_move(&mut self, payloads: &[Payload], cx: &mut Cx<'_>) -> Vec<Payload> {
        let mut answer = Vec::new();
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2) {
            answer.push(Payload::notify(NotifyType::COOKIE2, cookie.data.clone()));
        }
        let moves = payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some();
        if !moves || !self.traits.mobike || self.initiator {
            return answer;
        }
        let Some(path) = self
            .request_path
            .filter(|path| path.local.port() == NATT_PORT)
        else {
            answer.push(Payload::notify(NotifyType::UNACCEPTABLE_ADDRESSES, []));
            return answer;
        };
        let nat = detect_nat(payloads, (self.spi_i, self.spi_r), path);
        if nat.any() && payloads.notify(NotifyType::NO_NATS_ALLOWED).is_some() {
            answer.push(Payload::notify(NotifyType::UNEXPECTED_NAT_DETECTED, []));
            return answer;
        }
        self.nat = nat;
        self.moved(path, cx);
        answer.extend(nat_notifies((self.spi_i, self.spi_r), path));
        answer
    }
}
