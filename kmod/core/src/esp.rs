// SPDX-License-Identifier: GPL-2.0-only
//! Zone ESP framing: header, layout, nonces, trailer and additional authenticated data (`docs/wire.md` §1).

pub use crate::reason::Drop;

use crate::ip;
use crate::replay::SEQ_END;
use crate::zone::{self, Mode, Split, HEAD_MAX};

/// ESP header (8) and zone header (4), in octets.
pub const HEADER_LEN: usize = 12;
/// Each zone's ICV, in octets.
pub const ICV_LEN: usize = 16;
/// An explicit IV, in octets.
pub const IV_LEN: usize = 8;
/// Each zone's salt, in octets.
pub const SALT_LEN: usize = 4;
/// Pad length and next header, in octets.
pub const TRAILER_LEN: usize = 2;
/// Longest padding with its trailer, in octets.
pub const TRAILER_MAX: usize = 255 + TRAILER_LEN;
/// Longest AAD 2, in octets.
pub const AAD2_MAX: usize = HEADER_LEN + L1_MAX;
/// Zone 1 at its longest, in octets (docs/wire.md 1.1e).
pub const L1_MAX: usize = HEAD_MAX;
/// Flag `W`: a relay rewrote zone 1 (docs/wire.md 1.1c).
pub const FLAG_W: u8 = 1;
/// The lowest SPI that isn't reserved (RFC 4303 §2.1; docs/wire.md 1.1a).
pub const SPI_MIN: u32 = 256;
/// The bit of an IV that says a relay made it (docs/wire.md 1.2e).
pub const IV_W: u64 = 1 << 63;

/// Whether a zone's IV is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvKind {
    /// The sequence number, not sent (RFC 8750; docs/wire.md 1.2c).
    Implicit,
    /// Eight octets in front of the ciphertext (docs/wire.md 1.2d).
    Explicit,
}

impl IvKind {
    /// Octets on the wire.
    #[inline]
    pub const fn octets(self) -> usize {
        match self {
            IvKind::Implicit => 0,
            IvKind::Explicit => IV_LEN,
        }
    }
}

/// The first twelve octets of a packet (docs/wire.md 1a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The designated SA's SPI.
    pub spi: u32,
    /// Low half of the sequence number.
    pub seq_lo: u32,
    /// [`FLAG_W`] or nothing.
    pub flags: u8,
    /// The next header in transport mode, 0 in tunnel mode.
    pub protocol: u8,
    /// Octets of zone 1.
    pub l1: u16,
}

/// The SPI of an ESP packet of any kind: what it is looked up by.
#[inline]
pub fn spi(packet: &[u8]) -> Option<u32> {
    packet
        .first_chunk()
        .map(|&octets| u32::from_be_bytes(octets))
}

impl Header {
    /// Reads a header; the mode's rule on `protocol` is [`check_protocol`](Header::check_protocol)'s.
    ///
    /// # Errors
    /// [`Drop::Truncated`], [`Drop::Spi`], [`Drop::Flags`], [`Drop::L1`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Drop> {
        let Some(&[s0, s1, s2, s3, n0, n1, n2, n3, flags, protocol, l0, l1]) =
            packet.first_chunk::<HEADER_LEN>()
        else {
            return Err(Drop::Truncated);
        };
        let header = Self {
            spi: u32::from_be_bytes([s0, s1, s2, s3]),
            seq_lo: u32::from_be_bytes([n0, n1, n2, n3]),
            flags,
            protocol,
            l1: u16::from_be_bytes([l0, l1]),
        };
        if header.spi < SPI_MIN {
            return Err(Drop::Spi);
        }
        if flags & !FLAG_W != 0 {
            return Err(Drop::Flags);
        }
        if usize::from(header.l1) > L1_MAX {
            return Err(Drop::L1);
        }
        Ok(header)
    }

    /// Writes the header.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER_LEN]) {
        let [s0, s1, s2, s3] = self.spi.to_be_bytes();
        let [n0, n1, n2, n3] = self.seq_lo.to_be_bytes();
        let [l0, l1] = self.l1.to_be_bytes();
        *out = [
            s0,
            s1,
            s2,
            s3,
            n0,
            n1,
            n2,
            n3,
            self.flags,
            self.protocol,
            l0,
            l1,
        ];
    }

    /// Whether a relay rewrote zone 1.
    #[inline]
    pub const fn rewritten(&self) -> bool {
        self.flags & FLAG_W != 0
    }

    /// Tunnel mode has no protocol in the clear (docs/wire.md 1.1d).
    ///
    /// # Errors
    /// [`Drop::Protocol`].
    #[inline]
    pub fn check_protocol(&self, mode: Mode) -> Result<(), Drop> {
        match mode {
            Mode::Tunnel if self.protocol != 0 => Err(Drop::Protocol),
            _ => Ok(()),
        }
    }

    /// The rules on `W` that need no key: zone 1's IV agrees (`None`: implicit), zone 2's never has it, and the
    /// CSA permits writing (docs/wire.md 1.2e, 1.5j).
    ///
    /// # Errors
    /// [`Drop::IvW`], [`Drop::WriteUnpermitted`].
    #[inline]
    pub fn check_ivs(
        &self,
        iv1: Option<u64>,
        iv2: Option<u64>,
        may_write: bool,
    ) -> Result<(), Drop> {
        let marked = |iv: Option<u64>| iv.unwrap_or(0) & IV_W != 0;
        if marked(iv1) != self.rewritten() || marked(iv2) {
            return Err(Drop::IvW);
        }
        if self.rewritten() && !may_write {
            return Err(Drop::WriteUnpermitted);
        }
        Ok(())
    }
}

/// The IV that goes into a zone's nonce, from the one sent (`None`: implicit) and the inferred sequence number
/// (docs/wire.md 1.2c, 1.2d).
///
/// # Errors
/// [`Drop::SeqMismatch`] where the origin's IV isn't that number.
#[inline]
pub fn nonce_iv(sent: Option<u64>, seq: u64) -> Result<u64, Drop> {
    match sent {
        None => Ok(seq),
        Some(iv) if iv & IV_W != 0 || iv == seq => Ok(iv),
        Some(_) => Err(Drop::SeqMismatch),
    }
}

/// A writing relay's IV: 1 (1 bit) ‖ relay number (15) ‖ its own counter (48); `None` once either is used up
/// (docs/wire.md 1.5b).
#[inline]
pub const fn relay_iv(number: u16, counter: u64) -> Option<u64> {
    if number >= 1 << 15 || counter >= 1 << 48 {
        return None;
    }
    Some(IV_W | (number as u64) << 48 | counter)
}

/// A zone's nonce: salt ‖ IV (docs/wire.md 1.2a).
#[inline]
pub fn nonce(salt: &[u8; SALT_LEN], iv: u64) -> [u8; 12] {
    let [s0, s1, s2, s3] = *salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv.to_be_bytes();
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// Where everything lies in a zone ESP packet, in octets from the ESP header (docs/wire.md 1a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Zone 1's IV, if it is explicit.
    pub iv1: usize,
    /// Zone 1's ciphertext.
    pub z1: usize,
    /// ICV 1: zone 1's end.
    pub icv1: usize,
    /// Zone 2's IV, if it is explicit.
    pub iv2: usize,
    /// Zone 2's ciphertext.
    pub z2: usize,
    /// ICV 2: zone 2's end.
    pub icv2: usize,
    /// The packet's end.
    pub end: usize,
}

impl Layout {
    /// The layout for a datagram of `len` octets (TFC padding included), and how much padding it needs so that
    /// both zones' ciphertext together are a multiple of 4 (docs/wire.md 1.6b).
    #[inline]
    pub fn seal(ivs: [IvKind; 2], split: &Split, len: usize) -> (Self, u8) {
        let front = RelayLayout::at(ivs, split.l1);
        let moved = if split.moved.is_some() { 2 } else { 0 };
        let unpadded = len.saturating_add(moved).saturating_add(TRAILER_LEN);
        let pad = unpadded.wrapping_neg() & 3;
        let zone2 = unpadded.saturating_sub(split.l1).saturating_add(pad);
        let icv2 = front.z2.saturating_add(zone2);
        // `pad` is below 4.
        (
            front.with_zone2(icv2, icv2.saturating_add(ICV_LEN)),
            pad as u8,
        )
    }

    /// The layout of a packet of `total` octets that arrived (docs/wire.md 1.6b).
    ///
    /// # Errors
    /// [`Drop::L1`]; [`Drop::Truncated`] if zone 2 doesn't hold its trailer; [`Drop::Alignment`].
    #[inline]
    pub fn open(ivs: [IvKind; 2], header: &Header, total: usize) -> Result<Self, Drop> {
        let l1 = usize::from(header.l1);
        if l1 > L1_MAX {
            return Err(Drop::L1);
        }
        let front = RelayLayout::at(ivs, l1);
        let icv2 = total.checked_sub(ICV_LEN).ok_or(Drop::Truncated)?;
        let zone2 = icv2.checked_sub(front.z2).ok_or(Drop::Truncated)?;
        if zone2 < TRAILER_LEN {
            return Err(Drop::Truncated);
        }
        if l1.saturating_add(zone2) & 3 != 0 {
            return Err(Drop::Alignment);
        }
        Ok(front.with_zone2(icv2, total))
    }

    /// What a relay can tell of a packet of `total` octets, with zone 1's IV kind alone.
    ///
    /// # Errors
    /// [`Drop::L1`]; [`Drop::Truncated`] if no zone 2 fits behind zone 1.
    #[inline]
    pub fn relay(iv1: IvKind, header: &Header, total: usize) -> Result<RelayLayout, Drop> {
        let l1 = usize::from(header.l1);
        if l1 > L1_MAX {
            return Err(Drop::L1);
        }
        let layout = RelayLayout::at([iv1, IvKind::Implicit], l1);
        let most = total
            .checked_sub(layout.z2)
            .and_then(|n| n.checked_sub(TRAILER_LEN + ICV_LEN));
        let rest_max = most.ok_or(Drop::Truncated)?;
        Ok(RelayLayout {
            len_max: l1.saturating_add(rest_max),
            ..layout
        })
    }

    /// Octets of zone 1.
    #[inline]
    pub const fn zone1_len(&self) -> usize {
        self.icv1.saturating_sub(self.z1)
    }

    /// Octets of zone 2's ciphertext.
    #[inline]
    pub const fn zone2_len(&self) -> usize {
        self.icv2.saturating_sub(self.z2)
    }
}

/// Where zone 1 lies: all of a packet's layout that a relay can know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayLayout {
    /// Zone 1's IV, if it is explicit.
    pub iv1: usize,
    /// Zone 1's ciphertext.
    pub z1: usize,
    /// ICV 1: zone 1's end.
    pub icv1: usize,
    /// Where zone 2's part of the packet begins.
    pub iv2: usize,
    /// The longest the datagram inside can be.
    pub len_max: usize,
    z2: usize,
}

impl RelayLayout {
    #[inline]
    fn at(ivs: [IvKind; 2], l1: usize) -> Self {
        let [kind1, kind2] = ivs;
        let z1 = HEADER_LEN.saturating_add(kind1.octets());
        let icv1 = z1.saturating_add(l1);
        let iv2 = icv1.saturating_add(ICV_LEN);
        Self {
            iv1: HEADER_LEN,
            z1,
            icv1,
            iv2,
            len_max: 0,
            z2: iv2.saturating_add(kind2.octets()),
        }
    }

    #[inline]
    fn with_zone2(self, icv2: usize, end: usize) -> Layout {
        Layout {
            iv1: self.iv1,
            z1: self.z1,
            icv1: self.icv1,
            iv2: self.iv2,
            z2: self.z2,
            icv2,
            end,
        }
    }
}

/// The end of zone 2's plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Octets of padding.
    pub pad: u8,
    /// The protocol of what is inside.
    pub next: u8,
}

impl Trailer {
    /// Octets of padding and trailer.
    #[inline]
    pub fn octets(&self) -> usize {
        usize::from(self.pad).saturating_add(TRAILER_LEN)
    }

    /// Whether the trailer names what this mode carries and the header said (docs/wire.md 1.1d, 1.6d).
    ///
    /// # Errors
    /// [`Drop::Protocol`] in transport mode, [`Drop::NextHeader`] in tunnel mode; [`Drop::Dummy`] in both.
    #[inline]
    pub fn check_next(&self, mode: Mode, header: &Header) -> Result<(), Drop> {
        match (mode, self.next) {
            (Mode::Transport, next) if next != header.protocol => Err(Drop::Protocol),
            (_, ip::NO_NEXT) => Err(Drop::Dummy),
            (Mode::Transport, _) | (Mode::Tunnel, ip::IPV4 | ip::IPV6) => Ok(()),
            (Mode::Tunnel, _) => Err(Drop::NextHeader),
        }
    }
}

/// Writes padding 1, 2, 3 …, pad length and next header at the front of `out` (docs/wire.md 1.6a).
#[inline]
pub fn write_trailer(out: &mut [u8], pad: u8, next: u8) {
    let tail = (1..=pad).chain([pad, next]);
    for (octet, value) in out.iter_mut().zip(tail) {
        *octet = value;
    }
}

/// Reads and checks the trailer at the end of `tail` (RFC 4303 §2.4; docs/wire.md 1.6b, 1.6c).
///
/// `tail` is the last [`TRAILER_MAX`] octets of zone 2's plaintext, or all of it behind a moved checksum where that is less.
///
/// # Errors
/// [`Drop::Truncated`], [`Drop::Padding`].
#[inline]
pub fn check_trailer(tail: &[u8]) -> Result<Trailer, Drop> {
    let Some((padded, &[pad, next])) = tail.split_last_chunk::<TRAILER_LEN>() else {
        return Err(Drop::Truncated);
    };
    let start = padded
        .len()
        .checked_sub(usize::from(pad))
        .ok_or(Drop::Padding)?;
    let padding = padded.get(start..).ok_or(Drop::Padding)?;
    if !padding.iter().copied().eq(1..=pad) {
        return Err(Drop::Padding);
    }
    Ok(Trailer { pad, next })
}

/// Writes AAD 2 and says how long it is: the header with `W` cleared ‖ zone 1's plaintext as sealed
/// (docs/wire.md 1.3b, 1.3d).
///
/// Where the CSA permits writing, the fields a relay may change count as zero: ECN bits, IPv4 header checksum, TCP
/// window and TCP checksum. `next` is the transport protocol in transport mode, and doesn't matter in tunnel mode.
#[inline]
pub fn aad2(
    out: &mut [u8; AAD2_MAX],
    header: &[u8; HEADER_LEN],
    zone1: &[u8],
    mode: Mode,
    next: u8,
    may_write: bool,
) -> usize {
    let (front, back) = out.split_at_mut(HEADER_LEN);
    for (octet, value) in front.iter_mut().zip(header) {
        *octet = *value;
    }
    if let Some(flags) = front.get_mut(8) {
        *flags &= !FLAG_W;
    }
    let len = zone1.len().min(L1_MAX);
    if let (Some(to), Some(from)) = (back.get_mut(..len), zone1.get(..len)) {
        to.copy_from_slice(from);
        if may_write {
            mask(to, mode, next);
        }
    }
    HEADER_LEN.saturating_add(len)
}

/// Zeroes the fields of zone 1 that a permitted relay may change (docs/wire.md 1.3c).
#[inline]
pub fn mask(zone1: &mut [u8], mode: Mode, next: u8) {
    if let Some(tcp) = zone::tcp_header(mode, next, zone1) {
        // Window (2) and checksum (2), RFC 9293 §3.1.
        zone1
            .iter_mut()
            .skip(tcp.saturating_add(14))
            .take(4)
            .for_each(|octet| *octet = 0);
    }
    if mode == Mode::Transport {
        return;
    }
    match ip::version(zone1) {
        4 => {
            if let Some(ds) = zone1.get_mut(1) {
                *ds &= !crate::ecn::MASK;
            }
            zone1
                .iter_mut()
                .skip(10)
                .take(2)
                .for_each(|octet| *octet = 0);
        }
        6 => {
            if let Some(class) = zone1.get_mut(1) {
                *class &= !(crate::ecn::MASK << 4);
            }
        }
        _ => {}
    }
}

/// Whether a sequence number may be sent: from 1, below 2^63 (docs/wire.md 1.1b).
#[inline]
pub const fn seq_valid(seq: u64) -> bool {
    seq != 0 && seq < SEQ_END
}
