// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Fresh keys after a handoff: what a foreign agent that was left kept of zone 1's keys, opens nothing.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::guard::nothing_shows;
use super::handoff::{csa, dkm_files, holders, outside_both, start};
use super::mobility::{self, FA1, FA2};
use crate::aead::ZoneKey;
use crate::capture::Capture;
use crate::genl::{self, Genl};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_esp::Sealed;
use crate::zone_message::{self, Message};

pub const TABLE: &[Scenario] = &[Scenario {
    name: "a-foreign-agent-that-was-left-opens-nothing-that-comes-after",
    proves: "with rekey-after-handoff a host's CSA gets fresh keys when the foreign agent it left is told to drop them: with what that one's kernel had, no packet opens that passes the next one, whose own keys open each; the host's connection goes on, there and back",
    seconds: 150,
    run: fresh_keys,
}];

/// Zone 1's keys that a node's kernel holds.
fn zone_1_keys(node: &Netns) -> Result<Vec<(u32, ZoneKey)>> {
    let dump = Message::new(zone_message::DUMP, Vec::new());
    let dumped = Genl::open(node)?.pfkey_with(&dump.octets(), genl::NLM_F_DUMP)?;
    let dumped = genl::accepted(dumped, "DUMP")?;
    Ok(dumped
        .iter()
        .filter_map(|csa| zone_message::zone_1(csa))
        .collect())
}

/// Of the sealed packets that a capture has, and how many of them open with one of these keys, whatever their SPI.
fn opens(packets: &[Vec<u8>], keys: &[(u32, ZoneKey)]) -> Result<usize> {
    let mut opened = 0;
    for esp in packets {
        let sealed = Sealed::parse(esp)?;
        for (_, key) in keys {
            if sealed.open_zone1(key)?.is_some() {
                opened += 1;
                break;
            }
        }
    }
    Ok(opened)
}

/// Waits until both ends have another CSA than these, and gives its SPIs.
fn fresh(ctx: &Ctx, before: &[u64]) -> Result<Vec<u64>> {
    let end = Instant::now() + ctx.seconds(30.0);
    loop {
        let now = csa(ctx)?;
        if now.iter().all(|spi| !before.contains(spi)) {
            return Ok(now);
        }
        ensure!(Instant::now() < end, "the CSA is still that of before");
        std::thread::sleep(ctx.seconds(0.2));
    }
}

/// docs/wire.md 3.5a.
fn fresh_keys(ctx: &mut Ctx) -> Result<()> {
    let mut files = dkm_files();
    files[0] = files[0].replace("[mobile-ip]\n", "[mobile-ip]\nrekey-after-handoff = true\n");
    let nodes = start(ctx, &files)?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let secret = traffic::random(16);
        let captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let mut spis = csa(ctx)?;
        holders(ctx, &spis, [true, false])?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        let turns = [
            ("wl1", "wl2", FA2, &net.fa1, fa2, [false, true]),
            ("wl2", "wl1", FA1, fa2, &net.fa1, [true, false]),
        ];
        for (from, to, at, left, there, holds) in turns {
            let kept = zone_1_keys(left)?;
            ensure!(kept.len() == 2, "{} has {} keys", left.name(), kept.len());
            // As long as nobody has rekeyed, they do open what passes.
            let link = Capture::start(left, from, &format!("{}-before", left.name()))?;
            mobility::exchange(&near, &far)?;
            let sealed = link.stop()?.esp().map(<[u8]>::to_vec).collect::<Vec<_>>();
            let opened = opens(&sealed, &kept)?;
            ensure!(
                opened > 0 && opened == sealed.len(),
                "{} opens {opened} of {} packets with its own keys",
                left.name(),
                sealed.len()
            );

            mobility::moves(&net.mh, from, to)?;
            mobility::exchange(&near, &far).with_context(|| format!("on the way to {at}"))?;
            mobility::arrives(ctx, &nodes, Some(at))?;
            spis = fresh(ctx, &spis)?;
            holders(ctx, &spis, holds).with_context(|| format!("at {at}"))?;
            let link = Capture::start(there, to, &format!("{}-after", there.name()))?;
            for _ in 0..5 {
                mobility::exchange(&near, &far).with_context(|| format!("at {at}"))?;
            }
            traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
            let sealed = link.stop()?.esp().map(<[u8]>::to_vec).collect::<Vec<_>>();
            let (old, own) = (
                opens(&sealed, &kept)?,
                opens(&sealed, &zone_1_keys(there)?)?,
            );
            ensure!(
                old == 0 && own == sealed.len() && own > 4,
                "of {} packets {} opens {own}, and {} would have opened {old}",
                sealed.len(),
                there.name(),
                left.name()
            );
        }
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    go().with_context(|| nodes.logs())
}
