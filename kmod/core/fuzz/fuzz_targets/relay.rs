// SPDX-License-Identifier: GPL-2.0-only
//! A relay gets any octets: no panic, and what it rewrites is as long, marked, and not opened by a relay again.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use mml_core::esp::{self, Drop, Header};
use mml_core::packet::{relay_open, relay_write, RelaySa};
use mml_core::replay::{Replay, Resync};
use mml_core::tcp::rewrite_window;

fuzz_target!(|data: &[u8]| {
    let Some((sa, rest)) = shared::settings(data) else {
        return;
    };
    let [zone, _] = sa.zones;
    let relay = RelaySa {
        spi: sa.spi,
        map: sa.map,
        zone,
    };
    let top = Header::parse(rest).map_or(0, |header| u64::from(header.seq_lo.saturating_sub(1)));
    let mut window = Replay::starting_at(64, top).expect("window");
    let (mut bits, mut resync, mut scratch) = ([0], Resync::default(), [0; 256]);
    let Ok(seen) = relay_open(
        &relay,
        &mut window,
        &mut bits,
        &mut resync,
        rest,
        &mut scratch,
    ) else {
        return;
    };

    let zone1 = &mut scratch[..seen.l1];
    assert!(seen.moved.is_none_or(|at| at + 2 <= seen.l1));
    let rewritten = rewrite_window(zone1, relay.map.mode(), seen.next, 0x1234);
    assert!(!rewritten || seen.moved.is_some());
    let mut packet = rest.to_vec();
    let iv = esp::relay_iv(1, 1).expect("IV");
    if relay_write(&relay, iv, zone1, &mut packet) {
        assert_eq!(packet.len(), rest.len());
        assert_eq!(packet[..8], rest[..8]);
        let end = esp::Layout::relay(zone.iv, &Header::parse(rest).expect("header"), rest.len())
            .expect("layout")
            .iv2;
        assert_eq!(packet[end..], rest[end..]);
        let mut window = Replay::starting_at(64, top).expect("window");
        let again = relay_open(
            &relay,
            &mut window,
            &mut [0],
            &mut resync,
            &packet,
            &mut scratch,
        );
        assert_eq!(again, Err(Drop::Rewritten));
    }
});
