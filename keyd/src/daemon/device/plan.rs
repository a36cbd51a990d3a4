// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is to lead into the device, as the file has it and peers give addresses.

use crate::address::{self, Prefix};
use crate::daemon::config::{Config, Tunnel};
use pfkey::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A route into the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Inward {
    /// To this address, or, with fewer bits than it has, this prefix.
    pub to: (IpAddr, u8),
    /// From this address, where nobody says otherwise.
    pub source: Option<IpAddr>,
    /// The peer's own address is among those: what is sealed, and IKE, must not come in again, so that it stands in a table
    /// which neither is routed by.
    pub apart: bool,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// Addresses of the device: those peers gave.
    pub addresses: BTreeSet<IpAddr>,
    /// Routes.
    pub routes: BTreeSet<Inward>,
}

impl Plan {
    /// Of that file, and the addresses that peers gave, by connection.
    pub fn of(config: &Config, given: &BTreeMap<usize, IpAddr>) -> Self {
        let tunnels = config.connections.iter().enumerate();
        let tunnels = tunnels.filter_map(|(at, one)| Some((at, one, one.tunnel.as_ref()?)));
        let mut plan = Plan::default();
        for (at, one, tunnel) in tunnels {
            let given = given.get(&at).copied().filter(|_| tunnel.request_address);
            plan.addresses.extend(given);
            let (local, remote) = address::prefixes(&tunnel.selector);
            let Some(to) = remote.range() else { continue };
            // Mobile IP has routes of its own to both agents, longer than these; its home agent's packets to a host are
            // routed by their source (docs/mobility.md).
            let mobile = config.mobile_ip.is_some() && tunnel.mode == Mode::Tunnel;
            plan.routes.insert(Inward {
                to,
                source: given.or_else(|| own(tunnel, local)),
                apart: !mobile && holds_peer(remote, one.remote),
            });
        }
        plan
    }

    /// Whether a family has routes that stand apart.
    pub fn is_apart(&self, ipv4: bool) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|route| route.apart && route.to.0.is_ipv4() == ipv4)
    }
}

/// A peer that may be anywhere is nowhere in particular, unless that is all there is.
fn holds_peer(remote: Prefix, peer: Option<IpAddr>) -> bool {
    match peer {
        Some(peer) => remote.holds(peer),
        None => remote.range().is_some_and(|(_, len)| len == 0),
    }
}

/// The one address that this side of a tunnel has.
fn own(tunnel: &Tunnel, local: Prefix) -> Option<IpAddr> {
    let whole = tunnel.selector.src_len == tunnel.selector.family.bits();
    local.range().filter(|_| whole).map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(peer: &str, tunnel: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("a.psk");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        let text = format!(
            "[node]\nrole = \"mh\"\nidentity = \"mh.test\"\naddresses = [\"10.1.1.7\", \"fd01::7\"]\n\
             [device]\n[[connection]]\nname = \"ha\"\n{peer}\nremote-identity = \"ha.test\"\nauth = \"psk\"\n\
             secret-file = \"a.psk\"\n[connection.tunnel]\n{tunnel}\n"
        );
        Config::parse("keyd.toml", &text, Path::new(folder.path())).unwrap()
    }

    const PEER: &str = "remote = \"198.51.100.1\"";

    fn only(config: &Config, given: &[(usize, &str)]) -> (Vec<String>, Inward) {
        let given = given.iter().map(|(at, text)| (*at, text.parse().unwrap()));
        let plan = Plan::of(config, &given.collect());
        let [route] = plan.routes.iter().collect::<Vec<_>>()[..] else {
            panic!("{plan:?}")
        };
        let addresses = plan.addresses.iter().map(IpAddr::to_string).collect();
        (addresses, *route)
    }

    #[test]
    fn a_tunnels_other_side_is_led_in_from_its_own_address() {
        let config = config(PEER, "local = \"203.0.113.7\"\nremote = \"192.0.2.0/24\"");
        let (addresses, route) = only(&config, &[]);
        assert!(addresses.is_empty(), "it has its home address already");
        assert_eq!(route.to, ("192.0.2.0".parse().unwrap(), 24));
        assert_eq!(route.source, Some("203.0.113.7".parse().unwrap()));
        assert!(!route.apart);
    }

    #[test]
    fn what_would_lead_the_peers_own_packets_in_stands_apart() {
        let apart = |peer, tunnel| only(&config(peer, tunnel), &[]).1.apart;
        assert!(apart(PEER, "local = \"203.0.113.7\""));
        assert!(apart(PEER, "remote = \"198.51.100.0/24\""));
        assert!(apart(PEER, "mode = \"transport\""));
        assert!(!apart(PEER, "remote = \"198.51.0.0/24\""));
        assert!(apart("start = \"peer\"", "remote = \"0.0.0.0/0\""));
        assert!(!apart("start = \"peer\"", "remote = \"203.0.113.7\""));
    }

    #[test]
    fn a_given_address_is_the_devices_and_the_routes_source() {
        let config = config(PEER, "remote = \"192.0.2.0/24\"\nrequest-address = true");
        let (addresses, route) = only(&config, &[]);
        assert!(addresses.is_empty() && route.source.is_none());
        let (addresses, route) = only(&config, &[(0, "10.9.0.5"), (1, "10.9.0.6")]);
        assert_eq!(addresses, ["10.9.0.5"]);
        assert_eq!(route.source, Some("10.9.0.5".parse().unwrap()));
    }

    #[test]
    fn of_two_families_each_has_its_own_table() {
        let six = config("remote = \"fd02::1\"", "remote = \"::/0\"");
        let plan = Plan::of(&six, &BTreeMap::new());
        assert!(plan.is_apart(false) && !plan.is_apart(true));
    }
}
