// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The instructions that packets cost from the call that sends them to a place where they are dropped, for virtual time:
//! on one CPU a veth hands a packet over within the call that sends it.

use std::time::Instant;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::report;

/// Instructions (virtual nanoseconds) of something that sends packets, all of which must have been dropped when it
/// returns: the backlog is empty, and no softirq ran out of its time slice and so left work to ksoftirqd.
pub fn timed(send: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = Backlog::read()?;
    let start = Instant::now();
    send()?;
    let took = start.elapsed();
    let after = Backlog::read()?;
    ensure!(
        after.waiting == 0 && after.cut_short == before.cut_short,
        "packets were still on their way when the clock stopped"
    );
    Ok(took.as_nanos() as f64)
}

/// The CPU's own account of received packets.
struct Backlog {
    /// Packets that wait to be taken in.
    waiting: u64,
    /// How often a softirq ended with work left.
    cut_short: u64,
}

impl Backlog {
    fn read() -> Result<Self> {
        let path = "/proc/net/softnet_stat";
        let text = std::fs::read_to_string(path).context(path)?;
        // One line a CPU, hexadecimal (softnet_seq_show).
        let field = |at| {
            text.split_whitespace()
                .nth(at)
                .and_then(|field| u64::from_str_radix(field, 16).ok())
                .with_context(|| format!("{path} has no field {at}"))
        };
        Ok(Self {
            waiting: field(11)?,
            cut_short: field(2)?,
        })
    }
}

/// Where the kernel hands a packet to netfilter before anything else has looked at it.
pub const FIRST: &str = "prerouting priority raw";
/// Where a host's own packet first comes by, its route known.
pub const OWN: &str = "output priority raw";
/// Where a router has done with a packet, but for sending it: behind the module's relay.
pub const LAST: &str = "forward priority 2147483647";

/// Drops packets at a node, or lets them pass all the same, at the cost of one rule.
pub struct Sink<'a> {
    node: &'a Netns,
    /// Its family and name.
    table: [&'static str; 2],
}

impl<'a> Sink<'a> {
    /// `which` packets at which `hook`, in nft's words.
    pub fn add(node: &'a Netns, hook: &str, which: &str) -> Result<Self> {
        Self::rule(node, ["ip", "sink"], hook, which, "drop")
    }

    /// The same for packets of IP version 4 or 6.
    pub fn of_version(node: &'a Netns, version: u8, hook: &str, which: &str) -> Result<Self> {
        let family = if version == 4 { "ip" } else { "ip6" };
        Self::rule(node, [family, "sink"], hook, which, "drop")
    }

    /// `which` packets go on at `hook`: what looking at them costs.
    pub fn pass(node: &'a Netns, hook: &str, which: &str) -> Result<Self> {
        Self::rule(node, ["ip", "pass"], hook, which, "accept")
    }

    fn rule(
        node: &'a Netns,
        table: [&'static str; 2],
        hook: &str,
        which: &str,
        verdict: &str,
    ) -> Result<Self> {
        let [family, name] = table;
        node.nft(&format!(
            "table {family} {name} {{
                chain sink {{
                    type filter hook {hook}; policy accept;
                    {which} counter {verdict}
                }}
            }}"
        ))?;
        Ok(Self { node, table })
    }

    /// Packets dropped so far.
    pub fn count(&self) -> Result<u64> {
        let [family, name] = self.table;
        let listed = self
            .node
            .run(&["nft", "-j", "list", "table", family, name])?;
        let listed: Value = serde_json::from_str(&listed).context("nft's JSON")?;
        listed["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["rule"]["expr"].as_array())
            .flatten()
            .find_map(|expression| expression["counter"]["packets"].as_u64())
            .context("nft lists no counter")
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        if let Err(error) = self
            .node
            .nft(&format!("delete table {}", self.table.join(" ")))
        {
            report::step(format!("{error:#}"));
        }
    }
}
