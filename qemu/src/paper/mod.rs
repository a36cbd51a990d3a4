// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab paper`: the throughput experiments of the MML paper (its Section V) on a stock kernel, in virtual time, and
//! the same for the TCP of today.
//!
//! Where to look: `plan` says which runs each figure is drawn from; `run` is one of them, `state` what has been measured
//! and survives; `batch` shares the rest out, `work` boots the guests; `csv` writes what came of it.

mod batch;
mod csv;
mod plan;
mod run;
mod state;
mod work;

use std::path::{Path, PathBuf};

use crate::cli;
use crate::error::{log_end, Error, Result};
use crate::setup::Lab;
use plan::Figure;
use run::Task;
use state::{Ground, Measured, State};
use work::Item;

/// What the user asked for.
pub struct Options {
    /// Figures; none: all.
    pub only: Vec<String>,
    /// A few points.
    pub quick: bool,
    /// Where tables, plots and claims go.
    pub out: PathBuf,
    /// Guests at once; as many as there are processors otherwise.
    pub jobs: Option<usize>,
}

/// A figure and what it is drawn from.
struct Plot {
    figure: Figure,
    tasks: Vec<(Task, String)>,
}

/// Runs the command.
pub fn command(options: &Options, shared: &cli::Shared) -> Result<()> {
    let figures = Figure::choose(&options.only)?;
    let lab = Lab::prepare(shared, false)?;
    let ground = Ground::of(&lab)?;
    let plots: Vec<Plot> = figures
        .iter()
        .map(|figure| Plot {
            figure: *figure,
            tasks: figure
                .tasks(options.quick)
                .into_iter()
                .map(|task| {
                    let key = ground.key(&task);
                    (task, key)
                })
                .collect(),
        })
        .collect();
    let mut state = State::open(&options.out)?;
    let items = missing(&plots, &state);
    for plot in &plots {
        write_table(plot, &options.out, &state)?;
    }
    let jobs = options
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if !items.is_empty() {
        let done = work::measure(&lab, items, jobs, &mut state, &mut |key, state| {
            let mut with = plots
                .iter()
                .filter(|plot| plot.tasks.iter().any(|(_, other)| other == key));
            with.try_for_each(|plot| write_table(plot, &options.out, state))
        })?;
        if !done.failures.is_empty() {
            println!("\nnot measured:");
            for failure in &done.failures {
                println!("  {failure}");
            }
            for log in &done.logs {
                println!("\n{}", log_end(log).join("\n"));
            }
            return Err(Error::Told);
        }
    }
    Ok(())
}

/// What isn't measured yet, each once, whatever figures it belongs to.
fn missing(plots: &[Plot], state: &State) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (task, key) in plots.iter().flat_map(|plot| &plot.tasks) {
        if !state.has(key) && seen.insert(key.clone()) {
            items.push(Item {
                task: task.clone(),
                key: key.clone(),
            });
        }
    }
    items
}

fn write_table(plot: &Plot, out: &Path, state: &State) -> Result<()> {
    if plot.figure == Figure::Dupacks {
        return Ok(());
    }
    let measured = Measured::of(&plot.tasks, state);
    let path = out.join(format!("{}.csv", plot.figure.name()));
    csv::write(&path, &csv::table(plot.figure, &measured))
}
