// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a sender's TCP knows of its connection (`struct tcp_info`, `<linux/tcp.h>`).

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use crate::sys;

/// Octets asked for: the structure of Linux 7.2 and 7.3, and room.
const SIZE: usize = 512;
/// Bits of `tcpi_options`.
const SACK: u8 = 2;
const SCALING: u8 = 4;

/// The fields that are used, by their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Both ends permit SACK.
    pub sack: bool,
    /// By how many bits the windows that come are to be shifted; 0 where the ends agreed on no scaling.
    pub scale: u8,
    /// The sender's segment size, in octets of payload.
    pub mss: u32,
    /// The congestion window, in segments.
    pub window: u32,
    /// Segments sent again.
    pub retransmitted: u32,
    /// Octets acknowledged: how far the sequence numbers have come.
    pub acknowledged: u64,
    /// Times the retransmission timer fired.
    pub timeouts: u16,
    /// The smoothed round trip, in microseconds.
    pub round_trip: u32,
}

impl TcpInfo {
    pub fn read(socket: &impl AsRawFd) -> Result<Self> {
        let mut octets = [0u8; SIZE];
        let length = sys::option_octets(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut octets)
            .context("TCP_INFO")?;
        Self::parse(octets.get(..length).unwrap_or_default())
            .context("this kernel's tcp_info ends before its count of time-outs")
    }

    fn parse(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            octets
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map(|word| u32::from_ne_bytes(*word))
        };
        let (options, scales) = (*octets.get(5)?, *octets.get(6)?);
        Some(Self {
            sack: options & SACK != 0,
            // The sender's scale is in the low half on a little-endian machine.
            scale: if options & SCALING != 0 {
                scales & 0x0F
            } else {
                0
            },
            mss: word(16)?,
            round_trip: word(68)?,
            window: word(80)?,
            retransmitted: word(100)?,
            acknowledged: u64::from_ne_bytes(*octets.get(120..)?.first_chunk()?),
            timeouts: u16::from_ne_bytes(*octets.get(240..)?.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_without_the_count_of_time_outs_is_refused() {
        let mut octets = [0u8; 242];
        octets[80] = 35;
        octets[120..128].copy_from_slice(&9_000_000_000u64.to_ne_bytes());
        octets[240] = 2;
        let info = TcpInfo::parse(&octets).unwrap();
        assert_eq!(
            (info.window, info.acknowledged, info.timeouts),
            (35, 9_000_000_000, 2)
        );
        assert_eq!(TcpInfo::parse(&octets[..241]), None);
    }
}
