// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab bench`: measured in virtual time, beside the peers.

use std::time::Duration;

use serde_json::{json, Map, Value};

use crate::cli::Shared;
use crate::collect::Collect;
use crate::error::{Error, Result};
use crate::machine::Clock;
use crate::report::Report;
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
    let rows = collect.report.all("bench");
    println!("\n{}", table_of(rows));
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

/// Goodput of several flows on two processors, beside the same on one: the one figure that virtual time can't give, for
/// there one processor counts. Its rows have what two make, what one makes, and the ratio; kernel ESP's own stand among
/// them. Rates are this host's and mean nothing elsewhere.
pub fn two_cpus(seconds: Option<f64>, shared: &Shared) -> Result<()> {
    let lab = Lab::prepare(shared, false)?;
    println!(
        "Measured by the host's clock on {}: run nothing else meanwhile.",
        lab.kernel.origin
    );
    let options = json!({"seconds": seconds.unwrap_or(5.0)});
    let order = json!({"mode": "bench", "names": ["flows"], "options": options});
    let mut runs = Vec::new();
    for vcpus in [1, 2] {
        let mut collect = Collect::begin("flows", None, false);
        let boot = lab.boot(
            "bench",
            Clock::Real { vcpus },
            &order,
            LIMIT,
            &mut |event| collect.event(event),
        )?;
        let failure = boot.outcome.failure();
        collect.end(failure.is_none());
        if let Some(why) = failure {
            return Err(Error::logged(format!("bench: {why}"), boot.console));
        }
        runs.push(collect.report.all("bench").to_vec());
    }
    let [one, two] = runs.as_slice() else {
        return Err(Error::check("bench: not two runs"));
    };
    let rows = beside(one, two);
    println!("\n{}", table_of(&rows));
    let mut report = Report::default();
    report.expect("bench");
    report.set("kernel", lab.kernel.release.as_str());
    report.set("clock", "the host's, on one processor and on two");
    for row in rows {
        if let Value::Object(fields) = row {
            report.add("bench", fields);
        }
    }
    report.write(shared.json.as_deref())
}

/// The rows under their headings.
fn table_of(rows: &[Value]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            COLUMNS
                .iter()
                .map(|column| table::cell(row.get(*column)))
                .collect()
        })
        .collect();
    table::render(&COLUMNS, &cells)
}

/// The rows of one run beside those of another of the same name and offloads.
fn beside(one: &[Value], two: &[Value]) -> Vec<Value> {
    let named = |row: &&Value| row["peer"] == "one-flow";
    two.iter()
        .filter(named)
        .filter_map(|row| {
            let other = one
                .iter()
                .filter(named)
                .find(|other| other["name"] == row["name"] && other["offload"] == row["offload"])?;
            let (value, peer_value) = (row["value"].as_f64()?, other["value"].as_f64()?);
            let mut row = row.clone();
            row["peer"] = json!("one-cpu");
            row["peer_value"] = json!(peer_value);
            row["ratio"] = json!((value / peer_value * 1000.0).round() / 1000.0);
            Some(row)
        })
        .collect()
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
    fn a_row_stands_beside_the_same_of_one_processor() {
        let row = |offload: &str, peer: &str, value: f64| {
            json!({"name": "flows-8-x", "offload": offload, "value": value, "unit": "Mb/s", "peer": peer,
                "peer_value": 7.0, "ratio": 1.0})
        };
        let one = [row("off", "kernel-esp", 9.0), row("off", "one-flow", 100.0)];
        let two = [row("off", "one-flow", 150.0), row("on", "one-flow", 1.0)];
        let rows = beside(&one, &two);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (&rows[0]["value"], &rows[0]["peer_value"], &rows[0]["ratio"]),
            (&json!(150.0), &json!(100.0), &json!(1.5))
        );
    }

    #[test]
    fn a_check_without_a_verdict_has_failed() {
        assert!(failed_checks(&[json!({"name": "a", "ok": true})]).is_ok());
        let error =
            failed_checks(&[json!({"name": "a"}), json!({"name": "b", "ok": false})]).unwrap_err();
        assert_eq!(error.to_string(), "not true: a; b");
    }
}
