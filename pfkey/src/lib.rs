// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The zone message: PF_KEYv2 (RFC 2367) with the extensions of the zones, as daemon and module speak it.
//!
//! The one codec of both sides (docs/wire.md §2). A message comes in through [`Message::parse`], which takes it whole
//! or refuses it whole, and is read through typed accessors that borrow from it. It goes out through a [`Writer`] into
//! the caller's buffer. What a request must hold beyond its form is said by [`Csa`], [`CsaId`], [`CsaUpdate`] and
//! [`Policy`], pure functions that both sides call, so that a mistake gets the same words wherever it is found.
//!
//! Nothing here allocates, reads a clock or knows a kernel type. Every integer is host-endian, but for addresses, ports
//! and SPIs, which are big-endian on the wire and host integers in the structures (docs/wire.md 2b).
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod algorithm;
mod csa;
mod encap;
mod error;
mod extension;
pub mod genl;
mod getspi;
mod id;
mod message;
pub mod number;
mod policy;
mod reader;
mod selector;
mod standard;
mod text;
mod writer;
mod zone;

pub use address::{Address, Family};
pub use algorithm::{Algorithm, ICV_LEN, SALT_LEN};
pub use csa::{check_lifetimes, Csa, ZONES};
pub use encap::{Encap, Migrate, NewMapping};
pub use error::{errno, Error};
pub use extension::Extension;
pub use getspi::SpiRequest;
pub use id::{CsaId, CsaUpdate};
pub use message::{Extensions, Header, Iter, Message, HEADER_LEN, MAX_LEN};
pub use policy::{Policy, PolicyId};
pub use reader::Secret;
pub use selector::{PortRange, Selector};
pub use standard::{
    Comb, Identity, Key, Lifetime, NatPort, NatType, PolicyExt, Proposal, Sa, Sensitivity,
    SpiRange, Supported, SupportedAlg,
};
pub use writer::Writer;
pub use zone::{
    Binding, CsaExt, Mode, Relay, Role, Snoop, SnoopState, State, ZoneKeys, ZoneMap, ZoneSa, END,
    MAX_BINDING, MAX_SNOOP_STATE, MAX_ZONES, TRANSPORT_END, WINDOW_DEFAULT, WINDOW_MAX, WINDOW_MIN,
};
