// SPDX-License-Identifier: GPL-2.0-only

//! What SNOOP knows of a CSA's flows goes with the mobile host to another foreign agent (docs/wire.md 2.2y, 3.4a).

use kernel::alloc::{flags::*, KVec};
use kernel::prelude::*;
use mml_core::ip::{Addresses, Ports, TCP};
use mml_core::snoop::{Ends, State as Known, States};

use super::*;

const _: () = assert!(States::LEN == pfkey::MAX_SNOOP_STATE);

/// Whether a flow between these ends may come in this CSA.
fn is_of(csa: &Csa, ends: &Ends) -> bool {
    let of = Addresses {
        family: ends.family,
        src: ends.src,
        dst: ends.dst,
        protocol: TCP,
        ..Addresses::NONE
    };
    let ports = Ports {
        src: ends.src_port,
        dst: ends.dst_port,
    };
    csa.selector.matches(&of, || Some(ports))
}

impl Snoop {
    /// What is known of a CSA's flows, as octets: of those that were used last, as many as go together. Sleeps.
    pub(crate) fn states(&self, csa: &Csa) -> Result<KVec<u8>> {
        let mut last: KVec<(u64, Known)> = KVec::with_capacity(States::MOST, GFP_KERNEL)?;
        let mut octets = KVec::from_elem(0, States::LEN, GFP_KERNEL)?;
        let outer = csa.ends.get().outer;
        {
            let _bh = Bh::off();
            let writers = self.writers.lock();
            let of = |tracked: &&Arc<Timed<Tracked>>| tracked.key.outer.is(&outer);
            for tracked in writers.all.iter().filter(of) {
                let touched = tracked.touched.load(Ordering::Relaxed);
                let state = tracked.state.lock();
                let ours = state.csa.as_ref().is_some_and(|(id, _)| *id == csa.id);
                let known = state.flow.state(tracked.key.ends);
                let known = known.filter(|_| ours && !state.tether.is_cut());
                drop(state);
                let Some(known) = known else {
                    continue;
                };
                if last.len() < States::MOST {
                    // There is room for it.
                    let _ = last.push((touched, known), GFP_ATOMIC);
                } else if let Some(oldest) = last.iter_mut().min_by_key(|(touched, _)| *touched) {
                    if oldest.0 < touched {
                        *oldest = (touched, known);
                    }
                }
            }
        }
        let buffer = octets.as_mut_slice().try_into().map_err(|_| EINVAL)?;
        let len = States::write(buffer, last.iter().map(|(_, known)| *known)).len();
        octets.truncate(len);
        Ok(octets)
    }

    /// Takes over what another foreign agent knew of a CSA's flows; of how many. From process context.
    ///
    /// # Errors
    ///
    /// `EINVAL`, and nothing has changed, if one of them can't be the CSA's.
    pub(crate) fn take_over(&self, ns: &Namespace, csa: &Csa, states: States<'_>) -> Result<u32> {
        if !states.flows().all(|known| is_of(csa, &known.ends)) {
            return Err(EINVAL);
        }
        let outer = csa.ends.get().outer;
        let (bh, seed, mut taken) = (Bh::off(), ns.sadb.seed, 0u32);
        Reader::enter(|reader| {
            for known in states.flows() {
                let ends = known.ends;
                let key = Key { outer, ends };
                let tracked = match self.find(&key, seed, reader) {
                    Some(tracked) => tracked,
                    None => {
                        // No more than there may be, and as one that nobody has answered: any other may take its place.
                        if !self.create(
                            ns,
                            &key,
                            seed,
                            Origin::Csa {
                                csa,
                                esp: 0,
                                room: None,
                            },
                            (0, 0),
                            &bh,
                        ) {
                            continue;
                        }
                        match self.find(&key, seed, reader) {
                            Some(tracked) => tracked,
                            None => continue,
                        }
                    }
                };
                taken += u32::from(self.give(tracked, &known));
            }
        });
        self.taken_over.fetch_add(taken.into(), Ordering::Relaxed);
        Ok(taken)
    }

    /// Gives a flow what is known of it. Bottom halves are off.
    fn give(&self, tracked: &Timed<Tracked>, known: &Known) -> bool {
        let mut state = tracked.state.lock();
        let it = &mut *state;
        if it.tether.is_cut() {
            return false;
        }
        let now = sync::now_ns();
        let mut keeper = Keeper {
            packets: &mut it.packets,
            bytes: &self.bytes,
            out: List::new(),
        };
        let settings = it.told.settings;
        let taken = it
            .flow
            .take_over(&mut it.slots, known, now, &settings, &mut keeper);
        tracked.rearm(it);
        taken
    }
}
