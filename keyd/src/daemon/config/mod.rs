// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `keyd.toml`: one file says what a node is, whom it speaks with, and what is protected (docs/keyd.md).
//!
//! A [`Config`] that exists has been checked whole, files of keys included. A mistake names file, line, key, cause and
//! mend.

mod agents;
mod check;
mod credential;
mod device;
mod file;
mod mobile;
mod parts;
mod predistribution;
mod source;
pub mod value;

pub use file::{Level, LogFormat, Role, Start, Zones};
pub use mobile::{Agent, MobileIp};
pub use parts::Parts;
pub use predistribution::Predistribution;
pub use source::Mistake;

use mml_ike::wire::Id;
use pfkey::{Mode, Selector, Snoop};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Octets of the largest `keyd.toml`.
const MAX_LEN: u64 = 4 << 20;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the node is.
    pub role: Role,
    /// Who it is.
    pub identity: Id,
    /// How long something is wrong before it is an alarm.
    pub alarm_after: Duration,
    /// Its own addresses: sockets are bound to them.
    pub addresses: Vec<IpAddr>,
    /// The port of IKE: 500.
    pub port: u16,
    /// The port of IKE and ESP within UDP: 4500.
    pub nat_port: u16,
    /// Where commands come in.
    pub control: PathBuf,
    /// Whether the socket's group may give commands too.
    pub control_group: bool,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
    /// What is logged.
    pub level: Level,
    /// What its lines on standard error look like.
    pub log_format: LogFormat,
    /// FA: how relays repair losses.
    pub snoop: Option<Snoop>,
    /// The connections, in the order of the file until it is reloaded; `ike.connections` has the same order.
    pub connections: Vec<Connection>,
    /// FA: hosts that are here, and their HA.
    pub registered: Vec<(IpAddr, Id)>,
    /// Mobile IP, where the node takes part in it.
    pub mobile_ip: Option<MobileIp>,
    /// The device that seals, where it is keyd's to make.
    pub device: Option<Device>,
    /// What the protocol needs to know of all this.
    pub ike: mml_ike::config::Config,
    /// What each table says.
    pub parts: Parts,
}

/// The device that seals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// Whether what tunnels are for is led into it.
    pub routes: bool,
}

/// A peer, as the daemon sees it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What it is called in commands and the log.
    pub name: String,
    /// This side's address.
    pub local: IpAddr,
    /// Where the peer is; anywhere without.
    pub remote: Option<IpAddr>,
    /// Who begins.
    pub start: Start,
    /// What is protected; nothing between HA and FA.
    pub tunnel: Option<Tunnel>,
    /// Whether it is gone from the file, and only its place is left.
    pub closed: bool,
}

/// What a connection protects.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Packets that leave.
    pub selector: Selector,
    /// Tunnel or transport.
    pub mode: Mode,
    /// What becomes of a peer that knows no zones.
    pub zones: Zones,
    /// Whether policies say that these packets go sealed or not at all.
    pub protect: bool,
    /// The policies' priority: the lowest is asked first.
    pub priority: u32,
    /// Hard life-time.
    pub lifetime: Duration,
    /// When it is to be replaced.
    pub rekey: Duration,
    /// Octets after which it is to be replaced; 0 for no limit.
    pub soft_bytes: u64,
    /// Octets after which it is not used; 0 for no limit.
    pub hard_bytes: u64,
    /// HA: where the host is.
    pub relays: Option<Relays>,
    /// Whether this side's address inside is the peer's to give.
    pub request_address: bool,
    /// Whether peers' addresses inside are this side's to give.
    pub pool: bool,
}

/// HA: the FAs of a host. Static, as long as nothing registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relays {
    /// The host's home address.
    pub home: IpAddr,
    /// Its FA.
    pub current: Option<IpAddr>,
    /// FAs it may go to next.
    pub standbys: Vec<IpAddr>,
}

impl Tunnel {
    /// Packets that arrive.
    pub fn inbound(&self) -> Selector {
        self.selector.reversed()
    }
}

impl Config {
    /// Reads and checks the file at `path`, and the files it names.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn read(path: &Path) -> Result<Self, Mistake> {
        let name = path.display().to_string();
        let wrong = |what: String| Mistake {
            file: name.clone(),
            line: None,
            what,
        };
        let data = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
        if !data.is_file() || data.len() > MAX_LEN {
            return Err(wrong("not a regular file of at most 4 MiB".to_owned()));
        }
        let mode = data.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(wrong(format!(
                "others than its owner may write it (mode {mode:04o}), and so say whom to trust; `chmod go-w` it"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&name, &text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Checks a file's text; the files it names are relative to `folder`.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, Mistake> {
        check::config(&source::Source { file: name, text }, folder)
    }

    /// Addresses that Mobile IP's tunnels lead to, as far as the file has them: of the agents on the other side.
    pub fn tunnel_ends(&self) -> Vec<Ipv4Addr> {
        let mut ends: Vec<Ipv4Addr> = match self.mobile_ip.as_ref().map(|one| &one.agent) {
            Some(Agent::Home(_)) => {
                let agents = self.ike.home.foreign_agents.iter();
                let addresses = agents.flat_map(|agent| &agent.addresses);
                let v4 = addresses.filter_map(|address| match address {
                    IpAddr::V4(address) => Some(*address),
                    IpAddr::V6(_) => None,
                });
                v4.collect()
            }
            Some(Agent::Foreign(foreign)) => {
                let agents = foreign.home_agents.iter().flatten();
                agents.map(|(address, _)| *address).collect()
            }
            Some(Agent::Node(_)) | None => Vec::new(),
        };
        ends.sort_unstable();
        ends
    }

    /// The connection of that name, by its place.
    pub fn connection(&self, name: &str) -> Option<usize> {
        self.connections
            .iter()
            .position(|one| !one.closed && one.name == name)
    }
}
