// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Packet sizes, life-times and congestion marks: what a path does to a packet and the tunnel must hand on.

use anyhow::{ensure, Context, Result};

use crate::capture::Capture;
use crate::genl::{self, Genl};
use crate::headers::{self, Ip, IpDraft};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Watch;
use crate::topology::{CN, HA, HOME, MH};
use crate::zone_esp::{outer, Draft};
use crate::zone_tunnel::{Options, AES256, AES256_IIV};
use crate::{sys, traffic};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "inner-df-too-big-gets-icmp",
        proves: "an inner packet with DF that does not fit is answered with the MTU the tunnel really has, and one of that size passes",
        seconds: 60,
        run: df_too_big,
    },
    Scenario {
        name: "inner-no-df-is-fragmented",
        proves: "an inner packet without DF that does not fit is fragmented before sealing, and no outer packet ever is",
        seconds: 60,
        run: no_df,
    },
    Scenario {
        name: "path-mtu-shrinks-outer",
        proves: "an ICMP error about the outer packet lowers the tunnel's MTU, and inner senders on both sides are told",
        seconds: 90,
        run: path_shrinks,
    },
    Scenario {
        name: "path-mtu-shrinks-under-streams",
        proves: "while the path narrows step by step under TCP and UDP both ways, TCP goes on to its last octet, UDP arrives in the end, and no outer packet is a fragment",
        seconds: 120,
        run: shrinks_under_streams,
    },
    Scenario {
        name: "jumbo-and-tiny-mtus-carry-everything",
        proves: "on links of 9000 and of 256 octets TCP, and UDP of every size around the tunnel's own MTU, arrive whole",
        seconds: 120,
        run: jumbo_and_tiny,
    },
    Scenario {
        name: "mss-is-clamped",
        proves: "TCP's MSS option is lowered to what the tunnel carries, in both directions, and the setting turns it off",
        seconds: 60,
        run: mss,
    },
    Scenario {
        name: "ttl-counts-one-hop",
        proves: "the tunnel counts as one hop for the inner TTL, and a packet at its last hop is answered, not sealed",
        seconds: 60,
        run: ttl,
    },
    Scenario {
        name: "dscp-and-ecn-follow-rfc-6040",
        proves: "the outer header copies DSCP and ECN, and the terminus combines both ECN fields by RFC 6040's table",
        seconds: 60,
        run: dscp_ecn,
    },
];

/// The largest inner packet that fits `path`: the zones' ciphertext is a multiple of 4 and holds the moved checksum and
/// the trailer (`docs/wire.md` §1).
fn inner_mtu(path: usize, iv_octets: usize) -> usize {
    (path - 20 - 12 - 2 * 16 - iv_octets) / 4 * 4 - 2 - 2
}

/// The MTU in the ICMP "fragmentation needed" that answers `packet`, sent raw from `node`.
fn told_mtu(node: &Netns, packet: &[u8]) -> Result<Option<usize>> {
    let errors = traffic::raw(node, headers::ICMP)?;
    let sender = traffic::raw(node, 255)?;
    traffic::send_raw(&sender, packet)?;
    traffic::await_raw(&errors, traffic::ARRIVES, |ip| {
        let quoted = ip.payload.get(8..)?;
        let ours = quoted.get(4..6) == packet.get(4..6);
        (ip.payload.get(..2) == Some(&[3, 4]) && ours)
            .then(|| usize::from(u16::from_be_bytes([ip.payload[6], ip.payload[7]])))
    })
}

fn datagram(size: usize, df: bool) -> Vec<u8> {
    IpDraft {
        df,
        id: size as u16,
        ..IpDraft::new(CN, HOME, headers::UDP)
    }
    .write(&headers::udp(CN, 4000, HOME, 5000, &vec![0x55; size - 28]))
}

/// docs/wire.md 1.7k.
fn df_too_big(ctx: &mut Ctx) -> Result<()> {
    for (ciphers, ivs) in [([AES256_IIV; 2], 0), ([AES256; 2], 16)] {
        let options = Options {
            ciphers,
            ..Options::default()
        };
        if ivs == 0 {
            ctx.zone_tunnel(&options)?;
        } else {
            crate::zone_tunnel::flush_csas(&ctx.net)?;
            crate::zone_tunnel::load(&ctx.net, &options)?;
        }
        let expected = inner_mtu(1500, ivs);
        // The first answer may be the device's MTU, which no single CSA decides; who heeds it is told the CSA's.
        let mut told = told_mtu(&ctx.net.cn, &datagram(1500, true))?.context("no ICMP came")?;
        if told > expected {
            told = told_mtu(&ctx.net.cn, &datagram(told, true))?.context("no second ICMP came")?;
        }
        ensure!(told == expected, "told {told}, but {expected} octets fit");
        let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
        let sender = traffic::raw(&ctx.net.cn, 255)?;
        traffic::send_raw(&sender, &datagram(told, true))?;
        ensure!(
            traffic::receive(&mh, traffic::ARRIVES)?.is_some_and(|data| data.len() == told - 28),
            "a packet of the told size does not pass"
        );
        ensure!(
            told_mtu(&ctx.net.cn, &datagram(told + 1, true))?.is_some(),
            "one octet more is not answered"
        );
        traffic::silent(&mh)?;
        // The mobile host's own sockets are told by their send call.
        let own = traffic::udp(&ctx.net.mh, HOME, 6000)?;
        traffic::dont_fragment(&own)?;
        let _peer = traffic::udp(&ctx.net.cn, CN, 4000)?;
        own.connect((CN, 4000))?;
        let mut size = 1500;
        for _ in 0..3 {
            let sent = own.send(&vec![0; size - 28]);
            let known = sys::option(&own, libc::IPPROTO_IP, libc::IP_MTU)? as usize;
            match sent {
                Err(error) => ensure!(
                    error.raw_os_error() == Some(libc::EMSGSIZE),
                    "sending {size} octets with DF: {error}"
                ),
                // The one that teaches the socket is lost to the lesson.
                Ok(_) => ensure!(
                    known < size || size <= expected,
                    "a socket of the mobile host may send {size} octets with DF"
                ),
            }
            size = known;
        }
        ensure!(
            size == expected,
            "the socket believes in {size} octets, {expected} fit"
        );
    }
    Ok(())
}

/// docs/wire.md 1.7j, 1.7k.
fn no_df(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let captures = super::tunnel::all_links(ctx)?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    for size in [1400, 1405, 1410, 1472] {
        traffic::udp_arrives(&cn, &mh, &traffic::random(size))?;
        traffic::udp_arrives(&mh, &cn, &traffic::random(size))?;
    }
    for capture in captures.into_iter().skip(1) {
        let captured = capture.stop()?;
        for ip in captured.headers() {
            ensure!(
                !ip.is_fragment() && ip.df,
                "{}: an outer fragment or a packet without DF",
                captured.name
            );
            ensure!(
                ip.total_length <= 1500,
                "{}: {} octets",
                captured.name,
                ip.total_length
            );
        }
    }
    super::tunnel::no_drops_but(ctx, &[])
}

/// docs/wire.md 1.7k.
fn path_shrinks(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"before")?;
    ctx.net.core()?.ip("link set fa1 mtu 1300")?;
    ctx.net.fa1.ip("link set core mtu 1300")?;
    let capture = Capture::start(&ctx.net.ha, "core", "ha-core")?;
    let expected = inner_mtu(1300, 0);
    // The first packet that doesn't fit is lost to the lesson; then inner senders are told.
    let sender = traffic::raw(&ctx.net.cn, 255)?;
    traffic::send_raw(&sender, &datagram(1400, true))?;
    std::thread::sleep(ctx.seconds(0.3));
    let told =
        told_mtu(&ctx.net.cn, &datagram(1401, true))?.context("the correspondent is not told")?;
    ensure!(told == expected, "told {told}, but {expected} octets fit");
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, &traffic::random(told - 28))?;
    traffic::udp_arrives(&cn, &mh, &traffic::random(1472)).context("without DF")?;
    let data = traffic::random(200_000);
    traffic::tcp_arrives(&ctx.net.cn, &ctx.net.mh, HOME, 5001, &data)
        .context("TCP from the correspondent")?;
    traffic::tcp_arrives(&ctx.net.mh, &ctx.net.cn, CN, 5002, &data)
        .context("TCP from the mobile host")?;
    let captured = capture.stop()?;
    ensure!(
        captured.headers().all(|ip| !ip.is_fragment()),
        "an outer fragment was seen"
    );
    // And a forged error that names a tunnel nobody has changes nothing.
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let stranger = IpDraft {
        df: true,
        ..IpDraft::new(HA, MH, headers::ESP)
    }
    .write(&[0x7f; 64]);
    let forged = headers::icmp(3, 4, [0, 0, 0x02, 0x40], &stranger[..28]);
    traffic::send_raw(
        &core,
        &IpDraft::new(std::net::Ipv4Addr::new(198, 51, 100, 2), HA, headers::ICMP).write(&forged),
    )?;
    std::thread::sleep(ctx.seconds(0.2));
    traffic::udp_arrives(&cn, &mh, &traffic::random(told - 28)).context("after a forged error")?;
    Ok(())
}

/// The links of the path behind the home agent, both ends of each.
fn links<'a>(ctx: &'a Ctx<'_>) -> Result<[(&'a Netns, &'static str); 6]> {
    let net = &ctx.net;
    Ok([
        (&net.ha, "core"),
        (net.core()?, "ha"),
        (net.core()?, "fa1"),
        (&net.fa1, "core"),
        (&net.fa1, "wl1"),
        (&net.mh, "wl1"),
    ])
}

/// docs/wire.md 1.7k.
fn shrinks_under_streams(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let ctx = &*ctx;
    let net = &ctx.net;
    // Slow enough that the path changes while they run.
    net.fa1
        .tc("qdisc add dev wl1 root netem rate 8mbit limit 200")?;
    let capture = Capture::start(net.core()?, "fa1", "core-fa1")?;
    let data = traffic::random(1_500_000);
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    std::thread::scope(|scope| {
        let streams = [
            scope.spawn(|| traffic::tcp_arrives(&net.cn, &net.mh, HOME, 5001, &data)),
            scope.spawn(|| traffic::tcp_arrives(&net.mh, &net.cn, CN, 5002, &data)),
        ];
        for mtu in [1400, 1300, 1100, 900, 700] {
            std::thread::sleep(ctx.seconds(0.4));
            for (namespace, device) in [(net.core()?, "fa1"), (&net.fa1, "core")] {
                namespace.ip(&format!("link set {device} mtu {mtu}"))?;
            }
            for (from, to) in [(&cn, &mh), (&mh, &cn)] {
                // The first that don't fit are lost to the lesson.
                for attempt in 0.. {
                    from.send_to(&data[..1200], to.local_addr()?)?;
                    if traffic::receive(to, traffic::SILENCE)?.is_some() {
                        break;
                    }
                    ensure!(attempt < 40, "no UDP arrives at {mtu}");
                }
            }
        }
        for stream in streams {
            stream
                .join()
                .map_err(|_| anyhow::anyhow!("a stream panicked"))?
                .context("TCP")?;
        }
        anyhow::Ok(())
    })?;
    ensure!(
        capture.stop()?.headers().all(|ip| !ip.is_fragment()),
        "an outer fragment was seen"
    );
    Ok(())
}

fn jumbo_and_tiny(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let net = &ctx.net;
    for (mtu, both) in [(9000, true), (256, false)] {
        for (namespace, device) in links(ctx)? {
            namespace.ip(&format!("link set {device} mtu {mtu}"))?;
        }
        let inside = inner_mtu(mtu, 0);
        for namespace in [&net.ha, &net.mh] {
            namespace.ip(&format!("link set mml0 mtu {inside}"))?;
        }
        if both {
            net.cn.ip(&format!("link set ha mtu {mtu}"))?;
            net.ha.ip(&format!("link set cn mtu {mtu}"))?;
        }
        let cn = traffic::udp(&net.cn, CN, 4000)?;
        let mh = traffic::udp(&net.mh, HOME, 5000)?;
        let octets = traffic::random(20_000);
        for (from, to) in [(&cn, &mh), (&mh, &cn)] {
            let around = inside - 40..inside + 40;
            for size in around.chain([28, 29, 3000, 15_000]) {
                traffic::udp_arrives(from, to, &octets[..size - 28])
                    .with_context(|| format!("{size} octets on links of {mtu}"))?;
            }
        }
        let data = traffic::random(200_000);
        traffic::tcp_arrives(&net.cn, &net.mh, HOME, 5001, &data)
            .with_context(|| format!("TCP on links of {mtu}"))?;
        traffic::tcp_arrives(&net.mh, &net.cn, CN, 5002, &data)
            .with_context(|| format!("TCP back on links of {mtu}"))?;
    }
    Ok(())
}

/// The MSS options of the SYNs that `interface` shows while a connection is made from `client` to `server`.
fn syn_mss(ctx: &Ctx, to_mh: bool, node: &Netns, interface: &str, port: u16) -> Result<Vec<u16>> {
    let capture = Capture::start(node, interface, interface)?;
    let (client, server, address) = if to_mh {
        (&ctx.net.cn, &ctx.net.mh, HOME)
    } else {
        (&ctx.net.mh, &ctx.net.cn, CN)
    };
    let pair = traffic::tcp_pair(client, server, address, port)?;
    drop(pair);
    let captured = capture.stop()?;
    let found = captured
        .headers()
        .filter(|ip| ip.tcp_flags().is_some_and(|flags| flags & 2 != 0))
        .filter_map(|ip| ip.mss())
        .collect();
    Ok(found)
}

/// docs/wire.md 2.1i.
fn mss(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let fits = (inner_mtu(1500, 0) - 40) as u16;
    let at_mh = syn_mss(ctx, true, &ctx.net.mh, "mml0", 5001)?;
    ensure!(
        at_mh.len() == 2 && at_mh.iter().all(|mss| *mss <= fits),
        "behind the tunnel the SYNs say {at_mh:?}, {fits} fits"
    );
    let at_cn = syn_mss(ctx, false, &ctx.net.cn, "ha", 5002)?;
    ensure!(
        at_cn.len() == 2,
        "SYN and SYN-ACK are not both seen: {at_cn:?}"
    );
    ensure!(
        at_cn.first().is_some_and(|mss| *mss <= fits),
        "the mobile host's SYN says {at_cn:?}, {fits} fits"
    );
    let answer = syn_mss(ctx, false, &ctx.net.mh, "mml0", 5003)?;
    ensure!(
        answer.iter().all(|mss| *mss <= fits),
        "the correspondent's SYN-ACK says {answer:?}, {fits} fits"
    );
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        genl::accepted(
            Genl::open(namespace)?.set("mss-clamp", 0)?,
            "turning the clamp off",
        )?;
    }
    let off = syn_mss(ctx, true, &ctx.net.mh, "mml0", 5004)?;
    ensure!(
        off.first() == Some(&1460),
        "with the clamp off the correspondent's SYN says {off:?}"
    );
    // Without it path MTU discovery alone must do.
    traffic::tcp_arrives(
        &ctx.net.cn,
        &ctx.net.mh,
        HOME,
        5005,
        &traffic::random(100_000),
    )
}

/// Sends an inner packet from the correspondent and gives what mml0 shows of it and the outer header behind HA.
fn through(ctx: &Ctx, packet: &[u8]) -> Result<(Option<Vec<u8>>, Option<u8>)> {
    let inner = Capture::start(&ctx.net.mh, "mml0", "mml0")?;
    let outside = Capture::start(&ctx.net.ha, "core", "ha-core")?;
    let sender = traffic::raw(&ctx.net.cn, 255)?;
    traffic::send_raw(&sender, packet)?;
    std::thread::sleep(ctx.seconds(0.15));
    let (inner, outside) = (inner.stop()?, outside.stop()?);
    let found = inner
        .packets
        .iter()
        .filter_map(|found| found.ip())
        .find(|ip| ip.get(4..6) == packet.get(4..6))
        .map(<[u8]>::to_vec);
    let outer_ds = outside
        .headers()
        .find(|ip| ip.destination == MH)
        .map(|ip| ip.ds);
    Ok((found, outer_ds))
}

fn ttl(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"routes are known")?;
    for ttl in [2, 64, 255] {
        let packet = IpDraft {
            ttl,
            id: 0x6000 + u16::from(ttl),
            ..IpDraft::new(CN, HOME, headers::UDP)
        }
        .write(&headers::udp(CN, 1, HOME, 2, b"hop"));
        let (arrived, _) = through(ctx, &packet)?;
        let arrived = arrived.with_context(|| format!("TTL {ttl}: nothing arrived"))?;
        let left = Ip::parse(&arrived).context("not IP")?.ttl;
        ensure!(
            left == ttl - 1,
            "TTL {ttl} arrived as {left}: the home agent is one hop, the way behind it none"
        );
    }
    let errors = traffic::raw(&ctx.net.cn, headers::ICMP)?;
    let packet = IpDraft {
        ttl: 1,
        ..IpDraft::new(CN, HOME, headers::UDP)
    }
    .write(&headers::udp(CN, 1, HOME, 2, b"last hop"));
    let (arrived, outer_ds) = through(ctx, &packet)?;
    ensure!(
        arrived.is_none() && outer_ds.is_none(),
        "a packet at its last hop was sealed"
    );
    let told = traffic::await_raw(&errors, traffic::ARRIVES, |ip| {
        (ip.payload.first() == Some(&11)).then_some(())
    })?;
    ensure!(told.is_some(), "nobody said that the time was exceeded");
    Ok(())
}

/// docs/wire.md 1.7i, 1.9u.
fn dscp_ecn(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options {
        relay: false,
        ..Options::default()
    })?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"routes are known")?;
    let inner = |id: u16, ds: u8| {
        IpDraft {
            ds,
            id,
            ..IpDraft::new(CN, HOME, headers::UDP)
        }
        .write(&headers::udp(CN, 1, HOME, 2, b"mark"))
    };
    for ds in [0x00, 0x01, 0x02, 0x03, 0x28, 0xb8 | 2, 0xff] {
        let (arrived, outer_ds) = through(ctx, &inner(0x5000 + u16::from(ds), ds))?;
        let arrived = arrived.with_context(|| format!("DS {ds:#04x}: nothing arrived"))?;
        ensure!(
            arrived.get(1) == Some(&ds),
            "DS {ds:#04x} arrived as {:02x?}",
            arrived.get(1)
        );
        ensure!(
            outer_ds == Some(ds),
            "DS {ds:#04x} inside, {outer_ds:02x?} outside"
        );
    }
    // RFC 6040 §4.2, figure 4: rows are the inner field, columns the outer one, both in the order Not-ECT (0), ECT(0)
    // (2), ECT(1) (1), CE (3).
    const ORDER: [u8; 4] = [0, 2, 1, 3];
    const DROP: u8 = 0xff;
    const TABLE: [[u8; 4]; 4] = [[0, 0, 0, DROP], [2, 2, 1, 3], [1, 1, 1, 3], [3, 3, 3, 3]];
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let mut sequence = 1000;
    let mut wanted = Vec::new();
    let watch = Watch::start(&ctx.net.mh)?;
    let capture = Capture::start(&ctx.net.mh, "mml0", "mml0")?;
    for (row, inner_ecn) in TABLE.iter().zip(ORDER) {
        for (expected, outer_ecn) in row.iter().zip(ORDER) {
            sequence += 1;
            let datagram = inner(sequence as u16, 0xb8 | inner_ecn);
            let mut packet = outer(
                &keys.to_mh,
                &Draft::new(&keys.to_mh, sequence, &datagram).seal(&keys.to_mh)?,
            );
            // Another DSCP outside must not come in.
            packet[1] = 0x28 | outer_ecn;
            traffic::send_raw(&core, &packet)?;
            wanted.push((
                sequence as u16,
                inner_ecn,
                outer_ecn,
                if *expected == DROP {
                    None
                } else {
                    Some(0xb8 | expected)
                },
            ));
        }
    }
    std::thread::sleep(ctx.seconds(0.3));
    let captured = capture.stop()?;
    for (id, inner_ecn, outer_ecn, wanted) in &wanted {
        let arrived = captured
            .packets
            .iter()
            .filter_map(|packet| packet.ip())
            .find(|ip| ip.get(4..6) == Some(&id.to_be_bytes()[..]))
            .and_then(|ip| ip.get(1).copied());
        ensure!(
            arrived == *wanted,
            "ECN {inner_ecn} inside and {outer_ecn} outside gave {arrived:02x?}, not {wanted:02x?}"
        );
    }
    watch.expect(&[(
        "ecn",
        wanted
            .iter()
            .filter(|(.., wanted)| wanted.is_none())
            .count() as u64,
    )])
}
