// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an operator is told: in simulated time, and by daemons that speak with each other.

use super::mobile::{agents, at, relays, whole, FA, HA, MH};
use super::net::Net;
use keyd::daemon::control::Request;
use keyd::daemon::engine::{Alarms, Cause, Change, Coverage, Finding, Here};
use keyd::daemon::kernel::{Passed, Relayed, Role, SaId};
use keyd::daemon::metrics;
use keyd::daemon::mobility::mtu::{Advice, Way};
use mml_mip::{Event, Identification, Reason};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const AFTER: Duration = Duration::from_secs(10);

fn at_second(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn home(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

fn finding(severe: bool) -> Finding {
    Finding {
        text: "x".to_owned(),
        since: None,
        severe,
        pending: false,
    }
}

fn said(changes: &[Change]) -> Vec<(Cause, bool, u64)> {
    let all = changes.iter();
    all.map(|one| (one.cause.clone(), one.begins, one.stood.as_secs()))
        .collect()
}

#[test]
fn an_alarm_begins_when_something_was_wrong_for_long_enough_is_said_once_and_ends_with_it() {
    let mut alarms = Alarms::new(AFTER);
    let cause = Cause::Unopened(home(7));
    let wrong = || BTreeMap::from([(cause.clone(), finding(true))]);
    assert!(alarms.review(wrong(), at_second(5)).is_empty());
    assert_eq!(alarms.next_deadline(), Some(at_second(15)));
    assert!(alarms.review(wrong(), at_second(14)).is_empty());
    assert_eq!(alarms.raised().count(), 0);
    let begun = alarms.review(wrong(), at_second(15));
    assert_eq!(said(&begun), [(cause.clone(), true, 10)]);
    assert_eq!((alarms.raised().count(), alarms.next_deadline()), (1, None));
    assert!(alarms.review(wrong(), at_second(16)).is_empty(), "once");
    let ended = alarms.review(BTreeMap::new(), at_second(30));
    assert_eq!(said(&ended), [(cause.clone(), false, 25)]);
    assert_eq!(alarms.raised().count(), 0);
    // What was over before it became an alarm is never spoken of.
    assert!(alarms.review(wrong(), at_second(31)).is_empty());
    assert!(alarms.review(BTreeMap::new(), at_second(40)).is_empty());
    assert!(alarms.review(wrong(), at_second(41)).is_empty(), "anew");
}

#[test]
fn what_is_tried_again_begins_no_alarm_and_ends_none() {
    let mut alarms = Alarms::new(AFTER);
    let wrong = |pending| {
        let one = Finding {
            pending,
            ..finding(true)
        };
        let (home, fa) = (home(7), IpAddr::from([10, 1, 1, 1]));
        BTreeMap::from([(Cause::NotRevoked(home, fa), one)])
    };
    assert!(alarms.review(wrong(true), at_second(0)).is_empty());
    assert!(alarms.review(wrong(true), at_second(100)).is_empty());
    assert!(alarms.review(wrong(false), at_second(100)).is_empty());
    assert!(alarms.review(wrong(true), at_second(105)).is_empty());
    assert_eq!(alarms.review(wrong(false), at_second(110)).len(), 1);
    assert!(alarms.review(wrong(true), at_second(111)).is_empty());
    assert_eq!(alarms.raised().count(), 1);
}

#[test]
fn what_an_interface_carries_is_said_at_once() {
    let mut alarms = Alarms::new(AFTER);
    let found = BTreeMap::from([(Cause::Mtu("wl1".to_owned()), finding(false))]);
    assert_eq!(alarms.review(found, at_second(0)).len(), 1);
}

fn relay(spi: u32) -> SaId {
    SaId {
        spi,
        src: IpAddr::from([198, 51, 100, 1]),
        dst: home(7),
        role: Role::Relay,
    }
}

fn counted(no_csa: u64, csas: &[(u32, u64, u64)]) -> Relayed {
    let passed = |(spi, opened, unopened): &(u32, u64, u64)| {
        let (opened, unopened) = (*opened, *unopened);
        (relay(*spi), Passed { opened, unopened })
    };
    Relayed {
        opened: 0,
        no_csa,
        csas: csas.iter().map(passed).collect(),
    }
}

fn here(active: &[u32], standby: &[u32]) -> BTreeMap<IpAddr, Here> {
    let ids = |spis: &[u32]| spis.iter().map(|spi| relay(*spi)).collect();
    let here = Here {
        active: ids(active),
        standby: ids(standby),
    };
    BTreeMap::from([(home(7), here)])
}

/// Since when that visitor's ESP passes unopened, in seconds.
fn unopened(coverage: &Coverage) -> Option<u64> {
    let mut all = coverage.findings();
    let (cause, finding) = all.next()?;
    assert_eq!((cause, all.next()), (Cause::Unopened(home(7)), None));
    finding.since.map(|since| since.as_secs())
}

#[test]
fn a_visitor_without_a_csa_counts_since_it_came_once_its_esp_passes_and_until_a_csa_comes() {
    let mut coverage = Coverage::default();
    // What passed before it came is nobody's here.
    coverage.look(&here(&[], &[]), counted(50, &[]), at_second(3));
    assert_eq!(unopened(&coverage), None);
    coverage.look(&here(&[], &[]), counted(50, &[]), at_second(20));
    assert_eq!(unopened(&coverage), None, "it has nothing to say");
    coverage.look(&here(&[], &[]), counted(51, &[]), at_second(21));
    assert_eq!(unopened(&coverage), Some(3));
    coverage.look(&here(&[1], &[]), counted(90, &[(1, 0, 0)]), at_second(25));
    assert_eq!(unopened(&coverage), None);
    // And lost again.
    coverage.look(&here(&[], &[]), counted(90, &[]), at_second(30));
    assert_eq!(unopened(&coverage), None);
    coverage.look(&here(&[], &[]), counted(91, &[]), at_second(31));
    assert_eq!(unopened(&coverage), Some(30));
    coverage.look(&BTreeMap::new(), counted(99, &[]), at_second(32));
    assert_eq!(unopened(&coverage), None, "it left");
}

#[test]
fn a_visitor_whose_csa_waits_though_its_esp_passes_counts_too() {
    let mut coverage = Coverage::default();
    coverage.look(&here(&[], &[1]), counted(0, &[(1, 0, 0)]), at_second(1));
    assert_eq!(unopened(&coverage), None);
    coverage.look(&here(&[], &[1]), counted(0, &[(1, 0, 8)]), at_second(2));
    assert_eq!(unopened(&coverage), Some(1));
}

#[test]
fn a_csa_under_which_packets_come_and_none_is_opened_counts_until_one_is() {
    let mut coverage = Coverage::default();
    let csas = here(&[1, 2], &[]);
    coverage.look(&csas, counted(0, &[(1, 5, 0), (2, 5, 1)]), at_second(1));
    coverage.look(&csas, counted(0, &[(1, 6, 0), (2, 5, 2)]), at_second(2));
    assert_eq!(unopened(&coverage), None, "some are");
    coverage.look(&csas, counted(0, &[(1, 6, 4), (2, 5, 2)]), at_second(3));
    coverage.look(&csas, counted(0, &[(1, 6, 4), (2, 5, 2)]), at_second(4));
    coverage.look(&csas, counted(0, &[(1, 6, 9), (2, 5, 2)]), at_second(5));
    assert_eq!(unopened(&coverage), Some(3));
    let passed = coverage.visitors()[&home(7)].passed;
    assert_eq!((passed.opened, passed.unopened), (11, 11));
    coverage.look(&csas, counted(0, &[(1, 7, 9), (2, 5, 2)]), at_second(6));
    assert_eq!(unopened(&coverage), None);
    // What other hosts' ESP does is nothing to one that has a CSA.
    coverage.look(&csas, counted(70, &[(1, 7, 9), (2, 5, 2)]), at_second(7));
    assert_eq!(unopened(&coverage), None);
}

fn status(net: &mut Net, node: usize, now: Duration) -> Value {
    let engine = &mut net.nodes[node].engine;
    engine.command(&Request::Status, now).unwrap()
}

/// A column of a list in `mmlctl status`.
fn column(status: &Value, list: &str, keys: &[&str]) -> Vec<String> {
    let row = |one: &Value| {
        let cells = keys.iter().map(|key| match &one[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        cells.collect::<Vec<_>>().join(" ")
    };
    status[list].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn the_home_agent_says_with_whom_each_hosts_keys_are_and_who_did_not_take_them() {
    let test = 40;
    let mut net = agents(test, "predistribute = true\n", "", 2).await;
    net.registers(test, 0, None, 1);
    net.until("zone 1 at both", |nodes| {
        relays(&nodes[FA[0]]) == (2, false)
            && relays(&nodes[FA[1]]) == (2, true)
            && nodes[HA].engine.counters.distributed == 2
    })
    .await;
    let now = net.now();
    let said = status(&mut net, HA, now);
    let [fa1, fa2] = FA.map(|node| at(test, node));
    let keys = ["home", "foreign_agent", "as", "state"];
    let expected = [
        format!("203.0.113.7 {fa1} current held"),
        format!("203.0.113.7 {fa2} standby held"),
    ];
    assert_eq!(column(&said, "keys", &keys), expected);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0]);
    assert_eq!(column(&status(&mut net, MH, now), "keys", &keys), [""; 0]);

    // It ended its registration, and all are told.
    let gone = Event::Unbound {
        home: Ipv4Addr::new(203, 0, 113, 7),
        care_of: fa1,
        identification: Identification(1),
        reason: Reason::Deregistered,
        seen: Vec::new(),
    };
    net.nodes[HA].engine.mobile_event(&gone, now);
    net.until("zone 1 nowhere", |nodes| {
        FA.iter().all(|fa| relays(&nodes[*fa]).0 == 0) && nodes[HA].engine.counters.revoked == 2
    })
    .await;
    let now = net.now();
    assert_eq!(column(&status(&mut net, HA, now), "keys", &keys), [""; 0]);
}

#[tokio::test]
async fn a_foreign_agent_that_does_not_take_keys_is_an_alarm_at_the_home_agent_until_it_does() {
    let test = 41;
    let mut net = agents(test, "predistribute = false\n", "", 1).await;
    // The home agent believes that the host is there; it has relayed nothing, and refuses.
    let bound = |care_of| Event::Bound {
        home: Ipv4Addr::new(203, 0, 113, 7),
        care_of,
        previous: None,
        named: None,
        identification: mml_mip::Identification(1),
        lifetime: 600,
    };
    let fa = at(test, FA[0]);
    let now = net.now();
    net.nodes[HA].engine.mobile_event(&bound(fa), now);
    let registered = Event::Registered {
        agent: fa,
        care_of: fa,
        identification: mml_mip::Identification(1),
        lifetime: 600,
        took: Duration::ZERO,
        arrived: Vec::new(),
    };
    net.nodes[MH].engine.mobile_event(&registered, now);
    net.until("a CSA that the agent doesn't take", |nodes| {
        whole(&nodes[MH]) && nodes[HA].engine.counters.distribution_failed > 0
    })
    .await;
    let now = net.now();
    let keys = ["foreign_agent", "as", "state"];
    let said = status(&mut net, HA, now);
    assert_eq!(
        column(&said, "keys", &keys),
        [format!("{fa} current not-taken")]
    );
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0], "not yet");
    // By the clock of its own that it is given.
    let said = status(&mut net, HA, now + AFTER);
    let alarms = column(&said, "alarms", &["alarm", "severe"]);
    assert_eq!(alarms, ["not-distributed true"]);
    let engine = &net.nodes[HA].engine;
    assert_eq!((engine.counters.alarms, engine.alarm_count()), (1, 1));
    let page = metrics::render(engine);
    assert!(page.contains("\nkeyd_active_alarms 1\n") && page.contains("\nkeyd_alarms_total 1\n"));

    net.registers(test, 0, None, 2);
    net.until("zone 1 there", |nodes| relays(&nodes[FA[0]]) == (2, false))
        .await;
    net.run(Duration::from_millis(200)).await;
    let now = net.now();
    assert_eq!(
        column(&status(&mut net, HA, now), "alarms", &["alarm"]),
        [""; 0]
    );
}

#[tokio::test]
async fn a_foreign_agent_that_does_not_confirm_a_revocation_is_an_alarm_until_it_is_asked_again() {
    let test = 44;
    let mut net = agents(test, "predistribute = false\n", "", 1).await;
    net.registers(test, 0, None, 1);
    net.until("zone 1 there", |nodes| relays(&nodes[FA[0]]) == (2, false))
        .await;
    // No way to ask it.
    let now = net.now();
    let delete = Request::Delete { what: "fa1".into() };
    net.nodes[HA].engine.command(&delete, now).unwrap();
    net.until("no IKE SA between them", |nodes| {
        nodes[FA[0]].engine.book().ikes.is_empty() && nodes[HA].engine.book().ikes.len() == 1
    })
    .await;
    let fa = at(test, FA[0]);
    let gone = Event::Unbound {
        home: Ipv4Addr::new(203, 0, 113, 7),
        care_of: fa,
        identification: Identification(1),
        reason: Reason::Deregistered,
        seen: Vec::new(),
    };
    let now = net.now();
    net.nodes[HA].engine.mobile_event(&gone, now);
    assert_eq!(net.nodes[HA].engine.counters.revocation_unconfirmed, 1);
    let keys = ["foreign_agent", "as", "state"];
    let said = status(&mut net, HA, now);
    let may_have = [format!("{fa} former not-confirmed")];
    assert_eq!(column(&said, "keys", &keys), may_have);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0], "not yet");
    let said = status(&mut net, HA, now + AFTER);
    let alarms = column(&said, "alarms", &["alarm", "severe"]);
    assert_eq!(alarms, ["not-revoked true"]);
    assert_eq!(relays(&net.nodes[FA[0]]).0, 2, "it has them indeed");

    let now = net.now();
    let initiate = Request::Initiate {
        name: "fa1".into(),
        wait: 0,
    };
    net.nodes[HA].engine.command(&initiate, now).unwrap();
    net.until("zone 1 nowhere", |nodes| {
        relays(&nodes[FA[0]]).0 == 0 && nodes[HA].engine.counters.revoked == 1
    })
    .await;
    let now = net.now() + AFTER * 2;
    let said = status(&mut net, HA, now);
    assert_eq!(column(&said, "keys", &keys), [""; 0]);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0]);
}

#[tokio::test]
async fn a_visitor_whose_esp_passes_without_a_csa_is_an_alarm_at_its_foreign_agent_until_one_comes()
{
    let test = 42;
    let mut net = agents(test, "predistribute = false\n", "", 1).await;
    let visiting = Event::Visiting {
        home: Ipv4Addr::new(203, 0, 113, 7),
        home_agent: at(test, HA),
        care_of: at(test, FA[0]),
        identification: mml_mip::Identification(1),
        previous: None,
        lifetime: 600,
        renewed: false,
    };
    let now = net.now();
    net.nodes[FA[0]].engine.mobile_event(&visiting, now);
    let columns = ["home", "csas", "opened", "unopened", "without_csa_seconds"];
    let said = status(&mut net, FA[0], now);
    assert_eq!(column(&said, "coverage", &columns), ["203.0.113.7 0 0 0 0"]);
    net.nodes[FA[0]].mml.state().relayed = counted(4, &[]);
    let said = status(&mut net, FA[0], now + AFTER - Duration::from_secs(1));
    assert_eq!(said["esp_without_csa"], 4);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0]);
    let said = status(&mut net, FA[0], now + AFTER);
    let alarms = column(&said, "alarms", &["alarm", "severe", "age_seconds"]);
    assert_eq!(alarms, ["unopened true 10"]);
    let page = metrics::render(&net.nodes[FA[0]].engine);
    for line in [
        "keyd_visitors 1",
        "keyd_visitors_without_csa 1",
        "keyd_esp_without_csa_total 4",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{page}");
    }

    net.registers(test, 0, None, 2);
    net.until("zone 1 there", |nodes| relays(&nodes[FA[0]]) == (2, false))
        .await;
    let now = net.now() + AFTER * 2;
    let said = status(&mut net, FA[0], now);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0]);
    let columns = ["home", "csas", "without_csa_seconds"];
    assert_eq!(column(&said, "coverage", &columns), ["203.0.113.7 1 null"]);
}

#[tokio::test]
async fn what_an_interface_carries_stands_in_the_status_until_it_carries_enough() {
    let test = 43;
    let mut net = agents(test, "", "", 1).await;
    let now = net.now();
    let advice = Advice::of("wl1", Way::Air, 1300).unwrap();
    net.nodes[FA[0]].engine.advised(vec![advice.clone()], now);
    net.nodes[FA[0]].engine.advised(vec![advice], now);
    assert_eq!(net.nodes[FA[0]].engine.counters.alarms, 1, "once");
    let said = status(&mut net, FA[0], now);
    assert_eq!(column(&said, "alarms", &["alarm", "severe"]), ["mtu false"]);
    net.nodes[FA[0]].engine.advised(Vec::new(), now);
    let said = status(&mut net, FA[0], now);
    assert_eq!(column(&said, "alarms", &["alarm"]), [""; 0]);
}
