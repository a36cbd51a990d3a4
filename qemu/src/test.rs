// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab test`: the crates' own tests, the scenarios in guests, a quick look at the paper's experiments.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::boot::{self, Case};
use crate::build_root::Mode;
use crate::cache::Cache;
use crate::channel::Event;
use crate::cli::Shared;
use crate::error::{log_end, Context, Error, Result};
use crate::guest::{self, Scenario};
use crate::machine::{self, Clock};
use crate::network::{self, Topology};
use crate::newer;
use crate::paper;
use crate::progress::{self, Step};
use crate::report::Report;
use crate::setup::{Boot, Lab};
use crate::suite;
use crate::workspace::Workspace;

/// What start and end of a guest, and each scenario, may take at most by the wall clock.
const BOOT: Duration = Duration::from_secs(120);
const SCENARIO: Duration = Duration::from_secs(60);

/// How much longer scenarios take in virtual time: a busy second of it is ten of the host's.
const VIRTUAL: u32 = 10;
/// Scenarios that of all run in virtual time: one waits for minutes, and the others count what a moment costs, to which what
/// else the host does would add.
const IN_VIRTUAL_TIME: [&str; 6] = [
    "larval-csa-waits-165-seconds-for-its-keys",
    "handoff-under-a-stream-with-pkd",
    "handoff-under-a-stream-with-dkm",
    "handoff-under-tcp-with-pkd",
    "handoff-under-tcp-with-dkm",
    "handoff-a-second",
];

/// Boots without a single finished scenario before the lab gives up: the fault is then not a scenario's.
const FRUITLESS: u32 = 2;

/// What the user asked for.
pub struct Options {
    /// Scenarios; none: all.
    pub names: Vec<String>,
    /// Only show them.
    pub list: bool,
    /// Processors of the guests, one pass each.
    pub vcpus: Vec<u32>,
    /// Whether a guest's time is that of its instructions.
    pub virtual_time: bool,
    /// What the nodes are.
    pub topology: Topology,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Leave the crates' own tests out.
    pub only_guests: bool,
    /// Leave the guests out.
    pub only_pure: bool,
    /// Guests at a time; none: as many as the machine has processors, where there is work for them.
    pub jobs: Option<usize>,
}

/// The scenarios named: each name whole, or a part that several may share.
fn choose<'a>(all: &'a [Scenario], names: &[String]) -> Result<Vec<&'a Scenario>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let mut chosen: Vec<&Scenario> = Vec::new();
    for name in names {
        let exact: Vec<&Scenario> = all.iter().filter(|s| s.name == *name).collect();
        let found = if exact.is_empty() {
            all.iter()
                .filter(|s| s.name.contains(name.as_str()))
                .collect()
        } else {
            exact
        };
        if found.is_empty() {
            return Err(Error::Usage(format!(
                "no scenario is called {name}; see `cargo lab test --list`"
            )));
        }
        for scenario in found {
            if !chosen.iter().any(|other| other.name == scenario.name) {
                chosen.push(scenario);
            }
        }
    }
    Ok(chosen)
}

fn boot_all(lab: &Lab, boots: &[&Case], fail_fast: bool, tally: &mut Tally) -> Result<()> {
    if lab.kernel.debug || boots.is_empty() || (fail_fast && !tally.failed.is_empty()) {
        return Ok(());
    }
    println!("\n{} boots by systemd", boots.len());
    for case in boots {
        let (why, seconds) = boot::run(lab, case)?;
        let mark = if why.is_none() { "ok  " } else { "FAIL" };
        let detail = why.clone().unwrap_or_default();
        progress::line(&format!("  {mark} {} ({seconds:.1} s)", case.name));
        let said = why.as_deref().unwrap_or(case.proves);
        progress::line(&format!("         {said}"));
        tally.scenario(case.name, 1, why.is_none(), seconds, case.proves, &detail);
        if fail_fast && why.is_some() {
            break;
        }
    }
    Ok(())
}

/// Counts and the report, over everything that ran.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: Vec<String>,
    report: Report,
    logs: Vec<PathBuf>,
}

impl Tally {
    /// Takes another's in.
    fn take_in(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.report.append(other.report);
        self.logs.extend(other.logs);
    }

    fn scenario(
        &mut self,
        name: &str,
        vcpus: u32,
        ok: bool,
        seconds: f64,
        proves: &str,
        detail: &str,
    ) {
        if ok {
            self.passed += 1;
        } else {
            self.failed.push(format!("{name} ({vcpus} vCPU): {detail}"));
        }
        let fields = json!({
            "name": name, "vcpus": vcpus, "ok": ok, "seconds": seconds, "proves": proves, "detail": detail,
        });
        if let serde_json::Value::Object(fields) = fields {
            self.report.add("scenario", fields);
        }
    }
}

/// Runs the command.
pub fn command(options: &Options, shared: &Shared) -> Result<()> {
    let workspace = Workspace::find()?;
    let cache = Cache::open(Mode::of_caller())?;
    if options.list {
        return list(&workspace, &cache, shared);
    }
    let mut tally = Tally::default();
    tally.report.expect("scenario");
    if options.names.is_empty() && !options.only_guests {
        let log = cache.log("cargo-test")?;
        let counts = suite::run(&workspace, &log)?;
        println!(
            "  {} passed, {} failed without a guest",
            counts.passed,
            counts.failed.len()
        );
        tally.report.set(
            "pure",
            json!({"passed": counts.passed, "failed": counts.failed}),
        );
        tally.passed += counts.passed;
        if !counts.failed.is_empty() {
            tally.logs.push(log);
            tally.failed.extend(counts.failed);
        }
    }
    drop(cache);
    let stop = options.fail_fast && !tally.failed.is_empty();
    if !options.only_pure && !stop {
        guests(options, shared, &mut tally)?;
    }
    conclude(tally, shared)
}

fn list(workspace: &Workspace, cache: &Cache, shared: &Shared) -> Result<()> {
    let scenarios = guest::scenarios(workspace, &cache.log("guest-programs")?)?;
    let width = scenarios.iter().map(|s| s.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for scenario in &scenarios {
        let on = topologies(&scenario.topologies);
        text += &format!("{:width$}  {on:17}  {}\n", scenario.name, scenario.proves);
    }
    for case in &boot::CASES {
        text += &format!("{:width$}  {:17}  {}\n", case.name, "boot", case.proves);
    }
    text += "\nguests: cargo lab test --topology guests, each node with a kernel of its own\n";
    // Whoever reads the first lines only has read them.
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            return Err(error).context(|| "writing the list".to_owned());
        }
    }
    let mut report = Report::default();
    report.set("scenarios", json!(scenarios));
    report.write(shared.json.as_deref())
}

fn topologies(list: &[Topology]) -> String {
    let words = list.iter().map(|topology| match topology {
        Topology::Namespaces => "namespaces",
        Topology::Guests => "guests",
    });
    words.collect::<Vec<_>>().join(",")
}

fn conclude(mut tally: Tally, shared: &Shared) -> Result<()> {
    tally.report.set("passed", tally.passed);
    tally.report.set("failed", tally.failed.len());
    tally.report.write(shared.json.as_deref())?;
    if !tally.failed.is_empty() {
        println!("\nfailed:");
        for name in &tally.failed {
            println!("  {name}");
        }
    }
    for log in &tally.logs {
        println!("\n{}", log_end(log).join("\n"));
        let report = log.with_file_name(machine::REPORT);
        if report.exists() {
            println!("  what the guest did, step by step: {}", report.display());
        }
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed.len());
    match (tally.passed, tally.failed.len()) {
        (0, 0) => Err(Error::check("nothing was tested")),
        (_, 0) => Ok(()),
        _ => Err(Error::Told),
    }
}

/// Where scenarios run.
enum Ground {
    /// In one guest.
    Namespaces,
    /// In one guest whose time is that of its instructions.
    VirtualTime,
    /// In a network of guests, by this conductor.
    Guests(PathBuf),
}

fn guests(options: &Options, shared: &Shared, tally: &mut Tally) -> Result<()> {
    let mut lab = Lab::prepare(shared, false)?;
    tally.report.set("kernel", lab.kernel.release.as_str());
    let ground = match options.topology {
        Topology::Namespaces if options.virtual_time => Ground::VirtualTime,
        Topology::Namespaces => Ground::Namespaces,
        Topology::Guests => {
            let log = lab.cache.log("guest-programs")?;
            Ground::Guests(guest::conductor(&Workspace::find()?, &log)?)
        }
    };
    let all = match &ground {
        Ground::Namespaces | Ground::VirtualTime => {
            guest::listed(&lab.guest.init, options.topology)?
        }
        Ground::Guests(conductor) => guest::listed(conductor, options.topology)?,
    };
    let (chosen, boots) = match options.topology {
        Topology::Namespaces => {
            let (boots, rest) = boot::named(&options.names, &|name| {
                all.iter().any(|scenario| scenario.name.contains(name))
            });
            // With boots alone named, nothing is left to choose, which would mean all.
            let only_boots = rest.is_empty() && !options.names.is_empty();
            let chosen = if only_boots {
                Vec::new()
            } else {
                choose(&all, &rest)?
            };
            (chosen, boots)
        }
        Topology::Guests => (choose(&all, &options.names)?, Vec::new()),
    };
    if chosen
        .iter()
        .any(|scenario| scenario.name == newer::SCENARIO)
    {
        lab.bring_newer_strongswan()?;
    }
    // There idling costs nothing. A debug kernel is too slow for it.
    let apart =
        options.names.is_empty() && matches!(ground, Ground::Namespaces) && !lab.kernel.debug;
    let (exact, chosen): (Vec<_>, Vec<_>) = chosen
        .into_iter()
        .partition(|scenario| apart && IN_VIRTUAL_TIME.contains(&scenario.name.as_str()));
    let passes = match &ground {
        Ground::Namespaces => options.vcpus.as_slice(),
        Ground::VirtualTime | Ground::Guests(_) => &[1][..],
    };
    let jobs = match &ground {
        Ground::Guests(_) => 1,
        _ => options.jobs.unwrap_or_else(machine::processors),
    };
    // What takes a processor the whole time begins first, so that others don't wait for it.
    let mut batches = VecDeque::from([Batch {
        ground: &Ground::VirtualTime,
        scenarios: exact,
        vcpus: 1,
    }]);
    for vcpus in passes {
        let most = most_a_guest(chosen.len(), jobs);
        batches.extend(chosen.chunks(most).map(|scenarios| Batch {
            ground: &ground,
            scenarios: scenarios.to_vec(),
            vcpus: *vcpus,
        }));
    }
    batches.retain(|batch| !batch.scenarios.is_empty());
    for batch in &batches {
        println!("{}", batch.title(&lab));
    }
    side_by_side(&lab, batches, jobs, options.fail_fast, tally)?;
    if options.fail_fast && !tally.failed.is_empty() {
        return Ok(());
    }
    boot_all(&lab, &boots, options.fail_fast, tally)?;
    if options.names.is_empty() && options.topology == Topology::Namespaces {
        paper(&lab, tally)?;
    }
    Ok(())
}

/// A quick look at the paper's experiments, measured anew each time.
fn paper(lab: &Lab, tally: &mut Tally) -> Result<()> {
    if lab.kernel.debug {
        println!("\nThe paper's experiments are left out: they are not for a debug kernel.");
        return Ok(());
    }
    println!("\nA quick look at the paper's experiments (cargo lab paper --quick)");
    let checks = match paper::quick_look(lab, lab.cache.run_directory("paper-quick")?) {
        Err(Error::Told) => {
            tally
                .failed
                .push("paper: not everything was measured".into());
            return Ok(());
        }
        checks => checks?,
    };
    for check in checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        progress::line(&format!("  {mark} {}: {}", check.name, check.detail));
        if check.ok {
            tally.passed += 1;
        } else {
            tally
                .failed
                .push(format!("paper: {}: {}", check.name, check.detail));
        }
        if let serde_json::Value::Object(fields) = json!(check) {
            tally.report.add("paper", fields);
        }
    }
    Ok(())
}

/// Fewer scenarios than these aren't worth a guest of their own.
const LEAST_A_GUEST: usize = 12;
/// Guests after each other on each processor, so that all end at about the same time, whatever each scenario takes.
const GUESTS_A_JOB: usize = 3;

/// How many scenarios a guest runs. Most of them wait most of the time, so that two guests hardly disturb one another.
fn most_a_guest(count: usize, jobs: usize) -> usize {
    match jobs {
        0 | 1 => count.max(1),
        _ => count.div_ceil(jobs * GUESTS_A_JOB).max(LEAST_A_GUEST),
    }
}

/// What one guest runs, or several where scenarios take it down.
struct Batch<'a> {
    ground: &'a Ground,
    scenarios: Vec<&'a Scenario>,
    vcpus: u32,
}

impl Batch<'_> {
    fn title(&self, lab: &Lab) -> String {
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
fn side_by_side(
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
    let mut fruitless = 0;
    while !left.is_empty() {
        let before = left.len();
        let failed_before = tally.failed.len();
        let (boot, stopped) = one_boot(lab, batch, number, &mut left, fail_fast, tally)?;
        let died = boot.outcome.done.is_none();
        if died {
            // Whatever was running took the guest down with it.
            if let Some(culprit) = left.pop_front() {
                let why = boot.outcome.failure().unwrap_or_default();
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

/// How often the host of `handoff-a-second` moves, if the environment says so.
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

    fn scenario(name: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            proves: String::new(),
            topologies: vec![Topology::Namespaces],
        }
    }

    #[test]
    fn long_lists_are_divided_among_guests_and_short_ones_are_not() {
        assert_eq!(most_a_guest(180, 1), 180);
        assert_eq!(most_a_guest(180, 2), 30);
        assert_eq!(most_a_guest(20, 2), LEAST_A_GUEST);
        assert_eq!(most_a_guest(0, 1), 1);
    }

    #[test]
    fn a_whole_name_wins_over_a_part_and_an_unknown_one_is_wrong_usage() {
        let all = [
            scenario("guard"),
            scenario("guard-fails-closed"),
            scenario("relay"),
        ];
        let names =
            |list: &[&str]| -> Vec<String> { list.iter().map(|n| (*n).to_owned()).collect() };
        assert_eq!(choose(&all, &[]).unwrap().len(), 3);
        assert_eq!(choose(&all, &names(&["guard"])).unwrap().len(), 1);
        assert_eq!(choose(&all, &names(&["guar"])).unwrap().len(), 2);
        assert_eq!(choose(&all, &names(&["relay", "rel"])).unwrap().len(), 1);
        assert_eq!(
            choose(&all, &names(&["nothing"])).unwrap_err().exit_code(),
            2
        );
    }
}
