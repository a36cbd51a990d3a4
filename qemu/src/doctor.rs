// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the lab needs of the machine: looked for, said, and installed when allowed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::json;

use crate::build_root::{self, Mode};
use crate::cache;
use crate::error::{Error, Result};
use crate::progress;
use crate::report::Report;

/// Room an empty cache needs, in GiB: root 1.8, kernel source 2.2, packages and images 0.4, and air. The debug kernel
/// takes 4 more.
const DISK: u64 = 8;

/// Memory in GiB: a guest of 1 and a compiler of 1 beside what runs anyway.
const MEMORY: u64 = 3;

/// Programs the lab runs, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 9] = [
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
    ("dpkg-query", "dpkg"),
    ("tar", "tar"),
    ("cargo", "cargo"),
    ("gcc", "gcc"),
];

/// One thing looked for.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    name: String,
    /// Whether it is as it must be.
    ok: bool,
    /// What was found.
    detail: String,
    /// The Debian package that brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    /// What else brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn new(name: &str, ok: bool, detail: impl Into<String>) -> Self {
        Finding {
            name: name.to_owned(),
            ok,
            detail: detail.into(),
            package: None,
            mend: None,
        }
    }

    fn package(mut self, package: &str) -> Self {
        self.package = Some(package.to_owned());
        self
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// Where a program is, also in the directories an ordinary user's PATH leaves out.
fn find(program: &str) -> Option<PathBuf> {
    // Under `cargo lab` this is the cargo that runs us, wherever it lies.
    if let Some(cargo) = std::env::var_os("CARGO")
        .map(PathBuf::from)
        .filter(|path| program == "cargo" && path.is_file())
    {
        return Some(cargo);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn programs() -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS
        .iter()
        .map(|(program, package)| match find(program) {
            Some(path) => Finding::new(program, true, path.display().to_string()),
            None => Finding::new(program, false, "not found").package(package),
        })
        .collect();
    let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let pgp = Path::new("/usr/share/keyrings/debian-archive-keyring.pgp");
    let found = keyring.exists() || pgp.exists();
    findings.push(
        Finding::new(
            "Debian's archive keys",
            found,
            if found { "installed" } else { "not found" },
        )
        .package("debian-archive-keyring"),
    );
    // The guests' programs are linked static, libc included.
    let output = Command::new("gcc").arg("-print-file-name=libc.a").output();
    let libc = output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    let found = libc.starts_with('/');
    let detail = if found { libc } else { "not found".to_owned() };
    findings.push(Finding::new("static libc", found, detail).package("libc6-dev"));
    findings
}

fn rights(mode: Mode) -> Vec<Finding> {
    let works = succeeds(&mut mode.command("true"));
    match mode {
        Mode::Root => {
            let finding = if works {
                Finding::new(
                    "namespaces",
                    true,
                    "as root, in mount and process namespaces",
                )
            } else {
                Finding::new(
                    "namespaces",
                    false,
                    "unshare --mount --pid is not allowed here",
                )
                .mend("in a container, start it with CAP_SYS_ADMIN (docker run --privileged)")
            };
            vec![finding]
        }
        Mode::User => {
            let newuidmap = find("newuidmap").is_some();
            let mut findings =
                vec![
                    Finding::new("newuidmap", newuidmap, "for subordinate user ids")
                        .package("uidmap"),
                ];
            findings.push(if works {
                Finding::new("namespaces", true, "as an ordinary user, in a user namespace")
            } else {
                Finding::new("namespaces", false, "unshare --user --map-auto --map-root-user does not work here").mend(
                    "needs util-linux 2.38, a range for you in /etc/subuid and /etc/subgid (usermod --add-subuids \
                     100000-165535 --add-subgids 100000-165535 $USER), and sysctl kernel.unprivileged_userns_clone=1 / \
                     kernel.apparmor_restrict_unprivileged_userns=0 where the kernel has them; or run as root",
                )
            });
            findings
        }
    }
}

fn resources(directory: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let existing = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let warm = std::fs::read_dir(directory).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("tree-"))
    });
    if let Ok(stat) = rustix::fs::statvfs(existing) {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 30;
        let need = if warm { 2 } else { DISK };
        let detail = format!("{free} GiB free for {}, {need} needed", directory.display());
        findings.push(
            Finding::new("disk", free >= need, detail).mend("make room, or set XDG_CACHE_HOME"),
        );
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(free) = available_memory(&meminfo) {
        let detail = format!("{free} GiB available, {MEMORY} needed");
        findings.push(Finding::new("memory", free >= MEMORY, detail).mend("end what uses it"));
    }
    let arch = std::env::consts::ARCH;
    findings.push(
        Finding::new("processor", arch == "x86_64", arch.to_owned())
            .mend("the lab runs on x86-64 hosts; on others, build the module with --kdir's recipe in kbuild/"),
    );
    findings
}

/// `MemAvailable` in GiB.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

/// Looks at everything.
fn examine(mode: Mode, directory: &Path) -> Vec<Finding> {
    let mut findings = programs();
    findings.extend(rights(mode));
    findings.extend(resources(directory));
    findings
}

fn packages(findings: &[Finding]) -> BTreeSet<&str> {
    findings
        .iter()
        .filter(|f| !f.ok)
        .filter_map(|f| f.package.as_deref())
        .collect()
}

fn install_words(findings: &[Finding]) -> Option<Vec<String>> {
    let packages = packages(findings);
    if packages.is_empty() {
        return None;
    }
    let mut words: Vec<String> = ["apt-get", "install", "-y", "--no-install-recommends"]
        .map(str::to_owned)
        .to_vec();
    words.extend(packages.into_iter().map(str::to_owned));
    if Mode::of_caller() == Mode::User {
        words.insert(0, "sudo".to_owned());
    }
    Some(words)
}

fn install(words: &[String]) -> bool {
    progress::line(&format!("  $ {}", words.join(" ")));
    let run = |words: &[String]| {
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr());
        command.status().is_ok_and(|status| status.success())
    };
    // The lists may be old or missing: once more with fresh ones.
    let mut update: Vec<String> = words
        .iter()
        .take_while(|word| *word != "install")
        .cloned()
        .collect();
    update.push("update".to_owned());
    run(words) || (run(&update) && run(words))
}

fn missing(findings: &[Finding]) -> Result<()> {
    let lacking: Vec<&Finding> = findings.iter().filter(|finding| !finding.ok).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = lacking
        .iter()
        .map(|f| format!("{} ({})", f.name, f.detail))
        .collect();
    let mut mends: Vec<String> = install_words(findings)
        .map(|words| words.join(" "))
        .into_iter()
        .collect();
    mends.extend(
        lacking
            .iter()
            .filter(|f| f.package.is_none())
            .filter_map(|f| f.mend.clone()),
    );
    Err(Error::environment(
        format!("this machine lacks: {}", what.join(", ")),
        mends.join("; and: "),
    ))
}

/// Before a command that needs it all: as root installs what is missing, else fails and says what brings it.
pub fn require(mode: Mode, directory: &Path) -> Result<()> {
    let mut findings = examine(mode, directory);
    if mode == Mode::Root {
        if let Some(words) = install_words(&findings) {
            install(&words);
            findings = examine(mode, directory);
        }
    }
    missing(&findings)
}

/// The command: shows what was found, installs when allowed.
pub fn command(allowed: bool, look: bool, json: Option<&Path>) -> Result<()> {
    let mode = Mode::of_caller();
    let directory = cache::location()?;
    let mut findings = examine(mode, &directory);
    if allowed || (mode == Mode::Root && !look) {
        if let Some(words) = install_words(&findings) {
            install(&words);
            findings = examine(mode, &directory);
        }
    }
    println!(
        "The lab runs {}.",
        match mode {
            Mode::Root => "as root",
            Mode::User => "as an ordinary user, in user namespaces",
        }
    );
    for finding in &findings {
        println!(
            "  {} {:22} {}",
            if finding.ok { "ok" } else { "!!" },
            finding.name,
            finding.detail
        );
    }
    let mirror = build_root::mirror();
    println!(
        "  -- {:22} {}",
        "Debian mirror",
        mirror
            .as_deref()
            .unwrap_or("none in the apt sources: mmdebstrap's own")
    );
    let kvm = Path::new("/dev/kvm").exists();
    let kvm = if kvm {
        "/dev/kvm is there; --accel auto tries it with a probe boot"
    } else {
        "no /dev/kvm: not needed"
    };
    println!("  -- {:22} {kvm}", "KVM");
    println!("  -- {:22} {}", "cache", directory.display());
    let mut report = Report::default();
    let list: Vec<serde_json::Value> = findings.iter().map(|finding| json!(finding)).collect();
    report.set("findings", list);
    report.set("mode", if mode == Mode::Root { "root" } else { "user" });
    report.set("cache", directory.display().to_string());
    report.set("ok", findings.iter().all(|finding| finding.ok));
    report.write(json)?;
    missing(&findings)?;
    println!("\nAll is here. Next: cargo lab demo");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_rounded_to_gibibytes() {
        assert_eq!(
            available_memory("MemTotal: 1 kB\nMemAvailable:   3145000 kB\n"),
            Some(3)
        );
        assert_eq!(available_memory("nothing"), None);
    }

    #[test]
    fn what_is_missing_names_the_packages_once() {
        let findings = [
            Finding::new("a", false, "x").package("util-linux"),
            Finding::new("b", false, "x").package("util-linux"),
            Finding::new("c", true, "x").package("other"),
            Finding::new("d", false, "full").mend("make room"),
        ];
        let words = install_words(&findings).unwrap();
        assert_eq!(words.iter().filter(|word| *word == "util-linux").count(), 1);
        assert!(!words.contains(&"other".to_owned()));
        let Err(Error::Environment { what, mend, .. }) = missing(&findings) else {
            panic!("nothing missing")
        };
        assert!(what.contains("d (full)") && mend.contains("make room"));
        assert!(missing(&[]).is_ok());
    }
}
