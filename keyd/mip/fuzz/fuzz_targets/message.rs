// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any octets as a message on UDP port 434: refused, or written back from what was read and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_mip::{Builder, Extensions, Message};

fuzz_target!(|octets: &[u8]| {
    let Ok(message) = Message::parse(octets) else { return };
    let Ok(extensions) = Extensions::parse(octets, message.fixed_len()) else { return };
    let mut builder = Builder::new(&message);
    for item in extensions.iter() {
        builder = builder.extension(&item.extension).expect("it came in as long");
    }
    let again = builder.finish();
    assert_eq!(again.len(), octets.len());
    assert_eq!(Message::parse(&again), Ok(message));
    let reread = Extensions::parse(&again, message.fixed_len()).expect("sound");
    assert!(extensions.iter().eq(reread.iter()));
});
