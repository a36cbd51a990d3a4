// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The programs of ours that run in the guests, built static by the host's cargo.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::network::Topology;
use crate::progress;
use crate::workspace::Workspace;

/// glibc linked in: the guest's own libraries are those of the build root, not of the host.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The program that conducts a network of guests.
const CONDUCTOR: &str = "mml-conductor";

/// The static programs.
pub struct Guest {
    /// Process 1 of the guest.
    pub init: PathBuf,
    /// The control tool.
    pub mmlctl: PathBuf,
    /// The key manager.
    pub keyd: PathBuf,
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

/// One scenario of the guest programs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it proves, in one line.
    pub proves: String,
    /// The topologies it runs on.
    pub topologies: Vec<Topology>,
}

/// Builds what every guest has; cargo decides what there is to do.
pub fn build(workspace: &Workspace, log: &Path) -> Result<Guest> {
    let directory = compile(workspace, log, &["mml-guest", "mmlctl", "keyd"])?;
    Ok(Guest {
        init: directory.join("mml-guest"),
        mmlctl: directory.join("mmlctl"),
        keyd: directory.join("keyd"),
    })
}

/// The scenarios the guest programs know, asked on the host.
pub fn scenarios(workspace: &Workspace, log: &Path) -> Result<Vec<Scenario>> {
    let directory = compile(workspace, log, &["mml-guest", CONDUCTOR])?;
    let mut all = listed(&directory.join("mml-guest"), Topology::Namespaces)?;
    for scenario in listed(&directory.join(CONDUCTOR), Topology::Guests)? {
        match all.iter_mut().find(|other| other.name == scenario.name) {
            Some(same) => same.topologies.push(Topology::Guests),
            None => all.push(scenario),
        }
    }
    Ok(all)
}

/// Builds the program that conducts a network of guests.
pub fn conductor(workspace: &Workspace, log: &Path) -> Result<PathBuf> {
    let directory = compile(workspace, log, &[CONDUCTOR])?;
    Ok(directory.join(CONDUCTOR))
}

/// The scenarios one of the programs runs, on its topology.
pub fn listed(program: &Path, topology: Topology) -> Result<Vec<Scenario>> {
    Ok(ask(program, "--list")?
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, proves)| Scenario {
            name: name.to_owned(),
            proves: proves.to_owned(),
            topologies: vec![topology],
        })
        .collect())
}

fn ask(program: &Path, option: &str) -> Result<String> {
    let output = std::process::Command::new(program)
        .arg(option)
        .output()
        .context(|| format!("running {}", program.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::check(format!(
            "{} {option}: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

/// Runs cargo and says where its products are. Always with both packages, whose features together decide what is
/// compiled: else each choice of programs would compile everything anew.
fn compile(workspace: &Workspace, log: &Path, programs: &[&str]) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--release", "--target", TARGET])
        .args(["-p", "mml-tests", "-p", "keyd"]);
    for program in programs {
        command.args(["--bin", program]);
    }
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
    /// What its image must hold.
    pub fn needs(&self) -> Result<Needs> {
        serde_json::from_str(&ask(&self.init, "--needs")?)
            .map_err(|e| Error::check(format!("mml-guest --needs: {e}")))
    }
}
