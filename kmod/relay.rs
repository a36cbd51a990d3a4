// SPDX-License-Identifier: GPL-2.0-only

//! Relay: at a foreign agent, a forwarded ESP packet of one of our CSAs has its zone 1 opened into scratch space and
//! checked. The packet's own octets go on untouched, unless the relay may write and lowers a TCP window (clamp.rs,
//! rewrite.rs); what can't be opened goes on like at any router (docs/wire.md §1).

use core::sync::atomic::Ordering;
use mml_core::esp::{self, Header, Layout, RelayLayout};
use mml_core::ip;
use mml_core::replay::Resync;
use mml_core::snoop::Segment;
use mml_core::zone::Mode;

use crate::counters::Reason;
use crate::crypto::{self, Linear, ICV_LEN};
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

/// Looks at a packet on its way through, `between` two interfaces; its data starts at the IP header.
pub(crate) fn forward(
    ns: &Namespace,
    skb: &mut Buffer,
    between: &Between<'_>,
    bh: &Bh,
    reader: &Reader,
) -> Disposition {
    let Some(head) = skb.octets::<{ ip::V4_MIN }>(0) else {
        return Disposition::Accept;
    };
    let [version, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = head;
    if protocol != ip::ESP {
        return if protocol == ip::TCP {
            ns.snoop.plain_packet(ns, skb, between, bh, reader)
        } else {
            Disposition::Accept
        };
    }
    let result = if u16::from_be_bytes([f0, f1]) & FRAGMENT != 0 {
        ns.counters.count(Reason::RelayFragment);
        None
    } else {
        opened(
            ns,
            skb,
            usize::from(version & 0x0F) << 2,
            ([s0, s1, s2, s3], [d0, d1, d2, d3]),
            between,
            bh,
            reader,
        )
    };
    if let Some(disposition) = result {
        return disposition;
    }
    if ns.settings.relay_drop.load(Ordering::Relaxed) {
        return Disposition::Drop;
    }
    Disposition::Accept
}

/// What becomes of a packet whose zone 1 can be opened; `None` if it can't.
fn opened(
    ns: &Namespace,
    skb: &mut Buffer,
    at: usize,
    (src, dst): ([u8; 4], [u8; 4]),
    between: &Between<'_>,
    bh: &Bh,
    reader: &Reader,
) -> Option<Disposition> {
    let spi = skb.octets(at).map(u32::from_be_bytes);
    let Some(csa) = spi.and_then(|spi| ns.sadb.relay(src, dst, spi, reader)) else {
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
            // What can't be rewritten goes on as it came.
            let _ = rewrite::window(csa, skb, at, &zone1, &mut scratch, window, bh);
        }
        Ok(snoops.then_some((seq, ends, segment)))
    })?;
    match seen {
        Ok(None) => Some(Disposition::Accept),
        Ok(Some((seq, ends, segment))) => {
            let key = Key {
                outer: (src, dst),
                ends,
            };
            let data = csa.snoops().then_some(Origin::Csa(csa, seq));
            Some(
                ns.snoop
                    .packet(ns, skb, &key, &segment, data, between.indices(), bh, reader),
            )
        }
        Err(reason) => {
            csa.counters.count(reason);
            None
        }
    }
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
            // One that joined past a wrap of the low half finds the high one by trying (RFC 4303, appendix A).
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
    if !csa.map.admits(0, zone1, layout.len_max) {
        return Err(esp::Drop::ZoneMap.into());
    }
    book.packets += 1;
    book.octets += total as u64;
    csa.spend(book.packets, book.octets)?;
    csa.window.set(book.replay.top());
    Ok((layout, seq))
}
