// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the previous FA hands on: a CSA, what it holds, SNOOP's state; to whom, and once.

mod common;

use common::four::*;
use common::sim::*;
use mml_ike::event::Event;
use mml_ike::secret::Secret;
use mml_ike::wire::{Ask, Seen, SnoopState, MAX_STATES};

/// docs/wire.md 3.2j.
#[test]
fn the_previous_fa_gives_nothing_for_a_token_of_before_the_host_was_there_again() {
    // One that was used, and the host came back.
    let mut net = roaming(90, &[]);
    register(&mut net, FA2);
    let used = ask(&net, 100);
    assert!(request(&mut net, used.clone()));
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(2 * SECOND);
    relays(&mut net, Some(FA1_ADDRESS), &[]);
    net.at(FA1, |e, _, _| e.arrived(ip(HOME), 200));
    net.run(2 * SECOND);
    assert!(!request(&mut net, used));
    // One that never was.
    let mut net = roaming(91, &[]);
    register(&mut net, FA2);
    net.at(FA1, |e, _, _| e.arrived(ip(HOME), 200));
    let unused = ask(&net, 100);
    assert!(!request(&mut net, unused));
    let newer = ask(&net, 300);
    assert!(request(&mut net, newer));
}

/// docs/wire.md 1.5e, 3.1f, 3.2k, 3.2n.
#[test]
fn a_new_fa_gets_the_csa_from_the_previous_one_by_the_hosts_token() {
    let mut net = roaming(50, &[]);
    register(&mut net, FA2);
    net.nodes[FA1].host.progress.sequence_out = 4711;
    let ask = ask(&net, 100);
    assert!(request(&mut net, ask));
    let relay = taken(&net.nodes[FA2])[0];
    assert_zone_1(relay, net.nodes[HA].child());
    assert_eq!(
        relay.identity.sequence_out, 4711,
        "it joins where the previous one is"
    );
    assert!(!relay.identity.may_write && relay.identity.relay_number == 0);
    // The HA's own copy takes its place, and may revoke it.
    relays(&mut net, Some(FA2_ADDRESS), &[]);
    net.run(SECOND);
    assert_eq!(taken(&net.nodes[FA2]).len(), 2);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
    relays(&mut net, None, &[]);
    net.run(SECOND);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::RelayDown(_))),
        1
    );
}

/// docs/wire.md 3.2j.
#[test]
fn the_previous_fa_gives_nothing_for_a_token_that_is_bent_old_or_anothers() {
    let mut net = roaming(51, &[]);
    register(&mut net, FA2);
    let good = ask(&net, 100);
    let mut bent = good.token.expose().to_vec();
    bent[0] ^= 1;
    let bad = [
        Ask {
            token: Secret::new(bent),
            ..good.clone()
        },
        Ask {
            token: Secret::default(),
            ..good.clone()
        },
        Ask {
            identification: 101,
            ..good.clone()
        },
        Ask {
            home: ip("203.0.113.6"),
            ..good.clone()
        },
        // Not the asker's own address.
        Ask {
            care_of: ip(FA1_ADDRESS),
            ..good.clone()
        },
    ];
    for ask in bad {
        assert!(!request(&mut net, ask.clone()), "{ask:?}");
    }
    assert!(taken(&net.nodes[FA2]).is_empty());
    assert!(request(&mut net, good.clone()));
    // Once; again to the same asker alone, and not for an older registration.
    assert!(request(&mut net, good));
    let older = ask(&net, 99);
    assert!(!request(&mut net, older));
    net.run(40 * SECOND);
    let newer = ask(&net, 200);
    assert!(
        !request(&mut net, newer),
        "it has forgotten what lets it be handed on"
    );
}

/// docs/wire.md 3.2j, 3.2v.
#[test]
fn an_fa_that_is_no_neighbour_gets_nothing_even_with_a_token() {
    let mut net = roaming(52, &[]);
    register(&mut net, FA2);
    let mut lonely = net.nodes[FA1].endpoint.config().clone();
    lonely.foreign.neighbours.clear();
    net.nodes[FA1] = Node::new(FA1_ADDRESS, lonely, 60);
    register(&mut net, FA1);
    // It comes back, with IKE SAs to both.
    net.initiate_as(FA1, 0, HA);
    net.initiate_as(FA1, 1, FA2);
    net.run(SECOND);
    assert_eq!(
        taken(&net.nodes[FA1]).len(),
        1,
        "it is given again what it forgot"
    );
    let ask = ask(&net, 100);
    assert!(!request(&mut net, ask));
}

/// docs/wire.md 3.1h.
#[test]
fn snoops_state_is_handed_over_by_token_and_answered_when_the_module_has_it() {
    let mut net = roaming(53, &[]);
    register(&mut net, FA2);
    let seen = [(0x1234_5678, 1 << 40), (9, 8)].map(|(spi, number)| Seen { spi, number });
    let ask = Ask {
        seen: seen.into(),
        ..ask(&net, 100)
    };
    let handover = |net: &mut Net, ask: &Ask| {
        let ask = ask.clone();
        net.at(FA2, |e, now, host| {
            let ike = ike_with(e, "one.fa.test");
            e.request_handover(ike, ask, now, host).unwrap();
        });
    };
    handover(&mut net, &ask);
    net.run(100 * MS);
    let (ike, message_id) = net.nodes[FA1]
        .find(|e| match e {
            Event::HandoverAsked {
                ike,
                message_id,
                ask,
            } => {
                assert_eq!(ask.home, ip(HOME));
                assert_eq!(ask.seen, seen);
                Some((*ike, *message_id))
            }
            _ => None,
        })
        .expect("it was asked");
    let full = |spi| SnoopState {
        spi,
        flows: Secret::copy(&[7; pfkey::MAX_SNOOP_STATE]),
    };
    // As much as there may be comes through.
    let states: Vec<SnoopState> = (0..8).map(full).collect();
    assert_eq!(states.len(), MAX_STATES);
    let given = states.clone();
    net.at(FA1, |e, now, host| {
        e.answer_handover(ike, message_id, given, now, host)
    });
    net.run(SECOND);
    let got = net.nodes[FA2].find(|e| match e {
        Event::HandedOver { states, .. } => states.clone(),
        _ => None,
    });
    assert_eq!(got, Some(states));
    // Bent: refused without asking the module.
    let bent = Ask {
        token: Secret::copy(&[1; 32]),
        ..ask.clone()
    };
    handover(&mut net, &bent);
    net.run(SECOND);
    assert_eq!(
        net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. })),
        1
    );
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(e, Event::HandedOver { states: None, .. })),
        1
    );
    // A module that says nothing: no states after a second.
    let newer = self::ask(&net, 101);
    handover(&mut net, &newer);
    net.run(3 * SECOND);
    assert_eq!(
        net.nodes[FA2].count(|e| matches!(
            e,
            Event::HandedOver {
                states: Some(_),
                ..
            }
        )),
        2
    );
}

/// docs/wire.md 3.1h, 3.2y.
#[test]
fn a_host_is_handed_over_once_to_where_it_went_and_not_after_it_came_back() {
    let mut net = roaming(57, &[]);
    register(&mut net, FA2);
    let handed = |net: &mut Net, from: usize, ask: Ask| {
        let before = net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. }));
        net.at(from, |e, now, host| {
            let ike = ike_with(e, "one.fa.test");
            e.request_handover(ike, ask, now, host).unwrap();
        });
        net.run(3 * SECOND);
        net.nodes[FA1].count(|e| matches!(e, Event::HandoverAsked { .. })) > before
    };
    let good = ask(&net, 100);
    let bent = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        ask
    };
    let elsewhere = |net: &Net, to: &str| {
        let mobile = &net.nodes[MH];
        let child = mobile.child().child;
        let (fa, home) = (ip(FA1_ADDRESS), ip(HOME));
        mobile.endpoint.token(child, fa, ip(to), home, 100).unwrap()
    };
    let stolen = elsewhere(&net, "192.0.2.99");
    let bad = [
        // No token, another one, of another registration or host.
        bent(&|ask| ask.token = Secret::default()),
        bent(&|ask| ask.token = Secret::copy(&[9; 32])),
        bent(&|ask| ask.identification = 102),
        bent(&|ask| ask.home = ip("203.0.113.6")),
        // A good one, from who doesn't own the address it is for.
        bent(&|ask| (ask.care_of, ask.token) = (ip("192.0.2.99"), stolen.clone())),
    ];
    for ask in bad {
        assert!(!handed(&mut net, FA2, ask.clone()), "{ask:?}");
    }
    assert!(handed(&mut net, FA2, good.clone()));
    // Replayed, by the very same one.
    assert!(!handed(&mut net, FA2, good));
    // The host came back by a later registration: what it signed before it did is past.
    net.at(FA1, |e, _, _| e.arrived(ip(HOME), 300));
    let before = ask(&net, 299);
    assert!(!handed(&mut net, FA2, before));
    let after = ask(&net, 301);
    assert!(handed(&mut net, FA2, after));
    // Who distributed the CSA needs no token, and a home agent that did not is nobody.
    let untold = Ask {
        token: Secret::default(),
        care_of: ip("192.0.2.2"),
        ..ask(&net, 302)
    };
    assert!(handed(&mut net, HA, untold.clone()));
    // It has it sent to itself, and not what it knows of from before the host came back.
    let elsewhere = Ask {
        care_of: ip(FA2_ADDRESS),
        ..untold.clone()
    };
    assert!(!handed(&mut net, HA, elsewhere));
    let late = Ask {
        identification: 300,
        ..untold.clone()
    };
    assert!(!handed(&mut net, HA, late));
    let stranger = Ask {
        home: ip("203.0.113.6"),
        ..untold
    };
    assert!(!handed(&mut net, HA, stranger));
}
