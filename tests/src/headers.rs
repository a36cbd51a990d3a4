// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv4, TCP, UDP and ICMP headers (RFC 791, 9293, 768, 792): read and written by the tests' own code, so that no
//! mistake of the module's can hide in a function both use.

use std::net::Ipv4Addr;

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ESP: u8 = 50;

/// An IPv4 packet, read.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// DSCP and ECN.
    pub ds: u8,
    pub ttl: u8,
    pub df: bool,
    pub more_fragments: bool,
    /// In octets.
    pub fragment_offset: usize,
    pub header_length: usize,
    pub total_length: usize,
    pub payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Reads the header; None if it isn't a whole IPv4 header.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let header_length = usize::from(header[0] & 15) * 4;
        if header[0] >> 4 != 4 || header_length < 20 {
            return None;
        }
        let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            protocol: header[9],
            ds: header[1],
            ttl: header[8],
            df: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: usize::from(fragment & 0x1fff) * 8,
            header_length,
            total_length,
            payload: packet.get(header_length..)?,
        })
    }

    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset > 0
    }

    /// Source and destination port of TCP or UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let octets: &[u8; 4] = self.payload.first_chunk()?;
        Some((
            u16::from_be_bytes([octets[0], octets[1]]),
            u16::from_be_bytes([octets[2], octets[3]]),
        ))
    }

    /// What TCP or UDP carries.
    pub fn data(&self) -> Option<&'a [u8]> {
        match self.protocol {
            TCP => self
                .payload
                .get(usize::from(self.payload.get(12)? >> 4) * 4..),
            UDP => self.payload.get(8..),
            _ => Some(self.payload),
        }
    }

    pub fn tcp_flags(&self) -> Option<u8> {
        if self.protocol == TCP {
            self.payload.get(13).copied()
        } else {
            None
        }
    }

    /// The maximum segment size option of a SYN (RFC 9293 §3.2).
    pub fn mss(&self) -> Option<u16> {
        let header = usize::from(self.payload.get(12)? >> 4) * 4;
        let mut options = self.payload.get(20..header)?;
        loop {
            match *options.first()? {
                0 => return None,
                1 => options = options.get(1..)?,
                2 => return Some(u16::from_be_bytes([*options.get(2)?, *options.get(3)?])),
                _ => options = options.get(usize::from(*options.get(1)?).max(2)..)?,
            }
        }
    }

    /// Whether a TCP, UDP or ICMP checksum holds over the whole of the packet. A UDP checksum of zero is none.
    pub fn checksum_holds(&self) -> bool {
        let octets = self.payload;
        match self.protocol {
            UDP if octets.get(6..8) == Some(&[0, 0]) => true,
            TCP | UDP => {
                fold(
                    pseudo_header(self.source, self.destination, self.protocol, octets.len())
                        + sum(octets),
                ) == 0xffff
            }
            _ => fold(sum(octets)) == 0xffff,
        }
    }
}

/// An IPv4 packet to be written.
#[derive(Clone, Debug)]
pub struct IpDraft {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ds: u8,
    pub ttl: u8,
    pub df: bool,
    pub more_fragments: bool,
    pub fragment_offset: usize,
    pub id: u16,
    pub options: Vec<u8>,
}

impl IpDraft {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            ds: 0,
            ttl: 64,
            df: false,
            more_fragments: false,
            fragment_offset: 0,
            id: 0x4d4c,
            options: Vec::new(),
        }
    }

    pub fn write(&self, payload: &[u8]) -> Vec<u8> {
        let header_length = 20 + self.options.len();
        let mut packet = vec![0u8; header_length];
        packet[0] = 0x40 | (header_length / 4) as u8;
        packet[1] = self.ds;
        packet[2..4].copy_from_slice(&((header_length + payload.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&self.id.to_be_bytes());
        let fragment = u16::from(self.df) << 14
            | u16::from(self.more_fragments) << 13
            | (self.fragment_offset / 8) as u16;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = self.protocol;
        packet[12..16].copy_from_slice(&self.source.octets());
        packet[16..20].copy_from_slice(&self.destination.octets());
        packet[20..].copy_from_slice(&self.options);
        fix_ip_checksum(&mut packet);
        packet.extend(payload);
        packet
    }
}

/// Computes the header checksum again.
pub fn fix_ip_checksum(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let check = !fold(sum(&packet[..length]));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
}

/// A UDP datagram with its checksum.
pub fn udp(
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
    data: &[u8],
) -> Vec<u8> {
    let length = 8 + data.len();
    let mut octets = Vec::with_capacity(length);
    octets.extend(source_port.to_be_bytes());
    octets.extend(destination_port.to_be_bytes());
    octets.extend((length as u16).to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(data);
    let check = !fold(pseudo_header(source, destination, UDP, length) + sum(&octets));
    octets[6..8].copy_from_slice(&if check == 0 { 0xffff } else { check }.to_be_bytes());
    octets
}

/// A TCP segment to be written.
#[derive(Clone, Debug)]
pub struct TcpDraft {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
}

impl TcpDraft {
    pub fn write(&self, source: Ipv4Addr, destination: Ipv4Addr, data: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend(self.source_port.to_be_bytes());
        octets.extend(self.destination_port.to_be_bytes());
        octets.extend(self.sequence.to_be_bytes());
        octets.extend(self.acknowledgement.to_be_bytes());
        octets.extend([5 << 4, self.flags]);
        octets.extend(self.window.to_be_bytes());
        octets.extend([0; 4]);
        octets.extend(data);
        let check = !fold(pseudo_header(source, destination, TCP, octets.len()) + sum(&octets));
        octets[16..18].copy_from_slice(&check.to_be_bytes());
        octets
    }
}

/// An ICMP message; `rest` is the second word.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut octets = vec![kind, code, 0, 0];
    octets.extend(rest);
    octets.extend(data);
    let check = !fold(sum(&octets));
    octets[2..4].copy_from_slice(&check.to_be_bytes());
    octets
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + length as u32
}

/// The one's-complement sum (RFC 1071), not folded; good for 128 KiB.
pub fn sum(octets: &[u8]) -> u32 {
    octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether `needle` is anywhere in `octets`.
pub fn find(octets: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else {
        return true;
    };
    let mut from = 0;
    while let Some(at) = octets
        .get(from..)
        .and_then(|tail| tail.iter().position(|&octet| octet == first))
    {
        from += at + 1;
        if octets
            .get(from..)
            .is_some_and(|tail| tail.starts_with(rest))
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

    #[test]
    fn written_packets_read_back_with_good_checksums() {
        let datagram = IpDraft::new(A, B, UDP).write(&udp(A, 1000, B, 2000, b"odd"));
        let ip = Ip::parse(&datagram).unwrap();
        assert_eq!(
            (ip.source, ip.destination, ip.ports(), ip.data()),
            (A, B, Some((1000, 2000)), Some(&b"odd"[..]))
        );
        assert!(ip.checksum_holds());
        assert_eq!(fold(sum(&datagram[..20])), 0xffff);
        let tcp = TcpDraft {
            source_port: 1,
            destination_port: 2,
            sequence: 3,
            acknowledgement: 4,
            flags: 0x10,
            window: 5,
        };
        let segment = IpDraft::new(A, B, TCP).write(&tcp.write(A, B, b"data"));
        assert!(Ip::parse(&segment).unwrap().checksum_holds());
        let echo = IpDraft::new(A, B, ICMP).write(&icmp(8, 0, [0, 1, 0, 1], b"ping"));
        assert!(Ip::parse(&echo).unwrap().checksum_holds());
    }

    #[test]
    fn needles_are_found_wherever_they_lie() {
        assert!(
            find(b"aaab", b"aab") && find(b"x", b"x") && find(b"abc", b"") && find(b"zabc", b"abc")
        );
        assert!(!find(b"aab", b"aaab") && !find(b"", b"a") && !find(b"abab", b"abb"));
    }
}
