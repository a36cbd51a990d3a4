// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Goodput of one TCP flow by iperf3, from correspondent to mobile host, offloads off and on.
//!
//! All nodes share the one vCPU, so the flow's rate is one over the instructions that all of them together spend on an
//! octet of it: sender, routers, tunnel ends and receiver.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use super::bound;
use super::cipher::Bare;
use super::row::Row;
use super::way::{self, Way};
use super::Bench;
use crate::netns::Netns;
use crate::report;
use crate::topology::{Topology, HOME};

/// In the order they are measured: what is left to chance by one must not be in another's way.
const WAYS: [Way; 5] = [
    Way::Plain,
    Way::KernelEsp,
    Way::WireGuard,
    Way::TwoZoneEsp,
    Way::TwoZoneEspNoRelay,
];

/// iperf3's port.
const PORT: u16 = 5201;

/// Octets of the TCP time stamp option, padded (RFC 7323 appendix A).
pub const TIME_STAMPS: f64 = 12.0;

/// What iperf3 said of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Received, in Mb/s of TCP payload.
    pub rate: f64,
    /// The most octets of payload in a segment.
    pub segment: f64,
}

/// Measures every way with offloads off and on.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    let bare = Bare::measure(bench.modules)?;
    roomy_backlog()?;
    for on in [false, true] {
        let mut rates: Vec<(Way, Flow)> = Vec::new();
        for way in WAYS {
            let flow = measured(bench, way, on)?;
            rates.push((way, flow));
            let peers: &[Way] = match way {
                Way::TwoZoneEsp | Way::TwoZoneEspNoRelay => {
                    &[Way::Plain, Way::KernelEsp, Way::WireGuard]
                }
                _ => &[Way::Plain],
            };
            for (peer, beside) in rates.iter().filter(|(peer, _)| peers.contains(peer)) {
                row(bench, way, on, flow, peer.name(), beside.rate);
            }
            if way == Way::TwoZoneEsp {
                let bound = bound::rate(bench, &bare, on, flow)?;
                row(bench, way, on, flow, "bound", bound);
            }
        }
        verdict(on, &rates);
    }
    Ok(())
}

fn row(bench: &Bench<'_>, way: Way, on: bool, flow: Flow, peer: &str, peer_rate: f64) {
    Row {
        name: &format!("goodput-{}", way.name()),
        offload: if on { "on" } else { "off" },
        value: flow.rate,
        unit: "Mb/s",
        peer,
        peer_value: peer_rate,
    }
    .report(bench);
}

/// Between its ends two zones must not be slower than the kernel's one, with twice its AEAD calls; and a relay that opens
/// every packet on the way, which the kernel's has no counterpart of, may take little of it.
fn verdict(on: bool, rates: &[(Way, Flow)]) {
    let of = |wanted| rates.iter().find(|(way, _)| *way == wanted);
    let state = if on { "on" } else { "off" };
    let Some((_, kernel)) = of(Way::KernelEsp) else {
        return;
    };
    if let Some((_, zones)) = of(Way::TwoZoneEspNoRelay) {
        super::check(
            &format!("two-zone ESP is at least as fast as kernel ESP, offloads {state}"),
            zones.rate >= kernel.rate,
        );
    }
    if let Some((_, relayed)) = of(Way::TwoZoneEsp) {
        super::check(
            &format!(
                "with a relay on its way it keeps 0.95 of kernel ESP's rate, offloads {state}"
            ),
            relayed.rate >= 0.95 * kernel.rate,
        );
    }
}

/// Lets the CPU's queue of received packets, which all veths share, hold a whole window: at its default length it drops
/// some now and then, and a flow's rate depends on when.
pub fn roomy_backlog() -> Result<()> {
    let path = "/proc/sys/net/core/netdev_max_backlog";
    std::fs::write(path, "20000").context(path)
}

fn measured(bench: &Bench<'_>, way: Way, on: bool) -> Result<Flow> {
    way.laid(bench, |net| {
        way::offloads(net, on)?;
        flow(net, bench.seconds, None)
    })
    .with_context(|| format!("goodput of {}, offloads {on}", way.name()))
}

/// One flow over what is laid, in segments of at most `segment` octets of payload.
pub fn flow(net: &Topology, seconds: f64, segment: Option<f64>) -> Result<Flow> {
    flow_to(&net.cn, (&net.mh, HOME.into()), seconds, segment)
}

/// The same between any nodes, to an address of the server's.
pub fn flow_to(
    client: &Netns,
    (server, to): (&Netns, IpAddr),
    seconds: f64,
    segment: Option<f64>,
) -> Result<Flow> {
    let listening = server.background(&["iperf3", "-s", "-1", "-p", &PORT.to_string()])?;
    listens(server, PORT)?;
    // iperf3 counts whole seconds only.
    let whole = format!("{}", seconds.ceil().max(1.0));
    let (to, port, most) = (
        to.to_string(),
        PORT.to_string(),
        (segment.unwrap_or(0.0) + TIME_STAMPS).to_string(),
    );
    let mut words = vec!["iperf3", "-c", &to, "-p", &port, "-t", &whole, "-J"];
    if segment.is_some() {
        words.extend(["-M", &most]);
    }
    let said = client.run(&words)?;
    listening.finish()?;
    parse(&said)
}

/// Reads iperf3's JSON.
fn parse(said: &str) -> Result<Flow> {
    let said: Value = serde_json::from_str(said).context("iperf3's JSON")?;
    if let Some(error) = said["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let number = |pointer: &str| {
        said.pointer(pointer)
            .and_then(Value::as_f64)
            .with_context(|| format!("iperf3 tells no {pointer}"))
    };
    let rate = number("/end/sum_received/bits_per_second")? / 1e6;
    // One that was set has the options in it; one that wasn't has not.
    let segment = number("/start/tcp_mss_default")
        .or_else(|_| number("/start/tcp_mss").map(|most| most - TIME_STAMPS))?;
    let again = number("/end/sum_sent/retransmits")?;
    let sent = number("/end/sum_sent/bytes")? / segment;
    report::step(format!(
        "{rate:.1} Mb/s in segments of {segment}, {again} of {sent:.0} sent again"
    ));
    ensure!(
        again <= sent / 100.0,
        "{again} of {sent:.0} segments were sent again: this measures losses"
    );
    Ok(Flow { rate, segment })
}

/// Waits until something listens on a TCP port.
fn listens(namespace: &Netns, port: u16) -> Result<()> {
    // Local address:port in hexadecimal, the peer's, the state: 0A is LISTEN (proc(5)).
    let wanted = format!(":{port:04X}");
    for _ in 0..500 {
        let tables = namespace.enter(|| {
            let table = |name: &str| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
            };
            Ok(table("tcp") + &table("tcp6"))
        })?;
        let listening = tables.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&wanted) && fields.nth(1) == Some("0A")
        });
        if listening {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens on port {port} in {}", namespace.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_slowed_by_losses_is_refused() {
        let said = |again: u32| {
            format!(
                r#"{{"start":{{"tcp_mss_default":1448}},"end":{{"sum_sent":{{"bytes":1448000,"retransmits":{again}}},"sum_received":{{"bits_per_second":7.2e8}}}}}}"#
            )
        };
        let flow = parse(&said(10)).unwrap();
        assert_eq!((flow.rate, flow.segment), (720.0, 1448.0));
        assert!(parse(&said(11)).is_err());
        assert!(parse(r#"{"error":"unable to connect"}"#).is_err());
    }
}
