// SPDX-License-Identifier: GPL-2.0-only
//! Anti-replay window with extended sequence numbers: RFC 4303 §3.4.3 and appendix A.
//!
//! The bitmap belongs to the caller, so that the kernel can allocate it once with the SA: a ring of
//! [`Replay::words`] words in which number *n* has bit *n* modulo the ring's size. Moving the window clears
//! bits instead of shifting words (RFC 6479).

use core::ops::RangeInclusive;

/// Widths a window may have, in packets (docs/wire.md 1.7c).
pub const WIDTHS: RangeInclusive<u32> = 64..=65_536;
/// The width of a window nobody asked otherwise for, in packets (docs/wire.md 1.7c).
pub const DEFAULT_WIDTH: u32 = 8_192;
/// Sequence numbers stay below this: bit 63 marks a relay's IV (docs/wire.md 1.1b).
pub const SEQ_END: u64 = 1 << 63;

/// The window's right edge and width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replay {
    top: u64,
    width: u32,
}

impl Replay {
    /// A window that has seen nothing, or `None` if `width` isn't in [`WIDTHS`].
    #[inline]
    pub fn new(width: u32) -> Option<Self> {
        Self::starting_at(width, 0)
    }

    /// A window with `top` as its highest number and nothing below it seen: how a relay joins (docs/wire.md 1.7f).
    #[inline]
    pub fn starting_at(width: u32, top: u64) -> Option<Self> {
        (WIDTHS.contains(&width) && top < SEQ_END).then_some(Self { top, width })
    }

    /// Words of bitmap a window of `width` needs: a power of two, so that no packet costs a division.
    #[inline]
    pub const fn words(width: u32) -> usize {
        let words = width.div_ceil(64);
        // Below 2^26, so the next power of two exists.
        words.next_power_of_two() as usize
    }

    /// The highest number seen.
    #[inline]
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// The window's width in packets.
    #[inline]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// The 64-bit number whose low half is `lo` (RFC 4303 §A2.2; docs/wire.md 1.7d).
    ///
    /// Where the appendix' rule would go below zero the number is in the first half-space after all.
    #[inline]
    pub fn infer(&self, lo: u32) -> u64 {
        let top_lo = self.top as u32;
        let top_hi = (self.top >> 32) as u32;
        let bottom = top_lo.wrapping_sub(self.width.wrapping_sub(1));
        let hi = if top_lo >= self.width.wrapping_sub(1) {
            // Case A: the window lies within one sub-space.
            if lo >= bottom {
                top_hi
            } else {
                top_hi.wrapping_add(1)
            }
        } else if lo >= bottom {
            // Case B: the window spans two, and the number is in the older.
            top_hi.saturating_sub(1)
        } else {
            top_hi
        };
        u64::from(hi) << 32 | u64::from(lo)
    }

    /// Whether `seq` is new: above the window, or inside and not seen.
    #[inline]
    pub fn check(&self, bits: &[u64], seq: u64) -> bool {
        if seq == 0 || seq >= SEQ_END {
            return false;
        }
        if seq > self.top {
            return true;
        }
        if self.top.wrapping_sub(seq) >= u64::from(self.width) {
            return false;
        }
        let (word, bit) = self.place(seq);
        bits.get(word).is_some_and(|w| w & bit == 0)
    }

    /// Marks `seq` as seen; `false` if it was seen already or is too old.
    #[inline]
    pub fn set(&mut self, bits: &mut [u64], seq: u64) -> bool {
        if !self.check(bits, seq) {
            return false;
        }
        if seq > self.top {
            self.advance(bits, seq);
        }
        let (word, bit) = self.place(seq);
        match bits.get_mut(word) {
            Some(w) => {
                *w |= bit;
                true
            }
            None => false,
        }
    }

    /// Moves the right edge to `seq`, forgetting what had the bits of the numbers between.
    #[inline]
    fn advance(&mut self, bits: &mut [u64], seq: u64) {
        let ring = (Self::words(self.width) as u64).wrapping_mul(64);
        let from = self.top;
        self.top = seq;
        if seq.wrapping_sub(from) >= ring {
            bits.fill(0);
            return;
        }
        // Less than a whole ring: clear (from, seq], a word at a time.
        let mut next = from.wrapping_add(1);
        while next <= seq {
            let last = (next | 63).min(seq);
            let (word, _) = self.place(next);
            let mask = (u64::MAX << (next & 63)) & (u64::MAX >> (!last & 63));
            if let Some(w) = bits.get_mut(word) {
                *w &= !mask;
            }
            next = last.wrapping_add(1);
        }
    }

    #[inline]
    fn place(&self, seq: u64) -> (usize, u64) {
        let mask = Self::words(self.width).wrapping_sub(1);
        ((seq >> 6) as usize & mask, 1 << (seq & 63))
    }
}

/// A relay's way back after it lost the high half: RFC 4303 §A3.
///
/// After [`Resync::LIMIT`] failures of ICV 1 in a row the next high half is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resync {
    failures: u8,
}

impl Resync {
    /// Failures in a row before the next high half is tried (docs/wire.md 1.7g).
    pub const LIMIT: u8 = 8;

    /// The same low half in the next high half.
    #[inline]
    pub const fn next_half(seq: u64) -> u64 {
        seq.saturating_add(1 << 32)
    }

    /// ICV 1 failed, or an explicit IV wasn't the number inferred: says whether the next high half is to be tried.
    ///
    /// Trying costs a second decryption, so forgeries can at most double a relay's work.
    #[inline]
    #[must_use]
    pub fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures >= Self::LIMIT
    }

    /// ICV 1 held.
    #[inline]
    pub fn passed(&mut self) {
        self.failures = 0;
    }
}
