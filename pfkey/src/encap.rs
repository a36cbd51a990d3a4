// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! UDP encapsulation (RFC 3948), what a NAT does to it, and how a CSA moves: X_NAT_T_NEW_MAPPING and MIGRATE.

use crate::address::Address;
use crate::error::Error;
use crate::extension::Extension;
use crate::id::CsaId;
use crate::message::Message;
use crate::number::ext;
use crate::selector::{PortRange, Selector};
use crate::standard::{NatPort, NatType};
use crate::text::Fault;
use crate::writer::Writer;
use crate::zone::CsaExt;

/// `UDP_ENCAP_ESPINUDP` of Linux's `<linux/udp.h>`.
const ESPINUDP: u8 = 2;

/// The UDP ports of a CSA's packets, in their own direction (docs/wire.md 2.2c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encap {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Encap {
    /// Takes it from X_NAT_T_TYPE, X_NAT_T_SPORT and X_NAT_T_DPORT; `None` if none of them is there.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of them is missing, for another type, and for port 0.
    pub fn from_message(message: &Message<'_>) -> Result<Option<Self>, Error> {
        let (kind, sport, dport) = (message.nat_type(), message.nat_sport(), message.nat_dport());
        let (kind, sport, dport) = match (kind, sport, dport) {
            (None, None, None) => return Ok(None),
            (Some(kind), Some(sport), Some(dport)) => (kind.kind, sport.port, dport.port),
            _ => {
                return Err(Error::invalid(
                    c"X_NAT_T_TYPE: it and both ports come together",
                ))
            }
        };
        if kind != ESPINUDP {
            return Err(Error::invalid(c"X_NAT_T_TYPE: not 2, UDP_ENCAP_ESPINUDP"));
        }
        if sport == 0 || dport == 0 {
            return Err(Error::invalid(c"X_NAT_T_SPORT: there is no port 0"));
        }
        Ok(Some(Encap { sport, dport }))
    }

    /// Writes it, if it is there.
    pub fn write(encap: Option<Self>, writer: Writer<'_>) -> Result<Writer<'_>, Error> {
        let Some(Encap { sport, dport }) = encap else {
            return Ok(writer);
        };
        writer
            .extension(&Extension::NatType(NatType { kind: ESPINUDP }))?
            .extension(&Extension::NatSport(NatPort { port: sport }))?
            .extension(&Extension::NatDport(NatPort { port: dport }))
    }
}

/// MIGRATE: a CSA goes on between other outer ends. Beside the CSA's name, SELECTOR has the new ends as whole addresses,
/// and X_NAT_T_* the new ports, if there are any (docs/wire.md 2.2h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrate {
    /// Which CSA, by the ends it has.
    pub id: CsaId,
    /// Its new source.
    pub src: Address,
    /// Its new destination.
    pub dst: Address,
    /// Its new ports.
    pub encap: Option<Encap>,
}

impl Migrate {
    /// Takes it from a MIGRATE.
    ///
    /// # Errors
    ///
    /// As [`CsaId::from_message`]; `EINVAL` where SELECTOR isn't two hosts that a CSA may lie between.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        let id = CsaId::from_message(message)?;
        let ends = message
            .selector()
            .ok_or(Error::extension(ext::SELECTOR, Fault::Missing))?;
        let bits = ends.family.bits();
        // Without a protocol it has no ports either.
        if (ends.src_len, ends.dst_len, ends.protocol) != (bits, bits, 0) {
            return Err(Error::invalid(
                c"SELECTOR: a MIGRATE's has whole addresses and no protocol",
            ));
        }
        let address = |octets| Address::host(ends.family, octets);
        let (src, dst) = (address(ends.src), address(ends.dst));
        if src.is_unspecified() || src.is_multicast() || dst.is_unspecified() || dst.is_multicast()
        {
            return Err(Error::invalid(c"SELECTOR: not the addresses of two hosts"));
        }
        if src.octets == dst.octets {
            return Err(Error::invalid(c"SELECTOR: its two addresses are the same"));
        }
        Ok(Migrate {
            id,
            src,
            dst,
            encap: Encap::from_message(message)?,
        })
    }

    /// Writes it; `ext` as in [`CsaId::write`].
    pub fn write<'b>(&self, writer: Writer<'b>, ext: &CsaExt) -> Result<Writer<'b>, Error> {
        let ends = Selector {
            family: self.src.family,
            protocol: 0,
            src_len: self.src.family.bits(),
            dst_len: self.dst.family.bits(),
            src: self.src.octets,
            dst: self.dst.octets,
            src_ports: PortRange::ANY,
            dst_ports: PortRange::ANY,
        };
        let writer = self.id.write(writer, ext)?.selector(&ends)?;
        Encap::write(self.encap, writer)
    }
}

/// X_NAT_T_NEW_MAPPING: authentic packets of a CSA come from another address or port than it says: a NAT has changed its
/// mind. As Linux has it, ADDRESS_SRC and X_NAT_T_SPORT are the old ones, ADDRESS_DST and X_NAT_T_DPORT the new ones
/// (docs/wire.md 2.2i).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewMapping {
    /// The CSA's SPI.
    pub spi: u32,
    /// The peer's address and port so far.
    pub old: (Address, u16),
    /// Those its packets come from now.
    pub new: (Address, u16),
}

impl NewMapping {
    /// Takes it from an X_NAT_T_NEW_MAPPING.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a message that lacks one of them.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        let missing = |number| Error::extension(number, Fault::Missing);
        let spi = message.sa().ok_or(missing(ext::SA))?.spi;
        let src = message.src().ok_or(missing(ext::ADDRESS_SRC))?;
        let dst = message.dst().ok_or(missing(ext::ADDRESS_DST))?;
        let sport = message.nat_sport().ok_or(missing(ext::X_NAT_T_SPORT))?;
        let dport = message.nat_dport().ok_or(missing(ext::X_NAT_T_DPORT))?;
        Ok(NewMapping {
            spi,
            old: (src, sport.port),
            new: (dst, dport.port),
        })
    }

    /// Writes it.
    pub fn write<'b>(&self, writer: Writer<'b>) -> Result<Writer<'b>, Error> {
        writer
            .sa(&crate::Sa::mature(self.spi))?
            .src(&self.old.0)?
            .extension(&Extension::NatSport(NatPort { port: self.old.1 }))?
            .dst(&self.new.0)?
            .extension(&Extension::NatDport(NatPort { port: self.new.1 }))
    }
}
