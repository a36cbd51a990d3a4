// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What there may be of policies, how long a reserved SPI waits for its keys, and what a clock that is set changes
//! (`docs/wire.md` §2).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};

use crate::genl::{self, Genl, EVENTS, NLM_F_DUMP};
use crate::scenario::{Ctx, Scenario};
use crate::topology::{HA, MH};
use crate::traffic;
use crate::zone_message::{
    self, find, find_lifetime, get_spi, lifetime, name, policy, Action, Direction, Lifetime,
    Message, Role, ANY, CSA, EXPIRE, GET, LIFETIME_CURRENT, LIFETIME_HARD, SPDDUMP, SPDFLUSH,
};
use crate::zone_tunnel::{self, Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "as-many-policies-as-there-may-be",
        proves: "a namespace takes 65,536 policies and no more, is told so by name, still decides by them, and takes others once they are flushed",
        seconds: 600,
        run: policies,
    },
    Scenario {
        name: "larval-csa-waits-165-seconds-for-its-keys",
        proves: "a reserved SPI is there after 160 s, and after 165 s it is gone, free again, and told of by an EXPIRE",
        seconds: 240,
        run: larval,
    },
    Scenario {
        name: "setting-the-clock-ends-no-csa",
        proves: "the wall clock set a year on or a day back neither ends a CSA before its time nor lets it live beyond; its times are told by the clock as it is now",
        seconds: 60,
        run: clock,
    },
];

/// docs/security.md.
const CAP: u32 = 65_536;

/// The `number`th of many policies: for another host each.
fn one_of_many(number: u32) -> Message {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number);
    policy(
        Action::Discard,
        Direction::Out,
        (ANY, (host, 32)),
        0,
        10,
        None,
    )
}

/// docs/wire.md 2.1b.
fn policies(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    let mut genl = Genl::open(&net.mh)?;
    for number in 0..CAP {
        genl::accepted(genl.pfkey(&one_of_many(number).octets())?, "a policy")
            .with_context(|| format!("number {}", number + 1))?;
    }
    let refusal = genl::refused(
        genl.pfkey(&one_of_many(CAP).octets())?,
        "one policy too many",
    )?;
    ensure!(
        refusal.errno == libc::ENOSPC && refusal.text.contains("X_POLICY"),
        "{refusal}"
    );
    let dump = Message::new(SPDDUMP, Vec::new()).octets();
    let listed = genl::accepted(genl.pfkey_with(&dump, NLM_F_DUMP)?, "SPDDUMP")?.len();
    ensure!(listed == CAP as usize, "{listed} are listed");
    // Each decides on its own host, and on nobody else.
    let watch = crate::stats::Watch::start(&net.mh)?;
    let sender = traffic::udp(&net.mh, MH, 4000)?;
    for number in [0, 1, CAP / 2, CAP - 1] {
        let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number);
        let _ = sender.send_to(b"discarded", (host, 9));
    }
    let _ = sender.send_to(
        b"not",
        (
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + CAP),
            9,
        ),
    );
    watch.expect(&[("discard", 4)])?;
    // Another namespace has its own, and flushed there is room.
    zone_tunnel::send(&net.ha, &[one_of_many(0)])?;
    zone_tunnel::send(&net.mh, &[Message::new(SPDFLUSH, Vec::new())])?;
    zone_tunnel::send(&net.mh, &[one_of_many(CAP)])
}

/// docs/wire.md 2.2r.
fn larval(ctx: &mut Ctx) -> Result<()> {
    const LIFE: Duration = Duration::from_secs(165);
    let mh = &ctx.net.mh;
    let events = Genl::open(mh)?;
    events.join(EVENTS)?.context("joining the events")?;
    let mut genl = Genl::open(mh)?;
    let spi = 0x0001_0000;
    let ask = get_spi(HA, MH, spi, spi).octets();
    let begun = Instant::now();
    genl::accepted(genl.pfkey(&ask)?, "GETSPI")?;
    let mut sa = Keys::new(&Options::default()).to_mh;
    sa.spi = spi;
    let get = name(GET, &sa, Role::Terminus).octets();
    std::thread::sleep((LIFE - Duration::from_secs(5)).saturating_sub(begun.elapsed()));
    ensure!(
        genl.pfkey(&get)?.is_ok(),
        "gone after {:?}",
        begun.elapsed()
    );
    genl::refused(genl.pfkey(&ask)?, "the same SPI again")?;
    let patience = LIFE + ctx.seconds(10.0);
    let event = loop {
        let event = events
            .event(patience.saturating_sub(begun.elapsed()))?
            .context("no EXPIRE came")?;
        if event.get(1) == Some(&EXPIRE) {
            break event;
        }
    };
    let after = begun.elapsed();
    ensure!(after >= LIFE, "it was told of after {after:?}");
    ensure!(
        find_lifetime(&event, LIFETIME_HARD).is_some_and(|hard| hard.added == LIFE.as_secs()),
        "not its own limit: {event:02x?}"
    );
    ensure!(
        find(&event, CSA).and_then(|csa| csa.get(2)) == Some(&0),
        "the CSA isn't larval"
    );
    ensure!(genl.pfkey(&get)?.is_err(), "it is still there");
    genl::accepted(genl.pfkey(&ask)?, "GETSPI of an SPI that is free again").map(|_| ())
}

/// Sets the wall clock on by so many seconds.
fn set_on(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).context("setting the clock")
}

fn wall() -> Result<u64> {
    Ok(u64::try_from(
        clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec(),
    )?)
}

/// docs/wire.md 2.5f.
fn clock(ctx: &mut Ctx) -> Result<()> {
    const YEAR: i64 = 365 * 86_400;
    const LIFE: u64 = 20;
    let mh = &ctx.net.mh;
    let keys = Keys::new(&Options::default());
    let mut message = zone_message::add(
        &keys.to_mh,
        Role::Terminus,
        (ANY, zone_message::HOME_ONLY),
        64,
        0,
    );
    let life = Lifetime {
        added: LIFE,
        ..Lifetime::default()
    };
    message.extensions.push(lifetime(LIFETIME_HARD, &life));
    let begun = Instant::now();
    zone_tunnel::send(mh, &[message])?;
    let mut genl = Genl::open(mh)?;
    let get = name(GET, &keys.to_mh, Role::Terminus).octets();
    let told = |genl: &mut Genl| -> Result<u64> {
        let shown = genl::accepted(genl.pfkey(&get)?, "GET")?;
        let shown = shown.first().context("no answer to GET")?;
        Ok(find_lifetime(shown, LIFETIME_CURRENT)
            .context("GET without LIFETIME_CURRENT")?
            .added)
    };
    for (on, off) in [(YEAR, -YEAR), (-86_400, 86_400)] {
        set_on(on)?;
        let age = begun.elapsed().as_secs();
        let looked = told(&mut genl).and_then(|added| Ok((added, wall()?)));
        set_on(off)?;
        let (added, now) = looked.with_context(|| format!("with the clock {on} s on"))?;
        ensure!(
            (now - added).abs_diff(age) <= 2,
            "added at {added}, says a clock of {now}, {age} s after it was"
        );
    }
    ensure!(
        begun.elapsed() < Duration::from_secs(LIFE - 2),
        "the guest is too slow for this"
    );
    // And its time is its time, with the clock set back meanwhile.
    set_on(-86_400)?;
    let end = Duration::from_secs(LIFE) + ctx.seconds(5.0);
    let gone = loop {
        if genl.pfkey(&get)?.is_err() {
            break Some(begun.elapsed());
        }
        if begun.elapsed() > end {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    set_on(86_400)?;
    let gone = gone.context("it lives on beyond its time")?;
    ensure!(
        gone >= Duration::from_secs(LIFE),
        "it was gone after {gone:?}"
    );
    Ok(())
}
