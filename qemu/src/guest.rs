// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The programs of ours that run in the guests, built static by the host's cargo.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::progress;
use crate::workspace::Workspace;

/// glibc linked in: the guest's own libraries are those of the build root, not of the host.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The static programs.
pub struct Guest {
    /// Process 1 of the guest.
    pub init: PathBuf,
    /// The control tool.
    pub mmlctl: PathBuf,
}

/// What a guest image must hold, as the guest program itself tells.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Needs {
    /// Kernel modules.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Programs, by name.
    #[serde(default)]
    pub programs: Vec<String>,
}

/// One scenario of the guest program.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it proves, in one line.
    pub proves: String,
}

/// Builds both programs; cargo decides what there is to do.
pub fn build(workspace: &Workspace, log: &Path) -> Result<Guest> {
    let directory = compile(
        workspace,
        log,
        &[
            "-p",
            "mml-tests",
            "-p",
            "keyd",
            "--bin",
            "mml-guest",
            "--bin",
            "mmlctl",
        ],
    )?;
    Ok(Guest {
        init: directory.join("mml-guest"),
        mmlctl: directory.join("mmlctl"),
    })
}

/// The scenarios the guest program knows, asked on the host.
pub fn scenarios(workspace: &Workspace, log: &Path) -> Result<Vec<Scenario>> {
    let directory = compile(workspace, log, &["-p", "mml-tests", "--bin", "mml-guest"])?;
    Guest {
        init: directory.join("mml-guest"),
        mmlctl: PathBuf::new(),
    }
    .scenarios()
}

/// Runs cargo and says where its products are.
fn compile(workspace: &Workspace, log: &Path, what: &[&str]) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--release", "--target", TARGET])
        .args(what);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    progress::run("guest programs", &mut command, log, None)?;
    let mut metadata = workspace.cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = metadata.output().context(|| "cargo metadata".to_owned())?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::check(format!("cargo metadata: {e}")))?;
    let directory = value["target_directory"]
        .as_str()
        .ok_or_else(|| Error::check("cargo metadata: no target"))?;
    Ok(Path::new(directory).join(TARGET).join("release"))
}

impl Guest {
    fn ask(&self, option: &str) -> Result<String> {
        let output = std::process::Command::new(&self.init)
            .arg(option)
            .output()
            .context(|| format!("running {}", self.init.display()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Error::check(format!(
                "mml-guest {option}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )))
        }
    }

    /// What its image must hold.
    pub fn needs(&self) -> Result<Needs> {
        serde_json::from_str(&self.ask("--needs")?)
            .map_err(|e| Error::check(format!("mml-guest --needs: {e}")))
    }

    /// The scenarios it knows.
    pub fn scenarios(&self) -> Result<Vec<Scenario>> {
        Ok(self
            .ask("--list")?
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, proves)| Scenario {
                name: name.to_owned(),
                proves: proves.to_owned(),
            })
            .collect())
    }
}
