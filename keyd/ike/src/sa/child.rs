// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A child SA from when all is agreed on to its end: keys, who seals when, who wins where both rekey
//! (RFC 7296 §2.8, §2.17; docs/wire.md §3.2).

use super::exchange::{ChildDraft, ChildRequest, Collision, Cx, Draft, Effect, Pending, Task};
use super::IkeSa;
use crate::config::{ChildConfig, ZonePolicy, ZoneRole};
use crate::crypto::{ChildKeys, Hash, KeyPair};
use crate::event::{ChildId, ChildSa, ChildUp, Event, Time, ZoneKeys};
use crate::negotiate::{zone_algorithm, zone_lengths};
use crate::secret::Secret;
use crate::wire::{
    CsaIdentity, ExchangeType, Header, Payload, TrafficSelector, ZoneMapPayload, ZoneTransform,
};
use pfkey::{Mode, ZoneMap};

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

impl IkeSa {
    pub(super) fn child_config<'a>(&self, cx: &Cx<'a>) -> Option<&'a ChildConfig> {
        self.connection(cx.config)?.child.as_ref()
    }

    pub(super) fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    pub(super) fn next_generation(&self, cx: &Cx<'_>) -> u32 {
        let known = self.peer.as_ref().and_then(|peer| cx.generations.get(peer));
        known.copied().unwrap_or(0).saturating_add(1)
    }

    pub(super) fn zone_policy<'a>(
        &self,
        config: &'a ChildConfig,
        cx: &Cx<'_>,
    ) -> Option<&'a ZonePolicy> {
        config.zones.as_ref().filter(|_| self.knows_zones(cx))
    }

    /// The two payloads that make a child a CSA.
    pub(super) fn zone_payloads(
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
        let lost = request
            .collision
            .as_ref()
            .is_some_and(|c| lowest < c.lowest);
        if let Some(child) = self.child(old) {
            child.state = ChildState::Up;
            child.replaced = true;
            if !lost && !closed {
                // The one the peer made meanwhile is its own to close, and doesn't seal.
                child.waiting = None;
            }
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

    /// docs/wire.md 3.2p.
    pub(super) fn distributes(&mut self, id: ChildId) -> bool {
        let composite = self.child(id).and_then(|child| child.composite.as_ref());
        composite.is_some_and(|composite| composite.role == ZoneRole::Home)
    }

    /// HA, having rekeyed: the new CSA is with its relay, or that was waited for long enough (docs/wire.md 3.2p).
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
        // Rekey order (docs/wire.md 3.2o, 3.2p): an HA that asked distributes first; whoever was asked waits for the
        // first good packet, or the Delete, for the other side opens only once it has the answer (RFC 7296 §2.8). That
        // holds for a plain child too.
        let zoned = composite.is_some();
        let rekeying = draft.rekeys.is_some();
        let asked = !draft.initiated;
        let distributes = zoned && role == ZoneRole::Home;
        let seal_now = !(rekeying && (asked || distributes));
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
        if zoned {
            cx.effects.push_back(Effect::Fresh(self.id, id));
        }
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
    pub(super) fn note_collision(&mut self, rekeys: Option<ChildId>, lowest: Vec<u8>) {
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

    /// Whether the answer that brings this child waits for its relay (docs/wire.md 3.2o): the HA's, to a
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

/// Only an explicit IV leaves a relay one of its own.
pub(super) fn writes(transforms: &[ZoneTransform]) -> bool {
    transforms
        .first()
        .and_then(zone_algorithm)
        .is_some_and(|algorithm| algorithm.is_explicit())
}

pub(super) fn replay_window(packets: u32) -> u32 {
    packets.clamp(pfkey::WINDOW_MIN, pfkey::WINDOW_MAX)
}
