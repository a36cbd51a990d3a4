// SPDX-License-Identifier: GPL-2.0-only

//! Where a CSA's packets come from and go to: read on every packet without a lock, and changed while they are on their
//! way (MIGRATE).
//!
//! A sequence lock of plain atomics: readers take what they read again if it was changed meanwhile.

use core::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
use mml_core::ip;
use pfkey::Encap;

use crate::sync::Bh;

/// The outer ends of a CSA, in the direction of its packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outer {
    /// 4 or 6; 0 for none.
    pub family: u8,
    /// IPv4 in the first four octets, the rest zero, as everywhere.
    pub src: [u8; 16],
    pub dst: [u8; 16],
}

impl Outer {
    /// Of what isn't in a CSA.
    pub(crate) const NONE: Outer = Outer {
        family: 0,
        src: [0; 16],
        dst: [0; 16],
    };

    /// Between two IPv4 addresses.
    #[inline]
    pub(crate) fn v4(src: [u8; 4], dst: [u8; 4]) -> Self {
        Outer {
            family: 4,
            src: ip::v4(src),
            dst: ip::v4(dst),
        }
    }

    /// Between two IPv6 addresses.
    #[inline]
    pub(crate) fn v6(src: [u8; 16], dst: [u8; 16]) -> Self {
        Outer {
            family: 6,
            src,
            dst,
        }
    }

    /// Those that an IP header has.
    #[inline]
    pub(crate) fn of(header: &[u8]) -> Option<Self> {
        match ip::version(header) {
            4 => {
                let [_, _, _, _, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
                    *header.first_chunk::<{ ip::V4_MIN }>()?;
                Some(Self::v4([s0, s1, s2, s3], [d0, d1, d2, d3]))
            }
            6 => {
                let addresses = header.get(8..)?;
                Some(Self::v6(
                    *addresses.first_chunk()?,
                    *addresses.get(16..)?.first_chunk()?,
                ))
            }
            _ => None,
        }
    }

    /// The other way round.
    pub(crate) fn reversed(&self) -> Self {
        Outer {
            family: self.family,
            src: self.dst,
            dst: self.src,
        }
    }

    /// Octets of such a header, without options or extension headers.
    #[inline]
    pub(crate) fn header_len(&self) -> usize {
        if self.family == 4 {
            ip::V4_MIN
        } else {
            ip::V6_LEN
        }
    }

    /// An address as it stands on the wire: 4 octets or 16.
    pub(crate) fn octets<'a>(&self, address: &'a [u8; 16]) -> &'a [u8] {
        let len = if self.family == 4 { 4 } else { 16 };
        address.get(..len).unwrap_or(address)
    }

    /// Whether it is the same, compared in words.
    #[inline]
    pub(crate) fn is(&self, other: &Outer) -> bool {
        let words = |it: &Outer| (u128::from_ne_bytes(it.dst), u128::from_ne_bytes(it.src));
        self.family == other.family && words(self) == words(other)
    }

    /// Whether it leads to the same destination.
    #[inline]
    pub(crate) fn is_to(&self, other: &Outer) -> bool {
        self.family == other.family
            && u128::from_ne_bytes(self.dst) == u128::from_ne_bytes(other.dst)
    }
}

/// Outer ends, and the UDP ports between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub outer: Outer,
    pub encap: Option<Encap>,
}

/// Octets of a UDP header.
pub(crate) const UDP_LEN: usize = 8;

impl Path {
    const NONE: Path = Path {
        outer: Outer::NONE,
        encap: None,
    };

    /// What follows the outer IP header.
    #[inline]
    pub(crate) fn protocol(&self) -> u8 {
        if self.encap.is_some() {
            ip::UDP
        } else {
            ip::ESP
        }
    }

    /// Its UDP ports as they stand on the wire, for rules of routing that ask for them; 0 where there is no UDP.
    pub(crate) fn ports(&self) -> (u16, u16) {
        self.encap
            .map_or((0, 0), |encap| (encap.sport.to_be(), encap.dport.to_be()))
    }

    /// Octets between the IP header and the ESP header.
    #[inline]
    pub(crate) fn udp_len(&self) -> usize {
        if self.encap.is_some() {
            UDP_LEN
        } else {
            0
        }
    }
}

/// A path in words: family and ports, source, destination.
const WORDS: usize = 5;

struct Words([AtomicU64; WORDS]);

impl Words {
    fn new(path: &Path) -> Self {
        let words = Words([const { AtomicU64::new(0) }; WORDS]);
        words.store(path);
        words
    }

    fn store(&self, path: &Path) {
        let ports = path.encap.map_or(0, |encap| {
            u64::from(encap.sport) << 16 | u64::from(encap.dport)
        });
        let halves = |address: &[u8; 16]| {
            let both = u128::from_ne_bytes(*address);
            [both as u64, (both >> 64) as u64]
        };
        let [src0, src1] = halves(&path.outer.src);
        let [dst0, dst1] = halves(&path.outer.dst);
        let values = [
            ports << 8 | u64::from(path.outer.family),
            src0,
            src1,
            dst0,
            dst1,
        ];
        for (word, value) in self.0.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn load(&self) -> Path {
        let [first, src0, src1, dst0, dst1] = &self.0;
        let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let whole = |low: u64, high: u64| (u128::from(high) << 64 | u128::from(low)).to_ne_bytes();
        let first = get(first);
        let (sport, dport) = ((first >> 24) as u16, (first >> 8) as u16);
        Path {
            outer: Outer {
                family: first as u8,
                src: whole(get(src0), get(src1)),
                dst: whole(get(dst0), get(dst1)),
            },
            // There is no port 0.
            encap: (sport != 0).then_some(Encap { sport, dport }),
        }
    }
}

/// The ends a CSA has, and those it had before: what was sent between them may still be under way (docs/wire.md 2.2h).
pub(crate) struct Ends {
    /// Odd while they are changed.
    version: AtomicU32,
    now: Words,
    before: Words,
}

impl Ends {
    /// At first.
    pub(crate) fn new(path: &Path) -> Self {
        Ends {
            version: AtomicU32::new(0),
            now: Words::new(path),
            before: Words::new(&Path::NONE),
        }
    }

    #[inline]
    fn read<T>(&self, read: impl Fn(&Self) -> T) -> T {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version & 1 == 0 {
                let found = read(self);
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == version {
                    return found;
                }
            }
            core::hint::spin_loop();
        }
    }

    /// Those it has.
    #[inline]
    pub(crate) fn get(&self) -> Path {
        self.read(|ends| ends.now.load())
    }

    /// Whether its packets go in UDP: one load, for those who ask nothing else.
    #[inline]
    pub(crate) fn are_in_udp(&self) -> bool {
        let [first, ..] = &self.now.0;
        // Behind the family are the ports.
        first.load(Ordering::Relaxed) >> 8 != 0
    }

    /// Those it had.
    pub(crate) fn before(&self) -> Path {
        self.read(|ends| ends.before.load())
    }

    /// Whether a packet between these may be of this CSA.
    #[inline]
    pub(crate) fn are(&self, outer: &Outer) -> bool {
        self.read(|ends| ends.now.load().outer.is(outer) || ends.before.load().outer.is(outer))
    }

    /// Whether a packet to this destination may be.
    #[inline]
    pub(crate) fn are_to(&self, outer: &Outer) -> bool {
        self.read(|ends| {
            ends.now.load().outer.is_to(outer) || ends.before.load().outer.is_to(outer)
        })
    }

    /// Changes them. The caller holds the writers' lock.
    pub(crate) fn set(&self, path: &Path) {
        let old = self.get();
        // With bottom halves off no reader on this CPU can wait for us.
        let _bh = Bh::off();
        self.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.before.store(&old);
        self.now.store(path);
        self.version.fetch_add(1, Ordering::Release);
    }
}
