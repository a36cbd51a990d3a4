// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl` as it is run: exit codes, policies, JSON, help.

mod common;

use common::*;
use std::os::unix::fs::MetadataExt;

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
    assert!(add("--dir out --bypass --src-port 500").contains("ports without a protocol"));
    assert!(add("--dir out --bypass --proto 1 --dst-port 8").contains("name it too: 6 (TCP)"));
    for ports in ["0", "65536", "http", "8099-8000", "1-"] {
        let error = add(&format!("--dir out --bypass --proto 17 --dst-port {ports}"));
        assert!(error.contains("not a port from 1 to 65535"), "{error}");
    }
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
    let ports = |more: &str| {
        file(&format!(
            "[[policy]]\ndir = \"out\"\naction = \"bypass\"\n{more}\n"
        ))
    };
    assert!(ports("dst-port = 0").contains("line 4: "));
    assert!(ports("protocol = 17\nsrc-port = \"9-8\"").contains("line 5: "));
    assert!(
        ports("src-port = 500").contains("[[policy]] number 1: ports without a protocol that has")
    );
    if no_module() {
        let good = "[[policy]]\ndir = \"out\"\naction = \"protect\"\ndst = \"203.0.113.7/32\"\nprotocol = 17\nsrc-port = 500\ndst-port = \"8000-8099\"\n";
        one_line(&mmlctl_with(&["policy", "add", "-f", "-"], good), 3);
    }
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let ran = mmlctl(&["--help"]);
    assert_eq!(ran.code, 0);
    for line in [
        "0  done",
        "1  the kernel or keyd refused it",
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

/// The commands of systemd's units are commands that there are.
#[test]
fn what_the_units_have_mmlctl_do_is_a_command() {
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut called = 0;
    for unit in units.read_dir().unwrap() {
        let text = std::fs::read_to_string(unit.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let Some((_, arguments)) = line.split_once("/mmlctl ") else {
                continue;
            };
            called += 1;
            let mut arguments: Vec<_> = arguments.split(' ').collect();
            arguments.push("--help");
            let ran = mmlctl(&arguments);
            assert_eq!(ran.code, 0, "{line}: {}", ran.err);
            let usage = ran.out.lines().find(|line| line.starts_with("Usage:"));
            let command = arguments[..arguments.len() - 1].iter();
            let command: Vec<_> = command
                .copied()
                .take_while(|word| !word.contains('/'))
                .collect();
            let wanted = format!("Usage: mmlctl {}", command.join(" "));
            assert!(
                usage.is_some_and(|usage| usage.starts_with(&wanted)),
                "{line}: {usage:?}"
            );
        }
    }
    assert!(called >= 5, "{called}");
}
