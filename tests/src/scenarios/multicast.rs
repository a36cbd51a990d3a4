// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD: one datagram, over a router that forwards multicast, brings zone 1's keys to all neighbours.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::handoff::{self, connection, csa, held, neighbour, opened, states};
use super::mobility::{self, third, Nodes, FA1, FA2, FA3, HOME_AGENT};
use crate::capture::{Capture, Captured};
use crate::headers;
use crate::keyd::Keyd;
use crate::multicast::MulticastRouter;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[Scenario {
    name: "pkd-by-one-message-to-all-neighbours",
    proves: "both neighbours of the host's foreign agent hold zone 1's keys as standby from one sealed datagram to a multicast address, though nothing is given to either by itself; forged and replayed ones change nothing; and the one the host moves to opens what passes from the registration's reply on",
    seconds: 180,
    run: by_one_message,
}];

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 4, 34);
const PORT: u16 = 49_434;
/// CSA_DISTRIBUTE, and where an IKE message has its exchange.
const CSA_DISTRIBUTE: (u8, usize) = (242, 18);

/// The files of the four nodes and of the third foreign agent.
fn files() -> ([String; 4], String) {
    let by = "[mobile-ip]\npredistribute-by = \"multicast\"\npredistribute-interface = \"core\"\n";
    let multicast = |file: String| file.replace("[mobile-ip]\n", by);
    let [ha, fa1, fa2, mh] = handoff::files(neighbour);
    let to_third = connection("fa3", "10.1.3.1", "fa3.example", "");
    let ha = ha
        + "\n[[foreign-agent]]\nname = \"fa3\"\nidentity = \"fa3.example\"\naddresses = [\"10.1.3.1\"]\n"
        + &to_third;
    let fa1 = fa1 + "\n[[neighbour]]\nidentity = \"fa3.example\"\naddresses = [\"10.1.3.1\"]\n";
    let home = connection("ha", "203.0.113.1", "ha.example", "start = \"peer\"\n");
    let fa3 = mobility::fa_file(3) + "standby = true\n" + &home;
    let four = [multicast(ha), multicast(fa1), multicast(fa2), mh];
    (four, multicast(fa3))
}

fn groups(node: &Keyd<'_>) -> Result<Vec<Value>> {
    let status: Value = serde_json::from_str(&node.tell(&["status"])?)?;
    Ok(status["groups"].as_array().cloned().unwrap_or_default())
}

/// The home agent's group of the neighbours of the first foreign agent.
fn own_group(nodes: &Nodes<'_>) -> Result<Value> {
    let mut groups = groups(&nodes.ha)?.into_iter();
    groups
        .find(|one| one["neighbours_of"] == FA1.to_string())
        .context("no group of the neighbours of fa1")
}

/// The payloads of UDP datagrams to that address and port.
fn datagrams(captured: &Captured, to: Ipv4Addr, port: u16) -> Vec<Vec<u8>> {
    let to_it = captured.headers().filter(|ip| {
        let whither = ip.payload.get(2..4) == Some(&port.to_be_bytes()[..]);
        (ip.destination, ip.protocol) == (to, headers::UDP) && whither
    });
    to_it
        .filter_map(|ip| Some(ip.payload.get(8..)?.to_vec()))
        .collect()
}

/// Waits until a node holds zone 1 of exactly these, as standby.
fn waits(ctx: &Ctx, node: &Netns, spis: &[u64]) -> Result<()> {
    let end = Instant::now() + ctx.seconds(20.0);
    loop {
        let has = held(node)?;
        let zone_1_alone = has.values().all(|zones| zones == &[true, false]);
        let standby = states(node)? == BTreeSet::from(["standby".to_owned()]);
        if has.keys().eq(spis) && zone_1_alone && standby {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{} holds {has:?}, not {spis:x?} as standby",
            node.name()
        );
        std::thread::sleep(ctx.seconds(0.05));
    }
}

/// docs/wire.md 3.3a, 3.3c, 3.3f, 3.3g, 3.3h, 3.3l.
fn by_one_message(ctx: &mut Ctx) -> Result<()> {
    third(&mut ctx.net)?;
    let ctx = &*ctx;
    let core = ctx.net.core()?;
    let third = ctx.net.fa3.as_ref().context("no third foreign agent")?;
    let (files, of_third) = files();
    let nodes = handoff::start(ctx, &files)?;
    let secrets = [&mobility::SECRETS[..], &[handoff::PSK]].concat();
    let fa3 = Keyd::with_files(third, &of_third, &secrets)?;
    let go = || -> Result<()> {
        fa3.answers(ctx.seconds(20.0))?;
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let out = ["ha", "fa1", "fa2", "fa3"];
        let _router = MulticastRouter::start(core, &out, HOME_AGENT, GROUP)?;
        let both = serde_json::json!([FA2.to_string(), FA3.to_string()]);
        let end = Instant::now() + ctx.seconds(30.0);
        while own_group(&nodes).map_or(true, |group| group["members"] != both) {
            ensure!(
                Instant::now() < end,
                "the group of fa1's neighbours lacks a member"
            );
            std::thread::sleep(ctx.seconds(0.1));
        }
        let captures =
            ["ha", "fa2", "fa3"].map(|link| Capture::start(core, link, &format!("core-{link}")));
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        let spis = csa(ctx)?;
        waits(ctx, fa2, &spis)?;
        waits(ctx, third, &spis)?;
        // And all that is sent in case the first is lost, and what would be given by itself to who doesn't report.
        std::thread::sleep(ctx.seconds(3.0));
        let [from_ha, to_fa2, to_fa3] = captures.map(|capture| capture?.stop());
        let (from_ha, to_fa2, to_fa3) = (from_ha?, to_fa2?, to_fa3?);
        let sent = datagrams(&from_ha, GROUP, PORT);
        let one = sent.first().context("no datagram to the group")?.clone();
        ensure!(
            sent.len() == 3 && sent.iter().all(|again| *again == one),
            "{} datagrams from the home agent, not one three times",
            sent.len()
        );
        for (captured, member) in [(&to_fa2, FA2), (&to_fa3, FA3)] {
            let name = &captured.name;
            let came = datagrams(captured, GROUP, PORT).len();
            ensure!(came == 3, "{came} datagrams on {name}");
            let by_itself = datagrams(captured, member, 500)
                .iter()
                .filter(|ike| ike.get(CSA_DISTRIBUTE.1) == Some(&CSA_DISTRIBUTE.0))
                .count();
            ensure!(by_itself == 0, "{by_itself} CSA_DISTRIBUTE on {name}");
        }
        // What a group of payloads begins with would show.
        for spi in &spis {
            let spi = u32::try_from(*spi)?.to_be_bytes();
            ensure!(
                !headers::find(&one, &spi),
                "the CSA's SPI is in clear in it"
            );
        }
        ensure!(
            own_group(&nodes)?["datagrams"] == 1,
            "{}",
            own_group(&nodes)?
        );
        let socket = ["mmlctl", "status", "--socket", "/run/keyd-ha/control"];
        let status = net.ha.run(&socket)?;
        let line = format!("neighbours of {FA1}: {FA2}, {FA3}; sent: 1");
        ensure!(
            status.contains(&line),
            "`mmlctl status` doesn't say {line}:\n{status}"
        );

        // Anybody may send them what was sent, and what names their group.
        let before = (held(fa2)?, held(third)?, states(fa2)?);
        let socket = traffic::udp(&net.cn, CN, 4000)?;
        let forged = |at: usize| {
            let mut octets = one.clone();
            octets[at] ^= 1;
            octets
        };
        for member in [FA2, FA3] {
            for octets in [one.clone(), forged(15), forged(20), forged(one.len() - 1)] {
                socket.send_to(&octets, SocketAddrV4::new(member, PORT))?;
            }
        }
        let end = Instant::now() + ctx.seconds(10.0);
        while !fa3.log().contains("is forged") || !nodes.fa2.log().contains("is forged") {
            ensure!(Instant::now() < end, "nobody says that something is forged");
            std::thread::sleep(ctx.seconds(0.1));
        }
        let after = (held(fa2)?, held(third)?, states(fa2)?);
        ensure!(before == after, "{before:?} was, {after:?} is");

        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        mobility::exchange(&near, &far)?;
        let capture = Capture::start(fa2, "wl2", "fa2-mh")?;
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::exchange(&near, &far).context("through the handoff")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        let (opened, sealed) = (opened(fa2)?, capture.stop()?.esp().count() as u64);
        ensure!(
            opened == sealed,
            "fa2 opened {opened} of {sealed} sealed packets on its link"
        );
        // It is no neighbour of the one the host is at.
        let agents = [(&net.fa1, true), (fa2, true), (third, false)];
        handoff::keys(ctx, &spis, &agents)
    };
    go().with_context(|| [nodes.logs(), fa3.log()].join("\n"))
}
