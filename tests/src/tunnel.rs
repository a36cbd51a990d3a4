// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What can lie between home agent and mobile host: nothing, the kernel's own ESP, WireGuard.
//! The two-zone tunnel is in [`crate::zone_tunnel`].

use anyhow::Result;

use crate::command;
use crate::netns::Netns;
use crate::topology::{Topology, HA, MH};
use crate::traffic;

/// The SPIs of kernel ESP, HA to MH and back.
const SPIS: [u32; 2] = [0x1001, 0x1002];

/// Sets up kernel ESP in tunnel mode: rfc4106(gcm(aes)) with a 128-bit ICV and ESN, as two-zone ESP has. `bits` is the
/// key length, 128 or 256.
pub fn kernel_esp(net: &Topology, bits: u16) -> Result<()> {
    // RFC 4106 §8.1: four octets of salt follow the key.
    let keys: Vec<String> = (0..2)
        .map(|_| hex(&traffic::random(usize::from(bits / 8) + 4)))
        .collect();
    let states = [(HA, MH, 0), (MH, HA, 1)]
        .map(|(source, destination, way)| {
            format!(
                "xfrm state add src {source} dst {destination} proto esp spi {:#x} reqid 1 mode tunnel replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{} 128",
                SPIS[way], keys[way]
            )
        })
        .join("\n");
    let policy = |selectors: &str, direction: &str, source, destination| {
        format!("xfrm policy add {selectors} dir {direction} tmpl src {source} dst {destination} proto esp reqid 1 mode tunnel\n")
    };
    let (to_mh, from_mh) = (
        "src 0.0.0.0/0 dst 203.0.113.7/32",
        "src 203.0.113.7/32 dst 0.0.0.0/0",
    );
    let ha = policy(to_mh, "out", HA, MH)
        + &policy(from_mh, "fwd", MH, HA)
        + &policy(from_mh, "in", MH, HA);
    let mh = policy(from_mh, "out", MH, HA) + &policy(to_mh, "in", HA, MH);
    net.ha.ip(&format!("{states}\n{ha}"))?;
    net.mh.ip(&format!("{states}\n{mh}"))
}

/// Takes kernel ESP away again.
pub fn no_kernel_esp(net: &Topology) -> Result<()> {
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

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
