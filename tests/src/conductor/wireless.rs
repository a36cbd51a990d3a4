// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The lab's wireless link, which no scenario has a use for here.

/// Its module.
pub const MODULE: &str = "mml_lab";
