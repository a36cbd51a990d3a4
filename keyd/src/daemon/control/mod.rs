// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The control socket: a JSON document a line, each way (docs/keyd.md, "The control socket").

mod client;
mod server;

pub use client::{Client, Failure};
pub use server::{Asked, Server};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::Ipv4Addr;

/// Where the socket is, unless `keyd.toml` says otherwise.
pub const SOCKET: &str = "/run/keyd/control";
/// Octets of the longest line that is read.
pub const MAX_LINE: usize = 1 << 16;

/// What is asked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The node and its connections.
    Status,
    /// SAs.
    SaList,
    /// Begin a connection.
    Initiate {
        /// Which.
        name: String,
        /// For how many seconds the answer may wait until it is up; 0: none waits.
        #[serde(default)]
        wait: u64,
    },
    /// Make new keys.
    Rekey {
        /// A connection's name, or an SPI.
        what: String,
        /// The connection's IKE SA, not its children.
        #[serde(default)]
        ike: bool,
    },
    /// Close.
    Delete {
        /// A connection's name, or an SPI.
        what: String,
    },
    /// HA, FA: end a mobile host's registration.
    Revoke {
        /// Its home address.
        home: Ipv4Addr,
    },
    /// Take everything away, tell peers, and end.
    Leave,
    /// Read the file again.
    Reload,
    /// The last lines of the log, one answer each; and those to come.
    Log {
        /// Whether to go on.
        follow: bool,
    },
}

/// What is answered.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done; this is what there is to say.
    Done(Value),
    /// It was not: nothing is known of what it names.
    Unknown(String),
    /// It was not: as things stand it can't be.
    Refused(String),
    /// It was not: that is no request.
    Malformed(String),
}
