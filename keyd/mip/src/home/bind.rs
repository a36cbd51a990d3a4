// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bindings: one a mobile node. The new tunnel is there before the old one goes.

use super::{Asked, Granted, HomeAgent, ReverseTunnel};
use crate::action::{Action, Event, Reason, Route, Tunnel};
use crate::code::Code;
use crate::extension::{RevocationSupport, Seen};
use crate::message::{Identification, RequestFlags};
use crate::number::INFINITE;
use crate::packet::LinkAddress;
use crate::replay::Guard;
use crate::time::Now;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where a mobile node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The mobile node.
    pub home: Ipv4Addr,
    /// Our address that it registered with.
    pub home_agent: Ipv4Addr,
    /// The tunnel's other end.
    pub care_of: Ipv4Addr,
    /// Who asked on its behalf: the foreign agent's address.
    pub through: Ipv4Addr,
    /// On the monotonic clock; none for ever.
    pub expires: Option<Duration>,
    /// The association that vouched for it.
    pub spi: u32,
    /// The registration's.
    pub identification: Identification,
    /// Whether it tunnels back.
    pub reverse_tunnel: bool,
    /// What the foreign agent said of revocation.
    pub support: Option<RevocationSupport>,
}

/// A mobile node on its home network.
#[derive(Default)]
pub(super) struct Arrived {
    /// Where it is there, if that is known.
    link: Option<LinkAddress>,
    /// What it has seen.
    seen: Vec<Seen>,
}

impl Binding {
    pub(super) fn tunnel(&self) -> Tunnel {
        Tunnel {
            local: self.home_agent,
            remote: self.care_of,
        }
    }
}

impl HomeAgent {
    /// Does what a granted request asks, and says with which code to answer.
    pub(super) fn accept(
        &mut self,
        asked: &Asked<'_>,
        granted: &Granted,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Code {
        let request = &asked.request;
        if request.lifetime == 0 {
            self.deregister(asked, granted, now, actions);
            return Code::ACCEPTED;
        }
        let lifetime = Duration::from_secs(granted.lifetime.into());
        let binding = Binding {
            home: request.home,
            home_agent: request.home_agent,
            care_of: request.care_of,
            through: asked.packet.source,
            expires: (granted.lifetime != INFINITE).then(|| now.after(lifetime)),
            spi: granted.association.spi,
            identification: request.identification,
            reverse_tunnel: request.flags.has(RequestFlags::REVERSE_TUNNEL),
            support: granted.support,
        };
        let old = self.bind(binding, actions);
        let moved = old.filter(|old| old.care_of != binding.care_of);
        actions.push(Action::Notify(Event::Bound {
            home: binding.home,
            care_of: binding.care_of,
            previous: moved.map(|old| old.care_of),
            named: granted.named.clone(),
            identification: binding.identification,
            lifetime: granted.lifetime,
        }));
        self.revoker.cancel((binding.home, binding.care_of));
        if let Some(old) = moved {
            self.revoke_at(&old, false, now, actions);
        }
        match request.flags.has(RequestFlags::SIMULTANEOUS) {
            true => Code::ACCEPTED_ONE_BINDING,
            false => Code::ACCEPTED,
        }
    }

    /// Puts a binding in the place of the one there was, which is given back.
    fn bind(&mut self, binding: Binding, actions: &mut Vec<Action>) -> Option<Binding> {
        let home = binding.home;
        match binding.expires {
            Some(expires) => self.expiry.set(home, expires),
            None => self.expiry.cancel(home),
        }
        let old = self.bindings.insert(home, binding);
        let tunnel = binding.tunnel();
        if old.is_none_or(|old| old.tunnel() != tunnel) {
            self.tunnels.take(tunnel, actions);
            actions.push(Action::AddRoute(Route::ToMobile { home, tunnel }));
        }
        match (&old, &self.config.home_link) {
            (Some(old), _) if old.tunnel() != tunnel => self.tunnels.give(old.tunnel(), actions),
            (None, Some(link)) => {
                let (address, interface) = (home, link.interface);
                actions.push(Action::AddProxyArp { address, interface });
                actions.push(Action::GratuitousArp {
                    address,
                    interface,
                    link: None,
                });
            }
            _ => {}
        }
        old
    }

    fn deregister(
        &mut self,
        asked: &Asked<'_>,
        granted: &Granted,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let request = &asked.request;
        let Some(binding) = self.bindings.get(&request.home).copied() else {
            return;
        };
        if request.care_of == request.home {
            let seen = granted.named.as_ref().map(|named| named.seen.clone());
            let arrived = Arrived {
                link: asked.packet.link_source,
                seen: seen.unwrap_or_default(),
            };
            self.unbind(request.home, Reason::ReturnedHome, arrived, actions);
            self.revoke_at(&binding, false, now, actions);
        } else if request.care_of == binding.care_of {
            let nowhere = Arrived::default();
            self.unbind(request.home, Reason::Deregistered, nowhere, actions);
        }
    }

    /// Ends a binding.
    pub(super) fn unbind(
        &mut self,
        home: Ipv4Addr,
        reason: Reason,
        arrived: Arrived,
        actions: &mut Vec<Action>,
    ) -> Option<Binding> {
        let binding = self.bindings.remove(&home)?;
        self.expiry.cancel(home);
        let tunnel = binding.tunnel();
        actions.push(Action::RemoveRoute(Route::ToMobile { home, tunnel }));
        self.tunnels.give(tunnel, actions);
        if let Some(home_link) = &self.config.home_link {
            let (address, interface) = (home, home_link.interface);
            actions.push(Action::RemoveProxyArp { address, interface });
            if let Some(link) = arrived.link {
                actions.push(Action::GratuitousArp {
                    address,
                    interface,
                    link: Some(link),
                });
            }
        }
        actions.push(Action::Notify(Event::Unbound {
            home,
            care_of: binding.care_of,
            identification: binding.identification,
            reason,
            seen: arrived.seen,
        }));
        Some(binding)
    }

    /// Takes a binding of an earlier life back, as the caller wrote it down: routes and tunnel are put up again, and
    /// its Identification isn't taken a second time. Time is this life's.
    pub fn restore(&mut self, binding: Binding) -> Vec<Action> {
        let mut actions = Vec::new();
        let began = self.began;
        self.guards
            .entry((binding.home, binding.spi))
            .or_insert_with(|| Guard::new(began))
            .restore(binding.identification);
        self.bind(binding, &mut actions);
        actions
    }

    /// Takes a binding of an earlier life back of which nothing else is known, and says for how long, in s: as long as a
    /// registration may hold. No request that can have been accepted in that life is taken, though stamped ahead of our clock.
    /// None for a mobile node that isn't ours.
    pub fn resume(
        &mut self,
        home: Ipv4Addr,
        care_of: Ipv4Addr,
        now: Now,
    ) -> Option<(Vec<Action>, u16)> {
        let associations = &self.config.subscriber(home)?.associations;
        let spi = associations.first()?.spi;
        for association in associations {
            let began = self.began;
            self.guards
                .entry((home, association.spi))
                .or_insert_with(|| Guard::new(began))
                .resume(association.replay, now);
        }
        let lifetime = self.config.max_lifetime;
        let binding = Binding {
            home,
            home_agent: *self.config.addresses.first()?,
            care_of,
            through: care_of,
            expires: Some(now.after(Duration::from_secs(lifetime.into()))),
            spi,
            identification: Identification(now.wall.0),
            reverse_tunnel: self.config.reverse_tunnel != ReverseTunnel::Refused,
            support: None,
        };
        Some((self.restore(binding), lifetime))
    }
}
