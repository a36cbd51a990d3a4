// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the key manager makes of a node's network: the device, what leads into it, and inner addresses.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::keyd::up;
use super::tunnel::everything;
use crate::certificates::{Authority, Kind};
use crate::keyd::{Keyd, HA_ALONE, MH_FILE};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::six::{self, CN6, HA6, MH6};
use crate::topology::{CN, HA, MH};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "keyd-makes-the-device-and-what-leads-into-it",
        proves: "with a module and two files, and nothing else set up, everything goes sealed, all of the mobile host's packets too; it does again when the device was down, and when keyd was killed; with --flush nothing is left of it",
        seconds: 180,
        run: makes_the_device,
    },
    Scenario {
        name: "keyd-gives-inner-addresses",
        proves: "a mobile host is given its address inside, over IPv4 and over IPv6, and all it sends goes sealed from there under strict reverse path filters; when either side's key manager comes back it is the same address, and a second host gets another",
        seconds: 240,
        run: gives_addresses,
    },
];

/// What is left of keyd's at a node: devices, routes and rules, a line each.
fn left(node: &Netns) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for asked in [
        &["ip", "-o", "link", "show", "type", "mml"][..],
        &["ip", "-4", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
    ] {
        // A table that was never used is an error.
        let lines = node.attempt(asked)?.stdout;
        let ours = |line: &&str| {
            ["mml0", "proto 76", "4303"]
                .iter()
                .any(|mark| line.contains(mark))
        };
        left.extend(lines.lines().filter(ours).map(str::to_owned));
    }
    Ok(left)
}

fn makes_the_device(ctx: &mut Ctx) -> Result<()> {
    let file = |file: &str| format!("[device]\n{file}");
    let mut ha = Keyd::new(&ctx.net.ha, &file(HA_ALONE))?;
    let mut mh = Keyd::new(&ctx.net.mh, &file(MH_FILE))?;
    let marker = traffic::random(16);
    for keyd in [&ha, &mh] {
        keyd.answers(ctx.seconds(20.0))?;
    }
    let works = |ctx: &Ctx, when: &str| -> Result<()> {
        up(ctx).context(when.to_owned())?;
        let captures = outside(ctx)?;
        everything(ctx, &marker).context(when.to_owned())?;
        nothing_shows(captures, &marker)?;
        Ok(())
    };
    works(ctx, "at first")?;
    for node in [&ctx.net.ha, &ctx.net.mh] {
        node.ip("link set mml0 down\nlink set mml0 up")?;
    }
    works(ctx, "after the device was down")?;
    let before = [left(&ctx.net.ha)?, left(&ctx.net.mh)?];
    for keyd in [&mut ha, &mut mh] {
        keyd.kill();
        keyd.start()?;
    }
    ha.up("mh", ctx.seconds(40.0))?;
    works(ctx, "after a restart")?;
    let after = [left(&ctx.net.ha)?, left(&ctx.net.mh)?];
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    for (keyd, node) in [(&mut mh, &ctx.net.mh), (&mut ha, &ctx.net.ha)] {
        keyd.flush(ctx.seconds(30.0))?;
        let left = left(node)?;
        ensure!(left.is_empty(), "left at {}: {left:#?}", node.name());
    }
    Ok(())
}

/// Files of a node's: their names and what is in them.
type Files = [(String, String); 3];

fn start<'a>(node: &'a Netns, configuration: &str, files: &Files) -> Result<Keyd<'a>> {
    let files = files.each_ref();
    let files = files.map(|(name, text)| (name.as_str(), text.as_str()));
    let keyd = Keyd::with_files(node, configuration, &files)?;
    keyd.answers(PATIENCE)?;
    Ok(keyd)
}

/// How long keyd may take to run.
const PATIENCE: Duration = Duration::from_secs(20);

/// A home agent that gives addresses of that pool.
fn giver(outer: IpAddr, prefix: &str, pool: &str) -> String {
    format!(
        "[device]
[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"{outer}\"]

[[connection]]
name = \"mh\"
remote-identity = \"*.example\"
auth = \"certificate\"
key-file = \"ha.key\"
certificate-file = \"ha.pem\"
authority-file = \"ca.pem\"

[connection.tunnel]
remote = \"{prefix}\"
pool = [\"{pool}\"]
"
    )
}

/// A host that asks for one, and sends all it has by the tunnel.
fn asker(name: &str, outer: IpAddr, remote: IpAddr, everything: &str) -> String {
    format!(
        "[device]
[node]
role = \"mh\"
identity = \"{name}.example\"
addresses = [\"{outer}\"]

[[connection]]
name = \"ha\"
remote = \"{remote}\"
remote-identity = \"ha.example\"
auth = \"certificate\"
key-file = \"{name}.key\"
certificate-file = \"{name}.pem\"
authority-file = \"ca.pem\"
liveness = \"2s\"

[connection.tunnel]
remote = \"{everything}\"
request-address = true
"
    )
}

/// The address that a host was given, when it has one and a CSA.
fn given(keyd: &Keyd<'_>, ctx: &Ctx) -> Result<IpAddr> {
    let end = Instant::now() + ctx.seconds(40.0);
    loop {
        let status: serde_json::Value = serde_json::from_str(&keyd.tell(&["status"])?)?;
        let one = &status["connections"][0];
        let address = one["inner_address"].as_str().map(str::parse);
        if let (Some(address), Some(1..)) = (address, one["children"].as_u64()) {
            return Ok(address?);
        }
        ensure!(Instant::now() < end, "no address: {}", keyd.log());
        std::thread::sleep(ctx.seconds(0.1));
    }
}

/// Datagrams and a stream between the correspondent and that address; none of it shows outside.
fn goes_sealed(ctx: &Ctx, cn: IpAddr, host: IpAddr, port: u16) -> Result<()> {
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let near = traffic::udp(&ctx.net.cn, cn, port)?;
    let far = traffic::udp(&ctx.net.mh, host, port)?;
    for len in [32, 1000] {
        let data = traffic::marked(&marker, len);
        traffic::udp_arrives(&far, &near, &data)?;
        traffic::udp_arrives(&near, &far, &data)?;
    }
    // The host says nothing of where from, as programs don't.
    let answered = ctx.net.mh.enter(|| {
        let any = std::net::UdpSocket::bind(if cn.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        any.send_to(&traffic::marked(&marker, 64), (cn, port))?;
        Ok(())
    });
    answered?;
    let mut buffer = [0; 2048];
    near.set_read_timeout(Some(ctx.seconds(5.0)))?;
    let (_, from) = near.recv_from(&mut buffer).context("from anywhere")?;
    ensure!(from.ip() == host, "it came from {from}, not from {host}");
    nothing_shows(captures, &marker)?;
    Ok(())
}

fn gives_addresses(ctx: &mut Ctx) -> Result<()> {
    six::up(&ctx.net)?;
    for interface in ["all", "wl1"] {
        ctx.net
            .mh
            .sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "1")?;
    }
    let authority = Authority::root("addresses", Kind::Ed25519)?;
    let files = |name: &str| -> Result<Files> {
        let owner = authority.owner(&format!("{name}.example"))?;
        Ok([
            (format!("{name}.key"), owner.key.clone()),
            (format!("{name}.pem"), owner.chain()),
            ("ca.pem".to_owned(), authority.certificate.clone()),
        ])
    };
    let [ha_files, mh_files, other_files] = [files("ha")?, files("mh")?, files("other")?];
    for (at, (outer, everything, prefix, pool, cn)) in [
        (
            (IpAddr::from(HA), IpAddr::from(MH)),
            "0.0.0.0/0",
            "203.0.113.128/25",
            "203.0.113.128/25",
            IpAddr::from(CN),
        ),
        (
            (HA6.into(), MH6.into()),
            "::/0",
            "2001:db8:203::/64",
            "2001:db8:203::100-2001:db8:203::1ff",
            CN6.into(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut ha = start(&ctx.net.ha, &giver(outer.0, prefix, pool), &ha_files)?;
        let mh_file = asker("mh", outer.1, outer.0, everything);
        let mut mh = start(&ctx.net.mh, &mh_file, &mh_files)?;
        let first = given(&mh, ctx)?;
        goes_sealed(ctx, cn, first, 4100)?;

        // Either comes back, and neither gives or takes another.
        for (which, port) in [("the host", 4110), ("the home agent", 4111)] {
            let keyd = if port == 4110 { &mut mh } else { &mut ha };
            keyd.kill();
            keyd.start()?;
            keyd.answers(ctx.seconds(20.0))?;
            let again = given(&mh, ctx)?;
            ensure!(
                again == first,
                "{again} after {which} came back, not {first}"
            );
            goes_sealed(ctx, cn, first, port)?;
        }
        // When the home agent has heard from the host itself it is still so.
        ha.up("mh", ctx.seconds(40.0))?;
        goes_sealed(ctx, cn, first, 4120)?;
        mh.flush(ctx.seconds(30.0))?;

        let other_file = asker("other", outer.1, outer.0, everything);
        let mut other = start(&ctx.net.mh, &other_file, &other_files)?;
        let second = given(&other, ctx)?;
        ensure!(second != first, "two hosts have {first}");
        goes_sealed(ctx, cn, second, 4130)?;
        other.flush(ctx.seconds(30.0))?;
        ha.flush(ctx.seconds(30.0))?;
        for node in [&ctx.net.ha, &ctx.net.mh] {
            let left = left(node)?;
            ensure!(left.is_empty(), "left at {}, {at}: {left:#?}", node.name());
        }
    }
    Ok(())
}
