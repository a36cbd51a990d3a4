// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the two-zone tunnel carries, and what the nodes on its way see of it.

use anyhow::{bail, ensure, Context, Result};

use crate::capture::{Capture, Captured};
use crate::headers::{self, Ip, IpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::stats::{is_reason, Stats};
use crate::topology::{CN, HA, HOME, MH};
use crate::traffic;
use crate::zone_esp::Sealed;
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
        name: "fa-reads-headers-and-no-payload",
        proves: "zone 1 of every packet opens with the foreign agent's key and holds the inner headers; the payload is on no link behind the home agent",
        seconds: 60,
        run: fa_reads_headers,
    },
    Scenario {
        name: "fa-view-is-the-same-for-any-payload",
        proves: "two datagrams of one length that differ in payload alone have the same zone 1, checksum included",
        seconds: 60,
        run: same_view,
    },
    Scenario {
        name: "stock-foreign-agent-carries-traffic",
        proves: "a foreign agent without the CSA, or with another's, forwards everything; the packets it can't open are counted",
        seconds: 60,
        run: stock_agent,
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
];

/// UDP, TCP and ping, both ways.
pub fn everything(ctx: &Ctx, marker: &[u8]) -> Result<()> {
    let net = &ctx.net;
    let cn = traffic::udp(&net.cn, CN, 4000)?;
    let mh = traffic::udp(&net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, &traffic::marked(marker, 900)).context("UDP to the mobile host")?;
    traffic::udp_arrives(&mh, &cn, &traffic::marked(marker, 900)).context("UDP from the mobile host")?;
    traffic::tcp_arrives(&net.cn, &net.mh, HOME, 5001, &traffic::marked(marker, 60_000)).context("TCP to the mobile host")?;
    traffic::tcp_arrives(&net.mh, &net.cn, CN, 5002, &traffic::marked(marker, 60_000)).context("TCP from the mobile host")?;
    traffic::ping_arrives(&net.cn, CN, HOME, &traffic::marked(marker, 56))?;
    traffic::ping_arrives(&net.mh, HOME, CN, &traffic::marked(marker, 56))
}

/// No node dropped or passed on unopened anything but for these reasons.
pub fn no_drops_but(ctx: &Ctx, allowed: &[&str]) -> Result<()> {
    for namespace in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
        let stats = Stats::read(namespace)?;
        for (name, count) in &stats.namespace {
            ensure!(*count == 0 || !is_reason(name) || allowed.contains(&name.as_str()), "{} counted {count} × {name}", namespace.name());
        }
    }
    Ok(())
}

fn carries(ctx: &mut Ctx) -> Result<()> {
    zone_tunnel::devices(&ctx.net)?;
    zone_tunnel::protect(&ctx.net)?;
    crate::tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
    let mixed = [[AES128, CHACHA], [CHACHA, AES256_IIV]];
    let pairs = CIPHERS.map(|cipher| [cipher; 2]).into_iter().chain(mixed);
    for ciphers in pairs {
        for stop in [None, Some(40)] {
            let what = format!("zones by {} and {}, zone 1 to {stop:?}", ciphers[0].name, ciphers[1].name);
            zone_tunnel::load(&ctx.net, &Options { ciphers, stop, ..Options::default() }).with_context(|| what.clone())?;
            let marker = traffic::random(16);
            let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
            everything(ctx, &marker).with_context(|| what.clone())?;
            capture.stop()?.never_shows(&marker).with_context(|| what.clone())?;
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
    let octets = traffic::random(1472);
    for (from, to) in [(&cn, &mh), (&mh, &cn)] {
        for size in 28..=1500 {
            traffic::udp_arrives(from, to, octets.get(..size - 28).unwrap_or_default()).with_context(|| format!("IP packet of {size} octets"))?;
        }
    }
    no_drops_but(ctx, &[])
}

fn fragments_and_short(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options::default())?;
    let data = traffic::random(400);
    let udp = headers::udp(CN, 4000, HOME, 5000, &data);
    let tcp = headers::TcpDraft { source_port: 4000, destination_port: 9, sequence: 1, acknowledgement: 0, flags: 0x10, window: 1000 }.write(CN, HOME, &data);
    let plain = |protocol| IpDraft::new(CN, HOME, protocol);
    let mut cases: Vec<(String, IpDraft, Vec<u8>)> = vec![
        ("first fragment".into(), IpDraft { more_fragments: true, ..plain(headers::UDP) }, udp[..200].to_vec()),
        ("middle fragment".into(), IpDraft { more_fragments: true, fragment_offset: 200, ..plain(headers::UDP) }, udp[200..304].to_vec()),
        ("last fragment".into(), IpDraft { fragment_offset: 304, ..plain(headers::UDP) }, udp[304..].to_vec()),
        ("first fragment of TCP shorter than its header".into(), IpDraft { more_fragments: true, ..plain(headers::TCP) }, tcp[..16].to_vec()),
        ("a later fragment that looks like TCP".into(), IpDraft { fragment_offset: 8, ..plain(headers::TCP) }, tcp.clone()),
        ("IP options".into(), IpDraft { options: vec![1; 12], ..plain(headers::UDP) }, udp.clone()),
        ("a protocol nobody knows".into(), plain(253), data.clone()),
        ("IP in IP".into(), plain(4), plain(headers::UDP).write(&udp)),
    ];
    for length in 0..24 {
        cases.push((format!("{length} octets of TCP"), plain(headers::TCP), tcp[..length].to_vec()));
        cases.push((format!("{length} octets of UDP"), plain(headers::UDP), udp[..length].to_vec()));
    }
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"routes and neighbours are known now")?;
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
        let received = captured.packets.iter().filter_map(|packet| packet.ip()).find(|ip| ip.get(4..6) == sent.get(4..6));
        let received = received.with_context(|| format!("{what}: did not arrive"))?;
        let (sent, received) = (Ip::parse(&sent).context("sent")?, Ip::parse(received).context("received")?);
        ensure!(received.payload == sent.payload, "{what}: arrived changed: {:02x?}", received.payload);
        ensure!(
            (received.source, received.destination, received.protocol, received.fragment_offset, received.more_fragments, received.header_length)
                == (sent.source, sent.destination, sent.protocol, sent.fragment_offset, sent.more_fragments, sent.header_length),
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

fn fa_reads_headers(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let marker = traffic::random(16);
    let captures = all_links(ctx)?;
    everything(ctx, &marker)?;
    let captured: Vec<Captured> = captures.into_iter().map(Capture::stop).collect::<Result<_>>()?;
    let [cn_ha, sealed @ ..] = captured.as_slice() else { bail!("no captures") };
    ensure!(cn_ha.holding(&marker) > 10, "the search finds no payload even where it is in clear");
    for link in sealed {
        link.never_shows(&marker)?;
        for ip in link.headers() {
            ensure!(ip.source != HOME && ip.destination != HOME, "{}: a packet in clear from {} to {}", link.name, ip.source, ip.destination);
        }
        // Nor are the inner addresses readable anywhere in a packet.
        link.never_shows(&[CN.octets(), HOME.octets()].concat())?;
        link.never_shows(&[HOME.octets(), CN.octets()].concat())?;
    }

    let core_fa = captured.get(2).context("no capture")?;
    let mut opened = 0;
    let mut protocols = Vec::new();
    for packet in core_fa.packets.iter().filter(|packet| packet.esp().is_some()) {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else { continue };
        let sa = if outer.destination == MH { &keys.to_mh } else { &keys.from_mh };
        let sealed = Sealed::parse(esp)?;
        let zone1 = sealed.open_zone1(&sa.zones[0])?.context("zone 1 does not open with the relay's key")?;
        let inner = Ip::parse(&zone1).context("zone 1 holds no IP header")?;
        ensure!([inner.source, inner.destination].contains(&HOME), "zone 1 shows {} > {}", inner.source, inner.destination);
        match inner.protocol {
            headers::TCP => {
                ensure!(inner.data() == Some(&[]), "zone 1 of TCP holds payload: {zone1:02x?}");
                ensure!(inner.payload.get(16..18) == Some(&[0, 0]), "TCP's checksum is in zone 1");
                ensure!(inner.ports().is_some_and(|(a, b)| [a, b].iter().any(|port| [5001, 5002].contains(port))), "zone 1 shows no port of ours");
            }
            headers::UDP => ensure!(inner.data() == Some(&[]) && inner.payload.get(6..8) == Some(&[0, 0]), "zone 1 of UDP holds more than its header"),
            _ => ensure!(inner.payload.is_empty(), "zone 1 of protocol {} holds {} octets behind the IP header", inner.protocol, inner.payload.len()),
        }
        ensure!(sealed.open_zone2(sa, &sa.zones[0], &zone1)?.is_none(), "zone 2 opens with zone 1's key");
        protocols.push(inner.protocol);
        opened += 1;
    }
    for protocol in [headers::TCP, headers::UDP, headers::ICMP] {
        ensure!(protocols.contains(&protocol), "no packet of protocol {protocol} was seen");
    }
    let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
    ensure!(relayed == opened, "{opened} ESP packets passed the foreign agent, and it opened {relayed}");
    no_drops_but(ctx, &["too-big"])
}

fn same_view(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let socket = traffic::raw(&ctx.net.cn, 255)?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"routes and neighbours are known now")?;
    for protocol in [headers::UDP, headers::TCP, headers::ICMP] {
        let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
        for _ in 0..4 {
            let data = traffic::random(333);
            let segment = headers::TcpDraft { source_port: 7, destination_port: 9, sequence: 1, acknowledgement: 1, flags: 0x18, window: 500 };
            let payload = match protocol {
                headers::UDP => headers::udp(CN, 7, HOME, 9, &data),
                headers::TCP => segment.write(CN, HOME, &data),
                _ => headers::icmp(13, 0, [0; 4], &data),
            };
            traffic::send_raw(&socket, &IpDraft::new(CN, HOME, protocol).write(&payload))?;
        }
        std::thread::sleep(ctx.seconds(0.3));
        let captured = capture.stop()?;
        let views: Vec<Vec<u8>> = captured
            .packets
            .iter()
            .filter(|packet| packet.header().is_some_and(|ip| ip.destination == MH))
            .filter_map(|packet| {
                let sealed = Sealed::parse(packet.esp()?).ok()?;
                let zone1 = sealed.open_zone1(&keys.to_mh.zones[0]).ok()??;
                Some([&[sealed.flags, sealed.protocol], &(packet.frame.len() as u32).to_be_bytes()[..], &zone1].concat())
            })
            .collect();
        ensure!(views.len() == 4, "{} of 4 packets of protocol {protocol} were seen", views.len());
        ensure!(views.windows(2).all(|pair| pair[0] == pair[1]), "protocol {protocol}: the foreign agent can tell payloads apart: {views:02x?}");
    }
    Ok(())
}

fn stock_agent(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options { relay: false, ..Options::default() })?;
    let marker = traffic::random(16);
    everything(ctx, &marker)?;
    // A relay of somebody else's tunnel: what it can't open it counts, and forwards.
    let other = zone_tunnel::Keys::new(&Options::default());
    let add = crate::zone_message::add(&other.to_mh, crate::zone_message::Role::Relay, (crate::zone_message::ANY, crate::zone_message::HOME_ONLY), 8192, 0);
    zone_tunnel::send(&ctx.net.fa1, &[add])?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    everything(ctx, &marker)?;
    let passed = capture.stop()?.esp().count() as u64;
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(stats.total("relay-no-csa") == passed && passed > 0, "{passed} packets passed unopened, {} were counted", stats.total("relay-no-csa"));
    ensure!(stats.total("relayed-packets") == 0, "a relay opened what it has no key for");
    no_drops_but(ctx, &["too-big", "relay-no-csa"])
}

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
    for packet in captured.packets.iter().filter(|packet| packet.esp().is_some()) {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else { continue };
        ensure!(outer.df && !outer.is_fragment(), "an outer packet without DF, or a fragment");
        ensure!((outer.source, outer.destination) == (HA, MH), "outer addresses {} > {}", outer.source, outer.destination);
        let sealed = Sealed::parse(esp)?;
        let inner = sealed.open(&keys.to_mh)?;
        let ip = Ip::parse(&inner).context("no inner packet")?;
        ensure!(ip.checksum_holds(), "the inner checksum is wrong once the moved one is back");
        let cost = outer.total_length - inner.len();
        ensure!((68..=71).contains(&cost), "{cost} octets of overhead on {}", inner.len());
        seen += 1;
    }
    ensure!(seen == 60, "{seen} of 60 packets were seen");
    Ok(())
}

fn cross_32_bits(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options { sequence: 0xffff_fff0, ..Options::default() })?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    for _ in 0..50 {
        traffic::udp_arrives(&cn, &mh, &traffic::random(100))?;
        traffic::udp_arrives(&mh, &cn, &traffic::random(100))?;
    }
    let captured = capture.stop()?;
    let low: Vec<u32> = captured.esp().filter_map(|esp| Sealed::parse(esp).ok()).filter(|sealed| sealed.spi == keys.to_mh.spi).map(|sealed| sealed.sequence_low).collect();
    ensure!(low.first() == Some(&0xffff_fff1) && low.contains(&0) && low.contains(&1), "numbers seen: {low:x?}");
    ensure!(Stats::read(&ctx.net.fa1)?.total("relayed-packets") == 100, "the relay lost the count");
    no_drops_but(ctx, &[])
}

fn two_csas(ctx: &mut Ctx) -> Result<()> {
    use crate::zone_message::{self, Role, ANY, HOME_ONLY};
    let old = ctx.zone_tunnel(&Options::default())?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    traffic::udp_arrives(&cn, &mh, b"under the old one")?;
    let new = zone_tunnel::Keys::new(&Options::default());
    zone_tunnel::send(&ctx.net.mh, &[zone_message::add(&new.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0)])?;
    zone_tunnel::send(&ctx.net.ha, &[zone_message::add(&new.to_mh, Role::Origin, (ANY, HOME_ONLY), 8192, 0)])?;
    let capture = Capture::start(&ctx.net.ha, "core", "ha-core")?;
    traffic::udp_arrives(&cn, &mh, b"under the new one")?;
    let captured = capture.stop()?;
    let spis: Vec<u32> = captured.esp().filter_map(|esp| Sealed::parse(esp).ok()).map(|sealed| sealed.spi).collect();
    ensure!(spis == [new.to_mh.spi], "sealed under {spis:x?}, not the new {:x}", new.to_mh.spi);
    // What was under way under the old one.
    let core = traffic::raw(ctx.net.core()?, 255)?;
    let late = IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, b"late"));
    let esp = crate::zone_esp::Draft::new(&old.to_mh, 100, &late).seal(&old.to_mh)?;
    traffic::send_raw(&core, &crate::zone_esp::outer(&old.to_mh, &esp))?;
    ensure!(traffic::receive(&mh, traffic::ARRIVES)?.as_deref() == Some(b"late"), "a packet under the old CSA was not accepted");
    // The new one gone, the old one seals again.
    zone_tunnel::send(&ctx.net.ha, &[zone_message::name(zone_message::DELETE, &new.to_mh, Role::Origin)])?;
    traffic::udp_arrives(&cn, &mh, b"under the old one again")?;
    // The new one never got to the foreign agent.
    no_drops_but(ctx, &["relay-no-csa"])
}
