// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nothing lost in a handoff: what comes for a host that left follows it, and what comes for one whose registration is on
//! its way is let out to it.

use super::network::{already, Network, GONE, VISITORS_TABLE};
use super::route_message::{self as wire, Path, MAIN};
use crate::netlink::Error;
use mml_mip::{LinkAddress, Route, Tunnel};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long what comes for a host that left goes on to where it is now: longer than anything is on its way from the home
/// agent, or waits on it.
const FOLLOWS: Duration = Duration::from_secs(5);
/// How long a host is expected whose registration is on its way: as long as its home agent may take to answer.
const EXPECTS: Duration = Duration::from_secs(2);
/// A host that is expected: until when, by which link, and where it is there.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) until: Duration,
    pub(super) device: u32,
    pub(super) link: LinkAddress,
    tunnel: Tunnel,
}

impl Network {
    /// Foreign agent: a host left, and what comes for it goes on by this tunnel for a while, whatever is known of it here
    /// (docs/wire.md 3.1l, 3.2z). A packet that two agents send to each other ends by its TTL, which each counts down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn follow(&mut self, home: Ipv4Addr, tunnel: Tunnel, now: Duration) -> Result<(), Error> {
        self.add_tunnel(tunnel)?;
        // It goes when nobody uses it any more; the mobile host's tunnel to a neighbour that is one stays.
        for path in self.following_paths(home, &tunnel)? {
            self.tell(&|seq| wire::new_route(seq, &path))?;
        }
        self.following.insert(home, (now + FOLLOWS, tunnel));
        Ok(())
    }

    /// Foreign agent: a registration was relayed, of a host that asked from this link. What its home agent's tunnel brings
    /// for it is let out there from now on, and nothing else: whether it may come is the home agent's to say.
    ///
    /// # Errors
    /// The kernel's.
    pub fn expect(
        &mut self,
        home: Ipv4Addr,
        (device, link): (u32, LinkAddress),
        tunnel: Tunnel,
        now: Duration,
    ) -> Result<(), Error> {
        // Who is here already has its routes, and nobody that uses its address gets them.
        let is_here =
            |route: &Route| matches!(route, Route::Visitor { home: of, .. } if *of == home);
        if self.routes.iter().any(is_here) {
            return Ok(());
        }
        // One that asks again stays expected all the while.
        let before = self.expected.get(&home);
        if before.is_some_and(|one| (one.tunnel, one.device) != (tunnel, device)) {
            self.unexpect(home, now);
        }
        self.add_tunnel(tunnel)?;
        let expected = Expected {
            until: now + EXPECTS,
            device,
            link,
            tunnel,
        };
        self.expected.insert(home, expected);
        self.tell(&|seq| wire::new_neighbour(seq, device, home, Some(link)))?;
        let path = expected_path(home, device);
        self.tell(&|seq| wire::new_route(seq, &path))
    }

    /// Foreign agent: that host isn't expected any more.
    pub fn unexpect(&mut self, home: Ipv4Addr, now: Duration) {
        let Some(expected) = self.expected.remove(&home) else {
            return;
        };
        let Expected { device, link, .. } = expected;
        let path = expected_path(home, device);
        let done =
            already(self.tell(&|seq| wire::delete_route(seq, &path)), &GONE).and_then(|()| {
                let gone = self.tell(&|seq| wire::delete_neighbour(seq, device, home, Some(link)));
                already(gone, &GONE)
            });
        if let Err(error) = done {
            tracing::error!(%home, "it is still expected: {error}");
        }
        let visited = |route: &Route| matches!(route, Route::Visitor { .. });
        let mut others = self.expected.values();
        if !self.routes.iter().any(visited) && !others.any(|one| one.tunnel == expected.tunnel) {
            self.remove_tunnel(expected.tunnel, now);
        }
    }

    /// Foreign agent: nothing follows that host any more: it is back, or enough time has passed. A visitor's own route is
    /// put up again.
    pub fn stay(&mut self, home: Ipv4Addr, now: Duration) {
        let Some((_, tunnel)) = self.following.remove(&home) else {
            return;
        };
        let is_here =
            |route: &&Route| matches!(route, Route::Visitor { home: of, .. } if *of == home);
        let done = match self.routes.iter().find(is_here).copied() {
            Some(visitor) => self.set(&visitor),
            None => self.following_paths(home, &tunnel).and_then(|paths| {
                let mut paths = paths.into_iter();
                paths.try_for_each(|path| {
                    already(self.tell(&|seq| wire::delete_route(seq, &path)), &GONE)
                })
            }),
        };
        if let Err(error) = done {
            tracing::error!(%home, "what comes for the host still follows it: {error}");
        }
        let used = self.following.values().any(|(_, other)| *other == tunnel);
        if !used && !self.lasting.contains(&tunnel) {
            self.remove_tunnel(tunnel, now);
        }
    }

    /// Foreign agent: a tunnel with a neighbour, for what follows hosts, which stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_lasting(&mut self, tunnel: Tunnel) -> Result<(), Error> {
        self.lasting.insert(tunnel);
        self.add_tunnel(tunnel)
    }

    fn following_paths(&self, home: Ipv4Addr, tunnel: &Tunnel) -> Result<[Path; 2], Error> {
        let device = self.device(tunnel)?;
        Ok([MAIN, VISITORS_TABLE].map(|table| Path {
            to: Some(home),
            table,
            device,
            gateway: None,
            source: None,
            metric: 0,
            mtu: 0,
        }))
    }
}

/// What lets out to a host that is expected what its home agent's tunnel brings.
fn expected_path(home: Ipv4Addr, device: u32) -> Path {
    Path {
        to: Some(home),
        table: VISITORS_TABLE,
        device,
        gateway: None,
        source: None,
        metric: 0,
        mtu: 0,
    }
}
