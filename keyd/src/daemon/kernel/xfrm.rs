// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! XFRM, the kernel's own IPsec: plain SAs, for peers that know no zones, and their policies.

use super::xfrm_message::{self as wire, group, kind, Direction};
use super::{
    errno, gone, Action, Ends, Held, Kernel, KernelEvent, Keys, Relayed, Role, Rule, Sa, SaId,
};
use crate::netlink::{Error, Line};
use netlink_sys::protocols::NETLINK_XFRM;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// What is asked of `mml` alone.
const UNSUPPORTED: Error = Error::Refused {
    errno: errno::EOPNOTSUPP,
    text: None,
};

/// XFRM of this network namespace.
pub struct Xfrm {
    line: Line,
    /// SPIs reserved and not used yet, with the address they come to.
    reserved: HashSet<(u32, IpAddr)>,
    /// SAs that are not to be used yet. XFRM would seal with them at once.
    standby: HashMap<SaId, Sa>,
}

impl Xfrm {
    /// Opens a socket.
    ///
    /// # Errors
    /// The system's: a kernel without XFRM has none.
    pub fn open() -> Result<Self, Error> {
        Ok(Xfrm {
            line: Line::open(NETLINK_XFRM)?,
            reserved: HashSet::new(),
            standby: HashMap::new(),
        })
    }

    /// Waits for XFRM's events and gives them to `event`; `own` are this node's addresses. Never returns but with an
    /// error.
    ///
    /// # Errors
    /// The socket's.
    pub fn listen(own: &[IpAddr], event: &mut dyn FnMut(KernelEvent)) -> Result<(), Error> {
        let mut line = Line::open(NETLINK_XFRM)?;
        line.join(group::ACQUIRE)?;
        line.join(group::EXPIRE)?;
        loop {
            let heard = line.events(&mut |message| {
                match message.kind {
                    kind::ACQUIRE => wire::acquired(message)
                        .map(|selector| event(KernelEvent::Acquire(selector))),
                    kind::EXPIRE => wire::expired(message).map(|(spi, src, dst, hard)| {
                        let id = wire::sa_id(spi, src, dst, |address| own.contains(&address));
                        event(KernelEvent::Expire(id, hard));
                    }),
                    _ => None,
                };
                Ok(())
            });
            match heard {
                Ok(()) => {}
                Err(Error::Overrun) => event(KernelEvent::Overrun),
                Err(error) => return Err(error),
            }
        }
    }

    fn tell(&mut self, build: &dyn Fn(u32) -> Zeroizing<Vec<u8>>) -> Result<(), Error> {
        self.line.exchange(build, &mut |_| Ok(())).map(|_| ())
    }
}

/// What arrives is delivered here or passed on: XFRM has a policy for each. What passes in clear is never passed on.
fn directions(rule: &Rule) -> &'static [Direction] {
    match (rule.inbound, rule.action) {
        (false, _) => &[Direction::Out],
        (true, Action::Protect) => &[Direction::In, Direction::Forward],
        (true, Action::Bypass) => &[Direction::In],
    }
}

impl Kernel for Xfrm {
    fn name(&self) -> &'static str {
        "xfrm"
    }

    /// A larval SA holds the place; XFRM forgets it after `net.core.xfrm_acq_expires` seconds (30).
    fn reserve(&mut self, spi: u32, local: IpAddr, peer: IpAddr) -> Result<(), Error> {
        let done = self.tell(&|seq| wire::alloc_spi(seq, spi, peer, local));
        match done {
            // None in that range of one is free.
            Err(error) if error.errno() == Some(errno::ENOENT) => Err(Error::Refused {
                errno: errno::EEXIST,
                text: None,
            }),
            Ok(()) => {
                self.reserved.insert((spi, local));
                Ok(())
            }
            other => other,
        }
    }

    fn release(&mut self, spi: u32, local: IpAddr, _: IpAddr) -> Result<(), Error> {
        if !self.reserved.remove(&(spi, local)) {
            return Ok(());
        }
        gone(self.tell(&|seq| wire::delete_sa(seq, spi, local)))
    }

    fn add(&mut self, sa: &Sa) -> Result<(), Error> {
        let Keys::Plain { .. } = &sa.keys else {
            return Err(Error::Refused {
                errno: pfkey::errno::EINVAL,
                text: Some("a composite SA is mml's".to_owned()),
            });
        };
        if sa.standby && sa.id.role == Role::Origin {
            self.standby.insert(sa.id, sa.clone());
            return Ok(());
        }
        let place = (sa.id.spi, sa.id.dst);
        let update = self.reserved.contains(&place);
        let tell = |update| move |seq| wire::new_sa(seq, sa, update).unwrap_or_default();
        let done = match self.tell(&tell(update)) {
            // The larval one is forgotten already.
            Err(error) if update && error.errno() == Some(errno::ESRCH) => self.tell(&tell(false)),
            done => done,
        };
        if done.is_ok() {
            self.reserved.remove(&place);
        }
        done
    }

    /// XFRM has no standby: it seals with the newest SA there is. So that it isn't the newest, it comes now.
    fn activate(&mut self, id: &SaId) -> Result<(), Error> {
        let Some(waiting) = self.standby.remove(id) else {
            return Ok(());
        };
        let sa = Sa {
            standby: false,
            ..waiting
        };
        self.add(&sa)
    }

    /// XFRM moves policies and SAs together (`XFRM_MSG_MIGRATE`), by policy; a plain child is rekeyed instead.
    fn migrate(&mut self, _: &SaId, _: &Ends) -> Result<SaId, Error> {
        Err(UNSUPPORTED)
    }

    fn remove(&mut self, id: &SaId) -> Result<(), Error> {
        if self.standby.remove(id).is_some() {
            return Ok(());
        }
        gone(self.tell(&|seq| wire::delete_sa(seq, id.spi, id.dst)))
    }

    /// XFRM drops what finds no way.
    fn resend(&mut self, _: &SaId, _: u64) -> Result<u32, Error> {
        Ok(0)
    }

    /// It has no relays.
    fn snoop_state(&mut self, _: &SaId) -> Result<Vec<u8>, Error> {
        Err(UNSUPPORTED)
    }

    fn take_over_snoop(&mut self, _: &SaId, _: &[u8]) -> Result<u32, Error> {
        Err(UNSUPPORTED)
    }

    fn relayed(&mut self) -> Result<Relayed, Error> {
        Err(UNSUPPORTED)
    }

    fn sequence(&mut self, id: &SaId) -> Result<u64, Error> {
        let mut found = None;
        self.line
            .exchange(&|seq| wire::ask_sa(seq, id.spi, id.dst), &mut |message| {
                if message.kind == kind::NEWSA {
                    found = wire::sequences(message);
                }
                Ok(())
            })?;
        let (out, seen) = found.ok_or(Error::Malformed("an SA without its replay state"))?;
        Ok(if id.role == Role::Origin { out } else { seen })
    }

    fn held(&mut self) -> Result<Vec<Held>, Error> {
        Ok(Vec::new())
    }

    fn add_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        if !wire::has_masks(&rule.selector) {
            return Err(Error::Refused {
                errno: errno::EOPNOTSUPP,
                text: Some("XFRM has no such range of ports; take one port, all, or 2^n of them from a multiple of 2^n on".to_owned()),
            });
        }
        for direction in directions(rule) {
            self.tell(&|seq| wire::policy(seq, rule, *direction))?;
        }
        Ok(())
    }

    fn remove_policy(&mut self, rule: &Rule) -> Result<(), Error> {
        if !wire::has_masks(&rule.selector) {
            return Ok(());
        }
        for direction in directions(rule) {
            gone(self.tell(&|seq| wire::delete_policy(seq, rule, *direction)))?;
        }
        Ok(())
    }
}
