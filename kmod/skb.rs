// SPDX-License-Identifier: GPL-2.0-only

//! Wrapper: socket buffers.

use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::alloc::{flags::*, KBox};
use kernel::bindings::{self, sk_buff};
use kernel::ffi::c_uint;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use crate::crypto::Linear;
use crate::net::{Device, Route};
use crate::sync::{Bh, PerCpu, Reader};
use crate::sys;

/// `ETH_P_IP`, as [`Buffer::protocol`] gives it.
pub(crate) const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`, likewise.
pub(crate) const ETH_P_IPV6: u16 = 0x86DD;
/// GSO types that send.rs segments itself: `SKB_GSO_TCPV4` or `SKB_GSO_TCPV6`, and the marks that may stand beside it (`DODGY`, `TCP_ECN`,
/// `TCP_FIXEDID` of the outer header, `TCP_ACCECN`).
const GSO_TCPV4: u32 = 1 << 0;
const GSO_DODGY: u32 = 1 << 1;
const GSO_TCP_ECN: u32 = 1 << 2;
const GSO_TCPV6: u32 = 1 << 4;

/// A CPU's pool of pages for packets.
struct Pool(*mut sys::PagePool);

// SAFETY: A pool may be ended anywhere; it is used on its own CPU.
unsafe impl Send for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: The pool is ours; the kernel keeps it until the last of its pages is back.
        unsafe { sys::page_pool_destroy(self.0) };
    }
}

static POOLS: AtomicPtr<PerCpu<Pool>> = AtomicPtr::new(core::ptr::null_mut());

/// Makes the pools.
pub(crate) fn start() -> Result {
    let mut cpu = 0;
    let pools = PerCpu::new(|| {
        // SAFETY: No requirements.
        let pool = unsafe { sys::mml_pool_new(cpu) };
        cpu += 1;
        // SAFETY: Any pointer may be asked.
        if pool.is_null() || unsafe { sys::mml_is_err(pool.cast()) } {
            return Err(ENOMEM);
        }
        Ok(KBox::new(Pool(pool), GFP_KERNEL)?)
    })?;
    POOLS.store(
        KBox::into_raw(KBox::new(pools, GFP_KERNEL)?),
        Ordering::Release,
    );
    Ok(())
}

/// Ends the pools. Nothing may allocate any more; packets may still be about.
pub(crate) fn stop() {
    if let Some(pools) = NonNull::new(POOLS.swap(core::ptr::null_mut(), Ordering::AcqRel)) {
        // SAFETY: It came out of a `KBox` in `start`, and by the caller nobody uses it.
        let mut pools = unsafe { KBox::from_raw(pools.as_ptr()) };
        // A CPU that frees a packet of its own pool puts the page straight into the pool's cache, without a lock. The kernel
        // forbids that at a pool's end, but doesn't wait for a CPU that is at it: a page that comes into a cache emptied
        // already would be lost, and its pool with it. So it is forbidden first, and those at it are waited for.
        // SAFETY: The pools are ours.
        pools.each(|pool| unsafe { sys::mml_pool_retire(pool.0) });
        // SAFETY: Process context. Whoever is at it has bottom halves off, which is a reader to RCU.
        unsafe { sys::synchronize_rcu() };
    }
}

/// A borrowed socket buffer.
#[repr(transparent)]
pub(crate) struct Buffer(UnsafeCell<sk_buff>);

impl Buffer {
    /// # Safety
    ///
    /// `skb` is a live socket buffer that nobody else changes for `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(skb: *mut sk_buff) -> &'a mut Buffer {
        // SAFETY: `Buffer` is transparent, and by the promise.
        unsafe { &mut *skb.cast::<Buffer>() }
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut sk_buff {
        self.0.get()
    }

    #[inline]
    fn raw(&self) -> &sk_buff {
        // SAFETY: Nobody changes it while `self` is borrowed.
        unsafe { &*self.0.get() }
    }

    /// Octets from the data pointer to the end, linear or not.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.raw().len as usize
    }

    /// The linear octets from the data pointer.
    #[inline]
    pub(crate) fn linear(&self) -> &[u8] {
        let raw = self.raw();
        let len = raw.len.saturating_sub(raw.data_len) as usize;
        // SAFETY: An skb has `len - data_len` octets at `data`.
        unsafe { core::slice::from_raw_parts(raw.data, len) }
    }

    /// Whether all octets are linear.
    #[inline]
    pub(crate) fn is_linear(&self) -> bool {
        self.raw().data_len == 0
    }

    /// Makes the first `len` octets linear (a private head is made for a clone). False if there are not as many, or no memory.
    #[inline]
    pub(crate) fn pull_head(&mut self, len: usize) -> bool {
        let raw = self.raw();
        if len <= raw.len.saturating_sub(raw.data_len) as usize {
            return true;
        }
        // SAFETY: `skb` is live and ours to change.
        unsafe { sys::mml_skb_may_pull(self.as_ptr(), len as u32) }
    }

    /// The first `len` octets for writing: linear, and private, of which a copy is made where they are shared. `None` if
    /// there are not as many, or no memory.
    #[inline]
    pub(crate) fn head_mut(&mut self, len: usize) -> Option<&mut [u8]> {
        // SAFETY: `skb` is live and ours to change. Where the call succeeds, its first `len` octets are linear and nobody
        // else's.
        unsafe {
            if sys::skb_ensure_writable(self.as_ptr(), c_uint::try_from(len).ok()?) != 0 {
                return None;
            }
            Some(core::slice::from_raw_parts_mut(self.raw().data, len))
        }
    }

    /// Copies octets from `offset` on, linear or not.
    #[inline]
    pub(crate) fn copy_bits(&self, offset: usize, to: &mut [u8]) -> bool {
        let end = offset.saturating_add(to.len());
        if let Some(from) = self.linear().get(offset..end) {
            to.copy_from_slice(from);
            return true;
        }
        end <= self.len()
            // SAFETY: The range lies within the skb, and `to` has room for it.
            && unsafe { sys::skb_copy_bits(self.as_ptr(), offset as i32, to.as_mut_ptr().cast(), to.len() as i32) } == 0
    }

    /// `N` octets from `offset` on, linear or not.
    #[inline]
    pub(crate) fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(octets) = self.linear().get(offset..).and_then(|o| o.first_chunk()) {
            return Some(*octets);
        }
        let mut octets = [0; N];
        self.copy_bits(offset, &mut octets).then_some(octets)
    }

    /// As [`Self::copy_bits`], and returns their one's-complement sum, unfolded and in wire order.
    #[inline]
    pub(crate) fn copy_and_sum(&self, offset: usize, to: &mut [u8]) -> Option<u32> {
        if to.is_empty() {
            return Some(0);
        }
        if offset.saturating_add(to.len()) > self.len() {
            return None;
        }
        // SAFETY: The range lies within the skb (the C function BUGs otherwise), and `to` has room for it.
        Some(unsafe {
            sys::skb_copy_and_csum_bits(
                self.as_ptr(),
                offset as i32,
                to.as_mut_ptr(),
                to.len() as i32,
            )
        })
    }

    /// `skb->protocol`, host order.
    #[inline]
    pub(crate) fn protocol(&self) -> u16 {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_protocol(self.as_ptr()) as u16 }
    }

    #[inline]
    pub(crate) fn is_gso(&self) -> bool {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_is_gso(self.as_ptr()) }
    }

    /// Octets of payload a segment of a super-packet.
    #[inline]
    pub(crate) fn gso_size(&self) -> usize {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_gso_size(self.as_ptr()) as usize }
    }

    /// Whether this is a plain TCP super-packet, which we segment ourselves.
    #[inline]
    pub(crate) fn is_plain_tcp_gso(&self) -> bool {
        // SAFETY: `skb` is live.
        let kind = unsafe { sys::mml_skb_gso_type(self.as_ptr()) };
        let tcp = kind & (GSO_TCPV4 | GSO_TCPV6);
        tcp.is_power_of_two() && kind & !(tcp | GSO_DODGY | GSO_TCP_ECN) == 0
    }

    /// Where a checksum that is still to be computed starts and where it goes (both from the data pointer), if there is one.
    #[inline]
    pub(crate) fn partial_checksum(&self) -> Option<(usize, usize)> {
        // SAFETY: `skb` is live.
        unsafe {
            if !sys::mml_skb_csum_partial(self.as_ptr()) {
                return None;
            }
            let start =
                usize::try_from(sys::mml_skb_csum_start(self.as_ptr())).unwrap_or(usize::MAX / 2);
            Some((
                start,
                start + sys::mml_skb_csum_offset(self.as_ptr()) as usize,
            ))
        }
    }

    /// Computes a partial checksum in software.
    pub(crate) fn checksum_help(&mut self) -> bool {
        // SAFETY: `skb` is live and ours to change.
        unsafe { sys::skb_checksum_help(self.as_ptr()) == 0 }
    }

    /// Whether its octets are shared with another skb.
    #[inline]
    pub(crate) fn is_cloned(&self) -> bool {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_cloned(self.as_ptr()) }
    }

    /// Octets from the data pointer back to the network header, as the octets themselves.
    #[inline]
    pub(crate) fn network_header(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: `skb` is live; the network header lies in the head, at or before `data` for a packet that the stack
        // hands to a protocol handler, else the range is empty.
        unsafe {
            let offset = sys::mml_skb_network_offset(self.as_ptr());
            if offset > 0 {
                return &[];
            }
            core::slice::from_raw_parts(
                raw.data.offset(offset as isize),
                offset.unsigned_abs() as usize,
            )
        }
    }

    /// Whether its route carries a transform of XFRM.
    #[inline]
    pub(crate) fn goes_through_xfrm(&self) -> bool {
        // SAFETY: `skb` is live; a route that is set is valid under RCU.
        unsafe { sys::mml_skb_dst_xfrm(self.as_ptr()) }
    }

    /// Whether XFRM has transformed it just now (it is on its way out).
    #[inline]
    pub(crate) fn left_xfrm(&self) -> bool {
        // SAFETY: `skb` is at an IP hook, so its control block is an `inet_skb_parm`, or an `inet6_skb_parm` for IPv6.
        unsafe {
            if self.protocol() == ETH_P_IPV6 {
                sys::mml_skb_xfrm_done6(self.as_ptr())
            } else {
                sys::mml_skb_xfrm_done(self.as_ptr())
            }
        }
    }

    /// Whether it came in through XFRM.
    #[inline]
    pub(crate) fn came_through_xfrm(&self) -> bool {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_sec_path(self.as_ptr()) }
    }

    /// A copy to keep that shares its octets and holds nothing else alive: no route, connection, device or socket.
    pub(crate) fn keep(&self) -> Option<Skb> {
        // SAFETY: `skb` is live; the clone is ours.
        unsafe {
            let copy = Skb::from_raw(sys::skb_clone(self.as_ptr(), bindings::GFP_ATOMIC))?;
            sys::mml_skb_keep(copy.as_ptr());
            Some(copy)
        }
    }

    /// Writes on it when it was put aside, in nanoseconds of [`now_ns`](crate::sync::now_ns)'s clock.
    pub(crate) fn stamp(&mut self, now: u64) {
        // SAFETY: `skb` is live and ours to change.
        unsafe { sys::mml_skb_stamp(self.as_ptr(), now) };
    }

    /// What [`Self::stamp`] wrote.
    pub(crate) fn stamped(&self) -> u64 {
        // SAFETY: `skb` is live.
        unsafe { sys::mml_skb_stamped(self.as_ptr()) }
    }

    /// Takes that off: to a queue it would be the time to leave at.
    pub(crate) fn unstamp(&mut self) {
        // SAFETY: `skb` is live and ours to change.
        unsafe { sys::mml_skb_unstamp(self.as_ptr()) };
    }

    /// A copy that shares its octets.
    pub(crate) fn share(&self) -> Option<Skb> {
        // SAFETY: `skb` is live; the clone is ours.
        unsafe { Skb::from_raw(sys::skb_clone(self.as_ptr(), bindings::GFP_ATOMIC)) }
    }

    /// Octets that it takes in memory.
    #[inline]
    pub(crate) fn true_size(&self) -> u64 {
        self.raw().truesize.into()
    }

    /// The queue of the device it is routed to.
    #[inline]
    pub(crate) fn queue(&self, reader: &Reader) -> Queue {
        // SAFETY: `skb` is live and at a forward hook, or about to leave, so that it has its route.
        unsafe { Queue::of(sys::mml_skb_dst(self.as_ptr()), reader) }
    }

    /// Whether it has a route.
    pub(crate) fn has_route(&self) -> bool {
        // SAFETY: `skb` is live.
        unsafe { !sys::mml_skb_dst(self.as_ptr()).is_null() }
    }

    /// Whether the device it is routed to would send it.
    pub(crate) fn has_way(&self) -> bool {
        // SAFETY: As in `queue`.
        unsafe { sys::mml_dst_is_up(sys::mml_skb_dst(self.as_ptr())) }
    }

    /// Whether its route leads out through `device`.
    pub(crate) fn is_routed_to(&self, device: Device<'_>) -> bool {
        // SAFETY: As in `queue`.
        unsafe { sys::mml_dst_dev(sys::mml_skb_dst(self.as_ptr())) == device.as_ptr() }
    }

    /// Answers its sender with ICMP "fragmentation needed" for `mtu` octets, and tells its route.
    pub(crate) fn too_big(&mut self, mtu: usize) {
        // SAFETY: `skb` is live with its route and network header set, as a device's transmit gets it.
        unsafe {
            sys::mml_skb_update_pmtu(self.as_ptr(), mtu as u32);
            sys::mml_icmp_frag_needed(self.as_ptr(), mtu as u32);
        }
    }

    /// Answers its sender with ICMPv6 "packet too big" for `mtu` octets, and tells its route.
    pub(crate) fn too_big6(&mut self, mtu: usize) {
        // SAFETY: As in `too_big`.
        unsafe {
            sys::mml_skb_update_pmtu(self.as_ptr(), mtu as u32);
            sys::mml_icmp6_too_big(self.as_ptr(), mtu as u32);
        }
    }
}

/// An owned socket buffer; dropping it counts as a drop in the kernel's eyes.
///
/// # Invariants
///
/// The pointer is a live skb that is ours alone (its data may be shared).
pub(crate) struct Skb(NonNull<Buffer>);

// SAFETY: An owned skb may be freed anywhere.
unsafe impl Send for Skb {}

impl Skb {
    /// # Safety
    ///
    /// `skb` is live and its ownership passes here.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: *mut sk_buff) -> Option<Skb> {
        NonNull::new(skb.cast()).map(Skb)
    }

    /// Gives the ownership up.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut sk_buff {
        ManuallyDrop::new(self).as_ptr()
    }

    /// A new linear skb of `len` octets, not yet written, after `headroom` more.
    ///
    /// Its octets come from this CPU's pool of pages where they fit one: those go round from packet to packet, whereas the
    /// slab's would be zeroed for each (`init_on_alloc`, which distributions have on).
    #[inline]
    pub(crate) fn alloc(headroom: usize, len: usize, bh: &Bh) -> Option<Skb> {
        let (headroom, len) = (
            c_uint::try_from(headroom).ok()?,
            c_uint::try_from(len).ok()?,
        );
        let all = headroom.checked_add(len)?;
        // SAFETY: The skb has `all` octets of tail room, by either way.
        unsafe {
            let skb = match Self::from_pool(all, bh) {
                Some(skb) => skb,
                None => Self::from_raw(sys::mml_skb_alloc(all))?,
            };
            sys::mml_skb_reserve(skb.as_ptr(), headroom);
            sys::mml_skb_put(skb.as_ptr(), len);
            Some(skb)
        }
    }

    #[inline]
    fn from_pool(len: c_uint, bh: &Bh) -> Option<Skb> {
        // SAFETY: The pools live while the module's hooks do; a pool is used on its own CPU with bottom halves off. What it
        // gave is either built into the skb, which gives it back when freed, or given back here.
        unsafe {
            let mut size = sys::mml_skb_head_size(len);
            if size as usize > PAGE_SIZE {
                return None;
            }
            let pool = NonNull::new(POOLS.load(Ordering::Acquire))?
                .as_ref()
                .place(bh)?
                .0;
            let octets = sys::mml_pool_alloc(pool, &mut size);
            if octets.is_null() {
                return None;
            }
            let skb = Self::from_raw(sys::napi_build_skb(octets, size));
            match &skb {
                Some(skb) => sys::mml_skb_mark_for_recycle(skb.as_ptr()),
                None => sys::mml_pool_free(pool, octets),
            }
            skb
        }
    }

    /// The octets for writing, if they are linear and not shared.
    #[inline]
    pub(crate) fn linear_mut(&mut self) -> Option<Linear<'_>> {
        if !self.is_linear() || self.is_cloned() {
            return None;
        }
        let (data, len) = (self.raw().data, self.len());
        // SAFETY: The skb is ours, linear and not cloned, so nobody else sees these octets; an skb's head is linear memory.
        Some(unsafe { Linear::new(core::slice::from_raw_parts_mut(data, len)) })
    }

    /// A private, linear form of it: itself if it is so already.
    #[inline]
    pub(crate) fn into_private(self) -> Option<Skb> {
        if self.is_linear() && !self.is_cloned() {
            return Some(self);
        }
        // SAFETY: `skb` is live; the copy is ours, and `self` is consumed below.
        let copy = unsafe { Self::from_raw(sys::skb_copy(self.as_ptr(), bindings::GFP_ATOMIC)) };
        if copy.is_some() {
            self.consume();
        }
        copy
    }

    /// Cuts `front` octets off the front and keeps `len` of the rest. False, and nothing changed, if there are not as many.
    #[inline]
    pub(crate) fn cut(&mut self, front: usize, len: usize) -> bool {
        if !self.is_linear() || front.saturating_add(len) > self.len() {
            return false;
        }
        // SAFETY: The skb is ours and linear, and the range lies within its octets, so data and tail stay in the head.
        unsafe {
            let raw = &mut *self.as_ptr();
            raw.data = raw.data.add(front);
            raw.len = len as u32;
            raw.tail = (raw.data.offset_from(raw.head) as u32) + len as u32;
        }
        true
    }

    /// Puts octets in front of it. False, and nothing changed, if there is no room.
    pub(crate) fn prepend(&mut self, octets: &[u8]) -> bool {
        if !self.is_linear() || self.is_cloned() {
            return false;
        }
        // SAFETY: The skb is ours, linear and not cloned, so that what lies between its head and its data is nobody
        // else's; the range is within that.
        unsafe {
            let raw = &mut *self.as_ptr();
            if (raw.data.offset_from(raw.head) as usize) < octets.len() {
                return false;
            }
            raw.data = raw.data.sub(octets.len());
            raw.len += octets.len() as u32;
            core::ptr::copy_nonoverlapping(octets.as_ptr(), raw.data, octets.len());
        }
        true
    }

    /// Lets go of all that it holds alive, its sender's accounting too, to be put aside.
    pub(crate) fn let_go(&mut self) {
        // SAFETY: The skb is ours.
        unsafe {
            sys::mml_skb_orphan(self.as_ptr());
            sys::mml_skb_keep(self.as_ptr());
        }
    }

    /// Puts it back where it was put aside: on its way out by `device`, which lives until it is sent.
    pub(crate) fn return_to(&mut self, device: Device<'_>) {
        // SAFETY: The skb is ours, and by the caller the device outlives its stay here.
        unsafe { sys::mml_skb_set_dev(self.as_ptr(), device.as_ptr()) };
    }

    /// Frees it as used, not dropped.
    #[inline]
    pub(crate) fn consume(self) {
        // SAFETY: Ownership ends here.
        unsafe { sys::mml_skb_consume(self.into_raw()) };
    }

    /// Has it leave ahead of what has its way anyway.
    pub(crate) fn hurry(&mut self) {
        // SAFETY: The skb is ours to change.
        unsafe { sys::mml_skb_hurry(self.as_ptr()) };
    }

    /// With a head of its own: who shares its head may be in a queue yet, and each gets the header of its own link there.
    /// Itself if it shares none, or if there is no memory.
    pub(crate) fn apart(self) -> Skb {
        if !self.is_cloned() {
            return self;
        }
        // SAFETY: The skb is live, and what is made of it is ours.
        match unsafe { Skb::from_raw(sys::mml_skb_apart(self.as_ptr())) } {
            Some(apart) => {
                self.consume();
                apart
            }
            None => self,
        }
    }

    /// Lets go of the route it was given, and of the device it came by.
    pub(crate) fn let_go_of_route(&mut self) {
        // SAFETY: The skb is ours.
        unsafe {
            sys::mml_skb_dst_drop(self.as_ptr());
            sys::mml_skb_set_dev(self.as_ptr(), core::ptr::null_mut());
        }
    }

    /// Makes it an IP packet, with a header of `header` octets, on its way out along `route`, with the priority and mark of
    /// `from`.
    #[inline]
    pub(crate) fn set_outgoing(&mut self, from: &Buffer, family: u8, header: usize, route: Route) {
        let transport = header as u32;
        // SAFETY: Both are live; the route's reference passes to the skb.
        unsafe {
            if family == 4 {
                sys::mml_skb_outgoing(self.as_ptr(), from.as_ptr(), transport);
            } else {
                sys::mml_skb_outgoing6(self.as_ptr(), from.as_ptr(), transport);
            }
            sys::mml_skb_dst_set(self.as_ptr(), route.into_raw());
        }
    }

    /// Moves the sender's accounting from `from` to the last packet made of it, so that a socket's send queue stays
    /// what is really under way (as `skb_segment` does).
    #[inline]
    pub(crate) fn take_owner(&mut self, from: &mut Skb) {
        // SAFETY: Both are ours. The destructor, socket and true size are exchanged together, so that what was charged
        // to the socket is what will be given back.
        unsafe {
            let (to, from) = (&mut *self.as_ptr(), &mut *from.as_ptr());
            core::mem::swap(&mut to.sk, &mut from.sk);
            core::mem::swap(&mut to.truesize, &mut from.truesize);
            let a = &mut to.__bindgen_anon_3.__bindgen_anon_1.destructor;
            let b = &mut from.__bindgen_anon_3.__bindgen_anon_1.destructor;
            core::mem::swap(a, b);
        }
    }

    /// Whether a socket's write accounting hangs on it.
    #[inline]
    pub(crate) fn has_owner(&self) -> bool {
        // SAFETY: The skb is live; the union holds a destructor for any packet on a transmit path.
        unsafe {
            !self.raw().sk.is_null()
                && self
                    .raw()
                    .__bindgen_anon_3
                    .__bindgen_anon_1
                    .destructor
                    .is_some()
        }
    }

    /// Hands it to `device` as an IP packet that came in there, through GRO. `good`: its transport checksum is known to be.
    #[inline]
    pub(crate) fn deliver(self, device: Device<'_>, good: bool) {
        let len = self.len();
        let protocol = if mml_core::ip::version(self.linear()) == 6 {
            ETH_P_IPV6
        } else {
            ETH_P_IP
        };
        let skb = self.into_raw();
        // SAFETY: The skb's ownership passes to the stack; the device lives under RCU.
        unsafe {
            sys::mml_skb_incoming(skb, device.as_ptr(), protocol);
            if good {
                sys::mml_skb_checksum_good(skb);
            }
            sys::mml_dev_rx_add(device.as_ptr(), len as u32);
            sys::mml_dev_gro_receive(device.as_ptr(), skb);
        }
    }

    /// Segments a super-packet by the kernel's own code; calls `f` for each packet of the list.
    pub(crate) fn segment(self, mut f: impl FnMut(Skb)) -> bool {
        // SAFETY: `skb` is ours. On success the list is ours, and so is the original still.
        unsafe {
            let list = sys::mml_skb_gso_segment(self.as_ptr());
            if list.is_null() || sys::mml_is_err(list.cast()) {
                return false;
            }
            self.consume();
            let mut at = list;
            while !at.is_null() {
                let next = (*at).__bindgen_anon_1.__bindgen_anon_1.next;
                (*at).__bindgen_anon_1.__bindgen_anon_1.next = core::ptr::null_mut();
                if let Some(skb) = Skb::from_raw(at) {
                    f(skb);
                }
                at = next;
            }
        }
        true
    }
}

/// How full a device's queue is, in packets.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    len: c_uint,
    limit: c_uint,
}

impl Queue {
    /// That of a route's device.
    ///
    /// # Safety
    ///
    /// `route` is live.
    #[inline]
    pub(crate) unsafe fn of(route: *const sys::Dst, _reader: &Reader) -> Self {
        // SAFETY: By the promise; the reader keeps the device's queue.
        unsafe {
            Queue {
                len: sys::mml_dst_qlen(route),
                limit: sys::mml_dst_qlimit(route),
            }
        }
    }

    /// Whether it has that room.
    #[inline]
    pub(crate) fn has(self, room: Space) -> bool {
        match room {
            Space::Any => true,
            Space::Some => self.len < self.limit - self.limit / 8,
            Space::Short => self.len < (self.limit / 8).max(SHORT),
        }
    }

    /// Whether so many more packets, and one, would fit.
    #[inline]
    pub(crate) fn takes(self, more: usize) -> bool {
        more < self.limit.saturating_sub(self.len) as usize
    }
}

/// Packets of a short queue.
const SHORT: c_uint = 4;

/// The room that a queue is to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// Whatever there is.
    Any,
    /// Less than seven eighths of it are taken.
    Some,
    /// It is as short as keeps the link busy: less than an eighth of it is taken, or less than four packets. What can wait
    /// elsewhere does, so that others' packets, and Mobile IP's answers first of all, don't wait behind it.
    Short,
}

/// A list of owned packets, in the order they were put in.
pub(crate) struct List {
    first: Option<Skb>,
    last: *mut sk_buff,
}

// SAFETY: Its packets are owned, and may be freed anywhere; `last` is one of them.
unsafe impl Send for List {}

impl List {
    /// An empty one.
    #[inline]
    pub(crate) const fn new() -> Self {
        List {
            first: None,
            last: core::ptr::null_mut(),
        }
    }

    /// Whether there is none in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Puts a packet at its end.
    pub(crate) fn push(&mut self, skb: Skb) {
        // SAFETY: The packets are ours, and on no other list. `last` is the last of ours if there is a first.
        unsafe {
            (*skb.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.next = core::ptr::null_mut();
            let raw = skb.as_ptr();
            if self.first.is_some() {
                (*self.last).__bindgen_anon_1.__bindgen_anon_1.next = skb.into_raw();
            } else {
                self.first = Some(skb);
            }
            self.last = raw;
        }
    }

    /// Puts a packet in front of all.
    pub(crate) fn push_front(&mut self, skb: Skb) {
        // SAFETY: The packets are ours, and this one on no other list.
        unsafe {
            let raw = skb.as_ptr();
            let next = match self.first.take() {
                Some(first) => first.into_raw(),
                None => {
                    self.last = raw;
                    core::ptr::null_mut()
                }
            };
            (*raw).__bindgen_anon_1.__bindgen_anon_1.next = next;
        }
        self.first = Some(skb);
    }

    /// The first packet.
    #[inline]
    pub(crate) fn first(&self) -> Option<&Skb> {
        self.first.as_ref()
    }

    /// Takes the first packet out.
    pub(crate) fn pop(&mut self) -> Option<Skb> {
        let first = self.first.take()?;
        // SAFETY: The packet is ours, and so are those behind it.
        unsafe {
            let links = &mut (*first.as_ptr()).__bindgen_anon_1.__bindgen_anon_1;
            self.first = Skb::from_raw(links.next);
            links.next = core::ptr::null_mut();
        }
        Some(first)
    }

    /// Gives the packets to `f`, first come first.
    #[inline]
    pub(crate) fn for_each(mut self, mut f: impl FnMut(Skb)) {
        while let Some(skb) = self.pop() {
            f(skb);
        }
    }
}

impl Drop for List {
    #[inline]
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl Deref for Skb {
    type Target = Buffer;

    #[inline]
    fn deref(&self) -> &Buffer {
        // SAFETY: By the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Skb {
    #[inline]
    fn deref_mut(&mut self) -> &mut Buffer {
        // SAFETY: By the type's invariant.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Skb {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type's invariant; ownership ends here.
        unsafe { sys::mml_skb_drop(self.as_ptr()) };
    }
}
