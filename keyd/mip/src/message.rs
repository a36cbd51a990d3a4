// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The fixed parts of the messages on UDP port 434. What follows them is in [`crate::extension`].

use crate::code::Code;
use crate::error::DecodeError;
use crate::number::message as number;
use crate::octets::{Put, Reader};
use std::net::Ipv4Addr;

/// 64 bits that tell a request from every other, and match the reply to it (RFC 5944 §5.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identification(pub u64);

impl Identification {
    /// From its halves.
    pub fn new(high: u32, low: u32) -> Self {
        Identification(u64::from(high) << 32 | u64::from(low))
    }

    /// The home agent's half with nonces, and whole seconds with timestamps.
    pub fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The half that a reply repeats, whatever else it says.
    pub fn low(self) -> u32 {
        self.0 as u32
    }
}

/// The bits of a Registration Request. Unused ones are kept as they came and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestFlags(pub u8);

impl RequestFlags {
    /// `S`: keep the bindings there are.
    pub const SIMULTANEOUS: u8 = 0x80;
    /// `B`: broadcasts of the home network, too.
    pub const BROADCAST: u8 = 0x40;
    /// `D`: the mobile node opens the tunnel itself.
    pub const DECAPSULATION: u8 = 0x20;
    /// `M`: minimal encapsulation (RFC 2004).
    pub const MINIMAL: u8 = 0x10;
    /// `G`: GRE.
    pub const GRE: u8 = 0x08;
    /// `T`: a reverse tunnel (RFC 3024).
    pub const REVERSE_TUNNEL: u8 = 0x02;

    /// Whether all these bits are set.
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

/// Registration Request (RFC 5944 §3.3): 24 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub flags: RequestFlags,
    /// Seconds; 0 deregisters, 0xFFFF never ends.
    pub lifetime: u16,
    /// The mobile node's lasting address.
    pub home: Ipv4Addr,
    /// Its home agent's address.
    pub home_agent: Ipv4Addr,
    /// Where the tunnel ends; the home address when everything is deregistered.
    pub care_of: Ipv4Addr,
    /// This request's.
    pub identification: Identification,
}

/// Registration Reply (RFC 5944 §3.4): 20 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub code: Code,
    /// Seconds granted; with code 69 the most that would be.
    pub lifetime: u16,
    /// The mobile node's lasting address.
    pub home: Ipv4Addr,
    /// Its home agent's address.
    pub home_agent: Ipv4Addr,
    /// The low half is the request's.
    pub identification: Identification,
}

/// Registration Revocation (RFC 3543 §3.3): 20 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// `A`: sent by the binding's home agent; else by its foreign agent.
    pub by_home_agent: bool,
    /// `I`: the mobile node is to be told.
    pub inform: bool,
    /// The mobile node's lasting address.
    pub home: Ipv4Addr,
    /// Its home agent's address.
    pub home_agent: Ipv4Addr,
    /// The care-of address.
    pub foreign_agent: Ipv4Addr,
    /// The sender's timestamp, as in the Revocation Support extension.
    pub identifier: u32,
}

/// Registration Revocation Acknowledgment (RFC 3543 §3.4): 12 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationAck {
    /// `I`: the mobile node was told.
    pub informed: bool,
    /// The mobile node's lasting address.
    pub home: Ipv4Addr,
    /// The revocation's.
    pub identifier: u32,
}

/// A message's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Request(Request),
    /// Type 3.
    Reply(Reply),
    /// Type 7.
    Revocation(Revocation),
    /// Type 15.
    RevocationAck(RevocationAck),
}

const FIRST: u16 = 0x8000;
const SECOND: u16 = 0x4000;

impl Message {
    /// Reads the fixed part at the front.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`] and [`DecodeError::Type`].
    pub fn parse(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        let kind = reader.u8().ok_or(DecodeError::Short)?;
        let message = match kind {
            number::REQUEST => Message::request(&mut reader),
            number::REPLY => Message::reply(&mut reader),
            number::REVOCATION => Message::revocation(&mut reader),
            number::REVOCATION_ACK => Message::revocation_ack(&mut reader),
            other => return Err(DecodeError::Type(other)),
        };
        message.ok_or(DecodeError::Short)
    }

    fn request(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Message::Request(Request {
            flags: RequestFlags(reader.u8()?),
            lifetime: reader.u16()?,
            home: reader.address()?,
            home_agent: reader.address()?,
            care_of: reader.address()?,
            identification: Identification(reader.u64()?),
        }))
    }

    fn reply(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Message::Reply(Reply {
            code: Code(reader.u8()?),
            lifetime: reader.u16()?,
            home: reader.address()?,
            home_agent: reader.address()?,
            identification: Identification(reader.u64()?),
        }))
    }

    fn revocation(reader: &mut Reader<'_>) -> Option<Self> {
        reader.u8()?;
        let flags = reader.u16()?;
        Some(Message::Revocation(Revocation {
            by_home_agent: flags & FIRST != 0,
            inform: flags & SECOND != 0,
            home: reader.address()?,
            home_agent: reader.address()?,
            foreign_agent: reader.address()?,
            identifier: reader.u32()?,
        }))
    }

    fn revocation_ack(reader: &mut Reader<'_>) -> Option<Self> {
        reader.u8()?;
        let flags = reader.u16()?;
        Some(Message::RevocationAck(RevocationAck {
            informed: flags & FIRST != 0,
            home: reader.address()?,
            identifier: reader.u32()?,
        }))
    }

    /// Octets of the fixed part.
    pub fn fixed_len(&self) -> usize {
        match self {
            Message::Request(_) => 24,
            Message::Reply(_) | Message::Revocation(_) => 20,
            Message::RevocationAck(_) => 12,
        }
    }

    /// Writes the fixed part.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Message::Request(request) => {
                out.u8(number::REQUEST);
                out.u8(request.flags.0);
                out.u16(request.lifetime);
                out.address(request.home);
                out.address(request.home_agent);
                out.address(request.care_of);
                out.u64(request.identification.0);
            }
            Message::Reply(reply) => {
                out.u8(number::REPLY);
                out.u8(reply.code.0);
                out.u16(reply.lifetime);
                out.address(reply.home);
                out.address(reply.home_agent);
                out.u64(reply.identification.0);
            }
            Message::Revocation(revocation) => {
                out.u8(number::REVOCATION);
                out.u8(0);
                out.u16(bit(revocation.by_home_agent, FIRST) | bit(revocation.inform, SECOND));
                out.address(revocation.home);
                out.address(revocation.home_agent);
                out.address(revocation.foreign_agent);
                out.u32(revocation.identifier);
            }
            Message::RevocationAck(ack) => {
                out.u8(number::REVOCATION_ACK);
                out.u8(0);
                out.u16(bit(ack.informed, FIRST));
                out.address(ack.home);
                out.u32(ack.identifier);
            }
        }
    }
}

fn bit(set: bool, bit: u16) -> u16 {
    if set {
        bit
    } else {
        0
    }
}
