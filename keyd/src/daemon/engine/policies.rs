// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What must be sealed: said to the kernel before anything is negotiated, and never taken back but by `--flush`.

use super::book::Child;
use super::children::reqid;
use super::{Engine, StartError, Task};
use crate::daemon::config::{reversed, Connection, Tunnel};
use crate::daemon::kernel::{Action, Error, Kernel, Rule};
use pfkey::Selector;
use std::net::IpAddr;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// In front of all that protects.
const BYPASS_PRIORITY: u32 = 0;

/// Whether a selector takes in UDP packets from one address to another.
fn covers(selector: &Selector, from: IpAddr, to: IpAddr) -> bool {
    let holds = |prefix: &[u8; 16], len: u8, address: IpAddr| {
        let address = crate::address::host(address);
        let bits = u32::from(len);
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let differ = u128::from_be_bytes(*prefix) ^ u128::from_be_bytes(address.octets);
        address.family == selector.family && differ & mask == 0
    };
    matches!(selector.protocol, 0 | UDP)
        && holds(&selector.src, selector.src_len, from)
        && holds(&selector.dst, selector.dst_len, to)
}

/// The policies that a tunnel's packets go sealed or not at all, both ways.
fn protect(connection: usize, one: &Connection, tunnel: &Tunnel) -> [Rule; 2] {
    let out = Rule {
        inbound: false,
        action: Action::Protect,
        selector: tunnel.selector,
        ports: (0, 0),
        priority: tunnel.priority,
        outer: one.remote.map(|remote| (one.local, remote)),
        reqid: reqid(connection),
    };
    [out, inward(&out)]
}

/// The same for what arrives.
fn inward(out: &Rule) -> Rule {
    Rule {
        inbound: true,
        selector: reversed(&out.selector),
        ports: (out.ports.1, out.ports.0),
        outer: out.outer.map(|(src, dst)| (dst, src)),
        ..*out
    }
}

/// The policies that let IKE pass between two addresses, if `selector` would seal it: else there would be no keys to seal
/// it with. `mml` has no ports in its selectors yet, so there all UDP between the two passes (docs/wire.md 5g).
fn bypass(selector: &Selector, local: IpAddr, remote: IpAddr, ports: [u16; 2]) -> Vec<Rule> {
    if !covers(selector, local, remote) {
        return Vec::new();
    }
    let (src, dst) = (crate::address::host(local), crate::address::host(remote));
    let between = Selector {
        family: src.family,
        protocol: UDP,
        src_len: src.family.bits(),
        dst_len: dst.family.bits(),
        src: src.octets,
        dst: dst.octets,
    };
    let rule = |port| Rule {
        inbound: false,
        action: Action::Bypass,
        selector: between,
        ports: (port, 0),
        priority: BYPASS_PRIORITY,
        outer: None,
        reqid: 0,
    };
    ports
        .into_iter()
        .map(rule)
        .flat_map(|out| [out, inward(&out)])
        .collect()
}

fn add_all(kernel: &mut dyn Kernel, rules: &[Rule]) -> Result<(), Error> {
    rules.iter().try_for_each(|rule| kernel.add_policy(rule))
}

impl Engine {
    /// Ports as IKE has them here.
    fn ports(&self) -> [u16; 2] {
        [self.config.port, self.config.nat_port]
    }

    /// All policies of a connection, those that let IKE pass first.
    fn rules(&self, connection: usize) -> Vec<Rule> {
        let one = &self.config.connections[connection];
        let Some(tunnel) = one.tunnel.as_ref().filter(|tunnel| tunnel.protect) else {
            return Vec::new();
        };
        let pass = one
            .remote
            .map(|remote| bypass(&tunnel.selector, one.local, remote, self.ports()));
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
            if rules.is_empty() {
                continue;
            }
            let kernels = &mut self.host.kernels;
            let first = kernels
                .mml
                .as_mut()
                .map(|mml| add_all(mml.as_mut(), &rules));
            if let Some(Ok(())) = first {
                continue;
            }
            // XFRM's need the outer addresses, which a peer that may be anywhere doesn't have yet.
            let known = self.config.connections[connection].remote.is_some();
            let second = kernels
                .xfrm
                .as_mut()
                .filter(|_| known)
                .map(|xfrm| add_all(xfrm.as_mut(), &rules));
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
                    return Err(StartError::Policy(name, error));
                }
            }
        }
        Ok(())
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
            ports: (0, 0),
            priority: tunnel.map_or(0, |tunnel| tunnel.priority),
            outer: Some((local, remote)),
            reqid: reqid(connection),
        };
        let mut rules = bypass(&child.selector, local, remote, self.ports());
        rules.extend([out, inward(&out)]);
        rules
    }

    /// The last plain child of its kind is gone. Where `mml` keeps its packets from going in clear, XFRM's policies go
    /// too, or they would take packets from the CSA that comes; else they stay.
    pub(super) fn no_plain_policies(&mut self, gone: &Child) {
        let book = &self.host.book;
        let another = book
            .children_of(gone.connection)
            .any(|(_, child)| !child.composite && child.selector == gone.selector);
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
            self.take_back(&rules, true);
            self.take_back(&rules, false);
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
        assert!(bypass(&between("10.0.0.0/8", "any"), a, b, [500, 4500]).is_empty());
        assert!(bypass(
            &between("192.0.2.0/24", "203.0.113.0/24"),
            a,
            b,
            [500, 4500]
        )
        .is_empty());
        for covering in [
            between("any", "any"),
            between("192.0.2.0/24", "198.51.100.2/32"),
        ] {
            let rules = bypass(&covering, a, b, [500, 4500]);
            assert_eq!(rules.len(), 4);
            for rule in rules {
                assert_eq!(rule.action, Action::Bypass);
                assert_eq!((rule.selector.src_len, rule.selector.dst_len), (32, 32));
                assert_eq!(rule.selector.protocol, UDP);
            }
        }
        let v6 = between("fd00::/8", "any");
        assert!(!covers(&v6, a, b));
        assert!(covers(
            &v6,
            "fd00::1".parse().unwrap(),
            "fe80::1".parse().unwrap()
        ));
    }
}
