// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What must be sealed: said to the kernel before anything is negotiated, and never taken back but by `--flush`.

use super::book::Child;
use super::children::reqid;
use super::{Engine, StartError, Task};
use crate::daemon::config::{Connection, Tunnel};
use crate::daemon::kernel::{Action, Error, Kernel, Rule};
use pfkey::{Mode, PortRange, Selector};
use std::net::IpAddr;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// In front of all that protects.
const BYPASS_PRIORITY: u32 = 0;

/// Whether a selector takes in UDP packets from one address and port to another address.
fn covers(selector: &Selector, from: IpAddr, port: u16, to: IpAddr) -> bool {
    let holds = |prefix: &[u8; 16], len: u8, address: IpAddr| {
        let address = crate::address::host(address);
        let bits = u32::from(len);
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let differ = u128::from_be_bytes(*prefix) ^ u128::from_be_bytes(address.octets);
        address.family == selector.family && differ & mask == 0
    };
    matches!(selector.protocol, 0 | UDP)
        && selector.src_ports.holds(port)
        && holds(&selector.src, selector.src_len, from)
        && holds(&selector.dst, selector.dst_len, to)
}

/// The policies that a tunnel's packets go sealed or not at all, both ways.
fn protect(connection: usize, one: &Connection, tunnel: &Tunnel) -> [Rule; 2] {
    let out = Rule {
        inbound: false,
        action: Action::Protect,
        selector: tunnel.selector,
        priority: tunnel.priority,
        outer: one.remote.map(|remote| (one.local, remote)),
        mode: tunnel.mode,
        reqid: reqid(connection),
    };
    [out, inward(&out)]
}

/// The same for what arrives.
fn inward(out: &Rule) -> Rule {
    Rule {
        inbound: true,
        selector: out.selector.reversed(),
        outer: out.outer.map(|(src, dst)| (dst, src)),
        ..*out
    }
}

/// The policies that let IKE pass between two addresses, from and to each port of ours that `selector` would seal: else
/// there would be no keys to seal it with. The peer's port may be one that a NAT gave it (docs/wire.md 5g).
fn bypass(selector: &Selector, local: IpAddr, remote: IpAddr, ports: &[u16]) -> Vec<Rule> {
    let (src, dst) = (crate::address::host(local), crate::address::host(remote));
    let rule = |own| Rule {
        inbound: false,
        action: Action::Bypass,
        selector: Selector {
            family: src.family,
            protocol: UDP,
            src_len: src.family.bits(),
            dst_len: dst.family.bits(),
            src: src.octets,
            dst: dst.octets,
            src_ports: own,
            dst_ports: PortRange::ANY,
        },
        priority: BYPASS_PRIORITY,
        outer: None,
        mode: Mode::Tunnel,
        reqid: 0,
    };
    ports
        .iter()
        .copied()
        .filter(|port| covers(selector, local, *port, remote))
        .filter_map(PortRange::one)
        .map(rule)
        .flat_map(|out| [out, inward(&out)])
        .collect()
}

fn add_all(kernel: &mut dyn Kernel, rules: &[Rule]) -> Result<(), Error> {
    rules.iter().try_for_each(|rule| kernel.add_policy(rule))
}

impl Engine {
    /// Ports as IKE has them here, and that of registrations where there are some: a host at home asks its home agent itself.
    fn ports(&self) -> Vec<u16> {
        let registrations = self
            .config
            .mobile_ip
            .is_some()
            .then_some(crate::daemon::mobility::packet::PORT);
        [self.config.port, self.config.nat_port]
            .into_iter()
            .chain(registrations)
            .collect()
    }

    /// All policies of a connection, those that let IKE pass first.
    pub(super) fn rules(&self, connection: usize) -> Vec<Rule> {
        self.rules_of(connection, &self.config.connections[connection])
    }

    /// The policies of all connections.
    pub(super) fn all_rules(&self) -> Vec<Rule> {
        let all = 0..self.config.connections.len();
        all.flat_map(|connection| self.rules(connection)).collect()
    }

    /// The policies that a connection has in that place.
    pub(super) fn rules_of(&self, connection: usize, one: &Connection) -> Vec<Rule> {
        let Some(tunnel) = one.tunnel.as_ref().filter(|tunnel| tunnel.protect) else {
            return Vec::new();
        };
        let pass = one
            .remote
            .map(|remote| bypass(&tunnel.selector, one.local, remote, &self.ports()));
        let mut rules = pass.unwrap_or_default();
        rules.extend(protect(connection, one, tunnel));
        rules
    }

    /// Says what must be sealed: to `mml`, which takes CSAs and XFRM for it alike; to XFRM where there is no module, and
    /// where the module doesn't know the family.
    pub(super) fn guard(&mut self) -> Result<(), StartError> {
        for connection in 0..self.config.connections.len() {
            let rules = self.rules(connection);
            let name = self.name(connection);
            self.guard_with(&name, &rules)?;
        }
        Ok(())
    }

    /// Says what one connection's policies are.
    pub(super) fn guard_with(&mut self, name: &str, rules: &[Rule]) -> Result<(), StartError> {
        if rules.is_empty() {
            return Ok(());
        }
        let kernels = &mut self.host.kernels;
        let first = kernels.mml.as_mut().map(|mml| add_all(mml.as_mut(), rules));
        if let Some(Ok(())) = first {
            return Ok(());
        }
        // XFRM's need the outer addresses, which a peer that may be anywhere doesn't have yet.
        let known = rules
            .iter()
            .all(|rule| rule.action != Action::Protect || rule.outer.is_some());
        let second = kernels
            .xfrm
            .as_mut()
            .filter(|_| known)
            .map(|xfrm| add_all(xfrm.as_mut(), rules));
        match (first, second) {
            (None, None) => tracing::warn!(
                connection = name,
                "without the kernel module nothing keeps its packets from going in clear until the peer is there"
            ),
            (Some(Err(error)), Some(Ok(()))) => {
                tracing::warn!(connection = name, "mml doesn't take its policies, XFRM does: {error}");
            }
            (_, Some(Ok(()))) | (Some(Ok(())), _) => {}
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                return Err(StartError::Policy(name.to_owned(), error));
            }
        }
        Ok(())
    }

    /// Takes policies back from both kernels.
    pub(super) fn take_back_everywhere(&mut self, rules: &[Rule]) {
        self.take_back(rules, true);
        self.take_back(rules, false);
    }

    /// XFRM needs policies to use a plain child by (docs/wire.md 3.2c).
    pub(super) fn plain_policies(&mut self, connection: usize, child: &Child) -> Result<(), Error> {
        let rules = self.plain_rules(connection, child);
        match &mut self.host.kernels.xfrm {
            Some(xfrm) => add_all(xfrm.as_mut(), &rules),
            None => Ok(()),
        }
    }

    fn plain_rules(&self, connection: usize, child: &Child) -> Vec<Rule> {
        let (local, remote) = (child.outbound.src, child.outbound.dst);
        let tunnel = self.config.connections[connection].tunnel.as_ref();
        let out = Rule {
            inbound: false,
            action: Action::Protect,
            selector: child.selector,
            priority: tunnel.map_or(0, |tunnel| tunnel.priority),
            outer: Some((local, remote)),
            mode: tunnel.map_or(Mode::Tunnel, |tunnel| tunnel.mode),
            reqid: reqid(connection),
        };
        let mut rules = bypass(&child.selector, local, remote, &self.ports());
        rules.extend([out, inward(&out)]);
        rules
    }

    /// The last plain child of its kind is gone. Where `mml` keeps its packets from going in clear, XFRM's policies go
    /// too, or they would take packets from the CSA that comes; else they stay.
    pub(super) fn no_plain_policies(&mut self, gone: &Child) {
        let book = &self.host.book;
        // Another connection's too: one that has taken this one's place in a file that was read again.
        let another = book
            .children
            .values()
            .any(|child| !child.composite && child.selector == gone.selector);
        let protects = self.config.connections[gone.connection]
            .tunnel
            .as_ref()
            .is_some_and(|tunnel| tunnel.protect);
        if another || protects && self.host.kernels.mml.is_none() {
            return;
        }
        let rules = self.plain_rules(gone.connection, gone);
        self.take_back(&rules, false);
    }

    fn take_back(&mut self, rules: &[Rule], composite: bool) {
        let Some(kernel) = self.host.kernels.of(composite) else {
            return;
        };
        for rule in rules {
            if let Err(error) = kernel.remove_policy(rule) {
                tracing::error!(
                    kernel = kernel.name(),
                    "a policy can't be taken away: {error}"
                );
            }
        }
    }

    /// Takes away all that keyd installed: packets go in clear from here on, if routes and firewall let them.
    pub fn flush(&mut self) {
        let book = std::mem::take(&mut self.host.book);
        for task in std::mem::take(&mut self.tasks).into_values() {
            if let Task::Remove(id, composite) = task {
                self.remove(&id, composite);
            }
        }
        for child in book.children.values() {
            self.remove(&child.outbound, child.composite);
            self.remove(&child.inbound, child.composite);
            if !child.composite {
                let rules = self.plain_rules(child.connection, child);
                self.take_back(&rules, false);
            }
        }
        for relay in book.relays.values() {
            self.remove(&relay.outbound, true);
            self.remove(&relay.inbound, true);
        }
        for orphan in &book.orphans {
            self.remove(&orphan.outbound.sa.id, true);
            self.remove(&orphan.inbound.sa.id, true);
        }
        for connection in 0..self.config.connections.len() {
            // What protects goes last, what lets IKE pass first.
            let rules = self.rules(connection);
            self.take_back_everywhere(&rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{selector, Prefix};

    fn between(src: &str, dst: &str) -> Selector {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        selector(prefix(src), prefix(dst), 0).unwrap()
    }

    /// docs/wire.md 5g.
    #[test]
    fn ike_is_let_pass_only_where_it_would_be_sealed() {
        let (a, b) = (
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([198, 51, 100, 2]),
        );
        assert!(bypass(&between("10.0.0.0/8", "any"), a, b, &[500, 4500]).is_empty());
        assert!(bypass(
            &between("192.0.2.0/24", "203.0.113.0/24"),
            a,
            b,
            &[500, 4500]
        )
        .is_empty());
        for covering in [
            between("any", "any"),
            between("192.0.2.0/24", "198.51.100.2/32"),
        ] {
            let rules = bypass(&covering, a, b, &[500, 4500]);
            assert_eq!(rules.len(), 4);
            for (rule, port) in rules.iter().zip([500, 500, 4500, 4500]) {
                assert_eq!(rule.action, Action::Bypass);
                let own = PortRange::one(port).unwrap();
                let (near, far) = (rule.selector.src_ports, rule.selector.dst_ports);
                let expected = if rule.inbound {
                    (far, near)
                } else {
                    (near, far)
                };
                assert_eq!(expected, (own, PortRange::ANY));
                assert!(rule.selector.is_sound());
                assert_eq!((rule.selector.src_len, rule.selector.dst_len), (32, 32));
                assert_eq!(rule.selector.protocol, UDP);
            }
        }
        let v6 = between("fd00::/8", "any");
        assert!(!covers(&v6, a, 500, b));
        let (near, far) = ("fd00::1".parse().unwrap(), "fe80::1".parse().unwrap());
        assert!(covers(&v6, near, 500, far));
        // A tunnel of other ports leaves IKE alone, one of the port alone that it has lets that one pass.
        let of = |protocol, port: &str| Selector {
            protocol,
            src_ports: port.parse::<crate::ports::Ports>().unwrap().0,
            ..between("any", "any")
        };
        assert!(bypass(&of(17, "5000-6000"), a, b, &[500, 4500]).is_empty());
        assert!(bypass(&of(6, "500"), a, b, &[500, 4500]).is_empty());
        assert_eq!(bypass(&of(17, "1-1000"), a, b, &[500, 4500]).len(), 2);
    }
}
