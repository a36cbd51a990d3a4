// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which node's kernel holds which zone's keys, as each says itself when a scenario is over: both zones' at the two ends of
//! a CSA, zone 1's alone at a foreign agent, and none anywhere else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::topology::Topology;

/// Scenarios in which nodes play other parts than their names say, and what it is that they do.
const OTHERWISE: &[(&str, &str)] = &[
    (
        "other-namespaces-see-nothing",
        "the correspondent has a CSA of its own",
    ),
    (
        "a-second-relay-passes-rewritten-packets-on",
        "the router between is a relay",
    ),
    (
        "a-namespace-keeps-to-its-caps",
        "the home agent is filled with relay CSAs, which are the cheapest",
    ),
];

/// Of what is wrong, so much is told.
const SHOWN: usize = 10;

/// A direction of a CSA: its SPI and its outer destination.
type Direction = (u64, String);

/// What one kernel says.
#[derive(Debug, PartialEq, Eq)]
struct Holding {
    node: &'static str,
    direction: Direction,
    role: String,
    /// Zone by zone, whether it has the key.
    zones: Vec<bool>,
}

fn holdings(node: &'static str, list: &Value) -> Result<Vec<Holding>> {
    let all = list.as_array().context("no list of CSAs")?;
    all.iter()
        .map(|csa| {
            let zones = csa["zones"].as_array().context("no zones")?;
            Ok(Holding {
                node,
                direction: (
                    csa["spi"].as_u64().context("no SPI")?,
                    csa["dst"].as_str().context("no destination")?.to_owned(),
                ),
                role: csa["role"].as_str().context("no role")?.to_owned(),
                zones: zones.iter().map(|zone| zone != "null").collect(),
            })
        })
        .collect()
}

/// What of that is not as it has to be.
fn judge(all: &[Holding]) -> Vec<String> {
    let mut wrong = Vec::new();
    // Who seals a direction, and who opens it: one each.
    let mut ends: BTreeMap<(&Direction, &str), BTreeSet<&str>> = BTreeMap::new();
    // A larval CSA waits for its keys.
    for one in all.iter().filter(|one| !one.zones.is_empty()) {
        let is_end = one.role != "relay";
        let (first, rest) = one.zones.split_first().unwrap_or((&false, &[]));
        let keys = if is_end {
            *first && rest.iter().all(|has| *has)
        } else {
            *first && rest.iter().all(|has| !has)
        };
        let place = match one.node {
            "ha" | "mh" => is_end,
            "fa1" | "fa2" => !is_end,
            _ => false,
        };
        if !keys || !place {
            wrong.push(format!(
                "{} holds, as {} of {:#x} to {}, the keys of zones {:?}",
                one.node, one.role, one.direction.0, one.direction.1, one.zones
            ));
        }
        if is_end {
            let nodes = ends.entry((&one.direction, &one.role)).or_default();
            nodes.insert(one.node);
        }
    }
    let shared = ends.iter().filter(|(_, nodes)| nodes.len() > 1);
    wrong.extend(shared.map(|((direction, role), nodes)| {
        format!(
            "{nodes:?} are {role} of {:#x} to {}, all of them",
            direction.0, direction.1
        )
    }));
    wrong
}

/// How many CSAs each node holds with which keys, in a line.
fn line(all: &[Holding]) -> String {
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for one in all {
        let zones = one.zones.iter().enumerate().filter(|(_, has)| **has);
        let zones: Vec<String> = zones.map(|(at, _)| (at + 1).to_string()).collect();
        *counts.entry((one.node, zones.join("+"))).or_default() += 1;
    }
    let counts = counts
        .iter()
        .map(|((node, zones), count)| format!("{node} {count} with zones {zones}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Looks at all nodes when a scenario is over; says who holds what.
pub fn look(scenario: &str, net: &Topology) -> Result<String> {
    let mut all = Vec::new();
    for node in net.all() {
        let list = node.attempt(&["mmlctl", "--json", "csa", "list"])?;
        if !list.success {
            // A kernel without the module holds none.
            let module = ["busybox", "test", "-e", "/sys/module/mml/refcnt"];
            let is_there = node.attempt(&module)?.success;
            ensure!(!is_there, "{}: {}{}", node.name(), list.stdout, list.stderr);
            continue;
        }
        let list: Value = serde_json::from_str(&list.stdout)?;
        all.extend(holdings(node.name(), &list).with_context(|| node.name().to_owned())?);
    }
    let told = line(&all);
    let otherwise = OTHERWISE.iter().any(|(name, _)| *name == scenario);
    let wrong = if otherwise { Vec::new() } else { judge(&all) };
    ensure!(
        wrong.is_empty(),
        "keys are where they don't belong, {} times: {}",
        wrong.len(),
        wrong
            .iter()
            .take(SHOWN)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ")
    );
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn held(node: &'static str, role: &str, zones: &[&str]) -> Vec<Holding> {
        let list = json!([{ "spi": 0x1000, "dst": "10.1.1.7", "role": role, "zones": zones }]);
        holdings(node, &list).unwrap()
    }

    #[test]
    fn a_relay_holds_zone_1_and_ends_hold_both() {
        let both = &["aes256-gcm16-iiv", "aes256-gcm16-iiv"];
        let first = &["aes256-gcm16-iiv", "null"];
        for right in [
            held("ha", "origin", both),
            held("mh", "terminus", both),
            held("fa2", "relay", first),
            held("fa2", "terminus", &[]),
        ] {
            assert_eq!(judge(&right), [""; 0]);
        }
        for wrong in [
            held("fa1", "relay", both),
            held("fa1", "terminus", both),
            held("ha", "origin", first),
            held("core", "relay", first),
            held("ha", "relay", first),
        ] {
            assert_eq!(judge(&wrong).len(), 1, "{wrong:?}");
        }
        let mut two = held("ha", "origin", both);
        two.extend(held("mh", "origin", both));
        assert_eq!(judge(&two).len(), 1);
        assert_eq!(line(&held("fa1", "relay", first)), "fa1 1 with zones 1");
        assert_eq!(line(&held("ha", "origin", both)), "ha 1 with zones 1+2");
    }

    #[test]
    fn a_list_that_lacks_something_is_no_list_of_nothing() {
        assert!(holdings("ha", &json!([{ "spi": 1 }])).is_err());
        assert!(holdings("ha", &json!({})).is_err());
    }
}
