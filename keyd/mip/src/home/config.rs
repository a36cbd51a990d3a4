// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a home agent is told.

use crate::advertise::Link;
use crate::auth::Association;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Whether an agent does reverse tunnels (RFC 3024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReverseTunnel {
    /// Requests with the `T` bit are denied.
    Refused,
    /// The mobile node chooses.
    Offered,
    /// Requests without it are denied. IPsec between mobile node and home agent needs it.
    Required,
}

/// A mobile node as its home agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Mobile-Home associations, one an SPI.
    pub associations: Vec<Association>,
    /// Barred by the operator: code 129.
    pub barred: bool,
}

/// A home agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeConfig {
    /// Its addresses; the first is given to who asks for another.
    pub addresses: Vec<Ipv4Addr>,
    /// The home network's link, for advertisements and ARP; none where it is virtual.
    pub home_link: Option<Link>,
    /// The longest registration, in s.
    pub max_lifetime: u16,
    /// Mobile nodes away at once.
    pub max_bindings: usize,
    /// Reverse tunnels.
    pub reverse_tunnel: ReverseTunnel,
    /// Registration revocation (RFC 3543), with the foreign agents that share an association.
    pub revocation: bool,
    /// Mobile nodes, by home address.
    pub subscribers: HashMap<Ipv4Addr, Subscriber>,
    /// Foreign-Home associations, by care-of address. With a foreign agent that is named here each request must have a
    /// right Foreign-Home authenticator.
    pub foreign_agents: HashMap<Ipv4Addr, Vec<Association>>,
}

impl HomeConfig {
    pub(super) fn subscriber(&self, home: Ipv4Addr) -> Option<&Subscriber> {
        self.subscribers.get(&home)
    }

    pub(super) fn foreign(&self, care_of: Ipv4Addr) -> Option<&[Association]> {
        self.foreign_agents.get(&care_of).map(Vec::as_slice)
    }
}
