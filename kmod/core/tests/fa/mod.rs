// SPDX-License-Identifier: GPL-2.0-only
//! A flow and its caller: packets and their places are watched.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod state;

use std::collections::HashMap;

use mml_core::snoop::{prepare, Flow, Segment, Settings, Slot, State, Store, Verdict, BLOCKS};

pub const MS: u64 = 1_000_000;
/// Local retransmissions of one packet at most.
const TRIES: u32 = 24;
/// Packets that one event sends at most: as many as the persist timer, or holes and lost retransmissions together.
const BURST: usize = 17;

/// A packet that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub seq: u32,
    pub end: u32,
    pub esp: u64,
    /// Which one it is.
    pub id: u64,
}

/// Where packets are kept, and what was asked for.
#[derive(Default)]
pub struct Kept {
    pub packets: Vec<Option<Packet>>,
    pub out: Vec<Packet>,
    /// How often a packet was sent again.
    pub tries: HashMap<u64, u32>,
}

impl Store for Kept {
    fn release(&mut self, place: u16) {
        let gone = self.packets[usize::from(place)].take();
        assert!(gone.is_some(), "place {place} released twice");
    }

    fn retransmit(&mut self, place: u16) {
        let packet = self.packets[usize::from(place)].expect("nothing is kept there");
        *self.tries.entry(packet.id).or_default() += 1;
        self.out.push(packet);
    }
}

/// A flow and its caller.
pub struct Fa {
    pub flow: Flow,
    pub slots: Vec<Slot>,
    pub kept: Kept,
    pub settings: Settings,
    pub floor: u64,
    pub now: u64,
    pub next_id: u64,
}

impl Fa {
    pub fn new(slots: usize, settings: Settings) -> Self {
        let mut fa = Fa {
            flow: Flow::new(0),
            slots: vec![Slot::default(); slots],
            kept: Kept::default(),
            settings,
            floor: 0,
            now: 0,
            next_id: 0,
        };
        prepare(&mut fa.slots);
        fa.kept.packets.resize(slots, None);
        fa
    }

    /// Passes a segment on; the memory for its packet may be refused.
    pub fn data(&mut self, segment: &Segment, esp: u64, room: bool, memory: bool) {
        let place = self.flow.data(
            &mut self.slots,
            segment,
            esp,
            self.floor,
            room,
            self.now,
            &self.settings,
            &mut self.kept,
        );
        if let Some(place) = place {
            self.next_id += 1;
            let (seq, end) = (segment.seq, segment.end());
            let packet = Packet {
                seq,
                end,
                esp,
                id: self.next_id,
            };
            let old = self.kept.packets[usize::from(place)].replace(packet);
            if let Some(old) = old {
                assert_eq!((old.seq, old.end), (seq, end), "another packet's place");
            }
            if !memory {
                self.kept.packets[usize::from(place)] = None;
                self.flow.forget(&mut self.slots, place);
            }
        }
        self.check();
    }

    pub fn ack(&mut self, segment: &Segment) -> Verdict {
        let verdict = self.flow.ack(
            &mut self.slots,
            segment,
            self.floor,
            self.now,
            &self.settings,
            &mut self.kept,
        );
        self.check();
        verdict
    }

    /// Takes over what another router knew.
    pub fn take_over(&mut self, state: &State) -> bool {
        let (now, settings) = (self.now, self.settings);
        let slots = &mut self.slots;
        let taken = self
            .flow
            .take_over(slots, state, now, &settings, &mut self.kept);
        self.check();
        taken
    }

    /// Runs the timer until nothing is due; `false` once the flow is over.
    pub fn timer(&mut self) -> bool {
        for _ in 0..8 {
            self.kept.out.clear();
            let alive = self.flow.timer(
                &mut self.slots,
                self.floor,
                self.now,
                &self.settings,
                &mut self.kept,
            );
            self.check();
            if !alive {
                assert_eq!(self.flow.cached(), 0);
                return false;
            }
            if self.flow.deadline(&self.settings) > self.now {
                return true;
            }
        }
        panic!(
            "due at {} still, it is {}",
            self.flow.deadline(&self.settings),
            self.now
        );
    }

    pub fn grow(&mut self, by: usize) {
        let before = self.kept_packets();
        let mut into = vec![Slot::default(); self.slots.len() + by];
        assert!(self.flow.grow(&mut self.slots, &mut into));
        self.slots = into;
        self.kept.packets.resize(self.slots.len(), None);
        assert_eq!(self.kept_packets(), before);
        self.check();
    }

    pub fn kept_packets(&self) -> Vec<Packet> {
        self.kept.packets.iter().flatten().copied().collect()
    }

    /// What holds after each event.
    pub fn check(&mut self) {
        let kept = self.kept.packets.iter().flatten().count();
        assert_eq!(kept, self.flow.cached() as usize, "places leak");
        assert!(
            self.kept.out.len() <= BURST,
            "{} at once",
            self.kept.out.len()
        );
        for (id, tries) in &self.kept.tries {
            assert!(*tries <= TRIES, "packet {id} was sent again {tries} times");
        }
    }

    /// Every slot has a place of its own.
    pub fn check_places(&self) {
        let mut places: Vec<_> = self.slots.iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), self.slots.len(), "two slots have one place");
    }

    /// Whether the octet at `seq` can be repaired.
    pub fn has(&self, seq: u32) -> bool {
        let has = |p: &Packet| seq.wrapping_sub(p.seq) < p.end.wrapping_sub(p.seq);
        self.kept.packets.iter().flatten().any(has)
    }
}

/// A slot's place, as its text has it: the crate shows it to nobody.
fn place(slot: &Slot) -> String {
    let text = format!("{slot:?}");
    let (_, rest) = text.split_once("place: ").expect("place");
    rest.split(',').next().expect("a number").to_string()
}

pub fn segment(seq: u32, len: u32) -> Segment {
    Segment {
        seq,
        len,
        ack: Some(1),
        window: 1_000,
        syn: false,
        fin: false,
        rst: false,
        sack: [(0, 0); BLOCKS],
        blocks: 0,
    }
}

pub fn acknowledgement(ack: u32, window: u16, blocks: &[(u32, u32)]) -> Segment {
    let mut segment = Segment {
        ack: Some(ack),
        window,
        blocks: blocks.len() as u8,
        ..segment(1, 0)
    };
    segment.sack[..blocks.len()].copy_from_slice(blocks);
    segment
}
