// SPDX-License-Identifier: GPL-2.0-only

//! Life-times: a CSA's limits as the packet path asks for them, and the one look a namespace takes at all of them when
//! its alarm says that one has come (docs/wire.md §2.5).
//!
//! Times are of the clock that counts the machine's sleep and that nobody sets (CLOCK_BOOTTIME): by the wall clock
//! ([`sync::now`]), a clock set back would lengthen the life of a key (docs/wire.md 2.5f).

use core::sync::atomic::{AtomicU64, Ordering};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use mml_core::lifetime::{self, Due, Limit};

use crate::namespace::Namespace;
use crate::sync::{self, Alarm, Bh};
use crate::zone_message;

/// How long what a packet found due may wait for the look at it, in nanoseconds: others may come meanwhile. The CSA has
/// stopped by then.
const SOON: u64 = 10_000_000;
/// When what memory was refused for is tried again, in nanoseconds.
const AGAIN: u64 = 1_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// What the lock guards.
struct Told {
    life: lifetime::Life,
    /// Found by a packet and not told yet.
    soft_due: bool,
    hard_due: bool,
    /// Its state has changed by itself, and that wasn't told yet.
    state_due: bool,
    /// Its end was told.
    ended: bool,
}

/// The life of one CSA.
#[pin_data]
pub(crate) struct Life {
    /// The counts at which the limits are looked at, read without the lock.
    packets: AtomicU64,
    octets: AtomicU64,
    /// When it was first used; 0 for never.
    used: AtomicU64,
    added: u64,
    alarm: Arc<Alarm>,
    #[pin]
    told: SpinLock<Told>,
}

fn limit(given: &Option<pfkey::Lifetime>) -> Limit {
    given.map_or(Limit::UNLIMITED, |l| {
        Limit::new(l.allocations, l.bytes, l.addtime, l.usetime)
    })
}

/// `None` for no limit at all.
fn given(limit: &Limit) -> Option<pfkey::Lifetime> {
    let (allocations, bytes, addtime, usetime) = limit.given();
    (*limit != Limit::UNLIMITED).then_some(pfkey::Lifetime {
        allocations,
        bytes,
        addtime,
        usetime,
    })
}

impl Life {
    /// One that begins now.
    pub(crate) fn new(
        soft: Option<pfkey::Lifetime>,
        hard: Option<pfkey::Lifetime>,
        alarm: Arc<Alarm>,
    ) -> impl PinInit<Self> {
        let life = lifetime::Life::new(limit(&soft), limit(&hard));
        let (packets, octets) = life.watch();
        let told = Told {
            life,
            soft_due: false,
            hard_due: false,
            state_due: false,
            ended: false,
        };
        pin_init!(Life {
            packets: AtomicU64::new(packets),
            octets: AtomicU64::new(octets),
            used: AtomicU64::new(0),
            added: sync::boottime_ns(),
            alarm,
            told <- new_spinlock!(told, "mml_life"),
        })
    }

    /// Whether these counts are to be looked at with [`Self::count`].
    #[inline]
    pub(crate) fn is_due(&self, packets: u64, octets: u64) -> bool {
        packets >= self.packets.load(Ordering::Relaxed)
            || octets >= self.octets.load(Ordering::Relaxed)
            || self.used.load(Ordering::Relaxed) == 0
    }

    /// Notes the first use, and what these counts have reached: whether the CSA's life is over, and whether the packet
    /// that brought them is past it. With bottom halves off.
    #[cold]
    #[inline(never)]
    pub(crate) fn count(&self, packets: u64, octets: u64) -> (bool, bool) {
        let first = self.used.load(Ordering::Relaxed) == 0
            && self
                .used
                .compare_exchange(
                    0,
                    sync::boottime_ns().max(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        let mut told = self.told.lock();
        let due = told.life.count(packets, octets);
        told.soft_due |= due == Due::Soft;
        told.hard_due |= due == Due::Hard;
        self.watch(&told);
        let result = (told.life.is_over(), told.life.is_past(packets, octets));
        let deadline = told.life.deadline(self.added, self.used());
        drop(told);
        if due != Due::Nothing {
            self.alarm.set(sync::boottime_ns().saturating_add(SOON));
        } else if first {
            self.alarm.set(deadline);
        }
        result
    }

    fn watch(&self, told: &Told) {
        let (packets, octets) = told.life.watch();
        self.packets.store(packets, Ordering::Relaxed);
        self.octets.store(octets, Ordering::Relaxed);
    }

    fn used(&self) -> Option<u64> {
        match self.used.load(Ordering::Relaxed) {
            0 => None,
            used => Some(used),
        }
    }

    /// Its limits, soft and hard, as they were given.
    pub(crate) fn given(&self) -> (Option<pfkey::Lifetime>, Option<pfkey::Lifetime>) {
        let _bh = Bh::off();
        let (soft, hard) = self.told.lock().life.limits();
        (given(&soft), given(&hard))
    }

    /// Whether no soft limit would be behind its hard one, were those that are given changed.
    pub(crate) fn may_change(
        &self,
        soft: Option<pfkey::Lifetime>,
        hard: Option<pfkey::Lifetime>,
    ) -> bool {
        let (old_soft, old_hard) = self.given();
        match (soft.or(old_soft), hard.or(old_hard)) {
            (Some(soft), Some(hard)) => pfkey::check_lifetimes(&hard, &soft).is_ok(),
            _ => true,
        }
    }

    /// Other limits, for those that are given (docs/wire.md 2.5g).
    pub(crate) fn change(&self, soft: Option<pfkey::Lifetime>, hard: Option<pfkey::Lifetime>) {
        {
            let _bh = Bh::off();
            let mut told = self.told.lock();
            told.life
                .change(soft.map(|s| limit(&Some(s))), hard.map(|h| limit(&Some(h))));
            self.watch(&told);
        }
        // What is behind already is found by the look.
        self.alarm.set(sync::boottime_ns());
    }

    /// The CSA's state has changed by itself: that is told soon. With bottom halves off.
    #[cold]
    pub(crate) fn state_changed(&self) {
        self.told.lock().state_due = true;
        self.alarm.set(sync::boottime_ns().saturating_add(SOON));
    }

    /// Whether the state has changed by itself since this was asked last.
    pub(crate) fn take_state_changed(&self) -> bool {
        let _bh = Bh::off();
        let mut told = self.told.lock();
        core::mem::take(&mut told.state_due)
    }

    /// Sets the alarm for its end by time.
    pub(crate) fn begin(&self) {
        self.alarm.set(self.deadline());
    }

    fn deadline(&self) -> u64 {
        let _bh = Bh::off();
        let deadline = self.told.lock().life.deadline(self.added, self.used());
        deadline
    }

    /// What is to be told, once each: what packets found, and what these counts and the time have reached
    /// (docs/wire.md 2.5b).
    pub(crate) fn due(&self, now: u64, packets: u64, octets: u64) -> Due {
        let _bh = Bh::off();
        let mut told = self.told.lock();
        let used = self.used();
        for due in [
            told.life.count(packets, octets),
            told.life.time(now, self.added, used),
        ] {
            told.soft_due |= due == Due::Soft;
            told.hard_due |= due == Due::Hard;
        }
        self.watch(&told);
        let soft = core::mem::take(&mut told.soft_due);
        if core::mem::take(&mut told.hard_due) {
            told.ended = true;
            Due::Hard
        } else if soft {
            Due::Soft
        } else {
            Due::Nothing
        }
    }

    /// Whether its end was told: it is to go.
    pub(crate) fn ended(&self) -> bool {
        let _bh = Bh::off();
        let ended = self.told.lock().ended;
        ended
    }

    /// LIFETIME_CURRENT: what was carried, and in seconds since 1970 when it was added and first used
    /// (docs/wire.md 2.5f).
    pub(crate) fn current(&self, packets: u64, octets: u64) -> pfkey::Lifetime {
        let (wall, now) = (sync::now(), sync::boottime_ns());
        let seconds = |then: u64| wall.saturating_sub(now.saturating_sub(then) / SECOND);
        pfkey::Lifetime {
            allocations: u32::try_from(packets).unwrap_or(u32::MAX),
            bytes: octets,
            addtime: seconds(self.added),
            usetime: self.used().map_or(0, seconds),
        }
    }
}

/// Looks at every life of the namespace: tells what has come to its end, takes away what is over, and sets the alarm for
/// the next (docs/wire.md 2.5c).
pub(crate) fn run(ns: &Namespace) {
    let now = sync::boottime_ns();
    let mut next = Limit::NONE;
    let mut over = false;
    {
        let config = ns.config.lock();
        for csa in config.csas.iter() {
            if csa.life.take_state_changed() {
                zone_message::state_event(ns, csa);
            }
            let (packets, octets) = csa.carried();
            match csa.life.due(now, packets, octets) {
                Due::Nothing => {}
                Due::Soft => zone_message::expire(ns, csa, false),
                Due::Hard => {
                    csa.end();
                    over = true;
                    zone_message::expire(ns, csa, true);
                }
            }
            over |= csa.life.ended();
            next = next.min(csa.life.deadline());
        }
        for larval in config.larvals.iter() {
            if larval.deadline() <= now {
                zone_message::expire_larval(ns, larval);
            } else {
                next = next.min(larval.deadline());
            }
        }
    }
    ns.forget(|larval| larval.deadline() <= now);
    // It neither seals nor opens any more; where memory is refused, it goes later.
    if over && ns.remove_csas(|csa| csa.life.ended()).is_err() {
        next = next.min(now.saturating_add(AGAIN));
    }
    if next != Limit::NONE {
        ns.alarm.set(next);
    }
}
