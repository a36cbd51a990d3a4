// SPDX-License-Identifier: GPL-2.0-only
//! TCP senders: NewReno (RFC 5681, 6582, 3042), SACK (RFC 6675), and SACK with RACK (RFC 8985). There is always something
//! to send. Their time-out is RFC 6298's, with RACK Linux's (the term of the variation is 200 ms at least). Nothing is
//! taken back when a retransmission turns out to have been for nothing, as Linux would.

use super::{Ack, MS, SECOND};

/// The shortest time-out.
const RTO_MIN: u64 = 200 * MS;
const RTO_MAX: u64 = 60 * SECOND;
/// RFC 6928.
const INITIAL_WINDOW: u64 = 10;
const DUPLICATES: u32 = 3;
/// Congestion windows are in thousandths of a segment.
const ONE: u64 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Reno,
    Sack,
    Rack,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    at: u64,
    again: bool,
    sacked: bool,
    lost: bool,
}

pub struct Sender {
    kind: Kind,
    segments: u32,
    una: u32,
    /// The next one in order to be sent, and the one behind the highest sent ever.
    nxt: u32,
    high: u32,
    /// The receiver's window ends here.
    edge: u32,
    sent: Vec<Sent>,
    pipe: u64,
    lost: Option<u32>,
    cwnd: u64,
    ssthresh: u64,
    duplicates: u32,
    recovery: bool,
    /// Since a time-out, until `recover`: losses are sent again in slow start.
    after_timeout: bool,
    recover: u32,
    /// What recovery sends next, whatever is under way.
    resend: Option<u32>,
    smoothed: u64,
    variation: u64,
    least: u64,
    backoff: u32,
    timer: u64,
    /// RACK: when the one that was delivered last had been sent.
    newest: u64,
    /// Its round trip, the one behind the highest that was delivered, and whether one below it came later without being sent again.
    newest_rtt: u64,
    highest: u32,
    reordering: bool,
    /// Quarters of the least round trip that reordering may take, until when it isn't raised again, and recoveries left.
    quarters: u64,
    raised: u32,
    persists: u32,
    reorder: u64,
    pub timeouts: u64,
    pub recoveries: u64,
    pub sent_again: u64,
}

impl Sender {
    pub fn new(kind: Kind, segments: u32, window: u32) -> Self {
        Sender {
            kind,
            segments,
            una: 0,
            nxt: 0,
            high: 0,
            edge: window,
            sent: vec![Sent::default(); segments as usize],
            pipe: 0,
            lost: None,
            cwnd: INITIAL_WINDOW * ONE,
            ssthresh: u64::MAX,
            duplicates: 0,
            recovery: false,
            after_timeout: false,
            recover: 0,
            resend: None,
            smoothed: 0,
            variation: 0,
            least: u64::MAX,
            backoff: 0,
            timer: u64::MAX,
            newest: 0,
            newest_rtt: 0,
            highest: 0,
            reordering: false,
            quarters: 1,
            raised: 0,
            persists: 0,
            reorder: u64::MAX,
            timeouts: 0,
            recoveries: 0,
            sent_again: 0,
        }
    }

    pub fn is_done(&self) -> bool {
        self.una == self.segments
    }

    pub fn state(&self) -> String {
        format!(
            "una {} cwnd {} ssthresh {} {}",
            self.una,
            self.cwnd / ONE,
            (self.ssthresh / ONE).min(9_999),
            if self.recovery {
                "recovery"
            } else if self.after_timeout {
                "loss"
            } else {
                ""
            }
        )
    }

    fn rto(&self) -> u64 {
        let base = if self.smoothed == 0 {
            SECOND
        } else {
            let variation = 4 * self.variation;
            if self.kind == Kind::Rack {
                self.smoothed + variation.max(RTO_MIN)
            } else {
                (self.smoothed + variation).max(RTO_MIN)
            }
        };
        (base << self.backoff.min(10)).min(RTO_MAX)
    }

    pub fn deadline(&self) -> u64 {
        self.timer.min(self.reorder)
    }

    fn flight(&self) -> u64 {
        u64::from(self.high - self.una)
    }

    /// Counts what is thought to be on its way (RFC 6675 §4), and finds what is lost.
    fn count(&mut self) {
        (self.pipe, self.lost) = (0, None);
        for index in (self.una..self.high).rev() {
            let sent = &self.sent[index as usize];
            if sent.lost {
                self.lost = Some(index);
            } else if !sent.sacked {
                self.pipe += 1;
            }
        }
    }

    /// The next segment to go, if one may.
    pub fn next(&mut self, now: u64) -> Option<u32> {
        let index = if self.kind == Kind::Reno {
            self.next_reno()
        } else {
            self.next_sack()
        }?;
        let sent = &mut self.sent[index as usize];
        if index < self.high {
            self.sent_again += 1;
            sent.again = true;
        }
        self.pipe += u64::from(index >= self.high || sent.lost);
        (sent.at, sent.lost) = (now, false);
        self.high = self.high.max(index + 1);
        if self.lost == Some(index) {
            self.lost = (index + 1..self.high).find(|i| self.sent[*i as usize].lost);
        }
        if self.timer == u64::MAX {
            self.timer = now + self.rto();
        }
        Some(index)
    }

    fn next_reno(&mut self) -> Option<u32> {
        if let Some(index) = self.resend.take() {
            return Some(index);
        }
        // Limited transmit; in recovery the window itself is inflated.
        let extra = if self.recovery {
            0
        } else {
            u64::from(self.duplicates.min(2))
        };
        let may = self.cwnd / ONE + extra;
        if u64::from(self.nxt - self.una) < may && self.nxt < self.edge && self.nxt < self.segments
        {
            self.nxt += 1;
            return Some(self.nxt - 1);
        }
        None
    }

    fn next_sack(&mut self) -> Option<u32> {
        if let Some(index) = self.resend.take() {
            return Some(index);
        }
        if self.pipe >= (self.cwnd / ONE).max(1) {
            return None;
        }
        if self.lost.is_some() {
            return self.lost;
        }
        if self.nxt < self.edge && self.nxt < self.segments {
            self.nxt += 1;
            return Some(self.nxt - 1);
        }
        None
    }

    fn sample(&mut self, took: u64) {
        self.least = self.least.min(took);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (took, took / 2);
        } else {
            let off = self.smoothed.abs_diff(took);
            self.variation = self.variation - self.variation / 4 + off / 4;
            self.smoothed = self.smoothed - self.smoothed / 8 + took / 8;
        }
    }

    fn grow(&mut self, acked: u64) {
        if self.flight() + acked < self.cwnd / ONE {
            // Not the congestion window limits it.
            return;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd = (self.cwnd + acked * ONE).min(self.ssthresh.max(self.cwnd + ONE));
        } else {
            // As Linux counts: a segment a window.
            self.cwnd += acked * ONE * ONE / self.cwnd;
        }
    }

    pub fn ack(&mut self, ack: &Ack, now: u64) {
        if ack.ack < self.una || ack.ack > self.high {
            return;
        }
        self.edge = self.edge.max(ack.ack + ack.window);
        let acked = ack.ack - self.una;
        let mut clean = true;
        let mut newest = None;
        for index in self.una..ack.ack {
            let sent = self.sent[index as usize];
            clean &= !sent.again;
            if !sent.sacked {
                newest = Some(sent.at);
                self.delivered(index, now);
            }
        }
        if acked > 0 {
            if let (true, Some(at)) = (clean, newest) {
                self.sample(now - at);
                self.backoff = 0;
            }
            self.una = ack.ack;
            self.resend = None;
            self.nxt = self.nxt.max(self.una);
            self.timer = if self.una == self.high {
                u64::MAX
            } else {
                now + self.rto()
            };
        }
        match self.kind {
            Kind::Reno => self.ack_reno(acked, now),
            _ => self.ack_sack(ack, acked, now),
        }
    }

    /// RFC 8985 §6.2, steps 2 and 3.
    fn delivered(&mut self, index: u32, now: u64) {
        let sent = self.sent[index as usize];
        if index >= self.highest {
            self.highest = index + 1;
        } else if !sent.again {
            self.reordering = true;
        }
        // Of what was sent again, an answer sooner than any round trip is the first one's.
        if (!sent.again || now - sent.at >= self.least) && sent.at >= self.newest {
            (self.newest, self.newest_rtt) = (sent.at, now - sent.at);
        }
    }

    fn ack_reno(&mut self, acked: u32, now: u64) {
        if acked > 0 {
            self.duplicates = 0;
            if self.recovery {
                if self.una >= self.recover {
                    self.recovery = false;
                    self.cwnd = self.ssthresh;
                } else {
                    // A partial acknowledgement: the next one is missing too.
                    self.resend = Some(self.una);
                    self.cwnd = self.cwnd.saturating_sub(u64::from(acked) * ONE).max(ONE) + ONE;
                }
                return;
            }
            if self.after_timeout && self.una >= self.recover {
                self.after_timeout = false;
            }
            self.grow(acked.into());
            return;
        }
        if self.una == self.high {
            return;
        }
        self.duplicates += 1;
        if self.recovery {
            self.cwnd += ONE;
        } else if self.duplicates == DUPLICATES && self.una >= self.recover && !self.after_timeout {
            self.enter();
            self.cwnd = self.ssthresh + 3 * ONE;
            self.resend = Some(self.una);
            self.timer = now + self.rto();
        }
    }

    fn enter(&mut self) {
        self.recoveries += 1;
        self.recovery = true;
        self.persists = self.persists.saturating_sub(1);
        if self.persists == 0 {
            self.quarters = 1;
        }
        self.recover = self.high;
        self.ssthresh = (self.flight().min(self.cwnd / ONE) / 2).max(2) * ONE;
    }

    fn ack_sack(&mut self, ack: &Ack, acked: u32, now: u64) {
        // RFC 2883: the first block tells of what came twice.
        let twice = ack.sack().first().is_some_and(|first| {
            first.1 <= ack.ack
                || ack.sack()[1..]
                    .iter()
                    .any(|b| b.0 <= first.0 && first.1 <= b.1)
        });
        if twice && self.una >= self.raised {
            (self.quarters, self.persists, self.raised) = (self.quarters + 1, 16, self.high);
        }
        for (start, end) in ack.sack() {
            for index in (*start).max(self.una)..(*end).min(self.high) {
                if !self.sent[index as usize].sacked {
                    self.delivered(index, now);
                    let sent = &mut self.sent[index as usize];
                    (sent.sacked, sent.lost) = (true, false);
                }
            }
        }
        let over = self.una >= self.recover;
        if over && self.recovery {
            self.recovery = false;
            self.cwnd = self.ssthresh;
        }
        if over {
            self.after_timeout = false;
        }
        if acked > 0 && !self.recovery {
            self.grow(acked.into());
        }
        self.losses(now);
    }

    fn losses(&mut self, now: u64) {
        self.reorder = u64::MAX;
        // From above: three SACKed segments above one prove it lost (RFC 6675 §4, IsLost).
        let mut above = 0;
        let total = (self.una..self.high)
            .filter(|i| self.sent[*i as usize].sacked)
            .count();
        if total == 0 && self.lost.is_none() && self.kind == Kind::Sack {
            self.count();
            return;
        }
        let mut found = false;
        // RFC 8985 §6.2, step 4.
        let many = self.recovery || self.after_timeout || total >= DUPLICATES as usize;
        let patience = if !self.reordering && many {
            0
        } else {
            (self.least / 4 * self.quarters).min(self.smoothed)
        };
        for index in (self.una..self.high).rev() {
            let sent = self.sent[index as usize];
            if sent.sacked {
                above += 1;
            } else if sent.lost {
                found = true;
            } else if self.kind == Kind::Rack {
                if sent.at < self.newest {
                    let at = sent.at + self.newest_rtt + patience;
                    if now >= at {
                        self.sent[index as usize].lost = true;
                        found = true;
                    } else {
                        self.reorder = self.reorder.min(at);
                    }
                }
            } else if above >= DUPLICATES && !sent.again {
                self.sent[index as usize].lost = true;
                found = true;
            }
        }
        self.count();
        if found && !self.recovery && !self.after_timeout {
            self.enter();
            self.cwnd = self.ssthresh;
            self.resend = self.lost;
            self.timer = now + self.rto();
        }
    }

    pub fn timer(&mut self, now: u64) {
        if now >= self.reorder {
            self.losses(now);
            return;
        }
        self.timeouts += 1;
        self.ssthresh = (self.flight().min(self.cwnd / ONE) / 2).max(2) * ONE;
        self.cwnd = ONE;
        (self.recovery, self.after_timeout) = (false, true);
        (self.duplicates, self.resend) = (0, None);
        self.recover = self.high;
        self.backoff += 1;
        if self.kind == Kind::Reno {
            self.nxt = self.una;
        } else {
            for index in self.una..self.high {
                let sent = &mut self.sent[index as usize];
                sent.lost = !sent.sacked;
            }
            self.count();
        }
        self.timer = now + self.rto();
    }
}
