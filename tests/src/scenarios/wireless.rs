// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The lab's wireless link itself: what is measured over it is worth no more than it is.
//!
//! All go from fa1 to mh over wl1. A host that is busy makes packets late, never early: no one packet has to be in time.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};

use crate::capture::{Capture, Packet};
use crate::module;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{self, MH};
use crate::wireless::{self, Wireless, WirelessCounters};
use crate::{sys, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "wireless-rate-is-exact",
        proves: "a link's packets arrive one after another, each a packet's time after the last, neither earlier nor drifting later",
        seconds: 60,
        run: rate,
    },
    Scenario {
        name: "wireless-loss-follows-the-bit-error-rate",
        proves: "a link loses 1-(1-p)^bits of its packets, counts them, and delivers all the others",
        seconds: 90,
        run: loss,
    },
    Scenario {
        name: "wireless-errors-keep-to-the-link-s-time",
        proves: "links of one seed are hit at the same times whatever is sent over them, those of another seed at others",
        seconds: 90,
        run: same_errors,
    },
    Scenario {
        name: "wireless-priority-overtakes",
        proves: "packets of priority 6 and 7 overtake those that wait and keep their own order; lower priorities overtake nothing",
        seconds: 60,
        run: priority,
    },
    Scenario {
        name: "wireless-queue-drops-at-its-tail",
        proves: "a full link drops what comes, keeps what it has, still takes packets of priority, and the kernel's own counts agree",
        seconds: 60,
        run: tail_drop,
    },
    Scenario {
        name: "wireless-refuses-what-is-no-link",
        proves: "options that make no link are refused with a reason and leave the interface as it was",
        seconds: 60,
        run: refused,
    },
    Scenario {
        name: "wireless-goes-while-packets-wait",
        proves: "link, interface and namespace can go while packets wait and come, and the module after them, but not before",
        seconds: 120,
        run: teardown,
    },
];

/// fa1's address on wl1.
const FA1: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const PORT: u16 = 5000;
/// Octets of Ethernet, IPv4 and UDP header.
const HEADERS: usize = 14 + 20 + 8;

/// An errorless link with room for all that is sent here.
const PLAIN: Wireless = Wireless {
    rate_bps: 10_000_000,
    bit_error_rate: 0.0,
    seed: 1,
    limit: 20_000,
};

/// The two ends of the traffic.
struct Ends<'a> {
    fa1: &'a Netns,
    from: UdpSocket,
    to: UdpSocket,
}

impl<'a> Ends<'a> {
    /// With offloads off and nothing but their own packets on the link.
    fn new(ctx: &'a Ctx) -> Result<Self> {
        let (fa1, mh) = (&ctx.net.fa1, &ctx.net.mh);
        topology::offload(fa1, "wl1", false)?;
        let ends = Ends {
            fa1,
            from: traffic::udp(fa1, FA1, 4000)?,
            to: traffic::udp(mh, MH, PORT)?,
        };
        // Whole bursts wait in the link, not in the socket.
        sys::set_option(
            &ends.from,
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            128 << 20,
        )?;
        traffic::udp_arrives(&ends.from, &ends.to, b"the neighbour is known")?;
        fa1.ip(&format!("neighbour change {MH} dev wl1 nud permanent"))?;
        Ok(ends)
    }

    /// Sends packet `number` in a frame of `octets`.
    fn send(&self, number: u32, octets: usize) -> Result<()> {
        let mut datagram = vec![0u8; octets - HEADERS];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        self.from
            .send_to(&datagram, SocketAddrV4::new(MH, PORT))
            .with_context(|| format!("cannot send packet {number}"))?;
        Ok(())
    }

    /// Waits until the link has dealt with `packets`.
    fn settle(&self, ctx: &Ctx, packets: u64) -> Result<WirelessCounters> {
        let end = Instant::now() + ctx.seconds(20.0);
        loop {
            let counters = wireless::counters(self.fa1, "wl1")?;
            if counters.sent + counters.overflowed >= packets {
                return Ok(counters);
            }
            ensure!(
                Instant::now() < end,
                "the link stopped: {counters:?} of {packets} packets"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The numbers of the packets that arrive: `count` of them, and no more.
    fn arrived(&self, count: u64) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < count {
            let datagram = traffic::receive(&self.to, traffic::ARRIVES)?
                .with_context(|| format!("of {count} packets {} arrived", numbers.len()))?;
            numbers.extend(datagram.first_chunk().map(|n| u32::from_be_bytes(*n)));
        }
        traffic::silent(&self.to)?;
        Ok(numbers)
    }

    /// The numbers of the packets that left the link, and when. Taken where they leave, not where they arrive: there, each
    /// CPU has a queue of its own.
    fn left(&self, capture: Capture, count: u64) -> Result<Vec<(u32, Duration)>> {
        self.arrived(count)?;
        let number = |packet: &Packet| Some(*packet.frame.get(HEADERS..)?.first_chunk()?);
        let captured = capture.stop()?;
        Ok(captured
            .packets
            .iter()
            .filter_map(|packet| Some((u32::from_be_bytes(number(packet)?), packet.time)))
            .collect())
    }
}

fn numbers(left: Vec<(u32, Duration)>) -> Vec<u32> {
    left.into_iter().map(|(number, _)| number).collect()
}

fn rate(ctx: &mut Ctx) -> Result<()> {
    let ends = Ends::new(ctx)?;
    large_frames(ctx)?;
    for (rate_bps, octets, packets) in [
        (10_000_000u64, 1_250usize, 1_600u32),
        (100_000_000, 60_000, 400),
    ] {
        let each = Duration::from_nanos(octets as u64 * 8_000_000_000 / rate_bps);
        let link = Wireless { rate_bps, ..PLAIN };
        // A host that stops the guest for half of a burst makes all of its packets late; a link that is too slow makes
        // those of all bursts late.
        let mut least = Duration::MAX;
        for _ in 0..5 {
            least = least.min(lateness(ctx, &ends, link, each, octets, packets)?);
            if least < each * packets / 200 {
                break;
            }
        }
        crate::report::step(format!(
            "{packets} packets of {each:?}: {least:?} late in the end"
        ));
        ensure!(
            least < each * packets / 200,
            "after {packets} packets of {each:?} the link is {least:?} late"
        );
    }
    Ok(())
}

/// Sends a burst over the link, whose packets take `each`. None may come early; returns by how much all of the last
/// quarter is late.
fn lateness(
    ctx: &Ctx,
    ends: &Ends,
    link: Wireless,
    each: Duration,
    octets: usize,
    packets: u32,
) -> Result<Duration> {
    link.attach(ends.fa1, "wl1")?;
    let capture = Capture::start(ends.fa1, "wl1", "wl1")?;
    // When each packet is due at the earliest and at the latest, by the clock before and after it was sent.
    let (mut earliest, mut latest) = (Duration::ZERO, Duration::ZERO);
    let mut due = Vec::new();
    for i in 0..packets {
        earliest = earliest.max(since_1970()?) + each;
        ends.send(i, octets)?;
        latest = latest.max(since_1970()?) + each;
        due.push((earliest, latest));
    }
    let counters = ends.settle(ctx, packets.into())?;
    let expected = WirelessCounters {
        sent: packets.into(),
        sent_octets: u64::from(packets) * octets as u64,
        ..WirelessCounters::default()
    };
    ensure!(counters == expected, "{counters:?} instead of {expected:?}");
    let left = ends.left(capture, packets.into())?;
    ensure!(
        left.iter().map(|(number, _)| *number).eq(0..packets),
        "{packets} packets left the link as {left:?}"
    );
    for ((number, at), (earliest, _)) in left.iter().zip(&due) {
        ensure!(
            at >= earliest,
            "packet {number} left the link {:?} before its last bit was sent",
            *earliest - *at
        );
    }
    Ok(left
        .iter()
        .zip(&due)
        .skip(3 * due.len() / 4)
        .map(|((_, at), (_, latest))| at.saturating_sub(*latest))
        .min()
        .unwrap_or_default())
}

/// Lets the link carry frames so large that even an emulated machine puts them there faster than they leave.
fn large_frames(ctx: &Ctx) -> Result<()> {
    for ns in [&ctx.net.fa1, &ctx.net.mh] {
        ns.ip("link set wl1 mtu 65535")?;
    }
    Ok(())
}

fn since_1970() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

fn loss(ctx: &mut Ctx) -> Result<()> {
    const PART: u32 = 4_000;
    const PARTS: u32 = 3;
    const OCTETS: usize = 1_000;
    let ends = Ends::new(ctx)?;
    for (seed, bit_error_rate) in [(1, 1e-6), (2, 1.6e-5)] {
        Wireless {
            rate_bps: 1_000_000_000,
            bit_error_rate,
            seed,
            ..PLAIN
        }
        .attach(ends.fa1, "wl1")?;
        // In parts that the receiving socket has room for.
        let mut lost = 0;
        for part in 1..=PARTS {
            for i in 0..PART {
                ends.send(i, OCTETS)?;
            }
            let counters = ends.settle(ctx, u64::from(part * PART))?;
            ensure!(
                counters.sent == u64::from(part * PART) && counters.overflowed == 0,
                "{counters:?}"
            );
            ends.arrived(u64::from(PART) - (counters.corrupted - lost))?;
            lost = counters.corrupted;
        }
        let share = 1.0 - (1.0 - bit_error_rate).powi(OCTETS as i32 * 8);
        let packets = PART * PARTS;
        let expected = f64::from(packets) * share;
        // Five standard deviations: once in 1.7 million runs.
        let bound = 5.0 * (expected * (1.0 - share)).sqrt();
        ensure!(
            (lost as f64 - expected).abs() < bound,
            "{lost} of {packets} packets were lost, not {expected:.0} ± {bound:.0}"
        );
    }
    Ok(())
}

/// Units of link time that [`hits`] looks at; each is 2.5 ms, 3,125 octets at 10 Mb/s.
const UNITS: u32 = 1_600;

/// When a link that never pauses was hit, in units since its first packet, by which of the numbered packets are missing.
/// `units` is a packet's length. Errors are 40 units apart on average.
fn hits(ctx: &Ctx, ends: &Ends, seed: u64, units: u32) -> Result<Vec<u32>> {
    Wireless {
        bit_error_rate: 1e-6,
        seed,
        ..PLAIN
    }
    .attach(ends.fa1, "wl1")?;
    let packets = UNITS / units;
    for i in 0..packets {
        ends.send(i, 3_125 * units as usize)?;
    }
    let counters = ends.settle(ctx, packets.into())?;
    ensure!(counters.overflowed == 0, "{counters:?}");
    let arrived: HashSet<u32> = ends
        .arrived(counters.sent - counters.corrupted)?
        .into_iter()
        .collect();
    Ok((0..packets)
        .filter(|i| !arrived.contains(i))
        .map(|i| i * units)
        .collect())
}

/// The largest share of hits that two lists have in common, over all shifts of one against the other that the moments of
/// their first packets may account for. A hit is known to three units.
fn agreement(a: &[u32], b: &[u32]) -> f64 {
    const SHIFT: i64 = 200;
    let a: Vec<i64> = a
        .iter()
        .map(|at| i64::from(*at))
        .filter(|at| (SHIFT..i64::from(UNITS) - SHIFT).contains(at))
        .collect();
    let share = |shift: i64| {
        let in_b = |at: i64| b.iter().any(|b| (i64::from(*b) + shift - at).abs() <= 1);
        a.iter().filter(|at| in_b(**at)).count() as f64 / a.len().max(1) as f64
    };
    (-SHIFT..=SHIFT).map(share).fold(0.0, f64::max)
}

fn same_errors(ctx: &mut Ctx) -> Result<()> {
    let ends = Ends::new(ctx)?;
    large_frames(ctx)?;
    let first = hits(ctx, &ends, 7, 2)?;
    // Packets of half the length: others are hit, at the same times.
    let again = hits(ctx, &ends, 7, 1)?;
    let other = hits(ctx, &ends, 8, 1)?;
    ensure!(first.len() > 20, "only {} packets were lost", first.len());
    let (same, different) = (agreement(&first, &again), agreement(&first, &other));
    crate::report::step(format!(
        "{same:.2} of one seed's errors come again, {different:.2} of another's"
    ));
    ensure!(
        same > 0.95,
        "of a link's errors only {same:.2} came again with the same seed"
    );
    ensure!(
        different < 0.5,
        "of a link's errors {different:.2} came again with another seed"
    );
    Ok(())
}

fn priority(ctx: &mut Ctx) -> Result<()> {
    const WAITING: u32 = 100;
    let ends = Ends::new(ctx)?;
    // 10 ms a packet: a second's worth of them waits.
    Wireless {
        rate_bps: 1_000_000,
        ..PLAIN
    }
    .attach(ends.fa1, "wl1")?;
    let capture = Capture::start(ends.fa1, "wl1", "wl1")?;
    for i in 0..WAITING {
        ends.send(i, 1_250)?;
    }
    let mut number = WAITING;
    let mut with_priority = |value| -> Result<()> {
        sys::set_option(&ends.from, libc::SOL_SOCKET, libc::SO_PRIORITY, value)?;
        ends.send(number, 1_250)?;
        number += 1;
        Ok(())
    };
    // The last is 4 in the low four bits.
    for value in [6, 5, 7, 0, 0x1_0006, 0x1_0004] {
        with_priority(value)?;
    }
    let counters = ends.settle(ctx, u64::from(WAITING) + 6)?;
    ensure!(
        counters.prioritised == 3,
        "{} packets had priority, not 3",
        counters.prioritised
    );
    let left = numbers(ends.left(capture, counters.sent)?);
    let is_first = |number: &u32| [100, 102, 104].contains(number);
    let (first, rest): (Vec<u32>, Vec<u32>) = left.iter().partition(|number| is_first(number));
    ensure!(
        first == [100, 102, 104],
        "packets of priority left the link as {first:?}"
    );
    ensure!(
        rest == (0..106).filter(|i| !is_first(i)).collect::<Vec<_>>(),
        "the others left it as {rest:?}"
    );
    let overtaken = left
        .iter()
        .rev()
        .take_while(|number| !is_first(number))
        .count();
    ensure!(
        overtaken > 3,
        "no packet that waited was overtaken: {left:?}"
    );
    Ok(())
}

fn tail_drop(ctx: &mut Ctx) -> Result<()> {
    const LIMIT: u32 = 10;
    const PACKETS: u32 = 60;
    let ends = Ends::new(ctx)?;
    // 100 ms a packet.
    Wireless {
        rate_bps: 100_000,
        limit: LIMIT,
        ..PLAIN
    }
    .attach(ends.fa1, "wl1")?;
    let capture = Capture::start(ends.fa1, "wl1", "wl1")?;
    for i in 0..PACKETS {
        ends.send(i, 1_250)?;
    }
    sys::set_option(&ends.from, libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?;
    ends.send(PACKETS, 1_250)?;
    let counters = ends.settle(ctx, u64::from(PACKETS) + 1)?;
    let left = numbers(ends.left(capture, counters.sent)?);
    ensure!(
        left.contains(&PACKETS) && counters.prioritised == 1,
        "the full link did not take a packet of priority"
    );
    let normal: Vec<u32> = left
        .iter()
        .copied()
        .filter(|number| *number != PACKETS)
        .collect();
    ensure!(
        normal.starts_with(&(0..LIMIT).collect::<Vec<_>>()),
        "the packets that came first are not those it kept: {normal:?}"
    );
    ensure!(
        normal.len() < PACKETS as usize && normal.is_sorted(),
        "{normal:?}"
    );
    ensure!(
        counters.overflowed == u64::from(PACKETS) + 1 - counters.sent,
        "{counters:?}"
    );
    let shown = ends
        .fa1
        .run(&["tc", "-s", "qdisc", "show", "dev", "wl1", "root"])?;
    let expected = format!(
        "Sent {} bytes {} pkt (dropped {},",
        counters.sent_octets, counters.sent, counters.overflowed
    );
    ensure!(
        shown.contains(&expected) && shown.contains("backlog 0b 0p"),
        "not `{expected}` with an empty backlog: {shown}"
    );
    Ok(())
}

fn refused(ctx: &mut Ctx) -> Result<()> {
    let ends = Ends::new(ctx)?;
    PLAIN.attach(ends.fa1, "wl1")?;
    ends.send(0, 100)?;
    let before = ends.settle(ctx, 1)?;
    for (link, reason) in [
        (
            Wireless {
                rate_bps: 0,
                ..PLAIN
            },
            "rate",
        ),
        (
            Wireless {
                rate_bps: 10_000_000_001,
                ..PLAIN
            },
            "rate",
        ),
        (Wireless { limit: 0, ..PLAIN }, "no packet"),
        (
            Wireless {
                bit_error_rate: 1.5,
                ..PLAIN
            },
            "mean gap",
        ),
        (
            Wireless {
                bit_error_rate: 1e-20,
                ..PLAIN
            },
            "mean gap",
        ),
    ] {
        let error = match link.attach(ends.fa1, "wl1") {
            Ok(()) => anyhow::bail!("{link:?} was accepted"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(reason), "{link:?} was refused with {error}");
    }
    // Without options, as tc sends it.
    let plain = ends
        .fa1
        .attempt(&["tc", "qdisc", "add", "dev", "core", "root", "wireless"])?;
    ensure!(!plain.success, "a link without options was accepted");
    let after = wireless::counters(ends.fa1, "wl1")?;
    ensure!(after == before, "the link has gone on as {after:?}");
    Ok(())
}

/// Sends to the visitor until told to stop, where no socket takes it: the kernel there answers each packet. Errors are
/// what this is about.
fn flood(fa1: &Netns, stop: &AtomicBool) -> Result<()> {
    let socket = fa1.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    socket.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send_to(&[0x42; 1_000], (Ipv4Addr::new(10, 9, 0, 7), PORT));
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(())
}

/// Packets wait for half a minute; or they pass at once, and many are lost.
const SLOW: Wireless = Wireless {
    rate_bps: 4_000,
    limit: 16,
    ..PLAIN
};
const BAD: Wireless = Wireless {
    rate_bps: 100_000_000,
    bit_error_rate: 1e-4,
    ..PLAIN
};

/// Puts links between fa1 and the visitor that packets are lost on and wait for, and takes one of them away.
fn links_go(ctx: &Ctx, fa1: &Netns, visitor: &Netns, round: u32) -> Result<()> {
    let (there, back) = ((fa1, "visitor"), (visitor, "fa1"));
    // What comes back is what got there.
    let links = [(there, BAD), (back, BAD), (back, SLOW), (there, SLOW)];
    for ((ns, device), link) in links.into_iter().chain(links) {
        link.attach(ns, device)?;
        let end = Instant::now() + ctx.seconds(10.0);
        loop {
            let counters = wireless::counters(ns, device)?;
            if counters.overflowed > 0 || counters.corrupted > 3 {
                break;
            }
            ensure!(
                Instant::now() < end,
                "packets neither wait for {device} nor are lost there: {counters:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    ensure!(
        module::try_unload(wireless::MODULE).is_err(),
        "the module went while links are up"
    );
    match round {
        0 => fa1.tc("qdisc del dev visitor root"),
        1 => fa1.ip("link set visitor down\nlink set visitor up"),
        2 => fa1.tc("qdisc replace dev visitor root pfifo limit 10"),
        3 => fa1.ip("link del visitor"),
        4 => visitor.ip("link del fa1"),
        // With the namespace.
        _ => Ok(()),
    }
}

/// Sockets of the namespace. One that was closed is among them for as long as a packet it sent is somewhere.
fn sockets(ns: &Netns) -> Result<u64> {
    let path = "/proc/thread-self/net/sockstat";
    let text = ns.enter(|| std::fs::read_to_string(path).context(path))?;
    let used = text
        .lines()
        .find_map(|line| line.strip_prefix("sockets: used "));
    Ok(used.context("no count of sockets")?.trim().parse()?)
}

fn teardown(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    let fa1 = &ctx.net.fa1;
    let sockets_before = sockets(fa1)?;
    for round in 0..6 {
        let visitor = Netns::add("visitor")?;
        visitor.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        visitor.ip("link add fa1 type veth peer name visitor netns fa1
            address add 10.9.0.7/24 dev fa1
            link set fa1 up")?;
        fa1.ip("address add 10.9.0.1/24 dev visitor\nlink set visitor up")?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let flood = scope.spawn(move || flood(fa1, stop));
            // The namespace goes while packets still come.
            let gone = links_go(ctx, fa1, &visitor, round);
            drop(visitor);
            stop.store(true, Ordering::Relaxed);
            match flood.join() {
                Ok(flooded) => flooded?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            gone.with_context(|| format!("round {round}"))
        })?;
        let end = Instant::now() + ctx.seconds(10.0);
        while fa1.attempt(&["ip", "link", "show", "visitor"])?.success {
            ensure!(Instant::now() < end, "the namespace did not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        while sockets(fa1)? > sockets_before {
            ensure!(
                Instant::now() < end,
                "round {round}: packets of the link are still somewhere"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        module::unload(wireless::MODULE, ctx.seconds(10.0))
            .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}
