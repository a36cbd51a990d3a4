// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SELECTOR, 131: which packets a CSA or a policy is about (docs/wire.md 2.3f, 2.3l).

use crate::address::{host_bits_clear, Family};
use crate::error::Error;
use crate::reader::{Cursor, Reader};
use crate::text::Fault;

/// The protocols whose headers begin with a source and a destination port of 16 bits each: TCP (RFC 9293), UDP (RFC 768),
/// DCCP (RFC 4340), SCTP (RFC 9260), UDP-Lite (RFC 3828).
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// A range of ports, or any port and none (docs/wire.md 2.3l).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Any port, and what has none.
    pub const ANY: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };

    /// The ports from `first` to `last`; all of them are [`Self::ANY`]. `None` if there are none between, and for port 0
    /// alone, which nobody has (RFC 6335 §6).
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first > last || last == 0 {
            return None;
        }
        Some(PortRange { first, last })
    }

    /// One port; `None` for port 0.
    pub const fn one(port: u16) -> Option<Self> {
        PortRange::new(port, port)
    }

    /// Whether it leaves no port out.
    pub const fn is_any(&self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// The first and the last of them.
    pub const fn bounds(&self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// Whether the port is one of them.
    pub const fn holds(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether all ports of another range are its own.
    pub const fn covers(&self, other: &PortRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// 0 and 0 are any port. That 0 and 65535 aren't keeps what says the same the same octets.
    fn decode(r: &mut Reader<'_>) -> Result<Self, Fault> {
        match (r.be16()?, r.be16()?) {
            (0, 0) => Ok(PortRange::ANY),
            (first, last) => PortRange::new(first, last)
                .filter(|range| !range.is_any())
                .ok_or(Fault::Value),
        }
    }

    fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        let (first, last) = if self.is_any() { (0, 0) } else { self.bounds() };
        w.be16(first)?;
        w.be16(last)
    }
}

/// SELECTOR: which packets, source and destination as in the packets themselves (docs/wire.md 2.3f).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The upper protocol, 0 for any.
    pub protocol: u8,
    /// Bits of the source prefix.
    pub src_len: u8,
    /// Bits of the destination prefix.
    pub dst_len: u8,
    /// The source prefix; IPv4 in the first four octets, host bits zero.
    pub src: [u8; 16],
    /// The destination prefix, likewise.
    pub dst: [u8; 16],
    /// The source's ports.
    pub src_ports: PortRange,
    /// The destination's.
    pub dst_ports: PortRange,
}

impl Selector {
    /// Whether packets of this protocol have ports that a selector can name.
    pub fn has_ports(protocol: u8) -> bool {
        WITH_PORTS.contains(&protocol)
    }

    /// Whether it leaves out any port.
    pub const fn names_ports(&self) -> bool {
        !self.src_ports.is_any() || !self.dst_ports.is_any()
    }

    /// Whether all packets of another selector are its own.
    pub fn covers(&self, other: &Selector) -> bool {
        let within = |prefix: &[u8; 16], len: u8, inner: &[u8; 16], inner_len: u8| {
            let differ = u128::from_be_bytes(*prefix) ^ u128::from_be_bytes(*inner);
            let behind = u128::BITS.saturating_sub(u32::from(len));
            len <= inner_len && differ.checked_shr(behind).is_none_or(|differ| differ == 0)
        };
        self.family == other.family
            && (self.protocol == 0 || self.protocol == other.protocol)
            && within(&self.src, self.src_len, &other.src, other.src_len)
            && within(&self.dst, self.dst_len, &other.dst, other.dst_len)
            && self.src_ports.covers(&other.src_ports)
            && self.dst_ports.covers(&other.dst_ports)
    }

    /// The same for the way back.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Selector {
            src: self.dst,
            src_len: self.dst_len,
            src_ports: self.dst_ports,
            dst: self.src,
            dst_len: self.src_len,
            dst_ports: self.src_ports,
            ..*self
        }
    }

    /// Whether the prefixes fit the family and set no host bits, and only a protocol that has ports comes with some.
    pub fn is_sound(&self) -> bool {
        self.check().is_ok()
    }

    /// As [`Self::is_sound`], with what is wrong.
    ///
    /// # Errors
    ///
    /// `EINVAL` and a text that begins with SELECTOR.
    pub fn check(&self) -> Result<(), Error> {
        let bits = self.family.bits();
        let prefixes = self.src_len <= bits
            && self.dst_len <= bits
            && host_bits_clear(&self.src, self.src_len)
            && host_bits_clear(&self.dst, self.dst_len);
        if !prefixes {
            return Err(Error::invalid(
                c"SELECTOR: prefix too long, or host bits set behind it",
            ));
        }
        if self.names_ports() && !Selector::has_ports(self.protocol) {
            return Err(Error::invalid(
                c"SELECTOR: ports of a protocol that has none; it must be TCP, UDP, DCCP, SCTP or UDP-Lite",
            ));
        }
        Ok(())
    }

    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let family = Family::from_af(r.u8()?).ok_or(Fault::Value)?;
        let (protocol, src_len, dst_len) = (r.u8()?, r.u8()?, r.u8()?);
        let src_ports = PortRange::decode(&mut r)?;
        let selector = Selector {
            family,
            protocol,
            src_len,
            dst_len,
            src_ports,
            src: r.array()?,
            dst: r.array()?,
            dst_ports: PortRange::decode(&mut r)?,
        };
        if !selector.is_sound() {
            return Err(Fault::Value);
        }
        r.end()?;
        Ok(selector)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[self.family.af(), self.protocol, self.src_len, self.dst_len])?;
        self.src_ports.encode(w)?;
        w.put(&self.src)?;
        w.put(&self.dst)?;
        self.dst_ports.encode(w)
    }
}
