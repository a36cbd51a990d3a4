// SPDX-License-Identifier: GPL-2.0-only

//! Declarations of what the module calls in C: `shim.c`, and exported kernel functions that `kernel::bindings` lacks.
//!
//! Only the wrapper files (`skb.rs`, `crypto.rs`, `net.rs`, `sync.rs`) use it.

use kernel::bindings::{
    gfp_t, hrtimer, net, net_device, netlink_ext_ack, nlattr, rcu_work, scatterlist, sk_buff,
    work_struct, workqueue_struct,
};
use kernel::ffi::{c_char, c_int, c_uint, c_void};

/// `struct dst_entry`, opaque. A `struct rtable` begins with one (`shim.c` asserts it), and passes as one.
#[repr(C)]
pub(crate) struct Dst([u8; 0]);
/// `struct crypto_aead`, opaque.
#[repr(C)]
pub(crate) struct CryptoAead([u8; 0]);
/// `struct aead_request`, opaque.
#[repr(C)]
pub(crate) struct AeadRequest([u8; 0]);
/// `struct page_pool`, opaque.
#[repr(C)]
pub(crate) struct PagePool([u8; 0]);
/// `struct nf_hook_state`, opaque.
#[repr(C)]
pub(crate) struct HookState([u8; 0]);
/// `struct sock`, opaque.
pub(crate) type Sock = c_void;

/// `struct dst_cache` of `net/dst_cache.h`.
#[repr(C)]
pub(crate) struct RawDstCache {
    pub cache: *mut c_void,
    pub reset_ts: usize,
}

#[expect(
    improper_ctypes,
    reason = "structures that bindgen gives an empty lock class; they pass as pointers alone"
)]
extern "C" {
    pub(crate) fn mml_net_ns(net: *const net) -> *mut c_void;
    pub(crate) fn mml_net_ns_rcu(net: *const net) -> *mut c_void;
    pub(crate) fn mml_pernet_register() -> c_int;
    pub(crate) fn mml_pernet_unregister();
    pub(crate) fn mml_link_register() -> c_int;
    pub(crate) fn mml_link_unregister();
    pub(crate) fn mml_dev_register(dev: *mut net_device) -> c_int;
    pub(crate) fn mml_dev_net(dev: *const net_device) -> *mut net;
    pub(crate) fn mml_dev_is_loopback(dev: *const net_device) -> bool;
    pub(crate) fn mml_dev_tx_add(dev: *mut net_device, packets: c_uint, len: c_uint);
    pub(crate) fn mml_dev_rx_add(dev: *mut net_device, len: c_uint);
    pub(crate) fn mml_dev_tx_dropped(dev: *mut net_device);
    pub(crate) fn mml_dev_gro_receive(dev: *mut net_device, skb: *mut sk_buff) -> c_int;
    pub(crate) fn mml_esp_register() -> c_int;
    pub(crate) fn mml_esp_unregister() -> c_int;
    pub(crate) fn mml_esp6_register() -> c_int;
    pub(crate) fn mml_esp6_unregister() -> c_int;
    pub(crate) fn mml_guard_register(net: *mut net) -> c_int;
    pub(crate) fn mml_guard_unregister(net: *mut net);
    pub(crate) fn mml_relay_register(net: *mut net) -> c_int;
    pub(crate) fn mml_relay_unregister(net: *mut net);
    pub(crate) fn mml_state_net(state: *const HookState) -> *mut net;
    pub(crate) fn mml_state_hook(state: *const HookState) -> u8;
    pub(crate) fn mml_state_in(state: *const HookState) -> *mut net_device;
    pub(crate) fn mml_state_out(state: *const HookState) -> *mut net_device;
    pub(crate) fn mml_genl_register() -> c_int;
    pub(crate) fn mml_genl_unregister();
    pub(crate) fn mml_genl_net(info: *const kernel::bindings::genl_info) -> *mut net;
    pub(crate) fn mml_dump_net(cb: *const kernel::bindings::netlink_callback) -> *mut net;
    pub(crate) fn mml_dump_port(cb: *const kernel::bindings::netlink_callback) -> u32;
    pub(crate) fn mml_dump_attrs(cb: *mut kernel::bindings::netlink_callback) -> *mut *mut nlattr;
    pub(crate) fn mml_genl_new(size: usize, gfp: gfp_t) -> *mut sk_buff;
    pub(crate) fn mml_genl_put(
        skb: *mut sk_buff,
        portid: u32,
        seq: u32,
        flags: c_int,
        cmd: u8,
    ) -> *mut c_void;
    pub(crate) fn mml_genl_end(skb: *mut sk_buff, hdr: *mut c_void);
    pub(crate) fn mml_genl_cancel(skb: *mut sk_buff, hdr: *mut c_void);
    pub(crate) fn mml_genl_reply(
        skb: *mut sk_buff,
        info: *mut kernel::bindings::genl_info,
    ) -> c_int;
    pub(crate) fn mml_genl_multicast(net: *mut net, skb: *mut sk_buff, gfp: gfp_t) -> c_int;
    pub(crate) fn mml_genl_has_listeners(net: *mut net) -> bool;
    pub(crate) fn mml_nla_nest_start(skb: *mut sk_buff, kind: c_int) -> *mut nlattr;
    pub(crate) fn mml_nla_nest_end(skb: *mut sk_buff, start: *mut nlattr);
    pub(crate) fn mml_nla_data(nla: *const nlattr) -> *const c_void;
    pub(crate) fn mml_nla_len(nla: *const nlattr) -> c_int;
    pub(crate) fn mml_nla_type(nla: *const nlattr) -> c_int;
    pub(crate) fn mml_nla_ok(nla: *const nlattr, remaining: c_int) -> bool;
    pub(crate) fn mml_nla_next(nla: *const nlattr, remaining: *mut c_int) -> *const nlattr;
    pub(crate) fn mml_skb_may_pull(skb: *mut sk_buff, len: c_uint) -> bool;
    pub(crate) fn mml_skb_cloned(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_is_gso(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_gso_size(skb: *const sk_buff) -> c_uint;
    pub(crate) fn mml_skb_gso_type(skb: *const sk_buff) -> c_uint;
    pub(crate) fn mml_skb_gso_segment(skb: *mut sk_buff) -> *mut sk_buff;
    pub(crate) fn mml_skb_csum_partial(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_csum_start(skb: *const sk_buff) -> c_int;
    pub(crate) fn mml_skb_csum_offset(skb: *const sk_buff) -> c_uint;
    pub(crate) fn mml_skb_protocol(skb: *const sk_buff) -> c_uint;
    pub(crate) fn mml_skb_network_offset(skb: *const sk_buff) -> c_int;
    pub(crate) fn mml_skb_dst_xfrm(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_xfrm_done(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_sec_path(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_skb_alloc(len: c_uint) -> *mut sk_buff;
    pub(crate) fn mml_skb_head_size(len: c_uint) -> c_uint;
    pub(crate) fn mml_skb_mark_for_recycle(skb: *mut sk_buff);
    pub(crate) fn mml_skb_reserve(skb: *mut sk_buff, len: c_uint);
    pub(crate) fn mml_pool_new(cpu: c_int) -> *mut PagePool;
    pub(crate) fn mml_pool_retire(pool: *mut PagePool);
    pub(crate) fn synchronize_rcu();
    pub(crate) fn mml_pool_alloc(pool: *mut PagePool, size: *mut c_uint) -> *mut c_void;
    pub(crate) fn mml_pool_free(pool: *mut PagePool, va: *mut c_void);
    pub(crate) fn page_pool_destroy(pool: *mut PagePool);
    pub(crate) fn napi_build_skb(data: *mut c_void, size: c_uint) -> *mut sk_buff;
    pub(crate) fn mml_skb_put(skb: *mut sk_buff, len: c_uint) -> *mut u8;
    pub(crate) fn mml_skb_consume(skb: *mut sk_buff);
    pub(crate) fn mml_skb_drop(skb: *mut sk_buff);
    pub(crate) fn mml_skb_outgoing(skb: *mut sk_buff, from: *const sk_buff, transport: c_uint);
    pub(crate) fn mml_skb_outgoing6(skb: *mut sk_buff, from: *const sk_buff, transport: c_uint);
    pub(crate) fn mml_skb_incoming(skb: *mut sk_buff, dev: *mut net_device, protocol: u16);
    pub(crate) fn mml_skb_xfrm_done6(skb: *const sk_buff) -> bool;
    pub(crate) fn mml_route6(
        net: *mut net,
        src: *const [u8; 16],
        dst: *const [u8; 16],
        protocol: u8,
        mark: u32,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_route_again6(
        net: *mut net,
        skb: *const sk_buff,
        protocol: u8,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_route_own6(
        net: *mut net,
        skb: *const sk_buff,
        protocol: u8,
        mark: u32,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_icmp6_too_big(skb: *mut sk_buff, mtu: u32);
    pub(crate) fn mml_update_pmtu6(skb: *mut sk_buff, net: *mut net, mtu: u32, mark: u32);
    pub(crate) fn mml_redirect6(skb: *mut sk_buff, net: *mut net);
    pub(crate) fn mml_route(
        net: *mut net,
        src: u32,
        dst: u32,
        protocol: u8,
        mark: u32,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_routes_expire(net: *mut net);
    pub(crate) fn mml_is_err(p: *const c_void) -> bool;
    pub(crate) fn mml_dst_dev(rt: *const Dst) -> *mut net_device;
    pub(crate) fn mml_dst_is_up(rt: *const Dst) -> bool;
    pub(crate) fn mml_dst_mtu(rt: *const Dst) -> c_uint;
    pub(crate) fn mml_dst_headroom(rt: *const Dst) -> c_uint;
    pub(crate) fn mml_dst_ttl(rt: *const Dst) -> c_int;
    pub(crate) fn mml_dst_hold(rt: *mut Dst);
    pub(crate) fn mml_dst_release(rt: *mut Dst);
    pub(crate) fn mml_skb_dst_set(skb: *mut sk_buff, rt: *mut Dst);
    pub(crate) fn mml_skb_update_pmtu(skb: *mut sk_buff, mtu: u32);
    pub(crate) fn mml_icmp_frag_needed(skb: *mut sk_buff, mtu: u32);
    pub(crate) fn mml_update_pmtu(skb: *mut sk_buff, net: *mut net, mtu: u32);
    pub(crate) fn mml_redirect(skb: *mut sk_buff, net: *mut net);
    pub(crate) fn mml_icmp_type(skb: *const sk_buff) -> c_int;
    pub(crate) fn mml_icmp_code(skb: *const sk_buff) -> c_int;
    pub(crate) fn mml_dst_cache_reset(cache: *mut RawDstCache);
    pub(crate) fn mml_aead_reqsize(tfm: *mut CryptoAead) -> c_uint;
    pub(crate) fn mml_aead_free(tfm: *mut CryptoAead);
    pub(crate) fn mml_aead_prepare(
        req: *mut AeadRequest,
        tfm: *mut CryptoAead,
        sg: *mut scatterlist,
        ad: c_uint,
        len: c_uint,
        iv: *mut u8,
    );
    pub(crate) fn mml_aead_request_size() -> usize;
    pub(crate) fn mml_sg_one(sg: *mut scatterlist, buf: *mut c_void, len: c_uint);
    pub(crate) fn mml_bh_disable();
    pub(crate) fn mml_bh_enable();
    pub(crate) fn mml_cpu() -> c_uint;
    pub(crate) fn mml_cpus() -> c_uint;
    pub(crate) fn mml_jiffies64() -> u64;
    pub(crate) fn mml_hz() -> u64;
    pub(crate) fn mml_seconds() -> u64;
    pub(crate) fn mml_random32() -> u32;
    pub(crate) fn mml_rcu_work_init(rw: *mut rcu_work);
    pub(crate) fn mml_to_rcu_work(work: *mut work_struct) -> *mut rcu_work;
    pub(crate) fn mml_workqueue_new() -> *mut workqueue_struct;
    pub(crate) fn mml_memzero(p: *mut c_void, len: usize);
    pub(crate) fn mml_module_get() -> bool;
    pub(crate) fn mml_module_put();

    pub(crate) fn mml_timer_setup(timer: *mut hrtimer);
    pub(crate) fn mml_timer_start(timer: *mut hrtimer, ns: u64);
    pub(crate) fn mml_now_ns() -> u64;
    pub(crate) fn mml_boottime_ns() -> u64;
    pub(crate) fn mml_alarm_timer_setup(timer: *mut hrtimer);
    pub(crate) fn mml_alarm_work_setup(work: *mut work_struct);
    pub(crate) fn mml_work_queue(wq: *mut workqueue_struct, work: *mut work_struct) -> bool;
    pub(crate) fn mml_skb_checksum_good(skb: *mut sk_buff);
    pub(crate) fn mml_skb_keep(skb: *mut sk_buff);
    pub(crate) fn mml_skb_orphan(skb: *mut sk_buff);
    pub(crate) fn mml_skb_stamp(skb: *mut sk_buff, ns: u64);
    pub(crate) fn mml_skb_stamped(skb: *const sk_buff) -> u64;
    pub(crate) fn mml_skb_unstamp(skb: *mut sk_buff);
    pub(crate) fn mml_skb_set_dev(skb: *mut sk_buff, dev: *mut net_device);
    pub(crate) fn mml_skb_hurry(skb: *mut sk_buff);
    pub(crate) fn mml_skb_apart(skb: *mut sk_buff) -> *mut sk_buff;
    pub(crate) fn mml_skb_came_by(net: *mut net, skb: *const sk_buff) -> *mut net_device;
    pub(crate) fn mml_route_on(skb: *mut sk_buff, dev: *mut net_device) -> bool;
    pub(crate) fn mml_skb_dst(skb: *const sk_buff) -> *mut Dst;
    pub(crate) fn mml_skb_dst_drop(skb: *mut sk_buff);
    pub(crate) fn mml_dst_qlen(dst: *const Dst) -> c_uint;
    pub(crate) fn mml_dst_qlimit(dst: *const Dst) -> c_uint;
    pub(crate) fn mml_route_again(
        net: *mut net,
        skb: *const sk_buff,
        protocol: u8,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_route_own(
        net: *mut net,
        skb: *const sk_buff,
        protocol: u8,
        mark: u32,
        from: u16,
        to: u16,
    ) -> *mut Dst;
    pub(crate) fn mml_dst_output(net: *mut net, skb: *mut sk_buff) -> c_int;
    pub(crate) fn mml_dev_index(dev: *const net_device) -> c_uint;
    pub(crate) fn mml_notifier_register() -> c_int;
    pub(crate) fn mml_notifier_unregister();

    // Exported by the kernel.
    pub(crate) fn skb_clone(skb: *const sk_buff, gfp: gfp_t) -> *mut sk_buff;
    pub(crate) fn hrtimer_cancel(timer: *mut hrtimer) -> c_int;
    pub(crate) fn disable_work_sync(work: *mut work_struct) -> bool;
    pub(crate) fn ip_local_out(net: *mut net, sk: *mut Sock, skb: *mut sk_buff) -> c_int;
    pub(crate) fn skb_copy(skb: *const sk_buff, gfp: gfp_t) -> *mut sk_buff;
    pub(crate) fn skb_copy_bits(
        skb: *const sk_buff,
        offset: c_int,
        to: *mut c_void,
        len: c_int,
    ) -> c_int;
    pub(crate) fn skb_copy_and_csum_bits(
        skb: *const sk_buff,
        offset: c_int,
        to: *mut u8,
        len: c_int,
    ) -> u32;
    pub(crate) fn skb_ensure_writable(skb: *mut sk_buff, len: c_uint) -> c_int;
    pub(crate) fn skb_checksum_help(skb: *mut sk_buff) -> c_int;
    pub(crate) fn dst_cache_init(cache: *mut RawDstCache, gfp: gfp_t) -> c_int;
    pub(crate) fn dst_cache_destroy(cache: *mut RawDstCache);
    pub(crate) fn dst_cache_get_ip4(cache: *mut RawDstCache, saddr: *mut u32) -> *mut Dst;
    pub(crate) fn dst_cache_get_ip6(cache: *mut RawDstCache, saddr: *mut [u8; 16]) -> *mut Dst;
    pub(crate) fn dst_cache_set_ip6(cache: *mut RawDstCache, dst: *mut Dst, saddr: *const [u8; 16]);
    pub(crate) fn ip6_dst_hoplimit(dst: *mut Dst) -> c_int;
    pub(crate) fn ip6_local_out(net: *mut net, sk: *mut Sock, skb: *mut sk_buff) -> c_int;
    pub(crate) fn dst_cache_set_ip4(cache: *mut RawDstCache, rt: *mut Dst, saddr: u32);
    pub(crate) fn crypto_alloc_aead(name: *const c_char, kind: u32, mask: u32) -> *mut CryptoAead;
    pub(crate) fn crypto_aead_setkey(tfm: *mut CryptoAead, key: *const u8, len: c_uint) -> c_int;
    pub(crate) fn crypto_aead_setauthsize(tfm: *mut CryptoAead, len: c_uint) -> c_int;
    pub(crate) fn crypto_aead_encrypt(req: *mut AeadRequest) -> c_int;
    pub(crate) fn crypto_aead_decrypt(req: *mut AeadRequest) -> c_int;
    pub(crate) fn nla_put(skb: *mut sk_buff, kind: c_int, len: c_int, data: *const c_void)
        -> c_int;
    pub(crate) fn queue_rcu_work(wq: *mut workqueue_struct, rw: *mut rcu_work) -> bool;
    pub(crate) fn destroy_workqueue(wq: *mut workqueue_struct);
    pub(crate) fn rcu_barrier();
}

/// `struct netlink_ext_ack`.
pub(crate) type ExtAck = netlink_ext_ack;
