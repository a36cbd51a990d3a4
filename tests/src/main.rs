// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mml-guest`: what runs inside the lab's virtual machines.
//!
//! As process 1 it mounts, loads the modules, builds the topology out of network namespaces, runs scenarios, the demo,
//! the benchmarks, the paper's experiments or a shell, and reports JSON lines over the virtio port `org.mml.report`. Where
//! each node is a guest of its own, it is one of them, and `mml-conductor` (`conductor/`) is what tells them what to do. On
//! any other machine it only tells what it holds: `mml-guest --list`, `mml-guest --needs`.
//!
//! Where to look: `init` starts it all; `topology` is the network; `tunnel` sets up what crosses it; `scenario` is the
//! table of tests and `scenarios/` the tests; `demo/`, `bench/` and `paper/` are the other modes, `agent/` that of a guest that
//! is one node; `sys` is the only file with `unsafe`.

mod aead;
mod agent;
mod attributes;
mod bench;
mod capture;
mod captured;
mod certificates;
mod charon;
mod command;
mod config;
mod csa_file;
mod datagrams;
mod demo;
mod dropped;
mod elsewhere;
mod encap;
mod genl;
mod headers;
mod holders;
mod init;
mod kernel_log;
mod keyd;
mod module;
mod mounts;
mod multicast;
mod netns;
mod paper;
mod report;
mod scenario;
mod scenarios;
mod sender;
mod sink;
mod six;
mod sockets;
mod stats;
mod sys;
mod topology;
mod traffic;
mod transport_mode;
mod tunnel;
mod wireless;
mod zone_esp;
mod zone_message;
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
        // Not for other machines, but for guests of another init.
        Some("--send") => {
            let words: Vec<String> = std::env::args().skip(2).collect();
            match sender::run(&words) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("mml-guest --send: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
        Some("--needs") => {
            println!("{}", config::needs());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("mml-guest runs as process 1 of a lab guest; `mml-guest --list` shows its scenarios, `mml-guest --needs` the modules and programs a guest image must hold");
            ExitCode::FAILURE
        }
    }
}
