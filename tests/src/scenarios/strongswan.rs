// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager with another's: strongSwan's charon, which knows no zones, at the other end of the tunnel.

use anyhow::{ensure, Context, Result};

use super::guard::outside;
use super::pair::{KeydAt, Pair, Setting};
use crate::capture::Capture;
use crate::datagrams::streamed_accounted;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{CN, HOME};
use crate::traffic;

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "strongswan-answers-keyd",
        proves: "strongSwan knows no zones and objects to nothing: keyd, which prefers them, gets plain IPsec from it, XFRM carries everything under the module's policies, and nothing goes in clear",
        seconds: 120,
        run: answers,
    },
    Scenario {
        name: "strongswan-asks-keyd",
        proves: "strongSwan begins from the mobile host's side, keyd at the home agent answers, XFRM carries everything, and nothing goes in clear",
        seconds: 120,
        run: asks,
    },
    Scenario {
        name: "strongswan-and-keyd-agree-on-each-suite",
        proves: "each cipher, PRF and key exchange that both know is agreed on, begun by either, a wrong first guess of the key exchange included",
        seconds: 180,
        run: suites,
    },
    Scenario {
        name: "strongswan-and-keyd-rekey-under-traffic",
        proves: "child and IKE SA are rekeyed under a stream each way, by either side, by both at once, and where a Delete is lost: no packet is lost but such as charon takes the SA from before its kernel has sealed them, none shows, and strongSwan objects to nothing",
        seconds: 180,
        run: rekeys,
    },
];

fn answers(ctx: &mut Ctx) -> Result<()> {
    let pair = Pair::new(ctx, &Setting::default())?;
    pair.keyd_begins()?;
    pair.carries(ctx)?;
    let status = pair.status()?;
    ensure!(
        status["connections"][0]["both_know_zones"] == false,
        "strongSwan knows zones: {status}"
    );
    pair.charon.objects_to_nothing(&[])
}

fn asks(ctx: &mut Ctx) -> Result<()> {
    let setting = Setting {
        at: KeydAt::Home,
        ..Setting::default()
    };
    let pair = Pair::new(ctx, &setting)?;
    pair.charon_begins()?;
    pair.keyd.up("swan", ctx.seconds(10.0))?;
    pair.carries(ctx)?;
    pair.charon.objects_to_nothing(&[])
}

/// What is agreed on, by keyd's name, by charon's, and as charon lists it.
const SUITES: [(&str, &str, &str); 5] = [
    (
        "aes256-gcm16/sha384/x25519",
        "aes256gcm16-prfsha384-x25519",
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
    ),
    (
        "aes128-gcm16/sha256/x25519",
        "aes128gcm16-prfsha256-x25519",
        "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519",
    ),
    (
        "chacha20-poly1305/sha512/x25519",
        "chacha20poly1305-prfsha512-x25519",
        "CHACHA20_POLY1305/PRF_HMAC_SHA2_512/CURVE_25519",
    ),
    (
        "aes256-gcm16/sha256/p256",
        "aes256gcm16-prfsha256-ecp256",
        "AES_GCM_16-256/PRF_HMAC_SHA2_256/ECP_256",
    ),
    (
        "aes256-gcm16/sha384/p384",
        "aes256gcm16-prfsha384-ecp384",
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384",
    ),
];

fn suites(ctx: &mut Ctx) -> Result<()> {
    let all = SUITES.map(|(name, ..)| format!("\"{name}\"")).join(", ");
    let pair = Pair::new(
        ctx,
        &Setting {
            ike: all,
            ..Setting::default()
        },
    )?;
    for (name, proposal, listed) in SUITES {
        pair.load(proposal, "")?;
        for keyd_first in [true, false] {
            if keyd_first {
                pair.keyd_begins()?;
            } else {
                pair.charon_begins()?;
            }
            let list = pair.charon.swanctl(&["--list-sas"])?;
            ensure!(
                list.contains(listed),
                "{name}, begun by {}: charon lists\n{list}",
                if keyd_first { "keyd" } else { "charon" }
            );
            pair.carries(ctx).with_context(|| name.to_owned())?;
            pair.keyd.tell(&["delete", "swan"])?;
            pair.gone(ctx)?;
        }
    }
    // The first guess is another group than the one charon has.
    pair.charon
        .objects_to_nothing(&["unacceptable, requesting", "inacceptable, requesting"])
}

/// Both rekey the child before the other's request is there, as it takes long, and one of the two new ones stays.
fn both_at_once(ctx: &Ctx, pair: &Pair) -> Result<()> {
    // Three times at least, and until both requests were on their way at once.
    let met = || pair.charon.log().contains("collision");
    for turn in 0..8 {
        if turn >= 3 && met() {
            break;
        }
        std::thread::scope(|scope| -> Result<()> {
            let ours = scope.spawn(|| pair.keyd.tell(&["rekey", "swan"]));
            pair.charon.swanctl(&["--rekey", "--child", "net"])?;
            let ours = ours.join();
            ours.map_err(|_| anyhow::anyhow!("keyd's rekeying panicked"))??;
            Ok(())
        })?;
        std::thread::sleep(ctx.seconds(4.0));
        pair.keyd_has(ctx, 30.0, true, 1)?;
    }
    ensure!(met(), "the two never met: {}", pair.both_said());
    Ok(())
}

/// charon's Delete of the old child is lost: its first packet under the new one is what keyd goes by.
fn without_its_delete(ctx: &Ctx, pair: &Pair) -> Result<()> {
    // INFORMATIONAL (37), at its place in the header.
    let core = ctx.net.core()?;
    core.nft(
        "table ip lost {
            chain forward { type filter hook forward priority 0; udp dport 500 @th,208,8 37 counter drop; }
        }",
    )?;
    pair.charon.swanctl(&["--rekey", "--child", "net"])?;
    pair.until(
        ctx,
        10.0,
        "keyd seals with the new child beside the old",
        || {
            let children = pair.children()?;
            Ok(children.len() == 2 && children.iter().all(|child| child["sealing"] == true))
        },
    )?;
    let lost = core.run(&["nft", "list", "table", "ip", "lost"])?;
    ensure!(!lost.contains("packets 0 bytes 0"), "no Delete was lost");
    core.nft("delete table ip lost")?;
    pair.keyd_has(ctx, 30.0, true, 1)
}

fn rekeys(ctx: &mut Ctx) -> Result<()> {
    let pair = Pair::new(ctx, &Setting::default())?;
    pair.keyd_begins()?;
    pair.carries(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    let before = pair.charon.swanctl(&["--list-sas"])?;
    let captures = outside(ctx)?;
    let streams = [(&near, &far), (&far, &near)];
    let lost = || pair.lost_by_charon(ctx);
    streamed_accounted(&streams, &lost, || {
        for _ in 0..2 {
            pair.keyd.tell(&["rekey", "swan"])?;
            std::thread::sleep(ctx.seconds(2.0));
            pair.charon.swanctl(&["--rekey", "--child", "net"])?;
            std::thread::sleep(ctx.seconds(2.0));
            pair.charon.swanctl(&["--rekey", "--ike", "keyd"])?;
            std::thread::sleep(ctx.seconds(2.0));
        }
        without_its_delete(ctx, &pair)
    })
    .with_context(|| pair.all_said(ctx))?;
    // Longer than it takes to start a command.
    let delay = ctx.seconds(0.4).as_millis().min(1500);
    let core = ctx.net.core()?;
    core.tc(&format!(
        "qdisc replace dev ha root netem delay {delay}ms limit 5000
        qdisc replace dev fa1 root netem delay {delay}ms limit 5000"
    ))?;
    streamed_accounted(&streams, &lost, || both_at_once(ctx, &pair))
        .with_context(|| pair.all_said(ctx))?;
    core.tc("qdisc del dev ha root\nqdisc del dev fa1 root")?;
    for captured in captures.into_iter().map(Capture::stop) {
        let captured = captured?;
        ensure!(
            captured
                .headers()
                .all(|ip| ![ip.source, ip.destination].contains(&HOME)),
            "{}: the home address in clear",
            captured.name
        );
    }
    let after = pair.charon.swanctl(&["--list-sas"])?;
    let spis = |list: &str| -> Vec<String> {
        list.lines()
            .filter(|line| line.contains(" in ") || line.contains("_i "))
            .map(str::to_owned)
            .collect()
    };
    ensure!(
        spis(&before) != spis(&after),
        "the keys are the old ones:\n{after}"
    );
    pair.carries(ctx)?;
    pair.charon.objects_to_nothing(&[])
}
