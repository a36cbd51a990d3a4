// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::kernel::Flavour;
use crate::machine::Accel;
use crate::network::Topology;

const AFTER: &str = "\
Start with `cargo lab demo`. The first time it makes what it needs, in about ten minutes: a
Debian build root, the kernel's Rust metadata, the module. All of it is kept in
$XDG_CACHE_HOME/mml-ipsec, and later it starts at once. Nothing is written outside the cache,
the checkout's target directory and the output you name, and nothing runs on the host's network.

  cargo lab doctor          is everything here? what brings the rest?
  cargo lab test --list     the scenarios and what each proves
  cargo lab test NAME       one of them
  cargo lab shell           a prompt in the guest, topology up: tcpdump, ping, mmlctl

Environment:
  XDG_CACHE_HOME            where the cache is
  MML_DEBIAN_MIRROR         a Debian mirror; default: the one the host's apt uses
  KDIR                      as --kdir

Exit codes: 0 all well, 1 a check failed, 2 wrong usage, 3 the machine lacks something.";

/// The lab of MML-IPsec: two-zone ESP on a stock kernel, in virtual machines, with one command.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of everything that boots guests.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// The kernel the guests run
    #[arg(long, value_enum, default_value = "stock")]
    pub kernel: Flavour,
    /// Build against (and boot, if it has an image) this kernel tree instead
    #[arg(long, env = "KDIR", value_name = "TREE")]
    pub kdir: Option<PathBuf>,
    /// How QEMU runs guests; KVM is only used when a probe boot succeeds
    #[arg(long, value_enum, default_value = "tcg")]
    pub accel: Accel,
    /// The longest a guest may run, in seconds of the wall clock
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Also write the results here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look whether the machine has what the lab needs, and say what brings the rest
    Doctor {
        /// Install what is missing (as root this is done anyway)
        #[arg(long)]
        install: bool,
        /// Only look, also as root
        #[arg(long, conflicts_with = "install")]
        look: bool,
        /// Also write the findings here, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Make everything the guests need: build root, kernel, module, programs
    Build {
        /// Ask the archive for its newest supported kernel again
        #[arg(long)]
        refresh: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Send a file from CN to MH: plain, through kernel ESP, through two-zone ESP; check who could read what
    Demo {
        /// Where captures, plot and results go
        #[arg(long, value_name = "DIRECTORY", default_value = "mml-demo")]
        out: PathBuf,
        /// Size of the file, in octets
        #[arg(long, value_name = "OCTETS")]
        bytes: Option<u64>,
        /// With the host's clock and two processors instead of repeatable virtual time
        #[arg(long)]
        real: bool,
        /// Nodes as network namespaces of one guest, or each a guest with a kernel of its own (real time, SNOOP's act left out)
        #[arg(long, value_enum, default_value = "namespaces")]
        topology: Topology,
        #[command(flatten)]
        shared: Shared,
    },
    /// Prove it: the tests of the pure crates, then the scenarios in guests
    Test {
        /// Scenarios to run; none: all, after the pure crates' tests
        names: Vec<String>,
        /// Show the scenarios and what each proves
        #[arg(long)]
        list: bool,
        /// Processors of the guests; several, by comma, run the scenarios with each
        #[arg(long, value_name = "N[,N]", value_delimiter = ',', default_value = "2", value_parser = clap::value_parser!(u32).range(1..=4))]
        vcpus: Vec<u32>,
        /// In virtual time: one processor, an instruction a nanosecond, so that what a scenario measures doesn't depend on
        /// what else the host does
        #[arg(long, conflicts_with_all = ["vcpus", "topology"])]
        virtual_time: bool,
        /// Nodes as network namespaces of one guest, or each a guest of one processor with a kernel of its own; --list says
        /// which scenarios run there
        #[arg(long, value_enum, default_value = "namespaces")]
        topology: Topology,
        /// Stop at the first failure
        #[arg(long)]
        fail_fast: bool,
        /// Only the scenarios, not the pure crates' tests
        #[arg(long)]
        only_guests: bool,
        /// Guests at a time, for the scenarios; as many as processors where nobody says
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), conflicts_with = "topology")]
        jobs: Option<u16>,
        /// Only the pure crates' tests, no guest
        #[arg(long, conflicts_with_all = ["only_guests", "names"])]
        only_pure: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Measure in virtual time, beside plain forwarding, kernel ESP and WireGuard
    Bench {
        /// Benchmarks to run; none: all
        names: Vec<String>,
        /// Virtual seconds of each throughput run
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<f64>,
        /// Flows on two processors against one, by the host's clock: wants a host with nothing else to do
        #[arg(long, conflicts_with = "names")]
        two_cpus: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Repeat the MML paper's experiments in virtual time: key management, handoffs, throughput, and that with today's TCP
    Paper {
        /// Tables and figures: table1, table2, interruption, fig9, fig11, fig12, fig13, dupacks, limit, modern; none: all
        #[arg(long, value_name = "FIGURE[,FIGURE]", value_delimiter = ',')]
        only: Vec<String>,
        /// A few points, within five minutes
        #[arg(long)]
        quick: bool,
        /// Fail when a claim doesn't hold, not only when an experiment didn't run
        #[arg(long)]
        strict: bool,
        /// Where tables, plots and claims go; what is there already isn't measured again
        #[arg(long, value_name = "DIRECTORY", default_value = "mml-paper")]
        out: PathBuf,
        /// Guests at once; default: one a processor
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        #[command(flatten)]
        shared: Shared,
    },
    /// A prompt in the guest with the topology up
    Shell {
        #[command(flatten)]
        shared: Shared,
    },
    /// Empty the cache
    Clean {
        /// Only products of this kind: root, debs, kernel, tree, debug, module, base, runs, logs
        kind: Option<String>,
        /// Also write what was removed here, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}
