// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The scenarios, one room a file.

mod bad_packets;
mod ground;
mod guard;
mod mmlctl;
mod offload;
mod path;
mod relay;
mod teardown;
mod tunnel;
mod zone_messages;

use crate::scenario::Scenario;

/// The tables, in the order they run.
pub const TABLES: &[&[Scenario]] = &[ground::TABLE, tunnel::TABLE, path::TABLE, offload::TABLE, guard::TABLE, bad_packets::TABLE, relay::TABLE, zone_messages::TABLE, mmlctl::TABLE, teardown::TABLE];
