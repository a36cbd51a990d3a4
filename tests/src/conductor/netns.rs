// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A node that is a guest of its own, by the names of one that is a network namespace (`netns.rs`): scenarios are the same
//! for both.

use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, Result};

use crate::agents::{self, Node};
use crate::command::{Background, Finished};
use crate::holders::Account;
use crate::keyd::Left;
use crate::wire::{Reply, Request};
use crate::{elsewhere, report};

/// A node that exists as long as this value does.
pub struct Netns {
    name: &'static str,
    node: Arc<Node>,
    /// What keys its kernel is to hold in the end.
    pub keys: Account,
    /// The key managers that run on when their scenario is over.
    pub left: Left,
}

impl Netns {
    /// Has its guest make it.
    pub fn add(name: &'static str) -> Result<Self> {
        let node = agents::node(name)?;
        node.begin()?;
        Ok(Self {
            name,
            node,
            keys: Account::of(name),
            left: Left::default(),
        })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its guest.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Code can't be sent to another guest. What needs this is not for guests.
    pub fn enter<T: Send>(&self, _f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        bail!(
            "{} is a guest of its own: only programs and the agent's requests reach it",
            self.name
        )
    }

    /// Runs a program there; an error unless it succeeds.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        self.attempt(argv)?.ok(&self.shown(argv))
    }

    /// Runs a program there and lets the caller judge.
    ///
    /// A file of CSAs that its `-f` names was made here, and goes there first.
    pub fn attempt(&self, argv: &[&str]) -> Result<Finished> {
        for pair in argv.windows(2) {
            if let ["-f", path] = *pair {
                if Path::new(path).exists() {
                    elsewhere::carry(self, path)?;
                }
            }
        }
        self.finish(&self.shown(argv), argv, None)
    }

    fn finish(&self, shown: &str, argv: &[&str], input: Option<&str>) -> Result<Finished> {
        report::step(shown);
        let request = Request::Run {
            argv: words(argv),
            input: input.map(str::to_owned),
        };
        finished(self.node.ask(&request, &[])?.reply)
    }

    /// Starts a program there.
    pub fn background(&self, argv: &[&str]) -> Result<Background> {
        report::step(format!("{} &", self.shown(argv)));
        let held = self.node.open(Request::Start { argv: words(argv) })?;
        Ok(Background::of(held))
    }

    /// Runs `ip` commands, one a line. Those that join nodes by veth pairs are left out: QEMU has joined the guests.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let left: Vec<&str> = lines
            .lines()
            .filter(|line| !(line.contains("link add") && line.contains("type veth peer")))
            .collect();
        self.batch("ip", &left.join("\n"))
    }

    /// Runs `tc` commands, one a line.
    pub fn tc(&self, lines: &str) -> Result<()> {
        self.batch("tc", lines)
    }

    /// Loads an nftables ruleset.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let shown = self.shown(&["nft", "-f", "-"]);
        self.finish(&shown, &["nft", "-f", "-"], Some(rules))?
            .ok(&shown)?;
        Ok(())
    }

    fn batch(&self, tool: &str, lines: &str) -> Result<()> {
        let commands: Vec<&str> = lines
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        let shown = commands
            .iter()
            .map(|line| self.shown(&[tool, line]))
            .collect::<Vec<_>>()
            .join("\n");
        let input = commands.join("\n") + "\n";
        self.finish(&shown, &[tool, "-batch", "-"], Some(&input))?
            .ok(&shown)?;
        Ok(())
    }

    /// Sets a sysctl under `net`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.node.ask(
            &Request::Sysctl {
                key: key.to_owned(),
                value: value.to_owned(),
            },
            &[],
        )?;
        Ok(())
    }

    fn shown(&self, argv: &[&str]) -> String {
        format!("{}$ {}", self.name, argv.join(" "))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.left.end();
        self.node.end();
    }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

/// What a program left behind.
pub fn finished(reply: Reply) -> Result<Finished> {
    match reply {
        Reply::Finished {
            success,
            stdout,
            stderr,
        } => Ok(Finished {
            success,
            stdout,
            stderr,
        }),
        other => bail!("an agent answered {other:?} for a program"),
    }
}
