// SPDX-License-Identifier: GPL-2.0-only

//! SNOOP: the flows of a namespace, the packets they keep, and their timers. What to do is mml-core's to say
//! (docs/snoop.md); here is where packets are kept, found and sent.
//!
//! Readers find a flow under RCU; its own lock guards the rest. A flow that goes is emptied under its lock first, so
//! that nothing of it is touched afterwards but its memory, which goes after a grace period.

mod state;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kernel::alloc::{flags::*, KVVec, KVec};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use mml_core::replay::Replay;
use mml_core::snoop::{self, Counters, Ends, Flow, Segment, Settings, Slot, Verdict};

use crate::ends::Outer;
use crate::namespace::Namespace;
use crate::net::{self, Between, Disposition, Tether};
use crate::sadb::{Csa, Seed};
use crate::skb::{Buffer, List, Skb, Space};
use crate::sync::{self, Bh, Reader, Table, Timed};

/// Flows that a namespace may be allowed to have (docs/wire.md 2.1p).
pub(crate) const FLOWS_MAX: u32 = 16_384;
/// Flows of a namespace that nobody has set otherwise.
const FLOWS: u32 = 1024;
/// Octets kept of plain TCP where nobody has set otherwise (docs/wire.md 2.1o).
const BYTES: u64 = 16 << 20;
/// Segments a flow has room for at first, and all that one nobody has answered may have.
const FIRST_SLOTS: usize = 64;
/// Flows looked at to find one that may go.
const CANDIDATES: usize = 8;
/// A flow is idle, and may go for another, after this many nanoseconds.
const IDLE: u64 = 1_000_000_000;
/// ESP numbers this close to the end of the peer's replay window are sent no more.
const MARGIN: u64 = 64;

/// What SNOOP is told for a CSA or for plain TCP.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub settings: Settings,
    /// Octets that the namespace may keep in all for a packet under these settings to be kept.
    pub bytes: u64,
}

/// The top of a CSA's replay window, as the relay knows it, for SNOOP to read without the CSA's lock.
pub(crate) struct Window {
    top: AtomicU64,
    width: u32,
}

impl Window {
    /// At `top`, `width` packets wide.
    pub(crate) fn new(top: u64, width: u32) -> Result<Arc<Self>> {
        let window = Window {
            top: AtomicU64::new(top),
            width,
        };
        Ok(Arc::new(window, GFP_KERNEL_ACCOUNT)?)
    }

    /// How many packets wide the CSA's window is said to be.
    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    /// The highest number is `top` now.
    #[inline]
    pub(crate) fn set(&self, top: u64) {
        self.top.store(top, Ordering::Relaxed);
    }

    /// The number whose low half a packet has.
    #[inline]
    pub(crate) fn infer(&self, low: u32) -> u64 {
        let top = self.top.load(Ordering::Relaxed);
        Replay::starting_at(self.width, top).map_or(low.into(), |window| window.infer(low))
    }

    /// The lowest number still worth sending.
    #[inline]
    fn floor(&self) -> u64 {
        let top = self.top.load(Ordering::Relaxed);
        let width = u64::from(self.width);
        top.saturating_sub(width.saturating_sub(MARGIN.min(width / 2)))
    }
}

/// A flow's name: the outer ends that it comes between (none for plain TCP) and its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub outer: Outer,
    pub ends: Ends,
}

impl Key {
    /// The name of the flow that a packet acknowledges.
    pub(crate) fn reversed(&self) -> Self {
        Key {
            outer: self.outer.reversed(),
            ends: self.ends.reversed(),
        }
    }

    /// Whether it is the same, compared in words.
    #[inline]
    pub(crate) fn is(&self, other: &Key) -> bool {
        let words = |key: &Key| {
            let ports = u32::from(key.ends.src_port) << 16 | u32::from(key.ends.dst_port);
            (
                u128::from_ne_bytes(key.ends.src),
                u128::from_ne_bytes(key.ends.dst),
                ports,
                key.ends.family,
            )
        };
        words(self) == words(other) && self.outer.is(&other.outer)
    }

    #[inline]
    pub(crate) fn hash(&self, seed: Seed) -> u32 {
        seed.flow(&self.outer, &self.ends)
    }
}

/// Where a packet is from, for its flow.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// It came in a CSA.
    Csa {
        csa: &'a Csa,
        /// Its number.
        esp: u64,
        /// Whether what is held has room for it, where that is asked and not the queue (docs/wire.md 2.2z).
        room: Option<bool>,
    },
    /// It came in clear.
    Plain,
}

/// What a flow's lock guards.
struct State {
    /// To its namespace; cut once it was emptied, for good.
    tether: Tether,
    flow: Flow,
    slots: KVec<Slot>,
    packets: KVec<Option<Skb>>,
    told: Told,
    /// The CSA its data comes in: number and window.
    csa: Option<(u64, Arc<Window>)>,
    /// The interfaces it came in by and goes out by.
    interfaces: (u32, u32),
    /// When the timer is set for, in nanoseconds.
    armed: u64,
}

/// A flow.
#[pin_data]
pub(crate) struct Tracked {
    key: Key,
    hash: u32,
    /// Its place in the list of all.
    place: AtomicU32,
    /// When a packet of it last passed, and whether one was acknowledged: read without the lock.
    touched: AtomicU64,
    confirmed: AtomicBool,
    #[pin]
    state: SpinLock<State>,
}

/// All flows of a namespace, as their writers see them.
struct Writers {
    all: KVVec<Arc<Timed<Tracked>>>,
    /// Where the next look for one that may go begins.
    hand: usize,
    /// What flows that are gone have counted.
    gone: Counters,
    plain: Told,
}

/// SNOOP in a namespace.
#[pin_data]
pub(crate) struct Snoop {
    flows: Table<Arc<Timed<Tracked>>>,
    #[pin]
    writers: SpinLock<Writers>,
    /// Octets kept.
    bytes: AtomicU64,
    /// Flows there may be.
    limit: AtomicU32,
    /// The interface towards the mobile hosts whose plain TCP is looked after; 0 for none.
    interface: AtomicU32,
    evicted: AtomicU64,
    refused: AtomicU64,
    /// Super-packets that went by unseen.
    super_packets: AtomicU64,
    /// Flows taken over from another foreign agent.
    taken_over: AtomicU64,
}

/// What a flow does to its packets while its lock is held.
struct Keeper<'a> {
    packets: &'a mut KVec<Option<Skb>>,
    bytes: &'a AtomicU64,
    out: List,
}

impl Keeper<'_> {
    fn take(&mut self, place: u16) -> Option<Skb> {
        let skb = self.packets.get_mut(usize::from(place))?.take()?;
        self.bytes.fetch_sub(skb.true_size(), Ordering::Relaxed);
        Some(skb)
    }
}

impl snoop::Store for Keeper<'_> {
    fn release(&mut self, place: u16) {
        if let Some(skb) = self.take(place) {
            skb.consume();
        }
    }

    fn retransmit(&mut self, place: u16) {
        let packet = self
            .packets
            .get(usize::from(place))
            .and_then(Option::as_ref);
        // Refused memory is a retransmission lost: it is sent again like any other.
        if let Some(copy) = packet.and_then(|skb| skb.share()) {
            self.out.push(copy);
        }
    }
}

impl State {
    fn floor(&self) -> u64 {
        self.csa.as_ref().map_or(0, |(_, window)| window.floor())
    }

    /// Room for more segments, if it has none left and may have more. Failing that, some go unseen.
    #[inline]
    fn make_room(&mut self) {
        let have = self.slots.len();
        let most = usize::from(self.told.settings.window);
        if self.flow.is_full(have) && have < most && self.flow.is_confirmed() {
            self.enlarge(have, most);
        }
    }

    #[inline(never)]
    fn enlarge(&mut self, have: usize, most: usize) {
        let want = have.saturating_mul(2).min(most);
        let Ok(mut slots) = KVec::from_elem(Slot::default(), want, GFP_ATOMIC | __GFP_NOWARN)
        else {
            return;
        };
        snoop::prepare(&mut slots);
        if self
            .packets
            .reserve(want.saturating_sub(have), GFP_ATOMIC | __GFP_NOWARN)
            .is_err()
        {
            return;
        }
        for _ in have..want {
            // There is room for all of them.
            let _ = self.packets.push(None, GFP_ATOMIC);
        }
        if self.flow.grow(&mut self.slots, &mut slots) {
            self.slots = slots;
        }
    }
}

impl Snoop {
    /// None of it.
    pub(crate) fn new() -> impl PinInit<Self> {
        let plain = Told {
            settings: Settings::default(),
            bytes: BYTES,
        };
        let writers = Writers {
            all: KVVec::new(),
            hand: 0,
            gone: Counters::default(),
            plain,
        };
        pin_init!(Snoop {
            flows: Table::new(),
            writers <- new_spinlock!(writers, "mml_snoop"),
            bytes: AtomicU64::new(0),
            limit: AtomicU32::new(FLOWS),
            interface: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            super_packets: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
        })
    }

    /// Whether there is anything that a packet may belong to.
    #[inline]
    pub(crate) fn has_flows(&self) -> bool {
        self.flows.len() != 0
    }

    /// Makes its tables, before the first packet. Sleeps.
    pub(crate) fn prepare(&self) -> Result {
        self.flows.prepare()?;
        let list = KVVec::with_capacity(FLOWS_MAX as usize, GFP_KERNEL_ACCOUNT)?;
        let _bh = Bh::off();
        let mut writers = self.writers.lock();
        let unused = if writers.all.capacity() == 0 {
            core::mem::replace(&mut writers.all, list)
        } else {
            list
        };
        drop(writers);
        drop(_bh);
        drop(unused);
        Ok(())
    }

    /// The interface whose plain TCP is looked after; 0 for none.
    #[inline]
    pub(crate) fn interface(&self) -> u32 {
        self.interface.load(Ordering::Relaxed)
    }

    /// See [`Self::interface`]. Flows of another one go (docs/wire.md 2.1n).
    pub(crate) fn set_interface(&self, index: u32) {
        if self.interface.swap(index, Ordering::Relaxed) != index {
            self.flush_plain();
        }
    }

    /// Flows there may be.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// See [`Self::limit`]. Fewer than there are: no new ones until some have gone.
    pub(crate) fn set_limit(&self, flows: u32) {
        self.limit.store(flows.min(FLOWS_MAX), Ordering::Relaxed);
    }

    /// What plain TCP is treated with.
    pub(crate) fn plain(&self) -> Told {
        let _bh = Bh::off();
        let told = self.writers.lock().plain;
        told
    }

    /// See [`Self::plain`]; holds for new flows.
    pub(crate) fn set_plain(&self, told: Told) {
        let _bh = Bh::off();
        self.writers.lock().plain = told;
    }

    /// Looks at a packet of plain TCP between the looked-after interface and any other.
    pub(crate) fn plain_packet(
        &self,
        ns: &Namespace,
        skb: &Buffer,
        between: &Between<'_>,
        bh: &Bh,
        reader: &Reader,
    ) -> Disposition {
        let interface = self.interface();
        if interface == 0 {
            return Disposition::Accept;
        }
        let (from, to) = between.indices();
        if from != interface && to != interface {
            return Disposition::Accept;
        }
        // What XFRM will encrypt must not be sent again by a way that it doesn't see.
        if skb.goes_through_xfrm() {
            return Disposition::Accept;
        }
        let Some((ends, segment)) = read(skb) else {
            return Disposition::Accept;
        };
        if skb.is_gso() {
            self.super_packets.fetch_add(1, Ordering::Relaxed);
            return Disposition::Accept;
        }
        let key = Key {
            outer: Outer::NONE,
            ends,
        };
        let data = (to == interface).then_some(Origin::Plain);
        self.packet(ns, skb, &key, &segment, data, (from, to), bh, reader)
    }

    /// Looks at a TCP segment. `data`: it goes towards the mobile host, and is kept.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn packet(
        &self,
        ns: &Namespace,
        skb: &Buffer,
        key: &Key,
        segment: &Segment,
        data: Option<Origin<'_>>,
        interfaces: (u32, u32),
        bh: &Bh,
        reader: &Reader,
    ) -> Disposition {
        let seed = ns.sadb.seed;
        if let Some(origin) = data {
            if segment.seq != segment.end() || segment.rst {
                self.data(ns, skb, key, seed, segment, origin, interfaces, bh, reader);
            }
        }
        if segment.ack.is_none() && !segment.rst {
            return Disposition::Accept;
        }
        let back = key.reversed();
        let Some(tracked) = self.find(&back, seed, reader) else {
            return Disposition::Accept;
        };
        let mut state = tracked.state.lock();
        if state.tether.is_cut() {
            return Disposition::Accept;
        }
        let floor = state.floor();
        let now = sync::now_ns();
        let it = &mut *state;
        let mut keeper = Keeper {
            packets: &mut it.packets,
            bytes: &self.bytes,
            out: List::new(),
        };
        let settings = it.told.settings;
        let verdict = it
            .flow
            .ack(&mut it.slots, segment, floor, now, &settings, &mut keeper);
        let out = keeper.out;
        let closed = it.flow.is_closed();
        tracked.note(it, now);
        if it.flow.in_a_burst() {
            return Disposition::Drop;
        }
        if closed {
            self.end(&mut state);
        } else {
            tracked.rearm(it);
        }
        drop(state);
        if closed {
            self.unlink(tracked);
        }
        send(ns, tracked, out);
        match verdict {
            Verdict::Forward => Disposition::Accept,
            Verdict::Suppress => Disposition::Drop,
        }
    }

    #[inline]
    fn find<'g>(
        &'g self,
        key: &Key,
        seed: Seed,
        reader: &'g Reader,
    ) -> Option<&'g Arc<Timed<Tracked>>> {
        self.flows
            .get(key.hash(seed), reader)
            .find(|tracked| tracked.key.is(key))
    }

    #[allow(clippy::too_many_arguments)]
    fn data(
        &self,
        ns: &Namespace,
        skb: &Buffer,
        key: &Key,
        seed: Seed,
        segment: &Segment,
        origin: Origin<'_>,
        interfaces: (u32, u32),
        bh: &Bh,
        reader: &Reader,
    ) {
        let tracked = match self.find(key, seed, reader) {
            Some(tracked) => tracked,
            // Nothing is gained by knowing of a connection before it has data.
            None if segment.syn || segment.rst => return,
            None => {
                if !self.create(ns, key, seed, origin, interfaces, bh) {
                    return;
                }
                match self.find(key, seed, reader) {
                    Some(tracked) => tracked,
                    None => return,
                }
            }
        };
        let mut state = tracked.state.lock();
        let it = &mut *state;
        if it.tether.is_cut() {
            return;
        }
        let now = sync::now_ns();
        let (esp, room) = match origin {
            Origin::Plain => (0, None),
            Origin::Csa { csa, esp, room } => {
                if it.csa.as_ref().is_none_or(|(id, _)| *id != csa.id) {
                    // Rekeyed: what is kept goes on under the old CSA's numbers, which say nothing of the new window.
                    it.flow.renumber(&mut it.slots);
                    it.csa = Some((csa.id, csa.window.clone()));
                }
                (esp, room)
            }
        };
        let floor = it.floor();
        it.interfaces = interfaces;
        it.make_room();
        let mut keeper = Keeper {
            packets: &mut it.packets,
            bytes: &self.bytes,
            out: List::new(),
        };
        let settings = it.told.settings;
        let place = it.flow.data(
            &mut it.slots,
            segment,
            esp,
            floor,
            room.unwrap_or_else(|| skb.queue(reader).has(Space::Some)),
            now,
            &settings,
            &mut keeper,
        );
        if let Some(place) = place {
            if let Some(old) = keeper.take(place) {
                old.consume();
            }
            if !keep(&mut keeper, skb, place, it.told.bytes) {
                it.flow.forget(&mut it.slots, place);
            }
        }
        let closed = it.flow.is_closed();
        tracked.note(it, now);
        if closed {
            self.end(&mut state);
        } else {
            tracked.rearm(it);
        }
        drop(state);
        if closed {
            self.unlink(tracked);
        }
    }

    /// Makes a flow, if there may be one more; one that is idle, or that nobody has answered, may go for it.
    ///
    /// Out of line: a flow is large, and the stack of those who only look one up needn't have room for it.
    #[inline(never)]
    fn create(
        &self,
        ns: &Namespace,
        key: &Key,
        seed: Seed,
        origin: Origin<'_>,
        interfaces: (u32, u32),
        _bh: &Bh,
    ) -> bool {
        let (told, csa) = match origin {
            Origin::Csa { csa, .. } => match csa.snoop() {
                Some(told) => (told, Some((csa.id, csa.window.clone()))),
                None => return false,
            },
            Origin::Plain => (self.plain(), None),
        };
        let flags = GFP_ATOMIC | __GFP_NOWARN;
        let now = sync::now_ns();
        let room = usize::from(told.settings.window).min(FIRST_SLOTS);
        let hash = key.hash(seed);
        let made = (|| -> Result<Arc<Timed<Tracked>>> {
            let mut slots = KVec::from_elem(Slot::default(), room, flags)?;
            snoop::prepare(&mut slots);
            let mut packets = KVec::with_capacity(room, flags)?;
            for _ in 0..room {
                packets.push(None, flags)?;
            }
            let state = init!(State {
                tether: Tether::to(ns),
                flow: Flow::new(now),
                slots,
                packets,
                told,
                csa,
                interfaces,
                armed: 0,
            });
            let key = *key;
            let tracked = try_pin_init!(Tracked {
                key,
                hash,
                place: AtomicU32::new(0),
                touched: AtomicU64::new(now),
                confirmed: AtomicBool::new(false),
                state <- new_spinlock!(state, "mml_snoop_flow"),
            });
            Arc::pin_init(Timed::new(tracked), flags)
        })();
        let Ok(made) = made else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let mut writers = self.writers.lock();
        // Another CPU may have been faster.
        let again = self
            .flows
            .locked(hash)
            .any(|tracked: &Arc<Timed<Tracked>>| tracked.key == made.key);
        if again {
            return true;
        }
        let mut victim = None;
        if writers.all.len() >= self.limit() as usize {
            victim = candidate(&mut writers, now);
            let Some(victim) = &victim else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return false;
            };
            let mut state = victim.state.lock();
            self.end(&mut state);
            drop(state);
            self.unlink_locked(&mut writers, victim);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        made.place
            .store(writers.all.len() as u32, Ordering::Relaxed);
        if writers.all.len() >= writers.all.capacity() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let listed = writers.all.push(made.clone(), flags).is_ok();
        let inserted = listed && self.flows.insert_with(hash, made, flags).is_ok();
        if listed && !inserted {
            writers.all.pop();
        }
        if !inserted {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        drop(writers);
        drop(victim);
        inserted
    }

    /// Empties a flow, for good.
    #[inline(never)]
    fn end(&self, state: &mut State) {
        if state.tether.is_cut() {
            return;
        }
        state.tether.cut();
        let mut keeper = Keeper {
            packets: &mut state.packets,
            bytes: &self.bytes,
            out: List::new(),
        };
        state.flow.release(&mut state.slots, &mut keeper);
    }

    /// Takes a flow that was ended off the table and the list. Bottom halves are off.
    #[inline(never)]
    fn unlink(&self, tracked: &Timed<Tracked>) {
        let mut writers = self.writers.lock();
        self.unlink_locked(&mut writers, tracked);
    }

    fn unlink_locked(&self, writers: &mut Writers, tracked: &Timed<Tracked>) {
        let it: *const Timed<Tracked> = tracked;
        // Only the first who comes finds it.
        if self
            .flows
            .remove(tracked.hash, |other| core::ptr::eq(&**other, it))
            == 0
        {
            return;
        }
        let counters = tracked.state.lock().flow.counters;
        writers.gone.add(&counters);
        let place = tracked.place.load(Ordering::Relaxed) as usize;
        if place < writers.all.len() {
            let last = writers.all.len() - 1;
            writers.all.swap(place, last);
            if let Some(moved) = writers.all.get(place) {
                moved.place.store(place as u32, Ordering::Relaxed);
            }
            // The table's node holds it until a grace period has passed, so its memory doesn't go here.
            writers.all.pop();
        }
    }

    /// Ends the flows that `which` picks. Process context or softirq.
    pub(crate) fn flush(&self, mut which: impl FnMut(&Key, Option<u64>, (u32, u32)) -> bool) {
        let mut at = 0;
        loop {
            let _bh = Bh::off();
            let mut writers = self.writers.lock();
            let Some(tracked) = writers.all.get(at).cloned() else {
                return;
            };
            let mut state = tracked.state.lock();
            let csa = state.csa.as_ref().map(|(id, _)| *id);
            if which(&tracked.key, csa, state.interfaces) {
                self.end(&mut state);
                drop(state);
                // Another one takes its place in the list.
                self.unlink_locked(&mut writers, &tracked);
            } else {
                drop(state);
                at += 1;
            }
            drop(writers);
        }
    }

    /// Ends the flows of plain TCP: a policy may say now that it must be sealed.
    pub(crate) fn flush_plain(&self) {
        self.flush(|_, csa, _| csa.is_none());
    }

    /// Ends the flows of a CSA.
    pub(crate) fn flush_csa(&self, id: u64) {
        self.flush(|_, csa, _| csa == Some(id));
    }

    /// Ends the flows that came in or go out by an interface.
    pub(crate) fn flush_interface(&self, index: u32) {
        if self.has_flows() {
            self.flush(|_, _, (from, to)| from == index || to == index);
        }
    }

    /// Totals, by name.
    pub(crate) fn totals(&self, mut f: impl FnMut(&str, u64) -> Result) -> Result {
        let mut sum;
        let flows;
        {
            let _bh = Bh::off();
            let writers = self.writers.lock();
            sum = writers.gone;
            flows = writers.all.len() as u64;
            for tracked in writers.all.iter() {
                sum.add(&tracked.state.lock().flow.counters);
            }
        }
        for (name, value) in Counters::NAMES.iter().zip(sum.values()) {
            f(name, value)?;
        }
        f("flows", flows)?;
        f("octets-kept", self.bytes.load(Ordering::Relaxed))?;
        f("evicted", self.evicted.load(Ordering::Relaxed))?;
        f("refused", self.refused.load(Ordering::Relaxed))?;
        f("super-packets", self.super_packets.load(Ordering::Relaxed))?;
        f("taken-over", self.taken_over.load(Ordering::Relaxed))
    }

    /// The flow at a place of the list, as it stands.
    pub(crate) fn at(&self, place: usize) -> Option<Standing> {
        let _bh = Bh::off();
        let writers = self.writers.lock();
        let tracked = writers.all.get(place)?;
        let state = tracked.state.lock();
        let idle = sync::now_ns().saturating_sub(state.flow.touched());
        let standing = Standing {
            key: tracked.key,
            cached: state.flow.cached(),
            confirmed: state.flow.is_confirmed(),
            idle_ms: idle / 1_000_000,
            counters: state.flow.counters,
        };
        drop(state);
        drop(writers);
        Some(standing)
    }
}

/// A flow, as it stands.
pub(crate) struct Standing {
    pub key: Key,
    pub cached: u32,
    pub confirmed: bool,
    pub idle_ms: u64,
    pub counters: Counters,
}

/// Octets of a packet's front that hold its headers: IP and TCP with all their options.
const HEAD: usize = 120;

#[inline]
fn read(skb: &Buffer) -> Option<(Ends, Segment)> {
    let linear = skb.linear();
    if linear.len() >= HEAD || skb.is_linear() {
        return Segment::parse(linear);
    }
    read_pieces(skb)
}

#[inline(never)]
fn read_pieces(skb: &Buffer) -> Option<(Ends, Segment)> {
    let mut head = [0; HEAD];
    let head = head.get_mut(..skb.len().min(HEAD))?;
    if !skb.copy_bits(0, head) {
        return None;
    }
    Segment::parse(head)
}

/// Keeps a copy of a packet, which shares its octets.
fn keep(keeper: &mut Keeper<'_>, skb: &Buffer, place: u16, budget: u64) -> bool {
    if keeper.bytes.load(Ordering::Relaxed) >= budget {
        return false;
    }
    let Some(copy) = skb.keep() else {
        return false;
    };
    let Some(to) = keeper.packets.get_mut(usize::from(place)) else {
        return false;
    };
    keeper.bytes.fetch_add(copy.true_size(), Ordering::Relaxed);
    *to = Some(copy);
    true
}

/// One that may go: nobody has answered it, or it is idle. An active one never goes.
fn candidate(writers: &mut Writers, now: u64) -> Option<Arc<Timed<Tracked>>> {
    let mut best: Option<(u64, &Arc<Timed<Tracked>>)> = None;
    let len = writers.all.len();
    for step in 0..CANDIDATES.min(len) {
        let Some(tracked) = writers.all.get((writers.hand + step) % len) else {
            continue;
        };
        let idle = now.saturating_sub(tracked.touched.load(Ordering::Relaxed));
        if tracked.confirmed.load(Ordering::Relaxed) && idle < IDLE {
            continue;
        }
        if best.is_none_or(|(most, _)| idle > most) {
            best = Some((idle, tracked));
        }
    }
    let best = best.map(|(_, tracked)| tracked.clone());
    writers.hand = (writers.hand + CANDIDATES) % len.max(1);
    best
}

/// Sends retransmissions. No lock is held.
#[inline]
fn send(ns: &Namespace, tracked: &Tracked, out: List) {
    if !out.is_empty() {
        send_all(ns, tracked, out);
    }
}

#[inline(never)]
fn send_all(ns: &Namespace, tracked: &Tracked, out: List) {
    let ends = tracked.key.ends;
    // Plain TCP has its own route, if policy routing says so; a CSA's packets have that of ESP.
    let ports = (tracked.key.outer == Outer::NONE).then_some((ends.src_port, ends.dst_port));
    out.for_each(|skb| net::send_again(ns.net(), skb, ports));
}

impl Tracked {
    /// Notes, for those who look without the lock, how the flow stands.
    #[inline]
    fn note(&self, state: &State, now: u64) {
        self.touched.store(now, Ordering::Relaxed);
        self.confirmed
            .store(state.flow.is_confirmed(), Ordering::Relaxed);
    }
}

impl Timed<Tracked> {
    /// Sets the timer for the flow's next deadline, unless it fires before that anyway and will see then.
    #[inline]
    fn rearm(&self, state: &mut State) {
        let due = state.flow.deadline(&state.told.settings);
        if state.armed == 0 || due < state.armed {
            state.armed = due;
            self.arm(due);
        }
    }
}

impl sync::OnTimer for Tracked {
    fn fire(this: &Timed<Self>, bh: &Bh) {
        let now = sync::now_ns();
        let mut state = this.state.lock();
        let Some(ns) = state.tether.namespace(bh) else {
            return;
        };
        let it = &mut *state;
        it.armed = 0;
        let mut out = List::new();
        let mut goes = false;
        if now >= it.flow.deadline(&it.told.settings) {
            let floor = it.floor();
            let mut keeper = Keeper {
                packets: &mut it.packets,
                bytes: &ns.snoop.bytes,
                out,
            };
            let settings = it.told.settings;
            goes = !it
                .flow
                .timer(&mut it.slots, floor, now, &settings, &mut keeper);
            out = keeper.out;
        }
        if goes {
            ns.snoop.end(&mut state);
        } else {
            this.rearm(it);
        }
        drop(state);
        if goes {
            ns.snoop.unlink(this);
        }
        send(ns, this, out);
    }
}
