// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rtnetlink's messages (Linux's `rtnetlink.h`, `if_link.h`, `fib_rules.h`, `neighbour.h`): tunnels, routes, rules and
//! neighbours that are written, and links that are read. Integers are host-endian but for addresses.

use crate::netlink::frame::{self, Attributes, Message, Request};
use mml_mip::{LinkAddress, Tunnel};
use std::net::Ipv4Addr;
use zeroize::Zeroizing;

/// `RTNLGRP_LINK`: the group of link events.
pub const GROUP_LINK: u32 = 1;
/// Who made a route or rule (`rtm_protocol`, `FRA_PROTOCOL`): a number nobody else has, "M".
const PROTOCOL: u8 = 77;
/// Of our rules: before `main` (32766), behind `local` (0) and room for others. One that drops comes after those of its
/// kind; those that name a destination, and what drops the rest of that source, before all.
const RULE_PRIORITY: u32 = 4340;
const RULE_PRIORITY_FIRST: u32 = 4338;
/// Of our routes in `main`: a route without a metric comes before it, so that what seals may take the packets.
pub const METRIC: u32 = 434;
/// `RT_TABLE_MAIN`.
pub const MAIN: u32 = 254;

/// `RTM_*`.
mod kind {
    pub const NEWLINK: u16 = 16;
    pub const DELLINK: u16 = 17;
    pub const GETLINK: u16 = 18;
    pub const SETLINK: u16 = 19;
    pub const NEWROUTE: u16 = 24;
    pub const DELROUTE: u16 = 25;
    pub const GETROUTE: u16 = 26;
    pub const NEWNEIGH: u16 = 28;
    pub const DELNEIGH: u16 = 29;
    pub const NEWRULE: u16 = 32;
    pub const DELRULE: u16 = 33;
}

/// `NLM_F_REPLACE`, `NLM_F_EXCL`, `NLM_F_CREATE`.
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

/// `AF_INET`.
const INET: u8 = 2;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFF_LOWER_UP`: there is a carrier.
const LOWER_UP: u32 = 1 << 16;
/// `RTNH_F_ONLINK`: the gateway is on the link, whatever its address says.
const ONLINK: u32 = 4;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `FR_ACT_TO_TBL`, `FR_ACT_BLACKHOLE`.
const TO_TABLE: u8 = 1;
const BLACKHOLE: u8 = 6;
/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
/// `NTF_PROXY`.
const PROXY: u8 = 8;

/// A tunnel's device, after the address at its other end: `mip` and eight hexadecimal digits.
pub fn device(tunnel: &Tunnel) -> String {
    format!("mip{:08x}", u32::from(tunnel.remote))
}

/// The address at a tunnel's other end, by its device's name.
pub fn remote(device: &str) -> Option<Ipv4Addr> {
    let digits = device
        .strip_prefix("mip")
        .filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)
}

fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [
        &[0, 0, 0, 0][..],
        &index.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &change.to_ne_bytes(),
    ]
    .concat()
}

fn named(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// An attribute that stands in another, padded.
fn inner(number: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut octets = [&len.to_ne_bytes()[..], &number.to_ne_bytes(), value].concat();
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// Lets packets with a source address of this node's own in by a device, or no more.
pub fn accept_own(seq: u32, device: u32, accept: bool) -> Zeroizing<Vec<u8>> {
    /// `IFLA_AF_SPEC`; within it, in `AF_INET`'s, `IFLA_INET_CONF` with `IPV4_DEVCONF_ACCEPT_LOCAL`.
    const AF_SPEC: u16 = 26;
    const CONF: u16 = 1;
    const ACCEPT_LOCAL: u16 = 23;
    let accept = inner(ACCEPT_LOCAL, &u32::from(accept).to_ne_bytes());
    Request::with_body(kind::SETLINK, frame::ACK, seq, &ifinfo(device, 0, 0))
        .nested(AF_SPEC, &[(INET.into(), &inner(CONF, &accept))])
        .finish()
}

/// Makes an IP-in-IP device and sets it up.
pub fn new_tunnel(seq: u32, tunnel: &Tunnel) -> Zeroizing<Vec<u8>> {
    /// `IFLA_IFNAME`, `IFLA_LINKINFO`; within it `IFLA_INFO_KIND`, `IFLA_INFO_DATA`.
    const NAME: u16 = 3;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    /// `IFLA_IPTUN_LOCAL`, `_REMOTE`, `_TTL`, `_PMTUDISC`.
    const LOCAL: u16 = 2;
    const REMOTE: u16 = 3;
    const TTL: u16 = 4;
    const PMTUDISC: u16 = 10;
    let data = [
        inner(LOCAL, &tunnel.local.octets()),
        inner(REMOTE, &tunnel.remote.octets()),
        inner(TTL, &[64]),
        inner(PMTUDISC, &[1]),
    ]
    .concat();
    let flags = frame::ACK | CREATE | EXCLUSIVE;
    Request::with_body(kind::NEWLINK, flags, seq, &ifinfo(0, UP, UP))
        .attribute(NAME, &named(&device(tunnel)))
        .nested(INFO, &[(INFO_KIND, b"ipip\0"), (INFO_DATA, &data)])
        .finish()
}

/// Takes a tunnel's device away.
pub fn delete_tunnel(seq: u32, tunnel: &Tunnel) -> Zeroizing<Vec<u8>> {
    const NAME: u16 = 3;
    Request::with_body(kind::DELLINK, frame::ACK, seq, &ifinfo(0, 0, 0))
        .attribute(NAME, &named(&device(tunnel)))
        .finish()
}

/// Asks for all links.
pub fn links(seq: u32) -> Zeroizing<Vec<u8>> {
    Request::with_body(kind::GETLINK, frame::DUMP, seq, &ifinfo(0, 0, 0)).finish()
}

/// A link, and whether it is up and has a carrier.
pub fn link(message: &Message<'_>) -> Option<(u32, bool)> {
    let word = |at: usize| {
        let octets = message.body.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*octets))
    };
    let (index, flags) = (word(4)?, word(8)?);
    match message.kind {
        kind::NEWLINK => Some((index, flags & (UP | LOWER_UP) == UP | LOWER_UP)),
        kind::DELLINK => Some((index, false)),
        _ => None,
    }
}

/// A link's index and name, and what it carries, in octets.
pub fn carries(message: &Message<'_>) -> Option<(u32, String, u32)> {
    /// Octets of `ifinfomsg`; `IFLA_IFNAME`, `IFLA_MTU`.
    const BODY_LEN: usize = 16;
    const NAME: u16 = 3;
    const MTU: u16 = 4;
    if message.kind != kind::NEWLINK {
        return None;
    }
    let (index, _) = link(message)?;
    let attributes = Attributes(message.body.get(BODY_LEN..)?);
    let name = attributes.find(NAME)?;
    let name = name.split(|octet| *octet == 0).next()?;
    let mtu = attributes.find(MTU)?.first_chunk::<4>()?;
    Some((
        index,
        String::from_utf8(name.to_vec()).ok()?,
        u32::from_ne_bytes(*mtu),
    ))
}

/// Asks which way packets to an address go.
pub fn route_to(seq: u32, to: Ipv4Addr) -> Zeroizing<Vec<u8>> {
    /// `RTA_DST`.
    const DST: u16 = 1;
    let body = [INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Request::with_body(kind::GETROUTE, frame::ACK, seq, &body)
        .attribute(DST, &to.octets())
        .finish()
}

/// The device a route leads by.
pub fn leaves_by(message: &Message<'_>) -> Option<u32> {
    /// Octets of `rtmsg`; `RTA_OIF`.
    const BODY_LEN: usize = 12;
    const OIF: u16 = 4;
    if message.kind != kind::NEWROUTE {
        return None;
    }
    let attributes = Attributes(message.body.get(BODY_LEN..)?);
    let device = attributes.find(OIF)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*device))
}

/// A route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// For this address; none for all.
    pub to: Option<Ipv4Addr>,
    /// In which table.
    pub table: u32,
    /// By this device.
    pub device: u32,
    /// Whose neighbour is this router.
    pub gateway: Option<Ipv4Addr>,
    /// With this source address.
    pub source: Option<Ipv4Addr>,
    /// The lowest is taken; 0 for none.
    pub metric: u32,
    /// What fits the path, in octets; 0 for what fits the device.
    pub mtu: u32,
}

/// Asks for all routes.
pub fn routes(seq: u32) -> Zeroizing<Vec<u8>> {
    let body = [INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Request::with_body(kind::GETROUTE, frame::DUMP, seq, &body).finish()
}

/// A route of our own for one address: that address, its table and device.
pub fn own_route(message: &Message<'_>) -> Option<(Ipv4Addr, u32, u32)> {
    /// Octets of `rtmsg`; `RTA_DST`, `RTA_OIF`, `RTA_TABLE`.
    const BODY_LEN: usize = 12;
    const DST: u16 = 1;
    const OIF: u16 = 4;
    const TABLE: u16 = 15;
    let body = message.body.first_chunk::<BODY_LEN>()?;
    let ours = (body[0], body[1], body[5]) == (INET, 32, PROTOCOL);
    if message.kind != kind::NEWROUTE || !ours {
        return None;
    }
    let attributes = Attributes(message.body.get(BODY_LEN..)?);
    let four = |number| attributes.find(number)?.first_chunk::<4>().copied();
    Some((
        Ipv4Addr::from(four(DST)?),
        u32::from_ne_bytes(four(TABLE)?),
        u32::from_ne_bytes(four(OIF)?),
    ))
}

fn route(kind: u16, flags: u16, seq: u32, path: &Path) -> Zeroizing<Vec<u8>> {
    /// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`, `RTA_PRIORITY`, `RTA_PREFSRC`, `RTA_METRICS` with `RTAX_MTU`, `RTA_TABLE`.
    const DST: u16 = 1;
    const OIF: u16 = 4;
    const GATEWAY: u16 = 5;
    const PRIORITY: u16 = 6;
    const PREFSRC: u16 = 7;
    const METRICS: u16 = 8;
    const MTU: u16 = 2;
    const TABLE: u16 = 15;
    let len = if path.to.is_some() { 32 } else { 0 };
    let (scope, nexthop) = match path.gateway {
        Some(_) => (0, ONLINK),
        None => (SCOPE_LINK, 0),
    };
    // The table is an attribute: it may not fit into an octet.
    let mut body = vec![INET, len, 0, 0, 0, PROTOCOL, scope, UNICAST];
    body.extend(nexthop.to_ne_bytes());
    let mut request = Request::with_body(kind, flags, seq, &body)
        .attribute(TABLE, &path.table.to_ne_bytes())
        .attribute(OIF, &path.device.to_ne_bytes());
    if let Some(to) = path.to {
        request = request.attribute(DST, &to.octets());
    }
    if let Some(gateway) = path.gateway {
        request = request.attribute(GATEWAY, &gateway.octets());
    }
    if let Some(source) = path.source {
        request = request.attribute(PREFSRC, &source.octets());
    }
    if path.metric != 0 {
        request = request.attribute(PRIORITY, &path.metric.to_ne_bytes());
    }
    if path.mtu != 0 {
        request = request.nested(METRICS, &[(MTU, &path.mtu.to_ne_bytes())]);
    }
    request.finish()
}

/// Adds a route, or puts it in the place of the one for the same address and of the same metric.
pub fn new_route(seq: u32, path: &Path) -> Zeroizing<Vec<u8>> {
    route(kind::NEWROUTE, frame::ACK | CREATE | REPLACE, seq, path)
}

/// Takes a route away.
pub fn delete_route(seq: u32, path: &Path) -> Zeroizing<Vec<u8>> {
    route(kind::DELROUTE, frame::ACK, seq, path)
}

/// Which packets are routed by which table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Those from this address; without, from any.
    pub from: Option<Ipv4Addr>,
    /// Those to this address; without, to any.
    pub to: Option<Ipv4Addr>,
    /// Those that came in by this interface; without, those of this node and of everybody.
    pub arrived_by: Option<String>,
    /// By this table; without, they are dropped, if no rule that comes before had a route for them.
    pub table: Option<u32>,
}

fn rule(kind: u16, flags: u16, seq: u32, rule: &Rule) -> Zeroizing<Vec<u8>> {
    /// `FRA_DST`, `FRA_SRC`, `FRA_IIFNAME`, `FRA_PRIORITY`, `FRA_TABLE`, `FRA_PROTOCOL`.
    const DST: u16 = 1;
    const SRC: u16 = 2;
    const IIF: u16 = 3;
    const PRIORITY: u16 = 6;
    const TABLE: u16 = 15;
    const MADE_BY: u16 = 21;
    let bits = |address: Option<Ipv4Addr>| if address.is_some() { 32 } else { 0 };
    let first = match rule.table {
        Some(_) => rule.to.is_some(),
        None => rule.from.is_some(),
    };
    let of_kind = if first {
        RULE_PRIORITY_FIRST
    } else {
        RULE_PRIORITY
    };
    let (action, priority) = match rule.table {
        Some(_) => (TO_TABLE, of_kind),
        None => (BLACKHOLE, of_kind + 1),
    };
    let (dst_len, src_len) = (bits(rule.to), bits(rule.from));
    let body = [INET, dst_len, src_len, 0, 0, 0, 0, action, 0, 0, 0, 0];
    let mut request = Request::with_body(kind, flags, seq, &body)
        .attribute(PRIORITY, &priority.to_ne_bytes())
        .attribute(MADE_BY, &[PROTOCOL]);
    if let Some(to) = &rule.to {
        request = request.attribute(DST, &to.octets());
    }
    if let Some(from) = &rule.from {
        request = request.attribute(SRC, &from.octets());
    }
    if let Some(table) = &rule.table {
        request = request.attribute(TABLE, &table.to_ne_bytes());
    }
    if let Some(interface) = &rule.arrived_by {
        request = request.attribute(IIF, &named(interface));
    }
    request.finish()
}

/// Adds a rule; `EEXIST` if there is one.
pub fn new_rule(seq: u32, of: &Rule) -> Zeroizing<Vec<u8>> {
    rule(kind::NEWRULE, frame::ACK | CREATE | EXCLUSIVE, seq, of)
}

/// Takes a rule away.
pub fn delete_rule(seq: u32, of: &Rule) -> Zeroizing<Vec<u8>> {
    rule(kind::DELRULE, frame::ACK, seq, of)
}

fn neighbour(
    kind: u16,
    flags: u16,
    seq: u32,
    (device, address): (u32, Ipv4Addr),
    link: Option<LinkAddress>,
) -> Zeroizing<Vec<u8>> {
    /// `NDA_DST`, `NDA_LLADDR`.
    const DST: u16 = 1;
    const LLADDR: u16 = 2;
    let proxy = if link.is_some() { 0 } else { PROXY };
    let body = [
        &[INET, 0, 0, 0][..],
        &device.to_ne_bytes(),
        &PERMANENT.to_ne_bytes(),
        &[proxy, 0],
    ]
    .concat();
    let mut request = Request::with_body(kind, flags, seq, &body).attribute(DST, &address.octets());
    if let Some(link) = link {
        request = request.attribute(LLADDR, &link.0);
    }
    request.finish()
}

/// Says for good where a neighbour is; without `link`, that this node answers ARP for it.
pub fn new_neighbour(
    seq: u32,
    device: u32,
    address: Ipv4Addr,
    link: Option<LinkAddress>,
) -> Zeroizing<Vec<u8>> {
    let flags = frame::ACK | CREATE | REPLACE;
    neighbour(kind::NEWNEIGH, flags, seq, (device, address), link)
}

/// Takes that back.
pub fn delete_neighbour(
    seq: u32,
    device: u32,
    address: Ipv4Addr,
    link: Option<LinkAddress>,
) -> Zeroizing<Vec<u8>> {
    neighbour(kind::DELNEIGH, frame::ACK, seq, (device, address), link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::frame::Messages;

    const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

    #[test]
    fn a_route_of_our_own_is_read_back_and_nobody_elses() {
        let path = Path {
            to: Some(HOME),
            table: 434,
            device: 9,
            gateway: None,
            source: None,
            metric: 0,
            mtu: 0,
        };
        let read = |octets: &[u8]| own_route(&Messages(octets).next().unwrap());
        let octets = new_route(1, &path);
        assert_eq!(read(&octets), Some((HOME, 434, 9)));
        let everything = new_route(1, &Path { to: None, ..path });
        assert_eq!(read(&everything), None);
        let mut others = octets.to_vec();
        others[16 + 5] = 4;
        assert_eq!(read(&others), None);
        assert_eq!(read(&delete_route(1, &path)), None);
    }

    #[test]
    fn a_tunnels_device_says_where_it_leads() {
        let tunnel = Tunnel {
            local: HOME,
            remote: Ipv4Addr::new(10, 1, 1, 1),
        };
        assert_eq!(device(&tunnel), "mip0a010101");
        assert_eq!(remote("mip0a010101"), Some(tunnel.remote));
        for other in ["mip0a0101", "mml0", "mipxa010101", "tun0a010101"] {
            assert_eq!(remote(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_link_carries_and_where_a_route_leads_are_read() {
        let read = |octets: &[u8]| carries(&Messages(octets).next().unwrap());
        let of = |kind, name: &[u8]| {
            Request::with_body(kind, 0, 0, &ifinfo(5, UP, 0))
                .attribute(3, name)
                .attribute(4, &1400u32.to_ne_bytes())
                .finish()
        };
        let expected = Some((5, "wl1".to_owned(), 1400));
        assert_eq!(read(&of(kind::NEWLINK, b"wl1\0")), expected);
        assert_eq!(read(&of(kind::DELLINK, b"wl1\0")), None);
        assert_eq!(read(&of(kind::NEWLINK, b"\xFF\0")), None);
        let bare = Request::with_body(kind::NEWLINK, 0, 0, &ifinfo(5, UP, 0)).finish();
        assert_eq!(read(&bare), None);
        let path = Path {
            to: Some(HOME),
            table: MAIN,
            device: 9,
            gateway: None,
            source: None,
            metric: 0,
            mtu: 0,
        };
        let leads = |octets: &[u8]| leaves_by(&Messages(octets).next().unwrap());
        assert_eq!(leads(&new_route(1, &path)), Some(9));
        assert_eq!(leads(&delete_route(1, &path)), None);
        assert_eq!(leads(&route_to(1, HOME)), None);
    }

    #[test]
    fn a_link_is_up_with_a_carrier_alone() {
        let told = |kind: u16, flags| {
            let octets = Request::with_body(kind, 0, 0, &ifinfo(5, flags, 0)).finish();
            let read = link(&Messages(&octets).next().unwrap());
            read
        };
        assert_eq!(told(kind::NEWLINK, UP | LOWER_UP), Some((5, true)));
        assert_eq!(told(kind::NEWLINK, UP), Some((5, false)));
        assert_eq!(told(kind::DELLINK, UP | LOWER_UP), Some((5, false)));
        assert_eq!(told(kind::NEWROUTE, UP), None);
    }
}
