// SPDX-License-Identifier: GPL-2.0-only

//! Relay numbers that were given here, for as long as the namespace lives: under one of them a relay's counter begins at
//! 0, so none is taken a second time for a CSA, whatever became of it meanwhile (docs/wire.md 1.5d, 1.5i).

use kernel::alloc::flags::*;
use kernel::prelude::*;
use pfkey::Role;

use crate::ends::Outer;
use crate::namespace::Namespace;
use crate::sadb::Csa;

/// How many a namespace keeps in mind; past that no relay gets to write.
pub(crate) const MOST: usize = 65_536;

/// A relay number of a CSA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    spi: u32,
    number: u16,
    src: [u8; 16],
    dst: [u8; 16],
}

impl Given {
    /// The one that a CSA gives this node, if it may write with it.
    pub(crate) fn by(csa: &pfkey::Csa<'_>) -> Option<Self> {
        (csa.ext.role == Role::Relay && csa.relay.may_write).then_some(Given {
            spi: csa.spi,
            number: csa.relay.number,
            src: csa.src.octets,
            dst: csa.dst.octets,
        })
    }
}

impl Given {
    /// The one of a CSA that moves to `outer`, if it may write.
    pub(crate) fn moved(csa: &Csa, outer: &Outer) -> Option<Self> {
        csa.may_write_as_relay().map(|number| Given {
            spi: csa.spi,
            number,
            src: outer.src,
            dst: outer.dst,
        })
    }
}

impl Namespace {
    /// Keeps it in mind (docs/wire.md 1.5i).
    ///
    /// # Errors
    ///
    /// `EALREADY` if it was given before, `ENOSPC` past the cap, `ENOMEM`.
    pub(crate) fn give_number(&self, given: Given) -> Result {
        let mut config = self.config.lock();
        if config.numbers.contains(&given) {
            return Err(EALREADY);
        }
        if config.numbers.len() >= MOST {
            return Err(ENOSPC);
        }
        Ok(config.numbers.push(given, GFP_KERNEL_ACCOUNT)?)
    }

    /// Takes back one that was given just now: its CSA came to nothing, so that its counter was never there.
    pub(crate) fn take_number_back(&self, given: Given) {
        self.config.lock().numbers.retain(|other| *other != given);
    }
}
