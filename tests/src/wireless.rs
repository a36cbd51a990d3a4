// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The lab's lossy wireless link: the qdisc of `mml_lab.ko` (`kmod/lab`), by rtnetlink.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::genl::{self, attribute, find};
use crate::module::Modules;
use crate::netns::Netns;

/// The module that knows the qdisc; it is loaded by the first link.
pub const MODULE: &str = "mml_lab";
const KIND: &[u8] = b"wireless\0";

/// `linux/rtnetlink.h`, `linux/pkt_sched.h` and `linux/netlink.h`.
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TC_H_ROOT: u32 = 0xffff_ffff;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

/// Octets of `struct tcmsg`, which starts each message about a qdisc.
const TCMSG: usize = 20;

/// One direction of a link: the transmitter at its sending end, and its errors.
///
/// Packets are sent one at a time, 8 bits an octet of the frame, in the order they came; those whose priority is 6 or
/// more (`SO_PRIORITY`, `skb->priority`) go first. The interface's segmentation offloads must be off: a super-packet would
/// be one packet here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wireless {
    /// Up to 10 Gb/s.
    pub rate_bps: u64,
    /// Errors a bit, 0.0 for none; no less than 1e-12 else.
    pub bit_error_rate: f64,
    /// Which errors: links of one seed and rate are hit at the same times after they were attached.
    pub seed: u64,
    /// Packets below priority 6 that it holds, that on the link included; more are dropped.
    pub limit: u32,
}

/// What a link has done since it was attached. In packets but for the octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WirelessCounters {
    /// Sent over the link whole or corrupted: `sent - corrupted` arrived.
    pub sent: u64,
    /// Octets of those, link headers included.
    pub sent_octets: u64,
    /// Hit by an error, and lost.
    pub corrupted: u64,
    /// Dropped before the link, which held as many as it may.
    pub overflowed: u64,
    /// Of those sent, how many had priority.
    pub prioritised: u64,
}

impl Wireless {
    /// Makes `device` send over this link. Replaces its root qdisc, whatever it was, and starts the link's clock at zero.
    pub fn attach(&self, ns: &Netns, device: &str) -> Result<()> {
        // A handle that the root can't have, or the kernel would take this for a change of the one that is there.
        static HANDLE: AtomicU32 = AtomicU32::new(0);
        let handle = (HANDLE.fetch_add(1, Ordering::Relaxed) % 0x7fff + 1) << 16;
        Modules::find()?.load(MODULE)?;
        crate::report::step(format!("wireless {}:{device} {self:?}", ns.name()));
        let attributes = [
            attribute(TCA_KIND, KIND),
            attribute(TCA_OPTIONS, &self.options()),
        ]
        .concat();
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        ns.enter(|| {
            let interface = interface(device)?;
            genl::accepted(
                request(RTM_NEWQDISC, flags, interface, handle, &attributes)?,
                "the qdisc",
            )
        })
        .with_context(|| format!("wireless link of {device} in {}", ns.name()))?;
        Ok(())
    }

    /// As `kmod/lab/wireless.rs` reads them.
    fn options(&self) -> [u8; 32] {
        let mean_gap = if self.bit_error_rate == 0.0 {
            0
        } else {
            (65_536.0 / self.bit_error_rate).round() as u64
        };
        let mut options = [0; 32];
        options[0..8].copy_from_slice(&self.rate_bps.to_ne_bytes());
        options[8..16].copy_from_slice(&mean_gap.to_ne_bytes());
        options[16..24].copy_from_slice(&self.seed.to_ne_bytes());
        options[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        options
    }
}

/// What the link that `device` sends over has done.
pub fn counters(ns: &Netns, device: &str) -> Result<WirelessCounters> {
    let find_link = || {
        let interface = interface(device)?;
        let all = request(RTM_GETQDISC, genl::NLM_F_DUMP, interface, 0, &[])?;
        let options = genl::accepted(all, "the qdiscs")?
            .iter()
            .find_map(|message| options_of(message, interface))
            .with_context(|| format!("{device} in {} is no wireless link", ns.name()))?;
        read_counters(&options).context("counters of an unknown form")
    };
    ns.enter(find_link)
}

/// The options in a message about the interface's root qdisc, if it is one of ours.
fn options_of(message: &[u8], interface: u32) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    let attributes = message.get(TCMSG..)?;
    let ours =
        word(4)? == interface && word(12)? == TC_H_ROOT && find(attributes, TCA_KIND) == Some(KIND);
    ours.then(|| find(attributes, TCA_OPTIONS).map(<[u8]>::to_vec))?
}

/// The counters stand behind the 32 octets of options.
fn read_counters(options: &[u8]) -> Option<WirelessCounters> {
    let word = |i: usize| {
        Some(u64::from_ne_bytes(
            *options.get(32 + 8 * i..)?.first_chunk()?,
        ))
    };
    Some(WirelessCounters {
        sent: word(0)?,
        sent_octets: word(1)?,
        corrupted: word(2)?,
        overflowed: word(3)?,
        prioritised: word(4)?,
    })
}

fn interface(device: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(device).with_context(|| format!("no interface {device}"))
}

/// Asks rtnetlink of the thread's namespace about the root qdisc of an interface.
fn request(
    kind: u16,
    flags: u16,
    interface: u32,
    handle: u32,
    attributes: &[u8],
) -> Result<genl::Answer> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    let length = 16 + TCMSG + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((genl::NLM_F_REQUEST | genl::NLM_F_ACK | flags).to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    for word in [0, interface, handle, TC_H_ROOT, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(attributes);
    genl::exchange(&socket, &message)
}
