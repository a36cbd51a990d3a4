// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Honest traffic: UDP, TCP and ping between nodes, by sockets of this process that live in the nodes' namespaces.

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener,
    TcpStream, UdpSocket,
};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::headers::{self, Ip};
use crate::netns::Netns;
use crate::sys;

/// How long something that should arrive is waited for. Nothing is lost on these links but on purpose; a debug kernel takes
/// long for what TCP tries again.
pub const ARRIVES: Duration = Duration::from_secs(30);
/// How long something that must not arrive is waited for.
pub const SILENCE: Duration = Duration::from_millis(300);

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

/// A UDP socket in `namespace` with room for bursts, whose datagrams may be fragmented on their way.
pub fn udp(namespace: &Netns, address: impl Into<IpAddr>, port: u16) -> Result<UdpSocket> {
    let address = address.into();
    let socket = namespace.enter(|| {
        UdpSocket::bind(SocketAddr::new(address, port))
            .with_context(|| format!("UDP {address}:{port} in {}", namespace.name()))
    })?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
    let (level, option, fragment) = if address.is_ipv4() {
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        )
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DONT,
        )
    };
    sys::set_option(&socket, level, option, fragment)?;
    socket.set_read_timeout(Some(ARRIVES))?;
    Ok(socket)
}

/// Sets DF on what the socket sends, and makes it fail where the path is known to be too narrow.
pub fn dont_fragment(socket: &UdpSocket) -> Result<()> {
    Ok(sys::set_option(
        socket,
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::IP_PMTUDISC_DO,
    )?)
}

/// The next datagram, or None after `patience`.
pub fn receive(socket: &UdpSocket, patience: Duration) -> Result<Option<Vec<u8>>> {
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = vec![0u8; 65_536];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
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
    address: impl Into<IpAddr>,
    port: u16,
) -> Result<(TcpStream, TcpStream)> {
    let address = SocketAddr::new(address.into(), port);
    let listener = server.enter(|| Ok(TcpListener::bind(address)?))?;
    let near = client
        .enter(|| Ok(TcpStream::connect_timeout(&address, ARRIVES)?))
        .context("cannot connect")?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(ARRIVES))?;
        stream.set_write_timeout(Some(ARRIVES))?;
    }
    Ok((near, far))
}

/// Sends `data` over a new connection from `client` to `server` and checks that it comes whole, then the same back.
pub fn tcp_arrives(
    client: &Netns,
    server: &Netns,
    address: impl Into<IpAddr>,
    port: u16,
    data: &[u8],
) -> Result<()> {
    let (near, far) = tcp_pair(client, server, address, port)?;
    stream_arrives(&near, &far, data)?;
    stream_arrives(&far, &near, data)
}

/// Sends `data` one way and checks that it comes whole.
pub fn stream_arrives(mut from: &TcpStream, mut to: &TcpStream, data: &[u8]) -> Result<()> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            from.write_all(data)?;
            from.shutdown(Shutdown::Write)?;
            Ok(())
        });
        let mut received = Vec::with_capacity(data.len());
        to.read_to_end(&mut received)
            .with_context(|| format!("TCP stalled after {} octets", received.len()))?;
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("the sender panicked"),
        }
        ensure!(received == data, "TCP gave other octets than were sent");
        Ok(())
    })
}

/// Sends `data` by a stream that stays, and checks that it comes whole.
pub fn part_arrives(mut from: &TcpStream, mut to: &TcpStream, data: &[u8]) -> Result<()> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || from.write_all(data));
        let mut received = vec![0; data.len()];
        to.read_exact(&mut received).context("TCP stalled")?;
        ensure!(received == data, "TCP gave other octets than were sent");
        match sender.join() {
            Ok(sent) => Ok(sent?),
            Err(_) => bail!("the sender panicked"),
        }
    })
}

/// A raw socket that sends whole IPv4 packets and receives those of one protocol.
pub fn raw(namespace: &Netns, protocol: u8) -> Result<Socket> {
    namespace.enter(|| {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(i32::from(protocol))),
        )
        .context("raw socket")?;
        socket.set_header_included_v4(true)?;
        // What this host has learnt of the path must not keep a packet of any size back.
        sys::set_option(
            &socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        )?;
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 16 << 20)?;
        Ok(socket)
    })
}

/// Sends a whole IPv6 packet, as it is, from a node.
pub fn send_raw6(node: &Netns, destination: Ipv6Addr, packet: &[u8]) -> Result<()> {
    node.enter(|| {
        let protocol = Some(Protocol::from(libc::IPPROTO_RAW));
        let socket = Socket::new(Domain::IPV6, Type::RAW, protocol).context("raw socket")?;
        socket
            .send_to(packet, &SocketAddrV6::new(destination, 0, 0, 0).into())
            .context("cannot send")?;
        Ok(())
    })
}

/// Sends a whole IPv4 packet, as it is, to where its header says.
pub fn send_raw(socket: &Socket, packet: &[u8]) -> Result<()> {
    let destination = Ip::parse(packet).context("not an IPv4 packet")?.destination;
    socket
        .send_to(packet, &SocketAddrV4::new(destination, 0).into())
        .context("cannot send")?;
    Ok(())
}

/// Waits at a raw socket for a packet that `wanted` says is it.
pub fn await_raw<T>(
    socket: &Socket,
    patience: Duration,
    mut wanted: impl FnMut(&Ip<'_>) -> Option<T>,
) -> Result<Option<T>> {
    let end = Instant::now() + patience;
    let mut buffer = vec![0u8; 65_536];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut reader = socket;
        match reader.read(&mut buffer) {
            Ok(length) => {
                if let Some(found) = buffer
                    .get(..length)
                    .and_then(Ip::parse)
                    .and_then(|ip| wanted(&ip))
                {
                    return Ok(Some(found));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
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
