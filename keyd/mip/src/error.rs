// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why octets were not taken as a message.

use thiserror::Error;

/// A message that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The octets end before the message does.
    #[error("message: shorter than its fixed part")]
    Short,
    /// The ICMP checksum is wrong.
    #[error("ICMP: checksum is wrong")]
    Checksum,
    /// Not a type that is spoken here.
    #[error("message: type {0} is not one of Mobile IPv4's")]
    Type(u8),
    /// An ICMP code that isn't there.
    #[error("ICMP: code {0} is unknown")]
    IcmpCode(u8),
    /// An extension runs past the end, or its length contradicts what it is.
    #[error("extension {0}: its length is wrong")]
    Length(u8),
    /// An extension of a type below 128 that isn't known: the message is discarded in silence (RFC 5944 §1.8).
    #[error("extension {0}: unknown, and may not be skipped")]
    Unknown(u8),
    /// An extension that may stand once stands twice.
    #[error("extension {0}: stands twice")]
    Twice(u8),
}

/// A message that can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The extension's content is longer than its length field can say.
    #[error("extension {0}: its content is too long")]
    Long(u8),
}
