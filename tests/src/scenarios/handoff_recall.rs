// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a foreign agent holds for a host that left comes back to the home agent, where nobody else asks for it.

use anyhow::{ensure, Context, Result};

use super::handoff::{csa, files, holders, start};
use super::mobility::{self, FA1, FA2, HOME_AGENT, IP_IN_IP};
use crate::capture::Capture;
use crate::datagrams::{arrived, sends};
use crate::headers;
use crate::report;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::{traffic, zone_tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "host-that-comes-home-gets-what-was-held",
        proves: "what was sent to a host while no link had it, and is held at the foreign agent it left, is at the host once it is at home: the home agent asks for it; nothing comes twice, and in its own name the home agent lets nothing else in by that tunnel, nor that for longer",
        seconds: 120,
        run: home,
    },
    Scenario {
        name: "handoff-between-agents-that-do-not-speak-loses-nothing-that-was-held",
        proves: "the same where the host goes to a foreign agent that can't ask the one before: the home agent does, and sends on what comes back",
        seconds: 120,
        run: elsewhere,
    },
];

/// Datagrams that are sent to nobody.
const BURST: u32 = 40;
/// How long they are held: as long as a host may take to move on a machine that has other things to do, in milliseconds.
const HOLD_MS: u64 = 10_000;

/// What the first foreign agent sends to the home agent in its own name now, to the correspondent or in clear to the host,
/// goes nowhere.
fn strangers_stay_out(ctx: &Ctx, link: &str) -> Result<()> {
    let net = &ctx.net;
    let socket = traffic::raw(&net.fa1, IP_IN_IP)?;
    for (to, node, at) in [(CN, &net.cn, "ha"), (HOME, &net.mh, link)] {
        let mark = traffic::random(16);
        let capture = Capture::start(node, at, &format!("stranger-{at}"))?;
        let echo = headers::icmp(8, 0, [0; 4], &mark);
        let inner = headers::IpDraft::new(HOME_AGENT, to, headers::ICMP).write(&echo);
        let packet = headers::IpDraft::new(FA1, HOME_AGENT, IP_IN_IP).write(&inner);
        traffic::send_raw(&socket, &packet)?;
        std::thread::sleep(ctx.seconds(0.3));
        let shows = capture.stop()?.holding(&mark);
        ensure!(shows == 0, "what the home agent never sent shows on {at}");
    }
    Ok(())
}

/// The host loses its first link, is sent something, and appears by another.
fn recalled(ctx: &Ctx, link: &str, at: Option<std::net::Ipv4Addr>) -> Result<()> {
    let nodes = start(ctx, &files(|_| String::new()))?;
    let go = || -> Result<()> {
        let net = &ctx.net;
        zone_tunnel::set(&net.fa1, "hold-ms", HOLD_MS)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &csa(ctx)?, [true, false])?;
        let near = traffic::udp(&net.cn, CN, 4001)?;
        let far = traffic::udp(&net.mh, HOME, 5009)?;
        sends(&near, &far, 0..BURST)?;
        let numbers = arrived(ctx, &far)?;
        ensure!(numbers.iter().copied().eq(0..BURST), "{numbers:?} arrived");
        net.mh.ip("link set wl1 down")?;
        sends(&near, &far, BURST..2 * BURST)?;
        let numbers = arrived(ctx, &far)?;
        ensure!(numbers.is_empty(), "{numbers:?} arrived by a dead link");
        net.mh.ip(&format!("link set {link} up"))?;
        mobility::arrives(ctx, &nodes, at)?;
        // It stays for five seconds, in which a slow kernel does nothing else.
        let rules = || net.ha.run(&["ip", "rule", "show", "to", &HOME.to_string()]);
        let led = rules()?;
        ensure!(led.contains("iif mip0a010101"), "no way back: {led:?}");
        let mut numbers = arrived(ctx, &far)?;
        // Those that are sent 64 at a time may overtake one another where two CPUs take turns at a tunnel.
        numbers.sort_unstable();
        let resent = Stats::read(&net.fa1)?.total("resent-packets");
        report::step(format!(
            "{resent} packets came back, {} arrived",
            numbers.len()
        ));
        ensure!(
            numbers.iter().copied().eq(BURST..2 * BURST),
            "{numbers:?} arrived of what was held"
        );
        strangers_stay_out(ctx, link)?;
        let end = std::time::Instant::now() + ctx.seconds(15.0);
        while rules()?.contains("mip0a010101") {
            ensure!(std::time::Instant::now() < end, "{} stay", rules()?);
            std::thread::sleep(ctx.seconds(0.2));
        }
        // The stream goes on.
        sends(&near, &far, 0..BURST)?;
        let numbers = arrived(ctx, &far)?;
        ensure!(
            numbers.iter().copied().eq(0..BURST),
            "{numbers:?} arrived then"
        );
        holders(ctx, &csa(ctx)?, [false, at == Some(FA2)]).context("of the keys")
    };
    go().with_context(|| nodes.logs())
}

/// docs/wire.md 3.1h, 3.2y, 3.2z, 5h.
fn home(ctx: &mut Ctx) -> Result<()> {
    recalled(ctx, "home", None)
}

/// docs/wire.md 3.1h, 3.2z.
fn elsewhere(ctx: &mut Ctx) -> Result<()> {
    recalled(ctx, "wl2", Some(FA2))
}
