// SPDX-License-Identifier: GPL-2.0-only
//! SNOOP's state machine: what must hold whatever the ends and the hop do, and its rules one by one (`docs/snoop.md`).

use std::collections::HashMap;

use mml_core::snoop::{prepare, Flow, Segment, Settings, Slot, Store, Verdict, BLOCKS};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
/// Local retransmissions of one packet at most.
const TRIES: u32 = 24;
/// Packets that one event sends at most: as many as the persist timer, or holes and lost retransmissions together.
const BURST: usize = 17;

/// A packet that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packet {
    seq: u32,
    end: u32,
    esp: u64,
    /// Which one it is.
    id: u64,
}

/// Where packets are kept, and what was asked for.
#[derive(Default)]
struct Kept {
    packets: Vec<Option<Packet>>,
    out: Vec<Packet>,
    /// How often a packet was sent again.
    tries: HashMap<u64, u32>,
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
struct Fa {
    flow: Flow,
    slots: Vec<Slot>,
    kept: Kept,
    settings: Settings,
    floor: u64,
    now: u64,
    next_id: u64,
}

impl Fa {
    fn new(slots: usize, settings: Settings) -> Self {
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
    fn data(&mut self, segment: &Segment, esp: u64, room: bool, memory: bool) {
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

    fn ack(&mut self, segment: &Segment) -> Verdict {
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

    /// Runs the timer until nothing is due; `false` once the flow is over.
    fn timer(&mut self) -> bool {
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

    fn grow(&mut self, by: usize) {
        let before = self.kept_packets();
        let mut into = vec![Slot::default(); self.slots.len() + by];
        assert!(self.flow.grow(&mut self.slots, &mut into));
        self.slots = into;
        self.kept.packets.resize(self.slots.len(), None);
        assert_eq!(self.kept_packets(), before);
        self.check();
    }

    fn kept_packets(&self) -> Vec<Packet> {
        self.kept.packets.iter().flatten().copied().collect()
    }

    /// What holds after each event.
    fn check(&mut self) {
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
    fn check_places(&self) {
        let mut places: Vec<_> = self.slots.iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), self.slots.len(), "two slots have one place");
    }

    /// Whether the octet at `seq` can be repaired.
    fn has(&self, seq: u32) -> bool {
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

fn segment(seq: u32, len: u32) -> Segment {
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

fn acknowledgement(ack: u32, window: u16, blocks: &[(u32, u32)]) -> Segment {
    let mut segment = Segment {
        ack: Some(ack),
        window,
        blocks: blocks.len() as u8,
        ..segment(1, 0)
    };
    segment.sack[..blocks.len()].copy_from_slice(blocks);
    segment
}

/// Numbers at which 32 bits wrap or change sign, and others.
fn starts() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0u32),
        Just(u32::MAX - 20),
        Just((1 << 31) - 20),
        any::<u32>()
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (1u16..40, 1u8..5, 1u32..200, 1u32..100, 100u32..2_000).prop_map(
        |(window, threshold, initial, minimum, persist)| {
            Settings::new(window, threshold, initial, minimum, persist, 10_000).expect("settings")
        },
    )
}

/// Anything at all.
#[derive(Clone, Debug)]
enum Chaos {
    Data {
        offset: i32,
        len: u32,
        flags: u8,
        esp: u64,
        room: bool,
        memory: bool,
    },
    Ack {
        offset: i32,
        window: u16,
        len: u32,
        flags: u8,
        blocks: Vec<(i32, u32)>,
    },
    Wait(u64),
    Grow(usize),
    Floor(u64),
    Release,
}

fn offset() -> impl Strategy<Value = i32> {
    prop_oneof![
        20 => 0i32..60,
        3 => -60i32..0,
        1 => Just(i32::MAX), 1 => Just(i32::MIN), 1 => Just(1 << 30), 1 => Just(-(1 << 30)), 1 => any::<i32>(),
    ]
}

/// SYN, FIN and RST, seldom.
fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![60 => Just(0u8), 1 => Just(1), 2 => Just(2), 1 => Just(4)]
}

fn chaos() -> impl Strategy<Value = Vec<Chaos>> {
    let len = prop_oneof![10 => 1u32..5, 1 => Just(0u32), 1 => 5u32..60, 1 => Just(65_515u32)];
    let data = (
        offset(),
        len,
        flags(),
        0u64..4,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.95),
    )
        .prop_map(|(offset, len, flags, esp, room, memory)| Chaos::Data {
            offset,
            len,
            flags,
            esp,
            room,
            memory,
        });
    let window = prop_oneof![8 => Just(1_000u16), 1 => Just(0u16), 1 => any::<u16>()];
    let blocks = prop::collection::vec((offset(), 0u32..8), 0..=BLOCKS);
    let carried = prop_oneof![9 => Just(0u32), 1 => 1u32..5];
    let ack = (offset(), window, carried, flags(), blocks).prop_map(
        |(offset, window, len, flags, blocks)| Chaos::Ack {
            offset,
            window,
            len,
            flags,
            blocks,
        },
    );
    let wait = prop_oneof![4 => 0u64..30, 2 => 30u64..400, 1 => 1_000u64..3_000];
    prop::collection::vec(
        prop_oneof![
            12 => data,
            12 => ack,
            6 => wait.prop_map(Chaos::Wait),
            1 => (0usize..20).prop_map(Chaos::Grow),
            1 => (0u64..5).prop_map(Chaos::Floor),
            1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Chaos::Release } else { Chaos::Wait(1) }),
        ],
        1..300,
    )
}

fn flagged(mut segment: Segment, flags: u8) -> Segment {
    (segment.syn, segment.fin, segment.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    segment
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of events panics, leaks or doubles a place, sends a burst, repeats a packet for ever, or leaves
    /// something due; whatever the hosts made up.
    #[test]
    fn no_events_break_the_flow(start in starts(), slots in 0usize..20, settings in settings(), steps in chaos()) {
        let mut fa = Fa::new(slots, settings);
        // The flow is at its start: what it is told of goes on from where the last data was.
        let mut base = start;
        for step in steps {
            fa.kept.out.clear();
            let number = |offset: i32| base.wrapping_add(offset as u32);
            match step {
                Chaos::Data { offset, len, flags, esp, room, memory } => {
                    let data = flagged(segment(number(offset), len), flags);
                    fa.data(&data, esp, room, memory);
                    if (0..60).contains(&offset) && len < 60 {
                        base = base.wrapping_add(offset as u32 / 8);
                    }
                }
                Chaos::Ack { offset, window, len, flags, blocks } => {
                    let blocks: Vec<_> = blocks
                        .into_iter()
                        .map(|(offset, len)| (number(offset), number(offset).wrapping_add(len)))
                        .collect();
                    let ack = Segment { len, ..acknowledgement(number(offset), window, &blocks) };
                    let ack = flagged(ack, flags);
                    if fa.ack(&ack) == Verdict::Suppress {
                        prop_assert!(len == 0 && flags == 0, "what carries something was hidden");
                    }
                }
                Chaos::Wait(ms) => {
                    fa.now += ms * MS;
                    fa.timer();
                }
                Chaos::Grow(by) => fa.grow(by),
                Chaos::Floor(floor) => fa.floor = fa.floor.max(floor),
                Chaos::Release => {
                    fa.flow.release(&mut fa.slots, &mut fa.kept);
                    fa.check();
                }
            }
        }
        fa.check_places();
        fa.flow.release(&mut fa.slots, &mut fa.kept);
        prop_assert_eq!(fa.kept_packets(), vec![]);
    }
}

/// Two honest hosts and a hop that loses and delays; octets are numbered from 0.
struct Honest {
    fa: Fa,
    isn: u32,
    sack: bool,
    /// The sender: what it has sent, and what it was told.
    sent: u32,
    told: u32,
    window: u32,
    /// The receiver's octets, and how many in order.
    got: Vec<bool>,
    blocks: Vec<(u32, u32)>,
    esp: Option<u64>,
    numbers: std::collections::HashSet<u64>,
    /// The highest acknowledgement that reached the FA.
    seen: u32,
    /// On their way down and up.
    down: Vec<(u32, u32, u64)>,
    up: Vec<Segment>,
}

const OCTETS: u32 = 4_000;

impl Honest {
    fn new(isn: u32, sack: bool, esp: bool, settings: Settings) -> Self {
        let mut honest = Honest {
            fa: Fa::new(4, settings),
            isn,
            sack,
            sent: 0,
            told: 0,
            window: 400,
            got: vec![false; OCTETS as usize + 1],
            blocks: Vec::new(),
            esp: esp.then_some(0),
            numbers: std::collections::HashSet::new(),
            seen: 0,
            down: Vec::new(),
            up: Vec::new(),
        };
        let syn = Segment {
            syn: true,
            ack: None,
            ..segment(isn.wrapping_sub(1), 0)
        };
        honest.fa.data(&syn, 0, true, true);
        honest
    }

    fn next(&self) -> u32 {
        self.got
            .iter()
            .position(|got| !got)
            .expect("the last never comes") as u32
    }

    /// The sender sends octets `from .. to`; the queue may be full.
    fn send(&mut self, from: u32, to: u32, room: bool) {
        let number = self.esp.as_mut().map_or(0, |esp| {
            *esp += 1;
            *esp
        });
        self.sent = self.sent.max(to);
        if self.fa.flow.is_full(self.fa.slots.len()) && self.fa.slots.len() < 64 {
            self.fa.grow(8);
        }
        let data = segment(self.isn.wrapping_add(from), to - from);
        self.fa.data(&data, number, room, true);
        if room {
            self.down.push((from, to, number));
        }
        self.repairs();
    }

    fn repairs(&mut self) {
        for packet in std::mem::take(&mut self.fa.kept.out) {
            let from = packet.seq.wrapping_sub(self.isn);
            let to = packet.end.wrapping_sub(self.isn);
            assert!(to <= self.sent && from < to);
            // They go first.
            self.down.insert(0, (from, to, packet.esp));
        }
    }

    /// The hop's first packet arrives, or is lost.
    fn arrive(&mut self, lost: bool) {
        if self.down.is_empty() {
            return;
        }
        let (from, to, esp) = self.down.remove(0);
        if lost || (esp != 0 && !self.numbers.insert(esp)) {
            return;
        }
        for octet in from..to {
            self.got[octet as usize] = true;
        }
        let next = self.next();
        let mut ack = acknowledgement(self.isn.wrapping_add(next), self.window as u16, &[]);
        if self.sack {
            self.blocks.retain(|b| b.1 <= from || to <= b.0);
            if to > next {
                let mut block = (from.max(next), to);
                while block.0 > next && self.got[block.0 as usize - 1] {
                    block.0 -= 1;
                }
                while self.got[block.1 as usize] {
                    block.1 += 1;
                }
                self.blocks.retain(|b| b.1 <= block.0 || block.1 <= b.0);
                self.blocks.insert(0, block);
            }
            self.blocks.retain(|b| b.0 > next);
            self.blocks.truncate(BLOCKS);
            ack.blocks = self.blocks.len() as u8;
            for (to, from) in ack.sack.iter_mut().zip(&self.blocks) {
                *to = (self.isn.wrapping_add(from.0), self.isn.wrapping_add(from.1));
            }
        }
        self.up.push(ack);
    }

    /// An acknowledgement on its way, the first or a later one, reaches the FA, or is lost.
    fn acknowledged(&mut self, which: usize, lost: bool) {
        if self.up.is_empty() {
            return;
        }
        let ack = self.up.remove(which % self.up.len());
        if lost {
            return;
        }
        let number = ack.ack.expect("ack").wrapping_sub(self.isn);
        let verdict = self.fa.ack(&ack);
        self.repairs();
        match verdict {
            Verdict::Forward => self.told = self.told.max(number),
            // It is old, or the hole it tells of can be repaired.
            Verdict::Suppress => assert!(
                number < self.seen || self.fa.has(ack.ack.expect("ack")),
                "the hole at {number} is hidden and can't be repaired"
            ),
        }
        self.seen = self.seen.max(number);
        assert!(self.told <= self.next(), "an acknowledgement was made up");
        // What the sender knows to have arrived it need not send again: all else is received, cached, or its own.
        assert_eq!(
            self.fa.flow.acknowledged(),
            Some(self.isn.wrapping_add(self.seen))
        );
    }

    fn wait(&mut self, ms: u64) {
        let until = self.fa.now + ms * MS;
        loop {
            let due = self.fa.flow.deadline(&self.fa.settings);
            if due > until {
                break;
            }
            self.fa.now = due.max(self.fa.now);
            if !self.fa.timer() {
                break;
            }
            self.repairs();
        }
        self.fa.now = until;
    }
}

#[derive(Clone, Debug)]
enum Turn {
    /// New octets.
    Send(u32, bool),
    /// Some it has sent already, cut as it likes; in thousandths of what is under way.
    Again(u32, u32, bool),
    Arrive(bool),
    Acknowledged(usize, bool),
    Wait(u64),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let room = || prop::bool::weighted(0.95);
    let lost = || prop::bool::weighted(0.2);
    let which = prop_oneof![9 => Just(0usize), 1 => 0usize..3];
    let wait = prop_oneof![6 => 0u64..10, 2 => 10u64..60, 1 => 100u64..1_500];
    prop::collection::vec(
        prop_oneof![
            8 => (1u32..15, room()).prop_map(|(len, room)| Turn::Send(len, room)),
            1 => (0u32..1_000, 1u32..30, room()).prop_map(|(at, len, room)| Turn::Again(at, len, room)),
            9 => lost().prop_map(Turn::Arrive),
            9 => (which, lost()).prop_map(|(which, lost)| Turn::Acknowledged(which, lost)),
            4 => wait.prop_map(Turn::Wait),
        ],
        1..400,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Between honest hosts nothing is made up; what is hidden can be repaired; and however the hop behaved, in the
    /// end a sender that does no more than send again what it isn't told of gets everything through.
    #[test]
    fn honest_hosts_are_neither_lied_to_nor_stalled(
        isn in starts(), sack: bool, esp: bool, settings in settings(), turns in turns(),
    ) {
        let mut honest = Honest::new(isn, sack, esp, settings);
        for turn in turns {
            match turn {
                Turn::Send(len, room) => {
                    let to = honest.sent + len;
                    if to <= honest.told + honest.window && to < OCTETS {
                        honest.send(honest.sent, to, room);
                    }
                }
                Turn::Again(at, len, room) => {
                    let from = honest.told + (honest.sent - honest.told) * at / 1_000;
                    let to = (from + len).min(honest.sent);
                    if from < to {
                        honest.send(from, to, room);
                    }
                }
                Turn::Arrive(lost) => honest.arrive(lost),
                Turn::Acknowledged(which, lost) => honest.acknowledged(which, lost),
                Turn::Wait(ms) => {
                    honest.wait(ms);
                    if honest.fa.flow.is_closed() {
                        // Silent for longer than anyone remembers it.
                        return Ok(());
                    }
                }
            }
        }
        // Now nothing is lost. Each round the sender's time runs out, and it sends the first it isn't told of.
        let mut rounds = 0;
        while honest.told < honest.sent {
            rounds += 1;
            prop_assert!(rounds < 500, "told of {} of {}, received {}", honest.told, honest.sent, honest.next());
            for _ in 0..1_000 {
                if honest.down.is_empty() && honest.up.is_empty() {
                    break;
                }
                honest.fa.now += MS;
                honest.arrive(false);
                honest.acknowledged(0, false);
            }
            prop_assert!(honest.down.is_empty() && honest.up.is_empty(), "they never stop");
            honest.wait(300);
            if honest.told < honest.sent && honest.down.is_empty() {
                let to = (honest.told + 10).min(honest.sent);
                honest.send(honest.told, to, true);
            }
        }
        prop_assert_eq!(honest.next(), honest.sent);
        honest.fa.check_places();
    }
}

/// Segments of 10 octets, numbered: a flow that has seen the handshake and `sent` of them, a millisecond apart, and
/// an acknowledgement of the first.
fn flowing(sent: u32, esp: bool, settings: Settings) -> Fa {
    let mut fa = Fa::new(64, settings);
    let syn = Segment {
        syn: true,
        ack: None,
        ..segment(u32::MAX, 0)
    };
    fa.data(&syn, 0, true, true);
    for index in 0..sent {
        fa.now += MS;
        fa.data(
            &nth(index),
            if esp { u64::from(index) + 1 } else { 0 },
            true,
            true,
        );
    }
    fa.now += 5 * MS;
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
    fa.now += MS;
    fa
}

fn nth(index: u32) -> Segment {
    segment(index * 10, 10)
}

/// Everything before segment `next` has arrived, and these ranges of segments.
fn up_to(next: u32, blocks: &[(u32, u32)]) -> Segment {
    let blocks: Vec<_> = blocks.iter().map(|b| (b.0 * 10, b.1 * 10)).collect();
    acknowledgement(next * 10, 1_000, &blocks)
}

/// Which segments were sent again since the last look.
fn again(fa: &mut Fa) -> Vec<u32> {
    let out = fa.kept.out.drain(..);
    out.map(|packet| packet.seq / 10).collect()
}

fn table_iii() -> Settings {
    Settings::new(50, 4, 100, 100, 1_000, 10_000).expect("settings")
}

#[test]
fn a_duplicate_has_the_hole_repaired_once_and_goes_no_further() {
    let mut fa = flowing(10, false, Settings::default());
    for _ in 0..5 {
        assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
        fa.now += MS;
    }
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(7, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
    assert_eq!(
        (fa.flow.counters.by_duplicate, fa.flow.counters.suppressed),
        (1, 5)
    );
}

#[test]
fn the_threshold_is_the_number_of_duplicates_it_takes() {
    let mut fa = flowing(10, false, table_iii());
    for _ in 0..3 {
        assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    }
    assert_eq!(again(&mut fa), []);
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn the_next_hole_is_inferred_from_the_duplicates_that_are_left() {
    let mut fa = flowing(10, false, Settings::default());
    // 1 and 4 are missing: 2, 3, 5, 6, 7 arrive.
    for _ in 0..5 {
        fa.ack(&up_to(1, &[]));
    }
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(4, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), [4]);
    assert_eq!(fa.ack(&up_to(8, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
}

/// If the count is wrong, it doesn't have every segment sent twice.
#[test]
fn what_the_count_alone_tells_is_believed_three_times_in_a_row() {
    let mut fa = flowing(20, false, Settings::default());
    fa.ack(&up_to(1, &[]));
    fa.ack(&up_to(1, &[]));
    again(&mut fa);
    let mut copies = 0;
    for next in 2..20 {
        fa.now += MS;
        assert_eq!(fa.ack(&up_to(next, &[])), Verdict::Forward);
        copies += again(&mut fa).len();
    }
    assert_eq!(copies, 3);
}

#[test]
fn every_hole_below_a_sack_block_is_repaired_at_once() {
    let mut fa = flowing(20, false, Settings::default());
    assert_eq!(fa.ack(&up_to(1, &[(2, 3)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(1, &[(6, 7), (2, 3)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [3, 4, 5]);
    assert_eq!(fa.flow.counters.by_sack, 4);
    // Eight for one acknowledgement, and the rest with the next.
    assert_eq!(
        fa.ack(&up_to(1, &[(17, 18), (6, 7), (2, 3)])),
        Verdict::Suppress
    );
    assert_eq!(again(&mut fa), [7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(
        fa.ack(&up_to(1, &[(17, 19), (6, 7), (2, 3)])),
        Verdict::Suppress
    );
    assert_eq!(again(&mut fa), [15, 16]);
}

#[test]
fn with_sack_a_bare_duplicate_asks_for_nothing_and_is_forwarded() {
    let mut fa = flowing(10, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    again(&mut fa);
    assert_eq!(fa.ack(&up_to(3, &[])), Verdict::Forward);
    for _ in 0..4 {
        assert_eq!(fa.ack(&up_to(3, &[])), Verdict::Forward);
        // One that tells of something that came twice (RFC 2883), likewise.
        assert_eq!(fa.ack(&up_to(3, &[(1, 2)])), Verdict::Forward);
    }
    assert_eq!(again(&mut fa), []);
}

#[test]
fn a_new_acknowledgement_whose_blocks_tell_of_a_repair_waits_up_to_half_a_window() {
    let mut fa = flowing(21, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 9)]));
    assert_eq!(again(&mut fa), [1]);
    // 9 is missing, three behind it have come; of 20 under way 8 are news.
    assert_eq!(fa.ack(&up_to(9, &[(10, 13)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [9]);
    // 13 is missing, and 12 are news: more than half.
    assert_eq!(fa.ack(&up_to(13, &[(14, 15)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [13]);
    // With one segment behind the hole it is a third: of 8 first 2, then 4.
    assert_eq!(fa.ack(&up_to(15, &[(16, 17)])), Verdict::Suppress);
    assert_eq!(fa.ack(&up_to(17, &[(18, 19)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [15, 17]);
    // Without blocks it goes on.
    assert_eq!(fa.ack(&up_to(19, &[])), Verdict::Forward);
}

#[test]
fn what_the_sender_repairs_it_is_told_of() {
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    fa.data(&nth(1), 0, true, true);
    assert_eq!(fa.flow.counters.sender, 1);
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(9, &[])), Verdict::Forward);
    // It doesn't know that 5 has arrived: the answer, a duplicate, is for it. 9 is missing, and cached.
    fa.data(&nth(5), 0, true, true);
    assert_eq!(fa.ack(&up_to(9, &[])), Verdict::Forward);
}

#[test]
fn a_hole_that_is_not_cached_is_the_senders() {
    let mut fa = flowing(5, false, Settings::default());
    // 5 was lost before it came here; 6 finds the queue full, 7 doesn't.
    fa.data(&nth(6), 0, false, true);
    fa.data(&nth(7), 0, true, true);
    assert_eq!(fa.flow.counters.queue_full, 1);
    assert_eq!(fa.ack(&up_to(5, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(5, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(5, &[(7, 8)])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
}

#[test]
fn the_cache_is_no_larger_than_its_slots() {
    let mut fa = Fa::new(3, Settings::default());
    for index in 0..5 {
        fa.data(&nth(index), 0, true, true);
    }
    assert_eq!((fa.flow.cached(), fa.flow.counters.full), (3, 2));
    assert!(fa.flow.is_full(3));
    fa.grow(1);
    fa.data(&nth(5), 0, true, true);
    assert_eq!(fa.flow.cached(), 4);
}

#[test]
fn an_acknowledgement_with_news_of_its_own_is_not_hidden() {
    let duplicate = up_to(1, &[]);
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&duplicate), Verdict::Suppress);
    for news in [
        Segment {
            len: 5,
            ..duplicate
        },
        Segment {
            fin: true,
            ..duplicate
        },
        Segment {
            window: 999,
            ..duplicate
        },
        Segment {
            window: 0,
            ..duplicate
        },
        // It opens again.
        Segment {
            window: 1_000,
            ..duplicate
        },
    ] {
        assert_eq!(fa.ack(&news), Verdict::Forward, "{news:?}");
    }
    assert_eq!(fa.ack(&duplicate), Verdict::Suppress);
    // Of what never was sent.
    assert_eq!(fa.ack(&up_to(11, &[])), Verdict::Forward);
    assert_eq!(fa.flow.counters.ahead, 1);
}

#[test]
fn a_retransmission_is_lost_if_one_sent_after_it_is_answered() {
    let mut fa = flowing(20, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    fa.now += MS;
    fa.ack(&up_to(1, &[(4, 5), (2, 3)]));
    assert_eq!(again(&mut fa), [1, 3]);
    fa.now += MS;
    // The one of 3 has arrived, that of 1 has not.
    assert_eq!(fa.ack(&up_to(1, &[(2, 5)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn a_retransmission_is_lost_if_what_was_first_sent_after_it_arrives() {
    let mut fa = flowing(10, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    assert_eq!(again(&mut fa), [1]);
    fa.data(&nth(10), 0, true, true);
    // It overtakes what waits; that tells nothing.
    assert_eq!(fa.ack(&up_to(1, &[(2, 10)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), []);
    assert_eq!(fa.ack(&up_to(1, &[(2, 11)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn without_sack_more_duplicates_than_can_come_prove_it_too() {
    let mut fa = flowing(6, false, Settings::default());
    // 2 to 5 were sent before it: four duplicates, of which one has come.
    fa.ack(&up_to(1, &[]));
    assert_eq!(again(&mut fa), [1]);
    for _ in 0..3 {
        fa.ack(&up_to(1, &[]));
    }
    assert_eq!(again(&mut fa), []);
    fa.ack(&up_to(1, &[]));
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn a_retransmission_is_lost_if_its_answer_is_late() {
    let mut fa = flowing(40, false, Settings::default());
    // Its round trip is 4 ms, once: the time-out is 12 ms.
    fa.ack(&up_to(1, &[]));
    fa.now += 4 * MS;
    fa.ack(&up_to(5, &[]));
    again(&mut fa);
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), [5]);
    fa.now += 11 * MS;
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), []);
    fa.now += 2 * MS;
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), [5]);
    // The next one may take a quarter longer. Without a duplicate the timer finds it.
    fa.now = fa.flow.deadline(&fa.settings);
    fa.timer();
    assert_eq!(again(&mut fa), [5]);
    assert_eq!(fa.flow.counters.by_timer, 1);
}

/// Of two copies that both arrive, one causes a duplicate that tells of no loss; under ESP none does.
#[test]
fn an_echo_of_a_copy_asks_for_nothing() {
    for esp in [false, true] {
        let mut fa = flowing(10, esp, Settings::default());
        fa.now = fa.flow.deadline(&fa.settings);
        fa.timer();
        assert_eq!(again(&mut fa), [1]);
        fa.now += 5 * MS;
        assert_eq!(fa.ack(&up_to(2, &[])), Verdict::Forward);
        assert_eq!(fa.ack(&up_to(2, &[])), Verdict::Suppress);
        assert_eq!(again(&mut fa), if esp { vec![2] } else { vec![] });
    }
}

#[test]
fn the_timer_tries_three_times_and_leaves_it_to_the_sender() {
    let mut fa = flowing(2, true, Settings::default());
    let mut copies = 0;
    let until = fa.now + 900 * MS;
    while fa.flow.deadline(&fa.settings) < until {
        fa.now = fa.flow.deadline(&fa.settings);
        assert!(fa.timer());
        copies += again(&mut fa).len();
    }
    assert_eq!(
        (copies, fa.flow.counters.gave_up, fa.flow.cached()),
        (3, 1, 0)
    );
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
}

#[test]
fn the_last_segment_may_be_acknowledged_late() {
    let fa = flowing(2, false, Settings::default());
    let due = fa.flow.deadline(&fa.settings);
    assert!(due >= fa.now + 50 * MS, "{due} at {}", fa.now);
    assert!(due <= fa.now + 200 * MS, "{due} at {}", fa.now);
}

#[test]
fn silence_has_what_is_missing_sent_once_more_and_then_forgotten() {
    // Its own timers come later than the silence.
    let settings = Settings::new(50, 1, 3_000, 3_000, 1_000, 10_000).expect("settings");
    let mut fa = flowing(25, false, settings);
    fa.ack(&up_to(1, &[(3, 4)]));
    again(&mut fa);
    let silent = fa.now;
    fa.now = fa.flow.deadline(&fa.settings);
    assert_eq!(fa.now, silent + 1_000 * MS);
    assert!(fa.timer());
    let sent = again(&mut fa);
    assert_eq!(sent.len(), 16, "{sent:?}");
    assert_eq!(sent[..4], [1, 2, 4, 5]);
    assert_eq!(fa.flow.counters.by_persist, 16);
    fa.now = silent + 10_000 * MS - 1;
    assert!(fa.timer());
    fa.now += 1;
    assert!(!fa.timer());
    assert!(fa.flow.is_closed());
    assert_eq!(fa.kept_packets(), []);
}

#[test]
fn a_receiver_without_room_is_sent_nothing() {
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&acknowledgement(10, 0, &[])), Verdict::Forward);
    for _ in 0..5 {
        assert_eq!(fa.ack(&acknowledgement(10, 0, &[])), Verdict::Forward);
    }
    fa.now += 5_000 * MS;
    assert!(fa.timer());
    assert_eq!(again(&mut fa), []);
}

#[test]
fn nothing_is_sent_to_someone_who_never_answered() {
    let mut fa = Fa::new(10, Settings::default());
    for index in 0..5 {
        fa.data(&nth(index), 0, true, true);
    }
    assert!(!fa.flow.is_confirmed() && fa.flow.acknowledged().is_none());
    fa.now += 5_000 * MS;
    assert!(fa.timer());
    assert_eq!(again(&mut fa), []);
    fa.now += 5_000 * MS;
    assert!(!fa.timer());
}

#[test]
fn what_the_replay_window_will_not_take_is_let_go() {
    let mut fa = flowing(10, true, Settings::default());
    // ESP numbers 2 to 10 are cached; 5 is the first that is still sure to be taken.
    fa.floor = 5;
    assert_eq!(fa.ack(&up_to(1, &[(2, 3)])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
    fa.data(&nth(10), 11, true, true);
    assert_eq!(fa.kept_packets().iter().map(|p| p.esp).min(), Some(5));
    assert_eq!(fa.flow.counters.too_old, 3);
    // Until the sender has repaired what was let go, it sees everything.
    assert_eq!(fa.ack(&up_to(1, &[(6, 7), (2, 3)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [4, 5]);
}

#[test]
fn syn_begins_anew_and_rst_and_the_last_acknowledgement_end_it() {
    let mut fa = flowing(5, false, Settings::default());
    let syn = Segment {
        syn: true,
        ack: None,
        ..segment(700, 0)
    };
    fa.data(&syn, 0, true, true);
    assert_eq!(fa.flow.cached(), 0);
    assert!(!fa.flow.is_confirmed() && !fa.flow.is_closed());
    fa.data(&segment(701, 10), 0, true, true);
    let fin = Segment {
        fin: true,
        ..segment(711, 10)
    };
    fa.data(&fin, 0, true, true);
    assert_eq!(fa.ack(&acknowledgement(721, 1_000, &[])), Verdict::Forward);
    assert!(!fa.flow.is_closed());
    assert_eq!(fa.ack(&acknowledgement(722, 1_000, &[])), Verdict::Forward);
    assert!(fa.flow.is_closed());
    assert!(!fa.timer());

    for down in [true, false] {
        let mut fa = flowing(5, false, Settings::default());
        let rst = Segment {
            rst: true,
            ..acknowledgement(10, 0, &[])
        };
        if down {
            fa.data(&rst, 0, true, true);
        } else {
            assert_eq!(fa.ack(&rst), Verdict::Forward);
        }
        assert!(fa.flow.is_closed());
        assert_eq!(fa.kept_packets(), []);
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let new = Settings::new;
    assert_eq!(new(0, 1, 1, 1, 1, 1), Err("window"));
    assert_eq!(new(8_193, 1, 1, 1, 1, 1), Err("window"));
    assert_eq!(new(8_192, 0, 1, 1, 1, 1), Err("threshold"));
    assert_eq!(new(1, 1, 0, 1, 1, 1), Err("initial"));
    assert_eq!(new(1, 1, 1, 3_600_001, 1, 1), Err("minimum"));
    assert_eq!(new(1, 1, 1, 1, 0, 1), Err("persist"));
    assert_eq!(new(1, 1, 1, 1, 2, 1), Err("garbage"));
    let ours = new(1_024, 1, 100, 10, 1_000, 10_000);
    assert_eq!(ours, Ok(Settings::default()));
}
