// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rtnetlink's messages about the device, its addresses, and the routes and rules that lead into it.

use super::plan::Inward;
use crate::address::bits;
use crate::netlink::frame::Message;
use crate::netlink::route::{family, read, request};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Who made an address, a route or a rule: a number nobody else has, "L".
const PROTOCOL: u8 = 76;
/// What devices of ours carry as an alias, so that a later keyd knows that it may take them away.
const MADE_BY: &str = "made by keyd";
/// Of routes that stand apart.
pub const TABLE: u32 = 4303;
const MAIN: u32 = 254;
/// Before `main` (32766), behind Mobile IP's (4338 to 4341). What is to be routed by `main` is, before [`TABLE`] is looked at.
const RULE_PAST: u32 = 4350;
const RULE_INTO: u32 = 4351;

/// A device of that name.
pub struct Found {
    /// Its index.
    pub index: u32,
    /// Whether it seals.
    pub seals: bool,
    /// Whether keyd made it.
    pub ours: bool,
}

/// Asks for the device of that name.
pub fn find(seq: u32, name: &str) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    request(RouteNetlinkMessage::GetLink(link), NLM_F_ACK, seq)
}

/// What the answer says.
pub fn found(message: &Message<'_>) -> Option<Found> {
    let Some(RouteNetlinkMessage::NewLink(link)) = read(message) else {
        return None;
    };
    let is_kind =
        |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Other(kind)) if kind == "mml");
    let attributes = || link.attributes.iter();
    Some(Found {
        index: link.header.index,
        seals: attributes()
            .any(|one| matches!(one, LinkAttribute::LinkInfo(all) if all.iter().any(is_kind))),
        ours: attributes().any(|one| matches!(one, LinkAttribute::IfAlias(by) if by == MADE_BY)),
    })
}

/// Makes the device and sets it up.
pub fn make(seq: u32, name: &str) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Other("mml".to_owned()))]),
    ];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLink(link), flags, seq)
}

/// Says that it is keyd's.
pub fn sign(seq: u32, index: u32) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::IfAlias(MADE_BY.to_owned())];
    request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK, seq)
}

/// Sets it up.
pub fn up(seq: u32, index: u32) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK, seq)
}

/// Takes it away.
pub fn unmake(seq: u32, index: u32) -> Zeroizing<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    request(RouteNetlinkMessage::DelLink(link), NLM_F_ACK, seq)
}

/// Asks for all addresses.
pub fn addresses(seq: u32) -> Zeroizing<Vec<u8>> {
    let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    request(all, NLM_F_DUMP, seq)
}

/// An address of that device that keyd gave it.
pub fn own_address(message: &Message<'_>, index: u32) -> Option<IpAddr> {
    let Some(RouteNetlinkMessage::NewAddress(one)) = read(message) else {
        return None;
    };
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL));
    if one.header.index != index || !one.attributes.contains(&ours) {
        return None;
    }
    let mut address = None;
    for attribute in &one.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}

fn address(index: u32, address: IpAddr) -> AddressMessage {
    let mut one = AddressMessage::default();
    one.header.family = family(address.is_ipv4());
    one.header.prefix_len = bits(address);
    one.header.scope = AddressScope::Universe;
    one.header.index = index;
    one.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        // There is nobody on the link who could have it, too.
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
        AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)),
    ];
    one
}

/// Gives it an address.
pub fn new_address(seq: u32, index: u32, of: IpAddr) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewAddress(address(index, of));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
}

/// Takes an address from it.
pub fn delete_address(seq: u32, index: u32, of: IpAddr) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::DelAddress(address(index, of));
    request(message, NLM_F_ACK, seq)
}

/// Asks for all routes of a family.
pub fn routes(seq: u32, ipv4: bool) -> Zeroizing<Vec<u8>> {
    let mut all = RouteMessage::default();
    all.header.address_family = family(ipv4);
    request(RouteNetlinkMessage::GetRoute(all), NLM_F_DUMP, seq)
}

/// A route into that device that keyd made.
pub fn own_route(message: &Message<'_>, index: u32) -> Option<Inward> {
    let Some(RouteNetlinkMessage::NewRoute(route)) = read(message) else {
        return None;
    };
    if route.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    };
    let ipv4 = route.header.address_family == AddressFamily::Inet;
    let everything = if ipv4 {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    let (mut to, mut source, mut table, mut device) = (everything, None, 0, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(number) => device = *number,
            _ => {}
        }
    }
    let apart = match table {
        TABLE => true,
        MAIN => false,
        _ => return None,
    };
    (device == index).then_some(Inward {
        to: (to, route.header.destination_prefix_length),
        source,
        apart,
    })
}

fn route(index: u32, of: &Inward) -> RouteMessage {
    let mut route = RouteMessage::default();
    let (to, len) = of.to;
    let header = &mut route.header;
    header.address_family = family(to.is_ipv4());
    header.destination_prefix_length = len;
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.scope = if to.is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    header.kind = RouteType::Unicast;
    // The table is an attribute: it doesn't fit into an octet.
    let table = if of.apart { TABLE } else { MAIN };
    route.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(index)];
    if len != 0 {
        route
            .attributes
            .push(RouteAttribute::Destination(to.into()));
    }
    if let Some(source) = of.source {
        route
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
    }
    route
}

/// Makes a route.
pub fn new_route(seq: u32, index: u32, of: &Inward) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewRoute(route(index, of));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
}

/// Takes a route away.
pub fn delete_route(seq: u32, index: u32, of: &Inward) -> Zeroizing<Vec<u8>> {
    request(
        RouteNetlinkMessage::DelRoute(route(index, of)),
        NLM_F_ACK,
        seq,
    )
}

/// Which packets are routed by which table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// ESP by `main`.
    Esp,
    /// UDP from that port by `main`: IKE, and ESP within UDP.
    Port(u16),
    /// What has that mark by `main`: what the module has sealed.
    Mark(u32),
    /// All else by the routes that stand apart.
    Rest,
}

fn rule(ipv4: bool, of: Rule) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family(ipv4);
    rule.header.action = RuleAction::ToTable;
    let (table, priority) = match of {
        Rule::Rest => (TABLE, RULE_INTO),
        Rule::Esp | Rule::Port(_) | Rule::Mark(_) => (MAIN, RULE_PAST),
    };
    rule.attributes = vec![
        RuleAttribute::Table(table),
        RuleAttribute::Priority(priority),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    match of {
        Rule::Esp => rule
            .attributes
            .push(RuleAttribute::IpProtocol(IpProtocol::Esp)),
        Rule::Port(port) => rule.attributes.extend([
            RuleAttribute::IpProtocol(IpProtocol::Udp),
            RuleAttribute::SourcePortRange(RulePortRange {
                start: port,
                end: port,
            }),
        ]),
        Rule::Mark(mark) => rule.attributes.push(RuleAttribute::FwMark(mark)),
        Rule::Rest => {}
    }
    rule
}

/// Makes a rule; `EEXIST` if there is one.
pub fn new_rule(seq: u32, ipv4: bool, of: Rule) -> Zeroizing<Vec<u8>> {
    let message = RouteNetlinkMessage::NewRule(rule(ipv4, of));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, seq)
}

/// Takes a rule away.
pub fn delete_rule(seq: u32, ipv4: bool, of: Rule) -> Zeroizing<Vec<u8>> {
    request(RouteNetlinkMessage::DelRule(rule(ipv4, of)), NLM_F_ACK, seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::frame::Messages;

    fn first(octets: &[u8]) -> Message<'_> {
        Messages(octets).next().unwrap()
    }

    #[test]
    fn a_route_of_our_own_is_read_back_and_nobody_elses() {
        for (to, len, source, apart) in [
            ("192.0.2.0", 24, Some("203.0.113.7"), false),
            ("0.0.0.0", 0, None, true),
            ("fd02::", 64, None, false),
            ("::", 0, Some("fd09::5"), true),
        ] {
            let one = Inward {
                to: (to.parse().unwrap(), len),
                source: source.map(|text| text.parse().unwrap()),
                apart,
            };
            let octets = new_route(1, 9, &one);
            assert_eq!(own_route(&first(&octets), 9), Some(one));
            assert_eq!(own_route(&first(&octets), 8), None, "another device's");
            assert_eq!(own_route(&first(&delete_route(1, 9, &one)), 9), None);
            let mut others = octets.to_vec();
            others[16 + 5] = 4;
            assert_eq!(own_route(&first(&others), 9), None, "somebody else's");
        }
    }

    #[test]
    fn an_address_of_our_own_is_read_back() {
        for text in ["10.9.0.5", "fd09::5"] {
            let address: IpAddr = text.parse().unwrap();
            let octets = new_address(1, 9, address);
            assert_eq!(own_address(&first(&octets), 9), Some(address));
            assert_eq!(own_address(&first(&octets), 8), None);
        }
    }

    #[test]
    fn a_device_is_known_by_what_it_is_and_who_made_it() {
        let octets = make(1, "mml0");
        let device = found(&first(&octets)).unwrap();
        assert!(device.seals && !device.ours);
        assert!(found(&first(&up(1, 4))).is_none());
    }
}
