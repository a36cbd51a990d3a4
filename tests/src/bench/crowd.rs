// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a host's set-up and rekeying cost a home agent's key manager and a foreign agent's, with many hosts there, and with many
//! foreign agents to be given the keys beforehand.
//!
//! A value is the time that a daemon's threads have run, as in `ike`. The hosts, and the neighbours of the foreign agent, are a
//! [`Swarm`]; home agent and foreign agent are real, with their kernels' CSAs and policies.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use mml_ike::auth::{Credential, IdMatch, Trust};
use mml_ike::config::{
    ChildConfig, Config, Connection, HomeAgent, IkeProposal, Prefix, ZonePolicy, ZoneRole,
};
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::pool::Pool;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Id, TrafficSelector, ZoneTransform};
use pfkey::{Mode, ZoneMap};

use super::ike::{ran, REMOVAL, REST};
use super::row::Row;
use super::swarm::Swarm;
use super::Bench;
use crate::keyd::Keyd;
use crate::topology::{Shape, Topology, HA};
use crate::{report, traffic, tunnel, zone_tunnel};

/// How many hosts.
const HOSTS: [u32; 4] = [1, 10, 100, 1000];
/// How many neighbours of the foreign agent where a host is.
const NEIGHBOURS: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// How many hosts are measured, where there are so many.
const TIMES: u32 = 10;
/// Daemons that have read their file have nothing to do any more by then.
const START: Duration = Duration::from_secs(5);
/// Home addresses, and where the hosts and the neighbours are.
pub const HOMES: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
pub const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 0);
pub const AGENTS: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 0);
/// The foreign agent.
const FA: &str = "10.1.1.1";

/// What it costs home agent and foreign agent with so much company, in microseconds: the median, since a look that they have
/// at all their CSAs every few seconds falls into one or another.
#[derive(Clone, Copy, Default)]
struct Costs {
    home: f64,
    foreign: f64,
}

/// What is measured with so much company.
#[derive(Clone, Copy, Default)]
struct Measured {
    set_up: Costs,
    rekeying: Costs,
    /// Octets a host, at home agent and foreign agent.
    memory: [f64; 2],
}

impl Costs {
    fn of(taken: &[[u64; 2]]) -> Self {
        let median = |at: usize| {
            let mut all: Vec<u64> = taken.iter().map(|both| both[at]).collect();
            all.sort_unstable();
            all.get(all.len() / 2)
                .map_or(0.0, |ran| *ran as f64 / 1000.0)
        };
        Costs {
            home: median(0),
            foreign: median(1),
        }
    }
}

/// An address behind the first.
pub fn nth(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + number + 1)
}

fn connection(name: &str, secret: &[u8], child: Option<ChildConfig>) -> Connection {
    Connection {
        local_id: Id::fqdn(name),
        remote_id: IdMatch::Exactly(Id::fqdn("ha.example")),
        remote: Some(HA.into()),
        credential: Credential::Psk(Secret::copy(secret)),
        trust: Trust::Psk(Secret::copy(secret)),
        ike: vec![IkeProposal {
            ciphers: vec![Cipher::Aes256Gcm],
            prfs: vec![Hash::Sha256],
            methods: vec![Method::X25519],
            additional: vec![],
        }],
        child,
        window: 1,
        mobike: false,
        initial_contact: false,
        liveness: None,
        rekey: None,
        request_address: None,
        pool: Pool::default(),
        rank: 0,
    }
}

/// A mobile host.
pub fn host(number: u32, secret: &[u8]) -> Config {
    let transform = |key_bits| ZoneTransform {
        encr: Encr::AES_GCM_16_IIV,
        key_bits,
    };
    let home = IpAddr::V4(nth(HOMES, number));
    let child = ChildConfig {
        local_ts: vec![TrafficSelector::host(home)],
        remote_ts: vec![TrafficSelector::any(home)],
        mode: Mode::Tunnel,
        ciphers: vec![Cipher::Aes256Gcm],
        methods: vec![Method::X25519],
        additional: vec![],
        zones: Some(ZonePolicy {
            required: true,
            map: ZoneMap::default_for(Mode::Tunnel),
            transforms: vec![vec![transform(256), transform(128)]; 2],
            replay_window: 8192,
            may_write: false,
            role: ZoneRole::Mobile,
        }),
        rekey: None,
        lifetime: Duration::from_secs(3600),
    };
    Config {
        connections: vec![connection(
            &format!("h{number}.example"),
            secret,
            Some(child),
        )],
        ..Config::default()
    }
}

/// A neighbour of the foreign agent.
pub fn neighbour(number: u32, secret: &[u8]) -> Config {
    let mut config = Config {
        connections: vec![connection(&format!("n{number}.example"), secret, None)],
        ..Config::default()
    };
    config.foreign.home_agents = vec![HomeAgent {
        identity: IdMatch::Exactly(Id::fqdn("ha.example")),
        prefixes: vec![Prefix {
            address: HOMES.into(),
            bits: 10,
        }],
        standby: true,
        addresses: Vec::new(),
    }];
    config
}

/// Nobody is asked whether they live: the swarm answers only who it is with.
const SUITE: &str =
    "auth = \"psk\"\nsecret-file = \"psk\"\nike = [\"aes256-gcm16/sha256/x25519\"]\nliveness = \"1h\"\n";

fn node(role: &str, address: &str) -> String {
    format!(
        "[node]\nrole = \"{role}\"\nidentity = \"{role}.example\"\naddresses = [\"{address}\"]\n"
    )
}

fn ha_file(hosts: u32, neighbours: u32) -> Result<String> {
    let mut text = node("ha", &HA.to_string());
    let mut agent = |name: &str, address: &str| {
        write!(text, "\n[[foreign-agent]]\nname = \"{name}\"\nidentity = \"{name}.example\"\naddresses = [\"{address}\"]\n")
    };
    agent("fa", FA)?;
    let mut standbys = Vec::new();
    for number in 0..neighbours {
        let name = format!("n{number}");
        agent(&name, &nth(AGENTS, number).to_string())?;
        standbys.push(format!("\"{name}\""));
    }
    let mut peer = |name: &str, more: &str| {
        write!(text, "\n[[connection]]\nname = \"{name}\"\nremote-identity = \"{name}.example\"\n{SUITE}start = \"peer\"\n{more}")
    };
    peer("fa", &format!("remote = \"{FA}\"\n"))?;
    for number in 0..neighbours {
        let remote = nth(AGENTS, number);
        peer(&format!("n{number}"), &format!("remote = \"{remote}\"\n"))?;
    }
    let standbys = standbys.join(", ");
    for number in 0..hosts {
        let home = nth(HOMES, number);
        let tunnel = format!("[connection.tunnel]\nremote = \"{home}\"\nzones = \"required\"\nrelay = \"fa\"\nstandby = [{standbys}]\n");
        peer(&format!("h{number}"), &tunnel)?;
    }
    Ok(text)
}

fn fa_file(hosts: u32) -> String {
    let homes: Vec<String> = (0..hosts)
        .map(|number| format!("\"{}\"", nth(HOMES, number)))
        .collect();
    format!(
        "{}\n[[home-agent]]\nidentity = \"ha.example\"\nprefixes = [\"{HOMES}/10\"]\nhosts = [{}]\n\n[[connection]]\nname = \"ha\"\nremote = \"{HA}\"\nremote-identity = \"ha.example\"\n{SUITE}",
        node("fa", FA),
        homes.join(", ")
    )
}

/// Octets that a process has in memory.
fn resident(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages: f64 = pages.context("statm")?;
    Ok(pages * 4096.0)
}

/// Sets all up and measures some hosts' rekeyings.
fn with_company(hosts: u32, neighbours: u32) -> Result<Measured> {
    let net = Topology::up(Shape::Chain)?;
    zone_tunnel::devices(&net)?;
    // All addresses of hosts and neighbours are one node's.
    for range in [CARE_OF, AGENTS] {
        net.mh.ip(&format!("route add local {range}/16 dev lo"))?;
        net.fa1.ip(&format!("route add {range}/16 via 10.1.1.7"))?;
        net.ha
            .ip(&format!("route add {range}/16 via 198.51.100.2"))?;
    }
    let secret = traffic::random(32);
    let psk = format!("0x{}\n", tunnel::hex(&secret));
    let files: &[(&str, &str)] = &[("psk", &psk)];
    let home = Keyd::with_files(&net.ha, &ha_file(hosts, neighbours)?, files)?;
    let foreign = Keyd::with_files(&net.fa1, &fa_file(hosts), files)?;
    std::thread::sleep(START);
    let measured = || -> Result<Measured> {
        let pids = [home.pid()?, foreign.pid()?];
        let ran = || Ok::<_, anyhow::Error>([ran(pids[0])?, ran(pids[1])?]);
        let since = |before: [u64; 2]| -> Result<[u64; 2]> {
            std::thread::sleep(REST);
            let after = ran()?;
            Ok([0, 1].map(|at| after[at].saturating_sub(before[at])))
        };
        let mut swarm = Swarm::new();
        for number in 0..neighbours {
            let at = nth(AGENTS, number);
            let member = swarm.join(&net.mh, at, neighbour(number, &secret))?;
            swarm.begin(member, HA, 0..0)?;
        }
        let first = neighbours as usize;
        let before = [resident(pids[0])?, resident(pids[1])?];
        let mut ikes = Vec::new();
        let (mut set_ups, mut rekeyings) = (Vec::new(), Vec::new());
        let measured = TIMES.min(hosts);
        for number in 0..hosts {
            let at = nth(CARE_OF, number);
            let member = swarm.join(&net.mh, at, host(number, &secret))?;
            // The last ones are measured: the others are there by then.
            let counts = number + measured >= hosts;
            let before = ran()?;
            ikes.push(swarm.begin(member, HA, 0..first)?);
            if counts {
                set_ups.push(since(before)?);
            }
        }
        let mut memory = [0.0; 2];
        for (at, before) in before.into_iter().enumerate() {
            memory[at] = (resident(pids[at])? - before) / f64::from(hosts);
        }
        std::thread::sleep(REMOVAL);
        for number in hosts - measured..hosts {
            let before = ran()?;
            let at = number as usize;
            let ike = *ikes.get(at).context("no such host")?;
            swarm.rekey(first + at, ike, 0..first)?;
            rekeyings.push(since(before)?);
        }
        let wanted = neighbours as usize * (hosts + measured) as usize;
        ensure!(
            swarm.given == wanted,
            "neighbours were given {} CSAs, not {wanted}",
            swarm.given
        );
        let up = foreign.log().matches("relay CSA").count();
        ensure!(up > hosts as usize, "the foreign agent was given {up} CSAs");
        Ok(Measured {
            set_up: Costs::of(&set_ups),
            rekeying: Costs::of(&rekeyings),
            memory,
        })
    };
    measured().with_context(|| {
        let last = |log: String| {
            log.lines()
                .rev()
                .take(20)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join("\n")
        };
        format!("{}\n\n{}", last(home.log()), last(foreign.log()))
    })
}

/// Measures all.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    let mut alone = Measured::default();
    let row = |name: &str, value: f64, unit: &str, peer: &str, peer_value: f64| {
        Row::plain(name, (value, unit), (peer, peer_value)).report(bench);
    };
    for (first, hosts) in HOSTS.into_iter().enumerate() {
        if !bench.wants_of("crowd-hosts") {
            break;
        }
        report::step(format!("{hosts} hosts at a foreign agent"));
        let costs = bench
            .with_module(|| with_company(hosts, 0))
            .with_context(|| format!("{hosts} hosts"))?;
        if first == 0 {
            alone = costs;
        }
        for (what, cost, one) in [
            ("set-up", costs.set_up, alone.set_up),
            ("rekeying", costs.rekeying, alone.rekeying),
        ] {
            for (who, value, of_one) in [
                ("ha", cost.home, one.home),
                ("fa", cost.foreign, one.foreign),
            ] {
                let name = format!("crowd-hosts-{hosts}-{what}-{who}");
                row(&name, value, "µs", "one host", of_one);
            }
        }
        // Of few hosts it would tell of pages.
        let memory = ["ha", "fa"].into_iter().zip(costs.memory);
        for (who, octets) in memory.filter(|_| hosts >= 1000) {
            let name = format!("crowd-hosts-{hosts}-memory-{who}");
            row(&name, octets, "octets/host", "goal", 16384.0);
        }
        if hosts == 1000 {
            let both = |of: Measured| of.rekeying.home + of.rekeying.foreign;
            let grown = both(costs) / both(alone);
            super::check(
                "a host's rekeying takes at most half as much again with 1,000 hosts as with one",
                grown <= 1.5,
            );
        }
    }
    let mut with_one = None;
    for neighbours in NEIGHBOURS {
        if !bench.wants_of("crowd-neighbours") {
            break;
        }
        report::step(format!("{neighbours} neighbours"));
        let rekeying = bench
            .with_module(|| with_company(1, neighbours))
            .with_context(|| format!("{neighbours} neighbours"))?
            .rekeying;
        let one = *with_one.get_or_insert(rekeying.home);
        let name = format!("crowd-neighbours-{neighbours}-rekeying-ha");
        row(&name, rekeying.home, "µs", "one neighbour", one);
        if neighbours == 32 {
            let each = (rekeying.home - one) / 31.0;
            row("crowd-neighbours-each", each, "µs", "goal", 300.0);
            super::check(
                "each further neighbour costs the home agent at most 0.3 ms",
                each <= 300.0,
            );
        }
    }
    Ok(())
}
