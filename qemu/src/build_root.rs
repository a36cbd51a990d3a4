// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The build root: a Debian trixie with the kernel's own toolchain and QEMU, and how commands run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, Contents};
use crate::error::{Context, Error, Result};
use crate::key::Key;
use crate::progress;
use crate::sources;
use crate::workspace::Workspace;

/// The Debian release of the build root: the one whose toolchain built the kernels of its backports.
pub const SUITE: &str = "trixie";

/// Where the cache is seen inside the root.
pub const INSIDE: &str = "/lab";

/// Lines mmdebstrap prints for this package list.
const BOOTSTRAP_LINES: u64 = 20;

/// The packages that decide what comes out of a build of kernel or module.
const TOOLCHAIN: &str =
    "rustc rust-src bindgen libclang-19-dev clang-19 lld-19 llvm-19 gcc-14 binutils make pahole";

/// Their versions, in the product beside the root.
const VERSIONS: &str = "toolchain";

/// How the lab gets the rights to enter a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As root.
    Root,
    /// As an ordinary user, in a user namespace with the user's subordinate ids.
    User,
}

impl Mode {
    /// The mode of the user who runs the lab.
    pub fn of_caller() -> Self {
        if rustix::process::geteuid().is_root() {
            Mode::Root
        } else {
            Mode::User
        }
    }

    /// A command with root's rights over the cache and namespaces of its own, ended with the lab.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Should the lab be killed, what it started must not go on: not even a guest nobody listens to.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if self == Mode::User {
            // A process that enters a user namespace loses its parent-death signal: asked for again.
            command.args([
                "unshare",
                "--user",
                "--map-auto",
                "--map-root-user",
                "setpriv",
                "--pdeathsig",
                "KILL",
            ]);
        }
        command
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .arg(program);
        command
    }
}

/// A build root that stands.
pub struct BuildRoot {
    /// Its directory on the host.
    pub path: PathBuf,
    /// The key it was made under.
    pub key: String,
    /// The compilers' packages and versions: an ingredient of all that is compiled inside. A package that only
    /// guests use may come and go without a kernel being built again.
    pub toolchain: String,
    mode: Mode,
    enter: PathBuf,
    cache: PathBuf,
}

fn words(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The non-comment lines of one of the lists in `kbuild/`.
pub fn list(workspace: &Workspace, name: &str) -> Result<Vec<String>> {
    let path = workspace.kbuild().join(name);
    let text = fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(words(&text).into_iter().map(str::to_owned).collect())
}

/// The Debian mirror to use: the environment's, or the host's own; `None` leaves it to mmdebstrap.
pub fn mirror() -> Option<String> {
    std::env::var("MML_DEBIAN_MIRROR")
        .ok()
        .filter(|mirror| !mirror.is_empty())
        .map(|mirror| mirror.trim_end_matches('/').to_owned())
        .or_else(|| sources::debian_mirror(&sources::read(Path::new("/etc/apt"))))
}

impl BuildRoot {
    /// The root of this package list, made when it does not stand.
    pub fn ensure(workspace: &Workspace, cache: &Cache, mode: Mode) -> Result<Self> {
        let packages = list(workspace, "packages")?;
        let key = Key::new("root")
            .text("suite", SUITE)
            .text("packages", &packages.join(" "))
            .text("recipe", "2");
        let key = key.finish();
        let product = cache.product("root", &key, |at| bootstrap(cache, mode, &packages, at))?;
        let versions = product.join(VERSIONS);
        let root = BuildRoot {
            path: product.join("root"),
            key,
            toolchain: fs::read_to_string(&versions)
                .context(|| format!("reading {}", versions.display()))?,
            mode,
            enter: workspace.kbuild().join("enter"),
            cache: cache.dir.clone(),
        };
        Ok(root)
    }

    /// A command in the root, which sees the cache at `/lab` and each `(host path, inside path)` bound there.
    pub fn command(&self, binds: &[(&Path, &str)], words: &[&str]) -> Command {
        let mut command = self.mode.command(&self.enter);
        command.arg(&self.path).arg(&self.cache).arg(INSIDE);
        for (source, target) in binds {
            command.arg(source).arg(target);
        }
        command.arg("--").args(words);
        command
    }

    /// A shell script in the root.
    pub fn script(&self, binds: &[(&Path, &str)], script: &str) -> Command {
        self.command(binds, &["/bin/sh", "-euc", script])
    }

    /// What a short command in the root prints.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        let mut command = self.command(&[], words);
        let output = command
            .output()
            .context(|| format!("running {} in the build root", words[0]))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(Error::check(format!(
                "{} in the build root: {}",
                words.join(" "),
                error.trim()
            )))
        }
    }

    /// The path inside the root of something in the cache.
    pub fn inside(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.cache).unwrap_or(path);
        format!("{INSIDE}/{}", relative.display())
    }

    /// Asks the archive what it has now.
    pub fn update_lists(&self, log: &Path) -> Result<()> {
        // The host's resolver may have moved since the root was made.
        let mut command = self.script(
            &[(Path::new("/etc/resolv.conf"), "/etc/resolv.conf")],
            "apt-get -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 update",
        );
        progress::run("package lists", &mut command, log, None)
            .map(|_| ())
            .map_err(|error| needs_network(error, "the package lists"))
    }
}

/// A failed download is the environment's fault, and says so.
pub fn needs_network(error: Error, what: &str) -> Error {
    match error {
        Error::Check { what: why, log } => Error::Environment {
            what: format!("{what} did not come: {why}"),
            mend: "look at the log; if the mirror cannot be reached, set MML_DEBIAN_MIRROR to one that can".into(),
            log,
        },
        other => other,
    }
}

fn bootstrap(cache: &Cache, mode: Mode, packages: &[String], at: &Path) -> Result<Contents> {
    let log = cache.log("root")?;
    let root = at.join("root");
    let tar = at.join("root.tar");
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--variant=apt",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=Acquire::Retries \"3\"",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]);
    command.arg(format!("--include={}", packages.join(",")));
    match mode {
        Mode::Root => command.args(["--mode=root", SUITE]).arg(&root),
        Mode::User => command.args(["--mode=unshare", SUITE]).arg(&tar),
    };
    if let Some(mirror) = mirror() {
        command.arg(format!("deb {mirror} {SUITE} main"));
    }
    progress::run(
        "build root: Debian trixie with the kernel's toolchain",
        &mut command,
        &log,
        Some(BOOTSTRAP_LINES),
    )
    .map_err(|error| needs_network(error, "the build root"))?;
    if mode == Mode::User {
        // mmdebstrap maps user ids its own way; unpacked under ours, the files belong to the ids we enter with.
        fs::create_dir(&root).context(|| format!("making {}", root.display()))?;
        let mut unpack = mode.command("tar");
        unpack
            .args(["--exclude=./dev/*", "-xf"])
            .arg(&tar)
            .arg("-C")
            .arg(&root);
        progress::run("build root: unpacking", &mut unpack, &log, None)?;
        fs::remove_file(&tar).context(|| format!("removing {}", tar.display()))?;
    }
    add_backports(mode, &root, &log)?;
    let mut query = mode.command("dpkg-query");
    query
        .arg("--root")
        .arg(&root)
        .args(["-W", "-f", "${Package} ${Version}\n"])
        .args(TOOLCHAIN.split(' '));
    let output = query.output().context(|| "dpkg-query".to_owned())?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::logged(
            format!("the build root lacks compilers: {}", error.trim()),
            log,
        ));
    }
    fs::write(at.join(VERSIONS), output.stdout)
        .context(|| "writing the compilers' versions".to_owned())?;
    Ok(Contents::files(&[
        VERSIONS,
        "root/usr/bin/qemu-system-x86_64",
        "root/usr/bin/make",
        "root/usr/bin/bindgen",
        "root/usr/bin/x86_64-linux-gnu-gcc-14",
    ])
    .and_directories(&["root/usr"]))
}

/// Adds the backports suite beside what mmdebstrap wrote, from the same mirror.
fn add_backports(mode: Mode, root: &Path, log: &Path) -> Result<()> {
    let written = sources::read(&root.join("etc/apt"));
    let mirror =
        sources::debian_mirror(&written).or_else(|| written.first().map(|s| s.uri.clone()));
    let Some(mirror) = mirror else {
        return Err(Error::logged(
            "mmdebstrap wrote no package source into the build root",
            log,
        ));
    };
    let line = format!("deb {mirror} {SUITE}-backports main\n");
    let mut command = mode.command("sh");
    command.args(["-euc", "mkdir -p \"$1/lab\"; printf %s \"$2\" >\"$1/etc/apt/sources.list.d/backports.list\"; [ -e \"$1/etc/resolv.conf\" ] || : >\"$1/etc/resolv.conf\"", "sh"]);
    command.arg(root).arg(line);
    let status = command
        .status()
        .context(|| "adding backports to the build root".to_owned())?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::check(
            "the backports suite could not be added to the build root",
        ))
    }
}
