// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager on three nodes, with the real module and XFRM beneath it.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::tunnel::everything;
use crate::datagrams::streamed;
pub use crate::keyd::Keyd;
use crate::keyd::{three_nodes, HA_ALONE, MH_FILE};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::zone_tunnel;
use crate::{traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "keyd-negotiates-on-three-nodes",
        proves: "three key managers with a file each make fresh CSAs, give the foreign agent zone 1's key, and everything goes sealed, with no packet in clear before or after",
        seconds: 120,
        run: negotiates,
    },
    Scenario {
        name: "keyd-rekeys-under-traffic",
        proves: "new keys for a running stream each way, begun by either end: no packet is lost and none shows",
        seconds: 120,
        run: rekeys,
    },
    Scenario {
        name: "keyd-replaces-keys-by-age-and-octets",
        proves: "under a stream each way keys are replaced when they are a few seconds old, and when they have carried so many octets, with no packet lost",
        seconds: 120,
        run: by_age_and_octets,
    },
    Scenario {
        name: "keyd-crosses-a-nat-that-changes-its-mind",
        proves: "a mobile host behind a NAT negotiates and its packets travel in UDP; when the NAT gives it another port the home agent follows and traffic goes on, never in clear",
        seconds: 120,
        run: crosses_a_nat,
    },
    Scenario {
        name: "keyd-away-stops-no-traffic",
        proves: "while all three key managers are killed and come back, a stream each way goes on, loses no packet, and shows none",
        seconds: 150,
        run: away,
    },
    Scenario {
        name: "keyd-of-the-home-agent-dies-in-a-rekeying",
        proves: "the home agent's key manager is killed at moments all through a rekeying and comes back each time: a stream each way goes on, loses no packet, shows none, and the keys are new in the end",
        seconds: 240,
        run: dies_in_a_rekeying,
    },
    Scenario {
        name: "keyd-falls-back-to-plain-ipsec",
        proves: "with a peer that knows no zones the kernel's own ESP carries the traffic under the same policies, and nothing goes in clear",
        seconds: 120,
        run: falls_back,
    },
];

pub(super) fn nodes<'a>(ctx: &'a Ctx, more: &str) -> Result<[Keyd<'a>; 3]> {
    three_nodes(&ctx.net, more)
}

/// Waits until datagrams arrive both ways; nothing shows meanwhile.
pub(super) fn up(ctx: &Ctx) -> Result<()> {
    let near = traffic::udp(&ctx.net.cn, CN, 4100)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5100)?;
    let secret = traffic::random(32);
    let captures = outside(ctx)?;
    let end = Instant::now() + ctx.seconds(40.0);
    for (from, to) in [(&far, &near), (&near, &far)] {
        loop {
            // EPERM: the policies are there, the keys are not.
            let _ = from.send_to(&secret, to.local_addr()?);
            if traffic::receive(to, traffic::SILENCE)?.is_some() {
                break;
            }
            ensure!(Instant::now() < end, "no datagram arrived in 40 seconds");
        }
    }
    nothing_shows(captures, &secret)?;
    Ok(())
}

/// Waits until the foreign agent opens what passes.
pub(super) fn relayed(ctx: &Ctx) -> Result<()> {
    let end = Instant::now() + ctx.seconds(20.0);
    while Stats::read(&ctx.net.fa1)?.total("relayed-packets") == 0 {
        ensure!(Instant::now() < end, "the foreign agent opens nothing");
        traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"is anybody there")?;
    }
    Ok(())
}

/// docs/wire.md 3.1d.
fn negotiates(ctx: &mut Ctx) -> Result<()> {
    let _keyds = nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}

/// docs/wire.md 2.2u, 3.2o, 3.2p.
fn rekeys(ctx: &mut Ctx) -> Result<()> {
    let [ha, _fa, mh] = &nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    let before = mh.tell(&["sa", "list"])?;
    streamed(&[(&near, &far), (&far, &near)], || {
        for _ in 0..2 {
            mh.tell(&["rekey", "ha"])?;
            std::thread::sleep(ctx.seconds(2.0));
            ha.tell(&["rekey", "mh"])?;
            std::thread::sleep(ctx.seconds(2.0));
        }
        Ok(())
    })?;
    ensure!(
        mh.tell(&["sa", "list"])? != before,
        "the keys are the old ones"
    );
    relayed(ctx)
}

/// SPIs of the CSAs that a node's module seals with.
fn origins(node: &Netns) -> Result<Vec<u64>> {
    let list: serde_json::Value =
        serde_json::from_str(&zone_tunnel::mmlctl(node, &["--json", "csa", "list"])?)?;
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .filter(|csa| csa["role"] == "origin")
        .filter_map(|csa| csa["spi"].as_u64())
        .collect())
}

/// docs/wire.md 2.2u.
fn by_age_and_octets(ctx: &mut Ctx) -> Result<()> {
    for limits in [
        "rekey = \"4s\"\nlifetime = \"60s\"\n",
        "soft-bytes = 60000\nhard-bytes = 100000000\n",
    ] {
        let keyds = nodes(ctx, limits)?;
        up(ctx)?;
        relayed(ctx)?;
        let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
        let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
        let mut seen: std::collections::BTreeSet<u64> = origins(&ctx.net.mh)?.into_iter().collect();
        streamed(&[(&near, &far), (&far, &near)], || {
            let end = Instant::now() + ctx.seconds(40.0);
            while seen.len() < 4 {
                ensure!(
                    Instant::now() < end,
                    "with {limits:?} {} CSAs in 40 seconds",
                    seen.len()
                );
                std::thread::sleep(ctx.seconds(0.3));
                seen.extend(origins(&ctx.net.mh)?);
            }
            Ok(())
        })?;
        for keyd in keyds {
            keyd.end();
        }
        for node in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
            zone_tunnel::mmlctl(node, &["csa", "flush"])?;
            zone_tunnel::mmlctl(node, &["policy", "flush", "--yes"])?;
        }
        for node in [&ctx.net.ha, &ctx.net.mh] {
            node.ip("link del mml0")?;
        }
    }
    Ok(())
}

/// The core hides the mobile host's network, its packets' ports being of this range.
pub(super) fn hide(ctx: &Ctx, ports: &str) -> Result<()> {
    let net = &ctx.net;
    net.core()?.nft(&format!(
        "table ip nat
        delete table ip nat
        table ip nat {{
            chain post {{ type nat hook postrouting priority srcnat; oifname \"ha\" ip saddr 10.1.1.0/24 ip protocol udp masquerade to :{ports}; }}
        }}"
    ))?;
    // What the NAT remembers goes with its interface.
    net.core()?.ip("link set ha down
        link set ha up
        route add 192.0.2.0/24 via 198.51.100.1")
}

/// The UDP port that the home agent's newest CSA sends to.
fn port_towards_the_mobile_host(ctx: &Ctx) -> Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&zone_tunnel::mmlctl(
        &ctx.net.ha,
        &["--json", "csa", "list"],
    )?)?;
    list.as_array()
        .into_iter()
        .flatten()
        .filter(|csa| csa["role"] == "origin")
        .filter_map(|csa| csa["udp"]["dst-port"].as_u64())
        .next_back()
        .context("the home agent has no CSA in UDP")
}

fn crosses_a_nat(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    hide(ctx, "7000-7100")?;
    // Behind a NAT nobody can be reached by the address it has there.
    net.ha.ip("route del 10.1.0.0/16")?;
    let ha = HA_ALONE;
    let mh = MH_FILE;
    zone_tunnel::devices(net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    let _keyds = [Keyd::new(&net.ha, ha)?, Keyd::new(&net.mh, mh)?];
    up(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    let before = port_towards_the_mobile_host(ctx)?;
    hide(ctx, "8000-8100")?;
    up(ctx).context("with another port of the NAT's")?;
    everything(ctx, &marker)?;
    let after = port_towards_the_mobile_host(ctx)?;
    ensure!(
        (7000..=7100).contains(&before) && (8000..=8100).contains(&after),
        "the home agent sends to port {before}, then to {after}"
    );
    for captured in nothing_shows(captures, &marker)? {
        ensure!(
            captured
                .headers()
                .all(|ip| ip.protocol != crate::headers::ESP),
            "{}: ESP that isn't in UDP",
            captured.name
        );
    }
    Ok(())
}

/// docs/wire.md 3.2v.
fn away(ctx: &mut Ctx) -> Result<()> {
    let mut keyds = nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    streamed(&[(&near, &far), (&far, &near)], || {
        for keyd in &mut keyds {
            keyd.kill();
        }
        std::thread::sleep(ctx.seconds(2.0));
        for keyd in &mut keyds {
            keyd.start()?;
        }
        std::thread::sleep(ctx.seconds(8.0));
        Ok(())
    })?;
    up(ctx)
}

/// docs/wire.md 3.2v.
fn dies_in_a_rekeying(ctx: &mut Ctx) -> Result<()> {
    let [mut ha, fa, mh] = nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    let before = origins(&ctx.net.mh)?;
    let done = streamed(&[(&near, &far), (&far, &near)], || {
        // A rekeying takes some milliseconds here: before it, in its midst, after it.
        for millis in [0, 1, 3, 6, 12, 25, 50] {
            mh.tell(&["rekey", "ha"])?;
            std::thread::sleep(std::time::Duration::from_millis(millis));
            ha.kill();
            std::thread::sleep(ctx.seconds(0.5));
            ha.start()?;
            ha.answers(ctx.seconds(30.0))?;
            mh.up("ha", ctx.seconds(60.0))?;
            ha.up("mh", ctx.seconds(60.0))?;
            std::thread::sleep(ctx.seconds(4.0));
        }
        Ok(())
    });
    done.with_context(|| format!("{}{}{}", ha.log(), fa.log(), mh.log()))?;
    let after = origins(&ctx.net.mh)?;
    ensure!(
        after.iter().any(|spi| !before.contains(spi)),
        "the keys are the old ones"
    );
    up(ctx)
}

/// docs/wire.md 3.2c.
fn falls_back(ctx: &mut Ctx) -> Result<()> {
    crate::topology::linear(&ctx.net)?;
    let _keyds = nodes(ctx, "zones = \"off\"\n")?;
    for node in [&ctx.net.ha, &ctx.net.mh] {
        node.keys.are_xfrms(true);
    }
    up(ctx)?;
    let states = ctx.net.ha.run(&["ip", "xfrm", "state", "list"])?;
    ensure!(
        states.contains("proto esp"),
        "XFRM holds no state: {states}"
    );
    let sealed = Stats::read(&ctx.net.ha)?.total("sealed-packets");
    ensure!(sealed == 0, "the module sealed {sealed} packets");
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}
