// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SNOOP at a foreign agent that is a machine of its own.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::capture::Capture;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::sockets::Stream;
use crate::stats::Stats;
use crate::topology::{self, HOME};
use crate::traffic;
use crate::zone_tunnel::{mmlctl, Options};

pub const TABLE: &[Scenario] = &[Scenario {
    name: "snoop-repairs-losses-inside-the-tunnel",
    proves: "with zone 1's key the foreign agent sends again what the wireless hop lost, and the sender hardly notices; nothing of the payload shows",
    seconds: 120,
    run: repairs_inside,
}];

/// Every interface, by its node.
fn interfaces<'a>(ctx: &'a Ctx<'_>) -> Result<Vec<(&'a Netns, &'static [&'static str])>> {
    let fa2 = ctx.net.fa2.as_ref().context("no second foreign agent")?;
    Ok(vec![
        (&ctx.net.cn, &["ha"]),
        (&ctx.net.ha, &["cn", "core"]),
        (ctx.net.core()?, &["ha", "fa1", "fa2"]),
        (&ctx.net.fa1, &["core", "wl1"]),
        (fa2, &["core", "wl2"]),
        (&ctx.net.mh, &["wl1", "wl2"]),
    ])
}

/// Segments that this node's TCP has sent again.
pub fn retransmitted(node: &Netns) -> Result<u64> {
    let text = node.run(&["nstat", "-az", "--json", "TcpRetransSegs"])?;
    let json: Value = serde_json::from_str(&text)?;
    json["kernel"]["TcpRetransSegs"]
        .as_u64()
        .context("nstat shows no TcpRetransSegs")
}

/// Packets that a foreign agent's wireless hop has lost.
pub fn lost_at(fa: &Netns, interface: &str) -> Result<u64> {
    let command = ["tc", "-s", "-j", "qdisc", "show", "dev", interface];
    let json: Value = serde_json::from_str(&fa.run(&command)?)?;
    json[0]["drops"].as_u64().context("no drops in tc's answer")
}

/// Packets that a foreign agent has sent again, for whatever reason.
pub fn repaired(fa: &Netns) -> Result<u64> {
    let stats = Stats::read(fa)?;
    let why = ["duplicate", "sack", "timer"];
    let counts = why.map(|why| stats.total(&format!("snoop-retransmitted-{why}")));
    Ok(counts.iter().sum())
}

/// No node hands its interfaces more than they send at once.
pub fn without_offloads(ctx: &Ctx) -> Result<()> {
    for (node, names) in interfaces(ctx)? {
        for name in names {
            topology::offload(node, name, false)?;
        }
    }
    Ok(())
}

fn repairs_inside(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    without_offloads(ctx)?;
    let keys = ctx.zone_tunnel(&Options::default())?;
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(&net.fa1, &["snoop", "set", "--spi", &spi])?;
    // Some distance between sender and foreign agent, so that a local repair is worth it.
    net.core()?
        .tc("qdisc replace dev fa1 root netem delay 100ms limit 4000")?;
    net.fa1
        .tc("qdisc replace dev wl1 root netem rate 20mbit delay 1ms loss 4% limit 1000")?;
    let data = traffic::marked(&traffic::random(16), 1_000_000);
    let capture = Capture::start(&net.mh, "wl1", "wl1-snoop")?;
    let (near, far) = Stream::pair(&net.cn, &net.mh, HOME, 5001)?;
    traffic::stream_arrives(&near, &far, &data)?;
    let (lost, resent) = (lost_at(&net.fa1, "wl1")?, retransmitted(&net.cn)?);
    let repaired = repaired(&net.fa1)?;
    ensure!(lost >= 15, "the hop lost {lost} packets only");
    ensure!(
        repaired * 2 >= lost,
        "{lost} lost, but {repaired} sent again at the foreign agent"
    );
    // Without SNOOP the sender sends again at least what was lost. Six guests on few processors are slow, so that it may
    // lose patience with a repair.
    ensure!(
        resent < lost,
        "{lost} lost, {repaired} repaired, and the sender still sent {resent} again"
    );
    capture.stop()?.never_shows(&data[..16])?;
    // Once everything is acknowledged, nothing is kept.
    let end = Instant::now() + ctx.seconds(15.0);
    while Stats::read(&net.fa1)?.total("snoop-octets-kept") > 0 {
        ensure!(Instant::now() < end, "octets are still kept");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
