// SPDX-License-Identifier: GPL-2.0-only
//! Where zone 1 ends: `docs/wire.md` §1, zone map.

mod common;

use common::{ipv4, ipv6, tcp, udp};
use mml_core::zone::{self, MapError, Mode, Split, ZoneMap, END, HEAD_MAX, TRANSPORT_END};
use proptest::prelude::*;

fn split(map: &ZoneMap, next: u8, datagram: &[u8]) -> Split {
    map.split(
        next,
        &datagram[..datagram.len().min(HEAD_MAX)],
        datagram.len(),
    )
}

fn l1(datagram: &[u8]) -> usize {
    split(&ZoneMap::default_for(Mode::Tunnel), 0, datagram).l1
}

/// An IPv6 extension header of `octets`, a multiple of 8, that `next` follows.
fn extension(next: u8, octets: usize) -> Vec<u8> {
    let mut header = vec![next, (octets / 8 - 1) as u8];
    header.resize(octets, 0);
    header
}

/// `count` destination options headers of `octets` each, then a TCP segment.
fn chain(count: usize, octets: usize, segment: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for i in 0..count {
        payload.extend(extension(if i + 1 == count { 6 } else { 60 }, octets));
    }
    payload.extend(segment);
    ipv6(if count == 0 { 6 } else { 60 }, &payload)
}

/// docs/wire.md 1b.
#[test]
fn the_modes_have_linux_numbers() {
    assert_eq!((Mode::Transport as u8, Mode::Tunnel as u8), (1, 2));
    assert_eq!(Mode::from_number(1), Some(Mode::Transport));
    assert_eq!(Mode::from_number(2), Some(Mode::Tunnel));
    assert_eq!(Mode::from_number(0), None);
}

/// docs/wire.md 1.8a, 1.8b, 1.8c, 1.8d.
#[test]
fn a_map_is_contiguous_and_ends_at_the_end() {
    let new = |stops: &[u16]| ZoneMap::new(Mode::Tunnel, stops);
    assert_eq!(
        new(&[TRANSPORT_END, END]).unwrap(),
        ZoneMap::default_for(Mode::Tunnel)
    );
    assert_eq!(new(&[40, END]).unwrap().stops(), [40, END]);
    assert_eq!(new(&[]), Err(MapError::Zones));
    assert_eq!(new(&[END]), Err(MapError::Zones));
    assert_eq!(new(&[20, 40, END]), Err(MapError::Zones));
    assert_eq!(new(&[40, 80]), Err(MapError::End));
    assert_eq!(new(&[40, TRANSPORT_END]), Err(MapError::End));
    assert_eq!(new(&[0, END]), Err(MapError::Order));
    assert_eq!(new(&[END, END]), Err(MapError::Order));
    assert_eq!(new(&[41, END]), Err(MapError::Odd));
}

/// TCP: the IP header with its options, plus 4 × data offset (docs/wire.md 1.8f, 1.8g).
#[test]
fn transport_end_of_tcp_counts_options_of_both_headers() {
    for ip_words in 0..=10 {
        for tcp_words in 0..=10 {
            let segment = tcp(&vec![1; tcp_words * 4], b"payload");
            let datagram = ipv4(6, &vec![1; ip_words * 4], 0, &segment);
            let expected = 40 + 4 * (ip_words + tcp_words);
            assert_eq!(l1(&datagram), expected);
            let moved = split(&ZoneMap::default_for(Mode::Tunnel), 0, &datagram).moved;
            assert_eq!(moved, Some(36 + 4 * ip_words));
        }
    }
}

/// TCP whose header isn't all there, or says it is shorter than 20 octets, adds nothing (docs/wire.md 1.8g).
#[test]
fn a_tcp_header_that_is_not_whole_adds_nothing() {
    let mut segment = tcp(&[1; 12], b"");
    for len in 0..32 {
        assert_eq!(l1(&ipv4(6, &[], 0, &segment[..len])), 20, "{len}");
    }
    assert_eq!(l1(&ipv4(6, &[], 0, &segment)), 52);
    for offset in 0..5 {
        segment[12] = offset << 4;
        assert_eq!(l1(&ipv4(6, &[], 0, &segment)), 20, "data offset {offset}");
    }
}

/// UDP: plus 8 if there (docs/wire.md 1.8g).
#[test]
fn transport_end_of_udp_is_8_octets_on() {
    let segment = udp(b"payload", true);
    assert_eq!(l1(&ipv4(17, &[], 0, &segment)), 28);
    assert_eq!(l1(&ipv4(17, &[1; 40], 0, &segment)), 68);
    for len in 0..8 {
        assert_eq!(l1(&ipv4(17, &[], 0, &segment[..len])), 20);
    }
}

/// Only a fragment offset of 0 has a transport header; more fragments to come doesn't matter (docs/wire.md 1.8f, 1.8g).
#[test]
fn later_fragments_end_with_the_ip_header() {
    let segment = tcp(&[], b"payload");
    assert_eq!(l1(&ipv4(6, &[], 0x2000, &segment)), 40);
    assert_eq!(l1(&ipv4(6, &[], 0x4000, &segment)), 40);
    for offset in [1, 0x1FFF, 0x2001, 0x3FFF] {
        assert_eq!(l1(&ipv4(6, &[], offset, &segment)), 20);
        assert_eq!(l1(&ipv4(17, &[], offset, &segment)), 20);
    }
    let fragment = |offset: u16| {
        let mut header = vec![6, 0];
        header.extend(offset.to_be_bytes());
        header.extend([0, 0, 0, 1]);
        ipv6(44, &[&header, &segment[..]].concat())
    };
    assert_eq!(l1(&fragment(0)), 68);
    assert_eq!(l1(&fragment(1)), 68);
    assert_eq!(l1(&fragment(8)), 48);
    assert_eq!(l1(&fragment(9)), 48);
}

/// What follows a later IPv6 fragment's header is payload, however much it looks like another header
/// (docs/wire.md 1.8f).
#[test]
fn nothing_behind_a_later_fragments_header_is_read() {
    let payload = [
        &[60, 0, 0, 8, 0, 0, 0, 1],
        &extension(6, 16)[..],
        &tcp(&[], b"x"),
    ]
    .concat();
    assert_eq!(l1(&ipv6(44, &payload)), 48);
}

/// Any other protocol adds nothing (docs/wire.md 1.8g).
#[test]
fn other_protocols_add_nothing() {
    for protocol in (0..=255u8).filter(|p| ![6, 17].contains(p)) {
        assert_eq!(l1(&ipv4(protocol, &[], 0, &[0x55; 60])), 20);
        assert_eq!(
            split(
                &ZoneMap::default_for(Mode::Transport),
                protocol,
                &[0x55; 60]
            )
            .l1,
            0
        );
        if ![0, 43, 44, 60].contains(&protocol) {
            assert_eq!(l1(&ipv6(protocol, &[0x55; 60])), 40);
        }
    }
}

/// Hop-by-hop, routing, destination and fragment headers belong to the IP header (docs/wire.md 1.8f).
#[test]
fn ipv6_extension_headers_are_followed() {
    let segment = tcp(&[], b"payload");
    assert_eq!(l1(&ipv6(6, &segment)), 60);
    assert_eq!(l1(&ipv6(17, &udp(b"payload", true))), 48);
    let all = [
        extension(43, 8),
        extension(60, 24),
        extension(44, 16),
        extension(6, 8),
        segment,
    ]
    .concat();
    let datagram = ipv6(0, &all);
    assert_eq!(l1(&datagram), 40 + 56 + 20);
    assert_eq!(
        split(&ZoneMap::default_for(Mode::Tunnel), 0, &datagram).moved,
        Some(40 + 56 + 16)
    );
    // Authentication and ESP headers aren't.
    assert_eq!(l1(&ipv6(51, &extension(6, 8))), 40);
    assert_eq!(l1(&ipv6(50, &extension(6, 8))), 40);
}

/// At most 8 extension headers and 192 octets of headers in all, else the first IP header alone
/// (docs/wire.md 1.8f, 1.8k).
#[test]
fn a_chain_too_long_leaves_the_first_header_alone() {
    let segment = tcp(&[1; 40], b"payload");
    assert_eq!(l1(&chain(8, 8, &segment)), 40 + 64 + 60);
    assert_eq!(l1(&chain(9, 8, &segment)), 40);
    assert_eq!(
        l1(&chain(1, 152, &segment)),
        192 + 60,
        "the longest zone 1 there is"
    );
    assert_eq!(l1(&chain(1, 160, &segment)), 40);
    assert_eq!(l1(&chain(2, 80, &segment)), 40);
    assert_eq!(l1(&chain(1, 2048, &segment)), 40);
    assert_eq!(l1(&chain(19, 8, &segment)), 40);
}

/// A datagram shorter than its headers lies wholly in zone 1 (docs/wire.md 1.8i).
#[test]
fn a_datagram_shorter_than_its_headers_is_all_zone_1() {
    let v4 = ipv4(6, &[1; 8], 0, &tcp(&[], b"payload"));
    for len in 1..28 {
        let mut short = v4[..len].to_vec();
        if len >= 4 {
            short[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        }
        assert_eq!(l1(&short), len, "{len}");
    }
    for len in 0..24 {
        let datagram = ipv6(60, &extension(60, 24)[..len]);
        assert_eq!(l1(&datagram), 40 + len, "{len}");
    }
    assert_eq!(l1(&[]), 0);
}

/// An octet stop never reaches past TRANSPORT_END (docs/wire.md 1.8h).
#[test]
fn an_octet_stop_never_reaches_payload() {
    let datagram = ipv4(17, &[], 0, &udp(&[7; 100], true));
    for stop in (2..400u16).step_by(2) {
        let map = ZoneMap::new(Mode::Tunnel, &[stop, END]).unwrap();
        assert_eq!(split(&map, 0, &datagram).l1, usize::from(stop).min(28));
    }
    let paper = ZoneMap::new(Mode::Tunnel, &[40, END]).unwrap();
    assert_eq!(
        split(&paper, 0, &ipv4(6, &[], 0, &tcp(&[1; 12], b"x"))),
        Split {
            l1: 40,
            moved: Some(36)
        }
    );
    assert_eq!(
        split(&paper, 0, &ipv4(6, &[1; 4], 0, &tcp(&[], b"x"))),
        Split {
            l1: 40,
            moved: None
        }
    );
    assert_eq!(
        split(&paper, 0, &ipv4(1, &[], 0, b"ping")),
        Split {
            l1: 20,
            moved: None
        }
    );
}

/// Transport mode counts from the transport header; L1 = 0 is legal there (docs/wire.md 1.8c, 1.8k).
#[test]
fn transport_mode_counts_from_the_transport_header() {
    let map = ZoneMap::default_for(Mode::Transport);
    assert_eq!(
        split(&map, 6, &tcp(&[1; 12], b"x")),
        Split {
            l1: 32,
            moved: Some(16)
        }
    );
    assert_eq!(
        split(&map, 17, &udp(b"x", true)),
        Split {
            l1: 8,
            moved: Some(6)
        }
    );
    assert_eq!(
        split(&map, 6, &tcp(&[], b"x")[..19]),
        Split { l1: 0, moved: None }
    );
    assert_eq!(split(&map, 1, b"ping"), Split { l1: 0, moved: None });
    assert_eq!(split(&map, 6, b""), Split { l1: 0, moved: None });
}

/// Octets behind the inner length (TFC padding) change nothing (docs/wire.md 1.8i).
#[test]
fn tfc_padding_does_not_complete_a_header() {
    let mut datagram = ipv4(6, &[], 0, &tcp(&[], b"")[..19]);
    assert_eq!(l1(&datagram), 20);
    datagram.resize(200, 0x50);
    assert_eq!(l1(&datagram), 20);
    let mut six = ipv6(60, &extension(6, 16)[..9]);
    six.resize(200, 0);
    assert_eq!(l1(&six), 49);
}

/// Where zone 1 ends, said again from the text: slower, over the whole datagram, and with no care for partial views.
fn naive(stop: u16, d: &[u8]) -> (usize, Option<usize>) {
    let Some(first) = d.first() else {
        return (0, None);
    };
    let (total, mut end, protocol, offset_0) = match first >> 4 {
        4 if first & 15 >= 5 => {
            let header = usize::from(first & 15) * 4;
            let total = if d.len() < 4 {
                d.len()
            } else {
                usize::from(d[2]) << 8 | usize::from(d[3])
            };
            if total.min(d.len()) < header {
                return (header.min(total).min(d.len()).min(stop.into()), None);
            }
            (total, header, d[9], d[6] & 0x1F == 0 && d[7] == 0)
        }
        6 => {
            let total = if d.len() < 6 {
                d.len()
            } else {
                (usize::from(d[4]) << 8 | usize::from(d[5])) + 40
            };
            let len = total.min(d.len());
            if len < 40 {
                return (len.min(stop.into()), None);
            }
            let (mut at, mut next, mut count, mut offset_0) = (40, d[6], 0, true);
            while offset_0 && [0, 43, 44, 60].contains(&next) {
                count += 1;
                if count > 8 || at + 8 > 192 {
                    return (40.min(stop.into()), None);
                }
                if at + 8 > len {
                    return (len.min(stop.into()), None);
                }
                let octets = if next == 44 {
                    8
                } else {
                    (usize::from(d[at + 1]) + 1) * 8
                };
                if at + octets > 192 {
                    return (40.min(stop.into()), None);
                }
                if next == 44 {
                    offset_0 = d[at + 2] == 0 && d[at + 3] & 0xF8 == 0;
                }
                next = d[at];
                at += octets;
            }
            (total, at, next, offset_0)
        }
        _ => return (0, None),
    };
    let len = total.min(d.len());
    let transport = end;
    let mut field = None;
    if offset_0 && protocol == 6 && end + 20 <= len {
        let octets = usize::from(d[end + 12] >> 4) * 4;
        if octets >= 20 && end + octets <= len {
            end += octets;
            field = Some(transport + 16);
        }
    }
    if offset_0 && protocol == 17 && end + 8 <= len {
        end += 8;
        field = Some(transport + 6);
    }
    let l1 = end.min(stop.into()).min(len);
    (l1, field.filter(|field| field + 2 <= l1))
}

fn mostly_headers() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |n| prop::collection::vec(any::<u8>(), 0..n);
    let segment = prop_oneof![
        bytes(80),
        (0usize..=10, bytes(40)).prop_map(|(w, p)| tcp(&vec![1; w * 4], &p)),
        bytes(40).prop_map(|p| udp(&p, true))
    ];
    let next = prop_oneof![
        Just(6u8),
        Just(17),
        Just(60),
        Just(44),
        Just(0),
        Just(43),
        any::<u8>()
    ];
    let extensions = prop::collection::vec((next.clone(), 0u8..4, 0u16..2, any::<bool>()), 0..11);
    prop_oneof![
        bytes(400),
        (
            next.clone(),
            0usize..=10,
            prop_oneof![Just(0u16), any::<u16>()],
            segment.clone()
        )
            .prop_map(|(n, w, f, s)| ipv4(n, &vec![1; w * 4], f, &s)),
        (next, extensions, segment).prop_map(|(first, extensions, segment)| {
            let mut payload = Vec::new();
            for (next, len, offset, more) in extensions {
                let mut header = vec![next, len];
                header.extend((offset << 3 | u16::from(more)).to_be_bytes());
                header.resize(8 * (1 + usize::from(len)), 0);
                payload.extend(header);
            }
            payload.extend(segment);
            ipv6(first, &payload)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The division is the text's, for any datagram, cut anywhere, with any octet changed (docs/wire.md 1.4d, 1.8j).
    #[test]
    fn the_division_is_what_the_text_says(
        mut datagram in mostly_headers(),
        cut in 0usize..600,
        change in prop::option::of((0usize..60, any::<u8>())),
        stop in prop_oneof![Just(TRANSPORT_END), Just(40), (1u16..150).prop_map(|n| 2 * n)],
    ) {
        if let Some((at, to)) = change {
            if let Some(octet) = datagram.get_mut(at) { *octet = to; }
        }
        datagram.truncate(cut);
        let map = ZoneMap::new(Mode::Tunnel, &[stop, END]).unwrap();
        let split = split(&map, 0, &datagram);
        prop_assert_eq!((split.l1, split.moved), naive(stop, &datagram));
        // Whether the checksum was moved follows from zone 1 alone, and a relay admits what an origin sealed.
        let zone1 = &datagram[..split.l1];
        prop_assert_eq!(zone::moved(Mode::Tunnel, 0, zone1), split.moved);
        let whole = mml_core::ip::addresses(&datagram).is_some_and(|ip| (ip.header_len..=datagram.len()).contains(&ip.total_len));
        prop_assert!(!whole || map.admits(0, zone1, datagram.len()));
        prop_assert!(split.l1 <= 252);
    }
}
