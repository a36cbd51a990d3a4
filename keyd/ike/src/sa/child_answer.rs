// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Answering who asks for a child (RFC 7296 §1.3, §2.9, §2.25), with zones or without (docs/wire.md §3.2).

use super::child::{replay_window, writes, ChildState};
use super::exchange::{ChildDraft, Cx, Draft, Find, Pending, Refusal, Reply, ZoneDraft};
use super::init::NONCE_LEN;
use super::{IkeSa, State};
use crate::config::ChildConfig;
use crate::crypto::Method;
use crate::event::ChildId;
use crate::host;
use crate::negotiate::{
    additional, esp_proposals, esp_spi, narrow, select, select_zones, EspSuite,
};
use crate::pool::Inner;
use crate::secret::Secret;
use crate::wire::{
    Group, Header, KeyExchange, Notify, NotifyType, Payload, Proposal, TrafficSelector,
    TransformType,
};
use pfkey::Mode;

/// Children of one IKE SA; a peer that wants more is making work.
const MAX_CHILDREN: usize = 64;

/// A request for a child.
pub(crate) struct Asked<'a> {
    pub payloads: &'a [Payload],
    /// It came by CREATE_CHILD_SA.
    pub exchange: bool,
    pub rekeys: Option<ChildId>,
}

type Answered = (Vec<Payload>, Box<ChildDraft>, Vec<Secret>);

impl IkeSa {
    /// Answers the request for a child; the caller raises what is agreed on.
    pub(super) fn answer_child(
        &mut self,
        asked: &Asked<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<Answered, Refusal> {
        let payloads = asked.payloads;
        if self.children.len() >= MAX_CHILDREN {
            return Err(NotifyType::NO_ADDITIONAL_SAS.into());
        }
        let config = self
            .child_config(cx)
            .ok_or(Refusal::from(NotifyType::NO_ADDITIONAL_SAS))?;
        let (Some(theirs), Some(ts_i), Some(ts_r)) =
            (payloads.sa(), payloads.ts_i(), payloads.ts_r())
        else {
            return Err(NotifyType::INVALID_SYNTAX.into());
        };
        let zones = self.answer_zones(config, asked, cx)?;
        let ends = (self.path.local.ip(), self.path.remote.ip());
        let spi_in = cx
            .host
            .child_spi(ends.0, ends.1)
            .ok_or(Refusal::from(NotifyType::NO_ADDITIONAL_SAS))?;
        let esn: &[bool] = if zones.is_some() {
            &[true]
        } else {
            &[true, false]
        };
        let ke = payloads.ke().filter(|_| asked.exchange);
        let ours = esp_proposals(config, spi_in, asked.exchange, esn);
        let chosen = select(&ours, theirs, ke.map(|ke| ke.group));
        let usable = chosen
            .as_ref()
            .and_then(|chosen| Some((esp_spi(chosen)?, EspSuite::from_proposal(chosen)?)));
        let (Some(chosen), Some((spi_out, suite))) = (chosen, usable) else {
            return Err(NotifyType::NO_PROPOSAL_CHOSEN.into());
        };
        let wants = |kind| payloads.notify(kind).is_some();
        let transport = wants(NotifyType::USE_TRANSPORT_MODE) && config.mode == Mode::Transport;
        let mode = if transport {
            Mode::Transport
        } else {
            Mode::Tunnel
        };
        if config.mode == Mode::Transport && !transport {
            return Err(NotifyType::NO_PROPOSAL_CHOSEN.into());
        }
        // Of a side with an inner address, that address and no other.
        let (mut own, mut theirs) = (config.local_ts.clone(), config.remote_ts.clone());
        match self.inner {
            Some(Inner::Own(address)) => own = vec![TrafficSelector::host(address)],
            Some(Inner::Peers(address)) => theirs = vec![TrafficSelector::host(address)],
            None => {
                let connection = self.connection(cx.config);
                if connection.is_some_and(|one| one.request_address.is_some()) {
                    return Err(NotifyType::TS_UNACCEPTABLE.into());
                }
                // It has no address, and all of them are no answer: not in IKE_AUTH, and not later.
                if connection.is_some_and(|one| !one.pool.is_empty()) {
                    return Err(NotifyType::FAILED_CP_REQUIRED.into());
                }
            }
        }
        let (remote_ts, local_ts) = (narrow(ts_i, &theirs), narrow(ts_r, &own));
        if remote_ts.is_empty() || local_ts.is_empty() {
            return Err(NotifyType::TS_UNACCEPTABLE.into());
        }
        let (shared, public) = self.child_exchange(&chosen, ke, cx)?;
        let (mut ni, mut nr) = (self.ni.clone(), self.nr.clone());
        let mut answer = Vec::new();
        if transport {
            answer.push(Payload::notify(NotifyType::USE_TRANSPORT_MODE, []));
        }
        answer.push(Payload::Sa(vec![Proposal {
            spi: spi_in.to_be_bytes().to_vec(),
            ..chosen
        }]));
        if asked.exchange {
            let nonce = payloads
                .nonce()
                .ok_or(Refusal::from(NotifyType::INVALID_SYNTAX))?;
            (ni, nr) = (nonce.to_vec(), host::nonce(cx.host, NONCE_LEN));
            answer.push(Payload::Nonce(nr.clone()));
        }
        answer.extend(public.map(Payload::KeyExchange));
        answer.push(Payload::TsInitiator(remote_ts.clone()));
        answer.push(Payload::TsResponder(local_ts.clone()));
        if let (Some(zones), Some(policy)) = (&zones, &config.zones) {
            let picked = zones.transforms.iter().map(|t| vec![*t]).collect();
            let payloads =
                self.zone_payloads(policy, picked, zones.generation, zones.may_write, spi_in);
            answer.extend(payloads);
        }
        let draft = ChildDraft {
            initiated: false,
            rekeys: asked.rekeys,
            spi_in,
            spi_out,
            suite,
            zones,
            local_ts,
            remote_ts,
            mode,
            ni,
            nr,
        };
        Ok((answer, Box::new(draft), shared))
    }

    /// The key exchange of a CREATE_CHILD_SA, if it has one.
    pub(super) fn child_exchange(
        &self,
        chosen: &Proposal,
        ke: Option<&KeyExchange>,
        cx: &mut Cx<'_>,
    ) -> Result<(Vec<Secret>, Option<KeyExchange>), Refusal> {
        let group = chosen.of(TransformType::KE).next().map_or(0, |t| t.id);
        if group == Group::NONE.0 {
            return Ok((Vec::new(), None));
        }
        let method = Method::from_group(Group(group)).ok_or(NotifyType::NO_PROPOSAL_CHOSEN)?;
        let Some(ke) = ke.filter(|ke| ke.group == method.group()) else {
            let group = method.group().0.to_be_bytes().to_vec();
            return Err(Refusal(NotifyType::INVALID_KE_PAYLOAD, group));
        };
        let (data, shared) = method
            .respond(&ke.data, cx.host)
            .map_err(|_| NotifyType::INVALID_SYNTAX)?;
        let group = ke.group;
        Ok((vec![shared], Some(KeyExchange { group, data })))
    }

    /// Zones or none, and whether none will do (docs/wire.md 3.2c, 3.2d).
    pub(super) fn answer_zones(
        &mut self,
        config: &ChildConfig,
        asked: &Asked<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<Option<ZoneDraft>, Refusal> {
        let refused = Refusal::from(NotifyType::NO_PROPOSAL_CHOSEN);
        let old = asked.rekeys.and_then(|id| self.child(id));
        let old_map = old.and_then(|old| old.composite.as_ref()).map(|c| c.map);
        let policy = self.zone_policy(config, cx);
        let offered = asked.payloads.zone_map();
        // A rekeying repeats the Zone Map, the same one (docs/wire.md 3.2e).
        if let Some(map) = old_map {
            if offered.map(|offered| offered.map) != Some(map) {
                return Err(refused);
            }
        }
        let required = config.zones.as_ref().is_some_and(|zones| zones.required);
        let picked = match (policy, offered, asked.payloads.csa()) {
            (Some(policy), Some(offered), Some(identity)) => {
                select_zones(policy, offered).map(|transforms| (policy, transforms, identity))
            }
            _ => None,
        };
        let Some((policy, transforms, identity)) = picked else {
            return if required || old_map.is_some() {
                Err(refused)
            } else {
                Ok(None)
            };
        };
        let may_write = policy.may_write && identity.may_write && writes(&transforms);
        Ok(Some(ZoneDraft {
            generation: identity.generation.max(self.next_generation(cx)),
            may_write,
            peer_replay_window: replay_window(identity.replay_window),
            transforms,
        }))
    }

    /// Answers CREATE_CHILD_SA: an IKE SA in this one's place, a child in another's, or a new one.
    pub(super) fn answer_create(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) -> Reply {
        let ike = payloads.sa().is_some_and(|list| {
            list.iter()
                .any(|p| p.protocol == crate::wire::ProtocolId::IKE)
        });
        if ike {
            return self.answer_rekey(header, payloads, cx);
        }
        // A peer that asks anew has given up the exchanges it began before.
        self.follow_up = None;
        // No child while the IKE SA is being rekeyed, or on its way out (§2.25.2).
        let rekeying = self.outbox.pending().any(|p| {
            matches!(p, Pending::Ike(_) | Pending::DeleteIke)
                || matches!(p, Pending::FollowUp(f, _) if matches!(f.draft, Draft::Ike(_)))
        });
        if rekeying || self.state != State::Up {
            return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
        }
        let rekeys = match payloads.notify(NotifyType::REKEY_SA) {
            None => None,
            Some(notify) => {
                // Named by the peer's inbound SPI (§1.3.3).
                let spi = notify.esp_spi();
                let old = self.children.iter().find(|c| Some(c.spi_out) == spi);
                match old {
                    // It may be the one whose answer hasn't come yet.
                    None if self.is_making_child() => {
                        return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
                    }
                    None => {
                        let notify = Notify {
                            kind: NotifyType::CHILD_SA_NOT_FOUND,
                            ..notify.clone()
                        };
                        return Reply::Now(vec![Payload::Notify(notify)]);
                    }
                    // Being closed by this side, or closed by the peer's own account (§2.25.1).
                    Some(old) if old.state == ChildState::Deleting || old.replaced => {
                        return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
                    }
                    Some(old) => Some(old.id),
                }
            }
        };
        let asked = Asked {
            payloads,
            exchange: true,
            rekeys,
        };
        match self.answer_child(&asked, cx) {
            Ok((mut answer, draft, shared)) => {
                let left = payloads_additional(&answer);
                if left.is_empty() {
                    let held = self.holds(&draft);
                    self.raise_child(*draft, &shared, header, cx);
                    return if held {
                        Reply::Held(answer)
                    } else {
                        Reply::Now(answer)
                    };
                }
                answer.push(self.await_follow_up(Draft::Child(draft), shared, left, cx));
                Reply::Now(answer)
            }
            Err(refusal) => Reply::Now(vec![refusal.payload()]),
        }
    }
}

fn payloads_additional(answer: &[Payload]) -> std::collections::VecDeque<Method> {
    let chosen = answer.sa().and_then(|list| list.first());
    chosen.and_then(additional).unwrap_or_default().into()
}
