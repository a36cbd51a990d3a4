// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Instructions a packet for seal, relay and open, beside the kernel's ESP and plain forwarding.
//!
//! The method: UDP datagrams of one size are sent one by one from the correspondent and dropped by a rule at the very
//! start of PREROUTING (priority raw) in one node on their way. What separates two such nodes is a stage: the
//! instructions of a packet that is dropped at the later place, less those of one that is dropped at the earlier. So
//! sender, drop and everything before the stage cancel out, and a stage is all that its node does from the packet's
//! arrival in PREROUTING to its arrival in the next node's PREROUTING, the device and the wire (a veth) included:
//!
//! | stage | earlier drop | later drop |
//! |---|---|---|
//! | seal, or forwarding at the home agent | `ha` | `fa1` |
//! | relay, or forwarding at the foreign agent | `fa1` | `mh`, the packet still sealed |
//! | open | `mh`, the packet still sealed | `mh`, the inner packet in PREROUTING |
//!
//! On one CPU a veth hands a packet over within the call that sends it: when `send` returns, the packet has been
//! dropped. Each burst checks that (`sink`), and that the rule has counted every packet. A value is the median of many short bursts: most of them lie
//! between two timer ticks. The first rule's look at a sealed packet that it lets pass belongs to `open`, a few tens of instructions
//! and the same for both kinds of ESP.

use std::io::ErrorKind;
use std::net::UdpSocket;

use anyhow::{ensure, Context, Result};

use super::row::Row;
use super::way::{self, Way};
use super::Bench;
use crate::headers::{ESP, UDP};
use crate::netns::Netns;
use crate::report;
use crate::sink::{self, Sink};
use crate::topology::{Topology, CN, HOME};
use crate::traffic;

/// Octets of the inner datagram, IP header and all.
const SIZES: [usize; 3] = [64, 576, 1400];
/// Octets of the IPv4 and the UDP header, and of the IPv6 and the UDP header.
const HEADERS: [usize; 2] = [28, 48];
/// The discard port.
pub const PORT: u16 = 9;
/// Few packets a burst, so that most bursts lie between two timer ticks (4 ms), and many bursts.
const BURSTS: usize = 31;
const PACKETS: usize = 24;
/// What the relay may cost, in plain forwardings of a packet.
const RELAY_LIMIT: f64 = 2.5;
/// What counts as growth of the relay's cost from the smallest datagram to the largest.
const GROWTH: f64 = 1.03;

/// Instructions a packet, one for each size.
pub type Cost = Vec<f64>;

/// What each node of a way spends on a packet.
pub struct Stages {
    pub home_agent: Cost,
    pub foreign_agent: Cost,
    /// Nothing for plain forwarding.
    pub open: Cost,
}

/// Measures all stages.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    let plain = stages(bench, Way::Plain)?;
    let kernel = stages(bench, Way::KernelEsp)?;
    let zones = stages(bench, Way::TwoZoneEsp)?;
    for (at, size) in SIZES.iter().enumerate() {
        for (stage, value, peer, beside) in [
            ("seal", &zones.home_agent, "kernel-esp", &kernel.home_agent),
            ("seal", &zones.home_agent, "plain", &plain.home_agent),
            ("open", &zones.open, "kernel-esp", &kernel.open),
            ("relay", &zones.foreign_agent, "plain", &plain.foreign_agent),
        ] {
            Row {
                name: &format!("{stage}-{size}"),
                offload: "",
                value: value[at],
                unit: "instructions",
                peer,
                peer_value: beside[at],
            }
            .report(bench);
        }
    }
    if bench.wants("relay-64") {
        verdicts(&zones.foreign_agent, &plain.foreign_agent);
    }
    Ok(())
}

/// What is promised of the relay.
fn verdicts(relay: &Cost, plain: &Cost) {
    let grows = relay[SIZES.len() - 1] > relay[0] * GROWTH;
    let within = relay
        .iter()
        .zip(plain)
        .all(|(relay, plain)| *relay <= plain * RELAY_LIMIT);
    super::check("the relay's cost doesn't grow with the payload", !grows);
    super::check(
        &format!("the relay costs at most {RELAY_LIMIT} times plain forwarding"),
        within,
    );
}

fn stages(bench: &Bench<'_>, way: Way) -> Result<Stages> {
    way.laid(bench, |net| {
        way::offloads(net, false)?;
        all(net, way, &SIZES)
    })
    .with_context(|| format!("instructions a packet of {}", way.name()))
}

/// The stages of a way that is laid, for inner datagrams of these sizes.
pub fn all(net: &Topology, way: Way, sizes: &[usize]) -> Result<Stages> {
    let wire = if way == Way::Plain { UDP } else { ESP };
    let sender = traffic::udp(&net.cn, CN, 0)?;
    sender.connect((HOME, PORT))?;
    let until = |namespace, protocol: u8| {
        let which = format!("ip protocol {protocol}");
        until(&sender, &Place::prerouting(namespace, &which), sizes)
    };
    let at_ha = until(&net.ha, UDP)?;
    let at_fa = until(&net.fa1, wire)?;
    let at_mh = until(&net.mh, wire)?;
    let open = if wire == UDP {
        Cost::new()
    } else {
        less(&until(&net.mh, UDP)?, &at_mh)
    };
    Ok(Stages {
        home_agent: less(&at_fa, &at_ha),
        foreign_agent: less(&at_mh, &at_fa),
        open,
    })
}

/// What lies between two places.
pub fn less(later: &Cost, earlier: &Cost) -> Cost {
    later
        .iter()
        .zip(earlier)
        .map(|(later, earlier)| later - earlier)
        .collect()
}

/// Where packets are dropped.
pub struct Place<'a> {
    pub node: &'a Netns,
    pub hook: &'static str,
    /// Their IP version, and which of them, in nft's words.
    pub version: u8,
    pub which: &'a str,
}

impl<'a> Place<'a> {
    /// IPv4 packets as they come in.
    pub fn prerouting(node: &'a Netns, which: &'a str) -> Self {
        Self {
            node,
            hook: sink::FIRST,
            version: 4,
            which,
        }
    }
}

/// Instructions a packet from the call that sends it to its drop at a place.
pub fn until(sender: &UdpSocket, place: &Place<'_>, sizes: &[usize]) -> Result<Cost> {
    let node = place.node;
    let sink = Sink::of_version(node, place.version, place.hook, place.which)?;
    let mut cost = Cost::new();
    let headers = HEADERS[usize::from(sender.local_addr()?.is_ipv6())];
    for size in sizes {
        let data = traffic::random(size - headers);
        // The first packets wait for neighbours to be found, and fill caches.
        burst(sender, &data)?;
        let before = sink.count()?;
        let mut bursts = (0..BURSTS)
            .map(|_| burst(sender, &data))
            .collect::<Result<Vec<f64>>>()?;
        let counted = sink.count()? - before;
        ensure!(
            counted == (BURSTS * PACKETS) as u64,
            "{counted} packets of {size} octets were dropped at {}, not {}",
            node.name(),
            BURSTS * PACKETS
        );
        bursts.sort_by(f64::total_cmp);
        let median = bursts[BURSTS / 2];
        report::step(format!(
            "{size} octets to {}: {median:.0} instructions a packet, {:.0} to {:.0}",
            node.name(),
            bursts[0],
            bursts[BURSTS - 1]
        ));
        cost.push(median);
    }
    Ok(cost)
}

/// Sends a burst; instructions (virtual nanoseconds) a packet.
fn burst(sender: &UdpSocket, data: &[u8]) -> Result<f64> {
    let took = sink::timed(|| {
        for _ in 0..PACKETS {
            match sender.send(data) {
                // What is dropped where a host's own packets first come by is refused to who sends it.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                sent => drop(sent?),
            }
        }
        Ok(())
    })?;
    Ok(took / PACKETS as f64)
}
