// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Transport mode: what home agent and mobile host say to one another themselves, under their own IP headers.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::tunnel::no_drops_but;
use super::udp::NAT;
use crate::capture::{Capture, Captured};
use crate::encap::encap;
use crate::headers::{self, IpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::six::{self, Families};
use crate::stats::Watch;
use crate::topology::{HA, MH};
use crate::traffic;
use crate::transport_mode::{folder, new_files, protect, route, set_up};
use crate::zone_tunnel::{self, mmlctl};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "transport-mode-carries-everything",
        proves: "TCP, super-packets, UDP of any size and ICMP between the two hosts go under their own headers over IPv4 and IPv6, bare and in UDP, with explicit and implicit IVs, and no link shows a payload",
        seconds: 180,
        run: carries,
    },
    Scenario {
        name: "transport-mode-crosses-a-nat",
        proves: "past a NAT that changes the datagrams' own source address TCP and UDP arrive though their checksums are over another one",
        seconds: 60,
        run: crosses_a_nat,
    },
    Scenario {
        name: "transport-mode-learns-the-path",
        proves: "where the path between them is narrower than their links, the two hosts learn it through the sealed packets, over IPv4 and IPv6, and TCP and UDP with DF go on",
        seconds: 60,
        run: learns_the_path,
    },
    Scenario {
        name: "transport-mode-is-for-the-end-points",
        proves: "a relay's CSA, selectors of other hosts, a move to other addresses and fragments are refused, each by name, and without a CSA nothing goes in clear",
        seconds: 60,
        run: refuses,
    },
];

const V4: Families = Families { outer: 4, inner: 4 };
const V6: Families = Families { outer: 6, inner: 6 };

/// Takes it all away again.
fn clear(ctx: &Ctx, version: &str) -> Result<()> {
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        mmlctl(namespace, &["csa", "flush"])?;
        mmlctl(namespace, &["policy", "flush", "--yes"])?;
        namespace.ip("link del mml0")?;
        for pref in ["10", "11", "20"] {
            namespace.run(&["ip", version, "rule", "del", "pref", pref])?;
        }
    }
    Ok(())
}

fn everything(ctx: &Ctx, ends: (IpAddr, IpAddr), marker: &[u8]) -> Result<()> {
    let (ha, mh) = ends;
    let net = &ctx.net;
    let near = traffic::udp(&net.ha, ha, 4001)?;
    let far = traffic::udp(&net.mh, mh, 5009)?;
    for (from, to) in [(&far, &near), (&near, &far)] {
        for size in [0, 1, 2, 3, 4, 5, 100, 900, 1200] {
            traffic::udp_arrives(from, to, &traffic::marked(marker, size))
                .with_context(|| format!("UDP of {size}"))?;
        }
    }
    for (client, server, to, port) in [(&net.mh, &net.ha, ha, 5001), (&net.ha, &net.mh, mh, 5002)] {
        traffic::tcp_arrives(client, server, to, port, &traffic::marked(marker, 400_000))
            .with_context(|| format!("TCP to {to}"))?;
    }
    let (from, to) = (mh.to_string(), ha.to_string());
    net.mh.run(&[
        "ping", "-n", "-c", "2", "-W", "5", "-s", "300", "-I", &from, &to,
    ])?;
    net.ha
        .run(&["ping", "-n", "-c", "2", "-W", "5", "-I", &to, &from])?;
    Ok(())
}

/// What transport mode costs, from what is captured: bare, over IPv4, with implicit IVs (docs/wire.md 1.11f).
fn costs(ctx: &Ctx, (ha, mh): (IpAddr, IpAddr)) -> Result<()> {
    let near = traffic::udp(&ctx.net.ha, ha, 4001)?;
    let far = traffic::udp(&ctx.net.mh, mh, 5009)?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    for size in 60..120 {
        traffic::udp_arrives(&far, &near, &traffic::random(size))?;
    }
    let captured = capture.stop()?;
    let sealed: Vec<usize> = captured
        .headers()
        .filter(|ip| ip.protocol == headers::ESP)
        .map(|ip| ip.total_length)
        .collect();
    ensure!(
        sealed.len() == 60,
        "{} packets for 60 datagrams",
        sealed.len()
    );
    for (size, sealed) in (60..120).zip(sealed) {
        let cost = sealed - (28 + size);
        ensure!(
            (48..=51).contains(&cost),
            "{cost} octets on a datagram of {size}"
        );
    }
    Ok(())
}

/// Counts ESP and UDP of port 4500; in IPv4 between the ends there is nothing else.
fn is_sealed(captured: &Captured, ends: (IpAddr, IpAddr)) -> Result<usize> {
    let mut sealed = 0;
    for ip in captured.headers() {
        let between = [IpAddr::from(ip.source), ip.destination.into()];
        if !between.contains(&ends.0) || !between.contains(&ends.1) {
            continue;
        }
        let encapsulated = ip.protocol == headers::UDP
            && (ip.is_fragment() || ip.ports().is_some_and(|(a, b)| a == 4500 && b == 4500));
        ensure!(
            ip.protocol == headers::ESP || encapsulated,
            "{}: protocol {} in clear",
            captured.name,
            ip.protocol
        );
        sealed += 1;
    }
    Ok(sealed)
}

/// docs/wire.md 1.11a, 1.11e, 2.1m, 5a.
fn carries(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    ctx.net.offloads(true)?;
    for (families, version) in [(V4, "-4"), (V6, "-6")] {
        let ends = families.ends();
        for more in [
            &[][..],
            &["--udp"],
            &["--zone1", "aes128-gcm16", "--zone2", "chacha20-poly1305"],
        ] {
            let what = format!("{families:?} with {more:?}");
            let _sockets = if more == ["--udp"] {
                Some([
                    encap(&ctx.net.ha, ends.0, 4500)?,
                    encap(&ctx.net.mh, ends.1, 4500)?,
                ])
            } else {
                None
            };
            set_up(&ctx.net, ends, more).with_context(|| what.clone())?;
            let marker = traffic::random(16);
            let captures = outside(ctx)?;
            everything(ctx, ends, &marker).with_context(|| what.clone())?;
            if families == V4 && more.is_empty() {
                costs(ctx, ends)?;
            }
            if families == V4 && more != ["--udp"] {
                // Where mml0 lets them in whole, big datagrams are sealed whole, and cut outside.
                for namespace in [&ctx.net.ha, &ctx.net.mh] {
                    namespace.ip("link set mml0 mtu 65448")?;
                }
                let near = traffic::udp(&ctx.net.ha, ends.0, 4001)?;
                let far = traffic::udp(&ctx.net.mh, ends.1, 5009)?;
                for size in [1472, 3000, 20_000, 60_000] {
                    traffic::udp_arrives(&far, &near, &traffic::marked(&marker, size))
                        .with_context(|| format!("{what}: UDP of {size}"))?;
                    traffic::udp_arrives(&near, &far, &traffic::marked(&marker, size))
                        .with_context(|| format!("{what}: UDP of {size}"))?;
                }
            }
            for captured in nothing_shows(captures, &marker).with_context(|| what.clone())? {
                let sealed = is_sealed(&captured, ends)?;
                ensure!(
                    families == V6
                        || sealed > 50
                        || captured.name.contains("fa2")
                        || captured.name.contains("wl2"),
                    "{what}: {}: {sealed} sealed packets",
                    captured.name
                );
            }
            no_drops_but(ctx, &["too-big", "link-scope"]).with_context(|| what.clone())?;
            clear(ctx, version)?;
        }
    }
    Ok(())
}

/// docs/wire.md 1.7p, 1.11b.
fn crosses_a_nat(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    net.core()?.nft(
        "table ip nat {
            chain post { type nat hook postrouting priority srcnat; oifname \"ha\" ip saddr 10.1.1.0/24 masquerade; }
        }",
    )?;
    net.ha.ip("route del 10.1.0.0/16")?;
    let nat: IpAddr = NAT.parse()?;
    let _sockets = [encap(&net.ha, HA, 4500)?, encap(&net.mh, MH, 4500)?];
    let folder = folder();
    new_files(&folder, V4.ends(), &["--udp"])?;
    let file = folder.join("ha.toml");
    let text = std::fs::read_to_string(&file)?.replace(&MH.to_string(), NAT);
    std::fs::write(&file, text)?;
    for (namespace, file, own, peer) in [
        (&net.mh, "mh.toml", MH.into(), HA.into()),
        (&net.ha, "ha.toml", IpAddr::from(HA), nat),
    ] {
        namespace.ip("link add mml0 type mml\nlink set mml0 up")?;
        zone_tunnel::load_file(namespace, &folder.join(file))?;
        protect(namespace, own, peer)?;
        route(namespace, own, peer)?;
    }
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    traffic::tcp_arrives(
        &net.mh,
        &net.ha,
        HA,
        5001,
        &traffic::marked(&marker, 200_000),
    )?;
    let near = traffic::udp(&net.ha, HA, 4001)?;
    let far = traffic::udp(&net.mh, MH, 5009)?;
    for size in [3, 700] {
        let data = traffic::marked(&marker, size);
        far.send_to(&data, (HA, 4001))?;
        let (received, from) = {
            let mut buffer = [0; 2000];
            let (len, from) = near.recv_from(&mut buffer).context("UDP past the NAT")?;
            (buffer[..len].to_vec(), from)
        };
        ensure!(
            received == data && from.ip() == nat,
            "{size} octets came from {from}"
        );
        near.send_to(&data, from)?;
        ensure!(
            traffic::receive(&far, ctx.seconds(5.0))?.as_ref() == Some(&data),
            "the answer of {size} octets"
        );
    }
    nothing_shows(captures, &marker)?;
    no_drops_but(ctx, &["too-big"])
}

/// docs/wire.md 1.11e.
fn learns_the_path(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let net = &ctx.net;
    for (namespace, device) in [(net.core()?, "fa1"), (&net.fa1, "core")] {
        namespace.ip(&format!("link set {device} mtu 1350"))?;
    }
    for (families, version) in [(V4, "-4"), (V6, "-6")] {
        let (ha, mh) = families.ends();
        set_up(net, (ha, mh), &[])?;
        // The links' own MTU less the overhead: more than the path has.
        for namespace in [&net.ha, &net.mh] {
            namespace.ip("link set mml0 mtu 1448")?;
        }
        let capture = Capture::start(net.core()?, "fa1", "core-fa1")?;
        for (client, server, to, port) in
            [(&net.mh, &net.ha, ha, 5001), (&net.ha, &net.mh, mh, 5002)]
        {
            traffic::tcp_arrives(client, server, to, port, &traffic::random(300_000))
                .with_context(|| format!("{families:?}: TCP to {to}"))?;
        }
        ensure!(
            capture.stop()?.headers().all(|ip| !ip.is_fragment()),
            "{families:?}: an outer fragment was seen"
        );
        let near = traffic::udp(&net.ha, ha, 4001)?;
        let far = traffic::udp(&net.mh, mh, 5009)?;
        if families == V4 {
            // With DF the sender is told by the first one what fits.
            traffic::dont_fragment(&far)?;
            let refused = far.send_to(&[3; 1400], (HA, 4001)).is_err()
                || traffic::receive(&near, traffic::SILENCE)?.is_none();
            ensure!(refused, "1,400 octets went over a path of 1,350");
        }
        traffic::udp_arrives(&far, &near, &traffic::random(1200))?;
        clear(ctx, version)?;
    }
    Ok(())
}

/// docs/wire.md 1.11c, 1.11d.
fn refuses(ctx: &mut Ctx) -> Result<()> {
    let ends = V4.ends();
    let folder = set_up(&ctx.net, ends, &[])?;
    let net = &ctx.net;
    let text = std::fs::read_to_string(folder.join("ha.toml.loaded"))?;
    let relay = text
        .split("\n[[csa]]")
        .find(|table| table.contains("\"origin\""))
        .map(|table| {
            let (table, _) = table.split_once("[csa.zone2]").unwrap_or((table, ""));
            format!("[[csa]]{}", table.replace("\"origin\"", "\"relay\""))
        })
        .context("no origin in the file")?;
    let other = text.replace(&format!("dst = \"{MH}/32\""), "dst = \"10.1.1.0/24\"");
    for (name, text, said) in [
        ("relay", relay, "a relay of transport mode"),
        (
            "selector",
            other,
            "in transport mode its source and destination",
        ),
    ] {
        let file = format!("/run/transport-{name}.toml");
        std::fs::write(&file, &text)?;
        std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        let refused = net.fa1.attempt(&["mmlctl", "csa", "add", "-f", &file])?;
        ensure!(
            !refused.success && refused.stderr.contains(said),
            "{name}: {}{}",
            refused.stdout,
            refused.stderr
        );
    }
    let list: serde_json::Value =
        serde_json::from_str(&mmlctl(&net.mh, &["--json", "csa", "list"])?)?;
    let spi = list
        .as_array()
        .into_iter()
        .flatten()
        .find(|csa| csa["role"] == "origin")
        .and_then(|csa| csa["spi"].as_u64())
        .context("no origin")?;
    let moved = net.mh.attempt(&[
        "mmlctl",
        "csa",
        "migrate",
        &spi.to_string(),
        "--role",
        "origin",
        "--to-src",
        "10.1.2.7",
    ])?;
    ensure!(
        !moved.success && moved.stderr.contains("only its ports"),
        "{}{}",
        moved.stdout,
        moved.stderr
    );

    // A fragment has a transport header only once it is whole again.
    let watch = Watch::start(&net.mh)?;
    let socket = traffic::raw(&net.mh, 255)?;
    let fragment = IpDraft {
        more_fragments: true,
        ..IpDraft::new(MH, HA, headers::UDP)
    };
    traffic::send_raw(&socket, &fragment.write(&[7; 200]))?;
    watch.expect(&[("fragment", 1)])?;

    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let near = traffic::udp(&net.ha, HA, 4001)?;
    let far = traffic::udp(&net.mh, MH, 5009)?;
    traffic::udp_arrives(&far, &near, &traffic::marked(&marker, 300))?;
    mmlctl(&net.mh, &["csa", "flush"])?;
    let _ = far.send_to(&traffic::marked(&marker, 300), (HA, 4001));
    traffic::silent(&near)?;
    net.mh.ip("link del mml0")?;
    let _ = far.send_to(&traffic::marked(&marker, 300), (HA, 4001));
    traffic::silent(&near)?;
    nothing_shows(captures, &marker).map(|_| ())
}
