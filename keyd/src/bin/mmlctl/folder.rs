// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Folders of files that are loaded at boot.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// The folder's files, by name.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::usage(format!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "{}: no *.toml in it; what is to be loaded belongs there",
            folder.display()
        )));
    }
    found.sort();
    Ok(found)
}
