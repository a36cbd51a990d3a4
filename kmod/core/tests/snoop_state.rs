// SPDX-License-Identifier: GPL-2.0-only
//! What goes along with a mobile host to the next foreign agent, and what that one makes of it (`docs/snoop.md`).

mod fa;

use fa::state::{all, v4, Raw, FIN, SACK};
use fa::{acknowledgement, segment, Fa, MS};
use mml_core::snoop::{Segment, Settings, States, Verdict};
use proptest::prelude::*;

fn nth(index: u32) -> Segment {
    segment(index * 10, 10)
}

fn up_to(next: u32, blocks: &[(u32, u32)]) -> Segment {
    let blocks: Vec<_> = blocks.iter().map(|b| (b.0 * 10, b.1 * 10)).collect();
    acknowledgement(next * 10, 1_000, &blocks)
}

fn again(fa: &mut Fa) -> Vec<u32> {
    let out = fa.kept.out.drain(..);
    out.map(|packet| packet.seq / 10).collect()
}

/// The foreign agent of before: 20 segments of 10 octets have gone to the host, which acknowledged 12 of them, each after
/// 5 ms; one of them had to be sent again.
fn previous() -> Fa {
    let mut fa = Fa::new(64, Settings::default());
    for index in 0..20 {
        fa.data(&nth(index), u64::from(index) + 1, true, true);
        if index < 12 {
            fa.now += 5 * MS;
            if index == 6 {
                assert_eq!(fa.ack(&up_to(index, &[])), Verdict::Suppress);
                assert_eq!(again(&mut fa), [6]);
                fa.now += 5 * MS;
            }
            assert_eq!(fa.ack(&up_to(index + 1, &[])), Verdict::Forward);
        }
    }
    fa
}

/// The next one: nothing has passed it.
fn next(previous: &Fa) -> Fa {
    let mut fa = Fa::new(64, Settings::default());
    fa.now = previous.now + 20 * MS;
    fa
}

fn state_of(fa: &Fa) -> mml_core::snoop::State {
    fa.flow.state(Raw::quiet(0).ends()).expect("a state")
}

/// Passes these segments, under the numbers they had.
fn pass(fa: &mut Fa, segments: impl IntoIterator<Item = u32>) {
    for index in segments {
        fa.data(&nth(index), u64::from(index) + 1, true, true);
    }
}

/// docs/wire.md 3.4a, 3.4b.
#[test]
fn a_state_is_written_as_the_text_says() {
    let previous = previous();
    let mut buffer = [0xEE; States::LEN];
    let octets = States::write(&mut buffer, [state_of(&previous)].into_iter());
    // Of the variation of ten samples alike little is left.
    let variation = u32::from_be_bytes(octets[68..72].try_into().unwrap());
    assert!(variation < 1_000, "{variation}");
    let raw = Raw {
        next: 200,
        data: [5_000, variation, 5_000],
        repair: [5_000, 2_500, 5_000],
        ..Raw::quiet(120)
    };
    assert_eq!(octets, all(&[raw]));
    assert_eq!(octets.len(), States::len_of(1));
}

/// docs/wire.md 3.4c.
#[test]
fn what_cannot_be_is_refused_whole() {
    let sound = Raw::quiet(100);
    let reason = |octets: &[u8]| States::parse(octets).map(|_| ()).map_err(|absurd| absurd.0);
    let one = |change: fn(&mut Raw)| {
        let mut raw = sound;
        raw.ports.1 += 1;
        change(&mut raw);
        reason(&all(&[sound, raw]))
    };
    assert_eq!(one(|_| {}), Ok(()));
    assert_eq!(one(|raw| raw.next += 1 << 30), Ok(()));
    assert_eq!(
        one(|raw| (raw.flags, raw.next, raw.fin) = (FIN, 101, 101)),
        Ok(())
    );
    assert_eq!(one(|raw| raw.family = 6), Ok(()));
    let absurd: [fn(&mut Raw); 14] = [
        |raw| raw.family = 5,
        |raw| raw.src[4] = 1,
        |raw| raw.dst[15] = 1,
        |raw| raw.flags = 4,
        |raw| raw.ports.0 = 0,
        |raw| raw.ports.1 = 0,
        |raw| raw.ports.1 -= 1,
        |raw| raw.next -= 1,
        |raw| raw.next += (1 << 30) + 1,
        |raw| raw.fin = 100,
        |raw| (raw.flags, raw.fin) = (FIN, 100),
        |raw| (raw.flags, raw.next, raw.fin) = (FIN, 110, 111),
        |raw| raw.duplicates = 8_193,
        |raw| raw.data = [60_000_001, 1, 1],
    ];
    for change in absurd {
        assert!(one(change).is_err(), "{:?}", change as *const ());
    }
    assert!(one(|raw| raw.repair = [1, 0, 1]).is_err());

    let octets = all(&[sound]);
    for len in 0..octets.len() {
        assert!(reason(&octets[..len]).is_err(), "{len} octets");
    }
    assert!(reason(&[octets.as_slice(), &[0]].concat()).is_err());
    for at in 0..6 {
        let mut octets = octets.clone();
        octets[at] ^= 2;
        assert!(reason(&octets).is_err(), "octet {at}");
    }
    let many = |count: u16| -> Vec<Raw> {
        let flow = |port| Raw {
            ports: (80, port + 1),
            ..sound
        };
        (0..count).map(flow).collect()
    };
    assert_eq!(reason(&all(&many(32))), Ok(()));
    assert!(reason(&all(&many(33))).is_err());
}

#[test]
fn a_flow_nobody_answered_or_that_is_over_has_no_state() {
    let mut fa = Fa::new(64, Settings::default());
    let ends = Raw::quiet(0).ends();
    assert_eq!(fa.flow.state(ends), None);
    pass(&mut fa, 0..3);
    assert_eq!(fa.flow.state(ends), None);
    fa.ack(&up_to(1, &[]));
    assert!(fa.flow.state(ends).is_some());
    fa.ack(&Segment {
        rst: true,
        ..up_to(1, &[])
    });
    assert_eq!(fa.flow.state(ends), None);
}

/// All that was under way got lost on the new hop, the last segment too, so that no acknowledgement tells of it.
#[test]
fn a_loss_that_nothing_tells_of_is_repaired_with_the_state_and_not_without() {
    let previous = previous();
    let state = state_of(&previous);
    for along in [true, false] {
        let mut fa = next(&previous);
        if along {
            assert!(fa.take_over(&state));
        }
        pass(&mut fa, 12..20);
        let begin = fa.now;
        let mut first = None;
        while fa.now < begin + 150 * MS {
            fa.now += MS;
            fa.timer();
            if !again(&mut fa).is_empty() && first.is_none() {
                first = Some(fa.now - begin);
            }
        }
        if along {
            // By the hop's round trips: twice the time-out of nothing known would be 200 ms.
            assert!(first.is_some_and(|at| at < 60 * MS), "{first:?}");
            assert!(fa.flow.counters.by_timer > 0);
        } else {
            assert_eq!(first, None, "nobody has answered here");
        }
    }
}

/// Without SACK a duplicate is one only if its window is that of the acknowledgement before (RFC 5681 §2).
#[test]
fn the_first_duplicate_repairs_with_the_state_and_not_without() {
    let previous = previous();
    let state = state_of(&previous);
    for along in [true, false] {
        let mut fa = next(&previous);
        if along {
            assert!(fa.take_over(&state));
        }
        pass(&mut fa, 12..20);
        // 12 got lost. The sender hears of it: of what was told before the handoff nobody knows what arrived.
        assert_eq!(fa.ack(&up_to(12, &[])), Verdict::Forward);
        assert_eq!(again(&mut fa), if along { vec![12] } else { vec![] });
        assert_eq!(fa.ack(&up_to(12, &[])), Verdict::Suppress);
    }
}

/// With SACK a bare duplicate tells of no loss, here too.
#[test]
fn that_a_flow_has_sack_goes_along() {
    let mut previous = previous();
    assert_eq!(previous.ack(&up_to(12, &[(13, 14)])), Verdict::Suppress);
    let state = state_of(&previous);
    let mut fa = next(&previous);
    assert!(fa.take_over(&state));
    pass(&mut fa, 12..20);
    fa.ack(&up_to(12, &[]));
    assert_eq!(fa.ack(&up_to(12, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
    assert_eq!(fa.ack(&up_to(12, &[(14, 15)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [12, 13]);
}

/// What comes straight overtakes what follows from the previous foreign agent.
#[test]
fn copies_that_come_behind_newer_segments_are_kept() {
    let previous = previous();
    let state = state_of(&previous);
    // The state may come before all of them, in between or behind, or never.
    for when in 0..4 {
        let mut fa = next(&previous);
        let takes = |fa: &mut Fa, now| {
            if when == now {
                assert!(fa.take_over(&state));
            }
        };
        takes(&mut fa, 0);
        pass(&mut fa, 20..23);
        takes(&mut fa, 1);
        // Two that the host has already are among them.
        pass(&mut fa, 10..20);
        takes(&mut fa, 2);
        let kept: Vec<u32> = fa.kept_packets().iter().map(|p| p.seq / 10).collect();
        let expected = if when < 3 { 12..23 } else { 10..23 };
        assert_eq!(kept.len(), expected.len(), "{when}: {kept:?}");
        assert!(
            expected.into_iter().all(|index| kept.contains(&index)),
            "{when}: {kept:?}"
        );
        // 12 and 15 got lost.
        fa.ack(&up_to(12, &[(13, 15), (16, 20)]));
        assert_eq!(again(&mut fa), [12, 15], "{when}");
        assert_eq!(
            fa.ack(&up_to(12, &[(13, 15), (16, 21)])),
            Verdict::Suppress,
            "{when}"
        );
        fa.now += MS;
        assert_eq!(fa.ack(&up_to(23, &[])), Verdict::Forward, "{when}");
        assert_eq!(fa.flow.cached(), 0);
    }
}

/// The acknowledgement of the last that the previous one forwarded arrives by the next one, which saw nothing of it.
#[test]
fn an_acknowledgement_of_what_passed_elsewhere_is_believed() {
    let previous = previous();
    let mut fa = next(&previous);
    assert!(fa.take_over(&state_of(&previous)));
    assert_eq!(fa.ack(&up_to(20, &[])), Verdict::Forward);
    assert_eq!(
        (fa.flow.acknowledged(), fa.flow.counters.ahead),
        (Some(200), 0)
    );
    assert_eq!(fa.ack(&up_to(21, &[])), Verdict::Forward);
    assert_eq!(
        (fa.flow.acknowledged(), fa.flow.counters.ahead),
        (Some(200), 1)
    );
}

/// docs/wire.md 3.4d.
#[test]
fn what_was_learned_here_is_newer() {
    let previous = previous();
    let mut fa = next(&previous);
    pass(&mut fa, 12..25);
    fa.ack(&up_to(15, &[]));
    assert!(!fa.take_over(&state_of(&previous)));
    assert_eq!(fa.flow.acknowledged(), Some(150));
    // Nor is it that of another connection between the same ends.
    let mut fa = next(&previous);
    pass(&mut fa, 12..25);
    assert!(!fa.take_over(&Raw::quiet(1 << 31).state()));
    assert_eq!(fa.flow.cached(), 13);
}

/// The end of a connection that left, and so never answers here.
#[test]
fn a_flow_taken_over_from_a_liar_is_sent_a_bounded_number_of_times() {
    let mut fa = Fa::new(64, Settings::default());
    let liar = Raw {
        data: [1; 3],
        ..Raw::quiet(0)
    };
    assert!(fa.take_over(&liar.state()));
    pass(&mut fa, 0..64);
    let mut sent = 0;
    while fa.now < 20_000 * MS {
        fa.now += MS;
        if !fa.timer() {
            break;
        }
        sent += again(&mut fa).len();
    }
    assert!(fa.flow.is_closed());
    assert!(sent <= 3 * 64, "{sent}");
}

fn anything() -> impl Strategy<Value = Raw> {
    let address = || any::<[u8; 4]>().prop_map(|a| v4(a[0], a[1], a[2], a[3]));
    let rtt = || prop_oneof![Just([0u32; 3]), prop::array::uniform3(1u32..=60_000_000)];
    let numbers = (any::<u32>(), 0u32..=1 << 30, 0u32..=8_192, any::<u16>());
    let rest = (any::<bool>(), any::<bool>(), 1u16.., 1u16..);
    (address(), address(), numbers, rest, rtt(), rtt()).prop_map(
        |(src, dst, (una, sent, duplicates, window), (sack, fin, from, to), data, repair)| {
            let fin = fin && sent > 0;
            let next = una.wrapping_add(sent);
            Raw {
                family: 4,
                flags: u8::from(sack) * SACK + u8::from(fin) * FIN,
                window,
                ports: (from, to),
                src,
                dst,
                una,
                next,
                fin: if fin { next } else { 0 },
                duplicates,
                data,
                repair,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_refused_or_written_back_as_they_came(octets in prop::collection::vec(any::<u8>(), 0..200), sound: bool) {
        // Most octets fail at the head.
        let octets = if sound { [&[1, 0, 0, 0, 0, 0, 0, (octets.len() / 80) as u8], octets.as_slice()].concat() } else { octets };
        if let Ok(states) = States::parse(&octets) {
            let mut buffer = [0; States::LEN];
            prop_assert_eq!(States::write(&mut buffer, states.flows()), octets);
        }
    }

    #[test]
    fn what_is_sound_is_read_and_written_back_and_a_flow_takes_it_over(raw in anything(), sealed: bool) {
        let octets = all(&[raw]);
        let states = States::parse(&octets).map_err(|absurd| TestCaseError::fail(format!("{absurd:?}")))?;
        let mut buffer = [0; States::LEN];
        prop_assert_eq!(States::write(&mut buffer, states.flows()), octets.as_slice());
        let state = states.flows().next().expect("one");
        let mut fa = Fa::new(8, Settings::default());
        prop_assert!(fa.take_over(&state));
        // What was taken over and never confirmed goes on as it came.
        prop_assert_eq!(fa.flow.state(state.ends), Some(state));
        fa.data(&segment(raw.una, 10), u64::from(sealed), true, true);
        prop_assert_eq!(fa.flow.cached(), 1);
        prop_assert_eq!(fa.ack(&acknowledgement(raw.una, raw.window, &[])), Verdict::Forward);
    }
}
