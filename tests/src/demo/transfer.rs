// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The first act's transfers: the file one way, every link captured.

use anyhow::Result;
use serde_json::{json, Value};

use super::file::{fetched, serve};
use crate::capture::{Capture, Captured};
use crate::headers;
use crate::keyd;
use crate::report;
use crate::stats::Stats;
use crate::topology::{self, Shape, Topology, CN, HOME};
use crate::tunnel;
use crate::zone_tunnel::{self, Keys};

/// The wireless links: about what a good 802.11b cell or a poor LTE one gives.
const RATE: &str = "10mbit";
const DELAY: &str = "10ms";

/// The three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    Plain,
    KernelEsp,
    TwoZoneEsp,
}

impl Config {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::KernelEsp => "kernel-esp",
            Self::TwoZoneEsp => "two-zone-esp",
        }
    }
}

/// What one transfer left behind.
pub struct Transfer {
    pub config: Config,
    /// cn–ha, ha–core, core–fa1, fa1–mh.
    pub links: Vec<Captured>,
    /// The two-zone tunnel's keys.
    pub keys: Option<Keys>,
    /// The foreign agent's counters.
    pub agent: Stats,
    /// A full IP packet between correspondent and mobile host, seen where nothing is sealed yet.
    pub inner: usize,
    /// The same on its way to the foreign agent.
    pub outer: usize,
}

/// Transfers the file of `bytes` octets, SHA-256 `sum`, one way. `look` sees the network while the tunnel still stands.
pub fn transfer(
    config: Config,
    bytes: usize,
    sum: &[u8],
    look: &mut dyn FnMut(&Topology, Option<&Keys>) -> Result<()>,
) -> Result<(Transfer, Value)> {
    let net = Topology::up(Shape::Full)?;
    // Alike for all three, so that captures are honest and sizes on the wire are what the sender made.
    topology::linear(&net)?;
    net.wireless(RATE, DELAY)?;
    let mut managers = None;
    let keys = match config {
        Config::Plain => None,
        Config::KernelEsp => {
            tunnel::kernel_esp(&net, 256)?;
            None
        }
        Config::TwoZoneEsp => {
            managers = Some(keyd::three_nodes(&net, "")?);
            keyd::until_up(&net)?;
            Some(zone_tunnel::held_keys(&net.mh)?)
        }
    };
    if let Some(managers) = &managers {
        for keyd in managers {
            report::step(keyd.tell(&["status"])?.trim());
        }
    }
    let _server = serve(&net)?;
    let captures = [
        Capture::start(&net.cn, "ha", "cn-ha")?,
        Capture::start(net.core()?, "ha", "ha-core")?,
        Capture::start(net.core()?, "fa1", "core-fa1")?,
        Capture::start(&net.fa1, "wl1", "fa1-mh")?,
    ];
    let got = fetched(&net, bytes, sum)?;
    let links = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<Vec<_>>>()?;
    let agent = if keys.is_some() {
        Stats::read(&net.fa1)?
    } else {
        Stats::default()
    };
    if config == Config::TwoZoneEsp {
        report::step(zone_tunnel::mmlctl(&net.fa1, &["stats"])?.trim());
    }

    look(&net, keys.as_ref())?;

    let (inner, outer) = (
        links.first().map_or(0, full_size),
        links.get(2).map_or(0, full_size),
    );
    // RFC 6691 §2: the MSS counts neither IP nor TCP options.
    let mss = inner.saturating_sub(40);
    let row = json!({
        "config": config.name(),
        "bytes": got.bytes,
        "sha256_ok": got.whole,
        "goodput_kbps": got.goodput_kbps().round(),
        "overhead_octets": outer.saturating_sub(inner),
        "mss": mss,
        "seconds": got.seconds,
    });
    Ok((
        Transfer {
            config,
            links,
            keys,
            agent,
            inner,
            outer,
        },
        row,
    ))
}

/// The size of most packets above 1,000 octets: the largest would be one sent before the path was known.
fn full_size(link: &Captured) -> usize {
    let mut counts = std::collections::BTreeMap::<usize, usize>::new();
    for ip in link.headers().filter(|ip| ip.total_length > 1000) {
        *counts.entry(ip.total_length).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map_or(0, |(size, _)| size)
}

/// Whether this link carries an IP packet of the two hosts in clear.
pub fn shows_inner_header(link: &Captured) -> bool {
    link.headers().any(|ip| {
        [ip.source, ip.destination] == [CN, HOME] || [ip.source, ip.destination] == [HOME, CN]
    }) || link.holding(&[CN.octets(), HOME.octets()].concat()) > 0
        || link.holding(&[HOME.octets(), CN.octets()].concat()) > 0
}

/// ESP packets on a link.
pub fn sealed(link: &Captured) -> usize {
    link.headers()
        .filter(|ip| ip.protocol == headers::ESP)
        .count()
}
