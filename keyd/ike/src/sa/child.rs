// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Child SAs: negotiated, made, rekeyed (RFC 7296 §1.3, §2.8, §2.9), with zones (docs/wire.md §3.2).

use super::exchange::{
    ChildDraft, ChildRequest, Collision, Cx, Draft, Effect, Find, FollowUp, Pending, Refusal,
    Reply, Task, ZoneDraft,
};
use super::init::NONCE_LEN;
use super::{IkeSa, State};
use crate::config::{ChildConfig, ZonePolicy, ZoneRole};
use crate::crypto::{ChildKeys, Hash, KeyPair, Method};
use crate::event::{ChildFailure, ChildId, ChildSa, ChildUp, Event, Time, ZoneKeys};
use crate::host;
use crate::negotiate::{
    accept, accept_zones, additional, esp_proposals, esp_spi, is_within, narrow, select,
    select_zones, zone_algorithm, zone_lengths, EspSuite,
};
use crate::secret::Secret;
use crate::wire::{
    CsaIdentity, ExchangeType, Group, Header, KeyExchange, Notify, NotifyType, Payload, Proposal,
    TrafficSelector, TransformType, ZoneMapPayload, ZoneTransform,
};
use pfkey::{Mode, ZoneMap};

/// Children of one IKE SA; a peer that wants more is making work.
const MAX_CHILDREN: usize = 64;

/// A child SA as long as it is there.
pub(crate) struct Child {
    pub id: ChildId,
    pub spi_in: u32,
    pub spi_out: u32,
    pub mode: Mode,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    pub composite: Option<Composite>,
    pub state: ChildState,
    /// A child replaces it, and seals.
    pub replaced: bool,
    pub rekey_at: Option<Time>,
    pub expires: Time,
    /// The child that is to seal once this one goes.
    pub waiting: Option<ChildId>,
}

/// What makes a child a CSA.
pub(crate) struct Composite {
    pub map: ZoneMap,
    pub transforms: Vec<ZoneTransform>,
    pub generation: u32,
    pub may_write: bool,
    pub replay_window: u32,
    pub role: ZoneRole,
    pub prf: Hash,
    pub k_ho: Secret,
    /// HA: zone 1's keys, to it and from it, for its relays.
    pub zone1: Option<(KeyPair, KeyPair)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChildState {
    Up,
    /// This side's rekeying is on its way.
    Rekeying,
    /// This side's Delete is on its way.
    Deleting,
}

/// A request for a child.
pub(crate) struct Asked<'a> {
    pub payloads: &'a [Payload],
    /// It came by CREATE_CHILD_SA.
    pub exchange: bool,
    pub rekeys: Option<ChildId>,
}

type Answered = (Vec<Payload>, Box<ChildDraft>, Vec<Secret>);

impl IkeSa {
    fn child_config<'a>(&self, cx: &Cx<'a>) -> Option<&'a ChildConfig> {
        self.connection(cx.config)?.child.as_ref()
    }

    fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    fn next_generation(&self, cx: &Cx<'_>) -> u32 {
        let known = self.peer.as_ref().and_then(|peer| cx.generations.get(peer));
        known.copied().unwrap_or(0).saturating_add(1)
    }

    fn zone_policy<'a>(&self, config: &'a ChildConfig, cx: &Cx<'_>) -> Option<&'a ZonePolicy> {
        config.zones.as_ref().filter(|_| self.knows_zones(cx))
    }

    /// The two payloads that make a child a CSA.
    fn zone_payloads(
        &self,
        policy: &ZonePolicy,
        transforms: Vec<Vec<ZoneTransform>>,
        generation: u32,
        may_write: bool,
        spi_in: u32,
    ) -> [Payload; 2] {
        let map = ZoneMapPayload {
            map: policy.map,
            transforms,
        };
        let identity = CsaIdentity {
            generation,
            mode: policy.map.mode(),
            relay_number: 0,
            spi_in,
            spi_out: 0,
            replay_window: policy.replay_window,
            sequence_in: 0,
            sequence_out: 0,
            lifetime: 0,
            may_write,
            standby: false,
            source: self.path.local.ip(),
            destination: self.path.remote.ip(),
        };
        [Payload::ZoneMap(map), Payload::CsaIdentity(identity)]
    }

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
        if let [address, ..] = self.inner.as_slice() {
            local_ts = vec![TrafficSelector::host(*address)];
        } else if self.connection(cx.config)?.request_address {
            local_ts = vec![TrafficSelector::any(std::net::Ipv4Addr::UNSPECIFIED.into())];
        }
        let remote_ts = config.remote_ts.clone();
        let policy = self.zone_policy(config, cx);
        // Zones need 64-bit sequence numbers, and the fall-back stands in the same proposal.
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
        // Of a peer with an inner address, that address and no other.
        let permitted = match self.inner.as_slice() {
            [] => config.remote_ts.clone(),
            inner => inner.iter().map(|a| TrafficSelector::host(*a)).collect(),
        };
        let (remote_ts, local_ts) = (narrow(ts_i, &permitted), narrow(ts_r, &config.local_ts));
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
    fn child_exchange(
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

    /// Zones or none, and whether none will do (docs/wire.md §3.2).
    fn answer_zones(
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
        // A rekeying repeats the Zone Map, the same one.
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
    fn child_refused(
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
        if let Some(notify) = payloads
            .notify(NotifyType::ADDITIONAL_KEY_EXCHANGE)
            .filter(|_| !left.is_empty())
        {
            let follow_up = FollowUp {
                draft: Draft::Child(Box::new(draft)),
                shared,
                left,
                link: notify.data.clone(),
                request: Some(request),
            };
            return self.start_follow_up(Box::new(follow_up), cx);
        }
        self.settle_child(*request, draft, &shared, cx);
    }

    /// What a sound answer agrees on; or why not, and the peer's SPI if there is one now.
    #[expect(clippy::type_complexity, reason = "it has one caller")]
    fn take_child(
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

    /// This side's rekeying is done; who wins where the peer did the same meanwhile (§2.8.1).
    pub(super) fn settle_child(
        &mut self,
        request: ChildRequest,
        draft: ChildDraft,
        shared: &[Secret],
        cx: &mut Cx<'_>,
    ) {
        let lowest = draft.ni.clone().min(draft.nr.clone());
        let closed = self.closed_early.contains(&draft.spi_out);
        self.closed_early.clear();
        let header = self.header(ExchangeType::CREATE_CHILD_SA, true, 0);
        let new = self.raise_child(draft, shared, &header, cx);
        let Some(old) = request.rekeys else {
            if closed {
                self.drop_child(new, cx);
            }
            return;
        };
        if let Some(child) = self.child(old) {
            child.state = ChildState::Up;
            child.replaced = true;
        }
        if closed {
            // The peer closed it before its answer was here; the old one it closes too, or did.
            self.drop_child(new, cx);
        }
        match request.collision {
            // The one with the lowest nonce is redundant, and closed by who asked for it; the peer closes the old.
            Some(collision) if lowest < collision.lowest => {
                if let Some(child) = self.child(new) {
                    child.replaced = true;
                }
                self.tasks.push_back(Task::DeleteChildren(vec![new]));
            }
            // An HA's old CSA goes once the new one is with its relay.
            _ if self.distributes(new) => {}
            _ => self.tasks.push_back(Task::DeleteChildren(vec![old])),
        }
    }

    fn distributes(&mut self, id: ChildId) -> bool {
        let composite = self.child(id).and_then(|child| child.composite.as_ref());
        composite.is_some_and(|composite| composite.role == ZoneRole::Home)
    }

    /// HA, having rekeyed: the new CSA is with its relay, or that was waited for long enough.
    pub fn seal_with(&mut self, id: ChildId, old: ChildId, cx: &mut Cx<'_>) {
        if self.child(id).is_some_and(|child| !child.replaced) {
            cx.event(Event::ChildSeal { child: id });
            self.want(Task::DeleteChildren(vec![old]), cx);
        }
    }

    /// Derives a child's keys and installs it. `true` within the result's caller means: the answer waits for the relay.
    pub(super) fn raise_child(
        &mut self,
        draft: ChildDraft,
        shared: &[Secret],
        request: &Header,
        cx: &mut Cx<'_>,
    ) -> ChildId {
        let id = ChildId(cx.id());
        let (Some(suite), Some(protection), Some(config)) =
            (&self.suite, &self.protection, self.child_config(cx))
        else {
            return id;
        };
        let (prf, sk_d) = (suite.prf, &protection.keys.d);
        let nonces = (draft.ni.as_slice(), draft.nr.as_slice());
        let keys = match &draft.zones {
            Some(zones) => {
                let lengths = zone_lengths(&zones.transforms);
                ChildKeys::zones(prf, sk_d, shared, nonces, &lengths)
            }
            None => ChildKeys::plain(prf, sk_d, shared, nonces, draft.suite.lengths()),
        };
        let (out, into) = if draft.initiated {
            (keys.initiator, keys.responder)
        } else {
            (keys.responder, keys.initiator)
        };
        let mut pairs = into.into_iter().zip(out);
        let policy = config.zones.as_ref();
        let role = policy.map_or(ZoneRole::Mobile, |policy| policy.role);
        let replay = policy.map_or(pfkey::WINDOW_DEFAULT, |policy| policy.replay_window);
        let mut composite = None;
        let sa = match draft.zones {
            Some(zones) => {
                let list: Vec<ZoneKeys> = zones
                    .transforms
                    .iter()
                    .zip(pairs)
                    .map(|(transform, (keys_in, keys_out))| ZoneKeys {
                        transform: *transform,
                        keys_in,
                        keys_out,
                    })
                    .collect();
                let map = policy.map_or_else(|| ZoneMap::default_for(draft.mode), |p| p.map);
                let zone1 = list.first().filter(|_| role == ZoneRole::Home);
                composite = Some(Composite {
                    map,
                    transforms: zones.transforms,
                    generation: zones.generation,
                    may_write: zones.may_write,
                    replay_window: replay,
                    role,
                    prf,
                    k_ho: keys.k_ho,
                    zone1: zone1.map(|z| (z.keys_in.clone(), z.keys_out.clone())),
                });
                if let Some(peer) = &self.peer {
                    let known = cx.generations.entry(peer.clone()).or_default();
                    *known = (*known).max(zones.generation);
                }
                ChildSa::Composite {
                    map,
                    zones: list,
                    generation: zones.generation,
                    may_write: zones.may_write,
                    replay_window: replay,
                    peer_replay_window: zones.peer_replay_window,
                }
            }
            None => {
                let (keys_in, keys_out) = pairs.next().unwrap_or_else(|| {
                    let none = KeyPair {
                        key: Secret::default(),
                        salt: Secret::default(),
                    };
                    (none.clone(), none)
                });
                ChildSa::Plain {
                    suite: draft.suite,
                    keys_in,
                    keys_out,
                }
            }
        };
        // Rekey order (docs/wire.md §3.2): an HA that asked distributes first; an MH that was asked waits for the first
        // good packet, or the Delete. Whoever made a plain child seals with it at once.
        let zoned = composite.is_some();
        let rekeying = draft.rekeys.is_some();
        let seal_now = !(zoned && rekeying && draft.initiated == (role == ZoneRole::Home));
        let lifetime = config.lifetime;
        let rekey_at = config.rekey.map(|age| cx.now + age);
        if let Some(old) = draft.rekeys.and_then(|old| self.child(old)) {
            old.rekey_at = None;
            if !draft.initiated {
                // Unless this side's own rekeying is on its way: that one settles it.
                if old.state == ChildState::Up {
                    old.replaced = true;
                }
                if !seal_now {
                    old.waiting = Some(id);
                }
            }
        }
        if !draft.initiated {
            self.note_collision(draft.rekeys, draft.ni.min(draft.nr));
        }
        cx.event(Event::ChildUp(Box::new(ChildUp {
            ike: self.id,
            child: id,
            replaces: draft.rekeys,
            seal_now,
            spi_in: draft.spi_in,
            spi_out: draft.spi_out,
            local: self.path.local,
            remote: self.path.remote,
            udp: self.nat.any(),
            mode: draft.mode,
            local_ts: draft.local_ts.clone(),
            remote_ts: draft.remote_ts.clone(),
            lifetime,
            keys: sa,
        })));
        self.children.push(Child {
            id,
            spi_in: draft.spi_in,
            spi_out: draft.spi_out,
            mode: draft.mode,
            local_ts: draft.local_ts,
            remote_ts: draft.remote_ts,
            composite,
            state: ChildState::Up,
            replaced: false,
            rekey_at,
            expires: cx.now + lifetime,
            waiting: None,
        });
        if zoned && role == ZoneRole::Home {
            let hold = rekeying && !draft.initiated;
            let hold = hold.then_some(request.message_id);
            let replaces = draft.rekeys;
            cx.effects
                .push_back(Effect::ChildRaised(self.id, id, hold, replaces));
        }
        id
    }

    /// Whether a child this side asked for is still on its way.
    pub(super) fn is_making_child(&self) -> bool {
        self.outbox.pending().any(|p| {
            matches!(p, Pending::Child(_))
                || matches!(p, Pending::FollowUp(f, _) if matches!(f.draft, Draft::Child(_)))
        })
    }

    /// The peer rekeyed a child this side is rekeying.
    fn note_collision(&mut self, rekeys: Option<ChildId>, lowest: Vec<u8>) {
        let collision = Collision { lowest };
        for pending in self.outbox.pending_mut() {
            let request = match pending {
                Pending::Child(request) => Some(request),
                Pending::FollowUp(follow_up, _) => follow_up.request.as_mut(),
                _ => None,
            };
            if let Some(request) = request.filter(|r| r.rekeys.is_some() && r.rekeys == rekeys) {
                request.collision = Some(collision.clone());
            }
        }
    }

    /// Answers CREATE_CHILD_SA: an IKE SA in this one's place, a child in another's, or a new one.
    pub(super) fn answer_create(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) -> Reply {
        // One at a time; a peer with a window may well ask twice.
        if self.follow_up.is_some() {
            return Reply::refuse(NotifyType::TEMPORARY_FAILURE);
        }
        let ike = payloads.sa().is_some_and(|list| {
            list.iter()
                .any(|p| p.protocol == crate::wire::ProtocolId::IKE)
        });
        if ike {
            return self.answer_rekey(header, payloads, cx);
        }
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

    /// Whether the answer that brings this child waits for its relay (docs/wire.md §3.2, rekey order): the HA's, to a
    /// rekeying. The end point lets it go at once where there is no relay.
    pub(super) fn holds(&mut self, draft: &ChildDraft) -> bool {
        let old = draft.rekeys.and_then(|id| self.child(id));
        let home = old
            .and_then(|old| old.composite.as_ref())
            .is_some_and(|c| c.role == ZoneRole::Home);
        home && draft.zones.is_some()
    }

    pub(super) fn tick_children(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let mut tasks = Vec::new();
        let mut expired = Vec::new();
        for child in &mut self.children {
            if child.rekey_at.is_some_and(|at| at <= now) {
                child.rekey_at = None;
                tasks.push(Task::RekeyChild(child.id, None));
            }
            if child.expires <= now && child.state != ChildState::Deleting {
                expired.push(child.id);
                // Asked for once.
                child.expires = now + std::time::Duration::from_secs(3600);
            }
        }
        if !expired.is_empty() {
            tasks.push(Task::DeleteChildren(expired));
        }
        self.tasks.extend(tasks);
    }
}

fn payloads_additional(answer: &[Payload]) -> std::collections::VecDeque<Method> {
    let chosen = answer.sa().and_then(|list| list.first());
    chosen.and_then(additional).unwrap_or_default().into()
}

/// Only an explicit IV leaves a relay one of its own.
fn writes(transforms: &[ZoneTransform]) -> bool {
    transforms
        .first()
        .and_then(zone_algorithm)
        .is_some_and(|algorithm| algorithm.is_explicit())
}

fn replay_window(packets: u32) -> u32 {
    packets.clamp(pfkey::WINDOW_MIN, pfkey::WINDOW_MAX)
}
