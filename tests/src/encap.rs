// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The sockets that ESP in UDP comes in by.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::{sys, traffic};

/// `UDP_ENCAP`, `UDP_ENCAP_ESPINUDP` of Linux's `<linux/udp.h>`.
const UDP_ENCAP: i32 = 100;
const ESPINUDP: i32 = 2;

/// A socket that gives the kernel's IPsec what comes in to it, as a key manager holds one.
pub fn encap(namespace: &Netns, address: impl Into<IpAddr>, port: u16) -> Result<UdpSocket> {
    let socket = traffic::udp(namespace, address, port)?;
    sys::set_option(&socket, libc::SOL_UDP, UDP_ENCAP, ESPINUDP).context("UDP_ENCAP")?;
    Ok(socket)
}
