// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The programs themselves: exit codes, and two daemons in a network namespace of their own, with the real XFRM.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn keyd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyd"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// Writes `keyd.toml` of a node at `own` whose peer is at `other`; its path.
fn write(folder: &Path, role: &str, own: &str, other: &str, more: &str) -> String {
    let psk = folder.join("psk");
    std::fs::write(&psk, "correct horse battery staple").unwrap();
    std::fs::set_permissions(&psk, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = folder.join(format!("{role}.toml"));
    let control = folder.join(format!("{role}.sock"));
    let control = control.display();
    let file = format!(
        "[node]\nrole = \"{role}\"\nidentity = \"{role}.test\"\naddresses = [\"{own}\"]\n[control]\nsocket = \"{control}\"\n\
         [[connection]]\nname = \"peer\"\nremote = \"{other}\"\nremote-identity = \"*.test\"\nauth = \"psk\"\nsecret-file = \"psk\"\n{more}"
    );
    std::fs::write(&path, file).unwrap();
    path.display().to_string()
}

#[test]
fn the_help_teaches_and_half_a_command_line_is_a_usage_error() {
    let help = keyd(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for taught in [
        "[node]",
        "secret-file",
        "Exit codes:",
        "keyd check -c keyd.toml",
        "mmlctl status",
    ] {
        assert!(text(&help.stdout).contains(taught), "{taught}");
    }
    assert_eq!(keyd(&[]).status.code(), Some(2));
    assert_eq!(keyd(&["fly"]).status.code(), Some(2));
}

#[test]
fn check_says_what_a_file_comes_to_and_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        folder.path(),
        "mh",
        "10.1.1.7",
        "198.51.100.1",
        "[connection.tunnel]\nlocal = \"203.0.113.7\"\n",
    );
    let right = keyd(&["check", "-c", &path]);
    assert_eq!(right.status.code(), Some(0), "{}", text(&right.stderr));
    let said = text(&right.stdout);
    assert!(
        said.contains(
            "connection peer: 10.1.1.7 with 198.51.100.1, 203.0.113.7/32 → 0.0.0.0/0, zones preferred"
        ),
        "{said}"
    );
    let path = write(
        folder.path(),
        "mh",
        "10.1.1.7",
        "198.51.100.1",
        "colour = \"red\"\n",
    );
    for command in ["check", "run"] {
        let wrong = keyd(&[command, "-c", &path]);
        assert_eq!(wrong.status.code(), Some(2));
        let said = text(&wrong.stderr);
        assert!(
            said.contains("mh.toml: line 13: unknown field `colour`") && !said.contains("red"),
            "{said}"
        );
    }
    let none = keyd(&["check", "-c", "/nonexistent/keyd.toml"]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn an_address_that_is_not_there_stops_it_before_the_kernel_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "mh", "192.0.2.77", "198.51.100.1", "");
    let wrong = keyd(&["run", "-c", &path]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(said.contains("192.0.2.77"), "{said}");
    assert!(
        !folder.path().join("mh.sock").exists(),
        "the control socket goes too"
    );
}

#[test]
fn mmlctl_says_that_no_keyd_runs() {
    let ran = Command::new(env!("CARGO_BIN_EXE_mmlctl"))
        .args(["status", "--socket", "/nonexistent/control"])
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(3));
    assert!(
        text(&ran.stderr).contains("is keyd running"),
        "{}",
        text(&ran.stderr)
    );
}

/// What is done in the namespace: two daemons, what XFRM has, what `mmlctl` says, a restart, and an end without a trace.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip addr add fd00:77::1/128 dev lo
ip addr add fd00:77::2/128 dev lo
$KEYD run -c $FOLDER/gateway.toml 2> $FOLDER/gateway.log & A=$!
for i in $(seq 100); do $MMLCTL status --socket $FOLDER/gateway.sock > /dev/null 2>&1 && break; sleep 0.1; done
$KEYD run -c $FOLDER/host.toml 2> $FOLDER/host.log & B=$!
for i in $(seq 100); do $MMLCTL status --socket $FOLDER/host.sock > /dev/null 2>&1 && break; sleep 0.1; done
for i in $(seq 100); do $MMLCTL status --socket $FOLDER/host.sock | grep -q '^peer  *up' && break; sleep 0.1; done
echo "== status"; $MMLCTL status --socket $FOLDER/host.sock
echo "== second"; $KEYD run -c $FOLDER/host.toml 2>&1 || echo "code $?"
echo "== log"; $MMLCTL log --socket $FOLDER/host.sock
echo "== policies"; ip xfrm policy | grep -c 'ptype main' || true
kill -TERM $A; wait $A; echo "== ended $?"
echo "== kept"; ip xfrm policy | grep -c 'ptype main' || true
$KEYD run -c $FOLDER/gateway.toml 2> $FOLDER/gateway2.log & A=$!
for i in $(seq 100); do $MMLCTL status --socket $FOLDER/gateway.sock > /dev/null 2>&1 && break; sleep 0.1; done
echo "== nobody"; $MMLCTL revoke 203.0.113.7 --socket $FOLDER/gateway.sock 2>&1 || echo "code $?"
echo "== left"; $MMLCTL leave --socket $FOLDER/gateway.sock; wait $A; echo "code $?"
kill -TERM $B; wait $B
$KEYD run --flush -c $FOLDER/host.toml 2> $FOLDER/host2.log & B=$!
for i in $(seq 100); do $MMLCTL status --socket $FOLDER/host.sock > /dev/null 2>&1 && break; sleep 0.1; done
kill -TERM $B; wait $B
echo "== flushed"; ip xfrm policy | grep -c 'ptype main' || true
"#;

/// A command in a network namespace of its own, which ends with it.
fn unshare(command: &str) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--user",
        "--map-root-user",
        "--net",
        "--kill-child",
        "sh",
        "-c",
        command,
    ]);
    unshare
}

#[test]
fn two_daemons_in_a_namespace_guard_with_the_real_xfrm_keep_it_at_their_end_and_flush_it_when_told()
{
    let may = unshare("ip link set lo up && ip xfrm policy").output();
    if !may.is_ok_and(|may| may.status.success()) {
        eprintln!("no namespace with XFRM is to be had here; nothing was tried");
        return;
    }
    for (a, b, inside, beyond) in [
        ("127.0.0.1", "127.0.0.2", "10.1.0.0/16", "127.0.0.0/8"),
        ("fd00:77::1", "fd00:77::2", "fd01::/16", "fd00:77::/64"),
    ] {
        in_a_namespace(a, b, inside, beyond);
    }
}

fn in_a_namespace(a: &str, b: &str, inside: &str, beyond: &str) {
    let folder = tempfile::tempdir().unwrap();
    // MOBIKE takes them to port 4500, whose sockets leave ESP to the kernel.
    let tunnel = |start: &str, local: &str, remote: &str| {
        format!("mobike = true\nstart = \"{start}\"\n[connection.tunnel]\nlocal = \"{local}\"\nremote = \"{remote}\"\n")
    };
    write(
        folder.path(),
        "gateway",
        a,
        b,
        &tunnel("peer", inside, beyond),
    );
    write(folder.path(), "host", b, a, &tunnel("now", beyond, inside));
    let ran = unshare(SCRIPT)
        .env("KEYD", env!("CARGO_BIN_EXE_keyd"))
        .env("MMLCTL", env!("CARGO_BIN_EXE_mmlctl"))
        .env("FOLDER", folder.path())
        .output()
        .unwrap();
    let said = text(&ran.stdout);
    let log = std::fs::read_to_string(folder.path().join("host.log")).unwrap_or_default();
    let all = format!("{said}{}{log}", text(&ran.stderr));
    let part = |name: &str| {
        let rest = said
            .split(&format!("== {name}"))
            .nth(1)
            .unwrap_or_else(|| panic!("{name}: {all}"));
        rest.split("==").next().unwrap().trim().to_owned()
    };
    assert!(part("status").contains("gateway.test"), "{all}");
    assert!(part("status").contains(":4500"), "{all}");
    assert!(
        part("second").contains("a keyd listens there already")
            && part("second").contains("code 1"),
        "{all}"
    );
    assert!(part("log").contains("IKE SA 1 is up"), "{all}");
    // Two daemons, each what leaves, what is delivered and what is passed on.
    assert_eq!(part("policies"), "6", "{all}");
    assert_eq!(part("ended"), "0", "{all}");
    assert_eq!(part("kept"), "6", "{all}");
    assert!(
        part("nobody").contains("home agents and foreign agents")
            && part("nobody").contains("code 1"),
        "{all}"
    );
    // It was started as the other one, without `--flush`.
    assert_eq!(
        part("left"),
        "it has told its peers, and ended\ncode 0",
        "{all}"
    );
    assert_eq!(part("flushed"), "0", "{all}");
}
