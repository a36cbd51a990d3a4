// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The figures as tables: one file a figure, one row a run.

use std::path::Path;

use super::plan::Figure;
use super::results::Bursts;
use super::run::{error_rate, Outcome, Run, BURST_WINDOW};
use super::state::Measured;
use crate::error::{Context, Result};

/// The columns of every figure.
pub const COLUMNS: &str = "config,bit_error_rate,rate_kbps,delay_ms,run,bytes,seconds,goodput_kbps";

/// What some figures have beside them.
fn more_columns(figure: Figure) -> &'static str {
    match figure {
        Figure::Limit => ",bound_kbps,share",
        Figure::Modern => ",congestion,whole,bound_kbps,share",
        _ => "",
    }
}

/// A figure's runs as a table.
pub fn table(figure: Figure, measured: &Measured) -> String {
    let mut text = format!("{COLUMNS}{}\n", more_columns(figure));
    for (run, outcome) in &measured.0 {
        text.push_str(&row(run, outcome));
        let bound = outcome.bound_kbps(run);
        let share = outcome.goodput_kbps / bound;
        text.push_str(&match figure {
            Figure::Limit => format!(",{bound:.1},{share:.4}"),
            Figure::Modern => format!(
                ",{},{},{bound:.1},{share:.4}",
                run.congestion.name(),
                outcome.whole
            ),
            _ => String::new(),
        });
        text.push('\n');
    }
    text
}

fn row(run: &Run, outcome: &Outcome) -> String {
    format!(
        "{},{},{},{},{},{},{:.6},{:.3}",
        run.config.name(),
        error_rate(run.bit_error_rate),
        run.rate_kbps,
        run.delay_ms,
        run.run,
        outcome.bytes,
        outcome.seconds,
        outcome.goodput_kbps
    )
}

/// The bursts of duplicate acknowledgements, in instructions and in packets of the flow.
pub fn bursts(bursts: &Bursts) -> String {
    let mut text =
        "config,duplicates,packet_instructions,arrival_instructions,burst_instructions,burst_packets\n"
            .to_owned();
    for (config, burst) in &bursts.0 {
        text.push_str(&format!(
            "{},{},{},{},{},{:.2}\n",
            config.name(),
            BURST_WINDOW - 1,
            burst.packet_instructions,
            burst
                .arrival_instructions
                .map(|instructions| instructions.to_string())
                .unwrap_or_default(),
            burst.burst_instructions,
            burst.burst_instructions / burst.packet_instructions
        ));
    }
    text
}

/// Where the sender was at each sample of each run: octets acknowledged, or its window.
pub fn series(figure: Figure, measured: &Measured) -> String {
    let name = if figure == Figure::Fig12 {
        "sequence"
    } else {
        "window"
    };
    let mut text = format!("config,run,seconds,{name}\n");
    for (run, outcome) in &measured.0 {
        for (milliseconds, acknowledged, window) in &outcome.trace {
            let value = if figure == Figure::Fig12 {
                acknowledged
            } else {
                window
            };
            text.push_str(&format!(
                "{},{},{:.3},{value}\n",
                run.config.name(),
                run.run,
                *milliseconds as f64 / 1000.0
            ));
        }
    }
    text
}

/// Replaces a file by a whole new one.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let name = || format!("writing {}", path.display());
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text).context(name)?;
    std::fs::rename(&temporary, path).context(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::paper::run::{Link, Task};
    use serde_json::Value;

    fn measured() -> Measured {
        let Task::Transfer(run) = Figure::Fig12.tasks(false).remove(0) else {
            panic!("not a transfer");
        };
        let outcome = Outcome {
            bytes: 10_000_000,
            whole: true,
            seconds: 80.0,
            goodput_kbps: 1000.0,
            mss: 1460,
            packet: 1514,
            retransmitted: 3,
            timeouts: 1,
            link: Link::default(),
            snoop: Value::Null,
            trace: vec![(0, 0, 10), (20, 2920, 12)],
        };
        Measured(vec![(run, Arc::new(outcome))])
    }

    #[test]
    fn a_row_has_the_columns_that_were_promised() {
        assert_eq!(
            table(Figure::Fig11, &measured()),
            "config,bit_error_rate,rate_kbps,delay_ms,run,bytes,seconds,goodput_kbps\n\
             plain,1.91e-6,2000,100,1,10000000,80.000000,1000.000\n"
        );
        let limit = table(Figure::Limit, &measured());
        assert!(limit.ends_with(",1884.6,0.5306\n"), "{limit}");
    }

    #[test]
    fn a_series_is_one_row_a_sample() {
        assert_eq!(
            series(Figure::Fig12, &measured()),
            "config,run,seconds,sequence\nplain,1,0.000,0\nplain,1,0.020,2920\n"
        );
        assert!(series(Figure::Fig13, &measured()).ends_with("plain,1,0.020,12\n"));
    }
}
