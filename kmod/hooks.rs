// SPDX-License-Identifier: GPL-2.0-only

//! Netfilter: the guard. A route says where, policy says must (docs/wire.md §5).

use mml_core::ip::{self, Addresses};

use crate::counters::Reason;
use crate::ends::Outer;
use crate::namespace::Namespace;
use crate::net::{Disposition, Place, Way};
use crate::policy::{ports, Action};
use crate::skb::Buffer;
use crate::sync::Reader;
use crate::zone_message;

const ICMP: u8 = 1;
const IGMP: u8 = 2;
/// ICMP router advertisement and solicitation (RFC 1256).
const ROUTER_ADVERTISEMENT: u8 = 9;
const ROUTER_SOLICITATION: u8 = 10;

/// Decides on a packet at any of the guard's places. `skb`'s data starts at the IP header there.
pub(crate) fn guard(ns: &Namespace, skb: &Buffer, way: &Way<'_>, reader: &Reader) -> Disposition {
    let outbound = matches!(way.place, Place::Forward | Place::LocalOut);
    // What we sealed; what goes to our device or came from it (docs/wire.md 5a).
    let device = if outbound { way.to } else { way.from };
    if way.sealed || ns.device.is(device) {
        return Disposition::Accept;
    }
    // What stays within the host.
    if device.is_some_and(|device| device.is_loopback()) {
        return Disposition::Accept;
    }
    let Some(of) = read(skb) else {
        return Disposition::Drop;
    };
    // ESP is let in, so that a terminus or XFRM may open it.
    if !outbound && of.protocol == ip::ESP {
        return Disposition::Accept;
    }
    // docs/wire.md 5d.
    if way.place != Place::Forward && is_link_control(skb, &of) {
        return Disposition::Accept;
    }
    // docs/wire.md 5h.
    if way.place == Place::Forward && of.protocol == ip::ESP && is_own(ns, skb, &of, reader) {
        return Disposition::Accept;
    }
    match way.place {
        Place::LocalOut => outgoing(ns, skb, &of, false, reader),
        // ESP that was let in but is passing through is a packet like any other; unless it came out of a tunnel.
        Place::Forward
            if of.protocol == ip::ESP
                && !ns.device.is(way.from)
                && incoming(ns, skb, &of, reader) == Disposition::Drop =>
        {
            Disposition::Drop
        }
        Place::Forward => outgoing(ns, skb, &of, true, reader),
        Place::PreRouting => incoming(ns, skb, &of, reader),
    }
}

/// What policies ask for. `None` for what isn't IP, and for IPv6 with more extension headers than are followed: what it
/// carries can't be told, so that no policy for a protocol would cover it (docs/wire.md 5e).
#[inline]
fn read(skb: &Buffer) -> Option<Addresses> {
    // IP has made its header linear before any hook sees the packet; IPv6's extension headers may lie elsewhere.
    let linear = skb.linear();
    if ip::version(linear) == 4 {
        return ip::addresses(linear);
    }
    read6(skb)
}

#[inline(never)]
fn read6(skb: &Buffer) -> Option<Addresses> {
    let mut head = [0; ip::HEADERS_MAX];
    let head = head.get_mut(..skb.len().min(ip::HEADERS_MAX))?;
    if !skb.copy_bits(0, head) {
        return None;
    }
    ip::addresses(head).filter(|of| !ip::is_extension(of.protocol))
}

/// `forwarded`: bypass policies are for the host's own traffic and say nothing here (docs/wire.md 5c, 5d).
fn outgoing(
    ns: &Namespace,
    skb: &Buffer,
    of: &Addresses,
    forwarded: bool,
    reader: &Reader,
) -> Disposition {
    let Some(policy) = ns.spd.find(
        false,
        ns.sadb.seed,
        of,
        || ports(skb, of),
        !forwarded,
        reader,
    ) else {
        return Disposition::Accept;
    };
    match policy.action {
        Action::Bypass => Disposition::Accept,
        Action::Discard => {
            ns.counters.count(Reason::Discard);
            Disposition::Drop
        }
        // docs/wire.md 2.4b.
        Action::Protect if skb.goes_through_xfrm() || skb.left_xfrm() => Disposition::Accept,
        Action::Protect => {
            // docs/wire.md 2.4a.
            ns.counters.count(Reason::GuardOut);
            zone_message::acquire(ns, policy, of, ports(skb, of));
            Disposition::Drop
        }
    }
}

fn incoming(ns: &Namespace, skb: &Buffer, of: &Addresses, reader: &Reader) -> Disposition {
    let Some(policy) = ns
        .spd
        .find(true, ns.sadb.seed, of, || ports(skb, of), true, reader)
    else {
        return Disposition::Accept;
    };
    match policy.action {
        Action::Bypass => Disposition::Accept,
        Action::Discard => {
            ns.counters.count(Reason::Discard);
            Disposition::Drop
        }
        Action::Protect if skb.came_through_xfrm() || is_encapsulated(ns, skb, of, reader) => {
            Disposition::Accept
        }
        Action::Protect => {
            ns.counters.count(Reason::GuardIn);
            Disposition::Drop
        }
    }
}

/// Whether it is UDP between the ports of a terminus' CSA with that CSA's SPI behind: transport mode's policies cover the
/// packets that carry it, too. Like bare ESP it is let in, to be opened or go nowhere.
#[inline(never)]
fn is_encapsulated(ns: &Namespace, skb: &Buffer, of: &Addresses, reader: &Reader) -> bool {
    if of.protocol != ip::UDP || !of.transport || of.fragment || ns.sadb.termini.len() == 0 {
        return false;
    }
    let Some([_, _, d0, d1, _, _, _, _, s0, s1, s2, s3]) = skb.octets::<12>(of.header_len) else {
        return false;
    };
    let outer = Outer {
        family: of.family,
        src: of.src,
        dst: of.dst,
    };
    ns.sadb
        .terminus(&outer, u32::from_be_bytes([s0, s1, s2, s3]), reader)
        .and_then(|csa| csa.ends.get().encap)
        .is_some_and(|encap| encap.dport == u16::from_be_bytes([d0, d1]))
}

/// Whether it is ESP of an origin's CSA of this node: sealed here, and passing a second time, for who held it gave it back.
/// Whatever it is, nothing of it is in clear that a policy would have sealed: only who has the keys opens it.
#[inline(never)]
fn is_own(ns: &Namespace, skb: &Buffer, of: &Addresses, reader: &Reader) -> bool {
    let Some(spi) = skb.octets(of.header_len).filter(|_| !of.fragment) else {
        return false;
    };
    let outer = Outer {
        family: of.family,
        src: of.src,
        dst: of.dst,
    };
    let spi = u32::from_be_bytes(spi);
    ns.sadb.origin_by_spi(&outer, spi, reader).is_some()
}

/// Control of the link itself (docs/wire.md §5), to link-local or multicast destinations: ICMP router discovery, IGMP;
/// ICMPv6's multicast listeners (130 to 132, 143) and neighbour discovery (133 to 137). Solicitations and advertisements
/// of neighbours to any destination, if no router has passed them on: their hop limit is 255 (RFC 4861 §7.1)
/// (docs/wire.md 5b).
fn is_link_control(skb: &Buffer, of: &Addresses) -> bool {
    if !of.transport {
        return false;
    }
    match (of.family, of.protocol) {
        (4, IGMP) => of.is_link_scope(),
        (4, ICMP) if of.is_link_scope() => icmp_type(skb, of)
            .is_some_and(|kind| matches!(kind, ROUTER_ADVERTISEMENT | ROUTER_SOLICITATION)),
        (6, ip::ICMPV6) => match icmp_type(skb, of) {
            Some(130..=134 | 137 | 143) => of.is_link_scope(),
            Some(135 | 136) => of.is_link_scope() || ip::ttl(skb.linear()) == Some(255),
            _ => false,
        },
        _ => false,
    }
}

fn icmp_type(skb: &Buffer, of: &Addresses) -> Option<u8> {
    let [kind] = skb.octets(of.header_len)?;
    Some(kind)
}
