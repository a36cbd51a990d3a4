// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The vectors of `vectors/make.py`, a second implementation: written octet by octet, read, and their authenticators
//! checked.

use mml_mip::*;
use std::net::Ipv4Addr;

const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const HA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const PREVIOUS: Ipv4Addr = Ipv4Addr::new(10, 2, 2, 2);
const IDENTIFICATION: Identification = Identification(0xEA5B_1C00_8000_0000);

fn vector(name: &str) -> Vec<u8> {
    let mut lines = include_str!("vectors/mobile-ip.txt").lines();
    let hex = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = hex.unwrap_or_else(|| panic!("no vector {name}"));
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

fn association(spi: u32, algorithm: Algorithm, key: &[u8]) -> Association {
    Association {
        spi,
        algorithm,
        key: Key::new(key),
        replay: Replay::default(),
    }
}

fn mobile(algorithm: Algorithm) -> Association {
    association(1000, algorithm, &[1; 32])
}

fn foreign() -> Association {
    association(2000, Algorithm::HmacSha256, &[2; 32])
}

const REQUEST: Message = Message::Request(Request {
    flags: RequestFlags(RequestFlags::REVERSE_TUNNEL),
    lifetime: 600,
    home: HOME,
    home_agent: HA,
    care_of: CARE_OF,
    identification: IDENTIFICATION,
});

/// Reads what was written, and finds its authenticator right.
fn check(octets: &[u8], message: Message, pair: Pair, association: &Association) {
    assert_eq!(Message::parse(octets), Ok(message));
    let extensions = Extensions::parse(octets, message.fixed_len()).expect("sound");
    let authentication = extensions.authentication(pair).expect("there");
    assert!(association.verify(&authentication));
}

/// docs/wire.md 4a.
#[test]
fn requests_are_the_vectors() {
    for (name, algorithm) in [
        ("request-md5", Algorithm::HmacMd5),
        ("request", Algorithm::HmacSha256),
    ] {
        let octets = Builder::new(&REQUEST)
            .authenticate(Pair::MobileHome, &mobile(algorithm))
            .finish();
        assert_eq!(octets, vector(name), "{name}");
        check(&octets, REQUEST, Pair::MobileHome, &mobile(algorithm));
    }
    let visitor = association(3000, Algorithm::HmacMd5, &[3; 16]);
    let octets = Builder::relay(&vector("request"))
        .authenticate(Pair::MobileForeign, &visitor)
        .finish();
    assert_eq!(octets, vector("request-to-foreign-agent"));
    check(&octets, REQUEST, Pair::MobileForeign, &visitor);
    let support = RevocationSupport {
        inform: true,
        timestamp: 0xEA5B_1C00,
    };
    let octets = Builder::relay(&vector("request"))
        .extension(&Extension::RevocationSupport(support))
        .expect("short")
        .authenticate(Pair::ForeignHome, &foreign())
        .finish();
    assert_eq!(octets, vector("request-relayed"));
    check(&octets, REQUEST, Pair::ForeignHome, &foreign());
    let extensions = Extensions::parse(&octets, 24).expect("sound");
    assert_eq!(extensions.revocation_support(), Some(support));
}

/// docs/wire.md 3.2h, 3.2i, 4b, 4d.
#[test]
fn the_previous_fa_extension_and_its_token_are_the_vectors() {
    let k_ho = Key::new(&(0..32).collect::<Vec<u8>>());
    let token = HandoverKey::derive(Prf::HmacSha256, &k_ho, PREVIOUS, 7).token(&Handover {
        new_fa: CARE_OF,
        home: HOME,
        identification: IDENTIFICATION,
    });
    assert_eq!(token, vector("token"));
    let seen = [(0x0BAD_CAFE, 1 << 32), (0x0BAD_CAFF, 7)];
    let seen = Seen::list(&seen.map(|(spi, number)| Seen { spi, number }));
    for (name, seen) in [
        ("request-previous-fa", &[][..]),
        ("request-previous-fa-seen", &seen),
    ] {
        let previous = PreviousFa {
            address: PREVIOUS,
            token: &token,
            seen,
        };
        let octets = Builder::new(&REQUEST)
            .extension(&Extension::PreviousFa(previous))
            .expect("short")
            .authenticate(Pair::MobileHome, &mobile(Algorithm::HmacSha256))
            .finish();
        assert_eq!(octets, vector(name));
        let extensions = Extensions::parse(&octets, 24).expect("sound");
        assert_eq!(extensions.previous_fa(), Some(previous));
    }
}

/// docs/wire.md 4e.
#[test]
fn replies_and_revocations_are_the_vectors() {
    let reply = Message::Reply(Reply {
        code: Code::ACCEPTED,
        lifetime: 600,
        home: HOME,
        home_agent: HA,
        identification: IDENTIFICATION,
    });
    let seen = Seen::list(&[Seen {
        spi: 0x0BAD_F00D,
        number: 1 << 33,
    }]);
    let association = mobile(Algorithm::HmacSha256);
    let octets = Builder::new(&reply)
        .extension(&Extension::Arrived(&seen))
        .expect("short")
        .authenticate(Pair::MobileHome, &association)
        .finish();
    assert_eq!(octets, vector("reply-arrived"));
    check(&octets, reply, Pair::MobileHome, &association);
    let revocation = Message::Revocation(Revocation {
        by_home_agent: true,
        inform: false,
        home: HOME,
        home_agent: HA,
        foreign_agent: CARE_OF,
        identifier: 0xEA5B_1C01,
    });
    let ack = Message::RevocationAck(RevocationAck {
        informed: true,
        home: HOME,
        identifier: 0xEA5B_1C01,
    });
    let mobile = mobile(Algorithm::HmacSha256);
    for (name, message, pair, association) in [
        ("reply", reply, Pair::MobileHome, &mobile),
        ("revocation", revocation, Pair::ForeignHome, &foreign()),
        ("revocation-ack", ack, Pair::ForeignHome, &foreign()),
    ] {
        let octets = Builder::new(&message)
            .authenticate(pair, association)
            .finish();
        assert_eq!(octets, vector(name), "{name}");
        check(&octets, message, pair, association);
    }
}

#[test]
fn router_discovery_is_the_vectors() {
    assert_eq!(Solicitation::emit(), vector("solicitation"));
    assert_eq!(
        Solicitation::parse(&vector("solicitation")),
        Ok(Solicitation)
    );
    let advertisement = Advertisement {
        code: 0,
        lifetime: 3,
        routers: vec![RouterAddress {
            address: CARE_OF,
            preference: 0,
        }],
        agent: Some(MobilityAgent {
            sequence: 258,
            lifetime: 600,
            flags: AgentFlags(
                AgentFlags::REGISTRATION_REQUIRED
                    | AgentFlags::FOREIGN
                    | AgentFlags::REVERSE_TUNNEL
                    | AgentFlags::REVOCATION,
            ),
            care_of: vec![CARE_OF],
        }),
        prefixes: vec![24],
    };
    assert_eq!(advertisement.emit(), Ok(vector("advertisement")));
    assert_eq!(
        Advertisement::parse(&vector("advertisement")),
        Ok(advertisement)
    );
}
