// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The CSA files `mmlctl csa new` writes, read for their keys: the tests must know them to seal, open and attack.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::zone_esp::Sa;

/// The two directions of one tunnel.
#[derive(Clone)]
pub struct Keys {
    pub to_mh: Sa,
    pub from_mh: Sa,
}

/// Reads both directions from the mobile host's file: its origin and its terminus.
pub fn read(file: &Path) -> Result<Keys> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let document: toml::Value =
        toml::from_str(&text).with_context(|| file.display().to_string())?;
    let _ = (document, Ipv4Addr::LOCALHOST);
    anyhow::bail!("not yet")
}
