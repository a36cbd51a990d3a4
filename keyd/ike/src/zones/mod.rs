// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Composite SAs beyond their two ends: whom an HA gives them to, what an FA holds (docs/wire.md §3.2).

pub(crate) mod access;
pub(crate) mod departures;
pub(crate) mod foreign;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod home;
pub(crate) mod member;
