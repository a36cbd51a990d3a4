// SPDX-License-Identifier: GPL-2.0-only
//! A hop that isn't in order after all: seen from what the receiver says came twice (RFC 2883).

use super::*;

/// Arrivals behind a hole waited for at most.
const SLACK_MAX: u8 = 63;
/// Retransmissions in a row that were needed before one arrival less is waited for.
const NEEDED: u8 = 32;

impl Flow {
    /// One retransmission, which a hole asked for, was answered: by its own copy, or by the original that was late.
    pub(super) fn answered_once(&mut self, seq: u32) {
        self.once.rotate_right(1);
        if let Some(first) = self.once.first_mut() {
            *first = Some(seq);
        }
        self.needed = self.needed.saturating_add(1);
        if self.needed >= NEEDED {
            self.needed = 0;
            self.slack = self.slack.saturating_sub(1);
        }
    }

    /// The sender sends it too, so that a second copy says nothing about ours.
    pub(super) fn sent_by_both(&mut self, seq: u32) {
        for once in &mut self.once {
            if *once == Some(seq) {
                *once = None;
            }
        }
    }

    /// Looks whether an acknowledgement says that a segment came twice of which ours was the only copy: then nothing was
    /// lost, what came behind it has overtaken it, and as much must be waited for in future.
    pub(super) fn learn_order(&mut self, ack: u32, blocks: &[Block]) {
        let [first, rest @ ..] = blocks else {
            return;
        };
        let within = rest
            .first()
            .is_some_and(|second| !before(first.0, second.0) && !after(first.1, second.1));
        if after(first.1, ack) && !within {
            return;
        }
        let needless = self.once.iter_mut().find(|once| **once == Some(first.0));
        if let Some(once) = needless {
            *once = None;
            self.needed = 0;
            self.slack = self
                .slack
                .saturating_mul(2)
                .saturating_add(1)
                .min(SLACK_MAX);
        }
    }

    /// The number below which what is missing is lost, going by the highest SACK block.
    pub(super) fn proven(&mut self, slots: &mut [Slot]) -> u32 {
        let high = self.sack_high;
        if self.slack == 0 {
            return high;
        }
        let slack = u32::from(self.slack);
        let ring = self.ring(slots);
        let at = ring.find(high).saturating_sub(slack);
        match ring.get(at) {
            Some(slot) if before(slot.seq, high) => slot.seq,
            _ => high,
        }
    }
}
