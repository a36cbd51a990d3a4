// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The CSA exchanges of an end point, between its IKE SAs, an HA's book and an FA's store.

use super::{Endpoint, Orphan};
use crate::config::HomeConfig;
use crate::event::{ChildId, Event, Holding, IkeId, Output, RelayCsa, Time};
use crate::host::Host;
use crate::sa::child::Child;
use crate::sa::exchange::{CsaPurpose, CsaTask, Task};
use crate::sa::informational::is_claimed;
use crate::sa::IkeSa;
use crate::wire::{
    Ask, CsaData, CsaIdentity, ExchangeType, GroupKey, GroupStatus, Id, NotifyType, Payload,
    Revocation, ZoneMapPayload, MAX_GROUPS,
};
use crate::zones::access::Peer;
use crate::zones::foreign::By;
use crate::zones::group;
use crate::zones::home::{Act, Gift};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long a daemon has to answer [`Event::HandoverAsked`] before "nothing" is answered for it.
const HANDOVER_TIME: Duration = Duration::from_secs(1);

pub(super) fn peer_of(sa: &IkeSa) -> Option<Peer<'_>> {
    Some(Peer {
        id: sa.peer.as_ref()?,
        certificate: sa.certificate.as_deref(),
    })
}

fn ask_in(payloads: &[Payload]) -> Option<&Ask> {
    payloads.iter().find_map(|payload| match payload {
        Payload::CsaData(CsaData::Ask(ask)) => Some(ask),
        _ => None,
    })
}

fn group_key_in(payloads: &[Payload]) -> Option<&GroupKey> {
    payloads.iter().find_map(|payload| match payload {
        Payload::CsaData(CsaData::GroupKey(key)) => Some(key),
        _ => None,
    })
}

fn statuses_in(payloads: &[Payload]) -> &[GroupStatus] {
    let list = payloads.iter().find_map(|payload| match payload {
        Payload::CsaData(CsaData::Status(list)) => Some(list.as_slice()),
        _ => None,
    });
    list.unwrap_or_default()
}

fn revocation(sa: &IkeSa, child: &Child, generation: u32) -> Revocation {
    Revocation {
        spi: child.spi_out,
        destination: sa.path.remote.ip(),
        generation,
    }
}

fn same_packets(one: &Child, other: &Child) -> bool {
    (&one.local_ts, &one.remote_ts) == (&other.local_ts, &other.remote_ts)
}

impl Orphan {
    /// When it is over: its life-time, or a while after a fresh one took its place (docs/wire.md 3.2w).
    pub(super) fn ends(&self) -> Time {
        let expires = self.child.expires;
        self.replaced.map_or(expires, |at| at.min(expires))
    }
}

impl Endpoint {
    /// Whether there is a composite SA with that peer for the same packets that has an IKE SA.
    pub(super) fn another(&self, peer: &Id, child: &Child) -> bool {
        let sas = self.sas.values();
        let of = sas.filter(|sa| sa.is_up() && sa.peer.as_ref() == Some(peer));
        of.flat_map(|sa| &sa.children)
            .any(|one| one.composite.is_some() && same_packets(one, child))
    }

    /// A fresh CSA: those for the same packets whose IKE SA was lost are over once it is in use (docs/wire.md 3.2w).
    pub(super) fn replaces_orphans(&mut self, ike: IkeId, child: ChildId, now: Time) {
        let Some(sa) = self.sas.get(&ike) else { return };
        let Some(fresh) = sa.children.iter().find(|one| one.id == child) else {
            return;
        };
        let ends = now + self.config.linger * 3 / 2;
        for orphan in &mut self.orphans {
            if Some(&orphan.peer) == sa.peer.as_ref() && same_packets(&orphan.child, fresh) {
                orphan.replaced = Some(ends);
            }
        }
    }

    /// The IKE SA with the FA of that address, if that is who it is (docs/wire.md 3.2l).
    pub(super) fn agent(&self, fa: IpAddr) -> Option<IkeId> {
        let is = |sa: &IkeSa| {
            let may = peer_of(sa).is_some_and(|peer| peer.is_foreign_agent(&self.config, fa));
            may && sa.is_up() && sa.traits.zones
        };
        // The newest: of an older one the FA may know nothing any more.
        let mut newest_first = self.sas.values().rev();
        newest_first.find(|sa| is(sa)).map(|sa| sa.id)
    }

    pub(super) fn agent_up(&mut self, ike: IkeId, now: Time, host: &mut dyn Host) {
        let Some(peer) = self.sas.get(&ike).and_then(|sa| peer_of(sa)) else {
            return;
        };
        let config = &self.config;
        if peer.is_any_foreign_agent(config) {
            self.home.agent_up(|fa| peer.is_foreign_agent(config, fa));
            self.review_groups(now, host);
        }
    }

    /// HA: a CSA came up; its relays are to have it.
    pub(super) fn csa_raised(
        &mut self,
        ike: IkeId,
        child: ChildId,
        hold: Option<u32>,
        replaces: Option<ChildId>,
        now: Time,
    ) {
        let Some(sa) = self.sas.get(&ike) else { return };
        let Some(one) = sa.children.iter().find(|one| one.id == child) else {
            return;
        };
        let Some(composite) = &one.composite else {
            return;
        };
        if let Some(old) = replaces {
            self.home.replaced(old);
        }
        // Of a rekeying this HA asked for; when it answered, the peer closes the old one.
        let seal = replaces.filter(|_| hold.is_none());
        self.home.raised(
            child,
            ike,
            one.remote_ts.clone(),
            revocation(sa, one, composite.generation),
            hold,
            seal,
            (now + self.config.home.patience, one.expires),
        );
    }

    /// Does what the HA's book asks for.
    pub(super) fn act(&mut self, now: Time, host: &mut dyn Host) {
        let mut gifts: BTreeMap<(IpAddr, bool), Vec<ChildId>> = BTreeMap::new();
        let mut standbys: BTreeMap<ChildId, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut revocations: BTreeMap<IpAddr, Vec<Revocation>> = BTreeMap::new();
        let HomeConfig {
            farewell, renewal, ..
        } = self.config.home;
        for act in self.home.acts(now, farewell, renewal) {
            match act {
                Act::Give(fa, child, Gift::Standby) => {
                    standbys.entry(child).or_default().insert(fa);
                }
                Act::Give(fa, child, gift) => {
                    let standby = gift == Gift::Alone;
                    gifts.entry((fa, standby)).or_default().push(child);
                }
                Act::Revoke(fa, one) => {
                    revocations.entry(fa).or_default().push(one.revocation);
                }
                Act::Release(ike, id) => {
                    self.work(ike, now, host, |sa, cx| sa.release(id, cx));
                }
                Act::Seal(ike, child, old) => {
                    self.work(ike, now, host, |sa, cx| sa.seal_with(child, old, cx));
                }
                Act::Without(child, fa) => {
                    let event = Event::WithoutRelay { child, fa };
                    self.out.push_back(Output::Event(event));
                }
                Act::Renew(ike, child, known) => {
                    let event = Event::Renewing { child, known };
                    self.out.push_back(Output::Event(event));
                    self.work(ike, now, host, |sa, cx| {
                        sa.want(Task::RekeyChild(child, None), cx);
                    });
                }
            }
        }
        for (fa, child) in self.cast(standbys, now, host) {
            gifts.entry((fa, true)).or_default().push(child);
        }
        // As many in one message as it holds.
        for ((fa, standby), children) in gifts {
            for children in children.chunks(MAX_GROUPS) {
                self.give(fa, standby, children, now, host);
            }
        }
        for (fa, list) in revocations {
            for list in list.chunks(MAX_GROUPS) {
                let purpose = CsaPurpose::Revoke(list.to_vec(), fa);
                let payloads = vec![Payload::CsaData(CsaData::Revoke(list.to_vec()))];
                match self.agent(fa) {
                    Some(ike) => {
                        let task = CsaTask {
                            exchange: ExchangeType::CSA_REVOKE,
                            payloads,
                            purpose,
                        };
                        self.work(ike, now, host, |sa, cx| sa.want(Task::Csa(task), cx));
                    }
                    None => self.revoked(list, fa, false),
                }
            }
        }
        if self.home.has_acts() {
            self.act(now, host);
        }
    }

    fn give(
        &mut self,
        fa: IpAddr,
        standby: bool,
        children: &[ChildId],
        now: Time,
        host: &mut dyn Host,
    ) {
        let Some(agent) = self.agent(fa) else {
            for child in children {
                self.home.given(*child, fa, false);
            }
            return;
        };
        let (mut payloads, mut given) = (Vec::new(), Vec::new());
        for child in children {
            match self.group(*child, Some(fa), standby, now, host) {
                Some(group) => {
                    self.home.sent(*child, fa);
                    payloads.extend(group);
                    given.push(*child);
                }
                // Its IKE SA is lost; what takes its place will be given.
                None => self.home.given(*child, fa, false),
            }
        }
        if given.is_empty() {
            return;
        }
        let task = CsaTask {
            exchange: ExchangeType::CSA_DISTRIBUTE,
            payloads,
            purpose: CsaPurpose::Distribute(given, fa),
        };
        self.work(agent, now, host, |sa, cx| sa.want(Task::Csa(task), cx));
    }

    /// One CSA, as that FA gets it (docs/wire.md 3.2h); as many get it, without what is one's own (docs/wire.md 3.3f).
    pub(super) fn group(
        &mut self,
        child: ChildId,
        fa: Option<IpAddr>,
        standby: bool,
        now: Time,
        host: &mut dyn Host,
    ) -> Option<Vec<Payload>> {
        let ike = self.home.csa(child)?.ike;
        let number = fa.map_or(0, |_| self.home.next_number(child));
        let sa = self.sas.get(&ike)?;
        let one = sa.children.iter().find(|one| one.id == child)?;
        let composite = one.composite.as_ref()?;
        let (keys_in, keys_out) = composite.zone1.clone()?;
        let progress = host.progress(one.spi_in, one.spi_out);
        let may_write = composite.may_write && self.config.home.grant_write && number != 0;
        let left = one.expires.saturating_sub(now).as_secs().max(1);
        let csa = RelayCsa {
            identity: CsaIdentity {
                generation: composite.generation,
                mode: one.mode,
                relay_number: number,
                spi_in: one.spi_in,
                spi_out: one.spi_out,
                replay_window: composite.replay_window,
                sequence_in: progress.sequence_in,
                sequence_out: progress.sequence_out,
                lifetime: u32::try_from(left).unwrap_or(u32::MAX),
                may_write,
                standby,
                source: sa.path.local.ip(),
                destination: sa.path.remote.ip(),
            },
            ts_source: one.local_ts.clone(),
            ts_home: one.remote_ts.clone(),
            map: composite.map,
            transform: *composite.transforms.first()?,
            keys_out,
            keys_in,
        };
        let zones = ZoneMapPayload {
            map: composite.map,
            transforms: composite.transforms.iter().map(|t| vec![*t]).collect(),
        };
        let k_fa = fa.filter(|_| !composite.k_ho.is_empty()).map(|fa| {
            let key = crate::crypto::k_fa(composite.prf, &composite.k_ho, fa, composite.generation);
            (composite.prf, key)
        });
        Some(group::payloads(&csa, &zones, k_fa))
    }

    /// Answers a request of ML-IKE.
    pub(super) fn serve(
        &mut self,
        ike: IkeId,
        message_id: u32,
        exchange: ExchangeType,
        payloads: &[Payload],
        now: Time,
        host: &mut dyn Host,
    ) {
        let Some(sa) = self.sas.get(&ike) else { return };
        let Some(peer) = peer_of(sa) else { return };
        let from = sa.path.remote.ip();
        let by = By {
            ike,
            message_id,
            now,
        };
        let (config, out) = (&self.config, &mut self.out);
        let refused = vec![Payload::CsaData(CsaData::Status(vec![
            GroupStatus::Refused,
        ]))];
        let answer = match (exchange, ask_in(payloads)) {
            (ExchangeType::CSA_DISTRIBUTE, _) => match group_key_in(payloads) {
                Some(key) => {
                    let status = self.memberships.join(config, peer, key, ike);
                    vec![Payload::CsaData(CsaData::Status(vec![status]))]
                }
                None => self.foreign.distribute(config, peer, payloads, by, out),
            },
            // docs/wire.md 3.1m.
            (ExchangeType::CSA_REPORT, _) if peer.is_any_foreign_agent(config) => {
                self.reported(ike, payloads);
                Vec::new()
            }
            (ExchangeType::CSA_REPORT, _) => refused,
            (ExchangeType::CSA_REVOKE, _) => self.foreign.revoke(config, peer, payloads, by, out),
            (ExchangeType::CSA_REQUEST, Some(ask)) => {
                self.foreign.request(config, peer, ask, host, now)
            }
            (ExchangeType::CSA_HANDOVER, Some(ask)) => {
                // docs/wire.md 3.1h.
                if self.foreign.handover(config, peer, ask, from) {
                    out.push_back(Output::Event(Event::HandoverAsked {
                        ike,
                        message_id,
                        ask: ask.clone(),
                    }));
                    self.handovers.push((now + HANDOVER_TIME, ike, message_id));
                    return;
                }
                refused
            }
            // docs/wire.md 3.1e.
            (ExchangeType::NEIGHBOR_NOTIFY, _) if peer.is_any_foreign_agent(config) => {
                let list = payloads.iter().find_map(|payload| match payload {
                    Payload::CsaData(CsaData::Neighbours(list)) => Some(list.clone()),
                    _ => None,
                });
                if let Some(list) = list {
                    out.push_back(Output::Event(Event::Neighbours { ike, list }));
                }
                Vec::new()
            }
            (ExchangeType::NEIGHBOR_NOTIFY, _) => refused,
            (ExchangeType::INFORMATIONAL, _) => self.claimed(ike, payloads),
            _ => vec![Payload::notify(NotifyType::INVALID_SYNTAX, [])],
        };
        self.work(ike, now, host, |sa, cx| {
            sa.answer(exchange, message_id, &answer, cx);
        });
    }

    /// A peer that came back claims CSAs: those it has with this side are the new IKE SA's (docs/wire.md 3.2v).
    fn claimed(&mut self, ike: IkeId, payloads: &[Payload]) -> Vec<Payload> {
        let Some(peer) = self.peer(ike).cloned() else {
            return Vec::new();
        };
        let mut answer = Vec::new();
        for payload in payloads {
            let Payload::CsaIdentity(identity) = payload else {
                continue;
            };
            let orphan = self
                .orphans
                .iter()
                .position(|o| o.peer == peer && is_claimed(&o.child, identity))
                .map(|at| self.orphans.remove(at).child);
            let same = |sa: &&mut Box<IkeSa>| sa.peer.as_ref() == Some(&peer);
            let child = orphan.or_else(|| {
                let mut others = self.sas.values_mut().filter(same);
                others.find_map(|sa| sa.give_up(identity))
            });
            let (Some(child), Some(sa)) = (child, self.sas.get_mut(&ike)) else {
                continue;
            };
            self.out.push_back(Output::Event(Event::CsaClaimed {
                ike,
                child: child.id,
                spi_in: child.spi_in,
                spi_out: child.spi_out,
            }));
            self.home.inherit(child.id, ike);
            sa.children.push(child);
            answer.push(payload.clone());
        }
        answer
    }

    /// An answer of ML-IKE came, or none did.
    pub(super) fn answered(
        &mut self,
        ike: IkeId,
        purpose: CsaPurpose,
        payloads: Option<&[Payload]>,
        now: Time,
    ) {
        match purpose {
            CsaPurpose::Distribute(children, fa) => {
                let statuses = statuses_in(payloads.unwrap_or_default());
                for (at, child) in children.into_iter().enumerate() {
                    let status = statuses.get(at).copied();
                    self.out
                        .push_back(Output::Event(Event::Distributed { child, fa, status }));
                    let accepted = status == Some(GroupStatus::Accepted);
                    if payloads.is_none() {
                        self.home.unanswered(child, fa);
                    }
                    self.home.given(child, fa, accepted);
                }
                // No answer by an IKE SA whose place another has taken meanwhile.
                if payloads.is_none() && self.agent(fa).is_some_and(|other| other != ike) {
                    self.home.agent_up(|one| one == fa);
                }
            }
            CsaPurpose::Revoke(list, fa) => {
                let mut answer = payloads.unwrap_or_default().iter();
                // What stands in the answer it had; of the rest it has nothing.
                let confirmed = answer.any(|p| matches!(p, Payload::CsaData(CsaData::Revoke(_))));
                self.revoked(&list, fa, confirmed);
                // The IKE SA it was asked by is gone, and there is a newer one already.
                if payloads.is_none() && self.agent(fa).is_some_and(|other| other != ike) {
                    self.home.agent_up(|one| one == fa);
                }
            }
            CsaPurpose::Neighbours | CsaPurpose::Report => {}
            CsaPurpose::GroupKey(fa, epoch, member) => {
                let status = statuses_in(payloads.unwrap_or_default()).first();
                self.group_key_answered(fa, epoch, member, status.copied());
            }
            CsaPurpose::Request(home) => {
                let previous = self.peer(ike).cloned();
                let by = By {
                    ike,
                    message_id: u32::MAX,
                    now,
                };
                let given = match (previous, payloads) {
                    (Some(previous), Some(payloads)) => {
                        let (config, out) = (&self.config, &mut self.out);
                        self.foreign
                            .requested(config, home, payloads, &previous, by, out)
                    }
                    _ => false,
                };
                self.out
                    .push_back(Output::Event(Event::CsaRequested { home, given }));
            }
            CsaPurpose::Handover(home) => {
                let states = payloads.unwrap_or_default().iter().find_map(|p| match p {
                    Payload::CsaData(CsaData::SnoopStates(states)) => Some(states.clone()),
                    _ => None,
                });
                self.out
                    .push_back(Output::Event(Event::HandedOver { home, states }));
            }
        }
    }

    /// What came of a CSA_REVOKE.
    fn revoked(&mut self, list: &[Revocation], fa: IpAddr, confirmed: bool) {
        for one in list {
            self.home.revoked(one, fa, confirmed);
            self.out.push_back(Output::Event(Event::Revoked {
                fa,
                spi: one.spi,
                confirmed,
            }));
        }
    }

    /// HA: with whom zone 1 of its CSAs is.
    pub fn holdings(&self) -> impl Iterator<Item = Holding> + '_ {
        self.home.holdings()
    }

    pub(super) fn tick_zones(&mut self, now: Time, host: &mut dyn Host) {
        self.home.tick(now);
        self.foreign.tick(now, &mut self.out);
        self.tick_groups(now, host);
        let due: Vec<_> = self
            .handovers
            .iter()
            .filter(|(at, ..)| *at <= now)
            .copied()
            .collect();
        for (_, ike, id) in due {
            self.answer_handover(ike, id, Vec::new(), now, host);
        }
        let orphans = std::mem::take(&mut self.orphans);
        let (gone, kept): (Vec<Orphan>, Vec<Orphan>) =
            orphans.into_iter().partition(|o| o.ends() <= now);
        self.orphans = kept;
        self.expire(gone, now);
    }
}
