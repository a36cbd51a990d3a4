// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The node a guest is: made afresh for every scenario, as a network namespace that the guest's links are moved into. Its
//! end gives the links back and takes everything else away.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::command;
use crate::config::Link;
use crate::kernel_log::{self, KernelLog};
use crate::module::{self, Modules};
use crate::netns::Netns;
use crate::scenario::MODULE;
use crate::wireless;

/// How long links and modules may take to come free.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the guest brings to each of its lives.
pub struct Ground {
    pub name: &'static str,
    pub links: Vec<Link>,
    pub modules: Modules,
    pub log: KernelLog,
}

impl Ground {
    /// Makes the node.
    pub fn begin(&self) -> Result<Netns> {
        kernel_log::forget_leaks();
        if self.modules.has(MODULE) {
            self.modules.load(MODULE)?;
        }
        let names = self
            .links
            .iter()
            .map(|link| at_home(&link.mac))
            .collect::<Result<Vec<_>>>()?;
        let node = Netns::add(self.name)?;
        for (link, name) in self.links.iter().zip(&names) {
            command::run(&["ip", "link", "set", name, "netns", self.name])?;
            if *name != link.name {
                node.ip(&format!("link set {name} name {}", link.name))?;
            }
        }
        Ok(node)
    }

    /// Looks the machine over after a node has gone.
    pub fn end(&mut self) -> Result<()> {
        let mut failures = Vec::new();
        for link in &self.links {
            failures.extend(at_home(&link.mac).err());
        }
        for module in [MODULE, wireless::MODULE] {
            failures.extend(module::unload(module, PATIENCE).err());
        }
        failures.extend(kernel_log::check_leaks(true).err());
        failures.extend(self.log.check().err());
        ensure!(
            failures.is_empty(),
            "{}",
            failures
                .iter()
                .map(|error| format!("{error:#}"))
                .collect::<Vec<_>>()
                .join("; ")
        );
        Ok(())
    }
}

/// The name of the interface with this address once it is the guest's own; a namespace's end gives it back in its time.
fn at_home(mac: &str) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        for entry in std::fs::read_dir("/sys/class/net").context("/sys/class/net")? {
            let entry = entry?;
            let address = std::fs::read_to_string(Path::new(&entry.path()).join("address"));
            if address.unwrap_or_default().trim() == mac {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if Instant::now() > end {
            bail!("this guest has no interface with the address {mac}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
