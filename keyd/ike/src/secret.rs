// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Octets nobody prints, and nobody finds in memory afterwards.

use std::fmt;
use zeroize::Zeroizing;

/// A key, a salt, a shared secret: overwritten when dropped, and never shown by `Debug`.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the octets in.
    pub fn new(octets: Vec<u8>) -> Self {
        Secret(Zeroizing::new(octets))
    }

    /// A copy of the octets.
    pub fn copy(octets: &[u8]) -> Self {
        Secret::new(octets.to_vec())
    }

    /// The octets, for the cipher alone.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Secret {
    /// Takes as long wherever they differ.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .0
                .iter()
                .zip(other.0.iter())
                .fold(0, |differs, (a, b)| differs | (a ^ b))
                == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.len())
    }
}
