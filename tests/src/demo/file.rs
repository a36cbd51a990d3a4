// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The demo's file, and its way by HTTP: nginx at the correspondent, curl at the mobile host.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use ring::digest;

use crate::command::Background;
use crate::topology::{Topology, CN, HOME};
use crate::{elsewhere, sockets, traffic};

/// The file holds its marker once in as many octets, so that every full packet shows it whole if it is in clear.
const MARKER_EVERY: usize = 512;
const FOLDER: &str = "/run/www";
const FILE: &str = "/run/www/file";
const GOT: &str = "/run/got";

/// A file nobody has, with a marker to be searched for. Gives its SHA-256.
pub fn make_file(bytes: usize, marker: &[u8]) -> Result<Vec<u8>> {
    let mut data = traffic::random(bytes);
    for block in data.chunks_mut(MARKER_EVERY) {
        if let Some(place) = block.get_mut(..marker.len()) {
            place.copy_from_slice(marker);
        }
    }
    std::fs::create_dir_all(FOLDER)?;
    std::fs::write(FILE, &data)?;
    Ok(digest::digest(&digest::SHA256, &data).as_ref().to_vec())
}

/// Leaves the file's first octets. Gives their SHA-256.
pub fn shorten_file(bytes: usize) -> Result<Vec<u8>> {
    let mut data = std::fs::read(FILE).context(FILE)?;
    data.truncate(bytes);
    std::fs::write(FILE, &data).context(FILE)?;
    Ok(digest::digest(&digest::SHA256, &data).as_ref().to_vec())
}

/// Starts nginx at the correspondent.
pub fn serve(net: &Topology) -> Result<Background> {
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
    elsewhere::carry(&net.cn, "/run/nginx.conf")?;
    elsewhere::carry(&net.cn, FILE)?;
    let mut server = net
        .cn
        .background(&["nginx", "-e", "stderr", "-c", "/run/nginx.conf"])?;
    let end = Instant::now() + Duration::from_secs(20);
    while !sockets::answers(&net.cn, CN, 80)? {
        ensure!(server.runs(), "nginx ended: {}", server.finish()?.stderr);
        ensure!(Instant::now() < end, "nginx does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// What a fetch brought.
pub struct Fetched {
    pub seconds: f64,
    pub bytes: usize,
    /// Whether that is the file.
    pub whole: bool,
}

impl Fetched {
    /// Of the file's octets.
    pub fn goodput_kbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1000.0
    }
}

/// Fetches the file and looks at what came.
pub fn fetched(net: &Topology, bytes: usize, sum: &[u8]) -> Result<Fetched> {
    let seconds = fetch(net)?;
    let got = elsewhere::read(&net.mh, GOT)?;
    Ok(Fetched {
        seconds,
        bytes: got.len(),
        whole: got.len() == bytes && digest::digest(&digest::SHA256, &got).as_ref() == sum,
    })
}

/// Fetches the file with curl at the mobile host; the seconds it says it took.
fn fetch(net: &Topology) -> Result<f64> {
    net.mh.run(&["rm", "-f", GOT])?;
    let url = format!("http://{CN}/file");
    let home = HOME.to_string();
    let said = net.mh.run(&[
        "curl",
        "-sS",
        "--fail",
        "--interface",
        &home,
        "-o",
        GOT,
        "-w",
        "%{time_total}",
        &url,
    ])?;
    said.trim()
        .parse()
        .with_context(|| format!("curl said {said:?}"))
}
