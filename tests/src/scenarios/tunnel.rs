// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the two-zone tunnel carries, and what the nodes on its way see of it.

use anyhow::{ensure, Context, Result};

use crate::capture::Capture;
use crate::genl::{Genl, EVENTS};
use crate::headers::{self, Ip, IpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::stats::{is_reason, Stats, Watch};
use crate::topology::{CN, HA, HOME, MH};
use crate::traffic;
use crate::zone_esp::{outer, Draft, Sealed};
use crate::zone_message::{self, Role, State, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, Options, AES128, AES256_IIV, CHACHA, CIPHERS};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "tunnel-carries-tcp-udp-icmp",
        proves: "every cipher, kind of IV and zone map carries UDP, TCP and ICMP both ways, intact and without one drop",
        seconds: 180,
        run: carries,
    },
    Scenario {
        name: "every-packet-size-arrives",
        proves: "a datagram of each size from 28 to 1500 octets arrives intact, both ways",
        seconds: 120,
        run: every_size,
    },
    Scenario {
        name: "fragments-and-short-datagrams-arrive",
        proves: "first and later fragments, IP options, cut-off transport headers and bare IP headers cross the tunnel octet for octet",
        seconds: 60,
        run: fragments_and_short,
    },
    Scenario {
        name: "overhead-is-68-to-71-octets",
        proves: "tunnel mode over IPv4 with implicit IVs costs 68 to 71 octets a packet, and the packets open by an independent reading of the format",
        seconds: 60,
        run: overhead,
    },
    Scenario {
        name: "sequence-numbers-cross-32-bits",
        proves: "traffic goes on, and the relay follows, when the low half of the sequence number wraps",
        seconds: 60,
        run: cross_32_bits,
    },
    Scenario {
        name: "newest-csa-seals-and-all-open",
        proves: "with two CSAs for one policy the newer one seals while packets under the older are still accepted",
        seconds: 60,
        run: two_csas,
    },
    Scenario {
        name: "states-decide-who-seals-and-opens",
        proves: "a dying CSA opens and seals nothing, a standby one does neither, and each change is told to the group of events",
        seconds: 60,
        run: states,
    },
];

/// UDP, TCP and ping, both ways.
pub fn everything(ctx: &Ctx, marker: &[u8]) -> Result<()> {
    let net = &ctx.net;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, &traffic::marked(marker, 900))
        .context("UDP to the mobile host")?;
    traffic::udp_arrives(&mh, &cn, &traffic::marked(marker, 900))
        .context("UDP from the mobile host")?;
    traffic::tcp_arrives(
        &net.cn,
        &net.mh,
        HOME,
        5001,
        &traffic::marked(marker, 60_000),
    )
    .context("TCP to the mobile host")?;
    traffic::tcp_arrives(&net.mh, &net.cn, CN, 5002, &traffic::marked(marker, 60_000))
        .context("TCP from the mobile host")?;
    traffic::ping_arrives(&net.cn, CN, HOME, &traffic::marked(marker, 56))?;
    traffic::ping_arrives(&net.mh, HOME, CN, &traffic::marked(marker, 56))
}

/// No node dropped or passed on unopened anything but for these reasons.
pub fn no_drops_but(ctx: &Ctx, allowed: &[&str]) -> Result<()> {
    for namespace in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
        let stats = Stats::read(namespace)?;
        for (name, count) in &stats.namespace {
            ensure!(
                *count == 0 || !is_reason(name) || allowed.contains(&name.as_str()),
                "{} counted {count} × {name}",
                namespace.name()
            );
        }
    }
    Ok(())
}

/// docs/wire.md 1.8b, 2.3j.
fn carries(ctx: &mut Ctx) -> Result<()> {
    zone_tunnel::devices(&ctx.net)?;
    zone_tunnel::protect(&ctx.net)?;
    crate::tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    let mixed = [[AES128, CHACHA], [CHACHA, AES256_IIV]];
    let pairs = CIPHERS.map(|cipher| [cipher; 2]).into_iter().chain(mixed);
    for ciphers in pairs {
        for stop in [None, Some(40)] {
            let what = format!(
                "zones by {} and {}, zone 1 to {stop:?}",
                ciphers[0].name, ciphers[1].name
            );
            zone_tunnel::load(
                &ctx.net,
                &Options {
                    ciphers,
                    stop,
                    ..Options::default()
                },
            )
            .with_context(|| what.clone())?;
            let marker = traffic::random(16);
            let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
            everything(ctx, &marker).with_context(|| what.clone())?;
            capture
                .stop()?
                .never_shows(&marker)
                .with_context(|| what.clone())?;
            // A full segment is too big for what the senders don't know yet of the path; they are told.
            no_drops_but(ctx, &["too-big"]).with_context(|| what.clone())?;
            let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
            ensure!(relayed > 0, "{what}: the foreign agent opened nothing");
            zone_tunnel::flush_csas(&ctx.net)?;
        }
    }
    Ok(())
}

fn every_size(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let octets = traffic::random(3000);
    for (from, to) in [(&cn, &mh), (&mh, &cn)] {
        for size in 28..=3000 {
            traffic::udp_arrives(from, to, octets.get(..size - 28).unwrap_or_default())
                .with_context(|| format!("IP packet of {size} octets"))?;
        }
    }
    no_drops_but(ctx, &[])
}

fn fragments_and_short(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let data = traffic::random(400);
    let udp = headers::udp(CN, 4000, HOME, 5000, &data);
    let tcp = headers::TcpDraft {
        source_port: 4000,
        destination_port: 9,
        sequence: 1,
        acknowledgement: 0,
        flags: 0x10,
        window: 1000,
    }
    .write(CN, HOME, &data);
    let plain = |protocol| IpDraft::new(CN, HOME, protocol);
    let mut cases: Vec<(String, IpDraft, Vec<u8>)> = vec![
        (
            "first fragment".into(),
            IpDraft {
                more_fragments: true,
                ..plain(headers::UDP)
            },
            udp[..200].to_vec(),
        ),
        (
            "middle fragment".into(),
            IpDraft {
                more_fragments: true,
                fragment_offset: 200,
                ..plain(headers::UDP)
            },
            udp[200..304].to_vec(),
        ),
        (
            "last fragment".into(),
            IpDraft {
                fragment_offset: 304,
                ..plain(headers::UDP)
            },
            udp[304..].to_vec(),
        ),
        (
            "first fragment of TCP shorter than its header".into(),
            IpDraft {
                more_fragments: true,
                ..plain(headers::TCP)
            },
            tcp[..16].to_vec(),
        ),
        (
            "a later fragment that looks like TCP".into(),
            IpDraft {
                fragment_offset: 8,
                ..plain(headers::TCP)
            },
            tcp.clone(),
        ),
        (
            "IP options".into(),
            IpDraft {
                options: vec![1; 12],
                ..plain(headers::UDP)
            },
            udp.clone(),
        ),
        ("a protocol nobody knows".into(), plain(253), data.clone()),
        ("IP in IP".into(), plain(4), plain(headers::UDP).write(&udp)),
    ];
    for length in 0..24 {
        cases.push((
            format!("{length} octets of TCP"),
            plain(headers::TCP),
            tcp[..length].to_vec(),
        ));
        cases.push((
            format!("{length} octets of UDP"),
            plain(headers::UDP),
            udp[..length].to_vec(),
        ));
    }
    traffic::ping_arrives(
        &ctx.net.cn,
        CN,
        HOME,
        b"routes and neighbours are known now",
    )?;
    let socket = traffic::raw(&ctx.net.cn, 255)?;
    let capture = Capture::start(&ctx.net.mh, "mml0", "mml0")?;
    for (number, (_, draft, payload)) in cases.iter_mut().enumerate() {
        draft.id = 0x7000 + number as u16;
        traffic::send_raw(&socket, &draft.write(payload))?;
    }
    std::thread::sleep(ctx.seconds(0.5));
    let captured = capture.stop()?;
    for (what, draft, payload) in &cases {
        let sent = draft.write(payload);
        let received = captured
            .packets
            .iter()
            .filter_map(|packet| packet.ip())
            .find(|ip| ip.get(4..6) == sent.get(4..6));
        let received = received.with_context(|| format!("{what}: did not arrive"))?;
        let (sent, received) = (
            Ip::parse(&sent).context("sent")?,
            Ip::parse(received).context("received")?,
        );
        ensure!(
            received.payload == sent.payload,
            "{what}: arrived changed: {:02x?}",
            received.payload
        );
        ensure!(
            (
                received.source,
                received.destination,
                received.protocol,
                received.fragment_offset,
                received.more_fragments,
                received.header_length
            ) == (
                sent.source,
                sent.destination,
                sent.protocol,
                sent.fragment_offset,
                sent.more_fragments,
                sent.header_length
            ),
            "{what}: the header arrived changed: {received:?}"
        );
    }
    // Datagrams that the sender itself must fragment.
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    for size in [3000, 9000, 40_000] {
        let data = traffic::random(size);
        traffic::udp_arrives(&cn, &mh, &data)?;
        traffic::udp_arrives(&mh, &cn, &data)?;
    }
    no_drops_but(ctx, &[])
}

/// Captures every link, never at an end of the tunnel: what a capture there shows may be what the kernel has already
/// opened (XFRM shows it on the interface it came by) or has not yet sealed.
pub fn all_links(ctx: &Ctx) -> Result<Vec<Capture>> {
    Ok(vec![
        Capture::start(&ctx.net.cn, "ha", "cn-ha")?,
        Capture::start(ctx.net.core()?, "ha", "ha-core")?,
        Capture::start(ctx.net.core()?, "fa1", "core-fa1")?,
        Capture::start(&ctx.net.fa1, "wl1", "fa1-mh")?,
    ])
}

/// docs/wire.md 1.6e, 1.7j.
fn overhead(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let capture = Capture::start(&ctx.net.ha, "core", "ha-core")?;
    for size in 60..120 {
        traffic::udp_arrives(&cn, &mh, &traffic::random(size))?;
    }
    let captured = capture.stop()?;
    let mut seen = 0;
    for packet in captured
        .packets
        .iter()
        .filter(|packet| packet.esp().is_some())
    {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else {
            continue;
        };
        ensure!(
            outer.df && !outer.is_fragment(),
            "an outer packet without DF, or a fragment"
        );
        ensure!(
            (outer.source, outer.destination) == (HA, MH),
            "outer addresses {} > {}",
            outer.source,
            outer.destination
        );
        let sealed = Sealed::parse(esp)?;
        let inner = sealed.open(&keys.to_mh)?;
        let ip = Ip::parse(&inner).context("no inner packet")?;
        ensure!(
            ip.checksum_holds(),
            "the inner checksum is wrong once the moved one is back"
        );
        let cost = outer.total_length - inner.len();
        ensure!(
            (68..=71).contains(&cost),
            "{cost} octets of overhead on {}",
            inner.len()
        );
        seen += 1;
    }
    ensure!(seen == 60, "{seen} of 60 packets were seen");
    Ok(())
}

/// docs/wire.md 1.7d.
fn cross_32_bits(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        sequence: 0xffff_fff0,
        ..Options::default()
    })?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    for _ in 0..50 {
        traffic::udp_arrives(&cn, &mh, &traffic::random(100))?;
        traffic::udp_arrives(&mh, &cn, &traffic::random(100))?;
    }
    let captured = capture.stop()?;
    let low: Vec<u32> = captured
        .esp()
        .filter_map(|esp| Sealed::parse(esp).ok())
        .filter(|sealed| sealed.spi == keys.to_mh.spi)
        .map(|sealed| sealed.sequence_low)
        .collect();
    ensure!(
        low.first() == Some(&0xffff_fff1) && low.contains(&0) && low.contains(&1),
        "numbers seen: {low:x?}"
    );
    ensure!(
        Stats::read(&ctx.net.fa1)?.total("relayed-packets") == 100,
        "the relay lost the count"
    );
    no_drops_but(ctx, &[])
}

/// docs/wire.md 2.2p.
fn two_csas(ctx: &mut Ctx) -> Result<()> {
    let old = ctx.zone_tunnel(&Options::default())?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, b"under the old one")?;
    let new = zone_tunnel::Keys::new(&Options::default());
    zone_tunnel::send(
        &ctx.net.mh,
        &[zone_message::add(
            &new.to_mh,
            Role::Terminus,
            (ANY, HOME_ONLY),
            8192,
            0,
        )],
    )?;
    zone_tunnel::send(
        &ctx.net.ha,
        &[zone_message::add(
            &new.to_mh,
            Role::Origin,
            (ANY, HOME_ONLY),
            8192,
            0,
        )],
    )?;
    let capture = Capture::start(&ctx.net.ha, "core", "ha-core")?;
    traffic::udp_arrives(&cn, &mh, b"under the new one")?;
    let captured = capture.stop()?;
    let spis: Vec<u32> = captured
        .esp()
        .filter_map(|esp| Sealed::parse(esp).ok())
        .map(|sealed| sealed.spi)
        .collect();
    ensure!(
        spis == [new.to_mh.spi],
        "sealed under {spis:x?}, not the new {:x}",
        new.to_mh.spi
    );
    // What was under way under the old one.
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let late =
        IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, b"late"));
    let esp = Draft::new(&old.to_mh, 100, &late).seal(&old.to_mh)?;
    traffic::send_raw(&core, &outer(&old.to_mh, &esp))?;
    ensure!(
        traffic::receive(&mh, traffic::ARRIVES)?.as_deref() == Some(b"late"),
        "a packet under the old CSA was not accepted"
    );
    // The new one gone, the old one seals again.
    zone_tunnel::send(
        &ctx.net.ha,
        &[zone_message::name(
            zone_message::DELETE,
            &new.to_mh,
            Role::Origin,
        )],
    )?;
    traffic::udp_arrives(&cn, &mh, b"under the old one again")?;
    // The new one never got to the foreign agent.
    no_drops_but(ctx, &["relay-no-csa"])
}

/// docs/wire.md 2.2f, 2.2s.
fn states(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let (ha, mh) = (&ctx.net.ha, &ctx.net.mh);
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let receiver = traffic::udp(mh, HOME, 5000)?;
    let core = traffic::raw(ctx.net.core()?, 255)?;
    traffic::udp_arrives(&cn, &receiver, b"both active")?;
    let events = Genl::open(mh)?;
    events.join(EVENTS)?.context("joining the events")?;
    let set = |node, role, state| {
        zone_tunnel::send(node, &[zone_message::update(&keys.to_mh, role, state)])
    };
    let mut sequence = 100;
    let mut sealed_by_test = || -> Result<()> {
        sequence += 1;
        let udp = headers::udp(CN, 4000, HOME, 5000, b"sealed by the test");
        let datagram = IpDraft::new(CN, HOME, headers::UDP).write(&udp);
        let esp = Draft::new(&keys.to_mh, sequence, &datagram).seal(&keys.to_mh)?;
        traffic::send_raw(&core, &outer(&keys.to_mh, &esp))
    };
    set(mh, Role::Terminus, State::Dying)?;
    let event = events
        .event(traffic::ARRIVES)?
        .context("no event of the change")?;
    ensure!(
        event.get(1) == Some(&zone_message::CSA_STATE),
        "event {event:02x?}"
    );
    sealed_by_test()?;
    let opened = traffic::receive(&receiver, traffic::ARRIVES)?;
    ensure!(
        opened.is_some(),
        "a dying terminus does not open what is still under way"
    );
    set(mh, Role::Terminus, State::Standby)?;
    let watch = Watch::start(mh)?;
    sealed_by_test()?;
    traffic::silent(&receiver)?;
    watch.expect(&[("not-active", 1)])?;
    set(mh, Role::Terminus, State::Active)?;
    traffic::udp_arrives(&cn, &receiver, b"active again")?;
    for state in [State::Dying, State::Standby] {
        set(ha, Role::Origin, state)?;
        let watch = Watch::start(ha)?;
        cn.send_to(b"not to be sealed", (HOME, 5000))?;
        traffic::silent(&receiver)?;
        watch.expect(&[("no-csa", 1)])?;
    }
    set(ha, Role::Origin, State::Active)?;
    traffic::udp_arrives(&cn, &receiver, b"sealed again")
}
