// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rekeying the IKE SA (RFC 7296 §1.3.2, §2.8.2, §2.18), and additional key exchanges of CREATE_CHILD_SA
//! (RFC 9370 §2.2.4).

use super::child::{Child, ChildState};
use super::exchange::{
    Bequest, Cx, Draft, Effect, Find, FollowUp, IkeDraft, IkeRequest, Pending, Reply, Task,
};
use super::init::NONCE_LEN;
use super::{IkeSa, State, Successor, REPLACED_TIME};
use crate::crypto::{skeyseed_rekey, Method, Pending as Kex};
use crate::event::{ChildFailure, Event, IkeId};
use crate::host;
use crate::negotiate::{accept, ike_proposals, select, IkeSuite};
use crate::pool::Inner;
use crate::secret::Secret;
use crate::wire::{ExchangeType, Group, Header, KeyExchange, NotifyType, Payload, Proposal};
use std::collections::VecDeque;

impl IkeSa {
    pub(super) fn schedule_rekey(&mut self, cx: &mut Cx<'_>) {
        let age = self.connection(cx.config).and_then(|c| c.rekey);
        // A tenth earlier at most, so that both sides don't always do it together (§2.8).
        let mut octet = [0];
        cx.host.fill(&mut octet);
        self.rekey_at = age.map(|age| cx.now + age - age / 10 * u32::from(octet[0]) / 256);
    }

    pub(super) fn start_rekey(&mut self, method: Option<Method>, cx: &mut Cx<'_>) {
        if self.state != State::Up {
            return;
        }
        let Some(connection) = self.connection(cx.config) else {
            return;
        };
        let spi = host::ike_spi(cx.host);
        let proposals = ike_proposals(&connection.ike, Some(spi));
        let current = self.suite.as_ref().map(|suite| suite.method);
        let Some(method) = method.or(current) else {
            return;
        };
        let Ok((kex, data)) = method.begin(cx.host) else {
            return;
        };
        let ni = host::nonce(cx.host, NONCE_LEN);
        let payloads = [
            Payload::Sa(proposals.clone()),
            Payload::Nonce(ni.clone()),
            Payload::KeyExchange(KeyExchange {
                group: method.group(),
                data,
            }),
        ];
        let request = IkeRequest {
            spi,
            ni,
            method,
            kex,
            proposals,
        };
        let pending = Pending::Ike(Box::new(request));
        self.ask(ExchangeType::CREATE_CHILD_SA, &payloads, pending, cx);
    }

    pub(super) fn answer_rekey(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) -> Reply {
        // A peer that asks anew has given up the exchanges it began before.
        self.follow_up = None;
        // Not while children are being made, rekeyed or closed by this side, nor on the way out (§2.25.2).
        let busy = self.is_busy();
        let again = self.successors.iter().any(|successor| !successor.initiated);
        if busy || again || self.state != State::Up {
            return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
        }
        let Some(connection) = self.connection(cx.config) else {
            return Reply::refuse(NotifyType::NO_PROPOSAL_CHOSEN);
        };
        let (Some(theirs), Some(ke), Some(ni)) = (payloads.sa(), payloads.ke(), payloads.nonce())
        else {
            return Reply::refuse(NotifyType::INVALID_SYNTAX);
        };
        let spi_r = host::ike_spi(cx.host);
        let ours = ike_proposals(&connection.ike, Some(spi_r));
        let chosen = select(&ours, theirs, Some(ke.group));
        let usable = chosen
            .as_ref()
            .and_then(|chosen| Some((ike_spi(chosen)?, IkeSuite::from_proposal(chosen)?)));
        let (Some(chosen), Some((spi_i, suite))) = (chosen, usable) else {
            return Reply::refuse(NotifyType::NO_PROPOSAL_CHOSEN);
        };
        if suite.method.group() != ke.group {
            let group = suite.method.group().0.to_be_bytes();
            return Reply::Now(vec![Payload::notify(NotifyType::INVALID_KE_PAYLOAD, group)]);
        }
        let Ok((data, shared)) = suite.method.respond(&ke.data, cx.host) else {
            return Reply::refuse(NotifyType::INVALID_SYNTAX);
        };
        let nr = host::nonce(cx.host, NONCE_LEN);
        let group = ke.group;
        let mut answer = vec![
            Payload::Sa(vec![Proposal {
                spi: spi_r.to_be_bytes().to_vec(),
                ..chosen
            }]),
            Payload::Nonce(nr.clone()),
            Payload::KeyExchange(KeyExchange { group, data }),
        ];
        let left: VecDeque<Method> = suite.additional.iter().copied().collect();
        let draft = IkeDraft {
            initiated: false,
            spi_i,
            spi_r,
            suite,
            ni: ni.to_vec(),
            nr,
        };
        if left.is_empty() {
            self.raise_ike(draft, &[shared], cx);
            self.settle_ike(cx);
        } else {
            let draft = Draft::Ike(Box::new(draft));
            answer.push(self.await_follow_up(draft, vec![shared], left, cx));
        }
        let _ = header;
        Reply::Now(answer)
    }

    /// Whether this side is making, rekeying or closing a child, or the IKE SA.
    fn is_busy(&self) -> bool {
        let deleting = |p: &Pending| matches!(p, Pending::DeleteChildren(_) | Pending::DeleteIke);
        let closing = |child: &Child| child.state == ChildState::Deleting;
        self.is_making_child()
            || self.outbox.pending().any(deleting)
            || self.children.iter().any(closing)
    }

    pub(super) fn rekey_response(
        &mut self,
        request: Box<IkeRequest>,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        if let Some(refused) = payloads.error() {
            return self.rekey_refused(&request, refused, payloads, cx);
        }
        let Some((draft, public)) = take_rekey(&request, payloads) else {
            return self.settle_ike(cx);
        };
        let Ok(shared) = request.kex.finish(&public) else {
            return self.settle_ike(cx);
        };
        let left: VecDeque<Method> = draft.suite.additional.iter().copied().collect();
        if left.is_empty() {
            self.raise_ike(draft, &[shared], cx);
            return self.settle_ike(cx);
        }
        match payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE) {
            Some(notify) => {
                let follow_up = FollowUp {
                    draft: Draft::Ike(Box::new(draft)),
                    shared: vec![shared],
                    left,
                    link: notify.data.clone(),
                    request: None,
                };
                self.start_follow_up(Box::new(follow_up), cx);
            }
            // What was agreed on takes place, or nothing does.
            None => self.settle_ike(cx),
        }
    }

    fn rekey_refused(
        &mut self,
        request: &IkeRequest,
        refused: NotifyType,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        if !self.successors.is_empty() {
            // The peer's own rekeying went through.
            return self.settle_ike(cx);
        }
        match refused {
            NotifyType::TEMPORARY_FAILURE => self.retry(Task::RekeyIke(None), cx),
            NotifyType::INVALID_KE_PAYLOAD => {
                let method = payloads
                    .notify(refused)
                    .and_then(|n| <[u8; 2]>::try_from(n.data.as_slice()).ok())
                    .and_then(|group| Method::from_group(Group(u16::from_be_bytes(group))));
                let configured = self.connection(cx.config).map_or(&[][..], |c| &c.ike);
                let offered = |m: &Method| {
                    *m != request.method && configured.iter().any(|p| p.methods.contains(m))
                };
                if let Some(method) = method.filter(offered) {
                    self.start_rekey(Some(method), cx);
                }
            }
            _ => {}
        }
    }

    /// Makes the successor.
    fn raise_ike(&mut self, draft: IkeDraft, shared: &[Secret], cx: &mut Cx<'_>) {
        let (Some(suite), Some(protection)) = (&self.suite, &self.protection) else {
            return;
        };
        // With the old SA's PRF (§2.18).
        let seed = skeyseed_rekey(suite.prf, &protection.keys.d, shared, &draft.ni, &draft.nr);
        let id = IkeId(cx.id());
        let spis = (draft.spi_i, draft.spi_r);
        let mut new = IkeSa::new(id, draft.initiated, self.path, spis, cx.now);
        new.announced = false;
        new.state = State::Up;
        new.nat = self.nat;
        new.connection = self.connection;
        new.traits = self.traits.clone();
        new.peer = self.peer.clone();
        new.certificate = self.certificate.clone();
        new.outbox.window = self.outbox.window;
        new.inbox.window = self.inbox.window;
        new.ni = draft.ni.clone();
        new.nr = draft.nr.clone();
        new.derive(draft.suite, &seed, cx);
        new.schedule_rekey(cx);
        self.successors.push(Successor {
            id,
            lowest: draft.ni.min(draft.nr),
            initiated: draft.initiated,
        });
        cx.effects.push_back(Effect::Spawn(Box::new(new)));
    }

    /// Whether this side's own rekeying of this IKE SA is still on its way.
    fn is_rekeying(&self) -> bool {
        self.outbox.pending().any(|p| {
            matches!(p, Pending::Ike(_))
                || matches!(p, Pending::FollowUp(f, _) if matches!(f.draft, Draft::Ike(_)))
        })
    }

    /// Once nothing is open any more: who inherits, and who closes what (§2.8.2). Of two successors the one with the
    /// lowest nonce is redundant, and closed by who asked for it; the old one by who asked for the other.
    fn settle_ike(&mut self, cx: &mut Cx<'_>) {
        if self.inherited || self.is_rekeying() {
            return;
        }
        let winner = self
            .successors
            .iter()
            .max_by(|a, b| a.lowest.cmp(&b.lowest));
        let Some((id, ours)) = winner.map(|winner| (winner.id, winner.initiated)) else {
            return;
        };
        for loser in self.successors.iter().filter(|s| s.id != id) {
            let redundant = Effect::Redundant(loser.id, loser.initiated);
            cx.effects.push_back(redundant);
        }
        self.inherit(id, cx);
        self.state = State::Replaced(cx.now + REPLACED_TIME);
        if ours {
            self.tasks.push_back(Task::DeleteIke);
        }
    }

    /// The successor gets the children, and what was to be asked.
    pub(super) fn inherit(&mut self, id: IkeId, cx: &mut Cx<'_>) {
        self.inherited = true;
        self.heir = Some(id);
        self.rekey_at = None;
        if let (Some(connection), Some(Inner::Peers(address))) = (self.connection, self.inner) {
            cx.leases.pass_on(connection, address, self.id, id);
        }
        let bequest = Bequest {
            children: std::mem::take(&mut self.children),
            tasks: self.take_tasks(),
            inner: self.inner,
        };
        cx.effects
            .push_back(Effect::Inherit(self.id, id, Box::new(bequest)));
    }

    /// The peer deletes this IKE SA while it is rekeyed: the successor there is inherits (§2.25.2).
    pub(super) fn settle_before_end(&mut self, cx: &mut Cx<'_>) {
        if !self.inherited {
            let winner = self
                .successors
                .iter()
                .max_by(|a, b| a.lowest.cmp(&b.lowest));
            if let Some(id) = winner.map(|winner| winner.id) {
                self.inherit(id, cx);
            }
        }
    }

    /// The link of additional key exchanges the peer is to begin.
    pub(super) fn await_follow_up(
        &mut self,
        draft: Draft,
        shared: Vec<Secret>,
        left: VecDeque<Method>,
        cx: &mut Cx<'_>,
    ) -> Payload {
        let link = host::nonce(cx.host, 8);
        self.follow_up = Some(Box::new(FollowUp {
            draft,
            shared,
            left,
            link: link.clone(),
            request: None,
        }));
        Payload::notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link)
    }

    pub(super) fn start_follow_up(&mut self, follow_up: Box<FollowUp>, cx: &mut Cx<'_>) {
        let begun = follow_up
            .left
            .front()
            .and_then(|m| Some((*m, m.begin(cx.host).ok()?)));
        let Some((method, (kex, data))) = begun else {
            return;
        };
        let payloads = [
            Payload::KeyExchange(KeyExchange {
                group: method.group(),
                data,
            }),
            Payload::notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, follow_up.link.clone()),
        ];
        let pending = Pending::FollowUp(follow_up, kex);
        self.ask(ExchangeType::IKE_FOLLOWUP_KE, &payloads, pending, cx);
    }

    pub(super) fn follow_up_response(
        &mut self,
        mut follow_up: Box<FollowUp>,
        kex: Kex,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        let method = follow_up.left.pop_front();
        let public = payloads
            .ke()
            .filter(|ke| Some(ke.group) == method.map(Method::group) && payloads.error().is_none());
        let Some(shared) = public.and_then(|ke| kex.finish(&ke.data).ok()) else {
            return self.follow_up_failed(*follow_up, cx);
        };
        follow_up.shared.push(shared);
        if let (Some(notify), false) = (
            payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE),
            follow_up.left.is_empty(),
        ) {
            follow_up.link.clone_from(&notify.data);
            return self.start_follow_up(follow_up, cx);
        }
        if !follow_up.left.is_empty() {
            return self.follow_up_failed(*follow_up, cx);
        }
        let follow_up = *follow_up;
        match (follow_up.draft, follow_up.request) {
            (Draft::Child(draft), Some(request)) => {
                self.settle_child(*request, *draft, &follow_up.shared, cx);
            }
            (Draft::Ike(draft), _) => {
                self.raise_ike(*draft, &follow_up.shared, cx);
                self.settle_ike(cx);
            }
            _ => {}
        }
    }

    /// STATE_NOT_FOUND, or no public value: begun again later (RFC 9370 §2.2.4).
    pub(super) fn follow_up_failed(&mut self, follow_up: FollowUp, cx: &mut Cx<'_>) {
        match (follow_up.draft, follow_up.request) {
            (Draft::Child(_), Some(request)) => {
                cx.event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: Some(request.spi_in),
                    why: ChildFailure::Answer,
                });
                if let Some(id) = request.rekeys {
                    if let Some(child) = self.children.iter_mut().find(|c| c.id == id) {
                        child.state = ChildState::Up;
                    }
                    if request.collision.is_none() {
                        self.retry(Task::RekeyChild(id, None), cx);
                    }
                }
            }
            _ if self.successors.is_empty() => self.retry(Task::RekeyIke(None), cx),
            _ => self.settle_ike(cx),
        }
    }

    pub(super) fn answer_follow_up(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) -> Reply {
        let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let meant = |f: &FollowUp| link.is_some_and(|link| link.data == f.link);
        let Some(mut follow_up) = self.follow_up.take_if(|f| meant(f)) else {
            return Reply::refuse(NotifyType::STATE_NOT_FOUND);
        };
        let method = follow_up.left.pop_front();
        let ke = payloads
            .ke()
            .filter(|ke| Some(ke.group) == method.map(Method::group));
        let answered = match (method, ke) {
            (Some(method), Some(ke)) => method.respond(&ke.data, cx.host).ok(),
            _ => None,
        };
        let (Some((data, shared)), Some(method)) = (answered, method) else {
            return Reply::refuse(NotifyType::INVALID_SYNTAX);
        };
        follow_up.shared.push(shared);
        let mut answer = vec![Payload::KeyExchange(KeyExchange {
            group: method.group(),
            data,
        })];
        if !follow_up.left.is_empty() {
            let notify =
                Payload::notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, follow_up.link.clone());
            answer.push(notify);
            self.follow_up = Some(follow_up);
            return Reply::Now(answer);
        }
        match follow_up.draft {
            Draft::Child(draft) => {
                // Much may have happened since the first half (§2.25).
                let old = draft
                    .rekeys
                    .map(|id| self.children.iter().find(|c| c.id == id));
                let refused = match old {
                    Some(None) => Some(NotifyType::CHILD_SA_NOT_FOUND),
                    Some(Some(old)) if old.state == ChildState::Deleting || old.replaced => {
                        Some(NotifyType::TEMPORARY_FAILURE)
                    }
                    _ if self.state != State::Up || self.is_rekeying() => {
                        Some(NotifyType::TEMPORARY_FAILURE)
                    }
                    _ => None,
                };
                if let Some(refused) = refused {
                    return Reply::refuse(refused);
                }
                let held = self.holds(&draft);
                self.raise_child(*draft, &follow_up.shared, header, cx);
                if held {
                    return Reply::Held(answer);
                }
            }
            Draft::Ike(_) if self.is_busy() => {
                return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
            }
            // This side's own rekeying was done first.
            Draft::Ike(_) if self.inherited || self.state != State::Up => {
                return Reply::refuse(NotifyType::STATE_NOT_FOUND);
            }
            Draft::Ike(draft) => {
                self.raise_ike(*draft, &follow_up.shared, cx);
                self.settle_ike(cx);
            }
        }
        Reply::Now(answer)
    }
}

fn ike_spi(proposal: &Proposal) -> Option<u64> {
    let spi = u64::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi != 0).then_some(spi)
}

/// What a sound answer to the rekeying of an IKE SA holds.
fn take_rekey(request: &IkeRequest, payloads: &[Payload]) -> Option<(IkeDraft, Vec<u8>)> {
    let chosen = accept(&request.proposals, payloads.sa()?)?;
    let suite = IkeSuite::from_proposal(chosen)?;
    let ke = payloads.ke()?;
    let sound = suite.method == request.method && ke.group == request.method.group();
    let draft = IkeDraft {
        initiated: true,
        spi_i: request.spi,
        spi_r: ike_spi(chosen)?,
        suite,
        ni: request.ni.clone(),
        nr: payloads.nonce()?.to_vec(),
    };
    sound.then(|| (draft, ke.data.clone()))
}
