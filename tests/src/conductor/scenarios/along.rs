// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SNOOP's state goes with a host from one foreign agent to another that is a machine of its own.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::handoff::{csa, holders, pkd_files, start, with_snoop};
use super::mobility::{self, FA1, FA2};
use super::repair::{lost_at, repaired, retransmitted, without_offloads};
use crate::netns::Netns;
use crate::report;
use crate::scenario::{Ctx, Scenario};
use crate::sockets::Stream;
use crate::stats::Stats;
use crate::topology::HOME;
use crate::traffic;

pub const TABLE: &[Scenario] = &[Scenario {
    name: "snoops-state-goes-along-to-another-machine",
    proves: "after a handoff the new foreign agent repairs the first loss of a connection whose beginning it never saw, though nothing tells of it, and then most of a lossy transfer's losses; what it knows it has from the previous one, which has another kernel",
    seconds: 240,
    run: along,
}];

/// The wireless hop behind the second foreign agent.
fn hop(fa2: &Netns, words: &str) -> Result<()> {
    fa2.tc(&format!(
        "qdisc replace dev wl2 root netem limit 1000 {words}"
    ))
}

/// docs/wire.md 2.2y, 2.3n, 3.1h, 3.4d, 3.4e.
fn along(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    without_offloads(ctx)?;
    let nodes = start(ctx, &with_snoop(pkd_files()))?;
    let go = || -> Result<()> {
        // Some distance, so that a local repair is worth it.
        for interface in ["fa1", "fa2"] {
            net.core()?.tc(&format!(
                "qdisc replace dev {interface} root netem delay 100ms limit 4000"
            ))?;
        }
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [true, true])?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = Stream::pair(&net.cn, &net.mh, HOME, 8080)?;
        for _ in 0..20 {
            traffic::part_arrives(&near, &far, b"as long as it goes through the first")?;
        }
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        let end = Instant::now() + ctx.seconds(10.0);
        while Stats::read(fa2)?.total("snoop-taken-over") == 0 {
            ensure!(Instant::now() < end, "no flow was taken over");
            std::thread::sleep(ctx.seconds(0.05));
        }
        hop(fa2, "loss 100%")?;
        near.write(b"lost")?;
        std::thread::sleep(ctx.seconds(1.0));
        let again = Stats::read(fa2)?.total("snoop-retransmitted-timer");
        hop(fa2, "rate 20mbit delay 1ms")?;
        let heard = far.read(16).context("TCP stalled")?;
        ensure!(heard == b"lost", "{heard:02x?} came");
        ensure!(again > 0, "the new foreign agent left it to the sender");

        hop(fa2, "rate 20mbit delay 1ms loss 4%")?;
        let before = (repaired(fa2)?, retransmitted(&net.cn)?);
        traffic::part_arrives(&near, &far, &traffic::random(1_000_000))?;
        let lost = lost_at(fa2, "wl2")?;
        let (repaired, resent) = (
            repaired(fa2)? - before.0,
            retransmitted(&net.cn)? - before.1,
        );
        report::step(format!(
            "{lost} lost, {repaired} sent again by the new foreign agent, {resent} by the sender"
        ));
        ensure!(
            lost >= 15 && repaired * 2 >= lost && resent < lost,
            "{lost} lost, {repaired} repaired, and the sender sent {resent} again"
        );
        holders(ctx, &spis, [true, true])
    };
    go().with_context(|| nodes.logs())
}
