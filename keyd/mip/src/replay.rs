// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Identifications and replay protection (RFC 5944 §5.7): made by the mobile node, judged by the home agent.

use crate::message::Identification;
use crate::time::{Now, Ntp, Random};
use std::time::Duration;

/// How replays are told from fresh requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// The Identification is a time of day, not further than this from the home agent's.
    Timestamps {
        /// RFC 5944 §5.7.1: 7 s unless agreed otherwise, more than 3 s.
        window: Duration,
    },
    /// The Identification's high half is a nonce that the last reply gave.
    Nonces,
}

impl Default for Replay {
    fn default() -> Self {
        Replay::Timestamps {
            window: Duration::from_secs(7),
        }
    }
}

/// What the home agent remembers of one association.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// No timestamp up to this one is taken.
    newest: Ntp,
    /// An earlier life may have taken stamps up to then, ahead of the clock as they were. Until then, they are judged by it
    /// instead of the clock.
    resumed: Option<Ntp>,
    nonce: Option<u32>,
}

/// The home agent's judgement of an Identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it is fresh; if not, the answer is code 133.
    pub fresh: bool,
    /// The reply's Identification.
    pub reply: Identification,
}

impl Guard {
    /// A guard that takes nothing stamped up to now: what was accepted before a restart isn't accepted again, and a
    /// mobile node whose clock is behind is told the time.
    pub fn new(now: Now) -> Self {
        Guard {
            newest: now.wall,
            resumed: None,
            nonce: None,
        }
    }

    /// What an earlier life accepted isn't known: nothing that it can have accepted is, until its clock would have got
    /// there. The mobile node doesn't wait for that: the rejection tells it that time as ours.
    pub fn resume(&mut self, replay: Replay, now: Now) {
        if let Replay::Timestamps { window } = replay {
            let newest = now.wall.plus(window);
            self.resumed = Some(newest);
            self.restore(Identification(newest.0));
        }
    }

    /// Remembers what was accepted in an earlier life.
    pub fn restore(&mut self, accepted: Identification) {
        if Ntp(accepted.0).after(self.newest) {
            self.newest = Ntp(accepted.0);
        }
    }

    /// Whether the Identification of an authentic request would be fresh.
    pub fn takes(&self, replay: Replay, identification: Identification, now: Now) -> bool {
        match replay {
            Replay::Timestamps { window } => {
                let stamp = Ntp(identification.0);
                let window = Ntp(0).plus(window).0;
                let off = stamp.since(self.clock(now)).unsigned_abs();
                off <= window && stamp.after(self.newest)
            }
            Replay::Nonces => self.nonce == Some(identification.high()),
        }
    }

    /// The time that stamps are judged by.
    fn clock(&self, now: Now) -> Ntp {
        let resumed = self.resumed.filter(|resumed| resumed.after(now.wall));
        resumed.unwrap_or(now.wall)
    }

    /// Judges the Identification of an authentic request.
    pub fn judge(
        &mut self,
        replay: Replay,
        identification: Identification,
        now: Now,
        random: &mut Random<'_>,
    ) -> Judgement {
        let fresh = self.takes(replay, identification, now);
        match replay {
            Replay::Timestamps { .. } => self.timestamp(fresh, identification, now),
            Replay::Nonces => self.nonce(fresh, identification, random),
        }
    }

    fn timestamp(&mut self, fresh: bool, request: Identification, now: Now) -> Judgement {
        if fresh {
            self.newest = Ntp(request.0);
        }
        Judgement {
            fresh,
            // A rejection tells the home agent's time, in whole seconds.
            reply: match fresh {
                true => request,
                false => Identification::new(self.clock(now).seconds(), request.low()),
            },
        }
    }

    fn nonce(
        &mut self,
        fresh: bool,
        request: Identification,
        random: &mut Random<'_>,
    ) -> Judgement {
        // A rejection gives the nonce that is awaited, which is new to the mobile node, and doesn't use it up: else
        // whoever replays old requests in a loop would keep the mobile node out.
        let nonce = match self.nonce {
            Some(nonce) if !fresh => nonce,
            old => another(old, random),
        };
        self.nonce = Some(nonce);
        Judgement {
            fresh,
            reply: Identification::new(nonce, request.low()),
        }
    }
}

/// How far ahead of the home agent's clock a stamp may have been accepted: the least window (RFC 5944 §5.7.1).
const AHEAD: Duration = Duration::from_secs(3);

/// What the mobile node makes its Identifications from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source {
    /// The home agent's clock less ours, in units of 2^-32 s.
    offset: i64,
    accepted: Option<Ntp>,
    last: Option<Ntp>,
    nonce: u32,
    low: Option<u32>,
}

impl Source {
    /// The next request's Identification.
    pub fn next(&mut self, replay: Replay, now: Now, random: &mut Random<'_>) -> Identification {
        match replay {
            Replay::Timestamps { .. } => {
                let mut stamp = Ntp(now.wall.0.wrapping_add_signed(self.offset));
                for floor in [self.accepted, self.last].into_iter().flatten() {
                    if !stamp.after(floor) {
                        stamp = Ntp(floor.0.wrapping_add(1));
                    }
                }
                self.last = Some(stamp);
                Identification(stamp.0)
            }
            Replay::Nonces => {
                let low = another(self.low, random);
                self.low = Some(low);
                Identification::new(self.nonce, low)
            }
        }
    }

    /// An authentic reply that accepts, or denies for another reason than the Identification.
    pub fn answered(&mut self, replay: Replay, reply: Identification) {
        match replay {
            Replay::Timestamps { .. } => self.accepted = Some(Ntp(reply.0)),
            Replay::Nonces => self.nonce = reply.high(),
        }
    }

    /// An authentic reply with code 133: takes the home agent's time, or its nonce, for the next request.
    pub fn resynchronise(&mut self, replay: Replay, reply: Identification, now: Now) {
        match replay {
            Replay::Timestamps { .. } => {
                // The time came in whole seconds, cut off. The second's end is ahead of all that the home agent's clock
                // has shown, so it won't refuse it as old; and less than a second ahead, so not as too new.
                let theirs = Ntp(u64::from(reply.high()) << 32).plus(Duration::from_secs(1));
                self.offset = theirs.since(now.wall);
                // A copy of an accepted request is rejected, too, and its rejection may come first: then our last stamp
                // binds. One that is far ahead of the home agent's clock never was accepted.
                let near = theirs.plus(AHEAD);
                self.last = self.last.filter(|last| near.after(*last));
            }
            Replay::Nonces => self.nonce = reply.high(),
        }
    }
}

/// A random word other than the last one.
fn another(last: Option<u32>, random: &mut Random<'_>) -> u32 {
    let word = random();
    if Some(word) == last {
        return word.wrapping_add(1);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMESTAMPS: Replay = Replay::Timestamps {
        window: Duration::from_secs(7),
    };

    fn at(ms: u64) -> Now {
        let since = Duration::from_millis(ms);
        Now {
            monotonic: since,
            wall: Ntp::from_unix(since + Duration::from_secs(1_800_000_000)),
        }
    }

    fn counter() -> impl FnMut() -> u32 {
        let mut word = 0;
        move || {
            word += 1;
            word
        }
    }

    #[test]
    fn a_timestamp_is_taken_once_and_only_later_ones_after_it() {
        let mut random = counter();
        let mut guard = Guard::new(at(0));
        let id = Identification(at(1000).wall.0);
        let older = Identification(at(900).wall.0);
        let judged = guard.judge(TIMESTAMPS, id, at(1010), &mut random);
        assert_eq!((judged.fresh, judged.reply), (true, id));
        for again in [id, older] {
            let judged = guard.judge(TIMESTAMPS, again, at(1020), &mut random);
            assert!(!judged.fresh);
            assert_eq!(judged.reply.low(), again.low());
            assert_eq!(judged.reply.high(), at(1020).wall.seconds());
        }
    }

    #[test]
    fn a_timestamp_outside_the_window_either_way_is_refused() {
        let mut random = counter();
        for (ms, fresh) in [
            (12_999, false),
            (13_000, true),
            (27_000, true),
            (27_001, false),
        ] {
            let mut guard = Guard::new(at(0));
            let id = Identification(at(ms).wall.0);
            assert_eq!(
                guard.judge(TIMESTAMPS, id, at(20_000), &mut random).fresh,
                fresh,
                "{ms}"
            );
        }
    }

    #[test]
    fn nothing_stamped_before_a_restart_is_taken_after_it() {
        let mut random = counter();
        let mut guard = Guard::new(at(5000));
        let before = Identification(at(4999).wall.0);
        assert!(!guard.judge(TIMESTAMPS, before, at(5001), &mut random).fresh);
        // One stamped ahead of our clock was accepted and written down.
        guard.restore(Identification(at(9000).wall.0));
        let ahead = Identification(at(9000).wall.0);
        assert!(!guard.judge(TIMESTAMPS, ahead, at(5002), &mut random).fresh);
    }

    #[test]
    fn a_mobile_node_whose_clock_is_off_is_set_right_by_one_rejection() {
        for off in [-3_600_000_i64, -10_000, 10_000, 86_400_000] {
            let mut random = counter();
            let mut guard = Guard::new(at(0));
            let mut source = Source::default();
            let theirs = |ms: u64| at((ms as i64 + 90_000_000 + off) as u64);
            let ours = |ms: u64| at(ms + 90_000_000);
            let id = source.next(TIMESTAMPS, theirs(0), &mut random);
            let judged = guard.judge(TIMESTAMPS, id, ours(0), &mut random);
            assert!(!judged.fresh, "{off}");
            source.resynchronise(TIMESTAMPS, judged.reply, theirs(0));
            let id = source.next(TIMESTAMPS, theirs(10), &mut random);
            assert!(
                guard.judge(TIMESTAMPS, id, ours(10), &mut random).fresh,
                "{off}"
            );
        }
    }

    #[test]
    fn identifications_grow_though_the_clock_stands_still_or_goes_back() {
        let mut random = counter();
        let mut source = Source::default();
        let first = source.next(TIMESTAMPS, at(1000), &mut random);
        let second = source.next(TIMESTAMPS, at(1000), &mut random);
        let third = source.next(TIMESTAMPS, at(500), &mut random);
        assert!(first < second && second < third);
    }

    #[test]
    fn nonces_fall_in_step_by_themselves_and_are_good_once() {
        let mut random = counter();
        let (mut guard, mut source) = (Guard::new(at(0)), Source::default());
        let id = source.next(Replay::Nonces, at(0), &mut random);
        let judged = guard.judge(Replay::Nonces, id, at(0), &mut random);
        assert!(!judged.fresh);
        assert_eq!(judged.reply.low(), id.low());
        source.resynchronise(Replay::Nonces, judged.reply, at(0));
        let id = source.next(Replay::Nonces, at(0), &mut random);
        let judged = guard.judge(Replay::Nonces, id, at(0), &mut random);
        assert!(judged.fresh);
        source.answered(Replay::Nonces, judged.reply);
        // A replay is refused and doesn't cost the mobile node its turn.
        assert!(!guard.judge(Replay::Nonces, id, at(0), &mut random).fresh);
        let id = source.next(Replay::Nonces, at(0), &mut random);
        assert!(guard.judge(Replay::Nonces, id, at(0), &mut random).fresh);
    }
}
