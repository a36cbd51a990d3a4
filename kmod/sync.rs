// SPDX-License-Identifier: GPL-2.0-only

//! Wrappers: bottom halves, per-CPU places, the RCU table.

mod alarm;

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kernel::alloc::{flags::*, Flags, KBox, KVVec, KVec};
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::types::{NotThreadSafe, Opaque};

use crate::sys;

pub(crate) use alarm::{boottime_ns, Alarm};

/// Evidence that bottom halves are off on this CPU: no softirq runs here, and the task stays here.
pub(crate) struct Bh(NotThreadSafe);

impl Bh {
    /// Turns bottom halves off until dropped; nests.
    #[inline]
    pub(crate) fn off() -> Self {
        // SAFETY: No requirements; `drop` does the matching call on the same CPU, since the value cannot be sent.
        unsafe { sys::mml_bh_disable() };
        Bh(PhantomData)
    }

    /// Lets softirqs that wait run, and turns bottom halves off again. Takes `self` out of the caller's hands meanwhile, so
    /// that nothing that relies on it is held.
    #[must_use]
    pub(crate) fn pause(self) -> Self {
        drop(self);
        Self::off()
    }

    /// The CPU we are on, which cannot change while `self` lives.
    #[inline]
    pub(crate) fn cpu(&self) -> usize {
        // SAFETY: Bottom halves are off by `self`'s existence, so preemption is off.
        unsafe { sys::mml_cpu() as usize }
    }
}

impl Bh {
    /// Runs `f` where bottom halves are known to be off already, at no cost.
    ///
    /// # Safety
    ///
    /// They are off until `f` returns: it runs in softirq, or its caller has turned them off.
    #[inline]
    pub(crate) unsafe fn known_off<R>(f: impl FnOnce(&Bh) -> R) -> R {
        // The value isn't dropped, since nothing was turned off.
        f(&ManuallyDrop::new(Bh(PhantomData)))
    }
}

/// Evidence of an RCU read-side critical section on this CPU that the caller has entered, for as long as it is borrowed:
/// every door of the packet path is opened within one.
pub(crate) struct Reader(NotThreadSafe);

impl Reader {
    /// Runs `f` within the caller's critical section, at no cost.
    ///
    /// # Safety
    ///
    /// `rcu_read_lock` or bottom halves off hold until `f` returns.
    #[inline]
    pub(crate) unsafe fn known<R>(f: impl FnOnce(&Reader) -> R) -> R {
        f(&Reader(PhantomData))
    }

    /// Runs `f` within a critical section of its own.
    #[inline]
    pub(crate) fn enter<R>(f: impl FnOnce(&Reader) -> R) -> R {
        let _guard = rcu::read_lock();
        f(&Reader(PhantomData))
    }
}

impl Drop for Bh {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Matches the call in `off`.
        unsafe { sys::mml_bh_enable() };
    }
}

/// One `T` a possible CPU, in the kernel's linear map (so that crypto may address its octets).
pub(crate) struct PerCpu<T> {
    places: KVec<KBox<UnsafeCell<T>>>,
}

// SAFETY: A place is reached only by `with`'s caller on its own CPU with bottom halves off.
unsafe impl<T: Send> Sync for PerCpu<T> {}
// SAFETY: As above; moving the owner moves no place.
unsafe impl<T: Send> Send for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// Allocates a place for each possible CPU. Sleeps.
    pub(crate) fn new(mut make: impl FnMut() -> Result<KBox<T>>) -> Result<Self> {
        let mut places = KVec::new();
        // SAFETY: No requirements.
        let cpus = unsafe { sys::mml_cpus() };
        for _ in 0..cpus {
            let place = KBox::into_raw(make()?);
            // SAFETY: `UnsafeCell<T>` has the layout of `T`, and `place` came out of a `KBox`.
            places.push(
                unsafe { KBox::from_raw(place.cast::<UnsafeCell<T>>()) },
                GFP_KERNEL,
            )?;
        }
        Ok(PerCpu { places })
    }

    /// Each CPU's place in turn. Nobody else has any, or `self` wouldn't be the caller's alone.
    pub(crate) fn each(&mut self, mut f: impl FnMut(&mut T)) {
        for place in self.places.iter_mut() {
            f(place.get_mut());
        }
    }

    /// This CPU's place, for as long as `bh` is held.
    ///
    /// # Safety
    ///
    /// The caller makes no second reference to the same place while the first lives: nothing called meanwhile may come
    /// back here on this CPU.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn place<'a>(&'a self, bh: &'a Bh) -> Option<&'a mut T> {
        // SAFETY: The cell is this CPU's, and by the caller's promise no other reference to it lives.
        self.places.get(bh.cpu()).map(|p| unsafe { &mut *p.get() })
    }
}

/// A work queue that frees after an RCU grace period, in process context.
struct Queue(AtomicPtr<bindings::workqueue_struct>);

static QUEUE: Queue = Queue(AtomicPtr::new(ptr::null_mut()));

/// Starts the queue that [`Table`] frees through.
pub(crate) fn start() -> Result {
    // SAFETY: No requirements.
    let wq = unsafe { sys::mml_workqueue_new() };
    if wq.is_null() {
        return Err(ENOMEM);
    }
    QUEUE.0.store(wq, Ordering::Release);
    Ok(())
}

/// Waits for everything that was deferred and ends the queue. No table may change any more.
pub(crate) fn stop() {
    let wq = QUEUE.0.swap(ptr::null_mut(), Ordering::AcqRel);
    // Twice, since what is freed may itself free by RCU.
    for _ in 0..2 {
        // SAFETY: Process context; no requirements.
        unsafe { sys::rcu_barrier() };
    }
    if !wq.is_null() {
        // SAFETY: `wq` came from `mml_workqueue_new` and nothing queues on it any more; this drains it.
        unsafe { sys::destroy_workqueue(wq) };
    }
    // SAFETY: As above.
    unsafe { sys::rcu_barrier() };
}

/// What is deferred: a function to run on the work's container.
#[repr(C)]
struct Deferred {
    work: bindings::rcu_work,
    free: unsafe fn(*mut Deferred),
}

#[no_mangle]
unsafe extern "C" fn mml_rs_deferred(work: *mut bindings::work_struct) {
    // SAFETY: Only `Deferred::queue` queues this function, with the first member of a `Deferred`.
    unsafe {
        let deferred = sys::mml_to_rcu_work(work).cast::<Deferred>();
        ((*deferred).free)(deferred);
    }
}

/// A node of a table's bucket.
#[repr(C)]
struct Node<T> {
    deferred: Deferred,
    next: AtomicPtr<Node<T>>,
    hash: u32,
    value: ManuallyDrop<T>,
}

impl<T> Node<T> {
    /// # Safety
    ///
    /// `deferred` is the first member of a `Node<T>` that nobody can reach any more.
    unsafe fn free(deferred: *mut Deferred) {
        // SAFETY: By the promise, the node is ours alone and came out of a `KBox`.
        unsafe {
            let mut node = KBox::from_raw(deferred.cast::<Node<T>>());
            ManuallyDrop::drop(&mut node.value);
        }
    }
}

const BUCKETS: usize = 4096;

/// A hash table of several values a hash: readers under RCU take no lock, writers are serialised by the caller.
///
/// # Invariants
///
/// Every pointer in a bucket or a `next` is null or a live node; a node that was unlinked is freed after a grace period.
pub(crate) struct Table<T> {
    buckets: AtomicPtr<KVVec<AtomicPtr<Node<T>>>>,
    len: AtomicU32,
}

// SAFETY: Values are shared with readers of any CPU and dropped on a work queue.
unsafe impl<T: Send + Sync> Sync for Table<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Send for Table<T> {}

impl<T> Table<T> {
    /// An empty table, which costs nothing until its first insertion.
    pub(crate) const fn new() -> Self {
        Table {
            buckets: AtomicPtr::new(ptr::null_mut()),
            len: AtomicU32::new(0),
        }
    }

    /// How many values there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    #[inline]
    fn bucket(&self, hash: u32) -> Option<&AtomicPtr<Node<T>>> {
        let buckets = NonNull::new(self.buckets.load(Ordering::Acquire))?;
        // SAFETY: Once set, the array lives as long as the table.
        unsafe { buckets.as_ref() }.get(hash as usize % BUCKETS)
    }

    /// The values of one hash, newest first. `reader` keeps them alive.
    #[inline]
    pub(crate) fn get<'g>(&'g self, hash: u32, _reader: &'g Reader) -> Chain<'g, T> {
        let at = self
            .bucket(hash)
            .map_or(ptr::null_mut(), |b| b.load(Ordering::Acquire));
        Chain {
            at,
            hash,
            _table: PhantomData,
        }
    }

    /// The values of one hash, newest first, for a writer.
    ///
    /// The caller holds the writers' lock, so that what is linked stays so while the chain is borrowed.
    pub(crate) fn locked(&self, hash: u32) -> Chain<'_, T> {
        let at = self
            .bucket(hash)
            .map_or(ptr::null_mut(), |b| b.load(Ordering::Acquire));
        Chain {
            at,
            hash,
            _table: PhantomData,
        }
    }

    /// Makes the buckets, without which nothing can be inserted. Sleeps; the caller holds a lock of those who prepare.
    pub(crate) fn prepare(&self) -> Result {
        if self.buckets.load(Ordering::Acquire).is_null() {
            let mut array = KVVec::with_capacity(BUCKETS, GFP_KERNEL_ACCOUNT)?;
            for _ in 0..BUCKETS {
                array.push(AtomicPtr::new(ptr::null_mut()), GFP_KERNEL_ACCOUNT)?;
            }
            self.buckets.store(
                KBox::into_raw(KBox::new(array, GFP_KERNEL_ACCOUNT)?),
                Ordering::Release,
            );
        }
        Ok(())
    }

    /// Adds a value. Sleeps; the caller holds the writers' lock.
    pub(crate) fn insert(&self, hash: u32, value: T) -> Result {
        self.prepare()?;
        self.insert_with(hash, value, GFP_KERNEL_ACCOUNT)
    }

    /// Adds a value to a table that is prepared, with memory got by `flags`; the caller holds the writers' lock.
    pub(crate) fn insert_with(&self, hash: u32, value: T, flags: Flags) -> Result {
        let Some(bucket) = self.bucket(hash) else {
            return Err(ENOMEM);
        };
        // Memory first: where it is refused, `value` is dropped.
        let node = KBox::<Node<T>>::new_uninit(flags)?;
        let node = node.write(Node {
            deferred: Deferred {
                work: Default::default(),
                free: Node::<T>::free,
            },
            next: AtomicPtr::new(bucket.load(Ordering::Relaxed)),
            hash,
            value: ManuallyDrop::new(value),
        });
        // INVARIANT: The node is whole before it is published.
        bucket.store(KBox::into_raw(node), Ordering::Release);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Unlinks the values of `hash` that `which` picks; they are dropped after a grace period, in process context. The
    /// caller holds the writers' lock. Returns how many went.
    pub(crate) fn remove(&self, hash: u32, mut which: impl FnMut(&T) -> bool) -> usize {
        let Some(mut link) = self.bucket(hash) else {
            return 0;
        };
        let mut gone = 0;
        while let Some(node) = NonNull::new(link.load(Ordering::Relaxed)) {
            // SAFETY: Writers are serialised, so a linked node is live.
            let n = unsafe { node.as_ref() };
            if n.hash == hash && which(&n.value) {
                link.store(n.next.load(Ordering::Relaxed), Ordering::Release);
                self.len.fetch_sub(1, Ordering::Relaxed);
                gone += 1;
                // SAFETY: The node was just unlinked, by us alone, and is queued once.
                unsafe { Self::defer(node) };
            } else {
                link = &n.next;
            }
        }
        gone
    }

    /// # Safety
    ///
    /// `node` is unlinked and not deferred yet.
    unsafe fn defer(node: NonNull<Node<T>>) {
        let deferred = node.as_ptr().cast::<Deferred>();
        let wq = QUEUE.0.load(Ordering::Acquire);
        // SAFETY: The node lives until its work has run, and the queue until `stop`, after which no table changes.
        unsafe {
            let work = ptr::addr_of_mut!((*deferred).work);
            sys::mml_rcu_work_init(work);
            sys::queue_rcu_work(wq, work);
        }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let array = self.buckets.swap(ptr::null_mut(), Ordering::Relaxed);
        if array.is_null() {
            return;
        }
        // SAFETY: It came out of a `KBox`, and nobody else has the table.
        let array = unsafe { KBox::from_raw(array) };
        for bucket in array.iter() {
            let mut at = bucket.load(Ordering::Relaxed);
            while !at.is_null() {
                // SAFETY: As above; a table is dropped only when readers are gone (namespace exit).
                unsafe {
                    let next = (*at).next.load(Ordering::Relaxed);
                    Node::<T>::free(at.cast());
                    at = next;
                }
            }
        }
    }
}

/// The values of one hash.
pub(crate) struct Chain<'g, T> {
    at: *mut Node<T>,
    hash: u32,
    _table: PhantomData<&'g T>,
}

impl<'g, T> Iterator for Chain<'g, T> {
    type Item = &'g T;

    #[inline]
    fn next(&mut self) -> Option<&'g T> {
        while let Some(node) = NonNull::new(self.at) {
            // SAFETY: Reached in the critical section that `'g` is bound to, so the node is not freed meanwhile.
            let node = unsafe { &*node.as_ptr() };
            self.at = node.next.load(Ordering::Acquire);
            if node.hash == self.hash {
                return Some(&node.value);
            }
        }
        None
    }
}

/// What a [`Timed`] value does when its time has come.
pub(crate) trait OnTimer: Sized {
    /// Called in softirq, and never by two CPUs at a time for one value.
    fn fire(this: &Timed<Self>, bh: &Bh);
}

/// A value with a high-resolution timer of its own, which is cancelled, and waited for, when the value goes.
///
/// # Invariants
///
/// `timer` is the first member, so that its address is the whole's. It is set up and has `mml_rs_timer` for its function.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(crate) struct Timed<T: OnTimer> {
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    fire: unsafe fn(*mut bindings::hrtimer),
    #[pin]
    value: T,
}

// SAFETY: Timers may be set and cancelled on any CPU.
unsafe impl<T: OnTimer + Send + Sync> Send for Timed<T> {}
// SAFETY: As above: hrtimers have locks of their own.
unsafe impl<T: OnTimer + Send + Sync> Sync for Timed<T> {}

impl<T: OnTimer> Timed<T> {
    /// A value whose timer isn't set.
    pub(crate) fn new(value: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Timed {
            // SAFETY: The place is a timer's, and stays where it is: the value is pinned.
            timer <- Opaque::ffi_init(|timer| unsafe { sys::mml_timer_setup(timer) }),
            fire: Self::expired,
            value <- value,
        }? Error)
    }

    /// Sets the timer for `at` nanoseconds of [`now_ns`]'s clock, instead of what it was set for.
    #[inline]
    pub(crate) fn arm(&self, at: u64) {
        // SAFETY: It is set up.
        unsafe { sys::mml_timer_start(self.timer.get(), at) };
    }

    /// # Safety
    ///
    /// `timer` is the first member of a live `Timed<T>`.
    unsafe fn expired(timer: *mut bindings::hrtimer) {
        // SAFETY: By the promise; an hrtimer in soft mode fires in softirq.
        unsafe { Bh::known_off(|bh| T::fire(&*timer.cast::<Self>(), bh)) };
    }
}

impl<T: OnTimer> core::ops::Deref for Timed<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: OnTimer> PinnedDrop for Timed<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It is set up. This waits for one that fires on another CPU; a timer never drops its own value.
        unsafe { sys::hrtimer_cancel(self.timer.get()) };
    }
}

/// The front of any [`Timed`].
#[repr(C)]
struct Front {
    timer: bindings::hrtimer,
    fire: unsafe fn(*mut bindings::hrtimer),
}

#[no_mangle]
unsafe extern "C" fn mml_rs_timer(timer: *mut bindings::hrtimer) {
    // SAFETY: Only `Timed` sets timers up with this function; both structures begin the same way.
    unsafe { ((*timer.cast::<Front>()).fire)(timer) };
}

/// Nanoseconds since the machine started, without its sleep.
#[inline]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_now_ns() }
}

/// Overwrites secrets in a way the compiler keeps.
pub(crate) fn zeroise(octets: &mut [u8]) {
    // SAFETY: The slice is valid for writes of its length.
    unsafe { sys::mml_memzero(octets.as_mut_ptr().cast(), octets.len()) };
}

/// Whether a second has passed since this last said so; `last` is in jiffies, 0 for never.
pub(crate) fn once_a_second(last: &AtomicU64) -> bool {
    let (now, before) = (jiffies(), last.load(Ordering::Relaxed));
    (before == 0 || now.wrapping_sub(before) >= hz())
        && last
            .compare_exchange(before, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

/// Jiffies, 64 bits.
pub(crate) fn jiffies() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_jiffies64() }
}

/// Jiffies a second.
pub(crate) fn hz() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_hz() }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { sys::mml_seconds() }
}

/// 32 random bits, to seed a hash.
pub(crate) fn random() -> u32 {
    // SAFETY: No requirements.
    unsafe { sys::mml_random32() }
}

/// A reference on the module itself: while one lives, `rmmod` says EBUSY.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// Fails when the module is on its way out.
    pub(crate) fn get() -> Result<Self> {
        // SAFETY: No requirements.
        if unsafe { sys::mml_module_get() } {
            Ok(ModuleRef(()))
        } else {
            Err(ENODEV)
        }
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: Matches `get`.
        unsafe { sys::mml_module_put() };
    }
}
