// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! States: larval until it has keys, and from one CSA to the next without a packet lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{bail, ensure, Context, Result};

use crate::genl::{self, Genl, EVENTS, NLM_F_DUMP};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::{Stats, Watch};
use crate::sys;
use crate::topology::{CN, HA, HOME, MH};
use crate::traffic;
use crate::zone_esp::Sa;
use crate::zone_message::{
    self, add, find, get_spi, name, update, Message, Role, State, ADD, ANY, CSA, CSA_STATE, DELETE,
    DUMP, GET, HOME_ONLY, UPDATE,
};
use crate::zone_tunnel::{self, Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "getspi-reserves-and-an-update-gives-keys",
        proves: "an SPI that GETSPI gave is nobody else's, opens nothing, and becomes a CSA by an UPDATE with its keys",
        seconds: 60,
        run: larval,
    },
    Scenario {
        name: "switching-csas-under-load-loses-nothing",
        proves: "while a transfer runs, one CSA replaces the other eight times in both directions: every packet that was sealed was opened, and none was dropped",
        seconds: 120,
        run: switches,
    },
    Scenario {
        name: "used-up-numbers-make-a-csa-dying",
        proves: "a CSA whose sequence numbers are used up is dying by itself, that is told, and the next one seals",
        seconds: 60,
        run: exhausted,
    },
];

fn asked(genl: &mut Genl, min: u32, max: u32) -> Result<genl::Answer> {
    genl.pfkey(&get_spi(HA, MH, min, max).octets())
}

fn spi_of(message: &[u8]) -> Result<u32> {
    let sa = find(message, zone_message::SA).context("an answer without SA")?;
    Ok(u32::from_be_bytes(*sa.first_chunk().context("SPI")?))
}

fn state_of(message: &[u8]) -> Result<u8> {
    let csa = find(message, CSA).context("an answer without CSA")?;
    csa.get(2).copied().context("state")
}

/// docs/wire.md 2.2b, 2.2q, 2.2r.
fn larval(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let mh = &ctx.net.mh;
    let mut genl = Genl::open(mh)?;
    // Four there are, of which one is taken already.
    let base = 0x0001_0000;
    let mut sa = Keys::new(&Options::default()).to_mh;
    sa.spi = base + 2;
    zone_tunnel::send(mh, &[add(&sa, Role::Terminus, (ANY, HOME_ONLY), 64, 0)])?;
    let mut spis = Vec::new();
    for _ in 0..3 {
        let answer = genl::accepted(asked(&mut genl, base, base + 3)?, "GETSPI")?;
        let answer = answer.first().context("no answer to GETSPI")?;
        ensure!(state_of(answer)? == 0, "it isn't larval");
        spis.push(spi_of(answer)?);
    }
    spis.sort_unstable();
    ensure!(
        spis == [base, base + 1, base + 3],
        "GETSPI gave {spis:08x?}"
    );
    let refusal = genl::refused(asked(&mut genl, base, base + 3)?, "a fifth of four SPIs")?;
    ensure!(
        refusal.errno == libc::EEXIST && refusal.text.contains("SPIRANGE"),
        "{refusal}"
    );
    let refusal = genl::refused(asked(&mut genl, 0, 255)?, "a reserved SPI")?;
    ensure!(refusal.text.contains("SPIRANGE"), "{refusal}");

    sa.spi = base;
    let shown = genl::accepted(genl.pfkey(&name(GET, &sa, Role::Terminus).octets())?, "GET")?;
    ensure!(
        state_of(shown.first().context("no answer")?)? == 0,
        "GET does not show it larval"
    );
    let dumped = genl.pfkey_with(&Message::new(DUMP, Vec::new()).octets(), NLM_F_DUMP)?;
    let larvals = genl::accepted(dumped, "DUMP")?
        .iter()
        .filter(|csa| state_of(csa).is_ok_and(|state| state == 0))
        .count();
    ensure!(larvals == 3, "DUMP shows {larvals} larval ones");
    let complete = |sa: &Sa, kind| Message {
        kind,
        ..add(sa, Role::Terminus, (ANY, HOME_ONLY), 8192, 0)
    };
    let refusal = genl::refused(genl.pfkey(&complete(&sa, ADD).octets())?, "ADD over it")?;
    ensure!(refusal.errno == libc::EEXIST, "{refusal}");
    // Without keys it opens nothing.
    zone_tunnel::send(
        &ctx.net.ha,
        &[
            add(&sa, Role::Origin, (ANY, HOME_ONLY), 8192, 0),
            update(&keys.to_mh, Role::Origin, State::Standby),
        ],
    )?;
    let (cn, receiver) = (
        traffic::udp(&ctx.net.cn, CN, 4000)?,
        traffic::udp(mh, HOME, 5000)?,
    );
    cn.send_to(b"too early", (HOME, 5000))?;
    traffic::silent(&receiver)?;
    zone_tunnel::send(mh, &[complete(&sa, UPDATE)])?;
    traffic::udp_arrives(&cn, &receiver, b"with keys")?;
    // Once it has them, they never change.
    let refusal = genl::refused(genl.pfkey(&complete(&sa, UPDATE).octets())?, "other keys")?;
    ensure!(refusal.text.contains("an update can't change"), "{refusal}");
    // A larval one may go, and its SPI is free.
    sa.spi = base + 1;
    zone_tunnel::send(mh, &[name(DELETE, &sa, Role::Terminus)])?;
    let again = genl::accepted(asked(&mut genl, base, base + 3)?, "GETSPI")?;
    ensure!(
        spi_of(again.first().context("no answer")?)? == base + 1,
        "not the SPI that was given back"
    );
    zone_tunnel::send(mh, &[Message::new(zone_message::FLUSH, Vec::new())])?;
    ensure!(
        genl.pfkey(&name(GET, &sa, Role::Terminus).octets())?
            .is_err(),
        "FLUSH left a larval one"
    );
    Ok(())
}

/// Octets that tell where they belong.
fn pattern(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

fn pour(mut to: &TcpStream, stop: &AtomicBool) -> Result<u64> {
    let mut sent = 0u64;
    let mut chunk = vec![0; 16_384];
    while !stop.load(Ordering::Relaxed) {
        for (at, octet) in (sent..).zip(chunk.iter_mut()) {
            *octet = pattern(at);
        }
        to.write_all(&chunk)?;
        sent += chunk.len() as u64;
    }
    to.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn drink(mut from: &TcpStream) -> Result<u64> {
    let mut received = 0u64;
    let mut chunk = vec![0; 65_536];
    loop {
        let length = from.read(&mut chunk)?;
        if length == 0 {
            return Ok(received);
        }
        for (at, octet) in (received..).zip(&chunk[..length]) {
            ensure!(*octet == pattern(at), "octet {at} is another one");
        }
        received += length as u64;
    }
}

/// From one set of CSAs to the next: who opens first, then who seals; what is under way is waited for.
fn switch(ctx: &Ctx, old: &Keys, by_update: bool) -> Result<Keys> {
    let new = Keys::new(&Options::default());
    let (to, from) = ((ANY, HOME_ONLY), (HOME_ONLY, ANY));
    let net = &ctx.net;
    let of = |sa, role, selected| add(sa, role, selected, 8192, 0);
    zone_tunnel::send(&net.mh, &[of(&new.to_mh, Role::Terminus, to)])?;
    zone_tunnel::send(&net.ha, &[of(&new.from_mh, Role::Terminus, from)])?;
    zone_tunnel::send(
        &net.fa1,
        &[
            of(&new.to_mh, Role::Relay, to),
            of(&new.from_mh, Role::Relay, from),
        ],
    )?;
    for (node, sa, old, selected) in [
        (&net.ha, &new.to_mh, &old.to_mh, to),
        (&net.mh, &new.from_mh, &old.from_mh, from),
    ] {
        let origin = of(sa, Role::Origin, selected);
        if by_update {
            let standby = origin.with(CSA, |octets| octets[2] = State::Standby as u8);
            zone_tunnel::send(node, &[standby, update(sa, Role::Origin, State::Active)])?;
        } else {
            // The newest active one seals from the moment it is there.
            zone_tunnel::send(node, &[origin])?;
        }
        zone_tunnel::send(node, &[update(old, Role::Origin, State::Dying)])?;
    }
    std::thread::sleep(ctx.seconds(0.3));
    let gone = |node: &Netns, sa, role| zone_tunnel::send(node, &[name(DELETE, sa, role)]);
    gone(&net.ha, &old.to_mh, Role::Origin)?;
    gone(&net.mh, &old.from_mh, Role::Origin)?;
    std::thread::sleep(ctx.seconds(0.3));
    for sa in [&old.to_mh, &old.from_mh] {
        gone(&net.fa1, sa, Role::Relay)?;
    }
    gone(&net.mh, &old.to_mh, Role::Terminus)?;
    gone(&net.ha, &old.from_mh, Role::Terminus)?;
    Ok(new)
}

/// docs/wire.md 2.2u.
fn switches(ctx: &mut Ctx) -> Result<()> {
    let mut keys = ctx.zone_tunnel(&Options::default())?;
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 6000)?;
    // Less is under way than any queue on the way holds: what is missing, a switch has lost.
    sys::set_option(&near, libc::SOL_SOCKET, libc::SO_SNDBUF, 128 << 10)?;
    sys::set_option(&far, libc::SOL_SOCKET, libc::SO_RCVBUF, 128 << 10)?;
    let nodes = [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh];
    let before: Vec<Stats> = nodes
        .iter()
        .map(|node| Stats::read(node))
        .collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| -> Result<u64> {
        let sender = scope.spawn(|| pour(&near, &stop));
        let receiver = scope.spawn(|| drink(&far));
        let mut switched = Ok(());
        for round in 0..8 {
            match switch(ctx, &keys, round % 2 == 0) {
                Ok(new) => keys = new,
                Err(error) => {
                    switched = Err(error.context(format!("switch {round}")));
                    break;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        let joined = |outcome: std::thread::Result<Result<u64>>| {
            outcome.unwrap_or_else(|_| bail!("a thread of the transfer panicked"))
        };
        let sent = joined(sender.join()).context("sending")?;
        let received = joined(receiver.join()).context("receiving")?;
        switched?;
        ensure!(sent == received, "{received} of {sent} octets arrived");
        Ok(sent)
    })?;
    drop((near, far));
    std::thread::sleep(ctx.seconds(0.5));
    let grown = |node: usize, name: &str| -> Result<u64> {
        Ok(Stats::read(nodes[node])?
            .since(&before[node])
            .get(name)
            .copied()
            .unwrap_or(0))
    };
    let sealed = [grown(0, "sealed-packets")?, grown(2, "sealed-packets")?];
    let opened = [grown(2, "opened-packets")?, grown(0, "opened-packets")?];
    ensure!(
        sealed == opened && sealed[0] > 100,
        "{sent} octets arrived, but of {sealed:?} packets sealed {opened:?} were opened"
    );
    ensure!(
        grown(1, "relayed-packets")? == sealed[0] + sealed[1],
        "the relay opened {} of {sealed:?}",
        grown(1, "relayed-packets")?
    );
    super::tunnel::no_drops_but(ctx, &[])
}

/// docs/wire.md 1.1b, 2.2f, 2.2t.
fn exhausted(ctx: &mut Ctx) -> Result<()> {
    let last = (1u64 << 63) - 3;
    let keys = ctx.zone_tunnel(&Options::default())?;
    let (ha, mh) = (&ctx.net.ha, &ctx.net.mh);
    let sa = Keys::new(&Options::default()).to_mh;
    zone_tunnel::send(mh, &[add(&sa, Role::Terminus, (ANY, HOME_ONLY), 64, last)])?;
    zone_tunnel::send(ha, &[add(&sa, Role::Origin, (ANY, HOME_ONLY), 64, last)])?;
    let events = Genl::open(ha)?;
    events.join(EVENTS)?.context("joining the events")?;
    let (cn, receiver) = (
        traffic::udp(&ctx.net.cn, CN, 4000)?,
        traffic::udp(mh, HOME, 5000)?,
    );
    let watch = Watch::start(ha)?;
    for _ in 0..2 {
        traffic::udp_arrives(&cn, &receiver, b"one of the last two")?;
    }
    cn.send_to(b"one too many", (HOME, 5000))?;
    traffic::silent(&receiver)?;
    watch.expect(&[("sequence-exhausted", 1)])?;
    let event = events
        .event(traffic::ARRIVES)?
        .context("no event of the change")?;
    ensure!(
        event.get(1) == Some(&CSA_STATE)
            && spi_of(&event)? == sa.spi
            && state_of(&event)? == State::Dying as u8,
        "event {event:02x?}"
    );
    // The older one seals again.
    traffic::udp_arrives(&cn, &receiver, b"by the other one")?;
    ensure!(
        Stats::read(ha)?
            .csas
            .iter()
            .any(|csa| csa.spi == keys.to_mh.spi && csa.counters.get("sealed-packets") == Some(&1)),
        "the other CSA sealed nothing"
    );
    Ok(())
}
