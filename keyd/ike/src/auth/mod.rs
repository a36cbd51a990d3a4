// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who a peer is, and how it proves that (RFC 7296 §2.15).

mod der;
mod signature;
mod x509;

pub use signature::{PublicKey, SigningKey, HASHES};
pub use x509::{holds_address, Authorities};

use crate::crypto::Hash;
use crate::host::Host;
use crate::secret::Secret;
use crate::wire::{Auth, AuthMethod, Cert, CertEncoding, HashAlgorithm, Id, IdType};
use std::sync::Arc;

/// Why a peer is not who it says, or this side can't say who it is. None of it is told to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// A key that isn't one, or of a kind not spoken here.
    #[error("not a key of a kind that is spoken here")]
    Key,
    /// The peer takes no hash that goes with the key.
    #[error("the peer takes no hash that goes with this key")]
    Hash,
    /// The signature's scheme is not one spoken here, or not the key's.
    #[error("the signature's scheme is not one for this key")]
    Scheme,
    /// AUTH is wrong: another key, or another message than was sent.
    #[error("the proof is not over what was exchanged, or not by this key")]
    Signature,
    /// The chain doesn't lead to a trusted authority, or isn't valid now.
    #[error("the certificate is not trusted, or not valid now")]
    Certificate,
    /// The certificate is somebody else's.
    #[error("the certificate does not name the identity")]
    Name,
    /// No CERT came and none is configured, or the method is not the one agreed on.
    #[error("the peer proves itself in a way it was not configured for")]
    Method,
    /// Nobody by that name is configured.
    #[error("no connection is configured for this identity")]
    Unknown,
}

/// How this side proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A shared secret.
    Psk(Secret),
    /// A private key; the peer knows the public one, which is sent too (RFC 7670).
    RawKey(Arc<SigningKey>),
    /// A private key and the chain that says whose, DER, its own certificate first.
    Certificate(Arc<SigningKey>, Vec<Vec<u8>>),
}

/// How a peer has to prove who it is.
#[derive(Clone, Debug)]
pub enum Trust {
    /// A shared secret.
    Psk(Secret),
    /// This very key.
    RawKey(PublicKey),
    /// A certificate from one of these.
    Authorities(Arc<Authorities>),
}

/// Which identities are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdMatch {
    /// One.
    Exactly(Id),
    /// Host names within a domain, itself not among them.
    Within(String),
    /// Whoever proves itself.
    Any,
    /// None: of a connection that is no more.
    Nobody,
}

impl IdMatch {
    /// Whether `id` is among them.
    pub fn matches(&self, id: &Id) -> bool {
        match self {
            IdMatch::Exactly(one) => one == id,
            IdMatch::Within(domain) => {
                let name = id.data.to_ascii_lowercase();
                id.kind == IdType::FQDN
                    && name
                        .strip_suffix(domain.to_ascii_lowercase().as_bytes())
                        .and_then(|head| head.strip_suffix(b"."))
                        .is_some_and(|host| !host.is_empty())
            }
            IdMatch::Any => true,
            IdMatch::Nobody => false,
        }
    }
}

/// What AUTH is over (§2.15; RFC 9242 §3.3).
pub(crate) struct SignedOctets<'a> {
    /// The side's own IKE_SA_INIT message, octet by octet.
    pub message: &'a [u8],
    /// The other side's nonce.
    pub nonce: &'a [u8],
    /// SK_pi or SK_pr.
    pub sk_p: &'a Secret,
    /// The side's identity.
    pub id: &'a Id,
    /// IntAuth; empty without IKE_INTERMEDIATE.
    pub intermediate: &'a [u8],
}

impl SignedOctets<'_> {
    fn collect(&self, prf: Hash) -> Vec<u8> {
        let id = prf.prf(self.sk_p.expose(), &[&self.id.body()]);
        [self.message, self.nonce, id.expose(), self.intermediate].concat()
    }

    /// prf(prf(secret, "Key Pad for IKEv2"), octets).
    fn psk_key(prf: Hash, psk: &Secret) -> Secret {
        prf.prf(psk.expose(), &[b"Key Pad for IKEv2"])
    }

    /// This side's AUTH.
    pub fn prove(
        &self,
        prf: Hash,
        credential: &Credential,
        hashes: &[HashAlgorithm],
        host: &dyn Host,
    ) -> Result<Auth, AuthError> {
        let octets = self.collect(prf);
        match credential {
            Credential::Psk(psk) => Ok(Auth {
                method: AuthMethod::SHARED_KEY_MIC,
                data: prf
                    .prf(Self::psk_key(prf, psk).expose(), &[&octets])
                    .expose()
                    .to_vec(),
            }),
            Credential::RawKey(key) | Credential::Certificate(key, _) => Ok(Auth {
                method: AuthMethod::DIGITAL_SIGNATURE,
                data: key.sign(hashes, &octets, host)?,
            }),
        }
    }

    /// Checks the peer's AUTH, with the CERT payloads that came along, at `unix` seconds since 1970.
    pub fn check(
        &self,
        prf: Hash,
        trust: &Trust,
        auth: &Auth,
        certs: &[Cert],
        unix: u64,
    ) -> Result<(), AuthError> {
        let octets = self.collect(prf);
        match (trust, auth.method) {
            (Trust::Psk(psk), AuthMethod::SHARED_KEY_MIC) => {
                let key = Self::psk_key(prf, psk);
                if prf.verify(key.expose(), &[&octets], &auth.data) {
                    Ok(())
                } else {
                    Err(AuthError::Signature)
                }
            }
            (Trust::RawKey(key), AuthMethod::DIGITAL_SIGNATURE) => key.verify(&auth.data, &octets),
            (Trust::Authorities(authorities), AuthMethod::DIGITAL_SIGNATURE) => {
                let chain: Vec<&[u8]> = certs
                    .iter()
                    .filter(|cert| cert.encoding == CertEncoding::X509_SIGNATURE)
                    .map(|cert| cert.data.as_slice())
                    .collect();
                authorities
                    .check(&chain, self.id, unix)?
                    .verify(&auth.data, &octets)
            }
            _ => Err(AuthError::Method),
        }
    }
}
