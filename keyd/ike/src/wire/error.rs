// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a message could not be read.

use super::PayloadType;

/// A message that isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A field or payload ends before it should.
    #[error("the message ends within a field")]
    Short,
    /// Octets are left over where a field or payload should end.
    #[error("octets are left over behind a payload's last field")]
    Trailing,
    /// The length field and the datagram disagree.
    #[error("the datagram is not as long as its header says")]
    Length,
    /// Another major version of IKE.
    #[error("major version {0} of IKE is not spoken here")]
    Version(u8),
    /// A payload nobody here knows, which its sender says must be understood.
    #[error("payload type {} is critical and unknown", .0.0)]
    Critical(PayloadType),
    /// A field holds what it must not.
    #[error("{0}: not a value it can have")]
    Value(&'static str),
    /// More payloads, proposals or the like than anyone needs.
    #[error("more {0} than one message may hold")]
    TooMany(&'static str),
    /// SK or SKF does not come last, or stands where it may not.
    #[error("an encrypted payload stands where it may not")]
    Misplaced,
}
