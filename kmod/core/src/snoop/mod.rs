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

mod ack;
mod counters;
mod data;
mod order;
mod pending;
mod repair;
mod ring;
mod rtt;
mod segment;
mod serial;
mod settings;
mod state;
mod timer;

pub use counters::Counters;
pub use ring::{prepare, Slot};
pub use segment::{Block, Ends, Segment, BLOCKS};
pub use serial::{after, before};
pub use settings::Settings;
pub use state::{Absurd, State, States};

use ring::Ring;
use rtt::Rtt;
use serial::{later, span};
use settings::MS;

/// No sequence number further than this from the acknowledged one is believed: the largest TCP window (RFC 7323 §2.3).
const REACH: u32 = 1 << 30;
/// Retransmissions that may be under way at a time.
const PENDING: usize = 32;
/// Answered retransmissions remembered until it shows whether they were needed.
const RECENT: usize = 8;
/// Holes repaired for one acknowledgement.
const BURST: usize = 8;

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
    /// Another router says so, and nothing has shown it here.
    vouched: bool,
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
    /// The same as another router has seen it: an acknowledgement up to there may be of what never passed here.
    promised: u32,
    /// The window of the last acknowledgement forwarded, unscaled.
    window: u16,
    /// Arrivals behind the hole at `una`, as duplicates have told of them.
    duplicates: u32,
    /// SACK blocks have come: a duplicate without them tells of no loss.
    selective: bool,
    /// Arrivals behind a hole that prove nothing yet, for the hop has shown that it isn't in order.
    slack: u8,
    /// The last segments that one retransmission of ours, which a hole had asked for, was answered for.
    once: [Option<u32>; RECENT],
    /// How many were since the last that turned out needless.
    needed: u8,
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
            vouched: false,
            closed: false,
            persisted: false,
            fin: None,
            una: 0,
            told: 0,
            next: 0,
            promised: 0,
            window: 0,
            duplicates: 0,
            selective: false,
            slack: 0,
            once: [None; RECENT],
            needed: 0,
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
