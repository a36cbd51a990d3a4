// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! strongSwan's daemon at one node, as Debian ships it: `charon-systemd` without systemd, with a folder, a control socket
//! and a log of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use crate::command::{Background, Finished};
use crate::netns::Netns;
use crate::scenario::Ctx;

/// The plugins that are in the image (`kbuild/guest-programs`).
const PLUGINS: &str = "random nonce openssl pem pkcs1 pkcs8 pubkey x509 constraints";

/// What its log says of a message or a peer that it has something against.
///
/// Of what is unknown it says so once and goes on, as it must (RFC 7296 §2.5); that is not among them, and
/// [`Charon::objections`] has its own list of what it may say.
const OBJECTIONS: [&str; 15] = [
    "invalid",
    "failed",
    "malformed",
    "unexpected",
    "unacceptable",
    "no acceptable",
    "not supported",
    "unsupported",
    "not allowed",
    "mismatch",
    "missing",
    "unable",
    "could not",
    "unknown",
    "ignoring",
];

/// What it says of a peer that knows zones, and nobody need mind.
const EXPECTED: [&str; 1] = ["received unknown vendor ID"];

/// Which charon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// That of the guest's own Debian.
    Own,
    /// That of a newer one, which lies in a tree of its own with the C library it needs: it has ML-KEM.
    Newer,
}

/// Runs what follows in the newer tree (`qemu/src/newer.rs`), which sees the guest's sockets and files.
const IN_NEWER: [&str; 5] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    "for at in dev proc run sys tmp; do mount --rbind /$at /opt/newer/$at; done; exec chroot /opt/newer /usr/sbin/\"$0\" \"$@\"",
];

/// The daemon.
pub struct Charon<'a> {
    node: &'a Netns,
    release: Release,
    folder: PathBuf,
    process: Option<Background>,
}

impl<'a> Charon<'a> {
    /// Starts it. `settings` are lines of strongswan.conf's `charon-systemd`.
    pub fn new(ctx: &Ctx, node: &'a Netns, release: Release, settings: &str) -> Result<Self> {
        Self::logging(ctx, node, release, settings, 2)
    }

    /// Starts it so that it logs errors alone, to be measured.
    pub fn quiet(ctx: &Ctx, node: &'a Netns) -> Result<Self> {
        Self::logging(ctx, node, Release::Own, "", 0)
    }

    fn logging(
        ctx: &Ctx,
        node: &'a Netns,
        release: Release,
        settings: &str,
        level: u8,
    ) -> Result<Self> {
        let folder = PathBuf::from(format!("/run/charon-{}", node.name()));
        let _ = fs::remove_dir_all(&folder);
        for part in ["", "x509", "x509ca", "private"] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(folder.join(part))?;
        }
        let at = folder.display();
        // No routes and rules of its own: the topology's lead where they should. PKCS #1 v1.5 is what it signs with by RSA otherwise.
        let configuration = format!(
            "charon-systemd {{
    load = {PLUGINS} kernel-netlink socket-default vici
    install_routes = no
    routing_table = 0
    rsa_pss = yes
    {settings}
    plugins {{
        vici {{ socket = unix://{at}/vici }}
        openssl {{ load_legacy = no }}
    }}
    journal {{ default = -1 }}
    filelog {{
        log {{
            path = {at}/log
            default = {}
            cfg = {}
            net = {level}
            ike = {level}
            flush_line = yes
        }}
    }}
}}
swanctl {{
    load = {PLUGINS}
    socket = unix://{at}/vici
    plugins {{
        openssl {{ load_legacy = no }}
    }}
}}
",
            level.min(1),
            level.min(1),
        );
        fs::write(folder.join("strongswan.conf"), configuration)?;
        let mut charon = Self {
            node,
            release,
            folder,
            process: None,
        };
        charon.start(ctx)?;
        Ok(charon)
    }

    /// What a shell would be told to run one of its programs.
    fn words(&self, program: &str, words: &[&str]) -> Vec<String> {
        let at = self.folder.display();
        let settings = [
            "env".to_owned(),
            format!("STRONGSWAN_CONF={at}/strongswan.conf"),
            format!("SWANCTL_DIR={at}"),
        ];
        let within: &[&str] = match self.release {
            Release::Own => &[],
            Release::Newer => &IN_NEWER,
        };
        let rest = [within, &[program], words].concat();
        settings
            .into_iter()
            .chain(rest.into_iter().map(str::to_owned))
            .collect()
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("charon is away")?.pid())
    }

    /// Starts it, and waits until it can be spoken with.
    pub fn start(&mut self, ctx: &Ctx) -> Result<()> {
        let words = self.words("charon-systemd", &[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let process = self.node.background(&words)?;
        let process = self.process.insert(process);
        let end = Instant::now() + ctx.seconds(30.0);
        while !self.folder.join("vici").exists() {
            if !process.runs() {
                let told = self.process.take().context("gone")?.finish()?;
                anyhow::bail!(
                    "charon ended: {}{}\n{}",
                    told.stdout,
                    told.stderr,
                    self.log()
                );
            }
            ensure!(Instant::now() < end, "charon isn't up: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
        let _ = fs::remove_file(self.folder.join("vici"));
    }

    /// Writes one of its files, for instance `x509/own.pem`.
    pub fn file(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.folder.join(name), text)?)
    }

    /// Takes a `swanctl.conf` and what lies beside it in place of what it had.
    pub fn load(&self, configuration: &str) -> Result<()> {
        self.file("swanctl.conf", configuration)?;
        self.swanctl(&["--load-all", "--noprompt"]).map(|_| ())
    }

    /// Has `swanctl` do something, which must succeed.
    pub fn swanctl(&self, words: &[&str]) -> Result<String> {
        let told = self.attempt(words)?;
        ensure!(
            told.success,
            "swanctl {} failed: {}{}\ncharon's log:\n{}",
            words.join(" "),
            told.stdout,
            told.stderr,
            self.log()
        );
        Ok(told.stdout)
    }

    /// Has `swanctl` try something.
    pub fn attempt(&self, words: &[&str]) -> Result<Finished> {
        let words = self.words("swanctl", words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.node.attempt(&words)
    }

    /// Its log. Keys are not in it at these levels.
    pub fn log(&self) -> String {
        fs::read(self.folder.join("log"))
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .unwrap_or_default()
    }

    /// It had nothing against what it was sent, but for lines with one of these words.
    pub fn objects_to_nothing(&self, allowed: &[&str]) -> Result<()> {
        let log = self.log();
        ensure!(log.contains("parsed IKE_"), "charon saw no IKE: {log}");
        let objections: Vec<&str> = log
            .lines()
            // Of its own start: features that no plugin here has.
            .filter(|line| {
                ["[IKE]", "[ENC]", "[NET]", "[CFG]", "[KNL]", "[CHD]"]
                    .iter()
                    .any(|part| line.contains(part))
            })
            .filter(|line| {
                let lower = line.to_lowercase();
                OBJECTIONS.iter().any(|word| lower.contains(word))
            })
            .filter(|line| {
                !EXPECTED
                    .iter()
                    .chain(allowed)
                    .any(|word| line.contains(word))
            })
            .collect();
        ensure!(
            objections.is_empty(),
            "charon objects:\n{}\nin:\n{log}",
            objections.join("\n")
        );
        Ok(())
    }
}
