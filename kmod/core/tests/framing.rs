// SPDX-License-Identifier: GPL-2.0-only
//! How a packet is put together: `docs/wire.md` §1, from the header to the trailer.

mod common;

use common::{ipv4, ipv6, tcp, udp, Csa, Ring, Terminus, SPI};
use mml_core::esp::{self, Drop, Header, IvKind, Layout};
use mml_core::packet::{Aead, SealError};
use mml_core::zone::{Mode, Split, ZoneMap};
use proptest::prelude::*;

/// Opens a zone with nothing but the cipher: not through the code under test.
fn plain(key: &Ring, salt: u8, iv: u64, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce = [&[salt; 4][..], &iv.to_be_bytes()].concat();
    let (data, tag) = sealed.split_at(sealed.len() - 16);
    let mut data = data.to_vec();
    key.open(
        &nonce.try_into().unwrap(),
        aad,
        &mut data,
        tag.try_into().unwrap(),
    )
    .then_some(data)
}

/// §1, diagram: SPI, low half of the sequence number, flags, protocol, L1, big-endian (docs/wire.md 1a, 1.1b).
#[test]
fn the_header_is_twelve_octets_big_endian() {
    let packet = Csa::tunnel().seal(0x0A0B_0C0D, &ipv4(6, &[], 0, &tcp(&[], b"payload")));
    assert_eq!(
        packet[..12],
        [0x12, 0x34, 0x56, 0x78, 0x0A, 0x0B, 0x0C, 0x0D, 0, 0, 0, 40]
    );
    let header = Header::parse(&packet).unwrap();
    assert_eq!(
        (header.spi, header.seq_lo, header.l1),
        (SPI, 0x0A0B_0C0D, 40)
    );
    let mut again = [0; 12];
    header.write(&mut again);
    assert_eq!(again, packet[..12]);
}

/// §1, protocol: transport mode shows the next header, tunnel mode 0 (docs/wire.md 1.1d).
#[test]
fn only_transport_mode_shows_the_protocol() {
    assert_eq!(
        Csa::tunnel().seal(1, &ipv4(6, &[], 0, &tcp(&[], b"")))[9],
        0
    );
    assert_eq!(
        Csa::transport().seal_as(1, 6, &tcp(&[], b""), 0).unwrap()[9],
        6
    );
    assert_eq!(
        Csa::transport().seal_as(1, 17, &udp(b"", true), 0).unwrap()[9],
        17
    );
}

/// §1, overhead: 68–71 octets over IPv4 with implicit IVs, for every length (docs/wire.md 1.6e).
#[test]
fn overhead_in_tunnel_mode_is_68_to_71_octets() {
    for payload in 0..64 {
        let datagram = ipv4(6, &[], 0, &tcp(&[], &vec![7; payload]));
        let overhead = 20 + Csa::tunnel().seal(1, &datagram).len() - datagram.len();
        assert!((68..=71).contains(&overhead), "{payload}: {overhead}");
    }
}

/// §1, overhead: the trailer pads so that zone 1 and zone 2 ciphertext together are a multiple of 4
/// (docs/wire.md 1.6b).
#[test]
fn both_ciphertexts_together_are_a_multiple_of_4() {
    for l1 in 0..64 {
        for rest in 0..64 {
            for moved in [None, Some(16)] {
                let split = Split { l1, moved };
                let (at, pad) =
                    Layout::seal([IvKind::Implicit, IvKind::Explicit], &split, l1 + rest);
                assert_eq!((at.zone1_len() + at.zone2_len()) % 4, 0);
                assert_eq!(
                    at.zone2_len(),
                    rest + usize::from(pad) + 2 + moved.map_or(0, |_| 2)
                );
                assert!(pad < 4);
            }
        }
    }
}

/// §1, nonce: an implicit IV is the 64-bit sequence number, an explicit one is sent and is the same number
/// (docs/wire.md 1.2c, 1.2d).
#[test]
fn the_iv_is_the_sequence_number_whether_sent_or_not() {
    let seq = 0x0000_0005_0000_0009;
    let datagram = ipv4(17, &[], 0, &udp(b"odd", true));
    let implicit = Csa::tunnel().seal(seq, &datagram);
    let explicit = Csa::tunnel().explicit().seal(seq, &datagram);
    assert_eq!(explicit.len(), implicit.len() + 16);
    assert_eq!(explicit[12..20], seq.to_be_bytes());
    assert_eq!(explicit[20 + 28 + 16..][..8], seq.to_be_bytes());
    assert_eq!(explicit[20..20 + 28 + 16], implicit[12..12 + 28 + 16]);
}

/// §1, AAD and order: ICV 1 covers the 12 octets on the wire, ICV 2 them and zone 1's plaintext as sealed
/// (docs/wire.md 1.2a, 1.3a, 1.3b, 1.3e, 1.6a).
#[test]
fn the_icvs_cover_the_header_and_zone_1_as_sealed() {
    let csa = Csa::tunnel();
    let datagram = ipv4(6, &[], 0, &tcp(&[], b"payload"));
    let packet = csa.seal(9, &datagram);
    let zone1 = plain(&csa.keys[0], 0x11, 9, &packet[..12], &packet[12..12 + 56]).expect("ICV 1");
    let aad2 = [&packet[..12], &zone1].concat();
    let zone2 = plain(&csa.keys[1], 0x22, 9, &aad2, &packet[12 + 56..]).expect("ICV 2");
    assert_eq!(zone1[..36], datagram[..36]);
    assert_eq!(
        zone1[36..40],
        [0, 0, 0, 0],
        "moved checksum, urgent pointer"
    );
    // Moved checksum, the rest, padding 1, its length, next header: 40 + 2 + 7 + 1 + 2 = 52 octets together.
    assert_eq!(zone2[..2], datagram[36..38]);
    assert_eq!(zone2[2..9], *b"payload");
    assert_eq!(zone2[9..], [1, 1, 4]);
}

/// §1, AAD 2: under write permission the fields a relay may change count as zero, and nothing else does
/// (docs/wire.md 1.3b, 1.3c).
#[test]
fn aad_2_under_write_permission_masks_the_permitted_fields_alone() {
    let mut datagram = ipv4(6, &[], 0, &tcp(&[1; 4], b""));
    datagram
        .iter_mut()
        .skip(1)
        .step_by(2)
        .for_each(|octet| *octet |= 0x03);
    datagram[6..10].copy_from_slice(&[0, 0, 64, 6]);
    let zone1 = &datagram[..44];
    let mut out = [0; 268];
    let header = [1, 1, 1, 1, 2, 2, 2, 2, 1, 0, 0, 44];
    let len = esp::aad2(&mut out, &header, zone1, Mode::Tunnel, 0, true);
    let mut expected = zone1.to_vec();
    expected[1] &= !0x03;
    expected[10..12].fill(0);
    expected[34..38].fill(0);
    assert_eq!(
        out[..len],
        [&[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 44], &expected[..]].concat()
    );

    let len = esp::aad2(&mut out, &header, zone1, Mode::Tunnel, 0, false);
    assert_eq!(out[12..len], *zone1, "nothing is masked without permission");
    assert_eq!(out[8], 0, "W is cleared");

    let mut v6 = ipv6(6, &tcp(&[], b""));
    v6[0] |= 0x0F;
    v6[1] = 0xFF;
    let len = esp::aad2(&mut out, &header, &v6, Mode::Tunnel, 0, true);
    let mut expected = v6.clone();
    expected[1] = 0xCF;
    expected[54..58].fill(0);
    assert_eq!(out[12..len], expected);

    let segment = tcp(&[], b"");
    let len = esp::aad2(&mut out, &header, &segment, Mode::Transport, 6, true);
    let mut expected = segment.clone();
    expected[14..18].fill(0);
    assert_eq!(
        out[12..len],
        expected,
        "transport mode has no IP header in zone 1"
    );
}

/// §1, AAD 2: a map that cuts the header short masks the fields that zone 1 has (docs/wire.md 1.3c).
#[test]
fn fields_are_masked_as_far_as_zone_1_goes() {
    let datagram = ipv4(6, &[], 0, &tcp(&[], b"abc"));
    for stop in (2..=40u16).step_by(2) {
        let csa = Csa {
            map: ZoneMap::new(Mode::Tunnel, &[stop, 0xFFFF]).unwrap(),
            ..Csa::writable()
        };
        let packet = csa.seal(1, &datagram);
        assert_eq!(packet[11], stop as u8);
        assert_eq!(csa.open(&packet).unwrap().1, datagram, "stop {stop}");
    }
}

/// §1, nonce: sequence numbers start at 1 and stay below 2^63 (docs/wire.md 1.1b).
#[test]
fn sequence_numbers_start_at_1_and_stay_below_2_to_the_63() {
    let csa = Csa::tunnel();
    let datagram = ipv4(1, &[], 0, b"ping");
    assert_eq!(
        csa.seal_as(0, 4, &datagram, 0),
        Err(SealError::SequenceNumber)
    );
    assert_eq!(
        csa.seal_as(1 << 63, 4, &datagram, 0),
        Err(SealError::SequenceNumber)
    );
    let last = (1 << 63) - 1;
    let packet = csa.seal(last, &datagram);
    assert_eq!(csa.open_at(last - 1, &packet).unwrap().1, datagram);
    assert_eq!(
        csa.open_at(last, &csa.seal(last, &datagram)).unwrap().0.seq,
        last
    );
    assert!(csa.seal_as(1, 4, &datagram, 0).is_ok());
}

/// §1, writing relay: IV = 1 (1 bit) ‖ relay number (15) ‖ counter (48) (docs/wire.md 1.5b).
#[test]
fn a_relays_iv_is_marked_numbered_and_bounded() {
    assert_eq!(esp::relay_iv(0x1234, 0x5678), Some(0x9234_0000_0000_5678));
    assert_eq!(esp::relay_iv(0x7FFF, (1 << 48) - 1), Some(u64::MAX));
    assert_eq!(esp::relay_iv(0x8000, 0), None);
    assert_eq!(esp::relay_iv(0, 1 << 48), None);
}

/// §1, moved checksum: for every protocol it comes out as it went in, also "none" (0) and 0xFFFF
/// (docs/wire.md 1.4a, 1.4c).
#[test]
fn the_moved_checksum_comes_back_as_it_was() {
    let csa = Csa::tunnel();
    for check in [0u16, 1, 0x1234, 0xFFFE, 0xFFFF] {
        for (protocol, mut segment, field) in
            [(6, tcp(&[], b"data"), 16), (17, udp(b"data", true), 6)]
        {
            segment[field..field + 2].copy_from_slice(&check.to_be_bytes());
            let datagram = ipv4(protocol, &[], 0, &segment);
            let packet = csa.seal(1, &datagram);
            let (seen, zone1) = csa.look(&packet).unwrap();
            assert_eq!(seen.moved, Some(20 + field));
            assert_eq!(zone1[20 + field..22 + field], [0, 0]);
            assert_eq!(csa.open(&packet).unwrap().1, datagram);
        }
    }
}

/// §1, moved checksum: no other protocol's is moved, nor one that zone 1 doesn't hold whole, nor a later fragment's
/// (docs/wire.md 1.4a, 1.4d).
#[test]
fn no_other_checksum_moves() {
    let csa = Csa::tunnel();
    let segment = tcp(&[], b"data");
    for datagram in [
        ipv4(1, &[], 0, &[8, 0, 0xF7, 0xFF, 0, 0, 0, 0]),
        ipv4(6, &[], 0x2001, &segment),
        ipv4(6, &[], 0x0001, &segment),
        ipv4(6, &[], 0, &segment[..19]),
        ipv4(17, &[], 0, &udp(b"", true)[..7]),
        ipv4(136, &[], 0, &udp(b"udp-lite", true)),
        ipv4(33, &[], 0, &[9; 40]),
    ] {
        let packet = csa.seal(1, &datagram);
        let (seen, zone1) = csa.look(&packet).unwrap();
        assert_eq!((seen.moved, seen.l1), (None, 20));
        assert_eq!(zone1, datagram[..20]);
        assert_eq!(csa.open(&packet).unwrap().1, datagram);
    }
    // The first fragment has the field, and it covers what isn't there: it moves all the same.
    let first = ipv4(6, &[], 0x2000, &segment);
    assert_eq!(csa.look(&csa.seal(1, &first)).unwrap().0.moved, Some(36));
    let half = Csa {
        map: ZoneMap::new(Mode::Tunnel, &[36, 0xFFFF]).unwrap(),
        ..Csa::tunnel()
    };
    let datagram = ipv4(6, &[], 0, &segment);
    let packet = half.seal(1, &datagram);
    assert_eq!(half.look(&packet).unwrap().0.moved, None);
    assert_eq!(half.open(&packet).unwrap().1, datagram);
}

/// §1, terminus order: TFC padding behind the inner length is trimmed (docs/wire.md 1.7b).
#[test]
fn tfc_padding_is_trimmed() {
    let csa = Csa::tunnel();
    for datagram in [
        ipv4(6, &[], 0, &tcp(&[], b"data")),
        ipv4(6, &[], 0, &tcp(&[], b"")[..10]),
        ipv6(17, &udp(b"x", true)),
    ] {
        let next = if datagram[0] >> 4 == 4 { 4 } else { 41 };
        for tfc in [1, 2, 3, 100, 400] {
            let packet = csa.seal_as(1, next, &datagram, tfc).unwrap();
            assert_eq!(csa.open(&packet).unwrap().1, datagram, "{tfc}");
        }
    }
}

/// §1, lookup: SPIs 0–255 are reserved (docs/wire.md 1.1a).
#[test]
fn reserved_spis_are_refused() {
    let packet = Csa::tunnel().seal(1, &ipv4(1, &[], 0, b"ping"));
    for spi in 0..256u32 {
        let mut bad = packet.clone();
        bad[..4].copy_from_slice(&spi.to_be_bytes());
        assert_eq!(Header::parse(&bad), Err(Drop::Spi));
    }
    assert_eq!(esp::spi(&packet), Some(SPI));
    assert_eq!(esp::spi(&packet[..3]), None);
}

fn kinds() -> impl Strategy<Value = [IvKind; 2]> {
    let kind = || prop_oneof![Just(IvKind::Implicit), Just(IvKind::Explicit)];
    [kind(), kind()]
}

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..200);
    let options = || (0usize..=10).prop_map(|words| vec![1u8; words * 4]);
    prop_oneof![
        (options(), options(), payload()).prop_map(|(o, t, p)| ipv4(6, &o, 0, &tcp(&t, &p))),
        (options(), payload(), any::<bool>()).prop_map(|(o, p, c)| ipv4(17, &o, 0, &udp(&p, c))),
        (any::<u8>(), options(), any::<u16>(), payload())
            .prop_map(|(n, o, f, p)| ipv4(n, &o, f, &p)),
        (any::<u8>(), payload()).prop_map(|(n, p)| ipv6(n, &p)),
        payload().prop_map(|p| ipv6(6, &tcp(&[], &p))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is sealed opens as it was: any datagram, map, IV kinds, permission and place in the 64-bit space.
    #[test]
    fn what_is_sealed_opens_as_it_was(
        datagram in datagrams(),
        ivs in kinds(),
        stop in prop_oneof![Just(0xFFFEu16), Just(40), (1u16..150).prop_map(|n| 2 * n)],
        may_write in any::<bool>(),
        seq in prop_oneof![1u64..200, (1u64 << 32) - 70..(1 << 32) + 70, 1u64..1 << 63],
        behind in 0u64..63,
        tfc in prop_oneof![Just(0usize), 0usize..40],
    ) {
        let csa = Csa { ivs, may_write, map: ZoneMap::new(Mode::Tunnel, &[stop, 0xFFFF]).unwrap(), ..Csa::tunnel() };
        let next = if datagram[0] >> 4 == 4 { 4 } else { 41 };
        let packet = csa.seal_as(seq, next, &datagram, tfc).unwrap();
        // The window stands somewhere near: the number is a little above or below its top.
        let top = (seq + behind).min((1 << 63) - 1);
        for top in [top, seq.saturating_sub(behind + 1)] {
            let result = csa.open_at(top, &packet);
            let total = mml_core::ip::addresses(&datagram).unwrap();
            if total.total_len < total.header_len {
                prop_assert_eq!(result.unwrap_err(), Drop::InnerLength);
            } else {
                let (opened, out) = result.unwrap();
                prop_assert_eq!(opened.seq, seq);
                prop_assert_eq!(opened.next, next);
                prop_assert_eq!(&out, &datagram);
            }
        }
    }

    /// Transport mode likewise, for any protocol, L1 = 0 included.
    #[test]
    fn transport_mode_opens_as_it_was(
        next in prop_oneof![Just(6u8), Just(17), 0u8..59, 60u8..],
        segment in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..120),
            prop::collection::vec(any::<u8>(), 0..120).prop_map(|p| tcp(&[1; 12], &p)),
            prop::collection::vec(any::<u8>(), 0..120).prop_map(|p| udp(&p, true)),
        ],
        ivs in kinds(),
    ) {
        let csa = Csa { ivs, ..Csa::transport() };
        let packet = csa.seal_as(77, next, &segment, 0).unwrap();
        if next != 6 && next != 17 {
            prop_assert_eq!(&packet[8..12], &[0, next, 0, 0]);
        }
        let (opened, out) = Terminus::starting_at(&csa, 76).open(&packet).unwrap();
        prop_assert_eq!(opened.next, next);
        prop_assert_eq!(out, segment);
    }
}
