// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What bare AES-256-GCM calls cost, by the kernel's own measurement: `tcrypt`, mode 211.
//!
//! It reads the CPU's cycle counter around each call of the crypto API, and in virtual time a cycle is an instruction.
//! Its requests have 8 octets of associated data and two scatterlist entries. So against a zone's call the second entry
//! is in excess, some 100 instructions a call, and the associated data beyond 8 octets is missing: for zone 2, no more
//! than what 56 octets of text cost, 140. Together they make the bound too low by less than 3 %.

use anyhow::{ensure, Context, Result};
use serde_json::json;

use crate::kernel_log::KernelLog;
use crate::module::Modules;
use crate::report;

/// Speed of AEADs of AES (`crypto/tcrypt.c`), in cycles an operation rather than operations a second.
const PARAMETERS: &str = "mode=211 sec=0";
const ALGORITHM: &str = "testing speed of gcm(aes) ";

/// Instructions a call, by octets of text; sizes ascend.
#[derive(Debug, Default)]
pub struct Calls(Vec<(f64, f64)>);

/// Bare calls.
#[derive(Debug, Default)]
pub struct Bare {
    pub seal: Calls,
    pub open: Calls,
}

impl Bare {
    /// Lets the kernel measure.
    pub fn measure(modules: &Modules) -> Result<Self> {
        let mut log = KernelLog::from_now()?;
        // It measures while it is loaded and then fails on purpose, so as not to stay; the log tells whether it did.
        let loaded = modules.load_with("tcrypt", PARAMETERS);
        let bare = Self::parse(&log.new_lines()?);
        if let Err(error) = loaded {
            report::step(format!("{error:#}, as it does once it has measured"));
        }
        ensure!(
            !bare.seal.0.is_empty() && !bare.open.0.is_empty(),
            "tcrypt measured nothing"
        );
        for (operation, calls) in [("seal", &bare.seal), ("open", &bare.open)] {
            for (octets, instructions) in &calls.0 {
                report::result(
                    "aead",
                    json!({"operation": operation, "octets": octets, "instructions": instructions}),
                );
            }
        }
        Ok(bare)
    }

    fn parse(lines: &[String]) -> Self {
        let mut bare = Self::default();
        let mut calls = None;
        for line in lines {
            if line.contains("testing speed of ") {
                calls = match (line.contains(ALGORITHM), line.contains(") encryption")) {
                    (true, true) => Some(&mut bare.seal),
                    (true, false) => Some(&mut bare.open),
                    (false, _) => None,
                };
            } else if let (Some(calls), Some(call)) = (calls.as_deref_mut(), parse_call(line)) {
                calls.0.push(call);
            }
        }
        bare
    }
}

/// `test 16 (256 bit key, 16 byte blocks): 1 operation in 960 cycles (16 bytes)`: octets and cycles.
fn parse_call(line: &str) -> Option<(f64, f64)> {
    let (_, line) = line.split_once("(256 bit key, ")?;
    let (octets, line) = line.split_once(" byte blocks): ")?;
    let (cycles, _) = line
        .strip_prefix("1 operation in ")?
        .split_once(" cycles")?;
    Some((octets.parse().ok()?, cycles.parse().ok()?))
}

impl Calls {
    /// Instructions for a text of that many octets: between two measured sizes in proportion, beyond them the nearest.
    pub fn of(&self, octets: usize) -> Result<f64> {
        let octets = octets as f64;
        let above = self.0.iter().position(|(size, _)| *size >= octets);
        let (first, last) = (
            self.0.first().context("nothing was measured")?,
            self.0.last().context("nothing was measured")?,
        );
        Ok(match above {
            None => last.1,
            Some(0) => first.1,
            Some(above) => {
                let ((x0, y0), (x1, y1)) = (self.0[above - 1], self.0[above]);
                y0 + (y1 - y0) * (octets - x0) / (x1 - x0)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_with_the_key_and_the_cipher_of_the_zones_are_taken() {
        let log = [
            "tcrypt: testing speed of rfc4106(gcm(aes)) (rfc4106-gcm-aesni-avx) encryption",
            "tcrypt: test 16 (288 bit key, 16 byte blocks): 1 operation in 1 cycles (16 bytes)",
            "tcrypt: testing speed of gcm(aes) (generic-gcm-aesni-avx) encryption",
            "tcrypt: test 15 (192 bit key, 8192 byte blocks): 1 operation in 2 cycles (8192 bytes)",
            "tcrypt: test 16 (256 bit key, 16 byte blocks): 1 operation in 900 cycles (16 bytes)",
            "tcrypt: test 17 (256 bit key, 64 byte blocks): 1 operation in 1000 cycles (64 bytes)",
            "tcrypt: testing speed of gcm(aes) (generic-gcm-aesni-avx) decryption",
            "tcrypt: test 16 (256 bit key, 16 byte blocks): 1 operation in 950 cycles (16 bytes)",
        ]
        .map(str::to_owned);
        let bare = Bare::parse(&log);
        let of = |octets| bare.seal.of(octets).unwrap();
        assert_eq!(
            (of(4), of(16), of(40), of(64), of(9000)),
            (900.0, 900.0, 950.0, 1000.0, 1000.0)
        );
        assert_eq!(bare.open.of(16).unwrap(), 950.0);
    }
}
