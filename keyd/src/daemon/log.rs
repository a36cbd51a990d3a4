// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The log: lines on standard error, where the service manager takes them, and the last ones kept for `mmlctl log`.
//!
//! No line ever has a secret: secrets have types that don't print themselves.

use super::config::{Level, LogFormat};
use rustix::time::{clock_gettime, ClockId};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

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
    pub fn add(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
        // Nobody may be listening.
        let _ = self.next.send(line.to_owned());
    }
}

impl Write for &Journal {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(octets).lines() {
            self.add(line);
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = JournalWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        JournalWriter(self)
    }
}

/// Writes into a journal.
pub struct JournalWriter<'a>(&'a Journal);

impl Write for JournalWriter<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines without colours.
fn plain<S>() -> tracing_subscriber::fmt::Layer<S> {
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
}

/// A JSON object a line: `monotonic_us`, microseconds of CLOCK_MONOTONIC; `level`; `message`; and the event's own fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let now = clock_gettime(ClockId::Monotonic);
        let mut line = Fields(Map::new());
        event.record(&mut line);
        // Those of every line last, so that no field takes their place.
        let microseconds = now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1000;
        line.0.insert("monotonic_us".into(), microseconds.into());
        let level = event.metadata().level().as_str();
        line.0.insert("level".into(), level.into());
        writeln!(writer, "{}", Value::Object(line.0))
    }
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
    // Whoever runs the daemon has the time already; `mmlctl log` shows it.
    let is_json = format == LogFormat::Json;
    let text = (!is_json).then(|| plain().without_time().with_writer(io::stderr));
    let json = is_json.then(|| plain().event_format(Json).with_writer(io::stderr));
    let done = tracing_subscriber::registry()
        .with(filter)
        .with(text)
        .with(json)
        .with(plain().with_writer(journal.clone()))
        .try_init();
    if let Err(error) = done {
        eprintln!("keyd: no log: {error}");
    }
    journal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_its_fields_its_level_and_a_time_that_goes_on() {
        let journal = Journal::default();
        let lines = tracing_subscriber::registry()
            .with(plain().event_format(Json).with_writer(journal.clone()));
        tracing::subscriber::with_default(lines, || {
            tracing::info!(home = %"203.0.113.7", standby = true, generation = 2u32, "relay CSA {:#x} is \"up\"", 7);
            tracing::warn!(monotonic_us = "never", "second");
        });
        let read: Vec<Value> = journal
            .follow()
            .0
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
