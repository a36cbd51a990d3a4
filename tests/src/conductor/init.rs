// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Process 1 of the conductor's guest: lines to the nodes, the run the host asked for, power-off of all.

use std::convert::Infallible;

use anyhow::Result;
use nix::sys::reboot::{reboot, RebootMode};
use serde_json::json;

use crate::config::{Mode, RunConfig};
use crate::module::Modules;
use crate::{agents, demo, mounts, report, scenario};

/// Runs everything and powers all machines off. `done` is the last event, and only a run that ended well says `ok`.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("mml-conductor: {info}");
        report::step(format!("panic: {info}"));
    }));
    let ok = match std::panic::catch_unwind(start) {
        Ok(Ok(ok)) => ok,
        Ok(Err(error)) => {
            eprintln!("mml-conductor: {error:#}");
            report::step(format!("failed: {error:#}"));
            false
        }
        Err(_) => false,
    };
    agents::dismiss();
    power_off(ok)
}

/// Says how it ended and powers off.
pub fn power_off(ok: bool) -> ! {
    report::emit(&json!({"event": "done", "ok": ok}));
    nix::unistd::sync();
    let _: std::result::Result<Infallible, _> = reboot(RebootMode::RB_POWER_OFF);
    // Only without CAP_SYS_BOOT; process 1 must not return.
    loop {
        std::thread::park();
    }
}

fn start() -> Result<bool> {
    mounts::all()?;
    std::env::set_var(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    let modules = Modules::find()?;
    report::open_at_start(&modules)?;
    let kernel = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let vcpus = std::thread::available_parallelism().map_or(1, usize::from);
    report::emit(&json!({"event": "hello", "kernel": kernel, "vcpus": vcpus}));
    let config = RunConfig::read()?;
    agents::connect()?;
    match config.mode {
        Mode::Test => scenario::run_all(&config, &modules),
        Mode::Demo => demo::run(&config),
    }
}
