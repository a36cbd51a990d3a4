// SPDX-License-Identifier: GPL-2.0-only
//! The wireless link's arithmetic: the errors are the process they claim to be, and the clock is exact.

use mml_lab::link::{Band, Errors, Link, GAP_MAX, GAP_MIN, RATE_MAX};

/// A mean gap for errors with this probability a bit, in 2^-16 bits.
fn mean_gap(bit_error_rate: f64) -> u64 {
    (65_536.0 / bit_error_rate).round() as u64
}

/// The first `count` bits in error.
fn hit_bits(errors: &Errors, count: usize) -> Vec<u64> {
    let mut from = 0;
    (0..count)
        .map(|_| {
            let bit = errors.first(from, u64::MAX).unwrap();
            from = bit + 1;
            bit
        })
        .collect()
}

fn gaps(errors: &Errors, count: usize) -> Vec<f64> {
    let bits = hit_bits(errors, count + 1);
    bits.windows(2).map(|w| (w[1] - w[0]) as f64).collect()
}

/// Errors a bit, over all that the lab uses.
const RATES: [f64; 5] = [1e-7, 1e-6, 4e-6, 8e-6, 1.6e-5];

#[test]
fn gaps_between_errors_have_the_mean_and_the_spread_of_the_exponential_distribution() {
    const COUNT: usize = 40_000;
    for (seed, rate) in RATES.into_iter().enumerate() {
        let errors = Errors::new(mean_gap(rate), seed as u64).unwrap();
        let gaps = gaps(&errors, COUNT);
        let mean = gaps.iter().sum::<f64>() / COUNT as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / COUNT as f64;
        // Standard errors of the two estimates: mean/√n, and 2√2·mean²/√n; five of them each.
        let n = (COUNT as f64).sqrt();
        assert!((mean * rate - 1.0).abs() < 5.0 / n, "{rate}: {mean}");
        assert!(
            (variance * rate * rate - 1.0).abs() < 5.0 * 8f64.sqrt() / n,
            "{rate}: {variance}"
        );
    }
}

#[test]
fn gaps_follow_the_exponential_distribution_everywhere() {
    const COUNT: usize = 40_000;
    for (seed, rate) in RATES.into_iter().enumerate() {
        let errors = Errors::new(mean_gap(rate), 1_000 + seed as u64).unwrap();
        let mut gaps = gaps(&errors, COUNT);
        gaps.sort_by(f64::total_cmp);
        // Kolmogorov-Smirnov: D·√n above 2.0 comes up once in 1,500 seeds; these seeds are fixed.
        let distance = gaps
            .iter()
            .enumerate()
            .map(|(i, gap)| {
                let expected = 1.0 - (-gap * rate).exp();
                (expected - i as f64 / COUNT as f64)
                    .abs()
                    .max((expected - (i + 1) as f64 / COUNT as f64).abs())
            })
            .fold(0.0, f64::max);
        assert!(distance * (COUNT as f64).sqrt() < 2.0, "{rate}: {distance}");
    }
}

#[test]
fn a_gap_says_nothing_of_the_next_nor_of_the_place_in_a_block() {
    const COUNT: usize = 40_000;
    let rate = 1e-6;
    let errors = Errors::new(mean_gap(rate), 7).unwrap();
    let gaps = gaps(&errors, COUNT);
    let covariance = gaps
        .windows(2)
        .map(|w| (w[0] * rate - 1.0) * (w[1] * rate - 1.0))
        .sum::<f64>()
        / (COUNT - 1) as f64;
    assert!(
        covariance.abs() < 5.0 / (COUNT as f64).sqrt(),
        "{covariance}"
    );
    // Blocks are 2^20 bits here; their eighths get equal shares.
    let mut shares = [0u32; 8];
    for bit in hit_bits(&errors, COUNT) {
        shares[(bit >> 17 & 7) as usize] += 1;
    }
    let expected = COUNT as f64 / 8.0;
    let chi_squared = shares
        .iter()
        .map(|share| (f64::from(*share) - expected).powi(2) / expected)
        .sum::<f64>();
    // Seven degrees of freedom: above 24.3 once in a thousand seeds.
    assert!(chi_squared < 24.3, "{shares:?}");
}

#[test]
fn one_seed_gives_the_same_errors_and_another_gives_others() {
    let gap = mean_gap(1e-5);
    let bits = |seed| hit_bits(&Errors::new(gap, seed).unwrap(), 1_000);
    assert_eq!(bits(1), bits(1));
    assert!(
        bits(1)
            .iter()
            .zip(bits(2))
            .filter(|(a, b)| **a == *b)
            .count()
            < 3
    );
}

#[test]
fn what_is_hit_does_not_depend_on_what_was_asked_before() {
    let errors = Errors::new(mean_gap(1e-4), 3).unwrap();
    let all = hit_bits(&errors, 2_000);
    let end = *all.last().unwrap();
    // Any range, forwards or backwards, shows exactly the errors that lie in it.
    for length in [1, 77, 12_000, 1 << 17] {
        for from in (0..(end - length) / 99_991).rev().map(|i| i * 99_991) {
            let expected = all
                .iter()
                .copied()
                .find(|bit| (from..from + length).contains(bit));
            assert_eq!(errors.first(from, from + length), expected);
        }
    }
}

/// The arrivals of packets on a link, and which of them are lost.
fn lost(link: &mut Link, packets: &[(u64, u32)]) -> Vec<bool> {
    packets
        .iter()
        .map(|(arrival, octets)| link.send(*arrival, *octets).corrupted)
        .collect()
}

fn link(rate: u64, bit_error_rate: f64, seed: u64) -> Link {
    let gap = if bit_error_rate > 0.0 {
        mean_gap(bit_error_rate)
    } else {
        0
    };
    Link::new(rate, Errors::new(gap, seed).unwrap()).unwrap()
}

#[test]
fn a_packet_is_lost_for_when_it_is_sent_and_not_for_what_was_sent_before() {
    let rate = 2_000_000;
    // A packet every 20 ms, which the link needs 6 ms for; alone, or with others in the gaps.
    let alone: Vec<(u64, u32)> = (0..20_000).map(|i| (i * 20_000_000, 1_500)).collect();
    let among: Vec<(u64, u32)> = alone
        .iter()
        .flat_map(|packet| {
            [
                *packet,
                (packet.0 + 7_000_000, 400),
                (packet.0 + 9_000_000, 90),
            ]
        })
        .collect();
    let alone = lost(&mut link(rate, 8e-6, 5), &alone);
    let among: Vec<bool> = lost(&mut link(rate, 8e-6, 5), &among)
        .into_iter()
        .step_by(3)
        .collect();
    assert!(alone.iter().any(|lost| *lost) && alone.iter().any(|lost| !*lost));
    assert_eq!(alone, among);
}

#[test]
fn packets_are_lost_as_often_as_their_bits_say() {
    const COUNT: usize = 100_000;
    for (octets, bit_error_rate) in [
        (1_500u32, 1e-6),
        (1_500, 1.6e-5),
        (64, 1.6e-5),
        (1_500, 1e-3),
    ] {
        let packets = vec![(0, octets); COUNT];
        let lost = lost(&mut link(2_000_000, bit_error_rate, 11), &packets)
            .into_iter()
            .filter(|lost| *lost)
            .count() as f64;
        let p = 1.0 - (1.0 - bit_error_rate).powi(octets as i32 * 8);
        let expected = COUNT as f64 * p;
        let deviation = (expected * (1.0 - p)).sqrt().max(1.0);
        assert!(
            (lost - expected).abs() < 5.0 * deviation,
            "{octets} octets, {bit_error_rate}: {lost} lost, {expected} expected"
        );
    }
}

#[test]
fn the_rate_is_exact_over_any_number_of_packets_and_however_late_the_link_is_asked() {
    for rate in [
        1,
        9_600,
        2_000_000,
        11_000_000,
        100_000_000,
        999_999_937,
        RATE_MAX,
    ] {
        let mut link = link(rate, 0.0, 0);
        let mut bits = 0u128;
        for i in 0..10_000u32 {
            let octets = 60 + i % 1_455;
            bits += u128::from(octets) * 8;
            // All have been there from the start.
            let end = link.send(0, octets).end;
            assert_eq!(
                u128::from(end),
                (bits * 1_000_000_000).div_ceil(u128::from(rate))
            );
        }
    }
}

#[test]
fn a_packet_that_finds_the_link_free_takes_its_own_time_alone() {
    let mut link = link(100_000_000, 0.0, 0);
    assert_eq!(link.send(5_000, 1_250).end, 105_000);
    // While it is on the link another comes; then none for a while.
    assert_eq!(link.send(50_000, 1_250).end, 205_000);
    assert_eq!(link.send(1_000_000, 125).end, 1_010_000);
    link.restart();
    assert_eq!(link.send(0, 125).end, 10_000);
}

#[test]
fn priority_goes_first_but_not_before_it_came() {
    let mut link = link(8_000_000, 0.0, 0);
    assert_eq!(link.choose(None, None), None);
    assert_eq!(link.choose(None, Some(3)), Some(Band::Normal));
    assert_eq!(link.choose(Some(3), None), Some(Band::Priority));
    // The link is free from 1,000,000 on.
    link.send(0, 1_000);
    assert_eq!(link.choose(Some(999_999), Some(10)), Some(Band::Priority));
    assert_eq!(link.choose(Some(1_000_000), Some(10)), Some(Band::Priority));
    assert_eq!(link.choose(Some(1_000_001), Some(10)), Some(Band::Normal));
    assert_eq!(
        link.choose(Some(2_000_000), Some(2_000_000)),
        Some(Band::Priority)
    );
    assert_eq!(
        link.choose(Some(2_000_001), Some(2_000_000)),
        Some(Band::Normal)
    );
}

#[test]
fn what_a_link_cannot_be_is_refused() {
    let errors = Errors::new(0, 0).unwrap();
    assert!(Link::new(0, errors).is_none());
    assert!(Link::new(RATE_MAX + 1, errors).is_none());
    assert!(Link::new(RATE_MAX, errors).is_some());
    assert!(Errors::new(GAP_MIN - 1, 0).is_none());
    assert!(Errors::new(GAP_MAX + 1, 0).is_none());
}

#[test]
fn no_input_overflows() {
    // Tests are built with overflow checks.
    for gap in [0, GAP_MIN, GAP_MIN + 1, 1 << 40, GAP_MAX] {
        for seed in [0, 1, u64::MAX] {
            let errors = Errors::new(gap, seed).unwrap();
            for from in [0, 1, 1 << 41, u64::MAX - 5, u64::MAX] {
                for length in [0, 1, 1 << 20] {
                    errors.first(from, u64::saturating_add(from, length));
                }
            }
            for rate in [1, 1_000, RATE_MAX] {
                let mut link = Link::new(rate, errors).unwrap();
                for arrival in [0, 999_999_999, u64::MAX - 1, u64::MAX] {
                    for octets in [0, 1, 1 << 16, u32::MAX] {
                        link.send(arrival, octets);
                        link.choose(Some(arrival), Some(u64::from(octets)));
                    }
                }
            }
        }
    }
}
