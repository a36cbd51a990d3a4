// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who could read what: the demo's checks, from its captures, the foreign agent's counters and its key.

use anyhow::{Context, Result};

use super::transfer::{sealed, shows_inner_header, Config, Transfer};
use crate::capture::Captured;
use crate::headers::{self, Ip};
use crate::stats;
use crate::topology::{HOME, MH};
use crate::zone_esp::Sealed;

/// One line of the demo's table.
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What was counted.
    pub detail: String,
}

fn check(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        ok,
        detail: detail.into(),
    }
}

/// The links behind the home agent.
fn behind(transfer: &Transfer) -> &[Captured] {
    transfer.links.get(1..).unwrap_or_default()
}

/// All checks on one transfer.
pub fn checks(transfer: &Transfer, marker: &[u8]) -> Result<Vec<Check>> {
    let config = transfer.config.name();
    let mut checks = Vec::new();
    let held = |link: &Captured| {
        format!(
            "{} of {} packets on {} hold payload",
            link.holding(marker),
            link.packets.len(),
            link.name
        )
    };
    for link in &transfer.links {
        let shown = link.holding(marker) > 0;
        let in_clear = transfer.config == Config::Plain || link.name == "cn-ha";
        let verdict = if in_clear {
            "anyone reads payload and headers"
        } else {
            "nobody reads payload or headers without a key"
        };
        let headers = shows_inner_header(link);
        checks.push(check(
            format!("{config}: on {} {verdict}", link.name),
            shown == in_clear && headers == in_clear,
            held(link),
        ));
    }
    let fragments = transfer
        .links
        .iter()
        .flat_map(Captured::headers)
        .filter(|ip| ip.is_fragment())
        .count();
    let biggest = format!(
        "{fragments} fragments; full packets of {} octets inside, {} outside",
        transfer.inner, transfer.outer
    );
    checks.push(check(
        format!("{config}: the MSS fits, nothing is fragmented"),
        fragments == 0 && transfer.outer <= 1500 && transfer.inner > 1300,
        biggest,
    ));
    if transfer.config == Config::TwoZoneEsp {
        two_zones(transfer, marker, &mut checks)?;
    }
    Ok(checks)
}

/// What each zone shows to whom.
fn two_zones(transfer: &Transfer, marker: &[u8], checks: &mut Vec<Check>) -> Result<()> {
    let keys = transfer.keys.as_ref().context("no keys")?;
    let link = transfer.links.get(2).context("no capture of core–fa1")?;
    let (mut packets, mut headers_read, mut payload_in_zone1, mut zone2_by_key1, mut read_by_ends) =
        (0, 0, 0, 0, 0);
    for packet in &link.packets {
        let (Some(outer), Some(esp)) = (packet.header(), packet.esp()) else {
            continue;
        };
        packets += 1;
        let sa = if outer.destination == MH {
            &keys.to_mh
        } else {
            &keys.from_mh
        };
        let sealed = Sealed::parse(esp)?;
        let Some(zone1) = sealed.open_zone1(&sa.zones[0])? else {
            continue;
        };
        let Some(inner) = Ip::parse(&zone1) else {
            continue;
        };
        let readable = inner.protocol == headers::TCP
            && inner.ports().is_some_and(|(a, b)| a == 80 || b == 80)
            && [inner.source, inner.destination].contains(&HOME);
        headers_read += usize::from(readable);
        payload_in_zone1 +=
            usize::from(inner.data() != Some(&[]) || inner.payload.get(16..18) != Some(&[0, 0]));
        zone2_by_key1 += usize::from(sealed.open_zone2(sa, &sa.zones[0], &zone1)?.is_some());
        read_by_ends += usize::from(headers::find(&sealed.open(sa)?, marker));
    }
    let opened = transfer.agent.total("relayed-packets") as usize;
    let unopened: u64 = transfer
        .agent
        .namespace
        .iter()
        .filter(|(name, _)| stats::is_reason(name))
        .map(|(_, count)| count)
        .sum();
    // The counters are read after the capture ends, and the last acknowledgement may pass in between.
    checks.push(check(
        "two-zone-esp: the foreign agent opened the headers of every packet",
        opened >= packets && unopened == 0 && packets > 0,
        format!("{packets} packets in the capture; its counters: {opened} opened, {unopened} passed on unopened"),
    ));
    checks.push(check(
        "two-zone-esp: its key shows the TCP header of every packet, and no octet of payload or checksum",
        headers_read == packets && payload_in_zone1 == 0,
        format!("{headers_read} of {packets} headers read, {payload_in_zone1} with payload"),
    ));
    checks.push(check(
        "two-zone-esp: its key opens no zone 2",
        zone2_by_key1 == 0,
        format!("{zone2_by_key1} of {packets}"),
    ));
    checks.push(check(
        "two-zone-esp: the ends' keys open zone 2 to the file",
        read_by_ends > packets / 3,
        format!("{read_by_ends} of {packets} packets hold the file's marker"),
    ));
    let all_sealed = behind(transfer).iter().all(|link| {
        sealed(link) > 0
            && link
                .headers()
                .all(|ip| ip.source != HOME && ip.destination != HOME)
    });
    checks.push(check(
        "two-zone-esp: nothing of the mobile host's left its tunnel",
        all_sealed,
        "",
    ));
    Ok(())
}
