// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager at one end of the tunnel, strongSwan's charon at the other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::guard::{nothing_shows, outside, try_everything};
use super::keyd::Keyd;
use super::tunnel::everything;
use crate::captured::Captured;
use crate::certificates::Owner;
use crate::charon::{Charon, Release};
use crate::netns::Netns;
use crate::scenario::Ctx;
use crate::stats::Stats;
use crate::topology::{HA, MH};
use crate::{traffic, zone_tunnel};

/// Which end of the tunnel keyd is; charon is the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeydAt {
    Home,
    Mobile,
}

impl KeydAt {
    /// keyd's node, and charon's.
    pub fn nodes<'a>(self, ctx: &'a Ctx<'_>) -> (&'a Netns, &'a Netns) {
        match self {
            KeydAt::Home => (&ctx.net.ha, &ctx.net.mh),
            KeydAt::Mobile => (&ctx.net.mh, &ctx.net.ha),
        }
    }

    /// keyd's address, and charon's.
    pub fn addresses(self) -> (Ipv4Addr, Ipv4Addr) {
        match self {
            KeydAt::Home => (HA, MH),
            KeydAt::Mobile => (MH, HA),
        }
    }
}

/// How both prove who they are.
pub(super) enum Proof<'a> {
    /// By a secret made for it.
    Secret,
    /// By certificates.
    Certificates {
        keyd: &'a Owner,
        swan: &'a Owner,
        /// The root's certificate at keyd, and at charon.
        roots: [&'a str; 2],
    },
}

/// How both sides are set up, where it isn't as everywhere.
pub(super) struct Setting<'a> {
    pub at: KeydAt,
    /// keyd's suites, as `keyd.toml` has them.
    pub ike: String,
    /// More lines of keyd's node.
    pub node: &'static str,
    /// More lines of its connection.
    pub connection: &'static str,
    /// More lines of its tunnel.
    pub tunnel: &'static str,
    /// charon's proposals.
    pub proposals: String,
    /// More lines of charon's connection.
    pub peer: &'static str,
    /// More lines of `strongswan.conf`.
    pub charon: &'static str,
    /// Which charon.
    pub release: Release,
    /// Who charon is.
    pub swan: &'static str,
    pub proof: Proof<'a>,
    /// Whether the mobile host is behind a NAT, so that the home side has to wait for it wherever it is.
    pub behind_nat: bool,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            at: KeydAt::Mobile,
            ike: "\"aes256-gcm16/sha384/x25519\"".to_owned(),
            node: "",
            connection: "",
            tunnel: "",
            proposals: "aes256gcm16-prfsha384-x25519".to_owned(),
            peer: "",
            charon: "",
            release: Release::Own,
            swan: "swan.example",
            proof: Proof::Secret,
            behind_nat: false,
        }
    }
}

/// Both, running.
pub(super) struct Pair<'a> {
    pub keyd: Keyd<'a>,
    pub charon: Charon<'a>,
    at: KeydAt,
    swan: &'static str,
    behind_nat: bool,
    /// How charon proves who it is and what it takes for it, as `swanctl.conf` has it; and its secret, if that is it.
    proof: [&'static str; 2],
    secret: Option<String>,
}

impl<'a> Pair<'a> {
    pub fn new(ctx: &'a Ctx<'_>, setting: &Setting<'_>) -> Result<Self> {
        crate::topology::linear(&ctx.net)?;
        let (node, other) = setting.at.nodes(ctx);
        // The route into mml0 may stand: XFRM takes the packets before they come there.
        node.ip("link add mml0 type mml\nlink set mml0 up")?;
        let (role, tunnel, route) = match setting.at {
            KeydAt::Home => (
                "gateway",
                "remote = \"203.0.113.7\"",
                "route replace 203.0.113.7/32 dev mml0",
            ),
            KeydAt::Mobile => (
                "host",
                "local = \"203.0.113.7\"",
                "route replace default dev mml0 src 203.0.113.7",
            ),
        };
        node.ip(route)?;
        let (own, peer) = setting.at.addresses();
        let remote = if setting.behind_nat && setting.at == KeydAt::Home {
            String::new()
        } else {
            format!("remote = \"{peer}\"\n")
        };
        let secret = format!("0x{}", hex(&traffic::random(32)));
        let line = format!("{secret}\n");
        let chain;
        let (auth, files) = match &setting.proof {
            Proof::Secret => (
                "auth = \"psk\"\nsecret-file = \"swan.psk\"",
                vec![("swan.psk", line.as_str())],
            ),
            Proof::Certificates { keyd, roots, .. } => {
                chain = keyd.chain();
                (
                    "auth = \"certificate\"
key-file = \"own.key\"
certificate-file = \"own.pem\"
authority-file = \"root.pem\"",
                    vec![
                        ("own.key", keyd.key.as_str()),
                        ("own.pem", chain.as_str()),
                        ("root.pem", roots[0]),
                    ],
                )
            }
        };
        let configuration = format!(
            "[node]
role = \"{role}\"
identity = \"keyd.example\"
addresses = [\"{own}\"]
{}

[[connection]]
name = \"swan\"
{remote}remote-identity = \"swan.example\"
{auth}
start = \"peer\"
ike = [{}]
{}

[connection.tunnel]
{tunnel}
{}
",
            setting.node, setting.ike, setting.connection, setting.tunnel
        );
        for node in [node, other] {
            node.keys.are_xfrms(true);
        }
        let charon = Charon::new(ctx, other, setting.release, setting.charon)?;
        let keyd = Keyd::with_files(node, &configuration, &files)?;
        let (proof, secret) = match &setting.proof {
            Proof::Secret => (["auth = psk", "auth = psk"], Some(secret)),
            Proof::Certificates { swan, roots, .. } => {
                charon.file("private/own.pem", &swan.key)?;
                charon.file("x509/own.pem", &swan.certificate)?;
                charon.file("x509ca/root.pem", roots[1])?;
                for (at, between) in swan.between.iter().enumerate() {
                    charon.file(&format!("x509ca/between{at}.pem"), between)?;
                }
                (
                    [
                        "auth = pubkey\ncerts = own.pem",
                        "auth = pubkey\ncacerts = root.pem",
                    ],
                    None,
                )
            }
        };
        let pair = Self {
            keyd,
            charon,
            at: setting.at,
            swan: setting.swan,
            behind_nat: setting.behind_nat,
            proof,
            secret,
        };
        pair.load(&setting.proposals, setting.peer)?;
        Ok(pair)
    }

    /// Gives charon its connection.
    pub fn load(&self, proposals: &str, more: &str) -> Result<()> {
        let (peer, own) = self.at.addresses();
        let (local, remote) = match self.at {
            KeydAt::Home => ("203.0.113.7/32", "0.0.0.0/0"),
            KeydAt::Mobile => ("0.0.0.0/0", "203.0.113.7/32"),
        };
        let peer = if self.behind_nat && self.at == KeydAt::Mobile {
            "%any".to_owned()
        } else {
            peer.to_string()
        };
        let [local_proof, remote_proof] = self.proof;
        let swan = self.swan;
        let secrets = self.secret.as_ref().map(|secret| {
            format!(
                "secrets {{
    ike-keyd {{
        id-swan = {swan}
        id-keyd = keyd.example
        secret = {secret}
    }}
}}
"
            )
        });
        self.charon.load(&format!(
            "connections {{
    keyd {{
        version = 2
        local_addrs = {own}
        remote_addrs = {peer}
        proposals = {proposals}
        {more}
        local {{
            {local_proof}
            id = {swan}
        }}
        remote {{
            {remote_proof}
            id = keyd.example
        }}
        children {{
            net {{
                local_ts = {local}
                remote_ts = {remote}
                esp_proposals = aes256gcm16-x25519-esn
                replay_window = 1024
            }}
        }}
    }}
}}
{}",
            secrets.unwrap_or_default()
        ))
    }

    /// keyd begins, and its child comes up.
    pub fn keyd_begins(&self) -> Result<()> {
        let begun = self.keyd.tell(&["initiate", "swan", "--wait", "20"]);
        begun.map(|_| ()).with_context(|| self.both_said())
    }

    /// keyd begins, in vain.
    pub fn keyd_begins_in_vain(&self) -> Result<()> {
        let begun = self.keyd.tell(&["initiate", "swan", "--wait", "10"]);
        ensure!(begun.is_err(), "it came up:\n{}", self.both_said());
        Ok(())
    }

    /// charon begins, and its child comes up.
    pub fn charon_begins(&self) -> Result<()> {
        let begun = self
            .charon
            .swanctl(&["--initiate", "--child", "net", "--timeout", "20"]);
        begun.map(|_| ()).with_context(|| self.both_said())
    }

    /// charon begins, in vain.
    pub fn charon_begins_in_vain(&self) -> Result<()> {
        let begun = self
            .charon
            .attempt(&["--initiate", "--child", "net", "--timeout", "10"])?;
        ensure!(!begun.success, "it came up:\n{}", self.both_said());
        Ok(())
    }

    /// Waits until something holds.
    pub fn until(
        &self,
        ctx: &Ctx,
        seconds: f64,
        what: &str,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + ctx.seconds(seconds);
        while !holds()? {
            ensure!(
                Instant::now() < end,
                "not within {seconds} s: {what}\n{}",
                self.both_said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until charon has no SA any more.
    pub fn gone(&self, ctx: &Ctx) -> Result<()> {
        self.until(ctx, 20.0, "charon has no SA", || {
            Ok(!self.charon.swanctl(&["--list-sas"])?.contains("keyd:"))
        })
    }

    /// Waits until keyd has so many IKE SAs of its connection, 0 or 1, and so many children.
    pub fn keyd_has(&self, ctx: &Ctx, seconds: f64, ike: bool, children: usize) -> Result<()> {
        let what = format!("keyd has an IKE SA: {ike}, and {children} children");
        self.until(ctx, seconds, &what, || {
            let connection = &self.status()?["connections"][0];
            let up = connection["state"] == "up";
            Ok(up == ike && connection["children"] == children)
        })
    }

    pub fn both_said(&self) -> String {
        let (keyd, charon) = (self.keyd.log(), self.charon.log());
        format!("keyd's log at {keyd}\ncharon's log:\n{charon}")
    }

    /// The same, and what XFRM has dropped at either node, with the reasons.
    pub fn all_said(&self, ctx: &Ctx) -> String {
        let (node, other) = self.at.nodes(ctx);
        let mut all = String::new();
        for node in [node, other] {
            let dropped = xfrm_drops(node).unwrap_or_default();
            all += &format!("XFRM at {} dropped {dropped:?}\n", node.name());
        }
        all + &self.both_said()
    }

    /// Packets that charon's kernel dropped since charon took their SA away between XFRM's choosing it and sealing. keyd
    /// leaves its own for a while, so that its kernel drops none.
    pub fn lost_by_charon(&self, ctx: &Ctx) -> Result<usize> {
        let (node, other) = self.at.nodes(ctx);
        let lost = |node| Ok(xfrm_drops(node)?.remove("XfrmOutStateInvalid").unwrap_or(0));
        let by_keyd: Result<usize> = lost(node);
        ensure!(by_keyd? == 0, "keyd took an SA from under a packet");
        lost(other)
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.keyd.tell(&["status"])?)?)
    }

    /// keyd's children.
    pub fn children(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.keyd.tell(&["sa", "list"])?)?)
    }

    /// Everything crosses in XFRM's ESP, and no link shows any of it.
    pub fn carries(&self, ctx: &Ctx) -> Result<Vec<Captured>> {
        let (node, other) = self.at.nodes(ctx);
        for node in [node, other] {
            let states = node.run(&["ip", "xfrm", "state", "count"])?;
            ensure!(!states.contains("count 0"), "{}: {states}", node.name());
        }
        let marker = traffic::random(16);
        let captures = outside(ctx)?;
        everything(ctx, &marker).with_context(|| self.both_said())?;
        let captured = nothing_shows(captures, &marker)?;
        let sealed = Stats::read(node)?.total("sealed-packets");
        ensure!(sealed == 0, "the module sealed {sealed} packets");
        Ok(captured)
    }

    /// Keeps what charon has no SA for from leaving its node in clear, which charon doesn't by itself.
    pub fn block_at_charon(&self, ctx: &Ctx) -> Result<()> {
        // Other prefixes than charon's own policies have: XFRM has one policy for a selector.
        let (_, node) = self.at.nodes(ctx);
        let selector = match self.at {
            KeydAt::Home => ["src", "203.0.113.0/24", "dst", "0.0.0.0/0"],
            KeydAt::Mobile => ["src", "0.0.0.0/0", "dst", "203.0.113.0/24"],
        };
        let add = ["ip", "xfrm", "policy", "add"];
        let block = ["dir", "out", "action", "block", "priority", "4000000"];
        node.run(&[&add[..], &selector, &block].concat())?;
        Ok(())
    }

    /// Nothing crosses, and no link shows any of what was tried. [`block_at_charon`](Self::block_at_charon) came before.
    pub fn carries_nothing(&self, ctx: &Ctx) -> Result<()> {
        let marker = traffic::random(16);
        let captures = outside(ctx)?;
        try_everything(ctx, &marker).with_context(|| self.both_said())?;
        nothing_shows(captures, &marker).map(|_| ())
    }

    /// Ends both and takes away what they leave in the kernel, so that another pair may come.
    pub fn end(self, ctx: &Ctx) -> Result<()> {
        let (node, other) = self.at.nodes(ctx);
        self.keyd.end();
        drop(self.charon);
        for node in [node, other] {
            node.run(&["ip", "xfrm", "state", "flush"])?;
            node.run(&["ip", "xfrm", "policy", "flush"])?;
        }
        zone_tunnel::mmlctl(node, &["csa", "flush"])?;
        zone_tunnel::mmlctl(node, &["policy", "flush", "--yes"])?;
        let clear = match self.at {
            KeydAt::Home => "route replace 203.0.113.7/32 via 198.51.100.2",
            KeydAt::Mobile => "route replace default via 10.1.1.1 src 203.0.113.7",
        };
        node.ip(&format!("link del mml0\n{clear}"))
    }
}

/// What XFRM has dropped at a node, by its reasons.
fn xfrm_drops(node: &Netns) -> Result<BTreeMap<String, usize>> {
    let counted = node.run(&["cat", "/proc/net/xfrm_stat"])?;
    let mut drops = BTreeMap::new();
    for line in counted.lines() {
        let (reason, count) = line.split_once(char::is_whitespace).context("a count")?;
        let count = count.trim().parse()?;
        if count != 0 {
            drops.insert(reason.to_owned(), count);
        }
    }
    Ok(drops)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
