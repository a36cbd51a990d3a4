// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What goes to standard output: words for people, JSON for programs.

use crate::table::Table;
use serde_json::Value;
use std::io::{self, Write};

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
}

impl Output {
    /// A line of words, or a JSON document.
    pub fn say(self, text: &str, json: &Value) {
        if self.json {
            print(&json.to_string());
        } else {
            print(text);
        }
    }

    /// A table, or a JSON document. `empty` is said in place of a table without rows.
    pub fn table(self, table: &Table, empty: &str, json: &Value) {
        if self.json {
            print(&json.to_string());
        } else if table.is_empty() {
            print(empty);
        } else {
            print(table.render(terminal_columns()).trim_end());
        }
    }
}

/// A number of things, in words.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Prints a line. A reader that has gone away, as `head` does, is no failure.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let done = writeln!(out, "{text}").and_then(|()| out.flush());
    if done.is_err() {
        std::process::exit(0);
    }
}

/// The terminal's width, if standard output is one.
pub fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
