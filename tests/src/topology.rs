// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The network: six nodes as network namespaces, joined by veth pairs.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::Netns;

/// The topology, as README and shell show it. Each interface is named after the node at its other end, but for the
/// wireless links, which are named after themselves.
pub const DRAWING: &str = r"
      192.0.2.0/24      198.51.100.0/30      198.51.100.4/30      10.1.1.0/24
  cn ------------- ha ------------------ core ---------------- fa1 ~ ~ wl1 ~ ~ .
   .10           .1  .1              .2  |  .5             .6      .1       .7 :
                                         |                                     mh  203.0.113.7
                                         |    198.51.100.8/30     10.1.2.0/24  :   (home address, on lo)
                                         +-------------------- fa2 ~ ~ wl2 ~ ~ '
                                          .9             .10       .1       .7";

/// The correspondent.
pub const CN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The home agent's end of the tunnel.
pub const HA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The mobile host's end of the tunnel while at the first foreign agent.
pub const MH: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 7);
/// The mobile host's home address, which is what its correspondents talk to.
pub const HOME: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Which nodes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All six.
    Full,
    /// cn – ha – fa1 – mh, for the benchmarks: every hop is one of those compared.
    Chain,
}

/// Fields drop in order, the mobile host first.
pub struct Topology {
    pub mh: Netns,
    /// A third foreign agent, where a scenario adds one.
    pub fa3: Option<Netns>,
    pub fa2: Option<Netns>,
    pub fa1: Netns,
    core: Option<Netns>,
    pub ha: Netns,
    pub cn: Netns,
    shape: Shape,
}

impl Topology {
    /// Builds it with plain routing everywhere: the home address is reached in clear, by its foreign agent, until a
    /// tunnel is set up over it. So what leaks out of a tunnel would arrive, and be seen.
    pub fn up(shape: Shape) -> Result<Self> {
        let cn = Netns::add("cn")?;
        let ha = Netns::add("ha")?;
        let core = if shape == Shape::Full {
            Some(Netns::add("core")?)
        } else {
            None
        };
        let fa1 = Netns::add("fa1")?;
        let fa2 = if shape == Shape::Full {
            Some(Netns::add("fa2")?)
        } else {
            None
        };
        let mh = Netns::add("mh")?;
        let topology = Self {
            mh,
            fa3: None,
            fa2,
            fa1,
            core,
            ha,
            cn,
            shape,
        };
        topology.links()?;
        for namespace in topology.all() {
            // Rate limits of ICMP errors would make what a scenario sees depend on how fast the machine is.
            namespace.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        }
        for router in [
            Some(&topology.ha),
            topology.core.as_ref(),
            Some(&topology.fa1),
            topology.fa2.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            router.sysctl("net.ipv4.ip_forward", "1")?;
            router.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        }
        Ok(topology)
    }

    fn links(&self) -> Result<()> {
        let backbone = self.backbone();
        self.cn.ip("link add ha type veth peer name cn netns ha
            address add 192.0.2.10/24 dev ha
            link set ha up
            route add default via 192.0.2.1")?;
        if let (Some(core), Some(fa2)) = (&self.core, &self.fa2) {
            core.ip("link add ha type veth peer name core netns ha
                link add fa1 type veth peer name core netns fa1
                link add fa2 type veth peer name core netns fa2
                address add 198.51.100.2/30 dev ha
                address add 198.51.100.5/30 dev fa1
                address add 198.51.100.9/30 dev fa2
                link set ha up
                link set fa1 up
                link set fa2 up")?;
            fa2.ip("link add wl2 type veth peer name wl2 netns mh
                address add 198.51.100.10/30 dev core
                address add 10.1.2.1/24 dev wl2
                link set core up
                link set wl2 up
                route add default via 198.51.100.9")?;
        } else {
            self.fa1
                .ip("link add ha type veth peer name fa1 netns ha")?;
        }
        self.ha.ip(&format!(
            "address add 192.0.2.1/24 dev cn
            address add 198.51.100.1/30 dev {backbone}
            link set cn up
            link set {backbone} up
            route add 198.51.100.0/24 via 198.51.100.2
            route add 10.1.0.0/16 via 198.51.100.2
            route add 203.0.113.7/32 via 198.51.100.2"
        ))?;
        let (towards_ha, address, gateway) = match self.shape {
            Shape::Full => ("core", "198.51.100.6/30", "198.51.100.5"),
            Shape::Chain => ("ha", "198.51.100.2/30", "198.51.100.1"),
        };
        self.fa1.ip(&format!(
            "link add wl1 type veth peer name wl1 netns mh
            address add {address} dev {towards_ha}
            address add 10.1.1.1/24 dev wl1
            link set {towards_ha} up
            link set wl1 up
            route add default via {gateway}
            route add 203.0.113.7/32 via 10.1.1.7"
        ))?;
        if let Some(core) = &self.core {
            core.ip("route add 192.0.2.0/24 via 198.51.100.1
                route add 10.1.1.0/24 via 198.51.100.6
                route add 10.1.2.0/24 via 198.51.100.10
                route add 203.0.113.7/32 via 198.51.100.6")?;
        }
        let second = if self.fa2.is_some() {
            "address add 10.1.2.7/24 dev wl2\nlink set wl2 up"
        } else {
            ""
        };
        self.mh.ip(&format!(
            "address add 203.0.113.7/32 dev lo
            address add 10.1.1.7/24 dev wl1
            link set wl1 up
            {second}
            route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7
            route add default via 10.1.1.1 src 203.0.113.7"
        ))
    }

    /// The backbone router; a chain has none.
    pub fn core(&self) -> Result<&Netns> {
        self.core
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("this topology has no core"))
    }

    /// The home agent's interface towards the mobile host.
    pub fn backbone(&self) -> &'static str {
        match self.shape {
            Shape::Full => "core",
            Shape::Chain => "fa1",
        }
    }

    pub fn all(&self) -> Vec<&Netns> {
        [
            Some(&self.cn),
            Some(&self.ha),
            self.core.as_ref(),
            Some(&self.fa1),
            self.fa2.as_ref(),
            self.fa3.as_ref(),
            Some(&self.mh),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Makes the wireless links slow and far.
    pub fn wireless(&self, rate: &str, delay: &str) -> Result<()> {
        // The queue is bounded so that a sender's window, not the radio, is what is measured.
        self.radio(&format!("rate {rate} delay {delay} limit 200"))
    }

    /// Gives both ends of each wireless link a netem of these words.
    pub fn radio(&self, words: &str) -> Result<()> {
        let netem = |interface: &str| format!("qdisc replace dev {interface} root netem {words}");
        self.fa1.tc(&netem("wl1"))?;
        self.mh.tc(&netem("wl1"))?;
        if let Some(fa2) = &self.fa2 {
            fa2.tc(&netem("wl2"))?;
            self.mh.tc(&netem("wl2"))?;
        }
        Ok(())
    }

    /// Switches segmentation and receive offloads of every veth on or off.
    pub fn offloads(&self, on: bool) -> Result<()> {
        for namespace in self.all() {
            let interfaces = namespace.enter(interfaces)?;
            for interface in interfaces {
                offload(namespace, &interface, on)?;
            }
        }
        Ok(())
    }
}

/// Makes the senders' packets linear, by taking scatter-gather from their interfaces.
///
/// The kernel's ESP opens packets in place as soon as their head is unshared, whoever else holds their page fragments
/// (`esp_input`'s way past `skb_cow_data`, Linux 7.3). A capture on the same machine that still holds a packet whose
/// head was copied by a router then shows plaintext that never crossed the link.
pub fn linear(net: &Topology) -> Result<()> {
    net.cn.run(&["ethtool", "-K", "ha", "sg", "off"])?;
    net.mh.run(&["ethtool", "-K", "wl1", "sg", "off"])?;
    Ok(())
}

/// Switches tso, gso and gro of one interface.
pub fn offload(namespace: &Netns, interface: &str, on: bool) -> Result<()> {
    let state = if on { "on" } else { "off" };
    namespace.run(&[
        "ethtool", "-K", interface, "tso", state, "gso", state, "gro", state,
    ])?;
    Ok(())
}

/// Devices that a kernel with tunnels built in makes in every namespace. Nobody uses them, and not all have offloads.
const FALL_BACKS: [&str; 9] = [
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
];

/// The interfaces of the namespace the calling thread is in, loopback and what nobody uses left out.
fn interfaces() -> Result<Vec<String>> {
    Ok(nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .filter(|name| name != "lo" && !FALL_BACKS.contains(&name.as_str()))
        .collect())
}
