// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What key management costs: set-ups, rekeyings and distributions by keyd on real nodes, beside the same between two of
//! strongSwan's charon.
//!
//! A value is the time that the daemons' threads have run, as the scheduler counts it (`/proc/PID/task/*/schedstat`): the
//! system calls are in it, and what it takes to be told by the control socket; waiting isn't. The mean of several.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::row::Row;
use super::Bench;
use crate::charon::Charon;
use crate::netns::Netns;
use crate::report;
use crate::scenario::Ctx;
use crate::scenarios::keyd::Keyd;
use crate::topology::{Shape, Topology, HA, MH};
use crate::{traffic, tunnel, zone_tunnel};

/// How many of each are measured.
const TIMES: u32 = 20;
/// Everything that one step sets off has come to rest by then, and what daemons do by themselves every few seconds is seldom
/// in it; virtual time costs nothing while nobody works.
pub(super) const REST: Duration = Duration::from_millis(200);
/// Daemons that have started have nothing to do any more by then.
const START: Duration = Duration::from_secs(3);
/// What was replaced has been taken away everywhere by then: at the ends after ten seconds, at a foreign agent after fifteen.
pub(super) const REMOVAL: Duration = Duration::from_secs(16);

/// What a set-up may take, both sides together, what zones may add to it, and what a distribution may take, in
/// microseconds.
const SET_UP_LIMIT: f64 = 2000.0;
const ZONES_LIMIT: f64 = 100.0;
const DISTRIBUTE_LIMIT: f64 = 300.0;

/// Processor time of two daemons over one step, in microseconds.
#[derive(Clone, Copy, Default)]
struct Cost {
    initiator: f64,
    responder: f64,
    /// The foreign agent, where there is one.
    third: f64,
}

impl Cost {
    fn both(self) -> f64 {
        self.initiator + self.responder
    }

    fn all(self) -> f64 {
        self.both() + self.third
    }
}

/// What is measured of a pair.
#[derive(Clone, Copy, Default)]
struct Costs {
    set_up: Cost,
    rekey_child: Cost,
    /// What taking the replaced child away costs, later.
    removal: Cost,
    rekey_ike: Cost,
}

/// Nanoseconds that all threads of a process have run.
pub fn ran(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        // Time on a processor, time waited for one, time slices (Documentation/scheduler/sched-stats.rst).
        let ran: Option<u64> = text.split(' ').next().and_then(|first| first.parse().ok());
        sum += ran.with_context(|| format!("schedstat is {text:?}"))?;
    }
    Ok(sum)
}

/// What `step` makes the processes run, initiator first, each in microseconds.
fn cost(
    pids: &[u32],
    mut step: impl FnMut() -> Result<()>,
    mut after: impl FnMut() -> Result<()>,
) -> Result<Cost> {
    let mut sums = vec![0u64; pids.len()];
    for turn in 0..=TIMES {
        let before = pids
            .iter()
            .map(|pid| ran(*pid))
            .collect::<Result<Vec<u64>>>()?;
        step()?;
        std::thread::sleep(REST);
        for ((sum, pid), before) in sums.iter_mut().zip(pids).zip(before) {
            let ran = ran(*pid)?.saturating_sub(before);
            // The first is for caches and first allocations.
            if turn > 0 {
                *sum += ran;
            }
        }
        after()?;
        std::thread::sleep(REST);
    }
    let each = |at: usize| {
        sums.get(at)
            .map_or(0.0, |sum| *sum as f64 / f64::from(TIMES) / 1000.0)
    };
    Ok(Cost {
        initiator: each(0),
        responder: each(1),
        third: each(2),
    })
}

/// The suite of all: AES-256-GCM, HMAC-SHA-256, X25519, a shared secret; no second key exchange for the first child.
const SUITE: &str = "ike = [\"aes256-gcm16/sha256/x25519\"]\n";

fn keyd_pair(net: &Topology, zones: &str, relay: bool) -> Result<Costs> {
    zone_tunnel::devices(net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    let [psk, fa_psk] = [(); 2].map(|()| tunnel::hex(&traffic::random(32)) + "\n");
    let node = |role: &str, address: &str| {
        format!("[node]\nrole = \"{role}\"\nidentity = \"{role}.example\"\naddresses = [\"{address}\"]\n")
    };
    let peer = |name: &str, more: &str| {
        format!("\n[[connection]]\nname = \"{name}\"\nremote-identity = \"{name}.example\"\nauth = \"psk\"\n{SUITE}{more}")
    };
    let fa_at_ha = "\n[[foreign-agent]]\nname = \"fa\"\nidentity = \"fa.example\"\naddresses = [\"10.1.1.1\"]\n";
    let (agents, towards_fa, relayed) = if relay {
        (
            fa_at_ha,
            peer("fa", "remote = \"10.1.1.1\"\nsecret-file = \"fa.psk\"\n"),
            "relay = \"fa\"\n",
        )
    } else {
        ("", String::new(), "")
    };
    let ha = format!(
        "{}{agents}{towards_fa}{}[connection.tunnel]\nremote = \"203.0.113.7\"\n{relayed}",
        node("ha", &HA.to_string()),
        peer("mh", "secret-file = \"mh.psk\"\n"),
    );
    let mh = format!(
        "{}{}[connection.tunnel]\nlocal = \"203.0.113.7\"\n{zones}",
        node("mh", &MH.to_string()),
        peer(
            "ha",
            &format!("remote = \"{HA}\"\nsecret-file = \"mh.psk\"\nstart = \"peer\"\n")
        ),
    );
    let fa = format!(
        "{}\n[[home-agent]]\nidentity = \"ha.example\"\nprefixes = [\"203.0.113.0/24\"]\nhosts = [\"203.0.113.7\"]\n{}",
        node("fa", "10.1.1.1"),
        peer("ha", &format!("remote = \"{HA}\"\nsecret-file = \"fa.psk\"\nstart = \"peer\"\n")),
    );
    let files: &[(&str, &str)] = &[("mh.psk", &psk), ("fa.psk", &fa_psk)];
    let home = Keyd::with_files(&net.ha, &ha, files)?;
    let agent = relay
        .then(|| Keyd::with_files(&net.fa1, &fa, files))
        .transpose()?;
    let mobile = Keyd::with_files(&net.mh, &mh, files)?;
    std::thread::sleep(START);
    let mut pids = vec![mobile.pid()?, home.pid()?];
    if let Some(agent) = &agent {
        pids.push(agent.pid()?);
    }
    let tell = |words: &[&str]| mobile.tell(words).map(|_| ());
    let set_up = cost(
        &pids,
        || tell(&["initiate", "ha", "--wait", "20"]),
        || tell(&["delete", "ha"]),
    )?;
    tell(&["initiate", "ha", "--wait", "20"])?;
    let spis = || mobile.tell(&["sa", "list"]);
    let mut seen = spis()?;
    let rest = || {
        std::thread::sleep(REMOVAL);
        Ok(())
    };
    let rekey_child = cost(&pids, || tell(&["rekey", "ha"]), rest)?;
    ensure!(spis()? != seen, "no child was rekeyed");
    let removal = cost(&pids, rest, || tell(&["rekey", "ha"]))?;
    seen = spis()?;
    let rekey_ike = cost(&pids, || tell(&["rekey", "ha", "--ike"]), || Ok(()))?;
    ensure!(spis()? != seen, "no IKE SA was rekeyed");
    Ok(Costs {
        set_up,
        rekey_child,
        removal,
        rekey_ike,
    })
}

fn charon<'a>(
    ctx: &Ctx,
    node: &'a Netns,
    (own, peer): (&str, &str),
    (local, remote): (&str, &str),
    secret: &str,
) -> Result<Charon<'a>> {
    // Logs nothing but what it must: keyd's says as little.
    let charon = Charon::quiet(ctx, node)?;
    let name = node.name();
    let other = if name == "mh" { "ha" } else { "mh" };
    charon.load(&format!(
        "connections {{
    peer {{
        version = 2
        local_addrs = {own}
        remote_addrs = {peer}
        proposals = aes256gcm16-prfsha256-x25519
        local {{
            auth = psk
            id = {name}.example
        }}
        remote {{
            auth = psk
            id = {other}.example
        }}
        children {{
            net {{
                local_ts = {local}
                remote_ts = {remote}
                esp_proposals = aes256gcm16-x25519-esn
            }}
        }}
    }}
}}
secrets {{
    ike-peer {{
        id-own = {name}.example
        id-peer = {other}.example
        secret = {secret}
    }}
}}
"
    ))?;
    Ok(charon)
}

fn charon_pair(ctx: &Ctx, net: &Topology) -> Result<Costs> {
    let secret = format!("0x{}", tunnel::hex(&traffic::random(32)));
    let (ha, mh) = (HA.to_string(), MH.to_string());
    let (home, any) = ("203.0.113.7/32", "0.0.0.0/0");
    let responder = charon(ctx, &net.ha, (&ha, &mh), (any, home), &secret)?;
    let initiator = charon(ctx, &net.mh, (&mh, &ha), (home, any), &secret)?;
    std::thread::sleep(START);
    let pids = [initiator.pid()?, responder.pid()?];
    let tell = |words: &[&str]| initiator.swanctl(words).map(|_| ());
    let set_up = cost(
        &pids,
        || tell(&["--initiate", "--child", "net", "--timeout", "20"]),
        || tell(&["--terminate", "--ike", "peer"]),
    )?;
    tell(&["--initiate", "--child", "net", "--timeout", "20"])?;
    let rest = || {
        std::thread::sleep(REMOVAL);
        Ok(())
    };
    let rekey = || tell(&["--rekey", "--child", "net"]);
    let rekey_child = cost(&pids, rekey, rest)?;
    let removal = cost(&pids, rest, rekey)?;
    let rekey_ike = cost(&pids, || tell(&["--rekey", "--ike", "peer"]), || Ok(()))?;
    Ok(Costs {
        set_up,
        rekey_child,
        removal,
        rekey_ike,
    })
}

/// Measures all pairs, each on nodes of its own.
pub fn run(bench: &Bench<'_>) -> Result<()> {
    let keyd = |zones: &str, relay: bool| {
        bench
            .with_module(|| keyd_pair(&Topology::up(Shape::Chain)?, zones, relay))
            .with_context(|| format!("keyd, {zones:?}, relay: {relay}"))
    };
    let plain = keyd("zones = \"off\"\n", false)?;
    let zones = keyd("", false)?;
    let relayed = keyd("", true)?;
    let swan = {
        let net = Topology::up(Shape::Chain)?;
        let ctx = Ctx {
            net,
            modules: bench.modules,
            patience: 1.0,
            handoffs: None,
            virtual_time: true,
        };
        charon_pair(&ctx, &ctx.net).context("charon")?
    };
    let row = |name: &str, value: f64, unit: &str, peer: &str, peer_value: f64| {
        Row::plain(name, (value, unit), (peer, peer_value)).report(bench);
    };
    row(
        "ike-set-up",
        plain.set_up.both(),
        "µs",
        "strongswan",
        swan.set_up.both(),
    );
    row(
        "ike-set-up-responder",
        plain.set_up.responder,
        "µs",
        "strongswan",
        swan.set_up.responder,
    );
    let a_second = |cost: f64| 1e6 / cost;
    row(
        "ike-set-ups-a-second",
        a_second(plain.set_up.both()),
        "1/s",
        "strongswan",
        a_second(swan.set_up.both()),
    );
    row(
        "ike-set-up-zones",
        zones.set_up.both(),
        "µs",
        "keyd-plain",
        plain.set_up.both(),
    );
    row(
        "ike-set-up-relayed",
        relayed.set_up.all(),
        "µs",
        "keyd-zones",
        zones.set_up.all(),
    );
    row(
        "ike-rekey-child",
        plain.rekey_child.both(),
        "µs",
        "strongswan",
        swan.rekey_child.both(),
    );
    row(
        "ike-rekey-child-zones",
        zones.rekey_child.both(),
        "µs",
        "keyd-plain",
        plain.rekey_child.both(),
    );
    row(
        "ike-rekey-child-relayed",
        relayed.rekey_child.all(),
        "µs",
        "keyd-zones",
        zones.rekey_child.all(),
    );
    row(
        "ike-removal",
        plain.removal.both(),
        "µs",
        "strongswan",
        swan.removal.both(),
    );
    row(
        "ike-removal-zones",
        zones.removal.both(),
        "µs",
        "keyd-plain",
        plain.removal.both(),
    );
    row(
        "ike-removal-relayed",
        relayed.removal.all(),
        "µs",
        "keyd-zones",
        zones.removal.all(),
    );
    row(
        "ike-rekey-ike",
        plain.rekey_ike.both(),
        "µs",
        "strongswan",
        swan.rekey_ike.both(),
    );
    let distribute = relayed.rekey_child.all() - zones.rekey_child.all();
    report::step(format!(
        "CSA_DISTRIBUTE and its answer, both sides: {distribute:.0} µs"
    ));
    row(
        "ike-distribute",
        distribute,
        "µs",
        "keyd-zones",
        zones.rekey_child.all(),
    );
    super::check(
        "a set-up takes at most 2 ms of processing, both sides together",
        zones.set_up.both() <= SET_UP_LIMIT,
    );
    super::check(
        "zones add at most 0.1 ms to it",
        zones.set_up.both() - plain.set_up.both() <= ZONES_LIMIT,
    );
    super::check(
        "a distribution takes at most 0.3 ms, both sides together",
        distribute <= DISTRIBUTE_LIMIT,
    );
    super::check(
        "set-ups a second are at least twice charon's",
        swan.set_up.both() >= 2.0 * plain.set_up.both(),
    );
    Ok(())
}
