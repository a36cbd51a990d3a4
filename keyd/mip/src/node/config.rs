// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a mobile node is told.

use crate::auth::Association;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A mobile node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its lasting address.
    pub home: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// The Mobile-Home association that its requests go under; replies may use any of `more`, too.
    pub association: Association,
    /// Other Mobile-Home associations, while keys are being changed.
    pub more: Vec<Association>,
    /// Mobile-Foreign associations, by the foreign agent's address.
    pub foreign: HashMap<Ipv4Addr, Association>,
    /// How long it would be registered, in s; an agent's advertisement may cut it.
    pub lifetime: u16,
    /// Only agents that do reverse tunnels, and always the `T` bit. IPsec with the home agent needs it.
    pub reverse_tunnel: bool,
    /// Names the previous foreign agent in its registrations (DKM).
    pub name_previous: bool,
    /// The first gap between requests; each next one is twice as long. At least 1 s (RFC 5944 §3.6.3).
    pub retransmit: Duration,
    /// The longest gap between requests; RFC 5944 has the lifetime as its bound. Ours is shorter: a wireless link that
    /// lost five requests may carry the sixth.
    pub retransmit_most: Duration,
    /// How long an agent that denied is left alone if there is another.
    pub penalty: Duration,
}

/// RFC 5944 §3.6.3: the least between two requests of one registration.
pub(super) const RETRANSMIT: Duration = Duration::from_secs(1);

impl NodeConfig {
    /// A mobile node with RFC 5944's times.
    pub fn new(home: Ipv4Addr, home_agent: Ipv4Addr, association: Association) -> Self {
        NodeConfig {
            home,
            home_agent,
            association,
            more: Vec::new(),
            foreign: HashMap::new(),
            lifetime: 600,
            reverse_tunnel: true,
            name_previous: true,
            retransmit: RETRANSMIT,
            retransmit_most: Duration::from_secs(10),
            penalty: Duration::from_secs(30),
        }
    }
}
