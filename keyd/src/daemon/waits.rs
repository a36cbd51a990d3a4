// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Clients of the control socket that wait until a connection is up.

use super::control::Answer;
use super::engine::{Engine, Standing};
use mml_ike::event::Time;
use std::time::Duration;
use tokio::sync::oneshot;

/// The longest anybody may wait.
const LONGEST: Duration = Duration::from_secs(3600);

struct Wait {
    connection: String,
    seconds: u64,
    until: Time,
    answer: oneshot::Sender<Answer>,
}

/// All of them.
#[derive(Default)]
pub struct Waits(Vec<Wait>);

impl Waits {
    /// One more, for at most so many seconds, an hour at most.
    pub fn add(
        &mut self,
        connection: &str,
        seconds: u64,
        answer: oneshot::Sender<Answer>,
        now: Time,
    ) {
        self.0.push(Wait {
            connection: connection.to_owned(),
            seconds,
            until: now + Duration::from_secs(seconds).min(LONGEST),
            answer,
        });
    }

    /// When the next one has waited for long enough.
    pub fn next_deadline(&self) -> Option<Time> {
        self.0.iter().map(|wait| wait.until).min()
    }

    /// Answers who has waited for what came, for what won't come, or for long enough; who is gone isn't waited for any more.
    pub fn settle(&mut self, engine: &Engine, now: Time) {
        let mut waiting = std::mem::take(&mut self.0);
        for wait in waiting.drain(..).filter(|wait| !wait.answer.is_closed()) {
            let name = &wait.connection;
            let answer = match engine.standing(name, now) {
                Standing::Up(status) => Answer::Done(status),
                Standing::Failed(why) => Answer::Refused(format!("{name}: {why}")),
                Standing::Coming(_) if now < wait.until => {
                    self.0.push(wait);
                    continue;
                }
                Standing::Coming(why) => {
                    let why = why.map(|why| format!("; so far: {why}"));
                    let why = why.unwrap_or_default();
                    Answer::Refused(format!("{name}: not up within {} s{why}", wait.seconds))
                }
            };
            // It may go at any moment.
            let _ = wait.answer.send(answer);
        }
    }
}
