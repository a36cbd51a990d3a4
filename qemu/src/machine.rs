// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One boot of a guest: QEMU's command line, its channel and console watched, its end judged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::build_root::BuildRoot;
use crate::channel::{self, Event};
use crate::console;
use crate::error::{Context, Result};
use crate::progress;

/// The name of the file a run's events are kept in.
pub const REPORT: &str = "report.jsonl";

/// How often channel and console are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How long a guest may take to power off after `done`.
const LEAVE: Duration = Duration::from_secs(20);

/// How often a guest that never came up is booted again.
const AGAIN: u32 = 2;

/// The accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// QEMU's own translator: works everywhere.
    Tcg,
    /// The host's virtualisation, after a probe boot.
    Kvm,
    /// KVM when a probe boot succeeds, TCG otherwise.
    Auto,
}

/// How time passes in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// As on the host, with this many processors.
    Real {
        /// Processors.
        vcpus: u32,
    },
    /// One instruction is one nanosecond and idle time is skipped; one processor. Repeatable on any machine.
    Virtual,
}

/// How many processors this machine has.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Clock {
    /// Processors of the guest.
    pub fn vcpus(self) -> u32 {
        match self {
            Clock::Real { vcpus } => vcpus,
            Clock::Virtual => 1,
        }
    }
}

/// What to boot.
pub struct Machine<'a> {
    /// QEMU comes from here.
    pub root: &'a BuildRoot,
    /// The kernel image.
    pub image: &'a Path,
    /// The directory of this run in the cache; holds the initramfs, the logs and the report.
    pub directory: PathBuf,
    /// Time and processors.
    pub clock: Clock,
    /// Whether KVM is used; the caller has probed it.
    pub kvm: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// The longest it may run, by the wall clock.
    pub limit: Duration,
    /// The longest it may go without a word on channel or console.
    pub silence: Duration,
    /// The same, until its first report.
    pub first_word: Duration,
    /// More words for QEMU's command line: what joins this guest to others.
    pub more: Vec<String>,
    /// More words for the kernel's command line.
    pub kernel_words: String,
}

/// How a boot ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether the guest has reported anything at all. Before that none of our code has run in it.
    pub came_up: bool,
    /// What the guest said at its end; nothing, when it ended without a word.
    pub done: Option<bool>,
    /// Complaints of its kernel.
    pub complaints: Vec<String>,
    /// Why the lab ended it, if it did.
    pub killed: Option<String>,
    /// Whether that was for its silence.
    pub hung: bool,
    /// Whether that was for what its kernel complained of before it came up.
    pub unsound: bool,
    /// Seconds from start to power-off.
    pub seconds: f64,
}

impl Outcome {
    /// Why the lab ended a guest that had not come up, if that is what happened: it was silent, or its kernel complained of
    /// itself, with nothing of ours in it.
    fn never_came_up(&self) -> Option<&str> {
        let silent = self.hung && self.complaints.is_empty();
        let own_fault = !self.came_up && (silent || self.unsound);
        self.killed.as_deref().filter(|_| own_fault)
    }

    /// Why the run failed, or nothing when it is good. Silence is a failure.
    pub fn failure(&self) -> Option<String> {
        if let Some(why) = &self.killed {
            return Some(why.clone());
        }
        if !self.complaints.is_empty() {
            return Some(format!(
                "the guest's kernel complained: {}",
                self.complaints.join(" / ")
            ));
        }
        match self.done {
            Some(true) => None,
            Some(false) => Some("the guest reported a failure".into()),
            None => Some("the guest ended without a report".into()),
        }
    }
}

impl Machine<'_> {
    /// The initramfs of this run, to be written before the boot.
    pub fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs.cpio")
    }

    /// The kernel log.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// What the guest reported.
    pub fn report(&self) -> PathBuf {
        self.directory.join(REPORT)
    }

    /// QEMU's own messages.
    pub fn messages(&self) -> PathBuf {
        self.directory.join("qemu.log")
    }

    fn arguments(&self, image: &str, interactive: bool) -> Vec<String> {
        let inside = |path: PathBuf| self.root.inside(&path);
        // A guest that panics ends at once; lines of routine below "notice" only cost time on an emulated port.
        let level = if interactive { 4 } else { 6 };
        let command_line =
            format!("console=ttyS0 panic=-1 oops=panic loglevel={level} net.ifnames=0");
        let command_line = format!("{command_line} {}", self.kernel_words);
        let command_line = command_line.trim_end();
        let console = if interactive {
            "mon:stdio".to_owned()
        } else {
            format!("file:{}", inside(self.console()))
        };
        let mut words: Vec<String> = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-cpu",
            if self.kvm { "host" } else { "max" },
            "-kernel",
            image,
            "-append",
            command_line,
            "-device",
            "virtio-serial-pci",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut pair = |name: &str, value: String| words.extend([name.to_owned(), value]);
        pair("-m", self.memory.to_string());
        pair("-smp", self.clock.vcpus().to_string());
        pair("-initrd", inside(self.initramfs()));
        pair("-serial", console);
        pair(
            "-chardev",
            format!("file,id=report,path={}", inside(self.report())),
        );
        pair(
            "-device",
            format!("virtserialport,chardev=report,name={}", channel::PORT),
        );
        match self.clock {
            _ if self.kvm => pair("-accel", "kvm".into()),
            Clock::Real { .. } => pair("-accel", "tcg,thread=multi".into()),
            Clock::Virtual => {
                pair("-accel", "tcg".into());
                pair("-icount", "shift=0,sleep=off".into());
                pair("-rtc", "clock=vm".into());
            }
        }
        words.extend(self.more.iter().cloned());
        words
    }

    fn command(&self, interactive: bool) -> Command {
        let words = self.arguments("/image", interactive);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.root.command(&[(self.image, "/image")], &words)
    }

    /// Boots it and gives every event to `on_event` as it arrives, until it is off.
    pub fn run(
        &self,
        on_event: &mut dyn FnMut(std::result::Result<Event, String>),
    ) -> Result<Outcome> {
        self.run_until(&mut || None, on_event)
    }

    /// The same for a guest that may run several times: one that hangs on its way up, or whose kernel complains before anything
    /// of ours runs in it, is booted again, and the run says so. With a thread a processor QEMU's translator loses a guest in its
    /// first second now and then (once in some hundred boots, at different places), or brings an interrupt where the kernel doesn't
    /// expect one yet; a third time is no accident any more.
    pub fn run_patiently(
        &self,
        on_event: &mut dyn FnMut(std::result::Result<Event, String>),
    ) -> Result<Outcome> {
        let mut again = 0;
        loop {
            let outcome = self.run(on_event)?;
            let Some(why) = outcome.never_came_up().filter(|_| again < AGAIN) else {
                return Ok(outcome);
            };
            again += 1;
            progress::line(&format!(
                "  ??   a guest never came up, so it is booted again: {why}"
            ));
            let kept = self.directory.join(format!("console-{again}.log"));
            std::fs::rename(self.console(), &kept)
                .context(|| format!("keeping {}", kept.display()))?;
        }
    }

    /// The same, ended early as soon as `stop` says why.
    pub fn run_until(
        &self,
        stop: &mut dyn FnMut() -> Option<String>,
        on_event: &mut dyn FnMut(std::result::Result<Event, String>),
    ) -> Result<Outcome> {
        let create =
            |path: PathBuf| File::create(&path).context(|| format!("writing {}", path.display()));
        let messages = create(self.messages())?;
        create(self.console())?;
        create(self.report())?;
        let errors = messages.try_clone().context(|| "qemu.log".to_owned())?;
        let mut child = self
            .command(false)
            .stdin(Stdio::null())
            .stdout(messages)
            .stderr(errors)
            .spawn()
            .context(|| "starting QEMU".to_owned())?;
        let mut watch = Watch::new(self)?;
        let status = loop {
            if let Some(status) = child.try_wait().context(|| "QEMU".to_owned())? {
                break status;
            }
            watch.look(on_event);
            if let Some(why) = watch.overdue(self).or_else(&mut *stop) {
                if watch.outcome.done.is_none() {
                    watch.outcome.killed = Some(why);
                }
                let _ = child.kill();
                break child.wait().context(|| "QEMU".to_owned())?;
            }
            std::thread::sleep(TICK);
        };
        watch.look(on_event);
        let mut outcome = watch.outcome;
        outcome.seconds = watch.began.elapsed().as_secs_f64();
        let console = std::fs::read(self.console()).unwrap_or_default();
        outcome.complaints = console::complaints(&String::from_utf8_lossy(&console), 5);
        if !status.success() && outcome.done.is_none() && outcome.killed.is_none() {
            let text = std::fs::read_to_string(self.messages()).unwrap_or_default();
            let why = crate::error::tail(&text, 3).join(" / ");
            outcome.killed = Some(format!("QEMU ended with {status} before any report: {why}"));
        }
        Ok(outcome)
    }

    /// Boots it with its console on this terminal.
    pub fn interactive(&self) -> Result<Outcome> {
        let began = Instant::now();
        let status = self
            .command(true)
            .status()
            .context(|| "starting QEMU".to_owned())?;
        let mut reader = channel::Reader::default();
        let mut outcome = Outcome {
            seconds: began.elapsed().as_secs_f64(),
            ..Outcome::default()
        };
        for event in reader.feed(&std::fs::read(self.report()).unwrap_or_default()) {
            if let Ok(Event::Done { ok }) = event {
                outcome.done = Some(ok);
            }
        }
        if !status.success() {
            outcome.killed = Some(format!("QEMU ended with {status}"));
        }
        Ok(outcome)
    }
}

/// What has been seen of a running guest.
struct Watch {
    report: File,
    read: u64,
    console: PathBuf,
    console_size: u64,
    reader: channel::Reader,
    began: Instant,
    heard: Instant,
    finished: Option<Instant>,
    /// What its kernel complained of before it came up.
    early: Option<String>,
    outcome: Outcome,
}

impl Watch {
    fn new(machine: &Machine<'_>) -> Result<Self> {
        let path = machine.report();
        let now = Instant::now();
        Ok(Watch {
            report: File::open(&path).context(|| format!("reading {}", path.display()))?,
            read: 0,
            console: machine.console(),
            console_size: 0,
            reader: channel::Reader::default(),
            began: now,
            heard: now,
            finished: None,
            early: None,
            outcome: Outcome::default(),
        })
    }

    fn look(&mut self, on_event: &mut dyn FnMut(std::result::Result<Event, String>)) {
        let mut octets = Vec::new();
        if self.report.seek(SeekFrom::Start(self.read)).is_ok()
            && self.report.read_to_end(&mut octets).is_ok()
        {
            self.read += octets.len() as u64;
        }
        let console_size = self.console.metadata().map(|m| m.len()).unwrap_or(0);
        let said_more = console_size != self.console_size;
        if !octets.is_empty() || said_more {
            self.heard = Instant::now();
            self.console_size = console_size;
        }
        if said_more && octets.is_empty() && !self.outcome.came_up {
            let console = std::fs::read(&self.console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            self.early = console::complaints(&console, 1).into_iter().next();
        }
        for event in self.reader.feed(&octets) {
            self.outcome.came_up |= event.is_ok();
            if let Ok(Event::Done { ok }) = event {
                self.outcome.done = Some(ok);
                self.finished = Some(Instant::now());
            }
            on_event(event);
        }
    }

    fn overdue(&mut self, machine: &Machine<'_>) -> Option<String> {
        if self.finished.is_some_and(|at| at.elapsed() > LEAVE) {
            return Some("the guest did not power off".into());
        }
        if self.began.elapsed() > machine.limit {
            return Some(format!(
                "the guest ran longer than {} s",
                machine.limit.as_secs()
            ));
        }
        if let Some(complaint) = self.early.take().filter(|_| !self.outcome.came_up) {
            self.outcome.unsound = true;
            return Some(format!(
                "its kernel complained before anything else ran: {complaint}"
            ));
        }
        let silence = if self.outcome.came_up {
            machine.silence
        } else {
            machine.first_word
        };
        if self.heard.elapsed() > silence {
            self.outcome.hung = true;
            return Some(format!(
                "the guest said nothing for {} s",
                silence.as_secs()
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_of_success_with_a_clean_log_is_a_success() {
        let good = || Outcome {
            done: Some(true),
            ..Outcome::default()
        };
        assert_eq!(good().failure(), None);
        assert!(Outcome::default()
            .failure()
            .unwrap()
            .contains("without a report"));
        assert!(Outcome {
            done: Some(false),
            ..good()
        }
        .failure()
        .is_some());
        assert!(Outcome {
            complaints: vec!["WARNING: x".into()],
            ..good()
        }
        .failure()
        .unwrap()
        .contains("WARNING"));
        assert!(Outcome {
            killed: Some("late".into()),
            ..good()
        }
        .failure()
        .is_some());
    }

    #[test]
    fn only_a_guest_that_hung_or_complained_before_its_first_word_is_booted_again() {
        let hung = || Outcome {
            killed: Some("the guest said nothing for 60 s".into()),
            hung: true,
            ..Outcome::default()
        };
        assert!(hung().never_came_up().is_some());
        let unsound = || Outcome {
            killed: Some("its kernel complained before anything else ran: BUG: x".into()),
            complaints: vec!["BUG: x".into()],
            unsound: true,
            ..Outcome::default()
        };
        assert!(unsound().never_came_up().is_some());
        let others = [
            Outcome {
                came_up: true,
                ..unsound()
            },
            Outcome {
                came_up: true,
                ..hung()
            },
            Outcome {
                complaints: vec!["WARNING: x".into()],
                ..hung()
            },
            Outcome {
                hung: false,
                ..hung()
            },
            Outcome::default(),
        ];
        for outcome in others {
            assert_eq!(outcome.never_came_up(), None, "{outcome:?}");
        }
    }
}
