// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The command line.

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};
use keyd::address::Prefix;
use keyd::csa_file::{Stop, ALGORITHMS};
use keyd::ports::Ports;
use pfkey::{Algorithm, Lifetime, Role, State};
use std::net::IpAddr;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the kernel or keyd refused it; its own words are on standard error
  2  the command line or a file is wrong, or a question was answered with no
  3  the kernel module isn't loaded, keyd doesn't run, or the permission is missing (CAP_NET_ADMIN)

csa, policy, snoop, stats, set and monitor ask the kernel module; status, sa, initiate, rekey,
delete, revoke, leave, reload and log ask keyd, the key manager. CSAs that keyd installed are keyd's to change.

Keys come from files or standard input, never from arguments. docs/mmlctl.md has the file format.";

/// The MML-IPsec kernel module and its key manager keyd, in this network namespace
#[derive(Parser)]
#[command(name = "mmlctl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Answer in JSON; errors too, on standard error
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// The whole command line, for the shell's completion.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Subcommand)]
pub enum Command {
    /// Composite SAs: make, load, list, delete
    #[command(subcommand)]
    Csa(Csa),
    /// Policies: which packets go sealed, in clear, or not at all
    #[command(subcommand)]
    Policy(Policy),
    /// SNOOP: repair the wireless hop's losses at a foreign agent
    #[command(subcommand)]
    Snoop(Snoop),
    /// Counters: of the namespace and of each CSA
    Stats(Stats),
    /// Change a setting, or list all of them
    Set {
        /// The setting, as in the list
        #[arg(requires = "value")]
        name: Option<String>,
        /// A number, on or off, or the name of an interface
        value: Option<String>,
    },
    /// Print what the module says on its own account: CSAs wanted, expired, changed
    Monitor,
    /// keyd: the node, and its connections with their peers
    Status(Daemon),
    /// keyd: SAs
    #[command(subcommand)]
    Sa(Sa),
    /// keyd: begin a connection, or its tunnel
    Initiate {
        /// The connection's name
        name: String,
        /// Come back when it is up, or fail after so many seconds
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
        wait: Option<u64>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// keyd: make new keys, for one SA or for all of a connection
    Rekey {
        /// A connection's name, or an SPI as `sa list` has it
        what: String,
        /// Of the connection's IKE SA, not of its tunnels
        #[arg(long)]
        ike: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// keyd: close an SA, or a connection with all its SAs; policies stay, so that its packets are dropped from then on
    Delete {
        /// A connection's name, or an SPI as `sa list` has it
        what: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// keyd, at a home agent or foreign agent: end a mobile host's registration; the other agent is told, and zone 1's keys are revoked
    Revoke {
        /// The host's home address
        #[arg(value_name = "HOME-ADDRESS")]
        home: std::net::Ipv4Addr,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// keyd: tell peers, take SAs, policies and routes away, and end; a mobile host deregisters
    Leave(Daemon),
    /// keyd: read its file again; connections that say the same stay up, and a file that is wrong changes nothing
    Reload(Daemon),
    /// keyd: the last lines of its log
    Log {
        /// Go on with those to come
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Print the shell's completion script
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where keyd is spoken with
#[derive(Args)]
pub struct Daemon {
    /// Its control socket
    #[arg(long, value_name = "PATH", default_value = keyd::daemon::control::SOCKET)]
    pub socket: PathBuf,
}

#[derive(Subcommand)]
pub enum Sa {
    /// List all: composite, plain, a foreign agent's relays, and those not claimed yet after a restart
    List(Daemon),
}

#[derive(Subcommand)]
pub enum Csa {
    /// Make a fresh matching set of files: ha.toml, fa.toml and mh.toml
    New(New),
    /// Load CSAs from a file; one that seals is renamed to FILE.loaded, since its keys may be used once
    Add {
        /// The file, or - for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// From standard input: I vouch that these keys never sealed anything
        #[arg(long)]
        fresh: bool,
    },
    /// Load every *.toml of a folder as `add` does, at boot; a file that fails doesn't keep the others from being loaded
    Load {
        /// The folder
        #[arg(value_name = "FOLDER", default_value = "/etc/mml/csas.d")]
        folder: PathBuf,
    },
    /// List all CSAs, without their keys
    List,
    /// Show all of one CSA, but its keys
    Show(Which),
    /// Change a CSA's state
    Update {
        #[command(flatten)]
        which: Which,
        /// active, standby or dying
        #[arg(long, value_parser = state)]
        state: State,
        /// Move the top of a terminus' or relay's replay window up to this number
        #[arg(long, default_value_t = 0)]
        sequence: u64,
        #[command(flatten)]
        limits: Limits,
    },
    /// Let a CSA go on between other outer addresses and ports; what is under way between the old ones still arrives
    Migrate {
        #[command(flatten)]
        which: Which,
        /// Its new outer source
        #[arg(long, value_name = "ADDRESS")]
        to_src: Option<IpAddr>,
        /// Its new outer destination
        #[arg(long, value_name = "ADDRESS")]
        to_dst: Option<IpAddr>,
        /// In UDP from now on, between these ports (RFC 3948); without it, bare
        #[arg(long, value_name = "SOURCE:DESTINATION", value_parser = ports)]
        udp: Option<pfkey::Encap>,
    },
    /// Send what a CSA holds for a handoff, by the routes there are now
    Resend {
        #[command(flatten)]
        which: Which,
        /// Of copies only those behind this number, the last one that the other end has seen
        #[arg(
            long,
            value_name = "NUMBER",
            default_value_t = 0,
            hide_default_value = true
        )]
        seen: u64,
    },
    /// Delete a CSA
    Delete(Which),
    /// Delete all CSAs; what policies protect is dropped from then on
    Flush,
}

/// Which CSA is meant: by its SPI, and by more where that is not enough
#[derive(Args)]
pub struct Which {
    /// The SPI, decimal or as 0x…
    #[arg(value_parser = spi)]
    pub spi: u32,
    /// Its outer source
    #[arg(long, value_name = "ADDRESS")]
    pub src: Option<IpAddr>,
    /// Its outer destination
    #[arg(long, value_name = "ADDRESS")]
    pub dst: Option<IpAddr>,
    /// What this node does with it: origin, terminus or relay
    #[arg(long, value_parser = role)]
    pub role: Option<Role>,
}

/// Limits of a CSA's life. One that is given replaces all of its kind, soft or hard; 0 is no limit
#[derive(Args)]
pub struct Limits {
    /// Seconds since it was added, at which it ends
    #[arg(long, value_name = "SECONDS")]
    pub hard_seconds: Option<u64>,
    /// Seconds since it was first used
    #[arg(long, value_name = "SECONDS")]
    pub hard_use_seconds: Option<u64>,
    /// Packets carried
    #[arg(long, value_name = "PACKETS")]
    pub hard_packets: Option<u32>,
    /// Octets carried
    #[arg(long, value_name = "OCTETS")]
    pub hard_bytes: Option<u64>,
    /// The same for the event that asks for another CSA
    #[arg(long, value_name = "SECONDS")]
    pub soft_seconds: Option<u64>,
    /// Likewise
    #[arg(long, value_name = "SECONDS")]
    pub soft_use_seconds: Option<u64>,
    /// Likewise
    #[arg(long, value_name = "PACKETS")]
    pub soft_packets: Option<u32>,
    /// Likewise
    #[arg(long, value_name = "OCTETS")]
    pub soft_bytes: Option<u64>,
}

impl Limits {
    /// The hard ones, if any is given.
    pub fn hard(&self) -> Option<Lifetime> {
        given(
            self.hard_packets,
            [self.hard_bytes, self.hard_seconds, self.hard_use_seconds],
        )
    }

    /// The soft ones, if any is given.
    pub fn soft(&self) -> Option<Lifetime> {
        given(
            self.soft_packets,
            [self.soft_bytes, self.soft_seconds, self.soft_use_seconds],
        )
    }
}

fn given(packets: Option<u32>, rest: [Option<u64>; 3]) -> Option<Lifetime> {
    let any = packets.is_some() || rest.iter().any(Option::is_some);
    let [bytes, addtime, usetime] = rest.map(Option::unwrap_or_default);
    any.then_some(Lifetime {
        allocations: packets.unwrap_or_default(),
        bytes,
        addtime,
        usetime,
    })
}

#[derive(Args)]
pub struct New {
    /// The folder to put the files in; it is made if it isn't there
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The home agent's outer address
    #[arg(long, value_name = "ADDRESS")]
    pub ha: IpAddr,
    /// The mobile host's outer address
    #[arg(long, value_name = "ADDRESS")]
    pub mh: IpAddr,
    /// Inner addresses of the mobile host
    #[arg(
        long,
        value_name = "PREFIX",
        required_unless_present = "transport",
        conflicts_with = "transport"
    )]
    pub selector_mh: Option<Prefix>,
    /// Inner addresses of its correspondents
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "any",
        conflicts_with = "transport"
    )]
    pub selector_cn: Prefix,
    /// The upper protocol inside by number, 0 for any
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub proto: u8,
    /// The mobile host's ports: a port, two with a hyphen between, or any
    #[arg(long, value_name = "PORTS", default_value = "any")]
    pub port_mh: Ports,
    /// Its correspondents' ports, likewise
    #[arg(long, value_name = "PORTS", default_value = "any")]
    pub port_cn: Ports,
    /// Transport mode: seal what the two hosts say to one another, under their own IP headers; there is no file for a foreign agent
    #[arg(long, conflicts_with = "may_write")]
    pub transport: bool,
    #[arg(long, value_name = "TRANSFORM", value_parser = algorithm, help = format!("Zone 1's transform: {ALGORITHMS} [default: aes256-gcm16-iiv, with --may-write aes256-gcm16]"))]
    pub zone1: Option<(Algorithm, u16)>,
    /// Zone 2's transform, likewise
    #[arg(long, value_name = "TRANSFORM", value_parser = algorithm, default_value = "aes256-gcm16-iiv")]
    pub zone2: (Algorithm, u16),
    /// Where zone 1 stops: transport-end, or octets from the inner IP header
    #[arg(long, value_name = "STOP", default_value = "transport-end")]
    pub map: Stop,
    /// The replay window, in packets, 64 to 65536
    #[arg(long, value_name = "PACKETS", default_value_t = pfkey::WINDOW_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(pfkey::WINDOW_MIN)..=i64::from(pfkey::WINDOW_MAX)))]
    pub window: u32,
    /// Let the foreign agent rewrite zone 1; its file is then single-use too
    #[arg(long)]
    pub may_write: bool,
    /// The foreign agent's relay number, never given before for these keys
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(pfkey::Relay::NUMBER_MAX)))]
    pub relay_number: u16,
    /// Which CSA of this pair of hosts; later ones are greater
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub generation: u32,
    /// Carry the packets in UDP, port 4500 to port 4500, for a NAT on the way
    #[arg(long)]
    pub udp: bool,
}

#[derive(Subcommand)]
pub enum Policy {
    /// Add a policy, or all those in a file
    Add(PolicyAdd),
    /// Make the policies those of a folder's *.toml, at boot or anew; if one is wrong, what isn't protected yet goes nowhere
    Load {
        /// The folder
        #[arg(value_name = "FOLDER", default_value = "/etc/mml/policies.d")]
        folder: PathBuf,
    },
    /// List all policies in the order they are asked
    List,
    /// Delete a policy by its number, or by direction and selector
    #[command(group = ArgGroup::new("name").required(true).args(["id", "dir"]))]
    Delete {
        /// Its number, as in the list
        #[arg(long)]
        id: Option<u32>,
        /// in or out
        #[arg(long, value_parser = ["in", "out"])]
        dir: Option<String>,
        #[command(flatten)]
        packets: Packets,
    },
    /// Delete all policies; what they kept from going in clear will go in clear
    Flush {
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which packets
#[derive(Args)]
pub struct Packets {
    /// Their source: ADDRESS, ADDRESS/LENGTH or any
    #[arg(long, value_name = "PREFIX", default_value = "any")]
    pub src: Prefix,
    /// Their destination, likewise
    #[arg(long, value_name = "PREFIX", default_value = "any")]
    pub dst: Prefix,
    /// Their upper protocol by number, 0 for any
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub proto: u8,
    /// Their source port: a port, two with a hyphen between, or any
    #[arg(long, value_name = "PORTS", default_value = "any")]
    pub src_port: Ports,
    /// Their destination port, likewise
    #[arg(long, value_name = "PORTS", default_value = "any")]
    pub dst_port: Ports,
}

#[derive(Args)]
#[command(group = ArgGroup::new("how").required(true).args(["file", "dir"]))]
#[command(group = ArgGroup::new("action").args(["protect", "bypass", "discard"]))]
pub struct PolicyAdd {
    /// A file of [[policy]] tables, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// For what arrives (in) or leaves and is forwarded (out)
    #[arg(long, value_parser = ["in", "out"], requires = "action")]
    pub dir: Option<String>,
    /// Sealed or not at all
    #[arg(long)]
    pub protect: bool,
    /// In clear
    #[arg(long)]
    pub bypass: bool,
    /// Not at all
    #[arg(long)]
    pub discard: bool,
    #[command(flatten)]
    pub packets: Packets,
    /// The lowest is asked first
    #[arg(long, default_value_t = 0)]
    pub priority: u32,
    /// Outer source of the CSA it asks for
    #[arg(long, value_name = "ADDRESS", requires = "outer_dst")]
    pub outer_src: Option<IpAddr>,
    /// Outer destination of the CSA it asks for
    #[arg(long, value_name = "ADDRESS", requires = "outer_src")]
    pub outer_dst: Option<IpAddr>,
}

#[derive(Subcommand)]
pub enum Snoop {
    /// Change its settings, for flows to come: of a relay's CSA (--spi), or of plain TCP
    Set(SnoopSet),
    /// List the flows it looks after
    Flows {
        /// Again every so many seconds, until interrupted
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// What it has seen and done, in all
    Stats {
        /// Again every so many seconds, with the difference, until interrupted
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// Write what it knows of a relay's CSA's flows into a file, for where the mobile host goes
    Export(SnoopFile),
    /// Take over what another foreign agent exported of the same CSA
    Import(SnoopFile),
}

#[derive(Args)]
pub struct SnoopFile {
    /// The CSA's SPI
    #[arg(long, value_name = "SPI", value_parser = spi)]
    pub spi: u32,
    /// The CSA's outer source, where the SPI is not enough
    #[arg(long, value_name = "ADDRESS")]
    pub src: Option<IpAddr>,
    /// The CSA's outer destination, likewise
    #[arg(long, value_name = "ADDRESS")]
    pub dst: Option<IpAddr>,
    /// The file; it names the flows' ends, and holds no keys
    pub file: PathBuf,
}

#[derive(Args)]
pub struct SnoopSet {
    /// Of this CSA, which must be a relay's; what isn't given is as SNOOP has it by default
    #[arg(long, value_name = "SPI", value_parser = spi, conflicts_with_all = ["device", "flows"])]
    pub spi: Option<u32>,
    /// The CSA's outer source, where the SPI is not enough
    #[arg(long, value_name = "ADDRESS", requires = "spi")]
    pub src: Option<IpAddr>,
    /// The CSA's outer destination, likewise
    #[arg(long, value_name = "ADDRESS", requires = "spi")]
    pub dst: Option<IpAddr>,
    /// Look after plain TCP towards the mobile hosts behind this interface; none ends it. Receive offload (GRO) must be
    /// off where it comes in: super-packets pass unseen
    #[arg(long, value_name = "INTERFACE")]
    pub device: Option<String>,
    /// Packets kept a flow, 1 to 8192
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub window: Option<u16>,
    /// Duplicate acknowledgements before a local retransmission
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    pub threshold: Option<u8>,
    /// Time-out before a round trip was measured
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    pub initial_ms: Option<u32>,
    /// The shortest time-out
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    pub min_rto_ms: Option<u32>,
    /// Silence after which what is unacknowledged goes out once more
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    pub persist_ms: Option<u32>,
    /// Silence after which a flow is forgotten; not below --persist-ms
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    pub garbage_ms: Option<u32>,
    /// Octets kept in all
    #[arg(long, value_name = "OCTETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes: Option<u64>,
    /// Flows in all, 1 to 16384
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub flows: Option<u32>,
}

fn milliseconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=3_600_000)
}

#[derive(Args)]
pub struct Stats {
    /// Again every so many seconds, with the difference, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
    /// Counters that are 0 too
    #[arg(long)]
    pub all: bool,
}

fn spi(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "an SPI is a number of 32 bits, decimal or as 0x…".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| "it is one of origin, terminus, relay".to_owned())
}

fn ports(text: &str) -> Result<pfkey::Encap, String> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    text.split_once(':')
        .and_then(|(sport, dport)| {
            Some(pfkey::Encap {
                sport: port(sport)?,
                dport: port(dport)?,
            })
        })
        .ok_or_else(|| "two ports from 1 to 65535 with a colon between: 4500:4500".to_owned())
}

fn state(text: &str) -> Result<State, String> {
    State::from_name(text)
        .filter(|state| *state != State::Larval)
        .ok_or_else(|| "it is one of active, standby, dying".to_owned())
}

fn algorithm(text: &str) -> Result<(Algorithm, u16), String> {
    Algorithm::from_name(text).ok_or_else(|| format!("it is one of {ALGORITHMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn spis_are_decimal_or_hexadecimal() {
        assert_eq!(spi("4096"), Ok(4096));
        assert_eq!(spi("0xffffffff"), Ok(u32::MAX));
        assert!(spi("0x100000000").is_err() && spi("x").is_err() && spi("").is_err());
    }
}
