// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! keyd: the key manager of a node.
#![forbid(unsafe_code)]

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use keyd::daemon::config::Config;
use keyd::daemon::mobility::mtu;
use keyd::daemon::run::{self, Options, RunError};
use keyd::daemon::{control, log};
use std::path::PathBuf;
use std::process::ExitCode;

/// Something of the system is in the way: a port, an address, a socket.
const SYSTEM: u8 = 1;
/// The command line or a file is wrong. clap has the same.
const USAGE: u8 = 2;
/// The kernel lacks something, or the permission is missing.
const UNAVAILABLE: u8 = 3;

/// Half a command line: the help is the best answer.
const NO_COMMAND: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

const TEACH: &str = "\
keyd negotiates keys by IKEv2 (UDP 500 and 4500). Where both peers know zones it makes composite
SAs and installs them in the kernel module mml; where one doesn't it makes plain ones and installs
them in XFRM; never does it let packets that a tunnel is for go in clear. A home agent gives foreign
agents the key of the headers, and no other.

It begins with one file:

  [node]
  role = \"mh\"                 # ha, fa, mh, gateway or host
  identity = \"mh.example\"
  addresses = [\"10.1.1.7\"]

  [[connection]]
  name = \"ha\"
  remote = \"198.51.100.1\"
  remote-identity = \"ha.example\"
  auth = \"psk\"
  secret-file = \"ha.psk\"      # openssl rand -hex 32 > ha.psk; chmod 600 ha.psk

  [connection.tunnel]
  local = \"203.0.113.7/32\"
  zones = \"preferred\"         # or required, or off

  keyd check -c keyd.toml     is it right?
  keyd run -c keyd.toml       run in the foreground; keyd.service has systemd do it
  mmlctl status               speak with it: also sa list, initiate, rekey, delete, log

SIGTERM ends it and leaves SAs and policies alone: traffic goes on, and the next keyd claims what it
finds.

Exit codes:
  0  ended by a signal, or the file is right
  1  the system is in the way: a port is taken, an address isn't there; the message says which
  2  the command line, keyd.toml or a file it names is wrong; file, line and mend are in the message
  3  the kernel lacks what is needed, or CAP_NET_ADMIN is missing

docs/keyd.md has every key.";

/// The key manager of MML-IPsec
#[derive(Parser)]
#[command(name = "keyd", version, after_help = TEACH, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        file: File,
        /// At the end close all SAs and take all policies away: packets then go in clear
        #[arg(long)]
        flush: bool,
    },
    /// Check the configuration and the files it names, and say what it comes to
    Check {
        #[command(flatten)]
        file: File,
    },
}

#[derive(clap::Args)]
struct File {
    /// The configuration
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        default_value = "/etc/keyd/keyd.toml"
    )]
    path: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == NO_COMMAND => {
            // It teaches, but nothing was done.
            eprint!("{error}");
            return ExitCode::from(USAGE);
        }
        Err(error) => error.exit(),
    };
    // What we hold are keys: no core dump, no debugger. That it can't be had is no reason to do nothing.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    match cli.command {
        Command::Check { file } => check(&file),
        Command::Run { file, flush } => run(&file, Options { flush }),
    }
}

fn read(file: &File) -> Result<Config, ExitCode> {
    Config::read(&file.path).map_err(|mistake| {
        eprintln!("keyd: {mistake}");
        ExitCode::from(USAGE)
    })
}

fn check(file: &File) -> ExitCode {
    let config = match read(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    println!("{}: right", file.path.display());
    println!("role {}, identity {}", config.role.name(), config.identity);
    for one in &config.connections {
        let remote = one
            .remote
            .map_or_else(|| "anywhere".to_owned(), |remote| remote.to_string());
        match &one.tunnel {
            Some(tunnel) => {
                let (src, dst) = keyd::address::prefixes(&tunnel.selector);
                let zones = tunnel.zones.name();
                println!(
                    "connection {}: {} with {remote}, {src} → {dst}, zones {zones}",
                    one.name, one.local
                );
            }
            None => println!(
                "connection {}: {} with {remote}, no tunnel",
                one.name, one.local
            ),
        }
    }
    advise(&config);
    if config.control != std::path::Path::new(control::SOCKET) {
        println!(
            "control socket {}: give it to mmlctl with --socket",
            config.control.display()
        );
    }
    ExitCode::SUCCESS
}

/// What the file can't say: whether the interfaces carry what there will be. No fault of the file's, and so no failure.
fn advise(config: &Config) {
    let Some(mobile) = &config.mobile_ip else {
        return;
    };
    match mtu::look(mobile, &config.tunnel_ends()) {
        Ok(list) => list.iter().for_each(|one| println!("advice: {one}")),
        Err(error) => println!("advice: what interfaces carry can't be seen here: {error}"),
    }
}

fn run(file: &File, options: Options) -> ExitCode {
    let config = match read(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let journal = log::start(config.level, config.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run::run(config, &file.path, journal, options)),
        Err(error) => Err(RunError::System(error.to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyd: {error}");
            ExitCode::from(match error {
                RunError::System(_) => SYSTEM,
                RunError::Kernel(_) => UNAVAILABLE,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
