// SPDX-License-Identifier: GPL-2.0-only

//! `mml_lab`: the lab's wireless link, a qdisc of kind `wireless`. It is no part of `mml`.
//!
//! The qdisc is the link's transmitter and its errors: packets are sent one at a time at the link's rate, leave when
//! their last bit is sent, and are lost if one of their bits was hit (link.rs). The device under it adds nothing, as a
//! veth. qdisc.rs wraps the kernel's concepts: with the declarations in sys.rs, the only `unsafe`.

use kernel::prelude::*;

pub mod link;
mod qdisc;
mod sys;
mod wireless;

module! {
    type: MmlLab,
    name: "mml_lab",
    authors: ["The MML-IPsec authors"],
    description: "The wireless link of MML-IPsec's lab",
    license: "GPL",
}

/// What lives between `insmod` and `rmmod`.
struct MmlLab {
    _registration: qdisc::Registration,
}

impl kernel::Module for MmlLab {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(MmlLab {
            _registration: qdisc::Registration::new()?,
        })
    }
}
