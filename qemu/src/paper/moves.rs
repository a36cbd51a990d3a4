// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Initialisations and handoffs (the paper's Table II) and what message flows take (Table I): what is ordered, what a guest
//! tells, and what it comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::run::Task;
use super::state::State;

/// The columns of Table II, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Two-zone ESP, zone 1's keys given after the registration.
    #[serde(rename = "late")]
    Late,
    /// Zone 1's keys there beforehand.
    #[serde(rename = "pkd")]
    Pkd,
    /// Zone 1's keys from the previous foreign agent.
    #[serde(rename = "dkm")]
    Dkm,
}

impl Keys {
    /// All, in the order of the table.
    pub const ALL: [Keys; 6] = [
        Keys::None,
        Keys::Esp,
        Keys::EspAnew,
        Keys::Late,
        Keys::Pkd,
        Keys::Dkm,
    ];

    /// Its name in every file.
    pub fn name(self) -> &'static str {
        match self {
            Keys::None => "mip",
            Keys::Esp => "esp",
            Keys::EspAnew => "esp-anew",
            Keys::Late => "late",
            Keys::Pkd => "pkd",
            Keys::Dkm => "dkm",
        }
    }
}

/// The network between the agents: round trips in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Links {
    /// Between home agent and foreign agents.
    pub home_ms: f64,
    /// Between foreign agents.
    pub agents_ms: f64,
}

/// No delay: what takes time is processing, as in the paper's laboratory.
pub const NEAR: Links = Links {
    home_ms: 0.0,
    agents_ms: 0.0,
};
/// A home agent that is far.
pub const FAR: Links = Links {
    home_ms: 20.0,
    agents_ms: 10.0,
};
/// Foreign agents further from each other than from the home agent: nothing hides DKM's round trip.
pub const ACROSS: Links = Links {
    home_ms: 10.0,
    agents_ms: 20.0,
};

/// Initialisations and handoffs of a column. Its fields are the guest's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moves {
    /// The column.
    pub keys: Keys,
    /// [`Links::home_ms`].
    pub home_ms: f64,
    /// [`Links::agents_ms`].
    pub agents_ms: f64,
    /// Initialisations.
    pub starts: u32,
    /// Handoffs.
    pub handoffs: u32,
}

/// Who talks with the mobile host while it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 1,000 datagrams a second.
    Udp,
    /// A TCP connection that sends all it can.
    Tcp,
}

/// Handoffs of a column under a stream. Its fields are the guest's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// The column.
    pub keys: Keys,
    /// [`Links::home_ms`].
    pub home_ms: f64,
    /// [`Links::agents_ms`].
    pub agents_ms: f64,
    /// Handoffs.
    pub handoffs: u32,
    /// The stream.
    pub kind: Kind,
}

/// A handoff under a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// The longest time between two arrivals, in microseconds.
    pub interruption_us: f64,
    /// For how long the radio had no link.
    pub gap_us: f64,
    /// Datagrams that never arrived.
    #[serde(default)]
    pub lost: Option<u64>,
    /// Datagrams that arrived twice.
    #[serde(default)]
    pub doubled: Option<u64>,
    /// Segments that TCP sent again.
    #[serde(default)]
    pub retransmitted: Option<u64>,
    /// Times its retransmission timer fired.
    #[serde(default)]
    pub timeouts: Option<u64>,
}

/// A TCP connection through a handoff: microseconds since the move, octets of the stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Segments as they left the correspondent.
    pub sent: Vec<(i64, u64)>,
    /// What was acknowledged to it.
    pub acknowledged: Vec<(i64, u64)>,
}

/// What a guest tells of a column's streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamColumn {
    /// Each handoff.
    pub runs: Vec<Stream>,
    /// One of TCP's.
    #[serde(default)]
    pub trace: Option<Trace>,
}

/// What happened when in one initialisation or handoff: microseconds from the mobile host's solicitation on.
pub type Instants = BTreeMap<String, i64>;

/// What a guest tells of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Each initialisation.
    pub starts: Vec<Instants>,
    /// Each handoff.
    pub handoffs: Vec<Instants>,
}

/// A flow of Table I: microseconds that the key managers ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Its name.
    pub flow: String,
    /// Of the node that begins it.
    pub initiator_us: f64,
    /// Of the other one.
    pub responder_us: f64,
}

impl Flow {
    /// Both sides.
    pub fn total_us(&self) -> f64 {
        self.initiator_us + self.responder_us
    }
}

/// What a guest tells of Table I.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// In the order of the table.
    pub rows: Vec<Flow>,
}

/// First quartile, median, third quartile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles(pub [f64; 3]);

impl Quartiles {
    /// Of values in any order; nothing of none. Between two values it goes in proportion.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            sorted[low] + (sorted[high] - sorted[low]) * place.fract()
        };
        Some(Quartiles([at(0.25), at(0.5), at(0.75)]))
    }

    /// The median.
    pub fn median(self) -> f64 {
        self.0[1]
    }
}

/// A stretch of an initialisation or handoff, from one instant to another; from the solicitation, where the first is none.
pub struct Phase {
    /// What happens in it.
    pub name: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn phase(name: &'static str, from: &'static str, to: &'static str) -> Phase {
    Phase { name, from, to }
}

/// In the order they happen; those of the keys overlap the registration's.
pub const PHASES: [Phase; 20] = [
    phase("link up until solicitation", "up", ""),
    phase("solicitation until advertisement", "", "advertised"),
    phase("advertisement until request", "advertised", "requested"),
    phase("request at the foreign agent", "requested", "relayed"),
    phase("request on its way", "relayed", "arrived"),
    phase("request at the home agent", "arrived", "answered"),
    phase("reply on its way", "answered", "returned"),
    phase("reply at the foreign agent", "returned", "replied"),
    phase("reply at the mobile host", "replied", "registered"),
    phase("registered", "", "registered"),
    phase("registered until IKE_SA_INIT", "registered", "begun"),
    phase("IKE_SA_INIT", "begun", "agreed"),
    phase("between the two exchanges", "agreed", "proving"),
    phase("IKE_AUTH", "proving", "proved"),
    phase("SAs installed at the mobile host", "proved", "child"),
    phase("relayed until CSA_REQUEST", "relayed", "asked"),
    phase("CSA_REQUEST", "asked", "given"),
    phase("CSA_REQUEST at the previous foreign agent", "heard", "gave"),
    phase("solicitation until zone 1's keys are used", "", "relay"),
    phase("all set up", "", ""),
];

impl Phase {
    /// How long it took, in microseconds; nothing where there is no such phase.
    pub fn took(&self, instants: &Instants) -> Option<f64> {
        if (self.from, self.to) == ("", "") {
            return total(instants);
        }
        let at = |name: &str| match name {
            "" => Some(0),
            name => instants.get(name).copied(),
        };
        Some((at(self.to)? - at(self.from)?) as f64)
    }
}

/// From the solicitation until the host is registered, its tunnel stands, and the foreign agent has what it needs: the
/// paper's measure.
pub fn total(instants: &Instants) -> Option<f64> {
    let ends = ["registered", "child", "relay"];
    let last = ends.iter().filter_map(|name| instants.get(*name)).max()?;
    instants.contains_key("registered").then_some(*last as f64)
}

/// All that is measured of both tables.
#[derive(Default)]
pub struct Tables {
    /// Table I's flows.
    pub flows: Option<Flows>,
    /// Table II's columns.
    pub columns: Vec<(Moves, Arc<Column>)>,
    /// Handoffs under streams.
    pub streams: Vec<(Streams, Arc<StreamColumn>)>,
}

impl Tables {
    /// Those of the tasks that have been measured.
    pub fn of<'a>(tasks: impl Iterator<Item = &'a (Task, String)>, state: &State) -> Self {
        let mut tables = Tables::default();
        for (task, key) in tasks {
            let Some(told) = state.told(key) else {
                continue;
            };
            match task {
                Task::Moves(moves) => {
                    if let Ok(column) = serde_json::from_value(told.clone()) {
                        tables.columns.push((moves.clone(), Arc::new(column)));
                    }
                }
                Task::Streams(streams) => {
                    if let Ok(column) = serde_json::from_value(told.clone()) {
                        tables.streams.push((streams.clone(), Arc::new(column)));
                    }
                }
                Task::Messages { .. } => tables.flows = serde_json::from_value(told.clone()).ok(),
                Task::Transfer(_) | Task::Burst { .. } | Task::Company(_) => {}
            }
        }
        tables
    }

    /// A column on these links.
    pub fn column(&self, keys: Keys, links: Links) -> Option<&Column> {
        let is = |moves: &Moves| {
            moves.keys == keys
                && (moves.home_ms, moves.agents_ms) == (links.home_ms, links.agents_ms)
        };
        let found = self.columns.iter().find(|(moves, _)| is(moves));
        found.map(|(_, column)| &**column)
    }

    /// Median of all initialisations until everything is set up, in milliseconds.
    pub fn initialisation_ms(&self, keys: Keys, links: Links) -> Option<f64> {
        median_ms(&self.column(keys, links)?.starts)
    }

    /// The same of handoffs.
    pub fn handoff_ms(&self, keys: Keys, links: Links) -> Option<f64> {
        median_ms(&self.column(keys, links)?.handoffs)
    }

    /// What a column adds to pure Mobile IP's handoff on the same links, in milliseconds.
    pub fn own_share_ms(&self, keys: Keys, links: Links) -> Option<f64> {
        Some(self.handoff_ms(keys, links)? - self.handoff_ms(Keys::None, links)?)
    }

    /// The least that a column's handoff took from the host's request on, in milliseconds: how soon the host hears of an agent
    /// is the radio's. Which node the one processor was busy with is a millisecond of it; a few handoffs have one without.
    pub fn after_request_ms(&self, keys: Keys, links: Links) -> Option<f64> {
        let all = self.column(keys, links)?.handoffs.iter();
        let took = all.filter_map(|one| Some(total(one)? - *one.get("requested")? as f64));
        Some(took.reduce(f64::min)? / 1000.0)
    }

    /// A column's handoffs under a stream.
    pub fn stream(&self, keys: Keys, kind: Kind) -> Option<&StreamColumn> {
        let mut all = self.streams.iter();
        let found = all.find(|(streams, _)| (streams.keys, streams.kind) == (keys, kind));
        found.map(|(_, column)| &**column)
    }

    /// The longest time that the radio had no link in any handoff under a stream, in milliseconds.
    pub fn gap_ms(&self) -> Option<f64> {
        let runs = self.streams.iter().flat_map(|(_, column)| &column.runs);
        Some(runs.map(|run| run.gap_us).reduce(f64::max)? / 1000.0)
    }

    /// A flow of Table I.
    pub fn flow(&self, name: &str) -> Option<&Flow> {
        let rows = &self.flows.as_ref()?.rows;
        rows.iter().find(|flow| flow.flow == name)
    }
}

fn median_ms(all: &[Instants]) -> Option<f64> {
    let totals: Vec<f64> = all.iter().filter_map(total).collect();
    Some(Quartiles::of(&totals)?.median() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instants(list: &[(&str, i64)]) -> Instants {
        list.iter()
            .map(|(name, at)| ((*name).to_owned(), *at))
            .collect()
    }

    #[test]
    fn quartiles_are_in_proportion_between_values() {
        assert_eq!(Quartiles::of(&[]), None);
        assert_eq!(
            Quartiles::of(&[4.0, 1.0, 3.0, 2.0]),
            Some(Quartiles([1.75, 2.5, 3.25]))
        );
        assert_eq!(Quartiles::of(&[7.0]), Some(Quartiles([7.0; 3])));
    }

    #[test]
    fn a_handoff_is_over_when_the_last_of_all_is_there() {
        let dkm = instants(&[("registered", 20_500), ("relay", 11_000), ("up", -300)]);
        assert_eq!(total(&dkm), Some(20_500.0));
        let late = instants(&[("registered", 20_500), ("relay", 31_000)]);
        assert_eq!(total(&late), Some(31_000.0));
        assert_eq!(total(&instants(&[("relay", 1)])), None);
        assert_eq!(PHASES[0].took(&dkm), Some(300.0));
        assert_eq!(PHASES[16].took(&dkm), None);
        assert_eq!(PHASES[19].took(&late), Some(31_000.0));
    }

    #[test]
    fn what_mml_adds_is_the_difference_of_medians_on_the_same_links() {
        let column = |at: i64| {
            Arc::new(Column {
                starts: Vec::new(),
                handoffs: vec![instants(&[("registered", at)])],
            })
        };
        let moves = |keys, links: Links| Moves {
            keys,
            home_ms: links.home_ms,
            agents_ms: links.agents_ms,
            starts: 0,
            handoffs: 1,
        };
        let tables = Tables {
            flows: None,
            streams: Vec::new(),
            columns: vec![
                (moves(Keys::None, FAR), column(21_000)),
                (moves(Keys::Pkd, FAR), column(21_250)),
                (moves(Keys::None, NEAR), column(1000)),
            ],
        };
        assert_eq!(tables.own_share_ms(Keys::Pkd, FAR), Some(0.25));
        assert_eq!(tables.own_share_ms(Keys::Pkd, NEAR), None);
    }
}
