// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What handoffs cost a sender's TCP, by where the next foreign agent's keys come from: one on links that take what comes, and
//! many in a row on the paper's.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::handoff::{csa, dkm_files, holders, pkd_files};
use super::handoff_stream::{begin, handoffs, held_after, once_a_second, slow_link, tell_logs};
use super::mobility::{self, FA2};
use crate::paper::tcp_info::TcpInfo;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::HOME;
use crate::{dropped, report, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-under-tcp-with-pkd",
        proves: "a TCP transfer to the host goes on through a handoff with keys given beforehand, every octet as it was sent, and its sender's timer doesn't run out unless the host was away for longer than that waits, 200 ms",
        seconds: 150,
        run: pkd_under_tcp,
    },
    Scenario {
        name: "handoff-under-tcp-with-dkm",
        proves: "the same where the previous foreign agent hands the keys on",
        seconds: 150,
        run: dkm_under_tcp,
    },
    Scenario {
        name: "tcp-through-a-handoff-a-second-with-pkd",
        proves: "a TCP transfer that keeps the paper's wireless link busy goes on through ten handoffs, one a second (MML_HANDOFFS says otherwise), with keys given beforehand: every octet comes as it was sent, and the sender sends no segment again",
        seconds: 150,
        run: pkd_each_second,
    },
    Scenario {
        name: "tcp-through-a-handoff-a-second-with-dkm",
        proves: "the same where the previous foreign agent hands the keys on",
        seconds: 150,
        run: dkm_each_second,
    },
];

/// How a sender sends.
struct Pace {
    /// Octets that its send buffer is asked to hold, of which TCP may have as many under way.
    buffer: usize,
    /// Octets of a write.
    write: usize,
    /// From one write to the next; none: as soon as the buffer has room.
    every: Option<Duration>,
}

/// 8 Mb/s, a small segment a millisecond.
const STEADY: Pace = Pace {
    buffer: 64 << 10,
    write: 1_000,
    every: Some(Duration::from_millis(1)),
};
/// Some 16 segments under way keep the paper's link busy and don't overflow its queue, so that what is sent again is sent
/// again for a handoff. As in the paper's experiment (`paper::moves::stream`).
const BUSY: Pace = Pace {
    buffer: 11_000,
    write: 2_720,
    every: None,
};

/// What it must carry at least, of 2 Mb/s with all headers, through handoffs too.
const BUSY_KBPS: f64 = 1_600.0;

/// Its start isn't a handoff's doing.
const WARM_UP: f64 = 2.0;
/// For how long a sender's TCP waits at least before its timer runs out (Linux's least, RFC 6298's being a second).
const PATIENCE: Duration = Duration::from_millis(200);
/// From home agent to foreign agents, in milliseconds.
const DELAY_MS: u64 = 15;
/// With so many octets more some were sent after the handoff: buffers and queues don't hold as many.
const GOES_ON: u64 = 64 << 10;

/// What came of a transfer, and what the sender's TCP had to do from its start's end on.
struct Transfer {
    octets: u64,
    retransmitted: u32,
    timeouts: u16,
    /// The longest time in which nothing came.
    silence: Duration,
    /// The smoothed round trip before the first handoff, in microseconds.
    round_trip_us: u32,
    took: Duration,
}

impl Transfer {
    fn kbps(&self) -> f64 {
        self.octets as f64 * 8.0 / self.took.as_secs_f64() / 1000.0
    }

    fn json(&self) -> Value {
        json!({
            "octets": self.octets,
            "retransmitted": self.retransmitted,
            "timeouts": self.timeouts,
            "silence_ms": self.silence.as_millis() as u64,
            "round_trip_us": self.round_trip_us,
            "took_ms": self.took.as_millis() as u64,
            "kbps": self.kbps() as u64,
        })
    }
}

/// Takes what comes until the sender ends, and holds each octet against `data`, which is sent again and again; how many, and
/// the longest time in which none came.
fn take(mut from: impl std::io::Read, data: &[u8], came: &AtomicU64) -> Result<(u64, Duration)> {
    let (mut buffer, mut at, mut longest) = (vec![0; 1 << 16], 0u64, Duration::ZERO);
    loop {
        let begin = Instant::now();
        let read = from.read(&mut buffer).context("TCP stalled")?;
        longest = longest.max(begin.elapsed());
        if read == 0 {
            return Ok((at, longest));
        }
        for octet in buffer.iter().take(read) {
            let expected = data.get((at % data.len() as u64) as usize);
            ensure!(Some(octet) == expected, "octet {at} is another one");
            at += 1;
        }
        came.store(at, Ordering::Release);
    }
}

/// A transfer to the host, from before `during` until after it. It is told how many octets have come.
fn transfer(
    ctx: &Ctx,
    pace: &Pace,
    during: impl FnOnce(&AtomicU64) -> Result<()>,
) -> Result<Transfer> {
    let (near, mut far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 8080)?;
    socket2::SockRef::from(&near).set_send_buffer_size(pace.buffer)?;
    near.set_nodelay(true)?;
    let data = traffic::random(pace.write * 256);
    let (stop, came) = (AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    let (before, octets, silence) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| -> Result<u64> {
            let (begin, mut sent, mut writer) = (Instant::now(), 0u64, &near);
            for (number, chunk) in (1u32..).zip(data.chunks(pace.write).cycle()) {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                writer.write_all(chunk)?;
                sent += chunk.len() as u64;
                if let Some(every) = pace.every {
                    let due = begin + every * number;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
            near.shutdown(Shutdown::Write)?;
            Ok(sent)
        });
        let receiver = scope.spawn(|| take(&mut far, &data, &came));
        std::thread::sleep(ctx.seconds(WARM_UP));
        let before = TcpInfo::read(&near);
        let done = during(&came);
        stop.store(true, Ordering::Release);
        let panicked = |_| anyhow::anyhow!("the transfer's thread panicked");
        let sent = sender.join().map_err(panicked)?;
        let received = receiver.join().map_err(panicked)?;
        done?;
        let (sent, (received, silence)) = (sent?, received?);
        ensure!(received == sent, "{received} octets came of {sent}");
        Ok((before?, sent, silence))
    })?;
    let after = TcpInfo::read(&near)?;
    Ok(Transfer {
        octets,
        retransmitted: after.retransmitted - before.retransmitted,
        timeouts: after.timeouts - before.timeouts,
        silence,
        round_trip_us: before.round_trip,
        took: begin.elapsed(),
    })
}

/// A write a millisecond, through a handoff.
fn one_handoff(ctx: &Ctx, files: &[String; 4], how: &str, held: [bool; 2]) -> Result<()> {
    // Where a round trip takes no time, a sender's TCP believes that what a handoff holds up is lost (RFC 8985 §7).
    for (node, interface) in [(&ctx.net.ha, "core"), (ctx.net.core()?, "ha")] {
        node.tc(&format!(
            "qdisc replace dev {interface} root netem delay {DELAY_MS}ms limit 4000"
        ))?;
    }
    let nodes = begin(ctx, files, held)?;
    let go = || -> Result<()> {
        let mut gap = Duration::ZERO;
        let outcome = transfer(ctx, &STEADY, |_| {
            gap = mobility::gap(&ctx.net.mh, "wl1", "wl2")?;
            mobility::arrives(ctx, &nodes, Some(FA2))?;
            std::thread::sleep(ctx.seconds(2.0));
            Ok(())
        })?;
        let resent = Stats::read(&ctx.net.fa1)?.total("resent-packets");
        let told = json!({ "keys": how, "resent": resent, "gap_us": gap.as_micros() as u64, "transfer": outcome.json() });
        report::step(format!("{told}"));
        report::result("handoff-tcp", told);
        ensure!(resent > 0, "nothing was handed over");
        ensure!(
            outcome.retransmitted == 0 || !ctx.virtual_time,
            "{} segments were sent again by the sender",
            outcome.retransmitted
        );
        ensure!(
            outcome.timeouts == 0 || outcome.silence > PATIENCE,
            "the sender's timer ran out {} times; it was silent for {} ms",
            outcome.timeouts,
            outcome.silence.as_millis()
        );
        // Who holds the next one's keys beforehand keeps its own.
        holders(ctx, &csa(ctx)?, [held[1], true])
    };
    go().with_context(|| nodes.logs())
}

/// docs/wire.md 3.1l.
fn pkd_under_tcp(ctx: &mut Ctx) -> Result<()> {
    one_handoff(ctx, &pkd_files(), "PKD", [true, true])
}

/// docs/wire.md 3.1h, 3.1l.
fn dkm_under_tcp(ctx: &mut Ctx) -> Result<()> {
    one_handoff(ctx, &dkm_files(), "DKM", [true, false])
}

/// Waits until the transfer has gone on.
fn goes_on(ctx: &Ctx, came: &AtomicU64) -> Result<()> {
    let (begin, wanted) = (
        Instant::now(),
        came.load(Ordering::Acquire).saturating_add(GOES_ON),
    );
    while came.load(Ordering::Acquire) < wanted {
        ensure!(
            begin.elapsed() < ctx.seconds(20.0),
            "the transfer doesn't go on"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// All that the paper's link takes, through many handoffs. By the host's clock a link that is gone for as long as the machine
/// does something else makes TCP send again, and its time-outs say nothing: there it must come whole and go on.
fn each_second(ctx: &Ctx, files: &[String; 4], how: &str, held: [bool; 2]) -> Result<()> {
    slow_link(ctx)?;
    let nodes = begin(ctx, files, held)?;
    let handoffs = handoffs(ctx);
    let go = || -> Result<()> {
        let watch = dropped::Watch::begin()?;
        let mut gap = Duration::ZERO;
        let outcome = transfer(ctx, &BUSY, |came| {
            gap = once_a_second(ctx, &nodes, handoffs, || goes_on(ctx, came))?;
            Ok(())
        })?;
        tell_logs(&nodes)?;
        report::step(format!("dropped by the kernel: {}", json!(watch.end()?)));
        let told = json!({ "keys": how, "handoffs": handoffs, "gap_us": gap.as_micros() as u64, "transfer": outcome.json() });
        report::step(format!("{told}"));
        report::result("handoffs-tcp", told);
        ensure!(
            (outcome.retransmitted, outcome.timeouts) == (0, 0) || !ctx.virtual_time,
            "through {handoffs} handoffs the sender sent {} segments again, and its timer ran out {} times",
            outcome.retransmitted,
            outcome.timeouts
        );
        ensure!(
            outcome.kbps() >= BUSY_KBPS || !ctx.virtual_time,
            "{:.0} kb/s don't keep the link busy",
            outcome.kbps()
        );
        held_after(ctx, handoffs, held)
    };
    go().with_context(|| nodes.logs())
}

/// docs/wire.md 2.2z, 3.1h, 4d.
fn pkd_each_second(ctx: &mut Ctx) -> Result<()> {
    each_second(ctx, &pkd_files(), "PKD", [true, true])
}

/// docs/wire.md 2.2z, 3.1h, 4d.
fn dkm_each_second(ctx: &mut Ctx) -> Result<()> {
    each_second(ctx, &dkm_files(), "DKM", [true, false])
}
