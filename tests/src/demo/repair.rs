// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The second act: a file over a wireless link whose bits go wrong, through kernel ESP, through two-zone ESP, and through
//! two-zone ESP whose relay has SNOOP. The programs and TCP are those of the first act, as the kernel has them by default.

use anyhow::Result;
use serde_json::json;

use super::file::{fetched, serve, shorten_file};
use crate::paper::{known_neighbours, two_zones, Settings};
use crate::report;
use crate::topology::{Shape, Topology};
use crate::tunnel;
use crate::wireless::{self, Wireless};

/// Octets of the file at most: what takes the unrepaired the better part of a virtual minute.
const BYTES: usize = 1_000_000;
/// The paper's link and its worst error rate, one bit in 64 kb; the network between home agent and foreign agent adds
/// 100 ms to a round trip.
const RATE_BPS: u64 = 2_000_000;
const BIT_ERROR_RATE: f64 = 1.0 / 65_536.0;
const ONE_WAY: &str = "50ms";
const QUEUE: u32 = 100;
/// The same errors for all three.
const SEED: u64 = 1;
/// What SNOOP must make of two-zone ESP alone.
const GAIN: f64 = 2.0;

/// What lies between home agent and mobile host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    KernelEsp,
    TwoZoneEsp,
    Snoop,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::KernelEsp => "kernel-esp",
            Self::TwoZoneEsp => "two-zone-esp",
            Self::Snoop => "two-zone-esp+snoop",
        }
    }
}

/// Transfers the file of `bytes` octets, or its beginning, each way; whether all came whole and SNOOP was worth it.
pub fn act(bytes: usize) -> Result<bool> {
    let bytes = bytes.min(BYTES);
    let sum = shorten_file(bytes)?;
    let mut whole = true;
    let mut goodput = |way: Way| {
        report::step(format!("over the lossy link: {}", way.name()));
        transfer(way, bytes, &sum, &mut whole)
    };
    goodput(Way::KernelEsp)?;
    let alone = goodput(Way::TwoZoneEsp)?;
    let repaired = goodput(Way::Snoop)?;
    let worth = repaired >= GAIN * alone;
    report::result(
        "check",
        json!({
            "name": format!("over the lossy link SNOOP makes at least {GAIN} times of two-zone ESP, with the key of the headers alone"),
            "ok": worth,
            "detail": format!("{:.1} times", repaired / alone),
            "config": Way::Snoop.name(),
        }),
    );
    Ok(whole && worth)
}

/// One transfer; its goodput in kb/s.
fn transfer(way: Way, bytes: usize, sum: &[u8], whole: &mut bool) -> Result<f64> {
    let net = Topology::up(Shape::Full)?;
    // SNOOP sees packets, not super-packets; and what the link loses is packets.
    net.offloads(false)?;
    known_neighbours(&net)?;
    match way {
        Way::KernelEsp => tunnel::kernel_esp(&net, 256)?,
        Way::TwoZoneEsp => two_zones(&net, None)?,
        Way::Snoop => two_zones(&net, Some(Settings::Ours))?,
    }
    let core = net.core()?;
    for towards in ["ha", "fa1"] {
        core.tc(&format!(
            "qdisc replace dev {towards} root netem delay {ONE_WAY} limit 1000"
        ))?;
    }
    let _server = serve(&net)?;
    let link = |bit_error_rate| Wireless {
        rate_bps: RATE_BPS,
        bit_error_rate,
        seed: SEED,
        limit: QUEUE,
    };
    link(0.0).attach(&net.mh, "wl1")?;
    link(BIT_ERROR_RATE).attach(&net.fa1, "wl1")?;
    let got = fetched(&net, bytes, sum)?;
    let counters = wireless::counters(&net.fa1, "wl1")?;
    *whole &= got.whole;
    report::result(
        "repair",
        json!({
            "config": way.name(),
            "bytes": got.bytes,
            "sha256_ok": got.whole,
            "goodput_kbps": got.goodput_kbps().round(),
            "lost": counters.corrupted,
            "sent_again_locally": counters.prioritised,
            "seconds": got.seconds,
        }),
    );
    Ok(got.goodput_kbps())
}
