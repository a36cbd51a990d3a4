// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a capture caught, to be searched.

use std::time::Duration;

use anyhow::{bail, Result};

use crate::headers::{self, Ip};

/// One packet as it crossed the interface.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Since 1970.
    pub time: Duration,
    /// With its link header, if the interface has one.
    pub frame: Vec<u8>,
    /// Octets of that link header.
    pub link_header: usize,
}

impl Packet {
    /// The IPv4 packet; None for anything else (ARP).
    pub fn ip(&self) -> Option<&[u8]> {
        if self.link_header == 14 && self.frame.get(12..14) != Some(&[0x08, 0x00]) {
            return None;
        }
        let packet = self.frame.get(self.link_header..)?;
        if packet.first().map(|octet| octet >> 4) != Some(4) {
            return None;
        }
        // Ethernet pads short frames.
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        if total >= 20 && total <= packet.len() {
            packet.get(..total)
        } else {
            Some(packet)
        }
    }

    /// The header fields of the IPv4 packet.
    pub fn header(&self) -> Option<Ip<'_>> {
        headers::Ip::parse(self.ip()?)
    }

    /// The packet in one line.
    fn describe(&self) -> String {
        let Some(ip) = self.header() else {
            return format!("{} octets, not IPv4", self.frame.len());
        };
        format!(
            "{} > {} protocol {} of {} octets, {:02x?}",
            ip.source,
            ip.destination,
            ip.protocol,
            ip.total_length,
            ip.payload.get(..16).unwrap_or(ip.payload)
        )
    }

    /// What follows ESP's IP header, if this is ESP.
    pub fn esp(&self) -> Option<&[u8]> {
        self.header()
            .filter(|ip| ip.protocol == headers::ESP)
            .map(|ip| ip.payload)
    }
}

/// A capture that ended.
pub struct Captured {
    pub name: String,
    pub packets: Vec<Packet>,
}

impl Captured {
    /// How many packets hold `needle` anywhere, headers included.
    pub fn holding(&self, needle: &[u8]) -> usize {
        self.packets
            .iter()
            .filter(|packet| headers::find(&packet.frame, needle))
            .count()
    }

    /// An error that describes the first packet that holds `secret`.
    pub fn never_shows(&self, secret: &[u8]) -> Result<()> {
        match self
            .packets
            .iter()
            .find(|packet| headers::find(&packet.frame, secret))
        {
            None => Ok(()),
            Some(packet) => bail!(
                "{} shows what must be sealed, in one of {} packets: {}",
                self.name,
                self.holding(secret),
                packet.describe()
            ),
        }
    }

    /// Every IPv4 packet's header.
    pub fn headers(&self) -> impl Iterator<Item = Ip<'_>> {
        self.packets.iter().filter_map(Packet::header)
    }

    /// Every ESP packet, without its IP header.
    pub fn esp(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().filter_map(Packet::esp)
    }

    /// The first `count` packets as a pcap file (LINKTYPE_ETHERNET 1 or LINKTYPE_RAW 101, microseconds).
    pub fn pcap(&self, count: usize) -> Vec<u8> {
        let link_type = if self
            .packets
            .first()
            .is_some_and(|packet| packet.link_header == 0)
        {
            101u32
        } else {
            1
        };
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, link_type] {
            file.extend(word.to_le_bytes());
        }
        for packet in self.packets.iter().take(count) {
            let length = packet.frame.len() as u32;
            for word in [
                packet.time.as_secs() as u32,
                packet.time.subsec_micros(),
                length,
                length,
            ] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&packet.frame);
        }
        file
    }

    /// All of it, to be sent from guest to guest: of each packet time (nanoseconds, u64), octets of its link header and of
    /// all (u32), little endian, and the packet.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        for packet in &self.packets {
            octets.extend((packet.time.as_nanos() as u64).to_le_bytes());
            octets.extend((packet.link_header as u32).to_le_bytes());
            octets.extend((packet.frame.len() as u32).to_le_bytes());
            octets.extend(&packet.frame);
        }
        octets
    }
}
