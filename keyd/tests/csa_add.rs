// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl csa add`: the files and standard inputs it refuses, and what it says of them.

mod common;

use common::*;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A changed copy of a fresh `ha.toml`.
fn changed(folder: &TempDir, change: impl Fn(&str) -> String) -> PathBuf {
    let path = folder.path().join("changed.toml");
    let original = text(folder, "ha.toml");
    let text = change(&original);
    assert_ne!(text, original, "the change has changed nothing");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[test]
fn each_fault_of_a_file_is_one_clear_line_that_shows_no_key() {
    let folder = new();
    let secrets = secrets(&folder);
    let line = |key: &'static str, new: &'static str| {
        move |text: &str| {
            let mut done = false;
            let change = |line: &str| {
                if !done && line.starts_with(key) {
                    done = true;
                    return new.replace("VALUE", line.split_once(" = ").unwrap().1);
                }
                line.to_owned()
            };
            text.lines().map(change).collect::<Vec<_>>().join("\n")
        }
    };
    type Change = Box<dyn Fn(&str) -> String>;
    let secret = secrets[0].clone();
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|_: &str| String::new()), "no [[csa]] table in it"),
        (Box::new(|t: &str| format!("{t}\n[csa")), "unclosed table"),
        (
            Box::new(|t: &str| format!("node = \"ha\"\n{t}")),
            "line 1: unknown field `node`",
        ),
        (
            Box::new(line("window", "windows = 64")),
            "line 9: unknown field `windows`",
        ),
        (Box::new(line("key", "kye = VALUE")), "unknown field `kye`"),
        (Box::new(line("role", "")), "missing field `role`"),
        (Box::new(line("salt", "")), "missing field `salt`"),
        (Box::new(line("selector", "")), "missing field `selector`"),
        (
            Box::new(line("role", "role = \"sender\"")),
            "unknown word; it is one of origin, terminus, relay",
        ),
        (
            Box::new(line("spi", "spi = 255")),
            "number 1: SA: SPIs below 256 are reserved",
        ),
        (Box::new(line("spi", "spi = 0x100000000")), "expected u32"),
        (
            Box::new(line("src", "src = \"ha.example\"")),
            "invalid IP address",
        ),
        (
            Box::new(line("src", "src = \"10.1.1.7\"")),
            "ADDRESS_DST: it is ADDRESS_SRC",
        ),
        (
            Box::new(line("window", "window = 10")),
            "replay window is not within 64 to 65536",
        ),
        (
            Box::new(line("map", "map = 300")),
            "zone 1 stops at `transport-end` or at an octet from 0 to 256",
        ),
        (
            Box::new(line("map", "map = \"40\"\nsequence = -1")),
            "expected u64",
        ),
        (
            Box::new(line("selector", "selector = { dst = \"203.0.113.7/24\" }")),
            "write 203.0.113.0/24",
        ),
        (
            Box::new(line(
                "selector",
                "selector = { src = \"fd00::/8\", dst = \"203.0.113.7\" }",
            )),
            "two families",
        ),
        (
            Box::new(line("algorithm", "algorithm = \"rot13\"")),
            "unknown word; it is one of aes256-gcm16",
        ),
        (
            Box::new(line("algorithm", "algorithm = \"aes128-gcm16\"")),
            "zone1.key: 32 octets, but aes128-gcm16 takes 16 (32 hexadecimal digits)",
        ),
        (
            Box::new(line("key", "key = \"00\"")),
            "zone1.key: 1 octets, but aes256-gcm16-iiv takes 32",
        ),
        (
            Box::new(line("key", "key = 7")),
            "a number; put hexadecimal digits in quotes",
        ),
        (
            Box::new(line("salt", "salt = \"0011223\"")),
            "not an even number of hexadecimal digits",
        ),
        (
            Box::new(line("salt", "salt = \"001122\"")),
            "zone1.salt: 3 octets, but a salt has 4",
        ),
        (
            Box::new(line("role", "role = \"relay\"")),
            "a relay's SA of zone 2 must be null",
        ),
        (
            Box::new(line("role", "role = \"terminus\"\nstate = \"dying\"")),
            "a new one is active or standby",
        ),
        (
            Box::new(line("role", "role = \"origin\"\nmay-write = true")),
            "writing needs an explicit IV in zone 1",
        ),
        (
            Box::new(line("role", "role = \"origin\"\nrelay-number = 1")),
            "only a relay has a relay number",
        ),
        (
            Box::new(|t: &str| t[..t.find("\n[csa.zone2]").unwrap()].to_owned()),
            "zone 2's is null, but only a relay's may be",
        ),
        (
            Box::new(line(
                "salt",
                "salt = VALUE\n[csa.lifetime]\nhard-seconds = 10\nsoft-seconds = 11",
            )),
            "a limit behind LIFETIME_HARD's",
        ),
        // A key in the wrong line, or with a slip in it, still isn't shown.
        (
            Box::new({
                let s = secret.clone();
                move |t: &str| t.replacen("spi = ", &format!("spi = \"{s}\" #"), 1)
            }),
            "invalid type: string …, expected u32",
        ),
        (
            Box::new({
                let s = secret.clone();
                move |t: &str| t.replacen("role = ", &format!("role = \"{s}\" #"), 1)
            }),
            "unknown word",
        ),
        (
            Box::new({
                let s = secret.clone();
                move |t: &str| t.replacen("src = ", &format!("src = \"{s}\" #"), 1)
            }),
            "invalid IP address",
        ),
        (
            Box::new({
                let s = secret.clone();
                move |t: &str| t.replacen(&s, &format!("{s}x"), 1)
            }),
            "not an even number of hexadecimal digits",
        ),
        (
            Box::new({
                let s = secret.clone();
                move |t: &str| t.replacen(&format!("\"{s}\""), &s, 1)
            }),
            "changed.toml: line",
        ),
    ];
    for (change, expected) in cases {
        let path = changed(&folder, change);
        let error = add_error(&path);
        assert!(
            error.contains(expected),
            "expected {expected:?} in {error:?}"
        );
        assert!(error.contains("changed.toml"), "{error}");
        assert!(
            secrets.iter().all(|secret| !error.contains(&secret[..8])),
            "{error}"
        );
        assert!(path.exists(), "a bad file must not be spent");
    }
}

#[test]
fn a_csa_given_twice_is_refused() {
    let folder = new();
    let path = changed(&folder, |text| format!("{text}\n{text}"));
    assert!(add_error(&path).contains("is in it twice; remove one"));
}

#[test]
fn files_that_others_can_use_are_refused() {
    let folder = new();
    let path = folder.path().join("ha.toml");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o601, 0o4604] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let error = add_error(&path);
        assert!(
            error.contains("others than its owner may use it") && error.contains("`chmod 600`"),
            "{error}"
        );
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        let error = add_error(&path);
        assert!(
            error.contains("it belongs to user 12345, not to you"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = new();
    let link = folder.path().join("link.toml");
    symlink(folder.path().join("ha.toml"), &link).unwrap();
    assert!(add_error(&link).contains("it is a symbolic link"));
    assert!(add_error(folder.path()).contains("not a regular file"));
    let pipe = folder.path().join("pipe.toml");
    assert!(Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap()
        .success());
    assert!(add_error(&pipe).contains("not a regular file"));
    assert!(add_error(&folder.path().join("none.toml")).ends_with("none.toml: no such file"));
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; keyd::private_file::MAX_LEN + 1]).unwrap();
    std::fs::set_permissions(&large, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(add_error(&large).contains("larger than 1 MiB"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xFF, 0xFE]).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(add_error(&binary).contains("not text in UTF-8"));
}

#[test]
fn a_spent_file_is_refused_under_both_its_names() {
    let folder = new();
    let (path, loaded) = (
        folder.path().join("ha.toml"),
        folder.path().join("ha.toml.loaded"),
    );
    std::fs::rename(&path, &loaded).unwrap();
    for name in [&path, &loaded] {
        let error = add_error(name);
        assert!(
            error.contains("it has been loaded before") && error.contains("`mmlctl csa new`"),
            "{error}"
        );
    }
}

#[test]
fn keys_that_seal_come_from_standard_input_only_with_a_vow() {
    let folder = new();
    let (ha, fa) = (text(&folder, "ha.toml"), text(&folder, "fa.toml"));
    let error = one_line(&mmlctl_with(&["csa", "add", "-f", "-"], &ha), 2);
    assert!(error.contains("vouch with --fresh"), "{error}");
    if no_module() {
        // A relay's file that may not write seals nothing, so that it may be read as often as one likes.
        one_line(&mmlctl_with(&["csa", "add", "-f", "-"], &fa), 3);
        one_line(&mmlctl_with(&["csa", "add", "-f", "-", "--fresh"], &ha), 3);
    }
    let folder = new_with(&["--may-write"]);
    let error = one_line(
        &mmlctl_with(&["csa", "add", "-f", "-"], &text(&folder, "fa.toml")),
        2,
    );
    assert!(error.contains("vouch with --fresh"), "{error}");
}
