// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many CSAs at a node, as at a home agent with as many mobile hosts: each host has a care-of address, a home address and
//! keys of its own.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::Netns;
use crate::topology::HA;
use crate::zone_esp::Sa;
use crate::zone_message::{self, Action, Direction, Message, Prefix, Role, ANY};
use crate::zone_tunnel::{self, Keys, Options};

/// How many are many.
pub const MANY: u32 = 10_000;

/// The home addresses, one after the other from here; the first is not the demo's mobile host.
const HOMES: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Their care-of addresses.
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// Their SPIs, which no other tunnel here gets: those are odd in their first octet.
const SPIS: u32 = 0x0200_0000;

fn nth(first: Ipv4Addr, host: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + host)
}

fn home(host: u32) -> Prefix {
    (nth(HOMES, host), 32)
}

/// The CSA towards a host of this number, with fresh keys.
fn towards(host: u32) -> Sa {
    Sa {
        spi: SPIS + host,
        source: HA,
        destination: nth(CARE_OF, host),
        ..Keys::new(&Options::default()).to_mh
    }
}

/// Adds the CSAs towards hosts of these numbers at a node of this role.
pub fn add(node: &Netns, role: Role, hosts: std::ops::Range<u32>) -> Result<()> {
    let window = Options::default().window;
    let messages: Vec<Message> = hosts
        .map(|host| zone_message::add(&towards(host), role, (ANY, home(host)), window, 0))
        .collect();
    zone_tunnel::send(node, &messages)
}

/// Adds a policy a host that protects what goes to it.
pub fn protect(node: &Netns, direction: Direction, hosts: std::ops::Range<u32>) -> Result<()> {
    let messages: Vec<Message> = hosts
        .map(|host| {
            let ends = (direction == Direction::Out).then(|| (HA, nth(CARE_OF, host)));
            let selected = (ANY, home(host));
            let (action, priority) = (Action::Protect, zone_tunnel::PRIORITY);
            zone_message::policy(action, direction, selected, 0, priority, ends)
        })
        .collect();
    zone_tunnel::send(node, &messages)
}
