// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Multicast PKD between daemons: real datagrams to a multicast address, or copies of them.

use super::mobile::{agents, relays, whole, FA, HA, MH};
use super::net::{Net, PORT};
use keyd::daemon::engine::Engine;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A port of each test's own, since all tests' foreign agents may be in one group.
fn port(test: u8) -> u16 {
    PORT + 1000 + u16::from(test)
}

/// The group a home agent has of an FA's neighbours: epoch, members, datagrams.
fn group(engine: &Engine, fa: std::net::Ipv4Addr) -> Option<(u32, usize, u64)> {
    let mut groups = engine.endpoint().groups();
    let (_, _, epoch, members, said) = groups.find(|one| one.0 == fa)?;
    Some((epoch, members.len(), said))
}

/// Three foreign agents whose groups all have their members.
async fn three(test: u8, by: &str) -> Net {
    let how = |interface: &str| {
        format!(
            "predistribute-by = \"{by}\"\npredistribute-port = {}\n{interface}",
            port(test)
        )
    };
    let interface = match by {
        "multicast" => "predistribute-interface = \"lo\"\n",
        _ => "",
    };
    let mut net = agents(test, &how(interface), &how(interface), 3).await;
    net.until("members of each group", |nodes| {
        let groups: Vec<_> = nodes[HA].engine.endpoint().groups().collect();
        groups.len() == 3 && groups.iter().all(|one| one.3.len() == 2)
    })
    .await;
    net
}

/// docs/wire.md 3.3a, 3.3h, 3.3j, 3.3l.
#[tokio::test]
async fn one_datagram_brings_keys_to_all_neighbours() {
    for (test, by) in [(65, "multicast"), (66, "copies")] {
        let mut net = three(test, by).await;
        let first = super::mobile::at(test, FA[0]);
        net.registers(test, 0, None, 1);
        net.until("zone 1 at all three, two waiting", |nodes| {
            let waits = [(FA[0], false), (FA[0] + 1, true), (FA[0] + 2, true)];
            waits
                .iter()
                .all(|(fa, standby)| relays(&nodes[*fa]) == (2, *standby))
                && nodes[HA].engine.counters.distributed == 3
        })
        .await;
        let counters = net.nodes[HA].engine.counters;
        assert_eq!(
            (counters.predistributed, counters.predistribution_missed),
            (1, 0),
            "{by}"
        );
        assert_eq!(group(&net.nodes[HA].engine, first).unwrap().2, 1);
        net.until(
            "the copies that are sent in case the first is lost",
            |nodes| nodes[FA[0] + 2].engine.counters.group_repeated == 2,
        )
        .await;
        assert_eq!(net.nodes[FA[0] + 2].engine.counters.group_datagrams, 1);
        assert_eq!(
            net.nodes[FA[0]].engine.counters.group_datagrams, 0,
            "it isn't in its own"
        );
        // The one it moves to uses them at once, and gets its own with K_FA.
        net.registers(test, 1, None, 2);
        assert_eq!(relays(&net.nodes[FA[0] + 1]), (2, false), "at once");
        net.until("K_FA", |nodes| nodes[HA].engine.counters.distributed == 4)
            .await;
        net.run(Duration::from_millis(200)).await;
        assert!(whole(&net.nodes[HA]) && whole(&net.nodes[MH]));
        assert_eq!(relays(&net.nodes[FA[0] + 1]), (2, false));
    }
}

/// docs/wire.md 3.3c, 3.3e, 3.3g.
#[tokio::test]
async fn what_anybody_sends_to_the_group_changes_nothing() {
    let test = 67;
    let mut net = three(test, "copies").await;
    let (number, epoch) = {
        let mut memberships = net.nodes[FA[0] + 2].engine.endpoint().memberships();
        let (_, number, epoch, _) = memberships.next().unwrap();
        (number, epoch)
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::new(super::mobile::at(test, FA[0] + 2).into(), port(test));
    for len in [0, 1, 15, 16, 32, 96, 400, 1400] {
        let header = [number.to_be_bytes(), epoch.to_be_bytes()].concat();
        let octets = [header, vec![0; 1400]].concat();
        socket.send_to(&octets[..len], to).unwrap();
    }
    net.until("what names the group to be found forged", |nodes| {
        // What is shorter than a header names no datagram.
        nodes[FA[0] + 2].engine.counters.group_forged == 5
    })
    .await;
    assert_eq!(relays(&net.nodes[FA[0] + 2]).0, 0);
    assert_eq!(net.nodes[FA[0] + 2].engine.counters.group_datagrams, 0);
}

/// Where no multicast comes through the foreign agents are not worse off than with late keys: they get them by themselves
/// (docs/wire.md 3.3j).
#[tokio::test]
async fn where_no_datagram_comes_through_keys_come_one_by_one() {
    let test = 68;
    let text = |port: u16| format!("predistribute-by = \"copies\"\npredistribute-port = {port}\n");
    let mut net = agents(test, &text(port(test)), &text(port(test) + 100), 3).await;
    net.until("members", |nodes| {
        nodes[HA]
            .engine
            .endpoint()
            .groups()
            .all(|one| one.3.len() == 2)
            && nodes[HA].engine.endpoint().groups().count() == 3
    })
    .await;
    net.registers(test, 0, None, 1);
    net.until("zone 1 at all three, two waiting", |nodes| {
        let waits = [(FA[0], false), (FA[0] + 1, true), (FA[0] + 2, true)];
        waits
            .iter()
            .all(|(fa, standby)| relays(&nodes[*fa]) == (2, *standby))
    })
    .await;
    assert_eq!(net.nodes[HA].engine.counters.predistribution_missed, 2);
}
