// SPDX-License-Identifier: GPL-2.0-only

//! What the module keeps for each network namespace, and the one lock of those who change it.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kernel::alloc::{flags::*, KVec};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};
use pfkey::Role;

use crate::clamp::Clamp;
use crate::counters::Counters;
use crate::ends::{Outer, Path};
use crate::hold::Holds;
use crate::larval::{self, Larval};
use crate::lifetime;
use crate::net::{self, DevicePlace, Hooks, NetPointer};
use crate::policy::{Action, Policy, Spd};
use crate::relay_number::{self, Given};
use crate::sadb::{Csa, Sadb};
use crate::snoop::{Snoop, Told};
use crate::sync::{Alarm, ModuleRef};

/// CSAs and policies that a namespace may have. What they allocate is accounted to who asks, too (docs/wire.md 2.1b).
pub(crate) const CSAS_MAX: usize = 65_536;
/// See [`CSAS_MAX`].
pub(crate) const POLICIES_MAX: usize = 65_536;

/// A policy as the namespace lists it.
pub(crate) struct Listed {
    pub policy: Arc<Policy>,
    /// A protect policy keeps the module from going; given back when the policy goes, not when its memory does
    /// (docs/wire.md 2.4c).
    _module: Option<ModuleRef>,
}

/// What is listed, in the order of the numbers it got.
pub(crate) struct Config {
    pub csas: KVec<Arc<Csa>>,
    pub policies: KVec<Listed>,
    /// SPIs that are reserved.
    pub larvals: KVec<Larval>,
    /// Relay numbers that were given, for good.
    pub numbers: KVec<Given>,
    last_csa: u64,
    last_policy: u32,
    guard: bool,
    relay: bool,
}

impl Config {
    /// A number for a CSA, greater than all before.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_csa += 1;
        self.last_csa
    }
}

/// Settings of a namespace.
pub(crate) struct Settings {
    /// TCP's MSS option is lowered to what the tunnel carries.
    pub mss_clamp: AtomicBool,
    /// A relay drops what it can't open, instead of forwarding it as any router would.
    pub relay_drop: AtomicBool,
    /// The mark that the sealed packets' route is looked up with.
    pub mark: AtomicU32,
}

/// The state of one namespace.
#[pin_data]
pub(crate) struct Namespace {
    net: NetPointer,
    /// When the next life-time ends.
    pub alarm: Arc<Alarm>,
    pub sadb: Sadb,
    pub spd: Spd,
    pub device: DevicePlace,
    pub counters: Counters,
    /// Packets and octets of CSAs that are gone: sealed, opened, relayed.
    pub gone: [[AtomicU64; 2]; 3],
    pub settings: Settings,
    /// Packets whose zone 1 was rewritten, of CSAs that are gone.
    pub gone_written: AtomicU64,
    /// What CSAs hold for handoffs.
    pub hold: Holds,
    #[pin]
    pub snoop: Snoop,
    #[pin]
    pub clamp: Clamp,
    #[pin]
    pub config: Mutex<Config>,
}

impl Namespace {
    /// An empty one for `net`.
    pub(crate) fn new(net: *mut kernel::bindings::net) -> impl PinInit<Self, Error> {
        let struct_net = net;
        let config = Config {
            csas: KVec::new(),
            policies: KVec::new(),
            larvals: KVec::new(),
            numbers: KVec::new(),
            last_csa: 0,
            last_policy: 0,
            guard: false,
            relay: false,
        };
        try_pin_init!(Namespace {
            net: NetPointer::new(net),
            alarm: Alarm::new(struct_net, lifetime::run)?,
            sadb: Sadb::new(),
            spd: Spd::new(),
            device: DevicePlace::new(),
            counters: Counters::new(),
            gone: [const { [const { AtomicU64::new(0) }; 2] }; 3],
            settings: Settings { mss_clamp: AtomicBool::new(true), relay_drop: AtomicBool::new(false), mark: AtomicU32::new(0) },
            gone_written: AtomicU64::new(0),
            hold: Holds::new(),
            snoop <- Snoop::new(),
            clamp <- Clamp::new(),
            config <- new_mutex!(config, "mml_namespace"),
        })
    }

    /// Its `struct net`.
    #[inline]
    pub(crate) fn net(&self) -> *mut kernel::bindings::net {
        self.net.get()
    }

    /// Adds a CSA; `make` gets its number. `fills`: it takes the place of a larval one, of a reserved SPI.
    /// Nothing is changed where it fails (docs/wire.md 2.2q).
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such larval one, `EEXIST` if the place is taken, `ENOSPC` past the cap, and what `make` says.
    pub(crate) fn add_csa(
        &self,
        spi: u32,
        role: Role,
        outer: &Outer,
        dst: &pfkey::Address,
        fills: bool,
        make: impl FnOnce(u64) -> Result<Arc<Csa>>,
    ) -> Result<Arc<Csa>> {
        let mut config = self.config.lock();
        if config.csas.len() >= CSAS_MAX {
            return Err(ENOSPC);
        }
        if self.sadb.is_taken(role, spi, outer) {
            return Err(EEXIST);
        }
        let reserved = (role == Role::Terminus)
            .then(|| larval::place(&config, spi, dst))
            .flatten();
        match (fills, reserved) {
            (true, None) => return Err(ESRCH),
            (false, Some(_)) => return Err(EEXIST),
            _ => {}
        }
        let csa = make(config.last_csa + 1)?;
        config.csas.reserve(1, GFP_KERNEL_ACCOUNT)?;
        if csa.snoop().is_some() {
            self.snoop.prepare()?;
        }
        if role == Role::Relay {
            self.open_relay(&mut config)?;
        }
        self.sadb.insert(&csa)?;
        config.csas.push(csa.clone(), GFP_KERNEL_ACCOUNT)?;
        config.last_csa += 1;
        if reserved.is_some() {
            config
                .larvals
                .retain(|l| l.id.spi != spi || l.id.dst.octets != dst.octets);
        }
        Ok(csa)
    }

    /// Moves a CSA to other ends.
    ///
    /// # Errors
    ///
    /// `EEXIST` if another CSA is there, `ENOSPC` for a relay that may write where there were as many relay numbers as may
    /// be, `ENOMEM`; it stays where it was then.
    pub(crate) fn migrate(&self, csa: &Arc<Csa>, path: &Path) -> Result {
        let mut config = self.config.lock();
        let same = |other: &Csa| {
            other.id != csa.id
                && (other.role, other.spi) == (csa.role, csa.spi)
                && match csa.role {
                    Role::Terminus => other.ends.are_to(&path.outer),
                    _ => other.ends.are(&path.outer),
                }
        };
        if config.csas.iter().any(|other| same(other)) {
            return Err(EEXIST);
        }
        // Where it goes its relay number is taken as well: whoever is added there later begins its counter at 0.
        if let Some(given) = Given::moved(csa, &path.outer) {
            if !config.numbers.contains(&given) {
                if config.numbers.len() >= relay_number::MOST {
                    return Err(ENOSPC);
                }
                config.numbers.push(given, GFP_KERNEL_ACCOUNT)?;
            }
        }
        self.sadb.migrate(csa, path)?;
        // SNOOP's flows are known by the ends they come between.
        if csa.role == Role::Relay {
            self.snoop.flush_csa(csa.id);
        }
        Ok(())
    }

    /// Takes CSAs away; returns them.
    pub(crate) fn remove_csas(
        &self,
        mut which: impl FnMut(&Csa) -> bool,
    ) -> Result<KVec<Arc<Csa>>> {
        let mut config = self.config.lock();
        let mut gone =
            KVec::with_capacity(config.csas.iter().filter(|c| which(c)).count(), GFP_KERNEL)?;
        config.csas.retain(|csa| {
            if !which(csa) {
                return true;
            }
            self.sadb.remove(csa);
            if csa.role == Role::Relay {
                self.snoop.flush_csa(csa.id);
            }
            if let Some(hold) = csa.hold() {
                hold.close(&self.hold);
            }
            self.counters.fold(csa.role, &csa.counters);
            let (packets, octets, _) = csa.totals();
            if let Some([p, o]) = self.gone.get(csa.role as usize - 1) {
                p.fetch_add(packets, Ordering::Relaxed);
                o.fetch_add(octets, Ordering::Relaxed);
            }
            self.gone_written
                .fetch_add(csa.written(), Ordering::Relaxed);
            // There is room for all of them.
            let _ = gone.push(csa.clone(), GFP_KERNEL);
            false
        });
        self.close_relay(&mut config);
        Ok(gone)
    }

    fn open_relay(&self, config: &mut Config) -> Result {
        if !config.relay {
            Hooks::Relay.register(self)?;
            config.relay = true;
        }
        Ok(())
    }

    /// Takes the relay's hooks away, unless there is work for them.
    fn close_relay(&self, config: &mut Config) {
        if config.relay && self.sadb.relays.len() == 0 && self.snoop.interface() == 0 {
            Hooks::Relay.unregister(self);
            config.relay = false;
        }
    }

    /// Looks after the plain TCP of an interface, by its index; of none if that is 0.
    pub(crate) fn snoop_interface(&self, index: u32) -> Result {
        let mut config = self.config.lock();
        if index != 0 {
            self.snoop.prepare()?;
            self.open_relay(&mut config)?;
        }
        self.snoop.set_interface(index);
        self.close_relay(&mut config);
        Ok(())
    }

    /// Gives a relay's CSA settings of SNOOP, which hold for new flows.
    pub(crate) fn set_snoop(&self, csa: &Csa, told: Told) -> Result {
        let _config = self.config.lock();
        self.snoop.prepare()?;
        csa.set_snoop(told)
    }

    /// Adds a policy.
    ///
    /// # Errors
    ///
    /// `EEXIST` if its direction and selector have one, `ENOSPC` past the cap, `EAFNOSUPPORT`, `ENOMEM`.
    pub(crate) fn add_policy(&self, given: &pfkey::Policy) -> Result<Arc<Policy>> {
        let mut config = self.config.lock();
        if config.policies.len() >= POLICIES_MAX {
            return Err(ENOSPC);
        }
        let policy = Policy::new(config.last_policy.checked_add(1).ok_or(ENOSPC)?, given)?;
        if self.spd.has_place_of(self.sadb.seed, &policy) {
            return Err(EEXIST);
        }
        let module = if policy.action == Action::Protect {
            Some(ModuleRef::get()?)
        } else {
            None
        };
        config.policies.reserve(1, GFP_KERNEL_ACCOUNT)?;
        if !config.guard {
            Hooks::Guard.register(self)?;
            config.guard = true;
        }
        self.spd.insert(self.sadb.seed, &policy)?;
        config.policies.push(
            Listed {
                policy: policy.clone(),
                _module: module,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        config.last_policy += 1;
        // What was let pass in clear before must not be sent again.
        self.snoop.flush_plain();
        // A flow that a flowtable forwards already must come by the guard, too.
        net::expire_routes(self);
        Ok(policy)
    }

    /// Takes policies away; says how many.
    pub(crate) fn remove_policies(&self, mut which: impl FnMut(&Policy) -> bool) -> usize {
        let mut config = self.config.lock();
        let before = config.policies.len();
        config.policies.retain(|listed| {
            let goes = which(&listed.policy);
            if goes {
                self.spd.remove(self.sadb.seed, &listed.policy);
            }
            !goes
        });
        if config.guard && config.policies.is_empty() {
            Hooks::Guard.unregister(self);
            config.guard = false;
        }
        before - config.policies.len()
    }

    /// The namespace ends: its hooks go. Tables and lists go when it is dropped, after a grace period.
    pub(crate) fn close(&self) {
        // First, and without the lock, which who it waits for may want.
        self.alarm.stop();
        let mut config = self.config.lock();
        if config.relay {
            Hooks::Relay.unregister(self);
            config.relay = false;
        }
        if config.guard {
            Hooks::Guard.unregister(self);
            config.guard = false;
        }
        for hold in config.csas.iter().filter_map(|csa| csa.hold()) {
            hold.close(&self.hold);
        }
        // No packet comes any more; timers that run already are waited for before the namespace goes.
        self.snoop.flush(|_, _, _| true);
    }
}
