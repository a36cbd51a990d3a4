// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What several tests use.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod payloads;
