// SPDX-License-Identifier: GPL-2.0-only
//! One packet sealed, opened, read by a relay and rewritten by it, in contiguous buffers.
//!
//! This is the reference composition of the crate's pieces, in the order of `docs/wire.md` §1. The kernel composes
//! the same pieces over its socket buffers; tests, known-answer vectors and fuzzers hold this one to the format.

use core::ops::Range;

use crate::checksum;
use crate::esp::{self, Drop, Header, IvKind, Layout, HEADER_LEN, ICV_LEN, L1_MAX};
use crate::ip::{self, Addresses};
use crate::replay::{Replay, Resync};
use crate::selector::Selector;
use crate::tcp::put16;
use crate::zone::{self, Mode, ZoneMap, HEAD_MAX};

/// An AEAD with a 96-bit nonce and a 128-bit tag, keyed.
pub trait Aead {
    /// Encrypts `data` in place and gives its tag.
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &mut [u8; ICV_LEN]);
    /// Decrypts `data` in place; `false`, and `data` worthless, if the tag is wrong.
    #[must_use]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; ICV_LEN]) -> bool;
}

/// One zone of one direction.
#[derive(Clone, Copy)]
pub struct Zone<'a> {
    /// The zone's key.
    pub aead: &'a dyn Aead,
    /// The zone's salt.
    pub salt: [u8; 4],
    /// Whether its IV is sent.
    pub iv: IvKind,
}

/// One direction of a CSA, as its origin and its terminus have it.
#[derive(Clone, Copy)]
pub struct Sa<'a> {
    /// The designated SA's SPI.
    pub spi: u32,
    /// Where the zones end.
    pub map: ZoneMap,
    /// Zone 1 and zone 2.
    pub zones: [Zone<'a>; 2],
    /// Whether a relay may write.
    pub may_write: bool,
    /// What may be inside, in the direction of the packets.
    pub selector: Option<Selector>,
}

/// One direction of a CSA, as a relay has it: zone 1 alone.
#[derive(Clone, Copy)]
pub struct RelaySa<'a> {
    /// The designated SA's SPI.
    pub spi: u32,
    /// Where the zones end.
    pub map: ZoneMap,
    /// Zone 1.
    pub zone: Zone<'a>,
}

/// Why a datagram can't be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// The sequence number is 0 or used up (2^63).
    SequenceNumber,
    /// The packet wouldn't fit in the buffer.
    NoRoom,
}

/// A packet that passed every check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Its number.
    pub seq: u64,
    /// The protocol of what is inside.
    pub next: u8,
    /// Where in the buffer the datagram lies.
    pub datagram: Range<usize>,
    /// Whether a relay rewrote zone 1.
    pub rewritten: bool,
}

/// A packet whose zone 1 a relay may show to SNOOP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relayed {
    /// Its number.
    pub seq: u64,
    /// The protocol in the clear: the transport protocol in transport mode.
    pub next: u8,
    /// Octets of zone 1.
    pub l1: usize,
    /// Offset within zone 1 of the zeroed checksum field.
    pub moved: Option<usize>,
}

/// Seals `datagram` with `tfc` octets of traffic flow padding behind it (RFC 4303 §2.7) into the front of `out`.
///
/// `next` is the protocol of what is inside: 4 or 41 in tunnel mode, the transport protocol in transport mode, 59
/// for a dummy. Zone 2 is sealed first, zone 1 second (docs/wire.md 1.3e).
///
/// # Errors
/// A sequence number that may not be sent, or a buffer too short.
pub fn seal(
    sa: &Sa<'_>,
    seq: u64,
    next: u8,
    datagram: &[u8],
    tfc: usize,
    out: &mut [u8],
) -> Result<usize, SealError> {
    if !esp::seq_valid(seq) {
        return Err(SealError::SequenceNumber);
    }
    seal_into(sa, seq, next, datagram, tfc, out).ok_or(SealError::NoRoom)
}

fn seal_into(
    sa: &Sa<'_>,
    seq: u64,
    next: u8,
    datagram: &[u8],
    tfc: usize,
    out: &mut [u8],
) -> Option<usize> {
    let mode = sa.map.mode();
    let len = datagram.len();
    let split = sa.map.split(next, datagram.get(..len.min(HEAD_MAX))?, len);
    let [zone1, zone2] = sa.zones;
    let (at, pad) = Layout::seal([zone1.iv, zone2.iv], &split, len.checked_add(tfc)?);
    let out = out.get_mut(..at.end)?;
    let (head, rest) = datagram.split_at_checked(split.l1)?;

    let header = Header {
        spi: sa.spi,
        seq_lo: seq as u32,
        flags: 0,
        protocol: if mode == Mode::Transport { next } else { 0 },
        l1: u16::try_from(split.l1).ok()?,
    };
    let mut octets = [0; HEADER_LEN];
    header.write(&mut octets);
    *out.first_chunk_mut()? = octets;
    for (zone, place) in [(zone1, at.iv1), (zone2, at.iv2)] {
        if zone.iv == IvKind::Explicit {
            *out.get_mut(place..)?.first_chunk_mut()? = seq.to_be_bytes();
        }
    }

    let plain1 = out.get_mut(at.z1..at.icv1)?;
    plain1.copy_from_slice(head);
    let mut body = at.z2;
    let mut check = [0; 2];
    if let Some(field) = split.moved {
        let field = plain1.get_mut(field..)?.first_chunk_mut()?;
        check = core::mem::take(field);
        body = body.checked_add(check.len())?;
    }
    let mut aad = [0; esp::AAD2_MAX];
    let aad_len = esp::aad2(&mut aad, &octets, plain1, mode, next, sa.may_write);

    let plain2 = out.get_mut(at.z2..at.icv2)?;
    if split.moved.is_some() {
        *plain2.first_chunk_mut()? = check;
    }
    let plain2 = out.get_mut(body..at.icv2)?;
    let (to, tail) = plain2.split_at_mut_checked(rest.len())?;
    to.copy_from_slice(rest);
    let (padding, trailer) = tail.split_at_mut_checked(tfc)?;
    padding.fill(0);
    esp::write_trailer(trailer, pad, next);

    seal_zone(&zone2, seq, aad.get(..aad_len)?, out, at.z2..at.icv2)?;
    // docs/wire.md 1.3a.
    seal_zone(&zone1, seq, &octets, out, at.z1..at.icv1)?;
    Some(at.end)
}

/// Opens a packet in place, in the terminus' order (docs/wire.md 1.7b).
///
/// `outer` is the IP header the packet came under; in transport mode its addresses are what the selector is about.
///
/// # Errors
/// The first reason to drop it. Nothing of a dropped packet may be used.
pub fn open(
    sa: &Sa<'_>,
    window: &mut Replay,
    bits: &mut [u64],
    outer: Option<&Addresses>,
    packet: &mut [u8],
) -> Result<Opened, Drop> {
    let octets = *packet.first_chunk::<HEADER_LEN>().ok_or(Drop::Truncated)?;
    let header = Header::parse(&octets)?;
    if header.spi != sa.spi {
        return Err(Drop::Spi);
    }
    let mode = sa.map.mode();
    header.check_protocol(mode)?;
    let [zone1, zone2] = sa.zones;
    let at = Layout::open([zone1.iv, zone2.iv], &header, packet.len())?;
    let iv1 = sent_iv(zone1.iv, packet, at.iv1)?;
    let iv2 = sent_iv(zone2.iv, packet, at.iv2)?;
    header.check_ivs(iv1, iv2, sa.may_write)?;

    let seq = window.infer(header.seq_lo);
    if !window.check(bits, seq) {
        return Err(Drop::Replay);
    }
    let iv1 = esp::nonce_iv(iv1, seq)?;
    let iv2 = esp::nonce_iv(iv2, seq)?;

    // docs/wire.md 1.3a.
    open_zone(&zone1, iv1, &octets, packet, at.z1..at.icv1, Drop::Icv1)?;
    let plain1 = packet.get(at.z1..at.icv1).ok_or(Drop::Truncated)?;
    let moved = zone::moved(mode, header.protocol, plain1);
    let mut aad = [0; esp::AAD2_MAX];
    let aad_len = esp::aad2(
        &mut aad,
        &octets,
        plain1,
        mode,
        header.protocol,
        sa.may_write,
    );
    let aad = aad.get(..aad_len).ok_or(Drop::Truncated)?;
    open_zone(&zone2, iv2, aad, packet, at.z2..at.icv2, Drop::Icv2)?;

    // Another processor may have seen the same number while this one was at work.
    if !window.set(bits, seq) {
        return Err(Drop::Replay);
    }
    let (datagram, next) = deliver(sa, &header, &at, moved, outer, packet)?;
    Ok(Opened {
        seq,
        next,
        datagram,
        rewritten: header.rewritten(),
    })
}

/// Puts the datagram together where zone 2's plaintext lies, and checks what is inside.
fn deliver(
    sa: &Sa<'_>,
    header: &Header,
    at: &Layout,
    moved: Option<usize>,
    outer: Option<&Addresses>,
    packet: &mut [u8],
) -> Result<(Range<usize>, u8), Drop> {
    let mode = sa.map.mode();
    let body = at.z2.saturating_add(if moved.is_some() { 2 } else { 0 });
    let plain2 = packet.get(body..at.icv2).ok_or(Drop::Truncated)?;
    let from = plain2.len().saturating_sub(esp::TRAILER_MAX);
    let trailer = esp::check_trailer(plain2.get(from..).ok_or(Drop::Truncated)?)?;
    trailer.check_next(mode, header)?;

    let check = ip::be16(packet, at.z2).ok_or(Drop::Truncated)?;
    // Zone 1 goes right in front of the rest, over the moved checksum; from its end, since the places may overlap.
    let start = body.checked_sub(at.zone1_len()).ok_or(Drop::Truncated)?;
    for i in (0..at.zone1_len()).rev() {
        let octet = packet.get(at.z1.saturating_add(i)).copied();
        if let (Some(octet), Some(to)) = (octet, packet.get_mut(start.saturating_add(i))) {
            *to = octet;
        }
    }
    let end = at.icv2.saturating_sub(trailer.octets());
    if let Some(field) = moved {
        let field = start.saturating_add(field);
        let change = ip::be16(packet, field).ok_or(Drop::Truncated)?;
        // docs/wire.md 1.4c.
        put16(packet, field, checksum::restore(change, check));
    }
    let datagram = packet.get(start..end).ok_or(Drop::Truncated)?;
    let len = datagram.len();
    let head = datagram.get(..len.min(HEAD_MAX)).ok_or(Drop::Truncated)?;
    if sa.map.split(header.protocol, head, len).l1 != usize::from(header.l1) {
        return Err(Drop::ZoneMap);
    }
    let end = match mode {
        Mode::Transport => {
            if let Some(selector) = &sa.selector {
                let outer = outer.ok_or(Drop::Selector)?;
                let of = outer.carrying(trailer.next, len);
                if !selector.matches(&of, || of.ports_behind(head)) {
                    return Err(Drop::Selector);
                }
            }
            end
        }
        Mode::Tunnel => start.saturating_add(inner_length(sa, trailer.next, head, len)?),
    };
    Ok((start..end, trailer.next))
}

/// Checks the inner header; the datagram's own length, which TFC padding may follow.
#[inline]
fn inner_length(sa: &Sa<'_>, next: u8, head: &[u8], len: usize) -> Result<usize, Drop> {
    let inner = ip::addresses(head).ok_or(Drop::InnerHeader)?;
    if next != inner.encapsulated() {
        return Err(Drop::NextHeader);
    }
    if inner.total_len > len || inner.total_len < inner.header_len {
        return Err(Drop::InnerLength);
    }
    match &sa.selector {
        Some(selector) if !selector.matches(&inner, || inner.ports(head)) => Err(Drop::Selector),
        _ => Ok(inner.total_len),
    }
}

/// Opens zone 1 into `scratch`; the packet's own octets stay what goes on.
///
/// An `Err` is no reason to drop the packet: a relay forwards what it can't open, uncounted by SNOOP
/// (docs/wire.md 1.7e).
///
/// # Errors
/// The first reason not to look at it.
pub fn relay_open(
    sa: &RelaySa<'_>,
    window: &mut Replay,
    bits: &mut [u64],
    resync: &mut Resync,
    packet: &[u8],
    scratch: &mut [u8; L1_MAX],
) -> Result<Relayed, Drop> {
    let octets = *packet.first_chunk::<HEADER_LEN>().ok_or(Drop::Truncated)?;
    let header = Header::parse(&octets)?;
    if header.spi != sa.spi {
        return Err(Drop::Spi);
    }
    let mode = sa.map.mode();
    header.check_protocol(mode)?;
    let at = Layout::relay(sa.zone.iv, &header, packet.len())?;
    let iv = sent_iv(sa.zone.iv, packet, at.iv1)?;
    header.check_ivs(iv, None, true)?;
    // docs/wire.md 1.5f.
    if header.rewritten() {
        return Err(Drop::Rewritten);
    }

    let seq = window.infer(header.seq_lo);
    if !window.check(bits, seq) {
        return Err(Drop::Replay);
    }
    let try_number = |seq: u64, scratch: &mut [u8; L1_MAX]| -> Result<u64, Drop> {
        let iv = esp::nonce_iv(iv, seq)?;
        let cipher = packet.get(at.z1..at.icv1).ok_or(Drop::Truncated)?;
        let tag = packet
            .get(at.icv1..)
            .and_then(|t| t.first_chunk())
            .ok_or(Drop::Truncated)?;
        let plain = scratch.get_mut(..cipher.len()).ok_or(Drop::L1)?;
        plain.copy_from_slice(cipher);
        let good = sa
            .zone
            .aead
            .open(&esp::nonce(&sa.zone.salt, iv), &octets, plain, tag);
        if good {
            Ok(seq)
        } else {
            Err(Drop::Icv1)
        }
    };
    let seq = match try_number(seq, scratch) {
        Ok(seq) => seq,
        Err(reason) if resync.failed() => {
            try_number(Resync::next_half(seq), scratch).map_err(|_| reason)?
        }
        Err(reason) => return Err(reason),
    };
    resync.passed();
    if !window.set(bits, seq) {
        return Err(Drop::Replay);
    }
    let l1 = usize::from(header.l1);
    let plain = scratch.get(..l1).ok_or(Drop::L1)?;
    if !sa.map.admits(header.protocol, plain, at.len_max) {
        return Err(Drop::ZoneMap);
    }
    Ok(Relayed {
        seq,
        next: header.protocol,
        l1,
        moved: zone::moved(mode, header.protocol, plain),
    })
}

/// Puts a changed zone 1 into a packet that [`relay_open`] opened, under the relay's own IV (docs/wire.md 1.5a, 1.5b).
///
/// `iv` comes from [`esp::relay_iv`] and is never used twice. `false`, and nothing changed, if zone 1's IV isn't
/// explicit or `plain` isn't as long as the zone 1 it replaces.
#[must_use]
pub fn relay_write(sa: &RelaySa<'_>, iv: u64, plain: &[u8], packet: &mut [u8]) -> bool {
    relay_write_into(sa, iv, plain, packet).is_some()
}

fn relay_write_into(sa: &RelaySa<'_>, iv: u64, plain: &[u8], packet: &mut [u8]) -> Option<()> {
    let header = Header::parse(packet).ok()?;
    let at = Layout::relay(sa.zone.iv, &header, packet.len()).ok()?;
    if sa.zone.iv != IvKind::Explicit
        || iv & esp::IV_W == 0
        || plain.len() != usize::from(header.l1)
    {
        return None;
    }
    let mut octets = [0; HEADER_LEN];
    Header {
        flags: header.flags | esp::FLAG_W,
        ..header
    }
    .write(&mut octets);
    *packet.first_chunk_mut()? = octets;
    *packet.get_mut(at.iv1..)?.first_chunk_mut()? = iv.to_be_bytes();
    packet.get_mut(at.z1..at.icv1)?.copy_from_slice(plain);
    seal_zone(&sa.zone, iv, &octets, packet, at.z1..at.icv1)
}

/// The IV a packet carries, if it carries one.
#[inline]
fn sent_iv(kind: IvKind, packet: &[u8], at: usize) -> Result<Option<u64>, Drop> {
    match kind {
        IvKind::Implicit => Ok(None),
        IvKind::Explicit => {
            let iv = packet.get(at..).and_then(|tail| tail.first_chunk());
            iv.map(|iv| Some(u64::from_be_bytes(*iv)))
                .ok_or(Drop::Truncated)
        }
    }
}

/// Seals one zone in place; its ICV lies right behind it.
fn seal_zone(
    zone: &Zone<'_>,
    iv: u64,
    aad: &[u8],
    packet: &mut [u8],
    place: Range<usize>,
) -> Option<()> {
    let (data, rest) = packet
        .get_mut(place.start..)?
        .split_at_mut_checked(place.len())?;
    zone.aead.seal(
        &esp::nonce(&zone.salt, iv),
        aad,
        data,
        rest.first_chunk_mut()?,
    );
    Some(())
}

/// Opens one zone in place.
fn open_zone(
    zone: &Zone<'_>,
    iv: u64,
    aad: &[u8],
    packet: &mut [u8],
    place: Range<usize>,
    reason: Drop,
) -> Result<(), Drop> {
    let tail = packet.get_mut(place.start..).ok_or(Drop::Truncated)?;
    let (data, rest) = tail
        .split_at_mut_checked(place.len())
        .ok_or(Drop::Truncated)?;
    let tag = rest.first_chunk().ok_or(Drop::Truncated)?;
    if zone.aead.open(&esp::nonce(&zone.salt, iv), aad, data, tag) {
        Ok(())
    } else {
        Err(reason)
    }
}
