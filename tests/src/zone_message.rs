// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zone messages written octet by octet from `docs/wire.md` §2 and RFC 2367 §2.3, apart from crate `pfkey`: so that
//! malformed ones can be written too. Integers are host-endian, addresses and SPIs big-endian.

use std::net::Ipv4Addr;

use crate::aead::ZoneKey;
use crate::topology::HOME;
use crate::zone_esp::Sa;

pub const GETSPI: u8 = 1;
pub const UPDATE: u8 = 2;
pub const ADD: u8 = 3;
pub const DELETE: u8 = 4;
pub const GET: u8 = 5;
pub const ACQUIRE: u8 = 6;
pub const EXPIRE: u8 = 8;
pub const FLUSH: u8 = 9;
pub const DUMP: u8 = 10;
pub const SPDADD: u8 = 14;
pub const SPDDELETE: u8 = 15;
pub const SPDDUMP: u8 = 18;
pub const SPDFLUSH: u8 = 19;

pub const CSA_STATE: u8 = 128;
pub const CSA_RESEND: u8 = 129;

pub const MLESP: u8 = 249;

pub const SA: u16 = 1;
pub const LIFETIME_CURRENT: u16 = 2;
pub const LIFETIME_HARD: u16 = 3;
pub const LIFETIME_SOFT: u16 = 4;
pub const ADDRESS_SRC: u16 = 5;
pub const ADDRESS_DST: u16 = 6;
pub const SPIRANGE: u16 = 16;
pub const X_POLICY: u16 = 18;
pub const ZONE_MAP: u16 = 128;
pub const ZONE_SA: u16 = 129;
pub const CSA: u16 = 130;
pub const SELECTOR: u16 = 131;
pub const RELAY: u16 = 133;

/// What a node does with a CSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Origin = 1,
    Terminus = 2,
    Relay = 3,
}

/// Where a CSA stands in its life; larval ones have no keys and are never updated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active = 1,
    Standby = 2,
    Dying = 3,
}

/// What a policy does (Linux's `ipsec.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Discard = 0,
    Bypass = 1,
    Protect = 2,
}

/// Which way a policy looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In = 1,
    Out = 2,
}

/// A prefix.
pub type Prefix = (Ipv4Addr, u8);

pub const ANY: Prefix = (Ipv4Addr::UNSPECIFIED, 0);
/// The home address alone.
pub const HOME_ONLY: Prefix = (HOME, 32);

/// An extension before it is laid out: its octets without header and padding.
#[derive(Clone, Debug)]
pub struct Extension {
    pub kind: u16,
    pub octets: Vec<u8>,
}

/// A message before it is laid out.
#[derive(Clone, Debug)]
pub struct Message {
    pub version: u8,
    pub kind: u8,
    pub errno: u8,
    pub satype: u8,
    pub reserved: u16,
    pub extensions: Vec<Extension>,
}

impl Message {
    pub fn new(kind: u8, extensions: Vec<Extension>) -> Self {
        Self {
            version: 2,
            kind,
            errno: 0,
            satype: MLESP,
            reserved: 0,
            extensions,
        }
    }

    /// The role in which it adds a CSA; None if it doesn't.
    pub fn adds(&self) -> Option<Role> {
        let csa = self.extensions.iter().find(|one| one.kind == CSA)?;
        let is_it = |role: &Role| csa.octets.first() == Some(&(*role as u8));
        let roles = [Role::Origin, Role::Terminus, Role::Relay];
        roles.into_iter().find(is_it).filter(|_| self.kind == ADD)
    }

    /// The octets of it.
    pub fn octets(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for extension in &self.extensions {
            let length = (4 + extension.octets.len()).next_multiple_of(8);
            let end = body.len() + length;
            body.extend(((length / 8) as u16).to_ne_bytes());
            body.extend(extension.kind.to_ne_bytes());
            body.extend(&extension.octets);
            body.resize(end, 0);
        }
        let mut message = vec![self.version, self.kind, self.errno, self.satype];
        message.extend(((16 + body.len()) as u16 / 8).to_ne_bytes());
        message.extend(self.reserved.to_ne_bytes());
        message.extend(1u32.to_ne_bytes());
        message.extend(std::process::id().to_ne_bytes());
        message.extend(body);
        message
    }

    /// The same without extensions of this type.
    pub fn without(&self, kind: u16) -> Self {
        let mut message = self.clone();
        message
            .extensions
            .retain(|extension| extension.kind != kind);
        message
    }

    /// The same with the first extension of this type changed.
    pub fn with(&self, kind: u16, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut message = self.clone();
        if let Some(extension) = message
            .extensions
            .iter_mut()
            .find(|extension| extension.kind == kind)
        {
            change(&mut extension.octets);
        }
        message
    }
}

fn extension(kind: u16, parts: &[&[u8]]) -> Extension {
    Extension {
        kind,
        octets: parts.concat(),
    }
}

/// sadb_sa: SPI, replay 0, state mature, no algorithms of its own, no flags.
pub fn sa(spi: u32) -> Extension {
    extension(SA, &[&spi.to_be_bytes(), &[0, 1, 0, 0], &[0; 4]])
}

/// sadb_address with a sockaddr_in behind it.
pub fn address(kind: u16, address: Ipv4Addr) -> Extension {
    extension(
        kind,
        &[
            &[0, 32, 0, 0],
            &(libc::AF_INET as u16).to_ne_bytes(),
            &[0; 2],
            &address.octets(),
            &[0; 8],
        ],
    )
}

pub fn selector(source: Prefix, destination: Prefix, protocol: u8) -> Extension {
    let wide = |address: Ipv4Addr| {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&address.octets());
        octets
    };
    extension(
        SELECTOR,
        &[
            &[libc::AF_INET as u8, protocol, source.1, destination.1],
            &[0; 4],
            &wide(source.0),
            &wide(destination.0),
        ],
    )
}

/// The same message for these ports alone, each range by its first and last port; 0 and 0 for any.
pub fn with_ports(message: &Message, source: (u16, u16), destination: (u16, u16)) -> Message {
    let range = |(first, last): (u16, u16)| [first.to_be_bytes(), last.to_be_bytes()].concat();
    message.with(SELECTOR, |octets| {
        octets[4..8].copy_from_slice(&range(source));
        octets.truncate(40);
        octets.extend(range(destination));
    })
}

pub fn zone_map(stop: Option<usize>) -> Extension {
    let stop = stop.map_or(0xFFFE, |stop| stop as u16);
    extension(
        ZONE_MAP,
        &[
            &[2, 2, 0, 0],
            &[1, 0],
            &stop.to_ne_bytes(),
            &[2, 0],
            &0xFFFFu16.to_ne_bytes(),
        ],
    )
}

pub fn zone_sa(zone: u8, key: Option<&ZoneKey>) -> Extension {
    match key {
        None => extension(ZONE_SA, &[&[zone, 1], &[0; 6]]),
        Some(key) => extension(
            ZONE_SA,
            &[
                &[zone, 0],
                &key.encr.to_ne_bytes(),
                &((key.key.len() * 8) as u16).to_ne_bytes(),
                &[4, 16],
                &key.key,
                &key.salt,
            ],
        ),
    }
}

/// `sequence`: the last number sealed or seen.
pub fn csa(role: Role, window: u32, sequence: u64) -> Extension {
    extension(
        CSA,
        &[
            &[role as u8, 2, 1, 0],
            &window.to_ne_bytes(),
            &1u32.to_ne_bytes(),
            &[0; 4],
            &sequence.to_ne_bytes(),
        ],
    )
}

/// sadb_lifetime's values; 0 is no limit. In CURRENT the times are seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    pub packets: u32,
    pub octets: u64,
    pub added: u64,
    pub used: u64,
}

/// `kind`: LIFETIME_HARD, LIFETIME_SOFT or LIFETIME_CURRENT.
pub fn lifetime(kind: u16, life: &Lifetime) -> Extension {
    extension(
        kind,
        &[
            &life.packets.to_ne_bytes(),
            &life.octets.to_ne_bytes(),
            &life.added.to_ne_bytes(),
            &life.used.to_ne_bytes(),
        ],
    )
}

/// The CSA of an ADD or of an answer to DUMP, between IPv4 addresses and with both zones' keys.
pub fn read(message: &[u8]) -> Option<Sa> {
    // sadb_address (4), sockaddr_in: family, port, address (RFC 2367 §2.3.3).
    let address = |kind| -> Option<Ipv4Addr> {
        let octets = find(message, kind)?;
        Some(Ipv4Addr::from(*octets.get(8..)?.first_chunk::<4>()?))
    };
    let stop = u16::from_ne_bytes(*find(message, ZONE_MAP)?.get(6..)?.first_chunk()?);
    Some(Sa {
        spi: u32::from_be_bytes(*find(message, SA)?.first_chunk()?),
        source: address(ADDRESS_SRC)?,
        destination: address(ADDRESS_DST)?,
        zones: [zone(message, 1)?, zone(message, 2)?],
        stop: (stop != 0xFFFE).then_some(stop.into()),
        may_write: find(message, RELAY)
            .and_then(|octets| octets.first_chunk())
            .is_some_and(|flags| u16::from_ne_bytes(*flags) & 1 == 1),
    })
}

fn zone(message: &[u8], zone: u8) -> Option<ZoneKey> {
    let octets = all(message, ZONE_SA).find(|octets| octets.first() == Some(&zone))?;
    let bits = u16::from_ne_bytes(*octets.get(4..)?.first_chunk()?);
    let key = octets.get(8..8 + usize::from(bits) / 8)?;
    Some(ZoneKey {
        encr: u16::from_ne_bytes(*octets.get(2..)?.first_chunk()?),
        key: key.to_vec(),
        salt: *octets.get(8 + key.len()..)?.first_chunk()?,
    })
}

/// The SPI and zone 1's key of such a message; a relay's has no other.
pub fn zone_1(message: &[u8]) -> Option<(u32, ZoneKey)> {
    let spi = u32::from_be_bytes(*find(message, SA)?.first_chunk()?);
    Some((spi, zone(message, 1)?))
}

/// The octets behind the headers of a message's extensions of this type.
fn all(message: &[u8], kind: u16) -> impl Iterator<Item = &[u8]> {
    let mut rest = message.get(16..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1])) * 8;
        let octets = rest.get(4..length)?;
        rest = rest.get(length..)?;
        Some((u16::from_ne_bytes([k0, k1]), octets))
    })
    .filter(move |(found, _)| *found == kind)
    .map(|(_, octets)| octets)
}

/// The octets behind the header of a message's first extension of this type.
pub fn find(message: &[u8], kind: u16) -> Option<&[u8]> {
    all(message, kind).next()
}

/// A message's life-time of this type.
pub fn find_lifetime(message: &[u8], kind: u16) -> Option<Lifetime> {
    let octets = find(message, kind)?;
    let long = |at: usize| {
        let octets = octets.get(at..at + 8)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*octets))
    };
    Some(Lifetime {
        packets: u32::from_ne_bytes(*octets.first_chunk()?),
        octets: long(4)?,
        added: long(12)?,
        used: long(20)?,
    })
}

pub fn relay(may_write: bool, number: u16) -> Extension {
    extension(
        RELAY,
        &[
            &u16::from(may_write).to_ne_bytes(),
            &number.to_ne_bytes(),
            &[0; 4],
        ],
    )
}

/// RELAY of a CSA that holds packets for a handoff.
pub fn hold() -> Extension {
    extension(RELAY, &[&2u16.to_ne_bytes(), &[0; 6]])
}

/// Everything an ADD of one direction needs at a node of this role.
pub fn add(
    sa_: &Sa,
    role: Role,
    selected: (Prefix, Prefix),
    window: u32,
    sequence: u64,
) -> Message {
    let mut extensions = vec![
        sa(sa_.spi),
        address(ADDRESS_SRC, sa_.source),
        address(ADDRESS_DST, sa_.destination),
        csa(role, window, sequence),
        selector(selected.0, selected.1, 0),
        zone_map(sa_.stop),
        zone_sa(1, Some(&sa_.zones[0])),
        zone_sa(
            2,
            if role == Role::Relay {
                None
            } else {
                Some(&sa_.zones[1])
            },
        ),
    ];
    if sa_.may_write {
        extensions.push(relay(true, if role == Role::Relay { 1 } else { 0 }));
    }
    Message::new(ADD, extensions)
}

/// Names one CSA, for GET and DELETE.
pub fn name(kind: u8, sa_: &Sa, role: Role) -> Message {
    Message::new(
        kind,
        vec![
            sa(sa_.spi),
            address(ADDRESS_SRC, sa_.source),
            address(ADDRESS_DST, sa_.destination),
            csa(role, 0, 0),
        ],
    )
}

/// Asks for an SPI of this range, for packets between these outer addresses.
pub fn get_spi(source: Ipv4Addr, destination: Ipv4Addr, min: u32, max: u32) -> Message {
    let range = extension(SPIRANGE, &[&min.to_ne_bytes(), &max.to_ne_bytes(), &[0; 4]]);
    Message::new(
        GETSPI,
        vec![
            address(ADDRESS_SRC, source),
            address(ADDRESS_DST, destination),
            range,
        ],
    )
}

/// Changes a CSA's state.
pub fn update(sa: &Sa, role: Role, state: State) -> Message {
    name(UPDATE, sa, role).with(CSA, |octets| octets[2] = state as u8)
}

/// An SPDADD; `template` is the outer source and destination of the CSA a protect policy asks for.
pub fn policy(
    action: Action,
    direction: Direction,
    selected: (Prefix, Prefix),
    protocol: u8,
    priority: u32,
    template: Option<(Ipv4Addr, Ipv4Addr)>,
) -> Message {
    let ext = extension(
        X_POLICY,
        &[
            &(action as u16).to_ne_bytes(),
            &[direction as u8, 0],
            &0u32.to_ne_bytes(),
            &priority.to_ne_bytes(),
        ],
    );
    let mut extensions = vec![ext, selector(selected.0, selected.1, protocol)];
    if let Some((source, destination)) = template {
        extensions.push(address(ADDRESS_SRC, source));
        extensions.push(address(ADDRESS_DST, destination));
    }
    Message::new(SPDADD, extensions)
}
