// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Policies in a file: TOML, a `[[policy]]` table each; and the words policies are described with.

use crate::address::{host, selector, Prefix};
use crate::ports::{with_ports, Ports};
use crate::text_file;
use pfkey::number::policy;
use pfkey::{Policy, PolicyExt};
use serde::Deserialize;
use std::net::IpAddr;

/// Policies a file may hold.
pub const MAX_POLICIES: usize = 4096;

/// A policy as it is written.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// For what arrives or what leaves.
    pub dir: Direction,
    /// What is done.
    pub action: Action,
    /// The packets' source.
    #[serde(default = "any")]
    pub src: Prefix,
    /// The packets' destination.
    #[serde(default = "any")]
    pub dst: Prefix,
    /// Their upper protocol, 0 for any.
    #[serde(default)]
    pub protocol: u8,
    /// The source's ports.
    #[serde(default)]
    pub src_port: Ports,
    /// The destination's.
    #[serde(default)]
    pub dst_port: Ports,
    /// The lowest is asked first.
    #[serde(default)]
    pub priority: u32,
    /// The outer source of the CSA it asks for.
    pub outer_src: Option<IpAddr>,
    /// The outer destination.
    pub outer_dst: Option<IpAddr>,
}

/// The direction of a policy.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// What arrives.
    In,
    /// What leaves or is forwarded.
    Out,
}

/// What a policy does.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Sealed or not at all.
    Protect,
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

impl Direction {
    /// Its number in the message.
    pub const fn number(self) -> u8 {
        match self {
            Direction::In => policy::DIR_IN,
            Direction::Out => policy::DIR_OUT,
        }
    }

    /// The word for a number of the message.
    pub const fn word(number: u8) -> &'static str {
        match number {
            policy::DIR_IN => "in",
            policy::DIR_OUT => "out",
            _ => "?",
        }
    }
}

impl Action {
    /// Its number in the message.
    pub const fn number(self) -> u16 {
        match self {
            Action::Protect => policy::PROTECT,
            Action::Bypass => policy::BYPASS,
            Action::Discard => policy::DISCARD,
        }
    }

    /// The word for a number of the message.
    pub const fn word(number: u16) -> &'static str {
        match number {
            policy::PROTECT => "protect",
            policy::BYPASS => "bypass",
            policy::DISCARD => "discard",
            _ => "?",
        }
    }
}

fn any() -> Prefix {
    Prefix::ANY
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    policy: Vec<Entry>,
}

/// Reads the policies in `text`, which is called `name` in errors.
pub fn parse(name: &str, text: &str) -> Result<Vec<Policy>, String> {
    let file: File = text_file::parse(name, text)?;
    if file.policy.is_empty() {
        return Err(format!("{name}: no [[policy]] table in it"));
    }
    if file.policy.len() > MAX_POLICIES {
        return Err(format!(
            "{name}: more than {MAX_POLICIES} [[policy]] tables; split the file"
        ));
    }
    (1..)
        .zip(&file.policy)
        .map(|(number, entry)| {
            entry
                .to_policy()
                .map_err(|error| format!("{name}: [[policy]] number {number}: {error}"))
        })
        .collect()
}

impl Entry {
    /// The policy as the message holds it.
    pub fn to_policy(&self) -> Result<Policy, String> {
        let selector = selector(self.src, self.dst, self.protocol)
            .ok_or("src and dst are of two families; both must be IPv4 or both IPv6")?;
        let selector = with_ports(selector, self.src_port, self.dst_port)?;
        let template = match (self.outer_src, self.outer_dst) {
            (None, None) => None,
            (Some(src), Some(dst)) => Some((host(src), host(dst))),
            (Some(_), None) => return Err("outer-src without outer-dst; give both or none".into()),
            (None, Some(_)) => return Err("outer-dst without outer-src; give both or none".into()),
        };
        let ext = PolicyExt {
            kind: self.action.number(),
            direction: self.dir.number(),
            id: 0,
            priority: self.priority,
        };
        let policy = Policy {
            ext,
            selector,
            template,
        };
        check_written(&policy)?;
        Ok(policy)
    }
}

/// Writes it and reads it as the module will: what this refuses, the module would.
fn check_written(policy: &Policy) -> Result<(), String> {
    let mut buffer = [0; pfkey::MAX_LEN];
    let octets =
        crate::kernel::policy_message(&mut buffer, policy, 0).map_err(|error| error.to_string())?;
    let message = pfkey::Message::parse(octets).map_err(|error| error.to_string())?;
    Policy::from_message(&message)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
