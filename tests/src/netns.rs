// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A network namespace: one node of the topology.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{setns, CloneFlags};

use crate::command::{self, Background, Finished};
use crate::holders::Account;
use crate::keyd::Left;

/// A named network namespace that exists as long as this value does.
pub struct Netns {
    name: &'static str,
    handle: File,
    /// What keys its kernel is to hold in the end.
    pub keys: Account,
    /// The key managers that run on when their scenario is over.
    pub left: Left,
}

impl Netns {
    /// Makes it, with loopback up and IPv6 off: its neighbour discovery would only be noise in the captures.
    pub fn add(name: &'static str) -> Result<Self> {
        command::run(&["ip", "netns", "add", name])?;
        let path = format!("/run/netns/{name}");
        let namespace = Self {
            name,
            handle: File::open(&path).context(path)?,
            keys: Account::of(name),
            left: Left::default(),
        };
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `f` on a thread inside the namespace. Sockets it opens stay there for good.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", self.name))?;
                f()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a program inside; an error unless it succeeds.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let shown = self.shown(argv);
        self.enter(|| command::finish(&shown, argv, None)?.ok(&shown))
    }

    /// Runs a program inside and lets the caller judge.
    pub fn attempt(&self, argv: &[&str]) -> Result<Finished> {
        let shown = self.shown(argv);
        self.enter(|| command::finish(&shown, argv, None))
    }

    /// Starts a program inside.
    pub fn background(&self, argv: &[&str]) -> Result<Background> {
        let shown = self.shown(argv);
        self.enter(|| Background::start(&shown, argv))
    }

    /// Runs `ip` commands, one a line, in one process: starting one a line is what makes namespaces slow to build.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.batch("ip", lines)
    }

    /// Runs `tc` commands, one a line.
    pub fn tc(&self, lines: &str) -> Result<()> {
        self.batch("tc", lines)
    }

    /// Loads an nftables ruleset.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let shown = format!(
            "ip netns exec {} nft -f - <<< '{}'",
            self.name,
            rules.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        self.enter(|| command::finish(&shown, &["nft", "-f", "-"], Some(rules))?.ok(&shown))?;
        Ok(())
    }

    fn batch(&self, tool: &str, lines: &str) -> Result<()> {
        let commands: Vec<&str> = lines
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let shown = commands
            .iter()
            .map(|line| format!("{tool} -n {} {line}", self.name))
            .collect::<Vec<_>>()
            .join("\n");
        let input = commands.join("\n") + "\n";
        self.enter(|| command::finish(&shown, &[tool, "-batch", "-"], Some(&input))?.ok(&shown))?;
        Ok(())
    }

    /// Sets a sysctl under `net`, which is the namespace's own.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| {
            std::fs::write(&path, value).with_context(|| format!("{path} in {}", self.name))
        })
    }

    fn shown(&self, argv: &[&str]) -> String {
        format!("ip netns exec {} {}", self.name, argv.join(" "))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.left.end();
        // A connection that was closed while its last segments were still on a lossy link keeps its namespace, and with it
        // the module, for as long as TCP tries: 100 s. Now that nobody is left to answer, once is enough.
        let _ = self.sysctl("net.ipv4.tcp_orphan_retries", "1");
        if let Err(error) = command::run(&["ip", "netns", "del", self.name]) {
            crate::report::step(format!("{error:#}"));
        }
    }
}
