// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Octet by octet what RFC 2367, Linux's `pfkeyv2.h` and docs/wire.md §2 draw.

mod common;

use common::{add, sample};
use pfkey::number::ext;
use pfkey::*;

/// The extension, header and padding and all, of an ADD that holds only it.
fn octets(number: u16) -> Vec<u8> {
    add(&[sample(number)]).split_off(16)
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn u16s(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// docs/wire.md 2a, 2b, 2.2a.
#[test]
fn sadb_msg_is_16_octets() {
    let message = add(&[sample(ext::SA)]);
    assert_eq!(message[..4], [2, 3, 0, 249]);
    assert_eq!(message[4..8], u16s(&[4, 0]));
    assert_eq!(message[8..16], u32s(&[3, 4]));
    assert_eq!(message.len(), 32);
}

/// docs/wire.md 2b, 2.2n.
#[test]
fn sadb_sa_has_its_spi_in_network_order() {
    let flags = u32s(&[0]);
    assert_eq!(
        octets(ext::SA),
        join(&[
            &u16s(&[2, 1]),
            &[0x12, 0x34, 0x56, 0x78, 0, 1, 0, 0],
            &flags
        ])
    );
}

/// docs/wire.md 2b, 2.3a.
#[test]
fn sadb_address_holds_a_sockaddr() {
    let expected = join(&[
        &u16s(&[3, 5]),
        &[0, 32, 0, 0],
        &u16s(&[2]),
        &[0, 0, 198, 51, 100, 1],
        &[0; 8],
    ]);
    assert_eq!(octets(ext::ADDRESS_SRC), expected);
    let expected = join(&[
        &u16s(&[5, 7]),
        &[0, 128, 0, 0],
        &u16s(&[10]),
        &[0; 6],
        &[0xFD; 16],
        &[0; 4], // scope
        &[0; 4], // padding
    ]);
    assert_eq!(octets(ext::ADDRESS_PROXY), expected);
}

/// docs/wire.md 2.3b.
#[test]
fn sadb_lifetime_is_32_octets() {
    let octets = octets(ext::LIFETIME_HARD);
    assert_eq!(octets.len(), 32);
    assert_eq!(octets[..8], join(&[&u16s(&[4, 3]), &u32s(&[0])]));
    assert_eq!(octets[8..16], (1u64 << 40).to_ne_bytes());
    assert_eq!(octets[16..24], 3600u64.to_ne_bytes());
    assert_eq!(octets[24..32], 60u64.to_ne_bytes());
}

/// docs/wire.md 2.4d.
#[test]
fn sadb_x_policy_is_16_octets() {
    assert_eq!(
        octets(ext::X_POLICY),
        join(&[&u16s(&[2, 18, 2]), &[2, 0], &u32s(&[0, 100])])
    );
}

/// docs/wire.md 1.8e, 2.3c.
#[test]
fn zone_map_lists_a_stop_a_zone() {
    let expected = join(&[
        &u16s(&[2, 128]),
        &[2, 2, 0, 0],
        &[1, 0],
        &u16s(&[0xFFFE]),
        &[2, 0],
        &u16s(&[0xFFFF]),
    ]);
    assert_eq!(octets(ext::ZONE_MAP), expected);
}

/// docs/wire.md 2.3d.
#[test]
fn zone_sa_ends_in_key_and_salt() {
    let expected = join(&[
        &u16s(&[6, 129]),
        &[1, 0],
        &u16s(&[30, 256]),
        &[4, 16],
        &[0x11; 32],
        &[1, 2, 3, 4],
    ]);
    assert_eq!(octets(ext::ZONE_SA), expected);
    let null = add(&[Extension::ZoneSa(ZoneSa::null(2))]).split_off(16);
    assert_eq!(null, join(&[&u16s(&[2, 129]), &[2, 1], &[0; 6], &[0; 4]]));
}

/// docs/wire.md 2.3e.
#[test]
fn csa_has_its_sequence_number_at_octet_20() {
    let expected = join(&[
        &u16s(&[4, 130]),
        &[1, 2, 1, 0],
        &u32s(&[8192, 1, 0]),
        &0u64.to_ne_bytes(),
        &[0; 4], // padding
    ]);
    assert_eq!(octets(ext::CSA), expected);
}

/// docs/wire.md 2.3a, 2.3f.
#[test]
fn selector_is_48_octets() {
    let expected = join(&[
        &u16s(&[6, 131]),
        &[2, 0, 0, 32],
        &[0; 4], // source ports: any
        &[0; 16],
        &[203, 0, 113, 7],
        &[0; 12],
        &[0; 4], // destination ports: any
    ]);
    assert_eq!(octets(ext::SELECTOR), expected);
}

/// docs/wire.md 2.3f, 2.3l: ports are in network order, the source's where they were reserved and the destination's behind
/// the addresses.
#[test]
fn a_selector_has_its_ports_in_front_of_its_addresses_and_behind_them() {
    let selector = Selector {
        protocol: 17,
        src_ports: PortRange::one(500).unwrap(),
        dst_ports: PortRange::new(0x1234, 0x5678).unwrap(),
        ..common::selector()
    };
    let octets = add(&[Extension::Selector(selector)]).split_off(16);
    let expected = join(&[
        &u16s(&[6, 131]),
        &[2, 17, 0, 32],
        &[1, 0xF4, 1, 0xF4],
        &[0; 16],
        &[203, 0, 113, 7],
        &[0; 12],
        &[0x12, 0x34, 0x56, 0x78],
    ]);
    assert_eq!(octets, expected);
}

/// docs/wire.md 2.3g.
#[test]
fn snoop_is_40_octets() {
    let expected = join(&[
        &u16s(&[5, 132, 0, 64]),
        &[1, 0, 0, 0],
        &u32s(&[100, 20, 2000, 30_000]),
        &(1u64 << 20).to_ne_bytes(),
        &[0; 4], // padding
    ]);
    assert_eq!(octets(ext::SNOOP), expected);
}

/// docs/wire.md 2.3h.
#[test]
fn relay_is_16_octets() {
    assert_eq!(octets(ext::RELAY), join(&[&u16s(&[2, 133, 3, 5]), &[0; 8]]));
}

/// docs/wire.md 2.3i.
#[test]
fn binding_counts_the_octets_of_its_identity() {
    let expected = join(&[
        &u16s(&[3, 134]),
        &[2, 0],
        &u16s(&[10]),
        b"mh.example",
        &[0; 6],
    ]);
    assert_eq!(octets(ext::BINDING), expected);
}

/// docs/wire.md 2.3n.
#[test]
fn snoops_state_counts_its_octets() {
    let expected = join(&[
        &u16s(&[3, 135, 9, 0]),
        &[1, 0, 0, 0, 0, 0, 0, 0, 9],
        &[0; 7],
    ]);
    assert_eq!(octets(ext::SNOOP_STATE), expected);
}
