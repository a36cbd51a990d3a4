// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file systems of process 1.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};

/// Mounts all that the guest's programs look at.
pub fn all() -> Result<()> {
    let none = None::<&str>;
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("devpts", "/dev/pts"),
    ] {
        let required = matches!(kind, "proc" | "sysfs" | "devtmpfs" | "tmpfs");
        let made = std::fs::create_dir_all(target).map_err(anyhow::Error::from);
        let mounted = made.and_then(|()| {
            Ok(mount(
                Some(kind),
                target,
                Some(kind),
                MsFlags::empty(),
                none,
            )?)
        });
        match mounted {
            Err(error) if required => {
                return Err(error).with_context(|| format!("cannot mount {target}"))
            }
            _ => {}
        }
    }
    std::fs::create_dir_all("/run/netns")?;
    if !Path::new("/dev/fd").exists() {
        std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd")?;
    }
    Ok(())
}
