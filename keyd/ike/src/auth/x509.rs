// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Certificates (RFC 4945): chains are checked by webpki, names against the IKE identity here.

use super::der;
use super::signature::PublicKey;
use super::AuthError;
use crate::wire::{Id, IdType};
use ring::digest;
use rustls_pki_types::{
    CertificateDer, DnsName, IpAddr as PkiAddress, Ipv4Addr, Ipv6Addr, ServerName, TrustAnchor,
    UnixTime,
};
use std::net::IpAddr;
use std::time::Duration;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

/// Certificates whose owners say who others are.
#[derive(Clone, Debug)]
pub struct Authorities(Vec<TrustAnchor<'static>>);

impl Authorities {
    /// The CA certificates, DER.
    ///
    /// # Errors
    /// [`AuthError::Certificate`] when one isn't a certificate.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, AuthError> {
        let anchor = |der: &[u8]| {
            let der = CertificateDer::from(der);
            webpki::anchor_from_trusted_cert(&der)
                .map(|anchor| anchor.to_owned())
                .map_err(|_| AuthError::Certificate)
        };
        let anchors: Result<_, _> = certificates.into_iter().map(anchor).collect();
        Ok(Authorities(anchors?))
    }

    /// What CERTREQ names them by: SHA-1 of each SubjectPublicKeyInfo (RFC 7296 §3.7).
    pub fn hashes(&self) -> Vec<[u8; 20]> {
        let hash = |anchor: &TrustAnchor<'_>| {
            let info = der::wrap(der::SEQUENCE, &anchor.subject_public_key_info);
            let mut hash = [0; 20];
            let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &info);
            hash.copy_from_slice(sum.as_ref());
            hash
        };
        self.0.iter().map(hash).collect()
    }

    /// The key of the certificate in front, if the chain leads to one of these, holds at `unix` seconds since 1970, and
    /// its owner may call itself `id`.
    ///
    /// # Errors
    /// [`AuthError::Certificate`] for a chain that doesn't hold, [`AuthError::Name`] for another's name.
    pub fn check(&self, chain: &[&[u8]], id: &Id, unix: u64) -> Result<PublicKey, AuthError> {
        let (end, between) = chain.split_first().ok_or(AuthError::Certificate)?;
        let end = CertificateDer::from(*end);
        let certificate = EndEntityCert::try_from(&end).map_err(|_| AuthError::Certificate)?;
        let between: Vec<_> = between
            .iter()
            .map(|der| CertificateDer::from(*der))
            .collect();
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.0,
                &between,
                UnixTime::since_unix_epoch(Duration::from_secs(unix)),
                Purpose,
                None,
                None,
            )
            .map_err(|_| AuthError::Certificate)?;
        if !is_called(&certificate, id) {
            return Err(AuthError::Name);
        }
        PublicKey::from_spki(&certificate.subject_public_key_info())
    }
}

/// Whether the certificate (DER; checked before) names that address.
pub fn holds_address(certificate: &[u8], address: IpAddr) -> bool {
    let der = CertificateDer::from(certificate);
    EndEntityCert::try_from(&der).is_ok_and(|certificate| names_address(&certificate, address))
}

fn names_address(certificate: &EndEntityCert<'_>, address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V4(a) => PkiAddress::V4(Ipv4Addr::from(a.octets())),
        IpAddr::V6(a) => PkiAddress::V6(Ipv6Addr::from(a.segments())),
    };
    certificate
        .verify_is_valid_for_subject_name(&ServerName::IpAddress(address))
        .is_ok()
}

/// RFC 4945 §3.1: the identity must be the certificate's own. Names of mail boxes and opaque keys cannot be found in it.
fn is_called(certificate: &EndEntityCert<'_>, id: &Id) -> bool {
    match id.kind {
        IdType::DER_ASN1_DN => {
            der::whole(&id.data, der::SEQUENCE).is_some_and(|dn| dn == certificate.subject())
        }
        IdType::FQDN => std::str::from_utf8(&id.data)
            .ok()
            .and_then(|name| DnsName::try_from(name).ok())
            .is_some_and(|name| {
                certificate
                    .verify_is_valid_for_subject_name(&ServerName::DnsName(name))
                    .is_ok()
            }),
        IdType::IPV4_ADDR => <[u8; 4]>::try_from(id.data.as_slice())
            .is_ok_and(|octets| names_address(certificate, octets.into())),
        IdType::IPV6_ADDR => <[u8; 16]>::try_from(id.data.as_slice())
            .is_ok_and(|octets| names_address(certificate, octets.into())),
        _ => false,
    }
}

/// An extended key usage that lets its owner speak IKE: none at all, any, IPsec's (RFC 4945 §5.1.3.12), or TLS's, which
/// is what certificates of gateways carry for other vendors' sake.
struct Purpose;

/// id-kp-serverAuth, id-kp-clientAuth, id-kp-ipsecIKE; iKEIntermediate; anyExtendedKeyUsage.
const PURPOSES: [&[usize]; 5] = [
    &[1, 3, 6, 1, 5, 5, 7, 3, 1],
    &[1, 3, 6, 1, 5, 5, 7, 3, 2],
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[1, 3, 6, 1, 5, 5, 8, 2, 2],
    &[2, 5, 29, 37, 0],
];

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut none = true;
        for purpose in purposes {
            none = false;
            let purpose: Vec<usize> = purpose?.to_decoded_oid();
            if PURPOSES.contains(&purpose.as_slice()) {
                return Ok(());
            }
        }
        if none {
            Ok(())
        } else {
            #[expect(
                deprecated,
                reason = "the newer one names a KeyUsage, which this is not"
            )]
            Err(webpki::Error::RequiredEkuNotFound)
        }
    }
}
