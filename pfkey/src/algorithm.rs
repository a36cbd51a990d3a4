// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The transforms of a zone: IKEv2's ENCR numbers (docs/wire.md 2.3j).

/// Octets of salt that come with each key (RFC 4106 §8.1, RFC 7634 §2).
pub const SALT_LEN: usize = 4;
/// Octets of an ICV.
pub const ICV_LEN: usize = 16;

/// What a zone is sealed with (docs/wire.md 1.2c, 1.2d, 2.3j).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Algorithm {
    /// AES-GCM with a 16-octet ICV and an explicit IV (RFC 4106).
    AesGcm16,
    /// ChaCha20-Poly1305 with an explicit IV (RFC 7634).
    ChaCha20Poly1305,
    /// AES-GCM with a 16-octet ICV and an implicit IV (RFC 8750).
    AesGcm16Iiv,
    /// ChaCha20-Poly1305 with an implicit IV (RFC 8750).
    ChaCha20Poly1305Iiv,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] = [
        Algorithm::AesGcm16,
        Algorithm::ChaCha20Poly1305,
        Algorithm::AesGcm16Iiv,
        Algorithm::ChaCha20Poly1305Iiv,
    ];

    /// The transform of this ENCR number.
    pub const fn from_encr(number: u16) -> Option<Self> {
        match number {
            20 => Some(Algorithm::AesGcm16),
            28 => Some(Algorithm::ChaCha20Poly1305),
            30 => Some(Algorithm::AesGcm16Iiv),
            31 => Some(Algorithm::ChaCha20Poly1305Iiv),
            _ => None,
        }
    }

    /// Its ENCR number.
    pub const fn encr(self) -> u16 {
        match self {
            Algorithm::AesGcm16 => 20,
            Algorithm::ChaCha20Poly1305 => 28,
            Algorithm::AesGcm16Iiv => 30,
            Algorithm::ChaCha20Poly1305Iiv => 31,
        }
    }

    /// Whether the IV travels in the packet.
    pub const fn is_explicit(self) -> bool {
        matches!(self, Algorithm::AesGcm16 | Algorithm::ChaCha20Poly1305)
    }

    /// Whether it is AES (else ChaCha20).
    pub const fn is_aes(self) -> bool {
        matches!(self, Algorithm::AesGcm16 | Algorithm::AesGcm16Iiv)
    }

    /// Whether keys of this many bits exist.
    pub const fn takes_bits(self, bits: u16) -> bool {
        match self {
            Algorithm::AesGcm16 | Algorithm::AesGcm16Iiv => bits == 128 || bits == 256,
            Algorithm::ChaCha20Poly1305 | Algorithm::ChaCha20Poly1305Iiv => bits == 256,
        }
    }

    /// What people call it, with the bits of its key.
    pub const fn name(self, bits: u16) -> &'static str {
        match (self, bits) {
            (Algorithm::AesGcm16, 128) => "aes128-gcm16",
            (Algorithm::AesGcm16, _) => "aes256-gcm16",
            (Algorithm::AesGcm16Iiv, 128) => "aes128-gcm16-iiv",
            (Algorithm::AesGcm16Iiv, _) => "aes256-gcm16-iiv",
            (Algorithm::ChaCha20Poly1305, _) => "chacha20-poly1305",
            (Algorithm::ChaCha20Poly1305Iiv, _) => "chacha20-poly1305-iiv",
        }
    }

    /// The transform and the bits of its key that people call so.
    pub fn from_name(name: &str) -> Option<(Self, u16)> {
        Some(match name {
            "aes128-gcm16" => (Algorithm::AesGcm16, 128),
            "aes256-gcm16" => (Algorithm::AesGcm16, 256),
            "aes128-gcm16-iiv" => (Algorithm::AesGcm16Iiv, 128),
            "aes256-gcm16-iiv" => (Algorithm::AesGcm16Iiv, 256),
            "chacha20-poly1305" => (Algorithm::ChaCha20Poly1305, 256),
            "chacha20-poly1305-iiv" => (Algorithm::ChaCha20Poly1305Iiv, 256),
            _ => return None,
        })
    }
}
