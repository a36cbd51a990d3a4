// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Revocations that wait for their acknowledgment (RFC 3543 §3.3): sent again with growing gaps, then given up aloud.

use crate::action::{Action, Event};
use crate::packet::Packet;
use crate::time::Now;
use crate::timers::Timers;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The first gap; each next one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// Sent so often in all: 1 + 2 + 4 + 8 s and the wait after the last.
const TRIES: u32 = 5;

/// The mobile node's address, and the other agent's.
type Key = (Ipv4Addr, Ipv4Addr);

#[derive(Clone, Debug)]
struct Outstanding {
    packet: Packet,
    identifier: u32,
    sent: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Revoker {
    outstanding: HashMap<Key, Outstanding>,
    timers: Timers<Key>,
}

impl Revoker {
    pub(crate) fn start(
        &mut self,
        key: Key,
        identifier: u32,
        packet: Packet,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Send(packet.clone()));
        self.outstanding.insert(
            key,
            Outstanding {
                packet,
                identifier,
                sent: 1,
            },
        );
        self.timers.set(key, now.after(FIRST));
    }

    /// An authentic acknowledgment.
    pub(crate) fn acknowledged(&mut self, key: Key, identifier: u32, actions: &mut Vec<Action>) {
        let awaited = self.outstanding.get(&key).map(|one| one.identifier);
        if awaited != Some(identifier) {
            return;
        }
        self.outstanding.remove(&key);
        self.timers.cancel(key);
        let (home, peer) = key;
        actions.push(Action::Notify(Event::RevocationConfirmed { home, peer }));
    }

    /// The mobile node is there again: what was to be revoked is what holds now.
    pub(crate) fn cancel(&mut self, key: Key) {
        self.outstanding.remove(&key);
        self.timers.cancel(key);
    }

    pub(crate) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(key) = self.timers.pop(now.monotonic) {
            let Some(one) = self.outstanding.get_mut(&key) else {
                continue;
            };
            if one.sent == TRIES {
                self.outstanding.remove(&key);
                let (home, peer) = key;
                actions.push(Action::Notify(Event::RevocationUnconfirmed { home, peer }));
                continue;
            }
            let gap = FIRST * 2_u32.pow(one.sent);
            one.sent += 1;
            actions.push(Action::Send(one.packet.clone()));
            self.timers.set(key, now.after(gap));
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.timers.next()
    }
}

/// An agent's timestamps for RFC 3543: seconds, never going back. A revocation's is above all given before it, and what
/// is registered later isn't below it, so a replayed revocation hits nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamps(u32);

impl Stamps {
    pub(crate) fn support(&mut self, now: Now) -> u32 {
        self.0 = self.0.max(now.wall.seconds());
        self.0
    }

    pub(crate) fn revocation(&mut self, now: Now) -> u32 {
        self.0 = self.0.saturating_add(1).max(now.wall.seconds());
        self.0
    }
}
