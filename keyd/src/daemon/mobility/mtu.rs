// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether what Mobile IP wraps fits the interfaces it leaves by.
//!
//! A sealed packet of at most [`TUNNELLED`] octets goes between host and foreign agent, the same with one IPv4 header more
//! between the agents. Less fits, too, and costs: where less than 1,280 octets are left inside, IPv6 can't be had there at all
//! (RFC 8200 §5).

use super::network::TUNNELLED;
use super::route_message as wire;
use crate::daemon::config::{Agent, MobileIp};
use crate::netlink::{Error, Line};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// Octets of the header that IP in IP adds (RFC 2003).
const IP_IN_IP: u32 = 20;
/// Octets that sealing adds at most, IPv4 outside and implicit IVs (docs/wire.md 1.11f).
const SEALING: u32 = 51;
/// Octets that are to be left inside (RFC 8200 §5).
const LEAST: u32 = 1280;

/// What packets leave by an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// Sealed ones, between host and foreign agent.
    Air,
    /// Those in an IP-in-IP tunnel, between agents.
    Tunnel,
}

impl Way {
    fn added(self) -> u32 {
        match self {
            Way::Air => 0,
            Way::Tunnel => IP_IN_IP,
        }
    }
}

/// An interface that carries too little.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// Its name.
    pub interface: String,
    /// What it carries, in octets.
    pub has: u32,
    /// What it is to carry.
    pub needs: u32,
    /// What is left inside at most.
    pub inside: u32,
}

impl Advice {
    /// What there is to say of an interface of that MTU, if anything.
    pub fn of(interface: &str, way: Way, mtu: u32) -> Option<Self> {
        let needs = TUNNELLED + way.added();
        (mtu < needs).then(|| Advice {
            interface: interface.to_owned(),
            has: mtu,
            needs,
            inside: mtu.saturating_sub(way.added() + SEALING),
        })
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advice {
            interface,
            has,
            needs,
            inside,
        } = self;
        write!(f, "interface {interface} carries packets of {has} octets")?;
        if *inside < LEAST {
            write!(f, ", which leaves {inside} inside, less than {LEAST}")?;
        } else {
            write!(f, ", and the longest here are too long for it")?;
        }
        write!(
            f,
            "; it needs {needs}: `ip link set {interface} mtu {needs}`, on the link's other end, too"
        )
    }
}

/// Looks at the links, and at the interfaces that tunnels to `agents` leave by. What isn't there is left out.
///
/// # Errors
/// The system's or the kernel's.
pub fn look(config: &MobileIp, agents: &[Ipv4Addr]) -> Result<Vec<Advice>, Error> {
    let mut line = Line::open(NETLINK_ROUTE)?;
    let mut interfaces = BTreeMap::new();
    line.exchange(&wire::links, &mut |message| {
        if let Some((index, name, mtu)) = wire::carries(message) {
            interfaces.insert(index, (name, mtu));
        }
        Ok(())
    })?;
    let mut ways = BTreeMap::new();
    // At the home network nothing is wrapped but what leaves for a foreign agent.
    if !matches!(config.agent, Agent::Home(_)) {
        let named = |name: &String| interfaces.iter().find(|(_, (one, _))| one == name);
        for (index, _) in config.links.iter().filter_map(named) {
            ways.insert(*index, Way::Air);
        }
    }
    for agent in agents {
        let answered = line.exchange(&|seq| wire::route_to(seq, *agent), &mut |message| {
            if let Some(device) = wire::leaves_by(message) {
                ways.insert(device, Way::Tunnel);
            }
            Ok(())
        });
        // Where there is no way yet there is nothing to say of it.
        if let Err(error) = answered {
            tracing::debug!(%agent, "no route: {error}");
        }
    }
    let advice = ways.iter().filter_map(|(index, way)| {
        let (name, mtu) = interfaces.get(index)?;
        Advice::of(name, *way, *mtu)
    });
    Ok(advice.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_carries_what_is_wrapped_is_not_spoken_of() {
        assert_eq!(Advice::of("wl1", Way::Air, 1480), None);
        assert_eq!(Advice::of("eth0", Way::Tunnel, 1500), None);
    }

    #[test]
    fn one_that_does_not_is_named_with_what_it_has_and_what_it_needs() {
        let said = |way, mtu| Advice::of("wl1", way, mtu).unwrap().to_string();
        assert_eq!(
            said(Way::Air, 1479),
            "interface wl1 carries packets of 1479 octets, and the longest here are too long for it; \
             it needs 1480: `ip link set wl1 mtu 1480`, on the link's other end, too"
        );
        assert!(said(Way::Tunnel, 1499).contains("it needs 1500"));
        // 1,280 inside, 51 of sealing, and between agents 20 more.
        for (way, least) in [(Way::Air, 1331), (Way::Tunnel, 1351)] {
            assert!(!said(way, least).contains("inside"));
            assert!(said(way, least - 1).contains("leaves 1279 inside, less than 1280"));
        }
        assert!(said(Way::Tunnel, 60).contains("leaves 0 inside"));
    }
}
