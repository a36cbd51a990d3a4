// SPDX-License-Identifier: GPL-2.0-only
//! SNOOP between two TCP ends in simulated time: what it is for, measured.
//!
//! ```text
//! sender ───── WAN: delay, in order ───── FA with SNOOP ═════ hop: rate, errors, two bands ═════ receiver
//! ```
//!
//! Nothing but integers, so that a figure is the same on every machine. Times are in nanoseconds, TCP's units are
//! segments of [`MSS`] octets.

pub mod hop;
pub mod random;
pub mod receiver;
pub mod sender;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mml_core::snoop::{prepare, Counters, Flow, Segment, Settings, Slot, Store, Verdict, BLOCKS};

use hop::Hop;
use receiver::Receiver;
use sender::Sender;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// Octets of payload a segment.
pub const MSS: u32 = 1_460;
/// Octets of a data segment on the hop: Ethernet, IP and TCP headers.
pub const ON_LINK: u64 = MSS as u64 + 54;
/// Octets of an acknowledgement without options on the hop.
const ACK_ON_LINK: u64 = 54;
/// What an ESP replay window keeps for numbers not yet come: `Flow::data`'s `floor` is that much above its end.
const MARGIN: u64 = 64;

/// A data segment under way.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Which segment of the transfer.
    pub index: u32,
    /// Its ESP number; 0 without ESP.
    pub esp: u64,
}

/// An acknowledgement under way: everything in units of segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ack {
    pub ack: u32,
    pub window: u32,
    pub sack: [(u32, u32); BLOCKS],
    pub blocks: usize,
}

impl Ack {
    pub fn sack(&self) -> &[(u32, u32)] {
        &self.sack[..self.blocks]
    }
}

/// A set-up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    /// Segments to carry.
    pub segments: u32,
    /// Segments the receiver has room for.
    pub window: u32,
    /// The WAN's round trip.
    pub rtt: u64,
    /// Of the hop, in bits a second.
    pub rate: u64,
    /// One bit in so many is wrong on the way down, and on the way up; 0 for none.
    pub down: u64,
    pub up: u64,
    pub kind: sender::Kind,
    /// Copies of what the receiver has are dropped in silence.
    pub esp: bool,
    /// Numbers in the ESP replay window.
    pub replay: u64,
    /// Local retransmissions go first.
    pub priority: bool,
    /// Packets the hop's queue takes.
    pub limit: usize,
    /// How long an acknowledgement may be held back; 0 acknowledges each segment.
    pub delayed_ack: u64,
    /// The FA's timers run at multiples of it.
    pub tick: u64,
    /// Without it, nothing is repaired.
    pub snoop: Option<Settings>,
    /// One-way delay of the hop beside the transmission.
    pub hop_delay: u64,
    /// One packet in so many comes that much later than the hop's delay, and so after others; 0 for none.
    pub late: u64,
    pub late_by: u64,
    /// Someone else's packets come down the hop: so many at once, so often.
    pub others: u32,
    pub others_every: u64,
    pub isn: u32,
    pub trace: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            seed: 1,
            segments: 1_500,
            window: 44,
            rtt: 100 * MS,
            rate: 2_000_000,
            down: 0,
            up: 0,
            kind: sender::Kind::Reno,
            esp: false,
            replay: 8_192,
            priority: true,
            limit: 1_000,
            delayed_ack: 40 * MS,
            tick: MS,
            snoop: Some(Settings::default()),
            hop_delay: MS / 10,
            late: 0,
            late_by: 15 * MS,
            others: 0,
            others_every: SECOND,
            isn: 0xFFFF_0000,
            trace: false,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
#[allow(dead_code, reason = "some of it is only printed")]
pub struct Outcome {
    /// Until the receiver had everything.
    pub took: u64,
    pub done: bool,
    /// Goodput in thousandths of what the hop can carry: its rate times the share of packets that survive.
    pub permille: u64,
    pub timeouts: u64,
    pub recoveries: u64,
    pub sent_again: u64,
    /// Segments the receiver got and had already; under ESP those that the replay window dropped.
    pub spurious: u64,
    pub lost: u64,
    pub overflowed: u64,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    DataAtFa(Data),
    AckAtSender(Ack),
    DownDone,
    DataAtMh(Data),
    UpDone,
    AckAtFa(Ack),
    DelayedAck(u64),
    Sender(u64),
    Fa(u64),
    Others,
}

/// Someone else's packet.
const OTHER: Data = Data {
    index: u32::MAX,
    esp: 0,
};

/// Event queue entry; ties in the order they were made.
#[derive(Clone, Copy, Debug)]
struct Entry(u64, u64, Event);
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// The FA's packets.
#[derive(Default)]
struct Kept {
    packets: Vec<Option<Data>>,
    out: Vec<Data>,
}

impl Store for Kept {
    fn release(&mut self, place: u16) {
        assert!(self.packets[usize::from(place)].take().is_some());
    }
    fn retransmit(&mut self, place: u16) {
        self.out
            .push(self.packets[usize::from(place)].expect("a packet"));
    }
}

struct Fa {
    flow: Flow,
    slots: Vec<Slot>,
    store: Kept,
    settings: Settings,
    floor: u64,
    timer: u64,
}

/// Runs a transfer.
pub fn run(setup: &Setup) -> Outcome {
    Run::new(setup).go()
}

/// What the hop can carry of the data, in bits of payload a second: less what doesn't survive.
pub fn bound(setup: &Setup) -> u64 {
    let survival = random::survival(setup.down, ON_LINK * 8);
    let payload = u128::from(setup.rate) * u128::from(MSS) / u128::from(ON_LINK);
    ((payload * u128::from(survival)) >> 32) as u64
}

struct Run<'a> {
    setup: &'a Setup,
    now: u64,
    made: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    sender: Sender,
    receiver: Receiver,
    down: Hop<Data>,
    up: Hop<Ack>,
    fa: Option<Fa>,
    esp: u64,
    delays: random::Random,
    sender_timer: u64,
    ack_timer: u64,
    /// When the receiver had everything.
    delivered: u64,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup) -> Self {
        let fa = setup.snoop.map(|settings| {
            // Little at first: the flow's memory grows as the kernel's does.
            let mut slots = vec![Slot::default(); usize::from(settings.window).min(32)];
            prepare(&mut slots);
            let mut store = Kept::default();
            store.packets.resize(slots.len(), None);
            Fa {
                flow: Flow::new(0),
                slots,
                store,
                settings,
                floor: 0,
                timer: u64::MAX,
            }
        });
        Run {
            setup,
            now: 0,
            made: 0,
            queue: BinaryHeap::new(),
            sender: Sender::new(setup.kind, setup.segments, setup.window),
            receiver: Receiver::new(setup),
            down: Hop::new(setup.rate, setup.down, setup.seed, setup.limit),
            up: Hop::new(setup.rate, setup.up, !setup.seed, 10_000),
            fa,
            esp: 0,
            delays: random::Random(setup.seed),
            sender_timer: u64::MAX,
            ack_timer: u64::MAX,
            delivered: u64::MAX,
        }
    }

    fn at(&mut self, when: u64, event: Event) {
        self.made += 1;
        self.queue.push(Reverse(Entry(when, self.made, event)));
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.setup.trace {
            println!("{:>10.3} {}", self.now as f64 / MS as f64, what());
        }
    }

    fn seq(&self, index: u32) -> u32 {
        self.setup.isn.wrapping_add(1).wrapping_add(index * MSS)
    }

    /// A segment as `Flow` is told of it.
    fn segment(&self) -> Segment {
        Segment {
            seq: 0,
            len: 0,
            ack: None,
            window: 0,
            syn: false,
            fin: false,
            rst: false,
            sack: [(0, 0); BLOCKS],
            blocks: 0,
        }
    }

    fn go(mut self) -> Outcome {
        let syn = Segment {
            seq: self.setup.isn,
            syn: true,
            ..self.segment()
        };
        if let Some(fa) = &mut self.fa {
            let none = fa.flow.data(
                &mut fa.slots,
                &syn,
                0,
                0,
                true,
                0,
                &fa.settings,
                &mut fa.store,
            );
            assert!(none.is_none());
        }
        self.send();
        if self.setup.others > 0 {
            self.at(self.setup.others_every, Event::Others);
        }
        // Nobody waits longer than that for ten megabytes.
        while self.now < 20_000 * SECOND && !self.sender.is_done() {
            let Some(Reverse(Entry(when, _, event))) = self.queue.pop() else {
                break;
            };
            self.now = when;
            self.event(event);
        }
        let took = self.delivered.min(self.now).max(1);
        let bits = u128::from(self.receiver.next) * u128::from(MSS) * 8;
        let goodput = bits * u128::from(SECOND) / u128::from(took);
        Outcome {
            took,
            done: self.sender.is_done(),
            permille: (goodput * 1_000 / u128::from(bound(self.setup))) as u64,
            timeouts: self.sender.timeouts,
            recoveries: self.sender.recoveries,
            sent_again: self.sender.sent_again,
            spurious: self.receiver.spurious,
            lost: self.down.lost + self.up.lost,
            overflowed: self.down.overflowed,
            counters: self
                .fa
                .as_ref()
                .map_or(Counters::default(), |fa| fa.flow.counters),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::DataAtFa(data) => self.data_at_fa(data),
            Event::DownDone => {
                if let Some((data, lost)) = self.down.done() {
                    if lost {
                        self.trace(|| format!("        x {}", data.index));
                    } else if data.index != OTHER.index {
                        let mut when = self.now + self.setup.hop_delay;
                        if self.setup.late != 0 && self.delays.next() % self.setup.late == 0 {
                            when += self.setup.late_by;
                        }
                        self.at(when, Event::DataAtMh(data));
                    }
                }
                self.kick_down();
            }
            Event::DataAtMh(data) => {
                self.trace(|| format!("            got {}", data.index));
                let acknowledge = self.receiver.data(data, self.now);
                if self.receiver.next == self.setup.segments {
                    self.delivered = self.delivered.min(self.now);
                }
                if acknowledge {
                    self.acknowledge();
                } else if self.receiver.deadline != u64::MAX
                    && self.ack_timer != self.receiver.deadline
                {
                    self.ack_timer = self.receiver.deadline;
                    self.at(self.ack_timer, Event::DelayedAck(self.ack_timer));
                }
            }
            Event::DelayedAck(when) => {
                if self.receiver.deadline == when {
                    self.acknowledge();
                }
            }
            Event::UpDone => {
                if let Some((ack, lost)) = self.up.done() {
                    if lost {
                        self.trace(|| format!("            x ack {}", ack.ack));
                    } else {
                        self.at(self.now + self.setup.hop_delay, Event::AckAtFa(ack));
                    }
                }
                self.kick_up();
            }
            Event::AckAtFa(ack) => self.ack_at_fa(ack),
            Event::AckAtSender(ack) => {
                self.trace(|| format!("ack {} {:?}", ack.ack, ack.sack()));
                self.sender.ack(&ack, self.now);
                self.send();
            }
            Event::Sender(when) => {
                if self.sender_timer == when {
                    self.sender_timer = u64::MAX;
                    if self.now >= self.sender.deadline() {
                        self.sender.timer(self.now);
                        self.trace(|| "sender's time is out".into());
                    }
                    self.send();
                }
            }
            Event::Fa(when) => self.fa_timer(when),
            Event::Others => {
                for _ in 0..self.setup.others {
                    self.down.enqueue(OTHER, ON_LINK, false);
                }
                self.at(self.now + self.setup.others_every, Event::Others);
                self.kick_down();
            }
        }
    }

    fn send(&mut self) {
        while let Some(index) = self.sender.next(self.now) {
            self.trace(|| format!("send {index} {}", self.sender.state()));
            if self.setup.esp {
                self.esp += 1;
            }
            let data = Data {
                index,
                esp: self.esp,
            };
            self.at(self.now + self.setup.rtt / 2, Event::DataAtFa(data));
        }
        let deadline = self.sender.deadline();
        if deadline != self.sender_timer && deadline != u64::MAX {
            self.sender_timer = deadline.max(self.now);
            self.at(self.sender_timer, Event::Sender(self.sender_timer));
        }
    }

    fn kick_down(&mut self) {
        if let Some(when) = self.down.kick(self.now) {
            self.at(when, Event::DownDone);
        }
    }

    fn kick_up(&mut self) {
        if let Some(when) = self.up.kick(self.now) {
            self.at(when, Event::UpDone);
        }
    }

    fn acknowledge(&mut self) {
        let ack = self.receiver.acknowledge();
        let octets = ACK_ON_LINK
            + if ack.blocks == 0 {
                0
            } else {
                4 + 8 * ack.blocks as u64
            };
        self.up.enqueue(ack, octets, false);
        self.kick_up();
    }

    fn data_at_fa(&mut self, data: Data) {
        self.trace(|| format!("    > {}", data.index));
        let segment = Segment {
            seq: self.seq(data.index),
            len: MSS,
            ack: Some(1),
            ..self.segment()
        };
        let room = self.down.has_room();
        let (now, replay) = (self.now, self.setup.replay);
        if let Some(fa) = &mut self.fa {
            if data.esp != 0 {
                fa.floor = fa.floor.max((data.esp + MARGIN).saturating_sub(replay));
            }
            let most = usize::from(fa.settings.window);
            if fa.flow.is_full(fa.slots.len()) && fa.slots.len() < most {
                let mut into = vec![Slot::default(); (fa.slots.len() * 2).min(most)];
                assert!(fa.flow.grow(&mut fa.slots, &mut into));
                fa.store.packets.resize(into.len(), None);
                fa.slots = into;
            }
            let place = fa.flow.data(
                &mut fa.slots,
                &segment,
                data.esp,
                fa.floor,
                room,
                now,
                &fa.settings,
                &mut fa.store,
            );
            if let Some(place) = place {
                fa.store.packets[usize::from(place)] = Some(data);
            }
        }
        self.down.enqueue(data, ON_LINK, false);
        self.kick_down();
        self.fa_went_on();
    }

    fn ack_at_fa(&mut self, ack: Ack) {
        let mut segment = Segment {
            ack: Some(self.seq(ack.ack)),
            window: u16::try_from(ack.window * MSS / 64).expect("window"),
            blocks: ack.blocks as u8,
            ..self.segment()
        };
        for (to, from) in segment.sack.iter_mut().zip(ack.sack()) {
            *to = (self.seq(from.0), self.seq(from.1));
        }
        let now = self.now;
        let mut verdict = Verdict::Forward;
        if let Some(fa) = &mut self.fa {
            verdict = fa.flow.ack(
                &mut fa.slots,
                &segment,
                fa.floor,
                now,
                &fa.settings,
                &mut fa.store,
            );
        }
        self.trace(|| format!("    < ack {} {:?} {verdict:?}", ack.ack, ack.sack()));
        if verdict == Verdict::Forward {
            self.at(self.now + self.setup.rtt / 2, Event::AckAtSender(ack));
        }
        self.fa_went_on();
    }

    fn fa_timer(&mut self, when: u64) {
        let now = self.now;
        let Some(fa) = &mut self.fa else { return };
        if fa.timer != when {
            return;
        }
        fa.timer = u64::MAX;
        if now >= fa.flow.deadline(&fa.settings) {
            let floor = fa.floor;
            let settings = fa.settings;
            fa.flow
                .timer(&mut fa.slots, floor, now, &settings, &mut fa.store);
        }
        self.fa_went_on();
    }

    /// What the flow wanted sent goes out, and its timer is set.
    fn fa_went_on(&mut self) {
        let Some(fa) = &mut self.fa else { return };
        let out = std::mem::take(&mut fa.store.out);
        let at = fa.flow.deadline(&fa.settings).max(self.now + 1);
        let tick = self.setup.tick.max(1);
        let at = at.div_ceil(tick) * tick;
        let new = !fa.flow.is_closed() && at != fa.timer;
        if new {
            fa.timer = at;
        }
        for data in out {
            self.trace(|| format!("    >>> {}", data.index));
            self.down.enqueue(data, ON_LINK, self.setup.priority);
        }
        if new {
            self.at(at, Event::Fa(at));
        }
        self.kick_down();
    }
}
