// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager and strongSwan: closing, silence, floods, a NAT between, several key exchanges, and what is refused.

use std::net::Ipv4Addr;

use anyhow::{ensure, Context, Result};

use super::guard::outside;
use super::keyd::hide;
use super::pair::{KeydAt, Pair, Setting};
use crate::capture::Capture;
use crate::charon::Release;
use crate::headers;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "strongswan-and-keyd-close-what-they-opened",
        proves: "a child and an IKE SA closed by either side are gone at both, nothing goes in clear meanwhile, and what is begun again carries everything",
        seconds: 180,
        run: closes,
    },
    Scenario {
        name: "strongswan-and-keyd-notice-silence",
        proves: "each asks the other whether it lives and is answered; each that is left alone gives its IKE SA up, nothing goes in clear, and the connection comes back",
        seconds: 300,
        run: silence,
    },
    Scenario {
        name: "strongswan-and-keyd-ask-for-cookies",
        proves: "flooded with first messages, keyd asks strongSwan for a cookie and strongSwan keyd, each brings it, and the tunnel comes up",
        seconds: 180,
        run: cookies,
    },
    Scenario {
        name: "strongswan-and-keyd-cross-a-nat",
        proves: "with a NAT between, keyd behind it or strongSwan, XFRM's ESP travels in UDP and carries everything, also once the NAT has given the mobile host another port",
        seconds: 180,
        run: crosses_a_nat,
    },
    Scenario {
        name: "strongswan-and-keyd-exchange-several-keys",
        proves: "two more key exchanges follow the first (RFC 9370), begun by either, and both IKE SA and its successors made by either carry everything",
        seconds: 180,
        run: several_exchanges,
    },
    Scenario {
        // qemu/src/newer.rs knows it by this name.
        name: "strongswan-and-keyd-exchange-ml-kem",
        proves: "ML-KEM-768 follows X25519, begun by either, in messages that are cut up; IKE SA and its successors made by either carry everything, and strongSwan objects to nothing",
        seconds: 180,
        run: ml_kem,
    },
    Scenario {
        name: "strongswan-gets-nothing-where-zones-are-required",
        proves: "a keyd that requires zones refuses strongSwan's child with NO_PROPOSAL_CHOSEN and asks for none itself, and nothing goes in clear",
        seconds: 120,
        run: required,
    },
];

fn closes(ctx: &mut Ctx) -> Result<()> {
    let pair = Pair::new(ctx, &Setting::default())?;
    pair.block_at_charon(ctx)?;
    pair.keyd_begins()?;
    pair.carries(ctx)?;
    let children = pair.children()?;
    let spi = children.first().and_then(|child| child["spi_in"].as_u64());
    let spi = spi.context("an SPI")?.to_string();
    // A child, by keyd, then by charon.
    pair.keyd.tell(&["delete", &spi])?;
    pair.keyd_has(ctx, 10.0, true, 0)?;
    let sas = pair.charon.swanctl(&["--list-sas"])?;
    ensure!(
        sas.contains("keyd:") && !sas.contains("net:"),
        "charon lists {sas}"
    );
    pair.carries_nothing(ctx)?;
    pair.keyd_begins()?;
    pair.carries(ctx)?;
    pair.charon.swanctl(&["--terminate", "--child", "net"])?;
    pair.keyd_has(ctx, 10.0, true, 0)?;
    pair.carries_nothing(ctx)?;
    pair.charon_begins()?;
    pair.carries(ctx)?;
    // The IKE SA, by charon, then by keyd.
    pair.charon.swanctl(&["--terminate", "--ike", "keyd"])?;
    pair.keyd_has(ctx, 10.0, false, 0)?;
    pair.carries_nothing(ctx)?;
    pair.charon_begins()?;
    pair.carries(ctx)?;
    pair.keyd.tell(&["delete", "swan"])?;
    pair.gone(ctx)?;
    pair.keyd_has(ctx, 10.0, false, 0)?;
    pair.carries_nothing(ctx)?;
    pair.charon.objects_to_nothing(&[])
}

/// How often charon's log says something.
fn said(pair: &Pair, what: &str) -> usize {
    pair.charon.log().matches(what).count()
}

fn silence(ctx: &mut Ctx) -> Result<()> {
    let setting = Setting {
        node: "tries = 3",
        connection: "liveness = \"2s\"",
        charon: "retransmit_timeout = 1.0\n    retransmit_base = 1.0\n    retransmit_tries = 3",
        ..Setting::default()
    };
    let mut pair = Pair::new(ctx, &setting)?;
    pair.block_at_charon(ctx)?;
    pair.keyd_begins()?;
    pair.until(ctx, 20.0, "keyd asks twice", || {
        Ok(said(&pair, "generating INFORMATIONAL response") >= 2)
    })?;
    ensure!(said(&pair, "sending DPD request") == 0, "charon asked");
    pair.keyd.tell(&["delete", "swan"])?;
    pair.gone(ctx)?;
    // More often than keyd, so that keyd never has to.
    pair.load(&setting.proposals, "dpd_delay = 1s")?;
    pair.charon_begins()?;
    let before = said(&pair, "parsed INFORMATIONAL response");
    pair.until(ctx, 20.0, "charon asks twice", || {
        let answered = said(&pair, "parsed INFORMATIONAL response") >= before + 2;
        Ok(answered && said(&pair, "sending DPD request") >= 2)
    })?;
    pair.charon.objects_to_nothing(&[])?;
    // keyd is away: charon gives up.
    pair.keyd.kill();
    pair.gone(ctx)?;
    pair.carries_nothing(ctx)?;
    pair.keyd.start()?;
    pair.load(&setting.proposals, "")?;
    pair.keyd.answers(ctx.seconds(20.0))?;
    pair.charon_begins()?;
    pair.carries(ctx)?;
    // charon is away: keyd gives up after all its retransmissions, and what it protects stays so.
    pair.charon.kill();
    pair.keyd_has(ctx, 100.0, false, 0)?;
    pair.carries_nothing(ctx)?;
    let (_, other) = KeydAt::Mobile.nodes(ctx);
    other.run(&["ip", "xfrm", "state", "flush"])?;
    other.run(&["ip", "xfrm", "policy", "flush"])?;
    pair.charon.start(ctx)?;
    pair.load(&setting.proposals, "")?;
    pair.charon_begins()?;
    pair.carries(ctx).map(|_| ())
}

/// `IKE_SA_INIT`, at its place in a message's header (RFC 7296 §3.1).
const INIT: (usize, u8) = (18, 34);

/// The first message that went from one address to another, taken from the captures.
fn first_message(captures: Vec<Capture>, from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    for capture in captures {
        let captured = capture.stop()?;
        let found = captured.headers().find_map(|ip| {
            let between = (ip.source, ip.destination) == (from, to);
            let data = ip.data().filter(|_| ip.protocol == headers::UDP)?;
            (between && data.get(INIT.0) == Some(&INIT.1)).then(|| data.to_vec())
        });
        if let Some(message) = found {
            return Ok(message);
        }
    }
    anyhow::bail!("no first message from {from} to {to}")
}

/// Sends a first message so often, each time as another initiator.
fn flood(node: &Netns, from: Ipv4Addr, to: Ipv4Addr, message: &[u8], times: usize) -> Result<()> {
    let socket = traffic::udp(node, from, 40_500)?;
    for _ in 0..times {
        let spi = traffic::random(8);
        let rest = message.get(8..).context("a header")?;
        socket.send_to(&[&spi, rest].concat(), (to, 500))?;
        // One by one, so that none is lost in a queue.
        let answer = traffic::receive(&socket, std::time::Duration::from_secs(5))?;
        ensure!(answer.is_some(), "a first message isn't answered");
    }
    Ok(())
}

fn cookies(ctx: &mut Ctx) -> Result<()> {
    let setting = Setting {
        // The second half-open IKE SA is one too many.
        charon: "cookie_threshold = 1\n    cookie_threshold_ip = 0",
        ..Setting::default()
    };
    let pair = Pair::new(ctx, &setting)?;
    let (keyd_node, charon_node) = setting.at.nodes(ctx);
    let (keyd_at, charon_at) = setting.at.addresses();
    // Who hasn't shown that it receives where it says it is gets nothing but a cookie.
    let captures = outside(ctx)?;
    pair.keyd_begins()?;
    let message = first_message(captures, keyd_at, charon_at)?;
    ensure!(said(&pair, "sending COOKIE") == 0, "charon wants a cookie");
    pair.keyd.tell(&["delete", "swan"])?;
    pair.gone(ctx)?;
    flood(keyd_node, keyd_at, charon_at, &message, 1)?;
    pair.keyd_begins()?;
    let log = pair.charon.log();
    ensure!(
        log.contains("sending COOKIE notify") && log.contains("N(COOKIE) SA KE"),
        "charon wanted no cookie, or keyd brought none: {log}"
    );
    pair.carries(ctx)?;
    let captures = outside(ctx)?;
    pair.keyd.tell(&["delete", "swan"])?;
    pair.gone(ctx)?;
    pair.charon_begins()?;
    let message = first_message(captures, charon_at, keyd_at)?;
    pair.charon.swanctl(&["--terminate", "--ike", "keyd"])?;
    pair.keyd_has(ctx, 10.0, false, 0)?;
    let before = said(&pair, "parsed IKE_SA_INIT response 0 [ N(COOKIE) ]");
    ensure!(before == 0, "keyd wanted a cookie before");
    // keyd's own limit.
    flood(charon_node, charon_at, keyd_at, &message, 100)?;
    pair.charon_begins()?;
    ensure!(
        said(&pair, "parsed IKE_SA_INIT response 0 [ N(COOKIE) ]") == 1,
        "keyd wanted no cookie: {}",
        pair.both_said()
    );
    pair.carries(ctx)?;
    // A cookie of charon's is good for ten seconds, which a debug kernel needs for one exchange.
    let late = ["found cookie, but content invalid"];
    let slow = ctx.patience > 1.0;
    pair.charon.objects_to_nothing(&late[..usize::from(slow)])
}

fn crosses_a_nat(ctx: &mut Ctx) -> Result<()> {
    // Behind a NAT nobody can be reached by the address it has there.
    ctx.net.ha.ip("route del 10.1.0.0/16")?;
    for at in [KeydAt::Mobile, KeydAt::Home] {
        hide(ctx, "7000-7100")?;
        let setting = Setting {
            at,
            behind_nat: true,
            // Who is behind it asks often enough.
            connection: "liveness = \"2s\"",
            peer: if at == KeydAt::Home {
                "dpd_delay = 1s"
            } else {
                ""
            },
            ..Setting::default()
        };
        let pair = Pair::new(ctx, &setting)?;
        match at {
            KeydAt::Mobile => pair.keyd_begins()?,
            KeydAt::Home => pair.charon_begins()?,
        }
        for captured in pair.carries(ctx)? {
            let count = |protocol: u8| {
                captured
                    .headers()
                    .filter(|ip| ip.protocol == protocol)
                    .count()
            };
            let (esp, udp) = (count(headers::ESP), count(headers::UDP));
            let idle = captured.name.contains("fa2") || captured.name.contains("wl2");
            ensure!(
                esp == 0 && (idle || udp > 50),
                "keyd at {at:?}, {}: {esp} packets of ESP, {udp} of UDP",
                captured.name
            );
        }
        // New keys travel the same way.
        pair.keyd.tell(&["rekey", "swan"])?;
        std::thread::sleep(ctx.seconds(1.0));
        pair.charon.swanctl(&["--rekey", "--child", "net"])?;
        std::thread::sleep(ctx.seconds(1.0));
        pair.carries(ctx)?;
        // The NAT forgets, and gives the mobile host another port: the next question it asks tells.
        hide(ctx, "8000-8100")?;
        let near = traffic::udp(&ctx.net.cn, CN, 4100)?;
        let far = traffic::udp(&ctx.net.mh, HOME, 5100)?;
        pair.until(ctx, 30.0, "the home side follows", || {
            near.send_to(b"where are you", far.local_addr()?)?;
            Ok(traffic::receive(&far, traffic::SILENCE)?.is_some())
        })?;
        let captured = pair.carries(ctx)?;
        let new = 8000..=8100;
        let follows = captured.iter().any(|link| {
            let mut ports = link.headers().filter_map(|ip| ip.ports());
            ports.any(|(source, port)| source == 4500 && new.contains(&port))
        });
        ensure!(follows, "nothing goes to the new port");
        pair.charon.objects_to_nothing(&[])?;
        pair.end(ctx)?;
    }
    Ok(())
}

fn several_exchanges(ctx: &mut Ctx) -> Result<()> {
    additional(
        ctx,
        Release::Own,
        ["x25519+p384+p256", "x25519-ke1_ecp384-ke2_ecp256"],
        "CURVE_25519/KE1_ECP_384/KE2_ECP_256",
        2,
    )
}

fn ml_kem(ctx: &mut Ctx) -> Result<()> {
    additional(
        ctx,
        Release::Newer,
        ["x25519+ml-kem-768", "x25519-ke1_mlkem768"],
        "CURVE_25519/KE1_ML_KEM_768",
        1,
    )
}

/// Key exchanges as keyd names them and as charon does, as charon lists them, and how many are additional.
fn additional(
    ctx: &Ctx,
    release: Release,
    [ours, theirs]: [&str; 2],
    listed: &str,
    count: usize,
) -> Result<()> {
    let setting = Setting {
        ike: format!("\"aes256-gcm16/sha384/{ours}\""),
        proposals: format!("aes256gcm16-prfsha384-{theirs}"),
        // By age, since there is no command for the IKE SA alone.
        connection: "rekey = \"5s\"",
        release,
        ..Setting::default()
    };
    let pair = Pair::new(ctx, &setting)?;
    for keyd_first in [true, false] {
        if keyd_first {
            pair.keyd_begins()?;
        } else {
            pair.charon_begins()?;
        }
        let list = pair.charon.swanctl(&["--list-sas"])?;
        ensure!(list.contains(listed), "charon lists\n{list}");
        pair.carries(ctx)?;
        let follow = || {
            (
                said(&pair, "parsed IKE_FOLLOWUP_KE request"),
                said(&pair, "parsed IKE_FOLLOWUP_KE response"),
            )
        };
        let before = follow();
        pair.until(ctx, 20.0, "keyd makes a successor", || {
            Ok(follow().0 >= before.0 + count)
        })?;
        pair.carries(ctx)?;
        pair.charon.swanctl(&["--rekey", "--ike", "keyd"])?;
        pair.until(ctx, 20.0, "charon makes a successor", || {
            Ok(follow().1 >= before.1 + count)
        })?;
        pair.carries(ctx)?;
        pair.keyd.tell(&["delete", "swan"])?;
        pair.gone(ctx)?;
    }
    // Where they were cut up, what was put together is what counts.
    let log = pair.charon.log();
    let exchanged = |way: &str| {
        let of = format!("parsed IKE_INTERMEDIATE {way}");
        let whole = |line: &&str| line.contains(&of) && line.ends_with("[ KE ]");
        log.lines().filter(whole).count()
    };
    let (asked, answered) = (exchanged("request"), exchanged("response"));
    ensure!(
        (asked, answered) == (count, count),
        "{asked} requests of IKE_INTERMEDIATE, {answered} responses"
    );
    pair.charon.objects_to_nothing(&[])
}

/// docs/wire.md 3.2d.
fn required(ctx: &mut Ctx) -> Result<()> {
    for at in [KeydAt::Mobile, KeydAt::Home] {
        let setting = Setting {
            at,
            tunnel: "zones = \"required\"",
            ..Setting::default()
        };
        let pair = Pair::new(ctx, &setting)?;
        pair.block_at_charon(ctx)?;
        pair.keyd_begins_in_vain()?;
        let log = pair.keyd.tell(&["log"])?;
        ensure!(log.contains("knows no zones"), "{log}");
        ensure!(
            !pair.charon.log().contains("parsed IKE_AUTH request"),
            "keyd asked for a child: {}",
            pair.charon.log()
        );
        pair.carries_nothing(ctx)?;
        pair.charon_begins_in_vain()?;
        ensure!(
            pair.charon.log().contains("N(NO_PROP)"),
            "no NO_PROPOSAL_CHOSEN: {}",
            pair.charon.log()
        );
        pair.carries_nothing(ctx)?;
        let (node, _) = at.nodes(ctx);
        let states = node.run(&["ip", "xfrm", "state", "list"])?;
        ensure!(!states.contains("proto esp"), "XFRM has {states}");
        pair.end(ctx)?;
    }
    Ok(())
}
