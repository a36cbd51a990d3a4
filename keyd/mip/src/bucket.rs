// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A token bucket: so many a second, and a second's worth at once.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    /// In millionths of one.
    level: u64,
    filled: Duration,
}

const ONE: u64 = 1_000_000;

impl Bucket {
    pub(crate) fn new(per_second: u32) -> Self {
        Bucket {
            per_second,
            level: u64::from(per_second) * ONE,
            filled: Duration::ZERO,
        }
    }

    /// Takes one out, if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let full = u64::from(self.per_second) * ONE;
        let passed = now.saturating_sub(self.filled).min(Duration::from_secs(1));
        self.filled = now;
        let more = passed.as_micros() as u64 * u64::from(self.per_second);
        self.level = (self.level + more).min(full);
        match self.level.checked_sub(ONE) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_goes_at_once_and_then_the_rate() {
        let mut bucket = Bucket::new(10);
        let now = Duration::from_secs(100);
        assert_eq!((0..20).filter(|_| bucket.take(now)).count(), 10);
        let later = |ms| now + Duration::from_millis(ms);
        assert!(!bucket.take(later(99)));
        assert!(bucket.take(later(100)));
        assert!(!bucket.take(later(100)));
        assert_eq!((0..20).filter(|_| bucket.take(later(5000))).count(), 10);
    }
}
