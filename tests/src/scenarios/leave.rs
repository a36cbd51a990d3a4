// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A registration's end takes zone 1's keys along: the host leaves, an operator ends it, or an agent ends.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::handoff::{csa, files, held, holders, pkd_files, start, Held};
use super::mobility::{self, place, Nodes, FA1, FA2};
use crate::holders::Part;
use crate::keyd::Keyd;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::HOME;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "mobile-host-that-leaves-leaves-no-key",
        proves: "after a mobile host's leave no foreign agent holds a key of it, neither where it was nor where keys were given beforehand; home agent and host have none either, and nobody believes that it is registered",
        seconds: 120,
        run: leaves,
    },
    Scenario {
        name: "registration-that-an-operator-ends-takes-its-keys-along",
        proves: "a registration that the home agent's operator or the foreign agent's ends is known as ended at the other, and no foreign agent holds zone 1's keys; the host comes back by itself; an agent that ends does the same for all of its registrations",
        seconds: 180,
        run: ended,
    },
];

/// Waits until none of these nodes' kernels holds a key.
fn nothing_held(ctx: &Ctx, nodes: &[&Netns]) -> Result<()> {
    // What was closed at an end is opened for a while.
    let end = Instant::now() + ctx.seconds(25.0);
    for node in nodes {
        node.keys.are(Part::Nothing);
        loop {
            let has = held(node)?;
            if has == Held::new() {
                break;
            }
            ensure!(Instant::now() < end, "{} keeps {has:?}", node.name());
            std::thread::sleep(ctx.seconds(0.1));
        }
    }
    Ok(())
}

/// Waits until these key managers know of no registration.
fn unregistered(ctx: &Ctx, nodes: &[&Keyd<'_>]) -> Result<()> {
    let end = Instant::now() + ctx.seconds(10.0);
    for node in nodes {
        while place(node)?.is_some() {
            ensure!(Instant::now() < end, "it is believed to be registered");
            std::thread::sleep(ctx.seconds(0.1));
        }
    }
    Ok(())
}

/// The host is at the first foreign agent, under a CSA.
fn arrived(ctx: &Ctx, nodes: &Nodes<'_>) -> Result<Vec<u64>> {
    ctx.net.mh.ip("link set wl1 up")?;
    mobility::arrives(ctx, nodes, Some(FA1))?;
    csa(ctx)
}

fn leaves(ctx: &mut Ctx) -> Result<()> {
    let nodes = start(ctx, &pkd_files())?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let spis = arrived(ctx, &nodes)?;
        holders(ctx, &spis, [true, true])?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        holders(ctx, &spis, [true, true])?;
        nodes.mh.tell(&["leave"])?;
        // It comes back when all is done.
        nothing_held(ctx, &[&net.mh])?;
        unregistered(ctx, &[&nodes.ha, &nodes.fa1, &nodes.fa2])?;
        nothing_held(ctx, &[&net.fa1, fa2, &net.ha])
    };
    go().with_context(|| nodes.logs())
}

/// docs/wire.md 3.1g.
fn ended(ctx: &mut Ctx) -> Result<()> {
    let nodes = start(ctx, &files(|_| String::new()))?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let home = HOME.to_string();
        let spis = arrived(ctx, &nodes)?;
        for agent in [&nodes.ha, &nodes.fa1] {
            holders(ctx, &spis, [true, false])?;
            // Out of reach, or it would be back at once.
            net.mh.ip("link set wl1 down")?;
            let answer: serde_json::Value = serde_json::from_str(&agent.tell(&["revoke", &home])?)?;
            ensure!(
                answer["told"] == true,
                "the other agent isn't told: {answer}"
            );
            unregistered(ctx, &[&nodes.ha, &nodes.fa1])?;
            holders(ctx, &spis, [false, false])?;
            let again = agent.tell(&["revoke", &home]);
            ensure!(again.is_err(), "there is nothing to end any more");
            net.mh.ip("link set wl1 up")?;
            mobility::arrives(ctx, &nodes, Some(FA1))?;
        }
        holders(ctx, &spis, [true, false])?;
        // It is told, and tries in vain.
        nodes.fa1.tell(&["leave"])?;
        unregistered(ctx, &[&nodes.ha])?;
        nothing_held(ctx, &[&net.fa1])?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [false, true])?;
        nodes.ha.tell(&["leave"])?;
        // What it ended it may have closed already, and the host not.
        for end in [&net.ha, &net.mh] {
            end.keys.are(Part::End);
            end.keys.are_taken();
        }
        unregistered(ctx, &[&nodes.fa2])?;
        nothing_held(ctx, &[fa2])
    };
    go().with_context(|| nodes.logs())
}
