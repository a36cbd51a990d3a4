// SPDX-License-Identifier: GPL-2.0-only
//! What a terminus drops, and why: `docs/wire.md` §1, terminus order.

mod common;

use common::{any, hosts, ipv4, ipv6, tcp, udp, Csa, Terminus, DST, SPI, SRC};
use mml_core::esp::{Drop, Header};
use mml_core::ip::{self, v4};
use mml_core::packet::Aead;
use mml_core::selector::{PortRange, Selector};
use mml_core::zone::{Mode, ZoneMap};

fn datagram() -> Vec<u8> {
    ipv4(6, &[], 0, &tcp(&[], b"some payload"))
}

fn setups() -> Vec<(&'static str, Csa, Vec<u8>)> {
    let writable = Csa::writable();
    let v6 = ipv6(17, &udp(b"six", true));
    vec![
        ("tunnel, implicit", Csa::tunnel(), datagram()),
        ("tunnel, explicit", Csa::tunnel().explicit(), datagram()),
        ("tunnel, may write", writable, datagram()),
        ("tunnel, IPv6", Csa::tunnel(), v6),
        ("transport", Csa::transport(), tcp(&[], b"some payload")),
    ]
}

/// Lengths: cut off anywhere, a packet is dropped for that or fails an ICV, and the window doesn't move
/// (docs/wire.md 1.7b, 1.9b, 1.9c).
#[test]
fn truncated_at_every_length_is_dropped() {
    for (name, csa, datagram) in setups() {
        let packet = csa.seal(1, &datagram);
        for len in 0..packet.len() {
            let mut end = Terminus::starting_at(&csa, 0);
            let reason = end.open(&packet[..len]).unwrap_err();
            let expected = [Drop::Truncated, Drop::Alignment, Drop::Icv2];
            assert!(expected.contains(&reason), "{name}, {len}: {reason:?}");
            assert_eq!(end.window.top(), 0);
            assert!(
                end.open(&packet).is_ok(),
                "{name}: the whole packet still opens"
            );
        }
    }
}

/// Longer than it was is no better.
#[test]
fn octets_behind_the_packet_are_dropped() {
    for (name, csa, datagram) in setups() {
        let packet = csa.seal(1, &datagram);
        for more in 1..20 {
            let long = [&packet[..], &vec![0; more]].concat();
            assert!(csa.open(&long).is_err(), "{name}, {more}");
        }
    }
}

/// Every single bit of a packet matters: flipped, the packet is dropped, by the rule that owns the bit
/// (docs/wire.md 1.7b, 1.9m).
#[test]
fn every_bit_flipped_once_is_dropped() {
    for (name, csa, datagram) in setups() {
        let packet = csa.seal(1, &datagram);
        let l1 = usize::from(Header::parse(&packet).unwrap().l1);
        let iv1 = csa.ivs[0].octets();
        for bit in 0..packet.len() * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 0x80 >> (bit % 8);
            let mut end = Terminus::starting_at(&csa, 0);
            let reason = end.open(&bad).unwrap_err();
            let zone1 = 12 + iv1..12 + iv1 + l1 + 16;
            let allowed: &[Drop] = match bit / 8 {
                0..=3 => &[Drop::Spi],
                4..=7 => &[Drop::Icv1, Drop::SeqMismatch, Drop::Replay],
                8 => &[Drop::Flags, Drop::IvW],
                9 => &[Drop::Protocol, Drop::Icv1],
                // Zone 2's IV is looked for in another place.
                10..=11 => &[
                    Drop::L1,
                    Drop::Truncated,
                    Drop::Alignment,
                    Drop::IvW,
                    Drop::SeqMismatch,
                    Drop::Icv1,
                ],
                at if at < 12 + iv1 => &[Drop::IvW, Drop::SeqMismatch],
                at if zone1.contains(&at) => &[Drop::Icv1],
                at if at < zone1.end + csa.ivs[1].octets() => &[Drop::IvW, Drop::SeqMismatch],
                _ => &[Drop::Icv2],
            };
            assert!(allowed.contains(&reason), "{name}, bit {bit}: {reason:?}");
            assert_eq!(end.window.top(), 0, "{name}, bit {bit}: the window moved");
        }
    }
}

/// Lookup: another SA's SPI isn't this one's (docs/wire.md 1.9d).
#[test]
fn a_wrong_spi_is_dropped() {
    let mut packet = Csa::tunnel().seal(1, &datagram());
    packet[..4].copy_from_slice(&(SPI + 1).to_be_bytes());
    assert_eq!(Csa::tunnel().open(&packet).unwrap_err(), Drop::Spi);
}

/// Flags: any bit but `W` is dropped, whatever else is right (docs/wire.md 1.1c, 1.9e).
#[test]
fn unknown_flags_are_dropped() {
    let packet = Csa::tunnel().seal(1, &datagram());
    for flags in 2..=255u8 {
        let mut bad = packet.clone();
        bad[8] = flags;
        assert_eq!(
            Csa::tunnel().open(&bad).unwrap_err(),
            Drop::Flags,
            "{flags:#x}"
        );
    }
}

/// Flags: `W` must equal bit 63 of zone 1's explicit IV, and is 0 with an implicit one; zone 2's IV never has it
/// (docs/wire.md 1.2e, 1.9h).
#[test]
fn w_that_disagrees_with_the_ivs_is_dropped() {
    let mut implicit = Csa::tunnel().seal(1, &datagram());
    implicit[8] = 1;
    assert_eq!(Csa::tunnel().open(&implicit).unwrap_err(), Drop::IvW);

    let csa = Csa {
        may_write: true,
        ..Csa::tunnel().explicit()
    };
    let packet = csa.seal(1, &datagram());
    let iv2 = 20 + 40 + 16;
    for (flag, iv1_top, iv2_top) in [
        (1, 0x00, 0x00),
        (0, 0x80, 0x00),
        (0, 0x00, 0x80),
        (1, 0x80, 0x80),
    ] {
        let mut bad = packet.clone();
        bad[8] = flag;
        bad[12] |= iv1_top;
        bad[iv2] |= iv2_top;
        assert_eq!(csa.open(&bad).unwrap_err(), Drop::IvW);
    }
}

/// Nonce: an origin's explicit IV that isn't the inferred number is dropped before a key is used
/// (docs/wire.md 1.2d, 1.9k).
#[test]
fn an_explicit_iv_other_than_the_inferred_number_is_dropped() {
    let csa = Csa::tunnel().explicit();
    let packet = csa.seal(1 << 32 | 5, &datagram());
    assert_eq!(
        csa.open_at(3, &packet).unwrap_err(),
        Drop::SeqMismatch,
        "high half of another sub-space"
    );
    assert!(csa.open_at(1 << 32, &packet).is_ok());
}

/// Nonce: with implicit IVs the high half is bound by the nonce (docs/wire.md 1.2c).
#[test]
fn a_wrong_high_half_fails_the_icv() {
    let csa = Csa::tunnel();
    let packet = csa.seal(1 << 32 | 5, &datagram());
    assert_eq!(csa.open_at(3, &packet).unwrap_err(), Drop::Icv1);
}

/// L1: above 256 it is dropped by itself (docs/wire.md 1.1e, 1.9f).
#[test]
fn l1_too_big_is_dropped() {
    let mut packet = Csa::tunnel().seal(1, &ipv4(1, &[], 0, &[0; 600]));
    for l1 in [257u16, 300, 0xFFFF] {
        packet[10..12].copy_from_slice(&l1.to_be_bytes());
        assert_eq!(Csa::tunnel().open(&packet).unwrap_err(), Drop::L1);
    }
}

/// L1 recomputed: a packet sealed under another map is dropped, though both its ICVs hold (docs/wire.md 1.9q).
#[test]
fn l1_off_the_map_is_dropped() {
    let ours = Csa::tunnel();
    for stop in (2..40).step_by(2) {
        let theirs = Csa {
            map: ZoneMap::new(Mode::Tunnel, &[stop, 0xFFFF]).unwrap(),
            ..Csa::tunnel()
        };
        let packet = theirs.seal(1, &datagram());
        assert_eq!(ours.open(&packet).unwrap_err(), Drop::ZoneMap, "{stop}");
        assert_eq!(
            theirs.open(&ours.seal(1, &datagram())).unwrap_err(),
            Drop::ZoneMap
        );
    }
}

/// Replay: the same packet a second time is dropped before a key is used. One below the window is taken for the
/// next high half's (RFC 4303 §A2.2), and fails the ICV (docs/wire.md 1.7d, 1.9l).
#[test]
fn replays_and_packets_past_the_window_are_dropped() {
    let csa = Csa::tunnel();
    let mut end = Terminus::with_width(&csa, 64, 0);
    let packets: Vec<_> = (1..=200u64).map(|seq| csa.seal(seq, &datagram())).collect();
    assert!(end.open(&packets[99]).is_ok());
    for seq in (1..=100u64).rev() {
        let outcome = end.open(&packets[seq as usize - 1]);
        if (37..100).contains(&seq) {
            assert_eq!(outcome.expect("reordered within the window").0.seq, seq);
        } else {
            let reason = if seq == 100 { Drop::Replay } else { Drop::Icv1 };
            assert_eq!(outcome.unwrap_err(), reason, "{seq}");
        }
        if seq >= 37 {
            assert_eq!(
                end.open(&packets[seq as usize - 1]).unwrap_err(),
                Drop::Replay
            );
        }
    }
    let mut forged = packets[99].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(
        end.open(&forged).unwrap_err(),
        Drop::Replay,
        "known before the ICVs are looked at"
    );
}

/// Replay: a forged packet far ahead doesn't move the window (docs/wire.md 1.7b).
#[test]
fn a_forgery_does_not_move_the_window() {
    let csa = Csa::tunnel();
    let mut end = Terminus::starting_at(&csa, 0);
    let mut forged = csa.seal(5_000, &datagram());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(end.open(&forged).unwrap_err(), Drop::Icv2);
    assert!(end.open(&csa.seal(1, &datagram())).is_ok());
}

/// The 32-bit wrap: numbers across 2^32 open in any order within the window (docs/wire.md 1.7d).
#[test]
fn the_low_half_wraps() {
    let csa = Csa::tunnel();
    let mut end = Terminus::starting_at(&csa, (1 << 32) - 10);
    for seq in [
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) - 2,
        (1 << 32) + 20,
        (1 << 32) - 9,
    ] {
        assert_eq!(end.open(&csa.seal(seq, &datagram())).unwrap().0.seq, seq);
    }
}

/// AAD 2: zone 2 of one packet doesn't go with zone 1 of another, in either direction of the swap (docs/wire.md 1.3b).
#[test]
fn zones_of_two_packets_mixed_are_dropped() {
    for csa in [Csa::tunnel(), Csa::tunnel().explicit(), Csa::writable()] {
        let split = 12 + csa.ivs[0].octets() + 40 + 16;
        let a = csa.seal(1, &ipv4(6, &[], 0, &tcp(&[], b"payload one.")));
        let b = csa.seal(2, &ipv4(6, &[], 0, &tcp(&[], b"payload two.")));
        for (front, back) in [(&a, &b), (&b, &a)] {
            let mixed = [&front[..split], &back[split..]].concat();
            let reason = csa.open(&mixed).unwrap_err();
            assert!(
                [Drop::Icv2, Drop::SeqMismatch].contains(&reason),
                "{reason:?}"
            );
        }
    }
}

/// Padding: anything but 1, 2, 3 … is dropped, and so is a pad length that goes past zone 2's plaintext
/// (docs/wire.md 1.6b, 1.9n, 1.9o).
#[test]
fn bad_padding_is_dropped() {
    let csa = Csa::tunnel();
    // 40 + 2 + 9 + 3 + 2 is a multiple of 4.
    let datagram = ipv4(6, &[], 0, &tcp(&[], b"nine oct."));
    let packet = csa.seal(1, &datagram);
    let header: [u8; 12] = packet[..12].try_into().unwrap();
    let zone1 = csa.look(&packet).unwrap().1;
    let aad2 = [&header[..], &zone1].concat();
    let reseal = |tail: &[u8; 5]| {
        let mut plain = [&datagram[36..38], b"nine oct.", tail].concat();
        let nonce = mml_core::esp::nonce(&[0x22; 4], 1);
        let mut tag = [0; 16];
        csa.keys[1].seal(&nonce, &aad2, &mut plain, &mut tag);
        [&packet[..12 + 56], &plain, &tag].concat()
    };
    assert_eq!(reseal(&[1, 2, 3, 3, 4]), packet);
    for tail in [
        [0, 2, 3, 3, 4],
        [1, 2, 4, 3, 4],
        [0, 0, 0, 3, 4],
        [3, 2, 1, 3, 4],
        [1, 2, 3, 13, 4],
        [1, 2, 3, 255, 4],
        [1, 2, 3, 4, 4],
    ] {
        assert_eq!(
            csa.open(&reseal(&tail)).unwrap_err(),
            Drop::Padding,
            "{tail:?}"
        );
    }
    assert_eq!(
        csa.open(&reseal(&[1, 2, 3, 3, 41])).unwrap_err(),
        Drop::NextHeader
    );
    assert_eq!(
        csa.open(&reseal(&[1, 2, 3, 3, 6])).unwrap_err(),
        Drop::NextHeader
    );
    // No padding at all: three octets more than the inner length are TFC padding, whatever they are.
    assert_eq!(csa.open(&reseal(&[9, 9, 9, 0, 4])).unwrap().1, datagram);
}

/// Padding: up to 255 octets of it are good, wherever the datagram ends (docs/wire.md 1.6a, 1.6c).
#[test]
fn long_padding_is_read() {
    for pad in 0..=255u8 {
        let mut out = vec![0xEE; 300];
        mml_core::esp::write_trailer(&mut out[300 - usize::from(pad) - 2..], pad, 4);
        let tail = &out[300 - mml_core::esp::TRAILER_MAX..];
        let trailer = mml_core::esp::check_trailer(tail).unwrap();
        assert_eq!((trailer.pad, trailer.next), (pad, 4));
        let all = &out[300 - usize::from(pad) - 2..];
        assert_eq!(
            mml_core::esp::check_trailer(all).unwrap().octets(),
            all.len()
        );
        assert!(pad == 0 || mml_core::esp::check_trailer(&all[1..]).is_err());
    }
    assert_eq!(mml_core::esp::check_trailer(&[]), Err(Drop::Truncated));
    assert_eq!(mml_core::esp::check_trailer(&[4]), Err(Drop::Truncated));
}

/// Protocol: transport mode's must be the trailer's, tunnel mode's 0 (docs/wire.md 1.1d, 1.9g).
#[test]
fn a_protocol_that_is_not_the_trailers_is_dropped() {
    let transport = Csa::transport();
    let packet = transport.seal_as(1, 17, &udp(b"data", true), 0).unwrap();
    let relabel = |csa: &Csa, packet: &[u8], protocol: u8| {
        let mut header: [u8; 12] = packet[..12].try_into().unwrap();
        header[9] = protocol;
        let (seen, zone1) = csa.look(packet).unwrap();
        csa.forge(packet, header, 1, &zone1, seen.l1)
    };
    // The relay's key makes ICV 1 good again; ICV 2 covers the protocol too.
    assert_eq!(
        transport
            .open(&relabel(&transport, &packet, 6))
            .unwrap_err(),
        Drop::Icv2
    );
    let tunnel = Csa::tunnel();
    let packet = tunnel.seal(1, &datagram());
    assert_eq!(
        tunnel.open(&relabel(&tunnel, &packet, 6)).unwrap_err(),
        Drop::Protocol
    );

    // An origin that says one thing outside and another inside.
    let mut header: [u8; 12] = transport.seal_as(1, 1, b"ping", 0).unwrap()[..12]
        .try_into()
        .unwrap();
    header[9] = 2;
    let mut front = header.to_vec();
    let mut tag = [0; 16];
    transport.keys[0].seal(
        &mml_core::esp::nonce(&[0x11; 4], 1),
        &header,
        &mut [],
        &mut tag,
    );
    front.extend(tag);
    let mut plain = [&b"ping"[..], &[1, 2, 2, 1]].concat();
    transport.keys[1].seal(
        &mml_core::esp::nonce(&[0x22; 4], 1),
        &header,
        &mut plain,
        &mut tag,
    );
    let packet = [&front, &plain, &tag[..]].concat();
    assert_eq!(transport.open(&packet).unwrap_err(), Drop::Protocol);
}

/// Next header 59 is a dummy: dropped under a reason of its own, whatever it holds, and it uses up its number
/// (docs/wire.md 1.6d, 1.9p).
#[test]
fn a_dummy_is_dropped_in_silence() {
    let csa = Csa::tunnel();
    for content in [&b""[..], b"junk", &datagram(), &[0x45; 300]] {
        let packet = csa.seal_as(1, 59, content, 0).unwrap();
        let mut end = Terminus::starting_at(&csa, 0);
        assert_eq!(end.open(&packet).unwrap_err(), Drop::Dummy);
        assert_eq!(end.window.top(), 1);
        assert_eq!(end.open(&packet).unwrap_err(), Drop::Replay);
    }
    assert_eq!(
        Csa::transport()
            .open(&Csa::transport().seal_as(1, 59, b"x", 0).unwrap())
            .unwrap_err(),
        Drop::Dummy
    );
}

/// Inner length: above what arrived, or below its own header, is dropped (docs/wire.md 1.9s).
#[test]
fn an_inner_length_that_cannot_be_is_dropped() {
    let csa = Csa::tunnel();
    let mut long = datagram();
    for length in [long.len() as u16 + 1, 0xFFFF, 19, 0] {
        long[2..4].copy_from_slice(&length.to_be_bytes());
        let packet = csa.seal(1, &long);
        assert_eq!(
            csa.open(&packet).unwrap_err(),
            Drop::InnerLength,
            "{length}"
        );
    }
    let mut six = ipv6(17, &udp(b"", true));
    six[4..6].copy_from_slice(&100u16.to_be_bytes());
    assert_eq!(csa.open(&csa.seal(1, &six)).unwrap_err(), Drop::InnerLength);
}

/// Inner header: what isn't IP, or isn't the IP the trailer names, is dropped (docs/wire.md 1.6d, 1.9o, 1.9r).
#[test]
fn an_inner_header_that_is_none_is_dropped() {
    let csa = Csa::tunnel();
    let seal = |next, inner: &[u8]| csa.seal_as(1, next, inner, 0).unwrap();
    assert_eq!(csa.open(&seal(4, b"")).unwrap_err(), Drop::InnerHeader);
    assert_eq!(
        csa.open(&seal(4, &[0x44; 40])).unwrap_err(),
        Drop::InnerHeader
    );
    assert_eq!(
        csa.open(&seal(4, &[0x75; 40])).unwrap_err(),
        Drop::InnerHeader
    );
    assert_eq!(
        csa.open(&seal(4, &datagram()[..12])).unwrap_err(),
        Drop::InnerHeader
    );
    assert_eq!(
        csa.open(&seal(41, &datagram())).unwrap_err(),
        Drop::NextHeader
    );
    assert_eq!(
        csa.open(&seal(4, &ipv6(17, &udp(b"", true)))).unwrap_err(),
        Drop::NextHeader
    );
}

/// Inner source, destination and protocol must be the CSA's inbound selector's (docs/wire.md 1.9t).
#[test]
fn what_is_not_the_selectors_is_dropped() {
    let open = |selector, datagram: &[u8]| {
        let csa = Csa {
            selector: Some(selector),
            ..Csa::tunnel()
        };
        csa.open(&csa.seal(1, datagram)).map(|(_, out)| out)
    };
    let tcp4 = datagram();
    assert_eq!(open(hosts(0, SRC, DST), &tcp4).unwrap(), tcp4);
    assert_eq!(open(hosts(6, SRC, DST), &tcp4).unwrap(), tcp4);
    assert_eq!(open(any(4, 6), &tcp4).unwrap(), tcp4);
    for selector in [
        hosts(17, SRC, DST),
        hosts(0, [192, 0, 2, 11], DST),
        hosts(0, SRC, [203, 0, 113, 8]),
        hosts(0, DST, SRC),
        any(6, 0),
        Selector::new(4, 0, [0; 16], 0, v4([203, 0, 113, 128]), 25).unwrap(),
    ] {
        assert_eq!(
            open(selector, &tcp4).unwrap_err(),
            Drop::Selector,
            "{selector:?}"
        );
    }
}

/// Ports too, and what shows none isn't the selector's (docs/wire.md 1.9t, 2.3m).
#[test]
fn what_has_other_ports_or_none_is_dropped() {
    let range = |first, last| PortRange { first, last };
    let open = |selector: Selector, mode: Csa, datagram: &[u8]| {
        let outer = ip::addresses(&ipv4(50, &[], 0, &[])).unwrap();
        let csa = Csa {
            selector: Some(selector),
            ..mode
        };
        let packet = csa.seal_as(1, 17, datagram, 0).unwrap();
        let mut end = Terminus::starting_at(&csa, 0);
        end.outer = Some(outer);
        end.open(&packet).map(|(_, out)| out)
    };
    let segment = udp(b"payload of some length", true);
    let ports = ip::Ports::of(*segment.first_chunk().unwrap());
    let right = |port| range(port, port);
    let wrong = |port: u16| range(port + 1, u16::MAX);
    let whole = ipv4(17, &[], 0, &segment);
    for (src, dst, fits) in [
        (right(ports.src), right(ports.dst), true),
        (range(0, ports.src), PortRange::ANY, true),
        (wrong(ports.src), PortRange::ANY, false),
        (PortRange::ANY, wrong(ports.dst), false),
        (right(ports.dst), right(ports.src), false),
    ] {
        let selector = hosts(17, SRC, DST).with_ports(src, dst).unwrap();
        for (mode, sealed) in [(Csa::transport(), &segment), (Csa::tunnel(), &whole)] {
            let sealed = if mode.sa().map.mode() == Mode::Tunnel {
                open_tunnel(selector, mode, sealed)
            } else {
                open(selector, mode, sealed)
            };
            assert_eq!(sealed.is_ok(), fits, "{src:?} {dst:?}");
        }
    }
    // Fragments, and what ends within its ports.
    let selector = hosts(17, SRC, DST);
    let one = selector
        .with_ports(right(ports.src), right(ports.dst))
        .unwrap();
    for offset in [0x2000, 0x0001, 0x2001] {
        let fragment = ipv4(17, &[], offset, &segment);
        assert!(open_tunnel(selector, Csa::tunnel(), &fragment).is_ok());
        assert_eq!(
            open_tunnel(one, Csa::tunnel(), &fragment).unwrap_err(),
            Drop::Selector
        );
    }
    for len in 0..4 {
        assert_eq!(
            open(one, Csa::transport(), &segment[..len]).unwrap_err(),
            Drop::Selector
        );
        let short = ipv4(17, &[], 0, &segment[..len]);
        assert_eq!(
            open_tunnel(one, Csa::tunnel(), &short).unwrap_err(),
            Drop::Selector
        );
    }
}

/// What comes out of a tunnel of this selector.
fn open_tunnel(selector: Selector, mode: Csa, datagram: &[u8]) -> Result<Vec<u8>, Drop> {
    let csa = Csa {
        selector: Some(selector),
        ..mode
    };
    csa.open(&csa.seal(1, datagram)).map(|(_, out)| out)
}

/// In transport mode the selector is about the outer addresses and the trailer's protocol (docs/wire.md 1.7b, 1.9t).
#[test]
fn transport_mode_checks_the_outer_addresses() {
    let outer = ip::addresses(&ipv4(50, &[], 0, &[])).unwrap();
    let csa = Csa {
        selector: Some(hosts(6, SRC, DST)),
        ..Csa::transport()
    };
    let segment = tcp(&[], b"data");
    let packet = csa.seal(1, &segment);
    let mut end = Terminus::starting_at(&csa, 0);
    end.outer = Some(outer);
    assert_eq!(end.open(&packet).unwrap().1, segment);
    assert_eq!(
        end.open(&csa.seal_as(2, 17, &udp(b"", true), 0).unwrap())
            .unwrap_err(),
        Drop::Selector
    );
    end.outer = None;
    assert_eq!(
        end.open(&csa.seal(3, &segment)).unwrap_err(),
        Drop::Selector,
        "addresses that aren't known don't match"
    );
    end.outer = Some(ip::Addresses {
        src: v4([192, 0, 2, 11]),
        ..outer
    });
    assert_eq!(
        end.open(&csa.seal(4, &segment)).unwrap_err(),
        Drop::Selector
    );
}

/// Each zone has its own key: with either one wrong the packet is dropped at that zone (docs/wire.md 1.2b).
#[test]
fn each_zone_has_its_own_key() {
    let packet = Csa::tunnel().seal(1, &datagram());
    let mut other = Csa::tunnel();
    other.keys[0] = common::Ring::new("aes256-gcm16", &[9; 32]);
    assert_eq!(other.open(&packet).unwrap_err(), Drop::Icv1);
    let mut other = Csa::tunnel();
    other.keys[1] = common::Ring::new("aes128-gcm16", &[9; 16]);
    assert_eq!(other.open(&packet).unwrap_err(), Drop::Icv2);
}

/// The reasons' order is the counters', and every name is its own (docs/wire.md 1.9a).
#[test]
fn reasons_are_numbered_and_named_once() {
    let mut names: Vec<_> = Drop::ALL.iter().map(|reason| reason.name()).collect();
    for (i, reason) in Drop::ALL.iter().enumerate() {
        assert_eq!(reason.index(), i);
    }
    assert!(names.iter().all(|name| name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Drop::COUNT);
}
