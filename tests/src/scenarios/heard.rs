// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who hears whom: two foreign agents at once, and the home network's other hosts of one that is away.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::guard::nothing_shows;
use super::handoff::{csa, dkm_files, holders, outside_both, start};
use super::mobility::{self, arrives, exchange, fa_file, Nodes, FA1, FA2, HA_FILE, MH_FILE};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "both-foreign-agents-heard-at-once-are-no-reason-to-move",
        proves: "a host whose two radios hear two foreign agents at once stays registered at the first, and so do zone 1's keys; when the first link is gone it is at the second at once, under the same CSA; nothing was in clear",
        seconds: 120,
        run: both_heard,
    },
    Scenario {
        name: "hosts-of-the-home-network-reach-one-that-is-away",
        proves: "a host of the home network reaches the mobile host at home, away and home again: its ARP cache follows by gratuitous ARP, and a request for the absent one's address is answered by the home agent (RFC 5944 section 4.6)",
        seconds: 120,
        run: home_network,
    },
];

/// Longer than several advertisements, one a second.
const HEARD: f64 = 4.0;

/// docs/wire.md 3.2k.
fn both_heard(ctx: &mut Ctx) -> Result<()> {
    let nodes = start(ctx, &dkm_files())?;
    let ctx = &*ctx;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let secret = traffic::random(16);
        let captures = outside_both(ctx)?;
        net.mh.ip("link set wl1 up")?;
        arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        holders(ctx, &spis, [true, false])?;
        nodes.fa1.up("next", ctx.seconds(20.0))?;
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        exchange(&near, &far)?;

        net.mh.ip("link set wl2 up")?;
        let end = Instant::now() + ctx.seconds(HEARD);
        while Instant::now() < end {
            let at = mobility::place(&nodes.mh)?;
            ensure!(
                at == Some(FA1.to_string().into()),
                "it hears both, and went to {at:?}"
            );
            exchange(&near, &far).context("while both are heard")?;
            std::thread::sleep(ctx.seconds(0.2));
        }
        holders(ctx, &spis, [true, false])?;

        net.mh.ip("link set wl1 down")?;
        exchange(&near, &far).context("on the way to the second")?;
        arrives(ctx, &nodes, Some(FA2))?;
        holders(ctx, &spis, [false, true])?;
        traffic::ping_arrives(&net.cn, CN, HOME, &secret)?;
        nothing_shows(captures, &secret)?;
        Ok(())
    };
    go().with_context(|| nodes.logs())
}

/// The home network as a bridge at the home agent, with another host on it beside the mobile one.
fn another_at_home(net: &crate::topology::Topology) -> Result<Netns> {
    let lan = Netns::add("lan")?;
    net.ha.ip("link set home down
        address del 203.0.113.1/24 dev home
        link set home name home-mh
        link add home type bridge
        link set home-mh master home
        address add 203.0.113.1/24 dev home
        link add home-lan type veth peer name home netns lan
        link set home-lan master home
        link set home-mh up
        link set home-lan up
        link set home up")?;
    lan.ip("address add 203.0.113.9/24 dev home
        link set home up")?;
    Ok(lan)
}

/// A link's own address.
fn link_address(node: &Netns, link: &str) -> Result<String> {
    let list = node.run(&["ip", "-o", "link", "show", "dev", link])?;
    let mut words = list
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    let address = words.nth(1).with_context(|| list.clone())?;
    Ok(address.to_owned())
}

/// Waits until that is what the host of the home network has for the mobile host's address.
fn resolves(ctx: &Ctx, lan: &Netns, wanted: &str) -> Result<()> {
    let end = Instant::now() + ctx.seconds(10.0);
    loop {
        let has = lan.run(&["ip", "neighbour", "show", &HOME.to_string()])?;
        if has.contains(wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not {wanted}, but {has:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn home_network(ctx: &mut Ctx) -> Result<()> {
    mobility::network(ctx)?;
    let lan = another_at_home(&ctx.net)?;
    let files = [HA_FILE, &fa_file(1), &fa_file(2), MH_FILE];
    let nodes = Nodes::start(ctx, files, &mobility::SECRETS)?;
    let ctx = &*ctx;
    let other = "203.0.113.9".parse()?;
    let go = || -> Result<()> {
        let net = &ctx.net;
        let own = link_address(&net.mh, "home")?;
        let agent = link_address(&net.ha, "home")?;
        let comes_home = |from: Option<&str>| -> Result<()> {
            match from {
                Some(from) => mobility::moves(&net.mh, from, "home")?,
                None => net.mh.ip("link set home up")?,
            }
            net.mh
                .ip("route replace 203.0.113.0/24 dev home src 203.0.113.7")?;
            arrives(ctx, &nodes, None)
        };
        comes_home(None)?;
        traffic::ping_arrives(&lan, other, HOME, b"at home")?;
        resolves(ctx, &lan, &own)?;

        // It leaves: what the other one has of it is changed, without having to ask.
        mobility::moves(&net.mh, "home", "wl1")?;
        arrives(ctx, &nodes, Some(FA1))?;
        resolves(ctx, &lan, &agent).context("after it left")?;
        traffic::ping_arrives(&lan, other, HOME, b"away")?;
        // And if it asks, the home agent answers.
        lan.ip("neighbour flush dev home")?;
        traffic::ping_arrives(&lan, other, HOME, b"away, asked for")?;
        resolves(ctx, &lan, &agent).context("asked for")?;

        comes_home(Some("wl1"))?;
        resolves(ctx, &lan, &own).context("home again")?;
        traffic::ping_arrives(&lan, other, HOME, b"home again")?;
        lan.ip("neighbour flush dev home")?;
        traffic::ping_arrives(&lan, other, HOME, b"home again, asked for")?;
        resolves(ctx, &lan, &own).context("home again, asked for")
    };
    go().with_context(|| nodes.logs())
}
