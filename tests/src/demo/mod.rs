// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The demo: a real file over real HTTP from correspondent to mobile host, three ways, every link captured; then, in its
//! second act (`repair`), over a wireless link that loses packets.
//!
//! Each line it reports is computed from the captures and the foreign agent's counters, none is taken for granted.

mod readers;
mod repair;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use ring::digest;
use serde_json::{json, Value};

use crate::capture::{Capture, Captured};
use crate::command::Background;
use crate::config::RunConfig;
use crate::headers;
use crate::kernel_log::KernelLog;
use crate::module::Modules;
use crate::report;
use crate::scenario::MODULE;
use crate::stats::Stats;
use crate::topology::{self, Shape, Topology, CN, HOME};
use crate::traffic;
use crate::tunnel;
use crate::zone_tunnel::{self, Keys};

/// Octets of the file, unless the host says otherwise.
const BYTES: u64 = 10_000_000;
/// The wireless links: about what a good 802.11b cell or a poor LTE one gives.
const RATE: &str = "10mbit";
const DELAY: &str = "10ms";
/// The file holds its marker once in as many octets, so that every full packet shows it whole if it is in clear.
const MARKER_EVERY: usize = 512;
/// How much of each capture goes to the host.
const PACKETS_KEPT: usize = 200;
const FOLDER: &str = "/run/www";

/// The three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    Plain,
    KernelEsp,
    TwoZoneEsp,
}

impl Config {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::KernelEsp => "kernel-esp",
            Self::TwoZoneEsp => "two-zone-esp",
        }
    }
}

/// What one transfer left behind.
pub struct Transfer {
    pub config: Config,
    /// cn–ha, ha–core, core–fa1, fa1–mh.
    pub links: Vec<Captured>,
    /// The two-zone tunnel's keys.
    pub keys: Option<Keys>,
    /// The foreign agent's counters.
    pub agent: Stats,
    /// A full IP packet between correspondent and mobile host, seen where nothing is sealed yet.
    pub inner: usize,
    /// The same on its way to the foreign agent.
    pub outer: usize,
}

/// Makes the file, transfers it three times, judges; then the second act. Whether all of it held.
pub fn run(config: &RunConfig, modules: &Modules) -> Result<bool> {
    let mut log = KernelLog::from_now()?;
    let bytes = usize::try_from(config.options.bytes.unwrap_or(BYTES))?;
    let marker = traffic::random(16);
    let sum = make_file(bytes, &marker)?;
    modules.load(MODULE)?;
    let mut all_hold = true;
    for way in [Config::Plain, Config::KernelEsp, Config::TwoZoneEsp] {
        report::step(format!("transfer: {}", way.name()));
        let (transfer, row) = transfer(way, bytes, &sum)?;
        all_hold &= row["sha256_ok"] == json!(true);
        report::result("transfer", row);
        for check in readers::checks(&transfer, &marker)? {
            all_hold &= check.ok;
            report::result(
                "check",
                json!({"name": check.name, "ok": check.ok, "detail": check.detail, "config": way.name()}),
            );
        }
        for link in &transfer.links {
            report::file(
                &format!("captures/{}-{}.pcap", way.name(), link.name),
                &link.pcap(PACKETS_KEPT),
            );
        }
    }
    all_hold &= repair::act(bytes)?;
    let quiet = log.check();
    let detail = quiet
        .as_ref()
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    report::result(
        "check",
        json!({"name": "the kernel logged no warning", "ok": quiet.is_ok(), "detail": detail, "config": "all"}),
    );
    Ok(all_hold && quiet.is_ok())
}

/// A file nobody has, with a marker to be searched for. Gives its SHA-256.
fn make_file(bytes: usize, marker: &[u8]) -> Result<Vec<u8>> {
    let mut data = traffic::random(bytes);
    for block in data.chunks_mut(MARKER_EVERY) {
        if let Some(place) = block.get_mut(..marker.len()) {
            place.copy_from_slice(marker);
        }
    }
    std::fs::create_dir_all(FOLDER)?;
    std::fs::write(format!("{FOLDER}/file"), &data)?;
    Ok(digest::digest(&digest::SHA256, &data).as_ref().to_vec())
}

/// Leaves the file's first octets. Gives their SHA-256.
fn shorten_file(bytes: usize) -> Result<Vec<u8>> {
    let path = format!("{FOLDER}/file");
    let mut data = std::fs::read(&path).with_context(|| path.clone())?;
    data.truncate(bytes);
    std::fs::write(&path, &data).context(path)?;
    Ok(digest::digest(&digest::SHA256, &data).as_ref().to_vec())
}

fn transfer(config: Config, bytes: usize, sum: &[u8]) -> Result<(Transfer, Value)> {
    let net = Topology::up(Shape::Full)?;
    // Alike for all three, so that captures are honest and sizes on the wire are what the sender made.
    topology::linear(&net)?;
    net.wireless(RATE, DELAY)?;
    let keys = match config {
        Config::Plain => None,
        Config::KernelEsp => {
            tunnel::kernel_esp(&net, 256)?;
            None
        }
        Config::TwoZoneEsp => Some(zone_tunnel::set_up_by_mmlctl(&net, true, &[])?),
    };
    let _server = serve(&net)?;
    let captures = [
        Capture::start(&net.cn, "ha", "cn-ha")?,
        Capture::start(net.core()?, "ha", "ha-core")?,
        Capture::start(net.core()?, "fa1", "core-fa1")?,
        Capture::start(&net.fa1, "wl1", "fa1-mh")?,
    ];
    let got = fetched(&net, bytes, sum)?;
    let links = captures
        .into_iter()
        .map(Capture::stop)
        .collect::<Result<Vec<_>>>()?;
    let agent = if keys.is_some() {
        Stats::read(&net.fa1)?
    } else {
        Stats::default()
    };
    if config == Config::TwoZoneEsp {
        report::step(zone_tunnel::mmlctl(&net.fa1, &["stats"])?.trim());
    }

    let (inner, outer) = (
        links.first().map_or(0, full_size),
        links.get(2).map_or(0, full_size),
    );
    // RFC 6691 §2: the MSS counts neither IP nor TCP options.
    let mss = inner.saturating_sub(40);
    let row = json!({
        "config": config.name(),
        "bytes": got.bytes,
        "sha256_ok": got.whole,
        "goodput_kbps": got.goodput_kbps().round(),
        "overhead_octets": outer.saturating_sub(inner),
        "mss": mss,
        "seconds": got.seconds,
    });
    Ok((
        Transfer {
            config,
            links,
            keys,
            agent,
            inner,
            outer,
        },
        row,
    ))
}

/// Starts nginx at the correspondent.
fn serve(net: &Topology) -> Result<Background> {
    let configuration = format!(
        "daemon off; master_process off; pid /run/nginx.pid; error_log stderr;
        events {{}}
        http {{
            access_log off; sendfile on;
            client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
            uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
            server {{ listen {CN}:80; root {FOLDER}; }}
        }}"
    );
    std::fs::write("/run/nginx.conf", configuration)?;
    let mut server = net
        .cn
        .background(&["nginx", "-e", "stderr", "-c", "/run/nginx.conf"])?;
    let end = Instant::now() + Duration::from_secs(20);
    while net
        .cn
        .enter(|| Ok(std::net::TcpStream::connect((CN, 80)).is_err()))?
    {
        ensure!(server.runs(), "nginx ended: {}", server.finish()?.stderr);
        ensure!(Instant::now() < end, "nginx does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// What a fetch brought.
struct Fetched {
    seconds: f64,
    bytes: usize,
    /// Whether that is the file.
    whole: bool,
}

impl Fetched {
    fn goodput_kbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1000.0
    }
}

/// Fetches the file and looks at what came.
fn fetched(net: &Topology, bytes: usize, sum: &[u8]) -> Result<Fetched> {
    let seconds = fetch(net)?;
    let got = std::fs::read("/run/got").context("/run/got")?;
    Ok(Fetched {
        seconds,
        bytes: got.len(),
        whole: got.len() == bytes && digest::digest(&digest::SHA256, &got).as_ref() == sum,
    })
}

/// Fetches the file with curl at the mobile host; the seconds it says it took.
fn fetch(net: &Topology) -> Result<f64> {
    let _ = std::fs::remove_file(Path::new("/run/got"));
    let url = format!("http://{CN}/file");
    let home = HOME.to_string();
    let said = net.mh.run(&[
        "curl",
        "-sS",
        "--fail",
        "--interface",
        &home,
        "-o",
        "/run/got",
        "-w",
        "%{time_total}",
        &url,
    ])?;
    said.trim()
        .parse()
        .with_context(|| format!("curl said {said:?}"))
}

/// The size of most packets above 1,000 octets: the largest would be one sent before the path was known.
fn full_size(link: &Captured) -> usize {
    let mut counts = std::collections::BTreeMap::<usize, usize>::new();
    for ip in link.headers().filter(|ip| ip.total_length > 1000) {
        *counts.entry(ip.total_length).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map_or(0, |(size, _)| size)
}

/// Whether this link carries an IP packet of the two hosts in clear.
fn shows_inner_header(link: &Captured) -> bool {
    link.headers().any(|ip| {
        [ip.source, ip.destination] == [CN, HOME] || [ip.source, ip.destination] == [HOME, CN]
    }) || link.holding(&[CN.octets(), HOME.octets()].concat()) > 0
        || link.holding(&[HOME.octets(), CN.octets()].concat()) > 0
}

/// ESP packets on a link.
fn sealed(link: &Captured) -> usize {
    link.headers()
        .filter(|ip| ip.protocol == headers::ESP)
        .count()
}
