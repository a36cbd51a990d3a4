// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Certificates made for one scenario, by `openssl`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command;

/// What a key is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    P256,
    Ed25519,
    Rsa4096,
}

/// An authority, a root or one below another.
pub struct Authority {
    folder: PathBuf,
    kind: Kind,
    name: &'static str,
    /// Its own certificate, PEM.
    pub certificate: String,
    /// Those between its own and the root, its own first; none for a root.
    between: Vec<String>,
}

/// Somebody with a key and a certificate.
pub struct Owner {
    /// The private key, PKCS #8 in PEM.
    pub key: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Those of the authorities between it and the root, PEM, the nearest first.
    pub between: Vec<String>,
}

impl Authority {
    /// A root. Names are not used twice in a scenario.
    pub fn root(name: &'static str, kind: Kind) -> Result<Self> {
        let folder = PathBuf::from(format!("/run/authority-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        private_key(&folder, name, kind)?;
        let certificate = certify(&folder, name, "authority", "", None)?;
        Ok(Self {
            folder,
            kind,
            name,
            certificate,
            between: Vec::new(),
        })
    }

    /// One that this one vouches for.
    pub fn below(&self, name: &'static str) -> Result<Self> {
        private_key(&self.folder, name, self.kind)?;
        let certificate = certify(&self.folder, name, "authority", "", Some(self.name))?;
        let between = [std::slice::from_ref(&certificate), &self.between].concat();
        Ok(Self {
            folder: self.folder.clone(),
            kind: self.kind,
            name,
            certificate,
            between,
        })
    }

    /// A key and a certificate for a host name.
    pub fn owner(&self, host: &str) -> Result<Owner> {
        let key = private_key(&self.folder, host, self.kind)?;
        let names = format!("subjectAltName = DNS:{host}\n");
        let certificate = certify(&self.folder, host, "owner", &names, Some(self.name))?;
        Ok(Owner {
            key,
            certificate,
            between: self.between.clone(),
        })
    }
}

impl Owner {
    /// The certificate and those between it and the root, in one file.
    pub fn chain(&self) -> String {
        self.between
            .iter()
            .fold(self.certificate.clone(), |mut all, one| {
                let _ = write!(all, "{one}");
                all
            })
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path")
}

fn private_key(folder: &Path, name: &str, kind: Kind) -> Result<String> {
    let path = folder.join(format!("{name}.key"));
    let algorithm: &[&str] = match kind {
        Kind::P256 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        Kind::Ed25519 => &["ED25519"],
        Kind::Rsa4096 => &["RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
    };
    let out = ["-out", text(&path)?];
    command::run(
        &[
            &["openssl", "genpkey", "-quiet", "-algorithm"],
            algorithm,
            &out,
        ]
        .concat(),
    )?;
    Ok(fs::read_to_string(path)?)
}

/// RFC 4945 §5: what a certificate for IKE holds.
fn certify(
    folder: &Path,
    name: &str,
    section: &str,
    more: &str,
    by: Option<&str>,
) -> Result<String> {
    let settings = format!(
        "[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[owner]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = 1.3.6.1.5.5.7.3.17
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{more}"
    );
    let path = |end: &str| folder.join(format!("{name}.{end}"));
    let (settings_file, key, certificate) = (path("cnf"), path("key"), path("pem"));
    fs::write(&settings_file, settings)?;
    let mut words = vec!["openssl", "req", "-x509", "-new", "-days", "30", "-config"];
    words.extend([text(&settings_file)?, "-extensions", section]);
    words.extend(["-key", text(&key)?, "-out", text(&certificate)?]);
    let issuer = by.map(|by| {
        let path = |end: &str| folder.join(format!("{by}.{end}"));
        (path("pem"), path("key"))
    });
    if let Some((certificate, key)) = &issuer {
        words.extend(["-CA", text(certificate)?, "-CAkey", text(key)?]);
    }
    command::run(&words)?;
    Ok(fs::read_to_string(certificate)?)
}
