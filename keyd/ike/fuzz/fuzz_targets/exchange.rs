// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A peer that has proved who it is and then says anything: exchange, first payload, length (16 bits), octets; over and
//! over, a second apart.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/common/host.rs"]
mod host;
#[allow(dead_code)]
#[path = "../../tests/common/peer.rs"]
mod peer;
#[allow(dead_code)]
mod permitted;

use libfuzzer_sys::fuzz_target;
use mml_ike::wire::{ExchangeType, PayloadType};
use std::time::Duration;

fuzz_target!(|octets: &[u8]| {
    let mut peer = permitted::connected();
    let mut rest = octets;
    while let [exchange, first, high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (said, behind) = more.split_at(len);
        rest = behind;
        let _ = peer.ask_octets(ExchangeType(*exchange), PayloadType(*first), said);
        peer.now += Duration::from_secs(1);
        peer.endpoint.tick(peer.now, &mut peer.host);
    }
});
