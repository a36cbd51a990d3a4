// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Running programs, each printed before it runs.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::report;

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end. `shown` is how the step is printed; `input` goes to its standard input.
pub fn finish(shown: &str, argv: &[&str], input: Option<&str>) -> Result<Finished> {
    report::step(shown);
    let (program, arguments) = argv.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early closes its input; its exit status tells.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| shown.to_owned())?;
    Ok(Finished {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Finished {
    /// The standard output of a program that succeeded.
    pub fn ok(self, shown: &str) -> Result<String> {
        if self.success {
            return Ok(self.stdout);
        }
        bail!(
            "`{shown}` failed: {}{}",
            self.stderr.trim(),
            self.stdout.trim()
        )
    }
}

/// Runs a program outside any namespace; an error unless it succeeds.
pub fn run(argv: &[&str]) -> Result<String> {
    let shown = argv.join(" ");
    finish(&shown, argv, None)?.ok(&shown)
}

/// A program in the background, ended when dropped.
pub struct Background {
    child: Child,
    shown: String,
}

impl Background {
    pub fn start(shown: &str, argv: &[&str]) -> Result<Self> {
        report::step(format!("{shown} &"));
        let (program, arguments) = argv.split_first().context("no program")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            child,
            shown: shown.to_owned(),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Finished> {
        use std::io::Read;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut stdout)
                .context(self.shown.clone())?;
        }
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr)
                .context(self.shown.clone())?;
        }
        let status = self.child.wait().context(self.shown.clone())?;
        Ok(Finished {
            success: status.success(),
            stdout,
            stderr,
        })
    }

    /// Ends it and gives what it had printed.
    pub fn stop(mut self) -> Result<Finished> {
        let _ = self.child.kill();
        self.finish()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
