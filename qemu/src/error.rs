// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What can go wrong, the exit code it means, and how it is shown.

use std::path::{Path, PathBuf};

/// Lines of a log shown under a failure; the rest stays in the file that is named.
const TAIL: usize = 25;

/// A failure of the lab, told so that the user knows the thing, the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A check, a build or a guest failed: the project's fault, exit code 1.
    #[error("{what}")]
    Check {
        /// What failed and why.
        what: String,
        /// The log that tells more.
        log: Option<PathBuf>,
    },
    /// A failure that has been told in full already: exit code 1.
    #[error("failed, as told above")]
    Told,
    /// The command line asks for something that does not exist: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The machine lacks something: exit code 3.
    #[error("{what}")]
    Environment {
        /// What is missing.
        what: String,
        /// What brings it.
        mend: String,
        /// The log that tells more.
        log: Option<PathBuf>,
    },
    /// Reading or writing a file failed: exit code 3.
    #[error("{what}: {source}")]
    Io {
        /// The file, and what was being done with it.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The lab's own result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed check without a log of its own.
    pub fn check(what: impl Into<String>) -> Self {
        Error::Check {
            what: what.into(),
            log: None,
        }
    }

    /// A failed check whose log tells more.
    pub fn logged(what: impl Into<String>, log: impl Into<PathBuf>) -> Self {
        Error::Check {
            what: what.into(),
            log: Some(log.into()),
        }
    }

    /// Something the machine lacks.
    pub fn environment(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Error::Environment {
            what: what.into(),
            mend: mend.into(),
            log: None,
        }
    }

    /// The process exit code: 1 a check failed, 2 usage, 3 the environment lacks something.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Check { .. } | Error::Told => 1,
            Error::Usage(_) => 2,
            Error::Environment { .. } | Error::Io { .. } => 3,
        }
    }

    /// Tells the user: the cause, the last lines of the log, where the rest is, and the mend.
    pub fn show(&self) {
        if matches!(self, Error::Told) {
            return;
        }
        eprintln!("\nlab: {self}");
        let log = match self {
            Error::Check { log, .. } | Error::Environment { log, .. } => log.as_deref(),
            _ => None,
        };
        if let Some(path) = log {
            for line in log_end(path) {
                eprintln!("{line}");
            }
        }
        if let Error::Environment { mend, .. } = self {
            eprintln!("  what to do: {mend}");
        }
    }
}

/// The end of a log and where the rest is, as lines to show.
pub fn log_end(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = tail(&text, TAIL)
        .iter()
        .map(|line| format!("  | {line}"))
        .collect();
    lines.push(format!("  the whole log: {}", path.display()));
    lines
}

/// The last `count` lines that are not empty, in their order.
pub fn tail(text: &str, count: usize) -> Vec<&str> {
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .rev()
        .take(count)
        .collect();
    lines.reverse();
    lines
}

/// Says which file an I/O error is about.
pub trait Context<T> {
    /// Turns an I/O error into the lab's, saying what was being done.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_in_order() {
        assert_eq!(tail("a\nb\n\nc\n", 2), ["b", "c"]);
        assert_eq!(tail("", 2), Vec::<&str>::new());
    }

    #[test]
    fn exit_codes_tell_checks_usage_and_environment_apart() {
        assert_eq!(Error::check("x").exit_code(), 1);
        assert_eq!(Error::Usage("x".into()).exit_code(), 2);
        assert_eq!(Error::environment("x", "y").exit_code(), 3);
    }
}
