// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What several tests use.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod four;
pub mod host;
pub mod payloads;
pub mod peer;
pub mod sim;

/// The octets of these hex digits.
pub fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len() % 2 == 0);
    (0..digits.len() / 2)
        .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex digits"))
        .collect()
}
