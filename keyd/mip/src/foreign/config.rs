// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a foreign agent is told.

use crate::advertise::Link;
use crate::auth::Association;
use crate::home::ReverseTunnel;
use crate::packet::Interface;
use crate::router::Prefix;
use std::collections::{HashMap, HashSet};
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
    /// Addresses that no visitor may have, beside our links' and our home agents': those of neighbours, and others of ours.
    pub agents: HashSet<Ipv4Addr>,
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
            agents: HashSet::new(),
            revocation: true,
            mobile: HashMap::new(),
            home: HashMap::new(),
        }
    }

    /// Home agents whose mobile nodes are taken, though nothing proves that a reply is theirs.
    pub fn unproven(&self) -> Vec<Ipv4Addr> {
        let named = self.home_agents.iter().flat_map(HashMap::keys).copied();
        let mut all: Vec<_> = named.filter(|one| !self.home.contains_key(one)).collect();
        all.sort_unstable();
        all
    }

    /// Whether an interface is one that mobile nodes come to.
    pub(super) fn on_link(&self, interface: Interface) -> bool {
        self.links.iter().any(|link| link.interface == interface)
    }

    /// Whether an address is an agent's, which no mobile node has.
    pub(super) fn an_agents(&self, address: Ipv4Addr) -> bool {
        let named = self.home_agents.as_ref();
        self.ours(address)
            || self.agents.contains(&address)
            || self.home.contains_key(&address)
            || named.is_some_and(|named| named.contains_key(&address))
    }

    /// Whether an address is one of ours.
    pub(super) fn ours(&self, address: Ipv4Addr) -> bool {
        address == self.care_of || self.links.iter().any(|link| link.address == address)
    }
}
