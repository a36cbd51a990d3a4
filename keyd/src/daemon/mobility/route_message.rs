// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rtnetlink's messages: tunnels, routes, rules and neighbours that are written, and links that are read.
//!
//! What is written, the library writes. What is read of links and routes is read here: of a dump of everything on the machine
//! one attribute the library can't read would cost the whole link.

use crate::address::bits;
use crate::netlink::frame::{Attributes, Message};
use crate::netlink::route::{family, request};
use mml_mip::{LinkAddress, Tunnel};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::{IpAddr, Ipv4Addr};
use zeroize::Zeroizing;

/// `RTNLGRP_LINK`: the group of link events.
pub const GROUP_LINK: u32 = 1;
/// Who made a route or rule: a number nobody else has, "M".
const PROTOCOL: u8 = 77;
/// Before `main` (32766), behind `local` (0) and room for others. One that drops comes after those of its kind; those that
/// name a destination, and what drops the rest of that source, before all.
const RULE_PRIORITY: u32 = 4340;
const RULE_PRIORITY_FIRST: u32 = 4338;
/// Of our routes in `main`: a route without a metric comes before it, so that what seals may take the packets.
pub const METRIC: u32 = 434;
/// `RT_TABLE_MAIN`.
pub const MAIN: u32 = 254;

/// `RTM_*`, of what is read.
mod kind {
    pub const NEWLINK: u16 = 16;
    pub const DELLINK: u16 = 17;
    pub const NEWROUTE: u16 = 24;
}

/// `AF_INET`.
const INET: u8 = 2;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFF_LOWER_UP`: there is a carrier.
const LOWER_UP: u32 = 1 << 16;

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

/// Lets packets with a source address of this node's own in by a device, or no more.
pub fn accept_own(seq: u32, device: u32, accept: bool) -> Zeroizing<Vec<u8>> {
    /// `IFLA_INET_CONF`, nested; within it `IPV4_DEVCONF_ACCEPT_LOCAL`. The library would set all of them.
    const CONF: u16 = 1 | 0x8000;
    const ACCEPT_LOCAL: u16 = 23;
    let one = [
        &8u16.to_ne_bytes()[..],
        &ACCEPT_LOCAL.to_ne_bytes(),
        &u32::from(accept).to_ne_bytes(),
    ];
    let conf = AfSpecInet::Other(DefaultNla::new(CONF, one.concat()));
    let mut link = LinkMessage::default();
    link.header.index = device;
    link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
        conf,
    ])])];
    request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK, seq)
}

/// Makes an IP-in-IP device and sets it up.
pub fn new_tunnel(seq: u32, tunnel: &Tunnel) -> Zeroizing<Vec<u8>> {
    let data = vec![
        InfoIpTunnel::Local(tunnel.local.into()),
        InfoIpTunnel::Remote(tunnel.remote.into()),
        InfoIpTunnel::Ttl(64),
        InfoIpTunnel::PMtuDisc(true),
    ];
    let mut link = LinkMessage::default();
    (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    link.attributes = vec![
        LinkAttribute::IfName(device(tunnel)),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::IpIp),
            LinkInfo::Data(InfoData::IpTunnel(data)),
        ]),
    ];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLink(link), flags, seq)
}

/// Takes a tunnel's device away.
pub fn delete_tunnel(seq: u32, tunnel: &Tunnel) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(device(tunnel))];
    request(RouteNetlinkMessage::DelLink(link), NLM_F_ACK, seq)
}

/// Asks for all links.
pub fn links(seq: u32) -> Zeroizing<Vec<u8>> {
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    request(all, NLM_F_DUMP, seq)
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
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.attributes = vec![RouteAttribute::Destination(IpAddr::V4(to).into())];
    request(RouteNetlinkMessage::GetRoute(route), NLM_F_ACK, seq)
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
    let mut all = RouteMessage::default();
    all.header.address_family = AddressFamily::Inet;
    request(RouteNetlinkMessage::GetRoute(all), NLM_F_DUMP, seq)
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

fn route(path: &Path) -> RouteMessage {
    let mut route = RouteMessage::default();
    let header = &mut route.header;
    header.address_family = AddressFamily::Inet;
    header.destination_prefix_length = if path.to.is_some() { 32 } else { 0 };
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.kind = RouteType::Unicast;
    // The gateway is on the link, whatever its address says.
    (header.scope, header.flags) = match path.gateway {
        Some(_) => (RouteScope::Universe, RouteFlags::Onlink),
        None => (RouteScope::Link, RouteFlags::empty()),
    };
    let ip = |address: Ipv4Addr| IpAddr::V4(address).into();
    // The table is an attribute: it may not fit into an octet.
    route.attributes = vec![
        RouteAttribute::Table(path.table),
        RouteAttribute::Oif(path.device),
    ];
    let more = [
        path.to.map(|to| RouteAttribute::Destination(ip(to))),
        path.gateway
            .map(|gateway| RouteAttribute::Gateway(ip(gateway))),
        path.source
            .map(|source| RouteAttribute::PrefSource(ip(source))),
        (path.metric != 0).then_some(RouteAttribute::Priority(path.metric)),
        (path.mtu != 0).then(|| RouteAttribute::Metrics(vec![RouteMetric::Mtu(path.mtu)])),
    ];
    route.attributes.extend(more.into_iter().flatten());
    route
}

/// Adds a route, or puts it in the place of the one for the same address and of the same metric.
pub fn new_route(seq: u32, path: &Path) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewRoute(route(path));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
}

/// Takes a route away.
pub fn delete_route(seq: u32, path: &Path) -> Zeroizing<Vec<u8>> {
    request(RouteNetlinkMessage::DelRoute(route(path)), NLM_F_ACK, seq)
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

fn rule(of: &Rule) -> RuleMessage {
    let first = match of.table {
        Some(_) => of.to.is_some(),
        None => of.from.is_some(),
    };
    let of_kind = if first {
        RULE_PRIORITY_FIRST
    } else {
        RULE_PRIORITY
    };
    let (action, priority) = match of.table {
        Some(_) => (RuleAction::ToTable, of_kind),
        None => (RuleAction::Blackhole, of_kind + 1),
    };
    let len = |address: Option<Ipv4Addr>| address.map_or(0, |address| bits(address.into()));
    let mut rule = RuleMessage::default();
    rule.header.family = family(true);
    (rule.header.dst_len, rule.header.src_len) = (len(of.to), len(of.from));
    rule.header.action = action;
    rule.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    let more = [
        of.to.map(|to| RuleAttribute::Destination(to.into())),
        of.from.map(|from| RuleAttribute::Source(from.into())),
        of.table.map(RuleAttribute::Table),
        of.arrived_by.clone().map(RuleAttribute::Iifname),
    ];
    rule.attributes.extend(more.into_iter().flatten());
    rule
}

/// Adds a rule; `EEXIST` if there is one.
pub fn new_rule(seq: u32, of: &Rule) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewRule(rule(of));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, seq)
}

/// Takes a rule away.
pub fn delete_rule(seq: u32, of: &Rule) -> Zeroizing<Vec<u8>> {
    request(RouteNetlinkMessage::DelRule(rule(of)), NLM_F_ACK, seq)
}

fn neighbour(device: u32, address: Ipv4Addr, link: Option<LinkAddress>) -> NeighbourMessage {
    let mut one = NeighbourMessage::default();
    one.header.family = AddressFamily::Inet;
    one.header.ifindex = device;
    one.header.state = NeighbourState::Permanent;
    one.header.flags = match link {
        Some(_) => NeighbourFlags::empty(),
        None => NeighbourFlags::Proxy,
    };
    one.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(
        address,
    ))];
    let link = link.map(|link| NeighbourAttribute::LinkLayerAddress(link.0.to_vec()));
    one.attributes.extend(link);
    one
}

/// Says for good where a neighbour is; without `link`, that this node answers ARP for it.
pub fn new_neighbour(
    seq: u32,
    device: u32,
    address: Ipv4Addr,
    link: Option<LinkAddress>,
) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewNeighbour(neighbour(device, address, link));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
}

/// Takes that back.
pub fn delete_neighbour(
    seq: u32,
    device: u32,
    address: Ipv4Addr,
    link: Option<LinkAddress>,
) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(device, address, link));
    request(message, NLM_F_ACK, seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::frame::{Messages, Request};

    /// An `ifinfomsg`.
    fn ifinfo(index: u32, flags: u32) -> Vec<u8> {
        let words = [0, index, flags, 0];
        words
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect()
    }

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
            Request::with_body(kind, 0, 0, &ifinfo(5, UP))
                .attribute(3, name)
                .attribute(4, &1400u32.to_ne_bytes())
                .finish()
        };
        let expected = Some((5, "wl1".to_owned(), 1400));
        assert_eq!(read(&of(kind::NEWLINK, b"wl1\0")), expected);
        assert_eq!(read(&of(kind::DELLINK, b"wl1\0")), None);
        assert_eq!(read(&of(kind::NEWLINK, b"\xFF\0")), None);
        let bare = Request::with_body(kind::NEWLINK, 0, 0, &ifinfo(5, UP)).finish();
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
            let octets = Request::with_body(kind, 0, 0, &ifinfo(5, flags)).finish();
            let read = link(&Messages(&octets).next().unwrap());
            read
        };
        assert_eq!(told(kind::NEWLINK, UP | LOWER_UP), Some((5, true)));
        assert_eq!(told(kind::NEWLINK, UP), Some((5, false)));
        assert_eq!(told(kind::DELLINK, UP | LOWER_UP), Some((5, false)));
        assert_eq!(told(kind::NEWROUTE, UP), None);
    }
}
