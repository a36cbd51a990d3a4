// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Registrations that an operator ends (RFC 3543), agents that end, and a host that leaves for good: keys go with them.

use super::days::{Days, FA, HA, MH};
use super::sim::{ms, Place, Who, HOME, RADIO};
use std::time::Duration;

/// Both ways of giving keys.
const WAYS: [bool; 2] = [true, false];

/// Home agent and foreign agent, at either of which the operator may say so.
const AGENTS: [Who; 2] = [Who::Ha, Who::Fa(0)];

fn nobody_knows_it(days: &Days) -> bool {
    let agents = days
        .daemons
        .iter()
        .enumerate()
        .filter(|(node, _)| *node != MH);
    agents
        .into_iter()
        .all(|(_, one)| one.engine.book().mobile.is_empty())
        && days.world.ha.bindings().count() == 0
        && days.world.fas.iter().all(|fa| fa.visitors().count() == 0)
}

/// docs/wire.md 3.1g.
#[test]
fn a_registration_that_either_agents_operator_ends_takes_zone_1s_keys_along() {
    for (beforehand, who) in WAYS
        .into_iter()
        .flat_map(|way| AGENTS.map(|who| (way, who)))
    {
        let mut days = Days::begun(2, beforehand, 1);
        let csa = days.spis(HA);
        // It is out of reach, or it would be back at once.
        days.world.exit(RADIO);
        days.run(ms(100));
        days.world.revoke(who);
        days.run(Duration::from_secs(1));
        assert!(nobody_knows_it(&days), "{who:?}, {beforehand}");
        assert!(days.no_relay_holds(), "{who:?}, {beforehand}");
        assert_eq!(days.spis(HA), csa, "the CSA is its ends'");
        assert_eq!(days.spis(MH), csa);
        days.world.enter(RADIO, Place::Cell(0));
        days.settles("back", 0);
        assert_eq!(days.spis(HA), csa, "it is the same CSA");
    }
}

#[test]
fn a_host_whose_registration_is_ended_is_told_and_registers_again() {
    for (beforehand, who) in WAYS
        .into_iter()
        .flat_map(|way| AGENTS.map(|who| (way, who)))
    {
        let mut days = Days::begun(2, beforehand, 1);
        let (csa, before) = (days.spis(HA), days.world.registrations());
        days.world.revoke(who);
        days.settles("told", 0);
        assert_eq!(days.spis(HA), csa, "it is the same CSA");
        assert_eq!(days.world.registrations(), before + 1, "{who:?}");
    }
}

/// What `keyd run --flush` does first at an agent.
#[test]
fn an_agent_that_ends_takes_zone_1s_keys_along_and_lets_no_host_in_meanwhile() {
    for (beforehand, who) in WAYS
        .into_iter()
        .flat_map(|way| AGENTS.map(|who| (way, who)))
    {
        let mut days = Days::begun(2, beforehand, 1);
        let node = if who == Who::Ha { HA } else { FA };
        days.world.close(who);
        let end = days.world.now + Duration::from_secs(2);
        while days.daemons[node].engine.keys_to_go(&[HOME]) {
            assert!(days.world.now < end, "{who:?}, {beforehand}");
            days.run(ms(1));
        }
        // The host, which was told, tries in vain.
        days.run(Duration::from_secs(5));
        assert!(nobody_knows_it(&days), "{who:?}, {beforehand}");
        assert!(days.no_relay_holds(), "{who:?}, {beforehand}");
        assert!(!days.world.refused(who).is_empty() || who != Who::Ha);
    }
}

/// What `mmlctl leave` and `keyd run --flush` do at a mobile host.
#[test]
fn a_host_that_leaves_for_good_leaves_no_key_at_any_agent() {
    for beforehand in WAYS {
        let mut days = Days::begun(3, beforehand, 1);
        days.world.hand_off(1, ms(20));
        days.settles("moved", 1);
        days.leave();
        days.run(Duration::from_secs(1));
        assert!(nobody_knows_it(&days), "{beforehand}");
        // What was closed is opened for a while, for what is on its way.
        days.run(Duration::from_secs(11));
        assert!(days.spis(MH).is_empty());
        assert!(days.spis(HA).is_empty(), "{:x?}", days.spis(HA));
        assert!(days.no_relay_holds(), "{beforehand}");
    }
}
