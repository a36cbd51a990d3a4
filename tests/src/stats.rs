// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The module's counters, and what a scenario made of them since it looked last.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};
use mml_core::esp::Drop;

use crate::genl::{self, Genl};
use crate::netns::Netns;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// The counters of one CSA.
#[derive(Clone, Debug)]
pub struct CsaStats {
    pub spi: u32,
    /// Outer source and destination, 4 octets each.
    pub ends: [Vec<u8>; 2],
    pub role: u8,
    pub counters: Counters,
}

/// One namespace's statistics at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub namespace: Counters,
    pub csas: Vec<CsaStats>,
}

impl Stats {
    pub fn read(namespace: &Netns) -> Result<Self> {
        let mut genl = Genl::open(namespace)?;
        let answers = genl::accepted(
            genl.request(genl::CMD_STATS, genl::NLM_F_DUMP, &[])?,
            "a dump of the statistics",
        )?;
        let mut stats = Self::default();
        for answer in &answers {
            let counters = counters(answer);
            match genl::find(answer, genl::A_STATS_SCOPE)
                .map(genl::string)
                .as_deref()
            {
                Some("namespace") => stats.namespace.extend(counters),
                _ => stats.csas.push(CsaStats {
                    spi: genl::find(answer, genl::A_SPI)
                        .and_then(|spi| spi.first_chunk().copied())
                        .map_or(0, u32::from_be_bytes),
                    role: genl::find(answer, genl::A_ROLE)
                        .and_then(|role| role.first().copied())
                        .unwrap_or(0),
                    ends: [genl::A_SRC, genl::A_DST]
                        .map(|end| genl::find(answer, end).unwrap_or_default().to_vec()),
                    counters,
                }),
            }
        }
        Ok(stats)
    }

    /// A counter over the namespace and all its CSAs, living and gone: the module adds them up.
    pub fn total(&self, name: &str) -> u64 {
        self.namespace.get(name).copied().unwrap_or(0)
    }

    /// What grew since `before`.
    pub fn since(&self, before: &Stats) -> Counters {
        self.namespace
            .iter()
            .map(|(name, value)| (name.clone(), value.saturating_sub(before.total(name))))
            .filter(|(_, grown)| *grown > 0)
            .collect()
    }
}

fn counters(answer: &[u8]) -> Counters {
    let mut counters = Counters::new();
    for (kind, nested) in genl::attributes(answer) {
        if kind != genl::A_COUNTER {
            continue;
        }
        if let (Some(name), Some(value)) = (
            genl::find(nested, genl::A_NAME),
            genl::find(nested, genl::A_VALUE).and_then(|value| value.first_chunk()),
        ) {
            counters.insert(genl::string(name), u64::from_ne_bytes(*value));
        }
    }
    counters
}

/// Watches one node's counters over a stretch of a scenario.
pub struct Watch<'a> {
    namespace: &'a Netns,
    before: Stats,
}

impl<'a> Watch<'a> {
    pub fn start(namespace: &'a Netns) -> Result<Self> {
        Ok(Self {
            namespace,
            before: Stats::read(namespace)?,
        })
    }

    /// What grew since the start.
    pub fn grown(&self) -> Result<Counters> {
        Ok(Stats::read(self.namespace)?.since(&self.before))
    }

    /// Exactly these reasons to drop a packet grew, each by that much.
    pub fn expect(&self, expected: &[(&str, u64)]) -> Result<()> {
        let grown: Counters = self
            .grown()?
            .into_iter()
            .filter(|(name, _)| is_reason(name))
            .collect();
        let expected: Counters = expected
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        ensure!(
            grown == expected,
            "at {} the counters grew by {grown:?}, not by {expected:?}",
            self.namespace.name()
        );
        Ok(())
    }

    /// All reasons to drop a packet together grew by as much.
    pub fn dropped(&self) -> Result<u64> {
        Ok(self
            .grown()?
            .iter()
            .filter(|(name, _)| is_reason(name))
            .map(|(_, count)| count)
            .sum())
    }
}

/// Whether this counter counts a reason to drop a packet or to pass it on unopened, not traffic.
pub fn is_reason(name: &str) -> bool {
    Drop::ALL.iter().any(|reason| reason.name() == name) || BEYOND_THE_FORMAT.contains(&name)
}

/// Reasons beyond the format's own, in the module's own order.
const BEYOND_THE_FORMAT: &[&str] = &[
    "no-csa",
    "no-route",
    "route-loop",
    "too-big",
    "bad-inner",
    "link-scope",
    "fragment",
    "sequence-exhausted",
    "no-memory",
    "not-active",
    "expired",
    "no-device",
    "guard-out",
    "guard-in",
    "discard",
    "relay-no-csa",
    "relay-fragment",
];
