// SPDX-License-Identifier: GPL-2.0-only
//! TCP sequence numbers: 32 bits that wrap, compared by difference (RFC 9293 §3.4).

/// Whether `a` comes before `b`. Of two numbers half the space apart each comes before the other.
#[inline]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether `a` comes after `b`.
#[inline]
pub const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// The later of two.
#[inline]
pub(crate) const fn later(a: u32, b: u32) -> u32 {
    if before(a, b) {
        b
    } else {
        a
    }
}

/// Octets from `a` to `b`, 0 if `b` doesn't come after it.
#[inline]
pub(crate) const fn span(a: u32, b: u32) -> u32 {
    if after(b, a) {
        b.wrapping_sub(a)
    } else {
        0
    }
}
