// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The IKE header (RFC 7296 §3.1): 28 octets.

use super::reader::{Put, Reader};
use super::{Error, ExchangeType, PayloadType};

/// Octets of the header.
pub const HEADER_LEN: usize = 28;
/// Octets of a payload's generic header (RFC 7296 §3.2).
pub const PAYLOAD_HEADER_LEN: usize = 4;

const VERSION: u8 = 0x20;
const INITIATOR: u8 = 0x08;
const HIGHER_VERSION: u8 = 0x10;
const RESPONSE: u8 = 0x20;

/// What stands before the payloads, apart from their lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The SPI the original initiator chose.
    pub spi_i: u64,
    /// The SPI the original responder chose; 0 in the first request.
    pub spi_r: u64,
    /// What the exchange is for.
    pub exchange: ExchangeType,
    /// Whether the sender is the original initiator of this IKE SA.
    pub from_initiator: bool,
    /// Whether it answers a request.
    pub response: bool,
    /// Which exchange of its direction this is, from 0.
    pub message_id: u32,
}

impl Header {
    /// The header in front of `octets`, and the type of the first payload.
    ///
    /// # Errors
    /// [`Error::Version`] for another major version, [`Error::Length`] when the datagram isn't as long as it says.
    pub fn decode(octets: &[u8]) -> Result<(Header, PayloadType), Error> {
        let mut r = Reader::new(octets);
        let (spi_i, spi_r) = (r.u64()?, r.u64()?);
        let first = PayloadType(r.u8()?);
        let version = r.u8()?;
        let exchange = ExchangeType(r.u8()?);
        let flags = r.u8()?;
        let message_id = r.u32()?;
        let length = r.u32()?;
        let header = Header {
            spi_i,
            spi_r,
            exchange,
            from_initiator: flags & INITIATOR != 0,
            response: flags & RESPONSE != 0,
            message_id,
        };
        // A greater minor version is read as ours (§2.5).
        if version >> 4 != VERSION >> 4 {
            return Err(Error::Version(version >> 4));
        }
        if usize::try_from(length) != Ok(octets.len()) {
            return Err(Error::Length);
        }
        if spi_i == 0 {
            return Err(Error::Value("initiator's SPI"));
        }
        Ok((header, first))
    }

    /// The 28 octets in front of a message of `length` octets, this header's among them.
    pub fn encode(&self, first: PayloadType, length: usize) -> [u8; HEADER_LEN] {
        let mut flags = 0;
        if self.from_initiator {
            flags |= INITIATOR;
        }
        if self.response {
            flags |= RESPONSE;
        }
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put_u64(self.spi_i);
        out.put_u64(self.spi_r);
        out.put(&[first.0, VERSION, self.exchange.0, flags & !HIGHER_VERSION]);
        out.put_u32(self.message_id);
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&out);
        header
    }
}
