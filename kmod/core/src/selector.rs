// SPDX-License-Identifier: GPL-2.0-only
//! Traffic selectors: which datagrams a CSA or a policy is about (RFC 4301 §4.4.1.1, without ports).

use crate::ip::Addresses;

/// Address prefixes and a protocol; addresses lie at the front of their 16 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector {
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number, 0 for any.
    pub protocol: u8,
    /// Source prefix.
    pub src: [u8; 16],
    /// Its length in bits.
    pub src_len: u8,
    /// Destination prefix.
    pub dst: [u8; 16],
    /// Its length in bits.
    pub dst_len: u8,
}

/// What is wrong with a selector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelectorError {
    /// The family is neither 4 nor 6.
    Family,
    /// A prefix is longer than the family's addresses.
    PrefixLength,
    /// Bits are set behind a prefix.
    HostBits,
}

impl Selector {
    /// Checks and makes a selector (docs/wire.md 2.3f).
    ///
    /// # Errors
    /// Family neither 4 nor 6, a prefix too long, or bits set behind one.
    pub fn new(
        family: u8,
        protocol: u8,
        src: [u8; 16],
        src_len: u8,
        dst: [u8; 16],
        dst_len: u8,
    ) -> Result<Self, SelectorError> {
        let bits = match family {
            4 => 32,
            6 => 128,
            _ => return Err(SelectorError::Family),
        };
        if src_len > bits || dst_len > bits {
            return Err(SelectorError::PrefixLength);
        }
        if !clear_behind(&src, src_len) || !clear_behind(&dst, dst_len) {
            return Err(SelectorError::HostBits);
        }
        Ok(Self {
            family,
            protocol,
            src,
            src_len,
            dst,
            dst_len,
        })
    }

    /// Whether a datagram going this way is meant.
    #[inline]
    pub fn matches(&self, of: &Addresses) -> bool {
        self.carries(of)
            && within(&self.src, self.src_len, &of.src)
            && within(&self.dst, self.dst_len, &of.dst)
    }

    /// Whether a datagram going the other way is meant.
    #[inline]
    pub fn matches_reversed(&self, of: &Addresses) -> bool {
        self.carries(of)
            && within(&self.src, self.src_len, &of.dst)
            && within(&self.dst, self.dst_len, &of.src)
    }

    /// The same traffic seen from its other end.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            src_len: self.dst_len,
            dst: self.src,
            dst_len: self.src_len,
            ..*self
        }
    }

    #[inline]
    fn carries(&self, of: &Addresses) -> bool {
        self.family == of.family && (self.protocol == 0 || self.protocol == of.protocol)
    }
}

/// The bits of octet `octet` that belong to a prefix of `len` bits.
fn mask(len: u8, octet: usize) -> u8 {
    match usize::from(len).saturating_sub(octet.saturating_mul(8)) {
        0 => 0,
        bits @ 1..=7 => !(0xFFu8 >> bits),
        _ => 0xFF,
    }
}

/// Whether the first `len` bits agree; as one number each, for this is asked several times a packet.
#[inline]
fn within(prefix: &[u8; 16], len: u8, address: &[u8; 16]) -> bool {
    let differ = u128::from_be_bytes(*prefix) ^ u128::from_be_bytes(*address);
    // A prefix's bits are the first ones; of none there is nothing to compare.
    differ
        .checked_shr(u128::BITS.saturating_sub(u32::from(len)))
        .is_none_or(|differ| differ == 0)
}

fn clear_behind(prefix: &[u8; 16], len: u8) -> bool {
    prefix
        .iter()
        .enumerate()
        .all(|(i, p)| p & !mask(len, i) == 0)
}
