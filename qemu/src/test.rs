// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab test`: the crates' own tests, the scenarios in guests, a quick look at the paper's experiments.

mod batch;

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use batch::{most_a_guest, side_by_side, Batch, Ground};

use crate::boot::{self, Case};
use crate::build_root::Mode;
use crate::cache::Cache;
use crate::cli::Shared;
use crate::error::{log_end, Context, Error, Result};
use crate::guest::{self, Scenario};
use crate::machine;
use crate::network::Topology;
use crate::newer;
use crate::paper;
use crate::progress;
use crate::report::Report;
use crate::setup::Lab;
use crate::suite;
use crate::workspace::Workspace;

/// Scenarios that of all run in virtual time: one waits for minutes, and the others count what a moment costs, to which what
/// else the host does would add.
const IN_VIRTUAL_TIME: [&str; 10] = [
    "larval-csa-waits-165-seconds-for-its-keys",
    "handoff-under-a-stream-with-pkd",
    "handoff-under-a-stream-with-dkm",
    "handoff-under-tcp-with-pkd",
    "handoff-under-tcp-with-dkm",
    "tcp-through-a-handoff-a-second-with-pkd",
    "tcp-through-a-handoff-a-second-with-dkm",
    "handoff-a-second",
    "handoffs-on-the-papers-link-with-pkd",
    "handoffs-on-the-papers-link-with-dkm",
];

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
    options.topology.takes(shared.kernel)?;
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
