// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Keys replaced while as much passes as the nodes can seal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{ensure, Context, Result};

use super::keyd::{nodes, relayed, up};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Watch;
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[Scenario {
    name: "keyd-rekeys-at-full-rate",
    proves: "while a TCP stream each way takes all there is, keys are replaced from either side again and again: no node drops a packet, every octet arrives, and nothing of it is in clear at the routers between",
    seconds: 120,
    run: rekeys,
}];

/// Octets of a stream from `at` on: no two places near each other look alike.
fn octet(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Sends until told to stop; how many octets.
fn fill(mut stream: &TcpStream, stop: &AtomicBool) -> Result<u64> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (sent..sent + 65_536).map(octet).collect();
        stream.write_all(&chunk).context("the stream broke")?;
        sent += 65_536;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(sent)
}

/// Reads to the end; how many octets, each as it was sent.
fn drain(mut stream: &TcpStream) -> Result<u64> {
    let mut buffer = vec![0; 65_536];
    let mut received = 0;
    loop {
        let count = stream.read(&mut buffer).context("the stream stalled")?;
        if count == 0 {
            return Ok(received);
        }
        for got in buffer.iter().take(count) {
            ensure!(*got == octet(received), "octet {received} came changed");
            received += 1;
        }
    }
}

fn rekeys(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    let [ha, _fa, mh] = &nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    // Forwarded with the home address outside: what a tunnel is to keep from happening.
    let core = ctx.net.core()?;
    core.nft(
        "table ip clear {
            chain forward { type filter hook forward priority 0; ip saddr 203.0.113.7 counter; ip daddr 203.0.113.7 counter; }
        }",
    )?;
    let before = mh.tell(&["sa", "list"])?;
    // Since the first packets, which found no CSA.
    let nodes = [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh];
    let watches: Vec<Watch<'_>> = nodes.into_iter().map(Watch::start).collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);
    let pairs = [
        traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 5001)?,
        traffic::tcp_pair(&ctx.net.mh, &ctx.net.cn, CN, 5002)?,
    ];
    for stream in pairs.iter().flat_map(|(near, far)| [near, far]) {
        stream.set_read_timeout(Some(ctx.seconds(20.0)))?;
        stream.set_write_timeout(Some(ctx.seconds(20.0)))?;
    }
    std::thread::scope(|scope| -> Result<()> {
        let streams: Vec<_> = pairs
            .iter()
            .map(|(near, far)| {
                let stop = &stop;
                (
                    scope.spawn(move || fill(near, stop)),
                    scope.spawn(move || drain(far)),
                )
            })
            .collect();
        let rekeyed = (|| -> Result<()> {
            for _ in 0..3 {
                std::thread::sleep(ctx.seconds(1.0));
                mh.tell(&["rekey", "ha"])?;
                std::thread::sleep(ctx.seconds(1.0));
                ha.tell(&["rekey", "mh"])?;
            }
            std::thread::sleep(ctx.seconds(1.0));
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for (sender, receiver) in streams {
            let ended = |_| anyhow::anyhow!("a thread panicked");
            let sent = sender.join().map_err(ended)??;
            let received = receiver.join().map_err(ended)??;
            ensure!(sent == received, "{received} of {sent} octets arrived");
            ensure!(sent > 1_000_000, "{sent} octets only: hardly a full rate");
            crate::report::step(format!("{sent} octets"));
        }
        rekeyed
    })?;
    ensure!(
        mh.tell(&["sa", "list"])? != before,
        "the keys are the old ones"
    );
    let counted = core.run(&["nft", "list", "table", "ip", "clear"])?;
    ensure!(
        counted.matches("packets 0 bytes 0").count() == 2,
        "the home address in clear: {counted}"
    );
    for watch in watches {
        watch.expect(&[])?;
    }
    relayed(ctx)
}
