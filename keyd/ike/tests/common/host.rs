// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A host with seeded randomness.

use mml_ike::host::{Host, Progress};
use ring::rand::{SecureRandom, SystemRandom};

/// xorshift64*: repeatable, and good for nothing else.
pub struct TestHost {
    state: u64,
    system: SystemRandom,
    pub progress: Progress,
}

impl TestHost {
    pub fn new(seed: u64) -> Self {
        TestHost {
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            system: SystemRandom::new(),
            progress: Progress::default(),
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One in `of`.
    pub fn one_in(&mut self, of: u64) -> bool {
        (self.next() >> 11) % of == 0
    }
}

impl Host for TestHost {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let octets = self.next().to_be_bytes();
            chunk.copy_from_slice(&octets[..chunk.len()]);
        }
    }

    fn secure(&self) -> &dyn SecureRandom {
        &self.system
    }

    fn progress(&mut self, _: u32, _: u32) -> Progress {
        self.progress
    }
}
