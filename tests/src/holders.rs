// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which node's kernel holds which zone's keys, as each says itself when a scenario is over: exactly those that the scenario
//! says it has to. Both zones' are at the two ends of a CSA, zone 1's alone at a foreign agent that was given them, and none
//! anywhere else; XFRM's at whom the scenario is about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::report;
use crate::topology::Topology;

/// Of what is held, so much is listed.
const LISTED: usize = 40;
/// Of what is wrong, so much is told.
const SHOWN: usize = 10;

/// What a node is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// No key.
    #[default]
    Nothing,
    /// Both zones' keys of each CSA that it ends.
    End,
    /// The same of a CSA that another node ends already: the scenario is about two nodes that have one.
    Twin,
    /// Zone 1's keys of each CSA that the ends have, and of no other.
    Relay,
    /// Zone 1's keys of CSAs that the ends have: what the scenario gave it by its own messages, and nobody else does.
    RelayOfSome,
    /// Zone 1's keys of others as well: the scenario is about a relay of whose CSAs no node is an end.
    LoneRelay,
}

/// What a scenario says of a node.
#[derive(Clone, Debug, Default)]
struct Expected {
    part: Part,
    /// The SPIs of what it is to hold, where the scenario knows.
    spis: Option<BTreeSet<u64>>,
    /// Whether XFRM has keys there: the kernel's own ESP is what the scenario is about.
    xfrm: bool,
    /// Whether a key manager gives it its CSAs, and not the scenario by its own messages.
    managed: bool,
    /// Whether the scenario took CSAs from it by its own messages, or gave some that end by themselves.
    taken: bool,
}

/// What a node's kernel is to hold in the end; the scenario may say otherwise at any time.
pub struct Account(Mutex<Expected>);

impl Account {
    /// Home agent and mobile host are ends, and nobody else has anything.
    pub fn of(name: &str) -> Self {
        let part = match name {
            "ha" | "mh" => Part::End,
            _ => Part::Nothing,
        };
        Self(Mutex::new(Expected {
            part,
            ..Expected::default()
        }))
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays this part from now on.
    pub fn are(&self, part: Part) {
        let mut expected = self.expected();
        (expected.part, expected.spis, expected.taken) = (part, None, false);
    }

    /// Likewise, with these CSAs and no other.
    pub fn are_of(&self, part: Part, spis: &[u64]) {
        self.are(part);
        self.expected().spis = Some(spis.iter().copied().collect());
    }

    /// The scenario itself gives it a relay's CSA.
    pub fn relays(&self) {
        let mut expected = self.expected();
        if expected.part == Part::Nothing {
            expected.part = Part::RelayOfSome;
        }
    }

    /// A key manager gives it its CSAs.
    pub fn are_managed(&self) {
        self.expected().managed = true;
    }

    /// The scenario itself takes CSAs away, and others needn't.
    pub fn are_taken(&self) {
        self.expected().taken = true;
    }

    /// It has none now, nor has any other node.
    pub fn are_gone(&self) {
        self.expected().taken = false;
    }

    /// XFRM has keys there.
    pub fn are_xfrms(&self, has: bool) {
        self.expected().xfrm = has;
    }
}

/// A direction of a CSA: its SPI and its outer destination.
type Direction = (u64, String);

/// One CSA, or one state of XFRM, that a kernel says it has.
#[derive(Debug, PartialEq, Eq)]
struct Holding {
    node: &'static str,
    direction: Direction,
    role: String,
    state: String,
    /// Zone by zone, whether it has the key.
    zones: Vec<bool>,
}

/// The role of what XFRM has, which doesn't say whether it seals or opens.
const XFRM: &str = "XFRM's";

impl Holding {
    fn is_end(&self) -> bool {
        self.role != "relay"
    }

    /// `fa1 relay of 0x1f to 10.1.1.7, zone 1's key, active`.
    fn text(&self) -> String {
        let zones = self.zones.iter().enumerate().filter(|(_, has)| **has);
        let zones: Vec<String> = zones.map(|(at, _)| (at + 1).to_string()).collect();
        let keys = match zones.as_slice() {
            _ if self.role == XFRM => "with keys".to_owned(),
            [] => "no key".to_owned(),
            zones => format!("keys of zone {}", zones.join(" and ")),
        };
        let Self { node, role, .. } = self;
        let (spi, destination) = &self.direction;
        format!(
            "{node} {role} {spi:#x} to {destination}: {keys}, {}",
            self.state
        )
    }
}

fn holdings(node: &'static str, list: &Value) -> Result<Vec<Holding>> {
    let all = list.as_array().context("no list of CSAs")?;
    let text =
        |value: &Value, what| Ok::<_, anyhow::Error>(value.as_str().context(what)?.to_owned());
    all.iter()
        .map(|csa| {
            let zones = csa["zones"].as_array().context("no zones")?;
            let destination = text(&csa["dst"], "no destination")?;
            // Where UDP is outside a NAT may be between, and a destination isn't the same to all.
            let destination = match csa["udp"].is_null() {
                true => destination,
                false => "whom UDP finds".to_owned(),
            };
            Ok(Holding {
                node,
                direction: (csa["spi"].as_u64().context("no SPI")?, destination),
                role: text(&csa["role"], "no role")?,
                state: text(&csa["state"], "no state")?,
                zones: zones.iter().map(|zone| zone != "null").collect(),
            })
        })
        .collect()
}

/// What `ip xfrm state list nokeys` says; a state that waits for its keys is none.
fn states(node: &'static str, text: &str) -> Result<Vec<Holding>> {
    let mut all = Vec::new();
    // Each begins at a line's beginning, and goes on in lines that are indented.
    let mut begun: Option<(String, Option<u64>)> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["src", _, "dst", destination, ..] if line.starts_with("src") => {
                begun = Some(((*destination).to_owned(), None));
            }
            ["proto", _, "spi", spi, ..] => {
                let (_, known) = begun.as_mut().context("a state without addresses")?;
                let digits = spi.trim_start_matches("0x");
                *known = Some(u64::from_str_radix(digits, 16).context("an SPI")?);
            }
            ["aead" | "enc" | "auth" | "auth-trunc", ..] => {
                let (destination, spi) = begun.as_ref().context("a key without a state")?;
                let direction = (spi.context("a key without an SPI")?, destination.clone());
                // Encryption and authentication are two keys of one state.
                if !all.iter().any(|one: &Holding| one.direction == direction) {
                    all.push(Holding {
                        node,
                        direction,
                        role: XFRM.to_owned(),
                        state: "active".to_owned(),
                        zones: Vec::new(),
                    });
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// All that a node's kernel holds.
fn held(node: &Netns) -> Result<Vec<Holding>> {
    let mut all = Vec::new();
    let list = node.attempt(&["mmlctl", "--json", "csa", "list"])?;
    if list.success {
        all.extend(holdings(node.name(), &serde_json::from_str(&list.stdout)?)?);
    } else {
        // A kernel without the module holds none.
        let module = ["busybox", "test", "-e", "/sys/module/mml/refcnt"];
        let is_there = node.attempt(&module)?.success;
        ensure!(!is_there, "{}{}", list.stdout, list.stderr);
    }
    let xfrm = node.run(&["ip", "xfrm", "state", "list", "nokeys"])?;
    all.extend(states(node.name(), &xfrm)?);
    Ok(all)
}

/// The nodes that are to be what they are, by name.
type Parts = BTreeMap<&'static str, Expected>;

/// What of that is not as it has to be.
fn judge(all: &[Holding], parts: &Parts) -> Vec<String> {
    let mut wrong = Vec::new();
    let nothing = Expected::default();
    let part = |one: &Holding| parts.get(one.node).unwrap_or(&nothing);
    // A larval CSA waits for its keys.
    let csas = all.iter().filter(|one| !one.zones.is_empty());
    let of_xfrm = all.iter().filter(|one| one.role == XFRM);
    for one in of_xfrm.filter(|one| !part(one).xfrm) {
        wrong.push(format!("not expected: {}", one.text()));
    }
    // By node, and for the ends by role: what it holds.
    let mut at_ends: BTreeMap<&Direction, Vec<(&str, &str)>> = BTreeMap::new();
    let mut at_relays: BTreeMap<&str, BTreeSet<&Direction>> = BTreeMap::new();
    for one in csas {
        let has = |due: &[bool]| one.zones.as_slice() == due;
        let right = match part(one).part {
            Part::Nothing => false,
            Part::End | Part::Twin => one.is_end() && has(&vec![true; one.zones.len()]),
            Part::Relay | Part::RelayOfSome | Part::LoneRelay => {
                let mut due = vec![false; one.zones.len()];
                due[0] = true;
                !one.is_end() && has(&due)
            }
        };
        let known = part(one).spis.as_ref();
        if !right || known.is_some_and(|spis| !spis.contains(&one.direction.0)) {
            wrong.push(format!("not expected: {}", one.text()));
        }
        if part(one).part == Part::Twin {
            continue;
        }
        if one.is_end() {
            let nodes = at_ends.entry(&one.direction).or_default();
            nodes.push((one.node, &one.role));
        } else {
            at_relays
                .entry(one.node)
                .or_default()
                .insert(&one.direction);
        }
    }
    // What a scenario gives and takes by its own messages it may give to one end alone, or take from one end.
    let managed = parts.values().any(|one| one.managed);
    let taken = parts.values().any(|one| one.part == Part::End && one.taken);
    for ((spi, destination), nodes) in &at_ends {
        let by = |role| nodes.iter().filter(|(_, has)| *has == role).count();
        let (origins, termini) = (by("origin"), by("terminus"));
        if origins > 1 || termini > 1 || (managed && !taken && (origins, termini) != (1, 1)) {
            wrong.push(format!(
                "{spi:#x} to {destination} has not one origin and one terminus: {nodes:?}"
            ));
        }
    }
    for (node, expected) in parts {
        let has = at_relays.remove(node).unwrap_or_default();
        let stale = has.iter().filter(|one| !at_ends.contains_key(*one));
        for (spi, destination) in stale {
            let may = expected.part == Part::RelayOfSome && taken;
            if !may && matches!(expected.part, Part::Relay | Part::RelayOfSome) {
                wrong.push(format!(
                    "{node} relays {spi:#x} to {destination}, which no end has"
                ));
            }
        }
        for (spi, destination) in at_ends.keys().filter(|one| !has.contains(*one)) {
            if expected.part == Part::Relay {
                wrong.push(format!(
                    "{node} doesn't relay {spi:#x} to {destination}, which the ends have"
                ));
            }
        }
        let here = all.iter().filter(|one| one.node == *node);
        let here: BTreeSet<u64> = here.map(|one| one.direction.0).collect();
        for spi in expected.spis.iter().flatten() {
            if !here.contains(spi) {
                wrong.push(format!("{node} doesn't hold {spi:#x}"));
            }
        }
    }
    wrong
}

/// What is to be held, node by node.
fn expectation(parts: &Parts) -> String {
    let one = |(node, expected): (&&str, &Expected)| {
        let what = match expected.part {
            Part::Nothing => "none",
            Part::End => "both zones' keys of its CSAs",
            Part::Twin => "both zones' keys of another's CSAs",
            Part::Relay => "zone 1's keys of each CSA that the ends have",
            Part::RelayOfSome => "zone 1's keys of CSAs that the ends have",
            Part::LoneRelay => "zone 1's keys alone",
        };
        let spis = expected.spis.iter().flatten();
        let spis: Vec<String> = spis.map(|spi| format!("{spi:#x}")).collect();
        let of = match spis.as_slice() {
            [] => String::new(),
            spis => format!(" ({})", spis.join(", ")),
        };
        let xfrm = if expected.xfrm { ", and XFRM's" } else { "" };
        format!("{node}: {what}{of}{xfrm}")
    };
    parts.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Looks at all nodes when a scenario is over, and tells the log who holds what: it has to be exactly what the scenario has
/// said. While key managers still run, what isn't so yet may become so for a while: what was replaced or revoked is let go
/// when its holder has heard of it.
pub fn look(net: &Topology, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    let parts: Parts = net
        .all()
        .into_iter()
        .map(|node| (node.name(), node.keys.expected().clone()))
        .collect();
    loop {
        let mut all = Vec::new();
        for node in net.all() {
            all.extend(held(node).with_context(|| node.name().to_owned())?);
        }
        let wrong = judge(&all, &parts);
        let may_change = net.all().into_iter().any(|node| node.left.runs());
        if !wrong.is_empty() && may_change && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        let mut lines: Vec<String> = all.iter().take(LISTED).map(Holding::text).collect();
        if all.len() > LISTED {
            lines.push(format!("and {} more", all.len() - LISTED));
        }
        if all.is_empty() {
            lines.push("none at any node".to_owned());
        }
        for line in &lines {
            report::step(format!("keys: {line}"));
        }
        ensure!(
            wrong.is_empty(),
            "the nodes' kernels don't hold exactly the keys they have to, {} times: {}\nfound:\n{}\nexpected:\n{}",
            wrong.len(),
            wrong
                .iter()
                .take(SHOWN)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("; "),
            lines.join("\n"),
            expectation(&parts)
        );
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BOTH: &[&str] = &["aes256-gcm16-iiv", "aes256-gcm16-iiv"];
    const FIRST: &[&str] = &["aes256-gcm16-iiv", "null"];

    fn csa(node: &'static str, role: &str, spi: u64, zones: &[&str]) -> Holding {
        let one = json!({ "spi": spi, "dst": "10.1.1.7", "role": role, "state": "active", "zones": zones });
        holdings(node, &json!([one])).unwrap().remove(0)
    }

    fn parts(others: &[(&'static str, Part)]) -> Parts {
        let all = ["cn", "ha", "core", "fa1", "fa2", "mh"];
        let mut parts: Parts = all
            .iter()
            .map(|name| (*name, Account::of(name).expected().clone()))
            .collect();
        for (name, part) in others {
            parts.get_mut(name).unwrap().part = *part;
        }
        parts
    }

    fn tunnel() -> Vec<Holding> {
        vec![
            csa("ha", "origin", 0x1000, BOTH),
            csa("mh", "terminus", 0x1000, BOTH),
        ]
    }

    fn with(one: Holding) -> Vec<Holding> {
        let mut all = tunnel();
        all.push(one);
        all
    }

    #[test]
    fn a_relay_holds_zone_1_of_what_the_ends_have_and_ends_hold_both() {
        let relays = parts(&[("fa1", Part::Relay)]);
        assert_eq!(judge(&tunnel(), &parts(&[])), [""; 0]);
        assert_eq!(
            judge(&with(csa("fa1", "relay", 0x1000, FIRST)), &relays),
            [""; 0]
        );
        let larval = with(csa("fa2", "terminus", 0x1000, &[]));
        assert_eq!(judge(&larval, &parts(&[])), [""; 0]);
        for (wrong, parts) in [
            // Nobody gave it any.
            (csa("fa1", "relay", 0x1000, FIRST), parts(&[])),
            (csa("fa2", "relay", 0x1000, FIRST), parts(&[])),
            (csa("core", "relay", 0x1000, FIRST), parts(&[])),
            // A second origin.
            (csa("mh", "origin", 0x1000, BOTH), parts(&[])),
        ] {
            assert_eq!(judge(&with(wrong), &parts).len(), 1);
        }
        // More than a relay's, and less than an end's.
        assert!(!judge(&with(csa("fa1", "relay", 0x1000, BOTH)), &relays).is_empty());
        assert!(!judge(&with(csa("fa1", "terminus", 0x1000, BOTH)), &relays).is_empty());
        assert!(!judge(&with(csa("ha", "relay", 0x1000, FIRST)), &parts(&[])).is_empty());
        let half = [
            csa("ha", "origin", 0x1000, FIRST),
            csa("mh", "terminus", 0x1000, BOTH),
        ];
        assert!(!judge(&half, &parts(&[])).is_empty());
    }

    #[test]
    fn what_is_lacking_or_of_another_csa_is_wrong() {
        let relays = parts(&[("fa1", Part::Relay)]);
        assert_eq!(judge(&tunnel(), &relays).len(), 1, "it doesn't relay");
        let stale = [csa("fa1", "relay", 0x2000, FIRST)];
        assert_eq!(judge(&stale, &relays).len(), 1, "no end has it");
        assert_eq!(judge(&stale, &parts(&[("fa1", Part::LoneRelay)])), [""; 0]);
        let twin = with(csa("cn", "terminus", 0x1000, BOTH));
        assert_eq!(judge(&twin, &parts(&[("cn", Part::End)])).len(), 1);
        assert_eq!(judge(&twin, &parts(&[("cn", Part::Twin)])), [""; 0]);
        let some = parts(&[("fa1", Part::RelayOfSome)]);
        assert_eq!(judge(&tunnel(), &some), [""; 0]);
        assert_eq!(judge(&stale, &some).len(), 1);
        // What no end has may be left where the scenario itself took it from an end.
        let mut by_hand = parts(&[("fa1", Part::RelayOfSome)]);
        by_hand.get_mut("mh").unwrap().taken = true;
        assert_eq!(judge(&stale, &by_hand), [""; 0]);
        by_hand.get_mut("fa1").unwrap().part = Part::Relay;
        assert_eq!(judge(&stale, &by_hand).len(), 1, "a key manager's is not");
        // Where key managers give keys, they give both ends their own.
        let lone = [csa("ha", "origin", 0x1000, BOTH)];
        let mut managed = parts(&[]);
        assert_eq!(judge(&lone, &managed), [""; 0]);
        managed.get_mut("ha").unwrap().managed = true;
        assert_eq!(judge(&lone, &managed).len(), 1, "nobody opens it");
        managed.get_mut("mh").unwrap().taken = true;
        assert_eq!(judge(&lone, &managed), [""; 0]);
        let mut known = parts(&[]);
        for node in ["ha", "mh"] {
            known.get_mut(node).unwrap().spis = Some([0x1000].into());
        }
        assert_eq!(judge(&tunnel(), &known), [""; 0]);
        assert_eq!(judge(&[], &known).len(), 2, "neither end has it");
        known.get_mut("ha").unwrap().spis = Some([0x3000].into());
        assert_eq!(
            judge(&tunnel(), &known).len(),
            2,
            "another, and not that one"
        );
    }

    #[test]
    fn states_of_xfrm_are_keys_too() {
        let text = "src 10.1.1.7 dst 198.51.100.1
\tproto esp spi 0xc0ffee01 reqid 1 mode tunnel
\treplay-window 0 flag af-unspec
\taead rfc4106(gcm(aes)) <<Keys hidden>> 128
src 198.51.100.1 dst 10.1.1.7
\tproto esp spi 0x00000000 reqid 1 mode tunnel
\treplay-window 0
src 10.1.1.1 dst 10.1.1.7
\tproto esp spi 0x10 reqid 1 mode tunnel
\tauth-trunc hmac(sha256) <<Keys hidden>> 128
\tenc cbc(aes) <<Keys hidden>>
";
        let all = states("ha", text).unwrap();
        let found: Vec<_> = all.iter().map(|one| one.direction.0).collect();
        assert_eq!(found, [0xc0ff_ee01, 0x10]);
        assert_eq!(judge(&all, &parts(&[])).len(), 2);
        let mut about = parts(&[]);
        about.get_mut("ha").unwrap().xfrm = true;
        assert_eq!(judge(&all, &about), [""; 0]);
        assert!(states("ha", "\taead rfc4106(gcm(aes)) <<Keys hidden>> 128").is_err());
    }

    #[test]
    fn a_list_that_lacks_something_is_no_list_of_nothing() {
        assert!(holdings("ha", &json!([{ "spi": 1 }])).is_err());
        assert!(holdings("ha", &json!({})).is_err());
    }
}
