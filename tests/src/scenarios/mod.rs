// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The scenarios, one room a file.

mod ground;
mod path;
mod tunnel;

use crate::scenario::Scenario;

/// The tables, in the order they run.
pub const TABLES: &[&[Scenario]] = &[ground::TABLE, tunnel::TABLE, path::TABLE];
