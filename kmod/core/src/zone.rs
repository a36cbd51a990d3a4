// SPDX-License-Identifier: GPL-2.0-only
//! The zone map: where a datagram's zone 1 ends, and which checksum travels in zone 2 (`docs/wire.md` §1, zone map).

use crate::ip;

/// What an SA encapsulates; numbered as `IPSEC_MODE_*` of Linux's `<linux/ipsec.h>` (docs/wire.md 1b).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// The transport header on; the IP header stays outside.
    Transport = 1,
    /// A whole IP datagram.
    Tunnel = 2,
}

impl Mode {
    /// The mode with this number.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Mode::Transport),
            2 => Some(Mode::Tunnel),
            _ => None,
        }
    }
}

/// A stop at the end of the transport header (docs/wire.md 1.8a).
pub const TRANSPORT_END: u16 = 0xFFFE;
/// The last zone's stop: the datagram's end (docs/wire.md 1.8a).
pub const END: u16 = 0xFFFF;
/// Octets of a datagram that ever matter to find L1: 192 of IP headers and 60 of TCP's, rounded up (docs/wire.md 1.8k).
pub const HEAD_MAX: usize = 256;
/// Zones the data path supports; the encoding carries more (docs/wire.md 1.8c).
pub const ZONES: usize = 2;

/// Where the zones of a datagram end.
///
/// # Invariants
/// Two stops, ascending, the first even and not zero, the last one [`END`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneMap {
    mode: Mode,
    stops: [u16; ZONES],
}

/// What is wrong with a zone map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Not the two zones the data path supports.
    Zones,
    /// A zone is empty, or stops before the one in front of it.
    Order,
    /// The last zone doesn't stop at [`END`].
    End,
    /// An odd stop: it could cut a checksum field in two, and show a relay half of it.
    Odd,
}

/// How one datagram is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    /// Octets of zone 1.
    pub l1: usize,
    /// Offset within zone 1 of the two octets of the checksum that travels in zone 2.
    pub moved: Option<usize>,
}

impl ZoneMap {
    /// The map nobody asked otherwise for: zone 1 is the headers, zone 2 the rest (docs/wire.md 1.8b).
    #[inline]
    pub const fn default_for(mode: Mode) -> Self {
        // INVARIANT: 0 < TRANSPORT_END < END, and it is even.
        Self {
            mode,
            stops: [TRANSPORT_END, END],
        }
    }

    /// Checks and makes a map (docs/wire.md 1.8a).
    ///
    /// # Errors
    /// Other than two stops, stops that don't ascend from above zero, a last one other than [`END`], or an odd one
    /// in front of it.
    pub fn new(mode: Mode, stops: &[u16]) -> Result<Self, MapError> {
        let &[first, last] = stops else {
            return Err(MapError::Zones);
        };
        if last != END {
            return Err(MapError::End);
        }
        if first == 0 || first >= last {
            return Err(MapError::Order);
        }
        // Every header in front of a checksum field has a multiple of 4 octets, and the field an even offset
        // (docs/wire.md 1.8d).
        if first % 2 != 0 {
            return Err(MapError::Odd);
        }
        // INVARIANT: checked above.
        Ok(Self {
            mode,
            stops: [first, last],
        })
    }

    /// Transport or tunnel.
    #[inline]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Each zone's stop.
    #[inline]
    pub const fn stops(&self) -> &[u16] {
        &self.stops
    }

    /// Divides a datagram of `len` octets (docs/wire.md 1.8c).
    ///
    /// `head` is its first `min(len, HEAD_MAX)` octets; in transport mode from the transport header on, whose
    /// protocol is `next`. In tunnel mode `next` doesn't matter, and octets behind the inner header's own length
    /// (TFC padding) don't either.
    #[inline]
    pub fn split(&self, next: u8, head: &[u8], len: usize) -> Split {
        self.divide(next, head, len).0
    }

    /// Whether `zone1` can be zone 1 of a datagram of at most `len` octets under this map (docs/wire.md 1.7h).
    ///
    /// It is what a relay checks, which has zone 1 alone: where an octet that decides lies in zone 2 the map's
    /// own stop is taken as right.
    #[inline]
    pub fn admits(&self, next: u8, zone1: &[u8], len: usize) -> bool {
        let (split, unseen) = self.divide(next, zone1, len);
        split.l1 == zone1.len() || unseen && self.first_stop() == zone1.len()
    }

    /// The division, and whether an octet that would have decided isn't in `head`.
    #[inline]
    fn divide(&self, next: u8, head: &[u8], len: usize) -> (Split, bool) {
        let start = match self.mode {
            Mode::Transport => Start {
                at: 0,
                protocol: next,
                bound: len,
                transport: true,
            },
            Mode::Tunnel => {
                // docs/wire.md 1.8j.
                let Some(walk) = ip::walk(head, len) else {
                    return (Split { l1: 0, moved: None }, false);
                };
                // docs/wire.md 1.8i.
                let bound = walk.total.min(len);
                if walk.unseen {
                    let l1 = walk.base.min(self.first_stop()).min(bound);
                    return (Split { l1, moved: None }, true);
                }
                Start {
                    at: walk.end,
                    protocol: walk.protocol,
                    bound,
                    transport: walk.transport,
                }
            }
        };
        let (end, unseen) = start.transport_end(head);
        // An octet stop never reaches past TRANSPORT_END, and TRANSPORT_END as a number lies past any
        // (docs/wire.md 1.8h).
        let l1 = end.min(self.first_stop()).min(start.bound);
        (
            Split {
                l1,
                moved: start.checksum_within(l1),
            },
            unseen,
        )
    }

    #[inline]
    fn first_stop(&self) -> usize {
        let [first, _] = self.stops;
        usize::from(first)
    }
}

/// Where the transport header is, if there is one.
struct Start {
    at: usize,
    protocol: u8,
    bound: usize,
    transport: bool,
}

impl Start {
    /// The end of the transport header, or of what is in front of it where that isn't all there (docs/wire.md 1.8g).
    #[inline]
    fn transport_end(&self, head: &[u8]) -> (usize, bool) {
        if !self.transport {
            return (self.at, false);
        }
        let octets = match self.protocol {
            ip::TCP => match head.get(self.at.saturating_add(12)) {
                Some(offset) => usize::from(offset >> 4) << 2,
                None => return (self.at, true),
            },
            ip::UDP => 8,
            _ => 0,
        };
        let end = self.at.saturating_add(octets);
        let runt = self.protocol == ip::TCP && octets < 20;
        (
            if runt || end > self.bound {
                self.at
            } else {
                end
            },
            false,
        )
    }

    /// The checksum field of a TCP or UDP header, if all of it lies below `l1` (docs/wire.md 1.4a).
    #[inline]
    fn checksum_within(&self, l1: usize) -> Option<usize> {
        if !self.transport {
            return None;
        }
        let field = match self.protocol {
            ip::TCP => self.at.saturating_add(16),
            ip::UDP => self.at.saturating_add(6),
            _ => return None,
        };
        (field.saturating_add(2) <= l1).then_some(field)
    }
}

/// What [`Split::moved`] was, from zone 1 alone (docs/wire.md 1.4d).
///
/// `next` is the transport protocol in transport mode, and doesn't matter in tunnel mode.
#[inline]
pub fn moved(mode: Mode, next: u8, zone1: &[u8]) -> Option<usize> {
    transport_header(mode, next, zone1)?.checksum_within(zone1.len())
}

/// Where the transport header of a datagram begins and what it is; zone 1 is enough to tell.
#[inline]
fn transport_header(mode: Mode, next: u8, head: &[u8]) -> Option<Start> {
    let bound = head.len();
    match mode {
        Mode::Transport => Some(Start {
            at: 0,
            protocol: next,
            bound,
            transport: true,
        }),
        Mode::Tunnel => {
            let walk = ip::walk(head, usize::MAX)?;
            let transport = walk.transport && !walk.unseen;
            Some(Start {
                at: walk.end,
                protocol: walk.protocol,
                bound,
                transport,
            })
        }
    }
}

/// Offset of the TCP header that begins in `zone1`, if one does (docs/wire.md 1.3c).
#[inline]
pub fn tcp_header(mode: Mode, next: u8, zone1: &[u8]) -> Option<usize> {
    let start = transport_header(mode, next, zone1)?;
    (start.transport && start.protocol == ip::TCP && start.at < zone1.len()).then_some(start.at)
}
