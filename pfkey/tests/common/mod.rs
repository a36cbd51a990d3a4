// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Messages for the tests: one sound extension of each number, and a way to write them.
#![allow(dead_code, reason = "each test takes what it needs")]

use pfkey::number::{ext, message, satype};
use pfkey::*;

/// Every extension number there is.
pub const NUMBERS: [u16; 29] = [
    ext::SA,
    ext::LIFETIME_CURRENT,
    ext::LIFETIME_HARD,
    ext::LIFETIME_SOFT,
    ext::ADDRESS_SRC,
    ext::ADDRESS_DST,
    ext::ADDRESS_PROXY,
    ext::KEY_AUTH,
    ext::KEY_ENCRYPT,
    ext::IDENTITY_SRC,
    ext::IDENTITY_DST,
    ext::SENSITIVITY,
    ext::PROPOSAL,
    ext::SUPPORTED_AUTH,
    ext::SUPPORTED_ENCRYPT,
    ext::SPIRANGE,
    ext::X_POLICY,
    ext::X_NAT_T_TYPE,
    ext::X_NAT_T_SPORT,
    ext::X_NAT_T_DPORT,
    ext::X_NAT_T_OA,
    ext::ZONE_MAP,
    ext::ZONE_SA,
    ext::CSA,
    ext::SELECTOR,
    ext::SNOOP,
    ext::RELAY,
    ext::BINDING,
    ext::SNOOP_STATE,
];

/// The name an error has for each of [`NUMBERS`].
pub const NAMES: [&str; 29] = [
    "SA",
    "LIFETIME_CURRENT",
    "LIFETIME_HARD",
    "LIFETIME_SOFT",
    "ADDRESS_SRC",
    "ADDRESS_DST",
    "ADDRESS_PROXY",
    "KEY_AUTH",
    "KEY_ENCRYPT",
    "IDENTITY_SRC",
    "IDENTITY_DST",
    "SENSITIVITY",
    "PROPOSAL",
    "SUPPORTED_AUTH",
    "SUPPORTED_ENCRYPT",
    "SPIRANGE",
    "X_POLICY",
    "X_NAT_T_TYPE",
    "X_NAT_T_SPORT",
    "X_NAT_T_DPORT",
    "X_NAT_T_OA",
    "ZONE_MAP",
    "ZONE_SA",
    "CSA",
    "SELECTOR",
    "SNOOP",
    "RELAY",
    "BINDING",
    "SNOOP_STATE",
];

pub const LIFETIME: Lifetime = Lifetime {
    allocations: 0,
    bytes: 1 << 40,
    addtime: 3600,
    usetime: 60,
};
pub const KEY1: [u8; 32] = [0x11; 32];
pub const KEY2: [u8; 32] = [0x22; 32];

pub fn selector() -> Selector {
    let mut dst = [0; 16];
    dst[..4].copy_from_slice(&[203, 0, 113, 7]);
    Selector {
        family: Family::V4,
        protocol: 0,
        src_len: 0,
        dst_len: 32,
        src: [0; 16],
        dst,
        src_ports: PortRange::ANY,
        dst_ports: PortRange::ANY,
    }
}

pub fn keys(algorithm: Algorithm, key: &[u8]) -> ZoneKeys<'_> {
    ZoneKeys {
        algorithm,
        key: Secret::new(key),
        salt: Secret::new(&[1, 2, 3, 4]),
    }
}

/// A sound extension of this number.
pub fn sample(number: u16) -> Extension<'static> {
    let address = Address::v4([198, 51, 100, 1]);
    let identity = Identity {
        kind: 2,
        id: 7,
        text: b"mh.example",
    };
    let key = Key {
        bits: 160,
        key: Secret::new(&[0xAA; 20]),
    };
    let supported = Supported::new(&[20, 64, 128, 0, 0, 1, 0, 0]).unwrap();
    match number {
        ext::SA => Extension::Sa(Sa::mature(0x1234_5678)),
        ext::LIFETIME_CURRENT => Extension::LifetimeCurrent(LIFETIME),
        ext::LIFETIME_HARD => Extension::LifetimeHard(LIFETIME),
        ext::LIFETIME_SOFT => Extension::LifetimeSoft(LIFETIME),
        ext::ADDRESS_SRC => Extension::AddressSrc(address),
        ext::ADDRESS_DST => Extension::AddressDst(Address::v4([10, 1, 1, 7])),
        ext::ADDRESS_PROXY => Extension::AddressProxy(Address::v6([0xFD; 16])),
        ext::KEY_AUTH => Extension::KeyAuth(key),
        ext::KEY_ENCRYPT => Extension::KeyEncrypt(key),
        ext::IDENTITY_SRC => Extension::IdentitySrc(identity),
        ext::IDENTITY_DST => Extension::IdentityDst(identity),
        ext::SENSITIVITY => Extension::Sensitivity(Sensitivity {
            domain: 1,
            level: 2,
            integrity: 3,
            bitmap: &[1; 8],
            integrity_bitmap: &[2; 16],
        }),
        ext::PROPOSAL => Extension::Proposal(Proposal::new(32, &[0; 144]).unwrap()),
        ext::SUPPORTED_AUTH => Extension::SupportedAuth(supported),
        ext::SUPPORTED_ENCRYPT => Extension::SupportedEncrypt(supported),
        ext::SPIRANGE => Extension::SpiRange(SpiRange {
            min: 256,
            max: 4096,
        }),
        ext::X_POLICY => Extension::Policy(PolicyExt {
            kind: 2,
            direction: 2,
            id: 0,
            priority: 100,
        }),
        ext::X_NAT_T_TYPE => Extension::NatType(NatType { kind: 2 }),
        ext::X_NAT_T_SPORT => Extension::NatSport(NatPort { port: 4500 }),
        ext::X_NAT_T_DPORT => Extension::NatDport(NatPort { port: 4501 }),
        ext::X_NAT_T_OA => Extension::NatOa(address),
        ext::ZONE_MAP => Extension::ZoneMap(ZoneMap::default_for(Mode::Tunnel)),
        ext::ZONE_SA => Extension::ZoneSa(ZoneSa {
            zone: 1,
            keys: Some(keys(Algorithm::AesGcm16Iiv, &KEY1)),
        }),
        ext::CSA => Extension::Csa(csa_ext(Role::Origin)),
        ext::SELECTOR => Extension::Selector(selector()),
        ext::SNOOP => Extension::Snoop(SNOOP),
        ext::RELAY => Extension::Relay(Relay {
            may_write: true,
            hold: true,
            number: 5,
        }),
        ext::BINDING => Extension::Binding(Binding {
            kind: 2,
            data: b"mh.example",
        }),
        ext::SNOOP_STATE => Extension::SnoopState(SnoopState {
            octets: &[1, 0, 0, 0, 0, 0, 0, 0, 9],
        }),
        other => panic!("no extension {other}"),
    }
}

pub const SNOOP: Snoop = Snoop {
    flags: 0,
    window: 64,
    threshold: 1,
    initial_ms: 100,
    min_rto_ms: 20,
    persist_ms: 2000,
    garbage_ms: 30_000,
    bytes: 1 << 20,
};

pub fn csa_ext(role: Role) -> CsaExt {
    let (mode, state) = (Mode::Tunnel, State::Active);
    CsaExt {
        role,
        mode,
        state,
        window: WINDOW_DEFAULT,
        generation: 1,
        sequence: 0,
    }
}

/// A sound CSA of this role.
pub fn csa(role: Role) -> Csa<'static> {
    let zone2 = match role {
        Role::Relay => ZoneSa::null(2),
        _ => ZoneSa {
            zone: 2,
            keys: Some(keys(Algorithm::ChaCha20Poly1305, &KEY2)),
        },
    };
    Csa {
        spi: 0x1234_5678,
        src: Address::v4([198, 51, 100, 1]),
        dst: Address::v4([10, 1, 1, 7]),
        ext: csa_ext(role),
        selector: selector(),
        map: ZoneMap::default_for(Mode::Tunnel),
        zones: [
            ZoneSa {
                zone: 1,
                keys: Some(keys(Algorithm::AesGcm16, &KEY1)),
            },
            zone2,
        ],
        relay: Relay::default(),
        hard: None,
        soft: None,
        binding: None,
        snoop: None,
        encap: None,
    }
}

/// A message of these extensions.
pub fn write(kind: u8, extensions: &[Extension<'_>]) -> Vec<u8> {
    let mut buffer = [0xEE; 2 * MAX_LEN];
    let mut writer = Writer::new(&mut buffer, kind, satype::MLESP, 3, 4).unwrap();
    for extension in extensions {
        writer = writer.extension(extension).unwrap();
    }
    writer.finish().unwrap().to_vec()
}

/// An ADD of these extensions.
pub fn add(extensions: &[Extension<'_>]) -> Vec<u8> {
    write(message::ADD, extensions)
}

/// Sets the header's length field to the real length.
pub fn fix_length(octets: &mut [u8]) {
    let words = u16::try_from(octets.len() / 8).unwrap();
    octets[4..6].copy_from_slice(&words.to_ne_bytes());
}
