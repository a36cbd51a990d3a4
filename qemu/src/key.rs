// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a product was made from, as a hash.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};

/// Collects the ingredients of a product. Order and names count, so nothing can be mistaken for something else.
pub struct Key(Sha256);

impl Key {
    /// The key of a product of this kind.
    pub fn new(kind: &str) -> Self {
        Key(Sha256::new()).text("kind", kind)
    }

    /// Adds a named text: a version, a recipe, another key.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        for part in [name, value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
        self
    }

    /// Adds a file's content.
    pub fn file(self, name: &str, path: &Path) -> Result<Self> {
        let digest = digest(path)?;
        Ok(self.text(name, &digest))
    }

    /// Adds every file below a directory, by relative name and content; `skip` says which names to leave out.
    pub fn tree(
        mut self,
        name: &str,
        directory: &Path,
        skip: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        for path in files(directory, skip)? {
            let relative = path
                .strip_prefix(directory)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            self = self.file(&format!("{name}/{relative}"), &path)?;
        }
        Ok(self)
    }

    /// Sixteen hexadecimal digits: enough to tell products apart, short enough to read.
    pub fn finish(self) -> String {
        hex(&self.0.finalize()).chars().take(16).collect()
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// SHA-256 of a text, in hexadecimal.
pub fn digest_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// SHA-256 of a file, in hexadecimal.
pub fn digest(path: &Path) -> Result<String> {
    let name = || format!("reading {}", path.display());
    let mut file = std::fs::File::open(path).context(name)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).context(name)?;
    Ok(hex(&hash.finalize()))
}

/// All regular files below a directory, sorted, without those whose leaf name `skip` refuses.
pub fn files(directory: &Path, skip: &dyn Fn(&str) -> bool) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        let name = || format!("reading {}", next.display());
        for entry in std::fs::read_dir(&next).context(name)? {
            let entry = entry.context(name)?;
            if skip(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let kind = entry.file_type().context(name)?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_not_run_together() {
        let a = Key::new("k").text("ab", "c").finish();
        let b = Key::new("k").text("a", "bc").finish();
        assert_ne!(a, b);
        assert_eq!(a.len(), 16);
    }

    #[test]
    fn a_tree_changes_with_content_and_names_but_not_with_what_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let key = || {
            Key::new("k")
                .tree("t", dir.path(), &|leaf| leaf == "target")
                .unwrap()
                .finish()
        };
        std::fs::write(dir.path().join("a"), "1").unwrap();
        let first = key();
        std::fs::create_dir(dir.path().join("target")).unwrap();
        std::fs::write(dir.path().join("target/x"), "1").unwrap();
        assert_eq!(key(), first);
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(key(), first);
    }
}
