// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Daemons of one process over the loopback device, with kernels that only remember.

mod addresses;
mod agents;
mod alarms;
mod bad_days;
mod control;
mod days;
mod leaving;
mod life;
mod mobile;
mod multicast;
mod negotiate;
mod net;
mod recorder;
mod reload;
#[path = "../../mip/tests/sim/mod.rs"]
mod sim;
mod strangers;
mod waits;
