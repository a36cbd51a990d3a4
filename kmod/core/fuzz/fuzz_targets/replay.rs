// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of numbers against a set that remembers them all.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use mml_core::replay::{Replay, SEQ_END};

fuzz_target!(|data: &[u8]| {
    let Some((&[w0, w1, top @ .., b8], steps)) = data.split_first_chunk::<11>() else {
        return;
    };
    let width = u32::from(u16::from_be_bytes([w0, w1])) + u32::from(b8 & 1);
    let top = u64::from_be_bytes(top);
    let Some(mut window) = Replay::starting_at(width, top) else {
        assert!(!(64..=65_536).contains(&width) || top >= SEQ_END);
        return;
    };
    let mut bits = vec![0; Replay::words(width)];
    let mut seen = HashSet::new();
    let mut highest = top;
    for step in steps.chunks_exact(3) {
        let step = i64::from(i32::from_be_bytes([step[0], step[1], step[2], 0]) >> 8);
        let seq = highest.saturating_add_signed(step);
        let new =
            (1..SEQ_END).contains(&seq) && seq + u64::from(width) > highest && !seen.contains(&seq);
        assert_eq!(window.check(&bits, seq), new);
        assert_eq!(window.set(&mut bits, seq), new);
        if new {
            seen.insert(seq);
            highest = highest.max(seq);
            assert_eq!(window.infer(seq as u32), seq);
        }
        assert_eq!(window.top(), highest);
    }
});
