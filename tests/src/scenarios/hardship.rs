// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Everything taken away in turn, a thousand times over, by the ten thousand, and with no memory to be had.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::tunnel::{everything, no_drops_but};
use super::zone_messages::held;
use crate::capture::Capture;
use crate::genl::{self, Genl};
use crate::kernel_log;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario, MODULE};
use crate::topology::{CN, HA, HOME, MH};
use crate::zone_message::{self, add, Lifetime, Message, Role, ANY};
use crate::zone_tunnel::{self, Keys, Options};
use crate::{headers, module, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "nothing-in-clear-whatever-goes-away",
        proves: "while CSAs, routes, addresses, links and devices go away in turn and come back, and the module is asked to go, under conntrack, a flowtable, br_netfilter and strict rp_filter, no clear packet is on any link",
        seconds: 180,
        run: whatever_goes,
    },
    Scenario {
        name: "a-thousand-teardowns-with-packets-waiting",
        proves: "a thousand times CSAs are deleted and flushed, devices, the module and namespaces go, with packets in queues, and traffic comes back each time",
        seconds: 400,
        run: thousand,
    },
    Scenario {
        name: "ten-thousand-csas-come-and-go",
        proves: "ten thousand CSAs are added, listed, expire with an event each, and are flushed; traffic goes on under one more",
        seconds: 180,
        run: ten_thousand,
    },
    Scenario {
        name: "refused-memory-leaves-nothing-half-done",
        proves: "each allocation of each request refused in turn: the request is refused whole or done whole, and nothing is lost",
        seconds: 120,
        run: refused_memory,
    },
];

/// A CSA of a stranger's, from `number` on: no traffic is ever under it.
pub(super) fn stranger(number: u32, role: Role) -> Message {
    let mut keys = Keys::new(&Options::default());
    keys.to_mh.spi = 0x1000_0000 + number;
    let [_, a, b, c] = number.to_be_bytes();
    let inside = (Ipv4Addr::new(11, a, b, c), 32);
    add(&keys.to_mh, role, (ANY, inside), 64, 0)
}

/// Takes it away again.
pub(super) fn without_stranger(number: u32, role: Role) -> Message {
    let mut keys = Keys::new(&Options::default());
    keys.to_mh.spi = 0x1000_0000 + number;
    zone_message::name(zone_message::DELETE, &keys.to_mh, role)
}

/// Datagrams both ways until told to stop, whatever comes of them.
pub(super) fn with_stream<T>(ctx: &Ctx, data: &[u8], f: impl FnOnce() -> Result<T>) -> Result<T> {
    let near = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, to) in [(&near, (HOME, 5000)), (&far, (CN, 4000))] {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // That it fails while something is away is the point.
                    let _ = from.send_to(data, to);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let outcome = f();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Ends the captures: none may show the secret, and none has the home address in clear, whatever the packet; how many sealed packets they show.
pub(super) fn all_sealed(captures: Vec<Capture>, secret: &[u8]) -> Result<usize> {
    let mut sealed = 0;
    for captured in nothing_shows(captures, secret)? {
        for ip in captured.headers() {
            ensure!(
                ![ip.source, ip.destination].contains(&HOME),
                "{}: a packet of protocol {} with the home address in clear",
                captured.name,
                ip.protocol
            );
            sealed += usize::from(ip.protocol == headers::ESP);
        }
    }
    Ok(sealed)
}

/// Waits until a datagram of a stream arrives that was sent from now on.
fn comes_back(ctx: &Ctx) -> Result<()> {
    let near = traffic::udp(&ctx.net.cn, CN, 4002)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5002)?;
    let end = Instant::now() + ctx.seconds(20.0);
    for (from, to) in [(&near, &far), (&far, &near)] {
        while traffic::receive(to, Duration::from_millis(20))?.is_none() {
            ensure!(Instant::now() < end, "traffic did not come back");
            let _ = from.send_to(&[1; 100], to.local_addr()?);
        }
    }
    Ok(())
}

/// What stands in the way of a packet on an ordinary router.
fn netfilter(ctx: &Ctx) -> Result<()> {
    let net = &ctx.net;
    for namespace in net.all() {
        namespace.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
        namespace.nft(
            "table inet track {
                chain in { type filter hook input priority 0; policy accept; ct state invalid counter; }
                chain out { type filter hook output priority 0; policy accept; ct state new counter; }
            }",
        )?;
    }
    for (namespace, devices) in [(&net.ha, "cn, core"), (&net.fa1, "core, br0")] {
        if devices.contains("br0") {
            namespace.ip("link add br0 type bridge
                link set br0 up
                address del 10.1.1.1/24 dev wl1
                link set wl1 master br0
                address add 10.1.1.1/24 dev br0
                route replace 203.0.113.7/32 via 10.1.1.7")?;
            namespace.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
        }
        namespace.nft(&format!(
            "table inet fast {{
                flowtable quick {{ hook ingress priority 0; devices = {{ {devices} }}; }}
                chain forward {{ type filter hook forward priority 1; policy accept; meta l4proto {{ tcp, udp }} flow add @quick counter; }}
            }}"
        ))?;
    }
    Ok(())
}

fn whatever_goes(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    let net = &ctx.net;
    let options = Options::default();
    ctx.zone_tunnel(&options)?;
    netfilter(ctx)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let into_tunnel = || crate::tunnel::into_tunnel(&net.ha, &net.mh, "mml0");
    let pause = || std::thread::sleep(ctx.seconds(0.3));
    with_stream(ctx, &traffic::marked(&marker, 400), || {
        for round in 0..2 {
            comes_back(ctx).with_context(|| format!("round {round}"))?;
            zone_tunnel::flush_csas(net)?;
            pause();
            zone_tunnel::load(net, &options)?;
            comes_back(ctx).context("after CSAs")?;

            net.ha.ip("route replace 203.0.113.7/32 via 198.51.100.2")?;
            pause();
            net.mh
                .ip("route replace default via 10.1.1.1 src 203.0.113.7")?;
            pause();
            into_tunnel()?;
            comes_back(ctx).context("after routes")?;

            net.mh.ip("address del 203.0.113.7/32 dev lo")?;
            pause();
            net.mh.ip("address add 203.0.113.7/32 dev lo")?;
            net.ha.ip("address del 198.51.100.1/30 dev core")?;
            pause();
            net.ha.ip("address add 198.51.100.1/30 dev core
                route add 198.51.100.0/24 via 198.51.100.2
                route add 10.1.0.0/16 via 198.51.100.2")?;
            net.mh.ip("address del 10.1.1.7/24 dev wl1")?;
            pause();
            net.mh.ip("address add 10.1.1.7/24 dev wl1
                route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7")?;
            into_tunnel()?;
            comes_back(ctx).context("after addresses")?;

            net.mh.ip("link set wl1 down")?;
            pause();
            net.mh.ip("link set wl1 up
                route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7")?;
            into_tunnel()?;
            comes_back(ctx).context("after the link")?;

            for namespace in [&net.ha, &net.mh] {
                namespace.ip("link set mml0 down")?;
                pause();
                namespace.ip("link del mml0")?;
                // With the device the route into it went, and the plain one shows again.
                net.ha.ip("route replace 203.0.113.7/32 via 198.51.100.2")?;
                net.mh
                    .ip("route replace default via 10.1.1.1 src 203.0.113.7")?;
                pause();
                namespace.ip("link add mml0 type mml\nlink set mml0 up")?;
                into_tunnel()?;
            }
            comes_back(ctx).context("after the devices")?;

            ensure!(
                module::try_unload(MODULE) == Err(nix::errno::Errno::EBUSY)
                    || module::try_unload(MODULE) == Err(nix::errno::Errno::EAGAIN),
                "the module went though policies stand"
            );
            comes_back(ctx).context("after the module was asked to go")?;
        }
        Ok(())
    })?;
    everything(ctx, &marker)?;
    let seen = all_sealed(captures, &marker)?;
    ensure!(seen > 1000, "only {seen} sealed packets were captured");
    Ok(())
}

/// Ends a namespace that holds CSAs, a device and packets on a slow link.
fn visitor(ctx: &Ctx) -> Result<()> {
    let ha = &ctx.net.ha;
    let visitor = Netns::add("visitor")?;
    visitor.ip("link add ha type veth peer name visitor netns ha
        address add 10.9.0.7/24 dev ha
        link set ha up
        link add mml0 type mml
        link set mml0 up
        address add 203.0.113.99/32 dev lo
        route add 198.51.100.1/32 via 10.9.0.1
        route add default dev mml0 src 203.0.113.99")?;
    ha.ip("address add 10.9.0.1/24 dev visitor\nlink set visitor up")?;
    visitor.tc("qdisc add dev ha root netem delay 200ms limit 1000")?;
    let guest = Ipv4Addr::new(203, 0, 113, 99);
    let mut keys = Keys::new(&Options::default());
    keys.from_mh.source = Ipv4Addr::new(10, 9, 0, 7);
    zone_tunnel::send(
        &visitor,
        &[add(&keys.from_mh, Role::Origin, ((guest, 32), ANY), 64, 0)],
    )?;
    let socket = traffic::udp(&visitor, guest, 5000)?;
    for _ in 0..100 {
        let _ = socket.send_to(&[0x17; 900], (CN, 4000));
    }
    drop(socket);
    drop(visitor);
    let end = Instant::now() + ctx.seconds(10.0);
    while ha.attempt(&["ip", "link", "show", "visitor"])?.success {
        ensure!(Instant::now() < end, "the namespace did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn thousand(ctx: &mut Ctx) -> Result<()> {
    // A debug kernel takes twenty times as long, and looks twenty times as closely.
    let rounds = if ctx.patience > 1.0 { 50 } else { 1000 };
    let ctx = &*ctx;
    let net = &ctx.net;
    let options = Options::default();
    let mut keys = ctx.zone_tunnel(&options)?;
    let slow = || -> Result<()> {
        net.ha
            .tc("qdisc replace dev core root netem delay 30ms limit 1000")?;
        net.fa1
            .tc("qdisc replace dev wl1 root netem delay 30ms limit 1000")?;
        net.mh
            .tc("qdisc replace dev wl1 root netem delay 30ms limit 1000")
    };
    slow()?;
    let spdflush = || {
        for namespace in [&net.ha, &net.mh] {
            zone_tunnel::send(
                namespace,
                &[Message::new(zone_message::SPDFLUSH, Vec::new())],
            )?;
        }
        anyhow::Ok(())
    };
    with_stream(ctx, &[0x42; 1000], || {
        for round in 0..rounds {
            match round % 20 {
                7 => {
                    spdflush()?;
                    zone_tunnel::protect(net)?;
                }
                13 => {
                    for namespace in [&net.ha, &net.mh] {
                        namespace.ip("link del mml0\nlink add mml0 type mml\nlink set mml0 up")?;
                    }
                    crate::tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
                }
                17 if round % 100 == 17 => visitor(ctx)?,
                19 if round % 100 == 99 => {
                    spdflush()?;
                    module::unload(MODULE, ctx.seconds(10.0))?;
                    ctx.modules.load(MODULE)?;
                    keys = ctx.zone_tunnel(&options)?;
                }
                even if even % 2 == 0 => {
                    zone_tunnel::flush_csas(net)?;
                    keys = zone_tunnel::load(net, &options)?;
                }
                _ => {
                    for (namespace, sa, role) in [
                        (&net.ha, &keys.to_mh, Role::Origin),
                        (&net.mh, &keys.to_mh, Role::Terminus),
                        (&net.fa1, &keys.to_mh, Role::Relay),
                        (&net.mh, &keys.from_mh, Role::Origin),
                    ] {
                        let named = zone_message::name(zone_message::DELETE, sa, role);
                        zone_tunnel::send(namespace, &[named])?;
                    }
                    zone_tunnel::flush_csas(net)?;
                    keys = zone_tunnel::load(net, &options)?;
                }
            }
            if round % 25 == 24 {
                comes_back(ctx).with_context(|| format!("round {round}"))?;
            }
        }
        Ok(())
    })
}

/// Adds strangers' CSAs, counted from `from`.
pub(super) fn add_many(genl: &mut Genl, from: u32, count: u32, role: Role) -> Result<()> {
    for number in from..from + count {
        genl::accepted(
            genl.pfkey(&stranger(number, role).octets())?,
            &format!("CSA number {number}"),
        )?;
    }
    Ok(())
}

fn ten_thousand(ctx: &mut Ctx) -> Result<()> {
    const COUNT: u32 = 10_000;
    ctx.zone_tunnel(&Options::default())?;
    let net = &ctx.net;
    let mut genl = Genl::open(&net.ha)?;
    let (before, _) = held(&mut genl)?;
    add_many(&mut genl, 0, COUNT, Role::Terminus)?;
    ensure!(
        held(&mut genl)?.0 == before + COUNT as usize,
        "not all are listed"
    );
    let marker = traffic::random(16);
    everything(ctx, &marker)?;
    zone_tunnel::send(&net.ha, &[Message::new(zone_message::FLUSH, Vec::new())])?;
    ensure!(held(&mut genl)?.0 == 0, "some outlived the flush");

    // All of them end at the same second, and each is told of. Some of the events a full socket may lose: what it lost
    // it says, and the list has the truth.
    zone_tunnel::load(
        net,
        &Options {
            relay: false,
            ..Options::default()
        },
    )?;
    let events = Genl::open(&net.ha)?;
    events.join("events")??;
    let limit = ctx.seconds(15.0).as_secs();
    for number in 0..COUNT {
        let mut csa = stranger(number, Role::Origin);
        let life = Lifetime {
            added: limit,
            ..Lifetime::default()
        };
        csa.extensions
            .push(zone_message::lifetime(zone_message::LIFETIME_HARD, &life));
        genl::accepted(genl.pfkey(&csa.octets())?, "ADD with a life-time")?;
    }
    let end = Instant::now() + ctx.seconds(60.0);
    let mut told = 0;
    while held(&mut genl)?.0 > 2 && Instant::now() < end {
        while let Ok(Some(event)) = events.event(Duration::from_millis(50)) {
            told += usize::from(event.get(1) == Some(&zone_message::EXPIRE));
        }
    }
    let (left, _) = held(&mut genl)?;
    ensure!(left == 2, "{left} are left, not the two of the tunnel");
    ensure!(told > 0, "nobody was told");
    everything(ctx, &marker)?;
    // The foreign agent has no relay CSA any more.
    no_drops_but(ctx, &["too-big", "relay-no-csa"])
}

const FAILSLAB: &str = "/sys/kernel/debug/failslab";
const FAIL_PAGES: &str = "/sys/kernel/debug/fail_page_alloc";

/// Lets the allocation `nth` of this thread from now on fail while `f` runs; whether one did.
fn failing<T>(nth: u32, f: impl FnOnce() -> T) -> Result<(T, bool)> {
    let path = format!("/proc/self/task/{}/fail-nth", nix::unistd::gettid());
    // Opened before: to open it takes allocations, too.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| path.clone())?;
    file.write_at(nth.to_string().as_bytes(), 0)?;
    let value = f();
    let mut left = [0; 16];
    let read = file.read_at(&mut left, 0);
    file.write_at(b"0", 0)?;
    let left = left.get(..read?).unwrap_or_default();
    Ok((value, left.first() == Some(&b'0')))
}

/// docs/wire.md 2.1r.
fn refused_memory(ctx: &mut Ctx) -> Result<()> {
    let injects = kernel_log::is_debug_kernel() && Path::new(FAILSLAB).exists();
    if injects {
        for folder in [FAILSLAB, FAIL_PAGES] {
            for (name, value) in [("ignore-gfp-wait", "N"), ("verbose", "0")] {
                std::fs::write(format!("{folder}/{name}"), value)
                    .with_context(|| format!("{folder}/{name}"))?;
            }
        }
        std::fs::write(format!("{FAIL_PAGES}/min-order"), "0")?;
    }
    let keys = ctx.zone_tunnel(&Options::default())?;
    let net = &ctx.net;
    let other = Keys::new(&Options::default());
    let inside = (ANY, (Ipv4Addr::new(203, 0, 113, 8), 32));
    let delete = |sa, role| zone_message::name(zone_message::DELETE, sa, role);
    let flush = Message::new(zone_message::FLUSH, Vec::new());
    // What is asked, and what takes it away again where it was done.
    let requests: Vec<(&str, &Netns, Message, Message)> = vec![
        (
            "ADD of an origin",
            &net.ha,
            add(&other.to_mh, Role::Origin, inside, 64, 0),
            delete(&other.to_mh, Role::Origin),
        ),
        (
            "ADD of a terminus",
            &net.mh,
            add(&other.to_mh, Role::Terminus, inside, 8192, 0),
            delete(&other.to_mh, Role::Terminus),
        ),
        (
            "ADD of a relay",
            &net.fa1,
            add(&other.to_mh, Role::Relay, inside, 8192, 0),
            delete(&other.to_mh, Role::Relay),
        ),
        (
            "SPDADD",
            &net.cn,
            super::zone_messages::a_policy(),
            Message::new(zone_message::SPDFLUSH, Vec::new()),
        ),
        (
            "GETSPI",
            &net.cn,
            zone_message::get_spi(HA, MH, 0x2000_0000, 0x2000_00FF),
            flush.clone(),
        ),
        (
            "UPDATE",
            &net.ha,
            zone_message::update(&keys.to_mh, Role::Origin, zone_message::State::Active),
            delete(&other.to_mh, Role::Origin),
        ),
    ];
    for (what, namespace, request, undo) in &requests {
        let mut steady = Genl::open(namespace)?;
        let before = held(&mut steady)?;
        let mut refused = 0;
        for nth in 1..200 {
            let mut genl = Genl::open(namespace)?;
            let (answer, hit) = if injects {
                failing(nth, || genl.pfkey(&request.octets()))?
            } else {
                (genl.pfkey(&request.octets()), false)
            };
            let done = matches!(answer, Ok(Ok(_)));
            ensure!(
                hit || done,
                "{what}: {answer:?} though no memory was refused"
            );
            refused += usize::from(!done);
            // It may have been done, and only the answer have come to nothing.
            let _ = steady.pfkey(&undo.octets())?;
            let after = held(&mut steady)?;
            ensure!(
                after == before,
                "{what}, allocation {nth} refused: {after:?} are held, not {before:?}"
            );
            if !hit {
                break;
            }
        }
        ensure!(!injects || refused > 0, "{what}: no memory was refused");
    }
    // A dump that fails leaves the next one whole.
    if injects {
        for nth in 1..30 {
            let mut genl = Genl::open(&net.ha)?;
            let dump = Message::new(zone_message::DUMP, Vec::new()).octets();
            let _ = failing(nth, || genl.pfkey_with(&dump, genl::NLM_F_DUMP))?;
        }
        // Devices are made by another program, which inherits that its allocations fail, one in twenty.
        std::fs::write(format!("{FAILSLAB}/task-filter"), "Y")?;
        for (name, value) in [("interval", "1"), ("times", "-1"), ("probability", "5")] {
            std::fs::write(format!("{FAILSLAB}/{name}"), value)?;
        }
        for _ in 0..60 {
            let _ = net.cn.attempt(&[
                "sh",
                "-c",
                "echo 1 > /proc/self/make-it-fail; exec ip link add mml0 type mml",
            ]);
            let _ = net.cn.attempt(&["ip", "link", "del", "mml0"])?;
        }
        std::fs::write(format!("{FAILSLAB}/probability"), "0")?;
        std::fs::write(format!("{FAILSLAB}/task-filter"), "N")?;
        ensure!(held(&mut Genl::open(&net.ha)?)?.0 == 2, "the dump is short");
    }
    let marker = traffic::random(16);
    everything(ctx, &marker)?;
    no_drops_but(ctx, &["too-big"])
}
