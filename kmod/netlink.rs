// SPDX-License-Identifier: GPL-2.0-only

//! Wrapper: generic netlink requests, dumps and events.

use core::ffi::CStr;
use core::ptr::NonNull;
use kernel::bindings::{self, genl_info, netlink_callback, nlattr, sk_buff};
use kernel::ffi::c_int;
use kernel::prelude::*;
use pfkey::genl;

use crate::namespace::Namespace;
use crate::{net, stats, sys, zone_message};

/// Octets of attribute headers around one zone message.
const ROOM: usize = 64;
/// `NLM_F_MULTI`.
const MULTI: c_int = 2;

/// An attribute's octets.
///
/// # Safety
///
/// `attrs` is the parsed array of a message of the family, which lives for `'a`.
unsafe fn attribute<'a>(attrs: *mut *mut nlattr, number: u16) -> Option<&'a [u8]> {
    if attrs.is_null() || number > genl::A_MAX {
        return None;
    }
    // SAFETY: The array has a place for each attribute of the family, null or a validated attribute.
    unsafe {
        let nla = NonNull::new(*attrs.add(number as usize))?.as_ptr();
        let len = usize::try_from(sys::mml_nla_len(nla)).ok()?;
        Some(core::slice::from_raw_parts(
            sys::mml_nla_data(nla).cast(),
            len,
        ))
    }
}

/// One request and its answer.
pub(crate) struct Request<'a> {
    info: &'a mut genl_info,
    pub ns: &'a Namespace,
}

impl<'a> Request<'a> {
    /// An attribute's octets.
    pub(crate) fn attribute(&self, number: u16) -> Option<&'a [u8]> {
        // SAFETY: The kernel parsed the attributes of this request, which lives until its handler returns.
        unsafe { attribute(self.info.attrs, number) }
    }

    /// All name and value pairs of the request's [`genl::A_COUNTER`] attributes.
    pub(crate) fn pairs(&self, mut f: impl FnMut(&[u8], u64) -> Result) -> Result {
        // SAFETY: The header is followed by its attributes, `nlmsg_len` octets in all, which the kernel validated.
        unsafe {
            let header = self.info.nlhdr;
            let front = core::mem::size_of::<bindings::nlmsghdr>()
                + core::mem::size_of::<bindings::genlmsghdr>();
            let mut remaining =
                c_int::try_from(((*header).nlmsg_len as usize).saturating_sub(front))
                    .map_err(|_| EINVAL)?;
            let mut at: *const nlattr = header.cast::<u8>().add(front).cast();
            while sys::mml_nla_ok(at, remaining) {
                if sys::mml_nla_type(at) == c_int::from(genl::A_COUNTER) {
                    let mut left = sys::mml_nla_len(at);
                    let mut inner: *const nlattr = sys::mml_nla_data(at).cast();
                    let (mut name, mut value) = (None, None);
                    while sys::mml_nla_ok(inner, left) {
                        let octets = core::slice::from_raw_parts(
                            sys::mml_nla_data(inner).cast::<u8>(),
                            sys::mml_nla_len(inner) as usize,
                        );
                        match sys::mml_nla_type(inner) as u16 {
                            genl::A_NAME => name = octets.strip_suffix(&[0]).or(Some(octets)),
                            genl::A_VALUE => {
                                value = octets.first_chunk().map(|v| u64::from_ne_bytes(*v))
                            }
                            _ => {}
                        }
                        inner = sys::mml_nla_next(inner, &mut left);
                    }
                    f(name.ok_or(EINVAL)?, value.ok_or(EINVAL)?)?;
                }
                at = sys::mml_nla_next(at, &mut remaining);
            }
        }
        Ok(())
    }

    /// The text of the answer's extended acknowledgement.
    pub(crate) fn say(&mut self, text: &'static CStr) {
        if let Some(mut extack) = NonNull::new(self.info.extack) {
            // SAFETY: It lives as long as the request; the text is static.
            unsafe { extack.as_mut()._msg = text.as_ptr().cast() };
        }
    }

    /// Answers with a zone message.
    pub(crate) fn reply(&mut self, message: &[u8]) -> Result {
        // SAFETY: The skb is ours until it is sent or freed; the info is the request's.
        unsafe {
            let skb = sys::mml_genl_new(message.len() + ROOM, bindings::GFP_KERNEL);
            if skb.is_null() {
                return Err(ENOMEM);
            }
            let header = sys::mml_genl_put(
                skb,
                self.info.snd_portid,
                self.info.snd_seq,
                0,
                genl::CMD_PFKEY,
            );
            if header.is_null() || put(skb, genl::A_PFKEY, message).is_err() {
                sys::mml_skb_drop(skb);
                return Err(EMSGSIZE);
            }
            sys::mml_genl_end(skb, header);
            kernel::error::to_result(sys::mml_genl_reply(skb, self.info))
        }
    }
}

/// # Safety
///
/// `skb` is a netlink message being written.
unsafe fn put(skb: *mut sk_buff, number: u16, octets: &[u8]) -> Result {
    let len = c_int::try_from(octets.len()).map_err(|_| EMSGSIZE)?;
    // SAFETY: By the promise; the octets are valid for their length.
    kernel::error::to_result(unsafe {
        sys::nla_put(skb, c_int::from(number), len, octets.as_ptr().cast())
    })
}

/// A dump in progress: messages are added until one doesn't fit, and the next call goes on from `cursor`.
pub(crate) struct Dump<'a> {
    skb: *mut sk_buff,
    cb: &'a mut netlink_callback,
    pub ns: &'a Namespace,
}

impl<'a> Dump<'a> {
    /// An attribute of the request.
    pub(crate) fn attribute(&mut self, number: u16) -> Option<&'a [u8]> {
        // SAFETY: The dump's request was parsed when it started, and lives until it is done.
        unsafe { attribute(sys::mml_dump_attrs(self.cb), number) }
    }

    /// What the last call left: 0 at first.
    pub(crate) fn cursor(&self) -> u64 {
        // SAFETY: The union holds the six words that every dump has for itself.
        unsafe { self.cb.__bindgen_anon_1.args[0] as u64 }
    }

    /// Where the next call goes on.
    pub(crate) fn set_cursor(&mut self, cursor: u64) {
        // SAFETY: As above.
        unsafe { self.cb.__bindgen_anon_1.args[0] = cursor as _ };
    }

    /// Adds a message, written by `f`. `EMSGSIZE`, and nothing added, if it doesn't fit.
    pub(crate) fn message(&mut self, command: u8, f: impl FnOnce(&mut Fields) -> Result) -> Result {
        // SAFETY: The skb is the dump's; the callback's skb is the request's.
        unsafe {
            let port = sys::mml_dump_port(self.cb);
            let seq = (*self.cb.nlh).nlmsg_seq;
            let header = sys::mml_genl_put(self.skb, port, seq, MULTI, command);
            if header.is_null() {
                return Err(EMSGSIZE);
            }
            match f(&mut Fields(self.skb)) {
                Ok(()) => {
                    sys::mml_genl_end(self.skb, header);
                    Ok(())
                }
                Err(e) => {
                    sys::mml_genl_cancel(self.skb, header);
                    Err(e)
                }
            }
        }
    }
}

/// The attributes of a message being written.
pub(crate) struct Fields(*mut sk_buff);

impl Fields {
    /// An attribute.
    pub(crate) fn put(&mut self, number: u16, octets: &[u8]) -> Result {
        // SAFETY: The message is being written.
        unsafe { put(self.0, number, octets) }
    }

    /// A counter: name and value, nested.
    pub(crate) fn counter(&mut self, prefix: &str, name: &str, value: u64) -> Result {
        let mut text = [0u8; 64];
        for (to, from) in text.iter_mut().take(63).zip(
            [prefix, name]
                .iter()
                .flat_map(|part| part.as_bytes())
                .copied(),
        ) {
            *to = from;
        }
        let len = (prefix.len() + name.len()).min(63) + 1;
        // SAFETY: The message is being written.
        unsafe {
            let nest = sys::mml_nla_nest_start(self.0, c_int::from(genl::A_COUNTER));
            if nest.is_null() {
                return Err(EMSGSIZE);
            }
            put(self.0, genl::A_NAME, text.get(..len).unwrap_or(&[]))?;
            put(self.0, genl::A_VALUE, &value.to_ne_bytes())?;
            sys::mml_nla_nest_end(self.0, nest);
        }
        Ok(())
    }
}

/// Sends a zone message to the group of events. From any context (docs/wire.md 2.1q).
pub(crate) fn event(ns: &Namespace, message: &[u8]) {
    // SAFETY: The namespace lives; the skb is ours until it is sent, which consumes it.
    unsafe {
        if !sys::mml_genl_has_listeners(ns.net()) {
            return;
        }
        let skb = sys::mml_genl_new(message.len() + ROOM, bindings::GFP_ATOMIC);
        if skb.is_null() {
            return;
        }
        let header = sys::mml_genl_put(skb, 0, 0, 0, genl::CMD_PFKEY);
        if header.is_null() || put(skb, genl::A_PFKEY, message).is_err() {
            sys::mml_skb_drop(skb);
            return;
        }
        sys::mml_genl_end(skb, header);
        sys::mml_genl_multicast(ns.net(), skb, bindings::GFP_ATOMIC);
    }
}

/// # Safety
///
/// `info` is a request's, as generic netlink gives it.
unsafe fn doit(info: *mut genl_info, f: impl FnOnce(&mut Request<'_>) -> Result) -> c_int {
    // SAFETY: By the promise; the namespace lives while its sockets do.
    unsafe {
        let Some(ns) = net::of_net(sys::mml_genl_net(info)) else {
            return ENODEV.to_errno();
        };
        let result = f(&mut Request {
            info: &mut *info,
            ns,
        });
        wipe((*info).attrs);
        match result {
            Ok(()) => 0,
            Err(e) => e.to_errno(),
        }
    }
}

/// Overwrites a request's zone message, which may hold keys.
///
/// # Safety
///
/// `attrs` is the parsed array of a request that nobody reads any more.
unsafe fn wipe(attrs: *mut *mut nlattr) {
    if attrs.is_null() {
        return;
    }
    // SAFETY: By the promise; the octets lie in the request's own buffer.
    unsafe {
        if let Some(nla) = NonNull::new(*attrs.add(genl::A_PFKEY as usize)) {
            let len = usize::try_from(sys::mml_nla_len(nla.as_ptr())).unwrap_or(0);
            sys::mml_memzero(sys::mml_nla_data(nla.as_ptr()).cast_mut(), len);
        }
    }
}

/// # Safety
///
/// `skb` and `cb` are a dump's, as generic netlink gives them.
unsafe fn dumpit(
    skb: *mut sk_buff,
    cb: *mut netlink_callback,
    f: impl FnOnce(&mut Dump<'_>) -> Result,
) -> c_int {
    // SAFETY: By the promise.
    unsafe {
        let Some(ns) = net::of_net(sys::mml_dump_net(cb)) else {
            return ENODEV.to_errno();
        };
        let before = (*skb).len;
        match f(&mut Dump {
            skb,
            cb: &mut *cb,
            ns,
        }) {
            Err(e) if e != EMSGSIZE || (*skb).len == before => e.to_errno(),
            _ => (*skb).len as c_int,
        }
    }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_pfkey_doit(_skb: *mut sk_buff, info: *mut genl_info) -> c_int {
    // SAFETY: Generic netlink calls this with a request.
    unsafe { doit(info, zone_message::request) }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_set_doit(_skb: *mut sk_buff, info: *mut genl_info) -> c_int {
    // SAFETY: As above.
    unsafe { doit(info, stats::set) }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_pfkey_dumpit(skb: *mut sk_buff, cb: *mut netlink_callback) -> c_int {
    // SAFETY: Generic netlink calls this with a dump.
    unsafe { dumpit(skb, cb, zone_message::dump) }
}

#[no_mangle]
unsafe extern "C" fn mml_rs_stats_dumpit(skb: *mut sk_buff, cb: *mut netlink_callback) -> c_int {
    // SAFETY: As above.
    unsafe { dumpit(skb, cb, stats::dump) }
}
