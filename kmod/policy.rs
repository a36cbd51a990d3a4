// SPDX-License-Identifier: GPL-2.0-only

//! The guard's rules: policies, apart from CSAs (docs/wire.md §2 and §5).

use core::sync::atomic::{AtomicU64, Ordering};
use kernel::alloc::flags::*;
use kernel::prelude::*;
use kernel::sync::Arc;
use mml_core::ip::{Addresses, Ports};
use mml_core::selector::{Match, Selector};
use pfkey::number::policy::{BYPASS, DIR_IN, PROTECT};

use crate::sadb::{selector, Seed};
use crate::skb::Buffer;
use crate::sync::{self, Reader, Table};

/// What a policy does with what it covers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Discard,
    Bypass,
    Protect,
}

/// One policy.
pub(crate) struct Policy {
    pub id: u32,
    pub inbound: bool,
    pub action: Action,
    pub selector: Selector,
    /// As it was given, number included.
    pub given: pfkey::Policy,
    /// Packets it decided.
    pub hits: AtomicU64,
    acquired: AtomicU64,
}

impl Policy {
    /// Makes a policy of a checked message.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a selector that isn't one, `ENOMEM`.
    pub(crate) fn new(id: u32, given: &pfkey::Policy) -> Result<Arc<Policy>> {
        let action = match given.ext.kind {
            PROTECT => Action::Protect,
            BYPASS => Action::Bypass,
            _ => Action::Discard,
        };
        let mut given = *given;
        given.ext.id = id;
        Ok(Arc::new(
            Policy {
                id,
                inbound: given.ext.direction == DIR_IN,
                action,
                selector: selector(&given.selector).ok_or(EINVAL)?,
                given,
                hits: AtomicU64::new(0),
                acquired: AtomicU64::new(0),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// Whether an ACQUIRE is due: at most one a second a policy (docs/wire.md 2.4a).
    pub(crate) fn acquire_due(&self) -> bool {
        sync::once_a_second(&self.acquired)
    }
}

/// The ports of a packet whose data starts at its IP header, if it shows any (docs/wire.md 2.3m).
pub(crate) fn ports(skb: &Buffer, of: &Addresses) -> Option<Ports> {
    skb.octets(of.ports_at()?).map(Ports::of)
}

/// The policies of a namespace.
pub(crate) struct Spd {
    inbound: Table<Arc<Policy>>,
    outbound: Table<Arc<Policy>>,
}

impl Spd {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Spd {
            inbound: Table::new(),
            outbound: Table::new(),
        }
    }

    fn table(&self, inbound: bool) -> &Table<Arc<Policy>> {
        if inbound {
            &self.inbound
        } else {
            &self.outbound
        }
    }

    /// The policy that decides on a packet: the lowest priority's, and of those the oldest. `bypass`: whether bypass
    /// policies are asked at all (docs/wire.md 2.4e). `ports` is asked only by policies that name some; what shows none is
    /// covered by one that keeps packets back, and by none that lets them pass (docs/wire.md 2.4f).
    #[inline]
    pub(crate) fn find<'g>(
        &'g self,
        inbound: bool,
        seed: Seed,
        of: &Addresses,
        ports: impl Fn() -> Option<Ports>,
        bypass: bool,
        reader: &'g Reader,
    ) -> Option<&'g Policy> {
        let table = self.table(inbound);
        if table.len() == 0 {
            return None;
        }
        let rank = |p: &Policy| (p.given.ext.priority, p.id);
        let mut best: Option<&Policy> = None;
        for hash in seed.places(of) {
            for policy in table.get(hash, reader) {
                let covers = || match policy.selector.compare(of, &ports) {
                    Match::Yes => true,
                    Match::Unseen => policy.action != Action::Bypass,
                    Match::No => false,
                };
                if (bypass || policy.action != Action::Bypass)
                    && covers()
                    && best.is_none_or(|b| rank(policy) < rank(b))
                {
                    best = Some(policy);
                }
            }
        }
        if let Some(policy) = best {
            policy.hits.fetch_add(1, Ordering::Relaxed);
        }
        best
    }

    /// Whether there is one of its direction and selector. The caller holds the writers' lock.
    pub(crate) fn has_place_of(&self, seed: Seed, policy: &Policy) -> bool {
        self.table(policy.inbound)
            .locked(seed.selector(&policy.selector))
            .any(|p| p.selector == policy.selector)
    }

    /// Adds one. The caller holds the writers' lock.
    pub(crate) fn insert(&self, seed: Seed, policy: &Arc<Policy>) -> Result {
        self.table(policy.inbound)
            .insert(seed.selector(&policy.selector), policy.clone())
    }

    /// Takes one away. The caller holds the writers' lock.
    pub(crate) fn remove(&self, seed: Seed, policy: &Policy) {
        self.table(policy.inbound)
            .remove(seed.selector(&policy.selector), |p| p.id == policy.id);
    }
}
