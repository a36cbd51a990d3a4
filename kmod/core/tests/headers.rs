// SPDX-License-Identifier: GPL-2.0-only
//! The small things the data path does to the headers inside: checksums, ECN, MSS, addresses, selectors.

mod common;

use common::{ipv4, ipv6, pseudo, tcp, udp, DST, SRC};
use mml_core::ip::{self, v4};
use mml_core::selector::{Match, PortRange, Selector, SelectorError};
use mml_core::{checksum, ecn, tcp as core_tcp};
use proptest::prelude::*;

fn naive_sum(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in data.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// RFC 1071 §3's own example.
#[test]
fn the_sum_of_rfc_1071() {
    assert_eq!(
        checksum::sum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]),
        0xDDF2
    );
    assert_eq!(checksum::sum(&[]), 0);
}

/// RFC 1624 §4's own example, where the older equation gives 0xFFFF.
#[test]
fn the_update_of_rfc_1624() {
    assert_eq!(checksum::update16(0xDD2F, 0x5555, 0x3285), 0x0000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_the_naive_ones(data in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(checksum::sum(&data), naive_sum(&data));
    }

    /// What a relay adds to the zeroed field makes the moved checksum what RFC 1624 would have made of it
    /// (docs/wire.md 1.4b, 1.4c).
    #[test]
    fn the_restored_checksum_is_rfc_1624s(check: u16, old: u16, new: u16, newer: u16) {
        let once = checksum::correction(old, new);
        let restored = checksum::restore(once, check);
        if old == new {
            prop_assert_eq!(restored, check);
        }
        // 0 and 0xFFFF are one number in one's complement.
        let same = |a: u16, b: u16| a % 0xFFFF == b % 0xFFFF;
        prop_assert!(same(restored, checksum::update16(check, old, new)));
        // Corrections add up, and one that is undone is none.
        let twice = checksum::add(once, checksum::correction(new, newer));
        prop_assert!(same(checksum::restore(twice, check), checksum::update16(check, old, newer)));
    }

    #[test]
    fn ds_and_ttl_change_alone_and_keep_the_header_checksum_good(ds: u8, limit: u8, six: bool) {
        let before = if six { ipv6(17, &udp(b"x", true)) } else { ipv4(17, &[1; 4], 0, &udp(b"x", true)) };
        let mut datagram = before.clone();
        prop_assert!(ip::set_ds(&mut datagram, ds) && ip::set_ttl(&mut datagram, limit));
        prop_assert_eq!((ip::ds(&datagram), ip::ttl(&datagram)), (Some(ds), Some(limit)));
        if !six {
            prop_assert_eq!(checksum::sum(&datagram[..24]), 0xFFFF);
        }
        ip::set_ds(&mut datagram, 0);
        ip::set_ttl(&mut datagram, 64);
        if six { prop_assert_eq!(datagram, before); } else { prop_assert_eq!(&datagram[12..], &before[12..]); }
    }

    /// Nothing here panics, whatever the octets.
    #[test]
    fn any_octets_are_read_without_a_panic(mut data in prop::collection::vec(any::<u8>(), 0..120), value: u16) {
        ip::addresses(&data);
        core_tcp::clamp_mss(&mut data, value);
        ip::set_ds(&mut data, value as u8);
        ip::set_ttl(&mut data, value as u8);
    }

    /// A clamped MSS is the smaller of the two, under a good checksum, at odd and even offsets (docs/wire.md 2.1i).
    #[test]
    fn a_clamped_mss_keeps_the_checksum_good(mss: u16, max: u16, nops in 0usize..6, ip_words in 0usize..=10) {
        let mut options = vec![1u8; nops];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        options.resize(options.len().next_multiple_of(4), 0);
        let mut segment = tcp(&options, b"");
        segment[13] = 0x02;
        segment[16..18].fill(0);
        let check = pseudo(6, &segment);
        segment[16..18].copy_from_slice(&check.to_be_bytes());
        let at = 20 + ip_words * 4 + 22 + nops;
        let mut datagram = ipv4(6, &vec![1; ip_words * 4], 0, &segment);
        let before = datagram.clone();
        prop_assert_eq!(core_tcp::clamp_mss(&mut datagram, max), mss > max);
        prop_assert_eq!(&datagram[at..at + 2], &mss.min(max).to_be_bytes());
        prop_assert_eq!(pseudo(6, &datagram[20 + ip_words * 4..]), 0);
        if mss <= max { prop_assert_eq!(datagram, before); }
    }
}

#[test]
fn only_a_syn_with_a_whole_mss_option_is_clamped() {
    let syn = |options: &[u8], flags: u8, offset: u16| {
        let mut segment = tcp(options, b"");
        segment[13] = flags;
        ipv4(6, &[], offset, &segment)
    };
    let mss = [2, 4, 5, 180];
    assert!(core_tcp::clamp_mss(&mut syn(&mss, 0x02, 0), 1_000));
    assert!(
        core_tcp::clamp_mss(&mut syn(&mss, 0x12, 0), 1_000),
        "SYN ACK"
    );
    assert!(core_tcp::clamp_mss(
        &mut syn(&[3, 3, 7, 1, 2, 4, 5, 180], 0x02, 0),
        1_000
    ));
    for mut other in [
        syn(&mss, 0x10, 0),
        syn(&mss, 0x02, 1),
        syn(&[0, 0, 0, 0, 2, 4, 5, 180], 0x02, 0),
        syn(&[2, 3, 5, 0], 0x02, 0),
        syn(&[1, 1, 2, 4], 0x02, 0),
        syn(&[3, 0, 2, 4, 5, 180, 0, 0], 0x02, 0),
        syn(&[3, 200, 2, 4, 5, 180, 0, 0], 0x02, 0),
        syn(&mss, 0x02, 0)[..41].to_vec(),
        ipv4(17, &[], 0, &syn(&mss, 0x02, 0)[20..]),
    ] {
        let before = other.clone();
        assert!(!core_tcp::clamp_mss(&mut other, 1_000), "{before:?}");
        assert_eq!(other, before);
    }
    let mut segment = tcp(&mss, b"");
    segment[13] = 0x02;
    assert!(core_tcp::clamp_mss(&mut ipv6(6, &segment), 1_000));
}

/// RFC 6040 §4.2, figure 4, every cell; the DSCP is the inner one's (docs/wire.md 1.7i, 1.9u).
#[test]
fn decapsulation_is_rfc_6040s_figure_4() {
    use ecn::{CE, ECT0, ECT1, NOT_ECT};
    let table = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
        (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for (inner, row) in table {
        for (outer, out) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
            assert_eq!(
                ecn::decap(inner | 0xB8, outer | 0x28),
                out.map(|ecn| ecn | 0xB8),
                "{inner}, {outer}"
            );
        }
    }
    assert!((0..=255).all(|ds| ecn::encap(ds) == ds));
}

#[test]
fn addresses_are_read_of_both_families() {
    let a = ip::addresses(&ipv4(6, &[1; 4], 0x4000, &tcp(&[], b"x"))).unwrap();
    assert_eq!(
        (a.family, a.src, a.dst, a.protocol),
        (4, v4(SRC), v4(DST), 6)
    );
    assert_eq!(
        (a.total_len, a.header_len, a.fragment, a.transport, a.df),
        (45, 24, false, true, true)
    );
    let a = ip::addresses(&ipv4(6, &[], 0x2001, b"x")).unwrap();
    assert_eq!((a.fragment, a.transport, a.df), (true, false, false));
    let mut six = ipv6(
        0,
        &[&[17, 0, 0, 0, 0, 0, 0, 0], &udp(b"x", true)[..]].concat(),
    );
    six[0] = 0x6A;
    six[1] = 0x50;
    let a = ip::addresses(&six).unwrap();
    assert_eq!(
        (a.family, a.protocol, a.ds, a.total_len, a.header_len, a.df),
        (6, 17, 0xA5, 57, 48, true)
    );
    assert_eq!((a.src[15], a.dst[15]), (1, 2));
    let fragment = |more| {
        ip::addresses(&ipv6(44, &[6, 0, 0, more, 0, 0, 0, 0]))
            .unwrap()
            .fragment
    };
    assert!(fragment(1) && !fragment(0), "an atomic fragment is whole");
    for short in [
        &ipv4(6, &[1; 4], 0, b"")[..23],
        &six[..39],
        &[],
        &[0x45],
        &[0x44; 40],
        &[0x50; 60],
    ] {
        assert!(ip::addresses(short).is_none());
    }
}

/// docs/wire.md 2.3f.
#[test]
fn selectors_are_checked_when_made() {
    let new =
        |family, src, src_len, dst_len| Selector::new(family, 0, src, src_len, [0; 16], dst_len);
    assert_eq!(new(5, [0; 16], 0, 0), Err(SelectorError::Family));
    assert_eq!(new(4, [0; 16], 33, 0), Err(SelectorError::PrefixLength));
    assert_eq!(new(6, [0; 16], 0, 129), Err(SelectorError::PrefixLength));
    assert_eq!(
        new(4, v4([10, 0, 0, 1]), 24, 0),
        Err(SelectorError::HostBits)
    );
    let mut behind = [0; 16];
    behind[4] = 1;
    assert_eq!(new(4, behind, 32, 0), Err(SelectorError::HostBits));
    assert!(new(6, behind, 40, 128).is_ok());
}

#[test]
fn selectors_match_prefixes_in_their_direction() {
    let datagram = ip::addresses(&ipv4(6, &[], 0, &tcp(&[], b""))).unwrap();
    for len in 0..=32u8 {
        let keep = |address: [u8; 4]| {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            v4((u32::from_be_bytes(address) & mask).to_be_bytes())
        };
        let selector = Selector::new(4, 6, keep(SRC), len, keep(DST), len).unwrap();
        let unasked = || panic!("no ports were named");
        assert!(selector.matches(&datagram, unasked));
        let back = ip::Addresses {
            src: datagram.dst,
            dst: datagram.src,
            ..datagram
        };
        assert!(selector.reversed().matches(&back, unasked));
        assert_eq!(selector.matches(&back, unasked), len < 5, "{len}");
        if len > 0 {
            let mut other = datagram;
            let bit = usize::from(len - 1);
            other.dst[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(!selector.matches(&other, unasked), "{len}");
        }
        let udp = ip::Addresses {
            protocol: 17,
            ..datagram
        };
        assert!(!selector.matches(&udp, unasked));
        let six = ip::Addresses {
            family: 6,
            ..datagram
        };
        assert!(!selector.matches(&six, unasked));
    }
}

const IKE: PortRange = PortRange {
    first: 500,
    last: 500,
};

/// docs/wire.md 2.3l.
#[test]
fn only_protocols_with_ports_have_selectors_of_ports() {
    let new = |protocol, src, dst| {
        let all = Selector::new(4, protocol, [0; 16], 0, [0; 16], 0).unwrap();
        all.with_ports(src, dst)
    };
    for protocol in 0..=u8::MAX {
        let has = [6, 17, 33, 132, 136].contains(&protocol);
        let of_one = new(protocol, IKE, PortRange::ANY);
        assert_eq!(of_one.is_ok(), has, "{protocol}");
        assert_eq!(of_one.is_ok(), ip::has_ports(protocol));
        assert!(!new(protocol, PortRange::ANY, PortRange::ANY)
            .unwrap()
            .names_ports());
    }
    let falling = PortRange {
        first: 501,
        last: 500,
    };
    assert_eq!(new(17, falling, IKE), Err(SelectorError::Ports));
    assert_eq!(new(17, IKE, falling), Err(SelectorError::Ports));
}

/// A range holds its ends and nothing beside them, each side its own (docs/wire.md 2.3l).
#[test]
fn selectors_of_ports_match_those_alone() {
    let range = PortRange {
        first: 8000,
        last: 8099,
    };
    let all = Selector::new(4, 17, [0; 16], 0, [0; 16], 0).unwrap();
    let selector = all.with_ports(IKE, range).unwrap();
    let of = ip::addresses(&ipv4(17, &[], 0, &common::udp(b"ike", true))).unwrap();
    let ask =
        |selector: &Selector, src, dst| selector.compare(&of, || Some(ip::Ports { src, dst }));
    for dst in [8000, 8050, 8099] {
        assert_eq!(ask(&selector, 500, dst), Match::Yes);
        assert_eq!(ask(&selector.reversed(), dst, 500), Match::Yes);
        assert_eq!(ask(&selector.reversed(), 500, dst), Match::No);
    }
    for (src, dst) in [(500, 7999), (500, 8100), (499, 8000), (501, 8000), (0, 0)] {
        assert_eq!(ask(&selector, src, dst), Match::No, "{src} {dst}");
    }
    assert_eq!(selector.compare(&of, || None), Match::Unseen);
    assert!(!selector.matches(&of, || None));
    // Another address isn't even asked for its ports.
    let elsewhere = Selector::new(4, 17, v4([9, 9, 9, 9]), 32, [0; 16], 0).unwrap();
    let elsewhere = elsewhere.with_ports(IKE, range).unwrap();
    assert_eq!(elsewhere.compare(&of, || panic!()), Match::No);
    // Of two the closer has longer prefixes, then fewer ports.
    assert!(selector.closeness() > all.closeness());
    assert!(elsewhere.closeness() > selector.closeness());
    let one = all.with_ports(IKE, IKE).unwrap();
    assert!(one.closeness() > selector.closeness());
}

/// Of whole datagrams ports are seen, and of nothing else: no fragment's, not even the first one's, and none that the
/// datagram's own length leaves out (docs/wire.md 2.3m).
#[test]
fn only_whole_datagrams_show_their_ports() {
    let transport = [0x01, 0xF4, 0x11, 0x94, 0, 12, 0, 0, 1, 2, 3, 4];
    let read = |packet: &[u8]| {
        let of = ip::addresses(packet).unwrap();
        assert_eq!(of.ports(packet).is_some(), of.ports_at().is_some());
        of.ports(packet)
    };
    let ports = ip::Ports {
        src: 500,
        dst: 4500,
    };
    for protocol in [6, 17, 33, 132, 136] {
        assert_eq!(read(&ipv4(protocol, &[], 0, &transport)), Some(ports));
        let options = [1; 8];
        assert_eq!(read(&ipv4(protocol, &options, 0, &transport)), Some(ports));
        assert_eq!(read(&common::ipv6(protocol, &transport)), Some(ports));
    }
    for protocol in [0, 1, 47, 50, 51, 58] {
        assert_eq!(
            read(&ipv4(protocol, &[], 0, &transport)),
            None,
            "{protocol}"
        );
    }
    // The first fragment, another, the last.
    for offset in [0x2000, 0x2001, 0x0001] {
        assert_eq!(read(&ipv4(17, &[], offset, &transport)), None, "{offset:x}");
    }
    // Don't fragment is no fragment.
    assert_eq!(read(&ipv4(17, &[], 0x4000, &transport)), Some(ports));
    for len in 0..transport.len() {
        let packet = ipv4(17, &[], 0, &transport[..len]);
        assert_eq!(read(&packet).is_some(), len >= 4, "{len}");
        // Octets behind the datagram are none of it.
        let padded = [&packet[..], &[0; 8]].concat();
        assert_eq!(read(&padded).is_some(), len >= 4, "{len}");
    }
    // IPv6: behind a fragment header with more to come, or of a later one, there are none; an atomic fragment is whole.
    let fragment = |offset: u16| {
        let header = [&[17, 0][..], &offset.to_be_bytes(), &[0; 4], &transport].concat();
        common::ipv6(44, &header)
    };
    assert_eq!(read(&fragment(0)), Some(ports));
    for offset in [1, 8, 9] {
        assert_eq!(read(&fragment(offset)), None, "{offset}");
    }
}

/// A header, in front of `payload` octets of what `next` names, with these extension headers.
fn with_extensions(extensions: &[(u8, usize)], next: u8, payload: usize) -> Vec<u8> {
    let kinds = extensions.iter().map(|(kind, _)| *kind).chain([next]);
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    let mut kinds = kinds.peekable();
    packet[6] = kinds.next().unwrap();
    for (kind, units) in extensions {
        let mut header = vec![0u8; if *kind == 44 { 8 } else { (units + 1) * 8 }];
        header[0] = kinds.next().unwrap();
        header[1] = if *kind == 44 { 0 } else { *units as u8 };
        packet.extend(header);
    }
    assert!(ip::set_total(&mut packet, 40 + payload));
    packet
}

/// Transport mode keeps a datagram's own headers and puts ESP behind the last of them (docs/wire.md 1.11a, 1.11b).
#[test]
fn the_last_next_header_is_the_one_that_changes() {
    for extensions in [
        &[][..],
        &[(0, 0)],
        &[(0, 0), (43, 2), (60, 1)],
        &[(44, 0), (60, 0)],
    ] {
        let before = with_extensions(extensions, ip::TCP, 100);
        let mut headers = before.clone();
        assert!(ip::set_next(&mut headers, ip::ESP));
        assert_eq!(headers, with_extensions(extensions, ip::ESP, 100));
        assert!(ip::set_next(&mut headers, ip::TCP));
        assert_eq!(headers, before);
    }
    let mut v4 = ipv4(ip::TCP, &[], 0, &[0; 40])[..20].to_vec();
    assert!(ip::set_next(&mut v4, ip::ESP) && ip::set_total(&mut v4, 1234));
    let of = ip::addresses(&v4).unwrap();
    assert_eq!((of.protocol, of.total_len), (ip::ESP, 1234));
    assert_eq!(naive_sum(&v4), 0xFFFF);
}

#[test]
fn what_is_no_header_is_left_alone() {
    let cut = &with_extensions(&[(0, 0), (60, 1)], ip::TCP, 0)[..60];
    for octets in [
        &[][..],
        &[0x20; 40],
        cut,
        &with_extensions(&[], ip::TCP, 0)[..39],
    ] {
        let mut headers = octets.to_vec();
        assert!(!ip::set_next(&mut headers, ip::ESP));
        assert_eq!(headers, octets);
    }
    let mut v4 = ipv4(ip::TCP, &[], 0, &[0; 40])[..20].to_vec();
    assert!(!ip::set_total(&mut v4, 65_536));
    assert!(!ip::set_total(&mut with_extensions(&[], ip::TCP, 0), 39));
    assert!(ip::set_total(&mut v4, 65_535));
}

proptest! {
    #[test]
    fn no_octets_upset_the_setters(mut octets in prop::collection::vec(any::<u8>(), 0..300), next: u8, total: usize) {
        if let Some(first) = octets.first_mut() {
            *first = *first & 0x2F | 0x40;
        }
        ip::set_next(&mut octets, next);
        ip::set_total(&mut octets, total);
    }
}
