// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Registrations that agents end (RFC 3543): one, by word of the operator, or all when an agent ends.

mod sim;

use mml_mip::*;
use sim::ask::*;
use sim::*;
use std::time::Duration;

fn confirmed(world: &World, who: Who) -> usize {
    let is_it = |(_, by, event): &&(Duration, Who, Event)| {
        *by == who && matches!(event, Event::RevocationConfirmed { .. })
    };
    world.events.iter().filter(is_it).count()
}

/// No route, tunnel or entry for the mobile node at any agent.
fn nothing_is_left(world: &World) {
    assert_eq!(world.ha.bindings().count(), 0);
    for (who, kernel) in world.kernels.iter().filter(|(who, _)| **who != Who::Mn) {
        assert!(kernel.routes.is_empty(), "{who:?}: {kernel:?}");
        assert!(kernel.tunnels.is_empty(), "{who:?}: {kernel:?}");
        assert!(kernel.proxy.is_empty(), "{who:?}: {kernel:?}");
    }
    assert!(world.fas.iter().all(|fa| fa.visitors().count() == 0));
}

#[test]
fn either_agent_that_ends_a_registration_has_the_other_end_it() {
    for who in [Who::Ha, Who::Fa(0)] {
        let mut world = settled();
        world.exit(RADIO);
        world.revoke(who);
        world.run(ms(100));
        nothing_is_left(&world);
        assert_eq!(confirmed(&world, who), 1, "{who:?}");
    }
}

#[test]
fn a_home_agent_that_closes_grants_nothing_any_more() {
    let mut world = settled();
    world.close(Who::Ha);
    world.run(Duration::from_secs(5));
    nothing_is_left(&world);
    assert_eq!(confirmed(&world, Who::Ha), 1);
    let refused = world.refused(Who::Ha);
    assert!(!refused.is_empty(), "the mobile node was told, and asked");
    assert!(refused.iter().all(|code| *code == Code::HA_RESOURCES));
}

#[test]
fn a_foreign_agent_that_closes_takes_nobody_in_and_denies_who_waits() {
    let mut world = settled();
    // Somebody else's registration is on its way, and its answer comes too late.
    let request = Request {
        home: std::net::Ipv4Addr::new(203, 0, 113, 8),
        ..sound(&world, 0)
    };
    let packet = udp(
        request.home,
        care_of(0),
        255,
        signed(request, &mobile_home()),
    );
    world.hand_in(Who::Fa(0), Interface(5), &packet, 0);
    world.close(Who::Fa(0));
    assert_eq!(world.refused(Who::Fa(0)), [Code::FA_RESOURCES]);
    world.run(Duration::from_secs(5));
    nothing_is_left(&world);
    assert_eq!(confirmed(&world, Who::Fa(0)), 1);
    // The other one is still there for it.
    world.hand_off(1, ms(20));
    world.run(Duration::from_secs(2));
    world.assert_only_at(1);
}
