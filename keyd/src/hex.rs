// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Secrets as hexadecimal text, overwritten when dropped.

use serde::de::{Deserializer, Error, Visitor};
use serde::Deserialize;
use std::fmt;
use zeroize::Zeroizing;

/// Octets read from hexadecimal digits. It can't be printed.
pub struct HexSecret(Zeroizing<Vec<u8>>);

impl HexSecret {
    /// Reads pairs of hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        // Grown beforehand: no copy is left behind by a reallocation.
        let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
        for pair in pairs {
            let [high, low] = pair else { return None };
            octets.push(digit(*high)? << 4 | digit(*low)?);
        }
        Some(HexSecret(octets))
    }

    /// The octets.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

fn digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Appends `octets` to `text`, which must have room if no copy may be left behind.
pub fn write(text: &mut String, octets: &[u8]) {
    for octet in octets {
        for nibble in [octet >> 4, octet & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
}

impl<'de> Deserialize<'de> for HexSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = HexSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hexadecimal digits in quotes")
            }

            // The text itself is never part of the error: it may be a key with a slip in it.
            fn visit_str<E: Error>(self, text: &str) -> Result<HexSecret, E> {
                HexSecret::parse(text).ok_or(E::custom("not an even number of hexadecimal digits"))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<HexSecret, E> {
                Err(E::custom("a number; put hexadecimal digits in quotes"))
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let octets: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        write(&mut text, &octets);
        assert_eq!(HexSecret::parse(&text).unwrap().expose(), octets);
        assert_eq!(
            HexSecret::parse(&text.to_uppercase()).unwrap().expose(),
            octets
        );
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        for text in ["a", "0x00", "zz", "00 1", "é0", "+1"] {
            assert!(HexSecret::parse(text).is_none(), "{text}");
        }
    }
}
