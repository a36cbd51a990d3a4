// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The token of the previous-FA extension: DKM's authorisation (docs/wire.md §3.2).
//!
//! K_FA = prf(K_ho, FA address ‖ generation). Home agent and mobile host can make it for any foreign agent; each
//! foreign agent is given its own. On moving, the mobile host makes token = prf(K_FA of the previous FA, new FA address
//! ‖ home address ‖ Identification), good at that one agent, for that one registration.

use crate::auth::Key;
use crate::message::Identification;
use ring::hmac;
use std::net::Ipv4Addr;

/// The IKE SA's pseudo-random function (RFC 7296 §2.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256 (5): 32 octets.
    HmacSha256,
    /// PRF_HMAC_SHA2_384 (6): 48 octets.
    HmacSha384,
    /// PRF_HMAC_SHA2_512 (7): 64 octets.
    HmacSha512,
}

impl Prf {
    fn keyed(self, key: &Key) -> hmac::Key {
        let algorithm = match self {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, key.expose())
    }
}

/// What one foreign agent and the mobile host share: K_FA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverKey {
    /// With which function.
    pub prf: Prf,
    /// K_FA.
    pub key: Key,
}

/// What the token binds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The new foreign agent: the care-of address that is registered.
    pub new_fa: Ipv4Addr,
    /// The mobile host's lasting address.
    pub home: Ipv4Addr,
    /// The registration's.
    pub identification: Identification,
}

impl Handover {
    fn octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&self.new_fa.octets());
        octets[4..8].copy_from_slice(&self.home.octets());
        octets[8..].copy_from_slice(&self.identification.0.to_be_bytes());
        octets
    }
}

impl HandoverKey {
    /// K_FA for the foreign agent with this address, out of K_ho (docs/wire.md 3.2h).
    pub fn derive(prf: Prf, k_ho: &Key, fa: Ipv4Addr, generation: u32) -> Self {
        let mut octets = [0; 8];
        octets[..4].copy_from_slice(&fa.octets());
        octets[4..].copy_from_slice(&generation.to_be_bytes());
        let tag = hmac::sign(&prf.keyed(k_ho), &octets);
        HandoverKey {
            prf,
            key: Key::new(tag.as_ref()),
        }
    }

    /// The token that lets the new foreign agent ask the previous one, whose key this is (docs/wire.md 3.2i).
    pub fn token(&self, handover: &Handover) -> Vec<u8> {
        hmac::sign(&self.prf.keyed(&self.key), &handover.octets())
            .as_ref()
            .to_vec()
    }

    /// Whether a token is the mobile host's for this handover. In constant time.
    pub fn verify(&self, handover: &Handover, token: &[u8]) -> bool {
        hmac::verify(&self.prf.keyed(&self.key), &handover.octets(), token).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_at_one_agent_for_one_host_and_one_registration() {
        let k_ho = Key::new(&[3; 32]);
        let old = Ipv4Addr::new(10, 1, 1, 1);
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            let key = HandoverKey::derive(prf, &k_ho, old, 1);
            let handover = Handover {
                new_fa: Ipv4Addr::new(10, 2, 2, 2),
                home: Ipv4Addr::new(203, 0, 113, 7),
                identification: Identification(5),
            };
            let token = key.token(&handover);
            assert!(key.verify(&handover, &token));
            let others = [
                Handover {
                    new_fa: old,
                    ..handover
                },
                Handover {
                    home: old,
                    ..handover
                },
                Handover {
                    identification: Identification(6),
                    ..handover
                },
            ];
            assert!(others.iter().all(|other| !key.verify(other, &token)));
            assert!(!key.verify(&handover, &token[1..]));
            assert!(!key.verify(&handover, &[]));
            for stranger in [
                HandoverKey::derive(prf, &k_ho, old, 2),
                HandoverKey::derive(prf, &k_ho, handover.new_fa, 1),
            ] {
                assert!(!stranger.verify(&handover, &token));
            }
        }
    }

    /// Made by another implementation:
    /// `python3 -c 'import hmac; k=hmac.digest(bytes(range(32)), bytes([10,1,1,1,0,0,0,7]), "sha256"); print(hmac.digest(k, bytes([10,2,2,2,203,0,113,7])+(0x0102030405060708).to_bytes(8,"big"), "sha256").hex())'`
    #[test]
    fn the_token_is_the_one_python_makes() {
        let k_ho = Key::new(&(0..32).collect::<Vec<u8>>());
        let key = HandoverKey::derive(Prf::HmacSha256, &k_ho, Ipv4Addr::new(10, 1, 1, 1), 7);
        let token = key.token(&Handover {
            new_fa: Ipv4Addr::new(10, 2, 2, 2),
            home: Ipv4Addr::new(203, 0, 113, 7),
            identification: Identification(0x0102_0304_0506_0708),
        });
        let hex: String = token.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(
            hex,
            "3052933e5936ec7aa2c7bf718718c6bf2283c15078b5d6676a6dfdbba66cac43"
        );
    }
}
