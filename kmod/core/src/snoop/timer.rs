// SPDX-License-Identifier: GPL-2.0-only
//! When something is due that no packet tells of.

use super::*;

/// What the persist timer sends again at once, at most.
const PERSIST_BURST: u32 = 16;
/// A receiver may hold the acknowledgement of a single segment back (RFC 9293 §3.8.6.3; Linux: 40 ms).
const DELAYED_ACK: u64 = 50 * MS;

impl Flow {
    /// Whether there is somebody who answers, here or where the mobile host was before.
    const fn is_answered(&self) -> bool {
        self.confirmed || self.vouched
    }

    /// How long the oldest segment's acknowledgement may take.
    fn patience<S: Store>(&self, scene: &Scene<'_, S>) -> u64 {
        let wait = self
            .data
            .timeout(scene.settings.initial)
            .max(scene.settings.minimum);
        let wait = if self.len <= 1 {
            wait.max(DELAYED_ACK)
        } else {
            wait
        };
        wait.saturating_mul(1 << self.backoff.min(6))
    }

    /// Sets the alarm for the oldest segment, unless a retransmission of it is under way and has its own time.
    pub(super) fn set_alarm<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let una = self.una;
        let Some(first) = self.ring(scene.slots).first().copied() else {
            self.alarm = 0;
            return;
        };
        if first.pending || after(first.seq, una) {
            self.alarm = 0;
            return;
        }
        // As long as acknowledgements come, what is still waiting for the link isn't late.
        let moving = self.repair_timeout(scene.settings).saturating_mul(2);
        // The last one of a burst may have arrived just now, and wait for its acknowledgement.
        let moving = if self.len <= 1 {
            moving.max(self.data.least().saturating_add(DELAYED_ACK))
        } else {
            moving
        };
        self.alarm = first
            .sent
            .saturating_add(self.patience(scene))
            .max(scene.now.saturating_add(moving));
    }

    /// When [`Flow::timer`] is next due, in nanoseconds.
    pub fn deadline(&self, settings: &Settings) -> u64 {
        let mut at = self.touched.saturating_add(settings.garbage);
        if self.len == 0 || !self.is_answered() || self.window == 0 {
            return at;
        }
        if !self.persisted {
            at = at.min(self.touched.saturating_add(settings.persist));
        }
        if self.alarm != 0 {
            at = at.min(self.alarm);
        }
        for pending in self.listed() {
            at = at.min(self.due(pending, settings));
        }
        at
    }

    /// Does what is due. Returns `false` once the flow is to be forgotten.
    pub fn timer<S: Store>(
        &mut self,
        slots: &mut [Slot],
        floor: u64,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> bool {
        self.settle();
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        if self.closed || now >= self.touched.saturating_add(settings.garbage) {
            self.clear(&mut scene);
            self.closed = true;
            return false;
        }
        // Nobody has answered yet, or the receiver has no room: sending more is no repair.
        if self.len == 0 || !self.is_answered() || self.window == 0 {
            return true;
        }
        if !self.persisted && now >= self.touched.saturating_add(settings.persist) {
            self.persisted = true;
            self.persist(&mut scene);
            return true;
        }
        let mut at = 0usize;
        let mut burst = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            if now >= self.due(&pending, settings) && burst < BURST {
                burst = burst.saturating_add(1);
                let listed = self.pendings;
                self.repair_seq(pending.seq, Why::Timer, &mut scene);
                if self.pendings < listed {
                    continue;
                }
            }
            at = at.saturating_add(1);
        }
        if self.alarm != 0 && now >= self.alarm {
            self.alarm = 0;
            self.backoff = self.backoff.saturating_add(1).min(6);
            self.repair_head(Why::Timer, &mut scene);
            self.set_alarm(&mut scene);
        }
        true
    }

    /// Silence both ways: what is unacknowledged goes out once more.
    fn persist<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let mut at = 0u32;
        let mut sent = 0u32;
        while sent < PERSIST_BURST && at < self.len {
            let before = self.len;
            let sacked = self
                .ring(scene.slots)
                .get(at)
                .is_none_or(|slot| slot.sacked);
            if !sacked {
                self.repair_at(at, Why::Persist, scene);
                sent = sent.saturating_add(1);
            }
            if self.len == before {
                at = at.saturating_add(1);
            }
        }
    }
}
