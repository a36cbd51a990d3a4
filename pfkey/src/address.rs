// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Addresses: RFC 2367 §2.3.3, a sockaddr behind a protocol and a prefix length.

use crate::error::Error;
use crate::number::{AF_INET, AF_INET6};
use crate::reader::{Cursor, Reader};
use crate::text::Fault;

/// The family of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4: the first four of sixteen octets, the others zero (docs/wire.md 2.3a).
    V4,
    /// IPv6: all sixteen octets.
    V6,
}

impl Family {
    /// The family of this `AF_` number.
    pub const fn from_af(number: u8) -> Option<Self> {
        match number {
            AF_INET => Some(Family::V4),
            AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }

    /// Its `AF_` number, which is the one on the wire.
    pub const fn af(self) -> u8 {
        match self {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }
    }

    /// The IP version: 4 or 6.
    pub const fn version(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    /// The family of an IP version; anything but 4 is 6.
    pub const fn of_version(version: u8) -> Self {
        match version {
            4 => Family::V4,
            _ => Family::V6,
        }
    }

    /// The octets of an address: 4 or 16.
    pub const fn octets(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    /// The bits of an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// ADDRESS_SRC, ADDRESS_DST, ADDRESS_PROXY and X_NAT_T_OA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The address; IPv4 in the first four octets, the others zero.
    pub octets: [u8; 16],
    /// Bits of the prefix; 32 or 128 for one host.
    pub prefix_len: u8,
    /// The upper protocol, 0 for any.
    pub protocol: u8,
    /// The upper protocol's port, 0 for any.
    pub port: u16,
    /// The interface index of an IPv6 link-local address, else 0.
    pub scope: u32,
}

impl Address {
    /// One host, any protocol and port.
    pub const fn host(family: Family, octets: [u8; 16]) -> Self {
        Address {
            family,
            octets,
            prefix_len: family.bits(),
            protocol: 0,
            port: 0,
            scope: 0,
        }
    }

    /// One IPv4 host.
    pub const fn v4(address: [u8; 4]) -> Self {
        let [a, b, c, d] = address;
        Address::host(Family::V4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// One IPv6 host.
    pub const fn v6(address: [u8; 16]) -> Self {
        Address::host(Family::V6, address)
    }

    /// Whether it is one whole address without protocol or port, as an end of a tunnel must be.
    pub const fn is_host(&self) -> bool {
        self.prefix_len == self.family.bits() && self.protocol == 0 && self.port == 0
    }

    /// Whether it is the unspecified address.
    pub fn is_unspecified(&self) -> bool {
        self.octets == [0; 16]
    }

    /// Whether it is multicast, or IPv4's broadcast address.
    pub const fn is_multicast(&self) -> bool {
        let [first, ..] = self.octets;
        match self.family {
            Family::V4 => first & 0xF0 == 0xE0 || matches!(self.octets, [255, 255, 255, 255, ..]),
            Family::V6 => first == 0xFF,
        }
    }

    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let protocol = r.u8()?;
        let prefix_len = r.u8()?;
        r.reserved(2)?;
        let af = u8::try_from(r.u16()?).map_err(|_| Fault::Value)?;
        let family = Family::from_af(af).ok_or(Fault::Value)?;
        let port = r.be16()?;
        let (octets, scope) = match family {
            Family::V4 => {
                let [a, b, c, d] = r.array::<4>()?;
                r.reserved(8)?;
                ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0)
            }
            Family::V6 => {
                // The flow label: nothing here has a use for one.
                r.reserved(4)?;
                (r.array::<16>()?, r.u32()?)
            }
        };
        if prefix_len > family.bits() {
            return Err(Fault::Value);
        }
        r.end()?;
        Ok(Address {
            family,
            octets,
            prefix_len,
            protocol,
            port,
            scope,
        })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u8(self.protocol)?;
        w.u8(self.prefix_len)?;
        w.zeros(2)?;
        w.u16(u16::from(self.family.af()))?;
        w.be16(self.port)?;
        match self.family {
            Family::V4 => {
                let [a, b, c, d, ..] = self.octets;
                w.put(&[a, b, c, d])?;
                w.zeros(8)
            }
            Family::V6 => {
                w.zeros(4)?;
                w.put(&self.octets)?;
                w.u32(self.scope)
            }
        }
    }
}

/// Whether no bit of `octets` is set behind the first `prefix_len` ones.
pub(crate) fn host_bits_clear(octets: &[u8; 16], prefix_len: u8) -> bool {
    u128::from_be_bytes(*octets)
        .checked_shl(u32::from(prefix_len))
        .unwrap_or(0)
        == 0
}
