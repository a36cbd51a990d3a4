// SPDX-License-Identifier: GPL-2.0-only
//! The TCP window that a host advertises, lowered to a limit by a relay that may write (`docs/wire.md` §1.5).
//!
//! The field has 16 bits, and what they mean the two SYNs agree on: if both carry the window scale option, each side's
//! field is shifted by what that side offered (RFC 7323 §2.2); if one doesn't, by nothing. In a SYN itself nothing is ever
//! shifted. So a relay that has not seen both SYNs leaves the field alone.

use crate::zone::{self, Mode};

const HEADER_MIN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_SCALE: u8 = 3;
/// A greater shift counts as this (RFC 7323 §2.3).
const SHIFT_MAX: u8 = 14;

/// The window scale option of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Offer {
    /// Not seen, or there is no telling.
    #[default]
    Unknown,
    /// The SYN has none.
    Without,
    /// This shift, at most 14.
    With(u8),
}

/// What a relay has to know of a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    seq: u32,
    flags: u8,
    window: u16,
    offer: Offer,
}

impl Look {
    /// Reads it from zone 1 of a tunnel mode packet; `None` where that isn't the first octets of a TCP header.
    #[inline]
    pub fn read(zone1: &[u8]) -> Option<Self> {
        let start = zone::tcp_header(Mode::Tunnel, 0, zone1)?;
        let tcp = zone1.get(start..)?;
        let fixed = tcp.first_chunk::<16>()?;
        let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags, w0, w1] = *fixed;
        let len = usize::from(offset >> 4) << 2;
        Some(Look {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            offer: if flags & FLAG_SYN == 0 {
                Offer::Unknown
            } else {
                tcp.get(HEADER_MIN..len).map_or(Offer::Unknown, read_offer)
            },
        })
    }

    /// Whether it is a SYN, answering or not.
    #[inline]
    pub const fn is_syn(&self) -> bool {
        self.flags & FLAG_SYN != 0
    }
}

/// What a SYN's options offer; malformed ones, and two offers, say nothing for certain (docs/wire.md 1.5l).
fn read_offer(options: &[u8]) -> Offer {
    let mut offer = Offer::Without;
    let mut rest = options;
    while let Some((&kind, tail)) = rest.split_first() {
        match kind {
            OPTION_END => break,
            OPTION_NOP => rest = tail,
            _ => {
                let len = tail.first().map_or(0, |len| usize::from(*len));
                let (Some(option), Some(next)) = (rest.get(2..len), rest.get(len..)) else {
                    return Offer::Unknown;
                };
                if kind == OPTION_SCALE {
                    offer = match (option, offer) {
                        ([shift], Offer::Without) => Offer::With((*shift).min(SHIFT_MAX)),
                        _ => return Offer::Unknown,
                    };
                }
                rest = next;
            }
        }
    }
    offer
}

/// An end of the connection, seen from the link whose window is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Behind the link: its window is limited.
    Host,
    /// On the other side: its window is its own.
    Peer,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Side::Host => Side::Peer,
            Side::Peer => Side::Host,
        }
    }
}

/// What both SYNs of a connection have said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scales {
    host: Offer,
    peer: Offer,
    initiator: Side,
    /// The initial sequence number of the initiator's SYN.
    isn: u32,
    /// Whether that SYN was seen.
    begun: bool,
    /// Whether the other side's SYN was seen, which settles it.
    answered: bool,
}

impl Default for Scales {
    fn default() -> Self {
        Scales {
            host: Offer::Unknown,
            peer: Offer::Unknown,
            initiator: Side::Host,
            isn: 0,
            begun: false,
            answered: false,
        }
    }
}

impl Scales {
    /// Takes note of a segment from `side` (docs/wire.md 1.5l).
    pub fn note(&mut self, side: Side, look: &Look) {
        if !look.is_syn() {
            return;
        }
        if look.flags & FLAG_ACK != 0 {
            if self.initiator != side.other() {
                // The SYN that it answers was not seen.
                *self = Scales {
                    initiator: side.other(),
                    ..Scales::default()
                };
            }
            *self.offer_mut(side) = look.offer;
            self.answered = true;
            return;
        }
        if self.begun && self.initiator == side && self.isn == look.seq {
            if self.offer(side) != look.offer {
                // It was sent again with another offer: which of them is answered, nobody can tell.
                *self.offer_mut(side) = Offer::Unknown;
            }
            return;
        }
        // A new connection.
        *self = Scales {
            initiator: side,
            isn: look.seq,
            begun: true,
            ..Scales::default()
        };
        *self.offer_mut(side) = look.offer;
    }

    /// How far `side`'s window is shifted, if that is known (docs/wire.md 1.5k).
    pub fn shift(&self, side: Side) -> Option<u8> {
        if !self.answered {
            return None;
        }
        match (self.offer(self.initiator.other()), self.offer(side)) {
            (Offer::Without, _) => Some(0),
            (Offer::With(_), Offer::With(shift)) => Some(shift),
            _ => None,
        }
    }

    const fn offer(&self, side: Side) -> Offer {
        match side {
            Side::Host => self.host,
            Side::Peer => self.peer,
        }
    }

    fn offer_mut(&mut self, side: Side) -> &mut Offer {
        match side {
            Side::Host => &mut self.host,
            Side::Peer => &mut self.peer,
        }
    }

    /// The window that the host's segment is to have instead, for a limit in octets; `None` where it stays as it is: it is
    /// low enough, or what it means isn't known (docs/wire.md 1.5m).
    pub fn clamp(&self, look: &Look, limit: u32) -> Option<u16> {
        if look.flags & FLAG_RST != 0 {
            return None;
        }
        let most = if look.is_syn() {
            // Rounded as what follows it will be: an edge that was shown is never taken back (docs/wire.md 1.5n).
            let shift = match look.offer {
                Offer::With(shift) => shift,
                _ => 0,
            };
            scaled(limit, shift).checked_shl(shift.into())?
        } else {
            scaled(limit, self.shift(Side::Host)?)
        };
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        (look.window > most).then_some(most)
    }
}

/// The limit in units of the shift, at least one of them: a window of 0 would stop the peer for good
/// (docs/wire.md 1.5m).
fn scaled(limit: u32, shift: u8) -> u32 {
    limit.checked_shr(shift.into()).unwrap_or(0).max(1)
}
