// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file from correspondent to mobile host over a fresh connection, between two threads of this process.
//!
//! The mobile host connects, as a client of FTP or HTTP would; the correspondent sends and is the sender whose window is
//! followed. Octets are counted, and compared, where they arrive; the time is from the call that connects to the last
//! octet's arrival.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::run::Run;
use super::tcp_info::TcpInfo;
use crate::netns::Netns;
use crate::topology::{Topology, CN, HOME};
use crate::traffic;

/// How often the sender is asked for window and sequence number.
const SAMPLING: Duration = Duration::from_millis(20);
/// The file is this many octets over and over: a prime, so that a segment out of its place doesn't look right.
const PERIOD: usize = 65_521;
const BUFFER: usize = 64 << 10;

/// The sender at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the call that connected.
    pub time: Duration,
    pub info: TcpInfo,
}

/// What a transfer came to.
#[derive(Debug)]
pub struct Transfer {
    pub bytes: u64,
    pub seconds: f64,
    /// The sender at the end.
    pub sender: TcpInfo,
    pub trace: Vec<Sample>,
}

/// Transfers a file as the run says.
pub fn transfer(net: &Topology, run: &Run) -> Result<Transfer> {
    let listener = listener(&net.cn, run)?;
    let to = listener.local_addr()?.as_socket().context("no address")?;
    let socket = net.mh.enter(|| {
        Ok(Socket::new(
            Domain::IPV4,
            Type::STREAM,
            Some(Protocol::TCP),
        )?)
    })?;
    socket.bind(&SocketAddr::from(SocketAddrV4::new(HOME, 0)).into())?;
    let limit = Duration::from_secs_f64(run.limit_seconds);
    listener.set_read_timeout(Some(limit))?;
    let file = traffic::random(PERIOD);
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let end = begun + limit;
    std::thread::scope(|scope| {
        let (accepted, sender) = mpsc::channel();
        let sending = scope.spawn(|| send(&listener, accepted, &file, run));
        let over = &over;
        let following = scope.spawn(move || {
            let stream: TcpStream = sender.recv().context("nobody connected")?;
            let trace = follow(&stream, begun, run.trace, over)?;
            Ok((stream, trace))
        });
        let received = receive(&socket, to, &file, run.bytes, end);
        let last = Instant::now();
        over.store(true, Ordering::Release);
        // However it went, nobody may wait for what doesn't come any more: not for a connection, nor to be rid of octets.
        let _ = listener.shutdown(Shutdown::Both);
        let followed = joined(following.join()).and_then(|(stream, trace)| {
            let sender = TcpInfo::read(&stream)?;
            // What is still on its way is nobody's: both ends forget the connection at once.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            let _ = stream.shutdown(Shutdown::Both);
            Ok((sender, trace))
        });
        socket.set_linger(Some(Duration::ZERO))?;
        let sent = joined(sending.join());
        let bytes = received?;
        let (sender, trace) = followed?;
        if bytes == run.bytes {
            sent?;
        }
        Ok(Transfer {
            bytes,
            seconds: (last - begun).as_secs_f64(),
            sender,
            trace,
        })
    })
}

fn joined<T>(outcome: std::thread::Result<Result<T>>) -> Result<T> {
    match outcome {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A listener at the correspondent; what it accepts is the sender, and has all it is given here.
fn listener(cn: &Netns, run: &Run) -> Result<Socket> {
    let socket = cn.enter(|| {
        Ok(Socket::new(
            Domain::IPV4,
            Type::STREAM,
            Some(Protocol::TCP),
        )?)
    })?;
    if let Some(octets) = run.send_buffer {
        socket.set_send_buffer_size(octets)?;
    }
    let wanted = run.congestion.as_bytes();
    socket
        .set_tcp_congestion(wanted)
        .with_context(|| format!("congestion control {}", run.congestion))?;
    let has = socket.tcp_congestion()?;
    ensure!(
        has.split(|octet| *octet == 0).next() == Some(wanted),
        "congestion control is {:?}, not {}",
        String::from_utf8_lossy(&has),
        run.congestion
    );
    socket.bind(&SocketAddr::from(SocketAddrV4::new(CN, 0)).into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// Accepts the connection, gives another handle of it away, and sends the file.
fn send(
    listener: &Socket,
    accepted: mpsc::Sender<TcpStream>,
    file: &[u8],
    run: &Run,
) -> Result<()> {
    let (socket, _) = listener.accept().context("nobody connected")?;
    let mut stream: TcpStream = socket.into();
    let _ = accepted.send(stream.try_clone()?);
    drop(accepted);
    let mut at = 0;
    while at < run.bytes {
        let from = (at % PERIOD as u64) as usize;
        let left = usize::try_from(run.bytes - at).unwrap_or(usize::MAX);
        let piece = &file[from..PERIOD.min(from.saturating_add(left))];
        stream.write_all(piece).context("the sender stopped")?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Asks the sender now and then until the transfer is over.
fn follow(
    stream: &TcpStream,
    begun: Instant,
    trace: bool,
    over: &AtomicBool,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut next = Instant::now();
    while trace && !over.load(Ordering::Acquire) {
        let info = TcpInfo::read(stream)?;
        samples.push(Sample {
            time: begun.elapsed(),
            info,
        });
        next += SAMPLING;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(samples)
}

/// Receives what the sender sends; the octets that arrived before the end.
fn receive(socket: &Socket, to: SocketAddr, file: &[u8], bytes: u64, end: Instant) -> Result<u64> {
    let left = || end.saturating_duration_since(Instant::now());
    socket
        .connect_timeout(&to.into(), left())
        .context("cannot connect")?;
    let mut buffer = vec![0u8; BUFFER];
    let mut received = 0;
    let mut reader = socket;
    while received < bytes && !left().is_zero() {
        socket.set_read_timeout(Some(left().max(Duration::from_millis(1))))?;
        let length = match reader.read(&mut buffer) {
            Ok(0) => bail!("the connection ended after {received} octets"),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).with_context(|| format!("after {received} octets")),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let from = (received % PERIOD as u64) as usize;
            let (piece, more) = rest.split_at(rest.len().min(PERIOD - from));
            ensure!(
                piece == &file[from..from + piece.len()],
                "other octets than were sent, after {received}"
            );
            received += piece.len() as u64;
            rest = more;
        }
    }
    Ok(received)
}
