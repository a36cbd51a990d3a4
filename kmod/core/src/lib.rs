// SPDX-License-Identifier: GPL-2.0-only
//! mml-core
#![no_std]
#![forbid(unsafe_code)]
