// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What users and strangers send that looks like the tunnel's own: ports, ESP, sources and SPIs.

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use super::tunnel::no_drops_but;
use crate::capture::Capture;
use crate::headers::{self, IpDraft};
use crate::holders::Part;
use crate::scenario::{Ctx, Scenario};
use crate::stats::{Stats, Watch};
use crate::topology::{CN, HA, HOME, MH};
use crate::traffic;
use crate::zone_esp::{outer, Draft, Sa};
use crate::zone_message::{self, Role, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "user-ports-and-user-esp-go-inside",
        proves: "users' traffic from and to ports 434, 500 and 4500, and their own ESP, goes sealed like any other, and shows on no link",
        seconds: 60,
        run: user_ports,
    },
    Scenario {
        name: "port-4500-without-a-csa-is-forwarded",
        proves: "a foreign agent passes users' UDP from and to port 4500 and strangers' ESP on octet for octet, whatever it looks like",
        seconds: 60,
        run: strangers,
    },
    Scenario {
        name: "two-hosts-with-one-spi",
        proves: "CSAs of two hosts, or of two home agents, that share an SPI are told apart at the foreign agent by their outer ends, and none is opened with another's key",
        seconds: 60,
        run: one_spi,
    },
    Scenario {
        name: "spoofed-inner-sources-are-dropped",
        proves: "with good keys, a mobile host can send as nobody but itself: not as the home agent, the correspondent or another host; and in clear as nobody at all",
        seconds: 60,
        run: spoofed,
    },
    Scenario {
        name: "outer-fragments-are-reassembled-first",
        proves: "a sealed packet that comes in fragments is put together before it is opened; the foreign agent passes the fragments on unseen",
        seconds: 60,
        run: fragments,
    },
];

fn user_ports(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let marker = traffic::random(16);
    let data = traffic::marked(&marker, 300);
    let captures = outside(ctx)?;
    for (from, to) in [
        (434, 434),
        (500, 500),
        (4500, 4500),
        (4500, 5000),
        (4000, 4500),
    ] {
        let near = traffic::udp(&ctx.net.cn, CN, from)?;
        let far = traffic::udp(&ctx.net.mh, HOME, to)?;
        traffic::udp_arrives(&near, &far, &data).with_context(|| format!("from port {from}"))?;
        traffic::udp_arrives(&far, &near, &data).with_context(|| format!("to port {to}"))?;
    }
    // ESP of the users' own, both ways: what arrives is the kernel's to know nothing of.
    let inside = Capture::start(&ctx.net.mh, "mml0", "mh-mml0")?;
    let esp = [&[0, 0, 0x12, 0x34, 0, 0, 0, 1][..], &data].concat();
    let cn = traffic::raw(&ctx.net.cn, 255)?;
    traffic::send_raw(&cn, &IpDraft::new(CN, HOME, headers::ESP).write(&esp))?;
    let mh = traffic::raw(&ctx.net.mh, 255)?;
    traffic::send_raw(&mh, &IpDraft::new(HOME, CN, headers::ESP).write(&esp))?;
    std::thread::sleep(ctx.seconds(0.3));
    let inside = inside.stop()?;
    ensure!(
        inside.holding(&marker) == 2,
        "{} packets of users' ESP came by mml0, not one each way",
        inside.holding(&marker)
    );
    nothing_shows(captures, &marker)?;
    no_drops_but(ctx, &[])
}

/// docs/wire.md 1.7o.
fn strangers(ctx: &mut Ctx) -> Result<()> {
    // Nothing but the relay: correspondent and mobile host talk in clear through it.
    let keys = Keys::new(&Options::default());
    relays(ctx, &[(&keys.to_mh, 0)])?;
    let near = traffic::udp(&ctx.net.cn, CN, 4500)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 4500)?;
    let like_esp = [&keys.to_mh.spi.to_be_bytes()[..], &traffic::random(200)].concat();
    for data in [&like_esp[..], &[0; 64], &[0xFF], &[1, 2, 3], &[]] {
        traffic::udp_arrives(&near, &far, data)?;
        traffic::udp_arrives(&far, &near, data)?;
    }
    let watch = Watch::start(&ctx.net.fa1)?;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let capture = Capture::start(&ctx.net.fa1, "wl1", "fa1-mh")?;
    let mut sent = Vec::new();
    for spi in [1u32, 255, 256, 0x4242_4242] {
        let esp = [&spi.to_be_bytes()[..], &traffic::random(80)].concat();
        traffic::send_raw(&core, &IpDraft::new(HA, MH, headers::ESP).write(&esp))?;
        sent.push(esp);
    }
    std::thread::sleep(ctx.seconds(0.3));
    let passed: Vec<Vec<u8>> = capture.stop()?.esp().map(<[u8]>::to_vec).collect();
    ensure!(passed == sent, "{} of {} passed", passed.len(), sent.len());
    let grown = watch.grown()?;
    ensure!(
        grown.get("relay-no-csa") == Some(&4),
        "counted were {grown:?}"
    );
    Ok(())
}

/// Relay CSAs at the foreign agent.
fn relays(ctx: &Ctx, sas: &[(&Sa, u64)]) -> Result<()> {
    // Of other hosts and home agents than there are.
    ctx.net.fa1.keys.are(Part::LoneRelay);
    let messages: Vec<_> = sas
        .iter()
        .map(|(sa, top)| zone_message::add(sa, Role::Relay, (ANY, HOME_ONLY), 8192, *top))
        .collect();
    zone_tunnel::send(&ctx.net.fa1, &messages)
}

/// docs/wire.md 1.7a.
fn one_spi(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let other = |source, destination| Sa {
        spi: keys.to_mh.spi,
        source,
        destination,
        ..Keys::new(&Options::default()).to_mh
    };
    let second_host = other(HA, [10, 1, 1, 8].into());
    let second_agent = other([198, 51, 100, 77].into(), MH);
    relays(ctx, &[(&second_host, 0), (&second_agent, 0)])?;
    let near = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let datagram =
        IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, b"x"));
    for number in 1..=20 {
        traffic::udp_arrives(&near, &far, b"to the first host")?;
        for sa in [&second_host, &second_agent] {
            let esp = Draft::new(sa, number, &datagram).seal(sa)?;
            traffic::send_raw(&core, &outer(sa, &esp))?;
        }
    }
    std::thread::sleep(ctx.seconds(0.3));
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(
        stats.total("relayed-packets") == 60 && stats.total("icv1") == 0,
        "the foreign agent opened {} of 60, {} under a wrong key",
        stats.total("relayed-packets"),
        stats.total("icv1")
    );
    Ok(())
}

fn spoofed(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        relay: false,
        ..Options::default()
    })?;
    let near = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let fa1 = traffic::raw(&ctx.net.fa1, 255)?;
    let secret = traffic::random(24);
    let from = |source| {
        IpDraft::new(source, CN, headers::UDP).write(&headers::udp(source, 5000, CN, 4000, &secret))
    };
    let watch = Watch::start(&ctx.net.ha)?;
    let sources = [HA, CN, [203, 0, 113, 8].into(), MH, [192, 0, 2, 1].into()];
    for (number, source) in (1..).zip(sources) {
        let esp = Draft::new(&keys.from_mh, number, &from(source)).seal(&keys.from_mh)?;
        traffic::send_raw(&fa1, &outer(&keys.from_mh, &esp))?;
    }
    traffic::silent(&near)?;
    ensure!(
        watch.grown()?.get("selector") == Some(&(sources.len() as u64)),
        "the home agent counted {:?}",
        watch.grown()?
    );
    // In clear, as the host whose traffic must be sealed.
    traffic::send_raw(&fa1, &from(HOME))?;
    traffic::silent(&near)?;
    ensure!(
        watch.grown()?.get("guard-in") == Some(&1),
        "the home agent counted {:?}",
        watch.grown()?
    );
    // And as itself, sealed, it is heard.
    let esp = Draft::new(&keys.from_mh, 50, &from(HOME)).seal(&keys.from_mh)?;
    traffic::send_raw(&fa1, &outer(&keys.from_mh, &esp))?;
    ensure!(
        traffic::receive(&near, traffic::ARRIVES)?.as_deref() == Some(&secret[..]),
        "the true one didn't arrive"
    );
    Ok(())
}

/// docs/wire.md 1.7l.
fn fragments(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let sa = &keys.to_mh;
    let far = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let watch = Watch::start(&ctx.net.fa1)?;
    let mut pieces = 0;
    for (number, (size, step)) in (1000..).zip([(1200, 600), (1200, 8), (3000, 1400), (9000, 512)])
    {
        let data = traffic::random(size);
        let datagram =
            IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, &data));
        let esp = Draft::new(sa, number, &datagram).seal(sa)?;
        let count = esp.len().div_ceil(step);
        for (at, piece) in esp.chunks(step).enumerate() {
            let draft = IpDraft {
                id: number as u16,
                more_fragments: at + 1 < count,
                fragment_offset: at * step,
                ..IpDraft::new(sa.source, sa.destination, headers::ESP)
            };
            traffic::send_raw(&core, &draft.write(piece))?;
            pieces += 1;
        }
        let got = traffic::receive(&far, traffic::ARRIVES)?;
        ensure!(
            got.as_deref() == Some(&data[..]),
            "{size} octets in fragments of {step}: {:?} octets arrived",
            got.map(|data| data.len())
        );
    }
    ensure!(
        watch.grown()?.get("relay-fragment") == Some(&pieces),
        "of {pieces} fragments the foreign agent counted {:?}",
        watch.grown()?
    );
    Ok(())
}
