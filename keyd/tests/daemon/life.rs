// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What becomes of SAs: rekeyed, given to relays, revoked, outliving their daemon, closed.

use super::negotiate::{pair, start, zones};
use super::net::{address, connection, folder, node, Net, PORT};
use keyd::daemon::config::Config;
use keyd::daemon::control::Request;
use keyd::daemon::engine::{Engine, Kernels};
use keyd::daemon::kernel::{KernelEvent, Sa};
use pfkey::Role;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;

async fn up(test: u8) -> Net {
    let mut net = start(pair(test, "", "")).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    net
}

/// The origin's CSA of that generation.
fn origin(node: &super::net::Node, generation: u32) -> Option<Sa> {
    let state = node.mml.state();
    let mut sas = state.sas.iter();
    sas.find(|sa| sa.id.role == Role::Origin && zones(sa).generation == generation)
        .cloned()
}

/// docs/wire.md 2.2u, 3.2r.
#[tokio::test]
async fn the_kernels_soft_limit_has_a_csa_replaced_before_it_ends() {
    let mut net = up(20).await;
    let old = net.nodes[1].mml.one(Role::Origin);
    let now = net.now();
    net.nodes[1]
        .engine
        .kernel_event(KernelEvent::Expire(old.id, false), now);
    net.until("the new CSA alone seals at both", |nodes| {
        nodes
            .iter()
            .all(|node| origin(node, 1).is_none() && origin(node, 2).is_some_and(|sa| !sa.standby))
    })
    .await;
    for node in &net.nodes {
        let log = node.mml.state().log.clone();
        let at = |what: String| log.iter().position(|line| *line == what);
        let new = origin(node, 2).unwrap();
        let removed = log
            .iter()
            .position(|line| line.starts_with("remove origin"))
            .unwrap();
        assert!(
            at(format!("add {}", new.id)).unwrap() < removed,
            "make before break"
        );
        // What is on its way still comes in.
        let state = node.mml.state();
        assert_eq!(
            state
                .sas
                .iter()
                .filter(|sa| sa.id.role == Role::Terminus)
                .count(),
            2
        );
    }
}

#[tokio::test]
async fn when_the_ha_rekeys_the_mh_seals_with_the_new_csa_after_its_first_good_packet_at_the_latest_at_the_delete(
) {
    let mut net = up(21).await;
    let now = net.now();
    let spi = net.nodes[0].mml.one(Role::Terminus).id.spi;
    let request = Request::Rekey {
        what: format!("{spi:#x}"),
        ike: false,
    };
    net.nodes[0].engine.command(&request, now).unwrap();
    net.until("the new CSA seals at both", |nodes| {
        nodes
            .iter()
            .all(|node| origin(node, 2).is_some_and(|sa| !sa.standby))
    })
    .await;
    let log = net.nodes[1].mml.state().log.clone();
    assert!(
        log.iter().any(|line| line.starts_with("activate origin")),
        "{log:?}"
    );
}

/// docs/wire.md 3.2c; RFC 7296 §2.8.
#[tokio::test]
async fn a_rekeyed_plain_child_seals_at_who_was_asked_from_the_delete_on_and_the_old_one_is_opened_for_a_while(
) {
    let mut net = start(pair(19, "zones = \"off\"", "")).await;
    net.until("a plain child at both", |nodes| {
        nodes.iter().all(|node| node.xfrm.state().sas.len() == 2)
    })
    .await;
    let now = net.now();
    let request = Request::Rekey {
        what: "mh".into(),
        ike: false,
    };
    net.nodes[0].engine.command(&request, now).unwrap();
    net.until("one way out and two ways in at both", |nodes| {
        nodes.iter().all(|node| {
            let state = node.xfrm.state();
            let (out, inbound): (Vec<_>, Vec<_>) =
                state.sas.iter().partition(|sa| sa.id.role == Role::Origin);
            out.len() == 1 && !out[0].standby && inbound.len() == 2
        }) && nodes.iter().all(|node| node.engine.counters.rekeyed == 1)
    })
    .await;
    let log = |node: usize| net.nodes[node].xfrm.state().log.clone();
    let at = |log: &[String], what: &str| log.iter().rposition(|line| line.starts_with(what));
    let (asking, asked) = (log(0), log(1));
    assert_eq!(
        at(&asking, "activate"),
        None,
        "who asks seals at once: {asking:?}"
    );
    // A policy put anew is what makes XFRM choose anew.
    let steps = [
        "add origin",
        "activate origin",
        "policy Protect",
        "remove origin",
    ]
    .map(|what| at(&asked, what));
    assert!(steps.is_sorted() && steps[0].is_some(), "{asked:?}");
}

#[tokio::test]
async fn an_ike_sa_is_rekeyed_by_the_connection_s_name_and_its_children_stay() {
    let mut net = up(23).await;
    let now = net.now();
    let ike = |ike| Request::Rekey {
        what: "mh".into(),
        ike,
    };
    let spi = net.nodes[0].mml.one(Role::Terminus).id.spi;
    let held = |net: &Net| net.nodes[0].engine.book().ike_of(0);
    let before = held(&net);
    net.nodes[0].engine.command(&ike(true), now).unwrap();
    net.until("another IKE SA", |nodes| {
        let now = nodes[0].engine.book().ike_of(0);
        now.is_some() && now != before
    })
    .await;
    assert_eq!(net.nodes[0].mml.one(Role::Terminus).id.spi, spi);
    let of_a_child = Request::Rekey {
        what: format!("{spi:#x}"),
        ike: true,
    };
    let now = net.now();
    assert!(net.nodes[0].engine.command(&of_a_child, now).is_err());
}

#[tokio::test]
async fn a_hard_limit_closes_a_csa_at_both() {
    let mut net = up(22).await;
    let id = net.nodes[0].mml.one(Role::Terminus).id;
    let now = net.now();
    net.nodes[0]
        .engine
        .kernel_event(KernelEvent::Expire(id, true), now);
    net.until("no CSA seals", |nodes| {
        nodes
            .iter()
            .all(|node| node.engine.book().children.is_empty())
    })
    .await;
}

/// HA, MH and FA; the host is at the FA.
fn three_texts(test: u8) -> [String; 3] {
    let (at_ha, at_mh, at_fa) = (address(test, 1), address(test, 2), address(test, 3));
    let [_, mh] = pair(test, "", "");
    let ha = node("ha", "ha.test", &at_ha)
        + &format!("[[foreign-agent]]\nname = \"fa1\"\nidentity = \"fa.test\"\naddresses = [\"{at_fa}\"]\n")
        + &connection("fa1", &at_fa, "fa.test", "")
        + &connection(
            "mh",
            &at_mh,
            "mh.test",
            "start = \"peer\"\n[connection.tunnel]\nremote = \"203.0.113.7\"\nrelay = \"fa1\"\n",
        );
    let fa = node("fa", "fa.test", &at_fa)
        + "[snoop]\nwindow = 99\n[[home-agent]]\nidentity = \"ha.test\"\nprefixes = [\"203.0.113.0/24\"]\nhosts = [\"203.0.113.7\"]\n"
        + &connection("ha", &at_ha, "ha.test", "start = \"peer\"\n");
    [ha, mh, fa]
}

/// The three, with their CSA.
async fn three(test: u8) -> Net {
    let folder = folder();
    let mut net = Net::new();
    for text in three_texts(test) {
        net.start(&text, folder.path()).await;
    }
    net.until("a CSA at all three", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    net
}

/// docs/wire.md 1.2b, 3.1d.
#[tokio::test]
async fn the_ha_gives_the_fa_zone_1_of_both_directions_and_nothing_of_zone_2() {
    let mut net = three(34).await;
    net.until("the HA knows that it is there", |nodes| {
        nodes[0].engine.counters.distributed == 1
    })
    .await;
    let relays = net.nodes[2].mml.state().sas.clone();
    for (ends, role) in [
        (0, Role::Origin),
        (0, Role::Terminus),
        (1, Role::Origin),
        (1, Role::Terminus),
    ] {
        let end = net.nodes[ends].mml.one(role);
        let relay = relays.iter().find(|sa| sa.id.spi == end.id.spi).unwrap();
        assert_eq!((relay.id.src, relay.id.dst), (end.id.src, end.id.dst));
        assert_eq!((relay.id.role, relay.selector), (Role::Relay, end.selector));
        let (given, whole) = (zones(relay), zones(&end));
        assert_eq!(given.zones, whole.zones[..1], "zone 1, and no other");
        assert_eq!(given.snoop.map(|snoop| snoop.window), Some(99));
        assert!(!given.relay.may_write && !relay.standby);
    }
}

/// docs/wire.md 3.2p, 3.2r.
#[tokio::test]
async fn a_rekeyed_csa_is_at_the_fa_before_it_seals_and_a_closed_one_is_revoked() {
    let mut net = three(24).await;
    let now = net.now();
    let request = Request::Rekey {
        what: "mh".into(),
        ike: false,
    };
    net.nodes[0].engine.command(&request, now).unwrap();
    net.until("the new CSA at all three", |nodes| {
        nodes[..2]
            .iter()
            .all(|node| origin(node, 2).is_some_and(|sa| !sa.standby))
            && nodes[2].mml.state().sas.len() == 4
    })
    .await;
    assert_eq!(net.nodes[0].engine.counters.without_relay, 0);
    let now = net.now();
    let request = Request::Delete { what: "ha".into() };
    net.nodes[1].engine.command(&request, now).unwrap();
    net.until("nothing at the ends", |nodes| {
        nodes[..2]
            .iter()
            .all(|node| node.engine.book().children.is_empty())
    })
    .await;
    // Relays are told after what is on its way has had time to arrive.
    assert_eq!(net.nodes[2].mml.state().sas.len(), 4);
    net.run(Duration::from_secs(8)).await;
    net.until("nothing at the FA, which says so of both", |nodes| {
        let fa = &nodes[2];
        fa.mml.state().sas.is_empty()
            && fa.engine.book().relays.is_empty()
            && nodes[0].engine.counters.revoked == 2
    })
    .await;
    assert_eq!(net.nodes[0].engine.counters.revocation_unconfirmed, 0);
    assert!(net.nodes[..2]
        .iter()
        .all(|node| node.mml.state().sas.is_empty()));
}

/// docs/wire.md 3.2v.
#[tokio::test]
async fn a_daemon_that_comes_back_claims_its_csa_and_replaces_it_while_it_goes_on_sealing() {
    let test = 25;
    let mut net = up(test).await;
    let old = net.nodes[1].mml.one(Role::Origin);
    // It ends by a signal: nothing is closed, nothing taken away.
    let [_, mh] = pair(test, "", "");
    restart(&mut net, 1, &mh).await;
    net.until("claimed at both, and replaced", |nodes| {
        nodes.iter().all(|node| {
            node.engine.counters.claimed == 1
                && origin(node, 1).is_none()
                && origin(node, 2).is_some_and(|sa| !sa.standby)
        })
    })
    .await;
    let log = net.nodes[1].mml.state().log.clone();
    let at = |what: String| log.iter().position(|line| line.starts_with(&what)).unwrap();
    assert!(
        at("add origin".into()) < at(format!("remove {}", old.id)),
        "{log:?}"
    );
    assert!(net.nodes[1].engine.book().orphans.is_empty());
    // The HA waits for the host, who knows the new keys later, before it seals with them.
    let log = net.nodes[0].mml.state().log.clone();
    assert!(
        log.iter().any(|line| line.starts_with("activate origin")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_flush_leaves_nothing_in_either_kernel() {
    let mut net = up(26).await;
    net.nodes[1].engine.flush();
    for kernel in [&net.nodes[1].mml, &net.nodes[1].xfrm] {
        assert!(kernel.state().sas.is_empty() && kernel.state().rules.is_empty());
    }
}

/// Ends a daemon as a signal does, and starts it again on its kernels, whose CSAs have 1000 s left.
pub async fn restart(net: &mut Net, at: usize, text: &str) {
    let gone = net.nodes.remove(at);
    let (mml, xfrm) = (gone.mml.clone(), gone.xfrm.clone());
    drop(gone);
    mml.state().log.clear();
    mml.state().left = Some(1000);
    net.close_sockets().await;
    let folder = folder();
    net.start_with(text, folder.path(), Some(mml), xfrm).await;
    let back = net.nodes.pop().unwrap();
    net.nodes.insert(at, back);
}

#[tokio::test]
async fn an_ha_that_comes_back_claims_csas_of_hosts_that_may_be_anywhere() {
    let [ha, mh] = pair(27, "", "");
    // It doesn't know where its host is but by the CSA.
    let ha = ha.replace(
        &format!("remote = \"{}\"\nremote-identity", address(27, 2)),
        "remote-identity",
    );
    let mut net = start([ha.clone(), mh]).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    restart(&mut net, 0, &ha).await;
    net.until("claimed at both, and replaced", |nodes| {
        nodes.iter().all(|node| {
            node.engine.counters.claimed == 1
                && origin(node, 1).is_none()
                && origin(node, 2).is_some_and(|sa| !sa.standby)
        })
    })
    .await;
}

#[tokio::test]
async fn where_both_came_back_the_old_csa_goes_and_a_new_one_seals() {
    let texts = pair(28, "", "");
    let mut net = start(texts.clone()).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    let old = net.nodes[1].mml.one(Role::Origin);
    restart(&mut net, 1, &texts[1]).await;
    restart(&mut net, 0, &texts[0]).await;
    net.until("the new CSA alone", |nodes| {
        nodes.iter().all(|node| {
            let state = node.mml.state();
            let mut origins = state.sas.iter().filter(|sa| sa.id.role == Role::Origin);
            let one = origins
                .next()
                .is_some_and(|sa| sa.id.spi != old.id.spi && !sa.standby);
            one && origins.next().is_none() && node.engine.book().orphans.is_empty()
        })
    })
    .await;
}

#[tokio::test]
async fn a_debug_line_of_an_sa_shows_no_key() {
    let net = up(29).await;
    for sa in &net.nodes[0].mml.state().sas {
        let shown = format!("{sa:?}");
        assert!(shown.contains("Secret(32 octets)"), "{shown}");
        let key = zones(sa).zones[0].1.key.expose();
        assert!(!shown.contains(
            &format!("{:?}", &key[..4])
                .trim_matches(['[', ']'])
                .to_owned()
        ));
    }
}

/// docs/wire.md 1.5c, 1.5d.
#[tokio::test]
async fn an_fa_that_comes_back_goes_on_with_what_its_kernel_has_and_is_given_it_again() {
    for (test, forgetful) in [(30, false), (31, true)] {
        let mut net = three(test).await;
        net.until("the HA knows", |nodes| {
            nodes[0].engine.counters.distributed == 1
        })
        .await;
        if forgetful {
            net.nodes[2].mml.state().sas.clear();
        }
        let [_, _, fa] = three_texts(test);
        // It begins, since the HA doesn't know yet that it was away.
        let fa = fa.replace("start = \"peer\"", "start = \"now\"");
        restart(&mut net, 2, &fa).await;
        let kept = if forgetful { 0 } else { 1 };
        assert_eq!(net.nodes[2].engine.book().relays.len(), kept);
        net.until("it is given the CSA again", |nodes| {
            nodes[0].engine.counters.distributed == 2 && nodes[2].mml.state().sas.len() == 2
        })
        .await;
        let ikes = net.nodes[0].engine.book().ikes.len();
        assert_eq!(ikes, 2, "the one of before is gone at once");
        let relay = net.nodes[2].mml.state().sas[0].clone();
        assert_eq!(
            zones(&relay).relay.number,
            2,
            "no relay number twice under one CSA"
        );
    }
}

/// A NAT: what comes to `inner` goes on to `outer_to` from another address and port, and back.
async fn nat(inner: String, outer: String, outer_to: String) -> SocketAddr {
    let inner = UdpSocket::bind((inner, PORT)).await.unwrap();
    let outer = UdpSocket::bind((outer, 0)).await.unwrap();
    let mapped = outer.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut within, mut buffer, mut back) = (None, [0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                Ok((len, from)) = inner.recv_from(&mut buffer) => {
                    within = Some(from);
                    outer.send_to(&buffer[..len], (outer_to.as_str(), PORT)).await.unwrap();
                }
                Ok((len, _)) = outer.recv_from(&mut back) => if let Some(within) = within {
                    inner.send_to(&back[..len], within).await.unwrap();
                },
            }
        }
    });
    mapped
}

#[tokio::test]
async fn behind_a_nat_packets_go_within_udp_and_its_new_mapping_moves_a_csa_first_where_it_is_opened(
) {
    let test = 32;
    let [ha, mh] = pair(test, "", "");
    let at = |node| address(test, node);
    let anywhere = format!("remote = \"{}\"\nremote-identity", at(2));
    let ha = ha.replace(&anywhere, "remote-identity");
    let to_nat = mh.replace(
        &format!("remote = \"{}\"", at(1)),
        &format!("remote = \"{}\"", at(9)),
    );
    let mapped = nat(at(9), at(10), at(1)).await;
    let mut net = start([ha, to_nat]).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    let out = net.nodes[0].mml.one(Role::Origin);
    assert_eq!(
        (out.id.dst, out.udp),
        (mapped.ip(), Some((PORT, mapped.port())))
    );
    let now = net.now();
    let new: SocketAddr = format!("{}:61000", at(99)).parse().unwrap();
    let spi = net.nodes[0].mml.one(Role::Terminus).id.spi;
    net.nodes[0]
        .engine
        .kernel_event(KernelEvent::NewMapping(spi, new), now);
    let (out, inbound) = (
        net.nodes[0].mml.one(Role::Origin),
        net.nodes[0].mml.one(Role::Terminus),
    );
    assert_eq!((out.id.dst, out.udp), (new.ip(), Some((PORT, 61_000))));
    assert_eq!(
        (inbound.id.src, inbound.udp),
        (new.ip(), Some((61_000, PORT)))
    );
    let log = net.nodes[0].mml.state().log.clone();
    let at = |what: &str| log.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(at("migrate terminus") < at("migrate origin"));
}

#[tokio::test]
async fn a_restart_pairs_directions_by_when_they_were_installed_and_takes_away_what_only_opens() {
    let test = 33;
    let net = up(test).await;
    let mml = net.nodes[1].mml.clone();
    let (out, inbound) = (mml.one(Role::Origin), mml.one(Role::Terminus));
    // One of before, of the same generation, whose way out is gone already.
    let mut old = inbound.clone();
    old.id.spi = 0x1234;
    {
        let mut state = mml.state();
        state.sas.insert(0, old.clone());
        state.since = [(out.id.spi, 1000), (inbound.id.spi, 1000), (0x1234, 900)].into();
        state.left = Some(1000);
    }
    drop(net);
    let folder = folder();
    let [_, text] = pair(test, "", "");
    let config = Config::parse("keyd.toml", &text, folder.path()).unwrap();
    let kernels = Kernels {
        mml: Some(Box::new(mml.clone())),
        xfrm: None,
    };
    let mut engine = Engine::new(config, kernels, Duration::ZERO).unwrap();
    let orphans = &engine.book().orphans;
    assert_eq!(orphans.len(), 1);
    assert_eq!(orphans[0].inbound.sa.id, inbound.id);
    engine.tick(Duration::from_secs(9));
    assert!(
        mml.state().sas.iter().any(|sa| sa.id == old.id),
        "what is on its way still comes"
    );
    engine.tick(Duration::from_secs(11));
    assert!(mml.state().sas.iter().all(|sa| sa.id != old.id));
}
