// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What SNOOP knows of a host's flows goes along with it: the next foreign agent repairs from the first loss on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::handoff::{csa, files, holders, pkd_files, start, with_snoop};
use super::mobility::{self, FA1, FA2};
use crate::genl::{self, Genl};
use crate::netns::Netns;
use crate::paper::tcp_info::TcpInfo;
use crate::report;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::HOME;
use crate::traffic;
use crate::zone_message::{self, Role, ANY, HOME_ONLY};
use crate::zone_tunnel::{self, mmlctl, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "handoff-takes-snoops-state-along",
        proves: "after a handoff the new foreign agent repairs the first loss of a connection whose beginning it never saw, though nothing tells of it: window scaling and SACK as the ends agreed on them, most of a lossy transfer's losses then mended on the spot; what it takes over is what the module of the previous one gave",
        seconds: 150,
        run: along,
    },
    Scenario {
        name: "handoff-without-snoops-state-leaves-that-loss-to-the-sender",
        proves: "between foreign agents that don't speak with each other the same loss is not repaired before the host has answered once",
        seconds: 150,
        run: without,
    },
    Scenario {
        name: "snoops-state-is-exported-and-imported",
        proves: "mmlctl writes what SNOOP knows of a CSA's flows into a file and reads it back, into a module that had forgotten them, too; a state that is absurd, of another host's flow or of a CSA that SNOOP doesn't look after is refused whole, with its reason",
        seconds: 60,
        run: by_mmlctl,
    },
];

/// The wireless hop behind the second foreign agent.
fn hop(fa2: &Netns, words: &str) -> Result<()> {
    fa2.tc(&format!(
        "qdisc replace dev wl2 root netem limit 1000 {words}"
    ))
}

fn lost(fa2: &Netns) -> Result<u64> {
    let text = fa2.run(&["tc", "-s", "-j", "qdisc", "show", "dev", "wl2"])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    json[0]["drops"].as_u64().context("no drops in tc's answer")
}

fn says(mut from: &TcpStream, mut to: &TcpStream, words: &[u8]) -> Result<()> {
    from.write_all(words)?;
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).context("TCP stalled")?;
    ensure!(heard == words, "TCP gave other octets than were sent");
    Ok(())
}

/// A connection that goes through a handoff in silence, and whose next segment gets lost: how often the new foreign agent had
/// sent it again after a second, by itself.
fn by_itself(ctx: &Ctx, files: &[String; 4], along: bool) -> Result<u64> {
    let nodes = start(ctx, files)?;
    let go = || -> Result<u64> {
        let net = &ctx.net;
        let fa2 = net.fa2.as_ref().context("no second foreign agent")?;
        let core = net.core()?;
        // Some distance, so that a local repair is worth it.
        core.tc("qdisc replace dev fa1 root netem delay 20ms limit 4000")?;
        core.tc("qdisc replace dev fa2 root netem delay 20ms limit 4000")?;
        net.offloads(false)?;
        net.mh.ip("link set wl1 up")?;
        mobility::arrives(ctx, &nodes, Some(FA1))?;
        holders(ctx, &csa(ctx)?, [true, along])?;
        if along {
            nodes.fa1.up("next", ctx.seconds(20.0))?;
        }
        let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
        near.set_nodelay(true)?;
        for _ in 0..20 {
            says(&near, &far, b"as long as it goes through the first")?;
        }
        let agreed = TcpInfo::read(&near)?;
        ensure!(agreed.sack && agreed.scale > 0, "{agreed:?} was agreed on");
        mobility::moves(&net.mh, "wl1", "wl2")?;
        mobility::arrives(ctx, &nodes, Some(FA2))?;
        let taken = || -> Result<u64> { Ok(Stats::read(fa2)?.total("snoop-taken-over")) };
        let end = Instant::now() + ctx.seconds(5.0);
        while along && taken()? == 0 {
            ensure!(Instant::now() < end, "no flow was taken over");
            std::thread::sleep(ctx.seconds(0.05));
        }
        if !along {
            // Until it has the keys it sees no segment at all.
            holders(ctx, &csa(ctx)?, [false, true])?;
            ensure!(taken()? == 0, "a flow was taken over from nobody");
        }
        hop(fa2, "loss 100%")?;
        (&near).write_all(b"lost")?;
        std::thread::sleep(ctx.seconds(1.0));
        let again = Stats::read(fa2)?.total("snoop-retransmitted-timer");
        hop(fa2, "rate 50mbit delay 1ms")?;
        let mut heard = [0; 4];
        (&far).read_exact(&mut heard).context("TCP stalled")?;
        ensure!(&heard == b"lost", "{heard:02x?} came");
        if along {
            mends(fa2, &near, &far)?;
        }
        holders(ctx, &csa(ctx)?, [along, true])?;
        Ok(again)
    };
    go().with_context(|| nodes.logs())
}

/// Most of what the hop loses is sent again by the foreign agent, and less than that by the sender.
fn mends(fa2: &Netns, near: &TcpStream, far: &TcpStream) -> Result<()> {
    hop(fa2, "rate 50mbit delay 1ms loss 4%")?;
    let before = (lost(fa2)?, Stats::read(fa2)?, TcpInfo::read(near)?);
    traffic::stream_arrives(near, far, &traffic::random(1_500_000))?;
    let after = (lost(fa2)?, Stats::read(fa2)?, TcpInfo::read(near)?);
    let lost = after.0 - before.0;
    let repaired = |stats: &Stats| -> u64 {
        ["duplicate", "sack", "timer"]
            .iter()
            .map(|why| stats.total(&format!("snoop-retransmitted-{why}")))
            .sum()
    };
    let repaired = repaired(&after.1) - repaired(&before.1);
    let resent = after.2.retransmitted - before.2.retransmitted;
    report::step(format!(
        "{lost} lost, {repaired} sent again by the new foreign agent, {resent} by the sender"
    ));
    report::result(
        "handoff-snoop",
        json!({ "lost": lost, "repaired": repaired, "resent": resent, "scale": after.2.scale }),
    );
    ensure!(
        lost >= 20 && repaired * 2 >= lost && u64::from(resent) < lost,
        "{lost} lost, {repaired} repaired, and the sender sent {resent} again"
    );
    let sack = after.1.total("snoop-retransmitted-sack");
    ensure!(sack > 0, "no hole was repaired by a SACK block");
    Ok(())
}

/// docs/wire.md 2.2y, 2.3n, 3.1h, 3.4d, 3.4e.
fn along(ctx: &mut Ctx) -> Result<()> {
    let again = by_itself(ctx, &with_snoop(pkd_files()), true)?;
    ensure!(again > 0, "the new foreign agent left it to the sender");
    Ok(())
}

fn without(ctx: &mut Ctx) -> Result<()> {
    let files = files(|_| String::new());
    let again = by_itself(ctx, &with_snoop(files), false)?;
    ensure!(
        again == 0,
        "sent again {again} times, though nobody had answered here"
    );
    Ok(())
}

/// docs/wire.md 2.2y, 2.3n, 3.4a, 3.4c.
fn by_mmlctl(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let ctx = &*ctx;
    let net = &ctx.net;
    let fa = &net.fa1;
    let spi = format!("{:#x}", keys.to_mh.spi);
    let name = "/tmp/snoops-state";
    let refused = |arguments: &[&str], words: &str| -> Result<()> {
        let finished = fa.attempt(&[&["mmlctl", "snoop"], arguments].concat())?;
        let said = finished.stderr;
        ensure!(
            !finished.success && said.contains(words),
            "{arguments:?}: {said}"
        );
        Ok(())
    };
    let export = ["export", "--spi", &spi, name];
    let import = ["import", "--spi", &spi, name];
    refused(&export, "not looked after")?;
    mmlctl(fa, &["snoop", "set", "--spi", &spi])?;
    let (near, far) = traffic::tcp_pair(&net.cn, &net.mh, HOME, 8080)?;
    says(&near, &far, b"something that is acknowledged")?;
    says(&far, &near, b"with the answer, at the latest")?;
    let end = Instant::now() + ctx.seconds(5.0);
    let state = loop {
        mmlctl(fa, &[&["snoop"], &export[..]].concat())?;
        let state = std::fs::read(name)?;
        if state.len() > 8 {
            break state;
        }
        ensure!(Instant::now() < end, "no flow was exported");
        std::thread::sleep(ctx.seconds(0.05));
    };
    ensure!(
        state.len() == 88 && state[0] == 1 && state[7] == 1,
        "{} octets were exported: {state:02x?}",
        state.len()
    );
    let flows = |arguments: &[&str]| -> Result<u64> {
        let text = mmlctl(fa, &[&["--json", "snoop"], arguments].concat())?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        json["flows"]
            .as_u64()
            .with_context(|| format!("no flows in {text}"))
    };
    // It knows better itself.
    ensure!(flows(&import)? == 0, "its own flow was taken over");
    for (at, octet, words) in [
        (0, 2, "version"),
        (7, 2, "length"),
        (9, 0x80, "flag"),
        // The flow's destination is another host.
        (35, 99, "can't come in this CSA"),
    ] {
        let mut bent = state.clone();
        bent[at] = octet;
        std::fs::write(name, &bent)?;
        refused(&import, words)?;
    }
    std::fs::write(name, vec![1; 3000])?;
    refused(&import, "longer than 2568 octets")?;
    // Forgotten, and taken over: the connection goes on, and the flow is the one it was.
    std::fs::write(name, &state)?;
    let forget = zone_message::name(zone_message::DELETE, &keys.to_mh, Role::Relay);
    genl::accepted(Genl::open(fa)?.pfkey(&forget.octets())?, "DELETE")?;
    let again = zone_message::add(&keys.to_mh, Role::Relay, (ANY, HOME_ONLY), 8192, 0);
    zone_tunnel::send(fa, &[again])?;
    mmlctl(fa, &["snoop", "set", "--spi", &spi])?;
    ensure!(flows(&import)? == 1, "the flow was not taken over");
    ensure!(
        Stats::read(fa)?.total("snoop-taken-over") == 1,
        "it was not counted"
    );
    mmlctl(fa, &[&["snoop"], &export[..]].concat())?;
    ensure!(std::fs::read(name)? == state, "it is another one now");
    std::fs::remove_file(name)?;
    says(&near, &far, b"on it goes")
}
