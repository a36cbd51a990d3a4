// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a handoff costs a stream of datagrams, by where the next foreign agent's keys come from, and whether the previous one hands over
//! what it holds.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::handoff::{csa, dkm_files, files, holders, opened, pkd_files, start};
use super::hold;
use super::mobility::{self, Nodes, FA1, FA2};
use crate::capture::Capture;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::{dropped, report, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-under-a-stream-without-keys-beforehand",
        proves: "of a sealed stream of 1,000 datagrams a second each way a handoff between foreign agents that don't speak with each other loses less than one in a hundred of those to the host, since the home agent asks the one that was left for what it holds; until the home agent has given the new one keys, packets pass it unopened, and `mmlctl status` says of how many it opened",
        seconds: 150,
        run: late_under_a_stream,
    },
    Scenario {
        name: "handoff-under-a-stream-with-pkd",
        proves: "of a sealed stream of 1,000 datagrams a second each way a handoff with keys given beforehand loses none, and delivers none twice: the previous foreign agent hands over what it holds, and the host what it could not send",
        seconds: 150,
        run: pkd_under_a_stream,
    },
    Scenario {
        name: "handoff-under-a-stream-with-dkm",
        proves: "the same holds where the previous foreign agent hands the keys on, too",
        seconds: 150,
        run: dkm_under_a_stream,
    },
    Scenario {
        name: "handoff-a-second",
        proves: "of a stream each way none is lost, and none comes twice, while the host goes to and fro between two foreign agents, once a second, ten times (MML_HANDOFFS says otherwise)",
        seconds: 120,
        run: to_and_fro,
    },
    Scenario {
        name: "handoffs-on-the-papers-link-with-pkd",
        proves: "the same over wireless links of 2 Mb/s whose queues hold 20 packets, 20 ms from the home agent: what follows the host begins behind what it has, and waits for room",
        seconds: 120,
        run: pkd_on_a_slow_link,
    },
    Scenario {
        name: "handoffs-on-the-papers-link-with-dkm",
        proves: "the same where the previous foreign agent hands the keys on",
        seconds: 120,
        run: dkm_on_a_slow_link,
    },
];

/// How long packets are held here by the host's clock, in milliseconds: in software emulation on a machine that has other
/// things to do the radio is away for longer than the 250 ms that are held otherwise.
const HOLD_MS: u64 = 2_000;

/// Of so many datagrams one may be lost by the host's clock.
const LOST_BY_CLOCK: u32 = 500;

/// A silence that the radio didn't make.
const STALL: Duration = Duration::from_millis(500);

/// Handoffs in a row, where nobody says otherwise.
const HANDOFFS: u32 = 10;

/// What became of a stream through a handoff.
struct Outcome {
    sent: u32,
    /// Runs of datagrams that never arrived, by their lengths.
    lost: Vec<u32>,
    /// How many came more than once.
    twice: u32,
    /// How many came behind a later one.
    late: u32,
    /// The longest time in which none came.
    silence: Duration,
}

impl Outcome {
    fn new(sent: u32, arrivals: &[(u32, Instant)]) -> Self {
        let (mut lost, mut expected) = (Vec::new(), 0);
        let mut counts = BTreeMap::new();
        let (mut late, mut highest) = (0, 0);
        for (number, _) in arrivals {
            *counts.entry(*number).or_insert(0u32) += 1;
            late += u32::from(*number < highest);
            highest = highest.max(*number);
        }
        for number in counts.keys().copied().chain([sent]) {
            if number > expected {
                lost.push(number - expected);
            }
            expected = number + 1;
        }
        let gaps = arrivals.windows(2).map(|two| two[1].1 - two[0].1);
        Outcome {
            sent,
            lost,
            twice: counts.values().map(|count| count - 1).sum(),
            late,
            silence: gaps.max().unwrap_or_default(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "sent": self.sent,
            "lost": self.lost,
            "twice": self.twice,
            "late": self.late,
            "silence_ms": self.silence.as_millis() as u64,
        })
    }

    /// Nothing is lost, and nothing comes twice. By the host's clock next to nothing: a processor that does something else in
    /// between two instructions of a sender opens gaps of microseconds wide. Where the machine stood still for half a second,
    /// queues overflow on both sides of the radio, and how many are lost says nothing.
    fn is_whole(&self, ctx: &Ctx, way: &str) -> Result<()> {
        let lost: u32 = self.lost.iter().sum();
        let may_be_lost = match ctx.virtual_time {
            true => 0,
            false if self.silence > STALL => self.sent,
            false => self.sent / LOST_BY_CLOCK,
        };
        ensure!(
            lost <= may_be_lost && self.twice == 0,
            "{way}: of {} datagrams lost in runs of {:?}, {} came twice; the longest silence was {} ms",
            self.sent,
            self.lost,
            self.twice,
            self.silence.as_millis()
        );
        Ok(())
    }
}

/// Sends numbered datagrams, one in each such time, until told to stop; how many.
fn send(from: &UdpSocket, to: SocketAddr, every: Duration, stop: &AtomicBool) -> Result<u32> {
    let (begin, mut sent) = (Instant::now(), 0u32);
    while !stop.load(Ordering::Acquire) {
        from.send_to(&sent.to_be_bytes(), to)?;
        sent += 1;
        let due = begin + every * sent;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

/// Receives until told to stop and nothing comes any more.
fn receive(at: &UdpSocket, stop: &AtomicBool, patience: Duration) -> Result<Vec<(u32, Instant)>> {
    let mut arrivals = Vec::new();
    loop {
        match traffic::receive(at, patience)? {
            Some(data) => {
                let number = data.as_slice().try_into().context("another datagram")?;
                arrivals.push((u32::from_be_bytes(number), Instant::now()));
            }
            None if stop.load(Ordering::Acquire) => return Ok(arrivals),
            None => {}
        }
    }
}

/// Streams each way of a datagram a millisecond, while `during` runs: to the host, and from it. A debug kernel gets as many
/// fewer as it is slower, or it would do nothing else.
fn streams(ctx: &Ctx, during: impl FnOnce() -> Result<()>) -> Result<[Outcome; 2]> {
    let net = &ctx.net;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    let ends = [near.local_addr()?, far.local_addr()?];
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let patience = ctx.seconds(1.0);
    let every = ctx.seconds(0.001);
    std::thread::scope(|scope| {
        let receivers = [&far, &near].map(|at| scope.spawn(|| receive(at, &over, patience)));
        let senders = [
            scope.spawn(|| send(&near, ends[1], every, &stop)),
            scope.spawn(|| send(&far, ends[0], every, &stop)),
        ];
        let done = during();
        stop.store(true, Ordering::Release);
        let panicked = |_| anyhow::anyhow!("a stream's thread panicked");
        let sent = senders.map(|sender| sender.join().map_err(panicked));
        over.store(true, Ordering::Release);
        let arrived = receivers.map(|receiver| receiver.join().map_err(panicked));
        done?;
        let [down, up] = sent;
        let [there, back] = arrived;
        Ok([Outcome::new(down??, &there??), Outcome::new(up??, &back??)])
    })
}

/// What came of a handoff under streams.
struct Handoff {
    down: Outcome,
    up: Outcome,
    /// Sealed packets towards the host on the new foreign agent's link, and how many it didn't open.
    passed: u64,
    unopened: u64,
    /// Packets that the previous one handed over.
    resent: u64,
    /// For how long at most the radio had no link.
    gap: Duration,
    /// What the kernel dropped meanwhile, by where and why.
    dropped: BTreeMap<String, u64>,
}

/// Moves the host from the first foreign agent to the second under streams of two seconds before and after.
fn moved(ctx: &Ctx, nodes: &Nodes<'_>) -> Result<Handoff> {
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    let capture = Capture::start(fa2, "wl2", "fa2-mh")?;
    let watch = dropped::Watch::begin()?;
    let mut gap = Duration::ZERO;
    let [down, up] = streams(ctx, || {
        std::thread::sleep(ctx.seconds(2.0));
        gap = mobility::gap(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, nodes, Some(FA2))?;
        std::thread::sleep(ctx.seconds(2.0));
        Ok(())
    })?;
    let dropped = watch.end()?;
    let opened = opened(fa2)?;
    let passed = capture.stop()?.esp().count() as u64;
    let resent = Stats::read(&net.fa1)?.total("resent-packets");
    Ok(Handoff {
        down,
        up,
        passed,
        unopened: passed.saturating_sub(opened),
        resent,
        gap,
        dropped,
    })
}

/// Starts the nodes with these files, brings the host to the first foreign agent and waits until those hold the keys that
/// are said to.
pub fn begin<'a>(ctx: &'a Ctx<'_>, files: &[String; 4], held: [bool; 2]) -> Result<Nodes<'a>> {
    let nodes = start(ctx, files)?;
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    if !ctx.virtual_time {
        for node in [&net.mh, &net.fa1, fa2] {
            hold::set(node, "hold-ms", HOLD_MS)?;
        }
    }
    let ready = || -> Result<()> {
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &csa(ctx)?, held)?;
        if files[1].contains("\"next\"") {
            nodes.fa1.up("next", ctx.seconds(20.0))?;
        }
        Ok(())
    };
    ready().with_context(|| nodes.logs())?;
    Ok(nodes)
}

impl Handoff {
    /// What was on its way to the old link came by the new one. A debug kernel takes longer for a handoff than that is held.
    fn follows(&self, ctx: &Ctx) -> Result<()> {
        let slow = ctx.patience > 1.0;
        ensure!(self.resent > 0 || slow, "nothing was handed over");
        Ok(())
    }
}

/// Runs it with these files and says what came of it.
fn measured(ctx: &mut Ctx, files: &[String; 4], how: &str, held: [bool; 2]) -> Result<Handoff> {
    let ctx = &*ctx;
    let nodes = begin(ctx, files, held)?;
    let go = || -> Result<Handoff> {
        let handoff = moved(ctx, &nodes)?;
        let Handoff {
            down,
            up,
            passed,
            unopened,
            resent,
            gap,
            dropped,
        } = &handoff;
        let gap_us = gap.as_micros() as u64;
        report::result(
            "handoff",
            json!({ "keys": how, "to_host": down.json(), "from_host": up.json(), "passed": passed, "unopened": unopened, "resent": resent, "gap_us": gap_us, "dropped": dropped }),
        );
        report::step(format!(
            "{how}: radio away for {gap_us} us; to the host {}; from it {}; {resent} sent again; of {passed} sealed packets on the new link {unopened} unopened; dropped by the kernel: {}",
            down.json(),
            up.json(),
            json!(dropped)
        ));
        ensure!(*passed > 500, "{passed} sealed packets by the new link");
        told(&nodes)?;
        up.is_whole(ctx, "from the host")?;
        // Who holds the next one's keys beforehand keeps its own.
        holders(ctx, &csa(ctx)?, [held[1], true])?;
        Ok(handoff)
    };
    go().with_context(|| nodes.logs())
}

/// What operators are told after a handoff: at the new foreign agent, how much of the host's ESP it opened; at the home
/// agent, that it has the keys.
fn told(nodes: &Nodes<'_>) -> Result<()> {
    let fa: Value = serde_json::from_str(&nodes.fa2.tell(&["status"])?)?;
    let coverage = &fa["coverage"];
    let covered = coverage[0]["csas"] == 1 && coverage[0]["opened"].as_u64() > Some(500);
    ensure!(
        coverage[0]["home"] == json!(HOME) && covered && fa["alarms"] == json!([]),
        "the foreign agent says: {fa}"
    );
    let ha: Value = serde_json::from_str(&nodes.ha.tell(&["status"])?)?;
    let keys = ha["keys"].as_array().context("no keys")?;
    let is_there = |one: &Value| {
        let place = (&one["home"], &one["foreign_agent"]);
        place == (&json!(HOME), &json!(FA2)) && one["as"] == "current" && one["state"] == "held"
    };
    ensure!(
        keys.iter().any(is_there) && ha["alarms"] == json!([]),
        "the home agent says: {ha}"
    );
    report::step(format!("told: {coverage}, {}", ha["keys"]));
    Ok(())
}

/// docs/wire.md 3.2z.
fn late_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    let handoff = measured(ctx, &files(|_| String::new()), "late", [true, false])?;
    handoff.down.is_whole(ctx, "to the host")?;
    handoff.follows(ctx)?;
    ensure!(
        handoff.unopened < handoff.passed,
        "the new foreign agent opened none of {}",
        handoff.passed
    );
    Ok(())
}

/// docs/wire.md 3.1l.
fn pkd_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    let handoff = measured(ctx, &pkd_files(), "PKD", [true, true])?;
    handoff.down.is_whole(ctx, "to the host")?;
    handoff.follows(ctx)?;
    Ok(())
}

/// docs/wire.md 3.1h, 3.1l.
fn dkm_under_a_stream(ctx: &mut Ctx) -> Result<()> {
    let handoff = measured(ctx, &dkm_files(), "DKM", [true, false])?;
    handoff.down.is_whole(ctx, "to the host")?;
    handoff.follows(ctx)?;
    Ok(())
}

/// The paper's wireless link, and a queue of 20 packets.
const RADIO: &str = "rate 2mbit delay 1ms limit 20";
/// From the core to the home agent, and to each foreign agent, in milliseconds each way.
const HOME_MS: f64 = 7.5;
const AGENT_MS: f64 = 2.5;

/// The paper's wireless hop, between agents that are 20 ms from home and 10 ms from each other.
pub fn slow_link(ctx: &Ctx) -> Result<()> {
    ctx.net.radio(RADIO)?;
    let core = ctx.net.core()?;
    for (interface, delay) in [("ha", HOME_MS), ("fa1", AGENT_MS), ("fa2", AGENT_MS)] {
        core.tc(&format!(
            "qdisc replace dev {interface} root netem delay {delay}ms limit 4000"
        ))?;
    }
    for (node, delay) in [
        (&ctx.net.ha, HOME_MS),
        (&ctx.net.fa1, AGENT_MS),
        (
            ctx.net.fa2.as_ref().context("no second foreign agent")?,
            AGENT_MS,
        ),
    ] {
        node.tc(&format!(
            "qdisc replace dev core root netem delay {delay}ms limit 4000"
        ))?;
    }
    Ok(())
}

/// docs/wire.md 2.2z, 3.1h, 4d.
fn pkd_on_a_slow_link(ctx: &mut Ctx) -> Result<()> {
    slow_link(ctx)?;
    goes_to_and_fro(ctx, &pkd_files(), [true, true])
}

/// docs/wire.md 2.2z, 3.1h, 4d.
fn dkm_on_a_slow_link(ctx: &mut Ctx) -> Result<()> {
    slow_link(ctx)?;
    goes_to_and_fro(ctx, &dkm_files(), [true, false])
}

/// docs/wire.md 3.2y, 3.2z.
fn to_and_fro(ctx: &mut Ctx) -> Result<()> {
    goes_to_and_fro(ctx, &pkd_files(), [true, true])
}

/// How many handoffs in a row are wanted.
pub fn handoffs(ctx: &Ctx) -> u32 {
    ctx.handoffs.unwrap_or(HANDOFFS)
}

/// Moves the host to and fro between the two foreign agents, once a second, that often; `after` each it is asked what else must hold.
/// For how long at most the radio had no link.
pub fn once_a_second(
    ctx: &Ctx,
    nodes: &Nodes<'_>,
    times: u32,
    mut after: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let (begin, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 0..times {
        let (from, to, at) = match number % 2 {
            0 => ("wl1", "wl2", FA2),
            _ => ("wl2", "wl1", FA1),
        };
        let due = begin + ctx.seconds(1.0) * (number + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        longest = longest.max(mobility::gap(&ctx.net.mh, from, to)?);
        mobility::arrives(ctx, nodes, Some(at))
            .and_then(|()| after())
            .with_context(|| format!("handoff {}", number + 1))?;
    }
    std::thread::sleep(ctx.seconds(1.0));
    Ok(longest)
}

/// What happened at the nodes whose logs tell of a handoff.
pub fn tell_logs(nodes: &Nodes<'_>) -> Result<()> {
    for (name, node) in [("mh", &nodes.mh), ("fa1", &nodes.fa1), ("fa2", &nodes.fa2)] {
        report::step(format!("LOG {name} {}", node.tell(&["log"])?));
    }
    Ok(())
}

/// After so many handoffs from the first foreign agent on, zone 1's keys are where the host is, and at the other one if that
/// had them beforehand; nothing else is held anywhere.
pub(super) fn held_after(ctx: &Ctx, handoffs: u32, held: [bool; 2]) -> Result<()> {
    let at_second = handoffs % 2 == 1;
    let [first, second] = [held[1] || !at_second, held[1] || at_second];
    holders(ctx, &csa(ctx)?, [first, second])
}

fn goes_to_and_fro(ctx: &Ctx, files: &[String; 4], held: [bool; 2]) -> Result<()> {
    let nodes = begin(ctx, files, held)?;
    let handoffs = handoffs(ctx);
    let go = || -> Result<()> {
        let begin = Instant::now();
        let watch = dropped::Watch::begin()?;
        let mut gap = Duration::ZERO;
        let outcomes = streams(ctx, || {
            gap = once_a_second(ctx, &nodes, handoffs, || Ok(()))?;
            Ok(())
        })?;
        let took = begin.elapsed();
        tell_logs(&nodes)?;
        report::step(format!("dropped by the kernel: {}", json!(watch.end()?)));
        for (outcome, way) in outcomes.iter().zip(["to the host", "from the host"]) {
            report::step(format!(
                "{handoffs} handoffs in {} ms, radio away for {} us at most, {way}: {}",
                took.as_millis(),
                gap.as_micros(),
                outcome.json()
            ));
        }
        let [down, up] = &outcomes;
        report::result(
            "handoffs",
            json!({ "handoffs": handoffs, "took_ms": took.as_millis() as u64, "gap_us": gap.as_micros() as u64, "to_host": down.json(), "from_host": up.json() }),
        );
        down.is_whole(ctx, "to the host")?;
        up.is_whole(ctx, "from the host")?;
        held_after(ctx, handoffs, held)
    };
    go().with_context(|| nodes.logs())
}
