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
    Ok(vec![
        (&ctx.net.cn, &["ha"]),
        (&ctx.net.ha, &["cn", "core"]),
        (ctx.net.core()?, &["ha", "fa1"]),
        (&ctx.net.fa1, &["core", "wl1"]),
        (&ctx.net.mh, &["wl1"]),
    ])
}

/// Segments that this node's TCP has sent again.
fn retransmitted(node: &Netns) -> Result<u64> {
    let text = node.run(&["nstat", "-az", "--json", "TcpRetransSegs"])?;
    let json: Value = serde_json::from_str(&text)?;
    json["kernel"]["TcpRetransSegs"]
        .as_u64()
        .context("nstat shows no TcpRetransSegs")
}

/// Packets that the wireless hop has lost.
fn lost(ctx: &Ctx) -> Result<u64> {
    let command = ["tc", "-s", "-j", "qdisc", "show", "dev", "wl1"];
    let json: Value = serde_json::from_str(&ctx.net.fa1.run(&command)?)?;
    json[0]["drops"].as_u64().context("no drops in tc's answer")
}

fn repairs_inside(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    for (node, names) in interfaces(ctx)? {
        for name in names {
            topology::offload(node, name, false)?;
        }
    }
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
    let (lost, resent) = (lost(ctx)?, retransmitted(&net.cn)?);
    let stats = Stats::read(&net.fa1)?;
    let repaired: u64 = ["duplicate", "sack", "timer"]
        .iter()
        .map(|why| stats.total(&format!("snoop-retransmitted-{why}")))
        .sum();
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
