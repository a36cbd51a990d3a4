// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What conductor and agents say to each other, over a virtio port a node: a request, and one reply to it.
//!
//! A frame is its number, the lengths of two parts (all u32, little endian), a part in JSON and one of bare octets. Replies
//! bear their request's number and may come in any order.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The agent's port in a node's guest.
pub const AGENT: &str = "org.mml.agent";
/// The longest part taken: a capture of the demo's file, with room.
const PART_MAX: u32 = 256 << 20;

/// How long a port may take to appear.
const APPEARS: Duration = Duration::from_secs(20);

/// What an agent is asked to do. `id` names what an earlier request opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Whether it is there.
    Hello,
    /// Makes the node anew: module loaded, a network namespace, the links in it.
    Begin,
    /// Takes it away again, and says what the kernel has to say.
    End,
    /// Runs a program at the node.
    Run {
        argv: Vec<String>,
        input: Option<String>,
    },
    /// Starts one in the background.
    Start {
        argv: Vec<String>,
    },
    Runs {
        id: u32,
    },
    /// Waits for its end.
    Finish {
        id: u32,
    },
    /// Ends it.
    Kill {
        id: u32,
    },
    Sysctl {
        key: String,
        value: String,
    },
    Capture {
        interface: String,
        name: String,
    },
    /// Ends a capture; its packets are the reply's octets.
    Captured {
        id: u32,
    },
    /// Opens a socket of the module's netlink family.
    Genl,
    /// A request to the module; the attributes are this request's octets.
    Ask {
        id: u32,
        command: u8,
        flags: u16,
    },
    Join {
        id: u32,
        group: String,
    },
    Event {
        id: u32,
        millis: u64,
    },
    Udp {
        address: Ipv4Addr,
        port: u16,
    },
    UdpSend {
        id: u32,
        to: SocketAddrV4,
    },
    UdpReceive {
        id: u32,
        millis: u64,
    },
    Raw {
        protocol: u8,
    },
    RawSend {
        id: u32,
    },
    RawReceive {
        id: u32,
        millis: u64,
    },
    Listen {
        address: Ipv4Addr,
        port: u16,
    },
    Accept {
        id: u32,
    },
    Connect {
        address: Ipv4Addr,
        port: u16,
    },
    Write {
        id: u32,
    },
    /// What has come, at most so many octets; none at the stream's end.
    Read {
        id: u32,
        most: usize,
    },
    Shutdown {
        id: u32,
    },
    /// Writes a file, with these permissions.
    Put {
        path: String,
        mode: u32,
    },
    Get {
        path: String,
    },
    Close {
        id: u32,
    },
    /// Looks through all of the guest's memory for octets that come masked: see `search`.
    Search {
        length: usize,
    },
    PowerOff,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Opened(u32),
    Yes(bool),
    /// Nothing came within the time given.
    Nothing,
    Finished {
        success: bool,
        stdout: String,
        stderr: String,
    },
    /// The module's answers, by their lengths in the octets; or its refusal.
    Answers(Vec<usize>),
    Refused {
        errno: i32,
        text: String,
    },
    /// How often each was found.
    Found(Vec<u64>),
    /// It could not be done; the errno if it was a system call's.
    Failed {
        text: String,
        errno: Option<i32>,
    },
}

/// Opens the virtio port of this name, which may yet have to get it.
pub fn open_port(wanted: &str) -> Result<File> {
    let end = Instant::now() + APPEARS;
    loop {
        match find_port(wanted) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}

/// There is no udev in the guest, so it is found in sysfs.
fn find_port(wanted: &str) -> Result<File> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports").context("no virtio-serial port")? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == wanted {
            let device = Path::new("/dev").join(entry.file_name());
            return OpenOptions::new()
                .read(true)
                .write(true)
                .open(&device)
                .with_context(|| format!("{}", device.display()));
        }
    }
    anyhow::bail!("no virtio-serial port is named {wanted}")
}

/// Sends a frame.
pub fn send(to: &mut File, number: u32, what: &impl Serialize, octets: &[u8]) -> Result<()> {
    let text = serde_json::to_vec(what)?;
    let mut frame = Vec::with_capacity(12 + text.len() + octets.len());
    for word in [
        number,
        u32::try_from(text.len())?,
        u32::try_from(octets.len())?,
    ] {
        frame.extend(word.to_le_bytes());
    }
    frame.extend(text);
    frame.extend(octets);
    to.write_all(&frame).context("the port")
}

/// Receives a frame.
pub fn receive<T: DeserializeOwned>(from: &mut File) -> Result<(u32, T, Vec<u8>)> {
    let mut words = [0u32; 3];
    for word in &mut words {
        let mut octets = [0; 4];
        read_exact(from, &mut octets)?;
        *word = u32::from_le_bytes(octets);
    }
    let [number, text, octets] = words;
    ensure!(
        text <= PART_MAX && octets <= PART_MAX,
        "a frame of {text} and {octets} octets: the two ends have lost step"
    );
    let mut part = |length: u32| -> Result<Vec<u8>> {
        let mut part = vec![0; length as usize];
        read_exact(from, &mut part)?;
        Ok(part)
    };
    let what = serde_json::from_slice(&part(text)?).context("a frame of an unknown form")?;
    Ok((number, what, part(octets)?))
}

/// A port whose other end isn't connected reads as ended; it is waited for.
fn read_exact(from: &mut File, mut into: &mut [u8]) -> Result<()> {
    while !into.is_empty() {
        match from.read(into).context("the port")? {
            0 => std::thread::sleep(Duration::from_millis(20)),
            read => into = into.get_mut(read..).unwrap_or_default(),
        }
    }
    Ok(())
}
