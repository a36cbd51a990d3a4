// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sends datagrams without an end, whether there is a way for them or not: for guests that must let none of them out.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

/// The discard service's port (RFC 863).
const PORT: u16 = 9;
const PAUSE: Duration = Duration::from_millis(20);

/// `words` are addresses and texts in turn; each address is sent its text over and over.
pub fn run(words: &[String]) -> Result<()> {
    let mut pairs = Vec::new();
    for pair in words.chunks(2) {
        let [address, text] = pair else {
            anyhow::bail!("{} has no text", pair.concat());
        };
        let address: Ipv4Addr = address.parse().with_context(|| address.clone())?;
        pairs.push((address, text.as_bytes()));
    }
    loop {
        for (address, text) in &pairs {
            // A socket for each, since one keeps the route it found first. No route yet is no reason to stop.
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
                let _ = socket.send_to(text, (*address, PORT));
            }
        }
        std::thread::sleep(PAUSE);
    }
}
