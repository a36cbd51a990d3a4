// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Digital signatures (RFC 7427), Ed25519 (RFC 8420), and bare public keys (RFC 7670).

use super::der;
use super::AuthError;
use crate::host::Host;
use crate::wire::reader::Reader;
use crate::wire::HashAlgorithm;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use std::fmt;

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
/// 2.16.840.1.101.3.4.2, the SHA-2 family; the last arc says which.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The hashes this side checks signatures over, for SIGNATURE_HASH_ALGORITHMS.
pub const HASHES: [HashAlgorithm; 4] = [
    HashAlgorithm::SHA2_256,
    HashAlgorithm::SHA2_384,
    HashAlgorithm::SHA2_512,
    HashAlgorithm::IDENTITY,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sha2 {
    Sha256,
    Sha384,
    Sha512,
}

impl Sha2 {
    const ALL: [Sha2; 3] = [Sha2::Sha256, Sha2::Sha384, Sha2::Sha512];

    fn arc(self) -> u8 {
        match self {
            Sha2::Sha256 => 1,
            Sha2::Sha384 => 2,
            Sha2::Sha512 => 3,
        }
    }

    fn len(self) -> u8 {
        match self {
            Sha2::Sha256 => 32,
            Sha2::Sha384 => 48,
            Sha2::Sha512 => 64,
        }
    }

    fn ike(self) -> HashAlgorithm {
        match self {
            Sha2::Sha256 => HashAlgorithm::SHA2_256,
            Sha2::Sha384 => HashAlgorithm::SHA2_384,
            Sha2::Sha512 => HashAlgorithm::SHA2_512,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Ed25519,
    Ecdsa(Sha2),
    RsaPss(Sha2),
}

impl Scheme {
    /// The AlgorithmIdentifier, DER.
    fn encode(self) -> Vec<u8> {
        let oid = |oid| der::wrap(der::OID, oid);
        match self {
            Scheme::Ed25519 => der::wrap(der::SEQUENCE, &oid(ED25519)),
            Scheme::Ecdsa(Sha2::Sha384) => der::wrap(der::SEQUENCE, &oid(ECDSA_SHA384)),
            Scheme::Ecdsa(_) => der::wrap(der::SEQUENCE, &oid(ECDSA_SHA256)),
            Scheme::RsaPss(hash) => {
                let arc = [SHA2, &[hash.arc()]].concat();
                let hash_id = der::wrap(der::SEQUENCE, &[oid(&arc), vec![der::NULL, 0]].concat());
                let mgf = der::wrap(der::SEQUENCE, &[oid(MGF1), hash_id.clone()].concat());
                let salt = der::wrap(der::INTEGER, &[hash.len()]);
                let parameters = [
                    der::wrap(0xA0, &hash_id),
                    der::wrap(0xA1, &mgf),
                    der::wrap(0xA2, &salt),
                ];
                let parameters = der::wrap(der::SEQUENCE, &parameters.concat());
                der::wrap(der::SEQUENCE, &[oid(RSASSA_PSS), parameters].concat())
            }
        }
    }

    fn decode(identifier: &[u8]) -> Option<Self> {
        let mut r = Reader::new(der::whole(identifier, der::SEQUENCE)?);
        let scheme = match der::expect(&mut r, der::OID)? {
            ED25519 => Scheme::Ed25519,
            ECDSA_SHA256 => Scheme::Ecdsa(Sha2::Sha256),
            ECDSA_SHA384 => Scheme::Ecdsa(Sha2::Sha384),
            RSASSA_PSS => Scheme::RsaPss(pss(der::expect(&mut r, der::SEQUENCE)?)?),
            _ => return None,
        };
        r.is_empty().then_some(scheme)
    }
}

/// One SHA-2 for hash and mask, the salt as long as its output, the trailer left out or 1 (RFC 4055 §3.1): what ring
/// checks, and what anyone sends.
fn pss(parameters: &[u8]) -> Option<Sha2> {
    let mut r = Reader::new(parameters);
    let hash = sha2(der::whole(der::expect(&mut r, 0xA0)?, der::SEQUENCE)?)?;
    let mut mask = Reader::new(der::whole(der::expect(&mut r, 0xA1)?, der::SEQUENCE)?);
    let mgf1 = der::expect(&mut mask, der::OID)? == MGF1
        && sha2(der::expect(&mut mask, der::SEQUENCE)?)? == hash
        && mask.is_empty();
    let salt = der::whole(der::expect(&mut r, 0xA2)?, der::INTEGER)? == [hash.len()];
    let trailer = r.is_empty()
        || der::whole(der::expect(&mut r, 0xA3)?, der::INTEGER)? == [1] && r.is_empty();
    (mgf1 && salt && trailer).then_some(hash)
}

/// A hash's AlgorithmIdentifier without its SEQUENCE, its parameters NULL or left out.
fn sha2(identifier: &[u8]) -> Option<Sha2> {
    let mut r = Reader::new(identifier);
    let arc = der::expect(&mut r, der::OID)?.strip_prefix(SHA2)?;
    if !r.is_empty() && !der::expect(&mut r, der::NULL)?.is_empty() || !r.is_empty() {
        return None;
    }
    Sha2::ALL.into_iter().find(|hash| arc == [hash.arc()])
}

/// A private key.
pub struct SigningKey(Private);

enum Private {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Private::Ed25519(_) => "SigningKey(Ed25519)",
            Private::P256(_) => "SigningKey(P-256)",
            Private::P384(_) => "SigningKey(P-384)",
            Private::Rsa(_) => "SigningKey(RSA)",
        })
    }
}

impl SigningKey {
    /// The key in a PKCS #8 document: Ed25519, ECDSA over P-256 or P-384, or RSA of 2048 bits and more.
    ///
    /// # Errors
    /// [`AuthError::Key`] when it is none of these.
    pub fn from_pkcs8(document: &[u8], host: &dyn Host) -> Result<Self, AuthError> {
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document) {
            return Ok(SigningKey(Private::Ed25519(key)));
        }
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, document, host.secure());
        if let Ok(key) = ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING) {
            return Ok(SigningKey(Private::P256(key)));
        }
        if let Ok(key) = ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING) {
            return Ok(SigningKey(Private::P384(key)));
        }
        RsaKeyPair::from_pkcs8(document)
            .map(|key| SigningKey(Private::Rsa(key)))
            .map_err(|_| AuthError::Key)
    }

    /// The SubjectPublicKeyInfo, DER: what a raw public key is sent as.
    pub fn public(&self) -> Vec<u8> {
        let oid = |oid| der::wrap(der::OID, oid);
        let (algorithm, key) = match &self.0 {
            Private::Ed25519(key) => (oid(ED25519), key.public_key().as_ref()),
            Private::P256(key) => (
                [oid(EC_PUBLIC_KEY), oid(P256)].concat(),
                key.public_key().as_ref(),
            ),
            Private::P384(key) => (
                [oid(EC_PUBLIC_KEY), oid(P384)].concat(),
                key.public_key().as_ref(),
            ),
            Private::Rsa(key) => (
                [oid(RSA_ENCRYPTION), vec![der::NULL, 0]].concat(),
                key.public_key().as_ref(),
            ),
        };
        let bits = der::wrap(der::BIT_STRING, &[&[0], key].concat());
        let info = [der::wrap(der::SEQUENCE, &algorithm), bits].concat();
        der::wrap(der::SEQUENCE, &info)
    }

    /// AUTH's data over `octets`, with a hash the peer takes: length ‖ AlgorithmIdentifier ‖ signature (RFC 7427 §3).
    ///
    /// # Errors
    /// [`AuthError::Hash`] when the peer takes none that goes with the key.
    pub fn sign(
        &self,
        hashes: &[HashAlgorithm],
        octets: &[u8],
        host: &dyn Host,
    ) -> Result<Vec<u8>, AuthError> {
        let takes = |hash: Sha2| hashes.contains(&hash.ike());
        let (scheme, taken) = match &self.0 {
            Private::Ed25519(_) => (Scheme::Ed25519, hashes.contains(&HashAlgorithm::IDENTITY)),
            Private::P256(_) => (Scheme::Ecdsa(Sha2::Sha256), takes(Sha2::Sha256)),
            Private::P384(_) => (Scheme::Ecdsa(Sha2::Sha384), takes(Sha2::Sha384)),
            Private::Rsa(_) => {
                let hash = Sha2::ALL.into_iter().find(|hash| takes(*hash));
                (Scheme::RsaPss(hash.unwrap_or(Sha2::Sha256)), hash.is_some())
            }
        };
        if !taken {
            return Err(AuthError::Hash);
        }
        let failed = |_| AuthError::Key;
        let signature = match (&self.0, scheme) {
            (Private::Ed25519(key), _) => key.sign(octets).as_ref().to_vec(),
            (Private::P256(key) | Private::P384(key), _) => {
                let signed = key.sign(host.secure(), octets).map_err(failed)?;
                signed.as_ref().to_vec()
            }
            (Private::Rsa(key), scheme) => {
                let padding = match scheme {
                    Scheme::RsaPss(Sha2::Sha384) => &signature::RSA_PSS_SHA384,
                    Scheme::RsaPss(Sha2::Sha512) => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PSS_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, host.secure(), octets, &mut signature)
                    .map_err(failed)?;
                signature
            }
        };
        let identifier = scheme.encode();
        let length = u8::try_from(identifier.len()).map_err(|_| AuthError::Key)?;
        Ok([&[length], identifier.as_slice(), &signature].concat())
    }
}

/// A public key: the kinds [`SigningKey`] has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    kind: Kind,
    key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ed25519,
    P256,
    P384,
    Rsa,
}

impl PublicKey {
    /// The key in a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`AuthError::Key`] when it isn't one, or of a kind not spoken here.
    pub fn from_spki(info: &[u8]) -> Result<Self, AuthError> {
        Self::parse(info).ok_or(AuthError::Key)
    }

    fn parse(info: &[u8]) -> Option<Self> {
        let mut r = Reader::new(der::whole(info, der::SEQUENCE)?);
        let mut algorithm = Reader::new(der::expect(&mut r, der::SEQUENCE)?);
        let bits = der::expect(&mut r, der::BIT_STRING)?;
        let (unused, key) = bits.split_first()?;
        let kind = match der::expect(&mut algorithm, der::OID)? {
            ED25519 => Kind::Ed25519,
            RSA_ENCRYPTION => Kind::Rsa,
            EC_PUBLIC_KEY => match der::expect(&mut algorithm, der::OID)? {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return None,
            },
            _ => return None,
        };
        (r.is_empty() && *unused == 0).then(|| PublicKey {
            kind,
            key: key.to_vec(),
        })
    }

    /// Whether AUTH's `data` is this key's signature over `octets`.
    ///
    /// # Errors
    /// [`AuthError::Signature`] when it isn't, [`AuthError::Scheme`] when the scheme is not one spoken here.
    pub fn verify(&self, data: &[u8], octets: &[u8]) -> Result<(), AuthError> {
        let (length, rest) = data.split_first().ok_or(AuthError::Scheme)?;
        let (identifier, signature) = rest
            .split_at_checked(usize::from(*length))
            .ok_or(AuthError::Scheme)?;
        let scheme = Scheme::decode(identifier).ok_or(AuthError::Scheme)?;
        let algorithm: &dyn signature::VerificationAlgorithm = match (self.kind, scheme) {
            (Kind::Ed25519, Scheme::Ed25519) => &signature::ED25519,
            (Kind::P256, Scheme::Ecdsa(Sha2::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (Kind::P256, Scheme::Ecdsa(Sha2::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
            (Kind::P384, Scheme::Ecdsa(Sha2::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
            (Kind::P384, Scheme::Ecdsa(Sha2::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (Kind::Rsa, Scheme::RsaPss(Sha2::Sha256)) => &signature::RSA_PSS_2048_8192_SHA256,
            (Kind::Rsa, Scheme::RsaPss(Sha2::Sha384)) => &signature::RSA_PSS_2048_8192_SHA384,
            (Kind::Rsa, Scheme::RsaPss(Sha2::Sha512)) => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return Err(AuthError::Scheme),
        };
        UnparsedPublicKey::new(algorithm, &self.key)
            .verify(octets, signature)
            .map_err(|_| AuthError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 7427, appendix A.
    #[test]
    fn algorithm_identifiers_are_the_rfcs() {
        let known = [
            (Scheme::Ecdsa(Sha2::Sha256), "300a06082a8648ce3d040302"),
            (Scheme::Ecdsa(Sha2::Sha384), "300a06082a8648ce3d040303"),
            (Scheme::Ed25519, "300506032b6570"),
            (
                Scheme::RsaPss(Sha2::Sha256),
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500
                 a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
            ),
        ];
        for (scheme, hex) in known {
            assert_eq!(scheme.encode(), octets(hex), "{scheme:?}");
            assert_eq!(Scheme::decode(&octets(hex)), Some(scheme));
        }
    }

    #[test]
    fn a_pss_identifier_with_its_trailer_or_without_nulls_is_understood() {
        let with_trailer = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101";
        assert_eq!(
            Scheme::decode(&octets(with_trailer)),
            Some(Scheme::RsaPss(Sha2::Sha256))
        );
        let without_nulls = "303d06092a864886f70d01010a3030a00d300b0609608648016503040201
             a11a301806092a864886f70d010108300b0609608648016503040201a203020120";
        assert_eq!(
            Scheme::decode(&octets(without_nulls)),
            Some(Scheme::RsaPss(Sha2::Sha256))
        );
    }

    #[test]
    fn a_pss_identifier_of_two_hashes_or_another_salt_is_refused() {
        let good = Scheme::RsaPss(Sha2::Sha256).encode();
        let mut salt = good.clone();
        *salt.last_mut().unwrap() = 20;
        assert_eq!(Scheme::decode(&salt), None);
        let mut mask = good;
        let at = mask.len() - 8;
        assert_eq!(mask[at], 1);
        mask[at] = 2;
        assert_eq!(Scheme::decode(&mask), None);
    }
}
