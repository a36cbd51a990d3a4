// SPDX-License-Identifier: GPL-2.0-only
//! SNOOP: an access router repairs the losses of its wireless hop (Balakrishnan et al., 1995; MML paper, §V.A.2).
//!
//! A [`Flow`] is told of every segment towards the mobile host ([`Flow::data`]) and of every acknowledgement that
//! comes back ([`Flow::ack`]), with the time. It keeps what isn't acknowledged, sends again what the hop lost, and
//! hides the duplicate acknowledgements meanwhile, so that the sender doesn't take the loss for congestion.
//!
//! It rests on the hop being in order: what arrives after a segment that didn't proves that segment lost.
//! Retransmissions go ahead of what waits for the link, so that theirs is a round trip of its own, much shorter than
//! the data's; a retransmission that isn't answered within it is lost too, and sent again at once. `docs/snoop.md`
//! has the rules and their reasons.
//!
//! It keeps no packet itself: the caller does, in places that the flow names ([`Store`]). Nothing here allocates,
//! reads a clock or draws a random number.

mod ring;
mod rtt;
mod segment;
mod serial;

pub use ring::{prepare, Slot};
pub use segment::{Block, Ends, Segment, BLOCKS};
pub use serial::{after, before};

use ring::Ring;
use rtt::Rtt;
use serial::{later, span};

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// No sequence number further than this from the acknowledged one is believed: the largest TCP window (RFC 7323 §2.3).
const REACH: u32 = 1 << 30;
/// Retransmissions that may be under way at a time.
const PENDING: usize = 32;
/// Local retransmissions of one segment, however many duplicate acknowledgements ask for more.
const TRIES: u8 = 24;
/// Timer retransmissions of one segment in a row that nothing came back for. Where only acknowledgements are lost, the
/// mobile host drops the copies as replays and says nothing.
const TIMED: u8 = 3;
/// Segments in order that a receiver acknowledges together (RFC 5681 §4.2); where it is more, there was a hole.
const DELAYED: u32 = 2;
/// Holes in a row that may be inferred from the count of duplicates alone. If it is wrong, for a copy of ours was
/// counted, each hole inferred from it makes another copy.
const GUESSES: u8 = 3;
/// Holes repaired for one acknowledgement.
const BURST: usize = 8;
/// What the persist timer sends again at once, at most.
const PERSIST_BURST: u32 = 16;
/// A receiver may hold the acknowledgement of a single segment back (RFC 9293 §3.8.6.3; Linux: 40 ms).
const DELAYED_ACK: u64 = 50 * MS;

/// Settings of a flow (the paper's Table III).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Packets kept a flow.
    pub window: u16,
    /// Duplicate acknowledgements before a local retransmission.
    pub threshold: u8,
    /// Time-out before the first round trip was measured, in nanoseconds.
    pub initial: u64,
    /// The shortest time-out, in nanoseconds.
    pub minimum: u64,
    /// Silence both ways after which what is unacknowledged is sent once more, in nanoseconds.
    pub persist: u64,
    /// Silence both ways after which the flow is forgotten, in nanoseconds.
    pub garbage: u64,
}

impl Settings {
    /// Checks and converts settings; times in milliseconds.
    ///
    /// # Errors
    /// The name of the setting that is out of range.
    pub const fn new(
        window: u16,
        threshold: u8,
        initial_ms: u32,
        minimum_ms: u32,
        persist_ms: u32,
        garbage_ms: u32,
    ) -> Result<Self, &'static str> {
        const LONGEST_MS: u32 = 3_600_000;
        if window == 0 || window > Self::WINDOW_MAX {
            return Err("window");
        }
        if threshold == 0 {
            return Err("threshold");
        }
        if initial_ms == 0 || initial_ms > LONGEST_MS {
            return Err("initial");
        }
        if minimum_ms == 0 || minimum_ms > LONGEST_MS {
            return Err("minimum");
        }
        if persist_ms == 0 || persist_ms > LONGEST_MS {
            return Err("persist");
        }
        if garbage_ms < persist_ms || garbage_ms > LONGEST_MS {
            return Err("garbage");
        }
        Ok(Settings {
            window,
            threshold,
            initial: ns(initial_ms),
            minimum: ns(minimum_ms),
            persist: ns(persist_ms),
            garbage: ns(garbage_ms),
        })
    }

    /// Packets a flow may keep at most.
    pub const WINDOW_MAX: u16 = 8192;
}

impl Default for Settings {
    /// What nobody asked otherwise for: the repair starts at the first duplicate, the time-out follows the hop.
    fn default() -> Self {
        Settings {
            window: 1024,
            threshold: 1,
            initial: ns(100),
            minimum: ns(10),
            persist: ns(1000),
            garbage: ns(10_000),
        }
    }
}

const fn ns(ms: u32) -> u64 {
    (ms as u64).saturating_mul(MS)
}

/// Where the caller keeps packets.
pub trait Store {
    /// The packet in `place` is wanted no more.
    fn release(&mut self, place: u16);
    /// A copy of the packet in `place` goes out, ahead of what waits.
    fn retransmit(&mut self, place: u16);
}

/// What becomes of an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on to the sender.
    Forward,
    /// It goes no further.
    Suppress,
}

/// Why something was sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Duplicate,
    Sack,
    Timer,
    Persist,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident $name:literal,)*) => {
        /// What a flow has seen and done.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters { $($(#[$doc])* pub $field: u64,)* }

        impl Counters {
            /// Their names, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// Their values.
            pub const fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field,)*]
            }

            /// Adds another flow's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// Segments cached.
    cached "cached",
    /// Retransmissions that a duplicate acknowledgement asked for.
    by_duplicate "retransmitted-duplicate",
    /// Retransmissions that a SACK block asked for.
    by_sack "retransmitted-sack",
    /// Retransmissions by the timer.
    by_timer "retransmitted-timer",
    /// Retransmissions after silence.
    by_persist "retransmitted-persist",
    /// Acknowledgements hidden from the sender.
    suppressed "suppressed",
    /// Segments that the sender itself sent again.
    sender "sender-retransmissions",
    /// Segments not kept: as many were kept as may be, or memory was refused.
    full "full",
    /// Segments not kept, for the link's queue was full: congestion stays visible.
    queue_full "queue-full",
    /// Segments let go because their ESP number nears the end of the peer's replay window.
    too_old "too-old",
    /// Segments given up after as many retransmissions as one may have.
    gave_up "gave-up",
    /// Acknowledgements of what never was sent.
    ahead "acks-ahead",
}

/// A retransmission under way.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    seq: u32,
    /// When it went out, and when the one before it did; in nanoseconds.
    sent: u64,
    before: u64,
    /// Duplicates that segments sent before it may still cause.
    excused: u32,
    /// What comes from here on was first sent after it.
    mark: u32,
    /// A retransmission sent after it was answered.
    overtaken: bool,
    /// Its place in the order in which retransmissions went out.
    order: u32,
    /// How often it went out.
    times: u8,
    /// It is the sender's, and so waits behind what was sent before it.
    queued: bool,
    /// Nobody asked for it: what it repeats may be on its way.
    doubtful: bool,
}

/// One direction of a TCP connection: data towards the mobile host.
#[derive(Clone, Debug)]
pub struct Flow {
    head: u32,
    len: u32,
    started: bool,
    /// Something of it was acknowledged, so that it isn't made up.
    confirmed: bool,
    /// It was broken off, or its data is through and acknowledged.
    closed: bool,
    persisted: bool,
    /// The number behind its FIN is known.
    fin: Option<u32>,
    /// The highest cumulative acknowledgement.
    una: u32,
    /// The acknowledgement that the sender was told last.
    told: u32,
    /// The number behind the last the sender has sent.
    next: u32,
    /// The window of the last acknowledgement forwarded, unscaled.
    window: u16,
    /// Arrivals behind the hole at `una`, as duplicates have told of them.
    duplicates: u32,
    /// SACK blocks have come: a duplicate without them tells of no loss.
    selective: bool,
    /// The end of the highest SACK block.
    sack_high: u32,
    /// Below it, holes have been looked at.
    looked: u32,
    /// It is inside a CSA: of a packet that comes twice the mobile host doesn't tell, it is a replay.
    sealed: bool,
    /// Holes in a row that were inferred from the count, and that no duplicate has told of.
    guessed: u8,
    /// Until `una` is there, duplicates are the sender's to see.
    visible: u32,
    data: Rtt,
    repair: Rtt,
    pending: [Pending; PENDING],
    pendings: u8,
    /// Retransmissions so far.
    order: u32,
    /// Copies that may arrive beside the one that was needed, and cause a duplicate each that tells of no loss.
    echoes: u32,
    /// Until when, in nanoseconds.
    echoes_end: u64,
    /// When a retransmission was last answered, in nanoseconds.
    answer: u64,
    /// Duplicates that may still come before anything is to be looked at, until `calm` in nanoseconds; how many of them came.
    quiet: u32,
    calm: u64,
    skipped: u32,
    /// When the oldest segment is sent again; 0 for never.
    alarm: u64,
    backoff: u8,
    touched: u64,
    /// What it has seen and done.
    pub counters: Counters,
}

/// The parts of a flow and its surroundings that an event works on.
struct Scene<'a, S: Store> {
    slots: &'a mut [Slot],
    store: &'a mut S,
    settings: &'a Settings,
    /// The lowest ESP number that the peer's replay window is sure to take.
    floor: u64,
    now: u64,
}

impl Flow {
    /// A flow nobody has told of anything yet, at `now`.
    pub fn new(now: u64) -> Self {
        Flow {
            head: 0,
            len: 0,
            started: false,
            confirmed: false,
            closed: false,
            persisted: false,
            fin: None,
            una: 0,
            told: 0,
            next: 0,
            window: 0,
            duplicates: 0,
            selective: false,
            sack_high: 0,
            looked: 0,
            sealed: false,
            guessed: 0,
            visible: 0,
            data: Rtt::default(),
            repair: Rtt::default(),
            pending: [Pending::default(); PENDING],
            pendings: 0,
            order: 0,
            echoes: 0,
            echoes_end: 0,
            answer: 0,
            quiet: 0,
            calm: 0,
            skipped: 0,
            alarm: 0,
            backoff: 0,
            touched: now,
            counters: Counters::default(),
        }
    }

    /// Segments kept.
    pub const fn cached(&self) -> u32 {
        self.len
    }

    /// The highest number the mobile host has acknowledged, once something was.
    pub const fn acknowledged(&self) -> Option<u32> {
        if self.confirmed {
            Some(self.una)
        } else {
            None
        }
    }

    /// When a packet of it last passed, in nanoseconds.
    pub const fn touched(&self) -> u64 {
        self.touched
    }

    /// Whether an acknowledgement has shown that there is someone at the other end.
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether nothing more is to be expected of it.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it has as many segments as `slots` hold; more memory may be given to it by [`Flow::grow`].
    pub const fn is_full(&self, slots: usize) -> bool {
        self.len as usize >= slots
    }

    /// Moves the cache into more memory, whose places go on where the old ones end. `false`, and nothing changed, if
    /// it isn't more.
    #[must_use]
    pub fn grow(&mut self, slots: &mut [Slot], into: &mut [Slot]) -> bool {
        let (mut head, mut len) = (self.head, self.len);
        let ring = Ring {
            slots,
            head: &mut head,
            len: &mut len,
        };
        let grown = ring.grow(into);
        if grown {
            self.head = 0;
        }
        grown
    }

    /// A segment towards the mobile host passes. `esp` is its ESP number, 0 outside a CSA; `room` says whether the
    /// link's queue has room, without which nothing is kept, so that congestion stays visible.
    ///
    /// Returns the place to keep the packet in, in exchange for the one that may be there.
    #[allow(clippy::too_many_arguments)]
    pub fn data<S: Store>(
        &mut self,
        slots: &mut [Slot],
        segment: &Segment,
        esp: u64,
        floor: u64,
        room: bool,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> Option<u16> {
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        self.touched = now;
        self.persisted = false;
        if segment.rst {
            self.clear(&mut scene);
            self.closed = true;
            return None;
        }
        if segment.syn {
            // A new connection between the same ends.
            self.clear(&mut scene);
            self.restart(segment.end(), now);
            return None;
        }
        self.sealed = esp != 0;
        let (seq, end) = (segment.seq, segment.end());
        if seq == end {
            return None;
        }
        if !self.started {
            self.start(seq);
        }
        if span(self.una, end) > REACH || span(end, self.una) > REACH {
            return None;
        }
        if segment.fin {
            self.fin = Some(end);
        }
        self.drop_too_old(&mut scene);
        if !after(end, self.una) {
            self.settle();
            // The receiver has it, but the sender doesn't know: the answer must reach it.
            self.counters.sender = self.counters.sender.saturating_add(1);
            self.visible = later(self.visible, self.una.wrapping_add(1));
            return None;
        }
        let slot = Slot {
            seq,
            end,
            esp,
            sent: now,
            ..Slot::default()
        };
        if before(seq, self.next) {
            return self.repeated(slot, room, &mut scene);
        }
        self.next = end;
        if !room {
            self.counters.queue_full = self.counters.queue_full.saturating_add(1);
            return None;
        }
        let at = self.len;
        let place = self.ring(scene.slots).insert(at, slot);
        self.kept(place, &mut scene)
    }

    /// Out of line: a flow is large, and segments come far more often than connections.
    #[inline(never)]
    fn restart(&mut self, seq: u32, now: u64) {
        let counters = self.counters;
        *self = Flow {
            counters,
            ..Flow::new(now)
        };
        self.start(seq);
    }

    fn start(&mut self, seq: u32) {
        self.started = true;
        (self.una, self.told, self.next, self.visible) = (seq, seq, seq, seq);
        (self.sack_high, self.looked) = (seq, seq);
    }

    fn kept<S: Store>(&mut self, place: Option<u16>, scene: &mut Scene<'_, S>) -> Option<u16> {
        let counter = if place.is_some() {
            &mut self.counters.cached
        } else {
            &mut self.counters.full
        };
        *counter = counter.saturating_add(1);
        if place.is_some() && self.alarm == 0 {
            self.set_alarm(scene);
        }
        place
    }

    /// The sender sends again, or fills a hole that was there before the hop.
    fn repeated<S: Store>(
        &mut self,
        slot: Slot,
        room: bool,
        scene: &mut Scene<'_, S>,
    ) -> Option<u16> {
        self.settle();
        self.next = later(self.next, slot.end);
        let mut ring = self.ring(scene.slots);
        let at = ring.find(slot.seq);
        if let Some(old) = ring.get_mut(at) {
            if !before(slot.seq, old.seq) && !after(slot.end, old.end) {
                // It knows of this loss, so what tells of it goes on to it.
                old.by_sender = true;
                let whole = (old.seq, old.end) == (slot.seq, slot.end);
                let visible = old.end;
                let place = old.place;
                if whole {
                    // This one has a fresh ESP number; the old one may have left the peer's window.
                    (old.esp, old.sent) = (slot.esp, slot.sent);
                    (old.tries, old.timed) = (0, 0);
                }
                self.counters.sender = self.counters.sender.saturating_add(1);
                self.visible = later(self.visible, visible);
                if !whole {
                    return None;
                }
                self.list(slot.seq, true, scene);
                self.set_alarm(scene);
                return Some(place);
            }
        }
        // What lies within the new one is in it. Segments that overlap otherwise may stand beside one another.
        let mut covered = self.ring(scene.slots).find(slot.seq);
        while let Some(old) = self.ring(scene.slots).get(covered).copied() {
            if before(old.seq, slot.seq) {
                covered = covered.saturating_add(1);
                continue;
            }
            if after(old.end, slot.end) {
                break;
            }
            self.unlist(old.seq);
            if let Some(gone) = self.ring(scene.slots).remove(covered) {
                scene.store.release(gone.place);
            }
        }
        if !room {
            self.counters.queue_full = self.counters.queue_full.saturating_add(1);
            return None;
        }
        let place = self.ring(scene.slots).insert(covered, slot);
        if place.is_some() {
            self.list(slot.seq, true, scene);
        }
        self.kept(place, scene)
    }

    /// What is kept was sent under a CSA that is replaced: its numbers no longer compare with those to come.
    pub fn renumber(&mut self, slots: &mut [Slot]) {
        for slot in slots {
            slot.esp = u64::MAX;
        }
    }

    /// Forgets the segment in `place`: the caller couldn't keep its packet.
    pub fn forget(&mut self, slots: &mut [Slot], place: u16) {
        self.settle();
        let mut at = self.len;
        while at > 0 {
            at = at.saturating_sub(1);
            let mut ring = self.ring(slots);
            if ring.get(at).is_some_and(|slot| slot.place == place) {
                if let Some(gone) = ring.remove(at) {
                    self.unlist(gone.seq);
                    self.counters.full = self.counters.full.saturating_add(1);
                    self.counters.cached = self.counters.cached.saturating_sub(1);
                }
                return;
            }
        }
    }

    /// A segment from the mobile host passes, with its acknowledgement.
    pub fn ack<S: Store>(
        &mut self,
        slots: &mut [Slot],
        segment: &Segment,
        floor: u64,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> Verdict {
        self.touched = now;
        self.persisted = false;
        if self.quiet > 0 && now < self.calm && segment.repeats(self.una, self.window) {
            // In the middle of a burst: all that there is to know is that one more has arrived.
            self.quiet = self.quiet.saturating_sub(1);
            self.skipped = self.skipped.saturating_add(1);
            self.duplicates = self.duplicates.saturating_add(1);
            return self.suppress();
        }
        self.settle();
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        if segment.rst {
            self.clear(&mut scene);
            self.closed = true;
            return Verdict::Forward;
        }
        let Some(ack) = segment.ack.filter(|_| self.started && !segment.syn) else {
            return Verdict::Forward;
        };
        if after(ack, self.next) || span(ack, self.una) > REACH {
            self.counters.ahead = self.counters.ahead.saturating_add(1);
            return Verdict::Forward;
        }
        // It carries something of its own.
        let plain = segment.len == 0 && !segment.fin;
        if before(ack, self.una) {
            // Joined in the middle, we don't know what the sender has seen.
            let stale = plain && segment.blocks == 0 && segment.window == self.window;
            return if stale && self.confirmed {
                self.suppress()
            } else {
                Verdict::Forward
            };
        }
        self.confirmed = true;
        self.selective |= segment.blocks != 0;
        if after(ack, self.una) {
            self.advance(ack, segment, &mut scene);
            if plain && self.held_back(segment, &mut scene) {
                return self.suppress();
            }
            (self.told, self.window) = (ack, segment.window);
            return Verdict::Forward;
        }
        self.duplicate(plain, segment, &mut scene)
    }

    /// Whether an acknowledgement of something new is held back, for its SACK blocks would have the sender repair what is
    /// being repaired here, and slow down. Nothing is lost by it: the next one says the same and more.
    fn held_back<S: Store>(&mut self, segment: &Segment, scene: &mut Scene<'_, S>) -> bool {
        let una = self.una;
        let mut above = 0u32;
        for (start, end) in segment.sack() {
            if after(*start, una) {
                above = above.saturating_add(span(*start, *end));
            }
        }
        let Some(first) = self.ring(scene.slots).first().copied() else {
            return false;
        };
        if above == 0 || !first.pending || after(first.seq, una) || after(self.visible, una) {
            return false;
        }
        if segment.window < self.window || self.window == 0 {
            return false;
        }
        // The sender's clock goes on: what it isn't told is a part of what it has under way, and so takes that part of
        // its round trip. Three segments above a hole prove it lost to any sender (RFC 6675 §4), fewer only after a
        // while (RFC 8985 §6.2).
        let proof = above >= span(first.seq, first.end).saturating_mul(3);
        let part = if proof { 2u32 } else { 3 };
        span(self.told, una).saturating_mul(part) < span(self.told, self.next)
    }

    /// Whether the last acknowledgement was one of a burst that changed nothing, so that [`Flow::deadline`] is as it was.
    pub const fn in_a_burst(&self) -> bool {
        self.skipped != 0
    }

    /// Makes good what a burst left out.
    fn settle(&mut self) {
        self.quiet = 0;
        let skipped = core::mem::take(&mut self.skipped);
        if skipped != 0 {
            for pending in self.listed_mut() {
                pending.excused = pending.excused.saturating_sub(skipped);
            }
        }
    }

    /// Looks how many more duplicates can come that mean nothing new, without SACK: the first hole is being repaired, and
    /// as many segments as these are known to have been behind it.
    fn be_quiet(&mut self, settings: &Settings) {
        if self.selective || self.echoes > 0 || self.alarm != 0 {
            return;
        }
        let (mut quiet, mut calm) = (u32::MAX, u64::MAX);
        for pending in self.listed() {
            if !after(pending.seq, self.una) {
                quiet = quiet.min(pending.excused);
            }
            calm = calm.min(self.due(pending, settings));
        }
        if calm != u64::MAX {
            (self.quiet, self.calm) = (quiet.saturating_sub(1), calm);
        }
    }

    fn suppress(&mut self) -> Verdict {
        self.counters.suppressed = self.counters.suppressed.saturating_add(1);
        Verdict::Suppress
    }

    /// Everything below `ack` has arrived.
    fn advance<S: Store>(&mut self, ack: u32, segment: &Segment, scene: &mut Scene<'_, S>) {
        let mut popped = 0u32;
        let (mut newest, mut repaired) = (None, false);
        while let Some(first) = self.ring(scene.slots).first().copied() {
            if after(first.end, ack) {
                break;
            }
            self.ring(scene.slots).pop();
            scene.store.release(first.place);
            popped = popped.saturating_add(1);
            // Karn: of what was sent twice nobody knows which one is answered; what lies behind it has waited for it.
            repaired |= first.tries != 0 || first.by_sender || first.sacked;
            newest = Some(first.sent);
        }
        let hole = self.una;
        self.una = ack;
        let lost = self.answered(hole, ack, segment.sack(), scene);
        if self.duplicates == 0 && !repaired {
            if let Some(sent) = newest {
                self.data.sample(scene.now.saturating_sub(sent));
            }
        }
        // Arrivals behind the hole that this acknowledgement doesn't cover are behind the next one.
        if popped > DELAYED {
            self.guessed = 0;
        }
        self.duplicates = if popped == 0 || self.guessed >= GUESSES {
            0
        } else {
            self.duplicates.saturating_sub(popped.saturating_sub(1))
        };
        if self.duplicates == 0 {
            self.guessed = 0;
        }
        self.visible = later(self.visible, ack);
        self.sack_high = later(self.sack_high, ack);
        self.looked = later(self.looked, ack);
        self.backoff = 0;
        if self.fin == Some(ack) {
            self.closed = true;
        }
        if segment.window != 0 {
            self.holes(segment, scene);
            if !self.selective && self.duplicates >= u32::from(scene.settings.threshold) {
                // The hop is in order: what arrived behind the next hole went out after what is missing there.
                self.guessed = self.guessed.saturating_add(1);
                self.repair_head(Why::Duplicate, scene);
            }
            if lost {
                self.overdue(scene);
            }
        }
        self.set_alarm(scene);
    }

    fn duplicate<S: Store>(
        &mut self,
        plain: bool,
        segment: &Segment,
        scene: &mut Scene<'_, S>,
    ) -> Verdict {
        let changed = segment.window != self.window;
        let shrunk = segment.window < self.window;
        self.answered(self.una, self.una, segment.sack(), scene);
        let told = segment.sack().iter().any(|(_, end)| after(*end, self.una));
        // Without SACK, an acknowledgement with another window is an update and no duplicate (RFC 5681 §2). With SACK,
        // one that tells of nothing above it answers something that came twice (RFC 2883).
        let asks = if self.selective { told } else { !changed };
        if !plain || self.next == self.una || segment.window == 0 || !asks {
            (self.told, self.window) = (self.una, segment.window);
            return Verdict::Forward;
        }
        if segment.blocks == 0 && self.echoes > 0 {
            self.echoes = self.echoes.saturating_sub(1);
            if scene.now < self.echoes_end && self.hole_is_cached(scene) {
                return self.suppress();
            }
        }
        self.duplicates = self.duplicates.saturating_add(1);
        self.guessed = 0;
        for pending in self.listed_mut() {
            pending.excused = pending.excused.saturating_sub(1);
        }
        if let Some(first) = self.ring(scene.slots).get_mut(0) {
            first.timed = 0;
        }
        if self.duplicates >= u32::from(scene.settings.threshold) {
            self.holes(segment, scene);
            if !self.selective {
                self.repair_head(Why::Duplicate, scene);
            }
        }
        self.overdue(scene);
        self.set_alarm(scene);
        let hidden = self.hole_is_cached(scene) && !after(self.visible, self.una);
        // A larger window is no news to a sender that hasn't used up the one it has; the next acknowledgement tells it.
        let urgent = shrunk || (changed && self.window == 0);
        if hidden && !urgent {
            self.be_quiet(scene.settings);
            return self.suppress();
        }
        (self.told, self.window) = (self.una, segment.window);
        Verdict::Forward
    }

    /// Whether the segment at `una` is there to be repaired.
    fn hole_is_cached<S: Store>(&mut self, scene: &mut Scene<'_, S>) -> bool {
        let una = self.una;
        self.ring(scene.slots)
            .first()
            .is_some_and(|first| !after(first.seq, una))
    }

    /// Takes the retransmissions off the list that were answered, and learns from them: their round trip; and that
    /// those sent before them, which are still missing, are lost. Says whether one of them was.
    fn answered<S: Store>(
        &mut self,
        hole: u32,
        ack: u32,
        blocks: &[Block],
        scene: &mut Scene<'_, S>,
    ) -> bool {
        let mut latest = None;
        let mut at = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            let cumulative = before(pending.seq, ack);
            let selective = !cumulative && covered(pending.seq, blocks);
            if !cumulative && !selective {
                at = at.saturating_add(1);
                continue;
            }
            self.take(at);
            if selective {
                let mut ring = self.ring(scene.slots);
                let index = ring.find(pending.seq);
                if let Some(slot) = ring.get_mut(index) {
                    (slot.sacked, slot.pending) = (true, false);
                }
            }
            if pending.queued {
                continue;
            }
            self.answer = scene.now;
            latest = Some(latest.map_or(pending.order, |order| later(order, pending.order)));
            // Those before it may have been late and not lost.
            let more = u32::from(pending.times)
                .saturating_sub(1)
                .saturating_add(u32::from(pending.doubtful));
            if more > 0 && !self.sealed {
                self.echoes = self.echoes.saturating_add(more).min(PENDING as u32);
                self.echoes_end = scene
                    .now
                    .saturating_add(self.data.timeout(scene.settings.initial));
            }
            // One below the acknowledgement but not at the hole arrived some time before.
            if selective || pending.seq == hole {
                self.measure(&pending, scene.now);
            }
        }
        let Some(latest) = latest else {
            return false;
        };
        let mut lost = false;
        for pending in self.listed_mut() {
            // Retransmissions go the same way, one after the other.
            if !pending.queued && before(pending.order, latest) {
                pending.overtaken = true;
                lost = true;
            }
        }
        lost
    }

    fn measure(&mut self, pending: &Pending, now: u64) {
        let took = now.saturating_sub(pending.sent);
        if pending.times == 1 {
            self.repair.sample(took);
        } else if took.saturating_mul(2) < self.repair.least() {
            // Too soon to be the last one's answer: it is that of the one before, which took longer than we waited.
            self.repair.sample(now.saturating_sub(pending.before));
        }
    }

    /// Looks at what SACK blocks newly tell, and repairs the holes below the highest of them.
    fn holes<S: Store>(&mut self, segment: &Segment, scene: &mut Scene<'_, S>) {
        let blocks = segment.sack();
        let mut high = self.sack_high;
        for (start, end) in blocks {
            // What lies below the acknowledgement tells of a duplicate (RFC 2883), what lies above all is made up.
            if after(*end, *start) && after(*end, self.una) && !after(*end, self.next) {
                high = later(high, *end);
            }
        }
        if after(high, self.sack_high) {
            self.mark(blocks, high, scene);
        }
        self.search(blocks, scene);
    }

    fn mark<S: Store>(&mut self, blocks: &[Block], high: u32, scene: &mut Scene<'_, S>) {
        let old = self.sack_high;
        let mut ring = self.ring(scene.slots);
        let mut at = ring.find(old);
        while let Some(slot) = ring.get_mut(at) {
            if !before(slot.seq, high) {
                break;
            }
            if within(slot, blocks) {
                slot.sacked = true;
            }
            at = at.saturating_add(1);
        }
        self.sack_high = high;
    }

    /// Goes on looking for holes below the highest SACK, where it stopped.
    fn search<S: Store>(&mut self, blocks: &[Block], scene: &mut Scene<'_, S>) {
        let mut burst = 0usize;
        while before(self.looked, self.sack_high) {
            let looked = self.looked;
            let ring = self.ring(scene.slots);
            let at = ring.find(looked);
            let Some(slot) = ring.get(at).copied() else {
                break;
            };
            if after(slot.seq, looked) {
                // Nothing of it is here.
                let to = if before(slot.seq, self.sack_high) {
                    slot.seq
                } else {
                    self.sack_high
                };
                self.uncached(looked, to, blocks);
                self.looked = to;
                continue;
            }
            if !slot.sacked && !slot.pending {
                if burst >= BURST || usize::from(self.pendings) >= PENDING {
                    return;
                }
                burst = burst.saturating_add(1);
                self.repair_at(at, Why::Sack, scene);
            }
            self.looked = later(looked, slot.end);
        }
        if before(self.looked, self.sack_high) {
            let (looked, high) = (self.looked, self.sack_high);
            self.uncached(looked, high, blocks);
            self.looked = high;
        }
    }

    /// What isn't cached can't be repaired: unless the receiver has it, the sender has to.
    fn uncached(&mut self, from: u32, to: u32, blocks: &[Block]) {
        let has = blocks
            .iter()
            .any(|(start, end)| !after(*start, from) && !before(*end, to));
        if !has {
            self.visible = later(self.visible, to);
        }
    }

    fn repair_head<S: Store>(&mut self, why: Why, scene: &mut Scene<'_, S>) {
        let una = self.una;
        let first = self.ring(scene.slots).first().copied();
        if let Some(first) = first {
            if !after(first.seq, una) && !first.pending {
                self.repair_at(0, why, scene);
            }
        }
    }

    /// Sends the segment at `at` again, if it may be.
    fn repair_at<S: Store>(&mut self, at: u32, why: Why, scene: &mut Scene<'_, S>) {
        let (floor, now) = (scene.floor, scene.now);
        let timed = matches!(why, Why::Timer | Why::Persist);
        let full = usize::from(self.pendings) >= PENDING;
        let mut ring = self.ring(scene.slots);
        let Some(slot) = ring.get_mut(at) else {
            return;
        };
        if full && !slot.pending {
            return;
        }
        let (seq, end, place) = (slot.seq, slot.end, slot.place);
        if slot.esp < floor {
            self.counters.too_old = self.counters.too_old.saturating_add(1);
        } else if slot.tries >= TRIES || (timed && slot.timed >= TIMED) {
            self.counters.gave_up = self.counters.gave_up.saturating_add(1);
        } else {
            slot.tries = slot.tries.saturating_add(1);
            if timed {
                slot.timed = slot.timed.saturating_add(1);
            }
            slot.sent = now;
            scene.store.retransmit(place);
            let counter = match why {
                Why::Duplicate => &mut self.counters.by_duplicate,
                Why::Sack => &mut self.counters.by_sack,
                Why::Timer => &mut self.counters.by_timer,
                Why::Persist => &mut self.counters.by_persist,
            };
            *counter = counter.saturating_add(1);
            self.list(seq, false, scene);
            if let Some(pending) = self.listed_mut().iter_mut().find(|p| p.seq == seq) {
                pending.doubtful |= timed && pending.times == 1;
            }
            return;
        }
        // From now on it is the sender's.
        self.unlist(seq);
        if let Some(gone) = self.ring(scene.slots).remove(at) {
            scene.store.release(gone.place);
        }
        self.visible = later(self.visible, end);
    }

    /// Sends again which of the retransmissions under way are lost: something first sent after it has arrived (a SACK
    /// block says so, or more duplicates than what was sent before it can cause), another one sent after it was answered,
    /// or there is no answer within a round trip.
    fn overdue<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let sack = self.selective;
        let mut at = 0usize;
        let mut burst = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            let late = scene.now >= self.due(&pending, scene.settings);
            let passed = if self.selective {
                after(self.sack_high, pending.mark)
            } else {
                // Duplicates tell of the first hole alone.
                pending.excused == 0 && !after(pending.seq, self.una)
            };
            if (passed || pending.overtaken || late) && burst < BURST {
                burst = burst.saturating_add(1);
                let why = if sack { Why::Sack } else { Why::Duplicate };
                let listed = self.pendings;
                self.repair_seq(pending.seq, why, scene);
                if self.pendings < listed {
                    // It was given up, and the list moved up.
                    continue;
                }
            }
            at = at.saturating_add(1);
        }
    }

    fn repair_seq<S: Store>(&mut self, seq: u32, why: Why, scene: &mut Scene<'_, S>) {
        let ring = self.ring(scene.slots);
        let at = ring.find(seq);
        if ring.get(at).is_some_and(|slot| slot.seq == seq) {
            self.repair_at(at, why, scene);
        } else {
            self.unlist(seq);
        }
    }

    /// How long a retransmission's answer may take.
    fn repair_timeout(&self, settings: &Settings) -> u64 {
        // Before the first was answered, what data took at best is a hint.
        let initial = settings.initial.max(self.data.least().saturating_mul(2));
        self.repair.timeout(initial).max(settings.minimum)
    }

    /// When a retransmission under way is late.
    fn due(&self, pending: &Pending, settings: &Settings) -> u64 {
        let wait = if pending.queued {
            self.data.timeout(settings.initial).max(settings.minimum)
        } else {
            self.repair_timeout(settings)
        };
        // Each attempt waits longer, for the time may be underestimated.
        let shift = pending.times.saturating_sub(1).min(4);
        let longer = (wait >> 2).saturating_mul(u64::from(shift));
        let due = pending.sent.saturating_add(wait).saturating_add(longer);
        if pending.queued || pending.sent > self.answer {
            return due;
        }
        // One that went out with others, and waited for them, comes right behind their answers.
        due.max(self.answer.saturating_add(wait >> 1))
    }

    fn listed(&self) -> &[Pending] {
        self.pending
            .get(..usize::from(self.pendings))
            .unwrap_or(&[])
    }

    fn listed_mut(&mut self) -> &mut [Pending] {
        self.pending
            .get_mut(..usize::from(self.pendings))
            .unwrap_or(&mut [])
    }

    /// Lists a retransmission that just went out; `queued` if it is the sender's.
    fn list<S: Store>(&mut self, seq: u32, queued: bool, scene: &mut Scene<'_, S>) {
        let listed = self.listed().iter().position(|p| p.seq == seq);
        if listed.is_none() && usize::from(self.pendings) >= PENDING {
            return;
        }
        let duplicates = self.duplicates;
        let mut ring = self.ring(scene.slots);
        let at = ring.find(seq);
        let behind = ring.len().saturating_sub(at);
        if let Some(slot) = ring.get_mut(at) {
            slot.pending = true;
        }
        self.order = self.order.wrapping_add(1);
        let mut entry = Pending {
            seq,
            sent: scene.now,
            before: scene.now,
            // Duplicates still to come of what was sent before it. It goes ahead of some of that; counting all errs
            // on the side of waiting, and the round trip is there for those who can't wait. If more have come than can,
            // some weren't cached, and only the round trip is left.
            excused: behind
                .checked_sub(duplicates)
                .filter(|more| *more > 0)
                .unwrap_or(u32::MAX),
            mark: self.next,
            overtaken: false,
            order: self.order,
            times: 1,
            queued,
            doubtful: false,
        };
        let at = listed.unwrap_or(usize::from(self.pendings));
        let Some(place) = self.pending.get_mut(at) else {
            return;
        };
        if listed.is_none() {
            self.pendings = self.pendings.saturating_add(1);
        } else if place.queued == queued {
            entry.times = place.times.saturating_add(1);
            entry.before = place.sent;
            entry.doubtful = place.doubtful;
        }
        *place = entry;
    }

    /// Takes the entry at `at` off the list; the last takes its place.
    fn take(&mut self, at: usize) {
        let Some(last) = usize::from(self.pendings).checked_sub(1) else {
            return;
        };
        let moved = self.pending.get(last).copied().filter(|_| at <= last);
        if let (Some(place), Some(moved)) = (self.pending.get_mut(at), moved) {
            *place = moved;
            self.pendings = self.pendings.saturating_sub(1);
        }
    }

    fn unlist(&mut self, seq: u32) {
        if let Some(at) = self.listed().iter().position(|p| p.seq == seq) {
            self.take(at);
        }
    }

    /// How long the oldest segment's acknowledgement may take.
    fn patience<S: Store>(&self, scene: &Scene<'_, S>) -> u64 {
        let wait = self
            .data
            .timeout(scene.settings.initial)
            .max(scene.settings.minimum);
        let wait = if self.len <= 1 {
            wait.max(DELAYED_ACK)
        } else {
            wait
        };
        wait.saturating_mul(1 << self.backoff.min(6))
    }

    /// Sets the alarm for the oldest segment, unless a retransmission of it is under way and has its own time.
    fn set_alarm<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let una = self.una;
        let Some(first) = self.ring(scene.slots).first().copied() else {
            self.alarm = 0;
            return;
        };
        if first.pending || after(first.seq, una) {
            self.alarm = 0;
            return;
        }
        // As long as acknowledgements come, what is still waiting for the link isn't late.
        let moving = self.repair_timeout(scene.settings).saturating_mul(2);
        // The last one of a burst may have arrived just now, and wait for its acknowledgement.
        let moving = if self.len <= 1 {
            moving.max(self.data.least().saturating_add(DELAYED_ACK))
        } else {
            moving
        };
        self.alarm = first
            .sent
            .saturating_add(self.patience(scene))
            .max(scene.now.saturating_add(moving));
    }

    /// When [`Flow::timer`] is next due, in nanoseconds.
    pub fn deadline(&self, settings: &Settings) -> u64 {
        let mut at = self.touched.saturating_add(settings.garbage);
        if self.len == 0 || !self.confirmed || self.window == 0 {
            return at;
        }
        if !self.persisted {
            at = at.min(self.touched.saturating_add(settings.persist));
        }
        if self.alarm != 0 {
            at = at.min(self.alarm);
        }
        for pending in self.listed() {
            at = at.min(self.due(pending, settings));
        }
        at
    }

    /// Does what is due. Returns `false` once the flow is to be forgotten.
    pub fn timer<S: Store>(
        &mut self,
        slots: &mut [Slot],
        floor: u64,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> bool {
        self.settle();
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor,
            now,
        };
        if self.closed || now >= self.touched.saturating_add(settings.garbage) {
            self.clear(&mut scene);
            self.closed = true;
            return false;
        }
        // Nobody has answered yet, or the receiver has no room: sending more is no repair.
        if self.len == 0 || !self.confirmed || self.window == 0 {
            return true;
        }
        if !self.persisted && now >= self.touched.saturating_add(settings.persist) {
            self.persisted = true;
            self.persist(&mut scene);
            return true;
        }
        let mut at = 0usize;
        let mut burst = 0usize;
        while let Some(pending) = self.listed().get(at).copied() {
            if now >= self.due(&pending, settings) && burst < BURST {
                burst = burst.saturating_add(1);
                let listed = self.pendings;
                self.repair_seq(pending.seq, Why::Timer, &mut scene);
                if self.pendings < listed {
                    continue;
                }
            }
            at = at.saturating_add(1);
        }
        if self.alarm != 0 && now >= self.alarm {
            self.alarm = 0;
            self.backoff = self.backoff.saturating_add(1).min(6);
            self.repair_head(Why::Timer, &mut scene);
            self.set_alarm(&mut scene);
        }
        true
    }

    /// Silence both ways: what is unacknowledged goes out once more.
    fn persist<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let mut at = 0u32;
        let mut sent = 0u32;
        while sent < PERSIST_BURST && at < self.len {
            let before = self.len;
            let sacked = self
                .ring(scene.slots)
                .get(at)
                .is_none_or(|slot| slot.sacked);
            if !sacked {
                self.repair_at(at, Why::Persist, scene);
                sent = sent.saturating_add(1);
            }
            if self.len == before {
                at = at.saturating_add(1);
            }
        }
    }

    /// Lets go of what the peer's replay window will soon not take.
    fn drop_too_old<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        let floor = scene.floor;
        while let Some(first) = self.ring(scene.slots).first().copied() {
            if first.esp >= floor {
                return;
            }
            self.counters.too_old = self.counters.too_old.saturating_add(1);
            self.settle();
            self.unlist(first.seq);
            self.ring(scene.slots).pop();
            scene.store.release(first.place);
            self.visible = later(self.visible, first.end);
        }
    }

    /// Gives every packet back.
    pub fn release<S: Store>(&mut self, slots: &mut [Slot], store: &mut S) {
        while let Some(first) = self.ring(slots).pop() {
            store.release(first.place);
        }
        (self.pendings, self.alarm) = (0, 0);
    }

    fn clear<S: Store>(&mut self, scene: &mut Scene<'_, S>) {
        self.release(scene.slots, scene.store);
    }

    fn ring<'a>(&'a mut self, slots: &'a mut [Slot]) -> Ring<'a> {
        Ring {
            slots,
            head: &mut self.head,
            len: &mut self.len,
        }
    }
}

/// Whether a sequence number lies in a block.
fn covered(seq: u32, blocks: &[Block]) -> bool {
    blocks
        .iter()
        .any(|(start, end)| !before(seq, *start) && before(seq, *end))
}

/// Whether a segment lies in a block, whole.
fn within(slot: &Slot, blocks: &[Block]) -> bool {
    blocks
        .iter()
        .any(|(start, end)| !before(slot.seq, *start) && !after(slot.end, *end))
}
