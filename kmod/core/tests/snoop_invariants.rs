// SPDX-License-Identifier: GPL-2.0-only
//! What must hold of SNOOP's state machine whatever the ends and the hop do (`docs/snoop.md`).

mod fa;

use std::collections::HashSet;

use fa::state::{Raw, FIN, SACK};
use fa::{acknowledgement, segment, Fa, MS};
use mml_core::snoop::{Segment, Settings, State, Verdict, BLOCKS};
use proptest::prelude::*;

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
    TakeOver(Lie),
}

/// A state that another router made up, or as it was.
#[derive(Clone, Debug)]
struct Lie {
    una: i32,
    sent: u32,
    fin: bool,
    sack: bool,
    window: u16,
    duplicates: u32,
    data: u32,
    repair: u32,
}

impl Lie {
    fn state(&self, base: u32) -> State {
        let una = base.wrapping_add(self.una as u32);
        let next = una.wrapping_add(self.sent);
        let fin = self.fin && self.sent > 0;
        Raw {
            next,
            fin: if fin { next } else { 0 },
            flags: u8::from(self.sack) * SACK + u8::from(fin) * FIN,
            window: self.window,
            duplicates: self.duplicates,
            data: [self.data; 3],
            repair: [self.repair; 3],
            ..Raw::quiet(una)
        }
        .state()
    }
}

fn lies() -> impl Strategy<Value = Lie> {
    let sent = prop_oneof![8 => 0u32..60, 1 => 0u32..1 << 30, 1 => Just(1 << 30)];
    let window = prop_oneof![4 => Just(1_000u16), 2 => Just(400u16), 1 => any::<u16>()];
    let rtt = || prop_oneof![Just(0u32), 1u32..20_000, Just(60_000_000)];
    let duplicates = prop_oneof![0u32..10, 0u32..=8_192];
    let flags = (prop::bool::weighted(0.1), any::<bool>());
    (offset(), sent, flags, window, duplicates, rtt(), rtt()).prop_map(
        |(una, sent, (fin, sack), window, duplicates, data, repair)| Lie {
            una,
            sent,
            fin,
            sack,
            window,
            duplicates,
            data,
            repair,
        },
    )
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
            1 => lies().prop_map(Chaos::TakeOver),
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
                Chaos::TakeOver(lie) => {
                    fa.take_over(&lie.state(base));
                }
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
    numbers: HashSet<u64>,
    /// The highest acknowledgement that reached the FA.
    seen: u32,
    /// It goes through another FA than before, and what the one before knew.
    moved: Option<State>,
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
            numbers: HashSet::new(),
            seen: 0,
            moved: None,
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
        let acknowledged = self.fa.flow.acknowledged();
        let acknowledged = acknowledged.map(|ack| ack.wrapping_sub(self.isn));
        assert!(
            acknowledged == Some(self.seen)
                // What passed elsewhere it can't know to have been sent.
                || self.moved.is_some() && acknowledged.is_none_or(|ack| ack < self.seen),
            "{acknowledged:?}, {}",
            self.seen
        );
    }

    /// The host is at another FA, which has seen nothing.
    fn moves(&mut self) {
        let Some(state) = self.fa.flow.state(Raw::quiet(0).ends()) else {
            return;
        };
        self.moved = Some(state);
        let now = self.fa.now;
        self.fa = Fa::new(4, self.fa.settings);
        self.fa.now = now;
        self.seen = 0;
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
    /// To another FA.
    Moves,
    /// What the one before says it knew, or what it did know.
    State(Option<Lie>),
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
            1 => Just(Turn::Moves),
            1 => prop::option::weighted(0.6, lies()).prop_map(Turn::State),
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
                Turn::Moves => honest.moves(),
                Turn::State(lie) => {
                    let told = honest.isn.wrapping_add(honest.told);
                    let lie = lie.map(|lie| lie.state(told));
                    if let Some(state) = honest.moved {
                        honest.fa.take_over(&lie.unwrap_or(state));
                    }
                }
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
