// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The host moves under ML-IKE: its CSA stays, and zone 1's keys go where it goes. Who holds which key is read from each
//! node's kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::mobility::{self, Nodes, FA1, FA2};
use crate::capture::Capture;
use crate::holders::Part;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::{traffic, zone_tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-moves-zone-1s-keys-with-the-host",
        proves: "a sealed TCP connection goes on through handoffs and home under one CSA; the foreign agent the host is at holds zone 1's keys, the one it left holds none, and zone 2's are at home agent and host alone",
        seconds: 150,
        run: keys_move,
    },
    Scenario {
        name: "handoff-finds-keys-that-were-there-before-the-host",
        proves: "by PKD the next foreign agent holds zone 1's keys as standby before the host comes, and opens what passes from the registration's reply on, though nobody gives it anything then",
        seconds: 150,
        run: beforehand,
    },
    Scenario {
        name: "handoff-fetches-keys-from-the-previous-foreign-agent",
        proves: "by DKM the new foreign agent has zone 1's keys from the previous one, by the host's token, though the home agent can't give it any; the previous one is revoked",
        seconds: 150,
        run: handed_on,
    },
];

pub const PSK: (&str, &str) = (
    "ike.psk",
    "8f0d6a1c5be2497799aa4f7c0f3d2b61c1a7e5d0b94d4f2a8e6c3b5a79180246\n",
);

pub fn connection(name: &str, remote: &str, identity: &str, more: &str) -> String {
    format!(
        "
[[connection]]
name = \"{name}\"
remote = \"{remote}\"
remote-identity = \"{identity}\"
auth = \"psk\"
secret-file = \"ike.psk\"
{more}"
    )
}

/// The four nodes' files, with IKE; `more` is for both foreign agents, by the number of the other one.
pub fn files(more: impl Fn(u8) -> String) -> [String; 4] {
    let foreign = |number: u8| {
        format!(
            "
[[foreign-agent]]
name = \"fa{number}\"
identity = \"fa{number}.example\"
addresses = [\"10.1.{number}.1\"]
{}",
            connection(
                &format!("fa{number}"),
                &format!("10.1.{number}.1"),
                &format!("fa{number}.example"),
                ""
            )
        )
    };
    let mh = connection(
        "mh",
        "203.0.113.7",
        "mh.example",
        "start = \"peer\"\n[connection.tunnel]\nremote = \"203.0.113.7\"\nzones = \"required\"\n",
    );
    let ha = [mobility::HA_FILE, &foreign(1), &foreign(2), &mh].concat();
    let fa = |number: u8| {
        let home = connection("ha", "203.0.113.1", "ha.example", "start = \"peer\"\n");
        [mobility::fa_file(number), more(3 - number), home].concat()
    };
    let home = connection(
        "ha",
        "203.0.113.1",
        "ha.example",
        "[connection.tunnel]\nlocal = \"203.0.113.7\"\nzones = \"required\"\n",
    );
    let mh = [mobility::MH_FILE, &home].concat();
    [ha, fa(1), fa(2), mh]
}

/// Mobile IP's network, and the four key managers, of which home agent's and mobile host's make `mml0`.
pub fn start<'a>(ctx: &'a Ctx, files: &[String; 4]) -> Result<Nodes<'a>> {
    mobility::network(ctx)?;
    let secrets = [&mobility::SECRETS[..], &[PSK]].concat();
    let [ha, fa1, fa2, mh] = files;
    let [ha, mh] = [ha, mh].map(|file| format!("[device]\n{file}"));
    Nodes::start(ctx, [&ha, fa1, fa2, &mh], &secrets)
}

/// What a node's kernel holds: by SPI, which zones it can open or seal.
pub type Held = BTreeMap<u64, Vec<bool>>;

pub fn held(node: &Netns) -> Result<Held> {
    let list: serde_json::Value =
        serde_json::from_str(&zone_tunnel::mmlctl(node, &["--json", "csa", "list"])?)?;
    let one = |csa: &serde_json::Value| {
        let zones = csa["zones"].as_array()?;
        let keys = zones.iter().map(|zone| zone != "null");
        Some((csa["spi"].as_u64()?, keys.collect()))
    };
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(one)
        .collect())
}

/// Waits until the mobile host and its home agent have one CSA, and gives its two SPIs.
pub fn csa(ctx: &Ctx) -> Result<Vec<u64>> {
    let end = Instant::now() + ctx.seconds(30.0);
    loop {
        let (ha, mh) = (held(&ctx.net.ha)?, held(&ctx.net.mh)?);
        let whole =
            |held: &Held| held.len() == 2 && held.values().all(|keys| keys == &[true, true]);
        if whole(&ha) && whole(&mh) && ha.keys().eq(mh.keys()) {
            return Ok(ha.into_keys().collect());
        }
        ensure!(
            Instant::now() < end,
            "no CSA: the home agent has {ha:?}, the mobile host {mh:?}"
        );
        std::thread::sleep(ctx.seconds(0.1));
    }
}

/// Waits until exactly these foreign agents hold zone 1 of the CSA and nothing else, the others nothing; home agent and
/// mobile host both zones.
pub fn holders(ctx: &Ctx, spis: &[u64], wanted: [bool; 2]) -> Result<()> {
    let fa2 = ctx.net.fa2.as_ref().context("no second foreign agent")?;
    keys(ctx, spis, &[(&ctx.net.fa1, wanted[0]), (fa2, wanted[1])])
}

/// The same for any foreign agents. So it has to be in the end, too, unless this is said again.
pub fn keys(ctx: &Ctx, spis: &[u64], agents: &[(&Netns, bool)]) -> Result<()> {
    let net = &ctx.net;
    for end in [&net.ha, &net.mh] {
        end.keys.are_of(Part::End, spis);
    }
    for (agent, holds) in agents {
        match holds {
            true => agent.keys.are_of(Part::Relay, spis),
            false => agent.keys.are(Part::Nothing),
        }
    }
    let all = |keys: &[bool]| {
        spis.iter()
            .map(|spi| (*spi, keys.to_vec()))
            .collect::<Held>()
    };
    let agent = |holds| {
        if holds {
            all(&[true, false])
        } else {
            Held::new()
        }
    };
    let ends = [&net.ha, &net.mh].map(|node| (node, all(&[true, true])));
    let foreign = agents.iter().map(|(node, holds)| (*node, agent(*holds)));
    let expected: Vec<_> = ends.into_iter().chain(foreign).collect();
    // What was replaced is let go after a while.
    let end = Instant::now() + ctx.seconds(40.0);
    for (node, wanted) in &expected {
        loop {
            let has = held(node)?;
            if has == *wanted {
                break;
            }
            ensure!(
                Instant::now() < end,
                "{} holds {has:?}, not {wanted:?}",
                node.name()
            );
            std::thread::sleep(ctx.seconds(0.1));
        }
    }
    // All at one moment, too.
    for (node, wanted) in &expected {
        ensure!(held(node)? == *wanted, "{} changed", node.name());
    }
    Ok(())
}

/// The states of a foreign agent's CSAs.
pub fn states(node: &Netns) -> Result<BTreeSet<String>> {
    let list: serde_json::Value =
        serde_json::from_str(&zone_tunnel::mmlctl(node, &["--json", "csa", "list"])?)?;
    let states = list.as_array().into_iter().flatten();
    Ok(states
        .filter_map(|csa| csa["state"].as_str().map(str::to_owned))
        .collect())
}

/// Packets a foreign agent's relay has opened.
pub fn opened(node: &Netns) -> Result<u64> {
    Ok(Stats::read(node)?.total("relayed-packets"))
}

/// Captures of all links outside the tunnel, by either foreign agent.
pub fn outside_both(ctx: &Ctx) -> Result<Vec<Capture>> {
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    let mut captures = outside(ctx)?;
    captures.push(Capture::start(net.core()?, "fa2", "core-fa2")?);
    captures.push(Capture::start(fa2, "wl2", "fa2-mh")?);
    Ok(captures)
}

/// docs/wire.md 3.1d, 3.1g.
fn keys_move(ctx: &mut Ctx) -> Result<()> {
    let nodes = start(ctx, &files(|_| String::new()))?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let secret = traffic::random(16);
        let mut captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [true, false])?;
        traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        ensure!(opened(&net.fa1)? > 0, "fa1 opens nothing");

        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::exchange(&near, &far).context("through the handoff")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        holders(ctx, &spis, [false, true])?;
        mobility::exchange(&near, &far).context("after the handoff")?;
        traffic::ping_arrives(&net.mh, HOME, CN, &secret)?;
        ensure!(opened(fa2)? > 0, "fa2 opens nothing");

        mobility::moves(&net.mh, "wl2", "wl1")?;
        mobility::exchange(&near, &far).context("on the way back")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &spis, [true, false])?;

        // At home nobody is between, and it goes on under the same CSA.
        captures.push(Capture::start(&net.ha, "home", "ha-home")?);
        mobility::moves(&net.mh, "wl1", "home")?;
        net.mh.ip("route add 203.0.113.1/32 dev home")?;
        mobility::arrives(ctx, &nodes, None)?;
        mobility::exchange(&near, &far).context("at home")?;
        traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        holders(ctx, &spis, [false, false])?;
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    go().with_context(|| nodes.logs())
}

/// A foreign agent's neighbour, in its file; it takes CSAs of hosts that aren't there.
pub fn neighbour(other: u8) -> String {
    format!(
        "standby = true

[[neighbour]]
identity = \"fa{other}.example\"
addresses = [\"10.1.{other}.1\"]
"
    )
}

/// docs/wire.md 3.1d, 3.1e.
fn beforehand(ctx: &mut Ctx) -> Result<()> {
    let nodes = start(ctx, &files(neighbour))?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [true, true])?;
        let only = |state: &str| BTreeSet::from([state.to_owned()]);
        let (first, second) = (states(&net.fa1)?, states(fa2)?);
        ensure!(
            first == only("active") && second == only("standby"),
            "fa1's CSAs are {first:?}, fa2's {second:?}"
        );
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;

        // From now on the home agent's key manager can't speak with the second foreign agent's.
        net.core()?.nft(
            "table ip apart {
                chain pass { type filter hook forward priority 0; ip daddr 10.1.2.1 udp dport { 500, 4500 } drop; }
            }",
        )?;
        let capture = Capture::start(fa2, "wl2", "fa2-mh")?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::exchange(&near, &far).context("through the handoff")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        let state = states(fa2)?;
        ensure!(state == only("active"), "fa2's CSAs are {state:?}");
        let (opened, sealed) = (opened(fa2)?, capture.stop()?.esp().count() as u64);
        ensure!(
            opened == sealed,
            "fa2 opened {opened} of {sealed} sealed packets on its link"
        );
        holders(ctx, &spis, [true, true])
    };
    go().with_context(|| nodes.logs())
}

/// Foreign agents that are neighbours and speak with each other; the home agent gives keys beforehand.
pub fn pkd_files() -> [String; 4] {
    files(|other| {
        let start = if other == 1 { "peer" } else { "now" };
        let between = connection(
            "next",
            &format!("10.1.{other}.1"),
            &format!("fa{other}.example"),
            &format!("start = \"{start}\"\n"),
        );
        neighbour(other) + &between
    })
}

/// The same, but the home agent gives nothing beforehand.
pub fn dkm_files() -> [String; 4] {
    let mut files = pkd_files();
    files[0] = files[0].replace("[mobile-ip]\n", "[mobile-ip]\npredistribute = false\n");
    files
}

/// SNOOP for what the foreign agents relay; a flow is remembered for longer than a handoff takes on a machine that has other
/// things to do.
const SNOOP: &str = "
[snoop]
garbage-ms = 60000
initial-ms = 20
";

/// The four files, with SNOOP at the foreign agents.
pub fn with_snoop([ha, fa1, fa2, mh]: [String; 4]) -> [String; 4] {
    [ha, fa1 + SNOOP, fa2 + SNOOP, mh]
}

/// docs/wire.md 3.1f, 3.2i, 3.2j.
fn handed_on(ctx: &mut Ctx) -> Result<()> {
    let mut files = dkm_files();
    // The home agent knows the second foreign agent and has no way to speak with it.
    let second = connection("fa2", "10.1.2.1", "fa2.example", "");
    files[0] = files[0].replace(&second, "");
    let nodes = start(ctx, &files)?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [true, false])?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::exchange(&near, &far).context("through the handoff")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        holders(ctx, &spis, [false, true])?;
        mobility::exchange(&near, &far).context("after the handoff")?;
        ensure!(opened(fa2)? > 0, "fa2 opens nothing");
        // Neither traffic nor time brings back what was revoked.
        std::thread::sleep(ctx.seconds(3.0));
        mobility::exchange(&near, &far).context("a while after the handoff")?;
        holders(ctx, &spis, [false, true]).context("after later traffic")
    };
    go().with_context(|| nodes.logs())
}
