// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv4 packets of Mobile IP as octets: ICMP of agent discovery, UDP of registration (RFC 791, 792, 768), and ARP.

use mml_mip::{Content, LinkAddress, Packet};
use std::net::Ipv4Addr;

/// Octets of an IPv4 header without options.
const IP_LEN: usize = 20;
/// Octets of a UDP header.
const UDP_LEN: usize = 8;
/// `IPPROTO_ICMP`.
const ICMP: u8 = 1;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// Registration's port (RFC 5944 §3.2).
pub const PORT: u16 = 434;
/// `ETH_P_IP`.
const ETHER_IP: u16 = 0x0800;
/// `ETH_P_ARP`.
const ETHER_ARP: u16 = 0x0806;
/// To everybody on the link.
const BROADCAST: LinkAddress = LinkAddress([0xFF; 6]);

/// A packet of Mobile IP's that came, without its headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// By the kernel's index.
    pub interface: u32,
    /// IP source.
    pub source: Ipv4Addr,
    /// IP destination.
    pub destination: Ipv4Addr,
    /// IP time to live; 0 where it isn't known.
    pub ttl: u8,
    /// The sender's link-layer address, where it is known.
    pub link: Option<LinkAddress>,
    /// UDP source port; none for ICMP.
    pub port: Option<u16>,
    /// The message.
    pub octets: Vec<u8>,
}

impl Arrived {
    /// Reads an IPv4 packet; `None` unless it is a whole one of ICMP 9 or 10, or to UDP port 434.
    pub fn parse(octets: &[u8], interface: u32, link: Option<LinkAddress>) -> Option<Self> {
        let header = octets.first_chunk::<IP_LEN>()?;
        let header_len = usize::from(header[0] & 0xF) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3FFF;
        if header[0] >> 4 != 4 || header_len < IP_LEN || fragment != 0 {
            return None;
        }
        if checksum(&[octets.get(..header_len)?]) != 0 {
            return None;
        }
        let payload = octets.get(header_len..total)?;
        let (port, message) = match header[9] {
            ICMP => {
                let kind = *payload.first()?;
                matches!(kind, 9 | 10).then_some((None, payload))?
            }
            // The authenticator covers more than UDP's checksum, which isn't there yet on a veth.
            UDP => {
                let udp = payload.first_chunk::<UDP_LEN>()?;
                let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
                (u16::from_be_bytes([udp[2], udp[3]]) == PORT).then_some(())?;
                let port = u16::from_be_bytes([udp[0], udp[1]]);
                (Some(port), payload.get(UDP_LEN..len)?)
            }
            _ => return None,
        };
        let address = |at: usize| {
            let octets = header[at..].first_chunk::<4>()?;
            Some(Ipv4Addr::from(*octets))
        };
        Some(Arrived {
            interface,
            source: address(12)?,
            destination: address(16)?,
            ttl: header[8],
            link,
            port,
            octets: message.to_vec(),
        })
    }
}

/// The Internet checksum of the parts one after the other (RFC 1071); 0 over what holds a right one.
fn checksum(parts: &[&[u8]]) -> u16 {
    let octets: Vec<u8> = parts.concat();
    let sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !u16::try_from((folded & 0xFFFF) + (folded >> 16)).unwrap_or(0)
}

/// The link-layer address a destination has by itself: a group's (RFC 1112 §6.4), or everybody's.
fn group(destination: Ipv4Addr) -> LinkAddress {
    let [_, b, c, d] = destination.octets();
    match destination.is_multicast() {
        true => LinkAddress([0x01, 0x00, 0x5E, b & 0x7F, c, d]),
        false => BROADCAST,
    }
}

/// An Ethernet frame.
fn frame(to: LinkAddress, from: LinkAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0[..], &kind.to_be_bytes(), payload].concat()
}

/// A packet as an Ethernet frame from our address on its link. Where nobody says whom it is for, it is for everybody: an
/// address away from home is never asked for by ARP (RFC 5944 §4.6).
pub fn to_frame(packet: &Packet, from: LinkAddress) -> Vec<u8> {
    let to = packet
        .link_destination
        .unwrap_or_else(|| group(packet.destination));
    frame(to, from, ETHER_IP, &to_ip(packet))
}

fn to_ip(packet: &Packet) -> Vec<u8> {
    let (source, destination) = (packet.source.octets(), packet.destination.octets());
    let (protocol, payload) = match &packet.content {
        Content::Icmp(octets) => (ICMP, octets.clone()),
        Content::Udp {
            source_port,
            destination_port,
            octets,
        } => {
            let len = u16::try_from(UDP_LEN + octets.len()).unwrap_or(u16::MAX);
            let ports = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
            let head = [&ports[..], &len.to_be_bytes(), &[0, 0]].concat();
            let pseudo = [&source[..], &destination, &[0, UDP], &len.to_be_bytes()].concat();
            let sum = match checksum(&[&pseudo, &head, octets]) {
                0 => 0xFFFF,
                sum => sum,
            };
            let head = [&head[..6], &sum.to_be_bytes()].concat();
            (UDP, [&head[..], octets].concat())
        }
    };
    let total = u16::try_from(IP_LEN + payload.len()).unwrap_or(u16::MAX);
    let mut header = [
        // Version 4, five words; internetwork control (RFC 791).
        &[0x45, 0xC0][..],
        &total.to_be_bytes(),
        &[0, 0, 0, 0, packet.ttl, protocol, 0, 0],
        &source,
        &destination,
    ]
    .concat();
    let sum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [header, payload].concat()
}

/// A gratuitous ARP request that says where an address is (RFC 5227 §3, RFC 5944 §4.6).
pub fn gratuitous_arp(address: Ipv4Addr, is_at: LinkAddress, from: LinkAddress) -> Vec<u8> {
    // Ethernet, IPv4, their lengths, request.
    let head = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let address = address.octets();
    let arp = [&head[..], &is_at.0, &address, &[0; 6], &address].concat();
    frame(BROADCAST, from, ETHER_ARP, &arp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

    fn packet(content: Content) -> Packet {
        Packet {
            interface: None,
            link_destination: None,
            source: HOME,
            destination: AGENT,
            ttl: 255,
            content,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let udp = packet(Content::Udp {
            source_port: 1434,
            destination_port: PORT,
            octets: vec![1, 2, 3],
        });
        let arrived = Arrived::parse(&to_ip(&udp), 4, None).unwrap();
        assert_eq!((arrived.source, arrived.destination), (HOME, AGENT));
        assert_eq!((arrived.ttl, arrived.port), (255, Some(1434)));
        assert_eq!(arrived.octets, [1, 2, 3]);
        let icmp = packet(Content::Icmp(vec![10, 0, 0xF5, 0xFF, 0, 0, 0, 0]));
        let arrived = Arrived::parse(&to_ip(&icmp), 4, None).unwrap();
        assert_eq!((arrived.port, arrived.octets.len()), (None, 8));
    }

    /// By hand, from RFC 768's pseudo header: 203.0.113.7 to 10.1.1.1, 434 to 434, one octet 0x2A.
    #[test]
    fn udps_checksum_is_the_one_of_rfc_768() {
        let udp = packet(Content::Udp {
            source_port: PORT,
            destination_port: PORT,
            octets: vec![0x2A],
        });
        let octets = to_ip(&udp);
        let words = [
            0xCB00_u32, 0x7107, 0x0A01, 0x0101, 0x11, 9, 0x1B2, 0x1B2, 9, 0x2A00,
        ];
        let sum: u32 = words.iter().sum();
        let expected = !((sum & 0xFFFF) + (sum >> 16)) & 0xFFFF;
        assert_eq!(
            u32::from(u16::from_be_bytes([octets[26], octets[27]])),
            expected
        );
    }

    #[test]
    fn other_ports_types_fragments_and_broken_headers_are_not_read() {
        let udp = |destination_port| {
            to_ip(&packet(Content::Udp {
                source_port: PORT,
                destination_port,
                octets: vec![0; 24],
            }))
        };
        assert!(Arrived::parse(&udp(435), 1, None).is_none());
        let ping = to_ip(&packet(Content::Icmp(vec![8; 8])));
        assert!(Arrived::parse(&ping, 1, None).is_none());
        let good = udp(PORT);
        assert!(Arrived::parse(&good, 1, None).is_some());
        for at in 0..IP_LEN {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Arrived::parse(&bad, 1, None).is_none(), "octet {at}");
        }
        for len in 0..good.len() {
            assert!(Arrived::parse(&good[..len], 1, None).is_none());
        }
    }

    #[test]
    fn groups_have_their_own_link_layer_addresses() {
        assert_eq!(
            group(Ipv4Addr::new(224, 0, 0, 2)).0,
            [0x01, 0x00, 0x5E, 0, 0, 2]
        );
        assert_eq!(group(Ipv4Addr::BROADCAST), BROADCAST);
        let frame = gratuitous_arp(HOME, LinkAddress([2; 6]), LinkAddress([3; 6]));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], frame[38..42]);
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Arrived::parse(&octets, 1, None);
        }
    }
}
