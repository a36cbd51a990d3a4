// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! CERT and CERTREQ (RFC 7296 §3.6, §3.7): what is sent, what is asked for, what came.

use crate::auth::{Credential, Trust};
use crate::wire::{Cert, CertEncoding, CertReq, Payload};

/// Certificates taken from one message.
const MAX_CERTS: usize = 16;
/// Authorities that IKE_SA_INIT names.
const MAX_NAMED: usize = 16;

/// What proves whose key it is.
pub(super) fn certificates(credential: &Credential) -> Vec<Payload> {
    let cert = |encoding, data: &[u8]| {
        Payload::Cert(Cert {
            encoding,
            data: data.to_vec(),
        })
    };
    match credential {
        Credential::Psk(_) => Vec::new(),
        Credential::RawKey(key) => vec![cert(CertEncoding::RAW_PUBLIC_KEY, &key.public())],
        Credential::Certificate(_, chain) => chain
            .iter()
            .map(|der| cert(CertEncoding::X509_SIGNATURE, der))
            .collect(),
    }
}

/// What certificates are wanted of a peer that may be any of those; one payload a kind (§3.7).
pub(super) fn requests<'a>(trusts: impl Iterator<Item = &'a Trust>) -> Vec<Payload> {
    let mut wanted: Vec<CertReq> = Vec::new();
    for trust in trusts {
        let (encoding, authorities) = match trust {
            Trust::Psk(_) => continue,
            Trust::RawKey(_) => (CertEncoding::RAW_PUBLIC_KEY, Vec::new()),
            Trust::Authorities(authorities) => (CertEncoding::X509_SIGNATURE, authorities.hashes()),
        };
        match wanted.iter_mut().find(|one| one.encoding == encoding) {
            None => wanted.push(CertReq {
                encoding,
                authorities,
            }),
            Some(one) => {
                for hash in authorities {
                    if !one.authorities.contains(&hash) {
                        one.authorities.push(hash);
                    }
                }
            }
        }
    }
    wanted.into_iter().map(Payload::CertReq).collect()
}

/// A message that can't be cut up doesn't name many authorities; naming none asks for any.
pub(super) fn few_authorities(request: Payload) -> Payload {
    match request {
        Payload::CertReq(CertReq {
            encoding,
            authorities,
        }) if authorities.len() > MAX_NAMED => Payload::CertReq(CertReq {
            encoding,
            authorities: Vec::new(),
        }),
        other => other,
    }
}

/// What the peer sent.
pub(super) fn certs(payloads: &[Payload]) -> Vec<Cert> {
    let certs = payloads.iter().filter_map(|payload| match payload {
        Payload::Cert(cert) => Some(cert.clone()),
        _ => None,
    });
    certs.take(MAX_CERTS).collect()
}

/// The peer's own certificate, DER.
pub(super) fn own_certificate(trust: &Trust, certs: &[Cert]) -> Option<Vec<u8>> {
    matches!(trust, Trust::Authorities(_))
        .then(|| certs.first().map(|cert| cert.data.clone()))
        .flatten()
}
