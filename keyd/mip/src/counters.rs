// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What was taken, denied, and dropped in silence, by reason.

use crate::code::Code;
use std::collections::BTreeMap;

/// An agent's or a mobile node's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Registrations accepted, renewals among them.
    pub accepted: u64,
    /// Registrations denied, by code.
    pub denied: BTreeMap<Code, u64>,
    /// Messages that can't be read.
    pub malformed: u64,
    /// Messages with an unknown extension below 128.
    pub unknown_extension: u64,
    /// Messages whose authenticator is missing or wrong, and that get no answer.
    pub unauthentic: u64,
    /// Replies and acknowledgments nobody waits for.
    pub unexpected: u64,
    /// Messages for another role.
    pub ignored: u64,
    /// Answers held back because there were too many.
    pub limited: u64,
}

impl Counters {
    pub(crate) fn denied(&mut self, code: Code) {
        *self.denied.entry(code).or_insert(0) += 1;
    }
}
