// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One run: what is ordered of a guest, and what it is known by.

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::cost::Company;
use super::moves::{Moves, Streams};

/// What lies between correspondent and mobile host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Config {
    /// TCP over IP.
    #[serde(rename = "plain")]
    Plain,
    /// The same, with SNOOP at the foreign agent.
    #[serde(rename = "plain+snoop")]
    PlainSnoop,
    /// The kernel's own ESP.
    #[serde(rename = "ipsec")]
    Ipsec,
    /// Two-zone ESP with a relay.
    #[serde(rename = "mml")]
    Mml,
    /// The same, with SNOOP at the relay.
    #[serde(rename = "mml+snoop")]
    MmlSnoop,
}

impl Config {
    /// The paper's five, in the order of its legends.
    pub const ALL: [Config; 5] = [
        Config::Plain,
        Config::PlainSnoop,
        Config::Ipsec,
        Config::Mml,
        Config::MmlSnoop,
    ];

    /// Its name in every file.
    pub fn name(self) -> &'static str {
        match self {
            Config::Plain => "plain",
            Config::PlainSnoop => "plain+snoop",
            Config::Ipsec => "ipsec",
            Config::Mml => "mml",
            Config::MmlSnoop => "mml+snoop",
        }
    }

    /// Whether the foreign agent repairs losses.
    pub fn has_snoop(self) -> bool {
        matches!(self, Config::PlainSnoop | Config::MmlSnoop)
    }

    /// Whether our module has a part in it.
    pub fn needs_module(self) -> bool {
        !matches!(self, Config::Plain | Config::Ipsec)
    }
}

/// SNOOP's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settings {
    /// The paper's Table III.
    Table3,
    /// The module's own.
    Ours,
}

/// Which way the wireless link has errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Errors {
    /// Towards the mobile host, as in the paper.
    Down,
    /// Both ways.
    Both,
}

/// TCP's congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// The paper's.
    Reno,
    /// Linux's default.
    Cubic,
    /// Model-based.
    Bbr,
}

impl Congestion {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Congestion::Reno => "reno",
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
        }
    }
}

/// A transfer over a fresh connection. Its fields are the guest's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The configuration.
    pub config: Config,
    /// SNOOP's settings, where it has SNOOP.
    pub snoop: Option<Settings>,
    /// Errors a bit of the wireless link; 0 for none.
    pub bit_error_rate: f64,
    /// Their direction.
    pub errors: Errors,
    /// Of the wireless link, each way, in 1000 bits a second.
    pub rate_kbps: u64,
    /// What the wide-area network adds to a round trip, half of it each way, in milliseconds.
    pub delay_ms: f64,
    /// Its number, from which come the errors it meets.
    pub run: u64,
    /// Octets of the file.
    pub bytes: u64,
    /// The sender's congestion control.
    pub congestion: Congestion,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Time stamps.
    pub timestamps: bool,
    /// Window scaling.
    pub scaling: bool,
    /// The sender's buffer in octets; the kernel's own choice otherwise.
    pub send_buffer: Option<u64>,
    /// Whether sequence number and congestion window are followed.
    pub trace: bool,
    /// Virtual seconds after which what has arrived counts.
    pub limit_seconds: f64,
}

/// The window of the burst of duplicate acknowledgements (the paper, Section V.C.3).
pub const BURST_WINDOW: u64 = 40;

/// Something a guest does and reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Task {
    /// A file's transfer.
    Transfer(Run),
    /// The cost of a burst of duplicate acknowledgements.
    Burst {
        /// With SNOOP or, to compare with, without.
        config: Config,
        /// SNOOP's settings.
        snoop: Option<Settings>,
        /// Segments in flight.
        window: u64,
    },
    /// Initialisations and handoffs.
    Moves(Moves),
    /// Handoffs under a stream.
    Streams(Streams),
    /// What message flows take.
    Messages {
        /// Times each.
        times: u32,
    },
    /// What a host costs in company.
    Company(Company),
}

impl Task {
    /// The configuration; tasks that lay a network of their own have none.
    pub fn config(&self) -> Option<Config> {
        match self {
            Task::Transfer(run) => Some(run.config),
            Task::Burst { config, .. } => Some(*config),
            Task::Moves(_) | Task::Streams(_) | Task::Messages { .. } | Task::Company(_) => None,
        }
    }

    /// Whether our module has a part in it.
    pub fn needs_module(&self) -> bool {
        self.config().is_none_or(Config::needs_module)
    }

    /// Whether key managers have a part in it.
    pub fn needs_keyd(&self) -> bool {
        self.config().is_none()
    }

    /// What a guest lays for it; tasks that share it stand together in an order.
    pub fn way(&self) -> Option<(Config, Option<Settings>)> {
        match self {
            Task::Transfer(run) => Some((run.config, run.snoop)),
            Task::Burst { config, snoop, .. } => Some((*config, *snoop)),
            Task::Moves(_) | Task::Streams(_) | Task::Messages { .. } | Task::Company(_) => None,
        }
    }

    /// As the guest's order has it.
    pub fn order(&self, key: &str) -> Value {
        let mut order = json!(self);
        order["id"] = json!(key);
        order
    }

    /// In a few words, for the bar and for failures.
    pub fn title(&self) -> String {
        match self {
            Task::Transfer(run) => format!(
                "{} {} {}/s {} ms, run {}",
                run.config.name(),
                error_rate(run.bit_error_rate),
                megabits(run.rate_kbps),
                run.delay_ms,
                run.run
            ),
            Task::Burst { config, .. } => format!("{} burst", config.name()),
            Task::Moves(moves) => format!(
                "{} handoffs, {} and {} ms",
                moves.keys.name(),
                moves.home_ms,
                moves.agents_ms
            ),
            Task::Streams(streams) => {
                format!("{} handoffs under {:?}", streams.keys.name(), streams.kind)
            }
            Task::Messages { .. } => "processing of messages".to_owned(),
            Task::Company(Company {
                hosts,
                neighbours,
                by,
                ..
            }) => format!("{hosts} hosts, {neighbours} neighbours, {by:?}"),
        }
    }
}

/// An error rate as the paper prints it: three digits.
pub fn error_rate(rate: f64) -> String {
    if rate == 0.0 {
        "0".to_owned()
    } else {
        format!("{rate:.2e}")
    }
}

fn megabits(kbps: u64) -> String {
    format!("{} Mb", kbps as f64 / 1000.0)
}

/// What a guest reported of a transfer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Octets that arrived.
    pub bytes: u64,
    /// Whether that was the file, or what came of it until the limit.
    pub whole: bool,
    /// From the call that connects to the last octet.
    pub seconds: f64,
    /// Octets × 8 / seconds / 1000.
    pub goodput_kbps: f64,
    /// The sender's segment size.
    pub mss: u64,
    /// Octets of a full packet on the wireless link, link header and all.
    pub packet: u64,
    /// Segments the sender sent again.
    pub retransmitted: u64,
    /// Times its retransmission timer fired.
    pub timeouts: u64,
    /// The wireless link towards the mobile host.
    pub link: Link,
    /// What SNOOP counted.
    #[serde(default)]
    pub snoop: Value,
    /// Milliseconds since the start, octets acknowledged, congestion window in segments.
    #[serde(default)]
    pub trace: Vec<(u64, u64, u64)>,
}

/// Counters of the wireless link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Packets sent.
    pub sent: u64,
    /// Their octets.
    pub sent_octets: u64,
    /// Packets lost to errors.
    pub corrupted: u64,
    /// Packets the full queue refused.
    pub overflowed: u64,
    /// Packets that overtook others.
    pub prioritised: u64,
}

impl Outcome {
    /// The goodput the link allows: its rate, less the packets its errors take and the octets that are no payload.
    pub fn bound_kbps(&self, run: &Run) -> f64 {
        bound_kbps(run.rate_kbps, run.bit_error_rate, self.mss, self.packet)
    }
}

/// Link rate × packet survival × segment size / packet size.
pub fn bound_kbps(rate_kbps: u64, bit_error_rate: f64, mss: u64, packet: u64) -> f64 {
    let packet = packet as f64;
    let survival = (-bit_error_rate * 8.0 * packet).exp();
    rate_kbps as f64 * survival * mss as f64 / packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_rate_times_survival_times_the_share_of_payload() {
        let clear = bound_kbps(2000, 0.0, 1460, 1514);
        assert!((clear - 1928.7).abs() < 0.1, "{clear}");
        let worst = bound_kbps(2000, 1.0 / 65_536.0, 1460, 1514);
        assert!((worst / clear - 0.831).abs() < 0.001, "{worst}");
    }

    #[test]
    fn an_order_carries_its_task_and_its_key() {
        let task = Task::Burst {
            config: Config::MmlSnoop,
            snoop: Some(Settings::Ours),
            window: BURST_WINDOW,
        };
        let order = task.order("k");
        assert_eq!(
            order,
            json!({"task": "burst", "config": "mml+snoop", "snoop": "ours", "window": 40, "id": "k"})
        );
    }

    #[test]
    fn error_rates_have_three_digits() {
        assert_eq!(error_rate(0.0), "0");
        assert_eq!(error_rate(0.5f64.powi(23)), "1.19e-7");
        assert_eq!(error_rate(0.5f64.powi(16)), "1.53e-5");
    }
}
