// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The CSA files `mmlctl csa new` writes, read for their keys: the tests must know them to open what they captured.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use crate::aead::ZoneKey;
use crate::zone_esp::Sa;
use crate::zone_tunnel::{Keys, CIPHERS};

#[derive(Deserialize)]
struct File {
    csa: Vec<Csa>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Csa {
    role: String,
    spi: u32,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    /// `transport-end`, or an octet.
    map: Option<toml::Value>,
    #[serde(default)]
    may_write: bool,
    zone1: Zone,
    zone2: Option<Zone>,
}

#[derive(Deserialize)]
struct Zone {
    algorithm: String,
    key: String,
    salt: String,
}

/// Reads both directions from the mobile host's file: its origin and its terminus.
pub fn read(file: &Path) -> Result<Keys> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let file: File = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let of = |role: &str| -> Result<Sa> {
        let csa = file
            .csa
            .iter()
            .find(|csa| csa.role == role)
            .with_context(|| format!("no {role} in the file"))?;
        csa.sa()
    };
    Ok(Keys {
        to_mh: of("terminus")?,
        from_mh: of("origin")?,
    })
}

impl Csa {
    fn sa(&self) -> Result<Sa> {
        let zone2 = self
            .zone2
            .as_ref()
            .context("no zone 2 in the file of an end")?;
        let stop = match &self.map {
            None => None,
            Some(toml::Value::Integer(octets)) => Some(usize::try_from(*octets)?),
            Some(toml::Value::String(name)) if name == "transport-end" => None,
            Some(other) => bail!("zone map {other}"),
        };
        Ok(Sa {
            spi: self.spi,
            source: self.src,
            destination: self.dst,
            zones: [self.zone1.key()?, zone2.key()?],
            stop,
            may_write: self.may_write,
        })
    }
}

impl Zone {
    fn key(&self) -> Result<ZoneKey> {
        let cipher = CIPHERS
            .iter()
            .find(|cipher| cipher.name == self.algorithm)
            .with_context(|| format!("algorithm {}", self.algorithm))?;
        let (key, salt) = (octets(&self.key)?, octets(&self.salt)?);
        ensure!(
            key.len() == cipher.key,
            "a key of {} octets for {}",
            key.len(),
            cipher.name
        );
        let salt = *salt.first_chunk().context("a salt has 4 octets")?;
        Ok(ZoneKey {
            encr: cipher.encr,
            key,
            salt,
        })
    }
}

fn octets(hex: &str) -> Result<Vec<u8>> {
    ensure!(
        hex.len() % 2 == 0 && hex.is_ascii(),
        "hex digits come in pairs"
    );
    (0..hex.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?))
        .collect()
}
