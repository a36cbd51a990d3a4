// SPDX-License-Identifier: GPL-2.0-only

//! Wrapper: the qdisc, its packets, and the functions that `shim.c`'s table names.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use kernel::alloc::{flags::*, KBox};
use kernel::bindings::{netlink_ext_ack, nlattr, sk_buff};
use kernel::ffi::c_int;
use kernel::prelude::*;

use crate::sys;
use crate::wireless::Wireless;

/// `TCA_OPTIONS` of `linux/rtnetlink.h`.
const TCA_OPTIONS: c_int = 2;
/// `NET_XMIT_SUCCESS` and `NET_XMIT_DROP` of `linux/netdevice.h`.
const NET_XMIT_SUCCESS: c_int = 0;
const NET_XMIT_DROP: c_int = 1;

/// Nanoseconds on the monotonic clock.
pub(crate) fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_lab_now() }
}

/// The kind `wireless`, known to the kernel for as long as this lives.
pub(crate) struct Registration;

impl Registration {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The operations live as long as the module, whose unloading a qdisc holds up.
        kernel::error::to_result(unsafe { sys::mml_lab_register() })?;
        Ok(Registration)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: It is registered.
        unsafe { sys::mml_lab_unregister() };
    }
}

/// A qdisc of this kind, locked for `'a`.
pub(crate) struct Qdisc<'a>(NonNull<sys::Qdisc>, PhantomData<&'a sys::Qdisc>);

impl Qdisc<'_> {
    /// Counts a packet that it holds from now on.
    pub(crate) fn holds(&self, skb: &Skb) {
        // SAFETY: Both live, and the qdisc is locked.
        unsafe { sys::mml_lab_holds(self.0.as_ptr(), skb.as_ptr()) };
    }

    /// Counts a packet that it gives to the device.
    pub(crate) fn gives(&self, skb: &Skb) {
        // SAFETY: As above; the packet was counted by `holds`.
        unsafe { sys::mml_lab_gives(self.0.as_ptr(), skb.as_ptr()) };
    }

    /// Counts a packet that it drops while dequeuing, and has it freed once the lock is released.
    pub(crate) fn loses(&self, skb: Skb) {
        let skb = skb.into_raw();
        // SAFETY: As above; the packet's ownership passes to the kernel.
        unsafe {
            sys::mml_lab_loses(self.0.as_ptr(), skb);
            sys::mml_lab_free(self.0.as_ptr(), skb);
        }
    }

    /// Has the qdisc run again at `at`, in nanoseconds on the monotonic clock.
    pub(crate) fn wake_at(&self, at: u64) {
        // SAFETY: The watchdog is initialised before anything else of the qdisc.
        unsafe { sys::mml_lab_watchdog_schedule(self.0.as_ptr(), at) };
    }
}

/// An owned packet in a qdisc's hands.
///
/// # Invariants
///
/// The pointer is a live skb that is ours, in no list, with a qdisc's control block.
pub(crate) struct Skb(NonNull<sk_buff>);

// SAFETY: An owned skb may be freed anywhere.
unsafe impl Send for Skb {}

impl Skb {
    fn as_ptr(&self) -> *mut sk_buff {
        self.0.as_ptr()
    }

    fn into_raw(self) -> *mut sk_buff {
        ManuallyDrop::new(self).as_ptr()
    }

    /// Octets, link header included.
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: By the type's invariant.
        unsafe { (*self.as_ptr()).len }
    }

    /// `skb->priority`.
    pub(crate) fn priority(&self) -> u32 {
        // SAFETY: By the type's invariant.
        unsafe { sys::mml_lab_priority(self.as_ptr()) }
    }

    /// When it came, as [`Self::set_arrival`] was told.
    pub(crate) fn arrival(&self) -> u64 {
        // SAFETY: By the type's invariant; the place in the control block is the qdisc's to use and aligned.
        unsafe { *sys::mml_lab_arrival(self.as_ptr()) }
    }

    pub(crate) fn set_arrival(&mut self, arrival: u64) {
        // SAFETY: As above.
        unsafe { *sys::mml_lab_arrival(self.as_ptr()) = arrival };
    }
}

impl Drop for Skb {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant; ownership ends here.
        unsafe { sys::mml_lab_skb_drop(self.as_ptr()) };
    }
}

/// Packets that wait, first in, first out, linked by `skb->next`.
///
/// # Invariants
///
/// `first` leads over `len` packets that are ours to `last`, whose `next` is null; both are null if there are none.
pub(crate) struct Queue {
    first: *mut sk_buff,
    last: *mut sk_buff,
    len: u32,
}

// SAFETY: It owns its packets, and those may be freed anywhere.
unsafe impl Send for Queue {}

impl Queue {
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are none.
        Queue {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// When the first packet came.
    pub(crate) fn first_arrival(&self) -> Option<u64> {
        let skb = ManuallyDrop::new(Skb(NonNull::new(self.first)?));
        Some(skb.arrival())
    }

    pub(crate) fn push(&mut self, skb: Skb) {
        let skb = skb.into_raw();
        // SAFETY: The packet is ours and in no list; `last`, if there is one, is ours by the invariant.
        unsafe {
            *next(skb) = ptr::null_mut();
            if self.last.is_null() {
                self.first = skb;
            } else {
                *next(self.last) = skb;
            }
        }
        // INVARIANT: It is the last now, and one more.
        self.last = skb;
        self.len = self.len.saturating_add(1);
    }

    pub(crate) fn pop(&mut self) -> Option<Skb> {
        let skb = NonNull::new(self.first)?;
        // SAFETY: By the invariant. It is taken out of the list.
        unsafe {
            self.first = *next(skb.as_ptr());
            *next(skb.as_ptr()) = ptr::null_mut();
        }
        // INVARIANT: One less; the second, if there was one, is the first now.
        if self.first.is_null() {
            self.last = ptr::null_mut();
        }
        self.len = self.len.saturating_sub(1);
        Some(Skb(skb))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// The place of `skb->next`.
///
/// # Safety
///
/// `skb` is live.
unsafe fn next(skb: *mut sk_buff) -> *mut *mut sk_buff {
    // SAFETY: By the promise; the unions hold the list's pointers while a queue has the packet.
    unsafe { &raw mut (*skb).__bindgen_anon_1.__bindgen_anon_1.next }
}

/// What a qdisc of ours has in its slot.
///
/// # Safety
///
/// `sch` is a qdisc of this kind and locked for `'a`.
unsafe fn wireless<'a>(sch: *mut sys::Qdisc) -> Option<&'a mut Wireless> {
    // SAFETY: By the promise: the slot is null or holds what `mml_lab_rs_init` put there, which the lock makes ours.
    unsafe { (*sys::mml_lab_slot(sch)).cast::<Wireless>().as_mut() }
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_enqueue(
    skb: *mut sk_buff,
    sch: *mut sys::Qdisc,
    to_free: *mut *mut sk_buff,
) -> c_int {
    // SAFETY: The kernel calls with the qdisc locked and gives the packet away.
    unsafe {
        let (Some(skb), Some(at)) = (NonNull::new(skb), NonNull::new(sch)) else {
            return NET_XMIT_DROP;
        };
        let refused = match wireless(sch) {
            Some(wireless) => wireless.enqueue(&Qdisc(at, PhantomData), Skb(skb)),
            None => Err(Skb(skb)),
        };
        match refused {
            Ok(()) => NET_XMIT_SUCCESS,
            Err(skb) => sys::mml_lab_refuse(sch, skb.into_raw(), to_free),
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_dequeue(sch: *mut sys::Qdisc) -> *mut sk_buff {
    // SAFETY: The kernel calls with the qdisc locked, and takes the packet.
    let skb = unsafe {
        NonNull::new(sch)
            .zip(wireless(sch))
            .and_then(|(at, wireless)| wireless.dequeue(&Qdisc(at, PhantomData)))
    };
    skb.map_or(ptr::null_mut(), Skb::into_raw)
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_init(
    sch: *mut sys::Qdisc,
    options: *mut nlattr,
    extack: *mut netlink_ext_ack,
) -> c_int {
    // SAFETY: The kernel calls with a qdisc that nobody else knows yet, under the RTNL. The attribute, if there is one,
    // has as many octets as it says.
    unsafe {
        // First of all: `mml_lab_rs_destroy` is called even if this fails, and cancels it.
        sys::mml_lab_watchdog_init(sch);
        let octets: &[u8] = if options.is_null() {
            &[]
        } else {
            let len = usize::try_from(sys::mml_lab_nla_len(options)).unwrap_or(0);
            core::slice::from_raw_parts(sys::mml_lab_nla_data(options).cast(), len)
        };
        let wireless = match Wireless::new(octets) {
            Ok(wireless) => wireless,
            Err(why) => {
                if !extack.is_null() {
                    (*extack)._msg = why.as_ptr().cast();
                }
                return EINVAL.to_errno();
            }
        };
        sys::mml_lab_set_limit(sch, wireless.limit());
        match KBox::new(wireless, GFP_KERNEL) {
            Ok(wireless) => {
                *sys::mml_lab_slot(sch) = KBox::into_raw(wireless).cast();
                0
            }
            Err(_) => ENOMEM.to_errno(),
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_reset(sch: *mut sys::Qdisc) {
    // SAFETY: The kernel calls with the qdisc locked, or with the last reference to it. It sets the queue's counts to zero
    // itself.
    unsafe {
        sys::mml_lab_watchdog_cancel(sch);
        if let Some(wireless) = wireless(sch) {
            wireless.reset();
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_destroy(sch: *mut sys::Qdisc) {
    // SAFETY: The kernel calls with the last reference; what is in the slot, if anything, came out of a `KBox`.
    unsafe {
        sys::mml_lab_watchdog_cancel(sch);
        let slot = sys::mml_lab_slot(sch);
        let wireless = ptr::replace(slot, ptr::null_mut()).cast::<Wireless>();
        if !wireless.is_null() {
            drop(KBox::from_raw(wireless));
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_lab_rs_dump(sch: *mut sys::Qdisc, skb: *mut sk_buff) -> c_int {
    // SAFETY: The kernel calls with a live qdisc that isn't locked, under the RTNL, and a message to add to. The words
    // have as many octets as are passed.
    unsafe {
        sys::mml_lab_lock(sch);
        let words = wireless(sch).map(|wireless| wireless.dump());
        sys::mml_lab_unlock(sch);
        let Some(words) = words else {
            return EINVAL.to_errno();
        };
        let len = core::mem::size_of_val(&words);
        sys::nla_put(skb, TCA_OPTIONS, len as c_int, words.as_ptr().cast())
    }
}
