// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager on three nodes, with the real module and XFRM beneath it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::tunnel::everything;
use super::udp::{streamed, streamed_but};
use crate::command::Background;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::zone_tunnel;
use crate::{traffic, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "keyd-negotiates-on-three-nodes",
        proves: "three key managers with a file each make fresh CSAs, give the foreign agent zone 1's key, and everything goes sealed, with no packet in clear before or after",
        seconds: 120,
        run: negotiates,
    },
    Scenario {
        name: "keyd-rekeys-under-traffic",
        proves: "new keys for a running stream each way, begun by either end: no packet is lost and none shows",
        seconds: 120,
        run: rekeys,
    },
    Scenario {
        name: "keyd-replaces-keys-by-age-and-octets",
        proves: "under a stream each way keys are replaced when they are a few seconds old, and when they have carried so many octets, with no packet lost",
        seconds: 120,
        run: by_age_and_octets,
    },
    Scenario {
        name: "keyd-crosses-a-nat-that-changes-its-mind",
        proves: "a mobile host behind a NAT negotiates and its packets travel in UDP; when the NAT gives it another port the home agent follows and traffic goes on, never in clear",
        seconds: 120,
        run: crosses_a_nat,
    },
    Scenario {
        name: "keyd-away-stops-no-traffic",
        proves: "while all three key managers are killed and come back, a stream each way goes on: it loses a packet or two where the new keys take over, and shows none",
        seconds: 150,
        run: away,
    },
    Scenario {
        name: "keyd-falls-back-to-plain-ipsec",
        proves: "with a peer that knows no zones the kernel's own ESP carries the traffic under the same policies, and nothing goes in clear",
        seconds: 120,
        run: falls_back,
    },
];

const SECRETS: [(&str, &str); 2] = [
    (
        "mh.psk",
        "8f0d6a1c5be2497799aa4f7c0f3d2b61c1a7e5d0b94d4f2a8e6c3b5a79180246\n",
    ),
    (
        "fa1.psk",
        "1b9d4e7f2c8a4056b3e1d7c9f0a2846535e6c8b0d1f24a3798b6c5d4e3f2a1b0\n",
    ),
];

/// A node's key manager: its folder and its file.
pub struct Keyd<'a> {
    node: &'a Netns,
    folder: PathBuf,
    process: Option<Background>,
}

impl<'a> Keyd<'a> {
    fn new(node: &'a Netns, configuration: &str) -> Result<Self> {
        Self::with_files(node, configuration, &SECRETS)
    }

    /// One with other files beside its configuration, for nobody else to read.
    pub fn with_files(
        node: &'a Netns,
        configuration: &str,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = PathBuf::from(format!("/run/keyd-{}", node.name()));
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let socket = folder.join("control");
        let text = format!(
            "[control]\nsocket = \"{}\"\n\n{configuration}",
            socket.display()
        );
        fs::write(folder.join("keyd.toml"), text)?;
        for (name, text) in files {
            use std::io::Write as _;
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(name))?
                .write_all(text.as_bytes())?;
        }
        let mut keyd = Keyd {
            node,
            folder,
            process: None,
        };
        keyd.start()?;
        Ok(keyd)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let file = self.folder.join("keyd.toml");
        let file = file.to_str().context("path")?;
        self.node.run(&["keyd", "check", "-c", file])?;
        // Into a file: nobody empties a pipe, and keyd would wait for that.
        let run = format!(
            "exec keyd run -c {file} >>{} 2>&1",
            self.log_file().display()
        );
        self.process = Some(self.node.background(&["sh", "-c", &run])?);
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        format!("{}:\n{text}", self.node.name())
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("keyd is away")?.pid())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    pub fn tell(&self, command: &[&str]) -> Result<String> {
        let socket = self.folder.join("control");
        let socket = socket.to_str().context("path")?;
        self.node
            .run(&[&["mmlctl", "--json"], command, &["--socket", socket]].concat())
    }
}

impl Keyd<'_> {
    /// Waits until it runs.
    pub(super) fn answers(&self, patience: std::time::Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while let Err(error) = self.tell(&["status"]) {
            if Instant::now() > end {
                return Err(error);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until a connection is up.
    pub(super) fn up(&self, connection: &str, patience: std::time::Duration) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            let status: serde_json::Value = serde_json::from_str(&self.tell(&["status"])?)?;
            let mut list = status["connections"].as_array().into_iter().flatten();
            if list.any(|one| one["name"] == connection && one["state"] == "up") {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{connection} doesn't come up");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// A home agent's file without foreign agents.
const HA_ALONE: &str = "[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"198.51.100.1\"]

[[connection]]
name = \"mh\"
remote-identity = \"mh.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
remote = \"203.0.113.7\"
";

/// The mobile host's.
const MH_FILE: &str = "[node]
role = \"mh\"
identity = \"mh.example\"
addresses = [\"10.1.1.7\"]

[[connection]]
name = \"ha\"
remote = \"198.51.100.1\"
remote-identity = \"ha.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
local = \"203.0.113.7\"
";

/// The three nodes' files; `zones` is the tunnel's setting at the mobile host.
fn nodes<'a>(ctx: &'a Ctx, zones: &str) -> Result<[Keyd<'a>; 3]> {
    let ha = "[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"198.51.100.1\"]

[[foreign-agent]]
name = \"fa1\"
identity = \"fa1.example\"
addresses = [\"10.1.1.1\"]

[[connection]]
name = \"fa1\"
remote = \"10.1.1.1\"
remote-identity = \"fa1.example\"
auth = \"psk\"
secret-file = \"fa1.psk\"

[[connection]]
name = \"mh\"
remote-identity = \"mh.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
remote = \"203.0.113.7\"
relay = \"fa1\"
";
    let fa = "[node]
role = \"fa\"
identity = \"fa1.example\"
addresses = [\"10.1.1.1\"]

[[home-agent]]
identity = \"ha.example\"
prefixes = [\"203.0.113.0/24\"]
hosts = [\"203.0.113.7\"]

[[connection]]
name = \"ha\"
remote = \"198.51.100.1\"
remote-identity = \"ha.example\"
auth = \"psk\"
secret-file = \"fa1.psk\"
start = \"peer\"
";
    let mh = format!("{MH_FILE}{zones}");
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    Ok([
        Keyd::new(&net.ha, ha)?,
        Keyd::new(&net.fa1, fa)?,
        Keyd::new(&net.mh, &mh)?,
    ])
}

/// Waits until datagrams arrive both ways; nothing shows meanwhile.
fn up(ctx: &Ctx) -> Result<()> {
    let near = traffic::udp(&ctx.net.cn, CN, 4100)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5100)?;
    let secret = traffic::random(32);
    let captures = outside(ctx)?;
    let end = Instant::now() + ctx.seconds(40.0);
    for (from, to) in [(&far, &near), (&near, &far)] {
        loop {
            // EPERM: the policies are there, the keys are not.
            let _ = from.send_to(&secret, to.local_addr()?);
            if traffic::receive(to, traffic::SILENCE)?.is_some() {
                break;
            }
            ensure!(Instant::now() < end, "no datagram arrived in 40 seconds");
        }
    }
    nothing_shows(captures, &secret)?;
    Ok(())
}

/// Waits until the foreign agent opens what passes.
fn relayed(ctx: &Ctx) -> Result<()> {
    let end = Instant::now() + ctx.seconds(20.0);
    while Stats::read(&ctx.net.fa1)?.total("relayed-packets") == 0 {
        ensure!(Instant::now() < end, "the foreign agent opens nothing");
        traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"is anybody there")?;
    }
    Ok(())
}

/// docs/wire.md 3.1d.
fn negotiates(ctx: &mut Ctx) -> Result<()> {
    let _keyds = nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}

/// docs/wire.md 2.2u, 3.2o, 3.2p.
fn rekeys(ctx: &mut Ctx) -> Result<()> {
    let [ha, _fa, mh] = &nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    let before = mh.tell(&["sa", "list"])?;
    streamed(&[(&near, &far), (&far, &near)], || {
        for _ in 0..2 {
            mh.tell(&["rekey", "ha"])?;
            std::thread::sleep(ctx.seconds(2.0));
            ha.tell(&["rekey", "mh"])?;
            std::thread::sleep(ctx.seconds(2.0));
        }
        Ok(())
    })?;
    ensure!(
        mh.tell(&["sa", "list"])? != before,
        "the keys are the old ones"
    );
    relayed(ctx)
}

/// SPIs of the CSAs that a node's module seals with.
fn origins(node: &Netns) -> Result<Vec<u64>> {
    let list: serde_json::Value =
        serde_json::from_str(&zone_tunnel::mmlctl(node, &["--json", "csa", "list"])?)?;
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .filter(|csa| csa["role"] == "origin")
        .filter_map(|csa| csa["spi"].as_u64())
        .collect())
}

/// docs/wire.md 2.2u.
fn by_age_and_octets(ctx: &mut Ctx) -> Result<()> {
    for limits in [
        "rekey = \"4s\"\nlifetime = \"60s\"\n",
        "soft-bytes = 60000\nhard-bytes = 100000000\n",
    ] {
        let _keyds = nodes(ctx, limits)?;
        up(ctx)?;
        relayed(ctx)?;
        let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
        let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
        let mut seen: std::collections::BTreeSet<u64> = origins(&ctx.net.mh)?.into_iter().collect();
        streamed(&[(&near, &far), (&far, &near)], || {
            let end = Instant::now() + ctx.seconds(40.0);
            while seen.len() < 4 {
                ensure!(
                    Instant::now() < end,
                    "with {limits:?} {} CSAs in 40 seconds",
                    seen.len()
                );
                std::thread::sleep(ctx.seconds(0.3));
                seen.extend(origins(&ctx.net.mh)?);
            }
            Ok(())
        })?;
        drop(_keyds);
        for node in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
            zone_tunnel::mmlctl(node, &["csa", "flush"])?;
            zone_tunnel::mmlctl(node, &["policy", "flush", "--yes"])?;
        }
        for node in [&ctx.net.ha, &ctx.net.mh] {
            node.ip("link del mml0")?;
        }
    }
    Ok(())
}

/// The core hides the mobile host's network, its packets' ports being of this range.
fn hide(ctx: &Ctx, ports: &str) -> Result<()> {
    let net = &ctx.net;
    net.core()?.nft(&format!(
        "table ip nat
        delete table ip nat
        table ip nat {{
            chain post {{ type nat hook postrouting priority srcnat; oifname \"ha\" ip saddr 10.1.1.0/24 ip protocol udp masquerade to :{ports}; }}
        }}"
    ))?;
    // What the NAT remembers goes with its interface.
    net.core()?.ip("link set ha down
        link set ha up
        route add 192.0.2.0/24 via 198.51.100.1")
}

/// The UDP port that the home agent's newest CSA sends to.
fn port_towards_the_mobile_host(ctx: &Ctx) -> Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&zone_tunnel::mmlctl(
        &ctx.net.ha,
        &["--json", "csa", "list"],
    )?)?;
    list.as_array()
        .into_iter()
        .flatten()
        .filter(|csa| csa["role"] == "origin")
        .filter_map(|csa| csa["udp"]["dst-port"].as_u64())
        .next_back()
        .context("the home agent has no CSA in UDP")
}

fn crosses_a_nat(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    hide(ctx, "7000-7100")?;
    // Behind a NAT nobody can be reached by the address it has there.
    net.ha.ip("route del 10.1.0.0/16")?;
    let ha = HA_ALONE;
    let mh = MH_FILE;
    zone_tunnel::devices(net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    let _keyds = [Keyd::new(&net.ha, ha)?, Keyd::new(&net.mh, mh)?];
    up(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    let before = port_towards_the_mobile_host(ctx)?;
    hide(ctx, "8000-8100")?;
    up(ctx).context("with another port of the NAT's")?;
    everything(ctx, &marker)?;
    let after = port_towards_the_mobile_host(ctx)?;
    ensure!(
        (7000..=7100).contains(&before) && (8000..=8100).contains(&after),
        "the home agent sends to port {before}, then to {after}"
    );
    for captured in nothing_shows(captures, &marker)? {
        ensure!(
            captured
                .headers()
                .all(|ip| ip.protocol != crate::headers::ESP),
            "{}: ESP that isn't in UDP",
            captured.name
        );
    }
    Ok(())
}

/// docs/wire.md 3.2v.
fn away(ctx: &mut Ctx) -> Result<()> {
    let mut keyds = nodes(ctx, "")?;
    up(ctx)?;
    relayed(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    // None while they are away; the taking over is not yet as clean as a rekeying.
    streamed_but(&[(&near, &far), (&far, &near)], 5, || {
        for keyd in &mut keyds {
            keyd.kill();
        }
        std::thread::sleep(ctx.seconds(2.0));
        for keyd in &mut keyds {
            keyd.start()?;
        }
        std::thread::sleep(ctx.seconds(8.0));
        Ok(())
    })?;
    up(ctx)
}

/// docs/wire.md 3.2c.
fn falls_back(ctx: &mut Ctx) -> Result<()> {
    crate::topology::linear(&ctx.net)?;
    let _keyds = nodes(ctx, "zones = \"off\"\n")?;
    up(ctx)?;
    let states = ctx.net.ha.run(&["ip", "xfrm", "state", "list"])?;
    ensure!(
        states.contains("proto esp"),
        "XFRM holds no state: {states}"
    );
    let sealed = Stats::read(&ctx.net.ha)?.total("sealed-packets");
    ensure!(sealed == 0, "the module sealed {sealed} packets");
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    everything(ctx, &marker)?;
    nothing_shows(captures, &marker)?;
    Ok(())
}
