// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Transport mode between home agent and mobile host, set up by `mmlctl` as a person would.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{ensure, Context, Result};

use crate::command;
use crate::netns::Netns;
use crate::topology::Topology;
use crate::zone_tunnel::{self, mmlctl};

/// Routes what a host says to its peer into mml0, but for what was sealed.
pub fn route(namespace: &Netns, from: IpAddr, to: IpAddr) -> Result<()> {
    rules(namespace, to)?;
    namespace.ip(&format!("route replace {to} dev mml0 src {from} table 100"))
}

/// The rules of that alone: table 100 is asked about all that goes to the peer, but for what was sealed. Over IPv4 that is
/// told by its protocol, over IPv6 by the mark its route is looked up with: so the kernel looks up what ICMP says of either
/// path.
pub fn rules(namespace: &Netns, to: IpAddr) -> Result<()> {
    let (version, sealed) = if to.is_ipv4() {
        (
            "-4",
            [
                "pref 10 ipproto esp lookup main",
                "pref 11 ipproto udp dport 4500 lookup main",
            ],
        )
    } else {
        mmlctl(namespace, &["set", "route-mark", "77"])?;
        (
            "-6",
            [
                "pref 10 fwmark 77 lookup main",
                "pref 11 ipproto udp sport 4500 dport 4500 lookup main",
            ],
        )
    };
    let to_peer = ["ip", version, "rule", "add", "to", &to.to_string()];
    for rule in sealed.iter().chain(&["pref 20 lookup 100"]) {
        let words: Vec<&str> = rule.split(' ').collect();
        namespace.run(&[&to_peer[..], &words].concat())?;
    }
    Ok(())
}

/// Policies for what the two say to one another, but for what carries it.
pub fn protect(namespace: &Netns, own: IpAddr, peer: IpAddr) -> Result<()> {
    let (own, peer) = (own.to_string(), peer.to_string());
    for (direction, src, dst) in [("out", &own, &peer), ("in", &peer, &own)] {
        mmlctl(
            namespace,
            &[
                "policy",
                "add",
                "--dir",
                direction,
                "--protect",
                "--src",
                src,
                "--dst",
                dst,
                "--outer-src",
                src,
                "--outer-dst",
                dst,
            ],
        )?;
    }
    Ok(())
}

/// A folder that wasn't there.
pub fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/run/transport-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Devices, CSAs, policies and routes at the two ends, the home agent's first; `more` goes to `mmlctl csa new`.
pub fn set_up(net: &Topology, (ha, mh): (IpAddr, IpAddr), more: &[&str]) -> Result<PathBuf> {
    let folder = folder();
    new_files(&folder, (ha, mh), more)?;
    for (namespace, file, own, peer) in [(&net.mh, "mh.toml", mh, ha), (&net.ha, "ha.toml", ha, mh)]
    {
        namespace.ip("link add mml0 type mml\nlink set mml0 up")?;
        zone_tunnel::load_file(namespace, &folder.join(file))?;
        protect(namespace, own, peer)?;
        route(namespace, own, peer)?;
    }
    Ok(folder)
}

/// Files with fresh keys in that folder, for the two ends and nobody else.
pub fn new_files(folder: &Path, (ha, mh): (IpAddr, IpAddr), more: &[&str]) -> Result<()> {
    let (ha, mh) = (ha.to_string(), mh.to_string());
    let out = folder.to_str().context("path")?;
    let new = [
        "mmlctl",
        "csa",
        "new",
        "--transport",
        "--out",
        out,
        "--ha",
        &ha,
        "--mh",
        &mh,
    ];
    command::run(&[&new[..], more].concat())?;
    ensure!(
        !folder.join("fa.toml").exists(),
        "there is a file for a relay"
    );
    Ok(())
}
