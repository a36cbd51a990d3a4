// SPDX-License-Identifier: GPL-2.0-only
//! Traffic selectors: which datagrams a CSA or a policy is about (RFC 4301 §4.4.1.1).

use crate::ip::{self, Addresses, Ports};

/// A range of ports, its ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// Any port, and what has none.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    #[inline]
    const fn is_any(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    #[inline]
    const fn holds(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports it leaves out.
    const fn narrowness(self) -> u32 {
        let ports = self.last.abs_diff(self.first) as u32;
        (u16::MAX as u32).saturating_sub(ports)
    }
}

/// Address prefixes, a protocol, and ranges of ports; addresses lie at the front of their 16 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector {
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number, 0 for any.
    pub protocol: u8,
    /// Source prefix.
    pub src: [u8; 16],
    /// Its length in bits.
    pub src_len: u8,
    /// Destination prefix.
    pub dst: [u8; 16],
    /// Its length in bits.
    pub dst_len: u8,
    src_ports: PortRange,
    dst_ports: PortRange,
}

/// What is wrong with a selector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelectorError {
    /// The family is neither 4 nor 6.
    Family,
    /// A prefix is longer than the family's addresses.
    PrefixLength,
    /// Bits are set behind a prefix.
    HostBits,
    /// A range of ports ends before it begins, or the protocol has no ports.
    Ports,
}

/// Whether a datagram is one that a selector is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// It isn't.
    No,
    /// It is.
    Yes,
    /// As far as it shows: the selector names ports, and it has none to be seen.
    Unseen,
}

impl Selector {
    /// Checks and makes a selector (docs/wire.md 2.3f).
    ///
    /// # Errors
    /// Family neither 4 nor 6, a prefix too long, or bits set behind one.
    pub fn new(
        family: u8,
        protocol: u8,
        src: [u8; 16],
        src_len: u8,
        dst: [u8; 16],
        dst_len: u8,
    ) -> Result<Self, SelectorError> {
        let bits = match family {
            4 => 32,
            6 => 128,
            _ => return Err(SelectorError::Family),
        };
        if src_len > bits || dst_len > bits {
            return Err(SelectorError::PrefixLength);
        }
        if !clear_behind(&src, src_len) || !clear_behind(&dst, dst_len) {
            return Err(SelectorError::HostBits);
        }
        Ok(Self {
            family,
            protocol,
            src,
            src_len,
            dst,
            dst_len,
            src_ports: PortRange::ANY,
            dst_ports: PortRange::ANY,
        })
    }

    /// The same for these ports alone (docs/wire.md 2.3l).
    ///
    /// # Errors
    /// A range that ends before it begins, or ports of a protocol that has none.
    pub fn with_ports(self, src: PortRange, dst: PortRange) -> Result<Self, SelectorError> {
        let selector = Self {
            src_ports: src,
            dst_ports: dst,
            ..self
        };
        let rising = src.first <= src.last && dst.first <= dst.last;
        if rising && (!selector.names_ports() || ip::has_ports(selector.protocol)) {
            Ok(selector)
        } else {
            Err(SelectorError::Ports)
        }
    }

    /// The source's and the destination's ports.
    pub const fn ports(&self) -> (PortRange, PortRange) {
        (self.src_ports, self.dst_ports)
    }

    /// Whether it leaves out any port.
    #[inline]
    pub const fn names_ports(&self) -> bool {
        !(self.src_ports.is_any() && self.dst_ports.is_any())
    }

    /// Whether a datagram going this way is meant. `ports` is asked only where the selector names some; what shows none
    /// isn't meant then (docs/wire.md 2.3m).
    #[inline]
    pub fn matches(&self, of: &Addresses, ports: impl FnOnce() -> Option<Ports>) -> bool {
        self.compare(of, ports) == Match::Yes
    }

    /// As [`Self::matches`], and tells apart what shows no ports: it may be meant.
    #[inline]
    pub fn compare(&self, of: &Addresses, ports: impl FnOnce() -> Option<Ports>) -> Match {
        let ends = self.carries(of)
            && within(&self.src, self.src_len, &of.src)
            && within(&self.dst, self.dst_len, &of.dst);
        match (ends, self.names_ports()) {
            (false, _) => Match::No,
            (true, false) => Match::Yes,
            (true, true) => self.takes(ports()),
        }
    }

    fn takes(&self, ports: Option<Ports>) -> Match {
        match ports {
            None => Match::Unseen,
            Some(Ports { src, dst }) if self.src_ports.holds(src) && self.dst_ports.holds(dst) => {
                Match::Yes
            }
            Some(_) => Match::No,
        }
    }

    /// How close it is: bits of prefixes first, then the ports left out (docs/wire.md 2.2p).
    #[inline]
    pub fn closeness(&self) -> (u16, u32) {
        let ports = self
            .src_ports
            .narrowness()
            .saturating_add(self.dst_ports.narrowness());
        (
            u16::from(self.src_len).saturating_add(u16::from(self.dst_len)),
            ports,
        )
    }

    /// The same traffic seen from its other end.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            src_len: self.dst_len,
            src_ports: self.dst_ports,
            dst: self.src,
            dst_len: self.src_len,
            dst_ports: self.src_ports,
            ..*self
        }
    }

    #[inline]
    fn carries(&self, of: &Addresses) -> bool {
        self.family == of.family && (self.protocol == 0 || self.protocol == of.protocol)
    }
}

/// The bits of octet `octet` that belong to a prefix of `len` bits.
fn mask(len: u8, octet: usize) -> u8 {
    match usize::from(len).saturating_sub(octet.saturating_mul(8)) {
        0 => 0,
        bits @ 1..=7 => !(0xFFu8 >> bits),
        _ => 0xFF,
    }
}

/// Whether the first `len` bits agree; as one number each, for this is asked several times a packet.
#[inline]
fn within(prefix: &[u8; 16], len: u8, address: &[u8; 16]) -> bool {
    let differ = u128::from_be_bytes(*prefix) ^ u128::from_be_bytes(*address);
    // A prefix's bits are the first ones; of none there is nothing to compare.
    differ
        .checked_shr(u128::BITS.saturating_sub(u32::from(len)))
        .is_none_or(|differ| differ == 0)
}

fn clear_behind(prefix: &[u8; 16], len: u8) -> bool {
    prefix
        .iter()
        .enumerate()
        .all(|(i, p)| p & !mask(len, i) == 0)
}
