// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The module's netlink family in other guests.

use std::time::Duration;

use anyhow::{bail, Result};

pub use crate::attributes::*;

use crate::agents::Held;
use crate::netns::Netns;
use crate::wire::{Reply, Request};

/// A generic netlink socket at one node, for one family.
pub struct Genl(Held);

impl Genl {
    /// Opens a socket at the node and looks the family up.
    pub fn open(namespace: &Netns) -> Result<Self> {
        Ok(Self(namespace.node().open(Request::Genl)?))
    }

    /// Sends a request of the family and collects what comes until its acknowledgement.
    pub fn request(&mut self, command: u8, flags: u16, attributes: &[u8]) -> Result<Answer> {
        let id = self.0.id();
        let answer = self
            .0
            .ask(&Request::Ask { id, command, flags }, attributes)?;
        match answer.reply {
            Reply::Refused { errno, text } => Ok(Err(Refusal { errno, text })),
            Reply::Answers(lengths) => {
                let mut octets = answer.octets.as_slice();
                let mut answers = Vec::new();
                for length in lengths {
                    let Some((one, rest)) = octets.split_at_checked(length) else {
                        bail!("an agent sent answers that are cut off");
                    };
                    answers.push(one.to_vec());
                    octets = rest;
                }
                Ok(Ok(answers))
            }
            other => bail!("an agent answered {other:?} for netlink"),
        }
    }

    /// One zone message; the answers are zone messages too.
    pub fn pfkey(&mut self, message: &[u8]) -> Result<Answer> {
        self.pfkey_with(message, 0)
    }

    /// The same with netlink's flags.
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

    /// Joins the group of events. The kernel refuses those who may not.
    pub fn join(&self, group: &str) -> Result<std::io::Result<()>> {
        let request = Request::Join {
            id: self.0.id(),
            group: group.to_owned(),
        };
        self.0.ask(&request, &[])?;
        Ok(Ok(()))
    }

    /// The next zone message sent to the group, or None after `patience`.
    pub fn event(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let request = Request::Event {
            id: self.0.id(),
            millis: u64::try_from(patience.as_millis())?,
        };
        let answer = self.0.ask(&request, &[])?;
        Ok((!matches!(answer.reply, Reply::Nothing)).then_some(answer.octets))
    }

    /// Sets one of the node's settings.
    pub fn set(&mut self, name: &str, value: u64) -> Result<Answer> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let pair = [
            attribute(A_NAME, &text),
            attribute(A_VALUE, &value.to_ne_bytes()),
        ]
        .concat();
        // NLA_F_NESTED
        self.request(CMD_SET, 0, &attribute(A_COUNTER | 0x8000, &pair))
    }
}
