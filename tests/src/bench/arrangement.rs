// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Other arrangements of the tunnel than IPv4 in bare IPv4: IPv6 outside and inside, transport mode, UDP encapsulation.
//! Each is measured as `goodput` and `stage` measure the one, beside kernel ESP in the same arrangement.
//!
//! In transport mode the home agent is the sender. Its stage `seal` begins where a host's own packets first come by
//! (netfilter's OUTPUT), since there is no node before it.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use super::goodput;
use super::row::Row;
use super::stage::{self, Cost, Place};
use super::way;
use super::Bench;
use crate::encap::encap;
use crate::netns::Netns;
use crate::sink;
use crate::six::{self, Families};
use crate::topology::{Shape, Topology};
use crate::tunnel::{self, Kernel};
use crate::{traffic, transport_mode, zone_tunnel};

/// What the names of their rows begin with.
pub const NAMES: [&str; 5] = [
    "ipv6-in-ipv4",
    "ipv4-in-ipv6",
    "ipv6-in-ipv6",
    "transport",
    "udp",
];

const ALL: [Arrangement; NAMES.len()] = [
    Arrangement::tunnel(NAMES[0], 4, 6),
    Arrangement::tunnel(NAMES[1], 6, 4),
    Arrangement::tunnel(NAMES[2], 6, 6),
    Arrangement {
        transport: true,
        ..Arrangement::tunnel(NAMES[3], 4, 4)
    },
    Arrangement {
        udp: true,
        ..Arrangement::tunnel(NAMES[4], 4, 4)
    },
];

/// What two-zone ESP must keep of kernel ESP's goodput, without a relay.
const KEPT: f64 = 0.95;
/// Octets of the inner datagram; in transport mode of the datagram.
const SIZES: [usize; 2] = [64, 1400];
/// Longer than an address may be tentative: a random delay and one probe, a second each (RFC 4862 §5.4.2, §5.1).
const TENTATIVE: Duration = Duration::from_secs(3);
/// The port of ESP in UDP.
const UDP_PORT: u16 = 4500;
/// The benchmark's cipher in both zones, as `mmlctl csa new` takes it.
const CIPHERS: [&str; 4] = ["--zone1", "aes256-gcm16-iiv", "--zone2", "aes256-gcm16-iiv"];

/// One of them.
#[derive(Clone, Copy)]
struct Arrangement {
    name: &'static str,
    families: Families,
    transport: bool,
    udp: bool,
}

/// What lies between home agent and mobile host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    KernelEsp,
    /// Beside the rules of routing that two-zone ESP needs in transport mode, which cost any packet.
    KernelEspWithRules,
    TwoZoneEsp,
    /// With a relay CSA each way at the foreign agent.
    Relayed,
}

/// What each node spends on a packet.
struct Stages {
    seal: Cost,
    /// At the foreign agent, which forwards what isn't its own.
    forward: Cost,
    open: Cost,
}

impl Arrangement {
    const fn tunnel(name: &'static str, outer: u8, inner: u8) -> Self {
        Self {
            name,
            families: Families { outer, inner },
            transport: false,
            udp: false,
        }
    }

    /// Kernel ESP, by the names it goes by in the rows.
    fn peers(self) -> &'static [(&'static str, By)] {
        let all = &[
            ("kernel-esp", By::KernelEsp),
            ("kernel-esp-with-rules", By::KernelEspWithRules),
        ];
        if self.transport {
            all
        } else {
            &all[..1]
        }
    }

    /// Builds the path and lays it there, for as long as `run` takes.
    fn laid<T>(
        self,
        bench: &Bench<'_>,
        by: By,
        run: impl FnOnce(&Topology) -> Result<T>,
    ) -> Result<T> {
        let lay = || {
            let net = Topology::up(Shape::Chain)?;
            if self.families.outer == 6 || self.families.inner == 6 {
                six::up(&net)?;
                // Routers ask for their neighbours from link-local addresses, which they get only now.
                std::thread::sleep(TENTATIVE);
            }
            let (ha, mh) = self.families.ends();
            let _sockets = if self.udp {
                Some([encap(&net.ha, ha, UDP_PORT)?, encap(&net.mh, mh, UDP_PORT)?])
            } else {
                None
            };
            match by {
                By::KernelEsp => self.kernel_esp(&net)?,
                By::KernelEspWithRules => {
                    self.kernel_esp(&net)?;
                    transport_mode::rules(&net.ha, mh)?;
                    transport_mode::rules(&net.mh, ha)?;
                }
                By::TwoZoneEsp | By::Relayed => self.two_zone_esp(&net, by == By::Relayed)?,
            }
            run(&net)
        };
        match by {
            By::KernelEsp | By::KernelEspWithRules => lay(),
            By::TwoZoneEsp | By::Relayed => bench.with_module(lay),
        }
    }

    fn kernel_esp(self, net: &Topology) -> Result<()> {
        let (ha, mh) = self.families.ends();
        let (home, all) = self.families.prefixes();
        let (ha_only, mh_only) = (format!("{ha}/32"), format!("{mh}/32"));
        let kernel = Kernel {
            ends: (ha, mh),
            to_mh: if self.transport {
                (&ha_only, &mh_only)
            } else {
                (all, &home)
            },
            transport: self.transport,
            udp: self.udp,
        };
        tunnel::kernel_esp_as(net, 256, &kernel)
    }

    fn two_zone_esp(self, net: &Topology, relay: bool) -> Result<()> {
        let ends = self.families.ends();
        if self.transport {
            return transport_mode::set_up(net, ends, &CIPHERS).map(drop);
        }
        zone_tunnel::devices(net)?;
        let (home, _) = self.families.prefixes();
        let udp: &[&str] = if self.udp { &["--udp"] } else { &[] };
        let folder = zone_tunnel::new_files_between(ends, &home, &[&CIPHERS, udp].concat())?;
        zone_tunnel::load_file(&net.mh, &folder.join("mh.toml"))?;
        if relay {
            zone_tunnel::load_file(&net.fa1, &folder.join("fa.toml"))?;
        }
        zone_tunnel::load_file(&net.ha, &folder.join("ha.toml"))?;
        six::protect(net, self.families)?;
        six::routes(net, self.families)
    }

    /// Who sends, from which address, and where to.
    fn direction(self, net: &Topology) -> (&Netns, IpAddr, IpAddr) {
        if self.transport {
            let (ha, mh) = self.families.ends();
            (&net.ha, ha, mh)
        } else {
            let (cn, home) = self.families.hosts();
            (&net.cn, cn, home)
        }
    }

    /// One flow's goodput, in Mb/s.
    fn goodput(self, bench: &Bench<'_>, by: By, on: bool) -> Result<f64> {
        self.laid(bench, by, |net| {
            way::offloads(net, on)?;
            let (client, _, to) = self.direction(net);
            let flow = goodput::flow_to(client, (&net.mh, to), bench.seconds, None)?;
            Ok(flow.rate)
        })
        .with_context(|| format!("goodput of {}, offloads {on}", self.name))
    }

    fn stages(self, bench: &Bench<'_>, by: By) -> Result<Stages> {
        self.laid(bench, by, |net| {
            way::offloads(net, false)?;
            let (node, from, to) = self.direction(net);
            let sender: UdpSocket = traffic::udp(node, from, 0)?;
            sender.connect((to, stage::PORT))?;
            let clear = format!("udp dport {}", stage::PORT);
            let wire = match (self.udp, self.families.outer) {
                (true, _) => format!("udp dport {UDP_PORT}"),
                (_, 4) => "ip protocol 50".to_owned(),
                _ => "ip6 nexthdr 50".to_owned(),
            };
            let until = |node, hook, version, which: &str| {
                let place = Place {
                    node,
                    hook,
                    version,
                    which,
                };
                stage::until(&sender, &place, &SIZES)
            };
            let first = if self.transport {
                sink::OWN
            } else {
                sink::FIRST
            };
            let Families { outer, inner } = self.families;
            let at_ha = until(&net.ha, first, inner, &clear)?;
            let at_fa = until(&net.fa1, sink::FIRST, outer, &wire)?;
            let at_mh = until(&net.mh, sink::FIRST, outer, &wire)?;
            let opened = until(&net.mh, sink::FIRST, inner, &clear)?;
            Ok(Stages {
                seal: stage::less(&at_fa, &at_ha),
                forward: stage::less(&at_mh, &at_fa),
                open: stage::less(&opened, &at_mh),
            })
        })
        .with_context(|| format!("instructions a packet of {}", self.name))
    }

    fn measure(self, bench: &Bench<'_>) -> Result<()> {
        let of = |name: &str| bench.wants_of(&format!("{}-{name}", self.name));
        if of("goodput") {
            for (on, offload) in [(false, "off"), (true, "on")] {
                self.compare_goodput(bench, on, offload)?;
            }
        }
        if ["seal", "open", "relay"].into_iter().any(of) {
            self.compare_stages(bench)?;
        }
        Ok(())
    }

    fn row(
        self,
        bench: &Bench<'_>,
        name: &str,
        offload: &str,
        unit: &str,
        both: (f64, (&str, f64)),
    ) {
        let (value, (peer, peer_value)) = both;
        Row {
            name: &format!("{}-{name}", self.name),
            offload,
            value,
            unit,
            peer,
            peer_value,
        }
        .report(bench);
    }

    fn compare_goodput(self, bench: &Bench<'_>, on: bool, offload: &str) -> Result<()> {
        let zones = self.goodput(bench, By::TwoZoneEsp, on)?;
        // Transport mode has no relay.
        let relayed = if self.transport {
            None
        } else {
            Some(self.goodput(bench, By::Relayed, on)?)
        };
        for (peer, by) in self.peers() {
            let kernel = self.goodput(bench, *by, on)?;
            let row = |name, value| self.row(bench, name, offload, "Mb/s", (value, (peer, kernel)));
            row("goodput", zones);
            if let Some(relayed) = relayed {
                row("goodput-relayed", relayed);
            }
            // Nothing is promised of transport mode, where the kernel's own needs no device to go by.
            if !self.transport {
                super::check(
                    &format!(
                        "{}: two-zone ESP keeps {KEPT} of kernel ESP's rate, offloads {offload}",
                        self.name
                    ),
                    zones >= KEPT * kernel,
                );
            }
        }
        Ok(())
    }

    fn compare_stages(self, bench: &Bench<'_>) -> Result<()> {
        let by = if self.transport {
            By::TwoZoneEsp
        } else {
            By::Relayed
        };
        let zones = self.stages(bench, by)?;
        for (peer, by) in self.peers() {
            let kernel = self.stages(bench, *by)?;
            for (at, size) in SIZES.iter().enumerate() {
                let row = |stage, value: &Cost, beside: &Cost| {
                    let both = (value[at], (*peer, beside[at]));
                    self.row(bench, &format!("{stage}-{size}"), "", "instructions", both);
                };
                row("seal", &zones.seal, &kernel.seal);
                row("open", &zones.open, &kernel.open);
                if !self.transport {
                    row("relay", &zones.forward, &kernel.forward);
                }
            }
        }
        Ok(())
    }
}

/// Measures those that are asked for.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    goodput::roomy_backlog()?;
    for module in ["esp6", "esp6_offload"] {
        bench.modules.load(module)?;
    }
    for arrangement in ALL {
        if bench.wants_of(arrangement.name) {
            arrangement.measure(bench)?;
        }
    }
    Ok(())
}
