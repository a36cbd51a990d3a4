// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file's text, to say where in it a mistake is.

use std::fmt;
use std::ops::Range;

/// A mistake in a file: where, what, and what mends it.
#[derive(PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The file's name.
    pub file: String,
    /// The line, from 1, and its text up to the value: a value may be a secret in the wrong place.
    pub line: Option<(usize, String)>,
    /// The key, the cause and the mend.
    pub what: String,
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some((number, text)) => write!(
                f,
                "{}: line {number}: {}\n{number:>5} | {text}",
                self.file, self.what
            ),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// A file's name and text.
pub(super) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// A mistake at that place.
    pub fn mistake(&self, span: &Range<usize>, what: impl fmt::Display) -> Mistake {
        Mistake {
            file: self.file.to_owned(),
            line: self.line(span.start),
            what: what.to_string(),
        }
    }

    /// A mistake the parser found, without the values it quotes.
    pub fn unreadable(&self, error: &toml::de::Error) -> Mistake {
        let line = error.span().and_then(|span| self.line(span.start));
        let what = crate::text_file::without_quotes(error.message());
        // serde names the key where it is unknown or missing; where a value is wrong, its line does.
        let key = line
            .as_ref()
            .and_then(|(_, text)| text.strip_suffix(" = …"))
            .map(str::trim)
            .filter(|key| !what.contains(&format!("`{key}`")));
        Mistake {
            file: self.file.to_owned(),
            what: match key {
                Some(key) => format!("{key}: {what}"),
                None => what,
            },
            line,
        }
    }

    fn line(&self, at: usize) -> Option<(usize, String)> {
        let before = self.text.get(..at)?;
        let number = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..)?.lines().next().unwrap_or("");
        let shown = match line.split_once('=') {
            Some((key, _)) => format!("{} = …", key.trim_end()),
            None if line.trim_start().starts_with('[') => line.to_owned(),
            None => "…".to_owned(),
        };
        Some((number, shown))
    }
}
