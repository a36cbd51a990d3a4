// SPDX-License-Identifier: GPL-2.0-only

//! Origin: a packet that was routed to `mml0` is matched to a CSA, segmented, sealed zone by zone and sent on its own
//! route (docs/wire.md §1).
//!
//! The origin never writes into the packet it got, whose octets may be shared with TCP's retransmit queue: each sealed
//! packet is a new one. Its payload is copied once, with its checksum computed on the way, and encrypted where it lies.

use core::sync::atomic::Ordering;
use mml_core::esp::{self, Header, IvKind, Layout};
use mml_core::ip::{self, Addresses};
use mml_core::zone::{Mode, Split};
use mml_core::{checksum, ecn, tcp};
use pfkey::Encap;

use crate::counters::Reason;
use crate::crypto::{Linear, ICV_LEN};
use crate::ends::{Outer, Path, UDP_LEN};
use crate::hold::Behind;
use crate::namespace::Namespace;
use crate::net::{self, Device, Route};
use crate::policy;
use crate::sadb::Csa;
use crate::skb::{Buffer, Skb, Space, ETH_P_IP, ETH_P_IPV6};
use crate::sync::{Bh, Reader};
use crate::zone_message;

/// Octets of an IPv4 and a TCP header with all their options.
const V4_HEAD: usize = 120;
/// Octets of an IPv6 and a TCP header with all their options and extension headers.
const V6_HEAD: usize = ip::HEADERS_MAX + 60;
const TCP_MIN: usize = 20;
/// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// The least that any IPv6 path carries (RFC 8200 §5).
const V6_MTU_MIN: usize = 1280;
/// Offsets in the IP and the TCP header.
const IP_ID: usize = 4;
const IP_FRAGMENT: usize = 6;
const TCP_SEQ: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const MORE_FRAGMENTS: u16 = 0x2000;

/// The headers of the packet in hand, apart from its payload, of at most `N` octets. It is filled where it lies and never
/// moved: every octet of it would be an instruction.
struct Head<const N: usize> {
    octets: [u8; N],
    /// The IP header's octets.
    ip: usize,
    /// All of the headers': the transport header's too, where it is whole.
    len: usize,
    of: Addresses,
    /// Octets of the datagram.
    total: usize,
}

impl<const N: usize> Head<N> {
    /// One that holds nothing yet.
    #[inline]
    fn empty() -> Self {
        Head {
            octets: [0; N],
            ip: 0,
            len: 0,
            of: Addresses::NONE,
            total: 0,
        }
    }

    /// What lies behind the first `from` octets of it.
    fn from(&self, from: usize) -> &[u8] {
        self.octets.get(from..self.len).unwrap_or(&[])
    }

    fn transport(&self) -> &[u8] {
        self.octets.get(self.ip..self.len).unwrap_or(&[])
    }

    /// Reads the headers of a packet, making them linear as needed. `None`, and nothing of use in it, if they can't be read
    /// or followed.
    fn read(&mut self, skb: &mut Skb) -> Option<()> {
        let len = skb.len();
        match skb.protocol() {
            ETH_P_IP if skb.pull_head(ip::V4_MIN) => {
                let ip = usize::from(skb.linear().first()? & 0x0F) << 2;
                if !skb.pull_head(ip) {
                    return None;
                }
            }
            ETH_P_IPV6 if skb.pull_head(ip::V6_LEN) => {
                let next = skb.linear().get(6).copied()?;
                if ip::is_extension(next) && !skb.pull_head(len.min(ip::HEADERS_MAX)) {
                    return None;
                }
            }
            _ => return None,
        }
        let of = ip::addresses(skb.linear())?;
        let family = if skb.protocol() == ETH_P_IP { 4 } else { 6 };
        // What more extension headers hide than are followed, no selector can be asked about.
        if of.family != family || (family == 6 && ip::is_extension(of.protocol)) {
            return None;
        }
        let ip = of.header_len;
        // A super-packet's own length field may not hold its length.
        let total = if skb.is_gso() { len } else { of.total_len };
        if total > len || total < ip {
            return None;
        }
        let mut end = ip;
        if of.transport {
            match of.protocol {
                ip::TCP if total >= ip + TCP_MIN && skb.pull_head(ip + TCP_MIN) => {
                    let header = usize::from(skb.linear().get(ip + 12)? >> 4) << 2;
                    if header >= TCP_MIN && total >= ip + header && skb.pull_head(ip + header) {
                        end = ip + header;
                    }
                }
                ip::UDP if total >= ip + UDP_LEN && skb.pull_head(ip + UDP_LEN) => {
                    end = ip + UDP_LEN
                }
                _ => {}
            }
        }
        self.octets
            .get_mut(..end)?
            .copy_from_slice(skb.linear().get(..end)?);
        self.ip = ip;
        self.len = end;
        // As long as it really is.
        self.of = Addresses {
            total_len: total,
            ..of
        };
        self.total = total;
        Some(())
    }

    fn put16(&mut self, at: usize, value: u16) {
        if let Some(field) = self.octets.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    fn get16(&self, at: usize) -> u16 {
        self.octets
            .get(at..)
            .and_then(|o| o.first_chunk())
            .map_or(0, |o| u16::from_be_bytes(*o))
    }

    /// Sets the datagram's length and makes the IP header's checksum good.
    fn set_total(&mut self, total: usize) {
        self.total = total;
        let header = self.octets.get_mut(..self.ip).unwrap_or(&mut []);
        ip::set_total(header, total);
    }
}

/// Which payload follows a head, and what is to be done about its checksum.
struct Body<'a> {
    from: &'a Buffer,
    at: usize,
    len: usize,
    /// Where a checksum over head and payload starts and goes, both offsets in the head.
    sum: Option<(usize, usize)>,
}

/// What of a datagram is sealed.
struct Inside {
    /// Where it begins: in transport mode behind the IP header.
    from: usize,
    /// The trailer's next header (docs/wire.md 1.6d).
    next: u8,
    /// The zone header's protocol: 0 in tunnel mode (docs/wire.md 1.1d).
    protocol: u8,
}

/// How a sealed packet is divided.
struct Room {
    split: Split,
    at: Layout,
    pad: u8,
}

/// A packet's way out: everything but the packet.
struct Origin<'a> {
    ns: &'a Namespace,
    csa: &'a Csa,
    /// The CSA's ends, as they are for this packet.
    path: Path,
    bh: &'a Bh,
    device: Device<'a>,
}

/// Takes a packet that was routed to `device`.
pub(crate) fn transmit(ns: &Namespace, device: Device<'_>, skb: Skb, bh: &Bh, reader: &Reader) {
    let _ = deal_with(ns, device, skb, Waits::ForWay, bh, reader);
}

/// What became of a packet that had waited.
pub(crate) enum Left {
    /// It was sent, or dropped.
    Gone,
    /// Its way hasn't the room.
    NoRoom(Skb),
    /// There is no way for it.
    NoWay(Skb),
}

/// Sends a packet that has waited for a way out. It is given back where the way hasn't that room; and where there still is
/// none, unless any room would do: then its time is over, and it is dropped (docs/wire.md 2.2w).
#[inline(never)]
pub(crate) fn again(ns: &Namespace, mut skb: Skb, room: Space, bh: &Bh, reader: &Reader) -> Left {
    let Some(device) = ns.device.get(reader) else {
        return Left::Gone;
    };
    skb.return_to(device);
    let mut left = deal_with(ns, device, skb, Waits::ForRoom(room), bh, reader);
    if let Left::NoRoom(back) | Left::NoWay(back) = &mut left {
        back.let_go();
    }
    left
}

/// What a packet may wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// For a way: it is put aside.
    ForWay,
    /// For a way with this room in its queue: it is given back.
    ForRoom(Space),
}

/// Gives back what waits for room.
fn deal_with(
    ns: &Namespace,
    device: Device<'_>,
    skb: Skb,
    waits: Waits,
    bh: &Bh,
    reader: &Reader,
) -> Left {
    let sent = match skb.protocol() {
        ETH_P_IP => send::<V4_HEAD>(ns, device, skb, waits, bh, reader),
        ETH_P_IPV6 => send::<V6_HEAD>(ns, device, skb, waits, bh, reader),
        _ => Err(Unsent::Refused(Reason::BadInner, None)),
    };
    match sent {
        Ok(()) => return Left::Gone,
        Err(Unsent::Waits(left)) => return left,
        Err(Unsent::Dropped) => {}
        Err(Unsent::Refused(reason, Some(csa))) => csa.count(ns, reason),
        Err(Unsent::Refused(reason, None)) => ns.counters.count(reason),
    }
    device.count_dropped();
    Left::Gone
}

/// Why a packet isn't sent.
enum Unsent<'g> {
    /// Why not at all, and by which CSA.
    Refused(Reason, Option<&'g Csa>),
    /// It was dropped, and counted: those that wait left it no room.
    Dropped,
    /// It has no way yet, or one without room.
    Waits(Left),
}

fn send<'g, const N: usize>(
    ns: &'g Namespace,
    device: Device<'_>,
    mut skb: Skb,
    waits: Waits,
    bh: &Bh,
    reader: &'g Reader,
) -> Result<(), Unsent<'g>> {
    let mut head = Head::<N>::empty();
    head.read(&mut skb)
        .ok_or(Unsent::Refused(Reason::BadInner, None))?;
    // Neighbour discovery and the like are the link's own affair; this one has no neighbours (docs/wire.md 5f).
    if head.of.family == 6 && head.of.is_link_scope() {
        return Err(Unsent::Refused(Reason::LinkScope, None));
    }
    let ports = || policy::ports(&skb, &head.of);
    let Some(csa) = ns.sadb.origin(&head.of, ports, reader) else {
        let seed = ns.sadb.seed;
        if let Some(policy) = ns.spd.find(false, seed, &head.of, ports, false, reader) {
            // docs/wire.md 2.4a.
            zone_message::acquire(ns, policy, &head.of, ports());
        }
        return Err(match ns.sadb.ended_origin(&head.of, ports, reader) {
            Some(csa) => Unsent::Refused(Reason::Expired, Some(csa)),
            None => Unsent::Refused(Reason::NoCsa, None),
        });
    };
    let origin = Origin {
        ns,
        csa,
        path: csa.ends.get(),
        bh,
        device,
    };
    let refuse = |reason| Unsent::Refused(reason, Some(csa));
    // A fragment's own header would have to stay outside, in front of what isn't a datagram (RFC 4303 §3.3.4)
    // (docs/wire.md 1.11d).
    if origin.is_transport() && head.of.fragment {
        return Err(refuse(Reason::Fragment));
    }
    let route = match (waits, origin.route(), csa.hold()) {
        (Waits::ForRoom(room), Ok(route), _) if route.is_up() => {
            if !route.queue(reader).has(room) {
                return Err(Unsent::Waits(Left::NoRoom(skb)));
            }
            route
        }
        (Waits::ForRoom(room), no_way, _) => {
            let reason = no_way.err().unwrap_or(Reason::NoRoute);
            return Err(match room {
                Space::Any => refuse(reason),
                _ => Unsent::Waits(Left::NoWay(skb)),
            });
        }
        (Waits::ForWay, Ok(route), None) => route,
        (Waits::ForWay, Ok(route), Some(hold)) if route.is_up() => {
            // Those that waited go first.
            if hold.has_some() {
                skb = match hold.behind(ns, skb, route.queue(reader), bh) {
                    Behind::Goes(skb) => skb,
                    Behind::Waits => return Ok(()),
                    Behind::Dropped => return Err(Unsent::Dropped),
                };
            }
            route
        }
        (Waits::ForWay, Err(reason), None) => return Err(refuse(reason)),
        (Waits::ForWay, no_way, Some(hold)) => {
            let reason = no_way.err().unwrap_or(Reason::NoRoute);
            return hold.wait(ns, skb).map_err(|_| refuse(reason));
        }
    };
    let room = csa.inner_mtu(route.mtu(), &origin.path, head.ip);
    // docs/wire.md 2.1i.
    if ns.settings.mss_clamp.load(Ordering::Relaxed) && head.of.protocol == ip::TCP {
        let syn = head
            .transport()
            .get(TCP_FLAGS)
            .is_some_and(|flags| flags & SYN != 0);
        if syn && skb.partial_checksum().is_some() && !skb.checksum_help() {
            return Err(refuse(Reason::NoMemory));
        }
        if syn {
            head.read(&mut skb).ok_or(refuse(Reason::BadInner))?;
            let clamp = u16::try_from(room.saturating_sub(head.ip + TCP_MIN)).unwrap_or(u16::MAX);
            let len = head.len;
            tcp::clamp_mss(head.octets.get_mut(..len).unwrap_or(&mut []), clamp);
        }
    }
    if skb.is_gso() {
        return origin
            .super_packet(skb, &mut head, room, route)
            .map_err(refuse);
    }
    if head.total > room && !origin.is_cut_outside(&head) {
        return origin.too_big(skb, &mut head, room).map_err(refuse);
    }
    origin.whole(skb, &mut head, route).map_err(refuse)
}

impl<'a> Origin<'a> {
    #[inline]
    fn is_transport(&self) -> bool {
        self.csa.map.mode() == Mode::Transport
    }

    /// Whether a datagram that doesn't fit is sealed all the same, and its packet cut into outer fragments: transport mode's
    /// datagrams are sealed whole. Not in UDP, whose fragments a guard can't tell from anybody's (docs/wire.md 1.11e).
    fn is_cut_outside<const N: usize>(&self, head: &Head<N>) -> bool {
        self.is_transport() && !head.of.df && self.path.encap.is_none()
    }

    /// Octets that stay in front of ESP, of the outer header or in transport mode the datagram's own, without UDP's.
    #[inline]
    fn outer_len<const N: usize>(&self, head: &Head<N>) -> usize {
        if self.is_transport() {
            head.ip
        } else {
            self.path.outer.header_len()
        }
    }

    /// docs/wire.md 2.1m.
    fn route(&self) -> Result<Route, Reason> {
        let mark = self.ns.settings.mark.load(Ordering::Relaxed);
        let route = self
            .csa
            .route
            .route(self.ns, &self.path, mark, self.bh)
            .ok_or(Reason::NoRoute)?;
        if route.is_through(self.device) {
            Err(Reason::RouteLoop)
        } else {
            Ok(route)
        }
    }

    /// Lets a sealed packet go. The last that is made of a datagram takes over from it what its sender is charged.
    #[inline]
    fn leave(&self, mut sealed: Skb, last_of: Option<&mut Skb>) {
        if let Some(hold) = self.csa.hold() {
            // docs/wire.md 2.2w. First, for what the sender is charged may be a super-packet's size.
            hold.keep_sealed(self.ns, &sealed);
        }
        if let Some(from) = last_of.filter(|from| from.has_owner()) {
            sealed.take_owner(from);
        }
        net::local_out(self.ns, sealed, &self.path.outer, self.bh);
    }

    /// One datagram, which fits.
    #[inline]
    fn whole<const N: usize>(
        &self,
        mut skb: Skb,
        head: &mut Head<N>,
        route: Route,
    ) -> Result<(), Reason> {
        let mut sum = skb.partial_checksum();
        if let Some((start, field)) = sum {
            // Only what lies in the head, at an even distance, is summed on the way.
            if field + 2 > head.len || start > field || (head.len - start) & 1 != 0 {
                if !skb.checksum_help() {
                    return Err(Reason::NoMemory);
                }
                head.read(&mut skb).ok_or(Reason::BadInner)?;
                sum = None;
            }
        }
        let seq = self.csa.take_numbers(1, head.total as u64)?;
        let body = Body {
            from: &skb,
            at: head.len,
            len: head.total - head.len,
            sum,
        };
        let mut sealed = self.seal(head, &body, seq, &route)?;
        sealed.set_outgoing(&skb, self.path.outer.family, self.outer_len(head), route);
        self.device.count_sent(1, head.total);
        self.leave(sealed, Some(&mut skb));
        skb.consume();
        Ok(())
    }

    /// A TCP super-packet is cut here, straight into the sealed packets; others by the kernel's own code.
    fn super_packet<const N: usize>(
        &self,
        mut skb: Skb,
        head: &mut Head<N>,
        room: usize,
        route: Route,
    ) -> Result<(), Reason> {
        let size = skb.gso_size();
        if !skb.is_plain_tcp_gso() || head.len < head.ip + TCP_MIN || size == 0 {
            drop(route);
            let mut result = Ok(());
            let whole = skb.segment(|mut segment| {
                let one = head
                    .read(&mut segment)
                    .ok_or(Reason::BadInner)
                    .and_then(|()| {
                        if head.of.fragment && self.csa.selector.names_ports() {
                            Err(Reason::Fragment)
                        } else if head.total > room && !self.is_cut_outside(head) {
                            self.too_big(segment, head, room)
                        } else {
                            self.whole(segment, head, self.route()?)
                        }
                    });
                if one.is_err() {
                    result = one;
                }
            });
            return if whole { result } else { Err(Reason::NoMemory) };
        }
        let payload = head.total - head.len;
        if head.len + size > room {
            self.refuse_too_big(&mut skb, head, room);
            return Err(Reason::TooBig);
        }
        let count = payload.div_ceil(size);
        let octets = payload + count * head.len;
        let mut seq = self.csa.take_numbers(count as u64, octets as u64)?;
        let flags = head.octets.get(head.ip + TCP_FLAGS).copied().unwrap_or(0);
        let first = head
            .octets
            .get(head.ip + TCP_SEQ..)
            .and_then(|o| o.first_chunk())
            .map_or(0, |o| u32::from_be_bytes(*o));
        let id = head.get16(IP_ID);
        for (n, at) in (0..payload).step_by(size).enumerate() {
            let len = size.min(payload - at);
            let last = at + len == payload;
            let mut keep = !(FIN | PSH | CWR);
            keep |= if last { FIN | PSH } else { 0 };
            keep |= if n == 0 { CWR } else { 0 };
            let (ip, headers) = (head.ip, head.len);
            if let Some(field) = head.octets.get_mut(ip + TCP_FLAGS) {
                *field = flags & keep;
            }
            if let Some(field) = head.octets.get_mut(ip + TCP_SEQ..ip + TCP_SEQ + 4) {
                field.copy_from_slice(&first.wrapping_add(at as u32).to_be_bytes());
            }
            if head.of.family == 4 {
                head.put16(IP_ID, id.wrapping_add(n as u16));
            }
            head.set_total(headers + len);
            head.put16(ip + TCP_CHECKSUM, pseudo(&head.of, headers - ip + len));
            let body = Body {
                from: &skb,
                at: headers + at,
                len,
                sum: Some((ip, ip + TCP_CHECKSUM)),
            };
            let out = route.clone();
            let mut sealed = self.seal(head, &body, seq, &out)?;
            seq += 1;
            sealed.set_outgoing(&skb, self.path.outer.family, self.outer_len(head), out);
            self.leave(sealed, last.then_some(&mut skb));
        }
        self.device.count_sent(count, octets);
        skb.consume();
        Ok(())
    }

    /// A datagram that doesn't fit: its sender is told, or it is cut into fragments (RFC 791 §3.2) before it is sealed
    /// (docs/wire.md 1.7k).
    fn too_big<const N: usize>(
        &self,
        mut skb: Skb,
        head: &mut Head<N>,
        room: usize,
    ) -> Result<(), Reason> {
        // A fragment shows no ports, so that the other end would drop it (docs/wire.md 1.7r).
        if !head.of.df && self.csa.selector.names_ports() {
            return Err(Reason::Fragment);
        }
        // Transport mode seals no fragment.
        if head.of.df || self.is_transport() {
            self.refuse_too_big(&mut skb, head, room);
            return Err(Reason::TooBig);
        }
        let step = room.saturating_sub(head.ip) & !7;
        if step == 0 {
            return Err(Reason::TooBig);
        }
        if skb.partial_checksum().is_some() {
            if !skb.checksum_help() {
                return Err(Reason::NoMemory);
            }
            head.read(&mut skb).ok_or(Reason::BadInner)?;
        }
        let payload = head.total - head.ip;
        let given = head.get16(IP_FRAGMENT);
        for at in (0..payload).step_by(step) {
            let len = step.min(payload - at);
            let more = at + len < payload || given & MORE_FRAGMENTS != 0;
            let offset = usize::from(given & 0x1FFF) + at / 8;
            let mut piece = Head {
                octets: head.octets,
                ip: head.ip,
                len: head.len,
                of: head.of,
                total: head.total,
            };
            // The transport header goes with the first fragment, as far as it fits.
            piece.len = if at == 0 {
                head.len.min(head.ip + len)
            } else {
                head.ip
            };
            if at > 0 {
                drop_uncopied_options(piece.octets.get_mut(ip::V4_MIN..head.ip).unwrap_or(&mut []));
            }
            piece.put16(
                IP_FRAGMENT,
                offset as u16 | if more { MORE_FRAGMENTS } else { 0 },
            );
            piece.set_total(head.ip + len);
            let seq = self.csa.take_numbers(1, piece.total as u64)?;
            let rest = piece.total - piece.len;
            let start = head.ip + at + (piece.len - piece.ip);
            let body = Body {
                from: &skb,
                at: start,
                len: rest,
                sum: None,
            };
            let route = self.route()?;
            let mut sealed = self.seal(&mut piece, &body, seq, &route)?;
            sealed.set_outgoing(
                &skb,
                self.path.outer.family,
                self.path.outer.header_len(),
                route,
            );
            self.device.count_sent(1, piece.total);
            self.leave(sealed, None);
        }
        skb.consume();
        Ok(())
    }

    /// Tells the sender of a datagram that doesn't fit. Below IPv6's least there is nothing it could do
    /// (docs/wire.md 1.7k).
    fn refuse_too_big<const N: usize>(&self, skb: &mut Skb, head: &Head<N>, room: usize) {
        if head.of.family == 4 {
            // What has waited let go of the route that the answer is made by.
            net::return_route(self.ns, skb, head.of.protocol);
            skb.too_big(room);
        } else {
            skb.too_big6(room.max(V6_MTU_MIN));
        }
    }

    /// Makes the sealed packet, outer header and all.
    #[inline]
    fn seal<const N: usize>(
        &self,
        head: &mut Head<N>,
        body: &Body<'_>,
        seq: u64,
        route: &Route,
    ) -> Result<Skb, Reason> {
        let csa = self.csa;
        let zone2 = csa.zone2.as_ref().ok_or(Reason::NoMemory)?;
        let inside = if self.is_transport() {
            Inside {
                from: head.ip,
                next: head.of.protocol,
                protocol: head.of.protocol,
            }
        } else {
            Inside {
                from: 0,
                next: head.of.encapsulated(),
                protocol: 0,
            }
        };
        let len = head.total - inside.from;
        let split = csa.map.split(inside.protocol, head.from(inside.from), len);
        let (at, pad) = Layout::seal([csa.zone1.iv, zone2.iv], &split, len);
        let path = &self.path;
        let udp = self.outer_len(head);
        let outer = udp + path.udp_len();
        if self.is_transport() && outer + at.end > ip::TOTAL_MAX {
            return Err(Reason::TooBig);
        }
        let mut skb =
            Skb::alloc(route.headroom(), outer + at.end, self.bh).ok_or(Reason::NoMemory)?;
        let mut octets = skb.linear_mut().ok_or(Reason::NoMemory)?;
        if self.is_transport() {
            write_own(&mut octets, head, path)
        } else {
            // docs/wire.md 1.7i.
            let ds = ecn::encap(head.of.ds);
            let ttl = route.ttl(path.outer.family);
            if path.outer.family == 4 {
                write_outer(&mut octets, path, ds, ttl, seq)
            } else {
                write_outer6(&mut octets, path, ds, ttl)
            }
        }
        .ok_or(Reason::NoMemory)?;
        if let Some(encap) = &path.encap {
            write_udp(&mut octets, udp, encap, at.end).ok_or(Reason::NoMemory)?;
        }
        let mut esp = octets
            .range(outer, outer + at.end)
            .ok_or(Reason::NoMemory)?;
        let room = Room { split, at, pad };
        self.seal_zones(&mut esp, head, body, seq, &inside, room)
            .ok_or(Reason::NoMemory)?;
        if path.encap.is_some() && path.outer.family == 6 {
            sum_udp6(&mut octets, udp, &path.outer).ok_or(Reason::NoMemory)?;
        }
        Ok(skb)
    }

    #[inline]
    fn seal_zones<const N: usize>(
        &self,
        esp: &mut Linear<'_>,
        head: &mut Head<N>,
        body: &Body<'_>,
        seq: u64,
        inside: &Inside,
        Room { split, at, pad }: Room,
    ) -> Option<()> {
        let csa = self.csa;
        let zone2 = csa.zone2.as_ref()?;
        let (from, l1) = (inside.from, split.l1);
        // The first octet of the headers that is zone 2's.
        let second = from + l1;
        // Zone 2: the rest of the headers, the payload, the trailer (docs/wire.md 1.3e).
        let mut next = at.z2 + if split.moved.is_some() { 2 } else { 0 };
        let rest = next;
        let headers = head.len;
        next += headers.checked_sub(second)?;
        let payload = body
            .from
            .copy_and_sum(body.at, esp.get_mut(next..next + body.len)?)?;
        if let Some((start, field)) = body.sum {
            let sum = checksum::add(
                checksum::sum(head.octets.get(start..headers)?),
                fold(payload),
            );
            head.put16(field, if sum == 0xFFFF { 0xFFFF } else { !sum });
        }
        esp.get_mut(rest..next)?
            .copy_from_slice(head.octets.get(second..headers)?);
        let trailer = esp.get_mut(next + body.len..at.icv2)?;
        // docs/wire.md 1.6a.
        esp::write_trailer(trailer, pad, inside.next);
        // docs/wire.md 1.4a.
        if let Some(field) = split.moved {
            let field = head.octets.get_mut(from + field..from + field + 2)?;
            esp.get_mut(at.z2..at.z2 + 2)?.copy_from_slice(field);
            field.fill(0);
        }
        let zone1 = head.octets.get(from..second)?;
        let mut header = [0; esp::HEADER_LEN];
        Header {
            spi: csa.spi,
            // docs/wire.md 1.1b.
            seq_lo: seq as u32,
            flags: 0,
            protocol: inside.protocol,
            l1: l1 as u16,
        }
        .write(&mut header);

        // AAD 2 is laid right in front of zone 2, so that both are one piece to the cipher; what belongs there comes after
        // (docs/wire.md 1.3b).
        let aad = at.z2.checked_sub(esp::HEADER_LEN + l1)?;
        esp.get_mut(aad..aad + esp::HEADER_LEN)?
            .copy_from_slice(&header);
        let bound = esp.get_mut(aad + esp::HEADER_LEN..at.z2)?;
        bound.copy_from_slice(zone1);
        if csa.may_write {
            // docs/wire.md 1.3c.
            esp::mask(bound, csa.map.mode(), inside.protocol);
        }
        zone2
            .aead
            .seal(
                self.bh,
                esp.range(aad, at.icv2 + ICV_LEN)?,
                esp::HEADER_LEN + l1,
                &esp::nonce(&zone2.salt, seq),
            )
            .ok()?;
        // docs/wire.md 1.2d.
        if zone2.iv == IvKind::Explicit {
            esp.get_mut(at.iv2..at.iv2 + esp::IV_LEN)?
                .copy_from_slice(&seq.to_be_bytes());
        }

        // Zone 1 likewise: its header right in front of it, and moved to its own place if an IV stands between
        // (docs/wire.md 1.3a).
        let aad = at.z1.checked_sub(esp::HEADER_LEN)?;
        esp.get_mut(aad..at.z1)?.copy_from_slice(&header);
        esp.get_mut(at.z1..at.icv1)?.copy_from_slice(zone1);
        csa.zone1
            .aead
            .seal(
                self.bh,
                esp.range(aad, at.icv1 + ICV_LEN)?,
                esp::HEADER_LEN,
                &esp::nonce(&csa.zone1.salt, seq),
            )
            .ok()?;
        if csa.zone1.iv == IvKind::Explicit {
            *esp.first_chunk_mut()? = header;
            esp.get_mut(at.iv1..at.iv1 + esp::IV_LEN)?
                .copy_from_slice(&seq.to_be_bytes());
        }
        Some(())
    }
}

/// The outer IPv4 header (RFC 4301 §5.1.2): DF set; length and checksum are the stack's to fill in (docs/wire.md 1.7j).
#[inline]
fn write_outer(octets: &mut [u8], path: &Path, ds: u8, ttl: u8, seq: u64) -> Option<()> {
    let [_, _, _, _, _, _, i0, i1] = seq.to_be_bytes();
    let [s0, s1, s2, s3, ..] = path.outer.src;
    let [d0, d1, d2, d3, ..] = path.outer.dst;
    *octets.first_chunk_mut()? = [
        0x45,
        ds,
        0,
        0,
        i0,
        i1,
        0x40,
        0,
        ttl,
        path.protocol(),
        0,
        0,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ];
    Some(())
}

/// The outer IPv6 header (RFC 8200 §3): the length is the stack's to fill in.
#[inline(never)]
fn write_outer6(octets: &mut [u8], path: &Path, ds: u8, limit: u8) -> Option<()> {
    let (fixed, rest) = octets.split_first_chunk_mut::<8>()?;
    *fixed = [0x60 | ds >> 4, ds << 4, 0, 0, 0, 0, path.protocol(), limit];
    let (src, rest) = rest.split_first_chunk_mut::<16>()?;
    *src = path.outer.src;
    *rest.first_chunk_mut()? = path.outer.dst;
    Some(())
}

/// Transport mode's header: the datagram's own, options and extension headers included (RFC 4303 §3.1.1), with ESP or UDP
/// behind it. Length and checksum are the stack's to fill in (docs/wire.md 1.11a).
#[inline(never)]
fn write_own<const N: usize>(octets: &mut [u8], head: &Head<N>, path: &Path) -> Option<()> {
    let header = octets.get_mut(..head.ip)?;
    header.copy_from_slice(head.octets.get(..head.ip)?);
    ip::set_next(header, path.protocol()).then_some(())
}

/// The UDP header of an encapsulated packet (RFC 3948 §2.1) with `esp` octets behind it: over IPv4 without a checksum
/// (docs/wire.md 1.7m, 1.7n).
#[inline(never)]
fn write_udp(octets: &mut [u8], at: usize, encap: &Encap, esp: usize) -> Option<()> {
    let [s0, s1] = encap.sport.to_be_bytes();
    let [d0, d1] = encap.dport.to_be_bytes();
    let [l0, l1] = u16::try_from(esp + UDP_LEN).ok()?.to_be_bytes();
    *octets.get_mut(at..)?.first_chunk_mut()? = [s0, s1, d0, d1, l0, l1, 0, 0];
    Some(())
}

/// Over IPv6 a receiver wants a checksum (RFC 8200 §8.1). It covers the sealed octets (docs/wire.md 1.7n).
#[inline(never)]
fn sum_udp6(octets: &mut [u8], at: usize, outer: &Outer) -> Option<()> {
    let udp = octets.get(at..)?;
    let [l0, l1] = u16::try_from(udp.len()).ok()?.to_be_bytes();
    let ends = checksum::add(checksum::sum(&outer.src), checksum::sum(&outer.dst));
    let rest = checksum::add(checksum::sum(&[0, ip::UDP, l0, l1]), checksum::sum(udp));
    let sum = !checksum::add(ends, rest);
    // Zero is "none".
    let sum = if sum == 0 { 0xFFFF } else { sum };
    octets
        .get_mut(at + 6..)?
        .first_chunk_mut()
        .map(|field| *field = sum.to_be_bytes())
}

/// A 32-bit sum in wire order, folded to 16 bits in host order.
#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xFFFF) + (sum >> 16);
    u16::from_be((sum & 0xFFFF) as u16 + (sum >> 16) as u16)
}

/// The sum of TCP's pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) for a segment of `len` octets.
#[inline]
fn pseudo(of: &Addresses, len: usize) -> u16 {
    let [s0, s1, s2, s3, ..] = of.src;
    let [d0, d1, d2, d3, ..] = of.dst;
    let [l0, l1] = (len as u16).to_be_bytes();
    let ends = if of.family == 4 {
        checksum::sum(&[s0, s1, s2, s3, d0, d1, d2, d3])
    } else {
        checksum::add(checksum::sum(&of.src), checksum::sum(&of.dst))
    };
    checksum::add(ends, checksum::sum(&[0, ip::TCP, l0, l1]))
}

/// Later fragments carry only the options whose copied bit is set (RFC 791 §3.1); the others become no-operations.
fn drop_uncopied_options(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => options
                .get(at + 1)
                .map_or(1, |len| usize::from(*len).max(2)),
        };
        if kind & 0x80 == 0 {
            if let Some(option) = options.get_mut(at..(at + len).min(options.len())) {
                option.fill(1);
            }
        }
        at += len;
    }
}
