// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whom an HA's CSAs are with: the current FA of each host, its standbys, and who is on the way in or out.

use super::departures::{Departure, Departures};
use crate::config::Renewal;
use crate::event::{ChildId, Custody, Holding, IkeId, Place, Time};
use crate::wire::{Revocation, TrafficSelector};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long a fresh CSA is waited for before it is asked for again.
const RENEWAL_TIME: Duration = Duration::from_secs(60);

/// A host's FAs.
#[derive(Clone, Default)]
struct Relays {
    current: Option<IpAddr>,
    standbys: Vec<IpAddr>,
}

impl Relays {
    /// Whether that FA is to have the host's CSAs.
    fn wants(&self, fa: IpAddr) -> bool {
        self.current == Some(fa) || self.standbys.contains(&fa)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Sending,
    /// A datagram to many went out with it; nobody has said yet that it came.
    Cast,
    Held(By),
    /// It is to be revoked a while from now: its host went to another one.
    Leaving(By),
    Revoking,
    /// It couldn't be reached, or refused.
    Failed,
}

/// How it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// To that FA alone, with K_FA.
    Itself,
    /// By a datagram to many, without (docs/wire.md 3.3f).
    Datagram,
}

impl Holder {
    fn custody(self) -> Custody {
        match self {
            Holder::Sending => Custody::Sending,
            Holder::Cast => Custody::Cast,
            Holder::Held(by) => Custody::Held(by == By::Itself),
            Holder::Leaving(_) => Custody::Leaving,
            Holder::Revoking => Custody::Revoking,
            Holder::Failed => Custody::Failed,
        }
    }
}

/// A CSA of this HA.
pub(crate) struct Held {
    pub ike: IkeId,
    home: Vec<TrafficSelector>,
    revocation: Revocation,
    /// When its life is over, and its keys are good for nothing.
    ends: Time,
    /// Never given twice under one CSA.
    next_number: u16,
    holders: BTreeMap<IpAddr, Holder>,
    /// Those that may have it, until they say that they have it from this HA: a previous FA may have handed it on (DKM), or
    /// no answer came.
    perhaps: BTreeSet<IpAddr>,
    /// All that were ever sent it, or may have it from another: zone 1's keys are known there, whatever was revoked.
    had: BTreeSet<IpAddr>,
    /// A fresh one was asked for in its place.
    renewed: bool,
    /// There is a fresh one.
    replaced: bool,
    /// Somebody had it who is an FA of this HA no more.
    betrayed: bool,
    /// The answer that waits for the current FA.
    hold: Option<u32>,
    /// The CSA in whose place it seals, once the current FA has it.
    seal: Option<ChildId>,
}

impl Held {
    /// Those that may have it, and of which nothing better is known.
    fn unsure(&self) -> impl Iterator<Item = &IpAddr> {
        let silent = |fa: &&IpAddr| matches!(self.holders.get(*fa), None | Some(Holder::Failed));
        self.perhaps.iter().filter(silent)
    }

    /// Whether somebody had it who is to have it no more.
    fn knows_who_left(&self, relays: &Relays) -> bool {
        // Not one that still opens what follows its host.
        let told = |fa: &IpAddr| {
            let holder = self.holders.get(fa);
            let told = matches!(holder, None | Some(Holder::Revoking | Holder::Failed));
            told && !self.perhaps.contains(fa)
        };
        let mut had = self.had.iter();
        had.any(|fa| !relays.wants(*fa) && told(fa))
    }

    fn departure(&self) -> Departure {
        let first = self.home.first().map(|ts| ts.start);
        Departure {
            revocation: self.revocation,
            home: first.unwrap_or(self.revocation.destination),
            ends: self.ends,
        }
    }
}

/// As what an FA gets a CSA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Gift {
    /// The host is there.
    Current,
    /// The host may go there; others may get it by the same datagram.
    Standby,
    /// The host may go there, and no datagram brought it.
    Alone,
}

/// Something for the end point to do.
pub(crate) enum Act {
    /// Give it to that FA, and as what.
    Give(IpAddr, ChildId, Gift),
    Revoke(IpAddr, Departure),
    /// Send the answer held back.
    Release(IkeId, u32),
    /// Seal with the first, close the second.
    Seal(IkeId, ChildId, ChildId),
    /// It was waited for that FA, in vain.
    Without(ChildId, IpAddr),
    /// Others know it than should, so many in all: a fresh one in its place.
    Renew(IkeId, ChildId, usize),
}

/// An HA's book.
#[derive(Default)]
pub(crate) struct Home {
    relays: BTreeMap<IpAddr, Relays>,
    csas: BTreeMap<ChildId, Held>,
    waiting: Vec<(Time, ChildId)>,
    revoke_later: Vec<(Time, IpAddr, Departure)>,
    departures: Departures,
    /// Who is leaving with which CSA, and until when; none until the time is known.
    leaving: Vec<(Option<Time>, IpAddr, ChildId)>,
    /// CSAs that perhaps too many know.
    doubtful: Vec<ChildId>,
    /// When to ask again for a fresh CSA that was asked for.
    renewals: Vec<(Time, ChildId)>,
    acts: Vec<Act>,
}

impl Home {
    /// What is to be done now. Who begins to leave has that time yet.
    pub fn acts(&mut self, now: Time, farewell: Duration, renewal: Renewal) -> Vec<Act> {
        for (until, ..) in &mut self.leaving {
            until.get_or_insert(now + farewell);
        }
        self.renew(renewal, now);
        let acts = std::mem::take(&mut self.acts);
        for act in &acts {
            if let Act::Revoke(fa, departure) = act {
                self.departures.asked(*fa, *departure, now);
            }
        }
        acts
    }

    /// Asks for a fresh CSA in place of each that is known to who is to open nothing any more, as the policy has it
    /// (docs/wire.md 3.5a).
    fn renew(&mut self, policy: Renewal, now: Time) {
        for child in std::mem::take(&mut self.doubtful) {
            let relays = self.relays_of_child(child);
            let Some(held) = self.csas.get_mut(&child) else {
                continue;
            };
            let gone = held.knows_who_left(&relays);
            let many = policy.holders.is_some_and(|most| held.had.len() > most);
            let wanted = held.betrayed || gone && (policy.left || many);
            if wanted && !held.renewed && !held.replaced {
                held.renewed = true;
                self.renewals.push((now + RENEWAL_TIME, child));
                self.acts.push(Act::Renew(held.ike, child, held.had.len()));
            }
        }
    }

    /// That FA is none of this HA's any more: it is told to drop what it has, and what it knew gets fresh keys
    /// (docs/wire.md 3.5b).
    pub fn expel(&mut self, fa: IpAddr) {
        for relays in self.relays.values_mut() {
            relays.current = relays.current.filter(|one| *one != fa);
            relays.standbys.retain(|one| *one != fa);
        }
        for (child, held) in &mut self.csas {
            if held.had.contains(&fa) {
                held.betrayed = true;
                self.doubtful.push(*child);
            }
            let may_have = held.perhaps.remove(&fa);
            let departure = held.departure();
            match held.holders.get(&fa) {
                Some(Holder::Revoking) => {}
                Some(Holder::Failed) | None if !may_have => {
                    held.holders.remove(&fa);
                }
                _ => {
                    held.holders.insert(fa, Holder::Revoking);
                    self.acts.push(Act::Revoke(fa, departure));
                }
            }
        }
        self.leaving.retain(|(_, of, _)| *of != fa);
        let waiting: Vec<ChildId> = self.waiting.iter().map(|(_, child)| *child).collect();
        for child in waiting {
            self.sync(child);
        }
    }

    /// No answer came from an FA that a CSA was sent to: it may have it.
    pub fn unanswered(&mut self, child: ChildId, fa: IpAddr) {
        if let Some(held) = self.csas.get_mut(&child) {
            held.perhaps.insert(fa);
        }
    }

    /// A CSA was sent to that FA: from now on it may know it.
    pub fn sent(&mut self, child: ChildId, fa: IpAddr) {
        if let Some(held) = self.csas.get_mut(&child) {
            held.had.insert(fa);
        }
    }

    /// The FA a host has come to may have its CSAs from the one before (docs/wire.md 3.2k).
    pub fn handed_on(&mut self, home: IpAddr, fa: IpAddr) {
        for held in self.csas.values_mut() {
            let of = held.home.iter().any(|ts| ts.holds(home));
            let holder = held.holders.get(&fa);
            let unsure = matches!(
                holder,
                None | Some(Holder::Sending | Holder::Failed | Holder::Revoking)
            );
            if of && unsure {
                held.perhaps.insert(fa);
                held.had.insert(fa);
            }
        }
    }

    pub fn has_acts(&self) -> bool {
        let timeless = self.leaving.iter().any(|(until, ..)| until.is_none());
        timeless || !self.acts.is_empty() || !self.doubtful.is_empty()
    }

    pub fn csa(&self, child: ChildId) -> Option<&Held> {
        self.csas.get(&child)
    }

    /// A command: where a host is, and where it may go next.
    pub fn set_relays(&mut self, home: IpAddr, current: Option<IpAddr>, standbys: Vec<IpAddr>) {
        self.relays.insert(home, Relays { current, standbys });
        let concerned = self.csas.iter();
        let concerned: Vec<_> = concerned
            .filter(|(_, held)| held.home.iter().any(|ts| ts.holds(home)))
            .map(|(id, _)| *id)
            .collect();
        for child in concerned {
            if let Some(held) = self.csas.get_mut(&child) {
                held.holders.retain(|_, holder| *holder != Holder::Failed);
            }
            self.sync(child);
        }
    }

    fn relays_of(&self, home: &[TrafficSelector]) -> Relays {
        relays_of(&self.relays, home)
    }

    /// A CSA came up.
    #[expect(clippy::too_many_arguments, reason = "it has one caller")]
    pub fn raised(
        &mut self,
        child: ChildId,
        ike: IkeId,
        home: Vec<TrafficSelector>,
        revocation: Revocation,
        hold: Option<u32>,
        seal: Option<ChildId>,
        (patience, ends): (Time, Time),
    ) {
        let held = Held {
            ike,
            home,
            revocation,
            ends,
            next_number: 1,
            holders: BTreeMap::new(),
            perhaps: BTreeSet::new(),
            had: BTreeSet::new(),
            renewed: false,
            replaced: false,
            betrayed: false,
            hold,
            seal,
        };
        if hold.is_some() || seal.is_some() {
            self.waiting.push((patience, child));
        }
        self.csas.insert(child, held);
        self.sync(child);
    }

    /// There is a fresh one in its place.
    pub fn replaced(&mut self, child: ChildId) {
        if let Some(held) = self.csas.get_mut(&child) {
            held.replaced = true;
        }
    }

    /// A CSA is of another IKE SA now.
    pub fn inherit(&mut self, child: ChildId, ike: IkeId) {
        if let Some(held) = self.csas.get_mut(&child) {
            held.ike = ike;
        }
    }

    /// A CSA is no more: after `at` its relays are told.
    pub fn gone(&mut self, child: ChildId, at: Time) {
        let Some(held) = self.csas.remove(&child) else {
            return;
        };
        self.release(&held, child);
        let told = held
            .holders
            .iter()
            .filter(|(_, holder)| !matches!(holder, Holder::Failed | Holder::Revoking));
        let told = told.map(|(fa, _)| fa).chain(held.unsure());
        let told = told.map(|fa| (at, *fa, held.departure()));
        self.revoke_later.extend(told);
    }

    /// The number of the next relay under a CSA; 0 when there are no more (docs/wire.md 1.5c).
    pub fn next_number(&mut self, child: ChildId) -> u16 {
        let Some(held) = self.csas.get_mut(&child) else {
            return 0;
        };
        let number = held.next_number;
        if number > pfkey::Relay::NUMBER_MAX {
            return 0;
        }
        held.next_number += 1;
        number
    }

    /// Compares where a CSA is with where it should be. One step at a time with each FA: what is on its way is waited
    /// for, so a DISTRIBUTE and a REVOKE of one CSA never pass each other.
    fn sync(&mut self, child: ChildId) {
        let Some(held) = self.csas.get(&child) else {
            return;
        };
        let relays = self.relays_of(&held.home);
        let Some(held) = self.csas.get_mut(&child) else {
            return;
        };
        let wanted = relays
            .current
            .into_iter()
            .map(|fa| (fa, false))
            .chain(relays.standbys.iter().map(|fa| (*fa, true)));
        let mut wanted: Vec<(IpAddr, bool)> = wanted.collect();
        wanted.dedup_by_key(|(fa, _)| *fa);
        for (fa, standby) in &wanted {
            match held.holders.get_mut(fa) {
                None => {}
                // The host came back before it was revoked.
                Some(holder @ Holder::Leaving(_)) => {
                    if let Holder::Leaving(by) = *holder {
                        *holder = Holder::Held(by);
                    }
                    self.leaving.retain(|(_, of, id)| (of, *id) != (fa, child));
                }
                Some(_) => {}
            }
            // A standby becomes current with its host's registration; it isn't given the CSA again for that, unless it lacks
            // K_FA (docs/wire.md 3.3h).
            let gift = match held.holders.get(fa) {
                None if *standby => Gift::Standby,
                None => Gift::Current,
                Some(Holder::Cast | Holder::Held(By::Datagram)) if !standby => Gift::Current,
                Some(_) => continue,
            };
            held.holders.insert(*fa, Holder::Sending);
            self.acts.push(Act::Give(*fa, child, gift));
        }
        // The one that is left is told once the new one has it (docs/wire.md 3.2k).
        let settled = relays.current.is_none_or(|fa| {
            let holder = held.holders.get(&fa);
            matches!(holder, Some(Holder::Held(_) | Holder::Failed))
        });
        let mut leaves = Vec::new();
        // It is told to drop what it may have, as one that it was given.
        let unsure: Vec<IpAddr> = held.unsure().copied().collect();
        for fa in unsure {
            if settled && !relays.wants(fa) {
                held.holders.insert(fa, Holder::Cast);
                held.perhaps.remove(&fa);
            }
        }
        for (fa, holder) in &mut held.holders {
            let unwanted = !wanted.iter().any(|(wanted, _)| wanted == fa);
            let by = match holder {
                Holder::Held(by) => *by,
                // It may have it.
                Holder::Cast => By::Datagram,
                _ => continue,
            };
            if !(unwanted && settled) {
                continue;
            }
            if relays.current.is_some() {
                *holder = Holder::Leaving(by);
                self.leaving.push((None, *fa, child));
            } else {
                *holder = Holder::Revoking;
                leaves.push(*fa);
            }
        }
        if held.knows_who_left(&relays) {
            self.doubtful.push(child);
        }
        let departure = held.departure();
        let leaves = leaves.into_iter().map(|fa| Act::Revoke(fa, departure));
        self.acts.extend(leaves);
        // docs/wire.md 3.2q.
        let nobody = match relays.current {
            None => true,
            Some(fa) => !matches!(
                held.holders.get(&fa),
                Some(Holder::Sending | Holder::Revoking)
            ),
        };
        if nobody {
            self.complete(child);
        }
    }

    /// What waited for the current FA goes on.
    fn complete(&mut self, child: ChildId) {
        let Some(held) = self.csas.get_mut(&child) else {
            return;
        };
        if let Some(id) = held.hold.take() {
            self.acts.push(Act::Release(held.ike, id));
        }
        if let Some(old) = held.seal.take() {
            self.acts.push(Act::Seal(held.ike, child, old));
        }
        self.waiting.retain(|(_, waiting)| *waiting != child);
    }

    fn release(&mut self, held: &Held, child: ChildId) {
        if let Some(id) = held.hold {
            self.acts.push(Act::Release(held.ike, id));
        }
        self.waiting.retain(|(_, waiting)| *waiting != child);
    }

    /// What came of giving it; `false` too when there is no IKE SA with the FA.
    pub fn given(&mut self, child: ChildId, fa: IpAddr, accepted: bool) {
        if let Some(held) = self.csas.get_mut(&child) {
            let holder = if accepted {
                Holder::Held(By::Itself)
            } else {
                Holder::Failed
            };
            held.holders.insert(fa, holder);
            if accepted {
                held.perhaps.remove(&fa);
                // It is to have it again.
                self.departures.over(fa, &held.revocation);
            }
            let waited = held.hold.is_some() || held.seal.is_some();
            let current = self.relays_of_child(child).current == Some(fa);
            if waited && current && !accepted {
                self.acts.push(Act::Without(child, fa));
            }
            self.sync(child);
        }
    }

    /// A datagram brings it to that FA, to be reported.
    pub fn cast(&mut self, child: ChildId, fa: IpAddr) {
        if let Some(held) = self.csas.get_mut(&child) {
            held.holders.insert(fa, Holder::Cast);
            held.had.insert(fa);
        }
    }

    /// An FA has what a datagram brought: whether that was still to be heard of.
    pub fn cast_taken(&mut self, child: ChildId, fa: IpAddr) -> bool {
        let held = self.csas.get_mut(&child);
        let holder = held.and_then(|held| held.holders.get_mut(&fa));
        let Some(holder @ Holder::Cast) = holder else {
            return false;
        };
        *holder = Holder::Held(By::Datagram);
        true
    }

    /// An FA doesn't say that it has what a datagram brought: it gets it alone (docs/wire.md 3.3j). Whether it does.
    pub fn cast_missed(&mut self, child: ChildId, fa: IpAddr) -> bool {
        let held = self.csas.get_mut(&child);
        let holder = held.and_then(|held| held.holders.get_mut(&fa));
        let Some(holder @ Holder::Cast) = holder else {
            return false;
        };
        *holder = Holder::Sending;
        self.acts.push(Act::Give(fa, child, Gift::Alone));
        true
    }

    /// The FA a CSA's host is at, and those it may go to next.
    pub fn places(&self, child: ChildId) -> (Option<IpAddr>, Vec<IpAddr>) {
        let relays = self.relays_of_child(child);
        (relays.current, relays.standbys)
    }

    fn relays_of_child(&self, child: ChildId) -> Relays {
        let held = self.csas.get(&child);
        held.map(|held| self.relays_of(&held.home))
            .unwrap_or_default()
    }

    /// An FA was told to drop it and has answered, or hasn't.
    pub fn revoked(&mut self, revocation: &Revocation, fa: IpAddr, confirmed: bool) {
        if confirmed {
            self.departures.over(fa, revocation);
        } else {
            self.departures.unanswered(fa, revocation);
        }
        let child = self
            .csas
            .iter()
            .find(|(_, held)| held.revocation == *revocation)
            .map(|(id, _)| *id);
        if let Some(child) = child {
            let relays = self.relays_of_child(child);
            if let Some(held) = self.csas.get_mut(&child) {
                held.holders.remove(&fa);
                // What it may have been handed since it was told so is on its way to it.
                if !relays.wants(fa) {
                    held.perhaps.remove(&fa);
                }
            }
            self.sync(child);
        }
    }

    /// An FA's IKE SA came up. It may have forgotten what it was given, and nothing says so: it is given again all that it
    /// should have (docs/wire.md 1.5d, 3.2v). What couldn't be given to it is tried again, too.
    pub fn agent_up(&mut self, is: impl Fn(IpAddr) -> bool) {
        let children: Vec<ChildId> = self.csas.keys().copied().collect();
        for child in children {
            let relays = self.relays_of_child(child);
            let wanted = |fa| relays.wants(fa);
            let Some(held) = self.csas.get_mut(&child) else {
                continue;
            };
            let before = held.holders.len();
            held.holders.retain(|fa, holder| {
                let settled = matches!(holder, Holder::Held(_) | Holder::Cast) && wanted(*fa);
                !(is(*fa) && (settled || *holder == Holder::Failed))
            });
            if held.holders.len() < before {
                self.sync(child);
            }
        }
        for (fa, departure) in self.departures.unconfirmed(&is) {
            let revocation = departure.revocation;
            let mut csas = self.csas.values_mut();
            let held = csas.find(|held| held.revocation == revocation);
            if let Some(held) = held {
                // It is on its way there again.
                if held.holders.contains_key(&fa) {
                    continue;
                }
                held.holders.insert(fa, Holder::Revoking);
            }
            self.acts.push(Act::Revoke(fa, departure));
        }
    }

    /// Where zone 1 of each CSA is.
    pub fn holdings(&self) -> impl Iterator<Item = Holding> + '_ {
        let held = self.csas.values().flat_map(|held| {
            let (relays, departure) = (self.relays_of(&held.home), held.departure());
            let holders = held.holders.iter();
            let present = holders.filter(|(_, holder)| **holder != Holder::Revoking);
            let present = present.filter(|(fa, _)| !held.unsure().any(|one| one == *fa));
            let sure = present.map(|(fa, holder)| (fa, holder.custody()));
            let all = sure.chain(held.unsure().map(|fa| (fa, Custody::Perhaps)));
            all.map(move |(fa, custody)| {
                let place = if relays.current == Some(*fa) {
                    Place::Current
                } else if relays.standbys.contains(fa) {
                    Place::Standby
                } else {
                    Place::Former
                };
                departure.holding(*fa, place, custody)
            })
        });
        held.chain(self.departures.holdings())
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let waiting = self.waiting.iter().map(|(at, _)| *at);
        let revoke = self.revoke_later.iter().map(|(at, ..)| *at);
        let leaving = self.leaving.iter().filter_map(|(until, ..)| *until);
        let departures = self.departures.next_deadline();
        let renewed = self.renewals.iter().map(|(at, _)| *at);
        let all = waiting.chain(revoke).chain(leaving).chain(renewed);
        all.chain(departures).min()
    }

    pub fn tick(&mut self, now: Time) {
        self.departures.tick(now);
        let due: Vec<ChildId> = self
            .waiting
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, child)| *child)
            .collect();
        for child in due {
            if let Some(fa) = self.relays_of_child(child).current {
                self.acts.push(Act::Without(child, fa));
            }
            self.complete(child);
        }
        let (due, later): (Vec<_>, Vec<_>) = self
            .leaving
            .drain(..)
            .partition(|(until, ..)| until.is_some_and(|at| at <= now));
        self.leaving = later;
        for (_, fa, child) in due {
            let Some(held) = self.csas.get_mut(&child) else {
                continue;
            };
            let departure = held.departure();
            if let Some(holder @ Holder::Leaving(_)) = held.holders.get_mut(&fa) {
                *holder = Holder::Revoking;
                self.acts.push(Act::Revoke(fa, departure));
                self.doubtful.push(child);
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            self.renewals.drain(..).partition(|(at, _)| *at <= now);
        self.renewals = later;
        for (_, child) in due {
            if let Some(held) = self.csas.get_mut(&child) {
                held.renewed = false;
                self.doubtful.push(child);
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            self.revoke_later.drain(..).partition(|(at, ..)| *at <= now);
        self.revoke_later = later;
        let acts = due.into_iter().map(|(_, fa, one)| Act::Revoke(fa, one));
        self.acts.extend(acts);
    }
}

fn relays_of(relays: &BTreeMap<IpAddr, Relays>, home: &[TrafficSelector]) -> Relays {
    let one = home.iter().find(|ts| ts.start == ts.end);
    let found = match one {
        Some(ts) => relays.get(&ts.start),
        None => relays
            .iter()
            .find(|(address, _)| home.iter().any(|ts| ts.holds(**address)))
            .map(|(_, relays)| relays),
    };
    found.cloned().unwrap_or_default()
}
