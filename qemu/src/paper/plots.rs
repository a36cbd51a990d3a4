// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The figures, drawn as the paper draws them, its claims marked in them.

use std::path::Path;

use plotters::prelude::*;

use super::chart::{self, Area, Axes, Curve, Line, Mark};
use super::claims::{mean, modern_points, spent, window, PAIRS};
use super::cost;
use super::moves::{Keys, Kind, Tables};
use super::plan::{error_rates, one_in, Figure, HIGHEST, LOWEST, TRACED, TWO_MEGABITS};
use super::results::Results;
use super::run::{error_rate, Config};
use super::state::Measured;
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (900, 520);
/// Two charts side by side.
const WIDE: (u32, u32) = (1300, 480);
/// Room for the legend right of the error rates, in their steps.
const ROOM: f64 = 1.9;
const GREY: RGBColor = RGBColor(120, 120, 120);
/// Samples of a curve over time that are drawn.
const SAMPLES: usize = 1500;

fn colour(config: Config) -> RGBColor {
    match config {
        Config::Plain => RGBColor(96, 125, 139),
        Config::PlainSnoop => RGBColor(66, 133, 180),
        Config::Ipsec => RGBColor(150, 100, 180),
        Config::Mml => RGBColor(214, 110, 56),
        Config::MmlSnoop => RGBColor(60, 150, 80),
    }
}

fn legend(config: Config) -> &'static str {
    match config {
        Config::Plain => "TCP Reno",
        Config::PlainSnoop => "SNOOP",
        Config::Ipsec => "IPsec",
        Config::Mml => "MML-IPsec",
        Config::MmlSnoop => "MML-IPsec + SNOOP",
    }
}

/// Draws a figure; nothing, when nothing was measured for it.
pub fn figure(figure: Figure, results: &Results, path: &Path) -> Result<()> {
    let measured = match figure {
        Figure::Fig9 => &results.fig9,
        Figure::Fig11Table3 => &results.table3,
        Figure::Modern => &results.modern,
        Figure::Fig11Delay | Figure::Fig11Both | Figure::Table1 | Figure::Table2 => {
            return Ok(());
        }
        _ => &results.ours,
    };
    let nothing = match figure {
        Figure::Interruption => results.tables.streams.is_empty(),
        Figure::Cost => results.costs.is_empty(),
        Figure::Dupacks => results.bursts.0.is_empty(),
        _ => measured.0.is_empty(),
    };
    if nothing {
        return Ok(());
    }
    let size = match figure {
        Figure::Fig13 | Figure::Modern | Figure::Cost => WIDE,
        _ => SIZE,
    };
    let area = SVGBackend::new(path, size).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| {
        Error::check(format!("plotting {}: {error}", path.display()))
    };
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    match figure {
        Figure::Fig12 => sequence(&area, measured),
        Figure::Fig13 => windows(&area, measured),
        Figure::Limit => shares(&area, &results.ours, &results.table3),
        Figure::Dupacks => bursts(&area, results),
        Figure::Interruption => handoff(&area, &results.tables),
        Figure::Cost => cost::draw(&area, &results.costs, WIDE.0),
        Figure::Modern => modern(&area, measured),
        _ => throughput(&area, figure, measured),
    }
    .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// The error rates on the horizontal axis, none first.
fn rates() -> Vec<f64> {
    [vec![0.0], error_rates()].concat()
}

fn rate_names() -> Vec<String> {
    rates()
        .iter()
        .map(|rate| match rate {
            0.0 => "none".to_owned(),
            rate => error_rate(*rate),
        })
        .collect()
}

/// Where an error rate stands.
fn place(bits: i32) -> f64 {
    f64::from(LOWEST - bits + 1)
}

/// A value at each rate that was measured.
fn over_rates(value: impl Fn(f64) -> Option<f64>) -> Vec<(f64, f64)> {
    rates()
        .into_iter()
        .enumerate()
        .filter_map(|(at, rate)| Some((at as f64, value(rate)?)))
        .collect()
}

/// Throughput over error rates: Figures 9 and 11.
fn throughput<'a>(area: &Area<'a>, figure: Figure, measured: &Measured) -> chart::Result<'a> {
    let present: Vec<Config> = Config::ALL
        .into_iter()
        .filter(|config| measured.0.iter().any(|(run, _)| run.config == *config))
        .collect();
    let mut curves: Vec<Curve> = present
        .iter()
        .map(|config| Curve {
            name: legend(*config).to_owned(),
            colour: colour(*config),
            line: Line::Dotted,
            points: over_rates(|rate| mean(measured, *config, rate)),
        })
        .collect();
    curves.push(Curve {
        name: "what the link allows".to_owned(),
        colour: GREY,
        line: Line::Dashed,
        points: over_rates(|rate| {
            let (run, outcome) = measured
                .0
                .iter()
                .find(|(run, _)| run.bit_error_rate == rate)?;
            Some(outcome.bound_kbps(run))
        }),
    });
    let title = match figure {
        Figure::Fig9 => "Figure 9: TCP Reno and SNOOP",
        Figure::Fig11Table3 => "Figure 11: throughput, SNOOP with Table III's settings",
        _ => "Figure 11: throughput",
    };
    let marks = if figure == Figure::Fig9 {
        Vec::new()
    } else {
        paper_marks(measured)
    };
    let top = marks.iter().map(|mark| mark.at.1).fold(2000.0, f64::max);
    let axes = Axes {
        title,
        x: "bit error rate",
        y: "kb/s",
        right: rates().len() as f64 + ROOM,
        height: (0.0, top * 1.08),
        logarithmic: false,
        names: rate_names(),
    };
    chart::draw(area, &axes, &curves, &marks)
}

/// A ratio that the paper gives.
struct PaperRatio {
    config: Config,
    /// Where: one error in 2 to the power of so many bits, or none.
    at: Option<i32>,
    /// What it is a ratio to, and where that is.
    to: (Config, Option<i32>),
    ratio: f64,
    text: &'static str,
}

const fn paper_ratio(
    config: Config,
    at: Option<i32>,
    to: (Config, Option<i32>),
    ratio: f64,
    text: &'static str,
) -> PaperRatio {
    PaperRatio {
        config,
        at,
        to,
        ratio,
        text,
    }
}

/// The paper's Section V.C.1.
const PAPER: [PaperRatio; 7] = {
    use Config::{Ipsec, Mml, MmlSnoop, Plain, PlainSnoop};
    let (low, high) = (Some(LOWEST), Some(HIGHEST));
    let traced = Some(TRACED);
    [
        paper_ratio(Ipsec, None, (Plain, None), 0.95, "paper: IPsec -5 %"),
        paper_ratio(Mml, None, (Plain, None), 0.91, "paper: MML -9 %"),
        paper_ratio(
            Ipsec,
            Some(TWO_MEGABITS),
            (Ipsec, None),
            0.73,
            "paper: IPsec -27 %",
        ),
        paper_ratio(Ipsec, high, (Ipsec, None), 0.38, "paper: IPsec -62 %"),
        paper_ratio(PlainSnoop, low, (Plain, low), 1.10, "paper: SNOOP +10 %"),
        paper_ratio(PlainSnoop, high, (Plain, high), 3.0, "paper: SNOOP 3 times"),
        paper_ratio(
            MmlSnoop,
            traced,
            (Mml, traced),
            2.7,
            "paper: MML + SNOOP +170 %",
        ),
    ]
};

/// The paper's ratios, each over what was measured of that which it is a ratio to.
fn paper_marks(measured: &Measured) -> Vec<Mark> {
    let rate = |bits: Option<i32>| bits.map_or(0.0, one_in);
    PAPER
        .iter()
        .filter_map(|paper| {
            let base = mean(measured, paper.to.0, rate(paper.to.1))?;
            Some(Mark {
                at: (paper.at.map_or(0.0, place), base * paper.ratio),
                text: paper.text.to_owned(),
                colour: colour(paper.config),
            })
        })
        .collect()
}

/// A sample's worth of a run over time, thinned out for the drawing.
fn over_time(
    measured: &Measured,
    config: Config,
    value: impl Fn(&(u64, u64, u64)) -> f64,
) -> Vec<(f64, f64)> {
    let run = measured
        .0
        .iter()
        .find(|(run, _)| run.config == config && run.trace);
    let trace = run.map(|(_, outcome)| outcome.trace.as_slice());
    let trace = trace.unwrap_or_default();
    let every = trace.len().div_ceil(SAMPLES).max(1);
    trace
        .iter()
        .step_by(every)
        .map(|sample| (sample.0 as f64 / 1000.0, value(sample)))
        .collect()
}

/// The end of the time axis: a while after the fastest has ended, or the slow ones would be all there is to see.
fn time_end(curves: &[Curve]) -> f64 {
    let ends = curves
        .iter()
        .filter_map(|curve| curve.points.last())
        .map(|point| point.0);
    let (first, last) = ends.fold((f64::MAX, 1.0f64), |(first, last), end| {
        (first.min(end), last.max(end))
    });
    last.min(first.min(f64::MAX / 4.0) * 2.5)
}

/// Figure 12.
fn sequence<'a>(area: &Area<'a>, measured: &Measured) -> chart::Result<'a> {
    let megaoctets = |sample: &(u64, u64, u64)| sample.1 as f64 / 1e6;
    let mut curves: Vec<Curve> = Config::ALL
        .into_iter()
        .map(|config| Curve {
            name: legend(config).to_owned(),
            colour: colour(config),
            line: Line::Bare,
            points: over_time(measured, config, megaoctets),
        })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let right = time_end(&curves);
    let top = curves
        .iter()
        .filter_map(|curve| curve.points.last())
        .map(|point| point.1)
        .fold(0.0, f64::max);
    let ipsec = over_time(measured, Config::Ipsec, megaoctets);
    if let Some((seconds, octets)) = ipsec.last() {
        let slope = 2.0 * octets / seconds;
        let end = right.min(top / slope);
        curves.push(Curve {
            name: "paper: MML-IPsec + SNOOP, twice IPsec".to_owned(),
            colour: GREY,
            line: Line::Dashed,
            points: vec![(0.0, 0.0), (end, end * slope)],
        });
    }
    for curve in &mut curves {
        curve.points.retain(|point| point.0 <= right);
    }
    let axes = Axes {
        title: "Figure 12: sequence numbers at one error in 512 kb",
        x: "seconds",
        y: "million octets",
        right,
        height: (0.0, top * 1.05),
        logarithmic: false,
        names: Vec::new(),
    };
    chart::draw(area, &axes, &curves, &[])
}

/// Figure 13.
fn windows<'a>(area: &Area<'a>, measured: &Measured) -> chart::Result<'a> {
    let (left, right) = area.split_horizontally(WIDE.0 / 2);
    for (area, title, pair, paper) in [
        (
            &left,
            "Figure 13 (a): TCP Reno and SNOOP",
            [Config::PlainSnoop, Config::Plain],
            [35.0, 6.0],
        ),
        (
            &right,
            "Figure 13 (b): MML-IPsec and MML-IPsec + SNOOP",
            [Config::MmlSnoop, Config::Mml],
            [26.0, 5.0],
        ),
    ] {
        let mut curves: Vec<Curve> = pair
            .into_iter()
            .map(|config| Curve {
                name: match window(measured, config) {
                    Some(average) => format!("{}, average {average:.0}", legend(config)),
                    None => legend(config).to_owned(),
                },
                colour: colour(config),
                line: Line::Bare,
                points: over_time(measured, config, |sample| sample.2 as f64),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let right = time_end(&curves);
        for curve in &mut curves {
            curve.points.retain(|point| point.0 <= right);
        }
        let points = curves.iter().flat_map(|curve| &curve.points);
        let top = points.map(|point| point.1).fold(40.0, f64::max);
        for (config, average) in pair.into_iter().zip(paper) {
            curves.push(Curve {
                name: format!("paper: {}, average {average}", legend(config)),
                colour: colour(config),
                line: Line::Dashed,
                points: vec![(0.0, average), (right, average)],
            });
        }
        let axes = Axes {
            title,
            x: "seconds",
            y: "congestion window, segments",
            right,
            height: (0.0, top * 1.3),
            logarithmic: false,
            names: Vec::new(),
        };
        chart::draw(area, &axes, &curves, &[])?;
    }
    Ok(())
}

/// What is drawn of a connection before its handoff, in milliseconds.
const BEFORE_MS: f64 = 300.0;

/// A TCP connection's segments through a handoff, as they leave the correspondent.
fn handoff<'a>(area: &Area<'a>, tables: &Tables) -> chart::Result<'a> {
    let columns = [
        (Keys::None, "Mobile IP", RGBColor(96, 125, 139)),
        (Keys::Esp, "IPsec, tunnel kept", RGBColor(66, 133, 180)),
        (
            Keys::EspAnew,
            "IPsec, tunnel set up anew",
            RGBColor(150, 100, 180),
        ),
        (Keys::Pkd, "MML-IPsec, PKD", RGBColor(214, 110, 56)),
        (Keys::Dkm, "MML-IPsec, DKM", RGBColor(60, 150, 80)),
    ];
    let mut curves = Vec::new();
    for (keys, name, colour) in columns {
        let trace = tables
            .stream(keys, Kind::Tcp)
            .and_then(|column| column.trace.as_ref());
        let Some(trace) = trace.filter(|trace| !trace.sent.is_empty()) else {
            continue;
        };
        let first = trace
            .sent
            .iter()
            .map(|(_, octets)| *octets)
            .min()
            .unwrap_or_default();
        let point = |(at, octets): &(i64, u64)| {
            let octets = octets.saturating_sub(first) as f64 / 1000.0;
            (*at as f64 / 1000.0 + BEFORE_MS, octets)
        };
        curves.push(Curve {
            name: name.to_owned(),
            colour,
            line: Line::None,
            points: trace.sent.iter().map(point).collect(),
        });
    }
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let top = all().map(|point| point.1).fold(1.0, f64::max);
    let right = all().map(|point| point.0).fold(BEFORE_MS, f64::max);
    curves.push(Curve {
        name: "the host moves".to_owned(),
        colour: GREY,
        line: Line::Dashed,
        points: vec![(BEFORE_MS, 0.0), (BEFORE_MS, top * 1.2)],
    });
    let gap = tables.gap_ms().unwrap_or_default();
    let title = format!("Sequence numbers through a handoff: 2 Mb/s, 20 ms to the home agent, the radio away for {gap:.1} ms at most");
    let axes = Axes {
        title: &title,
        x: "milliseconds",
        y: "thousand octets",
        right: right + 20.0,
        height: (0.0, top * 1.2),
        logarithmic: false,
        names: Vec::new(),
    };
    chart::draw(area, &axes, &curves, &[])
}

/// Share of what the link allows, with both settings.
fn shares<'a>(area: &Area<'a>, ours: &Measured, table3: &Measured) -> chart::Result<'a> {
    let share = |measured: &Measured, config: Config, rate: f64| {
        let (run, outcome) = measured
            .0
            .iter()
            .find(|(run, _)| run.config == config && run.bit_error_rate == rate)?;
        Some(100.0 * mean(measured, config, rate)? / outcome.bound_kbps(run))
    };
    let mut curves = Vec::new();
    for config in Config::ALL {
        curves.push(Curve {
            name: legend(config).to_owned(),
            colour: colour(config),
            line: Line::Dotted,
            points: over_rates(|rate| share(ours, config, rate)),
        });
        if config.has_snoop() && !table3.0.is_empty() {
            curves.push(Curve {
                name: format!("{}, Table III", legend(config)),
                colour: colour(config),
                line: Line::Dashed,
                points: over_rates(|rate| share(table3, config, rate)),
            });
        }
    }
    let right = rates().len() as f64 + ROOM;
    curves.push(Curve {
        name: "goal".to_owned(),
        colour: GREY,
        line: Line::Dashed,
        points: vec![(0.0, 90.0), (right, 90.0)],
    });
    let axes = Axes {
        title: "Share of link rate x packet survival x segment / packet",
        x: "bit error rate",
        y: "per cent",
        right,
        height: (0.0, 130.0),
        logarithmic: false,
        names: rate_names(),
    };
    chart::draw(area, &axes, &curves, &[])
}

/// What a burst of duplicate acknowledgements costs, in packets of the flow with SNOOP.
fn bursts<'a>(area: &Area<'a>, results: &Results) -> chart::Result<'a> {
    let bursts = &results.bursts;
    let mut names = Vec::new();
    let mut marks = Vec::new();
    for (with, without) in PAIRS {
        let (Some(packet), Some(forwarded)) = (
            bursts.of_config(with),
            bursts
                .of_config(without)
                .map(|burst| burst.burst_instructions),
        ) else {
            continue;
        };
        let all = packet.burst_instructions;
        let packets = [
            ("forwarded", Some(forwarded / packet.packet_instructions)),
            ("with SNOOP", Some(all / packet.packet_instructions)),
            ("SNOOP's own", spent(bursts, with, without)),
        ];
        for (what, packets) in packets {
            let Some(packets) = packets else { continue };
            marks.push(Mark {
                at: (names.len() as f64, packets),
                text: format!("{packets:.1}"),
                colour: colour(with),
            });
            names.push(format!("{}, {what}", without.name()));
        }
    }
    let right = names.len() as f64 - 0.3;
    let top = marks.iter().map(|mark| mark.at.1).fold(12.0, f64::max);
    let line = |name: &str, height: f64| Curve {
        name: name.to_owned(),
        colour: GREY,
        line: Line::Dashed,
        points: vec![(-0.3, height), (right, height)],
    };
    let axes = Axes {
        title: "39 duplicate acknowledgements at the foreign agent",
        x: "",
        y: "packets' processing",
        right,
        height: (0.0, top * 1.3),
        logarithmic: false,
        names,
    };
    let curves = [line("paper: up to 10", 10.0), line("goal: 2", 2.0)];
    chart::draw(area, &axes, &curves, &marks)
}

/// What SNOOP makes of each cell, by what the sender alone makes of it.
fn modern<'a>(area: &Area<'a>, measured: &Measured) -> chart::Result<'a> {
    let (left, right) = area.split_horizontally(WIDE.0 / 2);
    for (area, title, congestion, tint) in [
        (
            &left,
            "CUBIC, SACK and time stamps",
            "cubic",
            RGBColor(66, 133, 180),
        ),
        (
            &right,
            "BBR, SACK and time stamps",
            "bbr",
            RGBColor(214, 110, 56),
        ),
    ] {
        let points = modern_points(measured, congestion);
        let (least, most) = points
            .iter()
            .fold((0.8f64, 2.0f64), |(least, most), point| {
                (least.min(point.1), most.max(point.1))
            });
        let curves = [
            Curve {
                name: "a rate, delay and error rate".to_owned(),
                colour: tint,
                line: Line::None,
                points: points
                    .iter()
                    .map(|(share, ratio)| (100.0 * share, *ratio))
                    .collect(),
            },
            Curve {
                name: "goal".to_owned(),
                colour: GREY,
                line: Line::Dashed,
                points: vec![(0.0, 1.3), (60.0, 1.3), (60.0, 0.98), (110.0, 0.98)],
            },
        ];
        let axes = Axes {
            title,
            x: "the sender alone, per cent of what the link allows",
            y: "with SNOOP / without",
            right: 110.0,
            height: (least * 0.9, most * 1.3),
            logarithmic: true,
            names: Vec::new(),
        };
        chart::draw(area, &axes, &curves, &[])?;
    }
    Ok(())
}
