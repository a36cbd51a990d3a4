// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a few points must show, whatever the figures come to in full.

use serde::Serialize;

use super::claims::{ratio, PAIRS};
use super::moves::{Keys, Tables, FAR};
use super::plan::{one_in, HIGHEST, TRACED};
use super::results::Results;
use super::run::Config;
use super::state::Measured;

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it does.
    pub ok: bool,
    /// What was measured.
    pub detail: String,
}

/// One ratio of two configurations' goodput and the least it may be.
struct Least<'a> {
    name: &'static str,
    measured: &'a Measured,
    config: Config,
    to: Config,
    rate: f64,
    least: f64,
}

/// Judges `--quick`. What wasn't measured is not true.
pub fn checks(results: &Results) -> Vec<Check> {
    let worst = one_in(HIGHEST);
    let ours = &results.ours;
    let least = |name, measured, config, to, rate, least| Least {
        name,
        measured,
        config,
        to,
        rate,
        least,
    };
    use Config::{Ipsec, Mml, MmlSnoop, Plain, PlainSnoop};
    let mut checks: Vec<Check> = [
        least(
            "MML takes no more than 5 % of IPsec's throughput",
            ours,
            Mml,
            Ipsec,
            0.0,
            0.95,
        ),
        least(
            "without errors SNOOP costs plain TCP nothing",
            ours,
            PlainSnoop,
            Plain,
            0.0,
            0.98,
        ),
        least(
            "without errors SNOOP costs MML nothing",
            ours,
            MmlSnoop,
            Mml,
            0.0,
            0.98,
        ),
        least(
            "at one error in 64 kb SNOOP makes more than twice of plain TCP",
            ours,
            PlainSnoop,
            Plain,
            worst,
            2.0,
        ),
        least(
            "at one error in 64 kb SNOOP makes more than twice of MML",
            ours,
            MmlSnoop,
            Mml,
            worst,
            2.0,
        ),
        least(
            "with Table III's settings too, plain",
            &results.table3,
            PlainSnoop,
            Plain,
            worst,
            1.5,
        ),
        least(
            "with Table III's settings too, MML",
            &results.table3,
            MmlSnoop,
            Mml,
            worst,
            1.5,
        ),
        least(
            "Figure 9 points the same way",
            &results.fig9,
            PlainSnoop,
            Plain,
            worst,
            2.0,
        ),
        least(
            "CUBIC with SACK loses nothing to SNOOP",
            &results.modern,
            PlainSnoop,
            Plain,
            one_in(TRACED),
            0.98,
        ),
        least(
            "CUBIC with SACK loses nothing to SNOOP under MML",
            &results.modern,
            MmlSnoop,
            Mml,
            one_in(TRACED),
            0.98,
        ),
    ]
    .into_iter()
    .map(|least| {
        let ratio = ratio(least.measured, least.config, least.to, least.rate);
        Check {
            name: least.name,
            ok: ratio.is_some_and(|ratio| ratio >= least.least),
            detail: match ratio {
                Some(ratio) => format!("{ratio:.2} times, at least {}", least.least),
                None => "not measured".to_owned(),
            },
        }
    })
    .collect();
    checks.push(burst(results));
    checks.push(corrupted(ours));
    checks.push(handoffs(&results.tables));
    checks
}

/// Zone 1's keys don't make a handoff longer than the goals allow.
fn handoffs(tables: &Tables) -> Check {
    let of = |keys| tables.after_request_ms(keys, FAR);
    let share = |keys| Some(of(keys)? - of(Keys::None)?);
    let shares = share(Keys::Pkd).zip(share(Keys::Dkm));
    Check {
        name: "a handoff takes at most 1 ms longer with PKD than without keys, and a round trip and 3 ms with DKM",
        ok: shares.is_some_and(|(pkd, dkm)| pkd <= 1.0 && dkm <= FAR.agents_ms + 3.0),
        detail: match shares {
            Some((pkd, dkm)) => format!("{pkd:+.2} ms, {dkm:+.2} ms"),
            None => "not measured".to_owned(),
        },
    }
}

/// SNOOP hides most of a burst, so the foreign agent spends less on it than on forwarding all of it.
fn burst(results: &Results) -> Check {
    let of = |config| {
        results
            .bursts
            .of_config(config)
            .map(|burst| burst.burst_instructions)
    };
    let ratios: Option<Vec<f64>> = PAIRS
        .into_iter()
        .map(|(with, without)| Some(of(with)? / of(without)?))
        .collect();
    let ratios = ratios.unwrap_or_default();
    Check {
        name: "a burst of duplicate acknowledgements costs no more with SNOOP than forwarded",
        ok: !ratios.is_empty() && ratios.iter().all(|ratio| *ratio <= 1.0),
        detail: ratios
            .iter()
            .map(|ratio| format!("{ratio:.2} times"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Every configuration meets errors where there are any, and none where there are none.
fn corrupted(measured: &Measured) -> Check {
    let wrong: Vec<String> = measured
        .0
        .iter()
        .filter(|(run, outcome)| (run.bit_error_rate > 0.0) != (outcome.link.corrupted > 0))
        .map(|(run, outcome)| format!("{}: {}", run.config.name(), outcome.link.corrupted))
        .collect();
    Check {
        name: "the link loses packets to its bit errors and to nothing else",
        ok: wrong.is_empty()
            && !measured.0.is_empty()
            && measured
                .0
                .iter()
                .all(|(_, outcome)| outcome.link.overflowed == 0),
        detail: wrong.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_true() {
        let checks = checks(&Results::default());
        assert_eq!(checks.len(), 13);
        assert!(checks.iter().all(|check| !check.ok), "{checks:?}");
    }
}
