// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The extensions behind a message's fixed part (RFC 5944 §1.8 to 1.11, §3.5).
//!
//! Their order says whom they are for: what stands before the Mobile-Home authentication is under it and reaches the
//! home agent; what the mobile node adds behind it is for the foreign agent, which takes it off before relaying.

use crate::error::{DecodeError, EncodeError};
use crate::number::{extension as number, ARRIVED, ORGANISATION, PREVIOUS_FA};
use crate::octets::{Put, Reader};
use std::net::Ipv4Addr;

/// Between whom an authenticator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pair {
    /// Mobile node and home agent.
    MobileHome,
    /// Mobile node and foreign agent.
    MobileForeign,
    /// Foreign agent and home agent.
    ForeignHome,
}

impl Pair {
    /// The extension's type.
    pub fn number(self) -> u8 {
        match self {
            Pair::MobileHome => number::MOBILE_HOME,
            Pair::MobileForeign => number::MOBILE_FOREIGN,
            Pair::ForeignHome => number::FOREIGN_HOME,
        }
    }
}

/// One extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension<'a> {
    /// An octet of padding.
    Pad,
    /// An authenticator over everything before it and its own type, length and SPI.
    Authentication {
        /// Between whom.
        pair: Pair,
        /// Which of their associations; 0 to 255 are reserved (RFC 5944 §1.6).
        spi: u32,
        /// The keyed hash.
        authenticator: &'a [u8],
    },
    /// The mobile node encapsulates what it sends to the foreign agent (RFC 3024 §3.3).
    EncapsulatingDelivery,
    /// A vendor's extension that must be understood.
    CriticalVendor {
        /// SMI private enterprise number.
        organisation: u32,
        /// The vendor's own type.
        kind: u16,
        /// Its content.
        value: &'a [u8],
    },
    /// Another vendor's extension that may be skipped.
    NormalVendor {
        /// SMI private enterprise number.
        organisation: u32,
        /// The vendor's own type.
        kind: u16,
        /// Its content.
        value: &'a [u8],
    },
    /// The previous foreign agent, for DKM (docs/wire.md §4).
    PreviousFa(PreviousFa<'a>),
    /// What has arrived at the home agent, in a reply (docs/wire.md 4e; [`Seen::list`]).
    Arrived(&'a [u8]),
    /// The agent speaks RFC 3543.
    RevocationSupport(RevocationSupport),
    /// A type of 128 and above that means nothing here.
    Skipped {
        /// Its type.
        kind: u8,
        /// Its content.
        value: &'a [u8],
    },
}

/// The previous-FA extension's content (docs/wire.md 4b).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousFa<'a> {
    /// The care-of address the mobile node had there.
    pub address: Ipv4Addr,
    /// Proof for the previous foreign agent ([`crate::HandoverKey`]); empty where the mobile node has no key for it.
    pub token: &'a [u8],
    /// What has arrived at the mobile node ([`Seen::list`]).
    pub seen: &'a [u8],
}

impl PreviousFa<'_> {
    /// What has arrived at the mobile node.
    pub fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        Seen::read_list(self.seen)
    }
}

/// The last packet that a mobile node, or its home agent, has seen of a composite SA: what was sent later hasn't arrived
/// (docs/wire.md 4d, 4e).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The CSA's SPI towards who has seen it.
    pub spi: u32,
    /// The packet's sequence number, all 64 bits.
    pub number: u64,
}

impl Seen {
    /// Octets of one.
    const LEN: usize = 12;
    /// CSAs of which a message tells, at most.
    pub const MOST: usize = 8;

    fn read(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        Some(Seen {
            spi: reader.u32()?,
            number: reader.u64()?,
        })
    }

    /// Those of a list.
    fn read_list(octets: &[u8]) -> impl Iterator<Item = Self> + '_ {
        octets.chunks_exact(Seen::LEN).filter_map(Seen::read)
    }

    /// Whether octets are a list.
    fn is_list(octets: &[u8]) -> bool {
        octets.len() % Seen::LEN == 0 && octets.len() <= Seen::MOST * Seen::LEN
    }

    /// Several as the extension has them: of the first [`Seen::MOST`], SPI (32) and number (64) each.
    pub fn list(of: &[Seen]) -> Vec<u8> {
        let mut out = Vec::with_capacity(of.len() * Seen::LEN);
        for one in of.iter().take(Seen::MOST) {
            out.u32(one.spi);
            out.u64(one.number);
        }
        out
    }
}

/// Revocation Support extension (RFC 3543 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationSupport {
    /// `I`: the agent heeds the revocation's `I` bit.
    pub inform: bool,
    /// The agent's time, in whole seconds of NTP: what it revokes later carries a higher one.
    pub timestamp: u32,
}

const INFORM: u16 = 0x8000;

impl<'a> Extension<'a> {
    /// The extension's type.
    pub fn number(&self) -> u8 {
        match self {
            Extension::Pad => number::PAD,
            Extension::Authentication { pair, .. } => pair.number(),
            Extension::EncapsulatingDelivery => number::ENCAPSULATING_DELIVERY,
            Extension::CriticalVendor { .. } => number::CRITICAL_VENDOR,
            Extension::NormalVendor { .. } | Extension::PreviousFa(_) | Extension::Arrived(_) => {
                number::NORMAL_VENDOR
            }
            Extension::RevocationSupport(_) => number::REVOCATION_SUPPORT,
            Extension::Skipped { kind, .. } => *kind,
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = reader.u8().ok_or(DecodeError::Short)?;
        let wrong = DecodeError::Length(kind);
        match kind {
            number::PAD => return Ok(Extension::Pad),
            number::CRITICAL_VENDOR => return Extension::critical(reader).ok_or(wrong),
            _ => {}
        }
        let len = reader.u8().ok_or(wrong)?;
        let value = reader.bytes(usize::from(len)).ok_or(wrong)?;
        let mut body = Reader::new(value);
        match kind {
            number::MOBILE_HOME => Extension::authentication(Pair::MobileHome, body),
            number::MOBILE_FOREIGN => Extension::authentication(Pair::MobileForeign, body),
            number::FOREIGN_HOME => Extension::authentication(Pair::ForeignHome, body),
            number::ENCAPSULATING_DELIVERY => {
                value.is_empty().then_some(Extension::EncapsulatingDelivery)
            }
            number::NORMAL_VENDOR => Extension::normal(&mut body),
            number::REVOCATION_SUPPORT => Extension::support(&mut body),
            ..number::SKIPPABLE => return Err(DecodeError::Unknown(kind)),
            _ => Some(Extension::Skipped { kind, value }),
        }
        .ok_or(wrong)
    }

    fn authentication(pair: Pair, mut body: Reader<'a>) -> Option<Self> {
        let spi = body.u32()?;
        let authenticator = body.rest();
        (!authenticator.is_empty()).then_some(Extension::Authentication {
            pair,
            spi,
            authenticator,
        })
    }

    fn critical(reader: &mut Reader<'a>) -> Option<Self> {
        reader.u8()?;
        let len = reader.u16()?;
        let mut body = Reader::new(reader.bytes(usize::from(len))?);
        Some(Extension::CriticalVendor {
            organisation: body.u32()?,
            kind: body.u16()?,
            value: body.rest(),
        })
    }

    fn normal(body: &mut Reader<'a>) -> Option<Self> {
        body.u16()?;
        let organisation = body.u32()?;
        let kind = body.u16()?;
        match (organisation, kind) {
            (ORGANISATION, PREVIOUS_FA) => {
                let address = body.address()?;
                let len = body.u16()?;
                let token = body.bytes(usize::from(len))?;
                let seen = body.rest();
                Seen::is_list(seen).then_some(Extension::PreviousFa(PreviousFa {
                    address,
                    token,
                    seen,
                }))
            }
            (ORGANISATION, ARRIVED) => {
                let arrived = body.rest();
                Seen::is_list(arrived).then_some(Extension::Arrived(arrived))
            }
            _ => Some(Extension::NormalVendor {
                organisation,
                kind,
                value: body.rest(),
            }),
        }
    }

    fn support(body: &mut Reader<'a>) -> Option<Self> {
        let flags = body.u16()?;
        let timestamp = body.u32()?;
        body.is_empty()
            .then_some(Extension::RevocationSupport(RevocationSupport {
                inform: flags & INFORM != 0,
                timestamp,
            }))
    }

    /// Writes it. A [`Extension::Skipped`] or vendor's extension that is one of the others by its numbers is read back as that one.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = self.number();
        let long = EncodeError::Long(kind);
        out.u8(kind);
        let start = out.len();
        match self {
            Extension::Pad => return Ok(()),
            Extension::CriticalVendor {
                organisation,
                kind,
                value,
            } => {
                out.u8(0);
                out.u16(u16::try_from(value.len() + 6).map_err(|_| long)?);
                out.u32(*organisation);
                out.u16(*kind);
                out.extend_from_slice(value);
                return Ok(());
            }
            _ => out.u8(0),
        }
        match self {
            Extension::Authentication {
                spi, authenticator, ..
            } => {
                out.u32(*spi);
                out.extend_from_slice(authenticator);
            }
            Extension::NormalVendor {
                organisation,
                kind,
                value,
            } => {
                out.u16(0);
                out.u32(*organisation);
                out.u16(*kind);
                out.extend_from_slice(value);
            }
            Extension::PreviousFa(previous) => {
                out.u16(0);
                out.u32(ORGANISATION);
                out.u16(PREVIOUS_FA);
                out.address(previous.address);
                out.u16(u16::try_from(previous.token.len()).map_err(|_| long)?);
                out.extend_from_slice(previous.token);
                out.extend_from_slice(previous.seen);
            }
            Extension::Arrived(seen) => {
                out.u16(0);
                out.u32(ORGANISATION);
                out.u16(ARRIVED);
                out.extend_from_slice(seen);
            }
            Extension::RevocationSupport(support) => {
                out.u16(if support.inform { INFORM } else { 0 });
                out.u32(support.timestamp);
            }
            Extension::Skipped { value, .. } => out.extend_from_slice(value),
            Extension::Pad
            | Extension::EncapsulatingDelivery
            | Extension::CriticalVendor { .. } => {}
        }
        out[start] = u8::try_from(out.len() - start - 1).map_err(|_| long)?;
        Ok(())
    }
}

/// An extension and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its first octet, counted from the message's.
    pub start: usize,
    /// The octet behind it.
    pub end: usize,
    /// What it says.
    pub extension: Extension<'a>,
}

/// An authentication extension with what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// Which association.
    pub spi: u32,
    /// The octets it is over: from the message's first one to the SPI's last.
    pub covered: &'a [u8],
    /// The keyed hash.
    pub authenticator: &'a [u8],
    /// Where the extension begins.
    pub start: usize,
    /// The octet behind it.
    pub end: usize,
}

/// All extensions of a message, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extensions<'a> {
    octets: &'a [u8],
    items: Vec<Item<'a>>,
}

impl<'a> Extensions<'a> {
    /// Reads the extensions of a message behind its fixed part of so many octets.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Unknown`]: to be discarded in silence. [`DecodeError::Length`]: poorly formed.
    /// [`DecodeError::Twice`]: an authentication extension, the previous-FA, the arrived or the support extension stands twice.
    pub fn parse(octets: &'a [u8], fixed_len: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets.get(fixed_len..).ok_or(DecodeError::Short)?);
        let mut items: Vec<Item<'a>> = Vec::new();
        while !reader.is_empty() {
            let start = octets.len() - reader.left();
            let extension = Extension::read(&mut reader)?;
            let once = matches!(
                extension,
                Extension::Authentication { .. }
                    | Extension::PreviousFa(_)
                    | Extension::Arrived(_)
                    | Extension::RevocationSupport(_)
            );
            let same = std::mem::discriminant(&extension);
            if once
                && items.iter().any(|item| {
                    item.extension.number() == extension.number()
                        && std::mem::discriminant(&item.extension) == same
                })
            {
                return Err(DecodeError::Twice(extension.number()));
            }
            items.push(Item {
                start,
                end: octets.len() - reader.left(),
                extension,
            });
        }
        Ok(Extensions { octets, items })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter()
    }

    /// The authentication extension of this pair.
    pub fn authentication(&self, of: Pair) -> Option<Authentication<'a>> {
        self.items.iter().find_map(|item| match item.extension {
            Extension::Authentication {
                pair,
                spi,
                authenticator,
            } if pair == of => Some(Authentication {
                spi,
                covered: &self.octets[..item.end - authenticator.len()],
                authenticator,
                start: item.start,
                end: item.end,
            }),
            _ => None,
        })
    }

    /// The previous-FA extension, if it stands under the Mobile-Home authentication; elsewhere it proves nothing.
    pub fn previous_fa(&self) -> Option<PreviousFa<'a>> {
        let cover = self.authentication(Pair::MobileHome)?;
        self.items.iter().find_map(|item| match item.extension {
            Extension::PreviousFa(previous) if item.end <= cover.start => Some(previous),
            _ => None,
        })
    }

    /// What has arrived at the home agent, if it stands under the Mobile-Home authentication.
    pub fn arrived(&self) -> impl Iterator<Item = Seen> + use<'a> {
        let cover = self.authentication(Pair::MobileHome);
        let list = cover.and_then(|cover| {
            self.items.iter().find_map(|item| match item.extension {
                Extension::Arrived(list) if item.end <= cover.start => Some(list),
                _ => None,
            })
        });
        Seen::read_list(list.unwrap_or_default())
    }

    /// The Revocation Support extension, if it stands under the Foreign-Home authentication (RFC 3543 §3.2).
    pub fn revocation_support(&self) -> Option<RevocationSupport> {
        let cover = self.authentication(Pair::ForeignHome)?;
        self.items.iter().find_map(|item| match item.extension {
            Extension::RevocationSupport(support) if item.end <= cover.start => Some(support),
            _ => None,
        })
    }

    /// Whether the mobile node would encapsulate to the foreign agent.
    pub fn encapsulating_delivery(&self) -> bool {
        self.items
            .iter()
            .any(|item| item.extension == Extension::EncapsulatingDelivery)
    }

    /// Where critical vendor extensions stand; none is known here.
    pub fn critical_vendors<'b>(&'b self) -> impl Iterator<Item = usize> + use<'a, 'b> {
        let critical =
            |item: &&Item<'a>| matches!(item.extension, Extension::CriticalVendor { .. });
        self.items.iter().filter(critical).map(|item| item.start)
    }
}
