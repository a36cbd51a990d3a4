// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The host moves: Mobile IP in the key managers of five nodes, on real links, routes and tunnels.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::capture::Capture;
use crate::headers;
use crate::keyd::Keyd;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::sockets::Stream;
use crate::topology::{Topology, CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
    name: "mobile-host-registers-through-a-foreign-agent",
    proves: "a mobile host finds a foreign agent and registers through it, a TCP connection to it goes by a tunnel each way, which lets nobody else's packets through, and lives on when it moves to another foreign agent and home, where nothing is left of the tunnels",
    seconds: 120,
    run: registers,
    },
    Scenario {
        name: "registration-where-no-home-agent-listens",
        proves: "a foreign agent to which ICMP says that its host's home agent doesn't listen tells the mobile host so at once, by code 82, and the host registers when the home agent is there",
        seconds: 90,
        run: nobody_listens,
    },
    Scenario {
        name: "mobile-host-takes-its-leave",
        proves: "a mobile host whose key manager ends with --flush deregisters: home agent and foreign agent know, and no tunnel, route or rule is left at any of them",
        seconds: 90,
        run: takes_its_leave,
    },
    Scenario {
        name: "forged-advertisements-leave-a-host-where-it-is",
        proves: "whoever advertises on a foreign agent's link that the home agent is there, or ever new foreign agents, gets a few signed requests of the host's, also through the reverse tunnel to the home agent; home agent and host keep the registration, which is renewed all along, and a TCP connection goes on",
        seconds: 120,
        run: forged_advertisements,
    },
];

/// The home agent on the home network.
pub const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The foreign agents' care-of addresses.
pub const FA1: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
pub const FA2: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 1);
/// The one that not every network has.
pub const FA3: Ipv4Addr = Ipv4Addr::new(10, 1, 3, 1);

/// IP in IP (RFC 2003).
pub const IP_IN_IP: u8 = 4;

pub const SECRETS: [(&str, &str); 2] = [
    (
        "mobile.key",
        "2f1c8d7e6a5b4c3d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d\n",
    ),
    (
        "agents.key",
        "7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a09f8e\n",
    ),
];

/// The network as Mobile IP finds it: no route leads to the home address but its network's, the host has no other address,
/// and it may come to a foreign agent's link or home.
pub fn network(ctx: &Ctx) -> Result<()> {
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    net.ha.ip("route del 203.0.113.7/32
        link add home type veth peer name home netns mh
        address add 203.0.113.1/24 dev home
        link set home up")?;
    net.core()?.ip("route del 203.0.113.7/32
        route add 203.0.113.0/24 via 198.51.100.1")?;
    net.fa1.ip("route del 203.0.113.7/32")?;
    net.mh.ip("route del default
        route del 198.51.100.1/32
        link set wl2 down
        link set wl1 down
        address del 10.1.1.7/24 dev wl1
        address del 10.1.2.7/24 dev wl2")?;
    // Nobody away from home answers ARP for the home address (RFC 5944 §4.6): if anything needed it, it would show.
    for node in [&net.fa1, fa2, &net.mh] {
        for link in ["wl1", "wl2"] {
            let _ = node.sysctl(&format!("net.ipv4.conf.{link}.arp_ignore"), "8");
        }
    }
    Ok(())
}

/// A third foreign agent at the core, with a link to the mobile host that is down there.
pub fn third(net: &mut Topology) -> Result<()> {
    let core = net.core()?;
    let fa3 = Netns::add("fa3")?;
    core.ip("link add fa3 type veth peer name core netns fa3
        address add 198.51.100.13/30 dev fa3
        link set fa3 up")?;
    fa3.ip("link add wl3 type veth peer name wl3 netns mh
        address add 198.51.100.14/30 dev core
        address add 10.1.3.1/24 dev wl3
        link set core up
        link set wl3 up
        route add default via 198.51.100.13")?;
    core.ip("route add 10.1.3.0/24 via 198.51.100.14")?;
    fa3.sysctl("net.ipv4.ip_forward", "1")?;
    net.fa3 = Some(fa3);
    Ok(())
}

pub const HA_FILE: &str = "[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"203.0.113.1\"]

[mobile-ip]
links = [\"home\"]

[[mobile-ip.host]]
address = \"203.0.113.7\"
spi = 256
secret-file = \"mobile.key\"

[[mobile-ip.peer]]
address = \"10.1.1.1\"
spi = 300
secret-file = \"agents.key\"

[[mobile-ip.peer]]
address = \"10.1.2.1\"
spi = 300
secret-file = \"agents.key\"
";

pub fn fa_file(number: u8) -> String {
    format!(
        "[node]
role = \"fa\"
identity = \"fa{number}.example\"
addresses = [\"10.1.{number}.1\"]

[mobile-ip]
links = [\"wl{number}\"]

[[mobile-ip.peer]]
address = \"203.0.113.1\"
spi = 300
secret-file = \"agents.key\"

[[home-agent]]
identity = \"ha.example\"
address = \"203.0.113.1\"
prefixes = [\"203.0.113.0/24\"]
"
    )
}

pub const MH_FILE: &str = "[node]
role = \"mh\"
identity = \"mh.example\"
addresses = [\"203.0.113.7\"]

[mobile-ip]
links = [\"wl1\", \"wl2\", \"home\"]
home = \"203.0.113.7\"
home-agent = \"203.0.113.1\"
spi = 256
secret-file = \"mobile.key\"
";

/// Four key managers.
pub struct Nodes<'a> {
    pub ha: Keyd<'a>,
    pub fa1: Keyd<'a>,
    pub fa2: Keyd<'a>,
    pub mh: Keyd<'a>,
}

impl<'a> Nodes<'a> {
    /// Starts them with these files and secrets.
    pub fn start(
        ctx: &'a Ctx,
        [ha, fa1, fa2, mh]: [&str; 4],
        secrets: &[(&str, &str)],
    ) -> Result<Self> {
        let net = &ctx.net;
        let second = net.fa2.as_ref().context("no second foreign agent")?;
        let nodes = Nodes {
            ha: Keyd::with_files(&net.ha, ha, secrets)?,
            fa1: Keyd::with_files(&net.fa1, fa1, secrets)?,
            fa2: Keyd::with_files(second, fa2, secrets)?,
            mh: Keyd::with_files(&net.mh, mh, secrets)?,
        };
        for node in nodes.all() {
            node.answers(ctx.seconds(20.0))
                .with_context(|| nodes.logs())?;
        }
        Ok(nodes)
    }

    fn all(&self) -> [&Keyd<'a>; 4] {
        [&self.ha, &self.fa1, &self.fa2, &self.mh]
    }

    /// Each of them, to be killed and started.
    pub fn each(&mut self) -> [&mut Keyd<'a>; 4] {
        [&mut self.ha, &mut self.fa1, &mut self.fa2, &mut self.mh]
    }

    pub fn logs(&self) -> String {
        self.all().map(Keyd::log).join("\n")
    }
}

/// Where a node's key manager believes the host is; `None` if it knows nothing of it.
pub fn place(node: &Keyd<'_>) -> Result<Option<serde_json::Value>> {
    let status: serde_json::Value = serde_json::from_str(&node.tell(&["status"])?)?;
    Ok(status["mobile"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["home"] == HOME.to_string())
        .map(|one| one["care_of"].clone()))
}

/// Waits until home agent and mobile host both say that the host is there.
pub fn arrives(ctx: &Ctx, nodes: &Nodes<'_>, at: Option<Ipv4Addr>) -> Result<()> {
    let wanted = at.map_or(serde_json::Value::Null, |at| at.to_string().into());
    // At home the home agent keeps no binding.
    let bound = at.map(|_| wanted.clone());
    let end = Instant::now() + ctx.seconds(20.0);
    while place(&nodes.mh)? != Some(wanted.clone()) || place(&nodes.ha)? != bound {
        ensure!(
            Instant::now() < end,
            "the mobile host didn't arrive at {wanted}"
        );
        std::thread::sleep(ctx.seconds(0.05));
    }
    Ok(())
}

/// The mobile host's radio leaves one link and finds another.
pub fn moves(mh: &Netns, from: &str, to: &str) -> Result<()> {
    gap(mh, from, to).map(|_| ())
}

/// The same; for how long at most the radio had no link, the command's own time included.
pub fn gap(mh: &Netns, from: &str, to: &str) -> Result<Duration> {
    let begin = Instant::now();
    mh.ip(&format!("link set {from} down\nlink set {to} up"))?;
    Ok(begin.elapsed())
}

/// Octets each way over a connection that stays.
pub fn exchange(near: &Stream, far: &Stream) -> Result<()> {
    let data = traffic::random(50_000);
    traffic::part_arrives(near, far, &data)?;
    traffic::part_arrives(far, near, &data)
}

/// Everything between home and mobile host crosses this link by a tunnel, both ways.
fn all_tunnelled(capture: Capture, [ha, fa]: [Ipv4Addr; 2]) -> Result<()> {
    let captured = capture.stop()?;
    for (from, to) in [(ha, fa), (fa, ha)] {
        let inside = captured
            .headers()
            .filter(|ip| (ip.source, ip.destination, ip.protocol) == (from, to, IP_IN_IP));
        let inside = inside.count();
        ensure!(
            inside > 0,
            "{inside} packets in a tunnel from {from} to {to}"
        );
    }
    let bare = captured
        .headers()
        .filter(|ip| ip.source == HOME || ip.destination == HOME);
    let bare = bare.count();
    ensure!(bare == 0, "{bare} packets outside the tunnel");
    Ok(())
}

/// Tunnels carry what is the mobile host's and nothing else, whoever is at their other end.
fn strangers_stay_out(ctx: &Ctx) -> Result<()> {
    let net = &ctx.net;
    let stranger = Ipv4Addr::new(10, 1, 1, 200);
    // From a foreign agent's tunnel, and out of it: outer source and destination, inner ones, and where they would show.
    let cases = [
        (
            &net.fa1,
            [FA1, HOME_AGENT],
            [HOME, stranger],
            CN,
            (&net.cn, "ha"),
        ),
        (
            &net.ha,
            [HOME_AGENT, FA1],
            [HOME, stranger],
            CN,
            (&net.fa1, "wl1"),
        ),
    ];
    for (at, outer, hosts, other, (node, link)) in cases {
        let socket = traffic::raw(at, IP_IN_IP)?;
        let marks = [traffic::random(16), traffic::random(16)];
        let capture = Capture::start(node, link, link)?;
        for (host, mark) in hosts.into_iter().zip(&marks).rev() {
            let inner = if outer[0] == FA1 {
                [host, other]
            } else {
                [other, host]
            };
            let echo = headers::icmp(8, 0, [0; 4], mark);
            let inner = headers::IpDraft::new(inner[0], inner[1], headers::ICMP).write(&echo);
            let packet = headers::IpDraft::new(outer[0], outer[1], IP_IN_IP).write(&inner);
            traffic::send_raw(&socket, &packet)?;
        }
        // The host's own, sent last, is the sign that both have come through.
        std::thread::sleep(ctx.seconds(0.3));
        let captured = capture.stop()?;
        let shows = marks.each_ref().map(|mark| captured.holding(mark) > 0);
        ensure!(
            shows == [true, false],
            "on {link}: the host's packet and a stranger's show: {shows:?}"
        );
    }
    Ok(())
}

/// The tunnel devices of a node.
fn tunnels(node: &Netns) -> Result<usize> {
    let list = node.run(&["ip", "-o", "link", "show", "type", "ipip"])?;
    Ok(list.lines().filter(|line| line.contains(": mip")).count())
}

fn registers(ctx: &mut Ctx) -> Result<()> {
    network(ctx)?;
    let files = [HA_FILE, &fa_file(1), &fa_file(2), MH_FILE];
    let nodes = Nodes::start(ctx, files, &SECRETS)?;
    journey(ctx, &nodes).with_context(|| nodes.logs())
}

fn journey(ctx: &Ctx, nodes: &Nodes<'_>) -> Result<()> {
    let net = &ctx.net;
    let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
    net.mh.ip("link set wl1 up")?;
    arrives(ctx, nodes, Some(FA1))?;
    let capture = Capture::start(&net.fa1, "core", "core-fa1")?;
    traffic::ping_arrives(&net.cn, CN, HOME, b"is anybody there")?;
    traffic::ping_arrives(&net.mh, HOME, CN, b"is anybody there")?;
    let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
    exchange(&near, &far)?;
    all_tunnelled(capture, [HOME_AGENT, FA1])?;
    strangers_stay_out(ctx)?;

    moves(&net.mh, "wl1", "wl2")?;
    arrives(ctx, nodes, Some(FA2))?;
    let capture = Capture::start(fa2, "core", "core-fa2")?;
    exchange(&near, &far).context("after the move")?;
    all_tunnelled(capture, [HOME_AGENT, FA2])?;
    // The agent that was left was told (RFC 3543).
    let end = Instant::now() + ctx.seconds(10.0);
    while place(&nodes.fa1)?.is_some() {
        ensure!(Instant::now() < end, "fa1 believes that the host is there");
        std::thread::sleep(ctx.seconds(0.1));
    }

    moves(&net.mh, "wl2", "home")?;
    net.mh
        .ip("route add default via 203.0.113.1 dev home onlink src 203.0.113.7")?;
    arrives(ctx, nodes, None)?;
    exchange(&near, &far).context("at home")?;
    let end = Instant::now() + ctx.seconds(10.0);
    for node in [&net.ha, &net.fa1, fa2] {
        while tunnels(node)? != 0 {
            ensure!(Instant::now() < end, "{} keeps a tunnel", node.name());
            std::thread::sleep(ctx.seconds(0.2));
        }
    }
    Ok(())
}

fn nobody_listens(ctx: &mut Ctx) -> Result<()> {
    network(ctx)?;
    let files = [HA_FILE, &fa_file(1), &fa_file(2), MH_FILE];
    let mut nodes = Nodes::start(ctx, files, &SECRETS)?;
    nodes.ha.kill();
    let ctx = &*ctx;
    let go = |nodes: &mut Nodes<'_>| -> Result<()> {
        ctx.net.mh.ip("link set wl1 up")?;
        let end = Instant::now() + ctx.seconds(20.0);
        while !nodes.mh.log().contains("denied") {
            ensure!(Instant::now() < end, "the mobile host isn't told anything");
            std::thread::sleep(ctx.seconds(0.1));
        }
        let log = nodes.mh.log();
        ensure!(
            log.contains("home agent port unreachable (82)") && !log.contains("timeout (78)"),
            "it is told something else"
        );
        nodes.ha.start()?;
        arrives(ctx, nodes, Some(FA1))
    };
    let done = go(&mut nodes);
    done.with_context(|| nodes.logs())
}

/// What Mobile IP has put into a node's routing.
fn traces(node: &Netns) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for what in ["route show table all", "rule show", "link show type ipip"] {
        let words: Vec<&str> = ["ip", "-o"].into_iter().chain(what.split(' ')).collect();
        let list = node.run(&words)?;
        let ours = [
            "proto 77",
            "metric 434",
            "4338:",
            "4339:",
            "4340:",
            "4341:",
            ": mip",
        ];
        let ours = list
            .lines()
            .filter(|line| ours.iter().any(|one| line.contains(one)));
        lines.extend(ours.map(str::to_owned));
    }
    Ok(lines)
}

fn takes_its_leave(ctx: &mut Ctx) -> Result<()> {
    network(ctx)?;
    let files = [HA_FILE, &fa_file(1), &fa_file(2), MH_FILE];
    let mut nodes = Nodes::start(ctx, files, &SECRETS)?;
    let ctx = &*ctx;
    let net = &ctx.net;
    nodes.mh.kill();
    let run = "exec keyd run --flush -c /run/keyd-mh/keyd.toml >>/run/keyd-mh/log 2>&1";
    let process = net.mh.background(&["sh", "-c", run])?;
    let go = || -> Result<()> {
        nodes.mh.answers(ctx.seconds(20.0))?;
        net.mh.ip("link set wl1 up")?;
        arrives(ctx, &nodes, Some(FA1))?;
        for node in [&net.ha, &net.fa1, &net.mh] {
            ensure!(
                !traces(node)?.is_empty(),
                "nothing to see at {}",
                node.name()
            );
        }
        net.mh
            .run(&["busybox", "kill", "-TERM", &process.pid().to_string()])?;
        let end = Instant::now() + ctx.seconds(15.0);
        while place(&nodes.ha)?.is_some() || place(&nodes.fa1)?.is_some() {
            ensure!(Instant::now() < end, "the agents believe that it is there");
            std::thread::sleep(ctx.seconds(0.1));
        }
        // The home agent's one rule, for its own packets, is for all hosts and stays; so is the route to the home network.
        let stays = |line: &String| line.contains("from 203.0.113.1 ") || line.contains("dev home");
        for node in [&net.ha, &net.fa1, &net.mh] {
            loop {
                let mut left = traces(node)?;
                left.retain(|line| !stays(line));
                if left.is_empty() {
                    break;
                }
                ensure!(Instant::now() < end, "{} keeps {left:?}", node.name());
                std::thread::sleep(ctx.seconds(0.2));
            }
        }
        Ok(())
    };
    let done = go();
    done.with_context(|| nodes.logs())
}

/// An agent advertisement (RFC 5944 §2.1) to the mobile host in somebody's name, which holds for as long as one can.
fn advertisement(source: Ipv4Addr, flags: u16, care_of: Option<Ipv4Addr>) -> Vec<u8> {
    let care_of = care_of.map(|address| address.octets());
    let care_of = care_of.as_ref().map_or(&[][..], |octets| &octets[..]);
    let agent = [
        &[16, 6 + care_of.len() as u8][..],
        &400_u16.to_be_bytes(),
        &600_u16.to_be_bytes(),
        &flags.to_be_bytes(),
        care_of,
        // The prefix's length, so that it is another one.
        &[19, 1, 24],
    ];
    let router = [&source.octets()[..], &[0; 4]].concat();
    let said = [router, agent.concat()].concat();
    // One address of two words; and the lifetime.
    let message = headers::icmp(9, 0, [1, 2, 0xFF, 0xFF], &said);
    let mut packet = headers::IpDraft::new(source, HOME, headers::ICMP);
    packet.ttl = 1;
    packet.write(&message)
}

fn forged_advertisements(ctx: &mut Ctx) -> Result<()> {
    network(ctx)?;
    // Renewed every 9 s, so that it would be over by the end.
    let mobile = MH_FILE.replace("[mobile-ip]\n", "[mobile-ip]\nlifetime = \"12s\"\n");
    let files = [HA_FILE, &fa_file(1), &fa_file(2), &mobile];
    let nodes = Nodes::start(ctx, files, &SECRETS)?;
    besieged(ctx, &nodes).with_context(|| nodes.logs())
}

fn besieged(ctx: &Ctx, nodes: &Nodes<'_>) -> Result<()> {
    /// `H`, `F` and `T`.
    const FLAGS: [u16; 2] = [0x2000 | 0x0100, 0x1000 | 0x0100];
    let net = &ctx.net;
    net.mh.ip("link set wl1 up")?;
    arrives(ctx, nodes, Some(FA1))?;
    let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
    exchange(&near, &far)?;
    let captures = [
        Capture::start(&net.fa1, "wl1", "forged-wl1")?,
        Capture::start(&net.fa1, "core", "forged-core")?,
    ];
    let forger = traffic::raw(&net.fa1, headers::ICMP)?;
    let here = Some(serde_json::Value::from(FA1.to_string()));
    let begin = Instant::now();
    let end = begin + ctx.seconds(30.0);
    let mut number = 0_u8;
    while Instant::now() < end {
        number = number.wrapping_add(1);
        let stranger = Ipv4Addr::new(192, 0, number, 66);
        for forged in [
            advertisement(HOME_AGENT, FLAGS[0], None),
            advertisement(stranger, FLAGS[1], Some(stranger)),
        ] {
            traffic::send_raw(&forger, &forged)?;
        }
        std::thread::sleep(ctx.seconds(0.1));
        for node in [&nodes.ha, &nodes.mh] {
            let place = place(node)?;
            ensure!(place == here, "the host is believed to be at {place:?}");
        }
        if number % 16 == 0 {
            exchange(&near, &far).context("meanwhile")?;
        }
    }
    let [wireless, core] = captures.map(Capture::stop);
    let asks = |ip: &headers::Ip<'_>| {
        let port = ip.payload.get(2..4) == Some(&434_u16.to_be_bytes()[..]);
        ip.source == HOME && ip.destination == HOME_AGENT && ip.protocol == headers::UDP && port
    };
    // It was deceived, and not often; and what it signed went on to its home agent.
    let wireless = wireless?;
    let deceived = wireless.headers().filter(|ip| asks(ip)).count();
    let most = 2 * (2 + begin.elapsed().as_secs() as usize / 30);
    ensure!(
        (1..=most).contains(&deceived),
        "{deceived} requests to the home agent that isn't here"
    );
    let core = core?;
    let within = |ip: headers::Ip<'_>| {
        let inner = headers::Ip::parse(ip.payload);
        ip.protocol == IP_IN_IP && ip.destination == HOME_AGENT && inner.is_some_and(|ip| asks(&ip))
    };
    let sent_on = core.headers().filter(|ip| within(*ip)).count();
    ensure!(sent_on > 0, "none of them went on by the reverse tunnel");
    exchange(&near, &far).context("afterwards")
}
