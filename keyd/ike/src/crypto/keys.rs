// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From shared secrets to keys: SKEYSEED and SK_* (RFC 7296 §2.14), KEYMAT of children (§2.17) and of zones
//! (docs/wire.md §3.2), with several key exchanges (RFC 9370 §2.2).

use super::{Cipher, Hash};
use crate::secret::Secret;
use crate::wire::reader::octets;
use std::net::IpAddr;

/// Octets of K_ho.
pub const K_HO_LEN: usize = 32;

/// SKEYSEED of a new IKE SA: prf(Ni | Nr, g^ir).
pub fn skeyseed(prf: Hash, ni: &[u8], nr: &[u8], shared: &Secret) -> Secret {
    prf.prf(&[ni, nr].concat(), &[shared.expose()])
}

/// SKEYSEED(n) after one more key exchange: prf(SK_d(n−1), SK(n) | Ni | Nr) (RFC 9370 §2.2.2).
pub fn skeyseed_next(prf: Hash, sk_d: &Secret, shared: &Secret, ni: &[u8], nr: &[u8]) -> Secret {
    prf.prf(sk_d.expose(), &[shared.expose(), ni, nr])
}

/// SKEYSEED of a rekeyed IKE SA: prf(SK_d (old), SK(0) | Ni | Nr | SK(1) … SK(n)), with the *old* SA's PRF
/// (RFC 7296 §2.18, RFC 9370 §2.2.4).
pub fn skeyseed_rekey(prf: Hash, sk_d: &Secret, shared: &[Secret], ni: &[u8], nr: &[u8]) -> Secret {
    prf.prf(sk_d.expose(), &seed(shared, ni, nr))
}

/// SK(0) | Ni | Nr | SK(1) | … | SK(n); without key exchange Ni | Nr.
fn seed<'a>(shared: &'a [Secret], ni: &'a [u8], nr: &'a [u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::with_capacity(shared.len() + 2);
    let mut shared = shared.iter().map(Secret::expose);
    parts.extend(shared.next());
    parts.extend([ni, nr]);
    parts.extend(shared);
    parts
}

/// The keys of an IKE SA. SK_a* there are none: the ciphers authenticate.
#[derive(Clone, Debug)]
pub struct IkeKeys {
    /// SK_d: what other keys come from.
    pub d: Secret,
    /// SK_ei: key ‖ salt.
    pub ei: Secret,
    /// SK_er: key ‖ salt.
    pub er: Secret,
    /// SK_pi: for AUTH.
    pub pi: Secret,
    /// SK_pr: for AUTH.
    pub pr: Secret,
}

impl IkeKeys {
    /// prf+(SKEYSEED, Ni | Nr | SPIi | SPIr), cut up.
    pub fn derive(
        prf: Hash,
        cipher: Cipher,
        skeyseed: &Secret,
        nonces: (&[u8], &[u8]),
        spis: (u64, u64),
    ) -> Self {
        let (ni, nr) = nonces;
        let (spi_i, spi_r) = (spis.0.to_be_bytes(), spis.1.to_be_bytes());
        let total = 3 * prf.octets() + 2 * cipher.keymat_len();
        let octets = prf.prf_plus(skeyseed.expose(), &[ni, nr, &spi_i, &spi_r], total);
        let mut cut = Cutter(octets.expose());
        IkeKeys {
            d: cut.next(prf.octets()),
            ei: cut.next(cipher.keymat_len()),
            er: cut.next(cipher.keymat_len()),
            pi: cut.next(prf.octets()),
            pr: cut.next(prf.octets()),
        }
    }
}

struct Cutter<'a>(&'a [u8]);

impl Cutter<'_> {
    fn next(&mut self, len: usize) -> Secret {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Secret::copy(head)
    }
}

/// A key and its salt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPair {
    /// The key.
    pub key: Secret,
    /// The nonce's first octets.
    pub salt: Secret,
}

/// Octets a zone's transform takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneKeyLengths {
    /// Of the key.
    pub key: usize,
    /// Of the salt.
    pub salt: usize,
}

/// What a child SA is sealed with: for a plain child one pair a direction, for a composite SA one a zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildKeys {
    /// From the exchange's initiator to its responder, zone 1 first.
    pub initiator: Vec<KeyPair>,
    /// Back.
    pub responder: Vec<KeyPair>,
    /// What K_FA is made of; empty for a plain child.
    pub k_ho: Secret,
}

impl ChildKeys {
    /// KEYMAT of a plain child: initiator to responder first (docs/wire.md 3.2c).
    pub fn plain(
        prf: Hash,
        sk_d: &Secret,
        shared: &[Secret],
        nonces: (&[u8], &[u8]),
        lengths: ZoneKeyLengths,
    ) -> Self {
        Self::cut(prf, sk_d, shared, nonces, &[lengths], 0)
    }

    /// KEYMAT of a composite SA: within a direction zone 1's key and salt, then zone 2's; then K_ho
    /// (docs/wire.md 3.2g).
    pub fn zones(
        prf: Hash,
        sk_d: &Secret,
        shared: &[Secret],
        nonces: (&[u8], &[u8]),
        zones: &[ZoneKeyLengths],
    ) -> Self {
        Self::cut(prf, sk_d, shared, nonces, zones, K_HO_LEN)
    }

    fn cut(
        prf: Hash,
        sk_d: &Secret,
        shared: &[Secret],
        (ni, nr): (&[u8], &[u8]),
        zones: &[ZoneKeyLengths],
        behind: usize,
    ) -> Self {
        let direction: usize = zones.iter().map(|zone| zone.key + zone.salt).sum();
        let keymat = prf.prf_plus(sk_d.expose(), &seed(shared, ni, nr), 2 * direction + behind);
        let mut cut = Cutter(keymat.expose());
        let mut direction = || {
            let pair = |zone: &ZoneKeyLengths| KeyPair {
                key: cut.next(zone.key),
                salt: cut.next(zone.salt),
            };
            zones.iter().map(pair).collect()
        };
        let (initiator, responder) = (direction(), direction());
        ChildKeys {
            initiator,
            responder,
            k_ho: cut.next(behind),
        }
    }
}

/// K_FA = prf(K_ho, FA address ‖ generation) (docs/wire.md 3.2h).
pub fn k_fa(prf: Hash, k_ho: &Secret, fa: IpAddr, generation: u32) -> Secret {
    prf.prf(k_ho.expose(), &[&octets(fa), &generation.to_be_bytes()])
}
