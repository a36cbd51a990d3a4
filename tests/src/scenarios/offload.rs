// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Socket buffers of every shape: segmentation offload, receive offload, page fragments, fragment lists, clones,
//! checksums left to the device.

use anyhow::{ensure, Context, Result};

use crate::capture::Capture;
use crate::headers::Ip;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{offload, CN, HOME, MH};
use crate::traffic;
use crate::zone_esp::Sealed;
use crate::zone_tunnel::{Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "gso-in-gro-out",
        proves: "TCP segments of up to 64 KiB go in, wire-size packets cross, and the terminus delivers them merged",
        seconds: 90,
        run: gso_gro,
    },
    Scenario {
        name: "offloads-off-carry-the-same",
        proves: "with segmentation and receive offloads off everywhere the same traffic arrives",
        seconds: 90,
        run: off,
    },
    Scenario {
        name: "udp-gso-is-segmented",
        proves: "a UDP datagram train handed over as one buffer is sealed segment by segment",
        seconds: 60,
        run: udp_gso,
    },
    Scenario {
        name: "fragment-lists-and-clones-are-sealed-right",
        proves: "datagrams reassembled into fragment lists, and buffers that captures hold clones of, are sealed right and leave the clones as they were",
        seconds: 90,
        run: frag_lists,
    },
    Scenario {
        name: "checksum-offload-leaves-no-wrong-checksum",
        proves: "a checksum left to the device is computed before sealing: every sealed datagram opens to one whose checksum holds",
        seconds: 60,
        run: checksums,
    },
];

/// Opens every packet to the mobile host in user space and checks what comes out.
fn opens_right(captured: &crate::capture::Captured, keys: &Keys) -> Result<usize> {
    let mut opened = 0;
    for packet in &captured.packets {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else {
            continue;
        };
        let sa = if outer.destination == MH {
            &keys.to_mh
        } else {
            &keys.from_mh
        };
        ensure!(
            outer.total_length <= 1500,
            "an outer packet of {} octets",
            outer.total_length
        );
        let inner = Sealed::parse(esp)?.open(sa)?;
        let ip = Ip::parse(&inner).context("no inner packet")?;
        ensure!(
            ip.is_fragment() || ip.checksum_holds(),
            "a checksum inside is wrong: {inner:02x?}"
        );
        opened += 1;
    }
    Ok(opened)
}

fn largest(captured: &crate::capture::Captured) -> usize {
    captured
        .packets
        .iter()
        .filter_map(|packet| packet.ip())
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0)
}

fn gso_gro(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    offload(&ctx.net.mh, "wl1", true)?;
    // However slowly the machine goes: TCP makes super-packets for a millisecond's worth of its rate (tcp_tso_autosize).
    for namespace in [&ctx.net.cn, &ctx.net.mh] {
        namespace.sysctl("net.ipv4.tcp_min_tso_segs", "8")?;
    }
    let inside = Capture::start(&ctx.net.ha, "mml0", "mml0-ha")?;
    let outside = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    let delivered = Capture::start(&ctx.net.mh, "mml0", "mml0-mh")?;
    let data = traffic::random(2_000_000);
    traffic::tcp_arrives(&ctx.net.cn, &ctx.net.mh, HOME, 5001, &data)?;
    traffic::tcp_arrives(&ctx.net.mh, &ctx.net.cn, CN, 5002, &data)?;
    let (inside, outside, delivered) = (inside.stop()?, outside.stop()?, delivered.stop()?);
    ensure!(
        largest(&inside) > 3000,
        "no segmentation offload reached mml0: {} octets at most",
        largest(&inside)
    );
    let opened = opens_right(&outside, &keys)?;
    ensure!(opened > 1000, "{opened} packets crossed");
    ensure!(
        largest(&delivered) > 3000,
        "nothing was merged on delivery: {} octets at most",
        largest(&delivered)
    );
    super::tunnel::no_drops_but(ctx, &["too-big"])
}

fn off(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    ctx.net.offloads(false)?;
    let outside = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    let data = traffic::random(500_000);
    traffic::tcp_arrives(&ctx.net.cn, &ctx.net.mh, HOME, 5001, &data)?;
    traffic::tcp_arrives(&ctx.net.mh, &ctx.net.cn, CN, 5002, &data)?;
    let opened = opens_right(&outside.stop()?, &keys)?;
    ensure!(opened > 700, "{opened} packets crossed");
    super::tunnel::no_drops_but(ctx, &["too-big"])
}

fn udp_gso(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    const SEGMENT: usize = 700;
    for (from, to) in [(&cn, &mh), (&mh, &cn)] {
        // UDP_SEGMENT (udp(7)): one send call, many datagrams.
        crate::sys::set_option(from, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32)?;
        let outside = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
        let data = traffic::random(SEGMENT * 40 + 13);
        from.send_to(&data, to.local_addr()?)?;
        for piece in data.chunks(SEGMENT) {
            let received =
                traffic::receive(to, traffic::ARRIVES)?.context("a segment did not arrive")?;
            ensure!(received == piece, "a segment arrived changed");
        }
        let opened = opens_right(&outside.stop()?, &keys)?;
        ensure!(opened == 41, "{opened} packets crossed for 41 segments");
    }
    super::tunnel::no_drops_but(ctx, &[])
}

fn frag_lists(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    // Connection tracking reassembles what the home agent forwards, into a list of fragments.
    ctx.net.ha.nft("table inet track {\n chain forward { type filter hook forward priority 0; ct state invalid drop; }\n }")?;
    // And UDP's receive offload may chain datagrams the same way.
    ctx.net.ha.run(&[
        "ethtool",
        "-K",
        "cn",
        "gro",
        "on",
        "rx-gro-list",
        "on",
        "rx-udp-gro-forwarding",
        "on",
    ])?;
    let clear = Capture::start(&ctx.net.ha, "cn", "cn-ha")?;
    let outside = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    let marker = traffic::random(16);
    for size in [1473, 1500, 2000, 3000, 8000, 20_000, 60_000] {
        let data = traffic::marked(&marker, size);
        traffic::udp_arrives(&cn, &mh, &data)
            .with_context(|| format!("{size} octets to the mobile host"))?;
        traffic::udp_arrives(&mh, &cn, &data)
            .with_context(|| format!("{size} octets from the mobile host"))?;
    }
    traffic::tcp_arrives(
        &ctx.net.cn,
        &ctx.net.mh,
        HOME,
        5001,
        &traffic::marked(&marker, 500_000),
    )?;
    let (clear, outside) = (clear.stop()?, outside.stop()?);
    // The clones the capture held must show what crossed that link, not what was made of it later.
    for ip in clear.headers() {
        ensure!(
            [ip.source, ip.destination].contains(&CN),
            "the capture of the clear link shows {} > {}",
            ip.source,
            ip.destination
        );
        ensure!(
            ip.protocol != crate::headers::ESP,
            "the capture of the clear link shows ESP"
        );
    }
    ensure!(
        clear.holding(&marker) > 100,
        "the capture of the clear link lost its payload"
    );
    outside.never_shows(&marker)?;
    ensure!(
        opens_right(&outside, &keys)? > 200,
        "too few packets crossed"
    );
    ensure!(
        Stats::read(&ctx.net.mh)?.total("icv2") == 0,
        "a sealed packet was damaged"
    );
    super::tunnel::no_drops_but(ctx, &["too-big"])
}

fn checksums(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    for state in ["on", "off"] {
        for (node, interface) in [(&ctx.net.cn, "ha"), (&ctx.net.mh, "mml0")] {
            // mml0 may not let it be switched; then what it offers is what is tested.
            let switched = node.attempt(&["ethtool", "-K", interface, "tx", state])?;
            ensure!(
                switched.success || interface == "mml0",
                "{}",
                switched.stderr
            );
        }
        let outside = Capture::start(ctx.net.core()?, "fa1", "core-fa1")?;
        super::tunnel::everything(ctx, &traffic::random(16))?;
        ensure!(
            opens_right(&outside.stop()?, &keys)? > 50,
            "too few packets crossed"
        );
    }
    super::tunnel::no_drops_but(ctx, &["too-big"])
}
