// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 outside, inside, and both.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use anyhow::{ensure, Context, Result};

use crate::capture::Capture;
use crate::scenario::{Ctx, Scenario};
use crate::six::{self, Families, FAMILIES};
use crate::stats::Stats;
use crate::traffic;

use super::guard::{nothing_shows, outside};
use super::tunnel::no_drops_but;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "ipv6-inside-and-outside",
        proves: "IPv6 in IPv4, IPv4 in IPv6 and IPv6 in IPv6 carry UDP, TCP and echoes both ways, under every cipher kind; the relay opens them, no link shows a payload",
        seconds: 120,
        run: carries,
    },
    Scenario {
        name: "ipv6-every-packet-size-arrives",
        proves: "a datagram of each size to 3,000 octets arrives intact over IPv6, both ways, fragmented by its sender where it must be",
        seconds: 180,
        run: every_size,
    },
    Scenario {
        name: "ipv6-super-packets-are-cut",
        proves: "with segmentation offloads on, TCP over IPv6 hands super-packets to the tunnel, and what arrives is whole",
        seconds: 90,
        run: super_packets,
    },
    Scenario {
        name: "ipv6-fails-closed",
        proves: "under IPv6 policies without a CSA, or with a route past mml0, nothing leaves in clear and nothing clear comes in",
        seconds: 60,
        run: fails_closed,
    },
    Scenario {
        name: "ipv6-headers-past-what-is-followed-fail-closed",
        proves: "under a policy a datagram behind nine extension headers is dropped though it would be none of the policy's, one behind eight is what it is; without policies both go",
        seconds: 60,
        run: too_many_headers,
    },
    Scenario {
        name: "ipv6-neighbour-discovery-is-never-sealed",
        proves: "under policies that protect everything, neighbour discovery and listener reports go in clear on the link and never into the tunnel, and traffic goes on",
        seconds: 60,
        run: neighbours,
    },
    Scenario {
        name: "ipv6-path-mtu-shrinks",
        proves: "an ICMPv6 error about the outer packet lowers the tunnel's MTU, and TCP of both versions inside goes on",
        seconds: 120,
        run: path_shrinks,
    },
    Scenario {
        name: "snoop-repairs-ipv6",
        proves: "SNOOP repairs IPv6's TCP as it does IPv4's, inside the tunnel and plain",
        seconds: 120,
        run: snoop,
    },
];

/// UDP, TCP and an echo, both ways.
pub fn everything(ctx: &Ctx, families: Families, marker: &[u8]) -> Result<()> {
    let net = &ctx.net;
    let (cn, home) = families.hosts();
    let near = traffic::udp(&net.cn, cn, 4000)?;
    let far = traffic::udp(&net.mh, home, 5000)?;
    let data = traffic::marked(marker, 900);
    traffic::udp_arrives(&near, &far, &data).context("UDP to the mobile host")?;
    traffic::udp_arrives(&far, &near, &data).context("UDP from the mobile host")?;
    let data = traffic::marked(marker, 60_000);
    traffic::tcp_arrives(&net.cn, &net.mh, home, 5001, &data).context("TCP to the mobile host")?;
    traffic::tcp_arrives(&net.mh, &net.cn, cn, 5002, &data).context("TCP from the mobile host")?;
    for (from, source, to) in [(&net.cn, cn, home), (&net.mh, home, cn)] {
        ping(from, source, to)?;
    }
    Ok(())
}

fn ping(from: &crate::netns::Netns, source: IpAddr, to: IpAddr) -> Result<()> {
    let (source, to) = (source.to_string(), to.to_string());
    from.run(&["ping", "-n", "-c", "2", "-W", "5", "-I", &source, &to])
        .map(|_| ())
}

fn carries(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    for families in FAMILIES {
        for zone1 in ["aes256-gcm16-iiv", "aes128-gcm16", "chacha20-poly1305-iiv"] {
            let what = format!("{families:?} under {zone1}");
            crate::zone_tunnel::devices(&ctx.net)?;
            six::load(&ctx.net, families, &["--zone1", zone1, "--zone2", zone1])
                .with_context(|| what.clone())?;
            six::protect(&ctx.net, families)?;
            six::routes(&ctx.net, families)?;
            let marker = traffic::random(16);
            let before = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
            let captures = outside(ctx)?;
            everything(ctx, families, &marker).with_context(|| what.clone())?;
            nothing_shows(captures, &marker).with_context(|| what.clone())?;
            no_drops_but(ctx, &["too-big", "link-scope"]).with_context(|| what.clone())?;
            let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets") - before;
            ensure!(
                relayed > 50,
                "{what}: the foreign agent opened {relayed} packets"
            );
            clear(ctx)?;
        }
    }
    Ok(())
}

/// Takes the tunnel away and gives the plain routes back.
fn clear(ctx: &Ctx) -> Result<()> {
    for namespace in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
        crate::zone_tunnel::mmlctl(namespace, &["csa", "flush"])?;
        crate::zone_tunnel::mmlctl(namespace, &["policy", "flush", "--yes"])?;
    }
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        namespace.ip("link del mml0")?;
    }
    ctx.net
        .mh
        .ip("route replace default via 10.1.1.1 src 203.0.113.7")
}

fn every_size(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let families = FAMILIES[2];
    six::set_up(&ctx.net, families)?;
    let (cn, home) = families.hosts();
    let near = traffic::udp(&ctx.net.cn, cn, 4000)?;
    let far = traffic::udp(&ctx.net.mh, home, 5000)?;
    let octets = traffic::random(3000);
    for (from, to) in [(&near, &far), (&far, &near)] {
        learn_the_path(from, to)?;
        for size in 48..=3000 {
            traffic::udp_arrives(from, to, octets.get(..size - 48).unwrap_or_default())
                .with_context(|| format!("IPv6 packet of {size} octets"))?;
        }
    }
    no_drops_but(ctx, &["too-big", "link-scope"])
}

/// The first packets that are too big are answered, and lost.
fn learn_the_path(from: &std::net::UdpSocket, to: &std::net::UdpSocket) -> Result<()> {
    for _ in 0..20 {
        let _ = from.send_to(&[1; 1400], to.local_addr()?);
        if traffic::receive(to, traffic::SILENCE)?.is_some() {
            // Others may have been on their way.
            while traffic::receive(to, traffic::SILENCE)?.is_some() {}
            return Ok(());
        }
    }
    anyhow::bail!("no datagram of 1400 octets ever arrives")
}

fn super_packets(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    ctx.net.offloads(true)?;
    ctx.net.ha.sysctl("net.ipv4.tcp_min_tso_segs", "8")?;
    ctx.net.cn.sysctl("net.ipv4.tcp_min_tso_segs", "8")?;
    for families in FAMILIES {
        six::set_up(&ctx.net, families)?;
        let (_, home) = families.hosts();
        let capture = Capture::start(&ctx.net.ha, "mml0", "ha-mml0")?;
        let data = traffic::random(3_000_000);
        traffic::tcp_arrives(&ctx.net.cn, &ctx.net.mh, home, 5001, &data)?;
        let captured = capture.stop()?;
        let largest = captured.packets.iter().map(|p| p.frame.len()).max();
        ensure!(
            largest.is_some_and(|octets| octets > 2800),
            "{families:?}: the largest packet into the tunnel had {largest:?} octets"
        );
        no_drops_but(ctx, &["too-big", "link-scope"])?;
        clear(ctx)?;
    }
    Ok(())
}

/// docs/wire.md 2.4a.
fn fails_closed(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let families = FAMILIES[2];
    crate::zone_tunnel::devices(&ctx.net)?;
    six::protect(&ctx.net, families)?;
    let (cn, home) = families.hosts();
    let secret = traffic::random(16);
    let data = traffic::marked(&secret, 400);
    let attempts = |ctx: &Ctx, what: &str| -> Result<()> {
        let captures = outside(ctx)?;
        let near = traffic::udp(&ctx.net.cn, cn, 4000)?;
        let far = traffic::udp(&ctx.net.mh, home, 5000)?;
        for _ in 0..5 {
            let _ = near.send_to(&data, far.local_addr()?);
            let _ = far.send_to(&data, near.local_addr()?);
        }
        traffic::silent(&near).with_context(|| what.to_owned())?;
        traffic::silent(&far).with_context(|| what.to_owned())?;
        nothing_shows(captures, &secret).with_context(|| what.to_owned())?;
        Ok(())
    };
    attempts(ctx, "no CSA, plain routes")?;
    six::load(&ctx.net, families, &[])?;
    attempts(ctx, "CSAs, but routes past mml0")?;
    six::routes(&ctx.net, families)?;
    everything(ctx, families, &secret)?;
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        crate::zone_tunnel::mmlctl(namespace, &["csa", "flush"])?;
    }
    attempts(ctx, "routes into mml0, but no CSA")?;
    // From the access router, in clear, to the host: a policy says sealed.
    let spoofed = traffic::udp(&ctx.net.fa1, six_gateway(), 6000)?;
    let far = traffic::udp(&ctx.net.mh, home, 5000)?;
    let _ = spoofed.send_to(&data, far.local_addr()?);
    traffic::silent(&far)?;
    let stats = Stats::read(&ctx.net.mh)?;
    ensure!(stats.total("guard-in") > 0, "nothing clear was counted");
    ensure!(
        Stats::read(&ctx.net.ha)?.total("guard-out") > 0,
        "nothing on its way past mml0 was counted"
    );
    Ok(())
}

/// docs/wire.md 5e.
fn too_many_headers(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let families = FAMILIES[2];
    let (cn, home) = families.hosts();
    let (IpAddr::V6(cn), IpAddr::V6(home)) = (cn, home) else {
        anyhow::bail!("not IPv6 inside");
    };
    let (near, port) = (traffic::udp(&ctx.net.cn, cn, 4000)?, 4000u16);
    // A policy of other traffic than this.
    let other = |add: bool| {
        let change: &[&str] = if add {
            &[
                "add",
                "--dir",
                "out",
                "--discard",
                "--src",
                "2001:db8:999::/64",
                "--dst",
                "2001:db8:998::/64",
            ]
        } else {
            &["flush", "--yes"]
        };
        crate::zone_tunnel::mmlctl(&ctx.net.mh, &[&["policy"][..], change].concat())
    };
    for (policies, headers, arrives) in [
        (false, 8, true),
        (false, 9, true),
        (true, 8, true),
        (true, 9, false),
    ] {
        if policies {
            other(true)?;
        }
        let data = [u8::from(policies), headers as u8];
        let packet = behind_headers((home, cn), port, headers, &data);
        let _ = traffic::send_raw6(&ctx.net.mh, cn, &packet);
        let received = traffic::receive(
            &near,
            if arrives {
                traffic::ARRIVES
            } else {
                traffic::SILENCE
            },
        )?;
        let expected = arrives.then_some(&data[..]);
        ensure!(
            received.as_deref() == expected,
            "policies: {policies}, {headers} extension headers: {received:?} arrived"
        );
        if policies {
            other(false)?;
        }
    }
    Ok(())
}

/// A UDP datagram behind so many destination options headers.
fn behind_headers(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    port: u16,
    headers: usize,
    data: &[u8],
) -> Vec<u8> {
    const OPTIONS: u8 = 60;
    const UDP: u8 = 17;
    let udp_len = (8 + data.len()) as u16;
    let mut udp = [
        &port.to_be_bytes()[..],
        &port.to_be_bytes(),
        &udp_len.to_be_bytes(),
        &[0, 0],
        data,
    ]
    .concat();
    let pseudo = [
        &source.octets()[..],
        &destination.octets(),
        &u32::from(udp_len).to_be_bytes(),
        &u32::from(UDP).to_be_bytes(),
        &udp,
    ]
    .concat();
    let sum = pseudo
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0)))
        .sum();
    udp[6..8].copy_from_slice(&(!crate::headers::fold(sum)).to_be_bytes());
    let length = (headers * 8 + udp.len()) as u16;
    let mut packet = [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[OPTIONS, 64],
        &source.octets(),
        &destination.octets(),
    ]
    .concat();
    for left in (0..headers).rev() {
        // PadN over the whole of it (RFC 8200 §4.2).
        packet.extend([if left == 0 { UDP } else { OPTIONS }, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend(udp);
    packet
}

/// The foreign agent's address on the wireless link.
fn six_gateway() -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0x101, 0, 0, 0, 0, 1])
}

/// docs/wire.md 5a, 5b, 5f.
fn neighbours(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    let families = FAMILIES[2];
    six::set_up(&ctx.net, families)?;
    // Everything of the mobile host's is protected, and its link's own traffic isn't.
    for direction in ["in", "out"] {
        crate::zone_tunnel::mmlctl(
            &ctx.net.mh,
            &[
                "policy",
                "add",
                "--dir",
                direction,
                "--protect",
                "--src",
                "::/0",
                "--dst",
                "::/0",
                "--priority",
                "500",
            ],
        )?;
    }
    let (cn, home) = families.hosts();
    let near = traffic::udp(&ctx.net.cn, cn, 4000)?;
    let far = traffic::udp(&ctx.net.mh, home, 5000)?;
    let wireless = Capture::start(&ctx.net.mh, "wl1", "wl1")?;
    for _ in 0..3 {
        ctx.net.mh.ip("neigh flush dev wl1")?;
        ctx.net.fa1.ip("neigh flush dev wl1")?;
        traffic::udp_arrives(&near, &far, &[7; 100])?;
        traffic::udp_arrives(&far, &near, &[7; 100])?;
    }
    // Traffic to multicast that is no control of the link stays.
    let secret = traffic::random(16);
    let index = ctx
        .net
        .mh
        .enter(|| Ok(nix::net::if_::if_nametoindex("wl1")?))?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let _ = far.send_to(&secret, SocketAddrV6::new(all_nodes, 9, 0, index));
    let wireless = wireless.stop()?;
    wireless.never_shows(&secret)?;
    let (asked, answered) = (icmpv6(&wireless, 135), icmpv6(&wireless, 136));
    ensure!(
        asked > 0 && answered > 0,
        "in clear, {asked} neighbours were solicited and {answered} advertised"
    );
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        // The three datagrams and nothing besides.
        let sealed = Stats::read(namespace)?.total("sealed-packets");
        ensure!(sealed == 3, "{} sealed {sealed} packets", namespace.name());
    }
    Ok(())
}

/// How many ICMPv6 packets of a type there are in clear.
fn icmpv6(captured: &crate::capture::Captured, kind: u8) -> usize {
    captured
        .packets
        .iter()
        .filter_map(|packet| packet.frame.get(packet.link_header..))
        .filter(|ip| ip.first().is_some_and(|octet| octet >> 4 == 6))
        .filter(|ip| ip.get(6) == Some(&58) && ip.get(40) == Some(&kind))
        .count()
}

/// docs/wire.md 1.7k.
fn path_shrinks(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    ctx.net.offloads(false)?;
    for families in [FAMILIES[1], FAMILIES[2]] {
        ctx.net.core()?.ip("link set fa1 mtu 1500")?;
        ctx.net.fa1.ip("link set core mtu 1500")?;
        six::set_up(&ctx.net, families)?;
        let (_, home) = families.hosts();
        let data = traffic::random(400_000);
        traffic::tcp_arrives(&ctx.net.cn, &ctx.net.mh, home, 5001, &data)?;
        let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, home, 5002)?;
        ctx.net.core()?.ip("link set fa1 mtu 1400")?;
        ctx.net.fa1.ip("link set core mtu 1400")?;
        traffic::stream_arrives(&near, &far, &data)
            .with_context(|| format!("{families:?} after the path shrank"))?;
        traffic::stream_arrives(&far, &near, &data)
            .with_context(|| format!("{families:?} after the path shrank, back"))?;
        clear(ctx)?;
    }
    Ok(())
}

fn snoop(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    super::snoop::distant(ctx)?;
    super::snoop::lossy(ctx, 4.0)?;
    let data = traffic::random(1_500_000);
    let (_, home) = FAMILIES[2].hosts();
    super::snoop::snoop_plain(ctx, &[])?;
    super::snoop::is_mended(ctx, home, 5001, &data, "plain IPv6")?;
    crate::zone_tunnel::mmlctl(&ctx.net.fa1, &["snoop", "set", "--device", "none"])?;
    for families in FAMILIES {
        let spi = six::set_up(&ctx.net, families)?;
        crate::zone_tunnel::mmlctl(&ctx.net.fa1, &["snoop", "set", "--spi", &spi])?;
        let (_, home) = families.hosts();
        super::snoop::is_mended(ctx, home, 5003, &data, &format!("{families:?}"))?;
        clear(ctx)?;
    }
    Ok(())
}
