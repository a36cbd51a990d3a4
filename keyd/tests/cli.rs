// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl` as it is run: files it makes, files it refuses, and what it says.

use keyd::csa_file;
use keyd::kernel::Kernel;
use keyd::netlink::Error;
use pfkey::{Csa, Role};
use std::io::Write;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn mmlctl_with(arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmlctl"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse the command line and be gone before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Ran {
        code: done.status.code().unwrap(),
        out: text(done.stdout),
        err: text(done.stderr),
    }
}

fn mmlctl(arguments: &[&str]) -> Ran {
    mmlctl_with(arguments, "")
}

/// Runs it, expects exit code 2 and one line on standard error, and gives the line.
fn usage_error(arguments: &[&str]) -> String {
    let ran = mmlctl(arguments);
    one_line(&ran, 2)
}

fn one_line(ran: &Ran, code: i32) -> String {
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{}", ran.err);
    assert_eq!(ran.err.matches('\n').count(), 1, "{}", ran.err);
    ran.err
        .trim_end()
        .strip_prefix("mmlctl: ")
        .unwrap_or(&ran.err)
        .to_owned()
}

fn new_with(more: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let arguments = [
        "csa",
        "new",
        "--out",
        path,
        "--ha",
        "198.51.100.1",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "203.0.113.7/32",
    ];
    let ran = mmlctl(&[&arguments, more].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    folder
}

fn new() -> TempDir {
    new_with(&[])
}

fn text(folder: &TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

/// Every key and salt in the three files, as they are written.
fn secrets(folder: &TempDir) -> Vec<String> {
    let all = ["ha.toml", "fa.toml", "mh.toml"]
        .map(|name| text(folder, name))
        .concat();
    let secret = |line: &str| {
        let value = line
            .strip_prefix("key = ")
            .or(line.strip_prefix("salt = "))?;
        Some(value.trim_matches('"').to_owned())
    };
    all.lines().filter_map(secret).collect()
}

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
}

fn add(path: &Path) -> Vec<String> {
    vec![
        "csa".into(),
        "add".into(),
        "-f".into(),
        path.to_str().unwrap().into(),
    ]
}

fn add_error(path: &Path) -> String {
    let arguments = add(path);
    usage_error(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

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

/// What needs the absence of the module, which a developer's machine may have.
fn no_module() -> bool {
    matches!(Kernel::open(), Err(Error::NoFamily))
}

#[test]
fn without_the_module_nothing_is_spent_and_the_exit_code_is_3() {
    if !no_module() {
        return;
    }
    let folder = new();
    for name in ["ha.toml", "fa.toml", "mh.toml"] {
        let arguments = add(&folder.path().join(name));
        let ran = mmlctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(
            one_line(&ran, 3).contains("the kernel module isn't loaded; `modprobe mml` loads it")
        );
        assert!(folder.path().join(name).exists());
    }
    let commands = [
        "csa list",
        "csa show 256",
        "csa update 256 --state dying",
        "csa delete 0x100 --role origin",
        "csa flush",
        "policy add --dir out --protect --src 0.0.0.0/0 --dst 203.0.113.7/32 --outer-src 198.51.100.1 --outer-dst 10.1.1.7",
        "policy list",
        "policy delete --id 1",
        "policy delete --dir in --src 10.0.0.0/8",
        "policy flush --yes",
        "stats",
        "stats --watch 1",
        "set",
        "set mss-clamp off",
        "monitor",
    ];
    for command in commands {
        let arguments: Vec<_> = command.split(' ').collect();
        one_line(&mmlctl(&arguments), 3);
        let ran = mmlctl(&[&arguments[..], &["--json"]].concat());
        let error: serde_json::Value = serde_json::from_str(&one_line(&ran, 3)).unwrap();
        assert_eq!(error["code"], 3);
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

#[test]
fn policies_that_cant_be_are_refused() {
    let add = |arguments: &str| {
        usage_error(
            &[
                &["policy", "add"],
                &arguments.split(' ').collect::<Vec<_>>()[..],
            ]
            .concat(),
        )
    };
    assert!(add("--dir out --src any").contains("<--protect|--bypass|--discard>"));
    assert!(add("--protect --src any").contains("--dir"));
    assert!(add("--dir forward --protect").contains("--dir"));
    assert!(add("--dir out --protect --bypass").contains("cannot be used with"));
    assert!(add("--dir out --protect --src 10.0.0.0/8 --dst fd00::/8").contains("two families"));
    assert!(add("--dir out --protect --src 10.0.0.1/8").contains("write 10.0.0.0/8"));
    assert!(add("--dir out --protect --outer-src 10.0.0.1").contains("--outer-dst"));
    assert!(
        add("--dir out --bypass --outer-src 10.0.0.1 --outer-dst 10.0.0.2")
            .contains("only one that protects")
    );
    assert!(
        add("--dir out --protect --outer-src 10.0.0.1 --outer-dst 10.0.0.1")
            .contains("ADDRESS_DST: it is ADDRESS_SRC")
    );
    assert!(add("--dir out --protect --proto tcp").contains("--proto"));
}

#[test]
fn each_fault_of_a_policy_file_is_one_clear_line() {
    let file = |text: &str| {
        let ran = mmlctl_with(&["policy", "add", "-f", "-"], text);
        one_line(&ran, 2)
    };
    assert!(file("").contains("no [[policy]] table in it"));
    assert!(file("[[policy]]\ndir = \"out\"\n").contains("missing field `action`"));
    assert!(
        file("[[policy]]\ndir = \"out\"\naction = \"allow\"\n").contains(
            "line 3: unknown variant `allow`, expected one of `protect`, `bypass`, `discard`"
        )
    );
    assert!(
        file("[[policy]]\ndir = \"out\"\naction = \"protect\"\nport = 80\n")
            .contains("line 4: unknown field `port`")
    );
    let two = "[[policy]]\ndir = \"in\"\naction = \"bypass\"\n[[policy]]\ndir = \"out\"\naction = \"protect\"\nouter-src = \"10.0.0.1\"\n";
    assert!(file(two).contains("[[policy]] number 2: outer-src without outer-dst"));
    if no_module() {
        let good = "[[policy]]\ndir = \"out\"\naction = \"protect\"\ndst = \"203.0.113.7/32\"\n";
        one_line(&mmlctl_with(&["policy", "add", "-f", "-"], good), 3);
    }
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let ran = mmlctl(&["--help"]);
    assert_eq!(ran.code, 0);
    for line in [
        "0  done",
        "1  the kernel refused it",
        "2  the command line or a file is wrong",
        "3  the kernel module isn't loaded",
    ] {
        assert!(ran.out.contains(line), "{}", ran.out);
    }
    assert_eq!(mmlctl(&["--version"]).code, 0);
    assert_eq!(mmlctl(&[]).code, 2);
}

#[test]
fn json_is_json_and_holds_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let arguments = [
        "csa",
        "new",
        "--json",
        "--ha",
        "198.51.100.1",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "203.0.113.7",
        "--out",
    ];
    let ran = mmlctl(&[&arguments[..], &[path.to_str().unwrap()]].concat());
    let made: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(made["files"].as_array().unwrap().len(), 3);
    assert_eq!(made["files"][0], path.join("ha.toml").to_str().unwrap());
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    let error = one_line(&mmlctl(&["--json", "csa", "bogus"]), 2);
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["code"], 2);
}

#[test]
fn the_completion_script_knows_the_commands() {
    let ran = mmlctl(&["completion", "bash"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("--selector-mh") && ran.out.contains("monitor"));
}
