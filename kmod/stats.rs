// SPDX-License-Identifier: GPL-2.0-only

//! Statistics and settings, as native attributes (docs/wire.md §2).

use core::sync::atomic::{AtomicU64, Ordering};
use kernel::prelude::*;
use kernel::sync::Arc;
use pfkey::{genl, Role};

use crate::counters::Reason;
use crate::netlink::{Dump, Fields, Request};
use crate::sadb::Csa;

/// The names of what each role has carried.
const CARRIED: [(Role, [&str; 2]); 3] = [
    (Role::Origin, ["sealed-packets", "sealed-octets"]),
    (Role::Terminus, ["opened-packets", "opened-octets"]),
    (Role::Relay, ["relayed-packets", "relayed-octets"]),
];

/// The cursor once the namespace's own message is out; a CSA's is its number behind it.
const NAMESPACE_DONE: u64 = 1;

/// Gives the namespace's counters, all CSAs' together, then each CSA's.
pub(crate) fn dump(dump: &mut Dump<'_>) -> Result {
    let ns = dump.ns;
    let config = ns.config.lock();
    if dump.cursor() == 0 {
        dump.message(genl::CMD_STATS, |fields| {
            fields.put(genl::A_STATS_SCOPE, b"namespace\0")?;
            carried_in_all(fields, &ns.gone, &config.csas)?;
            for reason in Reason::all() {
                let all = config
                    .csas
                    .iter()
                    .fold(ns.counters.get(reason), |sum, csa| {
                        sum.saturating_add(csa.counters.get(reason))
                    });
                fields.counter("", reason.name(), all)?;
            }
            fields.counter("", "csas", config.csas.len() as u64)?;
            fields.counter("", "policies", config.policies.len() as u64)?;
            let settings = &ns.settings;
            fields.counter(
                genl::SETTING_PREFIX,
                "mss-clamp",
                settings.mss_clamp.load(Ordering::Relaxed).into(),
            )?;
            fields.counter(
                genl::SETTING_PREFIX,
                "relay-drop-unopened",
                settings.relay_drop.load(Ordering::Relaxed).into(),
            )?;
            fields.counter(
                genl::SETTING_PREFIX,
                "route-mark",
                settings.mark.load(Ordering::Relaxed).into(),
            )
        })?;
        dump.set_cursor(NAMESPACE_DONE);
    }
    let from = dump.cursor() - NAMESPACE_DONE;
    let start = config.csas.partition_point(|csa| csa.id <= from);
    for csa in config.csas.get(start..).unwrap_or(&[]) {
        dump.message(genl::CMD_STATS, |fields| one(fields, csa))?;
        dump.set_cursor(csa.id + NAMESPACE_DONE);
    }
    Ok(())
}

fn carried_in_all(fields: &mut Fields, gone: &[[AtomicU64; 2]; 3], csas: &[Arc<Csa>]) -> Result {
    for ((role, [packets, octets]), [p, o]) in CARRIED.iter().zip(gone) {
        let (mut all_packets, mut all_octets) =
            (p.load(Ordering::Relaxed), o.load(Ordering::Relaxed));
        for csa in csas.iter().filter(|csa| csa.role == *role) {
            let (packets, octets, _) = csa.totals();
            all_packets = all_packets.saturating_add(packets);
            all_octets = all_octets.saturating_add(octets);
        }
        fields.counter("", packets, all_packets)?;
        fields.counter("", octets, all_octets)?;
    }
    Ok(())
}

fn one(fields: &mut Fields, csa: &Csa) -> Result {
    fields.put(genl::A_STATS_SCOPE, b"csa\0")?;
    fields.put(genl::A_SPI, &csa.spi.to_be_bytes())?;
    fields.put(genl::A_SRC, &csa.src)?;
    fields.put(genl::A_DST, &csa.dst)?;
    fields.put(genl::A_ROLE, &[csa.role.number()])?;
    let (packets, octets, sequence) = csa.totals();
    for (_, [p, o]) in CARRIED.iter().filter(|(role, _)| *role == csa.role) {
        fields.counter("", p, packets)?;
        fields.counter("", o, octets)?;
    }
    fields.counter("", "sequence", sequence)?;
    for reason in Reason::all() {
        let count = csa.counters.get(reason);
        if count != 0 {
            fields.counter("", reason.name(), count)?;
        }
    }
    Ok(())
}

/// Takes settings; an unknown one or a value out of range refuses the message before anything is changed.
pub(crate) fn set(request: &mut Request<'_>) -> Result {
    let settings = &request.ns.settings;
    let check = request.pairs(|name, value| match name {
        b"mss-clamp" | b"relay-drop-unopened" if value <= 1 => Ok(()),
        b"route-mark" if u32::try_from(value).is_ok() => Ok(()),
        b"mss-clamp" | b"relay-drop-unopened" | b"route-mark" => Err(ERANGE),
        _ => Err(ENOENT),
    });
    if let Err(e) = check {
        request.say(if e == ERANGE {
            c"VALUE: out of this setting's range (mss-clamp and relay-drop-unopened: 0 or 1; route-mark: 32 bits)"
        } else if e == ENOENT {
            c"NAME: no such setting (there are mss-clamp, relay-drop-unopened, route-mark)"
        } else {
            c"COUNTER: wants a NAME and a VALUE"
        });
        return Err(if e == ENOENT { EINVAL } else { e });
    }
    request.pairs(|name, value| {
        match name {
            b"mss-clamp" => settings.mss_clamp.store(value == 1, Ordering::Relaxed),
            b"relay-drop-unopened" => settings.relay_drop.store(value == 1, Ordering::Relaxed),
            b"route-mark" => settings.mark.store(value as u32, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    })
}
