// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file is read again while the daemon runs.

use super::negotiate::{pair, start, zones};
use super::net::{address, connection, folder, node, Net};
use keyd::daemon::config::Config;
use keyd::daemon::control::Request;
use keyd::daemon::kernel::{Action, Rule};
use pfkey::Role;
use serde_json::{json, Value};
use std::path::Path;
use std::time::Duration;

/// The pair up, with the files' texts, home agent's first.
async fn up(test: u8) -> (Net, [String; 2], tempfile::TempDir) {
    let texts = pair(test, "", "");
    let mut net = start(texts.clone()).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    (net, texts, folder())
}

fn reload(net: &mut Net, node: usize, text: &str, folder: &Path) -> Result<Value, String> {
    let config = Config::parse("keyd.toml", text, folder).map_err(|mistake| mistake.to_string())?;
    let now = net.now();
    net.nodes[node].engine.reload(config, now)
}

fn names(net: &mut Net, node: usize) -> Vec<String> {
    let now = net.now();
    let status = net.nodes[node]
        .engine
        .command(&Request::Status, now)
        .unwrap();
    let list = status["connections"].as_array().unwrap();
    list.iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

fn protects(rule: &&Rule) -> bool {
    rule.action == Action::Protect
}

#[tokio::test]
async fn a_connection_that_says_the_same_goes_on_whatever_becomes_of_the_others() {
    let (mut net, [_, mh], folder) = up(100).await;
    let before = net.nodes[1].mml.one(Role::Origin);
    let ike = net.nodes[1].engine.book().ikes.keys().next().copied();
    // Another in front of it, and it is written otherwise.
    let other = connection("other", &address(100, 9), "other.test", "start = \"peer\"");
    let at = mh.find("[[connection]]").unwrap();
    let text = format!(
        "{}{other}# its comment\n{}",
        &mh[..at],
        mh[at..].replace("name = \"ha\"", "name   =   'ha'   # the same")
    );
    let done = reload(&mut net, 1, &text, folder.path()).unwrap();
    assert_eq!(done, json!({ "kept": 1, "closed": [], "new": ["other"] }));
    net.run(Duration::from_millis(200)).await;
    assert_eq!(net.nodes[1].mml.one(Role::Origin), before);
    assert_eq!(net.nodes[1].engine.book().ikes.keys().next().copied(), ike);
    assert_eq!(net.nodes[1].engine.counters.ike_down, 0);
    let mut listed = names(&mut net, 1);
    listed.sort();
    assert_eq!(listed, ["ha", "other"]);
    // And without it again: its place is free for another.
    let done = reload(&mut net, 1, &mh, folder.path()).unwrap();
    assert_eq!(done, json!({ "kept": 1, "closed": ["other"], "new": [] }));
    assert_eq!(names(&mut net, 1), ["ha"]);
    reload(&mut net, 1, &text, folder.path()).unwrap();
    assert_eq!(net.nodes[1].engine.config().connections.len(), 2);
}

#[tokio::test]
async fn a_connection_that_says_otherwise_is_closed_and_begun_anew() {
    let (mut net, [_, mh], folder) = up(101).await;
    let text = format!("{mh}window = 1024\n");
    let done = reload(&mut net, 1, &text, folder.path()).unwrap();
    assert_eq!(done, json!({ "kept": 0, "closed": ["ha"], "new": ["ha"] }));
    // What it protects is protected without a gap.
    let log = net.nodes[1].mml.state().log.clone();
    assert!(
        !log.iter().any(|line| line == "no policy Protect"),
        "{log:?}"
    );
    net.until("a CSA of the other window at both", |nodes| {
        nodes.iter().all(|node| {
            let state = node.mml.state();
            state.sas.iter().any(|sa| zones(sa).window == 1024)
        })
    })
    .await;
    assert_eq!(names(&mut net, 1), ["ha"]);
    let rules = net.nodes[1].mml.state().rules.clone();
    assert_eq!(rules.iter().filter(protects).count(), 2);
}

#[tokio::test]
async fn what_a_secret_file_holds_is_part_of_what_a_connection_says() {
    let (mut net, [_, mh], folder) = up(102).await;
    assert_eq!(reload(&mut net, 1, &mh, folder.path()).unwrap()["kept"], 1);
    super::net::secret(folder.path(), "psk", "another secret, long enough\n");
    let done = reload(&mut net, 1, &mh, folder.path()).unwrap();
    assert_eq!(done["closed"], json!(["ha"]));
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_is_named_by_its_line() {
    let (mut net, [_, mh], folder) = up(103).await;
    let before = (
        net.nodes[1].mml.one(Role::Origin),
        net.nodes[1].mml.state().rules.clone(),
    );
    let line = |text: &str, what: &str| {
        let at = text.lines().position(|line| line.contains(what));
        at.unwrap() + 1
    };
    let wrong = mh.replace("auth = \"psk\"", "auth = \"password\"");
    let error = reload(&mut net, 1, &wrong, folder.path()).unwrap_err();
    let expected = format!("keyd.toml: line {}: ", line(&wrong, "password"));
    assert!(error.starts_with(&expected), "{error}");
    // What the daemon has for good, though it would be right.
    for (other, table) in [
        (mh.replace("mh.test", "host.test"), "node"),
        (format!("{mh}\n[log]\nlevel = \"debug\"\n"), "log"),
        (
            format!("{mh}\n[control]\nsocket = \"/run/other\"\n"),
            "control",
        ),
    ] {
        let error = reload(&mut net, 1, &other, folder.path()).unwrap_err();
        let at = line(&other, &format!("[{table}]"));
        assert!(
            error.starts_with(&format!("line {at}: [{table}]: ")),
            "{error}"
        );
    }
    // A policy that the kernel refuses.
    for kernel in [&net.nodes[1].mml, &net.nodes[1].xfrm] {
        kernel.state().refuse = Some(("policy", 22));
    }
    let more = connection(
        "more",
        &address(103, 8),
        "more.test",
        "[connection.tunnel]\nremote = \"10.9.0.0/16\"\n",
    );
    let error = reload(&mut net, 1, &format!("{mh}{more}"), folder.path()).unwrap_err();
    assert!(error.contains("connection more"), "{error}");
    for kernel in [&net.nodes[1].mml, &net.nodes[1].xfrm] {
        kernel.state().refuse = None;
    }
    net.run(Duration::from_millis(100)).await;
    assert_eq!(names(&mut net, 1), ["ha"]);
    assert_eq!(net.nodes[1].mml.one(Role::Origin), before.0);
    assert_eq!(net.nodes[1].mml.state().rules, before.1);
    assert_eq!(net.nodes[1].engine.counters.ike_down, 0);
}

#[tokio::test]
async fn what_a_connection_protected_stays_so_when_it_is_gone_and_its_ike_passes_no_more() {
    let folder = folder();
    let (own, peer) = (address(104, 1), address(104, 2));
    // A tunnel that covers IKE's own packets.
    let tunnel = format!("[connection.tunnel]\nlocal = \"{own}\"\nremote = \"{peer}\"\n");
    let head = node("host", "a.test", &own);
    let text = format!("{head}{}", connection("b", &peer, "b.test", &tunnel));
    let mut net = Net::new();
    net.start(&text, folder.path()).await;
    let count = |net: &Net| {
        let rules = net.nodes[0].mml.state().rules.clone();
        let protect = rules.iter().filter(protects).count();
        (protect, rules.len() - protect)
    };
    assert_eq!(count(&net), (2, 4));
    // IKE's own ports alone (docs/wire.md 5g).
    for rule in &net.nodes[0].mml.state().rules {
        if rule.action == Action::Bypass {
            let own = if rule.inbound {
                rule.selector.dst_ports
            } else {
                rule.selector.src_ports
            };
            let (first, last) = own.bounds();
            assert!(
                first == last && [15_500, 14_500].contains(&first),
                "{rule:?}"
            );
        }
    }
    let done = reload(&mut net, 0, &head, folder.path()).unwrap();
    assert_eq!(done, json!({ "kept": 0, "closed": ["b"], "new": [] }));
    assert_eq!(count(&net), (2, 0));
    assert!(names(&mut net, 0).is_empty());
}
