// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A first payload's type and any octets as what SK held: refused, or read the same again from what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mml_ike::wire::{decode_payloads, encode_payloads, PayloadType};

fuzz_target!(|octets: &[u8]| {
    let [first, rest @ ..] = octets else { return };
    let Ok(payloads) = decode_payloads(PayloadType(*first), rest, true) else { return };
    let (first, again) = encode_payloads(&payloads);
    assert_eq!(decode_payloads(first, &again, true), Ok(payloads));
});
