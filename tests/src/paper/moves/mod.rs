// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Initialisations and handoffs of the first paper's Tables I and II: real key managers on the lab's network, in virtual
//! time.
//!
//! Where to look: `ground` lays network and key managers of a column; `instants` is what captures and the key managers'
//! logs say when; here the host starts and moves. `messages` is Table I, `stream` what who talks with the host sees, `company` what it costs with
//! many others.

mod company;
mod ground;
mod instants;
mod journal;
mod messages;
mod radio;
mod stream;

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::run::{Keys, Links, Moves};
use crate::capture::Capture;
use crate::module::{self, Modules};
use crate::report;
use crate::scenario::{Ctx, MODULE};
use crate::topology::{CN, HOME};
use crate::traffic;
use ground::Ground;
use instants::Seen;

pub use company::measure as company;
pub use messages::measure as messages;
pub use stream::measure as streams;

/// Everything that a step sets off has come to rest by then, twice by the next: tunnels linger for 2 s.
const REST: Duration = Duration::from_millis(1200);
/// The longest an initialisation or a handoff may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often logs are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A foreign agent has forgotten the CSAs of tunnels that were closed: with one of them it takes the host's keys to be there.
const FORGOTTEN: Duration = Duration::from_secs(16);

/// Measures a column of Table II.
pub fn measure(modules: &Modules, moves: &Moves) -> Result<Value> {
    on_ground(modules, moves.keys, moves.links(), |ground| {
        go(ground, moves)
    })
}

/// Measures on a network of its own, and takes the module away afterwards. A failure comes with what the key managers said.
fn on_ground(
    modules: &Modules,
    keys: Keys,
    links: Links,
    go: impl FnOnce(&mut Ground<'_>) -> Result<Value>,
) -> Result<Value> {
    on_ground_with(modules, keys, links, ground::files(keys), go)
}

/// The same with these files.
fn on_ground_with(
    modules: &Modules,
    keys: Keys,
    links: Links,
    files: [String; 4],
    go: impl FnOnce(&mut Ground<'_>) -> Result<Value>,
) -> Result<Value> {
    let ctx = Ctx::new(modules, 1.0)?;
    let measure = || {
        let mut ground = Ground::lay_with(&ctx, keys, links, files)?;
        go(&mut ground).with_context(|| ground.nodes.logs())
    };
    let outcome: Result<Value> = measure();
    drop(ctx);
    let unloaded = module::unload(MODULE, Duration::from_secs(20));
    let value = outcome?;
    unloaded.context("after the measurement")?;
    Ok(value)
}

fn go(ground: &mut Ground<'_>, moves: &Moves) -> Result<Value> {
    let mut starts = Vec::new();
    // The first is for caches, and for modules that the kernel loads.
    for turn in 0..moves.starts + u32::from(moves.starts > 0) {
        report::step(format!("initialisation {turn} of {}", moves.starts));
        let one = initialisation(ground)?;
        if turn >= 1 {
            starts.push(one);
        }
        ground.leaves()?;
    }
    let mut handoffs = Vec::new();
    if moves.handoffs > 0 {
        initialisation(ground)?;
        std::thread::sleep(FORGOTTEN);
        // The first of each direction is for caches, and for standby CSAs that are then active.
        for turn in 0..moves.handoffs + 2 {
            report::step(format!("handoff {turn} of {}", moves.handoffs));
            let one = handoff(ground).with_context(|| format!("handoff {turn}"))?;
            if turn >= 2 {
                handoffs.push(one);
            }
        }
        ground.leaves()?;
    }
    Ok(json!({ "starts": starts, "handoffs": handoffs }))
}

/// The host's key manager starts, its link comes up, and it is registered, with its IPsec or MML tunnel.
fn initialisation(ground: &mut Ground<'_>) -> Result<Value> {
    ground.starts()?;
    std::thread::sleep(REST);
    let captures = ground.captures()?;
    let since = ground.clock.now();
    radio::set(&ground.net().mh, ground.here().link, true)?;
    wait(ground, since, |ground| ground.is_up(since))?;
    std::thread::sleep(REST);
    let seen = seen(ground, captures, since)?;
    arrives(ground)?;
    seen.initialisation()
}

/// The host leaves the foreign agent it is at for the other one.
fn handoff(ground: &mut Ground<'_>) -> Result<Value> {
    if ground.keys == Keys::EspAnew {
        // What is set up anew is first closed, so that the host's key manager begins it when it is registered.
        ground.closes_tunnel()?;
    }
    std::thread::sleep(REST);
    let captures = ground.captures()?;
    let since = ground.clock.now();
    let left = ground.here().link;
    ground.turn();
    let mh = &ground.net().mh;
    radio::set(mh, left, false)?;
    radio::set(mh, ground.here().link, true)?;
    wait(ground, since, |ground| ground.is_up(since))?;
    std::thread::sleep(REST);
    let seen = seen(ground, captures, since)?;
    arrives(ground)?;
    seen.handoff()
}

/// A datagram each way, and where there are zones the foreign agent opens both.
fn arrives(ground: &Ground<'_>) -> Result<()> {
    let net = ground.net();
    let before = ground.opened()?;
    traffic::ping_arrives(&net.cn, CN, HOME, b"is anybody there")?;
    let grown = ground.opened()? - before;
    let sealed = if ground.keys.has_zones() { 2 } else { 0 };
    ensure!(
        grown == sealed,
        "the foreign agent opened {grown} of {sealed} packets"
    );
    Ok(())
}

fn wait(
    ground: &Ground<'_>,
    since: i64,
    mut done: impl FnMut(&Ground<'_>) -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !done(ground)? {
        ensure!(
            Instant::now() < end,
            "not registered and keyed {} ms after {since}",
            PATIENCE.as_millis()
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What captures and logs say of the time since.
fn seen(ground: &Ground<'_>, captures: Vec<Capture>, since: i64) -> Result<Seen> {
    let captured = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<Vec<_>>>()?;
    Seen::new(ground, captured, since)
}
