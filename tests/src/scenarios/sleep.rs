// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The machine sleeps: life-times go on.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::time::{clock_gettime, ClockId};

use super::lifetime::{expires, is_there, limited, listen, sockets};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Watch;
use crate::topology::HOME;
use crate::zone_esp::Sa;
use crate::zone_message::{Lifetime, Role};
use crate::zone_tunnel::Options;
use crate::{report, traffic};

pub const TABLE: &[Scenario] = &[Scenario {
    name: "life-times-go-on-while-the-machine-sleeps",
    proves: "a CSA whose seconds pass while the machine is suspended to memory has ended when it wakes, and is told of; one that has longer carries on, and nothing goes in clear",
    seconds: 120,
    run: sleeps,
}];

/// Seconds that the machine sleeps for.
const SLEEP: u64 = 10;

const POWER: &str = "/sys/power/state";
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

fn write(file: &str, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("{file}: {value}"))
}

/// How long the machine has slept since it was started.
fn slept() -> Result<Duration> {
    let with = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let without = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(with.saturating_sub(without))
}

/// docs/wire.md 2.5f.
fn sleeps(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let net = &ctx.net;
    let life = |added| {
        Some(Lifetime {
            added,
            ..Lifetime::default()
        })
    };
    // A debug kernel needs long to get ready; what is limited is what is awake, too.
    let short = (SLEEP - 2).max(ctx.seconds(0.5).as_secs());
    let long = 600;
    let limit = |node, sa: &Sa, role, seconds| limited(node, sa, role, None, life(seconds));
    limit(&net.ha, &keys.to_mh, Role::Origin, short)?;
    limit(&net.mh, &keys.from_mh, Role::Origin, long)?;
    let events = listen(&net.ha)?;
    let (cn, receiver) = sockets(ctx)?;
    traffic::udp_arrives(&cn, &receiver, b"awake")?;

    let states = fs::read_to_string(POWER).context(POWER)?;
    ensure!(
        states.split_whitespace().any(|state| state == "mem"),
        "this machine can't be suspended to memory: {states}"
    );
    let before = slept()?;
    write(ALARM, "0")?;
    write(ALARM, &format!("+{}", short + 2))?;
    report::without(ctx.modules, || write(POWER, "mem"))?;
    let asleep = slept()?.saturating_sub(before);
    ensure!(
        asleep + Duration::from_secs(3) > Duration::from_secs(short),
        "the machine slept for {asleep:?} only"
    );

    expires(&events, true)?;
    ensure!(
        !is_there(&net.ha, &keys.to_mh, Role::Origin)?,
        "it is still there"
    );
    let watch = Watch::start(&net.ha)?;
    cn.send_to(b"too late", (HOME, 5000))?;
    traffic::silent(&receiver)?;
    watch.expect(&[("no-csa", 1)])?;
    // The way back has longer to live.
    traffic::udp_arrives(&receiver, &cn, b"awake again")
}
