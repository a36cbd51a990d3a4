// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Captures: a packet socket and a thread a link, nothing lost, everything kept in memory to be searched.

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

use crate::headers::{self, Ip};
use crate::netns::Netns;
use crate::sys;

/// The largest packet an interface shows: a segmentation offload's 64 KiB, and headers.
const PACKET_MAX: usize = 128 * 1024;
const BUFFER: usize = 128 << 20;
/// How long packets may gather in the socket.
const BURST: Duration = Duration::from_millis(20);

/// One packet as it crossed the interface.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Since 1970.
    pub time: Duration,
    /// With its link header, if the interface has one.
    pub frame: Vec<u8>,
    /// Octets of that link header.
    pub link_header: usize,
}

impl Packet {
    /// The IPv4 packet; None for anything else (ARP).
    pub fn ip(&self) -> Option<&[u8]> {
        if self.link_header == 14 && self.frame.get(12..14) != Some(&[0x08, 0x00]) {
            return None;
        }
        let packet = self.frame.get(self.link_header..)?;
        if packet.first().map(|octet| octet >> 4) != Some(4) {
            return None;
        }
        // Ethernet pads short frames.
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        if total >= 20 && total <= packet.len() {
            packet.get(..total)
        } else {
            Some(packet)
        }
    }

    /// The header fields of the IPv4 packet.
    pub fn header(&self) -> Option<Ip<'_>> {
        headers::Ip::parse(self.ip()?)
    }

    /// The packet in one line.
    fn describe(&self) -> String {
        let Some(ip) = self.header() else {
            return format!("{} octets, not IPv4", self.frame.len());
        };
        format!(
            "{} > {} protocol {} of {} octets, {:02x?}",
            ip.source,
            ip.destination,
            ip.protocol,
            ip.total_length,
            ip.payload.get(..16).unwrap_or(ip.payload)
        )
    }

    /// What follows ESP's IP header, if this is ESP.
    pub fn esp(&self) -> Option<&[u8]> {
        self.header()
            .filter(|ip| ip.protocol == headers::ESP)
            .map(|ip| ip.payload)
    }
}

/// A capture that runs.
pub struct Capture {
    name: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Packet>>>>,
}

/// A capture that ended.
pub struct Captured {
    pub name: String,
    pub packets: Vec<Packet>,
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

impl Captured {
    /// How many packets hold `needle` anywhere, headers included.
    pub fn holding(&self, needle: &[u8]) -> usize {
        self.packets
            .iter()
            .filter(|packet| headers::find(&packet.frame, needle))
            .count()
    }

    /// An error that describes the first packet that holds `secret`.
    pub fn never_shows(&self, secret: &[u8]) -> Result<()> {
        match self
            .packets
            .iter()
            .find(|packet| headers::find(&packet.frame, secret))
        {
            None => Ok(()),
            Some(packet) => bail!(
                "{} shows what must be sealed, in one of {} packets: {}",
                self.name,
                self.holding(secret),
                packet.describe()
            ),
        }
    }

    /// Every IPv4 packet's header.
    pub fn headers(&self) -> impl Iterator<Item = Ip<'_>> {
        self.packets.iter().filter_map(Packet::header)
    }

    /// Every ESP packet, without its IP header.
    pub fn esp(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().filter_map(Packet::esp)
    }

    /// The first `count` packets as a pcap file (LINKTYPE_ETHERNET 1 or LINKTYPE_RAW 101, microseconds).
    pub fn pcap(&self, count: usize) -> Vec<u8> {
        let link_type = if self
            .packets
            .first()
            .is_some_and(|packet| packet.link_header == 0)
        {
            101u32
        } else {
            1
        };
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, link_type] {
            file.extend(word.to_le_bytes());
        }
        for packet in self.packets.iter().take(count) {
            let length = packet.frame.len() as u32;
            for word in [
                packet.time.as_secs() as u32,
                packet.time.subsec_micros(),
                length,
                length,
            ] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&packet.frame);
        }
        file
    }
}
