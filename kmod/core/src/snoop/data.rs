// SPDX-License-Identifier: GPL-2.0-only
//! What passes towards the mobile host.

use super::*;

impl Flow {
    /// A segment towards the mobile host passes. `esp` is its ESP number, 0 outside a CSA; `room` says whether the
    /// link's queue has room, without which nothing is kept, so that congestion stays visible.
    ///
    /// Returns the place to keep the packet in, in exchange for the one that may be there.
    #[allow(clippy::too_many_arguments)]
    pub fn data<S: Store>(
        &mut self,
        slots: &mut [Slot],
        segment: &Segment,
        esp: u64,
        floor: u64,
        room: bool,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> Option<u16> {
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        self.touched = now;
        self.persisted = false;
        if segment.rst {
            self.clear(&mut scene);
            self.closed = true;
            return None;
        }
        if segment.syn {
            // A new connection between the same ends.
            self.clear(&mut scene);
            self.restart(segment.end(), now);
            return None;
        }
        self.sealed = esp != 0;
        let (seq, end) = (segment.seq, segment.end());
        if seq == end {
            return None;
        }
        if !self.started {
            self.start(seq);
        }
        if span(self.una, end) > REACH || span(end, self.una) > REACH {
            return None;
        }
        if segment.fin {
            self.fin = Some(end);
        }
        self.drop_too_old(&mut scene);
        if !after(end, self.una) && !self.confirmed {
            if self.vouched {
                // The mobile host has it: it is a copy that followed it here, or its answer will be the first, which goes on.
                return None;
            }
            // What passed here first need not be the first that is missing: what follows a mobile host from where it was
            // may come behind what goes straight to where it is.
            self.start_anew(seq);
        }
        if !after(end, self.una) {
            self.settle();
            // The receiver has it, but the sender doesn't know: the answer must reach it.
            self.counters.sender = self.counters.sender.saturating_add(1);
            self.sent_by_both(seq);
            self.visible = later(self.visible, self.una.wrapping_add(1));
            return None;
        }
        let slot = Slot {
            seq,
            end,
            esp,
            sent: now,
            ..Slot::default()
        };
        if before(seq, self.next) {
            return self.repeated(slot, room, &mut scene);
        }
        self.next = end;
        if !room {
            self.counters.queue_full = self.counters.queue_full.saturating_add(1);
            return None;
        }
        let at = self.len;
        let place = self.ring(scene.slots).insert(at, slot);
        self.kept(place, &mut scene)
    }

    /// Out of line: a flow is large, and segments come far more often than connections.
    #[inline(never)]
    fn restart(&mut self, seq: u32, now: u64) {
        let counters = self.counters;
        *self = Flow {
            counters,
            ..Flow::new(now)
        };
        self.start(seq);
    }

    fn start(&mut self, seq: u32) {
        self.started = true;
        (self.una, self.told, self.next, self.visible) = (seq, seq, seq, seq);
        (self.sack_high, self.looked, self.promised) = (seq, seq, seq);
    }

    /// It begins elsewhere than was taken for its beginning. Nothing has been acknowledged here yet.
    pub(super) fn start_anew(&mut self, seq: u32) {
        let (next, una, visible) = (self.next, self.una, self.visible);
        self.start(seq);
        self.next = later(next, seq);
        if visible != una {
            // The sender repairs up to there.
            self.visible = later(visible, seq);
        }
    }

    fn kept<S: Store>(&mut self, place: Option<u16>, scene: &mut Scene<'_, S>) -> Option<u16> {
        let counter = if place.is_some() {
            &mut self.counters.cached
        } else {
            &mut self.counters.full
        };
        *counter = counter.saturating_add(1);
        if place.is_some() && self.alarm == 0 {
            self.set_alarm(scene);
        }
        place
    }

    /// The sender sends again, or fills a hole that was there before the hop.
    fn repeated<S: Store>(
        &mut self,
        slot: Slot,
        room: bool,
        scene: &mut Scene<'_, S>,
    ) -> Option<u16> {
        self.settle();
        self.sent_by_both(slot.seq);
        self.next = later(self.next, slot.end);
        let mut ring = self.ring(scene.slots);
        let at = ring.find(slot.seq);
        if let Some(old) = ring.get_mut(at) {
            if !before(slot.seq, old.seq) && !after(slot.end, old.end) {
                // It knows of this loss, so what tells of it goes on to it.
                old.by_sender = true;
                let whole = (old.seq, old.end) == (slot.seq, slot.end);
                let visible = old.end;
                let place = old.place;
                if whole {
                    // This one has a fresh ESP number; the old one may have left the peer's window.
                    (old.esp, old.sent) = (slot.esp, slot.sent);
                    (old.tries, old.timed) = (0, 0);
                }
                self.counters.sender = self.counters.sender.saturating_add(1);
                self.visible = later(self.visible, visible);
                if !whole {
                    return None;
                }
                self.list(slot.seq, true, scene);
                self.set_alarm(scene);
                return Some(place);
            }
        }
        // What lies within the new one is in it. Segments that overlap otherwise may stand beside one another.
        let mut covered = self.ring(scene.slots).find(slot.seq);
        while let Some(old) = self.ring(scene.slots).get(covered).copied() {
            if before(old.seq, slot.seq) {
                covered = covered.saturating_add(1);
                continue;
            }
            if after(old.end, slot.end) {
                break;
            }
            self.unlist(old.seq);
            if let Some(gone) = self.ring(scene.slots).remove(covered) {
                scene.store.release(gone.place);
            }
        }
        if !room {
            self.counters.queue_full = self.counters.queue_full.saturating_add(1);
            return None;
        }
        let place = self.ring(scene.slots).insert(covered, slot);
        // Until something was acknowledged here it may as well be late.
        if place.is_some() && self.confirmed {
            self.list(slot.seq, true, scene);
        }
        self.kept(place, scene)
    }

    /// What is kept was sent under a CSA that is replaced: its numbers no longer compare with those to come.
    pub fn renumber(&mut self, slots: &mut [Slot]) {
        for slot in slots {
            slot.esp = u64::MAX;
        }
    }

    /// Forgets the segment in `place`: the caller couldn't keep its packet.
    pub fn forget(&mut self, slots: &mut [Slot], place: u16) {
        self.settle();
        let mut at = self.len;
        while at > 0 {
            at = at.saturating_sub(1);
            let mut ring = self.ring(slots);
            if ring.get(at).is_some_and(|slot| slot.place == place) {
                if let Some(gone) = ring.remove(at) {
                    self.unlist(gone.seq);
                    self.counters.full = self.counters.full.saturating_add(1);
                    self.counters.cached = self.counters.cached.saturating_sub(1);
                }
                return;
            }
        }
    }

    /// Lets go of what the peer's replay window will soon not take.
    fn drop_too_old<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let floor = scene.floor;
        while let Some(first) = self.ring(scene.slots).first().copied() {
            if first.esp >= floor {
                return;
            }
            self.counters.too_old = self.counters.too_old.saturating_add(1);
            self.settle();
            self.unlist(first.seq);
            self.ring(scene.slots).pop();
            scene.store.release(first.place);
            self.visible = later(self.visible, first.end);
        }
    }
}
