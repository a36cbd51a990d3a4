// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SNOOP in the kernel: what it repairs and hides, and what nobody can make it do.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::resource::{setrlimit, Resource};
use serde_json::Value;

use crate::capture::Capture;
use crate::command;
use crate::headers::{IpDraft, TcpDraft, TCP};
use crate::kernel_log;
use crate::module;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario, MODULE};
use crate::stats::Stats;
use crate::topology::{CN, HOME, MH};
use crate::traffic;
use crate::zone_message::{self, Action, Direction, Message, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, mmlctl, Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "snoop-repairs-losses-inside-the-tunnel",
        proves: "with zone 1's key the foreign agent sends again what the wireless hop lost, and the sender hardly notices; nothing of the payload shows",
        seconds: 120,
        run: repairs_inside,
    },
    Scenario {
        name: "snoop-repairs-plain-tcp",
        proves: "plain TCP towards an interface the operator names is repaired likewise, with and without SACK",
        seconds: 120,
        run: repairs_plain,
    },
    Scenario {
        name: "snoop-off-touches-nothing",
        proves: "without SNOOP no acknowledgement is hidden and nothing is kept",
        seconds: 90,
        run: off,
    },
    Scenario {
        name: "snoop-settings-and-flows-by-mmlctl",
        proves: "mmlctl sets, shows and refuses SNOOP's settings, and lists its flows with their counters",
        seconds: 60,
        run: by_mmlctl,
    },
    Scenario {
        name: "snoop-flood-stays-in-its-budget",
        proves: "a flood of made-up flows keeps within flows and octets allowed, and evicts no flow that is alive",
        seconds: 120,
        run: flood,
    },
    Scenario {
        name: "snoop-believes-no-made-up-ack",
        proves: "acknowledgements of what was never sent, resets and shrinking windows from anywhere upset no flow",
        seconds: 120,
        run: made_up_acks,
    },
    Scenario {
        name: "snoop-forgets-a-mobile-host-that-left",
        proves: "what can't be delivered any more is sent again a bounded number of times, then let go with its flow",
        seconds: 120,
        run: left,
    },
    Scenario {
        name: "snoop-lets-go-with-its-surroundings",
        proves: "full caches and running timers end with the CSA, the interface, the setting, the namespace and the module",
        seconds: 180,
        run: surroundings,
    },
    Scenario {
        name: "snoop-sends-nothing-in-clear-after-a-policy",
        proves: "once a policy protects a flow, nothing of it that was kept in clear goes out again",
        seconds: 60,
        run: policy,
    },
    Scenario {
        name: "snoop-carries-a-thousand-flows",
        proves: "a thousand lossy flows at once arrive whole",
        seconds: 240,
        run: thousand,
    },
    Scenario {
        name: "snoop-outlives-refused-memory",
        proves: "where memory is refused packets pass unseen, none is lost for it (fault injection; a kernel without it runs the rest)",
        seconds: 180,
        run: refused_memory,
    },
];

/// The wireless hop loses `percent` of what goes to the mobile host.
pub fn lossy(ctx: &Ctx, percent: f64) -> Result<()> {
    ctx.net.fa1.tc(&format!(
        "qdisc replace dev wl1 root netem rate 50mbit delay 1ms loss {percent}% limit 1000"
    ))
}

/// Some distance between sender and foreign agent, so that a local repair is worth it.
pub fn distant(ctx: &Ctx) -> Result<()> {
    ctx.net
        .core()?
        .tc("qdisc replace dev fa1 root netem delay 20ms limit 4000")?;
    in_order(&ctx.net.mh)?;
    in_order(&ctx.net.fa1)?;
    ctx.net.offloads(false)
}

/// A radio hop keeps its order. A veth doesn't where several CPUs take turns at its sending end: each has a backlog of its
/// own at the receiving one, unless they are told to use one CPU's. A kernel that can't be told so is one without RPS.
fn in_order(node: &Netns) -> Result<()> {
    command::run(&[
        "ip",
        "netns",
        "exec",
        node.name(),
        "sh",
        "-c",
        "cpus=/sys/class/net/wl1/queues/rx-0/rps_cpus; [ ! -e $cpus ] || echo 1 > $cpus",
    ])?;
    Ok(())
}

fn sack(ctx: &Ctx, on: bool) -> Result<()> {
    for namespace in [&ctx.net.cn, &ctx.net.mh] {
        namespace.sysctl("net.ipv4.tcp_sack", if on { "1" } else { "0" })?;
    }
    Ok(())
}

/// SNOOP for the tunnel's flows towards the mobile host.
fn snoop_csa(ctx: &Ctx, keys: &Keys, more: &[&str]) -> Result<()> {
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(
        &ctx.net.fa1,
        &[&["snoop", "set", "--spi", &spi], more].concat(),
    )?;
    Ok(())
}

pub fn snoop_plain(ctx: &Ctx, more: &[&str]) -> Result<()> {
    mmlctl(
        &ctx.net.fa1,
        &[&["snoop", "set", "--device", "wl1"], more].concat(),
    )?;
    Ok(())
}

/// Segments that this namespace's TCP has sent again.
fn retransmitted(namespace: &Netns) -> Result<u64> {
    let text = namespace.run(&["cat", "/proc/net/snmp"])?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (
        lines.next().context("no Tcp line")?,
        lines.next().context("no Tcp values")?,
    );
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "RetransSegs")
        .and_then(|(_, value)| value.parse().ok())
        .context("no RetransSegs")
}

/// Packets that the wireless hop has lost.
fn lost(ctx: &Ctx) -> Result<u64> {
    let text = ctx
        .net
        .fa1
        .run(&["tc", "-s", "-j", "qdisc", "show", "dev", "wl1"])?;
    let json: Value = serde_json::from_str(&text)?;
    json[0]["drops"].as_u64().context("no drops in tc's answer")
}

fn repaired(stats: &Stats) -> u64 {
    ["duplicate", "sack", "timer"]
        .iter()
        .map(|why| stats.total(&format!("snoop-retransmitted-{why}")))
        .sum()
}

/// Transfers to the mobile host over the lossy hop, and says: lost by the hop, sent again by SNOOP, and by the sender.
fn transfer(ctx: &Ctx, port: u16, data: &[u8]) -> Result<(u64, u64, u64)> {
    transfer_to(ctx, HOME.into(), port, data)
}

/// The same, to any of its addresses.
pub fn transfer_to(ctx: &Ctx, home: IpAddr, port: u16, data: &[u8]) -> Result<(u64, u64, u64)> {
    let before = (
        lost(ctx)?,
        repaired(&Stats::read(&ctx.net.fa1)?),
        retransmitted(&ctx.net.cn)?,
    );
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, home, port)?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(ctx.seconds(30.0)))?;
        stream.set_write_timeout(Some(ctx.seconds(30.0)))?;
    }
    traffic::stream_arrives(&near, &far, data)?;
    Ok((
        lost(ctx)? - before.0,
        repaired(&Stats::read(&ctx.net.fa1)?) - before.1,
        retransmitted(&ctx.net.cn)? - before.2,
    ))
}

/// What a repaired transfer looks like: most losses are mended on the spot.
pub fn mended((lost, repaired, resent): (u64, u64, u64), what: &str) -> Result<()> {
    ensure!(lost >= 20, "{what}: the hop lost {lost} packets only");
    ensure!(
        repaired * 2 >= lost,
        "{what}: {lost} lost, but {repaired} sent again at the foreign agent"
    );
    // Without SNOOP the sender sends again at least what was lost. On a machine this slow a repair may take longer than the
    // sender waits, so that it is not none; how few it is is measured in virtual time (`cargo lab paper`).
    ensure!(
        resent < lost,
        "{what}: {lost} lost, {repaired} repaired, and the sender still sent {resent} again"
    );
    Ok(())
}

/// One of some transfers is mended: where a machine stalls at the wrong moment, or its CPUs take turns at a veth, a sender
/// becomes impatient.
pub fn is_mended(ctx: &Ctx, home: IpAddr, port: u16, data: &[u8], what: &str) -> Result<()> {
    let mut result = Ok(());
    for attempt in 0..4 {
        result = mended(transfer_to(ctx, home, port + 100 * attempt, data)?, what);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn repairs_inside(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    let keys = ctx.zone_tunnel(&Options::default())?;
    snoop_csa(ctx, &keys, &[])?;
    lossy(ctx, 4.0)?;
    let data = traffic::marked(&traffic::random(16), 1_500_000);
    let capture = Capture::start(&ctx.net.mh, "wl1", "wl1-snoop")?;
    for (port, on) in [(5001, true), (5002, false)] {
        sack(ctx, on)?;
        is_mended(
            ctx,
            HOME.into(),
            port,
            &data,
            if on { "with SACK" } else { "without SACK" },
        )?;
    }
    capture.stop()?.never_shows(&data[..16])?;
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(
        stats.total("snoop-suppressed") > 0,
        "no acknowledgement was hidden"
    );
    settled(ctx)
}

/// docs/wire.md 2.1n.
fn repairs_plain(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    snoop_plain(ctx, &[])?;
    lossy(ctx, 4.0)?;
    let data = traffic::random(1_500_000);
    for (port, on) in [(5001, true), (5002, false)] {
        sack(ctx, on)?;
        is_mended(
            ctx,
            HOME.into(),
            port,
            &data,
            if on { "with SACK" } else { "without SACK" },
        )?;
    }
    settled(ctx)
}

/// Once everything is acknowledged, nothing is kept.
fn settled(ctx: &Ctx) -> Result<()> {
    let end = Instant::now() + ctx.seconds(15.0);
    loop {
        let kept = Stats::read(&ctx.net.fa1)?.total("snoop-octets-kept");
        if kept == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{kept} octets are still kept");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn off(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    ctx.zone_tunnel(&Options::default())?;
    lossy(ctx, 4.0)?;
    let (lost, repaired, resent) = transfer(ctx, 5001, &traffic::random(500_000))?;
    ensure!(
        lost > 0 && repaired == 0 && resent > 0,
        "{lost} lost, {repaired} repaired, {resent} sent again"
    );
    let stats = Stats::read(&ctx.net.fa1)?;
    for name in ["cached", "suppressed", "flows", "octets-kept"] {
        let value = stats.total(&format!("snoop-{name}"));
        ensure!(value == 0, "SNOOP is off, and {name} is {value}");
    }
    Ok(())
}

/// docs/wire.md 2.1d, 2.1g, 2.1h, 2.1o.
fn by_mmlctl(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let fa = &ctx.net.fa1;
    snoop_csa(
        ctx,
        &keys,
        &["--window", "50", "--threshold", "4", "--min-rto-ms", "100"],
    )?;
    let refused = |arguments: &[&str], words: &str| -> Result<()> {
        let finished = fa.attempt(&[&["mmlctl", "snoop", "set"], arguments].concat())?;
        ensure!(!finished.success, "{arguments:?} was accepted");
        ensure!(
            finished.stderr.contains(words),
            "{arguments:?}: {}",
            finished.stderr
        );
        Ok(())
    };
    let spi = format!("{:#x}", keys.to_mh.spi);
    refused(&["--window", "0"], "--window")?;
    refused(&["--device", "nowhere"], "nowhere")?;
    refused(&[], "nothing to set")?;
    refused(&["--spi", "0x100", "--window", "5"], "no such CSA")?;
    refused(
        &[
            "--spi",
            &spi,
            "--persist-ms",
            "5000",
            "--garbage-ms",
            "1000",
        ],
        "SNOOP",
    )?;
    mmlctl(fa, &["snoop", "set", "--device", "wl1", "--bytes", "4096"])?;
    let settings: Value = serde_json::from_str(&mmlctl(fa, &["--json", "set"])?)?;
    ensure!(
        settings["snoop-bytes"] == 4096 && settings["snoop-interface"] != 0,
        "{settings}"
    );
    mmlctl(fa, &["snoop", "set", "--device", "none"])?;

    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 5001)?;
    traffic::stream_arrives(&near, &far, &traffic::random(20_000))?;
    let port = near.local_addr()?.port();
    let answer: Value = serde_json::from_str(&mmlctl(fa, &["--json", "snoop", "flows"])?)?;
    let flows = answer["flows"].as_array().context("no flows")?;
    let flow = flows
        .iter()
        .find(|flow| flow["src"] == format!("{CN}:{port}"))
        .with_context(|| format!("the flow isn't listed: {answer}"));
    // It may be over and forgotten by now; then its counters are in the totals.
    if let Ok(flow) = flow {
        ensure!(
            flow["dst"] == format!("{HOME}:5001") && flow["outer-dst"] == MH.to_string(),
            "{flow}"
        );
    }
    let stats: Value = serde_json::from_str(&mmlctl(fa, &["--json", "snoop", "stats"])?)?;
    ensure!(
        stats["cached"].as_u64().is_some_and(|cached| cached >= 14),
        "{stats}"
    );
    ensure!(
        mmlctl(fa, &["snoop", "stats"])?.contains("suppressed"),
        "no table"
    );
    Ok(())
}

/// Sends a data segment of a flow that nobody has.
fn made_up(socket: &socket2::Socket, number: u32, data: &[u8]) -> Result<()> {
    let tcp = TcpDraft {
        source_port: (number % 60_000) as u16 + 1024,
        destination_port: (number / 60_000) as u16 + 7000,
        sequence: number,
        acknowledgement: 1,
        flags: 0x18,
        window: 1000,
    };
    traffic::send_raw(
        socket,
        &IpDraft::new(CN, HOME, TCP).write(&tcp.write(CN, HOME, data)),
    )
}

/// docs/wire.md 2.1b, 2.1p.
fn flood(ctx: &mut Ctx) -> Result<()> {
    ctx.net.offloads(false)?;
    // The mobile host answers nothing of it: its resets would end the flows.
    ctx.net.mh.nft(
        "table ip quiet { chain in { type filter hook prerouting priority -400; tcp dport 7000-7010 drop; }; }",
    )?;
    let fa = &ctx.net.fa1;
    mmlctl(
        fa,
        &[
            "snoop", "set", "--device", "wl1", "--flows", "64", "--bytes", "200000",
        ],
    )?;
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 5001)?;
    exchange(&near, &far)?;
    let alive = format!("{CN}:{}", near.local_addr()?.port());
    let socket = traffic::raw(&ctx.net.cn, TCP)?;
    for round in 0..40u32 {
        for number in 0..100 {
            made_up(&socket, round * 100 + number, &[0x55; 1000])?;
        }
        exchange(&near, &far).with_context(|| format!("round {round}"))?;
        let stats = Stats::read(fa)?;
        let (flows, octets) = (stats.total("snoop-flows"), stats.total("snoop-octets-kept"));
        ensure!(flows <= 64, "{flows} flows");
        // The last packet kept may go past the budget.
        ensure!(octets <= 210_000, "{octets} octets kept");
        let listed: Value = serde_json::from_str(&mmlctl(fa, &["--json", "snoop", "flows"])?)?;
        let found = listed["flows"]
            .as_array()
            .is_some_and(|flows| flows.iter().any(|flow| flow["src"] == alive));
        ensure!(found, "round {round}: the flow that is alive was evicted");
    }
    let stats = Stats::read(fa)?;
    ensure!(stats.total("snoop-evicted") > 1000, "nothing was evicted");
    ensure!(
        repaired(&stats) < 20,
        "what nobody answered was sent again {} times",
        repaired(&stats)
    );
    Ok(())
}

/// A little data to the mobile host and an answer back.
fn exchange(near: &TcpStream, far: &TcpStream) -> Result<()> {
    use std::io::{Read, Write};
    let (mut near, mut far) = (near, far);
    let data = traffic::random(3000);
    near.write_all(&data)?;
    let mut read = vec![0; data.len()];
    far.read_exact(&mut read)?;
    ensure!(read == data, "other octets arrived");
    far.write_all(b"thanks")?;
    let mut answer = [0; 6];
    near.read_exact(&mut answer)?;
    Ok(())
}

fn made_up_acks(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    snoop_plain(ctx, &[])?;
    lossy(ctx, 2.0)?;
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 5001)?;
    exchange(&near, &far)?;
    let port = near.local_addr()?.port();
    let socket = traffic::raw(&ctx.net.mh, TCP)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let (stop, socket) = (&stop, &socket);
        scope.spawn(move || {
            let mut number = 1u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let tcp = TcpDraft {
                    source_port: 5001,
                    destination_port: port,
                    sequence: number.rotate_left(7),
                    acknowledgement: number,
                    flags: 0x10,
                    window: (number >> 3) as u16,
                };
                let packet = IpDraft::new(HOME, CN, TCP).write(&tcp.write(HOME, CN, &[]));
                let _ = traffic::send_raw(socket, &packet);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let outcome = traffic::stream_arrives(&near, &far, &traffic::random(1_000_000));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    })?;
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(
        stats.total("snoop-acks-ahead") > 10,
        "none was taken for what it is"
    );
    Ok(())
}

/// Data under way to a mobile host that hears nothing any more.
fn stranded(ctx: &Ctx, port: u16) -> Result<(TcpStream, TcpStream)> {
    use std::io::Write;
    lossy(ctx, 0.0)?;
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, port)?;
    exchange(&near, &far)?;
    lossy(ctx, 100.0)?;
    near.set_nonblocking(true)?;
    let data = traffic::random(200_000);
    let _ = (&near).write(&data);
    let end = Instant::now() + ctx.seconds(10.0);
    while Stats::read(&ctx.net.fa1)?.total("snoop-octets-kept") == 0 {
        ensure!(Instant::now() < end, "nothing is kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((near, far))
}

fn left(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    snoop_plain(ctx, &["--persist-ms", "300", "--garbage-ms", "1500"])?;
    // The sender's own retransmissions keep a flow alive: it goes, too.
    let ends = stranded(ctx, 5001)?;
    let kept = Stats::read(&ctx.net.fa1)?.total("snoop-cached");
    ctx.net.core()?.ip("link set fa1 down")?;
    let end = Instant::now() + ctx.seconds(20.0);
    while Stats::read(&ctx.net.fa1)?.total("snoop-flows") != 0 {
        ensure!(Instant::now() < end, "the flow isn't forgotten");
        std::thread::sleep(Duration::from_millis(50));
    }
    let stats = Stats::read(&ctx.net.fa1)?;
    let again = repaired(&stats) + stats.total("snoop-retransmitted-persist");
    ensure!(
        again <= 4 * (kept + 20),
        "{kept} segments were kept, and sent again {again} times"
    );
    ensure!(
        stats.total("snoop-octets-kept") == 0,
        "something is still kept"
    );
    drop(ends);
    Ok(())
}

fn surroundings(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    let none_kept = |ctx: &Ctx, what: &str| -> Result<()> {
        let stats = Stats::read(&ctx.net.fa1)?;
        let (flows, octets) = (stats.total("snoop-flows"), stats.total("snoop-octets-kept"));
        // The sender goes on trying, so that a new flow may come at once; what was kept went.
        ensure!(
            flows <= 1 && octets <= 20_000,
            "{what}: {flows} flows and {octets} octets are still there"
        );
        Ok(())
    };
    snoop_plain(ctx, &[])?;
    let setting = stranded(ctx, 5001)?;
    mmlctl(&ctx.net.fa1, &["snoop", "set", "--device", "none"])?;
    none_kept(ctx, "setting")?;
    drop(setting);

    snoop_plain(ctx, &[])?;
    let interface = stranded(ctx, 5002)?;
    ctx.net.fa1.ip("link set wl1 down")?;
    none_kept(ctx, "interface")?;
    ctx.net
        .fa1
        .ip("link set wl1 up\nroute replace 203.0.113.7/32 via 10.1.1.7")?;
    drop(interface);
    mmlctl(&ctx.net.fa1, &["snoop", "set", "--device", "none"])?;

    let keys = ctx.zone_tunnel(&Options {
        protect: false,
        ..Options::default()
    })?;
    snoop_csa(ctx, &keys, &[])?;
    let csa = stranded(ctx, 5003)?;
    zone_tunnel::send(
        &ctx.net.fa1,
        &[Message::new(zone_message::FLUSH, Vec::new())],
    )?;
    none_kept(ctx, "CSA")?;
    drop(csa);

    for round in 0..5 {
        zone_tunnel::flush_csas(&ctx.net)?;
        let keys = zone_tunnel::load(&ctx.net, &Options::default())?;
        snoop_csa(ctx, &keys, &[])?;
        let under_way = stranded(ctx, 5010 + round)?;
        for namespace in [&ctx.net.ha, &ctx.net.mh] {
            namespace.ip("link del mml0")?;
        }
        module::unload(MODULE, ctx.seconds(10.0)).with_context(|| format!("round {round}"))?;
        drop(under_way);
        ctx.modules.load(MODULE)?;
        zone_tunnel::devices(&ctx.net)?;
        crate::tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    }
    // The last one is left to the end of its namespaces.
    let keys = zone_tunnel::load(&ctx.net, &Options::default())?;
    snoop_csa(ctx, &keys, &[])?;
    let _last = stranded(ctx, 5020)?;
    Ok(())
}

fn policy(ctx: &mut Ctx) -> Result<()> {
    distant(ctx)?;
    snoop_plain(ctx, &[])?;
    let _under_way = stranded(ctx, 5001)?;
    let fa = &ctx.net.fa1;
    zone_tunnel::send(
        fa,
        &[zone_message::policy(
            Action::Protect,
            Direction::Out,
            (ANY, HOME_ONLY),
            0,
            1,
            None,
        )],
    )?;
    let stats = Stats::read(fa)?;
    ensure!(
        stats.total("snoop-octets-kept") == 0,
        "something is still kept in clear"
    );
    lossy(ctx, 0.0)?;
    // What waited in the hop's queue is through.
    std::thread::sleep(ctx.seconds(0.1));
    let capture = Capture::start(&ctx.net.mh, "wl1", "wl1-policy")?;
    std::thread::sleep(ctx.seconds(2.5));
    let captured = capture.stop()?;
    let clear = captured
        .headers()
        .filter(|ip| ip.destination == HOME)
        .count();
    ensure!(clear == 0, "{clear} packets went out in clear");
    zone_tunnel::send(fa, &[Message::new(zone_message::SPDFLUSH, Vec::new())])
}

fn thousand(ctx: &mut Ctx) -> Result<()> {
    use std::io::{Read, Write};
    const FLOWS: usize = 1000;
    distant(ctx)?;
    // On a slow kernel a flow waits long between its first packet and the next; it shall not be forgotten meanwhile.
    snoop_plain(ctx, &["--flows", "2000", "--garbage-ms", "600000"])?;
    // Both ends of each live in this process.
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192)?;
    for namespace in [&ctx.net.cn, &ctx.net.mh] {
        namespace.sysctl("net.core.somaxconn", "4096")?;
    }
    let listener = ctx.net.mh.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::from((HOME, 5001)).into())?;
        socket.listen(2048)?;
        Ok(TcpListener::from(socket))
    })?;
    let patience = ctx.seconds(60.0);
    let senders = ctx.net.cn.enter(|| {
        (0..FLOWS)
            .map(|_| Ok(TcpStream::connect((HOME, 5001))?))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut receivers = Vec::new();
    for _ in 0..FLOWS {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(patience))?;
        receivers.push(stream);
    }
    lossy(ctx, 2.0)?;
    let data = traffic::random(6000);
    for mut sender in &senders {
        sender.write_all(&data)?;
    }
    let flows = Stats::read(&ctx.net.fa1)?.total("snoop-flows");
    ensure!(flows >= FLOWS as u64 / 2, "{flows} flows are seen");
    for mut receiver in &receivers {
        let mut read = vec![0; data.len()];
        receiver.read_exact(&mut read)?;
        ensure!(read == data, "other octets arrived");
    }
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(repaired(&stats) > 0, "nothing was repaired");
    Ok(())
}

fn refused_memory(ctx: &mut Ctx) -> Result<()> {
    const FAILSLAB: &str = "/sys/kernel/debug/failslab";
    distant(ctx)?;
    let keys = ctx.zone_tunnel(&Options::default())?;
    snoop_csa(ctx, &keys, &[])?;
    lossy(ctx, 2.0)?;
    let set = |name: &str, value: &str| std::fs::write(format!("{FAILSLAB}/{name}"), value);
    let injects = kernel_log::is_debug_kernel() && std::path::Path::new(FAILSLAB).exists();
    if injects {
        // What may sleep is spared: it is the packet path that is to be tried.
        for (name, value) in [
            ("ignore-gfp-wait", "Y"),
            ("verbose", "0"),
            ("interval", "1"),
            ("times", "-1"),
            ("probability", "5"),
        ] {
            set(name, value).with_context(|| format!("{FAILSLAB}/{name}"))?;
        }
    }
    // What the kernel refuses to whoever connects is told to them, and is theirs to try again; a port it has no memory to
    // write down is "in use".
    let refused = |error: &anyhow::Error| {
        let cause = error.root_cause().downcast_ref::<std::io::Error>();
        let errno = cause.and_then(std::io::Error::raw_os_error);
        [Errno::ENOBUFS, Errno::EADDRINUSE]
            .iter()
            .any(|one| errno == Some(*one as i32))
    };
    let data = traffic::random(500_000);
    let mut outcome = transfer(ctx, 5001, &data);
    for port in 5002..5020 {
        if outcome.as_ref().is_err_and(refused) {
            outcome = transfer(ctx, port, &data);
        }
    }
    if injects {
        set("probability", "0")?;
    }
    outcome?;
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(
        !injects || stats.total("snoop-full") + stats.total("snoop-refused") > 0,
        "no memory was refused"
    );
    settled(ctx)
}
