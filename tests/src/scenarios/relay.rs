// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The relay: what a holder of zone 1's key may do, what it can't do, and that it never makes things worse than a router.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use super::attack::Attack;
use crate::capture::Capture;
use crate::genl::{self, Genl};
use crate::headers::{self, fix_ip_checksum, IpDraft, TcpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::stats::{Stats, Watch};
use crate::topology::{CN, HOME, MH};
use crate::traffic;
use crate::zone_esp::{outer, Draft, RELAY_IV, W};
use crate::zone_tunnel::{Cipher, Options, AES256, AES256_IIV, CHACHA};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "relay-key-cannot-redirect",
        proves: "a holder of key 1 cannot put another address, port, flag, number or length over a payload: the terminus drops it",
        seconds: 60,
        run: redirect,
    },
    Scenario {
        name: "forged-rst-over-trailer-only-zone-2-is-dropped",
        proves: "a zone 2 that holds no payload, taken from an ACK, is of no use for a forged RST",
        seconds: 60,
        run: forged_rst,
    },
    Scenario {
        name: "writing-without-permission-is-dropped",
        proves: "a zone 1 sealed under a relay's IV is dropped where the CSA permits no writing",
        seconds: 60,
        run: unpermitted,
    },
    Scenario {
        name: "permitted-writing-is-limited-to-its-fields",
        proves: "with permission, ECN, TCP's window and checksum may be rewritten, and nothing else",
        seconds: 60,
        run: permitted,
    },
    Scenario {
        name: "relay-forwards-what-it-cannot-open",
        proves: "damaged, replayed and foreign packets pass the foreign agent octet for octet, counted; the setting drops them instead",
        seconds: 90,
        run: forwards,
    },
    Scenario {
        name: "relay-joins-late",
        proves: "a relay that gets its CSA in the middle of the traffic opens from then on",
        seconds: 60,
        run: joins_late,
    },
    Scenario {
        name: "a-relay-keeps-1024-packets-of-the-window",
        proves: "what is overtaken by less than 1,024 packets the relay opens, what by more it forwards unopened, and the terminus with its wider window takes both",
        seconds: 60,
        run: overtaken,
    },
];

fn no_relay(ciphers: [Cipher; 2]) -> Options {
    Options {
        ciphers,
        relay: false,
        ..Options::default()
    }
}

/// What the attacker writes into zone 1's 28 octets of IP and UDP header.
const REDIRECTIONS: &[(&str, usize, u8)] = &[
    ("TOS", 1, 0x20),
    ("total length", 3, 0x01),
    ("identification", 4, 0x80),
    ("DF", 6, 0x40),
    ("TTL", 8, 0x01),
    ("protocol", 9, 0x01),
    ("source", 12, 0x01),
    ("destination", 19, 0x01),
    ("source port", 21, 0x01),
    ("destination port", 23, 0x01),
    ("UDP length", 25, 0x04),
    ("UDP checksum", 27, 0x01),
];

/// docs/wire.md 1.3d.
fn redirect(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &no_relay([AES256_IIV; 2]))?;
    let mut sequence = 10;
    for &(what, octet, bits) in REDIRECTIONS {
        sequence += 1;
        // Taken from the wire, never seen by the terminus.
        let mut draft = attack.draft(sequence, b"for nobody else");
        let zone2 = draft.seal_zone2(&attack.sa)?;
        draft.zone1[octet] ^= bits;
        fix_ip_checksum(&mut draft.zone1[..20]);
        attack.dropped_for("icv2", what, &draft.seal_over(&attack.sa.zones[0], &zone2)?)?;
        // The original, coming late, is good.
        draft.zone1[octet] ^= bits;
        fix_ip_checksum(&mut draft.zone1[..20]);
        attack.inject(&draft.seal_over(&attack.sa.zones[0], &zone2)?)?;
        attack.delivered(b"for nobody else")?;
    }
    // The number is bound too: zone 1 sealed for the next number over the same zone 2.
    let draft = attack.draft(sequence + 1, b"renumbered");
    let zone2 = draft.seal_zone2(&attack.sa)?;
    let renumbered = Draft {
        sequence: sequence + 2,
        ivs: [sequence + 2; 2],
        ..draft
    };
    attack.dropped_for(
        "icv2",
        "another number",
        &renumbered.seal_over(&attack.sa.zones[0], &zone2)?,
    )
}

/// A TCP segment to the mobile host, as the correspondent would send it.
fn segment(flags: u8, window: u16, data: &[u8]) -> Vec<u8> {
    let tcp = TcpDraft {
        source_port: 80,
        destination_port: 4242,
        sequence: 1000,
        acknowledgement: 2000,
        flags,
        window,
    };
    IpDraft {
        id: 0x1234,
        ..IpDraft::new(CN, HOME, headers::TCP)
    }
    .write(&tcp.write(CN, HOME, data))
}

const ACK: u8 = 0x10;
const RST: u8 = 0x04;

fn forged_rst(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &no_relay([AES256_IIV; 2]))?;
    let mut draft = Draft::new(&attack.sa, 50, &segment(ACK, 500, b""));
    ensure!(
        draft.rest.len() == 2,
        "an ACK's zone 2 is to hold the moved checksum alone"
    );
    let zone2 = draft.seal_zone2(&attack.sa)?;
    for flags in [RST, RST | ACK, ACK | 1, 2] {
        draft.zone1[33] = flags;
        attack.dropped_for(
            "icv2",
            &format!("TCP flags {flags:#04x}"),
            &draft.seal_over(&attack.sa.zones[0], &zone2)?,
        )?;
    }
    let capture = Capture::start(&ctx.net.mh, "mml0", "mml0")?;
    draft.zone1[33] = ACK;
    attack.inject(&draft.seal_over(&attack.sa.zones[0], &zone2)?)?;
    std::thread::sleep(ctx.seconds(0.2));
    let captured = capture.stop()?;
    ensure!(
        captured
            .headers()
            .filter(|ip| ip.tcp_flags() == Some(ACK) && ip.checksum_holds())
            .count()
            == 1,
        "the true ACK was not delivered"
    );
    Ok(())
}

/// A relay's IV: 1 (1) ‖ relay number (15) ‖ its counter (48).
fn relay_iv(number: u16, counter: u64) -> u64 {
    RELAY_IV | u64::from(number) << 48 | counter
}

/// docs/wire.md 1.5j, 1.9i.
fn unpermitted(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &no_relay([AES256; 2]))?;
    for (counter, change) in [None, Some(1usize), Some(33)].into_iter().enumerate() {
        let mut draft = Draft::new(
            &attack.sa,
            60 + counter as u64,
            &segment(ACK, 500, b"payload"),
        );
        let zone2 = draft.seal_zone2(&attack.sa)?;
        if let Some(octet) = change {
            draft.zone1[octet] ^= 1;
            fix_ip_checksum(&mut draft.zone1[..20]);
        }
        draft.flags = W;
        draft.ivs[0] = relay_iv(1, counter as u64);
        attack.dropped_for(
            "write-unpermitted",
            &format!("change of {change:?}"),
            &draft.seal_over(&attack.sa.zones[0], &zone2)?,
        )?;
    }
    Ok(())
}

/// docs/wire.md 1.3c, 1.4b.
fn permitted(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(
        ctx,
        &Options {
            may_write: true,
            ..no_relay([AES256, AES256_IIV])
        },
    )?;
    let mut counter = 0;
    let mut rewritten = |sequence: u64, change: &dyn Fn(&mut Vec<u8>)| -> Result<Vec<u8>> {
        let mut draft = Draft::new(&attack.sa, sequence, &segment(ACK, 500, b"payload"));
        let zone2 = draft.seal_zone2(&attack.sa)?;
        change(&mut draft.zone1);
        fix_ip_checksum(&mut draft.zone1[..20]);
        draft.flags = W;
        counter += 1;
        draft.ivs[0] = relay_iv(1, counter);
        draft.seal_over(&attack.sa.zones[0], &zone2)
    };
    // RFC 1624: the checksum field was moved, so a writing relay leaves its correction in the zeroed field.
    let window = |zone1: &mut Vec<u8>| {
        let (old, new) = (500u16, 100u16);
        zone1[34..36].copy_from_slice(&new.to_be_bytes());
        let correction = headers::fold(u32::from(old) + u32::from(!new));
        zone1[36..38].copy_from_slice(&correction.to_be_bytes());
    };
    let capture = Capture::start(&ctx.net.mh, "mml0", "mml0")?;
    attack.inject(&rewritten(100, &window)?)?;
    attack.inject(&rewritten(101, &|zone1| zone1[1] |= 3)?)?;
    std::thread::sleep(ctx.seconds(0.3));
    let captured = capture.stop()?;
    let seen: Vec<_> = captured
        .headers()
        .filter(|ip| ip.protocol == headers::TCP && ip.source == CN)
        .collect();
    let [first, second] = seen.as_slice() else {
        bail!(
            "{} of 2 permitted rewrites were delivered: {:?}",
            seen.len(),
            Stats::read(&ctx.net.mh)?.namespace
        )
    };
    ensure!(
        first.payload.get(14..16) == Some(&100u16.to_be_bytes()[..]),
        "the window was not rewritten"
    );
    ensure!(
        first.checksum_holds(),
        "TCP's checksum does not hold after the window was rewritten"
    );
    ensure!(
        second.ds & 3 == 3 && second.checksum_holds(),
        "the congestion mark was not rewritten"
    );
    for (number, &(what, octet, bits)) in [
        ("DSCP", 1, 0x20),
        ("destination", 19, 1),
        ("port", 23, 1),
        ("sequence number", 27, 1),
        ("flags", 33, 4),
        ("urgent pointer", 39, 1),
        ("TTL", 8, 1),
    ]
    .iter()
    .enumerate()
    {
        let packet = rewritten(200 + number as u64, &|zone1| zone1[octet] ^= bits)?;
        attack.dropped_for("icv2", what, &packet)?;
    }
    // W and IV must agree, and zone 2's IV is never a relay's.
    let mut draft = Draft::new(&attack.sa, 300, &segment(ACK, 500, b"payload"));
    draft.flags = W;
    attack.dropped_for("iv-w", "W over the origin's IV", &draft.seal(&attack.sa)?)
}

/// docs/wire.md 1.5f, 1.5g, 1.7e, 1.9j, 1.9v, 2.1j.
fn forwards(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        ciphers: [AES256, CHACHA],
        ..Options::default()
    })?;
    let sa = &keys.to_mh;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let datagram =
        IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, b"relay"));
    let good = |sequence| Draft::new(sa, sequence, &datagram).seal(sa);
    let spoiled = |sequence, octet: usize| -> Result<Vec<u8>> {
        let mut packet = good(sequence)?;
        packet[octet] ^= 0x10;
        Ok(packet)
    };
    // Someone must take what arrives, or the mobile host's ICMP errors would be counted too.
    let _receiver = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let rewritten = {
        let mut draft = Draft::new(sa, 40, &datagram);
        draft.flags = W;
        draft.ivs[0] = relay_iv(2, 1);
        draft.seal(sa)?
    };
    let first = good(20)?;
    let mut sent = vec![
        first.clone(),
        first,
        spoiled(21, 30)?,
        spoiled(22, 5)?,
        spoiled(23, 8)?,
        rewritten,
        good(24)?[..14].to_vec(),
    ];
    // Zone 2 is none of the relay's business.
    let mut zone2 = good(25)?;
    if let Some(last) = zone2.last_mut() {
        *last ^= 1;
    }
    sent.push(zone2);
    let mut foreign = good(26)?;
    foreign[3] ^= 1;
    sent.push(foreign);

    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"neighbours are known")?;
    let run = |sent: &[Vec<u8>]| -> Result<Vec<Vec<u8>>> {
        let capture = Capture::start(&ctx.net.fa1, "wl1", "fa1-mh")?;
        for esp in sent {
            traffic::send_raw(&core, &outer(sa, esp))?;
        }
        std::thread::sleep(ctx.seconds(0.3));
        let captured = capture.stop()?;
        Ok(captured
            .packets
            .iter()
            .filter(|packet| packet.header().is_some_and(|ip| ip.destination == MH))
            .filter_map(|packet| packet.esp())
            .map(<[u8]>::to_vec)
            .collect())
    };
    let watch = Watch::start(&ctx.net.fa1)?;
    let passed = run(&sent)?;
    ensure!(
        passed == sent,
        "{} of {} packets came out of the foreign agent as they went in",
        passed.iter().filter(|esp| sent.contains(esp)).count(),
        sent.len()
    );
    let grown = watch.grown()?;
    ensure!(
        grown.get("relayed-packets") == Some(&2),
        "the relay opened {grown:?}"
    );
    for reason in [
        "replay",
        "icv1",
        "flags",
        "rewritten",
        "truncated",
        "relay-no-csa",
    ] {
        ensure!(
            grown.contains_key(reason),
            "none was counted as {reason}: {grown:?}"
        );
    }
    ensure!(
        watch.dropped()? == sent.len() as u64 - 2,
        "{grown:?} do not add up to {}",
        sent.len()
    );

    genl::accepted(
        Genl::open(&ctx.net.fa1)?.set("relay-drop-unopened", 1)?,
        "relay-drop-unopened",
    )?;
    let mut again = vec![good(30)?];
    again.extend(sent.iter().skip(2).take(5).cloned());
    let passed = run(&again)?;
    ensure!(
        passed == again[..1],
        "with relay-drop-unopened {} of {} came through",
        passed.len(),
        again.len()
    );
    Ok(())
}

/// docs/wire.md 1.7q.
fn overtaken(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &Options::default())?;
    let send = |sequence: u64, opened: bool| -> Result<()> {
        let watch = Watch::start(&ctx.net.fa1)?;
        let data = sequence.to_string();
        attack.inject(&attack.draft(sequence, data.as_bytes()).seal(&attack.sa)?)?;
        attack.delivered(data.as_bytes())?;
        let grown = watch.grown()?;
        let expected = if opened { "relayed-packets" } else { "replay" };
        ensure!(
            grown.get(expected) == Some(&1),
            "packet {sequence}: expected {expected}, counted {grown:?}"
        );
        Ok(())
    };
    for (sequence, opened) in [
        (5000, true),
        (5000 - 1023, true),
        (5000 - 1024, false),
        (100, false),
        (5001, true),
    ] {
        send(sequence, opened)?;
    }
    Ok(())
}

/// docs/wire.md 1.7f, 1.7g.
fn joins_late(ctx: &mut Ctx) -> Result<()> {
    use crate::zone_message::{self, Role, ANY, HOME_ONLY};
    let keys = ctx.zone_tunnel(&Options {
        relay: false,
        sequence: 0x1_0000_0100,
        ..Options::default()
    })?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    for _ in 0..10 {
        traffic::udp_arrives(&cn, &mh, b"before the relay")?;
    }
    let add = |top| zone_message::add(&keys.to_mh, Role::Relay, (ANY, HOME_ONLY), 8192, top);
    zone_tunnel_send(ctx, &[add(0x1_0000_010a)])?;
    let watch = Watch::start(&ctx.net.fa1)?;
    for _ in 0..10 {
        traffic::udp_arrives(&cn, &mh, b"with the relay")?;
    }
    ensure!(
        watch.grown()?.get("relayed-packets") == Some(&10),
        "told the right number the relay opened {:?}",
        watch.grown()?
    );
    // Told a number of an older high half, it finds the right one after 8 failures (`docs/wire.md` §1).
    zone_tunnel_send(
        ctx,
        &[zone_message::name(
            zone_message::DELETE,
            &keys.to_mh,
            Role::Relay,
        )],
    )?;
    zone_tunnel_send(ctx, &[add(0x10)])?;
    let watch = Watch::start(&ctx.net.fa1)?;
    for _ in 0..20 {
        traffic::udp_arrives(&cn, &mh, b"with a relay that is behind")?;
    }
    std::thread::sleep(Duration::from_millis(50));
    let opened = watch.grown()?.get("relayed-packets").copied().unwrap_or(0);
    ensure!(
        (10..=13).contains(&opened),
        "a relay one high half behind opened {opened} of 20: {:?}",
        watch.grown()?
    );
    Ok(())
}

fn zone_tunnel_send(ctx: &Ctx, messages: &[crate::zone_message::Message]) -> Result<()> {
    crate::zone_tunnel::send(&ctx.net.fa1, messages).context("at the foreign agent")
}
