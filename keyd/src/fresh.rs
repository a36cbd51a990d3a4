// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Fresh CSAs for a tunnel: both directions, and a matching file for each of home agent, foreign agent and mobile host.

use crate::address::Prefix;
use crate::csa_file::Stop;
use crate::hex;
use crate::ports::Ports;
use pfkey::{Algorithm, Role};
use ring::rand::SecureRandom;
use std::fmt::Write;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// What the CSAs shall be.
pub struct Plan {
    /// The home agent's outer address.
    pub ha: IpAddr,
    /// The mobile host's outer address.
    pub mh: IpAddr,
    /// Which inner addresses are the mobile host's.
    pub selector_mh: Prefix,
    /// Which are its correspondents'.
    pub selector_cn: Prefix,
    /// The transforms of zone 1 and zone 2, and the bits of their keys.
    pub zones: [(Algorithm, u16); 2],
    /// The upper protocol inside, 0 for any.
    pub protocol: u8,
    /// The mobile host's ports.
    pub ports_mh: Ports,
    /// Its correspondents'.
    pub ports_cn: Ports,
    /// Where zone 1 stops.
    pub map: Stop,
    /// The replay window, in packets.
    pub window: u32,
    /// Whether the relay may rewrite zone 1.
    pub may_write: bool,
    /// The relay's number, if it may.
    pub relay_number: u16,
    /// Which CSA of this pair of hosts.
    pub generation: u32,
    /// Whether the packets travel in UDP, from port 4500 to port 4500.
    pub udp: bool,
    /// Whether it is the two hosts' own packets that are sealed, in transport mode: nobody is between them.
    pub transport: bool,
}

/// A node's file, with its name.
pub type NodeFile = (&'static str, Zeroizing<String>);

/// No random octets were to be had.
#[derive(thiserror::Error, Debug)]
#[error("the system has no random octets to make keys from")]
pub struct NoRandom;

/// One direction of the tunnel.
struct Direction {
    spi: u32,
    ends: [IpAddr; 2],
    selectors: [(Prefix, Ports); 2],
    zones: [Zone; 2],
}

struct Zone {
    key: Zeroizing<Vec<u8>>,
    salt: Zeroizing<[u8; pfkey::SALT_LEN]>,
}

/// Room for any of the files: a text that grows would leave its keys behind where it was.
const FILE_ROOM: usize = 8192;

impl Plan {
    /// The files of home agent, mobile host and, in tunnel mode, foreign agent, with fresh keys and SPIs.
    pub fn files(&self, random: &dyn SecureRandom) -> Result<Vec<NodeFile>, NoRandom> {
        let to_mh = self.direction(
            random,
            [self.ha, self.mh],
            [
                (self.selector_cn, self.ports_cn),
                (self.selector_mh, self.ports_mh),
            ],
        )?;
        let from_mh = self.direction(
            random,
            [self.mh, self.ha],
            [
                (self.selector_mh, self.ports_mh),
                (self.selector_cn, self.ports_cn),
            ],
        )?;
        let ha = [(Role::Origin, &to_mh), (Role::Terminus, &from_mh)];
        let fa = [(Role::Relay, &to_mh), (Role::Relay, &from_mh)];
        let mh = [(Role::Origin, &from_mh), (Role::Terminus, &to_mh)];
        let mut files = vec![
            ("ha.toml", self.file("the home agent", &ha)),
            ("mh.toml", self.file("the mobile host", &mh)),
        ];
        if !self.transport {
            let relay = self.file("the foreign agent: zone 1's keys alone", &fa);
            files.insert(1, ("fa.toml", relay));
        }
        Ok(files)
    }

    fn direction(
        &self,
        random: &dyn SecureRandom,
        ends: [IpAddr; 2],
        selectors: [(Prefix, Ports); 2],
    ) -> Result<Direction, NoRandom> {
        let [zone1, zone2] = self.zones;
        let zones = [zone(random, zone1.1)?, zone(random, zone2.1)?];
        Ok(Direction {
            spi: spi(random)?,
            ends,
            selectors,
            zones,
        })
    }

    fn file(&self, node: &str, csas: &[(Role, &Direction)]) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_ROOM));
        let _ = writeln!(
            text,
            "# CSAs of {node}, made by `mmlctl csa new`. Load with: mmlctl csa add -f FILE"
        );
        let seals = csas
            .iter()
            .any(|(role, _)| *role != Role::Terminus && (*role == Role::Origin || self.may_write));
        if seals {
            text.push_str("# Single use: a counter must never start again under the same key. Never copy it.\n");
        }
        for (role, direction) in csas {
            self.csa(&mut text, *role, direction);
        }
        text
    }

    fn csa(&self, text: &mut String, role: Role, direction: &Direction) {
        let [src, dst] = direction.ends;
        let [(inner_src, src_ports), (inner_dst, dst_ports)] = direction.selectors;
        let Plan {
            window, generation, ..
        } = self;
        let _ = writeln!(
            text,
            "\n[[csa]]\nrole = \"{}\"\nspi = {:#010x}",
            role.name(),
            direction.spi
        );
        let _ = writeln!(text, "src = \"{src}\"\ndst = \"{dst}\"");
        let _ = writeln!(text, "window = {window}\ngeneration = {generation}");
        let _ = match self.map {
            Stop(pfkey::TRANSPORT_END) => writeln!(text, "map = \"transport-end\""),
            Stop(octets) => writeln!(text, "map = {octets}"),
        };
        if self.transport {
            text.push_str("mode = \"transport\"\n");
        }
        if self.udp {
            text.push_str("udp = { src-port = 4500, dst-port = 4500 }\n");
        }
        if self.may_write {
            text.push_str("may-write = true\n");
            if role == Role::Relay {
                let _ = writeln!(text, "relay-number = {}", self.relay_number);
            }
        }
        let _ = write!(
            text,
            "selector = {{ src = \"{inner_src}\", dst = \"{inner_dst}\""
        );
        if self.protocol != 0 {
            let _ = write!(text, ", protocol = {}", self.protocol);
        }
        for (key, ports) in [("src-port", src_ports), ("dst-port", dst_ports)] {
            if ports != Ports::ANY {
                let _ = write!(text, ", {key} = \"{ports}\"");
            }
        }
        text.push_str(" }\n");
        // A relay never has zone 2's key.
        let known = if role == Role::Relay { 1 } else { 2 };
        for (index, (zone, (algorithm, bits))) in direction
            .zones
            .iter()
            .zip(self.zones)
            .take(known)
            .enumerate()
        {
            let _ = write!(
                text,
                "\n[csa.zone{}]\nalgorithm = \"{}\"\nkey = \"",
                index + 1,
                algorithm.name(bits)
            );
            hex::write(text, &zone.key);
            text.push_str("\"\nsalt = \"");
            hex::write(text, &*zone.salt);
            text.push_str("\"\n");
        }
    }
}

fn zone(random: &dyn SecureRandom, bits: u16) -> Result<Zone, NoRandom> {
    let mut zone = Zone {
        key: Zeroizing::new(vec![0; usize::from(bits / 8)]),
        salt: Zeroizing::new([0; pfkey::SALT_LEN]),
    };
    random.fill(&mut zone.key).map_err(|_| NoRandom)?;
    random.fill(&mut *zone.salt).map_err(|_| NoRandom)?;
    Ok(zone)
}

/// An SPI at random, none of the reserved ones.
fn spi(random: &dyn SecureRandom) -> Result<u32, NoRandom> {
    // Reserved ones come up once in 2^24 draws: eight of them in a row mean the source is broken.
    for _ in 0..8 {
        let mut octets = [0; 4];
        random.fill(&mut octets).map_err(|_| NoRandom)?;
        let spi = u32::from_be_bytes(octets);
        if spi >= pfkey::number::SPI_MIN {
            return Ok(spi);
        }
    }
    Err(NoRandom)
}
