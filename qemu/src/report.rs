// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a command found, for the screen and for `--json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};

/// Results by kind, in the order they came.
#[derive(Default)]
pub struct Report(Map<String, Value>);

/// The field of the `--json` file that results of a kind are collected in.
fn plural(kind: &str) -> String {
    match kind {
        "bench" => "rows".to_owned(),
        kind if kind.ends_with('s') => kind.to_owned(),
        kind => format!("{kind}s"),
    }
}

impl Report {
    /// Sets a field.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Makes sure results of this kind have a list, even an empty one.
    pub fn expect(&mut self, kind: &str) {
        self.0
            .entry(plural(kind))
            .or_insert_with(|| Value::Array(Vec::new()));
    }

    /// Adds a result to the list of its kind.
    pub fn add(&mut self, kind: &str, fields: Map<String, Value>) {
        self.expect(kind);
        if let Some(Value::Array(list)) = self.0.get_mut(&plural(kind)) {
            list.push(Value::Object(fields));
        }
    }

    /// Adds another's results behind its own.
    pub fn append(&mut self, other: Report) {
        for (name, value) in other.0 {
            match (self.0.get_mut(&name), value) {
                (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                (_, value) => self.set(&name, value),
            }
        }
    }

    /// The results of a kind.
    pub fn all(&self, kind: &str) -> &[Value] {
        self.0
            .get(&plural(kind))
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// Writes it where the user asked for it, if they did.
    pub fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.0)
            .map_err(|error| Error::check(error.to_string()))?;
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).context(|| format!("making {}", parent.display()))?;
        }
        std::fs::write(path, text + "\n").context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_collected_by_kind() {
        let mut report = Report::default();
        report.expect("check");
        for value in [1, 2] {
            report.add(
                "bench",
                [("value".to_owned(), Value::from(value))]
                    .into_iter()
                    .collect(),
            );
        }
        assert_eq!(report.all("bench").len(), 2);
        assert!(report.all("check").is_empty());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/x.json");
        report.write(Some(&path)).unwrap();
        let back: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(back["rows"][1]["value"], 2);
        assert_eq!(back["checks"], serde_json::json!([]));
    }

    #[test]
    fn lists_of_several_reports_become_one() {
        let one = |value: u64| {
            let mut report = Report::default();
            let fields = [("value".to_owned(), Value::from(value))];
            report.add("scenario", fields.into_iter().collect());
            report
        };
        let mut all = one(1);
        all.append(one(2));
        let values: Vec<_> = all
            .all("scenario")
            .iter()
            .map(|one| &one["value"])
            .collect();
        assert_eq!(values, [&Value::from(1), &Value::from(2)]);
    }
}
