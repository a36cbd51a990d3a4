// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[mobile-ip]`: what the node is in Mobile IP, which its role says, and whom it shares secrets with.

use super::check::Checker;
use super::credential;
use super::file::{self, MobileAlgorithm, MobilePeer, Reverse, Role};
use super::predistribution::Predistribution;
use super::source::Mistake;
use super::value::Age;
use mml_ike::config::Renewal;
use mml_mip::{
    Algorithm, Association, ForeignConfig, HomeConfig, Key, NodeConfig, Prefix, Replay,
    ReverseTunnel, Subscriber, SPI_MIN,
};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// Registrations an agent grants at most, and asks for, unless the file says otherwise.
const LIFETIME: Duration = Duration::from_secs(600);
/// Between advertisements.
const INTERVAL: Duration = Duration::from_secs(1);
/// Mobile hosts a home agent serves at once.
const MAX_BINDINGS: usize = 65_536;
/// Foreign agents that may have had zone 1's keys before they are replaced.
const REKEY_HOLDERS: usize = 16;

/// A node's Mobile IP.
#[derive(Clone, Debug)]
pub struct MobileIp {
    /// Interfaces: those that mobile hosts come to, the home network's, or those a mobile host has. At an agent, what
    /// is advertised on them is found when the daemon begins.
    pub links: Vec<String>,
    /// Between advertisements.
    pub interval: Duration,
    /// HA: whether the neighbours of a host's foreign agent get its CSAs beforehand (PKD).
    pub predistribute: bool,
    /// HA: when a CSA gets fresh keys because of who knows zone 1's.
    pub renewal: Renewal,
    /// HA, FA: how CSAs go to many foreign agents at once; each by IKE without.
    pub predistribution: Option<Predistribution>,
    /// FA, MH: whether packets are held for a handoff, and follow the host (CSA_HANDOVER).
    pub handover: bool,
    /// What the node is, without its links.
    pub agent: Agent,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Agent {
    /// A home agent.
    Home(HomeConfig),
    /// A foreign agent.
    Foreign(ForeignConfig),
    /// A mobile host.
    Node(NodeConfig),
}

impl Checker<'_> {
    pub(super) fn mobile_ip(&self) -> Result<Option<MobileIp>, Mistake> {
        let Some(table) = &self.file.mobile_ip else {
            return Ok(None);
        };
        let t = table.get_ref();
        self.fits(table)?;
        let links = t.links.as_ref();
        let links = links.map_or_else(Vec::new, |links| links.get_ref().clone());
        let role = self.file.node.role;
        if links.is_empty() && role != Role::Ha {
            return Err(self.at(
                table,
                "links: missing; list the interfaces that mobile hosts come to (at `fa`) or that this host has (at `mh`)",
            ));
        }
        if let Some(many) = t
            .links
            .as_ref()
            .filter(|_| role == Role::Ha && links.len() > 1)
        {
            return Err(self.at(
                many,
                "links: more than one home network; list one interface",
            ));
        }
        let agent = match role {
            Role::Ha => Agent::Home(self.mobile_home(table)?),
            Role::Fa => Agent::Foreign(self.mobile_foreign(table)?),
            Role::Mh => Agent::Node(self.mobile_node(table)?),
            Role::Gateway | Role::Host => {
                return Err(self.at(
                    table,
                    "mobile-ip: only `ha`, `fa` and `mh` have a part in it; remove the table, or correct `role`",
                ));
            }
        };
        let interval = t.interval.as_ref();
        Ok(Some(MobileIp {
            links,
            interval: interval.map_or(INTERVAL, |interval| interval.get_ref().0),
            predistribute: t.predistribute.as_ref().is_none_or(|said| *said.get_ref()),
            renewal: self.renewal(t)?,
            predistribution: self.predistribution(table)?,
            handover: t.handover.as_ref().is_none_or(|said| *said.get_ref()),
            agent,
        }))
    }

    fn renewal(&self, t: &file::MobileIp) -> Result<Renewal, Mistake> {
        let left = t.rekey_after_handoff.as_ref();
        let holders = t.rekey_holders.as_ref();
        if let Some(none) = holders.filter(|most| *most.get_ref() == 0) {
            return Err(self.at(
                none,
                "rekey-holders: 0 lets no foreign agent have zone 1's keys; write how many may have had them before they are \
                 replaced, or for new keys as soon as one is left `rekey-after-handoff = true`",
            ));
        }
        Ok(Renewal {
            left: left.is_some_and(|said| *said.get_ref()),
            holders: Some(holders.map_or(REKEY_HOLDERS, |most| usize::from(*most.get_ref()))),
        })
    }

    /// Keys that another role has.
    fn fits(&self, table: &Spanned<file::MobileIp>) -> Result<(), Mistake> {
        let t = table.get_ref();
        let role = self.file.node.role;
        let (agent, node) = (role != Role::Mh, role == Role::Mh);
        let span = |place: &Option<Spanned<Ipv4Addr>>| place.as_ref().map(Spanned::span);
        let first = |list: &[Spanned<MobilePeer>]| list.first().map(Spanned::span);
        let by = t.predistribute_by.as_ref().map(Spanned::span);
        let ttl = t.predistribute_ttl.as_ref().map(Spanned::span);
        let wrong = [
            ("address", span(&t.address), agent),
            ("interval", t.interval.as_ref().map(Spanned::span), agent),
            (
                "predistribute",
                t.predistribute.as_ref().map(Spanned::span),
                role == Role::Ha,
            ),
            (
                "rekey-after-handoff",
                t.rekey_after_handoff.as_ref().map(Spanned::span),
                role == Role::Ha,
            ),
            (
                "rekey-holders",
                t.rekey_holders.as_ref().map(Spanned::span),
                role == Role::Ha,
            ),
            ("predistribute-by", by, agent),
            ("predistribute-ttl", ttl, role == Role::Ha),
            (
                "handover",
                t.handover.as_ref().map(Spanned::span),
                role != Role::Ha,
            ),
            ("home", span(&t.home), node),
            ("home-agent", span(&t.home_agent), node),
            ("spi", t.spi.as_ref().map(Spanned::span), node),
            (
                "secret-file",
                t.secret_file.as_ref().map(Spanned::span),
                node,
            ),
            ("algorithm", t.algorithm.as_ref().map(Spanned::span), node),
            ("host", first(&t.host), role == Role::Ha),
            ("peer", first(&t.peer), agent),
        ];
        for (key, place, right) in wrong {
            if let (Some(place), false) = (place, right) {
                let what = format_args!(
                    "{key}: of no use with `role = \"{}\"`; remove it",
                    role.name()
                );
                return Err(self.source.mistake(&place, what));
            }
        }
        Ok(())
    }

    /// The address the agent is known by: the named one, or the node's first of IPv4.
    pub(super) fn mobile_address(
        &self,
        table: &Spanned<file::MobileIp>,
    ) -> Result<Ipv4Addr, Mistake> {
        let own = self.file.node.addresses.get_ref();
        if let Some(address) = &table.get_ref().address {
            if !own.contains(&IpAddr::V4(*address.get_ref())) {
                return Err(self.at(
                    address,
                    "address: not one of the node's `addresses`; add it there",
                ));
            }
            return Ok(*address.get_ref());
        }
        let first = own.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        first.ok_or_else(|| {
            self.at(
                &self.file.node.addresses,
                "addresses: no IPv4 address among them, and Mobile IP here is IPv4's; add one",
            )
        })
    }

    fn lifetime(&self, table: &Spanned<file::MobileIp>) -> Result<u16, Mistake> {
        let Some(lifetime) = &table.get_ref().lifetime else {
            return Ok(u16::try_from(LIFETIME.as_secs()).unwrap_or(u16::MAX));
        };
        let Age(age) = lifetime.get_ref();
        // 0xFFFF is for ever (RFC 5944 §3.3).
        let seconds = u16::try_from(age.as_secs()).ok().filter(|s| *s != u16::MAX);
        seconds.ok_or_else(|| {
            self.at(
                lifetime,
                "lifetime: longer than a registration can be; write at most `65534s`",
            )
        })
    }

    fn reverse(&self, table: &Spanned<file::MobileIp>) -> ReverseTunnel {
        let said = table.get_ref().reverse_tunnel.as_ref();
        match said.map_or(Reverse::Required, |reverse| *reverse.get_ref()) {
            Reverse::Required => ReverseTunnel::Required,
            Reverse::Offered => ReverseTunnel::Offered,
            Reverse::Refused => ReverseTunnel::Refused,
        }
    }

    fn association(
        &self,
        spi: &Spanned<u32>,
        file: &Spanned<PathBuf>,
        algorithm: MobileAlgorithm,
    ) -> Result<Association, Mistake> {
        if *spi.get_ref() < SPI_MIN {
            return Err(self.at(
                spi,
                "spi: 0 to 255 are reserved (RFC 5944); write 256 or more",
            ));
        }
        let path = self.folder.join(file.get_ref());
        let secret = credential::secret(self.source, file, &path)?;
        Ok(Association {
            spi: *spi.get_ref(),
            algorithm: match algorithm {
                MobileAlgorithm::HmacSha256 => Algorithm::HmacSha256,
                MobileAlgorithm::HmacMd5 => Algorithm::HmacMd5,
            },
            key: Key::new(secret.expose()),
            replay: Replay::default(),
        })
    }

    /// Associations by address; several of one address while keys are being changed.
    fn associations(
        &self,
        list: &[Spanned<MobilePeer>],
    ) -> Result<HashMap<Ipv4Addr, Vec<Association>>, Mistake> {
        let mut all: HashMap<Ipv4Addr, Vec<Association>> = HashMap::new();
        for one in list {
            let one = one.get_ref();
            let association = self.association(&one.spi, &one.secret_file, one.algorithm)?;
            let of = all.entry(*one.address.get_ref()).or_default();
            if of.iter().any(|other| other.spi == association.spi) {
                return Err(self.at(
                    &one.spi,
                    "spi: there is one of this number with this address already; write another",
                ));
            }
            of.push(association);
        }
        Ok(all)
    }

    fn mobile_home(&self, table: &Spanned<file::MobileIp>) -> Result<HomeConfig, Mistake> {
        let t = table.get_ref();
        let hosts = self.associations(&t.host)?;
        if hosts.is_empty() {
            return Err(self.at(
                table,
                "host: missing; write a [[mobile-ip.host]] for each mobile host",
            ));
        }
        let subscriber = |associations| Subscriber {
            associations,
            barred: false,
        };
        let subscribers = hosts
            .into_iter()
            .map(|(home, associations)| (home, subscriber(associations)));
        Ok(HomeConfig {
            addresses: vec![self.mobile_address(table)?],
            home_link: None,
            max_lifetime: self.lifetime(table)?,
            max_bindings: MAX_BINDINGS,
            reverse_tunnel: self.reverse(table),
            revocation: true,
            subscribers: subscribers.collect(),
            foreign_agents: self.associations(&t.peer)?,
        })
    }

    fn mobile_foreign(&self, table: &Spanned<file::MobileIp>) -> Result<ForeignConfig, Mistake> {
        let mut config = ForeignConfig::new(self.mobile_address(table)?, Vec::new());
        config.max_lifetime = self.lifetime(table)?;
        config.reverse_tunnel = self.reverse(table);
        config.home = self.associations(&table.get_ref().peer)?;
        config.home_agents = self.known_home_agents();
        config.agents = self.agents_addresses();
        Ok(config)
    }

    /// This node's addresses and its neighbours': no visitor has one of them.
    fn agents_addresses(&self) -> HashSet<Ipv4Addr> {
        let own = self.file.node.addresses.get_ref().iter();
        let neighbours = self.file.neighbour.iter().map(Spanned::get_ref);
        let all = own.chain(neighbours.flat_map(|one| &one.addresses));
        let v4 = all.filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        v4.collect()
    }

    /// Home agents whose address is said, and their mobile hosts' addresses; none if no address is said.
    fn known_home_agents(&self) -> Option<HashMap<Ipv4Addr, Vec<Prefix>>> {
        let agents = self.file.home_agent.iter().map(Spanned::get_ref);
        let known = agents.filter_map(|one| {
            let prefixes = one
                .prefixes
                .iter()
                .filter_map(|prefix| match prefix.range()? {
                    (IpAddr::V4(network), len) => Some(Prefix { network, len }),
                    (IpAddr::V6(_), _) => None,
                });
            Some((*one.address.as_ref()?.get_ref(), prefixes.collect()))
        });
        let known: HashMap<_, _> = known.collect();
        (!known.is_empty()).then_some(known)
    }

    fn mobile_node(&self, table: &Spanned<file::MobileIp>) -> Result<NodeConfig, Mistake> {
        let t = table.get_ref();
        let missing =
            |key: &str, what: &str| self.at(table, format_args!("{key}: missing; write {what}"));
        let home = t.home.as_ref();
        let home = home.ok_or_else(|| missing("home", "the host's lasting address"))?;
        let agent = t.home_agent.as_ref();
        let agent = agent.ok_or_else(|| missing("home-agent", "its home agent's address"))?;
        let spi = t.spi.as_ref();
        let spi =
            spi.ok_or_else(|| missing("spi", "the number the home agent knows the secret by"))?;
        let file = t.secret_file.as_ref();
        let file = file.ok_or_else(|| {
            missing(
                "secret-file",
                "the file of the secret shared with the home agent",
            )
        })?;
        let algorithm = t.algorithm.as_ref();
        let algorithm = algorithm.map_or_else(MobileAlgorithm::default, |one| *one.get_ref());
        let association = self.association(spi, file, algorithm)?;
        let mut config = NodeConfig::new(*home.get_ref(), *agent.get_ref(), association);
        config.lifetime = self.lifetime(table)?;
        config.reverse_tunnel = self.reverse(table) != ReverseTunnel::Refused;
        Ok(config)
    }
}
