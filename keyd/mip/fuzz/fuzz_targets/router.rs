// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any octets as ICMP router discovery: refused, or written back from what was read and read again as the same. The
//! checksum is made right first, so that what lies behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_mip::{Advertisement, Solicitation};

fuzz_target!(|octets: &[u8]| {
    let mut octets = octets.to_vec();
    if let Some(field) = octets.get_mut(2..4) {
        field.fill(0);
        let sum: u64 = octets
            .chunks(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
            .sum();
        let folded = (0..4).fold(sum, |sum, _| (sum & 0xFFFF) + (sum >> 16));
        octets[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    let _ = Solicitation::parse(&octets);
    let Ok(advertisement) = Advertisement::parse(&octets) else { return };
    let again = advertisement.emit().expect("it came in as long");
    assert_eq!(Advertisement::parse(&again), Ok(advertisement));
});
