// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The key manager with another's: strongSwan's charon, which knows no zones, at the other end of the tunnel.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::guard::{nothing_shows, outside};
use super::keyd::Keyd;
use super::tunnel::everything;
use super::udp::streamed_but;
use crate::capture::Capture;
use crate::charon::Charon;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HA, HOME, MH};
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
        proves: "child and IKE SA are rekeyed by either side under a stream each way, which goes on and shows nothing; strongSwan objects to nothing",
        seconds: 180,
        run: rekeys,
    },
];

/// Which end of the tunnel keyd is; charon is the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeydAt {
    Home,
    Mobile,
}

impl KeydAt {
    /// keyd's node, and charon's.
    fn nodes<'a>(self, ctx: &'a Ctx<'_>) -> (&'a Netns, &'a Netns) {
        match self {
            KeydAt::Home => (&ctx.net.ha, &ctx.net.mh),
            KeydAt::Mobile => (&ctx.net.mh, &ctx.net.ha),
        }
    }

    /// keyd's address, and charon's.
    fn addresses(self) -> (std::net::Ipv4Addr, std::net::Ipv4Addr) {
        match self {
            KeydAt::Home => (HA, MH),
            KeydAt::Mobile => (MH, HA),
        }
    }
}

/// How both sides are set up, where it isn't as everywhere.
struct Setting {
    at: KeydAt,
    /// keyd's suites, as `keyd.toml` has them.
    ike: String,
    /// More lines of keyd's connection.
    connection: &'static str,
    /// charon's proposals.
    proposals: String,
    /// More lines of charon's connection.
    peer: &'static str,
    /// More lines of `strongswan.conf`.
    charon: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            at: KeydAt::Mobile,
            ike: "\"aes256-gcm16/sha384/x25519\"".to_owned(),
            connection: "",
            proposals: "aes256gcm16-prfsha384-x25519".to_owned(),
            peer: "",
            charon: "",
        }
    }
}

struct Pair<'a> {
    keyd: Keyd<'a>,
    charon: Charon<'a>,
    secret: String,
    addresses: (std::net::Ipv4Addr, std::net::Ipv4Addr),
    at: KeydAt,
}

impl<'a> Pair<'a> {
    fn new(ctx: &'a Ctx<'_>, setting: &Setting) -> Result<Self> {
        crate::topology::linear(&ctx.net)?;
        let (node, other) = setting.at.nodes(ctx);
        // The route into mml0 may stand: XFRM takes the packets before they come there.
        node.ip("link add mml0 type mml\nlink set mml0 up")?;
        let (role, tunnel, route) = match setting.at {
            KeydAt::Home => (
                "gateway",
                "remote = \"203.0.113.7\"",
                "route replace 203.0.113.7/32 dev mml0",
            ),
            KeydAt::Mobile => (
                "host",
                "local = \"203.0.113.7\"",
                "route replace default dev mml0 src 203.0.113.7",
            ),
        };
        node.ip(route)?;
        let addresses = setting.at.addresses();
        let (own, peer) = addresses;
        let secret = format!("0x{}", hex(&traffic::random(32)));
        let configuration = format!(
            "[node]
role = \"{role}\"
identity = \"keyd.example\"
addresses = [\"{own}\"]

[[connection]]
name = \"swan\"
remote = \"{peer}\"
remote-identity = \"swan.example\"
auth = \"psk\"
secret-file = \"swan.psk\"
start = \"peer\"
ike = [{}]
{}

[connection.tunnel]
{tunnel}
",
            setting.ike, setting.connection
        );
        let charon = Charon::new(ctx, other, setting.charon)?;
        let keyd = Keyd::with_files(
            node,
            &configuration,
            &[("swan.psk", &format!("{secret}\n"))],
        )?;
        let pair = Self {
            keyd,
            charon,
            secret,
            addresses,
            at: setting.at,
        };
        pair.load(&setting.proposals, setting.peer)?;
        Ok(pair)
    }

    /// Gives charon its connection.
    fn load(&self, proposals: &str, more: &str) -> Result<()> {
        let (peer, own) = self.addresses;
        let (local, remote) = match self.at {
            KeydAt::Home => ("203.0.113.7/32", "0.0.0.0/0"),
            KeydAt::Mobile => ("0.0.0.0/0", "203.0.113.7/32"),
        };
        self.charon.load(&format!(
            "connections {{
    keyd {{
        version = 2
        local_addrs = {own}
        remote_addrs = {peer}
        proposals = {proposals}
        {more}
        local {{
            auth = psk
            id = swan.example
        }}
        remote {{
            auth = psk
            id = keyd.example
        }}
        children {{
            net {{
                local_ts = {local}
                remote_ts = {remote}
                esp_proposals = aes256gcm16-x25519-esn
            }}
        }}
    }}
}}
secrets {{
    ike-keyd {{
        id-swan = swan.example
        id-keyd = keyd.example
        secret = {}
    }}
}}
",
            self.secret
        ))
    }

    /// keyd begins.
    fn keyd_begins(&self) -> Result<()> {
        let begun = self.keyd.tell(&["initiate", "swan", "--wait", "20"]);
        begun.map(|_| ()).with_context(|| self.both_said())
    }

    /// charon begins.
    fn charon_begins(&self) -> Result<()> {
        let begun = self
            .charon
            .swanctl(&["--initiate", "--child", "net", "--timeout", "20"]);
        begun.map(|_| ()).with_context(|| self.both_said())
    }

    /// Waits until charon has no SA any more.
    fn gone(&self, ctx: &Ctx) -> Result<()> {
        let end = Instant::now() + ctx.seconds(20.0);
        while self.charon.swanctl(&["--list-sas"])?.contains("keyd:") {
            ensure!(Instant::now() < end, "{}", self.both_said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn both_said(&self) -> String {
        let keyd = self.keyd.tell(&["log"]).unwrap_or_default();
        format!("keyd's log:\n{keyd}\ncharon's log:\n{}", self.charon.log())
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.keyd.tell(&["status"])?)?)
    }

    /// Everything crosses in XFRM's ESP, and no link shows any of it.
    fn carries(&self, ctx: &Ctx) -> Result<()> {
        let (node, other) = self.at.nodes(ctx);
        for node in [node, other] {
            let states = node.run(&["ip", "xfrm", "state", "count"])?;
            ensure!(!states.contains("count 0"), "{}: {states}", node.name());
        }
        let marker = traffic::random(16);
        let captures = outside(ctx)?;
        everything(ctx, &marker).with_context(|| self.both_said())?;
        nothing_shows(captures, &marker)?;
        let sealed = Stats::read(node)?.total("sealed-packets");
        ensure!(sealed == 0, "the module sealed {sealed} packets");
        Ok(())
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

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

fn rekeys(ctx: &mut Ctx) -> Result<()> {
    let pair = Pair::new(ctx, &Setting::default())?;
    pair.keyd_begins()?;
    pair.carries(ctx)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    let before = pair.charon.swanctl(&["--list-sas"])?;
    // keyd takes the old inbound SA of a plain child away with its Delete; what is on its way under it is lost.
    let captures = outside(ctx)?;
    streamed_but(&[(&near, &far), (&far, &near)], 60, || {
        for _ in 0..2 {
            pair.keyd.tell(&["rekey", "swan"])?;
            std::thread::sleep(ctx.seconds(2.0));
            pair.charon.swanctl(&["--rekey", "--child", "net"])?;
            std::thread::sleep(ctx.seconds(2.0));
            pair.charon.swanctl(&["--rekey", "--ike", "keyd"])?;
            std::thread::sleep(ctx.seconds(2.0));
        }
        Ok(())
    })
    .with_context(|| pair.both_said())?;
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
