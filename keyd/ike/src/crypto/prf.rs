// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Pseudorandom functions (RFC 7296 §2.13; RFC 4868).

use crate::secret::Secret;
use crate::wire::Prf;
use ring::hmac;
use zeroize::Zeroizing;

/// A hash, and the PRF that HMAC makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the hashes' own names")]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The PRF of that number.
    pub fn from_prf(prf: Prf) -> Option<Self> {
        match prf {
            Prf::HMAC_SHA2_256 => Some(Hash::Sha256),
            Prf::HMAC_SHA2_384 => Some(Hash::Sha384),
            Prf::HMAC_SHA2_512 => Some(Hash::Sha512),
            _ => None,
        }
    }

    /// The PRF's number.
    pub fn prf_number(self) -> Prf {
        match self {
            Hash::Sha256 => Prf::HMAC_SHA2_256,
            Hash::Sha384 => Prf::HMAC_SHA2_384,
            Hash::Sha512 => Prf::HMAC_SHA2_512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// Octets of the PRF's output, which is also the length its keys are derived in.
    pub fn octets(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// prf(key, parts one behind the other).
    pub fn prf(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        Secret::copy(mac(&hmac::Key::new(self.hmac(), key), parts).as_ref())
    }

    /// Whether `tag` is prf(key, parts), in a time that doesn't tell how much of it is.
    pub fn verify(self, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
        let key = hmac::Key::new(self.hmac(), key);
        let whole = Zeroizing::new(parts.concat());
        hmac::verify(&key, &whole, tag).is_ok()
    }

    /// prf+(key, parts one behind the other), `len` octets of it.
    ///
    /// # Panics
    /// Beyond 255 outputs of the PRF, which prf+ doesn't have.
    pub fn prf_plus(self, key: &[u8], parts: &[&[u8]], len: usize) -> Secret {
        assert!(len <= 255 * self.octets(), "prf+ has no more octets");
        let key = hmac::Key::new(self.hmac(), key);
        let mut out = Zeroizing::new(Vec::with_capacity(len + self.octets()));
        for counter in 1..=u8::MAX {
            if out.len() >= len {
                break;
            }
            let mut context = hmac::Context::with_key(&key);
            let last = out.len().saturating_sub(self.octets());
            context.update(out.get(last..).unwrap_or_default());
            parts.iter().for_each(|part| context.update(part));
            context.update(&[counter]);
            out.extend_from_slice(context.sign().as_ref());
        }
        out.truncate(len);
        Secret::copy(&out)
    }
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}
