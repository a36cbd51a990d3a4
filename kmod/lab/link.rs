// SPDX-License-Identifier: GPL-2.0-only

//! A wireless link's clock and its bit errors, in integers.
//!
//! The link sends its bit *k* at time *k*/rate, whether or not there is a packet to carry. Errors hit bits of the link,
//! not packets: which bits are hit depends on the seed and on nothing else, so that whatever is compared over links with
//! one seed meets the same errors at the same times.

use core::num::NonZeroU64;

/// The highest rate, in bits a second. [`Link::bit_at`] needs a second's nanoseconds times the rate to fit 64 bits.
pub const RATE_MAX: u64 = 10_000_000_000;
/// The mean gap between errors in 2^-16 bits: from an error a bit to one in 2^40 bits.
pub const GAP_MIN: u64 = 1 << 16;
/// See [`GAP_MIN`].
pub const GAP_MAX: u64 = 1 << 56;

/// Fractional bits of a gap.
const GAP_FRACTION: u32 = 16;
/// ln 2 in 2^-64.
const LN_2: u64 = 0xB172_17F7_D1CF_79AB;
const NS_PER_S: u64 = 1_000_000_000;

/// Sebastiano Vigna's SplitMix64: one addition and a mixing function a number.
struct Generator(u64);

impl Generator {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// -ln *u* in 2^-32, for the *u* in (0, 1) that is `random` in 2^-64: exponential with mean 1 if `random` is even.
fn exponential(random: u64) -> u64 {
    let random = random | 1;
    // u = 1.f · 2^-(zeros + 1).
    let zeros = random.leading_zeros();
    let mut mantissa = random.wrapping_shl(zeros);
    // log2(1.f) bit for bit: squaring doubles the logarithm, and its whole part is the next bit.
    let mut log2 = 0u64;
    for _ in 0..32 {
        let square = u128::from(mantissa).wrapping_mul(u128::from(mantissa)) >> 63;
        let carry = (square >> 64) as u32;
        mantissa = (square >> carry) as u64;
        log2 = log2 << 1 | u64::from(carry);
    }
    // log2 < 2^32, and this is at most 2^38.
    let minus_log2 = (u64::from(zeros).wrapping_add(1) << 32).wrapping_sub(log2);
    (u128::from(minus_log2).wrapping_mul(u128::from(LN_2)) >> 64) as u64
}

/// A Poisson process over the link's bits.
///
/// The bits are cut into blocks of about a mean gap, each with a generator of its own that gives gaps from the block's
/// start on. The exponential distribution has no memory, so this is the process that one generator would give, but a
/// block needs none of those before it: the errors of an hour without packets cost nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errors {
    seed: u64,
    /// 2^-16 bits; 0: no errors.
    mean_gap: u64,
    /// log2 of a block's bits.
    block: u32,
}

impl Errors {
    /// Errors `mean_gap` apart on average, in 2^-16 bits ([`GAP_MIN`] to [`GAP_MAX`], or 0 for a link without errors).
    pub fn new(mean_gap: u64, seed: u64) -> Option<Self> {
        if mean_gap != 0 && !(GAP_MIN..=GAP_MAX).contains(&mean_gap) {
            return None;
        }
        let mean = mean_gap >> GAP_FRACTION;
        Some(Errors {
            seed,
            mean_gap,
            block: u64::BITS.saturating_sub(mean.leading_zeros()),
        })
    }

    /// The first bit in error of bits `from` up to `end`.
    pub fn first(&self, from: u64, end: u64) -> Option<u64> {
        if self.mean_gap == 0 {
            return None;
        }
        // `block` is at most 41.
        let bits = 1u64.wrapping_shl(self.block);
        let mut block = from.wrapping_shr(self.block);
        loop {
            let start = block.checked_mul(bits)?;
            if start >= end {
                return None;
            }
            let mut generator = Generator(self.seed ^ Generator(block).next());
            let mut at = 0u64;
            loop {
                at = at.saturating_add(self.gap(generator.next()));
                let within = at >> GAP_FRACTION;
                if within >= bits {
                    break;
                }
                let bit = start.saturating_add(within);
                if bit >= end {
                    return None;
                }
                if bit >= from {
                    return Some(bit);
                }
            }
            block = block.saturating_add(1);
        }
    }

    /// 2^-16 bits; below 2^62.
    fn gap(&self, random: u64) -> u64 {
        (u128::from(exponential(random)).wrapping_mul(u128::from(self.mean_gap)) >> 32) as u64
    }
}

/// A time on the link: nanoseconds, and what is over, in 1/rate ns. Sums of packets come out exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Moment {
    ns: u64,
    part: u64,
}

/// Which of the two bands a packet waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Band {
    /// Goes first.
    Priority,
    /// First in, first out.
    Normal,
}

/// What becomes of a packet on the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// When its last bit is sent, in nanoseconds since the link's start, rounded up.
    pub end: u64,
    /// Whether one of its bits was hit.
    pub corrupted: bool,
}

/// A link's transmitter. Times are nanoseconds since the link's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Bits a second.
    rate: NonZeroU64,
    errors: Errors,
    /// When the packet that was put on the link last has left it.
    free: Moment,
}

impl Link {
    /// A link of `rate` bits a second, up to [`RATE_MAX`], at its time zero.
    pub fn new(rate: u64, errors: Errors) -> Option<Self> {
        let rate = NonZeroU64::new(rate).filter(|rate| rate.get() <= RATE_MAX)?;
        let free = Moment { ns: 0, part: 0 };
        Some(Link { rate, errors, free })
    }

    /// Starts its time anew.
    pub fn restart(&mut self) {
        self.free = Moment { ns: 0, part: 0 };
    }

    /// The band whose first packet goes next, by when the bands' first packets came.
    ///
    /// Asked late, it still answers for the moment the link got free: a packet of priority doesn't overtake one that
    /// was on the link before it came.
    pub fn choose(&self, priority: Option<u64>, normal: Option<u64>) -> Option<Band> {
        match (priority, normal) {
            (Some(priority), Some(normal)) if priority > normal.max(self.free.ns) => {
                Some(Band::Normal)
            }
            (Some(_), _) => Some(Band::Priority),
            (None, Some(_)) => Some(Band::Normal),
            (None, None) => None,
        }
    }

    /// Puts a packet on the link that came at `arrival`: as soon as the link is free, however late it is asked.
    pub fn send(&mut self, arrival: u64, octets: u32) -> Passage {
        let start = self.free.max(Moment {
            ns: arrival,
            part: 0,
        });
        let end = self.after(start, octets);
        self.free = end;
        let bits = u64::from(octets).saturating_mul(8);
        let first = self.bit_at(start);
        Passage {
            end: end.ns.saturating_add(u64::from(end.part > 0)),
            corrupted: self
                .errors
                .first(first, first.saturating_add(bits))
                .is_some(),
        }
    }

    /// `octets` later.
    fn after(&self, start: Moment, octets: u32) -> Moment {
        // Up to 2 GiB this is exact; no packet is longer.
        let lasts = u64::from(octets).saturating_mul(8 * NS_PER_S);
        let mut ns = start.ns.saturating_add(lasts / self.rate);
        // Both are below the rate.
        let mut part = start.part.saturating_add(lasts % self.rate);
        if part >= self.rate.get() {
            part = part.saturating_sub(self.rate.get());
            ns = ns.saturating_add(1);
        }
        Moment { ns, part }
    }

    /// The bit that the link is sending at a moment: a packet's bits are whole even where its start isn't a bit's.
    fn bit_at(&self, at: Moment) -> u64 {
        let rate = self.rate.get();
        let within = (at.ns % NS_PER_S)
            .saturating_mul(rate)
            .saturating_add(at.part);
        (at.ns / NS_PER_S)
            .saturating_mul(rate)
            .saturating_add(within / NS_PER_S)
    }
}
