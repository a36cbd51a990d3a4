// SPDX-License-Identifier: GPL-2.0-only
//! The cached segments of a flow, in the order of their sequence numbers, in memory that belongs to the caller.

use super::serial::{after, before};

/// A cached segment, or a free place for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Its first sequence number.
    pub(crate) seq: u32,
    /// The number behind its last.
    pub(crate) end: u32,
    /// The ESP number it was sent under; 0 outside a CSA.
    pub(crate) esp: u64,
    /// When it last went out, in nanoseconds.
    pub(crate) sent: u64,
    /// Where the caller keeps the packet. Every slot of a flow has another one, free slots too.
    pub(crate) place: u16,
    /// Local retransmissions.
    pub(crate) tries: u8,
    /// Those of them that no duplicate ACK asked for, since the last one that did.
    pub(crate) timed: u8,
    /// The sender has retransmitted it: its losses are the sender's to see.
    pub(crate) by_sender: bool,
    /// The receiver has said that it has it (RFC 2018).
    pub(crate) sacked: bool,
    /// It is listed among the retransmissions under way.
    pub(crate) pending: bool,
}

/// Gives every slot its place. Slots must be made so before a [`super::Flow`] uses them.
pub fn prepare(slots: &mut [Slot]) {
    let mut place = 0u16;
    for slot in slots {
        *slot = Slot {
            place,
            ..Slot::default()
        };
        place = place.saturating_add(1);
    }
}

/// The ring: slots `head .. head + len`, modulo their number, are in use.
///
/// # Invariants
/// `len <= slots.len()`; the slots in use are ascending by `seq` and by `end`.
pub(crate) struct Ring<'a> {
    pub(crate) slots: &'a mut [Slot],
    pub(crate) head: &'a mut u32,
    pub(crate) len: &'a mut u32,
}

impl Ring<'_> {
    #[inline]
    fn index(&self, at: u32) -> usize {
        let index = (*self.head as usize).saturating_add(at as usize);
        // Both are below the number of slots.
        if index >= self.slots.len() {
            index.saturating_sub(self.slots.len())
        } else {
            index
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        *self.len
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        *self.len as usize >= self.slots.len()
    }

    /// The segment at `at` from the front.
    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&Slot> {
        if at >= *self.len {
            return None;
        }
        self.slots.get(self.index(at))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Slot> {
        if at >= *self.len {
            return None;
        }
        let index = self.index(at);
        self.slots.get_mut(index)
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&Slot> {
        self.get(0)
    }

    /// How far from the front the first segment is that ends behind `seq`; [`Self::len`] if none does.
    #[inline]
    pub(crate) fn find(&self, seq: u32) -> u32 {
        // Most questions are about the front.
        match self.first() {
            Some(first) if before(first.end, seq) || first.end == seq => {}
            _ => return 0,
        }
        let (mut low, mut high) = (1, *self.len);
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(|slot| after(slot.end, seq)) {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        low
    }

    /// Takes the first segment out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        let first = *self.first()?;
        *self.head = self.index(1) as u32;
        *self.len = self.len.saturating_sub(1);
        Some(first)
    }

    /// Puts a segment in at `at`; its place is the free slot's. `None` if there is none, or `at` is behind the end.
    #[inline]
    pub(crate) fn insert(&mut self, at: u32, slot: Slot) -> Option<u16> {
        if self.is_full() || at > *self.len {
            return None;
        }
        let free = self.index(*self.len);
        let place = self.slots.get(free)?.place;
        // Appending moves nothing; a hole that is filled moves what lies behind it.
        let mut to = *self.len;
        *self.len = self.len.saturating_add(1);
        while to > at {
            let from = to.saturating_sub(1);
            let moved = *self.get(from)?;
            *self.get_mut(to)? = moved;
            to = from;
        }
        *self.get_mut(at)? = Slot { place, ..slot };
        Some(place)
    }

    /// Takes the segment at `at` out.
    pub(crate) fn remove(&mut self, at: u32) -> Option<Slot> {
        if at == 0 {
            return self.pop();
        }
        let gone = *self.get(at)?;
        let last = self.len.checked_sub(1)?;
        let mut to = at;
        while to < last {
            let next = to.saturating_add(1);
            let moved = *self.get(next)?;
            *self.get_mut(to)? = moved;
            to = next;
        }
        // The slot that becomes free keeps the place of the one that went.
        self.get_mut(last)?.place = gone.place;
        *self.len = last;
        Some(gone)
    }

    /// Copies it, in order, into a larger piece of memory, whose new slots get the places behind the old ones.
    pub(crate) fn grow(&self, into: &mut [Slot]) -> bool {
        if into.len() < self.slots.len() {
            return false;
        }
        let mut at = 0usize;
        let all = self.slots.len();
        let mut place = 0u16;
        for slot in into {
            let mut index = (*self.head as usize).saturating_add(at);
            if index >= all {
                index = index.saturating_sub(all);
            }
            *slot = match self.slots.get(index) {
                Some(old) if at < all => *old,
                _ => Slot {
                    place,
                    ..Slot::default()
                },
            };
            at = at.saturating_add(1);
            place = place.saturating_add(1);
        }
        true
    }
}
