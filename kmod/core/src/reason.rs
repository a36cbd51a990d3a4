// SPDX-License-Identifier: GPL-2.0-only
//! Why a packet is dropped, or by a relay passed on unopened.

/// One reason; its number is its counter's place.
///
/// [`ALL`](Drop::ALL) lists them in that order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Drop {
    /// Too short for what its header promises (docs/wire.md 1.9b).
    Truncated,
    /// Zone 1 and zone 2 ciphertext together aren't a multiple of 4 octets (docs/wire.md 1.9c).
    Alignment,
    /// SPI reserved (0–255), or not this SA's (docs/wire.md 1.9d).
    Spi,
    /// A flag that isn't defined (docs/wire.md 1.9e).
    Flags,
    /// L1 above 256 (docs/wire.md 1.9f).
    L1,
    /// The clear protocol isn't the mode's: not 0 in tunnel mode, not the trailer's in transport mode
    /// (docs/wire.md 1.9g).
    Protocol,
    /// `W` isn't bit 63 of zone 1's IV, or zone 2's IV has bit 63 (docs/wire.md 1.9h).
    IvW,
    /// A relay rewrote zone 1, which this CSA doesn't permit (docs/wire.md 1.9i).
    WriteUnpermitted,
    /// A relay got a zone 1 that another relay rewrote (docs/wire.md 1.9j).
    Rewritten,
    /// An explicit IV isn't the inferred sequence number (docs/wire.md 1.9k).
    SeqMismatch,
    /// Seen before, below the window, or no sequence number at all (docs/wire.md 1.9l).
    Replay,
    /// Zone 1 fails its ICV (docs/wire.md 1.9m).
    Icv1,
    /// Zone 2 fails its ICV (docs/wire.md 1.9m).
    Icv2,
    /// Padding isn't 1, 2, 3 …, or is longer than zone 2 (docs/wire.md 1.9n).
    Padding,
    /// The trailer names a protocol this mode doesn't carry (docs/wire.md 1.9o).
    NextHeader,
    /// A dummy packet (next header 59): no fault, nothing to deliver (docs/wire.md 1.9p).
    Dummy,
    /// L1 isn't what the zone map gives (docs/wire.md 1.9q).
    ZoneMap,
    /// The inner IP header isn't one (docs/wire.md 1.9r).
    InnerHeader,
    /// The inner datagram says it is longer than what arrived, or shorter than its header (docs/wire.md 1.9s).
    InnerLength,
    /// Inner addresses or protocol aren't the CSA's (docs/wire.md 1.9t).
    Selector,
    /// Congestion experienced outside, not ECN-capable inside (RFC 6040 §4.2; docs/wire.md 1.9u).
    Ecn,
}

impl Drop {
    /// Every reason, in the counters' order (docs/wire.md 1.9a).
    pub const ALL: &'static [Drop] = &[
        Drop::Truncated,
        Drop::Alignment,
        Drop::Spi,
        Drop::Flags,
        Drop::L1,
        Drop::Protocol,
        Drop::IvW,
        Drop::WriteUnpermitted,
        Drop::Rewritten,
        Drop::SeqMismatch,
        Drop::Replay,
        Drop::Icv1,
        Drop::Icv2,
        Drop::Padding,
        Drop::NextHeader,
        Drop::Dummy,
        Drop::ZoneMap,
        Drop::InnerHeader,
        Drop::InnerLength,
        Drop::Selector,
        Drop::Ecn,
    ];

    /// How many reasons there are: the length of a counter array.
    pub const COUNT: usize = Self::ALL.len();

    /// The counter's place.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The counter's name (docs/wire.md 1.9a).
    pub const fn name(self) -> &'static str {
        match self {
            Drop::Truncated => "truncated",
            Drop::Alignment => "alignment",
            Drop::Spi => "spi",
            Drop::Flags => "flags",
            Drop::L1 => "l1",
            Drop::Protocol => "protocol",
            Drop::IvW => "iv-w",
            Drop::WriteUnpermitted => "write-unpermitted",
            Drop::Rewritten => "rewritten",
            Drop::SeqMismatch => "seq-mismatch",
            Drop::Replay => "replay",
            Drop::Icv1 => "icv1",
            Drop::Icv2 => "icv2",
            Drop::Padding => "padding",
            Drop::NextHeader => "next-header",
            Drop::Dummy => "dummy",
            Drop::ZoneMap => "zone-map",
            Drop::InnerHeader => "inner-header",
            Drop::InnerLength => "inner-length",
            Drop::Selector => "selector",
            Drop::Ecn => "ecn",
        }
    }
}
