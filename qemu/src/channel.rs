// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What guests report: JSON lines, one event each, over the virtio port `org.mml.report`.

use std::path::Path;

use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};

/// The port's name, the same in the guest.
pub const PORT: &str = "org.mml.report";

/// One event of a guest.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The guest is up.
    Hello {
        /// `uname -r`.
        kernel: String,
        /// Processors it sees.
        vcpus: u32,
    },
    /// What is going on.
    Step {
        /// For the user.
        text: String,
    },
    /// A scenario has ended.
    Scenario {
        /// Its name.
        name: String,
        /// Whether it proved what it claims.
        ok: bool,
        /// How long it took, in seconds of the guest.
        #[serde(default)]
        seconds: f64,
        /// What it proves.
        #[serde(default)]
        proves: String,
        /// Why not.
        #[serde(default)]
        detail: Option<String>,
    },
    /// A result, merged into the `--json` file by its kind.
    Result {
        /// `transfer`, `check`, `bench` or another.
        kind: String,
        /// Its fields.
        #[serde(flatten)]
        fields: Map<String, Value>,
    },
    /// An artefact for the host.
    File {
        /// Its name relative to the output directory.
        name: String,
        /// Its content in base64.
        data: String,
    },
    /// The guest has ended; without this it has failed.
    Done {
        /// Whether all went well.
        ok: bool,
    },
}

/// Splits what has arrived into events; keeps an unfinished line for the next time.
#[derive(Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Takes octets in and gives the events that are whole now. A line that is no event is given back as text.
    pub fn feed(&mut self, octets: &[u8]) -> Vec<std::result::Result<Event, String>> {
        self.pending.extend_from_slice(octets);
        let mut events = Vec::new();
        while let Some(end) = self.pending.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() {
                events.push(serde_json::from_str(&line).map_err(|_| line));
            }
        }
        events
    }
}

/// Where an artefact may be written: a relative path that stays below the output directory.
pub fn is_safe(name: &str) -> bool {
    use std::path::Component;
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Writes an artefact.
pub fn save(directory: &Path, name: &str, data: &str) -> Result<()> {
    if !is_safe(name) {
        return Err(Error::check(format!(
            "the guest sent a file with the name {name:?}"
        )));
    }
    let octets = base64::engine::general_purpose::STANDARD
        .decode(data)
        .map_err(|error| Error::check(format!("{name}: {error}")))?;
    let path = directory.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(|| format!("making {}", parent.display()))?;
    }
    std::fs::write(&path, octets).context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_across_pieces() {
        let mut reader = Reader::default();
        assert!(reader
            .feed(b"{\"event\":\"hello\",\"kernel\":\"7.3\",")
            .is_empty());
        let events = reader.feed(b"\"vcpus\":2}\n{\"event\":\"done\",\"ok\":true}\nnoise\n");
        assert_eq!(
            events[0],
            Ok(Event::Hello {
                kernel: "7.3".into(),
                vcpus: 2
            })
        );
        assert_eq!(events[1], Ok(Event::Done { ok: true }));
        assert_eq!(events[2], Err("noise".into()));
    }

    #[test]
    fn a_result_keeps_its_fields_and_loses_its_envelope() {
        let mut reader = Reader::default();
        let events =
            reader.feed(b"{\"event\":\"result\",\"kind\":\"check\",\"name\":\"x\",\"ok\":true}\n");
        let Ok(Event::Result { kind, fields }) = &events[0] else {
            panic!("{events:?}")
        };
        assert_eq!(kind, "check");
        assert_eq!(fields.len(), 2);
        assert_eq!(fields["ok"], true);
    }

    #[test]
    fn artefacts_stay_in_their_directory() {
        assert!(is_safe("captures/ha.pcap"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(!is_safe(bad), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "a/b", "aGVsbG8=").unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b")).unwrap(), b"hello");
        assert!(save(dir.path(), "c", "***").is_err());
    }
}
