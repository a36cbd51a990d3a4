// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any octets as a message: refused, or read the same again from what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_ike::wire::Message;

fuzz_target!(|octets: &[u8]| {
    let Ok(message) = Message::decode(octets) else { return };
    assert_eq!(Message::decode(&message.encode()), Ok(message));
});
