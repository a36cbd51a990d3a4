// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! RFC 2367's extensions (§2.3) and Linux's X_POLICY and X_NAT_T ones, but for addresses.

use crate::error::Error;
use crate::reader::{Cursor, Reader, Secret};
use crate::text::Fault;

/// SA (RFC 2367 §2.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sa {
    /// The SPI as a host integer; big-endian on the wire.
    pub spi: u32,
    /// The RFC's replay window; 0 here, the CSA extension has the real one.
    pub replay: u8,
    /// One of [`crate::number::sastate`].
    pub state: u8,
    /// Authentication algorithm; 0 here.
    pub auth: u8,
    /// Encryption algorithm; 0 here, each ZONE_SA has its own.
    pub encrypt: u8,
    /// `SADB_SAFLAGS_*`.
    pub flags: u32,
}

impl Sa {
    /// The SA extension of a CSA with this SPI (docs/wire.md 2.2n).
    pub const fn mature(spi: u32) -> Self {
        Sa {
            spi,
            replay: 0,
            state: crate::number::sastate::MATURE,
            auth: 0,
            encrypt: 0,
            flags: 0,
        }
    }

    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let sa = Sa {
            spi: r.be32()?,
            replay: r.u8()?,
            state: r.u8()?,
            auth: r.u8()?,
            encrypt: r.u8()?,
            flags: r.u32()?,
        };
        if sa.state > crate::number::sastate::DEAD {
            return Err(Fault::Value);
        }
        r.end()?;
        Ok(sa)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.be32(self.spi)?;
        w.put(&[self.replay, self.state, self.auth, self.encrypt])?;
        w.u32(self.flags)
    }
}

/// LIFETIME_CURRENT, LIFETIME_HARD, LIFETIME_SOFT (RFC 2367 §2.3.2). In HARD and SOFT 0 means no limit
/// (docs/wire.md 2.3b).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lifetime {
    /// Packets, as Linux has it; what is more than it holds counts as the most it holds.
    pub allocations: u32,
    /// Octets sealed or opened.
    pub bytes: u64,
    /// HARD, SOFT: seconds since it was added; CURRENT: when that was, in seconds since 1970.
    pub addtime: u64,
    /// HARD, SOFT: seconds since it was first used; CURRENT: when that was, 0 for never.
    pub usetime: u64,
}

impl Lifetime {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let lifetime = Lifetime {
            allocations: r.u32()?,
            bytes: r.u64()?,
            addtime: r.u64()?,
            usetime: r.u64()?,
        };
        r.end()?;
        Ok(lifetime)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u32(self.allocations)?;
        w.u64(self.bytes)?;
        w.u64(self.addtime)?;
        w.u64(self.usetime)
    }
}

/// KEY_AUTH, KEY_ENCRYPT (RFC 2367 §2.3.4). Zone keys travel in ZONE_SA instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key<'a> {
    /// Bits that count; never 0.
    pub bits: u16,
    /// The key, `bits` rounded up to octets.
    pub key: Secret<'a>,
}

impl<'a> Key<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let bits = r.u16()?;
        if bits == 0 {
            return Err(Fault::Value);
        }
        r.reserved(2)?;
        let key = Secret::new(r.bytes(usize::from(bits.div_ceil(8)))?);
        r.end()?;
        Ok(Key { bits, key })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u16(self.bits)?;
        w.zeros(2)?;
        w.put(self.key.expose())
    }
}

/// IDENTITY_SRC, IDENTITY_DST (RFC 2367 §2.3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity<'a> {
    /// 1 prefix, 2 domain name, 3 user at domain name.
    pub kind: u16,
    /// A number the text belongs to, or 0.
    pub id: u64,
    /// The text, without its NUL; may be empty.
    pub text: &'a [u8],
}

impl<'a> Identity<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let kind = r.u16()?;
        r.reserved(2)?;
        let id = r.u64()?;
        let padded = r.bytes(r.left())?;
        let text = if padded.is_empty() {
            padded
        } else {
            let end = padded
                .iter()
                .position(|&octet| octet == 0)
                .ok_or(Fault::Short)?;
            let (text, padding) = padded.split_at_checked(end).ok_or(Fault::Short)?;
            if text.is_empty() || padding.len() > 8 {
                return Err(Fault::Long);
            }
            if padding.iter().any(|&octet| octet != 0) {
                return Err(Fault::Reserved);
            }
            text
        };
        Ok(Identity { kind, id, text })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u16(self.kind)?;
        w.zeros(2)?;
        w.u64(self.id)?;
        w.put(self.text)?;
        w.zeros(usize::from(!self.text.is_empty()))
    }
}

/// SENSITIVITY (RFC 2367 §2.3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sensitivity<'a> {
    /// Domain of protection.
    pub domain: u32,
    /// Sensitivity level.
    pub level: u8,
    /// Integrity level.
    pub integrity: u8,
    /// Sensitivity bitmap, host-endian 64-bit words.
    pub bitmap: &'a [u8],
    /// Integrity bitmap, likewise.
    pub integrity_bitmap: &'a [u8],
}

impl<'a> Sensitivity<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let domain = r.u32()?;
        let level = r.u8()?;
        let words = usize::from(r.u8()?);
        let integrity = r.u8()?;
        let integrity_words = usize::from(r.u8()?);
        r.reserved(4)?;
        let bitmap = r.bytes(words.saturating_mul(8))?;
        let integrity_bitmap = r.bytes(integrity_words.saturating_mul(8))?;
        r.end()?;
        Ok(Sensitivity {
            domain,
            level,
            integrity,
            bitmap,
            integrity_bitmap,
        })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u32(self.domain)?;
        w.put(&[
            self.level,
            words(self.bitmap),
            self.integrity,
            words(self.integrity_bitmap),
        ])?;
        w.zeros(4)?;
        w.put(self.bitmap)?;
        w.put(self.integrity_bitmap)
    }
}

/// Octets as 64-bit words; what doesn't fit the field gives a message its own decoder refuses.
fn words(octets: &[u8]) -> u8 {
    u8::try_from(octets.len() / 8).unwrap_or(u8::MAX)
}

/// PROPOSAL (RFC 2367 §2.3.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposal<'a> {
    /// The replay window asked for.
    pub replay: u8,
    combs: &'a [u8],
}

/// One combination of a [`Proposal`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub struct Comb {
    pub auth: u8,
    pub encrypt: u8,
    pub flags: u16,
    pub auth_minbits: u16,
    pub auth_maxbits: u16,
    pub encrypt_minbits: u16,
    pub encrypt_maxbits: u16,
    pub soft: Lifetime,
    pub hard: Lifetime,
}

impl Comb {
    /// Octets of one on the wire.
    pub const LEN: usize = 72;

    fn decode(octets: &[u8]) -> Result<Self, Fault> {
        let mut r = Reader::new(octets);
        let (auth, encrypt, flags) = (r.u8()?, r.u8()?, r.u16()?);
        let (auth_minbits, auth_maxbits) = (r.u16()?, r.u16()?);
        let (encrypt_minbits, encrypt_maxbits) = (r.u16()?, r.u16()?);
        r.reserved(4)?;
        // On the wire each soft limit stands before its hard one.
        let (mut soft, mut hard) = (Lifetime::default(), Lifetime::default());
        (soft.allocations, hard.allocations) = (r.u32()?, r.u32()?);
        (soft.bytes, hard.bytes) = (r.u64()?, r.u64()?);
        (soft.addtime, hard.addtime) = (r.u64()?, r.u64()?);
        (soft.usetime, hard.usetime) = (r.u64()?, r.u64()?);
        Ok(Comb {
            auth,
            encrypt,
            flags,
            auth_minbits,
            auth_maxbits,
            encrypt_minbits,
            encrypt_maxbits,
            soft,
            hard,
        })
    }
}

impl<'a> Proposal<'a> {
    /// Combinations as they are on the wire, [`Comb::LEN`] octets each; `None` if they aren't.
    pub fn new(replay: u8, combs: &'a [u8]) -> Option<Self> {
        let sound = combs
            .chunks(Comb::LEN)
            .all(|octets| octets.len() == Comb::LEN && Comb::decode(octets).is_ok());
        sound.then_some(Proposal { replay, combs })
    }

    /// The combinations, best first.
    pub fn combs(&self) -> impl Iterator<Item = Comb> + 'a {
        self.combs
            .chunks_exact(Comb::LEN)
            .filter_map(|octets| Comb::decode(octets).ok())
    }

    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let replay = r.u8()?;
        r.reserved(3)?;
        let combs = r.bytes(r.left())?;
        if combs.len() % Comb::LEN != 0 {
            return Err(Fault::Short);
        }
        for octets in combs.chunks_exact(Comb::LEN) {
            Comb::decode(octets)?;
        }
        Ok(Proposal { replay, combs })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u8(self.replay)?;
        w.zeros(3)?;
        w.put(self.combs)
    }
}

/// SUPPORTED_AUTH, SUPPORTED_ENCRYPT (RFC 2367 §2.3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Supported<'a> {
    algorithms: &'a [u8],
}

/// One algorithm of a [`Supported`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SupportedAlg {
    /// Its number.
    pub id: u8,
    /// Bits of its IV.
    pub ivlen: u8,
    /// Least key bits.
    pub minbits: u16,
    /// Most key bits.
    pub maxbits: u16,
}

impl SupportedAlg {
    const LEN: usize = 8;

    fn decode(octets: &[u8]) -> Result<Self, Fault> {
        let mut r = Reader::new(octets);
        let algorithm = SupportedAlg {
            id: r.u8()?,
            ivlen: r.u8()?,
            minbits: r.u16()?,
            maxbits: r.u16()?,
        };
        r.reserved(2)?;
        Ok(algorithm)
    }

    /// One on the wire, to make a [`Supported`] from.
    pub const fn to_octets(self) -> [u8; 8] {
        let [min0, min1] = self.minbits.to_ne_bytes();
        let [max0, max1] = self.maxbits.to_ne_bytes();
        [self.id, self.ivlen, min0, min1, max0, max1, 0, 0]
    }
}

impl<'a> Supported<'a> {
    /// A list of algorithms from [`SupportedAlg::to_octets`], one after the other; `None` if it isn't such a list.
    pub fn new(algorithms: &'a [u8]) -> Option<Self> {
        let sound = algorithms
            .chunks(SupportedAlg::LEN)
            .all(|octets| SupportedAlg::decode(octets).is_ok());
        sound.then_some(Supported { algorithms })
    }

    /// The algorithms.
    pub fn algorithms(&self) -> impl Iterator<Item = SupportedAlg> + 'a {
        self.algorithms
            .chunks_exact(SupportedAlg::LEN)
            .filter_map(|octets| SupportedAlg::decode(octets).ok())
    }

    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        r.reserved(4)?;
        let algorithms = r.bytes(r.left())?;
        for octets in algorithms.chunks(SupportedAlg::LEN) {
            SupportedAlg::decode(octets)?;
        }
        Ok(Supported { algorithms })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.zeros(4)?;
        w.put(self.algorithms)
    }
}

/// SPIRANGE (RFC 2367 §2.3.9). As in Linux, host-endian on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpiRange {
    /// The least SPI wanted.
    pub min: u32,
    /// The greatest.
    pub max: u32,
}

impl SpiRange {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let range = SpiRange {
            min: r.u32()?,
            max: r.u32()?,
        };
        r.reserved(4)?;
        if range.min > range.max {
            return Err(Fault::Value);
        }
        r.end()?;
        Ok(range)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u32(self.min)?;
        w.u32(self.max)?;
        w.zeros(4)
    }
}

/// X_POLICY (Linux's `sadb_x_policy`), without `sadb_x_ipsecrequest`: the template is ADDRESS_SRC and ADDRESS_DST
/// (docs/wire.md 2.4d).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyExt {
    /// One of [`crate::number::policy`]: DISCARD, BYPASS, PROTECT.
    pub kind: u16,
    /// [`crate::number::policy::DIR_IN`] or `DIR_OUT`.
    pub direction: u8,
    /// The module's number for it; 0 in a request that doesn't know it.
    pub id: u32,
    /// The lowest is asked first, as in XFRM.
    pub priority: u32,
}

impl PolicyExt {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let kind = r.u16()?;
        let direction = r.u8()?;
        r.reserved(1)?;
        let policy = PolicyExt {
            kind,
            direction,
            id: r.u32()?,
            priority: r.u32()?,
        };
        r.end()?;
        Ok(policy)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u16(self.kind)?;
        w.put(&[self.direction, 0])?;
        w.u32(self.id)?;
        w.u32(self.priority)
    }
}

/// X_NAT_T_TYPE (Linux).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatType {
    /// 2 is `UDP_ENCAP_ESPINUDP` (RFC 3948).
    pub kind: u8,
}

impl NatType {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let kind = r.u8()?;
        r.reserved(3)?;
        r.end()?;
        Ok(NatType { kind })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[self.kind, 0, 0, 0])
    }
}

/// X_NAT_T_SPORT, X_NAT_T_DPORT (Linux).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatPort {
    /// The UDP port as a host integer; big-endian on the wire.
    pub port: u16,
}

impl NatPort {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let port = r.be16()?;
        r.reserved(2)?;
        r.end()?;
        Ok(NatPort { port })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.be16(self.port)?;
        w.zeros(2)
    }
}
