// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the protocol asks of whoever runs it: randomness, and SPIs only the kernel can give.

use ring::rand::SecureRandom;
use std::net::IpAddr;

/// Randomness, and what the kernel alone knows.
///
/// Nonces, SPIs, cookie secrets, key pairs and ML-KEM's seeds come from [`fill`](Host::fill), so a seeded host repeats an exchange
/// message for message but for signatures: those come from ring, which makes its own out of [`secure`](Host::secure) and lets
/// nobody else choose them. Their octets differ from run to run; no message's size, order or meaning depends on them.
pub trait Host {
    /// Fills `out` with random octets.
    fn fill(&mut self, out: &mut [u8]);

    /// The system's randomness, for ring.
    fn secure(&self) -> &dyn SecureRandom;

    /// An SPI for packets from `peer` to `local`, reserved in every place a child SA may be installed
    /// (docs/wire.md 3.2f). `None` when there is none to be had.
    fn child_spi(&mut self, local: IpAddr, peer: IpAddr) -> Option<u32> {
        let _ = (local, peer);
        let mut octets = [0; 4];
        // 0–255 are reserved (RFC 4303 §2.1). A handful of draws fail only with a broken source.
        for _ in 0..8 {
            self.fill(&mut octets);
            let spi = u32::from_be_bytes(octets);
            if spi > 255 {
                return Some(spi);
            }
        }
        None
    }

    /// Where a composite SA stands: the last numbers seen and sealed under its two SPIs. A relay that joins starts there.
    fn progress(&mut self, spi_in: u32, spi_out: u32) -> Progress {
        let _ = (spi_in, spi_out);
        Progress::default()
    }
}

/// Sequence numbers of a composite SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The last number seen in packets to this node.
    pub sequence_in: u64,
    /// The last number seen or sealed in packets from this node.
    pub sequence_out: u64,
}

pub(crate) fn nonce(host: &mut dyn Host, len: usize) -> Vec<u8> {
    let mut octets = vec![0; len];
    host.fill(&mut octets);
    octets
}

/// An IKE SPI: anything but 0.
pub(crate) fn ike_spi(host: &mut dyn Host) -> u64 {
    let mut octets = [0; 8];
    host.fill(&mut octets);
    u64::from_be_bytes(octets).max(1)
}
