// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The frame around the scenarios: each runs on a fresh topology and a freshly loaded module, within its time, and has
//! failed if the kernel complained, lost memory or would not let the module go.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde_json::json;

use crate::config::{Options, RunConfig};
use crate::kernel_log::{self, KernelLog};
use crate::module::{self, Modules};
use crate::topology::{Shape, Topology};
use crate::zone_tunnel::Keys;
use crate::{elsewhere, holders, init, report, scenarios, wireless, zone_tunnel};

/// The module under test.
pub const MODULE: &str = "mml";

/// How long the module may take to lose its last references after a scenario.
const UNLOAD: Duration = Duration::from_secs(20);

/// How long what was replaced or revoked may still be held when a scenario is over.
pub const LET_GO: Duration = Duration::from_secs(25);

/// Seconds more for each handoff that is asked for.
const HANDOFF: u64 = 5;

/// One test.
pub struct Scenario {
    pub name: &'static str,
    /// In one sentence, what holds if it passes.
    pub proves: &'static str,
    /// Seconds it may take on an ordinary kernel.
    pub seconds: u64,
    pub run: fn(&mut Ctx) -> Result<()>,
}

/// Every scenario, in the order they run.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    scenarios::all()
}

/// What a scenario works with.
pub struct Ctx<'a> {
    pub net: Topology,
    pub modules: &'a Modules,
    /// Factor on waiting times: debug kernels are slow.
    pub patience: f64,
    /// How many handoffs in a row are wanted; a scenario's own number where nobody said.
    pub handoffs: Option<u32>,
    /// Whether nothing but the guest's own work takes time.
    pub virtual_time: bool,
}

impl<'a> Ctx<'a> {
    pub fn new(modules: &'a Modules, patience: f64) -> Result<Self> {
        if modules.has(MODULE) {
            modules.load(MODULE)?;
        }
        Ok(Self {
            net: Topology::up(Shape::Full)?,
            modules,
            patience,
            handoffs: None,
            virtual_time: false,
        })
    }

    /// Sets up the two-zone tunnel.
    pub fn zone_tunnel(&self, options: &zone_tunnel::Options) -> Result<Keys> {
        zone_tunnel::set_up(&self.net, options)
    }

    pub fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.patience)
    }
}

/// Runs what the host asked for; whether all of it passed.
pub fn run_all(config: &RunConfig, modules: &Modules) -> Result<bool> {
    let chosen: Vec<&Scenario> = if config.names.is_empty() {
        all().collect()
    } else {
        let mut chosen = Vec::new();
        for name in &config.names {
            chosen.push(
                all()
                    .find(|scenario| scenario.name == name)
                    .with_context(|| format!("there is no scenario {name}"))?,
            );
        }
        chosen
    };
    let patience = config
        .options
        .patience
        .unwrap_or(if kernel_log::is_debug_kernel() {
            10.0
        } else {
            1.0
        });
    let mut log = KernelLog::from_now()?;
    let mut all_passed = true;
    kernel_log::forget_leaks();
    for (number, scenario) in chosen.iter().enumerate() {
        report::step(format!("scenario {}: {}", scenario.name, scenario.proves));
        let start = Instant::now();
        let outcome = run_one(
            scenario,
            modules,
            patience,
            &config.options,
            &mut log,
            number + 1 == chosen.len(),
        );
        let detail = match &outcome {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        };
        all_passed &= outcome.is_ok();
        report::emit(&json!({
            "event": "scenario",
            "name": scenario.name,
            "ok": outcome.is_ok(),
            "seconds": (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            "proves": scenario.proves,
            "detail": detail,
        }));
        if outcome.is_err() && config.options.fail_fast {
            break;
        }
    }
    Ok(all_passed && !chosen.is_empty())
}

fn run_one(
    scenario: &'static Scenario,
    modules: &Modules,
    patience: f64,
    options: &Options,
    log: &mut KernelLog,
    last: bool,
) -> Result<()> {
    let more = options
        .handoffs
        .map_or(0, |count| u64::from(count) * HANDOFF);
    let limit = Duration::from_secs_f64((scenario.seconds + more) as f64 * patience);
    let limit = limit + LET_GO.mul_f64(patience);
    let outcome = within(limit, scenario, modules, patience, options);
    // All are looked at even if the scenario failed: what the kernel says is the better explanation.
    let unloaded = if modules.has(MODULE) {
        module::unload(MODULE, UNLOAD.mul_f64(patience)).context("after the scenario")
    } else {
        Ok(())
    };
    let link_unloaded =
        module::unload(wireless::MODULE, UNLOAD.mul_f64(patience)).context("after the scenario");
    let elsewhere = elsewhere::settle();
    let leaks = kernel_log::check_leaks(last);
    let complaints = log.check();
    let parts = [
        outcome,
        complaints,
        elsewhere,
        leaks,
        unloaded,
        link_unloaded,
    ];
    let failures: Vec<String> = parts
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("\nand: "))
    }
}

/// Who holds which zone's keys when it is over.
fn look_at_keys(ctx: &Ctx<'_>) -> Result<()> {
    let looked = holders::look(&ctx.net, LET_GO.mul_f64(ctx.patience)).context("when it was over");
    // Before any node goes: the others would see it go.
    for node in ctx.net.all() {
        node.left.end();
    }
    looked
}

/// Runs the scenario on a thread of its own. A thread that hangs can't be ended, so neither can the run go on: the
/// kernel is asked where everything stands, and the machine goes off.
fn within(
    limit: Duration,
    scenario: &'static Scenario,
    modules: &Modules,
    patience: f64,
    options: &Options,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let thread = scope.spawn(move || {
            let outcome = Ctx::new(modules, patience).and_then(|mut context| {
                context.handoffs = options.handoffs;
                context.virtual_time = options.virtual_time;
                (scenario.run)(&mut context)?;
                look_at_keys(&context)
            });
            let _ = sender.send(outcome);
        });
        match receiver.recv_timeout(limit) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => bail!("panicked: {}", panic_text(panic.as_ref())),
                Ok(()) => bail!("ended without a result"),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                for key in ["w", "l", "t"] {
                    let _ = std::fs::write("/proc/sysrq-trigger", key);
                }
                report::emit(
                    &json!({"event": "scenario", "name": scenario.name, "ok": false, "seconds": limit.as_secs_f64(), "proves": scenario.proves,
                    "detail": format!("not over after {} s; the kernel's log tells what each task was doing", limit.as_secs())}),
                );
                init::power_off(false)
            }
        }
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "for an unknown reason".to_owned(),
    }
}
