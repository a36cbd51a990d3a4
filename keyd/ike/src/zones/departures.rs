// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! CSAs that FAs are to drop, until they answer that they have, or until the CSAs' life is over (docs/wire.md 3.2k).

use crate::event::{Custody, Holding, Place, Time};
use crate::wire::Revocation;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// For how long one whose life is over is remembered: longer than a request is sent again.
const ANSWER: Duration = Duration::from_secs(120);

/// A CSA that an FA is to drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Departure {
    pub revocation: Revocation,
    /// Its host.
    pub home: IpAddr,
    /// When its life is over: nobody needs to drop it any more.
    pub ends: Time,
}

impl Departure {
    pub fn holding(&self, fa: IpAddr, place: Place, custody: Custody) -> Holding {
        Holding {
            home: self.home,
            fa,
            spi: self.revocation.spi,
            generation: self.revocation.generation,
            place,
            custody,
        }
    }
}

/// By whom, outer destination, SPI, generation: so that what an FA is asked at once stands together.
type Key = (IpAddr, IpAddr, u32, u32);

fn key(fa: IpAddr, of: &Revocation) -> Key {
    (fa, of.destination, of.spi, of.generation)
}

/// All of an HA's.
#[derive(Default)]
pub(crate) struct Departures(BTreeMap<Key, (Departure, Custody)>);

impl Departures {
    /// An FA is asked.
    pub fn asked(&mut self, fa: IpAddr, departure: Departure, now: Time) {
        let key = key(fa, &departure.revocation);
        let ends = departure.ends.max(now + ANSWER);
        let departure = Departure { ends, ..departure };
        self.0.insert(key, (departure, Custody::Revoking));
    }

    /// It has answered, or is to have the CSA again.
    pub fn over(&mut self, fa: IpAddr, of: &Revocation) {
        self.0.remove(&key(fa, of));
    }

    /// It hasn't.
    pub fn unanswered(&mut self, fa: IpAddr, of: &Revocation) {
        if let Some((_, custody)) = self.0.get_mut(&key(fa, of)) {
            *custody = Custody::Unconfirmed;
        }
    }

    /// What those FAs are to be asked again.
    pub fn unconfirmed(&self, is: impl Fn(IpAddr) -> bool) -> Vec<(IpAddr, Departure)> {
        let all = self.0.iter();
        let open =
            all.filter(|((fa, ..), (_, custody))| *custody == Custody::Unconfirmed && is(*fa));
        open.map(|((fa, ..), (departure, _))| (*fa, *departure))
            .collect()
    }

    pub fn holdings(&self) -> impl Iterator<Item = Holding> + '_ {
        let all = self.0.iter();
        all.map(|((fa, ..), (departure, custody))| departure.holding(*fa, Place::Former, *custody))
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.0.values().map(|(departure, _)| departure.ends).min()
    }

    pub fn tick(&mut self, now: Time) {
        self.0.retain(|_, (departure, _)| now < departure.ends);
    }
}
