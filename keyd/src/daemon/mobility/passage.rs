// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nothing lost in a handoff: what comes for a host that left follows it, and what comes for one whose registration is on
//! its way is let out to it.

use super::network::{Network, GONE, HOME_TABLE, VISITORS_TABLE};
use super::route_message::{self as wire, Path, Rule, MAIN};
use crate::netlink::route::already;
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
        let before = self.following.insert(home, (now + FOLLOWS, tunnel));
        // Who asks last says where it goes.
        if let Some((_, before)) = before.filter(|(_, before)| *before != tunnel) {
            self.give_up(before, now);
        }
        Ok(())
    }

    /// Home agent: what a foreign agent holds for a host, and what still comes there, comes back by the tunnel with it for a
    /// while, from this node's own address, and goes on to where the host is now. Nothing else does that comes by that tunnel
    /// and has this address (docs/wire.md 3.2z).
    ///
    /// # Errors
    /// The kernel's.
    pub fn recall(&mut self, home: Ipv4Addr, tunnel: Tunnel, now: Duration) -> Result<(), Error> {
        self.add_tunnel(tunnel)?;
        // First what keeps the rest out.
        let [comes, rest] = recalling(home, &tunnel);
        self.add_rule(rest)?;
        self.add_rule(comes)?;
        let device = self.device(&tunnel)?;
        self.tell(&|seq| wire::accept_own(seq, device, true))?;
        self.recalled.insert((tunnel, home), now + FOLLOWS);
        Ok(())
    }

    /// Home agent: that time is over.
    pub(super) fn recall_no_more(&mut self, home: Ipv4Addr, tunnel: Tunnel, now: Duration) {
        self.recalled.remove(&(tunnel, home));
        let [comes, rest] = recalling(home, &tunnel);
        let others = self.recalled.keys().any(|(other, _)| *other == tunnel);
        let mut done = self.delete_rule(&comes);
        if !others {
            let device = self.device(&tunnel);
            done = done
                .and(
                    device
                        .and_then(|device| self.tell(&|seq| wire::accept_own(seq, device, false))),
                )
                .and_then(|()| self.delete_rule(&rest));
        }
        if let Err(error) = done {
            tracing::error!(%home, "what comes back for the host is still let in: {error}");
        }
        self.give_up(tunnel, now);
    }

    /// Whether anything goes by a tunnel, or will.
    pub(super) fn is_used(&self, tunnel: &Tunnel) -> bool {
        let by_it = |route: &Route| match route {
            Route::ToMobile { tunnel: of, .. } | Route::FromVisitor { tunnel: of, .. } => {
                of == tunnel
            }
            _ => false,
        };
        self.lasting.contains(tunnel)
            || self.following.values().any(|(_, of)| of == tunnel)
            || self.recalled.keys().any(|(of, _)| of == tunnel)
            || self.expected.values().any(|one| one.tunnel == *tunnel)
            || self.routes.iter().any(by_it)
    }

    /// A tunnel goes after a while, unless somebody else uses it.
    pub(super) fn give_up(&mut self, tunnel: Tunnel, now: Duration) {
        if !self.is_used(&tunnel) {
            self.remove_tunnel(tunnel, now);
        }
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
        // What follows a host that left here goes on doing so, whoever asks in its name.
        let follows = self.following.get(&home).map(|(_, tunnel)| *tunnel);
        let ended = match follows {
            Some(tunnel) => self.following_paths(home, &tunnel).and_then(|paths| {
                let mut paths = paths.into_iter();
                paths.try_for_each(|path| self.tell(&|seq| wire::new_route(seq, &path)))
            }),
            None => already(self.tell(&|seq| wire::delete_route(seq, &path)), &GONE),
        };
        let done = ended.and_then(|()| {
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
        let expected = self.expected.get(&home).map(|one| one.device);
        let done = match self.routes.iter().find(is_here).copied() {
            Some(visitor) => self.set(&visitor),
            None => self.following_paths(home, &tunnel).and_then(|paths| {
                let mut paths = paths.into_iter();
                paths.try_for_each(|path| match expected {
                    // It may be about to come back: that way stays.
                    Some(device) if path.table == VISITORS_TABLE => {
                        let path = expected_path(home, device);
                        self.tell(&|seq| wire::new_route(seq, &path))
                    }
                    _ => already(self.tell(&|seq| wire::delete_route(seq, &path)), &GONE),
                })
            }),
        };
        if let Err(error) = done {
            tracing::error!(%home, "what comes for the host still follows it: {error}");
        }
        self.give_up(tunnel, now);
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

/// What comes back for a host by a tunnel is routed as what this node sends it; then, what else comes from its address is
/// dropped.
fn recalling(home: Ipv4Addr, tunnel: &Tunnel) -> [Rule; 2] {
    let rule = |to, table| Rule {
        from: Some(tunnel.local),
        to,
        arrived_by: Some(wire::device(tunnel)),
        table,
    };
    [rule(Some(home), Some(HOME_TABLE)), rule(None, None)]
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
