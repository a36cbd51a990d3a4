// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The numbers of Mobile IPv4, by their names.

use std::net::Ipv4Addr;

/// UDP port of registration (RFC 5944 §3.3; docs/wire.md 4a).
pub const PORT: u16 = 434;
/// A lifetime that never ends, in s (RFC 5944 §3.3).
pub const INFINITE: u16 = 0xFFFF;
/// All systems on this link: where advertisements go (RFC 1256 §2).
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All routers on this link: where solicitations go.
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// All mobility agents on this link (RFC 5944 §2.4).
pub const ALL_AGENTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 11);
/// Organisation of the previous-FA extension: the documentation number of RFC 5612 until one is registered
/// (docs/wire.md 4b).
pub const ORGANISATION: u32 = 32473;

/// Message types on UDP port 434.
pub mod message {
    /// Registration Request (RFC 5944 §3.3).
    pub const REQUEST: u8 = 1;
    /// Registration Reply (RFC 5944 §3.4).
    pub const REPLY: u8 = 3;
    /// Registration Revocation (RFC 3543 §3.3).
    pub const REVOCATION: u8 = 7;
    /// Registration Revocation Acknowledgment (RFC 3543 §3.4).
    pub const REVOCATION_ACK: u8 = 15;
}

/// Extension types on UDP port 434.
pub mod extension {
    /// One octet of padding, without a length (RFC 5944 §3.5).
    pub const PAD: u8 = 0;
    /// Mobile-Home Authentication (RFC 5944 §3.5.2).
    pub const MOBILE_HOME: u8 = 32;
    /// Mobile-Foreign Authentication (RFC 5944 §3.5.3).
    pub const MOBILE_FOREIGN: u8 = 33;
    /// Foreign-Home Authentication (RFC 5944 §3.5.4).
    pub const FOREIGN_HOME: u8 = 34;
    /// Critical Vendor/Organization Specific (RFC 3115 §2.1).
    pub const CRITICAL_VENDOR: u8 = 38;
    /// Encapsulating Delivery Style (RFC 3024 §3.3).
    pub const ENCAPSULATING_DELIVERY: u8 = 130;
    /// Normal Vendor/Organization Specific (RFC 3115 §2.2).
    pub const NORMAL_VENDOR: u8 = 134;
    /// Revocation Support (RFC 3543 §3.2).
    pub const REVOCATION_SUPPORT: u8 = 137;
    /// The first type that an agent which doesn't know it skips (RFC 5944 §1.8; docs/wire.md 4c).
    pub const SKIPPABLE: u8 = 128;
}

/// ICMP types, codes, and the extensions of a router advertisement.
pub mod icmp {
    /// Router Advertisement (RFC 1256).
    pub const ADVERTISEMENT: u8 = 9;
    /// Router Solicitation (RFC 1256).
    pub const SOLICITATION: u8 = 10;
    /// Code of an agent that routes common traffic, too (RFC 5944 §2.1).
    pub const ROUTES_ALL: u8 = 0;
    /// Code of an agent that doesn't route common traffic.
    pub const ROUTES_MOBILE: u8 = 16;
    /// One octet of padding, without a length.
    pub const PAD: u8 = 0;
    /// Mobility Agent Advertisement Extension (RFC 5944 §2.1.1).
    pub const MOBILITY_AGENT: u8 = 16;
    /// Prefix-Lengths Extension (RFC 5944 §2.1.2).
    pub const PREFIX_LENGTHS: u8 = 19;
}

/// The previous-FA extension's number within the organisation (docs/wire.md 4b).
pub const PREVIOUS_FA: u16 = 1;
/// The arrived extension's number within the organisation (docs/wire.md 4e).
pub const ARRIVED: u16 = 2;
