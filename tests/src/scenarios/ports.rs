// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ports in selectors: policies and CSAs for some ports alone (`docs/wire.md` §2.3, §2.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{ensure, Context, Result};

use super::guard::nothing_shows;
use crate::capture::{Capture, Captured};
use crate::headers::{self, IpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::six::{self, CN6, HOME6};
use crate::stats::Watch;
use crate::topology::{CN, HA, HOME, MH};
use crate::zone_esp::Draft;
use crate::zone_message::{
    self, policy, with_ports, Action, Direction, Message, Role, ANY, HOME_ONLY,
};
use crate::zone_tunnel::{self, mmlctl, Keys, Options};
use crate::{traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "bypass-of-ports-passes-those-alone",
        proves: "a bypass policy for UDP between two ports lets these out and in over IPv4 and IPv6, and no other port, protocol or direction of theirs",
        seconds: 90,
        run: bypass,
    },
    Scenario {
        name: "no-fragment-slips-past-by-a-bypass-of-ports",
        proves: "fragments of a datagram whose ports a bypass names, first ones too, and datagrams too short for ports are dropped out and in, over IPv4 and IPv6, while a whole one that the host cuts afterwards goes",
        seconds: 90,
        run: fragments,
    },
    Scenario {
        name: "protect-policy-of-ports-covers-what-shows-none",
        proves: "a protect policy for a range of ports drops that range and every fragment, and lets other ports go in clear",
        seconds: 60,
        run: protect,
    },
    Scenario {
        name: "csa-of-one-port-seals-that-alone",
        proves: "a CSA for one port seals and opens that port's datagrams alone, before another for all ports of the same hosts; other ports, fragments and what doesn't fit are dropped, each under its reason",
        seconds: 90,
        run: csa,
    },
];

/// Ports that are let pass: the mobile host's and the correspondent's.
const OWN: u16 = 5000;
const PEER: u16 = 4000;

/// Policies of the mobile host alone: what it sends and gets is protected, but for UDP between the two ports.
fn bypass_policies(net: &crate::topology::Topology) -> Result<()> {
    zone_tunnel::devices(net)?;
    let protect = |direction, selected, ends| {
        policy(
            Action::Protect,
            direction,
            selected,
            0,
            zone_tunnel::PRIORITY,
            ends,
        )
    };
    let pass =
        |direction, selected| policy(Action::Bypass, direction, selected, headers::UDP, 10, None);
    let one = |port| (port, port);
    zone_tunnel::send(
        &net.mh,
        &[
            protect(Direction::Out, (HOME_ONLY, ANY), Some((MH, HA))),
            protect(Direction::In, (ANY, HOME_ONLY), None),
            with_ports(&pass(Direction::Out, (HOME_ONLY, ANY)), one(OWN), one(PEER)),
            with_ports(&pass(Direction::In, (ANY, HOME_ONLY)), one(PEER), one(OWN)),
        ],
    )
}

/// The same for IPv6, by `mmlctl`.
fn bypass_policies6(net: &crate::topology::Topology) -> Result<()> {
    let home = format!("{HOME6}/128");
    let (own, peer) = (OWN.to_string(), PEER.to_string());
    for (dir, src, dst, src_port, dst_port) in [
        ("out", home.as_str(), "::/0", &own, &peer),
        ("in", "::/0", home.as_str(), &peer, &own),
    ] {
        let add = ["policy", "add", "--dir", dir, "--src", src, "--dst", dst];
        mmlctl(
            &net.mh,
            &[&add[..], &["--protect", "--priority", "100"]].concat(),
        )?;
        let ports = [
            "--bypass",
            "--proto",
            "17",
            "--src-port",
            src_port,
            "--dst-port",
            dst_port,
        ];
        mmlctl(&net.mh, &[&add[..], &ports[..]].concat())?;
    }
    Ok(())
}

/// docs/wire.md 2.3l, 2.4f, 5c.
fn bypass(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    bypass_policies(&ctx.net)?;
    bypass_policies6(&ctx.net)?;
    let net = &ctx.net;
    let sides: [(IpAddr, IpAddr); 2] = [(CN.into(), HOME.into()), (CN6.into(), HOME6.into())];
    for (cn, home) in sides {
        let peer = traffic::udp(&net.cn, cn, PEER)?;
        let own = traffic::udp(&net.mh, home, OWN)?;
        traffic::udp_arrives(&own, &peer, b"may go in clear")?;
        traffic::udp_arrives(&peer, &own, b"may come in clear")?;
        let marker = traffic::random(16);
        let data = traffic::marked(&marker, 100);
        let other_peer = traffic::udp(&net.cn, cn, PEER + 1)?;
        let other_own = traffic::udp(&net.mh, home, OWN + 1)?;
        let swapped_peer = traffic::udp(&net.cn, cn, OWN)?;
        let swapped_own = traffic::udp(&net.mh, home, PEER)?;
        let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
        let watch = Watch::start(&net.mh)?;
        for (from, to) in [
            (&own, &other_peer),
            (&other_own, &peer),
            (&other_own, &other_peer),
            (&swapped_own, &swapped_peer),
        ] {
            let _ = from.send_to(&data, to.local_addr()?);
            traffic::silent(to)?;
        }
        // The same ports of TCP.
        ensure!(
            traffic::tcp_pair(&net.mh, &net.cn, cn, PEER + 2).is_err(),
            "TCP connected past the policies"
        );
        let out = watch.grown()?.get("guard-out").copied().unwrap_or(0);
        ensure!(out >= 5, "the guard counted {out} on their way out");
        nothing_shows(vec![capture], &marker)?;
        let watch = Watch::start(&net.mh)?;
        for (from, to) in [
            (&other_peer, &own),
            (&peer, &other_own),
            (&swapped_peer, &swapped_own),
        ] {
            from.send_to(&data, to.local_addr()?)?;
            traffic::silent(to)?;
        }
        let grown = watch.grown()?;
        ensure!(
            grown.get("guard-in") == Some(&3),
            "the guard counted {grown:?} on their way in"
        );
    }
    // What was added is listed with its ports, and named by them.
    let list = mmlctl(&net.mh, &["policy", "list"])?;
    ensure!(
        list.contains("port 5000") && list.contains("port 4000"),
        "the list shows no ports:\n{list}"
    );
    let named = [
        "policy",
        "delete",
        "--dir",
        "in",
        "--dst",
        "203.0.113.7/32",
        "--proto",
        "17",
    ];
    ensure!(
        mmlctl(&net.mh, &named).is_err(),
        "a policy of ports was deleted without them"
    );
    let ports = ["--src-port", "4000", "--dst-port", "5000"];
    mmlctl(&net.mh, &[&named[..], &ports[..]].concat())?;
    let peer = traffic::udp(&net.cn, CN, PEER)?;
    let own = traffic::udp(&net.mh, HOME, OWN)?;
    peer.send_to(b"no longer", (HOME, OWN))?;
    traffic::silent(&own)
}

/// Three fragments of a UDP datagram with these ports, and the datagram's data.
fn cut(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), data: &[u8]) -> Vec<Vec<u8>> {
    let whole = headers::udp(source, ports.0, destination, ports.1, data);
    let last = whole.len().div_ceil(64) - 1;
    whole
        .chunks(64)
        .enumerate()
        .map(|(n, piece)| {
            let mut ip = IpDraft::new(source, destination, headers::UDP);
            ip.fragment_offset = n * 64;
            ip.more_fragments = n < last;
            ip.write(piece)
        })
        .collect()
}

/// An IPv6 packet of `next` from one address to another.
fn ip6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// The same in fragments (RFC 8200 §4.5).
fn cut6(source: Ipv6Addr, destination: Ipv6Addr, ports: (u16, u16), data: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    whole.extend((8 + data.len() as u16).to_be_bytes());
    whole.extend([0xAB, 0xCD]);
    whole.extend(data);
    let last = whole.len().div_ceil(64) - 1;
    whole
        .chunks(64)
        .enumerate()
        .map(|(n, piece)| {
            let offset = (n as u16 * 64) | u16::from(n < last);
            let mut payload = vec![headers::UDP, 0];
            payload.extend(offset.to_be_bytes());
            payload.extend([0x4d, 0x4c, 0, 1]);
            payload.extend(piece);
            ip6(source, destination, 44, &payload)
        })
        .collect()
}

/// docs/wire.md 2.3m, 2.4f.
fn fragments(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    bypass_policies(&ctx.net)?;
    bypass_policies6(&ctx.net)?;
    let net = &ctx.net;
    let peer = traffic::udp(&net.cn, CN, PEER)?;
    let own = traffic::udp(&net.mh, HOME, OWN)?;
    // It works, and the neighbours know each other.
    traffic::udp_arrives(&own, &peer, b"whole")?;
    traffic::udp_arrives(&peer, &own, b"whole")?;
    let peer6 = traffic::udp(&net.cn, CN6, PEER)?;
    let own6 = traffic::udp(&net.mh, HOME6, OWN)?;
    traffic::udp_arrives(&own6, &peer6, b"whole")?;
    traffic::udp_arrives(&peer6, &own6, b"whole")?;

    let marker = traffic::random(16);
    let data = traffic::marked(&marker, 120);
    let short = |source, destination, len| {
        let udp = headers::udp(source, OWN, destination, PEER, b"");
        IpDraft::new(source, destination, headers::UDP).write(&udp[..len])
    };
    let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
    let raw = traffic::raw(&net.mh, 255)?;
    let watch = Watch::start(&net.mh)?;
    let mut sent = 0;
    for packet in cut(HOME, CN, (OWN, PEER), &data) {
        let _ = traffic::send_raw(&raw, &packet);
        sent += 1;
    }
    for len in 0..4 {
        let _ = traffic::send_raw(&raw, &short(HOME, CN, len));
        sent += 1;
    }
    for packet in cut6(HOME6, CN6, (OWN, PEER), &data) {
        let _ = traffic::send_raw6(&net.mh, CN6, &packet);
        sent += 1;
    }
    let _ = traffic::send_raw6(&net.mh, CN6, &ip6(HOME6, CN6, headers::UDP, &[0x13]));
    sent += 1;
    traffic::silent(&peer)?;
    let grown = watch.grown()?;
    ensure!(
        grown.get("guard-out") == Some(&sent),
        "{sent} fragments and short datagrams, and the guard counted {grown:?}"
    );
    nothing_shows(vec![capture], &marker)?;

    let raw = traffic::raw(&net.cn, 255)?;
    let watch = Watch::start(&net.mh)?;
    let mut sent = 0;
    for packet in cut(CN, HOME, (PEER, OWN), &data) {
        traffic::send_raw(&raw, &packet)?;
        sent += 1;
    }
    for len in 0..4 {
        let udp = headers::udp(CN, PEER, HOME, OWN, b"");
        let packet = IpDraft::new(CN, HOME, headers::UDP).write(&udp[..len]);
        traffic::send_raw(&raw, &packet)?;
        sent += 1;
    }
    for packet in cut6(CN6, HOME6, (PEER, OWN), &data) {
        traffic::send_raw6(&net.cn, HOME6, &packet)?;
        sent += 1;
    }
    traffic::silent(&own)?;
    traffic::silent(&own6)?;
    let grown = watch.grown()?;
    ensure!(
        grown.get("guard-in") == Some(&sent),
        "{sent} fragments and short datagrams, and the guard counted {grown:?}"
    );

    // The host's own whole datagram shows its ports where the guard is asked, and is cut afterwards.
    let large = traffic::random(3000);
    traffic::udp_arrives(&own, &peer, &large)
}

/// docs/wire.md 2.3l, 2.4f.
fn protect(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    let some = policy(
        Action::Protect,
        Direction::Out,
        (HOME_ONLY, ANY),
        headers::UDP,
        zone_tunnel::PRIORITY,
        Some((MH, HA)),
    );
    zone_tunnel::send(&net.mh, &[with_ports(&some, (0, 0), (4000, 4009))])?;
    let own = traffic::udp(&net.mh, HOME, OWN)?;
    for (port, passes) in [
        (3999, true),
        (4000, false),
        (4005, false),
        (4009, false),
        (4010, true),
    ] {
        let peer = traffic::udp(&net.cn, CN, port)?;
        if passes {
            traffic::udp_arrives(&own, &peer, b"another port")?;
        } else {
            let _ = own.send_to(b"sealed or not at all", (CN, port));
            traffic::silent(&peer).with_context(|| format!("port {port}"))?;
        }
    }
    // Whose fragments these are nobody can tell.
    let marker = traffic::random(16);
    let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
    let raw = traffic::raw(&net.mh, 255)?;
    let watch = Watch::start(&net.mh)?;
    let pieces = cut(HOME, CN, (OWN, 3999), &traffic::marked(&marker, 200));
    for piece in &pieces {
        let _ = traffic::send_raw(&raw, piece);
    }
    std::thread::sleep(traffic::SILENCE);
    let grown = watch.grown()?;
    ensure!(
        grown.get("guard-out") == Some(&(pieces.len() as u64)),
        "{} fragments, and the guard counted {grown:?}",
        pieces.len()
    );
    nothing_shows(vec![capture], &marker).map(|_| ())
}

/// The CSAs of both ends for the mobile host's UDP port alone.
fn load_for_port(net: &crate::topology::Topology, keys: &Keys) -> Result<()> {
    let add = |sa: &crate::zone_esp::Sa, role| {
        let (selected, source, destination) = if sa.destination == MH {
            ((ANY, HOME_ONLY), (0, 0), (OWN, OWN))
        } else {
            ((HOME_ONLY, ANY), (OWN, OWN), (0, 0))
        };
        let message = zone_message::add(sa, role, selected, 8192, 0);
        let udp = message.with(zone_message::SELECTOR, |octets| octets[1] = headers::UDP);
        with_ports(&udp, source, destination)
    };
    let at = |first: Message, second: Message| [first, second];
    zone_tunnel::send(
        &net.mh,
        &at(
            add(&keys.to_mh, Role::Terminus),
            add(&keys.from_mh, Role::Origin),
        ),
    )?;
    zone_tunnel::send(
        &net.ha,
        &at(
            add(&keys.from_mh, Role::Terminus),
            add(&keys.to_mh, Role::Origin),
        ),
    )
}

/// How many ESP packets of an SPI were captured.
fn of_spi(captured: &Captured, spi: u32) -> usize {
    captured
        .esp()
        .filter(|esp| esp.starts_with(&spi.to_be_bytes()))
        .count()
}

/// docs/wire.md 1.7r, 1.9t, 2.2p, 2.3m.
fn csa(ctx: &mut Ctx) -> Result<()> {
    let options = Options::default();
    let keys = Keys::new(&options);
    zone_tunnel::devices(&ctx.net)?;
    load_for_port(&ctx.net, &keys)?;
    zone_tunnel::protect(&ctx.net)?;
    tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    let net = &ctx.net;
    let marker = traffic::random(16);
    let data = traffic::marked(&marker, 300);
    let cn = traffic::udp(&net.cn, CN, PEER)?;
    let own = traffic::udp(&net.mh, HOME, OWN)?;
    let other = traffic::udp(&net.mh, HOME, OWN + 1)?;
    let captures = super::guard::outside(ctx)?;
    traffic::udp_arrives(&cn, &own, &data)?;
    traffic::udp_arrives(&own, &cn, &data)?;
    let watch = Watch::start(&net.ha)?;
    cn.send_to(&data, (HOME, OWN + 1))?;
    traffic::silent(&other)?;
    watch.expect(&[("no-csa", 1)])?;
    let watch = Watch::start(&net.mh)?;
    let _ = other.send_to(&data, (CN, PEER));
    traffic::silent(&cn)?;
    watch.expect(&[("no-csa", 1)])?;
    // A fragment that comes to be forwarded, with the right ports at its front.
    let raw = traffic::raw(&net.cn, 255)?;
    let watch = Watch::start(&net.ha)?;
    for piece in cut(CN, HOME, (PEER, OWN), &data[..150]) {
        traffic::send_raw(&raw, &piece)?;
    }
    traffic::silent(&own)?;
    watch.expect(&[("no-csa", 3)])?;
    // A datagram that would have to be cut: IP does it in front of mml0, or mml0 finds that it would have to.
    let large = traffic::marked(&marker, 1450);
    let watch = Watch::start(&net.ha)?;
    cn.send_to(&large, (HOME, OWN))?;
    traffic::silent(&own)?;
    watch.expect(&[("no-csa", 2)])?;
    net.ha.ip("link set mml0 mtu 1500")?;
    let watch = Watch::start(&net.ha)?;
    cn.send_to(&large, (HOME, OWN))?;
    traffic::silent(&own)?;
    watch.expect(&[("fragment", 1)])?;
    nothing_shows(captures, &marker)?;

    // What a holder of the keys seals of other ports, or in fragments, the terminus drops.
    let inject = |sequence, datagram: &[u8]| -> Result<()> {
        let esp = Draft::new(&keys.to_mh, sequence, datagram).seal(&keys.to_mh)?;
        let core = traffic::raw(net.core()?, 255)?;
        traffic::send_raw(&core, &crate::zone_esp::outer(&keys.to_mh, &esp))
    };
    let datagram = |port| {
        let udp = headers::udp(CN, PEER, HOME, port, b"by hand");
        IpDraft::new(CN, HOME, headers::UDP).write(&udp)
    };
    inject(100, &datagram(OWN))?;
    ensure!(
        traffic::receive(&own, traffic::ARRIVES)?.as_deref() == Some(b"by hand"),
        "the right port's was not delivered"
    );
    let mut wrong = vec![datagram(OWN + 1), datagram(PEER)];
    wrong.extend(cut(CN, HOME, (PEER, OWN), &data[..150]));
    let udp = headers::udp(CN, PEER, HOME, OWN, b"");
    wrong.push(IpDraft::new(CN, HOME, headers::UDP).write(&udp[..3]));
    let watch = Watch::start(&net.mh)?;
    for (sequence, datagram) in (101..).zip(&wrong) {
        inject(sequence, datagram)?;
    }
    traffic::silent(&own)?;
    traffic::silent(&other)?;
    watch.expect(&[("selector", wrong.len() as u64)])?;

    // Another one for all ports of the same hosts, newer: the one of the port still seals that.
    let all = zone_tunnel::load(net, &options)?;
    let capture = Capture::start(&net.fa1, "wl1", "fa1-mh")?;
    traffic::udp_arrives(&cn, &own, b"one")?;
    traffic::udp_arrives(&cn, &other, b"another")?;
    traffic::udp_arrives(&other, &cn, b"another back")?;
    let captured = capture.stop()?;
    let counts = (
        of_spi(&captured, keys.to_mh.spi),
        of_spi(&captured, all.to_mh.spi),
        of_spi(&captured, all.from_mh.spi),
    );
    ensure!(counts == (1, 1, 1), "packets by SPI: {counts:?}");
    Ok(())
}
