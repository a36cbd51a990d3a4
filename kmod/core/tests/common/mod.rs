// SPDX-License-Identifier: GPL-2.0-only
//! What the tests share: ciphers, datagrams and both ends of a CSA.
#![allow(dead_code, reason = "each test binary uses its part")]

use mml_core::checksum;
use mml_core::esp::{Drop, IvKind};
use mml_core::ip::{v4, Addresses};
use mml_core::packet::{self, Aead, Opened, RelaySa, Relayed, Sa, SealError, Zone};
use mml_core::replay::{Replay, Resync};
use mml_core::selector::Selector;
use mml_core::zone::{Mode, ZoneMap};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

pub const SPI: u32 = 0x1234_5678;
pub const SRC: [u8; 4] = [192, 0, 2, 10];
pub const DST: [u8; 4] = [203, 0, 113, 7];

/// ring's AEADs behind the crate's trait.
pub struct Ring(LessSafeKey);

impl Ring {
    pub fn new(cipher: &str, key: &[u8]) -> Self {
        let algorithm = match cipher {
            "aes128-gcm16" => &aead::AES_128_GCM,
            "aes256-gcm16" => &aead::AES_256_GCM,
            "chacha20-poly1305" => &aead::CHACHA20_POLY1305,
            other => panic!("no cipher {other}"),
        };
        Self(LessSafeKey::new(
            UnboundKey::new(algorithm, key).expect("key length"),
        ))
    }
}

impl Aead for Ring {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &mut [u8; 16]) {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let made = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), data)
            .expect("seal");
        tag.copy_from_slice(made.as_ref());
    }

    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut buffer = [&*data, tag].concat();
        let good = self
            .0
            .open_in_place(nonce, Aad::from(aad), &mut buffer)
            .is_ok();
        data.copy_from_slice(&buffer[..data.len()]);
        good
    }
}

/// Keys and settings of one direction; [`sa`](Csa::sa) and [`relay`](Csa::relay) are the ends' views of it.
pub struct Csa {
    pub keys: [Ring; 2],
    pub ivs: [IvKind; 2],
    pub map: ZoneMap,
    pub may_write: bool,
    pub selector: Option<Selector>,
}

impl Csa {
    pub fn tunnel() -> Self {
        Self {
            keys: [
                Ring::new("aes256-gcm16", &[1; 32]),
                Ring::new("aes128-gcm16", &[2; 16]),
            ],
            ivs: [IvKind::Implicit; 2],
            map: ZoneMap::default_for(Mode::Tunnel),
            may_write: false,
            selector: None,
        }
    }

    pub fn transport() -> Self {
        Self {
            map: ZoneMap::default_for(Mode::Transport),
            ..Self::tunnel()
        }
    }

    /// A tunnel whose relay may write: zone 1's IV is explicit.
    pub fn writable() -> Self {
        Self {
            ivs: [IvKind::Explicit, IvKind::Implicit],
            may_write: true,
            ..Self::tunnel()
        }
    }

    pub fn explicit(mut self) -> Self {
        self.ivs = [IvKind::Explicit; 2];
        self
    }

    pub fn sa(&self) -> Sa<'_> {
        let [key1, key2] = &self.keys;
        let [iv1, iv2] = self.ivs;
        Sa {
            spi: SPI,
            map: self.map,
            zones: [
                Zone {
                    aead: key1,
                    salt: [0x11; 4],
                    iv: iv1,
                },
                Zone {
                    aead: key2,
                    salt: [0x22; 4],
                    iv: iv2,
                },
            ],
            may_write: self.may_write,
            selector: self.selector,
        }
    }

    pub fn relay(&self) -> RelaySa<'_> {
        let sa = self.sa();
        RelaySa {
            spi: sa.spi,
            map: sa.map,
            zone: sa.zones[0],
        }
    }

    pub fn seal(&self, seq: u64, datagram: &[u8]) -> Vec<u8> {
        let next = match self.map.mode() {
            Mode::Tunnel if datagram.first().is_some_and(|b| b >> 4 == 6) => 41,
            Mode::Tunnel => 4,
            Mode::Transport => 6,
        };
        self.seal_as(seq, next, datagram, 0).expect("sealed")
    }

    pub fn seal_as(
        &self,
        seq: u64,
        next: u8,
        datagram: &[u8],
        tfc: usize,
    ) -> Result<Vec<u8>, SealError> {
        let mut out = vec![0; datagram.len() + tfc + 128];
        let len = packet::seal(&self.sa(), seq, next, datagram, tfc, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    /// Opens in a window that has seen nothing and stands at `top`.
    pub fn open_at(&self, top: u64, packet: &[u8]) -> Result<(Opened, Vec<u8>), Drop> {
        Terminus::starting_at(self, top).open(packet)
    }

    pub fn open(&self, packet: &[u8]) -> Result<(Opened, Vec<u8>), Drop> {
        self.open_at(0, packet)
    }

    /// A relay's first look at a packet: what it can tell, and zone 1's plaintext.
    pub fn look(&self, packet: &[u8]) -> Result<(Relayed, Vec<u8>), Drop> {
        let mut window = Replay::new(64).expect("width");
        let mut scratch = [0; 256];
        let bits = &mut [0; 1];
        let seen = packet::relay_open(
            &self.relay(),
            &mut window,
            bits,
            &mut Resync::default(),
            packet,
            &mut scratch,
        )?;
        Ok((seen, scratch[..seen.l1].to_vec()))
    }

    /// What one who holds zone 1's key makes of a packet: any header, any zone 1 plaintext, zone 2 as it was.
    pub fn forge(
        &self,
        packet: &[u8],
        header: [u8; 12],
        iv: u64,
        zone1: &[u8],
        old_l1: usize,
    ) -> Vec<u8> {
        let iv_len = self.ivs[0].octets();
        let mut out = header.to_vec();
        if iv_len > 0 {
            out.extend(iv.to_be_bytes());
        }
        let start = out.len();
        out.extend(zone1);
        let mut tag = [0; 16];
        let nonce = mml_core::esp::nonce(&[0x11; 4], iv);
        self.keys[0].seal(&nonce, &header, &mut out[start..], &mut tag);
        out.extend(tag);
        out.extend(&packet[12 + iv_len + old_l1 + 16..]);
        out
    }
}

/// A receiving end with its window.
pub struct Terminus<'a> {
    pub csa: &'a Csa,
    pub window: Replay,
    pub bits: Vec<u64>,
    pub outer: Option<Addresses>,
}

impl<'a> Terminus<'a> {
    pub fn starting_at(csa: &'a Csa, top: u64) -> Self {
        Self::with_width(csa, 64, top)
    }

    pub fn with_width(csa: &'a Csa, width: u32, top: u64) -> Self {
        Self {
            csa,
            window: Replay::starting_at(width, top).expect("width"),
            bits: vec![0; Replay::words(width)],
            outer: None,
        }
    }

    pub fn open(&mut self, packet: &[u8]) -> Result<(Opened, Vec<u8>), Drop> {
        let mut buffer = packet.to_vec();
        let sa = self.csa.sa();
        let opened = packet::open(
            &sa,
            &mut self.window,
            &mut self.bits,
            self.outer.as_ref(),
            &mut buffer,
        )?;
        let datagram = buffer[opened.datagram.clone()].to_vec();
        Ok((opened, datagram))
    }
}

/// A selector for everything of a family.
pub fn any(family: u8, protocol: u8) -> Selector {
    Selector::new(family, protocol, [0; 16], 0, [0; 16], 0).expect("selector")
}

/// A selector for one pair of IPv4 hosts.
pub fn hosts(protocol: u8, src: [u8; 4], dst: [u8; 4]) -> Selector {
    Selector::new(4, protocol, v4(src), 32, v4(dst), 32).expect("selector")
}

/// An IPv4 datagram with a good header checksum; `offset` is the whole flags and fragment offset field.
pub fn ipv4(protocol: u8, options: &[u8], offset: u16, payload: &[u8]) -> Vec<u8> {
    assert!(options.len() % 4 == 0 && options.len() <= 40);
    let header = 20 + options.len();
    let mut d = vec![0x40 | (header / 4) as u8, 0];
    d.extend(((header + payload.len()) as u16).to_be_bytes());
    d.extend([0x12, 0x34]);
    d.extend(offset.to_be_bytes());
    d.extend([64, protocol, 0, 0]);
    d.extend(SRC);
    d.extend(DST);
    d.extend(options);
    let check = !checksum::sum(&d);
    d[10..12].copy_from_slice(&check.to_be_bytes());
    d.extend(payload);
    d
}

/// An IPv6 datagram whose extension headers and payload are given, first next header included.
pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut d = vec![0x60, 0, 0, 0];
    d.extend((payload.len() as u16).to_be_bytes());
    d.extend([next, 64]);
    d.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    d.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    d.extend(payload);
    d
}

/// A TCP segment; its checksum is over the IPv4 pseudo-header of [`SRC`] and [`DST`].
pub fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
    assert!(options.len() % 4 == 0 && options.len() <= 40);
    let mut s = vec![
        0x1F, 0x90, 0xC0, 0x01, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
    ];
    s.extend([
        (((20 + options.len()) / 4) << 4) as u8,
        0x18,
        0x01,
        0xF5,
        0,
        0,
        0,
        0,
    ]);
    s.extend(options);
    s.extend(payload);
    let check = pseudo(6, &s);
    s[16..18].copy_from_slice(&check.to_be_bytes());
    s
}

/// A UDP datagram with its checksum, or with none (0).
pub fn udp(payload: &[u8], with_checksum: bool) -> Vec<u8> {
    let mut s = vec![0x13, 0xC4, 0x00, 0x35];
    s.extend(((8 + payload.len()) as u16).to_be_bytes());
    s.extend([0, 0]);
    s.extend(payload);
    if with_checksum {
        let check = match pseudo(17, &s) {
            0 => 0xFFFF,
            check => check,
        };
        s[6..8].copy_from_slice(&check.to_be_bytes());
    }
    s
}

/// The checksum of a transport segment under the IPv4 pseudo-header; 0 of one that has its checksum filled in.
pub fn pseudo(protocol: u8, segment: &[u8]) -> u16 {
    let mut all = [SRC, DST].concat();
    all.extend([0, protocol]);
    all.extend((segment.len() as u16).to_be_bytes());
    all.extend(segment);
    !checksum::sum(&all)
}
