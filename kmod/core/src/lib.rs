// SPDX-License-Identifier: GPL-2.0-only
//! The parts of ML-IPsec's data path that are arithmetic on octets: no kernel types, no allocation, no I/O.
//!
//! The kernel module and the host's tests compile this same source. The specification is the zone ESP format,
//! `docs/wire.md` §1; integers on the wire are big-endian, lengths and offsets are in octets.
//!
//! | module | what it holds |
//! |---|---|
//! | [`zone`] | zone map: where zone 1 ends, and which checksum moves |
//! | [`esp`] | zone ESP header, layout, nonces, trailer, AAD, drop reasons |
//! | [`replay`] | anti-replay window with extended sequence numbers |
//! | [`lifetime`] | limits of packets, octets and time, and when they are told |
//! | [`packet`] | one packet sealed, opened, read and rewritten: the reference composition of the rest |
//! | [`window`] | the TCP window that a writing relay lowers |
//! | [`snoop`] | an access router's repairs of TCP flows over a wireless hop |
//! | [`ip`], [`tcp`], [`selector`], [`checksum`], [`ecn`] | what the data path needs to know of the datagram inside |
//!
//! Nothing here panics on any input: every read is checked, every sum of untrusted lengths is bounded first.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
// The kernel runs this: no input may end in a panic or a wrapped sum.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod checksum;
pub mod ecn;
pub mod esp;
pub mod ip;
pub mod lifetime;
pub mod packet;
pub mod reason;
pub mod replay;
pub mod selector;
pub mod snoop;
pub mod tcp;
pub mod window;
pub mod zone;
