// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab`: kernels, guests, topologies, with one command.

mod archive;
mod build_root;
mod cache;
mod channel;
mod cli;
mod console;
mod cpio;
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
mod progress;
mod release;
mod setup;
mod sources;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::{Error, Result};

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
        Command::Build { refresh, shared } => {
            let lab = setup::Lab::prepare(&shared, refresh)?;
            for m in &lab.modules { println!("{}", m.display()); }
            Ok(())
        }
        Command::Test { names, shared, .. } => {
            let lab = setup::Lab::prepare(&shared, false)?;
            let order = serde_json::json!({"mode": "test", "names": names, "options": {}});
            let boot = lab.boot("test", machine::Clock::Real { vcpus: 2 }, &order, std::time::Duration::from_secs(600), &mut |e| println!("{e:?}"))?;
            println!("{:?} {}", boot.outcome, boot.console.display());
            Ok(())
        }
        _ => Err(Error::Usage("not there yet".into())),
    }
}
