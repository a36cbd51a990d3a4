// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client's end of the control socket, which waits for answers.

use super::{Answer, Request, MAX_LINE};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why there is no answer, or no good one.
#[derive(thiserror::Error, Debug)]
pub enum Failure {
    /// Nobody listens.
    #[error("{}: {error}; is keyd running, and may you speak with it?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The daemon went away, or is another version.
    #[error("keyd's answer can't be read: {0}")]
    Unreadable(String),
    /// Nothing is known of what was named.
    #[error("{0}")]
    Unknown(String),
    /// As things stand it can't be done.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the daemon.
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).map_err(|error| Failure::Unreachable {
            path: path.to_owned(),
            error,
        })?;
        Ok(Client(BufReader::new(stream)))
    }

    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn ask(&mut self, request: &Request) -> Result<Value, Failure> {
        self.send(request)?;
        self.answer()?
            .ok_or_else(|| Failure::Unreadable("it ended before it answered".into()))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let unreadable = |error: io::Error| Failure::Unreadable(error.to_string());
        let mut line = serde_json::to_vec(request).map_err(|error| unreadable(error.into()))?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line).map_err(unreadable)?;
        if let Request::Log { follow: false } = request {
            // Nothing more comes from here: the daemon's end of the log is the end of the answer.
            let shut = self.0.get_ref().shutdown(std::net::Shutdown::Write);
            shut.map_err(unreadable)?;
        }
        Ok(())
    }

    /// The next answer; `None` at the end.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn answer(&mut self) -> Result<Option<Value>, Failure> {
        let mut line = Vec::new();
        // A node of thousands of SAs has a long list.
        let most = 1024 * MAX_LINE as u64;
        (&mut self.0)
            .take(most)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Unreadable(error.to_string()))?;
        if line.is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Done(value)) => Ok(Some(value)),
            Ok(Answer::Unknown(text)) => Err(Failure::Unknown(text)),
            Ok(Answer::Refused(text)) => Err(Failure::Refused(text)),
            Ok(Answer::Malformed(text)) => Err(Failure::Unreadable(text)),
            Err(error) => Err(Failure::Unreadable(error.to_string())),
        }
    }
}
