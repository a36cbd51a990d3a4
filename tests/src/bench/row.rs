// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A row of the table the host prints and writes to its `--json` file.

use serde_json::json;

use super::Bench;
use crate::report;

/// A value, beside a peer's.
pub struct Row<'a> {
    pub name: &'a str,
    /// `off` or `on`: segmentation and receive offloads. Empty where there are none to have.
    pub offload: &'a str,
    pub value: f64,
    pub unit: &'a str,
    /// `plain`, `kernel-esp`, `wireguard` or `bound`.
    pub peer: &'a str,
    pub peer_value: f64,
}

impl<'a> Row<'a> {
    /// One for which there are no offloads.
    pub fn plain(
        name: &'a str,
        (value, unit): (f64, &'a str),
        (peer, peer_value): (&'a str, f64),
    ) -> Self {
        Row {
            name,
            offload: "",
            value,
            unit,
            peer,
            peer_value,
        }
    }

    /// Reports it, if it was asked for.
    pub fn report(&self, bench: &Bench<'_>) {
        if !bench.wants(self.name) {
            return;
        }
        let ratio = if self.peer_value > 0.0 {
            self.value / self.peer_value
        } else {
            0.0
        };
        report::result(
            "bench",
            json!({
                "name": self.name,
                "offload": self.offload,
                "value": rounded(self.value, 1),
                "unit": self.unit,
                "peer": self.peer,
                "peer_value": rounded(self.peer_value, 1),
                "ratio": rounded(ratio, 3),
            }),
        );
    }
}

/// Figures repeat to three digits; more would only look exact.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
