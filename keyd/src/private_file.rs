// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Files with keys in them: who may have seen them, and that some are used once.

use rustix::fs::{renameat_with, RenameFlags, CWD};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Octets of the largest file that is read.
pub const MAX_LEN: usize = 1 << 20;
/// What a single-use file is called once it has been used.
const LOADED: &str = "loaded";

/// Why a file is not used.
#[derive(thiserror::Error, Debug)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("{0}: no such file")]
    Missing(PathBuf),
    #[error("{path}: it has been loaded before (it is {loaded} now), and a counter must never start again under the same key; make fresh files with `mmlctl csa new`")]
    Spent { path: PathBuf, loaded: PathBuf },
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0}: it is a symbolic link; name the file itself")]
    Link(PathBuf),
    #[error("{0}: not a regular file; use `-f -` to read from standard input")]
    Kind(PathBuf),
    #[error("{path}: it belongs to user {uid}, not to you (user {own}); `chown {own}` it, or make fresh ones")]
    Owner { path: PathBuf, uid: u32, own: u32 },
    #[error("{path}: others than its owner may use it (mode {mode:04o}); `chmod 600` it, or make fresh ones if they may have read it")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{0}: larger than 1 MiB, so it is no file of CSAs")]
    Large(PathBuf),
    #[error("{0}: not text in UTF-8")]
    Text(PathBuf),
    #[error("{0}: it was changed while it was read; try again")]
    Changed(PathBuf),
}

/// A file that was read, and that nobody but its owner can have read or written.
pub struct PrivateFile {
    path: PathBuf,
    inode: (u64, u64),
    /// What stands in it.
    pub text: Zeroizing<String>,
}

impl PrivateFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = || path.to_owned();
        if path
            .extension()
            .is_some_and(|extension| extension == LOADED)
        {
            return Err(spent(&path.with_extension("")));
        }
        let mut file = open(path)?;
        let data = file.metadata().map_err(|e| Error::Io(name(), e))?;
        if !data.is_file() {
            return Err(Error::Kind(name()));
        }
        let own = rustix::process::geteuid().as_raw();
        if data.uid() != own {
            return Err(Error::Owner {
                path: name(),
                uid: data.uid(),
                own,
            });
        }
        let mode = data.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::Mode { path: name(), mode });
        }
        let text = read_text(&mut file, path)?;
        Ok(PrivateFile {
            path: name(),
            inode: (data.dev(), data.ino()),
            text,
        })
    }

    /// Marks the file as used, before any of its keys is: from here on it can't be loaded again, whatever happens.
    /// Gives its new name.
    pub fn spend(&self) -> Result<PathBuf, Error> {
        let io = |error: io::Error| Error::Io(self.path.clone(), error);
        let loaded = loaded_path(&self.path);
        match rename_new(&self.path, &loaded) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(spent(&self.path)),
            // Somebody else was faster.
            Err(Errno::NOENT) => return Err(spent(&self.path)),
            Err(error) => return Err(io(error.into())),
        }
        let data = std::fs::symlink_metadata(&loaded).map_err(io)?;
        if (data.dev(), data.ino()) != self.inode {
            return Err(Error::Changed(self.path.clone()));
        }
        // The new name must outlive a power failure.
        let parent = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|parent| parent.sync_all())
            .map_err(io)?;
        Ok(loaded)
    }
}

/// What `path` is called once it has been used.
pub fn loaded_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(LOADED);
    name.into()
}

fn spent(path: &Path) -> Error {
    Error::Spent {
        path: path.to_owned(),
        loaded: loaded_path(path),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    // A pipe must not make us wait, nor a link lead us elsewhere.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) if loaded_path(path).exists() => spent(path),
            Some(Errno::NOENT) => Error::Missing(path.to_owned()),
            Some(Errno::LOOP) => Error::Link(path.to_owned()),
            _ => Error::Io(path.to_owned(), error),
        })
}

/// Reads all of `from`, which is called `path`, leaving no copy behind in memory.
pub fn read_text(from: &mut impl Read, path: &Path) -> Result<Zeroizing<String>, Error> {
    let mut octets = Zeroizing::new(vec![0; MAX_LEN + 1]);
    let mut len = 0;
    loop {
        match from.read(&mut octets[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(path.to_owned(), error)),
        }
        if len > MAX_LEN {
            return Err(Error::Large(path.to_owned()));
        }
    }
    octets.truncate(len);
    let text = std::str::from_utf8(&octets).map_err(|_| Error::Text(path.to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Renames where no file of the new name is.
fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't: a link never replaces either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::link(from, to)?;
            rustix::fs::unlink(from)
        }
        done => done,
    }
}

/// Makes a file that was not there, for its owner alone, and writes it to the disk.
pub fn create(path: &Path, text: &str) -> Result<(), Error> {
    let io = |error| Error::Io(path.to_owned(), error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}
