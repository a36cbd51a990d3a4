// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Key managers at nodes: `keyd`, each with a folder, a file and a control socket of its own.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::command::Background;
use crate::holders::Part;
use crate::netns::Netns;
use crate::topology::Topology;
use crate::{elsewhere, traffic, tunnel, zone_tunnel};

/// What mobile host and foreign agent share with the home agent: drawn once a run, in hexadecimal.
fn secrets() -> &'static [String; 2] {
    static SECRETS: OnceLock<[String; 2]> = OnceLock::new();
    SECRETS.get_or_init(|| [(); 2].map(|()| tunnel::hex(&traffic::random(32)) + "\n"))
}

/// Key managers that run on at a node when their scenario is over, so that what is on its way may still arrive before it is
/// judged who holds which keys.
#[derive(Default)]
pub struct Left(Mutex<Vec<Background>>);

impl Left {
    fn takes(&self, process: Background) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(process);
    }

    /// Whether any still runs.
    pub fn runs(&self) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().any(Background::runs)
    }

    /// `kill -9`.
    pub fn end(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }
}

/// A node's key manager: its folder and its file. It runs on when this goes, until the node goes or has another one.
pub struct Keyd<'a> {
    node: &'a Netns,
    folder: PathBuf,
    process: Option<Background>,
}

impl<'a> Keyd<'a> {
    /// Starts one with the shared secrets of this run.
    pub fn new(node: &'a Netns, configuration: &str) -> Result<Self> {
        let [mh, fa1] = secrets();
        Self::with_files(node, configuration, &[("mh.psk", mh), ("fa1.psk", fa1)])
    }

    /// One with other files beside its configuration, for nobody else to read.
    pub fn with_files(
        node: &'a Netns,
        configuration: &str,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        node.left.end();
        node.keys.are_managed();
        let folder = PathBuf::from(format!("/run/keyd-{}", node.name()));
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let socket = folder.join("control");
        let text = format!(
            "[control]\nsocket = \"{}\"\n\n{configuration}",
            socket.display()
        );
        for (name, text) in files.iter().chain(&[("keyd.toml", text.as_str())]) {
            use std::io::Write as _;
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(name))?
                .write_all(text.as_bytes())?;
        }
        // Where the node is a guest, a folder that it makes for a file would be for everybody to read.
        let at = folder.to_str().context("path")?;
        node.run(&["busybox", "mkdir", "-p", "-m", "700", at])?;
        let names = files.iter().map(|(name, _)| *name);
        for name in names.chain(["keyd.toml"]) {
            elsewhere::carry(node, folder.join(name).to_str().context("path")?)?;
        }
        let mut keyd = Keyd {
            node,
            folder,
            process: None,
        };
        keyd.start()?;
        Ok(keyd)
    }

    /// Writes its file anew; it has to be told to read it.
    pub fn rewrite(&self, configuration: &str) -> Result<()> {
        let socket = self.folder.join("control");
        let file = self.folder.join("keyd.toml");
        let text = format!(
            "[control]\nsocket = \"{}\"\n\n{configuration}",
            socket.display()
        );
        fs::write(&file, text)?;
        elsewhere::carry(self.node, file.to_str().context("path")?)
    }

    /// Starts it again.
    pub fn start(&mut self) -> Result<()> {
        let file = self.folder.join("keyd.toml");
        let file = file.to_str().context("path")?;
        self.node.run(&["keyd", "check", "-c", file])?;
        self.run_with("", file)
    }

    fn run_with(&mut self, options: &str, file: &str) -> Result<()> {
        // Into a file: nobody empties a pipe, and keyd would wait for that.
        let run = format!(
            "exec keyd run {options} -c {file} >>{} 2>&1",
            self.log_file().display()
        );
        self.process = Some(self.node.background(&["sh", "-c", &run])?);
        Ok(())
    }

    /// Has it end, and another one run that takes everything away when it ends, too.
    pub fn flush(&mut self, patience: Duration) -> Result<()> {
        self.kill();
        let file = self.folder.join("keyd.toml");
        self.run_with("--flush", file.to_str().context("path")?)?;
        self.answers(patience)?;
        self.node.run(&["kill", &self.pid()?.to_string()])?;
        let end = Instant::now() + patience;
        while self.process.as_mut().is_some_and(Background::runs) {
            ensure!(Instant::now() < end, "it doesn't end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let path = self.log_file();
        let octets = elsewhere::read(self.node, &path.display().to_string()).unwrap_or_default();
        format!(
            "{}:\n{}",
            self.node.name(),
            String::from_utf8_lossy(&octets)
        )
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("keyd is away")?.pid())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Has `mmlctl` ask it something; the answer is JSON.
    pub fn tell(&self, command: &[&str]) -> Result<String> {
        let socket = self.folder.join("control");
        let socket = socket.to_str().context("path")?;
        self.node
            .run(&[&["mmlctl", "--json"], command, &["--socket", socket]].concat())
    }
}

impl Drop for Keyd<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            self.node.left.takes(process);
        }
    }
}

impl Keyd<'_> {
    /// `kill -9`, and no other one follows.
    pub fn end(mut self) {
        self.kill();
    }

    /// Waits until it runs.
    pub fn answers(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while let Err(error) = self.tell(&["status"]) {
            if Instant::now() > end {
                return Err(error.context(self.log()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until a connection is up.
    pub fn up(&self, connection: &str, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            let status: serde_json::Value = serde_json::from_str(&self.tell(&["status"])?)?;
            let mut list = status["connections"].as_array().into_iter().flatten();
            if list.any(|one| one["name"] == connection && one["state"] == "up") {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{connection} doesn't come up\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A home agent's file without foreign agents.
pub const HA_ALONE: &str = "[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"198.51.100.1\"]

[[connection]]
name = \"mh\"
remote-identity = \"mh.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
remote = \"203.0.113.7\"
";

/// The mobile host's.
pub const MH_FILE: &str = "[node]
role = \"mh\"
identity = \"mh.example\"
addresses = [\"10.1.1.7\"]

[[connection]]
name = \"ha\"
remote = \"198.51.100.1\"
remote-identity = \"ha.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
local = \"203.0.113.7\"
";

/// Key managers at home agent, foreign agent and mobile host, which make devices and routes; they run. `more` is the tunnel's
/// settings at the mobile host.
pub fn three_nodes<'a>(net: &'a Topology, more: &str) -> Result<[Keyd<'a>; 3]> {
    net.fa1.keys.are(Part::Relay);
    let ha = "[device]
[node]
role = \"ha\"
identity = \"ha.example\"
addresses = [\"198.51.100.1\"]

[[foreign-agent]]
name = \"fa1\"
identity = \"fa1.example\"
addresses = [\"10.1.1.1\"]

[[connection]]
name = \"fa1\"
remote = \"10.1.1.1\"
remote-identity = \"fa1.example\"
auth = \"psk\"
secret-file = \"fa1.psk\"

[[connection]]
name = \"mh\"
remote-identity = \"mh.example\"
auth = \"psk\"
secret-file = \"mh.psk\"

[connection.tunnel]
remote = \"203.0.113.7\"
relay = \"fa1\"
";
    let fa = "[node]
role = \"fa\"
identity = \"fa1.example\"
addresses = [\"10.1.1.1\"]

[[home-agent]]
identity = \"ha.example\"
prefixes = [\"203.0.113.0/24\"]
hosts = [\"203.0.113.7\"]

[[connection]]
name = \"ha\"
remote = \"198.51.100.1\"
remote-identity = \"ha.example\"
auth = \"psk\"
secret-file = \"fa1.psk\"
start = \"peer\"
";
    let mh = format!("[device]\n{MH_FILE}{more}");
    let keyds = [
        Keyd::new(&net.ha, ha)?,
        Keyd::new(&net.fa1, fa)?,
        Keyd::new(&net.mh, &mh)?,
    ];
    for keyd in &keyds {
        keyd.answers(Duration::from_secs(60))?;
    }
    Ok(keyds)
}

/// Waits until the CSAs are there: both ends' at the ends, the relay's two at the foreign agent.
pub fn until_up(net: &Topology) -> Result<()> {
    let held = |node: &Netns| -> Result<usize> {
        let list: serde_json::Value =
            serde_json::from_str(&zone_tunnel::mmlctl(node, &["--json", "csa", "list"])?)?;
        Ok(list.as_array().map_or(0, Vec::len))
    };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let all = [held(&net.ha)?, held(&net.fa1)?, held(&net.mh)?];
        if all == [2; 3] {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "ha, fa1 and mh hold {all:?} CSAs, not two each"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
