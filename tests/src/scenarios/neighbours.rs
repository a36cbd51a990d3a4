// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The module's neighbours in the kernel: XFRM and netfilter, which must work beside it and be no way around it.

use anyhow::{ensure, Result};

use super::guard::{nothing_shows, outside, try_everything};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{self, CN, HOME};
use crate::zone_tunnel::{self, Options};
use crate::{traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "xfrm-satisfies-protect",
        proves: "a protect policy is content with what the kernel's own ESP seals and opens",
        seconds: 60,
        run: xfrm,
    },
    Scenario {
        name: "netfilter-neighbours-are-no-way-around",
        proves: "with conntrack, an nft flowtable, br_netfilter and strict rp_filter on, the tunnel carries everything and the guard still fails closed",
        seconds: 90,
        run: netfilter,
    },
];

/// docs/wire.md 2.4b.
fn xfrm(ctx: &mut Ctx) -> Result<()> {
    topology::linear(&ctx.net)?;
    tunnel::kernel_esp(&ctx.net, 256)?;
    zone_tunnel::protect(&ctx.net)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    super::tunnel::everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    super::tunnel::no_drops_but(ctx, &[])?;
    tunnel::no_kernel_esp(&ctx.net)?;
    let captures = outside(ctx)?;
    try_everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}

fn netfilter(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    ctx.zone_tunnel(&Options::default())?;
    for namespace in net.all() {
        // 1 is strict reverse-path filtering (RFC 3704 §2.2).
        namespace.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
        namespace.nft(
            "table inet track {
                chain forward { type filter hook forward priority 0; policy accept; ct state invalid counter drop; }
                chain in { type filter hook input priority 0; policy accept; ct state invalid counter drop; }
                chain out { type filter hook output priority 0; policy accept; ct state new counter; }
            }",
        )?;
    }
    for (namespace, devices) in [(&net.ha, "cn, core, mml0"), (&net.fa1, "core, wl1")] {
        namespace.nft(&format!(
            "table inet fast {{
                flowtable quick {{ hook ingress priority 0; devices = {{ {devices} }}; }}
                chain forward {{ type filter hook forward priority 1; policy accept; meta l4proto {{ tcp, udp }} flow add @quick counter; }}
            }}"
        ))?;
    }
    // A bridge at the foreign agent with br_netfilter on, as access points have.
    net.fa1.ip("link add br0 type bridge
        link set br0 up
        address del 10.1.1.1/24 dev wl1
        link set wl1 master br0
        address add 10.1.1.1/24 dev br0
        route replace 203.0.113.7/32 via 10.1.1.7")?;
    net.fa1.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    super::tunnel::everything(ctx, &marker)?;
    // Long enough for the flowtable to take the flow over.
    let data = traffic::marked(&marker, 300_000);
    traffic::tcp_arrives(&net.cn, &net.mh, HOME, 5003, &data)?;
    traffic::tcp_arrives(&net.mh, &net.cn, CN, 5004, &data)?;
    nothing_shows(captures, &marker)?;
    let relayed = Stats::read(&net.fa1)?.total("relayed-packets");
    ensure!(
        relayed > 0,
        "the foreign agent opened nothing behind its bridge"
    );
    // The guard must hold for a flow that a flowtable already forwards by itself.
    net.ha.ip("route replace 203.0.113.7/32 via 198.51.100.2")?;
    net.mh
        .ip("route replace default via 10.1.1.1 src 203.0.113.7")?;
    let captures = outside(ctx)?;
    try_everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}
