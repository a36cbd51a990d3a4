// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Benchmarks, for virtual time: one vCPU, one instruction is one nanosecond, idle time is skipped. So a duration is a
//! count of instructions and comes out the same on any machine.
//!
//! Where to look: `way` is what is compared, `goodput` one TCP flow over each, `stage` what each node spends on a packet
//! and `lookup` what it spends with many CSAs there, `memory` what a CSA takes, `ike` and `crowd` (in the company of a `swarm`)
//! what key managers spend;
//! `bound` is what goodput could be at best, from what `cipher` says the AEAD calls cost. Each row has a peer it is held
//! against; what is wanted of the ratios is in `docs/benchmarks.md`.

mod arrangement;
mod bound;
mod cipher;
pub mod crowd;
mod flows;
mod goodput;
mod ike;
mod lookup;
mod many;
mod memory;
mod row;
mod stage;
pub mod swarm;
mod way;

use std::time::Duration;

pub use ike::ran;
pub use memory::kibibytes;

use anyhow::{ensure, Context, Result};

use serde_json::json;

use crate::config::RunConfig;
use crate::kernel_log::KernelLog;
use crate::module::{self, Modules};
use crate::report;
use crate::scenario::MODULE;

/// What a benchmark works with.
pub struct Bench<'a> {
    pub modules: &'a Modules,
    /// Virtual seconds of one flow.
    pub seconds: f64,
    names: &'a [String],
}

/// One benchmark: the names of its rows begin with one of `rows`.
struct Benchmark {
    rows: &'static [&'static str],
    run: fn(&Bench<'_>) -> Result<()>,
}

const ALL: &[Benchmark] = &[
    // First, before others leave memory behind that the kernel keeps for the next.
    Benchmark {
        rows: &["memory"],
        run: memory::run,
    },
    Benchmark {
        rows: &["goodput"],
        run: goodput::run,
    },
    Benchmark {
        rows: &["flows"],
        run: flows::run,
    },
    Benchmark {
        rows: &["seal", "open", "relay"],
        run: stage::run,
    },
    Benchmark {
        rows: &["lookup"],
        run: lookup::run,
    },
    Benchmark {
        rows: &["ike"],
        run: ike::run,
    },
    Benchmark {
        rows: &["crowd-hosts", "crowd-neighbours"],
        run: crowd::run,
    },
    Benchmark {
        rows: &arrangement::NAMES,
        run: arrangement::run,
    },
];

impl Bench<'_> {
    /// Whether a row of this name is asked for. Names are prefixes; none: everything.
    fn wants(&self, row: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| row.starts_with(name.as_str()))
    }

    /// Whether a benchmark has any row that is asked for.
    fn wants_any(&self, benchmark: &Benchmark) -> bool {
        benchmark.rows.iter().any(|rows| self.wants_of(rows))
    }

    /// Whether any row is asked for whose name begins so.
    fn wants_of(&self, rows: &str) -> bool {
        let asked = |name: &String| rows.starts_with(name.as_str()) || name.starts_with(rows);
        self.names.is_empty() || self.names.iter().any(asked)
    }

    /// Loads the module: only for who is measured with it, since its hooks cost every other packet something too.
    fn with_module<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.modules.load(MODULE)?;
        let outcome = run();
        let unloaded = module::unload(MODULE, Duration::from_secs(20));
        let value = outcome?;
        unloaded.context("after a benchmark")?;
        Ok(value)
    }
}

/// Runs what the host asked for; whether all of it was measured.
pub fn run_all(config: &RunConfig, modules: &Modules) -> Result<bool> {
    let bench = Bench {
        modules,
        seconds: config.options.seconds.unwrap_or(1.0),
        names: &config.names,
    };
    let chosen: Vec<&Benchmark> = ALL
        .iter()
        .filter(|benchmark| bench.wants_any(benchmark))
        .collect();
    ensure!(!chosen.is_empty(), "no benchmark is named so");
    let mut log = KernelLog::from_now()?;
    let mut measured = true;
    for benchmark in chosen {
        // One that fails is told and keeps the others from nothing.
        let outcome = (benchmark.run)(&bench).and_then(|()| log.check());
        if let Err(error) = outcome {
            report::step(format!("{} failed: {error:#}", benchmark.rows.join(", ")));
            measured = false;
        }
    }
    Ok(measured)
}

/// Reports whether something that was promised holds.
fn check(name: &str, ok: bool) {
    report::result("check", json!({"name": name, "ok": ok}));
}
