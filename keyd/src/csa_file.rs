// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file a node's CSAs are kept in: TOML, a `[[csa]]` table each (docs/mmlctl.md has an example).

use crate::address::{host, selector, Prefix};
use crate::hex::HexSecret;
use crate::lifetime;
use crate::ports::{with_ports, Ports};
use crate::text_file;
use pfkey::{
    Algorithm, Binding, Csa, CsaExt, Encap, Mode, Relay, Role, Secret, Snoop, State, ZoneKeys,
    ZoneMap, ZoneSa, TRANSPORT_END,
};
use serde::{Deserialize, Deserializer};
use std::net::IpAddr;

/// CSAs a file may hold: far more than the three roles of a few pairs of hosts.
pub const MAX_CSAS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    csa: Vec<Entry>,
}

/// One `[[csa]]` table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    #[serde(deserialize_with = "role")]
    role: Role,
    #[serde(default = "tunnel", deserialize_with = "mode")]
    mode: Mode,
    #[serde(default = "active", deserialize_with = "state")]
    state: State,
    spi: u32,
    src: IpAddr,
    dst: IpAddr,
    #[serde(default = "window")]
    window: u32,
    #[serde(default)]
    generation: u32,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    map: Stop,
    #[serde(default)]
    may_write: bool,
    #[serde(default)]
    relay_number: u16,
    #[serde(default)]
    hold: bool,
    selector: SelectorTable,
    zone1: ZoneTable,
    zone2: Option<ZoneTable>,
    #[serde(default)]
    lifetime: lifetime::Table,
    snoop: Option<SnoopTable>,
    binding: Option<BindingTable>,
    udp: Option<UdpTable>,
}

/// The UDP ports that its packets travel between (RFC 3948), in their own direction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UdpTable {
    #[serde(default = "nat_t")]
    src_port: u16,
    #[serde(default = "nat_t")]
    dst_port: u16,
}

/// The port of IKE and ESP behind a NAT (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

fn nat_t() -> u16 {
    NAT_T_PORT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SelectorTable {
    #[serde(default = "any")]
    src: Prefix,
    #[serde(default = "any")]
    dst: Prefix,
    #[serde(default)]
    protocol: u8,
    #[serde(default)]
    src_port: Ports,
    #[serde(default)]
    dst_port: Ports,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneTable {
    #[serde(deserialize_with = "algorithm")]
    algorithm: (Algorithm, u16),
    key: HexSecret,
    salt: HexSecret,
}

/// What is left away is as [`Snoop::default`] has it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct SnoopTable {
    flags: u16,
    window: Option<u16>,
    threshold: Option<u8>,
    initial_ms: Option<u32>,
    min_rto_ms: Option<u32>,
    persist_ms: Option<u32>,
    garbage_ms: Option<u32>,
    bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingTable {
    #[serde(rename = "type")]
    kind: u8,
    identity: String,
}

/// Where zone 1 stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop(pub u16);

impl Default for Stop {
    fn default() -> Self {
        Stop(TRANSPORT_END)
    }
}

impl std::str::FromStr for Stop {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let stop = match text {
            "transport-end" => TRANSPORT_END,
            octets => octets
                .parse()
                .ok()
                .filter(|stop| *stop <= 256)
                .ok_or("zone 1 stops at `transport-end` or at an octet from 0 to 256")?,
        };
        Ok(Stop(stop))
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            TRANSPORT_END => f.write_str("transport-end"),
            octets => write!(f, "{octets}"),
        }
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Octets(u16),
            Name(String),
        }
        let text = match Either::deserialize(deserializer) {
            Ok(Either::Octets(octets)) => octets.to_string(),
            Ok(Either::Name(name)) => name,
            Err(_) => String::new(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn tunnel() -> Mode {
    Mode::Tunnel
}

fn active() -> State {
    State::Active
}

fn window() -> u32 {
    pfkey::WINDOW_DEFAULT
}

fn any() -> Prefix {
    Prefix::ANY
}

/// Reads a word and looks it up. What was written isn't part of the error: it may be a key in the wrong line.
fn named<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    find: impl Fn(&str) -> Option<T>,
    known: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    find(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("unknown word; it is one of {known}")))
}

fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    named(deserializer, Role::from_name, "origin, terminus, relay")
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    named(deserializer, Mode::from_name, "tunnel, transport")
}

fn state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    named(deserializer, State::from_name, "active, standby")
}

fn algorithm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Algorithm, u16), D::Error> {
    named(deserializer, Algorithm::from_name, ALGORITHMS)
}

/// The names of the transforms, for errors and help.
pub const ALGORITHMS: &str =
    "aes256-gcm16, aes128-gcm16, chacha20-poly1305, or one of these with -iiv behind it";

/// Reads the CSAs in `text`, which is called `name` in errors. Every one of them is whole and consistent.
pub fn parse(name: &str, text: &str) -> Result<Vec<Entry>, String> {
    let file: File = text_file::parse(name, text)?;
    if file.csa.is_empty() {
        return Err(format!(
            "{name}: no [[csa]] table in it; `mmlctl csa new` makes such files"
        ));
    }
    if file.csa.len() > MAX_CSAS {
        return Err(format!(
            "{name}: more than {MAX_CSAS} [[csa]] tables; split the file"
        ));
    }
    for (number, entry) in (1..).zip(&file.csa) {
        entry
            .to_csa()
            .map_err(|error| format!("{name}: [[csa]] number {number}: {error}"))?;
    }
    Ok(file.csa)
}

impl Entry {
    /// What the node does with it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether its keys may be used from the counter's start once in their life: they seal, at an origin, or at a relay
    /// that writes (docs/wire.md §1).
    pub fn is_single_use(&self) -> bool {
        self.role == Role::Origin || (self.role == Role::Relay && self.may_write)
    }

    /// The CSA as the message holds it.
    pub fn to_csa(&self) -> Result<Csa<'_>, String> {
        let selector = selector(self.selector.src, self.selector.dst, self.selector.protocol)
            .ok_or("selector: src and dst are of two families; both must be IPv4 or both IPv6")?;
        let selector = with_ports(selector, self.selector.src_port, self.selector.dst_port)
            .map_err(|error| format!("selector: {error}"))?;
        let map = ZoneMap::new(self.mode, &[self.map.0, pfkey::END])
            .ok_or("map: it can't be made a zone map")?;
        let zone2 = match &self.zone2 {
            Some(table) => table.to_zone("zone2", 2)?,
            None => ZoneSa::null(2),
        };
        let csa = Csa {
            spi: self.spi,
            src: host(self.src),
            dst: host(self.dst),
            ext: CsaExt {
                role: self.role,
                mode: self.mode,
                state: self.state,
                window: self.window,
                generation: self.generation,
                sequence: self.sequence,
            },
            selector,
            map,
            zones: [self.zone1.to_zone("zone1", 1)?, zone2],
            relay: Relay {
                may_write: self.may_write,
                number: self.relay_number,
                hold: self.hold,
            },
            hard: self.lifetime.hard(),
            soft: self.lifetime.soft(),
            binding: self.binding.as_ref().map(|b| Binding {
                kind: b.kind,
                data: b.identity.as_bytes(),
            }),
            snoop: self.snoop.as_ref().map(SnoopTable::to_snoop),
            encap: self.udp.as_ref().map(|udp| Encap {
                sport: udp.src_port,
                dport: udp.dst_port,
            }),
        };
        csa.check().map_err(|error| error.to_string())?;
        check_written(&csa)?;
        Ok(csa)
    }
}

/// Writes it and reads it as the module will: what this refuses, the module would.
fn check_written(csa: &Csa<'_>) -> Result<(), String> {
    let mut buffer = zeroize::Zeroizing::new([0; pfkey::MAX_LEN]);
    let octets =
        crate::kernel::add_message(&mut *buffer, csa, 0).map_err(|error| error.to_string())?;
    let message = pfkey::Message::parse(octets).map_err(|error| error.to_string())?;
    Csa::from_message(&message)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

impl ZoneTable {
    fn to_zone(&self, name: &str, zone: u8) -> Result<ZoneSa<'_>, String> {
        let (algorithm, bits) = self.algorithm;
        let octets = usize::from(bits / 8);
        let (key, salt) = (self.key.expose(), self.salt.expose());
        if key.len() != octets {
            let (has, named) = (key.len(), algorithm.name(bits));
            return Err(format!(
                "{name}.key: {has} octets, but {named} takes {octets} ({} hexadecimal digits)",
                2 * octets
            ));
        }
        if salt.len() != pfkey::SALT_LEN {
            return Err(format!(
                "{name}.salt: {} octets, but a salt has {} (8 hexadecimal digits)",
                salt.len(),
                pfkey::SALT_LEN
            ));
        }
        let keys = ZoneKeys {
            algorithm,
            key: Secret::new(key),
            salt: Secret::new(salt),
        };
        Ok(ZoneSa {
            zone,
            keys: Some(keys),
        })
    }
}

impl SnoopTable {
    fn to_snoop(&self) -> Snoop {
        let default = Snoop::default();
        Snoop {
            flags: self.flags,
            window: self.window.unwrap_or(default.window),
            threshold: self.threshold.unwrap_or(default.threshold),
            initial_ms: self.initial_ms.unwrap_or(default.initial_ms),
            min_rto_ms: self.min_rto_ms.unwrap_or(default.min_rto_ms),
            persist_ms: self.persist_ms.unwrap_or(default.persist_ms),
            garbage_ms: self.garbage_ms.unwrap_or(default.garbage_ms),
            bytes: self.bytes.unwrap_or(default.bytes),
        }
    }
}
