// SPDX-License-Identifier: GPL-2.0-only
//! What a flow is to the next foreign agent, as it goes there, and how one takes it over (docs/wire.md 3.4a, 3.4d).
//!
//! It comes from another router, which may be anybody's by now: what can't be is refused, and what is taken may cost
//! repairs, never an acknowledgement that the rules would let pass (docs/snoop.md).

use core::ffi::CStr;

use super::rtt::Rtt;
use super::*;

const VERSION: u8 = 1;
const SACK: u8 = 1;
const FIN: u8 = 2;
/// Octets in front of the flows.
const HEAD: usize = 8;
/// Octets a flow.
const ONE: usize = 80;

/// Why states are refused, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absurd(pub &'static CStr);

/// What a flow has learned that another router could not in time (docs/wire.md 3.4b). No window scale is among it
/// (docs/wire.md 3.4e).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// The flow's ends, in the direction of its data.
    pub ends: Ends,
    /// The highest cumulative acknowledgement.
    una: u32,
    /// The number behind the last that the sender has sent.
    next: u32,
    /// The number behind its FIN, where it is known.
    fin: Option<u32>,
    /// The window of the last acknowledgement, unscaled: it is only compared with the next one's.
    window: u16,
    /// SACK blocks have come.
    selective: bool,
    /// Arrivals behind the hole at `una`.
    duplicates: u32,
    data: Rtt,
    repair: Rtt,
}

impl State {
    fn decode(octets: &[u8; ONE]) -> Result<Self, Absurd> {
        let mut r = Fields(octets);
        let [family, flags] = r.take();
        let window = r.u16();
        let (src_port, dst_port) = (r.u16(), r.u16());
        let (src, dst): ([u8; 16], [u8; 16]) = (r.take(), r.take());
        let (una, next, fin, duplicates) = (r.u32(), r.u32(), r.u32(), r.u32());
        let (data, repair) = (r.rtt()?, r.rtt()?);
        let narrow = |address: &[u8; 16]| address.iter().skip(4).all(|octet| *octet == 0);
        match family {
            4 if narrow(&src) && narrow(&dst) => {}
            6 => {}
            _ => return Err(Absurd(c"SNOOP_STATE: addresses of no family")),
        }
        if src_port == 0 || dst_port == 0 {
            return Err(Absurd(c"SNOOP_STATE: a flow without ports"));
        }
        if flags & !(SACK | FIN) != 0 {
            return Err(Absurd(c"SNOOP_STATE: a flag that means nothing"));
        }
        let sent = next.wrapping_sub(una);
        if sent > REACH {
            return Err(Absurd(c"SNOOP_STATE: more under way than a TCP window has"));
        }
        let ended = flags & FIN != 0;
        let behind = fin.wrapping_sub(una);
        if ended && (behind == 0 || behind > sent) || !ended && fin != 0 {
            return Err(Absurd(c"SNOOP_STATE: a FIN that isn't under way"));
        }
        if duplicates > u32::from(Settings::WINDOW_MAX) {
            return Err(Absurd(c"SNOOP_STATE: more arrivals than are ever kept"));
        }
        Ok(State {
            ends: Ends {
                family,
                src,
                dst,
                src_port,
                dst_port,
            },
            una,
            next,
            fin: ended.then_some(fin),
            window,
            selective: flags & SACK != 0,
            duplicates,
            data,
            repair,
        })
    }

    fn encode(&self, octets: &mut [u8; ONE]) {
        let mut w = Places(octets);
        let flag = |set, flag| if set { flag } else { 0 };
        w.put(&[
            self.ends.family,
            flag(self.selective, SACK) | flag(self.fin.is_some(), FIN),
        ]);
        for short in [self.window, self.ends.src_port, self.ends.dst_port] {
            w.put(&short.to_be_bytes());
        }
        w.put(&self.ends.src);
        w.put(&self.ends.dst);
        let fin = self.fin.unwrap_or(0);
        for word in [self.una, self.next, fin, self.duplicates] {
            w.put(&word.to_be_bytes());
        }
        for rtt in [&self.data, &self.repair] {
            for word in rtt.to_micros() {
                w.put(&word.to_be_bytes());
            }
        }
    }
}

/// The states of a CSA's flows, checked as a whole (docs/wire.md 3.4a).
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    octets: &'a [u8],
}

impl<'a> States<'a> {
    /// Flows that go together at most; of more, those that were used last.
    pub const MOST: usize = 32;
    /// Octets at most.
    pub const LEN: usize = HEAD + Self::MOST * ONE;

    /// Octets that `flows` of them take.
    pub const fn len_of(flows: usize) -> usize {
        HEAD.saturating_add(flows.saturating_mul(ONE))
    }

    /// Takes what another router wrote, if nothing in it is absurd (docs/wire.md 3.4c).
    ///
    /// # Errors
    /// [`Absurd`], which says what it is.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Absurd> {
        let Some(([version, reserved @ .., high, low], flows)) = octets.split_first_chunk::<HEAD>()
        else {
            return Err(Absurd(c"SNOOP_STATE: shorter than its head"));
        };
        if *version != VERSION {
            return Err(Absurd(c"SNOOP_STATE: another version than 1"));
        }
        if reserved.iter().any(|octet| *octet != 0) {
            return Err(Absurd(c"SNOOP_STATE: reserved field not zero"));
        }
        let count = usize::from(u16::from_be_bytes([*high, *low]));
        if count > Self::MOST {
            return Err(Absurd(c"SNOOP_STATE: more than 32 flows"));
        }
        if flows.len() != count.saturating_mul(ONE) {
            return Err(Absurd(c"SNOOP_STATE: its length is not that of its flows"));
        }
        let states = States { octets: flows };
        for (at, one) in states.chunks().enumerate() {
            let state = State::decode(one)?;
            if states
                .flows()
                .take(at)
                .any(|other| other.ends == state.ends)
            {
                return Err(Absurd(c"SNOOP_STATE: a flow twice"));
            }
        }
        Ok(states)
    }

    /// Writes these into `buffer`, as far as there may be so many: the octets.
    pub fn write(buffer: &mut [u8; States::LEN], flows: impl Iterator<Item = State>) -> &[u8] {
        let mut count = 0u16;
        let (head, places) = buffer.split_at_mut(HEAD);
        for (place, state) in places.chunks_exact_mut(ONE).zip(flows) {
            if let Ok(place) = place.try_into() {
                state.encode(place);
                count = count.saturating_add(1);
            }
        }
        let [high, low] = count.to_be_bytes();
        head.copy_from_slice(&[VERSION, 0, 0, 0, 0, 0, high, low]);
        buffer.get(..Self::len_of(count.into())).unwrap_or(&[])
    }

    fn chunks(self) -> impl Iterator<Item = &'a [u8; ONE]> {
        let chunks = self.octets.chunks_exact(ONE);
        chunks.filter_map(|chunk| chunk.try_into().ok())
    }

    /// The flows.
    pub fn flows(self) -> impl Iterator<Item = State> + 'a {
        // They were checked.
        self.chunks().filter_map(|one| State::decode(one).ok())
    }
}

/// Reads fields one after the other. As many are read as there are.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn rtt(&mut self) -> Result<Rtt, Absurd> {
        let micros = [self.u32(), self.u32(), self.u32()];
        Rtt::from_micros(micros).ok_or(Absurd(c"SNOOP_STATE: a round trip that can't be"))
    }
}

/// Writes fields one after the other.
struct Places<'a>(&'a mut [u8]);

impl Places<'_> {
    fn put(&mut self, field: &[u8]) {
        let all = core::mem::take(&mut self.0);
        if let Some((place, rest)) = all.split_at_mut_checked(field.len()) {
            place.copy_from_slice(field);
            self.0 = rest;
        }
    }
}

impl Flow {
    /// What another router is to know of it, as a flow between these ends. `None` if there is nothing to know.
    pub fn state(&self, ends: Ends) -> Option<State> {
        if self.closed || !(self.confirmed || self.vouched) {
            return None;
        }
        Some(State {
            ends,
            una: self.una,
            next: later(self.next, self.promised),
            fin: self.fin.filter(|fin| after(*fin, self.una)),
            window: self.window,
            selective: self.selective,
            duplicates: self.duplicates.min(Settings::WINDOW_MAX.into()),
            data: self.data,
            repair: self.repair,
        })
    }

    /// Takes over what another router knows of it (docs/wire.md 3.4d). Says whether it did: what has been learned here already is newer, and
    /// numbers far from those here are another connection's.
    pub fn take_over<S: Store>(
        &mut self,
        slots: &mut [Slot],
        state: &State,
        now: u64,
        settings: &Settings,
        store: &mut S,
    ) -> bool {
        let apart = span(state.una, self.una).max(span(self.una, state.una));
        if self.closed || self.started && apart > REACH {
            return false;
        }
        self.settle();
        self.data.or(&state.data);
        self.repair.or(&state.repair);
        self.selective |= state.selective;
        if self.confirmed {
            return false;
        }
        let mut scene = Scene {
            slots,
            store,
            settings,
            floor: 0,
            now,
        };
        let una = state.una;
        if !self.started {
            self.next = una;
        }
        self.start_anew(una);
        while let Some(first) = self.ring(scene.slots).first().copied() {
            if after(first.end, una) {
                break;
            }
            self.unlist(first.seq);
            self.ring(scene.slots).pop();
            scene.store.release(first.place);
        }
        self.vouched = true;
        self.promised = later(self.next, state.next);
        self.fin = self.fin.or(state.fin).filter(|fin| after(*fin, una));
        (self.window, self.duplicates) = (state.window, state.duplicates);
        self.set_alarm(&mut scene);
        true
    }
}
