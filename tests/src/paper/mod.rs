// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The first paper's experiments: throughput (its Section V) with today's TCP beside it, key management and handoffs (its
//! Section IV), for virtual time.
//!
//! Where to look: `run` is what the host orders; `path` lays a configuration and sets its links; `transfer` moves a file
//! over it, `tcp_info` is what its sender tells; `burst` is what a burst of duplicate acknowledgements costs; `moves` is
//! initialisations and handoffs. Each task's
//! result is told at once, so that the host can begin where a run of many ended.

mod burst;
mod moves;
mod path;
mod run;
pub mod tcp_info;
mod transfer;

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

pub use path::{known_neighbours, two_zones};
pub use run::{Settings, Task};

use crate::config::RunConfig;
use crate::kernel_log::KernelLog;
use crate::module::{self, Modules};
use crate::report;
use crate::scenario::MODULE;
use path::Laid;
use run::{Run, Way};

/// Does all that the host ordered; whether each of it was measured.
pub fn run_all(config: &RunConfig, modules: &Modules) -> Result<bool> {
    ensure!(!config.tasks.is_empty(), "no task was ordered");
    let mut log = KernelLog::from_now()?;
    let mut measured = true;
    let mut tasks = config.tasks.as_slice();
    // Tasks of one way that follow each other share its path.
    while let Some(first) = tasks.first() {
        let alike = tasks
            .iter()
            .take_while(|task| task.way() == first.way())
            .count();
        let (now, later) = tasks.split_at(alike);
        tasks = later;
        let mut tell = |task: &Task, outcome: Result<Value>| {
            let outcome = outcome.and_then(|value| log.check().map(|()| value));
            measured &= outcome.is_ok();
            let fields = outcome.unwrap_or_else(|error| json!({"error": format!("{error:#}")}));
            tell(task, fields);
        };
        if let Err(error) = way(modules, now, &mut tell) {
            report::step(format!("failed: {error:#}"));
            measured = false;
        }
    }
    Ok(measured)
}

/// Reports a task's result.
fn tell(task: &Task, mut fields: Value) {
    fields["id"] = json!(task.id());
    report::result("run", fields);
}

/// Lays one way and does its tasks. What fails before the first or after the last is told as an error of its own.
fn way(
    modules: &Modules,
    tasks: &[Task],
    tell: &mut dyn FnMut(&Task, Result<Value>),
) -> Result<()> {
    let Some(way) = tasks.first().map(Task::way) else {
        return Ok(());
    };
    let Way::Path(config, snoop) = way else {
        for task in tasks {
            report::step(format!("task {}", task.id()));
            tell(task, own(modules, task));
        }
        return Ok(());
    };
    report::step(format!("path: {}", config.name()));
    if config.needs_module() {
        modules.load(MODULE)?;
    }
    let mut laid = Laid::lay(config, snoop)?;
    for task in tasks {
        report::step(format!("task {}", task.id()));
        let outcome = match task {
            Task::Transfer(run) => measure(modules, &mut laid, run),
            Task::Burst(burst) => burst::measure(&laid, burst),
            Task::Moves(_) | Task::Messages(_) | Task::Streams(_) | Task::Company(_) => {
                own(modules, task)
            }
        };
        tell(task, outcome.with_context(|| task.id().to_owned()));
    }
    drop(laid);
    if config.needs_module() {
        module::unload(MODULE, Duration::from_secs(20))?;
    }
    Ok(())
}

/// A task that lays its own network.
fn own(modules: &Modules, task: &Task) -> Result<Value> {
    match task {
        Task::Moves(moves) => moves::measure(modules, moves),
        Task::Messages(messages) => moves::messages(modules, messages.times),
        Task::Streams(streams) => moves::streams(modules, streams),
        Task::Company(company) => moves::company(modules, company),
        Task::Transfer(_) | Task::Burst(_) => anyhow::bail!("it needs a path"),
    }
}

fn measure(modules: &Modules, laid: &mut Laid, run: &Run) -> Result<Value> {
    if run.congestion == "bbr" {
        modules.load("tcp_bbr")?;
    }
    let packet = laid.full_packet(run)?;
    laid.begin(run)?;
    let transfer = transfer::transfer(&laid.net, run)?;
    let (link, snoop) = (laid.link()?, laid.snoop_counters()?);
    path::settle(run);
    let kbps = transfer.bytes as f64 * 8.0 / transfer.seconds / 1000.0;
    let sender = transfer.sender;
    let trace: Vec<Value> = transfer
        .trace
        .iter()
        .map(|sample| {
            json!([
                sample.time.as_millis() as u64,
                sample.info.acknowledged,
                sample.info.window
            ])
        })
        .collect();
    Ok(json!({
        "bytes": transfer.bytes,
        "whole": transfer.bytes == run.bytes,
        "seconds": rounded(transfer.seconds, 6),
        "goodput_kbps": rounded(kbps, 3),
        "mss": sender.mss,
        "packet": packet,
        "retransmitted": sender.retransmitted,
        "timeouts": sender.timeouts,
        "round_trip_ms": f64::from(sender.round_trip) / 1000.0,
        "link": {
            "sent": link.sent,
            "sent_octets": link.sent_octets,
            "corrupted": link.corrupted,
            "overflowed": link.overflowed,
            "prioritised": link.prioritised,
        },
        "snoop": snoop,
        "trace": trace,
    }))
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
