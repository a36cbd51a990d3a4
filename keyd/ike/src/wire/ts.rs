// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Traffic selectors (RFC 7296 §3.13): which packets a child SA carries, one end of it.

use super::reader::{len16, len8, octets, Put, Reader};
use super::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_RANGE: u8 = 7;
const IPV6_RANGE: u8 = 8;

/// A protocol, a range of ports, a range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrafficSelector {
    /// The upper protocol, 0 for any.
    pub protocol: u8,
    /// The first port; for ICMP, type and code.
    pub start_port: u16,
    /// The last port. Below the first one only as 65535–0: OPAQUE, no port to be seen.
    pub end_port: u16,
    /// The first address.
    pub start: IpAddr,
    /// The last address, of the same family and not below the first.
    pub end: IpAddr,
}

impl TrafficSelector {
    /// Everything a family has.
    pub fn any(like: IpAddr) -> Self {
        TrafficSelector::prefix(
            match like {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            },
            0,
        )
    }

    /// One address, any protocol and port.
    pub fn host(address: IpAddr) -> Self {
        TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start: address,
            end: address,
        }
    }

    /// A prefix of `bits` bits, any protocol and port; host bits are cleared.
    pub fn prefix(address: IpAddr, bits: u8) -> Self {
        let (start, end) = match address {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                let a = u32::from(a);
                (
                    IpAddr::V4(Ipv4Addr::from(a & !host)),
                    IpAddr::V4(Ipv4Addr::from(a | host)),
                )
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                let a = u128::from(a);
                (
                    IpAddr::V6(Ipv6Addr::from(a & !host)),
                    IpAddr::V6(Ipv6Addr::from(a | host)),
                )
            }
        };
        TrafficSelector {
            start,
            end,
            ..TrafficSelector::host(address)
        }
    }

    /// The same for one protocol and one port, 0 for any.
    pub fn with(self, protocol: u8, port: u16) -> Self {
        let (start_port, end_port) = if port == 0 {
            (0, u16::MAX)
        } else {
            (port, port)
        };
        TrafficSelector {
            protocol,
            start_port,
            end_port,
            ..self
        }
    }

    /// What both select, if anything.
    pub fn intersect(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        let protocol = match (self.protocol, other.protocol) {
            (a, 0) => a,
            (0, b) => b,
            (a, b) if a == b => a,
            _ => return None,
        };
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        if start > end {
            return None;
        }
        let (start_port, end_port) = if self.is_opaque() || other.is_opaque() {
            let any = |ts: &TrafficSelector| (ts.start_port, ts.end_port) == (0, u16::MAX);
            if self.is_opaque() && (other.is_opaque() || any(other)) || any(self) {
                (u16::MAX, 0)
            } else {
                return None;
            }
        } else {
            let ports = (
                self.start_port.max(other.start_port),
                self.end_port.min(other.end_port),
            );
            if ports.0 > ports.1 {
                return None;
            }
            ports
        };
        Some(TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        })
    }

    /// Whether everything `other` selects is selected here too.
    pub fn covers(&self, other: &TrafficSelector) -> bool {
        self.intersect(other).as_ref() == Some(other)
    }

    /// Whether the address is in the range.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    fn is_opaque(&self) -> bool {
        self.start_port > self.end_port
    }

    fn decode(r: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let kind = r.u8()?;
        let protocol = r.u8()?;
        let length = usize::from(r.u16()?);
        let mut r = r.part(length.checked_sub(4).ok_or(Error::Length)?)?;
        let address = |r: &mut Reader<'_>| -> Result<IpAddr, Error> {
            Ok(match kind {
                IPV4_RANGE => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
                _ => IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
            })
        };
        if kind != IPV4_RANGE && kind != IPV6_RANGE {
            return Ok(None);
        }
        let (start_port, end_port) = (r.u16()?, r.u16()?);
        let (start, end) = (address(&mut r)?, address(&mut r)?);
        r.end()?;
        let opaque = (start_port, end_port) == (u16::MAX, 0);
        if start > end || (start_port > end_port && !opaque) {
            return Err(Error::Value("traffic selector's range"));
        }
        Ok(Some(TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        }))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (start, end) = (octets(self.start), octets(self.end));
        out.put_u8(if self.start.is_ipv4() {
            IPV4_RANGE
        } else {
            IPV6_RANGE
        });
        out.put_u8(self.protocol);
        out.put_u16(len16(8 + start.len() + end.len()));
        out.put_u16(self.start_port);
        out.put_u16(self.end_port);
        out.put(&start);
        out.put(&end);
    }
}

/// The selectors of a TSi or TSr payload. Ones of a type nobody here knows are left out (§2.9).
pub(crate) fn decode(mut r: Reader<'_>) -> Result<Vec<TrafficSelector>, Error> {
    let count = r.u8()?;
    r.bytes(3)?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        selectors.extend(TrafficSelector::decode(&mut r)?);
    }
    r.end()?;
    Ok(selectors)
}

pub(crate) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    out.put(&[len8(selectors.len()), 0, 0, 0]);
    for selector in selectors.iter().take(255) {
        selector.encode(out);
    }
}
