// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The module's neighbours in the kernel: XFRM and netfilter, which must work beside it and be no way around it.

use anyhow::{ensure, Result};

use super::guard::{nothing_shows, outside, try_everything};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{self, CN, HA, HOME, MH};
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
        name: "xfrm-tunnel-and-transport-live-beside",
        proves: "the kernel's own ESP, in transport mode between the same two hosts and in tunnel mode for another address, carries its traffic while the two-zone tunnel carries its own, and nothing is in clear",
        seconds: 90,
        run: xfrm_beside,
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

fn xfrm_beside(ctx: &mut Ctx) -> Result<()> {
    for node in [&ctx.net.ha, &ctx.net.mh] {
        node.keys.are_xfrms(true);
    }
    topology::linear(&ctx.net)?;
    ctx.zone_tunnel(&Options::default())?;
    let net = &ctx.net;
    let key = |_| -> String {
        let octets = traffic::random(36);
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    };
    let keys: Vec<String> = (0..4).map(key).collect();
    let state = |index: usize, src, dst, mode| {
        format!(
            "xfrm state add src {src} dst {dst} proto esp spi {:#x} reqid {} mode {mode} replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{} 128",
            0x2001 + index,
            10 + index,
            keys[index]
        )
    };
    // UDP of the two hosts' own in transport mode; an address beside the home address in tunnel mode.
    let states = [
        state(0, HA, MH, "transport"),
        state(1, MH, HA, "transport"),
        state(2, HA, MH, "tunnel"),
        state(3, MH, HA, "tunnel"),
    ]
    .join("\n");
    let own = |src, dst, dir: &str, reqid| {
        format!("xfrm policy add src {src}/32 dst {dst}/32 proto udp dir {dir} tmpl proto esp reqid {reqid} mode transport\n")
    };
    let other = |ends: &str, dir: &str, src, dst, reqid| {
        format!("xfrm policy add {ends} dir {dir} tmpl src {src} dst {dst} proto esp reqid {reqid} mode tunnel\n")
    };
    let to = "src 192.0.2.0/24 dst 203.0.113.8/32";
    let from = "src 203.0.113.8/32 dst 192.0.2.0/24";
    net.ha.ip(&[
        states.clone(),
        own(HA, MH, "out", 10),
        own(MH, HA, "in", 11),
        other(to, "out", HA, MH, 12),
        other(from, "fwd", MH, HA, 13),
        other(from, "in", MH, HA, 13),
        "route add 203.0.113.8/32 via 198.51.100.2".into(),
    ]
    .join("\n"))?;
    net.mh.ip(&[
        states,
        own(MH, HA, "out", 11),
        own(HA, MH, "in", 10),
        other(from, "out", MH, HA, 13),
        other(to, "in", HA, MH, 12),
        "address add 203.0.113.8/32 dev lo".into(),
        "route add 192.0.2.0/24 via 10.1.1.1 src 203.0.113.8 table 200".into(),
        "rule add from 203.0.113.8 lookup 200".into(),
    ]
    .join("\n"))?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let second = std::net::Ipv4Addr::new(203, 0, 113, 8);
    let pairs = [
        (
            traffic::udp(&net.ha, HA, 4100)?,
            traffic::udp(&net.mh, MH, 5100)?,
        ),
        (
            traffic::udp(&net.cn, CN, 4101)?,
            traffic::udp(&net.mh, second, 5101)?,
        ),
        (
            traffic::udp(&net.cn, CN, 4102)?,
            traffic::udp(&net.mh, HOME, 5102)?,
        ),
    ];
    super::tunnel::everything(ctx, &marker)?;
    for size in [20, 700, 1300] {
        for (near, far) in &pairs {
            let data = traffic::marked(&marker, size);
            traffic::udp_arrives(near, far, &data)?;
            traffic::udp_arrives(far, near, &data)?;
        }
    }
    super::tunnel::everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    super::tunnel::no_drops_but(ctx, &["too-big", "relay-no-csa"])?;
    // Theirs were really used.
    let used = net.ha.run(&["ip", "-s", "xfrm", "state"])?;
    let idle = used.matches("0(bytes), 0(packets)").count();
    ensure!(
        idle == 0,
        "{idle} of the kernel's own SAs carried nothing:\n{used}"
    );
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
