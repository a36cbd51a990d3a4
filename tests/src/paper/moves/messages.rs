// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What each message flow of the paper's Table I takes of the key managers' processors, initiator and responder.
//!
//! A value is the time that a key manager's threads have run, as the scheduler counts it: system calls are in it, and what
//! comes after the answer was sent; waiting isn't. What can't be had alone is a difference: of a distribution, between
//! rekeyings with and without a foreign agent; of a neighbour notification, between IKE SAs with and without neighbours; of
//! DKM, between handoffs with and without it, until the registration's reply comes, where nothing but keys follows the host;
//! of a handover, between DKM with and without. The commands that set flows off come by the control socket and are in the
//! first two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::ground::Ground;
use super::{radio, seen, wait, FORGOTTEN, REST};
use crate::bench::ran;
use crate::keyd::Keyd;
use crate::module::{self, Modules};
use crate::paper::run::{Keys, Links};
use crate::report;
use crate::scenario::{Ctx, MODULE};
use crate::topology::{Shape, Topology, HA, MH};
use crate::{traffic, tunnel, zone_tunnel};

/// Everything that one step sets off has come to rest by then, and what daemons do by themselves every few seconds is seldom in
/// it.
const STEP: Duration = Duration::from_millis(200);
/// Daemons that have started have nothing to do any more by then.
const START: Duration = Duration::from_secs(4);
/// How often processor time is looked at during a handoff.
const LOOK: Duration = Duration::from_millis(1);
/// Round trips in milliseconds: the previous foreign agent has answered long before the home agent.
const LINKS: Links = Links {
    home_ms: 20.0,
    agents_ms: 8.0,
};
const SUITE: &str = "auth = \"psk\"\nike = [\"aes256-gcm16/sha256/x25519\"]\n";

/// Processor time of several daemons over one step, in microseconds.
type Times = Vec<f64>;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 if middle > 0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values.get(middle).copied().unwrap_or_default(),
    }
}

/// Of several steps, each daemon's median.
fn medians(steps: &[Times]) -> Times {
    let daemons = steps.first().map_or(0, Vec::len);
    (0..daemons)
        .map(|at| {
            median(
                steps
                    .iter()
                    .filter_map(|step| step.get(at))
                    .copied()
                    .collect(),
            )
        })
        .collect()
}

/// What `step` makes the processes run, each.
fn steps(
    pids: &[u32],
    times: u32,
    mut step: impl FnMut() -> Result<()>,
    mut after: impl FnMut() -> Result<()>,
) -> Result<Times> {
    let all = || {
        pids.iter()
            .map(|pid| ran(*pid))
            .collect::<Result<Vec<u64>>>()
    };
    let mut taken = Vec::new();
    for turn in 0..=times {
        let before = all()?;
        step()?;
        std::thread::sleep(STEP);
        let after_it = all()?;
        // The first is for caches and first allocations.
        if turn > 0 {
            let each = after_it.iter().zip(&before);
            taken.push(
                each.map(|(after, before)| (after - before) as f64 / 1000.0)
                    .collect(),
            );
        }
        after()?;
        std::thread::sleep(STEP);
    }
    Ok(medians(&taken))
}

fn node(role: &str, name: &str, address: &str) -> String {
    format!(
        "[node]\nrole = \"{role}\"\nidentity = \"{name}.example\"\naddresses = [\"{address}\"]\n"
    )
}

fn peer(name: &str, remote: &str, more: &str) -> String {
    format!("\n[[connection]]\nname = \"{name}\"\nremote = \"{remote}\"\nremote-identity = \"{name}.example\"\nsecret-file = \"ike.psk\"\n{SUITE}{more}")
}

fn foreign_agent(number: u8) -> String {
    format!("\n[[foreign-agent]]\nname = \"fa{number}\"\nidentity = \"fa{number}.example\"\naddresses = [\"10.1.{number}.1\"]\n")
}

fn fa_file(number: u8, more: &str) -> String {
    let own = format!("10.1.{number}.1");
    let name = format!("fa{number}");
    let home = "\n[[home-agent]]\nidentity = \"ha.example\"\nprefixes = [\"203.0.113.0/24\"]\nhosts = [\"203.0.113.7\"]\n";
    let home = format!("{home}standby = true\n");
    [
        node("fa", &name, &own),
        home,
        more.to_owned(),
        peer("ha", &HA.to_string(), "start = \"peer\"\n"),
    ]
    .concat()
}

/// An IKE SA between home agent and foreign agent, without a child: the home agent's processor time and the foreign
/// agent's. With a neighbour, the foreign agent tells of it.
fn agents(times: u32, neighbour: bool) -> Result<Times> {
    let net = Topology::up(Shape::Full)?;
    let files = [("ike.psk", psk())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let ha = [
        node("ha", "ha", &HA.to_string()),
        foreign_agent(1),
        foreign_agent(2),
        peer("fa1", "10.1.1.1", "start = \"peer\"\n"),
    ]
    .concat();
    let other = if neighbour {
        "\n[[neighbour]]\nidentity = \"fa2.example\"\naddresses = [\"10.1.2.1\"]\n"
    } else {
        ""
    };
    let home = Keyd::with_files(&net.ha, &ha, &files)?;
    let agent = Keyd::with_files(&net.fa1, &fa_file(1, other), &files)?;
    std::thread::sleep(START);
    let tell = |words: &[&str]| home.tell(words).map(|_| ());
    steps(
        &[home.pid()?, agent.pid()?],
        times,
        || tell(&["initiate", "fa1", "--wait", "20"]),
        || tell(&["delete", "fa1"]),
    )
    .with_context(|| format!("{}\n{}", home.log(), agent.log()))
}

/// A CSA's rekeying by the mobile host: processor time of mobile host, home agent, and the foreign agents that it is given
/// to.
fn rekeying(times: u32, agents: u8) -> Result<Times> {
    let net = Topology::up(Shape::Full)?;
    zone_tunnel::devices(&net)?;
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    let files = [("ike.psk", psk())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let relays = match agents {
        0 => "",
        1 => "relay = \"fa1\"\n",
        _ => "relay = \"fa1\"\nstandby = [\"fa2\"]\n",
    };
    let mut ha = node("ha", "ha", &HA.to_string());
    for number in 1..=agents {
        ha += &foreign_agent(number);
    }
    for number in 1..=agents {
        ha += &peer(&format!("fa{number}"), &format!("10.1.{number}.1"), "");
    }
    ha += &peer("mh", &MH.to_string(), "start = \"peer\"\n");
    ha += &format!("[connection.tunnel]\nremote = \"203.0.113.7\"\nzones = \"required\"\n{relays}");
    let mh = [
        node("mh", "mh", &MH.to_string()),
        peer("ha", &HA.to_string(), "start = \"peer\"\n"),
        "[connection.tunnel]\nlocal = \"203.0.113.7\"\nzones = \"required\"\n".to_owned(),
    ]
    .concat();
    let second = net.fa2.as_ref().context("no second foreign agent")?;
    let home = Keyd::with_files(&net.ha, &ha, &files)?;
    let foreign = [(&net.fa1, 1), (second, 2)]
        .into_iter()
        .take(agents.into())
        .map(|(at, number)| Keyd::with_files(at, &fa_file(number, ""), &files))
        .collect::<Result<Vec<_>>>()?;
    let mobile = Keyd::with_files(&net.mh, &mh, &files)?;
    std::thread::sleep(START);
    let mut pids = vec![mobile.pid()?, home.pid()?];
    for agent in &foreign {
        pids.push(agent.pid()?);
    }
    let tell = |words: &[&str]| mobile.tell(words).map(|_| ());
    let measured = || {
        tell(&["initiate", "ha", "--wait", "20"])?;
        std::thread::sleep(STEP);
        let before = mobile.tell(&["sa", "list"])?;
        // What was replaced is taken away after a while, and isn't in it.
        let forgotten = || {
            std::thread::sleep(FORGOTTEN);
            Ok(())
        };
        let taken = steps(&pids, times, || tell(&["rekey", "ha"]), forgotten)?;
        ensure!(
            mobile.tell(&["sa", "list"])? != before,
            "nothing was rekeyed"
        );
        Ok(taken)
    };
    let taken: Result<Times> = measured();
    taken.with_context(|| {
        let agents: Vec<String> = foreign.iter().map(Keyd::log).collect();
        format!("{}\n{}\n{}", home.log(), mobile.log(), agents.join("\n"))
    })
}

fn psk() -> String {
    tunnel::hex(&traffic::random(32)) + "\n"
}

/// What both foreign agents, the new one first, run in a handoff until the home agent's reply comes to the new one. `packets`:
/// they follow the host, too.
fn handoffs(modules: &Modules, keys: Keys, packets: bool, times: u32) -> Result<Times> {
    let ctx = Ctx::new(modules, 1.0)?;
    let measured = || {
        let mut ground = match packets {
            true => Ground::lay(&ctx, keys, LINKS)?,
            false => Ground::lay_for_keys_alone(&ctx, keys, LINKS)?,
        };
        let all = followed(&mut ground, times);
        all.with_context(|| ground.nodes.logs())
    };
    let taken: Result<Vec<Times>> = measured();
    Ok(medians(&taken?))
}

fn followed(ground: &mut Ground<'_>, times: u32) -> Result<Vec<Times>> {
    super::initialisation(ground)?;
    let mut taken = Vec::new();
    for turn in 0..times + 2 {
        report::step(format!("handoff {turn} of {times}, followed"));
        std::thread::sleep(REST);
        let captures = ground.captures()?;
        let left = ground.here().link;
        ground.turn();
        let [new, old] = ground.agents();
        let pids = [new.pid()?, old.pid()?];
        let both = || Ok::<_, anyhow::Error>([ran(pids[0])?, ran(pids[1])?]);
        let since = ground.clock.now();
        let before = both()?;
        let over = AtomicBool::new(false);
        let clock = ground.clock;
        let samples = std::thread::scope(|scope| {
            let following = scope.spawn(|| -> Result<Vec<(i64, [u64; 2])>> {
                let mut samples = Vec::new();
                while !over.load(Ordering::Acquire) {
                    std::thread::sleep(LOOK);
                    samples.push((clock.now(), both()?));
                }
                Ok(samples)
            });
            let mh = &ground.net().mh;
            let moved = radio::set(mh, left, false)
                .and_then(|()| radio::set(mh, ground.here().link, true))
                .and_then(|()| wait(ground, since, |ground| ground.is_up(since)));
            over.store(true, Ordering::Release);
            let samples = following
                .join()
                .map_err(|_| anyhow::anyhow!("the follower panicked"))?;
            moved.and(samples)
        })?;
        std::thread::sleep(REST);
        let returned = seen(ground, captures, since)?.returned()?;
        let last = samples.iter().take_while(|(at, _)| *at < returned).last();
        let (_, ran) = last.context("nothing was sampled before the reply came")?;
        if turn >= 2 {
            let each = ran.iter().zip(&before);
            taken.push(
                each.map(|(after, before)| (after - before) as f64 / 1000.0)
                    .collect(),
            );
        }
    }
    ground.leaves()?;
    Ok(taken)
}

/// Measures Table I, each flow so many times.
pub fn measure(modules: &Modules, times: u32) -> Result<Value> {
    modules.load(MODULE)?;
    let step = |text: &str| report::step(format!("processing of messages: {text}"));
    step("IKE SA between agents");
    let isakmp = agents(times, false)?;
    step("the same with a neighbour to tell of");
    let neighbours = agents(times, true)?;
    step("CSA between mobile host and home agent");
    let create = rekeying(times, 0)?;
    step("the same, given to a foreign agent");
    let given = rekeying(times, 1)?;
    step("the same, given to another one beforehand");
    let beforehand = rekeying(times, 2)?;
    step("handoffs");
    let late = handoffs(modules, Keys::Late, false, times)?;
    let dkm = handoffs(modules, Keys::Dkm, false, times)?;
    let handover = handoffs(modules, Keys::Dkm, true, times)?;
    module::unload(MODULE, Duration::from_secs(20))?;
    let row = |flow: &str, initiator: f64, responder: f64| json!({ "flow": flow, "initiator_us": initiator, "responder_us": responder });
    let of = |times: &Times, at: usize| times.get(at).copied().unwrap_or(f64::NAN);
    Ok(json!({ "rows": [
        row("isakmp", of(&isakmp, 0), of(&isakmp, 1)),
        row("create", of(&create, 0), of(&create, 1)),
        row("distribution", of(&given, 1) - of(&create, 1), of(&given, 2)),
        row("pkd", of(&beforehand, 1) - of(&given, 1), of(&beforehand, 3)),
        row("dkm", of(&dkm, 0) - of(&late, 0), of(&dkm, 1) - of(&late, 1)),
        row("handover", of(&handover, 0) - of(&dkm, 0), of(&handover, 1) - of(&dkm, 1)),
        row("neighbours", of(&neighbours, 1) - of(&isakmp, 1), of(&neighbours, 0) - of(&isakmp, 0)),
    ]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_each_daemon() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let steps = [vec![1.0, 9.0], vec![2.0, 8.0], vec![9.0, 1.0]];
        assert_eq!(medians(&steps), [2.0, 8.0]);
    }
}
