// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The sockets of scenarios. Where each node is a guest of its own these names mean others (`conductor/sockets.rs`).

use std::net::{Ipv4Addr, TcpStream};

use anyhow::Result;

use crate::netns::Netns;

pub use socket2::Socket;
pub use std::net::{TcpStream as Stream, UdpSocket};

/// Whether somebody accepts connections there, seen from a node.
pub fn answers(node: &Netns, address: Ipv4Addr, port: u16) -> Result<bool> {
    node.enter(|| Ok(TcpStream::connect((address, port)).is_ok()))
}
