// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The last act: the mobile host moves in the middle of the transfer. Mobile IP carries the two-zone tunnel from one foreign
//! agent to the other, which has zone 1's keys beforehand (PKD).

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::file::{fetched, serve, shorten_file};
use crate::capture::{Capture, Captured};
use crate::module::Modules;
use crate::scenario::{Ctx, LET_GO};
use crate::scenarios::{handoff, mobility};
use crate::topology::{Shape, Topology, CN};
use crate::{headers, holders, report};

/// Octets of the file at most: a second on the link.
const BYTES: usize = 1_000_000;
/// The wireless links of the first act, with a queue of 60 ms.
const RADIO: &str = "rate 10mbit delay 10ms limit 50";
/// When the host moves, after the transfer's beginning.
const MOVES: Duration = Duration::from_millis(500);

/// Transfers the file of `bytes` octets, or its beginning, through a handoff; whether it came whole, and both foreign agents
/// opened what passed them.
pub fn act(modules: &Modules, bytes: usize) -> Result<bool> {
    report::step("through a handoff");
    let bytes = bytes.min(BYTES);
    let sum = shorten_file(bytes)?;
    let ctx = Ctx {
        net: Topology::up(Shape::Full)?,
        modules,
        patience: 1.0,
        handoffs: None,
        virtual_time: true,
    };
    let net = &ctx.net;
    net.offloads(false)?;
    let nodes = handoff::start(&ctx, &handoff::pkd_files())?;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    net.radio(RADIO)?;
    net.mh.ip("link set wl1 up")?;
    mobility::arrives(&ctx, &nodes, Some(mobility::FA1))?;
    let spis = handoff::csa(&ctx)?;
    handoff::holders(&ctx, &spis, [true, true])?;
    let _server = serve(net)?;
    let capture = Capture::start(&net.cn, "ha", "cn-ha")?;
    let (got, (moved, gap)) = std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            std::thread::sleep(MOVES);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            mobility::gap(&net.mh, "wl1", "wl2").and_then(|gap| Ok((now?, gap)))
        });
        let got = fetched(net, bytes, &sum);
        let moved = mover
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, anyhow::Error>((got?, moved?))
    })
    .with_context(|| nodes.logs())?;
    let (sent, moved_us) = segments(&capture.stop()?, moved)?;
    mobility::arrives(&ctx, &nodes, Some(mobility::FA2))?;
    let opened = [handoff::opened(&net.fa1)?, handoff::opened(fa2)?];
    let same = handoff::csa(&ctx)? == spis;
    // Neighbours have them both, home agent and host their own, and nobody else any.
    let keys = handoff::holders(&ctx, &spis, [true, true])
        .and_then(|()| holders::look(net, LET_GO))
        .with_context(|| nodes.logs());
    let still = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    report::result(
        "handoff",
        json!({
            "bytes": got.bytes,
            "sha256_ok": got.whole,
            "seconds": got.seconds,
            "moved_us": moved_us,
            "gap_us": gap.as_micros() as u64,
            "interruption_us": still,
            "sent": sent,
            "opened": opened,
        }),
    );
    let ok = got.whole && same && opened.iter().all(|opened| *opened > 0);
    report::result(
        "check",
        json!({
            "name": "through a handoff the file comes whole by one connection under one CSA, and both foreign agents read its headers",
            "ok": ok,
            "detail": format!("fa1 opened {} packets, fa2 {}", opened[0], opened[1]),
            "config": "handoff",
        }),
    );
    let detail = keys.as_ref().err().map(|error| format!("{error:#}"));
    report::result(
        "check",
        json!({
            "name": "after the handoff zone 1's keys are in the kernels of both foreign agents, both zones' in those of home agent and mobile host, and no other key is in any",
            "ok": keys.is_ok(),
            "detail": detail.unwrap_or_default(),
            "config": "handoff",
        }),
    );
    Ok(ok && keys.is_ok())
}

/// The correspondent's segments with data: microseconds since the first, and octets of the stream; and when, of the same
/// time, the host moved.
fn segments(captured: &Captured, moved: Duration) -> Result<(Vec<(i64, u32)>, i64)> {
    let mut found: Vec<(Duration, u32)> = Vec::new();
    for packet in &captured.packets {
        let Some(ip) = packet.header() else { continue };
        let has_data =
            ip.protocol == headers::TCP && ip.data().is_some_and(|data| !data.is_empty());
        if ip.source != CN || !has_data {
            continue;
        }
        // Sequence number (RFC 9293 §3.1).
        if let Some(octets) = ip.payload.get(4..).and_then(|rest| rest.first_chunk()) {
            found.push((packet.time, u32::from_be_bytes(*octets)));
        }
    }
    let (begin, first) = *found.first().context("nothing was sent")?;
    let since = |time: Duration| time.as_micros() as i64 - begin.as_micros() as i64;
    ensure!(since(moved) > 0, "the host moved before the transfer began");
    let of = |(time, number): &(Duration, u32)| (since(*time), number.wrapping_sub(first));
    Ok((found.iter().map(of).collect(), since(moved)))
}
