// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The log: lines on standard error, where the service manager takes them, and the last ones kept for `mmlctl log`.
//!
//! No line ever has a secret: secrets have types that don't print themselves.

use super::config::{Level, LogFormat};
use rustix::time::{clock_gettime, ClockId};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::Layer;

/// Lines that are kept.
const KEPT: usize = 1000;

/// The last lines, and those to come.
#[derive(Clone)]
pub struct Journal {
    lines: Arc<Mutex<VecDeque<String>>>,
    next: broadcast::Sender<String>,
}

impl Default for Journal {
    fn default() -> Self {
        Journal {
            lines: Arc::default(),
            next: broadcast::Sender::new(KEPT),
        }
    }
}

impl Journal {
    /// The last lines, oldest first, and a way to hear those to come.
    pub fn follow(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.iter().cloned().collect(), self.next.subscribe())
    }

    /// Adds a line.
    pub fn add(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        if self.next.receiver_count() > 0 {
            // They may go at any moment.
            let _ = self.next.send(line.clone());
        }
        lines.push_back(line);
    }
}

/// Octets that most lines fit in.
const ROOM: usize = 256;

/// Makes a line of each event, writes it to `to`, and keeps it, with the time, in the journal.
struct Lines<W> {
    format: LogFormat,
    to: W,
    journal: Journal,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: tracing::Subscriber,
    W: Fn(&[u8]) + 'static,
{
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = String::with_capacity(ROOM);
        // A string takes whatever is written, and what a broken field makes of itself is in the line as far as it came.
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        let time = line.len() + 1;
        let _ = write!(line, " {:>5} ", event.metadata().level());
        let _ = DefaultFields::new().format_fields(Writer::new(&mut line), event);
        if line.contains(char::is_control) {
            line = visible(&line);
        }
        match self.format {
            // Whoever runs the daemon has the time already; `mmlctl log` shows it.
            LogFormat::Text => {
                line.push('\n');
                (self.to)(line.get(time..).unwrap_or_default().as_bytes());
                line.pop();
            }
            LogFormat::Json => (self.to)(json(event).as_bytes()),
        }
        self.journal.add(line);
    }
}

/// What a peer is called, and what it says, begins no line and moves no cursor.
fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + ROOM);
    for one in text.chars() {
        if one.is_control() {
            line.extend(one.escape_default());
        } else {
            line.push(one);
        }
    }
    line
}

/// Writes a line to standard error. Nobody is to be told where that fails.
fn to_stderr(line: &[u8]) {
    let _ = io::stderr().write_all(line);
}

/// An event as a JSON object, a line: `monotonic_us`, microseconds of CLOCK_MONOTONIC; `level`; `message`; and the event's
/// own fields.
fn json(event: &tracing::Event<'_>) -> String {
    let now = clock_gettime(ClockId::Monotonic);
    let mut line = Fields(Map::new());
    event.record(&mut line);
    // Those of every line last, so that no field takes their place.
    let microseconds = now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1000;
    line.0.insert("monotonic_us".into(), microseconds.into());
    let level = event.metadata().level().as_str();
    line.0.insert("level".into(), level.into());
    format!("{}\n", Value::Object(line.0))
}

/// An event's fields.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        self.0.insert(field.name().to_owned(), text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

/// Begins to log.
pub fn start(level: Level, format: LogFormat) -> Journal {
    let journal = Journal::default();
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let lines = Lines {
        format,
        to: to_stderr,
        journal: journal.clone(),
    };
    let done = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if let Err(error) = done {
        eprintln!("keyd: no log: {error}");
    }
    journal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two events come to: on standard error, and in the journal.
    fn logged(format: LogFormat) -> (Vec<String>, Vec<String>) {
        let (journal, written) = (Journal::default(), Arc::<Mutex<Vec<String>>>::default());
        let to = written.clone();
        let lines = Lines {
            format,
            to: move |line: &[u8]| {
                let line = String::from_utf8(line.to_vec()).unwrap();
                to.lock().unwrap().push(line);
            },
            journal: journal.clone(),
        };
        let (_, mut heard) = journal.follow();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(home = %"203.0.113.7", standby = true, generation = 2u32, "relay CSA {:#x} is \"up\"", 7);
            tracing::warn!(monotonic_us = "never", "second");
        });
        let kept = journal.follow().0;
        assert_eq!(heard.try_recv().as_ref(), Ok(&kept[0]));
        let written = written.lock().unwrap().clone();
        (written, kept)
    }

    #[test]
    fn a_line_of_text_has_its_time_in_the_journal_alone() {
        let (written, kept) = logged(LogFormat::Text);
        let first = "INFO relay CSA 0x7 is \"up\" home=203.0.113.7 standby=true generation=2";
        assert_eq!(written[0], format!(" {first}\n"));
        assert_eq!(written[1], " WARN second monotonic_us=\"never\"\n");
        assert_eq!(kept.len(), 2);
        let (time, rest) = kept[0].split_once(' ').unwrap();
        assert_eq!(rest, format!(" {first}"));
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn what_a_peer_is_called_moves_no_cursor_and_begins_no_line() {
        let journal = Journal::default();
        let lines = Lines {
            format: LogFormat::Text,
            to: |line: &[u8]| {
                let text = std::str::from_utf8(line).unwrap();
                let text = text.strip_suffix('\n').unwrap();
                assert!(!text.contains(char::is_control), "{text:?}");
            },
            journal: journal.clone(),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(peer = %"\x1b[2Jevil\n INFO good", "up");
            tracing::info!("the peer {}", "\x1b]0;title\x07\u{9b}");
        });
        let (kept, _) = journal.follow();
        assert_eq!(kept.len(), 2);
        assert!(
            kept[0].ends_with(r"peer=\u{1b}[2Jevil\n INFO good"),
            "{}",
            kept[0]
        );
        assert!(kept.iter().all(|line| !line.contains(char::is_control)));
    }

    #[test]
    fn a_line_of_json_has_its_fields_its_level_and_a_time_that_goes_on() {
        let (written, _) = logged(LogFormat::Json);
        let read: Vec<Value> = written
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0]["message"], "relay CSA 0x7 is \"up\"");
        assert_eq!(
            (
                &read[0]["home"],
                &read[0]["standby"],
                &read[0]["generation"]
            ),
            (&"203.0.113.7".into(), &true.into(), &2.into())
        );
        assert_eq!(
            (&read[0]["level"], &read[1]["level"]),
            (&"INFO".into(), &"WARN".into())
        );
        let at = |line: &Value| line["monotonic_us"].as_i64().unwrap();
        assert!(at(&read[0]) > 0 && at(&read[1]) >= at(&read[0]));
    }
}
