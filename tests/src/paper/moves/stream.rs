// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a handoff costs who talks with the mobile host meanwhile: 1,000 datagrams a second, or a TCP connection that keeps
//! the link busy, from the correspondent.
//!
//! The interruption is the longest time between two arrivals at the mobile host's socket.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use socket2::SockRef;

use super::ground::Ground;
use super::{initialisation, on_ground, radio, wait, REST};
use crate::capture::Capture;
use crate::captured::Captured;
use crate::headers::{self, Ip};
use crate::module::Modules;
use crate::paper::run::{Keys, Kind, Streams};
use crate::paper::tcp_info::TcpInfo;
use crate::report;
use crate::topology::{CN, HOME};
use crate::traffic;

/// The paper's wireless link, and a queue of 120 ms.
const RADIO: &str = "rate 2mbit delay 1ms limit 20";
/// What TCP's send buffer is asked to hold, in octets: some 16 segments under way, which keep the link busy and don't overflow its
/// queue, so that what is sent again is sent again for the handoff.
const BUFFER: usize = 11_000;
/// A stream before and after the move.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER_UDP: Duration = Duration::from_millis(700);
const AFTER_TCP: Duration = Duration::from_millis(2500);
/// What still comes when nothing is sent any more.
const DRAIN: Duration = Duration::from_millis(400);
/// Sequence numbers are followed from so long before the move, and so long after it, in microseconds.
const FOLLOWED: (i64, i64) = (300_000, 1_500_000);

/// Measures the streams of one column.
pub fn measure(modules: &Modules, streams: &Streams) -> Result<Value> {
    on_ground(modules, streams.keys, streams.links(), |ground| {
        go(ground, streams)
    })
}

fn go(ground: &mut Ground<'_>, streams: &Streams) -> Result<Value> {
    ground.net().radio(RADIO)?;
    initialisation(ground)?;
    let mut runs = Vec::new();
    let mut trace = Value::Null;
    for turn in 0..streams.handoffs + 2 {
        report::step(format!(
            "handoff {turn} of {}, {:?}",
            streams.handoffs, streams.kind
        ));
        std::thread::sleep(REST);
        let run = match streams.kind {
            Kind::Udp => datagrams(ground),
            Kind::Tcp => connection(ground, (turn == 2).then_some(&mut trace)),
        };
        let run = run.with_context(|| format!("handoff {turn}"))?;
        // The first of each direction is for caches.
        if turn >= 2 {
            runs.push(run);
        }
    }
    ground.leaves()?;
    Ok(json!({ "runs": runs, "trace": trace }))
}

/// The host leaves one foreign agent for the other, and has what it needs there: when, and for how long the radio had no link, in
/// microseconds.
fn moves(ground: &mut Ground<'_>) -> Result<(i64, i64)> {
    if ground.keys == Keys::EspAnew {
        ground.closes_tunnel()?;
    }
    let since = ground.clock.now();
    let left = ground.here().link;
    ground.turn();
    let mh = &ground.net().mh;
    radio::set(mh, left, false)?;
    radio::set(mh, ground.here().link, true)?;
    let gap = ground.clock.now() - since;
    wait(ground, since, |ground| ground.is_up(since))?;
    Ok((since, gap))
}

/// The longest time between two arrivals, in microseconds.
fn longest(arrivals: &[i64]) -> i64 {
    let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

/// 1,000 datagrams a second.
fn datagrams(ground: &mut Ground<'_>) -> Result<Value> {
    let net = ground.net();
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    let to = far.local_addr()?;
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let clock = ground.clock;
    let (sent, arrived, gap) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<u32> {
            let (begin, mut sent) = (Instant::now(), 0u32);
            while !stop.load(Ordering::Acquire) {
                // Where there is no SA it is refused; it counts as lost.
                let _ = near.send_to(&sent.to_be_bytes(), to);
                sent += 1;
                let due = begin + Duration::from_millis(sent.into());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(sent)
        });
        let receiver = scope.spawn(|| -> Result<Vec<(i64, u32)>> {
            let mut arrived = Vec::new();
            while !over.load(Ordering::Acquire) {
                if let Some(data) = traffic::receive(&far, Duration::from_millis(50))? {
                    let number = data.as_slice().try_into().context("another datagram")?;
                    arrived.push((clock.now(), u32::from_be_bytes(number)));
                }
            }
            Ok(arrived)
        });
        std::thread::sleep(BEFORE);
        let moved = moves(ground);
        std::thread::sleep(AFTER_UDP);
        stop.store(true, Ordering::Release);
        std::thread::sleep(DRAIN);
        over.store(true, Ordering::Release);
        let sent = joined(sender.join());
        let arrived = joined(receiver.join());
        let (_, gap) = moved?;
        Ok::<_, anyhow::Error>((sent?, arrived?, gap))
    })?;
    let times: Vec<i64> = arrived.iter().map(|(at, _)| *at).collect();
    let distinct: BTreeSet<u32> = arrived.iter().map(|(_, number)| *number).collect();
    ensure!(distinct.len() > 500, "{} datagrams arrived", distinct.len());
    Ok(json!({
        "interruption_us": longest(&times),
        "gap_us": gap,
        "sent": sent,
        "lost": sent as usize - distinct.len(),
        "doubled": arrived.len() - distinct.len(),
    }))
}

fn joined<T>(outcome: std::thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A TCP connection that sends all that its buffer allows, else as the kernel has TCP by default.
fn connection(ground: &mut Ground<'_>, trace: Option<&mut Value>) -> Result<Value> {
    let net = ground.net();
    let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
    far.set_read_timeout(Some(Duration::from_millis(50)))?;
    SockRef::from(&near).set_send_buffer_size(BUFFER)?;
    let capture = match &trace {
        Some(_) => Some(Capture::start(&net.cn, "ha", "cn-ha")?),
        None => None,
    };
    let over = AtomicBool::new(false);
    let clock = ground.clock;
    // A send buffer takes one write more than it holds.
    let block = traffic::random(2_720);
    let ((since, gap), before, arrivals, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut stream: &TcpStream = &near;
            // Ends when the connection is shut down.
            while !over.load(Ordering::Acquire) {
                if stream.write_all(&block).is_err() {
                    break;
                }
            }
        });
        let receiver = scope.spawn(|| -> Result<(Vec<i64>, u64)> {
            let (mut arrivals, mut received) = (Vec::new(), 0);
            let mut stream: &TcpStream = &far;
            let mut buffer = vec![0; 65_536];
            while !over.load(Ordering::Acquire) {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => {
                        arrivals.push(clock.now());
                        received += length as u64;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok((arrivals, received))
        });
        std::thread::sleep(BEFORE);
        let before = TcpInfo::read(&near);
        let moved = moves(ground);
        std::thread::sleep(AFTER_TCP);
        over.store(true, Ordering::Release);
        let arrived = joined(receiver.join());
        let _ = near.shutdown(std::net::Shutdown::Both);
        let _ = sender.join();
        let (arrivals, received) = arrived?;
        Ok::<_, anyhow::Error>((moved?, before?, arrivals, received))
    })?;
    let info = TcpInfo::read(&near)?;
    for stream in [&near, &far] {
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    }
    if let (Some(trace), Some(capture)) = (trace, capture) {
        *trace = followed(&capture.stop()?, |time| clock.monotonic(time) - since);
    }
    // What was arriving before the move, and came to a rest in it.
    let around: Vec<i64> = arrivals
        .into_iter()
        .filter(|at| *at > since - 200_000)
        .collect();
    ensure!(around.len() > 10, "{} octets arrived", received);
    Ok(json!({
        "interruption_us": longest(&around),
        "gap_us": gap,
        "received": received,
        "retransmitted": info.retransmitted - before.retransmitted,
        "timeouts": info.timeouts - before.timeouts,
    }))
}

/// The correspondent's segments and what is acknowledged to it: microseconds since the move, and octets of the stream.
fn followed(captured: &Captured, time: impl Fn(Duration) -> i64) -> Value {
    let mut first = None;
    let (mut sent, mut acknowledged) = (Vec::new(), Vec::new());
    for packet in &captured.packets {
        let at = time(packet.time);
        let Some((ip, words)) = packet.header().and_then(|ip| Some((ip, numbers(&ip)?))) else {
            continue;
        };
        let octets = ip.data().map_or(0, <[u8]>::len) as u32;
        let from_cn = ip.source == CN;
        // The stream begins behind the SYN.
        let (number, of) = if from_cn {
            (words[0], &mut sent)
        } else {
            (words[1], &mut acknowledged)
        };
        let begin = match first {
            Some(begin) => begin,
            None if from_cn && octets > 0 => *first.insert(number),
            None => continue,
        };
        if (-FOLLOWED.0..FOLLOWED.1).contains(&at) && (octets > 0 || !from_cn) {
            of.push(json!([at, number.wrapping_sub(begin)]));
        }
    }
    json!({ "sent": sent, "acknowledged": acknowledged })
}

/// Sequence number and acknowledgement (RFC 9293 §3.1).
fn numbers(ip: &Ip<'_>) -> Option<[u32; 2]> {
    if ip.protocol != headers::TCP {
        return None;
    }
    let word = |at: usize| Some(u32::from_be_bytes(*ip.payload.get(at..)?.first_chunk()?));
    Some([word(4)?, word(8)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_the_longest_time_between_arrivals() {
        assert_eq!(longest(&[0, 1000, 31_000, 32_000]), 30_000);
        assert_eq!(longest(&[5]), 0);
    }
}
