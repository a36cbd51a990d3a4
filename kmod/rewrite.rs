// SPDX-License-Identifier: GPL-2.0-only

//! A relay that writes: a changed zone 1 is sealed under the relay's own IV and put into the packet (docs/wire.md 1.5b).
//!
//! The octets are made private before they are written to: whoever else holds the packet keeps what it was given.

use mml_core::esp::{self, IvKind, RelayLayout};
use mml_core::ip;
use mml_core::tcp;
use mml_core::zone::Mode;

use crate::crypto::{Linear, ICV_LEN};
use crate::sadb::Csa;
use crate::skb::Buffer;
use crate::sync::Bh;

/// Gives the TCP segment, whose zone 1 lies opened behind its header in `scratch`, another window. `at` is where the
/// packet's ESP header lies in `skb`, `layout` where the rest does from there (docs/wire.md 1.5b).
///
/// `None`, and the packet as it was, where the relay may not write, has no counter left, or memory is refused
/// (docs/wire.md 1.5a, 1.5o).
pub(crate) fn window(
    csa: &Csa,
    skb: &mut Buffer,
    at: usize,
    layout: &RelayLayout,
    scratch: &mut Linear<'_>,
    window: u16,
    bh: &Bh,
) -> Option<()> {
    if !csa.writes() || csa.zone1.iv != IvKind::Explicit {
        return None;
    }
    let l1 = layout.icv1.checked_sub(layout.z1)?;
    let end = esp::HEADER_LEN + l1 + ICV_LEN;
    let zone1 = scratch.get_mut(esp::HEADER_LEN..esp::HEADER_LEN + l1)?;
    if !tcp::rewrite_window(zone1, Mode::Tunnel, 0, window) {
        return None;
    }
    let octets = skb.head_mut(at + layout.iv2)?;
    if is_summed(octets.get(..at)?)? {
        return None;
    }
    let packet = octets.get_mut(at..at + layout.iv2)?;
    // From here on the counter is spent, whatever becomes of the packet.
    let iv = csa.relay_iv()?;
    *scratch.get_mut(FLAGS)? |= esp::FLAG_W;
    csa.zone1
        .aead
        .seal(
            bh,
            scratch.range(0, end)?,
            esp::HEADER_LEN,
            &esp::nonce(&csa.zone1.salt, iv),
        )
        .ok()?;
    let sealed = scratch.get(esp::HEADER_LEN..end)?;
    // All the places are looked up before the first is written to.
    let (front, zone1) = packet.split_at_mut_checked(layout.z1)?;
    let (header, sent_iv) = front.split_at_mut_checked(layout.iv1)?;
    if zone1.len() != sealed.len() || sent_iv.len() != esp::IV_LEN {
        return None;
    }
    let flags = header.get_mut(FLAGS)?;
    *flags |= esp::FLAG_W;
    sent_iv.copy_from_slice(&iv.to_be_bytes());
    zone1.copy_from_slice(sealed);
    Some(())
}

/// Whether the packet travels in UDP whose checksum covers what would be written (RFC 3948 §2.1): over IPv6 it does. `front`
/// is all in front of ESP (docs/wire.md 1.7n).
fn is_summed(front: &[u8]) -> Option<bool> {
    let at = match ip::version(front) {
        4 => 9,
        _ => 6,
    };
    let sum = front.last_chunk::<2>()?;
    Some(front.get(at) == Some(&ip::UDP) && *sum != [0; 2])
}

/// Where the ESP packet has its flags (docs/wire.md 1a).
const FLAGS: usize = 8;
