// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the nodes on the tunnel's way see of it: the foreign agent the headers, nobody the payload.

use anyhow::{bail, ensure, Context, Result};

use super::tunnel::{all_links, everything, no_drops_but};
use crate::capture::{Capture, Captured};
use crate::headers::{self, Ip, IpDraft};
use crate::holders::Part;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME, MH};
use crate::traffic;
use crate::zone_esp::Sealed;
use crate::zone_message::{self, Role, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, Options};

pub const TABLE: &[Scenario] = &[
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
];

/// docs/wire.md 1.2b.
fn fa_reads_headers(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let marker = traffic::random(16);
    let captures = all_links(ctx)?;
    everything(ctx, &marker)?;
    let captured: Vec<Captured> = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<_>>()?;
    let [cn_ha, sealed @ ..] = captured.as_slice() else {
        bail!("no captures")
    };
    ensure!(
        cn_ha.holding(&marker) > 10,
        "the search finds no payload even where it is in clear"
    );
    for link in sealed {
        link.never_shows(&marker)?;
        for ip in link.headers() {
            ensure!(
                ip.source != HOME && ip.destination != HOME,
                "{}: a packet in clear from {} to {}",
                link.name,
                ip.source,
                ip.destination
            );
        }
        // Nor are the inner addresses readable anywhere in a packet.
        link.never_shows(&[CN.octets(), HOME.octets()].concat())?;
        link.never_shows(&[HOME.octets(), CN.octets()].concat())?;
    }

    let core_fa = captured.get(2).context("no capture")?;
    let mut opened = 0;
    let mut protocols = Vec::new();
    for packet in core_fa
        .packets
        .iter()
        .filter(|packet| packet.esp().is_some())
    {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else {
            continue;
        };
        let sa = if outer.destination == MH {
            &keys.to_mh
        } else {
            &keys.from_mh
        };
        let sealed = Sealed::parse(esp)?;
        let zone1 = sealed
            .open_zone1(&sa.zones[0])?
            .context("zone 1 does not open with the relay's key")?;
        let inner = Ip::parse(&zone1).context("zone 1 holds no IP header")?;
        ensure!(
            [inner.source, inner.destination].contains(&HOME),
            "zone 1 shows {} > {}",
            inner.source,
            inner.destination
        );
        match inner.protocol {
            headers::TCP => {
                ensure!(
                    inner.data() == Some(&[]),
                    "zone 1 of TCP holds payload: {zone1:02x?}"
                );
                ensure!(
                    inner.payload.get(16..18) == Some(&[0, 0]),
                    "TCP's checksum is in zone 1"
                );
                ensure!(
                    inner.ports().is_some_and(|(a, b)| [a, b]
                        .iter()
                        .any(|port| [5001, 5002].contains(port))),
                    "zone 1 shows no port of ours"
                );
            }
            headers::UDP => ensure!(
                inner.data() == Some(&[]) && inner.payload.get(6..8) == Some(&[0, 0]),
                "zone 1 of UDP holds more than its header"
            ),
            _ => ensure!(
                inner.payload.is_empty(),
                "zone 1 of protocol {} holds {} octets behind the IP header",
                inner.protocol,
                inner.payload.len()
            ),
        }
        ensure!(
            sealed.open_zone2(sa, &sa.zones[0], &zone1)?.is_none(),
            "zone 2 opens with zone 1's key"
        );
        protocols.push(inner.protocol);
        opened += 1;
    }
    for protocol in [headers::TCP, headers::UDP, headers::ICMP] {
        ensure!(
            protocols.contains(&protocol),
            "no packet of protocol {protocol} was seen"
        );
    }
    let relayed = Stats::read(&ctx.net.fa1)?.total("relayed-packets");
    ensure!(
        relayed == opened,
        "{opened} ESP packets passed the foreign agent, and it opened {relayed}"
    );
    no_drops_but(ctx, &["too-big"])
}

/// docs/wire.md 1.4a.
fn same_view(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let socket = traffic::raw(&ctx.net.cn, 255)?;
    traffic::ping_arrives(
        &ctx.net.cn,
        CN,
        HOME,
        b"routes and neighbours are known now",
    )?;
    for protocol in [headers::UDP, headers::TCP, headers::ICMP] {
        let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
        for _ in 0..4 {
            let data = traffic::random(333);
            let segment = headers::TcpDraft {
                source_port: 7,
                destination_port: 9,
                sequence: 1,
                acknowledgement: 1,
                flags: 0x18,
                window: 500,
            };
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
                Some(
                    [
                        &[sealed.flags, sealed.protocol],
                        &(packet.frame.len() as u32).to_be_bytes()[..],
                        &zone1,
                    ]
                    .concat(),
                )
            })
            .collect();
        ensure!(
            views.len() == 4,
            "{} of 4 packets of protocol {protocol} were seen",
            views.len()
        );
        ensure!(
            views.windows(2).all(|pair| pair[0] == pair[1]),
            "protocol {protocol}: the foreign agent can tell payloads apart: {views:02x?}"
        );
    }
    Ok(())
}

/// docs/wire.md 1.7e.
fn stock_agent(ctx: &mut Ctx) -> Result<()> {
    ctx.zone_tunnel(&Options {
        relay: false,
        ..Options::default()
    })?;
    let marker = traffic::random(16);
    everything(ctx, &marker)?;
    // A relay of somebody else's tunnel: what it can't open it counts, and forwards.
    let other = zone_tunnel::Keys::new(&Options::default());
    ctx.net.fa1.keys.are(Part::LoneRelay);
    let add = zone_message::add(&other.to_mh, Role::Relay, (ANY, HOME_ONLY), 8192, 0);
    zone_tunnel::send(&ctx.net.fa1, &[add])?;
    let capture = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    everything(ctx, &marker)?;
    let passed = capture.stop()?.esp().count() as u64;
    let stats = Stats::read(&ctx.net.fa1)?;
    ensure!(
        stats.total("relay-no-csa") == passed && passed > 0,
        "{passed} packets passed unopened, {} were counted",
        stats.total("relay-no-csa")
    );
    ensure!(
        stats.total("relayed-packets") == 0,
        "a relay opened what it has no key for"
    );
    no_drops_but(ctx, &["too-big", "relay-no-csa"])
}
