// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What agents know of each other: an HA of its FAs, an FA of its HAs and neighbours; and how an FA repairs losses.

use super::check::Checker;
use super::file;
use super::source::Mistake;
use super::Role;
use crate::address::Prefix;
use mml_ike::auth::IdMatch;
use mml_ike::config as ike;
use pfkey::Snoop;
use std::net::IpAddr;
use toml::Spanned;

impl Checker<'_> {
    pub(super) fn home(&self) -> Result<ike::HomeConfig, Mistake> {
        let agents = &self.file.foreign_agent;
        if let Some(one) = agents.first().filter(|_| self.file.node.role != Role::Ha) {
            return Err(self.at(
                &one.name,
                "foreign-agent: only a home agent (`role = \"ha\"`) has foreign agents",
            ));
        }
        let agent = |one: &file::ForeignAgent| ike::Agent {
            identity: one.identity.0.clone(),
            addresses: one.addresses.get_ref().clone(),
        };
        Ok(ike::HomeConfig {
            foreign_agents: agents.iter().map(agent).collect(),
            // No relay of ours writes yet.
            grant_write: false,
            ..ike::HomeConfig::default()
        })
    }

    pub(super) fn foreign(&self) -> Result<ike::ForeignConfig, Mistake> {
        let (agents, neighbours) = (&self.file.home_agent, &self.file.neighbour);
        let is_fa = self.file.node.role == Role::Fa;
        if let Some(one) = agents.first().filter(|_| !is_fa) {
            return Err(self.at(
                one,
                "home-agent: only a foreign agent (`role = \"fa\"`) takes CSAs from home agents",
            ));
        }
        if let Some(one) = neighbours.first().filter(|_| !is_fa) {
            return Err(self.at(
                one,
                "neighbour: only a foreign agent (`role = \"fa\"`) has neighbours",
            ));
        }
        let mut home_agents = Vec::new();
        for one in agents {
            let one = one.get_ref();
            if let (Some(address), None) = (&one.address, &self.file.mobile_ip) {
                return Err(self.at(
                    address,
                    "address: of use with [mobile-ip] alone; remove it, or add that table",
                ));
            }
            let prefix = |prefix: &Prefix| {
                let (address, bits) = prefix.range()?;
                Some(ike::Prefix { address, bits })
            };
            let prefixes: Option<Vec<ike::Prefix>> = one.prefixes.iter().map(prefix).collect();
            let Some(prefixes) = prefixes.filter(|list| !list.is_empty()) else {
                return Err(self.at(
                    &one.identity,
                    "prefixes: the home agent's own home addresses, `any` not among them",
                ));
            };
            if let Some(host) = one
                .hosts
                .iter()
                .find(|host| !prefixes.iter().any(|p| p.holds(**host)))
            {
                return Err(self.at(
                    &one.identity,
                    format_args!("hosts: {host} lies in none of `prefixes`; add its own"),
                ));
            }
            home_agents.push(ike::HomeAgent {
                identity: IdMatch::Exactly(one.identity.get_ref().0.clone()),
                prefixes,
                standby: one.standby,
                addresses: one
                    .address
                    .iter()
                    .map(|a| IpAddr::V4(*a.get_ref()))
                    .collect(),
            });
        }
        let neighbour = |one: &Spanned<file::Neighbour>| ike::Agent {
            identity: one.get_ref().identity.0.clone(),
            addresses: one.get_ref().addresses.clone(),
        };
        Ok(ike::ForeignConfig {
            home_agents,
            neighbours: neighbours.iter().map(neighbour).collect(),
            ..ike::ForeignConfig::default()
        })
    }

    pub(super) fn snoop(&self) -> Result<Option<Snoop>, Mistake> {
        let Some(table) = &self.file.snoop else {
            return Ok(None);
        };
        if self.file.node.role != Role::Fa {
            return Err(self.at(
                table,
                "snoop: only a foreign agent (`role = \"fa\"`) repairs losses",
            ));
        }
        let (t, default) = (table.get_ref(), Snoop::default());
        let snoop = Snoop {
            flags: 0,
            window: t.window.unwrap_or(default.window),
            threshold: t.threshold.unwrap_or(default.threshold),
            initial_ms: t.initial_ms.unwrap_or(default.initial_ms),
            min_rto_ms: t.min_rto_ms.unwrap_or(default.min_rto_ms),
            persist_ms: t.persist_ms.unwrap_or(default.persist_ms),
            garbage_ms: t.garbage_ms.unwrap_or(default.garbage_ms),
            bytes: t.bytes.unwrap_or(default.bytes),
        };
        let times = [
            snoop.initial_ms,
            snoop.min_rto_ms,
            snoop.persist_ms,
            snoop.garbage_ms,
        ];
        let sound = (1..=8192).contains(&snoop.window)
            && snoop.threshold != 0
            && times.iter().all(|ms| (1..=3_600_000).contains(ms))
            && snoop.garbage_ms >= snoop.persist_ms
            && snoop.bytes != 0;
        if !sound {
            return Err(self.at(
                table,
                "snoop: window 1 to 8192, threshold at least 1, times 1 ms to 1 h with garbage-ms not below persist-ms, bytes not 0",
            ));
        }
        Ok(Some(snoop))
    }
}
