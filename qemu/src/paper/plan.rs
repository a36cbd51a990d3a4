// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which runs each figure is drawn from.

use super::cost;
use super::moves::{Keys, Kind, Links, Moves, Streams, ACROSS, FAR, NEAR};
use super::run::{Config, Congestion, Errors, Run, Settings, Task, BURST_WINDOW};
use crate::error::{Error, Result};

/// An experiment: a table of the paper's Section IV, a figure of its Section V, or one of ours beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Processing of key management's messages.
    Table1,
    /// Initialisation and handoff.
    Table2,
    /// A handoff as who talks with the host sees it.
    Interruption,
    /// What a host costs its agents among many.
    Cost,
    /// Reno and Reno with SNOOP, 5 MB.
    Fig9,
    /// Throughput of the five configurations.
    Fig11,
    /// The same with Table III's settings of SNOOP.
    Fig11Table3,
    /// Some of it with other delays.
    Fig11Delay,
    /// Some of it with errors both ways.
    Fig11Both,
    /// Sequence numbers.
    Fig12,
    /// Congestion window.
    Fig13,
    /// The cost of a burst of duplicate acknowledgements.
    Dupacks,
    /// Share of what the link allows.
    Limit,
    /// Today's TCP.
    Modern,
}

impl Figure {
    /// All, in the order of their files.
    pub const ALL: [Figure; 14] = [
        Figure::Table1,
        Figure::Table2,
        Figure::Interruption,
        Figure::Cost,
        Figure::Fig9,
        Figure::Fig11,
        Figure::Fig11Table3,
        Figure::Fig11Delay,
        Figure::Fig11Both,
        Figure::Fig12,
        Figure::Fig13,
        Figure::Dupacks,
        Figure::Limit,
        Figure::Modern,
    ];

    /// Its name, which is that of its files too.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Table1 => "table1",
            Figure::Table2 => "table2",
            Figure::Interruption => "interruption",
            Figure::Cost => "cost",
            Figure::Fig9 => "fig9",
            Figure::Fig11 => "fig11",
            Figure::Fig11Table3 => "fig11-table3",
            Figure::Fig11Delay => "fig11-delay",
            Figure::Fig11Both => "fig11-both",
            Figure::Fig12 => "fig12",
            Figure::Fig13 => "fig13",
            Figure::Dupacks => "dupacks",
            Figure::Limit => "limit",
            Figure::Modern => "modern",
        }
    }

    /// The figures named: `fig11` is its other settings, delays and directions too.
    pub fn choose(names: &[String]) -> Result<Vec<Figure>> {
        if names.is_empty() {
            return Ok(Figure::ALL.to_vec());
        }
        let mut chosen = Vec::new();
        for name in names {
            let found: Vec<Figure> = Figure::ALL
                .into_iter()
                .filter(|figure| {
                    figure.name() == name || figure.name().starts_with(&format!("{name}-"))
                })
                .collect();
            if found.is_empty() {
                let known: Vec<&str> = Figure::ALL.iter().map(|figure| figure.name()).collect();
                return Err(Error::Usage(format!(
                    "no figure is called {name}; there are {}",
                    known.join(", ")
                )));
            }
            chosen.extend(found);
        }
        chosen.sort();
        chosen.dedup();
        Ok(chosen)
    }

    /// What it is drawn from.
    pub fn tasks(self, quick: bool) -> Vec<Task> {
        let runs = match self {
            Figure::Table1 => return messages(quick),
            Figure::Table2 => return moves(quick),
            Figure::Interruption => return streams(quick),
            Figure::Cost => return cost::tasks(quick),
            Figure::Dupacks => return bursts(),
            Figure::Fig9 => fig9(quick),
            Figure::Fig11 => grid(Settings::Ours, quick),
            Figure::Fig11Table3 => grid(Settings::Table3, quick),
            Figure::Fig11Delay => other_delays(quick),
            Figure::Fig11Both => both_ways(quick),
            Figure::Fig12 | Figure::Fig13 => {
                let mut runs = grid(Settings::Ours, quick);
                runs.retain(|run| run.trace);
                runs
            }
            Figure::Limit => grid(Settings::Ours, quick),
            Figure::Modern => modern(quick),
        };
        runs.into_iter().map(Task::Transfer).collect()
    }
}

/// One error in so many bits: 2 to the power of `bits`.
pub fn one_in(bits: i32) -> f64 {
    0.5f64.powi(bits)
}

/// One in 8 Mb.
pub const LOWEST: i32 = 23;
/// One in 2 Mb.
pub const TWO_MEGABITS: i32 = 21;
/// One in 512 kb, the rate of Figures 12 and 13.
pub const TRACED: i32 = 19;
/// One in 64 kb.
pub const HIGHEST: i32 = 16;

/// The paper's eight error rates, from one in 8 Mb to one in 64 kb.
pub fn error_rates() -> Vec<f64> {
    (HIGHEST..=LOWEST).rev().map(one_in).collect()
}

/// Runs a point.
const RUNS: u64 = 5;
/// Figure 11's file, and Figure 9's.
const FILE: u64 = 10_000_000;
const SMALL_FILE: u64 = 5_000_000;
/// That of a quick look.
const QUICK_FILE: u64 = 600_000;
/// Table III's 100 ms, as the wide-area network's share of a round trip: 50 ms each way.
pub const DELAY_MS: f64 = 100.0;
/// The text's 50 ms as a round trip, and Table III's 100 ms taken each way.
const OTHER_DELAYS_MS: [f64; 2] = [50.0, LONG_DELAY_MS];
/// Table III's 100 ms, each way.
pub const LONG_DELAY_MS: f64 = 200.0;
/// The wireless link.
const RATE_KBPS: u64 = 2000;
/// The longest a run may take, in virtual seconds.
const LIMIT_SECONDS: f64 = 1800.0;

fn runs(quick: bool) -> std::ops::RangeInclusive<u64> {
    1..=if quick { 1 } else { RUNS }
}

/// A run of the paper's: Reno without SACK, time stamps or window scaling, a buffer of 65,535 octets.
fn paper(config: Config, settings: Settings, bit_error_rate: f64, run: u64, quick: bool) -> Run {
    Run {
        config,
        snoop: config.has_snoop().then_some(settings),
        bit_error_rate,
        errors: Errors::Down,
        rate_kbps: RATE_KBPS,
        delay_ms: DELAY_MS,
        run,
        bytes: if quick { QUICK_FILE } else { FILE },
        congestion: Congestion::Reno,
        sack: false,
        timestamps: false,
        scaling: false,
        send_buffer: Some(65_535),
        trace: false,
        limit_seconds: LIMIT_SECONDS,
    }
}

fn fig9(quick: bool) -> Vec<Run> {
    let rates = if quick {
        vec![one_in(HIGHEST)]
    } else {
        [vec![0.0], error_rates()].concat()
    };
    let mut found = Vec::new();
    for config in [Config::Plain, Config::PlainSnoop] {
        for rate in &rates {
            for run in runs(quick) {
                let mut run = paper(config, Settings::Ours, *rate, run, quick);
                run.bytes = run.bytes.min(SMALL_FILE);
                found.push(run);
            }
        }
    }
    found
}

/// Figure 11's grid. At the rate of Figures 12 and 13 the sender is followed.
fn grid(settings: Settings, quick: bool) -> Vec<Run> {
    let rates = if quick {
        vec![0.0, one_in(TRACED), one_in(HIGHEST)]
    } else {
        [vec![0.0], error_rates()].concat()
    };
    let mut found = Vec::new();
    for config in Config::ALL {
        for rate in &rates {
            for run in runs(quick) {
                let mut run = paper(config, settings, *rate, run, quick);
                run.trace = *rate == one_in(TRACED);
                found.push(run);
            }
        }
    }
    found
}

/// Three error rates and two runs of Figure 11.
fn reduced(quick: bool, change: &dyn Fn(&mut Run)) -> Vec<Run> {
    if quick {
        return Vec::new();
    }
    let mut found = Vec::new();
    for config in Config::ALL {
        for rate in [0.0, one_in(TRACED), one_in(HIGHEST)] {
            for number in 1..=2 {
                let mut run = paper(config, Settings::Ours, rate, number, quick);
                run.bytes = SMALL_FILE;
                change(&mut run);
                found.push(run);
            }
        }
    }
    found
}

fn other_delays(quick: bool) -> Vec<Run> {
    OTHER_DELAYS_MS
        .iter()
        .flat_map(|delay| reduced(quick, &|run| run.delay_ms = *delay))
        .collect()
}

fn both_ways(quick: bool) -> Vec<Run> {
    let mut found = reduced(quick, &|run| run.errors = Errors::Both);
    found.retain(|run| run.bit_error_rate > 0.0);
    found
}

/// Today's TCP: what is sent in some seconds of the link, over every rate, delay and error rate.
fn modern(quick: bool) -> Vec<Run> {
    let (controls, delays, numbers): (&[Congestion], &[f64], _) = if quick {
        (&[Congestion::Cubic], &[40.0], 1..=1)
    } else {
        (
            &[Congestion::Cubic, Congestion::Bbr],
            &[10.0, 40.0, 100.0],
            1..=2,
        )
    };
    // Five seconds of the slow links, one of the fast: each is out of slow start before its first half is over.
    let links: &[(u64, u64)] = if quick {
        &[(2000, 1_250_000)]
    } else {
        &[
            (2000, 1_250_000),
            (20_000, 12_500_000),
            (100_000, 12_500_000),
        ]
    };
    let rates = if quick {
        vec![one_in(TRACED)]
    } else {
        vec![one_in(LOWEST), one_in(TRACED), one_in(HIGHEST)]
    };
    let mut found = Vec::new();
    for congestion in controls {
        for (rate_kbps, bytes) in links {
            for delay_ms in delays {
                for bit_error_rate in &rates {
                    for config in [
                        Config::Plain,
                        Config::PlainSnoop,
                        Config::Mml,
                        Config::MmlSnoop,
                    ] {
                        for run in numbers.clone() {
                            found.push(Run {
                                rate_kbps: *rate_kbps,
                                delay_ms: *delay_ms,
                                bytes: *bytes,
                                congestion: *congestion,
                                sack: true,
                                timestamps: true,
                                scaling: true,
                                send_buffer: None,
                                limit_seconds: 60.0,
                                ..paper(config, Settings::Ours, *bit_error_rate, run, quick)
                            });
                        }
                    }
                }
            }
        }
    }
    found
}

/// Initialisations and handoffs of a column, in full and in a quick look; of its handoffs under UDP and under TCP; and
/// message flows of each kind.
const STARTS: (u32, u32) = (10, 0);
const HANDOFFS: (u32, u32) = (50, 4);
const UNDER_STREAMS: [(Kind, u32); 2] = [(Kind::Udp, 50), (Kind::Tcp, 50)];
const MESSAGES: u32 = 10;

fn moves(quick: bool) -> Vec<Task> {
    let of = |keys: Keys, links: Links| {
        let pick = |(full, few)| if quick { few } else { full };
        Task::Moves(Moves {
            keys,
            home_ms: links.home_ms,
            agents_ms: links.agents_ms,
            starts: pick(STARTS),
            handoffs: pick(HANDOFFS),
        })
    };
    if quick {
        return [Keys::None, Keys::Pkd, Keys::Dkm]
            .map(|keys| of(keys, FAR))
            .into();
    }
    let far = Keys::ALL.map(|keys| of(keys, FAR));
    // The paper's columns.
    let near = [Keys::None, Keys::Esp, Keys::Pkd, Keys::Dkm].map(|keys| of(keys, NEAR));
    let across = [Keys::None, Keys::Pkd, Keys::Dkm].map(|keys| of(keys, ACROSS));
    far.into_iter().chain(near).chain(across).collect()
}

fn streams(quick: bool) -> Vec<Task> {
    if quick {
        return Vec::new();
    }
    let columns = Keys::ALL.into_iter().filter(|keys| *keys != Keys::Late);
    let of = |keys| {
        UNDER_STREAMS.map(|(kind, handoffs)| {
            Task::Streams(Streams {
                keys,
                home_ms: FAR.home_ms,
                agents_ms: FAR.agents_ms,
                handoffs,
                kind,
            })
        })
    };
    columns.flat_map(of).collect()
}

fn messages(quick: bool) -> Vec<Task> {
    let task = Task::Messages { times: MESSAGES };
    (!quick).then_some(task).into_iter().collect()
}

/// With SNOOP, and the same acknowledgements forwarded without it.
fn bursts() -> Vec<Task> {
    Config::ALL
        .into_iter()
        .filter(|config| *config != Config::Ipsec)
        .map(|config| Task::Burst {
            config,
            snoop: config.has_snoop().then_some(Settings::Ours),
            window: BURST_WINDOW,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfers(figure: Figure) -> Vec<Run> {
        figure
            .tasks(false)
            .into_iter()
            .map(|task| match task {
                Task::Transfer(run) => run,
                other => panic!("{other:?} in {}", figure.name()),
            })
            .collect()
    }

    #[test]
    fn the_error_rates_are_the_papers() {
        let rates = error_rates();
        assert_eq!(rates.len(), 8);
        assert!((rates[0] - 1.19e-7).abs() < 1e-9 && (rates[7] - 1.53e-5).abs() < 1e-7);
        assert!(rates.windows(2).all(|pair| pair[1] == 2.0 * pair[0]));
    }

    #[test]
    fn figure_11_is_five_configurations_nine_rates_five_runs_of_10_mb() {
        let runs = transfers(Figure::Fig11);
        assert_eq!(runs.len(), 5 * 9 * 5);
        assert!(runs.iter().all(|run| run.bytes == 10_000_000 && !run.sack));
        assert_eq!(runs.iter().filter(|run| run.trace).count(), 5 * 5);
    }

    #[test]
    fn the_runs_without_snoop_are_the_same_whatever_its_settings() {
        let (ours, table3) = (transfers(Figure::Fig11), transfers(Figure::Fig11Table3));
        for (ours, table3) in ours.iter().zip(&table3) {
            assert_eq!(ours == table3, !ours.config.has_snoop(), "{ours:?}");
        }
    }

    #[test]
    fn figures_12_and_13_are_drawn_from_runs_of_figure_11() {
        let all = transfers(Figure::Fig11);
        for figure in [Figure::Fig12, Figure::Fig13] {
            let runs = transfers(figure);
            assert!(runs.iter().all(|run| all.contains(run)));
            assert_eq!(runs.len(), 5 * 5);
            assert!(runs.iter().all(|run| run.bit_error_rate == one_in(19)));
        }
    }

    #[test]
    fn every_configuration_has_every_run_of_the_others() {
        for figure in [
            Figure::Fig9,
            Figure::Fig11,
            Figure::Fig11Delay,
            Figure::Modern,
        ] {
            let runs = transfers(figure);
            let mut configs: Vec<Config> = runs.iter().map(|run| run.config).collect();
            configs.sort();
            configs.dedup();
            for run in &runs {
                for config in &configs {
                    let mut other = run.clone();
                    other.config = *config;
                    other.snoop = config.has_snoop().then_some(Settings::Ours);
                    assert!(runs.contains(&other), "{}: {other:?}", figure.name());
                }
            }
        }
    }

    #[test]
    fn a_name_is_one_figure_or_a_family_and_an_unknown_one_wrong_usage() {
        let choose = |names: &[&str]| {
            Figure::choose(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[]).unwrap().len(), Figure::ALL.len());
        assert_eq!(choose(&["fig11"]).unwrap().len(), 4);
        assert_eq!(choose(&["fig12", "fig12"]).unwrap(), [Figure::Fig12]);
        assert_eq!(choose(&["fig10"]).unwrap_err().exit_code(), 2);
    }
}
