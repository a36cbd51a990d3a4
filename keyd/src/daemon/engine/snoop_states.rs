// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What SNOOP knows of a host's flows goes along with it (docs/wire.md 3.1h). keyd reads nothing of it: the module that
//! takes it over does, and refuses what can't be.

use super::relays::home_of;
use super::Engine;
use crate::daemon::kernel::{errno, SaId};
use mml_ike::event::Time;
use mml_ike::secret::Secret;
use mml_ike::wire::{SnoopState, MAX_STATES};
use std::net::IpAddr;
use std::time::Duration;

/// For how long states wait for their CSA, which the home agent or the previous foreign agent may give later.
const WAITS: Duration = Duration::from_secs(2);
/// States that wait at once.
const WAITING: usize = 256;

/// States whose CSA isn't here yet: until when, whose, and what.
#[derive(Default)]
pub(super) struct Waiting(Vec<(Time, IpAddr, SnoopState)>);

impl Waiting {
    fn put(&mut self, home: IpAddr, state: SnoopState, now: Time) {
        self.sweep(now);
        if self.0.len() < WAITING {
            self.0.push((now + WAITS, home, state));
        }
    }

    /// Those of this host and CSA whose time isn't over.
    fn take(&mut self, home: IpAddr, spi: u32, now: Time) -> Option<SnoopState> {
        self.sweep(now);
        let is = |(_, of, state): &(Time, IpAddr, SnoopState)| *of == home && state.spi == spi;
        let at = self.0.iter().position(is)?;
        Some(self.0.swap_remove(at).2)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops those that nothing came for.
    pub(super) fn sweep(&mut self, now: Time) {
        self.0.retain(|(until, ..)| now < *until);
    }
}

impl Engine {
    /// Previous FA: what SNOOP knows of the host's flows, of its newest CSAs.
    pub(super) fn snoop_states(&mut self, home: IpAddr) -> Vec<SnoopState> {
        let relays = self.host.book.relays.values();
        let mut of: Vec<_> = relays
            .filter(|relay| home_of(&relay.selector) == Some(home))
            .map(|relay| (relay.since, relay.outbound))
            .collect();
        of.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        let Some(module) = &mut self.host.kernels.mml else {
            return Vec::new();
        };
        let mut states = Vec::new();
        for (_, id) in of.into_iter().take(MAX_STATES) {
            match module.snoop_state(&id) {
                Ok(flows) if flows.len() <= pfkey::MAX_SNOOP_STATE => states.push(SnoopState {
                    spi: id.spi,
                    flows: Secret::new(flows),
                }),
                Ok(_) => tracing::warn!("{id}: SNOOP's state is longer than may be"),
                // SNOOP is off.
                Err(error) if error.errno() == Some(errno::EOPNOTSUPP) => {}
                Err(error) => tracing::warn!("{id}: SNOOP's state can't be had: {error}"),
            }
        }
        states
    }

    /// New FA: what the previous one knew.
    pub(super) fn states_came(&mut self, home: IpAddr, states: Vec<SnoopState>, now: Time) {
        for state in states.into_iter().take(MAX_STATES) {
            let mut relays = self.host.book.relays.values();
            let relay = relays.find(|relay| {
                relay.outbound.spi == state.spi && home_of(&relay.selector) == Some(home)
            });
            match relay.map(|relay| relay.outbound) {
                Some(id) => self.take_over(&id, &state),
                None => {
                    tracing::debug!(%home, "SNOOP's state of a CSA {:#010x} came before it", state.spi);
                    self.waiting.put(home, state, now);
                }
            }
        }
    }

    /// New FA: a CSA came. Its flows' states may have come before.
    pub(super) fn states_waited(&mut self, home: IpAddr, id: &SaId, now: Time) {
        if let Some(state) = self.waiting.take(home, id.spi, now) {
            self.take_over(id, &state);
        }
    }

    fn take_over(&mut self, id: &SaId, state: &SnoopState) {
        let Some(module) = &mut self.host.kernels.mml else {
            return;
        };
        match module.take_over_snoop(id, state.flows.expose()) {
            Ok(flows) => {
                self.counters.flows_taken_over += u64::from(flows);
                tracing::info!(
                    flows,
                    "{id}: SNOOP goes on where the previous foreign agent's was"
                );
            }
            Err(error) if error.errno() == Some(errno::EOPNOTSUPP) => {
                tracing::debug!("{id}: SNOOP's state isn't taken over: SNOOP is off");
            }
            Err(error) => tracing::warn!("{id}: SNOOP's state isn't taken over: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_waits_two_seconds_for_its_own_csa() {
        let (home, other) = (
            IpAddr::from([203, 0, 113, 7]),
            IpAddr::from([203, 0, 113, 8]),
        );
        let state = SnoopState {
            spi: 0x1000,
            flows: Secret::copy(&[7; 88]),
        };
        let at = Time::from_millis;
        let mut waiting = Waiting::default();
        waiting.put(home, state.clone(), at(0));
        assert_eq!(waiting.take(other, 0x1000, at(1)), None);
        assert_eq!(waiting.take(home, 0x1001, at(1)), None);
        assert_eq!(waiting.take(home, 0x1000, at(1_999)), Some(state.clone()));
        assert_eq!(waiting.take(home, 0x1000, at(1_999)), None);
        waiting.put(home, state.clone(), at(2_000));
        assert_eq!(waiting.take(home, 0x1000, at(4_000)), None);
        // However many there are, they are few.
        for _ in 0..1_000 {
            waiting.put(home, state.clone(), at(5_000));
        }
        assert_eq!(waiting.0.len(), WAITING);
    }
}
