// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Netlink, as little of it as the family `mml` and XFRM need; rtnetlink's messages are a library's ([`route`]).
//!
//! Of our own rather than a library's: a refusal's extended ack and the multicast group are the point here, and a
//! request with keys in it must be overwritten when it has been sent.

pub mod frame;
mod line;
pub mod route;
mod socket;

pub use line::Line;
pub use socket::{Error, Socket};
