// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! mmlctl: CSAs, policies, counters and settings of the kernel module, by hand; and the key manager's commands.
#![forbid(unsafe_code)]

mod cli;
mod csa;
mod csa_load;
mod daemon;
mod failure;
mod folder;
mod monitor;
mod output;
mod policy;
mod policy_load;
mod snoop;
mod stats;
mod table;

use clap::error::ErrorKind;
use clap::Parser;
use cli::{Cli, Command};
use failure::Failure;
use output::Output;
use std::process::ExitCode;

/// Half a command line: the help is the best answer.
const NO_COMMAND: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && error.kind() != NO_COMMAND => {
            // What can't be read can't say how it wants its errors: look for it by hand.
            let json = std::env::args_os().any(|argument| argument == "--json");
            return Failure::command_line(&error).report(Output { json });
        }
        // Help and version are errors to clap.
        Err(error) => error.exit(),
    };
    let output = Output { json: cli.json };
    // What we hold may be keys: no core dump, no debugger. That it can't be had is no reason to do nothing.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    match run(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}

fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Csa(command) => csa::run(command, output),
        Command::Policy(command) => policy::run(command, output),
        Command::Snoop(command) => snoop::run(command, output),
        Command::Stats(arguments) => stats::run(&arguments, output),
        Command::Set { name, value } => stats::set(name.as_deref(), value.as_deref(), output),
        Command::Monitor => monitor::run(output),
        Command::Status(daemon) => daemon::status(&daemon, output),
        Command::Sa(cli::Sa::List(daemon)) => daemon::sa_list(&daemon, output),
        Command::Initiate { name, wait, daemon } => daemon::initiate(&daemon, &name, wait, output),
        Command::Reload(daemon) => daemon::reload(&daemon, output),
        Command::Rekey { what, ike, daemon } => daemon::rekey(&daemon, &what, ike, output),
        Command::Delete { what, daemon } => daemon::delete(&daemon, &what, output),
        Command::Revoke { home, daemon } => daemon::revoke(&daemon, home, output),
        Command::Leave(daemon) => daemon::leave(&daemon, output),
        Command::Log { follow, daemon } => daemon::log(&daemon, follow, output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "mmlctl", &mut std::io::stdout());
            Ok(())
        }
    }
}
