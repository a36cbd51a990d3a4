// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a datagram of multicast PKD is sealed and signed with (docs/wire.md 3.3c, 3.3d, 3.3e).
//!
//! The AEAD keeps outsiders away and is cheap to check; every member of the group has its key, so that it says nothing of
//! which of them sealed. The signature, inside, is the home agent's alone.

use super::{Cipher, CryptoError, Opener, Sealer};
use crate::secret::Secret;
use crate::wire::{MulticastHeader, PUBLIC_KEY_LEN};
use ring::signature::{Ed25519KeyPair, KeyPair, UnparsedPublicKey, ED25519};
use std::fmt;

/// Octets of a signature (RFC 8032).
const SIGNATURE_LEN: usize = 64;
/// Octets of what an Ed25519 private key is made of.
pub const SEED_LEN: usize = 32;
/// Ahead of what is signed, so that it is never taken for anything else.
const CONTEXT: &[u8] = b"mml-ipsec pkd 1";

/// The text that is signed: context ‖ header ‖ payloads.
fn signed(header: &MulticastHeader, payloads: &[u8]) -> Vec<u8> {
    [CONTEXT, &header.encode(), payloads].concat()
}

/// Seals an epoch's datagrams, at the home agent.
pub struct GroupSealer {
    group: u32,
    epoch: u32,
    sealer: Sealer,
    signer: Ed25519KeyPair,
}

impl GroupSealer {
    /// Octets beside the payloads: header, signature, ICV.
    pub const OVERHEAD: usize = MulticastHeader::LEN + SIGNATURE_LEN + super::ICV_LEN;

    /// With key ‖ salt, and the seed of the signing key: 32 octets, used for this epoch alone.
    ///
    /// # Errors
    /// When one of them hasn't its length.
    pub fn new(
        (group, epoch): (u32, u32),
        cipher: Cipher,
        keymat: &Secret,
        seed: &Secret,
    ) -> Result<Self, CryptoError> {
        Ok(GroupSealer {
            group,
            epoch,
            sealer: Sealer::new(cipher, keymat)?,
            signer: Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| CryptoError)?,
        })
    }

    /// What members check signatures with.
    pub fn public(&self) -> [u8; PUBLIC_KEY_LEN] {
        let mut octets = [0; PUBLIC_KEY_LEN];
        let public = self.signer.public_key().as_ref();
        // Both have 32 octets.
        octets.iter_mut().zip(public).for_each(|(to, of)| *to = *of);
        octets
    }

    /// The next datagram's counter, which is how many there were.
    pub fn counter(&self) -> u64 {
        self.sealer.next_iv()
    }

    /// The datagram of these payloads' octets.
    ///
    /// # Errors
    /// When the counter is used up.
    pub fn seal(&mut self, payloads: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let header = MulticastHeader {
            group: self.group,
            epoch: self.epoch,
            counter: self.counter(),
        };
        let text = zeroize::Zeroizing::new(signed(&header, payloads));
        let signature = self.signer.sign(&text);
        let plain = zeroize::Zeroizing::new([signature.as_ref(), payloads].concat());
        let mut out = header.aad().to_vec();
        // The counter is the IV, and stands in front of what is sealed.
        out.extend(self.sealer.seal(&header.aad(), &plain)?);
        Ok(out)
    }
}

impl fmt::Debug for GroupSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupSealer({:#010x}, {})", self.group, self.epoch)
    }
}

/// Why a datagram isn't opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unopened {
    /// Who made it hasn't the group's key.
    #[error("it is not sealed with the group's key")]
    Unsealed,
    /// Somebody with the group's key made it who is not the home agent: a member.
    #[error("it is sealed with the group's key, and not signed by the home agent")]
    Unsigned,
}

/// Opens an epoch's datagrams, at a member.
pub struct GroupOpener {
    opener: Opener,
    public: [u8; PUBLIC_KEY_LEN],
}

impl GroupOpener {
    /// With key ‖ salt, and the home agent's public key.
    ///
    /// # Errors
    /// When `keymat` hasn't the cipher's length.
    pub fn new(
        cipher: Cipher,
        keymat: &Secret,
        public: [u8; PUBLIC_KEY_LEN],
    ) -> Result<Self, CryptoError> {
        let opener = Opener::new(cipher, keymat)?;
        Ok(GroupOpener { opener, public })
    }

    /// What signatures are checked with; no two epochs have the same.
    pub fn public(&self) -> [u8; PUBLIC_KEY_LEN] {
        self.public
    }

    /// The octets of the payloads in a datagram.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, datagram: &[u8]) -> Result<Secret, Unopened> {
        let header = MulticastHeader::decode(datagram).map_err(|_| Unopened::Unsealed)?;
        let aad = header.aad();
        let sealed = datagram.get(aad.len()..).ok_or(Unopened::Unsealed)?;
        let plain = self.opener.open(&aad, sealed);
        let plain = plain.map_err(|_| Unopened::Unsealed)?;
        let (signature, payloads) = plain
            .expose()
            .split_at_checked(SIGNATURE_LEN)
            .ok_or(Unopened::Unsigned)?;
        let text = zeroize::Zeroizing::new(signed(&header, payloads));
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(&text, signature)
            .map_err(|_| Unopened::Unsigned)?;
        Ok(Secret::copy(payloads))
    }
}

impl fmt::Debug for GroupOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupOpener")
    }
}
