// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What many CSAs and policies at a node cost the packets of one of them: instructions to seal, relay and open a packet
//! with one tunnel there, and with others loaded beside it.
//!
//! The tunnel measured is the oldest, which its hash chains list last: it has it worst.

use anyhow::Result;

use super::many::{self, MANY};
use super::row::Row;
use super::stage;
use super::way::{self, Way};
use super::Bench;
use crate::zone_message::{Direction, Role};

/// How many tunnels there are, in the order they are measured.
const TUNNELS: [u32; 3] = [1, 100, MANY];
/// Octets of the inner datagram, where a lookup's share is largest.
const SIZE: usize = 64;
/// What counts as growth.
const GROWTH: f64 = 1.02;

/// Measures the three stages at each number.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    Way::TwoZoneEsp.laid(bench, |net| {
        way::offloads(net, false)?;
        let mut costs: Vec<[(&str, f64); 3]> = Vec::new();
        // The tunnel itself is the first.
        let mut there = 1;
        for tunnels in TUNNELS {
            let more = there..tunnels;
            many::add(&net.ha, Role::Origin, more.clone())?;
            many::protect(&net.ha, Direction::Out, more.clone())?;
            many::add(&net.fa1, Role::Relay, more.clone())?;
            many::add(&net.mh, Role::Terminus, more.clone())?;
            many::protect(&net.mh, Direction::In, more)?;
            there = tunnels;
            let stages = stage::all(net, Way::TwoZoneEsp, &[SIZE])?;
            let [seal, relay, open] =
                [stages.home_agent, stages.foreign_agent, stages.open].map(|cost| cost[0]);
            costs.push([("seal", seal), ("relay", relay), ("open", open)]);
        }
        for (tunnels, cost) in TUNNELS.iter().zip(&costs) {
            for ((stage, value), (_, alone)) in cost.iter().zip(&costs[0]) {
                Row {
                    name: &format!("lookup-{stage}-{tunnels}"),
                    offload: "",
                    value: *value,
                    unit: "instructions",
                    peer: "one-csa",
                    peer_value: *alone,
                }
                .report(bench);
            }
        }
        let flat = costs
            .iter()
            .flat_map(|cost| cost.iter().zip(&costs[0]))
            .all(|((_, value), (_, alone))| *value <= alone * GROWTH);
        super::check(
            &format!(
                "with {MANY} CSAs a packet costs at most {GROWTH} times what it costs with one"
            ),
            flat,
        );
        Ok(())
    })
}
