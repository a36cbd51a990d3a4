// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A kernel that installs nothing and remembers what it was told.

use keyd::daemon::kernel::{errno, Ends, Error, Held, Kernel, Keys, Relayed, Rule, Sa, SaId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a kernel has, and what it was asked in the order it was.
#[derive(Default)]
pub struct State {
    pub sas: Vec<Sa>,
    pub rules: Vec<Rule>,
    pub reserved: BTreeSet<u32>,
    pub sequences: BTreeMap<u32, u64>,
    /// What SNOOP knows of flows, by SPI.
    pub snoop: BTreeMap<u32, Vec<u8>>,
    pub log: Vec<String>,
    /// What of a kind is refused, with that errno.
    pub refuse: Option<(&'static str, i32)>,
    /// How many of it aren't yet.
    pub spared: usize,
    /// When what of an SPI was installed, in seconds since 1970.
    pub since: BTreeMap<u32, u64>,
    /// What it has counted of forwarded ESP.
    pub relayed: Relayed,
    /// Seconds left of what is there.
    pub left: Option<u64>,
}

/// A hand on a kernel; the engine has another.
#[derive(Clone)]
pub struct Recorder {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

impl Recorder {
    pub fn new(name: &'static str) -> Self {
        Recorder {
            name,
            state: Arc::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The SA of that role; there must be one.
    pub fn one(&self, role: pfkey::Role) -> Sa {
        let state = self.state();
        let list: Vec<_> = state.sas.iter().filter(|sa| sa.id.role == role).collect();
        assert_eq!(list.len(), 1, "{}: {:?}", self.name, state.log);
        list[0].clone()
    }

    fn asked(&self, what: &'static str, about: &dyn std::fmt::Display) -> Result<(), Error> {
        let mut state = self.state();
        state.log.push(format!("{what} {about}"));
        match state.refuse {
            Some((refused, _)) if refused == what && state.spared > 0 => {
                state.spared -= 1;
                Ok(())
            }
            Some((refused, errno)) if refused == what => Err(Error::Refused { errno, text: None }),
            _ => Ok(()),
        }
    }
}

impl Kernel for Recorder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reserve(&mut self, spi: u32, _: IpAddr, _: IpAddr) -> Result<(), Error> {
        self.asked("reserve", &spi)?;
        self.state().reserved.insert(spi);
        Ok(())
    }

    fn release(&mut self, spi: u32, _: IpAddr, _: IpAddr) -> Result<(), Error> {
        self.asked("release", &spi)?;
        self.state().reserved.remove(&spi);
        Ok(())
    }

    fn add(&mut self, sa: &Sa) -> Result<(), Error> {
        self.asked("add", &sa.id)?;
        assert_eq!(
            matches!(sa.keys, Keys::Zones(_)),
            self.name == "mml",
            "each kernel has its own kind"
        );
        let mut state = self.state();
        if state.sas.iter().any(|one| one.id == sa.id) {
            return Err(Error::Refused {
                errno: errno::EEXIST,
                text: None,
            });
        }
        state.reserved.remove(&sa.id.spi);
        state.sas.push(sa.clone());
        Ok(())
    }

    fn activate(&mut self, id: &SaId) -> Result<(), Error> {
        self.asked("activate", id)?;
        for sa in &mut self.state().sas {
            if sa.id == *id {
                sa.standby = false;
            }
        }
        Ok(())
    }

    fn migrate(&mut self, id: &SaId, to: &Ends) -> Result<SaId, Error> {
        self.asked("migrate", id)?;
        let mut state = self.state();
        let sa = state.sas.iter_mut().find(|sa| sa.id == *id).unwrap();
        (sa.id.src, sa.id.dst) = (to.src.ip(), to.dst.ip());
        sa.udp = to.udp.then(|| (to.src.port(), to.dst.port()));
        Ok(sa.id)
    }

    fn remove(&mut self, id: &SaId) -> Result<(), Error> {
        self.asked("remove", id)?;
        self.state().sas.retain(|sa| sa.id != *id);
        Ok(())
    }

    fn resend(&mut self, id: &SaId, seen: u64) -> Result<u32, Error> {
        self.asked("resend", &format!("{id} behind {seen}"))?;
        Ok(0)
    }

    fn snoop_state(&mut self, id: &SaId) -> Result<Vec<u8>, Error> {
        self.asked("snoop state", id)?;
        let state = self.state();
        state.snoop.get(&id.spi).cloned().ok_or(Error::Refused {
            errno: errno::EOPNOTSUPP,
            text: None,
        })
    }

    fn take_over_snoop(&mut self, id: &SaId, given: &[u8]) -> Result<u32, Error> {
        self.asked("take over snoop", id)?;
        self.state().snoop.insert(id.spi, given.to_vec());
        Ok(1)
    }

    fn relayed(&mut self) -> Result<Relayed, Error> {
        Ok(self.state().relayed.clone())
    }

    fn sequence(&mut self, id: &SaId) -> Result<u64, Error> {
        Ok(self.state().sequences.get(&id.spi).copied().unwrap_or(0))
    }

    fn held(&mut self) -> Result<Vec<Held>, Error> {
        let state = self.state();
        let held = |sa: &Sa| Held {
            sa: sa.clone(),
            since: state.since.get(&sa.id.spi).copied().unwrap_or(0),
            left: state.left,
        };
        Ok(state.sas.iter().map(held).collect())
    }

    fn add_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        self.asked("policy", &format!("{:?}", rule.action))?;
        let mut state = self.state();
        state
            .rules
            .retain(|one| (one.inbound, one.selector) != (rule.inbound, rule.selector));
        state.rules.push(*rule);
        Ok(())
    }

    fn remove_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        self.asked("no policy", &format!("{:?}", rule.action))?;
        self.state()
            .rules
            .retain(|one| (one.inbound, one.selector) != (rule.inbound, rule.selector));
        Ok(())
    }
}
