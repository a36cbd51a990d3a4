// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What Mobile IP says happened, and what key management makes of it (docs/mobility.md).

use super::Engine;
use mml_ike::event::Time;
use mml_mip::Event;
use std::net::Ipv4Addr;

/// Where a mobile host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its care-of address; none at home.
    pub care_of: Option<Ipv4Addr>,
    /// Since when.
    pub since: Time,
}

impl Engine {
    /// Something happened in Mobile IP.
    pub fn mobile_event(&mut self, event: &Event, now: Time) {
        self.host.now = now;
        match event {
            Event::Bound {
                home,
                care_of,
                previous,
                lifetime,
                ..
            } => {
                match previous {
                    Some(from) => tracing::info!(%home, %care_of, %from, lifetime, "moved"),
                    None => tracing::info!(%home, %care_of, lifetime, "bound"),
                }
                self.placed(*home, Some(*care_of), now);
            }
            Event::Unbound {
                home,
                care_of,
                reason,
            } => {
                tracing::info!(%home, %care_of, "bound no more: {reason:?}");
                self.host.book.mobile.remove(home);
            }
            Event::Relayed {
                home, home_agent, ..
            } => {
                tracing::debug!(%home, %home_agent, "a registration is relayed");
            }
            Event::Visiting {
                home,
                home_agent,
                care_of,
                lifetime,
                renewed,
                ..
            } => {
                if *renewed {
                    tracing::debug!(%home, "goes on visiting for {lifetime} s");
                } else {
                    tracing::info!(%home, %home_agent, lifetime, "visiting");
                }
                self.placed(*home, Some(*care_of), now);
            }
            Event::Gone { home, reason, .. } => {
                tracing::info!(%home, "visiting no more: {reason:?}");
                self.host.book.mobile.remove(home);
            }
            Event::Refused { home, code } => {
                tracing::warn!(%home, "a registration is refused: {code}");
            }
            Event::RevocationConfirmed { home, peer } => {
                tracing::debug!(%home, %peer, "the registration's end is known there");
            }
            Event::RevocationUnconfirmed { home, peer } => {
                tracing::error!(%home, %peer, "the other agent doesn't say that it knows of a registration's end");
            }
            Event::Registering { agent, .. } => tracing::debug!(%agent, "registering"),
            Event::Registered {
                agent,
                care_of,
                lifetime,
                took,
                ..
            } => {
                tracing::info!(%agent, %care_of, lifetime, "registered in {} ms", took.as_millis());
                self.here(Some(*care_of), now);
            }
            Event::Denied { agent, code } => {
                tracing::warn!(%agent, "the registration is denied: {code}");
            }
            Event::AtHome => {
                tracing::info!("at home");
                self.here(None, now);
            }
            Event::Left => tracing::info!("deregistered"),
            Event::Lost => {
                tracing::warn!("no agent is heard");
                self.nowhere();
            }
            Event::Expired => {
                tracing::warn!("the registration's lifetime is over");
                self.nowhere();
            }
        }
        self.collect(now);
    }

    fn placed(&mut self, home: Ipv4Addr, care_of: Option<Ipv4Addr>, now: Time) {
        let same = |place: &Place| place.care_of == care_of;
        let mobile = &mut self.host.book.mobile;
        if !mobile.get(&home).is_some_and(same) {
            mobile.insert(
                home,
                Place {
                    care_of,
                    since: now,
                },
            );
        }
    }

    /// The mobile host's own home address.
    fn own_home(&self) -> Option<Ipv4Addr> {
        use crate::daemon::config::Agent;
        match &self.config.mobile_ip.as_ref()?.agent {
            Agent::Node(node) => Some(node.home),
            Agent::Home(_) | Agent::Foreign(_) => None,
        }
    }

    fn here(&mut self, care_of: Option<Ipv4Addr>, now: Time) {
        if let Some(home) = self.own_home() {
            self.placed(home, care_of, now);
        }
    }

    fn nowhere(&mut self) {
        self.host.book.mobile.clear();
    }
}
