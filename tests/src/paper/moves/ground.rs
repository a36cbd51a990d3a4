// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A column's network, its links' delays and its four key managers.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::journal::{self, Clock};
use super::{LOOK, PATIENCE, REST};
use crate::capture::Capture;
use crate::command::Background;
use crate::keyd::Keyd;
use crate::netns::Netns;
use crate::paper::run::{Keys, Links};
use crate::report;
use crate::scenario::Ctx;
use crate::scenarios::{handoff, mobility};
use crate::topology::Topology;

/// A delay's queue holds all that is on its way.
const ON_THE_WAY: u32 = 20_000;

/// AES-256-GCM, HMAC-SHA-256, X25519, as in the benchmarks: no second key exchange.
const SUITE: &str = "auth = \"psk\"\nike = [\"aes256-gcm16/sha256/x25519\"]\n";

/// A foreign agent's place.
#[derive(Clone, Copy)]
pub struct Place {
    pub name: &'static str,
    /// Its link to the mobile host, of the same name at both ends.
    pub link: &'static str,
}

const PLACES: [Place; 2] = [
    Place {
        name: "fa1",
        link: "wl1",
    },
    Place {
        name: "fa2",
        link: "wl2",
    },
];

/// What is laid.
pub struct Ground<'a> {
    ctx: &'a Ctx<'a>,
    pub nodes: mobility::Nodes<'a>,
    pub keys: Keys,
    pub clock: Clock,
    /// The foreign agent the host is at, or comes to first.
    at: usize,
    /// The mobile host's key manager, which deregisters when it is told to end.
    mobile: Option<Background>,
}

/// The four files of a column.
pub fn files(keys: Keys) -> [String; 4] {
    let mut files = match keys {
        Keys::None => [
            mobility::HA_FILE.to_owned(),
            mobility::fa_file(1),
            mobility::fa_file(2),
            mobility::MH_FILE.to_owned(),
        ],
        Keys::Esp | Keys::EspAnew => {
            let mh = handoff::connection(
                "mh",
                "203.0.113.7",
                "mh.example",
                "start = \"peer\"\n[connection.tunnel]\nremote = \"203.0.113.7\"\nzones = \"off\"\n",
            );
            let ha = handoff::connection(
                "ha",
                "203.0.113.1",
                "ha.example",
                "[connection.tunnel]\nlocal = \"203.0.113.7\"\nzones = \"off\"\n",
            );
            [
                [mobility::HA_FILE, &mh].concat(),
                mobility::fa_file(1),
                mobility::fa_file(2),
                [mobility::MH_FILE, &ha].concat(),
            ]
        }
        Keys::Late => handoff::files(|_| String::new()),
        Keys::Pkd => handoff::pkd_files(),
        Keys::Dkm => handoff::dkm_files(),
    };
    for file in &mut files {
        *file = file.replace("auth = \"psk\"\n", SUITE) + "\n[log]\nformat = \"json\"\n";
    }
    files
}

impl<'a> Ground<'a> {
    /// Lays it and has the agents know each other; the mobile host is nowhere yet.
    pub fn lay(ctx: &'a Ctx<'a>, keys: Keys, links: Links) -> Result<Self> {
        Self::lay_with(ctx, keys, links, files(keys))
    }

    /// The same where nothing but keys follows the host: no packets, and nothing of what SNOOP knows.
    pub fn lay_for_keys_alone(ctx: &'a Ctx<'a>, keys: Keys, links: Links) -> Result<Self> {
        let mut files = files(keys);
        let agents = files.iter_mut().skip(1).take(2);
        for file in agents {
            *file = file.replace("[mobile-ip]\n", "[mobile-ip]\nhandover = false\n");
            ensure!(file.contains("handover = false"), "{file}");
        }
        Self::lay_with(ctx, keys, links, files)
    }

    /// The same with these files.
    pub fn lay_with(
        ctx: &'a Ctx<'a>,
        keys: Keys,
        links: Links,
        files: [String; 4],
    ) -> Result<Self> {
        let net = &ctx.net;
        net.offloads(false)?;
        let nodes = if keys == Keys::None {
            mobility::network(ctx)?;
            let files = files.each_ref().map(String::as_str);
            mobility::Nodes::start(ctx, files, &mobility::SECRETS)?
        } else {
            handoff::start(ctx, &files)?
        };
        delays(net, links)?;
        let mut ground = Self {
            ctx,
            nodes,
            keys,
            clock: Clock::read()?,
            at: 0,
            mobile: None,
        };
        ground.nodes.mh.kill();
        let known = ground.know_each_other();
        known.with_context(|| ground.nodes.logs())?;
        std::thread::sleep(REST);
        Ok(ground)
    }

    fn know_each_other(&self) -> Result<()> {
        if self.keys.has_zones() {
            self.nodes.ha.up("fa1", PATIENCE)?;
            self.nodes.ha.up("fa2", PATIENCE)?;
        }
        if matches!(self.keys, Keys::Pkd | Keys::Dkm) {
            self.nodes.fa1.up("next", PATIENCE)?;
        }
        Ok(())
    }

    pub fn net(&self) -> &'a Topology {
        &self.ctx.net
    }

    pub fn here(&self) -> Place {
        PLACES[self.at]
    }

    /// The key managers of the foreign agent the host is at, and of the other one.
    pub fn agents(&self) -> [&Keyd<'a>; 2] {
        let both = [&self.nodes.fa1, &self.nodes.fa2];
        [both[self.at], both[1 - self.at]]
    }

    /// The same foreign agents' nodes.
    pub fn agent_nodes(&self) -> Result<[&'a Netns; 2]> {
        let net = self.net();
        let both = [&net.fa1, net.fa2.as_ref().context("no second agent")?];
        Ok([both[self.at], both[1 - self.at]])
    }

    /// The host is at the other foreign agent from now on.
    pub fn turn(&mut self) {
        self.at = 1 - self.at;
    }

    /// Packets that the foreign agent where the host is has opened.
    pub fn opened(&self) -> Result<u64> {
        handoff::opened(self.agent_nodes()?[0])
    }

    /// Starts the mobile host's key manager; it isn't on any link.
    pub fn starts(&mut self) -> Result<()> {
        let file = "/run/keyd-mh/keyd.toml";
        let run = format!("exec keyd run --flush -c {file} >>/run/keyd-mh/log 2>&1");
        let since = self.clock.now();
        self.mobile = Some(self.net().mh.background(&["sh", "-c", &run])?);
        self.said(since, "mh", &self.nodes.mh, &[" runs"])
    }

    /// Tells it to end, so that it deregisters, and waits until nobody knows of it any more.
    pub fn leaves(&mut self) -> Result<()> {
        let mobile = self.mobile.take().context("it isn't there")?;
        let since = self.clock.now();
        let pid = mobile.pid().to_string();
        self.net().mh.run(&["busybox", "kill", "-TERM", &pid])?;
        mobile.finish()?;
        self.said(since, "ha", &self.nodes.ha, &["bound no more"])?;
        let agent = self.agents()[0];
        self.said(since, "the agent", agent, &["visiting no more"])?;
        super::radio::set(&self.net().mh, self.here().link, false)?;
        std::thread::sleep(REST);
        Ok(())
    }

    /// The host closes its tunnel.
    pub fn closes_tunnel(&self) -> Result<()> {
        let since = self.clock.now();
        self.nodes.mh.tell(&["delete", "ha"])?;
        self.said(since, "mh", &self.nodes.mh, &["IKE SA", "is down"])
    }

    /// Waits until a key manager says something with these parts.
    fn said(&self, since: i64, who: &str, keyd: &Keyd<'_>, parts: &[&str]) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = journal::since(keyd, since);
            if journal::first(&said, parts).is_some() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{who} never said {parts:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Whether since then the host has been registered and what its column has of tunnels and keys been set up.
    pub fn is_up(&self, since: i64) -> Result<bool> {
        let mh = journal::since(&self.nodes.mh, since);
        if journal::first(&mh, &["registered in"]).is_none() {
            return Ok(false);
        }
        let [agent, _] = self.agents();
        let relay = || {
            let said = journal::since(agent, since);
            journal::first(&said, &["relay CSA", " is u"]).is_some()
        };
        let child = journal::first(&mh, &[" is up: "]).is_some();
        // Its tunnel is there before a handoff, and by PKD so are the foreign agent's keys.
        Ok(
            match (self.keys, journal::first(&mh, &["begun"]).is_some()) {
                (Keys::None, _) | (Keys::Esp, false) | (Keys::Pkd, false) => true,
                (Keys::Esp, true) | (Keys::EspAnew, _) => child,
                (Keys::Pkd, true) => child && relay(),
                (Keys::Late | Keys::Dkm, begun) => relay() && (child || !begun),
            },
        )
    }

    /// Captures of where the host is: its link, its foreign agent's and the home agent's towards the network, and the
    /// other foreign agent's.
    pub fn captures(&self) -> Result<Vec<Capture>> {
        let net = self.net();
        let link = |place: Place| Capture::start(&net.mh, place.link, place.link);
        let core = |node: &Netns| Capture::start(node, "core", node.name());
        let [a, b] = self.agent_nodes()?;
        // A handoff's captures begin before it: both links are followed.
        Ok(vec![
            link(PLACES[0])?,
            link(PLACES[1])?,
            core(a)?,
            core(b)?,
            core(&net.ha)?,
        ])
    }
}

/// Half of each round trip is on the core's own interfaces, so that what captures at the other nodes say is when packets
/// come and go there.
fn delays(net: &Topology, links: Links) -> Result<()> {
    let [home, agents] = links.one_way_ms();
    let core = net.core()?;
    for (interface, delay) in [("ha", home), ("fa1", agents), ("fa2", agents)] {
        if delay > 0.0 {
            core.tc(&format!(
                "qdisc replace dev {interface} root netem delay {delay}ms limit {ON_THE_WAY}"
            ))?;
        }
    }
    report::step(format!("links: {links:?}"));
    Ok(())
}
