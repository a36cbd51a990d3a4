// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the paper claims (of throughput here, of key management in `tables` and `cost`), what ours must reach, what was measured.

use serde::Serialize;

use super::plan::{error_rates, one_in, HIGHEST, LONG_DELAY_MS, LOWEST, TRACED, TWO_MEGABITS};
use super::results::{Bursts, Results};
use super::run::{Config, Run};
use super::state::Measured;
use super::{cost, tables};

/// One claim.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claim {
    /// A short name that stays.
    pub id: &'static str,
    /// What is claimed.
    pub text: &'static str,
    /// What the paper measured.
    pub paper: &'static str,
    /// What ours must be.
    pub goal: &'static str,
    /// What ours is; nothing, if what it takes wasn't run.
    pub measured: Option<String>,
    /// Whether that reaches the goal.
    pub holds: Option<bool>,
}

/// What a claim's measurement comes to, and whether it reaches the goal.
pub type Finding = Option<(String, bool)>;

/// A claim and what came of it.
pub fn claim(
    id: &'static str,
    text: &'static str,
    paper: &'static str,
    goal: &'static str,
    finding: Finding,
) -> Claim {
    let (measured, holds) = finding.unzip();
    Claim {
        id,
        text,
        paper,
        goal,
        measured,
        holds,
    }
}

/// Every claim, in the paper's order, then those about today's TCP.
pub fn all(results: &Results) -> Vec<Claim> {
    let mut claims = tables::claims(&results.tables);
    claims.extend(cost::claims(&results.costs));
    claims.extend(throughput(results));
    claims
}

/// Those of Section V.
fn throughput(results: &Results) -> Vec<Claim> {
    let ours = &results.ours;
    vec![
        claim(
            "overhead",
            "without errors, IPsec and MML against plain TCP",
            "-5 %, -9 %",
            "MML no more than 1.2 % below IPsec",
            overhead(ours),
        ),
        claim(
            "errors-2mb",
            "at one error in 2 Mb, IPsec and MML against their own throughput without errors",
            "-27 % both",
            "the same direction",
            fall(ours, TWO_MEGABITS),
        ),
        claim(
            "errors-64kb",
            "at one error in 64 kb, IPsec and MML against their own throughput without errors",
            "-62 % both",
            "the same direction",
            fall(ours, HIGHEST),
        ),
        claim(
            "snoop-64kb",
            "at one error in 64 kb, TCP with SNOOP against TCP",
            "3 times",
            "at least 3 times",
            times(ours, Config::PlainSnoop, Config::Plain, HIGHEST, 3.0),
        ),
        claim(
            "snoop-8mb",
            "at one error in 8 Mb, TCP with SNOOP against TCP",
            "+10 %",
            "at least +10 %",
            more(ours, Config::PlainSnoop, Config::Plain, LOWEST, 0.10),
        ),
        claim(
            "mml-snoop-most",
            "MML with SNOOP against MML, the most at any error rate",
            "5 times",
            "at least 5 times",
            most(ours),
        ),
        claim(
            "mml-snoop-8mb",
            "at a low error rate (one in 8 Mb), MML with SNOOP against MML and against IPsec",
            "+19 %, +14 %",
            "at least as much",
            low(ours),
        ),
        claim(
            "mml-snoop-plain",
            "MML with SNOOP against plain TCP, over the error rates",
            "+3 % to +108 %",
            "never below plain TCP",
            never_below(ours),
        ),
        claim(
            "mml-snoop-ipsec-average",
            "MML with SNOOP against IPsec, average over the error rates",
            "+165 %",
            "at least +200 %",
            average(ours, Config::Ipsec, 2.0),
        ),
        claim(
            "mml-snoop-plain-average",
            "MML with SNOOP against plain TCP, average over the error rates",
            "+50 %",
            "at least +75 %",
            average(ours, Config::Plain, 0.75),
        ),
        claim(
            "window",
            "average congestion window at one error in 512 kb, in segments: SNOOP and TCP; MML with SNOOP and MML",
            "35 and 6; 26 and 5",
            "the same direction",
            windows(ours),
        ),
        claim(
            "mml-snoop-512kb",
            "at one error in 512 kb, MML with SNOOP against MML",
            "+170 %",
            "at least +170 %",
            at_both_delays(ours, &results.delays),
        ),
        claim(
            "sequence",
            "at one error in 512 kb, growth of sequence numbers, MML with SNOOP against IPsec",
            "twice the rate",
            "at least twice",
            sequence(ours),
        ),
        claim(
            "dupacks",
            "what SNOOP spends on a burst of 39 duplicate acknowledgements, in packets' processing; time-outs of the sender",
            "10 packets; time-outs",
            "at most 2 packets; no time-out",
            dupacks(&results.bursts, ours),
        ),
        claim(
            "limit",
            "share of link rate x packet survival x segment / packet, the least at any error rate",
            "not given",
            "at least 90 % with our settings",
            limit(ours, &results.table3),
        ),
        claim(
            "modern-no-worse",
            "today's TCP (CUBIC and BBR, SACK, time stamps) with SNOOP against without, the worst of all cells",
            "not given; plain SNOOP hurts SACK (Vangala and Labrador, 2003)",
            "at least 0.98 times in every cell",
            no_worse(&results.modern),
        ),
        claim(
            "modern-better",
            "the same, the worst of the cells where the sender alone gets less than 60 % of link rate x packet survival",
            "not given",
            "at least 1.3 times in every such cell",
            better(&results.modern),
        ),
    ]
}

/// The mean goodput of a configuration at an error rate, in kb/s.
pub fn mean(measured: &Measured, config: Config, rate: f64) -> Option<f64> {
    average_of(measured.0.iter().filter_map(|(run, outcome)| {
        (run.config == config && run.bit_error_rate == rate).then_some(outcome.goodput_kbps)
    }))
}

fn average_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The means' ratio.
pub fn ratio(measured: &Measured, config: Config, to: Config, rate: f64) -> Option<f64> {
    Some(mean(measured, config, rate)? / mean(measured, to, rate)?)
}

/// What the link allows a configuration at an error rate, over another's mean.
fn allowed(measured: &Measured, config: Config, to: Config, rate: f64) -> Option<f64> {
    let (run, outcome) = measured
        .0
        .iter()
        .find(|(run, _)| run.config == config && run.bit_error_rate == rate)?;
    Some(outcome.bound_kbps(run) / mean(measured, to, rate)?)
}

/// Where a goal is more than the link allows over what was measured of the other side, how much that is.
fn beyond(measured: &Measured, config: Config, to: Config, rate: f64, goal: f64) -> String {
    match allowed(measured, config, to, rate) {
        Some(allowed) if allowed < goal => format!(" (the link allows {})", percent(allowed)),
        _ => String::new(),
    }
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

fn overhead(measured: &Measured) -> Finding {
    let [ipsec, mml] =
        [Config::Ipsec, Config::Mml].map(|config| ratio(measured, config, Config::Plain, 0.0));
    let (ipsec, mml) = (ipsec?, mml?);
    let text = format!(
        "{}, {}; MML against IPsec {}",
        percent(ipsec),
        percent(mml),
        percent(mml / ipsec)
    );
    Some((text, mml / ipsec >= 1.0 - 0.012))
}

fn fall(measured: &Measured, bits: i32) -> Finding {
    let [ipsec, mml] = [Config::Ipsec, Config::Mml]
        .map(|config| Some(mean(measured, config, one_in(bits))? / mean(measured, config, 0.0)?));
    let (ipsec, mml) = (ipsec?, mml?);
    let text = format!("{}, {}", percent(ipsec), percent(mml));
    Some((text, ipsec < 1.0 && mml < 1.0))
}

fn times(measured: &Measured, config: Config, to: Config, bits: i32, goal: f64) -> Finding {
    let ratio = ratio(measured, config, to, one_in(bits))?;
    Some((format!("{ratio:.1} times"), ratio >= goal))
}

fn more(measured: &Measured, config: Config, to: Config, bits: i32, goal: f64) -> Finding {
    let rate = one_in(bits);
    let ratio = ratio(measured, config, to, rate)?;
    let beyond = beyond(measured, config, to, rate, 1.0 + goal);
    Some((format!("{}{beyond}", percent(ratio)), ratio >= 1.0 + goal))
}

/// The paper's delay is ambiguous, so the same is told of the other reading; the grid's own counts.
fn at_both_delays(measured: &Measured, delays: &Measured) -> Finding {
    let (snoop, mml) = (Config::MmlSnoop, Config::Mml);
    let (text, holds) = more(measured, snoop, mml, TRACED, 1.70)?;
    let long = ratio(
        &delays.with_delay(LONG_DELAY_MS),
        snoop,
        mml,
        one_in(TRACED),
    );
    let beside = long
        .map(|long| format!("; with 100 ms each way {}", percent(long)))
        .unwrap_or_default();
    Some((text + &beside, holds))
}

/// MML with SNOOP against another, at each error rate that was run.
fn over_rates(measured: &Measured, to: Config) -> Vec<f64> {
    error_rates()
        .into_iter()
        .filter_map(|rate| ratio(measured, Config::MmlSnoop, to, rate))
        .collect()
}

fn extremes(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some((least, most))
}

fn most(measured: &Measured) -> Finding {
    let (_, most) = extremes(&over_rates(measured, Config::Mml))?;
    Some((format!("{most:.1} times"), most >= 5.0))
}

fn low(measured: &Measured) -> Finding {
    let [mml, ipsec] = [Config::Mml, Config::Ipsec]
        .map(|to| ratio(measured, Config::MmlSnoop, to, one_in(LOWEST)));
    let (mml, ipsec) = (mml?, ipsec?);
    let rate = one_in(LOWEST);
    let text = format!(
        "{}{}, {}{}",
        percent(mml),
        beyond(measured, Config::MmlSnoop, Config::Mml, rate, 1.19),
        percent(ipsec),
        beyond(measured, Config::MmlSnoop, Config::Ipsec, rate, 1.14)
    );
    Some((text, mml >= 1.19 && ipsec >= 1.14))
}

fn never_below(measured: &Measured) -> Finding {
    let (least, most) = extremes(&over_rates(measured, Config::Plain))?;
    let text = format!("{} to {}", percent(least), percent(most));
    Some((text, least >= 1.0))
}

fn average(measured: &Measured, to: Config, goal: f64) -> Finding {
    let average = average_of(over_rates(measured, to).into_iter())?;
    let allowed = error_rates()
        .into_iter()
        .filter_map(|rate| allowed(measured, Config::MmlSnoop, to, rate));
    let beyond = match average_of(allowed) {
        Some(allowed) if allowed < 1.0 + goal => format!(" (the link allows {})", percent(allowed)),
        _ => String::new(),
    };
    Some((
        format!("{}{beyond}", percent(average)),
        average >= 1.0 + goal,
    ))
}

/// The average of a configuration's congestion window over all its samples, in segments.
pub fn window(measured: &Measured, config: Config) -> Option<f64> {
    average_of(
        measured
            .0
            .iter()
            .filter(|(run, _)| run.config == config && run.trace)
            .flat_map(|(_, outcome)| outcome.trace.iter().map(|sample| sample.2 as f64)),
    )
}

fn windows(measured: &Measured) -> Finding {
    let of = |config| window(measured, config);
    let (snoop, alone) = (of(Config::PlainSnoop)?, of(Config::Plain)?);
    let (mml_snoop, mml) = (of(Config::MmlSnoop)?, of(Config::Mml)?);
    let text = format!("{snoop:.0} and {alone:.0}; {mml_snoop:.0} and {mml:.0}");
    Some((text, snoop > alone && mml_snoop > mml))
}

/// Octets acknowledged a second between the first and the last sample, averaged over the runs.
fn growth(measured: &Measured, config: Config) -> Option<f64> {
    let of_run = |trace: &[(u64, u64, u64)]| {
        let (first, last) = (trace.first()?, trace.last()?);
        let seconds = last.0.checked_sub(first.0).filter(|time| *time > 0)? as f64 / 1000.0;
        Some((last.1 - first.1) as f64 / seconds)
    };
    average_of(
        measured
            .0
            .iter()
            .filter(|(run, _)| run.config == config && run.trace)
            .filter_map(|(_, outcome)| of_run(&outcome.trace)),
    )
}

fn sequence(measured: &Measured) -> Finding {
    let (snoop, ipsec) = (Config::MmlSnoop, Config::Ipsec);
    let ratio = growth(measured, snoop)? / growth(measured, ipsec)?;
    let beyond = beyond(measured, snoop, ipsec, one_in(TRACED), 2.0);
    Some((format!("{ratio:.2} times{beyond}"), ratio >= 2.0))
}

/// What SNOOP spends on a burst beyond what brings it there, in the processing of a segment of the flow.
pub fn spent(bursts: &Bursts, with: Config, without: Config) -> Option<f64> {
    let (with, without) = (bursts.of_config(with)?, bursts.of_config(without)?);
    Some((with.burst_instructions - without.arrival_instructions?) / with.packet_instructions)
}

/// SNOOP's configurations, and the same without it.
pub const PAIRS: [(Config, Config); 2] = [
    (Config::PlainSnoop, Config::Plain),
    (Config::MmlSnoop, Config::Mml),
];

fn dupacks(bursts: &Bursts, measured: &Measured) -> Finding {
    let mut most: f64 = 0.0;
    let mut texts = Vec::new();
    for (config, without) in PAIRS {
        let spent = spent(bursts, config, without)?;
        let (with, without) = (bursts.of_config(config)?, bursts.of_config(without)?);
        most = most.max(spent);
        texts.push(format!(
            "{} {spent:.1} packets ({:.1} with their arrival; forwarded without SNOOP {:.1})",
            config.name(),
            with.burst_instructions / with.packet_instructions,
            without.burst_instructions / with.packet_instructions,
        ));
    }
    let followed: Vec<u64> = measured
        .0
        .iter()
        .filter(|(run, _)| run.config.has_snoop() && run.trace)
        .map(|(_, outcome)| outcome.timeouts)
        .collect();
    let timeouts: u64 = followed.iter().sum();
    texts.push(format!(
        "{timeouts} time-outs in {} runs at one error in 512 kb",
        followed.len()
    ));
    (!followed.is_empty()).then(|| (texts.join("; "), most <= 2.0 && timeouts == 0))
}

/// The least share of the bound that SNOOP's configurations reach at any error rate: the mean of each point's runs.
fn least_share(measured: &Measured) -> Option<(f64, String)> {
    let mut least: Option<(f64, String)> = None;
    for config in [Config::PlainSnoop, Config::MmlSnoop] {
        for rate in error_rates() {
            let point = |(run, _): &&(Run, _)| run.config == config && run.bit_error_rate == rate;
            let shares = measured
                .0
                .iter()
                .filter(point)
                .map(|(run, outcome)| outcome.goodput_kbps / outcome.bound_kbps(run));
            let Some(share) = average_of(shares) else {
                continue;
            };
            if least.as_ref().is_none_or(|(other, _)| share < *other) {
                let at = format!("{} at {}", config.name(), super::run::error_rate(rate));
                least = Some((share, at));
            }
        }
    }
    least
}

fn limit(ours: &Measured, table3: &Measured) -> Finding {
    let (share, at) = least_share(ours)?;
    let beside = least_share(table3)
        .map(|(share, at)| format!("; with Table III's {:.0} % ({at})", share * 100.0))
        .unwrap_or_default();
    let text = format!("{:.1} % ({at}){beside}", share * 100.0);
    Some((text, share >= 0.90))
}

/// A cell of today's TCP: everything but SNOOP is the same.
struct Cell {
    name: String,
    /// The sender alone, as a share of what the link allows.
    share: f64,
    /// With SNOOP over without.
    ratio: f64,
}

/// The cells whose both sides were run, each the mean of its runs.
fn cells(measured: &Measured) -> Vec<Cell> {
    let alike = |a: &Run, b: &Run| {
        a.congestion == b.congestion
            && (a.rate_kbps, a.delay_ms, a.bit_error_rate)
                == (b.rate_kbps, b.delay_ms, b.bit_error_rate)
    };
    let mut cells = Vec::new();
    for (with, config) in PAIRS {
        let firsts = measured.0.iter().enumerate().filter(|(at, (run, _))| {
            let known = |(other, _): &(Run, _)| other.config == config && alike(other, run);
            run.config == config && !measured.0[..*at].iter().any(known)
        });
        for (_, (cell, _)) in firsts {
            let of = |config: Config, value: &dyn Fn(&Run, &super::run::Outcome) -> f64| {
                average_of(
                    measured
                        .0
                        .iter()
                        .filter(|(run, _)| run.config == config && alike(run, cell))
                        .map(|(run, outcome)| value(run, outcome)),
                )
            };
            let goodput = |_: &Run, outcome: &super::run::Outcome| outcome.goodput_kbps;
            let (Some(alone), Some(snoop)) = (of(config, &goodput), of(with, &goodput)) else {
                continue;
            };
            let share = of(config, &|run, outcome| {
                outcome.goodput_kbps / outcome.bound_kbps(run)
            });
            cells.push(Cell {
                name: format!("{} {}", cell.congestion.name(), cell_title(cell)),
                share: share.unwrap_or_default(),
                ratio: snoop / alone,
            });
        }
    }
    cells
}

fn cell_title(run: &Run) -> String {
    super::run::Task::Transfer(run.clone())
        .title()
        .split(", run")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Share of the sender alone and what SNOOP makes of it, of every cell of one congestion control.
pub fn modern_points(measured: &Measured, congestion: &str) -> Vec<(f64, f64)> {
    cells(measured)
        .iter()
        .filter(|cell| cell.name.starts_with(congestion))
        .map(|cell| (cell.share, cell.ratio))
        .collect()
}

fn worst(cells: &[Cell], goal: f64) -> Finding {
    let least = cells.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio))?;
    let below = cells.iter().filter(|cell| cell.ratio < goal).count();
    let text = format!(
        "{:.2} times ({}); {below} of {} cells below",
        least.ratio,
        least.name,
        cells.len()
    );
    Some((text, below == 0))
}

fn no_worse(measured: &Measured) -> Finding {
    worst(&cells(measured), 0.98)
}

fn better(measured: &Measured) -> Finding {
    let mut cells = cells(measured);
    cells.retain(|cell| cell.share < 0.60);
    worst(&cells, 1.3)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::paper::plan::Figure;
    use crate::paper::results::Burst;
    use crate::paper::run::{Link, Outcome, Task};
    use serde_json::Value;

    /// Every run of a figure, with the goodput that a function says.
    fn measured(figure: Figure, goodput: impl Fn(&Run) -> f64) -> Measured {
        let runs = figure.tasks(false).into_iter().filter_map(|task| {
            let Task::Transfer(run) = task else {
                return None;
            };
            let goodput_kbps = goodput(&run);
            let seconds = run.bytes as f64 * 8.0 / goodput_kbps / 1000.0;
            let trace = if run.trace {
                vec![(0, 0, 10), ((seconds * 1000.0) as u64, run.bytes, 20)]
            } else {
                Vec::new()
            };
            let outcome = Outcome {
                bytes: run.bytes,
                whole: true,
                seconds,
                goodput_kbps,
                mss: 1460,
                packet: 1514,
                retransmitted: 0,
                timeouts: 0,
                link: Link::default(),
                snoop: Value::Null,
                trace,
            };
            Some((run, Arc::new(outcome)))
        });
        Measured(runs.collect())
    }

    fn results(goodput: impl Fn(&Run) -> f64) -> Results {
        Results {
            ours: measured(Figure::Fig11, goodput),
            ..Results::default()
        }
    }

    fn claim(results: &Results, id: &str) -> Claim {
        let found = all(results).into_iter().find(|claim| claim.id == id);
        found.unwrap_or_else(|| panic!("no claim {id}"))
    }

    #[test]
    fn there_is_one_claim_a_row_and_none_is_judged_that_was_not_measured() {
        let claims = all(&Results::default());
        assert_eq!(claims.len(), 9 + 4 + 15 + 2);
        assert!(claims
            .iter()
            .all(|claim| claim.measured.is_none() && claim.holds.is_none()));
        let mut ids: Vec<&str> = claims.iter().map(|claim| claim.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), claims.len());
    }

    #[test]
    fn the_overhead_is_held_against_ipsec() {
        for (mml, holds) in [(1800.0, true), (1780.0, false)] {
            let results = results(|run| match run.config {
                Config::Plain => 1900.0,
                Config::Ipsec => 1805.0,
                _ => mml,
            });
            let claim = claim(&results, "overhead");
            assert_eq!(claim.holds, Some(holds), "{claim:?}");
            assert!(claim.measured.unwrap().starts_with("-5.0 %, "));
        }
    }

    #[test]
    fn averages_are_of_ratios_over_the_rates_with_errors() {
        // Without errors SNOOP changes nothing; with them it is 4 times: +300 % on average, not less.
        let results = results(
            |run| match (run.config.has_snoop(), run.bit_error_rate > 0.0) {
                (true, true) => 1600.0,
                (false, true) => 400.0,
                _ => 1900.0,
            },
        );
        let claim = claim(&results, "mml-snoop-ipsec-average");
        assert_eq!(claim.measured.as_deref(), Some("+300.0 %"));
        assert_eq!(claim.holds, Some(true));
    }

    #[test]
    fn a_claim_that_is_missed_says_so() {
        let results = results(|_| 1000.0);
        for id in [
            "snoop-64kb",
            "snoop-8mb",
            "mml-snoop-most",
            "sequence",
            "limit",
        ] {
            let claim = claim(&results, id);
            assert_eq!(claim.holds, Some(false), "{claim:?}");
        }
        assert_eq!(claim(&results, "mml-snoop-plain").holds, Some(true));
    }

    #[test]
    fn a_goal_beyond_the_link_is_told_with_what_the_link_allows() {
        let results = results(|run| {
            if run.config.has_snoop() {
                1800.0
            } else {
                1000.0
            }
        });
        let text = claim(&results, "mml-snoop-512kb").measured.unwrap();
        assert_eq!(text, "+80.0 % (the link allows +88.5 %)");
        let text = claim(&results, "snoop-8mb").measured.unwrap();
        assert_eq!(text, "+80.0 %");
        // The other reading of the delay is told beside it.
        let mut results = results;
        results.delays = measured(Figure::Fig11Delay, |run| {
            let long = run.delay_ms == LONG_DELAY_MS;
            if long && run.config == Config::MmlSnoop {
                1800.0
            } else {
                400.0
            }
        });
        let text = claim(&results, "mml-snoop-512kb").measured.unwrap();
        assert!(text.ends_with("; with 100 ms each way +350.0 %"), "{text}");
    }

    #[test]
    fn the_least_share_is_of_the_worst_rate() {
        let results = results(|run| {
            let bound = super::super::run::bound_kbps(2000, run.bit_error_rate, 1460, 1514);
            let worst = run.config == Config::MmlSnoop && run.bit_error_rate == one_in(HIGHEST);
            bound * if worst { 0.8 } else { 0.97 }
        });
        let claim = claim(&results, "limit");
        assert_eq!(
            claim.measured.as_deref(),
            Some("80.0 % (mml+snoop at 1.53e-5)")
        );
    }

    #[test]
    fn a_burst_is_judged_by_what_snoop_adds_and_by_the_senders_time_outs() {
        let mut results = results(|_| 1000.0);
        let burst = |burst_instructions, arrival_instructions| Burst {
            packet_instructions: 2000.0,
            burst_instructions,
            arrival_instructions,
        };
        results.bursts.0 = vec![
            (Config::Plain, burst(80_000.0, Some(50_000.0))),
            (Config::PlainSnoop, burst(53_000.0, None)),
            (Config::Mml, burst(150_000.0, Some(90_000.0))),
            (Config::MmlSnoop, burst(94_500.0, None)),
        ];
        let missed = claim(&results, "dupacks");
        assert_eq!(missed.holds, Some(false), "2.25 packets: {missed:?}");
        results.bursts.0[3].1.burst_instructions = 93_900.0;
        assert_eq!(claim(&results, "dupacks").holds, Some(true));
        for (run, outcome) in &mut results.ours.0 {
            if run.config == Config::MmlSnoop && run.trace {
                Arc::make_mut(outcome).timeouts = 1;
            }
        }
        assert_eq!(claim(&results, "dupacks").holds, Some(false));
    }

    #[test]
    fn todays_cells_are_compared_each_with_its_own_kind() {
        let modern = measured(Figure::Modern, |run| {
            let alone = if run.bit_error_rate == one_in(HIGHEST) {
                0.3
            } else {
                0.9
            };
            let bound =
                super::super::run::bound_kbps(run.rate_kbps, run.bit_error_rate, 1460, 1514);
            let gain = match (run.config, run.rate_kbps) {
                (Config::MmlSnoop, 100_000) => 0.97,
                (Config::PlainSnoop | Config::MmlSnoop, _) => 2.0,
                _ => 1.0,
            };
            bound * alone * gain
        });
        assert_eq!(cells(&modern).len(), 2 * 2 * 3 * 3 * 3);
        let results = Results {
            modern,
            ..Results::default()
        };
        let no_worse = claim(&results, "modern-no-worse");
        assert_eq!(no_worse.holds, Some(false));
        assert!(no_worse.measured.unwrap().contains("18 of 108 cells below"));
        let better = claim(&results, "modern-better");
        assert!(better.measured.unwrap().contains("6 of 36 cells below"));
    }
}
