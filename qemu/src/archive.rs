// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's packages: which release the archive offers, and their download.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build_root::{needs_network, BuildRoot};
use crate::cache::{Cache, Contents};
use crate::error::{Context, Error, Result};
use crate::key::Key;
use crate::progress;
use crate::release::{self, Release, SUPPORTED};

/// The architecture of host and guests, as Debian calls it.
pub const ARCH: &str = "amd64";

/// The chosen release and the directory its packages lie in.
pub struct Packages {
    /// What was chosen.
    pub release: Release,
    /// Where the `.deb` files are.
    pub directory: PathBuf,
    /// The key of the download.
    pub key: String,
}

fn choice_file(cache: &Cache, root: &BuildRoot) -> PathBuf {
    cache.dir.join(format!("release-{}.json", root.key))
}

/// The release chosen earlier, unless `refresh` asks the archive anew.
///
/// A choice stands until then: the archive moves every few weeks, and a warm run needs no network.
fn choose(cache: &Cache, root: &BuildRoot, refresh: bool) -> Result<Release> {
    let file = choice_file(cache, root);
    if !refresh {
        let earlier = fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        if let Some(release) = earlier {
            return Ok(release);
        }
    }
    root.update_lists(&cache.log("lists")?)?;
    let series: Vec<String> = SUPPORTED
        .iter()
        .map(|(major, minor)| format!("{major}[.]{minor}"))
        .collect();
    let script = format!(
        "apt-cache pkgnames linux- | grep -E '^linux-(headers|image|binary|modules|base|source)-({})' | grep -v -- -dbg | \
         xargs -r apt-cache show",
        series.join("|")
    );
    let show = root.output(&["/bin/sh", "-c", &script])?;
    let release = release::choose(&show, ARCH).ok_or_else(|| {
        let names: Vec<String> = SUPPORTED
            .iter()
            .map(|(major, minor)| format!("{major}.{minor}"))
            .collect();
        Error::environment(
            format!(
                "the archive has no cloud kernel of series {} with its source",
                names.join(" or ")
            ),
            "name a kernel tree with --kdir, or take a newer version of this project",
        )
    })?;
    let text = serde_json::to_string_pretty(&release).map_err(|e| Error::check(e.to_string()))?;
    fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
    Ok(release)
}

/// The packages of the newest supported release, downloaded when they are not in the cache.
pub fn ensure(cache: &Cache, root: &BuildRoot, refresh: bool) -> Result<Packages> {
    let release = choose(cache, root, refresh)?;
    match download(cache, root, &release) {
        Ok(packages) => Ok(packages),
        // The release may have left the archive since it was chosen.
        Err(_) if !refresh => {
            let newer = choose(cache, root, true)?;
            download(cache, root, &newer)
        }
        Err(error) => Err(error),
    }
}

fn download(cache: &Cache, root: &BuildRoot, release: &Release) -> Result<Packages> {
    let key = Key::new("debs")
        .text("release", &release.name)
        .text("version", &release.version);
    let key = key.text("packages", &release.packages.join(" ")).finish();
    let directory = cache.product("debs", &key, |at| {
        let log = cache.log("debs")?;
        let mut wanted = vec![format!("{}={}", release.source, release.version)];
        wanted.extend(
            release
                .packages
                .iter()
                .map(|package| format!("{package}={}", release.version)),
        );
        let script = format!(
            "cd '{}'; apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download {}",
            root.inside(at),
            wanted.join(" ")
        );
        let mut command = root.script(
            &[(Path::new("/etc/resolv.conf"), "/etc/resolv.conf")],
            &script,
        );
        progress::run(
            &format!("kernel {}: packages", release.name),
            &mut command,
            &log,
            None,
        )
        .map_err(|error| needs_network(error, "the kernel's packages"))?;
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(at).context(|| format!("reading {}", at.display()))? {
            let entry = entry.context(|| format!("reading {}", at.display()))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(Contents {
            files: names,
            directories: Vec::new(),
        })
    })?;
    Ok(Packages {
        release: release.clone(),
        directory,
        key,
    })
}
