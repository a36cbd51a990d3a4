// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The relay that writes: it lowers the window that a host advertises, and nothing else; it is dropped where it may not;
//! and no nonce comes twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Context, Result};

use crate::capture::{Capture, Captured};
use crate::genl::{self, Genl};
use crate::headers::{self, Ip};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::{Stats, Watch};
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_esp::{Sa, Sealed, RELAY_IV, W};
use crate::zone_message::{
    self, add, name, relay, update, Message, Role, State, ANY, DELETE, FLUSH, HOME_ONLY, RELAY,
};
use crate::zone_tunnel::{self, mmlctl, Keys, Options, AES256, AES256_IIV};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "relay-lowers-the-advertised-window",
        proves: "no window that leaves the mobile host's link is above the limit though the host's own are, every checksum holds behind the terminus, and the transfers arrive whole",
        seconds: 90,
        run: lowers,
    },
    Scenario {
        name: "a-writing-relay-leaves-shared-octets-alone",
        proves: "a capture in front of the relay, which shares its packets' octets, shows them as the host sent them though the relay rewrites them; with SNOOP beside it all transfers arrive whole",
        seconds: 90,
        run: shared,
    },
    Scenario {
        name: "a-relay-past-its-permission-is-dropped-by-the-terminus",
        proves: "what a relay rewrites under a CSA whose ends permit no writing is dropped by the terminus as write-unpermitted; without the setting the same relay touches nothing",
        seconds: 60,
        run: unpermitted,
    },
    Scenario {
        name: "a-second-relay-passes-rewritten-packets-on",
        proves: "a packet with W goes through a second writing relay octet for octet, unopened and counted, and arrives",
        seconds: 90,
        run: second,
    },
    Scenario {
        name: "no-nonce-comes-twice",
        proves: "over re-distributions, updates and flushes no IV of zone 1 is on the wire twice; a relay number is taken once, and no update moves its counter",
        seconds: 120,
        run: nonces,
    },
    Scenario {
        name: "windows-of-unknown-scale-are-left-alone",
        proves: "a connection whose SYNs the relay has not seen keeps its windows, and its packets go on untouched",
        seconds: 60,
        run: unknown_scale,
    },
    Scenario {
        name: "a-relay-without-permission-lowers-nothing",
        proves: "under a limit, a relay whose CSA gives no permission passes every packet on octet for octet, and the host's windows stay above the limit",
        seconds: 60,
        run: without_permission,
    },
];

/// Octets that a window may have.
const LIMIT: u32 = 20_000;

fn options() -> Options {
    Options {
        ciphers: [AES256, AES256_IIV],
        may_write: true,
        ..Options::default()
    }
}

fn limit(node: &Netns, interface: &str, octets: u32) -> Result<()> {
    mmlctl(node, &["set", "relay-window-interface", interface])?;
    mmlctl(node, &["set", "relay-window", &octets.to_string()])?;
    Ok(())
}

/// The window of a TCP segment, its flags, and the shift it offers.
fn window(ip: &Ip<'_>) -> Option<(u32, u8, Option<u8>)> {
    let flags = ip.tcp_flags()?;
    let field = u16::from_be_bytes(*ip.payload.get(14..)?.first_chunk()?);
    let end = usize::from(ip.payload.get(12)? >> 4) * 4;
    let mut options = ip.payload.get(20..end)?;
    let mut shift = None;
    while let Some((&kind, rest)) = options.split_first() {
        options = match kind {
            0 => break,
            1 => rest,
            _ => {
                let length = usize::from(*rest.first()?);
                if kind == 3 {
                    shift = options.get(2).copied();
                }
                options.get(length.max(2)..)?
            }
        };
    }
    Some((field.into(), flags, shift))
}

const SYN: u8 = 2;
const RST: u8 = 4;

/// The greatest window in octets that the mobile host shows in a capture, by its port; each is of a connection whose
/// SYNs are in it too. `checked`: every checksum of a segment without data must hold.
fn greatest(captured: &Captured, checked: bool) -> Result<BTreeMap<u16, u32>> {
    let mut shifts: BTreeMap<u16, (Option<u8>, Option<u8>)> = BTreeMap::new();
    let mut windows = BTreeMap::new();
    for ip in captured.headers().filter(|ip| ip.protocol == headers::TCP) {
        let (Some((field, flags, shift)), Some((from, to))) = (window(&ip), ip.ports()) else {
            continue;
        };
        let host = ip.source == HOME;
        let port = if host { from } else { to };
        let known = shifts.entry(port).or_default();
        if flags & SYN != 0 {
            if host {
                known.0 = shift;
            } else {
                known.1 = shift;
            }
        }
        if !host {
            continue;
        }
        // What GRO has put together, and what isn't sealed yet, has its checksum still to come.
        let whole = checked && ip.data().is_some_and(<[u8]>::is_empty);
        ensure!(
            !whole || ip.checksum_holds(),
            "{}: a checksum does not hold: window {field}, flags {flags:#04x}",
            captured.name
        );
        if flags & RST != 0 {
            continue;
        }
        let shift = match *known {
            _ if flags & SYN != 0 => 0,
            (Some(host), Some(_)) => host,
            _ => 0,
        };
        let greatest = windows.entry(port).or_insert(0);
        *greatest = (field << shift).max(*greatest);
    }
    Ok(windows)
}

/// The ESP packets of one direction: flags, zone 1's explicit IV, octets.
fn sealed<'a>(captured: &'a Captured, sa: &Sa) -> Vec<(u8, u64, &'a [u8])> {
    captured
        .esp()
        .filter_map(|esp| {
            let sealed = Sealed::parse(esp).ok().filter(|s| s.spi == sa.spi)?;
            let iv = u64::from_be_bytes(*esp.get(12..)?.first_chunk()?);
            Some((sealed.flags, iv, esp))
        })
        .collect()
}

/// Every IV of zone 1 comes once; how many were a relay's, by its number.
fn distinct(captured: &Captured, sas: &[&Sa]) -> Result<BTreeMap<u16, usize>> {
    let mut relays = BTreeMap::new();
    for sa in sas {
        let mut seen = BTreeSet::new();
        for (flags, iv, _) in sealed(captured, sa) {
            ensure!(
                seen.insert(iv),
                "IV {iv:#018x} of zone 1 is on the wire twice under SPI {:#010x}",
                sa.spi
            );
            ensure!(
                (flags & W != 0) == (iv & RELAY_IV != 0),
                "W and the IV's bit 63 differ"
            );
            if iv & RELAY_IV != 0 {
                *relays.entry((iv >> 48) as u16 & 0x7FFF).or_insert(0) += 1;
            }
        }
    }
    Ok(relays)
}

fn transfer(ctx: &Ctx, port: u16, length: usize) -> Result<()> {
    traffic::tcp_arrives(
        &ctx.net.cn,
        &ctx.net.mh,
        HOME,
        port,
        &traffic::random(length),
    )
    .with_context(|| format!("a transfer to port {port}"))
}

/// docs/wire.md 1.5k, 2.1k, 2.1l.
fn lowers(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&options())?;
    limit(&ctx.net.fa1, "wl1", LIMIT)?;
    let watch = Watch::start(&ctx.net.fa1)?;
    let host = Capture::start(&ctx.net.mh, "mml0", "mml0 of mh")?;
    let behind = Capture::start(&ctx.net.cn, "ha", "cn-ha")?;
    let wire = Capture::start(&ctx.net.ha, ctx.net.backbone(), "ha-core")?;
    transfer(ctx, 6000, 600_000)?;
    // With timestamps and scaling off at one end the field means octets.
    ctx.net.cn.sysctl("net.ipv4.tcp_window_scaling", "0")?;
    transfer(ctx, 6001, 100_000)?;
    ctx.net.cn.sysctl("net.ipv4.tcp_window_scaling", "1")?;
    // The mobile host calls.
    traffic::tcp_arrives(
        &ctx.net.mh,
        &ctx.net.cn,
        CN,
        6002,
        &traffic::random(300_000),
    )?;
    let (host, behind, wire) = (host.stop()?, behind.stop()?, wire.stop()?);
    let (own, seen) = (greatest(&host, false)?, greatest(&behind, true)?);
    ensure!(
        own.len() == 3 && own.values().all(|window| *window > LIMIT),
        "the host's own windows are {own:?}: nothing to lower"
    );
    ensure!(
        seen.len() == 3
            && seen
                .values()
                .all(|window| *window <= LIMIT && *window > LIMIT / 2),
        "behind the terminus windows are {seen:?}, and the limit is {LIMIT}"
    );
    let written = watch
        .grown()?
        .get("rewritten-packets")
        .copied()
        .unwrap_or(0);
    let relays = distinct(&wire, &[&keys.from_mh, &keys.to_mh])?;
    ensure!(
        relays == BTreeMap::from([(1, written as usize)]) && written > 10,
        "the relay counts {written} rewritten, the wire shows {relays:?}"
    );
    super::tunnel::no_drops_but(ctx, &[])
}

fn shared(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&options())?;
    limit(&ctx.net.fa1, "wl1", LIMIT)?;
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(&ctx.net.fa1, &["snoop", "set", "--spi", &spi])?;
    let sent = Capture::start(&ctx.net.mh, "wl1", "mh-fa1")?;
    let came = Capture::start(&ctx.net.fa1, "wl1", "fa1-mh")?;
    let went = Capture::start(&ctx.net.fa1, "core", "fa1-core")?;
    transfer(ctx, 6000, 300_000)?;
    transfer(ctx, 6001, 300_000)?;
    let rewritten = |captured: Captured| -> Result<(usize, usize)> {
        distinct(&captured, &[&keys.from_mh])?;
        let all = sealed(&captured, &keys.from_mh);
        let with = all.iter().filter(|(flags, _, _)| flags & W != 0).count();
        // Each opens under its own IV: none was changed halfway.
        for (_, _, esp) in &all {
            let zone1 = Sealed::parse(esp)?.open_zone1(&keys.from_mh.zones[0])?;
            ensure!(zone1.is_some(), "{}: a zone 1 fails its ICV", captured.name);
        }
        Ok((with, all.len()))
    };
    let (sent, came, went) = (
        rewritten(sent.stop()?)?,
        rewritten(came.stop()?)?,
        rewritten(went.stop()?)?,
    );
    ensure!(
        sent.0 == 0 && came.0 == 0 && went.0 > 10,
        "with W, of all: sent {sent:?}, came {came:?}, went {went:?}"
    );
    let stats = Stats::read(&ctx.net.fa1)?;
    // What SNOOP hides was rewritten before.
    let (counted, hidden) = (
        stats.total("rewritten-packets"),
        stats.total("snoop-suppressed"),
    );
    ensure!(
        (went.0 as u64..=went.0 as u64 + hidden).contains(&counted),
        "SNOOP hid {hidden}, and the relay counts {} rewritten of {went:?}",
        counted
    );
    Ok(())
}

/// Loads a relay's CSA with permission to write.
fn writing_relay(node: &Netns, sa: &Sa, number: u16, top: u64) -> Result<()> {
    zone_tunnel::send(node, &[writing(sa, number, top)])
}

fn writing(sa: &Sa, number: u16, top: u64) -> Message {
    let selected = if sa.destination == crate::topology::MH {
        (ANY, HOME_ONLY)
    } else {
        (HOME_ONLY, ANY)
    };
    let mut message = add(sa, Role::Relay, selected, 8192, top).without(RELAY);
    message.extensions.push(relay(true, number));
    message
}

/// docs/wire.md 1.5j, 2.1k.
fn unpermitted(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        may_write: false,
        relay: false,
        ..options()
    })?;
    let fa = &ctx.net.fa1;
    for sa in [&keys.to_mh, &keys.from_mh] {
        writing_relay(fa, sa, 1, 0)?;
    }
    limit(fa, "wl1", 1000)?;
    let watch = Watch::start(&ctx.net.ha)?;
    ensure!(
        traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 6000).is_err(),
        "a connection came about over rewritten packets that nobody permits"
    );
    let grown = watch.grown()?;
    ensure!(
        grown
            .get("write-unpermitted")
            .is_some_and(|count| *count > 0)
            && watch.dropped()? == grown.get("write-unpermitted").copied().unwrap_or(0),
        "the terminus counted {grown:?}"
    );
    mmlctl(fa, &["set", "relay-window", "0"])?;
    let watch = Watch::start(fa)?;
    transfer(ctx, 6001, 100_000)?;
    ensure!(
        !watch.grown()?.contains_key("rewritten-packets"),
        "it wrote though the limit is off"
    );
    Ok(())
}

/// docs/wire.md 1.5o.
fn without_permission(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        may_write: false,
        ..options()
    })?;
    limit(&ctx.net.fa1, "wl1", 1000)?;
    let watch = Watch::start(&ctx.net.fa1)?;
    let behind = Capture::start(&ctx.net.cn, "ha", "cn-ha")?;
    let came = Capture::start(&ctx.net.fa1, "wl1", "fa1-mh")?;
    let went = Capture::start(&ctx.net.fa1, "core", "fa1-core")?;
    transfer(ctx, 6000, 300_000)?;
    let (behind, came, went) = (behind.stop()?, came.stop()?, went.stop()?);
    let windows = greatest(&behind, true)?;
    ensure!(
        windows.len() == 1 && windows.values().all(|window| *window > 1000),
        "behind the terminus windows are {windows:?}"
    );
    let octets = |captured: &Captured| -> BTreeSet<Vec<u8>> {
        let all = sealed(captured, &keys.from_mh);
        all.into_iter().map(|(_, _, esp)| esp.to_vec()).collect()
    };
    let (came, went) = (octets(&came), octets(&went));
    ensure!(
        came.len() > 10 && went.is_subset(&came),
        "{} packets came, and of {} that went {} are others",
        came.len(),
        went.len(),
        went.difference(&came).count()
    );
    let grown = watch.grown()?;
    ensure!(
        grown.contains_key("relayed-packets") && !grown.contains_key("rewritten-packets"),
        "the relay counted {grown:?}"
    );
    super::tunnel::no_drops_but(ctx, &[])
}

/// docs/wire.md 1.5f, 1.9j.
fn second(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&options())?;
    let core = ctx.net.core()?;
    for sa in [&keys.to_mh, &keys.from_mh] {
        writing_relay(core, sa, 2, 0)?;
    }
    limit(&ctx.net.fa1, "wl1", LIMIT)?;
    // The second one would lower them further, could it open them.
    limit(core, "fa1", LIMIT / 4)?;
    let before = Capture::start(core, "fa1", "core-fa1")?;
    let after = Capture::start(core, "ha", "core-ha")?;
    let watch = Watch::start(core)?;
    transfer(ctx, 6000, 300_000)?;
    let (before, after) = (before.stop()?, after.stop()?);
    let rewritten = |captured: &Captured| -> Vec<Vec<u8>> {
        sealed(captured, &keys.from_mh)
            .into_iter()
            .filter(|(flags, _, _)| flags & W != 0)
            .map(|(_, _, esp)| esp.to_vec())
            .collect()
    };
    let (came, went) = (rewritten(&before), rewritten(&after));
    ensure!(
        came.len() > 5 && came == went,
        "{} packets with W came to the second relay, {} went on as they came",
        came.len(),
        went.iter().filter(|esp| came.contains(esp)).count()
    );
    let grown = watch.grown()?;
    ensure!(
        grown.get("rewritten") == Some(&(came.len() as u64)),
        "it counted {grown:?} of {}",
        came.len()
    );
    distinct(&after, &[&keys.from_mh, &keys.to_mh])?;
    Ok(())
}

fn refused_number(ctx: &Ctx, sa: &Sa, number: u16) -> Result<()> {
    let refusal = genl::refused(
        Genl::open(&ctx.net.fa1)?.pfkey(&writing(sa, number, 0).octets())?,
        &format!("relay number {number} once more"),
    )?;
    ensure!(
        refusal.errno == libc::EALREADY && refusal.text.contains("RELAY"),
        "relay number {number}: {refusal}"
    );
    Ok(())
}

/// docs/wire.md 1.5b, 1.5d, 1.5h, 1.5i.
fn nonces(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&options())?;
    let fa = &ctx.net.fa1;
    limit(fa, "wl1", LIMIT)?;
    let wire = Capture::start(&ctx.net.ha, ctx.net.backbone(), "ha-core")?;
    transfer(ctx, 6000, 200_000)?;
    let sa = &keys.from_mh;
    let written = || -> Result<u64> {
        let stats = Stats::read(fa)?;
        let csa = stats.csas.iter().find(|csa| csa.spi == sa.spi);
        csa.and_then(|csa| csa.counters.get("rewritten-packets").copied())
            .context("the relay's CSA")
    };
    let top = || -> Result<u64> {
        let stats = Stats::read(fa)?;
        let csa = stats.csas.iter().find(|csa| csa.spi == sa.spi);
        csa.and_then(|csa| csa.counters.get("sequence").copied())
            .context("the relay's CSA")
    };
    let before = written()?;
    ensure!(before > 5, "it has rewritten {before}");
    // Whatever an update says, the counter stays.
    for state in [State::Standby, State::Dying, State::Active] {
        zone_tunnel::send(fa, &[update(sa, Role::Relay, state)])?;
    }
    let refusal = genl::refused(
        Genl::open(fa)?.pfkey(
            &{
                let mut message = update(sa, Role::Relay, State::Active);
                message.extensions.push(relay(true, 1));
                message
            }
            .octets(),
        )?,
        "an update with RELAY",
    )?;
    ensure!(refusal.text.contains("RELAY"), "{refusal}");
    ensure!(written()? >= before, "an update lowered the counter");
    transfer(ctx, 6001, 200_000)?;
    ensure!(written()? > before, "it writes no more");

    // Told again under the same number, its counter would begin again.
    let last = top()?;
    zone_tunnel::send(fa, &[name(DELETE, sa, Role::Relay)])?;
    refused_number(ctx, sa, 1)?;
    zone_tunnel::send(fa, &[Message::new(FLUSH, Vec::new())])?;
    refused_number(ctx, sa, 1)?;
    refused_number(ctx, &keys.to_mh, 1)?;
    // What is refused for another reason doesn't use the number up.
    let spoiled = writing(sa, 2, last).with(zone_message::SELECTOR, |octets| octets[2] = 200);
    ensure!(
        Genl::open(fa)?.pfkey(&spoiled.octets())?.is_err(),
        "a selector of 200 bits of IPv4 was taken"
    );
    writing_relay(fa, sa, 2, last)?;
    writing_relay(fa, &keys.to_mh, 2, 0)?;
    ensure!(written()? == 0, "a fresh number begins at {}", written()?);
    transfer(ctx, 6002, 200_000)?;
    let relays = distinct(&wire.stop()?, &[&keys.from_mh, &keys.to_mh])?;
    ensure!(
        relays.len() == 2 && relays.values().all(|count| *count > 5),
        "the wire shows {relays:?}"
    );
    Ok(())
}

/// docs/wire.md 1.5g, 1.5l.
fn unknown_scale(ctx: &mut Ctx) -> Result<()> {
    let keys: Keys = ctx.zone_tunnel(&options())?;
    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 6000)?;
    limit(&ctx.net.fa1, "wl1", LIMIT)?;
    let watch = Watch::start(&ctx.net.fa1)?;
    let wire = Capture::start(&ctx.net.ha, ctx.net.backbone(), "ha-core")?;
    traffic::stream_arrives(&near, &far, &traffic::random(300_000))?;
    let relays = distinct(&wire.stop()?, &[&keys.from_mh, &keys.to_mh])?;
    ensure!(
        relays.is_empty() && !watch.grown()?.contains_key("rewritten-packets"),
        "windows of unknown scale were rewritten: {relays:?}"
    );
    Ok(())
}
