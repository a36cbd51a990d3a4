// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the lab needs of the machine.

use std::path::Path;

use crate::build_root::Mode;
use crate::error::Result;

/// Fails when something is missing.
pub fn require(_mode: Mode, _cache: &Path) -> Result<()> {
    Ok(())
}
