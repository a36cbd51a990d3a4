// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a message was refused: an errno as RFC 2367 has it, and a text that names the extension.

use core::ffi::CStr;
use core::fmt;

/// Linux's errno values, positive.
pub mod errno {
    /// No such CSA or policy.
    pub const ESRCH: i32 = 3;
    /// Not well formed, or its parts contradict each other.
    pub const EINVAL: i32 = 22;
    /// No room in the caller's buffer.
    pub const ENOBUFS: i32 = 105;
    /// The message is not as long as it says, or longer than may be.
    pub const EMSGSIZE: i32 = 90;
    /// An algorithm that isn't there (`ENOSYS`, as af_key has it).
    pub const ENOSYS: i32 = 38;
    /// The SA type is not zone ESP.
    pub const EPROTONOSUPPORT: i32 = 93;
}

/// A refusal (docs/wire.md 2.1r).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// A positive errno.
    pub errno: i32,
    /// What is wrong, beginning with the extension's name; fit for netlink's extended ack.
    pub text: &'static CStr,
}

impl Error {
    pub(crate) const fn invalid(text: &'static CStr) -> Self {
        Error {
            errno: errno::EINVAL,
            text,
        }
    }

    pub(crate) const fn size(text: &'static CStr) -> Self {
        Error {
            errno: errno::EMSGSIZE,
            text,
        }
    }

    pub(crate) const fn room() -> Self {
        Error {
            errno: errno::ENOBUFS,
            text: c"message: no room for it in the buffer",
        }
    }

    /// The text as a string.
    pub fn as_str(&self) -> &'static str {
        self.text.to_str().unwrap_or("")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}, {:?})", self.errno, self.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for Error {}
