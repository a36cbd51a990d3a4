// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Secrets, keys and certificates, each in a file of its own, so that `keyd.toml` holds none and anyone may read it.

use super::file::{Auth, Connection};
use super::source::{Mistake, Source};
use crate::daemon::engine::Random;
use crate::private_file::PrivateFile;
use mml_ike::auth::{Authorities, Credential, PublicKey, SigningKey, Trust};
use mml_ike::secret::Secret;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use zeroize::Zeroizing;

/// Octets of the shortest shared secret that is taken: 128 bits, if they are random (RFC 7296 §2.15).
const MIN_SECRET: usize = 16;
/// Octets of the largest file of keys or certificates.
const MAX_LEN: u64 = 1 << 20;

/// Reads what a connection's `auth` asks for, relative to `folder`.
pub(super) fn read(
    source: &Source<'_>,
    folder: &Path,
    connection: &Connection,
) -> Result<(Credential, Trust), Mistake> {
    let reader = Reader {
        source,
        folder,
        connection,
    };
    let mut extra = connection.files();
    let wanted: &[&str] = match connection.auth.get_ref() {
        Auth::Psk => &["secret-file"],
        Auth::Key => &["key-file", "remote-key-file"],
        Auth::Certificate => &["key-file", "certificate-file", "authority-file"],
    };
    extra.retain(|(key, _)| !wanted.contains(key));
    if let Some((key, path)) = extra.first() {
        return Err(source.mistake(
            &path.span(),
            format_args!(
                "{key}: of no use with this `auth`, which goes with {}; remove it",
                wanted.join(", ")
            ),
        ));
    }
    match connection.auth.get_ref() {
        Auth::Psk => {
            let secret = reader.secret()?;
            Ok((Credential::Psk(secret.clone()), Trust::Psk(secret)))
        }
        Auth::Key => Ok((
            Credential::RawKey(Arc::new(reader.private_key()?)),
            Trust::RawKey(reader.public_key()?),
        )),
        Auth::Certificate => Ok((
            Credential::Certificate(
                Arc::new(reader.private_key()?),
                reader.certificates("certificate-file", &connection.certificate_file)?,
            ),
            Trust::Authorities(Arc::new(reader.authorities()?)),
        )),
    }
}

impl Connection {
    fn files(&self) -> Vec<(&'static str, &Spanned<PathBuf>)> {
        [
            ("secret-file", &self.secret_file),
            ("key-file", &self.key_file),
            ("certificate-file", &self.certificate_file),
            ("remote-key-file", &self.remote_key_file),
            ("authority-file", &self.authority_file),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path.as_ref()?)))
        .collect()
    }
}

/// The text of a file nobody but its owner can read.
fn private(
    source: &Source<'_>,
    key: &str,
    place: &Spanned<PathBuf>,
    path: &Path,
) -> Result<Zeroizing<String>, Mistake> {
    let file = PrivateFile::read(path)
        .map_err(|error| source.mistake(&place.span(), format_args!("{key}: {error}")))?;
    Ok(file.text)
}

/// A shared secret: the file's first line, as text or, behind `0x`, in hexadecimal.
pub(super) fn secret(
    source: &Source<'_>,
    place: &Spanned<PathBuf>,
    path: &Path,
) -> Result<Secret, Mistake> {
    let text = private(source, "secret-file", place, path)?;
    let wrong = |what: &str| source.mistake(&place.span(), format_args!("secret-file: {what}"));
    let mut lines = text.lines();
    let line = lines.next().unwrap_or("").trim();
    if lines.any(|more| !more.trim().is_empty()) {
        return Err(wrong(
            "more than one line in it; a shared secret is one line",
        ));
    }
    let secret = match line.strip_prefix("0x") {
        Some(digits) => {
            let octets = crate::hex::HexSecret::parse(digits)
                .ok_or_else(|| wrong("not hexadecimal behind `0x`; two digits an octet"))?;
            Secret::copy(octets.expose())
        }
        None => Secret::copy(line.as_bytes()),
    };
    if secret.len() < MIN_SECRET {
        return Err(wrong(
            "shorter than 16 octets, so that it could be guessed; make one with `openssl rand -hex 32`",
        ));
    }
    Ok(secret)
}

struct Reader<'a> {
    source: &'a Source<'a>,
    folder: &'a Path,
    connection: &'a Connection,
}

impl Reader<'_> {
    fn path<'p>(
        &self,
        key: &str,
        path: &'p Option<Spanned<PathBuf>>,
    ) -> Result<(&'p Spanned<PathBuf>, PathBuf), Mistake> {
        let Some(path) = path else {
            return Err(self.source.mistake(
                &self.connection.auth.span(),
                format_args!("{key}: missing; this `auth` needs it"),
            ));
        };
        Ok((path, self.folder.join(path.get_ref())))
    }

    /// A file nobody but its owner can read.
    fn private(
        &self,
        key: &str,
        path: &Option<Spanned<PathBuf>>,
    ) -> Result<(Zeroizing<String>, std::ops::Range<usize>), Mistake> {
        let (spanned, path) = self.path(key, path)?;
        let text = private(self.source, key, spanned, &path)?;
        Ok((text, spanned.span()))
    }

    fn secret(&self) -> Result<Secret, Mistake> {
        let (spanned, path) = self.path("secret-file", &self.connection.secret_file)?;
        secret(self.source, spanned, &path)
    }

    fn private_key(&self) -> Result<SigningKey, Mistake> {
        let (text, span) = self.private("key-file", &self.connection.key_file)?;
        PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .ok()
            .and_then(|der| {
                SigningKey::from_pkcs8(der.secret_pkcs8_der(), &Random::default()).ok()
            })
            .ok_or_else(|| {
                self.source.mistake(
                    &span,
                    "key-file: no private key of a kind that is spoken here in it; it is PKCS #8 in PEM, Ed25519, ECDSA \
                     (P-256, P-384) or RSA (2048 bits and more): `openssl genpkey -algorithm ed25519`",
                )
            })
    }

    fn public(
        &self,
        key: &str,
        path: &Option<Spanned<PathBuf>>,
    ) -> Result<(Vec<u8>, std::ops::Range<usize>), Mistake> {
        let (spanned, path) = self.path(key, path)?;
        let wrong = |what: String| {
            self.source.mistake(
                &spanned.span(),
                format_args!("{key}: {}: {what}", path.display()),
            )
        };
        let data = std::fs::metadata(&path).map_err(|error| wrong(error.to_string()))?;
        if !data.is_file() || data.len() > MAX_LEN {
            return Err(wrong("not a regular file of at most 1 MiB".to_owned()));
        }
        let octets = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        Ok((octets, spanned.span()))
    }

    fn public_key(&self) -> Result<PublicKey, Mistake> {
        let (octets, span) = self.public("remote-key-file", &self.connection.remote_key_file)?;
        SubjectPublicKeyInfoDer::from_pem_slice(&octets)
            .ok()
            .and_then(|der| PublicKey::from_spki(&der).ok())
            .ok_or_else(|| {
                self.source.mistake(
                    &span,
                    "remote-key-file: no public key of a kind that is spoken here in it; it is a PUBLIC KEY in PEM: \
                     `openssl pkey -in KEY -pubout`",
                )
            })
    }

    fn certificates(
        &self,
        key: &str,
        path: &Option<Spanned<PathBuf>>,
    ) -> Result<Vec<Vec<u8>>, Mistake> {
        let (octets, span) = self.public(key, path)?;
        let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets)
            .map(|der| der.map(|der| der.to_vec()))
            .collect();
        match list {
            Ok(list) if !list.is_empty() => Ok(list),
            _ => Err(self.source.mistake(
                &span,
                format_args!("{key}: no certificate in PEM in it; it has one, or a chain with its own in front"),
            )),
        }
    }

    fn authorities(&self) -> Result<Authorities, Mistake> {
        let path = &self.connection.authority_file;
        let list = self.certificates("authority-file", path)?;
        let (spanned, _) = self.path("authority-file", path)?;
        Authorities::new(list.iter().map(Vec::as_slice)).map_err(|_| {
            self.source.mistake(
                &spanned.span(),
                "authority-file: not a certificate of an authority; it is a CA's own, in PEM",
            )
        })
    }
}
