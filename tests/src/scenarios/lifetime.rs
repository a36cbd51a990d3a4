// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Life-times: a CSA's soft limit tells, its hard limit ends it, and nothing goes in clear for it.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use crate::capture::Capture;
use crate::genl::{self, Genl, EVENTS};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::{Stats, Watch};
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_esp::Sa;
use crate::zone_message::{
    self, add, find_lifetime, lifetime, name, Lifetime, Message, Role, State, ANY, EXPIRE, GET,
    HOME_ONLY, LIFETIME_CURRENT, LIFETIME_HARD, LIFETIME_SOFT, UPDATE,
};
use crate::zone_tunnel::{self, mmlctl, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "packet-limits-end-an-origin",
        proves: "at its soft limit a CSA is told of once and goes on, at its hard limit it is told of once and goes; exactly as many packets were sealed as it may, and none went in clear",
        seconds: 60,
        run: origin_packets,
    },
    Scenario {
        name: "octets-past-a-limit-are-dropped-by-their-own-reason",
        proves: "a packet that would go past the octets a CSA may carry is dropped and counted as expired, at the origin and at the terminus",
        seconds: 60,
        run: octets,
    },
    Scenario {
        name: "an-expired-relay-csa-forwards-like-a-router",
        proves: "past its packets a relay's CSA opens nothing more and its SNOOP flows end, while all of the traffic arrives",
        seconds: 60,
        run: relay,
    },
    Scenario {
        name: "time-limits-end-csas",
        proves: "seconds since added and seconds since first use end a CSA on time, used or not; one that was never used outlives its limit of use",
        seconds: 60,
        run: time,
    },
    Scenario {
        name: "life-times-are-given-back-and-updated",
        proves: "GET and the tool show limits, what was carried and what is left; an update moves the limits, and a new soft limit is told anew",
        seconds: 60,
        run: given_back,
    },
];

/// Loads a CSA once more, with limits. Nothing has gone through it yet.
pub fn limited(
    node: &Netns,
    sa: &Sa,
    role: Role,
    soft: Option<Lifetime>,
    hard: Option<Lifetime>,
) -> Result<()> {
    let selected = if sa.destination == crate::topology::MH {
        (ANY, HOME_ONLY)
    } else {
        (HOME_ONLY, ANY)
    };
    let mut message = add(sa, role, selected, 8192, 0);
    message
        .extensions
        .extend(soft.map(|soft| lifetime(LIFETIME_SOFT, &soft)));
    message
        .extensions
        .extend(hard.map(|hard| lifetime(LIFETIME_HARD, &hard)));
    zone_tunnel::send(node, &[name(zone_message::DELETE, sa, role), message])
}

fn packets(packets: u32) -> Option<Lifetime> {
    Some(Lifetime {
        packets,
        ..Lifetime::default()
    })
}

pub fn listen(node: &Netns) -> Result<Genl> {
    let events = Genl::open(node)?;
    events.join(EVENTS)?.context("joining the events")?;
    Ok(events)
}

/// The next EXPIRE: whether it is the hard limit's, and what was carried.
fn expire(events: &Genl, patience: Duration) -> Result<Option<(bool, Lifetime)>> {
    let end = Instant::now() + patience;
    while let Some(event) = events.event(end.saturating_duration_since(Instant::now()))? {
        if event.get(1) != Some(&EXPIRE) {
            continue;
        }
        let hard = find_lifetime(&event, LIFETIME_HARD).is_some();
        ensure!(
            hard != find_lifetime(&event, LIFETIME_SOFT).is_some(),
            "an EXPIRE is of one limit"
        );
        let current =
            find_lifetime(&event, LIFETIME_CURRENT).context("without what was carried")?;
        return Ok(Some((hard, current)));
    }
    Ok(None)
}

pub fn expires(events: &Genl, hard: bool) -> Result<Lifetime> {
    match expire(events, traffic::ARRIVES)? {
        Some((is_hard, current)) if is_hard == hard => Ok(current),
        other => bail!("not the EXPIRE that was due (hard: {hard}) but {other:?}"),
    }
}

pub fn is_there(node: &Netns, sa: &Sa, role: Role) -> Result<bool> {
    Ok(Genl::open(node)?
        .pfkey(&name(GET, sa, role).octets())?
        .is_ok())
}

pub fn sockets(ctx: &Ctx) -> Result<(UdpSocket, UdpSocket)> {
    Ok((
        traffic::udp(&ctx.net.cn, CN, 4000)?,
        traffic::udp(&ctx.net.mh, HOME, 5000)?,
    ))
}

/// How many datagrams arrive until there is silence.
fn arrived(socket: &UdpSocket) -> Result<usize> {
    let mut count = 0;
    while traffic::receive(socket, traffic::SILENCE)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// docs/wire.md 2.2e, 2.5b, 2.5c, 2.5d.
fn origin_packets(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let ha = &ctx.net.ha;
    limited(ha, &keys.to_mh, Role::Origin, packets(6), packets(10))?;
    let events = listen(ha)?;
    let capture = Capture::start(ha, ctx.net.backbone(), "ha-core")?;
    let (cn, mh) = sockets(ctx)?;
    let marker = traffic::random(16);
    let watch = Watch::start(ha)?;
    for sent in 1..=6u32 {
        traffic::udp_arrives(&cn, &mh, &marker).with_context(|| format!("packet {sent}"))?;
    }
    let current = expires(&events, false)?;
    ensure!(
        current.packets >= 6 && current.octets >= 6 * (28 + 16),
        "at the soft limit it had carried {current:?}"
    );
    ensure!(
        is_there(ha, &keys.to_mh, Role::Origin)?,
        "the soft limit took the CSA away"
    );
    // A burst, so that some come before it is taken away and some after.
    for _ in 0..8 {
        cn.send_to(&marker, (HOME, 5000))?;
    }
    ensure!(
        arrived(&mh)? == 4,
        "not exactly the four that were left arrived"
    );
    let current = expires(&events, true)?;
    ensure!(
        current.packets >= 10,
        "at its end it had carried {current:?}"
    );
    ensure!(
        !is_there(ha, &keys.to_mh, Role::Origin)?,
        "the CSA outlived its hard limit"
    );
    for _ in 0..3 {
        cn.send_to(&marker, (HOME, 5000))?;
    }
    ensure!(arrived(&mh)? == 0, "something arrived past the end");
    let grown = watch.grown()?;
    let count = |name: &str| grown.get(name).copied().unwrap_or(0);
    ensure!(
        count("expired") + count("no-csa") == 7 && watch.dropped()? == 7,
        "seven were to be dropped: {grown:?}"
    );
    ensure!(
        expire(&events, traffic::SILENCE)?.is_none(),
        "a limit was told twice"
    );
    capture.stop()?.never_shows(&marker)
}

/// docs/wire.md 2.5d, 2.5e.
fn octets(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let (ha, mh) = (&ctx.net.ha, &ctx.net.mh);
    let octets = |octets| {
        Some(Lifetime {
            octets,
            ..Lifetime::default()
        })
    };
    limited(ha, &keys.to_mh, Role::Origin, None, octets(2000))?;
    let events = listen(ha)?;
    let (cn, receiver) = sockets(ctx)?;
    let watch = Watch::start(ha)?;
    traffic::udp_arrives(&cn, &receiver, &[1; 1000])?;
    cn.send_to(&[2; 1000], (HOME, 5000))?;
    traffic::silent(&receiver)?;
    watch.expect(&[("expired", 1)])?;
    expires(&events, true)?;

    // The other way, where the terminus is the one that may carry less.
    limited(ha, &keys.from_mh, Role::Terminus, None, octets(2000))?;
    let events = listen(ha)?;
    let back = traffic::udp(mh, HOME, 5001)?;
    let receiver = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let watch = Watch::start(ha)?;
    traffic::udp_arrives(&back, &receiver, &[1; 1000])?;
    back.send_to(&[2; 1000], (CN, 4001))?;
    traffic::silent(&receiver)?;
    watch.expect(&[("expired", 1)])?;
    expires(&events, true)?;
    // What comes for it now is nobody's.
    back.send_to(&[3; 10], (CN, 4001))?;
    traffic::silent(&receiver)
}

/// docs/wire.md 2.5c, 2.5d.
fn relay(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let fa = &ctx.net.fa1;
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(fa, &["snoop", "set", "--spi", &spi])?;
    let events = listen(fa)?;
    let flows = || -> Result<usize> {
        let mut genl = Genl::open(fa)?;
        let scope = genl::attribute(genl::A_STATS_SCOPE, b"flow\0");
        let answers = genl.request(genl::CMD_STATS, genl::NLM_F_DUMP, &scope)?;
        Ok(genl::accepted(answers, "SNOOP's flows")?.len())
    };
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 6000)?;
    {
        use std::io::{Read, Write};
        (&near).write_all(&[1; 1000])?;
        (&far).read_exact(&mut [0; 1000])?;
    }
    ensure!(flows()? == 1, "SNOOP has {} flows", flows()?);
    // The limit comes when some were carried already.
    let mut update = zone_message::update(&keys.to_mh, Role::Relay, State::Active);
    let now = Stats::read(fa)?;
    let carried = now
        .csas
        .iter()
        .find(|csa| csa.spi == keys.to_mh.spi)
        .and_then(|csa| csa.counters.get("relayed-packets").copied())
        .context("what the relay has carried")?;
    let limit = packets(u32::try_from(carried)? + 5).unwrap_or_default();
    update.extensions.push(lifetime(LIFETIME_HARD, &limit));
    zone_tunnel::send(fa, &[update])?;
    traffic::stream_arrives(&near, &far, &traffic::random(200_000))?;
    expires(&events, true)?;
    ensure!(
        !is_there(fa, &keys.to_mh, Role::Relay)?,
        "the relay's CSA outlived its hard limit"
    );
    ensure!(flows()? == 0, "SNOOP's flows outlived their CSA");
    let grown = Stats::read(fa)?.since(&now);
    ensure!(
        grown.contains_key("expired") || grown.contains_key("relay-no-csa"),
        "nothing was passed on unopened: {grown:?}"
    );
    Ok(())
}

/// docs/wire.md 2.5a, 2.5c.
fn time(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let (ha, mh) = (&ctx.net.ha, &ctx.net.mh);
    let seconds = |added, used| {
        Some(Lifetime {
            added,
            used,
            ..Lifetime::default()
        })
    };
    let events = listen(mh)?;
    let start = Instant::now();
    limited(
        mh,
        &keys.to_mh,
        Role::Terminus,
        seconds(1, 0),
        seconds(2, 0),
    )?;
    expires(&events, false)?;
    let soft = start.elapsed();
    ensure!(
        soft >= Duration::from_secs(1) && soft < Duration::from_secs(1) + ctx.seconds(0.7),
        "the soft limit of 1 s came after {soft:?}"
    );
    expires(&events, true)?;
    let hard = start.elapsed();
    ensure!(
        hard >= Duration::from_secs(2) && hard < Duration::from_secs(2) + ctx.seconds(0.7),
        "the hard limit of 2 s came after {hard:?}"
    );
    ensure!(
        !is_there(mh, &keys.to_mh, Role::Terminus)?,
        "it is still there"
    );

    zone_tunnel::send(
        mh,
        &[add(&keys.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0)],
    )?;
    limited(ha, &keys.to_mh, Role::Origin, None, seconds(0, 1))?;
    let events = listen(ha)?;
    ensure!(
        expire(&events, ctx.seconds(2.0))?.is_none(),
        "one that was never used came to its limit of use"
    );
    let (cn, receiver) = sockets(ctx)?;
    traffic::udp_arrives(&cn, &receiver, b"the first use")?;
    let start = Instant::now();
    let current = expires(&events, true)?;
    let took = start.elapsed();
    ensure!(
        took > Duration::from_millis(900) && took < Duration::from_secs(1) + ctx.seconds(0.7),
        "one second of use took {took:?}"
    );
    ensure!(
        current.used >= current.added + 2 && current.packets == 1,
        "at its end: {current:?}"
    );
    let watch = Watch::start(ha)?;
    cn.send_to(b"too late", (HOME, 5000))?;
    traffic::silent(&receiver)?;
    watch.expect(&[("no-csa", 1)])
}

/// docs/wire.md 2.3b, 2.5e, 2.5f, 2.5g.
fn given_back(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let ha = &ctx.net.ha;
    let soft = Lifetime {
        packets: 5,
        octets: 1 << 30,
        added: 3600,
        used: 1800,
    };
    let hard = Lifetime {
        packets: 1000,
        octets: 1 << 31,
        added: 7200,
        used: 3600,
    };
    limited(ha, &keys.to_mh, Role::Origin, Some(soft), Some(hard))?;
    let events = listen(ha)?;
    let (cn, receiver) = sockets(ctx)?;
    for _ in 0..3 {
        traffic::udp_arrives(&cn, &receiver, b"carried")?;
    }
    let mut genl = Genl::open(ha)?;
    let mut get = || -> Result<Vec<u8>> {
        let answers = genl.pfkey(&name(GET, &keys.to_mh, Role::Origin).octets())?;
        genl::accepted(answers, "GET")?.pop().context("no answer")
    };
    let csa = get()?;
    ensure!(
        find_lifetime(&csa, LIFETIME_SOFT) == Some(soft)
            && find_lifetime(&csa, LIFETIME_HARD) == Some(hard),
        "GET gives back other limits"
    );
    let current = find_lifetime(&csa, LIFETIME_CURRENT).context("no LIFETIME_CURRENT")?;
    ensure!(
        current.packets == 3 && current.octets == 3 * (28 + 7),
        "it has carried {current:?}"
    );
    ensure!(
        current.added > 1_600_000_000 && current.used >= current.added,
        "in time: {current:?}"
    );
    let listed = mmlctl(ha, &["csa", "list"])?;
    ensure!(
        listed.contains("997 packets"),
        "the list does not say what is left:\n{listed}"
    );
    let shown: Value = serde_json::from_str(&mmlctl(
        ha,
        &["csa", "show", &format!("{:#x}", keys.to_mh.spi), "--json"],
    )?)?;
    ensure!(
        shown["hard"]["packets"] == 1000 && shown["packets"] == 3,
        "the tool shows {shown}"
    );

    for _ in 0..2 {
        traffic::udp_arrives(&cn, &receiver, b"carried")?;
    }
    expires(&events, false)?;
    let update = |kind, life: &Lifetime| -> Message {
        let mut update = name(UPDATE, &keys.to_mh, Role::Origin);
        update.extensions.push(lifetime(kind, life));
        update
    };
    let refusal = genl::refused(
        Genl::open(ha)?.pfkey(
            &update(
                LIFETIME_SOFT,
                &Lifetime {
                    packets: 1001,
                    ..soft
                },
            )
            .octets(),
        )?,
        "a soft limit behind the hard one",
    )?;
    ensure!(refusal.text.contains("LIFETIME_SOFT"), "{refusal}");
    // Behind it already: told at once, without another packet.
    zone_tunnel::send(
        ha,
        &[update(LIFETIME_SOFT, &Lifetime { packets: 4, ..soft })],
    )?;
    expires(&events, false)?;
    // The other way to update, which replaces both kinds.
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(
        ha,
        &[
            "csa",
            "update",
            &spi,
            "--state",
            "active",
            "--soft-packets",
            "4",
            "--hard-packets",
            "5",
        ],
    )?;
    expires(&events, true)?;
    ensure!(
        !is_there(ha, &keys.to_mh, Role::Origin)?,
        "it outlived the limit it was updated to"
    );
    Ok(())
}
