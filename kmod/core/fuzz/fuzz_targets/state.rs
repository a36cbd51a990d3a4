// SPDX-License-Identifier: GPL-2.0-only
//! Any octets as what another foreign agent knew of flows: refused, or written back octet by octet. Whatever it says, a flow
//! that takes it over leaks nothing, sends little, and lets the first acknowledgement pass.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_core::snoop::{prepare, Flow, Segment, Settings, Slot, State, States, Store, Verdict, BLOCKS};

const MS: u64 = 1_000_000;
const SLOTS: usize = 8;

#[derive(Default)]
struct Kept {
    places: [bool; SLOTS],
    sent: usize,
}

impl Store for Kept {
    fn release(&mut self, place: u16) {
        assert!(std::mem::take(&mut self.places[usize::from(place)]));
    }

    fn retransmit(&mut self, place: u16) {
        assert!(self.places[usize::from(place)]);
        self.sent += 1;
    }
}

fn segment(seq: u32, len: u32, ack: u32, window: u16) -> Segment {
    Segment {
        seq,
        len,
        ack: Some(ack),
        window,
        syn: false,
        fin: false,
        rst: false,
        sack: [(0, 0); BLOCKS],
        blocks: 0,
    }
}

/// Octets from `begin` on pass; the state comes before them or behind; then time, and acknowledgements from `acked` on.
fn taken(state: &State, begin: u32, acked: u32, behind: bool) {
    let settings = Settings::default();
    let mut slots = [Slot::default(); SLOTS];
    prepare(&mut slots);
    let (mut flow, mut kept) = (Flow::new(0), Kept::default());
    if !behind {
        assert!(flow.take_over(&mut slots, state, 0, &settings, &mut kept));
        assert_eq!(flow.state(state.ends).as_ref(), Some(state));
    }
    for at in [20, 30, 0, 10] {
        let data = segment(begin.wrapping_add(at), 10, 1, 0);
        if let Some(place) = flow.data(&mut slots, &data, 1, 0, true, MS, &settings, &mut kept) {
            kept.places[usize::from(place)] = true;
        }
    }
    let taken = !behind || flow.take_over(&mut slots, state, 0, &settings, &mut kept);
    for now in (MS..3_000 * MS).step_by(7 * MS as usize) {
        if now >= flow.deadline(&settings) {
            flow.timer(&mut slots, 0, now, &settings, &mut kept);
        }
    }
    // By the timer three times each, and after the silence once more.
    assert!(kept.sent <= 16);
    for (turn, at) in [0, 0, 10, 10, 40].into_iter().enumerate() {
        let ack = segment(1, 0, acked.wrapping_add(at), 1_000);
        let verdict = flow.ack(&mut slots, &ack, 0, 3_000 * MS, &settings, &mut kept);
        assert!(turn > 0 || !taken || verdict == Verdict::Forward);
    }
    flow.release(&mut slots, &mut kept);
    assert!(kept.places.iter().all(|kept| !kept));
}

fuzz_target!(|octets: &[u8]| {
    let Ok(states) = States::parse(octets) else {
        return;
    };
    let mut buffer = [0xEE; States::LEN];
    assert_eq!(States::write(&mut buffer, states.flows()), octets);
    for (state, one) in states.flows().zip(octets[8..].chunks(80)) {
        // What the state says is acknowledged is where it matters most.
        let una = u32::from_be_bytes([one[40], one[41], one[42], one[43]]);
        for begin in [una, una.wrapping_sub(15), una.wrapping_add(5)] {
            for acked in [una, begin] {
                taken(&state, begin, acked, false);
                taken(&state, begin, acked, true);
            }
        }
    }
});
