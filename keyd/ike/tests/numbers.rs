// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Numbers on the wire, against the registry's and docs/wire.md's, written out here a second time: two nodes of this
//! project would agree on a wrong one.

mod common;

use common::sim::*;
use mml_ike::config::ZoneRole;
use mml_ike::wire::{CfgAttribute, ExchangeType, Group, NotifyType, PayloadType};
use std::cell::RefCell;
use std::rc::Rc;

/// docs/wire.md 3.2x: MOBIKE (RFC 4555), NAT traversal (RFC 7296), fragmentation (RFC 7383), cookies, multiple key
/// exchanges (RFC 9242, RFC 9370), and ML-KEM (draft-ietf-ipsecme-ikev2-mlkem).
#[test]
fn what_has_a_standard_number_has_it() {
    let notifications = [
        (NotifyType::COOKIE, 16390),
        (NotifyType::NAT_DETECTION_SOURCE_IP, 16388),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, 16389),
        (NotifyType::MOBIKE_SUPPORTED, 16396),
        (NotifyType::ADDITIONAL_IP4_ADDRESS, 16397),
        (NotifyType::ADDITIONAL_IP6_ADDRESS, 16398),
        (NotifyType::NO_ADDITIONAL_ADDRESSES, 16399),
        (NotifyType::UPDATE_SA_ADDRESSES, 16400),
        (NotifyType::COOKIE2, 16401),
        (NotifyType::NO_NATS_ALLOWED, 16402),
        (NotifyType::UNACCEPTABLE_ADDRESSES, 40),
        (NotifyType::UNEXPECTED_NAT_DETECTED, 41),
        (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, 16430),
        (NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, 16438),
        (NotifyType::ADDITIONAL_KEY_EXCHANGE, 16441),
        (NotifyType::STATE_NOT_FOUND, 47),
    ];
    for (ours, registered) in notifications {
        assert_eq!(ours.0, registered, "{ours}");
    }
    let exchanges = [
        (ExchangeType::IKE_SA_INIT, 34),
        (ExchangeType::IKE_AUTH, 35),
        (ExchangeType::CREATE_CHILD_SA, 36),
        (ExchangeType::INFORMATIONAL, 37),
        (ExchangeType::IKE_INTERMEDIATE, 43),
        (ExchangeType::IKE_FOLLOWUP_KE, 44),
    ];
    for (ours, registered) in exchanges {
        assert_eq!(ours.0, registered, "{ours}");
    }
    let methods = [
        (Group::ECP_256, 19),
        (Group::ECP_384, 20),
        (Group::CURVE25519, 31),
        (Group::ML_KEM_512, 35),
        (Group::ML_KEM_768, 36),
        (Group::ML_KEM_1024, 37),
    ];
    for (ours, registered) in methods {
        assert_eq!(ours.0, registered, "{ours}");
    }
    assert_eq!(PayloadType::SKF.0, 53);
    assert_eq!(CfgAttribute::INTERNAL_IP4_ADDRESS.0, 1);
    assert_eq!(CfgAttribute::INTERNAL_IP6_ADDRESS.0, 8);
}

/// Payloads of a message in clear by their types, each with what it holds after the generic header (RFC 7296 §3.2).
fn payloads(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let (mut kind, mut rest) = (message[16], &message[28..]);
    while kind != 0 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        found.push((kind, rest[4..length].to_vec()));
        (kind, rest) = (rest[0], &rest[length..]);
    }
    found
}

/// docs/wire.md 3.1i, 3.1k: the first 16 octets of `printf 'mml-ipsec 1' | sha256sum`, and notification 50000 with
/// version 1 and how many zones, in IKE_SA_INIT's request and response.
#[test]
fn who_knows_zones_says_so_in_the_published_octets() {
    const VENDOR_ID: [u8; 16] = [
        0x54, 0x76, 0x79, 0xbe, 0x81, 0x5b, 0xec, 0xbb, 0x1c, 0x10, 0x74, 0x24, 0xe0, 0xe2, 0x84,
        0xb8,
    ];
    const VENDOR_ID_PAYLOAD: u8 = 43;
    const NOTIFY_PAYLOAD: u8 = 41;
    let mut net = pair_with(9, |c, mobile| {
        let role = if mobile {
            ZoneRole::Mobile
        } else {
            ZoneRole::Home
        };
        c.child.as_mut().unwrap().zones = Some(zones(role));
    });
    let seen = Rc::new(RefCell::new(Vec::new()));
    let tap = seen.clone();
    net.filter(move |_, datagram| {
        tap.borrow_mut().push(datagram.octets.clone());
        Fate::Pass
    });
    let _net = up(net);
    let seen = seen.borrow();
    assert!(seen.len() >= 4);
    for message in seen.iter().take(2) {
        assert_eq!(message[18], 34, "not IKE_SA_INIT");
        let payloads = payloads(message);
        let known = |kind, holds: &dyn Fn(&[u8]) -> bool| {
            payloads
                .iter()
                .any(|(is, octets)| *is == kind && holds(octets))
        };
        assert!(known(VENDOR_ID_PAYLOAD, &|octets| octets == VENDOR_ID));
        // Protocol 0, no SPI, 50000, version 1, then the number of zones.
        assert!(known(NOTIFY_PAYLOAD, &|octets| {
            octets.starts_with(&[0, 0, 0xc3, 0x50, 0, 1]) && octets.len() == 8
        }));
    }
}
