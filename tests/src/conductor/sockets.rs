// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sockets in other guests, by the names of this process's own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::time::Duration;

use anyhow::Result;

use crate::agents::{Answer, Held};
use crate::netns::Netns;
use crate::wire::{Reply, Request};

/// A UDP socket of another guest.
pub struct UdpSocket {
    held: Held,
    address: SocketAddrV4,
}

/// A raw socket of another guest.
pub struct Socket(Held);

/// One end of a TCP connection in another guest.
pub struct Stream(Held);

fn millis(patience: Duration) -> u64 {
    u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)
}

fn what_came(answer: Answer) -> Option<Vec<u8>> {
    (!matches!(answer.reply, Reply::Nothing)).then_some(answer.octets)
}

impl UdpSocket {
    pub fn open(node: &Netns, address: Ipv4Addr, port: u16) -> Result<Self> {
        Ok(Self {
            held: node.node().open(Request::Udp { address, port })?,
            address: SocketAddrV4::new(address, port),
        })
    }

    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.address.into())
    }

    pub fn send_to(&self, data: &[u8], to: impl ToSocketAddrs) -> Result<usize> {
        let ipv4 = to.to_socket_addrs()?.find_map(|to| match to {
            SocketAddr::V4(to) => Some(to),
            SocketAddr::V6(_) => None,
        });
        let to = ipv4.ok_or_else(|| anyhow::anyhow!("no IPv4 address to send to"))?;
        let id = self.held.id();
        self.held.ask(&Request::UdpSend { id, to }, data)?;
        Ok(data.len())
    }

    /// The next datagram, or None after `patience`.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let request = Request::UdpReceive {
            id: self.held.id(),
            millis: millis(patience),
        };
        Ok(what_came(self.held.ask(&request, &[])?))
    }
}

impl Socket {
    pub fn open(node: &Netns, protocol: u8) -> Result<Self> {
        Ok(Self(node.node().open(Request::Raw { protocol })?))
    }

    /// Sends a whole IPv4 packet.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.0.ask(&Request::RawSend { id: self.0.id() }, packet)?;
        Ok(())
    }

    /// The next packet, or None after `patience`.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let request = Request::RawReceive {
            id: self.0.id(),
            millis: millis(patience),
        };
        Ok(what_came(self.0.ask(&request, &[])?))
    }
}

impl Stream {
    /// Both ends of a connection, the client's first.
    pub fn pair(
        client: &Netns,
        server: &Netns,
        address: Ipv4Addr,
        port: u16,
    ) -> Result<(Self, Self)> {
        let listener = server.node().open(Request::Listen { address, port })?;
        let near = client.node().open(Request::Connect { address, port })?;
        let far = listener.open(Request::Accept { id: listener.id() })?;
        Ok((Self(near), Self(far)))
    }

    pub fn write(&self, data: &[u8]) -> Result<()> {
        self.0.ask(&Request::Write { id: self.0.id() }, data)?;
        Ok(())
    }

    /// What has come, at most so many octets; none at the stream's end.
    pub fn read(&self, most: usize) -> Result<Vec<u8>> {
        let id = self.0.id();
        Ok(self.0.ask(&Request::Read { id, most }, &[])?.octets)
    }

    /// Ends this direction.
    pub fn shutdown(&self) -> Result<()> {
        self.0.ask(&Request::Shutdown { id: self.0.id() }, &[])?;
        Ok(())
    }
}

/// Whether somebody accepts connections there, seen from a node.
pub fn answers(node: &Netns, address: Ipv4Addr, port: u16) -> Result<bool> {
    Ok(node.node().open(Request::Connect { address, port }).is_ok())
}
