// SPDX-License-Identifier: GPL-2.0-only

//! Packets held for a handoff (docs/wire.md 2.2v). A relay keeps copies of what it has forwarded lately, so that they can
//! follow a mobile host that was gone when they were sent. An origin keeps what finds no way out until there is one again.
//!
//! What is held shares its octets with what was sent, holds nothing else alive, and goes when its time is over: each CSA
//! that holds has a timer. What all of a namespace's hold is bounded together.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kernel::alloc::flags::*;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::SpinLock;

use crate::namespace::Namespace;
use crate::net::{self, Tether};
use crate::send;
use crate::skb::{Buffer, List, Skb};
use crate::sync::{self, Bh, OnTimer, Timed};

/// Packets that a CSA holds at most (docs/wire.md 2.2x).
const PACKETS_MAX: usize = 4096;
/// For how long, where nobody has set otherwise, in milliseconds (docs/wire.md 2.1s).
const TIME_MS: u32 = 250;
/// Octets that a namespace's CSAs hold at most, where nobody has set otherwise (docs/wire.md 2.1t).
const BYTES: u64 = 16 << 20;
/// Packets sent again in one go, before softirqs get their turn.
const TOGETHER: u64 = 64;
/// Packets sent again until those that come meanwhile are no longer put behind them.
const MOST_TOGETHER: u64 = 4 * PACKETS_MAX as u64;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// What a namespace's CSAs hold together, and may.
pub(crate) struct Holds {
    time_ms: AtomicU32,
    most: AtomicU64,
    packets: AtomicU64,
    octets: AtomicU64,
    resent: AtomicU64,
    refused: AtomicU64,
}

impl Holds {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Holds {
            time_ms: AtomicU32::new(TIME_MS),
            most: AtomicU64::new(BYTES),
            packets: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
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
        f("held-packets", self.packets.load(Ordering::Relaxed))?;
        f("held-octets", self.octets.load(Ordering::Relaxed))?;
        f("resent-packets", self.resent.load(Ordering::Relaxed))?;
        f("hold-refused", self.refused.load(Ordering::Relaxed))
    }

    fn time(&self) -> u64 {
        u64::from(self.time_ms()) * MS
    }

    fn add(&self, skb: &Buffer) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(skb.true_size(), Ordering::Relaxed);
    }

    fn take(&self, skb: &Buffer) {
        self.packets.fetch_sub(1, Ordering::Relaxed);
        self.octets.fetch_sub(skb.true_size(), Ordering::Relaxed);
    }
}

/// What the lock guards.
struct State {
    /// To the namespace; cut once the CSA is gone, for good.
    tether: Tether,
    /// Oldest first.
    list: List,
    packets: usize,
    /// When the timer is set for, in nanoseconds; 0 if it isn't.
    armed: u64,
    /// What is held is being sent: what comes meanwhile goes behind it, so that nothing is overtaken.
    drains: bool,
}

/// What one CSA holds.
#[pin_data]
pub(crate) struct Hold {
    /// An origin's: it sends when its time is over. A relay's copies go.
    sends: bool,
    /// Whether it holds anything: read without the lock.
    holds: AtomicBool,
    #[pin]
    state: SpinLock<State>,
}

/// What a CSA holds its packets by.
pub(crate) type Holder = Pin<KBox<Timed<Hold>>>;

impl State {
    /// Takes the oldest out, and off the books.
    fn pop(&mut self, holds: &Holds) -> Option<Skb> {
        let skb = self.list.pop()?;
        self.packets -= 1;
        holds.take(&skb);
        Some(skb)
    }

    /// Takes all out.
    fn take(&mut self, holds: &Holds) -> List {
        let mut all = List::new();
        while let Some(mut skb) = self.pop(holds) {
            skb.unstamp();
            all.push(skb);
        }
        all
    }
}

impl Hold {
    /// One that holds nothing yet; `sends`: an origin's. Sleeps.
    pub(crate) fn new(ns: &Namespace, sends: bool) -> Result<Holder> {
        let state = State {
            tether: Tether::to(ns),
            list: List::new(),
            packets: 0,
            armed: 0,
            drains: false,
        };
        let hold = try_pin_init!(Hold {
            sends,
            holds: AtomicBool::new(false),
            state <- new_spinlock!(state, "mml_hold"),
        });
        KBox::pin_init(Timed::new(hold), GFP_KERNEL_ACCOUNT)
    }

    /// Whether it holds anything.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Ends it: what is held goes, and nothing comes.
    pub(crate) fn close(&self, holds: &Holds) {
        let _bh = Bh::off();
        let mut state = self.state.lock();
        state.tether.cut();
        let all = state.take(holds);
        self.holds.store(false, Ordering::Relaxed);
        drop(state);
        all.for_each(Skb::consume);
    }
}

impl Timed<Hold> {
    /// Keeps a copy of a packet that is forwarded, which is of this CSA: of those of the last time, as far as there is room.
    /// The oldest go first. Whether the copy is sent in the packet's stead, behind others. In softirq.
    pub(crate) fn keep(&self, ns: &Namespace, skb: &Buffer) -> bool {
        if ns.hold.time() == 0 {
            return false;
        }
        if let Some(copy) = skb.keep() {
            let mut state = self.state.lock();
            if self.put(ns, &mut state, copy, true).is_ok() {
                return state.drains;
            }
        }
        ns.hold.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Puts a packet aside that finds no way out, behind those that wait already. Gives it back if there is no room. With
    /// bottom halves off.
    pub(crate) fn wait(&self, ns: &Namespace, mut skb: Skb) -> Result<(), Skb> {
        if ns.hold.time() == 0 {
            return Err(skb);
        }
        skb.let_go();
        let put = self.put(ns, &mut self.state.lock(), skb, false);
        put.inspect_err(|_| {
            ns.hold.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Puts a packet behind those that are being sent; gives it back if none are, or if there is no room. With bottom halves
    /// off.
    pub(crate) fn behind(&self, ns: &Namespace, mut skb: Skb) -> Result<(), Skb> {
        let mut state = self.state.lock();
        if !state.drains {
            return Err(skb);
        }
        skb.let_go();
        self.put(ns, &mut state, skb, false)
    }

    /// `over`: room is made by letting the oldest go.
    fn put(&self, ns: &Namespace, state: &mut State, mut skb: Skb, over: bool) -> Result<(), Skb> {
        let (now, time) = (sync::now_ns(), ns.hold.time());
        skb.stamp(now);
        if state.tether.is_cut() {
            return Err(skb);
        }
        let has_room = |state: &State| {
            let octets = ns.hold.octets.load(Ordering::Relaxed);
            state.packets < PACKETS_MAX && octets.saturating_add(skb.true_size()) <= ns.hold.most()
        };
        while !has_room(state) {
            match over.then(|| state.pop(&ns.hold)).flatten() {
                Some(old) => old.consume(),
                None => return Err(skb),
            }
        }
        ns.hold.add(&skb);
        state.list.push(skb);
        state.packets += 1;
        self.holds.store(true, Ordering::Relaxed);
        self.rearm(state, time, 0);
        Ok(())
    }

    /// Sets the timer for when the oldest's time is over, though not for earlier than `earliest`, unless it fires before that
    /// anyway and will see then.
    fn rearm(&self, state: &mut State, time: u64, earliest: u64) {
        let Some(oldest) = state.list.first() else {
            return;
        };
        let due = oldest.stamped().saturating_add(time).max(earliest);
        if state.armed == 0 || due < state.armed {
            state.armed = due;
            self.arm(due);
        }
    }

    /// All that is held, which isn't from now on.
    pub(crate) fn take(&self, ns: &Namespace, _bh: &Bh) -> List {
        let mut state = self.state.lock();
        self.holds.store(false, Ordering::Relaxed);
        state.drains = false;
        state.take(&ns.hold)
    }

    /// Sends what is held, oldest first, by the routes there are now, and what comes meanwhile behind it (docs/wire.md 2.2v). How
    /// many packets, and their octets. From process context.
    pub(crate) fn resend(&self, ns: &Namespace) -> (u64, u64) {
        let mut bh = Bh::off();
        self.state.lock().drains = true;
        let (mut packets, mut octets) = (0u64, 0);
        // Where as much comes as can be sent, the rest goes without what comes yet.
        let mut rest = List::new();
        while let Some(skb) = rest.pop().or_else(|| self.next(ns)) {
            packets += 1;
            octets += skb.len() as u64;
            if self.sends {
                send::again(ns, skb, &bh);
            } else {
                net::send_again(ns.net(), skb, None);
            }
            // What a device of this machine takes waits until softirqs run; were each left to run alone, another CPU's could
            // overtake it.
            if packets % TOGETHER == 0 {
                bh = bh.pause();
            }
            if packets == MOST_TOGETHER {
                rest = self.take(ns, &bh);
            }
        }
        drop(bh);
        ns.hold.resent.fetch_add(packets, Ordering::Relaxed);
        (packets, octets)
    }

    /// The oldest, while nothing has ended that more is put behind it: that there is none does.
    fn next(&self, ns: &Namespace) -> Option<Skb> {
        let mut state = self.state.lock();
        let oldest = state.drains.then(|| state.pop(&ns.hold)).flatten();
        match oldest {
            Some(mut skb) => {
                skb.unstamp();
                Some(skb)
            }
            None => {
                state.drains = false;
                let holds = state.list.first().is_some();
                self.holds.store(holds, Ordering::Relaxed);
                None
            }
        }
    }
}

impl OnTimer for Hold {
    fn fire(this: &Timed<Self>, bh: &Bh) {
        let mut state = this.state.lock();
        state.armed = 0;
        if state.drains {
            // All of it is on its way.
            return;
        }
        let Some(ns) = state.tether.namespace(bh) else {
            return;
        };
        let (now, time) = (sync::now_ns(), ns.hold.time());
        let is_over = |skb: &Skb| skb.stamped().saturating_add(time) <= now;
        let mut over = List::new();
        if this.sends && state.list.first().is_some_and(is_over) {
            // Those that came later wait for the first: there is a way for all of them now, or for none.
            over = state.take(&ns.hold);
        }
        while state.list.first().is_some_and(is_over) {
            if let Some(skb) = state.pop(&ns.hold) {
                over.push(skb);
            }
        }
        let holds = state.list.first().is_some();
        this.holds.store(holds, Ordering::Relaxed);
        // Not once for every packet.
        this.rearm(&mut state, time, now.saturating_add(time / 4));
        drop(state);
        if this.sends {
            over.for_each(|skb| send::again(ns, skb, bh));
        } else {
            over.for_each(Skb::consume);
        }
    }
}
