// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tunnels, routes, rules and neighbours in the kernel, as Mobile IP's actions ask for them.
//!
//! Which packets go where is said so that whatever seals comes first:
//!
//! - At the home agent `main` leads to the mobile host by its tunnel with [`METRIC`]; a route into `mml0` has none and is
//!   taken before. What this node itself sends from its own address to the mobile host (sealed packets, IKE) is routed
//!   by a table of its own ([`HOME_TABLE`]), which knows the tunnels alone.
//! - At the foreign agent what comes from a visitor is routed by a table a tunnel, whose number is the home agent's
//!   address.
//! - At the mobile host the foreign agent and the home agent have routes of their own, longer than any that leads into
//!   `mml0` (the paper's Section III.B).

use super::route_message::{self as wire, Path, Rule, MAIN, METRIC};
use crate::netlink::{Error, Line};
use mml_mip::{Interface, LinkAddress, Route, Tunnel};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use zeroize::Zeroizing;

/// The home agent's table of tunnels to its mobile hosts.
const HOME_TABLE: u32 = 434;
/// How long a tunnel stays when nobody uses it any more: packets of the reverse way may still come, and the mobile host
/// may come back. Taking a device away takes the kernel long, too, and the registration reply would wait for it.
const LINGER: Duration = Duration::from_secs(2);
/// Octets that fit the path from mobile host to home agent, where a foreign agent tunnels it: 1500 less an IPv4 header.
const TUNNELLED: u32 = 1480;

/// The kernel's routing, by rtnetlink.
pub struct Network {
    line: Line,
    /// The home agent, at a mobile host.
    home_agent: Option<Ipv4Addr>,
    names: BTreeMap<u32, String>,
    tunnels: BTreeSet<Tunnel>,
    leaving: BTreeMap<Tunnel, Duration>,
    routes: Vec<Route>,
}

/// What is wanted is there, or what is not wanted isn't.
fn already(done: Result<(), Error>, errno: &[i32]) -> Result<(), Error> {
    match done {
        Err(error) if error.errno().is_some_and(|one| errno.contains(&one)) => Ok(()),
        other => other,
    }
}

/// `EEXIST`.
const EXISTS: i32 = 17;
/// `ENOENT`, `ESRCH`, `ENODEV`: no such rule, route, device.
const GONE: [i32; 3] = [2, 3, 19];

impl Network {
    /// Opens a socket; `names` are the links' names by their indexes.
    ///
    /// # Errors
    /// The system's.
    pub fn open(home_agent: Option<Ipv4Addr>, names: BTreeMap<u32, String>) -> Result<Self, Error> {
        Ok(Network {
            line: Line::open(NETLINK_ROUTE)?,
            home_agent,
            names,
            tunnels: BTreeSet::new(),
            leaving: BTreeMap::new(),
            routes: Vec::new(),
        })
    }

    fn tell(&mut self, build: &dyn Fn(u32) -> Zeroizing<Vec<u8>>) -> Result<(), Error> {
        self.line.exchange(build, &mut |_| Ok(())).map(|_| ())
    }

    /// Home agent: what it sends from its own address is routed by its own table first.
    ///
    /// # Errors
    /// The kernel's.
    pub fn home_rule(&mut self, from: Ipv4Addr) -> Result<(), Error> {
        let rule = home_rule(from);
        already(self.tell(&|seq| wire::new_rule(seq, &rule)), &[EXISTS])
    }

    /// Makes a tunnel, unless it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_tunnel(&mut self, tunnel: Tunnel) -> Result<(), Error> {
        self.leaving.remove(&tunnel);
        if self.tunnels.insert(tunnel) {
            // One of before a restart does as well.
            already(self.tell(&|seq| wire::new_tunnel(seq, &tunnel)), &[EXISTS])?;
        }
        Ok(())
    }

    /// Nobody uses a tunnel any more: it goes after a while.
    pub fn remove_tunnel(&mut self, tunnel: Tunnel, now: Duration) {
        self.leaving.insert(tunnel, now + LINGER);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.leaving.values().min().copied()
    }

    /// Takes away the tunnels whose time has come.
    pub fn tick(&mut self, now: Duration) {
        let due = self.leaving.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Tunnel> = due.map(|(tunnel, _)| *tunnel).collect();
        for tunnel in due {
            self.leaving.remove(&tunnel);
            self.delete_tunnel(tunnel);
        }
    }

    fn delete_tunnel(&mut self, tunnel: Tunnel) {
        self.tunnels.remove(&tunnel);
        let done = self.tell(&|seq| wire::delete_tunnel(seq, &tunnel));
        if let Err(error) = already(done, &GONE) {
            tracing::error!(to = %tunnel.remote, "a tunnel can't be taken away: {error}");
        }
    }

    /// Adds a route, or puts it in the place of the one of its kind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_route(&mut self, route: Route) -> Result<(), Error> {
        let same = |other: &Route| kind(other) == kind(&route);
        self.routes.retain(|other| !same(other));
        self.routes.push(route);
        if let Some((device, address, link)) = neighbour(&route) {
            self.tell(&|seq| wire::new_neighbour(seq, device, address, Some(link)))?;
        }
        for path in self.paths(&route)? {
            self.tell(&|seq| wire::new_route(seq, &path))?;
        }
        if let Some(rule) = self.rule(&route) {
            already(self.tell(&|seq| wire::new_rule(seq, &rule)), &[EXISTS])?;
        }
        Ok(())
    }

    /// Takes a route away. The kernel has taken it already where its link went down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_route(&mut self, route: Route) -> Result<(), Error> {
        self.routes.retain(|other| *other != route);
        if let Some(rule) = self.rule(&route) {
            already(self.tell(&|seq| wire::delete_rule(seq, &rule)), &GONE)?;
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
    pub fn flush(&mut self, home: Option<Ipv4Addr>) {
        for route in std::mem::take(&mut self.routes) {
            if let Err(error) = self.remove_route(route) {
                tracing::error!("{route:?} can't be taken away: {error}");
            }
        }
        for tunnel in std::mem::take(&mut self.tunnels) {
            self.delete_tunnel(tunnel);
        }
        self.leaving.clear();
        if let Some(rule) = home.map(home_rule) {
            let done = self.tell(&|seq| wire::delete_rule(seq, &rule));
            if let Err(error) = already(done, &GONE) {
                tracing::error!("a routing rule can't be taken away: {error}");
            }
        }
    }

    fn device(&self, tunnel: &Tunnel) -> Result<u32, Error> {
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
            } => vec![path(Some(home), interface.0)],
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
                    mtu: TUNNELLED,
                    ..path(None, device)
                };
                let home_agent = self.home_agent.filter(|address| *address != agent);
                let past = home_agent.map(|to| Path {
                    to: Some(to),
                    metric: 0,
                    ..all
                });
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
                from: home,
                arrived_by: self.names.get(&interface.0).cloned(),
                table: u32::from(tunnel.remote),
            }),
            _ => None,
        }
    }
}

fn home_rule(from: Ipv4Addr) -> Rule {
    Rule {
        from,
        arrived_by: None,
        table: HOME_TABLE,
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
fn neighbour(route: &Route) -> Option<(u32, Ipv4Addr, LinkAddress)> {
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
