// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Values as `keyd.toml` writes them: ages, identities, suites. Each is checked as it is read.

use crate::address::Prefix;
use mml_ike::auth::IdMatch;
use mml_ike::config::IkeProposal;
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::pool::AddressRange;
use mml_ike::wire::{Encr, Id, IdType, ZoneTransform};
use pfkey::Algorithm;
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;

/// A time: `90s`, `50m`, `8h`, `1d`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[serde(try_from = "String")]
pub struct Age(pub Duration);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            "not a time; write a number with its unit: `90s`, `50m`, `8h` or `1d`, at least `1s` and at most `365d`"
                .to_owned()
        };
        let unit = text.chars().last().ok_or_else(wrong)?;
        let number = text.strip_suffix(unit).unwrap_or_default();
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
        if !(1..=365 * 86_400).contains(&seconds) {
            return Err(wrong());
        }
        Ok(Age(Duration::from_secs(seconds)))
    }
}

/// Who a node is to IKE: a host name, a mail address, or an IP address (RFC 7296 §3.5).
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Identity(pub Id);

impl TryFrom<String> for Identity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Identity(Id::from(address)));
        }
        let sound = (1..=253).contains(&text.len())
            && text.is_ascii()
            && !text
                .contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control() || c == '*');
        if !sound {
            return Err(
                "not an identity; write a host name, a mail address or an IP address".to_owned(),
            );
        }
        let kind = if text.contains('@') {
            IdType::RFC822_ADDR
        } else {
            IdType::FQDN
        };
        Ok(Identity(Id {
            kind,
            data: text.into_bytes(),
        }))
    }
}

/// Addresses to give: `FIRST-LAST`, or `ADDRESS/LENGTH` without its first and, of IPv4, its last, which aren't hosts'.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Pool(pub AddressRange);

impl TryFrom<String> for Pool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "no addresses to give; write `FIRST-LAST` or `ADDRESS/LENGTH`".to_owned();
        if let Some((first, last)) = text.split_once('-') {
            let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
            let range = AddressRange::new(address(first)?, address(last)?);
            return range.map(Pool).ok_or_else(|| {
                "the first and the last are of two families, or in the wrong order".to_owned()
            });
        }
        let prefix: Prefix = text.parse().map_err(|why| format!("{why}"))?;
        let (first, last) = prefix.hosts().ok_or_else(wrong)?;
        AddressRange::new(first, last).map(Pool).ok_or_else(wrong)
    }
}

/// Whom a peer may be: one identity, `*.domain` for the host names in a domain, `*` for whoever proves itself.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Peer(pub IdMatch);

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" {
            return Ok(Peer(IdMatch::Any));
        }
        if let Some(domain) = text.strip_prefix("*.") {
            let Identity(id) = Identity::try_from(domain.to_owned())?;
            if id.kind == IdType::FQDN {
                return Ok(Peer(IdMatch::Within(domain.to_owned())));
            }
        }
        let Identity(id) = Identity::try_from(text).map_err(|why| {
            format!("{why}, `*.domain` for all host names in one, or `*` for any")
        })?;
        Ok(Peer(IdMatch::Exactly(id)))
    }
}

/// What a peer may be, in words.
pub fn peer_text(peer: &IdMatch) -> String {
    match peer {
        IdMatch::Exactly(id) => id.to_string(),
        IdMatch::Within(domain) => format!("*.{domain}"),
        IdMatch::Any => "*".to_owned(),
        IdMatch::Nobody => String::new(),
    }
}

/// The names of [`Cipher`]s, for messages.
pub const CIPHERS: &str = "aes128-gcm16, aes256-gcm16, chacha20-poly1305";
const PRFS: &str = "sha256, sha384, sha512";
const METHODS: &str = "x25519, p256, p384, ml-kem-768";

fn cipher(name: &str) -> Option<Cipher> {
    Some(match name {
        "aes128-gcm16" => Cipher::Aes128Gcm,
        "aes256-gcm16" => Cipher::Aes256Gcm,
        "chacha20-poly1305" => Cipher::ChaCha20Poly1305,
        _ => return None,
    })
}

/// What a cipher is called.
pub fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes128Gcm => "aes128-gcm16",
        Cipher::Aes256Gcm => "aes256-gcm16",
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

fn method(name: &str) -> Option<Method> {
    Some(match name {
        "x25519" => Method::X25519,
        "p256" => Method::P256,
        "p384" => Method::P384,
        "ml-kem-768" => Method::MlKem768,
        _ => return None,
    })
}

/// A suite of an IKE SA: `CIPHER/PRF/KEY-EXCHANGE`, then `+KEY-EXCHANGE` for each additional one (RFC 9370).
#[derive(Deserialize, Clone, Debug)]
#[serde(try_from = "String")]
pub struct IkeSuite(pub IkeProposal);

impl TryFrom<String> for IkeSuite {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = text.split('/');
        let (Some(sealed), Some(prf), Some(exchanges), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(
                "not a suite; write CIPHER/PRF/KEY-EXCHANGE, for instance `aes256-gcm16/sha384/x25519+ml-kem-768`"
                    .to_owned(),
            );
        };
        let unknown = |what: &str, list: &str| format!("no such {what}; it is one of {list}");
        let sealed = cipher(sealed).ok_or_else(|| unknown("cipher", CIPHERS))?;
        let prf = match prf {
            "sha256" => Hash::Sha256,
            "sha384" => Hash::Sha384,
            "sha512" => Hash::Sha512,
            _ => return Err(unknown("PRF", PRFS)),
        };
        let mut exchanges = exchanges
            .split('+')
            .map(|name| method(name).ok_or_else(|| unknown("key exchange", METHODS)));
        let first = exchanges
            .next()
            .ok_or_else(|| unknown("key exchange", METHODS))??;
        let additional: Vec<Method> = exchanges.collect::<Result<_, _>>()?;
        if additional.len() > 7 {
            return Err("more than seven additional key exchanges (RFC 9370)".to_owned());
        }
        if first == Method::MlKem768 {
            return Err(
                "ml-kem-768 does not fit the first message; write `x25519+ml-kem-768`".to_owned(),
            );
        }
        Ok(IkeSuite(IkeProposal {
            ciphers: vec![sealed],
            prfs: vec![prf],
            methods: vec![first],
            additional: additional.into_iter().map(|one| vec![one]).collect(),
        }))
    }
}

/// What seals a plain child.
#[derive(Deserialize, Clone, Copy, Debug)]
#[serde(try_from = "String")]
pub struct EspCipher(pub Cipher);

impl TryFrom<String> for EspCipher {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        cipher(&text)
            .map(EspCipher)
            .ok_or_else(|| format!("no such cipher; it is one of {CIPHERS}"))
    }
}

/// What seals a zone.
#[derive(Deserialize, Clone, Copy, Debug)]
#[serde(try_from = "String")]
pub struct ZoneCipher(pub ZoneTransform);

impl TryFrom<String> for ZoneCipher {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (algorithm, key_bits) = Algorithm::from_name(&text).ok_or_else(|| {
            format!(
                "no such transform; it is one of {}",
                crate::csa_file::ALGORITHMS
            )
        })?;
        Ok(ZoneCipher(ZoneTransform {
            encr: Encr(algorithm.encr()),
            key_bits,
        }))
    }
}

/// Where zone 1 stops.
#[derive(Deserialize, Clone, Copy, Debug)]
#[serde(try_from = "toml::Value")]
pub struct MapStop(pub u16);

impl TryFrom<toml::Value> for MapStop {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Self, &'static str> {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(octets) => octets.to_string(),
            _ => String::new(),
        };
        let stop: crate::csa_file::Stop = text.parse()?;
        Ok(MapStop(stop.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units_and_bounds() {
        let age = |text: &str| Age::try_from(text.to_owned());
        assert_eq!(age("90s").unwrap().0, Duration::from_secs(90));
        assert_eq!(age("8h").unwrap().0, Duration::from_secs(28_800));
        for wrong in [
            "",
            "s",
            "10",
            "0s",
            "366d",
            "-1s",
            "1.5h",
            "18446744073709551615d",
            "5ü",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn identities_are_told_apart_by_their_form() {
        let kind = |text: &str| Identity::try_from(text.to_owned()).map(|id| id.0.kind);
        assert_eq!(kind("ha.example"), Ok(IdType::FQDN));
        assert_eq!(kind("mh@example.org"), Ok(IdType::RFC822_ADDR));
        assert_eq!(kind("192.0.2.1"), Ok(IdType::IPV4_ADDR));
        assert_eq!(kind("2001:db8::1"), Ok(IdType::IPV6_ADDR));
        assert!(kind("").is_err() && kind("a b").is_err() && kind("*.x").is_err());
        let peer = |text: &str| Peer::try_from(text.to_owned()).map(|peer| peer_text(&peer.0));
        for text in ["*", "*.fa.example", "fa.example"] {
            assert_eq!(peer(text).as_deref(), Ok(text));
        }
        assert!(peer("fa*.example").is_err());
    }

    #[test]
    fn suites_name_cipher_prf_and_key_exchanges() {
        let suite = |text: &str| IkeSuite::try_from(text.to_owned());
        let both = suite("aes256-gcm16/sha384/x25519+ml-kem-768").unwrap().0;
        assert_eq!(both.methods, [Method::X25519]);
        assert_eq!(both.additional, [[Method::MlKem768]]);
        for wrong in [
            "aes256-gcm16",
            "des/sha256/x25519",
            "aes256-gcm16/md5/x25519",
            "aes256-gcm16/sha256/modp1024",
            "aes256-gcm16/sha256/ml-kem-768",
            "aes256-gcm16/sha256/x25519/x",
        ] {
            assert!(suite(wrong).is_err(), "{wrong}");
        }
    }
}
