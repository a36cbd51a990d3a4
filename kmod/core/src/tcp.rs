// SPDX-License-Identifier: GPL-2.0-only
//! The two things done to TCP headers: the MSS is clamped to what the tunnel carries, a relay changes the window.

use crate::checksum;
use crate::ip;
use crate::zone::{self, Mode};

const WINDOW: usize = 14;
const CHECKSUM: usize = 16;
const HEADER_MIN: usize = 20;
const FLAG_SYN: u8 = 0x02;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a SYN to `max` octets and makes the TCP checksum good again; says whether it did
/// (docs/wire.md 2.1i).
///
/// `head` begins with the IP header and holds the TCP header with its options. A checksum that the stack has left
/// to hardware (the pseudo-header's sum alone) covers no option: the caller puts it back.
#[inline]
pub fn clamp_mss(head: &mut [u8], max: u16) -> bool {
    let Some(start) = ip::walk(head, usize::MAX)
        .filter(|walk| walk.transport && !walk.unseen && walk.protocol == ip::TCP)
        .map(|walk| walk.end)
    else {
        return false;
    };
    head.get_mut(start..)
        .is_some_and(|tcp| clamp_header(tcp, max))
}

fn clamp_header(tcp: &mut [u8], max: u16) -> bool {
    let Some(fixed) = tcp.first_chunk::<HEADER_MIN>() else {
        return false;
    };
    // Data offset, flags, window, checksum, urgent pointer (RFC 9293 §3.1).
    let [.., offset, flags, _, _, _, _, _, _] = *fixed;
    if flags & FLAG_SYN == 0 {
        return false;
    }
    let len = usize::from(offset >> 4) << 2;
    let Some(at) = tcp.get(..len).and_then(find_mss) else {
        return false;
    };
    let Some(mss) = ip::be16(tcp, at) else {
        return false;
    };
    if mss <= max {
        return false;
    }
    // A word at an odd offset adds to the sum with its octets the other way round (RFC 1071 §2.B).
    let (old, new) = if at & 1 == 0 {
        (mss, max)
    } else {
        (mss.swap_bytes(), max.swap_bytes())
    };
    put16(tcp, at, max) && adjust(tcp, old, new)
}

/// Offset of the MSS option's value in a TCP header (RFC 9293 §3.2).
fn find_mss(tcp: &[u8]) -> Option<usize> {
    let mut at = HEADER_MIN;
    // At most 40 octets of options, and each turn goes at least one further.
    loop {
        match *tcp.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at = at.checked_add(1)?,
            kind => {
                let len = usize::from(*tcp.get(at.checked_add(1)?)?);
                let end = at.checked_add(len)?;
                if len < 2 || end > tcp.len() {
                    return None;
                }
                if kind == OPTION_MSS {
                    return if len == 4 { at.checked_add(2) } else { None };
                }
                at = end;
            }
        }
    }
}

/// Changes the TCP window in zone 1 as a relay may, and adds the correction to the zeroed checksum field
/// (docs/wire.md 1.4b).
///
/// `false`, and nothing changed, where zone 1 isn't TCP with its checksum moved: the checksum couldn't follow.
#[inline]
pub fn rewrite_window(zone1: &mut [u8], mode: Mode, next: u8, window: u16) -> bool {
    let (Some(start), Some(field)) = (
        zone::tcp_header(mode, next, zone1),
        zone::moved(mode, next, zone1),
    ) else {
        return false;
    };
    let at = start.saturating_add(WINDOW);
    let (Some(old), Some(before)) = (ip::be16(zone1, at), ip::be16(zone1, field)) else {
        return false;
    };
    put16(zone1, at, window)
        && put16(
            zone1,
            field,
            checksum::add(before, checksum::correction(old, window)),
        )
}

/// Brings the TCP checksum up to date after a word went from `old` to `new`.
fn adjust(tcp: &mut [u8], old: u16, new: u16) -> bool {
    ip::be16(tcp, CHECKSUM)
        .is_some_and(|check| put16(tcp, CHECKSUM, checksum::update16(check, old, new)))
}

#[inline]
pub(crate) fn put16(data: &mut [u8], at: usize, value: u16) -> bool {
    match data.get_mut(at..).and_then(|tail| tail.first_chunk_mut()) {
        Some(field) => {
            *field = value.to_be_bytes();
            true
        }
        None => false,
    }
}
