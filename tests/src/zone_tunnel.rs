// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The two-zone tunnel between home agent and mobile host, set up by `mmlctl` as a person would.

use std::path::PathBuf;

use anyhow::Result;

use crate::command;
use crate::csa_file::{self, Keys};
use crate::netns::Netns;
use crate::topology::{Topology, HA, HOME, MH};
use crate::tunnel;

/// How to set it up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `mmlctl csa new`'s names of the two zones' ciphers.
    pub zone1: &'static str,
    pub zone2: &'static str,
    /// The zone map's first stop; None: the default.
    pub map: Option<&'static str>,
    pub window: Option<u32>,
    pub may_write: bool,
    /// Whether the foreign agent gets its CSAs.
    pub relay: bool,
    /// Whether policies protect the home address at both ends.
    pub protect: bool,
    /// Whether the routes lead into mml0.
    pub routes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            zone1: "aes256-gcm16-iiv",
            zone2: "aes256-gcm16-iiv",
            map: None,
            window: None,
            may_write: false,
            relay: true,
            protect: true,
            routes: true,
        }
    }
}

/// Makes mml0 at both ends and brings it up.
pub fn devices(net: &Topology) -> Result<()> {
    for namespace in [&net.ha, &net.mh] {
        namespace.ip("link add mml0 type mml\nlink set mml0 up")?;
    }
    Ok(())
}

/// Devices, CSAs, policies and routes. Gives the keys.
pub fn set_up(net: &Topology, options: &Options) -> Result<Keys> {
    devices(net)?;
    let keys = load_csas(net, options)?;
    if options.protect {
        policies(net)?;
    }
    if options.routes {
        tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    }
    Ok(keys)
}

/// Files with fresh keys, in a folder of their own: `ha.toml`, `fa.toml`, `mh.toml`.
pub fn new_files(options: &Options) -> Result<PathBuf> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let folder = format!(
        "/run/csa-{}",
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    );
    let (ha, mh, home) = (HA.to_string(), MH.to_string(), format!("{HOME}/32"));
    let window = options.window.map(|window| window.to_string());
    let mut argv = vec![
        "mmlctl",
        "csa",
        "new",
        "--out",
        &folder,
        "--ha",
        &ha,
        "--mh",
        &mh,
        "--selector-mh",
        &home,
        "--zone1",
        options.zone1,
        "--zone2",
        options.zone2,
    ];
    if let Some(map) = options.map {
        argv.extend(["--map", map]);
    }
    if let Some(window) = &window {
        argv.extend(["--window", window]);
    }
    if options.may_write {
        argv.push("--may-write");
    }
    command::run(&argv)?;
    Ok(PathBuf::from(folder))
}

/// Makes fresh CSAs and loads them at the three nodes.
pub fn load_csas(net: &Topology, options: &Options) -> Result<Keys> {
    let folder = new_files(options)?;
    let keys = csa_file::read(&folder.join("mh.toml"))?;
    for (namespace, file) in [
        (&net.ha, "ha.toml"),
        (&net.mh, "mh.toml"),
        (&net.fa1, "fa.toml"),
    ] {
        if file == "fa.toml" && !options.relay {
            continue;
        }
        mmlctl(
            namespace,
            &["csa", "add", "-f", &folder.join(file).to_string_lossy()],
        )?;
    }
    Ok(keys)
}

/// Policies that protect the home address at both ends.
pub fn policies(net: &Topology) -> Result<()> {
    let home = format!("{HOME}/32");
    let (ha, mh) = (HA.to_string(), MH.to_string());
    for (namespace, to_mh, from_mh) in [(&net.ha, "out", "in"), (&net.mh, "in", "out")] {
        mmlctl(
            namespace,
            &[
                "policy",
                "add",
                "--dir",
                to_mh,
                "--protect",
                "--src",
                "0.0.0.0/0",
                "--dst",
                &home,
                "--outer-src",
                &ha,
                "--outer-dst",
                &mh,
            ],
        )?;
        mmlctl(
            namespace,
            &[
                "policy",
                "add",
                "--dir",
                from_mh,
                "--protect",
                "--src",
                &home,
                "--dst",
                "0.0.0.0/0",
                "--outer-src",
                &mh,
                "--outer-dst",
                &ha,
            ],
        )?;
    }
    Ok(())
}

/// Runs `mmlctl` at a node.
pub fn mmlctl(namespace: &Netns, arguments: &[&str]) -> Result<String> {
    namespace.run(&[&["mmlctl"], arguments].concat())
}
