// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Captures: a packet socket and a thread a link, nothing lost, everything kept in memory to be searched (`captured`).

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use socket2::{Domain, Protocol, Socket, Type};

pub use crate::captured::{Captured, Packet};
use crate::netns::Netns;
use crate::sys;

/// The largest packet an interface shows: a segmentation offload's 64 KiB, and headers.
const PACKET_MAX: usize = 128 * 1024;
const BUFFER: usize = 128 << 20;
/// How long packets may gather in the socket.
const BURST: Duration = Duration::from_millis(20);

/// A capture that runs.
pub struct Capture {
    name: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Packet>>>>,
}

impl Capture {
    /// Captures all of `interface`. The name tells the link in messages and file names: `ha-core`.
    pub fn start(namespace: &Netns, interface: &str, name: &str) -> Result<Self> {
        let (socket, link_header) = namespace.enter(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
                .context("packet socket")?;
            sys::set_option(
                &socket,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                BUFFER as i32,
            )?;
            let index = nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface} in {}", namespace.name()))?;
            sys::bind_packet_socket(&socket, index)?;
            // mml0 and wg0 carry bare IP packets.
            let link_header = if interface.starts_with("mml") || interface.starts_with("wg") {
                0
            } else {
                14
            };
            Ok((socket, link_header))
        })?;
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        socket.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("capture {name}"))
            .spawn(move || read_all(socket, link_header, &stopping))?;
        Ok(Self {
            name: name.to_owned(),
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it. Packets reach the socket as they cross the interface, so all that has crossed is in.
    pub fn stop(mut self) -> Result<Captured> {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else {
            bail!("capture {} ended before", self.name)
        };
        let packets = match thread.join() {
            Ok(packets) => packets.with_context(|| format!("capture {}", self.name))?,
            Err(_) => bail!("capture {} panicked", self.name),
        };
        Ok(Captured {
            name: std::mem::take(&mut self.name),
            packets,
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Reads in bursts: a thread that woke for each packet would cost more than the packet's way through the network.
fn read_all(socket: Socket, link_header: usize, stop: &AtomicBool) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    let mut buffer = vec![0u8; PACKET_MAX];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let mut into = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut into,
            Some(&mut control),
            MsgFlags::empty(),
        ) {
            Ok(message) => {
                let time = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                    _ => None,
                });
                let length = message.bytes;
                packets.push(Packet {
                    time: time.unwrap_or_default(),
                    frame: buffer.get(..length).unwrap_or_default().to_vec(),
                    link_header,
                });
            }
            Err(Errno::EAGAIN) => {
                if stopping {
                    break;
                }
                std::thread::sleep(BURST);
            }
            // A link going down is told to the capture as an error, once.
            Err(Errno::ENETDOWN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let lost = sys::packet_socket_drops(&socket)?;
    if lost > 0 {
        bail!("{lost} packets were lost");
    }
    Ok(packets)
}
