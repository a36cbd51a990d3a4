// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reading fields one after the other from an extension, and writing them so.

use crate::error::Error;
use crate::text::Fault;
use core::fmt;

/// Octets nobody prints: a key, a salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(&'a [u8]);

impl<'a> Secret<'a> {
    /// Takes the octets in.
    pub const fn new(octets: &'a [u8]) -> Self {
        Secret(octets)
    }

    /// The octets, for the cipher alone.
    pub const fn expose(&self) -> &'a [u8] {
        self.0
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}

/// The octets of one extension after its header (docs/wire.md 2b).
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Reader { rest: body }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_ne_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(crate) fn be16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn be32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A reserved field. It must be zero, so that it can mean something one day (docs/wire.md 2.3k).
    pub(crate) fn reserved(&mut self, len: usize) -> Result<(), Fault> {
        if self.bytes(len)?.iter().any(|&octet| octet != 0) {
            return Err(Fault::Reserved);
        }
        Ok(())
    }

    /// The end: less than 8 octets of padding are left, all zero.
    pub(crate) fn end(self) -> Result<(), Fault> {
        if self.rest.len() >= 8 {
            return Err(Fault::Long);
        }
        if self.rest.iter().any(|&octet| octet != 0) {
            return Err(Fault::Reserved);
        }
        Ok(())
    }
}

/// The caller's buffer and how far it is filled.
pub(crate) struct Cursor<'a> {
    pub(crate) buffer: &'a mut [u8],
    pub(crate) at: usize,
}

impl Cursor<'_> {
    pub(crate) fn put(&mut self, octets: &[u8]) -> Result<(), Error> {
        let end = self.at.checked_add(octets.len()).ok_or(Error::room())?;
        self.buffer
            .get_mut(self.at..end)
            .ok_or(Error::room())?
            .copy_from_slice(octets);
        self.at = end;
        Ok(())
    }

    pub(crate) fn zeros(&mut self, len: usize) -> Result<(), Error> {
        let end = self.at.checked_add(len).ok_or(Error::room())?;
        self.buffer
            .get_mut(self.at..end)
            .ok_or(Error::room())?
            .fill(0);
        self.at = end;
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), Error> {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), Error> {
        self.put(&value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), Error> {
        self.put(&value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Result<(), Error> {
        self.put(&value.to_ne_bytes())
    }

    pub(crate) fn be16(&mut self, value: u16) -> Result<(), Error> {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn be32(&mut self, value: u32) -> Result<(), Error> {
        self.put(&value.to_be_bytes())
    }
}
