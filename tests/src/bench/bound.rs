// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The bound: the goodput two-zone ESP would have if all it did beyond forwarding were its AEAD calls.
//!
//! Instructions a segment: those of plain forwarding, in segments as large as the tunnel's and with offloads off from
//! the sealing point on (where they are on, the correspondent's super-packets come as far as the home agent, and from
//! there the wire carries segments); and those of the bare AEAD calls. A data segment is sealed in two zones at the home
//! agent, its zone 1 opened by the relay, both zones by the mobile host; so is every acknowledgement, and there is one
//! for two segments.

use anyhow::Result;
use serde_json::json;

use super::cipher::Bare;
use super::goodput::{self, Flow};
use super::way::{self, Way};
use super::Bench;
use crate::report;

/// IPv4 header, TCP header with the time stamp option: zone 1 of a segment (`docs/wire.md` §1).
const ZONE_1: usize = 52;
/// The checksum moved into zone 2, the trailer's pad length and next header.
const ZONE_2: usize = 2 + 2;

/// The goodput nobody can pass, in Mb/s, in segments of the given flow's size.
pub fn rate(bench: &Bench<'_>, bare: &Bare, on: bool, sealed: Flow) -> Result<f64> {
    let plain = Way::Plain.laid(bench, |net| {
        way::offloads(net, false)?;
        if on {
            way::offload(&net.cn, "ha", true)?;
            way::offload(&net.ha, "cn", true)?;
        }
        goodput::flow(net, bench.seconds, Some(sealed.segment))
    })?;
    let bits = plain.segment * 8.0;
    // Mb/s are bits a microsecond.
    let forwarding = bits / plain.rate * 1000.0;
    let data = calls(bare, plain.segment as usize)?;
    let acknowledgement = calls(bare, 0)?;
    let ciphers = data + acknowledgement / 2.0;
    let bound = bits / (forwarding + ciphers) * 1000.0;
    report::result(
        "bound",
        json!({
            "offload": if on { "on" } else { "off" },
            "segment": plain.segment,
            "forwarding": forwarding.round(),
            "aead": ciphers.round(),
            "used": (sealed.segment * 8.0 / sealed.rate * 1000.0).round(),
            "rate": (bound * 10.0).round() / 10.0,
        }),
    );
    Ok(bound)
}

/// Instructions of all AEAD calls for one packet with so many octets of payload.
fn calls(bare: &Bare, payload: usize) -> Result<f64> {
    let zone_2 = payload + ZONE_2;
    // Both at the origin; zone 1 at relay and terminus, zone 2 at the terminus.
    Ok(bare.seal.of(ZONE_1)?
        + bare.seal.of(zone_2)?
        + 2.0 * bare.open.of(ZONE_1)?
        + bare.open.of(zone_2)?)
}
