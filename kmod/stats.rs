// SPDX-License-Identifier: GPL-2.0-only

//! Statistics and settings, as native attributes (docs/wire.md §2).

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::prelude::*;
use kernel::sync::Arc;
use mml_core::snoop::{Counters, Settings};
use pfkey::{genl, Role};

use crate::counters::Reason;
use crate::ends::Outer;
use crate::namespace::Namespace;
use crate::netlink::{Dump, Fields, Request};
use crate::sadb::Csa;
use crate::snoop::{Told, FLOWS_MAX};

/// The names of what each role has carried.
const CARRIED: [(Role, [&str; 2]); 3] = [
    (Role::Origin, ["sealed-packets", "sealed-octets"]),
    (Role::Terminus, ["opened-packets", "opened-octets"]),
    (Role::Relay, ["relayed-packets", "relayed-octets"]),
];

/// The cursor once the namespace's own message is out; a CSA's is its number behind it.
const NAMESPACE_DONE: u64 = 1;

/// A setting: its name, the values it takes, and how it is read and written.
struct Setting {
    name: &'static str,
    range: RangeInclusive<u64>,
    get: fn(&Namespace) -> u64,
    set: fn(&Namespace, u64) -> Result,
}

/// SNOOP's settings for plain TCP are changed one at a time.
fn plain(ns: &Namespace, change: impl FnOnce(&mut Told)) -> Result {
    let mut told = ns.snoop.plain();
    change(&mut told);
    ns.snoop.set_plain(told);
    Ok(())
}

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// The longest time of SNOOP's, an hour, in milliseconds.
const HOUR: u64 = 3_600_000;
/// The longest time that packets are held, in milliseconds.
const HOLD_MAX: u64 = 10_000;

/// All of them. What holds for plain TCP and SNOOP holds for new flows.
const SETTINGS: &[Setting] = &[
    Setting {
        // docs/wire.md 2.1i.
        name: "mss-clamp",
        range: 0..=1,
        get: |ns| ns.settings.mss_clamp.load(Ordering::Relaxed).into(),
        set: |ns, value| {
            ns.settings.mss_clamp.store(value == 1, Ordering::Relaxed);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1j.
        name: "relay-drop-unopened",
        range: 0..=1,
        get: |ns| ns.settings.relay_drop.load(Ordering::Relaxed).into(),
        set: |ns, value| {
            ns.settings.relay_drop.store(value == 1, Ordering::Relaxed);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1m.
        name: "route-mark",
        range: 0..=u32::MAX as u64,
        get: |ns| ns.settings.mark.load(Ordering::Relaxed).into(),
        set: |ns, value| {
            ns.settings.mark.store(value as u32, Ordering::Relaxed);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1o.
        name: "snoop-window",
        range: 1..=Settings::WINDOW_MAX as u64,
        get: |ns| ns.snoop.plain().settings.window.into(),
        set: |ns, value| plain(ns, |told| told.settings.window = value as u16),
    },
    Setting {
        name: "snoop-threshold",
        range: 1..=u8::MAX as u64,
        get: |ns| ns.snoop.plain().settings.threshold.into(),
        set: |ns, value| plain(ns, |told| told.settings.threshold = value as u8),
    },
    Setting {
        name: "snoop-initial-ms",
        range: 1..=HOUR,
        get: |ns| ns.snoop.plain().settings.initial / MS,
        set: |ns, value| plain(ns, |told| told.settings.initial = value * MS),
    },
    Setting {
        name: "snoop-min-rto-ms",
        range: 1..=HOUR,
        get: |ns| ns.snoop.plain().settings.minimum / MS,
        set: |ns, value| plain(ns, |told| told.settings.minimum = value * MS),
    },
    Setting {
        name: "snoop-persist-ms",
        range: 1..=HOUR,
        get: |ns| ns.snoop.plain().settings.persist / MS,
        set: |ns, value| plain(ns, |told| told.settings.persist = value * MS),
    },
    Setting {
        name: "snoop-garbage-ms",
        range: 1..=HOUR,
        get: |ns| ns.snoop.plain().settings.garbage / MS,
        set: |ns, value| plain(ns, |told| told.settings.garbage = value * MS),
    },
    Setting {
        name: "snoop-bytes",
        range: 1..=u64::MAX,
        get: |ns| ns.snoop.plain().bytes,
        set: |ns, value| plain(ns, |told| told.bytes = value),
    },
    Setting {
        // docs/wire.md 2.1p.
        name: "snoop-flows",
        range: 1..=FLOWS_MAX as u64,
        get: |ns| ns.snoop.limit().into(),
        set: |ns, value| {
            ns.snoop.set_limit(value as u32);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1s.
        name: "hold-ms",
        range: 0..=HOLD_MAX,
        get: |ns| ns.hold.time_ms().into(),
        set: |ns, value| {
            ns.hold.set_time_ms(value as u32);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1t.
        name: "hold-bytes",
        range: 1..=u64::MAX,
        get: |ns| ns.hold.most(),
        set: |ns, value| {
            ns.hold.set_most(value);
            Ok(())
        },
    },
    Setting {
        // docs/wire.md 2.1k.
        name: "relay-window",
        range: 0..=(u16::MAX as u64) << 14,
        get: |ns| ns.clamp.limit().into(),
        set: |ns, value| ns.clamp.set_limit(value as u32),
    },
    Setting {
        // docs/wire.md 2.1l.
        name: "relay-window-interface",
        range: 0..=i32::MAX as u64,
        get: |ns| ns.clamp.interface().into(),
        set: |ns, value| ns.clamp.set_interface(value as u32),
    },
    // The last, so that what comes with it in one message holds already.
    Setting {
        // docs/wire.md 2.1n.
        name: "snoop-interface",
        range: 0..=i32::MAX as u64,
        get: |ns| ns.snoop.interface().into(),
        set: |ns, value| ns.snoop_interface(value as u32),
    },
];

fn find(name: &[u8]) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name.as_bytes() == name)
}

/// Gives the namespace's counters, all CSAs' together, then each CSA's; or SNOOP's flows, if the request says so
/// (docs/wire.md 2.1d).
pub(crate) fn dump(dump: &mut Dump<'_>) -> Result {
    if dump.attribute(genl::A_STATS_SCOPE) == Some(b"flow\0") {
        return flows(dump);
    }
    let ns = dump.ns;
    let config = ns.config.lock();
    if dump.cursor() == 0 {
        dump.message(genl::CMD_STATS, |fields| {
            fields.put(genl::A_STATS_SCOPE, b"namespace\0")?;
            carried_in_all(fields, &ns.gone, &config.csas)?;
            let gone = ns.gone_written.load(Ordering::Relaxed);
            let written = |sum: u64, csa: &Arc<Csa>| sum.saturating_add(csa.written());
            fields.counter(
                "",
                "rewritten-packets",
                config.csas.iter().fold(gone, written),
            )?;
            for reason in Reason::all() {
                let all = config
                    .csas
                    .iter()
                    .fold(ns.counters.get(reason), |sum, csa| {
                        sum.saturating_add(csa.counted(reason))
                    });
                fields.counter("", reason.name(), all)?;
            }
            fields.counter("", "csas", config.csas.len() as u64)?;
            fields.counter("", "policies", config.policies.len() as u64)?;
            ns.hold
                .totals(|name, value| fields.counter("", name, value))?;
            ns.snoop
                .totals(|name, value| fields.counter("snoop-", name, value))?;
            for setting in SETTINGS {
                // docs/wire.md 2.1h.
                fields.counter(genl::SETTING_PREFIX, setting.name, (setting.get)(ns))?;
            }
            Ok(())
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

/// docs/wire.md 2.1g.
fn one(fields: &mut Fields, csa: &Csa) -> Result {
    fields.put(genl::A_STATS_SCOPE, b"csa\0")?;
    fields.put(genl::A_SPI, &csa.spi.to_be_bytes())?;
    let outer = csa.ends.get().outer;
    fields.put(genl::A_SRC, outer.octets(&outer.src))?;
    fields.put(genl::A_DST, outer.octets(&outer.dst))?;
    fields.put(genl::A_ROLE, &[csa.role.number()])?;
    let (packets, octets, sequence) = csa.totals();
    for (_, [p, o]) in CARRIED.iter().filter(|(role, _)| *role == csa.role) {
        fields.counter("", p, packets)?;
        fields.counter("", o, octets)?;
    }
    if csa.role == Role::Relay {
        fields.counter("", "rewritten-packets", csa.written())?;
    }
    fields.counter("", "sequence", sequence)?;
    for reason in Reason::all() {
        let count = csa.counted(reason);
        if count != 0 {
            fields.counter("", reason.name(), count)?;
        }
    }
    Ok(())
}

/// Gives SNOOP's flows. The cursor is a place in their list, which moves while they come and go: one may be missed or
/// shown twice (docs/wire.md 2.1g).
fn flows(dump: &mut Dump<'_>) -> Result {
    let ns = dump.ns;
    loop {
        let cursor = dump.cursor();
        let Some(flow) = ns.snoop.at(cursor as usize) else {
            return Ok(());
        };
        dump.message(genl::CMD_STATS, |fields| {
            fields.put(genl::A_STATS_SCOPE, b"flow\0")?;
            let outer = flow.key.outer;
            if outer != Outer::NONE {
                fields.put(genl::A_SRC, outer.octets(&outer.src))?;
                fields.put(genl::A_DST, outer.octets(&outer.dst))?;
            }
            let ends = &flow.key.ends;
            let inner = Outer {
                family: ends.family,
                src: ends.src,
                dst: ends.dst,
            };
            fields.put(genl::A_INNER_SRC, inner.octets(&inner.src))?;
            fields.put(genl::A_INNER_DST, inner.octets(&inner.dst))?;
            fields.counter("", "source-port", ends.src_port.into())?;
            fields.counter("", "destination-port", ends.dst_port.into())?;
            fields.counter("", "segments-kept", flow.cached.into())?;
            fields.counter("", "answered", flow.confirmed.into())?;
            fields.counter("", "idle-ms", flow.idle_ms)?;
            for (name, value) in Counters::NAMES.iter().zip(flow.counters.values()) {
                fields.counter("", name, value)?;
            }
            Ok(())
        })?;
        dump.set_cursor(cursor + 1);
    }
}

/// Takes settings; an unknown one or a value out of range refuses the message before anything is changed
/// (docs/wire.md 2.1e, 2.1h).
pub(crate) fn set(request: &mut Request<'_>) -> Result {
    let check = request.pairs(|name, value| match find(name) {
        Some(setting) if setting.range.contains(&value) => Ok(()),
        Some(_) => Err(ERANGE),
        None => Err(ENOENT),
    });
    if let Err(e) = check {
        request.say(if e == ERANGE {
            c"VALUE: out of this setting's range (docs/mmlctl.md has them)"
        } else if e == ENOENT {
            c"NAME: no such setting (docs/mmlctl.md has them)"
        } else {
            c"COUNTER: wants a NAME and a VALUE"
        });
        return Err(if e == ENOENT { EINVAL } else { e });
    }
    let ns = request.ns;
    request.pairs(|name, value| find(name).map_or(Ok(()), |setting| (setting.set)(ns, value)))
}
