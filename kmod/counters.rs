// SPDX-License-Identifier: GPL-2.0-only

//! A counter for each reason a packet is dropped or passed on unopened.

use core::sync::atomic::{AtomicU64, Ordering};
use mml_core::esp;

/// Reasons beyond the format's own ([`esp::Drop`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What the zone ESP format itself finds wrong.
    Format(esp::Drop),
    /// Origin: no active CSA's selector covers the packet.
    NoCsa,
    /// Origin: no route to the tunnel's other end.
    NoRoute,
    /// Origin: the route to the tunnel's other end leads back into the tunnel.
    RouteLoop,
    /// Origin: it doesn't fit the path and may not be fragmented; its sender was told.
    TooBig,
    /// Origin: not IP, or headers that can't be read or followed.
    BadInner,
    /// Origin: IPv6 of the link's own, which a tunnel has no use for: neighbour discovery, multicast (docs/wire.md 5f).
    LinkScope,
    /// Origin: a fragment, which transport mode can't seal (docs/wire.md 1.11d).
    Fragment,
    /// Origin: the sequence numbers are used up.
    Exhausted,
    /// Origin, terminus: no memory, or the cipher failed.
    NoMemory,
    /// Terminus, relay: the CSA isn't in a state in which it opens.
    NotActive,
    /// Past a hard limit of the CSA's life (docs/wire.md 2.5d).
    Expired,
    /// Terminus: no device to deliver on.
    NoDevice,
    /// Guard: a protect policy covers it and it went neither to `mml0` nor to XFRM.
    GuardOut,
    /// Guard: it came in clear though a protect policy says sealed.
    GuardIn,
    /// Guard: a discard policy covers it.
    Discard,
    /// Relay: an ESP packet of no CSA here.
    RelayNoCsa,
    /// Relay: an outer fragment (docs/wire.md 1.7l).
    RelayFragment,
}

const LOCAL: [Reason; 17] = [
    Reason::NoCsa,
    Reason::NoRoute,
    Reason::RouteLoop,
    Reason::TooBig,
    Reason::BadInner,
    Reason::LinkScope,
    Reason::Fragment,
    Reason::Exhausted,
    Reason::NoMemory,
    Reason::NotActive,
    Reason::Expired,
    Reason::NoDevice,
    Reason::GuardOut,
    Reason::GuardIn,
    Reason::Discard,
    Reason::RelayNoCsa,
    Reason::RelayFragment,
];

/// How many reasons there are.
pub(crate) const COUNT: usize = esp::Drop::COUNT + LOCAL.len();

impl Reason {
    fn index(self) -> usize {
        match self {
            Reason::Format(reason) => reason.index(),
            other => LOCAL
                .iter()
                .position(|r| *r == other)
                .map_or(COUNT, |at| esp::Drop::COUNT + at),
        }
    }

    /// The counter's name (docs/wire.md 1.9a).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Format(reason) => reason.name(),
            Reason::NoCsa => "no-csa",
            Reason::NoRoute => "no-route",
            Reason::RouteLoop => "route-loop",
            Reason::TooBig => "too-big",
            Reason::BadInner => "bad-inner",
            Reason::Fragment => "fragment",
            Reason::LinkScope => "link-scope",
            Reason::Exhausted => "sequence-exhausted",
            Reason::NoMemory => "no-memory",
            Reason::NotActive => "not-active",
            Reason::Expired => "expired",
            Reason::NoDevice => "no-device",
            Reason::GuardOut => "guard-out",
            Reason::GuardIn => "guard-in",
            Reason::Discard => "discard",
            Reason::RelayNoCsa => "relay-no-csa",
            Reason::RelayFragment => "relay-fragment",
        }
    }

    /// All of them, in the counters' order.
    pub(crate) fn all() -> impl Iterator<Item = Reason> {
        esp::Drop::ALL
            .iter()
            .map(|reason| Reason::Format(*reason))
            .chain(LOCAL)
    }
}

impl From<esp::Drop> for Reason {
    fn from(reason: esp::Drop) -> Self {
        Reason::Format(reason)
    }
}

/// The counters of one CSA, or of what has none.
pub(crate) struct Counters([AtomicU64; COUNT]);

impl Counters {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Counters([const { AtomicU64::new(0) }; COUNT])
    }

    /// One more.
    pub(crate) fn count(&self, reason: Reason) {
        if let Some(counter) = self.0.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often.
    pub(crate) fn get(&self, reason: Reason) -> u64 {
        self.0
            .get(reason.index())
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Adds another's, when its CSA ends.
    pub(crate) fn fold(&self, other: &Counters) {
        for (to, from) in self.0.iter().zip(&other.0) {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
