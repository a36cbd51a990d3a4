// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Life-times: the table in a CSA's file, and how limits are shown.

use pfkey::Lifetime;
use serde::Deserialize;
use serde_json::{json, Value};

/// A CSA file's `[csa.lifetime]`; 0, and what is left away, is no limit.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Table {
    hard_seconds: u64,
    hard_use_seconds: u64,
    hard_packets: u32,
    hard_bytes: u64,
    soft_seconds: u64,
    soft_use_seconds: u64,
    soft_packets: u32,
    soft_bytes: u64,
}

impl Table {
    /// The hard limits, if there are any.
    pub fn hard(&self) -> Option<Lifetime> {
        limits(Lifetime {
            allocations: self.hard_packets,
            bytes: self.hard_bytes,
            addtime: self.hard_seconds,
            usetime: self.hard_use_seconds,
        })
    }

    /// The soft limits, if there are any.
    pub fn soft(&self) -> Option<Lifetime> {
        limits(Lifetime {
            allocations: self.soft_packets,
            bytes: self.soft_bytes,
            addtime: self.soft_seconds,
            usetime: self.soft_use_seconds,
        })
    }
}

fn limits(limits: Lifetime) -> Option<Lifetime> {
    (limits != Lifetime::default()).then_some(limits)
}

/// Limits on one line, `none` where there are none.
pub fn text(limits: Option<Lifetime>) -> String {
    words(&limits.unwrap_or_default(), "none")
}

/// What is left until the hard limits at `now`, in seconds since 1970; nothing where there are none.
pub fn left(hard: Option<Lifetime>, current: Option<Lifetime>, now: u64) -> String {
    let (Some(hard), Some(current)) = (hard, current) else {
        return String::new();
    };
    // What is at its end shows as 0, which would be no limit.
    let rest = |limit: u64, spent: u64, unit: &str| {
        (limit != 0).then(|| format!("{} {unit}", limit.saturating_sub(spent)))
    };
    let since = |then: u64| {
        if then == 0 {
            0
        } else {
            now.saturating_sub(then)
        }
    };
    [
        rest(hard.addtime, since(current.addtime), "s"),
        rest(hard.usetime, since(current.usetime), "s of use"),
        rest(
            hard.allocations.into(),
            current.allocations.into(),
            "packets",
        ),
        rest(hard.bytes, current.bytes, "octets"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

fn words(limits: &Lifetime, none: &str) -> String {
    let all = [
        (limits.addtime, "s"),
        (limits.usetime, "s of use"),
        (limits.allocations.into(), "packets"),
        (limits.bytes, "octets"),
    ];
    let words: Vec<String> = all
        .iter()
        .filter(|(value, _)| *value != 0)
        .map(|(value, unit)| format!("{value} {unit}"))
        .collect();
    if words.is_empty() {
        none.to_owned()
    } else {
        words.join(", ")
    }
}

/// Limits as JSON: `null` where there are none.
pub fn json(limits: Option<Lifetime>) -> Value {
    limits.map_or(Value::Null, |l| {
        json!({
            "packets": l.allocations,
            "bytes": l.bytes,
            "seconds": l.addtime,
            "seconds_of_use": l.usetime,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARD: Lifetime = Lifetime {
        allocations: 100,
        bytes: 0,
        addtime: 60,
        usetime: 10,
    };

    #[test]
    fn no_limit_is_none() {
        assert_eq!(text(None), "none");
        assert_eq!(text(Some(Lifetime::default())), "none");
        assert_eq!(left(None, Some(HARD), 0), "");
        assert!(Table::default().hard().is_none() && Table::default().soft().is_none());
    }

    #[test]
    fn what_is_left_counts_down_to_zero_and_unused_ones_wait() {
        let current = Lifetime {
            allocations: 40,
            bytes: 7,
            addtime: 1000,
            usetime: 0,
        };
        assert_eq!(text(Some(HARD)), "60 s, 10 s of use, 100 packets");
        assert_eq!(
            left(Some(HARD), Some(current), 1020),
            "40 s, 10 s of use, 60 packets"
        );
        let used = Lifetime {
            usetime: 1015,
            ..current
        };
        assert_eq!(
            left(Some(HARD), Some(used), 2000),
            "0 s, 0 s of use, 60 packets"
        );
    }

    #[test]
    fn every_limit_of_a_file_reaches_the_message() {
        let table: Table = toml::from_str(
            "hard-seconds = 1\nhard-use-seconds = 2\nhard-packets = 3\nhard-bytes = 4\nsoft-seconds = 5\nsoft-use-seconds = 6\nsoft-packets = 7\nsoft-bytes = 8",
        )
        .unwrap();
        let of = |l: Lifetime| (l.addtime, l.usetime, l.allocations, l.bytes);
        assert_eq!(table.hard().map(of), Some((1, 2, 3, 4)));
        assert_eq!(table.soft().map(of), Some((5, 6, 7, 8)));
        assert!(toml::from_str::<Table>("hard-hours = 1").is_err());
    }
}
