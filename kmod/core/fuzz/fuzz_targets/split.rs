// SPDX-License-Identifier: GPL-2.0-only
//! Any octets are divided: within bounds, the same from zone 1 alone, and the headers' other readers don't panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_core::window::{Look, Scales, Side};
use mml_core::zone::{moved, Mode, ZoneMap, HEAD_MAX};
use mml_core::{ip, tcp};

fuzz_target!(|data: &[u8]| {
    let Some((&[next, stop], datagram)) = data.split_first_chunk() else {
        return;
    };
    let head = &datagram[..datagram.len().min(HEAD_MAX)];
    for mode in [Mode::Tunnel, Mode::Transport] {
        let by_octets = ZoneMap::new(mode, &[u16::from(stop) & !1, 0xFFFF]);
        for map in [Ok(ZoneMap::default_for(mode)), by_octets]
            .into_iter()
            .flatten()
        {
            let split = map.split(next, head, datagram.len());
            assert!(split.l1 <= datagram.len() && split.l1 <= 252);
            assert!(split.moved.is_none_or(|at| at + 2 <= split.l1));
            assert_eq!(moved(mode, next, &datagram[..split.l1]), split.moved);
            // A checksum that has moved is nothing the division depends on.
            let mut zeroed = head.to_vec();
            if let Some(at) = split.moved {
                zeroed[at..at + 2].fill(0);
            }
            assert_eq!(map.split(next, &zeroed, datagram.len()), split);
        }
    }
    if let Some(look) = Look::read(head) {
        let mut scales = Scales::default();
        for side in [Side::Host, Side::Peer] {
            scales.note(side, &look);
            assert!(scales.shift(side).is_none_or(|shift| shift <= 14));
        }
        assert_ne!(scales.clamp(&look, u32::from(next) << 8), Some(0));
    }
    let mut copy = datagram.to_vec();
    if let Some(found) = ip::addresses(&copy) {
        assert!(found.header_len <= 192 + 8);
    }
    tcp::clamp_mss(&mut copy, 1_000);
    assert_eq!(copy.len(), datagram.len());
});
