// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the host asks for (`/run.json`), and what the guest image must hold.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};

use crate::paper::Task;

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Test,
    Demo,
    Bench,
    Paper,
    Shell,
    List,
    /// One node of a network of guests.
    Node,
}

/// The host's order. Unknown fields are refused: a misspelt option must not be silently ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub mode: Mode,
    /// Scenarios or benchmarks to run; empty: all.
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub options: Options,
    /// The experiments of mode `paper`, in the order they are to be done.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// Which node this guest is, in mode `node`.
    #[serde(default)]
    pub node: Option<String>,
    /// Its links.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// A network interface of a guest that is a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// What it is called at the node.
    pub name: String,
    /// What it is known by.
    pub mac: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Octets of the demo's file.
    pub bytes: Option<u64>,
    /// Factor on every time-out, for slow (debug) kernels.
    pub patience: Option<f64>,
    /// Show every command's output as a step too.
    pub verbose: bool,
    /// Virtual seconds of each iperf3 run.
    pub seconds: Option<f64>,
    /// Stop at the first scenario that fails.
    pub fail_fast: bool,
    /// How often scenarios with a handoff a second move their host, where it is to be more than a few times.
    pub handoffs: Option<u32>,
    /// Time is that of the guest's instructions: nothing else on the host's processors disturbs it.
    pub virtual_time: bool,
}

impl RunConfig {
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/run.json").context("/run.json")?;
        serde_json::from_str(&text).context("/run.json")
    }
}

/// Kernel modules the scenarios use, in loading order where it matters. All are tried at start: the guest must not
/// depend on the kernel calling modprobe for it. What a kernel has built in is passed over.
pub const MODULES: &[&str] = &[
    "virtio_console",
    "veth",
    "dummy",
    "bridge",
    "br_netfilter",
    "aesni_intel",
    "ghash_clmulni_intel",
    "gcm",
    "ctr",
    "chacha",
    "chacha20poly1305",
    "seqiv",
    "echainiv",
    "authenc",
    "cryptd",
    "xfrm_user",
    "esp4",
    "esp4_offload",
    "wireguard",
    "sch_netem",
    "sch_tbf",
    "sch_ingress",
    "cls_matchall",
    "cls_u32",
    "act_gact",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_ct",
    "nft_flow_offload",
    "nf_flow_table",
    "nf_flow_table_inet",
    "nft_counter",
    "nft_chain_nat",
    "nf_defrag_ipv4",
];

/// Modules that are only in the image, loaded by what asks for them.
pub const MODULES_ON_DEMAND: &[&str] = &["tcrypt", "tcp_bbr", "esp6", "esp6_offload"];

/// Programs that run in the guest, looked up in its PATH.
pub const PROGRAMS: &[&str] = &[
    "busybox",
    "dash",
    "ip",
    "tc",
    "iperf3",
    "tcpdump",
    "nginx",
    "curl",
    "wg",
    "nft",
    "conntrack",
    "ethtool",
    "mmlctl",
];

/// The guest image's needs, for the host that makes it.
pub fn needs() -> Value {
    let modules = [MODULES, MODULES_ON_DEMAND].concat();
    json!({"modules": modules, "programs": PROGRAMS})
}
