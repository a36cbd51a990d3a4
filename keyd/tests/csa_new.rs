// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl csa new`: three files that match, for their owner alone.

mod common;

use common::*;
use keyd::csa_file;
use pfkey::{Csa, Role};
use std::os::unix::fs::MetadataExt;

/// The CSA of this role from that outer source.
fn find<'a>(csas: &'a [Csa<'a>], role: Role, src: [u8; 4]) -> &'a Csa<'a> {
    csas.iter()
        .find(|csa| csa.ext.role == role && csa.src.octets[..4] == src)
        .unwrap()
}

#[test]
fn the_three_files_match_each_other() {
    let folder = new_with(&[
        "--window",
        "1024",
        "--map",
        "40",
        "--zone1",
        "chacha20-poly1305",
        "--generation",
        "3",
    ]);
    let texts = ["ha.toml", "fa.toml", "mh.toml"].map(|name| text(&folder, name));
    let entries = texts
        .each_ref()
        .map(|text| csa_file::parse("file", text).unwrap());
    let [ha, fa, mh] = entries.each_ref().map(|entries| {
        entries
            .iter()
            .map(|e| e.to_csa().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!([ha.len(), fa.len(), mh.len()], [2, 2, 2]);
    let (home, mobile) = ([198, 51, 100, 1], [10, 1, 1, 7]);
    for (origin, terminus, src) in [(&ha, &mh, home), (&mh, &ha, mobile)] {
        let origin = find(origin, Role::Origin, src);
        let terminus = find(terminus, Role::Terminus, src);
        let relay = find(&fa, Role::Relay, src);
        for other in [terminus, relay] {
            assert_eq!(
                (origin.spi, origin.src, origin.dst),
                (other.spi, other.src, other.dst)
            );
            assert_eq!(
                (origin.selector, origin.map, origin.zones[0]),
                (other.selector, other.map, other.zones[0])
            );
            assert_eq!(
                (other.ext.window, other.ext.generation, other.ext.sequence),
                (1024, 3, 0)
            );
        }
        assert_eq!(origin.zones[1], terminus.zones[1]);
        assert!(origin.zones[1].keys.is_some() && relay.zones[1].keys.is_none());
    }
    let (down, up) = (
        find(&ha, Role::Origin, home),
        find(&mh, Role::Origin, mobile),
    );
    assert_eq!(
        (down.selector.src, down.selector.dst),
        (up.selector.dst, up.selector.src)
    );
    assert_eq!(down.selector.dst[..4], [203, 0, 113, 7]);
    assert_eq!(down.map.stops(), [40, pfkey::END]);
}

#[test]
fn ports_are_each_sides_own_in_both_directions() {
    let folder = new_with(&["--proto", "6", "--port-mh", "80", "--port-cn", "1024-65535"]);
    for (name, role, src) in [
        ("ha.toml", Role::Origin, [198, 51, 100, 1]),
        ("fa.toml", Role::Relay, [198, 51, 100, 1]),
        ("mh.toml", Role::Origin, [10, 1, 1, 7]),
    ] {
        let text = text(&folder, name);
        let entries = csa_file::parse("file", &text).unwrap();
        let csas: Vec<_> = entries.iter().map(|e| e.to_csa().unwrap()).collect();
        let selector = find(&csas, role, src).selector;
        let (mobile, other) = if name == "mh.toml" {
            (selector.src_ports, selector.dst_ports)
        } else {
            (selector.dst_ports, selector.src_ports)
        };
        assert_eq!(selector.protocol, 6);
        assert_eq!((mobile.bounds(), other.bounds()), ((80, 80), (1024, 65535)));
    }
}

#[test]
fn every_key_and_salt_is_made_once() {
    let (one, two) = (new(), new());
    let sets = [secrets(&one), secrets(&two)];
    let mut seen = std::collections::HashMap::new();
    for secret in sets.iter().flatten() {
        *seen.entry(secret).or_insert(0) += 1;
    }
    // Two directions of two zones, key and salt, each at origin and terminus; zone 1's at the relay too.
    assert_eq!(seen.len(), 2 * 2 * 2 * 2);
    let mut counts: Vec<_> = seen.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [[2; 8], [3; 8]].concat());
    assert!(secrets(&one)
        .iter()
        .all(|secret| !secrets(&two).contains(secret)));
}

#[test]
fn each_transform_makes_files_that_load() {
    for zone1 in [
        "aes256-gcm16",
        "aes128-gcm16",
        "chacha20-poly1305",
        "aes256-gcm16-iiv",
        "aes128-gcm16-iiv",
        "chacha20-poly1305-iiv",
    ] {
        for zone2 in ["aes128-gcm16", "chacha20-poly1305-iiv"] {
            let folder = new_with(&["--zone1", zone1, "--zone2", zone2]);
            for name in ["ha.toml", "fa.toml", "mh.toml"] {
                let text = text(&folder, name);
                csa_file::parse(name, &text).unwrap();
                assert!(text.contains(&format!("\"{zone1}\"")));
            }
        }
    }
}

#[test]
fn the_files_are_their_owners_alone() {
    let folder = new();
    for name in ["ha.toml", "fa.toml", "mh.toml"] {
        assert_eq!(
            folder.path().join(name).metadata().unwrap().mode() & 0o7777,
            0o600
        );
    }
}

#[test]
fn files_that_are_there_are_never_overwritten() {
    let folder = new();
    let path = folder.path().to_str().unwrap();
    let before = text(&folder, "mh.toml");
    std::fs::remove_file(folder.path().join("ha.toml")).unwrap();
    let again = [
        "csa",
        "new",
        "--out",
        path,
        "--ha",
        "198.51.100.1",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "203.0.113.7",
    ];
    let error = usage_error(&again);
    assert!(
        error.ends_with("fa.toml: it is there already; name another folder, or remove it"),
        "{error}"
    );
    assert!(!folder.path().join("ha.toml").exists());
    assert_eq!(text(&folder, "mh.toml"), before);
    for name in ["fa.toml", "mh.toml"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("ha.toml.loaded"), "").unwrap();
    assert!(usage_error(&again).contains("ha.toml.loaded: it is there already"));
}

#[test]
fn plans_that_cant_work_are_refused() {
    let try_one = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let error = usage_error(&[&["csa", "new", "--out", path.to_str().unwrap()], more].concat());
        assert!(!path.exists(), "{error}");
        error
    };
    let ends = ["--ha", "198.51.100.1", "--mh", "10.1.1.7"];
    let with =
        |more: &[&str]| try_one(&[&ends[..], &["--selector-mh", "203.0.113.7"], more].concat());
    assert!(try_one(&[
        "--ha",
        "10.1.1.7",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "10.1.1.7"
    ])
    .contains("same address"));
    assert!(try_one(&[
        "--ha",
        "10.1.1.7",
        "--mh",
        "fd00::1",
        "--selector-mh",
        "10.1.1.7"
    ])
    .contains("two families"));
    assert!(try_one(&[
        "--ha",
        "ha.example",
        "--mh",
        "fd00::1",
        "--selector-mh",
        "10.1.1.7"
    ])
    .contains("--ha"));
    assert!(
        try_one(&[&ends[..], &["--selector-mh", "203.0.113.7/24"]].concat())
            .contains("write 203.0.113.0/24")
    );
    assert!(with(&["--selector-cn", "fd00::/8"]).contains("two families"));
    assert!(with(&["--window", "63"]).contains("64..=65536"));
    assert!(with(&["--map", "257"]).contains("octet from 0 to 256"));
    assert!(with(&["--map", "0"]).contains("zone 1 is empty in tunnel mode"));
    assert!(with(&["--zone1", "aes192-gcm16"]).contains("it is one of aes256-gcm16"));
    assert!(with(&["--may-write", "--zone1", "aes256-gcm16-iiv"])
        .contains("writing needs an explicit IV in zone 1"));
    assert!(with(&["--may-write", "--relay-number", "32768"]).contains("--relay-number"));
    assert!(with(&["--port-mh", "80"]).contains("selector: ports without a protocol"));
}
