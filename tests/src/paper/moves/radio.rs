// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A link switched on or off by one rtnetlink message: a program would take longer to start than the radio's gap lasts.

use anyhow::{Context, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::genl;
use crate::netns::Netns;

/// `linux/rtnetlink.h`, `linux/if.h`.
const RTM_NEWLINK: u16 = 16;
const IFF_UP: u32 = 1;
/// `struct ifinfomsg`: family and padding, type, index, flags, which flags are meant.
const IFINFOMSG: usize = 16;

/// Switches a node's interface.
pub fn set(node: &Netns, device: &str, up: bool) -> Result<()> {
    crate::report::step(format!(
        "{}: {device} {}",
        node.name(),
        if up { "up" } else { "down" }
    ));
    let switch = || {
        let index = nix::net::if_::if_nametoindex(device)?;
        let mut socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        genl::accepted(genl::exchange(&socket, &request(index, up))?, "the link")
    };
    node.enter(switch)
        .with_context(|| format!("{device} in {}", node.name()))?;
    Ok(())
}

fn request(index: u32, up: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + IFINFOMSG);
    message.extend(((16 + IFINFOMSG) as u32).to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((genl::NLM_F_REQUEST | genl::NLM_F_ACK).to_ne_bytes());
    for word in [1, 0, 0, index, if up { IFF_UP } else { 0 }, IFF_UP] {
        message.extend(u32::to_ne_bytes(word));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_which_link_and_which_flag() {
        let message = request(7, true);
        assert_eq!(message.len(), 32);
        assert_eq!(message[20..24], 7u32.to_ne_bytes());
        assert_eq!(
            message[24..32],
            [1u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat()
        );
        assert_eq!(request(7, false)[24..28], [0; 4]);
    }
}
