// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD (docs/wire.md §3.3): what stands in front of a datagram, and what IKE says of groups.

use super::reader::{len16, Put, Reader};
use super::{Encr, Error};
use crate::secret::Secret;

/// Octets of an Ed25519 public key (RFC 8032).
pub const PUBLIC_KEY_LEN: usize = 32;

/// What a datagram begins with, in clear: 16 octets (docs/wire.md 3.3c).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct MulticastHeader {
    /// Which group.
    pub group: u32,
    /// Which of its keys.
    pub epoch: u32,
    /// Which datagram under that key, from 0.
    pub counter: u64,
}

impl MulticastHeader {
    /// Octets of it.
    pub const LEN: usize = 16;

    /// What a datagram begins with; the rest is sealed.
    ///
    /// # Errors
    /// [`Error::Short`].
    pub fn decode(octets: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(octets);
        Ok(MulticastHeader {
            group: r.u32()?,
            epoch: r.u32()?,
            counter: r.u64()?,
        })
    }

    /// Its octets.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        let (front, counter) = octets.split_at_mut(8);
        front.copy_from_slice(&self.aad());
        counter.copy_from_slice(&self.counter.to_be_bytes());
        octets
    }

    /// What is authenticated beside the nonce, which has the counter.
    pub(crate) fn aad(&self) -> [u8; 8] {
        ((u64::from(self.group) << 32) | u64::from(self.epoch)).to_be_bytes()
    }
}

/// A group's key, as a member gets it. Only ever within SK (docs/wire.md 3.3a).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupKey {
    /// Which group.
    pub group: u32,
    /// Which of its keys; later ones are greater.
    pub epoch: u32,
    /// Its AEAD; the key's length says the rest.
    pub encr: Encr,
    /// The key.
    pub key: Secret,
    /// The nonce's first octets.
    pub salt: Secret,
    /// What the home agent's signatures are checked with, Ed25519.
    pub public: [u8; PUBLIC_KEY_LEN],
}

impl GroupKey {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Error> {
        let (group, epoch, encr) = (r.u32()?, r.u32()?, Encr(r.u16()?));
        let (key, salt) = (usize::from(r.u16()?), usize::from(r.u16()?));
        r.u16()?;
        Ok(GroupKey {
            group,
            epoch,
            encr,
            key: Secret::copy(r.bytes(key)?),
            salt: Secret::copy(r.bytes(salt)?),
            public: r.array()?,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.group);
        out.put_u32(self.epoch);
        out.put_u16(self.encr.0);
        out.put_u16(len16(self.key.len()));
        out.put_u16(len16(self.salt.len()));
        out.put_u16(0);
        out.put(self.key.expose());
        out.put(self.salt.expose());
        out.put(&self.public);
    }
}

/// CSA_REPORT: what of a group's datagrams a member has taken, 24 octets (docs/wire.md 3.3j).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Report {
    /// Which group.
    pub group: u32,
    /// Which of its keys.
    pub epoch: u32,
    /// The greatest counter opened.
    pub counter: u64,
    /// Whether all was taken: bit 0 of that one, bit 1 of the one before, and so on.
    pub taken: u64,
}

impl Report {
    /// Whether all of that datagram was taken.
    pub fn has(&self, counter: u64) -> bool {
        let back = self.counter.checked_sub(counter);
        let bit = back.and_then(|back| u32::try_from(back).ok());
        bit.is_some_and(|bit| self.taken.checked_shr(bit).unwrap_or(0) & 1 == 1)
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Report {
            group: r.u32()?,
            epoch: r.u32()?,
            counter: r.u64()?,
            taken: r.u64()?,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.group);
        out.put_u32(self.epoch);
        out.put_u64(self.counter);
        out.put_u64(self.taken);
    }
}
