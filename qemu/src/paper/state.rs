// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What has been measured, kept as it comes: a file of JSON lines in the output directory.
//!
//! A line is a task, the key it was measured under, and its outcome. The key says all that the outcome depends on, so a
//! later start takes what is still true and measures the rest.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::run::{Outcome, Run, Task};
use crate::error::{Context, Error, Result};
use crate::key::{self, Key};
use crate::setup::Lab;
use crate::workspace::Workspace;

/// The file's name.
pub const FILE: &str = "runs.jsonl";

/// The guest's sources a transfer's outcome depends on, beside the modules.
const SOURCES: [&str; 6] = [
    "tests/src/netns.rs",
    "tests/src/topology.rs",
    "tests/src/traffic.rs",
    "tests/src/tunnel.rs",
    "tests/src/wireless.rs",
    "tests/src/zone_tunnel.rs",
];

/// Those of key managers and handoffs, beside `keyd/` itself.
const KEYD_SOURCES: [&str; 7] = [
    "tests/src/bench/crowd.rs",
    "tests/src/bench/ike.rs",
    "tests/src/bench/swarm.rs",
    "tests/src/capture.rs",
    "tests/src/keyd.rs",
    "tests/src/scenarios/handoff.rs",
    "tests/src/scenarios/mobility.rs",
];

/// What every outcome depends on, hashed.
pub struct Ground {
    /// Kernel, link and guest programs.
    common: String,
    /// Our module, for the configurations it has a part in.
    module: String,
    /// Key managers and what drives them, for the tasks they have a part in.
    keyd: String,
}

impl Ground {
    /// Looks at what this lab would measure with.
    pub fn of(lab: &Lab) -> Result<Self> {
        let root = Workspace::find()?;
        let root = root.root();
        let mut common = Key::new("paper")
            .text("kernel", &lab.kernel.key)
            .text("release", &lab.kernel.release);
        let mut module = String::new();
        for path in &lab.modules {
            let digest = key::digest(path)?;
            if path.file_name().is_some_and(|name| name == "mml.ko") {
                module = digest;
            } else {
                common = common.text("module", &digest);
            }
        }
        common = common.tree("paper", &root.join("tests/src/paper"), &|_| false)?;
        for source in SOURCES {
            common = common.file(source, &root.join(source))?;
        }
        let mut keyd = Key::new("keyd").tree("keyd", &root.join("keyd"), &|_| false)?;
        for source in KEYD_SOURCES {
            keyd = keyd.file(source, &root.join(source))?;
        }
        Ok(Ground {
            common: common.finish(),
            module,
            keyd: keyd.finish(),
        })
    }

    /// The key a task is measured under.
    pub fn key(&self, task: &Task) -> String {
        let mut key = Key::new("run")
            .text("ground", &self.common)
            .text("task", &json!(task).to_string());
        if task.needs_module() {
            key = key.text("module", &self.module);
        }
        if task.needs_keyd() {
            key = key.text("keyd", &self.keyd);
        }
        key.finish()
    }
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    key: String,
    task: Task,
    outcome: Value,
}

/// What a line's outcome is.
enum Kept {
    Transfer(Arc<Outcome>),
    /// Any other task's.
    Told(Value),
}

impl Kept {
    /// Reads it; nothing, if a guest's words about a task are no outcome of such a task.
    fn of(task: &Task, outcome: &Value) -> Option<Self> {
        match task {
            Task::Transfer(_) => serde_json::from_value::<Outcome>(outcome.clone())
                .ok()
                .filter(|outcome| outcome.seconds > 0.0)
                .map(|outcome| Kept::Transfer(Arc::new(outcome))),
            Task::Burst { .. }
            | Task::Moves(_)
            | Task::Streams(_)
            | Task::Messages { .. }
            | Task::Company(_) => outcome
                .get("error")
                .is_none()
                .then(|| Kept::Told(outcome.clone())),
        }
    }
}

/// Everything measured, by key.
pub struct State {
    kept: HashMap<String, Kept>,
    file: File,
}

impl State {
    /// Reads what is there, and holds the file for this process alone.
    pub fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).context(|| format!("making {}", directory.display()))?;
        let path = directory.join(FILE);
        let name = || format!("{}", path.display());
        let mut file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .context(name)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::environment(
                format!("another lab writes to {}", directory.display()),
                "wait for it, or name another directory with --out",
            )
        })?;
        let text = std::fs::read_to_string(&path).context(name)?;
        if !text.is_empty() && !text.ends_with('\n') {
            // The end of a lab that was killed while it wrote.
            file.write_all(b"\n").context(name)?;
        }
        Ok(State {
            kept: parse(&text),
            file,
        })
    }

    /// Keeps an outcome, at once. False, when it is none.
    pub fn add(&mut self, key: &str, task: &Task, outcome: Value) -> Result<bool> {
        let Some(kept) = Kept::of(task, &outcome) else {
            return Ok(false);
        };
        let line = Line {
            key: key.to_owned(),
            task: task.clone(),
            outcome,
        };
        let text = format!("{}\n", json!(line));
        self.file
            .write_all(text.as_bytes())
            .context(|| FILE.to_owned())?;
        self.kept.insert(line.key, kept);
        Ok(true)
    }

    /// Whether this has been measured.
    pub fn has(&self, key: &str) -> bool {
        self.kept.contains_key(key)
    }

    /// The transfer's outcome under this key.
    pub fn transfer(&self, key: &str) -> Option<Arc<Outcome>> {
        match self.kept.get(key)? {
            Kept::Transfer(outcome) => Some(outcome.clone()),
            Kept::Told(_) => None,
        }
    }

    /// The outcome under this key of anything but a transfer.
    pub fn told(&self, key: &str) -> Option<&Value> {
        match self.kept.get(key)? {
            Kept::Told(outcome) => Some(outcome),
            Kept::Transfer(_) => None,
        }
    }
}

/// The whole lines of a state file; a later one of the same key counts.
fn parse(text: &str) -> HashMap<String, Kept> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter_map(|line| Some((line.key, Kept::of(&line.task, &line.outcome)?)))
        .collect()
}

/// Transfers and their outcomes.
#[derive(Default)]
pub struct Measured(pub Vec<(Run, Arc<Outcome>)>);

impl Measured {
    /// Those of the tasks that have been measured.
    pub fn of(tasks: &[(Task, String)], state: &State) -> Self {
        Measured(
            tasks
                .iter()
                .filter_map(|(task, key)| match task {
                    Task::Transfer(run) => Some((run.clone(), state.transfer(key)?)),
                    Task::Burst { .. }
                    | Task::Moves(_)
                    | Task::Streams(_)
                    | Task::Messages { .. }
                    | Task::Company(_) => None,
                })
                .collect(),
        )
    }
}

impl Measured {
    /// Those with one delay.
    pub fn with_delay(&self, delay_ms: f64) -> Self {
        let mut some = self.0.clone();
        some.retain(|(run, _)| run.delay_ms == delay_ms);
        Measured(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::plan::Figure;

    fn ground(module: &str) -> Ground {
        Ground {
            common: "c".into(),
            module: module.into(),
            keyd: "k".into(),
        }
    }

    fn outcome() -> Value {
        json!({"bytes": 10, "whole": true, "seconds": 0.5, "goodput_kbps": 0.16, "mss": 1460, "packet": 1514,
            "retransmitted": 0, "timeouts": 0,
            "link": {"sent": 1, "sent_octets": 1514, "corrupted": 0, "overflowed": 0, "prioritised": 0}})
    }

    #[test]
    fn a_second_start_knows_what_the_first_measured_but_not_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Figure::Fig9.tasks(false);
        let ground = ground("m");
        {
            let mut state = State::open(dir.path()).unwrap();
            assert!(State::open(dir.path()).is_err(), "the file is held");
            assert!(state
                .add(&ground.key(&tasks[0]), &tasks[0], outcome())
                .unwrap());
            state.file.write_all(b"{\"key\":\"torn").unwrap();
        }
        let mut state = State::open(dir.path()).unwrap();
        assert!(state.has(&ground.key(&tasks[0])) && !state.has(&ground.key(&tasks[1])));
        state
            .add(&ground.key(&tasks[1]), &tasks[1], outcome())
            .unwrap();
        drop(state);
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.transfer(&ground.key(&tasks[1])).unwrap().mss, 1460);
    }

    #[test]
    fn a_new_module_makes_only_its_own_runs_anew() {
        let tasks = Figure::Fig11.tasks(false);
        for task in &tasks {
            let same = ground("old").key(task) == ground("new").key(task);
            assert_eq!(same, !task.needs_module());
        }
        let mut keys: Vec<String> = tasks.iter().map(|task| ground("old").key(task)).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), tasks.len());
    }

    #[test]
    fn an_outcome_that_is_none_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        let task = &Figure::Fig9.tasks(false)[0];
        let mut still = outcome();
        still["seconds"] = json!(0.0);
        for outcome in [json!({"error": "x"}), still] {
            assert!(!state.add("k", task, outcome).unwrap() && !state.has("k"));
        }
        assert!(state.add("k", task, outcome()).unwrap() && state.has("k"));
    }
}
