// SPDX-License-Identifier: GPL-2.0-only
//! Known-answer vectors made by an implementation of `docs/wire.md` §1 in another language, equal to the octet.
//!
//! `tests/vectors/make.py` makes them; here every one is sealed, read by a relay, and opened.

mod common;

use common::{Csa, Ring, Terminus};
use mml_core::esp::IvKind;
use mml_core::packet::{self, RelaySa, Sa, Zone};
use mml_core::replay::{Replay, Resync};
use mml_core::selector::Selector;
use mml_core::zone::{Mode, ZoneMap};
use serde_json::Value;

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hex");
    assert!(text.len() % 2 == 0);
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex"))
        .collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("number")
}

fn prefix(value: &Value) -> ([u8; 16], u8) {
    let (address, len) = value
        .as_str()
        .and_then(|text| text.split_once('/'))
        .expect("prefix");
    let mut octets = hex(&Value::from(address));
    octets.resize(16, 0);
    (
        octets.try_into().expect("address"),
        len.parse().expect("prefix length"),
    )
}

struct Vector {
    name: String,
    value: Value,
    csa: Csa,
    spi: u32,
    salts: [[u8; 4]; 2],
    top: u64,
}

impl Vector {
    fn read(value: &Value) -> Self {
        let csa = &value["csa"];
        let zone = |i: usize| {
            let zone = &csa["zones"][i];
            let key = Ring::new(zone["cipher"].as_str().expect("cipher"), &hex(&zone["key"]));
            let iv = match zone["iv"].as_str() {
                Some("implicit") => IvKind::Implicit,
                Some("explicit") => IvKind::Explicit,
                other => panic!("IV {other:?}"),
            };
            (
                key,
                iv,
                <[u8; 4]>::try_from(hex(&zone["salt"])).expect("salt"),
            )
        };
        let mode = match csa["mode"].as_str() {
            Some("transport") => Mode::Transport,
            Some("tunnel") => Mode::Tunnel,
            other => panic!("mode {other:?}"),
        };
        let stops: Vec<u16> = csa["stops"]
            .as_array()
            .expect("stops")
            .iter()
            .map(|s| number(s) as u16)
            .collect();
        let selector = csa["selector"].as_object().map(|selector| {
            let ((src, src_len), (dst, dst_len)) =
                (prefix(&selector["src"]), prefix(&selector["dst"]));
            let (family, protocol) = (
                number(&selector["family"]) as u8,
                number(&selector["protocol"]) as u8,
            );
            Selector::new(family, protocol, src, src_len, dst, dst_len).expect("selector")
        });
        let [(key1, iv1, salt1), (key2, iv2, salt2)] = [zone(0), zone(1)];
        assert_eq!(value["window"]["width"], 64);
        Self {
            name: value["name"].as_str().expect("name").to_owned(),
            value: value.clone(),
            csa: Csa {
                keys: [key1, key2],
                ivs: [iv1, iv2],
                map: ZoneMap::new(mode, &stops).expect("map"),
                may_write: csa["may_write"].as_bool().expect("may_write"),
                selector,
            },
            spi: number(&csa["spi"]) as u32,
            salts: [salt1, salt2],
            top: number(&value["window"]["top"]),
        }
    }

    fn sa(&self) -> Sa<'_> {
        let [key1, key2] = &self.csa.keys;
        let [iv1, iv2] = self.csa.ivs;
        let [salt1, salt2] = self.salts;
        let zones = [
            Zone {
                aead: key1,
                salt: salt1,
                iv: iv1,
            },
            Zone {
                aead: key2,
                salt: salt2,
                iv: iv2,
            },
        ];
        Sa {
            spi: self.spi,
            zones,
            ..self.csa.sa()
        }
    }

    fn packet(&self) -> Vec<u8> {
        hex(&self.value["packet"])
    }
}

fn vectors() -> Vec<Vector> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/zone-esp.json"
    );
    let text = std::fs::read_to_string(path).expect("tests/vectors/zone-esp.json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let all: Vec<_> = all["vectors"]
        .as_array()
        .expect("vectors")
        .iter()
        .map(Vector::read)
        .collect();
    assert!(all.len() > 100);
    all
}

#[test]
fn what_is_sealed_is_equal_to_the_octet() {
    let mut count = 0;
    for vector in vectors() {
        let seal = &vector.value["seal"];
        if seal.is_null() {
            continue;
        }
        let datagram = hex(&seal["datagram"]);
        let mut out = vec![0xEE; datagram.len() + 400];
        let (seq, next, tfc) = (
            number(&seal["seq"]),
            number(&seal["next"]) as u8,
            number(&seal["tfc"]) as usize,
        );
        let len = packet::seal(&vector.sa(), seq, next, &datagram, tfc, &mut out).expect("sealed");
        assert_eq!(out[..len], vector.packet(), "{}", vector.name);
        // One octet less of room is no room.
        assert!(
            packet::seal(&vector.sa(), seq, next, &datagram, tfc, &mut out[..len - 1]).is_err()
        );
        count += 1;
    }
    assert!(count > 60, "{count}");
}

#[test]
fn what_is_opened_is_equal_and_what_is_dropped_has_its_reason() {
    let mut seen = std::collections::BTreeSet::new();
    for vector in vectors() {
        let mut end = Terminus::starting_at(&vector.csa, vector.top);
        let outer = mml_core::ip::addresses(&hex(&vector.value["outer"]));
        let mut buffer = vector.packet();
        let result = packet::open(
            &vector.sa(),
            &mut end.window,
            &mut end.bits,
            outer.as_ref(),
            &mut buffer,
        );
        match (result, vector.value["drop"].as_str()) {
            (Ok(opened), None) => {
                let want = &vector.value["opens"];
                assert_eq!(opened.seq, number(&want["seq"]), "{}", vector.name);
                assert_eq!(
                    buffer[opened.datagram],
                    hex(&want["datagram"]),
                    "{}",
                    vector.name
                );
            }
            (Err(reason), Some(want)) => {
                assert_eq!(reason.name(), want, "{}", vector.name);
                seen.insert(want.to_owned());
            }
            (result, want) => panic!("{}: {result:?}, not {want:?}", vector.name),
        }
    }
    // Every reason a terminus has is in the vectors; these two are a relay's and the outer header's.
    let all = mml_core::esp::Drop::ALL.iter().map(|reason| reason.name());
    let missing: Vec<_> = all.filter(|name| !seen.contains(*name)).collect();
    assert_eq!(missing, ["rewritten", "ecn"]);
}

#[test]
fn what_a_relay_sees_is_equal() {
    let mut count = 0;
    for vector in vectors() {
        let want = &vector.value["relay"];
        if want.is_null() {
            continue;
        }
        let Sa {
            spi,
            map,
            zones: [zone, _],
            ..
        } = vector.sa();
        let mut window = Replay::starting_at(64, vector.top).expect("window");
        let (mut bits, mut resync, mut scratch) = ([0], Resync::default(), [0; 256]);
        let sa = RelaySa { spi, map, zone };
        let seen = packet::relay_open(
            &sa,
            &mut window,
            &mut bits,
            &mut resync,
            &vector.packet(),
            &mut scratch,
        );
        let seen = seen.unwrap_or_else(|reason| panic!("{}: {reason:?}", vector.name));
        assert_eq!(scratch[..seen.l1], hex(&want["zone1"]), "{}", vector.name);
        count += 1;
    }
    assert!(count > 60, "{count}");
}
