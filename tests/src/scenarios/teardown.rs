// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Taking away what is in use: CSAs, policies, devices, namespaces and the module itself, with traffic running.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::module;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario, MODULE};
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_message::{self, add, policy, Action, Direction, Message, Role, ANY};
use crate::zone_tunnel::{self, Keys, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "delete-and-flush-under-traffic",
        proves: "CSAs and policies can be deleted, flushed and loaded again while packets are under way, and traffic comes back each time",
        seconds: 120,
        run: flush_under_traffic,
    },
    Scenario {
        name: "rmmod-under-traffic",
        proves: "the module can be taken away and loaded again, devices, CSAs and all, while packets are under way",
        seconds: 120,
        run: rmmod_under_traffic,
    },
    Scenario {
        name: "devices-come-and-go-under-traffic",
        proves: "mml0 can be taken down, deleted and made again while packets are under way; a second one is refused",
        seconds: 120,
        run: devices,
    },
    Scenario {
        name: "namespace-ends-with-traffic",
        proves: "a namespace with device, CSAs, protect policies and packets in flight can end, and takes its references with it",
        seconds: 120,
        run: namespace_ends,
    },
];

/// Sends UDP both ways as fast as it goes until told to stop; counts what arrives at the mobile host.
fn with_traffic<T>(ctx: &Ctx, f: impl FnOnce(&AtomicU64) -> Result<T>) -> Result<T> {
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    let mh = traffic::udp(&ctx.net.mh, HOME, 5000)?;
    mh.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (from, to) in [(&cn, (HOME, 5000)), (&mh, (CN, 4000))] {
            let stop = &stop;
            scope.spawn(move || {
                let data = [0x42; 1000];
                while !stop.load(Ordering::Relaxed) {
                    // The guard and missing routes make it fail; that is the point.
                    let _ = from.send_to(&data, to);
                    // One packet a millisecond and direction leaves the machine time to do what is tested.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let (stop_, arrived_, mh) = (&stop, &arrived, &mh);
        scope.spawn(move || {
            let mut buffer = [0; 2000];
            while !stop_.load(Ordering::Relaxed) {
                if mh.recv(&mut buffer).is_ok() {
                    arrived_.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let outcome = f(&arrived);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Waits until traffic arrives again.
fn comes_back(ctx: &Ctx, arrived: &AtomicU64) -> Result<()> {
    let before = arrived.load(Ordering::Relaxed);
    let end = std::time::Instant::now() + ctx.seconds(10.0);
    while arrived.load(Ordering::Relaxed) < before + 20 {
        ensure!(std::time::Instant::now() < end, "traffic did not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn flush_policies(ctx: &Ctx) -> Result<()> {
    for namespace in [&ctx.net.ha, &ctx.net.mh] {
        zone_tunnel::send(
            namespace,
            &[Message::new(zone_message::SPDFLUSH, Vec::new())],
        )?;
    }
    Ok(())
}

fn flush_under_traffic(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    let options = Options::default();
    let mut keys = ctx.zone_tunnel(&options)?;
    with_traffic(ctx, |arrived| {
        for round in 0..20 {
            comes_back(ctx, arrived).with_context(|| format!("round {round}"))?;
            match round % 4 {
                0 => zone_tunnel::flush_csas(&ctx.net)?,
                1 => {
                    for (namespace, sa, role) in [
                        (&ctx.net.ha, &keys.to_mh, Role::Origin),
                        (&ctx.net.mh, &keys.to_mh, Role::Terminus),
                        (&ctx.net.fa1, &keys.to_mh, Role::Relay),
                    ] {
                        zone_tunnel::send(
                            namespace,
                            &[zone_message::name(zone_message::DELETE, sa, role)],
                        )?;
                    }
                }
                2 => {
                    flush_policies(ctx)?;
                    zone_tunnel::protect(&ctx.net)?;
                }
                // Others join before the old ones go.
                _ => {}
            }
            keys = zone_tunnel::load(&ctx.net, &options)?;
        }
        Ok(())
    })
}

fn rmmod_under_traffic(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    ctx.zone_tunnel(&Options::default())?;
    with_traffic(ctx, |arrived| {
        for round in 0..6 {
            comes_back(ctx, arrived).with_context(|| format!("round {round}"))?;
            flush_policies(ctx)?;
            if round % 2 == 0 {
                // Half of the times the devices go first, half of the times with the module.
                ctx.net.ha.ip("link del mml0")?;
            }
            module::unload(MODULE, ctx.seconds(10.0)).with_context(|| format!("round {round}"))?;
            ctx.modules.load(MODULE)?;
            ctx.zone_tunnel(&Options::default())?;
        }
        Ok(())
    })
}

fn devices(ctx: &mut Ctx) -> Result<()> {
    let ctx = &*ctx;
    ctx.zone_tunnel(&Options::default())?;
    ensure!(
        !ctx.net
            .ha
            .attempt(&["ip", "link", "add", "mml1", "type", "mml"])?
            .success,
        "a namespace got a second device"
    );
    with_traffic(ctx, |arrived| {
        for round in 0..12 {
            comes_back(ctx, arrived).with_context(|| format!("round {round}"))?;
            for namespace in [&ctx.net.ha, &ctx.net.mh] {
                if round % 2 == 0 {
                    namespace.ip("link set mml0 down\nlink set mml0 up")?;
                } else {
                    namespace.ip("link del mml0\nlink add mml0 type mml\nlink set mml0 up")?;
                }
            }
            crate::tunnel::into_tunnel(&ctx.net.ha, &ctx.net.mh, "mml0")?;
        }
        Ok(())
    })
}

fn namespace_ends(ctx: &mut Ctx) -> Result<()> {
    let ha = &ctx.net.ha;
    ctx.zone_tunnel(&Options::default())?;
    for round in 0..8u8 {
        // A guest of the home agent's, on a slow link that still holds packets when the namespace ends.
        let visitor = Netns::add("visitor")?;
        visitor.ip("link add ha type veth peer name visitor netns ha
            address add 10.9.0.7/24 dev ha
            link set ha up
            link add mml0 type mml
            link set mml0 up
            address add 203.0.113.99/32 dev lo
            route add 198.51.100.1/32 via 10.9.0.1
            route add default dev mml0 src 203.0.113.99")?;
        ha.ip("address add 10.9.0.1/24 dev visitor\nlink set visitor up")?;
        for (namespace, device) in [(&visitor, "ha"), (ha, "visitor")] {
            namespace.tc(&format!(
                "qdisc add dev {device} root netem delay 200ms limit 1000"
            ))?;
        }
        let mut keys = Keys::new(&Options::default());
        let (guest, outer) = (
            std::net::Ipv4Addr::new(203, 0, 113, 99),
            std::net::Ipv4Addr::new(10, 9, 0, 7),
        );
        (keys.to_mh.destination, keys.from_mh.source) = (outer, outer);
        let from_guest = ((guest, 32), ANY);
        zone_tunnel::send(ha, &[add(&keys.from_mh, Role::Terminus, from_guest, 64, 0)])?;
        zone_tunnel::send(
            &visitor,
            &[
                add(&keys.from_mh, Role::Origin, from_guest, 64, 0),
                policy(Action::Protect, Direction::Out, from_guest, 0, 0, None),
                policy(
                    Action::Protect,
                    Direction::In,
                    (ANY, (guest, 32)),
                    0,
                    0,
                    None,
                ),
            ],
        )?;
        let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
        let socket = traffic::udp(&visitor, guest, 5000)?;
        if round == 0 {
            traffic::udp_arrives(&socket, &cn, b"the visitor's tunnel works")?;
        }
        for _ in 0..200 {
            let _ = socket.send_to(&[0x17; 900], (CN, 4000));
        }
        drop(socket);
        drop(visitor);
        zone_tunnel::send(
            ha,
            &[zone_message::name(
                zone_message::DELETE,
                &keys.from_mh,
                Role::Terminus,
            )],
        )?;
        // The visitor's end of the pair takes the home agent's with it, but not at once.
        let end = std::time::Instant::now() + ctx.seconds(10.0);
        while ha.attempt(&["ip", "link", "show", "visitor"])?.success {
            ensure!(std::time::Instant::now() < end, "the namespace did not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // Its policies held the module; they are gone with it.
    flush_policies(ctx)?;
    module::unload(MODULE, ctx.seconds(10.0))?;
    ctx.modules.load(MODULE)
}
