// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! strongSwan of a newer Debian than the build root's: the first that has ML-KEM, which trixie's can't do.
//!
//! It brings the C library it was built for, so it lies in a directory of its own, and the guest changes its root there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build_root::{mirror, needs_network, Mode};
use crate::cache::{Cache, Contents};
use crate::error::{Context, Result};
use crate::key::Key;
use crate::progress;

const SUITE: &str = "forky";
const PACKAGES: &str = "charon-systemd,strongswan-swanctl";

/// The scenario that asks for it.
pub const SCENARIO: &str = "strongswan-and-keyd-exchange-ml-kem";

/// Where it lies in the guest.
pub const INSIDE: &str = "opt/newer";

/// What is taken of the packages, and of those they need: patterns as tar(1) knows them.
const FILES: [&str; 12] = [
    "./usr/sbin/charon-systemd",
    "./usr/sbin/swanctl",
    "./usr/lib/ipsec/*",
    "./usr/lib64/ld-linux-x86-64.so.2",
    "./usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "./usr/lib/x86_64-linux-gnu/libc.so.6",
    "./usr/lib/x86_64-linux-gnu/libm.so.6",
    "./usr/lib/x86_64-linux-gnu/libcap.so.*",
    // The C library loads it where a thread is ended.
    "./usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "./usr/lib/x86_64-linux-gnu/libcrypto.so.*",
    "./usr/lib/x86_64-linux-gnu/libsystemd.so.*",
    "./usr/lib/x86_64-linux-gnu/libz*.so.*",
];

/// Its tree, fetched when the cache lacks it.
pub fn ensure(cache: &Cache, mode: Mode) -> Result<PathBuf> {
    let key = Key::new("newer")
        .text("suite", SUITE)
        .text("packages", PACKAGES)
        .text("files", &FILES.join(" "))
        .text("recipe", "1")
        .finish();
    let product = cache.product("newer", &key, |at| {
        let log = cache.log("newer")?;
        let tar = at.join("newer.tar");
        let mut fetch = Command::new("mmdebstrap");
        fetch.args([
            "--variant=extract",
            "--aptopt=Acquire::Languages \"none\"",
            "--aptopt=Acquire::Retries \"3\"",
            // A mirror may be a copy of a day gone by. What is fetched is signed all the same.
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
        ]);
        fetch.arg(match mode {
            Mode::Root => "--mode=root",
            Mode::User => "--mode=unshare",
        });
        fetch
            .arg(format!("--include={PACKAGES}"))
            .arg(SUITE)
            .arg(&tar);
        if let Some(mirror) = mirror() {
            fetch.arg(format!("deb {mirror} {SUITE} main"));
        }
        progress::run("strongSwan with ML-KEM", &mut fetch, &log, None)
            .map_err(|error| needs_network(error, "strongSwan's newer packages"))?;
        let tree = at.join("tree");
        fs::create_dir(&tree).context(|| format!("making {}", tree.display()))?;
        let mut unpack = Command::new("tar");
        unpack
            .args(["--no-same-owner", "--wildcards", "-xf"])
            .arg(&tar)
            .arg("-C")
            .arg(&tree)
            .args(FILES);
        progress::run("strongSwan with ML-KEM: unpacking", &mut unpack, &log, None)?;
        fs::remove_file(&tar).context(|| format!("removing {}", tar.display()))?;
        links(&tree)?;
        Ok(Contents::files(&[
            "tree/usr/sbin/charon-systemd",
            "tree/usr/sbin/swanctl",
            "tree/usr/lib/x86_64-linux-gnu/libc.so.6",
        ]))
    })?;
    cache.prune("newer", 2)?;
    Ok(product.join("tree"))
}

/// The directories that the guest's have to be bound to, and the links of a merged /usr, which no package brings.
fn links(tree: &Path) -> Result<()> {
    for directory in ["dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"] {
        let path = tree.join(directory);
        fs::create_dir_all(&path).context(|| format!("making {}", path.display()))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        let path = tree.join(link);
        std::os::unix::fs::symlink(format!("usr/{link}"), &path)
            .context(|| format!("making {}", path.display()))?;
    }
    Ok(())
}
