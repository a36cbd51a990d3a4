// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! GETSPI: what is asked for, and that the SPIs to try are all of the range's, each once.

mod common;

use common::{csa_ext, sample, write};
use pfkey::number::{ext, message};
use pfkey::*;
use proptest::prelude::*;

fn request(min: u32, max: u32, more: &[Extension<'_>]) -> Result<SpiRequest, Error> {
    let mut all = vec![
        sample(ext::ADDRESS_SRC),
        sample(ext::ADDRESS_DST),
        Extension::SpiRange(SpiRange { min, max }),
    ];
    all.extend_from_slice(more);
    let octets = write(message::GETSPI, &all);
    SpiRequest::from_message(&Message::parse(&octets).unwrap())
}

/// docs/wire.md 2.2b.
#[test]
fn reserved_spis_are_never_to_be_had() {
    assert_eq!(request(0, 300, &[]).unwrap().range.min, 256);
    assert!(request(0, 255, &[])
        .unwrap_err()
        .as_str()
        .starts_with("SPIRANGE"));
    let all = request(0, 300, &[]).unwrap();
    let mut spis: Vec<u32> = all.candidates(7).collect();
    spis.sort_unstable();
    assert_eq!(spis, (256..=300).collect::<Vec<_>>());
}

/// docs/wire.md 2.2b.
#[test]
fn only_a_terminus_chooses() {
    for role in [Role::Origin, Role::Relay] {
        let ext = Extension::Csa(csa_ext(role));
        assert!(request(256, 300, &[ext])
            .unwrap_err()
            .as_str()
            .starts_with("CSA"));
    }
    assert!(request(256, 300, &[Extension::Csa(csa_ext(Role::Terminus))]).is_ok());
}

#[test]
fn each_extension_is_missed() {
    for number in [ext::ADDRESS_SRC, ext::ADDRESS_DST, ext::SPIRANGE] {
        let all = [ext::ADDRESS_SRC, ext::ADDRESS_DST, ext::SPIRANGE];
        let rest: Vec<_> = all
            .into_iter()
            .filter(|n| *n != number)
            .map(sample)
            .collect();
        let octets = write(message::GETSPI, &rest);
        let error = SpiRequest::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
        assert!(error.as_str().ends_with(": missing"), "{error}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let asked = request(1000, 2000, &[]).unwrap();
    let mut buffer = [0; 256];
    let writer = Writer::new(&mut buffer, message::GETSPI, 249, 1, 2).unwrap();
    let octets = asked.write(writer).unwrap().finish().unwrap();
    let again = SpiRequest::from_message(&Message::parse(octets).unwrap());
    assert_eq!(again, Ok(asked));
}

proptest! {
    #[test]
    fn candidates_are_distinct_and_within_the_range(
        ends in (256u32.., 256u32..),
        random: u32,
    ) {
        let (min, max) = (ends.0.min(ends.1), ends.0.max(ends.1));
        let spis: Vec<u32> = request(min, max, &[]).unwrap().candidates(random).collect();
        let count = u64::from(max - min) + 1;
        prop_assert_eq!(spis.len() as u64, count.min(u64::from(SpiRequest::CANDIDATES)));
        let distinct: std::collections::BTreeSet<u32> = spis.iter().copied().collect();
        prop_assert_eq!(distinct.len(), spis.len());
        prop_assert!(spis.iter().all(|spi| (min..=max).contains(spi)));
    }
}
