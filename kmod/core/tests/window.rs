// SPDX-License-Identifier: GPL-2.0-only
//! The replay window against a naive model: RFC 4303 §3.4.3 and appendix A, `docs/wire.md` §1.

use std::collections::HashSet;

use mml_core::replay::{Replay, Resync, SEQ_END, WIDTHS};
use proptest::prelude::*;

/// Every number ever accepted, and arithmetic wide enough not to wrap.
struct Model {
    top: u64,
    width: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn accepts(&self, seq: u64) -> bool {
        let in_range = (1..SEQ_END).contains(&seq);
        in_range && seq + self.width > self.top && !self.seen.contains(&seq)
    }

    fn set(&mut self, seq: u64) -> bool {
        let new = self.accepts(seq);
        if new {
            self.seen.insert(seq);
            self.top = self.top.max(seq);
        }
        new
    }

    /// The number with this low half that lies in the 2^32 from the window's left edge on (RFC 4303 §A2.2).
    fn infer(&self, lo: u32) -> u64 {
        let left = i128::from(self.top) - i128::from(self.width) + 1;
        let candidate = (left >> 32 << 32) + i128::from(lo);
        let number = if candidate < left {
            candidate + (1 << 32)
        } else {
            candidate
        };
        // A number below zero can't have been sent: the first half-space's then.
        u64::try_from(number).unwrap_or(u64::from(lo))
    }
}

fn widths() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(64u32),
        Just(65),
        Just(127),
        Just(128),
        Just(192),
        Just(8_192),
        Just(65_536),
        64u32..=65_536
    ]
}

/// docs/wire.md 1.7c.
#[test]
fn widths_are_64_to_65536() {
    assert!(Replay::new(63).is_none() && Replay::new(65_537).is_none() && Replay::new(0).is_none());
    for width in WIDTHS {
        assert!(Replay::new(width).is_some());
        let bits = Replay::words(width) * 64;
        assert!(
            bits >= width as usize && bits.is_power_of_two() && bits < 2 * (width as usize + 64)
        );
    }
    assert!(Replay::starting_at(64, SEQ_END).is_none());
}

/// docs/wire.md 1.1b, 1.9l.
#[test]
fn zero_and_2_to_the_63_are_no_numbers() {
    let mut window = Replay::new(64).unwrap();
    let mut bits = [0];
    assert!(!window.set(&mut bits, 0));
    assert!(!window.set(&mut bits, SEQ_END));
    assert!(!window.set(&mut bits, u64::MAX));
    assert!(window.set(&mut bits, SEQ_END - 1));
    assert!(!window.set(&mut bits, SEQ_END - 1));
    assert_eq!(
        window.infer(0),
        1 << 63,
        "what follows is seen to be too high"
    );
    assert!(!window.check(&bits, window.infer(0)));
}

/// A bitmap shorter than the window asked for accepts nothing there, and doesn't panic.
#[test]
fn a_bitmap_too_short_accepts_nothing_it_cannot_record() {
    let mut window = Replay::new(8_192).unwrap();
    let mut bits = [0; 2];
    assert!(window.set(&mut bits, 5));
    assert!(!window.set(&mut bits, 1_000));
    assert!(!window.set(&mut [], 3_000));
}

/// docs/wire.md 1.7g.
#[test]
fn resync_asks_for_the_next_half_from_the_eighth_failure_on() {
    let mut resync = Resync::default();
    assert!((0..7).all(|_| !resync.failed()));
    assert!((0..300).all(|_| resync.failed()));
    resync.passed();
    assert!(!resync.failed());
    assert_eq!(Resync::next_half(7), (1 << 32) + 7);
    assert_eq!(Resync::next_half(u64::MAX), u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of numbers, near and far, forward and back, is accepted as the model accepts it.
    #[test]
    fn the_window_is_the_models(
        width in widths(),
        top in prop_oneof![Just(0u64), Just((1 << 32) - 40), 0u64..1 << 40, SEQ_END - 200..SEQ_END],
        steps in prop::collection::vec(
            prop_oneof![
                4 => -70i64..70,
                2 => -300i64..300,
                2 => -70_000i64..70_000,
                1 => Just(64i64), 1 => Just(63), 1 => Just(65), 1 => Just(0), 1 => Just(65_536), 1 => Just(131_072),
            ],
            1..400,
        ),
    ) {
        let mut window = Replay::starting_at(width, top).unwrap();
        let mut bits = vec![0; Replay::words(width)];
        let mut model = Model { top, width: width.into(), seen: HashSet::new() };
        for step in steps {
            let seq = model.top.saturating_add_signed(step);
            prop_assert_eq!(window.check(&bits, seq), model.accepts(seq), "{} at {}", seq, model.top);
            prop_assert_eq!(window.set(&mut bits, seq), model.set(seq), "{} at {}", seq, model.top);
            prop_assert!(!window.check(&bits, seq));
            prop_assert_eq!(window.top(), model.top);
            // Just outside the window, and both ends of it.
            for edge in [0, 1, u64::from(width) - 1, u64::from(width), u64::from(width) + 1] {
                let seq = model.top.saturating_sub(edge);
                prop_assert_eq!(window.check(&bits, seq), model.accepts(seq), "{} at {}", seq, model.top);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The inferred number is the one in the 2^32 from the window's left edge on (docs/wire.md 1.7d).
    #[test]
    fn the_high_half_is_inferred_as_appendix_a_says(
        width in widths(),
        top in prop_oneof![0u64..200_000, (1u64 << 32) - 100_000..(1 << 32) + 100_000, 0u64..SEQ_END],
        lo in prop_oneof![any::<u32>(), 0u32..100_000, u32::MAX - 100_000..=u32::MAX],
        near in -70_000i64..70_000,
    ) {
        let window = Replay::starting_at(width, top).unwrap();
        let model = Model { top, width: width.into(), seen: HashSet::new() };
        prop_assert_eq!(window.infer(lo), model.infer(lo));
        // Whatever is in the window, or less than 2^32 less its width ahead, is inferred right.
        let seq = top.saturating_add_signed(near);
        if seq + u64::from(width) > top && seq < SEQ_END {
            prop_assert_eq!(window.infer(seq as u32), seq);
        }
    }
}
