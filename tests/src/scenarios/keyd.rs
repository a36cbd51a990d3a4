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
pub(super) struct Keyd<'a> {
    node: &'a Netns,
    folder: PathBuf,
    process: Option<Background>,
}

impl<'a> Keyd<'a> {
    fn new(node: &'a Netns, configuration: &str) -> Result<Self> {
        Self::with_files(node, configuration, &SECRETS)
    }

    /// One with other files beside its configuration, for nobody else to read.
    pub(super) fn with_files(
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
        self.process = Some(self.node.background(&["keyd", "run", "-c", file])?);
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    pub(super) fn tell(&self, command: &[&str]) -> Result<String> {
        let socket = self.folder.join("control");
        let socket = socket.to_str().context("path")?;
        self.node
            .run(&[&["mmlctl", "--json"], command, &["--socket", socket]].concat())
    }
}

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
    let mh = format!(
        "[node]
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
{zones}"
    );
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
