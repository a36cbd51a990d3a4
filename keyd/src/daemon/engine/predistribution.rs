// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD: what is said of groups of foreign agents, at the home agent and at their members (docs/wire.md §3.3).

use super::Engine;
use mml_ike::event::GroupHeard;
use serde_json::{json, Value};
use std::net::IpAddr;

impl Engine {
    /// HA: what a neighbour said to its group's key.
    pub(super) fn group_joined(&mut self, member: IpAddr, fa: IpAddr, group: Option<(u32, usize)>) {
        match group {
            Some((group, members)) => tracing::info!(
                %member, neighbours_of = %fa, members,
                "it is in group {group:#010x}, and gets CSAs with the others by one datagram"
            ),
            None => tracing::info!(
                %member, neighbours_of = %fa,
                "it doesn't take the group's present key, and gets CSAs by itself"
            ),
        }
    }

    /// FA: a datagram to a group that it is in.
    pub(super) fn group_heard(&mut self, heard: GroupHeard) {
        match heard {
            GroupHeard::Said {
                agent,
                taken,
                refused,
            } => {
                self.counters.group_datagrams += 1;
                if refused.is_empty() {
                    tracing::info!(%agent, taken, "CSAs came by a datagram to the group");
                } else {
                    tracing::warn!(%agent, taken, ?refused, "not all CSAs of a datagram to the group are taken");
                }
            }
            GroupHeard::Again => self.counters.group_repeated += 1,
            GroupHeard::Forged(why) => {
                self.counters.group_forged += 1;
                // Anybody can send them; the log is not to be filled.
                if self.counters.group_forged.is_power_of_two() {
                    let so_far = self.counters.group_forged;
                    tracing::warn!(
                        so_far,
                        "a datagram to the group is forged, and changes nothing: {why}"
                    );
                }
            }
        }
    }

    /// The groups of a home agent, and those a foreign agent is in.
    pub(super) fn groups(&self) -> Vec<Value> {
        let own = self
            .endpoint
            .groups()
            .map(|(fa, group, epoch, members, said)| {
                json!({
                    "neighbours_of": fa.to_string(),
                    "group": group,
                    "epoch": epoch,
                    "members": members.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "datagrams": said,
                })
            });
        let in_others = self
            .endpoint
            .memberships()
            .map(|(agent, group, epoch, last)| {
                json!({
                    "home_agent": agent.to_string(),
                    "group": group,
                    "epoch": epoch,
                    "last": last,
                })
            });
        own.chain(in_others).collect()
    }
}
