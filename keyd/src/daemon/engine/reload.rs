// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file is read again: connections that say the same go on as if nothing had been, the others are closed and begun
//! anew. A file that can't be taken up whole changes nothing.
//!
//! IKE SAs, SAs and tasks know a connection by its place, so that none that is kept changes its place: one that is gone
//! leaves its place empty until nothing is of it any more.

use super::{Engine, Task};
use crate::daemon::config::{Config, Connection, Relays, Role, Start};
use crate::daemon::kernel::{Action, Rule};
use mml_ike::auth::IdMatch;
use mml_ike::config as ike;
use mml_ike::event::{IkeId, Time};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a reload makes of each connection of the new file, and of the old ones.
struct Plan {
    /// Where each of the new ones goes, in the file's order, and whether it is there already.
    places: Vec<(usize, bool)>,
    /// Old ones that aren't kept.
    closed: Vec<usize>,
}

impl Engine {
    /// Takes up another configuration.
    ///
    /// # Errors
    /// What in it can't be taken up while the daemon runs, or the kernel's refusal of its policies. Nothing has changed
    /// then.
    pub fn reload(&mut self, new: Config, now: Time) -> Result<Value, String> {
        self.host.now = now;
        if let Some((table, line)) = self.config.parts.fixed_change(&new.parts) {
            let line = line.map_or_else(String::new, |line| format!("line {line}: "));
            return Err(format!(
                "{line}[{table}]: it says something else than when keyd began, and only [[connection]], [[foreign-agent]] and [[neighbour]] are reloaded; put it back as it was, or restart keyd"
            ));
        }
        let plan = self.plan(&new);
        let rules: Vec<(String, Vec<Rule>)> = plan
            .places
            .iter()
            .zip(&new.connections)
            .filter(|((_, kept), _)| !kept)
            .map(|((place, _), one)| (one.name.clone(), self.rules_of(*place, one)))
            .collect();
        self.say(&rules)?;

        let names = |places: &[usize], connections: &[Connection]| -> Vec<String> {
            let named = places.iter().filter_map(|place| connections.get(*place));
            named.map(|one| one.name.clone()).collect()
        };
        let closed = names(&plan.closed, &self.config.connections);
        let before = self.static_relays();
        let neighbours = self.config.ike.foreign.neighbours.clone();
        self.expel(&new, now);
        self.close(&plan.closed, &rules, now);
        self.take_up(new, &plan, now);

        let fresh: Vec<usize> = plan
            .places
            .iter()
            .filter(|(_, kept)| !kept)
            .map(|(place, _)| *place)
            .collect();
        self.change_relays(&before, now);
        self.place_again(now);
        if neighbours != self.config.ike.foreign.neighbours {
            let ikes: Vec<IkeId> = self.host.book.ikes.keys().copied().collect();
            for ike in ikes {
                self.tell_neighbours(ike, true, now);
            }
        }
        for place in &fresh {
            let begins = self.config.connections[*place].start == Start::Now;
            if begins && !self.needs_registration(*place) {
                self.later(now, Task::Initiate(*place));
            }
        }
        self.replan = true;
        self.collect(now);
        let (begun, kept) = (
            names(&fresh, &self.config.connections),
            plan.places.len() - fresh.len(),
        );
        tracing::info!(
            kept,
            closed = closed.join(", "),
            new = begun.join(", "),
            "the file was read again"
        );
        Ok(json!({ "kept": kept, "closed": closed, "new": begun }))
    }

    /// HA: foreign agents that the new file doesn't have lose zone 1's keys while they can be told
    /// (docs/wire.md 3.5b).
    fn expel(&mut self, new: &Config, now: Time) {
        let all = |agents: &[ike::Agent]| -> Vec<IpAddr> {
            let addresses = agents.iter().flat_map(|agent| &agent.addresses);
            addresses.copied().collect()
        };
        let after = all(&new.ike.home.foreign_agents);
        let mut before = all(&self.config.ike.home.foreign_agents);
        before.retain(|address| !after.contains(address));
        for fa in before {
            tracing::info!(%fa, "it is no foreign agent any more, and is to drop zone 1's keys");
            self.endpoint.expel(fa, now, &mut self.host);
        }
    }

    /// HA: hosts are where they were, and the foreign agents there and beside may be others.
    fn place_again(&mut self, now: Time) {
        let there = self.host.book.mobile.iter();
        let there: Vec<_> = there.map(|(home, place)| (*home, place.care_of)).collect();
        if self.config.role == Role::Ha {
            for (home, care_of) in there {
                self.relayed_by(home, care_of, now);
            }
        }
    }

    fn plan(&self, new: &Config) -> Plan {
        let old = &self.config;
        let same = |at: usize, one: &Connection| {
            old.connections
                .iter()
                .zip(&old.parts.connections)
                .position(|(before, digest)| {
                    let named = !before.closed && before.name == one.name;
                    named && Some(digest) == new.parts.connections.get(at)
                })
        };
        let kept: Vec<Option<usize>> = new
            .connections
            .iter()
            .enumerate()
            .map(|(at, one)| same(at, one))
            .collect();
        let mut free: Vec<usize> = (0..old.connections.len())
            .filter(|place| old.connections[*place].closed && !self.is_used(*place))
            .rev()
            .collect();
        let mut next = old.connections.len();
        let mut place = || {
            free.pop().unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        };
        let closed = (0..old.connections.len())
            .filter(|at| !old.connections[*at].closed && !kept.contains(&Some(*at)))
            .collect();
        Plan {
            places: kept
                .into_iter()
                .map(|kept| kept.map_or_else(|| (place(), false), |at| (at, true)))
                .collect(),
            closed,
        }
    }

    /// Whether anything is of that place still.
    fn is_used(&self, place: usize) -> bool {
        let book = &self.host.book;
        book.ikes.values().any(|ike| ike.connection == place)
            || book.starting.values().any(|of| *of == place)
            || book.children.values().any(|one| one.connection == place)
            || book.orphans.iter().any(|one| one.connection == Some(place))
            || self
                .tasks
                .values()
                .any(|task| matches!(task, Task::Initiate(of) if *of == place))
    }

    /// Says to the kernels what the new ones protect, before anything is taken away; all of it, or nothing.
    fn say(&mut self, rules: &[(String, Vec<Rule>)]) -> Result<(), String> {
        for (at, (name, of_one)) in rules.iter().enumerate() {
            let before: Vec<Rule> = self.all_rules();
            if let Err(error) = self.guard_with(name, of_one) {
                for (_, added) in rules.iter().take(at + 1) {
                    let added: Vec<Rule> = added
                        .iter()
                        .filter(|rule| !before.contains(rule))
                        .copied()
                        .collect();
                    self.take_back_everywhere(&added);
                }
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// Closes connections, and empties their places. What they protected goes on being protected, as after a restart
    /// with another file; what let their IKE pass goes, unless one of the `new` rules says the same.
    fn close(&mut self, places: &[usize], new: &[(String, Vec<Rule>)], now: Time) {
        for place in places {
            let rules = self.rules(*place);
            let book = &self.host.book;
            let up = book.ikes.iter().filter(|(_, ike)| ike.connection == *place);
            let begun = book.starting.iter().filter(|(_, of)| **of == *place);
            let ikes: Vec<IkeId> = up
                .map(|(id, _)| *id)
                .chain(begun.map(|(id, _)| *id))
                .collect();
            for ike in ikes {
                if let Err(error) = self.endpoint.delete_ike(ike, now, &mut self.host) {
                    tracing::debug!("IKE SA {} can't be closed: {error}", ike.0);
                }
            }
            self.host.book.patience.remove(place);
            self.demanded.remove(place);
            self.given.remove(place);
            let one = &mut self.config.connections[*place];
            one.closed = true;
            one.remote = None;
            one.start = Start::Peer;
            one.tunnel = None;
            let name = one.name.clone();
            let others = self.all_rules();
            // The kernels know a policy by direction and packets.
            let same = |a: &Rule, b: &Rule| {
                (a.inbound, a.action, a.selector) == (b.inbound, b.action, b.selector)
            };
            let stay = |rule: &Rule| {
                let new = new.iter().flat_map(|(_, rules)| rules);
                others.iter().chain(new).any(|one| same(one, rule))
            };
            let (protect, pass): (Vec<Rule>, Vec<Rule>) = rules
                .into_iter()
                .filter(|rule| !stay(rule))
                .partition(|rule| rule.action == Action::Protect);
            self.take_back_everywhere(&pass);
            if !protect.is_empty() {
                tracing::warn!(
                    connection = name,
                    "what it protected goes nowhere from now on; `mmlctl policy list` has its policies, and `mmlctl policy delete` lets it go in clear"
                );
            }
        }
    }

    /// Puts the new connections into their places, and tells the protocol.
    fn take_up(&mut self, new: Config, plan: &Plan, now: Time) {
        let nobody = |one: &ike::Connection| ike::Connection {
            remote_id: IdMatch::Nobody,
            remote: None,
            child: None,
            ..one.clone()
        };
        let mut protocol: Vec<ike::Connection> = self.endpoint.config().connections.clone();
        for place in &plan.closed {
            protocol[*place] = nobody(&protocol[*place]);
        }
        let config = &mut self.config;
        let digests = new.parts.connections;
        let all = new
            .connections
            .into_iter()
            .zip(new.ike.connections)
            .zip(digests);
        for (rank, (((one, of_ike), digest), (place, _))) in all.zip(&plan.places).enumerate() {
            let of_ike = ike::Connection { rank, ..of_ike };
            if let Some(there) = config.connections.get_mut(*place) {
                *there = one;
                protocol[*place] = of_ike;
                config.parts.connections[*place] = digest;
            } else {
                // Places beyond the last come in their order.
                config.connections.push(one);
                protocol.push(of_ike);
                config.parts.connections.push(digest);
            }
        }
        config.ike = ike::Config {
            connections: protocol,
            home: new.ike.home,
            foreign: new.ike.foreign,
            ..config.ike.clone()
        };
        let zones = self.endpoint.config().zones;
        let config = ike::Config {
            zones,
            ..config.ike.clone()
        };
        self.endpoint.reconfigure(config, now, &mut self.host);
    }

    /// HA: where the file says that hosts are.
    fn static_relays(&self) -> BTreeMap<IpAddr, Relays> {
        let tunnels = self.config.connections.iter();
        tunnels
            .filter_map(|one| one.tunnel.as_ref()?.relays.clone())
            .map(|relays| (relays.home, relays))
            .collect()
    }

    fn change_relays(&mut self, before: &BTreeMap<IpAddr, Relays>, now: Time) {
        let after = self.static_relays();
        for (home, relays) in &after {
            if before.get(home) != Some(relays) {
                self.set_relays(relays.clone(), now);
            }
        }
        for home in before.keys().filter(|home| !after.contains_key(home)) {
            let none = Relays {
                home: *home,
                current: None,
                standbys: Vec::new(),
            };
            self.set_relays(none, now);
            self.relays.remove(home);
        }
    }
}
