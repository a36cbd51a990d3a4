// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a command failed, and its exit code.

use crate::output::Output;
use keyd::netlink::Error;
use std::process::ExitCode;

/// The kernel or keyd said no.
const REFUSED: u8 = 1;
/// The command line, a file or the terminal's answer is wrong. clap has the same.
const USAGE: u8 = 2;
/// There is no module, no keyd, or no permission to ask.
const UNAVAILABLE: u8 = 3;

/// One line that names the thing, the cause and the mend; and the exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The command line or a file is wrong.
    pub fn usage(text: impl ToString) -> Self {
        Failure {
            code: USAGE,
            text: text.to_string(),
        }
    }

    /// The command line can't be read: clap's words, on one line.
    pub fn command_line(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let what = text.split("\n\nUsage:").next().unwrap_or(&text);
        let what = what
            .split("\n\nFor more information")
            .next()
            .unwrap_or(what);
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
        Failure::usage(what).and("`mmlctl help` and --help behind a command explain it")
    }

    /// The kernel's answer to something done to `thing`.
    pub fn kernel(thing: &str, error: &Error) -> Self {
        let code = match error {
            error if error.is_permission() => UNAVAILABLE,
            Error::NoFamily | Error::NoGroup(_) | Error::Io(_) => UNAVAILABLE,
            _ => REFUSED,
        };
        Failure {
            code,
            text: format!("{thing}: {error}"),
        }
    }

    /// The same failure with more to say.
    pub fn and(self, more: &str) -> Self {
        Failure {
            text: format!("{}; {more}", self.text),
            ..self
        }
    }

    /// Says it on standard error.
    pub fn report(&self, output: Output) -> ExitCode {
        let text = self.text.lines().collect::<Vec<_>>().join(" ");
        if output.json {
            eprintln!(
                "{}",
                serde_json::json!({ "error": text, "code": self.code })
            );
        } else {
            eprintln!("mmlctl: {text}");
        }
        ExitCode::from(self.code)
    }
}

impl From<keyd::private_file::Error> for Failure {
    fn from(error: keyd::private_file::Error) -> Self {
        Failure::usage(error)
    }
}

impl From<keyd::daemon::control::Failure> for Failure {
    fn from(failure: keyd::daemon::control::Failure) -> Self {
        use keyd::daemon::control::Failure as From;
        let code = match failure {
            From::Unreachable { .. } => UNAVAILABLE,
            From::Unreadable(_) | From::Refused(_) => REFUSED,
            From::Unknown(_) => USAGE,
        };
        Failure {
            code,
            text: failure.to_string(),
        }
    }
}
