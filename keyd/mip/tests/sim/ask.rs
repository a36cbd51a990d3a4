// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Asking agents by hand, and hearing with which code they refuse.

use super::*;

pub fn settled() -> World {
    let mut world = World::new(2, 1);
    world.run(ms(100));
    world.enter(RADIO, Place::Cell(0));
    world.run(Duration::from_secs(2));
    world
}

pub fn wall(world: &World) -> Ntp {
    Ntp::from_unix(world.now + Duration::from_secs(1_800_000_000))
}

/// What a sound mobile node would ask through this foreign agent now.
pub fn sound(world: &World, fa: usize) -> Request {
    Request {
        flags: RequestFlags(RequestFlags::REVERSE_TUNNEL),
        lifetime: 60,
        home: HOME,
        home_agent: HA,
        care_of: care_of(fa),
        identification: Identification(wall(world).0),
    }
}

pub fn signed(request: Request, association: &Association) -> Vec<u8> {
    Builder::new(&Message::Request(request))
        .authenticate(Pair::MobileHome, association)
        .finish()
}

pub fn relayed(request: Request, fa: usize) -> Vec<u8> {
    Builder::relay(&signed(request, &mobile_home()))
        .authenticate(Pair::ForeignHome, &foreign_home(fa))
        .finish()
}

/// Gives octets to the home agent as if from this foreign agent, and says with which code it denies.
pub fn at_home_agent(world: &mut World, fa: usize, octets: Vec<u8>) -> Option<Code> {
    let before = world.refused(Who::Ha).len();
    let packet = udp(care_of(fa), HA, 60, octets);
    world.hand_in(Who::Ha, Interface(0), &packet, 0);
    world.refused(Who::Ha).get(before).copied()
}

pub fn at_foreign_agent(world: &mut World, fa: usize, octets: Vec<u8>) -> Option<Code> {
    let before = world.refused(Who::Fa(fa)).len();
    world.in_cell(fa, octets);
    world.refused(Who::Fa(fa)).get(before).copied()
}
