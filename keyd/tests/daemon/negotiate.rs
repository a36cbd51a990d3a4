// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two daemons make SAs: composite ones, plain ones, or none.

use super::net::{address, connection, folder, node, secret, Net};
use super::recorder::Recorder;
use keyd::daemon::config::Config;
use keyd::daemon::control::Request;
use keyd::daemon::engine::{Engine, Kernels};
use keyd::daemon::kernel::{Action, KernelEvent, Keys, Rule, Sa, Zones};
use pfkey::Role;
use std::path::Path;
use std::time::Duration;

const HOME: &str = "203.0.113.7/32";

/// HA (node 0) and MH (node 1), which begins; `ha` and `mh` go into their tunnels.
pub fn pair(test: u8, ha: &str, mh: &str) -> [String; 2] {
    let (at_ha, at_mh) = (address(test, 1), address(test, 2));
    let to_mh = format!("start = \"peer\"\n[connection.tunnel]\nremote = \"{HOME}\"\n{ha}");
    let to_ha = format!("[connection.tunnel]\nlocal = \"{HOME}\"\n{mh}");
    [
        node("ha", "ha.test", &at_ha) + &connection("mh", &at_mh, "mh.test", &to_mh),
        node("mh", "mh.test", &at_mh) + &connection("ha", &at_ha, "ha.test", &to_ha),
    ]
}

pub async fn start(pair: [String; 2]) -> Net {
    let folder = folder();
    let mut net = Net::new();
    for text in pair {
        net.start(&text, folder.path()).await;
    }
    net
}

pub fn zones(sa: &Sa) -> &Zones {
    match &sa.keys {
        Keys::Zones(zones) => zones,
        Keys::Plain { .. } => panic!("a plain SA"),
    }
}

/// One side's way out is the other's way in.
fn assert_mirrored(out: &Sa, inbound: &Sa) {
    assert_eq!(
        (out.id.spi, out.id.src, out.id.dst),
        (inbound.id.spi, inbound.id.src, inbound.id.dst)
    );
    assert_eq!(out.selector, inbound.selector);
}

/// docs/wire.md 3.2f.
#[tokio::test]
async fn ha_and_mh_make_a_composite_sa_and_install_it_in_mml_alone() {
    let mut net = start(pair(1, "", "")).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    let [ha, mh] = &net.nodes[..] else { panic!() };
    for (a, b) in [(ha, mh), (mh, ha)] {
        let (out, inbound) = (a.mml.one(Role::Origin), b.mml.one(Role::Terminus));
        assert_mirrored(&out, &inbound);
        assert!(!out.standby && !inbound.standby);
        assert_eq!(zones(&out).zones, zones(&inbound).zones);
        assert_eq!(zones(&out).zones.len(), 2);
        assert_eq!((zones(&out).generation, zones(&out).window), (1, 8192));
        assert!(out.hard.seconds == 3600 && out.soft.seconds < 3600);
    }
    assert_eq!(ha.mml.one(Role::Origin).peer.to_string(), "mh.test");
    for node in [ha, mh] {
        assert!(node.xfrm.state().sas.is_empty());
        assert!(node.xfrm.state().rules.is_empty(), "mml guards");
        assert!(
            node.xfrm.state().reserved.is_empty(),
            "the SPI is given back"
        );
        let rules = node.mml.state().rules.clone();
        let protect = rules.iter().filter(|rule| rule.action == Action::Protect);
        assert_eq!(protect.count(), 2);
    }
}

/// What one side has for some ports alone the other's narrower child is of, composite or plain (docs/wire.md 2.3l).
#[tokio::test]
async fn a_tunnel_for_some_ports_makes_sas_of_these_alone() {
    for (test, zones) in [(66, "required"), (67, "off")] {
        let ha = format!("protocol = 17\nremote-port = \"4096-8191\"\nzones = \"{zones}\"");
        let mh = "protocol = 17\nlocal-port = 5000";
        let mut net = start(pair(test, &ha, mh)).await;
        let plain = zones == "off";
        net.until("a child at both", |nodes| {
            nodes.iter().all(|node| {
                let kernel = if plain { &node.xfrm } else { &node.mml };
                kernel.state().sas.len() == 2
            })
        })
        .await;
        for (node, role) in [(0, Role::Terminus), (1, Role::Origin)] {
            let kernel = if plain {
                &net.nodes[node].xfrm
            } else {
                &net.nodes[node].mml
            };
            let packets = kernel.one(role).selector;
            assert_eq!(packets.src_ports.bounds(), (5000, 5000), "zones {zones}");
            assert!(packets.dst_ports.is_any());
            assert_eq!((packets.protocol, packets.src_len), (17, 32));
        }
        if plain {
            let rules = net.nodes[1].xfrm.state().rules.clone();
            let out = rules.iter().find(|rule| !rule.inbound).unwrap();
            assert_eq!(out.selector.src_ports.bounds(), (5000, 5000));
        }
    }
}

/// docs/wire.md 3.2c.
#[tokio::test]
async fn a_peer_that_wants_no_zones_gets_plain_ipsec_and_what_must_be_sealed_stays_so() {
    let mut net = start(pair(2, "zones = \"off\"", "")).await;
    net.until("a plain child at both", |nodes| {
        nodes.iter().all(|node| node.xfrm.state().sas.len() == 2)
    })
    .await;
    let [ha, mh] = &net.nodes[..] else { panic!() };
    for (a, b) in [(ha, mh), (mh, ha)] {
        let (out, inbound) = (a.xfrm.one(Role::Origin), b.xfrm.one(Role::Terminus));
        assert_mirrored(&out, &inbound);
        assert!(matches!((&out.keys, &inbound.keys), (
            Keys::Plain { keys: x, .. }, Keys::Plain { keys: y, .. }) if x == y));
        assert!(a.mml.state().sas.is_empty());
        let protects = |rule: &&Rule| rule.action == Action::Protect;
        let in_mml = a.mml.state().rules.iter().filter(protects).count();
        assert_eq!(in_mml, 2, "sealed or not at all, whatever seals it");
        let rules = a.xfrm.state().rules.clone();
        assert_eq!(rules.iter().filter(protects).count(), 2);
        let out_rule = rules.iter().find(|rule| !rule.inbound).unwrap();
        assert_eq!(out_rule.reqid, out.reqid, "the policy finds its SA");
        assert_eq!(out_rule.outer, Some((out.id.src, out.id.dst)));
    }
    // With the plain child XFRM's policies go; mml's stay.
    let now = net.now();
    let request = Request::Delete { what: "ha".into() };
    net.nodes[1].engine.command(&request, now).unwrap();
    net.until("no plain child at the mobile host", |nodes| {
        nodes[1].xfrm.state().rules.is_empty()
    })
    .await;
    assert_eq!(net.nodes[1].mml.state().rules.len(), 2);
}

#[tokio::test]
async fn a_node_without_the_module_falls_back_to_plain_ipsec_and_xfrm_guards_from_the_start() {
    let folder = folder();
    let mut net = Net::new();
    let [ha, mh] = pair(3, "", "");
    net.start(&ha, folder.path()).await;
    let xfrm = Recorder::new("xfrm");
    net.start_with(&mh, folder.path(), None, xfrm.clone()).await;
    assert_eq!(xfrm.state().rules.len(), 2, "before anything is negotiated");
    net.until("a plain child at both", |nodes| {
        nodes.iter().all(|node| node.xfrm.state().sas.len() == 2)
    })
    .await;
    let now = net.now();
    let request = Request::Delete { what: "ha".into() };
    net.nodes[1].engine.command(&request, now).unwrap();
    net.until("no child at the mobile host", |nodes| {
        nodes[1].engine.book().children.is_empty()
    })
    .await;
    assert_eq!(
        xfrm.state().rules.len(),
        2,
        "they stay: else packets would go in clear"
    );
}

/// docs/wire.md 3.2d, 3.2f.
#[tokio::test]
async fn required_zones_take_nothing_less() {
    for (test, ha, mh) in [
        (4, "zones = \"required\"", "zones = \"off\""),
        (5, "zones = \"off\"", "zones = \"required\""),
    ] {
        let mut net = start(pair(test, ha, mh)).await;
        net.until("a refusal", |nodes| {
            nodes
                .iter()
                .any(|node| node.engine.counters.child_failed > 0)
        })
        .await;
        // What a responder had installed before is closed again; its way in goes with the time packets may still come.
        net.until("no child", |nodes| {
            nodes
                .iter()
                .all(|node| node.engine.book().children.is_empty())
        })
        .await;
        for node in &net.nodes {
            assert!(node.mml.state().sas.is_empty());
            assert!(node.mml.state().reserved.is_empty(), "SPIs are given back");
        }
    }
}

#[tokio::test]
async fn another_secret_lets_nobody_in_and_it_is_tried_again_later() {
    let folders = [folder(), folder()];
    secret(
        folders[1].path(),
        "psk",
        "0xffffffffffffffffffffffffffffffff",
    );
    let mut net = Net::new();
    for (text, folder) in pair(6, "", "").iter().zip(&folders) {
        net.start(text, folder.path()).await;
    }
    net.until("a failure", |nodes| {
        nodes[0].engine.counters.authentication_failed > 0
    })
    .await;
    net.until("another try", |nodes| {
        nodes[1].engine.counters.initiated > 1
    })
    .await;
    assert!(net.nodes.iter().all(|node| node.mml.state().sas.is_empty()));
}

#[tokio::test]
async fn what_a_kernel_refuses_is_closed_at_both_ends() {
    let folder = folder();
    let mut net = Net::new();
    let [ha, mh] = pair(7, "", "");
    net.start(&ha, folder.path()).await;
    let mml = Recorder::new("mml");
    mml.state().refuse = Some(("add", 12));
    net.start_with(&mh, folder.path(), Some(mml), Recorder::new("xfrm"))
        .await;
    net.until("a failure", |nodes| {
        nodes[1].engine.counters.install_failed > 0 && nodes[0].engine.counters.child_down > 0
    })
    .await;
    assert!(net
        .nodes
        .iter()
        .all(|node| node.engine.book().children.is_empty()));
    assert!(net.nodes[0]
        .mml
        .state()
        .sas
        .iter()
        .all(|sa| sa.id.role == Role::Terminus));
}

#[test]
fn a_node_that_cannot_say_what_must_be_sealed_does_not_run() {
    let folder = folder();
    let [_, text] = pair(8, "", "");
    let config = Config::parse("keyd.toml", &text, folder.path()).unwrap();
    let (mml, xfrm) = (Recorder::new("mml"), Recorder::new("xfrm"));
    mml.state().refuse = Some(("policy", 12));
    xfrm.state().refuse = Some(("policy", 12));
    let kernels = Kernels {
        mml: Some(Box::new(mml)),
        xfrm: Some(Box::new(xfrm)),
    };
    let refused = Engine::new(config, kernels, Duration::ZERO).err().unwrap();
    assert!(
        refused.to_string().starts_with("connection ha: "),
        "{refused}"
    );
}

#[tokio::test]
async fn a_packet_that_wants_a_tunnel_on_demand_begins_it() {
    let [ha, mh] = pair(9, "", "");
    let mh = mh.replace(
        "[connection.tunnel]",
        "start = \"demand\"\n[connection.tunnel]",
    );
    let mut net = start([ha, mh]).await;
    net.run(Duration::from_millis(100)).await;
    assert_eq!(net.nodes[1].engine.counters.initiated, 0);
    let selector = net.nodes[1].engine.config().connections[0]
        .tunnel
        .as_ref()
        .unwrap()
        .selector;
    let now = net.now();
    // The packet's own ends, as the module has it, or its policy's selector, as XFRM has.
    let packet = pfkey::Selector {
        protocol: 6,
        src_ports: pfkey::PortRange::one(1024).unwrap(),
        dst_ports: pfkey::PortRange::one(80).unwrap(),
        dst: selector.src,
        dst_len: 32,
        ..selector
    };
    for wanted in [packet, selector, packet] {
        net.nodes[1]
            .engine
            .kernel_event(KernelEvent::Acquire(wanted), now);
    }
    net.until("a CSA", |nodes| nodes[1].mml.state().sas.len() == 2)
        .await;
    assert_eq!(net.nodes[1].engine.counters.initiated, 1);
}

#[tokio::test]
async fn raw_keys_and_certificates_prove_who_a_node_is() {
    for (test, auth) in [(10, "key"), (11, "certificate")] {
        let folder = folder();
        keys(folder.path());
        let [ha, mh] = pair(test, "", "").map(|text| {
            text.replace(
                "auth = \"psk\"\nsecret-file = \"psk\"",
                &format!("auth = \"{auth}\"\nFILES"),
            )
        });
        let files = |own: &str, other: &str| {
            match auth {
            "key" => format!("key-file = \"{own}.key\"\nremote-key-file = \"{other}.pub\""),
            _ => format!("key-file = \"{own}.key\"\ncertificate-file = \"{own}.crt\"\nauthority-file = \"ca.crt\""),
        }
        };
        let mut net = Net::new();
        net.start(&ha.replace("FILES", &files("ha", "mh")), folder.path())
            .await;
        net.start(&mh.replace("FILES", &files("mh", "ha")), folder.path())
            .await;
        for node in &mut net.nodes {
            // Certificates of these tests hold from 1975 to 4096.
            node.engine
                .set_wall_clock(1_800_000_000, Duration::from_secs(1));
        }
        net.until("a CSA at both", |nodes| {
            nodes.iter().all(|node| node.mml.state().sas.len() == 2)
        })
        .await;
    }
}

/// Keys, certificates and their authority, for ha.test and mh.test.
fn keys(folder: &Path) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ca_crt = ca.self_signed(&ca_key).unwrap();
    secret(folder, "ca.crt", &ca_crt.pem());
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    for (name, kind) in [
        ("ha", &rcgen::PKCS_ED25519),
        ("mh", &rcgen::PKCS_ECDSA_P256_SHA256),
    ] {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let params = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        let crt = params.signed_by(&key, &issuer).unwrap();
        secret(folder, &format!("{name}.key"), &key.serialize_pem());
        secret(folder, &format!("{name}.pub"), &key.public_key_pem());
        secret(folder, &format!("{name}.crt"), &crt.pem());
    }
}

#[tokio::test]
async fn of_two_ike_sas_begun_at_once_one_is_closed_and_the_other_keeps_its_csa() {
    let [ha, mh] = pair(12, "", "");
    let mut net = start([ha.replace("start = \"peer\"\n", ""), mh]).await;
    net.until("two at both", |nodes| {
        nodes.iter().all(|node| node.engine.counters.ike_up == 2)
    })
    .await;
    net.until("one at both, with its CSA", |nodes| {
        nodes.iter().all(|node| {
            let book = node.engine.book();
            (book.ikes.len(), book.children.len()) == (1, 1)
        })
    })
    .await;
    let [ha, mh] = &net.nodes[..] else { panic!() };
    assert_mirrored(
        &ha.mml.one(Role::Origin),
        &origin_pair(mh, &ha.mml.one(Role::Origin)),
    );
    net.run(Duration::from_millis(500)).await;
    assert!(
        net.nodes
            .iter()
            .all(|node| node.engine.book().ikes.len() == 1),
        "none comes again"
    );
}

/// The way in that belongs to another's way out.
fn origin_pair(node: &super::net::Node, out: &Sa) -> Sa {
    let state = node.mml.state();
    let mut sas = state.sas.iter();
    sas.find(|sa| sa.id.role == Role::Terminus && sa.id.spi == out.id.spi)
        .unwrap()
        .clone()
}
