// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab bench`: measured in virtual time, beside the peers.

use std::time::Duration;

use serde_json::{json, Map, Value};

use crate::cli::Shared;
use crate::collect::Collect;
use crate::error::{Error, Result};
use crate::machine::Clock;
use crate::setup::Lab;
use crate::table;

/// The longest a run of all benchmarks may take, by the wall clock.
const LIMIT: Duration = Duration::from_secs(3600);

const COLUMNS: [&str; 7] = [
    "name",
    "offload",
    "value",
    "unit",
    "peer",
    "peer_value",
    "ratio",
];

/// Runs the command.
pub fn command(names: &[String], seconds: Option<f64>, shared: &Shared) -> Result<()> {
    let lab = Lab::prepare(shared, false)?;
    println!(
        "Measured in virtual time (one instruction is one nanosecond, idle time is skipped) on {}.",
        lab.kernel.origin
    );
    let mut options = Map::new();
    if let Some(seconds) = seconds {
        options.insert("seconds".into(), json!(seconds));
    }
    let order = json!({"mode": "bench", "names": names, "options": options});
    let mut collect = Collect::begin("benchmarks", None, false);
    let boot = lab.boot("bench", Clock::Virtual, &order, LIMIT, &mut |event| {
        collect.event(event)
    })?;
    let failure = boot.outcome.failure();
    collect.end(failure.is_none());
    collect.report.expect("bench");
    collect.report.set("kernel", lab.kernel.release.as_str());
    collect
        .report
        .set("clock", "virtual: 1 instruction = 1 ns, one vCPU");
    let rows: Vec<Vec<String>> = collect
        .report
        .all("bench")
        .iter()
        .map(|row| {
            COLUMNS
                .iter()
                .map(|column| table::cell(row.get(*column)))
                .collect()
        })
        .collect();
    println!("\n{}", table::render(&COLUMNS, &rows));
    show_others(&collect);
    collect.report.write(shared.json.as_deref())?;
    if let Some(why) = failure {
        let said = collect
            .steps
            .last()
            .map(|text| format!(" (last: {text})"))
            .unwrap_or_default();
        return Err(Error::logged(format!("bench: {why}{said}"), boot.console));
    }
    if rows.is_empty() {
        return Err(Error::logged(
            "bench: the guest measured nothing",
            boot.console,
        ));
    }
    failed_checks(collect.report.all("check"))?;
    println!("It counts instructions: the same on any machine, and silent about caches and AES-NI's real latency.");
    Ok(())
}

fn show_others(collect: &Collect) {
    for check in collect.report.all("check") {
        let ok = check["ok"].as_bool() == Some(true);
        println!(
            "  {} {}",
            if ok { "ok" } else { "NO" },
            table::cell(check.get("name"))
        );
    }
}

/// Fails when a check is not true.
pub fn failed_checks(checks: &[Value]) -> Result<()> {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| check["ok"].as_bool() != Some(true))
        .map(|check| table::cell(check.get("name")))
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::check(format!("not true: {}", failed.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_without_a_verdict_has_failed() {
        assert!(failed_checks(&[json!({"name": "a", "ok": true})]).is_ok());
        let error =
            failed_checks(&[json!({"name": "a"}), json!({"name": "b", "ok": false})]).unwrap_err();
        assert_eq!(error.to_string(), "not true: a; b");
    }
}
