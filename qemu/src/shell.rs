// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab shell`: a prompt in the guest.

use std::io::IsTerminal;

use serde_json::json;

use crate::cli::Shared;
use crate::error::{Error, Result};
use crate::report::Report;
use crate::setup::Lab;

/// Runs the command.
pub fn command(shared: &Shared) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(
            "shell needs a terminal to type at; `cargo lab test NAME` runs without one".into(),
        ));
    }
    let lab = Lab::prepare(shared, false)?;
    println!("Booting {}. `exit` ends it; so does Ctrl-A X at once. Nodes: ip netns exec cn|ha|core|fa1|fa2|mh COMMAND", lab.kernel.origin);
    let outcome = lab.boot_interactive(&json!({"mode": "shell", "names": [], "options": {}}))?;
    let mut report = Report::default();
    report.set("seconds", outcome.seconds);
    report.set("kernel", lab.kernel.release.as_str());
    report.write(shared.json.as_deref())?;
    match outcome.killed {
        Some(why) => Err(Error::check(why)),
        None => Ok(()),
    }
}
