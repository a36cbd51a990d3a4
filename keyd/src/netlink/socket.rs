// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A netlink socket that speaks with one generic netlink family.

use super::frame::{self, Attributes, Message, Request};
use super::Line;
use netlink_sys::protocols::NETLINK_GENERIC;
use std::io;

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
    line: Line,
    family: u16,
    group: Option<u32>,
    version: u8,
}

impl Socket {
    /// Opens a socket and looks up the family `name` and its multicast group `group`.
    pub fn open(name: &str, version: u8, group: &str) -> Result<Self, Error> {
        let mut socket = Socket {
            line: Line::open(NETLINK_GENERIC)?,
            family: ctrl::FAMILY,
            group: None,
            version: ctrl::VERSION,
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

    /// Sends a command that has one answer, and gives that to `answer`.
    pub fn ask(
        &mut self,
        command: u8,
        fill: &dyn Fn(Request) -> Request,
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.exchange(command, 0, fill, answer).map(|_| ())
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
        let (family, version) = (self.family, self.version);
        let build = |seq| fill(Request::new(family, flags, seq, command, version)).finish();
        self.line.exchange(&build, &mut |message| {
            if message.kind == family {
                answer(message)
            } else {
                Ok(())
            }
        })
    }

    /// Joins the family's multicast group, which is called `name` in errors.
    pub fn join(&mut self, name: &'static str) -> Result<(), Error> {
        let group = self.group.ok_or(Error::NoGroup(name))?;
        self.line.join(group)
    }

    /// Has the kernel keep back the messages that a filter doesn't let in.
    pub fn filter(&mut self, steps: &[socket2::SockFilter]) -> Result<(), Error> {
        self.line.filter(steps)
    }

    /// Waits for events and gives them to `event`.
    pub fn events(
        &mut self,
        event: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let family = self.family;
        self.line.events(&mut |message| {
            if message.kind == family {
                event(message)
            } else {
                Ok(())
            }
        })
    }
}

/// `ENOENT`: what the family of families says of a name it doesn't know.
const ENOENT: i32 = 2;
