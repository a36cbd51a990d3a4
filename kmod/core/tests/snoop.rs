// SPDX-License-Identifier: GPL-2.0-only
//! The rules of SNOOP's state machine, one by one (`docs/snoop.md`).

mod fa;

use fa::{acknowledgement, segment, Fa, MS};
use mml_core::snoop::{Segment, Settings, Verdict};

/// Segments of 10 octets, numbered: a flow that has seen the handshake and `sent` of them, a millisecond apart, and
/// an acknowledgement of the first.
fn flowing(sent: u32, esp: bool, settings: Settings) -> Fa {
    let mut fa = Fa::new(64, settings);
    let syn = Segment {
        syn: true,
        ack: None,
        ..segment(u32::MAX, 0)
    };
    fa.data(&syn, 0, true, true);
    for index in 0..sent {
        fa.now += MS;
        fa.data(
            &nth(index),
            if esp { u64::from(index) + 1 } else { 0 },
            true,
            true,
        );
    }
    fa.now += 5 * MS;
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
    fa.now += MS;
    fa
}

fn nth(index: u32) -> Segment {
    segment(index * 10, 10)
}

/// Everything before segment `next` has arrived, and these ranges of segments.
fn up_to(next: u32, blocks: &[(u32, u32)]) -> Segment {
    let blocks: Vec<_> = blocks.iter().map(|b| (b.0 * 10, b.1 * 10)).collect();
    acknowledgement(next * 10, 1_000, &blocks)
}

/// Which segments were sent again since the last look.
fn again(fa: &mut Fa) -> Vec<u32> {
    let out = fa.kept.out.drain(..);
    out.map(|packet| packet.seq / 10).collect()
}

fn table_iii() -> Settings {
    Settings::new(50, 4, 100, 100, 1_000, 10_000).expect("settings")
}

#[test]
fn a_duplicate_has_the_hole_repaired_once_and_goes_no_further() {
    let mut fa = flowing(10, false, Settings::default());
    for _ in 0..5 {
        assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
        fa.now += MS;
    }
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(7, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
    assert_eq!(
        (fa.flow.counters.by_duplicate, fa.flow.counters.suppressed),
        (1, 5)
    );
}

#[test]
fn the_threshold_is_the_number_of_duplicates_it_takes() {
    let mut fa = flowing(10, false, table_iii());
    for _ in 0..3 {
        assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    }
    assert_eq!(again(&mut fa), []);
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn the_next_hole_is_inferred_from_the_duplicates_that_are_left() {
    let mut fa = flowing(10, false, Settings::default());
    // 1 and 4 are missing: 2, 3, 5, 6, 7 arrive.
    for _ in 0..5 {
        fa.ack(&up_to(1, &[]));
    }
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(4, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), [4]);
    assert_eq!(fa.ack(&up_to(8, &[])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
}

/// If the count is wrong, it doesn't have every segment sent twice.
#[test]
fn what_the_count_alone_tells_is_believed_three_times_in_a_row() {
    let mut fa = flowing(20, false, Settings::default());
    fa.ack(&up_to(1, &[]));
    fa.ack(&up_to(1, &[]));
    again(&mut fa);
    let mut copies = 0;
    for next in 2..20 {
        fa.now += MS;
        assert_eq!(fa.ack(&up_to(next, &[])), Verdict::Forward);
        copies += again(&mut fa).len();
    }
    assert_eq!(copies, 3);
}

#[test]
fn every_hole_below_a_sack_block_is_repaired_at_once() {
    let mut fa = flowing(20, false, Settings::default());
    assert_eq!(fa.ack(&up_to(1, &[(2, 3)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
    assert_eq!(fa.ack(&up_to(1, &[(6, 7), (2, 3)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [3, 4, 5]);
    assert_eq!(fa.flow.counters.by_sack, 4);
    // Eight for one acknowledgement, and the rest with the next.
    assert_eq!(
        fa.ack(&up_to(1, &[(17, 18), (6, 7), (2, 3)])),
        Verdict::Suppress
    );
    assert_eq!(again(&mut fa), [7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(
        fa.ack(&up_to(1, &[(17, 19), (6, 7), (2, 3)])),
        Verdict::Suppress
    );
    assert_eq!(again(&mut fa), [15, 16]);
}

#[test]
fn with_sack_a_bare_duplicate_asks_for_nothing_and_is_forwarded() {
    let mut fa = flowing(10, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    again(&mut fa);
    assert_eq!(fa.ack(&up_to(3, &[])), Verdict::Forward);
    for _ in 0..4 {
        assert_eq!(fa.ack(&up_to(3, &[])), Verdict::Forward);
        // One that tells of something that came twice (RFC 2883), likewise.
        assert_eq!(fa.ack(&up_to(3, &[(1, 2)])), Verdict::Forward);
    }
    assert_eq!(again(&mut fa), []);
}

#[test]
fn a_new_acknowledgement_whose_blocks_tell_of_a_repair_waits_up_to_half_a_window() {
    let mut fa = flowing(21, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 9)]));
    assert_eq!(again(&mut fa), [1]);
    // 9 is missing, three behind it have come; of 20 under way 8 are news.
    assert_eq!(fa.ack(&up_to(9, &[(10, 13)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [9]);
    // 13 is missing, and 12 are news: more than half.
    assert_eq!(fa.ack(&up_to(13, &[(14, 15)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [13]);
    // With one segment behind the hole it is a third: of 8 first 2, then 4.
    assert_eq!(fa.ack(&up_to(15, &[(16, 17)])), Verdict::Suppress);
    assert_eq!(fa.ack(&up_to(17, &[(18, 19)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [15, 17]);
    // Without blocks it goes on.
    assert_eq!(fa.ack(&up_to(19, &[])), Verdict::Forward);
}

#[test]
fn what_the_sender_repairs_it_is_told_of() {
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Suppress);
    fa.data(&nth(1), 0, true, true);
    assert_eq!(fa.flow.counters.sender, 1);
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(9, &[])), Verdict::Forward);
    // It doesn't know that 5 has arrived: the answer, a duplicate, is for it. 9 is missing, and cached.
    fa.data(&nth(5), 0, true, true);
    assert_eq!(fa.ack(&up_to(9, &[])), Verdict::Forward);
}

#[test]
fn a_hole_that_is_not_cached_is_the_senders() {
    let mut fa = flowing(5, false, Settings::default());
    // 5 was lost before it came here; 6 finds the queue full, 7 doesn't.
    fa.data(&nth(6), 0, false, true);
    fa.data(&nth(7), 0, true, true);
    assert_eq!(fa.flow.counters.queue_full, 1);
    assert_eq!(fa.ack(&up_to(5, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(5, &[])), Verdict::Forward);
    assert_eq!(fa.ack(&up_to(5, &[(7, 8)])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
}

#[test]
fn the_cache_is_no_larger_than_its_slots() {
    let mut fa = Fa::new(3, Settings::default());
    for index in 0..5 {
        fa.data(&nth(index), 0, true, true);
    }
    assert_eq!((fa.flow.cached(), fa.flow.counters.full), (3, 2));
    assert!(fa.flow.is_full(3));
    fa.grow(1);
    fa.data(&nth(5), 0, true, true);
    assert_eq!(fa.flow.cached(), 4);
}

#[test]
fn an_acknowledgement_with_news_of_its_own_is_not_hidden() {
    let duplicate = up_to(1, &[]);
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&duplicate), Verdict::Suppress);
    for news in [
        Segment {
            len: 5,
            ..duplicate
        },
        Segment {
            fin: true,
            ..duplicate
        },
        Segment {
            window: 999,
            ..duplicate
        },
        Segment {
            window: 0,
            ..duplicate
        },
        // It opens again.
        Segment {
            window: 1_000,
            ..duplicate
        },
    ] {
        assert_eq!(fa.ack(&news), Verdict::Forward, "{news:?}");
    }
    assert_eq!(fa.ack(&duplicate), Verdict::Suppress);
    // Of what never was sent.
    assert_eq!(fa.ack(&up_to(11, &[])), Verdict::Forward);
    assert_eq!(fa.flow.counters.ahead, 1);
}

#[test]
fn a_retransmission_is_lost_if_one_sent_after_it_is_answered() {
    let mut fa = flowing(20, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    fa.now += MS;
    fa.ack(&up_to(1, &[(4, 5), (2, 3)]));
    assert_eq!(again(&mut fa), [1, 3]);
    fa.now += MS;
    // The one of 3 has arrived, that of 1 has not.
    assert_eq!(fa.ack(&up_to(1, &[(2, 5)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn a_retransmission_is_lost_if_what_was_first_sent_after_it_arrives() {
    let mut fa = flowing(10, false, Settings::default());
    fa.ack(&up_to(1, &[(2, 3)]));
    assert_eq!(again(&mut fa), [1]);
    fa.data(&nth(10), 0, true, true);
    // It overtakes what waits; that tells nothing.
    assert_eq!(fa.ack(&up_to(1, &[(2, 10)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), []);
    assert_eq!(fa.ack(&up_to(1, &[(2, 11)])), Verdict::Suppress);
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn without_sack_more_duplicates_than_can_come_prove_it_too() {
    let mut fa = flowing(6, false, Settings::default());
    // 2 to 5 were sent before it: four duplicates, of which one has come.
    fa.ack(&up_to(1, &[]));
    assert_eq!(again(&mut fa), [1]);
    for _ in 0..3 {
        fa.ack(&up_to(1, &[]));
    }
    assert_eq!(again(&mut fa), []);
    fa.ack(&up_to(1, &[]));
    assert_eq!(again(&mut fa), [1]);
}

#[test]
fn a_retransmission_is_lost_if_its_answer_is_late() {
    let mut fa = flowing(40, false, Settings::default());
    // Its round trip is 4 ms, once: the time-out is 12 ms.
    fa.ack(&up_to(1, &[]));
    fa.now += 4 * MS;
    fa.ack(&up_to(5, &[]));
    again(&mut fa);
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), [5]);
    fa.now += 11 * MS;
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), []);
    fa.now += 2 * MS;
    fa.ack(&up_to(5, &[]));
    assert_eq!(again(&mut fa), [5]);
    // The next one may take a quarter longer. Without a duplicate the timer finds it.
    fa.now = fa.flow.deadline(&fa.settings);
    fa.timer();
    assert_eq!(again(&mut fa), [5]);
    assert_eq!(fa.flow.counters.by_timer, 1);
}

/// Of two copies that both arrive, one causes a duplicate that tells of no loss; under ESP none does.
#[test]
fn an_echo_of_a_copy_asks_for_nothing() {
    for esp in [false, true] {
        let mut fa = flowing(10, esp, Settings::default());
        fa.now = fa.flow.deadline(&fa.settings);
        fa.timer();
        assert_eq!(again(&mut fa), [1]);
        fa.now += 5 * MS;
        assert_eq!(fa.ack(&up_to(2, &[])), Verdict::Forward);
        assert_eq!(fa.ack(&up_to(2, &[])), Verdict::Suppress);
        assert_eq!(again(&mut fa), if esp { vec![2] } else { vec![] });
    }
}

#[test]
fn the_timer_tries_three_times_and_leaves_it_to_the_sender() {
    let mut fa = flowing(2, true, Settings::default());
    let mut copies = 0;
    let until = fa.now + 900 * MS;
    while fa.flow.deadline(&fa.settings) < until {
        fa.now = fa.flow.deadline(&fa.settings);
        assert!(fa.timer());
        copies += again(&mut fa).len();
    }
    assert_eq!(
        (copies, fa.flow.counters.gave_up, fa.flow.cached()),
        (3, 1, 0)
    );
    assert_eq!(fa.ack(&up_to(1, &[])), Verdict::Forward);
}

#[test]
fn the_last_segment_may_be_acknowledged_late() {
    let fa = flowing(2, false, Settings::default());
    let due = fa.flow.deadline(&fa.settings);
    assert!(due >= fa.now + 50 * MS, "{due} at {}", fa.now);
    assert!(due <= fa.now + 200 * MS, "{due} at {}", fa.now);
}

#[test]
fn silence_has_what_is_missing_sent_once_more_and_then_forgotten() {
    // Its own timers come later than the silence.
    let settings = Settings::new(50, 1, 3_000, 3_000, 1_000, 10_000).expect("settings");
    let mut fa = flowing(25, false, settings);
    fa.ack(&up_to(1, &[(3, 4)]));
    again(&mut fa);
    let silent = fa.now;
    fa.now = fa.flow.deadline(&fa.settings);
    assert_eq!(fa.now, silent + 1_000 * MS);
    assert!(fa.timer());
    let sent = again(&mut fa);
    assert_eq!(sent.len(), 16, "{sent:?}");
    assert_eq!(sent[..4], [1, 2, 4, 5]);
    assert_eq!(fa.flow.counters.by_persist, 16);
    fa.now = silent + 10_000 * MS - 1;
    assert!(fa.timer());
    fa.now += 1;
    assert!(!fa.timer());
    assert!(fa.flow.is_closed());
    assert_eq!(fa.kept_packets(), []);
}

#[test]
fn a_receiver_without_room_is_sent_nothing() {
    let mut fa = flowing(10, false, Settings::default());
    assert_eq!(fa.ack(&acknowledgement(10, 0, &[])), Verdict::Forward);
    for _ in 0..5 {
        assert_eq!(fa.ack(&acknowledgement(10, 0, &[])), Verdict::Forward);
    }
    fa.now += 5_000 * MS;
    assert!(fa.timer());
    assert_eq!(again(&mut fa), []);
}

#[test]
fn nothing_is_sent_to_someone_who_never_answered() {
    let mut fa = Fa::new(10, Settings::default());
    for index in 0..5 {
        fa.data(&nth(index), 0, true, true);
    }
    assert!(!fa.flow.is_confirmed() && fa.flow.acknowledged().is_none());
    fa.now += 5_000 * MS;
    assert!(fa.timer());
    assert_eq!(again(&mut fa), []);
    fa.now += 5_000 * MS;
    assert!(!fa.timer());
}

#[test]
fn what_the_replay_window_will_not_take_is_let_go() {
    let mut fa = flowing(10, true, Settings::default());
    // ESP numbers 2 to 10 are cached; 5 is the first that is still sure to be taken.
    fa.floor = 5;
    assert_eq!(fa.ack(&up_to(1, &[(2, 3)])), Verdict::Forward);
    assert_eq!(again(&mut fa), []);
    fa.data(&nth(10), 11, true, true);
    assert_eq!(fa.kept_packets().iter().map(|p| p.esp).min(), Some(5));
    assert_eq!(fa.flow.counters.too_old, 3);
    // Until the sender has repaired what was let go, it sees everything.
    assert_eq!(fa.ack(&up_to(1, &[(6, 7), (2, 3)])), Verdict::Forward);
    assert_eq!(again(&mut fa), [4, 5]);
}

#[test]
fn syn_begins_anew_and_rst_and_the_last_acknowledgement_end_it() {
    let mut fa = flowing(5, false, Settings::default());
    let syn = Segment {
        syn: true,
        ack: None,
        ..segment(700, 0)
    };
    fa.data(&syn, 0, true, true);
    assert_eq!(fa.flow.cached(), 0);
    assert!(!fa.flow.is_confirmed() && !fa.flow.is_closed());
    fa.data(&segment(701, 10), 0, true, true);
    let fin = Segment {
        fin: true,
        ..segment(711, 10)
    };
    fa.data(&fin, 0, true, true);
    assert_eq!(fa.ack(&acknowledgement(721, 1_000, &[])), Verdict::Forward);
    assert!(!fa.flow.is_closed());
    assert_eq!(fa.ack(&acknowledgement(722, 1_000, &[])), Verdict::Forward);
    assert!(fa.flow.is_closed());
    assert!(!fa.timer());

    for down in [true, false] {
        let mut fa = flowing(5, false, Settings::default());
        let rst = Segment {
            rst: true,
            ..acknowledgement(10, 0, &[])
        };
        if down {
            fa.data(&rst, 0, true, true);
        } else {
            assert_eq!(fa.ack(&rst), Verdict::Forward);
        }
        assert!(fa.flow.is_closed());
        assert_eq!(fa.kept_packets(), []);
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let new = Settings::new;
    assert_eq!(new(0, 1, 1, 1, 1, 1), Err("window"));
    assert_eq!(new(8_193, 1, 1, 1, 1, 1), Err("window"));
    assert_eq!(new(8_192, 0, 1, 1, 1, 1), Err("threshold"));
    assert_eq!(new(1, 1, 0, 1, 1, 1), Err("initial"));
    assert_eq!(new(1, 1, 1, 3_600_001, 1, 1), Err("minimum"));
    assert_eq!(new(1, 1, 1, 1, 0, 1), Err("persist"));
    assert_eq!(new(1, 1, 1, 1, 2, 1), Err("garbage"));
    let ours = new(1_024, 1, 100, 10, 1_000, 10_000);
    assert_eq!(ours, Ok(Settings::default()));
}
