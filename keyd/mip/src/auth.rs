// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mobility security associations (RFC 5944 §1.6, §5.1): algorithm and key by SPI, and the authenticators they make.

use crate::extension::Authentication;
use crate::replay::Replay;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use std::fmt;
use zeroize::Zeroizing;

/// How an authenticator is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC-SHA-256, 32 octets: between this project's own nodes.
    HmacSha256,
    /// HMAC-MD5, 16 octets: RFC 5944's default (§5.1), for other peoples' nodes.
    HmacMd5,
}

impl Algorithm {
    /// Octets of an authenticator.
    pub fn len(self) -> usize {
        match self {
            Algorithm::HmacSha256 => 32,
            Algorithm::HmacMd5 => 16,
        }
    }

    /// Never.
    pub fn is_empty(self) -> bool {
        false
    }
}

/// A key: overwritten when it goes, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Takes the octets in.
    pub fn new(octets: &[u8]) -> Self {
        Key(Zeroizing::new(octets.to_vec()))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} octets)", self.0.len())
    }
}

/// The smallest SPI that isn't reserved (RFC 5944 §1.6).
pub const SPI_MIN: u32 = 256;

/// A mobility security association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Its number, which both sides know it by; [`SPI_MIN`] or more.
    pub spi: u32,
    /// How its authenticators are made.
    pub algorithm: Algorithm,
    /// The shared secret; 16 octets at least.
    pub key: Key,
    /// How replays are told; only between mobile node and home agent.
    pub replay: Replay,
}

impl Association {
    /// The authenticator over these octets.
    pub fn sign(&self, octets: &[u8]) -> Vec<u8> {
        match self.algorithm {
            Algorithm::HmacSha256 => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.expose());
                ring::hmac::sign(&key, octets).as_ref().to_vec()
            }
            Algorithm::HmacMd5 => md5_state(self.key.expose(), octets)
                .finalize()
                .into_bytes()
                .to_vec(),
        }
    }

    /// Whether the authenticator is this association's. Takes as long whichever octet is wrong.
    pub fn verify(&self, authentication: &Authentication<'_>) -> bool {
        if authentication.spi != self.spi {
            return false;
        }
        match self.algorithm {
            Algorithm::HmacSha256 => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.expose());
                ring::hmac::verify(&key, authentication.covered, authentication.authenticator)
                    .is_ok()
            }
            Algorithm::HmacMd5 => md5_state(self.key.expose(), authentication.covered)
                .verify_slice(authentication.authenticator)
                .is_ok(),
        }
    }
}

fn md5_state(key: &[u8], octets: &[u8]) -> Hmac<Md5> {
    // HMAC takes keys of any length.
    let mut state = Hmac::<Md5>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    state.update(octets);
    state
}

/// The association with this SPI.
pub(crate) fn find(associations: &[Association], spi: u32) -> Option<&Association> {
    associations
        .iter()
        .find(|association| association.spi == spi)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn association(algorithm: Algorithm, key: &[u8]) -> Association {
        Association {
            spi: 256,
            algorithm,
            key: Key::new(key),
            replay: Replay::default(),
        }
    }

    #[test]
    fn hmac_md5_gives_rfc_2202s_vectors() {
        let first = association(Algorithm::HmacMd5, &[0x0b; 16]);
        assert_eq!(
            hex(&first.sign(b"Hi There")),
            "9294727a3638bb1c13f48ef8158bfc9d"
        );
        let second = association(Algorithm::HmacMd5, b"Jefe");
        assert_eq!(
            hex(&second.sign(b"what do ya want for nothing?")),
            "750c783e6ab0b503eaa86e310a5db738"
        );
    }

    #[test]
    fn hmac_sha_256_gives_rfc_4231s_vectors() {
        let first = association(Algorithm::HmacSha256, &[0x0b; 20]);
        assert_eq!(
            hex(&first.sign(b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let second = association(Algorithm::HmacSha256, b"Jefe");
        assert_eq!(
            hex(&second.sign(b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_authenticator_of_another_spi_length_or_octet_is_refused() {
        for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha256] {
            let association = association(algorithm, &[7; 16]);
            let good = association.sign(b"covered");
            let with = |spi, covered: &[u8], authenticator: &[u8]| {
                association.verify(&Authentication {
                    spi,
                    covered,
                    authenticator,
                    start: 0,
                    end: 0,
                })
            };
            assert!(with(256, b"covered", &good));
            assert!(!with(257, b"covered", &good));
            assert!(!with(256, b"Covered", &good));
            assert!(!with(256, b"covered", &good[..good.len() - 1]));
            assert!(!with(256, b"covered", &[]));
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(!with(256, b"covered", &bad));
            }
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let text = format!("{:?}", association(Algorithm::HmacMd5, b"JefeJefeJefeJefe"));
        assert!(!text.contains("Jefe") && !text.contains("74"), "{text}");
    }
}
