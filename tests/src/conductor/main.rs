// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mml-conductor`: runs scenarios and the demo on a network whose nodes are guests of their own, each with its own kernel.
//!
//! It is process 1 of a guest that has no network, only a line to the agent in each node's guest (`agent/`). The scenarios
//! are the same files as `mml-guest`'s: what they stand on (`netns`, `traffic`, `capture`, `genl`, `command`, `sockets`,
//! `elsewhere`) is here by the same names and asks the agents. On any other machine, `mml-conductor --list` shows what it
//! can run.

mod agents;
mod capture;
// Whole for the scenarios to come.
#[allow(dead_code)]
mod command;
mod config;
mod demo;
mod elsewhere;
mod genl;
mod init;
#[allow(dead_code)]
mod netns;
mod scenarios;
mod sockets;
mod traffic;
mod wireless;

// What it shares with `mml-guest`, which uses more of it.
#[path = "../aead.rs"]
mod aead;
#[allow(dead_code)]
#[path = "../attributes.rs"]
mod attributes;
#[allow(dead_code)]
#[path = "../captured.rs"]
mod captured;
#[path = "../csa_file.rs"]
mod csa_file;
#[allow(dead_code)]
#[path = "../datagrams.rs"]
mod datagrams;
#[allow(dead_code)]
#[path = "../headers.rs"]
mod headers;
#[path = "../holders.rs"]
mod holders;
#[path = "../kernel_log.rs"]
mod kernel_log;
#[allow(dead_code)]
#[path = "../keyd.rs"]
mod keyd;
#[allow(dead_code)]
#[path = "../module.rs"]
mod module;
#[path = "../mounts.rs"]
mod mounts;
#[allow(dead_code)]
#[path = "../command.rs"]
mod own_command;
#[path = "../report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../scenario.rs"]
mod scenario;
#[allow(dead_code)]
#[path = "../stats.rs"]
mod stats;
#[allow(dead_code)]
#[path = "../topology.rs"]
mod topology;
#[allow(dead_code)]
#[path = "../tunnel.rs"]
mod tunnel;
#[allow(dead_code)]
#[path = "../agent/wire.rs"]
mod wire;
#[allow(dead_code)]
#[path = "../zone_esp.rs"]
mod zone_esp;
#[allow(dead_code)]
#[path = "../zone_message.rs"]
mod zone_message;
#[allow(dead_code)]
#[path = "../zone_tunnel.rs"]
mod zone_tunnel;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("--list") => {
            for scenario in scenario::all() {
                println!("{}\t{}", scenario.name, scenario.proves);
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("mml-conductor runs as process 1 of a lab guest; `mml-conductor --list` shows its scenarios");
            ExitCode::FAILURE
        }
    }
}
