// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 on the same links: each node's second addresses, and tunnels that have them outside, inside or both.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;

use crate::netns::Netns;
use crate::topology::{Topology, HA, HOME, MH};
use crate::zone_tunnel::{self, mmlctl};

/// The correspondent.
pub const CN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10);
/// The home agent's end of the tunnel.
pub const HA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 1, 0, 0, 0, 1);
/// The mobile host's end of the tunnel.
pub const MH6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x101, 0, 0, 0, 0, 7);
/// Its home address.
pub const HOME6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 7);

/// Gives every node its IPv6 addresses, and plain routing everywhere, as IPv4 has it.
pub fn up(net: &Topology) -> Result<()> {
    for namespace in net.all() {
        // The guest starts without IPv6, so that IPv4's scenarios see nothing of it.
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "0")?;
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
        namespace.sysctl("net.ipv6.icmp.ratelimit", "0")?;
        namespace.sysctl("net.ipv6.conf.all.accept_ra", "0")?;
    }
    let backbone = net.backbone();
    // A chain has no backbone router: the foreign agent is the home agent's neighbour.
    let (towards_ha, address, gateway) = match net.core() {
        Ok(core) => {
            core.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            core.ip("address add 2001:db8:51:1::2/64 dev ha nodad
                address add 2001:db8:51:2::5/64 dev fa1 nodad
                route add 2001:db8:2::/64 via 2001:db8:51:1::1
                route add 2001:db8:101::/64 via 2001:db8:51:2::6
                route add 2001:db8:203::7/128 via 2001:db8:51:2::6")?;
            ("core", "2001:db8:51:2::6/64", "2001:db8:51:2::5")
        }
        Err(_) => ("ha", "2001:db8:51:1::2/64", "2001:db8:51:1::1"),
    };
    for router in [&net.ha, &net.fa1] {
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    net.cn.ip("address add 2001:db8:2::10/64 dev ha nodad
        route add default via 2001:db8:2::1")?;
    net.ha.ip(&format!(
        "address add 2001:db8:2::1/64 dev cn nodad
        address add 2001:db8:51:1::1/64 dev {backbone} nodad
        route add 2001:db8:101::/64 via 2001:db8:51:1::2
        route add 2001:db8:51:2::/64 via 2001:db8:51:1::2
        route add 2001:db8:203::7/128 via 2001:db8:51:1::2"
    ))?;
    net.fa1.ip(&format!(
        "address add {address} dev {towards_ha} nodad
        address add 2001:db8:101::1/64 dev wl1 nodad
        route add default via {gateway}
        route add 2001:db8:203::7/128 via 2001:db8:101::7"
    ))?;
    net.mh.ip("address add 2001:db8:203::7/128 dev lo nodad
        address add 2001:db8:101::7/64 dev wl1 nodad
        route add 2001:db8:51:1::1/128 via 2001:db8:101::1 src 2001:db8:101::7
        route add default via 2001:db8:101::1 src 2001:db8:203::7")
}

/// Which version is outside, which inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    pub outer: u8,
    pub inner: u8,
}

/// Those with IPv6 in them.
pub const FAMILIES: [Families; 3] = [
    Families { outer: 4, inner: 6 },
    Families { outer: 6, inner: 4 },
    Families { outer: 6, inner: 6 },
];

impl Families {
    /// The tunnel's ends, the home agent's first.
    pub fn ends(self) -> (IpAddr, IpAddr) {
        if self.outer == 4 {
            (HA.into(), MH.into())
        } else {
            (HA6.into(), MH6.into())
        }
    }

    /// The correspondent and the home address.
    pub fn hosts(self) -> (IpAddr, IpAddr) {
        if self.inner == 4 {
            (crate::topology::CN.into(), HOME.into())
        } else {
            (CN6.into(), HOME6.into())
        }
    }

    /// The home address as a prefix, and everything.
    pub fn prefixes(self) -> (String, &'static str) {
        if self.inner == 4 {
            (format!("{HOME}/32"), "0.0.0.0/0")
        } else {
            (format!("{HOME6}/128"), "::/0")
        }
    }
}

/// Policies that protect the home address at both ends.
pub fn protect(net: &Topology, families: Families) -> Result<()> {
    let (home, all) = families.prefixes();
    let (ha, mh) = families.ends();
    let (ha, mh) = (ha.to_string(), mh.to_string());
    let policy = |namespace: &Netns, direction, ends: [&str; 4]| {
        let [src, dst, outer_src, outer_dst] = ends;
        let arguments = ["policy", "add", "--dir", direction, "--protect"];
        let ends = [
            "--src",
            src,
            "--dst",
            dst,
            "--outer-src",
            outer_src,
            "--outer-dst",
            outer_dst,
        ];
        mmlctl(namespace, &[&arguments[..], &ends[..]].concat()).map(|_| ())
    };
    for (namespace, to_mh, from_mh) in [(&net.ha, "out", "in"), (&net.mh, "in", "out")] {
        policy(namespace, to_mh, [all, &home, &ha, &mh])?;
        policy(namespace, from_mh, [&home, all, &mh, &ha])?;
    }
    Ok(())
}

/// Routes the home address's traffic into mml0 at both ends.
pub fn routes(net: &Topology, families: Families) -> Result<()> {
    if families.inner == 4 {
        return crate::tunnel::into_tunnel(&net.ha, &net.mh, "mml0");
    }
    net.ha.ip("route replace 2001:db8:203::7/128 dev mml0")?;
    net.mh
        .ip("route replace default dev mml0 src 2001:db8:203::7")
}

/// Fresh CSAs at the three nodes. Gives the SPI towards the mobile host.
pub fn load(net: &Topology, families: Families, more: &[&str]) -> Result<String> {
    let (home, _) = families.prefixes();
    let folder = zone_tunnel::new_files_between(families.ends(), &home, more)?;
    for (namespace, file) in [
        (&net.mh, "mh.toml"),
        (&net.fa1, "fa.toml"),
        (&net.ha, "ha.toml"),
    ] {
        zone_tunnel::load_file(namespace, &folder.join(file))?;
    }
    let list = mmlctl(&net.ha, &["--json", "csa", "list"])?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let spi = list
        .as_array()
        .into_iter()
        .flatten()
        .filter(|csa| csa["role"] == "origin")
        .filter_map(|csa| csa["spi"].as_u64())
        .next_back()
        .map(|spi| spi.to_string());
    anyhow::Context::context(spi, "no origin in mmlctl's list")
}

/// Devices, CSAs, policies and routes.
pub fn set_up(net: &Topology, families: Families) -> Result<String> {
    zone_tunnel::devices(net)?;
    let spi = load(net, families, &[])?;
    protect(net, families)?;
    routes(net, families)?;
    Ok(spi)
}
