// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The AEADs of zone ESP, by `ring`: another implementation than the kernel's.

use anyhow::{bail, Context, Result};
use ring::aead::{
    Aad, Algorithm, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305,
};

/// ENCR transform numbers (IANA IKEv2 registry; RFC 8750 for the implicit IVs).
pub const AES_GCM_16: u16 = 20;
pub const CHACHA20: u16 = 28;
pub const AES_GCM_16_IIV: u16 = 30;
pub const CHACHA20_IIV: u16 = 31;

/// Key, salt and kind of IV of one zone of one direction.
#[derive(Clone)]
pub struct ZoneKey {
    pub encr: u16,
    pub key: Vec<u8>,
    pub salt: [u8; 4],
}

impl ZoneKey {
    /// Whether the packet carries its IV.
    pub fn explicit(&self) -> bool {
        matches!(self.encr, AES_GCM_16 | CHACHA20)
    }

    /// Octets of IV in the packet.
    pub fn iv_length(&self) -> usize {
        if self.explicit() {
            8
        } else {
            0
        }
    }

    fn algorithm(&self) -> Result<&'static Algorithm> {
        Ok(match (self.encr, self.key.len()) {
            (AES_GCM_16 | AES_GCM_16_IIV, 16) => &AES_128_GCM,
            (AES_GCM_16 | AES_GCM_16_IIV, 32) => &AES_256_GCM,
            (CHACHA20 | CHACHA20_IIV, 32) => &CHACHA20_POLY1305,
            (encr, length) => bail!("no AEAD is ENCR {encr} with a key of {length} octets"),
        })
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        Ok(LessSafeKey::new(
            UnboundKey::new(self.algorithm()?, &self.key)
                .ok()
                .context("bad key")?,
        ))
    }

    /// `docs/wire.md` §1: salt (32) ‖ IV (64).
    fn nonce(&self, iv: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Ciphertext and ICV of `data`.
    pub fn seal(&self, iv: u64, aad: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = data.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(self.nonce(iv), Aad::from(aad), &mut sealed)
            .ok()
            .context("cannot seal")?;
        Ok(sealed)
    }

    /// The plaintext of ciphertext and ICV; None if the ICV is wrong.
    pub fn open(&self, iv: u64, aad: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut data = sealed.to_vec();
        let length = match self
            .cipher()?
            .open_in_place(self.nonce(iv), Aad::from(aad), &mut data)
        {
            Ok(plain) => plain.len(),
            Err(_) => return Ok(None),
        };
        data.truncate(length);
        Ok(Some(data))
    }
}
