// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Message IDs, retransmission and remembered answers (RFC 7296 §2.1–2.3).

use super::exchange::Pending;
use crate::config::Retransmission;
use crate::event::Time;
use std::collections::BTreeMap;

/// The end of a request's first datagram: the same again is answered as before, unread. It is the ICV, which no other request
/// of this IKE SA has, and whoever sends it with other octets in front can send it with its own as well.
pub(crate) type Fingerprint = [u8; 16];

pub(crate) fn fingerprint(octets: &[u8]) -> Fingerprint {
    octets.last_chunk().copied().unwrap_or_default()
}

/// A request on its way.
pub(crate) struct Outstanding {
    pub datagrams: Vec<Vec<u8>>,
    pub pending: Pending,
    sent: u32,
    again: Time,
}

/// This side's requests.
pub(crate) struct Outbox {
    pub next_id: u32,
    /// What the peer takes at once.
    pub window: u32,
    outstanding: BTreeMap<u32, Outstanding>,
}

/// What a look at the clock brings.
pub(crate) enum Due {
    Nothing,
    /// Send these again.
    Again(Vec<Vec<u8>>),
    /// The peer is gone.
    GaveUp,
}

impl Outbox {
    pub fn new(next_id: u32) -> Self {
        Outbox {
            next_id,
            window: 1,
            outstanding: BTreeMap::new(),
        }
    }

    /// Whether another request may be sent now.
    pub fn has_room(&self) -> bool {
        match self.outstanding.first_key_value() {
            Some((lowest, _)) => self.next_id.wrapping_sub(*lowest) < self.window,
            None => true,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    pub fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.outstanding.values().map(|o| &o.pending)
    }

    pub fn pending_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.outstanding.values_mut().map(|o| &mut o.pending)
    }

    pub fn sent(
        &mut self,
        id: u32,
        datagrams: Vec<Vec<u8>>,
        pending: Pending,
        now: Time,
        retransmission: &Retransmission,
    ) {
        self.outstanding.insert(
            id,
            Outstanding {
                datagrams,
                pending,
                sent: 1,
                again: now + retransmission.wait(1),
            },
        );
    }

    pub fn awaits(&self, id: u32) -> Option<&Outstanding> {
        self.outstanding.get(&id)
    }

    pub fn answered(&mut self, id: u32) -> Option<Outstanding> {
        self.outstanding.remove(&id)
    }

    /// Goes on waiting for an answer: what came was none.
    pub fn restore(&mut self, id: u32, outstanding: Outstanding) {
        self.outstanding.insert(id, outstanding);
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Outstanding> {
        std::mem::take(&mut self.outstanding).into_values()
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.outstanding.values().map(|o| o.again).min()
    }

    pub fn due(&mut self, now: Time, retransmission: &Retransmission) -> Due {
        let mut again = Vec::new();
        for o in self.outstanding.values_mut().filter(|o| o.again <= now) {
            if o.sent > retransmission.tries {
                return Due::GaveUp;
            }
            o.sent += 1;
            o.again = now + retransmission.wait(o.sent);
            again.extend(o.datagrams.iter().cloned());
        }
        if again.is_empty() {
            Due::Nothing
        } else {
            Due::Again(again)
        }
    }

    /// Everything on its way, to be sent once more at once: the addresses changed.
    pub fn all(&self) -> Vec<Vec<u8>> {
        let datagrams = self.outstanding.values().flat_map(|o| &o.datagrams);
        datagrams.cloned().collect()
    }
}

enum Answer {
    /// Being worked on.
    Open(Fingerprint),
    /// Written, but not to be sent yet.
    Held(Fingerprint, Vec<Vec<u8>>),
    Sent(Fingerprint, Vec<Vec<u8>>),
}

/// What to do with a request of some message ID.
pub(crate) enum Arrival {
    New,
    /// Answered before; send this again, if the request is what it was.
    Answered(Fingerprint, Vec<Vec<u8>>),
    /// Being worked on, or outside the window.
    Ignore,
}

/// The peer's requests.
pub(crate) struct Inbox {
    /// The lowest not yet seen.
    next_id: u32,
    /// How many at once, as announced.
    pub window: u32,
    answers: BTreeMap<u32, Answer>,
}

impl Inbox {
    pub fn new(next_id: u32) -> Self {
        Inbox {
            next_id,
            window: 1,
            answers: BTreeMap::new(),
        }
    }

    pub fn arrival(&self, id: u32) -> Arrival {
        match self.answers.get(&id) {
            Some(Answer::Sent(fingerprint, datagrams)) => {
                Arrival::Answered(*fingerprint, datagrams.clone())
            }
            Some(Answer::Open(_) | Answer::Held(..)) => Arrival::Ignore,
            None if id >= self.next_id && id - self.next_id < self.window => Arrival::New,
            None => Arrival::Ignore,
        }
    }

    /// Takes a request in.
    pub fn open(&mut self, id: u32, fingerprint: Fingerprint) {
        self.answers.insert(id, Answer::Open(fingerprint));
        while self.answers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let oldest = self.next_id.saturating_sub(self.window.max(1));
        self.answers
            .retain(|id, answer| *id >= oldest || !matches!(answer, Answer::Sent(..)));
    }

    /// Keeps an answer; gives it back to be sent unless it is held.
    pub fn answer(&mut self, id: u32, datagrams: Vec<Vec<u8>>, hold: bool) -> Vec<Vec<u8>> {
        let Some(Answer::Open(fingerprint)) = self.answers.get(&id) else {
            return Vec::new();
        };
        let fingerprint = *fingerprint;
        if hold {
            self.answers
                .insert(id, Answer::Held(fingerprint, datagrams));
            return Vec::new();
        }
        self.answers
            .insert(id, Answer::Sent(fingerprint, datagrams.clone()));
        datagrams
    }

    /// The answer held back, to be sent now.
    pub fn release(&mut self, id: u32) -> Vec<Vec<u8>> {
        match self.answers.remove(&id) {
            Some(Answer::Held(fingerprint, datagrams)) => {
                self.answers
                    .insert(id, Answer::Sent(fingerprint, datagrams.clone()));
                datagrams
            }
            Some(other) => {
                self.answers.insert(id, other);
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}
