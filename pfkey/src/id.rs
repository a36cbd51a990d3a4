// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which CSA a DELETE, GET or UPDATE means, and what an UPDATE changes.

use crate::address::Address;
use crate::csa::{check_lifetimes, check_sequence, check_spi, mlesp};
use crate::error::Error;
use crate::message::Message;
use crate::number::ext;
use crate::standard::Lifetime;
use crate::text::Fault;
use crate::writer::Writer;
use crate::zone::{CsaExt, Role, Snoop, State};

/// A CSA's name: DELETE, GET, UPDATE, EXPIRE and CSA_STATE hold SA, ADDRESS_SRC, ADDRESS_DST and CSA
/// (docs/wire.md 2.2e, 2.2f, 2.2g).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CsaId {
    /// The designated SA's SPI.
    pub spi: u32,
    /// The outer source.
    pub src: Address,
    /// The outer destination.
    pub dst: Address,
    /// The role this node has.
    pub role: Role,
}

impl CsaId {
    /// Takes the name from a message.
    ///
    /// # Errors
    ///
    /// As [`crate::Csa::from_message`]. That there is no such CSA is for the caller to say, with `ESRCH`.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        mlesp(message)?;
        let missing = |number| Error::extension(number, Fault::Missing);
        let spi = message.sa().ok_or(missing(ext::SA))?.spi;
        let (src, dst) = outer(message)?;
        let role = message.csa().ok_or(missing(ext::CSA))?.role;
        check_spi(spi)?;
        Ok(CsaId {
            spi,
            src,
            dst,
            role,
        })
    }

    /// Writes it; `ext` says the role, and the rest of the CSA where that matters.
    pub fn write<'b>(&self, writer: Writer<'b>, ext: &CsaExt) -> Result<Writer<'b>, Error> {
        writer
            .sa(&crate::Sa::mature(self.spi))?
            .src(&self.src)?
            .dst(&self.dst)?
            .csa(&CsaExt {
                role: self.role,
                ..*ext
            })
    }
}

/// What UPDATE changes: the state, and the life-times and SNOOP's settings that are given (docs/wire.md 2.2d).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CsaUpdate {
    /// Which CSA.
    pub id: CsaId,
    /// Its state from now on; never larval.
    pub state: State,
    /// A terminus' or relay's top of window, if not 0: it only ever moves up.
    pub sequence: u64,
    /// Its new end.
    pub hard: Option<Lifetime>,
    /// When it asks to be replaced.
    pub soft: Option<Lifetime>,
    /// A relay's new settings.
    pub snoop: Option<Snoop>,
}

impl CsaUpdate {
    /// Takes the change from an UPDATE.
    ///
    /// # Errors
    ///
    /// As [`CsaId::from_message`]; and keys, zones and selector never change, so that a message which holds them is refused.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        let id = CsaId::from_message(message)?;
        let csa = message
            .csa()
            .ok_or(Error::extension(ext::CSA, Fault::Missing))?;
        for extension in message.extensions() {
            match extension.number() {
                ext::ZONE_SA => {
                    return Err(Error::invalid(c"ZONE_SA: an update can't change keys"))
                }
                ext::ZONE_MAP => {
                    return Err(Error::invalid(c"ZONE_MAP: an update can't change it"))
                }
                ext::SELECTOR => {
                    return Err(Error::invalid(c"SELECTOR: an update can't change it"))
                }
                ext::RELAY => return Err(Error::invalid(c"RELAY: an update can't change it")),
                ext::BINDING => return Err(Error::invalid(c"BINDING: an update can't change it")),
                _ => {}
            }
        }
        if csa.state == State::Larval {
            return Err(Error::invalid(c"CSA: an update can't make it larval"));
        }
        check_sequence(csa.sequence)?;
        let (hard, soft) = (message.lifetime_hard(), message.lifetime_soft());
        if let (Some(hard), Some(soft)) = (&hard, &soft) {
            check_lifetimes(hard, soft)?;
        }
        let snoop = message.snoop();
        if snoop.is_some() && csa.role != Role::Relay {
            return Err(Error::invalid(c"SNOOP: only a relay has it"));
        }
        Ok(CsaUpdate {
            id,
            state: csa.state,
            sequence: csa.sequence,
            hard,
            soft,
            snoop,
        })
    }
}

/// The outer addresses: two different hosts of one family, neither unspecified nor multicast.
pub(crate) fn outer(message: &Message<'_>) -> Result<(Address, Address), Error> {
    let missing = |number| Error::extension(number, Fault::Missing);
    let src = message.src().ok_or(missing(ext::ADDRESS_SRC))?;
    let dst = message.dst().ok_or(missing(ext::ADDRESS_DST))?;
    if !src.is_host() || src.is_unspecified() || src.is_multicast() {
        return Err(Error::invalid(c"ADDRESS_SRC: not the address of one host"));
    }
    if !dst.is_host() || dst.is_unspecified() || dst.is_multicast() {
        return Err(Error::invalid(c"ADDRESS_DST: not the address of one host"));
    }
    if src.family != dst.family {
        return Err(Error::invalid(
            c"ADDRESS_DST: its family is not ADDRESS_SRC's",
        ));
    }
    if src.octets == dst.octets && src.scope == dst.scope {
        return Err(Error::invalid(c"ADDRESS_DST: it is ADDRESS_SRC"));
    }
    Ok((src, dst))
}
