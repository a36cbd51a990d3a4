// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Packets as they come in and go out, without their IP headers.

use std::net::Ipv4Addr;

/// A network interface, by the kernel's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(pub u32);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkAddress(pub [u8; 6]);

/// A packet that came in.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// On which interface.
    pub interface: Interface,
    /// IP source; unspecified where the sender has no address yet.
    pub source: Ipv4Addr,
    /// IP destination.
    pub destination: Ipv4Addr,
    /// IP time to live, as it arrived.
    pub ttl: u8,
    /// The sender's link-layer address, where the caller knows it.
    pub link_source: Option<LinkAddress>,
    /// What is in it.
    pub payload: Payload<'a>,
}

/// What an incoming packet holds.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// A UDP datagram to port 434.
    Udp {
        /// UDP source port.
        source_port: u16,
        /// The message.
        octets: &'a [u8],
    },
    /// An ICMP message, from its type on.
    Icmp(&'a [u8]),
}

/// A packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// On this interface; none where the routes decide.
    pub interface: Option<Interface>,
    /// To this link-layer address, where it is known: a visitor's address is never resolved by ARP (RFC 5944 §4.6).
    pub link_destination: Option<LinkAddress>,
    /// IP source.
    pub source: Ipv4Addr,
    /// IP destination.
    pub destination: Ipv4Addr,
    /// IP time to live.
    pub ttl: u8,
    /// What is in it.
    pub content: Content,
}

/// What an outgoing packet holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A UDP datagram.
    Udp {
        /// UDP source port.
        source_port: u16,
        /// UDP destination port.
        destination_port: u16,
        /// The message.
        octets: Vec<u8>,
    },
    /// An ICMP message, from its type on.
    Icmp(Vec<u8>),
}

/// Time to live of what passes routers.
pub(crate) const TTL: u8 = 64;
/// Time to live of what shows by it that it passed none (RFC 3024 §5.3).
pub(crate) const TTL_DIRECT: u8 = 255;
/// Time to live of agent discovery (RFC 5944 §2.3).
pub(crate) const TTL_LINK: u8 = 1;
