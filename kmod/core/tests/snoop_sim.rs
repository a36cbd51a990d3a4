// SPDX-License-Identifier: GPL-2.0-only
//! What SNOOP is for, measured in simulated time: TCP over a lossy hop with it and without (`docs/snoop.md`).
//!
//! `tests/snapshots/snoop-sweep.txt` is what came of it. `SNOOP_SWEEP=write cargo test -p mml-core --test snoop_sim`
//! writes it anew; what changed in it is a change of behaviour, and belongs into the commit's message.

mod sim;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use mml_core::snoop::Settings;
use sim::random::{survival, Errors};
use sim::sender::Kind;
use sim::{run, Outcome, Setup, MS};

const KINDS: [Kind; 3] = [Kind::Reno, Kind::Sack, Kind::Rack];

/// The sum of some runs, each with other errors; `permille` is their mean.
fn runs(setup: &Setup, seeds: u64) -> Outcome {
    let mut all = Outcome::default();
    for seed in 1..=seeds {
        let one = run(&Setup {
            seed: seed * 7_919,
            ..*setup
        });
        assert!(one.done, "{setup:?} never ended: {one:?}");
        all.permille += one.permille;
        all.timeouts += one.timeouts;
        all.recoveries += one.recoveries;
        all.spurious += one.spurious;
        all.lost += one.lost;
        all.overflowed += one.overflowed;
        all.counters.add(&one.counters);
    }
    all.permille /= seeds;
    all
}

fn without(setup: &Setup, seeds: u64) -> Outcome {
    let none = Setup {
        snoop: None,
        ..*setup
    };
    runs(&none, seeds)
}

fn table_iii() -> Settings {
    Settings::new(50, 4, 100, 100, 1_000, 10_000).expect("settings")
}

/// The paper's link, and its error rates: 1 bit in 8 Mb to 1 in 64 kb.
#[test]
fn nine_tenths_of_the_hop_are_had_at_every_error_rate() {
    for kind in KINDS {
        for esp in [false, true] {
            for shift in 16..=23 {
                let setup = Setup {
                    kind,
                    esp,
                    down: 1 << shift,
                    ..Setup::default()
                };
                let got = runs(&setup, 2);
                assert!(got.permille >= 900, "{setup:?}: {got:?}");
                assert_eq!(got.timeouts, 0, "{setup:?}: {got:?}");
                assert!(got.spurious <= got.lost / 5 + 4, "{setup:?}: {got:?}");
            }
        }
    }
}

#[test]
fn errors_on_the_way_up_too_change_little() {
    for kind in KINDS {
        for esp in [false, true] {
            for shift in [16, 18, 20, 23] {
                let (down, up) = (1 << shift, 1 << shift);
                let setup = Setup {
                    kind,
                    esp,
                    down,
                    up,
                    ..Setup::default()
                };
                let got = runs(&setup, 2);
                assert!(got.permille >= 900, "{setup:?}: {got:?}");
                assert!(got.timeouts <= 1, "{setup:?}: {got:?}");
            }
        }
    }
}

/// Without losses SNOOP changes nothing: not one acknowledgement is hidden, nothing is sent twice.
#[test]
fn a_hop_without_errors_is_left_alone() {
    for kind in KINDS {
        for window in [6, 44, 200] {
            let setup = Setup {
                kind,
                window,
                ..Setup::default()
            };
            let (with, none) = (run(&setup), without(&setup, 1));
            assert_eq!(with.permille, none.permille, "{setup:?}");
            assert_eq!(with.counters.suppressed, 0, "{setup:?}: {with:?}");
            assert_eq!(with.spurious, 0, "{setup:?}: {with:?}");
        }
    }
}

/// A receiver that says what came twice (RFC 2883) teaches SNOOP that nothing was lost.
#[test]
fn a_hop_that_reorders_is_soon_not_repaired_for_it() {
    for kind in [Kind::Sack, Kind::Rack] {
        let setup = Setup {
            kind,
            late: 20,
            segments: 10_000,
            ..Setup::default()
        };
        let (with, none) = (runs(&setup, 2), without(&setup, 2));
        // About 1,000 were late.
        assert!(with.spurious <= 100, "{setup:?}: {with:?}");
        assert!(
            with.permille + 20 >= none.permille,
            "{setup:?}: {with:?} {none:?}"
        );
    }
}

/// A flow's sequence numbers may wrap anywhere: nothing of what happens depends on where they begin.
#[test]
fn where_sequence_numbers_begin_is_all_the_same() {
    for kind in KINDS {
        let outcome = |isn| {
            let setup = Setup {
                kind,
                isn,
                down: 1 << 17,
                segments: 500,
                ..Setup::default()
            };
            let got = run(&setup);
            (got.took, got.counters)
        };
        let first = outcome(0);
        for isn in [0x7FFF_F000, 0x8000_0000, 0xFFFF_F000, u32::MAX] {
            assert_eq!(outcome(isn), first, "{kind:?} from {isn:#x}");
        }
    }
}

/// A line of the table; and that SNOOP costs nothing where it doesn't help.
fn line(table: &mut String, what: &str, setup: &Setup, none: &Outcome, seeds: u64) {
    let with = runs(setup, seeds);
    let counters = with.counters;
    let again = counters.by_duplicate + counters.by_sack + counters.by_timer + counters.by_persist;
    writeln!(
        table,
        "{:4} {:5} {what} {:4} {:4} {:4} {:4} {:5} {:5} {:5} {:5}",
        format!("{:?}", setup.kind).to_lowercase(),
        if setup.esp { "esp" } else { "plain" },
        none.permille,
        with.permille,
        none.timeouts,
        with.timeouts,
        with.lost,
        again,
        with.spurious,
        counters.suppressed,
    )
    .expect("line");
    assert!(
        with.permille * 100 >= none.permille * 98,
        "{what}: {} without, {} with\n{setup:?}",
        none.permille,
        with.permille
    );
}

fn error(one_in: u64) -> String {
    if one_in == 0 {
        "none".into()
    } else {
        format!("{}k", one_in >> 10)
    }
}

fn sweep() -> String {
    let columns = "without   with  (sender's time-outs)  lost again twice hidden";
    let mut table = format!(
        "# Goodput of {SEGMENTS} segments in thousandths of what the hop carries at best (its rate x the share that\n\
         # survives): without SNOOP, with it. Then time-outs of the sender without it and with it, packets lost on the\n\
         # hop, sent again by SNOOP, received twice, and acknowledgements hidden.\n\n\
         # 2 Mb/s, one run a line: sender, framing, window, round trip in ms, one bit in so many wrong;\n\
         # {columns}\n"
    );
    for rtt in [10, 100, 300] {
        for window in [6, 44, 200] {
            for down in [1 << 23, 1 << 20, 1 << 18, 1 << 16] {
                for kind in KINDS {
                    let setup = Setup {
                        segments: SEGMENTS,
                        rtt: rtt * MS,
                        window,
                        down,
                        kind,
                        ..Setup::default()
                    };
                    let none = without(&setup, 1);
                    for esp in [false, true] {
                        let what = format!("{window:3} {rtt:3} {:>5}", error(down));
                        line(&mut table, &what, &Setup { esp, ..setup }, &none, 1);
                    }
                }
            }
        }
    }
    let base = Setup {
        segments: SEGMENTS,
        ..Setup::default()
    };
    writeln!(table, "\n# Elsewhere, two runs a line: sender, framing, what is different, one bit in so many wrong;\n# {columns}").expect("line");
    let places: [(&str, Setup); 11] = [
        (
            "table-iii",
            Setup {
                snoop: Some(table_iii()),
                ..base
            },
        ),
        ("both-ways", base),
        (
            "no-delayed-ack",
            Setup {
                delayed_ack: 0,
                ..base
            },
        ),
        (
            "4-ms-ticks",
            Setup {
                tick: 4 * MS,
                ..base
            },
        ),
        ("queue-of-20", Setup { limit: 20, ..base }),
        ("others-30", Setup { others: 30, ..base }),
        (
            "no-priority",
            Setup {
                priority: false,
                ..base
            },
        ),
        (
            "20-ms-hop",
            Setup {
                hop_delay: 20 * MS,
                ..base
            },
        ),
        ("reorders", Setup { late: 20, ..base }),
        (
            "500-kb/s",
            Setup {
                rate: 500_000,
                ..base
            },
        ),
        (
            "54-mb/s-300",
            Setup {
                rate: 54_000_000,
                window: 300,
                rtt: 10 * MS,
                ..base
            },
        ),
    ];
    for (name, setup) in places {
        for down in [1 << 23, 1 << 20, 1 << 18, 1 << 16] {
            for kind in KINDS {
                let up = if name == "both-ways" { down } else { 0 };
                let setup = Setup {
                    kind,
                    down,
                    up,
                    ..setup
                };
                let none = without(&setup, 2);
                for esp in [false, true] {
                    // Nothing tells of it without SACK, nor under ESP, whose replay window drops copies in silence.
                    if name == "reorders" && (esp || kind == Kind::Reno) {
                        continue;
                    }
                    let what = format!("{name:14} {:>5}", error(down));
                    line(&mut table, &what, &Setup { esp, ..setup }, &none, 2);
                }
            }
        }
    }
    table
}

/// Segments a run of the sweep.
const SEGMENTS: u32 = 1_000;

#[test]
fn the_sweep_is_as_committed_and_nowhere_worse_than_without() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/snoop-sweep.txt");
    let table = sweep();
    if env::var_os("SNOOP_SWEEP").is_some_and(|v| v == "write") {
        fs::write(&path, &table).expect("write");
        return;
    }
    let committed = fs::read_to_string(&path).expect("tests/snapshots/snoop-sweep.txt");
    for (new, old) in table.lines().zip(committed.lines()) {
        assert_eq!(new, old, "SNOOP_SWEEP=write if that is meant");
    }
    assert_eq!(table.lines().count(), committed.lines().count());
}

/// The bound rests on it: as many packets are hit as Poisson's errors hit.
#[test]
fn the_errors_are_as_many_as_the_survival_says() {
    for shift in [16u32, 18, 20] {
        let (one_in, bits, packets) = (1u64 << shift, sim::ON_LINK * 8, 200_000u64);
        let mut errors = Errors::new(one_in, 42);
        let hit = (0..packets).filter(|i| errors.hit(i * bits, bits)).count() as u64;
        let expected = packets - ((packets * survival(one_in, bits)) >> 32);
        let off = hit.abs_diff(expected);
        // Four standard deviations of a binomial: below 4 sqrt(expected).
        assert!(
            off * off <= 16 * expected,
            "1/{one_in}: {hit}, not {expected}"
        );
    }
}

/// Prints the table of `docs/snoop.md`: the paper's 10 MB, five runs a figure.
/// `cargo test --release -p mml-core --test snoop_sim -- --ignored --nocapture`
#[test]
#[ignore = "it prints a table"]
fn the_papers_transfers() {
    let settings = [
        ("none", None),
        ("ours", Some(Settings::default())),
        ("III", Some(table_iii())),
    ];
    println!("goodput in thousandths of the bound, time-outs of the sender in all five runs");
    for esp in [false, true] {
        for shift in (16..=23).rev() {
            let mut line = format!(
                "{} 1 in {:>4} kb",
                if esp { "esp  " } else { "plain" },
                1u64 << (shift - 10)
            );
            for kind in KINDS {
                for (name, snoop) in settings {
                    let setup = Setup {
                        kind,
                        esp,
                        snoop,
                        segments: 6_850,
                        down: 1 << shift,
                        ..Setup::default()
                    };
                    let got = runs(&setup, 5);
                    write!(line, "  {kind:?} {name} {} {}", got.permille, got.timeouts)
                        .expect("line");
                }
            }
            println!("{line}");
        }
    }
}

/// A sender that overruns the queue sends again itself what was lost there, and some of it for nothing: no sign that the
/// hop reorders.
#[test]
fn a_queue_that_is_overrun_is_no_hop_that_reorders() {
    for kind in [Kind::Sack, Kind::Rack] {
        for (rtt, window, down) in [(100, 600, 1 << 19), (40, 300, 1 << 19), (40, 300, 1 << 23)] {
            let plain = Setup {
                kind,
                rate: 20_000_000,
                rtt: rtt * MS,
                window,
                limit: 100,
                down,
                segments: 8_000,
                ..Setup::default()
            };
            let (none, with) = (without(&plain, 2), runs(&plain, 2));
            let esp = runs(&Setup { esp: true, ..plain }, 2);
            assert!(with.overflowed > 0, "{plain:?}: {with:?}");
            assert!(
                with.permille >= none.permille,
                "{plain:?}: {none:?} {with:?}"
            );
            // Under ESP nothing can be taken for reordering.
            assert!(
                with.permille * 100 >= esp.permille * 97,
                "{plain:?}: {with:?} {esp:?}"
            );
        }
    }
}
