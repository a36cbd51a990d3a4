// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The sockets of multicast PKD (docs/wire.md 3.3l).

use crate::daemon::config::Predistribution;
use socket2::{Domain, InterfaceIndexOrAddress, SockFilter, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use tokio::net::UdpSocket;

/// `BPF_RET | BPF_K`, of no octets: a filter that lets nothing in.
const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

fn bound(
    address: SocketAddrV4,
    change: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    change(&socket)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// What a home agent sends from, and hears nothing by; where a foreign agent takes copies.
pub(super) fn own(one: &Predistribution) -> io::Result<UdpSocket> {
    bound(one.own, |socket| {
        if !one.sends {
            return Ok(());
        }
        socket.attach_filter(&[NOTHING])?;
        socket.set_multicast_ttl_v4(one.ttl.into())?;
        let interface = one.interface.as_ref().map(String::as_bytes);
        socket.bind_device(interface)
    })
}

/// A foreign agent's socket in the group. Others on the machine may be in it too, and it hears of no other group.
pub(super) fn member(one: &Predistribution, group: SocketAddrV4) -> io::Result<UdpSocket> {
    let by = match &one.interface {
        Some(name) => InterfaceIndexOrAddress::Index(nix::net::if_::if_nametoindex(name.as_str())?),
        None => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
    };
    bound(group, |socket| {
        socket.set_reuse_address(true)?;
        socket.set_multicast_all_v4(false)?;
        socket.join_multicast_v4_n(group.ip(), &by)
    })
}
