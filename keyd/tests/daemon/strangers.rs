// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What others do in a host's name, or to what a foreign agent has of it: it keeps its keys, and they get none.

use super::mobile::{at, files, four, named, obeys, relays, FA, HA, HOME, MH};
use super::net::Net;
use keyd::daemon::config::Config;
use mml_mip::{Code, Event, Handover, Identification, Predecessor, Seen};
use std::time::Duration;

/// Keys are given beforehand.
const BEFOREHAND: &str = "predistribute = true\n";

fn relayed(test: u8, number: u64, previous: Predecessor) -> Event {
    Event::Relayed {
        home: HOME,
        home_agent: at(test, HA),
        identification: Identification(number),
        previous: Some(previous),
    }
}

/// The host at the first foreign agent; a token of its for the second.
async fn at_the_first(net: &mut Net, test: u8, number: u64) -> Predecessor {
    net.registers(test, 0, None, 1);
    net.until("zone 1 at the first", |nodes| {
        relays(&nodes[FA[0]]) == (2, false)
    })
    .await;
    let keys = net.nodes[MH].engine.handover_keys();
    let (fa, key) = keys.into_iter().next_back().unwrap();
    let key = key.expect("K_FA of the one it is at");
    let token = key.token(&Handover {
        new_fa: at(test, FA[1]),
        home: HOME,
        identification: Identification(number),
    });
    named(fa, token)
}

/// A stranger's request in its name, denied while the host's own is on its way.
#[tokio::test]
async fn a_denied_request_in_its_name_does_not_cost_a_host_its_keys() {
    let test = 110;
    let mut net = four(test, false).await;
    let care_of = at(test, FA[0]);
    let request = Event::Relayed {
        home: HOME,
        home_agent: at(test, HA),
        identification: Identification(1),
        previous: None,
    };
    net.happens(FA[0], &request);
    let denied = Event::Refused {
        home: HOME,
        code: Code::FA_MALFORMED_REQUEST,
    };
    net.happens(FA[0], &denied);
    let visiting = Event::Visiting {
        home: HOME,
        home_agent: at(test, HA),
        care_of,
        identification: Identification(1),
        previous: None,
        lifetime: 600,
        renewed: false,
    };
    let bound = Event::Bound {
        home: HOME,
        care_of,
        previous: None,
        named: None,
        identification: Identification(1),
        lifetime: 600,
    };
    let registered = Event::Registered {
        agent: care_of,
        care_of,
        identification: Identification(1),
        lifetime: 600,
        took: Duration::ZERO,
        arrived: Vec::new(),
    };
    net.happens(HA, &bound);
    net.happens(FA[0], &visiting);
    net.happens(MH, &registered);
    net.until("zone 1 where the host is", |nodes| {
        relays(&nodes[FA[0]]) == (2, false)
    })
    .await;
}

/// Each registration that names a previous foreign agent asks it something; anybody on the link can send some.
#[tokio::test]
async fn registrations_in_a_hosts_name_ask_a_neighbour_a_bounded_number_of_things() {
    let test = 111;
    let mut net = four(test, false).await;
    let right = at_the_first(&mut net, test, 500).await;
    let before = net.nodes[FA[1]].engine.counters.sent;
    for number in 2..400 {
        let forged = named(right.address, vec![9; 32]);
        net.happens(FA[1], &relayed(test, number, forged));
    }
    net.run(Duration::from_secs(1)).await;
    let asked = net.nodes[FA[1]].engine.counters.sent - before;
    assert!((1..30).contains(&asked), "{asked}");
    // Those are forgotten, and the host's own is asked with.
    net.run(Duration::from_secs(11)).await;
    net.happens(FA[1], &relayed(test, 500, right));
    net.until("zone 1 at the second, from the first", |nodes| {
        relays(&nodes[FA[1]]).0 == 2
    })
    .await;
}

/// docs/wire.md 4d.
#[tokio::test]
async fn what_was_seen_is_what_the_first_request_with_that_number_says() {
    let test = 112;
    let mut net = four(test, true).await;
    obeys(&mut net, FA[0]);
    let right = at_the_first(&mut net, test, 2).await;
    net.until("zone 1 at both", |nodes| relays(&nodes[FA[1]]).0 == 2)
        .await;
    let spi = {
        let state = net.nodes[FA[0]].mml.state();
        let mh = at(test, MH);
        let held = state.sas.iter().find(|sa| sa.id.dst == mh);
        held.expect("a CSA to the host").id.spi
    };
    let says = |number| Predecessor {
        seen: vec![Seen { spi, number }],
        ..right.clone()
    };
    net.happens(FA[1], &relayed(test, 2, says(77)));
    net.happens(FA[1], &relayed(test, 2, says(1 << 31)));
    net.registers(test, 1, Some(says(1 << 30)), 2);
    net.run(Duration::from_millis(300)).await;
    obeys(&mut net, FA[0]);
    let log = net.nodes[FA[0]].mml.state().log.clone();
    let resent: Vec<&String> = log
        .iter()
        .filter(|line| line.starts_with("resend"))
        .collect();
    assert!(
        matches!(resent.as_slice(), [one] if one.ends_with("behind 77")),
        "{resent:?}"
    );
}

/// One direction that the kernel refuses leaves the other in nobody's book: it doesn't stay.
#[tokio::test]
async fn a_csa_of_which_the_kernel_refuses_a_half_is_not_there_at_all() {
    let test = 113;
    let mut net = four(test, false).await;
    {
        let mut state = net.nodes[FA[0]].mml.state();
        (state.refuse, state.spared) = (Some(("add", 12)), 1);
    }
    net.registers(test, 0, None, 1);
    net.until("a refusal", |nodes| {
        nodes[FA[0]].engine.counters.install_failed == 1
    })
    .await;
    assert_eq!(relays(&net.nodes[FA[0]]).0, 0);
}

/// A previous foreign agent's host has come back: what its home agent asked before isn't done (docs/wire.md 3.2y).
#[tokio::test]
async fn what_a_home_agent_asks_too_late_does_not_lead_away_what_comes_for_a_host_that_is_back() {
    let test = 114;
    let mut net = four(test, true).await;
    obeys(&mut net, FA[0]);
    at_the_first(&mut net, test, 2).await;
    // Elsewhere and back, as the first foreign agent sees it, before the home agent's question of between gets there.
    let elsewhere = Event::Bound {
        home: HOME,
        care_of: at(test, 98),
        previous: Some(at(test, FA[0])),
        named: None,
        identification: Identification(2),
        lifetime: 600,
    };
    net.happens(HA, &elsewhere);
    let back = Event::Visiting {
        home: HOME,
        home_agent: at(test, HA),
        care_of: at(test, FA[0]),
        identification: Identification(3),
        previous: None,
        lifetime: 600,
        renewed: false,
    };
    net.happens(FA[0], &back);
    obeys(&mut net, HA);
    net.run(Duration::from_millis(300)).await;
    assert!(obeys(&mut net, FA[0]).is_empty());
    // One that the host was at before does it.
    net.happens(
        HA,
        &Event::Bound {
            home: HOME,
            care_of: at(test, 98),
            previous: Some(at(test, FA[0])),
            named: None,
            identification: Identification(4),
            lifetime: 600,
        },
    );
    obeys(&mut net, HA);
    net.run(Duration::from_millis(300)).await;
    assert_eq!(obeys(&mut net, FA[0]).len(), 1);
}

/// docs/wire.md 3.5b.
#[tokio::test]
async fn a_foreign_agent_that_is_taken_out_of_the_file_loses_its_keys_and_they_are_replaced() {
    let test = 115;
    let mut net = four(test, true).await;
    at_the_first(&mut net, test, 2).await;
    net.until("zone 1 at both", |nodes| relays(&nodes[FA[1]]).0 == 2)
        .await;
    let spis = |net: &Net, node: usize| -> Vec<u32> {
        let state = net.nodes[node].mml.state();
        state.sas.iter().map(|sa| sa.id.spi).collect()
    };
    let before = spis(&net, FA[0]);
    let (texts, folder) = files(test, BEFOREHAND, "", 2);
    let gone = texts[HA].find("[[foreign-agent]]\nname = \"fa2\"").unwrap();
    let rest = texts[HA][gone..]
        .find("[[connection]]\nname = \"mh\"")
        .unwrap();
    let without = format!("{}{}", &texts[HA][..gone], &texts[HA][gone + rest..]);
    let config = Config::parse("keyd.toml", &without, folder.path()).unwrap();
    let now = net.now();
    net.nodes[HA].engine.reload(config, now).unwrap();
    net.until("no key at the one that is out, others elsewhere", |nodes| {
        let fresh = |spi: &u32| !before.contains(spi);
        let state = nodes[FA[0]].mml.state();
        let spis: Vec<u32> = state.sas.iter().map(|sa| sa.id.spi).collect();
        relays(&nodes[FA[1]]).0 == 0 && spis.iter().filter(|spi| fresh(spi)).count() == 2
    })
    .await;
    assert_eq!(net.nodes[HA].engine.counters.renewed, 1);
}

/// docs/wire.md 3.1e.
#[tokio::test]
async fn neighbours_that_a_file_has_no_more_are_told_the_home_agent_and_lose_their_standby_csas() {
    let test = 116;
    let mut net = four(test, true).await;
    at_the_first(&mut net, test, 2).await;
    net.until("zone 1 at both", |nodes| relays(&nodes[FA[1]]).0 == 2)
        .await;
    let (texts, folder) = files(test, BEFOREHAND, "", 2);
    let text = &texts[FA[0]];
    let without = &text[..text.find("[[neighbour]]").unwrap()];
    let config = Config::parse("keyd.toml", without, folder.path()).unwrap();
    let now = net.now();
    net.nodes[FA[0]].engine.reload(config, now).unwrap();
    net.until("no key at whom nobody names", |nodes| {
        relays(&nodes[FA[1]]).0 == 0
    })
    .await;
    assert_eq!(relays(&net.nodes[FA[0]]), (2, false));
}

/// What stands in `[mobile-ip]` decides when keys are replaced (docs/wire.md 3.5a).
#[tokio::test]
async fn keys_are_replaced_when_a_foreign_agent_is_left_if_the_file_says_so() {
    for (test, at_home, fresh) in [
        (117, "rekey-after-handoff = true\n", true),
        (118, "rekey-holders = 1\n", true),
        (119, "", false),
    ] {
        let at_home = format!("predistribute = false\n{at_home}");
        let mut net = super::mobile::agents(test, &at_home, "", 2).await;
        let previous = at_the_first(&mut net, test, 2).await;
        let spis = |net: &Net| -> Vec<u32> {
            let state = net.nodes[HA].mml.state();
            state.sas.iter().map(|sa| sa.id.spi).collect()
        };
        let before = spis(&net);
        net.registers(test, 1, Some(previous), 2);
        net.until("zone 1 at the second alone", |nodes| {
            relays(&nodes[FA[0]]).0 == 0 && relays(&nodes[FA[1]]).0 >= 2
        })
        .await;
        net.run(Duration::from_secs(3)).await;
        let others = spis(&net)
            .iter()
            .filter(|spi| !before.contains(spi))
            .count();
        assert_eq!(others, if fresh { 2 } else { 0 }, "{at_home}");
        assert_eq!(net.nodes[HA].engine.counters.renewed, u64::from(fresh));
        assert_eq!(relays(&net.nodes[FA[0]]).0, 0, "{at_home}");
    }
}

#[test]
fn a_number_of_holders_that_lets_nobody_have_keys_is_refused_with_what_to_write() {
    let (texts, folder) = files(120, BEFOREHAND, "", 2);
    let wrong = texts[HA].replace("[mobile-ip]\n", "[mobile-ip]\nrekey-holders = 0\n");
    let error = Config::parse("keyd.toml", &wrong, folder.path()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("rekey-holders") && error.contains("rekey-after-handoff"),
        "{error}"
    );
    // At a foreign agent it is of no use.
    let wrong = texts[FA[0]].replace("[mobile-ip]\n", "[mobile-ip]\nrekey-holders = 3\n");
    let error = Config::parse("keyd.toml", &wrong, folder.path()).unwrap_err();
    assert!(error.to_string().contains("rekey-holders"), "{error}");
}
