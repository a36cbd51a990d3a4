// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which packets the kernel dropped, where and why: its tracepoint `skb:kfree_skb`, counted by place and reason.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/skb/kfree_skb/enable";
/// KiB a processor: some hundred octets a packet.
const BUFFER_KB: &str = "8192";

fn set(file: &str, value: &str) -> Result<()> {
    fs::write(format!("{TRACING}/{file}"), value)
        .with_context(|| format!("{TRACING}/{file}: {value}"))
}

/// Drops are written down from now on.
pub struct Watch(());

impl Watch {
    pub fn begin() -> Result<Self> {
        set("buffer_size_kb", BUFFER_KB)?;
        set("trace", "")?;
        set(EVENT, "1")?;
        Ok(Watch(()))
    }

    /// How many were dropped, by where and why.
    pub fn end(self) -> Result<BTreeMap<String, u64>> {
        set(EVENT, "0")?;
        let trace = fs::read_to_string(format!("{TRACING}/trace")).context("the kernel's trace")?;
        let mut counts = BTreeMap::new();
        for line in trace.lines() {
            if let Some(place) = place(line) {
                *counts.entry(place).or_insert(0) += 1;
            }
        }
        Ok(counts)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Whoever wants to know already has it.
        let _ = set(EVENT, "0");
        let _ = set("trace", "");
    }
}

/// "… kfree_skb: skbaddr=… rx_sk=… protocol=2048 location=ip_rcv+0x12/0x345 reason: NO_SOCKET".
fn place(line: &str) -> Option<String> {
    let word = |name: &str| {
        let rest = line.split_once(name)?.1;
        rest.split_whitespace().next()
    };
    let location = word("location=")?;
    let function = location.split('+').next().unwrap_or(location);
    let reason = word("reason: ").unwrap_or("?");
    Some(format!("{function} {reason}"))
}
