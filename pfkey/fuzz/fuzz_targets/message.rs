// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any octets as a zone message: refused, or written back octet by octet from what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pfkey::{Csa, CsaId, CsaUpdate, Message, Policy, PolicyId, SpiRequest, Writer, MAX_LEN};

fuzz_target!(|octets: &[u8]| {
    let Ok(message) = Message::parse(octets) else { return };
    let mut buffer = [0xEE; MAX_LEN];
    let mut writer = Writer::with_header(&mut buffer, message.header()).expect("room");
    for extension in message.extensions() {
        writer = writer.extension(&extension).expect("room");
    }
    assert_eq!(writer.finish().expect("room"), octets);

    if let Ok(csa) = Csa::from_message(&message) {
        // What was taken is written, and taken again as the same.
        let mut buffer = [0xEE; MAX_LEN];
        let writer = Writer::with_header(&mut buffer, message.header()).expect("room");
        let again = csa.write(writer).and_then(Writer::finish).expect("room");
        assert_eq!(Csa::from_message(&Message::parse(again).expect("sound")), Ok(csa));
    }
    if let Ok(asked) = SpiRequest::from_message(&message) {
        assert!(asked.candidates(message.header().seq).all(|spi| asked.range.min <= spi && spi <= asked.range.max));
    }
    let _ = CsaId::from_message(&message);
    let _ = CsaUpdate::from_message(&message);
    let _ = Policy::from_message(&message);
    let _ = PolicyId::from_message(&message);
});
