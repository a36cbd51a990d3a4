// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Captures at nodes that are guests: the agent captures, and at the end sends what it caught.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::agents::Held;
use crate::netns::Netns;
use crate::wire::Request;

pub use crate::captured::{Captured, Packet};

/// A capture that runs.
pub struct Capture {
    name: String,
    held: Held,
}

impl Capture {
    /// Captures all of `interface`. The name tells the link in messages and file names: `ha-core`.
    pub fn start(namespace: &Netns, interface: &str, name: &str) -> Result<Self> {
        let held = namespace.node().open(Request::Capture {
            interface: interface.to_owned(),
            name: name.to_owned(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            held,
        })
    }

    /// Ends it.
    pub fn stop(self) -> Result<Captured> {
        let id = self.held.id();
        let octets = self.held.ask(&Request::Captured { id }, &[])?.octets;
        from_octets(&self.name, &octets)
    }
}

/// Reads what [`Captured::octets`] wrote.
pub fn from_octets(name: &str, mut octets: &[u8]) -> Result<Captured> {
    let mut packets = Vec::new();
    while let Some((head, rest)) = octets.split_first_chunk::<16>() {
        let word = |at: usize| {
            let word = head.get(at..).and_then(|octets| octets.first_chunk());
            word.map_or(0, |word| u32::from_le_bytes(*word) as usize)
        };
        let nanoseconds = head
            .first_chunk()
            .map_or(0, |time| u64::from_le_bytes(*time));
        let (frame, rest) = rest
            .split_at_checked(word(12))
            .with_context(|| format!("capture {name} is cut off"))?;
        packets.push(Packet {
            time: Duration::from_nanos(nanoseconds),
            frame: frame.to_vec(),
            link_header: word(8),
        });
        octets = rest;
    }
    Ok(Captured {
        name: name.to_owned(),
        packets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_sent_from_guest_to_guest_is_the_same_capture() {
        let packet = |frame: &[u8], link_header| Packet {
            time: Duration::new(1_700_000_000, 7),
            frame: frame.to_vec(),
            link_header,
        };
        let captured = Captured {
            name: "ha-core".to_owned(),
            packets: vec![packet(b"first", 14), packet(b"", 0), packet(&[7; 300], 14)],
        };
        let octets = captured.octets();
        let again = from_octets("ha-core", &octets).unwrap();
        assert_eq!(again.octets(), octets);
        assert_eq!(again.packets.len(), 3);
        assert_eq!(again.packets[2].frame, captured.packets[2].frame);
        assert_eq!(again.packets[0].time, captured.packets[0].time);
        assert!(from_octets("cut", &octets[..octets.len() - 1]).is_err());
    }
}
