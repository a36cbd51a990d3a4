// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The generic netlink family that carries the message (`netlink/mml.yaml` describes it in the kernel's form).

use core::ffi::CStr;

/// The family's name (docs/wire.md 2.1a).
pub const FAMILY: &CStr = c"mml";
/// The family's name as a string.
pub const FAMILY_NAME: &str = "mml";
/// The family's version.
pub const VERSION: u8 = 1;
/// The multicast group of ACQUIRE, EXPIRE, CSA_STATE, MIGRATE and NAT_T_NEW_MAPPING (docs/wire.md 2.1q).
pub const GROUP_EVENTS: &CStr = c"events";
/// The group's name as a string.
pub const GROUP_EVENTS_NAME: &str = "events";

/// Do, dump and event: a zone message in [`A_PFKEY`]. A dump's request holds an X_SPDDUMP or DUMP message
/// (docs/wire.md 2.1c).
pub const CMD_PFKEY: u8 = 1;
/// Dump: counters, one message for the namespace, then one for each CSA (docs/wire.md 2.1d).
pub const CMD_STATS: u8 = 2;
/// Do: settings, each a [`A_COUNTER`] (docs/wire.md 2.1e).
pub const CMD_SET: u8 = 3;

/// Binary: one zone message, whole (docs/wire.md 2.1f).
pub const A_PFKEY: u16 = 1;
/// String: `"namespace"`, `"csa"` or `"flow"`. In a dump's request, `"flow"` asks for SNOOP's flows instead of the rest.
pub const A_STATS_SCOPE: u16 = 2;
/// u32, big-endian: the CSA's SPI.
pub const A_SPI: u16 = 3;
/// Binary, 4 or 16 octets: the CSA's outer source.
pub const A_SRC: u16 = 4;
/// Binary, 4 or 16 octets: the CSA's outer destination.
pub const A_DST: u16 = 5;
/// u8: the CSA's role, numbered as in the CSA extension.
pub const A_ROLE: u16 = 6;
/// Nested, repeated: one [`A_NAME`], one [`A_VALUE`].
pub const A_COUNTER: u16 = 7;
/// String: what is counted or set.
pub const A_NAME: u16 = 8;
/// u64, host-endian: how many, or the setting's value.
pub const A_VALUE: u16 = 9;
/// Binary, 4 or 16 octets: the source of what is inside.
pub const A_INNER_SRC: u16 = 10;
/// Binary, 4 or 16 octets: the destination of what is inside.
pub const A_INNER_DST: u16 = 11;
/// The greatest attribute number.
pub const A_MAX: u16 = 11;

/// What a counter's name begins with where it is a setting read back (docs/wire.md 2.1h).
pub const SETTING_PREFIX: &str = "setting/";
