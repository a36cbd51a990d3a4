// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Writing a message into a buffer of the caller's.

use crate::address::Address;
use crate::error::Error;
use crate::extension::Extension;
use crate::message::{Header, EXT_HEADER_LEN, HEADER_LEN, MAX_LEN};
use crate::reader::Cursor;
use crate::selector::Selector;
use crate::standard::{Lifetime, PolicyExt, Sa};
use crate::zone::{Binding, CsaExt, Relay, Snoop, SnoopState, ZoneMap, ZoneSa};

/// A message being written. It is as good as its parts: what [`crate::Message::parse`] would refuse can be written.
pub struct Writer<'a> {
    cursor: Cursor<'a>,
    header: Header,
}

impl<'a> Writer<'a> {
    /// Begins a message: a type of [`crate::number::message`], an SA type of [`crate::number::satype`].
    ///
    /// # Errors
    ///
    /// `ENOBUFS`, here and below, when the buffer is too short; [`MAX_LEN`] is always enough.
    pub fn new(
        buffer: &'a mut [u8],
        kind: u8,
        satype: u8,
        seq: u32,
        pid: u32,
    ) -> Result<Self, Error> {
        Writer::with_header(
            buffer,
            Header {
                kind,
                errno: 0,
                satype,
                seq,
                pid,
            },
        )
    }

    /// Begins a message with this header, as an answer does that repeats the request's.
    pub fn with_header(buffer: &'a mut [u8], header: Header) -> Result<Self, Error> {
        let mut cursor = Cursor { buffer, at: 0 };
        // The length is known at the end; until then the place is kept.
        cursor.zeros(HEADER_LEN)?;
        Ok(Writer { cursor, header })
    }

    /// Adds an extension.
    pub fn extension(mut self, extension: &Extension<'_>) -> Result<Self, Error> {
        let start = self.cursor.at;
        self.cursor.zeros(EXT_HEADER_LEN)?;
        extension.encode(&mut self.cursor)?;
        let len = self.cursor.at.saturating_sub(start);
        self.cursor
            .zeros(len.next_multiple_of(8).saturating_sub(len))?;
        let end = self.cursor.at;
        let words = u16::try_from(end.saturating_sub(start) / 8).map_err(|_| Error::room())?;
        self.cursor.at = start;
        self.cursor.u16(words)?;
        self.cursor.u16(extension.number())?;
        self.cursor.at = end;
        Ok(self)
    }

    /// Adds an extension if there is one.
    pub fn maybe(self, extension: Option<Extension<'_>>) -> Result<Self, Error> {
        match extension {
            Some(extension) => self.extension(&extension),
            None => Ok(self),
        }
    }

    /// SA.
    pub fn sa(self, sa: &Sa) -> Result<Self, Error> {
        self.extension(&Extension::Sa(*sa))
    }

    /// ADDRESS_SRC: the outer source.
    pub fn src(self, address: &Address) -> Result<Self, Error> {
        self.extension(&Extension::AddressSrc(*address))
    }

    /// ADDRESS_DST: the outer destination.
    pub fn dst(self, address: &Address) -> Result<Self, Error> {
        self.extension(&Extension::AddressDst(*address))
    }

    /// LIFETIME_CURRENT.
    pub fn lifetime_current(self, lifetime: &Lifetime) -> Result<Self, Error> {
        self.extension(&Extension::LifetimeCurrent(*lifetime))
    }

    /// LIFETIME_HARD.
    pub fn lifetime_hard(self, lifetime: &Lifetime) -> Result<Self, Error> {
        self.extension(&Extension::LifetimeHard(*lifetime))
    }

    /// LIFETIME_SOFT.
    pub fn lifetime_soft(self, lifetime: &Lifetime) -> Result<Self, Error> {
        self.extension(&Extension::LifetimeSoft(*lifetime))
    }

    /// X_POLICY.
    pub fn policy(self, policy: &PolicyExt) -> Result<Self, Error> {
        self.extension(&Extension::Policy(*policy))
    }

    /// ZONE_MAP.
    pub fn zone_map(self, map: &ZoneMap) -> Result<Self, Error> {
        self.extension(&Extension::ZoneMap(*map))
    }

    /// ZONE_SA.
    pub fn zone_sa(self, sa: &ZoneSa<'_>) -> Result<Self, Error> {
        self.extension(&Extension::ZoneSa(*sa))
    }

    /// CSA.
    pub fn csa(self, csa: &CsaExt) -> Result<Self, Error> {
        self.extension(&Extension::Csa(*csa))
    }

    /// SELECTOR.
    pub fn selector(self, selector: &Selector) -> Result<Self, Error> {
        self.extension(&Extension::Selector(*selector))
    }

    /// SNOOP.
    pub fn snoop(self, snoop: &Snoop) -> Result<Self, Error> {
        self.extension(&Extension::Snoop(*snoop))
    }

    /// RELAY.
    pub fn relay(self, relay: &Relay) -> Result<Self, Error> {
        self.extension(&Extension::Relay(*relay))
    }

    /// BINDING.
    pub fn binding(self, binding: &Binding<'_>) -> Result<Self, Error> {
        self.extension(&Extension::Binding(*binding))
    }

    /// SNOOP_STATE.
    pub fn snoop_state(self, state: &SnoopState<'_>) -> Result<Self, Error> {
        self.extension(&Extension::SnoopState(*state))
    }

    /// Ends the message and gives its octets.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it is longer than [`MAX_LEN`].
    pub fn finish(mut self) -> Result<&'a [u8], Error> {
        let end = self.cursor.at;
        if end > MAX_LEN {
            return Err(Error::size(c"message: longer than 4096 octets"));
        }
        let words = u16::try_from(end / 8).map_err(|_| Error::room())?;
        self.cursor.at = 0;
        self.header.encode(words, &mut self.cursor)?;
        let buffer: &'a [u8] = self.cursor.buffer;
        buffer.get(..end).ok_or(Error::room())
    }
}
