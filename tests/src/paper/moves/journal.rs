// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What key managers say happened, and when (`[log] format = "json"`); and the clocks.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use serde_json::Value;

use crate::keyd::Keyd;

/// The guest's two clocks: captures go by that of the day, key managers by the monotonic one.
#[derive(Clone, Copy)]
pub struct Clock {
    /// Microseconds that the first is ahead.
    ahead: i64,
}

fn microseconds(clock: ClockId) -> Result<i64> {
    let time = Duration::from(clock.now()?);
    Ok(i64::try_from(time.as_micros())?)
}

impl Clock {
    /// Reads both.
    pub fn read() -> Result<Self> {
        let monotonic = microseconds(ClockId::CLOCK_MONOTONIC)?;
        Ok(Self {
            ahead: microseconds(ClockId::CLOCK_REALTIME)? - monotonic,
        })
    }

    /// Microseconds of the monotonic clock.
    pub fn now(self) -> i64 {
        // Linux always has this clock.
        microseconds(ClockId::CLOCK_MONOTONIC).unwrap_or_default()
    }

    /// A time since 1970, on the monotonic clock.
    pub fn monotonic(self, since_1970: Duration) -> i64 {
        i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - self.ahead
    }
}

/// Something a key manager said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Microseconds of the monotonic clock.
    pub at: i64,
    pub message: String,
}

/// All that a key manager said from `since` on, oldest first.
pub fn since(keyd: &Keyd<'_>, since: i64) -> Vec<Said> {
    lines(&keyd.log(), since)
}

fn lines(log: &str, since: i64) -> Vec<Said> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| {
            Some(Said {
                at: line["monotonic_us"].as_i64()?,
                message: line["message"].as_str()?.to_owned(),
            })
        })
        .filter(|said| said.at >= since)
        .collect()
}

/// When it first said something with all of these parts.
pub fn first(said: &[Said], parts: &[&str]) -> Option<i64> {
    said.iter()
        .find(|said| parts.iter().all(|part| said.message.contains(part)))
        .map(|said| said.at)
}

/// The same, where it must have.
pub fn must(said: &[Said], parts: &[&str], who: &str) -> Result<i64> {
    first(said, parts).with_context(|| format!("{who} never said {parts:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_or_is_no_object_is_left_out() {
        let log = "mh:\n{\"monotonic_us\":5,\"message\":\"registered in 3 ms\"}\nkeyd 1 runs\n\
                   {\"monotonic_us\":9,\"message\":\"registered in 4 ms\",\"level\":\"INFO\"}\n";
        let said = lines(log, 6);
        assert_eq!(said.len(), 1);
        assert_eq!(first(&said, &["registered", "4 ms"]), Some(9));
        assert!(must(&said, &["3 ms"], "mh").is_err());
    }
}
