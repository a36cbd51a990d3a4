// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ports 500 and 4500: a socket for each address of the node, so that every datagram's own end is known; and the port of
//! multicast PKD.

mod predistribution;

use super::config::Predistribution;
use super::kernel::xfrm_message::ESP_IN_UDP;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::SetSockOpt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

sockopt_impl!(
    /// Packets that come to the socket and begin with an SPI are ESP's, not ours (RFC 3948).
    UdpEncap,
    SetOnly,
    libc::SOL_UDP,
    libc::UDP_ENCAP,
    i32,
    SetStruct<i32>
);

/// Octets of the longest datagram that is taken.
const MAX_LEN: usize = 65_535;
/// Datagrams that wait to be looked at; what comes on top is lost, as on the way.
const QUEUE: usize = 1024;

/// A datagram that came.
pub struct Received {
    /// What it holds.
    pub octets: Vec<u8>,
    /// Whence.
    pub from: SocketAddr,
    /// Whither.
    pub to: SocketAddr,
}

/// Why a socket can't be had.
#[derive(thiserror::Error, Debug)]
#[error("UDP {address}: {error}{}", mend(.error))]
pub struct SocketError {
    address: SocketAddr,
    error: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::ENODEV) {
        return "; no interface leads there: set or correct `predistribute-interface`";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another key manager runs on it: stop it",
        io::ErrorKind::AddrNotAvailable => {
            "; it is no address of this machine: correct `addresses`"
        }
        io::ErrorKind::PermissionDenied => "; it takes CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// The priority of what key managers say (`TC_PRIO_INTERACTIVE`): in a queue that knows priorities it stands ahead of hosts'
/// packets, which wait for it.
pub(super) const AHEAD: u32 = 6;

/// The node's sockets.
pub struct Sockets {
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    queue: mpsc::Receiver<Received>,
    sender: mpsc::Sender<Received>,
    /// Who listens; they end with the sockets.
    listeners: JoinSet<()>,
}

impl Sockets {
    /// Binds both ports on each address and begins to listen. On the second one ESP within UDP is the kernel's.
    ///
    /// # Errors
    /// Which address it was, why, and what mends it.
    pub async fn open(addresses: &[IpAddr], port: u16, nat_port: u16) -> Result<Self, SocketError> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (mut sockets, mut listeners) = (Vec::new(), JoinSet::new());
        for address in addresses {
            for (port, encapsulates) in [(port, false), (nat_port, true)] {
                let address = SocketAddr::new(*address, port);
                let failed = |error| SocketError { address, error };
                let socket = UdpSocket::bind(address).await.map_err(failed)?;
                let bound = socket.local_addr().map_err(failed)?;
                SockRef::from(&socket).set_priority(AHEAD).map_err(failed)?;
                if encapsulates {
                    if let Err(error) = encapsulate(&socket) {
                        tracing::warn!(%address, "the kernel takes no ESP within UDP here: {error}");
                    }
                }
                let socket = Arc::new(socket);
                sockets.push((bound, socket.clone()));
                listeners.spawn(listen(socket, bound, sender.clone()));
            }
        }
        Ok(Sockets {
            sockets,
            queue,
            sender,
            listeners,
        })
    }

    /// Opens what multicast PKD wants: at a home agent a socket to send from, at a foreign agent one that takes copies, and
    /// one that is in the group (docs/wire.md 3.3l).
    ///
    /// # Errors
    /// Which address it was, why, and what mends it.
    pub fn open_predistribution(&mut self, one: &Predistribution) -> Result<(), SocketError> {
        let failed = |address: SocketAddrV4| {
            move |error| SocketError {
                address: address.into(),
                error,
            }
        };
        let own = predistribution::own(one).map_err(failed(one.own))?;
        let group = one.group().filter(|_| !one.sends);
        let group = group.map(|to| {
            predistribution::member(one, to)
                .map_err(failed(to))
                .map(|socket| (socket, to))
        });
        let mut add = |socket: UdpSocket, address: SocketAddrV4| {
            let socket = Arc::new(socket);
            self.sockets.push((address.into(), socket.clone()));
            if !one.sends {
                let listener = listen(socket, address.into(), self.sender.clone());
                self.listeners.spawn(listener);
            }
        };
        add(own, one.own);
        if let Some((socket, address)) = group.transpose()? {
            add(socket, address);
        }
        Ok(())
    }

    /// The addresses and ports they are bound to.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(address, _)| *address)
    }

    /// The next datagram that comes.
    pub async fn receive(&mut self) -> Option<Received> {
        self.queue.recv().await
    }

    /// Sends a datagram from one of the sockets. One that can't be sent is as good as lost: it is sent again in time.
    pub async fn send(&self, from: SocketAddr, to: SocketAddr, octets: &[u8]) {
        let socket = self.sockets.iter().find(|(address, _)| *address == from);
        let Some((_, socket)) = socket else {
            tracing::warn!(%from, "no socket there to send from");
            return;
        };
        if let Err(error) = socket.send_to(octets, to).await {
            if to.ip().is_multicast() {
                tracing::warn!(%from, %to, "not sent: {error}; is there a route for it?");
                return;
            }
            tracing::debug!(%from, %to, "not sent: {error}");
        }
    }
}

/// Says to the kernel that ESP within UDP comes by this socket.
fn encapsulate(socket: &UdpSocket) -> Result<(), nix::Error> {
    UdpEncap.set(socket, &i32::from(ESP_IN_UDP))
}

async fn listen(socket: Arc<UdpSocket>, to: SocketAddr, sender: mpsc::Sender<Received>) {
    let mut buffer = vec![0; MAX_LEN];
    loop {
        match socket.recv_from(&mut buffer).await {
            // A keep-alive of NAT: one octet, 0xFF (RFC 3948 §2.3).
            Ok((1, _)) => {}
            Ok((len, from)) => {
                let octets = buffer.get(..len).unwrap_or_default().to_vec();
                if sender.send(Received { octets, from, to }).await.is_err() {
                    return;
                }
            }
            // An ICMP error of something sent before.
            Err(error) => tracing::debug!(%to, "{error}"),
        }
    }
}
