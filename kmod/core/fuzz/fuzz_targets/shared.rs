// SPDX-License-Identifier: GPL-2.0-only
//! An AEAD a fuzzer can get past: the ciphertext is the plaintext, and the tag holds unless the input says otherwise.
//!
//! Without it no input would reach what lies behind the ICVs, where a hostile holder of both keys is.

use mml_core::esp::IvKind;
use mml_core::packet::{Aead, Sa, Zone};
use mml_core::selector::{PortRange, Selector};
use mml_core::zone::{Mode, ZoneMap};

/// Accepts every tag but one that begins with 0xFF.
pub struct Plain;

impl Aead for Plain {
    fn seal(&self, _nonce: &[u8; 12], _aad: &[u8], _data: &mut [u8], tag: &mut [u8; 16]) {
        *tag = [0; 16];
    }

    fn open(&self, _nonce: &[u8; 12], _aad: &[u8], _data: &mut [u8], tag: &[u8; 16]) -> bool {
        tag[0] != 0xFF
    }
}

/// Settings out of one octet, so that one corpus serves every mode, and the rest of the input.
#[allow(dead_code, reason = "not every target takes them")]
pub fn settings(data: &[u8]) -> Option<(Sa<'static>, &[u8])> {
    let (&[bits], rest) = data.split_first_chunk()?;
    let kind = |bit| {
        if bits & bit == 0 {
            IvKind::Implicit
        } else {
            IvKind::Explicit
        }
    };
    let mode = if bits & 1 == 0 {
        Mode::Tunnel
    } else {
        Mode::Transport
    };
    let map = if bits & 2 == 0 {
        ZoneMap::default_for(mode)
    } else {
        ZoneMap::new(mode, &[40, 0xFFFF]).ok()?
    };
    let zone = |bit| Zone {
        aead: &Plain,
        salt: [0; 4],
        iv: kind(bit),
    };
    let any = Selector::new(4, 0, [0; 16], 0, [0; 16], 0).ok()?;
    let ports = PortRange {
        first: 500,
        last: 4500,
    };
    let mut some = any;
    some.protocol = 17;
    let some = some.with_ports(PortRange::ANY, ports).ok()?;
    let sa = Sa {
        spi: mml_core::esp::spi(rest)?,
        map,
        zones: [zone(4), zone(8)],
        may_write: bits & 16 != 0,
        selector: match bits & 96 {
            0 => None,
            32 => Some(any),
            _ => Some(some),
        },
    };
    Some((sa, rest))
}
