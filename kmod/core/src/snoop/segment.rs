// SPDX-License-Identifier: GPL-2.0-only
//! What SNOOP reads of a TCP segment: zone 1 of a packet, or the headers of a plain one.

use crate::ip;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const HEADER_MIN: usize = 20;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_SACK: u8 = 5;
/// SACK blocks that fit a TCP header's 40 octets of options (RFC 2018 §3).
pub const BLOCKS: usize = 4;

/// A range of sequence numbers that the receiver has (RFC 2018 §3): its first, and the one behind its last.
pub type Block = (u32, u32);

/// The ends of a flow, in the direction of the segment that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// 4 or 6.
    pub family: u8,
    /// Source address; IPv4 in the first four octets, the rest zero.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Ends {
    /// The other direction's.
    #[inline]
    pub const fn reversed(&self) -> Self {
        Ends {
            family: self.family,
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its first sequence number.
    pub seq: u32,
    /// Octets of payload.
    pub len: u32,
    /// The acknowledgement number, if there is one.
    pub ack: Option<u32>,
    /// The window as it stands in the header, unscaled.
    pub window: u16,
    /// It opens a connection.
    pub syn: bool,
    /// It ends its direction.
    pub fin: bool,
    /// It breaks the connection.
    pub rst: bool,
    /// SACK blocks in the order they came in; the first [`Segment::blocks`] are there.
    pub sack: [Block; BLOCKS],
    /// How many.
    pub blocks: u8,
}

impl Segment {
    /// Reads IP and TCP headers out of the first octets of a datagram.
    ///
    /// `None` where they don't hold a whole TCP header with its options: another protocol, a fragment, an odd zone
    /// map, or lengths that contradict each other.
    #[inline]
    pub fn parse(head: &[u8]) -> Option<(Ends, Segment)> {
        let of = ip::addresses(head)?;
        if of.protocol != ip::TCP || of.fragment || !of.transport {
            return None;
        }
        let (_, tcp) = head.split_at_checked(of.header_len)?;
        let fixed = tcp.first_chunk::<HEADER_MIN>()?;
        let [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] =
            *fixed;
        let header = usize::from(offset >> 4) << 2;
        let options = tcp.get(HEADER_MIN..header)?;
        let len = of
            .total_len
            .checked_sub(of.header_len)?
            .checked_sub(header)?;
        let mut segment = Segment {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            len: u32::try_from(len).ok()?,
            ack: (flags & ACK != 0).then_some(u32::from_be_bytes([a0, a1, a2, a3])),
            window: u16::from_be_bytes([w0, w1]),
            syn: flags & SYN != 0,
            fin: flags & FIN != 0,
            rst: flags & RST != 0,
            sack: [(0, 0); BLOCKS],
            blocks: 0,
        };
        if !options.is_empty() {
            segment.read_sack(options);
        }
        let ends = Ends {
            family: of.family,
            src: of.src,
            dst: of.dst,
            src_port: u16::from_be_bytes([p0, p1]),
            dst_port: u16::from_be_bytes([q0, q1]),
        };
        Some((ends, segment))
    }

    /// The number behind its last, SYN and FIN counted.
    #[inline]
    pub const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.len)
            .wrapping_add(self.syn as u32)
            .wrapping_add(self.fin as u32)
    }

    /// Whether it is a bare duplicate of an acknowledgement of `ack` with this window.
    #[inline]
    pub(crate) fn repeats(&self, ack: u32, window: u16) -> bool {
        self.ack == Some(ack)
            && self.window == window
            && self.len == 0
            && self.blocks == 0
            && !(self.syn || self.fin || self.rst)
    }

    /// The SACK blocks.
    #[inline]
    pub fn sack(&self) -> &[Block] {
        self.sack.get(..usize::from(self.blocks)).unwrap_or(&[])
    }

    /// Options that are malformed end the reading: what came before them stands.
    fn read_sack(&mut self, options: &[u8]) {
        let mut rest = options;
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                OPTION_END => return,
                OPTION_NOP => rest = tail,
                _ => {
                    let Some(len) = tail.first().map(|len| usize::from(*len)) else {
                        return;
                    };
                    // Kind and length themselves are two octets.
                    let (Some(value), Some(next)) = (rest.get(2..len), rest.get(len..)) else {
                        return;
                    };
                    if kind == OPTION_SACK {
                        self.blocks = 0;
                        for (block, to) in value.chunks_exact(8).zip(&mut self.sack) {
                            let &[a, b, c, d, e, f, g, h] = block else {
                                return;
                            };
                            *to = (
                                u32::from_be_bytes([a, b, c, d]),
                                u32::from_be_bytes([e, f, g, h]),
                            );
                            self.blocks = self.blocks.saturating_add(1);
                        }
                    }
                    rest = next;
                }
            }
        }
    }
}
