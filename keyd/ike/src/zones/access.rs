// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who may get what, and from whom (docs/wire.md §3.2).

use crate::auth::holds_address;
use crate::config::{Agent, Config, HomeAgent};
use crate::crypto::Hash;
use crate::secret::Secret;
use crate::wire::reader::octets;
use crate::wire::{Id, TrafficSelector};
use std::net::IpAddr;

/// A peer that proved who it is.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub id: &'a Id,
    /// Its certificate, checked.
    pub certificate: Option<&'a [u8]>,
}

impl Peer<'_> {
    fn is(&self, agent: &Agent, address: IpAddr) -> bool {
        let owns = if agent.addresses.is_empty() {
            self.certificate
                .is_some_and(|der| holds_address(der, address))
        } else {
            agent.addresses.contains(&address)
        };
        agent.identity.matches(self.id) && owns
    }

    /// HA: whether the peer is the FA of that address (docs/wire.md 3.2l).
    pub fn is_foreign_agent(&self, config: &Config, address: IpAddr) -> bool {
        config
            .home
            .foreign_agents
            .iter()
            .any(|fa| self.is(fa, address))
    }

    /// HA: whether the peer is an FA at all.
    pub fn is_any_foreign_agent(&self, config: &Config) -> bool {
        config
            .home
            .foreign_agents
            .iter()
            .any(|fa| fa.identity.matches(self.id))
    }

    /// FA: whether the peer is the neighbour of that address (docs/wire.md 3.2j).
    pub fn is_neighbour(&self, config: &Config, address: IpAddr) -> bool {
        config
            .foreign
            .neighbours
            .iter()
            .any(|fa| self.is(fa, address))
    }

    /// FA: the HA the peer is, if all these home addresses are its own (docs/wire.md 3.2m).
    pub fn home_agent<'c>(
        &self,
        config: &'c Config,
        home: &[TrafficSelector],
    ) -> Option<&'c HomeAgent> {
        let agents = config.foreign.home_agents.iter();
        let own = |agent: &&HomeAgent| {
            let within = |ts: &TrafficSelector| {
                let holds = |p: &crate::config::Prefix| p.holds(ts.start) && p.holds(ts.end);
                agent.prefixes.iter().any(holds)
            };
            agent.identity.matches(self.id) && home.iter().all(within)
        };
        agents.into_iter().find(own)
    }
}

/// The token: prf(K_FA of the previous FA, new FA's address ‖ home address ‖ registration Identification)
/// (docs/wire.md 3.2i).
pub(crate) fn token(
    prf: Hash,
    k_fa: &Secret,
    fa: IpAddr,
    home: IpAddr,
    identification: u64,
) -> Secret {
    let (fa, home) = (octets(fa), octets(home));
    prf.prf(k_fa.expose(), &[&fa, &home, &identification.to_be_bytes()])
}

/// Whether `token` is that (docs/wire.md 3.2j).
pub(crate) fn is_token(
    prf: Hash,
    k_fa: &Secret,
    fa: IpAddr,
    home: IpAddr,
    identification: u64,
    token: &Secret,
) -> bool {
    let (fa, home) = (octets(fa), octets(home));
    let parts: [&[u8]; 3] = [&fa, &home, &identification.to_be_bytes()];
    prf.verify(k_fa.expose(), &parts, token.expose())
}
