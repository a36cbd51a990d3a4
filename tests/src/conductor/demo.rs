// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The demo on six machines: the file's three ways of `mml-guest`'s first act, and then who holds which key.

#[path = "../demo/file.rs"]
#[allow(dead_code)]
mod file;
#[path = "../demo/readers.rs"]
mod readers;
#[path = "../demo/transfer.rs"]
mod transfer;

use anyhow::Result;
use serde_json::json;

use crate::config::RunConfig;
use crate::scenarios::all_search;
use crate::{elsewhere, report, traffic};
use transfer::Config;

/// Octets of the file, unless the host says otherwise: six emulated machines are slow.
const BYTES: u64 = 1_000_000;
/// How much of each capture goes to the host.
const PACKETS_KEPT: usize = 200;

/// Makes the file, transfers it three times, judges. Whether all of it held.
pub fn run(config: &RunConfig) -> Result<bool> {
    let bytes = usize::try_from(config.options.bytes.unwrap_or(BYTES))?;
    let marker = traffic::random(16);
    let sum = file::make_file(bytes, &marker)?;
    let mut all_hold = true;
    for way in [Config::Plain, Config::KernelEsp, Config::TwoZoneEsp] {
        report::step(format!("transfer: {}", way.name()));
        let mut holdings = Vec::new();
        let (transfer, row) = transfer::transfer(way, bytes, &sum, &mut |net, keys| {
            if let Some(keys) = keys {
                report::step("searching every guest's memory for the keys");
                holdings = all_search(net, keys)?;
            }
            Ok(())
        })?;
        all_hold &= row["sha256_ok"] == json!(true);
        report::result("transfer", row);
        let mut check = |name: &str, ok: bool, detail: &str| {
            all_hold &= ok;
            report::result(
                "check",
                json!({"name": name, "ok": ok, "detail": detail, "config": way.name()}),
            );
        };
        for held in readers::checks(&transfer, &marker)? {
            check(&held.name, held.ok, &held.detail);
        }
        for holding in &holdings {
            report::result("holder", holding.row());
        }
        if way == Config::TwoZoneEsp {
            check(
                "two-zone-esp: zone 2's keys are in the memory of ha and mh and of no other machine, zone 1's also at fa1",
                holdings.len() == 6 && holdings.iter().all(|holding| holding.is_right()),
                "all of the memory of six machines was searched",
            );
        }
        let quiet = elsewhere::settle();
        let detail = quiet.as_ref().err().map(|error| format!("{error:#}"));
        check(
            &format!("{}: no kernel logged a warning", way.name()),
            quiet.is_ok(),
            &detail.unwrap_or_default(),
        );
        for link in &transfer.links {
            report::file(
                &format!("captures/{}-{}.pcap", way.name(), link.name),
                &link.pcap(PACKETS_KEPT),
            );
        }
    }
    Ok(all_hold)
}
