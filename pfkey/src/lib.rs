// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! pfkey
#![no_std]
#![forbid(unsafe_code)]
