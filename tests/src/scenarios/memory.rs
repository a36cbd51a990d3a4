// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Memory: how much of it may be taken, who pays for it, and what happens when there is none.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::guard::outside;
use super::hardship::{add_many, all_sealed, stranger, with_stream, without_stranger};
use super::tunnel::everything;
use super::zone_messages::held;
use crate::bench::kibibytes;
use crate::genl::Genl;
use crate::holders::Part;
use crate::kernel_log;
use crate::scenario::{Ctx, Scenario};
use crate::topology::{HA, HOME, MH};
use crate::traffic;
use crate::zone_message::{self, Message, Role};
use crate::zone_tunnel::{self, Options};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "a-namespace-keeps-to-its-caps",
        proves: "past its cap a namespace is refused one more CSA by name, what it has still works, and another namespace is none the worse",
        seconds: 300,
        run: caps,
    },
    Scenario {
        name: "a-users-csas-are-charged-to-the-user",
        proves: "an unprivileged user with a namespace of their own pays for its CSAs by the memory of their control group, and gets it back when it ends",
        seconds: 120,
        run: charged,
    },
    Scenario {
        name: "no-memory-at-all-and-nothing-in-clear",
        proves: "while programs take all the machine's memory until the kernel ends them, and CSAs come and go, no clear packet is on any link; afterwards everything arrives",
        seconds: 180,
        run: none_left,
    },
];

/// docs/wire.md 2.1b.
fn caps(ctx: &mut Ctx) -> Result<()> {
    /// docs/security.md.
    const CAP: u32 = 65_536;
    ctx.zone_tunnel(&Options {
        relay: false,
        ..Options::default()
    })?;
    let net = &ctx.net;
    // Relays' CSAs are the cheapest to fill them with.
    for node in [&net.ha, &net.fa1] {
        node.keys.are(Part::LoneRelay);
    }
    let mut genl = Genl::open(&net.ha)?;
    let (before, _) = held(&mut genl)?;
    add_many(&mut genl, 0, CAP - before as u32, Role::Relay)?;
    let refused = genl.pfkey(&stranger(CAP, Role::Relay).octets())?;
    let Err(refusal) = refused else {
        anyhow::bail!("number {} was taken", CAP + 1);
    };
    ensure!(
        refusal.to_string().contains("as many as it may"),
        "it was refused with: {refusal}"
    );
    let marker = traffic::random(16);
    everything(ctx, &marker)?;
    let mut other = Genl::open(&net.fa1)?;
    add_many(&mut other, 0, 10, Role::Relay)?;
    zone_tunnel::send(&net.ha, &[Message::new(zone_message::FLUSH, Vec::new())])?;
    add_many(&mut genl, CAP, 10, Role::Relay)
}

/// Octets that a control group is charged for.
fn charge(group: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(group.join("memory.current"))?;
    Ok(text.trim().parse()?)
}

/// docs/wire.md 2.1b.
fn charged(ctx: &mut Ctx) -> Result<()> {
    const FILES: usize = 8;
    const EACH: usize = 250;
    const NOBODY: u32 = 65_534;
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("cgroup.controllers").exists() {
        nix::mount::mount(
            None::<&str>,
            root,
            Some("cgroup2"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .context("cgroup2")?;
    }
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers"))?;
    if !controllers.contains("memory") {
        // A debug kernel is built without; there is nothing to be charged.
        ensure!(
            kernel_log::is_debug_kernel(),
            "no memory controller: {controllers}"
        );
        return Ok(());
    }
    std::fs::write(root.join("cgroup.subtree_control"), "+memory")?;
    let group = root.join("somebody");
    std::fs::create_dir_all(&group)?;
    let folder = Path::new("/run/charged");
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    for file in 0..FILES {
        let mut text = String::new();
        for number in 0..EACH {
            let spi = 4096 + file * EACH + number;
            let key = hex(&traffic::random(32));
            let salt = hex(&traffic::random(4));
            text += &format!(
                "[[csa]]\nrole = \"relay\"\nspi = {spi}\nsrc = \"{HA}\"\ndst = \"{MH}\"\nselector = {{ dst = \"{HOME}/32\" }}\n[csa.zone1]\nalgorithm = \"aes256-gcm16-iiv\"\nkey = \"{key}\"\nsalt = \"{salt}\"\n"
            );
        }
        let path = folder.join(format!("{file}.toml"));
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))?;
    }
    // An ordinary user, in a namespace of their own, waits at the end so that the charge can be read.
    let folder_name = folder.display();
    let adds = folder.join("adds");
    std::fs::write(
        &adds,
        format!("for file in {folder_name}/*.toml; do mmlctl csa add -f $file > /dev/null || exit 1; done; echo done > {folder_name}/done; exec sleep 600\n"),
    )?;
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec su -s /bin/sh nobody -c 'exec unshare --user --map-root-user --net sh {}'",
        group.display(),
        adds.display()
    );
    let before = charge(&group)?;
    let user = ctx.net.cn.background(&["sh", "-c", &script])?;
    let end = Instant::now() + ctx.seconds(60.0);
    let done = folder.join("done");
    while !done.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let during = charge(&group)?;
    let finished = user.stop()?;
    ensure!(
        done.exists(),
        "the user could not add CSAs: {}{}",
        finished.stdout,
        finished.stderr
    );
    let least = (FILES * EACH * 1024) as u64;
    ensure!(
        during.saturating_sub(before) > least,
        "{} CSAs are charged with {} octets",
        FILES * EACH,
        during.saturating_sub(before)
    );
    let end = Instant::now() + ctx.seconds(30.0);
    // The namespace ends in a work queue, and freed memory is given back in batches.
    while charge(&group)? > before + (during - before) / 2 {
        ensure!(
            Instant::now() < end,
            "of {during} octets {} are still charged",
            charge(&group)?
        );
        // Whoever still runs in the group keeps its namespace.
        let _ = std::fs::write(group.join("cgroup.kill"), "1");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A program that fills more memory than the machine has, or as much as it takes for the kernel to end it: each alone would.
fn hog() -> Result<String> {
    let size = kibibytes(&std::fs::read_to_string("/proc/meminfo")?, "MemTotal")?;
    // A read gives 2 GiB at most; this one goes on until the block is full.
    Ok(format!(
        "echo 1000 > /proc/self/oom_score_adj; \
         exec dd if=/dev/zero of=/dev/null bs={size}K count=1 iflag=fullblock"
    ))
}
const HOGS: usize = 2;
/// Programs that do nothing: where the hogs are about to end and have not given theirs back yet, and nobody else may be ended,
/// the kernel would give up.
const IDLE: usize = 24;

/// The console shows nothing but what ends the machine, as long as this lives: the kernel tells at length what it had no
/// memory for. Its log has all of it.
struct Quiet(String);

impl Quiet {
    const LEVELS: &str = "/proc/sys/kernel/printk";

    fn begin() -> Result<Self> {
        let before = std::fs::read_to_string(Self::LEVELS)?;
        std::fs::write(Self::LEVELS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::LEVELS, &self.0);
    }
}

/// Programs that the kernel has ended for want of memory since it started.
fn ended_for_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/vmstat")?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|value| value.trim().parse().ok())
        .context("no oom_kill in /proc/vmstat")
}

fn none_left(ctx: &mut Ctx) -> Result<()> {
    const ROUNDS: u64 = 3;
    kernel_log::memory_may_run_out();
    let _quiet = Quiet::begin()?;
    // What can't be had is found out by touching it, not by asking for it.
    std::fs::write("/proc/sys/vm/overcommit_memory", "1")?;
    let ctx = &*ctx;
    let net = &ctx.net;
    let options = Options::default();
    ctx.zone_tunnel(&options)?;
    let marker = traffic::random(16);
    let captures = outside(ctx)?;
    let _idle = (0..IDLE)
        .map(|_| {
            let idle = "echo 900 > /proc/self/oom_score_adj; exec sleep 600";
            net.cn.background(&["sh", "-c", idle])
        })
        .collect::<Result<Vec<_>>>()?;
    let hog = hog()?;
    let before = ended_for_memory()?;
    with_stream(ctx, &traffic::marked(&marker, 400), || {
        for round in 0..ROUNDS {
            std::thread::scope(|scope| -> Result<()> {
                let hogs = [(); HOGS].map(|()| scope.spawn(|| net.cn.attempt(&["sh", "-c", &hog])));
                while hogs.iter().any(|hog| !hog.is_finished()) {
                    // Each request is done whole or refused whole; what is left of them all is looked at below.
                    if let Ok(mut genl) = Genl::open(&net.ha) {
                        let _ = add_many(&mut genl, round as u32, 1, Role::Origin);
                        let delete = without_stranger(round as u32, Role::Origin);
                        let _ = genl.pfkey(&delete.octets());
                    }
                }
                for hog in hogs {
                    let finished = hog.join();
                    let finished = finished.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
                    ensure!(!finished.success, "a program had all the memory it wanted");
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    let ended = ended_for_memory()? - before;
    ensure!(
        ended >= HOGS as u64 * ROUNDS,
        "{ended} programs were ended for want of memory"
    );
    std::fs::write("/proc/sys/vm/overcommit_memory", "0")?;
    zone_tunnel::flush_csas(net)?;
    zone_tunnel::load(net, &options)?;
    everything(ctx, &marker)?;
    let seen = all_sealed(captures, &marker)?;
    ensure!(seen > 500, "only {seen} sealed packets were captured");
    ensure!(
        held(&mut Genl::open(&net.ha)?)?.0 == 2,
        "other CSAs are left than the tunnel's two"
    );
    Ok(())
}
