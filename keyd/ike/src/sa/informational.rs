// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! INFORMATIONAL (RFC 7296 §1.4): Delete, liveness, moves, and claims of CSAs after a restart (docs/wire.md §3.2).

use super::child::{Child, ChildState, Composite};
use super::exchange::{Cx, Effect, Find, Pending, Reply};
use super::{IkeSa, State};
use crate::config::ZoneRole;
use crate::crypto::Hash;
use crate::event::{AdoptedCsa, ChildId, Down, Event};
use crate::secret::Secret;
use crate::wire::{CsaIdentity, Delete, ExchangeType, Header, NotifyType, Payload};

/// Closed children remembered while one is on its way.
const MAX_CLOSED_EARLY: usize = 16;

impl IkeSa {
    /// Delete of children, by the SPIs of this side's inbound halves.
    pub(super) fn start_delete(&mut self, list: Vec<ChildId>, cx: &mut Cx<'_>) {
        let mut spis = Vec::new();
        let mut closing = Vec::new();
        for child in &mut self.children {
            // One being rekeyed is closed once that is settled.
            if list.contains(&child.id) && child.state == ChildState::Up {
                child.state = ChildState::Deleting;
                spis.push(child.spi_in);
                closing.push(child.id);
            }
        }
        if spis.is_empty() {
            return;
        }
        let payload = Payload::Delete(Delete::Esp(spis));
        let pending = Pending::DeleteChildren(closing);
        self.ask(ExchangeType::INFORMATIONAL, &[payload], pending, cx);
    }

    /// Delete of a child that never came up here.
    pub(super) fn delete_spi(&mut self, spi_in: u32, cx: &mut Cx<'_>) {
        let payload = Payload::Delete(Delete::Esp(vec![spi_in]));
        let pending = Pending::DeleteChildren(Vec::new());
        self.ask(ExchangeType::INFORMATIONAL, &[payload], pending, cx);
    }

    /// Takes a child out.
    pub(super) fn drop_child(&mut self, id: ChildId, cx: &mut Cx<'_>) {
        if let Some(at) = self.children.iter().position(|child| child.id == id) {
            let child = self.children.remove(at);
            self.child_down(child, cx);
        }
    }

    /// Says that a child is no more, and who seals in its place.
    pub(super) fn child_down(&mut self, child: Child, cx: &mut Cx<'_>) {
        let waiting = child
            .waiting
            .filter(|id| self.children.iter().any(|c| c.id == *id));
        if let Some(next) = waiting {
            cx.event(Event::ChildSeal { child: next });
        }
        cx.event(Event::ChildDown {
            child: child.id,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            linger: cx.config.linger,
        });
        if child.composite.is_some() {
            cx.effects.push_back(Effect::CsaGone(Box::new(child)));
        }
    }

    pub(super) fn answer_informational(
        &mut self,
        header: &Header,
        payloads: Vec<Payload>,
        cx: &mut Cx<'_>,
    ) -> Reply {
        if payloads.notify(NotifyType::AUTHENTICATION_FAILED).is_some() && self.is_up() {
            // The initiator found this side not to be who it said (§2.21.2).
            return Reply::Last(Vec::new(), Down::Refused(NotifyType::AUTHENTICATION_FAILED));
        }
        if payloads.csa().is_some() && self.knows_zones(cx) {
            let exchange = ExchangeType::INFORMATIONAL;
            let serve = Effect::Serve(self.id, header.message_id, exchange, payloads);
            cx.effects.push_back(serve);
            return Reply::Later;
        }
        let mut answer = Vec::new();
        let mut closed = Vec::new();
        for payload in &payloads {
            match payload {
                Payload::Delete(Delete::Ike) => {
                    // As usual, whatever this side was about (§2.25.2).
                    self.settle_before_end(cx);
                    let why = self.how_deleted(if self.state == State::Deleting {
                        Down::Deleted
                    } else {
                        Down::ByPeer
                    });
                    return Reply::Last(Vec::new(), why);
                }
                Payload::Delete(Delete::Esp(spis)) => {
                    spis.iter()
                        .for_each(|spi| closed.extend(self.peer_closes(*spi, cx)));
                }
                _ => {}
            }
        }
        if !closed.is_empty() {
            answer.push(Payload::Delete(Delete::Esp(closed)));
        }
        answer.extend(self.answer_move(&payloads, cx));
        Reply::Now(answer)
    }

    /// The peer closes the child it receives by that SPI. The other half to name, if it hasn't been named already: both
    /// closing the same one at once say nothing of it in their answers (§1.4.1).
    fn peer_closes(&mut self, spi_out: u32, cx: &mut Cx<'_>) -> Option<u32> {
        let Some(child) = self.children.iter().find(|child| child.spi_out == spi_out) else {
            // It may be the one whose answer hasn't come yet.
            if self.is_making_child() && self.closed_early.len() < MAX_CLOSED_EARLY {
                self.closed_early.push(spi_out);
            }
            return None;
        };
        let (id, spi_in, state) = (child.id, child.spi_in, child.state);
        for pending in self.outbox.pending_mut() {
            let request = match pending {
                Pending::Child(request) => Some(request),
                Pending::FollowUp(follow_up, _) => follow_up.request.as_mut(),
                _ => None,
            };
            if let Some(request) = request.filter(|request| request.rekeys == Some(id)) {
                request.old_deleted = true;
            }
        }
        self.drop_child(id, cx);
        (state != ChildState::Deleting).then_some(spi_in)
    }

    /// The CSAs the peer knows are this IKE SA's from here on.
    pub(super) fn claim_response(
        &mut self,
        claimed: Vec<AdoptedCsa>,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        let mut held = Vec::new();
        for csa in claimed {
            let knows = |p: &Payload| matches!(p, Payload::CsaIdentity(i) if *i == csa.identity);
            if !payloads.iter().any(knows) {
                continue;
            }
            held.push(csa.identity);
            let id = ChildId(cx.id());
            cx.event(Event::CsaClaimed {
                ike: self.id,
                child: id,
                spi_in: csa.identity.spi_in,
                spi_out: csa.identity.spi_out,
            });
            self.adopt(id, csa, cx);
        }
        cx.event(Event::ClaimAnswered { ike: self.id, held });
    }

    fn adopt(&mut self, id: ChildId, csa: AdoptedCsa, cx: &mut Cx<'_>) {
        let identity = csa.identity;
        if let Some(peer) = &self.peer {
            let known = cx.generations.entry(peer.clone()).or_default();
            *known = (*known).max(identity.generation);
        }
        let home = csa.role == ZoneRole::Home;
        self.children.push(Child {
            id,
            spi_in: identity.spi_in,
            spi_out: identity.spi_out,
            mode: identity.mode,
            local_ts: csa.local_ts,
            remote_ts: csa.remote_ts,
            composite: Some(Composite {
                map: csa.map,
                transforms: csa.transforms,
                generation: identity.generation,
                may_write: identity.may_write,
                replay_window: identity.replay_window,
                role: csa.role,
                prf: self.suite.as_ref().map_or(Hash::Sha256, |suite| suite.prf),
                // Never in the kernel, so gone: there is no DKM before the next rekeying.
                k_ho: Secret::default(),
                zone1: csa.zone1,
            }),
            state: ChildState::Up,
            replaced: false,
            // Rekeyed soon, then: it has nothing to make K_FA of.
            rekey_at: self
                .connection(cx.config)
                .and_then(|c| c.child.as_ref()?.rekey)
                .map(|age| cx.now + age),
            expires: cx.now + std::time::Duration::from_secs(u64::from(identity.lifetime)),
            waiting: None,
        });
        if home {
            cx.effects
                .push_back(Effect::ChildRaised(self.id, id, None, None));
        }
    }

    /// The peer came back and names this CSA by its two SPIs: gives it up to the IKE SA it came back with.
    pub fn give_up(&mut self, identity: &CsaIdentity) -> Option<Child> {
        let at = self
            .children
            .iter()
            .position(|child| is_claimed(child, identity))?;
        Some(self.children.remove(at))
    }
}

/// Whether it is this CSA the peer names: in and out are the other way round for it.
pub(crate) fn is_claimed(child: &Child, identity: &CsaIdentity) -> bool {
    let generation = child.composite.as_ref().map(|c| c.generation);
    (child.spi_in, child.spi_out) == (identity.spi_out, identity.spi_in)
        && generation == Some(identity.generation)
}
