// SPDX-License-Identifier: GPL-2.0-only
//! The arithmetic of the lab's wireless link as a crate, so that the host can test it. The module `mml_lab` compiles the
//! same file, `link.rs`, as a part of itself.
#![no_std]
#![forbid(unsafe_code)]
// The kernel runs this: no input may end in a panic or a wrapped sum.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod link;
