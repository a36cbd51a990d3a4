// SPDX-License-Identifier: GPL-2.0-only
//! What comes back from it.

use super::*;

/// Segments in order that a receiver acknowledges together (RFC 5681 §4.2); where it is more, there was a hole.
const DELAYED: u32 = 2;
/// Holes in a row that may be inferred from the count of duplicates alone. If it is wrong, for a copy of ours was
/// counted, each hole inferred from it makes another copy.
const GUESSES: u8 = 3;

impl Flow {
    /// A segment from the mobile host passes, with its acknowledgement.
    pub fn ack<S: Store>(
        &mut self,
        slots: &mut [Slot],
        segment: &Segment,
        floor: u64,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> Verdict {
        self.touched = now;
        self.persisted = false;
        if self.quiet > 0 && now < self.calm && segment.repeats(self.una, self.window) {
            // In the middle of a burst: all that there is to know is that one more has arrived.
            self.quiet = self.quiet.saturating_sub(1);
            self.skipped = self.skipped.saturating_add(1);
            self.duplicates = self.duplicates.saturating_add(1);
            return self.suppress();
        }
        self.settle();
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        if segment.rst {
            self.clear(&mut scene);
            self.closed = true;
            return Verdict::Forward;
        }
        let Some(ack) = segment.ack.filter(|_| self.started && !segment.syn) else {
            return Verdict::Forward;
        };
        if after(ack, later(self.next, self.promised)) || span(ack, self.una) > REACH {
            self.counters.ahead = self.counters.ahead.saturating_add(1);
            return Verdict::Forward;
        }
        // It carries something of its own.
        let plain = segment.len == 0 && !segment.fin;
        if before(ack, self.una) {
            // Joined in the middle, we don't know what the sender has seen.
            let stale = plain && segment.blocks == 0 && segment.window == self.window;
            return if stale && self.confirmed {
                self.suppress()
            } else {
                Verdict::Forward
            };
        }
        // Of what another router was told nobody knows whether it has reached the sender.
        let first = self.vouched && !self.confirmed;
        self.confirmed = true;
        self.next = later(self.next, ack);
        if segment.blocks != 0 {
            self.selective = true;
            self.learn_order(ack, segment.sack());
        }
        if after(ack, self.una) {
            self.advance(ack, segment, &mut scene);
            if plain && !first && self.held_back(segment, &mut scene) {
                return self.suppress();
            }
            (self.told, self.window) = (ack, segment.window);
            return Verdict::Forward;
        }
        self.duplicate(plain, first, segment, &mut scene)
    }

    /// Whether an acknowledgement of something new is held back, for its SACK blocks would have the sender repair what is
    /// being repaired here, and slow down. Nothing is lost by it: the next one says the same and more.
    fn held_back<S: Store>(&mut self, segment: &Segment, scene: &mut Scene<'_, S>) -> bool {
        let una = self.una;
        let mut above = 0u32;
        for (start, end) in segment.sack() {
            if after(*start, una) {
                above = above.saturating_add(span(*start, *end));
            }
        }
        let Some(first) = self.ring(scene.slots).first().copied() else {
            return false;
        };
        let waiting = first.pending || self.slack != 0;
        if above == 0 || !waiting || after(first.seq, una) || after(self.visible, una) {
            return false;
        }
        if segment.window < self.window || self.window == 0 {
            return false;
        }
        // The sender's clock goes on: what it isn't told is a part of what it has under way, and so takes that part of
        // its round trip. Three segments above a hole prove it lost to any sender (RFC 6675 §4), fewer only after a
        // while (RFC 8985 §6.2).
        let proof = above >= span(first.seq, first.end).saturating_mul(3);
        let part = if proof { 2u32 } else { 3 };
        span(self.told, una).saturating_mul(part) < span(self.told, self.next)
    }

    /// Whether the last acknowledgement was one of a burst that changed nothing, so that [`Flow::deadline`] is as it was.
    pub const fn in_a_burst(&self) -> bool {
        self.skipped != 0
    }

    /// Makes good what a burst left out.
    pub(super) fn settle(&mut self) {
        self.quiet = 0;
        let skipped = core::mem::take(&mut self.skipped);
        if skipped != 0 {
            for pending in self.listed_mut() {
                pending.excused = pending.excused.saturating_sub(skipped);
            }
        }
    }

    /// Looks how many more duplicates can come that mean nothing new, without SACK: the first hole is being repaired, and
    /// as many segments as these are known to have been behind it.
    fn be_quiet(&mut self, settings: &Settings) {
        if self.selective || self.echoes > 0 || self.alarm != 0 {
            return;
        }
        let (mut quiet, mut calm) = (u32::MAX, u64::MAX);
        for pending in self.listed() {
            if !after(pending.seq, self.una) {
                quiet = quiet.min(pending.excused);
            }
            calm = calm.min(self.due(pending, settings));
        }
        if calm != u64::MAX {
            (self.quiet, self.calm) = (quiet.saturating_sub(1), calm);
        }
    }

    fn suppress(&mut self) -> Verdict {
        self.counters.suppressed = self.counters.suppressed.saturating_add(1);
        Verdict::Suppress
    }

    /// Everything below `ack` has arrived.
    fn advance<S: Store>(&mut self, ack: u32, segment: &Segment, scene: &mut Scene<'_, S>) {
        let mut popped = 0u32;
        let (mut newest, mut repaired) = (None, false);
        while let Some(first) = self.ring(scene.slots).first().copied() {
            if after(first.end, ack) {
                break;
            }
            self.ring(scene.slots).pop();
            scene.store.release(first.place);
            popped = popped.saturating_add(1);
            // Karn: of what was sent twice nobody knows which one is answered; what lies behind it has waited for it.
            repaired |= first.tries != 0 || first.by_sender || first.sacked;
            newest = Some(first.sent);
        }
        let hole = self.una;
        self.una = ack;
        let lost = self.answered(hole, ack, segment.sack(), scene);
        if self.duplicates == 0 && !repaired {
            if let Some(sent) = newest {
                self.data.sample(scene.now.saturating_sub(sent));
            }
        }
        // Arrivals behind the hole that this acknowledgement doesn't cover are behind the next one.
        if popped > DELAYED {
            self.guessed = 0;
        }
        self.duplicates = if popped == 0 || self.guessed >= GUESSES {
            0
        } else {
            self.duplicates.saturating_sub(popped.saturating_sub(1))
        };
        if self.duplicates == 0 {
            self.guessed = 0;
        }
        self.visible = later(self.visible, ack);
        self.sack_high = later(self.sack_high, ack);
        self.looked = later(self.looked, ack);
        self.promised = later(self.promised, ack);
        self.backoff = 0;
        if self.fin == Some(ack) {
            self.closed = true;
        }
        if segment.window != 0 {
            self.holes(segment, scene);
            if !self.selective && self.duplicates >= u32::from(scene.settings.threshold) {
                // The hop is in order: what arrived behind the next hole went out after what is missing there.
                self.guessed = self.guessed.saturating_add(1);
                self.repair_head(Why::Duplicate, scene);
            }
            if lost {
                self.overdue(scene);
            }
        }
        self.set_alarm(scene);
    }

    fn duplicate<S: Store>(
        &mut self,
        plain: bool,
        first: bool,
        segment: &Segment,
        scene: &mut Scene<'_, S>,
    ) -> Verdict {
        let changed = segment.window != self.window;
        let shrunk = segment.window < self.window;
        self.answered(self.una, self.una, segment.sack(), scene);
        let told = segment.sack().iter().any(|(_, end)| after(*end, self.una));
        // Without SACK, an acknowledgement with another window is an update and no duplicate (RFC 5681 §2). With SACK,
        // one that tells of nothing above it answers something that came twice (RFC 2883).
        let asks = if self.selective { told } else { !changed };
        if !plain || self.next == self.una || segment.window == 0 || !asks {
            (self.told, self.window) = (self.una, segment.window);
            return Verdict::Forward;
        }
        if segment.blocks == 0 && self.echoes > 0 {
            self.echoes = self.echoes.saturating_sub(1);
            if scene.now < self.echoes_end && self.hole_is_cached(scene) {
                return self.suppress();
            }
        }
        self.duplicates = self.duplicates.saturating_add(1);
        self.guessed = 0;
        for pending in self.listed_mut() {
            pending.excused = pending.excused.saturating_sub(1);
        }
        if let Some(first) = self.ring(scene.slots).get_mut(0) {
            first.timed = 0;
        }
        if self.duplicates >= u32::from(scene.settings.threshold) {
            self.holes(segment, scene);
            if !self.selective {
                self.repair_head(Why::Duplicate, scene);
            }
        }
        self.overdue(scene);
        self.set_alarm(scene);
        let hidden = !first && self.hole_is_cached(scene) && !after(self.visible, self.una);
        // A larger window is no news to a sender that hasn't used up the one it has; the next acknowledgement tells it.
        let urgent = shrunk || (changed && self.window == 0);
        if hidden && !urgent {
            self.be_quiet(scene.settings);
            return self.suppress();
        }
        (self.told, self.window) = (self.una, segment.window);
        Verdict::Forward
    }

    /// Whether the segment at `una` is there to be repaired.
    fn hole_is_cached<S: Store>(&mut self, scene: &mut Scene<'_, S>) -> bool {
        let una = self.una;
        self.ring(scene.slots)
            .first()
            .is_some_and(|first| !after(first.seq, una))
    }
}
