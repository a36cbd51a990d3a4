// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The messages of IKEv2 (RFC 7296 §3) and ML-IKE (docs/wire.md §3), octets to types and back.
//!
//! A [`Message`] is what stands in a datagram; what its SK or SKF payload holds is read by [`decode_payloads`] once it is
//! open. Reserved fields are sent as zero and not looked at. Nothing panics, whatever the octets.

mod error;
mod header;
mod multicast;
mod number;
mod payload;
pub(crate) mod reader;
mod sa;
mod ts;
mod zone;

pub use error::Error;
pub use header::{Header, HEADER_LEN, PAYLOAD_HEADER_LEN};
pub use multicast::{GroupKey, MulticastHeader, Report, PUBLIC_KEY_LEN};
pub use number::{
    AuthMethod, CertEncoding, CfgAttribute, CfgType, Encr, ExchangeType, Group, HashAlgorithm,
    IdType, NotifyType, PayloadType, Prf, ProtocolId, TransformType,
};
pub use payload::{
    Auth, Cert, CertReq, Configuration, Delete, Encrypted, EncryptedFragment, Id, KeyExchange,
    Notify, Payload, NONCE_LEN,
};
pub use sa::{Proposal, Transform};
pub use ts::TrafficSelector;
pub use zone::{
    Ask, CsaData, CsaIdentity, Direction, GroupStatus, Neighbour, Revocation, SecretPayload, Seen,
    SnoopState, ZoneMapPayload, ZoneTransform, MAX_GROUPS, MAX_STATES,
};

use reader::{len16, Put, Reader};

const CRITICAL: u8 = 0x80;
/// Payloads in one message. A full CSA_DISTRIBUTE has 7 × 32.
const MAX_PAYLOADS: usize = 512;

/// A message as its datagram has it, sealed payloads still sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What stands in front.
    pub header: Header,
    /// The payloads. SK or SKF, if there, is the last.
    pub payloads: Vec<Payload>,
}

impl Message {
    /// The message these octets are, taken whole or refused whole.
    ///
    /// # Errors
    /// What is wrong with it; [`Error::Critical`] and [`Error::Version`] are answered by their notifications.
    pub fn decode(octets: &[u8]) -> Result<Self, Error> {
        let (header, first) = Header::decode(octets)?;
        let payloads = octets.get(HEADER_LEN..).ok_or(Error::Short)?;
        Ok(Message {
            header,
            // None of ours stands outside SK.
            payloads: chain(first, payloads, false, true)?,
        })
    }

    /// The message's octets.
    pub fn encode(&self) -> Vec<u8> {
        let (first, payloads) = encode_payloads(&self.payloads);
        let mut out = Vec::with_capacity(HEADER_LEN + payloads.len());
        out.put(&self.header.encode(first, HEADER_LEN + payloads.len()));
        out.put(&payloads);
        out
    }
}

/// The payloads SK held. `private` says that the peer knows our payloads: numbers from the private range mean what they
/// mean here only then.
///
/// # Errors
/// What is wrong with them.
pub fn decode_payloads(
    first: PayloadType,
    octets: &[u8],
    private: bool,
) -> Result<Vec<Payload>, Error> {
    chain(first, octets, private, false)
}

fn chain(
    first: PayloadType,
    octets: &[u8],
    private: bool,
    outer: bool,
) -> Result<Vec<Payload>, Error> {
    let mut payloads = Vec::new();
    let mut kind = first;
    let mut r = Reader::new(octets);
    while kind != PayloadType::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(Error::TooMany("payloads"));
        }
        let next = PayloadType(r.u8()?);
        let critical = r.u8()? & CRITICAL != 0;
        let length = usize::from(r.u16()?);
        let body = r.bytes(
            length
                .checked_sub(PAYLOAD_HEADER_LEN)
                .ok_or(Error::Length)?,
        )?;
        let sealed = kind == PayloadType::SK || kind == PayloadType::SKF;
        // Its "next" field is the first payload within (§3.14).
        if sealed && (!outer || !r.is_empty()) {
            return Err(Error::Misplaced);
        }
        payloads.push(Payload::decode(kind, critical, next, body, private)?);
        if sealed {
            break;
        }
        kind = next;
    }
    r.end()?;
    Ok(payloads)
}

/// The payloads' octets, and the type of the first.
pub fn encode_payloads(payloads: &[Payload]) -> (PayloadType, Vec<u8>) {
    let mut out = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        let next = match payload {
            Payload::Encrypted(sk) => sk.first,
            Payload::EncryptedFragment(skf) => skf.first,
            _ => payloads.get(i + 1).map_or(PayloadType::NONE, Payload::kind),
        };
        let start = out.len();
        out.put(&[next.0, 0, 0, 0]);
        payload.encode(&mut out);
        let length = len16(out.len() - start);
        if let Some(field) = out.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
    let first = payloads.first().map_or(PayloadType::NONE, Payload::kind);
    (first, out)
}
