// SPDX-License-Identifier: GPL-2.0-only

//! Wrapper: a namespace's one alarm.

use kernel::bindings;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use kernel::types::Opaque;

use super::{Bh, Ordering, QUEUE};
use crate::namespace::Namespace;
use crate::net::{self, NetPointer};
use crate::sys;

/// Not set.
const NEVER: u64 = u64::MAX;

/// Runs a function of a namespace in process context, at a time of [`boottime_ns`] or soon. It may be set from any context.
///
/// # Invariants
///
/// `work` is the first member, so that its address is the whole's. Both are set up; `timer` queues `work`, and `work` runs
/// `run`. A namespace that ends stops its alarm first ([`Alarm::stop`]): the work doesn't run from then on.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(crate) struct Alarm {
    #[pin]
    work: Opaque<bindings::work_struct>,
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    net: NetPointer,
    run: fn(&Namespace),
    /// When the timer fires.
    #[pin]
    at: SpinLock<u64>,
}

// SAFETY: Timers and works may be set and cancelled on any CPU.
unsafe impl Send for Alarm {}
// SAFETY: As above: both have locks of their own.
unsafe impl Sync for Alarm {}

impl Alarm {
    /// One that isn't set, for the namespace of `net`.
    pub(crate) fn new(net: *mut bindings::net, run: fn(&Namespace)) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Alarm {
                // SAFETY: The places are a work's and a timer's, and stay where they are: the value is pinned.
                work <- Opaque::ffi_init(|work| unsafe { sys::mml_alarm_work_setup(work) }),
                // SAFETY: As above.
                timer <- Opaque::ffi_init(|timer| unsafe { sys::mml_alarm_timer_setup(timer) }),
                net: NetPointer::new(net),
                run,
                at <- new_spinlock!(NEVER, "mml_alarm"),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Sees to it that the function runs at `at` nanoseconds of [`boottime_ns`]'s clock, or before.
    pub(crate) fn set(&self, at: u64) {
        let _bh = Bh::off();
        let mut set = self.at.lock();
        if at < *set {
            *set = at;
            // SAFETY: It is set up.
            unsafe { sys::mml_timer_start(self.timer.get(), at) };
        }
    }

    /// Ends it, and waits for the function if it runs. Sleeps.
    pub(crate) fn stop(&self) {
        // SAFETY: Both are set up. The work can't be queued again, whatever the timer does.
        unsafe {
            sys::disable_work_sync(self.work.get());
            sys::hrtimer_cancel(self.timer.get());
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Alarm {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_alarm_timer(timer: *mut bindings::hrtimer) {
    // SAFETY: Only `Alarm` sets timers up with this function; it waits for them before it goes. The queue lives while
    // namespaces do.
    unsafe {
        let alarm = timer
            .byte_sub(core::mem::offset_of!(Alarm, timer))
            .cast::<Alarm>();
        let wq = QUEUE.0.load(Ordering::Acquire);
        if !wq.is_null() {
            sys::mml_work_queue(wq, (*alarm).work.get());
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_alarm_work(work: *mut bindings::work_struct) {
    // SAFETY: Only `Alarm` sets works up with this function; it is the first member, and the alarm waits for its work
    // before it goes.
    let alarm = unsafe { &*work.cast::<Alarm>() };
    {
        let _bh = Bh::off();
        *alarm.at.lock() = NEVER;
    }
    // SAFETY: The namespace stops its alarm before it goes, and that waits for this.
    if let Some(ns) = unsafe { net::of_net(alarm.net.get()) } {
        (alarm.run)(ns);
    }
}

/// Nanoseconds since the machine started, with its sleep (docs/wire.md 2.5f).
pub(crate) fn boottime_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_boottime_ns() }
}
