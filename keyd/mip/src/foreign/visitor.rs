// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The visitor list: who is here, and the routes and tunnels for it.

use super::{Due, ForeignAgent};
use crate::action::{Action, Event, Reason, Route, Tunnel};
use crate::extension::RevocationSupport;
use crate::message::Identification;
use crate::packet::{Interface, LinkAddress};
use std::net::Ipv4Addr;
use std::time::Duration;

/// A mobile node that is registered through us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The mobile node.
    pub home: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Its link.
    pub interface: Interface,
    /// Its link-layer address, where that is known.
    pub link: Option<LinkAddress>,
    /// On the monotonic clock; none for ever.
    pub expires: Option<Duration>,
    /// The registration's.
    pub identification: Identification,
    /// Whether what it sends goes to its home agent.
    pub reverse_tunnel: bool,
    /// What the home agent said of revocation.
    pub support: Option<RevocationSupport>,
}

impl ForeignAgent {
    fn tunnel(&self, visitor: &Visitor) -> Tunnel {
        Tunnel {
            local: self.config.care_of,
            remote: visitor.home_agent,
        }
    }

    fn routes(&self, visitor: &Visitor) -> [Option<Route>; 2] {
        let (home, interface) = (visitor.home, visitor.interface);
        let back = visitor.reverse_tunnel.then(|| Route::FromVisitor {
            home,
            interface,
            tunnel: self.tunnel(visitor),
        });
        let to = Route::Visitor {
            home,
            interface,
            link: visitor.link,
        };
        [Some(to), back]
    }

    /// Takes a visitor in, or for longer; says whether it was here already.
    pub(super) fn take_in(&mut self, visitor: Visitor, actions: &mut Vec<Action>) -> bool {
        let due = Due::Expiry(visitor.home);
        match visitor.expires {
            Some(expires) => self.timers.set(due, expires),
            None => self.timers.cancel(due),
        }
        let old = self.visitors.insert(visitor.home, visitor);
        self.tunnels.take(self.tunnel(&visitor), actions);
        let [to, back] = self.routes(&visitor);
        let was = old.map_or([None, None], |old| self.routes(&old));
        // What replaces a route of its kind needn't be preceded by a removal; what has no successor must be.
        if let (Some(gone), None) = (was[1], back) {
            actions.push(Action::RemoveRoute(gone));
        }
        for (new, old) in [(to, was[0]), (back, was[1])] {
            if let Some(route) = new.filter(|_| new != old) {
                actions.push(Action::AddRoute(route));
            }
        }
        if let Some(old) = old {
            self.tunnels.give(self.tunnel(&old), actions);
        }
        old.is_some()
    }

    /// A visitor is gone.
    pub(super) fn turn_out(
        &mut self,
        home: Ipv4Addr,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) -> Option<Visitor> {
        let visitor = self.visitors.remove(&home)?;
        self.timers.cancel(Due::Expiry(home));
        let routes = self.routes(&visitor).into_iter().flatten();
        actions.extend(routes.map(Action::RemoveRoute));
        self.tunnels.give(self.tunnel(&visitor), actions);
        actions.push(Action::Notify(Event::Gone {
            home,
            home_agent: visitor.home_agent,
            reason,
        }));
        Some(visitor)
    }

    /// Takes a visitor of an earlier life back, as the caller wrote it down.
    pub fn restore(&mut self, visitor: Visitor) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_in(visitor, &mut actions);
        actions
    }
}
