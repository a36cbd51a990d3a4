// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager's library: how user space speaks with the module, the files a CSA is kept in, and the daemon.
//!
//! `mmlctl` and [`daemon`], which is `keyd`, are made of it. From the bottom up: [`netlink`] frames and sends, [`kernel`] asks for CSAs, policies,
//! counters and events, [`private_file`] reads files with keys, [`csa_file`] and [`policy_file`] say what stands in
//! them, [`fresh`] makes new ones.
#![forbid(unsafe_code)]

pub mod address;
pub mod csa_file;
pub mod daemon;
pub mod fresh;
pub mod hex;
pub mod info;
pub mod kernel;
mod life;
pub mod lifetime;
pub mod netlink;
pub mod policy_file;
pub mod ports;
pub mod private_file;
pub mod text_file;
