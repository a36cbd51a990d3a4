// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zone ESP in user space, written from `docs/wire.md` §1 apart from `mml-core`: makes good and bad packets, opens
//! what the kernel made. Every field of a packet can be set against the rules before it is sealed.

use std::net::Ipv4Addr;

use anyhow::{bail, ensure, Context, Result};

use crate::aead::ZoneKey;
use crate::headers::{self, IpDraft};

/// Flag `W`: a relay rewrote zone 1.
pub const W: u8 = 1;
/// Bit 63 of an IV: a relay's own.
pub const RELAY_IV: u64 = 1 << 63;
const ICV: usize = 16;

/// One direction of a CSA: what an origin or terminus knows. A relay knows `zones[0]` alone.
#[derive(Clone)]
pub struct Sa {
    pub spi: u32,
    /// Outer addresses.
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub zones: [ZoneKey; 2],
    /// Where zone 1 stops: an octet, or the end of the transport header.
    pub stop: Option<usize>,
    pub may_write: bool,
}

/// A packet before it is sealed.
#[derive(Clone)]
pub struct Draft {
    pub spi: u32,
    /// 64 bits: the low half goes into the header, all of it into implicit IVs.
    pub sequence: u64,
    pub flags: u8,
    pub protocol: u8,
    pub l1: u16,
    /// Zone 1's and zone 2's IV.
    pub ivs: [u64; 2],
    pub zone1: Vec<u8>,
    /// Moved checksum and rest of the datagram.
    pub rest: Vec<u8>,
    pub padding: Vec<u8>,
    pub pad_length: u8,
    pub next_header: u8,
}

/// Where zone 1 of an inner IPv4 datagram ends, and the checksum field inside it.
pub fn split(datagram: &[u8], stop: Option<usize>) -> (usize, Option<usize>) {
    let Some(ip) = headers::Ip::parse(datagram) else {
        return (datagram.len(), None);
    };
    let transport = ip.header_length;
    let mut end = transport;
    if ip.fragment_offset == 0 {
        match ip.protocol {
            headers::TCP => {
                let header = ip
                    .payload
                    .get(12)
                    .map_or(0, |octet| usize::from(octet >> 4) * 4);
                if header >= 20 && datagram.len() >= transport + header {
                    end = transport + header;
                }
            }
            headers::UDP if datagram.len() >= transport + 8 => end = transport + 8,
            _ => {}
        }
    }
    let l1 = stop.unwrap_or(usize::MAX).min(end).min(datagram.len());
    let field = match ip.protocol {
        headers::TCP if ip.fragment_offset == 0 => Some(transport + 16),
        headers::UDP if ip.fragment_offset == 0 => Some(transport + 6),
        _ => None,
    };
    (l1, field.filter(|field| field + 2 <= l1 && end > transport))
}

impl Draft {
    /// The packet that an origin makes of `datagram`.
    pub fn new(sa: &Sa, sequence: u64, datagram: &[u8]) -> Self {
        let (l1, moved) = split(datagram, sa.stop);
        let mut zone1 = datagram[..l1].to_vec();
        let mut rest = Vec::with_capacity(datagram.len() - l1 + 2);
        if let Some(field) = moved {
            rest.extend(&datagram[field..field + 2]);
            zone1[field..field + 2].fill(0);
        }
        rest.extend(&datagram[l1..]);
        let mut draft = Self {
            spi: sa.spi,
            sequence,
            flags: 0,
            protocol: 0,
            l1: l1 as u16,
            ivs: [sequence; 2],
            zone1,
            rest,
            padding: Vec::new(),
            pad_length: 0,
            next_header: 4,
        };
        draft.pad(0);
        draft
    }

    /// Pads to the multiple of 4, and by `more` beyond what that takes.
    pub fn pad(&mut self, more: u8) {
        let unpadded = self.zone1.len() + self.rest.len() + 2;
        let pad = unpadded.next_multiple_of(4) - unpadded + usize::from(more);
        self.padding = (1..=pad as u8).collect();
        self.pad_length = pad as u8;
    }

    fn header(&self) -> [u8; 12] {
        let mut header = [0; 12];
        header[..4].copy_from_slice(&self.spi.to_be_bytes());
        header[4..8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        header[8] = self.flags;
        header[9] = self.protocol;
        header[10..].copy_from_slice(&self.l1.to_be_bytes());
        header
    }

    /// Zone 2 as it goes on the wire: IV, ciphertext, ICV.
    pub fn seal_zone2(&self, sa: &Sa) -> Result<Vec<u8>> {
        let plain = [
            &self.rest[..],
            &self.padding,
            &[self.pad_length, self.next_header],
        ]
        .concat();
        let mut zone = iv_octets(&sa.zones[1], self.ivs[1]);
        zone.extend(sa.zones[1].seal(
            self.ivs[1],
            &aad2(&self.header(), &self.zone1, sa.may_write),
            &plain,
        )?);
        Ok(zone)
    }

    /// Zone 1 as it goes on the wire, by a holder of key 1.
    pub fn seal_zone1(&self, key: &ZoneKey) -> Result<Vec<u8>> {
        let mut zone = iv_octets(key, self.ivs[0]);
        zone.extend(key.seal(self.ivs[0], &self.header(), &self.zone1)?);
        Ok(zone)
    }

    /// The ESP packet, without an IP header.
    pub fn seal(&self, sa: &Sa) -> Result<Vec<u8>> {
        Ok([
            &self.header()[..],
            &self.seal_zone1(&sa.zones[0])?,
            &self.seal_zone2(sa)?,
        ]
        .concat())
    }

    /// The ESP packet a holder of key 1 makes: zone 1 sealed anew over a zone 2 that was taken from elsewhere.
    pub fn seal_over(&self, key1: &ZoneKey, zone2: &[u8]) -> Result<Vec<u8>> {
        Ok([&self.header()[..], &self.seal_zone1(key1)?, zone2].concat())
    }
}

fn iv_octets(key: &ZoneKey, iv: u64) -> Vec<u8> {
    if key.explicit() {
        iv.to_be_bytes().to_vec()
    } else {
        Vec::new()
    }
}

/// AAD 2: the header with `W` cleared, then zone 1 with what a relay may write counted as zero.
fn aad2(header: &[u8; 12], zone1: &[u8], may_write: bool) -> Vec<u8> {
    let mut aad = header.to_vec();
    aad[8] &= !W;
    let mut zone1 = zone1.to_vec();
    if may_write && zone1.len() >= 20 {
        zone1[1] &= !3;
        zone1[10..12].fill(0);
        let transport = usize::from(zone1[0] & 15) * 4;
        let first = u16::from_be_bytes([zone1[6], zone1[7]]) & 0x1fff == 0;
        if zone1[9] == headers::TCP && first {
            // Window (RFC 9293 §3.1: octets 14 and 15) and checksum lie side by side.
            for at in transport + 14..transport + 18 {
                if let Some(octet) = zone1.get_mut(at) {
                    *octet = 0;
                }
            }
        }
    }
    aad.extend(zone1);
    aad
}

/// A packet, taken apart but not opened.
pub struct Sealed<'a> {
    pub spi: u32,
    pub sequence_low: u32,
    pub flags: u8,
    pub protocol: u8,
    pub l1: usize,
    header: [u8; 12],
    after: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub fn parse(esp: &'a [u8]) -> Result<Self> {
        let (header, after) = esp
            .split_first_chunk::<12>()
            .context("shorter than the zone header")?;
        Ok(Self {
            spi: u32::from_be_bytes([header[0], header[1], header[2], header[3]]),
            sequence_low: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: header[8],
            protocol: header[9],
            l1: usize::from(u16::from_be_bytes([header[10], header[11]])),
            header: *header,
            after,
        })
    }

    /// Takes one zone off the front: its IV, and its ciphertext with ICV.
    fn zone<'b>(
        &self,
        key: &ZoneKey,
        octets: &'b [u8],
        length: usize,
    ) -> Result<(u64, &'b [u8], &'b [u8])> {
        let (iv, octets) = if key.explicit() {
            let (iv, octets) = octets
                .split_first_chunk::<8>()
                .context("no room for an IV")?;
            (u64::from_be_bytes(*iv), octets)
        } else {
            // The tests never send 2^32 packets under one key.
            (u64::from(self.sequence_low), octets)
        };
        ensure!(
            octets.len() >= length,
            "zone of {length} octets in {}",
            octets.len()
        );
        let (zone, rest) = octets.split_at(length);
        Ok((iv, zone, rest))
    }

    /// What a holder of key 1 sees; None if the key isn't this zone's.
    pub fn open_zone1(&self, key: &ZoneKey) -> Result<Option<Vec<u8>>> {
        let (iv, zone, _) = self.zone(key, self.after, self.l1 + ICV)?;
        key.open(iv, &self.header, zone)
    }

    /// Zone 2's octets on the wire.
    pub fn zone2(&self, key1: &ZoneKey) -> Result<&'a [u8]> {
        let (_, _, rest) = self.zone(key1, self.after, self.l1 + ICV)?;
        Ok(rest)
    }

    /// Tries `key` on zone 2 as if zone 1 were `zone1`.
    pub fn open_zone2(&self, sa: &Sa, key: &ZoneKey, zone1: &[u8]) -> Result<Option<Vec<u8>>> {
        let zone2 = self.zone2(&sa.zones[0])?;
        let (iv, zone, _) = self.zone(
            key,
            zone2,
            zone2
                .len()
                .checked_sub(key.iv_length())
                .context("no room for an IV")?,
        )?;
        key.open(iv, &aad2(&self.header, zone1, sa.may_write), zone)
    }

    /// The inner datagram, its moved checksum put back.
    pub fn open(&self, sa: &Sa) -> Result<Vec<u8>> {
        let Some(mut zone1) = self.open_zone1(&sa.zones[0])? else {
            bail!("zone 1 fails its ICV")
        };
        let Some(zone2) = self.open_zone2(sa, &sa.zones[1], &zone1)? else {
            bail!("zone 2 fails its ICV")
        };
        let (octets, trailer) = zone2.split_last_chunk::<2>().context("no trailer")?;
        let pad = usize::from(trailer[0]);
        ensure!(
            octets.len() >= pad,
            "{pad} octets of padding in {}",
            octets.len()
        );
        let (rest, padding) = octets.split_at(octets.len() - pad);
        ensure!(
            padding
                .iter()
                .enumerate()
                .all(|(at, &octet)| usize::from(octet) == at + 1),
            "padding is not 1, 2, 3 …: {padding:02x?}"
        );
        ensure!(trailer[1] == 4, "next header {}", trailer[1]);
        ensure!(
            (self.l1 + zone2.len()) % 4 == 0,
            "zones of {} and {} octets",
            self.l1,
            zone2.len()
        );
        let total = headers::Ip::parse(&zone1)
            .context("no inner header")?
            .total_length;
        let moved = rest.len() + zone1.len() - total;
        ensure!(moved == 0 || moved == 2, "{moved} octets too many inside");
        let (checksum, rest) = rest.split_at(moved);
        let datagram_for_split = [&zone1[..], rest].concat();
        let (l1, field) = split(&datagram_for_split, sa.stop);
        ensure!(l1 == self.l1, "L1 is {} where the map gives {l1}", self.l1);
        ensure!(
            field.is_some() == (moved == 2),
            "{moved} octets of moved checksum for a field at {field:?}"
        );
        if let Some(field) = field {
            let sum =
                headers::fold(headers::sum(&zone1[field..field + 2]) + headers::sum(checksum));
            zone1[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        zone1.extend(rest);
        Ok(zone1)
    }
}

/// An outer IPv4 header over an ESP packet.
pub fn outer(sa: &Sa, esp: &[u8]) -> Vec<u8> {
    let mut ip = IpDraft::new(sa.source, sa.destination, headers::ESP);
    ip.df = true;
    ip.write(esp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead;
    use crate::topology::{CN, HA, HOME, MH};

    fn sa(encr: u16, stop: Option<usize>) -> Sa {
        let key = |fill| ZoneKey {
            encr,
            key: vec![fill; 32],
            salt: [fill; 4],
        };
        Sa {
            spi: 0x1234,
            source: HA,
            destination: MH,
            zones: [key(1), key(2)],
            stop,
            may_write: false,
        }
    }

    #[test]
    fn what_is_sealed_opens_for_every_cipher_and_map() {
        for encr in [
            aead::AES_GCM_16,
            aead::CHACHA20,
            aead::AES_GCM_16_IIV,
            aead::CHACHA20_IIV,
        ] {
            for stop in [None, Some(20), Some(40)] {
                let sa = sa(encr, stop);
                for length in 0..64 {
                    let datagram = IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(
                        CN,
                        1,
                        HOME,
                        2,
                        &vec![7; length],
                    ));
                    let esp = Draft::new(&sa, 9, &datagram).seal(&sa).unwrap();
                    assert_eq!(Sealed::parse(&esp).unwrap().open(&sa).unwrap(), datagram);
                    assert_eq!(esp.len() % 4, 0);
                }
            }
        }
    }

    #[test]
    fn one_zone_does_not_open_with_the_other_ones_key() {
        let sa = sa(aead::AES_GCM_16_IIV, None);
        let datagram =
            IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 1, HOME, 2, b"secret"));
        let esp = Draft::new(&sa, 1, &datagram).seal(&sa).unwrap();
        let sealed = Sealed::parse(&esp).unwrap();
        assert!(sealed.open_zone1(&sa.zones[1]).unwrap().is_none());
        let zone1 = sealed.open_zone1(&sa.zones[0]).unwrap().unwrap();
        assert!(sealed
            .open_zone2(&sa, &sa.zones[0], &zone1)
            .unwrap()
            .is_none());
        assert!(sealed
            .open_zone2(&sa, &sa.zones[1], &zone1)
            .unwrap()
            .is_some());
    }
}
