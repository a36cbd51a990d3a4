// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What key management makes of Mobile IP's events: who gets zone 1's keys when a host moves.

use super::agents::texts;
use super::net::{address, folder, Net, Node};
use keyd::daemon::control::Request;
use keyd::daemon::engine::{Order, Recall};
use mml_ike::wire as ike;
use mml_mip::{Event, Handover, HandoverKey, Identification, Predecessor, Reason, Seen};
use pfkey::Role;
use std::net::Ipv4Addr;
use std::time::Duration;

pub const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The nodes, by their place.
pub const HA: usize = 0;
pub const MH: usize = 1;
pub const FA: [usize; 2] = [2, 3];

pub fn at(test: u8, node: usize) -> Ipv4Addr {
    let number = u8::try_from(node + 1).unwrap();
    address(test, number).parse().unwrap()
}

/// Home agent, mobile host and two foreign agents that are neighbours. Does the home agent give keys beforehand?
pub async fn four(test: u8, beforehand: bool) -> Net {
    agents(test, &format!("predistribute = {beforehand}\n"), "", 2).await
}

/// Their files, and the folder with their secrets.
pub fn files(
    test: u8,
    at_home: &str,
    abroad: &str,
    count: usize,
) -> (Vec<String>, tempfile::TempDir) {
    let folder = folder();
    let text = |node: usize| at(test, node).to_string();
    let foreign: Vec<String> = (0..count).map(|fa| text(FA[0] + fa)).collect();
    let more = [at_home, abroad];
    let all = texts(folder.path(), &text(HA), &text(MH), &foreign, more);
    (all, folder)
}

/// Home agent, mobile host and so many foreign agents, each the others' neighbour; what `[mobile-ip]` has besides at the
/// home agent, and at each foreign agent.
pub async fn agents(test: u8, at_home: &str, abroad: &str, count: usize) -> Net {
    let (texts, folder) = files(test, at_home, abroad, count);
    let mut net = Net::new();
    for text in &texts {
        net.start(text, folder.path()).await;
    }
    net.until("agents that speak with each other", |nodes| {
        let mut fas = nodes[FA[0]..].iter();
        fas.all(|fa| fa.engine.book().ikes.len() == count)
    })
    .await;
    net
}

impl Net {
    pub fn happens(&mut self, node: usize, event: &Event) {
        let now = self.now();
        self.nodes[node].engine.mobile_event(event, now);
    }

    /// A registration as its nodes see it, one after the other.
    pub fn registers(&mut self, test: u8, fa: usize, previous: Option<Predecessor>, number: u64) {
        let (care_of, home_agent) = (at(test, FA[fa]), at(test, HA));
        let identification = Identification(number);
        let address = previous.as_ref().map(|previous| previous.address);
        let named = previous.clone();
        let relayed = Event::Relayed {
            home: HOME,
            home_agent,
            identification,
            previous,
        };
        let bound = Event::Bound {
            home: HOME,
            care_of,
            previous: address,
            named,
            identification,
            lifetime: 600,
        };
        let visiting = Event::Visiting {
            home: HOME,
            home_agent,
            care_of,
            identification,
            previous: address,
            lifetime: 600,
            renewed: false,
        };
        let registered = Event::Registered {
            agent: care_of,
            care_of,
            identification,
            lifetime: 600,
            took: Duration::ZERO,
            arrived: Vec::new(),
        };
        self.happens(FA[fa], &relayed);
        self.happens(HA, &bound);
        self.happens(FA[fa], &visiting);
        self.happens(MH, &registered);
    }
}

/// SAs at a foreign agent: none, or both directions of one CSA; and whether they wait.
pub fn relays(node: &Node) -> (usize, bool) {
    let state = node.mml.state();
    assert!(state.sas.iter().all(|sa| sa.id.role == Role::Relay));
    (state.sas.len(), state.sas.iter().any(|sa| sa.standby))
}

pub fn whole(node: &Node) -> bool {
    node.mml.state().sas.len() == 2
}

/// docs/wire.md 3.1g, 3.2k.
#[tokio::test]
async fn keys_follow_the_host_and_leave_with_it() {
    let test = 60;
    let mut net = four(test, false).await;
    net.run(Duration::from_millis(200)).await;
    assert!(
        net.nodes[MH].engine.book().starting.is_empty(),
        "the host speaks before it is registered"
    );
    net.registers(test, 0, None, 1);
    net.until("a CSA, and zone 1 at the first", |nodes| {
        whole(&nodes[HA]) && whole(&nodes[MH]) && relays(&nodes[FA[0]]) == (2, false)
    })
    .await;
    assert_eq!(relays(&net.nodes[FA[1]]).0, 0, "nothing beforehand");
    let spis = |net: &Net| -> Vec<u32> {
        let state = net.nodes[HA].mml.state();
        state.sas.iter().map(|sa| sa.id.spi).collect()
    };
    let before = spis(&net);
    net.registers(test, 1, None, 2);
    net.until("zone 1 at the second alone", |nodes| {
        relays(&nodes[FA[1]]) == (2, false) && relays(&nodes[FA[0]]).0 == 0
    })
    .await;
    assert_eq!(spis(&net), before, "it is the same CSA");
    let gone = Event::Unbound {
        home: HOME,
        care_of: at(test, FA[1]),
        identification: Identification(1),
        reason: Reason::Deregistered,
        seen: Vec::new(),
    };
    net.happens(HA, &gone);
    net.until("zone 1 nowhere", |nodes| relays(&nodes[FA[1]]).0 == 0)
        .await;
}

/// docs/wire.md 3.1e.
#[tokio::test]
async fn neighbours_have_keys_beforehand_and_use_them_when_the_host_comes() {
    let test = 61;
    let mut net = four(test, true).await;
    net.registers(test, 0, None, 1);
    net.until("zone 1 at both, one waiting", |nodes| {
        let waits = relays(&nodes[FA[0]]) == (2, false) && relays(&nodes[FA[1]]) == (2, true);
        waits && nodes[HA].engine.counters.distributed == 2
    })
    .await;
    net.registers(test, 1, None, 2);
    assert_eq!(relays(&net.nodes[FA[1]]), (2, false), "at once");
    net.run(Duration::from_millis(300)).await;
    assert_eq!(net.nodes[HA].engine.counters.distributed, 2, "nothing more");
    assert_eq!(relays(&net.nodes[FA[0]]).0, 2, "it is a neighbour, too");
}

/// docs/wire.md 3.1f, 3.2i, 3.2j.
#[tokio::test]
async fn the_previous_foreign_agent_hands_keys_on_for_a_right_token_alone() {
    let test = 62;
    let mut net = four(test, false).await;
    net.registers(test, 0, None, 1);
    net.until("a CSA, and zone 1 at the first", |nodes| {
        whole(&nodes[MH]) && relays(&nodes[FA[0]]) == (2, false)
    })
    .await;
    let keys = net.nodes[MH].engine.handover_keys();
    let (fa, key) = keys.into_iter().next_back().unwrap();
    let key: HandoverKey = key.expect("K_FA of the one it is at");
    assert_eq!(fa, at(test, FA[0]));
    let token = |number| {
        key.token(&Handover {
            new_fa: at(test, FA[1]),
            home: HOME,
            identification: Identification(number),
        })
    };
    // The home agent hears of nothing: what comes, comes from the previous one.
    for (number, token, given) in [(2, token(9), false), (3, token(3), true)] {
        let relayed = Event::Relayed {
            home: HOME,
            home_agent: at(test, HA),
            identification: Identification(number),
            previous: Some(named(fa, token)),
        };
        net.happens(FA[1], &relayed);
        net.run(Duration::from_millis(300)).await;
        let has = relays(&net.nodes[FA[1]]);
        assert_eq!(has, (if given { 2 } else { 0 }, false), "number {number}");
        let counted = net.nodes[FA[1]].engine.counters.handed_on;
        assert_eq!(counted, u64::from(given));
    }
}

/// docs/wire.md 3.2l, 3.2m.
#[tokio::test]
async fn strangers_get_nothing_and_a_host_that_was_not_relayed_brings_nothing() {
    let test = 63;
    let mut net = four(test, false).await;
    // The home agent believes that the host is at an agent that has relayed nothing.
    let bound = |care_of| Event::Bound {
        home: HOME,
        care_of,
        previous: None,
        named: None,
        identification: Identification(1),
        lifetime: 600,
    };
    net.happens(HA, &bound(at(test, FA[0])));
    let registered = Event::Registered {
        agent: at(test, FA[0]),
        care_of: at(test, FA[0]),
        identification: Identification(1),
        lifetime: 600,
        took: Duration::ZERO,
        arrived: Vec::new(),
    };
    net.happens(MH, &registered);
    net.until("a CSA that the agent doesn't take", |nodes| {
        whole(&nodes[MH]) && nodes[HA].engine.counters.distribution_failed > 0
    })
    .await;
    assert_eq!(relays(&net.nodes[FA[0]]).0, 0);
    // Whose address no [[foreign-agent]] has isn't given anything.
    net.happens(HA, &bound(Ipv4Addr::new(127, 77, test, 99)));
    net.run(Duration::from_millis(300)).await;
    assert_eq!(net.nodes[HA].engine.counters.distributed, 0);
    assert!(FA.iter().all(|fa| relays(&net.nodes[*fa]).0 == 0));
}

/// docs/wire.md 3.1e, 3.2l: whom a foreign agent names, and the home agent doesn't know so.
#[tokio::test]
async fn neighbours_that_the_home_agent_does_not_know_by_that_name_and_address_get_nothing() {
    let test = 70;
    let folder = folder();
    let text = |node: usize| at(test, node).to_string();
    let [first, second, third] = [2, 3, 4].map(text);
    let foreign = [&first, &second, &third].map(String::clone);
    let mut texts = texts(folder.path(), &text(HA), &text(MH), &foreign, ["", ""]);
    let named = |identity: &str, address: &str| {
        format!("[[neighbour]]\nidentity = \"{identity}\"\naddresses = [\"{address}\"]\n")
    };
    let nobody = address(test, 99);
    // The third one is named by a stranger's address, and its own is given out as the second's.
    let honest = named("fa3.test", &third);
    assert!(texts[FA[0]].contains(&honest));
    let strangers = [
        named("fa3.test", &nobody),
        named("fa2.test", &third),
        named("mallory.test", &nobody),
        named("mallory.test", &third),
        named("ha.test", &text(HA)),
        named("fa1.test", &first),
    ];
    texts[FA[0]] = texts[FA[0]].replace(&honest, &strangers.concat());
    let mut net = Net::new();
    for text in &texts {
        net.start(text, folder.path()).await;
    }
    net.until("agents that speak with each other", |nodes| {
        let mut fas = nodes[FA[0]..].iter();
        fas.all(|fa| fa.engine.book().ikes.len() == 3)
    })
    .await;
    net.registers(test, 0, None, 1);
    net.until("zone 1 at the first and the one it may name", |nodes| {
        relays(&nodes[FA[0]]) == (2, false) && relays(&nodes[FA[1]]) == (2, true)
    })
    .await;
    net.run(Duration::from_millis(500)).await;
    assert_eq!(relays(&net.nodes[FA[1] + 1]).0, 0, "nothing for the third");
    assert_eq!(whole(&net.nodes[HA]), whole(&net.nodes[MH]));
    let now = net.now();
    let status = net.nodes[HA].engine.command(&Request::Status, now).unwrap();
    let holders = status["keys"].as_array().unwrap().iter();
    let holders: Vec<_> = holders
        .map(|one| {
            (
                one["foreign_agent"].as_str().unwrap(),
                one["as"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        holders,
        [(first.as_str(), "current"), (second.as_str(), "standby")],
        "nobody else is even asked"
    );
    assert_eq!(net.nodes[HA].engine.counters.distributed, 2);
    assert_eq!(net.nodes[HA].engine.counters.distribution_failed, 0);
}

/// Who had a host before, by its registration.
pub fn named(address: Ipv4Addr, token: Vec<u8>) -> Predecessor {
    Predecessor {
        address,
        token,
        seen: Vec::new(),
    }
}

/// What a node's Mobile IP is told to do, done.
pub fn obeys(net: &mut Net, node: usize) -> Vec<Order> {
    let now = net.now();
    let engine = &mut net.nodes[node].engine;
    let orders = engine.orders();
    for order in &orders {
        engine.ordered(order, true, now);
    }
    orders
}

/// What a kernel was asked to send that it held, by SPI.
fn resent(node: &Node) -> usize {
    let log = &node.mml.state().log;
    log.iter().filter(|line| line.starts_with("resend")).count()
}

/// docs/wire.md 2.3h, 3.1h, 3.1l, 3.2y, 3.2z.
#[tokio::test]
async fn what_the_previous_foreign_agent_holds_follows_for_a_right_token_alone() {
    let test = 64;
    let mut net = four(test, true).await;
    // The way between neighbours is there before anybody comes.
    for (here, there) in [(FA[0], FA[1]), (FA[1], FA[0])] {
        let orders = obeys(&mut net, here);
        assert_eq!(orders, [Order::LetIn(at(test, there))]);
    }
    net.registers(test, 0, None, 1);
    net.until("zone 1 at both, one waiting", |nodes| {
        relays(&nodes[FA[0]]) == (2, false) && relays(&nodes[FA[1]]) == (2, true)
    })
    .await;
    // Held is what goes to the host, at its foreign agents, and what it sends itself.
    let holds = |node: &Node| {
        let state = node.mml.state();
        let holding = state.sas.iter().filter(
            |sa| matches!(&sa.keys, keyd::daemon::kernel::Keys::Zones(zones) if zones.relay.hold),
        );
        let ends: Vec<_> = holding.map(|sa| (sa.id.src, sa.id.dst)).collect();
        ends
    };
    let (ha, mh) = (at(test, HA).into(), at(test, MH).into());
    assert_eq!(holds(&net.nodes[FA[0]]), [(ha, mh)]);
    assert_eq!(holds(&net.nodes[FA[1]]), [(ha, mh)]);
    assert_eq!(holds(&net.nodes[MH]), [(mh, ha)]);
    assert!(holds(&net.nodes[HA]).is_empty());

    let keys = net.nodes[MH].engine.handover_keys();
    let (fa, key) = keys.into_iter().next_back().unwrap();
    let key: HandoverKey = key.expect("K_FA of the one it is at");
    let token = |number| {
        key.token(&Handover {
            new_fa: at(test, FA[1]),
            home: HOME,
            identification: Identification(number),
        })
    };
    let to_mh = {
        let state = net.nodes[FA[0]].mml.state();
        let held = state.sas.iter().find(|sa| sa.id.dst == mh);
        held.expect("a CSA to the host").id.spi
    };
    let moves = |net: &mut Net, number: u64, token| {
        // Of its own CSA, and of one that isn't there.
        let seen = [(to_mh, 77), (!to_mh, 78)].map(|(spi, number)| Seen { spi, number });
        let previous = Some(Predecessor {
            seen: seen.into(),
            ..named(fa, token)
        });
        net.registers(test, 1, previous, number);
    };
    // Of another registration: the previous one does nothing.
    moves(&mut net, 2, token(9));
    net.run(Duration::from_millis(300)).await;
    assert!(obeys(&mut net, FA[0]).is_empty());
    moves(&mut net, 3, token(3));
    net.run(Duration::from_millis(300)).await;
    let orders = obeys(&mut net, FA[0]);
    let [Order::Follow(follow)] = orders.as_slice() else {
        panic!("{orders:?}");
    };
    assert_eq!((follow.home, follow.care_of), (HOME, at(test, FA[1])));
    let log = net.nodes[FA[0]].mml.state().log.clone();
    let resent_by_it: Vec<_> = log
        .iter()
        .filter(|line| line.starts_with("resend"))
        .collect();
    let [one] = resent_by_it.as_slice() else {
        panic!("its CSA's direction to the host: {resent_by_it:?}");
    };
    assert!(
        one.contains(&format!("{to_mh:#010x}")) && one.ends_with("behind 77"),
        "{one}"
    );
    assert_eq!(net.nodes[FA[0]].engine.counters.handed_over, 1);
    assert!(
        resent(&net.nodes[MH]) > 0,
        "the host's own, as it registered"
    );
    // A registration that was replayed at the new one brings nothing more.
    moves(&mut net, 3, token(3));
    net.run(Duration::from_millis(300)).await;
    assert!(obeys(&mut net, FA[0]).is_empty());
    // The host came back, and whom it left asks with what it had signed for it before.
    net.registers(test, 0, None, 5);
    moves(&mut net, 4, token(4));
    net.run(Duration::from_millis(300)).await;
    assert!(obeys(&mut net, FA[0]).is_empty());
}

/// docs/wire.md 4d.
#[tokio::test]
async fn a_mobile_host_tells_the_last_number_of_the_csa_that_leads_to_it() {
    let test = 49;
    let mut net = four(test, true).await;
    assert_eq!(net.nodes[MH].engine.seen(None), [], "it has no CSA yet");
    net.registers(test, 0, None, 1);
    net.until("a CSA", |nodes| whole(&nodes[MH])).await;
    let mh = at(test, MH);
    let number = 1 << 34;
    let spi = {
        let mut state = net.nodes[MH].mml.state();
        let inbound = state.sas.iter().find(|sa| sa.id.dst == mh);
        let spi = inbound.expect("a CSA to it").id.spi;
        state.sequences.insert(spi, number);
        spi
    };
    assert_eq!(net.nodes[MH].engine.seen(None), [Seen { spi, number }]);
    // Agents have none of their own to tell of.
    assert_eq!(net.nodes[FA[0]].engine.seen(None), []);
}

/// docs/wire.md 3.2y.
#[tokio::test]
async fn what_is_held_is_asked_for_as_soon_as_it_can_be_taken_in_before_the_home_agent_has_answered(
) {
    // Keys beforehand, and from the previous foreign agent.
    for (test, beforehand) in [(38, true), (39, false)] {
        let mut net = four(test, beforehand).await;
        for fa in FA {
            obeys(&mut net, fa);
        }
        net.registers(test, 0, None, 1);
        net.until("zone 1 where it is wanted", |nodes| {
            let second = if beforehand { (2, true) } else { (0, false) };
            relays(&nodes[FA[0]]) == (2, false) && relays(&nodes[FA[1]]) == second
        })
        .await;
        let keys = net.nodes[MH].engine.handover_keys();
        let (address, key) = keys.into_iter().next_back().unwrap();
        let handover = Handover {
            new_fa: at(test, FA[1]),
            home: HOME,
            identification: Identification(2),
        };
        let token = key.expect("K_FA of the one it is at").token(&handover);
        let previous = Some(named(address, token));
        let relayed = Event::Relayed {
            home: HOME,
            home_agent: at(test, HA),
            identification: Identification(2),
            previous: previous.clone(),
        };
        net.happens(FA[1], &relayed);
        net.run(Duration::from_millis(300)).await;
        let orders = obeys(&mut net, FA[0]);
        assert!(
            matches!(orders.as_slice(), [Order::Follow(follow)] if follow.care_of == at(test, FA[1])),
            "{orders:?}"
        );
        // Accepted: it was asked already.
        net.registers(test, 1, previous, 2);
        net.run(Duration::from_millis(300)).await;
        assert!(obeys(&mut net, FA[0]).is_empty());
        assert_eq!(net.nodes[FA[0]].engine.counters.handed_over, 1);
    }
}

/// docs/wire.md 3.1h.
#[tokio::test]
async fn snoops_state_goes_along_to_the_csa_it_is_of() {
    // Keys given beforehand, and keys that come from the previous one, too.
    for (test, beforehand) in [(35, true), (36, false)] {
        let mut net = four(test, beforehand).await;
        obeys(&mut net, FA[0]);
        net.registers(test, 0, None, 1);
        let have = if beforehand { 2 } else { 0 };
        net.until("zone 1 at the first", |nodes| {
            relays(&nodes[FA[0]]).0 == 2 && relays(&nodes[FA[1]]).0 == have
        })
        .await;
        let spi = {
            let mut state = net.nodes[FA[0]].mml.state();
            let mh = at(test, MH);
            let to_mh = state.sas.iter().find(|sa| sa.id.dst == mh);
            let spi = to_mh.expect("a CSA to the host").id.spi;
            state.snoop.insert(spi, vec![7; 88]);
            spi
        };
        let keys = net.nodes[MH].engine.handover_keys();
        let (fa, key) = keys.into_iter().next_back().unwrap();
        let key: HandoverKey = key.expect("K_FA of the one it is at");
        let token = key.token(&Handover {
            new_fa: at(test, FA[1]),
            home: HOME,
            identification: Identification(2),
        });
        net.registers(test, 1, Some(named(fa, token)), 2);
        net.run(Duration::from_millis(300)).await;
        assert_eq!(obeys(&mut net, FA[0]).len(), 1);
        net.until("the state at the second", |nodes| {
            nodes[FA[1]].mml.state().snoop.get(&spi) == Some(&vec![7; 88])
        })
        .await;
        assert_eq!(net.nodes[FA[1]].engine.counters.flows_taken_over, 1);
        assert_eq!(net.nodes[FA[0]].engine.counters.flows_taken_over, 0);
    }
}

/// docs/wire.md 3.1h, 3.2y, 3.2z.
#[tokio::test]
async fn the_home_agent_asks_where_the_new_foreign_agent_cannot() {
    let test = 37;
    let mut net = four(test, true).await;
    obeys(&mut net, FA[0]);
    net.registers(test, 0, None, 1);
    net.until("zone 1 at both", |nodes| {
        relays(&nodes[FA[0]]).0 == 2 && relays(&nodes[FA[1]]).0 == 2
    })
    .await;
    let [ha, fa1, fa2] = [HA, FA[0], FA[1]].map(|node| at(test, node));
    let seen = vec![Seen { spi: 9, number: 7 }];
    let named = |address| Predecessor {
        seen: seen.clone(),
        ..named(address, vec![1; 32])
    };
    let bound = |to, from, by: Option<Ipv4Addr>, number| Event::Bound {
        home: HOME,
        care_of: to,
        previous: from,
        named: by.map(named),
        identification: Identification(number),
        lifetime: 600,
    };
    let recalled = |from, last, numbers: &[(u32, u64)]| {
        let seen = numbers
            .iter()
            .map(|&(spi, number)| ike::Seen { spi, number });
        [Order::Recall(Recall {
            home: HOME,
            from,
            identification: Identification(last),
            seen: seen.collect(),
        })]
    };
    assert!(obeys(&mut net, HA).is_empty());
    // Between neighbours, one of which the registration names, it leaves that to them; a renewal is no move.
    for (to, from, named) in [
        (fa2, Some(fa1), Some(fa1)),
        (fa1, Some(fa2), Some(fa2)),
        (fa1, None, None),
    ] {
        net.happens(HA, &bound(to, from, named, 2));
        assert!(obeys(&mut net, HA).is_empty());
    }
    // The host had no token, for its key manager was another one.
    net.happens(HA, &bound(fa2, Some(fa1), None, 3));
    assert_eq!(obeys(&mut net, HA), recalled(fa1, 3, &[]));
    net.run(Duration::from_millis(300)).await;
    let orders = obeys(&mut net, FA[0]);
    let [Order::Follow(follow)] = orders.as_slice() else {
        panic!("{orders:?}");
    };
    assert_eq!((follow.home, follow.care_of), (HOME, ha));
    assert_eq!(net.nodes[FA[0]].engine.counters.handed_over, 1);
    // Whom it went to is nobody's neighbour; or it is at home. What it has is told in both.
    let stranger = Ipv4Addr::new(127, 77, test, 99);
    net.happens(HA, &bound(stranger, Some(fa2), Some(fa2), 4));
    assert_eq!(obeys(&mut net, HA), recalled(fa2, 4, &[(9, 7)]));
    let unbound = |reason| Event::Unbound {
        home: HOME,
        care_of: fa1,
        identification: Identification(1),
        reason,
        seen: seen.clone(),
    };
    net.happens(HA, &unbound(Reason::ReturnedHome));
    assert_eq!(obeys(&mut net, HA), recalled(fa1, 1, &[(9, 7)]));
    net.run(Duration::from_millis(300)).await;
    assert_eq!(
        obeys(&mut net, FA[0]).len(),
        1,
        "before its CSA is taken away"
    );
    assert_eq!(relays(&net.nodes[FA[0]]).0, 2);
    net.until("zone 1 nowhere", |nodes| relays(&nodes[FA[0]]).0 == 0)
        .await;
    // One that ended its registration is nowhere.
    net.happens(HA, &unbound(Reason::Deregistered));
    assert!(obeys(&mut net, HA).is_empty());
}

/// An agent that isn't heard for a while may be heard again, and is then where the host is registered all the same.
#[tokio::test]
async fn a_host_that_hears_nobody_for_a_while_is_where_it_is_registered() {
    let test = 121;
    let mut net = four(test, false).await;
    net.registers(test, 0, None, 1);
    let place = |net: &Net| {
        let book = net.nodes[MH].engine.book();
        book.mobile.get(&HOME).and_then(|place| place.care_of)
    };
    net.happens(MH, &Event::Lost);
    assert_eq!(place(&net), Some(at(test, FA[0])));
    for over in [Event::Expired, Event::Left] {
        net.registers(test, 0, None, 2);
        assert!(place(&net).is_some());
        net.happens(MH, &over);
        assert_eq!(place(&net), None, "{over:?}");
    }
}
