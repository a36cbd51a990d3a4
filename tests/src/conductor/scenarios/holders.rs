// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who holds which key: all of every guest's memory is searched for them.

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};

use super::tunnel::everything;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::Topology;
use crate::traffic;
use crate::wire::{Reply, Request};
use crate::zone_tunnel::{Keys, Options};

pub const TABLE: &[Scenario] = &[Scenario {
    name: "each-node-holds-its-own-keys-and-no-other",
    proves: "with traffic flowing, zone 2's keys are in the memory of home agent and mobile host and nowhere else, zone 1's also at the foreign agent; all of each guest's memory is searched",
    seconds: 120,
    run: holders,
}];

/// How often a node's memory holds each zone's keys, those of both directions together.
pub struct Holding {
    pub node: &'static str,
    pub zones: [u64; 2],
}

impl Holding {
    /// How many zones' keys the node should hold.
    fn due(&self) -> usize {
        match self.node {
            "ha" | "mh" => 2,
            "fa1" => 1,
            _ => 0,
        }
    }

    /// Whether it holds its own, and no other.
    pub fn is_right(&self) -> bool {
        let due = self.due();
        self.zones
            .iter()
            .enumerate()
            .all(|(zone, count)| (*count > 0) == (zone < due))
    }

    /// For the host.
    pub fn row(&self) -> Value {
        let word = |count: u64| if count > 0 { "in memory" } else { "nowhere" };
        json!({
            "node": self.node,
            "zone1": word(self.zones[0]),
            "zone2": word(self.zones[1]),
            "ok": self.is_right(),
        })
    }
}

/// Searches every node's memory, all guests at once.
pub fn all_search(net: &Topology, keys: &Keys) -> Result<Vec<Holding>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = net
            .all()
            .into_iter()
            .map(|node| scope.spawn(move || search(node, keys)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    })
}

fn search(node: &Netns, keys: &Keys) -> Result<Holding> {
    let needles = [0, 1].map(|zone| [&keys.to_mh.zones[zone].key, &keys.from_mh.zones[zone].key]);
    let length = needles[0][0].len();
    let mut octets = Vec::new();
    for needle in needles.iter().flatten() {
        ensure!(needle.len() == length, "keys of two lengths");
        // Under a mask: the search itself must not put the key where it is looked for.
        let mask = traffic::random(length);
        octets.extend(&mask);
        octets.extend(needle.iter().zip(&mask).map(|(octet, mask)| octet ^ mask));
    }
    let answer = node.node().ask(&Request::Search { length }, &octets)?;
    let Reply::Found(counts) = answer.reply else {
        bail!("{} answered {:?} to a search", node.name(), answer.reply)
    };
    let [a, b, c, d] = counts.as_slice() else {
        bail!("{} counted {counts:?}", node.name())
    };
    let one_alone = (*a == 0) != (*b == 0) || (*c == 0) != (*d == 0);
    ensure!(
        !one_alone,
        "{} holds the keys of one direction only: {counts:?}",
        node.name()
    );
    Ok(Holding {
        node: node.name(),
        zones: [a + b, c + d],
    })
}

fn holders(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    everything(ctx, &traffic::random(16))?;
    for holding in all_search(&ctx.net, &keys).context("searching")? {
        ensure!(
            holding.is_right(),
            "{}: zone 1's keys were found {} times, zone 2's {} times",
            holding.node,
            holding.zones[0],
            holding.zones[1]
        );
    }
    Ok(())
}
