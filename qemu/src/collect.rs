// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a guest reports, taken in: results, artefacts, commands it ran.

use std::path::{Path, PathBuf};

use crate::channel::{self, Event};
use crate::progress::{self, Step};
use crate::report::Report;

/// Programs whose calls the guest reports as steps.
const PROGRAMS: [&str; 15] = [
    "ip",
    "tc",
    "bridge",
    "keyd",
    "mmlctl",
    "curl",
    "nginx",
    "nft",
    "wg",
    "iperf3",
    "tcpdump",
    "ping",
    "ethtool",
    "sysctl",
    "conntrack",
];

/// Whether a step is something that can be typed, not what it printed.
fn is_command(text: &str) -> bool {
    text.split_whitespace()
        .next()
        .is_some_and(|word| PROGRAMS.contains(&word))
}

/// Takes a guest's events in.
pub struct Collect {
    step: Option<Step>,
    /// Results by kind.
    pub report: Report,
    /// Every step, in order.
    pub steps: Vec<String>,
    /// Where artefacts go; nowhere, when nobody asked for them.
    out: Option<PathBuf>,
    /// Artefacts written.
    pub files: Vec<PathBuf>,
    verbose: bool,
    /// What went wrong on the way.
    pub complaints: Vec<String>,
}

impl Collect {
    /// Begins to take in; `title` is what the bar says.
    pub fn begin(title: &str, out: Option<&Path>, verbose: bool) -> Self {
        Collect {
            step: Some(Step::begin(title, None)),
            report: Report::default(),
            steps: Vec::new(),
            out: out.map(Path::to_owned),
            files: Vec::new(),
            verbose,
            complaints: Vec::new(),
        }
    }

    /// Takes one event in.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Hello { kernel, vcpus } => {
                let plural = if vcpus == 1 { "" } else { "s" };
                progress::line(&format!("  guest up: {kernel}, {vcpus} processor{plural}"));
            }
            Event::Step { text } => {
                if self.verbose {
                    let mark = if is_command(&text) { "$ " } else { "" };
                    for line in text.lines() {
                        progress::line(format!("    {mark}{line}").trim_end());
                    }
                }
                if let Some(step) = &mut self.step {
                    step.at(None, text.lines().next().unwrap_or_default());
                }
                self.steps.push(text);
            }
            Event::Result { kind, fields } => self.report.add(&kind, fields),
            Event::File { name, data } => self.file(&name, &data),
            Event::Scenario { .. } | Event::Done { .. } => {}
        }
    }

    fn file(&mut self, name: &str, data: &str) {
        let Some(out) = &self.out else { return };
        match channel::save(out, name, data) {
            Ok(()) => self.files.push(out.join(name)),
            Err(error) => self.complaints.push(error.to_string()),
        }
    }

    /// The guest's commands, one a line, with its other words as comments: a script to read and to type from.
    pub fn script(&self) -> String {
        let mut script = String::new();
        for step in &self.steps {
            let mark = if is_command(step) { "" } else { "# " };
            for line in step.lines() {
                script.push_str(format!("{mark}{line}").trim_end());
                script.push('\n');
            }
        }
        script
    }

    /// Ends the bar.
    pub fn end(&mut self, ok: bool) {
        if let Some(step) = self.step.take() {
            if ok {
                step.done();
            } else {
                step.failed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_and_other_words_are_comments_in_the_script() {
        let mut collect = Collect::begin("x", None, false);
        for text in [
            "transfer: plain",
            "ip -n ha link set mml0 up\nip -n ha route",
            "namespace\n  COUNTER  VALUE\n",
        ] {
            collect.event(Event::Step {
                text: text.to_owned(),
            });
        }
        let script = "# transfer: plain\nip -n ha link set mml0 up\nip -n ha route\n# namespace\n#   COUNTER  VALUE\n";
        assert_eq!(collect.script(), script);
        collect.end(true);
    }
}
