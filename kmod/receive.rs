// SPDX-License-Identifier: GPL-2.0-only

//! Terminus: an ESP packet for one of our CSAs is checked in the order of docs/wire.md §1, opened where it lies and its
//! datagram delivered on `mml0`.

use mml_core::esp::{self, Header, Layout};
use mml_core::ip::{self, Addresses};
use mml_core::zone::{self, Mode, HEAD_MAX};
use mml_core::{checksum, ecn};

use crate::counters::Reason;
use crate::crypto::{Linear, ICV_LEN};
use crate::ends::{Outer, UDP_LEN};
use crate::namespace::Namespace;
use crate::sadb::Csa;
use crate::skb::{Buffer, Skb};
use crate::sync::{Bh, Reader};
use crate::zone_message;

/// The terminus CSA of an ESP packet whose data starts at the ESP header, if it is one of ours (docs/wire.md 1.7a).
#[inline]
pub(crate) fn find<'g>(ns: &'g Namespace, skb: &mut Buffer, reader: &'g Reader) -> Option<&'g Csa> {
    if ns.sadb.termini.len() == 0 || !skb.pull_head(4) {
        return None;
    }
    let spi = esp::spi(skb.linear())?;
    let outer = Outer::of(skb.network_header())?;
    ns.sadb.terminus(&outer, spi, reader)
}

/// The origin CSA of the packet that an ICMP error quotes; `skb`'s data starts at the quoted IP header, which ESP follows
/// `at` octets on.
pub(crate) fn find_origin<'g>(
    ns: &'g Namespace,
    skb: &Buffer,
    at: Option<usize>,
    reader: &'g Reader,
) -> Option<&'g Csa> {
    if ns.sadb.origins.len() == 0 {
        return None;
    }
    let quoted = skb.linear();
    let outer = Outer::of(quoted)?;
    let at = at.unwrap_or(usize::from(quoted.first()? & 0x0F) << 2);
    ns.sadb
        .origin_by_spi(&outer, esp::spi(quoted.get(at..)?)?, reader)
}

/// Takes a packet of `csa`; its data starts at the ESP header.
#[inline]
pub(crate) fn deliver(ns: &Namespace, csa: &Csa, skb: Skb, bh: &Bh, reader: &Reader) {
    if let Err(reason) = open(ns, csa, skb, bh, reader) {
        csa.count(ns, reason);
    }
}

/// docs/wire.md 1.7b.
fn open(ns: &Namespace, csa: &Csa, skb: Skb, bh: &Bh, reader: &Reader) -> Result<(), Reason> {
    if !csa.opens() {
        return Err(csa.closed());
    }
    let outer_ds = ip::ds(skb.network_header()).unwrap_or(0);
    // Refuse what costs nothing to refuse before a copy is made of it.
    // A driver may have left no more of the packet linear than was pulled to find the CSA.
    let front = skb
        .octets::<{ esp::HEADER_LEN }>(0)
        .ok_or(esp::Drop::Truncated)?;
    let header = Header::parse(&front)?;
    header.check_protocol(csa.map.mode())?;
    let own = match csa.map.mode() {
        Mode::Tunnel => None,
        Mode::Transport => Some(Own::read(skb.network_header()).ok_or(esp::Drop::InnerHeader)?),
    };
    let mut skb = skb.into_private().ok_or(Reason::NoMemory)?;
    let octets = skb.linear_mut().ok_or(Reason::NoMemory)?;
    let inside = open_zones(csa, header, octets, outer_ds, own.as_ref(), bh)?;
    mapping(ns, csa, skb.network_header());
    if !skb.cut(inside.start, inside.len) {
        return Err(Reason::NoMemory);
    }
    if let Some(mut own) = own {
        let header = own.becomes(inside.next, inside.len)?;
        if !skb.prepend(header) {
            return Err(Reason::NoMemory);
        }
    }
    let device = ns.device.get(reader).ok_or(Reason::NoDevice)?;
    // Past a NAT the checksum is over other addresses; that both ICVs hold says more than it would (RFC 3948 §3.1.2)
    // (docs/wire.md 1.7p).
    skb.deliver(
        device,
        csa.map.mode() == Mode::Transport && csa.ends.are_in_udp(),
    );
    Ok(())
}

/// Transport mode: the IP header that the packet came under, which is the datagram's own.
struct Own {
    octets: [u8; ip::HEADERS_MAX],
    of: Addresses,
}

impl Own {
    /// Of all that is in front of ESP. `None` if that isn't an IP header, with UDP's behind it or not.
    #[inline(never)]
    fn read(front: &[u8]) -> Option<Own> {
        let of = ip::addresses(front)?;
        let udp = if of.protocol == ip::UDP { UDP_LEN } else { 0 };
        if of.header_len.checked_add(udp)? != front.len() {
            return None;
        }
        let mut octets = [0; ip::HEADERS_MAX];
        octets
            .get_mut(..of.header_len)?
            .copy_from_slice(front.get(..of.header_len)?);
        Some(Own { octets, of })
    }

    /// Makes it the header of `len` octets of `next` (docs/wire.md 1.11b).
    fn becomes(&mut self, next: u8, len: usize) -> Result<&[u8], esp::Drop> {
        let of_len = self.of.header_len;
        let header = self
            .octets
            .get_mut(..of_len)
            .ok_or(esp::Drop::InnerHeader)?;
        if ip::set_next(header, next) && ip::set_total(header, of_len.saturating_add(len)) {
            Ok(header)
        } else {
            Err(esp::Drop::InnerLength)
        }
    }
}

/// Where in the opened octets what was sealed lies, and what it is.
struct Inside {
    start: usize,
    len: usize,
    next: u8,
}

/// Tells if an authentic packet came from another address or port than its CSA's: a NAT has changed its mind (RFC 3948,
/// RFC 7296 §2.23). `outer` is all in front of ESP (docs/wire.md 2.2i).
#[inline]
fn mapping(ns: &Namespace, csa: &Csa, outer: &[u8]) {
    if csa.ends.are_in_udp() {
        compare(ns, csa, outer);
    }
}

#[inline(never)]
fn compare(ns: &Namespace, csa: &Csa, outer: &[u8]) -> Option<()> {
    let path = csa.ends.get();
    let encap = path.encap?;
    let from = Outer::of(outer)?;
    let udp = outer.get(outer.len().checked_sub(UDP_LEN)?..)?;
    // A packet that came bare has no port.
    let bare = outer.len() < from.header_len() + UDP_LEN;
    let sport = u16::from_be_bytes(*udp.first_chunk()?);
    let same = from.family == path.outer.family && from.src == path.outer.src;
    if !bare && (!same || sport != encap.sport) {
        zone_message::new_mapping(ns, csa, &path, (&from, sport));
    }
    Some(())
}

/// Opens and checks it all; says where in `octets` the datagram then lies (docs/wire.md 1.7b).
#[inline]
fn open_zones(
    csa: &Csa,
    header: Header,
    mut octets: Linear<'_>,
    outer_ds: u8,
    own: Option<&Own>,
    bh: &Bh,
) -> Result<Inside, Reason> {
    let truncated = Reason::Format(esp::Drop::Truncated);
    let zone2 = csa.zone2.as_ref().ok_or(Reason::NotActive)?;
    let at = Layout::open([csa.zone1.iv, zone2.iv], &header, octets.len())?;
    let iv1 = sent_iv(csa.zone1.iv, &octets, at.iv1)?;
    let iv2 = sent_iv(zone2.iv, &octets, at.iv2)?;
    header.check_ivs(iv1, iv2, csa.may_write)?;

    let seq = {
        let book = csa.book.lock();
        let seq = book.replay.infer(header.seq_lo);
        if !book.replay.check(&book.bits, seq) {
            return Err(esp::Drop::Replay.into());
        }
        seq
    };
    let iv1 = esp::nonce_iv(iv1, seq)?;
    let iv2 = esp::nonce_iv(iv2, seq)?;
    let front = *octets
        .first_chunk::<{ esp::HEADER_LEN }>()
        .ok_or(truncated)?;

    // Each zone and its AAD are brought together into one piece before the cipher sees them (docs/wire.md 1.3a).
    let l1 = at.zone1_len();
    let aad = at.z1 - esp::HEADER_LEN;
    octets
        .get_mut(aad..at.z1)
        .ok_or(truncated)?
        .copy_from_slice(&front);
    let piece = octets.range(aad, at.icv1 + ICV_LEN).ok_or(truncated)?;
    csa.zone1
        .aead
        .open(
            bh,
            piece,
            esp::HEADER_LEN,
            &esp::nonce(&csa.zone1.salt, iv1),
        )
        .map_err(|_| esp::Drop::Icv1)?;

    // AAD 2 in front of zone 2: zone 1 goes there for good, but for what a relay may have changed in it
    // (docs/wire.md 1.3b).
    let moved = zone::moved(
        csa.map.mode(),
        header.protocol,
        octets.get(at.z1..at.icv1).ok_or(truncated)?,
    );
    let place = at.z2 - l1;
    octets.shift(at.z1, l1, place).ok_or(truncated)?;
    let aad = place - esp::HEADER_LEN;
    let first = octets.get_mut(aad..place).ok_or(truncated)?;
    first.copy_from_slice(&front);
    if let Some(flags) = first.get_mut(8) {
        *flags &= !esp::FLAG_W;
    }
    let nonce = esp::nonce(&zone2.salt, iv2);
    // docs/wire.md 1.3d.
    let open = |octets: &mut Linear<'_>| -> Result<(), Reason> {
        let piece = octets.range(aad, at.icv2 + ICV_LEN).ok_or(truncated)?;
        zone2
            .aead
            .open(bh, piece, esp::HEADER_LEN + l1, &nonce)
            .map_err(|_| esp::Drop::Icv2.into())
    };
    if csa.may_write {
        let mut kept = [0; HEAD_MAX];
        let kept = kept.get_mut(..l1).ok_or(esp::Drop::L1)?;
        let zone1 = octets.get_mut(place..at.z2).ok_or(truncated)?;
        kept.copy_from_slice(zone1);
        // docs/wire.md 1.3c.
        esp::mask(zone1, csa.map.mode(), header.protocol);
        open(&mut octets)?;
        octets
            .get_mut(place..at.z2)
            .ok_or(truncated)?
            .copy_from_slice(kept);
    } else {
        open(&mut octets)?;
    }

    {
        let mut book = csa.book.lock();
        let book = &mut *book;
        if !book.replay.set(&mut book.bits, seq) {
            return Err(esp::Drop::Replay.into());
        }
        book.packets += 1;
        book.octets += octets.len() as u64;
        // docs/wire.md 2.5d, 2.5e.
        csa.spend(book.packets, book.octets)?;
    }
    let inside = assemble(csa, &header, &at, moved, own, &mut octets)?;
    if own.is_none() {
        let datagram = octets.get_mut(inside.start..).ok_or(truncated)?;
        decapsulate_ecn(datagram, outer_ds)?;
    }
    Ok(inside)
}

/// Puts zone 1, which ends where zone 2 begins, right in front of the payload, and checks what that makes.
#[inline]
fn assemble(
    csa: &Csa,
    header: &Header,
    at: &Layout,
    moved: Option<usize>,
    own: Option<&Own>,
    octets: &mut Linear<'_>,
) -> Result<Inside, Reason> {
    let truncated = Reason::Format(esp::Drop::Truncated);
    let body = at.z2 + if moved.is_some() { 2 } else { 0 };
    let plain = octets.get(body..at.icv2).ok_or(truncated)?;
    let tail = plain
        .get(plain.len().saturating_sub(esp::TRAILER_MAX)..)
        .ok_or(truncated)?;
    let trailer = esp::check_trailer(tail)?;
    trailer.check_next(csa.map.mode(), header)?;
    let end = at
        .icv2
        .checked_sub(trailer.octets())
        .filter(|end| *end >= body)
        .ok_or(Reason::Format(esp::Drop::Padding))?;
    let check = octets
        .get(at.z2..)
        .and_then(|o| o.first_chunk())
        .map_or(0, |o| u16::from_be_bytes(*o));
    let start = body - at.zone1_len();
    octets
        .shift(at.z2 - at.zone1_len(), at.zone1_len(), start)
        .ok_or(truncated)?;
    if let Some(field) = moved {
        let field: &mut [u8; 2] = octets
            .get_mut(start + field..)
            .and_then(|o| o.first_chunk_mut())
            .ok_or(truncated)?;
        // docs/wire.md 1.4c.
        *field = checksum::restore(u16::from_be_bytes(*field), check).to_be_bytes();
    }
    let datagram = octets.get(start..end).ok_or(truncated)?;
    let head = datagram
        .get(..datagram.len().min(HEAD_MAX))
        .ok_or(truncated)?;
    if csa.map.split(header.protocol, head, datagram.len()).l1 != usize::from(header.l1) {
        return Err(esp::Drop::ZoneMap.into());
    }
    if let Some(own) = own {
        let of = own.of.carrying(trailer.next, datagram.len());
        if !csa.selector.matches(&of, || of.ports_behind(head)) {
            return Err(esp::Drop::Selector.into());
        }
        return Ok(Inside {
            start,
            len: datagram.len(),
            next: trailer.next,
        });
    }
    let inner = ip::addresses(head).ok_or(esp::Drop::InnerHeader)?;
    if trailer.next != inner.encapsulated() {
        return Err(esp::Drop::NextHeader.into());
    }
    if inner.total_len > datagram.len() || inner.total_len < inner.header_len {
        return Err(esp::Drop::InnerLength.into());
    }
    // docs/wire.md 2.3m.
    if !csa.selector.matches(&inner, || inner.ports(head)) {
        return Err(esp::Drop::Selector.into());
    }
    Ok(Inside {
        start,
        len: inner.total_len,
        next: trailer.next,
    })
}

/// RFC 6040 §4.2: congestion met on the way is passed on to the inner packet (docs/wire.md 1.7i).
#[inline]
fn decapsulate_ecn(datagram: &mut [u8], outer_ds: u8) -> Result<(), Reason> {
    let inner_ds = ip::ds(datagram).ok_or(esp::Drop::InnerHeader)?;
    let ds = ecn::decap(inner_ds, outer_ds).ok_or(esp::Drop::Ecn)?;
    if ds != inner_ds && !ip::set_ds(datagram, ds) {
        return Err(esp::Drop::InnerHeader.into());
    }
    Ok(())
}

/// The IV that a packet carries, if it carries one.
#[inline]
pub(crate) fn sent_iv(
    kind: esp::IvKind,
    packet: &[u8],
    at: usize,
) -> Result<Option<u64>, esp::Drop> {
    match kind {
        esp::IvKind::Implicit => Ok(None),
        esp::IvKind::Explicit => {
            let iv = packet
                .get(at..)
                .and_then(|tail| tail.first_chunk())
                .ok_or(esp::Drop::Truncated)?;
            Ok(Some(u64::from_be_bytes(*iv)))
        }
    }
}
