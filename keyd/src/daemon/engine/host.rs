// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the protocol asks of this node: randomness, SPIs reserved in both kernels, sequence numbers
//! (docs/wire.md 3.2f).

use super::book::Book;
use crate::daemon::kernel::Kernel;
use mml_ike::event::Time;
use mml_ike::host::{Host, Progress};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often another SPI is drawn when one is taken.
const DRAWS: u32 = 16;
/// How long an SPI is kept for a child: longer than all retransmissions of a handful of exchanges.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The system's randomness.
pub struct Random(SystemRandom);

impl Default for Random {
    fn default() -> Self {
        Random(SystemRandom::new())
    }
}

impl Host for Random {
    /// What can't be filled stays as it is, zeros: SPIs and nonces of them are refused where they are drawn, and ring's
    /// own keys fail likewise. Linux's getrandom never fails once the system is up.
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            tracing::error!("the system has no randomness");
        }
    }

    fn secure(&self) -> &dyn SecureRandom {
        &self.0
    }
}

/// The kernels of a node; either may be missing.
#[derive(Default)]
pub struct Kernels {
    /// Composite SAs, and what must be sealed.
    pub mml: Option<Box<dyn Kernel>>,
    /// Plain SAs.
    pub xfrm: Option<Box<dyn Kernel>>,
}

impl Kernels {
    /// Those there are.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Box<dyn Kernel>> {
        self.mml.iter_mut().chain(&mut self.xfrm)
    }

    /// The one for composite SAs, or the one for plain ones.
    pub fn of(&mut self, composite: bool) -> Option<&mut dyn Kernel> {
        let kernel = if composite {
            &mut self.mml
        } else {
            &mut self.xfrm
        };
        kernel
            .as_deref_mut()
            .map(|kernel| kernel as &mut dyn Kernel)
    }
}

/// The protocol's host.
pub(super) struct NodeHost {
    pub random: Random,
    pub kernels: Kernels,
    pub book: Book,
    /// SPIs that may become a child's.
    pub reserved: HashMap<u32, Reserved>,
    /// What time it is, as the engine was told last.
    pub now: Time,
}

/// An SPI that may become a child's: this side's and the peer's address, and since when.
pub(super) struct Reserved {
    local: IpAddr,
    peer: IpAddr,
    since: Time,
}

impl NodeHost {
    /// An SPI that was reserved is used, in one of the kernels, or not to be used any more: the others may have it.
    pub fn release(&mut self, spi: u32, used_by_xfrm: bool) {
        let Some(Reserved { local, peer, .. }) = self.reserved.remove(&spi) else {
            return;
        };
        let kernels = &mut self.kernels;
        let xfrm = kernels.xfrm.as_mut().filter(|_| !used_by_xfrm);
        for kernel in kernels.mml.iter_mut().chain(xfrm) {
            if let Err(error) = kernel.release(spi, local, peer) {
                tracing::warn!(
                    kernel = kernel.name(),
                    "SPI {spi:#010x} can't be given back: {error}"
                );
            }
        }
    }

    /// Gives back what nobody has asked about for so long that its exchange must be over: an IKE SA that fails says nothing
    /// of the child that was to come with it.
    pub fn release_forgotten(&mut self) {
        let reserved = self.reserved.iter();
        let old: Vec<u32> = reserved
            .filter(|(_, one)| one.since + FORGOTTEN <= self.now)
            .map(|(spi, _)| *spi)
            .collect();
        old.into_iter().for_each(|spi| self.release(spi, false));
    }

    fn reserve(&mut self, spi: u32, local: IpAddr, peer: IpAddr) -> bool {
        let mut done: Vec<&mut Box<dyn Kernel>> = Vec::new();
        for kernel in self.kernels.all() {
            match kernel.reserve(spi, local, peer) {
                Ok(()) => done.push(kernel),
                Err(error) => {
                    tracing::debug!(
                        kernel = kernel.name(),
                        "SPI {spi:#010x} is not to be had: {error}"
                    );
                    for kernel in done {
                        // What is left behind expires by itself.
                        let _ = kernel.release(spi, local, peer);
                    }
                    return false;
                }
            }
        }
        true
    }
}

impl Host for NodeHost {
    fn fill(&mut self, out: &mut [u8]) {
        self.random.fill(out);
    }

    fn secure(&self) -> &dyn SecureRandom {
        self.random.secure()
    }

    fn child_spi(&mut self, local: IpAddr, peer: IpAddr) -> Option<u32> {
        for _ in 0..DRAWS {
            let mut octets = [0; 4];
            self.fill(&mut octets);
            let spi = u32::from_be_bytes(octets);
            // 0–255 are reserved (RFC 4303 §2.1).
            let free = spi > 255 && !self.reserved.contains_key(&spi) && !self.book.has_spi(spi);
            if free && self.reserve(spi, local, peer) {
                let since = self.now;
                self.reserved.insert(spi, Reserved { local, peer, since });
                return Some(spi);
            }
        }
        tracing::error!("no SPI is to be had in the kernel; is CAP_NET_ADMIN missing?");
        None
    }

    fn progress(&mut self, spi_in: u32, spi_out: u32) -> Progress {
        let Some((inbound, outbound)) = self.book.directions(spi_in, spi_out) else {
            return Progress::default();
        };
        let mut sequence = |id| {
            let mml = self.kernels.mml.as_mut();
            mml.and_then(|mml| mml.sequence(&id).ok()).unwrap_or(0)
        };
        Progress {
            sequence_in: sequence(inbound),
            sequence_out: sequence(outbound),
        }
    }
}
