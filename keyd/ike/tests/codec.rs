// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The codec: what is written is read back, what isn't a message is refused, and nothing panics.

mod common;

use common::payloads::{outer_payload, payload};
use mml_ike::wire::{
    decode_payloads, encode_payloads, Error, ExchangeType, Header, Message, MulticastHeader,
    Payload, PayloadType,
};
use proptest::prelude::*;

fn header() -> impl Strategy<Value = Header> {
    (
        1..=u64::MAX,
        any::<u64>(),
        any::<u8>(),
        any::<bool>(),
        any::<bool>(),
        any::<u32>(),
    )
        .prop_map(
            |(spi_i, spi_r, exchange, from_initiator, response, message_id)| Header {
                spi_i,
                spi_r,
                exchange: ExchangeType(exchange),
                from_initiator,
                response,
                message_id,
            },
        )
}

proptest! {
    /// docs/wire.md 3.1a, 3.1j.
    #[test]
    fn what_is_written_is_read_back(
        header in header(),
        payloads in prop::collection::vec(outer_payload(), 0..6),
    ) {
        let message = Message { header, payloads };
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    /// docs/wire.md 3.1b.
    #[test]
    fn sealed_payloads_are_read_back(payloads in prop::collection::vec(payload(), 0..8)) {
        let (first, octets) = encode_payloads(&payloads);
        prop_assert_eq!(decode_payloads(first, &octets, true), Ok(payloads));
    }

    /// docs/wire.md 3.3c.
    #[test]
    fn a_datagram_to_many_is_read_from_its_first_16_octets(
        octets in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        match MulticastHeader::decode(&octets) {
            Ok(header) => prop_assert_eq!(header.encode().to_vec(), octets[..16].to_vec()),
            Err(error) => prop_assert_eq!((error, octets.len() < 16), (Error::Short, true)),
        }
    }

    #[test]
    fn any_octets_are_refused_or_read_the_same_again(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::decode(&octets) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn any_payload_octets_are_refused_or_read_the_same_again(
        first in prop_oneof![33u8..=53, 200u8..=203],
        octets in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        if let Ok(payloads) = decode_payloads(PayloadType(first), &octets, true) {
            let (first, again) = encode_payloads(&payloads);
            prop_assert_eq!(decode_payloads(first, &again, true), Ok(payloads));
        }
    }

    /// Nearly right ones get further than random ones.
    #[test]
    fn a_bent_message_does_not_panic(
        payloads in prop::collection::vec(payload(), 1..6),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (first, mut octets) = encode_payloads(&payloads);
        for (at, value) in bends {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        let _ = decode_payloads(first, &octets, true);
        let _ = decode_payloads(first, &octets[..cut.index(octets.len())], true);
    }

    #[test]
    fn a_message_cut_short_anywhere_is_refused(
        header in header(),
        payloads in prop::collection::vec(outer_payload(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let octets = Message { header, payloads }.encode();
        prop_assert!(Message::decode(&octets[..cut.index(octets.len())]).is_err());
    }
}

fn one(kind: u8, critical: bool, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0, u8::from(critical) << 7];
    octets.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    octets.extend(body);
    assert_ne!(kind, 0);
    octets
}

#[test]
fn an_unknown_critical_payload_is_named_and_an_uncritical_one_skipped() {
    assert_eq!(
        decode_payloads(PayloadType(130), &one(130, true, b"x"), false),
        Err(Error::Critical(PayloadType(130)))
    );
    assert_eq!(
        decode_payloads(PayloadType(130), &one(130, false, b"x"), false),
        Ok(vec![Payload::Unknown(PayloadType(130), b"x".to_vec())])
    );
}

#[test]
fn the_critical_bit_of_a_known_payload_is_not_looked_at() {
    assert_eq!(
        decode_payloads(PayloadType::VENDOR_ID, &one(43, true, b"x"), false),
        Ok(vec![Payload::VendorId(b"x".to_vec())])
    );
}

#[test]
fn a_private_number_is_ours_only_between_peers_that_know_zones() {
    let body = one(200, false, b"somebody else's");
    assert!(matches!(
        decode_payloads(PayloadType::ZONE_MAP, &body, false),
        Ok(list) if matches!(list.as_slice(), [Payload::Unknown(PayloadType::ZONE_MAP, _)])
    ));
    assert!(decode_payloads(PayloadType::ZONE_MAP, &body, true).is_err());
}

#[test]
fn an_encrypted_payload_comes_last_and_not_within_another() {
    let sk = one(46, false, b"sealed");
    assert_eq!(
        decode_payloads(PayloadType::SK, &sk, false),
        Err(Error::Misplaced)
    );
    let header = Header {
        spi_i: 1,
        spi_r: 2,
        exchange: ExchangeType::INFORMATIONAL,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let mut octets = header.encode(PayloadType::SK, 28 + sk.len() + 4).to_vec();
    octets.extend(&sk);
    octets.extend([0, 0, 0, 4]);
    assert_eq!(Message::decode(&octets), Err(Error::Misplaced));
}

#[test]
fn another_major_version_is_named() {
    let mut octets = Header {
        spi_i: 1,
        spi_r: 0,
        exchange: ExchangeType::IKE_SA_INIT,
        from_initiator: true,
        response: false,
        message_id: 0,
    }
    .encode(PayloadType::NONE, 28)
    .to_vec();
    octets[17] = 0x10;
    assert_eq!(Message::decode(&octets), Err(Error::Version(1)));
    octets[17] = 0x2F;
    assert!(
        Message::decode(&octets).is_ok(),
        "a greater minor version is read as ours"
    );
}

/// CSA Identity is laid out, octet by octet, as documented (docs/wire.md 3.1c).
#[test]
fn csa_identity_is_laid_out_as_documented() {
    let mut body = Vec::new();
    body.extend(7u32.to_be_bytes());
    body.extend([2, 0]);
    body.extend(9u16.to_be_bytes());
    body.extend(0x1111_1111u32.to_be_bytes());
    body.extend(0x2222_2222u32.to_be_bytes());
    body.extend(8192u32.to_be_bytes());
    body.extend([0; 4]);
    body.extend(5u64.to_be_bytes());
    body.extend(6u64.to_be_bytes());
    body.extend(3600u32.to_be_bytes());
    body.extend(3u32.to_be_bytes());
    body.extend([4, 0, 0, 0]);
    body.extend([192, 0, 2, 1]);
    body.extend([0; 12]);
    body.extend([192, 0, 2, 2]);
    body.extend([0; 12]);
    let octets = one(202, false, &body);
    let read = decode_payloads(PayloadType::CSA_IDENTITY, &octets, true).unwrap();
    let [Payload::CsaIdentity(identity)] = read.as_slice() else {
        panic!("not an identity: {read:?}");
    };
    assert_eq!((identity.generation, identity.relay_number), (7, 9));
    assert_eq!(
        (identity.spi_in, identity.spi_out),
        (0x1111_1111, 0x2222_2222)
    );
    assert_eq!((identity.sequence_in, identity.sequence_out), (5, 6));
    assert_eq!((identity.replay_window, identity.lifetime), (8192, 3600));
    assert!(identity.may_write && identity.standby);
    assert_eq!(identity.source.to_string(), "192.0.2.1");
    assert_eq!(identity.destination.to_string(), "192.0.2.2");
    assert_eq!(encode_payloads(&read).1, octets);
}
