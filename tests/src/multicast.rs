// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A node that routes multicast: the kernel's own forwarding, told of one source and one group (ip(7), `linux/mroute.h`).

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::sys;

const MRT_INIT: i32 = 200;
const MRT_ADD_VIF: i32 = 202;
const MRT_ADD_MFC: i32 = 204;
/// The interface is named by its index.
const VIFF_USE_IFINDEX: u8 = 0x8;
/// Interfaces a route may have.
const MAXVIFS: usize = 32;

/// As long as it exists, what `source` sends to `group` and comes in by the first interface goes out by the others.
pub struct MulticastRouter {
    _socket: Socket,
}

impl MulticastRouter {
    pub fn start(
        node: &Netns,
        interfaces: &[&str],
        source: Ipv4Addr,
        group: Ipv4Addr,
    ) -> Result<Self> {
        let socket = node.enter(|| {
            let igmp = Some(Protocol::from(libc::IPPROTO_IGMP));
            let socket = Socket::new(Domain::IPV4, Type::RAW, igmp).context("raw socket")?;
            sys::set_option(&socket, libc::IPPROTO_IP, MRT_INIT, 1).context("MRT_INIT")?;
            for (vif, interface) in (0u16..).zip(interfaces) {
                let index = nix::net::if_::if_nametoindex(*interface)?;
                // vifctl: number, flags, threshold, rate limit, interface, remote end of a tunnel.
                let mut vifctl = vif.to_ne_bytes().to_vec();
                vifctl.extend([VIFF_USE_IFINDEX, 1]);
                vifctl.extend([0; 4]);
                vifctl.extend(index.to_ne_bytes());
                vifctl.extend([0; 4]);
                sys::set_option_octets(&socket, libc::IPPROTO_IP, MRT_ADD_VIF, &vifctl)
                    .with_context(|| format!("MRT_ADD_VIF {interface}"))?;
            }
            // mfcctl: source, group, where it comes in, the least TTL to go out by each interface (0: not at all), counters.
            let mut ttls = [0; MAXVIFS];
            ttls.iter_mut()
                .take(interfaces.len())
                .skip(1)
                .for_each(|ttl| *ttl = 1);
            let mfcctl = [
                source.octets().as_slice(),
                &group.octets(),
                &[0; 2],
                &ttls,
                // To the next multiple of four, and four counters.
                &[0; 2 + 16],
            ]
            .concat();
            sys::set_option_octets(&socket, libc::IPPROTO_IP, MRT_ADD_MFC, &mfcctl)
                .context("MRT_ADD_MFC")?;
            Ok(socket)
        })?;
        Ok(Self { _socket: socket })
    }
}
