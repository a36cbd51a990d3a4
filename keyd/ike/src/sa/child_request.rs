// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Asking for a child: CREATE_CHILD_SA and the child of IKE_AUTH, as the one who asks (RFC 7296 §1.3, §2.8).

use super::child::{replay_window, writes, ChildState};
use super::exchange::{
    ChildDraft, ChildRequest, Cx, Draft, Find, FollowUp, Pending, Task, ZoneDraft,
};
use super::init::NONCE_LEN;
use super::IkeSa;
use crate::crypto::Method;
use crate::event::{ChildFailure, ChildId, Event};
use crate::host;
use crate::negotiate::{
    accept, accept_zones, additional, esp_proposals, esp_spi, is_within, EspSuite,
};
use crate::pool::Inner;
use crate::secret::Secret;
use crate::wire::{ExchangeType, Group, KeyExchange, Notify, NotifyType, Payload, TrafficSelector};
use pfkey::{Family, Mode};

impl IkeSa {
    /// A request for a child, and its payloads. `exchange`: for CREATE_CHILD_SA.
    pub(super) fn child_request(
        &mut self,
        rekeys: Option<ChildId>,
        method: Option<Method>,
        exchange: bool,
        cx: &mut Cx<'_>,
    ) -> Option<(ChildRequest, Vec<Payload>)> {
        let config = self.child_config(cx)?;
        let ends = (self.path.local.ip(), self.path.remote.ip());
        let spi_in = cx.host.child_spi(ends.0, ends.1)?;
        let mut local_ts = config.local_ts.clone();
        if let Some(Inner::Own(address)) = self.inner {
            local_ts = vec![TrafficSelector::host(address)];
        } else if let Some(family) = self.connection(cx.config)?.request_address {
            local_ts = vec![TrafficSelector::any(match family {
                Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            })];
        }
        let remote_ts = match self.inner {
            Some(Inner::Peers(address)) => vec![TrafficSelector::host(address)],
            // It would be of all peers' packets.
            _ if !self.connection(cx.config)?.pool.is_empty() => return None,
            _ => config.remote_ts.clone(),
        };
        let policy = self.zone_policy(config, cx);
        // Zones need 64-bit sequence numbers, and the fall-back stands in the same proposal (docs/wire.md 3.2b).
        let esn: &[bool] = if policy.is_some() {
            &[true]
        } else {
            &[true, false]
        };
        let proposals = esp_proposals(config, spi_in, exchange, esn);
        let mut payloads = Vec::new();
        if let Some(old) = rekeys.and_then(|id| self.child(id)) {
            payloads.push(Payload::Notify(Notify::about(
                NotifyType::REKEY_SA,
                old.spi_in,
            )));
        }
        if config.mode == Mode::Transport {
            payloads.push(Payload::notify(NotifyType::USE_TRANSPORT_MODE, []));
        }
        payloads.push(Payload::Sa(proposals.clone()));
        let mut kex = None;
        let mut ni = self.ni.clone();
        if exchange {
            ni = host::nonce(cx.host, NONCE_LEN);
            payloads.push(Payload::Nonce(ni.clone()));
            if let Some(method) = method.or(config.methods.first().copied()) {
                let (private, data) = method.begin(cx.host).ok()?;
                payloads.push(Payload::KeyExchange(KeyExchange {
                    group: method.group(),
                    data,
                }));
                kex = Some((method, private));
            }
        }
        payloads.push(Payload::TsInitiator(local_ts.clone()));
        payloads.push(Payload::TsResponder(remote_ts.clone()));
        let generation = policy.map(|policy| {
            let generation = self.next_generation(cx);
            let transforms = policy.transforms.clone();
            payloads.extend(self.zone_payloads(
                policy,
                transforms,
                generation,
                policy.may_write,
                spi_in,
            ));
            generation
        });
        let request = ChildRequest {
            rekeys,
            spi_in,
            ni,
            kex,
            proposals,
            local_ts,
            remote_ts,
            mode: config.mode,
            zones: generation,
            collision: None,
            old_deleted: false,
        };
        Some((request, payloads))
    }

    /// CREATE_CHILD_SA for a new child, or one in another's place.
    pub(super) fn start_child(
        &mut self,
        rekeys: Option<ChildId>,
        method: Option<Method>,
        cx: &mut Cx<'_>,
    ) {
        if let Some(id) = rekeys {
            match self.child(id) {
                Some(child) if child.state == ChildState::Up && !child.replaced => {
                    child.state = ChildState::Rekeying;
                }
                // Rekeyed or deleted since this was wanted.
                _ => return,
            }
        }
        match self.child_request(rekeys, method, true, cx) {
            Some((request, payloads)) => {
                let pending = Pending::Child(Box::new(request));
                self.ask(ExchangeType::CREATE_CHILD_SA, &payloads, pending, cx);
            }
            None => {
                if let Some(child) = rekeys.and_then(|id| self.child(id)) {
                    child.state = ChildState::Up;
                }
                cx.event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: None,
                    why: ChildFailure::Local,
                });
            }
        }
    }

    pub(super) fn child_response(
        &mut self,
        request: Box<ChildRequest>,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        if let Some(refused) = payloads.error() {
            return self.child_refused(*request, refused, payloads, cx);
        }
        self.finish_child(request, payloads, true, cx);
    }

    /// CREATE_CHILD_SA was refused.
    pub(super) fn child_refused(
        &mut self,
        request: ChildRequest,
        refused: NotifyType,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        let settled = request.collision.is_some();
        self.closed_early.clear();
        if let Some(child) = request.rekeys.and_then(|id| self.child(id)) {
            child.state = ChildState::Up;
        }
        cx.event(Event::ChildFailed {
            ike: self.id,
            spi_in: Some(request.spi_in),
            why: ChildFailure::Refused(refused),
        });
        if settled {
            // The peer's rekeying of the same child went through.
            return;
        }
        let again = |method| match request.rekeys {
            Some(id) => Task::RekeyChild(id, method),
            None => Task::NewChild,
        };
        match refused {
            NotifyType::TEMPORARY_FAILURE if !request.old_deleted => self.retry(again(None), cx),
            NotifyType::INVALID_KE_PAYLOAD => {
                let method = payloads
                    .notify(refused)
                    .and_then(|n| <[u8; 2]>::try_from(n.data.as_slice()).ok())
                    .and_then(|group| Method::from_group(Group(u16::from_be_bytes(group))));
                let offered = self.child_config(cx).map_or(&[][..], |c| &c.methods);
                let tried = request.kex.map(|(tried, _)| tried);
                if let Some(method) = method.filter(|m| offered.contains(m) && tried != Some(*m)) {
                    self.start_child(request.rekeys, Some(method), cx);
                }
            }
            // The peer has lost it: so it goes here, and another is made from scratch (§2.25).
            NotifyType::CHILD_SA_NOT_FOUND if !request.old_deleted => {
                if let Some(id) = request.rekeys {
                    self.drop_child(id, cx);
                    self.tasks.push_back(Task::NewChild);
                }
            }
            _ => {}
        }
    }

    /// Reads the answer to a request for a child. `exchange`: it came by CREATE_CHILD_SA.
    pub(super) fn finish_child(
        &mut self,
        mut request: Box<ChildRequest>,
        payloads: &[Payload],
        exchange: bool,
        cx: &mut Cx<'_>,
    ) {
        let taken = self.take_child(&mut request, payloads, exchange, cx);
        let (draft, shared, left) = match taken {
            Ok(taken) => taken,
            Err((why, spi_out)) => {
                if let Some(child) = request.rekeys.and_then(|id| self.child(id)) {
                    child.state = ChildState::Up;
                }
                cx.event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: Some(request.spi_in),
                    why,
                });
                // The peer has it; it is asked to drop it again.
                if spi_out.is_some() {
                    self.delete_spi(request.spi_in, cx);
                }
                return;
            }
        };
        if left.is_empty() {
            return self.settle_child(*request, draft, &shared, cx);
        }
        let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let follow_up = Box::new(FollowUp {
            draft: Draft::Child(Box::new(draft)),
            shared,
            left,
            link: link.map(|notify| notify.data.clone()).unwrap_or_default(),
            request: Some(request),
        });
        if link.is_some() {
            self.start_follow_up(follow_up, cx);
        } else {
            self.follow_up_failed(*follow_up, cx);
        }
    }

    /// What a sound answer agrees on; or why not, and the peer's SPI if there is one now.
    #[expect(clippy::type_complexity, reason = "it has one caller")]
    pub(super) fn take_child(
        &mut self,
        request: &mut ChildRequest,
        payloads: &[Payload],
        exchange: bool,
        cx: &Cx<'_>,
    ) -> Result<
        (ChildDraft, Vec<Secret>, std::collections::VecDeque<Method>),
        (ChildFailure, Option<u32>),
    > {
        let none = (ChildFailure::Answer, None);
        let config = self.child_config(cx).ok_or(none)?;
        let chosen = payloads
            .sa()
            .and_then(|answer| accept(&request.proposals, answer))
            .ok_or(none)?;
        let spi_out = esp_spi(chosen).ok_or(none)?;
        let bad = (ChildFailure::Answer, Some(spi_out));
        let suite = EspSuite::from_proposal(chosen).ok_or(bad)?;
        let (ts_i, ts_r) = (payloads.ts_i().ok_or(bad)?, payloads.ts_r().ok_or(bad)?);
        if !is_within(ts_i, &request.local_ts) || !is_within(ts_r, &request.remote_ts) {
            return Err(bad);
        }
        // An address of its own, and none but that, or no child.
        let wanted = self
            .connection(cx.config)
            .and_then(|one| one.request_address);
        let own = match self.inner {
            Some(Inner::Own(address)) => Some(TrafficSelector::host(address)),
            _ => None,
        };
        if wanted.is_some() && !own.is_some_and(|own| is_within(ts_i, &[own])) {
            return Err((ChildFailure::Address, Some(spi_out)));
        }
        let transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        if transport != (request.mode == Mode::Transport) {
            return Err(bad);
        }
        let mut shared = Vec::new();
        let mut nr = self.nr.clone();
        if exchange {
            nr = payloads.nonce().ok_or(bad)?.to_vec();
            if let Some((method, kex)) = request.kex.take() {
                let ke = payloads.ke().filter(|ke| ke.group == method.group());
                shared.push(kex.finish(&ke.ok_or(bad)?.data).map_err(|_| bad)?);
            }
        }
        let old_map = request
            .rekeys
            .and_then(|id| self.child(id))
            .and_then(|old| old.composite.as_ref())
            .map(|c| c.map);
        let zones = match (request.zones, payloads.zone_map()) {
            (Some(asked), Some(answer)) => {
                let policy = config.zones.as_ref().ok_or(bad)?;
                let identity = payloads.csa().ok_or(bad)?;
                let transforms = accept_zones(policy, answer).ok_or(bad)?;
                // The answer's generation counts, and is not before the one asked for.
                let may_write = identity.may_write && policy.may_write;
                let sound = identity.generation >= asked
                    && identity.may_write == may_write
                    && (!may_write || writes(&transforms))
                    && suite.esn;
                if !sound {
                    return Err(bad);
                }
                Some(ZoneDraft {
                    generation: identity.generation,
                    may_write,
                    peer_replay_window: replay_window(identity.replay_window),
                    transforms,
                })
            }
            (None, Some(_)) => return Err(bad),
            (_, None) => None,
        };
        let required = config.zones.as_ref().is_some_and(|zones| zones.required);
        // docs/wire.md 3.2d, 3.2e.
        if zones.is_none() && (required || old_map.is_some()) {
            return Err((ChildFailure::NoZones, Some(spi_out)));
        }
        let draft = ChildDraft {
            initiated: true,
            rekeys: request.rekeys,
            spi_in: request.spi_in,
            spi_out,
            suite,
            zones,
            local_ts: ts_i.to_vec(),
            remote_ts: ts_r.to_vec(),
            mode: request.mode,
            ni: request.ni.clone(),
            nr,
        };
        Ok((draft, shared, additional(chosen).ok_or(bad)?.into()))
    }
}
