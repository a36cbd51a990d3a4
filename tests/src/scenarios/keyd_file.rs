// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the key manager makes of its file: ports, and the file read again while it runs.

use anyhow::{ensure, Context, Result};

use super::guard::{nothing_shows, outside};
use crate::capture::{Capture, Captured};
use crate::datagrams::streamed;
use crate::keyd::{three_nodes, until_up, Keyd, HA_ALONE, MH_FILE};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Watch;
use crate::topology::{CN, HA, HOME, MH};
use crate::zone_tunnel::{self, mmlctl};
use crate::{traffic, transport_mode, tunnel};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "keyd-bypasses-its-own-ports-alone",
        proves: "a tunnel that covers the two key managers' own addresses lets IKE between their ports pass, so that it comes up, and no other UDP between the two",
        seconds: 90,
        run: own_ports,
    },
    Scenario {
        name: "keyd-makes-sas-for-one-port",
        proves: "a tunnel for one UDP port becomes a CSA of that port alone, or plain IPsec of it with a peer without zones; the port's datagrams go sealed and another's are dropped",
        seconds: 150,
        run: one_port,
    },
    Scenario {
        name: "keyd-makes-transport-mode-sas",
        proves: "two key managers make SAs in transport mode for what they say to one another, plain and composite: it goes sealed under its own addresses, IKE beside it in clear, and without SAs nothing else does",
        seconds: 150,
        run: transport,
    },
    Scenario {
        name: "keyd-reads-its-file-again",
        proves: "told to, or by SIGHUP, the key manager takes up a connection that is new, closes one that is gone, leaves a stream of one that says the same alone, and says of a wrong file which line is wrong and goes on with the old one",
        seconds: 150,
        run: reload,
    },
];

/// A file for a tunnel between home agent and mobile host themselves; `more` are its settings. The mobile host begins.
fn peer_file(ha: bool, more: &str) -> String {
    let (role, own, peer, start) = if ha {
        ("ha", HA, MH, "peer")
    } else {
        ("mh", MH, HA, "now")
    };
    let other = if ha { "mh" } else { "ha" };
    format!(
        "[node]\nrole = \"{role}\"\nidentity = \"{role}.example\"\naddresses = [\"{own}\"]\n[[connection]]\nname = \"peer\"\nremote = \"{peer}\"\nremote-identity = \"{other}.example\"\nauth = \"psk\"\nsecret-file = \"mh.psk\"\nstart = \"{start}\"\n[connection.tunnel]\n{more}"
    )
}

/// docs/wire.md 5g.
fn own_ports(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    let (near, far) = (
        traffic::udp(&net.ha, HA, 4000)?,
        traffic::udp(&net.mh, MH, 5000)?,
    );
    traffic::udp_arrives(&near, &far, b"in clear, before")?;
    traffic::udp_arrives(&far, &near, b"in clear, before")?;
    let more = |own, peer| format!("local = \"{own}\"\nremote = \"{peer}\"\n");
    let ha = Keyd::new(&net.ha, &peer_file(true, &more(HA, MH)))?;
    let mh = Keyd::new(&net.mh, &peer_file(false, &more(MH, HA)))?;
    mh.answers(ctx.seconds(20.0))?;
    mh.up("peer", ctx.seconds(40.0))?;
    ha.up("peer", ctx.seconds(10.0))?;
    let list = mmlctl(&net.mh, &["policy", "list"])?;
    for port in ["port 500 ", "port 4500 "] {
        ensure!(
            list.lines()
                .any(|line| line.contains("bypass") && line.contains(port)),
            "no bypass for {port}in\n{list}"
        );
    }
    let marker = traffic::random(16);
    let data = traffic::marked(&marker, 200);
    let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
    let watch = Watch::start(&net.mh)?;
    let _ = far.send_to(&data, (HA, 4000));
    traffic::silent(&near)?;
    let _ = near.send_to(&data, (MH, 5000));
    traffic::silent(&far)?;
    let grown = watch.grown()?;
    ensure!(
        grown.get("guard-out").is_some_and(|count| *count >= 1),
        "the guard counted {grown:?}"
    );
    // What comes from IKE's port of the peer to another of this host's is no IKE, either.
    let core = traffic::raw(net.core()?, 255)?;
    let stray = crate::headers::udp(HA, 500, MH, 5000, &data);
    let packet = crate::headers::IpDraft::new(HA, MH, crate::headers::UDP).write(&stray);
    let watch = Watch::start(&net.mh)?;
    traffic::send_raw(&core, &packet)?;
    traffic::silent(&far)?;
    watch.expect(&[("guard-in", 1)])?;
    let captured = capture.stop()?;
    ensure!(
        captured.holding(&marker) == 1,
        "the stray one alone was to be seen"
    );
    Ok(())
}

fn one_port(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    let mh_file = format!("{MH_FILE}protocol = 17\nlocal-port = 5000\n");
    for zones in ["required", "off"] {
        // With zones off the home agent's policy would send all to plain IPsec.
        let ha = format!("{HA_ALONE}zones = \"{zones}\"\n");
        let _ha = Keyd::new(&net.ha, &ha)?;
        let mh = Keyd::new(&net.mh, &mh_file)?;
        mh.answers(ctx.seconds(20.0))?;
        mh.up("ha", ctx.seconds(40.0))?;
        let sas = mh.tell(&["sa", "list"])?;
        ensure!(
            sas.contains("\"5000\"")
                && sas.contains(if zones == "off" { "plain" } else { "composite" }),
            "zones {zones}: {sas}"
        );
        let near = traffic::udp(&net.cn, CN, 4000)?;
        let own = traffic::udp(&net.mh, HOME, 5000)?;
        let other = traffic::udp(&net.mh, HOME, 5001)?;
        let marker = traffic::random(16);
        let data = traffic::marked(&marker, 400);
        let captures = outside(ctx)?;
        let what = || format!("zones {zones}");
        traffic::udp_arrives(&near, &own, &data).with_context(what)?;
        traffic::udp_arrives(&own, &near, &data).with_context(what)?;
        near.send_to(&data, (HOME, 5001))?;
        traffic::silent(&other).with_context(what)?;
        nothing_shows(captures, &marker).with_context(what)?;
        mh.end();
        for node in [&net.ha, &net.mh] {
            mmlctl(node, &["csa", "flush"])?;
            mmlctl(node, &["policy", "flush", "--yes"])?;
            node.ip("xfrm policy flush\nxfrm state flush")?;
        }
    }
    Ok(())
}

/// docs/wire.md 1.11a, 1.11c, 5g.
fn transport(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    zone_tunnel::devices(net)?;
    for zones in ["off", "required"] {
        let what = || format!("zones {zones}");
        if zones == "required" {
            // What XFRM seals needs no way into mml0; what mml seals does, and IKE one past it.
            for (node, own, peer) in [(&net.ha, HA, MH), (&net.mh, MH, HA)] {
                transport_mode::route(node, own.into(), peer.into())?;
                for port in ["500", "4500"] {
                    let to = peer.to_string();
                    let rule = ["ip", "rule", "add", "pref", "12", "to", &to];
                    let ike = ["ipproto", "udp", "sport", port, "lookup", "main"];
                    node.run(&[&rule[..], &ike[..]].concat())?;
                }
            }
        }
        let more = format!("mode = \"transport\"\nzones = \"{zones}\"\n");
        let marker = traffic::random(16);
        let data = traffic::marked(&marker, 400);
        let near = traffic::udp(&net.ha, HA, 4000)?;
        let far = traffic::udp(&net.mh, MH, 5000)?;
        let capture = Capture::start(&net.mh, "wl1", "mh-fa1")?;
        let ha = Keyd::new(&net.ha, &peer_file(true, &more))?;
        ha.answers(ctx.seconds(20.0))?;
        // One end alone: sealed or not at all.
        let _ = near.send_to(&data, (MH, 5000));
        traffic::silent(&far).with_context(what)?;
        let mh = Keyd::new(&net.mh, &peer_file(false, &more))?;
        mh.answers(ctx.seconds(20.0))?;
        mh.up("peer", ctx.seconds(40.0))?;
        let end = std::time::Instant::now() + ctx.seconds(10.0);
        let kind = if zones == "off" { "plain" } else { "composite" };
        while !(mh.tell(&["sa", "list"])?.contains(kind)
            && ha.tell(&["sa", "list"])?.contains(kind))
        {
            ensure!(
                std::time::Instant::now() < end,
                "no {kind} SA\n{}",
                mh.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        traffic::udp_arrives(&near, &far, &data).with_context(what)?;
        traffic::udp_arrives(&far, &near, &data).with_context(what)?;
        let stream = traffic::marked(&marker, 60_000);
        traffic::tcp_arrives(&net.mh, &net.ha, HA, 5001, &stream).with_context(what)?;
        mh.tell(&["rekey", "peer"])?;
        std::thread::sleep(ctx.seconds(1.0));
        traffic::udp_arrives(&near, &far, &data).with_context(what)?;
        let captured = nothing_shows(vec![capture], &marker).with_context(what)?;
        let esp = captured.iter().flat_map(Captured::headers).filter(|ip| {
            ip.protocol == crate::headers::ESP && [ip.source, ip.destination] == [MH, HA]
        });
        ensure!(esp.count() > 10, "zones {zones}: it didn't go as ESP");
        ha.end();
        mh.end();
        for node in [&net.ha, &net.mh] {
            mmlctl(node, &["csa", "flush"])?;
            mmlctl(node, &["policy", "flush", "--yes"])?;
            node.ip("xfrm policy flush\nxfrm state flush")?;
        }
    }
    Ok(())
}

fn reload(ctx: &mut Ctx) -> Result<()> {
    let net = &ctx.net;
    let [_ha, _fa, mh] = &three_nodes(net, "")?;
    until_up(net)?;
    let near = traffic::udp(&net.cn, CN, 4001)?;
    let far = traffic::udp(&net.mh, HOME, 5009)?;
    let before = mh.tell(&["sa", "list"])?;
    let more = "\n[[connection]]\nname = \"more\"\nremote = \"10.1.1.1\"\nremote-identity = \"nobody.example\"\nauth = \"psk\"\nsecret-file = \"mh.psk\"\nstart = \"peer\"\n[connection.tunnel]\nremote = \"10.77.0.0/16\"\n";
    let said = |what: &str| -> Result<serde_json::Value> { Ok(serde_json::from_str(what)?) };
    streamed(&[(&near, &far), (&far, &near)], || {
        mh.rewrite(&format!("[device]\n{MH_FILE}{more}"))?;
        let done = said(&mh.tell(&["reload"])?)?;
        ensure!(
            done == serde_json::json!({ "kept": 1, "closed": [], "new": ["more"] }),
            "{done}"
        );
        ensure!(
            mmlctl(&net.mh, &["policy", "list"])?.contains("10.77.0.0/16"),
            "nothing protects what is new"
        );
        let route = || net.mh.run(&["ip", "route", "show", "10.77.0.0/16"]);
        let until_routed = |wanted: bool| -> Result<()> {
            let end = std::time::Instant::now() + ctx.seconds(5.0);
            while route()?.contains("dev mml0") != wanted {
                ensure!(
                    std::time::Instant::now() < end,
                    "the route of what is new: {:?}",
                    route()?
                );
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Ok(())
        };
        until_routed(true)?;
        // A wrong file, by command and by signal.
        let wrong = format!("{MH_FILE}{more}priority = \"high\"\n");
        let line = 2
            + wrong
                .lines()
                .position(|one| one.starts_with("priority"))
                .unwrap_or(0)
            + 2;
        mh.rewrite(&wrong)?;
        let refused = mh.tell(&["reload"]);
        let Err(error) = refused else {
            anyhow::bail!("a wrong file was taken up");
        };
        let error = format!("{error:#}");
        ensure!(
            error.contains(&format!("line {line}: ")) && error.contains("priority"),
            "line {line}, and it says: {error}"
        );
        let pid = mh.pid()?.to_string();
        net.mh.run(&["busybox", "kill", "-HUP", &pid])?;
        let end = std::time::Instant::now() + ctx.seconds(10.0);
        while mh.log().matches("the file isn't taken up").count() < 2 {
            ensure!(
                std::time::Instant::now() < end,
                "SIGHUP did nothing\n{}",
                mh.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        // And back again, by signal.
        mh.rewrite(&format!("[device]\n{MH_FILE}"))?;
        net.mh.run(&["busybox", "kill", "-HUP", &pid])?;
        let end = std::time::Instant::now() + ctx.seconds(10.0);
        loop {
            let status = said(&mh.tell(&["status"])?)?;
            if status["connections"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
            {
                break;
            }
            ensure!(std::time::Instant::now() < end, "it still has {status}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        until_routed(false)
    })?;
    let after = mh.tell(&["sa", "list"])?;
    let spis = |text: &str| -> Result<Vec<serde_json::Value>> {
        let list = said(text)?;
        let list = list.as_array().cloned().unwrap_or_default();
        Ok(list.iter().map(|one| one["spi_in"].clone()).collect())
    };
    ensure!(
        !spis(&before)?.is_empty() && spis(&before)? == spis(&after)?,
        "other SAs than before: {before}\n{after}"
    );
    ensure!(
        mmlctl(&net.mh, &["policy", "list"])?.contains("10.77.0.0/16"),
        "what was protected is no more"
    );
    Ok(())
}
