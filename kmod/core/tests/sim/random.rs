// SPDX-License-Identifier: GPL-2.0-only
//! Random numbers and bit errors without floating point, whose last digits are another libm's.

/// SplitMix64 (Steele, Lea & Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// ln 2 times 2^32.
const LN_2: u64 = 2_977_044_472;

/// `-ln(u / 2^64)` times 2^32, for `u` above 0: its binary logarithm digit by digit.
fn minus_ln(u: u64) -> u64 {
    let zeros = u.leading_zeros();
    // 1 ≤ x < 2, times 2^63.
    let mut x = u128::from(u << zeros);
    let mut log = 0u64;
    for _ in 0..32 {
        x = (x * x) >> 63;
        log <<= 1;
        if x >> 64 != 0 {
            x >>= 1;
            log |= 1;
        }
    }
    let minus_log2 = ((u64::from(zeros) + 1) << 32) - log;
    ((u128::from(minus_log2) * u128::from(LN_2)) >> 32) as u64
}

/// Bits that go wrong, at Poisson's times on the link's own clock of bits, whether or not a packet is there.
#[derive(Clone, Debug)]
pub struct Errors {
    random: Random,
    /// One bit in so many; 0 for none.
    one_in: u64,
    next: u64,
}

impl Errors {
    pub fn new(one_in: u64, seed: u64) -> Self {
        let mut errors = Errors {
            random: Random(seed),
            one_in,
            next: 0,
        };
        errors.draw();
        errors
    }

    fn draw(&mut self) {
        let gap = minus_ln(self.random.next().max(1));
        self.next += ((u128::from(gap) * u128::from(self.one_in)) >> 32) as u64 + 1;
    }

    /// Whether one of `bits` bits from `start` on is hit. `start` never goes back.
    pub fn hit(&mut self, start: u64, bits: u64) -> bool {
        if self.one_in == 0 {
            return false;
        }
        while self.next < start {
            self.draw();
        }
        self.next < start + bits
    }
}

/// `(1 - 1 / one_in) ^ bits`, times 2^32.
pub fn survival(one_in: u64, bits: u64) -> u64 {
    const ONE: u128 = 1 << 62;
    if one_in == 0 {
        return 1 << 32;
    }
    let (mut base, mut result, mut left) = (ONE - ONE / u128::from(one_in), ONE, bits);
    while left > 0 {
        if left & 1 == 1 {
            result = (result * base) >> 62;
        }
        base = (base * base) >> 62;
        left >>= 1;
    }
    (result >> 30) as u64
}
