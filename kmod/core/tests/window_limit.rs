// SPDX-License-Identifier: GPL-2.0-only
//! The limit on the window a host advertises: the field is changed only where what it means is known.

mod common;

use mml_core::checksum;
use mml_core::tcp;
use mml_core::window::{Look, Scales, Side};
use mml_core::zone::Mode;
use proptest::prelude::*;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Zone 1 of a TCP segment, its checksum moved.
fn zone1(flags: u8, seq: u32, window: u16, options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let total = 40 + options.len();
    let mut head = vec![0; 40];
    head[0] = 0x45;
    head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    head[8] = 64;
    head[9] = 6;
    head[12..20].copy_from_slice(&[203, 0, 113, 7, 192, 0, 2, 10]);
    head[20..24].copy_from_slice(&[0x12, 0x34, 0, 80]);
    head[24..28].copy_from_slice(&seq.to_be_bytes());
    head[32] = ((20 + options.len()) as u8 / 4) << 4;
    head[33] = flags;
    head[34..36].copy_from_slice(&window.to_be_bytes());
    head.extend(options);
    head
}

fn look(flags: u8, seq: u32, window: u16, options: &[u8]) -> Look {
    Look::read(&zone1(flags, seq, window, options)).expect("a TCP header")
}

const SCALE: fn(u8) -> [u8; 4] = |shift| [1, 3, 3, shift];

/// A connection whose SYNs offer these.
fn connected(initiator: Side, first: &[u8], second: &[u8]) -> Scales {
    let responder = if initiator == Side::Host {
        Side::Peer
    } else {
        Side::Host
    };
    let mut scales = Scales::default();
    scales.note(initiator, &look(SYN, 100, 1000, first));
    scales.note(responder, &look(SYN | ACK, 900, 1000, second));
    scales
}

/// docs/wire.md 1.5k, 1.5m.
#[test]
fn the_field_is_limited_in_units_of_the_hosts_own_shift() {
    for initiator in [Side::Host, Side::Peer] {
        let (host, peer) = (SCALE(7), SCALE(2));
        let scales = match initiator {
            Side::Host => connected(initiator, &host, &peer),
            Side::Peer => connected(initiator, &peer, &host),
        };
        assert_eq!(scales.shift(Side::Host), Some(7));
        assert_eq!(scales.shift(Side::Peer), Some(2));
        assert_eq!(scales.clamp(&look(ACK, 101, 5000, &[]), 65_536), Some(512));
        assert_eq!(scales.clamp(&look(ACK, 101, 512, &[]), 65_536), None);
        assert_eq!(scales.clamp(&look(ACK, 101, 0, &[]), 65_536), None);
    }
}

/// docs/wire.md 1.5k.
#[test]
fn without_both_offers_nothing_is_shifted() {
    for (first, second) in [(&SCALE(7)[..], &[][..]), (&[], &SCALE(7)), (&[], &[])] {
        // RFC 7323 §2.2: a SYN that answers one without the option has none; if one has it all the same, nothing is known.
        let scales = connected(Side::Host, first, second);
        let expected = if second.is_empty() { Some(0) } else { None };
        assert_eq!(scales.shift(Side::Host), expected);
    }
    let scales = connected(Side::Host, &SCALE(7), &[]);
    assert_eq!(
        scales.clamp(&look(ACK, 101, 30_000, &[]), 16_384),
        Some(16_384)
    );
}

/// docs/wire.md 1.5l.
#[test]
fn a_connection_whose_syns_were_not_both_seen_is_left_alone() {
    let mut scales = Scales::default();
    let ack = look(ACK, 101, u16::MAX, &[]);
    assert_eq!(scales.clamp(&ack, 1000), None);
    scales.note(Side::Host, &look(SYN, 100, 1000, &SCALE(7)));
    assert_eq!(scales.clamp(&ack, 1000), None);
    // The answer alone says how its sender shifts, and nothing of the other side.
    let mut scales = Scales::default();
    scales.note(Side::Host, &look(SYN | ACK, 900, 1000, &SCALE(3)));
    assert_eq!(scales.shift(Side::Host), Some(3));
    assert_eq!(scales.shift(Side::Peer), None);
    let mut scales = Scales::default();
    scales.note(Side::Peer, &look(SYN | ACK, 900, 1000, &SCALE(3)));
    assert_eq!(scales.shift(Side::Host), None);
}

#[test]
fn a_repeated_syn_changes_nothing_and_a_new_one_forgets() {
    let mut scales = connected(Side::Host, &SCALE(7), &SCALE(2));
    scales.note(Side::Host, &look(SYN, 100, 1000, &SCALE(7)));
    assert_eq!(scales.shift(Side::Host), Some(7));
    scales.note(Side::Host, &look(SYN, 101, 1000, &SCALE(7)));
    assert_eq!(scales.shift(Side::Host), None);
    scales.note(Side::Peer, &look(SYN | ACK, 5, 1000, &[]));
    assert_eq!(scales.shift(Side::Host), Some(0));
}

/// docs/wire.md 1.5l.
#[test]
fn a_syn_sent_again_with_another_offer_is_never_trusted() {
    let mut scales = Scales::default();
    for options in [&SCALE(7)[..], &SCALE(8), &SCALE(7), &SCALE(8)] {
        scales.note(Side::Host, &look(SYN, 100, 1000, options));
    }
    scales.note(Side::Peer, &look(SYN | ACK, 900, 1000, &SCALE(2)));
    assert_eq!(scales.shift(Side::Host), None);
    assert_eq!(scales.shift(Side::Peer), Some(2));
}

/// docs/wire.md 1.5l.
#[test]
fn malformed_and_doubled_options_say_nothing() {
    for options in [
        &[3, 3, 7, 3, 3, 8][..],
        &[3, 2, 1, 1],
        &[3, 4, 7, 0],
        &[3, 0, 0, 0],
        &[3, 60, 7, 0],
        &[2, 1, 0, 0],
    ] {
        let scales = connected(Side::Peer, &SCALE(7), options);
        assert_eq!(scales.shift(Side::Host), None, "{options:?}");
    }
    // Behind the end of the options nothing counts; a shift above 14 counts as 14 (RFC 7323 §2.3).
    assert_eq!(
        connected(Side::Peer, &SCALE(7), &[0, 3, 3, 7]).shift(Side::Host),
        Some(0)
    );
    assert_eq!(
        connected(Side::Peer, &SCALE(7), &SCALE(255)).shift(Side::Host),
        Some(14)
    );
}

/// docs/wire.md 1.5m, 1.5n.
#[test]
fn a_syns_own_field_is_never_shifted_and_a_reset_is_left_alone() {
    let scales = Scales::default();
    assert_eq!(
        scales.clamp(&look(SYN, 1, 64_000, &SCALE(7)), 10_000),
        Some(9984)
    );
    assert_eq!(
        scales.clamp(&look(SYN, 1, 64_000, &[]), 10_000),
        Some(10_000)
    );
    assert_eq!(
        scales.clamp(&look(SYN, 1, 64_000, &SCALE(14)), 100_000),
        None
    );
    let scales = connected(Side::Host, &SCALE(7), &SCALE(2));
    assert_eq!(scales.clamp(&look(RST | ACK, 1, 64_000, &[]), 10_000), None);
}

/// docs/wire.md 1.5m.
#[test]
fn a_limit_below_one_unit_leaves_one_unit() {
    let scales = connected(Side::Host, &SCALE(14), &SCALE(2));
    assert_eq!(scales.clamp(&look(ACK, 1, 64_000, &[]), 1), Some(1));
}

proptest! {
    /// Whatever the window and the limit, what comes out is never more than what was there nor than the limit (but for
    /// one unit), never 0 where it wasn't, and the checksum that is restored is that of the segment as it is now
    /// (docs/wire.md 1.4b, 1.5m).
    #[test]
    fn a_lowered_window_keeps_the_checksum_good(
        shift in 0u8..=14,
        window in 1u16..,
        limit in 1u32..(1 << 30),
        checksum: u16,
    ) {
        let scales = connected(Side::Host, &SCALE(shift), &SCALE(0));
        let mut zone = zone1(ACK, 101, window, &[]);
        let seen = Look::read(&zone).unwrap();
        if let Some(to) = scales.clamp(&seen, limit) {
            prop_assert!(to < window && to > 0);
            prop_assert!(u32::from(to) << shift <= limit.max(1 << shift));
            prop_assert!(tcp::rewrite_window(&mut zone, Mode::Tunnel, 0, to));
            let field = u16::from_be_bytes([zone[36], zone[37]]);
            let restored = checksum::restore(field, checksum);
            prop_assert_eq!(restored, checksum::update16(checksum, window, to));
            prop_assert_eq!(&zone[34..36], &to.to_be_bytes());
        } else {
            prop_assert!(u32::from(window) <= (limit >> shift).clamp(1, 65_535));
        }
    }

    #[test]
    fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..120), host: bool) {
        let mut zone = zone1(SYN, 1, 1, &[]);
        zone.truncate(20);
        zone.extend(octets);
        if let Some(look) = Look::read(&zone) {
            let mut scales = Scales::default();
            scales.note(if host { Side::Host } else { Side::Peer }, &look);
            let _ = scales.clamp(&look, 1000);
        }
    }
}
