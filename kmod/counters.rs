// SPDX-License-Identifier: GPL-2.0-only

//! A counter for each reason a packet is dropped or passed on unopened.

use core::sync::atomic::{AtomicU64, Ordering};
use kernel::alloc::{flags::*, KVec};
use kernel::error::Result;
use mml_core::esp::{self, Drop};
use pfkey::Role;

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

/// The counters of what has no CSA, and of CSAs that are gone.
pub(crate) struct Counters([AtomicU64; COUNT]);

impl Counters {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Counters([const { AtomicU64::new(0) }; COUNT])
    }

    /// One more.
    pub(crate) fn count(&self, reason: Reason) {
        self.add(reason, 1);
    }

    /// So many more.
    fn add(&self, reason: Reason, count: u64) {
        if let Some(counter) = self.0.get(reason.index()) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How often.
    pub(crate) fn get(&self, reason: Reason) -> u64 {
        self.0
            .get(reason.index())
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Adds a CSA's, when it ends.
    pub(crate) fn fold(&self, role: Role, csa: &CsaCounters) {
        for (reason, counter) in csa.all(role) {
            self.add(reason, counter.load(Ordering::Relaxed));
        }
    }
}

/// What can happen to a packet of an origin.
const ORIGIN: &[Reason] = &[
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
];

/// Of a terminus: all that the format finds wrong, but the two that only others find.
const TERMINUS: &[Reason] = &[
    Reason::Format(Drop::Truncated),
    Reason::Format(Drop::Alignment),
    Reason::Format(Drop::Flags),
    Reason::Format(Drop::L1),
    Reason::Format(Drop::Protocol),
    Reason::Format(Drop::IvW),
    Reason::Format(Drop::WriteUnpermitted),
    Reason::Format(Drop::SeqMismatch),
    Reason::Format(Drop::Replay),
    Reason::Format(Drop::Icv1),
    Reason::Format(Drop::Icv2),
    Reason::Format(Drop::Padding),
    Reason::Format(Drop::NextHeader),
    Reason::Format(Drop::Dummy),
    Reason::Format(Drop::ZoneMap),
    Reason::Format(Drop::InnerHeader),
    Reason::Format(Drop::InnerLength),
    Reason::Format(Drop::Selector),
    Reason::Format(Drop::Ecn),
    Reason::NoMemory,
    Reason::NotActive,
    Reason::Expired,
    Reason::NoDevice,
];

/// Of a relay, which sees zone 1 alone.
const RELAY: &[Reason] = &[
    Reason::Format(Drop::Truncated),
    Reason::Format(Drop::Flags),
    Reason::Format(Drop::L1),
    Reason::Format(Drop::Protocol),
    Reason::Format(Drop::IvW),
    Reason::Format(Drop::Rewritten),
    Reason::Format(Drop::SeqMismatch),
    Reason::Format(Drop::Replay),
    Reason::Format(Drop::Icv1),
    Reason::Format(Drop::ZoneMap),
    Reason::NotActive,
    Reason::Expired,
];

/// The counters of one CSA: those of its role's reasons, since a home agent has ten thousand of them.
pub(crate) struct CsaCounters {
    /// One for each of [`reasons`], in their order.
    counts: KVec<AtomicU64>,
}

fn reasons(role: Role) -> &'static [Reason] {
    match role {
        Role::Origin => ORIGIN,
        Role::Terminus => TERMINUS,
        Role::Relay => RELAY,
    }
}

impl CsaCounters {
    /// All zero.
    pub(crate) fn new(role: Role) -> Result<Self> {
        let reasons = reasons(role);
        let mut counts = KVec::with_capacity(reasons.len(), GFP_KERNEL_ACCOUNT)?;
        for _ in reasons {
            counts.push(AtomicU64::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(CsaCounters { counts })
    }

    fn counter(&self, role: Role, reason: Reason) -> Option<&AtomicU64> {
        let at = reasons(role).iter().position(|r| *r == reason)?;
        self.counts.get(at)
    }

    /// One more for a CSA of this role; what that has no counter of is counted in the namespace's.
    pub(crate) fn count(&self, role: Role, reason: Reason, namespace: &Counters) {
        match self.counter(role, reason) {
            Some(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            None => namespace.count(reason),
        }
    }

    /// How often.
    pub(crate) fn get(&self, role: Role, reason: Reason) -> u64 {
        self.counter(role, reason)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn all(&self, role: Role) -> impl Iterator<Item = (Reason, &AtomicU64)> {
        reasons(role).iter().copied().zip(&self.counts)
    }
}
