// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The checkout the lab works for.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// The root of the checkout.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds it: where cargo says this crate lies, now or when it was compiled.
    pub fn find() -> Result<Self> {
        let crate_directory = std::env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .filter(|path| path.join("../kbuild").is_dir())
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        match crate_directory.parent() {
            Some(root) if root.join("kbuild").is_dir() => Ok(Workspace {
                root: root.to_owned(),
            }),
            _ => Err(Error::environment(
                format!(
                    "the checkout this lab was built from is gone from {}",
                    crate_directory.display()
                ),
                "run `cargo lab` inside a checkout",
            )),
        }
    }

    /// The checkout's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The recipes.
    pub fn kbuild(&self) -> PathBuf {
        self.root.join("kbuild")
    }

    /// A cargo command in the checkout, without what an outer `cargo run` put into the environment.
    pub fn cargo(&self) -> Command {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let inherited = text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_");
            let inherited = inherited || text == "CARGO_ENCODED_RUSTFLAGS";
            if inherited || text == "CARGO_BIN_NAME" || text == "CARGO_CRATE_NAME" {
                command.env_remove(&name);
            }
        }
        command
    }
}
