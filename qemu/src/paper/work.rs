// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The measuring: guests in virtual time, as many at once as there are processors, until nothing is left.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{json, Map, Value};

use super::batch;
use super::run::Task;
use super::state::State;
use crate::channel::Event;
use crate::error::{Error, Result};
use crate::machine::Clock;
use crate::progress::{self, Step};
use crate::setup::Lab;

/// The longest one guest may work, by the wall clock.
const LIMIT: Duration = Duration::from_secs(5400);

/// Guests a task may take down with it before it is given up.
const ATTEMPTS: u32 = 2;

/// A task that isn't measured yet, and its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What to do.
    pub task: Task,
    /// What its outcome is kept under.
    pub key: String,
}

impl AsRef<Task> for Item {
    fn as_ref(&self) -> &Task {
        &self.task
    }
}

/// What the guests' threads share.
struct Shared<'a> {
    shares: VecDeque<Vec<Item>>,
    attempts: HashMap<String, u32>,
    failures: Vec<String>,
    logs: Vec<PathBuf>,
    /// A failure of the lab itself ends all.
    fatal: Option<Error>,
    state: &'a mut State,
    /// Told of every outcome that was kept.
    on_outcome: &'a mut (dyn FnMut(&str, &State) -> Result<()> + Send),
    bar: Bar,
}

/// How far it is.
struct Bar {
    step: Step,
    began: Instant,
    cost: f64,
    spent: f64,
    count: usize,
    finished: usize,
}

impl Bar {
    fn over(items: &[Item]) -> Self {
        let cost: f64 = items.iter().map(|item| batch::cost(&item.task)).sum();
        Bar {
            step: Step::begin(&format!("{} runs", items.len()), Some(cost.ceil() as u64)),
            began: Instant::now(),
            cost,
            spent: 0.0,
            count: items.len(),
            finished: 0,
        }
    }

    fn finished(&mut self, task: &Task) {
        self.finished += 1;
        self.spent += batch::cost(task);
        let message = format!(
            "{} of {}{}; {}",
            self.finished,
            self.count,
            left(self.began.elapsed(), self.spent, self.cost),
            task.title()
        );
        self.step.at(Some(self.spent as u64), &message);
    }
}

/// The time left, from how long what is done has taken.
fn left(elapsed: Duration, spent: f64, cost: f64) -> String {
    // The first runs, and the boots before them, say little.
    if spent < cost / 50.0 {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() * (cost - spent).max(0.0) / spent;
    if seconds > 90.0 {
        format!(", {:.0} min left", seconds / 60.0)
    } else {
        format!(", {seconds:.0} s left")
    }
}

/// What became of the work.
pub struct Done {
    /// Tasks that couldn't be measured, and why.
    pub failures: Vec<String>,
    /// Kernel logs that tell more.
    pub logs: Vec<PathBuf>,
}

/// Measures all of `items`, each outcome kept as it comes.
pub fn measure(
    lab: &Lab,
    items: Vec<Item>,
    jobs: usize,
    state: &mut State,
    on_outcome: &mut (dyn FnMut(&str, &State) -> Result<()> + Send),
) -> Result<Done> {
    let bar = Bar::over(&items);
    let shared = Mutex::new(Shared {
        shares: batch::shares(items).into(),
        attempts: HashMap::new(),
        failures: Vec::new(),
        logs: Vec::new(),
        fatal: None,
        state,
        on_outcome,
        bar,
    });
    std::thread::scope(|scope| {
        for number in 0..jobs.max(1) {
            let shared = &shared;
            scope.spawn(move || guests(lab, number, shared));
        }
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = shared.fatal {
        shared.bar.step.failed();
        return Err(error);
    }
    if shared.failures.is_empty() {
        shared.bar.step.done();
    } else {
        shared.bar.step.failed();
    }
    Ok(Done {
        failures: shared.failures,
        logs: shared.logs,
    })
}

fn locked<'a, 'b>(shared: &'a Mutex<Shared<'b>>) -> MutexGuard<'a, Shared<'b>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One guest after the other, each with a share.
fn guests(lab: &Lab, number: usize, shared: &Mutex<Shared<'_>>) {
    loop {
        let share = {
            let mut shared = locked(shared);
            if shared.fatal.is_some() {
                return;
            }
            shared.shares.pop_front()
        };
        let Some(share) = share else { return };
        if let Err(error) = one_guest(lab, number, share, shared) {
            locked(shared).fatal.get_or_insert(error);
        }
    }
}

fn one_guest(lab: &Lab, number: usize, share: Vec<Item>, shared: &Mutex<Shared<'_>>) -> Result<()> {
    let tasks: Vec<Value> = share
        .iter()
        .map(|item| item.task.order(&item.key))
        .collect();
    let order = json!({"mode": "paper", "names": [], "options": {}, "tasks": tasks});
    let mut left: VecDeque<Item> = share.into();
    let mut broken = None;
    let mut words = String::new();
    let mut since = Instant::now();
    let boot = lab.boot(
        &format!("paper-{number}"),
        Clock::Virtual,
        &order,
        LIMIT,
        &mut |event| match event {
            Event::Result { kind, mut fields } if kind == "run" => {
                // Kept for whoever tunes the costs.
                let took = std::mem::replace(&mut since, Instant::now()).elapsed();
                fields.insert("host_seconds".into(), json!(took.as_secs_f64()));
                if let Err(error) = locked(shared).result(&mut left, fields) {
                    broken.get_or_insert(error);
                }
            }
            Event::Step { text } => words = text,
            _ => {}
        },
    )?;
    if let Some(error) = broken {
        return Err(error);
    }
    let failure = boot.outcome.failure();
    let mut shared = locked(shared);
    match failure {
        None if left.is_empty() => {}
        // The guest told of every task, and what failed has been counted.
        Some(_) if left.is_empty() && boot.outcome.complaints.is_empty() => {}
        Some(why) if left.is_empty() => {
            shared.failures.push(format!("a guest: {why}"));
            shared.logs.push(boot.console);
        }
        why => {
            let why = why.unwrap_or_else(|| "the guest did not report it".into());
            shared.unfinished(left, &format!("{why} (last: {})", words.trim()));
            shared.logs.push(boot.console);
        }
    }
    Ok(())
}

impl Shared<'_> {
    /// Takes a guest's word on one of its tasks in.
    fn result(&mut self, left: &mut VecDeque<Item>, mut fields: Map<String, Value>) -> Result<()> {
        let id = fields.remove("id");
        let id = id.as_ref().and_then(Value::as_str).unwrap_or_default();
        let Some(at) = left.iter().position(|item| item.key == id) else {
            progress::line(&format!(
                "  ?? a guest reports {id}, which it wasn't asked for"
            ));
            return Ok(());
        };
        let Some(item) = left.remove(at) else {
            return Ok(());
        };
        let outcome = Value::Object(fields);
        let why = outcome["error"]
            .as_str()
            .unwrap_or("its outcome makes no sense")
            .to_owned();
        if self.state.add(&item.key, &item.task, outcome)? {
            (self.on_outcome)(&item.key, self.state)?;
        } else {
            progress::line(&format!("  FAIL {}: {why}", item.task.title()));
            self.failures.push(format!("{}: {why}", item.task.title()));
        }
        self.bar.finished(&item.task);
        Ok(())
    }

    /// What a guest that ended early left: the first task took it down and may try once more, the others go on.
    fn unfinished(&mut self, mut left: VecDeque<Item>, why: &str) {
        if let Some(culprit) = left.front() {
            let attempts = self.attempts.entry(culprit.key.clone()).or_default();
            *attempts += 1;
            if *attempts >= ATTEMPTS {
                let title = culprit.task.title();
                progress::line(&format!("  FAIL {title}: {why}"));
                self.failures.push(format!("{title}: {why}"));
                self.bar.finished(&culprit.task.clone());
                left.pop_front();
            }
        }
        if !left.is_empty() {
            self.shares.push_front(left.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::plan::Figure;

    fn items(count: usize) -> Vec<Item> {
        Figure::Fig9
            .tasks(false)
            .into_iter()
            .take(count)
            .enumerate()
            .map(|(at, task)| Item {
                task,
                key: at.to_string(),
            })
            .collect()
    }

    fn with_shared(items: &[Item], check: impl FnOnce(&mut Shared<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        check(&mut Shared {
            shares: VecDeque::new(),
            attempts: HashMap::new(),
            failures: Vec::new(),
            logs: Vec::new(),
            fatal: None,
            state: &mut state,
            on_outcome: &mut |_, _| Ok(()),
            bar: Bar::over(items),
        });
    }

    #[test]
    fn a_task_that_takes_two_guests_down_is_given_up_and_the_others_go_on() {
        let items = items(3);
        with_shared(&items, |shared| {
            shared.unfinished(items.clone().into(), "panic");
            assert!(shared.failures.is_empty());
            assert_eq!(shared.shares.pop_front().unwrap().len(), 3);
            shared.unfinished(items.clone().into(), "panic");
            assert_eq!(shared.failures.len(), 1);
            assert_eq!(shared.shares.pop_front().unwrap(), items[1..]);
        });
    }

    #[test]
    fn an_error_counts_once_and_is_not_kept() {
        let items = items(2);
        with_shared(&items, |shared| {
            let mut left: VecDeque<Item> = items.clone().into();
            let fields = [("id", json!("1")), ("error", json!("no route"))]
                .map(|(name, value)| (name.to_owned(), value));
            shared
                .result(&mut left, fields.into_iter().collect())
                .unwrap();
            assert_eq!(Vec::from(left), items[..1]);
            assert!(shared.failures[0].ends_with("no route"));
            assert!(!shared.state.has("1"));
        });
    }

    #[test]
    fn the_time_left_follows_the_speed_so_far() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute, 1.0, 100.0), "");
        assert_eq!(left(minute, 10.0, 100.0), ", 9 min left");
        assert_eq!(left(minute, 80.0, 100.0), ", 15 s left");
    }
}
