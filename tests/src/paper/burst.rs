// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a burst of duplicate acknowledgements costs the foreign agent, in instructions.
//!
//! A window of segments passes; the first of them is then asked for again by as many duplicates as came after it. All of
//! them are made by raw sockets and dropped by a rule: the segments as they come to the mobile host, the acknowledgements
//! as they come to the home agent. The same is done with the rules at the foreign agent, where the packets arrive, and
//! taken off: what is left is the foreign agent's own, from a packet's arrival to its arrival at the next node, and with
//! SNOOP it includes what is sent again.
//!
//! Two things to compare with are measured without SNOOP: the same acknowledgements forwarded, and the same brought to the
//! place where SNOOP would look at them and dropped there. What a burst costs beyond the latter is SNOOP's own. The rules
//! themselves are in all of these, but for what SNOOP hides; so there theirs is measured, and added.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use socket2::Socket;

use super::path::Laid;
use super::run::Burst;
use crate::headers::{IpDraft, TcpDraft, ESP, TCP};
use crate::sink::{self, Sink};
use crate::topology::{Topology, CN, HOME};
use crate::traffic;

/// Octets of payload of a segment: a full one of the tunnel's.
const SEGMENT: usize = 1392;
/// The segments' way from the correspondent, the acknowledgements' from the mobile host.
const PORTS: (u16, u16) = (20, 1500);
const WINDOW: u16 = 65_535;
/// Flags of RFC 9293 §3.1.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Bursts, most of which lie between two timer ticks.
const BURSTS: usize = 31;

/// Where packets are dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drops {
    /// As they arrive at the foreign agent.
    Before,
    /// There, where SNOOP would have looked at them.
    Inside,
    /// As they arrive at the node behind it.
    Behind,
    /// As they arrive at the foreign agent, but one rule later.
    Later,
}

/// Instructions of one window and one burst.
#[derive(Clone, Copy)]
struct Cost {
    window: f64,
    burst: f64,
}

/// Measures it.
pub fn measure(laid: &Laid, burst: &Burst) -> Result<Value> {
    ensure!(
        (2..=1000).contains(&burst.window),
        "a window of {} segments",
        burst.window
    );
    laid.bare()?;
    let wire = if laid.is_sealed() { ESP } else { TCP };
    let mut flow = Flow::new(&laid.net, burst.window)?;
    let before = flow.cost(wire, Drops::Before)?;
    let counted = laid.snoop_counters()?;
    let behind = flow.cost(wire, Drops::Behind)?;
    let inside = match burst.snoop {
        Some(_) => None,
        None => Some(flow.cost(wire, Drops::Inside)?.burst - before.burst),
    };
    let grown = grown(&counted, &laid.snoop_counters()?);
    let packet = (behind.window - before.window) / burst.window as f64;
    // What is forwarded is dropped by a rule in the end, as what it is compared with was; what SNOOP hides isn't.
    let rule = match burst.snoop {
        Some(_) => flow.cost(wire, Drops::Later)?.burst - before.burst,
        None => 0.0,
    };
    let cost = behind.burst - before.burst + rule;
    ensure!(
        packet > 0.0 && cost > 0.0,
        "{packet} and {cost} instructions"
    );
    Ok(json!({
        "window": burst.window,
        "duplicates": burst.window - 1,
        "bursts": BURSTS,
        "packet_instructions": packet.round(),
        "burst_instructions": cost.round(),
        "arrival_instructions": inside.map(f64::round),
        "rule_instructions": rule.round(),
        "snoop": grown,
    }))
}

/// What SNOOP's counters grew by over all bursts.
fn grown(before: &Value, after: &Value) -> Value {
    let Some(after) = after.as_object() else {
        return Value::Null;
    };
    after
        .iter()
        .filter_map(|(name, value)| {
            let more = value
                .as_u64()?
                .saturating_sub(before[name].as_u64().unwrap_or(0));
            (more > 0).then(|| (name.clone(), json!(more)))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A connection that only its packets know of.
struct Flow<'a> {
    net: &'a Topology,
    sender: Socket,
    receiver: Socket,
    window: usize,
    /// The next octet's number.
    next: u32,
    data: Vec<u8>,
}

impl<'a> Flow<'a> {
    fn new(net: &'a Topology, window: usize) -> Result<Self> {
        Ok(Self {
            net,
            sender: traffic::raw(&net.cn, TCP)?,
            receiver: traffic::raw(&net.mh, TCP)?,
            window,
            next: 1,
            data: traffic::random(SEGMENT),
        })
    }

    /// The median of many bursts.
    fn cost(&mut self, wire: u8, drops: Drops) -> Result<Cost> {
        // The rules tell the directions apart by the interfaces that packets come in by.
        let Topology { ha, fa1, mh, .. } = self.net;
        let which = |interfaces: &str| format!("iifname {{ {interfaces} }} ip protocol {wire}");
        let _sinks = match drops {
            Drops::Before => vec![Sink::add(fa1, sink::FIRST, &which("ha, wl1"))?],
            Drops::Later => vec![
                Sink::pass(fa1, "prerouting priority -301", &which("ha, wl1"))?,
                Sink::add(fa1, sink::FIRST, &which("ha, wl1"))?,
            ],
            Drops::Inside => vec![Sink::add(fa1, sink::LAST, &which("ha, wl1"))?],
            Drops::Behind => vec![
                Sink::add(mh, sink::FIRST, &which("wl1"))?,
                Sink::add(ha, sink::FIRST, &which("fa1"))?,
            ],
        };
        // Neighbours are found and the flow becomes one both ends have spoken in.
        self.open()?;
        self.window_and_burst()?;
        let mut costs = (0..BURSTS)
            .map(|_| self.window_and_burst())
            .collect::<Result<Vec<Cost>>>()?;
        let mut median = |of: fn(&Cost) -> f64| {
            costs.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&costs[BURSTS / 2])
        };
        Ok(Cost {
            window: median(|cost| cost.window),
            burst: median(|cost| cost.burst),
        })
    }

    fn open(&mut self) -> Result<()> {
        self.send(self.next - 1, SYN | ACK, &[])?;
        self.acknowledge(1)
    }

    fn window_and_burst(&mut self) -> Result<Cost> {
        let first = self.next;
        let segment = SEGMENT as u32;
        let window = sink::timed(|| {
            for at in 0..self.window as u32 {
                self.send(first.wrapping_add(at * segment), ACK, &self.data)?;
            }
            Ok(())
        })?;
        let burst = sink::timed(|| self.acknowledge(self.window - 1))?;
        self.next = first.wrapping_add(self.window as u32 * segment);
        self.acknowledge(1)?;
        Ok(Cost { window, burst })
    }

    fn send(&self, sequence: u32, flags: u8, data: &[u8]) -> Result<()> {
        let segment = TcpDraft {
            source_port: PORTS.0,
            destination_port: PORTS.1,
            sequence,
            acknowledgement: 1,
            flags,
            window: WINDOW,
        };
        let packet = IpDraft::new(CN, HOME, TCP).write(&segment.write(CN, HOME, data));
        traffic::send_raw(&self.sender, &packet).context("a segment")
    }

    /// Says so many times what is expected next.
    fn acknowledge(&self, times: usize) -> Result<()> {
        let segment = TcpDraft {
            source_port: PORTS.1,
            destination_port: PORTS.0,
            sequence: 1,
            acknowledgement: self.next,
            flags: ACK,
            window: WINDOW,
        };
        let packet = IpDraft::new(HOME, CN, TCP).write(&segment.write(HOME, CN, &[]));
        for _ in 0..times {
            traffic::send_raw(&self.receiver, &packet).context("an acknowledgement")?;
        }
        Ok(())
    }
}
