// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab`: kernels, guests, topologies, with one command.
//!
//! Where to look: `cli` is what can be typed; `build`, `demo`, `test`, `bench`, `paper`, `shell` and `doctor` are the
//! commands. They all begin with `setup`, which makes in order what a guest needs and boots it: `build_root` (a Debian
//! trixie, and how commands run in it), `archive` and `release` (which kernel there is), `kernel` (image, tree, debug
//! kernel), `module`, `guest` (our own programs), `initramfs` over `cpio`. Everything made is a product of the `cache`,
//! named by its `key` and watched over by its `manifest`. `machine` is one boot, `network` one of seven guests that make up a
//! network, `channel` what a guest reports, `console` its kernel log. The recipes themselves, as lists and scripts, are in `kbuild/`.

mod archive;
mod bench;
mod boot;
mod build;
mod build_root;
mod cache;
mod channel;
mod cli;
mod collect;
mod console;
mod cpio;
mod demo;
mod doctor;
mod error;
mod guest;
mod initramfs;
mod kernel;
mod key;
mod machine;
mod manifest;
mod module;
mod module_list;
mod network;
mod newer;
mod paper;
mod plot;
mod progress;
mod release;
mod report;
mod scatter;
mod setup;
mod shell;
mod sources;
mod suite;
mod systemd;
mod table;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::Result;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.show();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Doctor {
            install,
            look,
            json,
        } => doctor::command(install, look, json.as_deref()),
        Command::Build { refresh, shared } => build::command(refresh, &shared),
        Command::Demo {
            out,
            bytes,
            real,
            topology,
            shared,
        } => demo::command(&out, bytes, real, topology, &shared),
        Command::Test {
            names,
            list,
            vcpus,
            virtual_time,
            topology,
            fail_fast,
            only_guests,
            jobs,
            only_pure,
            shared,
        } => {
            let options = test::Options {
                names,
                list,
                vcpus,
                virtual_time,
                topology,
                fail_fast,
                only_guests,
                only_pure,
                jobs: jobs.map(usize::from),
            };
            test::command(&options, &shared)
        }
        Command::Bench {
            seconds,
            two_cpus: true,
            shared,
            ..
        } => bench::two_cpus(seconds, &shared),
        Command::Bench {
            names,
            seconds,
            shared,
            ..
        } => bench::command(&names, seconds, &shared),
        Command::Paper {
            only,
            quick,
            strict,
            out,
            jobs,
            shared,
        } => {
            let options = paper::Options {
                only,
                quick,
                strict,
                out,
                jobs,
            };
            paper::command(&options, &shared)
        }
        Command::Shell { shared } => shell::command(&shared),
        Command::Clean { kind, json } => build::clean(kind.as_deref(), json.as_deref()),
    }
}
