// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tests of the crates that need no guest, run by the host's cargo.

use std::path::Path;

use crate::error::{Error, Result};
use crate::progress;
use crate::workspace::Workspace;

/// Lines `cargo test` is expected to print at least; only for the bar.
const LINES: u64 = 400;

/// Counts of one or more test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Names of those that failed.
    pub failed: Vec<String>,
}

/// Counts from what libtest printed.
fn counts(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let passed = rest
                .split(" passed")
                .next()
                .and_then(|left| left.rsplit(' ').next());
            counts.passed += passed
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0);
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            counts.failed.push(name.to_owned());
        }
    }
    counts
}

/// Runs them all. A crate that does not compile is an error, a test that fails a count.
pub fn run(workspace: &Workspace, log: &Path) -> Result<Counts> {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    let (status, _) =
        progress::run_status("tests that need no guest", &mut command, log, Some(LINES))?;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let counts = counts(&text);
    if !status.success() && counts.failed.is_empty() {
        return Err(Error::logged(
            "cargo test: failed before or beside its tests",
            log,
        ));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_added_up() {
        let text = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n\
                    test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured\n";
        assert_eq!(
            counts(text),
            Counts {
                passed: 13,
                failed: vec!["a::c".into()]
            }
        );
    }
}
