// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A netlink socket that speaks with one generic netlink family.

use super::frame::{self, Attributes, Message, Messages, Request};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket as Raw, SocketAddr};
use std::io;
use zeroize::Zeroizing;

/// Octets received at once: the kernel's dumps fill 32 KiB at most.
const BUFFER_LEN: usize = 1 << 16;
/// How often a dump is asked for again because its subject changed meanwhile.
const DUMP_TRIES: u32 = 8;

/// The family of families (`GENL_ID_CTRL`) and what is asked of it.
mod ctrl {
    pub const FAMILY: u16 = 16;
    pub const VERSION: u8 = 2;
    pub const GET_FAMILY: u8 = 3;
    pub const FAMILY_ID: u16 = 1;
    pub const FAMILY_NAME: u16 = 2;
    pub const GROUPS: u16 = 7;
    pub const GROUP_NAME: u16 = 1;
    pub const GROUP_ID: u16 = 2;
}

/// Why the kernel didn't do what was asked.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The socket failed.
    #[error("{}", failure(.0))]
    Io(#[from] io::Error),
    /// There is no family of this name: the module isn't loaded.
    #[error("the kernel module isn't loaded; `modprobe mml` loads it")]
    NoFamily,
    /// The family has no such multicast group.
    #[error(
        "the kernel module has no multicast group {0}; it is another version than this program"
    )]
    NoGroup(&'static str),
    /// The kernel said no.
    #[error("{}", refusal(*errno, text.as_deref()))]
    Refused {
        /// A positive errno.
        errno: i32,
        /// The extended ack's words.
        text: Option<String>,
    },
    /// What came makes no sense.
    #[error("netlink: the kernel's answer is malformed: {0}")]
    Malformed(&'static str),
    /// Events came faster than they were read, and some are lost.
    #[error("netlink: events came too fast, and some are lost")]
    Overrun,
}

/// `EPERM`.
const EPERM: i32 = 1;
/// What an `EPERM` without words means.
const NOT_PERMITTED: &str =
    "not permitted: it takes CAP_NET_ADMIN over this network namespace; run it as root";

fn refusal(errno: i32, text: Option<&str>) -> String {
    match (errno, text) {
        (EPERM, None) => NOT_PERMITTED.into(),
        (_, Some(text)) => format!("{text} ({})", meaning(errno)),
        (_, None) => meaning(errno),
    }
}

fn failure(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EPERM) => NOT_PERMITTED.into(),
        Some(errno) => format!("netlink: {}", meaning(errno)),
        None => format!("netlink: {error}"),
    }
}

/// The C library's words for an errno.
fn meaning(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

impl Error {
    /// Whether it is the caller's lack of the capability.
    pub fn is_permission(&self) -> bool {
        match self {
            Error::Refused { errno, .. } => *errno == EPERM,
            Error::Io(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// The errno, if the kernel said no.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A socket and the family it speaks with.
pub struct Socket {
    raw: Raw,
    family: u16,
    group: Option<u32>,
    version: u8,
    seq: u32,
    buffer: Zeroizing<Vec<u8>>,
}

impl Socket {
    /// Opens a socket and looks up the family `name` and its multicast group `group`.
    pub fn open(name: &str, version: u8, group: &str) -> Result<Self, Error> {
        let mut raw = Raw::new(NETLINK_GENERIC)?;
        raw.bind_auto()?;
        // Both are conveniences: a kernel without them still says no by errno.
        let _ = raw.set_ext_ack(true);
        let _ = raw.set_cap_ack(true);
        let buffer = Zeroizing::new(vec![0; BUFFER_LEN]);
        let mut socket = Socket {
            raw,
            family: ctrl::FAMILY,
            group: None,
            version: ctrl::VERSION,
            seq: 0,
            buffer,
        };
        socket.resolve(name, group)?;
        socket.version = version;
        Ok(socket)
    }

    fn resolve(&mut self, name: &str, group: &str) -> Result<(), Error> {
        let (mut family, mut found) = (None, None);
        let name = [name.as_bytes(), &[0]].concat();
        let asked = self.request(
            ctrl::GET_FAMILY,
            &|r| r.attribute(ctrl::FAMILY_NAME, &name),
            &mut |message| {
                let attributes = message.attributes();
                family = attributes
                    .find(ctrl::FAMILY_ID)
                    .and_then(|value| value.try_into().ok())
                    .map(u16::from_ne_bytes);
                for (_, entry) in Attributes(attributes.find(ctrl::GROUPS).unwrap_or(&[])) {
                    let entry = Attributes(entry);
                    if entry.find(ctrl::GROUP_NAME).map(frame::text).as_deref() == Some(group) {
                        found = entry
                            .find(ctrl::GROUP_ID)
                            .and_then(|value| value.try_into().ok())
                            .map(u32::from_ne_bytes);
                    }
                }
                Ok(())
            },
        );
        match asked {
            Err(Error::Refused { errno, .. }) if errno == ENOENT => return Err(Error::NoFamily),
            other => other?,
        }
        self.family = family.ok_or(Error::Malformed("a family without a number"))?;
        self.group = found;
        Ok(())
    }

    /// Sends a command and gives its answers, if any, to `answer`.
    pub fn request(
        &mut self,
        command: u8,
        fill: &dyn Fn(Request) -> Request,
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.exchange(command, frame::ACK, fill, answer).map(|_| ())
    }

    /// Asks for a dump and gives all of its answers to `answer`; to `restart` first, each time it begins.
    pub fn dump(
        &mut self,
        command: u8,
        fill: &dyn Fn(Request) -> Request,
        restart: &mut dyn FnMut(),
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for _ in 0..DUMP_TRIES {
            restart();
            if self.exchange(command, frame::DUMP, fill, answer)? {
                return Ok(());
            }
        }
        // It changes all the time; the last one is as good as any.
        Ok(())
    }

    /// True if what came is consistent.
    fn exchange(
        &mut self,
        command: u8,
        flags: u16,
        fill: &dyn Fn(Request) -> Request,
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.seq = self.seq.wrapping_add(1);
        let request = fill(Request::new(
            self.family,
            flags,
            self.seq,
            command,
            self.version,
        ))
        .finish();
        self.send(&request)?;
        drop(request);
        let mut consistent = true;
        loop {
            let len = receive(&self.raw, &mut self.buffer)?;
            for message in Messages(&self.buffer[..len]) {
                if message.seq != self.seq {
                    continue;
                }
                consistent &= message.flags & frame::DUMP_INTERRUPTED == 0;
                match message.kind {
                    frame::KIND_ERROR | frame::KIND_DONE => {
                        // A kernel may end a dump without an errno.
                        let (errno, text) = frame::errno(&message).unwrap_or((0, None));
                        return if errno == 0 {
                            Ok(consistent)
                        } else {
                            Err(Error::Refused { errno, text })
                        };
                    }
                    frame::KIND_OVERRUN => return Err(Error::Overrun),
                    kind if kind == self.family => answer(&message)?,
                    _ => {}
                }
            }
        }
    }

    fn send(&self, octets: &[u8]) -> Result<(), Error> {
        let sent = self.raw.send_to(octets, &SocketAddr::new(0, 0), 0)?;
        if sent != octets.len() {
            return Err(Error::Malformed("a request was sent in part"));
        }
        Ok(())
    }

    /// Joins the family's multicast group, which is called `name` in errors.
    pub fn join(&mut self, name: &'static str) -> Result<(), Error> {
        let group = self.group.ok_or(Error::NoGroup(name))?;
        Ok(self.raw.add_membership(group)?)
    }

    /// Waits for events and gives them to `event`.
    pub fn events(
        &mut self,
        event: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let len = receive(&self.raw, &mut self.buffer)?;
        for message in Messages(&self.buffer[..len]).filter(|message| message.kind == self.family) {
            event(&message)?;
        }
        Ok(())
    }
}

/// `ENOENT`: what the family of families says of a name it doesn't know.
const ENOENT: i32 = 2;

fn receive(raw: &Raw, buffer: &mut [u8]) -> Result<usize, Error> {
    /// `ENOBUFS`: the socket's queue ran over.
    const ENOBUFS: i32 = pfkey::errno::ENOBUFS;
    loop {
        match raw.recv(&mut &mut *buffer, 0) {
            Ok(len) if len >= buffer.len() => return Err(Error::Malformed("longer than 64 KiB")),
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Err(Error::Overrun),
            Err(error) => return Err(error.into()),
        }
    }
}
