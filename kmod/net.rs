// SPDX-License-Identifier: GPL-2.0-only

//! Wrappers: devices, routes, and the functions that `shim.c`'s tables name.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::alloc::{flags::*, KBox};
use kernel::bindings::{self, net_device, sk_buff};
use kernel::ffi::{c_int, c_uint, c_void};
use kernel::prelude::*;

use crate::ends::{Outer, Path};
use crate::namespace::Namespace;
use crate::skb::{Buffer, Queue, Skb, Space};
use crate::sync::{Bh, PerCpu, Reader};
use crate::{hooks, receive, send, sys};

/// A network device, alive for `'a` (under RCU or the RTNL).
#[derive(Clone, Copy)]
pub(crate) struct Device<'a>(NonNull<net_device>, PhantomData<&'a net_device>);

impl<'a> Device<'a> {
    /// # Safety
    ///
    /// `device`, if not null, lives for `'a`.
    pub(crate) unsafe fn from_raw(device: *mut net_device) -> Option<Self> {
        NonNull::new(device).map(|device| Device(device, PhantomData))
    }

    /// The pointer itself.
    pub(crate) fn as_ptr(self) -> *mut net_device {
        self.0.as_ptr()
    }

    /// Whether it is the loopback device: what goes there leaves on no link.
    pub(crate) fn is_loopback(self) -> bool {
        // SAFETY: It lives.
        unsafe { sys::mml_dev_is_loopback(self.as_ptr()) }
    }

    /// Counts packets sent.
    pub(crate) fn count_sent(self, packets: usize, octets: usize) {
        // SAFETY: It lives, and is ours, so that its per-CPU statistics exist.
        unsafe { sys::mml_dev_tx_add(self.as_ptr(), packets as u32, octets as u32) };
    }

    /// Counts a packet dropped on its way out.
    pub(crate) fn count_dropped(self) {
        // SAFETY: It lives.
        unsafe { sys::mml_dev_tx_dropped(self.as_ptr()) };
    }
}

/// A place for the one device of a namespace.
pub(crate) struct DevicePlace(AtomicPtr<net_device>);

impl DevicePlace {
    /// Nothing there.
    pub(crate) const fn new() -> Self {
        DevicePlace(AtomicPtr::new(ptr::null_mut()))
    }

    /// The device, for as long as the reader is: it is taken out before it is unregistered, and that waits for readers.
    #[inline]
    pub(crate) fn get<'g>(&self, _reader: &'g Reader) -> Option<Device<'g>> {
        // SAFETY: See above.
        unsafe { Device::from_raw(self.0.load(Ordering::Acquire)) }
    }

    /// Whether `device` is the one here.
    #[inline]
    pub(crate) fn is(&self, device: Option<Device<'_>>) -> bool {
        device.is_some_and(|d| d.as_ptr() == self.0.load(Ordering::Relaxed))
    }
}

/// The namespace that something of it points back to.
pub(crate) struct NetPointer(*mut bindings::net);

// SAFETY: It is a name; whoever follows it promises that the namespace lives.
unsafe impl Send for NetPointer {}
// SAFETY: As above.
unsafe impl Sync for NetPointer {}

impl NetPointer {
    /// To `net`.
    pub(crate) const fn new(net: *mut bindings::net) -> Self {
        NetPointer(net)
    }

    /// The `struct net`.
    #[inline]
    pub(crate) fn get(&self) -> *mut bindings::net {
        self.0
    }
}

/// What ties something that outlives a call, like a timer, to its namespace, until it is cut.
///
/// # Invariants
///
/// Null once cut. A namespace that ends cuts every tether to it and waits a grace period before it goes
/// ([`Namespace::close`]), so that who finds one uncut with bottom halves off has the namespace until they are on again.
pub(crate) struct Tether(*mut bindings::net);

// SAFETY: It is followed under a lock, and only while its namespace lives.
unsafe impl Send for Tether {}

impl Tether {
    /// To `ns`.
    pub(crate) fn to(ns: &Namespace) -> Self {
        Tether(ns.net())
    }

    /// Cuts it.
    pub(crate) fn cut(&mut self) {
        self.0 = ptr::null_mut();
    }

    /// Whether it was cut.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.0.is_null()
    }

    /// The namespace, if it isn't cut.
    pub(crate) fn namespace<'g>(&self, _bh: &'g Bh) -> Option<&'g Namespace> {
        if self.is_cut() {
            return None;
        }
        // SAFETY: By the type's invariant; bottom halves off are an RCU read-side critical section.
        unsafe { of_net(self.0) }
    }
}

/// A route's reference.
pub(crate) struct Route(NonNull<sys::Dst>);

impl Route {
    /// Gives the reference up.
    pub(crate) fn into_raw(self) -> *mut sys::Dst {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Whether it leads out through `device`.
    #[inline]
    pub(crate) fn is_through(&self, device: Device<'_>) -> bool {
        // SAFETY: The route is live.
        unsafe { sys::mml_dst_dev(self.0.as_ptr()) == device.as_ptr() }
    }

    /// Whether its device would send: one that goes down drops what it is given a moment before its routes go, and one without a
    /// carrier keeps them; one that has it again drops until its queue is active.
    #[inline]
    pub(crate) fn is_up(&self) -> bool {
        // SAFETY: The route is live.
        unsafe { sys::mml_dst_is_up(self.0.as_ptr()) }
    }

    /// Its device's queue.
    #[inline]
    pub(crate) fn queue(&self, reader: &Reader) -> Queue {
        // SAFETY: The route is live.
        unsafe { Queue::of(self.0.as_ptr(), reader) }
    }

    /// Octets that the path carries.
    #[inline]
    pub(crate) fn mtu(&self) -> usize {
        // SAFETY: The route is live.
        unsafe { sys::mml_dst_mtu(self.0.as_ptr()) as usize }
    }

    /// Octets that its device wants in front of the IP header.
    #[inline]
    pub(crate) fn headroom(&self) -> usize {
        // SAFETY: The route is live.
        unsafe { sys::mml_dst_headroom(self.0.as_ptr()) as usize }
    }

    /// The hop limit to start with, on a route of this family.
    #[inline]
    pub(crate) fn ttl(&self, family: u8) -> u8 {
        // SAFETY: The route is live, and the caller's CSA has it from its own family's table.
        unsafe {
            if family == 4 {
                sys::mml_dst_ttl(self.0.as_ptr()) as u8
            } else {
                sys::ip6_dst_hoplimit(self.0.as_ptr()) as u8
            }
        }
    }
}

impl Clone for Route {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: The route is live, and the new reference is the clone's.
        unsafe { sys::mml_dst_hold(self.0.as_ptr()) };
        Route(self.0)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { sys::mml_dst_release(self.0.as_ptr()) };
    }
}

/// A CSA's route, remembered per CPU until it changes (`struct dst_cache`).
pub(crate) struct DstCache(UnsafeCell<sys::RawDstCache>);

// SAFETY: A dst_cache is per CPU inside and used with bottom halves off.
unsafe impl Sync for DstCache {}
// SAFETY: As above.
unsafe impl Send for DstCache {}

impl DstCache {
    /// What is no cache yet.
    const NONE: sys::RawDstCache = sys::RawDstCache {
        cache: ptr::null_mut(),
        reset_ts: 0,
    };

    /// One for who sends nothing: it remembers no route, and takes no memory of each CPU, which would be thousands of octets
    /// a CSA on a large machine.
    pub(crate) const fn none() -> Self {
        DstCache(UnsafeCell::new(Self::NONE))
    }

    /// An empty one. Sleeps.
    pub(crate) fn new() -> Result<Self> {
        let mut cache = Self::NONE;
        // SAFETY: The structure is valid and moves freely: it holds a per-CPU pointer and a time.
        kernel::error::to_result(unsafe { sys::dst_cache_init(&mut cache, bindings::GFP_KERNEL) })?;
        Ok(DstCache(UnsafeCell::new(cache)))
    }

    /// The route between a CSA's ends, from the cache or the routing table.
    #[inline]
    pub(crate) fn route(&self, ns: &Namespace, path: &Path, mark: u32, _bh: &Bh) -> Option<Route> {
        let outer = &path.outer;
        if outer.family != 4 {
            return self.route6(ns, path, mark);
        }
        let mut source = 0u32;
        // SAFETY: The cache is initialised and bottom halves are off; the reference becomes ours.
        let cached = unsafe { sys::dst_cache_get_ip4(self.0.get(), &mut source) };
        if let Some(route) = NonNull::new(cached) {
            return Some(Route(route));
        }
        let word = |address: &[u8; 16]| {
            let [a, b, c, d, ..] = *address;
            u32::from_ne_bytes([a, b, c, d])
        };
        let (src, dst) = (word(&outer.src), word(&outer.dst));
        let (from, to) = path.ports();
        // SAFETY: The namespace lives while `ns` does; both calls as above.
        unsafe {
            let protocol = path.protocol();
            let route = sys::mml_route(ns.net(), src, dst, protocol, mark, from, to);
            if route.is_null() || sys::mml_is_err(route.cast()) {
                return None;
            }
            sys::dst_cache_set_ip4(self.0.get(), route, src);
            NonNull::new(route).map(Route)
        }
    }

    #[inline(never)]
    fn route6(&self, ns: &Namespace, path: &Path, mark: u32) -> Option<Route> {
        let outer = &path.outer;
        let (from, to) = path.ports();
        let mut source = [0u8; 16];
        // SAFETY: As in `route`; an address is 16 octets.
        unsafe {
            let cached = sys::dst_cache_get_ip6(self.0.get(), &mut source);
            if let Some(route) = NonNull::new(cached) {
                return Some(Route(route));
            }
            let (src, dst, protocol) = (&outer.src, &outer.dst, path.protocol());
            let route = sys::mml_route6(ns.net(), src, dst, protocol, mark, from, to);
            if route.is_null() || sys::mml_is_err(route.cast()) {
                return None;
            }
            sys::dst_cache_set_ip6(self.0.get(), route, &outer.src);
            NonNull::new(route).map(Route)
        }
    }

    /// Forgets the route on every CPU.
    pub(crate) fn reset(&self) {
        // SAFETY: The cache is initialised; this only stores a time.
        unsafe { sys::mml_dst_cache_reset(self.0.get()) };
    }
}

impl Drop for DstCache {
    fn drop(&mut self) {
        // SAFETY: The cache is ours, and nobody uses it any more. One without memory is left alone.
        unsafe { sys::dst_cache_destroy(self.0.get()) };
    }
}

/// The packet that this CPU is just handing to the stack, sealed: what the guard lets pass.
static SEALED: AtomicPtr<PerCpu<Cell<usize>>> = AtomicPtr::new(ptr::null_mut());

fn sealed(bh: &Bh) -> Option<&Cell<usize>> {
    let places = NonNull::new(SEALED.load(Ordering::Acquire))?;
    // SAFETY: The places live while the module's hooks do; a `Cell` is only read and written, on its own CPU, so that
    // shared references to it are sound though calls nest.
    unsafe { places.as_ref().place(bh).map(|cell| &*cell) }
}

/// Sends a packet that went this way before once more, by the route there is now. `ports`: its TCP ports, if that is what
/// it is. No guard sees it: what is kept is what the guard let pass, and goes when a policy comes.
pub(crate) fn send_again(net: *mut bindings::net, skb: Skb, ports: Option<(u16, u16)>) {
    if let Ok(skb) = routed_again(net, skb, ports) {
        leave(net, skb);
    }
}

/// What becomes of a packet of ESP that waited for room.
pub(crate) enum Found {
    /// It has its route.
    Open(Skb),
    /// It has its route, whose queue hasn't the room.
    Full(Skb),
    /// There is no route, or one by which nothing leaves.
    None(Skb),
}

/// By which way a packet leaves that was held.
#[derive(Clone, Copy)]
pub(crate) enum Onward {
    /// It is forwarded, by the way that leads on from where it came by: what is for a host whose registration is on its way has
    /// no other.
    On,
    /// It was forwarded, and leaves as this node's own.
    Again,
    /// It was sealed here, and leaves as what is sealed now does.
    Own,
}

/// Finds the way there is now, with that room in its queue.
pub(crate) fn find_way(
    ns: &Namespace,
    skb: Skb,
    onward: Onward,
    room: Space,
    reader: &Reader,
) -> Found {
    let routed = match onward {
        Onward::On if mml_core::ip::version(skb.linear()) == 4 => routed_on(ns.net(), skb, reader),
        Onward::On | Onward::Again => routed_again(ns.net(), skb, None),
        Onward::Own => routed_own(ns, skb, reader),
    };
    match routed {
        // Its device's queue would be empty, and drop what it is given.
        Ok(mut skb) if !skb.has_way() => {
            skb.let_go_of_route();
            Found::None(skb)
        }
        Ok(skb) if skb.queue(reader).has(room) => Found::Open(skb),
        Ok(mut skb) => {
            skb.let_go_of_route();
            Found::Full(skb)
        }
        Err(skb) => Found::None(skb),
    }
}

/// Gives a packet of IPv4 that came by a device the route that leads on from there, as long as the reader lives. Gives it back
/// if there is none.
fn routed_on(net: *mut bindings::net, mut skb: Skb, _reader: &Reader) -> Result<Skb, Skb> {
    // SAFETY: The namespace lives; the reader keeps the device and the route, which the packet doesn't hold; it starts at its
    // IP header and is ours.
    let routed = unsafe {
        let device = sys::mml_skb_came_by(net, skb.as_ptr());
        sys::mml_skb_set_dev(skb.as_ptr(), device);
        !device.is_null() && sys::mml_route_on(skb.as_ptr(), device)
    };
    if routed {
        return Ok(skb);
    }
    skb.let_go_of_route();
    Err(skb)
}

/// Sends a packet that has found its way, as [`send_again`] does.
pub(crate) fn leave(net: *mut bindings::net, skb: Skb) {
    // SAFETY: The namespace lives; the packet has its route, and is ours until it is sent.
    unsafe { sys::mml_dst_output(net, skb.into_raw()) };
}

/// Gives a packet the route there is now. Gives it back if there is none.
fn routed_again(net: *mut bindings::net, skb: Skb, ports: Option<(u16, u16)>) -> Result<Skb, Skb> {
    let (protocol, (from, to)) = match ports {
        Some(ports) => (6, ports),
        None => (mml_core::ip::ESP, (0, 0)),
    };
    let v6 = mml_core::ip::version(skb.linear()) == 6;
    let again = if v6 {
        sys::mml_route_again6
    } else {
        sys::mml_route_again
    };
    // SAFETY: The namespace lives; the packet starts at its IP header and is ours, and so is the route's reference.
    unsafe {
        let route = again(net, skb.as_ptr(), protocol, from.to_be(), to.to_be());
        routed(skb, route)
    }
}

/// Gives a datagram of IPv4 that let go of its route the one there is now, if there is one.
pub(crate) fn return_route(ns: &Namespace, skb: &mut Skb, protocol: u8) {
    if skb.has_route() {
        return;
    }
    // SAFETY: As in `routed_again`; a reference that is found passes to the packet.
    unsafe {
        let route = sys::mml_route_again(ns.net(), skb.as_ptr(), protocol, 0, 0);
        if !route.is_null() && !sys::mml_is_err(route.cast()) {
            sys::mml_skb_dst_set(skb.as_ptr(), route);
        }
    }
}

/// Gives a packet that this node sealed the route that such have now (docs/wire.md 2.1m). Its source may be an address that this
/// node had. Gives it back if there is none, or if that leads back to where it was sealed.
fn routed_own(ns: &Namespace, skb: Skb, reader: &Reader) -> Result<Skb, Skb> {
    let Some(of) = mml_core::ip::addresses(skb.linear()) else {
        return Err(skb);
    };
    // As they stand there; what isn't in UDP has none.
    let ports = skb.octets::<4>(of.header_len);
    let [s0, s1, d0, d1] = ports
        .filter(|_| of.protocol == mml_core::ip::UDP)
        .unwrap_or([0; 4]);
    let (from, to) = (u16::from_ne_bytes([s0, s1]), u16::from_ne_bytes([d0, d1]));
    let mark = ns.settings.mark.load(Ordering::Relaxed);
    let own = if of.family == 6 {
        sys::mml_route_own6
    } else {
        sys::mml_route_own
    };
    // SAFETY: As in `routed_again`.
    let mut skb = unsafe {
        let route = own(ns.net(), skb.as_ptr(), of.protocol, mark, from, to);
        routed(skb, route)?
    };
    if ns
        .device
        .get(reader)
        .is_some_and(|device| skb.is_routed_to(device))
    {
        skb.let_go_of_route();
        return Err(skb);
    }
    Ok(skb)
}

/// Gives a packet the route that was found, if one was.
///
/// # Safety
///
/// `route` is null, an error, or a reference that passes here.
unsafe fn routed(skb: Skb, route: *mut sys::Dst) -> Result<Skb, Skb> {
    // SAFETY: By the promise; the packet is ours.
    unsafe {
        if route.is_null() || sys::mml_is_err(route.cast()) {
            return Err(skb);
        }
        sys::mml_skb_dst_set(skb.as_ptr(), route);
    }
    Ok(skb)
}

/// Sends a sealed packet on its own route.
#[inline]
pub(crate) fn local_out(ns: &Namespace, skb: Skb, outer: &Outer, bh: &Bh) {
    let raw = skb.into_raw();
    let before = sealed(bh).map(|cell| cell.replace(raw as usize));
    // SAFETY: The packet has its route and headers; its ownership passes to the stack.
    unsafe {
        if outer.family == 4 {
            sys::ip_local_out(ns.net(), ptr::null_mut(), raw);
        } else {
            sys::ip6_local_out(ns.net(), ptr::null_mut(), raw);
        }
    }
    if let (Some(cell), Some(before)) = (sealed(bh), before) {
        cell.set(before);
    }
}

/// Whether the guard has before it what [`local_out`] is sending. Says so once: the address may be another packet's next.
fn is_sealed(skb: *mut sk_buff) -> bool {
    let bh = Bh::off();
    sealed(&bh).is_some_and(|cell| cell.get() == skb as usize && cell.replace(0) != 0)
}

/// Where a packet is when a hook sees it (`enum nf_inet_hooks`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// What is delivered here passes it, too: no hook at LOCAL_IN is needed.
    PreRouting,
    Forward,
    LocalOut,
}

/// What a hook knows of a packet's way.
pub(crate) struct Way<'a> {
    pub place: Place,
    pub from: Option<Device<'a>>,
    pub to: Option<Device<'a>>,
    /// This module sealed it, just now.
    pub sealed: bool,
}

/// The devices that a forwarded packet comes in by and goes out by.
pub(crate) struct Between<'a> {
    from: Option<Device<'a>>,
    to: Option<Device<'a>>,
}

impl Between<'_> {
    /// Their indices, 0 for none.
    #[inline]
    pub(crate) fn indices(&self) -> (u32, u32) {
        // SAFETY: They live while the hook runs.
        let index = |device: Option<Device<'_>>| {
            device.map_or(0, |device| unsafe { sys::mml_dev_index(device.as_ptr()) })
        };
        (index(self.from), index(self.to))
    }
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    Drop,
    Accept,
}

/// RFC 4443 §3.2, RFC 4861 §4.5.
const ICMPV6_PKT_TOOBIG: u8 = 2;
const NDISC_REDIRECT: u8 = 137;

const NF_DROP: c_uint = 0;
const NF_ACCEPT: c_uint = 1;

impl Disposition {
    fn verdict(self) -> c_uint {
        match self {
            Disposition::Drop => NF_DROP,
            Disposition::Accept => NF_ACCEPT,
        }
    }
}

/// # Safety
///
/// `state` is a hook's, as netfilter gives it.
unsafe fn way<'a>(state: *const sys::HookState, skb: *mut sk_buff) -> Way<'a> {
    // SAFETY: By the promise; the devices live while the hook runs.
    unsafe {
        let place = match sys::mml_state_hook(state) {
            0 => Place::PreRouting,
            2 => Place::Forward,
            _ => Place::LocalOut,
        };
        let sealed = place == Place::LocalOut && is_sealed(skb);
        Way {
            place,
            from: Device::from_raw(sys::mml_state_in(state)),
            to: Device::from_raw(sys::mml_state_out(state)),
            sealed,
        }
    }
}

/// # Safety
///
/// `ns` is a namespace's slot, as `mml_net_ns` gives it, and the namespace lives for `'a`.
unsafe fn namespace<'a>(ns: *mut c_void) -> Option<&'a Namespace> {
    // SAFETY: By the promise; the slot holds what `mml_rs_net_init` put there, or null.
    NonNull::new(ns.cast::<Namespace>()).map(|ns| unsafe { &*ns.as_ptr() })
}

/// The namespace of a `struct net`.
///
/// # Safety
///
/// `net` lives for `'a`.
pub(crate) unsafe fn of_net<'a>(net: *const bindings::net) -> Option<&'a Namespace> {
    // SAFETY: By the promise.
    unsafe { namespace(sys::mml_net_ns(net)) }
}

/// [`of_net`] on the packet path.
///
/// # Safety
///
/// As there, within an RCU read-side critical section.
#[inline]
unsafe fn of_net_rcu<'a>(net: *const bindings::net) -> Option<&'a Namespace> {
    // SAFETY: By the promise.
    unsafe { namespace(sys::mml_net_ns_rcu(net)) }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_guard(
    _priv: *mut c_void,
    skb: *mut sk_buff,
    state: *const sys::HookState,
) -> c_uint {
    // SAFETY: Netfilter gives a live packet and state, under RCU; the namespace lives while its hooks do.
    unsafe {
        let Some(ns) = of_net_rcu(sys::mml_state_net(state)) else {
            return NF_ACCEPT;
        };
        let way = way(state, skb);
        Reader::known(|reader| hooks::guard(ns, Buffer::from_raw(skb), &way, reader)).verdict()
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_relay(
    _priv: *mut c_void,
    skb: *mut sk_buff,
    state: *const sys::HookState,
) -> c_uint {
    // SAFETY: As in `mml_rs_guard`.
    unsafe {
        let Some(ns) = of_net_rcu(sys::mml_state_net(state)) else {
            return NF_ACCEPT;
        };
        let between = Between {
            from: Device::from_raw(sys::mml_state_in(state)),
            to: Device::from_raw(sys::mml_state_out(state)),
        };
        // IP receives and so forwards with bottom halves off.
        let disposition = Reader::known(|reader| {
            Bh::known_off(|bh| {
                crate::relay::forward(ns, Buffer::from_raw(skb), &between, bh, reader)
            })
        });
        disposition.verdict()
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_xmit(skb: *mut sk_buff, dev: *mut net_device) -> c_int {
    // SAFETY: A device's transmit owns the packet, under RCU, with bottom halves off; the namespace outlives its devices.
    unsafe {
        if let (Some(skb), Some(device)) = (Skb::from_raw(skb), Device::from_raw(dev)) {
            if let Some(ns) = of_net_rcu(sys::mml_dev_net(dev)) {
                Reader::known(|reader| {
                    Bh::known_off(|bh| send::transmit(ns, device, skb, bh, reader))
                });
            }
        }
    }
    0 // NETDEV_TX_OK: the packet is ours, whatever became of it.
}

#[no_mangle]
unsafe extern "C" fn mml_rs_esp_rcv(skb: *mut sk_buff) -> c_int {
    // SAFETY: A protocol handler runs in softirq under RCU and gets a live packet, whose device and so namespace live; it
    // is ours if we take it.
    unsafe {
        let Some(ns) = receiving_namespace(skb) else {
            return EINVAL.to_errno();
        };
        Reader::known(|reader| {
            let Some(csa) = receive::find(ns, Buffer::from_raw(skb), reader) else {
                return EINVAL.to_errno();
            };
            if let Some(skb) = Skb::from_raw(skb) {
                Bh::known_off(|bh| receive::deliver(ns, csa, skb, bh, reader));
            }
            0
        })
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_esp_encap_rcv(skb: *mut sk_buff) -> c_int {
    // SAFETY: As in `mml_rs_esp_rcv`: the socket that took the UDP header off leaves the rest as it is there.
    unsafe { mml_rs_esp_rcv(skb) }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_esp_err(skb: *mut sk_buff, info: u32) -> c_int {
    // SAFETY: As in `mml_rs_esp_rcv`; the packet stays the caller's.
    unsafe {
        let Some(ns) = receiving_namespace(skb) else {
            return ENOENT.to_errno();
        };
        Reader::known(|reader| {
            let Some(csa) = receive::find_origin(ns, Buffer::from_raw(skb), None, reader) else {
                return ENOENT.to_errno();
            };
            // ICMP_DEST_UNREACH / ICMP_FRAG_NEEDED, ICMP_REDIRECT (RFC 792).
            match (sys::mml_icmp_type(skb), sys::mml_icmp_code(skb)) {
                (3, 4) => {
                    sys::mml_update_pmtu(skb, ns.net(), info);
                    csa.route.reset();
                }
                (5, _) => sys::mml_redirect(skb, ns.net()),
                _ => {}
            }
            0
        })
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_esp6_err(
    skb: *mut sk_buff,
    kind: u8,
    offset: c_int,
    info: u32,
) -> c_int {
    // SAFETY: As in `mml_rs_esp_err`.
    unsafe {
        let Some(ns) = receiving_namespace(skb) else {
            return ENOENT.to_errno();
        };
        let at = usize::try_from(offset).ok();
        Reader::known(|reader| {
            let Some(csa) = receive::find_origin(ns, Buffer::from_raw(skb), at, reader) else {
                return ENOENT.to_errno();
            };
            match kind {
                ICMPV6_PKT_TOOBIG => {
                    let mark = ns.settings.mark.load(Ordering::Relaxed);
                    sys::mml_update_pmtu6(skb, ns.net(), info, mark);
                    csa.route.reset();
                }
                NDISC_REDIRECT => sys::mml_redirect6(skb, ns.net()),
                _ => {}
            }
            0
        })
    }
}

/// # Safety
///
/// `skb` is a live packet that came in on a device, which lives for `'a`.
unsafe fn receiving_namespace<'a>(skb: *mut sk_buff) -> Option<&'a Namespace> {
    // SAFETY: By the promise, `dev` is the union's member in use.
    unsafe {
        let dev = (*skb)
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_1
            .dev;
        if dev.is_null() {
            None
        } else {
            of_net_rcu(sys::mml_dev_net(dev))
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_newlink(
    dev: *mut net_device,
    ns: *mut c_void,
    extack: *mut sys::ExtAck,
) -> c_int {
    // SAFETY: Called under the RTNL with a set-up device that is not registered yet; the namespace lives.
    unsafe {
        let Some(ns) = namespace(ns) else {
            return ENODEV.to_errno();
        };
        if !ns.device.0.load(Ordering::Relaxed).is_null() {
            if !extack.is_null() {
                (*extack)._msg =
                    c"this network namespace has a device of kind mml already; one is enough"
                        .as_ptr()
                        .cast();
            }
            return EEXIST.to_errno();
        }
        let error = sys::mml_dev_register(dev);
        // Only now has it its statistics and its place for GRO. The RTNL keeps a second one out meanwhile.
        if error == 0 {
            ns.device.0.store(dev, Ordering::Release);
        }
        error
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_dellink(dev: *mut net_device, ns: *mut c_void) {
    // SAFETY: Called under the RTNL; the namespace lives.
    if let Some(ns) = unsafe { namespace(ns) } {
        let _ =
            ns.device
                .0
                .compare_exchange(dev, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_interface_gone(ns: *mut c_void, index: c_int) {
    // SAFETY: Called under the RTNL for a device of the namespace, which lives.
    if let Some(ns) = unsafe { namespace(ns) } {
        ns.snoop.flush_interface(index as u32);
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_net_init(net: *mut bindings::net, slot: *mut *mut c_void) -> c_int {
    match KBox::pin_init(Namespace::new(net), GFP_KERNEL) {
        // SAFETY: `slot` is the namespace's own; the value stays where it is until `mml_rs_net_exit`, so it stays pinned.
        Ok(ns) => unsafe {
            *slot = KBox::into_raw(Pin::into_inner_unchecked(ns)).cast();
            0
        },
        Err(e) => e.to_errno(),
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_net_pre_exit(ns: *mut c_void) {
    // SAFETY: The slot's value lives until `mml_rs_net_exit`. Readers are waited for between the two.
    if let Some(ns) = unsafe { namespace(ns) } {
        ns.close();
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_net_exit(ns: *mut c_void) {
    if let Some(ns) = NonNull::new(ns.cast::<Namespace>()) {
        // SAFETY: It came out of a pinned `KBox`; hooks and devices are gone, and the grace period after them has passed.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw(ns.as_ptr())) });
    }
}

/// Makes every route that is remembered stale, a flowtable's too: what it forwards comes by the guard again.
pub(crate) fn expire_routes(ns: &Namespace) {
    // SAFETY: The namespace lives; this only increments its generation.
    unsafe { sys::mml_routes_expire(ns.net()) };
}

/// Netfilter hooks of one kind in one namespace, registered while they have work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooks {
    Guard,
    Relay,
}

impl Hooks {
    /// Registers them. Sleeps.
    pub(crate) fn register(self, ns: &Namespace) -> Result {
        // SAFETY: The namespace lives; the caller (namespace.rs) registers each once.
        kernel::error::to_result(unsafe {
            match self {
                Hooks::Guard => sys::mml_guard_register(ns.net()),
                Hooks::Relay => sys::mml_relay_register(ns.net()),
            }
        })
    }

    /// Unregisters them and waits until none runs. Sleeps.
    pub(crate) fn unregister(self, ns: &Namespace) {
        // SAFETY: As above; the caller unregisters what it registered.
        unsafe {
            match self {
                Hooks::Guard => sys::mml_guard_unregister(ns.net()),
                Hooks::Relay => sys::mml_relay_unregister(ns.net()),
            }
        }
    }
}

/// What the module registers with the kernel; undone in reverse order when dropped.
pub(crate) struct Registrations(usize);

type Step = (unsafe extern "C" fn() -> c_int, unsafe fn());

unsafe fn esp_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_esp_unregister() };
}
unsafe fn esp6_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_esp6_unregister() };
}
unsafe fn pernet_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_pernet_unregister() };
}
unsafe fn notifier_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_notifier_unregister() };
}
unsafe fn link_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_link_unregister() };
}
unsafe fn genl_unregister() {
    // SAFETY: It was registered.
    unsafe { sys::mml_genl_unregister() };
}

/// Namespaces first, for all others use them; messages last in and first out, so that nothing is added meanwhile.
const STEPS: [Step; 6] = [
    (sys::mml_pernet_register, pernet_unregister),
    (sys::mml_notifier_register, notifier_unregister),
    (sys::mml_link_register, link_unregister),
    (sys::mml_esp_register, esp_unregister),
    (sys::mml_esp6_register, esp6_unregister),
    (sys::mml_genl_register, genl_unregister),
];

impl Registrations {
    /// Registers all, or nothing.
    pub(crate) fn new() -> Result<Self> {
        let places = PerCpu::new(|| Ok(KBox::new(Cell::new(0), GFP_KERNEL)?))?;
        SEALED.store(
            KBox::into_raw(KBox::new(places, GFP_KERNEL)?),
            Ordering::Release,
        );
        let mut done = Registrations(0);
        for (register, _) in STEPS {
            // SAFETY: Each is registered once.
            kernel::error::to_result(unsafe { register() })?;
            done.0 += 1;
        }
        Ok(done)
    }
}

impl Drop for Registrations {
    fn drop(&mut self) {
        for (_, unregister) in STEPS.iter().take(self.0).rev() {
            // SAFETY: The first `self.0` were registered.
            unsafe { unregister() };
        }
        if let Some(places) = NonNull::new(SEALED.swap(ptr::null_mut(), Ordering::AcqRel)) {
            // SAFETY: It came out of a `KBox` in `new`, and no hook or device is left to use it.
            drop(unsafe { KBox::from_raw(places.as_ptr()) });
        }
    }
}
