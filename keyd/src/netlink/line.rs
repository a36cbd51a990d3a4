// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A netlink socket of any protocol: requests, each with its answers, and events.

use super::frame::{self, Message, Messages};
use super::Error;
use netlink_sys::{Socket as Raw, SocketAddr};
use socket2::{SockFilter, SockRef};
use std::io;
use zeroize::Zeroizing;

/// Octets received at once: the kernel's dumps fill 32 KiB at most.
const BUFFER_LEN: usize = 1 << 16;

/// A socket, and what was last received by it.
pub struct Line {
    raw: Raw,
    seq: u32,
    buffer: Zeroizing<Vec<u8>>,
}

impl Line {
    /// Opens a socket of that netlink protocol.
    ///
    /// # Errors
    /// The system's.
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        // Both are conveniences: a kernel without them still says no by errno.
        let _ = raw.set_ext_ack(true);
        let _ = raw.set_cap_ack(true);
        Ok(Line {
            raw,
            seq: 0,
            buffer: Zeroizing::new(vec![0; BUFFER_LEN]),
        })
    }

    /// Sends what `build` makes of a request's number, and gives what comes of it to `answer`: until it is acknowledged or the
    /// dump is over, or, of a request that asks for neither, one answer. True if it is consistent.
    ///
    /// # Errors
    /// The kernel's refusal, the socket's failure, or `answer`'s.
    pub fn exchange(
        &mut self,
        build: &dyn Fn(u32) -> Zeroizing<Vec<u8>>,
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.seq = self.seq.wrapping_add(1);
        let request = build(self.seq);
        self.send(&request)?;
        let asked = Messages(&request).next().map_or(0, |own| own.flags);
        let one = asked & (frame::ACK | frame::DUMP) == 0;
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
                    _ => {
                        answer(&message)?;
                        if one {
                            return Ok(consistent);
                        }
                    }
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

    /// Joins a multicast group, by its number.
    ///
    /// # Errors
    /// The system's.
    pub fn join(&mut self, group: u32) -> Result<(), Error> {
        Ok(self.raw.add_membership(group)?)
    }

    /// Has the kernel keep back the messages that a filter doesn't let in (`bpf(4)`).
    ///
    /// # Errors
    /// The system's.
    pub fn filter(&mut self, steps: &[SockFilter]) -> Result<(), Error> {
        Ok(SockRef::from(&self.raw).attach_filter(steps)?)
    }

    /// Waits for messages nobody asked for and gives them to `event`.
    ///
    /// # Errors
    /// The socket's failure, [`Error::Overrun`] when some are lost, or `event`'s.
    pub fn events(
        &mut self,
        event: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let len = receive(&self.raw, &mut self.buffer)?;
        for message in Messages(&self.buffer[..len]) {
            event(&message)?;
        }
        Ok(())
    }
}

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
