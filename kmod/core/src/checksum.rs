// SPDX-License-Identifier: GPL-2.0-only
//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Adds two numbers in one's-complement arithmetic (end-around carry).
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // With a carry the sum is at most 0xFFFE, so this can't overflow again.
    sum.wrapping_add(carry as u16)
}

/// Sums `data` as big-endian 16-bit words, folded but not complemented (RFC 1071).
///
/// An odd last octet counts as the high half of a word.
#[inline]
pub fn sum(data: &[u8]) -> u16 {
    let mut total: u64 = 0;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        if let [a, b, c, d] = *word {
            // A u64 holds 2^32 of these: more than any slice that is a packet.
            total = total.wrapping_add(u64::from(u32::from_be_bytes([a, b, c, d])));
        }
    }
    let rest = match *words.remainder() {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    fold(total.wrapping_add(u64::from(u32::from_be_bytes(rest))))
}

/// Folds the carries of a sum of 16-bit words back in.
#[inline]
const fn fold(mut total: u64) -> u16 {
    while total > 0xFFFF {
        total = (total >> 16).wrapping_add(total & 0xFFFF);
    }
    total as u16
}

/// The checksum field after one 16-bit word it covers went from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update16(check: u16, old: u16, new: u16) -> u16 {
    !add(!check, add(!old, new))
}

/// What a writing relay adds to the zeroed field in zone 1 when a word went from `old` to `new` (docs/wire.md 1.4b).
///
/// [`restore`] of it and the moved checksum is [`update16`] of the moved checksum (docs/wire.md 1.4b).
#[inline]
pub const fn correction(old: u16, new: u16) -> u16 {
    if old == new {
        // The one's-complement zero that leaves any checksum's octets alone.
        return 0;
    }
    add(old, !new)
}

/// The checksum as the receiver must see it, from zone 1's field and the one that travelled in zone 2
/// (docs/wire.md 1.4c).
///
/// A field no relay has touched is zero, and zero leaves every moved value as it was, UDP's "none" (0) too.
#[inline]
pub const fn restore(field: u16, moved: u16) -> u16 {
    add(field, moved)
}
