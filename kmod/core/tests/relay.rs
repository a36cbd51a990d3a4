// SPDX-License-Identifier: GPL-2.0-only
//! What a relay sees, what it may change, and what one who holds its key can't do: `docs/wire.md` §1.

mod common;

use common::{ipv4, pseudo, tcp, udp, Csa, Ring, Terminus, DST, SRC};
use mml_core::esp::{self, Drop, Header, IvKind};
use mml_core::ip::{self, v4};
use mml_core::packet;
use mml_core::replay::{Replay, Resync};
use mml_core::tcp::rewrite_window;
use mml_core::zone::{Mode, ZoneMap};
use proptest::prelude::*;

/// A relay with its window.
struct Relay<'a> {
    csa: &'a Csa,
    window: Replay,
    bits: Vec<u64>,
    resync: Resync,
}

impl<'a> Relay<'a> {
    fn joining_at(csa: &'a Csa, top: u64) -> Self {
        let window = Replay::starting_at(8_192, top).unwrap();
        Self {
            csa,
            window,
            bits: vec![0; Replay::words(8_192)],
            resync: Resync::default(),
        }
    }

    fn open(&mut self, packet: &[u8]) -> Result<(packet::Relayed, Vec<u8>), Drop> {
        let mut scratch = [0; 256];
        let sa = self.csa.relay();
        let seen = packet::relay_open(
            &sa,
            &mut self.window,
            &mut self.bits,
            &mut self.resync,
            packet,
            &mut scratch,
        )?;
        Ok((seen, scratch[..seen.l1].to_vec()))
    }
}

fn segment() -> Vec<u8> {
    tcp(&[], b"the payload that matters")
}

fn datagram() -> Vec<u8> {
    ipv4(6, &[], 0, &segment())
}

/// The designated SA is zone 1's: headers are all a relay sees, and the sealed packet isn't touched.
#[test]
fn a_relay_reads_the_headers_alone() {
    let csa = Csa::tunnel();
    let packet = csa.seal(1, &datagram());
    let (seen, zone1) = csa.look(&packet).unwrap();
    let mut headers = datagram()[..40].to_vec();
    headers[36..38].fill(0);
    assert_eq!((seen.seq, seen.next, seen.moved), (1, 0, Some(36)));
    assert_eq!(zone1, headers);

    let transport = Csa::transport();
    let packet = transport.seal(1, &segment());
    let (seen, zone1) = transport.look(&packet).unwrap();
    assert_eq!((seen.next, seen.moved, zone1.len()), (6, Some(16), 20));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The FA's view, zone 1's plaintext, is the same for any two payloads of one length (docs/wire.md 1.4a, 1.8h).
    #[test]
    fn the_relays_view_does_not_depend_on_the_payload(
        (one, two) in (0usize..300).prop_flat_map(|n| {
            let bytes = move || prop::collection::vec(any::<u8>(), n);
            (bytes(), bytes())
        }),
        options in (0usize..=10).prop_map(|words| vec![1u8; words * 4]),
        stop in prop_oneof![Just(0xFFFEu16), Just(40), (1u16..60).prop_map(|n| 2 * n)],
        protocol in prop_oneof![Just(6u8), Just(17), Just(1)],
        transport in any::<bool>(),
    ) {
        let (mode, base) = if transport { (Mode::Transport, Csa::transport()) } else { (Mode::Tunnel, Csa::tunnel()) };
        let csa = Csa { map: ZoneMap::new(mode, &[stop, 0xFFFF]).unwrap(), ..base };
        let inside = |payload: &[u8]| {
            let segment = match protocol {
                6 => tcp(&options, payload),
                17 => udp(payload, true),
                // An ICMP checksum is payload: zone 2's.
                _ => [&[8, 0][..], &pseudo(1, payload).to_be_bytes(), payload].concat(),
            };
            if transport { segment } else { ipv4(protocol, &[], 0, &segment) }
        };
        let view = |payload: &[u8]| {
            let packet = csa.seal_as(1, if transport { protocol } else { 4 }, &inside(payload), 0).unwrap();
            (csa.look(&packet).unwrap(), packet.len())
        };
        // Zone 1's ciphertext is the same too: the key, the nonce and the plaintext are.
        prop_assert_eq!(view(&one), view(&two));
    }

    /// Whatever a holder of key 1 puts over a payload that isn't its own, the terminus drops (docs/wire.md 1.3d).
    #[test]
    fn any_other_zone_1_over_a_payload_is_dropped(
        changes in prop::collection::vec((0usize..40, 1u8..), 1..6),
        explicit in any::<bool>(),
    ) {
        let csa = if explicit { Csa::tunnel().explicit() } else { Csa::tunnel() };
        let packet = csa.seal(1, &datagram());
        let (_, mut zone1) = csa.look(&packet).unwrap();
        let before = zone1.clone();
        changes.iter().for_each(|&(at, bits)| zone1[at] ^= bits);
        prop_assume!(zone1 != before);
        let header = packet[..12].try_into().unwrap();
        let forged = csa.forge(&packet, header, 1, &zone1, 40);
        // Another inner header may move the boundary of the moved checksum: still the ICV decides first.
        prop_assert_eq!(csa.open(&forged).unwrap_err(), Drop::Icv2);
    }

    /// With permission, a rewritten zone 1 opens if and only if nothing but the masked fields changed
    /// (docs/wire.md 1.3c).
    #[test]
    fn with_permission_only_the_masked_fields_may_change(at in 0usize..40, bits in 1u8..) {
        let csa = Csa::writable();
        let mut packet = csa.seal(1, &datagram());
        let (_, mut zone1) = csa.look(&packet).unwrap();
        zone1[at] ^= bits;
        prop_assert!(packet::relay_write(&csa.relay(), esp::relay_iv(1, 1).unwrap(), &zone1, &mut packet));
        // ECN bits, IPv4 header checksum, TCP window, TCP checksum.
        let permitted = at == 1 && bits & !0x03 == 0 || matches!(at, 10 | 11 | 34..=37);
        match csa.open(&packet) {
            Ok((opened, out)) => {
                prop_assert!(permitted && opened.rewritten);
                let differ: Vec<_> = (0..out.len()).filter(|&i| out[i] != datagram()[i]).collect();
                // The one's-complement sum of the two checksums may carry into its other octet.
                prop_assert!(differ.iter().all(|&i| i == at || at >= 36 && (36..38).contains(&i)), "{:?}", differ);
            }
            Err(reason) => prop_assert!(!permitted && reason == Drop::Icv2, "{}: {:?}", at, reason),
        }
    }
}

/// Attacks by name: another destination, port, flag, sequence number, length or protocol over a payload
/// (docs/wire.md 1.3d).
#[test]
fn another_destination_port_flag_or_sequence_number_is_dropped() {
    for csa in [Csa::tunnel(), Csa::tunnel().explicit(), Csa::writable()] {
        let packet = csa.seal(1, &datagram());
        let (_, zone1) = csa.look(&packet).unwrap();
        let header = packet[..12].try_into().unwrap();
        for (what, at, to) in [
            ("destination", 16, 204),
            ("source", 12, 193),
            ("destination port", 23, 22),
            ("sequence number", 27, 0x45),
            ("acknowledgement", 31, 0x89),
            ("RST", 33, 0x04),
            ("total length", 3, 60),
            ("protocol", 9, 17),
            ("fragment offset", 7, 1),
        ] {
            let mut forged = zone1.clone();
            assert_ne!(forged[at], to);
            forged[at] = to;
            let quiet = csa.forge(&packet, header, 1, &forged, 40);
            assert_eq!(csa.open(&quiet).unwrap_err(), Drop::Icv2, "{what}");
            // Under W and the relay's own IV it is no better.
            let mut marked = packet.clone();
            if packet::relay_write(
                &csa.relay(),
                esp::relay_iv(1, 1).unwrap(),
                &forged,
                &mut marked,
            ) {
                let expected = if csa.may_write {
                    Drop::Icv2
                } else {
                    Drop::WriteUnpermitted
                };
                assert_eq!(csa.open(&marked).unwrap_err(), expected, "{what}");
            }
        }
        // The attack's tool itself is sound: the same zone 1 sealed again opens.
        assert!(csa.open(&csa.forge(&packet, header, 1, &zone1, 40)).is_ok());
    }
}

/// A zone 2 that is a trailer alone (a bare ACK's) doesn't serve for a forged RST, at its own number or a later one.
#[test]
fn a_bare_acks_zone_2_does_not_carry_a_forged_rst() {
    let csa = Csa::tunnel();
    let ack = ipv4(6, &[], 0, &tcp(&[], b""));
    let packet = csa.seal(1, &ack);
    let (_, mut zone1) = csa.look(&packet).unwrap();
    zone1[33] = 0x04;
    let mut header: [u8; 12] = packet[..12].try_into().unwrap();
    assert_eq!(
        csa.open(&csa.forge(&packet, header, 1, &zone1, 40))
            .unwrap_err(),
        Drop::Icv2
    );
    for seq in 2..20 {
        header[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
        let mut end = Terminus::starting_at(&csa, 0);
        end.open(&packet).unwrap();
        assert_eq!(
            end.open(&csa.forge(&packet, header, seq, &zone1, 40))
                .unwrap_err(),
            Drop::Icv2
        );
    }
}

/// Moving the boundary, or a flag, with key 1 doesn't get past key 2.
#[test]
fn a_moved_boundary_is_dropped() {
    let csa = Csa::tunnel();
    let packet = csa.seal(1, &datagram());
    let (_, zone1) = csa.look(&packet).unwrap();
    for l1 in 0..=60usize {
        if l1 == 40 {
            continue;
        }
        let mut header: [u8; 12] = packet[..12].try_into().unwrap();
        header[10..12].copy_from_slice(&(l1 as u16).to_be_bytes());
        let mut shifted = zone1.clone();
        shifted.resize(l1, 0);
        let reason = csa
            .open(&csa.forge(&packet, header, 1, &shifted, 40))
            .unwrap_err();
        assert!(
            [Drop::Icv2, Drop::Alignment].contains(&reason),
            "{l1}: {reason:?}"
        );
    }
}

/// Writing without permission is dropped, even if what was written is what was there (docs/wire.md 1.5j, 1.9i).
#[test]
fn writing_without_permission_is_dropped() {
    let csa = Csa::tunnel().explicit();
    let mut packet = csa.seal(1, &datagram());
    let (_, zone1) = csa.look(&packet).unwrap();
    assert!(packet::relay_write(
        &csa.relay(),
        esp::relay_iv(1, 1).unwrap(),
        &zone1,
        &mut packet
    ));
    assert_eq!(csa.open(&packet).unwrap_err(), Drop::WriteUnpermitted);
    // And quietly, with the origin's nonce, a permitted field of an unpermitted CSA.
    let packet = csa.seal(1, &datagram());
    let mut zone1 = zone1;
    zone1[34] ^= 1;
    let forged = csa.forge(&packet, packet[..12].try_into().unwrap(), 1, &zone1, 40);
    assert_eq!(csa.open(&forged).unwrap_err(), Drop::Icv2);
}

/// A relay that writes has an explicit IV, and marks it (docs/wire.md 1.5a).
#[test]
fn a_relay_cannot_write_under_an_implicit_or_unmarked_iv() {
    let implicit = Csa {
        may_write: true,
        ..Csa::tunnel()
    };
    let mut packet = implicit.seal(1, &datagram());
    let before = packet.clone();
    let (_, zone1) = implicit.look(&packet).unwrap();
    assert!(!packet::relay_write(
        &implicit.relay(),
        esp::relay_iv(1, 1).unwrap(),
        &zone1,
        &mut packet
    ));
    let csa = Csa::writable();
    let mut explicit = csa.seal(1, &datagram());
    assert!(!packet::relay_write(&csa.relay(), 1, &zone1, &mut explicit));
    assert!(!packet::relay_write(
        &csa.relay(),
        esp::relay_iv(1, 1).unwrap(),
        &zone1[..39],
        &mut explicit
    ));
    assert_eq!((packet, explicit), (before, csa.seal(1, &datagram())));
}

/// A permitted window change arrives, and the TCP checksum holds at the end (docs/wire.md 1.4b, 1.5b).
#[test]
fn a_rewritten_window_arrives_with_a_good_checksum() {
    let csa = Csa::writable();
    for (counter, window) in [0u16, 1, 500, 0x7FFF, 0xFFFE, 0xFFFF]
        .into_iter()
        .enumerate()
    {
        for payload in [&b"the payload that matters"[..], b"odd", b""] {
            let original = ipv4(6, &[], 0, &tcp(&[1; 8], payload));
            let mut packet = csa.seal(7, &original);
            let (_, mut zone1) = csa.look(&packet).unwrap();
            assert!(rewrite_window(&mut zone1, Mode::Tunnel, 0, window));
            let iv = esp::relay_iv(3, counter as u64).unwrap();
            assert!(packet::relay_write(&csa.relay(), iv, &zone1, &mut packet));
            assert_eq!(packet[8], 1);
            let (opened, out) = csa.open(&packet).unwrap();
            assert!(opened.rewritten);
            assert_eq!(out[34..36], window.to_be_bytes());
            assert_eq!(pseudo(6, &out[20..]), 0, "checksum of window {window}");
            let differ = (0..out.len()).filter(|&i| out[i] != original[i]);
            assert!(differ.into_iter().all(|i| (34..38).contains(&i)));
        }
    }
}

/// A permitted congestion mark arrives, with a good IPv4 header checksum (docs/wire.md 1.3c).
#[test]
fn a_congestion_mark_arrives() {
    let csa = Csa::writable();
    let mut packet = csa.seal(7, &datagram());
    let (_, mut zone1) = csa.look(&packet).unwrap();
    assert!(ip::set_ds(&mut zone1, 0x03));
    assert!(packet::relay_write(
        &csa.relay(),
        esp::relay_iv(3, 9).unwrap(),
        &zone1,
        &mut packet
    ));
    let (_, out) = csa.open(&packet).unwrap();
    assert_eq!(out[1], 3);
    assert_eq!(mml_core::checksum::sum(&out[..20]), 0xFFFF);
}

/// A relay doesn't rewrite a window whose checksum it doesn't have.
#[test]
fn a_window_without_its_checksum_is_left_alone() {
    let mut later = ipv4(6, &[], 0x0001, &segment());
    let mut cut = datagram()[..36].to_vec();
    let mut udp = ipv4(17, &[], 0, &udp(b"data", true));
    for zone1 in [&mut later, &mut cut, &mut udp] {
        let before = zone1.clone();
        assert!(!rewrite_window(zone1, Mode::Tunnel, 0, 5));
        assert_eq!(*zone1, before);
    }
}

/// A rewritten packet is still one packet: the origin's copy and the relay's can't both be accepted.
#[test]
fn a_rewritten_packet_and_its_original_are_one_number() {
    let csa = Csa::writable();
    let packet = csa.seal(7, &datagram());
    let mut written = packet.clone();
    let (_, zone1) = csa.look(&packet).unwrap();
    assert!(packet::relay_write(
        &csa.relay(),
        esp::relay_iv(3, 9).unwrap(),
        &zone1,
        &mut written
    ));
    for (first, second) in [(&packet, &written), (&written, &packet)] {
        let mut end = Terminus::starting_at(&csa, 0);
        assert!(end.open(first).is_ok());
        assert_eq!(end.open(second).unwrap_err(), Drop::Replay);
    }
}

/// A relay passes on, unopened, a packet that comes with `W` (docs/wire.md 1.5f, 1.9j).
#[test]
fn a_relay_leaves_a_rewritten_packet_unopened() {
    let csa = Csa::writable();
    let mut packet = csa.seal(7, &datagram());
    let (_, zone1) = csa.look(&packet).unwrap();
    assert!(packet::relay_write(
        &csa.relay(),
        esp::relay_iv(3, 9).unwrap(),
        &zone1,
        &mut packet
    ));
    assert_eq!(csa.look(&packet).unwrap_err(), Drop::Rewritten);
}

/// What fails ICV 1, the relay's window, L1 or the map isn't shown to SNOOP, and is told apart
/// (docs/wire.md 1.7e, 1.9v).
#[test]
fn what_a_relay_does_not_open() {
    let csa = Csa::tunnel();
    let packet = csa.seal(1, &datagram());
    let l1 = 12 + 40 + 16;
    for len in 0..l1 + 18 {
        assert_eq!(
            csa.look(&packet[..len]).unwrap_err(),
            Drop::Truncated,
            "{len}"
        );
    }
    for bit in 0..l1 * 8 {
        let mut bad = packet.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(csa.look(&bad).is_err(), "bit {bit}");
    }
    let mut end = Relay::joining_at(&csa, 0);
    assert!(end.open(&packet).is_ok());
    assert_eq!(end.open(&packet).unwrap_err(), Drop::Replay);
    let other = Csa {
        map: ZoneMap::new(Mode::Tunnel, &[24, 0xFFFF]).unwrap(),
        ..Csa::tunnel()
    };
    assert_eq!(
        csa.look(&other.seal(1, &datagram())).unwrap_err(),
        Drop::ZoneMap
    );
    assert_eq!(other.look(&packet).unwrap_err(), Drop::ZoneMap);
}

/// A relay that joins takes the number it was given as its top, nothing below it seen (docs/wire.md 1.7f).
#[test]
fn a_relay_that_joins_has_seen_nothing_below_its_top() {
    let csa = Csa::tunnel();
    let mut end = Relay::joining_at(&csa, 9_000);
    for seq in [9_000, 8_999, 1_000, 9_001] {
        assert_eq!(end.open(&csa.seal(seq, &datagram())).unwrap().0.seq, seq);
        assert_eq!(
            end.open(&csa.seal(seq, &datagram())).unwrap_err(),
            Drop::Replay
        );
    }
}

/// After 8 ICV 1 failures in a row a relay tries the next high half (RFC 4303 §A3), with implicit and explicit IVs
/// (docs/wire.md 1.7g).
#[test]
fn a_relay_finds_the_next_high_half_after_8_failures() {
    for csa in [Csa::tunnel(), Csa::tunnel().explicit()] {
        let mut end = Relay::joining_at(&csa, 500);
        let ahead = (1 << 32) + 1_000;
        for seq in ahead..ahead + 7 {
            assert!(end.open(&csa.seal(seq, &datagram())).is_err());
        }
        assert_eq!(
            end.open(&csa.seal(ahead + 7, &datagram())).unwrap().0.seq,
            ahead + 7
        );
        assert_eq!(
            end.open(&csa.seal(ahead + 8, &datagram())).unwrap().0.seq,
            ahead + 8
        );
        // A forgery meanwhile, however often, moves nothing.
        let mut forged = csa.seal(ahead + 9, &datagram());
        forged[40] ^= 1;
        for _ in 0..50 {
            assert_eq!(end.open(&forged).unwrap_err(), Drop::Icv1);
        }
        assert_eq!(
            end.open(&csa.seal(ahead + 9, &datagram())).unwrap().0.seq,
            ahead + 9
        );
    }
}

/// The relay's key isn't zone 2's: nothing of zone 2 opens under it (docs/wire.md 1.2b).
#[test]
fn key_1_does_not_open_zone_2() {
    let csa = Csa::tunnel();
    let packet = csa.seal(1, &datagram());
    let nosy = Csa {
        keys: [
            Ring::new("aes256-gcm16", &[1; 32]),
            Ring::new("aes256-gcm16", &[1; 32]),
        ],
        ..Csa::tunnel()
    };
    assert_eq!(nosy.open(&packet).unwrap_err(), Drop::Icv2);
}

/// A relay's map check has zone 1 alone, and agrees with the terminus' for every datagram an origin seals
/// (docs/wire.md 1.7h).
#[test]
fn a_relay_admits_what_an_origin_seals() {
    let datagrams = [
        datagram(),
        ipv4(6, &[1; 8], 0, &tcp(&[1; 40], b"x")),
        ipv4(6, &[], 0, &segment()[..13]),
        ipv4(
            6,
            &[],
            0,
            &[&segment()[..12], &[0x40, 0x10, 0, 0, 0, 0, 0, 0]].concat(),
        ),
        ipv4(17, &[], 0, &udp(b"data", false)),
        ipv4(17, &[], 0, &udp(b"", false)[..5]),
        ipv4(1, &[], 0x2000, b"ping"),
        ipv4(6, &[], 0x00FF, &segment()),
        common::ipv6(0, &[&[6, 0, 1, 4, 0, 0, 0, 0], &segment()[..]].concat()),
        common::ipv6(44, &[&[6, 0, 0, 1, 0, 0, 0, 9], &segment()[..]].concat()),
        common::ipv6(60, &[&[6, 255, 1, 4, 0, 0, 0, 0], &segment()[..]].concat()),
        common::ipv6(60, &[6, 1, 1, 4, 0, 0, 0, 0]),
        common::ipv6(60, &[6]),
    ];
    for stop in (2..=120u16).step_by(2).chain([0xFFFE]) {
        for (i, datagram) in datagrams.iter().enumerate() {
            for kind in [IvKind::Implicit, IvKind::Explicit] {
                let map = ZoneMap::new(Mode::Tunnel, &[stop, 0xFFFF]).unwrap();
                let csa = Csa {
                    map,
                    ivs: [kind, kind],
                    ..Csa::tunnel()
                };
                let packet = csa.seal(1, datagram);
                let header = Header::parse(&packet).unwrap();
                let seen = csa
                    .look(&packet)
                    .unwrap_or_else(|reason| panic!("{stop}, {i}, {header:?}: {reason:?}"))
                    .0;
                let head = &datagram[..datagram.len().min(256)];
                assert_eq!(
                    seen.moved,
                    csa.map.split(0, head, datagram.len()).moved,
                    "{stop}, {i}"
                );
            }
        }
    }
}

/// Another host's traffic is another CSA's: source and destination inside stay what the selector says.
#[test]
fn a_relay_key_does_not_redirect_into_another_selector() {
    let csa = Csa {
        selector: Some(common::hosts(0, SRC, DST)),
        ..Csa::tunnel()
    };
    let packet = csa.seal(1, &datagram());
    assert!(csa.open(&packet).is_ok());
    let inner = ip::addresses(&csa.look(&packet).unwrap().1).unwrap();
    assert_eq!((inner.src, inner.dst), (v4(SRC), v4(DST)));
}
