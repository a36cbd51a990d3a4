// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The log: lines on standard error, where the service manager takes them, and the last ones kept for `mmlctl log`.
//!
//! No line ever has a secret: secrets have types that don't print themselves.

use super::config::Level;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
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

/// Begins to log.
pub fn start(level: Level) -> Journal {
    let journal = Journal::default();
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // Whoever runs the daemon has the time already; `mmlctl log` shows it.
    let done = tracing_subscriber::registry()
        .with(filter)
        .with(plain().without_time().with_writer(io::stderr))
        .with(plain().with_writer(journal.clone()))
        .try_init();
    if let Err(error) = done {
        eprintln!("keyd: no log: {error}");
    }
    journal
}
