// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The payloads of ML-IKE (docs/wire.md §3.1): Zone Map, SECRET, CSA Identity, and what the CSA exchanges say beside
//! them (docs/ike.md).

use super::multicast::{GroupKey, Report};
use super::reader::{family, len16, len8, wide, Put, Reader};
use super::{Encr, Error, Id, IdType};
use crate::secret::Secret;
use pfkey::{Mode, ZoneMap};
use std::net::IpAddr;

/// One ENCR candidate of a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneTransform {
    /// The transform.
    pub encr: Encr,
    /// Key length in bits.
    pub key_bits: u16,
}

/// Zone Map: the map, and for each zone its candidates, or in a response the one chosen (docs/wire.md 1.8e, 3.1a).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneMapPayload {
    /// Where the zones stop, and the mode.
    pub map: ZoneMap,
    /// For each zone, zone 1 first, what may seal it.
    pub transforms: Vec<Vec<ZoneTransform>>,
}

impl ZoneMapPayload {
    pub(super) fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let count = r.u8()?;
        let mode = match r.u8()? {
            1 => Mode::Transport,
            2 => Mode::Tunnel,
            _ => return Err(Error::Value("zone map's mode")),
        };
        r.u16()?;
        let mut stops = Vec::with_capacity(usize::from(count));
        for zone in 1..=count {
            if r.u8()? != zone {
                return Err(Error::Value("zone map's zone"));
            }
            r.u8()?;
            stops.push(r.u16()?);
        }
        let map = ZoneMap::new(mode, &stops).ok_or(Error::Value("zone map's stops"))?;
        let mut transforms = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let candidates = r.u8()?;
            r.u8()?;
            let list: Result<_, Error> = (0..candidates)
                .map(|_| {
                    Ok(ZoneTransform {
                        encr: Encr(r.u16()?),
                        key_bits: r.u16()?,
                    })
                })
                .collect();
            transforms.push(list?);
        }
        r.end()?;
        Ok(ZoneMapPayload { map, transforms })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let stops = self.map.stops();
        out.put(&[len8(stops.len()), mode_number(self.map.mode()), 0, 0]);
        for (zone, stop) in (1u8..).zip(stops) {
            out.put(&[zone, 0]);
            out.put_u16(*stop);
        }
        for list in &self.transforms {
            out.put(&[len8(list.len()), 0]);
            for transform in list.iter().take(255) {
                out.put_u16(transform.encr.0);
                out.put_u16(transform.key_bits);
            }
        }
    }
}

fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Transport => 1,
        Mode::Tunnel => 2,
    }
}

/// Which of a CSA's two directions, named from its distributor (the HA).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Direction {
    /// From the outer source (HA) to the outer destination (MH).
    Out,
    /// Back.
    In,
}

/// SECRET: a key. Only ever within SK (docs/wire.md 3.1b).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretPayload {
    /// Which direction it seals.
    pub direction: Direction,
    /// Which zone, from 1; 0 for K_FA.
    pub zone: u8,
    /// Its transform; for K_FA, the PRF's number.
    pub encr: Encr,
    /// The key.
    pub key: Secret,
    /// The nonce's first octets; none for K_FA.
    pub salt: Secret,
}

impl SecretPayload {
    pub(super) fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let direction = match r.u8()? {
            0 => Direction::Out,
            1 => Direction::In,
            _ => return Err(Error::Value("secret's direction")),
        };
        let (zone, encr) = (r.u8()?, Encr(r.u16()?));
        let (key, salt) = (usize::from(r.u16()?), usize::from(r.u16()?));
        let secret = SecretPayload {
            direction,
            zone,
            encr,
            key: Secret::copy(r.bytes(key)?),
            salt: Secret::copy(r.bytes(salt)?),
        };
        r.end()?;
        Ok(secret)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put(&[u8::from(self.direction == Direction::In), self.zone]);
        out.put_u16(self.encr.0);
        out.put_u16(len16(self.key.len()));
        out.put_u16(len16(self.salt.len()));
        out.put(self.key.expose());
        out.put(self.salt.expose());
    }
}

const MAY_WRITE: u32 = 1;
const STANDBY: u32 = 2;

/// CSA Identity: which CSA, and where it stands (docs/wire.md 1.7c, 3.1c).
///
/// `in` and `out` are named from the sender in a child negotiation or claim, from the distributor in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CsaIdentity {
    /// Which CSA of its pair of hosts; later ones are greater.
    pub generation: u32,
    /// Transport or tunnel.
    pub mode: Mode,
    /// The relay's own number under this CSA, 15 bits.
    pub relay_number: u16,
    /// The SPI of packets to the sender.
    pub spi_in: u32,
    /// The SPI of packets from the sender.
    pub spi_out: u32,
    /// In packets.
    pub replay_window: u32,
    /// The last sequence number seen.
    pub sequence_in: u64,
    /// The last sequence number sealed.
    pub sequence_out: u64,
    /// Hard life-time left, in seconds; 0 for none.
    pub lifetime: u32,
    /// Whether a relay may rewrite zone 1.
    pub may_write: bool,
    /// Not to be used before its host registers.
    pub standby: bool,
    /// The outer source (the distributor's side).
    pub source: IpAddr,
    /// The outer destination, of the same family.
    pub destination: IpAddr,
}

impl CsaIdentity {
    pub(super) fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let generation = r.u32()?;
        let mode = match r.u8()? {
            1 => Mode::Transport,
            2 => Mode::Tunnel,
            _ => return Err(Error::Value("CSA's mode")),
        };
        r.u8()?;
        let relay_number = r.u16()?;
        if relay_number > pfkey::Relay::NUMBER_MAX {
            return Err(Error::Value("relay number"));
        }
        let (spi_in, spi_out) = (r.u32()?, r.u32()?);
        let replay_window = r.u32()?;
        r.u32()?;
        let (sequence_in, sequence_out) = (r.u64()?, r.u64()?);
        let (lifetime, flags) = (r.u32()?, r.u32()?);
        let family = r.u8()?;
        r.bytes(3)?;
        let (source, destination) = (r.address(family)?, r.address(family)?);
        r.end()?;
        Ok(CsaIdentity {
            generation,
            mode,
            relay_number,
            spi_in,
            spi_out,
            replay_window,
            sequence_in,
            sequence_out,
            lifetime,
            may_write: flags & MAY_WRITE != 0,
            standby: flags & STANDBY != 0,
            source,
            destination,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation);
        out.put(&[mode_number(self.mode), 0]);
        out.put_u16(self.relay_number);
        out.put_u32(self.spi_in);
        out.put_u32(self.spi_out);
        out.put_u32(self.replay_window);
        out.put_u32(0);
        out.put_u64(self.sequence_in);
        out.put_u64(self.sequence_out);
        out.put_u32(self.lifetime);
        let mut flags = 0;
        if self.may_write {
            flags |= MAY_WRITE;
        }
        if self.standby {
            flags |= STANDBY;
        }
        out.put_u32(flags);
        out.put(&[family(self.source), 0, 0, 0]);
        out.put(&wide(self.source));
        out.put(&wide(self.destination));
    }
}

/// What became of one group of CSA_DISTRIBUTE (docs/wire.md 3.1d).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum GroupStatus {
    /// Taken.
    Accepted,
    /// The sender may not give it, or not for that home address.
    Refused,
    /// A later one was revoked already.
    Revoked,
    /// It contradicts itself, or uses what isn't spoken here.
    Malformed,
    /// There is no room.
    Full,
    /// A number from a later version; not taken.
    Other(u16),
}

impl GroupStatus {
    const NAMED: [(u16, GroupStatus); 5] = [
        (0, GroupStatus::Accepted),
        (1, GroupStatus::Refused),
        (2, GroupStatus::Revoked),
        (3, GroupStatus::Malformed),
        (4, GroupStatus::Full),
    ];

    fn from_number(number: u16) -> Self {
        let named = Self::NAMED.iter().find(|(n, _)| *n == number);
        named.map_or(GroupStatus::Other(number), |(_, status)| *status)
    }

    fn number(self) -> u16 {
        match self {
            GroupStatus::Other(number) => number,
            named => Self::NAMED
                .iter()
                .find(|(_, status)| *status == named)
                .map_or(u16::MAX, |(number, _)| *number),
        }
    }
}

/// A neighbouring FA (docs/wire.md 3.1e).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Who it is to IKE.
    pub identity: Id,
}

/// Which CSA a relay shall forget (docs/wire.md 3.1g).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Revocation {
    /// The SPI towards the outer destination.
    pub spi: u32,
    /// The outer destination.
    pub destination: IpAddr,
    /// This one and those before it.
    pub generation: u32,
}

/// CSA_REQUEST and CSA_HANDOVER: what the new FA says (docs/wire.md 3.1f, 3.1h).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The host that moved.
    pub home: IpAddr,
    /// Where it is now.
    pub care_of: IpAddr,
    /// Its registration's Identification (RFC 5944 §3.3).
    pub identification: u64,
    /// Its proof that it wanted this (docs/wire.md 3.2i); none from the HA.
    pub token: Secret,
    /// What had arrived at the host by then, of up to [`MAX_STATES`] CSAs (docs/wire.md 3.1h).
    pub seen: Vec<Seen>,
}

/// The last packet that a host has seen of a CSA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The CSA's SPI towards the host.
    pub spi: u32,
    /// The packet's sequence number, all 64 bits.
    pub number: u64,
}

/// CSA Data: what a CSA exchange says beside Zone Map, SECRET and CSA Identity (docs/wire.md 3.1j).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CsaData {
    /// One status a group, in the groups' order.
    Status(Vec<GroupStatus>),
    /// NEIGHBOR_NOTIFY.
    Neighbours(Vec<Neighbour>),
    /// CSA_REQUEST, CSA_HANDOVER.
    Ask(Ask),
    /// CSA_REVOKE: what to drop, and in the answer what was dropped.
    Revoke(Vec<Revocation>),
    /// SNOOP's state, of each CSA to the host (docs/wire.md 3.1h).
    SnoopStates(Vec<SnoopState>),
    /// CSA_DISTRIBUTE: the key of a group of neighbours (docs/wire.md 3.3a).
    GroupKey(GroupKey),
    /// CSA_REPORT.
    Report(Vec<Report>),
}

/// What SNOOP knew of a CSA's flows where a host was before, as the module wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnoopState {
    /// The CSA's SPI towards the host.
    pub spi: u32,
    /// Its flows (docs/wire.md 3.4a), [`pfkey::MAX_SNOOP_STATE`] octets at most.
    pub flows: Secret,
}

/// Neighbours, or groups, in one message (docs/wire.md 3.1d, 3.1e).
pub const MAX_GROUPS: usize = 32;
const MAX_REVOCATIONS: usize = 1024;
/// CSAs whose flows' states go in one message: 20 KiB in all, which the 64 fragments that are put together hold whatever
/// the path carries (RFC 7383 §2.5).
pub const MAX_STATES: usize = 8;

impl CsaData {
    pub(super) fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let kind = r.u8()?;
        r.u8()?;
        let count = usize::from(r.u16()?);
        let most = match kind {
            4 => MAX_REVOCATIONS,
            5 => MAX_STATES,
            _ => MAX_GROUPS,
        };
        if count > most {
            return Err(Error::TooMany("entries"));
        }
        let data = match kind {
            1 => {
                let list: Result<_, Error> = (0..count)
                    .map(|_| r.u16().map(GroupStatus::from_number))
                    .collect();
                CsaData::Status(list?)
            }
            2 => {
                let list: Result<_, Error> = (0..count).map(|_| neighbour(&mut r)).collect();
                CsaData::Neighbours(list?)
            }
            3 if count == 1 => {
                let family = r.u8()?;
                let seen = usize::from(r.u8()?);
                let token = usize::from(r.u16()?);
                if seen > MAX_STATES {
                    return Err(Error::TooMany("CSAs of which packets were seen"));
                }
                CsaData::Ask(Ask {
                    home: r.address(family)?,
                    care_of: r.address(family)?,
                    identification: r.u64()?,
                    token: Secret::copy(r.bytes(token)?),
                    seen: (0..seen)
                        .map(|_| seen_of(&mut r))
                        .collect::<Result<_, _>>()?,
                })
            }
            4 => {
                let list: Result<_, Error> = (0..count).map(|_| revocation(&mut r)).collect();
                CsaData::Revoke(list?)
            }
            5 => {
                let list: Result<_, Error> = (0..count).map(|_| snoop_state(&mut r)).collect();
                CsaData::SnoopStates(list?)
            }
            6 if count == 1 => CsaData::GroupKey(GroupKey::decode(&mut r)?),
            7 => {
                let list: Result<_, Error> = (0..count).map(|_| Report::decode(&mut r)).collect();
                CsaData::Report(list?)
            }
            _ => return Err(Error::Value("CSA data's kind")),
        };
        r.end()?;
        Ok(data)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, count) = match self {
            CsaData::Status(list) => (1, list.len()),
            CsaData::Neighbours(list) => (2, list.len()),
            CsaData::Ask(_) => (3, 1),
            CsaData::Revoke(list) => (4, list.len()),
            CsaData::SnoopStates(list) => (5, list.len()),
            CsaData::GroupKey(_) => (6, 1),
            CsaData::Report(list) => (7, list.len()),
        };
        out.put(&[kind, 0]);
        out.put_u16(len16(count));
        match self {
            CsaData::Status(list) => list.iter().for_each(|s| out.put_u16(s.number())),
            CsaData::Neighbours(list) => {
                for n in list {
                    out.put(&[family(n.address), n.identity.kind.0]);
                    out.put_u16(len16(n.identity.data.len()));
                    out.put(&wide(n.address));
                    out.put(&n.identity.data);
                }
            }
            CsaData::Ask(ask) => {
                let seen = ask.seen.iter().take(MAX_STATES);
                out.put(&[family(ask.home), seen.len() as u8]);
                out.put_u16(len16(ask.token.len()));
                out.put(&wide(ask.home));
                out.put(&wide(ask.care_of));
                out.put_u64(ask.identification);
                out.put(ask.token.expose());
                for one in seen {
                    out.put_u32(one.spi);
                    out.put_u64(one.number);
                }
            }
            CsaData::Revoke(list) => {
                for r in list {
                    out.put_u32(r.spi);
                    out.put_u32(r.generation);
                    out.put(&[family(r.destination), 0, 0, 0]);
                    out.put(&wide(r.destination));
                }
            }
            CsaData::SnoopStates(list) => {
                for state in list {
                    out.put_u32(state.spi);
                    out.put_u16(len16(state.flows.len()));
                    out.put_u16(0);
                    out.put(state.flows.expose());
                }
            }
            CsaData::GroupKey(key) => key.encode(out),
            CsaData::Report(list) => list.iter().for_each(|report| report.encode(out)),
        }
    }
}

fn neighbour(r: &mut Reader<'_>) -> Result<Neighbour, Error> {
    let (family, kind) = (r.u8()?, IdType(r.u8()?));
    let len = usize::from(r.u16()?);
    Ok(Neighbour {
        address: r.address(family)?,
        identity: Id {
            kind,
            data: r.bytes(len)?.to_vec(),
        },
    })
}

fn seen_of(r: &mut Reader<'_>) -> Result<Seen, Error> {
    Ok(Seen {
        spi: r.u32()?,
        number: r.u64()?,
    })
}

fn snoop_state(r: &mut Reader<'_>) -> Result<SnoopState, Error> {
    let (spi, len) = (r.u32()?, usize::from(r.u16()?));
    r.u16()?;
    if len > pfkey::MAX_SNOOP_STATE {
        return Err(Error::TooMany("octets of SNOOP's state"));
    }
    Ok(SnoopState {
        spi,
        flows: Secret::copy(r.bytes(len)?),
    })
}

fn revocation(r: &mut Reader<'_>) -> Result<Revocation, Error> {
    let (spi, generation, family) = (r.u32()?, r.u32()?, r.u8()?);
    r.bytes(3)?;
    Ok(Revocation {
        spi,
        destination: r.address(family)?,
        generation,
    })
}
