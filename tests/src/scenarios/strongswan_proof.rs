// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager and strongSwan prove to each other who they are by certificates, small ones and such as make IKE's
//! messages longer than packets.

use anyhow::{ensure, Context, Result};

use super::guard::outside;
use super::pair::{KeydAt, Pair, Proof, Setting};
use crate::capture::Capture;
use crate::captured::Captured;
use crate::certificates::{Authority, Kind};
use crate::headers;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{HA, MH};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "strongswan-and-keyd-check-certificates",
        proves: "keyd and strongSwan, whoever begins, prove themselves by ECDSA and by Ed25519 certificates; each refuses the other's from another authority or for another name, and nothing goes in clear",
        seconds: 240,
        run: certificates,
    },
    Scenario {
        name: "strongswan-and-keyd-cut-up-long-messages",
        proves: "with RSA of 4096 bits and an authority in between, whoever begins, IKE_AUTH goes in IKE's own fragments both ways, over a router that drops IP's",
        seconds: 300,
        run: fragments,
    },
];

const BOTH: [KeydAt; 2] = [KeydAt::Mobile, KeydAt::Home];

fn certificates(ctx: &mut Ctx) -> Result<()> {
    for (name, kind) in [("p256", Kind::P256), ("ed25519", Kind::Ed25519)] {
        let root = Authority::root(name, kind)?;
        let (keyd, swan) = (root.owner("keyd.example")?, root.owner("swan.example")?);
        for at in BOTH {
            let setting = Setting {
                at,
                proof: Proof::Certificates {
                    keyd: &keyd,
                    swan: &swan,
                    roots: [&root.certificate; 2],
                },
                ..Setting::default()
            };
            let pair = Pair::new(ctx, &setting)?;
            for keyd_first in [true, false] {
                if keyd_first {
                    pair.keyd_begins()?;
                } else {
                    pair.charon_begins()?;
                }
                pair.carries(ctx)
                    .with_context(|| format!("{kind:?}, keyd at {at:?}, first: {keyd_first}"))?;
                pair.keyd.tell(&["delete", "swan"])?;
                pair.gone(ctx)?;
            }
            let log = pair.charon.log();
            let scheme = match kind {
                Kind::P256 => "with ECDSA_WITH_SHA256_DER successful",
                _ => "with ED25519 successful",
            };
            ensure!(
                log.matches(scheme).count() >= 4,
                "charon neither signs nor checks {scheme}: {log}"
            );
            pair.charon.objects_to_nothing(&[])?;
            pair.end(ctx)?;
        }
    }
    refusals(ctx)
}

fn refusals(ctx: &Ctx) -> Result<()> {
    let (root, other) = (
        Authority::root("own", Kind::P256)?,
        Authority::root("other", Kind::P256)?,
    );
    let (keyd, swan) = (root.owner("keyd.example")?, root.owner("swan.example")?);
    let foreign = (other.owner("keyd.example")?, other.owner("swan.example")?);
    let named = root.owner("another.example")?;
    let (own_root, other_root) = (root.certificate.as_str(), other.certificate.as_str());
    // keyd's certificate, charon's, who charon says it is, the roots that each takes; who refuses.
    let cases = [
        (&keyd, &foreign.1, "swan.example", [own_root; 2], "keyd"),
        (&foreign.0, &swan, "swan.example", [own_root; 2], "charon"),
        (&keyd, &swan, "swan.example", [other_root, own_root], "keyd"),
        (&named, &swan, "swan.example", [own_root; 2], "charon"),
        (&keyd, &named, "another.example", [own_root; 2], "either"),
    ];
    for (case, (keyd, swan, name, roots, who)) in cases.into_iter().enumerate() {
        let at = BOTH[case % 2];
        let setting = Setting {
            at,
            swan: name,
            proof: Proof::Certificates { keyd, swan, roots },
            ..Setting::default()
        };
        let pair = Pair::new(ctx, &setting)?;
        pair.block_at_charon(ctx)?;
        pair.keyd_begins_in_vain()?;
        pair.charon_begins_in_vain()?;
        let keyd_log = pair.keyd.tell(&["log"])?;
        let keyd_refuses = keyd_log.matches("who it is was not proved").count();
        let told = pair.charon.log().matches("[ N(AUTH_FAILED) ]").count();
        let sound = match who {
            "keyd" => keyd_refuses >= 2 && told >= 2,
            "charon" => keyd_refuses == 0 && told >= 2,
            _ => keyd_refuses >= 1 && told >= 1,
        };
        ensure!(
            sound,
            "case {case}: {who} refuses, keyd {keyd_refuses} times, and {told} are told: {}",
            pair.both_said()
        );
        pair.carries_nothing(ctx)
            .with_context(|| format!("case {case}"))?;
        pair.end(ctx)?;
    }
    Ok(())
}

/// `Encrypted and Authenticated Fragment` (RFC 7383).
const SKF: u8 = 53;

/// IKE messages between the two, with their IP packet's octets: whether of the home agent's side, whether a fragment.
fn ike(captured: &Captured) -> impl Iterator<Item = (bool, bool, usize)> + '_ {
    captured.headers().filter_map(|ip| {
        let ends = [ip.source, ip.destination];
        let between = ends == [HA, MH] || ends == [MH, HA];
        let (ours, data) = (ip.source == HA, ip.data()?);
        if ip.protocol != headers::UDP || !between {
            return None;
        }
        let ike = match ip.ports()? {
            (500, 500) => data,
            (4500, 4500) => data.strip_prefix(&[0; 4])?,
            _ => return None,
        };
        Some((ours, *ike.get(16)? == SKF, ip.total_length))
    })
}

fn fragments(ctx: &mut Ctx) -> Result<()> {
    ctx.net.core()?.nft(
        "table ip whole {
            chain forward { type filter hook prerouting priority -450; ip frag-off & 0x3fff != 0 counter drop; }
        }",
    )?;
    let root = Authority::root("root", Kind::Rsa4096)?;
    let between = root.below("between")?;
    let (keyd, swan) = (
        between.owner("keyd.example")?,
        between.owner("swan.example")?,
    );
    for at in BOTH {
        let setting = Setting {
            at,
            charon: "fragment_size = 700",
            proof: Proof::Certificates {
                keyd: &keyd,
                swan: &swan,
                roots: [&root.certificate; 2],
            },
            ..Setting::default()
        };
        let pair = Pair::new(ctx, &setting)?;
        for keyd_first in [true, false] {
            let captures = outside(ctx)?;
            if keyd_first {
                pair.keyd_begins()?;
            } else {
                pair.charon_begins()?;
            }
            for captured in captures.into_iter().map(Capture::stop) {
                let captured = captured?;
                let longest = |ours: bool| {
                    let of = ike(&captured).filter(|(at_home, ..)| *at_home == ours);
                    of.map(|(.., octets)| octets).max().unwrap_or(0)
                };
                let cut = |ours: bool| {
                    let of = ike(&captured).filter(|(at_home, cut, _)| *at_home == ours && *cut);
                    of.count()
                };
                if longest(true) == 0 {
                    continue;
                }
                let keyd_at_home = at == KeydAt::Home;
                ensure!(
                    cut(true) >= 2 && cut(false) >= 2,
                    "{}: {} and {} fragments",
                    captured.name,
                    cut(true),
                    cut(false)
                );
                ensure!(
                    longest(keyd_at_home) <= 1280 && longest(!keyd_at_home) <= 700,
                    "{}: keyd's longest has {} octets, charon's {}",
                    captured.name,
                    longest(keyd_at_home),
                    longest(!keyd_at_home)
                );
            }
            pair.carries(ctx)?;
            pair.keyd.tell(&["delete", "swan"])?;
            pair.gone(ctx)?;
        }
        pair.charon.objects_to_nothing(&[])?;
        pair.end(ctx)?;
    }
    let dropped = ctx
        .net
        .core()?
        .run(&["nft", "list", "table", "ip", "whole"])?;
    ensure!(
        dropped.contains("packets 0 bytes 0"),
        "IP packets were cut up: {dropped}"
    );
    Ok(())
}
