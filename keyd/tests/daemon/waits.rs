// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl initiate --wait`: an answer when it is up, when it won't come up, or when it has taken too long.

use super::negotiate::{pair, start};
use super::net::{address, connection, node, secret, Net};
use keyd::daemon::control::{Answer, Request};
use keyd::daemon::waits::Waits;
use std::time::Duration;
use tokio::sync::oneshot::{self, Receiver};

const MH: usize = 1;

/// A home agent, and a host that begins nothing by itself; what goes into the tunnels of each.
fn idle(test: u8, ha: &str, mh: &str) -> [String; 2] {
    let [home, _] = pair(test, ha, "");
    let to_ha = format!("start = \"peer\"\n[connection.tunnel]\nlocal = \"203.0.113.7/32\"\n{mh}");
    let own = address(test, 2);
    let host =
        node("mh", "mh.test", &own) + &connection("ha", &address(test, 1), "ha.test", &to_ha);
    [home, host]
}

/// Begins it, and waits as the daemon does.
fn begin(net: &mut Net, waits: &mut Waits, seconds: u64) -> Receiver<Answer> {
    let request = Request::Initiate {
        name: "ha".into(),
        wait: seconds,
    };
    let now = net.now();
    let begun = net.nodes[MH].engine.command(&request, now).unwrap();
    assert_eq!(begun["begun"], "ike");
    let (answer, answered) = oneshot::channel();
    waits.add("ha", seconds, answer, now);
    waits.settle(&net.nodes[MH].engine, now);
    assert_eq!(
        waits.next_deadline(),
        Some(now + Duration::from_secs(seconds))
    );
    answered
}

/// The answer, as soon as there is one.
async fn answer(net: &mut Net, waits: &mut Waits, mut answered: Receiver<Answer>) -> Answer {
    let start = net.now();
    let mut answer = None;
    net.until("an answer", |nodes| {
        waits.settle(&nodes[MH].engine, start);
        answer = answered.try_recv().ok();
        answer.is_some()
    })
    .await;
    answer.unwrap()
}

#[tokio::test]
async fn who_waits_hears_as_soon_as_it_is_up() {
    let mut net = start(idle(70, "", "")).await;
    let mut waits = Waits::default();
    let answered = begin(&mut net, &mut waits, 20);
    let Answer::Done(status) = answer(&mut net, &mut waits, answered).await else {
        panic!("it is not up")
    };
    assert_eq!(
        (&status["name"], &status["state"]),
        (&"ha".into(), &"up".into())
    );
    assert_eq!(status["children"], 1, "with its tunnel");
    assert_eq!(waits.next_deadline(), None);
}

#[tokio::test]
async fn who_waits_hears_at_once_why_the_tunnel_is_refused() {
    let mut net = start(idle(71, "zones = \"off\"\n", "zones = \"required\"\n")).await;
    let mut waits = Waits::default();
    let answered = begin(&mut net, &mut waits, 20);
    let Answer::Refused(why) = answer(&mut net, &mut waits, answered).await else {
        panic!("it is up")
    };
    assert!(why.starts_with("ha: ") && why.contains("zones"), "{why}");
    let now = net.now();
    let status = net.nodes[MH].engine.command(&Request::Status, now).unwrap();
    let failure = status["connections"][0]["failure"].as_str().unwrap();
    assert_eq!(format!("ha: {failure}"), why, "and so does the status");
}

#[tokio::test]
async fn who_waits_hears_at_once_that_the_secret_is_wrong() {
    let [ha, mh] = idle(72, "", "");
    let (right, wrong) = (super::net::folder(), super::net::folder());
    secret(wrong.path(), "psk", "0x100102030405060708090a0b0c0d0e0f\n");
    let mut net = Net::new();
    net.start(&ha, right.path()).await;
    net.start(&mh, wrong.path()).await;
    let mut waits = Waits::default();
    let answered = begin(&mut net, &mut waits, 20);
    let answer = answer(&mut net, &mut waits, answered).await;
    let refused = matches!(&answer, Answer::Refused(why) if why.contains("AUTHENTICATION_FAILED"));
    assert!(refused, "{answer:?}");
}

#[tokio::test]
async fn who_waits_for_a_peer_that_is_silent_hears_when_the_time_is_over() {
    let mut net = start(idle(73, "", "")).await;
    let mut waits = Waits::default();
    let mut answered = begin(&mut net, &mut waits, 3);
    let now = net.now();
    waits.settle(&net.nodes[MH].engine, now + Duration::from_millis(2900));
    assert!(answered.try_recv().is_err(), "not yet");
    waits.settle(&net.nodes[MH].engine, now + Duration::from_secs(4));
    let said = answered.try_recv().unwrap();
    assert_eq!(said, Answer::Refused("ha: not up within 3 s".into()));
    // Who has gone is forgotten.
    let (answer, gone) = oneshot::channel();
    waits.add("ha", 10, answer, now);
    drop(gone);
    waits.settle(&net.nodes[MH].engine, now);
    assert_eq!(waits.next_deadline(), None);
}
