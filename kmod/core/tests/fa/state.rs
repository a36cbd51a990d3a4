// SPDX-License-Identifier: GPL-2.0-only
//! States as another router writes them, by a second hand: fields may be anything.

use mml_core::snoop::{Ends, State, States};

/// The fields of a flow's state, as docs/wire.md 3.4b has them.
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    pub family: u8,
    pub flags: u8,
    pub window: u16,
    pub ports: (u16, u16),
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub una: u32,
    pub next: u32,
    pub fin: u32,
    pub duplicates: u32,
    pub data: [u32; 3],
    pub repair: [u32; 3],
}

pub const SACK: u8 = 1;
pub const FIN: u8 = 2;

/// The first four octets of an address, and no more.
pub const fn v4(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

impl Raw {
    /// A flow that nothing is under way of.
    pub const fn quiet(una: u32) -> Self {
        Raw {
            family: 4,
            flags: 0,
            window: 1_000,
            ports: (80, 4242),
            src: v4(192, 0, 2, 10),
            dst: v4(203, 0, 113, 7),
            una,
            next: una,
            fin: 0,
            duplicates: 0,
            data: [5_000, 500, 4_000],
            repair: [0; 3],
        }
    }

    pub fn ends(&self) -> Ends {
        Ends {
            family: self.family,
            src: self.src,
            dst: self.dst,
            src_port: self.ports.0,
            dst_port: self.ports.1,
        }
    }

    pub fn octets(&self) -> Vec<u8> {
        let shorts = [self.window, self.ports.0, self.ports.1];
        let words = [self.una, self.next, self.fin, self.duplicates];
        let words = words.iter().chain(&self.data).chain(&self.repair);
        [
            vec![self.family, self.flags],
            shorts
                .iter()
                .flat_map(|short| short.to_be_bytes())
                .collect(),
            self.src.to_vec(),
            self.dst.to_vec(),
            words.flat_map(|word| word.to_be_bytes()).collect(),
        ]
        .concat()
    }

    /// It, read.
    pub fn state(&self) -> State {
        let octets = all(&[*self]);
        let states = States::parse(&octets).expect("sound");
        let mut flows = states.flows();
        flows.next().expect("one")
    }
}

/// All of them, as they go to another router.
pub fn all(flows: &[Raw]) -> Vec<u8> {
    let count = u16::try_from(flows.len()).expect("few").to_be_bytes();
    let head = [1, 0, 0, 0, 0, 0, count[0], count[1]];
    let flows = flows.iter().flat_map(Raw::octets);
    head.into_iter().chain(flows).collect()
}
