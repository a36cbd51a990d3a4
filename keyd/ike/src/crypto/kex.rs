// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Key exchange: the curves (RFC 5903, RFC 8031), and ML-KEM-768 (FIPS 203).

use super::CryptoError;
use crate::host::Host;
use crate::secret::Secret;
use crate::wire::Group;
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use ml_kem::kem::{Decapsulate, DecapsulationKey, EncapsulationKey};
use ml_kem::{
    Ciphertext, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768,
    MlKem768Params, B32,
};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// A key exchange method.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the methods' own names")]
pub enum Method {
    X25519,
    P256,
    P384,
    MlKem768,
}

/// A number below the order of a NIST curve comes at once, but for one time in 2^32; this often it never fails.
const DRAWS: usize = 8;

/// A NIST point on the wire has no leading octet that says "uncompressed" (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;

/// This side's half of an exchange it began.
pub struct Pending(Half);

enum Half {
    Curve(Method, PrivateKey),
    MlKem(Box<DecapsulationKey<MlKem768Params>>),
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Method {
    /// The method of that number.
    pub fn from_group(group: Group) -> Option<Self> {
        match group {
            Group::CURVE25519 => Some(Method::X25519),
            Group::ECP_256 => Some(Method::P256),
            Group::ECP_384 => Some(Method::P384),
            Group::ML_KEM_768 => Some(Method::MlKem768),
            _ => None,
        }
    }

    /// Its number.
    pub fn group(self) -> Group {
        match self {
            Method::X25519 => Group::CURVE25519,
            Method::P256 => Group::ECP_256,
            Method::P384 => Group::ECP_384,
            Method::MlKem768 => Group::ML_KEM_768,
        }
    }

    /// A curve's algorithm, and the octets of a private key on it.
    fn curve(self) -> Option<(&'static agreement::Algorithm, usize)> {
        match self {
            Method::X25519 => Some((&agreement::X25519, 32)),
            Method::P256 => Some((&agreement::ECDH_P256, 32)),
            Method::P384 => Some((&agreement::ECDH_P384, 48)),
            Method::MlKem768 => None,
        }
    }

    /// Begins an exchange: what finishes it, and the public value to send.
    ///
    /// # Errors
    /// When the randomness is none.
    pub fn begin(self, host: &mut dyn Host) -> Result<(Pending, Vec<u8>), CryptoError> {
        if self.curve().is_some() {
            let (private, public) = self.key_pair(host)?;
            return Ok((Pending(Half::Curve(self, private)), public));
        }
        let (mut d, mut z) = (B32::default(), B32::default());
        host.fill(&mut d);
        host.fill(&mut z);
        let (private, public) = MlKem768::generate_deterministic(&d, &z);
        d.zeroize();
        z.zeroize();
        let public = public.as_bytes().to_vec();
        Ok((Pending(Half::MlKem(Box::new(private))), public))
    }

    /// Answers an exchange: the public value to send, and the shared secret.
    ///
    /// # Errors
    /// When the peer's value is not one of this method's.
    pub fn respond(
        self,
        peer: &[u8],
        host: &mut dyn Host,
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        if self.curve().is_some() {
            let (private, public) = self.key_pair(host)?;
            return Ok((public, self.agree(&private, peer)?));
        }
        let encoded =
            Encoded::<EncapsulationKey<MlKem768Params>>::try_from(peer).map_err(|_| CryptoError)?;
        let key = EncapsulationKey::<MlKem768Params>::from_bytes(&encoded);
        // The modulus check of FIPS 203 §7.2.
        if key.as_bytes() != encoded {
            return Err(CryptoError);
        }
        let mut m = B32::default();
        host.fill(&mut m);
        let done = key.encapsulate_deterministic(&m);
        m.zeroize();
        let (ciphertext, mut shared) = done.map_err(|_| CryptoError)?;
        let secret = Secret::copy(&shared);
        shared.zeroize();
        Ok((ciphertext.to_vec(), secret))
    }

    fn key_pair(self, host: &mut dyn Host) -> Result<(PrivateKey, Vec<u8>), CryptoError> {
        let (curve, len) = self.curve().ok_or(CryptoError)?;
        let mut octets = Zeroizing::new(vec![0; len]);
        let mut drawn = (0..DRAWS).filter_map(|_| {
            host.fill(&mut octets);
            PrivateKey::from_private_key(curve, &octets).ok()
        });
        let private = drawn.next().ok_or(CryptoError)?;
        let public = private.compute_public_key().map_err(|_| CryptoError)?;
        let public = match (self, public.as_ref()) {
            (Method::X25519, octets) => octets.to_vec(),
            (_, [UNCOMPRESSED, point @ ..]) => point.to_vec(),
            _ => return Err(CryptoError),
        };
        Ok((private, public))
    }

    fn agree(self, private: &PrivateKey, peer: &[u8]) -> Result<Secret, CryptoError> {
        let (curve, _) = self.curve().ok_or(CryptoError)?;
        let peer = match self {
            Method::X25519 => peer.to_vec(),
            _ => [&[UNCOMPRESSED], peer].concat(),
        };
        let peer = UnparsedPublicKey::new(curve, peer);
        agreement::agree(private, &peer, CryptoError, |shared| {
            Ok(Secret::copy(shared))
        })
    }
}

impl Pending {
    /// The shared secret, with the public value that came back.
    ///
    /// # Errors
    /// When that is not one of this method's.
    pub fn finish(self, peer: &[u8]) -> Result<Secret, CryptoError> {
        match self.0 {
            Half::Curve(method, private) => method.agree(&private, peer),
            Half::MlKem(private) => {
                let ciphertext = Ciphertext::<MlKem768>::try_from(peer).map_err(|_| CryptoError)?;
                let mut shared = private.decapsulate(&ciphertext).map_err(|_| CryptoError)?;
                let secret = Secret::copy(&shared);
                shared.zeroize();
                Ok(secret)
            }
        }
    }
}
