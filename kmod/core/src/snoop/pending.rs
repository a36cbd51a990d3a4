// SPDX-License-Identifier: GPL-2.0-only
//! Retransmissions under way: which are answered, which are lost.

use super::*;

impl Flow {
    /// Takes the retransmissions off the list that were answered, and learns from them: their round trip; and that
    /// those sent before them, which are still missing, are lost. Says whether one of them was.
    pub(super) fn answered<S: Store>(
        &mut self,
        hole: u32,
        ack: u32,
        blocks: &[Block],
        scene: &mut Scene<'_, S>,
    ) -> bool {
        let mut latest = None;
        let mut at = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            let cumulative = before(pending.seq, ack);
            let selective = !cumulative && covered(pending.seq, blocks);
            if !cumulative && !selective {
                at = at.saturating_add(1);
                continue;
            }
            self.take(at);
            if selective {
                let mut ring = self.ring(scene.slots);
                let index = ring.find(pending.seq);
                if let Some(slot) = ring.get_mut(index) {
                    (slot.sacked, slot.pending) = (true, false);
                }
            }
            if pending.queued {
                continue;
            }
            self.answer = scene.now;
            if pending.times == 1 && !pending.doubtful {
                self.answered_once(pending.seq);
            }
            latest = Some(latest.map_or(pending.order, |order| later(order, pending.order)));
            // Those before it may have been late and not lost.
            let more = u32::from(pending.times)
                .saturating_sub(1)
                .saturating_add(u32::from(pending.doubtful));
            if more > 0 && !self.sealed {
                self.echoes = self.echoes.saturating_add(more).min(PENDING as u32);
                self.echoes_end = scene
                    .now
                    .saturating_add(self.data.timeout(scene.settings.initial));
            }
            // One below the acknowledgement but not at the hole arrived some time before.
            if selective || pending.seq == hole {
                self.measure(&pending, scene.now);
            }
        }
        let Some(latest) = latest else {
            return false;
        };
        let mut lost = false;
        for pending in self.listed_mut() {
            // Retransmissions go the same way, one after the other.
            if !pending.queued && before(pending.order, latest) {
                pending.overtaken = true;
                lost = true;
            }
        }
        lost
    }

    fn measure(&mut self, pending: &Pending, now: u64) {
        let took = now.saturating_sub(pending.sent);
        if pending.times == 1 {
            self.repair.sample(took);
        } else if took.saturating_mul(2) < self.repair.least() {
            // Too soon to be the last one's answer: it is that of the one before, which took longer than we waited.
            self.repair.sample(now.saturating_sub(pending.before));
        }
    }

    /// Sends again which of the retransmissions under way are lost: something first sent after it has arrived (a SACK
    /// block says so, or more duplicates than what was sent before it can cause), another one sent after it was answered,
    /// or there is no answer within a round trip.
    pub(super) fn overdue<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let sack = self.selective;
        let mut at = 0usize;
        let mut burst = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            let late = scene.now >= self.due(&pending, scene.settings);
            // Where packets overtake one another, nothing follows from what came before what.
            let ordered = self.slack == 0;
            let passed = ordered
                && if self.selective {
                    after(self.sack_high, pending.mark)
                } else {
                    // Duplicates tell of the first hole alone.
                    pending.excused == 0 && !after(pending.seq, self.una)
                };
            if (passed || (ordered && pending.overtaken) || late) && burst < BURST {
                burst = burst.saturating_add(1);
                let why = if sack { Why::Sack } else { Why::Duplicate };
                let listed = self.pendings;
                self.repair_seq(pending.seq, why, scene);
                if self.pendings < listed {
                    // It was given up, and the list moved up.
                    continue;
                }
            }
            at = at.saturating_add(1);
        }
    }

    /// How long a retransmission's answer may take.
    pub(super) fn repair_timeout(&self, settings: &Settings) -> u64 {
        // Before the first was answered, what data took at best is a hint.
        let initial = settings.initial.max(self.data.least().saturating_mul(2));
        self.repair.timeout(initial).max(settings.minimum)
    }

    /// When a retransmission under way is late.
    pub(super) fn due(&self, pending: &Pending, settings: &Settings) -> u64 {
        let wait = if pending.queued {
            self.data.timeout(settings.initial).max(settings.minimum)
        } else {
            self.repair_timeout(settings)
        };
        // Each attempt waits longer, for the time may be underestimated.
        let shift = pending.times.saturating_sub(1).min(4);
        let longer = (wait >> 2).saturating_mul(u64::from(shift));
        let due = pending.sent.saturating_add(wait).saturating_add(longer);
        if pending.queued || pending.sent > self.answer {
            return due;
        }
        // One that went out with others, and waited for them, comes right behind their answers.
        due.max(self.answer.saturating_add(wait >> 1))
    }

    pub(super) fn listed(&self) -> &[Pending] {
        self.pending
            .get(..usize::from(self.pendings))
            .unwrap_or(&[])
    }

    pub(super) fn listed_mut(&mut self) -> &mut [Pending] {
        self.pending
            .get_mut(..usize::from(self.pendings))
            .unwrap_or(&mut [])
    }

    /// Lists a retransmission that just went out; `queued` if it is the sender's.
    pub(super) fn list<S: Store>(&mut self, seq: u32, queued: bool, scene: &mut Scene<'_, S>) {
        let listed = self.listed().iter().position(|p| p.seq == seq);
        if listed.is_none() && usize::from(self.pendings) >= PENDING {
            return;
        }
        let duplicates = self.duplicates;
        let mut ring = self.ring(scene.slots);
        let at = ring.find(seq);
        let behind = ring.len().saturating_sub(at);
        if let Some(slot) = ring.get_mut(at) {
            slot.pending = true;
        }
        self.order = self.order.wrapping_add(1);
        let mut entry = Pending {
            seq,
            sent: scene.now,
            before: scene.now,
            // Duplicates still to come of what was sent before it. It goes ahead of some of that; counting all errs
            // on the side of waiting, and the round trip is there for those who can't wait. If more have come than can,
            // some weren't cached, and only the round trip is left.
            excused: behind
                .checked_sub(duplicates)
                .filter(|more| *more > 0)
                .unwrap_or(u32::MAX),
            mark: self.next,
            overtaken: false,
            order: self.order,
            times: 1,
            queued,
            doubtful: false,
        };
        let at = listed.unwrap_or(usize::from(self.pendings));
        let Some(place) = self.pending.get_mut(at) else {
            return;
        };
        if listed.is_none() {
            self.pendings = self.pendings.saturating_add(1);
        } else if place.queued == queued {
            entry.times = place.times.saturating_add(1);
            entry.before = place.sent;
            entry.doubtful = place.doubtful;
        } else {
            // One is the sender's, the other ours: both may arrive.
            entry.doubtful = true;
        }
        *place = entry;
    }

    /// Takes the entry at `at` off the list; the last takes its place.
    fn take(&mut self, at: usize) {
        let Some(last) = usize::from(self.pendings).checked_sub(1) else {
            return;
        };
        let moved = self.pending.get(last).copied().filter(|_| at <= last);
        if let (Some(place), Some(moved)) = (self.pending.get_mut(at), moved) {
            *place = moved;
            self.pendings = self.pendings.saturating_sub(1);
        }
    }

    pub(super) fn unlist(&mut self, seq: u32) {
        if let Some(at) = self.listed().iter().position(|p| p.seq == seq) {
            self.take(at);
        }
    }
}
