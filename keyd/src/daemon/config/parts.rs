// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the tables of `keyd.toml` say, as digests: so that a reload knows which of them say something else.

use super::source::{Mistake, Source};
use super::Connection;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The tables that a reload takes up; all others are the daemon's for as long as it runs.
const RELOADED: [&str; 3] = ["connection", "foreign-agent", "neighbour"];

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

// Of a secret too short it could be guessed from.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

/// What the file says, table by table. Comments, order of keys and layout change nothing.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Of the tables that a reload doesn't take up, by name; with the line they begin in.
    pub fixed: BTreeMap<String, (Digest, Option<usize>)>,
    /// Of each connection, the files it names and what other tables say of it included.
    pub connections: Vec<Digest>,
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut octets = [0; 32];
    octets.copy_from_slice(context.finish().as_ref());
    Digest(octets)
}

/// Of a file that was read and checked whole. `connections` are those in it, in its order.
pub(super) fn parts(
    source: &Source<'_>,
    folder: &Path,
    connections: &[Connection],
) -> Result<Parts, Mistake> {
    let tables: Map<String, Value> =
        toml::from_str(source.text).map_err(|error| source.unreadable(&error))?;
    let fixed = tables
        .iter()
        .filter(|(name, _)| !RELOADED.contains(&name.as_str()))
        .map(|(name, table)| {
            let digest = digest(&[table.to_string().as_bytes()]);
            (name.clone(), (digest, line_of(source.text, name)))
        })
        .collect();
    let listed = tables.get("connection").and_then(Value::as_array);
    let digests = listed
        .into_iter()
        .flatten()
        .zip(connections)
        .map(|(table, one)| connection(table, folder, one))
        .collect();
    Ok(Parts {
        fixed,
        connections: digests,
    })
}

/// The line in which a table begins, from 1.
fn line_of(text: &str, table: &str) -> Option<usize> {
    let begins = |line: &str| {
        let name = line.trim_start().trim_start_matches('[').trim_start();
        let rest = name.strip_prefix(table);
        line.trim_start().starts_with('[')
            && rest.is_some_and(|rest| rest.trim_start().starts_with([']', '.']))
    };
    text.lines().position(begins).map(|at| at + 1)
}

fn connection(table: &Value, folder: &Path, one: &Connection) -> Digest {
    // Foreign agents' addresses stand in another table.
    let relays = one.tunnel.as_ref().map(|tunnel| &tunnel.relays);
    let mut octets = format!("{table}{relays:?}").into_bytes();
    let files = table.as_object().into_iter().flatten();
    for (key, value) in files.filter(|(key, _)| key.ends_with("-file")) {
        // It was there a moment ago. Where it is no more, the connection isn't as it was.
        let path = folder.join(value.as_str().unwrap_or_default());
        let file = zeroize::Zeroizing::new(std::fs::read(path).unwrap_or_default());
        octets.extend(key.as_bytes());
        octets.extend(digest(&[&file]).0);
    }
    digest(&[&octets])
}

impl Parts {
    /// The first table that a reload doesn't take up and that says something else in `new`, and its line there.
    pub fn fixed_change<'a>(&'a self, new: &'a Parts) -> Option<(&'a str, Option<usize>)> {
        let said = |parts: &Parts, name: &str| parts.fixed.get(name).map(|(digest, _)| *digest);
        let mut names = self.fixed.keys().chain(new.fixed.keys());
        let name = names.find(|name| said(self, name) != said(new, name))?;
        let line = new.fixed.get(name).and_then(|(_, line)| *line);
        Some((name, line))
    }
}
