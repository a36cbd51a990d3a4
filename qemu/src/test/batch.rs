// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Scenarios in guests: which guest runs what, several at a time, and what came of it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::Tally;
use crate::channel::Event;
use crate::error::{Error, Result};
use crate::guest::Scenario;
use crate::machine::Clock;
use crate::network;
use crate::progress::{self, Step};
use crate::setup::{Boot, Lab};

/// What start and end of a guest, and each scenario, may take at most by the wall clock.
const BOOT: Duration = Duration::from_secs(120);
const SCENARIO: Duration = Duration::from_secs(60);

/// How much longer scenarios take in virtual time: a busy second of it is ten of the host's.
const VIRTUAL: u32 = 10;
/// Boots without a single finished scenario before the lab gives up: the fault is then not a scenario's.
const FRUITLESS: u32 = 2;

/// Where scenarios run.
pub enum Ground {
    /// In one guest.
    Namespaces,
    /// In one guest whose time is that of its instructions.
    VirtualTime,
    /// In a network of guests, by this conductor.
    Guests(PathBuf),
}

/// Fewer scenarios than these aren't worth a guest of their own.
const LEAST_A_GUEST: usize = 12;
/// Guests after each other on each processor, so that all end at about the same time, whatever each scenario takes.
const GUESTS_A_JOB: usize = 3;

/// How many scenarios a guest runs. Most of them wait most of the time, so that two guests hardly disturb one another.
pub fn most_a_guest(count: usize, jobs: usize) -> usize {
    match jobs {
        0 | 1 => count.max(1),
        _ => count.div_ceil(jobs * GUESTS_A_JOB).max(LEAST_A_GUEST),
    }
}

/// How often in a batch a guest may end by the emulator's fault; from then on it is a scenario's.
const EMULATORS: u32 = 2;

/// Whether a guest ended by a fault of the emulator's: where one processor patches code, QEMU's translator, with a thread a
/// processor, now and then lets another run into the breakpoint that stood there meanwhile, after the kernel has forgotten it
/// (Red Hat's bug 2216496, seen with QEMU since 2023 by whoever boots often enough). Hooks that come and go flip such code, the
/// kernel's static keys. A breakpoint that is in nobody's code twice is no accident any more.
fn is_the_emulators(why: &str, vcpus: u32) -> bool {
    vcpus > 1 && why.contains("Oops: int3: 0000")
}

/// What one guest runs, or several where scenarios take it down.
pub struct Batch<'a> {
    /// Where.
    pub ground: &'a Ground,
    /// Which.
    pub scenarios: Vec<&'a Scenario>,
    /// Its processors.
    pub vcpus: u32,
}

impl Batch<'_> {
    /// What it is, in a line.
    pub fn title(&self, lab: &Lab) -> String {
        let Batch {
            ground,
            scenarios,
            vcpus,
        } = self;
        let (count, origin) = (scenarios.len(), &lab.kernel.origin);
        let s = if count == 1 { "" } else { "s" };
        let how = match ground {
            Ground::Namespaces => "",
            Ground::VirtualTime => ", in virtual time",
            Ground::Guests(_) => ", each node a guest",
        };
        format!("{count} scenario{s} on {origin}, {vcpus} vCPU{how}")
    }
}

/// Runs batches, some at a time.
pub fn side_by_side(
    lab: &Lab,
    batches: VecDeque<Batch<'_>>,
    jobs: usize,
    fail_fast: bool,
    tally: &mut Tally,
) -> Result<()> {
    let lanes = jobs.clamp(1, batches.len().max(1));
    let queue = Mutex::new(batches);
    let shared = Mutex::new((tally, None));
    fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
    let lane = |number: usize| loop {
        let Some(batch) = locked(&queue).pop_front() else {
            return;
        };
        let mut own = Tally::default();
        let done = pass(lab, &batch, number, fail_fast, &mut own);
        let mut shared = locked(&shared);
        shared.0.take_in(own);
        let stops = done.is_err() || (fail_fast && !shared.0.failed.is_empty());
        if let Err(error) = done {
            shared.1.get_or_insert(error);
        }
        if stops {
            locked(&queue).clear();
        }
    };
    std::thread::scope(|scope| {
        for number in 0..lanes {
            let lane = &lane;
            scope.spawn(move || lane(number));
        }
    });
    match shared.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (_, None) => Ok(()),
    }
}

/// All scenarios of a batch: one boot, and another after each scenario that takes its guest down.
fn pass(
    lab: &Lab,
    batch: &Batch<'_>,
    number: usize,
    fail_fast: bool,
    tally: &mut Tally,
) -> Result<()> {
    let vcpus = batch.vcpus;
    let mut left: VecDeque<&Scenario> = batch.scenarios.iter().copied().collect();
    let (mut fruitless, mut emulators) = (0, 0);
    while !left.is_empty() {
        let before = left.len();
        let failed_before = tally.failed.len();
        let (boot, stopped) = one_boot(lab, batch, number, &mut left, fail_fast, tally)?;
        let died = boot.outcome.done.is_none();
        if died {
            let why = boot.outcome.failure().unwrap_or_default();
            if emulators < EMULATORS && is_the_emulators(&why, vcpus) {
                emulators += 1;
                let running = left.front().map_or("", |scenario| &scenario.name);
                progress::line(&format!(
                    "  ??   {running}: the emulator's fault, so it is run again: {why}\n         {}",
                    boot.console.display()
                ));
                continue;
            }
            // Whatever was running took the guest down with it.
            if let Some(culprit) = left.pop_front() {
                progress::line(&format!("  FAIL {}: {why}", culprit.name));
                tally.scenario(&culprit.name, vcpus, false, 0.0, &culprit.proves, &why);
            }
            tally.logs.push(boot.console.clone());
            fruitless = if left.len() + 1 == before {
                fruitless + 1
            } else {
                0
            };
            if fruitless >= FRUITLESS {
                let what = format!(
                    "guests end before their scenarios do; {} were not run",
                    left.len()
                );
                return Err(Error::logged(what, boot.console));
            }
        } else {
            judge_rest(&boot, &mut left, vcpus, stopped, failed_before, tally);
            return Ok(());
        }
        if fail_fast {
            return Ok(());
        }
    }
    Ok(())
}

/// A guest that ended by itself has run everything it was asked for, with a clean log, or the run has failed.
fn judge_rest(
    boot: &Boot,
    left: &mut VecDeque<&Scenario>,
    vcpus: u32,
    stopped: bool,
    failed_before: usize,
    tally: &mut Tally,
) {
    let failed_scenarios = tally.failed.len() > failed_before;
    if !boot.outcome.complaints.is_empty() {
        let why = boot.outcome.failure().unwrap_or_default();
        progress::line(&format!("  FAIL kernel log: {why}"));
        tally
            .failed
            .push(format!("kernel log ({vcpus} vCPU): {why}"));
        tally.logs.push(boot.console.clone());
    } else if boot.outcome.done == Some(false) && !failed_scenarios {
        tally.failed.push(format!(
            "guest ({vcpus} vCPU): {}",
            boot.outcome.failure().unwrap_or_default()
        ));
        tally.logs.push(boot.console.clone());
    } else if failed_scenarios {
        tally.logs.push(boot.console.clone());
    }
    if !stopped {
        for scenario in left.drain(..) {
            tally.scenario(
                &scenario.name,
                vcpus,
                false,
                0.0,
                &scenario.proves,
                "the guest did not report it",
            );
        }
    }
}

/// How often the host moves in scenarios with a handoff a second, if the environment says so.
fn handoffs() -> Result<Option<u32>> {
    const NAME: &str = "MML_HANDOFFS";
    let Ok(text) = std::env::var(NAME) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(Some(count)),
        _ => Err(Error::environment(
            format!("{NAME}={text}: not a number of handoffs"),
            format!("set {NAME} to 1 to 1000, or unset it"),
        )),
    }
}

fn one_boot(
    lab: &Lab,
    batch: &Batch<'_>,
    number: usize,
    left: &mut VecDeque<&Scenario>,
    fail_fast: bool,
    tally: &mut Tally,
) -> Result<(Boot, bool)> {
    let Batch { ground, vcpus, .. } = *batch;
    let names: Vec<&str> = left.iter().map(|scenario| scenario.name.as_str()).collect();
    let mut order = json!({"mode": "test", "names": names, "options": {"fail_fast": fail_fast}});
    // Many in a row take longer than everybody wants to wait each time.
    if let Some(handoffs) = handoffs()? {
        order["options"]["handoffs"] = json!(handoffs);
    }
    if matches!(ground, Ground::VirtualTime) {
        order["options"]["virtual_time"] = json!(true);
    }
    let count = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let limit = match ground {
        Ground::Namespaces => BOOT + SCENARIO * count,
        Ground::VirtualTime => (BOOT + SCENARIO * count) * VIRTUAL,
        Ground::Guests(_) => {
            let slow = if lab.kernel.debug { 10.0 } else { 1.0 };
            order["options"]["patience"] = json!(network::PATIENCE * slow);
            (BOOT + SCENARIO * count).mul_f64(network::PATIENCE)
        }
    };
    let total = left.len() as u64;
    let mut step = Step::begin("scenarios", Some(total));
    let mut current = String::from("booting");
    let mut stopped = false;
    let mut last_words = String::new();
    let mut on_event = |event| match event {
        Event::Step { text } => {
            let line = text.lines().next().unwrap_or_default();
            if let Some(rest) = line.strip_prefix("scenario ") {
                current = rest.split(':').next().unwrap_or(rest).to_owned();
            }
            last_words = line.to_owned();
            step.at(
                Some(total - left.len() as u64),
                &format!("{current}: {line}"),
            );
        }
        Event::Scenario {
            name,
            ok,
            seconds,
            proves,
            detail,
        } => {
            left.retain(|scenario| scenario.name != name);
            let detail = detail.unwrap_or_default();
            // In one go: others have lines to print, too.
            progress::line(&format!(
                "  {} {name} ({seconds:.1} s)\n         {}",
                if ok { "ok  " } else { "FAIL" },
                if ok || detail.is_empty() {
                    &proves
                } else {
                    &detail
                }
            ));
            stopped |= fail_fast && !ok;
            tally.scenario(&name, vcpus, ok, seconds, &proves, &detail);
            step.at(Some(total - left.len() as u64), &name);
        }
        Event::Result { kind, fields } => tally.report.add(&kind, fields),
        _ => {}
    };
    let name = format!("test-{number}");
    let boot = match ground {
        Ground::Namespaces => {
            lab.boot(&name, Clock::Real { vcpus }, &order, limit, &mut on_event)?
        }
        Ground::VirtualTime => lab.boot(&name, Clock::Virtual, &order, limit, &mut on_event)?,
        Ground::Guests(conductor) => {
            network::boot(lab, conductor, "test-guests", &order, limit, &mut on_event)?
        }
    };
    if boot.outcome.done == Some(true) {
        step.done();
    } else {
        step.failed();
        if left.len() as u64 == total && !last_words.is_empty() {
            progress::line(&format!("  the guest's last words: {last_words}"));
        }
    }
    Ok((boot, stopped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_breakpoint_is_the_emulators_fault_where_processors_can_race() {
        let why = "the guest's kernel complained: [   87.5] Oops: int3: 0000 [#1] SMP NOPTI / Call Trace:";
        assert!(is_the_emulators(why, 2));
        assert!(!is_the_emulators(why, 1));
        assert!(!is_the_emulators("Oops: general protection fault", 2));
    }

    #[test]
    fn long_lists_are_divided_among_guests_and_short_ones_are_not() {
        assert_eq!(most_a_guest(180, 1), 180);
        assert_eq!(most_a_guest(180, 2), 30);
        assert_eq!(most_a_guest(20, 2), LEAST_A_GUEST);
        assert_eq!(most_a_guest(0, 1), 1);
    }
}
