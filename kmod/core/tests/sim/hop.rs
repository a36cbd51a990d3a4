// SPDX-License-Identifier: GPL-2.0-only
//! One way of the wireless hop: a transmitter with two bands, and errors.

use std::collections::VecDeque;

use super::random::Errors;
use super::SECOND;

pub struct Hop<T> {
    rate: u64,
    limit: usize,
    errors: Errors,
    first: VecDeque<(T, u64)>,
    rest: VecDeque<(T, u64)>,
    /// What is being sent, and whether it is lost.
    busy: Option<(T, bool)>,
    pub lost: u64,
    pub overflowed: u64,
}

impl<T: Copy> Hop<T> {
    pub fn new(rate: u64, one_in: u64, seed: u64, limit: usize) -> Self {
        Hop {
            rate,
            limit,
            errors: Errors::new(one_in, seed),
            first: VecDeque::new(),
            rest: VecDeque::new(),
            busy: None,
            lost: 0,
            overflowed: 0,
        }
    }

    /// Whether less than seven eighths of the queue are taken: the kernel has SNOOP keep nothing beyond.
    pub fn has_room(&self) -> bool {
        self.rest.len() < self.limit - self.limit / 8
    }

    pub fn enqueue(&mut self, packet: T, octets: u64, priority: bool) {
        if priority {
            self.first.push_back((packet, octets));
        } else if self.rest.len() < self.limit {
            self.rest.push_back((packet, octets));
        } else {
            self.overflowed += 1;
        }
    }

    /// Begins to send if it is idle and something waits: when that will be done.
    pub fn kick(&mut self, now: u64) -> Option<u64> {
        if self.busy.is_some() {
            return None;
        }
        let (packet, octets) = self.first.pop_front().or_else(|| self.rest.pop_front())?;
        let bits = octets * 8;
        let start = u128::from(now) * u128::from(self.rate) / u128::from(SECOND);
        let lost = self.errors.hit(start as u64, bits);
        self.busy = Some((packet, lost));
        Some(now + (bits * SECOND).div_ceil(self.rate))
    }

    /// The packet that has just been sent, and whether it is lost.
    pub fn done(&mut self) -> Option<(T, bool)> {
        let done = self.busy.take()?;
        self.lost += u64::from(done.1);
        Some(done)
    }
}
