// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's log and leak detector: a scenario that makes the kernel complain has failed, whatever else it showed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::command;

/// What the kernel writes when something is wrong with it.
const COMPLAINTS: &[&str] = &[
    "WARNING",
    "BUG",
    "Oops",
    "Call Trace",
    "general protection fault",
    "KASAN",
    "UBSAN",
    "ODEBUG",
    "DEBUG_LOCKS_WARN_ON",
    "refcount_t",
    "unregister_netdevice: waiting",
    "INFO: possible",
    "INFO: trying to register non-static key",
    "inconsistent lock state",
    "possible recursive locking",
    "possible circular locking",
    "suspicious RCU usage",
    "held lock freed",
    "sleeping function called",
    "scheduling while atomic",
    "rcu: INFO",
    "blocked for more than",
    "soft lockup",
    "panicked at",
    "leaked reference",
    "slab error",
    "list_add corruption",
    "list_del corruption",
];

/// What a trace may follow of where memory was asked for, when none was left.
const NO_MEMORY: [&str; 2] = ["invoked oom-killer", "page allocation failure"];
/// Lines between the two: the processor, the taint, the hardware.
const BETWEEN: usize = 8;

/// Whether the running scenario takes all memory away.
static MEMORY_MAY_RUN_OUT: AtomicBool = AtomicBool::new(false);

/// From now on until the next [`KernelLog::check`] the kernel may say that it has no memory, and where it asked for some.
#[allow(dead_code, reason = "no scenario on guests takes memory away")]
pub fn memory_may_run_out() {
    MEMORY_MAY_RUN_OUT.store(true, Ordering::Relaxed);
}

/// Which line is the first complaint.
fn first_complaint(lines: &[String], may_run_out: bool) -> Option<usize> {
    let told_of_memory = |at: usize| {
        lines
            .iter()
            .take(at)
            .rev()
            .take(BETWEEN)
            .any(|line| NO_MEMORY.iter().any(|words| line.contains(words)))
    };
    lines.iter().enumerate().position(|(at, line)| {
        COMPLAINTS.iter().any(|complaint| {
            line.contains(complaint)
                && !(may_run_out && *complaint == "Call Trace" && told_of_memory(at))
        })
    })
}

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// A reader of /dev/kmsg that knows what it has read.
pub struct KernelLog {
    device: File,
}

impl KernelLog {
    /// Starts at the end of what the kernel has said so far.
    pub fn from_now() -> Result<Self> {
        let mut device = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        device.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(Self { device })
    }

    /// The text of every record since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = [0u8; 8192];
        loop {
            match self.device.read(&mut record) {
                Ok(0) => return Ok(lines),
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default())
                        .into_owned();
                    // "priority,sequence,time,flags;text", then lines of properties (Documentation/ABI/testing/dev-kmsg).
                    let text = text.split_once(';').map_or(text.as_str(), |(_, text)| text);
                    lines.push(text.lines().next().unwrap_or_default().to_owned());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(lines),
                // Records were overwritten before they were read: go on with the oldest there is.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }

    /// An error that quotes the first complaint since the last call, if there is one.
    pub fn check(&mut self) -> Result<()> {
        let lines = self.new_lines()?;
        let may_run_out = MEMORY_MAY_RUN_OUT.swap(false, Ordering::Relaxed);
        let Some(first) = first_complaint(&lines, may_run_out) else {
            return Ok(());
        };
        let quoted: Vec<&str> = lines
            .iter()
            .skip(first)
            .take(25)
            .map(String::as_str)
            .collect();
        bail!("the kernel complained:\n{}", quoted.join("\n"))
    }
}

/// Whether this is a debug kernel, which is many times slower.
pub fn is_debug_kernel() -> bool {
    Path::new(KMEMLEAK).exists()
}

/// Forgets every leak seen so far.
pub fn forget_leaks() {
    if is_debug_kernel() {
        let _ = std::fs::write(KMEMLEAK, "clear");
    }
}

/// Scans for memory the kernel has lost since [`forget_leaks`]; nothing to do on a kernel without kmemleak. What is lost shows
/// in two scans: one a scenario would do, so that what the last one lost shows by the end of this one. `last`: nothing follows,
/// and all is to show now.
pub fn check_leaks(last: bool) -> Result<()> {
    if !is_debug_kernel() {
        return Ok(());
    }
    let scan = || -> Result<String> {
        std::fs::write(KMEMLEAK, "scan").context(KMEMLEAK)?;
        std::fs::read_to_string(KMEMLEAK).context(KMEMLEAK)
    };
    // An object is only reported once it is 5 s old, and only what two scans see alike is certain.
    let twice = || -> Result<String> {
        scan()?;
        std::thread::sleep(Duration::from_secs(6));
        scan()
    };
    let first = if last { twice()? } else { scan()? };
    if first.trim().is_empty() {
        return Ok(());
    }
    // Buffers that one CPU freed for another wait in lists of that one's until its next packets (skb_attempt_defer_free),
    // linked through memory that the scan may not know. What is lost stays so, whatever comes.
    stir()?;
    let report = twice()?;
    if report.trim().is_empty() {
        return Ok(());
    }
    forget_leaks();
    let quoted: Vec<&str> = report.lines().take(40).collect();
    bail!(
        "kmemleak found memory lost, here or in the scenario before:\n{}",
        quoted.join("\n")
    )
}

/// Sends packets to itself on every CPU.
fn stir() -> Result<()> {
    command::run(&["ip", "link", "set", "lo", "up"])?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    for cpu in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        std::thread::scope(|scope| -> Result<()> {
            let thread = scope.spawn(|| -> Result<()> {
                let mut only = CpuSet::new();
                only.set(cpu)?;
                sched_setaffinity(Pid::from_raw(0), &only)?;
                for _ in 0..300 {
                    socket.send(&[0; 32])?;
                    socket.recv(&mut [0; 32])?;
                }
                Ok(())
            });
            thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::first_complaint;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn only_where_memory_may_run_out_is_its_trace_no_complaint() {
        let killer = lines(&[
            "dash invoked oom-killer: gfp_mask=0x140cca, order=0, oom_score_adj=1000",
            "CPU: 1 UID: 0 PID: 77 Comm: dash Tainted: G",
            "Hardware name: QEMU",
            "Call Trace:",
            " <TASK>",
        ]);
        assert_eq!(first_complaint(&killer, true), None);
        assert_eq!(first_complaint(&killer, false), Some(3));
        let worse = [
            killer,
            lines(&[
                "BUG: unable to handle page fault",
                "x",
                "x",
                "x",
                "x",
                "x",
                "x",
                "x",
                "x",
                "Call Trace:",
            ]),
        ]
        .concat();
        assert_eq!(first_complaint(&worse, true), Some(5));
        assert_eq!(first_complaint(&lines(&["Call Trace:"]), true), Some(0));
    }
}
