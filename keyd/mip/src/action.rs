// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the caller is to do, in the order given.

use crate::code::Code;
use crate::extension::{PreviousFa, Seen};
use crate::message::Identification;
use crate::packet::{Interface, LinkAddress, Packet};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Packet),
    /// Make an IP-in-IP tunnel (RFC 2003); it isn't there yet.
    AddTunnel(Tunnel),
    /// Take it down; nothing uses it any more.
    RemoveTunnel(Tunnel),
    /// Add a route, or put it in the place of the one of its kind for the same address.
    AddRoute(Route),
    /// Take the route away.
    RemoveRoute(Route),
    /// Answer ARP requests for an address with our own link-layer address (RFC 5944 §4.6).
    AddProxyArp {
        /// The absent mobile node.
        address: Ipv4Addr,
        /// On its home network.
        interface: Interface,
    },
    /// Answer them no more.
    RemoveProxyArp {
        /// The mobile node.
        address: Ipv4Addr,
        /// On its home network.
        interface: Interface,
    },
    /// Tell a link where an address is now, by a gratuitous ARP.
    GratuitousArp {
        /// The address.
        address: Ipv4Addr,
        /// The link.
        interface: Interface,
        /// Where it is; none for our own link-layer address.
        link: Option<LinkAddress>,
    },
    /// Something that key management, the log or the operator wants to know.
    Notify(Event),
}

/// An IP-in-IP tunnel, from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Our outer address.
    pub local: Ipv4Addr,
    /// The other side's.
    pub remote: Ipv4Addr,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// At the home agent: what is for the mobile node goes into its tunnel.
    ToMobile {
        /// The mobile node.
        home: Ipv4Addr,
        /// To its care-of address.
        tunnel: Tunnel,
    },
    /// At the foreign agent: the visitor is on this link, whatever its address says.
    Visitor {
        /// The mobile node.
        home: Ipv4Addr,
        /// Its link.
        interface: Interface,
        /// A permanent neighbour entry for it.
        link: Option<LinkAddress>,
    },
    /// At the foreign agent: what comes from the visitor goes into the reverse tunnel (RFC 3024 §4.2).
    FromVisitor {
        /// The mobile node.
        home: Ipv4Addr,
        /// Where it comes in.
        interface: Interface,
        /// To the home agent.
        tunnel: Tunnel,
    },
    /// At the mobile node: the agent's own address, by its link. Longer than any other prefix, so that registrations
    /// get past the IPsec tunnel (the paper's Section III.B).
    Agent {
        /// The agent.
        agent: Ipv4Addr,
        /// The link.
        interface: Interface,
        /// A permanent neighbour entry for it: away from home there is no ARP (RFC 5944 §4.6).
        link: Option<LinkAddress>,
    },
    /// At the mobile node: everything else goes by the agent, from the home address.
    Default {
        /// The agent.
        agent: Ipv4Addr,
        /// The link.
        interface: Interface,
        /// The source address to use.
        home: Ipv4Addr,
    },
}

/// Why a binding or a visitor's entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The mobile node said so.
    Deregistered,
    /// The mobile node is at home again.
    ReturnedHome,
    /// Its lifetime is over.
    Expired,
    /// The other agent revoked it (RFC 3543).
    Revoked,
    /// The operator, or key management, said so.
    Administrative,
}

/// A previous foreign agent as its successor and the home agent hear of it, for CSA_REQUEST and CSA_HANDOVER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its care-of address.
    pub address: Ipv4Addr,
    /// The mobile node's token for it; may be empty.
    pub token: Vec<u8>,
    /// What had arrived at the mobile node by then.
    pub seen: Vec<Seen>,
}

impl From<PreviousFa<'_>> for Predecessor {
    fn from(previous: PreviousFa<'_>) -> Self {
        Predecessor {
            address: previous.address,
            token: previous.token.to_vec(),
            seen: previous.seen().collect(),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// HA: a mobile node is bound to a care-of address, or for longer.
    Bound {
        /// The mobile node.
        home: Ipv4Addr,
        /// Where it is.
        care_of: Ipv4Addr,
        /// Where it was, if it was bound to another.
        previous: Option<Ipv4Addr>,
        /// The foreign agent that the previous-FA extension names: it may hand the CSA on by DKM.
        named: Option<Predecessor>,
        /// The registration's.
        identification: Identification,
        /// Granted, in s.
        lifetime: u16,
    },
    /// HA: a binding ended.
    Unbound {
        /// The mobile node.
        home: Ipv4Addr,
        /// Where it was.
        care_of: Ipv4Addr,
        /// The registration's.
        identification: Identification,
        /// Why.
        reason: Reason,
        /// What had arrived at a mobile node that is at home again.
        seen: Vec<Seen>,
    },
    /// FA: a registration is about to leave for the home agent; DKM begins now, in parallel (the paper's Figure 6).
    Relayed {
        /// The mobile node.
        home: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
        /// The registration's.
        identification: Identification,
        /// Who had it before.
        previous: Option<Predecessor>,
    },
    /// FA: the home agent took the registration; a standby CSA is activated now (PKD).
    Visiting {
        /// The mobile node.
        home: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
        /// Our address that it registered.
        care_of: Ipv4Addr,
        /// The registration's.
        identification: Identification,
        /// Who had it before.
        previous: Option<Ipv4Addr>,
        /// Granted, in s.
        lifetime: u16,
        /// Whether it was here already.
        renewed: bool,
    },
    /// FA: a visitor is gone.
    Gone {
        /// The mobile node.
        home: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
        /// Why.
        reason: Reason,
    },
    /// HA or FA: a registration was denied.
    Refused {
        /// The mobile node, as the request names it.
        home: Ipv4Addr,
        /// Why.
        code: Code,
    },
    /// HA or FA: the other agent confirmed a revocation.
    RevocationConfirmed {
        /// The mobile node.
        home: Ipv4Addr,
        /// The other agent.
        peer: Ipv4Addr,
    },
    /// HA or FA: it didn't, however often it was told. Somebody should look.
    RevocationUnconfirmed {
        /// The mobile node.
        home: Ipv4Addr,
        /// The other agent.
        peer: Ipv4Addr,
    },
    /// MN: a registration request left.
    Registering {
        /// To this agent; the home agent when deregistering at home.
        agent: Ipv4Addr,
        /// The request's.
        identification: Identification,
    },
    /// MN: the home agent accepted.
    Registered {
        /// By this agent.
        agent: Ipv4Addr,
        /// With this care-of address.
        care_of: Ipv4Addr,
        /// The registration's.
        identification: Identification,
        /// Granted, in s.
        lifetime: u16,
        /// Since the attempt's first request.
        took: Duration,
        /// What had arrived at the home agent by then.
        arrived: Vec<Seen>,
    },
    /// MN: denied.
    Denied {
        /// By this agent.
        agent: Ipv4Addr,
        /// Why.
        code: Code,
    },
    /// MN: at home, and the home agent knows.
    AtHome {
        /// What had arrived at the home agent by then.
        arrived: Vec<Seen>,
    },
    /// MN: deregistered on [`crate::MobileNode::leave`].
    Left,
    /// MN: no agent is heard any more.
    Lost,
    /// MN: the registration's lifetime is over without a new one.
    Expired,
}

/// How many use each tunnel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels(HashMap<Tunnel, usize>);

impl Tunnels {
    /// One more user.
    pub(crate) fn take(&mut self, tunnel: Tunnel, actions: &mut Vec<Action>) {
        let users = self.0.entry(tunnel).or_insert(0);
        *users += 1;
        if *users == 1 {
            actions.push(Action::AddTunnel(tunnel));
        }
    }

    /// One less.
    pub(crate) fn give(&mut self, tunnel: Tunnel, actions: &mut Vec<Action>) {
        let Some(users) = self.0.get_mut(&tunnel) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            self.0.remove(&tunnel);
            actions.push(Action::RemoveTunnel(tunnel));
        }
    }
}
