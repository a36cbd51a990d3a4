// SPDX-License-Identifier: GPL-2.0-only
//! Views of IPv4 and IPv6 headers (RFC 791, RFC 8200): what is read is checked, nothing is copied but addresses.

use crate::checksum;

/// Protocol number of IPv4 in IP.
pub const IPV4: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 in IP.
pub const IPV6: u8 = 41;
/// Protocol number of DCCP.
pub const DCCP: u8 = 33;
/// Protocol number of ESP.
pub const ESP: u8 = 50;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;
/// Protocol number of UDP-Lite.
pub const UDP_LITE: u8 = 136;
/// "No next header"; in an ESP trailer, a dummy packet (RFC 4303 §2.6).
pub const NO_NEXT: u8 = 59;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// IPv4 header without options, in octets.
pub const V4_MIN: usize = 20;
/// The longest datagram, in octets, whose length an IPv4 header can say.
pub const TOTAL_MAX: usize = 65_535;
/// IPv6 header without extension headers, in octets.
pub const V6_LEN: usize = 40;
/// Extension headers that are followed (docs/wire.md 1.8f).
pub const EXTENSIONS_MAX: usize = 8;
/// IPv6 header and extension headers that are followed, in octets together (docs/wire.md 1.8f).
pub const HEADERS_MAX: usize = 192;

#[inline]
pub(crate) fn be16(data: &[u8], at: usize) -> Option<u16> {
    let (_, tail) = data.split_at_checked(at)?;
    Some(u16::from_be_bytes(*tail.first_chunk()?))
}

/// The IP version of a datagram, 0 for an empty one.
#[inline]
pub fn version(head: &[u8]) -> u8 {
    head.first().map_or(0, |b| b >> 4)
}

/// How far a datagram's headers before the transport header reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Walk {
    /// The first IP header, with IPv4 options.
    pub(crate) base: usize,
    /// End of the header and its extension headers; `base` when the chain isn't followed.
    pub(crate) end: usize,
    /// The protocol behind `end`.
    pub(crate) protocol: u8,
    /// Length of the datagram as its header has it.
    pub(crate) total: usize,
    /// Whether it is a fragment, the first or another.
    pub(crate) fragment: bool,
    /// Whether `end` may be followed by a transport header: chain followed, first fragment or none.
    pub(crate) transport: bool,
    /// The octets that decide lie behind the ones shown.
    pub(crate) unseen: bool,
}

/// Walks the headers in `head`, the first octets of a datagram that are there to be seen; it has `len` in all, or
/// as many as its header says where that isn't known (`usize::MAX`) (docs/wire.md 1.8f).
///
/// `None`: not IPv4 or IPv6, or an IPv4 header that says it is shorter than 20 octets.
#[inline(always)]
pub(crate) fn walk(head: &[u8], len: usize) -> Option<Walk> {
    let first = *head.first()?;
    match first >> 4 {
        4 => {
            let base = usize::from(first & 0x0F) << 2;
            if base < V4_MIN {
                return None;
            }
            let unseen = Walk {
                base,
                end: base,
                protocol: NO_NEXT,
                total: usize::MAX,
                fragment: false,
                transport: false,
                unseen: true,
            };
            let Some(fixed) = head.first_chunk::<10>() else {
                return Some(Walk {
                    total: be16(head, 2).map_or(usize::MAX, usize::from),
                    ..unseen
                });
            };
            let [_, _, t0, t1, _, _, f0, f1, _, protocol] = *fixed;
            let offset = u16::from_be_bytes([f0, f1]);
            Some(Walk {
                protocol,
                total: usize::from(u16::from_be_bytes([t0, t1])),
                fragment: offset & 0x3FFF != 0,
                transport: offset & 0x1FFF == 0,
                unseen: false,
                ..unseen
            })
        }
        6 => Some(walk6(head, len)),
        _ => None,
    }
}

// Out of line, so that the common case stays small enough to be inlined.
#[inline(never)]
fn walk6(head: &[u8], len: usize) -> Walk {
    let mut walk = Walk {
        base: V6_LEN,
        end: V6_LEN,
        protocol: NO_NEXT,
        total: be16(head, 4).map_or(usize::MAX, |octets| {
            usize::from(octets).saturating_add(V6_LEN)
        }),
        fragment: false,
        transport: false,
        unseen: false,
    };
    let Some(&next) = head.get(6) else {
        walk.unseen = true;
        return walk;
    };
    walk.protocol = next;
    let mut count = 0usize;
    loop {
        if !is_extension(walk.protocol) {
            walk.transport = true;
            return walk;
        }
        // An extension header has 8 octets at least.
        let least = walk.end.saturating_add(8);
        count = count.saturating_add(1);
        if count > EXTENSIONS_MAX || least > HEADERS_MAX {
            // Too much of it: the first header alone, and what follows is payload.
            walk.end = V6_LEN;
            return walk;
        }
        if least > walk.total.min(len) {
            // The datagram ends within its headers.
            walk.end = least;
            return walk;
        }
        let Some(&[next, units, o0, o1]) = head.get(walk.end..).and_then(|h| h.first_chunk::<4>())
        else {
            walk.unseen = true;
            return walk;
        };
        let octets = if walk.protocol == FRAGMENT {
            8
        } else {
            usize::from(units).saturating_add(1) << 3
        };
        if walk.end.saturating_add(octets) > HEADERS_MAX {
            walk.end = V6_LEN;
            return walk;
        }
        walk.end = walk.end.saturating_add(octets);
        let was_fragment = walk.protocol == FRAGMENT;
        walk.protocol = next;
        if was_fragment {
            let offset = u16::from_be_bytes([o0, o1]);
            // An atomic fragment (offset 0, no more to come) is whole (RFC 6946).
            walk.fragment |= offset & 0xFFF9 != 0;
            if offset & 0xFFF8 != 0 {
                return walk;
            }
        }
    }
}

/// What routing, policy and ECN want to know of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// 4 or 6.
    pub family: u8,
    /// Source; IPv4 in the first four octets, the rest zero.
    pub src: [u8; 16],
    /// Destination, likewise.
    pub dst: [u8; 16],
    /// The transport protocol; for IPv6 the one behind the extension headers that were followed.
    pub protocol: u8,
    /// DSCP and ECN.
    pub ds: u8,
    /// Length in octets as the header has it, header included.
    pub total_len: usize,
    /// End of the IP header with options or extension headers.
    pub header_len: usize,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// Whether a transport header may follow the IP headers: a whole datagram or a first fragment.
    pub transport: bool,
    /// Don't fragment: IPv4's flag; always so for IPv6.
    pub df: bool,
}

impl Addresses {
    /// Of no datagram.
    pub const NONE: Addresses = Addresses {
        family: 0,
        src: [0; 16],
        dst: [0; 16],
        protocol: NO_NEXT,
        ds: 0,
        total_len: 0,
        header_len: 0,
        fragment: false,
        transport: false,
        df: false,
    };

    /// The protocol number of such a datagram inside another: 4 or 41.
    #[inline]
    pub fn encapsulated(&self) -> u8 {
        if self.family == 4 {
            IPV4
        } else {
            IPV6
        }
    }

    /// Where its ports are, from its first octet on, if it shows any: a fragment doesn't, not even the first, for what
    /// follows it can't be told from another datagram's; nor does one that ends before them (docs/wire.md 2.3m).
    #[inline]
    pub fn ports_at(&self) -> Option<usize> {
        let shown = self.transport && !self.fragment && has_ports(self.protocol);
        let end = self.header_len.saturating_add(Ports::LEN);
        (shown && end <= self.total_len).then_some(self.header_len)
    }

    /// The datagram with `len` octets of another protocol behind the same headers: what transport mode sealed.
    #[inline]
    pub fn carrying(&self, protocol: u8, len: usize) -> Addresses {
        Addresses {
            protocol,
            total_len: self.header_len.saturating_add(len),
            ..*self
        }
    }

    /// Its ports; `transport` is what lies behind its IP headers.
    #[inline]
    pub fn ports_behind(&self, transport: &[u8]) -> Option<Ports> {
        self.ports_at()?;
        transport.first_chunk().map(|octets| Ports::of(*octets))
    }

    /// Its ports; `datagram` is it from its first octet on.
    #[inline]
    pub fn ports(&self, datagram: &[u8]) -> Option<Ports> {
        let octets = datagram.get(self.ports_at()?..)?.first_chunk()?;
        Some(Ports::of(*octets))
    }

    /// Whether its destination is on the link or multicast: 169.254/16 or 224/4 (RFC 3927, RFC 5771), fe80::/10 or ff00::/8
    /// (RFC 4291).
    #[inline]
    pub fn is_link_scope(&self) -> bool {
        let [a, b, ..] = self.dst;
        match self.family {
            4 => a & 0xF0 == 0xE0 || (a, b) == (169, 254),
            _ => a == 0xFF || (a, b & 0xC0) == (0xFE, 0x80),
        }
    }
}

/// Source and destination port of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The source's.
    pub src: u16,
    /// The destination's.
    pub dst: u16,
}

impl Ports {
    /// Octets they have: the first ones of the transport header.
    pub const LEN: usize = 4;

    /// The ports in these octets.
    #[inline]
    pub const fn of(octets: [u8; Self::LEN]) -> Self {
        let [s0, s1, d0, d1] = octets;
        Self {
            src: u16::from_be_bytes([s0, s1]),
            dst: u16::from_be_bytes([d0, d1]),
        }
    }
}

/// Whether the protocol's header begins with a source and a destination port (docs/wire.md 2.3l).
#[inline]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

/// Whether a next header is one of those that are followed: hop-by-hop, routing, fragment, destination options.
#[inline]
pub fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Reads a datagram's header; `None` if it isn't IPv4 or IPv6 or its first header isn't all there.
#[inline]
pub fn addresses(head: &[u8]) -> Option<Addresses> {
    match version(head) {
        4 => addresses4(head),
        6 => addresses6(head),
        _ => None,
    }
}

#[inline]
fn addresses4(head: &[u8]) -> Option<Addresses> {
    let [first, ds, t0, t1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *head.first_chunk::<V4_MIN>()?;
    let header_len = usize::from(first & 0x0F) << 2;
    if header_len < V4_MIN || head.len() < header_len {
        return None;
    }
    let fragment = u16::from_be_bytes([f0, f1]);
    Some(Addresses {
        family: 4,
        src: v4([s0, s1, s2, s3]),
        dst: v4([d0, d1, d2, d3]),
        protocol,
        ds,
        total_len: usize::from(u16::from_be_bytes([t0, t1])),
        header_len,
        fragment: fragment & 0x3FFF != 0,
        transport: fragment & 0x1FFF == 0,
        df: fragment & 0x4000 != 0,
    })
}

#[inline(never)]
fn addresses6(head: &[u8]) -> Option<Addresses> {
    let walk = walk6(head, usize::MAX);
    let (fixed, _) = head.split_at_checked(V6_LEN)?;
    let (_, addresses) = fixed.split_at_checked(8)?;
    let (src, dst) = addresses.split_at_checked(16)?;
    Some(Addresses {
        family: 6,
        src: *src.first_chunk()?,
        dst: *dst.first_chunk()?,
        protocol: walk.protocol,
        ds: ds(head)?,
        total_len: walk.total,
        header_len: walk.end,
        fragment: walk.fragment,
        transport: walk.transport,
        df: true,
    })
}

/// Makes `next` the protocol behind a datagram's IP header, of which `headers` is all, with its options or extension headers;
/// `false`, and nothing changed, if it isn't IP. IPv4's header checksum is left to [`set_total`].
pub fn set_next(headers: &mut [u8], next: u8) -> bool {
    let field = match version(headers) {
        4 => Some(9),
        6 => last_next_header(headers),
        _ => None,
    };
    field
        .and_then(|at| headers.get_mut(at))
        .map(|field| *field = next)
        .is_some()
}

/// Where the next header field of the last header is (RFC 8200 §4): in the fixed header, or in the last extension header.
fn last_next_header(headers: &[u8]) -> Option<usize> {
    let (mut field, mut end) = (6, V6_LEN);
    while end < headers.len() {
        let octets = match *headers.get(field)? {
            FRAGMENT => 8,
            kind if is_extension(kind) => {
                usize::from(*headers.get(end.checked_add(1)?)?).saturating_add(1) << 3
            }
            _ => return None,
        };
        field = end;
        end = end.checked_add(octets)?;
    }
    (end == headers.len()).then_some(field)
}

/// Sets the length in a datagram's IP header to `total` octets, header included, and makes IPv4's checksum good; `headers` is
/// all of the IP header. `false`, and nothing of use in it, if it isn't IP or the length doesn't fit the field.
#[inline]
pub fn set_total(headers: &mut [u8], total: usize) -> bool {
    match version(headers) {
        4 => set_total4(headers, total).is_some(),
        6 => set_total6(headers, total).is_some(),
        _ => false,
    }
}

#[inline]
fn set_total4(headers: &mut [u8], total: usize) -> Option<()> {
    let total = u16::try_from(total).ok()?;
    let fixed = headers.first_chunk_mut::<V4_MIN>()?;
    let [_, _, l0, l1, _, _, _, _, _, _, c0, c1, ..] = fixed;
    [*l0, *l1] = total.to_be_bytes();
    [*c0, *c1] = [0; 2];
    let sum = !checksum::sum(headers);
    headers
        .get_mut(10..)?
        .first_chunk_mut()
        .map(|field| *field = sum.to_be_bytes())
}

#[inline]
fn set_total6(headers: &mut [u8], total: usize) -> Option<()> {
    let payload = u16::try_from(total.checked_sub(V6_LEN)?).ok()?;
    headers
        .get_mut(4..)?
        .first_chunk_mut()
        .map(|field| *field = payload.to_be_bytes())
}

/// An IPv4 address in the 16 octets every address field here has.
#[inline]
pub const fn v4(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// DSCP and ECN of a datagram.
#[inline]
pub fn ds(head: &[u8]) -> Option<u8> {
    let [first, second] = *head.first_chunk()?;
    match first >> 4 {
        4 => Some(second),
        6 => Some(first << 4 | second >> 4),
        _ => None,
    }
}

/// Sets DSCP and ECN, and makes IPv4's header checksum good again (RFC 1624); `false` if it isn't IP.
#[inline]
pub fn set_ds(head: &mut [u8], ds: u8) -> bool {
    match version(head) {
        4 => patch_word(head, 0, |[first, _]| [first, ds]),
        6 => {
            let Some([first, second]) = head.first_chunk_mut() else {
                return false;
            };
            *first = *first & 0xF0 | ds >> 4;
            *second = *second & 0x0F | ds << 4;
            true
        }
        _ => false,
    }
}

/// TTL or hop limit.
#[inline]
pub fn ttl(head: &[u8]) -> Option<u8> {
    match version(head) {
        4 => head.get(8).copied(),
        6 => head.get(7).copied(),
        _ => None,
    }
}

/// Sets TTL or hop limit, and makes IPv4's header checksum good again (RFC 1624); `false` if it isn't IP.
#[inline]
pub fn set_ttl(head: &mut [u8], ttl: u8) -> bool {
    match version(head) {
        4 => patch_word(head, 8, |[_, protocol]| [ttl, protocol]),
        6 => head.get_mut(7).map(|limit| *limit = ttl).is_some(),
        _ => false,
    }
}

/// Changes the 16-bit word at `at` of an IPv4 header, and its checksum with it.
#[inline]
fn patch_word(head: &mut [u8], at: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) -> bool {
    let Some(header) = head.first_chunk_mut::<V4_MIN>() else {
        return false;
    };
    let (front, back) = header.split_at_mut(10);
    let (Some(word), Some(check)) = (
        front.get_mut(at..).and_then(|w| w.first_chunk_mut()),
        back.first_chunk_mut(),
    ) else {
        return false;
    };
    let old = *word;
    let new = change(old);
    if new != old {
        *word = new;
        let sum = checksum::update16(
            u16::from_be_bytes(*check),
            u16::from_be_bytes(old),
            u16::from_be_bytes(new),
        );
        *check = sum.to_be_bytes();
    }
    true
}
