// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Generic netlink by hand, so that requests no honest program would send can be sent too.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

pub use crate::attributes::*;
use crate::netns::Netns;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// A generic netlink socket in one namespace, for one family.
pub struct Genl {
    socket: Socket,
    family: u16,
    groups: HashMap<String, u32>,
    sequence: u32,
}

impl Genl {
    /// Opens a socket in `namespace` and looks the family up.
    pub fn open(namespace: &Netns) -> Result<Self> {
        namespace.enter(Self::open_here)
    }

    /// Opens a socket in the calling thread's namespace.
    pub fn open_here() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC).context("netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_rx_buf_sz(4i32 << 20)?;
        let mut genl = Self {
            socket,
            family: GENL_ID_CTRL,
            groups: HashMap::new(),
            sequence: 0,
        };
        let mut name = FAMILY.as_bytes().to_vec();
        name.push(0);
        let answers = genl.request(
            CTRL_CMD_GETFAMILY,
            0,
            &attribute(CTRL_ATTR_FAMILY_NAME, &name),
        )?;
        let answers = answers.map_err(|refusal| {
            anyhow::anyhow!("generic netlink has no family {FAMILY}: {refusal}")
        })?;
        let family = answers.first().context("no answer about the family")?;
        let id = find(family, CTRL_ATTR_FAMILY_ID)
            .and_then(|id| id.first_chunk::<2>())
            .context("the family has no number")?;
        genl.family = u16::from_ne_bytes(*id);
        for (_, group) in find(family, CTRL_ATTR_MCAST_GROUPS)
            .map(attributes)
            .unwrap_or_default()
        {
            if let (Some(name), Some(id)) = (
                find(group, CTRL_ATTR_MCAST_GRP_NAME),
                find(group, CTRL_ATTR_MCAST_GRP_ID).and_then(|id| id.first_chunk::<4>()),
            ) {
                genl.groups.insert(string(name), u32::from_ne_bytes(*id));
            }
        }
        Ok(genl)
    }

    /// Sends a request of the family and collects what comes until its acknowledgement.
    pub fn request(&mut self, command: u8, flags: u16, attributes: &[u8]) -> Result<Answer> {
        let message = self.message(command, flags, attributes);
        self.exchange(&message)
    }

    /// One zone message; the answers are zone messages too.
    pub fn pfkey(&mut self, message: &[u8]) -> Result<Answer> {
        self.pfkey_with(message, 0)
    }

    pub fn pfkey_with(&mut self, message: &[u8], flags: u16) -> Result<Answer> {
        let answer = self.request(CMD_PFKEY, flags, &attribute(A_PFKEY, message))?;
        Ok(answer.map(|answers| {
            answers
                .iter()
                .filter_map(|answer| find(answer, A_PFKEY))
                .map(<[u8]>::to_vec)
                .collect()
        }))
    }

    fn message(&mut self, command: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(20 + attributes.len());
        message.extend((20 + attributes.len() as u32).to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        message
    }

    fn exchange(&mut self, message: &[u8]) -> Result<Answer> {
        let answer = exchange(&self.socket, message)?;
        let without_header = |octets: Vec<u8>| octets.get(4..).unwrap_or_default().to_vec();
        Ok(answer.map(|answers| answers.into_iter().map(without_header).collect()))
    }

    /// Joins the group of events. The kernel refuses those who may not.
    pub fn join(&self, group: &str) -> Result<std::io::Result<()>> {
        let id = self
            .groups
            .get(group)
            .with_context(|| format!("the family has no group {group}"))?;
        Ok(self.socket.add_membership(*id))
    }

    /// The next zone message sent to the group, or None after `patience`.
    pub fn event(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + patience;
        self.socket.set_non_blocking(true)?;
        let found = loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => {
                    let event = parts(&datagram)
                        .into_iter()
                        .find_map(|part| find(part.octets.get(4..)?, A_PFKEY).map(<[u8]>::to_vec));
                    if event.is_some() {
                        break event;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() >= end {
                        break None;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.socket.set_non_blocking(false)?;
        Ok(found)
    }

    /// Sets one of the namespace's settings.
    pub fn set(&mut self, name: &str, value: u64) -> Result<Answer> {
        self.set_all(&[(name, value)])
    }

    /// Sets several of them in one request.
    pub fn set_all(&mut self, settings: &[(&str, u64)]) -> Result<Answer> {
        let mut attributes = Vec::new();
        for (name, value) in settings {
            let mut text = name.as_bytes().to_vec();
            text.push(0);
            let pair = [
                attribute(A_NAME, &text),
                attribute(A_VALUE, &value.to_ne_bytes()),
            ]
            .concat();
            // NLA_F_NESTED
            attributes.extend(attribute(A_COUNTER | 0x8000, &pair));
        }
        self.request(CMD_SET, 0, &attributes)
    }
}

/// Sends a whole message of any netlink family and collects what comes until its acknowledgement, each answer without
/// its netlink header.
pub fn exchange(socket: &Socket, message: &[u8]) -> Result<Answer> {
    let asked = parts(message).first().context("no message")?.sequence;
    socket.send(message, 0).context("netlink send")?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().context("netlink receive")?;
        for Part {
            kind,
            flags,
            sequence,
            octets,
        } in parts(&datagram)
        {
            if sequence != asked {
                continue;
            }
            match kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    let errno = octets
                        .first_chunk::<4>()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    if errno == 0 {
                        return Ok(Ok(answers));
                    }
                    // The request's header follows the code, and unless capped the request itself; then the text.
                    let skip = match kind {
                        NLMSG_DONE => 4,
                        _ if flags & NLM_F_CAPPED != 0 => 20,
                        _ => 4 + message.len().next_multiple_of(4),
                    };
                    let text = octets
                        .get(skip..)
                        .and_then(|rest| find(rest, 1))
                        .map(string)
                        .unwrap_or_default();
                    return Ok(Err(Refusal {
                        errno: -errno,
                        text,
                    }));
                }
                _ => answers.push(octets.to_vec()),
            }
        }
    }
}

struct Part<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    octets: &'a [u8],
}

/// The messages in a netlink datagram.
fn parts(mut datagram: &[u8]) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    while let Some(header) = datagram.first_chunk::<16>() {
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        let Some(octets) = datagram.get(16..length) else {
            break;
        };
        let kind_and_flags = word(4).to_ne_bytes();
        found.push(Part {
            kind: u16::from_ne_bytes([kind_and_flags[0], kind_and_flags[1]]),
            flags: u16::from_ne_bytes([kind_and_flags[2], kind_and_flags[3]]),
            sequence: word(8),
            octets,
        });
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    found
}
