// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What was measured, by what it is for.

use serde::Deserialize;

use super::cost::Costs;
use super::moves::Tables;
use super::run::{Config, Task};
use super::state::{Measured, State};

/// What a burst of duplicate acknowledgements costs the foreign agent, in instructions.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Burst {
    /// A segment of the flow.
    pub packet_instructions: f64,
    /// All the duplicates, and what is sent again for them.
    pub burst_instructions: f64,
    /// What brings the duplicates to where SNOOP would look at them; measured without SNOOP.
    pub arrival_instructions: Option<f64>,
}

/// The bursts of each configuration.
#[derive(Default)]
pub struct Bursts(pub Vec<(Config, Burst)>);

impl Bursts {
    /// Those of the tasks that have been measured.
    pub fn of(tasks: &[(Task, String)], state: &State) -> Self {
        let burst = |(task, key): &(Task, String)| {
            let outcome = state.told(key)?.clone();
            Some((task.config()?, serde_json::from_value(outcome).ok()?))
        };
        Bursts(tasks.iter().filter_map(burst).collect())
    }

    /// One configuration's.
    pub fn of_config(&self, wanted: Config) -> Option<Burst> {
        self.0
            .iter()
            .find(|(config, _)| *config == wanted)
            .map(|(_, burst)| *burst)
    }
}

/// Everything that plots and claims are made of.
#[derive(Default)]
pub struct Results {
    /// Figure 9.
    pub fig9: Measured,
    /// Figure 11 with our settings of SNOOP.
    pub ours: Measured,
    /// The same with Table III's.
    pub table3: Measured,
    /// Some of it with other delays.
    pub delays: Measured,
    /// Today's TCP.
    pub modern: Measured,
    /// Bursts.
    pub bursts: Bursts,
    /// Key management and handoffs.
    pub tables: Tables,
    /// A host in company.
    pub costs: Costs,
}
