// SPDX-License-Identifier: GPL-2.0-only

//! Netfilter: the guard. A route says where, policy says must (docs/wire.md §5).

use kernel::sync::rcu;
use mml_core::ip::{self, Addresses};

use crate::counters::Reason;
use crate::namespace::Namespace;
use crate::net::{Disposition, Place, Way};
use crate::policy::Action;
use crate::skb::Buffer;
use crate::zone_message;

/// ICMP router advertisement and solicitation (RFC 1256).
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ROUTER_ADVERTISEMENT: u8 = 9;
const ROUTER_SOLICITATION: u8 = 10;

/// Octets at the front of a packet that the guard may need: an IPv4 header with options, and the SPI.
const HEAD_LEN: usize = 64;

/// Decides on a packet at any of the guard's places. `skb`'s data starts at the IP header there.
pub(crate) fn guard(ns: &Namespace, skb: &Buffer, way: &Way<'_>) -> Disposition {
    let loopback = |device: Option<crate::net::Device<'_>>| device.is_some_and(|d| d.is_loopback());
    let outbound = matches!(way.place, Place::Forward | Place::LocalOut);
    // What we sealed; what goes to our device or came from it; what stays within the host.
    if way.sealed || if outbound { ns.device.is(way.to) || loopback(way.to) } else { ns.device.is(way.from) || loopback(way.from) } {
        return Disposition::Accept;
    }
    let mut head = [0; HEAD_LEN];
    let len = skb.len().min(HEAD_LEN);
    let Some(head) = head.get_mut(..len).filter(|_| len >= ip::V4_MIN) else { return Disposition::Drop };
    if !skb.copy_bits(0, head) {
        return Disposition::Drop;
    }
    let Some(of) = ip::addresses(head) else { return Disposition::Drop };
    if way.place != Place::Forward && is_link_control(head, &of) {
        return Disposition::Accept;
    }
    let guard = rcu::read_lock();
    match way.place {
        Place::LocalOut => outgoing(ns, skb, &of, false, &guard),
        // ESP was let in so that a terminus or XFRM may open it; if it is passing through instead, it is a packet like
        // any other.
        Place::Forward if of.protocol == ip::ESP && incoming(ns, skb, &of, &guard) == Disposition::Drop => Disposition::Drop,
        Place::Forward => outgoing(ns, skb, &of, true, &guard),
        Place::PreRouting | Place::LocalIn if of.protocol == ip::ESP => Disposition::Accept,
        Place::PreRouting | Place::LocalIn => incoming(ns, skb, &of, &guard),
    }
}

/// `forwarded`: bypass policies are for the host's own traffic and say nothing here.
fn outgoing(ns: &Namespace, skb: &Buffer, of: &Addresses, forwarded: bool, guard: &rcu::Guard) -> Disposition {
    let Some(policy) = ns.spd.find(false, ns.sadb.seed, of, !forwarded, guard) else { return Disposition::Accept };
    match policy.action {
        Action::Bypass => Disposition::Accept,
        Action::Discard => {
            ns.counters.count(Reason::Discard);
            Disposition::Drop
        }
        Action::Protect if skb.goes_through_xfrm() || skb.left_xfrm() => Disposition::Accept,
        Action::Protect => {
            ns.counters.count(Reason::GuardOut);
            zone_message::acquire(ns, policy, of);
            Disposition::Drop
        }
    }
}

fn incoming(ns: &Namespace, skb: &Buffer, of: &Addresses, guard: &rcu::Guard) -> Disposition {
    let Some(policy) = ns.spd.find(true, ns.sadb.seed, of, true, guard) else { return Disposition::Accept };
    match policy.action {
        Action::Bypass => Disposition::Accept,
        Action::Discard => {
            ns.counters.count(Reason::Discard);
            Disposition::Drop
        }
        Action::Protect if skb.came_through_xfrm() => Disposition::Accept,
        Action::Protect => {
            ns.counters.count(Reason::GuardIn);
            Disposition::Drop
        }
    }
}

/// Control of the link itself, to link-local or multicast destinations: ICMP router discovery, IGMP (docs/wire.md §5).
fn is_link_control(head: &[u8], of: &Addresses) -> bool {
    let [a, b, ..] = of.dst;
    let link_scope = a & 0xF0 == 0xE0 || (a, b) == (169, 254);
    link_scope
        && match of.protocol {
            IGMP => true,
            ICMP => of.transport && matches!(head.get(of.header_len), Some(&ROUTER_ADVERTISEMENT | &ROUTER_SOLICITATION)),
            _ => false,
        }
}
