// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Addresses and prefixes as people write them.

use pfkey::{Address, Family, PortRange, Selector};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The message's form of an address.
pub fn host(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

/// How many bits an address has.
pub fn bits(address: IpAddr) -> u8 {
    family(address).bits()
}

/// An address of a message, to print.
pub fn ip(family: Family, octets: &[u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = *octets;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*octets)),
    }
}

/// A prefix: `ADDRESS/LENGTH`, `ADDRESS` for one host, or `any`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix(Option<(IpAddr, u8)>);

/// Why a text is no prefix.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// It isn't even an address.
    #[error("not an address: write ADDRESS, ADDRESS/LENGTH or `any`")]
    Address,
    /// The part behind the slash is no length.
    #[error("prefix length is not a number from 0 to {0}")]
    Length(u8),
    /// It names a host and a network at once.
    #[error("host bits are set behind the prefix: write {0}")]
    HostBits(Prefix),
}

impl Prefix {
    /// Everything, of whatever family the other side is.
    pub const ANY: Prefix = Prefix(None);

    /// Its family, if it has one.
    pub fn family(&self) -> Option<Family> {
        self.0.map(|(address, _)| family(address))
    }

    /// Its address and length; `None` for everything.
    pub fn range(&self) -> Option<(IpAddr, u8)> {
        self.0
    }

    /// The prefix of that address and length, host bits cleared.
    pub fn new(address: IpAddr, len: u8) -> Self {
        Prefix(Some((masked(address, len), len)))
    }

    /// Its first and its last host: of IPv4 neither the network's own address nor its broadcast, of IPv6 not the routers'
    /// (RFC 4291 §2.6.1); of a prefix that has no room for such, all.
    pub fn hosts(&self) -> Option<(IpAddr, IpAddr)> {
        let (address, len) = self.0?;
        Some(match address {
            IpAddr::V4(v4) => {
                let first = u32::from(v4);
                let mask = u32::MAX.checked_shr(len.into()).unwrap_or(0);
                let spare = u32::from(len < 31);
                let last = first | mask;
                (
                    Ipv4Addr::from(first + spare).into(),
                    Ipv4Addr::from(last - spare).into(),
                )
            }
            IpAddr::V6(v6) => {
                let first = u128::from(v6);
                let mask = u128::MAX.checked_shr(len.into()).unwrap_or(0);
                let spare = u128::from(len < 127);
                (
                    Ipv6Addr::from(first + spare).into(),
                    Ipv6Addr::from(first | mask).into(),
                )
            }
        })
    }

    /// Whether an address is in it; all are in `any`.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.is_none_or(|(own, len)| {
            own.is_ipv4() == address.is_ipv4() && masked(address, len) == own
        })
    }

    /// The prefix as a selector holds it.
    fn octets(&self, family: Family) -> Option<([u8; 16], u8)> {
        match self.0 {
            None => Some(([0; 16], 0)),
            Some((address, len)) => {
                let host = host(address);
                (host.family == family).then_some((host.octets, len))
            }
        }
    }
}

fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if text == "any" {
            return Ok(Prefix::ANY);
        }
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let bits = family(address).bits();
        let len = match len {
            None => bits,
            Some(len) => len
                .parse()
                .ok()
                .filter(|len| *len <= bits && !text.contains('+'))
                .ok_or(PrefixError::Length(bits))?,
        };
        let network = masked(address, len);
        if network != address {
            return Err(PrefixError::HostBits(Prefix(Some((network, len)))));
        }
        Ok(Prefix(Some((address, len))))
    }
}

fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(len.min(32)))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(len.min(128)))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("any"),
            Some((address, len)) => write!(f, "{address}/{len}"),
        }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The selector of these prefixes and any port; `None` if one is IPv4 and the other IPv6. Of two `any`s it is IPv4's.
pub fn selector(src: Prefix, dst: Prefix, protocol: u8) -> Option<Selector> {
    let family = src.family().or(dst.family()).unwrap_or(Family::V4);
    let (src, src_len) = src.octets(family)?;
    let (dst, dst_len) = dst.octets(family)?;
    Some(Selector {
        family,
        protocol,
        src_len,
        dst_len,
        src,
        dst,
        src_ports: PortRange::ANY,
        dst_ports: PortRange::ANY,
    })
}

/// A selector's source and destination, to print.
pub fn prefixes(selector: &Selector) -> (Prefix, Prefix) {
    let prefix = |octets, len| Prefix(Some((ip(selector.family, octets), len)));
    (
        prefix(&selector.src, selector.src_len),
        prefix(&selector.dst, selector.dst_len),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_written_the_same() {
        for text in [
            "any",
            "0.0.0.0/0",
            "10.1.0.0/16",
            "203.0.113.7/32",
            "::/0",
            "fd00::/8",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.1.1.1".parse::<Prefix>().unwrap().to_string(),
            "10.1.1.1/32"
        );
        assert_eq!(
            "fd00::1".parse::<Prefix>().unwrap().to_string(),
            "fd00::1/128"
        );
    }

    #[test]
    fn a_prefix_knows_its_hosts() {
        let hosts = |text: &str| {
            let (first, last) = text.parse::<Prefix>().unwrap().hosts()?;
            Some(format!("{first}-{last}"))
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(hosts("10.9.0.0/24"), expected("10.9.0.1-10.9.0.254"));
        assert_eq!(hosts("10.9.0.4/31"), expected("10.9.0.4-10.9.0.5"));
        assert_eq!(hosts("10.9.0.4/32"), expected("10.9.0.4-10.9.0.4"));
        assert_eq!(hosts("0.0.0.0/0"), expected("0.0.0.1-255.255.255.254"));
        assert_eq!(hosts("fd00::/126"), expected("fd00::1-fd00::3"));
        assert_eq!(hosts("fd00::/127"), expected("fd00::-fd00::1"));
        assert_eq!(hosts("any"), None);
        let net: Prefix = "10.9.0.0/24".parse().unwrap();
        assert!(net.holds("10.9.0.255".parse().unwrap()));
        assert!(!net.holds("10.9.1.0".parse().unwrap()) && !net.holds("::".parse().unwrap()));
        assert!(Prefix::ANY.holds("::1".parse().unwrap()));
    }

    #[test]
    fn a_bad_prefix_says_why() {
        let error = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert_eq!(
            error("10.1.1.1/16"),
            "host bits are set behind the prefix: write 10.1.0.0/16"
        );
        assert_eq!(
            error("10.0.0.0/33"),
            "prefix length is not a number from 0 to 32"
        );
        assert_eq!(
            error("10.0.0.0/+8"),
            "prefix length is not a number from 0 to 32"
        );
        assert_eq!(
            error("fd00::/x"),
            "prefix length is not a number from 0 to 128"
        );
        assert!(error("mh.example").starts_with("not an address"));
    }

    #[test]
    fn a_selector_has_one_family() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        assert!(selector(prefix("10.0.0.0/8"), prefix("fd00::/8"), 0).is_none());
        let selector = selector(Prefix::ANY, prefix("fd00::/8"), 6).unwrap();
        assert_eq!(
            (selector.family, selector.src_len, selector.dst_len),
            (Family::V6, 0, 8)
        );
        assert!(selector.is_sound());
        assert_eq!(prefixes(&selector).1, prefix("fd00::/8"));
    }
}
