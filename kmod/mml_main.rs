// SPDX-License-Identifier: GPL-2.0-only

//! `mml`: the data path of Mobile Multi-Layered IPsec.
//!
//! Two-zone ESP between a mobile host and its home agent (send.rs, receive.rs), whose zone 1 a foreign agent opens on
//! the way (relay.rs) to repair the losses of its wireless hop (snoop.rs); policies that fail closed (policy.rs, hooks.rs); told what to do by the zone message
//! (zone_message.rs). skb.rs, crypto.rs, net.rs, netlink.rs and sync.rs wrap the kernel's concepts, one each: the only
//! files with `unsafe`, `sync/` among them.

use kernel::prelude::*;

mod clamp;
mod counters;
mod crypto;
mod ends;
mod hold;
mod hooks;
mod larval;
mod lifetime;
mod namespace;
mod net;
mod netlink;
mod policy;
mod receive;
mod relay;
mod relay_number;
mod rewrite;
mod sadb;
mod send;
mod skb;
mod snoop;
mod stats;
mod sync;
mod sys;
mod zone_message;

module! {
    type: Mml,
    name: "mml",
    authors: ["The MML-IPsec authors"],
    description: "Mobile Multi-Layered IPsec: two-zone ESP",
    license: "GPL",
}

/// What lives between `insmod` and `rmmod`; its fields are dropped in this order.
struct Mml {
    _registrations: net::Registrations,
    _deferred: Deferred,
    _places: Places,
}

/// The work queue that frees what readers may still see.
struct Deferred;

impl Drop for Deferred {
    fn drop(&mut self) {
        sync::stop();
    }
}

/// The per-CPU requests, scratch octets and pools of pages.
struct Places;

impl Drop for Places {
    fn drop(&mut self) {
        crypto::stop();
        crypto::stop_scratch();
        skb::stop();
    }
}

impl kernel::Module for Mml {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let places = Places;
        crypto::start()?;
        crypto::start_scratch()?;
        skb::start()?;
        let deferred = Deferred;
        sync::start()?;
        Ok(Mml {
            _registrations: net::Registrations::new()?,
            _deferred: deferred,
            _places: places,
        })
    }
}
