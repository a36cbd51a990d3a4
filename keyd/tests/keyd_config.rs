// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `keyd.toml`: what a mistake in it is answered with, and that the examples in the documentation are right.

use keyd::daemon::config::{Config, Role, Start, Zones};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NODE: &str = "[node]\nrole = \"mh\"\nidentity = \"mh.example\"\naddresses = [\"10.1.1.7\"]\n";
const CONNECTION: &str = "[[connection]]\nname = \"ha\"\nremote = \"198.51.100.1\"\nremote-identity = \"ha.example\"\nauth = \"psk\"\nsecret-file = \"psk\"\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "psk",
        "correct horse battery staple\n",
        0o600,
    );
    folder
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mistake(text: &str) -> String {
    let folder = folder();
    Config::parse("keyd.toml", text, folder.path())
        .expect_err("a mistake")
        .to_string()
}

/// NODE, CONNECTION, then more lines of the connection.
fn with(more: &str) -> String {
    format!("{NODE}{CONNECTION}{more}")
}

#[test]
fn what_is_left_away_has_sound_defaults() {
    let folder = folder();
    let text = with("[connection.tunnel]\nlocal = \"203.0.113.7\"\n");
    let config = Config::parse("keyd.toml", &text, folder.path()).unwrap();
    assert_eq!(config.role, Role::Mh);
    assert_eq!((config.port, config.nat_port), (500, 4500));
    assert_eq!(config.control, Path::new("/run/keyd/control"));
    let one = &config.connections[0];
    assert_eq!(
        (one.start, one.local.to_string().as_str()),
        (Start::Now, "10.1.1.7")
    );
    let tunnel = one.tunnel.as_ref().unwrap();
    assert_eq!((tunnel.zones, tunnel.protect), (Zones::Preferred, true));
    assert!(tunnel.rekey < tunnel.lifetime);
    let ike = &config.ike.connections[0];
    assert!(
        !ike.initial_contact,
        "never after a restart that claims its CSAs"
    );
    let zones = ike.child.as_ref().unwrap().zones.as_ref().unwrap();
    assert!(!zones.required && !zones.may_write);
}

#[test]
fn a_tunnels_ports_and_mode_are_what_the_protocol_is_told() {
    let folder = folder();
    let parsed = |more: &str| {
        let text = with(&format!("[connection.tunnel]\n{more}"));
        let config = Config::parse("keyd.toml", &text, folder.path()).unwrap();
        let tunnel = config.connections[0].tunnel.clone().unwrap();
        (tunnel, config.ike.connections[0].child.clone().unwrap())
    };
    let (tunnel, child) =
        parsed("protocol = 17\nlocal-port = 5000\nremote-port = \"8192-8255\"\nremote = \"192.0.2.0/24\"\n");
    assert_eq!(tunnel.selector.src_ports.bounds(), (5000, 5000));
    let (local, remote) = (child.local_ts[0], child.remote_ts[0]);
    assert_eq!(
        (local.protocol, local.start_port, local.end_port),
        (17, 5000, 5000)
    );
    assert_eq!((remote.start_port, remote.end_port), (8192, 8255));
    // Where zones are a must any range will do.
    parsed("protocol = 17\nzones = \"required\"\nlocal-port = \"8000-8099\"\n");
    let (tunnel, child) = parsed("mode = \"transport\"\nprotocol = 6\nremote-port = 443\n");
    assert_eq!(tunnel.mode, pfkey::Mode::Transport);
    assert_eq!((tunnel.selector.src_len, tunnel.selector.dst_len), (32, 32));
    assert_eq!(child.mode, pfkey::Mode::Transport);
    assert_eq!(child.zones.unwrap().map.mode(), pfkey::Mode::Transport);
    assert_eq!(child.remote_ts[0].start, child.remote_ts[0].end);
    assert_eq!(child.remote_ts[0].start_port, 443);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let text = mistake(&with("remote-addr = \"10.0.0.1\"\n"));
    assert!(
        text.starts_with("keyd.toml: line 11: unknown field `remote-addr`, expected one of "),
        "{text}"
    );
    assert!(text.ends_with("\n   11 | remote-addr = …"), "{text}");
}

#[test]
fn a_mistake_never_shows_a_value_that_may_be_a_secret() {
    let text = mistake(&with("psk = \"hunter2hunter2hunter2\"\n"));
    assert!(
        text.contains("line 11") && !text.contains("hunter2"),
        "{text}"
    );
    let text = mistake(&with("rekey = \"hunter2\"\n"));
    assert!(
        text.contains("line 11: rekey: not a time; write a number with its unit")
            && !text.contains("hunter2"),
        "{text}"
    );
    let text = mistake(&with("rekey = hunter2\n"));
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn mistakes_name_line_key_cause_and_mend() {
    for (more, expected) in [
        ("local = \"10.9.9.9\"\n", "line 11: local: not one of the node's `addresses`; add it there"),
        ("start = \"demand\"\n", "line 11: start: no packet wants a connection without a tunnel; write `now` or `peer`"),
        ("key-file = \"x\"\n", "line 11: key-file: of no use with this `auth`, which goes with secret-file; remove it"),
        ("liveness = \"0s\"\n", "line 11: liveness: not a time"),
        ("ike = [\"des/md5/modp768\"]\n", "line 11: ike: no such cipher; it is one of aes128-gcm16, aes256-gcm16, chacha20-poly1305"),
        ("[connection.tunnel]\nzones = \"maybe\"\n", "line 12: zones: unknown variant `maybe`, expected one of `required`, `preferred`, `off`"),
        ("[connection.tunnel]\nlocal = \"203.0.113.7/24\"\n", "line 12: local: host bits are set behind the prefix: write 203.0.113.0/24"),
        ("[connection.tunnel]\nlocal = \"10.0.0.0/8\"\nremote = \"fd00::/8\"\n", "tunnel: local and remote are of two families"),
        ("[connection.tunnel]\nlifetime = \"1h\"\nrekey = \"2h\"\n", "line 13: rekey: not before `lifetime`"),
        ("[connection.tunnel]\nlocal-port = 80\n", "local-port, remote-port: ports without a protocol that has some; name it too: 6 (TCP)"),
        ("[connection.tunnel]\nprotocol = 17\nremote-port = \"8099-8000\"\n", "line 13: remote-port: not a port from 1 to 65535"),
        ("[connection.tunnel]\nprotocol = 17\nlocal-port = \"8000-8099\"\n", "plain IPsec has no such range; take one port, or 2^n of them"),
        ("[connection.tunnel]\nmode = \"transport\"\nremote = \"10.0.0.0/8\"\n", "line 12: mode: transport mode is between the peers' own addresses; write 10.1.1.7/32 and 198.51.100.1/32"),
        ("mobike = true\n[connection.tunnel]\nmode = \"transport\"\n", "line 13: mode: transport mode's addresses are its packets' own and can't move"),
        ("[connection.tunnel]\nmode = \"transport\"\nmay-write = true\n", "line 12: mode: transport mode has no relays"),
        ("[connection.tunnel]\nwindow = 10\n", "line 12: window: not from 64 to 65536 packets"),
        ("[connection.tunnel]\nmap = 41\n", "line 12: map: zone 1 stops at `transport-end` or at an even octet from 2 to 256"),
        ("[connection.tunnel]\nrelay = \"fa1\"\n", "line 12: relay: only a home agent (`role = \"ha\"`) gives CSAs to foreign agents"),
        ("[connection.tunnel]\nsoft-bytes = 2\nhard-bytes = 1\n", "line 12: soft-bytes: behind `hard-bytes`"),
        ("[metrics]\nlisten = \"0.0.0.0:9466\"\n", "line 12: listen: metrics are for this machine alone"),
        ("[[home-agent]]\nidentity = \"x\"\nprefixes = [\"10.0.0.0/8\"]\n", "home-agent: only a foreign agent (`role = \"fa\"`) takes CSAs from home agents"),
        ("[connection.tunnel]\nrequest-address = true\nlocal = \"203.0.113.7\"\n", "line 12: request-address: this side's address inside is known already"),
        ("start = \"peer\"\n[connection.tunnel]\nrequest-address = true\n", "line 13: request-address: who begins asks for an address"),
        ("[connection.tunnel]\nremote = \"10.9.0.0/24\"\npool = [\"10.9.0.0/25\"]\n", "line 13: pool: who begins asks for an address, so it is the peer's to begin"),
        ("start = \"peer\"\n[connection.tunnel]\nremote = \"10.9.0.0/24\"\npool = [\"10.9.1.0/25\"]\n", "line 14: pool: addresses that are not in `remote`"),
        ("start = \"peer\"\n[connection.tunnel]\nremote = \"10.9.0.0/24\"\npool = [\"10.9.0.9-10.9.0.1\"]\n", "line 14: pool: the first and the last are of two families, or in the wrong order"),
        ("[device]\nname = \"a name that no device has\"\n", "line 12: name: not a device's name"),
        ("[device]\nroutes = 7\n", "line 12: routes: "),
        ("[snoop]\n", "snoop: only a foreign agent (`role = \"fa\"`) repairs losses"),
    ] {
        let text = mistake(&with(more));
        assert!(text.starts_with("keyd.toml: line "), "{text}");
        assert!(text.contains(expected), "{more}{text}");
    }
    let twice = mistake(&with(CONNECTION));
    assert!(
        twice.contains("line 12: name: there is a connection of this name already"),
        "{twice}"
    );
    let number = mistake(&with("").replace("name = \"ha\"", "name = \"17\""));
    assert!(number.contains("name: not a name"), "{number}");
    let family = mistake(&with("").replace("198.51.100.1", "2001:db8::1"));
    assert!(
        family.contains("remote: none of the node's `addresses` is of its family"),
        "{family}"
    );
    let anyone = mistake(&with("").replace("\"ha.example\"", "\"*\""));
    assert!(
        anyone
            .contains("remote-identity: `*` lets a peer of one secret or key call itself anything"),
        "{anyone}"
    );
    let tries = mistake(&with("").replace("role = \"mh\"", "role = \"mh\"\ntries = 0"));
    assert!(
        tries.contains("tries: how often a message is sent again, from 1 to 20"),
        "{tries}"
    );
    let missing = mistake("[node]\nrole = \"mh\"\nidentity = \"mh.example\"\n");
    assert!(
        missing.contains("line 1: missing field `addresses`"),
        "{missing}"
    );
}

#[test]
fn files_with_secrets_that_others_can_read_are_refused() {
    for (mode, expected) in [
        (0o640, "mode 0640"),
        (0o604, "mode 0604"),
        (0o620, "mode 0620"),
    ] {
        let folder = folder();
        write(folder.path(), "psk", "correct horse battery staple", mode);
        let text = Config::parse("keyd.toml", &with(""), folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("line 10: secret-file: ")
                && text.contains(expected)
                && text.contains("chmod 600"),
            "{text}"
        );
        assert!(!text.contains("horse"));
    }
    let folder = tempfile::tempdir().unwrap();
    let text = Config::parse("keyd.toml", &with(""), folder.path())
        .unwrap_err()
        .to_string();
    assert!(text.contains("no such file"), "{text}");
}

#[test]
fn a_secret_that_could_be_guessed_or_is_two_is_refused() {
    for (secret, expected) in [
        ("tiny", "shorter than 16 octets"),
        ("0x0011", "shorter than 16 octets"),
        ("0xzz112233445566778899aabbccddeeff", "not hexadecimal"),
        (
            "correct horse battery staple\nanother one\n",
            "more than one line",
        ),
        ("", "shorter"),
    ] {
        let folder = folder();
        write(folder.path(), "psk", secret, 0o600);
        let text = Config::parse("keyd.toml", &with(""), folder.path())
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{text}");
        assert!(secret.is_empty() || !text.contains(secret.trim()), "{text}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let folder = folder();
    let config = Config::parse("keyd.toml", &with(""), folder.path()).unwrap();
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("correct") && !shown.contains("[99, 111"),
        "{shown}"
    );
}

/// The examples of docs/keyd.md, as a reader would copy them.
#[test]
fn the_examples_in_the_documentation_are_right() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/keyd.md");
    let page = std::fs::read_to_string(page).unwrap();
    let folder = folder();
    for name in ["mh.psk", "ha.psk", "fa1.psk"] {
        write(folder.path(), name, "correct horse battery staple", 0o600);
    }
    let mut roles = Vec::new();
    for block in page.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.contains("[node]") {
            let config = Config::parse("docs/keyd.md", text, folder.path());
            roles.push(config.unwrap_or_else(|e| panic!("{e}")).role.name());
        }
    }
    assert_eq!(roles, ["ha", "fa", "mh"]);
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let folder = folder();
    for (mode, right) in [(0o644, true), (0o664, false), (0o646, false)] {
        write(folder.path(), "keyd.toml", &with(""), mode);
        let read = Config::read(&folder.path().join("keyd.toml"));
        assert_eq!(read.is_ok(), right, "{mode:o}");
        let said = read
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(right || said.contains("chmod go-w"), "{said}");
    }
}
