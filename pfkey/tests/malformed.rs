// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every malformed form of docs/wire.md §2 is refused, with RFC 2367's errno and a text that names the extension.

mod common;

use common::{add, fix_length, sample, NAMES, NUMBERS};
use pfkey::number::ext;
use pfkey::*;

fn refused(octets: &[u8]) -> (i32, &'static str) {
    let error = Message::parse(octets).expect_err("taken");
    (error.errno, error.as_str())
}

/// The octets of an ADD with one extension, which begins at 16.
fn one(number: u16) -> Vec<u8> {
    add(&[sample(number)])
}

fn set_words(octets: &mut [u8], words: usize) {
    octets[16..18].copy_from_slice(&u16::try_from(words).unwrap().to_ne_bytes());
}

/// docs/wire.md 2.1r.
#[test]
fn a_message_cut_at_any_octet_is_refused_with_emsgsize() {
    let all: Vec<_> = NUMBERS.into_iter().map(sample).collect();
    let octets = add(&all);
    assert!(Message::parse(&octets).is_ok());
    for len in 0..octets.len() {
        let (errno, text) = refused(&octets[..len]);
        assert_eq!(errno, errno::EMSGSIZE, "{len}: {text}");
        assert!(text.starts_with("message: shorter than"), "{len}: {text}");
    }
}

#[test]
fn a_message_longer_than_it_says_is_refused_with_emsgsize() {
    let mut octets = one(ext::SA);
    for _ in 0..9 {
        octets.push(0);
        assert_eq!(
            refused(&octets),
            (
                errno::EMSGSIZE,
                "message: longer than its length field says"
            )
        );
    }
}

/// docs/wire.md 2.1f.
#[test]
fn a_message_longer_than_the_bound_is_refused_with_emsgsize() {
    let mut octets = add(&[]);
    octets.resize(MAX_LEN + 8, 0);
    fix_length(&mut octets);
    assert_eq!(
        refused(&octets),
        (errno::EMSGSIZE, "message: longer than 4096 octets")
    );
}

#[test]
fn another_version_an_unknown_type_and_a_reserved_field_are_refused() {
    let mut octets = one(ext::SA);
    for version in [0, 1, 3, 255] {
        octets[0] = version;
        assert_eq!(
            refused(&octets),
            (errno::EINVAL, "message: version is not PF_KEY_V2")
        );
    }
    octets[0] = 2;
    for kind in [0, 25, 127, 131, 255] {
        octets[1] = kind;
        assert_eq!(refused(&octets), (errno::EINVAL, "message: unknown type"));
    }
    for kind in [128, 129] {
        octets[1] = kind;
        assert!(Message::parse(&octets).is_ok());
    }
    octets[6] = 1;
    assert_eq!(
        refused(&octets),
        (errno::EINVAL, "message: reserved field not zero")
    );
}

#[test]
fn an_extension_of_length_zero_is_too_short() {
    for (number, name) in NUMBERS.into_iter().zip(NAMES) {
        let mut octets = one(number);
        set_words(&mut octets, 0);
        assert_eq!(
            refused(&octets),
            (errno::EINVAL, format!("{name}: too short").as_str())
        );
    }
}

#[test]
fn an_extension_of_one_word_less_is_too_short() {
    // Lists of whole entries, and text, may be shorter: there the next entry is asked for.
    let free = [ext::SUPPORTED_AUTH, ext::SUPPORTED_ENCRYPT];
    for (number, name) in NUMBERS
        .into_iter()
        .zip(NAMES)
        .filter(|(n, _)| !free.contains(n))
    {
        let mut octets = one(number);
        octets.truncate(octets.len() - 8);
        let words = (octets.len() - 16) / 8;
        if words == 0 {
            continue;
        }
        set_words(&mut octets, words);
        fix_length(&mut octets);
        assert_eq!(
            refused(&octets),
            (errno::EINVAL, format!("{name}: too short").as_str())
        );
    }
}

#[test]
fn an_extension_of_one_word_more_is_too_long() {
    for (number, name) in NUMBERS.into_iter().zip(NAMES) {
        let mut octets = one(number);
        let words = (octets.len() - 16) / 8 + 1;
        octets.extend([0; 8]);
        set_words(&mut octets, words);
        fix_length(&mut octets);
        match number {
            // Lists: a whole entry more is legal, part of an entry is not.
            ext::SUPPORTED_AUTH | ext::SUPPORTED_ENCRYPT => {
                assert!(Message::parse(&octets).is_ok())
            }
            ext::PROPOSAL => assert_eq!(refused(&octets), (errno::EINVAL, "PROPOSAL: too short")),
            _ => assert_eq!(
                refused(&octets),
                (errno::EINVAL, format!("{name}: too long").as_str())
            ),
        }
    }
}

#[test]
fn an_extension_past_the_end_is_refused() {
    for (number, name) in NUMBERS.into_iter().zip(NAMES) {
        let mut octets = one(number);
        for words in [(octets.len() - 16) / 8 + 1, 0xFFFF] {
            set_words(&mut octets, words);
            let text = format!("{name}: runs past the end of the message");
            assert_eq!(refused(&octets), (errno::EINVAL, text.as_str()));
        }
    }
}

/// docs/wire.md 2.1r.
#[test]
fn an_extension_given_twice_is_refused_wherever_it_stands() {
    for (number, name) in NUMBERS.into_iter().zip(NAMES) {
        let other = sample(if number == ext::SA { ext::CSA } else { ext::SA });
        let text = format!("{name}: given twice");
        for extensions in [
            [sample(number), sample(number), other],
            [sample(number), other, sample(number)],
            [other, sample(number), sample(number)],
        ] {
            assert_eq!(refused(&add(&extensions)), (errno::EINVAL, text.as_str()));
        }
    }
}

#[test]
fn zone_sas_of_two_zones_are_no_duplicates() {
    let octets = add(&[
        Extension::ZoneSa(ZoneSa::null(1)),
        Extension::ZoneSa(ZoneSa::null(8)),
    ]);
    assert!(Message::parse(&octets).is_ok());
}

#[test]
fn an_unknown_extension_is_refused() {
    for number in (0..=u16::MAX).filter(|number| !NUMBERS.contains(number)) {
        let mut octets = one(ext::SA);
        octets[18..20].copy_from_slice(&number.to_ne_bytes());
        assert_eq!(
            refused(&octets),
            (errno::EINVAL, "message: extension of unknown number")
        );
    }
}

#[test]
fn octets_that_dont_make_a_whole_word_are_refused() {
    let mut octets = one(ext::SA);
    octets.extend([0; 4]);
    assert_eq!(refused(&octets).0, errno::EMSGSIZE);
}

/// docs/wire.md 2.3k.
#[test]
fn reserved_fields_and_padding_must_be_zero() {
    // (extension, an octet of it that is reserved or padding)
    let places = [
        (ext::ADDRESS_SRC, 6),
        (ext::ADDRESS_SRC, 23),
        (ext::ADDRESS_PROXY, 12),
        (ext::ADDRESS_PROXY, 39),
        (ext::KEY_AUTH, 6),
        (ext::KEY_AUTH, 31),
        (ext::IDENTITY_SRC, 6),
        (ext::IDENTITY_SRC, 31),
        (ext::SENSITIVITY, 12),
        (ext::PROPOSAL, 5),
        (ext::PROPOSAL, 8 + 12),
        (ext::SUPPORTED_AUTH, 4),
        (ext::SUPPORTED_AUTH, 14),
        (ext::SPIRANGE, 12),
        (ext::X_POLICY, 7),
        (ext::X_NAT_T_TYPE, 5),
        (ext::X_NAT_T_SPORT, 6),
        (ext::ZONE_MAP, 6),
        (ext::ZONE_MAP, 9),
        (ext::CSA, 7),
        (ext::CSA, 16),
        (ext::CSA, 28),
        (ext::SNOOP, 9),
        (ext::SNOOP, 36),
        (ext::RELAY, 8),
        (ext::RELAY, 12),
        (ext::BINDING, 5),
        (ext::BINDING, 18),
        (ext::SNOOP_STATE, 6),
        (ext::SNOOP_STATE, 17),
    ];
    for (number, place) in places {
        let mut octets = one(number);
        octets[16 + place] = 1;
        let (errno, text) = refused(&octets);
        let name = NAMES[NUMBERS.iter().position(|&n| n == number).unwrap()];
        assert_eq!(
            (errno, text),
            (
                errno::EINVAL,
                format!("{name}: reserved field or padding not zero").as_str()
            )
        );
    }
}

#[test]
fn fields_out_of_range_are_refused() {
    // (extension, octet, value)
    let places = [
        (ext::SA, 9, 4),           // state
        (ext::ADDRESS_SRC, 5, 33), // prefix length
        (ext::ADDRESS_SRC, 8, 3),  // family
        (ext::ADDRESS_SRC, 9, 1),  // family
        (ext::ADDRESS_PROXY, 5, 129),
        (ext::KEY_AUTH, 4, 0), // bits
        (ext::SPIRANGE, 7, 1), // minimum above maximum
        (ext::ZONE_MAP, 4, 0), // number of zones
        (ext::ZONE_MAP, 4, 1), // zone 2 left over, and zone 1 not to the end
        (ext::ZONE_MAP, 4, 9),
        (ext::ZONE_MAP, 5, 0),     // mode
        (ext::ZONE_MAP, 5, 3),     // mode
        (ext::ZONE_MAP, 8, 2),     // zone
        (ext::ZONE_MAP, 12, 1),    // zone
        (ext::ZONE_MAP, 10, 255),  // zone 1's stop is END
        (ext::ZONE_MAP, 14, 0),    // the last stop isn't
        (ext::ZONE_SA, 4, 0),      // zone
        (ext::ZONE_SA, 4, 9),      // zone
        (ext::ZONE_SA, 5, 1),      // null, yet with keys
        (ext::ZONE_SA, 5, 2),      // flags
        (ext::ZONE_SA, 9, 0),      // key bits
        (ext::ZONE_SA, 8, 192),    // key bits
        (ext::ZONE_SA, 10, 3),     // salt octets
        (ext::ZONE_SA, 11, 12),    // ICV octets
        (ext::CSA, 4, 0),          // role
        (ext::CSA, 4, 4),          // role
        (ext::CSA, 5, 0),          // mode
        (ext::CSA, 6, 4),          // state
        (ext::SELECTOR, 4, 4),     // family
        (ext::SELECTOR, 6, 33),    // source prefix length
        (ext::SELECTOR, 7, 31),    // a host bit of the destination
        (ext::SELECTOR, 9, 1),     // a source port beyond the last
        (ext::SELECTOR, 11, 1),    // a source port of a protocol without
        (ext::SELECTOR, 12, 1),    // a host bit of the source
        (ext::SELECTOR, 47, 1),    // a destination port of a protocol without
        (ext::SELECTOR, 33, 1),    // behind an IPv4 address
        (ext::RELAY, 4, 4),        // flags
        (ext::RELAY, 7, 128),      // number
        (ext::BINDING, 4, 0),      // type
        (ext::BINDING, 6, 0),      // length
        (ext::BINDING, 7, 5),      // length above the bound
        (ext::SNOOP_STATE, 4, 0),  // length
        (ext::SNOOP_STATE, 5, 11), // length above the bound
    ];
    for (number, place, value) in places {
        let mut octets = one(number);
        octets[16 + place] = value;
        let (errno, text) = refused(&octets);
        let name = NAMES[NUMBERS.iter().position(|&n| n == number).unwrap()];
        assert_eq!(errno, errno::EINVAL, "{name} octet {place}: {text}");
        assert_eq!(
            text,
            format!("{name}: a field is out of range"),
            "octet {place}"
        );
    }
}

/// docs/wire.md 2.1r, 2.3j.
#[test]
fn an_algorithm_that_isnt_there_is_refused_with_enosys() {
    for encr in (0..=u16::MAX).filter(|&encr| Algorithm::from_encr(encr).is_none()) {
        let mut octets = one(ext::ZONE_SA);
        octets[22..24].copy_from_slice(&encr.to_ne_bytes());
        assert_eq!(
            refused(&octets),
            (errno::ENOSYS, "ZONE_SA: unknown algorithm")
        );
    }
}

/// docs/wire.md 2.3j.
#[test]
fn a_chacha_key_of_128_bits_is_refused() {
    for encr in [28u16, 31] {
        let keys = common::keys(Algorithm::AesGcm16, &common::KEY1[..16]);
        let mut octets = add(&[Extension::ZoneSa(ZoneSa {
            zone: 1,
            keys: Some(keys),
        })]);
        octets[22..24].copy_from_slice(&encr.to_ne_bytes());
        assert_eq!(
            refused(&octets),
            (errno::EINVAL, "ZONE_SA: a field is out of range")
        );
    }
}

/// docs/wire.md 2.1r.
#[test]
fn every_text_names_an_extension_or_the_message() {
    // One bit of a message with everything in it turned at a time: whatever is refused says where.
    let all: Vec<_> = NUMBERS.into_iter().map(sample).collect();
    let octets = add(&all);
    for bit in 0..octets.len() * 8 {
        let mut octets = octets.clone();
        octets[bit / 8] ^= 1 << (bit % 8);
        let Err(error) = Message::parse(&octets) else {
            continue;
        };
        let name = error.as_str().split(':').next().unwrap();
        assert!(
            name == "message" || NAMES.contains(&name) || name == "extension of unknown number",
            "{error}"
        );
    }
}
