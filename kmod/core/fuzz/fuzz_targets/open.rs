// SPDX-License-Identifier: GPL-2.0-only
//! A terminus gets any octets: no panic, and what it delivers seals to a packet that opens to the same.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use mml_core::esp::Header;
use mml_core::packet::{open, seal};
use mml_core::replay::Replay;

fuzz_target!(|data: &[u8]| {
    let Some((sa, rest)) = shared::settings(data) else {
        return;
    };
    let outer = mml_core::ip::addresses(data);
    let mut packet = rest.to_vec();
    // A window right below the packet's number, in the first half-space.
    let top = Header::parse(rest).map_or(0, |header| u64::from(header.seq_lo.saturating_sub(1)));
    let mut window = Replay::starting_at(64, top).expect("window");
    let mut bits = [0];
    let Ok(opened) = open(&sa, &mut window, &mut bits, outer.as_ref(), &mut packet) else {
        return;
    };

    assert_eq!(window.top(), opened.seq.max(top));
    assert!(!window.check(&bits, opened.seq));
    let datagram = &packet[opened.datagram];
    let mut out = vec![0; datagram.len() + 128];
    let len = seal(&sa, opened.seq, opened.next, datagram, 0, &mut out).expect("sealed");
    let again = &mut out[..len];
    let mut window = Replay::starting_at(64, top).expect("window");
    let reopened = open(&sa, &mut window, &mut [0], outer.as_ref(), again).expect("opened");
    assert_eq!(&again[reopened.datagram], datagram);
});
