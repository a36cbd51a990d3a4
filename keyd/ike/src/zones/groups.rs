// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An HA's groups: the neighbours of each FA, whom one datagram brings a CSA (docs/wire.md §3.3), and what of it has
//! arrived.

use crate::crypto::{Cipher, CryptoError, GroupSealer, SEED_LEN};
use crate::event::{ChildId, IkeId, Time};
use crate::host::Host;
use crate::secret::Secret;
use crate::wire::{GroupKey, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What seals datagrams.
const CIPHER: Cipher = Cipher::Aes256Gcm;
/// How long an epoch in which something was said may last: as long as an IKE SA (docs/wire.md 3.3b).
const EPOCH_TIME: Duration = Duration::from_secs(8 * 3600);
/// When a datagram is sent again after the first time (docs/wire.md 3.3i).
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// How long members may take to report it (docs/wire.md 3.3j).
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a member can open what is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The key is on its way.
    Asked,
    Has,
    Refused,
}

/// A neighbour, by the IKE SA it was given the key over.
struct Member {
    ike: IkeId,
    state: State,
}

struct Group {
    wanted: BTreeSet<IpAddr>,
    members: BTreeMap<IpAddr, Member>,
    key: GroupKey,
    sealer: GroupSealer,
    since: Time,
}

/// A datagram that members are to report.
struct Sent {
    group: u32,
    epoch: u32,
    counter: u64,
    child: ChildId,
    waiting: BTreeSet<IpAddr>,
    at: Time,
    octets: Vec<u8>,
    to: Vec<SocketAddr>,
    /// How often it was sent again.
    again: usize,
}

impl Sent {
    fn due(&self) -> Time {
        self.at + AGAIN.get(self.again).copied().unwrap_or(PATIENCE)
    }
}

/// A key to give to a member.
pub(crate) struct Gift {
    pub member: IpAddr,
    pub ike: IkeId,
    pub key: GroupKey,
}

/// Something that is due.
pub(crate) enum Due {
    /// Send it again.
    Send(Vec<u8>, Vec<SocketAddr>),
    /// That one hasn't reported it.
    Missed(IpAddr, ChildId),
}

/// An HA's groups, by the FA whose neighbours they are.
#[derive(Default)]
pub(crate) struct Groups {
    groups: BTreeMap<IpAddr, Group>,
    sent: Vec<Sent>,
}

fn secret(host: &mut dyn Host, len: usize) -> Secret {
    Secret::new(crate::host::nonce(host, len))
}

/// A group's key of an epoch, and what seals with it.
fn epoch(
    group: u32,
    epoch: u32,
    host: &mut dyn Host,
) -> Result<(GroupKey, GroupSealer), CryptoError> {
    let keymat = secret(host, CIPHER.keymat_len());
    let seed = secret(host, SEED_LEN);
    let sealer = GroupSealer::new((group, epoch), CIPHER, &keymat, &seed)?;
    let (key, salt) = keymat
        .expose()
        .split_at_checked(CIPHER.key_len())
        .ok_or(CryptoError)?;
    let key = GroupKey {
        group,
        epoch,
        encr: CIPHER.encr().0,
        key: Secret::copy(key),
        salt: Secret::copy(salt),
        public: sealer.public(),
    };
    Ok((key, sealer))
}

impl Groups {
    /// A command: the neighbours of an FA. [`review`](Self::review) makes of it what there is to do.
    pub fn want(
        &mut self,
        fa: IpAddr,
        neighbours: BTreeSet<IpAddr>,
        now: Time,
        host: &mut dyn Host,
    ) {
        if let Some(group) = self.groups.get_mut(&fa) {
            group.wanted = neighbours;
            return;
        }
        let mut number = [0; 4];
        host.fill(&mut number);
        // Without a sealer there is no group, and CSAs go one by one.
        if let Ok((key, sealer)) = epoch(u32::from_be_bytes(number), 1, host) {
            let group = Group {
                wanted: neighbours,
                members: BTreeMap::new(),
                key,
                sealer,
                since: now,
            };
            self.groups.insert(fa, group);
        }
    }

    /// FAs whose neighbours are a group.
    pub fn all(&self) -> Vec<IpAddr> {
        self.groups.keys().copied().collect()
    }

    /// Compares the members of a group with who should be one: neighbours that there is an IKE SA with. Who leaves, and who
    /// joins when something was said, begins a new epoch, and so does age (docs/wire.md 3.3b).
    ///
    /// `over` is the IKE SA with an address, if it is an FA's; `lasts`, whether one is still up.
    pub fn review(
        &mut self,
        fa: IpAddr,
        over: impl Fn(IpAddr) -> Option<IkeId>,
        lasts: impl Fn(IkeId, IpAddr) -> bool,
        now: Time,
        host: &mut dyn Host,
    ) -> Vec<Gift> {
        let Some(group) = self.groups.get_mut(&fa) else {
            return Vec::new();
        };
        let before = group.members.len();
        let wanted = &group.wanted;
        group
            .members
            .retain(|member, of| wanted.contains(member) && lasts(of.ike, *member));
        let left = group.members.len() < before;
        let joins: Vec<(IpAddr, IkeId)> = wanted
            .iter()
            .filter(|one| !group.members.contains_key(one))
            .filter_map(|one| Some((*one, over(*one)?)))
            .collect();
        let said = group.sealer.counter() > 0;
        let old = said && now >= group.since + EPOCH_TIME;
        let mut gives: Vec<IpAddr> = joins.iter().map(|(member, _)| *member).collect();
        for (member, ike) in joins {
            let state = State::Asked;
            group.members.insert(member, Member { ike, state });
        }
        if left || old || said && !gives.is_empty() {
            let next = group.key.epoch.checked_add(1);
            let made = next.and_then(|next| epoch(group.key.group, next, host).ok());
            let Some((key, sealer)) = made else {
                // Nothing is said under the old one any more.
                self.groups.remove(&fa);
                return Vec::new();
            };
            (group.key, group.sealer, group.since) = (key, sealer, now);
            let members = group.members.values_mut();
            members.for_each(|member| member.state = State::Asked);
            gives = group.members.keys().copied().collect();
        }
        let gift = |member: &IpAddr| {
            Some(Gift {
                member: *member,
                ike: group.members.get(member)?.ike,
                key: group.key.clone(),
            })
        };
        let gifts = gives.iter().filter_map(gift).collect();
        if group.wanted.is_empty() {
            self.groups.remove(&fa);
        }
        gifts
    }

    /// An IKE SA's successor stands in its place.
    pub fn inherit(&mut self, old: IkeId, new: IkeId) {
        let groups = self.groups.values_mut();
        let members = groups.flat_map(|group| group.members.values_mut());
        members
            .filter(|member| member.ike == old)
            .for_each(|member| member.ike = new);
    }

    /// What a member said to the key of an epoch: the group's number, and how many members have the key now. `None` if it isn't
    /// asked about that one any more.
    pub fn answered(
        &mut self,
        fa: IpAddr,
        epoch: u32,
        member: IpAddr,
        accepted: bool,
    ) -> Option<(u32, usize)> {
        let group = self.groups.get_mut(&fa)?;
        let of = group.members.get_mut(&member)?;
        if group.key.epoch != epoch {
            return None;
        }
        of.state = if accepted { State::Has } else { State::Refused };
        let members = group.members.values();
        let count = members.filter(|one| one.state == State::Has).count();
        Some((group.key.group, count))
    }

    /// Those of `asked` that a datagram to the neighbours of `fa` would bring a CSA: none, where one of the group is not
    /// among the CSA's own `standbys`, or where the datagram would be for one of many (docs/wire.md 3.3h).
    pub fn takers(
        &self,
        fa: IpAddr,
        asked: &BTreeSet<IpAddr>,
        standbys: &[IpAddr],
    ) -> BTreeSet<IpAddr> {
        let Some(group) = self.groups.get(&fa) else {
            return BTreeSet::new();
        };
        // Who was asked may have the key already.
        let mut may = group
            .members
            .iter()
            .filter(|(_, of)| of.state != State::Refused);
        if !may.all(|(member, _)| standbys.contains(member)) {
            return BTreeSet::new();
        }
        let has = group.members.iter();
        let has: BTreeSet<IpAddr> = has
            .filter(|(_, of)| of.state == State::Has)
            .map(|(member, _)| *member)
            .collect();
        let takers: BTreeSet<IpAddr> = has.intersection(asked).copied().collect();
        if takers.len() > 1 || takers == has {
            takers
        } else {
            BTreeSet::new()
        }
    }

    /// Seals a datagram to the neighbours of `fa`, and remembers who is to report it.
    ///
    /// # Errors
    /// When there is no such group, or its counter is used up.
    pub fn seal(
        &mut self,
        fa: IpAddr,
        payloads: &[u8],
        (child, takers): (ChildId, BTreeSet<IpAddr>),
        to: Vec<SocketAddr>,
        now: Time,
    ) -> Result<Vec<u8>, CryptoError> {
        let group = self.groups.get_mut(&fa).ok_or(CryptoError)?;
        let counter = group.sealer.counter();
        let octets = group.sealer.seal(payloads)?;
        self.sent.push(Sent {
            group: group.key.group,
            epoch: group.key.epoch,
            counter,
            child,
            waiting: takers,
            at: now,
            octets: octets.clone(),
            to,
            again: 0,
        });
        Ok(octets)
    }

    /// CSA_REPORT over an IKE SA: which CSA each of its addresses has now.
    pub fn reported(&mut self, ike: IkeId, reports: &[Report]) -> Vec<(IpAddr, ChildId)> {
        let mut taken = Vec::new();
        for group in self.groups.values() {
            let of = reports
                .iter()
                .find(|one| (one.group, one.epoch) == (group.key.group, group.key.epoch));
            let Some(report) = of else { continue };
            let members = group.members.iter().filter(|(_, of)| of.ike == ike);
            for (member, _) in members {
                let sent = self.sent.iter_mut().filter(|sent| {
                    (sent.group, sent.epoch) == (report.group, report.epoch)
                        && report.has(sent.counter)
                });
                for sent in sent {
                    if sent.waiting.remove(member) {
                        taken.push((*member, sent.child));
                    }
                }
            }
        }
        taken
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.sent.iter().map(Sent::due).min()
    }

    /// What is due. A datagram of an epoch that is over isn't sent again: who has the new key alone couldn't open it, and
    /// who left shall not.
    pub fn tick(&mut self, now: Time) -> Vec<Due> {
        let current: BTreeSet<(u32, u32)> = self
            .groups
            .values()
            .map(|group| (group.key.group, group.key.epoch))
            .collect();
        let mut due = Vec::new();
        self.sent.retain_mut(|sent| {
            if now < sent.due() {
                return true;
            }
            if sent.again < AGAIN.len() {
                sent.again += 1;
                if current.contains(&(sent.group, sent.epoch)) {
                    due.push(Due::Send(sent.octets.clone(), sent.to.clone()));
                }
                return true;
            }
            let missed = sent.waiting.iter();
            due.extend(missed.map(|member| Due::Missed(*member, sent.child)));
            false
        });
        due
    }

    /// The groups: the FA, number, epoch, members that have the key, datagrams sent in this epoch.
    pub fn list(&self) -> impl Iterator<Item = (IpAddr, u32, u32, Vec<IpAddr>, u64)> + '_ {
        self.groups.iter().map(|(fa, group)| {
            let has = group
                .members
                .iter()
                .filter(|(_, of)| of.state == State::Has);
            let has = has.map(|(member, _)| *member).collect();
            (
                *fa,
                group.key.group,
                group.key.epoch,
                has,
                group.sealer.counter(),
            )
        })
    }
}
