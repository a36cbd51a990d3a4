// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rtnetlink's messages as a netlink socket of ours sends and receives them.

use super::frame::Message;
use super::Error;
use netlink_packet_core::{
    Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NLM_F_REQUEST,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use zeroize::Zeroizing;

/// The family of IPv4, or of IPv6.
pub fn family(ipv4: bool) -> AddressFamily {
    if ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// What is wanted is there, or what is not wanted isn't.
pub fn already(done: Result<(), Error>, errno: &[i32]) -> Result<(), Error> {
    match done {
        Err(error) if error.errno().is_some_and(|one| errno.contains(&one)) => Ok(()),
        other => other,
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
