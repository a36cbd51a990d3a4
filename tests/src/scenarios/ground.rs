// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ground the other scenarios stand on: the network without the module's tunnel.

use anyhow::{ensure, Result};

use crate::capture::Capture;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{self, CN, HOME};
use crate::{headers, traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "plain-network-carries-everything",
        proves: "the topology itself carries UDP, TCP and ICMP between correspondent and mobile host, in clear",
        seconds: 60,
        run: plain,
    },
    Scenario {
        name: "kernel-esp-lives-beside-the-module",
        proves: "the kernel's own ESP works while the module is loaded, and shows nobody the payload",
        seconds: 60,
        run: kernel_esp,
    },
];

fn everything(ctx: &Ctx, marker: &[u8]) -> Result<()> {
    let net = &ctx.net;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, &traffic::marked(marker, 900))?;
    traffic::udp_arrives(&mh, &cn, &traffic::marked(marker, 900))?;
    traffic::tcp_arrives(
        &net.cn,
        &net.mh,
        HOME,
        5001,
        &traffic::marked(marker, 100_000),
    )?;
    traffic::tcp_arrives(
        &net.mh,
        &net.cn,
        CN,
        5002,
        &traffic::marked(marker, 100_000),
    )?;
    traffic::ping_arrives(&net.cn, CN, HOME, &traffic::marked(marker, 56))?;
    traffic::ping_arrives(&net.mh, HOME, CN, &traffic::marked(marker, 56))
}

fn plain(ctx: &mut Ctx) -> Result<()> {
    let marker = traffic::random(16);
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    everything(ctx, &marker)?;
    // Also proves that the captures of the scenarios to come would show a leak.
    ensure!(
        capture.stop()?.holding(&marker) > 10,
        "the capture does not show the traffic"
    );
    Ok(())
}

fn kernel_esp(ctx: &mut Ctx) -> Result<()> {
    let marker = traffic::random(16);
    topology::linear(&ctx.net)?;
    tunnel::kernel_esp(&ctx.net, 256)?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    everything(ctx, &marker)?;
    let captured = capture.stop()?;
    ensure!(
        captured.headers().any(|ip| ip.protocol == headers::ESP),
        "no ESP was seen"
    );
    captured.never_shows(&marker)?;
    Ok(())
}
