// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Process 1: mounts, modules, the run the host asked for, power-off.

use std::convert::Infallible;
use std::fs::OpenOptions;

use anyhow::{Context, Result};
use nix::sys::reboot::{reboot, RebootMode};
use serde_json::json;

use crate::config::{Mode, RunConfig, MODULES};
use crate::module::Modules;
use crate::{demo, kernel_log, mounts, report, scenario};

/// Runs everything and powers the machine off. `done` is the last event, and only a run that ended well says `ok`.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("mml-guest: {info}");
        report::step(format!("panic: {info}"));
    }));
    let ok = match std::panic::catch_unwind(start) {
        Ok(Ok(ok)) => ok,
        Ok(Err(error)) => {
            eprintln!("mml-guest: {error:#}");
            report::step(format!("failed: {error:#}"));
            false
        }
        Err(_) => false,
    };
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
    std::env::set_var("HOME", "/root");
    let modules = Modules::find()?;
    report::open_at_start(&modules)?;
    let kernel = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let vcpus = std::thread::available_parallelism().map_or(1, usize::from);
    report::emit(&json!({"event": "hello", "kernel": kernel, "vcpus": vcpus}));
    let config = RunConfig::read()?;

    let mut log = kernel_log::KernelLog::from_now()?;
    for module in MODULES {
        // One that isn't there is built in or not needed by what was asked; what needs it says so itself.
        if modules.has(module) {
            if let Err(error) = modules.load(module) {
                report::step(format!("{error:#}"));
            }
        }
    }
    log.check()?;

    match config.mode {
        Mode::Test => scenario::run_all(&config, &modules),
        Mode::List => {
            for scenario in scenario::all() {
                report::result(
                    "scenario",
                    json!({"name": scenario.name, "proves": scenario.proves}),
                );
            }
            Ok(true)
        }
        Mode::Shell => shell(&modules),
        Mode::Demo => demo::run(&config, &modules),
        Mode::Bench => crate::bench::run_all(&config, &modules),
        Mode::Paper => crate::paper::run_all(&config, &modules),
        Mode::Node => crate::agent::serve(&config, modules),
    }
}

/// A prompt on the console with the topology up and the two-zone tunnel in it.
fn shell(modules: &Modules) -> Result<bool> {
    let context = scenario::Ctx::new(modules, 1.0)?;
    crate::zone_tunnel::set_up_by_mmlctl(&context.net, true, &[])?;
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ttyS0")
        .context("/dev/ttyS0")?;
    let banner = crate::topology::DRAWING;
    std::fs::write("/dev/ttyS0", format!("\r\n{}\r\nTry: ip netns exec ha tcpdump -ni core esp &  then: ip netns exec cn ping 203.0.113.7\r\n", banner.replace('\n', "\r\n")))?;
    let (input, output, errors) = (
        console.try_clone()?,
        console.try_clone()?,
        console.try_clone()?,
    );
    // A session of its own with the console as its terminal, so that ^C reaches what runs and not process 1.
    let mut command = std::process::Command::new("busybox");
    command
        .args(["setsid", "-c", "dash", "-i"])
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .env("PS1", "mml# ");
    let status = command.status().context("cannot start the shell")?;
    Ok(status.success() || status.code().is_some())
}
