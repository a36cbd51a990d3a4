// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Agent discovery's ICMP messages (RFC 1256, RFC 5944 §2.1): advertisement and solicitation.
//!
//! The octets are ICMP's, from its type on, without the IP header.

use crate::error::{DecodeError, EncodeError};
use crate::number::icmp;
use crate::octets::{Put, Reader};
use std::net::Ipv4Addr;

/// What a mobility agent says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentFlags(pub u16);

impl AgentFlags {
    /// `R`: register through an agent, even with a co-located care-of address.
    pub const REGISTRATION_REQUIRED: u16 = 0x8000;
    /// `B`: takes no more mobile nodes.
    pub const BUSY: u16 = 0x4000;
    /// `H`: a home agent on this link.
    pub const HOME: u16 = 0x2000;
    /// `F`: a foreign agent on this link.
    pub const FOREIGN: u16 = 0x1000;
    /// `M`: minimal encapsulation.
    pub const MINIMAL: u16 = 0x0800;
    /// `G`: GRE.
    pub const GRE: u16 = 0x0400;
    /// `T`: reverse tunnels (RFC 3024).
    pub const REVERSE_TUNNEL: u16 = 0x0100;
    /// `X`: registration revocation (RFC 3543).
    pub const REVOCATION: u16 = 0x0040;

    /// Whether all these bits are set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// Mobility Agent Advertisement Extension (RFC 5944 §2.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobilityAgent {
    /// Advertisements since the agent began; after 0xFFFF comes 256 (§2.3.2).
    pub sequence: u16,
    /// The longest registration it takes, in s.
    pub lifetime: u16,
    /// What it does.
    pub flags: AgentFlags,
    /// Its care-of addresses.
    pub care_of: Vec<Ipv4Addr>,
}

/// A router and how much it would like to be the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterAddress {
    /// Its address on this link.
    pub address: Ipv4Addr,
    /// Higher is preferred.
    pub preference: i32,
}

/// A router advertisement; a mobility agent's if it has the extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// ICMP code: [`icmp::ROUTES_ALL`] or [`icmp::ROUTES_MOBILE`].
    pub code: u8,
    /// How long it holds, in s.
    pub lifetime: u16,
    /// Routers on this link.
    pub routers: Vec<RouterAddress>,
    /// The mobility agent.
    pub agent: Option<MobilityAgent>,
    /// Prefix lengths of the router addresses in bits, one for each; or none.
    pub prefixes: Vec<u8>,
}

impl Advertisement {
    /// The prefix that the first router address is in: network and length. None where the length wasn't said.
    pub fn prefix(&self) -> Option<(Ipv4Addr, u8)> {
        let router = self.routers.first()?;
        let len = *self.prefixes.first()?;
        Some((network(router.address, len)?, len))
    }

    /// Reads an ICMP message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; of an unknown extension below 128, too, as RFC 5944 §1.8 has it.
    pub fn parse(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        let kind = reader.u8().ok_or(DecodeError::Short)?;
        if kind != icmp::ADVERTISEMENT {
            return Err(DecodeError::Type(kind));
        }
        let code = reader.u8().ok_or(DecodeError::Short)?;
        if code != icmp::ROUTES_ALL && code != icmp::ROUTES_MOBILE {
            return Err(DecodeError::IcmpCode(code));
        }
        if checksum(octets) != 0 {
            return Err(DecodeError::Checksum);
        }
        let mut advertisement =
            Advertisement::fixed(code, &mut reader).ok_or(DecodeError::Short)?;
        while !reader.is_empty() {
            advertisement.extension(&mut reader)?;
        }
        Ok(advertisement)
    }

    fn fixed(code: u8, reader: &mut Reader<'_>) -> Option<Self> {
        reader.u16()?;
        let count = reader.u8()?;
        // In 32-bit words; what is beyond two is skipped (RFC 1256 §5).
        let beyond = usize::from(reader.u8()?).checked_sub(2)? * 4;
        let lifetime = reader.u16()?;
        let mut routers = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            routers.push(RouterAddress {
                address: reader.address()?,
                preference: reader.u32()? as i32,
            });
            reader.bytes(beyond)?;
        }
        Some(Advertisement {
            code,
            lifetime,
            routers,
            agent: None,
            prefixes: Vec::new(),
        })
    }

    fn extension(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let kind = reader.u8().ok_or(DecodeError::Short)?;
        if kind == icmp::PAD {
            return Ok(());
        }
        let wrong = DecodeError::Length(kind);
        let len = reader.u8().ok_or(wrong)?;
        let body = reader.bytes(usize::from(len)).ok_or(wrong)?;
        match kind {
            icmp::MOBILITY_AGENT if self.agent.is_some() => Err(DecodeError::Twice(kind)),
            icmp::MOBILITY_AGENT => {
                self.agent = Some(mobility_agent(body).ok_or(wrong)?);
                Ok(())
            }
            icmp::PREFIX_LENGTHS if !self.prefixes.is_empty() => Err(DecodeError::Twice(kind)),
            icmp::PREFIX_LENGTHS => {
                if body.len() != self.routers.len() || body.iter().any(|&len| len > 32) {
                    return Err(wrong);
                }
                self.prefixes = body.to_vec();
                Ok(())
            }
            ..crate::number::extension::SKIPPABLE => Err(DecodeError::Unknown(kind)),
            _ => Ok(()),
        }
    }

    /// Writes the ICMP message.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Long`] with more than 255 routers or 62 care-of addresses.
    pub fn emit(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(48);
        out.u8(icmp::ADVERTISEMENT);
        out.u8(self.code);
        out.u16(0);
        let count = self.routers.len();
        out.u8(u8::try_from(count).map_err(|_| EncodeError::Long(icmp::ADVERTISEMENT))?);
        out.u8(2);
        out.u16(self.lifetime);
        for router in &self.routers {
            out.address(router.address);
            out.u32(router.preference as u32);
        }
        if let Some(agent) = &self.agent {
            let len = u8::try_from(6 + 4 * agent.care_of.len())
                .map_err(|_| EncodeError::Long(icmp::MOBILITY_AGENT))?;
            out.u8(icmp::MOBILITY_AGENT);
            out.u8(len);
            out.u16(agent.sequence);
            out.u16(agent.lifetime);
            out.u16(agent.flags.0);
            for &address in &agent.care_of {
                out.address(address);
            }
        }
        if !self.prefixes.is_empty() {
            out.u8(icmp::PREFIX_LENGTHS);
            out.u8(u8::try_from(self.prefixes.len())
                .map_err(|_| EncodeError::Long(icmp::PREFIX_LENGTHS))?);
            out.extend_from_slice(&self.prefixes);
        }
        seal(&mut out);
        Ok(out)
    }
}

fn mobility_agent(body: &[u8]) -> Option<MobilityAgent> {
    let mut reader = Reader::new(body);
    let (sequence, lifetime) = (reader.u16()?, reader.u16()?);
    let flags = AgentFlags(reader.u16()?);
    let mut care_of = Vec::with_capacity(reader.left() / 4);
    while !reader.is_empty() {
        care_of.push(reader.address()?);
    }
    Some(MobilityAgent {
        sequence,
        lifetime,
        flags,
        care_of,
    })
}

/// An agent solicitation: 8 octets, the same as a router solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation;

impl Solicitation {
    /// Reads an ICMP message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn parse(octets: &[u8]) -> Result<Self, DecodeError> {
        match *octets {
            [icmp::SOLICITATION, 0, _, _, _, _, _, _, ..] if checksum(octets) != 0 => {
                Err(DecodeError::Checksum)
            }
            [icmp::SOLICITATION, 0, _, _, _, _, _, _, ..] => Ok(Solicitation),
            [icmp::SOLICITATION, 0, ..] | [icmp::SOLICITATION] | [] => Err(DecodeError::Short),
            [icmp::SOLICITATION, code, ..] => Err(DecodeError::IcmpCode(code)),
            [kind, ..] => Err(DecodeError::Type(kind)),
        }
    }

    /// Writes the ICMP message.
    pub fn emit() -> Vec<u8> {
        let mut out = vec![icmp::SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        seal(&mut out);
        out
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// Its first address.
    pub network: Ipv4Addr,
    /// How many bits they share, 32 at most.
    pub len: u8,
}

impl Prefix {
    /// Whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        network(address, self.len).is_some_and(|of| Some(of) == network(self.network, self.len))
    }
}

/// The network that an address is in; none with more than 32 bits.
pub(crate) fn network(address: Ipv4Addr, len: u8) -> Option<Ipv4Addr> {
    let host = 32_u32.checked_sub(u32::from(len))?;
    let mask = u32::MAX.checked_shl(host).unwrap_or(0);
    Some(Ipv4Addr::from_bits(address.to_bits() & mask))
}

fn seal(icmp: &mut [u8]) {
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071); 0 over octets that hold a right one.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in octets.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
