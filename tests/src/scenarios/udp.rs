// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! UDP encapsulation, a NAT on the way, and tunnels that move while they are used.

use std::net::UdpSocket;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::guard::{nothing_shows, outside};
use super::tunnel::{everything, no_drops_but};
use crate::capture::Captured;
use crate::datagrams::streamed;
use crate::encap::encap;
use crate::headers;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::six::{self, FAMILIES};
use crate::stats::Stats;
use crate::topology::{CN, HA, HOME, MH};
use crate::traffic;
use crate::zone_tunnel::{self, mmlctl, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "udp-encapsulation-crosses-a-nat",
        proves: "with mobile host and foreign agent behind a NAT, sealed packets travel in UDP from port to port, the relay opens them there, everything arrives, and no link shows a payload",
        seconds: 90,
        run: crosses_a_nat,
    },
    Scenario {
        name: "a-new-mapping-is-told-and-followed",
        proves: "authentic packets from another port raise NAT_T_NEW_MAPPING at the home agent; MIGRATE follows it, and of a running stream no packet is lost",
        seconds: 90,
        run: new_mapping,
    },
    Scenario {
        name: "migrate-loses-nothing",
        proves: "both directions of a tunnel move to another outer address under a stream each way, and not one packet is lost or comes in clear",
        seconds: 90,
        run: migrate,
    },
    Scenario {
        name: "udp-encapsulation-over-ipv6",
        proves: "in UDP over IPv6 the checksum over the sealed octets is right, for everything arrives through a socket that checks it",
        seconds: 60,
        run: over_ipv6,
    },
];

/// The core hides the mobile host's network behind its own address.
pub const NAT: &str = "198.51.100.2";

/// A tunnel in UDP through a NAT. The sockets live as long as what is returned.
fn behind_a_nat(ctx: &Ctx) -> Result<[UdpSocket; 2]> {
    let net = &ctx.net;
    net.core()?.nft(
        "table ip nat {
            chain post { type nat hook postrouting priority srcnat; oifname \"ha\" ip saddr 10.1.1.0/24 masquerade; }
        }",
    )?;
    // Behind a NAT nobody can be reached by the address it has there.
    net.ha.ip("route del 10.1.0.0/16")?;
    let sockets = [encap(&net.ha, HA, 4500)?, encap(&net.mh, MH, 4500)?];
    zone_tunnel::devices(net)?;
    let folder = zone_tunnel::new_files(&["--udp"])?;
    let file = folder.join("ha.toml");
    let text = std::fs::read_to_string(&file)?.replace(&MH.to_string(), NAT);
    std::fs::write(&file, text)?;
    zone_tunnel::load_files(net, &folder, true)?;
    Ok(sockets)
}

/// How many packets are ESP itself, and how many UDP from or to a port.
fn count(captured: &Captured, port: u16) -> (usize, usize) {
    let esp = captured.esp().count();
    let udp = captured
        .headers()
        .filter(|ip| ip.protocol == headers::UDP)
        .filter(|ip| {
            ip.ports()
                .is_some_and(|(from, to)| from == port || to == port)
        })
        .count();
    (esp, udp)
}

/// docs/wire.md 1.7m, 1.7n, 1.7o.
fn crosses_a_nat(ctx: &mut Ctx) -> Result<()> {
    let _sockets = behind_a_nat(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    // The mobile host speaks first: the NAT learns of it by that.
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    traffic::udp_arrives(&far, &near, &marker)?;
    everything(ctx, &marker)?;
    for captured in nothing_shows(captures, &marker)? {
        let (esp, udp) = count(&captured, 4500);
        ensure!(
            esp == 0
                && (udp > 50 || captured.name.contains("fa2") || captured.name.contains("wl2")),
            "{}: {esp} packets of ESP, {udp} of UDP from or to port 4500",
            captured.name
        );
        ensure!(
            captured
                .headers()
                .filter(|ip| ip.protocol == headers::UDP)
                .all(|ip| ip.payload.get(6..8) == Some(&[0, 0])),
            "{}: a UDP checksum that isn't 0",
            captured.name
        );
    }
    no_drops_but(ctx, &["too-big"])?;
    let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
    ensure!(relayed > 50, "the foreign agent opened {relayed} packets");
    Ok(())
}

/// Moves the CSA of a role at a node.
fn move_csa(namespace: &Netns, role: &str, to: &[&str]) -> Result<()> {
    let list: Value = serde_json::from_str(&mmlctl(namespace, &["--json", "csa", "list"])?)?;
    let spi = list
        .as_array()
        .into_iter()
        .flatten()
        .find(|csa| csa["role"] == role)
        .and_then(|csa| csa["spi"].as_u64())
        .with_context(|| format!("no {role} at {}", namespace.name()))?
        .to_string();
    mmlctl(
        namespace,
        &[&["csa", "migrate", &spi, "--role", role], to].concat(),
    )
    .map(|_| ())
}

/// docs/wire.md 2.2h, 2.2i.
fn new_mapping(ctx: &mut Ctx) -> Result<()> {
    let _sockets = behind_a_nat(ctx)?;
    let net = &ctx.net;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    traffic::udp_arrives(&far, &near, &[1; 40])?;
    traffic::udp_arrives(&near, &far, &[1; 40])?;
    let monitor = net.ha.background(&["mmlctl", "--json", "monitor"])?;
    let since = std::time::Instant::now();
    // To the home agent, another port of the mobile host's looks like a NAT that has changed its mind.
    let _other = encap(&net.mh, MH, 4501)?;
    streamed(&[(&near, &far), (&far, &near)], || {
        move_csa(&net.mh, "terminus", &["--udp", "4500:4501"])?;
        move_csa(&net.mh, "origin", &["--udp", "4501:4500"])?;
        std::thread::sleep(ctx.seconds(2.5));
        move_csa(&net.ha, "origin", &["--udp", "4500:4501"])?;
        move_csa(&net.ha, "terminus", &["--udp", "4501:4500"])
    })?;
    let told = monitor.stop()?.stdout;
    ensure!(
        told.contains("new-mapping")
            && told.contains("\"migrate\"")
            && told.contains(&format!("{NAT}:4501"))
            && told.contains(&format!("{NAT}:4500")),
        "the home agent was told: {told}"
    );
    // Of hundreds of packets from there: one a second at most.
    let (mappings, most) = (
        told.matches("new-mapping").count(),
        since.elapsed().as_secs() + 2,
    );
    ensure!(
        (2..=most).contains(&(mappings as u64)),
        "{mappings} new mappings were told of in less than {most} s: {told}"
    );
    no_drops_but(ctx, &[])
}

/// docs/wire.md 2.2h.
fn migrate(ctx: &mut Ctx) -> Result<()> {
    zone_tunnel::set_up(
        &ctx.net,
        &Options {
            relay: false,
            ..Options::default()
        },
    )?;
    let net = &ctx.net;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    traffic::udp_arrives(&far, &near, &[1; 40])?;
    let captures = outside(ctx)?;
    streamed(&[(&near, &far), (&far, &near)], || {
        for _ in 0..3 {
            for to in ["10.1.2.7", "10.1.1.7"] {
                // Who opens must know before who seals.
                move_csa(&net.mh, "terminus", &["--to-dst", to])?;
                move_csa(&net.ha, "terminus", &["--to-src", to])?;
                move_csa(&net.ha, "origin", &["--to-dst", to])?;
                move_csa(&net.mh, "origin", &["--to-src", to])?;
                std::thread::sleep(ctx.seconds(0.2));
            }
        }
        Ok(())
    })?;
    let mut moved = 0;
    for captured in nothing_shows(captures, &5009u16.to_be_bytes().repeat(8))? {
        moved += captured
            .headers()
            .filter(|ip| ip.protocol == headers::ESP)
            .filter(|ip| [ip.source, ip.destination].contains(&[10, 1, 2, 7].into()))
            .count();
        ensure!(
            captured.headers().all(|ip| ip.protocol != headers::UDP),
            "{}: UDP in clear",
            captured.name
        );
    }
    ensure!(moved > 50, "{moved} packets took the other address");
    no_drops_but(ctx, &[])
}

/// docs/wire.md 1.7n.
fn over_ipv6(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let families = FAMILIES[2];
    let (ha, mh) = families.ends();
    let _sockets = [encap(&ctx.net.ha, ha, 4500)?, encap(&ctx.net.mh, mh, 4500)?];
    zone_tunnel::devices(&ctx.net)?;
    six::load(&ctx.net, families, &["--udp"])?;
    six::protect(&ctx.net, families)?;
    six::routes(&ctx.net, families)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    super::ipv6::everything(ctx, families, &marker)?;
    nothing_shows(captures, &marker)?;
    no_drops_but(ctx, &["too-big", "link-scope"])?;
    let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
    ensure!(relayed > 50, "the foreign agent opened {relayed} packets");
    Ok(())
}
