// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The codec: what is written is read back as the same, no octets make it panic, and the layouts are the RFCs'.

use mml_mip::number::{extension, ORGANISATION};
use mml_mip::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn message() -> impl Strategy<Value = Message> {
    let (a, b, c) = (address(), address(), address());
    let request = (any::<u8>(), any::<u16>(), a, b, c, any::<u64>()).prop_map(
        |(flags, lifetime, home, home_agent, care_of, id)| {
            Message::Request(Request {
                flags: RequestFlags(flags),
                lifetime,
                home,
                home_agent,
                care_of,
                identification: Identification(id),
            })
        },
    );
    let reply = (
        any::<u8>(),
        any::<u16>(),
        address(),
        address(),
        any::<u64>(),
    )
        .prop_map(|(code, lifetime, home, home_agent, id)| {
            Message::Reply(Reply {
                code: Code(code),
                lifetime,
                home,
                home_agent,
                identification: Identification(id),
            })
        });
    let addresses = (address(), address(), address());
    let revocation = (any::<bool>(), any::<bool>(), addresses, any::<u32>()).prop_map(
        |(by_home_agent, inform, (home, home_agent, foreign_agent), identifier)| {
            Message::Revocation(Revocation {
                by_home_agent,
                inform,
                home,
                home_agent,
                foreign_agent,
                identifier,
            })
        },
    );
    let ack = (any::<bool>(), address(), any::<u32>()).prop_map(|(informed, home, identifier)| {
        Message::RevocationAck(RevocationAck {
            informed,
            home,
            identifier,
        })
    });
    prop_oneof![request, reply, revocation, ack]
}

/// An extension's recipe; the octets are borrowed from it.
#[derive(Clone, Debug)]
enum Recipe {
    Pad,
    Auth(u8, u32, Vec<u8>),
    Delivery,
    Critical(u32, u16, Vec<u8>),
    Normal(u32, u16, Vec<u8>),
    Previous(Ipv4Addr, Vec<u8>, Vec<u8>),
    Arrived(Vec<u8>),
    Support(bool, u32),
    Skipped(u8, Vec<u8>),
}

impl Recipe {
    fn make(&self) -> Extension<'_> {
        match self {
            Recipe::Pad => Extension::Pad,
            Recipe::Auth(pair, spi, octets) => Extension::Authentication {
                pair: [Pair::MobileHome, Pair::MobileForeign, Pair::ForeignHome]
                    [usize::from(pair % 3)],
                spi: *spi,
                authenticator: octets,
            },
            Recipe::Delivery => Extension::EncapsulatingDelivery,
            Recipe::Critical(organisation, kind, value) => Extension::CriticalVendor {
                organisation: *organisation,
                kind: *kind,
                value,
            },
            Recipe::Normal(organisation, kind, value) => Extension::NormalVendor {
                organisation: *organisation,
                kind: *kind,
                value,
            },
            Recipe::Previous(address, token, seen) => Extension::PreviousFa(PreviousFa {
                address: *address,
                token,
                seen,
            }),
            Recipe::Arrived(seen) => Extension::Arrived(seen),
            Recipe::Support(inform, timestamp) => Extension::RevocationSupport(RevocationSupport {
                inform: *inform,
                timestamp: *timestamp,
            }),
            Recipe::Skipped(kind, value) => Extension::Skipped { kind: *kind, value },
        }
    }
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let octets = |from, to| proptest::collection::vec(any::<u8>(), from..to);
    let list = |from, to| {
        let of = proptest::collection::vec((any::<u32>(), any::<u64>()), from..to);
        of.prop_map(|of| {
            let seen = of.into_iter().map(|(spi, number)| Seen { spi, number });
            Seen::list(&seen.collect::<Vec<_>>())
        })
    };
    prop_oneof![
        Just(Recipe::Pad),
        (any::<u8>(), any::<u32>(), octets(1, 64)).prop_map(|(p, s, o)| Recipe::Auth(p, s, o)),
        Just(Recipe::Delivery),
        (any::<u32>(), any::<u16>(), octets(0, 400))
            .prop_map(|(v, k, o)| Recipe::Critical(v, k, o)),
        (any::<u32>(), any::<u16>(), octets(0, 240)).prop_map(|(v, k, o)| Recipe::Normal(v, k, o)),
        (address(), octets(0, 65), list(0, 9)).prop_map(|(a, o, s)| Recipe::Previous(a, o, s)),
        list(0, 9).prop_map(Recipe::Arrived),
        (any::<bool>(), any::<u32>()).prop_map(|(i, t)| Recipe::Support(i, t)),
        (140_u8..=255, octets(0, 255)).prop_map(|(k, o)| Recipe::Skipped(k, o)),
    ]
}

fn written(message: &Message, recipes: &[Recipe]) -> Vec<u8> {
    let mut builder = Builder::new(message);
    for recipe in recipes {
        builder = builder.extension(&recipe.make()).expect("short enough");
    }
    builder.finish()
}

/// Once each of those that may stand once.
fn distinct(recipes: Vec<Recipe>) -> Vec<Recipe> {
    let mut seen = Vec::new();
    recipes
        .into_iter()
        .filter(|recipe| {
            let mark = match recipe {
                Recipe::Auth(pair, ..) => pair % 3,
                Recipe::Previous(..) => 3,
                Recipe::Support(..) => 4,
                Recipe::Arrived(..) => 5,
                _ => return true,
            };
            let first = !seen.contains(&mark);
            seen.push(mark);
            first
        })
        .collect()
}

fn advertisement() -> impl Strategy<Value = Advertisement> {
    let routers = proptest::collection::vec((address(), any::<i32>(), 0_u8..=32), 0..5);
    let care_of = proptest::collection::vec(address(), 0..5);
    let agent = proptest::option::of((any::<u16>(), any::<u16>(), any::<u16>(), care_of));
    (any::<bool>(), any::<u16>(), routers, agent, any::<bool>()).prop_map(
        |(all, lifetime, routers, agent, prefixes)| Advertisement {
            code: if all { 0 } else { 16 },
            lifetime,
            prefixes: match prefixes {
                true => routers.iter().map(|router| router.2).collect(),
                false => Vec::new(),
            },
            routers: routers
                .into_iter()
                .map(|(address, preference, _)| RouterAddress {
                    address,
                    preference,
                })
                .collect(),
            agent: agent.map(|(sequence, lifetime, flags, care_of)| MobilityAgent {
                sequence,
                lifetime,
                flags: AgentFlags(flags),
                care_of,
            }),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in message(), recipes in proptest::collection::vec(recipe(), 0..6)) {
        let recipes = distinct(recipes);
        let octets = written(&message, &recipes);
        let read = Message::parse(&octets).expect("sound");
        prop_assert_eq!(read, message);
        let extensions = Extensions::parse(&octets, read.fixed_len()).expect("sound");
        let got: Vec<_> = extensions.iter().map(|item| item.extension).collect();
        let put: Vec<_> = recipes.iter().map(Recipe::make).collect();
        prop_assert_eq!(got, put);
    }

    #[test]
    fn no_octets_make_the_message_decoder_panic_and_what_it_takes_is_stable(
        kind in prop_oneof![Just(1_u8), Just(3), Just(7), Just(15), any::<u8>()],
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(4), Just(32), Just(134)], 0..200),
    ) {
        let mut octets = vec![kind];
        octets.extend(rest);
        let Ok(message) = Message::parse(&octets) else { return Ok(()) };
        let Ok(extensions) = Extensions::parse(&octets, message.fixed_len()) else { return Ok(()) };
        let mut builder = Builder::new(&message);
        for item in extensions.iter() {
            prop_assert!(item.start < item.end && item.end <= octets.len());
            builder = builder.extension(&item.extension).expect("it came in as long");
        }
        let again = builder.finish();
        prop_assert_eq!(again.len(), octets.len());
        prop_assert_eq!(Message::parse(&again), Ok(message));
        let reread = Extensions::parse(&again, message.fixed_len()).expect("sound");
        let first: Vec<_> = extensions.iter().map(|item| item.extension).collect();
        let second: Vec<_> = reread.iter().map(|item| item.extension).collect();
        prop_assert_eq!(first, second);
    }

    #[test]
    fn an_advertisement_is_read_back(advertisement in advertisement()) {
        let octets = advertisement.emit().expect("short enough");
        prop_assert_eq!(Advertisement::parse(&octets), Ok(advertisement));
    }

    #[test]
    fn no_octets_make_the_router_decoder_panic(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Advertisement::parse(&octets);
        let _ = Solicitation::parse(&octets);
    }

    #[test]
    fn an_advertisement_with_one_bit_turned_is_refused(
        advertisement in advertisement(),
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut octets = advertisement.emit().expect("short enough");
        let at = at.index(octets.len());
        octets[at] ^= 1 << bit;
        prop_assert!(Advertisement::parse(&octets).is_err());
    }
}

const REQUEST: Message = Message::Request(Request {
    flags: RequestFlags(RequestFlags::REVERSE_TUNNEL),
    lifetime: 600,
    home: Ipv4Addr::new(203, 0, 113, 7),
    home_agent: Ipv4Addr::new(198, 51, 100, 1),
    care_of: Ipv4Addr::new(10, 1, 1, 1),
    identification: Identification(0x0102_0304_0506_0708),
});

/// docs/wire.md 4a.
#[test]
fn a_request_lies_as_rfc_5944_has_it() {
    let octets = Builder::new(&REQUEST)
        .extension(&Extension::Authentication {
            pair: Pair::MobileHome,
            spi: 0x0000_0100,
            authenticator: &[0xAA; 16],
        })
        .expect("short enough")
        .finish();
    let mut expected = vec![
        1, 2, 0x02, 0x58, 203, 0, 113, 7, 198, 51, 100, 1, 10, 1, 1, 1,
    ];
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 32, 20, 0, 0, 1, 0]);
    expected.extend([0xAA; 16]);
    assert_eq!(octets, expected);
}

/// docs/wire.md 4b.
#[test]
fn the_previous_fa_extension_lies_as_docs_wire_has_it() {
    let octets = Builder::new(&REQUEST)
        .extension(&Extension::PreviousFa(PreviousFa {
            address: Ipv4Addr::new(10, 2, 2, 2),
            token: &[0xBB; 3],
            seen: &[],
        }))
        .expect("short enough")
        .finish();
    // Type, length, reserved, organisation 32473, vendor type 1, address, token's length, token.
    let expected = [
        134, 17, 0, 0, 0, 0, 0x7E, 0xD9, 0, 1, 10, 2, 2, 2, 0, 3, 0xBB, 0xBB, 0xBB,
    ];
    assert_eq!(octets[24..], expected);
    // The inner length must be what is there.
    for wrong in [2, 4] {
        let mut octets = octets.clone();
        octets[24 + 15] = wrong;
        assert_eq!(
            Extensions::parse(&octets, 24),
            Err(DecodeError::Length(extension::NORMAL_VENDOR))
        );
    }
}

/// docs/wire.md 4d, 4e.
#[test]
fn what_the_host_has_seen_lies_behind_the_token_of_eight_csas_at_most() {
    let seen = [(0x0102_0304, 5), (6, 1 << 40)].map(|(spi, number)| Seen { spi, number });
    let written = |seen: &[u8]| {
        let previous = PreviousFa {
            address: Ipv4Addr::new(10, 2, 2, 2),
            token: &[0xBB],
            seen,
        };
        let builder = Builder::new(&REQUEST).extension(&Extension::PreviousFa(previous));
        let builder = builder.expect("short enough");
        let association = Association {
            spi: 256,
            algorithm: Algorithm::HmacSha256,
            key: Key::new(&[1; 32]),
            replay: Replay::Nonces,
        };
        builder
            .authenticate(Pair::MobileHome, &association)
            .finish()
    };
    let octets = written(&Seen::list(&seen));
    let expected = [
        1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 0,
    ];
    assert_eq!(octets[24 + 17..][..24], expected);
    let extensions = Extensions::parse(&octets, 24).expect("sound");
    let read: Vec<Seen> = extensions
        .previous_fa()
        .expect("it is there")
        .seen()
        .collect();
    assert_eq!(read, seen);
    // More than eight aren't written, nor read, nor is a part of one.
    assert_eq!(Seen::list(&[seen[0]; 9]), Seen::list(&[seen[0]; 8]));
    let one = Seen::list(&seen[..1]);
    for wrong in [one.repeat(9), one[..11].to_vec()] {
        assert_eq!(
            Extensions::parse(&written(&wrong), 24),
            Err(DecodeError::Length(extension::NORMAL_VENDOR))
        );
    }
}

/// docs/wire.md 4c.
#[test]
fn an_unknown_extension_below_128_condemns_the_message_and_one_above_is_skipped() {
    let mut octets = Builder::new(&REQUEST).finish();
    octets.extend([99, 1, 0]);
    assert_eq!(
        Extensions::parse(&octets, 24),
        Err(DecodeError::Unknown(99))
    );
    octets[24] = 199;
    let extensions = Extensions::parse(&octets, 24).expect("skipped");
    assert_eq!(extensions.iter().count(), 1);
    octets[25] = 2;
    assert_eq!(
        Extensions::parse(&octets, 24),
        Err(DecodeError::Length(199))
    );
}

#[test]
fn a_second_authenticator_of_a_pair_is_refused() {
    let auth = |pair| Extension::Authentication {
        pair,
        spi: 256,
        authenticator: &[1; 16],
    };
    let octets = Builder::new(&REQUEST)
        .extension(&auth(Pair::MobileHome))
        .and_then(|b| b.extension(&auth(Pair::MobileForeign)))
        .and_then(|b| b.extension(&auth(Pair::MobileHome)))
        .expect("short enough")
        .finish();
    assert_eq!(
        Extensions::parse(&octets, 24),
        Err(DecodeError::Twice(extension::MOBILE_HOME))
    );
}

#[test]
fn a_previous_fa_extension_behind_the_authenticator_proves_nothing() {
    let previous = Extension::PreviousFa(PreviousFa {
        address: Ipv4Addr::new(10, 2, 2, 2),
        token: &[],
        seen: &[],
    });
    let auth = Extension::Authentication {
        pair: Pair::MobileHome,
        spi: 256,
        authenticator: &[1; 16],
    };
    let order = |first, second| {
        Builder::new(&REQUEST)
            .extension(first)
            .and_then(|b| b.extension(second))
            .expect("short enough")
            .finish()
    };
    let under = order(&previous, &auth);
    let behind = order(&auth, &previous);
    assert!(Extensions::parse(&under, 24)
        .expect("sound")
        .previous_fa()
        .is_some());
    assert!(Extensions::parse(&behind, 24)
        .expect("sound")
        .previous_fa()
        .is_none());
}

/// docs/wire.md 4b.
#[test]
fn another_organisations_extension_of_type_1_is_not_the_previous_fa() {
    let octets = Builder::new(&REQUEST)
        .extension(&Extension::NormalVendor {
            organisation: ORGANISATION + 1,
            kind: 1,
            value: &[],
        })
        .expect("short enough")
        .finish();
    let extensions = Extensions::parse(&octets, 24).expect("sound");
    assert!(matches!(
        extensions.iter().next().map(|item| item.extension),
        Some(Extension::NormalVendor { kind: 1, .. })
    ));
}

#[test]
fn an_extension_too_long_for_its_length_field_is_not_written() {
    let value = vec![0; 256];
    let skipped = Extension::Skipped {
        kind: 200,
        value: &value,
    };
    assert_eq!(
        Builder::new(&REQUEST).extension(&skipped).err(),
        Some(EncodeError::Long(200))
    );
}

#[test]
fn an_agent_advertisement_lies_as_rfc_5944_has_it() {
    let advertisement = Advertisement {
        code: 0,
        lifetime: 9,
        routers: vec![RouterAddress {
            address: Ipv4Addr::new(10, 1, 1, 1),
            preference: 0,
        }],
        agent: Some(MobilityAgent {
            sequence: 258,
            lifetime: 600,
            flags: AgentFlags(AgentFlags::FOREIGN | AgentFlags::REVERSE_TUNNEL),
            care_of: vec![Ipv4Addr::new(10, 1, 1, 2)],
        }),
        prefixes: vec![24],
    };
    let octets = advertisement.emit().expect("short enough");
    let expected = [
        9, 0, 0, 0, 1, 2, 0, 9, 10, 1, 1, 1, 0, 0, 0, 0, // RFC 1256
        16, 10, 1, 2, 0x02, 0x58, 0x11, 0, 10, 1, 1, 2, // mobility agent
        19, 1, 24,
    ];
    assert_eq!(octets[..2], expected[..2]);
    assert_eq!(octets[4..], expected[4..]);
    assert_eq!(
        advertisement.prefix(),
        Some((Ipv4Addr::new(10, 1, 1, 0), 24))
    );
    assert_eq!(Solicitation::emit(), [10, 0, 0xF5, 0xFF, 0, 0, 0, 0]);
}
