// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The device that seals, its addresses and what leads into it, where they are keyd's to make (docs/keyd.md, `[device]`).
//!
//! What there is to be is one [`Plan`]; what there is of ours already is read from the kernel each time, so that a keyd that
//! begins anew, or a device that was set down and up, comes to the same.

mod message;
pub mod plan;

use self::message as wire;
use super::config;
use crate::netlink::route::already;
use crate::netlink::{Error, Line};
use message::Rule;
use netlink_sys::protocols::NETLINK_ROUTE;
use plan::{Inward, Plan};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// `ENOENT`, `ESRCH`, `ENODEV`, `EADDRNOTAVAIL`: there is no such thing.
const GONE: [i32; 4] = [2, 3, 19, 99];
/// `EEXIST`.
const EXISTS: i32 = 17;
/// `EINVAL`: of a route, that its source is none of this node's addresses.
const INVALID: i32 = 22;
/// `EOPNOTSUPP`, `EAFNOSUPPORT`: the kernel knows no such device, or no such family.
const NOT_SUPPORTED: [i32; 2] = [95, 97];
/// What the module marks with what it has sealed, where nobody says otherwise: "ML".
const MARK: u64 = 0x4D4C;

/// The device.
pub struct Device {
    line: Line,
    name: String,
    routes: bool,
    index: u32,
    ports: [u16; 2],
    plan: Plan,
}

impl Device {
    /// Finds the device, or makes it.
    ///
    /// # Errors
    /// What it was and what mends it.
    pub fn open(config: &config::Config, of: &config::Device) -> Result<Self, String> {
        let wrong = |error: Error| format!("device {}: {error}", of.name);
        let mut device = Device {
            line: Line::open(NETLINK_ROUTE).map_err(wrong)?,
            name: of.name.clone(),
            routes: of.routes,
            index: 0,
            ports: [config.port, config.nat_port],
            plan: Plan::default(),
        };
        let found = match device.find().map_err(wrong)? {
            Some(found) => found,
            None => {
                let made = device.tell(&|seq| wire::make(seq, &of.name));
                made.map_err(|error| match error.errno() {
                    Some(errno) if NOT_SUPPORTED.contains(&errno) => {
                        format!(
                            "device {}: the kernel knows none that seals; `modprobe mml`",
                            of.name
                        )
                    }
                    _ => wrong(error),
                })?;
                let found = device
                    .find()
                    .map_err(wrong)?
                    .ok_or_else(|| format!("device {}: it was made, and is gone again", of.name))?;
                device
                    .tell(&|seq| wire::sign(seq, found.index))
                    .map_err(wrong)?;
                tracing::info!(device = of.name, "made");
                found
            }
        };
        if !found.seals {
            return Err(format!(
                "device {}: there is one of this name that seals nothing; take another `name`, or take it away",
                of.name
            ));
        }
        device.index = found.index;
        device
            .tell(&|seq| wire::up(seq, found.index))
            .map_err(wrong)?;
        Ok(device)
    }

    fn find(&mut self) -> Result<Option<wire::Found>, Error> {
        let mut found = None;
        let name = &self.name;
        let done = self
            .line
            .exchange(&|seq| wire::find(seq, name), &mut |message| {
                found = wire::found(message).or(found.take());
                Ok(())
            });
        already(done.map(|_| ()), &GONE)?;
        Ok(found)
    }

    fn tell(&mut self, build: &dyn Fn(u32) -> zeroize::Zeroizing<Vec<u8>>) -> Result<(), Error> {
        self.line.exchange(build, &mut |_| Ok(())).map(|_| ())
    }

    /// Makes it so: what isn't there comes, and what is too much of ours goes. What can't be done is said in the log, and
    /// doesn't keep the rest from being done.
    pub fn apply(&mut self, plan: Plan) {
        self.plan = plan;
        if let Err(error) = self.bring() {
            tracing::error!(
                device = self.name,
                "what leads into it can't be read: {error}"
            );
        }
    }

    /// A link is up again: the kernel has forgotten its routes.
    pub fn link_up(&mut self, index: u32) {
        if index == self.index {
            self.apply(self.plan.clone());
        }
    }

    fn bring(&mut self) -> Result<(), Error> {
        let index = self.index;
        let mut has = BTreeSet::new();
        self.line.exchange(&wire::addresses, &mut |message| {
            has.extend(wire::own_address(message, index));
            Ok(())
        })?;
        let wanted = std::mem::take(&mut self.plan);
        // An address comes before the routes that have it as their source.
        for address in wanted.addresses.difference(&has) {
            let done = self.tell(&|seq| wire::new_address(seq, index, *address));
            self.done(done, &format!("address {address}"));
        }
        if self.routes {
            self.bring_routes(&wanted)?;
        }
        for address in has.difference(&wanted.addresses) {
            self.lose_address(*address);
        }
        self.plan = wanted;
        Ok(())
    }

    fn bring_routes(&mut self, wanted: &Plan) -> Result<(), Error> {
        let index = self.index;
        let has = self.own_routes()?;
        for ipv4 in [true, false] {
            // What is sealed is kept out before anything is led in, and for as long as anything is.
            if wanted.is_apart(ipv4) {
                self.keep_out(ipv4);
            }
        }
        // One to the same place from elsewhere goes when the other takes its place.
        for route in wanted.routes.difference(&has) {
            let mut done = self.tell(&|seq| wire::new_route(seq, index, route));
            if route.source.is_some() && done.as_ref().is_err_and(|e| e.errno() == Some(INVALID)) {
                let anyhow = Inward {
                    source: None,
                    ..*route
                };
                done = self.tell(&|seq| wire::new_route(seq, index, &anyhow));
            }
            self.done(done, &format!("route to {}/{}", route.to.0, route.to.1));
        }
        let replaced = |old: &&Inward| {
            let mut new = wanted.routes.iter();
            !new.any(|new| (new.to, new.apart) == (old.to, old.apart))
        };
        for route in has.difference(&wanted.routes).filter(replaced) {
            self.lose_route(route);
        }
        for ipv4 in [true, false] {
            let was = has
                .iter()
                .any(|old| old.apart && old.to.0.is_ipv4() == ipv4);
            if was && !wanted.is_apart(ipv4) {
                self.lose_rules(ipv4);
            }
        }
        Ok(())
    }

    fn own_routes(&mut self) -> Result<BTreeSet<Inward>, Error> {
        let index = self.index;
        let mut has = BTreeSet::new();
        for ipv4 in [true, false] {
            let all = self
                .line
                .exchange(&|seq| wire::routes(seq, ipv4), &mut |message| {
                    has.extend(wire::own_route(message, index));
                    Ok(())
                });
            already(all.map(|_| ()), &NOT_SUPPORTED)?;
        }
        Ok(has)
    }

    fn rules(ports: [u16; 2], mark: Option<u32>) -> Vec<Rule> {
        let past = [Rule::Esp, Rule::Port(ports[0]), Rule::Port(ports[1])];
        past.into_iter().chain(mark.map(Rule::Mark)).collect()
    }

    /// What is sealed, and IKE, goes by `main`; all else is looked for among what stands apart, first.
    fn keep_out(&mut self, ipv4: bool) {
        let mark = if ipv4 { None } else { self.mark() };
        let mut rules = Device::rules(self.ports, mark);
        rules.push(Rule::Rest);
        for rule in rules {
            let done = self.tell(&|seq| wire::new_rule(seq, ipv4, rule));
            self.done(already(done, &[EXISTS]), &format!("rule {rule:?}"));
        }
    }

    fn lose_rules(&mut self, ipv4: bool) {
        let mark = if ipv4 { None } else { self.mark() };
        let rules = Device::rules(self.ports, mark);
        for rule in std::iter::once(Rule::Rest).chain(rules) {
            let done = self.tell(&|seq| wire::delete_rule(seq, ipv4, rule));
            self.done(already(done, &GONE), &format!("rule {rule:?}"));
        }
    }

    /// What the module marks with what it has sealed: of an IPv6 path the kernel looks up what ICMP says by mark, and by no
    /// protocol (docs/mmlctl.md, transport mode).
    fn mark(&self) -> Option<u32> {
        const SETTING: &str = "route-mark";
        let read_or_set = || -> Result<u64, Error> {
            let mut kernel = crate::kernel::Kernel::open()?;
            let counters = kernel.stats()?;
            let mut settings = counters.iter().filter(|one| one.csa.is_none());
            let mut settings = settings.next().into_iter().flat_map(|one| &one.values);
            let set = settings.find(|(name, _)| name == SETTING);
            match set.map_or(0, |(_, value)| *value) {
                0 => kernel.set(SETTING, MARK).map(|()| MARK),
                mark => Ok(mark),
            }
        };
        match read_or_set() {
            Ok(mark) => u32::try_from(mark).ok(),
            Err(error) => {
                tracing::error!(device = self.name, "{SETTING} can't be set: {error}");
                None
            }
        }
    }

    fn done(&self, done: Result<(), Error>, what: &str) {
        if let Err(error) = done {
            tracing::error!(device = self.name, "{what}: {error}");
        }
    }

    fn lose_route(&mut self, route: &Inward) {
        let index = self.index;
        let done = self.tell(&|seq| wire::delete_route(seq, index, route));
        self.done(
            already(done, &GONE),
            &format!("route to {}/{}", route.to.0, route.to.1),
        );
    }

    fn lose_address(&mut self, address: IpAddr) {
        let index = self.index;
        let done = self.tell(&|seq| wire::delete_address(seq, index, address));
        self.done(already(done, &GONE), &format!("address {address}"));
    }

    /// Takes away all that keyd made, the device too if it did.
    pub fn flush(&mut self) {
        self.apply(Plan::default());
        match self.find() {
            Ok(Some(found)) if found.ours && found.index == self.index => {
                let done = self.tell(&|seq| wire::unmake(seq, found.index));
                self.done(already(done, &GONE), "taking it away");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(device = self.name, "{error}"),
        }
    }
}
