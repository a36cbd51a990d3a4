// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD of an end point: a home agent's groups and a member's part in them (docs/wire.md 3.2u).

use super::zones::peer_of;
use super::Endpoint;
use crate::config::Delivery;
use crate::crypto::GroupSealer;
use crate::event::{ChildId, Datagram, Event, GroupHeard, IkeId, Output, Time};
use crate::host::Host;
use crate::sa::exchange::{CsaPurpose, CsaTask, Task};
use crate::wire::{
    decode_payloads, encode_payloads, CsaData, ExchangeType, GroupStatus, Id, Payload, PayloadType,
    MAX_GROUPS,
};
use crate::zones::access::Peer;
use crate::zones::foreign::By;
use crate::zones::group;
use crate::zones::groups::Due;
use crate::zones::member::Heard;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often epochs are looked at for their age.
const REVIEW: Duration = Duration::from_secs(600);

impl Endpoint {
    /// HA: who the neighbours of an FA are. With [`multicast`](crate::config::HomeConfig::multicast) they are a group, and
    /// get CSAs of hosts there as standbys by one datagram (docs/wire.md 3.3a).
    pub fn set_neighbours(
        &mut self,
        fa: IpAddr,
        neighbours: &[IpAddr],
        now: Time,
        host: &mut dyn Host,
    ) {
        if self.config.home.multicast.is_none() {
            return;
        }
        let neighbours = neighbours.iter().copied().collect();
        self.groups.want(fa, neighbours, now, host);
        self.review_group(fa, now, host);
        self.review.get_or_insert(now + REVIEW);
        self.settle(now, host);
    }

    /// HA: its groups: the FA, the group's number, epoch, members that have the key, datagrams sent in this epoch.
    pub fn groups(&self) -> impl Iterator<Item = (IpAddr, u32, u32, Vec<IpAddr>, u64)> + '_ {
        self.groups.list()
    }

    /// FA: the groups it is in: the HA, the group's number, epoch, the greatest counter opened.
    pub fn memberships(&self) -> impl Iterator<Item = (&Id, u32, u32, Option<u64>)> + '_ {
        self.memberships.list()
    }

    /// An IKE SA is no more: nor are members those who were given a group's key over it (docs/wire.md 3.3b).
    pub(super) fn left(&mut self, ike: IkeId, peer: Option<&Id>, now: Time, host: &mut dyn Host) {
        self.memberships.leave(ike);
        let is_agent = |id| {
            let certificate = None;
            Peer { id, certificate }.is_any_foreign_agent(&self.config)
        };
        if peer.is_some_and(is_agent) {
            self.review_groups(now, host);
        }
    }

    pub(super) fn review_groups(&mut self, now: Time, host: &mut dyn Host) {
        for fa in self.groups.all() {
            self.review_group(fa, now, host);
        }
    }

    /// Gives a group's key to those that lack it (docs/wire.md 3.3b).
    fn review_group(&mut self, fa: IpAddr, now: Time, host: &mut dyn Host) {
        let mut groups = std::mem::take(&mut self.groups);
        let lasts = |ike: IkeId, member| {
            self.sas.get(&ike).is_some_and(|sa| {
                let is =
                    peer_of(sa).is_some_and(|peer| peer.is_foreign_agent(&self.config, member));
                is && !sa.is_dead()
            })
        };
        let gifts = groups.review(fa, |member| self.agent(member), lasts, now, host);
        self.groups = groups;
        for gift in gifts {
            let task = CsaTask {
                exchange: ExchangeType::CSA_DISTRIBUTE,
                purpose: CsaPurpose::GroupKey(fa, gift.key.epoch, gift.member),
                payloads: vec![Payload::CsaData(CsaData::GroupKey(gift.key))],
            };
            self.work(gift.ike, now, host, |sa, cx| sa.want(Task::Csa(task), cx));
        }
    }

    pub(super) fn group_key_answered(
        &mut self,
        fa: IpAddr,
        epoch: u32,
        member: IpAddr,
        status: Option<GroupStatus>,
    ) {
        let accepted = status == Some(GroupStatus::Accepted);
        let Some(group) = self.groups.answered(fa, epoch, member, accepted) else {
            return;
        };
        let group = accepted.then_some(group);
        self.out
            .push_back(Output::Event(Event::GroupJoined { member, fa, group }));
    }

    /// Sends what one datagram brings to several, and gives back what goes to one alone (docs/wire.md 3.3h).
    pub(super) fn cast(
        &mut self,
        standbys: BTreeMap<ChildId, BTreeSet<IpAddr>>,
        now: Time,
        host: &mut dyn Host,
    ) -> Vec<(IpAddr, ChildId)> {
        let mut alone = Vec::new();
        for (child, asked) in standbys {
            let (current, all) = self.home.places(child);
            let takers = current.map(|fa| (fa, self.groups.takers(fa, &asked, &all)));
            let sent = takers
                .filter(|(_, takers)| !takers.is_empty())
                .filter(|(fa, takers)| self.cast_one(*fa, takers, child, now, host));
            let reached = sent.map(|(_, takers)| takers).unwrap_or_default();
            let others = asked.difference(&reached);
            alone.extend(others.map(|fa| (*fa, child)));
        }
        alone
    }

    /// Sends a CSA to members of the group of an FA's neighbours. False if it can't be sealed, or is longer than a datagram
    /// may be (docs/wire.md 3.3k).
    fn cast_one(
        &mut self,
        fa: IpAddr,
        takers: &BTreeSet<IpAddr>,
        child: ChildId,
        now: Time,
        host: &mut dyn Host,
    ) -> bool {
        let Some(multicast) = self.config.home.multicast else {
            return false;
        };
        let Some(payloads) = self.group(child, None, true, now, host) else {
            return false;
        };
        let octets = zeroize::Zeroizing::new(encode_payloads(&payloads).1);
        if octets.len() + GroupSealer::OVERHEAD > self.config.fragment_size {
            return false;
        }
        let to: Vec<SocketAddr> = match multicast.to {
            Delivery::Group(group) => vec![group],
            Delivery::Copies(port) => takers.iter().map(|one| (*one, port).into()).collect(),
        };
        let who = (child, takers.clone());
        let Ok(datagram) = self.groups.seal(fa, &octets, who, to.clone(), now) else {
            return false;
        };
        takers.iter().for_each(|fa| self.home.cast(child, *fa));
        self.out.push_back(Output::Event(Event::Predistributed {
            fa,
            child,
            members: takers.len(),
            octets: datagram.len(),
        }));
        self.send_to_all(&datagram, &to);
        true
    }

    fn send_to_all(&mut self, octets: &[u8], to: &[SocketAddr]) {
        let Some(multicast) = self.config.home.multicast else {
            return;
        };
        let datagram = |to: &SocketAddr| {
            Output::Send(Datagram {
                from: multicast.from,
                to: *to,
                octets: octets.to_vec(),
            })
        };
        self.out.extend(to.iter().map(datagram));
    }

    /// HA: CSA_REPORT (docs/wire.md 3.3j).
    pub(super) fn reported(&mut self, ike: IkeId, payloads: &[Payload]) {
        for payload in payloads {
            let Payload::CsaData(CsaData::Report(list)) = payload else {
                continue;
            };
            for (fa, child) in self.groups.reported(ike, list) {
                if self.home.cast_taken(child, fa) {
                    let status = Some(GroupStatus::Accepted);
                    let event = Event::Distributed { child, fa, status };
                    self.out.push_back(Output::Event(event));
                }
            }
        }
    }

    /// FA: a datagram came to the port of multicast PKD.
    pub(super) fn heard(&mut self, datagram: &[u8], now: Time) {
        let event = match self.memberships.open(datagram) {
            Heard::Foreign => return,
            Heard::Again => GroupHeard::Again,
            Heard::Forged(why) => GroupHeard::Forged(why),
            Heard::Said(octets, agent, place) => {
                let statuses = self.take_all(octets.expose(), &agent, now);
                let (taken, refused): (Vec<_>, Vec<_>) = statuses
                    .into_iter()
                    .partition(|status| *status == GroupStatus::Accepted);
                let all = refused.is_empty() && !taken.is_empty();
                self.memberships.note(place, all, now);
                GroupHeard::Said {
                    agent,
                    taken: taken.len(),
                    refused,
                }
            }
        };
        self.out.push_back(Output::Event(Event::GroupHeard(event)));
    }

    /// What an HA's datagram holds: what becomes of each CSA in it (docs/wire.md 3.3f).
    fn take_all(&mut self, octets: &[u8], agent: &Id, now: Time) -> Vec<GroupStatus> {
        let Ok(payloads) = decode_payloads(PayloadType::CSA_IDENTITY, octets, true) else {
            return vec![GroupStatus::Malformed];
        };
        let peer = Peer {
            id: agent,
            certificate: None,
        };
        // It came by no IKE SA.
        let by = By {
            ike: IkeId(0),
            message_id: u32::MAX,
            now,
        };
        let (config, out) = (&self.config, &mut self.out);
        let groups = group::split(&payloads).into_iter().take(MAX_GROUPS);
        groups
            .map(|one| self.foreign.predistribute(config, peer, one, by, out))
            .collect()
    }

    pub(super) fn tick_groups(&mut self, now: Time, host: &mut dyn Host) {
        if self.review.is_some_and(|at| at <= now) {
            self.review_groups(now, host);
            self.review = (!self.groups.all().is_empty()).then_some(now + REVIEW);
        }
        for due in self.groups.tick(now) {
            match due {
                Due::Send(octets, to) => self.send_to_all(&octets, &to),
                Due::Missed(fa, child) => {
                    if self.home.cast_missed(child, fa) {
                        let event = Event::PredistributionMissed { child, fa };
                        self.out.push_back(Output::Event(event));
                    }
                }
            }
        }
        let mut reports: BTreeMap<IkeId, Vec<_>> = BTreeMap::new();
        for (ike, report) in self.memberships.reports(now) {
            reports.entry(ike).or_default().push(report);
        }
        for (ike, list) in reports {
            for list in list.chunks(MAX_GROUPS) {
                let task = CsaTask {
                    exchange: ExchangeType::CSA_REPORT,
                    payloads: vec![Payload::CsaData(CsaData::Report(list.to_vec()))],
                    purpose: CsaPurpose::Report,
                };
                self.work(ike, now, host, |sa, cx| sa.want(Task::Csa(task), cx));
            }
        }
    }
}
