// SPDX-License-Identifier: GPL-2.0-only
//! Explicit congestion notification through a tunnel: RFC 6040, normal mode.

/// The ECN bits of the DS octet.
pub const MASK: u8 = 0b11;
/// Not ECN-capable (RFC 3168 §5).
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, the codepoint that counts as marked more than [`ECT0`] (RFC 6040 §4.2).
pub const ECT1: u8 = 0b01;
/// ECN-capable.
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The outer header's DS octet for an inner one: DSCP and ECN are copied (RFC 6040 §4.1, RFC 4301 §5.1.2.1)
/// (docs/wire.md 1.7i).
#[inline]
pub const fn encap(inner_ds: u8) -> u8 {
    inner_ds
}

/// The DS octet to deliver, or `None` where the packet must be dropped (RFC 6040 §4.2, figure 4; docs/wire.md 1.7i).
///
/// The DSCP stays the inner one's.
#[inline]
pub const fn decap(inner_ds: u8, outer_ds: u8) -> Option<u8> {
    let ecn = match (inner_ds & MASK, outer_ds & MASK) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (ECT0, ECT1) => ECT1,
        (inner, _) => inner,
    };
    Some((inner_ds & !MASK) | ecn)
}
