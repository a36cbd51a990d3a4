// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A guest that systemd boots: its programs and the units of an ordinary start, as Debian's packages have them, and units
//! of our own, enabled as `systemctl enable` would.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::build_root::{needs_network, BuildRoot};
use crate::cache::{Cache, Contents};
use crate::cpio::Archive;
use crate::error::{Context, Error, Result};
use crate::initramfs::{libraries, merged, resolve};
use crate::key::Key;
use crate::progress;

/// What the build root lacks of it.
const PACKAGES: &str = "systemd libsystemd-shared libapparmor1";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Programs of it that a start runs.
const PROGRAMS: [&str; 4] = [
    "usr/lib/systemd/systemd",
    "usr/lib/systemd/systemd-executor",
    "usr/lib/systemd/systemd-modules-load",
    "usr/bin/systemctl",
];

/// What it loads by dlopen.
const ON_DEMAND: [&str; 4] = [
    "libkmod.so.2",
    "libmount.so.1",
    "libblkid.so.1",
    "libseccomp.so.2",
];

/// The units that a start is made of.
const UNITS: [&str; 20] = [
    "basic.target",
    "emergency.target",
    "final.target",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "paths.target",
    "poweroff.target",
    "rescue.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-modules-load.service",
    "timers.target",
    "umount.target",
];

/// Where units of our own go.
const OURS: &str = "etc/systemd/system";

/// Debian's packages, unpacked.
pub fn ensure(cache: &Cache, root: &BuildRoot) -> Result<PathBuf> {
    let key = Key::new("systemd")
        .text("root", &root.key)
        .text("packages", PACKAGES)
        .text("recipe", "1")
        .finish();
    let product = cache.product("systemd", &key, |at| {
        let log = cache.log("systemd")?;
        let script = format!(
            "cd '{}'; apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download {PACKAGES}; mkdir tree; \
             for package in *.deb; do dpkg-deb -x \"$package\" tree; rm \"$package\"; done",
            root.inside(at)
        );
        let fetch = || {
            let resolver = Path::new("/etc/resolv.conf");
            let mut command = root.script(&[(resolver, "/etc/resolv.conf")], &script);
            progress::run("systemd for the guests that boot", &mut command, &log, None)
        };
        if fetch().is_err() {
            // The archive has moved on since the root's lists were written.
            root.update_lists(&log)?;
            fetch().map_err(|error| needs_network(error, "systemd's packages"))?;
        }
        let files: Vec<String> = PROGRAMS.iter().map(|file| format!("tree/{file}")).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        Ok(Contents::files(&files))
    })?;
    Ok(product.join("tree"))
}

/// A file of our own in the guest.
pub struct File {
    /// Its path, without the first stroke.
    pub path: String,
    /// Its permissions.
    pub permissions: u32,
    /// What is in it.
    pub text: String,
}

/// A unit of our own.
pub struct Unit {
    /// Its name.
    pub name: &'static str,
    /// What stands in its file.
    pub text: String,
    /// Whether it is enabled.
    pub enabled: bool,
}

/// The links `systemctl enable` makes for a unit: where each is.
fn enabling(unit: &Unit) -> Vec<String> {
    let mut links = Vec::new();
    let mut section = "";
    for line in unit.text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| section == "[Install]") else {
            continue;
        };
        let folder = match name {
            "WantedBy" => "wants",
            "RequiredBy" => "requires",
            _ => continue,
        };
        for other in value.split_whitespace() {
            links.push(format!("{OURS}/{other}.{folder}/{}", unit.name));
        }
    }
    links
}

/// Adds all of it to a guest's file system.
pub fn append(
    root: &BuildRoot,
    tree: &Path,
    units: &[Unit],
    files: &[File],
    to: &Path,
) -> Result<()> {
    let name = || format!("writing {}", to.display());
    let file = fs::File::options().append(true).open(to).context(name)?;
    let mut archive = Archive::new(BufWriter::new(file));
    for (inside, host) in programs(root, tree)? {
        let data = fs::read(&host).context(|| format!("reading {}", host.display()))?;
        archive.file(&inside, 0o755, &data).context(name)?;
    }
    for unit in UNITS {
        let path = format!("usr/lib/systemd/system/{unit}");
        let host = tree.join(&path);
        let data = fs::read(&host).context(|| format!("reading {}", host.display()))?;
        archive.file(&path, 0o644, &data).context(name)?;
    }
    archive
        .symlink(
            &format!("{OURS}/default.target"),
            "/usr/lib/systemd/system/multi-user.target",
        )
        .context(name)?;
    archive
        .symlink(
            "usr/lib/systemd/system/sysinit.target.wants/systemd-modules-load.service",
            "../systemd-modules-load.service",
        )
        .context(name)?;
    for unit in units {
        archive
            .file(
                &format!("{OURS}/{}", unit.name),
                0o644,
                unit.text.as_bytes(),
            )
            .context(name)?;
        for link in enabling(unit).iter().filter(|_| unit.enabled) {
            archive
                .symlink(link, &format!("/{OURS}/{}", unit.name))
                .context(name)?;
        }
    }
    for file in files {
        archive
            .file(&file.path, file.permissions, file.text.as_bytes())
            .context(name)?;
    }
    archive.file("etc/machine-id", 0o444, b"").context(name)?;
    archive.finish().context(name)?;
    Ok(())
}

/// Its programs with every library they load: where each is in the guest, and on the host.
fn programs(root: &BuildRoot, tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let inside = root.inside(tree);
    let paths: Vec<String> = PROGRAMS
        .iter()
        .map(|path| format!("{inside}/{path}"))
        .collect();
    let script = format!(
        "LD_LIBRARY_PATH='{inside}/{LIBRARIES}:{inside}/{LIBRARIES}/systemd' ldd {}",
        paths.join(" ")
    );
    let listed = root.output(&["/bin/sh", "-euc", &script])?;
    let mut files: BTreeMap<String, PathBuf> = PROGRAMS
        .iter()
        .map(|path| ((*path).to_owned(), tree.join(path)))
        .collect();
    let more = ON_DEMAND.iter().map(|leaf| format!("/{LIBRARIES}/{leaf}"));
    for path in libraries(&listed).into_iter().chain(more) {
        let (path, place) = match path.strip_prefix(&inside) {
            Some(path) => (path.to_owned(), tree),
            None => (path.clone(), root.path.as_path()),
        };
        let host = resolve(place, &path).ok_or_else(|| {
            Error::check(format!("systemd loads {path}, which the build root lacks"))
        })?;
        files.insert(merged(&path), host);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_enabled_where_its_install_section_says() {
        let unit = Unit {
            name: "a.service",
            text: "[Unit]\nWantedBy=not.this\n[Install]\nWantedBy=sysinit.target\nRequiredBy=x.service y.service\n".to_owned(),
            enabled: true,
        };
        assert_eq!(
            enabling(&unit),
            [
                "etc/systemd/system/sysinit.target.wants/a.service",
                "etc/systemd/system/x.service.requires/a.service",
                "etc/systemd/system/y.service.requires/a.service",
            ]
        );
    }
}
