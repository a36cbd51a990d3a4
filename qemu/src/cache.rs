// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The cache outside the checkout: products in directories named `<kind>-<key>`, logs and runs.
//!
//! A product is built in `<kind>-<key>.tmp` and renamed when its manifest is written, so an interrupted build
//! leaves nothing that could be mistaken for a product. Each product has a lock of its own (two labs that want
//! the same one build it once); every lab holds the cache's lock shared, `clean` holds it alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{flock, FlockOperation};

use crate::build_root::Mode;
use crate::error::{Context, Error, Result};
use crate::manifest::Manifest;
use crate::progress;

/// An opened cache.
pub struct Cache {
    /// The directory.
    pub dir: PathBuf,
    mode: Mode,
    _lock: File,
}

/// What a build left in its directory, for the manifest.
#[derive(Default)]
pub struct Contents {
    /// Files to hash.
    pub files: Vec<String>,
    /// Directories to list.
    pub directories: Vec<String>,
}

impl Contents {
    /// Files to hash, by name relative to the product.
    pub fn files(names: &[&str]) -> Self {
        Contents {
            files: names.iter().map(|n| (*n).to_owned()).collect(),
            directories: Vec::new(),
        }
    }

    /// Adds directories to list.
    pub fn and_directories(mut self, names: &[&str]) -> Self {
        self.directories = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }
}

/// `$XDG_CACHE_HOME/mml-ipsec`, or `~/.cache/mml-ipsec`.
pub fn location() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base =
        base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.map(|base| base.join("mml-ipsec")).ok_or_else(|| {
        Error::environment(
            "neither XDG_CACHE_HOME nor HOME is set",
            "export XDG_CACHE_HOME=/some/directory",
        )
    })
}

fn lock(path: &Path, operation: FlockOperation, waiting: &str) -> Result<File> {
    let name = || format!("locking {}", path.display());
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .context(name)?;
    let at_once = match operation {
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        _ => FlockOperation::NonBlockingLockExclusive,
    };
    if flock(&file, at_once).is_err() {
        progress::line(&format!("  .. {waiting}"));
        flock(&file, operation)
            .map_err(std::io::Error::from)
            .context(name)?;
    }
    Ok(file)
}

impl Cache {
    /// Opens the cache, made when it is not there yet.
    pub fn open(mode: Mode) -> Result<Self> {
        let dir = location()?;
        for part in ["logs", "runs"] {
            fs::create_dir_all(dir.join(part)).context(|| format!("making {}", dir.display()))?;
        }
        let lock = lock(
            &dir.join("lock"),
            FlockOperation::LockShared,
            "waiting for a `cargo lab clean`",
        )?;
        Ok(Cache {
            dir,
            mode,
            _lock: lock,
        })
    }

    /// Where the log of a product or a step goes; an earlier one of the same name is emptied.
    pub fn log(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join("logs").join(format!("{name}.log"));
        File::create(&path).context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The directory of a product, whether it stands or not.
    pub fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.dir.join(format!("{kind}-{key}"))
    }

    /// A product that stands whole, or the one `build` makes in the directory it is given.
    pub fn product(
        &self,
        kind: &str,
        key: &str,
        build: impl FnOnce(&Path) -> Result<Contents>,
    ) -> Result<PathBuf> {
        let path = self.path(kind, key);
        let guard = self.dir.join(format!("{kind}-{key}.lock"));
        let _guard = lock(
            &guard,
            FlockOperation::LockExclusive,
            &format!("waiting for another lab that is making the {kind}"),
        )?;
        if path.exists() {
            match Manifest::complaint(&path) {
                None => {
                    touch(&path);
                    return Ok(path);
                }
                Some(why) => progress::line(&format!(
                    "  !! cached {kind} is damaged ({why}): made again"
                )),
            }
        }
        let temporary = self.dir.join(format!("{kind}-{key}.tmp"));
        self.remove(&temporary)?;
        fs::create_dir(&temporary).context(|| format!("making {}", temporary.display()))?;
        let contents = build(&temporary)?;
        Manifest::take(&temporary, &contents.files, &contents.directories)?.write(&temporary)?;
        self.remove(&path)?;
        fs::rename(&temporary, &path).context(|| format!("renaming {}", temporary.display()))?;
        Ok(path)
    }

    /// Removes a tree, also one whose files belong to other users of the user namespace.
    pub fn remove(&self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        if fs::remove_dir_all(path).is_ok() {
            return Ok(());
        }
        let status = self
            .mode
            .command("rm")
            .arg("-rf")
            .arg("--")
            .arg(path)
            .status();
        let status = status.context(|| format!("removing {}", path.display()))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::environment(
                format!("cannot remove {}", path.display()),
                "look who owns it; remove it by hand",
            ))
        }
    }

    /// Keeps the `keep` products of a kind that were used last and removes the others.
    pub fn prune(&self, kind: &str, keep: usize) -> Result<()> {
        let prefix = format!("{kind}-");
        let mut found: Vec<(SystemTime, PathBuf)> = self
            .entries()?
            .into_iter()
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&prefix) && !name.contains('.') && path.is_dir()
            })
            .map(|path| (modified(&path), path))
            .collect();
        found.sort();
        found.reverse();
        for (_, path) in found.into_iter().skip(keep) {
            self.remove(&path)?;
            let _ = fs::remove_file(path.with_extension("lock"));
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let name = || format!("reading {}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).context(name)? {
            found.push(entry.context(name)?.path());
        }
        found.sort();
        Ok(found)
    }

    /// A fresh directory for one run of a guest; the ten last are kept.
    pub fn run_directory(&self, name: &str) -> Result<PathBuf> {
        let runs = self.dir.join("runs");
        let mut old: Vec<(SystemTime, PathBuf)> = fs::read_dir(&runs)
            .context(|| format!("reading {}", runs.display()))?
            .flatten()
            .map(|entry| (modified(&entry.path()), entry.path()))
            .collect();
        old.sort();
        old.reverse();
        for (_, path) in old.into_iter().skip(9) {
            let _ = self.remove(&path);
        }
        let stamp = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map(|d| d.as_secs())
            .unwrap_or(0);
        let mut path = runs.join(format!("{stamp}-{}-{name}", std::process::id()));
        let mut n = 1;
        while path.exists() {
            n += 1;
            path = runs.join(format!("{stamp}-{}-{name}-{n}", std::process::id()));
        }
        fs::create_dir(&path).context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Removes products: all of them, or those of one kind; waits until no lab uses the cache.
    pub fn clean(self, kind: Option<&str>) -> Result<Vec<PathBuf>> {
        let waiting = "waiting until no other lab uses the cache";
        drop(self._lock);
        let alone = lock(
            &self.dir.join("lock"),
            FlockOperation::LockExclusive,
            waiting,
        )?;
        let cache = Cache {
            dir: self.dir,
            mode: self.mode,
            _lock: alone,
        };
        let mut removed = Vec::new();
        for path in cache.entries()? {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let wanted = match kind {
                Some(kind) => name.starts_with(&format!("{kind}-")) || name == kind,
                None => name != "lock",
            };
            if wanted {
                cache.remove_any(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    fn remove_any(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            self.remove(path)
        } else {
            fs::remove_file(path).context(|| format!("removing {}", path.display()))
        }
    }
}

fn modified(path: &Path) -> SystemTime {
    path.join(crate::manifest::NAME)
        .metadata()
        .or_else(|_| path.metadata())
        .and_then(|meta| meta.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Marks a product as used now, for `prune`.
fn touch(product: &Path) {
    if let Ok(file) = File::options()
        .append(true)
        .open(product.join(crate::manifest::NAME))
    {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("runs")).unwrap();
        let lock = File::create(dir.path().join("lock")).unwrap();
        let cache = Cache {
            dir: dir.path().to_owned(),
            mode: Mode::Root,
            _lock: lock,
        };
        (dir, cache)
    }

    fn build(at: &Path) -> Result<Contents> {
        fs::write(at.join("x"), "content").unwrap();
        Ok(Contents::files(&["x"]))
    }

    #[test]
    fn a_product_is_built_once() {
        let (_dir, cache) = cache();
        let first = cache.product("thing", "k", build).unwrap();
        let second = cache
            .product("thing", "k", |_| panic!("built again"))
            .unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_failed_or_interrupted_build_leaves_no_product() {
        let (_dir, cache) = cache();
        let failed = cache.product("thing", "k", |at| {
            fs::write(at.join("half"), "").unwrap();
            Err(Error::check("interrupted"))
        });
        assert!(failed.is_err());
        assert!(!cache.path("thing", "k").exists());
        let path = cache.product("thing", "k", build).unwrap();
        assert!(!path.join("half").exists());
    }

    #[test]
    fn a_damaged_product_is_made_again() {
        let (_dir, cache) = cache();
        let path = cache.product("thing", "k", build).unwrap();
        fs::write(path.join("x"), "conten!").unwrap();
        let path = cache.product("thing", "k", build).unwrap();
        assert_eq!(fs::read_to_string(path.join("x")).unwrap(), "content");
    }

    #[test]
    fn pruning_keeps_what_was_used_last() {
        let (_dir, cache) = cache();
        for key in ["a", "b", "c"] {
            cache.product("thing", key, build).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        cache.product("thing", "a", build).unwrap();
        cache.prune("thing", 2).unwrap();
        assert!(cache.path("thing", "a").exists());
        assert!(!cache.path("thing", "b").exists());
        assert!(cache.path("thing", "c").exists());
    }
}
