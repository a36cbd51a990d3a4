// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab paper`: the experiments of the MML paper on a stock kernel, in virtual time: key management and handoffs (its
//! Section IV), throughput (its Section V), and throughput with the TCP of today.
//!
//! Where to look: `plan` says which runs each figure is drawn from; `run` is one of them, `state` what has been measured
//! and survives; `batch` shares the rest out, `work` boots the guests; `csv` and `plots` (over `chart`) show what came of
//! it, `cost` a host among many; `claims` holds it against the paper, `quick` against what a short look must show.

mod batch;
mod chart;
mod claims;
mod cost;
mod csv;
mod moves;
mod plan;
mod plots;
mod quick;
mod results;
mod run;
mod state;
mod tables;
mod work;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli;
use crate::error::{log_end, Error, Result};
use crate::machine;
use crate::report::Report;
use crate::setup::Lab;
use claims::Claim;
use cost::Costs;
use moves::Tables;
use plan::Figure;
use results::{Bursts, Results};
use run::Task;
use state::{Ground, Measured, State};
use work::Item;

pub use quick::Check;

/// What the user asked for.
pub struct Options {
    /// Figures; none: all.
    pub only: Vec<String>,
    /// A few points.
    pub quick: bool,
    /// Whether a claim that doesn't hold is a failure.
    pub strict: bool,
    /// Where tables, plots and claims go.
    pub out: PathBuf,
    /// Guests at once; as many as there are processors otherwise.
    pub jobs: Option<usize>,
}

/// A figure and what it is drawn from, each task with its key.
struct Plot {
    figure: Figure,
    tasks: Vec<(Task, String)>,
}

/// Runs the command.
pub fn command(options: &Options, shared: &cli::Shared) -> Result<()> {
    let figures = Figure::choose(&options.only)?;
    let lab = Lab::prepare(shared, false)?;
    println!(
        "Measured in virtual time (one instruction is one nanosecond, idle time is skipped) on {}.",
        lab.kernel.origin
    );
    let results = experiments(&lab, &figures, options)?;
    let claims = claims::all(&results);
    let text = serde_json::to_string_pretty(&claims).map_err(|e| Error::check(e.to_string()))?;
    csv::write(&options.out.join("claims.json"), &(text + "\n"))?;
    show(&claims);
    let checks = if options.quick {
        quick::checks(&results)
    } else {
        Vec::new()
    };
    for check in &checks {
        let mark = if check.ok { "ok" } else { "NO" };
        println!("  {mark} {}: {}", check.name, check.detail);
    }
    let mut report = Report::default();
    report.set("kernel", lab.kernel.release.as_str());
    report.set("claims", json!(claims));
    report.set("checks", json!(checks));
    report.write(shared.json.as_deref())?;
    println!(
        "\nTables, plots and claims.json are in {}/.",
        options.out.display()
    );
    judge(&claims, &checks, options.strict)
}

/// Runs the few points of `--quick` and says what they must show, for `cargo lab test`.
pub fn quick_look(lab: &Lab, out: PathBuf) -> Result<Vec<Check>> {
    let options = Options {
        only: Vec::new(),
        quick: true,
        strict: false,
        out,
        jobs: None,
    };
    Ok(quick::checks(&experiments(lab, &Figure::ALL, &options)?))
}

/// Measures what is missing, writes tables and plots, and gives all there is.
fn experiments(lab: &Lab, figures: &[Figure], options: &Options) -> Result<Results> {
    let ground = Ground::of(lab)?;
    let keyed = |task: Task| {
        let key = ground.key(&task);
        (task, key)
    };
    let plot = |figure: &Figure| Plot {
        figure: *figure,
        tasks: figure.tasks(options.quick).into_iter().map(keyed).collect(),
    };
    let plots: Vec<Plot> = figures.iter().map(plot).collect();
    let mut state = State::open(&options.out)?;
    for plot in &plots {
        write_table(plot, &options.out, &state)?;
    }
    let items = missing(&plots, &state);
    if !items.is_empty() {
        measure(lab, items, &plots, options, &mut state)?;
    }
    let results = collect(&plots, &state);
    for plot in &plots {
        let name = plot.figure.name();
        plots::figure(
            plot.figure,
            &results,
            &options.out.join(format!("{name}.svg")),
        )?;
        if matches!(plot.figure, Figure::Fig12 | Figure::Fig13) {
            let series = csv::series(plot.figure, &Measured::of(&plot.tasks, &state));
            csv::write(&options.out.join(format!("{name}-series.csv")), &series)?;
        }
    }
    Ok(results)
}

fn measure(
    lab: &Lab,
    items: Vec<Item>,
    plots: &[Plot],
    options: &Options,
    state: &mut State,
) -> Result<()> {
    let jobs = options.jobs.unwrap_or_else(machine::processors);
    let mut rewrite = |key: &str, state: &State| {
        let mut with = plots
            .iter()
            .filter(|plot| plot.tasks.iter().any(|(_, other)| other == key));
        with.try_for_each(|plot| write_table(plot, &options.out, state))
    };
    let done = work::measure(lab, items, jobs, state, &mut rewrite)?;
    if done.failures.is_empty() {
        return Ok(());
    }
    println!("\nnot measured:");
    for failure in &done.failures {
        println!("  {failure}");
    }
    for log in &done.logs {
        println!("\n{}", log_end(log).join("\n"));
    }
    println!(
        "\nWhat was measured is kept in {}; the same command goes on from there.",
        options.out.display()
    );
    Err(Error::Told)
}

/// What isn't measured yet, each once, whatever figures it belongs to.
fn missing(plots: &[Plot], state: &State) -> Vec<Item> {
    let mut seen = HashSet::new();
    plots
        .iter()
        .flat_map(|plot| &plot.tasks)
        .filter(|(_, key)| !state.has(key) && seen.insert(key.clone()))
        .map(|(task, key)| Item {
            task: task.clone(),
            key: key.clone(),
        })
        .collect()
}

fn write_table(plot: &Plot, out: &Path, state: &State) -> Result<()> {
    let both = || Tables::of(plot.tasks.iter(), state);
    let text = match plot.figure {
        Figure::Table1 => tables::table1(&both()),
        Figure::Table2 => {
            let path = out.join("table2-phases.csv");
            csv::write(&path, &tables::phases(&both()))?;
            tables::table2(&both())
        }
        Figure::Interruption => tables::interruption(&both()),
        Figure::Cost => cost::table(&Costs::of(plot.tasks.iter(), state)),
        Figure::Dupacks => csv::bursts(&Bursts::of(&plot.tasks, state)),
        figure => csv::table(figure, &Measured::of(&plot.tasks, state)),
    };
    csv::write(&out.join(format!("{}.csv", plot.figure.name())), &text)
}

/// What was measured, by what it is for. Claims and plots about Figure 11's runs need only those they are about, so any
/// figure that is drawn from them brings its own.
fn collect(plots: &[Plot], state: &State) -> Results {
    let of = |figure: Figure| {
        plots
            .iter()
            .find(|plot| plot.figure == figure)
            .map(|plot| Measured::of(&plot.tasks, state))
    };
    let ours = [Figure::Fig11, Figure::Limit, Figure::Fig12, Figure::Fig13];
    let bursts = plots.iter().find(|plot| plot.figure == Figure::Dupacks);
    Results {
        fig9: of(Figure::Fig9).unwrap_or_default(),
        ours: ours.into_iter().find_map(of).unwrap_or_default(),
        table3: of(Figure::Fig11Table3).unwrap_or_default(),
        delays: of(Figure::Fig11Delay).unwrap_or_default(),
        modern: of(Figure::Modern).unwrap_or_default(),
        bursts: bursts
            .map(|plot| Bursts::of(&plot.tasks, state))
            .unwrap_or_default(),
        tables: Tables::of(plots.iter().flat_map(|plot| &plot.tasks), state),
        costs: Costs::of(plots.iter().flat_map(|plot| &plot.tasks), state),
    }
}

/// The claims, one after the other: whether each holds, what was measured, the goal, the paper's own.
fn show(claims: &[Claim]) {
    println!();
    for claim in claims {
        let holds = match claim.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        let measured = claim.measured.as_deref().unwrap_or("not measured");
        println!("  {holds:3}  {}: {}", claim.id, claim.text);
        println!("         measured  {measured}");
        println!("         goal      {}", claim.goal);
        println!("         paper     {}", claim.paper);
    }
}

/// The experiments ran whole. What a quick look must show is a check; a claim is one when the user says so.
fn judge(claims: &[Claim], checks: &[Check], strict: bool) -> Result<()> {
    let missed = claims
        .iter()
        .filter(|claim| strict && claim.holds == Some(false))
        .map(|claim| claim.id.to_owned());
    let failed = checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| check.name.to_owned());
    let all: Vec<String> = missed.chain(failed).collect();
    if all.is_empty() {
        Ok(())
    } else {
        Err(Error::check(format!("not true: {}", all.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn plots(names: &[&str]) -> Vec<Plot> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Figure::choose(&names)
            .unwrap()
            .into_iter()
            .map(|figure| Plot {
                figure,
                tasks: figure
                    .tasks(false)
                    .into_iter()
                    .map(|task| {
                        let key = json!(task).to_string();
                        (task, key)
                    })
                    .collect(),
            })
            .collect()
    }

    fn outcome(goodput: f64) -> Value {
        json!({"bytes": 10_000_000, "whole": true, "seconds": 80.0, "goodput_kbps": goodput, "mss": 1460, "packet": 1514,
            "retransmitted": 0, "timeouts": 0,
            "link": {"sent": 1, "sent_octets": 1514, "corrupted": 0, "overflowed": 0, "prioritised": 0}})
    }

    #[test]
    fn runs_that_figures_share_are_measured_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let count = |names: &[&str]| missing(&plots(names), &state).len();
        assert_eq!(count(&["fig12", "fig13"]), 25);
        // Table III's settings concern two of five configurations.
        let (delay, both) = (count(&["fig11-delay"]), count(&["fig11-both"]));
        assert_eq!(count(&["fig11", "limit"]), 225 + 90 + delay + both);
    }

    #[test]
    fn what_is_measured_is_not_measured_again_and_its_rows_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let plots = plots(&["fig9"]);
        let mut state = State::open(dir.path()).unwrap();
        let before = missing(&plots, &state);
        state
            .add(&before[0].key, &before[0].task, outcome(1234.5))
            .unwrap();
        assert_eq!(missing(&plots, &state), before[1..]);
        write_table(&plots[0], dir.path(), &state).unwrap();
        let text = std::fs::read_to_string(dir.path().join("fig9.csv")).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("plain,0,2000,100,1,10000000,80.000000,1234.500"));
    }

    #[test]
    fn every_figure_draws_from_what_was_measured_and_from_less() {
        let dir = tempfile::tempdir().unwrap();
        let plots = plots(&[]);
        let mut state = State::open(dir.path()).unwrap();
        for part in [3, 1] {
            for item in missing(&plots, &state).iter().step_by(part) {
                let outcome = match &item.task {
                    Task::Transfer(run) => {
                        let mut outcome = outcome(900.0);
                        if run.trace {
                            outcome["trace"] = json!([[0, 0, 10], [80_000, 10_000_000, 12]]);
                        }
                        outcome
                    }
                    Task::Burst { .. } => {
                        json!({"packet_instructions": 5000, "burst_instructions": 60_000, "arrival_instructions": 40_000})
                    }
                    Task::Moves(_) => {
                        let instants = json!([{"up": -100, "advertised": 200, "requested": 400, "registered": 9000}]);
                        json!({"starts": instants, "handoffs": instants})
                    }
                    Task::Streams(_) => {
                        let trace =
                            json!({"sent": [[-10, 0], [20, 1448]], "acknowledged": [[5, 1448]]});
                        json!({"runs": [{"interruption_us": 30_000, "gap_us": 900, "lost": 30, "sent": 900, "doubled": 0, "retransmitted": 0, "timeouts": 0}], "trace": trace})
                    }
                    Task::Company(_) => {
                        let rekeying = json!([{"home_us": 900.0, "foreign_us": 200.0}]);
                        json!({"rekeying": rekeying, "handoffs": [{"registered": 5000}]})
                    }
                    Task::Messages { .. } => {
                        let flow = |name: &str| json!({"flow": name, "initiator_us": 200.0, "responder_us": 100.0});
                        let names = [
                            "isakmp",
                            "create",
                            "distribution",
                            "pkd",
                            "dkm",
                            "handover",
                            "neighbours",
                        ];
                        json!({"rows": names.map(flow)})
                    }
                };
                assert!(state.add(&item.key, &item.task, outcome).unwrap());
            }
            let results = collect(&plots, &state);
            for plot in &plots {
                let path = dir.path().join(format!("{}.svg", plot.figure.name()));
                plots::figure(plot.figure, &results, &path).unwrap();
            }
        }
        let drawn = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for text in [
            "MML-IPsec + SNOOP",
            "1.53e-5",
            "paper: SNOOP 3 times",
            "what the link allows",
        ] {
            assert!(drawn("fig11.svg").contains(text), "{text}");
        }
        assert!(drawn("interruption.svg").contains("Mobile IP"));
        assert!(drawn("interruption.svg").contains("the radio away for 0.9 ms"));
        assert!(drawn("cost.svg").contains("by one datagram"));
        assert!(drawn("fig13.svg").contains("paper: SNOOP, average 35"));
        assert!(claims::all(&collect(&plots, &state))
            .iter()
            .all(|claim| claim.holds.is_some()));
    }

    #[test]
    fn a_claim_that_does_not_hold_fails_the_command_only_if_asked() {
        let claims = claims::all(&Results::default());
        assert!(judge(&claims, &[], true).is_ok(), "nothing was measured");
        let mut missed = claims.clone();
        missed[0].holds = Some(false);
        assert!(judge(&missed, &[], false).is_ok());
        assert_eq!(judge(&missed, &[], true).unwrap_err().exit_code(), 1);
    }
}
