// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Honest traffic between nodes that are guests, by the names of that between namespaces (`traffic.rs`).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use ring::rand::{SecureRandom, SystemRandom};

use crate::headers::{self, Ip};
use crate::netns::Netns;
use crate::sockets::{Socket, Stream, UdpSocket};

/// How long something that should arrive is waited for: six guests may share one processor.
pub const ARRIVES: Duration = Duration::from_secs(30);
/// How long something that must not arrive is waited for.
pub const SILENCE: Duration = Duration::from_millis(1500);
/// How much of a stream is carried to or from an agent at once.
const PIECE: usize = 64 * 1024;

/// Octets nobody could have guessed, so finding them anywhere means they leaked.
pub fn random(length: usize) -> Vec<u8> {
    let mut octets = vec![0u8; length];
    // The guest's generator is seeded by its CPU; a failure would only make octets zero and the searches below fail.
    let _ = SystemRandom::new().fill(&mut octets);
    octets
}

/// A payload of `length` octets made of a marker over and over, so that each packet of any size holds it whole.
pub fn marked(marker: &[u8], length: usize) -> Vec<u8> {
    marker.iter().copied().cycle().take(length).collect()
}

/// A UDP socket at a node.
pub fn udp(namespace: &Netns, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    UdpSocket::open(namespace, address, port)
        .with_context(|| format!("UDP {address}:{port} at {}", namespace.name()))
}

/// The next datagram, or None after `patience`.
pub fn receive(socket: &UdpSocket, patience: Duration) -> Result<Option<Vec<u8>>> {
    socket.receive(patience)
}

/// Sends one datagram and waits for it, octet for octet.
pub fn udp_arrives(from: &UdpSocket, to: &UdpSocket, data: &[u8]) -> Result<()> {
    from.send_to(data, to.local_addr()?)
        .context("cannot send")?;
    let received = receive(to, ARRIVES)?
        .with_context(|| format!("a datagram of {} octets did not arrive", data.len()))?;
    ensure!(
        received == data,
        "a datagram of {} octets arrived changed",
        data.len()
    );
    Ok(())
}

/// Nothing arrives at the socket.
pub fn silent(socket: &UdpSocket) -> Result<()> {
    match receive(socket, SILENCE)? {
        None => Ok(()),
        Some(data) => bail!(
            "{} octets arrived that must not: {:02x?}",
            data.len(),
            data.get(..data.len().min(32)).unwrap_or_default()
        ),
    }
}

/// A connection's two ends, the client's first.
pub fn tcp_pair(
    client: &Netns,
    server: &Netns,
    address: Ipv4Addr,
    port: u16,
) -> Result<(Stream, Stream)> {
    Stream::pair(client, server, address, port).context("cannot connect")
}

/// Sends `data` over a new connection from `client` to `server` and checks that it comes whole, then the same back.
pub fn tcp_arrives(
    client: &Netns,
    server: &Netns,
    address: Ipv4Addr,
    port: u16,
    data: &[u8],
) -> Result<()> {
    let (near, far) = tcp_pair(client, server, address, port)?;
    stream_arrives(&near, &far, data)?;
    stream_arrives(&far, &near, data)
}

/// Sends `data` one way and checks that it comes whole.
pub fn stream_arrives(from: &Stream, to: &Stream, data: &[u8]) -> Result<()> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            for piece in data.chunks(PIECE) {
                from.write(piece)?;
            }
            from.shutdown()
        });
        let mut received = Vec::with_capacity(data.len());
        loop {
            let piece = to
                .read(PIECE)
                .with_context(|| format!("TCP stalled after {} octets", received.len()))?;
            if piece.is_empty() {
                break;
            }
            received.extend(piece);
        }
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("the sender panicked"),
        }
        ensure!(received == data, "TCP gave other octets than were sent");
        Ok(())
    })
}

/// Sends `data` by a stream that stays, and checks that it comes whole.
pub fn part_arrives(from: &Stream, to: &Stream, data: &[u8]) -> Result<()> {
    std::thread::scope(|scope| {
        let sender =
            scope.spawn(move || data.chunks(PIECE).try_for_each(|piece| from.write(piece)));
        let mut received = Vec::with_capacity(data.len());
        while received.len() < data.len() {
            let piece = to
                .read(PIECE.min(data.len() - received.len()))
                .with_context(|| format!("TCP stalled after {} octets", received.len()))?;
            ensure!(
                !piece.is_empty(),
                "TCP ended after {} octets",
                received.len()
            );
            received.extend(piece);
        }
        ensure!(received == data, "TCP gave other octets than were sent");
        match sender.join() {
            Ok(sent) => sent,
            Err(_) => bail!("the sender panicked"),
        }
    })
}

/// A raw socket that sends whole IPv4 packets and receives those of one protocol.
pub fn raw(namespace: &Netns, protocol: u8) -> Result<Socket> {
    Socket::open(namespace, protocol)
}

/// Sends a whole IPv4 packet, as it is, to where its header says.
pub fn send_raw(socket: &Socket, packet: &[u8]) -> Result<()> {
    socket.send(packet).context("cannot send")
}

/// Waits at a raw socket for a packet that `wanted` says is it.
pub fn await_raw<T>(
    socket: &Socket,
    patience: Duration,
    mut wanted: impl FnMut(&Ip<'_>) -> Option<T>,
) -> Result<Option<T>> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let Some(packet) = socket.receive(left)? else {
            return Ok(None);
        };
        if let Some(found) = Ip::parse(&packet).and_then(|ip| wanted(&ip)) {
            return Ok(Some(found));
        }
    }
}

/// An ICMP echo and its reply, both with `data`.
pub fn ping_arrives(from: &Netns, source: Ipv4Addr, to: Ipv4Addr, data: &[u8]) -> Result<()> {
    let socket = raw(from, headers::ICMP)?;
    let nonce = random(4);
    let rest = [nonce[0], nonce[1], nonce[2], nonce[3]];
    let mut packet = headers::IpDraft::new(source, to, headers::ICMP);
    packet.id = u16::from_be_bytes([nonce[2], nonce[3]]);
    send_raw(&socket, &packet.write(&headers::icmp(8, 0, rest, data)))?;
    let reply = await_raw(&socket, ARRIVES, |ip| {
        (ip.source == to
            && ip.payload.first() == Some(&0)
            && ip.payload.get(4..8) == Some(&rest[..]))
        .then(|| ip.payload.get(8..) == Some(data))
    })?;
    match reply {
        Some(true) => Ok(()),
        Some(false) => bail!("an echo of {} octets came back changed", data.len()),
        None => bail!(
            "no reply to an echo of {} octets from {source} to {to}",
            data.len()
        ),
    }
}
