// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The algorithms: PRF and prf+, AEADs of SK, key exchange, and the keys they end in.
//!
//! ring does the work, ml-kem ML-KEM's. Derived keys live in [`Secret`](crate::secret::Secret)s; ring keeps the schedules
//! it makes of them in its own types, which it does not overwrite when they are dropped.

mod aead;
mod kex;
mod keys;
mod multicast;
mod prf;

pub use aead::{Cipher, Opener, Sealer, ICV_LEN, IV_LEN};
pub use kex::{Method, Pending};
pub use keys::{
    k_fa, skeyseed, skeyseed_next, skeyseed_rekey, ChildKeys, IkeKeys, KeyPair, ZoneKeyLengths,
    K_HO_LEN,
};
pub use multicast::{GroupOpener, GroupSealer, Unopened, SEED_LEN};
pub use prf::Hash;

/// An operation of the algorithms failed: a peer's value is not one, or a message was not sealed by who should have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a public value or sealed message is not sound")]
pub struct CryptoError;
