// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a handoff costs a stream, by where the next foreign agent's keys come from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::handoff::{csa, dkm_files, files, holders, neighbour, opened, start};
use super::mobility::{self, Nodes, FA1, FA2};
use crate::capture::Capture;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::{report, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-under-a-stream-without-keys-beforehand",
        proves: "of a sealed stream of 1,000 datagrams a second a handoff loses one run and nothing else; until the home agent has given the new foreign agent keys, packets pass it unopened",
        seconds: 150,
        run: late_under_a_stream,
    },
    Scenario {
        name: "handoff-under-a-stream-with-pkd",
        proves: "of the same stream a handoff loses one run and nothing else, and the new foreign agent opens every packet of it",
        seconds: 150,
        run: pkd_under_a_stream,
    },
    Scenario {
        name: "handoff-under-a-stream-with-dkm",
        proves: "of the same stream a handoff loses one run and nothing else, while the previous foreign agent hands the keys on",
        seconds: 150,
        run: dkm_under_a_stream,
    },
];

/// What became of a stream through a handoff.
struct Outcome {
    sent: u32,
    /// Runs of datagrams that never arrived, by their lengths.
    lost: Vec<u32>,
    /// Sealed packets on the new foreign agent's link, and how many of them it didn't open.
    passed: u64,
    unopened: u64,
}

/// Moves the host from the first foreign agent to the second while the correspondent sends it numbered datagrams, one a
/// millisecond, for two seconds before and after.
fn streamed(ctx: &Ctx, nodes: &Nodes<'_>) -> Result<Outcome> {
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    let capture = Capture::start(fa2, "wl2", "fa2-mh")?;
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<u32> {
            let (to, begin) = (far.local_addr()?, Instant::now());
            let mut sent = 0u32;
            while !stop.load(Ordering::Acquire) {
                near.send_to(&sent.to_be_bytes(), to)?;
                sent += 1;
                let due = begin + Duration::from_millis(sent.into());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(sent)
        });
        std::thread::sleep(ctx.seconds(2.0));
        let moved = mobility::moves(&net.mh, "wl1", "wl2")
            .and_then(|()| mobility::arrives(ctx, nodes, Some(FA2)));
        std::thread::sleep(ctx.seconds(2.0));
        stop.store(true, Ordering::Release);
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        moved.and(sent)
    })?;
    let mut arrived = BTreeSet::new();
    while let Some(data) = traffic::receive(&far, ctx.seconds(1.0))? {
        let number = data.as_slice().try_into().context("another datagram")?;
        arrived.insert(u32::from_be_bytes(number));
    }
    let opened = opened(fa2)?;
    let passed = capture.stop()?.esp().count() as u64;
    let mut lost = Vec::new();
    let mut expected = 0;
    for number in arrived.into_iter().chain([sent]) {
        if number != expected {
            lost.push(number - expected);
        }
        expected = number + 1;
    }
    Ok(Outcome {
        sent,
        lost,
        passed,
        unopened: passed.saturating_sub(opened),
    })
}

/// Runs the stream with these files and says what came of it. Only one run is lost, since nothing is but while the host
/// can't be reached.
fn measured(ctx: &mut Ctx, files: &[String; 4], how: &str, held: [bool; 2]) -> Result<Outcome> {
    let nodes = start(ctx, files)?;
    let ctx = &*ctx;
    let go = || -> Result<Outcome> {
        ctx.net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &csa(ctx)?, held)?;
        if files[1].contains("\"next\"") {
            nodes.fa1.up("next", ctx.seconds(20.0))?;
        }
        let outcome = streamed(ctx, &nodes)?;
        let Outcome {
            sent,
            lost,
            passed,
            unopened,
        } = &outcome;
        report::result(
            "handoff",
            json!({ "keys": how, "sent": sent, "lost": lost, "passed": passed, "unopened": unopened }),
        );
        report::step(format!(
            "{how}: of {sent} datagrams lost in runs of {lost:?}; of {passed} sealed packets on the new link {unopened} unopened"
        ));
        ensure!(
            lost.len() <= 1 && lost.iter().all(|run| run * 2 < *sent),
            "of {sent} datagrams lost in runs of {lost:?}"
        );
        ensure!(*passed > 500, "{passed} sealed packets by the new link");
        ensure!(
            unopened < passed,
            "the new foreign agent opened none of {passed}"
        );
        Ok(outcome)
    };
    go().with_context(|| nodes.logs())
}

fn late_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    measured(ctx, &files(|_| String::new()), "late", [true, false]).map(|_| ())
}

fn pkd_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    let outcome = measured(ctx, &files(neighbour), "PKD", [true, true])?;
    ensure!(
        outcome.unopened == 0,
        "{} of {} packets passed unopened",
        outcome.unopened,
        outcome.passed
    );
    Ok(())
}

fn dkm_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    measured(ctx, &dkm_files(), "DKM", [true, false]).map(|_| ())
}
