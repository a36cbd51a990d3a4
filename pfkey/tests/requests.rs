// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a request must hold: ADD, UPDATE, DELETE and GET, and the policies' messages.

mod common;

use common::{add, csa, csa_ext, keys, selector, write, KEY1, LIFETIME, SNOOP};
use pfkey::number::{ext, message, policy, satype};
use pfkey::*;

const ROLES: [Role; 3] = [Role::Origin, Role::Terminus, Role::Relay];

fn octets(csa: &Csa<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_LEN];
    let writer = Writer::new(&mut buffer, message::ADD, satype::MLESP, 1, 2).unwrap();
    csa.write(writer).unwrap().finish().unwrap().to_vec()
}

fn refused(csa: &Csa<'_>) -> &'static str {
    let octets = octets(csa);
    let error = Csa::from_message(&Message::parse(&octets).unwrap()).expect_err("taken");
    assert_eq!(error.errno, errno::EINVAL);
    assert_eq!(
        csa.check().err().map_or(error.as_str(), |e| e.as_str()),
        error.as_str()
    );
    error.as_str()
}

fn change(role: Role, change: impl FnOnce(&mut Csa<'static>)) -> &'static str {
    let mut csa = csa(role);
    change(&mut csa);
    refused(&csa)
}

/// docs/wire.md 2.2c.
#[test]
fn a_sound_csa_of_each_role_is_taken_as_written() {
    for role in ROLES {
        let mut csa = csa(role);
        csa.hard = Some(LIFETIME);
        csa.soft = Some(Lifetime {
            addtime: 10,
            ..LIFETIME
        });
        csa.binding = Some(Binding {
            kind: 2,
            data: b"mh",
        });
        csa.relay = Relay {
            may_write: true,
            number: if role == Role::Relay { 9 } else { 0 },
            hold: role != Role::Terminus,
        };
        csa.snoop = (role == Role::Relay).then_some(SNOOP);
        let octets = octets(&csa);
        assert_eq!(
            Csa::from_message(&Message::parse(&octets).unwrap()),
            Ok(csa)
        );
    }
}

/// docs/wire.md 2.2c.
#[test]
fn each_extension_that_add_needs_is_missed_by_name() {
    let needed = [
        (ext::SA, "SA: missing"),
        (ext::CSA, "CSA: missing"),
        (ext::ADDRESS_SRC, "ADDRESS_SRC: missing"),
        (ext::ADDRESS_DST, "ADDRESS_DST: missing"),
        (ext::SELECTOR, "SELECTOR: missing"),
        (ext::ZONE_MAP, "ZONE_MAP: missing"),
        (ext::ZONE_SA, "ZONE_SA: zone 1's is missing"),
    ];
    for role in ROLES {
        let whole = octets(&csa(role));
        let whole = Message::parse(&whole).unwrap();
        for (number, text) in needed {
            let rest: Vec<_> = whole
                .extensions()
                .into_iter()
                .filter(|e| e.number() != number)
                .collect();
            let octets = add(&rest);
            let error = Csa::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
            assert_eq!((error.errno, error.as_str()), (errno::EINVAL, text));
        }
        let rest: Vec<_> = whole
            .extensions()
            .into_iter()
            .filter(|e| !matches!(e, Extension::ZoneSa(sa) if sa.zone == 2))
            .collect();
        let octets = add(&rest);
        let error = Csa::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
        assert_eq!(error.as_str(), "ZONE_SA: zone 2's is missing");
    }
}

/// docs/wire.md 2.2a.
#[test]
fn another_sa_type_is_refused_with_eprotonosupport() {
    let mut octets = octets(&csa(Role::Origin));
    octets[3] = satype::ESP;
    let error = Csa::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
    assert_eq!(error.errno, errno::EPROTONOSUPPORT);
}

/// docs/wire.md 1.1a.
#[test]
fn reserved_spis_are_refused() {
    for spi in [0, 1, 255] {
        assert_eq!(
            change(Role::Origin, |c| c.spi = spi),
            "SA: SPIs below 256 are reserved"
        );
    }
    let mut least = csa(Role::Origin);
    least.spi = 256;
    assert!(least.check().is_ok());
}

/// docs/wire.md 1.7c.
#[test]
fn windows_outside_64_to_65536_are_refused() {
    for role in ROLES {
        for window in [0, 63, 65_537, u32::MAX] {
            let text = change(role, |c| c.ext.window = window);
            assert_eq!(text, "CSA: replay window is not within 64 to 65536");
        }
        for window in [64, 65_536] {
            let mut csa = csa(role);
            csa.ext.window = window;
            assert!(csa.check().is_ok());
        }
    }
}

/// docs/wire.md 2.2c.
#[test]
fn a_new_csa_is_active_or_standby() {
    for state in [State::Larval, State::Dying] {
        assert_eq!(
            change(Role::Relay, |c| c.ext.state = state),
            "CSA: a new one is active or standby"
        );
    }
}

/// docs/wire.md 1.1b.
#[test]
fn sequence_numbers_of_64_bits_are_refused() {
    let text = "CSA: sequence number is not below 2^63";
    assert_eq!(change(Role::Origin, |c| c.ext.sequence = 1 << 63), text);
}

/// docs/wire.md 1.2b, 2.3d.
#[test]
fn only_a_relay_has_a_null_zone_2_and_it_must() {
    for role in [Role::Origin, Role::Terminus] {
        let text = change(role, |c| c.zones[1] = ZoneSa::null(2));
        assert_eq!(text, "ZONE_SA: zone 2's is null, but only a relay's may be");
    }
    let with_key = csa(Role::Origin).zones[1];
    let text = change(Role::Relay, |c| c.zones[1] = with_key);
    assert_eq!(text, "ZONE_SA: a relay's SA of zone 2 must be null");
    for role in ROLES {
        let text = change(role, |c| c.zones[0] = ZoneSa::null(1));
        assert_eq!(
            text,
            "ZONE_SA: zone 1's is null, and every role needs its key"
        );
    }
}

/// docs/wire.md 1.2b.
#[test]
fn one_key_for_both_zones_is_refused() {
    let text = change(Role::Origin, |c| {
        c.zones[1].keys = Some(keys(Algorithm::AesGcm16Iiv, &KEY1));
    });
    assert_eq!(text, "ZONE_SA: both zones have the same key");
}

/// docs/wire.md 2.3j.
#[test]
fn keys_and_salts_of_wrong_length_are_refused_before_they_are_written() {
    for (algorithm, len) in [
        (Algorithm::AesGcm16, 24),
        (Algorithm::AesGcm16, 0),
        (Algorithm::AesGcm16Iiv, 31),
        (Algorithm::ChaCha20Poly1305, 16),
        (Algorithm::ChaCha20Poly1305Iiv, 16),
    ] {
        let mut csa = csa(Role::Origin);
        csa.zones[0].keys = Some(keys(algorithm, &KEY1[..len]));
        let error = csa.check().unwrap_err();
        assert_eq!(
            error.as_str(),
            "ZONE_SA: the transform has no keys of this length"
        );
    }
    let mut csa = csa(Role::Origin);
    let salt = Secret::new(&[1, 2, 3]);
    csa.zones[0].keys = Some(ZoneKeys {
        salt,
        ..keys(Algorithm::AesGcm16, &KEY1)
    });
    assert_eq!(
        csa.check().unwrap_err().as_str(),
        "ZONE_SA: a salt has 4 octets"
    );
}

/// docs/wire.md 1.8c, 1.8k.
#[test]
fn maps_the_data_path_cant_follow_are_refused() {
    let map = |stops: &[u16]| ZoneMap::new(Mode::Tunnel, stops).unwrap();
    let text = change(Role::Relay, |c| c.map = map(&[END]));
    assert_eq!(text, "ZONE_MAP: the data path takes two zones");
    let text = change(Role::Relay, |c| c.map = map(&[20, 40, END]));
    assert_eq!(text, "ZONE_MAP: the data path takes two zones");
    let text = change(Role::Relay, |c| c.map = map(&[257, END]));
    assert_eq!(text, "ZONE_MAP: zone 1 stops behind octet 256");
    let text = change(Role::Relay, |c| c.map = map(&[0, END]));
    assert_eq!(text, "ZONE_MAP: zone 1 is empty in tunnel mode");
    let text = change(Role::Relay, |c| {
        c.map = ZoneMap::default_for(Mode::Transport)
    });
    assert_eq!(text, "ZONE_MAP: its mode is not the CSA's");
    for stops in [[40, END], [256, END], [TRANSPORT_END, END]] {
        let mut csa = csa(Role::Relay);
        csa.map = map(&stops);
        assert!(csa.check().is_ok());
    }
}

/// docs/wire.md 1.8a.
#[test]
fn maps_that_dont_cover_a_datagram_once_cant_be_made() {
    let bad: [&[u16]; 7] = [
        &[],
        &[40],
        &[TRANSPORT_END],
        &[40, 40, END],
        &[40, 20, END],
        &[END, END],
        &[1; MAX_ZONES + 1],
    ];
    for stops in bad {
        assert_eq!(ZoneMap::new(Mode::Tunnel, stops), None, "{stops:?}");
    }
}

/// docs/wire.md 2.3f.
#[test]
fn selectors_with_host_bits_are_refused() {
    let mut csa = csa(Role::Origin);
    csa.selector.src_len = 8;
    csa.selector.src[..4].copy_from_slice(&[10, 0, 0, 1]);
    assert_eq!(
        csa.check().unwrap_err().as_str(),
        "SELECTOR: prefix too long, or host bits set behind it"
    );
    csa.selector.src[3] = 0;
    assert!(csa.check().is_ok());
    csa.selector.src_len = 33;
    assert!(csa.check().is_err());
}

/// docs/wire.md 2.3l.
#[test]
fn only_protocols_that_have_ports_come_with_some() {
    let mut csa = csa(Role::Origin);
    csa.selector.dst_ports = PortRange::one(80).unwrap();
    for protocol in 0..=u8::MAX {
        csa.selector.protocol = protocol;
        let has = [6, 17, 33, 132, 136].contains(&protocol);
        assert_eq!(csa.check().is_ok(), has, "{protocol}");
    }
    assert!(csa
        .check()
        .unwrap_err()
        .as_str()
        .starts_with("SELECTOR: ports of a protocol that has none"));
}

/// docs/wire.md 2.3f.
#[test]
fn a_selector_covers_what_is_closer() {
    let ports = |first, last| PortRange::new(first, last).unwrap();
    let wide = Selector {
        protocol: 17,
        dst_ports: ports(1000, 2000),
        ..selector()
    };
    let mut src = [0; 16];
    src[..4].copy_from_slice(&[192, 0, 2, 10]);
    let close = Selector {
        src,
        src_len: 32,
        src_ports: ports(1, 1),
        dst_ports: ports(1000, 1000),
        ..wide
    };
    assert!(wide.covers(&wide) && wide.covers(&close) && selector().covers(&wide));
    assert!(!close.covers(&wide) && !wide.covers(&selector()));
    for other in [
        Selector {
            protocol: 6,
            ..close
        },
        Selector {
            family: Family::V6,
            ..close
        },
        Selector { dst: src, ..close },
        Selector {
            dst_len: 31,
            ..close
        },
        Selector {
            dst_ports: ports(999, 1000),
            ..close
        },
        Selector {
            dst_ports: ports(2000, 2001),
            ..close
        },
    ] {
        assert!(!wide.covers(&other), "{other:?}");
    }
    assert_eq!(close.reversed().reversed(), close);
    assert_eq!(close.reversed().src_ports, close.dst_ports);
}

/// docs/wire.md 2.3l: each range has one form.
#[test]
fn a_range_of_ports_is_none_the_other_way_round_and_any_in_one_way() {
    assert_eq!(PortRange::new(2, 1), None);
    assert_eq!(PortRange::new(0, 0), None);
    assert_eq!(PortRange::one(0), None);
    assert_eq!(PortRange::new(0, u16::MAX), Some(PortRange::ANY));
    let range = PortRange::new(8000, 8099).unwrap();
    assert!(range.holds(8000) && range.holds(8099));
    assert!(!range.holds(7999) && !range.holds(8100));
    let octets = |first: u16, last: u16| {
        let mut csa = add(&[Extension::Selector(Selector {
            protocol: 6,
            ..selector()
        })]);
        csa[24..26].copy_from_slice(&first.to_be_bytes());
        csa[26..28].copy_from_slice(&last.to_be_bytes());
        csa
    };
    let read = |octets: &[u8]| {
        let message = Message::parse(octets)?;
        Ok::<_, Error>(message.selector().map(|selector| selector.src_ports))
    };
    assert_eq!(read(&octets(0, 0)), Ok(Some(PortRange::ANY)));
    assert_eq!(read(&octets(8000, 8099)), Ok(Some(range)));
    assert_eq!(read(&octets(0, 1023)), Ok(PortRange::new(0, 1023)));
    assert_eq!(read(&octets(1, u16::MAX)), Ok(PortRange::new(1, u16::MAX)));
    for (first, last) in [(0, u16::MAX), (1, 0), (8099, 8000)] {
        let error = read(&octets(first, last)).unwrap_err();
        assert_eq!(error.as_str(), "SELECTOR: a field is out of range");
    }
}

/// docs/wire.md 1.5a.
#[test]
fn writing_relays_need_an_explicit_iv_and_a_number() {
    let write = Relay {
        may_write: true,
        number: 1,
        hold: false,
    };
    let text = change(Role::Relay, |c| {
        c.relay = write;
        c.zones[0].keys = Some(keys(Algorithm::AesGcm16Iiv, &KEY1));
    });
    assert_eq!(text, "RELAY: writing needs an explicit IV in zone 1");
    let text = change(Role::Relay, |c| c.relay = Relay { number: 0, ..write });
    assert_eq!(text, "RELAY: a relay that may write needs a relay number");
    let text = change(Role::Terminus, |c| c.relay = write);
    assert_eq!(text, "RELAY: only a relay has a relay number");
    // docs/wire.md 2.3h.
    let hold = Relay {
        hold: true,
        ..Relay::default()
    };
    let text = change(Role::Terminus, |c| c.relay = hold);
    assert_eq!(text, "RELAY: a terminus holds nothing for a handoff");
    let text = change(Role::Origin, |c| c.snoop = Some(SNOOP));
    assert_eq!(text, "SNOOP: only a relay has it");
}

/// docs/wire.md 2.5g.
#[test]
fn a_soft_lifetime_behind_the_hard_one_is_refused() {
    let text = change(Role::Origin, |c| {
        c.hard = Some(LIFETIME);
        c.soft = Some(Lifetime {
            addtime: LIFETIME.addtime + 1,
            ..LIFETIME
        });
    });
    assert_eq!(text, "LIFETIME_SOFT: a limit behind LIFETIME_HARD's");
}

#[test]
fn outer_addresses_are_two_hosts_of_one_family() {
    let src = "ADDRESS_SRC: not the address of one host";
    let dst = "ADDRESS_DST: not the address of one host";
    for bad in [
        [0, 0, 0, 0],
        [224, 0, 0, 1],
        [239, 1, 2, 3],
        [255, 255, 255, 255],
    ] {
        assert_eq!(change(Role::Origin, |c| c.src = Address::v4(bad)), src);
        assert_eq!(change(Role::Origin, |c| c.dst = Address::v4(bad)), dst);
    }
    assert_eq!(change(Role::Origin, |c| c.src.prefix_len = 24), src);
    assert_eq!(change(Role::Origin, |c| c.dst.port = 4500), dst);
    assert_eq!(change(Role::Origin, |c| c.dst.protocol = 6), dst);
    let text = change(Role::Origin, |c| c.dst = Address::v6([0xFD; 16]));
    assert_eq!(text, "ADDRESS_DST: its family is not ADDRESS_SRC's");
    assert_eq!(
        change(Role::Origin, |c| c.dst = c.src),
        "ADDRESS_DST: it is ADDRESS_SRC"
    );
}

/// docs/wire.md 2.2n.
#[test]
fn the_sa_extension_holds_nothing_but_the_spi() {
    let whole = octets(&csa(Role::Origin));
    let rest = |sa: Sa| {
        let message = Message::parse(&whole).unwrap();
        let extensions: Vec<_> = message
            .extensions()
            .into_iter()
            .map(|e| {
                if matches!(e, Extension::Sa(_)) {
                    Extension::Sa(sa)
                } else {
                    e
                }
            })
            .collect();
        let octets = add(&extensions);
        Csa::from_message(&Message::parse(&octets).unwrap())
            .map(|_| ())
            .map_err(|e| e.as_str())
    };
    let sa = Sa::mature(300);
    assert_eq!(rest(sa), Ok(()));
    let text = "SA: replay, algorithms and flags must be 0";
    assert_eq!(rest(Sa { encrypt: 20, ..sa }), Err(text));
    assert_eq!(rest(Sa { auth: 2, ..sa }), Err(text));
    assert_eq!(rest(Sa { replay: 32, ..sa }), Err(text));
    assert_eq!(rest(Sa { flags: 1, ..sa }), Err(text));
    assert!(rest(Sa { state: 0, ..sa }).is_err());
}

fn id(kind: u8, ext: CsaExt, more: &[Extension<'_>]) -> Vec<u8> {
    let id = CsaId {
        spi: 300,
        src: csa(Role::Relay).src,
        dst: csa(Role::Relay).dst,
        role: ext.role,
    };
    let mut buffer = [0; MAX_LEN];
    let mut writer = Writer::new(&mut buffer, kind, satype::MLESP, 1, 2).unwrap();
    writer = id.write(writer, &ext).unwrap();
    for extension in more {
        writer = writer.extension(extension).unwrap();
    }
    writer.finish().unwrap().to_vec()
}

/// docs/wire.md 2.2g.
#[test]
fn a_csa_is_named_by_spi_addresses_and_role() {
    let octets = id(message::DELETE, csa_ext(Role::Relay), &[]);
    let message = Message::parse(&octets).unwrap();
    let id = CsaId::from_message(&message).unwrap();
    assert_eq!((id.spi, id.role), (300, Role::Relay));
    for number in [ext::SA, ext::CSA, ext::ADDRESS_SRC, ext::ADDRESS_DST] {
        let rest: Vec<_> = message
            .extensions()
            .into_iter()
            .filter(|e| e.number() != number)
            .collect();
        let octets = write(message::DELETE, &rest);
        let error = CsaId::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
        assert!(error.as_str().ends_with(": missing"), "{error}");
    }
}

/// docs/wire.md 2.2d.
#[test]
fn an_update_changes_state_and_lifetimes_but_never_keys() {
    let ext = CsaExt {
        state: State::Dying,
        sequence: 77,
        ..csa_ext(Role::Relay)
    };
    let more = [Extension::LifetimeHard(LIFETIME), Extension::Snoop(SNOOP)];
    let octets = id(message::UPDATE, ext, &more);
    let update = CsaUpdate::from_message(&Message::parse(&octets).unwrap()).unwrap();
    assert_eq!((update.state, update.sequence), (State::Dying, 77));
    assert_eq!(
        (update.hard, update.soft, update.snoop),
        (Some(LIFETIME), None, Some(SNOOP))
    );
    for number in [
        ext::ZONE_SA,
        ext::ZONE_MAP,
        ext::SELECTOR,
        ext::RELAY,
        ext::BINDING,
    ] {
        let octets = id(message::UPDATE, ext, &[common::sample(number)]);
        let error = CsaUpdate::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
        assert!(error.as_str().contains("an update can't change"), "{error}");
    }
    let larval = CsaExt {
        state: State::Larval,
        ..ext
    };
    let octets = id(message::UPDATE, larval, &[]);
    assert!(CsaUpdate::from_message(&Message::parse(&octets).unwrap()).is_err());
    let octets = id(
        message::UPDATE,
        csa_ext(Role::Origin),
        &[Extension::Snoop(SNOOP)],
    );
    assert!(CsaUpdate::from_message(&Message::parse(&octets).unwrap()).is_err());
}

fn policy_octets(policy: &Policy) -> Vec<u8> {
    let mut buffer = [0; MAX_LEN];
    let writer = Writer::new(&mut buffer, message::X_SPDADD, satype::UNSPEC, 1, 2).unwrap();
    policy.write(writer).unwrap().finish().unwrap().to_vec()
}

/// docs/wire.md 2.2k.
#[test]
fn a_policy_is_taken_as_written() {
    let outer = (Address::v4([198, 51, 100, 1]), Address::v4([10, 1, 1, 7]));
    for kind in [policy::DISCARD, policy::BYPASS, policy::PROTECT] {
        for direction in [policy::DIR_IN, policy::DIR_OUT] {
            let ext = PolicyExt {
                kind,
                direction,
                id: 5,
                priority: 9,
            };
            let template = (kind == policy::PROTECT).then_some(outer);
            let policy = Policy {
                ext,
                selector: selector(),
                template,
            };
            let octets = policy_octets(&policy);
            assert_eq!(
                Policy::from_message(&Message::parse(&octets).unwrap()),
                Ok(policy)
            );
        }
    }
}

/// docs/wire.md 2.4d.
#[test]
fn malformed_policies_are_refused_by_name() {
    let ext = PolicyExt {
        kind: policy::BYPASS,
        direction: policy::DIR_IN,
        id: 0,
        priority: 0,
    };
    let outer = (Address::v4([198, 51, 100, 1]), Address::v4([10, 1, 1, 7]));
    let try_one = |policy: Policy| {
        let octets = policy_octets(&policy);
        Policy::from_message(&Message::parse(&octets).unwrap()).map_err(|e| e.as_str())
    };
    let plain = Policy {
        ext,
        selector: selector(),
        template: None,
    };
    assert!(try_one(plain).is_ok());
    let text = "X_POLICY: only one that protects has outer addresses";
    assert_eq!(
        try_one(Policy {
            template: Some(outer),
            ..plain
        }),
        Err(text)
    );
    let text = "X_POLICY: type is not discard, bypass or protect";
    assert_eq!(
        try_one(Policy {
            ext: PolicyExt { kind: 3, ..ext },
            ..plain
        }),
        Err(text)
    );
    for direction in [0, 3] {
        let text = "X_POLICY: direction is not in or out";
        assert_eq!(
            try_one(Policy {
                ext: PolicyExt { direction, ..ext },
                ..plain
            }),
            Err(text)
        );
    }
    for number in [ext::X_POLICY, ext::SELECTOR] {
        let octets = policy_octets(&plain);
        let message = Message::parse(&octets).unwrap();
        let rest: Vec<_> = message
            .extensions()
            .into_iter()
            .filter(|e| e.number() != number)
            .collect();
        let octets = write(message::X_SPDADD, &rest);
        let error = Policy::from_message(&Message::parse(&octets).unwrap()).unwrap_err();
        assert!(error.as_str().ends_with(": missing"), "{error}");
    }
}

/// docs/wire.md 2.2l.
#[test]
fn a_policy_is_named_by_number_or_by_direction_and_selector() {
    for name in [
        PolicyId::Number(7),
        PolicyId::Selector(policy::DIR_IN, selector()),
    ] {
        let mut buffer = [0; MAX_LEN];
        let writer = Writer::new(&mut buffer, message::X_SPDDELETE, satype::UNSPEC, 1, 2).unwrap();
        let octets = name.write(writer).unwrap().finish().unwrap();
        assert_eq!(
            PolicyId::from_message(&Message::parse(octets).unwrap()),
            Ok(name)
        );
    }
}

/// docs/wire.md 2.2j: of an ADD the kernel keeps this, and DUMP gives back the whole.
#[test]
fn secrets_and_binding_are_kept_apart_in_exactly_their_length() {
    for role in [Role::Origin, Role::Terminus, Role::Relay] {
        for name in [
            None,
            Some(&b"mh.example"[..]),
            Some(&[7; pfkey::MAX_BINDING]),
        ] {
            let csa = Csa {
                binding: name.map(|data| pfkey::Binding { kind: 2, data }),
                ..csa(role)
            };
            let mut buffer = vec![0; csa.secrets_len()];
            let written = csa.write_secrets(&mut buffer).unwrap().len();
            assert_eq!(written, csa.secrets_len());
            let bare = Csa {
                zones: [pfkey::ZoneSa::null(1), pfkey::ZoneSa::null(2)],
                binding: None,
                ..csa
            };
            assert_eq!(bare.with_secrets(&buffer).unwrap(), csa);
            assert!(csa.write_secrets(&mut vec![0; written - 1]).is_err());
        }
    }
    assert!(csa(Role::Origin).with_secrets(&[]).is_err());
}
