// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Goodput of several TCP flows at once, each under a CSA of its own: the mobile host has as many home addresses, and the
//! home agent chooses each flow's CSA by them.
//!
//! iperf3 knows one destination, so the flows are this process': a thread that writes and one that reads for each. All of
//! it runs on the one vCPU, as with one flow; what is compared is what several cost against one, and against kernel ESP's
//! states and policies of the same number.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::goodput;
use super::row::Row;
use super::way::{self, Way};
use super::Bench;
use crate::netns::Netns;
use crate::report;
use crate::stats::Stats;
use crate::topology::{Shape, Topology, HA, MH};
use crate::zone_esp::Sa;
use crate::zone_message::{self, Action, Direction, Prefix, Role, ANY};
use crate::zone_tunnel::{self, Keys, Options};
use crate::{traffic, tunnel};

/// How many there are at once.
const FLOWS: [u8; 3] = [1, 8, 64];
/// In the order they are measured.
const WAYS: [Way; 3] = [Way::KernelEsp, Way::TwoZoneEspNoRelay, Way::TwoZoneEsp];
/// The home addresses, one after the other from here.
const HOMES: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
/// The port they listen on.
const PORT: u16 = 5300;
/// How long the flows run before they are measured: their windows are open by then.
const OPENING: Duration = Duration::from_secs(1);
/// Octets that all sockets' buffers have together. With the kernel's own limit of some megabytes each, 64 flows would have
/// seconds of packets queue before one CPU, and send again what only waits.
const BUFFERS: u32 = 4 << 20;
/// Octets written and read in one call, as iperf3 does.
const PIECE: usize = 128 * 1024;

fn homes(flows: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..u32::from(flows)).map(|flow| Ipv4Addr::from(u32::from(HOMES) + flow))
}

/// Measures every number of flows, with offloads off and on.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    goodput::roomy_backlog()?;
    for (on, offload) in [(false, "off"), (true, "on")] {
        let mut alone: Vec<f64> = Vec::new();
        let wanted = |flows: &u8| *flows == 1 || bench.wants_of(&format!("flows-{flows}"));
        for flows in FLOWS.into_iter().filter(wanted) {
            let mut kernel = None;
            for (at, way) in WAYS.into_iter().enumerate() {
                let rate = measured(bench, way, flows, on)?;
                if alone.len() == at {
                    alone.push(rate);
                }
                let row = |peer, peer_value| {
                    Row {
                        name: &format!("flows-{flows}-{}", way.name()),
                        offload,
                        value: rate,
                        unit: "Mb/s",
                        peer,
                        peer_value,
                    }
                    .report(bench);
                };
                if let Some(kernel) = kernel {
                    row("kernel-esp", kernel);
                } else {
                    kernel = Some(rate);
                }
                row("one-flow", alone[at]);
            }
        }
    }
    Ok(())
}

fn measured(bench: &Bench<'_>, way: Way, flows: u8, on: bool) -> Result<f64> {
    let lay = || {
        let net = Topology::up(Shape::Chain)?;
        for home in homes(flows) {
            net.mh.ip(&format!("address add {home}/32 dev lo"))?;
        }
        net.ha.ip("route add 203.0.113.0/24 via 198.51.100.2")?;
        net.fa1.ip("route add 203.0.113.0/24 via 10.1.1.7")?;
        match way {
            Way::KernelEsp => kernel_esp(&net, flows)?,
            _ => two_zone_esp(&net, flows, way == Way::TwoZoneEsp)?,
        }
        way::offloads(&net, on)?;
        // Least, first and most.
        let most = BUFFERS / u32::from(flows);
        let buffers = format!("4096 {} {most}", most.min(128 * 1024));
        net.cn.sysctl("net.ipv4.tcp_wmem", &buffers)?;
        net.mh.sysctl("net.ipv4.tcp_rmem", &buffers)?;
        let rate = goodput_of(&net, flows, bench.seconds)?;
        if way != Way::KernelEsp {
            each_sealed(&net.ha, flows)?;
        }
        report::step(format!(
            "{rate:.1} Mb/s in {flows} flows over {}, offloads {on}",
            way.name()
        ));
        Ok(rate)
    };
    match way {
        Way::KernelEsp => lay(),
        _ => bench.with_module(lay),
    }
    .with_context(|| format!("{flows} flows over {}, offloads {on}", way.name()))
}

/// States and policies of the kernel's own, a pair for each home address.
fn kernel_esp(net: &Topology, flows: u8) -> Result<()> {
    let (mut states, mut at_ha, mut at_mh) = (String::new(), String::new(), String::new());
    for (id, home) in (1..).zip(homes(flows)) {
        for (source, destination, spi) in [(HA, MH, 0x1000 + id), (MH, HA, 0x2000 + id)] {
            let key = tunnel::hex(&traffic::random(36));
            states += &format!("xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid {id} mode tunnel replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{key} 128\n");
        }
        let policy = |selectors: &str, direction: &str, source, destination| {
            format!("xfrm policy add {selectors} dir {direction} tmpl src {source} dst {destination} proto esp reqid {id} mode tunnel\n")
        };
        let to_mh = format!("src 0.0.0.0/0 dst {home}/32");
        let from_mh = format!("src {home}/32 dst 0.0.0.0/0");
        at_ha += &policy(&to_mh, "out", HA, MH);
        at_ha += &policy(&from_mh, "fwd", MH, HA);
        at_ha += &policy(&from_mh, "in", MH, HA);
        at_mh += &policy(&from_mh, "out", MH, HA);
        at_mh += &policy(&to_mh, "in", HA, MH);
    }
    net.ha.ip(&format!("{states}{at_ha}"))?;
    net.mh.ip(&format!("{states}{at_mh}"))
}

/// CSAs and policies, a pair for each home address.
fn two_zone_esp(net: &Topology, flows: u8, relay: bool) -> Result<()> {
    zone_tunnel::devices(net)?;
    let options = Options::default();
    let (mut at_ha, mut at_fa, mut at_mh) = (Vec::new(), Vec::new(), Vec::new());
    for home in homes(flows) {
        let home: Prefix = (home, 32);
        let (to_mh, from_mh) = ((ANY, home), (home, ANY));
        let keys = Keys::new(&options);
        let add = |sa: &Sa, role, selected| {
            zone_message::add(sa, role, selected, options.window, options.sequence)
        };
        let protect = |direction, selected, ends| {
            let (action, priority) = (Action::Protect, zone_tunnel::PRIORITY);
            zone_message::policy(action, direction, selected, 0, priority, ends)
        };
        at_mh.extend([
            add(&keys.to_mh, Role::Terminus, to_mh),
            add(&keys.from_mh, Role::Origin, from_mh),
            protect(Direction::Out, from_mh, Some((MH, HA))),
            protect(Direction::In, to_mh, None),
        ]);
        at_fa.extend([
            add(&keys.to_mh, Role::Relay, to_mh),
            add(&keys.from_mh, Role::Relay, from_mh),
        ]);
        at_ha.extend([
            add(&keys.from_mh, Role::Terminus, from_mh),
            add(&keys.to_mh, Role::Origin, to_mh),
            protect(Direction::Out, to_mh, Some((HA, MH))),
            protect(Direction::In, from_mh, None),
        ]);
    }
    zone_tunnel::send(&net.mh, &at_mh)?;
    if relay {
        zone_tunnel::send(&net.fa1, &at_fa)?;
    }
    zone_tunnel::send(&net.ha, &at_ha)?;
    net.ha.ip("route replace 203.0.113.0/24 dev mml0")?;
    net.mh.ip("route replace default dev mml0 src 203.0.113.7")
}

/// Each flow has gone under the CSA that was meant for it.
fn each_sealed(ha: &Netns, flows: u8) -> Result<()> {
    let sealed = Stats::read(ha)?
        .csas
        .iter()
        .filter(|csa| csa.role == Role::Origin as u8)
        .filter(|csa| {
            csa.counters
                .get("sealed-packets")
                .is_some_and(|packets| *packets > 0)
        })
        .count();
    ensure!(
        sealed == usize::from(flows),
        "{sealed} CSAs sealed packets of {flows} flows"
    );
    Ok(())
}

/// Octets received a microsecond, in bits: of all flows together, once all have begun.
fn goodput_of(net: &Topology, flows: u8, seconds: f64) -> Result<f64> {
    let streams = homes(flows)
        .map(|home| traffic::tcp_pair(&net.cn, &net.mh, home, PORT))
        .collect::<Result<Vec<(TcpStream, TcpStream)>>>()?;
    let received: Vec<AtomicU64> = streams.iter().map(|_| AtomicU64::new(0)).collect();
    let over = AtomicBool::new(false);
    let so_far = || -> Vec<u64> {
        received
            .iter()
            .map(|octets| octets.load(Ordering::Relaxed))
            .collect()
    };
    let (rate, least, before) = std::thread::scope(|scope| {
        for ((from, to), received) in streams.iter().zip(&received) {
            let over = &over;
            scope.spawn(move || write(from, over));
            scope.spawn(move || read(to, received));
        }
        std::thread::sleep(OPENING);
        let before = Segments::sent(&net.cn);
        let (start, first) = (Instant::now(), so_far());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let (took, last) = (start.elapsed(), so_far());
        over.store(true, Ordering::Relaxed);
        let each = last.iter().zip(&first).map(|(last, first)| last - first);
        let total: u64 = each.clone().sum();
        (
            total as f64 * 8.0 / took.as_secs_f64() / 1e6,
            each.min().unwrap_or(0),
            before,
        )
    });
    ensure!(least > 0, "one of {flows} flows stood still");
    let (again, sent) = Segments::sent(&net.cn)?.since(&before?);
    // On several CPUs packets of a flow overtake each other, and TCP sends again what only came late.
    let allowed = match std::thread::available_parallelism()?.get() {
        1 => 1,
        _ => 10,
    };
    ensure!(
        again * 100 <= sent * allowed,
        "{again} of {sent} segments were sent again: this measures losses"
    );
    Ok(rate)
}

fn write(mut stream: &TcpStream, over: &AtomicBool) {
    let octets = vec![0x5A; PIECE];
    while !over.load(Ordering::Relaxed) && stream.write_all(&octets).is_ok() {}
    // Who reads ends with that.
    let _ = stream.shutdown(Shutdown::Write);
}

fn read(mut stream: &TcpStream, received: &AtomicU64) {
    let mut octets = vec![0; PIECE];
    while let Ok(length @ 1..) = stream.read(&mut octets) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// TCP's own account of a node.
struct Segments {
    again: u64,
    sent: u64,
}

impl Segments {
    fn sent(node: &Netns) -> Result<Self> {
        let text = node.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
        // A line of names and a line of values (proc(5)).
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Tcp:"))
            .map(str::split_whitespace);
        let (names, values) = (lines.next(), lines.next());
        let both: Vec<(&str, &str)> = names
            .into_iter()
            .flatten()
            .zip(values.into_iter().flatten())
            .collect();
        let of = |wanted| {
            both.iter()
                .find(|(name, _)| *name == wanted)
                .and_then(|(_, value)| value.parse().ok())
                .with_context(|| format!("the kernel tells no {wanted}"))
        };
        Ok(Self {
            again: of("RetransSegs")?,
            sent: of("OutSegs")?,
        })
    }

    fn since(&self, before: &Self) -> (u64, u64) {
        (self.again - before.again, self.sent - before.sent)
    }
}
