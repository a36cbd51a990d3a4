// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon `keyd`: the key manager of a node (docs/keyd.md).
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `keyd.toml`, read and checked whole |
//! | [`kernel`] | where SAs and policies are: `mml` (zone message) and XFRM, behind one trait |
//! | [`engine`] | what is decided: the protocol's end point, the kernels and the book of what is installed, without sockets |
//! | [`device`] | the device that seals, its addresses, and what leads into it |
//! | [`mobility`] | Mobile IP: sockets, tunnels and routes |
//! | [`udp`] | ports 500 and 4500 |
//! | [`control`] | the local socket that `mmlctl` speaks with |
//! | [`metrics`] | counters as Prometheus reads them |
//! | [`log`] | the log, and its last lines for `mmlctl log` |
//! | [`waits`] | clients of the control socket that wait until a connection is up |
//! | `farewell` | the end that peers are told of |
//! | [`run`] | sockets, clock and signals around the engine |

pub mod config;
pub mod control;
pub mod device;
pub mod engine;
mod farewell;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod mobility;
pub mod run;
pub mod udp;
pub mod waits;
