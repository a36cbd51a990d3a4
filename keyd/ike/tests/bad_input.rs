// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Peers that misbehave, before and after they have proved who they are.

mod common;

use common::peer::{error, RawPeer};
use common::sim::*;
use mml_ike::config::ZoneRole;
use mml_ike::event::{Event, Output};
use mml_ike::wire::{
    encode_payloads, Delete, ExchangeType, Id, Message, Notify, NotifyType, Payload, PayloadType,
};
use mml_ike::Endpoint;
use proptest::prelude::*;

fn endpoint(with_zones: bool) -> Endpoint {
    let mut connection = psk("b.test", "a.test");
    if with_zones {
        connection.child.as_mut().unwrap().zones = Some(zones(ZoneRole::Home));
    }
    Endpoint::new(config(connection))
}

/// What makes a peer one that knows zones, copied from a real first message.
fn zone_abilities() -> Vec<Payload> {
    use std::cell::RefCell;
    use std::rc::Rc;
    let seen: Rc<RefCell<Vec<Payload>>> = Rc::default();
    let copy = Rc::clone(&seen);
    let mut net = pair(1);
    net.filter(move |_, datagram| {
        copy.borrow_mut()
            .extend(Message::decode(&datagram.octets).unwrap().payloads);
        Fate::Lose
    });
    net.initiate(0, 1);
    let is = |p: &Payload| match p {
        Payload::VendorId(_) => true,
        Payload::Notify(n) => n.kind == NotifyType::ZONES_SUPPORTED,
        _ => false,
    };
    let list = seen.borrow().iter().filter(|p| is(p)).cloned().collect();
    list
}

fn peer() -> RawPeer {
    RawPeer::connect(
        endpoint(false),
        &Id::fqdn("a.test"),
        b"an open secret",
        vec![],
    )
}

fn zone_peer() -> RawPeer {
    RawPeer::connect(
        endpoint(true),
        &Id::fqdn("a.test"),
        b"an open secret",
        zone_abilities(),
    )
}

#[test]
fn an_unknown_critical_payload_is_named_in_the_answer_and_an_uncritical_one_is_not() {
    let mut peer = peer();
    let answer = peer
        .ask_octets(
            ExchangeType::INFORMATIONAL,
            PayloadType(130),
            &[0, 0x80, 0, 4],
        )
        .unwrap();
    assert_eq!(
        answer,
        [Payload::notify(
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            [130]
        )]
    );
    let answer = peer.ask_octets(ExchangeType::INFORMATIONAL, PayloadType(130), &[0, 0, 0, 4]);
    assert_eq!(answer, Some(vec![]));
}

#[test]
fn what_is_not_a_message_ends_the_ike_sa_with_invalid_syntax() {
    let mut peer = peer();
    let answer = peer.ask_octets(
        ExchangeType::INFORMATIONAL,
        PayloadType::NOTIFY,
        &[0, 0, 0, 5, 1],
    );
    assert_eq!(error(&answer.unwrap()), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(peer.endpoint.established().count(), 0);
}

#[test]
fn an_unknown_critical_payload_in_a_first_message_is_named_unprotected() {
    let mut peer = peer();
    let mut octets = 9u64.to_be_bytes().to_vec();
    octets.extend([0; 8]);
    octets.extend([130, 0x20, 34, 0x08, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0x80, 0, 4]);
    let answer = Message::decode(&peer.hand_over(&octets).unwrap()).unwrap();
    assert_eq!(
        answer.payloads,
        [Payload::notify(
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            [130]
        )]
    );
    octets[17] = 0x30;
    let answer = Message::decode(&peer.hand_over(&octets).unwrap()).unwrap();
    assert_eq!(
        answer.payloads,
        [Payload::notify(NotifyType::INVALID_MAJOR_VERSION, [])]
    );
    octets[17] = 0x10;
    assert_eq!(peer.hand_over(&octets), None, "IKEv1 is not answered");
}

/// RFC 7296 §2.25.
#[test]
fn rekeying_a_child_there_is_not_is_answered_by_child_sa_not_found() {
    let mut peer = peer();
    let mut payloads = vec![Payload::Notify(Notify::about(NotifyType::REKEY_SA, 0x9999))];
    payloads.extend(RawPeer::child(0x1001));
    payloads.push(Payload::Nonce(vec![3; 32]));
    let answer = peer.ask(ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
    let expected = Notify::about(NotifyType::CHILD_SA_NOT_FOUND, 0x9999);
    assert_eq!(answer, [Payload::Notify(expected)]);
    // The one there is goes.
    payloads[0] = Payload::Notify(Notify::about(NotifyType::REKEY_SA, 0x1000));
    let answer = peer.ask(ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
    assert_eq!(error(&answer), None);
    // Once.
    let answer = peer.ask(ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
    assert_eq!(error(&answer), Some(NotifyType::TEMPORARY_FAILURE));
}

#[test]
fn deleting_what_is_not_there_is_answered_by_nothing() {
    let mut peer = peer();
    let delete = [Payload::Delete(Delete::Esp(vec![0x9999]))];
    assert_eq!(peer.ask(ExchangeType::INFORMATIONAL, &delete), Some(vec![]));
    let delete = [Payload::Delete(Delete::Esp(vec![0x1000]))];
    let answer = peer.ask(ExchangeType::INFORMATIONAL, &delete).unwrap();
    assert!(matches!(answer.as_slice(), [Payload::Delete(Delete::Esp(spis))] if spis.len() == 1));
}

#[test]
fn a_request_outside_the_window_is_not_looked_at_and_an_old_one_answered_as_before() {
    let mut peer = peer();
    peer.next_id = 5;
    assert_eq!(peer.ask(ExchangeType::INFORMATIONAL, &[]), None);
    peer.next_id = 2;
    assert_eq!(peer.ask(ExchangeType::INFORMATIONAL, &[]), Some(vec![]));
    // Another request under the same number: the first one's answer, and nothing is done.
    peer.next_id = 2;
    let delete = [Payload::Delete(Delete::Ike)];
    assert_eq!(peer.ask(ExchangeType::INFORMATIONAL, &delete), Some(vec![]));
    assert_eq!(peer.endpoint.established().count(), 1);
    peer.next_id = 1;
    assert_eq!(
        peer.ask(ExchangeType::INFORMATIONAL, &delete),
        None,
        "longer ago than the window"
    );
}

#[test]
fn children_without_end_are_refused() {
    let mut peer = peer();
    let mut made = 0;
    for spi in 0..100 {
        let mut payloads = RawPeer::child(0x2000 + spi);
        payloads.push(Payload::Nonce(vec![3; 32]));
        let answer = peer.ask(ExchangeType::CREATE_CHILD_SA, &payloads).unwrap();
        match error(&answer) {
            None => made += 1,
            Some(refused) => assert_eq!(refused, NotifyType::NO_ADDITIONAL_SAS),
        }
    }
    assert_eq!(made, 63, "with the first one 64");
}

#[test]
fn the_csa_exchanges_of_a_peer_that_is_nobody_come_to_nothing() {
    let mut peer = zone_peer();
    for exchange in 242..=246 {
        let _ = peer.ask(ExchangeType(exchange), &[]);
    }
    let is = |o: &Output| {
        matches!(
            o,
            Output::Event(
                Event::RelayUp(_) | Event::HandoverAsked { .. } | Event::Neighbours { .. }
            )
        )
    };
    assert!(!peer.outputs.iter().any(is));
    // And of one that knows no zones they are no exchanges at all.
    let mut peer = self::peer();
    let answer = peer.ask(ExchangeType::CSA_REVOKE, &[]).unwrap();
    assert_eq!(error(&answer), Some(NotifyType::INVALID_SYNTAX));
}

fn exchange() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(35u8),
        Just(36),
        Just(36),
        Just(37),
        Just(43),
        Just(44),
        242u8..=246
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A peer that has proved who it is and then says anything: nobody panics, and time goes on.
    #[test]
    fn an_authenticated_peer_may_say_anything(
        says in prop::collection::vec(
            (exchange(), prop::collection::vec(common::payloads::payload(), 0..6), any::<Option<(u16, u8)>>()),
            1..6,
        ),
    ) {
        let mut peer = zone_peer();
        for (exchange, payloads, bend) in says {
            let (first, mut octets) = encode_payloads(&payloads);
            if let (Some((at, value)), false) = (bend, octets.is_empty()) {
                let at = usize::from(at) % octets.len();
                octets[at] = value;
            }
            let _ = peer.ask_octets(ExchangeType(exchange), first, &octets);
            peer.now += SECOND;
            peer.endpoint.tick(peer.now, &mut peer.host);
        }
        for _ in 0..100 {
            let Some(at) = peer.endpoint.next_deadline() else { break };
            peer.now = peer.now.max(at);
            peer.endpoint.tick(peer.now, &mut peer.host);
        }
    }

    /// Somebody on the way bends octets of every other message: the two still find together, or nothing comes of it.
    #[test]
    fn bent_datagrams_do_not_bring_two_nodes_into_different_states(
        seed in any::<u64>(),
        bends in prop::collection::vec((0usize..20, any::<u16>(), 1u8..), 0..6),
    ) {
        let mut net = pair(seed % 1000);
        net.filter(move |n, datagram| {
            for (which, at, change) in &bends {
                if *which == n {
                    let at = usize::from(*at) % datagram.octets.len();
                    datagram.octets[at] ^= change;
                }
            }
            Fate::Pass
        });
        net.initiate(0, 1);
        net.run(300 * SECOND);
        if net.nodes[0].endpoint.established().count() == 1 {
            net.assert_same(0, 1);
        } else {
            prop_assert!(net.nodes[0].kernel.is_empty());
        }
    }
}
