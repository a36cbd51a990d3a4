// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A network whose nodes are guests, each with a kernel of its own, and a seventh guest that conducts them.
//!
//! Links are Unix sockets between two QEMUs; nothing of it is on the host's network. The conductor has none of them, only
//! a serial line to the agent in each node's guest.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{json, Value};

use crate::channel::Event;
use crate::error::{Context, Error, Result};
use crate::kernel::Flavour;
use crate::machine::{Clock, Machine, Outcome};
use crate::progress;
use crate::setup::{Boot, Lab};

/// What the nodes of a network are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// Network namespaces of one guest.
    Namespaces,
    /// Guests.
    Guests,
}

impl Topology {
    /// Whether this kernel can be what the nodes run; said before anything is built.
    ///
    /// # Errors
    /// The debug kernel has no driver for the links between guests.
    pub fn takes(self, kernel: Flavour) -> Result<()> {
        match (self, kernel) {
            (Topology::Guests, Flavour::Debug) => Err(Error::Usage(
                "--topology guests joins guests by virtio_net, which the debug kernel doesn't have; leave one of \
                 --topology guests and --kernel debug away"
                    .into(),
            )),
            _ => Ok(()),
        }
    }
}

/// The nodes; the same in `tests/src/conductor/agents.rs`.
const NODES: [&str; 6] = ["cn", "ha", "core", "fa1", "fa2", "mh"];

/// The links: both ends' nodes and interfaces, as in `tests/src/topology.rs`; the last is the home network's, which
/// scenarios of Mobile IP use (`tests/src/scenarios/mobility.rs`).
const LINKS: [[(&str, &str); 2]; 7] = [
    [("cn", "ha"), ("ha", "cn")],
    [("ha", "core"), ("core", "ha")],
    [("core", "fa1"), ("fa1", "core")],
    [("core", "fa2"), ("fa2", "core")],
    [("fa1", "wl1"), ("mh", "wl1")],
    [("fa2", "wl2"), ("mh", "wl2")],
    [("ha", "home"), ("mh", "home")],
];

/// Memory of a node's guest and of the conductor's, in MiB: the one holds captures while they are taken, the other all of
/// them while they are searched.
const NODE_MEMORY: u32 = 384;
const CONDUCTOR_MEMORY: u32 = 768;
/// A debug kernel's.
const DEBUG_MEMORY: u32 = 2048;

/// Seven guests share few processors, and each is at times without one for seconds on end. A clock calibrated in such a
/// moment is wrong by any factor, so that it isn't the processor's; and what looks like a stall isn't the kernel's. The
/// self-tests of ciphers are another topology's, and a large part of a slow machine's start.
pub const BOOT_WORDS: &str = "tsc=unstable watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.hung_task_timeout_secs=0 cryptomgr.notests no_timer_check";

/// How much longer things take on six machines that share two processors.
pub const PATIENCE: f64 = 5.0;

/// How long a node may take to power off once the conductor has.
const LEAVE: Duration = Duration::from_secs(30);

/// How often a QEMU looks for its peer's socket, in milliseconds.
const RECONNECT: &str = "reconnect-ms=200";

/// One end of a link, as its guest sees it.
#[derive(Debug, PartialEq, Eq)]
struct End {
    link: usize,
    /// Whether this end makes the socket.
    first: bool,
    name: &'static str,
    mac: String,
}

/// The ends a node has.
fn ends(node: &str) -> Vec<End> {
    let mut ends = Vec::new();
    for (link, pair) in LINKS.iter().enumerate() {
        for (side, (owner, name)) in pair.iter().enumerate() {
            if *owner == node {
                ends.push(End {
                    link,
                    first: side == 0,
                    name,
                    // QEMU's own prefix, which is locally administered.
                    mac: format!("52:54:00:00:{link:02x}:{side:02x}"),
                });
            }
        }
    }
    ends
}

/// What joins a node to the others and to the conductor.
fn node_words(node: &str, folder: &str) -> Vec<String> {
    let mut words = Vec::new();
    for End {
        link, first, mac, ..
    } in ends(node)
    {
        let role = if first {
            "server=on".to_owned()
        } else {
            format!("server=off,{RECONNECT}")
        };
        words.push("-netdev".to_owned());
        words.push(format!(
            "stream,id=link{link},{role},addr.type=unix,addr.path={folder}/link{link}.sock"
        ));
        words.push("-device".to_owned());
        // No boot ROM: nothing is booted from there.
        words.push(format!(
            "virtio-net-pci,netdev=link{link},mac={mac},romfile="
        ));
    }
    words.push("-chardev".to_owned());
    words.push(format!(
        "socket,id=agent,path={folder}/{node}.sock,{RECONNECT}"
    ));
    words.push("-device".to_owned());
    words.push("virtserialport,chardev=agent,name=org.mml.agent".to_owned());
    words
}

/// The conductor's lines to the nodes.
fn conductor_words(folder: &str) -> Vec<String> {
    let mut words = Vec::new();
    for node in NODES {
        words.push("-chardev".to_owned());
        words.push(format!(
            "socket,id={node},path={folder}/{node}.sock,server=on,wait=off"
        ));
        words.push("-device".to_owned());
        words.push(format!(
            "virtserialport,chardev={node},name=org.mml.node.{node}"
        ));
    }
    words
}

/// A node's order.
fn node_order(node: &str) -> Value {
    let links: Vec<Value> = ends(node)
        .iter()
        .map(|end| json!({"name": end.name, "mac": end.mac}))
        .collect();
    json!({"mode": "node", "node": node, "links": links})
}

/// A guest of the network, its file system written.
fn guest<'a>(
    lab: &'a Lab,
    folder: &Path,
    name: &str,
    init: &Path,
    order: &Value,
    limit: Duration,
) -> Result<Machine<'a>> {
    let directory = folder.join(name);
    std::fs::create_dir(&directory).context(|| format!("making {}", directory.display()))?;
    let mut machine = lab.bare_machine(directory, Clock::Real { vcpus: 1 }, limit)?;
    // A node has little to say, and the conductor waits for seven guests to boot. The limit ends them all.
    machine.silence = machine.limit;
    machine.first_word = machine.limit;
    machine.kernel_words = BOOT_WORDS.to_owned();
    lab.file_system(init, order, &machine.initramfs())?;
    Ok(machine)
}

/// Boots the network with an order for its conductor, and gives the conductor's events to `on_event`.
pub fn boot(
    lab: &Lab,
    conductor: &Path,
    name: &str,
    order: &Value,
    limit: Duration,
    on_event: &mut dyn FnMut(Event),
) -> Result<Boot> {
    let folder = lab.cache.run_directory(name)?;
    // Socket names are short (108 octets), a cache's may be long: inside the root it isn't.
    let inside = lab.root().inside(&folder);
    let mut conducting = guest(lab, &folder, "conductor", conductor, order, limit)?;
    conducting.more = conductor_words(&inside);
    let debug = lab.kernel.debug;
    conducting.memory = if debug {
        DEBUG_MEMORY
    } else {
        CONDUCTOR_MEMORY
    };
    let mut nodes = Vec::new();
    for node in NODES {
        let mut machine = guest(
            lab,
            &folder,
            node,
            &lab.guest.init,
            &node_order(node),
            limit,
        )?;
        machine.more = node_words(node, &inside);
        machine.memory = if debug { DEBUG_MEMORY } else { NODE_MEMORY };
        nodes.push(machine);
    }
    progress::line(&format!(
        "  {} guests, logs in {}",
        nodes.len() + 1,
        folder.display()
    ));
    let boot = run(&conducting, &nodes, on_event);
    for machine in nodes.iter().chain([&conducting]) {
        let _ = std::fs::remove_file(machine.initramfs());
    }
    boot
}

fn run(
    conductor: &Machine<'_>,
    nodes: &[Machine<'_>],
    on_event: &mut dyn FnMut(Event),
) -> Result<Boot> {
    let over = AtomicBool::new(false);
    let lost = OnceLock::new();
    let (mut outcome, ends) = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|machine| {
                let (over, lost) = (&over, &lost);
                scope.spawn(move || {
                    let outcome = run_node(machine, over);
                    if !over.load(Ordering::Acquire) {
                        let why = outcome.as_ref().map_or_else(
                            |error| Some(error.to_string()),
                            |outcome| outcome.failure(),
                        );
                        let why = why.unwrap_or_else(|| "it powered off".to_owned());
                        let _ = lost.set((
                            machine.console(),
                            format!("{} ended while it was needed: {why}", name_of(machine)),
                        ));
                    }
                    outcome
                })
            })
            .collect();
        let outcome = conductor.run_until(
            &mut || lost.get().map(|(_, why)| why.clone()),
            &mut |event| match event {
                Ok(event) => {
                    // From here on the conductor lets the nodes go.
                    if matches!(event, Event::Done { .. }) {
                        over.store(true, Ordering::Release);
                    }
                    on_event(event);
                }
                Err(text) => progress::line(&format!("  ?? {text}")),
            },
        );
        over.store(true, Ordering::Release);
        let ends: Vec<Result<Outcome>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::check("a node's thread panicked")))
            })
            .collect();
        (outcome, ends)
    });
    let mut console = conductor.console();
    if let Ok(outcome) = &mut outcome {
        for (machine, end) in nodes.iter().zip(ends) {
            if let Some(why) = blame(machine, end, outcome) {
                console = why;
            }
        }
    }
    if let Some((first, _)) = lost.into_inner() {
        console = first;
    }
    Ok(Boot {
        outcome: outcome?,
        console,
    })
}

/// One node until it is off; once the conductor is done it has a while left.
fn run_node(machine: &Machine<'_>, over: &AtomicBool) -> Result<Outcome> {
    let mut since: Option<std::time::Instant> = None;
    machine.run_until(
        &mut || {
            if !over.load(Ordering::Acquire) {
                return None;
            }
            let since = since.get_or_insert_with(std::time::Instant::now);
            (since.elapsed() > LEAVE).then(|| "the guest did not power off".to_owned())
        },
        &mut |_| {},
    )
}

/// A guest's name is its directory's.
fn name_of(machine: &Machine<'_>) -> String {
    let name = machine.directory.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Adds a node's complaints to the whole; its log, if it has something to tell.
fn blame(machine: &Machine<'_>, end: Result<Outcome>, whole: &mut Outcome) -> Option<PathBuf> {
    let name = name_of(machine);
    let failure = match end {
        Ok(end) => end.failure(),
        Err(error) => Some(error.to_string()),
    };
    let why = failure?;
    // A node that ended first is why the conductor was ended, not the other way round.
    if whole.done.is_none() || whole.complaints.is_empty() {
        whole.complaints.push(format!("{name}: {why}"));
    }
    Some(machine.console())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_the_kernel_cannot_join_are_refused_before_anything_is_built() {
        assert!(Topology::Guests.takes(Flavour::Stock).is_ok());
        assert!(Topology::Namespaces.takes(Flavour::Debug).is_ok());
        let refused = Topology::Guests.takes(Flavour::Debug).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--kernel debug"), "{refused}");
    }

    #[test]
    fn every_link_has_a_side_that_makes_its_socket_and_one_that_looks_for_it() {
        let all: Vec<End> = NODES.iter().flat_map(|node| ends(node)).collect();
        assert_eq!(all.len(), 2 * LINKS.len());
        for link in 0..LINKS.len() {
            let sides: Vec<bool> = all
                .iter()
                .filter(|end| end.link == link)
                .map(|end| end.first)
                .collect();
            assert!(sides.contains(&true) && sides.contains(&false), "{link}");
        }
    }

    #[test]
    fn no_two_interfaces_have_one_address() {
        let mut macs: Vec<String> = NODES
            .iter()
            .flat_map(|node| ends(node))
            .map(|end| end.mac)
            .collect();
        macs.sort();
        macs.dedup();
        assert_eq!(macs.len(), 2 * LINKS.len());
    }

    #[test]
    fn the_conductor_has_no_link() {
        let words = conductor_words("/lab/runs/x").join(" ");
        assert!(!words.contains("netdev") && words.contains("org.mml.node.fa1"));
    }
}
