// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advertisements by hand.

use super::*;

impl World {
    /// Gives an advertisement to the mobile node.
    pub fn advertise(
        &mut self,
        interface: Interface,
        source: Ipv4Addr,
        advertisement: &Advertisement,
    ) {
        let packet = Packet {
            interface: None,
            link_destination: None,
            source,
            destination: number::ALL_SYSTEMS,
            ttl: 1,
            content: Content::Icmp(advertisement.emit().expect("short enough")),
        };
        self.hand_in(Who::Mn, interface, &packet, 0);
    }
}

/// What a foreign agent says of itself.
pub fn advertisement(fa: usize, sequence: u16) -> Advertisement {
    Advertisement {
        code: 0,
        lifetime: 3,
        routers: vec![RouterAddress {
            address: care_of(fa),
            preference: 0,
        }],
        agent: Some(MobilityAgent {
            sequence,
            lifetime: 600,
            flags: AgentFlags(AgentFlags::FOREIGN | AgentFlags::REVERSE_TUNNEL),
            care_of: vec![care_of(fa)],
        }),
        prefixes: vec![24],
    }
}
