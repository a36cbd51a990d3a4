// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What seals SK and SKF payloads: AES-GCM (RFC 5282) and ChaCha20-Poly1305 (RFC 7634).

use super::CryptoError;
use crate::secret::Secret;
use crate::wire::Encr;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;

/// Octets of the explicit IV.
pub const IV_LEN: usize = 8;
/// Octets of the ICV.
pub const ICV_LEN: usize = 16;
/// Octets of the salt behind the key (RFC 5282 §7.1, RFC 7634 §2).
const SALT_LEN: usize = 4;

/// An AEAD with its key length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the algorithms' own names")]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    /// The AEAD of that number and key length.
    pub fn from_encr(encr: Encr, key_bits: Option<u16>) -> Option<Self> {
        match (encr, key_bits) {
            (Encr::AES_GCM_16, Some(128)) => Some(Cipher::Aes128Gcm),
            (Encr::AES_GCM_16, Some(256)) => Some(Cipher::Aes256Gcm),
            (Encr::CHACHA20_POLY1305, None) => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its number, and the key length where that is negotiated.
    pub fn encr(self) -> (Encr, Option<u16>) {
        match self {
            Cipher::Aes128Gcm => (Encr::AES_GCM_16, Some(128)),
            Cipher::Aes256Gcm => (Encr::AES_GCM_16, Some(256)),
            Cipher::ChaCha20Poly1305 => (Encr::CHACHA20_POLY1305, None),
        }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    /// Octets of the key alone.
    pub fn key_len(self) -> usize {
        self.algorithm().key_len()
    }

    /// Octets of key and salt.
    pub fn keymat_len(self) -> usize {
        self.key_len() + SALT_LEN
    }
}

struct Key {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl Key {
    fn new(cipher: Cipher, keymat: &Secret) -> Result<Self, CryptoError> {
        let (key, salt) = keymat
            .expose()
            .split_at_checked(cipher.key_len())
            .ok_or(CryptoError)?;
        let key = UnboundKey::new(cipher.algorithm(), key).map_err(|_| CryptoError)?;
        Ok(Key {
            key: LessSafeKey::new(key),
            salt: salt.try_into().map_err(|_| CryptoError)?,
        })
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let mut nonce = [0; 12];
        let (salt, rest) = nonce.split_at_mut(SALT_LEN);
        salt.copy_from_slice(&self.salt);
        rest.copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals one direction of an IKE SA. The IV counts, so none comes twice under a key.
pub struct Sealer {
    key: Key,
    next_iv: u64,
}

impl Sealer {
    /// With SK_ei or SK_er: key ‖ salt.
    ///
    /// # Errors
    /// When `keymat` hasn't the cipher's length.
    pub fn new(cipher: Cipher, keymat: &Secret) -> Result<Self, CryptoError> {
        Ok(Sealer {
            key: Key::new(cipher, keymat)?,
            next_iv: 0,
        })
    }

    /// The IV that comes next.
    pub fn next_iv(&self) -> u64 {
        self.next_iv
    }

    /// IV ‖ ciphertext ‖ ICV of `plaintext`.
    ///
    /// # Errors
    /// When the IVs are used up, or the plaintext is longer than the cipher takes.
    pub fn seal(&mut self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let iv = self.next_iv.to_be_bytes();
        self.next_iv = self.next_iv.checked_add(1).ok_or(CryptoError)?;
        let mut out = Vec::with_capacity(IV_LEN + plaintext.len() + ICV_LEN);
        out.extend_from_slice(&iv);
        out.extend_from_slice(plaintext);
        let body = out.get_mut(IV_LEN..).ok_or(CryptoError)?;
        let tag = self
            .key
            .key
            .seal_in_place_separate_tag(self.key.nonce(iv), Aad::from(aad), body)
            .map_err(|_| CryptoError)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Opens what the other side sealed.
pub struct Opener(Key);

impl Opener {
    /// With SK_ei or SK_er: key ‖ salt.
    ///
    /// # Errors
    /// When `keymat` hasn't the cipher's length.
    pub fn new(cipher: Cipher, keymat: &Secret) -> Result<Self, CryptoError> {
        Ok(Opener(Key::new(cipher, keymat)?))
    }

    /// The plaintext of IV ‖ ciphertext ‖ ICV.
    ///
    /// # Errors
    /// When it wasn't sealed with this key over this `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret, CryptoError> {
        let (iv, body) = sealed.split_first_chunk::<IV_LEN>().ok_or(CryptoError)?;
        let mut body = zeroize::Zeroizing::new(body.to_vec());
        let nonce = self.0.nonce(*iv);
        let plain = self
            .0
            .key
            .open_in_place(nonce, Aad::from(aad), &mut body)
            .map_err(|_| CryptoError)?;
        Ok(Secret::copy(plain))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
