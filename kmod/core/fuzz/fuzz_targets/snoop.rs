// SPDX-License-Identifier: GPL-2.0-only
//! Any order of segments, acknowledgements and time: no place is leaked or released twice, nothing is sent in bursts or
//! for ever, what carries something is never hidden, and after the timer nothing is due.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_core::snoop::{prepare, Flow, Segment, Settings, Slot, Store, Verdict, BLOCKS};

const MS: u64 = 1_000_000;

/// How often what is kept in each place was sent again.
#[derive(Default)]
struct Kept {
    tries: Vec<Option<u32>>,
    sent: usize,
}

impl Store for Kept {
    fn release(&mut self, place: u16) {
        assert!(self.tries[usize::from(place)].take().is_some());
    }

    fn retransmit(&mut self, place: u16) {
        let tries = self.tries[usize::from(place)].as_mut().expect("kept");
        *tries += 1;
        assert!(*tries <= 24);
        self.sent += 1;
        assert!(self.sent <= 17);
    }
}

/// Near the flow's beginning, or far away.
fn number(base: u32, octet: u8) -> u32 {
    match octet {
        0..=239 => base.wrapping_add(u32::from(octet)),
        240..=247 => base.wrapping_sub(u32::from(octet - 239) << 2),
        _ => base.wrapping_add(u32::from(octet - 247) << 28),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[b0, b1, b2, b3, slots, window, threshold, times], mut rest)) =
        data.split_first_chunk::<8>()
    else {
        return;
    };
    let mut base = u32::from_be_bytes([b0, b1, b2, b3]);
    let (initial, minimum) = (
        u32::from(times & 15) * 10 + 1,
        u32::from(times >> 4) * 5 + 1,
    );
    let Ok(settings) = Settings::new(
        u16::from(window) + 1,
        threshold % 5 + 1,
        initial,
        minimum,
        1_000,
        10_000,
    ) else {
        unreachable!()
    };
    let mut slots = vec![Slot::default(); usize::from(slots % 64)];
    prepare(&mut slots);
    let mut kept = Kept::default();
    kept.tries.resize(slots.len(), None);
    let mut flow = Flow::new(0);
    let (mut now, mut floor) = (0u64, 0u64);
    while let Some((&[what, a, b, c], tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        kept.sent = 0;
        // Flags are rare: three bits of one value.
        let flags = if what >> 3 == 31 { c } else { 0 };
        let mut segment = Segment {
            seq: number(base, a),
            len: u32::from(b & 63),
            ack: Some(number(base, a)),
            window: if c == 255 {
                0
            } else {
                1_000 + u16::from(c >> 7)
            },
            syn: flags & 1 != 0,
            fin: flags & 2 != 0,
            rst: flags & 4 != 0,
            sack: [(0, 0); BLOCKS],
            blocks: 0,
        };
        match what & 7 {
            0 | 1 => {
                let esp = u64::from(what >> 3 & 3) + u64::from(a);
                let place = flow.data(
                    &mut slots,
                    &segment,
                    esp * u64::from(c & 1),
                    floor,
                    c & 0x70 != 0x70,
                    now,
                    &settings,
                    &mut kept,
                );
                if let Some(place) = place {
                    kept.tries[usize::from(place)] = Some(0);
                    if c & 0x0E == 0x0E {
                        kept.tries[usize::from(place)] = None;
                        flow.forget(&mut slots, place);
                    }
                }
                if a < 240 && what & 7 == 1 {
                    base = base.wrapping_add(u32::from(a >> 3));
                }
            }
            2..=4 => {
                segment.len = if b < 250 { 0 } else { u32::from(b) };
                let blocks = if what & 7 == 2 {
                    0
                } else {
                    usize::from(b & 3) + 1
                };
                for block in &mut segment.sack[..blocks] {
                    let Some((&[at, len], tail)) = rest.split_first_chunk::<2>() else {
                        break;
                    };
                    rest = tail;
                    let start = number(base, at);
                    *block = (start, start.wrapping_add(u32::from(len)));
                    segment.blocks += 1;
                }
                let verdict = flow.ack(&mut slots, &segment, floor, now, &settings, &mut kept);
                if verdict == Verdict::Suppress {
                    assert!(segment.len == 0 && !segment.fin && !segment.rst && !segment.syn);
                }
            }
            5 | 6 => {
                now += u64::from(a) * MS * if what & 7 == 6 { 20 } else { 1 };
                for turn in 0.. {
                    kept.sent = 0;
                    if !flow.timer(&mut slots, floor, now, &settings, &mut kept)
                        || flow.deadline(&settings) > now
                    {
                        break;
                    }
                    assert!(turn < 8);
                }
            }
            _ if a & 1 == 0 => {
                let mut into = vec![Slot::default(); slots.len() + usize::from(b & 15)];
                assert!(flow.grow(&mut slots, &mut into));
                slots = into;
                kept.tries.resize(slots.len(), None);
            }
            _ => floor = floor.max(u64::from(b)),
        }
        let places = kept.tries.iter().flatten().count();
        assert_eq!(places, flow.cached() as usize);
    }
    kept.sent = 0;
    flow.release(&mut slots, &mut kept);
    assert!(kept.tries.iter().all(Option::is_none));
});
