// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The guard: what a protect policy covers leaves and arrives sealed, or not at all (`docs/wire.md` §2, §5).

use std::net::Ipv4Addr;

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;

use crate::capture::{Capture, Captured};
use crate::genl::{Genl, EVENTS};
use crate::headers::{self, IpDraft};
use crate::module;
use crate::scenario::{Ctx, Scenario, MODULE};
use crate::sockets::UdpSocket;
use crate::stats::{Stats, Watch};
use crate::topology::{CN, HA, HOME, MH};
use crate::zone_message::{self, policy, Action, Direction, Message, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, Options};
use crate::{traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "no-csa-fails-closed",
        proves: "a protect policy without a CSA lets nothing out in clear, through mml0 or past it, and raises ACQUIRE",
        seconds: 60,
        run: no_csa,
    },
    Scenario {
        name: "wrong-route-fails-closed",
        proves: "with a CSA but a route past mml0, at the home agent or the mobile host, nothing leaves in clear",
        seconds: 60,
        run: wrong_route,
    },
    Scenario {
        name: "inbound-clear-is-dropped",
        proves: "what arrives in clear though a policy says sealed is dropped and counted, for the host itself and forwarded",
        seconds: 60,
        run: inbound_clear,
    },
    Scenario {
        name: "bypass-policy-passes-exactly-that",
        proves: "a bypass policy in front of a protect policy lets the protocol it names out and in, and nothing else",
        seconds: 60,
        run: bypass,
    },
    Scenario {
        name: "of-equal-priorities-the-oldest-decides",
        proves: "of a protect and a bypass policy of one priority that both cover a packet the one that was added first decides, either way round",
        seconds: 60,
        run: equal_priorities,
    },
    Scenario {
        name: "discard-policy-discards",
        proves: "a discard policy drops what it covers, counted, and nothing else",
        seconds: 60,
        run: discard,
    },
    Scenario {
        name: "bypass-does-not-apply-to-forwarded-traffic",
        proves: "a router's bypass policy opens no way for what it merely forwards",
        seconds: 60,
        run: bypass_forwarded,
    },
    Scenario {
        name: "rmmod-is-busy-with-protect-policy",
        proves: "the module can't be taken away while a protect policy stands, in any namespace, and can afterwards",
        seconds: 60,
        run: rmmod_busy,
    },
    Scenario {
        name: "link-scope-control-passes",
        proves: "IGMP and ICMP router discovery to multicast pass in clear under a policy that protects everything; other traffic to multicast does not",
        seconds: 60,
        run: link_scope,
    },
];

/// Captures on every link behind the home agent.
pub fn outside(ctx: &Ctx) -> Result<Vec<Capture>> {
    let mut links = super::tunnel::all_links(ctx)?;
    links.remove(0);
    Ok(links)
}

/// Ends the captures, none of which may show the secret.
pub fn nothing_shows(captures: Vec<Capture>, secret: &[u8]) -> Result<Vec<Captured>> {
    let captured: Vec<Captured> = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<_>>()?;
    for link in &captured {
        link.never_shows(secret)?;
    }
    Ok(captured)
}

/// Sends marked UDP, TCP's first packet and ICMP both ways, expecting none to arrive.
pub fn try_everything(ctx: &Ctx, marker: &[u8]) -> Result<()> {
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let data = traffic::marked(marker, 500);
    let attempt = |from: &UdpSocket, to: &UdpSocket| -> Result<()> {
        // EPERM tells a local sender that the guard dropped it.
        let _ = from.send_to(&data, to.local_addr()?);
        Ok(())
    };
    for _ in 0..3 {
        attempt(&cn, &mh)?;
        attempt(&mh, &cn)?;
    }
    for (node, source, destination) in [(&ctx.net.cn, CN, HOME), (&ctx.net.mh, HOME, CN)] {
        let raw = traffic::raw(node, 255)?;
        let echo = IpDraft::new(source, destination, headers::ICMP)
            .write(&headers::icmp(8, 0, [0; 4], &data));
        let _ = traffic::send_raw(&raw, &echo);
        let segment = headers::TcpDraft {
            source_port: 4001,
            destination_port: 5001,
            sequence: 0,
            acknowledgement: 0,
            flags: 0x18,
            window: 100,
        };
        let _ = traffic::send_raw(
            &raw,
            &IpDraft::new(source, destination, headers::TCP).write(&segment.write(
                source,
                destination,
                &data,
            )),
        );
    }
    traffic::silent(&mh)?;
    traffic::silent(&cn)
}

/// docs/wire.md 2.1q, 2.4a.
fn no_csa(ctx: &mut Ctx) -> Result<()> {
    let marker = traffic::random(16);
    zone_tunnel::devices(&ctx.net)?;
    zone_tunnel::protect(&ctx.net)?;
    let events = Genl::open(&ctx.net.ha)?;
    events.join(EVENTS)?.context("joining the events")?;
    // Past mml0: the network itself would carry it in clear.
    let captures = outside(ctx)?;
    let watch = Watch::start(&ctx.net.ha)?;
    try_everything(ctx, &marker)?;
    ensure!(
        watch
            .grown()?
            .get("guard-out")
            .is_some_and(|count| *count >= 5),
        "the guard counted {:?}",
        watch.grown()?
    );
    nothing_shows(captures, &marker)?;
    let event = events.event(traffic::ARRIVES)?.context("no ACQUIRE came")?;
    ensure!(
        event.get(1) == Some(&zone_message::ACQUIRE),
        "the event is of type {:?}",
        event.get(1)
    );
    for end in [HA.octets(), MH.octets()] {
        ensure!(headers::find(&event, &end), "ACQUIRE does not name {end:?}");
    }
    // Through mml0; at most one ACQUIRE a second comes of a policy.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    let captures = outside(ctx)?;
    let watch = Watch::start(&ctx.net.ha)?;
    try_everything(ctx, &marker)?;
    ensure!(
        watch
            .grown()?
            .get("no-csa")
            .is_some_and(|count| *count >= 5),
        "mml0 counted {:?}",
        watch.grown()?
    );
    nothing_shows(captures, &marker)?;
    let acquired = std::iter::from_fn(|| events.event(traffic::SILENCE).ok().flatten())
        .any(|event| event.get(1) == Some(&zone_message::ACQUIRE));
    ensure!(acquired, "no ACQUIRE came for what mml0 could not seal");
    Ok(())
}

/// docs/wire.md 2.4a.
fn wrong_route(ctx: &mut Ctx) -> Result<()> {
    let marker = traffic::random(16);
    ctx.zone_tunnel(&Options {
        routes: false,
        ..Options::default()
    })?;
    let captures = outside(ctx)?;
    let watch = Watch::start(&ctx.net.ha)?;
    try_everything(ctx, &marker)?;
    ensure!(
        watch
            .grown()?
            .get("guard-out")
            .is_some_and(|count| *count >= 5),
        "the guard counted {:?}",
        watch.grown()?
    );
    nothing_shows(captures, &marker)?;
    // Right again, it works; wrong again in the middle of a flow, it stops.
    tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    super::tunnel::everything(ctx, &marker)?;
    ctx.net
        .ha
        .ip("route replace 203.0.113.7/32 via 198.51.100.2")?;
    ctx.net
        .mh
        .ip("route replace default via 10.1.1.1 src 203.0.113.7")?;
    let captures = outside(ctx)?;
    try_everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}

fn inbound_clear(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"sealed works")?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let datagram = |source, destination| {
        IpDraft::new(source, destination, headers::UDP).write(&headers::udp(
            source,
            4000,
            destination,
            5000,
            b"in clear",
        ))
    };
    let watch = Watch::start(&ctx.net.mh)?;
    for _ in 0..5 {
        traffic::send_raw(&core, &datagram(CN, HOME))?;
    }
    traffic::silent(&mh)?;
    watch.expect(&[("guard-in", 5)])?;
    // At the home agent, what claims to come from the home address, to be forwarded.
    let cn = traffic::udp(&ctx.net.cn, CN, 5000)?;
    let watch = Watch::start(&ctx.net.ha)?;
    for _ in 0..5 {
        traffic::send_raw(&core, &datagram(HOME, CN))?;
    }
    traffic::silent(&cn)?;
    watch.expect(&[("guard-in", 5)])
}

/// docs/wire.md 2.4e, 5c.
fn bypass(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    // The mobile host alone: its own ICMP may go in clear, over a network that routes its home address in clear.
    zone_tunnel::devices(net)?;
    zone_tunnel::send(
        &net.mh,
        &[
            policy(
                Action::Protect,
                Direction::Out,
                (HOME_ONLY, ANY),
                0,
                zone_tunnel::PRIORITY,
                Some((MH, HA)),
            ),
            policy(
                Action::Protect,
                Direction::In,
                (ANY, HOME_ONLY),
                0,
                zone_tunnel::PRIORITY,
                None,
            ),
            policy(
                Action::Bypass,
                Direction::Out,
                (HOME_ONLY, ANY),
                headers::ICMP,
                10,
                None,
            ),
            policy(
                Action::Bypass,
                Direction::In,
                (ANY, HOME_ONLY),
                headers::ICMP,
                10,
                None,
            ),
        ],
    )?;
    traffic::ping_arrives(&net.mh, HOME, CN, b"may go in clear")?;
    traffic::ping_arrives(&net.cn, CN, HOME, b"may come in clear")?;
    let marker = traffic::random(16);
    let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    let _ = mh.send_to(&traffic::marked(&marker, 100), (CN, 4000));
    traffic::silent(&cn)?;
    nothing_shows(vec![capture], &marker)?;
    cn.send_to(b"in clear", (HOME, 5000))?;
    traffic::silent(&mh)
}

/// docs/wire.md 2.4e.
fn equal_priorities(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    let protect = policy(
        Action::Protect,
        Direction::Out,
        (HOME_ONLY, ANY),
        0,
        zone_tunnel::PRIORITY,
        Some((MH, HA)),
    );
    let bypass = policy(
        Action::Bypass,
        Direction::Out,
        (HOME_ONLY, ANY),
        headers::UDP,
        zone_tunnel::PRIORITY,
        None,
    );
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    for (order, passes) in [([&protect, &bypass], false), ([&bypass, &protect], true)] {
        for message in order {
            zone_tunnel::send(&net.mh, std::slice::from_ref(message))?;
        }
        let _ = mh.send_to(b"by the oldest", (CN, 4000));
        if passes {
            let received = traffic::receive(&cn, traffic::ARRIVES)?;
            ensure!(
                received.as_deref() == Some(b"by the oldest"),
                "the bypass policy is older, and {received:?} arrived"
            );
        } else {
            traffic::silent(&cn).context("the protect policy is older")?;
        }
        zone_tunnel::mmlctl(&net.mh, &["policy", "flush", "--yes"])?;
    }
    Ok(())
}

fn discard(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    let block = |source| {
        policy(
            Action::Discard,
            Direction::Out,
            (source, HOME_ONLY),
            headers::UDP,
            10,
            None,
        )
    };
    zone_tunnel::send(&net.ha, &[block((Ipv4Addr::new(192, 0, 2, 0), 24))])?;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    let watch = Watch::start(&net.ha)?;
    for _ in 0..4 {
        cn.send_to(b"dropped", (HOME, 5000))?;
    }
    traffic::silent(&mh)?;
    watch.expect(&[("discard", 4)])?;
    traffic::ping_arrives(&net.cn, CN, HOME, b"another protocol")?;
    traffic::udp_arrives(&mh, &cn, b"another direction")
}

/// docs/wire.md 5d.
fn bypass_forwarded(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::protect(net)?;
    zone_tunnel::send(
        &net.ha,
        &[policy(
            Action::Bypass,
            Direction::Out,
            (ANY, HOME_ONLY),
            headers::UDP,
            10,
            None,
        )],
    )?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    cn.send_to(&traffic::marked(&marker, 200), (HOME, 5000))?;
    std::thread::sleep(traffic::SILENCE);
    nothing_shows(captures, &marker)?;
    // The home agent's own datagram is what the policy names.
    let captures = outside(ctx)?;
    let ha = traffic::udp(&net.ha, HA, 4000)?;
    ha.send_to(&traffic::marked(&marker, 200), (HOME, 5000))
        .context("the home agent's own datagram")?;
    std::thread::sleep(traffic::SILENCE);
    let captured: Vec<Captured> = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<_>>()?;
    ensure!(
        captured
            .first()
            .is_some_and(|link| link.holding(&marker) == 1),
        "the bypass policy did not let out what it names"
    );
    Ok(())
}

/// docs/wire.md 2.2m, 2.4c.
fn rmmod_busy(ctx: &mut Ctx) -> Result<()> {
    zone_tunnel::protect(&ctx.net)?;
    match module::try_unload(MODULE) {
        Err(Errno::EBUSY | Errno::EAGAIN) => {}
        other => bail!("unloading under a protect policy gave {other:?}"),
    }
    let flush = Message::new(zone_message::SPDFLUSH, Vec::new());
    zone_tunnel::send(&ctx.net.ha, std::slice::from_ref(&flush))?;
    match module::try_unload(MODULE) {
        Err(Errno::EBUSY | Errno::EAGAIN) => {}
        other => bail!("unloading with the mobile host's policies left gave {other:?}"),
    }
    zone_tunnel::send(&ctx.net.mh, &[flush])?;
    // Bypass and discard policies keep nobody from going: without the module their traffic is as clear as ever.
    zone_tunnel::send(
        &ctx.net.mh,
        &[policy(
            Action::Bypass,
            Direction::Out,
            (HOME_ONLY, ANY),
            0,
            0,
            None,
        )],
    )?;
    module::unload(MODULE, ctx.seconds(5.0)).context("with the protect policies gone")?;
    ctx.modules.load(MODULE)
}

/// docs/wire.md 5b.
fn link_scope(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    zone_tunnel::send(
        &net.mh,
        &[policy(
            Action::Protect,
            Direction::Out,
            (ANY, ANY),
            0,
            0,
            Some((MH, HA)),
        )],
    )?;
    net.mh.ip("route add 224.0.0.0/4 dev wl1")?;
    let all_routers = Ipv4Addr::new(224, 0, 0, 2);
    let sender = traffic::raw(&net.mh, 255)?;
    let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
    let from_mh = |destination, protocol| IpDraft {
        ttl: 1,
        ..IpDraft::new(MH, destination, protocol)
    };
    let router_solicitation =
        from_mh(all_routers, headers::ICMP).write(&headers::icmp(10, 0, [0; 4], b""));
    let membership = from_mh(Ipv4Addr::new(224, 0, 0, 22), headers::IGMP)
        .write(&headers::icmp(0x22, 0, [0; 4], b""));
    traffic::send_raw(&sender, &router_solicitation).context("router solicitation")?;
    traffic::send_raw(&sender, &membership).context("IGMP report")?;
    let marker = traffic::random(16);
    let forbidden = [
        from_mh(all_routers, headers::UDP).write(&headers::udp(MH, 1, all_routers, 2, &marker)),
        from_mh(all_routers, headers::ICMP).write(&headers::icmp(8, 0, [0; 4], &marker)),
        from_mh(CN, headers::ICMP).write(&headers::icmp(10, 0, [0; 4], &marker)),
        from_mh(Ipv4Addr::new(10, 1, 1, 1), headers::IGMP)
            .write(&headers::icmp(0x22, 0, [0; 4], &marker)),
    ];
    for packet in &forbidden {
        let _ = traffic::send_raw(&sender, packet);
    }
    std::thread::sleep(traffic::SILENCE);
    let captured = capture.stop()?;
    captured.never_shows(&marker)?;
    let seen = |protocol, kind| {
        captured
            .headers()
            .filter(|ip| ip.protocol == protocol && ip.payload.first() == Some(&kind))
            .count()
    };
    ensure!(
        seen(headers::ICMP, 10) == 1 && seen(headers::IGMP, 0x22) >= 1,
        "router discovery or IGMP did not pass"
    );
    let stats = Stats::read(&net.mh)?;
    ensure!(
        stats.total("guard-out") >= forbidden.len() as u64,
        "the guard counted {}",
        stats.total("guard-out")
    );
    Ok(())
}
