// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The demo: a real file over real HTTP from correspondent to mobile host, three ways, every link captured; then, in its
//! second act (`repair`), over a wireless link that loses packets; and last (`handoff`) while the host moves.
//!
//! Each line it reports is computed from the captures and the foreign agent's counters, none is taken for granted.

mod file;
mod handoff;
mod readers;
mod repair;
mod transfer;

use anyhow::Result;
use serde_json::json;

use crate::config::RunConfig;
use crate::kernel_log::KernelLog;
use crate::module::Modules;
use crate::report;
use crate::scenario::MODULE;
use crate::traffic;
use file::make_file;
use transfer::{transfer, Config};

/// Octets of the file, unless the host says otherwise.
const BYTES: u64 = 10_000_000;
/// How much of each capture goes to the host.
const PACKETS_KEPT: usize = 200;

/// Makes the file, transfers it three times, judges; then the second act. Whether all of it held.
pub fn run(config: &RunConfig, modules: &Modules) -> Result<bool> {
    let mut log = KernelLog::from_now()?;
    let bytes = usize::try_from(config.options.bytes.unwrap_or(BYTES))?;
    let marker = traffic::random(16);
    let sum = make_file(bytes, &marker)?;
    modules.load(MODULE)?;
    let mut all_hold = true;
    for way in [Config::Plain, Config::KernelEsp, Config::TwoZoneEsp] {
        report::step(format!("transfer: {}", way.name()));
        let (transfer, row) = transfer(way, bytes, &sum, &mut |_, _| Ok(()))?;
        all_hold &= row["sha256_ok"] == json!(true);
        report::result("transfer", row);
        for check in readers::checks(&transfer, &marker)? {
            all_hold &= check.ok;
            report::result(
                "check",
                json!({"name": check.name, "ok": check.ok, "detail": check.detail, "config": way.name()}),
            );
        }
        for link in &transfer.links {
            report::file(
                &format!("captures/{}-{}.pcap", way.name(), link.name),
                &link.pcap(PACKETS_KEPT),
            );
        }
    }
    all_hold &= repair::act(bytes)?;
    all_hold &= handoff::act(modules, bytes)?;
    let quiet = log.check();
    let detail = quiet
        .as_ref()
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    report::result(
        "check",
        json!({"name": "the kernel logged no warning", "ok": quiet.is_ok(), "detail": detail, "config": "all"}),
    );
    Ok(all_hold && quiet.is_ok())
}
