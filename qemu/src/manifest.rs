// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a finished product holds, so that corruption is noticed before it is used.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::key;

/// The manifest's name in a product's directory. It is written last: no manifest, no product.
pub const NAME: &str = "manifest.json";

/// The content of a product.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of the files that matter, by name relative to the product.
    files: BTreeMap<String, String>,
    /// A digest over names and sizes of all files below these directories: cheap, where hashing all is not.
    listings: BTreeMap<String, String>,
}

/// Files that tools write beside their own at any time.
fn volatile(leaf: &str) -> bool {
    leaf == "__pycache__" || leaf.ends_with(".pyc")
}

fn listing(directory: &Path) -> Result<String> {
    use std::fmt::Write;
    let mut text = String::new();
    for path in key::files(directory, &volatile)? {
        let size = path.symlink_metadata().map(|m| m.len()).unwrap_or(0);
        let _ = writeln!(text, "{} {size}", path.display());
    }
    // Names are absolute in the listing's text; a product is built elsewhere and renamed, so cut the prefix off.
    let prefix = format!("{}/", directory.display());
    Ok(key::digest_text(&text.replace(&prefix, "")))
}

impl Manifest {
    /// Takes stock of a product: `files` are hashed, `directories` listed by name and size.
    pub fn take(product: &Path, files: &[String], directories: &[String]) -> Result<Self> {
        let mut manifest = Manifest {
            files: BTreeMap::new(),
            listings: BTreeMap::new(),
        };
        for file in files {
            manifest
                .files
                .insert(file.clone(), key::digest(&product.join(file))?);
        }
        for directory in directories {
            manifest
                .listings
                .insert(directory.clone(), listing(&product.join(directory))?);
        }
        Ok(manifest)
    }

    /// Writes it into the product.
    pub fn write(&self, product: &Path) -> Result<()> {
        let path = product.join(NAME);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::check(e.to_string()))?;
        std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
    }

    /// What is wrong with a product, or nothing.
    pub fn complaint(product: &Path) -> Option<String> {
        let Ok(text) = std::fs::read_to_string(product.join(NAME)) else {
            return Some("no manifest".into());
        };
        let Ok(manifest) = serde_json::from_str::<Manifest>(&text) else {
            return Some("unreadable manifest".into());
        };
        for (file, expected) in &manifest.files {
            match key::digest(&product.join(file)) {
                Ok(found) if found == *expected => {}
                Ok(_) => return Some(format!("{file} has changed")),
                Err(_) => return Some(format!("{file} is missing")),
            }
        }
        for (directory, expected) in &manifest.listings {
            if listing(&product.join(directory)).ok().as_ref() != Some(expected) {
                return Some(format!(
                    "files below {directory} are missing, added or cut short"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("image"), "kernel").unwrap();
        std::fs::write(dir.path().join("d/a"), "1234").unwrap();
        Manifest::take(dir.path(), &["image".into()], &["d".into()])
            .unwrap()
            .write(dir.path())
            .unwrap();
        dir
    }

    #[test]
    fn a_whole_product_has_no_complaint_even_when_moved() {
        let dir = product();
        assert_eq!(Manifest::complaint(dir.path()), None);
        let moved = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &moved).unwrap();
        assert_eq!(Manifest::complaint(&moved), None);
        std::fs::remove_dir_all(&moved).unwrap();
    }

    #[test]
    fn changed_octets_missing_files_and_short_files_are_noticed() {
        let dir = product();
        std::fs::write(dir.path().join("image"), "kernem").unwrap();
        assert!(Manifest::complaint(dir.path()).unwrap().contains("image"));
        let dir = product();
        std::fs::write(dir.path().join("d/a"), "12").unwrap();
        assert!(Manifest::complaint(dir.path()).unwrap().contains("below d"));
        let dir = product();
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        assert_eq!(Manifest::complaint(dir.path()).unwrap(), "no manifest");
    }

    #[test]
    fn compiled_python_beside_its_source_is_no_damage() {
        let dir = product();
        std::fs::create_dir(dir.path().join("d/__pycache__")).unwrap();
        std::fs::write(dir.path().join("d/__pycache__/x.pyc"), "1").unwrap();
        assert_eq!(Manifest::complaint(dir.path()), None);
    }
}
