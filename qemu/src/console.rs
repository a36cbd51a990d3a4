// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The guest's kernel log, searched for what must not be in it.

/// Complaints at the beginning of a message, after time stamp and caller.
const BEGINNINGS: [&str; 6] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace:",
    "INFO: task ",
    "INFO: rcu",
];

/// Complaints anywhere in a message.
const ANYWHERE: [&str; 22] = [
    "------------[ cut here ]------------",
    "KASAN:",
    "UBSAN:",
    "KFENCE:",
    "ODEBUG:",
    "general protection fault",
    "Kernel panic",
    "unable to handle",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called from invalid context",
    "scheduling while atomic",
    "refcount_t:",
    "new suspected memory leaks",
    "unreferenced object",
    "unregister_netdevice: waiting",
    "detected stalls",
    "soft lockup",
    "rust_kernel: panicked",
    "Rust panic",
];

/// Takes `[   12.345678][  T123] ` off a line.
fn message(line: &str) -> &str {
    let mut rest = line.trim();
    while let Some(inside) = rest.strip_prefix('[') {
        let Some((stamp, after)) = inside.split_once(']') else {
            break;
        };
        let stamp = stamp.trim();
        let timing = stamp.chars().all(|c| c.is_ascii_digit() || c == '.');
        let caller =
            stamp.starts_with(['T', 'C']) && stamp[1..].chars().all(|c| c.is_ascii_digit());
        if !timing && !caller {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// Whether a line of the console is a complaint of the kernel.
pub fn is_complaint(line: &str) -> bool {
    let message = message(line);
    BEGINNINGS.iter().any(|sign| message.starts_with(sign))
        || ANYWHERE.iter().any(|sign| message.contains(sign))
}

/// All complaints of a log, at most `limit` of them.
pub fn complaints(log: &str, limit: usize) -> Vec<String> {
    log.lines()
        .filter(|line| is_complaint(line))
        .take(limit)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_the_kernel_are_found() {
        for line in [
            "[    1.5] WARNING: CPU: 1 PID: 1 at net/core/dev.c:1 x+0x1/0x2",
            "[   12.345678][  T123] BUG: KASAN: slab-out-of-bounds in mml_send+0x1/0x2 [mml]",
            "[    3.1] ------------[ cut here ]------------",
            "[    3.1] Oops: 0000 [#1] SMP",
            "[   61.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "[   61.0] unregister_netdevice: waiting for mml0 to become free. Usage count = 2",
            "[   61.0] WARNING: possible circular locking dependency detected",
            "[    2.0] BUG: unable to handle page fault for address: 00",
            "[    9.0] INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
            "[    9.0] rust_kernel: panicked at mml_main.rs:1:1:",
        ] {
            assert!(is_complaint(line), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_complaints() {
        for line in [
            "[    0.5] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
            "[    0.0] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
            "[    0.1] kmemleak: Kernel memory leak detector initialized (mem pool available: 38000)",
            "[    0.2] RCU Tasks: Setting shift to 1",
            "mml# echo hello",
            "[ok] something",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }
}
