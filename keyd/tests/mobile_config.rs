// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[mobile-ip]` of `keyd.toml`: what it comes to, what a mistake in it is answered with, and that the examples in the
//! documentation are right.

use keyd::daemon::config::{Agent, Config};
use keyd::daemon::mobility::mtu;
use mml_mip::{Algorithm, ReverseTunnel};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const SECRETS: [&str; 5] = [
    "mobile.key",
    "agents.key",
    "fa1.psk",
    "mh.psk",
    "agents.psk",
];

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in SECRETS {
        write(folder.path(), name, "correct horse battery staple");
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn node(role: &str, mobile: &str) -> String {
    format!("[node]\nrole = \"{role}\"\nidentity = \"x.example\"\naddresses = [\"2001:db8::1\", \"203.0.113.1\"]\n[mobile-ip]\n{mobile}")
}

fn parsed(text: &str) -> Config {
    let folder = folder();
    Config::parse("keyd.toml", text, folder.path()).unwrap_or_else(|error| panic!("{error}"))
}

const HOST: &str =
    "[[mobile-ip.host]]\naddress = \"203.0.113.7\"\nspi = 256\nsecret-file = \"mobile.key\"\n";
const MOBILE: &str = "links = [\"wl1\"]\nhome = \"203.0.113.7\"\nhome-agent = \"203.0.113.1\"\nspi = 256\nsecret-file = \"mobile.key\"\n";

#[test]
fn what_is_left_away_has_sound_defaults() {
    let mobile = parsed(&node("ha", HOST)).mobile_ip.unwrap();
    assert!(mobile.predistribute && mobile.links.is_empty());
    assert_eq!(mobile.interval, Duration::from_secs(1));
    let Agent::Home(home) = mobile.agent else {
        panic!("a home agent")
    };
    assert_eq!(
        home.addresses,
        ["203.0.113.1".parse::<std::net::Ipv4Addr>().unwrap()]
    );
    assert_eq!(home.reverse_tunnel, ReverseTunnel::Required);
    assert_eq!(home.max_lifetime, 600);

    let mobile = parsed(&node("fa", "links = [\"wl1\"]\n"))
        .mobile_ip
        .unwrap();
    let Agent::Foreign(foreign) = mobile.agent else {
        panic!("a foreign agent")
    };
    assert_eq!(foreign.care_of.to_string(), "203.0.113.1");
    assert!(foreign.home_agents.is_none() && foreign.home.is_empty());

    let mobile = parsed(&node("mh", MOBILE)).mobile_ip.unwrap();
    let Agent::Node(node) = mobile.agent else {
        panic!("a mobile host")
    };
    assert_eq!(node.association.algorithm, Algorithm::HmacSha256);
    assert!(node.reverse_tunnel && node.name_previous);
    assert!(
        parsed("[node]\nrole = \"mh\"\nidentity = \"x\"\naddresses = [\"10.0.0.1\"]\n")
            .mobile_ip
            .is_none()
    );
}

#[test]
fn registrations_go_to_the_home_agents_that_are_named_with_their_address_alone() {
    let agents = "[[home-agent]]\nidentity = \"ha.example\"\naddress = \"203.0.113.1\"\nprefixes = [\"203.0.113.0/24\"]\n";
    let config = parsed(&node("fa", &format!("links = [\"wl1\"]\n{agents}")));
    let Some(Agent::Foreign(foreign)) = config.mobile_ip.map(|mobile| mobile.agent) else {
        panic!("a foreign agent")
    };
    let known = foreign.home_agents.unwrap();
    assert_eq!(known.len(), 1);
    let prefixes = &known[&"203.0.113.1".parse().unwrap()];
    assert!(prefixes[0].contains("203.0.113.7".parse().unwrap()));
    assert!(!prefixes[0].contains("203.0.114.7".parse().unwrap()));
}

#[test]
fn a_foreign_agent_knows_whose_addresses_no_visitor_has_and_which_home_agents_nothing_proves() {
    let agents = "[[home-agent]]\nidentity = \"ha.example\"\naddress = \"203.0.113.2\"\nprefixes = [\"203.0.113.0/24\"]\n\
        [[neighbour]]\nidentity = \"fa2.example\"\naddresses = [\"10.1.2.1\", \"2001:db8::2\"]\n";
    let peer =
        "[[mobile-ip.peer]]\naddress = \"203.0.113.2\"\nspi = 300\nsecret-file = \"agents.key\"\n";
    let home_agent: Ipv4Addr = "203.0.113.2".parse().unwrap();
    for (peer, unproven) in [("", vec![home_agent]), (peer, Vec::new())] {
        let config = parsed(&node("fa", &format!("links = [\"wl1\"]\n{peer}{agents}")));
        let Some(Agent::Foreign(foreign)) = config.mobile_ip.map(|mobile| mobile.agent) else {
            panic!("a foreign agent")
        };
        let known = ["203.0.113.1", "10.1.2.1"].map(|one| one.parse().unwrap());
        assert_eq!(foreign.agents, known.into());
        assert_eq!(foreign.unproven(), unproven);
    }
}

#[test]
fn mistakes_name_key_cause_and_mend() {
    let relay = "[[foreign-agent]]\nname = \"fa1\"\nidentity = \"fa1.example\"\naddresses = [\"10.1.1.1\"]\n[[connection]]\nname = \"mh\"\nremote = \"203.0.113.7\"\nremote-identity = \"mh.example\"\nauth = \"psk\"\nsecret-file = \"mh.psk\"\n[connection.tunnel]\nremote = \"203.0.113.7\"\nrelay = \"fa1\"\n";
    let cases = [
        ("fa", String::new(), "links: missing; list the interfaces"),
        ("ha", "links = [\"a\", \"b\"]\n".to_owned() + HOST, "links: more than one home network; list one interface"),
        ("ha", "links = [\"home\"]\n".to_owned(), "host: missing; write a [[mobile-ip.host]] for each mobile host"),
        ("gateway", "links = [\"wl1\"]\n".to_owned(), "mobile-ip: only `ha`, `fa` and `mh` have a part in it"),
        ("fa", "links = [\"wl1\"]\nhome = \"203.0.113.7\"\n".to_owned(), "home: of no use with `role = \"fa\"`; remove it"),
        ("mh", MOBILE.to_owned() + HOST, "host: of no use with `role = \"mh\"`; remove it"),
        ("mh", MOBILE.to_owned() + "predistribute = true\n", "predistribute: of no use with `role = \"mh\"`; remove it"),
        ("mh", MOBILE.to_owned() + "predistribute-by = \"multicast\"\n", "predistribute-by: of no use with `role = \"mh\"`; remove it"),
        ("fa", "links = [\"wl1\"]\npredistribute-ttl = 3\n".to_owned(), "predistribute-ttl: of no use with `role = \"fa\"`; remove it"),
        ("ha", "predistribute-by = \"broadcast\"\n".to_owned() + HOST, "unknown variant `broadcast`"),
        ("ha", "predistribute-group = \"239.192.4.35\"\n".to_owned() + HOST, "predistribute-group: of use with `predistribute-by = \"multicast\"` alone"),
        ("ha", "predistribute-by = \"copies\"\npredistribute-interface = \"core\"\n".to_owned() + HOST, "predistribute-interface: of use with `predistribute-by = \"multicast\"` alone"),
        ("ha", "predistribute-port = 50000\n".to_owned() + HOST, "predistribute-port: of no use where CSAs are given one by one"),
        ("ha", "predistribute = false\npredistribute-by = \"copies\"\n".to_owned() + HOST, "predistribute: nothing is given beforehand"),
        ("ha", "predistribute-by = \"multicast\"\npredistribute-group = \"10.0.0.1\"\n".to_owned() + HOST, "predistribute-group: no multicast address that routers forward"),
        ("fa", "links = [\"wl1\"]\npredistribute-by = \"multicast\"\npredistribute-group = \"224.0.0.11\"\n".to_owned(), "predistribute-group: no multicast address that routers forward"),
        ("ha", "predistribute-by = \"multicast\"\npredistribute-ttl = 0\n".to_owned() + HOST, "predistribute-ttl: with 0 nothing leaves this node"),
        ("ha", "predistribute-by = \"copies\"\npredistribute-port = 434\n".to_owned() + HOST, "predistribute-port: none, or IKE's or Mobile IP's own"),
        ("mh", MOBILE.replace("spi = 256\n", ""), "spi: missing; write the number the home agent knows the secret by"),
        ("mh", MOBILE.replace("256", "255"), "spi: 0 to 255 are reserved (RFC 5944); write 256 or more"),
        ("mh", MOBILE.replace("mobile.key", "no.key"), "secret-file: "),
        ("mh", MOBILE.to_owned() + "lifetime = \"19h\"\n", "lifetime: longer than a registration can be; write at most `65534s`"),
        ("mh", MOBILE.to_owned() + "lifetme = \"1h\"\n", "unknown field `lifetme`"),
        ("fa", "links = [\"wl1\"]\naddress = \"10.9.9.9\"\n".to_owned(), "address: not one of the node's `addresses`; add it there"),
        ("ha", HOST.repeat(2), "spi: there is one of this number with this address already; write another"),
        ("ha", HOST.to_owned() + relay, "relay: Mobile IP says where this host is, for it is a [[mobile-ip.host]]; remove the key"),
    ];
    let folder = folder();
    for (role, mobile, expected) in cases {
        let text = node(role, &mobile);
        let mistake = Config::parse("keyd.toml", &text, folder.path())
            .expect_err(expected)
            .to_string();
        assert!(mistake.contains(expected), "{expected}: {mistake}");
        assert!(mistake.starts_with("keyd.toml: line "), "{mistake}");
    }
    let alone = "[node]\nrole = \"fa\"\nidentity = \"x\"\naddresses = [\"10.1.1.1\"]\n[[home-agent]]\nidentity = \"ha\"\naddress = \"10.0.0.1\"\nprefixes = [\"10.0.0.0/8\"]\n";
    let mistake = Config::parse("keyd.toml", alone, folder.path()).unwrap_err();
    assert!(
        mistake
            .to_string()
            .contains("address: of use with [mobile-ip] alone"),
        "{mistake}"
    );
}

/// docs/wire.md 3.3l.
#[test]
fn how_keys_are_given_beforehand_is_told_to_the_protocol() {
    use mml_ike::config::{Delivery, Multicast};
    let one_by_one = parsed(&node("ha", HOST));
    assert!(one_by_one.mobile_ip.unwrap().predistribution.is_none());
    assert!(one_by_one.ike.home.multicast.is_none());
    let by = |how: &str| format!("predistribute-by = \"{how}\"\n");
    let from: std::net::SocketAddr = "203.0.113.1:49434".parse().unwrap();
    let group = Delivery::Group("239.192.4.34:49434".parse().unwrap());
    for (how, to) in [("multicast", group), ("copies", Delivery::Copies(49_434))] {
        let config = parsed(&node("ha", &(by(how) + HOST)));
        assert_eq!(config.ike.home.multicast, Some(Multicast { from, to }));
        assert!(config.ike.foreign.multicast.is_none());
        let config = parsed(&node("fa", &(by(how) + "links = [\"wl1\"]\n")));
        assert_eq!(config.ike.foreign.multicast, Some(49_434));
        assert!(config.ike.home.multicast.is_none());
    }
    let own = "predistribute-group = \"239.255.0.9\"\npredistribute-port = 50000\npredistribute-ttl = 2\npredistribute-interface = \"core\"\n";
    let config = parsed(&node("ha", &(by("multicast") + own + HOST)));
    let mobile = config.mobile_ip.unwrap();
    let told = mobile.predistribution.unwrap();
    assert_eq!(told.group(), Some("239.255.0.9:50000".parse().unwrap()));
    assert_eq!(
        (told.ttl, told.interface.as_deref(), told.sends),
        (2, Some("core"), true)
    );
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", parsed(&node("mh", MOBILE)));
    assert!(
        !shown.contains("correct") && !shown.contains("[99, 111"),
        "{shown}"
    );
}

/// The examples of docs/mobility.md, as a reader would copy them.
#[test]
fn the_examples_in_the_documentation_are_right() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mobility.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```toml\n").skip(1);
    let roles: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .map(|text| {
            let config = parsed(text);
            assert!(config.mobile_ip.is_some());
            config.role.name()
        })
        .collect();
    assert_eq!(roles, ["ha", "fa", "mh"]);
}

#[test]
fn alarms_begin_after_ten_seconds_unless_the_file_says_otherwise() {
    let text = node("mh", MOBILE);
    assert_eq!(parsed(&text).alarm_after, Duration::from_secs(10));
    let text = text.replace("[mobile-ip]", "alarm-after = \"1m\"\n[mobile-ip]");
    assert_eq!(parsed(&text).alarm_after, Duration::from_secs(60));
}

#[test]
fn tunnels_lead_to_the_agents_on_the_other_side_and_interfaces_are_looked_at_without_permission() {
    let agent = "[[foreign-agent]]\nname = \"fa1\"\nidentity = \"fa1.example\"\naddresses = [\"2001:db8::2\", \"127.1.1.1\"]\n";
    let home = parsed(&(node("ha", HOST) + agent));
    let ends = home.tunnel_ends();
    assert_eq!(ends, [Ipv4Addr::new(127, 1, 1, 1)]);
    let agent = "[[home-agent]]\nidentity = \"ha.example\"\nprefixes = [\"203.0.113.0/24\"]\naddress = \"127.1.1.2\"\n";
    let foreign = parsed(&(node("fa", "links = [\"lo\", \"not-there\"]\n") + agent));
    assert_eq!(foreign.tunnel_ends(), [Ipv4Addr::new(127, 1, 1, 2)]);
    let host = parsed(&node("mh", MOBILE));
    assert!(host.tunnel_ends().is_empty());
    // The loopback device carries more than any of it needs.
    for config in [home, foreign, host] {
        let mobile = config.mobile_ip.as_ref().unwrap();
        let said = mtu::look(mobile, &config.tunnel_ends()).unwrap();
        assert!(said.iter().all(|one| one.interface != "lo"), "{said:?}");
    }
}
