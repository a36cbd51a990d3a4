// SPDX-License-Identifier: GPL-2.0-only
//! Life-times of a CSA (RFC 4301 §4.4.2.1, RFC 2367 §2.3.3): packets, octets, time since it was added and since it was
//! first used, each with a soft and a hard limit.
//!
//! Who counts asks [`Life::count`] when a count reaches [`Life::watch`], and nothing before that; who keeps time asks
//! [`Life::time`] when [`Life::deadline`] has come. Each limit is told once.

/// Limits of one kind. [`Limit::NONE`] in a field is no limit (docs/wire.md 2.5a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
    /// Nanoseconds since it was added.
    pub added: u64,
    /// Nanoseconds since it was first used.
    pub used: u64,
}

impl Limit {
    /// The value that is no limit: what nothing reaches.
    pub const NONE: u64 = u64::MAX;
    /// No limit at all.
    pub const UNLIMITED: Self = Self {
        packets: Self::NONE,
        octets: Self::NONE,
        added: Self::NONE,
        used: Self::NONE,
    };
    const SECOND: u64 = 1_000_000_000;

    /// Limits from a message, where 0 is none; times in seconds.
    pub fn new(packets: u32, octets: u64, added: u64, used: u64) -> Self {
        let count = |value: u64| if value == 0 { Self::NONE } else { value };
        Self {
            packets: count(packets.into()),
            octets: count(octets),
            added: count(added.saturating_mul(Self::SECOND)),
            used: count(used.saturating_mul(Self::SECOND)),
        }
    }

    /// What [`Limit::new`] was given, 0 where there is none; times in seconds. A time of more than 584 years is none.
    pub fn given(&self) -> (u32, u64, u64, u64) {
        let count = |value: u64| if value == Self::NONE { 0 } else { value };
        let packets = u32::try_from(count(self.packets)).unwrap_or(0);
        let seconds = |value: u64| count(value) / Self::SECOND;
        (
            packets,
            count(self.octets),
            seconds(self.added),
            seconds(self.used),
        )
    }

    fn counted(&self, packets: u64, octets: u64) -> bool {
        packets >= self.packets || octets >= self.octets
    }

    /// When it is reached by time alone, for a CSA that was added and first used at these times.
    fn deadline(&self, added: u64, used: Option<u64>) -> u64 {
        let used = used.map_or(Self::NONE, |used| used.saturating_add(self.used));
        added.saturating_add(self.added).min(used)
    }
}

/// What has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing that wasn't told.
    Nothing,
    /// The soft limit: whoever keeps keys is told, and nothing else changes.
    Soft,
    /// The hard limit: from now on it neither seals nor opens.
    Hard,
}

/// A CSA's limits, and which of them were told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    soft: Limit,
    hard: Limit,
    soft_told: bool,
    over: bool,
}

impl Life {
    /// With these limits.
    pub const fn new(soft: Limit, hard: Limit) -> Self {
        Self {
            soft,
            hard,
            soft_told: false,
            over: false,
        }
    }

    /// Other limits from now on, for those that are given. A new soft limit is told anew; what is over stays over
    /// (docs/wire.md 2.5g).
    pub fn change(&mut self, soft: Option<Limit>, hard: Option<Limit>) {
        if let Some(soft) = soft {
            self.soft = soft;
            self.soft_told = false;
        }
        if let Some(hard) = hard {
            self.hard = hard;
        }
    }

    /// The limits, soft and hard.
    #[inline]
    pub const fn limits(&self) -> (Limit, Limit) {
        (self.soft, self.hard)
    }

    /// Whether the hard limit was reached.
    #[inline]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The packets and octets at which [`Life::count`] is to be asked: neither says anything new before.
    pub fn watch(&self) -> (u64, u64) {
        if self.over {
            return (0, 0);
        }
        let soft = if self.soft_told {
            Limit::UNLIMITED
        } else {
            self.soft
        };
        (
            soft.packets.min(self.hard.packets),
            soft.octets.min(self.hard.octets),
        )
    }

    /// Whether a packet that brings the counts to this is past the hard limit: the one that reaches it is the last
    /// (docs/wire.md 2.5d).
    #[inline]
    pub const fn is_past(&self, packets: u64, octets: u64) -> bool {
        packets > self.hard.packets || octets > self.hard.octets
    }

    /// These packets and octets were carried, the one in hand counted.
    pub fn count(&mut self, packets: u64, octets: u64) -> Due {
        self.tell(
            self.soft.counted(packets, octets),
            self.hard.counted(packets, octets),
        )
    }

    /// It is `now`; times in nanoseconds of one clock.
    pub fn time(&mut self, now: u64, added: u64, used: Option<u64>) -> Due {
        self.tell(
            now >= self.soft.deadline(added, used),
            now >= self.hard.deadline(added, used),
        )
    }

    /// Where both are reached in one step, the soft one has nothing left to say (docs/wire.md 2.5b, 2.5c).
    fn tell(&mut self, soft: bool, hard: bool) -> Due {
        if self.over {
            return Due::Nothing;
        }
        if hard {
            self.over = true;
            return Due::Hard;
        }
        if soft && !self.soft_told {
            self.soft_told = true;
            return Due::Soft;
        }
        Due::Nothing
    }

    /// When [`Life::time`] has something new to say, in the same clock; [`Limit::NONE`] if never.
    pub fn deadline(&self, added: u64, used: Option<u64>) -> u64 {
        if self.over {
            return Limit::NONE;
        }
        let hard = self.hard.deadline(added, used);
        if self.soft_told {
            hard
        } else {
            hard.min(self.soft.deadline(added, used))
        }
    }
}
