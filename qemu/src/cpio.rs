// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Writer of cpio archives in the `newc` format, what the kernel unpacks an initramfs from
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Archives may stand one after another: a later file replaces an earlier one of the same name.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Every archive is padded to this many octets, as cpio(1) does.
const BLOCK: u64 = 512;

/// An archive being written. Everything belongs to root and has time 0, so equal content gives equal octets.
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    written: u64,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive written to `out`.
    pub fn new(out: W) -> Self {
        Archive {
            out,
            inode: 0,
            written: 0,
            directories: BTreeSet::new(),
        }
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let rest = self.written % to;
        if rest != 0 {
            let zeros = vec![0u8; (to - rest) as usize];
            self.out.write_all(&zeros)?;
            self.written += to - rest;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name}: larger than 4 GiB"),
            )
        })?;
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            self.inode,
            0, // user
            0, // group
            1, // links
            0, // time
            0, // device the archive was made on
            0,
            device.0,
            device.1,
            name.len() + 1,
            0, // checksum, unused in this format
        );
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.written += (header.len() + name.len() + 1) as u64;
        self.pad(4)?;
        self.out.write_all(data)?;
        self.written += u64::from(size);
        self.pad(4)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    /// A directory and those above it; `name` is relative to the root, as everywhere here.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        if name.is_empty() || !self.directories.insert(name.to_owned()) {
            return Ok(());
        }
        self.parents(name)?;
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// A regular file with these permissions.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.parents(name)?;
        self.entry(name, FILE | (permissions & 0o7777), (0, 0), data)
    }

    /// A symbolic link to `target`.
    pub fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.parents(name)?;
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub fn device(
        &mut self,
        name: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.parents(name)?;
        self.entry(name, CHARACTER | permissions, (major, minor), &[])
    }

    /// Everything below a directory of the host, in the order of names.
    pub fn tree(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(directory)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let leaf = entry.file_name().to_string_lossy().into_owned();
            let name = if prefix.is_empty() {
                leaf
            } else {
                format!("{prefix}/{leaf}")
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directory(&name)?;
                self.tree(&entry.path(), &name)?;
            } else if kind.is_symlink() {
                self.symlink(&name, &std::fs::read_link(entry.path())?.to_string_lossy())?;
            } else {
                use std::os::unix::fs::PermissionsExt;
                let permissions = entry.metadata()?.permissions().mode();
                self.file(&name, permissions, &std::fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// Writes the closing entry and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_data_are_laid_out_as_the_kernel_reads_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("bin/x", 0o755, b"hello").unwrap();
        let out = archive.finish().unwrap();
        assert_eq!(out.len() % 512, 0);
        assert_eq!(&out[..6], b"070701");
        // The parent comes first: header 110 octets, name "bin\0", padded to 116.
        assert_eq!(&out[110..114], b"bin\0");
        assert_eq!(&out[14..22], b"000041ed");
        let second = &out[116..];
        assert_eq!(&second[..6], b"070701");
        assert_eq!(&second[14..22], b"000081ed");
        assert_eq!(&second[54..62], b"00000005");
        assert_eq!(&second[110..116], b"bin/x\0");
        assert_eq!(&second[116..121], b"hello");
        assert!(out.windows(11).any(|w| w == b"TRAILER!!!\0"));
    }

    #[test]
    fn a_directory_is_written_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/1", 0o644, b"").unwrap();
        archive.file("a/b/2", 0o644, b"").unwrap();
        let out = archive.finish().unwrap();
        assert_eq!(out.windows(6).filter(|w| w == b"070701").count(), 5);
    }

    #[test]
    fn equal_content_gives_equal_octets() {
        let make = || {
            let mut archive = Archive::new(Vec::new());
            archive.device("dev/console", 0o600, 5, 1).unwrap();
            archive.symlink("sbin", "bin").unwrap();
            archive.finish().unwrap()
        };
        assert_eq!(make(), make());
    }
}
