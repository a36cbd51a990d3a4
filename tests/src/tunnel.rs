// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What can lie between home agent and mobile host: nothing, the kernel's own ESP, WireGuard.
//! The two-zone tunnel is in [`crate::zone_tunnel`].

use std::net::IpAddr;

use anyhow::Result;

use crate::command;
use crate::netns::Netns;
use crate::topology::{Topology, HA, MH};
use crate::traffic;

/// The SPIs of kernel ESP, HA to MH and back.
const SPIS: [u32; 2] = [0x1001, 0x1002];

/// How kernel ESP lies between home agent and mobile host.
pub struct Kernel<'a> {
    /// The outer ends, the home agent's first.
    pub ends: (IpAddr, IpAddr),
    /// What is protected, from everywhere to the mobile host: source and destination prefix.
    pub to_mh: (&'a str, &'a str),
    pub transport: bool,
    /// Whether it goes in UDP, between two ports 4500.
    pub udp: bool,
}

/// Sets up kernel ESP in tunnel mode for the home address: rfc4106(gcm(aes)) with a 128-bit ICV and ESN, as two-zone ESP
/// has. `bits` is the key length, 128 or 256.
pub fn kernel_esp(net: &Topology, bits: u16) -> Result<()> {
    let kernel = Kernel {
        ends: (HA.into(), MH.into()),
        to_mh: ("0.0.0.0/0", "203.0.113.7/32"),
        transport: false,
        udp: false,
    };
    kernel_esp_as(net, bits, &kernel)
}

/// The same between any ends, in any mode.
pub fn kernel_esp_as(net: &Topology, bits: u16, kernel: &Kernel<'_>) -> Result<()> {
    for namespace in [&net.ha, &net.mh] {
        namespace.keys.are_xfrms(true);
    }
    // RFC 4106 §8.1: four octets of salt follow the key.
    let keys: Vec<String> = (0..2)
        .map(|_| hex(&traffic::random(usize::from(bits / 8) + 4)))
        .collect();
    let (ha, mh) = kernel.ends;
    let (source, destination) = kernel.to_mh;
    let mode = if kernel.transport {
        "transport"
    } else {
        "tunnel"
    };
    // A state is for what is inside of its ends' own version, unless it is told otherwise.
    let any = if ha.is_ipv4() == destination.contains('.') {
        ""
    } else {
        " af-unspec"
    };
    let udp = if kernel.udp {
        " encap espinudp 4500 4500 0.0.0.0"
    } else {
        ""
    };
    let states = [(ha, mh, 0), (mh, ha, 1)]
        .map(|(source, destination, way)| {
            format!(
                "xfrm state add src {source} dst {destination} proto esp spi {:#x} reqid 1 mode {mode} replay-window 128 flag esn{any} aead rfc4106(gcm(aes)) 0x{} 128{udp}",
                SPIS[way], keys[way]
            )
        })
        .join("\n");
    let policy = |selectors: &str, direction: &str, source, destination| {
        format!("xfrm policy add {selectors} dir {direction} tmpl src {source} dst {destination} proto esp reqid 1 mode {mode}\n")
    };
    let (to_mh, from_mh) = (
        format!("src {source} dst {destination}"),
        format!("src {destination} dst {source}"),
    );
    let at_ha = policy(&to_mh, "out", ha, mh)
        + &policy(&from_mh, "fwd", mh, ha)
        + &policy(&from_mh, "in", mh, ha);
    let at_mh = policy(&from_mh, "out", mh, ha) + &policy(&to_mh, "in", ha, mh);
    net.ha.ip(&format!("{states}\n{at_ha}"))?;
    net.mh.ip(&format!("{states}\n{at_mh}"))
}

/// Takes kernel ESP away again.
pub fn no_kernel_esp(net: &Topology) -> Result<()> {
    for namespace in [&net.ha, &net.mh] {
        namespace.keys.are_xfrms(false);
    }
    for namespace in [&net.ha, &net.mh] {
        namespace.ip("xfrm policy flush\nxfrm state flush")?;
    }
    Ok(())
}

/// Sets up WireGuard as wg0 between the same two addresses, and the routes into it.
pub fn wireguard(net: &Topology) -> Result<()> {
    let ends = [(&net.ha, MH, "203.0.113.7/32"), (&net.mh, HA, "0.0.0.0/0")];
    let mut public_keys = Vec::new();
    for (namespace, _, _) in &ends {
        let private = command::run(&["wg", "genkey"])?;
        let file = format!("/run/wireguard-{}", namespace.name());
        std::fs::write(&file, &private)?;
        let public =
            command::finish("wg pubkey", &["wg", "pubkey"], Some(&private))?.ok("wg pubkey")?;
        public_keys.push(public.trim().to_owned());
        namespace.ip("link add wg0 type wireguard")?;
        namespace.run(&[
            "wg",
            "set",
            "wg0",
            "listen-port",
            "51820",
            "private-key",
            &file,
        ])?;
    }
    public_keys.reverse();
    for ((namespace, peer, allowed), key) in ends.iter().zip(&public_keys) {
        namespace.run(&[
            "wg",
            "set",
            "wg0",
            "peer",
            key,
            "endpoint",
            &format!("{peer}:51820"),
            "allowed-ips",
            allowed,
        ])?;
        namespace.ip("link set wg0 up")?;
    }
    into_tunnel(&net.ha, &net.mh, "wg0")
}

/// Routes the home address's traffic into a device at both ends.
pub fn into_tunnel(ha: &Netns, mh: &Netns, device: &str) -> Result<()> {
    ha.ip(&format!("route replace 203.0.113.7/32 dev {device}"))?;
    mh.ip(&format!(
        "route replace default dev {device} src 203.0.113.7"
    ))
}

/// In hexadecimal, as `ip` takes keys.
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
