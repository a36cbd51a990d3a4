// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Writing a message: its fixed part, then its extensions in order.

use crate::auth::Association;
use crate::error::EncodeError;
use crate::extension::{Extension, Pair};
use crate::message::Message;
use crate::octets::Put;

/// A message being written.
#[derive(Clone, Debug)]
pub struct Builder {
    octets: Vec<u8>,
}

impl Builder {
    /// Begins with the fixed part.
    pub fn new(message: &Message) -> Self {
        let mut octets = Vec::with_capacity(128);
        message.emit(&mut octets);
        Builder { octets }
    }

    /// Begins with octets that came in and are passed on as they are.
    pub fn relay(octets: &[u8]) -> Self {
        Builder {
            octets: octets.to_vec(),
        }
    }

    /// Adds an extension.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Long`] where its length field can't say how long it is.
    pub fn extension(mut self, extension: &Extension<'_>) -> Result<Self, EncodeError> {
        extension.emit(&mut self.octets)?;
        Ok(self)
    }

    /// Adds the authenticator of an association over all that is written so far.
    pub fn authenticate(mut self, pair: Pair, association: &Association) -> Self {
        self.octets.u8(pair.number());
        // At most 4 + 32: an octet holds it.
        self.octets.u8((4 + association.algorithm.len()) as u8);
        self.octets.u32(association.spi);
        let authenticator = association.sign(&self.octets);
        self.octets.extend(authenticator);
        self
    }

    /// The message's octets.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}
