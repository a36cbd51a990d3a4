// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Time, which the caller reads: a monotonic clock for timers, and the time of day for timestamps.

use std::time::Duration;

/// Seconds from NTP's epoch (1900) to Unix's (1970).
const NTP_UNIX: u64 = 2_208_988_800;

/// A time of day as RFC 5905 has it: seconds since 1900 (32 bits), and fractions of one (32 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ntp(pub u64);

impl Ntp {
    /// From the time since Unix's epoch. Era 0 ends in 2036; what comes after wraps, as NTP does.
    pub fn from_unix(since_1970: Duration) -> Self {
        let seconds = since_1970.as_secs().wrapping_add(NTP_UNIX) & 0xFFFF_FFFF;
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        Ntp(seconds << 32 | fraction)
    }

    /// Whole seconds, modulo 2^32.
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// This time and so much more.
    pub fn plus(self, time: Duration) -> Self {
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        Ntp(self
            .0
            .wrapping_add(time.as_secs() << 32)
            .wrapping_add(fraction))
    }

    /// How far this time lies behind the other one in units of 2^-32 s; negative if before it. The nearer way round,
    /// so that a new era (2036) is only another second.
    pub fn since(self, other: Ntp) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// Whether this time comes after the other one.
    pub fn after(self, other: Ntp) -> bool {
        self.since(other) > 0
    }
}

/// The moment of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back, from any epoch, for timers.
    pub monotonic: Duration,
    /// The time of day, for timestamps alone.
    pub wall: Ntp,
}

impl Now {
    /// The monotonic time so much later.
    pub(crate) fn after(&self, time: Duration) -> Duration {
        self.monotonic.saturating_add(time)
    }
}

/// Random 32-bit words, the caller's: nonces come from them, so it draws them from the kernel.
pub type Random<'a> = dyn FnMut() -> u32 + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_becomes_ntp_time() {
        // RFC 5905, figure 4: 1 January 1970 is 2,208,988,800 s.
        assert_eq!(Ntp::from_unix(Duration::ZERO), Ntp(2_208_988_800 << 32));
        let half = Ntp::from_unix(Duration::from_millis(500));
        assert_eq!(half, Ntp(2_208_988_800 << 32 | 1 << 31));
    }

    #[test]
    fn a_new_era_comes_after_the_old_one() {
        let last = Ntp(u64::MAX);
        let first = last.plus(Duration::from_secs(1));
        assert!(first.after(last));
        assert!(!last.after(first));
        assert!(!last.after(last));
    }
}
