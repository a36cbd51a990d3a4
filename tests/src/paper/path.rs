// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The path of one configuration: cn – ha – fa1 – mh, its tunnel, SNOOP, and the links as a run wants them.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::run::{Config, Errors, Run, Settings};
use super::transfer;
use crate::capture::Capture;
use crate::netns::Netns;
use crate::topology::{Shape, Topology, MH};
use crate::wireless::{self, Wireless, WirelessCounters};
use crate::{tunnel, zone_tunnel};

/// The wireless link's queue, in packets.
const QUEUE: u32 = 100;
/// A delay's queue holds all that is on its way, whatever the rate.
const ON_THE_WAY: u32 = 20_000;
/// Octets of the transfer that is only looked at.
const SHORT: u64 = 20_000;
/// The wireless interface, at both its ends.
pub const WIRELESS: &str = "wl1";

/// A path that is laid.
pub struct Laid {
    pub net: Topology,
    config: Config,
    snoop: Option<Settings>,
    /// Octets of a full packet on the wireless link, without and with TCP's time stamps; 0 until one was looked at.
    full: [u64; 2],
}

impl Laid {
    /// Builds it. Offloads are off everywhere: the wireless link sends packets, and SNOOP sees none that are larger.
    pub fn lay(config: Config, snoop: Option<Settings>) -> Result<Self> {
        let wants = matches!(config, Config::PlainSnoop | Config::MmlSnoop);
        ensure!(
            snoop.is_some() == wants,
            "SNOOP's settings and {} don't go together",
            config.name()
        );
        let net = Topology::up(Shape::Chain)?;
        net.offloads(false)?;
        known_neighbours(&net)?;
        match config {
            Config::Plain | Config::PlainSnoop => {}
            Config::Ipsec => tunnel::kernel_esp(&net, 256)?,
            Config::Mml | Config::MmlSnoop => two_zones(&net, snoop)?,
        }
        Ok(Self {
            net,
            config,
            snoop,
            full: [0; 2],
        })
    }

    /// Gives the links their rate, delay and errors, the wireless link's clock at zero, and SNOOP nothing to remember.
    pub fn begin(&self, run: &Run) -> Result<()> {
        let Topology {
            cn, ha, fa1, mh, ..
        } = &self.net;
        for end in [cn, mh] {
            let switch = |on: bool| if on { "1" } else { "0" };
            end.sysctl("net.ipv4.tcp_sack", switch(run.sack))?;
            end.sysctl("net.ipv4.tcp_timestamps", switch(run.timestamps))?;
            end.sysctl("net.ipv4.tcp_window_scaling", switch(run.scaling))?;
            // What one run learnt of the path is not for the next.
            end.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
            end.ip("tcp_metrics flush")?;
        }
        // The network between home agent and foreign agent, on both routers' interfaces towards each other.
        let half = run.delay_ms / 2.0;
        for (router, towards) in [(ha, "fa1"), (fa1, "ha")] {
            router.tc(&format!(
                "qdisc replace dev {towards} root netem delay {half}ms limit {ON_THE_WAY}"
            ))?;
        }
        if let (Config::PlainSnoop, Some(settings)) = (self.config, self.snoop) {
            watch(fa1, settings)?;
        }
        let link = |bit_error_rate, seed| Wireless {
            rate_bps: run.rate_kbps * 1000,
            bit_error_rate,
            seed,
            limit: QUEUE,
        };
        let upwards = match run.errors {
            Errors::Down => 0.0,
            Errors::Both => run.bit_error_rate,
        };
        // The two directions meet errors of their own.
        link(upwards, !run.run).attach(mh, WIRELESS)?;
        link(run.bit_error_rate, run.run).attach(fa1, WIRELESS)
    }

    /// Octets of a full packet on the wireless link, link header and all, seen in a short transfer without errors. That
    /// one also finds the neighbours on the other links.
    pub fn full_packet(&mut self, run: &Run) -> Result<u64> {
        let at = usize::from(run.timestamps);
        if self.full[at] == 0 {
            let short = Run {
                bytes: SHORT,
                bit_error_rate: 0.0,
                trace: false,
                ..run.clone()
            };
            self.begin(&short)?;
            let capture = Capture::start(&self.net.fa1, WIRELESS, "fa1-mh")?;
            transfer::transfer(&self.net, &short)?;
            let seen = capture.stop()?;
            settle(&short);
            let largest = seen.packets.iter().map(|packet| packet.frame.len()).max();
            self.full[at] = largest.unwrap_or_default() as u64;
            ensure!(self.full[at] > 1000, "no full packet crossed the link");
        }
        Ok(self.full[at])
    }

    /// Takes rate, delay and errors from the links, so that nothing but instructions takes time; SNOOP begins afresh.
    pub fn bare(&self) -> Result<()> {
        let Topology { ha, fa1, mh, .. } = &self.net;
        for (node, interface) in [(ha, "fa1"), (fa1, "ha"), (fa1, WIRELESS), (mh, WIRELESS)] {
            // There may be none.
            node.attempt(&["tc", "qdisc", "del", "dev", interface, "root"])?;
        }
        if let (Config::PlainSnoop, Some(settings)) = (self.config, self.snoop) {
            watch(fa1, settings)?;
        }
        Ok(())
    }

    /// Whether the wireless link carries ESP.
    pub fn is_sealed(&self) -> bool {
        !matches!(self.config, Config::Plain | Config::PlainSnoop)
    }

    /// The wireless link's counters, towards the mobile host.
    pub fn link(&self) -> Result<WirelessCounters> {
        wireless::counters(&self.net.fa1, WIRELESS)
    }

    /// What SNOOP counted, where there is any.
    pub fn snoop_counters(&self) -> Result<serde_json::Value> {
        if self.snoop.is_none() {
            return Ok(serde_json::Value::Null);
        }
        let said = zone_tunnel::mmlctl(&self.net.fa1, &["snoop", "stats", "--json"])?;
        serde_json::from_str(&said).context("the JSON of mmlctl snoop stats")
    }
}

/// The wireless link's ends know each other for good: asking for a neighbour is a packet that can be lost.
pub fn known_neighbours(net: &Topology) -> Result<()> {
    let (agent, host) = ("02:00:00:00:01:01", "02:00:00:00:01:07");
    net.fa1.ip(&format!(
        "link set dev {WIRELESS} address {agent}
        neigh replace {MH} lladdr {host} dev {WIRELESS} nud permanent"
    ))?;
    net.mh.ip(&format!(
        "link set dev {WIRELESS} address {host}
        neigh replace 10.1.1.1 lladdr {agent} dev {WIRELESS} nud permanent"
    ))
}

/// The two-zone tunnel by `mmlctl`, with SNOOP in the relay's file if it is wanted.
pub fn two_zones(net: &Topology, snoop: Option<Settings>) -> Result<()> {
    zone_tunnel::devices(net)?;
    let folder = zone_tunnel::new_files(&[])?;
    if let Some(settings) = snoop {
        add_snoop(&folder.join("fa.toml"), settings)?;
    }
    zone_tunnel::load_files(net, &folder, true)?;
    for end in [&net.ha, &net.mh] {
        for feature in ["tso", "gso", "gro"] {
            // The tunnel's device may not have each of them to switch.
            end.attempt(&["ethtool", "-K", "mml0", feature, "off"])?;
        }
    }
    Ok(())
}

/// Gives the CSA towards the mobile host in a relay's file a `[csa.snoop]` table.
fn add_snoop(file: &Path, settings: Settings) -> Result<()> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(name)?;
    let mut whole: toml::Table = toml::from_str(&text).with_context(name)?;
    let table: toml::Table = settings
        .values()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), toml::Value::Integer(*value as i64)))
        .collect();
    let towards = toml::Value::String(MH.to_string());
    whole
        .get_mut("csa")
        .and_then(toml::Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table_mut)
        .find(|csa| csa.get("dst") == Some(&towards))
        .with_context(name)?
        .insert("snoop".to_owned(), table.into());
    // Written over in place, so that it stays its owner's alone.
    std::fs::write(file, whole.to_string()).with_context(name)
}

/// SNOOP for plain TCP on the wireless interface, begun afresh.
fn watch(fa1: &Netns, settings: Settings) -> Result<()> {
    zone_tunnel::mmlctl(fa1, &["snoop", "set", "--device", "none"])?;
    let mut words = vec!["snoop".to_owned(), "set".to_owned()];
    words.extend(["--device".to_owned(), WIRELESS.to_owned()]);
    for (name, value) in settings.values() {
        words.extend([format!("--{name}"), value.to_string()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    zone_tunnel::mmlctl(fa1, &words)?;
    Ok(())
}

/// Waits until nothing of a run can be on its way any more: a full queue of the wireless link, and some round trips.
pub fn settle(run: &Run) {
    let queue = f64::from(QUEUE) * 1514.0 * 8.0 / (run.rate_kbps as f64 * 1000.0);
    std::thread::sleep(Duration::from_secs_f64(queue + 4.0 * run.delay_ms / 1000.0));
}
