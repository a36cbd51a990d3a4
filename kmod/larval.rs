// SPDX-License-Identifier: GPL-2.0-only

//! Larval CSAs: SPIs that GETSPI reserved for a terminus, until an UPDATE gives them keys (RFC 2367 §3.1.1). No packet
//! finds them (docs/wire.md 2.2q).

use kernel::alloc::flags::*;
use kernel::prelude::*;
use pfkey::{CsaExt, CsaId, Role, SpiRequest, State};

use crate::namespace::{Config, Namespace};
use crate::sync;

/// SPIs that may be reserved in a namespace at a time.
const MOST: usize = 4096;
/// Seconds until one that nobody gives keys is forgotten: longer than a key exchange is tried (docs/wire.md 2.2r).
const SECONDS: u64 = 165;

/// A reserved SPI.
#[derive(Clone, Copy)]
pub(crate) struct Larval {
    /// Its number, of the same row as the CSAs'.
    pub number: u64,
    /// Its name; the role is a terminus'.
    pub id: CsaId,
    /// When it was reserved, in nanoseconds of [`sync::boottime_ns`].
    added: u64,
}

impl Larval {
    /// When it is forgotten.
    pub(crate) fn deadline(&self) -> u64 {
        self.added.saturating_add(SECONDS * 1_000_000_000)
    }

    /// The CSA extension of messages about it.
    pub(crate) fn ext(&self) -> CsaExt {
        CsaExt {
            role: Role::Terminus,
            mode: pfkey::Mode::Tunnel,
            state: State::Larval,
            window: 0,
            generation: 0,
            sequence: 0,
        }
    }

    /// The life it has.
    pub(crate) fn limit() -> pfkey::Lifetime {
        pfkey::Lifetime {
            addtime: SECONDS,
            ..pfkey::Lifetime::default()
        }
    }
}

/// The place among the larval ones of an SPI at this destination: the source may have moved meanwhile.
pub(crate) fn place(config: &Config, spi: u32, dst: &pfkey::Address) -> Option<usize> {
    config
        .larvals
        .iter()
        .position(|larval| larval.id.spi == spi && larval.id.dst.octets == dst.octets)
}

impl Namespace {
    /// Reserves an SPI; `taken` says of one whether a CSA has it (docs/wire.md 2.2b).
    ///
    /// # Errors
    ///
    /// `EEXIST` if none of the range is free, `ENOSPC` past the cap, `ENOMEM`.
    pub(crate) fn reserve(
        &self,
        request: &SpiRequest,
        taken: impl Fn(u32) -> bool,
    ) -> Result<Larval> {
        let mut config = self.config.lock();
        if config.larvals.len() >= MOST {
            return Err(ENOSPC);
        }
        let spi = request
            .candidates(sync::random())
            .find(|spi| !taken(*spi) && place(&config, *spi, &request.dst).is_none())
            .ok_or(EEXIST)?;
        let larval = Larval {
            number: config.next_number(),
            id: CsaId {
                spi,
                src: request.src,
                dst: request.dst,
                role: Role::Terminus,
            },
            added: sync::boottime_ns(),
        };
        config.larvals.push(larval, GFP_KERNEL_ACCOUNT)?;
        drop(config);
        self.alarm.set(larval.deadline());
        Ok(larval)
    }

    /// The larval CSA of this name.
    pub(crate) fn larval(&self, id: &CsaId) -> Option<Larval> {
        let config = self.config.lock();
        let at = place(&config, id.spi, &id.dst).filter(|_| id.role == Role::Terminus)?;
        config.larvals.get(at).copied()
    }

    /// Forgets larval CSAs; says how many.
    pub(crate) fn forget(&self, mut which: impl FnMut(&Larval) -> bool) -> usize {
        let mut config = self.config.lock();
        let before = config.larvals.len();
        config.larvals.retain(|larval| !which(larval));
        before - config.larvals.len()
    }
}
