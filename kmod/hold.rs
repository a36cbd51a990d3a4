// SPDX-License-Identifier: GPL-2.0-only

//! Packets held for a handoff (docs/wire.md 2.2v). A relay keeps copies of what it has forwarded lately, so that they can
//! follow a mobile host that was gone when they were sent. An origin keeps copies of what it has sealed lately, since its
//! link's queue may go with the link; and what finds no way out until there is one again.
//! What comes all at once then waits for room in its way's queue, here and at the relay that the host has come to.
//!
//! What is held shares its octets with what was sent, holds nothing else alive, and goes when its time is over: each CSA
//! that holds has a timer. What all of a namespace's hold is bounded together.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kernel::alloc::flags::*;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

use crate::namespace::Namespace;
use crate::net::{self, Found, Onward, Tether};
use crate::relay;
use crate::send::{self, Left};
use crate::skb::{Buffer, List, Queue, Skb, Space};
use crate::sync::{self, Bh, OnTimer, Reader, Timed};

/// Packets that a CSA holds at most (docs/wire.md 2.2x).
const PACKETS_MAX: usize = 4096;
/// For how long, where nobody has set otherwise, in milliseconds (docs/wire.md 2.1s).
const TIME_MS: u32 = 250;
/// Octets that a namespace's CSAs hold at most, where nobody has set otherwise (docs/wire.md 2.1t).
const BYTES: u64 = 16 << 20;
/// Packets sent in one go, before softirqs get their turn.
const TOGETHER: usize = 64;
/// For how long queues are kept short, in times that packets are held for (docs/wire.md 2.2z).
const PATIENCE: u64 = 4;
/// Until it is seen again whether there is room, in nanoseconds.
const PAUSE: u64 = MS;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// What a namespace's CSAs hold now: written with each packet, so on a cache line of its own, apart from what is only read.
#[repr(align(64))]
struct Now {
    packets: AtomicU64,
    octets: AtomicU64,
}

/// What a namespace's CSAs hold together, and may.
pub(crate) struct Holds {
    time_ms: AtomicU32,
    most: AtomicU64,
    now: Now,
    resent: AtomicU64,
    waited: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl Holds {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Holds {
            time_ms: AtomicU32::new(TIME_MS),
            most: AtomicU64::new(BYTES),
            now: Now {
                packets: AtomicU64::new(0),
                octets: AtomicU64::new(0),
            },
            resent: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// For how long, in milliseconds; 0 for not at all.
    pub(crate) fn time_ms(&self) -> u32 {
        self.time_ms.load(Ordering::Relaxed)
    }

    /// See [`Self::time_ms`]; holds for what comes from now on.
    pub(crate) fn set_time_ms(&self, ms: u32) {
        self.time_ms.store(ms, Ordering::Relaxed);
    }

    /// Octets at most.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// See [`Self::most`].
    pub(crate) fn set_most(&self, octets: u64) {
        self.most.store(octets, Ordering::Relaxed);
    }

    /// Totals, by name.
    pub(crate) fn totals(&self, mut f: impl FnMut(&str, u64) -> Result) -> Result {
        f("held-packets", self.now.packets.load(Ordering::Relaxed))?;
        f("held-octets", self.now.octets.load(Ordering::Relaxed))?;
        f("resent-packets", self.resent.load(Ordering::Relaxed))?;
        f("waited-packets", self.waited.load(Ordering::Relaxed))?;
        f("hold-refused", self.refused.load(Ordering::Relaxed))?;
        f("hold-dropped", self.dropped.load(Ordering::Relaxed))
    }

    fn time(&self) -> u64 {
        u64::from(self.time_ms()) * MS
    }

    fn add(&self, skb: &Buffer) {
        self.now.packets.fetch_add(1, Ordering::Relaxed);
        self.now
            .octets
            .fetch_add(skb.true_size(), Ordering::Relaxed);
    }

    fn take(&self, skb: &Buffer) {
        self.now.packets.fetch_sub(1, Ordering::Relaxed);
        self.now
            .octets
            .fetch_sub(skb.true_size(), Ordering::Relaxed);
    }
}

/// What the lock guards.
struct State {
    /// To the namespace; cut once the CSA is gone, for good.
    tether: Tether,
    /// Copies of what has gone on, sealed, oldest first.
    copies: List,
    /// Of them what is to be sent again, in front of what waits.
    again: List,
    /// What has yet to go, oldest first; an origin's unsealed.
    waiting: List,
    /// In all three.
    packets: usize,
    /// In `waiting`.
    waits: usize,
    /// When the timer is set for, in nanoseconds; 0 if it isn't.
    armed: u64,
    /// What waits is being sent: what comes meanwhile goes behind it, so that nothing is overtaken.
    drains: bool,
    /// From when on that comes to an end, and when it has at the latest, in nanoseconds: where as much comes as can be sent, it
    /// would never.
    ends: u64,
    over: u64,
    /// Somebody is at it. Two at a time would overtake each other.
    busy: bool,
    /// Of what is sent, a copy is kept: it goes on as what comes does, only later.
    copies_sent: bool,
    /// Until when what its way has no room for begins to wait, in nanoseconds.
    patient: u64,
}

/// What one CSA holds.
#[pin_data]
pub(crate) struct Hold {
    /// An origin's: what waits is sealed when it is sent, at the latest when its time is over. Copies go then.
    seals: bool,
    /// Whether it has something to send: read without the lock.
    has_some: AtomicBool,
    #[pin]
    state: SpinLock<State>,
}

/// What a CSA holds its packets by.
pub(crate) type Holder = Pin<KBox<Timed<Hold>>>;

/// What became of a packet that has a way while others may wait.
pub(crate) enum Behind {
    /// It waits behind them.
    Waits,
    /// There is no room for it among them. It was dropped: it would overtake them.
    Dropped,
    /// None wait, or have so for too long: it goes at once.
    Goes(Skb),
}

/// What is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copies,
    Again,
    Waiting,
}

/// How far it came with what waits.
enum Progress {
    /// There is nothing more.
    Done,
    /// There is more.
    More,
    /// There is more, and its way has no room for it.
    Full,
    /// There is more, and no way for it.
    NoWay,
}

impl State {
    fn list(&mut self, of: Kind) -> &mut List {
        match of {
            Kind::Copies => &mut self.copies,
            Kind::Again => &mut self.again,
            Kind::Waiting => &mut self.waiting,
        }
    }

    /// Takes the oldest of a kind out, and off the books.
    fn pop(&mut self, holds: &Holds, of: Kind) -> Option<Skb> {
        let skb = self.list(of).pop()?;
        self.packets -= 1;
        self.waits -= usize::from(of == Kind::Waiting);
        holds.take(&skb);
        Some(skb)
    }

    /// Puts one that isn't on the books behind those of its kind.
    fn push(&mut self, holds: &Holds, skb: Skb, of: Kind) {
        self.enter(holds, &skb, of);
        self.list(of).push(skb);
    }

    /// The same, in front of them.
    fn push_front(&mut self, holds: &Holds, skb: Skb, of: Kind) {
        self.enter(holds, &skb, of);
        self.list(of).push_front(skb);
    }

    /// Puts one on the books.
    fn enter(&mut self, holds: &Holds, skb: &Buffer, of: Kind) {
        holds.add(skb);
        self.packets += 1;
        self.waits += usize::from(of == Kind::Waiting);
    }

    /// Whether there is something to send.
    fn has_some(&self) -> bool {
        !self.again.is_empty() || !self.waiting.is_empty()
    }

    /// Whether there is room for one more of this kind and size.
    fn has_room(&self, holds: &Holds, size: u64, of: Kind) -> bool {
        let most = match of {
            Kind::Copies => holds.most() / 2,
            Kind::Again | Kind::Waiting => holds.most(),
        };
        let octets = holds.now.octets.load(Ordering::Relaxed);
        self.packets < PACKETS_MAX && octets.saturating_add(size) <= most
    }

    /// From now on what waits is sent, and what comes goes behind it.
    fn begin(&mut self, now: u64, time: u64) {
        self.drains = true;
        let patience = time.saturating_mul(PATIENCE);
        self.ends = now.saturating_add(patience);
        self.over = self.ends.saturating_add(patience);
    }

    /// Whether there is room for one more behind what is being sent. Towards the end both queues take no more together than the
    /// device's does alone, so that this one empties, and nothing is overtaken by what comes then.
    fn takes(&self, now: u64, queue: Queue) -> bool {
        now < self.ends || queue.takes(self.waits)
    }

    /// What room there has to be for what has waited since then.
    fn room(&self, since: u64, time: u64) -> Space {
        let now = sync::now_ns();
        if now >= since.saturating_add(time) {
            Space::Any
        } else if now >= self.ends {
            Space::Some
        } else {
            Space::Short
        }
    }

    /// The next to send. That there is none ends that more is put behind it.
    fn next(&mut self, holds: &Holds) -> Option<(Skb, Kind)> {
        let mut next = None;
        if self.drains {
            let again = self.pop(holds, Kind::Again).map(|skb| (skb, Kind::Again));
            next = again.or_else(|| Some((self.pop(holds, Kind::Waiting)?, Kind::Waiting)));
        }
        self.drains = next.is_some();
        next
    }
}

impl Hold {
    /// One that holds nothing yet; `seals`: an origin's. Sleeps.
    pub(crate) fn new(ns: &Namespace, seals: bool) -> Result<Holder> {
        let state = State {
            tether: Tether::to(ns),
            copies: List::new(),
            again: List::new(),
            waiting: List::new(),
            packets: 0,
            waits: 0,
            armed: 0,
            drains: false,
            ends: 0,
            over: 0,
            busy: false,
            copies_sent: false,
            patient: 0,
        };
        let hold = try_pin_init!(Hold {
            seals,
            has_some: AtomicBool::new(false),
            state <- new_spinlock!(state, "mml_hold"),
        });
        KBox::pin_init(Timed::new(hold), GFP_KERNEL_ACCOUNT)
    }

    /// Whether something has yet to be sent.
    #[inline]
    pub(crate) fn has_some(&self) -> bool {
        self.has_some.load(Ordering::Relaxed)
    }

    /// Says so, or that there is nothing.
    fn note(&self, state: &State) {
        self.has_some
            .store(state.drains || state.has_some(), Ordering::Relaxed);
    }

    /// Whether a packet that comes now finds room behind what waits, or else is dropped by `keep`; `None` if it needn't
    /// wait, so that its way's queue decides. In softirq.
    #[inline]
    pub(crate) fn room(&self, ns: &Namespace, skb: &Buffer, reader: &Reader) -> Option<bool> {
        if !self.has_some() {
            return None;
        }
        let state = self.state.lock();
        let now = sync::now_ns();
        (state.drains && now < state.over).then(|| {
            let has_room = || state.has_room(&ns.hold, skb.true_size(), Kind::Waiting);
            state.takes(now, skb.queue(reader)) && (!state.copies.is_empty() || has_room())
        })
    }

    /// Ends it: what is held goes, and nothing comes.
    pub(crate) fn close(&self, holds: &Holds) {
        let _bh = Bh::off();
        let mut state = self.state.lock();
        state.tether.cut();
        state.drains = false;
        let mut all = List::new();
        for kind in [Kind::Copies, Kind::Again, Kind::Waiting] {
            while let Some(skb) = state.pop(holds, kind) {
                all.push(skb);
            }
        }
        self.note(&state);
        drop(state);
        all.for_each(Skb::consume);
    }

    /// A relay has become the host's: much comes at once, by two ways, that its link takes in time (docs/wire.md 2.2z).
    pub(crate) fn arrives(&self, ns: &Namespace) {
        let time = ns.hold.time();
        let _bh = Bh::off();
        let until = sync::now_ns().saturating_add(time.saturating_mul(PATIENCE));
        self.state.lock().patient = until;
    }
}

impl Timed<Hold> {
    /// Keeps a copy of a packet that is forwarded, which is of this CSA: of those of the last time, as far as there is room.
    /// The oldest go first. Whether the packet itself doesn't go on: its copy is sent in its stead, behind others or when its
    /// way has room, or it is dropped. In softirq.
    pub(crate) fn keep(&self, ns: &Namespace, skb: &Buffer, reader: &Reader) -> bool {
        let time = ns.hold.time();
        if time == 0 {
            return false;
        }
        let copy = skb.keep();
        let mut state = self.state.lock();
        let now = sync::now_ns();
        let is_first = !state.drains && now < state.patient && !skb.queue(reader).has(Space::Short);
        if is_first {
            state.begin(now, time);
            state.copies_sent = true;
        }
        let drains = state.drains && now < state.over;
        let kept = match copy {
            // As the device's queue would drop it: of that, no copy is kept either.
            Some(_) if drains && !state.takes(now, skb.queue(reader)) => false,
            Some(copy) => {
                let kind = if drains { Kind::Waiting } else { Kind::Copies };
                self.put(ns, &mut state, copy, kind).is_ok()
            }
            None => false,
        };
        if is_first && !kept {
            // It overtakes nobody.
            state.drains = false;
        }
        let gone = drains && (kept || !is_first);
        drop(state);
        let counter = match (gone, kept) {
            (true, true) => &ns.hold.waited,
            (true, false) => &ns.hold.dropped,
            (false, false) => &ns.hold.refused,
            (false, true) => return false,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        gone
    }

    /// Keeps a copy of a packet that an origin has sealed, and that is about to leave. With bottom halves off.
    #[inline(never)]
    pub(crate) fn keep_sealed(&self, ns: &Namespace, skb: &Buffer) {
        if ns.hold.time() == 0 {
            return;
        }
        let kept = skb.keep().is_some_and(|copy| {
            self.put(ns, &mut self.state.lock(), copy, Kind::Copies)
                .is_ok()
        });
        if !kept {
            ns.hold.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts a packet aside that finds no way out, behind those that wait already. Gives it back if there is no room. With
    /// bottom halves off.
    pub(crate) fn wait(&self, ns: &Namespace, mut skb: Skb) -> Result<(), Skb> {
        if ns.hold.time() == 0 {
            return Err(skb);
        }
        skb.let_go();
        let put = self.put(ns, &mut self.state.lock(), skb, Kind::Waiting);
        put.inspect_err(|_| {
            ns.hold.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Puts a packet that has a way behind those that have waited for one, and sends them as far as it has room.
    pub(crate) fn behind(&self, ns: &Namespace, mut skb: Skb, queue: Queue, bh: &Bh) -> Behind {
        let kept = {
            let mut state = self.state.lock();
            let now = sync::now_ns();
            if !state.drains && state.has_some() {
                state.begin(now, ns.hold.time());
            }
            if !state.drains || now >= state.over {
                return Behind::Goes(skb);
            }
            state.takes(now, queue) && {
                skb.let_go();
                self.put(ns, &mut state, skb, Kind::Waiting).is_ok()
            }
        };
        self.go_on(ns, bh);
        if kept {
            return Behind::Waits;
        }
        ns.hold.dropped.fetch_add(1, Ordering::Relaxed);
        Behind::Dropped
    }

    /// Puts one aside. Copies make room for it, the oldest first. What may be held in all is for what waits: copies, another
    /// CSA's too, leave it half of that.
    fn put(&self, ns: &Namespace, state: &mut State, mut skb: Skb, of: Kind) -> Result<(), Skb> {
        let now = sync::now_ns();
        skb.stamp(now);
        if state.tether.is_cut() {
            return Err(skb);
        }
        while !state.has_room(&ns.hold, skb.true_size(), of) {
            match state.pop(&ns.hold, Kind::Copies) {
                Some(old) => old.consume(),
                None => return Err(skb),
            }
        }
        state.push(&ns.hold, skb, of);
        self.note(state);
        let due = if state.drains {
            now.saturating_add(PAUSE)
        } else {
            now.saturating_add(ns.hold.time())
        };
        self.rearm(state, due);
        Ok(())
    }

    /// Sets the timer for then, unless it fires before that anyway and will see then.
    fn rearm(&self, state: &mut State, due: u64) {
        if state.armed == 0 || due < state.armed {
            state.armed = due;
            self.arm(due);
        }
    }

    /// Has what is held sent, oldest first, by the routes there are now, and what comes meanwhile behind it (docs/wire.md
    /// 2.2v). Of copies those behind number `after`; without one all of a relay's, and none of an origin's. How many packets that
    /// is, and their octets. From process context.
    pub(crate) fn resend(&self, ns: &Namespace, after: Option<u32>) -> (u64, u64) {
        let mut bh = Bh::off();
        let (mut packets, mut octets) = (0u64, 0);
        let (mut all, mut seen) = (List::new(), List::new());
        {
            let mut state = self.state.lock();
            let now = sync::now_ns();
            let copies = !self.seals || after.is_some();
            while let Some(mut skb) = copies.then(|| state.pop(&ns.hold, Kind::Copies)).flatten() {
                skb.hurry();
                state.push(&ns.hold, skb, Kind::Again);
            }
            for kind in [Kind::Again, Kind::Waiting] {
                while let Some(skb) = state.pop(&ns.hold, kind) {
                    all.push(skb);
                }
                // An origin's has no number while it waits.
                let after = after.filter(|_| !(self.seals && kind == Kind::Waiting));
                while let Some(mut skb) = all.pop() {
                    if after.is_some_and(|after| is_seen(&skb, after)) {
                        seen.push(skb);
                        continue;
                    }
                    packets += 1;
                    octets += skb.len() as u64;
                    skb.stamp(now);
                    state.push(&ns.hold, skb, kind);
                }
            }
            state.copies_sent = false;
            state.begin(now, ns.hold.time());
            // Before anybody can come and find that nothing waits.
            self.note(&state);
        }
        seen.for_each(Skb::consume);
        ns.hold.resent.fetch_add(packets, Ordering::Relaxed);
        // What a device of this machine takes waits until softirqs run; were each left to run alone, another CPU's could
        // overtake it.
        for _ in (0..packets).step_by(TOGETHER) {
            let Progress::More = self.some(ns, &bh) else {
                break;
            };
            bh = bh.pause();
        }
        // Where as much comes as is sent, who asked isn't kept for what comes: that is the timer's.
        self.go_on(ns, &bh);
        drop(bh);
        (packets, octets)
    }

    /// Sends what waits, and sees to it that the rest is sent later.
    fn go_on(&self, ns: &Namespace, bh: &Bh) {
        if let Progress::More = self.some(ns, bh) {
            // By the timer, though at once: everything else on this CPU has its turn, too.
            self.rearm(&mut self.state.lock(), sync::now_ns());
        }
    }

    /// Sends some of what waits. Where its way is full, or another is at it, the rest goes without the caller.
    fn some(&self, ns: &Namespace, bh: &Bh) -> Progress {
        {
            let mut state = self.state.lock();
            if core::mem::replace(&mut state.busy, true) {
                // Who is at it goes on with what the caller has added.
                return Progress::Done;
            }
        }
        let progress = self.some_alone(ns, bh);
        let mut state = self.state.lock();
        state.busy = false;
        self.note(&state);
        if !state.tether.is_cut() {
            match progress {
                Progress::Full => self.rearm(&mut state, sync::now_ns().saturating_add(PAUSE)),
                // Somebody may have added to it since, or found a way, and gone.
                Progress::Done | Progress::NoWay if state.drains => return Progress::More,
                _ => {}
            }
        }
        progress
    }

    fn some_alone(&self, ns: &Namespace, bh: &Bh) -> Progress {
        for _ in 0..TOGETHER {
            let (mut skb, kind, since, room, copied, ends) = {
                let mut state = self.state.lock();
                let Some((skb, kind)) = state.next(&ns.hold) else {
                    return Progress::Done;
                };
                let since = skb.stamped();
                let room = state.room(since, ns.hold.time());
                // What an origin sends again may be lost with this link, too.
                let copied = state.copies_sent || (self.seals && kind == Kind::Again);
                (skb, kind, since, room, copied, state.ends)
            };
            skb.unstamp();
            if kind == Kind::Again {
                skb = skb.apart();
            }
            let left = Reader::enter(|reader| {
                if self.seals && kind == Kind::Waiting {
                    return send::again(ns, skb, room, bh, reader);
                }
                let onward = match kind {
                    _ if self.seals => Onward::Own,
                    // What waits is on its way through; what is sent again goes where its host is now.
                    Kind::Waiting => Onward::On,
                    Kind::Copies | Kind::Again => Onward::Again,
                };
                match net::find_way(ns, skb, onward, room, reader) {
                    Found::Open(skb) => {
                        if let Some(copy) = copied.then(|| skb.keep()).flatten() {
                            let _ = self.put(ns, &mut self.state.lock(), copy, Kind::Copies);
                        }
                        net::leave(ns.net(), skb);
                        Left::Gone
                    }
                    Found::Full(skb) => Left::NoRoom(skb),
                    Found::None(skb) => Left::NoWay(skb),
                }
            });
            let is_over = room == Space::Any;
            match left {
                Left::Gone => {}
                Left::NoRoom(skb) => {
                    self.put_back(ns, skb, kind, since, None);
                    return Progress::Full;
                }
                Left::NoWay(skb) if self.seals && kind == Kind::Waiting => {
                    self.put_back(ns, skb, kind, since, Some(ends));
                    return Progress::NoWay;
                }
                Left::NoWay(mut skb) if copied || !is_over => {
                    // Its host may be somewhere else by now, or who sends it; what waits needn't go the same way.
                    skb.let_go();
                    if self
                        .put(ns, &mut self.state.lock(), skb, Kind::Copies)
                        .is_err()
                    {
                        ns.hold.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Its time is over.
                Left::NoWay(_) => {
                    ns.hold.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Progress::More
    }

    /// Puts one back in its place, that found no room, or no way while what waits was being sent until `no_way`: then it, and those
    /// behind it, wait for one, unless that has begun anew since.
    fn put_back(&self, ns: &Namespace, mut skb: Skb, of: Kind, since: u64, no_way: Option<u64>) {
        let mut state = self.state.lock();
        if state.tether.is_cut() {
            return;
        }
        skb.stamp(since);
        state.push_front(&ns.hold, skb, of);
        state.drains = no_way != Some(state.ends);
        if !state.drains {
            let over = since.saturating_add(ns.hold.time());
            self.rearm(&mut state, over.max(sync::now_ns().saturating_add(PAUSE)));
        }
    }
}

/// Whether a copy has this number, or one before it: of 2^32 that follow each other half is before.
fn is_seen(skb: &Buffer, last: u32) -> bool {
    let number = relay::number(skb);
    number.is_some_and(|number| last.wrapping_sub(number) < 1 << 31)
}

impl OnTimer for Hold {
    fn fire(this: &Timed<Self>, bh: &Bh) {
        let mut state = this.state.lock();
        state.armed = 0;
        let Some(ns) = state.tether.namespace(bh) else {
            return;
        };
        let (now, time) = (sync::now_ns(), ns.hold.time());
        let is_over = |skb: &Skb| skb.stamped().saturating_add(time) <= now;
        let mut over = List::new();
        while state.copies.first().is_some_and(is_over) {
            if let Some(skb) = state.pop(&ns.hold, Kind::Copies) {
                over.push(skb);
            }
        }
        if !state.drains && state.waiting.first().is_some_and(is_over) {
            // Those that came later wait for the first: if there is a way for it now, there is for them.
            state.begin(now, time);
        }
        let first = |list: &List| list.first().map(|skb| skb.stamped().saturating_add(time));
        let firsts = [first(&state.waiting), first(&state.copies)];
        if let Some(due) = firsts.into_iter().flatten().min() {
            // Not once for every packet.
            this.rearm(&mut state, due.max(now.saturating_add(time / 4)));
        }
        let drains = state.drains;
        this.note(&state);
        drop(state);
        over.for_each(Skb::consume);
        if drains {
            this.go_on(ns, bh);
        }
    }
}
