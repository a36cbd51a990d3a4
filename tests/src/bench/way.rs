// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What lies between home agent and mobile host, and the path cn – ha – fa1 – mh it lies on: links without rate or
//! delay, so that nothing but instructions takes time.

use anyhow::{ensure, Result};

use super::Bench;
use crate::netns::Netns;
use crate::topology::{Shape, Topology};
use crate::{tunnel, zone_tunnel};

/// One of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Routers and nothing else.
    Plain,
    /// The kernel's own: rfc4106(gcm(aes)) with 256 bits, tunnel mode, ESN.
    KernelEsp,
    WireGuard,
    /// AES-256-GCM-16-IIV in both zones, policies at both ends, a relay CSA at the foreign agent.
    TwoZoneEsp,
    /// The same, but for the foreign agent, which forwards and knows nothing.
    TwoZoneEspNoRelay,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::KernelEsp => "kernel-esp",
            Self::WireGuard => "wireguard",
            Self::TwoZoneEsp => "two-zone-esp-relayed",
            Self::TwoZoneEspNoRelay => "two-zone-esp",
        }
    }

    /// Builds the path and lays the way on it, for as long as `run` takes.
    pub fn laid<T>(self, bench: &Bench<'_>, run: impl FnOnce(&Topology) -> Result<T>) -> Result<T> {
        let lay = || {
            let net = Topology::up(Shape::Chain)?;
            self.set_up(&net)?;
            run(&net)
        };
        match self {
            Self::TwoZoneEsp | Self::TwoZoneEspNoRelay => bench.with_module(lay),
            _ => lay(),
        }
    }

    fn set_up(self, net: &Topology) -> Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::KernelEsp => tunnel::kernel_esp(net, 256),
            Self::WireGuard => tunnel::wireguard(net),
            Self::TwoZoneEsp | Self::TwoZoneEspNoRelay => {
                let options = zone_tunnel::Options {
                    relay: self == Self::TwoZoneEsp,
                    ..Default::default()
                };
                zone_tunnel::set_up(net, &options).map(drop)
            }
        }
    }
}

/// The features switched, by `ethtool`'s names.
const OFFLOADS: [&str; 3] = ["tso", "gso", "gro"];

/// Switches the offloads of every interface, tunnels' too.
pub fn offloads(net: &Topology, on: bool) -> Result<()> {
    for namespace in net.all() {
        let interfaces: Vec<String> = namespace.enter(|| {
            Ok(nix::net::if_::if_nameindex()?
                .iter()
                .map(|interface| interface.name().to_string_lossy().into_owned())
                .collect())
        })?;
        for interface in interfaces.iter().filter(|name| *name != "lo") {
            offload(namespace, interface, on)?;
        }
    }
    Ok(())
}

/// Switches the offloads of one interface.
pub fn offload(namespace: &Netns, interface: &str, on: bool) -> Result<()> {
    let state = if on { "on" } else { "off" };
    let tunnel = matches!(interface, "mml0" | "wg0");
    for feature in OFFLOADS {
        // A tunnel's device may not have each of them to switch; a veth has.
        let switched = namespace.attempt(&["ethtool", "-K", interface, feature, state])?;
        ensure!(
            switched.success || tunnel,
            "{interface}: {}",
            switched.stderr.trim()
        );
    }
    Ok(())
}
