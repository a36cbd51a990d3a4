// SPDX-License-Identifier: GPL-2.0-only
//! A round trip over the wireless hop, estimated as RFC 6298 does.

/// Smoothed round-trip time and its variation, in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Rtt {
    smoothed: u64,
    variation: u64,
    least: u64,
}

/// Above it a sample is no round trip of a hop, but a host that slept: a minute.
const LONGEST: u64 = 60_000_000_000;
/// Nanoseconds.
const MICROSECOND: u64 = 1_000;

impl Rtt {
    /// Takes a sample (RFC 6298 §2.2, §2.3; the weights are 1/8 and 1/4).
    #[inline]
    pub(crate) fn sample(&mut self, took: u64) {
        let took = took.clamp(1, LONGEST);
        if self.smoothed == 0 {
            (self.smoothed, self.variation, self.least) = (took, took >> 1, took);
            return;
        }
        // Each is at most LONGEST, so nothing saturates.
        let off = self.smoothed.abs_diff(took);
        self.variation = self
            .variation
            .saturating_sub(self.variation >> 2)
            .saturating_add(off >> 2);
        self.smoothed = self
            .smoothed
            .saturating_sub(self.smoothed >> 3)
            .saturating_add(took >> 3);
        self.least = self.least.min(took);
    }

    /// How long to wait for an answer: `smoothed + 4 variation`, `initial` before the first sample.
    #[inline]
    pub(crate) fn timeout(&self, initial: u64) -> u64 {
        if self.smoothed == 0 {
            return initial;
        }
        self.smoothed
            .saturating_add(self.variation.saturating_mul(4))
    }

    /// Begins with another router's estimate, if there is none here yet.
    pub(crate) fn or(&mut self, other: &Self) {
        if self.smoothed == 0 {
            *self = *other;
        }
    }

    /// Smoothed, variation and shortest sample in microseconds; zeros before the first.
    pub(crate) fn to_micros(self) -> [u32; 3] {
        // What was measured is not nothing. Each is at most LONGEST, a minute.
        let least = |ns: u64| (ns / MICROSECOND).max(self.smoothed.min(1));
        [self.smoothed, self.variation, self.least]
            .map(|ns| u32::try_from(least(ns)).unwrap_or(u32::MAX))
    }

    /// See [`Self::to_micros`]. `None` if no samples give that.
    pub(crate) fn from_micros(micros: [u32; 3]) -> Option<Self> {
        let [smoothed, variation, least] =
            micros.map(|micros| u64::from(micros).saturating_mul(MICROSECOND));
        let none = smoothed == 0 && variation == 0 && least == 0;
        let some = [smoothed, variation, least]
            .iter()
            .all(|ns| (1..=LONGEST).contains(ns));
        (none || some).then_some(Rtt {
            smoothed,
            variation,
            least,
        })
    }

    /// The shortest sample, 0 before the first.
    #[inline]
    pub(crate) fn least(&self) -> u64 {
        self.least
    }
}
