// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Daemons of one process that speak over the loopback device.

use super::recorder::Recorder;
use keyd::daemon::config::Config;
use keyd::daemon::engine::{Engine, Kernels};
use keyd::daemon::kernel::Kernel;
use keyd::daemon::udp::Sockets;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the loopback device's 127.0.0.0/8, so that tests run beside each other and beside a real daemon.
pub const PORT: u16 = 15_500;
const NAT_PORT: u16 = 14_500;

/// The address of a test's node.
pub fn address(test: u8, node: u8) -> String {
    format!("127.77.{test}.{node}")
}

/// Writes a file only its owner can read.
pub fn secret(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
}

/// The head of a node's `keyd.toml`.
pub fn node(role: &str, identity: &str, address: &str) -> String {
    format!(
        "[node]\nrole = \"{role}\"\nidentity = \"{identity}\"\naddresses = [\"{address}\"]\nport = {PORT}\nnat-port = {NAT_PORT}\n"
    )
}

/// A connection by the shared secret `psk`.
pub fn connection(name: &str, remote: &str, identity: &str, more: &str) -> String {
    let mut text = String::new();
    write!(
        text,
        "[[connection]]\nname = \"{name}\"\nremote = \"{remote}\"\nremote-identity = \"{identity}\"\nauth = \"psk\"\nsecret-file = \"psk\"\n{more}\n"
    )
    .unwrap();
    text
}

/// A folder with the shared secret.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), "psk", "0x000102030405060708090a0b0c0d0e0f\n");
    folder
}

/// A daemon and its kernels.
pub struct Node {
    pub engine: Engine,
    pub mml: Recorder,
    pub xfrm: Recorder,
    sockets: Sockets,
}

/// Daemons, and a clock they share.
pub struct Net {
    start: Instant,
    pub nodes: Vec<Node>,
}

impl Net {
    pub fn new() -> Self {
        Net {
            start: Instant::now(),
            nodes: Vec::new(),
        }
    }

    /// Starts a daemon with the module and XFRM.
    pub async fn start(&mut self, text: &str, folder: &Path) {
        let (mml, xfrm) = (Recorder::new("mml"), Recorder::new("xfrm"));
        self.start_with(text, folder, Some(mml), xfrm).await;
    }

    /// Starts a daemon with these kernels.
    pub async fn start_with(
        &mut self,
        text: &str,
        folder: &Path,
        mml: Option<Recorder>,
        xfrm: Recorder,
    ) {
        let config = Config::parse("keyd.toml", text, folder).unwrap_or_else(|e| panic!("{e}"));
        let mut sockets = Sockets::open(&config.addresses, config.port, config.nat_port)
            .await
            .unwrap();
        let mobile = config.mobile_ip.as_ref();
        if let Some(one) = mobile.and_then(|mobile| mobile.predistribution.as_ref()) {
            sockets.open_predistribution(one).unwrap();
        }
        let kernels = Kernels {
            mml: mml.clone().map(|mml| Box::new(mml) as Box<dyn Kernel>),
            xfrm: Some(Box::new(xfrm.clone())),
        };
        let engine = Engine::new(config, kernels, self.start.elapsed()).unwrap();
        self.nodes.push(Node {
            engine,
            mml: mml.unwrap_or_else(|| Recorder::new("none")),
            xfrm,
            sockets,
        });
    }

    /// Waits until the sockets of a daemon that is gone are free: their listeners end with the next datagram, or here.
    pub async fn close_sockets(&mut self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets the daemons work until `done`, or ten seconds have passed.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&[Node]) -> bool) {
        let end = self.now() + Duration::from_secs(10);
        while !done(&self.nodes) {
            assert!(self.now() < end, "never came: {what}\n{}", self.said());
            self.step().await;
        }
    }

    /// What each daemon has, and what it said to its kernels.
    fn said(&self) -> String {
        let now = self.now();
        let node = |node: &Node| {
            let mut text = String::new();
            let (book, mml) = (node.engine.book(), node.mml.state());
            writeln!(
                text,
                "{:#?}\n{:?}\n{:?}",
                book.children, node.engine.counters, now
            )
            .unwrap();
            mml.log
                .iter()
                .chain(&node.xfrm.state().log)
                .for_each(|line| writeln!(text, "  {line}").unwrap());
            text
        };
        self.nodes.iter().map(node).collect()
    }

    /// Lets them work for that long.
    pub async fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        for node in &mut self.nodes {
            while let Some(datagram) = node.engine.datagram() {
                node.sockets
                    .send(datagram.from, datagram.to, &datagram.octets)
                    .await;
            }
            let wait = Duration::from_millis(2);
            if let Ok(Some(one)) = tokio::time::timeout(wait, node.sockets.receive()).await {
                let now = self.start.elapsed();
                node.engine.handle(&one.octets, one.from, one.to, now);
            }
            let now = self.start.elapsed();
            if node.engine.next_deadline().is_some_and(|at| at <= now) {
                node.engine.tick(now);
            }
        }
    }
}
