// SPDX-License-Identifier: GPL-2.0-only
//! What a flow is told (the paper's Table III).

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;

/// Settings of a flow (the paper's Table III).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Packets kept a flow.
    pub window: u16,
    /// Duplicate acknowledgements before a local retransmission.
    pub threshold: u8,
    /// Time-out before the first round trip was measured, in nanoseconds.
    pub initial: u64,
    /// The shortest time-out, in nanoseconds.
    pub minimum: u64,
    /// Silence both ways after which what is unacknowledged is sent once more, in nanoseconds.
    pub persist: u64,
    /// Silence both ways after which the flow is forgotten, in nanoseconds.
    pub garbage: u64,
}

impl Settings {
    /// Checks and converts settings; times in milliseconds.
    ///
    /// # Errors
    /// The name of the setting that is out of range.
    pub const fn new(
        window: u16,
        threshold: u8,
        initial_ms: u32,
        minimum_ms: u32,
        persist_ms: u32,
        garbage_ms: u32,
    ) -> Result<Self, &'static str> {
        const LONGEST_MS: u32 = 3_600_000;
        if window == 0 || window > Self::WINDOW_MAX {
            return Err("window");
        }
        if threshold == 0 {
            return Err("threshold");
        }
        if initial_ms == 0 || initial_ms > LONGEST_MS {
            return Err("initial");
        }
        if minimum_ms == 0 || minimum_ms > LONGEST_MS {
            return Err("minimum");
        }
        if persist_ms == 0 || persist_ms > LONGEST_MS {
            return Err("persist");
        }
        if garbage_ms < persist_ms || garbage_ms > LONGEST_MS {
            return Err("garbage");
        }
        Ok(Settings {
            window,
            threshold,
            initial: ns(initial_ms),
            minimum: ns(minimum_ms),
            persist: ns(persist_ms),
            garbage: ns(garbage_ms),
        })
    }

    /// Packets a flow may keep at most.
    pub const WINDOW_MAX: u16 = 8192;
}

impl Default for Settings {
    /// What nobody asked otherwise for: the repair starts at the first duplicate, the time-out follows the hop.
    fn default() -> Self {
        Settings {
            window: 1024,
            threshold: 1,
            initial: ns(100),
            minimum: ns(10),
            persist: ns(1000),
            garbage: ns(10_000),
        }
    }
}

const fn ns(ms: u32) -> u64 {
    (ms as u64).saturating_mul(MS)
}
