// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any payload that can be written.

use mml_ike::secret::Secret;
use mml_ike::wire::*;
use pfkey::{Mode, ZoneMap, END, TRANSPORT_END};
use proptest::prelude::*;
use std::net::IpAddr;

fn octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|[a, b]| (a.into(), b.into())),
        any::<[[u8; 16]; 2]>().prop_map(|[a, b]| (a.into(), b.into())),
    ]
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        address().prop_map(Id::from),
        (
            prop_oneof![Just(2u8), Just(3), Just(9), Just(11)],
            octets(0..40)
        )
            .prop_map(|(kind, data)| Id {
                kind: IdType(kind),
                data
            }),
    ]
}

fn transform() -> impl Strategy<Value = Transform> {
    (1u8..13, any::<u16>(), any::<Option<u16>>(), any::<bool>()).prop_map(
        |(kind, id, key_bits, unknown_attribute)| Transform {
            kind: TransformType(kind),
            id,
            key_bits,
            unknown_attribute,
        },
    )
}

fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let proposal = (
        any::<u8>(),
        any::<u8>(),
        octets(0..9),
        prop::collection::vec(transform(), 0..6),
    )
        .prop_map(|(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId(protocol),
            spi,
            transforms,
        });
    prop::collection::vec(proposal, 1..4)
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let selector =
        (any::<u8>(), any::<(u16, u16)>(), addresses()).prop_map(|(protocol, (a, b), (x, y))| {
            TrafficSelector {
                protocol,
                start_port: a.min(b),
                end_port: a.max(b),
                start: x.min(y),
                end: x.max(y),
            }
        });
    prop::collection::vec(selector, 0..4)
}

fn zone_map() -> impl Strategy<Value = ZoneMapPayload> {
    let transform = (any::<u16>(), any::<u16>()).prop_map(|(encr, key_bits)| ZoneTransform {
        encr: Encr(encr),
        key_bits,
    });
    let list = prop::collection::vec(transform, 0..4);
    let stops = prop_oneof![
        Just(vec![END]),
        Just(vec![TRANSPORT_END, END]),
        (2u16..500).prop_map(|stop| vec![stop, END]),
        (2u16..500).prop_map(|stop| vec![stop, TRANSPORT_END, END]),
    ];
    (any::<bool>(), stops).prop_flat_map(move |(tunnel, stops)| {
        let mode = if tunnel {
            Mode::Tunnel
        } else {
            Mode::Transport
        };
        let map = ZoneMap::new(mode, &stops).expect("ascending");
        prop::collection::vec(list.clone(), stops.len())
            .prop_map(move |transforms| ZoneMapPayload { map, transforms })
    })
}

fn csa_identity() -> impl Strategy<Value = CsaIdentity> {
    (
        any::<(u32, bool, bool, bool)>(),
        0u16..0x8000,
        any::<(u32, u32, u32)>(),
        any::<(u64, u64, u32)>(),
        addresses(),
    )
        .prop_map(
            |(a, relay_number, b, c, (source, destination))| CsaIdentity {
                generation: a.0,
                mode: if a.1 { Mode::Tunnel } else { Mode::Transport },
                relay_number,
                spi_in: b.0,
                spi_out: b.1,
                replay_window: b.2,
                sequence_in: c.0,
                sequence_out: c.1,
                lifetime: c.2,
                may_write: a.2,
                standby: a.3,
                source,
                destination,
            },
        )
}

fn report() -> impl Strategy<Value = Report> {
    (any::<[u32; 2]>(), any::<[u64; 2]>()).prop_map(|([group, epoch], [counter, taken])| Report {
        group,
        epoch,
        counter,
        taken,
    })
}

fn csa_data() -> impl Strategy<Value = CsaData> {
    let status = prop_oneof![
        Just(GroupStatus::Accepted),
        Just(GroupStatus::Refused),
        Just(GroupStatus::Revoked),
        Just(GroupStatus::Malformed),
        Just(GroupStatus::Full),
        (5u16..).prop_map(GroupStatus::Other),
    ];
    let neighbour =
        (address(), id()).prop_map(|(address, identity)| Neighbour { address, identity });
    let revocation =
        (any::<u32>(), address(), any::<u32>()).prop_map(|(spi, destination, generation)| {
            Revocation {
                spi,
                destination,
                generation,
            }
        });
    let state = (any::<u32>(), octets(0..100)).prop_map(|(spi, flows)| SnoopState {
        spi,
        flows: Secret::new(flows),
    });
    prop_oneof![
        prop::collection::vec(status, 0..33).prop_map(CsaData::Status),
        prop::collection::vec(neighbour, 0..33).prop_map(CsaData::Neighbours),
        prop::collection::vec(revocation, 0..40).prop_map(CsaData::Revoke),
        prop::collection::vec(state, 0..9).prop_map(CsaData::SnoopStates),
        (
            any::<[u32; 2]>(),
            any::<u16>(),
            octets(0..40),
            octets(0..8),
            any::<[u8; 32]>()
        )
            .prop_map(|([group, epoch], encr, key, salt, public)| {
                CsaData::GroupKey(GroupKey {
                    group,
                    epoch,
                    encr: Encr(encr),
                    key: Secret::new(key),
                    salt: Secret::new(salt),
                    public,
                })
            }),
        prop::collection::vec(report(), 0..33).prop_map(CsaData::Report),
        (
            addresses(),
            any::<u64>(),
            octets(0..64),
            prop::collection::vec((any::<u32>(), any::<u64>()), 0..9)
        )
            .prop_map(|((home, care_of), identification, token, seen)| {
                let seen = seen.into_iter().map(|(spi, number)| Seen { spi, number });
                CsaData::Ask(Ask {
                    home,
                    care_of,
                    identification,
                    token: Secret::new(token),
                    seen: seen.collect(),
                })
            }),
    ]
}

/// Any payload that may stand within SK.
pub fn payload() -> impl Strategy<Value = Payload> {
    let secret = (
        any::<bool>(),
        any::<u8>(),
        any::<u16>(),
        octets(0..40),
        octets(0..8),
    )
        .prop_map(|(inwards, zone, encr, key, salt)| SecretPayload {
            direction: if inwards {
                Direction::In
            } else {
                Direction::Out
            },
            zone,
            encr: Encr(encr),
            key: Secret::new(key),
            salt: Secret::new(salt),
        });
    prop_oneof![
        plain(),
        zone_map().prop_map(Payload::ZoneMap),
        secret.prop_map(Payload::Secret),
        csa_identity().prop_map(Payload::CsaIdentity),
        csa_data().prop_map(Payload::CsaData),
    ]
}

/// Any payload that may stand outside SK.
pub fn outer_payload() -> impl Strategy<Value = Payload> {
    plain()
}

fn plain() -> impl Strategy<Value = Payload> {
    let notify = (any::<u8>(), octets(0..9), any::<u16>(), octets(0..40)).prop_map(
        |(protocol, spi, kind, data)| Notify {
            protocol: ProtocolId(protocol),
            spi,
            kind: NotifyType(kind),
            data,
        },
    );
    let delete = prop_oneof![
        Just(Delete::Ike),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(Delete::Esp),
        Just(Delete::Other(ProtocolId::AH)),
    ];
    let cp = (
        1u8..5,
        prop::collection::vec((0u16..0x8000, octets(0..20)), 0..4),
    )
        .prop_map(|(kind, list)| Configuration {
            kind: CfgType(kind),
            attributes: list
                .into_iter()
                .map(|(a, v)| (CfgAttribute(a), v))
                .collect(),
        });
    prop_oneof![
        proposals().prop_map(Payload::Sa),
        (any::<u16>(), octets(0..100)).prop_map(|(group, data)| Payload::KeyExchange(
            KeyExchange {
                group: Group(group),
                data
            }
        )),
        id().prop_map(Payload::IdInitiator),
        id().prop_map(Payload::IdResponder),
        (any::<u8>(), octets(0..100)).prop_map(|(encoding, data)| Payload::Cert(Cert {
            encoding: CertEncoding(encoding),
            data
        })),
        (any::<u8>(), prop::collection::vec(any::<[u8; 20]>(), 0..4)).prop_map(
            |(encoding, authorities)| Payload::CertReq(CertReq {
                encoding: CertEncoding(encoding),
                authorities
            })
        ),
        (any::<u8>(), octets(0..100)).prop_map(|(method, data)| Payload::Auth(Auth {
            method: AuthMethod(method),
            data
        })),
        octets(16..257).prop_map(Payload::Nonce),
        notify.prop_map(Payload::Notify),
        delete.prop_map(Payload::Delete),
        octets(0..40).prop_map(Payload::VendorId),
        selectors().prop_map(Payload::TsInitiator),
        selectors().prop_map(Payload::TsResponder),
        cp.prop_map(Payload::Configuration),
        octets(0..40).prop_map(Payload::Eap),
        (54u8..200, octets(0..40))
            .prop_map(|(kind, body)| Payload::Unknown(PayloadType(kind), body)),
    ]
}
