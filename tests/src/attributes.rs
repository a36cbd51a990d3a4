// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Netlink attributes by hand, and the module's family: what requests and answers are made of.

use anyhow::{ensure, Context, Result};

pub const FAMILY: &str = "mml";
pub const EVENTS: &str = "events";

/// Commands and attributes of family `mml`, version 1 (`pfkey/netlink/mml.yaml`).
pub const CMD_PFKEY: u8 = 1;
pub const CMD_STATS: u8 = 2;
pub const CMD_SET: u8 = 3;
pub const A_PFKEY: u16 = 1;
pub const A_STATS_SCOPE: u16 = 2;
pub const A_SPI: u16 = 3;
pub const A_SRC: u16 = 4;
pub const A_DST: u16 = 5;
pub const A_ROLE: u16 = 6;
pub const A_COUNTER: u16 = 7;
pub const A_NAME: u16 = 8;
pub const A_VALUE: u16 = 9;

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP: u16 = 0x300;

/// A refusal: errno and what the extended ack says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub errno: i32,
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}",
            std::io::Error::from_raw_os_error(self.errno),
            self.text
        )
    }
}

/// What a request brought: the answers' attributes, or a refusal.
pub type Answer = std::result::Result<Vec<Vec<u8>>, Refusal>;

/// An attribute: its header, its octets, padding to 4.
pub fn attribute(kind: u16, octets: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + octets.len().next_multiple_of(4));
    attribute.extend(((4 + octets.len()) as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(octets);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Takes attributes apart: (type without flags, octets).
pub fn attributes(mut octets: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(header) = octets.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let Some(value) = octets.get(4..length) else {
            break;
        };
        found.push((kind, value));
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The first attribute of this type.
pub fn find(octets: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(octets)
        .into_iter()
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

pub fn string(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .trim_end_matches('\0')
        .to_owned()
}

/// The refusal of a request that must be refused.
pub fn refused(answer: Answer, what: &str) -> Result<Refusal> {
    ensure!(answer.is_err(), "{what} was accepted");
    answer.err().context("refusal")
}

/// The answers of a request that must be accepted.
pub fn accepted(answer: Answer, what: &str) -> Result<Vec<Vec<u8>>> {
    answer.map_err(|refusal| anyhow::anyhow!("{what} was refused: {refusal}"))
}
