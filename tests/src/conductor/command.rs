// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs: of this guest, and in the background of others.

use anyhow::Result;

use crate::agents::Held;
use crate::netns::finished;
use crate::wire::{Reply, Request};

pub use crate::own_command::{finish, run, Finished};

/// A program in another guest's background, ended when dropped.
pub struct Background(Held);

impl Background {
    /// The one an agent has started.
    pub fn of(held: Held) -> Self {
        Self(held)
    }

    /// Its process is another kernel's.
    pub fn pid(&self) -> u32 {
        0
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        let answer = self.0.ask(&Request::Runs { id: self.0.id() }, &[]);
        answer.is_ok_and(|answer| matches!(answer.reply, Reply::Yes(true)))
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Finished> {
        finished(self.0.ask(&Request::Finish { id: self.0.id() }, &[])?.reply)
    }

    /// Ends it and gives what it had printed.
    pub fn stop(self) -> Result<Finished> {
        finished(self.0.ask(&Request::Kill { id: self.0.id() }, &[])?.reply)
    }
}
