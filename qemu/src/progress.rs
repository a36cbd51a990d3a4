// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bars on a terminal, plain lines elsewhere, both on standard error; and commands run under them.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::{Context, Error, Result};

/// How often a running command's log is looked at.
const TICK: Duration = Duration::from_millis(150);

/// Where no bar can be drawn, a line as often as this says that work goes on.
const HEARTBEAT: Duration = Duration::from_secs(60);

fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

fn terminal() -> bool {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    *TERMINAL.get_or_init(|| std::io::stderr().is_terminal())
}

/// Prints a line on standard error without disturbing the bars.
pub fn line(text: &str) {
    if terminal() {
        bars().suspend(|| eprintln!("{text}"));
    } else {
        eprintln!("{text}");
    }
}

/// One thing that takes time.
pub struct Step {
    title: String,
    bar: Option<ProgressBar>,
    began: Instant,
    spoke: Instant,
}

impl Step {
    /// Begins; `expected` is how many units are about to pass, when that is known.
    pub fn begin(title: &str, expected: Option<u64>) -> Self {
        let now = Instant::now();
        let bar = terminal().then(|| {
            let (bar, template) = match expected {
                Some(n) => (
                    ProgressBar::new(n),
                    "  {spinner} {prefix} [{bar:24}] {elapsed} {wide_msg:.dim}",
                ),
                None => (
                    ProgressBar::new_spinner(),
                    "  {spinner} {prefix} {elapsed} {wide_msg:.dim}",
                ),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(title.to_owned());
            let bar = bars().add(bar);
            bar.enable_steady_tick(TICK);
            bar
        });
        if bar.is_none() {
            eprintln!("  .. {title}");
        }
        Step {
            title: title.to_owned(),
            bar,
            began: now,
            spoke: now,
        }
    }

    /// Says how far it is; a bar stays short of its end until `done`.
    pub fn at(&mut self, position: Option<u64>, message: &str) {
        if let Some(bar) = &self.bar {
            if let (Some(position), Some(length)) = (position, bar.length()) {
                bar.set_position(position.min(length.saturating_sub(1)));
            }
            bar.set_message(message.to_owned());
        } else if self.spoke.elapsed() > HEARTBEAT {
            self.spoke = Instant::now();
            eprintln!(
                "  .. {} ({:.0} s so far) {message}",
                self.title,
                self.began.elapsed().as_secs_f64()
            );
        }
    }

    fn end(self, mark: &str) -> f64 {
        let seconds = self.began.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bars().remove(bar);
        }
        line(&format!("  {mark} {} ({seconds:.1} s)", self.title));
        seconds
    }

    /// Ends well; returns the seconds it took.
    pub fn done(self) -> f64 {
        self.end("ok")
    }

    /// Ends badly.
    pub fn failed(self) {
        self.end("!!");
    }
}

/// Follows a growing log: counts its lines and keeps the last one.
#[derive(Default)]
struct Tail {
    offset: u64,
    lines: u64,
    last: String,
}

impl Tail {
    fn follow(&mut self, file: &mut File) {
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(self.offset)).is_err() || file.read_to_end(&mut text).is_err()
        {
            return;
        }
        self.offset += text.len() as u64;
        self.lines += text.iter().filter(|octet| **octet == b'\n').count() as u64;
        let text = String::from_utf8_lossy(&text);
        if let Some(last) = text
            .split(['\n', '\r'])
            .map(str::trim)
            .rfind(|l| !l.is_empty())
        {
            self.last = last.chars().filter(|c| !c.is_control()).take(100).collect();
        }
    }
}

/// Runs a command with all its output in `log`, appended, and a step shown for it.
///
/// `expected` is the number of lines it is known to print.
pub fn run(title: &str, command: &mut Command, log: &Path, expected: Option<u64>) -> Result<f64> {
    let (status, seconds) = run_status(title, command, log, expected)?;
    if status.success() {
        return Ok(seconds);
    }
    Err(Error::logged(format!("{title}: failed ({status})"), log))
}

/// As [`run`], but a failure of the command is the caller's to judge.
pub fn run_status(
    title: &str,
    command: &mut Command,
    log: &Path,
    expected: Option<u64>,
) -> Result<(ExitStatus, f64)> {
    let name = || format!("{}", log.display());
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .context(name)?;
    let mut reader = File::open(log).context(name)?;
    let mut tail = Tail {
        offset: reader.metadata().context(name)?.len(),
        ..Tail::default()
    };
    let error = output.try_clone().context(name)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(error)
        .spawn()
        .context(|| format!("{title}: cannot run {:?}", command.get_program()))?;
    let mut step = Step::begin(title, expected);
    let status = loop {
        if let Some(status) = child.try_wait().context(|| title.to_owned())? {
            break status;
        }
        std::thread::sleep(TICK);
        tail.follow(&mut reader);
        step.at(expected.map(|_| tail.lines), &tail.last);
    };
    if status.success() {
        return Ok((status, step.done()));
    }
    step.failed();
    Ok((status, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_lands_in_the_log_and_failure_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        run(
            "good",
            Command::new("sh").args(["-c", "echo one; echo two >&2"]),
            &log,
            None,
        )
        .unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\n");
        let error = run(
            "bad",
            Command::new("sh").args(["-c", "echo three; exit 7"]),
            &log,
            None,
        )
        .unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(matches!(error, Error::Check { log: Some(path), .. } if path == log));
    }
}
