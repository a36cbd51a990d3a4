// SPDX-License-Identifier: GPL-2.0-only
//! What SNOOP is made of: serial numbers, the ring of cached segments, and what it reads of a segment.

use mml_core::snoop::{after, before, Block, Ends, Segment, BLOCKS};
use proptest::prelude::*;

// The crate keeps the ring to itself: this is the same source, seen from inside.
#[path = "../src/snoop/ring.rs"]
#[allow(dead_code, reason = "the state machine uses the rest")]
mod ring;
#[path = "../src/snoop/serial.rs"]
#[allow(dead_code, reason = "the state machine uses the rest")]
mod serial;

use ring::{prepare, Ring, Slot};
use serial::{later, span};

/// Numbers round the places where 32 bits wrap or change sign.
fn edges() -> Vec<u32> {
    let mut edges = Vec::new();
    for base in [0u32, 1 << 30, 1 << 31, 3 << 30] {
        edges.extend((-3i64..=3).map(|off| (i64::from(base) + off) as u32));
    }
    edges
}

/// How far `b` lies ahead of `a`, from -2^31 on: RFC 9293 §3.4 in integers that don't wrap.
fn ahead(a: u32, b: u32) -> i64 {
    let distance = (i64::from(b) - i64::from(a)).rem_euclid(1 << 32);
    if distance >= 1 << 31 {
        distance - (1 << 32)
    } else {
        distance
    }
}

fn numbers_compare_as_integers_do(a: u32, b: u32) {
    let half = a.wrapping_sub(b) == 1 << 31;
    assert_eq!(before(a, b), ahead(a, b) > 0 || half, "{a:#x} {b:#x}");
    assert_eq!(after(a, b), ahead(b, a) > 0 || half, "{a:#x} {b:#x}");
    assert_eq!(before(a, b) && after(a, b), half, "{a:#x} {b:#x}");
    assert_eq!(a == b, !before(a, b) && !after(a, b), "{a:#x} {b:#x}");
    if !half {
        let gap = ahead(a, b);
        assert_eq!(i64::from(span(a, b)), gap.max(0), "{a:#x} {b:#x}");
        assert_eq!(later(a, b), if gap > 0 { b } else { a }, "{a:#x} {b:#x}");
        assert_eq!(later(a, b), later(b, a), "{a:#x} {b:#x}");
    }
}

#[test]
fn serial_numbers_are_compared_by_difference_at_every_edge() {
    let edges = edges();
    for a in &edges {
        for b in &edges {
            numbers_compare_as_integers_do(*a, *b);
        }
    }
    // All differences there are in the highest 9 bits, and the numbers beside them.
    for high in 0..512u32 {
        for low in [0, 1, u32::MAX] {
            numbers_compare_as_integers_do(0x1234_5678, (high << 23).wrapping_add(low));
        }
    }
}

/// Slots in use and the model's answer to the same steps.
#[derive(Clone, Debug)]
enum Step {
    /// Where, in thousandths of what is there, and the gap before it and its length.
    Insert(u32, u32, u32),
    Append(u32, u32),
    Pop,
    Remove(u32),
    Grow(usize),
    Find(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            2 => (0u32..1_000, 0u32..3, 1u32..4).prop_map(|(at, gap, len)| Step::Insert(at, gap, len)),
            6 => (0u32..3, 1u32..9).prop_map(|(gap, len)| Step::Append(gap, len)),
            3 => Just(Step::Pop),
            2 => (0u32..1_000).prop_map(Step::Remove),
            1 => (0usize..9).prop_map(Step::Grow),
            4 => (0u32..200).prop_map(Step::Find),
        ],
        1..200,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn serial_numbers_are_compared_by_difference_everywhere(a: u32, b: u32, near in -5i64..5) {
        numbers_compare_as_integers_do(a, b);
        numbers_compare_as_integers_do(a, (i64::from(a) + near) as u32);
        numbers_compare_as_integers_do(a, (i64::from(a) + (1 << 31) + near) as u32);
    }

    /// A ring is a vector with as many places as slots, each place at one slot.
    #[test]
    fn the_ring_is_a_vector(first: u32, size in 0usize..9, steps in steps()) {
        let mut slots = vec![Slot::default(); size];
        prepare(&mut slots);
        let (mut head, mut len) = (0, 0);
        let mut model: Vec<Slot> = Vec::new();
        for step in steps {
            let capacity = slots.len();
            let mut ring = Ring { slots: &mut slots, head: &mut head, len: &mut len };
            match step {
                Step::Append(gap, length) => {
                    let seq = model.last().map_or(first, |last| last.end).wrapping_add(gap);
                    let slot = Slot { seq, end: seq.wrapping_add(length), ..Slot::default() };
                    let place = ring.insert(model.len() as u32, slot);
                    prop_assert_eq!(place.is_some(), model.len() < capacity);
                    if let Some(place) = place {
                        model.push(Slot { place, ..slot });
                    }
                }
                Step::Insert(at, gap, length) => {
                    // Anywhere is right that keeps the order: in front of one, ending with it at the latest.
                    let at = at as usize * model.len() / 1_000;
                    let Some(next) = model.get(at).copied() else { continue };
                    let seq = next.seq.wrapping_sub(gap);
                    let end = later(seq.wrapping_add(1), next.end.wrapping_sub(length));
                    let slot = Slot { seq, end, ..Slot::default() };
                    let fits = at == 0 || {
                        let previous = &model[at - 1];
                        !before(seq, previous.seq) && !before(end, previous.end)
                    };
                    if !fits || after(end, next.end) {
                        continue;
                    }
                    let place = ring.insert(at as u32, slot);
                    prop_assert_eq!(place.is_some(), model.len() < capacity);
                    if let Some(place) = place {
                        model.insert(at, Slot { place, ..slot });
                    }
                }
                Step::Pop => {
                    let gone = ring.pop();
                    prop_assert_eq!(gone, (!model.is_empty()).then(|| model.remove(0)));
                }
                Step::Remove(at) => {
                    let at = at as usize * (model.len() + 1) / 1_000;
                    let gone = ring.remove(at as u32);
                    prop_assert_eq!(gone, (at < model.len()).then(|| model.remove(at)));
                }
                Step::Grow(by) => {
                    let mut into = vec![Slot::default(); capacity + by];
                    prop_assert!(ring.grow(&mut into));
                    if let Some(less) = capacity.checked_sub(1) {
                        prop_assert!(!ring.grow(&mut into[..less]));
                    }
                    slots = into;
                    head = 0;
                }
                Step::Find(offset) => {
                    let seq = first.wrapping_add(offset);
                    let expected = model.iter().position(|slot| after(slot.end, seq));
                    prop_assert_eq!(ring.find(seq) as usize, expected.unwrap_or(model.len()));
                }
            }
            let mut ring = Ring { slots: &mut slots, head: &mut head, len: &mut len };
            prop_assert_eq!(ring.len() as usize, model.len());
            prop_assert_eq!(ring.first(), model.first());
            for at in 0..model.len() + 2 {
                prop_assert_eq!(ring.get(at as u32), model.get(at));
                prop_assert_eq!(ring.get_mut(at as u32), model.get_mut(at));
            }
            let mut places: Vec<_> = slots.iter().map(|slot| slot.place).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..slots.len() as u16).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_ring_of_no_slots_takes_nothing() {
    let (mut head, mut len) = (0, 0);
    let mut ring = Ring {
        slots: &mut [],
        head: &mut head,
        len: &mut len,
    };
    assert_eq!(ring.insert(0, Slot::default()), None);
    assert_eq!(ring.pop(), None);
    assert_eq!(ring.remove(0), None);
    assert_eq!(ring.find(7), 0);
}

const ACK: u8 = 0x10;

/// A datagram as `Segment::parse` reads it.
fn datagram(seq: u32, ack: u32, flags: u8, window: u16, options: &[u8], payload: usize) -> Vec<u8> {
    let tcp = 20 + options.len();
    let total = 20 + tcp + payload;
    let mut packet = vec![0x45, 0];
    packet.extend((total as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 10, 203, 0, 113, 7]);
    packet.extend(80u16.to_be_bytes());
    packet.extend(50_000u16.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend(ack.to_be_bytes());
    packet.extend([(tcp as u8 / 4) << 4, flags]);
    packet.extend(window.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(options);
    packet.resize(total, 0xAA);
    packet
}

/// The SACK option with these blocks (RFC 2018 §3), and what pads it.
fn sack(blocks: &[Block]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for (start, end) in blocks {
        option.extend(start.to_be_bytes());
        option.extend(end.to_be_bytes());
    }
    option
}

fn parse(packet: &[u8]) -> (Ends, Segment) {
    Segment::parse(packet).expect("a segment")
}

#[test]
fn a_segment_is_read_as_it_stands_there() {
    let (ends, segment) = parse(&datagram(0xFFFF_FFF0, 7, ACK, 0x1234, &[], 100));
    assert_eq!((ends.src_port, ends.dst_port), (80, 50_000));
    assert_eq!(ends.src[..4], [192, 0, 2, 10]);
    assert_eq!(ends.dst[..4], [203, 0, 113, 7]);
    assert!(ends.src[4..].iter().chain(&ends.dst[4..]).all(|o| *o == 0));
    assert_eq!(ends.reversed().reversed(), ends);
    assert_eq!(ends.reversed().src, ends.dst);
    assert_eq!((segment.seq, segment.len), (0xFFFF_FFF0, 100));
    assert_eq!(segment.end(), 84, "it wraps");
    assert_eq!((segment.ack, segment.window), (Some(7), 0x1234));
    assert!(!segment.syn && !segment.fin && !segment.rst);
    assert_eq!(segment.sack(), []);
}

#[test]
fn syn_and_fin_take_a_number_each_and_no_ack_means_none() {
    let (_, segment) = parse(&datagram(5, 99, 0x02, 0, &[], 0));
    assert_eq!((segment.syn, segment.ack, segment.end()), (true, None, 6));
    let (_, segment) = parse(&datagram(5, 99, 0x01 | ACK, 0, &[], 3));
    assert_eq!(
        (segment.fin, segment.ack, segment.end()),
        (true, Some(99), 9)
    );
    let (_, segment) = parse(&datagram(5, 99, 0x04, 0, &[], 0));
    assert!(segment.rst);
}

#[test]
fn up_to_four_sack_blocks_are_read_beside_any_option() {
    let blocks = [(1, 2), (3, 4), (0xFFFF_FFFF, 1), (7, 8)];
    for count in 0..=BLOCKS {
        let (_, segment) = parse(&datagram(0, 0, ACK, 0, &sack(&blocks[..count]), 0));
        assert_eq!(segment.sack(), &blocks[..count]);
    }
    // Timestamps in front, an unknown option, three blocks: 40 octets.
    let mut options = vec![8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 253, 2];
    options.extend(sack(&blocks[..3]));
    let (_, segment) = parse(&datagram(0, 0, ACK, 0, &options, 9));
    assert_eq!(segment.sack(), &blocks[..3]);
    // Behind the end of the options nothing counts; neither do odd octets of a block that isn't whole.
    let mut options = vec![0, 0, 0, 0];
    options.extend(sack(&blocks[..2]));
    assert_eq!(parse(&datagram(0, 0, ACK, 0, &options, 0)).1.sack(), []);
    let options = [5, 12, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9];
    assert_eq!(
        parse(&datagram(0, 0, ACK, 0, &options, 0)).1.sack(),
        [(1, 2)]
    );
}

#[test]
fn malformed_options_end_the_reading_and_no_more() {
    for options in [
        [5u8, 0, 1, 1],
        [5, 1, 1, 1],
        [5, 3, 1, 1],
        [5, 255, 1, 1],
        [1, 1, 1, 5],
        [253, 0, 0, 0],
    ] {
        let (_, segment) = parse(&datagram(11, 22, ACK, 33, &options, 44));
        assert_eq!(segment.sack(), [], "{options:?}");
        assert_eq!(
            (segment.seq, segment.ack, segment.window, segment.len),
            (11, Some(22), 33, 44)
        );
    }
    // What came before the bad one stands.
    let mut options = sack(&[(1, 2)]);
    options.extend([253, 1, 0, 0]);
    assert_eq!(
        parse(&datagram(0, 0, ACK, 0, &options, 0)).1.sack(),
        [(1, 2)]
    );
}

#[test]
fn what_is_no_whole_header_of_tcp_is_none() {
    let packet = datagram(0, 0, ACK, 0, &sack(&[(1, 2)]), 20);
    let header = 20 + 20 + 12;
    for cut in 0..packet.len() {
        assert_eq!(
            Segment::parse(&packet[..cut]).is_some(),
            cut >= header,
            "{cut} octets"
        );
    }
    let with = |at: usize, octet: u8| {
        let mut packet = packet.clone();
        packet[at] = octet;
        Segment::parse(&packet)
    };
    assert!(with(9, 17).is_none(), "UDP");
    assert!(with(6, 0x20).is_none(), "a first fragment");
    assert!(with(7, 1).is_none(), "a later fragment");
    assert!(with(32, 0x40).is_none(), "a header of 16 octets");
    assert!(with(3, 51).is_none(), "shorter than its own headers");
    assert!(with(0, 0x65).is_none(), "IPv6 it isn't");
    let seen = with(3, 52).expect("a bare acknowledgement");
    assert_eq!(seen.1.len, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any octets: no panic, and what comes out is bounded by what went in.
    #[test]
    fn any_octets_are_read_or_refused(mut octets in prop::collection::vec(any::<u8>(), 0..100), tame: bool) {
        if tame {
            for (to, from) in octets.iter_mut().zip(datagram(1, 2, ACK, 3, &[], 0)) {
                *to = from;
            }
        }
        if let Some((_, segment)) = Segment::parse(&octets) {
            prop_assert!(segment.len < 65_536);
            prop_assert!(segment.sack().len() <= BLOCKS);
            prop_assert_eq!(segment.sack().len(), usize::from(segment.blocks));
        }
    }

    /// What was written is read.
    #[test]
    fn what_was_written_is_read(
        seq: u32, ack: u32, window: u16, payload in 0usize..1_461, blocks in prop::collection::vec(any::<Block>(), 0..=BLOCKS),
    ) {
        let (_, segment) = parse(&datagram(seq, ack, ACK, window, &sack(&blocks), payload));
        prop_assert_eq!((segment.seq, segment.ack, segment.window), (seq, Some(ack), window));
        prop_assert_eq!(segment.len as usize, payload);
        prop_assert_eq!(segment.sack(), &blocks[..]);
    }
}
