// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A message taken whole or refused whole, and read through typed accessors.

use crate::address::Address;
use crate::error::Error;
use crate::extension::Extension;
use crate::number::{self, ext};
use crate::reader::{Cursor, Reader};
use crate::selector::Selector;
use crate::standard::{
    Identity, Key, Lifetime, NatPort, NatType, PolicyExt, Proposal, Sa, Sensitivity, SpiRange,
    Supported,
};
use crate::text::Fault;
use crate::zone::{Binding, CsaExt, Relay, Snoop, SnoopState, ZoneMap, ZoneSa};

/// Octets of `sadb_msg`.
pub const HEADER_LEN: usize = 16;
/// Octets of the longest message either side takes (docs/wire.md 2.1f).
pub const MAX_LEN: usize = 4096;
/// Octets of `sadb_ext` (docs/wire.md 2.3a).
pub(crate) const EXT_HEADER_LEN: usize = 4;

/// `sadb_msg` (RFC 2367 §2.1), but for its version and length (docs/wire.md 2a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// One of [`number::message`].
    pub kind: u8,
    /// In an answer, the errno; 0 in a request.
    pub errno: u8,
    /// One of [`number::satype`].
    pub satype: u8,
    /// The asker's number for the request; the answer repeats it.
    pub seq: u32,
    /// The asker; 0 for what the module says on its own account.
    pub pid: u32,
}

impl Header {
    pub(crate) fn encode(&self, words: u16, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[number::VERSION, self.kind, self.errno, self.satype])?;
        w.u16(words)?;
        w.zeros(2)?;
        w.u32(self.seq)?;
        w.u32(self.pid)
    }
}

/// A message whose form has been checked.
///
/// # Invariants
///
/// `extensions` holds whole, known extensions, each of them decodable, none twice (ZONE_SA: none twice for a zone).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    header: Header,
    extensions: Extensions<'a>,
}

impl<'a> Message<'a> {
    /// Reads a message from the whole of `octets` (docs/wire.md 2.1r).
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if its length field and `octets` differ or it is longer than [`MAX_LEN`]; `EINVAL` for any other fault
    /// of its form: version, type, reserved fields, alignment, and an extension that is short, long, unknown, given
    /// twice, or has a field out of range; `ENOSYS` for an algorithm that isn't there.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Error> {
        if octets.len() > MAX_LEN {
            return Err(Error::size(c"message: longer than 4096 octets"));
        }
        let (head, rest) = octets.split_at_checked(HEADER_LEN).ok_or(Error::size(
            c"message: shorter than its header of 16 octets",
        ))?;
        let header = parse_header(head, octets.len())?;
        let extensions = Extensions { rest };
        check(extensions)?;
        // INVARIANT: `check` has been through all of it.
        Ok(Message { header, extensions })
    }

    /// The header.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The extensions in the order they came.
    pub const fn extensions(&self) -> Extensions<'a> {
        self.extensions
    }

    /// The first extension of this number, and no other is decoded: an ADD has a dozen.
    fn first(&self, number: u16, which: impl Fn(&Extension<'a>) -> bool) -> Option<Extension<'a>> {
        let mut rest = self.extensions.rest;
        loop {
            // The message has been checked: nothing but its end stops the walk.
            let (this, body, behind) = split(rest).ok()??;
            rest = behind;
            if this == number {
                let extension = Extension::decode(number, body)?.ok()?;
                if which(&extension) {
                    return Some(extension);
                }
            }
        }
    }

    /// The SA of one zone, counted from 1.
    pub fn zone_sa(&self, zone: u8) -> Option<ZoneSa<'a>> {
        let of_zone = |extension: &Extension<'a>| matches!(extension, Extension::ZoneSa(sa) if sa.zone == zone);
        match self.first(ext::ZONE_SA, of_zone)? {
            Extension::ZoneSa(sa) => Some(sa),
            _ => None,
        }
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident $number:ident $variant:ident $type:ty;)+) => {
        /// Each accessor gives what the extension of its name holds, if the message has it.
        impl<'a> Message<'a> {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> Option<$type> {
                    match self.first(ext::$number, |_| true)? {
                        Extension::$variant(body) => Some(body),
                        _ => None,
                    }
                }
            )+
        }
    };
}

accessors! {
    /// SA.
    sa SA Sa Sa;
    /// LIFETIME_CURRENT.
    lifetime_current LIFETIME_CURRENT LifetimeCurrent Lifetime;
    /// LIFETIME_HARD.
    lifetime_hard LIFETIME_HARD LifetimeHard Lifetime;
    /// LIFETIME_SOFT.
    lifetime_soft LIFETIME_SOFT LifetimeSoft Lifetime;
    /// ADDRESS_SRC: the outer source.
    src ADDRESS_SRC AddressSrc Address;
    /// ADDRESS_DST: the outer destination.
    dst ADDRESS_DST AddressDst Address;
    /// ADDRESS_PROXY.
    proxy ADDRESS_PROXY AddressProxy Address;
    /// KEY_AUTH.
    key_auth KEY_AUTH KeyAuth Key<'a>;
    /// KEY_ENCRYPT.
    key_encrypt KEY_ENCRYPT KeyEncrypt Key<'a>;
    /// IDENTITY_SRC.
    identity_src IDENTITY_SRC IdentitySrc Identity<'a>;
    /// IDENTITY_DST.
    identity_dst IDENTITY_DST IdentityDst Identity<'a>;
    /// SENSITIVITY.
    sensitivity SENSITIVITY Sensitivity Sensitivity<'a>;
    /// PROPOSAL.
    proposal PROPOSAL Proposal Proposal<'a>;
    /// SUPPORTED_AUTH.
    supported_auth SUPPORTED_AUTH SupportedAuth Supported<'a>;
    /// SUPPORTED_ENCRYPT.
    supported_encrypt SUPPORTED_ENCRYPT SupportedEncrypt Supported<'a>;
    /// SPIRANGE.
    spirange SPIRANGE SpiRange SpiRange;
    /// X_POLICY.
    policy X_POLICY Policy PolicyExt;
    /// X_NAT_T_TYPE.
    nat_type X_NAT_T_TYPE NatType NatType;
    /// X_NAT_T_SPORT.
    nat_sport X_NAT_T_SPORT NatSport NatPort;
    /// X_NAT_T_DPORT.
    nat_dport X_NAT_T_DPORT NatDport NatPort;
    /// X_NAT_T_OA.
    nat_oa X_NAT_T_OA NatOa Address;
    /// ZONE_MAP.
    zone_map ZONE_MAP ZoneMap ZoneMap;
    /// CSA.
    csa CSA Csa CsaExt;
    /// SELECTOR.
    selector SELECTOR Selector Selector;
    /// SNOOP.
    snoop SNOOP Snoop Snoop;
    /// RELAY.
    relay RELAY Relay Relay;
    /// BINDING.
    binding BINDING Binding Binding<'a>;
    /// SNOOP_STATE.
    snoop_state SNOOP_STATE SnoopState SnoopState<'a>;
}

/// The extensions of a message, in the order they came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extensions<'a> {
    rest: &'a [u8],
}

impl core::fmt::Debug for Extensions<'_> {
    // The octets hold keys; the decoded extensions know how not to print them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a> IntoIterator for Extensions<'a> {
    type Item = Extension<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter { rest: self.rest }
    }
}

/// Goes through [`Extensions`].
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        // The message has been checked: nothing but its end stops the walk.
        let (number, body, rest) = split(self.rest).ok()??;
        self.rest = rest;
        Extension::decode(number, body)?.ok()
    }
}

fn parse_header(head: &[u8], len: usize) -> Result<Header, Error> {
    let mut r = Reader::new(head);
    let mut read = || -> Result<_, Fault> {
        let fields = (r.u8()?, r.u8()?, r.u8()?, r.u8()?, r.u16()?, r.u16()?);
        Ok((fields, r.u32()?, r.u32()?))
    };
    let ((version, kind, errno, satype, words, reserved), seq, pid) =
        read().map_err(|_| Error::size(c"message: shorter than its header of 16 octets"))?;
    if version != number::VERSION {
        return Err(Error::invalid(c"message: version is not PF_KEY_V2"));
    }
    if !number::message::known(kind) {
        return Err(Error::invalid(c"message: unknown type"));
    }
    if reserved != 0 {
        return Err(Error::invalid(c"message: reserved field not zero"));
    }
    let stated = usize::from(words).saturating_mul(8);
    if stated > len {
        return Err(Error::size(c"message: shorter than its length field says"));
    }
    if stated < len {
        return Err(Error::size(c"message: longer than its length field says"));
    }
    Ok(Header {
        kind,
        errno,
        satype,
        seq,
        pid,
    })
}

/// The first extension's number and body, and what stands behind it; `None` at the end.
#[expect(
    clippy::type_complexity,
    reason = "two callers, both take it apart at once"
)]
fn split(rest: &[u8]) -> Result<Option<(u16, &[u8], &[u8])>, Error> {
    if rest.is_empty() {
        return Ok(None);
    }
    let mut r = Reader::new(rest);
    let mut read = || -> Result<_, Fault> { Ok((r.u16()?, r.u16()?)) };
    let (words, number) = read().map_err(|_| Error::invalid(c"message: misaligned extension"))?;
    let fault = |fault| Error::extension(number, fault);
    if words == 0 {
        return Err(fault(Fault::Short));
    }
    let len = usize::from(words).saturating_mul(8);
    let (extension, rest) = rest
        .split_at_checked(len)
        .ok_or_else(|| fault(Fault::Past))?;
    let (_, body) = extension
        .split_at_checked(EXT_HEADER_LEN)
        .ok_or_else(|| fault(Fault::Short))?;
    Ok(Some((number, body, rest)))
}

/// Checks the form of every extension, and that none comes twice.
fn check(extensions: Extensions<'_>) -> Result<(), Error> {
    let mut rest = extensions.rest;
    let (mut seen, mut zones) = (0u64, 0u16);
    while let Some((number, body, behind)) = split(rest)? {
        rest = behind;
        let extension = Extension::decode(number, body)
            .ok_or(Error::invalid(c"message: extension of unknown number"))?
            .map_err(|fault| Error::extension(number, fault))?;
        let twice = match extension {
            Extension::ZoneSa(sa) => mark(&mut zones, 1u16.checked_shl(u32::from(sa.zone))),
            _ => mark(&mut seen, bit(number)),
        };
        if twice {
            return Err(Error::extension(number, Fault::Duplicate));
        }
    }
    Ok(())
}

/// The bit that stands for an extension in a set of 64: the standard ones below, ours above.
const fn bit(number: u16) -> Option<u64> {
    let place = if number < ext::ZONE_MAP {
        number
    } else {
        number - ext::ZONE_MAP + 32
    };
    1u64.checked_shl(place as u32)
}

/// Puts `bit` into `set`; true if it was there.
fn mark<T>(set: &mut T, bit: Option<T>) -> bool
where
    T: Copy + PartialEq + Default + core::ops::BitAnd<Output = T> + core::ops::BitOrAssign,
{
    let Some(bit) = bit else { return true };
    let twice = *set & bit != T::default();
    *set |= bit;
    twice
}
