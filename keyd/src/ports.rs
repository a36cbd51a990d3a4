// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ports as they are written: `443`, `8000-8099`, `any` (docs/wire.md 2.3l).

use pfkey::{PortRange, Selector};
use serde::de::{Deserializer, Error, Visitor};
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// A range of ports, or any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports(pub PortRange);

impl Ports {
    /// Any port, and what has none.
    pub const ANY: Ports = Ports(PortRange::ANY);
}

impl Default for Ports {
    fn default() -> Self {
        Ports::ANY
    }
}

/// A text that is no range of ports.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("not a port from 1 to 65535, two with a hyphen between (8000-8099), or any")]
pub struct NoPorts;

impl FromStr for Ports {
    type Err = NoPorts;

    fn from_str(text: &str) -> Result<Self, NoPorts> {
        if text == "any" {
            return Ok(Ports::ANY);
        }
        // `u16::from_str` would take a sign.
        let port = |text: &str| {
            let digits = text.bytes().all(|octet| octet.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = PortRange::new(port(first).ok_or(NoPorts)?, port(last).ok_or(NoPorts)?);
        range.map(Ports).ok_or(NoPorts)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.bounds() {
            _ if self.0.is_any() => f.write_str("any"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A number is one port.
struct Written;

impl Visitor<'_> for Written {
    type Value = Ports;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, or a range of ports as text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Ports, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Ports, E> {
        let port = u16::try_from(number).ok().and_then(PortRange::one);
        port.map(Ports).ok_or_else(|| E::custom(NoPorts))
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// The selector for these ports alone.
///
/// # Errors
/// Ports of a protocol that has none.
pub fn with_ports(selector: Selector, src: Ports, dst: Ports) -> Result<Selector, &'static str> {
    let selector = Selector {
        src_ports: src.0,
        dst_ports: dst.0,
        ..selector
    };
    if selector.names_ports() && !Selector::has_ports(selector.protocol) {
        return Err(
            "ports without a protocol that has some; name it too: 6 (TCP), 17 (UDP), 33 (DCCP), 132 (SCTP) or 136 (UDP-Lite)",
        );
    }
    Ok(selector)
}

/// A side's ports behind its addresses, or nothing.
pub fn suffix(range: PortRange) -> String {
    if range.is_any() {
        String::new()
    } else {
        format!(" port {}", Ports(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written_the_same() {
        for text in ["any", "1", "500", "65535", "8000-8099", "0-1023", "1-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!("0-65535".parse(), Ok(Ports::ANY));
        assert_eq!("80-80".parse::<Ports>().unwrap().to_string(), "80");
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "0",
            "0-0",
            "65536",
            "-1",
            "+80",
            "80-",
            "-",
            "8099-8000",
            "http",
            "1-2-3",
        ] {
            assert_eq!(text.parse::<Ports>(), Err(NoPorts), "{text}");
        }
    }

    #[derive(Deserialize)]
    struct Table {
        port: Ports,
    }

    #[test]
    fn a_file_has_them_as_number_or_text() {
        let read = |text: &str| toml::from_str::<Table>(text).map(|table| table.port.to_string());
        assert_eq!(read("port = 500").unwrap(), "500");
        assert_eq!(read("port = \"500-501\"").unwrap(), "500-501");
        for wrong in [
            "port = 0",
            "port = 65536",
            "port = -1",
            "port = \"x\"",
            "port = true",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
