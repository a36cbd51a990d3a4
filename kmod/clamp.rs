// SPDX-License-Identifier: GPL-2.0-only

//! The limit on the TCP windows that hosts behind a link advertise: which connections are known, and what their windows
//! are shifted by (docs/wire.md 1.5k). What follows from that is mml-core's to say; relay.rs puts it into the packet.
//!
//! Connections are found under RCU and have a lock each; one is made when a SYN passes, not for each packet. There is
//! room for as many as [`FLOWS`]; one that was quiet goes for a new one, and what isn't known is left alone.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kernel::alloc::{flags::*, KVVec};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use mml_core::snoop::Ends;
use mml_core::window::{Look, Scales, Side};

use crate::sadb::{Csa, Seed};
use crate::snoop::Key;
use crate::sync::{self, Bh, Reader, Table};

/// Connections that a namespace knows at a time.
const FLOWS: usize = 4096;
/// Connections looked at to find one that may go for a new one.
const CANDIDATES: usize = 8;
/// One that is quiet for so many nanoseconds may go.
const QUIET: u64 = 10_000_000_000;

/// A connection, by the names of what its host sends.
#[pin_data]
struct Flow {
    key: Key,
    hash: u32,
    /// When a segment of it last passed, in nanoseconds.
    touched: AtomicU64,
    #[pin]
    scales: SpinLock<Scales>,
}

/// All of them, as those who make them see them: a ring, in which the hand goes round.
struct Ring {
    flows: KVVec<Arc<Flow>>,
    hand: usize,
}

/// The limit of a namespace.
#[pin_data]
pub(crate) struct Clamp {
    /// The interface that the hosts are behind; 0 for none.
    interface: AtomicU32,
    /// The greatest window, in octets; 0 for no limit (docs/wire.md 2.1k).
    limit: AtomicU32,
    flows: Table<Arc<Flow>>,
    #[pin]
    ring: SpinLock<Ring>,
}

impl Clamp {
    /// No limit.
    pub(crate) fn new() -> impl PinInit<Self> {
        let ring = Ring {
            flows: KVVec::new(),
            hand: 0,
        };
        pin_init!(Clamp {
            interface: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            flows: Table::new(),
            ring <- new_spinlock!(ring, "mml_clamp"),
        })
    }

    /// The interface that the hosts are behind; 0 for none.
    pub(crate) fn interface(&self) -> u32 {
        self.interface.load(Ordering::Relaxed)
    }

    /// See [`Self::interface`]; connections over another one are forgotten. Sleeps.
    pub(crate) fn set_interface(&self, index: u32) -> Result {
        self.prepare(index)?;
        if self.interface.swap(index, Ordering::Relaxed) != index {
            self.flush();
        }
        Ok(())
    }

    /// The greatest window, in octets; 0 for no limit.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// See [`Self::limit`]. Sleeps.
    pub(crate) fn set_limit(&self, octets: u32) -> Result {
        self.prepare(octets)?;
        self.limit.store(octets, Ordering::Relaxed);
        if octets == 0 {
            // Their connections go on unseen, and may begin anew.
            self.flush();
        }
        Ok(())
    }

    /// Makes room, where it is going to be wanted.
    fn prepare(&self, wanted: u32) -> Result {
        if wanted == 0 {
            return Ok(());
        }
        self.flows.prepare()?;
        let list = KVVec::with_capacity(FLOWS, GFP_KERNEL_ACCOUNT)?;
        let unused = {
            let _bh = Bh::off();
            let mut ring = self.ring.lock();
            if ring.flows.capacity() == 0 {
                core::mem::replace(&mut ring.flows, list)
            } else {
                list
            }
        };
        drop(unused);
        Ok(())
    }

    fn flush(&self) {
        let _bh = Bh::off();
        let mut ring = self.ring.lock();
        while let Some(flow) = ring.flows.pop() {
            self.flows
                .remove(flow.hash, |other| Arc::ptr_eq(other, &flow));
        }
        ring.hand = 0;
    }

    /// From which side of the link a packet comes between interfaces with these indices, if its window is looked at
    /// (docs/wire.md 2.1l).
    #[inline]
    pub(crate) fn side(&self, (from, to): (u32, u32)) -> Option<Side> {
        let interface = self.interface();
        if interface == 0 || self.limit() == 0 {
            None
        } else if from == interface {
            Some(Side::Host)
        } else if to == interface {
            Some(Side::Peer)
        } else {
            None
        }
    }

    /// Looks at a TCP segment's zone 1 that came in `csa`: the window it is to have instead (docs/wire.md 1.5l).
    pub(crate) fn look(
        &self,
        csa: &Csa,
        ends: &Ends,
        zone1: &[u8],
        side: Side,
        seed: Seed,
        reader: &Reader,
    ) -> Option<u16> {
        let look = Look::read(zone1)?;
        // The peer's segments are of interest for their SYN alone.
        if side == Side::Peer && !look.is_syn() {
            return None;
        }
        let given = Key {
            outer: csa.ends.get().outer,
            ends: *ends,
        };
        let key = match side {
            Side::Host => given,
            Side::Peer => given.reversed(),
        };
        let hash = key.hash(seed);
        let flow = match self.find(&key, hash, reader) {
            Some(flow) => flow,
            None if look.is_syn() => {
                self.create(key, hash)?;
                self.find(&key, hash, reader)?
            }
            None => return None,
        };
        flow.touched.store(sync::now_ns(), Ordering::Relaxed);
        let mut scales = flow.scales.lock();
        scales.note(side, &look);
        match side {
            Side::Host => scales.clamp(&look, self.limit()),
            Side::Peer => None,
        }
    }

    #[inline]
    fn find<'g>(&'g self, key: &Key, hash: u32, reader: &'g Reader) -> Option<&'g Flow> {
        self.flows
            .get(hash, reader)
            .map(|flow| &**flow)
            .find(|flow| flow.key.is(key))
    }

    /// Makes a connection known, if there is room or a quiet one may go for it. With bottom halves off.
    #[cold]
    #[inline(never)]
    fn create(&self, key: Key, hash: u32) -> Option<()> {
        let now = sync::now_ns();
        let flags = GFP_ATOMIC | __GFP_NOWARN;
        let flow = Arc::pin_init(
            pin_init!(Flow {
                key,
                hash,
                touched: AtomicU64::new(now),
                scales <- new_spinlock!(Scales::default(), "mml_scales"),
            }),
            flags,
        )
        .ok()?;
        let mut ring = self.ring.lock();
        let ring = &mut *ring;
        // Another CPU may have been first.
        if self.flows.locked(hash).any(|other| other.key.is(&key)) {
            return Some(());
        }
        if ring.flows.len() < ring.flows.capacity().min(FLOWS) {
            self.flows.insert_with(hash, flow.clone(), flags).ok()?;
            // There is room: nothing is allocated.
            return ring.flows.push(flow, flags).ok();
        }
        for _ in 0..CANDIDATES {
            ring.hand = (ring.hand + 1) % FLOWS;
            let place = ring.flows.get_mut(ring.hand)?;
            if now.saturating_sub(place.touched.load(Ordering::Relaxed)) < QUIET {
                continue;
            }
            self.flows.insert_with(hash, flow.clone(), flags).ok()?;
            let old = core::mem::replace(place, flow);
            self.flows
                .remove(old.hash, |other| Arc::ptr_eq(other, &old));
            return Some(());
        }
        None
    }
}
