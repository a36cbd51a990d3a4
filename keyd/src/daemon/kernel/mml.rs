// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The module `mml`: composite SAs, and the policies that say what must be sealed.

use super::{
    errno, gone, Action, Ends, Held, Kernel, KernelEvent, Keys, Limits, Passed, Relayed, Role,
    Rule, Sa, SaId, Zones,
};
use crate::address::{host, ip};
use crate::info::{CsaInfo, Event};
use crate::kernel::{Counters, Kernel as Module};
use crate::netlink::Error;
use mml_ike::crypto::KeyPair;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Id, IdType, ZoneTransform};
use pfkey::number::{message as kind, policy};
use pfkey::{
    Binding, Csa, CsaExt, CsaId, Encap, Lifetime, Migrate, Policy, PolicyExt, PolicyId, State,
    ZoneKeys, ZoneSa,
};
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// The module of this network namespace.
pub struct Mml {
    module: Module,
    /// Whether it takes life-times; found out by the first CSA that has some.
    lifetimes: bool,
    /// Its policies, as long as none changes: after a restart they are all there already.
    policies: Option<Vec<Policy>>,
}

impl Mml {
    /// Finds the module.
    ///
    /// # Errors
    /// [`Error::NoFamily`] when it isn't loaded.
    pub fn open() -> Result<Self, Error> {
        Ok(Mml {
            module: Module::open()?,
            lifetimes: true,
            policies: None,
        })
    }

    /// Waits for the module's events and gives them to `event`. Never returns but with an error.
    ///
    /// # Errors
    /// When there is no module, or it is taken away.
    pub fn listen(event: &mut dyn FnMut(KernelEvent)) -> Result<(), Error> {
        let mut module = Module::open()?;
        module.listen_for(&[kind::ACQUIRE, kind::EXPIRE, kind::X_NAT_T_NEW_MAPPING])?;
        loop {
            let heard = module.events(&mut |one| {
                match one {
                    Event::Acquire(policy) => event(KernelEvent::Acquire(policy.selector)),
                    Event::Expire(info, hard) => event(KernelEvent::Expire(name(&info), hard)),
                    Event::NewMapping(mapping) => {
                        let (address, port) = mapping.new;
                        let new = SocketAddr::new(ip(address.family, &address.octets), port);
                        event(KernelEvent::NewMapping(mapping.spi, new));
                    }
                    Event::State(_) | Event::Migrate(_) | Event::Other(_) => {}
                }
                Ok(())
            });
            match heard {
                Ok(()) => {}
                Err(Error::Overrun) => event(KernelEvent::Overrun),
                // Another version's event is none of ours.
                Err(Error::Malformed(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn name(info: &CsaInfo) -> SaId {
    SaId {
        spi: info.id.spi,
        src: info.src(),
        dst: info.dst(),
        role: info.id.role,
    }
}

fn csa_id(id: &SaId) -> CsaId {
    CsaId {
        spi: id.spi,
        src: host(id.src),
        dst: host(id.dst),
        role: id.role,
    }
}

fn lifetime(limits: Limits) -> Option<Lifetime> {
    (limits != Limits::default()).then_some(Lifetime {
        bytes: limits.bytes,
        addtime: limits.seconds,
        ..Lifetime::default()
    })
}

/// What is asked for by a mistake of ours looks like the kernel's refusal.
fn invalid(text: &str) -> Error {
    Error::Refused {
        errno: pfkey::errno::EINVAL,
        text: Some(text.to_owned()),
    }
}

/// A zone's SA as the message has it.
fn zone(number: u8, (transform, keys): &(ZoneTransform, KeyPair)) -> Option<ZoneSa<'_>> {
    Some(ZoneSa {
        zone: number,
        keys: Some(ZoneKeys {
            algorithm: pfkey::Algorithm::from_encr(transform.encr.0)?,
            key: pfkey::Secret::new(keys.key.expose()),
            salt: pfkey::Secret::new(keys.salt.expose()),
        }),
    })
}

/// The SA as the zone message has it.
fn message<'a>(sa: &'a Sa, zones: &'a Zones) -> Result<Csa<'a>, Error> {
    let id = csa_id(&sa.id);
    let unknown = || invalid("ZONE_SA: a transform that is not the module's");
    let zone1 = zones.zones.first().ok_or_else(unknown)?;
    let zone2 = match zones.zones.get(1) {
        Some(second) => zone(2, second).ok_or_else(unknown)?,
        None => ZoneSa::null(2),
    };
    Ok(Csa {
        spi: id.spi,
        src: id.src,
        dst: id.dst,
        ext: CsaExt {
            role: id.role,
            mode: zones.map.mode(),
            state: if sa.standby {
                State::Standby
            } else {
                State::Active
            },
            window: zones.window,
            generation: zones.generation,
            sequence: zones.sequence,
        },
        selector: sa.selector,
        map: zones.map,
        zones: [zone(1, zone1).ok_or_else(unknown)?, zone2],
        relay: zones.relay,
        hard: lifetime(sa.hard),
        soft: lifetime(sa.soft),
        binding: Some(Binding {
            kind: sa.peer.kind.0,
            data: &sa.peer.data,
        }),
        snoop: zones.snoop,
        encap: sa.udp.map(|(sport, dport)| Encap { sport, dport }),
    })
}

/// A CSA of the module's list, if it is one that keyd installed: those made by hand have no peer to be claimed from.
fn held(csa: &Csa<'_>, since: Option<u64>, now: u64) -> Option<Held> {
    let binding = csa.binding?;
    let pair = |sa: &ZoneSa<'_>| {
        let keys = sa.keys?;
        let transform = ZoneTransform {
            encr: Encr(keys.algorithm.encr()),
            key_bits: u16::try_from(keys.key.len() * 8).ok()?,
        };
        let pair = KeyPair {
            key: Secret::copy(keys.key.expose()),
            salt: Secret::copy(keys.salt.expose()),
        };
        Some((transform, pair))
    };
    let limits = |lifetime: Option<Lifetime>| {
        lifetime.map_or(Limits::default(), |lifetime| Limits {
            seconds: lifetime.addtime,
            bytes: lifetime.bytes,
        })
    };
    let hard = limits(csa.hard);
    let end =
        since.and_then(|since| (hard.seconds != 0).then(|| since.saturating_add(hard.seconds)));
    Some(Held {
        sa: Sa {
            id: SaId {
                spi: csa.spi,
                src: ip(csa.src.family, &csa.src.octets),
                dst: ip(csa.dst.family, &csa.dst.octets),
                role: csa.ext.role,
            },
            selector: csa.selector,
            standby: csa.ext.state == State::Standby,
            soft: limits(csa.soft),
            hard,
            udp: csa.encap.map(|encap| (encap.sport, encap.dport)),
            mode: csa.map.mode(),
            reqid: 0,
            peer: Id {
                kind: IdType(binding.kind),
                data: binding.data.to_vec(),
            },
            keys: Keys::Zones(Box::new(Zones {
                map: csa.map,
                generation: csa.ext.generation,
                window: csa.ext.window,
                sequence: csa.ext.sequence,
                relay: csa.relay,
                zones: csa.zones.iter().filter_map(pair).collect(),
                snoop: csa.snoop,
            })),
        },
        since: since.unwrap_or(0),
        left: end.map(|end| end.saturating_sub(now)),
    })
}

/// What there is of forwarded ESP among the module's counters. A CSA's other numbers are reasons for which a packet passed
/// unopened (docs/wire.md 2.1g).
fn relayed(counters: &[Counters]) -> Relayed {
    const OPENED: &str = "relayed-packets";
    const NOT_REASONS: [&str; 4] = [OPENED, "relayed-octets", "rewritten-packets", "sequence"];
    let mut all = Relayed::default();
    for one in counters {
        let of = |name: &str| {
            let found = one.values.iter().find(|(other, _)| other == name);
            found.map_or(0, |(_, value)| *value)
        };
        let Some(csa) = &one.csa else {
            (all.opened, all.no_csa) = (of(OPENED), of("relay-no-csa"));
            continue;
        };
        if csa.role != Some(Role::Relay) {
            continue;
        }
        let id = SaId {
            spi: csa.spi,
            src: csa.src,
            dst: csa.dst,
            role: Role::Relay,
        };
        let reasons = one.values.iter();
        let reasons = reasons.filter(|(name, _)| !NOT_REASONS.contains(&name.as_str()));
        let passed = Passed {
            opened: of(OPENED),
            unopened: reasons.fold(0, |sum, (_, value)| sum.saturating_add(*value)),
        };
        all.csas.insert(id, passed);
    }
    all
}

/// A policy as the zone message has it.
fn rule_message(rule: &Rule) -> Policy {
    Policy {
        ext: PolicyExt {
            kind: match rule.action {
                Action::Protect => policy::PROTECT,
                Action::Bypass => policy::BYPASS,
            },
            direction: direction(rule),
            id: 0,
            priority: rule.priority,
        },
        selector: rule.selector,
        template: rule.outer.map(|(src, dst)| (host(src), host(dst))),
    }
}

fn direction(rule: &Rule) -> u8 {
    if rule.inbound {
        policy::DIR_IN
    } else {
        policy::DIR_OUT
    }
}

impl Kernel for Mml {
    fn name(&self) -> &'static str {
        "mml"
    }

    /// The module keeps no list of SPIs that are only reserved: the engine does, for both kernels.
    fn reserve(&mut self, spi: u32, local: IpAddr, peer: IpAddr) -> Result<(), Error> {
        let id = CsaId {
            spi,
            src: host(peer),
            dst: host(local),
            role: Role::Terminus,
        };
        if self.module.has_csa(&id)? {
            return Err(Error::Refused {
                errno: errno::EEXIST,
                text: None,
            });
        }
        Ok(())
    }

    fn release(&mut self, _: u32, _: IpAddr, _: IpAddr) -> Result<(), Error> {
        Ok(())
    }

    fn add(&mut self, sa: &Sa) -> Result<(), Error> {
        let Keys::Zones(zones) = &sa.keys else {
            return Err(invalid("a plain SA is XFRM's"));
        };
        let mut csa = message(sa, zones)?;
        if !self.lifetimes {
            (csa.hard, csa.soft) = (None, None);
        }
        match self.module.add_csa(&csa) {
            // A module without life-times: keyd's own clock has them too.
            Err(Error::Refused { errno: why, text })
                if why == errno::EOPNOTSUPP
                    && text
                        .as_ref()
                        .is_some_and(|text| text.starts_with("LIFETIME")) =>
            {
                self.lifetimes = false;
                (csa.hard, csa.soft) = (None, None);
                self.module.add_csa(&csa)
            }
            done => done,
        }
    }

    fn activate(&mut self, id: &SaId) -> Result<(), Error> {
        self.module.update_csa(&csa_id(id), State::Active, 0)
    }

    fn migrate(&mut self, id: &SaId, to: &Ends) -> Result<SaId, Error> {
        self.module.migrate_csa(&Migrate {
            id: csa_id(id),
            src: host(to.src.ip()),
            dst: host(to.dst.ip()),
            encap: to.udp.then(|| Encap {
                sport: to.src.port(),
                dport: to.dst.port(),
            }),
        })?;
        Ok(SaId {
            src: to.src.ip(),
            dst: to.dst.ip(),
            ..*id
        })
    }

    fn remove(&mut self, id: &SaId) -> Result<(), Error> {
        gone(self.module.delete_csa(&csa_id(id)))
    }

    fn resend(&mut self, id: &SaId, seen: u64) -> Result<u32, Error> {
        self.module.resend_csa(&csa_id(id), seen)
    }

    fn snoop_state(&mut self, id: &SaId) -> Result<Vec<u8>, Error> {
        self.module.snoop_state(&csa_id(id))
    }

    fn take_over_snoop(&mut self, id: &SaId, state: &[u8]) -> Result<u32, Error> {
        self.module.take_over_snoop(&csa_id(id), state)
    }

    fn relayed(&mut self) -> Result<Relayed, Error> {
        Ok(relayed(&self.module.stats()?))
    }

    fn sequence(&mut self, id: &SaId) -> Result<u64, Error> {
        Ok(self.module.csa(&csa_id(id))?.ext.sequence)
    }

    fn held(&mut self) -> Result<Vec<Held>, Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.module
            .whole_csas(&mut |csa, since| held(csa, since, now))
    }

    fn add_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        let policy = rule_message(rule);
        let add = |module: &mut Module| module.add_policy(&policy).map(|_| ());
        match add(&mut self.module) {
            // There is one of this selector. Is it the same, it stays, so that nothing goes in clear in between.
            Err(error) if error.errno() == Some(errno::EEXIST) => {
                if self.has_policy(&policy)? {
                    return Ok(());
                }
                self.remove_policy(rule)?;
                add(&mut self.module)
            }
            done => {
                self.policies = None;
                done
            }
        }
    }

    fn remove_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        self.policies = None;
        let id = PolicyId::Selector(direction(rule), rule.selector);
        gone(self.module.delete_policy(&id))
    }
}

impl Mml {
    /// Whether there is this very policy, whatever its number.
    fn has_policy(&mut self, policy: &Policy) -> Result<bool, Error> {
        let list = match self.policies.take() {
            Some(list) => list,
            None => self.module.policies()?,
        };
        let has = list.iter().any(|one| {
            let ext = PolicyExt { id: 0, ..one.ext };
            (ext, one.selector, one.template) == (policy.ext, policy.selector, policy.template)
        });
        self.policies = Some(list);
        Ok(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::CounterOwner;
    use pfkey::{Message, Mode, Relay, ZoneMap};

    #[test]
    fn of_the_modules_counters_those_of_relays_say_what_was_opened_and_what_passed() {
        let values = |list: &[(&str, u64)]| {
            let list = list
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value));
            list.collect::<Vec<_>>()
        };
        let csa = |role, list: &[(&str, u64)]| Counters {
            csa: Some(CounterOwner {
                spi: 7,
                src: IpAddr::from([198, 51, 100, 1]),
                dst: IpAddr::from([203, 0, 113, 7]),
                role: Some(role),
            }),
            values: values(list),
        };
        let counted = [
            ("relayed-packets", 10),
            ("relayed-octets", 900),
            ("rewritten-packets", 3),
            ("sequence", 12),
            ("icv1", 2),
            ("replay", 1),
        ];
        let all = relayed(&[
            Counters {
                csa: None,
                values: values(&[("relayed-packets", 90), ("relay-no-csa", 5), ("csas", 2)]),
            },
            csa(Role::Relay, &counted),
            csa(Role::Origin, &[("sealed-packets", 4), ("too-big", 6)]),
        ]);
        assert_eq!((all.opened, all.no_csa, all.csas.len()), (90, 5, 1));
        let passed = all.csas.values().next().copied();
        let expected = Passed {
            opened: 10,
            unopened: 3,
        };
        assert_eq!(passed, Some(expected));
    }

    #[test]
    fn a_csa_is_read_back_from_the_module_as_it_was_added_keys_and_peer_too() {
        let pair = |octet| KeyPair {
            key: Secret::new(vec![octet; 32]),
            salt: Secret::new(vec![octet; 4]),
        };
        let transform = ZoneTransform {
            encr: Encr::AES_GCM_16_IIV,
            key_bits: 256,
        };
        let sa = Sa {
            id: SaId {
                spi: 0x1000,
                src: IpAddr::from([198, 51, 100, 1]),
                dst: IpAddr::from([10, 1, 1, 7]),
                role: Role::Origin,
            },
            selector: crate::address::selector(
                crate::address::Prefix::ANY,
                "203.0.113.7/32".parse().unwrap(),
                0,
            )
            .unwrap(),
            standby: true,
            soft: Limits {
                seconds: 10,
                bytes: 0,
            },
            hard: Limits {
                seconds: 20,
                bytes: 30,
            },
            udp: Some((4500, 61_000)),
            mode: Mode::Tunnel,
            reqid: 0,
            peer: Id::fqdn("mh.example"),
            keys: Keys::Zones(Box::new(Zones {
                map: ZoneMap::default_for(Mode::Tunnel),
                generation: 7,
                window: 64,
                sequence: 9,
                relay: Relay::default(),
                zones: vec![(transform, pair(1)), (transform, pair(2))],
                snoop: None,
            })),
        };
        let Keys::Zones(zones) = &sa.keys else {
            panic!()
        };
        let csa = message(&sa, zones).unwrap();
        let mut buffer = [0; pfkey::MAX_LEN];
        let octets = crate::kernel::add_message(&mut buffer, &csa, 1).unwrap();
        let read = Message::parse(octets).unwrap();
        let csa = Csa::from_message(&read).unwrap();
        let back = held(&csa, Some(100), 105).unwrap();
        assert_eq!(back.sa, sa);
        assert_eq!(back.left, Some(15));
    }
}
