// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The host moves, and in the midst of that a key manager dies and stays away for a while; at a foreign agent its kernel's CSAs
//! go with it, as where a router restarts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::guard::nothing_shows;
use super::handoff::{csa, dkm_files, holders, outside_both, pkd_files, start};
use super::mobility::{self, FA1, FA2};
use crate::report;
use crate::scenario::{Ctx, Scenario};
use crate::sockets::UdpSocket;
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_tunnel::mmlctl;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-while-a-key-manager-is-killed-with-pkd",
        proves: "under a stream each way the key manager of the foreign agent that is left, of the one that is come to, of the home agent and of the host is killed up to 50 ms after the host has moved, and is away for one to two seconds: every time the streams and a TCP connection go on, nothing was in clear, and zone 1's keys are at both foreign agents, which are neighbours, and nowhere else",
        seconds: 200,
        run: killed_pkd,
    },
    Scenario {
        name: "handoff-while-a-key-manager-is-killed-with-dkm",
        proves: "the same where foreign agents hand keys on: every time they are in the end at the one the host is at, and nowhere else",
        seconds: 200,
        run: killed_dkm,
    },
    Scenario {
        name: "handoff-while-a-foreign-agent-restarts-with-pkd",
        proves: "the same where with the key manager of the foreign agent that is left, or that is come to, all CSAs of its kernel go: it has those again that it is to have, and no other",
        seconds: 240,
        run: restarted_pkd,
    },
    Scenario {
        name: "handoff-while-a-foreign-agent-restarts-with-dkm",
        proves: "the same where foreign agents hand keys on",
        seconds: 240,
        run: restarted_dkm,
    },
];

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    HomeAgent,
    /// The foreign agent that the host leaves.
    Left,
    /// The one that it comes to.
    ComeTo,
    MobileHost,
}

/// Who dies, how long after the move, and for how long, in milliseconds; the host goes to and fro.
type Death = (Victim, u64, u64);

/// Each with PKD and with DKM: once at once or almost, once when registration and keys are under way or have just come.
const DEATHS: [&[Death]; 2] = [
    &[
        (Victim::Left, 0, 1000),
        (Victim::ComeTo, 50, 1000),
        (Victim::HomeAgent, 5, 2000),
        (Victim::MobileHost, 50, 2000),
    ],
    &[
        (Victim::Left, 30, 2000),
        (Victim::ComeTo, 0, 1500),
        (Victim::HomeAgent, 40, 1000),
        (Victim::MobileHost, 10, 1000),
    ],
];

/// The router at either foreign agent, likewise.
const RESTARTS: [&[Death]; 2] = [
    &[(Victim::Left, 0, 1000), (Victim::ComeTo, 50, 1000)],
    &[(Victim::Left, 40, 2000), (Victim::ComeTo, 0, 2000)],
];

/// Between two datagrams of a stream.
const PAUSE: Duration = Duration::from_millis(10);
/// So many have to come afterwards.
const AGAIN: u64 = 20;

/// Sends the secret again and again, whatever becomes of it.
fn sends(from: &UdpSocket, to: &UdpSocket, secret: &[u8], stop: &AtomicBool) -> Result<()> {
    let to = to.local_addr()?;
    while !stop.load(Ordering::Acquire) {
        let _ = from.send_to(secret, to);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Counts how often it comes.
fn receives(at: &UdpSocket, secret: &[u8], count: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        if let Some(data) = traffic::receive(at, Duration::from_millis(50))? {
            ensure!(data == secret, "another datagram came");
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

/// Streams of the secret each way, while `during` runs; it is given what waits until both come again.
fn streams(
    ctx: &Ctx,
    secret: &[u8],
    during: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let net = &ctx.net;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    let stop = AtomicBool::new(false);
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let come = || counts.each_ref().map(|count| count.load(Ordering::Acquire));
    let again = || -> Result<()> {
        let (before, end) = (come(), Instant::now() + ctx.seconds(15.0));
        loop {
            let [down, up] = come();
            if down >= before[0] + AGAIN && up >= before[1] + AGAIN {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{} datagrams came to the host and {} from it",
                down - before[0],
                up - before[1]
            );
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::scope(|scope| {
        let (stop, counts) = (&stop, &counts);
        let threads = [
            scope.spawn(|| sends(&near, &far, secret, stop)),
            scope.spawn(|| sends(&far, &near, secret, stop)),
            scope.spawn(|| receives(&far, secret, &counts[0], stop)),
            scope.spawn(|| receives(&near, secret, &counts[1], stop)),
        ];
        let done = during(&again);
        stop.store(true, Ordering::Release);
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a stream's thread panicked"))??;
        }
        done
    })
}

/// Key managers that soon notice a peer which says nothing more.
fn alert(files: &[String; 4]) -> [String; 4] {
    files.each_ref().map(|file| {
        file.replace("[node]\n", "[node]\ntries = 3\n")
            .replace("auth = \"psk\"\n", "auth = \"psk\"\nliveness = \"2s\"\n")
    })
}

/// Waits until zone 1's keys are where they are to be, of the CSA that there is then: after an end's death a fresh one may take
/// the place of one that was claimed, while they are looked at.
fn settles(ctx: &Ctx, wanted: [bool; 2]) -> Result<()> {
    let end = Instant::now() + ctx.seconds(40.0);
    loop {
        let spis = csa(ctx)?;
        let Err(error) = holders(ctx, &spis, wanted) else {
            return Ok(());
        };
        if Instant::now() >= end && csa(ctx)? == spis {
            return Err(error);
        }
    }
}

/// Moves the host once for each of these deaths. `beforehand` says whether neighbours have the keys, too; `restarts`, whether
/// the kernel's CSAs go with the key manager.
fn through(
    ctx: &Ctx,
    files: &[String; 4],
    beforehand: bool,
    deaths: &[Death],
    restarts: bool,
) -> Result<()> {
    let mut nodes = start(ctx, &alert(files))?;
    let mut go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let secret = traffic::random(16);
        let captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &csa(ctx)?, [true, beforehand])?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        streams(ctx, &secret, |again| {
            again().context("before any move")?;
            for (turn, (victim, after, away)) in deaths.iter().enumerate() {
                let what = || format!("{victim:?} killed {after} ms after move {}", turn + 1);
                report::step(what());
                let to_second = turn % 2 == 0;
                let (from, to, at) = match to_second {
                    true => ("wl1", "wl2", FA2),
                    false => ("wl2", "wl1", FA1),
                };
                mobility::moves(&net.mh, from, to)?;
                // Not by the clock of the scenario: it is to die in the midst of it.
                std::thread::sleep(Duration::from_millis(*after));
                let [ha, fa1, fa2_keyd, mh] = nodes.each();
                let (keyd, kernel) = match (victim, to_second) {
                    (Victim::HomeAgent, _) => (ha, &net.ha),
                    (Victim::MobileHost, _) => (mh, &net.mh),
                    (Victim::Left, true) | (Victim::ComeTo, false) => (fa1, &net.fa1),
                    (Victim::Left, false) | (Victim::ComeTo, true) => (fa2_keyd, fa2),
                };
                keyd.kill();
                if restarts {
                    mmlctl(kernel, &["csa", "flush"])?;
                }
                std::thread::sleep(ctx.seconds(*away as f64 / 1000.0));
                keyd.start()?;
                keyd.answers(ctx.seconds(20.0))?;
                mobility::arrives(ctx, &nodes, Some(at)).with_context(what)?;
                again().with_context(what)?;
                mobility::exchange(&near, &far).with_context(what)?;
                let wanted = [beforehand || !to_second, beforehand || to_second];
                settles(ctx, wanted).with_context(what)?;
            }
            Ok(())
        })?;
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    let done = go();
    done.with_context(|| nodes.logs())
}

/// docs/wire.md 3.1e, 3.2v.
fn killed_pkd(ctx: &mut Ctx) -> Result<()> {
    through(ctx, &pkd_files(), true, DEATHS[0], false)
}

/// docs/wire.md 3.1f, 3.2v.
fn killed_dkm(ctx: &mut Ctx) -> Result<()> {
    through(ctx, &dkm_files(), false, DEATHS[1], false)
}

/// docs/wire.md 3.1e, 3.2v.
fn restarted_pkd(ctx: &mut Ctx) -> Result<()> {
    through(ctx, &pkd_files(), true, RESTARTS[0], true)
}

/// docs/wire.md 3.1f, 3.2v.
fn restarted_dkm(ctx: &mut Ctx) -> Result<()> {
    through(ctx, &dkm_files(), false, RESTARTS[1], true)
}
