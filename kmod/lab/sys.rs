// SPDX-License-Identifier: GPL-2.0-only

//! Declarations of what the module calls in C: `shim.c`, and exported kernel functions that `kernel::bindings` lacks.
//!
//! Only the wrapper file, `qdisc.rs`, uses it.

use kernel::bindings::{nlattr, sk_buff};
use kernel::ffi::{c_int, c_void};

/// `struct Qdisc`, opaque.
#[repr(C)]
pub(crate) struct Qdisc([u8; 0]);

extern "C" {
    pub(crate) fn mml_lab_register() -> c_int;
    pub(crate) fn mml_lab_unregister();
    pub(crate) fn mml_lab_slot(sch: *mut Qdisc) -> *mut *mut c_void;
    pub(crate) fn mml_lab_watchdog_init(sch: *mut Qdisc);
    pub(crate) fn mml_lab_watchdog_schedule(sch: *mut Qdisc, at: u64);
    pub(crate) fn mml_lab_watchdog_cancel(sch: *mut Qdisc);
    pub(crate) fn mml_lab_lock(sch: *mut Qdisc);
    pub(crate) fn mml_lab_unlock(sch: *mut Qdisc);
    pub(crate) fn mml_lab_set_limit(sch: *mut Qdisc, limit: u32);
    pub(crate) fn mml_lab_holds(sch: *mut Qdisc, skb: *const sk_buff);
    pub(crate) fn mml_lab_gives(sch: *mut Qdisc, skb: *mut sk_buff);
    pub(crate) fn mml_lab_loses(sch: *mut Qdisc, skb: *const sk_buff);
    pub(crate) fn mml_lab_free(sch: *mut Qdisc, skb: *mut sk_buff);
    pub(crate) fn mml_lab_refuse(
        sch: *mut Qdisc,
        skb: *mut sk_buff,
        to_free: *mut *mut sk_buff,
    ) -> c_int;
    pub(crate) fn mml_lab_arrival(skb: *mut sk_buff) -> *mut u64;
    pub(crate) fn mml_lab_priority(skb: *const sk_buff) -> u32;
    pub(crate) fn mml_lab_skb_drop(skb: *mut sk_buff);
    pub(crate) fn mml_lab_now() -> u64;
    pub(crate) fn mml_lab_nla_data(nla: *const nlattr) -> *const c_void;
    pub(crate) fn mml_lab_nla_len(nla: *const nlattr) -> c_int;

    // Exported by the kernel.
    pub(crate) fn nla_put(skb: *mut sk_buff, kind: c_int, len: c_int, data: *const c_void)
        -> c_int;
}
