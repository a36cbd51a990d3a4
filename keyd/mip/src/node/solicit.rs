// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Asking a link for agents (RFC 5944 §2.4): at once when it comes up, then more and more slowly.

use super::{Due, MobileNode};
use crate::action::Action;
use crate::number::ALL_ROUTERS;
use crate::packet::{Content, Interface, Packet, TTL_LINK};
use crate::router::Solicitation;
use crate::time::Now;
use std::time::Duration;

/// Three may follow one another by this; then the gap doubles.
const GAP: Duration = Duration::from_secs(1);
const FIRST: u32 = 3;
/// The longest gap.
const GAP_MOST: Duration = Duration::from_secs(60);
/// However often a link goes down and up.
const GAP_LEAST: Duration = Duration::from_millis(100);

/// How far the search on a link is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    sent: u32,
    last: Option<Duration>,
}

impl MobileNode {
    /// Begins to ask, from the fast end. A link that just came up is asked at once.
    pub(super) fn search(&mut self, interface: Interface, now: Now) {
        let Some(search) = self.links.get_mut(&interface) else {
            return;
        };
        search.sent = 0;
        let earliest = search.last.map_or(now.monotonic, |last| last + GAP_LEAST);
        self.timers
            .set(Due::Solicit(interface), earliest.max(now.monotonic));
    }

    /// Somebody answered.
    pub(super) fn found(&mut self, interface: Interface) {
        self.timers.cancel(Due::Solicit(interface));
    }

    pub(super) fn solicit(&mut self, interface: Interface, now: Now, actions: &mut Vec<Action>) {
        let Some(search) = self.links.get_mut(&interface) else {
            return;
        };
        search.sent = search.sent.saturating_add(1);
        search.last = Some(now.monotonic);
        let doubled = search.sent.saturating_sub(FIRST).min(6);
        let gap = (GAP * 2_u32.pow(doubled)).min(GAP_MOST);
        self.timers.set(Due::Solicit(interface), now.after(gap));
        actions.push(Action::Send(Packet {
            interface: Some(interface),
            link_destination: None,
            source: self.config.home,
            destination: ALL_ROUTERS,
            ttl: TTL_LINK,
            content: Content::Icmp(Solicitation::emit()),
        }));
    }
}
