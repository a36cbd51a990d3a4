// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tunnels, routes, rules and neighbours in the kernel, as Mobile IP's actions ask for them.
//!
//! Which packets go where is said so that whatever seals comes first:
//!
//! - At either agent a tunnel lets in what it is for: at the home agent packets from hosts that are bound to its other end,
//!   at the foreign agent packets to visitors (RFC 5944 §4.2.2). All else that comes out of it is dropped.
//! - At the home agent `main` leads to the mobile host by its tunnel with [`METRIC`]; a route into `mml0` has none and is
//!   taken before. What this node itself sends from its own address to the mobile host (sealed packets, IKE) is routed
//!   by a table of its own ([`HOME_TABLE`]), which knows the tunnels and, behind them, the home network's link.
//! - At the foreign agent what comes from a visitor is routed by a table a tunnel, whose number is the home agent's
//!   address.
//! - At the mobile host the foreign agent and the home agent have routes of their own, longer than any that leads into
//!   `mml0` (the paper's Section III.B).

use super::passage::Expected;
use super::route_message::{self as wire, Path, Rule, MAIN, METRIC};
use crate::netlink::route::already;
use crate::netlink::{Error, Line};
use mml_mip::{Interface, LinkAddress, Route, Tunnel};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use zeroize::Zeroizing;

/// The home agent's table of tunnels to its mobile hosts.
pub(super) const HOME_TABLE: u32 = 434;
/// The foreign agent's table of visitors: what may come out of a tunnel.
pub(super) const VISITORS_TABLE: u32 = 435;
/// Of the route to a host at home, behind the one into its tunnel.
const AT_HOME_METRIC: u32 = 1000;
/// How long a tunnel stays when nobody uses it any more: packets of the reverse way may still come, and the mobile host
/// may come back. Taking a device away takes the kernel long, too, and the registration reply would wait for it.
const LINGER: Duration = Duration::from_secs(2);
/// Octets that fit the path from mobile host to home agent, where a foreign agent tunnels it: 1500 less an IPv4 header.
pub(super) const TUNNELLED: u32 = 1480;

/// Whose routing it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A home agent's, known by this address.
    Home(Ipv4Addr),
    /// A foreign agent's.
    Foreign,
    /// A mobile host's, whose home agent has this address.
    Mobile(Ipv4Addr),
}

/// The kernel's routing, by rtnetlink.
pub struct Network {
    line: Line,
    side: Side,
    names: BTreeMap<u32, String>,
    pub(super) tunnels: BTreeSet<Tunnel>,
    /// Of those, the ones with neighbours.
    pub(super) lasting: BTreeSet<Tunnel>,
    leaving: BTreeMap<Tunnel, Duration>,
    pub(super) routes: Vec<Route>,
    at_home: BTreeSet<Path>,
    pub(super) rules: Vec<Rule>,
    /// Hosts that left: what comes for them follows by a tunnel, until then.
    pub(super) following: BTreeMap<Ipv4Addr, (Duration, Tunnel)>,
    /// Hosts whose registration is on its way: what their home agent sends on from the moment it has accepted it comes
    /// before its answer has been dealt with.
    pub(super) expected: BTreeMap<Ipv4Addr, Expected>,
    /// Hosts whose packets come back from where they were, and by which tunnel, until then.
    pub(super) recalled: BTreeMap<(Tunnel, Ipv4Addr), Duration>,
    /// Rules that go when what is on its way has come.
    fading: Vec<(Duration, Rule)>,
    /// Mobile host: what links carry, in octets, when a route by them was last set.
    carry: BTreeMap<u32, u32>,
}

/// `EEXIST`.
const EXISTS: i32 = 17;
/// `EOPNOTSUPP`.
const NOT_SUPPORTED: i32 = 95;
/// `ENOENT`, `ESRCH`, `ENODEV`: no such rule, route, device.
pub(super) const GONE: [i32; 3] = [2, 3, 19];

impl Network {
    /// Opens a socket; `names` are the links' names by their indexes. At a home agent, what it sends from its own address
    /// is routed by its own table first.
    ///
    /// # Errors
    /// The system's or the kernel's.
    pub fn open(side: Side, names: BTreeMap<u32, String>) -> Result<Self, Error> {
        let mut network = Network {
            line: Line::open(NETLINK_ROUTE)?,
            side,
            names,
            tunnels: BTreeSet::new(),
            lasting: BTreeSet::new(),
            leaving: BTreeMap::new(),
            routes: Vec::new(),
            at_home: BTreeSet::new(),
            rules: Vec::new(),
            following: BTreeMap::new(),
            expected: BTreeMap::new(),
            recalled: BTreeMap::new(),
            fading: Vec::new(),
            carry: BTreeMap::new(),
        };
        if let Side::Home(from) = side {
            network.add_rule(Rule {
                from: Some(from),
                to: None,
                arrived_by: None,
                table: Some(HOME_TABLE),
            })?;
        }
        Ok(network)
    }

    /// The home agent's own address, at a home agent.
    pub fn home_agent(&self) -> Option<Ipv4Addr> {
        match self.side {
            Side::Home(address) => Some(address),
            Side::Foreign | Side::Mobile(_) => None,
        }
    }

    /// Home agent: a host that isn't away is on the home network's link, for what is sealed, too.
    ///
    /// # Errors
    /// The kernel's.
    pub fn at_home(&mut self, home: Ipv4Addr, device: u32) -> Result<(), Error> {
        let path = Path {
            to: Some(home),
            table: HOME_TABLE,
            device,
            gateway: None,
            source: None,
            metric: AT_HOME_METRIC,
            mtu: 0,
        };
        self.tell(&|seq| wire::new_route(seq, &path))?;
        self.at_home.insert(path);
        Ok(())
    }

    /// Home agent: which hosts have tunnels from before a restart, and where those lead.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tunnelled(&mut self) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>, Error> {
        let mut found = Vec::new();
        self.line.exchange(&wire::routes, &mut |message| {
            if let Some((home, HOME_TABLE, device)) = wire::own_route(message) {
                let name = nix::net::if_::if_indextoname(device).ok();
                let name = name.as_ref().and_then(|name| name.to_str().ok());
                found.extend(name.and_then(wire::remote).map(|remote| (home, remote)));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// A link is up again: the kernel has forgotten its routes.
    pub fn link_up(&mut self, device: u32) {
        let on_it = |route: &&Route| match route {
            Route::Visitor { home, .. } if self.following.contains_key(home) => false,
            Route::Visitor { interface, .. }
            | Route::Agent { interface, .. }
            | Route::Default { interface, .. } => interface.0 == device,
            Route::ToMobile { .. } | Route::FromVisitor { .. } => false,
        };
        let routes: Vec<Route> = self.routes.iter().filter(on_it).copied().collect();
        for route in routes {
            if let Err(error) = self.set(&route) {
                tracing::error!("{route:?} can't be put up again: {error}");
            }
        }
    }

    pub(super) fn add_rule(&mut self, rule: Rule) -> Result<(), Error> {
        self.fading.retain(|(_, fading)| *fading != rule);
        if self.rules.contains(&rule) {
            return Ok(());
        }
        // One of before a restart does as well.
        already(self.tell(&|seq| wire::new_rule(seq, &rule)), &[EXISTS])?;
        self.rules.push(rule);
        Ok(())
    }

    pub(super) fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.rules.retain(|other| other != rule);
        already(self.tell(&|seq| wire::delete_rule(seq, rule)), &GONE)
    }

    pub(super) fn tell(&mut self, build: &dyn Fn(u32) -> Zeroizing<Vec<u8>>) -> Result<(), Error> {
        self.line.exchange(build, &mut |_| Ok(())).map(|_| ())
    }

    /// Makes a tunnel, unless it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_tunnel(&mut self, tunnel: Tunnel) -> Result<(), Error> {
        self.leaving.remove(&tunnel);
        if self.tunnels.insert(tunnel) {
            // One of before a restart does as well.
            let made = self.tell(&|seq| wire::new_tunnel(seq, &tunnel));
            already(made, &[EXISTS]).map_err(|error| match error.errno() {
                Some(errno @ NOT_SUPPORTED) => Error::Refused {
                    errno,
                    text: Some("the kernel has no IP-in-IP devices; `modprobe ipip`".to_owned()),
                },
                _ => error,
            })?;
        }
        let out_of_it = |table| Rule {
            from: None,
            to: None,
            arrived_by: Some(wire::device(&tunnel)),
            table,
        };
        if self.side == Side::Foreign {
            self.add_rule(out_of_it(Some(VISITORS_TABLE)))?;
        }
        self.add_rule(out_of_it(None))
    }

    /// Nobody uses a tunnel any more: it goes after a while.
    pub fn remove_tunnel(&mut self, tunnel: Tunnel, now: Duration) {
        self.leaving.insert(tunnel, now + LINGER);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let rules = self.fading.iter().map(|(at, _)| *at);
        let following = self.following.values().map(|(at, _)| *at);
        let tunnels = self.leaving.values().copied();
        let expected = self.expected.values().map(|one| one.until);
        let recalled = self.recalled.values().copied();
        let all = tunnels.chain(rules).chain(following).chain(expected);
        all.chain(recalled).min()
    }

    /// Takes away the tunnels and rules whose time has come.
    pub fn tick(&mut self, now: Duration) {
        let fading = std::mem::take(&mut self.fading);
        let (due, later) = fading.into_iter().partition(|(at, _)| *at <= now);
        self.fading = later;
        let due: Vec<(Duration, Rule)> = due;
        for (_, rule) in due {
            if let Err(error) = self.delete_rule(&rule) {
                tracing::error!("{rule:?} can't be taken away: {error}");
            }
        }
        let due = self.expected.iter().filter(|(_, one)| one.until <= now);
        for home in due.map(|(home, _)| *home).collect::<Vec<_>>() {
            self.unexpect(home, now);
        }
        let due = self.following.iter().filter(|(_, (at, _))| *at <= now);
        for home in due.map(|(home, _)| *home).collect::<Vec<_>>() {
            self.stay(home, now);
        }
        let due = self.recalled.iter().filter(|(_, at)| **at <= now);
        for (tunnel, home) in due.map(|(of, _)| *of).collect::<Vec<_>>() {
            self.recall_no_more(home, tunnel, now);
        }
        let due = self.leaving.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Tunnel> = due.map(|(tunnel, _)| *tunnel).collect();
        for tunnel in due {
            self.leaving.remove(&tunnel);
            // What follows hosts by it, or comes back by it, gives it up in its time.
            if !self.is_used(&tunnel) {
                self.delete_tunnel(tunnel);
            }
        }
    }

    fn delete_tunnel(&mut self, tunnel: Tunnel) {
        self.tunnels.remove(&tunnel);
        let device = wire::device(&tunnel);
        let of_it = |rule: &&Rule| rule.arrived_by.as_ref() == Some(&device);
        for rule in self.rules.iter().filter(of_it).cloned().collect::<Vec<_>>() {
            if let Err(error) = self.delete_rule(&rule) {
                tracing::error!("{rule:?} can't be taken away: {error}");
            }
        }
        let done = self.tell(&|seq| wire::delete_tunnel(seq, &tunnel));
        if let Err(error) = already(done, &GONE) {
            tracing::error!(to = %tunnel.remote, "a tunnel can't be taken away: {error}");
        }
    }

    /// Adds a route, or puts it in the place of the one of its kind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_route(&mut self, route: Route, now: Duration) -> Result<(), Error> {
        if let Route::Visitor { home, .. } = route {
            // Its own routes take their place; from another link or address it would be taken back first.
            if let Some(expected) = self.expected.get(&home).copied() {
                let same = neighbour(&route) == Some((expected.device, home, expected.link));
                if same {
                    self.expected.remove(&home);
                } else {
                    self.unexpect(home, now);
                }
            }
        }
        let same = |other: &Route| kind(other) == kind(&route);
        let before = self.routes.iter().position(same);
        let before = before.map(|at| self.routes.remove(at));
        self.routes.push(route);
        if let Some(rule) = before.and_then(|before| self.rule(&before)) {
            self.fading.push((now + LINGER, rule));
        }
        self.set(&route)?;
        if let Route::Visitor { home, .. } = route {
            // The routes by which what came for it followed it are the same, and have been replaced: what is on its way has one
            // all the while.
            if let Some((_, tunnel)) = self.following.remove(&home) {
                self.give_up(tunnel, now);
            }
        }
        Ok(())
    }

    pub(super) fn set(&mut self, route: &Route) -> Result<(), Error> {
        if let Some((device, address, link)) = neighbour(route) {
            self.tell(&|seq| wire::new_neighbour(seq, device, address, Some(link)))?;
        }
        if let Route::Default { interface, .. } = route {
            // The kernel takes a route's MTU for the device's, and loses what is longer than that.
            let carry = &mut self.carry;
            self.line.exchange(&wire::links, &mut |message| {
                let link = wire::carries(message).filter(|(index, ..)| *index == interface.0);
                carry.extend(link.map(|(index, _, mtu)| (index, mtu)));
                Ok(())
            })?;
        }
        for path in self.paths(route)? {
            self.tell(&|seq| wire::new_route(seq, &path))?;
        }
        match self.rule(route) {
            Some(rule) => self.add_rule(rule),
            None => Ok(()),
        }
    }

    /// Takes a route away. The kernel has taken it already where its link went down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_route(&mut self, route: Route) -> Result<(), Error> {
        self.routes.retain(|other| *other != route);
        if let Some(rule) = self.rule(&route) {
            self.delete_rule(&rule)?;
        }
        // What leads into a tunnel for all visitors of a home agent goes with the tunnel.
        let shared = matches!(route, Route::FromVisitor { .. });
        let paths = if shared {
            Vec::new()
        } else {
            self.paths(&route)?
        };
        for path in paths {
            already(self.tell(&|seq| wire::delete_route(seq, &path)), &GONE)?;
        }
        if let Some((device, address, link)) = neighbour(&route) {
            let done = self.tell(&|seq| wire::delete_neighbour(seq, device, address, Some(link)));
            already(done, &GONE)?;
        }
        Ok(())
    }

    /// Answers ARP for an absent mobile host, or no more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn proxy_arp(&mut self, address: Ipv4Addr, device: u32, on: bool) -> Result<(), Error> {
        let done = self.tell(&|seq| match on {
            true => wire::new_neighbour(seq, device, address, None),
            false => wire::delete_neighbour(seq, device, address, None),
        });
        already(done, &GONE)
    }

    /// Takes everything away that was put up.
    pub fn flush(&mut self) {
        for home in self.expected.keys().copied().collect::<Vec<_>>() {
            self.unexpect(home, Duration::ZERO);
        }
        for home in self.following.keys().copied().collect::<Vec<_>>() {
            self.stay(home, Duration::ZERO);
        }
        for (tunnel, home) in self.recalled.keys().copied().collect::<Vec<_>>() {
            self.recall_no_more(home, tunnel, Duration::ZERO);
        }
        self.lasting.clear();
        for route in std::mem::take(&mut self.routes) {
            if let Err(error) = self.remove_route(route) {
                tracing::error!("{route:?} can't be taken away: {error}");
            }
        }
        for tunnel in std::mem::take(&mut self.tunnels) {
            self.delete_tunnel(tunnel);
        }
        self.leaving.clear();
        self.fading.clear();
        for path in std::mem::take(&mut self.at_home) {
            let done = self.tell(&|seq| wire::delete_route(seq, &path));
            if let Err(error) = already(done, &GONE) {
                tracing::error!("{path:?} can't be taken away: {error}");
            }
        }
        for rule in std::mem::take(&mut self.rules) {
            if let Err(error) = self.delete_rule(&rule) {
                tracing::error!("{rule:?} can't be taken away: {error}");
            }
        }
    }

    pub(super) fn device(&self, tunnel: &Tunnel) -> Result<u32, Error> {
        let name = wire::device(tunnel);
        nix::net::if_::if_nametoindex(name.as_str()).map_err(|errno| Error::Refused {
            errno: errno as i32,
            text: Some(format!("there is no tunnel device {name}")),
        })
    }

    /// What a route is to the kernel.
    fn paths(&self, route: &Route) -> Result<Vec<Path>, Error> {
        let path = |to, device| Path {
            to,
            table: MAIN,
            device,
            gateway: None,
            source: None,
            metric: 0,
            mtu: 0,
        };
        Ok(match *route {
            Route::ToMobile { home, tunnel } => {
                let own = Path {
                    table: HOME_TABLE,
                    ..path(Some(home), self.device(&tunnel)?)
                };
                let forwarded = Path {
                    table: MAIN,
                    metric: METRIC,
                    ..own
                };
                vec![own, forwarded]
            }
            Route::Visitor {
                home, interface, ..
            } => {
                let all = path(Some(home), interface.0);
                let tunnelled = Path {
                    table: VISITORS_TABLE,
                    ..all
                };
                vec![all, tunnelled]
            }
            Route::FromVisitor { tunnel, .. } => {
                vec![Path {
                    table: u32::from(tunnel.remote),
                    ..path(None, self.device(&tunnel)?)
                }]
            }
            Route::Agent {
                agent, interface, ..
            } => vec![path(Some(agent), interface.0)],
            Route::Default {
                agent,
                interface: Interface(device),
                home,
            } => {
                let all = Path {
                    gateway: Some(agent),
                    source: Some(home),
                    metric: METRIC,
                    mtu: self
                        .carry
                        .get(&device)
                        .map_or(TUNNELLED, |mtu| TUNNELLED.min(*mtu)),
                    ..path(None, device)
                };
                let past = match self.side {
                    Side::Mobile(home_agent) if home_agent != agent => Some(Path {
                        to: Some(home_agent),
                        metric: 0,
                        ..all
                    }),
                    _ => None,
                };
                [Some(all), past].into_iter().flatten().collect()
            }
        })
    }

    fn rule(&self, route: &Route) -> Option<Rule> {
        match *route {
            Route::FromVisitor {
                home,
                interface,
                tunnel,
            } => Some(Rule {
                from: Some(home),
                to: None,
                arrived_by: self.names.get(&interface.0).cloned(),
                table: Some(u32::from(tunnel.remote)),
            }),
            // What comes from the host by its tunnel is routed as ever, and nothing else by that tunnel.
            Route::ToMobile { home, tunnel } => Some(Rule {
                from: Some(home),
                to: None,
                arrived_by: Some(wire::device(&tunnel)),
                table: Some(MAIN),
            }),
            _ => None,
        }
    }
}

/// Routes of one kind for one address take each other's place.
fn kind(route: &Route) -> (u8, Ipv4Addr) {
    match *route {
        Route::ToMobile { home, .. } => (0, home),
        Route::Visitor { home, .. } => (1, home),
        Route::FromVisitor { home, .. } => (2, home),
        Route::Agent { agent, .. } => (3, agent),
        Route::Default { home, .. } => (4, home),
    }
}

/// The permanent neighbour entry that goes with a route: nobody is asked for by ARP away from home (RFC 5944 §4.6).
pub(super) fn neighbour(route: &Route) -> Option<(u32, Ipv4Addr, LinkAddress)> {
    match *route {
        Route::Visitor {
            home,
            interface,
            link,
        } => Some((interface.0, home, link?)),
        Route::Agent {
            agent,
            interface,
            link,
        } => Some((interface.0, agent, link?)),
        _ => None,
    }
}
