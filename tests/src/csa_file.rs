// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The CSA files `mmlctl csa new` writes, read for their keys: the tests must know them to open what they captured.

use std::path::Path;

use anyhow::{Context, Result};

use crate::zone_tunnel::Keys;

/// Reads both directions from the mobile host's file: its origin and its terminus.
pub fn read(file: &Path) -> Result<Keys> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let document: toml::Value = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let _ = document;
    anyhow::bail!("not yet")
}
