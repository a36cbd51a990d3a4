// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IKEv2 (RFC 7296) and ML-IKE (docs/wire.md §3): octets and time in, octets and events out.
#![forbid(unsafe_code)]

pub mod auth;
pub mod config;
pub mod crypto;
mod endpoint;
pub mod event;
pub mod host;
pub mod negotiate;
pub mod pool;
mod sa;
pub mod secret;
pub mod wire;
mod zones;

pub use endpoint::{Endpoint, Refused};
