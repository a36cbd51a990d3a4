// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a host costs its agents in company: with many others at both foreign agents, and with many neighbours of the foreign
//! agent where it is that are given its keys beforehand, one by one or by one datagram.
//!
//! The host, its home agent and two foreign agents are real, with their kernels' CSAs, policies and routes; the others are a
//! [`Swarm`] behind the core, whose members do IKE and nothing else. Costs are the time that a key manager's threads have run.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use mml_ike::config::{Config, Prefix};
use nix::sys::resource::{setrlimit, Resource};
use serde_json::{json, Value};

use super::ground::{self, Ground};
use super::{handoff, initialisation, on_ground_with, FORGOTTEN, REST};
use crate::bench::crowd::{self, nth, AGENTS, CARE_OF, HOMES};
use crate::bench::ran;
use crate::bench::swarm::Swarm;
use crate::module::Modules;
use crate::paper::run::{By, Company, Keys, Links};
use crate::report;
use crate::scenarios::handoff::PSK;
use crate::scenarios::mobility::HOME_AGENT;

/// No delays: what takes time is processing.
const LINKS: Links = Links {
    home_ms: 0.0,
    agents_ms: 0.0,
};
/// The core's address towards the home agent, and the group that one datagram for all goes to.
const CORE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 4, 34), 49_434);
/// A rekeying and all that neighbours answer is over by then: they report a datagram after 400 ms.
const STEP: Duration = Duration::from_millis(900);
/// Files that may be open.
const FILES: u64 = 8192;
/// Nobody is asked whether they live: the swarm is served only now and then.
const SUITE: &str = "auth = \"psk\"\nsecret-file = \"ike.psk\"\nike = [\"aes256-gcm16/sha256/x25519\"]\nliveness = \"1h\"\nstart = \"peer\"\n";

/// Measures it.
pub fn measure(modules: &Modules, company: &Company) -> Result<Value> {
    let (keys, files) = files(company)?;
    on_ground_with(modules, keys, LINKS, files, |ground| go(ground, company))
}

/// The column, and its files with all the others in them. Where neighbours are counted, the second foreign agent is none.
fn files(company: &Company) -> Result<(Keys, [String; 4])> {
    let keys = match company.neighbours {
        0 => Keys::Pkd,
        _ => Keys::Late,
    };
    let [mut ha, mut fa1, mut fa2, mh] = ground::files(keys);
    if company.by == By::Multicast {
        let by =
            "[mobile-ip]\npredistribute-by = \"multicast\"\npredistribute-interface = \"core\"\n";
        for file in [&mut ha, &mut fa1] {
            *file = file.replace("[mobile-ip]\n", by);
        }
    }
    for number in 0..company.neighbours {
        let (name, address) = (format!("n{number}"), nth(AGENTS, number));
        let agent = format!("identity = \"{name}.example\"\naddresses = [\"{address}\"]\n");
        write!(ha, "\n[[foreign-agent]]\nname = \"{name}\"\n{agent}")?;
        write!(ha, "\n[[connection]]\nname = \"{name}\"\nremote = \"{address}\"\nremote-identity = \"{name}.example\"\n{SUITE}")?;
        write!(fa1, "\n[[neighbour]]\n{agent}")?;
    }
    let mut homes = Vec::new();
    for number in 1..company.hosts {
        let home = nth(HOMES, number);
        write!(ha, "\n[[connection]]\nname = \"h{number}\"\nremote-identity = \"h{number}.example\"\n{SUITE}[connection.tunnel]\nremote = \"{home}\"\nzones = \"required\"\nrelay = \"fa1\"\nstandby = [\"fa2\"]\n")?;
        homes.push(format!("\"{home}\""));
    }
    if !homes.is_empty() {
        let prefixes = "prefixes = [\"203.0.113.0/24\"]\n";
        let with = format!(
            "prefixes = [\"203.0.113.0/24\", \"{HOMES}/10\"]\nhosts = [{}]\n",
            homes.join(", ")
        );
        for file in [&mut fa1, &mut fa2] {
            ensure!(file.contains(prefixes), "{file}");
            *file = file.replace(prefixes, &with);
        }
    }
    Ok((keys, [ha, fa1, fa2, mh]))
}

/// All the others come, then the host.
fn go(ground: &mut Ground<'_>, company: &Company) -> Result<Value> {
    let net = ground.net();
    let core = net.core()?;
    for range in [CARE_OF, AGENTS] {
        core.ip(&format!("route add local {range}/16 dev lo"))?;
        net.ha.ip(&format!("route add {range}/16 via {CORE}"))?;
    }
    // A socket each.
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES)?;
    let secret = PSK.1.trim_end().as_bytes();
    let mut swarm = Swarm::new();
    if company.by == By::Multicast {
        swarm.listen(core, CORE, GROUP)?;
    }
    for number in 0..company.neighbours {
        let mut config = to_home(crowd::neighbour(number, secret));
        for agent in &mut config.foreign.home_agents {
            agent.prefixes.push(Prefix {
                address: HOME_AGENT.into(),
                bits: 24,
            });
        }
        config.foreign.multicast = (company.by == By::Multicast).then_some(GROUP.port());
        let member = swarm.join(core, nth(AGENTS, number), config)?;
        swarm.begin(member, HOME_AGENT, 0..0)?;
    }
    report::step(format!("{} others come", company.hosts.saturating_sub(1)));
    for number in 1..company.hosts {
        let host = to_home(crowd::host(number, secret));
        let member = swarm.join(core, nth(CARE_OF, number), host)?;
        swarm
            .begin(member, HOME_AGENT, 0..0)
            .with_context(|| format!("host {number}"))?;
    }
    // Keys of a group, where there is one, go by an exchange with each.
    swarm.serve(REST)?;
    initialisation(ground)?;
    swarm.serve(FORGOTTEN)?;
    let rekeying = rekeyings(ground, company, &mut swarm)?;
    let mut handoffs = Vec::new();
    if company.neighbours == 0 {
        // As in Table II: the first of each direction is for caches.
        for turn in 0..company.times + 2 {
            report::step(format!("handoff {turn} of {}", company.times));
            let one = handoff(ground).with_context(|| format!("handoff {turn}"))?;
            if turn >= 2 {
                handoffs.push(one);
            }
        }
    }
    ground.leaves()?;
    Ok(json!({ "rekeying": rekeying, "handoffs": handoffs }))
}

/// With this network's home agent for the crowd's.
fn to_home(mut config: Config) -> Config {
    for connection in &mut config.connections {
        connection.remote = Some(HOME_AGENT.into());
    }
    config
}

/// What home agent and foreign agent run for each rekeying of the host's CSA, in microseconds.
fn rekeyings(ground: &Ground<'_>, company: &Company, swarm: &mut Swarm) -> Result<Vec<Value>> {
    let pids = [ground.nodes.ha.pid()?, ground.nodes.fa1.pid()?];
    let mut all = Vec::new();
    for turn in 0..=company.times {
        report::step(format!("rekeying {turn} of {}", company.times));
        let (given, cast) = (swarm.given, swarm.cast);
        let before = [ran(pids[0])?, ran(pids[1])?];
        std::thread::scope(|scope| {
            let told = scope.spawn(|| ground.nodes.mh.tell(&["rekey", "ha"]));
            swarm.serve(STEP)?;
            told.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let after = [ran(pids[0])?, ran(pids[1])?];
        let (given, cast) = (swarm.given - given, swarm.cast - cast);
        let wanted = company.neighbours as usize;
        let by_datagram = match company.by {
            By::Sequence => 0,
            By::Multicast => wanted,
        };
        ensure!(
            (given, cast) == (wanted, by_datagram),
            "of {wanted} neighbours {given} were given the keys, {cast} by one datagram"
        );
        let [home, foreign] = [0, 1].map(|at| (after[at] - before[at]) as f64 / 1000.0);
        // The first is for caches and first allocations.
        if turn > 0 {
            all.push(json!({ "home_us": home, "foreign_us": foreign }));
        }
        // What was replaced is taken away after a while, and isn't in it.
        swarm.serve(FORGOTTEN)?;
    }
    Ok(all)
}
