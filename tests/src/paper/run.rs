// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One run, as the host orders it.

use serde::Deserialize;

/// What lies between correspondent and mobile host: the paper's five configurations.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Config {
    /// TCP over IP, all in clear.
    #[serde(rename = "plain")]
    Plain,
    /// The same, and SNOOP on the foreign agent's wireless interface.
    #[serde(rename = "plain+snoop")]
    PlainSnoop,
    /// The kernel's own ESP between home agent and mobile host.
    #[serde(rename = "ipsec")]
    Ipsec,
    /// Two-zone ESP, relayed by the foreign agent, which only looks.
    #[serde(rename = "mml")]
    Mml,
    /// Two-zone ESP, and SNOOP by the relay.
    #[serde(rename = "mml+snoop")]
    MmlSnoop,
}

impl Config {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::PlainSnoop => "plain+snoop",
            Self::Ipsec => "ipsec",
            Self::Mml => "mml",
            Self::MmlSnoop => "mml+snoop",
        }
    }

    /// Whether the module has a part in it. Where it has none it isn't loaded either.
    pub fn needs_module(self) -> bool {
        !matches!(self, Self::Plain | Self::Ipsec)
    }
}

/// SNOOP's settings.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Settings {
    /// The paper's Table III.
    Table3,
    /// The module's own.
    Ours,
}

impl Settings {
    /// By name, as a CSA file and `mmlctl snoop set` have them.
    pub fn values(self) -> [(&'static str, u64); 7] {
        let [window, threshold, initial, min_rto, persist, garbage] = match self {
            Self::Table3 => [50, 4, 100, 100, 1000, 10_000],
            Self::Ours => [1024, 1, 100, 10, 1000, 10_000],
        };
        [
            ("window", window),
            ("threshold", threshold),
            ("initial-ms", initial),
            ("min-rto-ms", min_rto),
            ("persist-ms", persist),
            ("garbage-ms", garbage),
            ("bytes", 16 << 20),
        ]
    }
}

/// Which way the wireless link has errors.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Errors {
    /// Towards the mobile host alone, as in the paper.
    Down,
    Both,
}

/// A transfer from the correspondent to the mobile host over a fresh connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The host's name of it, given back with its result.
    pub id: String,
    pub config: Config,
    /// Where the configuration has SNOOP.
    pub snoop: Option<Settings>,
    /// Errors a bit of the wireless link; 0 for none.
    pub bit_error_rate: f64,
    pub errors: Errors,
    /// Of the wireless link, each way, in 1000 bits a second.
    pub rate_kbps: u64,
    /// What the network between home agent and foreign agent adds to a round trip, half of it each way.
    pub delay_ms: f64,
    /// The run's number, from which come the errors it meets.
    pub run: u64,
    /// Octets of the file.
    pub bytes: u64,
    /// TCP's congestion control: `reno`, `cubic`, `bbr`.
    pub congestion: String,
    pub sack: bool,
    pub timestamps: bool,
    /// Window scaling; without it a window ends at 65,535 octets.
    pub scaling: bool,
    /// The sender's buffer in octets; the kernel's own choice otherwise.
    pub send_buffer: Option<usize>,
    /// Whether sequence number and congestion window are followed.
    pub trace: bool,
    /// Virtual seconds after which what has arrived counts.
    pub limit_seconds: f64,
}

/// What a burst of duplicate acknowledgements costs the relay.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    pub id: String,
    pub config: Config,
    pub snoop: Option<Settings>,
    /// Segments in flight: one is lost, each other one brings a duplicate.
    pub window: usize,
}

/// What a handoff moves beside the registration: the columns of the paper's Table II, and ours.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Keys {
    /// Pure Mobile IP.
    #[serde(rename = "mip")]
    None,
    /// Kernel ESP between home agent and home address, kept through handoffs.
    #[serde(rename = "esp")]
    Esp,
    /// Kernel ESP, set up anew at each handoff.
    #[serde(rename = "esp-anew")]
    EspAnew,
    /// Two-zone ESP; the home agent gives the foreign agent zone 1's keys after the registration.
    #[serde(rename = "late")]
    Late,
    /// The foreign agent has them beforehand.
    #[serde(rename = "pkd")]
    Pkd,
    /// The foreign agent has them from the previous one.
    #[serde(rename = "dkm")]
    Dkm,
}

impl Keys {
    /// Whether there is two-zone ESP.
    pub fn has_zones(self) -> bool {
        matches!(self, Self::Late | Self::Pkd | Self::Dkm)
    }
}

/// The network between the agents, as round trips in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Between home agent and foreign agents.
    pub home_ms: f64,
    /// Between foreign agents.
    pub agents_ms: f64,
}

impl Links {
    /// What the core adds to packets towards the home agent, and towards the foreign agents.
    pub fn one_way_ms(self) -> [f64; 2] {
        let agents = self.agents_ms / 2.0;
        [(self.home_ms - agents).max(0.0), agents]
    }
}

/// Initialisations and handoffs of one column.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moves {
    pub id: String,
    pub keys: Keys,
    pub home_ms: f64,
    pub agents_ms: f64,
    pub starts: u32,
    pub handoffs: u32,
}

impl Moves {
    pub fn links(&self) -> Links {
        Links {
            home_ms: self.home_ms,
            agents_ms: self.agents_ms,
        }
    }
}

/// Who talks with the mobile host while it moves.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 1,000 datagrams a second.
    Udp,
    /// A TCP connection that sends all it can.
    Tcp,
}

/// Handoffs of one column under a stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    pub id: String,
    pub keys: Keys,
    pub home_ms: f64,
    pub agents_ms: f64,
    pub handoffs: u32,
    pub kind: Kind,
}

impl Streams {
    pub fn links(&self) -> Links {
        Links {
            home_ms: self.home_ms,
            agents_ms: self.agents_ms,
        }
    }
}

/// What each of Table I's flows takes of the processors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    pub id: String,
    /// How many of each flow.
    pub times: u32,
}

/// How a foreign agent's neighbours are given keys beforehand.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// One by one.
    Sequence,
    /// By one datagram for all.
    Multicast,
}

/// What a host costs in company: hosts at both foreign agents, itself among them, or neighbours of the one where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Company {
    pub id: String,
    pub hosts: u32,
    pub neighbours: u32,
    pub by: By,
    /// How many rekeyings, and where there are no neighbours as many handoffs.
    pub times: u32,
}

/// What a task needs laid for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The path of a configuration: tasks of one way that follow each other share it.
    Path(Config, Option<Settings>),
    /// Whatever it lays for itself.
    Own,
}

/// What the host can ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Task {
    Transfer(Run),
    Burst(Burst),
    Moves(Moves),
    Messages(Messages),
    Streams(Streams),
    Company(Company),
}

impl Task {
    pub fn id(&self) -> &str {
        match self {
            Self::Transfer(run) => &run.id,
            Self::Burst(burst) => &burst.id,
            Self::Moves(moves) => &moves.id,
            Self::Messages(messages) => &messages.id,
            Self::Streams(streams) => &streams.id,
            Self::Company(company) => &company.id,
        }
    }

    /// What must be laid for it.
    pub fn way(&self) -> Way {
        match self {
            Self::Transfer(run) => Way::Path(run.config, run.snoop),
            Self::Burst(burst) => Way::Path(burst.config, burst.snoop),
            Self::Moves(_) | Self::Messages(_) | Self::Streams(_) | Self::Company(_) => Way::Own,
        }
    }
}
