// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many hosts of one connection, each with an inner address of its own (RFC 7296 §2.19).

use super::life::restart;
use super::net::{address, connection, folder, node, Net, Node};
use keyd::daemon::kernel::{Role, Sa};
use std::net::IpAddr;

/// A home agent that gives addresses to all of a domain, and two hosts that ask for one and send all by it.
fn texts(test: u8) -> [String; 3] {
    let at_ha = address(test, 1);
    let hosts = connection(
        "hosts",
        &at_ha,
        "*.test",
        "start = \"peer\"\n[connection.tunnel]\nremote = \"10.9.0.0/24\"\npool = [\"10.9.0.8-10.9.0.9\", \"10.9.0.128/30\"]\n",
    );
    // They may be anywhere.
    let hosts = hosts.replace(&format!("remote = \"{at_ha}\"\n"), "");
    let host = |name: &str, number: u8| {
        let tunnel = "[connection.tunnel]\nremote = \"0.0.0.0/0\"\nrequest-address = true\n";
        node("mh", name, &address(test, number)) + &connection("ha", &at_ha, "ha.test", tunnel)
    };
    [
        node("ha", "ha.test", &at_ha) + &hosts,
        host("a.test", 2),
        host("b.test", 3),
    ]
}

async fn start(texts: &[String; 3]) -> Net {
    let folder = folder();
    let mut net = Net::new();
    for text in texts {
        net.start(text, folder.path()).await;
    }
    net.until("a CSA with each", |nodes| {
        nodes[0].mml.state().sas.len() == 4
            && nodes[1..]
                .iter()
                .all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    net
}

fn source(sa: &Sa) -> IpAddr {
    keyd::address::ip(sa.selector.family, &sa.selector.src)
}

fn origins(node: &Node) -> usize {
    let state = node.mml.state();
    let origins = state.sas.iter().filter(|sa| sa.id.role == Role::Origin);
    origins.count()
}

/// What a host seals with, if it is one thing alone.
fn origin(node: &Node) -> Option<Sa> {
    let state = node.mml.state();
    let mut origins = state.sas.iter().filter(|sa| sa.id.role == Role::Origin);
    let first = origins.next()?.clone();
    origins.next().is_none().then_some(first)
}

fn status(node: &mut Node, now: std::time::Duration) -> serde_json::Value {
    let asked = keyd::daemon::control::Request::Status;
    node.engine.command(&asked, now).unwrap()
}

#[tokio::test]
async fn hosts_of_one_connection_have_an_address_each_and_keep_it_whoever_comes_back() {
    let texts = texts(90);
    let mut net = start(&texts).await;
    let first: Vec<Sa> = net.nodes[1..]
        .iter()
        .map(|node| origin(node).unwrap())
        .collect();
    let addresses: Vec<IpAddr> = first.iter().map(source).collect();
    assert_eq!(addresses[0].to_string(), "10.9.0.8");
    assert_eq!(addresses[1].to_string(), "10.9.0.9");
    for (host, address) in [(1, &addresses[0]), (2, &addresses[1])] {
        let now = net.now();
        let status = status(&mut net.nodes[host], now);
        assert_eq!(
            status["connections"][0]["inner_address"],
            address.to_string()
        );
        // Policies are for all it sends, the CSA for what is its own.
        let sa = &first[host - 1];
        assert_eq!((sa.selector.src_len, sa.selector.dst_len), (32, 0));
    }

    // One host comes back: the same address, and the other's CSA is left alone.
    restart(&mut net, 2, &texts[2]).await;
    net.until("b's is claimed and replaced", |nodes| {
        origin(&nodes[2]).is_some_and(|sa| sa.id.spi != first[1].id.spi && !sa.standby)
            && origins(&nodes[0]) == 2
            && nodes[0].engine.counters.claimed == 1
    })
    .await;
    assert_eq!(source(&origin(&net.nodes[2]).unwrap()), addresses[1]);
    assert_eq!(origin(&net.nodes[1]).unwrap().id, first[0].id);
    let second = origin(&net.nodes[2]).unwrap();

    // The home agent comes back, and begins with each, with what each has.
    restart(&mut net, 0, &texts[0]).await;
    net.until("both are claimed and replaced", |nodes| {
        let fresh = |at: usize, old: &Sa| {
            origin(&nodes[at]).is_some_and(|sa| sa.id.spi != old.id.spi && !sa.standby)
        };
        fresh(1, &first[0]) && fresh(2, &second) && origins(&nodes[0]) == 2
    })
    .await;
    for (host, address) in [(1, addresses[0]), (2, addresses[1])] {
        assert_eq!(source(&origin(&net.nodes[host]).unwrap()), address);
    }
}

#[tokio::test]
async fn a_host_that_asks_for_no_address_gets_nothing_of_a_pools() {
    let [ha, mh, _] = texts(91);
    let mh = mh.replace("request-address = true\n", "local = \"10.9.0.0/24\"\n");
    let folder = folder();
    let mut net = Net::new();
    net.start(&ha, folder.path()).await;
    net.start(&mh, folder.path()).await;
    net.until("an IKE SA", |nodes| !nodes[0].engine.book().ikes.is_empty())
        .await;
    net.run(std::time::Duration::from_millis(300)).await;
    assert!(net.nodes.iter().all(|node| node.mml.state().sas.is_empty()));
    assert_eq!(net.nodes[1].engine.counters.child_failed, 1);
}
