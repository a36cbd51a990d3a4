// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The SA payload: proposals of transforms with attributes (RFC 7296 §3.3).

use super::reader::{len16, len8, Put, Reader};
use super::{Encr, Error, Group, Prf, ProtocolId, TransformType};

const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
const KEY_LENGTH: u16 = 14;
const FIXED: u16 = 0x8000;
/// Nobody offers more; a peer that does is making work.
const MAX_PROPOSALS: usize = 64;
const MAX_TRANSFORMS: usize = 255;

/// One algorithm on offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Its number within that kind.
    pub id: u16,
    /// Key length in bits, for algorithms that have several.
    pub key_bits: Option<u16>,
    /// It has an attribute nobody here knows, so it cannot be chosen (§3.3.6).
    pub unknown_attribute: bool,
}

impl Transform {
    /// One without attributes.
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Transform {
            kind,
            id,
            key_bits: None,
            unknown_attribute: false,
        }
    }

    /// Encryption. ChaCha20-Poly1305 has one key length, and no attribute for it (RFC 7634 §4).
    pub const fn encr(encr: Encr, key_bits: Option<u16>) -> Self {
        Transform {
            key_bits,
            ..Transform::new(TransformType::ENCR, encr.0)
        }
    }

    /// A pseudorandom function.
    pub const fn prf(prf: Prf) -> Self {
        Transform::new(TransformType::PRF, prf.0)
    }

    /// A key exchange method.
    pub const fn ke(group: Group) -> Self {
        Transform::new(TransformType::KE, group.0)
    }

    /// Extended sequence numbers, or not.
    pub const fn esn(extended: bool) -> Self {
        Transform::new(TransformType::ESN, extended as u16)
    }
}

/// Transforms one of each kind of which makes a suite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// From 1, each one more than the one before.
    pub number: u8,
    /// What the suite is for.
    pub protocol: ProtocolId,
    /// The sender's SPI: none, 4 octets (ESP) or 8 (IKE).
    pub spi: Vec<u8>,
    /// What there is to choose from.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The transforms of one kind.
    pub fn of(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |t| t.kind == kind)
    }
}

pub(crate) fn decode(mut r: Reader<'_>) -> Result<Vec<Proposal>, Error> {
    let mut proposals = Vec::new();
    loop {
        let last = r.u8()?;
        r.u8()?;
        let length = usize::from(r.u16()?);
        let body = length.checked_sub(4).ok_or(Error::Length)?;
        proposals.push(proposal(r.part(body)?)?);
        match last {
            LAST => break,
            MORE_PROPOSALS if proposals.len() < MAX_PROPOSALS => {}
            MORE_PROPOSALS => return Err(Error::TooMany("proposals")),
            _ => return Err(Error::Value("proposal's last field")),
        }
    }
    r.end()?;
    Ok(proposals)
}

fn proposal(mut r: Reader<'_>) -> Result<Proposal, Error> {
    let number = r.u8()?;
    let protocol = ProtocolId(r.u8()?);
    let (spi_len, count) = (usize::from(r.u8()?), usize::from(r.u8()?));
    let spi = r.bytes(spi_len)?.to_vec();
    let mut transforms = Vec::with_capacity(count);
    for left in (0..count).rev() {
        let last = r.u8()?;
        if (last == LAST) != (left == 0) || (last != LAST && last != MORE_TRANSFORMS) {
            return Err(Error::Value("transform's last field"));
        }
        r.u8()?;
        let length = usize::from(r.u16()?);
        transforms.push(transform(
            r.part(length.checked_sub(4).ok_or(Error::Length)?)?,
        )?);
    }
    r.end()?;
    Ok(Proposal {
        number,
        protocol,
        spi,
        transforms,
    })
}

fn transform(mut r: Reader<'_>) -> Result<Transform, Error> {
    let kind = TransformType(r.u8()?);
    r.u8()?;
    let mut transform = Transform::new(kind, r.u16()?);
    while !r.is_empty() {
        let (attribute, value) = (r.u16()?, r.u16()?);
        if attribute & FIXED == 0 {
            r.bytes(usize::from(value))?;
        }
        if attribute == FIXED | KEY_LENGTH {
            transform.key_bits = Some(value);
        } else {
            transform.unknown_attribute = true;
        }
    }
    Ok(transform)
}

pub(crate) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (left, proposal) in (0..proposals.len()).rev().zip(proposals) {
        let mut body = Vec::new();
        body.put(&[
            proposal.number,
            proposal.protocol.0,
            len8(proposal.spi.len()),
            len8(proposal.transforms.len()),
        ]);
        body.put(&proposal.spi);
        let count = proposal.transforms.len().min(MAX_TRANSFORMS);
        for (left, t) in (0..count).rev().zip(&proposal.transforms) {
            let mut attributes = Vec::new();
            if let Some(bits) = t.key_bits {
                attributes.put_u16(FIXED | KEY_LENGTH);
                attributes.put_u16(bits);
            }
            if t.unknown_attribute {
                // What it was is not kept, only that it was there.
                attributes.put_u16(FIXED | 0x7FFF);
                attributes.put_u16(0);
            }
            body.put(&[if left == 0 { LAST } else { MORE_TRANSFORMS }, 0]);
            body.put_u16(len16(8 + attributes.len()));
            body.put(&[t.kind.0, 0]);
            body.put_u16(t.id);
            body.put(&attributes);
        }
        out.put(&[if left == 0 { LAST } else { MORE_PROPOSALS }, 0]);
        out.put_u16(len16(4 + body.len()));
        out.put(&body);
    }
}
