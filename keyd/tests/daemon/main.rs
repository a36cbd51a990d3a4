// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Daemons of one process over the loopback device, with kernels that only remember.

mod alarms;
mod control;
mod life;
mod mobile;
mod multicast;
mod negotiate;
mod net;
mod recorder;
mod reload;
