// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an IKE SA does by itself as time goes on: retransmission, rekeying, liveness, ends.

use super::exchange::{Cx, Pending, Task};
use super::window::Due;
use super::{IkeSa, State, RETRY};
use crate::event::{Down, Time};
use std::time::Duration;

impl IkeSa {
    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_deadline(&self, config: &crate::config::Config) -> Option<Time> {
        let mut deadlines: Vec<Time> = Vec::new();
        match self.state {
            State::Dead(at) => return Some(at),
            State::HalfOpen(at) | State::Replaced(at) => deadlines.push(at),
            _ => {}
        }
        deadlines.extend(self.outbox.next_deadline());
        deadlines.extend(self.outbox.pending().filter_map(|pending| match pending {
            Pending::Init(init) => init.refusal.map(|(_, at)| at),
            _ => None,
        }));
        deadlines.extend(self.retries.iter().map(|(at, _)| *at));
        if self.is_up() {
            deadlines.extend(self.rekey_at);
            let liveness = self.connection(config).and_then(|c| c.liveness);
            if let (Some(liveness), true) = (liveness, self.outbox.is_empty()) {
                deadlines.push(self.last_heard + liveness);
            }
            for child in &self.children {
                deadlines.extend(child.rekey_at);
                deadlines.push(child.expires);
            }
        }
        deadlines.into_iter().min()
    }

    /// Does what the time asks for. `false` when this IKE SA may be forgotten.
    pub fn tick(&mut self, cx: &mut Cx<'_>) -> bool {
        match self.state {
            State::Dead(at) => return cx.now < at,
            State::HalfOpen(at) if at <= cx.now => {
                // Nobody was told of it.
                self.state = State::Dead(cx.now);
                return false;
            }
            State::Replaced(at) if at <= cx.now => self.fall(Down::Rekeyed, cx),
            _ => {}
        }
        self.check_refusal(cx);
        match self.outbox.due(cx.now, &cx.config.retransmission) {
            Due::Nothing => {}
            Due::Again(datagrams) => self.transmit(datagrams, cx),
            // Whoever was closing it has what it wanted.
            Due::GaveUp if self.state == State::Deleting => {
                self.fall(self.how_deleted(Down::Deleted), cx);
            }
            Due::GaveUp => self.fall(self.how_deleted(Down::Dead), cx),
        }
        let now = cx.now;
        let (due, later) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.retries = later;
        self.tasks.extend(due.into_iter().map(|(_, task)| task));
        if self.is_up() {
            self.tick_children(cx);
            if self.rekey_at.is_some_and(|at| at <= cx.now) {
                self.rekey_at = None;
                self.tasks.push_back(Task::RekeyIke(None));
            }
            let liveness = self.connection(cx.config).and_then(|c| c.liveness);
            let silent = liveness.is_some_and(|most| self.last_heard + most <= cx.now);
            if silent && self.outbox.is_empty() && self.tasks.is_empty() {
                self.tasks.push_back(Task::Liveness);
            }
        }
        self.pump(cx);
        match self.state {
            State::Dead(at) => cx.now < at,
            _ => true,
        }
    }

    pub(super) fn retry(&mut self, task: Task, cx: &mut Cx<'_>) {
        // Not both sides at the same moment, over and over (§2.25).
        let mut octet = [0];
        cx.host.fill(&mut octet);
        let jitter = Duration::from_millis(2 * u64::from(octet[0]));
        self.retries.push((cx.now + RETRY + jitter, task));
    }
}
