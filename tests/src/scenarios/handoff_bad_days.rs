// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bad days of handoffs: what keyd's tests ask in simulated time (`keyd/tests/daemon/bad_days.rs`), on real links and kernels.

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::handoff::{
    csa, dkm_files, files, holders, keys, opened, outside_both, pkd_files, start, PSK,
};
use super::mobility::{self, third, FA1, FA2, FA3, IP_IN_IP, SECRETS};
use crate::capture::{Capture, Captured};
use crate::datagrams::streamed_but;
use crate::headers::{self, Ip};
use crate::keyd::Keyd;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "foreign-agent-without-zones-between-two-with",
        proves: "a foreign agent that knows Mobile IP and no zones carries a host's sealed connection between two that know them: same CSA, no key there, nothing in clear; the next one has zone 1's keys, the one before has none",
        seconds: 150,
        run: without_zones,
    },
    Scenario {
        name: "ping-pong-faster-than-a-handoff-with-pkd",
        proves: "a host that changes its foreign agent twenty-one times, every 50 ms, goes on with its connection and under its CSA where it stays; zone 1's keys are at both foreign agents, which are neighbours, and nothing was in clear",
        seconds: 150,
        run: ping_pong_pkd,
    },
    Scenario {
        name: "ping-pong-faster-than-a-handoff-with-dkm",
        proves: "the same where foreign agents hand keys on: they are at the one the host stays at, and nowhere else",
        seconds: 150,
        run: ping_pong_dkm,
    },
    Scenario {
        name: "handoff-after-all-key-managers-were-killed",
        proves: "while all four key managers are killed and come back a stream each way goes on; the home agent knows from its kernel where the host is, gives the fresh CSA to that foreign agent, and follows the next move; no link shows anything of it",
        seconds: 180,
        run: killed,
    },
];

/// The four nodes' files, of which the second foreign agent's knows no home agent's keys, and the third foreign agent's.
fn mixed() -> ([String; 4], String) {
    let [ha, fa1, fa2, mh] = files(|_| String::new());
    let peer =
        "\n[[mobile-ip.peer]]\naddress = \"10.1.2.1\"\nspi = 300\nsecret-file = \"agents.key\"\n";
    let third = |text: String| text.replace("fa2", "fa3").replace("10.1.2.1", "10.1.3.1");
    let fa3 = third(fa2).replace("wl2", "wl3");
    let plain = mobility::fa_file(2);
    let plain = plain.split("[[home-agent]]").next().unwrap_or_default();
    let mh = mh.replace("\"wl2\", ", "\"wl2\", \"wl3\", ");
    ([third(ha) + peer, fa1, plain.to_owned(), mh], fa3)
}

/// docs/wire.md 3.2k, 3.2l.
fn without_zones(ctx: &mut Ctx) -> Result<()> {
    third(&mut ctx.net)?;
    let ctx = &*ctx;
    let third = ctx.net.fa3.as_ref().context("no third foreign agent")?;
    let (files, of_third) = mixed();
    let nodes = start(ctx, &files)?;
    let fa3 = Keyd::with_files(third, &of_third, &[&SECRETS[..], &[PSK]].concat())?;
    let go = || -> Result<()> {
        fa3.answers(ctx.seconds(20.0))?;
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let hold = |at: [bool; 3]| [(&net.fa1, at[0]), (fa2, at[1]), (third, at[2])];
        let secret = traffic::random(16);
        let mut captures = outside(ctx)?;
        for link in ["fa2", "fa3"] {
            captures.push(Capture::start(net.core()?, link, &format!("core-{link}"))?);
        }
        captures.push(Capture::start(fa2, "wl2", "fa2-mh")?);
        captures.push(Capture::start(third, "wl3", "fa3-mh")?);
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        keys(ctx, &spis, &hold([true, false, false]))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        for (from, to, at, holds) in [
            ("wl1", "wl2", FA2, [false, false, false]),
            ("wl2", "wl3", FA3, [false, false, true]),
        ] {
            mobility::moves(&net.mh, from, to)?;
            mobility::exchange(&near, &far).with_context(|| format!("on the way to {at}"))?;
            mobility::arrives(ctx, &nodes, Some(at))?;
            keys(ctx, &spis, &hold(holds)).with_context(|| format!("at {at}"))?;
            mobility::exchange(&near, &far).with_context(|| format!("at {at}"))?;
            traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        }
        let counts = (opened(fa2)?, opened(third)?);
        ensure!(
            counts.0 == 0 && counts.1 > 0,
            "fa2 and fa3 opened {counts:?}"
        );
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    go().with_context(|| [nodes.logs(), fa3.log()].join("\n"))
}

fn ping_pong(ctx: &Ctx, files: &[String; 4], holds: [bool; 2], stays: [bool; 2]) -> Result<()> {
    let nodes = start(ctx, files)?;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let secret = traffic::random(16);
        let captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, holds)?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        for turn in 0..21 {
            let (from, to) = [("wl1", "wl2"), ("wl2", "wl1")][turn % 2];
            mobility::moves(&net.mh, from, to)?;
            // Not by the clock of the scenario: it is to be faster than a handoff.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        mobility::exchange(&near, &far).context("afterwards")?;
        traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        traffic::ping_arrives(&net.mh, HOME, CN, &secret)?;
        holders(ctx, &spis, stays)?;
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    go().with_context(|| nodes.logs())
}

/// docs/wire.md 3.1e, 3.2z.
fn ping_pong_pkd(ctx: &mut Ctx) -> Result<()> {
    ping_pong(ctx, &pkd_files(), [true, true], [true, true])
}

/// docs/wire.md 3.1f, 3.2k.
fn ping_pong_dkm(ctx: &mut Ctx) -> Result<()> {
    ping_pong(ctx, &dkm_files(), [true, false], [false, true])
}

/// No UDP from or to these ports goes in clear on a link, nor in clear inside IP in IP.
fn none_in_clear(captured: &Captured, ports: &[u16]) -> Result<()> {
    let shows = |ip: &Ip<'_>| {
        let both = ip.ports().map_or([0, 0], |(from, to)| [from, to]);
        ip.protocol == headers::UDP && both.iter().any(|port| ports.contains(port))
    };
    let inside =
        |ip: &Ip<'_>| ip.protocol == IP_IN_IP && Ip::parse(ip.payload).is_some_and(|ip| shows(&ip));
    let count = captured
        .headers()
        .filter(|ip| shows(ip) || inside(ip))
        .count();
    ensure!(count == 0, "{}: {count} datagrams in clear", captured.name);
    Ok(())
}

/// docs/wire.md 3.2v.
fn killed(ctx: &mut Ctx) -> Result<()> {
    let mut nodes = start(ctx, &files(|_| String::new()))?;
    let ctx = &*ctx;
    let mut go = || -> Result<()> {
        let net = &ctx.net;
        let secret = traffic::random(16);
        let captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let first = csa(ctx)?;
        holders(ctx, &first, [true, false])?;
        let near = traffic::udp(&net.cn, CN, 4001)?;
        let far = traffic::udp(&net.mh, HOME, 5009)?;
        // None while they are away. Both ends come back at once, and both may begin: of the two fresh CSAs one is closed while
        // packets are on their way under it.
        let may_be_lost = (20.0 * ctx.patience) as usize;
        streamed_but(&[(&near, &far), (&far, &near)], may_be_lost, || {
            for node in nodes.each() {
                node.kill();
            }
            std::thread::sleep(ctx.seconds(1.0));
            traffic::ping_arrives(&net.cn, CN, HOME, &secret).context("while they are away")?;
            traffic::ping_arrives(&net.mh, HOME, CN, &secret).context("while they are away")?;
            std::thread::sleep(ctx.seconds(1.0));
            for node in nodes.each() {
                node.start()?;
            }
            nodes.ha.answers(ctx.seconds(20.0))?;
            let place = mobility::place(&nodes.ha)?;
            ensure!(
                place == Some(FA1.to_string().into()),
                "after its restart the home agent believes the host at {place:?}"
            );
            std::thread::sleep(ctx.seconds(8.0));
            Ok(())
        })?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let second = csa(ctx)?;
        ensure!(
            first.iter().all(|spi| !second.contains(spi)),
            "the CSA is the one of before: {second:?}"
        );
        holders(ctx, &second, [true, false])?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        holders(ctx, &second, [false, true])?;
        traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        traffic::ping_arrives(&net.mh, HOME, CN, &secret)?;
        for captured in nothing_shows(captures, &secret)? {
            none_in_clear(&captured, &[4001, 5009])?;
        }
        Ok(())
    };
    let done = go();
    done.with_context(|| nodes.logs())
}
