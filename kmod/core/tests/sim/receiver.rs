// SPDX-License-Identifier: GPL-2.0-only
//! A TCP receiver (RFC 5681 §4.2, RFC 2018, RFC 2883), behind an ESP replay window or not.

use std::collections::HashSet;

use super::{Ack, Data, Setup};

pub struct Receiver {
    window: u32,
    sack: bool,
    delay: u64,
    replay: Option<u64>,
    numbers: HashSet<u64>,
    top: u64,
    /// The next segment in order, and those behind it that came.
    pub next: u32,
    /// Blocks behind the hole, the one that changed last first.
    blocks: Vec<(u32, u32)>,
    duplicate: Option<u32>,
    unacknowledged: u32,
    /// When a held-back acknowledgement must go.
    pub deadline: u64,
    pub spurious: u64,
}

impl Receiver {
    pub fn new(setup: &Setup) -> Self {
        Receiver {
            window: setup.window,
            sack: setup.kind != super::sender::Kind::Reno,
            delay: setup.delayed_ack,
            replay: setup.esp.then_some(setup.replay),
            numbers: HashSet::new(),
            top: 0,
            next: 0,
            blocks: Vec::new(),
            duplicate: None,
            unacknowledged: 0,
            deadline: u64::MAX,
            spurious: 0,
        }
    }

    /// Takes a segment; whether it is to be acknowledged at once.
    pub fn data(&mut self, data: Data, now: u64) -> bool {
        if let Some(width) = self.replay {
            if data.esp + width <= self.top || !self.numbers.insert(data.esp) {
                self.spurious += 1;
                return false;
            }
            self.top = self.top.max(data.esp);
        }
        let index = data.index;
        let has = index < self.next || self.blocks.iter().any(|b| b.0 <= index && index < b.1);
        if has {
            self.spurious += 1;
            self.duplicate = Some(index);
            return true;
        }
        if index >= self.next + self.window {
            return true;
        }
        // Joins the blocks it touches.
        let (mut start, mut end) = (index, index + 1);
        self.blocks.retain(|b| {
            let touches = b.1 == start || b.0 == end;
            if touches {
                start = start.min(b.0);
                end = end.max(b.1);
            }
            !touches
        });
        if start == self.next {
            let filled = end > index + 1;
            self.next = end;
            self.unacknowledged += 1;
            if filled || !self.blocks.is_empty() || self.delay == 0 || self.unacknowledged >= 2 {
                return true;
            }
            if self.deadline == u64::MAX {
                self.deadline = now + self.delay;
            }
            return false;
        }
        self.blocks.insert(0, (start, end));
        true
    }

    pub fn acknowledge(&mut self) -> Ack {
        (self.unacknowledged, self.deadline) = (0, u64::MAX);
        let mut ack = Ack {
            ack: self.next,
            window: self.window,
            ..Ack::default()
        };
        if self.sack {
            let duplicate = self.duplicate.take().map(|index| (index, index + 1));
            for (to, from) in ack
                .sack
                .iter_mut()
                .zip(duplicate.iter().chain(self.blocks.iter()))
            {
                *to = *from;
                ack.blocks += 1;
            }
        }
        ack
    }
}
