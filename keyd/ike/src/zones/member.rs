// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an FA is a member of: groups of HAs, which of their datagrams it has opened, and what is to be reported
//! (docs/wire.md §3.3).

use super::access::Peer;
use crate::config::Config;
use crate::crypto::{Cipher, GroupOpener, Unopened};
use crate::event::{IkeId, Time};
use crate::secret::Secret;
use crate::wire::{GroupKey, GroupStatus, Id, MulticastHeader, Report};
use std::time::Duration;

/// Groups of one HA at most: an FA is a neighbour of a handful.
const MAX_GROUPS_OF_ONE: usize = 256;
/// How long what comes is gathered before it is reported (docs/wire.md 3.3j).
const GATHER: Duration = Duration::from_millis(400);
/// Counters that are looked back on (docs/wire.md 3.3g).
const WINDOW: u64 = 64;

/// Which counters were opened, and of which all was taken. Bit 0 is the greatest, bit 1 the one before.
#[derive(Default)]
struct Window {
    greatest: Option<u64>,
    opened: u64,
    taken: u64,
}

impl Window {
    /// Whether a datagram of that counter may still be opened (docs/wire.md 3.3g).
    fn is_new(&self, counter: u64) -> bool {
        let Some(greatest) = self.greatest else {
            return true;
        };
        match greatest.checked_sub(counter) {
            Some(back) if back >= WINDOW => false,
            Some(back) => (self.opened >> back) & 1 == 0,
            None => true,
        }
    }

    /// A datagram of that counter, which [`is_new`](Self::is_new), was authentic.
    fn note(&mut self, counter: u64, taken: bool) {
        let greatest = self.greatest.unwrap_or(counter);
        let back = match greatest.checked_sub(counter) {
            Some(back) => back,
            None => {
                let on = u32::try_from(counter - greatest).unwrap_or(u32::MAX);
                self.opened = self.opened.checked_shl(on).unwrap_or(0);
                self.taken = self.taken.checked_shl(on).unwrap_or(0);
                0
            }
        };
        self.greatest = Some(greatest.max(counter));
        let bit = 1u64.checked_shl(u32::try_from(back).unwrap_or(u32::MAX));
        self.opened |= bit.unwrap_or(0);
        if taken {
            self.taken |= bit.unwrap_or(0);
        }
    }
}

struct Membership {
    /// The IKE SA the key came over.
    ike: IkeId,
    agent: Id,
    group: u32,
    epoch: u32,
    opener: GroupOpener,
    window: Window,
    /// When something is to be reported.
    report: Option<Time>,
}

/// What a datagram is.
pub(crate) enum Heard {
    /// Of no group of this node, or of another epoch.
    Foreign,
    /// It came before, or is too old to say.
    Again,
    /// It is not the HA's.
    Forged(Unopened),
    /// The HA's: its payloads, and what to [`note`](Memberships::note) it by.
    Said(Secret, Id, Place),
}

/// A datagram of a membership.
#[derive(Clone, Copy)]
pub(crate) struct Place(usize, u64);

/// An FA's groups.
#[derive(Default)]
pub(crate) struct Memberships(Vec<Membership>);

impl Memberships {
    /// CSA_DISTRIBUTE with a group's key: taken from an HA that may give CSAs beforehand (docs/wire.md 3.3a). A key of an
    /// older epoch takes no newer one's place, and the same again changes nothing.
    pub fn join(
        &mut self,
        config: &Config,
        peer: Peer<'_>,
        key: &GroupKey,
        ike: IkeId,
    ) -> GroupStatus {
        let may = peer.home_agent(config, &[]).is_some_and(|ha| ha.standby);
        if !may || config.foreign.multicast.is_none() {
            return GroupStatus::Refused;
        }
        let bits = u16::try_from(key.key.len() * 8).ok();
        let cipher = [bits, None]
            .into_iter()
            .find_map(|bits| Cipher::from_encr(key.encr, bits));
        let keymat = Secret::new([key.key.expose(), key.salt.expose()].concat());
        let fits = |cipher: &Cipher| {
            key.key.len() == cipher.key_len() && keymat.len() == cipher.keymat_len()
        };
        let opener = cipher
            .filter(fits)
            .and_then(|cipher| GroupOpener::new(cipher, &keymat, key.public).ok());
        let Some(opener) = opener else {
            return GroupStatus::Malformed;
        };
        let own = |one: &&mut Membership| one.agent == *peer.id;
        let count = self.0.iter_mut().filter(own).count();
        let mut own = self.0.iter_mut().filter(own);
        match own.find(|one| one.group == key.group) {
            Some(held) if key.epoch < held.epoch => GroupStatus::Revoked,
            Some(held) if key.epoch == held.epoch => {
                if key.public != held.opener.public() {
                    return GroupStatus::Refused;
                }
                held.ike = ike;
                GroupStatus::Accepted
            }
            Some(held) => {
                (held.ike, held.epoch, held.opener) = (ike, key.epoch, opener);
                (held.window, held.report) = (Window::default(), None);
                GroupStatus::Accepted
            }
            None if count >= MAX_GROUPS_OF_ONE => GroupStatus::Full,
            None => {
                self.0.push(Membership {
                    ike,
                    agent: peer.id.clone(),
                    group: key.group,
                    epoch: key.epoch,
                    opener,
                    window: Window::default(),
                    report: None,
                });
                GroupStatus::Accepted
            }
        }
    }

    /// The IKE SA is no more: nor is this node a member of what it was given over it (docs/wire.md 3.3b).
    pub fn leave(&mut self, ike: IkeId) {
        self.0.retain(|one| one.ike != ike);
    }

    /// An IKE SA's successor stands in its place.
    pub fn inherit(&mut self, old: IkeId, new: IkeId) {
        let of = self.0.iter_mut().filter(|one| one.ike == old);
        of.for_each(|one| one.ike = new);
    }

    /// Opens a datagram. Two HAs may have a group of one number; what opens it says which.
    pub fn open(&self, datagram: &[u8]) -> Heard {
        let Ok(header) = MulticastHeader::decode(datagram) else {
            return Heard::Foreign;
        };
        let mut heard = Heard::Foreign;
        for (at, one) in self.0.iter().enumerate() {
            if (one.group, one.epoch) != (header.group, header.epoch) {
                continue;
            }
            if !one.window.is_new(header.counter) {
                heard = Heard::Again;
                continue;
            }
            match one.opener.open(datagram) {
                Ok(payloads) => {
                    let place = Place(at, header.counter);
                    return Heard::Said(payloads, one.agent.clone(), place);
                }
                Err(why) => heard = Heard::Forged(why),
            }
        }
        heard
    }

    /// Whether all that a datagram held was taken; it is reported soon.
    pub fn note(&mut self, Place(at, counter): Place, taken: bool, now: Time) {
        if let Some(one) = self.0.get_mut(at) {
            one.window.note(counter, taken);
            one.report.get_or_insert(now + GATHER);
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(|one| one.report).min()
    }

    /// Reports that are due, by the IKE SA they go over.
    pub fn reports(&mut self, now: Time) -> Vec<(IkeId, Report)> {
        let mut due = Vec::new();
        for one in &mut self.0 {
            if one.report.is_none_or(|at| now < at) {
                continue;
            }
            one.report = None;
            let report = Report {
                group: one.group,
                epoch: one.epoch,
                counter: one.window.greatest.unwrap_or(0),
                taken: one.window.taken,
            };
            due.push((one.ike, report));
        }
        due
    }

    /// The groups: the HA, number, epoch, the greatest counter opened.
    pub fn list(&self) -> impl Iterator<Item = (&Id, u32, u32, Option<u64>)> + '_ {
        let list = self.0.iter();
        list.map(|one| (&one.agent, one.group, one.epoch, one.window.greatest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a set that forgets nothing: what is 64 or more behind the greatest is old, what was noted is not new
    /// (docs/wire.md 3.3g); a report says of the last 64 what was taken (docs/wire.md 3.3j).
    #[test]
    fn a_window_takes_each_counter_once_and_none_that_is_old() {
        let mut state = 1u64;
        let mut random = move |of: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % of
        };
        for start in [0, 1000, u64::MAX - 5000] {
            let mut window = Window::default();
            let mut seen = std::collections::BTreeMap::new();
            for _ in 0..3000 {
                let greatest = seen.keys().next_back().copied().unwrap_or(start);
                let counter = greatest
                    .saturating_add(random(3) * random(60))
                    .saturating_sub(random(100));
                let new = !seen.contains_key(&counter)
                    && (seen.is_empty() || counter > greatest || greatest - counter < WINDOW);
                assert_eq!(window.is_new(counter), new, "{counter} after {greatest}");
                if new {
                    let taken = random(2) == 0;
                    window.note(counter, taken);
                    seen.insert(counter, taken);
                }
                let greatest = *seen.keys().next_back().unwrap();
                let report = Report {
                    group: 0,
                    epoch: 0,
                    counter: window.greatest.unwrap(),
                    taken: window.taken,
                };
                assert_eq!(report.counter, greatest);
                for back in 0..WINDOW {
                    let Some(one) = greatest.checked_sub(back) else {
                        continue;
                    };
                    assert_eq!(report.has(one), seen.get(&one) == Some(&true));
                }
            }
        }
    }
}
