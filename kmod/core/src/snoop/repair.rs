// SPDX-License-Identifier: GPL-2.0-only
//! Finding holes, and sending again.

use super::*;

/// Local retransmissions of one segment, however many duplicate acknowledgements ask for more.
const TRIES: u8 = 24;
/// Timer retransmissions of one segment in a row that nothing came back for. Where only acknowledgements are lost, the
/// mobile host drops the copies as replays and says nothing.
const TIMED: u8 = 3;

impl Flow {
    /// Looks at what SACK blocks newly tell, and repairs the holes below the highest of them.
    pub(super) fn holes<S: Store>(&mut self, segment: &Segment, scene: &mut Scene<'_, S>) {
        let blocks = segment.sack();
        let mut high = self.sack_high;
        for (start, end) in blocks {
            // What lies below the acknowledgement tells of a duplicate (RFC 2883), what lies above all is made up.
            if after(*end, *start) && after(*end, self.una) && !after(*end, self.next) {
                high = later(high, *end);
            }
        }
        if after(high, self.sack_high) {
            self.mark(blocks, high, scene);
        }
        self.search(blocks, scene);
    }

    fn mark<S: Store>(&mut self, blocks: &[Block], high: u32, scene: &mut Scene<'_, S>) {
        let old = self.sack_high;
        let mut ring = self.ring(scene.slots);
        let mut at = ring.find(old);
        while let Some(slot) = ring.get_mut(at) {
            if !before(slot.seq, high) {
                break;
            }
            if within(slot, blocks) {
                slot.sacked = true;
            }
            at = at.saturating_add(1);
        }
        self.sack_high = high;
    }

    /// Goes on looking for holes below the highest SACK, where it stopped.
    fn search<S: Store>(&mut self, blocks: &[Block], scene: &mut Scene<'_, S>) {
        let mut burst = 0usize;
        let high = self.proven(scene.slots);
        while before(self.looked, high) {
            let looked = self.looked;
            let ring = self.ring(scene.slots);
            let at = ring.find(looked);
            let Some(slot) = ring.get(at).copied() else {
                break;
            };
            if after(slot.seq, looked) {
                // Nothing of it is here.
                let to = if before(slot.seq, high) {
                    slot.seq
                } else {
                    high
                };
                self.uncached(looked, to, blocks);
                self.looked = to;
                continue;
            }
            if !slot.sacked && !slot.pending {
                if burst >= BURST || usize::from(self.pendings) >= PENDING {
                    return;
                }
                burst = burst.saturating_add(1);
                self.repair_at(at, Why::Sack, scene);
            }
            self.looked = later(looked, slot.end);
        }
        if before(self.looked, high) {
            let looked = self.looked;
            self.uncached(looked, high, blocks);
            self.looked = high;
        }
    }

    /// What isn't cached can't be repaired: unless the receiver has it, the sender has to.
    fn uncached(&mut self, from: u32, to: u32, blocks: &[Block]) {
        let has = blocks
            .iter()
            .any(|(start, end)| !after(*start, from) && !before(*end, to));
        if !has {
            self.visible = later(self.visible, to);
        }
    }

    pub(super) fn repair_head<S: Store>(&mut self, why: Why, scene: &mut Scene<'_, S>) {
        let una = self.una;
        let first = self.ring(scene.slots).first().copied();
        if let Some(first) = first {
            if !after(first.seq, una) && !first.pending {
                self.repair_at(0, why, scene);
            }
        }
    }

    /// Sends the segment at `at` again, if it may be.
    pub(super) fn repair_at<S: Store>(&mut self, at: u32, why: Why, scene: &mut Scene<'_, S>) {
        let (floor, now) = (scene.floor, scene.now);
        let timed = matches!(why, Why::Timer | Why::Persist);
        let full = usize::from(self.pendings) >= PENDING;
        let mut ring = self.ring(scene.slots);
        let Some(slot) = ring.get_mut(at) else {
            return;
        };
        if full && !slot.pending {
            return;
        }
        let (seq, end, place) = (slot.seq, slot.end, slot.place);
        if slot.esp < floor {
            self.counters.too_old = self.counters.too_old.saturating_add(1);
        } else if slot.tries >= TRIES || (timed && slot.timed >= TIMED) {
            self.counters.gave_up = self.counters.gave_up.saturating_add(1);
        } else {
            slot.tries = slot.tries.saturating_add(1);
            if timed {
                slot.timed = slot.timed.saturating_add(1);
            }
            slot.sent = now;
            scene.store.retransmit(place);
            let counter = match why {
                Why::Duplicate => &mut self.counters.by_duplicate,
                Why::Sack => &mut self.counters.by_sack,
                Why::Timer => &mut self.counters.by_timer,
                Why::Persist => &mut self.counters.by_persist,
            };
            *counter = counter.saturating_add(1);
            self.list(seq, false, scene);
            if let Some(pending) = self.listed_mut().iter_mut().find(|p| p.seq == seq) {
                pending.doubtful |= timed && pending.times == 1;
            }
            return;
        }
        // From now on it is the sender's.
        self.unlist(seq);
        if let Some(gone) = self.ring(scene.slots).remove(at) {
            scene.store.release(gone.place);
        }
        self.visible = later(self.visible, end);
    }

    pub(super) fn repair_seq<S: Store>(&mut self, seq: u32, why: Why, scene: &mut Scene<'_, S>) {
        let ring = self.ring(scene.slots);
        let at = ring.find(seq);
        if ring.get(at).is_some_and(|slot| slot.seq == seq) {
            self.repair_at(at, why, scene);
        } else {
            self.unlist(seq);
        }
    }
}
