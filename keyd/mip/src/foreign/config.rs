// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a foreign agent is told.

use crate::advertise::Link;
use crate::auth::Association;
use crate::home::ReverseTunnel;
use crate::router::Prefix;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A foreign agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignConfig {
    /// The address that home agents tunnel to.
    pub care_of: Ipv4Addr,
    /// The links that mobile nodes come to.
    pub links: Vec<Link>,
    /// The longest registration, in s.
    pub max_lifetime: u16,
    /// Visitors at once; the `B` bit says when it is reached.
    pub max_visitors: usize,
    /// Requests that wait for a reply at once.
    pub max_pending: usize,
    /// How long they wait: then the mobile node is told 78.
    pub timeout: Duration,
    /// Reverse tunnels.
    pub reverse_tunnel: ReverseTunnel,
    /// Home agents whose mobile nodes are taken, and the addresses these may have; none for everybody's.
    pub home_agents: Option<HashMap<Ipv4Addr, Vec<Prefix>>>,
    /// Registration revocation (RFC 3543), with the home agents that share an association.
    pub revocation: bool,
    /// Mobile-Foreign associations, by home address. A mobile node named here must authenticate itself.
    pub mobile: HashMap<Ipv4Addr, Vec<Association>>,
    /// Foreign-Home associations, by home agent. A home agent named here must authenticate itself.
    pub home: HashMap<Ipv4Addr, Vec<Association>>,
}

/// RFC 5944 leaves it open; its §3.7.1 has a default of 7 s.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(7);

impl ForeignConfig {
    /// A foreign agent with this care-of address: offers reverse tunnels, takes everybody's mobile nodes, knows nobody.
    pub fn new(care_of: Ipv4Addr, links: Vec<Link>) -> Self {
        ForeignConfig {
            care_of,
            links,
            max_lifetime: 1800,
            max_visitors: 4096,
            max_pending: 4096,
            timeout: TIMEOUT,
            reverse_tunnel: ReverseTunnel::Offered,
            home_agents: None,
            revocation: true,
            mobile: HashMap::new(),
            home: HashMap::new(),
        }
    }

    /// Whether an address is one of ours.
    pub(super) fn ours(&self, address: Ipv4Addr) -> bool {
        address == self.care_of || self.links.iter().any(|link| link.address == address)
    }
}
