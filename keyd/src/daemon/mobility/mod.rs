// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mobile IPv4 of a node (docs/mobility.md): the agent or mobile node of `mml-mip`, its sockets, and the kernel's routing.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | IPv4, UDP, ICMP and ARP as octets |
//! | [`socket`] | where they come in and go out |
//! | [`links`] | which links are up |
//! | [`mtu`] | whether what is wrapped fits its interfaces |
//! | [`network`] | tunnels, routes, neighbours; [`route_message`] is how rtnetlink says them |
//! | `passage` | the same for hosts that left, and for those that are about to come |

pub mod links;
pub mod mtu;
pub mod network;
pub mod packet;
mod passage;
pub mod route_message;
pub mod socket;

use super::config::{Agent, MobileIp};
use super::engine::{Order, Random};
use crate::netlink::Error;
use mml_ike::host::Host as _;
use mml_mip::{
    Action, Event, ForeignAgent, ForeignConfig, HandoverKey, HomeAgent, Identification, Incoming,
    Interface, LinkAddress, MobileNode, Now, Ntp, Payload, Seen, Tunnel,
};
use network::{Network, Side};
use packet::Arrived;
use socket::{Heard, Link, Sockets};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Solicitations answered a second on a link.
const ANSWERS: u32 = 100;

/// Who hears what happens, in its place among what is done.
pub type Told<'a> = &'a mut dyn FnMut(&Event);

/// A registration that has been ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// The other agent.
    pub peer: Ipv4Addr,
    /// Whether it is told.
    pub told: bool,
}

/// Nobody of that address is registered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRegistered;

enum Part {
    Home(Box<HomeAgent>),
    Foreign(Box<ForeignAgent>),
    Node(Box<MobileNode>),
}

/// A node's Mobile IP.
pub struct Mobility {
    part: Part,
    sockets: Sockets,
    network: Network,
    random: Random,
    links: Vec<Link>,
    /// FA: its own.
    care_of: Option<Ipv4Addr>,
    /// FA: whether packets are held for handoffs, and so none is to be lost here, either.
    hands_over: bool,
    /// Where the packet in hand came from: its link and its sender there.
    asked_from: Option<(u32, LinkAddress)>,
}

fn now(monotonic: Duration) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        monotonic,
        wall: Ntp::from_unix(wall.unwrap_or_default()),
    }
}

fn advertised(link: &Link, interval: Duration) -> Result<mml_mip::Link, String> {
    let (address, prefix_len) = link.address.ok_or_else(|| {
        format!(
            "mobile-ip: interface {} has no IPv4 address to advertise; give it one",
            link.name
        )
    })?;
    Ok(mml_mip::Link {
        interface: Interface(link.index),
        address,
        prefix_len,
        interval,
        answers_per_second: ANSWERS,
    })
}

/// Says of which home agents anybody may say who is a visitor.
fn warn_of_unproven(foreign: &ForeignConfig) {
    for home_agent in foreign.unproven() {
        tracing::warn!(
            "mobile-ip: home agent {home_agent} shares no secret with this agent: whoever sends packets in its name says who is a visitor here; \
             write a [[mobile-ip.peer]] of {home_agent} here, and one of this agent there"
        );
    }
    if foreign.home_agents.is_none() {
        tracing::warn!(
            "mobile-ip: registrations go to any home agent that a host names; write a [[home-agent]] with its `address` for each that may have hosts here"
        );
    }
}

impl Mobility {
    /// Looks up the links, opens the sockets and, at a home agent, says what of its own packets is routed how.
    ///
    /// # Errors
    /// What it was and what mends it.
    pub fn open(config: &MobileIp, monotonic: Duration) -> Result<Self, String> {
        let at = now(monotonic);
        let preferred = match &config.agent {
            Agent::Home(home) => home.addresses.first().copied(),
            Agent::Foreign(_) | Agent::Node(_) => None,
        };
        let links: Vec<Link> = config
            .links
            .iter()
            .map(|name| Link::find(name, preferred))
            .collect::<Result<_, _>>()?;
        let names = links.iter().map(|link| (link.index, link.name.clone()));
        let names = names.collect();
        let routing = |error: Error| format!("mobile-ip: routes can't be set: {error}");
        let side = match (&config.agent, preferred) {
            (Agent::Node(node), _) => Side::Mobile(node.home_agent),
            (Agent::Home(_), Some(address)) => Side::Home(address),
            (Agent::Home(_) | Agent::Foreign(_), _) => Side::Foreign,
        };
        let network = Network::open(side, names).map_err(routing)?;
        let is_agent = !matches!(config.agent, Agent::Node(_));
        let sockets = Sockets::open(&links, is_agent).map_err(|error| error.to_string())?;
        let all = || links.iter().map(|link| advertised(link, config.interval));
        let part = match &config.agent {
            Agent::Home(home) => {
                let mut home = home.clone();
                home.home_link = all().next().transpose()?;
                Part::Home(Box::new(HomeAgent::new(home, at)))
            }
            Agent::Foreign(foreign) => {
                let mut foreign = foreign.clone();
                foreign.links = all().collect::<Result<_, _>>()?;
                foreign.agents.extend(socket::own_addresses()?);
                warn_of_unproven(&foreign);
                Part::Foreign(Box::new(ForeignAgent::new(foreign, at)))
            }
            Agent::Node(node) => Part::Node(Box::new(MobileNode::new(node.clone()))),
        };
        Ok(Mobility {
            part,
            sockets,
            network,
            random: Random::default(),
            links,
            // Whose home agent isn't known could be anybody's, with a tunnel for each.
            hands_over: match &config.agent {
                Agent::Foreign(foreign) => config.handover && foreign.home_agents.is_some(),
                Agent::Home(_) | Agent::Node(_) => false,
            },
            asked_from: None,
            care_of: match &config.agent {
                Agent::Foreign(foreign) => Some(foreign.care_of),
                Agent::Home(_) | Agent::Node(_) => None,
            },
        })
    }

    /// What comes next.
    pub async fn receive(&mut self) -> Option<Heard> {
        self.sockets.receive().await
    }

    /// When [`tick`](Self::tick) has something to do, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let part = match &self.part {
            Part::Home(agent) => agent.next_deadline(),
            Part::Foreign(agent) => agent.next_deadline(),
            Part::Node(node) => node.next_deadline(),
        };
        part.into_iter().chain(self.network.next_deadline()).min()
    }

    /// MH, HA: asks what has arrived, where that is told when this packet, or else a link's change or a deadline, is dealt
    /// with: of which host, at a home agent.
    pub fn tell_seen(
        &mut self,
        heard: Option<&Heard>,
        monotonic: Duration,
        ask: impl FnOnce(Option<Ipv4Addr>) -> Vec<Seen>,
    ) {
        let packet = match heard {
            Some(Heard::Packet(arrived)) => Some(incoming(arrived)),
            // It brings on nothing that it would be told with.
            Some(Heard::Undelivered(_)) => return,
            None => None,
        };
        match (&mut self.part, packet) {
            (Part::Node(node), packet) if node.tells_seen(packet.as_ref()) => {
                node.has_seen(ask(None));
            }
            (Part::Home(agent), Some(packet)) => {
                if let Some(home) = agent.tells_seen(&packet, now(monotonic)) {
                    agent.has_seen(home, ask(Some(home)));
                }
            }
            (Part::Home(_) | Part::Foreign(_) | Part::Node(_), _) => {}
        }
    }

    /// A packet came, or an ICMP error about one that was sent.
    pub fn handle(&mut self, heard: &Heard, monotonic: Duration, told: Told<'_>) {
        let at = now(monotonic);
        let arrived = match heard {
            Heard::Packet(arrived) => arrived,
            Heard::Undelivered(one) => {
                tracing::debug!(to = %one.destination, code = ?one.code, "ICMP: not delivered");
                if let Part::Foreign(agent) = &mut self.part {
                    let actions = agent.unreachable(one.destination, one.code, &one.quoted);
                    self.act(actions, monotonic, told);
                }
                return;
            }
        };
        let packet = incoming(arrived);
        let mut random = drawn(&mut self.random);
        let actions = match &mut self.part {
            Part::Home(agent) => agent.handle(&packet, at, &mut random),
            Part::Foreign(agent) => agent.handle(&packet, at, &mut random),
            Part::Node(node) => node.handle(&packet, at, &mut random),
        };
        drop(random);
        self.asked_from = arrived.link.map(|link| (arrived.interface, link));
        self.act(actions, monotonic, told);
        self.asked_from = None;
    }

    /// Does what is due.
    pub fn tick(&mut self, monotonic: Duration, told: Told<'_>) {
        let at = now(monotonic);
        let mut random = drawn(&mut self.random);
        let actions = match &mut self.part {
            Part::Home(agent) => agent.tick(at, &mut random),
            Part::Foreign(agent) => agent.tick(at, &mut random),
            Part::Node(node) => node.tick(at, &mut random),
        };
        drop(random);
        self.act(actions, monotonic, told);
        self.network.tick(monotonic);
    }

    /// A link went up or down.
    pub fn link(&mut self, index: u32, up: bool, monotonic: Duration, told: Told<'_>) {
        let Some(link) = self.links.iter().find(|link| link.index == index) else {
            return;
        };
        tracing::info!("link {} is {}", link.name, if up { "up" } else { "down" });
        let Part::Node(node) = &mut self.part else {
            if up {
                self.put_up_again(index, monotonic);
            }
            return;
        };
        let (interface, at) = (Interface(index), now(monotonic));
        let actions = match up {
            true => node.link_up(interface, at),
            false => node.link_down(interface, at, &mut drawn(&mut self.random)),
        };
        self.act(actions, monotonic, told);
    }

    /// An agent's link is up again, or for the first time: what the kernel forgot with it is put up.
    fn put_up_again(&mut self, index: u32, monotonic: Duration) {
        self.network.link_up(index);
        if let Part::Foreign(agent) = &mut self.part {
            agent.link_up(Interface(index), now(monotonic));
        }
        let Part::Home(agent) = &self.part else {
            return;
        };
        for home in agent.subscribers() {
            if let Err(error) = self.network.at_home(home, index) {
                tracing::error!(%home, "no route to the home network: {error}");
            }
        }
    }

    /// Home agent: takes up the bindings of before a restart, which the kernel's routes tell of. How long they still hold
    /// isn't known: as long as a registration may. Their mobile hosts renew them before.
    pub fn resume(&mut self, monotonic: Duration, told: Told<'_>) {
        let Part::Home(agent) = &mut self.part else {
            return;
        };
        let found = match self.network.tunnelled() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("bindings of before can't be read from the kernel: {error}");
                return;
            }
        };
        let (at, mut actions) = (now(monotonic), Vec::new());
        for (home, care_of) in found {
            let Some((restored, lifetime)) = agent.resume(home, care_of, at) else {
                continue;
            };
            actions.extend(restored);
            actions.push(Action::Notify(Event::Bound {
                home,
                care_of,
                previous: None,
                named: None,
                identification: Identification(at.wall.0),
                lifetime,
            }));
        }
        self.act(actions, monotonic, told);
    }

    /// An agent: does what key management wants for a handoff. False if it couldn't be.
    pub fn order(&mut self, order: &Order, monotonic: Duration) -> bool {
        let Some(local) = self.care_of.or(self.network.home_agent()) else {
            return false;
        };
        let to = |remote| Tunnel { local, remote };
        let done = match order {
            Order::LetIn(neighbour) => self.network.add_lasting(to(*neighbour)),
            Order::Follow(one) => self.network.follow(one.home, to(one.care_of), monotonic),
            Order::Recall(one) => self.network.recall(one.home, to(one.from), monotonic),
        };
        if let Err(error) = &done {
            tracing::error!("{order:?} can't be done: {error}");
        }
        done.is_ok()
    }

    /// MH: that foreign agent has K_FA, or has it no more.
    pub fn handover_key(&mut self, care_of: Ipv4Addr, key: Option<HandoverKey>) {
        if let Part::Node(node) = &mut self.part {
            node.handover_key(care_of, key);
        }
    }

    /// MH: deregisters, if it is registered anywhere. [`Event::Left`] tells that the home agent knows.
    pub fn leave(&mut self, monotonic: Duration, told: Told<'_>) -> bool {
        let Part::Node(node) = &mut self.part else {
            return false;
        };
        if node.care_of().is_none() {
            return false;
        }
        let actions = node.leave(now(monotonic), &mut drawn(&mut self.random));
        self.act(actions, monotonic, told);
        true
    }

    /// An agent: who is registered, and by which other agent: the foreign one, or the home agent.
    pub fn registered(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        match &self.part {
            Part::Home(agent) => agent
                .bindings()
                .map(|one| (one.home, one.care_of))
                .collect(),
            Part::Foreign(agent) => {
                let visitors = agent.visitors();
                visitors.map(|one| (one.home, one.home_agent)).collect()
            }
            Part::Node(_) => Vec::new(),
        }
    }

    /// An agent: ends a host's registration (RFC 3543), and has the other agent told, which is named here, and whether it is
    /// told: it isn't without an association with it. [`Event::RevocationConfirmed`] says that it knows.
    ///
    /// # Errors
    /// Nobody of that address is registered here.
    pub fn revoke(
        &mut self,
        home: Ipv4Addr,
        monotonic: Duration,
        told: Told<'_>,
    ) -> Result<Revoked, NotRegistered> {
        let found = self.registered().into_iter().find(|one| one.0 == home);
        let (_, peer) = found.ok_or(NotRegistered)?;
        let at = now(monotonic);
        let actions = match &mut self.part {
            Part::Home(agent) => agent.revoke(home, at),
            Part::Foreign(agent) => agent.revoke(home, at),
            Part::Node(_) => return Err(NotRegistered),
        };
        let told_peer = tells(&actions, peer);
        self.act(actions, monotonic, told);
        Ok(Revoked {
            peer,
            told: told_peer,
        })
    }

    /// An agent: ends all registrations and takes no more. Which hosts', with which other agent each, that is told.
    pub fn close(&mut self, monotonic: Duration, told: Told<'_>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let (mut all, at) = (self.registered(), now(monotonic));
        let actions = match &mut self.part {
            Part::Home(agent) => agent.close(at),
            Part::Foreign(agent) => agent.close(at),
            Part::Node(_) => return Vec::new(),
        };
        all.retain(|(_, peer)| tells(&actions, *peer));
        self.act(actions, monotonic, told);
        all
    }

    /// Takes routes and tunnels away.
    pub fn flush(&mut self) {
        self.network.flush();
    }

    /// FA: a host whose registration is on its way is expected, until it is refused.
    fn expects(&mut self, event: &Event, monotonic: Duration) -> Result<(), Error> {
        match (event, self.asked_from, self.care_of) {
            (
                Event::Relayed {
                    home, home_agent, ..
                },
                Some(from),
                Some(local),
            ) if self.hands_over => {
                let tunnel = Tunnel {
                    local,
                    remote: *home_agent,
                };
                self.network.expect(*home, from, tunnel, monotonic)
            }
            (Event::Refused { home, .. }, _, _) => {
                self.network.unexpect(*home, monotonic);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn act(&mut self, actions: Vec<Action>, monotonic: Duration, told: Told<'_>) {
        for action in actions {
            let done = match action.clone() {
                Action::Send(packet) => {
                    self.sockets.send(&packet);
                    Ok(())
                }
                Action::AddTunnel(tunnel) => self.network.add_tunnel(tunnel),
                Action::RemoveTunnel(tunnel) => {
                    self.network.remove_tunnel(tunnel, monotonic);
                    Ok(())
                }
                Action::AddRoute(route) => self.network.add_route(route, monotonic),
                Action::RemoveRoute(route) => self.network.remove_route(route),
                Action::AddProxyArp { address, interface } => {
                    self.network.proxy_arp(address, interface.0, true)
                }
                Action::RemoveProxyArp { address, interface } => {
                    self.network.proxy_arp(address, interface.0, false)
                }
                Action::GratuitousArp {
                    address,
                    interface,
                    link,
                } => {
                    self.sockets.gratuitous_arp(address, interface.0, link);
                    Ok(())
                }
                Action::Notify(event) => {
                    // It may never have been turned out, so that its route is the one there was.
                    if let Event::Visiting { home, .. } = event {
                        self.network.stay(home, monotonic);
                    }
                    told(&event);
                    self.expects(&event, monotonic)
                }
            };
            if let Err(error) = done {
                tracing::error!("{action:?} failed: {error}");
            }
        }
    }
}

/// Whether an agent is told something.
fn tells(actions: &[Action], agent: Ipv4Addr) -> bool {
    let to =
        |action: &Action| matches!(action, Action::Send(packet) if packet.destination == agent);
    actions.iter().any(to)
}

/// A packet as Mobile IP takes it.
fn incoming(arrived: &Arrived) -> Incoming<'_> {
    let octets = arrived.octets.as_slice();
    Incoming {
        interface: Interface(arrived.interface),
        source: arrived.source,
        destination: arrived.destination,
        ttl: arrived.ttl,
        link_source: arrived.link,
        payload: match arrived.port {
            Some(source_port) => Payload::Udp {
                source_port,
                octets,
            },
            None => Payload::Icmp(octets),
        },
    }
}

fn drawn(random: &mut Random) -> impl FnMut() -> u32 + '_ {
    || {
        let mut octets = [0; 4];
        random.fill(&mut octets);
        u32::from_ne_bytes(octets)
    }
}
