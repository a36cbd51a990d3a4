// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where SAs and policies are installed: composite SAs in `mml`, plain ones in XFRM.
//!
//! One trait, [`Kernel`], with two implementations: [`Mml`] speaks the zone message over generic netlink, [`Xfrm`] the
//! kernel's own IPsec. Both are asked synchronously: the kernel answers at once.

mod mml;
mod xfrm;
pub mod xfrm_message;

pub use mml::Mml;
pub use xfrm::Xfrm;

pub use crate::netlink::Error;
use mml_ike::crypto::{Cipher, KeyPair};
use mml_ike::wire::{Id, ZoneTransform};
pub use pfkey::Role;
use pfkey::{Mode, Relay, Selector, Snoop, ZoneMap};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One direction's SA: where it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SaId {
    /// The SPI.
    pub spi: u32,
    /// The outer source.
    pub src: IpAddr,
    /// The outer destination.
    pub dst: IpAddr,
    /// What this node does with it.
    pub role: Role,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SaId {
            spi,
            src,
            dst,
            role,
        } = self;
        write!(f, "{} {spi:#010x} {src} → {dst}", role.name())
    }
}

/// When an SA ends or asks to be replaced. 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Seconds from when it is made.
    pub seconds: u64,
    /// Octets carried.
    pub bytes: u64,
}

/// One direction's SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sa {
    /// Where it is found.
    pub id: SaId,
    /// The packets inside, in their own direction.
    pub selector: Selector,
    /// Whether it is not to be used yet.
    pub standby: bool,
    /// When it is to be replaced.
    pub soft: Limits,
    /// When it ends.
    pub hard: Limits,
    /// Source and destination port, where packets go within UDP (RFC 3948).
    pub udp: Option<(u16, u16)>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Which connection it is of: XFRM's policies find its SAs by it.
    pub reqid: u32,
    /// Who the peer is: by it the CSA is claimed after a restart.
    pub peer: Id,
    /// What seals it.
    pub keys: Keys,
}

/// Transforms and keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Plain ESP.
    Plain {
        /// The cipher.
        cipher: Cipher,
        /// Whether sequence numbers have 64 bits.
        esn: bool,
        /// Key and salt.
        keys: KeyPair,
    },
    /// Zones.
    Zones(Box<Zones>),
}

/// A composite SA's zones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zones {
    /// Where they stop.
    pub map: ZoneMap,
    /// Which CSA of its pair of hosts.
    pub generation: u32,
    /// The replay window, in packets.
    pub window: u32,
    /// The last number sealed or seen.
    pub sequence: u64,
    /// Whether relays may write; which relay this is.
    pub relay: Relay,
    /// Transform and keys of each zone this node can open, zone 1 first: a relay has one.
    pub zones: Vec<(ZoneTransform, KeyPair)>,
    /// Relay: how losses are repaired.
    pub snoop: Option<Snoop>,
}

/// A CSA that outlived a restart of the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The CSA.
    pub sa: Sa,
    /// When it was installed, in seconds since 1970.
    pub since: u64,
    /// Seconds that are left of its life; `None` if it has no limit.
    pub left: Option<u64>,
}

/// ESP that a relay's CSA had to do with, in packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Whose zone 1 was opened.
    pub opened: u64,
    /// Passed on unopened, for whatever reason.
    pub unopened: u64,
}

/// What the module has counted of ESP that was forwarded here, in packets since it was loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relayed {
    /// Under CSAs, those that are gone included.
    pub opened: u64,
    /// Of SPIs that no CSA is for (`relay-no-csa`).
    pub no_csa: u64,
    /// Of each relay CSA's directions that is there.
    pub csas: HashMap<SaId, Passed>,
}

/// What is done with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Sealed or not at all.
    Protect,
    /// In clear.
    Bypass,
}

/// A policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Whether for what arrives, or else for what leaves and is forwarded.
    pub inbound: bool,
    /// What is done.
    pub action: Action,
    /// Which packets.
    pub selector: Selector,
    /// The lowest is asked first.
    pub priority: u32,
    /// The outer source and destination of what is asked for; only where it protects.
    pub outer: Option<(IpAddr, IpAddr)>,
    /// The mode of what is asked for.
    pub mode: Mode,
    /// Which connection it is of.
    pub reqid: u32,
}

/// The outer ends of an SA, in its packets' direction; the ports matter where packets go within UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Whence.
    pub src: SocketAddr,
    /// Whither.
    pub dst: SocketAddr,
    /// Whether packets go within UDP (RFC 3948).
    pub udp: bool,
}

impl Ends {
    /// The way back.
    pub fn back(self) -> Self {
        Ends {
            src: self.dst,
            dst: self.src,
            udp: self.udp,
        }
    }
}

/// What a kernel says on its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelEvent {
    /// A packet wants an SA: its own ends (`mml`), or the selector of the policy that said so (XFRM).
    Acquire(Selector),
    /// An SA came to a limit: the hard one (true), and is gone; or the soft one.
    Expire(SaId, bool),
    /// Authentic packets to this node under that SPI come from another address or port: a NAT changed its mind.
    NewMapping(u32, SocketAddr),
    /// Some events were lost.
    Overrun,
}

/// A place for SAs and policies.
pub trait Kernel {
    /// What it is called in the log.
    fn name(&self) -> &'static str;

    /// Reserves an SPI for packets from `peer` to `local`, in host order.
    ///
    /// # Errors
    /// `EEXIST` when it is taken.
    fn reserve(&mut self, spi: u32, local: IpAddr, peer: IpAddr) -> Result<(), Error>;

    /// Gives a reserved SPI back.
    ///
    /// # Errors
    /// The kernel's. That it was not reserved is none.
    fn release(&mut self, spi: u32, local: IpAddr, peer: IpAddr) -> Result<(), Error>;

    /// Installs an SA.
    ///
    /// # Errors
    /// The kernel's.
    fn add(&mut self, sa: &Sa) -> Result<(), Error>;

    /// Makes a standby SA one that is used.
    ///
    /// # Errors
    /// The kernel's.
    fn activate(&mut self, id: &SaId) -> Result<(), Error>;

    /// Lets an SA go on between other ends, with its keys and counters. Gives where it is found from now on.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where it has no such thing: then there must be new keys.
    fn migrate(&mut self, id: &SaId, to: &Ends) -> Result<SaId, Error>;

    /// Takes an SA away.
    ///
    /// # Errors
    /// The kernel's. That there is none is no error.
    fn remove(&mut self, id: &SaId) -> Result<(), Error>;

    /// The last sequence number sealed or seen under an SA.
    ///
    /// # Errors
    /// The kernel's.
    fn sequence(&mut self, id: &SaId) -> Result<u64, Error>;

    /// Sends what is held for an SA, by the routes there are now; of copies those behind number `seen`, with 0 all of a relay's and
    /// none of an origin's (docs/wire.md 2.2v). How many packets that is.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where the SA holds nothing.
    fn resend(&mut self, id: &SaId, seen: u64) -> Result<u32, Error>;

    /// What SNOOP knows of the flows of a relay's SA (docs/wire.md 2.2y).
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where SNOOP doesn't look after it.
    fn snoop_state(&mut self, id: &SaId) -> Result<Vec<u8>, Error>;

    /// Has SNOOP take over what another foreign agent's knew. Of how many flows that was.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where SNOOP doesn't look after it, `EINVAL` where the state can't be.
    fn take_over_snoop(&mut self, id: &SaId, state: &[u8]) -> Result<u32, Error>;

    /// What was forwarded of ESP, opened or not, at a foreign agent.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` where it opens nothing on the way.
    fn relayed(&mut self) -> Result<Relayed, Error>;

    /// What is installed that can be claimed after a restart. XFRM has nothing of the kind.
    ///
    /// # Errors
    /// The kernel's.
    fn held(&mut self) -> Result<Vec<Held>, Error>;

    /// Adds a policy. One that is there already is left, or put in its place.
    ///
    /// # Errors
    /// The kernel's.
    fn add_policy(&mut self, rule: &Rule) -> Result<(), Error>;

    /// Takes a policy away.
    ///
    /// # Errors
    /// The kernel's. That there is none is no error.
    fn remove_policy(&mut self, rule: &Rule) -> Result<(), Error>;
}

/// Linux's error numbers that mean something here (`errno-base.h`, `errno.h`).
pub mod errno {
    /// There is no such policy.
    pub const ENOENT: i32 = 2;
    /// There is no such SA.
    pub const ESRCH: i32 = 3;
    /// There is one already.
    pub const EEXIST: i32 = 17;
    /// It is not done here.
    pub const EOPNOTSUPP: i32 = 95;
}

/// That what is to be taken away isn't there is no error.
pub(crate) fn gone(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if matches!(error.errno(), Some(errno::ESRCH | errno::ENOENT)) => Ok(()),
        other => other,
    }
}
