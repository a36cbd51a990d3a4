// SPDX-License-Identifier: GPL-2.0-only

//! Relay: at a foreign agent, a forwarded ESP packet of one of our CSAs has its zone 1 opened into scratch space and
//! checked. The packet's own octets go on untouched, unless the relay may write and lowers a TCP window (clamp.rs,
//! rewrite.rs); what can't be opened goes on like at any router (docs/wire.md 1.5g, 1.7e).

use core::sync::atomic::Ordering;
use mml_core::esp::{self, Header, Layout, RelayLayout};
use mml_core::ip;
use mml_core::replay::Resync;
use mml_core::snoop::Segment;
use mml_core::zone::Mode;

use crate::counters::Reason;
use crate::crypto::{self, Linear, ICV_LEN};
use crate::ends::{Outer, UDP_LEN};
use crate::namespace::Namespace;
use crate::net::{Between, Disposition};
use crate::receive::sent_iv;
use crate::rewrite;
use crate::sadb::Csa;
use crate::skb::Buffer;
use crate::snoop::{Key, Origin};
use crate::sync::{Bh, Reader};

/// MF and the fragment offset, in the IPv4 header.
const FRAGMENT: u16 = 0x3FFF;
/// Octets of an SPI, in front of the sequence number.
const SPI_LEN: usize = 4;
/// Where ESP is found in UDP (RFC 3948).
const NAT_T_PORT: u16 = 4500;

/// Looks at a packet on its way through, `between` two interfaces; its data starts at the IP header.
pub(crate) fn forward(
    ns: &Namespace,
    skb: &mut Buffer,
    between: &Between<'_>,
    bh: &Bh,
    reader: &Reader,
) -> Disposition {
    let Some(Door {
        outer,
        at,
        protocol,
        fragment,
    }) = Door::of(skb)
    else {
        return Disposition::Accept;
    };
    if protocol != ip::ESP {
        return if protocol == ip::TCP {
            ns.snoop.plain_packet(ns, skb, between, bh, reader)
        } else {
            Disposition::Accept
        };
    }
    let result = if fragment {
        // docs/wire.md 1.7l.
        ns.counters.count(Reason::RelayFragment);
        None
    } else {
        opened(ns, skb, at, &outer, between, bh, reader)
    };
    if let Some(disposition) = result {
        return disposition;
    }
    // docs/wire.md 2.1j.
    if ns.settings.relay_drop.load(Ordering::Relaxed) {
        return Disposition::Drop;
    }
    Disposition::Accept
}

/// The number of a packet of ESP that went through here, its low half.
pub(crate) fn number(skb: &Buffer) -> Option<u32> {
    let door = Door::of(skb).filter(|door| door.protocol == ip::ESP)?;
    skb.octets(door.at + SPI_LEN).map(u32::from_be_bytes)
}

/// What the outer header says.
struct Door {
    outer: Outer,
    /// Where what it carries begins.
    at: usize,
    protocol: u8,
    fragment: bool,
}

impl Door {
    #[inline]
    fn of(skb: &Buffer) -> Option<Self> {
        let head = skb.octets::<{ ip::V4_MIN }>(0)?;
        let [version, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            head;
        if version >> 4 != 4 {
            return Self::of_v6(skb);
        }
        let door = Door {
            outer: Outer::v4([s0, s1, s2, s3], [d0, d1, d2, d3]),
            at: usize::from(version & 0x0F) << 2,
            protocol,
            fragment: u16::from_be_bytes([f0, f1]) & FRAGMENT != 0,
        };
        Some(if protocol == ip::UDP {
            door.through_udp(skb)
        } else {
            door
        })
    }

    #[inline(never)]
    fn of_v6(skb: &Buffer) -> Option<Self> {
        let mut head = [0; ip::HEADERS_MAX];
        let fixed = head.get_mut(..ip::V6_LEN)?;
        if !skb.copy_bits(0, fixed) {
            return None;
        }
        // Extension headers are rare.
        let mut len = ip::V6_LEN;
        if head.get(6).copied().is_some_and(ip::is_extension) {
            len = skb.len().min(ip::HEADERS_MAX);
            if !skb.copy_bits(0, head.get_mut(..len)?) {
                return None;
            }
        }
        let of = ip::addresses(head.get(..len)?)?;
        Some(
            Door {
                outer: Outer::v6(of.src, of.dst),
                at: of.header_len,
                protocol: of.protocol,
                fragment: of.fragment,
            }
            .through_udp(skb),
        )
    }

    /// ESP in UDP (RFC 3948 §2.1): from or to port 4500, and no zeros where IKE has its marker (docs/wire.md 1.7o).
    #[inline(never)]
    fn through_udp(self, skb: &Buffer) -> Self {
        if self.protocol != ip::UDP || self.fragment {
            return self;
        }
        let Some([s0, s1, d0, d1, _, _, _, _, spi @ ..]) = skb.octets::<12>(self.at) else {
            return self;
        };
        let ports = [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])];
        if !ports.contains(&NAT_T_PORT) || spi == [0; 4] {
            return self;
        }
        Door {
            at: self.at + UDP_LEN,
            protocol: ip::ESP,
            ..self
        }
    }
}

/// What becomes of a packet whose zone 1 can be opened; `None` if it can't.
fn opened(
    ns: &Namespace,
    skb: &mut Buffer,
    at: usize,
    outer: &Outer,
    between: &Between<'_>,
    bh: &Bh,
    reader: &Reader,
) -> Option<Disposition> {
    let spi = skb.octets(at).map(u32::from_be_bytes);
    let Some(csa) = spi.and_then(|spi| ns.sadb.relay(outer, spi, reader)) else {
        ns.counters.count(Reason::RelayNoCsa);
        return None;
    };
    let snoops = csa.snoops() || ns.snoop.has_flows();
    let side = ns.clamp.side(between.indices());
    // The closure neither sends nor delivers.
    let seen = crypto::with_scratch(bh, |mut scratch| {
        let (zone1, seq) = open(csa, skb, at, &mut scratch, bh)?;
        if !snoops && side.is_none() {
            return Ok(None);
        }
        let l1 = zone1.icv1.saturating_sub(zone1.z1);
        let octets = scratch
            .get(esp::HEADER_LEN..esp::HEADER_LEN + l1)
            .unwrap_or(&[]);
        let Some((ends, segment)) = Segment::parse(octets) else {
            return Ok(None);
        };
        let lower = side.and_then(|side| {
            ns.clamp
                .look(csa, &ends, octets, side, ns.sadb.seed, reader)
        });
        if let Some(window) = lower {
            // What can't be rewritten goes on as it came (docs/wire.md 1.5o).
            let _ = rewrite::window(csa, skb, at, &zone1, &mut scratch, window, bh);
        }
        Ok(snoops.then_some((seq, ends, segment)))
    })?;
    let done = match seen {
        Ok(None) => Disposition::Accept,
        Ok(Some((seq, ends, segment))) => {
            let key = Key {
                outer: *outer,
                ends,
            };
            let data = csa.snoops().then(|| Origin::Csa {
                csa,
                esp: seq,
                room: csa.hold().and_then(|hold| hold.room(ns, skb, reader)),
            });
            ns.snoop
                .packet(ns, skb, &key, &segment, data, between.indices(), bh, reader)
        }
        Err(reason) => {
            // docs/wire.md 1.9v.
            csa.count(ns, reason);
            return None;
        }
    };
    if let (Some(hold), Disposition::Accept) = (csa.hold(), done) {
        // docs/wire.md 2.2v, 2.2z.
        if hold.keep(ns, skb, reader) {
            return Some(Disposition::Drop);
        }
    }
    Some(done)
}

/// Opens zone 1 into `scratch`, behind the packet's header, and keeps the books. Says where it lies in the packet, and the
/// packet's number.
#[inline]
fn open(
    csa: &Csa,
    skb: &Buffer,
    at: usize,
    scratch: &mut Linear<'_>,
    bh: &Bh,
) -> Result<(RelayLayout, u64), Reason> {
    let truncated = Reason::Format(esp::Drop::Truncated);
    if !csa.opens() {
        return Err(csa.closed());
    }
    let total = skb.len().checked_sub(at).ok_or(truncated)?;
    let front = skb.octets::<{ esp::HEADER_LEN }>(at).ok_or(truncated)?;
    let header = Header::parse(&front)?;
    header.check_protocol(Mode::Tunnel)?;
    let layout = Layout::relay(csa.zone1.iv, &header, total)?;
    let iv = match csa.zone1.iv {
        esp::IvKind::Implicit => None,
        kind => {
            let iv = skb
                .octets::<{ esp::IV_LEN }>(at + layout.iv1)
                .ok_or(truncated)?;
            sent_iv(kind, &iv, 0)?
        }
    };
    header.check_ivs(iv, None, true)?;
    // docs/wire.md 1.5f.
    if header.rewritten() {
        return Err(esp::Drop::Rewritten.into());
    }

    // No lock is taken for what can only be known once the ICV holds: the window is asked and moved in one go below. One
    // that was seen before costs the cipher here, as one that was made up does.
    let seq = csa.window.infer(header.seq_lo);
    let l1 = usize::from(header.l1);
    let end = esp::HEADER_LEN + l1 + ICV_LEN;
    let mut attempt = |seq: u64| -> Result<(), Reason> {
        let iv = esp::nonce_iv(iv, seq)?;
        let mut piece = scratch.range(0, end).ok_or(Reason::Format(esp::Drop::L1))?;
        let (aad, rest) = piece
            .split_at_mut_checked(esp::HEADER_LEN)
            .ok_or(truncated)?;
        aad.copy_from_slice(&front);
        if !skb.copy_bits(at + layout.z1, rest) {
            return Err(truncated);
        }
        csa.zone1
            .aead
            .open(bh, piece, esp::HEADER_LEN, &esp::nonce(&csa.zone1.salt, iv))
            .map_err(|_| esp::Drop::Icv1.into())
    };
    let seq = match attempt(seq) {
        Ok(()) => seq,
        Err(reason) => {
            // One that joined past a wrap of the low half finds the high one by trying (RFC 4303, appendix A)
            // (docs/wire.md 1.7g).
            if !csa.book.lock().resync.failed() {
                return Err(reason);
            }
            let next = Resync::next_half(seq);
            attempt(next).map_err(|_| reason)?;
            next
        }
    };
    let mut book = csa.book.lock();
    let book = &mut *book;
    book.resync.passed();
    if !book.replay.set(&mut book.bits, seq) {
        return Err(esp::Drop::Replay.into());
    }
    let zone1 = scratch
        .get(esp::HEADER_LEN..esp::HEADER_LEN + l1)
        .ok_or(truncated)?;
    // docs/wire.md 1.7h.
    if !csa.map.admits(0, zone1, layout.len_max) {
        return Err(esp::Drop::ZoneMap.into());
    }
    book.packets += 1;
    book.octets += total as u64;
    // docs/wire.md 2.5d, 2.5e.
    csa.spend(book.packets, book.octets)?;
    csa.window.set(book.replay.top());
    Ok((layout, seq))
}
