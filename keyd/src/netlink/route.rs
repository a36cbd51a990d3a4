// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rtnetlink's messages as a netlink socket of ours sends and receives them.

use super::frame::Message;
use netlink_packet_core::{
    Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NLM_F_REQUEST,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// The family of IPv4, or of IPv6.
pub fn family(ipv4: bool) -> AddressFamily {
    if ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// How many bits an address has.
pub fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        32
    } else {
        128
    }
}

/// A request, with what flags it has beside that.
pub fn request(message: RouteNetlinkMessage, flags: u16, seq: u32) -> Zeroizing<Vec<u8>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = seq;
    message.finalize();
    let mut octets = Zeroizing::new(vec![0; message.buffer_len()]);
    message.emit(&mut octets);
    octets
}

/// What the kernel said, if it is something that the library knows.
pub fn read(message: &Message<'_>) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, message.body).ok()
}
