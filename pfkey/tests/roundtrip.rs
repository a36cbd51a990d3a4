// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whatever is written is read back the same, whatever is read is written back the same, and no octets make it panic.

mod common;

use common::{sample, NUMBERS};
use pfkey::number::{ext, message};
use pfkey::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;

/// The parts of an [`Extension`] that borrow, owned.
#[derive(Clone, Debug)]
struct Stuff {
    octets: Vec<u8>,
    numbers: [u64; 4],
    bytes: [u8; 8],
    address: [u8; 16],
    number: u16,
    zone: u8,
}

fn stuff() -> impl Strategy<Value = Stuff> {
    let number = Union::new(NUMBERS.map(Just));
    (
        vec(any::<u8>(), 1..200),
        any::<[u64; 4]>(),
        any::<[u8; 8]>(),
        any::<[u8; 16]>(),
        number,
        1..=8u8,
    )
        .prop_map(|(octets, numbers, bytes, address, number, zone)| Stuff {
            octets,
            numbers,
            bytes,
            address,
            number,
            zone,
        })
}

impl Stuff {
    fn u32(&self, at: usize) -> u32 {
        self.numbers[at] as u32
    }

    fn u16(&self, at: usize) -> u16 {
        self.numbers[at] as u16
    }

    fn address(&self) -> Address {
        if self.bytes[0] & 1 == 0 {
            let [a, b, c, d, ..] = self.address;
            Address {
                prefix_len: self.bytes[1] % 33,
                protocol: self.bytes[2],
                port: self.u16(0),
                ..Address::v4([a, b, c, d])
            }
        } else {
            Address {
                prefix_len: self.bytes[1] % 129,
                protocol: self.bytes[2],
                port: self.u16(0),
                scope: self.u32(1),
                ..Address::v6(self.address)
            }
        }
    }

    fn lifetime(&self) -> Lifetime {
        let [bytes, addtime, usetime, _] = self.numbers;
        Lifetime {
            allocations: self.u32(3),
            bytes,
            addtime,
            usetime,
        }
    }

    fn keys(&self, material: &'static [u8; 36]) -> Option<ZoneKeys<'static>> {
        let algorithm = *Algorithm::ALL.get(usize::from(self.bytes[0] % 5))?;
        let len = if algorithm.is_aes() && self.bytes[1] & 1 == 0 {
            16
        } else {
            32
        };
        Some(ZoneKeys {
            algorithm,
            key: Secret::new(&material[..len]),
            salt: Secret::new(&material[32..]),
        })
    }

    fn selector(&self) -> Selector {
        let family = if self.bytes[0] & 1 == 0 {
            Family::V4
        } else {
            Family::V6
        };
        let (src_len, dst_len) = (
            self.bytes[1] % (family.bits() + 1),
            self.bytes[2] % (family.bits() + 1),
        );
        let prefix = |len: u8| {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            (u128::from_be_bytes(self.address) & mask).to_be_bytes()
        };
        let protocol = self.bytes[3];
        // Half of the time one that has ports.
        let protocol = if protocol & 1 == 0 { 17 } else { protocol };
        let ports = |a: u16, b: u16| match Selector::has_ports(protocol) {
            true => PortRange::new(a.min(b), a.max(b)).unwrap_or(PortRange::ANY),
            false => PortRange::ANY,
        };
        Selector {
            family,
            protocol,
            src_len,
            dst_len,
            src: prefix(src_len),
            dst: prefix(dst_len),
            src_ports: ports(self.u16(0), self.u16(1)),
            dst_ports: ports(self.u16(2), self.u16(3)),
        }
    }

    fn map(&self) -> ZoneMap {
        let mode = if self.bytes[0] & 1 == 0 {
            Mode::Tunnel
        } else {
            Mode::Transport
        };
        let mut stops: Vec<u16> = self
            .octets
            .iter()
            .take(usize::from(self.bytes[1] % 8))
            .map(|&o| u16::from(o))
            .collect();
        stops.sort_unstable();
        stops.dedup();
        stops.push(END);
        ZoneMap::new(mode, &stops).unwrap()
    }

    fn extension(&self) -> Extension<'_> {
        static MATERIAL: [u8; 36] = [0x5A; 36];
        let text = self.octets.split(|&o| o == 0).next().unwrap();
        let identity = Identity {
            kind: self.u16(0),
            id: self.numbers[1],
            text,
        };
        let bits = u16::try_from(self.octets.len() * 8 - usize::from(self.bytes[0] % 8)).unwrap();
        let key = Key {
            bits,
            key: Secret::new(&self.octets),
        };
        match sample(self.number) {
            Extension::Sa(_) => Extension::Sa(Sa {
                spi: self.u32(0),
                replay: self.bytes[0],
                state: self.bytes[1] % 4,
                auth: self.bytes[2],
                encrypt: self.bytes[3],
                flags: self.u32(1),
            }),
            Extension::LifetimeCurrent(_) => Extension::LifetimeCurrent(self.lifetime()),
            Extension::LifetimeHard(_) => Extension::LifetimeHard(self.lifetime()),
            Extension::LifetimeSoft(_) => Extension::LifetimeSoft(self.lifetime()),
            Extension::AddressSrc(_) => Extension::AddressSrc(self.address()),
            Extension::AddressDst(_) => Extension::AddressDst(self.address()),
            Extension::AddressProxy(_) => Extension::AddressProxy(self.address()),
            Extension::NatOa(_) => Extension::NatOa(self.address()),
            Extension::KeyAuth(_) => Extension::KeyAuth(key),
            Extension::KeyEncrypt(_) => Extension::KeyEncrypt(key),
            Extension::IdentitySrc(_) => Extension::IdentitySrc(identity),
            Extension::IdentityDst(_) => Extension::IdentityDst(identity),
            Extension::Sensitivity(_) => {
                let words = self.octets.len() / 16 * 8;
                let (bitmap, rest) = self.octets.split_at(words);
                Extension::Sensitivity(Sensitivity {
                    domain: self.u32(0),
                    level: self.bytes[0],
                    integrity: self.bytes[1],
                    bitmap,
                    integrity_bitmap: &rest[..words],
                })
            }
            Extension::SpiRange(_) => {
                let (a, b) = (self.u32(0), self.u32(1));
                Extension::SpiRange(SpiRange {
                    min: a.min(b),
                    max: a.max(b),
                })
            }
            Extension::Policy(_) => Extension::Policy(PolicyExt {
                kind: self.u16(0),
                direction: self.bytes[0],
                id: self.u32(1),
                priority: self.u32(2),
            }),
            Extension::NatType(_) => Extension::NatType(NatType {
                kind: self.bytes[0],
            }),
            Extension::NatSport(_) => Extension::NatSport(NatPort { port: self.u16(0) }),
            Extension::NatDport(_) => Extension::NatDport(NatPort { port: self.u16(0) }),
            Extension::ZoneMap(_) => Extension::ZoneMap(self.map()),
            Extension::ZoneSa(_) => Extension::ZoneSa(ZoneSa {
                zone: self.zone,
                keys: self.keys(&MATERIAL),
            }),
            Extension::Csa(_) => Extension::Csa(CsaExt {
                role: Role::from_number(1 + self.bytes[0] % 3).unwrap(),
                mode: Mode::from_number(1 + self.bytes[1] % 2).unwrap(),
                state: State::from_number(self.bytes[2] % 4).unwrap(),
                window: self.u32(0),
                generation: self.u32(1),
                sequence: self.numbers[2],
            }),
            Extension::Selector(_) => Extension::Selector(self.selector()),
            Extension::Snoop(_) => Extension::Snoop(Snoop {
                flags: self.u16(0),
                window: self.u16(1),
                threshold: self.bytes[0],
                initial_ms: self.u32(0),
                min_rto_ms: self.u32(1),
                persist_ms: self.u32(2),
                garbage_ms: self.u32(3),
                bytes: self.numbers[3],
            }),
            Extension::Relay(_) => Extension::Relay(Relay {
                may_write: self.bytes[0] & 1 == 1,
                hold: self.bytes[0] & 2 == 2,
                number: self.u16(0) & Relay::NUMBER_MAX,
            }),
            Extension::Binding(_) => Extension::Binding(Binding {
                kind: self.bytes[0].max(1),
                data: &self.octets,
            }),
            Extension::SnoopState(_) => Extension::SnoopState(SnoopState {
                octets: &self.octets,
            }),
            fixed @ (Extension::Proposal(_)
            | Extension::SupportedAuth(_)
            | Extension::SupportedEncrypt(_)) => fixed,
        }
    }
}

/// Writes `message` again from what its decoder gave.
fn again(message: &Message<'_>, buffer: &mut [u8]) -> usize {
    let mut writer = Writer::with_header(buffer, message.header()).unwrap();
    for extension in message.extensions() {
        writer = writer.extension(&extension).unwrap();
    }
    writer.finish().unwrap().len()
}

/// Whatever is accepted is written back octet by octet, and its typed readers don't panic.
fn accepted_is_canonical(octets: &[u8]) {
    let Ok(message) = Message::parse(octets) else {
        return;
    };
    let mut buffer = [0xEE; MAX_LEN];
    let len = again(&message, &mut buffer);
    assert_eq!(&buffer[..len], octets);
    let _ = Csa::from_message(&message);
    let _ = CsaId::from_message(&message);
    let _ = CsaUpdate::from_message(&message);
    let _ = Policy::from_message(&message);
    let _ = PolicyId::from_message(&message);
    let _ = format!("{message:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_octets_make_the_decoder_panic(octets in vec(any::<u8>(), 0..600)) {
        accepted_is_canonical(&octets);
    }

    #[test]
    fn no_octets_behind_a_sound_header_make_the_decoder_panic(
        body in vec(any::<u8>(), 0..75), words in vec((1u16..8, Union::new(NUMBERS.map(Just))), 1..6)
    ) {
        let mut octets = common::add(&[]);
        let mut body = body.into_iter().cycle();
        for (words, number) in words {
            octets.extend(words.to_ne_bytes());
            octets.extend(number.to_ne_bytes());
            let zeros = words & 1 == 0;
            octets.extend((4..usize::from(words) * 8).map(|_| if zeros { 0 } else { body.next().unwrap_or(0) }));
        }
        common::fix_length(&mut octets);
        accepted_is_canonical(&octets);
    }

    #[test]
    fn what_is_written_is_read_back_the_same(
        parts in vec(stuff(), 0..12), kind in 1u8..=24, satype in any::<u8>(), errno in any::<u8>(), seq in any::<u32>(), pid in any::<u32>()
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let extensions: Vec<_> = parts
            .iter()
            .map(Stuff::extension)
            .filter(|e| seen.insert((e.number(), if let Extension::ZoneSa(sa) = e { sa.zone } else { 0 })))
            .collect();
        let header = Header { kind, errno, satype, seq, pid };
        let mut buffer = [0xEE; MAX_LEN];
        let mut writer = Writer::with_header(&mut buffer, header).unwrap();
        for extension in &extensions {
            writer = writer.extension(extension).unwrap();
        }
        let octets = writer.finish().unwrap();
        let message = Message::parse(octets).unwrap();
        prop_assert_eq!(message.header(), header);
        let back: Vec<_> = message.extensions().into_iter().collect();
        prop_assert_eq!(back, extensions);
        accepted_is_canonical(octets);
    }

    #[test]
    fn a_changed_message_is_refused_or_means_what_it_says(
        parts in vec(stuff(), 1..4), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let extensions: Vec<_> = parts.iter().map(Stuff::extension).collect();
        let mut octets = common::add(&extensions);
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        accepted_is_canonical(&octets);
    }

    #[test]
    fn a_buffer_too_short_is_an_error_and_never_a_panic(part in stuff(), room in 0usize..300) {
        let mut buffer = vec![0; room];
        let written = Writer::new(&mut buffer, 3, 249, 0, 0).and_then(|w| w.extension(&part.extension())).and_then(Writer::finish);
        match written {
            Ok(octets) => prop_assert!(Message::parse(octets).is_ok()),
            Err(error) => prop_assert_eq!(error.errno, errno::ENOBUFS),
        }
    }

    #[test]
    fn secrets_are_not_printed(part in stuff()) {
        // Both kinds of key hold octets the numbers around them don't: 0x5A and text of its own.
        let extension = part.extension();
        if let Extension::ZoneSa(ZoneSa { keys: Some(keys), .. }) = extension {
            let printed = format!("{extension:?} {keys:?}");
            prop_assert!(!printed.contains("90, 90") && !printed.to_lowercase().contains("5a5a"), "{}", printed);
        }
    }
}

#[test]
fn every_number_has_a_sample_that_survives() {
    for number in NUMBERS {
        let extension = sample(number);
        assert_eq!(extension.number(), number);
        let octets = common::add(&[extension]);
        let message = Message::parse(&octets).unwrap();
        let back: Vec<_> = message.extensions().into_iter().collect();
        assert_eq!(back, [extension]);
    }
}

#[test]
fn the_accessors_find_each_its_own() {
    let all: Vec<_> = NUMBERS.into_iter().map(sample).collect();
    let octets = common::add(&all);
    let message = Message::parse(&octets).unwrap();
    assert_eq!(message.sa().map(Extension::Sa), Some(all[0]));
    assert_eq!(
        message.lifetime_current().map(Extension::LifetimeCurrent),
        Some(all[1])
    );
    assert_eq!(
        message.lifetime_hard().map(Extension::LifetimeHard),
        Some(all[2])
    );
    assert_eq!(
        message.lifetime_soft().map(Extension::LifetimeSoft),
        Some(all[3])
    );
    assert_eq!(message.src().map(Extension::AddressSrc), Some(all[4]));
    assert_eq!(message.dst().map(Extension::AddressDst), Some(all[5]));
    assert_eq!(message.proxy().map(Extension::AddressProxy), Some(all[6]));
    assert_eq!(message.policy().map(Extension::Policy), Some(all[16]));
    assert_eq!(message.nat_oa().map(Extension::NatOa), Some(all[20]));
    assert_eq!(message.zone_map().map(Extension::ZoneMap), Some(all[21]));
    assert_eq!(message.zone_sa(1).map(Extension::ZoneSa), Some(all[22]));
    assert_eq!(message.zone_sa(2), None);
    assert_eq!(message.csa().map(Extension::Csa), Some(all[23]));
    assert_eq!(message.selector().map(Extension::Selector), Some(all[24]));
    assert_eq!(message.snoop().map(Extension::Snoop), Some(all[25]));
    assert_eq!(message.relay().map(Extension::Relay), Some(all[26]));
    assert_eq!(message.binding().map(Extension::Binding), Some(all[27]));
    assert_eq!(
        message.snoop_state().map(Extension::SnoopState),
        Some(all[28])
    );
}

/// The seeds of the fuzz target: one message of each kind. `MML_WRITE_CORPUS=1` writes them anew.
#[test]
fn the_fuzzers_seeds_are_sound_messages() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/message");
    let mut seeds = vec![("all".to_owned(), NUMBERS.map(sample).to_vec())];
    for (number, name) in NUMBERS.into_iter().zip(common::NAMES) {
        seeds.push((name.to_lowercase(), vec![sample(number)]));
    }
    let ports = Selector {
        protocol: 17,
        src_ports: PortRange::one(500).unwrap(),
        dst_ports: PortRange::new(8000, 8099).unwrap(),
        ..common::selector()
    };
    seeds.push((
        "selector_ports".to_owned(),
        vec![Extension::Selector(ports)],
    ));
    for role in [Role::Origin, Role::Terminus, Role::Relay] {
        let csa = common::csa(role);
        let mut buffer = [0; MAX_LEN];
        let writer = Writer::new(&mut buffer, 3, 249, 1, 2).unwrap();
        let octets = csa.write(writer).unwrap().finish().unwrap();
        let message = Message::parse(octets).unwrap();
        let name = format!("add_{}", role.name());
        check_seed(&format!("{directory}/{name}"), octets);
        assert!(Csa::from_message(&message).is_ok());
    }
    let id = [
        ext::SA,
        ext::ADDRESS_SRC,
        ext::ADDRESS_DST,
        ext::CSA,
        ext::LIFETIME_CURRENT,
    ];
    let with = |more: u16| id.into_iter().chain([more]).map(sample).collect::<Vec<_>>();
    let asked = [ext::ADDRESS_SRC, ext::ADDRESS_DST, ext::SPIRANGE].map(sample);
    for (name, kind, extensions) in [
        ("expire_soft", message::EXPIRE, with(ext::LIFETIME_SOFT)),
        ("expire_hard", message::EXPIRE, with(ext::LIFETIME_HARD)),
        ("update_life", message::UPDATE, with(ext::LIFETIME_HARD)),
        ("getspi", message::GETSPI, asked.to_vec()),
        ("snoop_give", message::X_CSA_SNOOP, with(ext::SNOOP_STATE)),
        (
            "resend",
            message::X_CSA_RESEND,
            id.into_iter().map(sample).collect(),
        ),
    ] {
        check_seed(
            &format!("{directory}/{name}"),
            &common::write(kind, &extensions),
        );
    }
    for (name, extensions) in seeds {
        check_seed(&format!("{directory}/{name}"), &common::add(&extensions));
    }
}

fn check_seed(path: &str, octets: &[u8]) {
    if std::env::var_os("MML_WRITE_CORPUS").is_some() {
        std::fs::write(path, octets).unwrap();
    }
    let stored = std::fs::read(path).unwrap();
    assert_eq!(stored, octets, "{path}: make the corpus anew");
    accepted_is_canonical(&stored);
}
