// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the host asks for (`/run.json`).

use anyhow::{Context, Result};
use serde::Deserialize;

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Test,
    Demo,
}

/// The host's order. Unknown fields are refused: a misspelt option must not be silently ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub mode: Mode,
    /// Scenarios to run; empty: all.
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub options: Options,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Octets of the demo's file.
    pub bytes: Option<u64>,
    /// Factor on every time-out.
    pub patience: Option<f64>,
    /// Stop at the first scenario that fails.
    pub fail_fast: bool,
    /// Nobody asks for it where nodes are guests; the frame around the scenarios knows it.
    pub handoffs: Option<u32>,
    /// Likewise.
    pub virtual_time: bool,
}

impl RunConfig {
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/run.json").context("/run.json")?;
        serde_json::from_str(&text).context("/run.json")
    }
}
