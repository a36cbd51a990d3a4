// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The memory that a CSA takes in the kernel, by role, beside an XFRM state's.
//!
//! Many are added in a fresh namespace, and the kernel says in `/proc/meminfo` what it has more of afterwards: slabs that
//! nothing can reclaim, per-CPU memory, and vmalloc's. So hash tables and whatever an allocator rounds up are in it. Free
//! memory would not do: it falls and rises by what the page cache and the lists of each CPU hold. `/proc/slabinfo` says
//! which sizes of objects there are more of, for who wants to know what takes the memory.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::many::{self, MANY};
use super::row::Row;
use super::Bench;
use crate::netns::Netns;
use crate::report;
use crate::topology::{HA, MH};
use crate::traffic;
use crate::tunnel;
use crate::zone_message::Role;

/// What of `/proc/meminfo` is the kernel's own and can't be reclaimed.
const KINDS: [&str; 3] = ["SUnreclaim", "Percpu", "VmallocUsed"];
/// So many are added first, so that tables and caches are there.
const FIRST: u32 = 64;
/// Roles, in the order they are measured.
const ROLES: [(&str, Role); 3] = [
    ("terminus", Role::Terminus),
    ("origin", Role::Origin),
    ("relay", Role::Relay),
];
/// Octets a CSA may take.
const END_LIMIT: f64 = 4096.0;
const RELAY_LIMIT: f64 = 2048.0;
/// XFRM states by the width of their replay window, in packets: what the other benchmarks use, and the largest there is
/// (XFRMA_REPLAY_ESN_MAX). A CSA's is 8,192.
const STATES: [(&str, u32); 2] = [("xfrm-state-128", 128), ("xfrm-state-4096", 4096)];

/// What `/proc/meminfo` says of a kind of memory.
pub fn kibibytes(meminfo: &str, kind: &str) -> Result<i64> {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("/proc/meminfo tells no {kind}"))
}

/// What the kernel holds at one moment.
struct Held {
    octets: BTreeMap<&'static str, i64>,
    /// Objects of each cache, and the octets of one.
    objects: BTreeMap<String, (i64, i64)>,
}

impl Held {
    fn read() -> Result<Self> {
        let read =
            |path: &'static str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let text = read("/proc/meminfo")?;
        let mut octets = BTreeMap::new();
        for kind in KINDS {
            octets.insert(kind, kibibytes(&text, kind)? * 1024);
        }
        // name, active objects, objects, octets of one, ...; two lines of heading (slabinfo(5)).
        let objects = read("/proc/slabinfo")?
            .lines()
            .skip(2)
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let name = fields.next()?.to_owned();
                let active = fields.next()?.parse().ok()?;
                let size = fields.nth(1)?.parse().ok()?;
                Some((name, (active, size)))
            })
            .collect();
        Ok(Self { octets, objects })
    }

    fn total(&self) -> i64 {
        self.octets.values().sum()
    }

    /// Waits until what was freed has been given back: the module and XFRM do so after a grace period.
    fn settled() -> Result<Self> {
        let mut held = Self::read()?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(200));
            let now = Self::read()?;
            let same = now.total() == held.total();
            held = now;
            if same {
                break;
            }
        }
        Ok(held)
    }
}

/// Octets a piece that `add` takes; it is given which to add.
fn growth(what: &str, add: impl Fn(std::ops::Range<u32>) -> Result<()>) -> Result<f64> {
    add(0..FIRST)?;
    let before = Held::settled()?;
    add(FIRST..FIRST + MANY)?;
    let after = Held::settled()?;
    let each = |octets: i64| octets as f64 / f64::from(MANY);
    let kinds: BTreeMap<&str, f64> = KINDS
        .into_iter()
        .map(|kind| (kind, each(after.octets[kind] - before.octets[kind])))
        .collect();
    // Less than an octet each is noise.
    let caches: BTreeMap<&str, f64> = after
        .objects
        .iter()
        .map(|(name, (objects, size))| {
            let had = before.objects.get(name).map_or(0, |(objects, _)| *objects);
            (name.as_str(), each((objects - had) * size))
        })
        .filter(|(_, octets)| *octets >= 1.0)
        .collect();
    report::result(
        "memory",
        json!({"of": what, "octets": kinds, "caches": caches}),
    );
    report::step(format!(
        "memory of {what}, octets each: {kinds:?}, of which {caches:?}"
    ));
    let each = each(after.total() - before.total());
    ensure!(each > 0.0, "{what}: no memory was taken");
    Ok(each)
}

/// Measures all roles.
///
/// What was added stays until all is measured: per-CPU memory that was given back would be taken again unseen.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    bench.with_module(|| {
        let mut nodes = Vec::new();
        let mut values = Vec::new();
        for (name, role) in ROLES {
            let node = Netns::add(name)?;
            values.push((name, growth(name, |hosts| many::add(&node, role, hosts))?));
            nodes.push(node);
        }
        let mut peers = Vec::new();
        for (name, window) in STATES {
            let node = Netns::add(name)?;
            peers.push((name, growth(name, |hosts| states(&node, window, hosts))?));
            nodes.push(node);
        }
        for (role, value) in &values {
            for (peer, peer_value) in &peers {
                Row {
                    name: &format!("memory-{role}"),
                    offload: "",
                    value: *value,
                    unit: "octets",
                    peer,
                    peer_value: *peer_value,
                }
                .report(bench);
            }
        }
        let within = values.iter().all(|(name, value)| {
            *value
                <= if *name == "relay" {
                    RELAY_LIMIT
                } else {
                    END_LIMIT
                }
        });
        super::check(
            &format!("a CSA takes at most {END_LIMIT} octets at an end, {RELAY_LIMIT} at a relay"),
            within,
        );
        Ok(())
    })
}

/// Adds XFRM states with the cipher of the CSAs' zones, ESN, and a window so wide.
fn states(node: &Netns, window: u32, hosts: std::ops::Range<u32>) -> Result<()> {
    let mut lines = String::new();
    for host in hosts {
        let key = tunnel::hex(&traffic::random(36));
        writeln!(
            lines,
            "xfrm state add src {HA} dst {MH} proto esp spi {:#x} mode tunnel replay-window {window} flag esn aead rfc4106(gcm(aes)) 0x{key} 128",
            0x1000 + host
        )?;
    }
    let file = "/run/states";
    std::fs::write(file, lines).context(file)?;
    node.run(&["ip", "-batch", file]).map(drop)
}
