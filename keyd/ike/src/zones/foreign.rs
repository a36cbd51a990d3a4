// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an FA holds: relay CSAs, taken from HAs and previous FAs, and handed on to new ones (DKM).

use super::access::{is_token, Peer};
use super::group::{self, Group};
use crate::config::{Config, HomeAgent};
use crate::crypto::Hash;
use crate::event::{Event, IkeId, Output, RelayCsa, Time};
use crate::host::Host;
use crate::secret::Secret;
use crate::wire::{
    Ask, CsaData, GroupStatus, Id, Payload, Revocation, TrafficSelector, ZoneMapPayload, MAX_GROUPS,
};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Registered hosts and revoked CSAs remembered at most.
const MAX_MEMORY: usize = 65_536;

/// The SPI towards the outer destination, and that destination.
type Key = (IpAddr, u32);

struct Relay {
    csa: RelayCsa,
    transforms: ZoneMapPayload,
    distributor: Id,
    /// A previous FA handed it on; the HA has not given it since.
    handed_on: bool,
    k_fa: Option<(Hash, Secret)>,
    expires: Option<Time>,
}

/// What was answered for a host: the newest Identification, and to whom.
#[derive(Clone)]
struct Answered {
    identification: u64,
    asker: Id,
}

/// A CSA that was revoked: by which message, so that a DISTRIBUTE sent before but read after it is known.
struct Revoked {
    generation: u32,
    by: (IkeId, u32),
    forget: Time,
}

/// An FA's store.
#[derive(Default)]
pub(crate) struct Foreign {
    relays: HashMap<Key, Relay>,
    /// By the other direction: its destination and SPI. What is no more may still stand here.
    inbound: HashMap<Key, Key>,
    /// Hosts registered here, by home address, and who their HA is.
    registered: HashMap<IpAddr, Id>,
    /// By whom, too: a revocation that comes before its CSA says nothing of another HA's (docs/wire.md 3.2n).
    revoked: HashMap<(Key, Id), Revoked>,
    requests: HashMap<IpAddr, Answered>,
    /// The newest Identification a host was handed over by, or registered here with.
    handovers: HashMap<IpAddr, u64>,
    /// CSAs handed on: when to forget what lets them be handed on again.
    handed_on: Vec<(Time, Key)>,
    /// When something is due next.
    next: Option<Time>,
}

/// Which message something came by.
#[derive(Clone, Copy)]
pub(crate) struct By {
    pub ike: IkeId,
    pub message_id: u32,
    pub now: Time,
}

impl Foreign {
    /// A host registered here: its HA may give its CSAs.
    pub fn register(&mut self, home: IpAddr, agent: Id) {
        if self.registered.len() < MAX_MEMORY {
            self.registered.insert(home, agent);
        }
    }

    /// A host is here, by a registration of that Identification: what it asked for with an older one is past, or whom it
    /// left before could have its packets again (docs/wire.md 3.2y).
    pub fn arrived(&mut self, home: IpAddr, identification: u64) {
        if self.handovers.len() < MAX_MEMORY || self.handovers.contains_key(&home) {
            let newest = self.handovers.entry(home).or_insert(identification);
            if later(identification, *newest) {
                *newest = identification;
            }
        }
    }

    /// A host left.
    pub fn deregister(&mut self, home: IpAddr) {
        self.registered.remove(&home);
    }

    fn is_registered(&self, home: &[TrafficSelector], agent: &Id) -> bool {
        self.registered
            .iter()
            .any(|(address, of)| of == agent && group::is_of(home, *address))
    }

    /// CSA_DISTRIBUTE: one status a group (docs/wire.md 3.1d, 3.2m).
    pub fn distribute(
        &mut self,
        config: &Config,
        peer: Peer<'_>,
        payloads: &[Payload],
        by: By,
        out: &mut VecDeque<Output>,
    ) -> Vec<Payload> {
        let groups = group::split(payloads);
        let statuses = groups.into_iter().take(MAX_GROUPS).map(|payloads| {
            let Some(Group { csa, k_fa }) = group::parse(payloads) else {
                return GroupStatus::Malformed;
            };
            let agent = peer.home_agent(config, &csa.ts_home);
            let agent = agent.filter(|agent| ends_at(agent, &csa));
            let standby = csa.identity.standby && agent.is_some_and(|agent| agent.standby);
            if agent.is_none() || !(standby || self.is_registered(&csa.ts_home, peer.id)) {
                return GroupStatus::Refused;
            }
            self.take(config, csa, k_fa, payloads, (peer.id, false), by, out)
        });
        vec![Payload::CsaData(CsaData::Status(statuses.collect()))]
    }

    /// A CSA by a datagram to many: a standby alone, which leaves what is here as it is (docs/wire.md 3.3f).
    pub fn predistribute(
        &mut self,
        config: &Config,
        peer: Peer<'_>,
        payloads: &[Payload],
        by: By,
        out: &mut VecDeque<Output>,
    ) -> GroupStatus {
        let Some(Group { csa, k_fa }) = group::parse(payloads) else {
            return GroupStatus::Malformed;
        };
        let identity = &csa.identity;
        let bare = identity.standby && !identity.may_write && identity.relay_number == 0;
        let agent = peer.home_agent(config, &csa.ts_home);
        let agent = agent.filter(|agent| ends_at(agent, &csa));
        if !bare || k_fa.is_some() || !agent.is_some_and(|agent| agent.standby) {
            return GroupStatus::Refused;
        }
        let key = (identity.destination, identity.spi_out);
        // By whichever way the revocation came, the datagram says nothing of being later: whose host came back gets the CSA
        // by CSA_DISTRIBUTE.
        let revoked = self.revoked.get(&(key, peer.id.clone()));
        if revoked.is_some_and(|revoked| identity.generation <= revoked.generation) {
            return GroupStatus::Revoked;
        }
        let held = self.relays.get(&key);
        let held = held.filter(|held| held.distributor == *peer.id);
        if held.is_some_and(|held| held.csa.identity.generation == identity.generation) {
            return GroupStatus::Accepted;
        }
        self.take(config, csa, None, payloads, (peer.id, false), by, out)
    }

    /// Whether the other direction is one of another CSA's: who gives that would take its place in the kernel.
    fn clashes(&self, csa: &RelayCsa) -> bool {
        let (key, inbound) = (key_of(csa), (csa.identity.source, csa.identity.spi_in));
        let other = self.inbound.get(&inbound).filter(|other| **other != key);
        let other = other.and_then(|other| self.relays.get(other));
        other.is_some_and(|relay| relay.csa.identity.spi_in == csa.identity.spi_in)
    }

    #[expect(clippy::too_many_arguments, reason = "it has three callers")]
    fn take(
        &mut self,
        config: &Config,
        csa: RelayCsa,
        k_fa: Option<(Hash, Secret)>,
        payloads: &[Payload],
        (distributor, handed_on): (&Id, bool),
        by: By,
        out: &mut VecDeque<Output>,
    ) -> GroupStatus {
        let key = key_of(&csa);
        // Message IDs count a side's requests one after the other, in whatever order they are read (docs/wire.md 3.2s).
        let revoked = self.revoked.get(&(key, distributor.clone()));
        let revoked = revoked.is_some_and(|revoked| {
            csa.identity.generation < revoked.generation
                || by.ike == revoked.by.0 && by.message_id < revoked.by.1
        });
        if revoked {
            return GroupStatus::Revoked;
        }
        let held = self.relays.get(&key);
        // Another home agent's, however much that one may give others (docs/wire.md 3.2n).
        if held.is_some_and(|held| held.distributor != *distributor) {
            return GroupStatus::Refused;
        }
        // Nor another host's, in either direction (docs/wire.md 3.2m).
        if held.is_some_and(|held| held.csa.ts_home != csa.ts_home) || self.clashes(&csa) {
            return GroupStatus::Refused;
        }
        // What a neighbour said of generations says nothing to the HA.
        let newer = |held: &&Relay| held.csa.identity.generation > csa.identity.generation;
        if held.filter(newer).is_some_and(|held| !held.handed_on) {
            return GroupStatus::Revoked;
        }
        if held.is_none() && self.relays.len() >= config.foreign.max_csas {
            return GroupStatus::Full;
        }
        let Some(Payload::ZoneMap(transforms)) =
            payloads.iter().find(|p| matches!(p, Payload::ZoneMap(_)))
        else {
            return GroupStatus::Malformed;
        };
        let lifetime = csa.identity.lifetime;
        let relay = Relay {
            csa: csa.clone(),
            transforms: transforms.clone(),
            distributor: distributor.clone(),
            handed_on,
            k_fa,
            expires: (lifetime != 0)
                .then(|| by.now + std::time::Duration::from_secs(u64::from(lifetime))),
        };
        self.wake(relay.expires);
        let identity = &csa.identity;
        self.inbound.insert((identity.source, identity.spi_in), key);
        self.relays.insert(key, relay);
        // Given anew, it may be handed on anew.
        self.handed_on.retain(|(_, handed)| *handed != key);
        out.push_back(Output::Event(Event::RelayUp(Box::new(csa))));
        GroupStatus::Accepted
    }

    /// CSA_REVOKE, from who distributed: what was dropped (docs/wire.md 3.1g, 3.2n).
    pub fn revoke(
        &mut self,
        config: &Config,
        peer: Peer<'_>,
        payloads: &[Payload],
        by: By,
        out: &mut VecDeque<Output>,
    ) -> Vec<Payload> {
        let asked = payloads.iter().find_map(|payload| match payload {
            Payload::CsaData(CsaData::Revoke(list)) => Some(list.as_slice()),
            _ => None,
        });
        let mut dropped = Vec::new();
        let agent = peer.home_agent(config, &[]).is_some();
        for one in asked.filter(|_| agent).unwrap_or_default() {
            let key = (one.destination, one.spi);
            let held = self.relays.get(&key);
            let named =
                |held: &Relay| held.handed_on || held.csa.identity.generation <= one.generation;
            let named = held.is_some_and(named);
            if held.is_some_and(|held| held.distributor != *peer.id) {
                continue;
            }
            if self.revoked.len() < MAX_MEMORY {
                let revoked = Revoked {
                    generation: one.generation,
                    by: (by.ike, by.message_id),
                    forget: by.now + config.foreign.revoked,
                };
                self.revoked.insert((key, peer.id.clone()), revoked);
                self.wake(Some(by.now + config.foreign.revoked));
            }
            if named {
                self.relays.remove(&key);
                dropped.push(*one);
                out.push_back(Output::Event(Event::RelayDown(*one)));
            }
        }
        vec![Payload::CsaData(CsaData::Revoke(dropped))]
    }

    /// The CSA whose K_FA made the token.
    fn asked_for(&self, ask: &Ask) -> Option<&Relay> {
        self.relays.values().find(|relay| {
            let proved = |(prf, key): &(Hash, Secret)| {
                is_token(
                    *prf,
                    key,
                    ask.care_of,
                    ask.home,
                    ask.identification,
                    &ask.token,
                )
            };
            group::is_of(&relay.csa.ts_home, ask.home) && relay.k_fa.as_ref().is_some_and(proved)
        })
    }

    /// CSA_REQUEST: the CSA, to who may have it, once; again only to the same asker (docs/wire.md 3.1f, 3.2j).
    pub fn request(
        &mut self,
        config: &Config,
        peer: Peer<'_>,
        ask: &Ask,
        host: &mut dyn Host,
        now: Time,
    ) -> Vec<Payload> {
        let refused = vec![Payload::CsaData(CsaData::Status(vec![
            GroupStatus::Refused,
        ]))];
        // Since then the host has been here, or was handed over, by a later registration: whoever it asked to be handed to
        // before has no claim any more, the same asker neither.
        let past = self.handovers.get(&ask.home);
        let past = past.is_some_and(|newest| later(*newest, ask.identification));
        let newer = !past && is_newer(&self.requests, ask, peer.id);
        let Some(relay) = self
            .asked_for(ask)
            .filter(|_| newer && peer.is_neighbour(config, ask.care_of))
        else {
            return refused;
        };
        let mut csa = relay.csa.clone();
        let progress = host.progress(csa.identity.spi_in, csa.identity.spi_out);
        csa.identity.sequence_in = csa.identity.sequence_in.max(progress.sequence_in);
        csa.identity.sequence_out = csa.identity.sequence_out.max(progress.sequence_out);
        // The right to write isn't handed on (docs/wire.md 1.5e).
        csa.identity.may_write = false;
        csa.identity.relay_number = 0;
        csa.identity.standby = false;
        if let Some(expires) = relay.expires {
            let left = expires.saturating_sub(now).as_secs().max(1);
            csa.identity.lifetime = u32::try_from(left).unwrap_or(u32::MAX);
        }
        let answer = group::payloads(&csa, &relay.transforms, None);
        let key = (csa.identity.destination, csa.identity.spi_out);
        note(&mut self.requests, ask, peer.id);
        self.handed_on.push((now + config.foreign.memory, key));
        self.wake(Some(now + config.foreign.memory));
        answer
    }

    /// CSA_HANDOVER: whether it is done: by a token, once, or for who distributed the host's CSA and is at `from`, unless the
    /// host is here by a later registration than it knows of (docs/wire.md 3.1h, 3.2y).
    pub fn handover(&mut self, config: &Config, peer: Peer<'_>, ask: &Ask, from: IpAddr) -> bool {
        let last = self.handovers.get(&ask.home).copied();
        let distributor = self.relays.values().any(|relay| {
            relay.distributor == *peer.id && group::is_of(&relay.csa.ts_home, ask.home)
        });
        let agent = peer.home_agent(config, &[TrafficSelector::host(ask.home)]);
        if let Some(agent) = agent.filter(|_| distributor) {
            let itself = ask.care_of == from || agent.addresses.contains(&ask.care_of);
            return itself && last.is_none_or(|last| !later(last, ask.identification));
        }
        let newer = last.is_none_or(|last| later(ask.identification, last));
        let may = newer && peer.is_neighbour(config, ask.care_of) && self.asked_for(ask).is_some();
        if may {
            self.arrived(ask.home, ask.identification);
        }
        may
    }

    /// The answer to this FA's own CSA_REQUEST: whether it brought a CSA.
    pub fn requested(
        &mut self,
        config: &Config,
        home: IpAddr,
        payloads: &[Payload],
        previous: &Id,
        by: By,
        out: &mut VecDeque<Output>,
    ) -> bool {
        let Some(Group { mut csa, .. }) = group::parse(payloads) else {
            return false;
        };
        // Of the host asked for and nobody else, and as a reader alone (docs/wire.md 1.5e).
        let own = csa
            .ts_home
            .iter()
            .all(|ts| ts.start == home && ts.end == home);
        let neighbour = config
            .foreign
            .neighbours
            .iter()
            .any(|agent| agent.identity.matches(previous));
        let Some(distributor) = self.registered.get(&home).cloned() else {
            return false;
        };
        // With that HA, and for a time, as every CSA of an HA is.
        let mut agents = config.foreign.home_agents.iter();
        let of = agents.find(|agent| agent.identity.matches(&distributor));
        let with_it = of.is_some_and(|agent| ends_at(agent, &csa)) && csa.identity.lifetime != 0;
        if !own || !neighbour || !with_it {
            return false;
        }
        // Its HA was faster, and gave it with what is this FA's own: K_FA, a number, the right to write.
        let mut given = self.relays.values().filter(|relay| !relay.handed_on);
        if given.any(|relay| group::is_of(&relay.csa.ts_home, home)) {
            return true;
        }
        csa.identity.may_write = false;
        csa.identity.relay_number = 0;
        // It answers to the HA of the host from now on, which may revoke it.
        let taken = self.take(config, csa, None, payloads, (&distributor, true), by, out);
        taken == GroupStatus::Accepted
    }

    /// Whether it is here.
    pub fn holds(&self, destination: IpAddr, spi: u32) -> bool {
        self.relays.contains_key(&(destination, spi))
    }

    /// It was taken away from the kernel.
    pub fn forget(&mut self, destination: IpAddr, spi: u32) {
        self.relays.remove(&(destination, spi));
    }

    /// What a previous FA handed on of a host that isn't here: it goes, for no HA knows that it is here and could revoke it
    /// (docs/wire.md 3.2k).
    pub fn disown(&mut self, home: IpAddr, out: &mut VecDeque<Output>) {
        self.relays.retain(|(destination, spi), relay| {
            let identity = &relay.csa.identity;
            let stays = !(relay.handed_on && group::is_of(&relay.csa.ts_home, home));
            if !stays {
                out.push_back(Output::Event(Event::RelayDown(Revocation {
                    spi: *spi,
                    destination: *destination,
                    generation: identity.generation,
                })));
            }
            stays
        });
    }

    /// Something is due then.
    fn wake(&mut self, at: Option<Time>) {
        self.next = self.next.into_iter().chain(at).min();
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.next
    }

    pub fn tick(&mut self, now: Time, out: &mut VecDeque<Output>) {
        if self.next.is_none_or(|at| now < at) {
            return;
        }
        self.revoked.retain(|_, revoked| now < revoked.forget);
        // What was handed on is not handed on again; the CSA goes on serving until it is revoked.
        let (due, later): (Vec<_>, Vec<_>) =
            self.handed_on.drain(..).partition(|(at, _)| *at <= now);
        self.handed_on = later;
        for (_, key) in due {
            if let Some(relay) = self.relays.get_mut(&key) {
                relay.k_fa = None;
            }
        }
        let relays = &self.relays;
        self.inbound.retain(|_, key| relays.contains_key(key));
        self.relays.retain(|(destination, spi), relay| {
            let lives = relay.expires.is_none_or(|at| now < at);
            if !lives {
                out.push_back(Output::Event(Event::RelayDown(Revocation {
                    spi: *spi,
                    destination: *destination,
                    generation: relay.csa.identity.generation,
                })));
            }
            lives
        });
        let handed_on = self.handed_on.iter().map(|(at, _)| *at);
        let revoked = self.revoked.values().map(|revoked| revoked.forget);
        let expires = self.relays.values().filter_map(|relay| relay.expires);
        self.next = handed_on.chain(revoked).chain(expires).min();
    }
}

fn key_of(csa: &RelayCsa) -> Key {
    (csa.identity.destination, csa.identity.spi_out)
}

/// Whether the CSA's other end is that HA: what it says of another's is none of its business (docs/wire.md 3.2m).
fn ends_at(agent: &HomeAgent, csa: &RelayCsa) -> bool {
    agent.addresses.is_empty() || agent.addresses.contains(&csa.identity.source)
}

/// Whether an Identification comes after another: they are NTP's time stamps, which begin anew in 2036 (RFC 5944 §5.7.1).
fn later(one: u64, other: u64) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 63
}

fn is_newer(answered: &HashMap<IpAddr, Answered>, ask: &Ask, asker: &Id) -> bool {
    answered.get(&ask.home).is_none_or(|last| {
        later(ask.identification, last.identification)
            || ask.identification == last.identification && *asker == last.asker
    })
}

fn note(answered: &mut HashMap<IpAddr, Answered>, ask: &Ask, asker: &Id) {
    if answered.len() < MAX_MEMORY || answered.contains_key(&ask.home) {
        answered.insert(
            ask.home,
            Answered {
                identification: ask.identification,
                asker: asker.clone(),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::IdMatch;
    use crate::config::{ForeignConfig, HomeAgent, Prefix};
    use crate::crypto::KeyPair;
    use crate::wire::{CsaIdentity, Encr, ZoneTransform};
    use pfkey::{Mode, ZoneMap};

    const SPI: u32 = 0x1000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A foreign agent with two home agents, which holds a CSA of the first.
    fn holding() -> (Config, Foreign) {
        let agent = |name: &str| HomeAgent {
            identity: IdMatch::Exactly(Id::fqdn(name)),
            prefixes: vec![Prefix {
                address: ip("203.0.113.0"),
                bits: 24,
            }],
            standby: true,
            addresses: Vec::new(),
        };
        let config = Config {
            foreign: ForeignConfig {
                home_agents: vec![agent("ha.test"), agent("other.test")],
                ..ForeignConfig::default()
            },
            ..Config::default()
        };
        let pair = |octet| KeyPair {
            key: Secret::copy(&[octet; 32]),
            salt: Secret::copy(&[octet; 4]),
        };
        let transform = ZoneTransform {
            encr: Encr::AES_GCM_16_IIV,
            key_bits: 256,
        };
        let csa = RelayCsa {
            identity: CsaIdentity {
                generation: 3,
                mode: Mode::Tunnel,
                relay_number: 1,
                spi_in: SPI + 1,
                spi_out: SPI,
                replay_window: 64,
                sequence_in: 0,
                sequence_out: 0,
                lifetime: 0,
                may_write: false,
                standby: false,
                source: ip("192.0.2.2"),
                destination: ip("192.0.2.1"),
            },
            ts_source: vec![TrafficSelector::any(ip("0.0.0.0"))],
            ts_home: vec![TrafficSelector::host(ip("203.0.113.7"))],
            map: ZoneMap::default_for(Mode::Tunnel),
            transform,
            keys_out: pair(1),
            keys_in: pair(2),
        };
        let relay = Relay {
            transforms: ZoneMapPayload {
                map: csa.map,
                transforms: vec![vec![transform]; 2],
            },
            csa,
            distributor: Id::fqdn("ha.test"),
            handed_on: false,
            k_fa: None,
            expires: None,
        };
        let mut foreign = Foreign::default();
        foreign.relays.insert((ip("192.0.2.1"), SPI), relay);
        (config, foreign)
    }

    /// What a peer's CSA_REVOKE drops.
    fn revoke(config: &Config, foreign: &mut Foreign, peer: &str, generation: u32) -> Vec<Payload> {
        let id = Id::fqdn(peer);
        let peer = Peer {
            id: &id,
            certificate: None,
        };
        let by = By {
            ike: IkeId(1),
            message_id: 7,
            now: Time::ZERO,
        };
        let one = Revocation {
            spi: SPI,
            destination: ip("192.0.2.1"),
            generation,
        };
        let asked = [Payload::CsaData(CsaData::Revoke(vec![one]))];
        let mut out = VecDeque::new();
        let answer = foreign.revoke(config, peer, &asked, by, &mut out);
        let told = out.len();
        let dropped = answer != [Payload::CsaData(CsaData::Revoke(Vec::new()))];
        assert_eq!(told, usize::from(dropped), "told of if it was dropped");
        answer
    }

    /// Another home agent's, a neighbour's and a stranger's CSA_REVOKE drop nothing and leave no trace, not even of a CSA
    /// that is yet to come (docs/wire.md 3.2n).
    #[test]
    fn only_who_distributed_revokes() {
        let (config, mut foreign) = holding();
        for peer in ["other.test", "fa2.test", "mh.test"] {
            let answer = revoke(&config, &mut foreign, peer, 9);
            assert_eq!(answer, [Payload::CsaData(CsaData::Revoke(Vec::new()))]);
            assert_eq!(foreign.relays.len(), 1, "{peer}");
            assert!(foreign.revoked.is_empty(), "{peer}");
        }
        let key = (ip("192.0.2.1"), SPI);
        let held = foreign.relays.remove(&key).unwrap();
        revoke(&config, &mut foreign, "other.test", 9);
        let by = By {
            ike: IkeId(2),
            message_id: 1,
            now: Time::ZERO,
        };
        let map = [Payload::ZoneMap(held.transforms.clone())];
        let mut out = VecDeque::new();
        let given = foreign.take(
            &config,
            held.csa.clone(),
            None,
            &map,
            (&held.distributor, false),
            by,
            &mut out,
        );
        assert_eq!(given, GroupStatus::Accepted);
        // Nor does another home agent's CSA_DISTRIBUTE take its place.
        let other = Id::fqdn("third.test");
        let given = foreign.take(
            &config,
            held.csa.clone(),
            None,
            &map,
            (&other, false),
            by,
            &mut out,
        );
        assert_eq!(given, GroupStatus::Refused);
        // An older generation than it holds drops nothing either, the distributor's own does.
        revoke(&config, &mut foreign, "ha.test", 2);
        assert_eq!(foreign.relays.len(), 1);
        revoke(&config, &mut foreign, "ha.test", 3);
        assert!(foreign.relays.is_empty());
    }

    /// A CSA of that host, with those SPIs towards it and back, as a group of payloads.
    fn group_of(foreign: &Foreign, home: &str, spis: (u32, u32)) -> (RelayCsa, Vec<Payload>) {
        let relay = &foreign.relays[&(ip("192.0.2.1"), SPI)];
        let mut csa = relay.csa.clone();
        csa.ts_home = vec![TrafficSelector::host(ip(home))];
        csa.identity.destination = ip(home);
        (csa.identity.spi_out, csa.identity.spi_in) = spis;
        csa.identity.lifetime = 600;
        let payloads = group::payloads(&csa, &relay.transforms, None);
        (csa, payloads)
    }

    /// What a previous FA answers is for the host that was asked for, and takes no other host's place in either direction:
    /// not in the store, and not in the kernel, which knows a direction by SPI and destination (docs/wire.md 3.2m).
    #[test]
    fn what_a_previous_fa_hands_on_takes_no_other_csas_place() {
        let (mut config, mut foreign) = holding();
        config.foreign.home_agents[0].addresses = vec![ip("192.0.2.2")];
        config.foreign.neighbours = vec![crate::config::Agent {
            identity: IdMatch::Exactly(Id::fqdn("fa2.test")),
            addresses: vec![ip("198.51.100.2")],
        }];
        let (asked, previous) = (ip("203.0.113.8"), Id::fqdn("fa2.test"));
        foreign.register(asked, Id::fqdn("ha.test"));
        let held = foreign.relays[&(ip("192.0.2.1"), SPI)].csa.identity;
        foreign
            .inbound
            .insert((held.source, held.spi_in), (held.destination, held.spi_out));
        let by = By {
            ike: IkeId(2),
            message_id: 1,
            now: Time::ZERO,
        };
        let answer = |foreign: &mut Foreign, change: &dyn Fn(&mut RelayCsa)| {
            let (mut csa, _) = group_of(foreign, "203.0.113.8", (0x2000, 0x2001));
            change(&mut csa);
            let transforms = &foreign.relays[&(ip("192.0.2.1"), SPI)].transforms;
            let payloads = group::payloads(&csa, transforms, None);
            let mut out = VecDeque::new();
            foreign.requested(&config, asked, &payloads, &previous, by, &mut out)
        };
        // The place of the other's outbound, and of its inbound direction; another host's, another HA's, and one for ever.
        let of_other = |csa: &mut RelayCsa| {
            (csa.identity.destination, csa.identity.spi_out) = (ip("192.0.2.1"), SPI);
        };
        assert!(!answer(&mut foreign, &of_other));
        assert!(!answer(&mut foreign, &|csa| csa.identity.spi_in = held.spi_in));
        let host = vec![TrafficSelector::host(ip("203.0.113.7"))];
        assert!(!answer(&mut foreign, &|csa| csa.ts_home = host.clone()));
        let elsewhere = ip("192.0.2.9");
        assert!(!answer(&mut foreign, &|csa| csa.identity.source = elsewhere));
        assert!(!answer(&mut foreign, &|csa| csa.identity.lifetime = 0));
        assert_eq!(foreign.relays.len(), 1);
        // Whatever generation it says, its HA replaces and revokes it.
        let boasts = |csa: &mut RelayCsa| csa.identity.generation = u32::MAX;
        assert!(answer(&mut foreign, &boasts));
        let mut out = VecDeque::new();
        let (_, payloads) = group_of(&foreign, "203.0.113.8", (0x2000, 0x2001));
        let id = Id::fqdn("ha.test");
        let agent = Peer {
            id: &id,
            certificate: None,
        };
        let key = (asked, 0x2000);
        let status = foreign.distribute(&config, agent, &payloads, by, &mut out);
        let accepted = Payload::CsaData(CsaData::Status(vec![GroupStatus::Accepted]));
        assert_eq!(status, [accepted]);
        assert_eq!(
            foreign.relays[&key].csa.identity.generation,
            held.generation
        );
        foreign.relays.remove(&key);
        assert!(answer(&mut foreign, &boasts));
        let one = Revocation {
            spi: 0x2000,
            destination: asked,
            generation: 3,
        };
        let asked = [Payload::CsaData(CsaData::Revoke(vec![one]))];
        foreign.revoke(&config, agent, &asked, by, &mut out);
        assert!(!foreign.relays.contains_key(&key));
    }

    /// Another home agent's CSA with this one's address as its end isn't taken (docs/wire.md 3.2m).
    #[test]
    fn a_home_agent_gives_csas_of_its_own_address_alone() {
        let (mut config, mut foreign) = holding();
        config.foreign.home_agents[0].addresses = vec![ip("192.0.2.2")];
        config.foreign.home_agents[1].addresses = vec![ip("192.0.2.3")];
        let (_, payloads) = group_of(&foreign, "203.0.113.9", (0x3000, 0x3001));
        let by = By {
            ike: IkeId(2),
            message_id: 1,
            now: Time::ZERO,
        };
        let given = [
            ("other.test", GroupStatus::Refused),
            ("ha.test", GroupStatus::Accepted),
        ];
        for (who, expected) in given {
            let id = Id::fqdn(who);
            foreign.register(ip("203.0.113.9"), id.clone());
            let peer = Peer {
                id: &id,
                certificate: None,
            };
            let mut out = VecDeque::new();
            let status = foreign.distribute(&config, peer, &payloads, by, &mut out);
            assert_eq!(
                status,
                [Payload::CsaData(CsaData::Status(vec![expected]))],
                "{who}"
            );
        }
    }

    /// Identifications are compared as serial numbers: NTP's seconds begin anew in 2036 (docs/wire.md 3.2j).
    #[test]
    fn identifications_go_on_past_the_end_of_ntps_era() {
        assert!(later(2, 1) && !later(1, 2) && !later(1, 1));
        assert!(later(5, u64::MAX - 5) && !later(u64::MAX - 5, 5));
    }
}
